"""No result is written over what it comes from: readings, plans, bad times, options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.builders import wave, write_wide
from tests.conftest import SMALL, Command

PLAN, BAD = "plan.csv", "bad.csv"


@pytest.fixture
def place(command: Command) -> Iterator[Path]:
    """Readings of several forms, and a check afterwards that none of them has changed."""
    del command  # which makes the working directory
    table = write_wide(Path("data.csv"), flow=wave(400))
    readings = pd.read_csv(table, parse_dates=["timestamp"])
    for name in ("parts", "days", "other"):
        Path(name).mkdir()
    for i in range(2):
        part = readings[200 * i : 200 * (i + 1)]
        part.to_csv(f"days/{i}.csv", index=False)
        part.to_parquet(f"parts/{i}.parquet", index=False)
    Path("other/link.csv").symlink_to(table.absolute())
    Path("other/folder").symlink_to(Path("parts").absolute())
    Path(PLAN).write_text("timestamp\n")
    Path(BAD).write_text("series,from,to\n")
    Path("mine.csv").write_text("[predict]\nquiet = true\n")
    before = contents()
    yield Path.cwd()
    assert {name: text for name, text in contents().items() if name in before} == before
    assert not list(Path("parts").glob("new*")) + list(Path("days").glob("new*"))


def contents() -> dict[str, bytes]:
    here = [*Path().glob("*.csv"), *Path().glob("parts/*"), *Path().glob("days/*")]
    return {str(path): path.read_bytes() for path in here}


CLASHES = [
    ("data.csv", "data.csv"),
    ("data.csv", "./other/../data.csv"),
    ("data.csv", "other/link.csv"),
    ("other/link.csv", "data.csv"),
    ("days/*.csv", "days/1.csv"),
    ("days/*.csv", "days/new.csv"),
    ("./days/[01n]*", "other/../days/new.csv"),
    ("**/*.csv", "days/0.csv"),
    ("**/*.csv", "days/new.csv"),
    ("parts", "parts/0.parquet"),
    ("parts", "parts/new.csv"),
    ("parts/", "other/folder/new.parquet"),
    ("other/folder", "parts/1.parquet"),
]


@pytest.mark.parametrize(("data", "output"), CLASHES)
def test_a_forecast_is_not_written_over_or_among_the_readings(
    command: Command, place: Path, trained: Path, data: str, output: str
) -> None:
    del place
    for options in (["predict", data, "-o", output], ["backtest", data, "-o", output]):
        outcome = command(*options, "-m", trained / "model")
        assert (outcome.code, outcome.out) == (2, "")
        assert f"{Path(output)} " in outcome.err


@pytest.mark.parametrize(("data", "rejects"), CLASHES)
def test_rejected_rows_are_not_written_over_or_among_the_readings(
    command: Command, place: Path, trained: Path, data: str, rejects: str
) -> None:
    del place
    options = [data, "--on-bad-rows", "skip", "--rejects", rejects]
    model = ["-m", trained / "model"]
    for name in ("check", "train", "predict", "backtest"):
        assert command(name, *options, *([] if name == "train" else model)).code == 2
    assert not Path("model").exists()


@pytest.mark.parametrize("option", ["--future", "--exclude"])
def test_a_forecast_is_not_written_over_what_else_is_read(
    command: Command, place: Path, trained: Path, option: str
) -> None:
    file = {"--future": PLAN, "--exclude": BAD}[option]
    for result in (["-o", file], ["--on-bad-rows", "skip", "--rejects", place / file]):
        options = ["-m", trained / "model", option, file, *result]
        outcome = command("predict", "data.csv", *options)
        assert outcome.code == 2
        assert "would be overwritten" in outcome.err


@pytest.mark.parametrize("name", ["check", "train", "predict", "backtest"])
def test_no_result_is_written_over_the_options(command: Command, place: Path, name: str) -> None:
    del place
    named = ["data.csv", "--config", "mine.csv", "--on-bad-rows", "skip"]
    results = [["--rejects", "other/../mine.csv"]]
    results += [["-o", "mine.csv"]] if name in ("predict", "backtest") else []
    for result in results:
        outcome = command(name, *named, *result)
        assert outcome.code == 2
        assert "contains the options" in outcome.err

    Path("rnnforecast.toml").write_text(f"[{name}]\non-bad-rows = 'skip'\n")
    assert command(name, "data.csv", "--rejects", "rnnforecast.toml").code == 2
    assert Path("rnnforecast.toml").read_text().startswith(f"[{name}]")


def test_a_result_and_the_rejected_rows_do_not_share_a_file(
    command: Command, place: Path, trained: Path
) -> None:
    options = ["-m", trained / "model", "--on-bad-rows", "skip", "--rejects", "new.csv"]
    assert command("predict", "data.csv", *options, "-o", place / "new.csv").code == 2
    assert not Path("new.csv").exists()


def test_a_file_that_comes_on_standard_input_is_not_written_over(
    command: Command, place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del place
    monkeypatch.setattr("rnnforecast.sources.files._STANDARD_INPUT_FILE", "data.csv")
    with Path("data.csv").open() as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        assert command("predict", "-", "-m", trained / "model", "-o", "data.csv").code == 2


def test_results_beside_the_readings_are_written(command: Command, trained: Path) -> None:
    Path("parts").mkdir()
    write_wide(Path("parts/a.csv"), flow=wave(300), level=wave(300, seed=2))
    Path("parts.csv").write_text("what was there\n")
    rejects = ["--on-bad-rows", "skip", "--rejects", "parts/rejected.txt"]
    model = ["-m", trained / "model", "-q"]

    assert command("train", "parts/*.csv", *rejects, "-q", *SMALL).code == 0
    assert command("predict", "parts/*.csv", *model, *rejects, "-o", "parts.csv").code == 0
    assert command("predict", "parts/*.csv", *model, "-o", "parts.csv").code == 0
    assert command("predict", "parts/a.csv", *model, "-o", "parts/b.csv").code == 0
