"""Baselines: naive, seasonal naive, and ridge regression on lags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rnnforecast.data.arrays import Doubles, Floats, Integers, sums_before, take_names
from rnnforecast.data.forecast import Forecast, normal_scores
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import Past, TrainingWindows, add_base

_MAX_WINDOWS = 10_000
"""Windows that ridge regression is fitted to: 20,000 took twice the time, and the scaled MSE on
ETTh1, 96 steps, went from 0.386 to 0.384."""
_MAX_VALIDATION_WINDOWS = 4_000
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1_000.0)
_DEFAULT_STRENGTH = 100.0
"""Regularisation where no validation readings decide."""


def normal_quantiles(point: Doubles, deviation: Doubles, levels: tuple[float, ...]) -> Doubles:
    """Return quantiles of a normal distribution around each point, `(..., quantile)`."""
    quantiles: Doubles = point[..., None] + deviation[..., None] * normal_scores(levels)
    return quantiles


@dataclass(frozen=True)
class SeasonalNaive:
    """Repeats the last season; with season 1, the last reading: the naive forecast.

    The quantiles are normal around the point: the deviation is the root mean square of the
    in-sample seasonal differences times the root of the number of seasons ahead. A reading that is
    missing from the last season is taken from the season before, and so on; where there is none,
    the forecast is the last reading, and NaN where there is no reading at all.
    """

    season: int

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast after each cutoff."""
        leads = np.arange(horizon)
        last_season = _newest_readings(past, self.season)  # (origin, season)
        if np.isnan(last_season).any():
            last_reading = _newest_readings(past, 1)
            last_season = np.where(np.isnan(last_season), last_reading, last_season)
        point = last_season[:, leads % self.season].astype(np.float64)

        seasons_ahead = leads // self.season + 1
        spread = np.sqrt(seasonal_differences(past, self.season).mean_square)
        deviation = np.where(np.isfinite(spread), spread, 0.0)[:, None] * np.sqrt(seasons_ahead)
        levels = tuple(quantiles)
        values = normal_quantiles(point, deviation, levels).astype(np.float32)

        return Forecast(
            values=add_base(values, past),
            quantiles=levels,
            names=take_names(past.names, past.series),
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
            axis=past.axis,
        )


def naive() -> SeasonalNaive:
    """Return the forecaster that repeats the last reading."""
    return SeasonalNaive(season=1)


@dataclass(frozen=True)
class Differences:
    """Means over the differences of readings one season apart, before each cutoff, `(origin,)`."""

    mean_absolute: Doubles
    """In-sample mean absolute error of the seasonal naive forecast: the scale of MASE."""
    mean_square: Doubles


def seasonal_differences(past: Past, season: int) -> Differences:
    """Average `y[t] - y[t - season]` over each origin's past; NaN where there is no such pair.

    Origins of one series share one pass over its readings.
    """
    absolute = np.full(past.n_origins, np.nan)
    square = np.full(past.n_origins, np.nan)
    for origins, row, readings in _tables_by_series(past):
        values = readings.astype(np.float64)
        difference = values[:, season:] - values[:, :-season]
        before_cutoff = row, np.maximum(past.cutoff[origins] - season, 0)

        counts = sums_before(np.isfinite(difference))[before_cutoff]
        clean = np.nan_to_num(difference)
        with np.errstate(invalid="ignore", divide="ignore"):
            absolute[origins] = sums_before(np.abs(clean))[before_cutoff] / counts
            square[origins] = sums_before(clean**2)[before_cutoff] / counts
    return Differences(absolute, square)


def _tables_by_series(past: Past) -> Iterator[tuple[Integers, Integers, Floats]]:
    """Yield origins, the row of each in a table, and the table, `(row, reading)`.

    A row holds the readings of one series up to its latest cutoff; its origins share it.
    """
    order = np.lexsort((past.cutoff, past.series))
    is_last = np.append(np.diff(past.series[order]) > 0, True)[: len(order)]
    latest = order[is_last]  # one origin for each series
    begin = np.flatnonzero(np.concatenate([[True], is_last[:-1]])[: len(order)])
    counts = np.diff(begin, append=len(order))

    for chosen, readings in past.subset(latest).tables():
        n = counts[chosen]
        row = np.repeat(np.arange(len(chosen)), n)
        number_in_series = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
        yield order[np.repeat(begin[chosen], n) + number_in_series], row, readings


