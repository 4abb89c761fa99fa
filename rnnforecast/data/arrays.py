"""Array types, and helpers for series that lie one after the other in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
HALF_TURN = 180.0
"""Degrees."""

_COPIED_ROWS = 1 << 20
"""Rows that `concat_slices` copies in one call of numpy: this bounds its index arrays."""
_INITIAL_ROWS = 1 << 6
"""An empty array builder is small, since a table may have 100,000 columns."""
_CHUNK_ROWS = 1 << 20


def concat_slices(values: Floats, begin: Integers, end: Integers) -> Floats:
    """Copy the slices `values[begin[i]:end[i]]`, one after the other.

    `begin` and `end` are `(slice,)`. Short slices are copied many at once, so that the time
    depends on the number of rows, not on the number of slices.
    """
    offsets = offsets_from_lengths(end - begin)
    copied = np.empty(offsets[-1], values.dtype)

    first = 0
    while first < len(begin):
        last = int(np.searchsorted(offsets, offsets[first] + _COPIED_ROWS, side="right")) - 1
        last = max(first + 1, last)
        block = copied[offsets[first] : offsets[last]]
        if last == first + 1:
            block[:] = values[begin[first] : end[first]]
        else:
            rows = np.repeat(
                begin[first:last] - offsets[first:last], np.diff(offsets[first : last + 1])
            )
            np.take(values, rows + np.arange(offsets[first], offsets[last]), out=block)
        first = last

    return copied


def next_to(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which rows, `(row,)`, come right before or after a row that is flagged."""
    is_near = np.zeros(len(flags), np.bool_)
    is_near[1:] |= flags[:-1]
    is_near[:-1] |= flags[1:]
    return is_near


def take_names(names: Sequence[str], selected: Integers | NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the names at these indices, or where this mask is true."""
    indices = np.flatnonzero(selected) if selected.dtype == np.bool_ else selected
    # `map` over a list: no call in Python for each name.
    return tuple(map(names.__getitem__, indices.tolist()))


def offsets_from_lengths(lengths: Integers) -> Integers:
    """Turn lengths, `(series,)`, into offsets, `(series + 1,)`, as a ragged array has them."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def wrap_angles(degrees: NDArray[Any], low: float = 0.0) -> NDArray[Any]:
    """Return directions in degrees as those in the turn that begins at `low`."""
    return (degrees - low) % (2 * HALF_TURN) + low


def sums_before(values: NDArray[Any]) -> Doubles:
    """Return sums of the first 0, 1, ... values of each row, `(row, value + 1)`."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    if values.dtype == np.bool_:  # whole numbers are counted eight times as fast
        sums[:, 1:] = np.cumsum(values, axis=1, dtype=np.int32)
    else:
        np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def row_quantiles(values: NDArray[Any], shares: Sequence[float]) -> Doubles:
    """Return quantiles of the known values of each row, `(share, row)`; NaN where none is known.

    Values are finite, or NaN where unknown.

    They are interpolated linearly. `numpy.nanquantile` takes a hundred times as long over many
    short rows.
    """
    if not values.shape[1]:
        return np.full((len(shares), len(values)), np.nan)
    ordered, row = np.sort(values, axis=1), np.arange(len(values))  # NaN comes last
    n_known = np.isfinite(values).sum(1)
    quantiles = np.empty((len(shares), len(values)))
    for number, share in enumerate(shares):
        place = share * np.maximum(n_known - 1, 0)
        lower = place.astype(np.int64)
        part = place - lower
        below, above = (
            ordered[row, at].astype(np.float64)
            for at in (lower, np.minimum(lower + 1, np.maximum(n_known - 1, 0)))
        )
        quantiles[number] = (1 - part) * below + part * above
    return quantiles


class ArrayBuilder:
    """An array that grows at its end. Its chunks are views, and the last one to go frees it."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._array = np.empty(_INITIAL_ROWS, dtype)
        self._n_rows = 0

    def widen(self, dtype: type[np.generic]) -> None:
        """Convert the array to a wider type."""
        if self._array.dtype != dtype:
            wide = np.empty(len(self._array), dtype)
            wide[: self._n_rows] = self._array[: self._n_rows]
            self._array = wide

    def append(self, values: NDArray[np.generic]) -> None:
        """Copy values to the end, cast to the array's type."""
        end = self._n_rows + len(values)
        if end > len(self._array):
            self._array.resize(max(end, 2 * len(self._array)), refcheck=False)
        self._array[self._n_rows : end] = values
        self._n_rows = end

    def chunks(self) -> list[NDArray[Any]]:
        """Return all values, in chunks of the same lengths for every column."""
        self._array.resize(self._n_rows, refcheck=False)
        starts = range(0, self._n_rows, _CHUNK_ROWS)
        return [self._array[start : start + _CHUNK_ROWS] for start in starts]
