"""Real sensors with the defaults: the network beats the better of the naive methods."""

import os
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command

FOLDER = os.environ.get("RNNFORECAST_DATA")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FOLDER is None, reason="RNNFORECAST_DATA does not name a folder with the real data"
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "over", "first"),
    [
        (
            "machine_temperature_system_failure.csv",
            ["--horizon", "24"],
            "naive",
            "2014-02-19 15:30:00",
        ),
        ("ETTh1.csv", [], "seasonal_naive", "2018-06-26 20:00:00"),
    ],
)
def test_the_defaults_beat_the_better_of_the_naive_methods(
    command: Command, name: str, options: list[str], over: str, first: str
) -> None:
    document = command("train", Path(FOLDER or "") / name, "--json", *options).document
    assert document["skill_over"] == over
    assert document["skill"] > 0
    assert command("predict", "-q").code == 0
    forecast = pd.read_csv("forecast.csv")
    assert forecast["timestamp"][0] == first
    assert len(forecast) == document["horizon"] * document["split"]["n_series"]
