"""Months, weeks, days of a zone and changes of the clock, through every command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from tests.builders import SMALL_JOB
from tests.conftest import Command

TINY = ["--hidden", "4", "--steps", "2", "--threads", "1", "--segment", "2"]
JOB = SMALL_JOB + '[ledger]\npath = "ledger"\n'
N, AHEAD = 72, 4


def later(day: date, months: int) -> date:
    """Return the first day of the month that comes `months` later, by counting."""
    year, month = divmod(12 * day.year + day.month - 1 + months, 12)
    return date(year, month + 1, 1)


def of_months(n: int) -> list[str]:
    days = [later(date(2024, 1, 1), n * (i - N)) for i in range(N + AHEAD)]
    return [f"{day} 00:00:00" for day in days]


def of_days(n: int, zone: str | None = None) -> list[str]:
    days = [datetime(2024, 1, 1) + timedelta(days=n * i) for i in range(N + AHEAD)]
    tz = ZoneInfo(zone) if zone else None
    return [day.replace(tzinfo=tz).isoformat(" ") for day in days]


KINDS = {
    "months": ("1 month", of_months(1)),
    "quarters": ("1 quarter", of_months(3)),
    "years": ("1 year", of_months(12)),
    "weeks": ("1 w", of_days(7)),
    "days of Berlin": ("1 d", of_days(1, "Europe/Berlin")),
}


OFTEN = ("months", "days of Berlin")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in OFTEN)) for kind in KINDS]
)
def test_every_command_keeps_the_calendar(command: Command, tmp_path: Path, kind: str) -> None:
    step, stamps = KINDS[kind]
    values = 50 + np.random.default_rng(3).normal(size=N)
    table = pd.DataFrame({"time": stamps[:N], "v": values.round(2)})
    table.to_csv("data.csv", index=False)
    (tmp_path / "job.toml").write_text(JOB)
    tz = ["--tz", "Europe/Berlin"] if "Berlin" in kind else []
    window = ["-L", "12", "-H", str(AHEAD), *TINY, *tz]

    checked = command("check", "data.csv", "--json", *tz).document
    trained = command("train", "data.csv", "--json", *window)
    command("predict", "--output", "forecast.csv", "--quiet")
    ran = command("run", "job.toml", "--json")
    tested = command("backtest", "data.csv", "--windows", "2", "--output", "tested.csv", *window)
    plotted = command("plot", "--forecast", "forecast.csv", "--data", "data.csv", "--json")

    assert (checked["step"], checked["series"][0]["missing"]) == (step, 0)
    assert (trained.code, ran.code, tested.code, plotted.code) == (0, 0, 0, 0)
    assert pd.read_csv("forecast.csv")["timestamp"].tolist() == stamps[N:]
    assert pd.read_csv(next(Path("out").glob("*.csv")))["timestamp"].tolist() == stamps[N:]
    windows = pd.read_csv("tested.csv").query("method == 'network'")["timestamp"]
    assert windows.tolist() == stamps[N - 2 * AHEAD : N]


@dataclass(frozen=True)
class Night:
    """The last hour before a night in which clocks change, and what follows in 24 hours."""

    zone: str
    last: datetime
    n_stamps: int


NIGHTS = [
    Night("Europe/Berlin", datetime(2024, 3, 30, 12), 23),
    Night("Australia/Sydney", datetime(2024, 4, 6, 12), 25),
]
OTHER_NIGHTS = [
    Night("Europe/Berlin", datetime(2024, 10, 26, 12), 25),
    Night("America/New_York", datetime(2024, 3, 9, 12), 23),
    Night("America/New_York", datetime(2024, 11, 2, 12), 25),
    Night("Australia/Sydney", datetime(2024, 10, 5, 12), 23),
]


@pytest.mark.parametrize(
    "night",
    [*NIGHTS, *(pytest.param(night, marks=pytest.mark.slow) for night in OTHER_NIGHTS)],
    ids=lambda night: f"{night.zone} {night.last:%B}",
)
def test_after_a_change_of_the_clock_forecasts_keep_the_hour_of_the_wall(
    command: Command, night: Night
) -> None:
    zone = ZoneInfo(night.zone)
    last = night.last.replace(tzinfo=zone).astimezone(UTC)
    times = [(last - timedelta(hours=i)).astimezone(zone) for i in range(24 * 15)][::-1]
    values = [30.0 if 7 <= time.hour < 22 else 10.0 for time in times]
    table = pd.DataFrame({"time": [time.isoformat() for time in times], "v": values})
    table.to_csv("data.csv", index=False)

    trained = command("train", "data.csv", "--tz", night.zone, "-L", "48", "-H", "24h", *TINY)
    command("predict", "--output", "forecast.csv", "--quiet")

    assert trained.code == 0
    forecast = pd.read_csv("forecast.csv")
    stamps = [datetime.fromisoformat(text) for text in forecast["timestamp"]]
    expected = [(last + timedelta(hours=i + 1)).astimezone(zone) for i in range(night.n_stamps)]
    assert [stamp.isoformat() for stamp in stamps] == [time.isoformat() for time in expected]
    is_day = np.array([7 <= time.hour < 22 for time in expected])
    assert forecast["forecast"][is_day].min() > forecast["forecast"][~is_day].max()
