"""Ridge regression on lags: the linear forecaster that a network must beat to be worth its time.

One linear map from the look-back to all leads at once, shared by all series, as in DLinear (Zeng
and others 2023): every window is brought to its own mean and to the scale of its series first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Doubles, Floats, pick
from rnnforecast.data.past import Past, in_own_units
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import TrainingWindows
from rnnforecast.evaluate.metrics import normal_quantiles

_MAX_WINDOWS = 10_000
_MAX_VALIDATION_WINDOWS = 4_000
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1_000.0)
_USUAL_STRENGTH = 100.0
"""Where no validation readings decide."""


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
