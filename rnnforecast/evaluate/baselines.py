"""The forecasts that every number stands beside: naive and seasonal naive, both Forecasters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnnforecast.data.forecast import Forecast, Past, in_own_units
from rnnforecast.data.panel import Doubles, Floats
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
            names=tuple(past.names[s] for s in past.series),
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
    for origins in _by_series(past):
        longest = origins[np.argmax(past.cutoff[origins])]
        readings = past.readings(int(longest)).astype(np.float64)
        difference = readings[season:] - readings[:-season]
        ends = np.maximum(past.cutoff[origins] - season, 0)
        counts = _running(np.isfinite(difference).astype(np.float64))[ends]
        clean = np.nan_to_num(difference)
        with np.errstate(invalid="ignore", divide="ignore"):
            absolute[origins] = _running(np.abs(clean))[ends] / counts
            square[origins] = _running(clean**2)[ends] / counts
    return Differences(absolute, square)


def _by_series(past: Past) -> list[NDArray[np.intp]]:
    order = np.argsort(past.series, kind="stable")
    edges = np.flatnonzero(np.diff(past.series[order])) + 1
    return [part for part in np.split(order, edges) if len(part)]


def _running(values: Doubles) -> Doubles:
    return np.concatenate([np.zeros(1), np.cumsum(values)])


def _newest_readings(past: Past, season: int) -> Floats:
    """Find the newest reading at each phase of the season, `(origin, season)`, oldest first.

    Origins of one series share one pass over its readings.
    """
    newest = past.history(season)
    gapped = np.flatnonzero(np.isnan(newest).any(1))
    part = past.subset(gapped)
    for origins in _by_series(part):
        longest = origins[np.argmax(part.cutoff[origins])]
        carried = _carry_forward(part.readings(int(longest)), season)
        newest[gapped[origins]] = sliding_window_view(carried, season)[part.cutoff[origins]]
    return newest


def _carry_forward(readings: Floats, season: int) -> Floats:
    """Fill each gap from the season before; the result begins with one season of NaN."""
    behind = np.full(-len(readings) % season, np.nan, np.float32)
    before = np.full(season, np.nan, np.float32)
    table = np.concatenate([before, readings, behind]).reshape(-1, season)
    seen = np.where(np.isfinite(table), np.arange(len(table))[:, None], 0)
    return np.take_along_axis(table, np.maximum.accumulate(seen), axis=0).ravel()
