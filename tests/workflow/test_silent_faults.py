"""Tables that were once read with exit code 0 and wrong numbers: now read right, or asked about.

Each truth is computed with pandas, and each test goes through the command line alone. A question
passes if one of the readings that it offers, when its options are added, is the true one.
"""

from __future__ import annotations

import io
import re
import shlex
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SMALL, Command

HOURS = pd.date_range("2024-01-01", periods=480, freq="1h")
Facts = dict[str, Any]


def noise(n: int) -> np.ndarray:
    """Return n readings around 0, always the same."""
    return np.random.default_rng(n).normal(size=n)


def facts(readings: dict[str, pd.Series]) -> Facts:
    """Return the span, and of each series the number of its readings, their mean and deviation."""
    present = {name: series.dropna() for name, series in readings.items()}
    return {
        "start": min(series.index[0] for series in present.values()),
        "end": max(series.index[-1] for series in present.values()),
        "series": {
            name: (len(series), round(float(series.mean()), 2), round(float(series.std(ddof=0)), 2))
            for name, series in present.items()
        },
    }


def read(command: Command, path: str, *options: str) -> list[Facts]:
    """Return what `check` reads; or, where it asks, what it reads with each offer's options."""
    outcome = command("check", path, *options, "--json")
    if outcome.code == 4:
        offers = re.findall(r"add  (.*?)(?:  \(.*?\))?(?: ;|$)", outcome.error.get("hint") or "")
        return [
            reading
            for offer in offers
            for reading in read(command, path, *options, *shlex.split(offer))
        ]

    assert outcome.code in (0, 3), outcome.err
    document = outcome.document
    series = {
        s["name"]: (s["length"] - s["missing"], round(s["level"], 2), round(s["spread"], 2))
        for s in document["series"]
    }
    start, end = (pd.Timestamp(document[name]).tz_localize(None) for name in ("start", "end"))
    return [{"start": start, "end": end, "series": series}]


def test_thousands_are_no_decimals(command: Command) -> None:
    """A heat pump of 1749 W and 987 W was read as 1.749 and 987."""
    watts = pd.Series(1500 + 600 * np.sin(HOURS.hour / 24 * 2 * np.pi), HOURS).round()
    cells = [f"{watt:,.0f}".replace(",", ".") for watt in watts]
    pd.DataFrame({"Zeit": HOURS, "Leistung": cells}).to_csv("x.csv", sep=";", index=False)

    assert facts({"Leistung": watts}) in read(command, "x.csv")


def test_devices_that_are_polled_in_turn_are_no_average(command: Command) -> None:
    """Four sensors between 5 and 80 were one series of 46: their mean, with exit code 0."""
    minutes = pd.date_range("2024-01-01", periods=4 * 400, freq="1min")
    frame = pd.DataFrame({"time": minutes, "topic": ["boiler", "yard", "tank", "humidity"] * 400})
    frame["value"] = (np.array([60, 5, 40, 80] * 400) + noise(len(frame))).round(2)
    frame.to_csv("x.csv", index=False)

    bins = frame.set_index("time").groupby("topic", sort=False).resample("20min")["value"].mean()
    truth = facts({str(name): bins[name] for name in frame["topic"].unique()})
    assert truth in read(command, "x.csv", "--freq", "20min", "--agg", "mean")


def test_a_zone_names_no_series(command: Command) -> None:
    """One gauge was two series, CEST and CET, which end and begin in the night of the change."""
    stamps = pd.date_range("2024-10-20", periods=24 * 14, freq="1h", tz="Europe/Berlin")
    flow = (20 + noise(len(stamps))).round(2)
    wall_clock = stamps.tz_localize(None)
    frame = pd.DataFrame({"time": wall_clock, "zone": stamps.strftime("%Z"), "flow": flow})
    frame.to_csv("x.csv", index=False)

    # The hour that comes twice is one row, the mean of both.
    assert facts({"flow": pd.Series(flow).groupby(wall_clock).mean()}) in read(command, "x.csv")


