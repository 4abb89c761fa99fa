"""What is strange about a panel, as stretches of single series with their times.

Between `quality`, which finds places in arrays, and `cleaning` and `survey`, which say them. The
figures of the series say which may be strange; only these are looked at again, in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rnnforecast.data import quality
from rnnforecast.data.figures import find_figures
from rnnforecast.data.panel import Panel


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
class Oddities:
    """All that is strange."""

    constant: tuple[str, ...]
    """Series that never change."""
    stuck: tuple[Stretch, ...]
    sentinels: tuple[Stretch, ...]


def find_oddities(panel: Panel) -> Oddities:
    """Look at all series of a panel."""
    figures = find_figures(panel)
    may_miss = quality.may_hold_sentinels(figures, panel.base)
    stuck: list[Stretch] = []
    sentinels: list[Stretch] = []
    for first, part in panel.blocks(quality.BLOCK_ROWS):
        own = slice(first, first + part.n_series)
        stuck += _stuck(part.select(np.flatnonzero(figures.may_stand_still[own])))
        sentinels += _sentinels(part.select(np.flatnonzero(may_miss[own])))
    constant = np.flatnonzero(figures.low == figures.high)
    return Oddities(tuple(panel.names[i] for i in constant), tuple(stuck), tuple(sentinels))


def _stuck(part: Panel) -> Iterator[Stretch]:
    found = quality.find_stuck(quality.find_runs(part), part.n_series)
    for begin, length, series in zip(found.begin, found.length, found.series, strict=True):
        rows = int(begin), int(begin + length - 1)
        yield _stretch(part, int(series), float(part.target[begin]), int(length), rows)


def _sentinels(part: Panel) -> Iterator[Stretch]:
    found = quality.find_sentinels(part)
    for series, value, count in zip(found.series, found.value, found.count, strict=True):
        less = np.float32(value - part.base[series])
        rows = part.offsets[series] + np.flatnonzero(part.of(series) == less)
        ends = int(rows[0]), int(rows[-1])
        yield _stretch(part, int(series), float(less), int(count), ends)


def _stretch(part: Panel, series: int, value: float, n_rows: int, rows: tuple[int, int]) -> Stretch:
    start, offset = int(part.start[series]), int(part.offsets[series])
    first, last = (start + (row - offset) * part.step_us for row in rows)
    return Stretch(part.names[series], value + float(part.base[series]), n_rows, first, last)
