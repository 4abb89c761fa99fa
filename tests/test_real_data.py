"""Real sensors with the defaults: the network beats the better of the naive methods."""

import os
import shlex
from pathlib import Path

import pandas as pd
import pytest

import rnnforecast
from tests.conftest import Command
from tests.thorough import only_thoroughly

FOLDER = os.environ.get("RNNFORECAST_DATA")
ETT = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FOLDER is None, reason="RNNFORECAST_DATA does not name a folder with the real data"
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "over", "first"),
    [
        pytest.param(
            "machine_temperature_system_failure.csv",
            ["--horizon", "24"],
            "naive",
            "2014-02-19 15:30:00",
            marks=only_thoroughly,  # tests/test_bands.py trains on part of it, to the end too
        ),
        ("ETTh1.csv", ["--steps", "100"], "seasonal_naive", "2018-06-26 20:00:00"),
    ],
)
def test_the_defaults_beat_the_better_of_the_naive_methods(
    command: Command, name: str, options: list[str], over: str, first: str
) -> None:
    document = command("train", Path(FOLDER or "") / name, "--json", *options).document
    assert document["skill_over"] == over
    assert document["skill"] > 0
    assert command("predict", "--trust-source", "-q").code == 0
    forecast = pd.read_csv("forecast.csv")
    assert forecast["timestamp"][0] == first
    assert len(forecast) == document["horizon"] * document["split"]["n_series"]


@pytest.mark.parametrize(
    ("name", "targets", "first"),
    [
        (
            "beijing_pm25.csv",
            ["pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir"],
            "2015-01-01 00:00:00",
        ),
        ("machine_temperature_system_failure.csv", ["value"], "2014-02-19 15:30:00"),
        ("ETTh1.csv", [*ETT], "2018-06-26 20:00:00"),
        pytest.param("ETTm1.csv", [*ETT], "2018-06-26 20:00:00", marks=only_thoroughly),
    ],
)
def test_the_line_that_check_proposes_trains_and_a_forecast_follows(
    command: Command, name: str, targets: list[str], first: str
) -> None:
    looked = command("check", Path(FOLDER or "") / name, "--json")
    assert looked.code in (0, 3)
    roles = {column["name"]: column["role"] for column in looked.document["columns"]}
    assert [name for name, role in roles.items() if role == "target"] == targets
    program, *words = shlex.split(looked.document["train"])
    assert program == "rnnforecast"

    trained = command(*words, "--steps", "20", "--json")

    assert trained.code == 0, trained.err
    assert command("predict", "-m", "model", "--trust-source", "-q").code == 0
    forecast = pd.read_csv("forecast.csv")
    assert list(forecast["series"].unique()) == targets
    assert set(forecast.groupby("series")["timestamp"].first()) == {first}
    assert len(forecast) == len(targets) * trained.document["horizon"]
    assert forecast[["forecast", "q10", "q90"]].notna().all(axis=None)


@pytest.mark.parametrize(
    ("name", "ends", "horizon", "seasonal", "naive"),
    [
        ("ETTh1", (8640, 11520, 14400), 96, (0.512, 0.433), (1.294, 0.713)),
        pytest.param(
            *("ETTh1", (8640, 11520, 14400), 720, (0.655, 0.514), None), marks=only_thoroughly
        ),
        pytest.param(
            *("ETTm1", (34560, 46080, 57600), 96, (0.423, 0.387), None), marks=only_thoroughly
        ),
    ],
)
def test_the_naive_methods_have_their_published_errors(
    command: Command, name: str, ends: tuple[int, ...], horizon: int, seasonal: tuple, naive: tuple
) -> None:
    """The long-horizon protocol: split by row, stride 1, errors over the train part's deviation."""
    options = zip(("--train-end", "--validation-end", "--test-end"), ends, strict=True)
    path = Path(FOLDER or "") / f"{name}.csv"
    quick = ["--hidden", "8", "--steps", "1", "--stride", "1", "--baselines", "naive"]
    metrics = command(
        "backtest",
        path,
        "--json",
        *quick,
        "--lookback",
        "96",
        "--horizon",
        horizon,
        *(word for option in options for word in option),
    ).document["metrics"]
    n_windows = ends[2] - ends[1] - horizon + 1
    for method, published in (("seasonal_naive", seasonal), ("naive", naive)):
        found = (metrics[method]["scaled_mse"], metrics[method]["scaled_mae"])
        assert published is None or tuple(round(value, 3) for value in found) == published
        assert metrics[method]["n"] == n_windows * horizon * 7


SEASONS = {
    "etth1": 24,
    "ettm1": 96,
    "machine_temperature": None,
    "vic_elec": 48,
    "pjm_zones": 24,
    "bdg2_buildings": 24,
    "hotgym": 96,
    "epf_prices": 24,
    "webberville_solar": 24,
    "hackberry_wind": 24,
    "opsd_daily": 7,
    "steel_industry": 96,
    "india_pv_weather": 96,
    "valencia_air": 24,
    "swiss_nox_daily": 7,
    "clemson_temps": 365,
    "keywest_water": 24,
    "aws_network_in": None,
    "ad_exchange": 24,
    "metro_traffic": 24,
    "birmingham_parking": 18,  # half-hours that are open
    "bicimad": 7,
    "melbourne_pedestrians": 24,
    "co2_weekly": 52,
    "spain_fuel": 12,
    "eu_stocks": None,
}
"""The main season, in steps, that a person sees in most series of a table, where it is plain."""


def test_seasons_of_sensors_are_those_that_a_person_sees() -> None:
    wrong = {}
    for name, expected in SEASONS.items():
        path = Path(FOLDER or "").parent / "suite" / "data" / f"{name}.csv.gz"
        if not path.exists():
            pytest.skip("the folder beside RNNFORECAST_DATA is not there")
        seasons = [series.main for series in rnnforecast.check(str(path)).profile.seasons]
        most = max(set(seasons), key=lambda season: (seasons.count(season), season > 1))
        if most != (expected or 1):
            wrong[name] = seasons

    assert len(wrong) <= 0.1 * len(SEASONS), wrong
