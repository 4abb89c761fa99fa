"""How the rows of each series follow each other: the steps between their times, and jumps back.

Between `rows`, which reads, and `timegrid`, which decides on a grid. All rows are looked at once, a
chunk at a time in threads, whichever way a long table is sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Integers
from rnnforecast.data.rows import Rows
from rnnforecast.sources.threads import in_threads

_SORTED_SERIES = 32
"""Where rows are not in the order of time, so many series are sorted to find the step."""
_MOST_STEPS = 1 << 21
"""Of more different steps than these, the first ones tell enough."""


@dataclass(frozen=True)
class Steps:
    """Times that pass from a row to the next of its series, in microseconds: which, how often."""

    lengths: Integers
    """`(any,)`, increasing and above 0."""
    counts: Integers

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    @property
    def median(self) -> float:
        """The one in the middle; NaN where there is none."""
        places = (self.total - 1) // 2, self.total // 2
        if not self.total:
            return float("nan")
        found = self.lengths[np.searchsorted(np.cumsum(self.counts), places, side="right")]
        return float(found.mean())

    @property
    def commonest(self) -> tuple[int, int]:
        """The one that occurs most often, and how often."""
        place = int(np.argmax(self.counts))
        return int(self.lengths[place]), int(self.counts[place])

    def count_near(self, step_us: float, share: float) -> int:
        """Return how many differ from a step by at most this share of it."""
        return int(self.counts[np.abs(self.lengths - step_us) <= share * step_us].sum())


@dataclass(frozen=True)
class Order:
    """What is to be known of the times of all rows, in microseconds."""

    start: Integers
    """`(series,)`: the earliest."""
    end: Integers
    """`(series,)`: the latest."""
    steps: Steps
    back: Integers
    """`(any,)`: how far the time goes back from a row to the next of its series, above 0."""
    is_whole: bool
    """Whether `steps` holds all of them."""

    def is_multiple_of(self, step_us: int) -> bool:
        """Tell whether all times lie on the grid of their series' first one."""
        parts = (self.steps.lengths, self.back)
        return self.is_whole and not any((part % step_us).any() for part in parts)


class _Chunk(NamedTuple):
    """Some rows; groups are stretches of one series, sorted so that each has only one."""

    series: NDArray[np.integer]
    first: Integers
    """`(group,)`: the time of the first row in the file."""
    last: Integers
    low: Integers
    high: Integers
    steps: Steps
    back: Integers


def find_order(rows: Rows) -> Order:
    """Look at the times of all rows, one after the other for each series."""
    n_series = rows.n_series
    start = np.full(n_series, np.iinfo(np.int64).max)
    end = np.full(n_series, np.iinfo(np.int64).min)
    last, is_known = np.zeros(n_series, np.int64), np.zeros(n_series, np.bool_)
    steps: list[Steps] = []
    back: list[Integers] = []
    pairs = zip(rows.times, rows.codes, strict=True)
    for chunk in in_threads(lambda pair: _look_at(*pair, n_series), pairs):
        own = chunk.series
        between = (chunk.first - last[own])[is_known[own]]
        back += [chunk.back, -between[between < 0]]
        steps += [chunk.steps, _counted(between[between > 0])]
        start[own], end[own] = np.minimum(start[own], chunk.low), np.maximum(end[own], chunk.high)
        last[own], is_known[own] = chunk.last, True
        if len(steps) > 100:
            steps = [merged_steps(steps)]
    merged = merged_steps(steps)
    is_whole = len(merged.lengths) < _MOST_STEPS
    backwards = np.concatenate([np.zeros(0, np.int64), *back])
    if len(backwards):
        merged, is_whole = _sorted_steps(rows), False
    return Order(start, end, merged, backwards, is_whole)


def _look_at(times: Integers, codes: NDArray[np.integer], n_series: int) -> _Chunk:
    """Find the steps within one chunk."""
    begins = _begins(codes)
    if len(begins) > 1 and not _are_unique(codes[begins], n_series):
        order = np.argsort(codes, kind="stable")  # the rows of each series stay in their order
        times, codes = times[order], codes[order]
        begins = _begins(codes)
    passed = np.diff(times)
    passed[begins[1:] - 1] = 0  # from one series to another
    low, high = int(passed.min(initial=0)), int(passed.max(initial=0))
    ends = np.append(begins[1:], len(times)) - 1
    first, last = times[begins], times[ends]
    if low < 0:
        lows, highs = np.minimum.reduceat(times, begins), np.maximum.reduceat(times, begins)
        back = -passed[passed < 0]
    else:
        lows, highs, back = first, last, np.zeros(0, np.int64)
    n_highest = int(np.count_nonzero(passed == high)) if high > 0 else 0
    if low == 0 and n_highest == np.count_nonzero(passed):
        one = slice(0, 1 if n_highest else 0)
        steps = Steps(np.array([high])[one], np.array([n_highest])[one])
    else:
        steps = _counted(passed[passed > 0])
    return _Chunk(codes[begins], first, last, lows, highs, steps, back)


def _begins(codes: NDArray[np.integer]) -> Integers:
    """Return where the rows of a series begin after those of another, or of none."""
    return np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)


def _are_unique(codes: NDArray[np.integer], n_series: int) -> bool:
    return len(codes) <= n_series and len(np.unique(codes)) == len(codes)


def _counted(lengths: Integers) -> Steps:
    return Steps(*np.unique(lengths, return_counts=True))


def merged_steps(parts: list[Steps]) -> Steps:
    """Count the steps of several parts together."""
    if len(parts) == 1 or not parts:
        return parts[0] if parts else _counted(np.zeros(0, np.int64))
    lengths, place = np.unique(np.concatenate([p.lengths for p in parts]), return_inverse=True)
    counts = np.zeros(len(lengths), np.int64)
    np.add.at(counts, place, np.concatenate([p.counts for p in parts]))
    return Steps(lengths[:_MOST_STEPS], counts[:_MOST_STEPS])


def _sorted_steps(rows: Rows) -> Steps:
    """Return the steps of some series, sorted by time."""
    if rows.n_series == 1:
        return _between(np.concatenate(rows.times))
    chosen = np.unique(np.linspace(0, rows.n_series - 1, _SORTED_SERIES).astype(np.int64))
    is_chosen = np.zeros(rows.n_series, np.bool_)
    is_chosen[chosen] = True
    which = [is_chosen[codes] for codes in rows.codes]
    times = np.concatenate([t[w] for t, w in zip(rows.times, which, strict=True)])
    codes = np.concatenate([c[w] for c, w in zip(rows.codes, which, strict=True)])
    return merged_steps([_between(times[codes == code]) for code in chosen])


def _between(times: Integers) -> Steps:
    times = np.sort(times)
    passed = times[1:] - times[:-1]
    return _counted(passed[passed > 0])
