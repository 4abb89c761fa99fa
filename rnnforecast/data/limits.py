"""Limits that readings rest on, such as no rain, a solar plant's night and an open valve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers, next_to, take_names
from rnnforecast.data.axis import Flags
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.windows import Past, Values
from rnnforecast.units import join_names

_MIN_READINGS = 500
"""Fewer readings do not show that none goes beyond, except for a frequent 0."""
_MIN_ZEROS = 5
"""Least number of zeros that make 0 a floor of fewer readings."""
_MIN_SHARE = 0.02
"""Share of the readings that equal a limit, at least."""
_MIN_VISITS, _MIN_VISITS_OF_ZERO = 5, 2
"""How often readings came to a limit, at least, and to 0. A meter that stands still is at its
extreme once, as is a plant before it runs."""
_PILE = 3.0
"""Least ratio of the readings at a limit to those at the value next to it.

The edge of a bell has fewer readings than what is next to it, and that of a sine, whose readings
pile up where it turns, 2.4 times as many.
"""
_MIN_VALUES = 20
"""With no more values than these, as of a coarse thermometer, any lowest one may occur often."""
_MANY = 0.2
"""Least share of readings at 0, with none below, that makes 0 a floor whatever the others are; and
of readings at the highest value above such a 0, that makes it a ceiling."""
_MAX_STATES = 4
"""With no more values than these, which all are frequent, readings may be those of states."""
_MIN_STATE_SHARE, _MIN_JUMPS = 0.1, 0.25
"""Least share of the readings in each of three or more states, and of the ways from the lowest and
to the highest that leave out the one next to it, which a coarse thermometer takes."""
_MAX_FLICKER = 1 / 3
"""Most changes between two states that are undone at once, as those of noise between two values."""
_MIN_INCREMENTS, _MIN_RISES = 100, 20
"""Fewer increments, and fewer above 0, do not show that a series never falls."""
_N_PARTS = 12
"""Equal parts of the readings, of which the growth is compared."""
_USUAL = 0.6
"""Least ratio between the frequency of counts above 1 next to a 0 and elsewhere."""
_MAX_NAMED = 5


@dataclass(frozen=True)
class Limits:
    """The floor and the ceiling of each series, `(series,)`, in the sensor's own units."""

    names: tuple[str, ...]
    low: Doubles
    """-inf where there is none."""
    high: Doubles
    """inf where there is none."""
    rises: Flags | None = None
    """Whether the series is a total that never falls; None where none is."""

    @property
    def any(self) -> bool:
        """Whether a series has a limit."""
        has_limit = np.isfinite(self.low).any() or np.isfinite(self.high).any()
        return bool(has_limit or self.rises is not None)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def of(self, past: Past, n_rows: int) -> tuple[Doubles, Doubles]:
        """Return the limits of each origin, `(origin,)`: infinite for a series without any.

        A limit does not count where one of the newest `n_rows` readings lies beyond it. The floor
        of a total that never falls is its newest reading.
        """
        rows = self._rows_of(past)
        low = np.append(self.low, -np.inf)[rows]
        high = np.append(self.high, np.inf)[rows]

        newest = past.history(n_rows) + past.base[:, None]
        is_below = (newest < low[:, None]).any(1)
        is_above = (newest > high[:, None]).any(1)
        low, high = np.where(is_below, -np.inf, low), np.where(is_above, np.inf, high)
        total = np.fmax.reduce(newest, axis=1)
        return np.where(self._rising(past, n_rows) & np.isfinite(total), total, low), high

    def without_falls(self, forecast: Forecast, past: Past) -> Forecast:
        """Return a forecast whose quantiles do not fall where the series never does."""
        rising = self._rising(past, forecast.horizon)
        if not rising.any():
            return forecast

        def risen(values: Values) -> Values:
            values = values.copy()
            values[rising] = np.fmax.accumulate(values[rising], axis=1)
            return values

        return forecast.apply(risen)

    def _rising(self, past: Past, n_rows: int) -> Flags:
        """`(origin,)`: whether a total never falls, nor has done so in the newest rows."""
        if self.rises is None:
            return np.zeros(past.n_origins, np.bool_)
        return np.append(self.rises, False)[self._rows_of(past)] & ~_falls(past.history(n_rows))

    def _rows_of(self, past: Past) -> Integers:
        names = take_names(past.names, past.series)
        return np.array([self._rows.get(name, -1) for name in names], np.int64)

    def describe(self) -> str:
        """Return the limits in words: `pv 0 or more; valve 0 to 100`."""
        by_range: dict[str, list[str]] = {}
        for name, low, high in zip(self.names, self.low.tolist(), self.high.tolist(), strict=True):
            if low > -np.inf and high < np.inf:
                by_range.setdefault(f"{low:g} to {high:g}", []).append(name)
            elif low > -np.inf or high < np.inf:
                text = f"{low:g} or more" if low > -np.inf else f"{high:g} or less"
                by_range.setdefault(text, []).append(name)
        if self.rises is not None:
            by_range["never falling"] = [self.names[row] for row in np.flatnonzero(self.rises)]
        parts = [f"{join_names(names, _MAX_NAMED)} {text}" for text, names in by_range.items()]
        return "; ".join(parts[:_MAX_NAMED]) + "; ..." * (len(parts) > _MAX_NAMED)


