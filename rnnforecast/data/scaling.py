"""Robust level and spread of each series, fitted before the cutoff.

They only bring series of different units to one size; each window is normalised again inside the
network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data.forecast import Past
from rnnforecast.data.panel import Floats

CONSTANT_SCALE = 1.0
_SAMPLE = 100_000
_IQR_OF_NORMAL = 1.349


@dataclass(frozen=True)
class Scaling:
    """`(origin,)` each: the median, and the interquartile range made comparable with a deviation.

    A series whose middle half is constant gets its standard deviation, a constant one 1; one
    without any reading yet has NaN.
    """

    center: Floats
    scale: Floats


def fit_scaling(past: Past) -> Scaling:
    """Fit level and spread to what each origin may see; missing readings do not count."""
    pairs = np.array([_fit_one(past.readings(i)) for i in range(past.n_origins)], np.float32)
    pairs = pairs.reshape(-1, 2)
    return Scaling(center=pairs[:, 0], scale=pairs[:, 1])


def _fit_one(readings: Floats) -> tuple[float, float]:
    sample = readings[:: max(1, len(readings) // _SAMPLE)]
    seen = sample[np.isfinite(sample)].astype(np.float64)
    if not len(seen):
        return float("nan"), float("nan")
    low, center, high = np.quantile(seen, (0.25, 0.5, 0.75))
    scale = (high - low) / _IQR_OF_NORMAL
    if scale <= 1e-6 * abs(center):
        scale = float(seen.std())
    if scale <= 1e-6 * max(abs(center), 1e-30):
        scale = CONSTANT_SCALE
    return float(center), float(scale)
