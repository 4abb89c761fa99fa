"""What is strange about a panel, as stretches of single series with their times.

Between `quality`, which finds places in arrays, and `cleaning` and `survey`, which say them. The
figures of the series say which may be strange; only these are looked at again, in parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data import quality
from rnnforecast.data.figures import find_figures
from rnnforecast.data.panel import Doubles, Floats, Integers, Panel, pick


@dataclass(frozen=True)
class Stretch:
    """Readings of one series that are strange, from the first to the last of them."""

    series: str
    value: float
    """In the sensor's own units."""
    n_rows: int
    """How many readings there are; between a sentinel's there may be others."""
    start_us: int
    end_us: int


@dataclass(frozen=True)
class Stretches:
    """Many of them, `(stretch,)` each: of all series, there may be one in every one."""

    names: tuple[str, ...]
    """All series of the panel."""
    series: Integers
    value: Doubles
    n_rows: Integers
    start_us: Integers
    end_us: Integers

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[Stretch]:
        columns = (self.series, self.value, self.n_rows, self.start_us, self.end_us)
        for series, *rest in zip(*(column.tolist() for column in columns), strict=True):
            yield Stretch(self.names[series], *rest)

    def chosen(self, which: Integers | NDArray[np.bool_]) -> Stretches:
        """Return some of them."""
        return Stretches(
            self.names,
            self.series[which],
            self.value[which],
            self.n_rows[which],
            self.start_us[which],
            self.end_us[which],
        )


@dataclass(frozen=True)
class Oddities:
    """All that is strange."""

    constant: tuple[str, ...]
    """Series that never change."""
    stuck: Stretches
    sentinels: Stretches


def find_oddities(panel: Panel) -> Oddities:
    """Look at all series of a panel."""
    figures = find_figures(panel)
    may_miss = quality.may_hold_sentinels(figures, panel.base)
    stuck: list[Stretches] = []
    sentinels: list[Stretches] = []
    for first, part in panel.blocks(quality.BLOCK_ROWS):
        own = slice(first, first + part.n_series)
        stuck.append(_stuck(part.select(np.flatnonzero(figures.may_stand_still[own]))))
        sentinels.append(_sentinels(part.select(np.flatnonzero(may_miss[own]))))
    names = pick(panel.names, np.flatnonzero(figures.low == figures.high))
    return Oddities(names, _joined(stuck), _joined(sentinels))


def _stuck(part: Panel) -> Stretches:
    found = quality.find_stuck(quality.find_runs(part), part.n_series)
    last = found.begin + found.length - 1
    return stretches_of(
        part, found.series, part.target[found.begin], found.length, (found.begin, last)
    )


def _sentinels(part: Panel) -> Stretches:
    found = quality.find_sentinels(part)
    less = (found.value - part.base[found.series]).astype(np.float32)
    own = part.select(found.series)
    is_there = np.flatnonzero(own.target == np.repeat(less, own.lengths))
    first = is_there[np.searchsorted(is_there, own.offsets[:-1])]
    last = is_there[np.searchsorted(is_there, own.offsets[1:]) - 1]
    shift = part.offsets[found.series] - own.offsets[:-1]
    return stretches_of(part, found.series, less, found.count, (first + shift, last + shift))


def stretches_of(
    part: Panel, series: Integers, value: Floats, n_rows: Integers, rows: tuple[Integers, Integers]
) -> Stretches:
    """Tell values, times and names of stretches from their first and last rows in the panel."""
    start_us, end_us = (part.time_at(series, row - part.offsets[series]) for row in rows)
    own = value.astype(np.float64) + part.base[series]
    return Stretches(part.names, series, own, n_rows, start_us, end_us)


def _joined(parts: Sequence[Stretches]) -> Stretches:
    """Put together the stretches of the parts of a panel."""
    before = np.cumsum([0, *(len(part.names) for part in parts)])
    return Stretches(
        tuple(itertools.chain.from_iterable(part.names for part in parts)),
        np.concatenate([part.series + n for part, n in zip(parts, before[:-1], strict=True)]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.n_rows for part in parts]),
        np.concatenate([part.start_us for part in parts]),
        np.concatenate([part.end_us for part in parts]),
    )
