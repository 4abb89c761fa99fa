"""Robust level and spread of each series, fitted before the cutoff.

They only bring series of different units to one size; each window is normalised again inside the
network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data.forecast import Past
from rnnforecast.data.panel import Doubles, Floats

CONSTANT_SCALE = 1.0
SPIKE_RUN = 3
"""So many readings in a row beyond the reach of their series are a new level, no spike."""
_BLUR = 2e-7
"""Less than this, relative to the level, float32 does not show."""
_SAMPLE = 100_000
_IQR_OF_NORMAL = 1.349
_ONE_IN, _TIMES, _LEAST = 500, 6.0, 3.0
"""One reading in 500 may be a spike; no sensor leaves six times the range of the others."""


@dataclass(frozen=True)
class Scaling:
    """`(origin,)` each: the median, and the interquartile range made comparable with a deviation.

    A series whose middle half is constant gets its standard deviation, a constant one 1; one
    without any reading yet has NaN.
    """

    center: Floats
    scale: Floats
    reach: Floats
    """In units of the scale: how far from the center a reading may lie and still be believed."""


def fit_scaling(past: Past) -> Scaling:
    """Fit level and spread to what each origin may see; missing readings do not count."""
    fitted = np.array([_fit_one(past.readings(i)) for i in range(past.n_origins)], np.float32)
    center, scale, reach = fitted.reshape(-1, 3).T
    return Scaling(center, scale, reach)


def _fit_one(readings: Floats) -> tuple[float, float, float]:
    sample = readings[:: max(1, len(readings) // _SAMPLE)]
    seen = sample[np.isfinite(sample)].astype(np.float64)
    if not len(seen):
        return float("nan"), float("nan"), float("nan")
    low, center, high = np.quantile(seen, (0.25, 0.5, 0.75))
    scale = (high - low) / _IQR_OF_NORMAL
    if scale <= _BLUR * abs(center):
        scale = float(seen.std())
    if scale <= _BLUR * max(abs(center), 1e-30):
        scale = CONSTANT_SCALE
    return float(center), float(scale), _reach(np.abs(seen - center) / scale)


def _reach(distances: Doubles) -> float:
    """Return several times the largest distance, spikes left out: the most that was not rare."""
    rare = 1 + len(distances) // _ONE_IN
    usual = np.partition(distances, -rare - 1)[-rare - 1] if len(distances) > rare else 0.0
    return _TIMES * max(float(usual), _LEAST)
