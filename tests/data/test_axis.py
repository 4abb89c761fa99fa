"""TimeAxis against pandas and Python's calendar: zones, months, closed hours, text."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.axis import (
    DAY_US,
    ELAPSED,
    HOUR_US,
    MONTHS,
    WALL_CLOCK,
    WEEK_US,
    TimeAxis,
    check_not_ahead,
    date_range,
    format_for_file_name,
    parse_time_us,
)
from rnnforecast.errors import UsageError
from rnnforecast.units import MONTH_US, parse_duration_us
from tests.data.tables import few

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Sydney", "Australia/Lord_Howe", "+05:30")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SHIFT = TimeAxis(
    None,
    WALL_CLOCK,
    step_us=HOUR_US,
    open_steps=tuple(d * 24 + h for d in range(5) for h in range(6, 14)),
)
"""Monday to Friday, from 6 to 14 h."""


def microseconds(index: pd.DatetimeIndex) -> np.ndarray:
    return index.as_unit("us").asi8


def shown(time_us: int, zone: str) -> datetime:
    """Return what a clock shows, by Python's calendar."""
    tz = ZoneInfo(zone) if "/" in zone else datetime.fromisoformat(f"2000-01-01T00:00{zone}").tzinfo
    return (EPOCH + timedelta(microseconds=time_us)).astimezone(tz).replace(tzinfo=None)


@pytest.mark.parametrize("zone", ZONES)
def test_the_wall_clock_is_that_of_pythons_calendar(zone: str) -> None:
    times = microseconds(pd.date_range("2023-09-01", "2025-05-01", freq="30min"))

    wall = TimeAxis(zone, WALL_CLOCK).from_utc(times)

    expected = [shown(int(us), zone) for us in times]
    assert pd.DatetimeIndex(wall.astype("datetime64[us]")).tolist() == expected


