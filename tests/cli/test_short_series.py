"""Series of all lengths in one table: short ones teach nothing, and are forecast all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.cli.main import run
from tests.builders import wave
from tests.conftest import SMALL, Command

LOOKBACK, HORIZON = 24, 6
LENGTHS = {"one": 1, "long": 200, "two": 2, "few": 5, "half": 12, "short": 29, "enough": 30}
TOO_SHORT = ["one", "two", "few", "half", "short"]
TOO_FEW = ["one", "two"]
"""Nothing tells how far they vary."""
BELOW_HALF = ["few"]
HOURS = pd.date_range("2024-01-01", periods=200, freq="1h")


def table(path: Path, lengths: dict[str, int]) -> Path:
    """Write a long table of series that all end at the same hour."""
    parts = [
        pd.DataFrame({"ts": HOURS[-n:], "id": name, "v": wave(200, seed=i)[-n:]})
        for i, (name, n) in enumerate(lengths.items())
    ]
    pd.concat(parts).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained on series of all these lengths."""
    folder = tmp_path_factory.mktemp("mixed")
    path = table(folder / "mixed.csv", LENGTHS)
    options = ["--series", "id", *SMALL, "-q", "--model", str(folder / "model")]
    assert run(["train", str(path), *options]) == 0
    return folder / "model"


@pytest.fixture
def mixed(model: Path, command: Command, tmp_path: Path) -> Path:
    """The working directory, with `mixed.csv` and a copy of `model`."""
    del command  # it has changed into the directory
    table(tmp_path / "mixed.csv", LENGTHS)
    shutil.copytree(model, tmp_path / "model")
    return tmp_path


def test_series_that_are_too_short_are_skipped_and_counted(mixed: Path, command: Command) -> None:
    document = command("show", "--json").document

    (said,) = [w for w in document["provenance"]["warnings"] if w["code"] == "short-series"]
    assert said["count"] == len(TOO_SHORT)
    assert said["message"].endswith(": " + ", ".join(TOO_SHORT))
    assert document["series"] == list(LENGTHS)
    assert document["metrics"]["network"]["n"] > 0
    assert (mixed / "model" / "CURRENT").exists()


def test_every_series_is_forecast_and_those_with_little_to_go_by_are_named(
    mixed: Path, command: Command
) -> None:
    outcome = command("predict", "mixed.csv", "--json")

    assert outcome.code == 3
    assert outcome.document["short_history"] == BELOW_HALF
    assert (outcome.document["left_out"], outcome.document["fallback"]) == (TOO_FEW, [])
    forecast = pd.read_csv(mixed / "forecast.csv")
    assert list(forecast["series"].drop_duplicates()) == [n for n in LENGTHS if n not in TOO_FEW]
    assert (forecast.groupby("series").size() == HORIZON).all()
    assert np.isfinite(forecast[["forecast", "q10", "q90"]]).all().all()
    assert (forecast["q10"] <= forecast["forecast"]).all()
    first = forecast.groupby("series")["timestamp"].first()
    assert set(first) == {str(HOURS[-1] + pd.Timedelta("1h"))}


def test_a_fallback_takes_over_those_with_little_to_go_by_and_says_so(
    mixed: Path, command: Command
) -> None:
    outcome = command("predict", "mixed.csv", "--json", "--fallback", "seasonal-naive,naive")

    assert outcome.code == 3
    assert outcome.document["fallback"] == ["two", "few"]
    assert outcome.document["left_out"] == ["one"]  # nothing says how wide its band is
    sources = pd.read_csv(mixed / "forecast.csv").groupby("series")["source"].unique()
    assert {name: list(own) for name, own in sources.items()} == {
        "two": ["naive"],
        "few": ["naive"],
        **{name: ["network"] for name in ("half", "short", "enough", "long")},
    }


def test_what_is_long_enough_is_forecast_alike_whatever_stands_beside_it(
    mixed: Path, command: Command
) -> None:
    command("predict", "mixed.csv", "-q")
    beside = pd.read_csv(mixed / "forecast.csv").query("series == 'long'")
    lengths = {name: n if name == "long" else 1 for name, n in LENGTHS.items()}
    table(mixed / "others.csv", lengths)

    assert command("predict", "others.csv", "-q", "-o", "other.csv").code == 3

    alone = pd.read_csv(mixed / "other.csv").query("series == 'long'")
    np.testing.assert_allclose(alone["forecast"], beside["forecast"], rtol=1e-5)


def test_a_series_that_is_new_and_has_one_reading_is_left_out_and_the_others_are_not(
    mixed: Path, command: Command
) -> None:
    table(mixed / "new.csv", {**LENGTHS, "stranger": 1, "newer": 3})

    outcome = command("predict", "new.csv", "--json")

    assert outcome.code == 3
    assert outcome.document["left_out"] == [*TOO_FEW, "stranger"]
    assert outcome.document["short_history"] == [*BELOW_HALF, "newer"]
    assert outcome.document["series"] == len(LENGTHS) - 1


def test_where_all_are_too_short_nothing_is_trained_and_the_numbers_are_said(
    command: Command, tmp_path: Path
) -> None:
    table(tmp_path / "mixed.csv", {name: n for name, n in LENGTHS.items() if name in TOO_SHORT})

    outcome = command("train", "mixed.csv", "--series", "id", *SMALL)

    assert outcome.code == 5
    assert "29 rows" in outcome.err and "24 + 6 = 30" in outcome.err
    assert not (tmp_path / "model").exists()
    assert command("train", "mixed.csv", "--series", "id", *SMALL, "-L", "23").code == 0


@pytest.mark.parametrize("n", [3, 11, 12, 50])
def test_where_all_are_too_short_for_the_look_back_they_are_forecast_and_flagged(
    mixed: Path, command: Command, n: int
) -> None:
    """Half a look-back is enough to go by: then nothing is amiss."""
    table(mixed / "short.csv", dict.fromkeys(LENGTHS, n))

    outcome = command("predict", "short.csv", "--json")

    assert outcome.code == (0 if n >= 12 else 3)
    assert outcome.document["short_history"] == ([] if n >= 12 else list(LENGTHS))
    assert outcome.document["rows"] == HORIZON * len(LENGTHS)


@pytest.mark.parametrize("n", [1, 2])
def test_where_all_have_fewer_than_three_readings_none_is_forecast(
    mixed: Path, command: Command, n: int
) -> None:
    table(mixed / "short.csv", dict.fromkeys(LENGTHS, n))

    outcome = command("predict", "short.csv", "--json")

    assert outcome.code == 5
    assert "no series has at least three readings" in outcome.error["message"]
    assert not (mixed / "forecast.csv").exists()
