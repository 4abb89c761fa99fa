"""What is strange about readings: sensors that are stuck, sentinels, spikes, long gaps.

Apart from `placing`, which knows rows: here a panel is judged, all series at once, without a loop
over them. Nothing is changed; what is found is said, and the user decides.

Shapes: a panel's rows lie one after the other, series by series, as in `Panel`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.figures import STILL, Figures
from rnnforecast.data.panel import Doubles, Floats, Integers, Panel
from rnnforecast.data.scaling import SPIKE_RUN

BLOCK_ROWS = 1 << 20
"""What needs several numbers for each reading is done for so many rows, one series at least."""
_FEWEST_STUCK = 2 * STILL
_TIMES_USUAL = 10
_USUAL_SHARE = 0.99
"""A run is usual that so many of a series' runs do not exceed."""
_SENTINELS = (-32768.0, -9999.0, -999.9, -999.0, -200.0, -99.0, 999.0, 9999.0, 32767.0, 65535.0)
_FEWEST_SENTINELS = 3
_FAR = 5.0
"""Standard deviations of the other readings between them and a value that means missing."""
_NEARLY, _ROUNDING = 0.99, 1e-6
"""Room for rounding where a deviation is computed from others."""


@dataclass(frozen=True)
class Runs:
    """Stretches of the same reading, or of missing ones; all of a panel's, in its order."""

    begin: Integers
    """`(run,)`, rows of the panel."""
    length: Integers
    series: Integers
    is_missing: NDArray[np.bool_]

    def chosen(self, which: NDArray[np.bool_]) -> Runs:
        """Return some of them."""
        return Runs(
            self.begin[which], self.length[which], self.series[which], self.is_missing[which]
        )


@dataclass(frozen=True)
class Sentinels:
    """Values that stand for missing readings: the series they occur in, how often, where."""

    series: Integers
    value: Doubles
    """In the sensor's own units."""
    count: Integers


def find_runs(panel: Panel) -> Runs:
    """Cut all series into runs; none reaches over the end of its series."""
    target = panel.target
    missing = np.isnan(target)
    begins = np.empty(len(target), np.bool_)
    begins[:1] = True
    both_missing = missing[1:] & missing[:-1]
    begins[1:] = (target[1:] != target[:-1]) & ~both_missing
    begins[panel.offsets[:-1][panel.lengths > 0]] = True
    begin = np.flatnonzero(begins)
    series = np.searchsorted(panel.offsets, begin, side="right") - 1
    length = np.diff(begin, append=len(target))
    return Runs(begin, length, series, missing[begin])


def find_gaps(panel: Panel) -> Runs:
    """Return the stretches without a reading."""
    missing = np.isnan(panel.target)
    changes = np.flatnonzero(missing[1:] != missing[:-1]) + 1
    begin = np.union1d(changes, panel.offsets[:-1][panel.lengths > 0])
    length = np.diff(begin, append=len(missing))
    gap = missing[begin] if len(begin) else np.zeros(0, np.bool_)
    series = np.searchsorted(panel.offsets, begin[gap], side="right") - 1
    return Runs(begin[gap], length[gap], series, np.ones(len(series), np.bool_))


def find_stuck(runs: Runs, n_series: int) -> Runs:
    """Return runs of one reading that are far longer than this series' runs usually are.

    So the nights of a solar panel and the dry days of a rain gauge are usual; a series that never
    changes is constant, not stuck.
    """
    seen = runs.chosen(~runs.is_missing)
    counts = np.bincount(seen.series, minlength=n_series)
    rank = np.minimum(np.ceil(_USUAL_SHARE * counts), np.maximum(counts - 1, 0)).astype(np.int64)
    from_top = counts - np.maximum(rank, 1)
    usual = _from_top(seen.chosen(seen.length > 1), n_series, from_top)
    usual[counts < 2] = np.iinfo(np.int64).max // 100
    least = np.maximum(_FEWEST_STUCK, _TIMES_USUAL * usual)
    return seen.chosen(seen.length >= least[seen.series])


def _from_top(longer: Runs, n_series: int, place: Integers) -> Integers:
    """`(series,)`: the length at this place from the longest, which is place 0.

    `longer` are the runs of more than one reading; those after them have one.
    """
    lengths = np.ones(n_series, np.int64)
    if not len(longer.length):
        return lengths
    most = int(longer.length.max()) + 1
    order = np.sort(longer.series * most + longer.length)  # much faster than sorting by two keys
    counts = np.bincount(longer.series, minlength=n_series)
    there = (place >= 0) & (place < counts)
    lengths[there] = order[(np.cumsum(counts) - 1 - place)[there]] % most
    return lengths


