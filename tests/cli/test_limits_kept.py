"""Forecasts stay inside of the limits that readings rest on, wherever they are published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.cli.main import run
from tests.builders import write_wide
from tests.conftest import SMALL, Command

COLUMNS = ["forecast", "q10", "q90"]


def readings(n: int = 710) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sun = np.maximum(np.sin(2 * np.pi * np.arange(n) / 24), 0)
    temperature = 4 + 6 * sun + rng.standard_normal(n).cumsum() / 9
    return {"pv": np.round(900 * sun * rng.random(n)), "temp": temperature}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data.csv` and `model`, trained on it. Not to be changed."""
    path = tmp_path_factory.mktemp("solar")
    data = write_wide(path / "data.csv", **readings())
    assert run(["train", str(data), "--model", str(path / "model"), "-q", *SMALL]) == 0
    return path


@pytest.fixture
def solar(command: Command, folder: Path) -> Command:
    """A command line beside a copy of that folder."""
    shutil.copytree(folder, Path.cwd(), dirs_exist_ok=True)
    return command


def test_training_says_once_what_forecasts_stay_inside_of(command: Command) -> None:
    write_wide(Path("data.csv"), **readings())
    outcome = command("train", "data.csv", *SMALL)
    assert outcome.err.count("pv 0 or more") == 1


def forecast(command: Command, *options: str) -> pd.DataFrame:
    assert command("predict", "data.csv", "-o", "f.csv", *options).code == 0
    return pd.read_csv("f.csv").set_index("series")[COLUMNS]


def test_what_is_published_stays_inside_and_none_turns_that_off(solar: Command) -> None:
    found, free = forecast(solar), forecast(solar, "--bounds", "none")

    assert free.loc["pv"].min().min() < 0
    np.testing.assert_array_equal(found.loc["pv"], free.loc["pv"].clip(lower=0))
    np.testing.assert_array_equal(found.loc["temp"], free.loc["temp"])

    given = forecast(solar, "--bounds", "pv=50:400")
    np.testing.assert_array_equal(given.loc["pv"], free.loc["pv"].clip(50, 400))
    other = forecast(solar, "--bounds", "temp=:5")
    np.testing.assert_array_equal(other.loc["pv"], found.loc["pv"])
    assert "pv 0 or more" in solar("show").out


def test_a_reading_beyond_the_limit_lets_forecasts_go_beyond_too(solar: Command) -> None:
    table = pd.read_csv("data.csv")
    table.loc[len(table) - 3, "pv"] = -40
    table.to_csv("data.csv", index=False)

    assert forecast(solar).loc["pv"].min().min() < 0


@pytest.mark.parametrize("model", [[], ["-m", "model"]])
def test_every_method_of_a_backtest_stays_inside(solar: Command, model: list[str]) -> None:
    write_wide(Path("data.csv"), **readings(760))
    options = model or [*SMALL, "--train-end", "560", "--validation-end", "640"]

    assert solar("backtest", "data.csv", *options, "-o", "all.csv").code == 0

    rows = pd.read_csv("all.csv").set_index("series")
    assert rows["method"].nunique() >= 3
    assert rows.loc["pv"].filter(regex="^(forecast|q)").min().min() == 0


def test_limits_of_the_test_part_change_nothing_before_it(command: Command) -> None:
    columns = readings()
    write_wide(Path("data.csv"), **columns)
    test = [*SMALL, "--train-end", "560", "--validation-end", "640", "-H", "60"]
    assert command("backtest", "data.csv", *test, "-o", "a.csv").code == 0
    columns["pv"][650] = -300
    write_wide(Path("data.csv"), **columns)
    assert command("backtest", "data.csv", *test, "-o", "b.csv").code == 0

    first, second = (pd.read_csv(f"{name}.csv").drop(columns="actual") for name in "ab")
    pd.testing.assert_frame_equal(first, second)