def fit_limits(past: Past) -> Limits:
    """Find the limits that the readings before each cutoff rest on; one origin for each series.

    A limit is an extreme that at least 2 % of 500 readings or more equal, again and again. That a
    minimum was never crossed is not enough: there must be far more readings at it than next to it.
    0 is a floor also where every fifth reading is 0, or where counts, all whole and none below, go
    to it from their usual values. Above a minimum of 0, a maximum that every fifth reading equals
    is a ceiling. Of a few states, the lowest and the highest are limits. Fewer readings have a
    floor at 0 where none is below and no other value is a third as frequent, or there is only one
    other.
    """
    limits = np.full((past.n_origins, 2), np.nan)
    rises = np.zeros(past.n_origins, np.bool_)
    for origins, readings in past.tables():
        base = past.base[origins]
        is_long = np.isfinite(readings).sum(1) >= _MIN_READINGS
        zero = -base[:, None]
        n_zeros, is_below = (readings == zero).sum(1), (readings < zero).any(1)
        for row in np.flatnonzero(is_long | (n_zeros >= _MIN_ZEROS) & ~is_below).tolist():
            find = _limits_of if is_long[row] else _limits_of_few
            limits[origins[row]] = find(readings[row], float(base[row]))
        for row in np.flatnonzero(~_falls(readings) & ~is_below).tolist():
            rises[origins[row]] = _is_total(readings[row])

    low, high = past.filled(limits).T
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    rises = past.filled(rises)
    names = take_names(past.names, past.series)
    return Limits(names, low, high, rises if rises.any() else None)


def _falls(readings: Floats) -> Flags:
    """Tell which series, `(series, row)`, have a reading below an earlier one."""
    is_fall: Flags = readings[:, 1:] < np.fmax.accumulate(readings, axis=1)[:, :-1]
    return np.asarray(is_fall.any(axis=1))


def _is_total(readings: Floats) -> bool:
    """Tell whether readings, `(row,)`, that never fall are a total, of a meter for instance.

    It rises often, and now faster, now slower. What rises along one curve may fall later on.
    """
    rows = np.flatnonzero(np.isfinite(readings))
    increments = np.diff(readings[rows])
    if len(increments) < _MIN_INCREMENTS or np.count_nonzero(increments) < _MIN_RISES:
        return False
    growth = np.diff(np.interp(np.linspace(rows[0], rows[-1], _N_PARTS + 1), rows, readings[rows]))
    changes = np.diff(growth)
    turns = np.sign(changes[np.abs(changes) > 1.5 * increments[increments > 0].min()])
    return bool(np.count_nonzero(np.diff(turns)) > 1)


