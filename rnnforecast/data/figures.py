"""The figures of every series of a panel: how many readings, their level, their extremes.

Below `quality`, which judges, and `survey`, which shows. All of it is found in one pass in threads,
over pieces that stay in a processor's cache, whether series are many or long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Doubles, Floats, Integers, Panel
from rnnforecast.sources.threads import in_threads

STILL = 12
"""Readings that stay the same for twice as many steps are the same at two multiples of it."""
_PIECE_ROWS = STILL << 14


@dataclass(frozen=True)
class _Readings:
    """What some stretches of readings are, `(stretch,)`: NaN for one without a reading."""

    n_seen: Integers
    low: Floats
    """The smallest reading, in the panel's units."""
    high: Floats
    n_low: Integers
    """How often the smallest occurs."""
    n_high: Integers
    mean: Doubles


@dataclass(frozen=True)
class Figures(_Readings):
    """Of each series, `(series,)`."""

    spread: Doubles
    """Standard deviation."""
    may_stand_still: NDArray[np.bool_]
    """Whether readings may be the same for 24 steps; where it is False, they are not."""


@dataclass(frozen=True)
class _Pieces(_Readings):
    """Of stretches that lie within one series and one piece of the panel."""

    series: Integers
    squares: Doubles
    """Sum of the squared distances from the mean of the stretch."""
    still: Integers
    """`(any,)`: numbers of series whose readings may stay the same."""


def find_figures(panel: Panel) -> Figures:
    """Look at all readings once."""
    begins = range(0, len(panel.target), _PIECE_ROWS)
    parts = list(in_threads(lambda begin: _pieces(panel, begin), begins))
    n_series = panel.n_series
    nothing = np.full(n_series, np.nan)
    still = np.zeros(n_series, np.bool_)
    if not parts:
        zeros, none = np.zeros(n_series, np.int64), nothing.astype(np.float32)
        return Figures(zeros, none, none, zeros, zeros, nothing, nothing, still)
    for part in parts:
        still[part.still] = True
    return _joined(parts, n_series, still)


def _joined(parts: list[_Pieces], n_series: int, still: NDArray[np.bool_]) -> Figures:
    """Put the pieces of each series together."""
    series = np.concatenate([part.series for part in parts])
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    there = series[starts]
    counts = np.diff(starts, append=len(series))

    n_seen = np.concatenate([part.n_seen for part in parts])
    mean = np.concatenate([part.mean for part in parts])
    squares = np.concatenate([part.squares for part in parts])
    n_all = np.add.reduceat(n_seen, starts)
    level = np.add.reduceat(n_seen * mean, starts) / np.maximum(n_all, 1)
    between = n_seen * (mean - np.repeat(level, counts)) ** 2
    spread = np.sqrt(np.add.reduceat(squares + between, starts) / np.maximum(n_all, 1))

    def whole(values: NDArray[Any], rest: float) -> NDArray[Any]:
        """Return `(series,)`: a series without rows has the rest."""
        found = np.full(n_series, rest, values.dtype)
        found[there] = values
        return found

    def extreme(which: np.ufunc, of: list[Floats], n_of: list[Integers]) -> tuple[Floats, Integers]:
        each = np.concatenate(of)
        best = which.reduceat(each, starts)
        is_best = each == np.repeat(best, counts)
        n_best = np.add.reduceat(np.where(is_best, np.concatenate(n_of), 0), starts)
        return whole(best, np.nan), whole(n_best, 0)

    low, n_low = extreme(np.fmin, [p.low for p in parts], [p.n_low for p in parts])
    high, n_high = extreme(np.fmax, [p.high for p in parts], [p.n_high for p in parts])
    has_any = n_all > 0
    return Figures(
        whole(n_all, 0),
        low,
        high,
        n_low,
        n_high,
        whole(np.where(has_any, level, np.nan), np.nan),
        whole(np.where(has_any, spread, np.nan), np.nan),
        still,
    )


def _pieces(panel: Panel, begin: int) -> _Pieces:
    """Look at some rows, cut where series end."""
    target = panel.target[begin : begin + _PIECE_ROWS]
    inner = panel.offsets[
        np.searchsorted(panel.offsets, begin, side="right") : np.searchsorted(
            panel.offsets, begin + len(target)
        )
    ]
    starts = np.concatenate([np.zeros(1, np.int64), np.unique(inner) - begin])
    lengths = np.diff(starts, append=len(target))
    seen = ~np.isnan(target)
    n_seen = np.add.reduceat(seen, starts, dtype=np.int64)
    is_whole = bool(n_seen.sum() == len(target))

    def along(values: NDArray[Any]) -> NDArray[Any]:
        """Return each piece's value at each row of it, or the only value there is."""
        return values if len(values) == 1 else np.repeat(values, lengths)

    there = target if is_whole else np.where(seen, target, np.float32(0))
    mean = np.add.reduceat(there, starts, dtype=np.float64) / np.maximum(n_seen, 1)
    apart = there - along(mean)
    if not is_whole:
        apart[~seen] = 0
    np.square(apart, out=apart)
    low, high = np.fmin.reduceat(target, starts), np.fmax.reduceat(target, starts)
    return _Pieces(
        n_seen,
        low,
        high,
        np.add.reduceat(target == along(low), starts, dtype=np.int64),
        np.add.reduceat(target == along(high), starts, dtype=np.int64),
        mean,
        np.searchsorted(panel.offsets, starts + begin, side="right") - 1,
        np.add.reduceat(apart, starts),
        _still(panel, begin, begin + len(target)),
    )


def _still(panel: Panel, begin: int, end: int) -> Integers:
    """Return series with readings, at multiples of 12 and at some rows between, that are equal."""
    some = panel.target[begin : end + STILL : STILL]
    rows = begin + STILL * np.flatnonzero(some[1:] == some[:-1])
    for ahead in (6, 3, 9, 1, 2, 4, 5, 7, 8, 10, 11):
        rows = rows[panel.target[rows + ahead] == panel.target[rows]]
    series = np.searchsorted(panel.offsets, rows, side="right") - 1
    found: Integers = np.unique(series[rows + STILL < panel.offsets[series + 1]])
    return found
