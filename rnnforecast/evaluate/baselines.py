"""The forecasts that every number stands beside: naive and seasonal naive, both Forecasters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Doubles, Floats, Integers, pick
from rnnforecast.data.past import Past, in_own_units
from rnnforecast.evaluate.metrics import normal_quantiles


@dataclass(frozen=True)
class SeasonalNaive:
    """Repeats the last season; with season 1, the last reading: the naive forecast.

    The quantiles are normal around the point: the deviation is the root mean square of the
    in-sample seasonal differences times the root of the number of seasons ahead. A reading that is
    missing from the last season is taken from the season before, and so on; where there is none,
    the forecast is the last reading, and NaN where there is no reading at all.
    """

    season: int

    @classmethod
    def fit(cls, train: Past, validation: Past | None, *, season: int) -> SeasonalNaive:
        """There is nothing to learn: everything comes from the past that `predict` gets."""
        del train, validation
        return cls(season)

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast after each cutoff."""
        leads = np.arange(horizon)
        point = self._last_season(past)[:, leads % self.season].astype(np.float64)
        seasons_ahead = leads // self.season + 1
        spread = np.sqrt(seasonal_differences(past, self.season).mean_square)
        deviation = np.where(np.isfinite(spread), spread, 0.0)[:, None] * np.sqrt(seasons_ahead)
        levels = tuple(quantiles)
        values = normal_quantiles(point, deviation, levels).astype(np.float32)
        return Forecast(
            values=in_own_units(values, past),
            quantiles=levels,
            names=pick(past.names, past.series),
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
        )

    def _last_season(self, past: Past) -> Floats:
        """Return what each of the next readings repeats, `(origin, season)`."""
        season = _newest_readings(past, self.season)
        if not np.isnan(season).any():
            return season
        return np.where(np.isnan(season), _newest_readings(past, 1), season)


def naive() -> SeasonalNaive:
    """Return the forecaster that repeats the last reading."""
    return SeasonalNaive(season=1)


@dataclass(frozen=True)
class Differences:
    """What the readings before each cutoff say about steps of one season, `(origin,)` each."""

    mean_absolute: Doubles
    """In-sample mean absolute error of the seasonal naive forecast: the scale of MASE."""
    mean_square: Doubles


def seasonal_differences(past: Past, season: int) -> Differences:
    """Average `y[t] - y[t - season]` over each origin's past; NaN where there is no such pair.

    Origins of one series share one pass over its readings.
    """
    absolute = np.full(past.n_origins, np.nan)
    square = np.full(past.n_origins, np.nan)
    for origins, row, readings in _by_series(past):
        values = readings.astype(np.float64)
        difference = values[:, season:] - values[:, :-season]
        at = row, np.maximum(past.cutoff[origins] - season, 0)
        counts = _running(np.isfinite(difference))[at]
        clean = np.nan_to_num(difference)
        with np.errstate(invalid="ignore", divide="ignore"):
            absolute[origins] = _running(np.abs(clean))[at] / counts
            square[origins] = _running(clean**2)[at] / counts
    return Differences(absolute, square)


def _by_series(past: Past) -> Iterator[tuple[Integers, Integers, Floats]]:
    """Give origins, the row of each, and readings `(row, reading)`: as far as a series is seen.

    Origins of one series have the same row.
    """
    order = np.lexsort((past.cutoff, past.series))
    is_last = np.append(np.diff(past.series[order]) > 0, True)[: len(order)]
    longest = order[is_last]  # one for each series
    begin = np.flatnonzero(np.concatenate([[True], is_last[:-1]])[: len(order)])
    counts = np.diff(begin, append=len(order))
    for chosen, readings in past.subset(longest).tables():
        n = counts[chosen]
        row = np.repeat(np.arange(len(chosen)), n)
        within = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
        yield order[np.repeat(begin[chosen], n) + within], row, readings


def _running(values: NDArray[Any]) -> Doubles:
    """Return sums of the first 0, 1, ... values of each row, `(row, value + 1)`."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _newest_readings(past: Past, season: int) -> Floats:
    """Find the newest reading at each phase of the season, `(origin, season)`, oldest first.

    Origins of one series share one pass over its readings.
    """
    newest = past.history(season)
    gapped = np.flatnonzero(np.isnan(newest).any(1))
    part = past.subset(gapped)
    for origins, row, readings in _by_series(part):
        carried = sliding_window_view(_carry_forward(readings, season), season, axis=1)
        newest[gapped[origins]] = carried[row, part.cutoff[origins]]
    return newest


def _carry_forward(readings: Floats, season: int) -> Floats:
    """Fill each gap, `(row, reading)`, from the season before; one season of NaN comes first."""
    n, width = readings.shape
    table = np.full((n, 1 + -(-width // season), season), np.nan, np.float32)
    table.reshape(n, -1)[:, season : season + width] = readings
    seen = np.where(np.isfinite(table), np.arange(table.shape[1])[:, None], 0)
    newest = np.maximum.accumulate(seen, axis=1)
    return np.take_along_axis(table, newest, axis=1).reshape(n, -1)
