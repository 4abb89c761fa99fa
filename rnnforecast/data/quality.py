"""Detectors: stuck sensors, values that stand for missing ones, spikes, gaps, level shifts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers, pick
from rnnforecast.data.panel import Panel
from rnnforecast.data.scaling import SPIKE_RUN
from rnnforecast.sources.files import in_threads

STILL = 12
"""Readings that stay the same for twice as many steps are the same at two multiples of it."""
_PIECE_ROWS = STILL << 14
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
_STRETCHES = 20
_FEWEST_ROWS = 12
"""A stretch has at least so many rows."""
_LOW, _HIGH = 0.1, 0.9
_APART = 3.0
"""What lies between the levels, in spreads of the quieter side."""
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_THURSDAY, _SUNDAY = 3, 6
_LAST_HOUR = 3
_MONTHS = (3, 4, 9, 10)
"""When clocks are set forward, on one half of the Earth or the other."""


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


@dataclass(frozen=True)
class Jump:
    """Where a series' level jumps, and between which levels."""

    row: int
    """The first one on the new level."""
    before: float
    after: float


def find_jump(readings: Floats) -> Jump | None:
    """Return the jump of one series, `(row,)`, NaN where one is missing; None where there is none.

    The series is cut into twenty stretches. Without the one in which it jumps, the middle readings
    of those before and of those after share no value, and far more lies between them than either
    side's stretches span. A side that never changes says nothing.
    """
    n = len(readings) // _STRETCHES
    if n < _FEWEST_ROWS:
        return None
    low, high = _middle(readings[len(readings) - n * _STRETCHES :].reshape(_STRETCHES, n))
    spans = high - low
    best: tuple[float, int] | None = None
    for at in range(2, _STRETCHES - 2):
        sides = slice(None, at), slice(at + 1, None)
        if not all(np.isfinite(spans[side]).sum() >= 2 for side in sides):
            continue
        (low_before, low_after), (high_before, high_after) = (
            [pick(of[side]) for side in sides] for pick, of in ((np.nanmin, low), (np.nanmax, high))
        )
        span = min(np.nanmax(spans[side]) for side in sides)
        apart = max(low_after - high_before, low_before - high_after)
        if span > 0 and apart > _APART * span and (best is None or apart > best[0]):
            best = float(apart), at
    return None if best is None else _locate(readings, len(readings) - n * _STRETCHES, n, best[1])


def _middle(stretches: Floats) -> tuple[Doubles, Doubles]:
    """`(stretch,)` each: what a tenth of the readings lie below, and above; NaN where few are."""
    ordered = np.sort(stretches.astype(np.float64), axis=1)
    n_seen = np.isfinite(ordered).sum(1)
    rows = np.arange(len(ordered))
    low, high = (ordered[rows, ((n_seen - 1).clip(0) * q).astype(int)] for q in (_LOW, _HIGH))
    few = 2 * n_seen < stretches.shape[1]
    return np.where(few, np.nan, low), np.where(few, np.nan, high)


def _locate(readings: Floats, first: int, n: int, at: int) -> Jump:
    """Find the row within the stretch in which the series jumps, halfway between both levels."""
    begin, end = first + at * n, first + (at + 1) * n
    before, after = float(np.nanmedian(readings[:begin])), float(np.nanmedian(readings[end:]))
    is_over = (readings[begin:end] > (before + after) / 2) == (after > before)
    is_over |= np.isnan(readings[begin:end])
    under = np.flatnonzero(~is_over)
    return Jump(begin + (int(under[-1]) + 1 if len(under) else 0), before, after)


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
    may_miss = may_hold_sentinels(figures, panel.base)
    stuck: list[Stretches] = []
    sentinels: list[Stretches] = []
    for first, part in panel.blocks(BLOCK_ROWS):
        own = slice(first, first + part.n_series)
        stuck.append(_stuck(part.select(np.flatnonzero(figures.may_stand_still[own]))))
        sentinels.append(_sentinels(part.select(np.flatnonzero(may_miss[own]))))
    names = pick(panel.names, np.flatnonzero(figures.low == figures.high))
    return Oddities(names, _concatenated(stuck), _concatenated(sentinels))


def _stuck(part: Panel) -> Stretches:
    found = find_stuck(find_runs(part), part.n_series)
    last = found.begin + found.length - 1
    return stretches_of(
        part, found.series, part.target[found.begin], found.length, (found.begin, last)
    )


def _sentinels(part: Panel) -> Stretches:
    found = find_sentinels(part)
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


def _concatenated(parts: Sequence[Stretches]) -> Stretches:
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


def missing_of(panel: Panel, tz: str | None) -> tuple[Integers, Integers]:
    """`(series,)` each: how many readings are missing, and the rows of the longest gap.

    An hour that clocks skip is no gap.
    """
    missing, longest = np.zeros((2, panel.n_series), np.int64)
    for first, part in panel.blocks(BLOCK_ROWS):
        gaps = find_gaps(part)
        if tz is None:
            gaps = gaps.chosen(~_is_skipped_hour(gaps, part))
        np.add.at(missing, first + gaps.series, gaps.length)
        np.maximum.at(longest, first + gaps.series, gaps.length)
    return missing, longest


def _is_skipped_hour(runs: Runs, panel: Panel) -> NDArray[np.bool_]:
    """`(run,)`: whether a gap is one hour, in the first ones of a Sunday in spring."""
    start = panel.start[runs.series] + (runs.begin - panel.offsets[runs.series]) * panel.step_us
    weekday = (start // _DAY_US + _THURSDAY) % 7
    month = start.view("datetime64[us]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    found: NDArray[np.bool_] = (
        (runs.length * panel.step_us == _HOUR_US)
        & (start % _HOUR_US == 0)
        & (start % _DAY_US <= _LAST_HOUR * _HOUR_US)
        & (weekday == _SUNDAY)
        & np.isin(month, _MONTHS)
    )
    return found
