"""What the calendar says of each step: the hour, the weekday, the month, a holiday. Known ahead.

Apart from `features`, which reads columns: here a time says it all. Hours and days are those of the
clock on the wall, so that a rule of work keeps its place when clocks are changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from rnnforecast.config import MAX_HORIZON
from rnnforecast.data.covariates import Covariates, Track
from rnnforecast.data.panel import Floats, Integers, Panel
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import UsageError

_DAY_US = 86_400_000_000
_FAR_US = 36_525 * _DAY_US
"""Nobody knows the holidays after a century."""
_HARMONICS = (1, 2)


def with_calendar(panel: Panel, config: DataConfig, tz: str | None) -> Panel:
    """Return the panel with what the calendar says of all its steps, and of a horizon after them.

    As it is where the user does not ask for it. Raises `UsageError` for a country without a known
    calendar, and where the package that knows holidays is not there.
    """
    if not (config.calendar or config.holidays):
        return panel
    first = int(panel.first_step.min())
    n_ahead = min(MAX_HORIZON, _FAR_US // panel.step_us)
    last = int((panel.first_step + panel.lengths).max()) + n_ahead
    times = np.arange(first, last, dtype=np.int64) * panel.step_us
    clock = pd.DatetimeIndex((times + panel.start[0] % panel.step_us).astype("datetime64[us]"))
    if tz is not None:
        clock = clock.tz_localize("UTC").tz_convert(tz).tz_localize(None)
    said = _said(clock, config, panel.step_us)
    if not said:
        return panel
    every = np.zeros(panel.n_series, np.int64)
    track = Track(
        np.stack(list(said.values())),
        tuple(said),
        begin=panel.first_step - first,
        low=every,
        high=every + len(clock),
    )
    beside = panel.covariates or _nothing(panel)
    return replace(panel, covariates=replace(beside, known=(*beside.known, track)))


def _said(clock: pd.DatetimeIndex, config: DataConfig, step_us: int) -> dict[str, Floats]:
    """Return the features, `(step,)` each, by their names; those that would never change apart."""
    said: dict[str, Floats] = {}
    if "hour" in config.calendar and step_us < _DAY_US:
        said |= _waves("hour", (clock.hour + clock.minute / 60).to_numpy(), 24)
    if "weekday" in config.calendar and step_us <= _DAY_US:
        weekday = clock.day_of_week.to_numpy()
        said |= {f"weekday={day}": (weekday == day).astype(np.float32) for day in range(7)}
    if "month" in config.calendar:
        said |= _waves("month", (clock.month - 1 + (clock.day - 1) / 31).to_numpy(), 12)
    if config.holidays:
        said["holiday"] = _holidays(clock, config.holidays)
    return said


def _nothing(panel: Panel) -> Covariates:
    """Return covariates without any feature."""
    every = np.zeros(panel.n_series, np.int64)
    empty = Track(np.empty((0, 1), np.float32), (), every, low=every, high=every)
    return Covariates((), empty, np.empty((panel.n_series, 0), np.float32))


def _waves(name: str, position: np.ndarray, period: int) -> dict[str, Floats]:
    """Return sines and cosines: the hour 23 is as near to 0 as 1 is."""
    waves = {}
    for n in _HARMONICS:
        angle = 2 * np.pi * n * position / period
        waves[f"{name}=sin{n}"] = np.sin(angle).astype(np.float32)
        waves[f"{name}=cos{n}"] = np.cos(angle).astype(np.float32)
    return waves


def _holidays(clock: pd.DatetimeIndex, place: str) -> Floats:
    """Tell for each step whether it lies on a public holiday of a country, such as DE or DE-BY."""
    try:
        import holidays
    except ImportError as error:
        raise UsageError(
            "--holidays needs the package that knows them",
            hint="install it with  pip install 'rnnforecast[holidays]'",
        ) from error
    country, _, subdivision = place.partition("-")
    years = range(int(clock[0].year), int(clock[-1].year) + 1)
    try:
        found = holidays.country_holidays(country, subdiv=subdivision or None, years=years)
    except (NotImplementedError, KeyError) as error:
        raise UsageError(
            f"--holidays {place} is no place whose holidays are known",
            hint="write a country, or a country and a part of it, such as DE or DE-BY",
        ) from error
    days: Integers = clock.to_numpy().astype("datetime64[D]")
    return np.isin(days, np.array(sorted(found), "datetime64[D]")).astype(np.float32)