def _limits_of(readings: Floats, base: float) -> tuple[float, float]:
    """Return the floor and the ceiling of one series, `(row,)`; NaN where there is none."""
    observed = readings[np.isfinite(readings)]
    least = _MIN_SHARE * len(observed)
    low, high = observed.min(), observed.max()
    is_zero = low + base == 0
    at_low = _n_resting(observed == low, _MIN_VISITS_OF_ZERO if is_zero else _MIN_VISITS)
    at_high = _n_resting(observed == high, _MIN_VISITS)
    if low == high or max(at_low, at_high) < least:
        return np.nan, np.nan

    values, counts = np.unique(observed, return_counts=True)
    if min(at_low, at_high) >= least and _are_states(observed, values + base, counts):
        return float(low) + base, float(high) + base
    is_fine = len(values) > _MIN_VALUES
    is_floor = at_low >= least and (
        (is_fine and at_low >= _PILE * counts[1])
        or (is_zero and (at_low >= max(_MANY * len(observed), counts[1]) or _is_count(observed)))
    )
    is_ceiling = at_high >= least and (
        (is_fine and at_high >= _PILE * counts[-2])
        or (is_zero and at_high >= _MANY * len(observed))
    )
    return (float(low) + base if is_floor else np.nan, float(high) + base if is_ceiling else np.nan)


def _are_states(observed: Floats, values: Floats, counts: Integers) -> bool:
    """Tell whether readings, `(row,)`, are one of a few states, such as off and on.

    Two values are, if one is 0 or if they are no neighbours on a coarse scale, which are multiples
    of their difference, and do not flicker. More are, if all are frequent and they jump.
    """
    if len(values) == 2:
        multiple = values[0] / (values[1] - values[0])
        is_apart = abs(multiple - np.rint(multiple)) > 0.05 or np.rint(multiple) == 1
        changes = np.flatnonzero(np.diff(observed))
        is_undone = np.diff(changes) == 1
        return bool(values[0] == 0 or (is_apart and is_undone.mean() <= _MAX_FLICKER))
    if len(values) > _MAX_STATES or counts.min() < _MIN_STATE_SHARE * len(observed):
        return False
    state = np.searchsorted(np.unique(observed), observed)
    before, after = state[:-1], state[1:]
    leaves, comes = (before == 0) & (after > 0), (before < after) & (after == len(values) - 1)
    jumps = (after[leaves] > 1).mean(), (before[comes] < len(values) - 2).mean()
    return bool(min(jumps) >= _MIN_JUMPS)


def _limits_of_few(readings: Floats, base: float) -> tuple[float, float]:
    """Return a floor at 0 of fewer readings, and a ceiling above it; NaN where there is none."""
    observed = readings[np.isfinite(readings)]
    at_zero = _n_resting(observed == -base, _MIN_VISITS_OF_ZERO)
    values, counts = np.unique(observed, return_counts=True)
    is_state = len(values) == 2
    if not at_zero or len(values) == 1:
        return np.nan, np.nan
    if not is_state and at_zero < _PILE * counts[1:].max():
        return np.nan, np.nan
    at_high = _n_resting(observed == values[-1], _MIN_VISITS)
    return 0.0, float(values[-1]) + base if at_high >= _MANY * len(observed) else np.nan


def _n_resting(is_extreme: NDArray[np.bool_], min_visits: int) -> int:
    """Return how many readings are at an extreme; 0 where they came to it less often."""
    n_visits = np.count_nonzero(is_extreme[1:] & ~is_extreme[:-1]) + int(is_extreme[0])
    return int(np.count_nonzero(is_extreme)) if n_visits >= min_visits else 0


def _is_count(readings: Floats) -> bool:
    """Tell whether readings are whole numbers that come to 0 from usual values.

    A thermometer in whole degrees comes to 0 by way of 1, but counts do so from any number.
    """
    if (readings != np.rint(readings)).any():
        return False
    is_zero = readings == 0
    nearest = next_to(is_zero) & ~is_zero
    share, share_near = (np.mean(readings[rows] > 1) for rows in (~is_zero, nearest))
    return bool(share_near >= _USUAL * share > 0)


@dataclass(frozen=True)
class Limited:
    """A forecaster whose quantiles stay inside of the limits of their series."""

    forecaster: Forecaster
    limits: Limits

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast, and clip the quantiles, those before calibration too."""
        forecast = self.forecaster.predict(past, horizon, quantiles)
        low, high = (limit[:, None, None] for limit in self.limits.of(past, horizon))
        forecast = self.limits.without_falls(forecast, past)
        return forecast.apply(lambda values: np.clip(values, low, high, dtype=values.dtype))


def with_limits(forecaster: Forecaster, limits: Limits | None) -> Forecaster:
    """Return a forecaster that stays inside of limits; without any, the one given."""
    return Limited(forecaster, limits) if limits is not None and limits.any else forecaster
