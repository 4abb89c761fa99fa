"""Metrics: pure functions on arrays. A missing actual does not count; undefined is None.

Shapes: actual and point forecast `(window, horizon)`, quantiles `(window, horizon, quantile)`,
in-sample scales `(window,)`. Nothing here knows where a forecast comes from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

from rnnforecast.config import DECILES
from rnnforecast.data.forecast import Forecast, Values
from rnnforecast.data.panel import Doubles, Integers


@dataclass(frozen=True)
class Metrics:
    """The contract's metrics of one method. None where a metric is undefined."""

    mae: float | None
    rmse: float | None
    smape: float | None
    mase: float | None
    wql: float | None
    coverage_80: float | None
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return what JSON shows under `metrics.<method>`."""
        return asdict(self)


def compute_metrics(
    actual: Values, forecast: Forecast, *, scale: Doubles, series: Integers
) -> Metrics:
    """Score a forecast, which must hold the nine deciles, against what came.

    `scale` is the in-sample error of the seasonal naive forecast before each cutoff, `series` which
    series each window belongs to: MASE is a mean over series.
    """
    truth = actual.astype(np.float64)
    at = [forecast.quantiles.index(q) for q in DECILES]
    deciles = forecast.values[:, :, at].astype(np.float64)
    point = forecast.point.astype(np.float64)
    return Metrics(
        mae=mae(truth, point),
        rmse=rmse(truth, point),
        smape=smape(truth, point),
        mase=mase(truth, point, scale=scale, series=series),
        wql=wql(truth, deciles, np.array(DECILES)),
        coverage_80=coverage(truth, deciles[:, :, 0], deciles[:, :, -1]),
        n=int(np.isfinite(truth).sum()),
    )


def mae(actual: Doubles, forecast: Doubles) -> float | None:
    """Mean absolute error, in the sensor's unit."""
    return _mean(np.abs(actual - forecast))


def rmse(actual: Doubles, forecast: Doubles) -> float | None:
    """Root of the mean squared error, in the sensor's unit."""
    squared = _mean((actual - forecast) ** 2)
    return None if squared is None else float(np.sqrt(squared))


def smape(actual: Doubles, forecast: Doubles) -> float | None:
    """Symmetric mean absolute percentage error, 0 to 200 (Makridakis and others, M4, 2020).

    0 / 0 counts as 0: a zero that was forecast as zero is no error.
    """
    size = np.abs(actual) + np.abs(forecast)
    error = np.abs(actual - forecast)
    return _mean(np.where(size > 0, 200 * error / np.where(size > 0, size, 1.0), size * 0))


def mase(actual: Doubles, forecast: Doubles, *, scale: Doubles, series: Integers) -> float | None:
    """Mean over series of the absolute error over the in-sample seasonal naive error.

    Hyndman and Koehler 2006. Windows whose scale is 0 or unknown do not count; a series none of
    whose windows count does not either.
    """
    return _mean(mase_by_series(actual, forecast, scale=scale, series=series))


def mase_by_series(
    actual: Doubles, forecast: Doubles, *, scale: Doubles, series: Integers
) -> Doubles:
    """Each series' part of MASE, `(highest number of a series + 1,)`; NaN where it is undefined."""
    usable = np.isfinite(scale) & (scale > 0)
    scaled = np.abs(actual - forecast)[usable] / scale[usable, None]
    seen = np.isfinite(scaled)
    n_series = int(series.max(initial=-1)) + 1
    owner = np.broadcast_to(series[usable, None], scaled.shape)[seen]
    sums = np.bincount(owner, weights=scaled[seen], minlength=n_series)
    counts = np.bincount(owner, minlength=n_series)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def wql(actual: Doubles, quantiles: Doubles, levels: Doubles) -> float | None:
    """Weighted quantile loss, as in Salinas and others 2020, section 4.

    The mean over levels of twice the summed pinball loss over the summed absolute actuals.
    """
    error = actual[:, :, None] - quantiles
    pinball = np.maximum(levels * error, (levels - 1) * error)
    total = np.nansum(np.abs(actual))
    if not np.isfinite(actual).any() or total == 0:
        return None
    return float(np.mean(2 * np.nansum(pinball, axis=(0, 1)) / total))


def coverage(actual: Doubles, low: Doubles, high: Doubles) -> float | None:
    """Return the share of actuals inside `[low, high]`."""
    inside = ((actual >= low) & (actual <= high)).astype(np.float64)
    return _mean(np.where(np.isfinite(actual), inside, np.nan))


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
    steps = np.array([NormalDist().inv_cdf(q) for q in levels])
    quantiles: Doubles = point[..., None] + deviation[..., None] * steps
    return quantiles


def _mean(values: Doubles) -> float | None:
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if seen.size else None
