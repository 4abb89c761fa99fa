"""Robust scaling of each series: its center and its spread; offsets of readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers, row_quantiles
from rnnforecast.data.windows import Past

CONSTANT_SCALE = 1.0
"""Scale of a series that does not vary."""
SPIKE_RUN = 3
"""This many consecutive readings beyond the reach of their series are a new level, no spike."""
_BLUR = 2e-7
"""Spreads below this share of the level are rounding: float32 has 24 bits, 1.2e-7."""
_SAMPLE = 100_000
"""Readings of a series that are looked at: of longer series every n-th."""
_IQR_OF_NORMAL = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""
_ONE_SPIKE_IN = 500
"""One reading in this many may be a spike, and does not count for the reach."""
OUTLIER_FACTOR = 6.0
"""No sensor leaves this many times the range of its other readings."""
_MIN_RANGE = 3.0
"""Smallest range that is assumed, in units of the scale."""
LARGE_READING = 65_536.0
"""Below this, float32 is exact to 0.004 or better."""
_N_EARLIEST = 5
"""Readings that decide on a value offset: a wild first reading does not, nor a later one."""


@dataclass(frozen=True)
class Scaling:
    """Center, scale and reach of the readings of each origin, `(origin,)`.

    Center and scale are in the units of the panel. NaN for an origin without any reading.
    """

    center: Floats
    """The median."""
    scale: Floats
    """The interquartile range over 1.349: for normal readings, their standard deviation.

    The standard deviation itself where the middle half of the readings is constant, and 1 where
    all are.
    """
    reach: Floats
    """Distance from the center beyond which a reading is not believed, in units of the scale."""


def fit_scaling(past: Past) -> Scaling:
    """Fit center, scale and reach to the readings before each cutoff; missing ones do not count."""
    fitted = np.full((past.n_origins, 3), np.nan, np.float32)
    for origins, readings in past.tables():
        strides = np.maximum(past.cutoff[origins] // _SAMPLE, 1)
        if strides[-1] == 1:  # the longest comes last
            fitted[origins] = _fit(readings)
            continue
        # Rows with strides of their own: only long series need them, and these are few.
        for origin, row, stride in zip(origins, readings, strides, strict=True):
            fitted[origin] = _fit(row[None, : past.cutoff[origin] : stride])[0]
    return Scaling(*np.ascontiguousarray(past.filled(fitted).T))


def _fit(readings: Floats) -> Doubles:
    """Return center, scale and reach of each row, `(row, 3)`; NaN for a row without a reading."""
    ordered = np.sort(readings, axis=1)  # NaN comes last
    n = np.isfinite(ordered).sum(1)
    fitted = np.full((len(ordered), 3), np.nan)
    has_readings = n > 0
    if not has_readings.any():
        return fitted

    values, n = ordered[has_readings, : n.max()].astype(np.float64), n[has_readings]
    low, center, high = (_quantiles(values, n, level) for level in (0.25, 0.5, 0.75))
    scale = (high - low) / _IQR_OF_NORMAL
    is_flat = scale <= _BLUR * np.abs(center)
    if is_flat.any():
        scale[is_flat] = np.nanstd(values[is_flat], axis=1)
    scale[scale <= _BLUR * np.maximum(np.abs(center), 1e-30)] = CONSTANT_SCALE

    # The reach is a multiple of the largest distance that is left without the rarest ones.
    distances = np.abs(values - center[:, None]) / scale[:, None]
    distances.sort(axis=1)
    n_rare = 1 + n // _ONE_SPIKE_IN
    largest = distances[np.arange(len(n)), np.maximum(n - n_rare - 1, 0)]
    reach = OUTLIER_FACTOR * np.maximum(np.where(n > n_rare, largest, 0.0), _MIN_RANGE)

    fitted[has_readings] = np.stack([center, scale, reach], axis=1)
    return fitted


def _quantiles(ordered: Doubles, n: Integers, level: float) -> Doubles:
    """Return a quantile of the first n values of each row, as `numpy.quantile` interpolates."""
    row, position = np.arange(len(n)), level * (n - 1)
    below = position.astype(np.int64)
    fraction = position - below
    low, high = ordered[row, below], ordered[row, np.minimum(below + 1, n - 1)]
    # Two formulas, as numpy has them: each is exact at its own end.
    quantiles: Doubles = np.where(
        fraction < 0.5, low + (high - low) * fraction, high - (high - low) * (1 - fraction)
    )
    return quantiles


def find_value_offsets(
    times: Sequence[Integers],
    codes: Sequence[NDArray[np.integer]],
    values: Sequence[NDArray[Any]],
    *,
    n_series: int,
) -> Doubles:
    """`(series,)`: median of each series' five earliest readings where that is large, else 0.

    `times`, `codes` (number of the series) and `values` are chunks, `(row,)` each; missing readings
    do not count.
    """
    largest = np.zeros(n_series)
    for code, chunk in zip(codes, values, strict=True):
        np.fmax.at(largest, code, np.abs(chunk))
    is_candidate = largest >= LARGE_READING
    offsets = np.zeros(n_series)
    if not is_candidate.any():
        return offsets

    # only the readings of candidates are copied and sorted
    selected = [is_candidate[c] & np.isfinite(v) for c, v in zip(codes, values, strict=True)]

    def select(chunks: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([c[rows] for c, rows in zip(chunks, selected, strict=True)])

    time, code, value = select(times), select(codes), select(values)
    order = np.lexsort((time, code))
    code, value = code[order], value[order]
    rank = np.arange(len(code)) - np.searchsorted(code, code)
    is_early = rank < _N_EARLIEST
    earliest = np.full((n_series, _N_EARLIEST), np.nan)
    earliest[code[is_early], rank[is_early]] = value[is_early]

    (level,) = row_quantiles(earliest[is_candidate], (0.5,))
    offsets[is_candidate] = np.where(np.abs(level) >= LARGE_READING, np.rint(level), 0.0)
    return offsets