def test_each_channel_has_its_own_times(command: Command) -> None:
    """A channel that was recorded six hours later was read at the times of the first one."""
    later = HOURS + pd.Timedelta("6h")
    first, second = (
        pd.Series((level + noise(len(times))).round(2), times)
        for level, times in ((20, HOURS), (60, later))
    )
    channels = {"Time A": HOURS, "A": first.array, "Time B": later, "B": second.array}
    pd.DataFrame(channels).to_csv("x.csv", index=False)

    readings = read(command, "x.csv")
    both = facts({"A": first, "B": second})
    assert both in readings or all(
        facts({n: s}) in readings for n, s in (("A", first), ("B", second))
    )


def test_a_sum_over_lost_readings_is_no_total(command: Command) -> None:
    """Ten litres every five minutes are 120 an hour; where readings were lost, it was less."""
    stamps = pd.date_range("2024-01-01", periods=12 * 240, freq="5min")
    arrived = stamps[noise(len(stamps)) < 1.6]
    pd.DataFrame({"time": arrived, "litres": 10.0}).to_csv("x.csv", index=False)
    n_complete = (pd.Series(1, arrived).resample("1h").sum() == 12).sum()

    readings = read(command, "x.csv", "--freq", "1h", "--agg", "sum")
    assert readings
    for reading in readings:
        n_readings, level, spread = reading["series"]["litres"]
        assert (level, spread) == (120, 0)
        assert n_readings >= n_complete


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S"])
def test_a_day_is_a_day_of_the_zone(command: Command, form: str) -> None:
    """Sums of days began at 01:00 in winter, 02:00 in summer: midnight of UTC, not of Berlin."""
    stamps = pd.date_range("2024-03-01", "2024-04-20", freq="1h", tz="Europe/Berlin")[:-1]
    kwh = pd.Series((stamps.day % 5 + 1) * (1 + (stamps.hour >= 18)), stamps)
    pd.DataFrame({"time": stamps.strftime(form), "kwh": kwh.array}).to_csv("x.csv", index=False)
    days = kwh.groupby(stamps.tz_localize(None).normalize()).sum()

    options = ("--freq", "1d", "--agg", "sum", "--tz", "Europe/Berlin")
    assert facts({"kwh": days}) in read(command, "x.csv", *options)


def test_a_counter_is_differenced_before_it_is_binned(command: Command) -> None:
    """What a meter counted in twelve lost hours fell on the day after them, which had too much."""
    used = pd.Series(HOURS.day % 3 + 1, HOURS)  # in the hour that begins with the stamp
    lost = used["2024-01-07 18:00":"2024-01-08 05:00"].index
    counter = (1000 + used.cumsum() - used).drop(lost)
    counter.rename_axis("time").rename("kwh").to_csv("x.csv")
    days = used.resample("1D").sum().drop(["2024-01-07", "2024-01-08"])

    options = ("--counter", "kwh", "--freq", "1d", "--agg", "sum")
    assert facts({"kwh": days}) in read(command, "x.csv", *options)


def test_a_forecast_follows_the_clock_that_changed(command: Command) -> None:
    """A heating that is on from 7 to 22 was forecast to be on from 8 to 23 after the change."""
    stamps = pd.date_range("2024-03-10", "2024-03-31", freq="1h", tz="Europe/Vienna")[:-1]
    heat = np.where((stamps.hour >= 7) & (stamps.hour < 22), 25, 20) + noise(len(stamps)) / 9
    frame = pd.DataFrame({"time": stamps.strftime("%Y-%m-%d %H:%M"), "heat": heat})
    frame.to_csv("x.csv", index=False)
    options = ["--tz", "Europe/Vienna", *SMALL, "-L", 24, "-H", 23, "--steps", 1, "-q"]
    assert command("train", "x.csv", *options, "--no-report").code == 0

    forecast = pd.read_csv(io.StringIO(command("predict", "-q", "-o", "-").out))

    after = pd.to_datetime(forecast["timestamp"], utc=True).dt.tz_convert("Europe/Vienna")
    assert after.dt.date.eq(pd.Timestamp("2024-03-31").date()).all()
    assert after[forecast["forecast"] > 22.5].dt.hour.tolist() == list(range(7, 22))
