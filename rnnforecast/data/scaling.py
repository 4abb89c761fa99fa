"""Robust scaling of each series: its center and its spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.windows import Past

CONSTANT_SCALE = 1.0
SPIKE_RUN = 3
"""So many readings in a row beyond the reach of their series are a new level, no spike."""
_BLUR = 2e-7
"""Less than this, relative to the level, float32 does not show."""
_SAMPLE = 100_000
_IQR_OF_NORMAL = 1.349
_ONE_IN, TIMES, _LEAST = 500, 6.0, 3.0
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
    fitted = np.full((past.n_origins, 3), np.nan, np.float32)
    for origins, readings in past.tables():
        steps = np.maximum(past.cutoff[origins] // _SAMPLE, 1)
        if steps[-1] == 1:  # the longest comes last
            fitted[origins] = _fit(readings)
            continue
        for origin, row, step in zip(origins, readings, steps, strict=True):  # long ones: few
            fitted[origin] = _fit(row[None, : past.cutoff[origin] : step])[0]
    return Scaling(*np.ascontiguousarray(past.filled(fitted).T))


def _fit(readings: Floats) -> Doubles:
    """Center, scale and reach of each row, `(row, 3)`; a row without any reading has NaN."""
    ordered = np.sort(readings, axis=1)  # missing ones come last
    n = np.isfinite(ordered).sum(1)
    fitted = np.full((len(ordered), 3), np.nan)
    there = n > 0
    if not there.any():
        return fitted
    values, n = ordered[there, : n.max()].astype(np.float64), n[there]
    low, center, high = (_quantiles(values, n, level) for level in (0.25, 0.5, 0.75))
    scale = (high - low) / _IQR_OF_NORMAL
    flat = scale <= _BLUR * np.abs(center)
    if flat.any():
        scale[flat] = np.nanstd(values[flat], axis=1)
    scale[scale <= _BLUR * np.maximum(np.abs(center), 1e-30)] = CONSTANT_SCALE
    distances = np.abs(values - center[:, None]) / scale[:, None]
    fitted[there] = np.stack([center, scale, _reach(distances, n)], axis=1)
    return fitted


def _quantiles(ordered: Doubles, n: Integers, level: float) -> Doubles:
    """Return a quantile of the first n values of each row, as `numpy.quantile` interpolates."""
    row, place = np.arange(len(n)), level * (n - 1)
    below = place.astype(np.int64)
    part = place - below
    low, high = ordered[row, below], ordered[row, np.minimum(below + 1, n - 1)]
    found: Doubles = np.where(
        part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part)
    )
    return found


def _reach(distances: Doubles, n: Integers) -> Doubles:
    """Return several times the largest of each row's n distances, spikes left out.

    It is the most that was not rare.
    """
    rare = 1 + n // _ONE_IN
    distances.sort(axis=1)
    usual = distances[np.arange(len(n)), np.maximum(n - rare - 1, 0)]
    reach: Doubles = TIMES * np.maximum(np.where(n > rare, usual, 0.0), _LEAST)
    return reach
