"""Baselines: naive, seasonal naive, and ridge regression on lags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers, pick
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import Past, TrainingWindows, in_own_units
from rnnforecast.evaluate.metrics import normal_quantiles

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge


_MAX_WINDOWS = 10_000
_MAX_VALIDATION_WINDOWS = 4_000
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1_000.0)
_USUAL_STRENGTH = 100.0
"""Where no validation readings decide."""


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


@dataclass(frozen=True)
class RidgeOnLags:
    """A fitted linear map. Its quantiles are normal around the point."""

    coefficients: Doubles
    """`(horizon, lookback)`."""
    intercepts: Doubles
    """`(horizon,)`, in units of each series' scale."""
    deviation: Doubles
    """`(horizon,)`: root mean square of the residuals, in the same units."""
    scale_of: dict[str, float]
    """The scale of each series that it knows; others take that of their window."""
    strength: float

    @classmethod
    def fit(
        cls, train: Past, validation: Past | None, *, lookback: int, horizon: int
    ) -> RidgeOnLags | None:
        """Fit to the readings before the cutoffs of `train`; None where no whole window is there.

        The regularisation is the one with the least squared error on the windows whose targets lie
        between the cutoffs of `train` and of `validation`.
        """
        scale = fit_scaling(train).scale
        windows = train.windows(lookback, horizon)
        x, y = _pairs(windows, scale, at_most=_MAX_WINDOWS)
        if not len(x):
            return None
        held_out = None
        if validation is not None:
            later = validation.windows(lookback, horizon, targets_after=train)
            held_out = _pairs(later, scale, at_most=_MAX_VALIDATION_WINDOWS)
        strength, model = _choose(x, y, held_out)
        judged = held_out if held_out is not None and len(held_out[0]) else (x, y)
        residuals = judged[1] - model.predict(judged[0])
        return cls(
            coefficients=model.coef_.reshape(horizon, lookback),
            intercepts=np.broadcast_to(model.intercept_, (horizon,)),
            deviation=np.sqrt((residuals**2).mean(0)),
            scale_of=dict(zip(train.names, scale.tolist(), strict=True)),
            strength=strength,
        )

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast after each cutoff, up to the fitted horizon.

        A missing reading repeats the last one; a look-back without any gives NaN.
        """
        lookback = self.coefficients.shape[1]
        history = past.history(lookback).astype(np.float64)
        names = pick(past.names, past.series)
        own = np.array([self.scale_of.get(name, np.nan) for name in names])
        level, filled = _level_and_filled(history)
        spread = np.sqrt((filled**2).mean(1))
        scale = np.where(np.isfinite(own), own, np.where(spread > 0, spread, 1.0))[:, None]
        scaled = filled / scale @ self.coefficients[:horizon].T + self.intercepts[:horizon]
        point = scaled * scale + level
        values = normal_quantiles(point, self.deviation[:horizon] * scale, tuple(quantiles))
        return Forecast(
            values=in_own_units(values.astype(np.float32), past),
            quantiles=tuple(quantiles),
            names=names,
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
        )


def _choose(
    x: Doubles, y: Doubles, held_out: tuple[Doubles, Doubles] | None
) -> tuple[float, Ridge]:
    """Return the strength with the least error on the held-out pairs, and its model."""
    from sklearn.linear_model import Ridge  # takes a second to import

    if held_out is None or not len(held_out[0]):
        return _USUAL_STRENGTH, Ridge(_USUAL_STRENGTH).fit(x, y)
    fitted = [(strength, Ridge(strength).fit(x, y)) for strength in _STRENGTHS]
    errors = [((held_out[1] - model.predict(held_out[0])) ** 2).mean() for _, model in fitted]
    return fitted[int(np.argmin(errors))]


def _pairs(windows: TrainingWindows, scale: Floats, *, at_most: int) -> tuple[Doubles, Doubles]:
    """Gather histories and futures, `(window, lookback)` and `(window, horizon)`.

    Windows with a missing target, or without any reading, are left out.
    """
    if not len(windows):
        return np.empty((0, windows.lookback)), np.empty((0, windows.horizon))
    batch = windows.gather(windows.spread(at_most))
    level, filled = _level_and_filled(batch.history.astype(np.float64))
    own = scale[batch.series][:, None].astype(np.float64)
    target = (batch.future - level) / own
    whole = np.isfinite(target).all(1) & np.isfinite(filled).all(1)
    return (filled / own)[whole], target[whole]


def _level_and_filled(history: Doubles) -> tuple[Doubles, Doubles]:
    """Return each window's mean, `(window, 1)`, and its readings less it, gaps filled forward."""
    seen = np.isfinite(history)
    counts = seen.sum(1, keepdims=True)
    sums = np.where(seen, history, 0.0).sum(1, keepdims=True)
    level = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    deviation = np.where(seen, history - level, np.where(counts > 0, 0.0, np.nan))
    last = np.maximum.accumulate(np.where(seen, np.arange(history.shape[1]), 0), axis=1)
    return level, np.take_along_axis(deviation, last, axis=1)
