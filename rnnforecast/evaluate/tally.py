"""Running sums of one method's errors: windows go in a part at a time, and are forgotten.

Apart from `metrics`, whose functions see all windows at once: memory here does not grow with them.
Beside the contract's metrics it keeps the errors by series, by lead and by stretch of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rnnforecast.config import DECILES, QUANTILES
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Doubles, Integers
from rnnforecast.data.past import Values
from rnnforecast.data.ranks import Ranks
from rnnforecast.evaluate.metrics import (
    Metrics,
    mean,
    percentage_errors,
    pinball_losses,
    scaled_errors,
)

UNCALIBRATED = "uncalibrated"
"""Under this name stands what the network would be without its calibration."""
_LEVELS = np.array(DECILES)
_AT_DECILES = [QUANTILES.index(level) for level in DECILES]


@dataclass(frozen=True)
class Windows:
    """What scoring must know of each window beside its actuals, `(window,)` each."""

    series: Integers
    scale: Doubles
    """In-sample error of the seasonal naive forecast before the cutoff: the unit of MASE."""
    deviation: Doubles
    """Standard deviation of the series before the train part ends."""
    block: Integers
    """Which stretch of time the cutoff lies in."""


@dataclass
class _Mean:
    """A mean in the making, one for each group."""

    sums: Doubles
    counts: Integers

    @classmethod
    def of(cls, *shape: int) -> _Mean:
        return cls(np.zeros(shape), np.zeros(shape, np.int64))

    def add(self, values: Doubles, group: Integers | int = 0) -> None:
        """Add values to their groups, numbers of the flat result; missing ones do not count."""
        seen = np.isfinite(values)
        owner = np.broadcast_to(group, values.shape)[seen]
        size = self.sums.size
        self.sums += np.bincount(owner, values[seen], size).reshape(self.sums.shape)
        self.counts += np.bincount(owner, minlength=size).reshape(self.counts.shape)

    def total(self, ranks: Ranks) -> _Mean:
        """Return the same of what all ranks have added."""
        return _Mean(ranks.total(self.sums), ranks.total(self.counts))

    @property
    def values(self) -> Doubles:
        """The means; NaN for a group without a value."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)

    @property
    def overall(self) -> float | None:
        """The mean over all groups together."""
        n = int(self.counts.sum())
        return float(self.sums.sum() / n) if n else None


