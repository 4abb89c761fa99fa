"""What type checkers make of a program that uses the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "tests" / "typed_client.py"


def checked(checker: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a type checker on one file, as strictly as it can be."""
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}"]
    if checker == "pyright":
        options = ["--pythonpath", sys.executable]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "MYPYPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", checker, *options, str(path)],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_client_is_well_typed_and_wrong_calls_are_not(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    outcome = checked(checker, CLIENT)
    assert outcome.returncode == 0, outcome.stdout

    for wrong in (
        'rf.trian("readings.csv")',
        'rf.train("readings.csv", horizn=24)',
        'rf.train("readings.csv", hidden="8")',
        'rf.predict("readings.csv", epochs=3)',
        'rf.load("model").metrics["network"].mase',
    ):
        (tmp_path / "client.py").write_text(f"import rnnforecast as rf\n\n{wrong}\n")
        outcome = checked(checker, tmp_path / "client.py")
        assert outcome.returncode == 1 and "client.py:3:" in outcome.stdout, wrong
