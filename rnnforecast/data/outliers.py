"""Readings far from all others, and levels that jump and stay: only who looks is told of them.

Beside `oddities`, of which every training warns: the network itself takes a spike for missing, and
a new level for what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnforecast.data import quality
from rnnforecast.data.figures import Figures
from rnnforecast.data.jumps import find_jump
from rnnforecast.data.oddities import Stretch, stretches_of
from rnnforecast.data.panel import Doubles, Integers, Panel
from rnnforecast.data.past import past_of
from rnnforecast.data.scaling import fit_scaling

_FEWEST_ROWS = 24
_END_SHARE = 0.1
_APART = 1.5
"""Spreads between both ends of a series that may have jumped: two levels are two spreads apart."""


@dataclass(frozen=True)
class Spikes:
    """Readings of one series that lie out of its reach."""

    stretches: tuple[Stretch, ...]
    low: float
    """In the sensor's own units: what the others lie between, with room to spare."""
    high: float

    @property
    def series(self) -> str:
        """The name of the series."""
        return self.stretches[0].series

    @property
    def n_rows(self) -> int:
        """How many readings they are."""
        return sum(one.n_rows for one in self.stretches)


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
    for _, part in long_enough.blocks(quality.BLOCK_ROWS):
        scaling = fit_scaling(past_of(part))
        reach = scaling.reach * scaling.scale
        found = quality.find_spikes(part, scaling.center, reach)
        low, high = (scaling.center + sign * reach + part.base for sign in (-1, 1))
        rows = found.begin, found.begin + found.length - 1
        stretches = stretches_of(part, found.series, part.target[found.begin], found.length, rows)
        by_series: dict[int, list[Stretch]] = {}
        for series, one in zip(found.series.tolist(), stretches, strict=True):
            if (one.series, np.float32(one.value)) not in known:
                by_series.setdefault(series, []).append(one)
        for at, spikes in by_series.items():
            yield Spikes(tuple(spikes), float(low[at]), float(high[at]))


def find_shifts(panel: Panel, figures: Figures) -> Iterator[Shift]:
    """Give the series whose level jumps and stays."""
    for i in _may_have_jumped(panel, figures):
        jump = find_jump(panel.of(i))
        if jump is not None:
            base, time_us = float(panel.base[i]), int(panel.start[i]) + jump.row * panel.step_us
            n_rows = int(panel.lengths[i]) - jump.row
            name = panel.names[i]
            yield Shift(name, time_us, jump.before + base, jump.after + base, n_rows)


def _may_have_jumped(panel: Panel, figures: Figures) -> list[int]:
    """Return the series whose first and last readings lie as far apart as two levels do."""
    apart = np.zeros(panel.n_series)
    for first, part in panel.blocks(quality.BLOCK_ROWS):
        begin, end = part.offsets[:-1], part.offsets[1:]
        n = np.maximum((_END_SHARE * part.lengths).astype(np.int64), 1)
        means = _means(part, begin, begin + n), _means(part, end - n, end)
        apart[first : first + part.n_series] = np.abs(means[0] - means[1])
    may_have: list[int] = np.flatnonzero(~(apart <= _APART * figures.spread)).tolist()
    return may_have


def _means(part: Panel, begin: Integers, end: Integers) -> Doubles:
    """Return the mean of what is there between these rows of each series; NaN where nothing is."""
    seen = np.isfinite(part.target)
    sums = np.cumsum(np.where(seen, part.target, 0.0), dtype=np.float64)
    counts = np.cumsum(seen)
    sums, counts = (np.concatenate([np.zeros(1), x]) for x in (sums, counts))
    with np.errstate(invalid="ignore"):
        means: Doubles = (sums[end] - sums[begin]) / (counts[end] - counts[begin])
    return means
