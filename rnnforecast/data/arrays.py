"""Array types and helpers for series that lie one after the other in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
_COPIED_ROWS = 1 << 20


def stretches(target: Floats, begin: Integers, end: Integers) -> Floats:
    """Copy the rows `[begin, end)` of each stretch, `(stretch,)`, one after the other.

    Short ones are copied many at once, so that it costs what the rows cost.
    """
    offsets = offsets_of(end - begin)
    copied = np.empty(offsets[-1], target.dtype)
    first = 0
    while first < len(begin):
        last = int(np.searchsorted(offsets, offsets[first] + _COPIED_ROWS, side="right")) - 1
        last = max(first + 1, last)
        into = copied[offsets[first] : offsets[last]]
        if last == first + 1:
            into[:] = target[begin[first] : end[first]]
        else:
            rows = np.repeat(
                begin[first:last] - offsets[first:last], np.diff(offsets[first : last + 1])
            )
            np.take(target, rows + np.arange(offsets[first], offsets[last]), out=into)
        first = last
    return copied


def pick(names: Sequence[str], at: Integers | NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the names at these places, or where this is true, without a call for each."""
    places = np.flatnonzero(at) if at.dtype == np.bool_ else at
    return tuple(map(names.__getitem__, places.tolist()))


def offsets_of(lengths: Integers) -> Integers:
    """Turn lengths, `(series,)`, into offsets, `(series + 1,)`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
