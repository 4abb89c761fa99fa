"""How old the newest reading is, and whether that is too old to forecast from.

The only place, beside `futuretimes`, where readings meet the wall clock: with an as-of time that is
the clock, so that a day in the past can be run again as it was.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import numpy as np

from rnnforecast.config import PredictConfig
from rnnforecast.data.panel import Integers
from rnnforecast.data.past import Past
from rnnforecast.data.stamps import format_stamp, parse_time_us
from rnnforecast.durations import parse_duration_us, shorten_duration
from rnnforecast.errors import NotEnoughDataError
from rnnforecast.events import Listener, Warned

STALE = "stale"
"""The code of the error, and of the warning."""


def newest_readings(past: Past) -> Integers:
    """`(origin,)`: time of the newest reading of each, in microseconds; -1 where there is none."""
    newest = np.full(past.n_origins, -1, np.int64)
    open_ones, n = np.arange(past.n_origins), 1
    while len(open_ones):
        part = past.subset(open_ones)
        seen = np.isfinite(part.history(n))
        behind = np.argmax(seen[:, ::-1], axis=1)
        found = seen.any(1)
        newest[open_ones[found]] = (part.cutoff_time - behind * past.step_us)[found]
        open_ones = open_ones[~found & (part.cutoff > n)]
        n *= 8
    return newest


def newest_of(past: Past) -> int:
    """Return the time of the newest reading of all, in microseconds; -1 where there is none."""
    return int(newest_readings(past).max(initial=-1))


def check_fresh(past: Past, tz: str | None, config: PredictConfig, listener: Listener) -> int:
    """Return the age of the newest reading, and judge it: see `check_age`."""
    return check_age(newest_of(past), tz, config, listener)


def check_age(newest: int, tz: str | None, config: PredictConfig, listener: Listener) -> int:
    """Return the age of the newest reading in microseconds, 0 where it is ahead of the clock.

    Warns where it is over `warn_age`; raises `NotEnoughDataError` with the code `stale` where it is
    over `max_age`. Stamps without a zone are on this machine's clock.
    """
    now = _now_us(tz) if config.as_of is None else parse_time_us(config.as_of, tz)
    age = max(0, now - newest)
    what = f"the newest reading, {format_stamp(newest, tz)}, is {shorten_duration(age)} old"
    if config.max_age is not None and age > parse_duration_us(config.max_age):
        raise NotEnoughDataError(
            f"{what}, more than --max-age {config.max_age}",
            code=STALE,
            hint="see why no newer readings come; nothing was published, what was there stays",
        )
    if config.warn_age is not None and age > parse_duration_us(config.warn_age):
        listener(Warned(STALE, f"{what}, more than --warn-age {config.warn_age}"))
    return age


def epoch_s(time_us: int, tz: str | None) -> float:
    """Return a reading's time in seconds since 1970, in UTC, as other programs count them."""
    if tz is not None:
        return time_us / 1e6
    return (datetime(1970, 1, 1) + timedelta(microseconds=time_us)).astimezone().timestamp()


def _now_us(tz: str | None) -> int:
    """Return the clock's time as the readings count theirs: in UTC, or on this machine's wall."""
    now_us = time.time_ns() // 1000
    if tz is not None:
        return now_us
    offset = datetime.fromtimestamp(now_us / 1e6).astimezone().utcoffset()
    return now_us + (0 if offset is None else int(offset.total_seconds()) * 1_000_000)