@pytest.mark.parametrize("zone", ZONES)
def test_every_stamp_of_a_zone_belongs_to_one_row_and_comes_back_from_it(zone: str) -> None:
    times = microseconds(pd.date_range("2010-01-01", "2030-01-01", freq="30min"))
    axis = TimeAxis(zone, WALL_CLOCK)
    begin, end = axis.from_utc(times[[0, -1]])

    rows, stamps = axis.stamp_rows(np.arange(begin, end + 1, HOUR_US // 2), HOUR_US // 2)

    assert np.sort(stamps).tolist() == times.tolist()
    assert (np.diff(rows) >= 0).all()


@pytest.mark.parametrize(
    ("zone", "skipped", "twice"),
    [
        ("Europe/Berlin", "2024-03-31 02:30", "2024-10-27 02:30"),
        ("America/New_York", "2024-03-10 02:30", "2024-11-03 01:30"),
        ("Australia/Sydney", "2024-10-06 02:30", "2024-04-07 02:30"),
    ],
)
def test_a_skipped_hour_has_no_stamp_and_one_that_comes_twice_has_two(
    zone: str, skipped: str, twice: str
) -> None:
    axis = TimeAxis(zone, WALL_CLOCK)
    rows = np.array([axis.parse(skipped), axis.parse(twice)])

    assert axis.exists(rows, HOUR_US // 2).tolist() == [False, True]
    index, stamps = axis.stamp_rows(rows, HOUR_US // 2)

    assert index.tolist() == [1, 1]
    assert np.diff(stamps) == HOUR_US
    assert [shown(int(us), zone) for us in stamps] == [datetime.fromisoformat(twice)] * 2
    assert axis.format(int(rows[0])).startswith(skipped.replace("02:30", "03:00"))


@pytest.mark.parametrize("zone", [None, *ZONES[:3]])
@pytest.mark.parametrize("offset_us", [0, -DAY_US, 14 * DAY_US + 6 * HOUR_US])
def test_months_are_equal_steps_whatever_their_length(zone: str | None, offset_us: int) -> None:
    axis = TimeAxis(zone, MONTHS, offset_us)
    stamps = pd.date_range("1950-01-01", "2090-01-01", freq="MS") + pd.Timedelta(offset_us, "us")
    wall = microseconds(stamps.tz_localize(ZoneInfo(zone)) if zone else stamps)

    rows = axis.from_utc(wall)

    assert (np.diff(rows) == MONTH_US).all() and not (rows % MONTH_US).any()
    assert axis.to_utc(rows).tolist() == wall.tolist()


def test_a_day_that_begins_in_an_hour_that_clocks_skip_is_a_row_all_the_same() -> None:
    axis = TimeAxis("America/Sao_Paulo", WALL_CLOCK)
    days = axis.parse("2018-11-03") + DAY_US * np.arange(3)

    rows, stamps = axis.stamp_rows(days, DAY_US)

    assert rows.tolist() == [0, 1, 2]
    assert [shown(int(us), axis.tz).hour for us in stamps] == [0, 1, 0]


def test_the_last_day_of_each_month_is_that_of_pythons_calendar() -> None:
    axis = TimeAxis(None, MONTHS, -DAY_US)
    first = axis.parse("2023-01-31")

    ends = [axis.format(first + i * MONTH_US) for i in range(36)]

    days = [(2023 + i // 12, i % 12 + 1) for i in range(36)]
    assert ends == [f"{y}-{m:02d}-{calendar.monthrange(y, m)[1]:02d} 00:00:00" for y, m in days]


@given(st.integers(-(10**15), 3 * 10**15))
@few
def test_a_time_within_a_month_lies_between_its_ends(time_us: int) -> None:
    axis = TimeAxis(None, MONTHS)
    row = int(axis.from_utc(np.array([time_us]))[0])

    begin = int(axis.to_utc(np.array([row - row % MONTH_US]))[0])
    stamp = EPOCH + timedelta(microseconds=time_us)
    expected = stamp.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert EPOCH + timedelta(microseconds=begin) == expected or row % MONTH_US == 0
    assert abs(int(axis.to_utc(np.array([row]))[0]) - time_us) <= 2


def test_closed_hours_have_no_rows() -> None:
    times = microseconds(pd.date_range("2024-01-01", "2024-03-01", freq="h"))
    is_open = SHIFT.is_open(times)

    rows = SHIFT.from_wall_clock(times[is_open])

    local = pd.DatetimeIndex(times[is_open].astype("datetime64[us]"))
    assert set(local.day_of_week) == set(range(5)) and set(local.hour) == set(range(6, 14))
    assert (np.diff(rows) == HOUR_US).all()
    assert SHIFT.to_wall_clock(rows).tolist() == times[is_open].tolist()


def test_a_closed_hour_is_the_next_open_one() -> None:
    saturday, monday = SHIFT.parse("2024-01-06 10:30"), SHIFT.parse("2024-01-08 06:00")

    assert saturday == monday


def test_a_day_and_a_week_are_their_open_hours() -> None:
    assert SHIFT.periods(HOUR_US) == (1, 8, 40)
    for text, hours in (("3h", 3), ("1d", 8), ("1w", 40), ("36h", 36)):
        assert SHIFT.measure(parse_duration_us(text), HOUR_US) == hours * HOUR_US


@pytest.mark.parametrize(
    ("step_us", "steps"), [(DAY_US, (365, 30)), (WEEK_US, (52, 4)), (MONTH_US, (12, 1))]
)
def test_a_year_and_a_month_are_whole_steps(step_us: int, steps: tuple[int, int]) -> None:
    axis = TimeAxis(None, MONTHS if step_us == MONTH_US else ELAPSED)

    measured = [axis.measure(parse_duration_us(text), step_us) / step_us for text in ("1y", "1mo")]

    assert measured == list(steps)


def test_weeks_begin_on_mondays_and_days_at_midnight_of_the_zone() -> None:
    axis = TimeAxis("America/New_York", WALL_CLOCK)
    times = axis.from_utc(microseconds(pd.date_range("2024-02-01", "2024-12-01", freq="7h")))

    weeks = axis.local(axis.floor(times, WEEK_US))
    days = axis.local(axis.floor(times, DAY_US))

    assert set(weeks.day_of_week) == {0} and set(weeks.hour) == {0}
    assert days.tolist() == axis.local(times).normalize().tolist()


@pytest.mark.parametrize("kind", [ELAPSED, WALL_CLOCK])
@pytest.mark.parametrize(
    "text", ["2024-07-01 12:00", "2024-07-01T10:00Z", "2024-07-01T12:00+02:00"]
)
def test_a_time_that_a_user_types_is_that_of_the_zone(kind: str, text: str) -> None:
    axis = TimeAxis("Europe/Vienna", kind)

    assert axis.format(axis.parse(text)) == "2024-07-01 12:00:00+02:00"
    assert axis.local(np.array([axis.parse(text)]))[0] == pd.Timestamp("2024-07-01 12:00")


def test_without_a_zone_a_time_must_have_none() -> None:
    with pytest.raises(UsageError, match="has a zone"):
        TimeAxis().parse("2024-07-01T10:00Z")


@pytest.mark.parametrize(
    ("first", "clocks"),
    [
        ("2024-10-25T02:30", ["02:30+02:00", "02:30+02:00", "02:30+01:00", "02:30+01:00"]),
        ("2024-03-29T02:30", ["02:30+01:00", "02:30+01:00", "03:00+02:00", "02:30+02:00"]),
    ],
)
def test_a_time_of_each_day_is_a_time_also_where_clocks_change(
    first: str, clocks: list[str]
) -> None:
    """Of an hour that comes twice it is the second, and of one that is skipped what comes next."""
    last = (pd.Timestamp(first) + pd.Timedelta(days=3)).isoformat()
    times = [
        datetime.fromtimestamp(
            parse_time_us(text, "Europe/Vienna") / 1e6, ZoneInfo("Europe/Vienna")
        )
        for text in date_range(first, last, 24 * 3_600_000_000)
    ]
    assert [f"{time:%H:%M}{time.isoformat()[-6:]}" for time in times] == clocks


@few
@given(st.integers(0, 4 * 10**15), st.sampled_from([None, "UTC", "Europe/Vienna"]))
def test_the_name_of_a_file_is_a_time_that_options_take(time_us: int, tz: str | None) -> None:
    assert parse_time_us(format_for_file_name(time_us, tz), tz) == time_us


def test_a_time_that_has_not_come_yet_is_none_to_forecast_from() -> None:
    """A day is left for zones, in which it may have come."""
    now = datetime.now(UTC)
    for text in (now.isoformat(), f"{now + timedelta(hours=23):%Y-%m-%dT%H:%M}", "1999-01-01"):
        check_not_ahead(text)
    for text in ("2999-01-01", (now + timedelta(hours=25)).isoformat()):
        with pytest.raises(UsageError, match="has not come yet"):
            check_not_ahead(text)
