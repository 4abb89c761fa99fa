"""Long tables with a key of several columns and several targets, from training to the forecast."""

from pathlib import Path

import pandas as pd
import pytest

from tests.builders import wave
from tests.conftest import SMALL, Command

HOURS = pd.date_range("2024-01-01", periods=300, freq="1h")
KEYS = [("north", "1"), ("north", "2"), ("south", "1")]
NAMES = [f"{site}/{machine}/{target}" for site, machine in KEYS for target in ("temp", "flow")]
FAST = (*SMALL, "--epochs", "1", "--steps", "2", "--no-report", "-q")


def machines(keys: list[tuple[str, str]] = KEYS) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "at": HOURS,
                "site": site,
                "machine": machine,
                "lat": 48.2 if site == "north" else 47.1,
                "temp": 20 + 5 * wave(300, seed=i),
                "flow": 100 + wave(300, seed=10 + i),
            }
        )
        for i, (site, machine) in enumerate(keys)
    ]
    return pd.concat(parts)


def test_each_target_of_each_machine_is_forecast_and_can_be_named(command: Command) -> None:
    machines().to_csv("data.csv", index=False)
    machines(KEYS[:1]).to_csv("part.csv", index=False)

    assert command("train", "data.csv", *FAST).code == 0
    bounds = ("--bounds", "temp=0:1", "--bounds", "south/1/flow=5:6", "--exceed", "flow=0")
    assert command("predict", "-q", *bounds).code == 0

    forecast = pd.read_csv("forecast.csv")
    assert list(dict.fromkeys(forecast.series)) == NAMES
    of_temp, of_last = forecast.series.str.endswith("/temp"), forecast.series == "south/1/flow"
    assert forecast[of_temp].forecast.between(0, 1).all() and of_temp.sum() == 18
    assert forecast[of_last].forecast.between(5, 6).all()
    assert forecast[~of_temp & ~of_last].forecast.min() > 50
    assert (forecast.p_exceed.notna() == ~of_temp).all()

    outcome = command("predict", "part.csv", "-o", "part-forecast.csv")
    assert list(dict.fromkeys(pd.read_csv("part-forecast.csv").series)) == NAMES[:2]
    assert "not in the data" in outcome.err
    assert command("predict", "-q", "--bounds", "level=0:1").code == 2


def test_check_says_which_columns_are_what_and_why(command: Command) -> None:
    machines().to_csv("data.csv", index=False)

    document = command("check", "data.csv", "--json").document
    roles = {column["name"]: (column["role"], column["why"]) for column in document["columns"]}

    assert [series["name"] for series in document["series"]] == NAMES
    assert roles["site"] == roles["machine"] == ("series", "it distinguishes repeated timestamps")
    assert roles["lat"] == ("not used", "the same for each series at all times")
    screen = command("check", "data.csv").out
    assert "series site, machine; target temp, flow; not used lat (the same" in screen


@pytest.mark.slow
def test_a_backtest_has_rows_for_each_target(command: Command) -> None:
    machines().to_csv("data.csv", index=False)

    line = ("backtest", "data.csv", "-o", "rows.csv", "--windows", "2", "-q", *SMALL)
    assert command(*line).code == 0

    assert list(dict.fromkeys(pd.read_csv("rows.csv").series)) == NAMES


@pytest.mark.slow
def test_buckets_hold_all_targets_of_a_key(command: Command) -> None:
    machines().to_parquet("data.parquet")

    made = command("shard", "data.parquet", "--output", "in", "--buckets", 2, "--json")
    assert made.document["series"] == 3
    assert command("train", "in", *FAST).code == 0
    assert command("predict", "in", "-m", "model", "--output", "out", "--shard", "0/1").code == 0
    assert command("predict", "in", "-m", "model", "--output", "out", "--commit", "-q").code == 0

    parts = [pd.read_parquet(path) for path in sorted(Path("out").rglob("bucket-*.parquet"))]
    assert sorted(pd.concat(parts).series.unique()) == sorted(NAMES)
