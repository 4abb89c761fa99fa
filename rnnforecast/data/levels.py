"""The base of each series: what is subtracted from readings that float32 would blur.

A meter that stands at 100,000,000 and moves by 1 has its steps below the resolution of float32.
Between `rows`, which reads doubles, and `placing`: from here on readings are float32, less a base.
It is the level of a series' earliest readings, so that no later one changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Doubles, Floats, Integers

LARGE = 65_536.0
"""Below this, float32 is exact to 0.004 or better."""
_EARLIEST = 5


def find_base(
    times: Sequence[Integers],
    codes: Sequence[NDArray[np.integer]],
    values: Sequence[Doubles],
    *,
    n_series: int,
) -> Doubles:
    """`(series,)`: the median of each series' five earliest readings where that is large, else 0.

    `times`, `codes` (which series) and `values` are chunks, `(row,)` each; missing readings do not
    count.
    """
    most = np.zeros(n_series)
    for code, chunk in zip(codes, values, strict=True):
        np.fmax.at(most, code, np.abs(chunk))
    is_candidate = most >= LARGE
    base = np.zeros(n_series)
    if not is_candidate.any():
        return base
    rows = [is_candidate[c] & np.isfinite(v) for c, v in zip(codes, values, strict=True)]

    def pick(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([part[chosen] for part, chosen in zip(parts, rows, strict=True)])

    time, code, value = pick(times), pick(codes), pick(values)
    order = np.lexsort((time, code))
    code, value = code[order], value[order]
    place = np.arange(len(code)) - np.searchsorted(code, code)
    early = place < _EARLIEST
    table = np.full((n_series, _EARLIEST), np.nan)
    table[code[early], place[early]] = value[early]
    level = np.nanmedian(table[is_candidate], axis=1)
    base[is_candidate] = np.where(np.abs(level) >= LARGE, np.rint(level), 0.0)
    return base


def known_base(names: Sequence[str], found: Doubles, known: Mapping[str, float]) -> Doubles:
    """Return the base that a model has for a series, and the one found for all others."""
    return np.array([known.get(name, own) for name, own in zip(names, found, strict=True)])


def subtract_base(
    codes: Sequence[NDArray[np.integer]], values: Sequence[Doubles], base: Doubles
) -> list[Floats]:
    """Return the chunks of readings, `(row,)`, less the base of their series, as float32."""
    if not base.any():
        return [chunk.astype(np.float32, copy=False) for chunk in values]
    return [
        (chunk - base[code]).astype(np.float32) for code, chunk in zip(codes, values, strict=True)
    ]


def base_of_column(times: Sequence[Integers], values: Sequence[NDArray[Any]]) -> float:
    """Return the base of a column that all series share: that of its five earliest values."""
    if not values or values[0].dtype != np.float64:
        return 0.0
    one = [np.zeros(len(chunk), np.int16) for chunk in times]
    return float(find_base(times, one, values, n_series=1)[0])
