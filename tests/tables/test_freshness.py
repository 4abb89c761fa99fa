"""Freshness: how old the newest reading is, by the clock or as of a moment."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from rnnforecast.config.training import PredictConfig
from rnnforecast.data.axis import TimeAxis
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.events import Event, WarningEvent, ignore
from rnnforecast.tables.match import check_freshness, newest_readings
from tests.builders import HOUR_US, START_US, make_panel

CLOCK = "2024-01-01T15:00"
"""Five hours after the newest of ten hourly readings."""


def readings(*missing: int) -> np.ndarray:
    values = np.arange(10, dtype=np.float32)
    values[list(missing)] = np.nan
    return values


def test_the_newest_reading_is_the_last_that_is_there() -> None:
    panel = make_panel(readings(), readings(8, 9), readings(*range(1, 10)), readings(*range(10)))
    newest = newest_readings(make_past(panel))
    assert newest.tolist() == [START_US + n * HOUR_US for n in (9, 7, 0)] + [-1]


def test_readings_after_a_cutoff_make_nothing_newer() -> None:
    past = make_past(make_panel(readings(), readings()), np.array([4, 0]))
    assert newest_readings(past).tolist() == [START_US + 3 * HOUR_US, -1]


def in_utc(past: Past) -> Past:
    return make_past(replace(past.panel_at_cutoffs(), axis=TimeAxis("UTC")))


def test_the_age_is_that_of_the_newest_series_as_of_a_moment() -> None:
    past = make_past(make_panel(readings(8, 9), readings()))
    assert check_freshness(past, PredictConfig(as_of=CLOCK), ignore) == 6 * HOUR_US
    assert (
        check_freshness(in_utc(past), PredictConfig(as_of=CLOCK + "+01:00"), ignore) == 5 * HOUR_US
    )


def test_what_is_too_old_is_an_error_and_what_is_old_a_warning() -> None:
    past, heard = make_past(make_panel(readings())), []
    config = PredictConfig(as_of=CLOCK, warn_age="5h", max_age="6h")
    check_freshness(past, config, heard.append)
    (warning,) = heard
    assert isinstance(warning, WarningEvent)
    assert warning.code == "stale" and "2024-01-01 09:00:00" in warning.message
    with pytest.raises(NotEnoughDataError, match="6 h old; limit --max-age 5h") as caught:
        check_freshness(past, PredictConfig(as_of=CLOCK, max_age="5h"), ignore)
    assert (caught.value.code, caught.value.exit_code) == ("stale", 5)


def test_an_age_that_equals_the_limit_is_not_over_it() -> None:
    past, heard = make_past(make_panel(readings())), list[Event]()
    config = PredictConfig(as_of=CLOCK, warn_age="6h", max_age="6h")
    assert check_freshness(past, config, heard.append) == 6 * HOUR_US
    assert heard == []


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("Asia/Tokyo", 9)])
def test_stamps_without_a_zone_are_on_this_machines_clock(
    zone: str, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = START_US + 20 * HOUR_US
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    monkeypatch.setattr(time, "time_ns", lambda: 1000 * now_us)
    try:
        past = make_past(make_panel(readings()))
        assert check_freshness(past, PredictConfig(), ignore) == (11 + hours) * HOUR_US
        assert check_freshness(in_utc(past), PredictConfig(), ignore) == 11 * HOUR_US
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_clock_that_is_behind_gives_no_negative_age() -> None:
    past = make_past(make_panel(readings()))
    config = PredictConfig(as_of="2023-01-01", max_age="1h")
    assert check_freshness(past, config, ignore) == 0


def test_an_age_that_is_no_duration_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'old' is not a duration"):
        PredictConfig(max_age="old")
