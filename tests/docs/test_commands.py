"""Every command and line of Python in the documentation runs as it stands there.

The blocks of a page run in their order, in one folder with the files that the pages name. A comment
above a block says otherwise: `not run: REASON`, `run by TEST`, or `exits with CODE`. Trainings take
a few steps of a small network.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from tests.builders import JOB, wave, write_wide
from tests.conftest import Command, Outcome
from tests.docs.pages import PAGES, ROOT, Block, all_blocks, blocks_of
from tests.strangers import rewrite_manifest

RUN = [
    page
    for page in PAGES
    if any(block.language in ("sh", "python") for block in blocks_of(page) if not block.mark)
]
"""Pages with commands that run here."""
SLOW = {
    "README.md",
    "docs/tutorial.md",
    "docs/concepts/memory.md",
    *(f"docs/how-to/{name}.md" for name in ("backtest", "covariates", "python", "train")),
    "docs/how-to/many-series.md",
}
"""Pages that train more often than the default suite has time for."""
WITHOUT_MODEL = ("README.md", "docs/tutorial.md", "docs/how-to/python.md")
"""Pages that begin before there is a model."""
SMALL = {
    "EPOCHS": "1",
    "HIDDEN": "8",
    "LOOKBACK": "2d",
    "NETWORK": "trained",
    "STEPS": "5",
    "THREADS": "1",
}
N_ROWS = 600
_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


@pytest.fixture
def desk(tmp_path: Path, trained: Path) -> Path:
    """Make a working directory with the files that pages name."""
    (tmp_path / "sample_data").mkdir()
    write_beginning(tmp_path / "sample_data" / "pumping_station.csv", n_rows=10 * 144)
    shutil.copy(ROOT / "sample_data" / "machines.parquet", tmp_path / "sample_data")

    columns = {"flow": wave(N_ROWS), "level": 3 * wave(N_ROWS, seed=1) - 10}
    for name in ("readings", "newer"):
        write_wide(tmp_path / f"{name}.csv", **columns)
    write_heating(tmp_path)
    write_plant(tmp_path / "plant.parquet")
    (tmp_path / "maintenance.csv").write_text(
        "series,from,to\n,2024-01-03T00:00,2024-01-03T06:00\n"
    )
    job = JOB.replace("data.csv", "readings.csv").replace("forecast.csv", "{as_of}.csv")
    (tmp_path / "job.toml").write_text(job)
    shutil.copytree(trained / "model", tmp_path / "model")
    rewrite_manifest(tmp_path / "model", provenance__source=str(tmp_path / "readings.csv"))
    return tmp_path


def write_beginning(path: Path, *, n_rows: int) -> None:
    """Write the first rows of a file of the sample data."""
    lines = (ROOT / "sample_data" / path.name).read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: 1 + n_rows]))


def write_heating(folder: Path) -> None:
    """Write readings with covariates, and a plan of the day after them."""
    setpoint = np.where(np.arange(324) % 24 < 8, 18, 21)
    temperature = setpoint + wave(324) / 20
    columns = {"temperature": temperature, "setpoint": setpoint, "wind": wave(324, seed=2)}
    write_wide(folder / "heating.csv", **{name: values[:300] for name, values in columns.items()})
    stamps = pd.date_range("2024-01-01", periods=324, freq="1h")[300:]
    plan = pd.DataFrame({"timestamp": stamps, "setpoint": setpoint[300:]})
    plan.to_csv(folder / "plan.csv", index=False)


def write_plant(path: Path) -> None:
    """Write a long table of six sensors."""
    stamps = pd.date_range("2024-01-01", periods=200, freq="1h")
    tables = [
        pd.DataFrame({"time": stamps, "sensor": f"s{i}", "value": (i + 1) * wave(200, seed=i)})
        for i in range(6)
    ]
    pd.concat(tables).to_parquet(path, index=False)


def run_line(line: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run a command with a small training; the name of a version stands for the first one."""
    _, name, *arguments = shlex.split(line, comments=True)
    versions = sorted(path.name for path in Path("model/versions").glob("2*"))
    with monkeypatch.context() as environment:
        if name == "train" or (name == "backtest" and "--model" not in arguments):
            for option, value in SMALL.items():
                environment.setenv(f"RNNFORECAST_{name.upper()}_{option}", value)
        return command(name, *(_VERSION.sub(lambda _: versions[0], word) for word in arguments))


def expected_codes(block: Block, line: str) -> tuple[int, ...]:
    """Return the exit codes that a command of a block may have."""
    if block.mark is not None:
        return (int(block.mark.removeprefix("exits with ")),)
    if "rnnforecast check" in line:
        return 0, 3  # it may have findings
    if "--require-skill" in line:
        return 0, 8  # five steps of training give no skill
    return (0,)


def small_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trainings from Python as small as those of the command line."""
    from rnnforecast.workflow import backtest, train

    def small(**parts: object) -> rnnforecast.Config:
        quick = {
            "network": rnnforecast.NetworkConfig(network="trained", hidden=8),
            "training": rnnforecast.TrainConfig(epochs=1, steps=5),
        }
        return original(**{**parts, **quick})  # type: ignore[arg-type]

    original: Callable[..., rnnforecast.Config] = rnnforecast.Config
    for module in (train, backtest, rnnforecast):
        monkeypatch.setattr(module, "Config", small, raising=False)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in RUN]
)
def test_the_commands_of_a_page_run(
    page: str, command: Command, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page in WITHOUT_MODEL:
        shutil.rmtree(desk / "model")
    small_configs(monkeypatch)
    for block in blocks_of(page):
        if block.is_run_elsewhere:
            continue
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                assert line.startswith("rnnforecast "), f"{page}: say above it why it is not run"
                outcome = run_line(line, command, monkeypatch)
                assert outcome.code in expected_codes(block, line), f"{line}\n{outcome.err}"
        elif block.language == "python":
            exec(block.text, {})


def test_every_block_runs_or_says_why_not() -> None:
    for block in all_blocks():
        if block.mark is None:
            assert block.language in ("sh", "python"), f"{block.page}: {block.text}"
        else:
            assert re.fullmatch(r"not run: .+|run by \S+|exits with \d+", block.mark), block


def test_a_test_that_is_named_as_running_a_block_reads_its_page() -> None:
    for block in all_blocks():
        if block.mark is not None and block.mark.startswith("run by "):
            test = (ROOT / block.mark.removeprefix("run by ")).read_text(encoding="utf-8")
            assert Path(block.page).name in test, f"{block.mark} of {block.page}"
