"""Metrics: pure functions on arrays. A missing actual does not count; undefined is None.

Shapes: actual and point forecast `(window, horizon)`, quantiles `(window, horizon, quantile)`,
in-sample scales `(window,)`. Nothing here knows where a forecast comes from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from rnnforecast.data.panel import Doubles, Integers
from rnnforecast.data.quantiles import normal_scores


@dataclass(frozen=True)
class Metrics:
    """The contract's metrics of one method. None where a metric is undefined."""

    mae: float | None
    rmse: float | None
    smape: float | None
    mase: float | None
    wql: float | None
    coverage_80: float | None
    scaled_mse: float | None
    scaled_mae: float | None
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return what JSON shows under `metrics.<method>`."""
        return asdict(self)


def mae(actual: Doubles, forecast: Doubles) -> float | None:
    """Mean absolute error, in the sensor's unit."""
    return mean(np.abs(actual - forecast))


def rmse(actual: Doubles, forecast: Doubles) -> float | None:
    """Root of the mean squared error, in the sensor's unit."""
    squared = mean((actual - forecast) ** 2)
    return None if squared is None else float(np.sqrt(squared))


def smape(actual: Doubles, forecast: Doubles) -> float | None:
    """Symmetric mean absolute percentage error, 0 to 200 (Makridakis and others, M4, 2020).

    0 / 0 counts as 0: a zero that was forecast as zero is no error.
    """
    return mean(percentage_errors(actual, forecast))


def percentage_errors(actual: Doubles, forecast: Doubles) -> Doubles:
    """Return the parts of `smape`, one for each reading; NaN where it is missing."""
    size = np.abs(actual) + np.abs(forecast)
    error = np.abs(actual - forecast)
    return np.where(size > 0, 200 * error / np.where(size > 0, size, 1.0), size * 0)


def mase(actual: Doubles, forecast: Doubles, *, scale: Doubles, series: Integers) -> float | None:
    """Mean over series of the absolute error over the in-sample seasonal naive error.

    Hyndman and Koehler 2006. Windows whose scale is 0 or unknown do not count; a series none of
    whose windows count does not either.
    """
    errors = scaled_errors(actual, forecast, scale)
    return mean(np.array([mean(errors[series == s]) for s in np.unique(series)], np.float64))


def scaled_errors(actual: Doubles, forecast: Doubles, scale: Doubles) -> Doubles:
    """Absolute errors over each window's scale, `(window,)`; NaN where it is 0 or unknown."""
    usable = np.where(np.isfinite(scale) & (scale > 0), scale, np.nan)
    errors: Doubles = np.abs(actual - forecast) / usable[:, None]
    return errors


def scaled_mae(actual: Doubles, forecast: Doubles, *, deviation: Doubles) -> float | None:
    """Mean absolute error in standard deviations of each series, `(window,)`.

    It is what papers on long horizons print as MAE (Zhou and others 2021, Informer). Windows whose
    deviation is 0 or unknown do not count.
    """
    return mean(scaled_errors(actual, forecast, deviation))


def scaled_mse(actual: Doubles, forecast: Doubles, *, deviation: Doubles) -> float | None:
    """Mean squared error in variances of each series: what the same papers print as MSE."""
    return mean(scaled_errors(actual, forecast, deviation) ** 2)


def wql(actual: Doubles, quantiles: Doubles, levels: Doubles) -> float | None:
    """Weighted quantile loss, as in Salinas and others 2020, section 4.

    The mean over levels of twice the summed pinball loss over the summed absolute actuals.
    """
    total = np.nansum(np.abs(actual))
    if not np.isfinite(actual).any() or total == 0:
        return None
    losses = pinball_losses(actual, quantiles, levels)
    return float(np.mean(2 * np.nansum(losses, axis=(0, 1)) / total))


def pinball_losses(actual: Doubles, quantiles: Doubles, levels: Doubles) -> Doubles:
    """Return the loss of each reading at each level, `(window, horizon, quantile)`."""
    error = actual[:, :, None] - quantiles
    losses: Doubles = np.maximum(levels * error, (levels - 1) * error)
    return losses


def coverage(actual: Doubles, low: Doubles, high: Doubles) -> float | None:
    """Return the share of actuals inside `[low, high]`."""
    inside = ((actual >= low) & (actual <= high)).astype(np.float64)
    return mean(np.where(np.isfinite(actual), inside, np.nan))


def skill(network: Metrics, others: dict[str, Metrics]) -> tuple[float | None, str | None]:
    """Return by how many percent the network's MASE is below the best other's, and whose."""
    known = {name: m.mase for name, m in others.items() if m.mase is not None}
    if network.mase is None or not known:
        return None, None
    best = min(known, key=lambda name: known[name])
    if known[best] == 0:
        return None, best
    return 100 * (1 - network.mase / known[best]), best


def normal_quantiles(point: Doubles, deviation: Doubles, levels: tuple[float, ...]) -> Doubles:
    """Quantiles of a normal distribution around each point, `(..., quantile)`."""
    quantiles: Doubles = point[..., None] + deviation[..., None] * normal_scores(levels)
    return quantiles


def mean(values: Doubles) -> float | None:
    """Return the mean of what is there; None where nothing is."""
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if seen.size else None
