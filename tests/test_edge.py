"""An install without torch, scikit-learn, scipy and matplotlib does all that needs no training.

`make edge` runs these tests in such an environment; where torch is installed they are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from tests.builders import SMALL_JOB
from tests.conftest import Command
from tests.strangers import rewrite_manifest

ROOT = Path(__file__).parent.parent
RELEASED = ROOT / "tests" / "artifacts" / "format-4"
FULL = ROOT / ".venv" / "bin" / "python"
"""The interpreter of the environment of `make test`, where everything is installed."""
ABSENT = ("torch", "sklearn", "scipy", "matplotlib")
BUILTIN_JOB = SMALL_JOB.replace('path = "model"', 'path = "builtin"') + '[ledger]\npath = "ledger"'

pytestmark = [
    pytest.mark.edge,
    pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed here"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a saved model and the readings that it was trained on."""
    shutil.copytree(RELEASED, tmp_path, dirs_exist_ok=True)
    (tmp_path / "forecast.csv").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def succeeded(command: Command, *arguments: object) -> str:
    """Run a command that has to end with 0, and return what it printed."""
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_what_only_training_and_pictures_need_is_not_installed() -> None:
    assert [name for name in ABSENT if find_spec(name) is not None] == []


def test_the_environment_is_below_350_mb() -> None:
    files = (path for path in Path(sys.prefix).rglob("*") if path.is_file())
    assert sum(path.lstat().st_size for path in files) < 350 << 20


def test_the_built_in_network_forecasts(command: Command, place: Path) -> None:
    succeeded(command, "predict", "data.csv", "-m", "builtin")

    forecast = pd.read_csv(place / "forecast.csv")
    assert set(forecast["series"]) == {"flow", "level"}
    assert (forecast["q10"] <= forecast["forecast"]).all()
    assert (forecast["forecast"] <= forecast["q90"]).all()


def test_a_saved_network_forecasts_what_it_did_where_it_was_trained(
    command: Command, place: Path
) -> None:
    succeeded(command, "predict", "data.csv")

    made, expected = pd.read_csv(place / "forecast.csv"), pd.read_csv(RELEASED / "forecast.csv")
    assert made[["series", "timestamp"]].equals(expected[["series", "timestamp"]])
    pd.testing.assert_frame_equal(made, expected, rtol=1e-4)


@pytest.mark.skipif(not FULL.exists(), reason="there is no environment with torch")
@pytest.mark.parametrize("model", ["builtin", "model"])
def test_forecasts_are_the_bytes_of_the_full_environment(
    command: Command, place: Path, model: str
) -> None:
    line = ["predict", "data.csv", "-m", model, "-q", "-o"]

    succeeded(command, *line, "edge.csv")
    subprocess.run(
        [FULL, "-m", "rnnforecast", *line, "full.csv"],
        check=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )

    assert (place / "edge.csv").read_bytes() == (place / "full.csv").read_bytes()


def test_a_job_runs_is_scored_and_tells_its_status(command: Command, place: Path) -> None:
    (place / "job.toml").write_text(BUILTIN_JOB)
    stamps = pd.read_csv(place / "data.csv")["timestamp"]

    succeeded(command, "run", "job.toml", "--as-of", stamps.iloc[-25])
    succeeded(command, "run", "job.toml")
    scored = command("score", "--job", "job.toml", "--json")

    assert scored.code == 0, scored.err
    assert sum(score["n"] for score in scored.document["scores"]) == 2 * 24
    succeeded(command, "status", "job.toml")


def test_a_version_is_shown_and_activated(command: Command, place: Path) -> None:
    (version,) = (path.name for path in (place / "model" / "versions").iterdir())

    assert version in succeeded(command, "show")
    assert version in succeeded(command, "show", "--versions")
    succeeded(command, "use", version)

    assert (place / "model" / "CURRENT").read_text().strip() == version


@pytest.mark.usefixtures("place")
def test_readings_are_checked(command: Command) -> None:
    assert "flow" in succeeded(command, "check", "data.csv")
    succeeded(command, "check", "data.csv", "--model", "model")


def test_readings_in_buckets_are_forecast_by_workers(command: Command, place: Path) -> None:
    rewrite_manifest(place / "model", schema__series="series", schema__targets=["value"])
    succeeded(command, "shard", "data.csv", "--output", "plant", "--buckets", "2")
    succeeded(command, "predict", "plant", "-m", "model", "-o", "parts", "--workers", "2")

    parts = pd.read_parquet(place / "parts" / (place / "parts" / "CURRENT").read_text().strip())
    assert set(parts["series"]) == {"flow", "level"}


@pytest.mark.usefixtures("place")
def test_a_forecast_is_drawn_in_the_terminal(command: Command) -> None:
    succeeded(command, "predict", "data.csv", "-q")

    assert "flow: readings, then forecast" in succeeded(command, "plot", "--data", "data.csv")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("line", "library"),
    [
        (("train", "data.csv"), "torch"),
        (("backtest", "data.csv"), "torch"),
        (("memory", "data.csv"), "torch"),
        (("plot", "--forecast", "forecast.csv", "--output", "picture.png"), "matplotlib"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_command_that_needs_more_says_what_to_install(
    command: Command, line: tuple[str, ...], library: str
) -> None:
    shutil.copy(RELEASED / "forecast.csv", "forecast.csv")

    outcome = command(*line)

    assert outcome.code == 2
    assert f"pip install {library}" in outcome.err