@dataclass
class Tally:
    """The sums of one method."""

    n_series: int
    horizon: int
    n_blocks: int
    absolute: _Mean = field(init=False)
    squared: _Mean = field(init=False)
    percentage: _Mean = field(init=False)
    scaled: _Mean = field(init=False)
    scaled_squared: _Mean = field(init=False)
    below: _Mean = field(init=False)
    """Share of the actuals at or below each quantile, `(quantile,)`."""
    inside: _Mean = field(init=False)
    """Share of the actuals inside q10..q90, `(block, series)`."""
    by_series: _Mean = field(init=False)
    """MAE, `(series,)`."""
    by_lead: _Mean = field(init=False)
    """Scaled absolute errors, `(horizon,)`."""
    by_block: _Mean = field(init=False)
    """Absolute errors in units of MASE, `(block, series)`."""
    pinball: Doubles = field(init=False)
    size: float = 0.0
    """Sum of the absolute actuals."""
    n_windows: int = 0

    def __post_init__(self) -> None:
        """Start from nothing."""
        for name in ("absolute", "squared", "percentage", "scaled", "scaled_squared"):
            setattr(self, name, _Mean.of(1))
        self.below = _Mean.of(len(QUANTILES))
        self.inside = _Mean.of(self.n_blocks, self.n_series)
        self.by_series = _Mean.of(self.n_series)
        self.by_lead = _Mean.of(self.horizon)
        self.by_block = _Mean.of(self.n_blocks, self.n_series)
        self.pinball = np.zeros(len(DECILES))

    def empty(self) -> Tally:
        """Return one like this that nothing has been counted in."""
        return Tally(self.n_series, self.horizon, self.n_blocks)

    def total(self, ranks: Ranks) -> Tally:
        """Return the sums of all ranks; the figures that belong to a window belong to one rank."""
        if ranks.n == 1:
            return self
        whole = self.empty()
        for name, part in vars(self).items():
            if isinstance(part, _Mean):
                setattr(whole, name, part.total(ranks))
        whole.pinball = ranks.total(self.pinball)
        size, n_windows = ranks.total(np.array([self.size, self.n_windows])).tolist()
        whole.size, whole.n_windows = size, round(n_windows)
        return whole

    def add(self, actual: Values, forecast: Forecast, windows: Windows) -> None:
        """Count some windows: actuals `(window, horizon)`, NaN where missing, and their forecast.

        The forecast must hold the trained quantiles, and only them.
        """
        truth, point = actual.astype(np.float64), forecast.point.astype(np.float64)
        quantiles = forecast.values.astype(np.float64)
        deciles = quantiles[:, :, _AT_DECILES]
        errors = np.abs(truth - point)
        series = windows.series[:, None]
        self.absolute.add(errors)
        self.squared.add(errors**2)
        self.percentage.add(percentage_errors(truth, point))
        within = (deciles[:, :, 0] <= truth) & (truth <= deciles[:, :, -1])
        cell = windows.block[:, None] * self.n_series + series
        self.inside.add(np.where(np.isfinite(truth), within, np.nan), cell)
        under = np.where(np.isfinite(truth)[:, :, None], truth[:, :, None] <= quantiles, np.nan)
        self.below.add(under, np.arange(len(QUANTILES)))
        in_deviations = scaled_errors(truth, point, windows.deviation)
        self.scaled.add(in_deviations)
        self.scaled_squared.add(in_deviations**2)
        self.by_lead.add(in_deviations, np.arange(self.horizon))
        self.by_series.add(errors, series)
        in_scales = scaled_errors(truth, point, windows.scale)
        self.by_block.add(in_scales, cell)
        self.pinball += np.nansum(pinball_losses(truth, deciles, _LEVELS), axis=(0, 1))
        self.size += float(np.nansum(np.abs(truth)))
        self.n_windows += len(truth)

    def metrics(self) -> Metrics:
        """Return the contract's metrics of all that was counted."""
        squared = self.squared.overall
        return Metrics(
            mae=self.absolute.overall,
            rmse=None if squared is None else float(np.sqrt(squared)),
            smape=self.percentage.overall,
            mase=mean(self.mase_by_series()),
            wql=float(np.mean(2 * self.pinball / self.size)) if self.size > 0 else None,
            coverage_80=self.inside.overall,
            scaled_mse=self.scaled_squared.overall,
            scaled_mae=self.scaled.overall,
            n=int(self.absolute.counts[0]),
        )

    def coverage_by_series(self) -> Doubles:
        """`(series,)`: share of the actuals inside q10..q90; NaN where there is none."""
        sums, counts = self.inside.sums.sum(0), self.inside.counts.sum(0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def mase_by_series(self) -> Doubles:
        """`(series,)`: each series' part of MASE; NaN where undefined."""
        return self._mase(np.ones(self.n_blocks), slice(None))

    def drawn_mase(self, weights: Doubles) -> Doubles:
        """`(draw, series)`: the same where each stretch of time counts so often, `(draw, block)`.

        Only series that were forecast at all are there.
        """
        return self._mase(weights, np.flatnonzero(self.by_block.counts.any(0)))

    def _mase(self, weights: Doubles, series: Integers | slice) -> Doubles:
        counts = weights @ self.by_block.counts[:, series]
        sums = weights @ self.by_block.sums[:, series]
        return np.where(counts > 0, sums / np.where(counts > 0, counts, 1.0), np.nan)