def may_hold_sentinels(figures: Figures, base: Doubles) -> NDArray[np.bool_]:
    """`(series,)`: whether an extreme can be a sentinel, by what the others must be like.

    Where it is False, `find_sentinels` finds none.
    """
    found = np.zeros(len(base), np.bool_)
    variance = figures.spread**2
    for extreme, count in ((figures.low, figures.n_low), (figures.high, figures.n_high)):
        share = count / np.maximum(figures.n_seen, 1)
        others = np.where(share < 1, 1 - share, np.nan)
        apart = np.abs(extreme - figures.mean) / others  # from the mean of the others
        rest = variance / others - share * apart**2
        rest = np.maximum(rest - _ROUNDING * variance, 0)
        with np.errstate(invalid="ignore"):
            is_far = apart > _NEARLY * _FAR * np.sqrt(rest)
        found |= is_far & ((count >= _FEWEST_SENTINELS) | _is_known(extreme + base))
    return found


def _is_known(values: Doubles) -> NDArray[np.bool_]:
    return np.isin(values.astype(np.float32), np.array(_SENTINELS, np.float32))


def find_sentinels(panel: Panel) -> Sentinels:
    """Return values that are each a series' largest or smallest, repeated, far from all others.

    One that loggers are known to write needs no repetition.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))]
    filled = np.flatnonzero(panel.lengths > 0)
    starts = panel.offsets[:-1][filled]
    lengths = panel.lengths[filled]
    for extreme in (np.fmin, np.fmax):
        worst = extreme.reduceat(panel.target, starts).astype(np.float64)
        is_worst = panel.target == np.repeat(worst, lengths).astype(np.float32)
        rest = np.where(is_worst, np.float32(np.nan), panel.target)
        count = np.add.reduceat(is_worst, starts, dtype=np.int64)
        gap = np.abs(worst - extreme.reduceat(rest, starts))
        own = worst + panel.base[filled]
        known = _is_known(own)
        spread = deviations(rest, starts, lengths)
        is_far = gap > _FAR * np.where(known, np.maximum(spread, 0), spread)
        chosen = is_far & ((count >= _FEWEST_SENTINELS) | known) & (known | (spread > 0))
        found.append((filled[chosen], own[chosen], count[chosen]))
    series, value, count = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Sentinels(series, value, count)


def find_spikes(panel: Panel, center: Floats, reach: Floats) -> Runs:
    """Return single readings, or a few in a row, that lie out of reach of their series.

    center and reach, `(series,)`, in the panel's units: what the network takes for missing.
    """
    lengths = panel.lengths
    with np.errstate(invalid="ignore"):
        far = np.abs(panel.target - np.repeat(center, lengths)) > np.repeat(reach, lengths)
    begins = far.copy()
    begins[1:] &= ~far[:-1]
    begins[panel.offsets[:-1][lengths > 0]] |= far[panel.offsets[:-1][lengths > 0]]
    begin = np.flatnonzero(begins)
    if not len(begin):
        nothing = np.zeros(0, np.int64)
        return Runs(nothing, nothing, nothing, np.zeros(0, np.bool_))
    length = np.add.reduceat(far, begin, dtype=np.int64)
    series = np.searchsorted(panel.offsets, begin, side="right") - 1
    spikes = Runs(begin, length, series, np.zeros(len(begin), np.bool_))
    return spikes.chosen(length < SPIKE_RUN)


def means(values: Floats, starts: Integers) -> Doubles:
    """Return the mean of what is there in each series, `(series,)`; 0 where nothing is."""
    seen = np.isfinite(values)
    n = np.maximum(np.add.reduceat(seen, starts, dtype=np.int64), 1)
    found: Doubles = np.add.reduceat(np.where(seen, values, 0.0), starts, dtype=np.float64) / n
    return found


def deviations(values: Floats, starts: Integers, lengths: Integers) -> Doubles:
    """Return the standard deviation of what is there, `(series,)`; 0 where nothing is."""
    from_mean = values - np.repeat(means(values, starts), lengths)
    seen = np.isfinite(from_mean)
    n = np.maximum(np.add.reduceat(seen, starts, dtype=np.int64), 1)
    squares = np.add.reduceat(np.where(seen, from_mean, 0.0) ** 2, starts)
    found: Doubles = np.sqrt(squares / n)
    return found