def _newest_readings(past: Past, season: int) -> Floats:
    """Return the newest reading at each phase of the season, `(origin, season)`, oldest first.

    NaN for a phase without any. Origins of one series share one pass over its readings.
    """
    newest = past.history(season)
    gapped = np.flatnonzero(np.isnan(newest).any(1))
    part = past.subset(gapped)
    for origins, row, readings in _tables_by_series(part):
        # (row, season number, phase); one season of NaN comes first
        n, width = readings.shape
        table = np.full((n, 1 + -(-width // season), season), np.nan, np.float32)
        table.reshape(n, -1)[:, season : season + width] = readings

        # each gap is filled from the season before
        last_seen = np.where(np.isfinite(table), np.arange(table.shape[1])[:, None], 0)
        last_seen = np.maximum.accumulate(last_seen, axis=1)
        filled = np.take_along_axis(table, last_seen, axis=1).reshape(n, -1)
        windows = sliding_window_view(filled, season, axis=1)
        newest[gapped[origins]] = windows[row, part.cutoff[origins]]
    return newest


@dataclass(frozen=True)
class RidgeOnLags:
    """Ridge regression on the look-back, one for all series; quantiles are normal around the point.

    Every window is taken less its mean and over the scale of its series.
    """

    coefficients: Doubles
    """`(horizon, lookback)`."""
    intercepts: Doubles
    """`(horizon,)`, in units of each series' scale."""
    deviation: Doubles
    """`(horizon,)`: root mean square of the residuals, in the same units."""
    scale_of: dict[str, float]
    """The scale of each series of the training data; other series take that of their window."""
    strength: float

    @classmethod
    def fit(
        cls, train: Past, validation: Past | None, *, lookback: int, horizon: int
    ) -> RidgeOnLags | None:
        """Fit to the readings before the cutoffs of `train`; None without a complete window.

        The regularisation is the one with the least squared error on the windows whose targets lie
        between the cutoffs of `train` and of `validation`.
        """
        scale = fit_scaling(train).scale
        windows = train.windows(lookback, horizon)
        x, y = _pairs(windows, scale, at_most=_MAX_WINDOWS)
        if not len(x):
            return None

        from sklearn.linear_model import Ridge  # takes a second to import

        # without validation windows: the default strength, and the residuals of training
        test_x, test_y, strengths = x, y, [_DEFAULT_STRENGTH]
        if validation is not None:
            later = validation.windows(lookback, horizon, targets_after=train)
            later_x, later_y = _pairs(later, scale, at_most=_MAX_VALIDATION_WINDOWS)
            if len(later_x):
                test_x, test_y, strengths = later_x, later_y, [*_STRENGTHS]

        models = [Ridge(strength).fit(x, y) for strength in strengths]
        best = 0
        if len(models) > 1:
            best = int(np.argmin([((test_y - m.predict(test_x)) ** 2).mean() for m in models]))
        model = models[best]
        residuals = test_y - model.predict(test_x)

        return cls(
            coefficients=model.coef_.reshape(horizon, lookback),
            intercepts=np.broadcast_to(model.intercept_, (horizon,)),
            deviation=np.sqrt((residuals**2).mean(0)),
            scale_of=dict(zip(train.names, scale.tolist(), strict=True)),
            strength=strengths[best],
        )

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast after each cutoff, up to the fitted horizon.

        A missing reading repeats the last one; a look-back without any gives NaN.
        """
        lookback = self.coefficients.shape[1]
        history = past.history(lookback).astype(np.float64)
        level, filled = _level_and_filled(history)

        names = take_names(past.names, past.series)
        known = np.array([self.scale_of.get(name, np.nan) for name in names])
        spread = np.sqrt((filled**2).mean(1))
        scale = np.where(np.isfinite(known), known, np.where(spread > 0, spread, 1.0))[:, None]

        scaled = filled / scale @ self.coefficients[:horizon].T + self.intercepts[:horizon]
        point = scaled * scale + level
        values = normal_quantiles(point, self.deviation[:horizon] * scale, tuple(quantiles))
        return Forecast(
            values=add_base(values.astype(np.float32), past),
            quantiles=tuple(quantiles),
            names=names,
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
            axis=past.axis,
        )


def _pairs(windows: TrainingWindows, scale: Floats, *, at_most: int) -> tuple[Doubles, Doubles]:
    """Gather histories and futures, `(window, lookback)` and `(window, horizon)`.

    Windows with a missing target, or without any reading, are left out.
    """
    if not len(windows):
        return np.empty((0, windows.lookback)), np.empty((0, windows.horizon))
    batch = windows.gather(windows.spread(at_most))
    level, filled = _level_and_filled(batch.history.astype(np.float64))
    window_scale = scale[batch.series][:, None].astype(np.float64)
    target = (batch.future - level) / window_scale
    is_complete = np.isfinite(target).all(1) & np.isfinite(filled).all(1)
    return (filled / window_scale)[is_complete], target[is_complete]


def _level_and_filled(history: Doubles) -> tuple[Doubles, Doubles]:
    """Return each window's mean, `(window, 1)`, and its readings less it, gaps filled forward."""
    seen = np.isfinite(history)
    counts = seen.sum(1, keepdims=True)
    sums = np.where(seen, history, 0.0).sum(1, keepdims=True)
    level = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    deviation = np.where(seen, history - level, np.where(counts > 0, 0.0, np.nan))
    last = np.maximum.accumulate(np.where(seen, np.arange(history.shape[1]), 0), axis=1)
    return level, np.take_along_axis(deviation, last, axis=1)
