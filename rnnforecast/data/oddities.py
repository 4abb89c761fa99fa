"""What is strange about a panel, as stretches of single series with their times.

Between `quality`, which finds places in arrays, and `cleaning` and `survey`, which say them. It is
done in parts of a panel, because runs need several numbers for each reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnforecast.data import quality
from rnnforecast.data.forecast import past_of
from rnnforecast.data.jumps import find_jump
from rnnforecast.data.panel import Panel
from rnnforecast.data.scaling import fit_scaling

BLOCK_ROWS = 1 << 22
_FEWEST_ROWS = 24


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
    constant: list[str] = []
    stuck: list[Stretch] = []
    sentinels: list[Stretch] = []
    for _, part in panel.blocks(BLOCK_ROWS):
        lows, highs = (fn.reduceat(part.target, part.offsets[:-1]) for fn in (np.fmin, np.fmax))
        constant += [part.names[i] for i in np.flatnonzero(lows == highs)]
        stuck += _stuck(part)
        sentinels += _sentinels(part)
    return Oddities(tuple(constant), tuple(stuck), tuple(sentinels))


@dataclass(frozen=True)
class Spikes:
    """Readings of one series that lie out of its reach."""

    first: Stretch
    n_rows: int
    low: float
    """In the sensor's own units: what the others lie between, with room to spare."""
    high: float


@dataclass(frozen=True)
class Shift:
    """A level that jumps and stays, in the sensor's own units."""

    series: str
    time_us: int
    before: float
    after: float
    n_rows: int
    """How many rows follow."""


def find_spikes(panel: Panel, sentinels: Iterable[Stretch]) -> Iterator[Spikes]:
    """Give the series with spikes; a value that seems to mean a missing reading is none.

    A series of a few rows does not show what its usual readings are.
    """
    known = {(one.series, np.float32(one.value)) for one in sentinels}
    long_enough = panel.select(np.flatnonzero(panel.lengths >= _FEWEST_ROWS))
    for _, part in long_enough.blocks(BLOCK_ROWS):
        scaling = fit_scaling(past_of(part))
        reach = scaling.reach * scaling.scale
        found = quality.find_spikes(part, scaling.center, reach)
        low, high = (scaling.center + sign * reach + part.base for sign in (-1, 1))
        by_series: dict[int, list[Stretch]] = {}
        for begin, length, series in zip(found.begin, found.length, found.series, strict=True):
            rows = int(begin), int(begin + length - 1)
            one = _stretch(part, int(series), float(part.target[begin]), int(length), rows)
            if (one.series, np.float32(one.value)) not in known:
                by_series.setdefault(int(series), []).append(one)
        for at, stretches in by_series.items():
            n_rows = sum(one.n_rows for one in stretches)
            yield Spikes(stretches[0], n_rows, float(low[at]), float(high[at]))


def find_shifts(panel: Panel) -> Iterator[Shift]:
    """Give the series whose level jumps and stays."""
    for i, name in enumerate(panel.names):
        jump = find_jump(panel.of(i))
        if jump is not None:
            base, time_us = float(panel.base[i]), int(panel.start[i]) + jump.row * panel.step_us
            n_rows = int(panel.lengths[i]) - jump.row
            yield Shift(name, time_us, jump.before + base, jump.after + base, n_rows)


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
