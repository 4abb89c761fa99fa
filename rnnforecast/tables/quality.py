"""Data-quality checks of readings: stuck sensors, sentinels, gaps and level shifts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers, next_to, take_names
from rnnforecast.data.axis import ELAPSED, HOUR_US, WALL_CLOCK, Flags
from rnnforecast.data.panel import Panel
from rnnforecast.sources.files import thread_map

_STRIDE = 12
"""Any run of 24 equal readings covers two neighbouring multiples of 12."""
_CHUNK_ROWS = _STRIDE << 14
"""Rows that `describe` reads at a time."""
BLOCK_ROWS = 1 << 20
"""Rows (at least one series) at a time where several numbers are needed for each reading."""
_MIN_STUCK_STEPS = 2 * _STRIDE
_STUCK_FACTOR = 10
"""A stuck run is at least this many times longer than the typical runs of its series."""
_TYPICAL_QUANTILE = 0.99
"""This share of a series' runs is typical."""
_MIN_CHANGING = 2 / 3
"""Share of the readings that differ from the one before, outside of stuck runs, if a sensor moves.

A set point, a contact, a valve, rain, a coarse thermometer and half of a solar plant's day do not.
"""
_MOST_STUCK = 100
"""A series that stands still more often does so as a rule."""
_RESTING_SHARE = 0.02
"""A value that this share of the other readings equal is one that the sensor rests at."""
_NINES = tuple(
    sign * (10.0**n_whole - 10.0**-n_decimals)
    for sign, n_least in ((1, 3), (-1, 2))
    for n_whole in range(n_least, 9)
    for n_decimals in range(4)
    if n_whole + n_decimals <= 7  # float32 rounds more nines to a power of ten
)
"""Nines alone: 999 and 9999.9, -99 and -999.99; 99 and 99.9 are shares as well."""
_FULL = tuple(
    full / 10**n_decimals
    for full in (2.0**15 - 1, 2.0**16 - 1, 2.0**31 - 1, 2.0**32 - 1, -(2.0**15), -(2.0**31))
    for n_decimals in range(4)
)
"""Registers of 16 and 32 bits that are full, with up to three decimals."""
_LONG_NINES = tuple(sign * (10.0**n_digits - 1) for sign in (1, -1) for n_digits in range(8, 13))
"""More nines, which float32 rounds to a power of ten."""
_SENTINELS = (*_NINES, *_LONG_NINES, *_FULL, -127.0, -200.0, -999.25)
"""Values that loggers, and files of oil and gas wells, are known to have for a missing reading."""
_ROUNDED_NINES = tuple(
    sign * (10.0**n_whole - 10.0**-n_decimals)
    for sign in (1, -1)
    for n_whole in range(5, 9)
    for n_decimals in (1, 2, 3)
    if n_whole + n_decimals > 7
)
"""Nines with decimals that float32 rounds to a power of ten, which may be a reading."""
_POWER_ON = 85.0
"""What a DS18B20, a common thermometer, reads before its first measurement."""
_NO_COUNT = -1.0
"""What counters of things write where they have no count."""
_CODES = frozenset(float(np.float32(x)) for x in (*_SENTINELS, _POWER_ON, _NO_COUNT))
_OUTSIDE = 0.5
"""A known sentinel is further from the nearest other reading than this share of their range."""
_BULK = 0.005
"""The range of the other readings leaves out this share of them on both sides."""
_MOST_WEAK = 0.2
"""Largest share of readings that equal one of the two values above, which may be readings."""
_MIN_SENTINEL_COUNT = 3
"""Occurrences of any other value before it counts as a sentinel."""
_RARE = (10, 0.005, 0.05)
"""Any other value occurs ten times at most, or at most at this share of the readings where these
are many, or that of few; one that is very far away at the latter share, however many there are."""
_VERY_FAR = 10.0
"""Ranges of the other readings between the nearest of them and a value that is very far away."""
_MIN_ISOLATED, _MIN_DIFFERENT, _SMOOTH = 5, 20, 0.5
"""Occurrences of a value that is very far from readings which go on as if it were not there; least
count of these that are different, and least correlation of each with the next: idle machines, of
which a value is the load, show noise or few different readings."""
_REGULAR_SHARE = 0.5
"""Share of equal distances in time between events that are regular."""
_SAMPLE = 10_000
"""Readings that tell the range of their bulk, at least."""
_MAX_SENTINEL_RUN = 3.0
"""Any other value whose runs have this many readings on average is a state, such as an outage."""
_MAX_RESTING = 0.5
"""Where more of the other readings are the same, such as no rain, an event is no sentinel."""
_SENTINEL_DISTANCE = 5.0
"""Standard deviations of the other readings between the nearest of them and any other value."""
_DISTANCE_SLACK, _VARIANCE_SLACK = 0.99, 1e-6
"""Room for rounding where the variance of the other readings is derived, not measured."""
_N_SEGMENTS = 20
"""Number of equal segments in which a level shift is looked for."""
_MIN_SEGMENT_ROWS = 12
_LOW_QUANTILE, _HIGH_QUANTILE = 0.1, 0.9
"""Readings between these quantiles are a segment's range."""
_SHIFT_FACTOR = 3.0
"""Distance between the two levels, in ranges of the quieter side."""
_SUDDEN_FACTOR = 4.0
"""A step this many times larger than all others shifts the level within the daily range."""
_SUNDAY, _LAST_DST_HOUR = 6, 3
_DST_MONTHS = (3, 4, 9, 10)
"""Months in which clocks are set forward, in the northern or the southern hemisphere."""


@dataclass(frozen=True)
class SeriesStats:
    """Statistics of each series, `(series,)`; NaN for a series without a reading."""

    n_observed: Integers
    min: Floats
    """In the panel's units, as `max` and `mean` are."""
    max: Floats
    n_min: Integers
    """How many readings equal the minimum."""
    n_max: Integers
    mean: Doubles
    std: Doubles
    may_be_stuck: Flags
    """Whether 24 readings in a row may be equal; where it is False, they are not."""


@dataclass(frozen=True)
class _ChunkStats:
    """Statistics of a chunk of rows, `(piece,)`; a piece is the part of one series in it."""

    n_observed: Integers
    min: Floats
    max: Floats
    n_min: Integers
    n_max: Integers
    mean: Doubles
    series: Integers
    sum_of_squares: Doubles
    """Sum of the squared deviations from the mean of the piece."""
    stuck_series: Integers
    """`(any,)`: indices of the series that may have 24 equal readings in a row."""


def describe(panel: Panel) -> SeriesStats:
    """Return statistics of all series, in one pass over the readings."""
    begins = range(0, len(panel.target), _CHUNK_ROWS)
    chunks = list(thread_map(lambda begin: _describe_chunk(panel, begin), begins))
    if chunks:
        return _combine(chunks, panel.n_series)
    zeros, nan = np.zeros(panel.n_series, np.int64), np.full(panel.n_series, np.nan)
    nan32 = nan.astype(np.float32)
    return SeriesStats(zeros, nan32, nan32, zeros, zeros, nan, nan, zeros > 0)


def _describe_chunk(panel: Panel, begin: int) -> _ChunkStats:
    """Return statistics of the rows from `begin`, in pieces that end where series end."""
    target = panel.target[begin : begin + _CHUNK_ROWS]
    end = begin + len(target)
    inner = panel.offsets[
        np.searchsorted(panel.offsets, begin, side="right") : np.searchsorted(panel.offsets, end)
    ]
    starts = np.concatenate([np.zeros(1, np.int64), np.unique(inner) - begin])
    lengths = np.diff(starts, append=len(target))
    is_observed = ~np.isnan(target)
    n_observed = np.add.reduceat(is_observed, starts, dtype=np.int64)
    is_complete = bool(n_observed.sum() == len(target))

    def per_row(values: NDArray[Any]) -> NDArray[Any]:
        """Repeat each piece's value for its rows; the only value is broadcast."""
        return values if len(values) == 1 else np.repeat(values, lengths)

    filled = target if is_complete else np.where(is_observed, target, np.float32(0))
    mean = np.add.reduceat(filled, starts, dtype=np.float64) / np.maximum(n_observed, 1)
    deviations = filled - per_row(mean)
    if not is_complete:
        deviations[~is_observed] = 0
    np.square(deviations, out=deviations)
    low, high = np.fmin.reduceat(target, starts), np.fmax.reduceat(target, starts)

    # A multiple of 12 that equals the next one may begin a stuck run, unless a row in between
    # differs. The rows in between are tried in the order of a bisection.
    sampled = panel.target[begin : end + _STRIDE : _STRIDE]
    rows = begin + _STRIDE * np.flatnonzero(sampled[1:] == sampled[:-1])
    for ahead in (6, 3, 9, 1, 2, 4, 5, 7, 8, 10, 11):
        rows = rows[panel.target[rows + ahead] == panel.target[rows]]
    series = np.searchsorted(panel.offsets, rows, side="right") - 1
    stuck_series = np.unique(series[rows + _STRIDE < panel.offsets[series + 1]])

    return _ChunkStats(
        n_observed=n_observed,
        min=low,
        max=high,
        n_min=np.add.reduceat(target == per_row(low), starts, dtype=np.int64),
        n_max=np.add.reduceat(target == per_row(high), starts, dtype=np.int64),
        mean=mean,
        series=np.searchsorted(panel.offsets, starts + begin, side="right") - 1,
        sum_of_squares=np.add.reduceat(deviations, starts),
        stuck_series=stuck_series,
    )


def _combine(chunks: list[_ChunkStats], n_series: int) -> SeriesStats:
    """Merge the pieces of each series; the variance is that within and between pieces."""
    series = np.concatenate([chunk.series for chunk in chunks])
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    counts = np.diff(starts, append=len(series))

    n_observed = np.concatenate([chunk.n_observed for chunk in chunks])
    piece_mean = np.concatenate([chunk.mean for chunk in chunks])
    squares = np.concatenate([chunk.sum_of_squares for chunk in chunks])
    n_total = np.add.reduceat(n_observed, starts)
    mean = np.add.reduceat(n_observed * piece_mean, starts) / np.maximum(n_total, 1)
    between = n_observed * (piece_mean - np.repeat(mean, counts)) ** 2
    std = np.sqrt(np.add.reduceat(squares + between, starts) / np.maximum(n_total, 1))

    def per_series(values: NDArray[Any], fill: float) -> NDArray[Any]:
        """Return `(series,)`; `fill` for a series without rows."""
        result = np.full(n_series, fill, values.dtype)
        result[series[starts]] = values
        return result

    def extreme(
        ufunc: np.ufunc, values: list[Floats], n_equal: list[Integers]
    ) -> tuple[Floats, Integers]:
        """Return the extreme of each series, and how many readings equal it."""
        candidates = np.concatenate(values)
        best = ufunc.reduceat(candidates, starts)
        is_best = candidates == np.repeat(best, counts)
        n_best = np.add.reduceat(np.where(is_best, np.concatenate(n_equal), 0), starts)
        return per_series(best, np.nan), per_series(n_best, 0)

    low, n_low = extreme(np.fmin, [c.min for c in chunks], [c.n_min for c in chunks])
    high, n_high = extreme(np.fmax, [c.max for c in chunks], [c.n_max for c in chunks])
    has_readings, may_be_stuck = n_total > 0, np.zeros(n_series, np.bool_)
    may_be_stuck[np.concatenate([chunk.stuck_series for chunk in chunks])] = True
    return SeriesStats(
        n_observed=per_series(n_total, 0),
        min=low,
        max=high,
        n_min=n_low,
        n_max=n_high,
        mean=per_series(np.where(has_readings, mean, np.nan), np.nan),
        std=per_series(np.where(has_readings, std, np.nan), np.nan),
        may_be_stuck=may_be_stuck,
    )


@dataclass(frozen=True)
class RunLengths:
    """Runs of one repeated reading, or of missing ones, in the order of the panel's rows."""

    begin: Integers
    """`(run,)`, rows of the panel."""
    length: Integers
    series: Integers
    is_missing: Flags

    def chosen(self, mask: Flags) -> RunLengths:
        """Return the runs where the mask, `(run,)`, is True."""
        return RunLengths(
            self.begin[mask], self.length[mask], self.series[mask], self.is_missing[mask]
        )


@dataclass(frozen=True)
class Sentinels:
    """Values that stand for missing readings, `(sentinel,)`."""

    series: Integers
    value: Doubles
    """In the sensor's own units."""
    count: Integers
    """How many readings of the series equal it."""


def run_lengths(panel: Panel) -> RunLengths:
    """Cut all series into runs; no run crosses the end of its series."""
    target = panel.target
    is_missing = np.isnan(target)
    is_first = np.empty(len(target), np.bool_)
    is_first[:1] = True
    both_missing = is_missing[1:] & is_missing[:-1]
    is_first[1:] = (target[1:] != target[:-1]) & ~both_missing
    is_first[panel.offsets[:-1][panel.lengths > 0]] = True

    begin = np.flatnonzero(is_first)
    series = np.searchsorted(panel.offsets, begin, side="right") - 1
    length = np.diff(begin, append=len(target))
    return RunLengths(begin, length, series, is_missing[begin])


def find_gaps(panel: Panel) -> RunLengths:
    """Return the runs of missing readings."""
    is_missing = np.isnan(panel.target)
    changes = np.flatnonzero(is_missing[1:] != is_missing[:-1]) + 1
    begin = np.union1d(changes, panel.offsets[:-1][panel.lengths > 0])
    length = np.diff(begin, append=len(is_missing))
    is_gap = is_missing[begin]
    series = np.searchsorted(panel.offsets, begin[is_gap], side="right") - 1
    return RunLengths(begin[is_gap], length[is_gap], series, np.ones(len(series), np.bool_))


def find_stuck(panel: Panel) -> RunLengths:
    """Return the runs of one reading in which a sensor that moves stands still.

    They are far longer than the usual ones of their series, and their value is none that the sensor
    rests at, such as the 0 of a solar plant by night.
    """
    runs, n_series = run_lengths(panel), panel.n_series
    observed = runs.chosen(~runs.is_missing)
    counts = np.bincount(observed.series, minlength=n_series)
    rank = np.minimum(np.ceil(_TYPICAL_QUANTILE * counts), np.maximum(counts - 1, 0))
    position = counts - np.maximum(rank.astype(np.int64), 1)  # from the longest run, which is 0

    # Runs of one reading are not sorted: they are the shortest, so their order does not matter.
    typical = np.ones(n_series, np.int64)
    longer = observed.chosen(observed.length > 1)
    if len(longer.length):
        base = int(longer.length.max()) + 1
        keys = np.sort(longer.series * base + longer.length)  # much faster than a sort by two keys
        n_longer = np.bincount(longer.series, minlength=n_series)
        is_longer = (position >= 0) & (position < n_longer)
        typical[is_longer] = keys[(np.cumsum(n_longer) - 1 - position)[is_longer]] % base

    typical[counts < 2] = np.iinfo(np.int64).max // 100  # never stuck; the product cannot overflow
    min_length = np.maximum(_MIN_STUCK_STEPS, _STUCK_FACTOR * typical)
    long = observed.chosen(observed.length >= min_length[observed.series])

    n_long = np.bincount(long.series, minlength=n_series)
    n_readings = np.bincount(observed.series, observed.length, minlength=n_series)
    n_outside = n_readings - np.bincount(long.series, long.length, minlength=n_series)
    moves = (counts - n_long >= _MIN_CHANGING * n_outside) & (n_long <= _MOST_STUCK)
    long = long.chosen(moves[long.series])

    is_resting = np.zeros(len(long.series), np.bool_)
    for number, (begin, series) in enumerate(zip(long.begin, long.series, strict=True)):
        n_equal = np.count_nonzero(panel.of(series) == panel.target[begin]) - long.length[number]
        is_resting[number] = n_equal >= max(_RESTING_SHARE * n_outside[series], 1)
    return long.chosen(~is_resting)


def may_hold_sentinels(stats: SeriesStats, offset: Doubles) -> Flags:
    """Tell, `(series,)`, whether the minimum or maximum of a series can be a sentinel.

    Where it is False, `find_sentinels` finds none. `offset`, added to the panel's units, gives the
    sensor's own.
    """
    may_hold = np.zeros(len(offset), np.bool_)
    variance = stats.std**2
    for extreme, count in ((stats.min, stats.n_min), (stats.max, stats.n_max)):
        # Mean and variance without the extreme, whose share is s: the mean lies |x - mean| / (1-s)
        # from it, and the variance is V / (1-s) - s * distance^2.
        share = count / np.maximum(stats.n_observed, 1)
        other_share = np.where(share < 1, 1 - share, np.nan)
        distance = np.abs(extreme - stats.mean) / other_share
        other_variance = variance / other_share - share * distance**2
        other_variance = np.maximum(other_variance - _VARIANCE_SLACK * variance, 0)
        with np.errstate(invalid="ignore"):
            is_distant = distance > _DISTANCE_SLACK * _SENTINEL_DISTANCE * np.sqrt(other_variance)

        most = np.maximum(_MIN_SENTINEL_COUNT, _MOST_WEAK * stats.n_observed)
        is_repeated = (count >= _MIN_SENTINEL_COUNT) & (count <= most)
        may_hold |= (is_distant & is_repeated) | is_logger_code(extreme + offset)
    return may_hold & (stats.min < stats.max)


def _most_sentinels(n_readings: int, distance: float) -> float:
    """Return how often a value that no logger is known to write may occur.

    `distance` is that to the nearest other reading, in ranges of the others.
    """
    few, share_of_many, share_of_few = _RARE
    most = share_of_few * n_readings
    if distance < _VERY_FAR:
        most = min(max(few, share_of_many * n_readings), most)
    return max(most, _MIN_SENTINEL_COUNT)


def is_logger_code(values: Doubles) -> Flags:
    """Tell which values loggers are known to write for a missing reading."""
    return np.isin(values.astype(np.float32), np.array(list(_CODES), np.float32))


def texts_of_sentinel(value: float) -> tuple[str, ...]:
    """Return the ways in which a sentinel that was read as float32 may be written."""
    rounded = np.float32(value)
    digits = np.format_float_positional(rounded, trim="-")
    codes = [x for x in (*_SENTINELS, *_ROUNDED_NINES) if np.float32(x) == rounded]
    texts = tuple(f"{code:.12g}" for code in codes)
    return texts if codes and codes[0] not in (*_LONG_NINES, *_ROUNDED_NINES) else (*texts, digits)


def find_sentinels(panel: Panel) -> Sentinels:
    """Return the values that stand for missing readings.

    They are extremes: those that loggers are known to write, far outside of the other readings, and
    any other values that are rare, short and still further away. The heaviest rain, or the draw of
    a compressor, is a reading.
    """
    rows = [
        (series, value, count)
        for series in range(panel.n_series)
        for value, count in _sentinels_of(panel.of(series), float(panel.base[series]))
    ]
    series, value, count = np.array(rows, np.float64).reshape(-1, 3).T
    return Sentinels(series.astype(np.int64), value, count.astype(np.int64))


def _sentinels_of(readings: Floats, base: float) -> Iterator[tuple[float, int]]:
    """Yield the sentinels of one series, `(row,)`, in the sensor's own units, and their counts."""
    remaining = readings[np.isfinite(readings)].astype(np.float64) + base

    def extremes() -> set[float]:
        return {float(remaining.min()), float(remaining.max())} if len(remaining) else set()

    # Codes, from both ends inwards, as long as an extreme is one
    is_code = True
    while is_code:
        is_code = False
        for value in extremes():
            is_value = remaining == value
            if float(np.float32(value)) in _CODES and _is_code(remaining, is_value, value):
                yield value, int(np.count_nonzero(is_value))
                remaining, is_code = remaining[~is_value], True

    ends = extremes()
    for value in ends:
        is_value = remaining == value
        if _is_odd(remaining, is_value, value) or _is_isolated(remaining, ends, value):
            yield value, int(np.count_nonzero(is_value))


def _is_code(readings: Doubles, is_value: Flags, value: float) -> bool:
    """Tell whether an extreme that loggers write for a missing reading is one."""
    remaining, is_rare = readings[~is_value], is_value.mean() <= _MOST_WEAK
    if not len(remaining):
        return False
    if value == _NO_COUNT:
        return bool(is_rare and _is_no_count(readings, remaining, is_value))

    sample = np.sort(remaining[:: 1 + len(remaining) // _SAMPLE])
    low, high = sample[int(_BULK * len(sample))], sample[int((1 - _BULK) * (len(sample) - 1))]
    gap = max(value - remaining.max(), remaining.min() - value)
    if gap <= _OUTSIDE * (high - low):
        return False
    # 85 counts only among a thermometer's fractions: among whole numbers it may be a state
    return value != _POWER_ON or bool(
        is_rare and (remaining != np.rint(remaining)).any() and not _rests(remaining)
    )


def _is_no_count(readings: Doubles, remaining: Doubles, is_value: Flags) -> bool:
    """Tell whether -1 stands among counts, next to usual ones: not beside a 0."""
    usual = float(np.quantile(remaining, 0.25))
    if remaining.min() < 0 or (remaining != np.rint(remaining)).any() or usual < 1:
        return False
    return bool(np.median(readings[next_to(is_value) & ~is_value]) >= usual)


def _is_odd(readings: Doubles, is_value: Flags, value: float) -> bool:
    """Tell whether an extreme that no logger is known to write stands for a missing reading."""
    count, remaining = int(np.count_nonzero(is_value)), readings[~is_value]
    if count < _MIN_SENTINEL_COUNT or not len(remaining):
        return False
    gap, extent = max(value - remaining.max(), remaining.min() - value), float(np.ptp(remaining))
    distance = 0.0 if _is_regular(is_value) or extent <= 0 else gap / extent
    if count > _most_sentinels(len(readings), distance):
        return False
    n_runs = np.count_nonzero(is_value[1:] & ~is_value[:-1]) + is_value[0]
    is_distant = gap > max(extent, _SENTINEL_DISTANCE * float(remaining.std()))
    return bool(is_distant and count < _MAX_SENTINEL_RUN * n_runs and not _rests(remaining))


def _is_isolated(readings: Doubles, ends: Collection[float], value: float) -> bool:
    """Tell whether an extreme is very far from readings that change smoothly, and repeats.

    `ends` are both extremes, which may both stand for missing readings.
    """
    remaining, is_value = readings[~np.isin(readings, list(ends))], readings == value
    n_equal = int(np.count_nonzero(is_value))
    if not _MIN_ISOLATED <= n_equal <= _MOST_WEAK * len(readings) or len(remaining) < 2:
        return False
    begins = is_value & ~np.append(False, is_value[:-1])
    if np.count_nonzero(begins) >= _MIN_ISOLATED and _is_regular(begins):
        return False
    gap = max(value - remaining.max(), remaining.min() - value)
    extent, variance = float(np.ptp(remaining)), float(remaining.var())
    if variance <= 0 or gap < _VERY_FAR * extent:
        return False
    correlation = 1 - float(np.mean(np.diff(remaining) ** 2)) / (2 * variance)
    return correlation >= _SMOOTH and len(np.unique(remaining)) >= _MIN_DIFFERENT


def _is_regular(is_value: Flags) -> bool:
    """Tell whether a value comes at equal distances, as that of a daily test does."""
    steps = np.diff(np.flatnonzero(is_value))
    return bool(len(steps) and np.mean(steps == np.median(steps)) >= _REGULAR_SHARE)


def _rests(readings: Doubles) -> bool:
    """Tell whether more than half of the readings are the same."""
    return bool(np.count_nonzero(readings == np.median(readings)) > _MAX_RESTING * len(readings))


@dataclass(frozen=True)
class Changepoint:
    """The row at which the level of a series shifts, and the levels."""

    row: int
    """The first row on the new level."""
    before: float
    after: float


def find_changepoint(readings: Floats) -> Changepoint | None:
    """Return where the level of one series, `(row,)`, shifts; None where it does not.

    NaN is a missing reading. The middle readings before and after share no value, and are far apart
    for the range within a twentieth of the series, or one step is far larger than all others. A
    side that never changes shows no shift.
    """
    n = len(readings) // _N_SEGMENTS
    if n < _MIN_SEGMENT_ROWS:
        return None
    first = len(readings) - n * _N_SEGMENTS
    segments = readings[first:].reshape(_N_SEGMENTS, n)

    # The middle readings of each segment; NaN where more than half are missing.
    ordered = np.sort(segments.astype(np.float64), axis=1)
    n_observed = np.isfinite(ordered).sum(1)
    positions = ((n_observed - 1).clip(0) * q for q in (_LOW_QUANTILE, _HIGH_QUANTILE))
    low, high = (ordered[np.arange(len(ordered)), at.astype(int)] for at in positions)
    has_few = 2 * n_observed < segments.shape[1]
    low, high = np.where(has_few, np.nan, low), np.where(has_few, np.nan, high)

    ranges = high - low
    step = np.abs(np.diff(readings.astype(np.float64)))
    best: tuple[float, int] | None = None
    for at in range(2, _N_SEGMENTS - 2):
        sides = slice(None, at), slice(at + 1, None)
        if not all(np.isfinite(ranges[side]).sum() >= 2 for side in sides):
            continue
        low_before, low_after = (np.nanmin(low[side]) for side in sides)
        high_before, high_after = (np.nanmax(high[side]) for side in sides)
        quieter = min(np.nanmax(ranges[side]) for side in sides)
        distance = max(low_after - high_before, low_before - high_after)
        if quieter <= 0 or distance <= 0 or (best is not None and distance <= best[0]):
            continue
        changes = slice(first + at * n - 1, first + (at + 1) * n)  # the steps into and within it
        largest = np.nanmax(step[changes], initial=0)
        is_sudden = largest > _SUDDEN_FACTOR * np.nanmax(np.delete(step, changes), initial=0)
        if distance > _SHIFT_FACTOR * quieter or is_sudden:
            best = float(distance), at
    if best is None:
        return None

    # The row of that segment at which the level passes half of the shift.
    begin = first + best[1] * n
    end = begin + n
    before, after = float(np.nanmedian(readings[:begin])), float(np.nanmedian(readings[end:]))
    is_after = (readings[begin:end] > (before + after) / 2) == (after > before)
    is_after |= np.isnan(readings[begin:end])
    old_level = np.flatnonzero(~is_after)
    row = begin + (int(old_level[-1]) + 1 if len(old_level) else 0)
    return Changepoint(row, before, after)


@dataclass(frozen=True)
class Segment:
    """Suspect readings of one series, from the first to the last of them."""

    series: str
    value: float
    """In the sensor's own units."""
    n_rows: int
    """How many readings are suspect; between those of a sentinel there may be others."""
    start_us: int
    end_us: int


@dataclass(frozen=True)
class Segments:
    """Many segments as columns, `(segment,)` each; every series may have some."""

    names: tuple[str, ...]
    """All series of the panel."""
    series: Integers
    """Indices into `names`."""
    value: Doubles
    n_rows: Integers
    start_us: Integers
    end_us: Integers

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[Segment]:
        for series, *values in zip(*(column.tolist() for column in self.columns), strict=True):
            yield Segment(self.names[series], *values)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """All that is known of each segment, in the order of the fields."""
        return self.series, self.value, self.n_rows, self.start_us, self.end_us

    def by_value(self) -> tuple[Doubles, Integers, Integers]:
        """Return the different values, their rows, `(value,)` each, and each segment's value.

        The last is `(segment,)`, indices into the values.
        """
        values, index = np.unique(self.value, return_inverse=True)
        counts = np.bincount(index, weights=self.n_rows, minlength=len(values))
        return values, counts.astype(np.int64), index

    def chosen(self, index: Integers | Flags) -> Segments:
        """Return the segments at these positions, or where a mask is True."""
        return Segments(self.names, *(column[index] for column in self.columns))


@dataclass(frozen=True)
class QualityIssues:
    """Suspect series and readings of a panel."""

    constant: tuple[str, ...]
    """Series that never change."""
    stuck: Segments
    sentinels: Segments
    stats: SeriesStats


def find_quality_issues(panel: Panel) -> QualityIssues:
    """Find constant series, stuck sensors and sentinels.

    Only series whose statistics allow a stuck sensor or a sentinel are searched.
    """
    stats = describe(panel)
    may_hold = may_hold_sentinels(stats, panel.base)
    stuck: list[Segments] = []
    sentinels: list[Segments] = []
    for first, block in panel.blocks(BLOCK_ROWS):
        in_block = slice(first, first + block.n_series)

        searched = np.flatnonzero(stats.may_be_stuck[in_block])
        part = block.select(searched)
        segments = segments_of_runs(part, find_stuck(part))
        stuck.append(replace(segments, series=first + searched[segments.series]))

        searched = np.flatnonzero(may_hold[in_block])
        part = block.select(searched)
        segments = segments_of_sentinels(part, find_sentinels(part))
        sentinels.append(replace(segments, series=first + searched[segments.series]))
    constant = take_names(panel.names, np.flatnonzero(stats.min == stats.max))
    return QualityIssues(
        constant, _concatenate(stuck, panel.names), _concatenate(sentinels, panel.names), stats
    )


def n_equal(panel: Panel, value: float) -> int:
    """Return how many readings of all series equal a value, in the sensors' own units."""
    if not panel.base.any():
        return int(np.count_nonzero(panel.target == np.float32(value)))
    shifted = (value - panel.base).astype(np.float32)
    return int(np.count_nonzero(panel.target == np.repeat(shifted, np.diff(panel.offsets))))


def segments_of_runs(panel: Panel, runs: RunLengths) -> Segments:
    """Return runs as segments; the value is the first reading of a run."""
    rows = runs.begin, runs.begin + runs.length - 1
    return _segments(panel, runs.series, panel.target[runs.begin], runs.length, rows)


def segments_of_sentinels(panel: Panel, sentinels: Sentinels) -> Segments:
    """Return sentinels as segments, each from the first to the last reading of its value."""
    value = (sentinels.value - panel.base[sentinels.series]).astype(np.float32)
    affected = panel.select(sentinels.series)
    rows = np.flatnonzero(affected.target == np.repeat(value, affected.lengths))
    first = rows[np.searchsorted(rows, affected.offsets[:-1])]
    last = rows[np.searchsorted(rows, affected.offsets[1:]) - 1]
    shift = panel.offsets[sentinels.series] - affected.offsets[:-1]
    return _segments(panel, sentinels.series, value, sentinels.count, (first + shift, last + shift))


def _segments(
    panel: Panel, series: Integers, value: Floats, n_rows: Integers, rows: tuple[Integers, Integers]
) -> Segments:
    """Return segments with times, from their first and last `rows`, and the sensor's own units."""
    start_us, end_us = (panel.time_at(series, row - panel.offsets[series]) for row in rows)
    own_units = value.astype(np.float64) + panel.base[series]
    return Segments(panel.names, series, own_units, n_rows, start_us, end_us)


def _concatenate(parts: Sequence[Segments], names: tuple[str, ...]) -> Segments:
    """Concatenate segments whose series are those of a panel, with these names."""
    columns = zip(*(part.columns for part in parts), strict=True)
    return Segments(names, *map(np.concatenate, columns))


def count_missing(panel: Panel) -> tuple[Integers, Integers]:
    """Return how many readings are missing, and the longest gap in rows, `(series,)` each.

    An hour that clocks skip is no gap. Without a time zone, a missing hour early on a Sunday in
    spring may be one.
    """
    n_missing, longest = np.zeros((2, panel.n_series), np.int64)
    for first, part in panel.blocks(BLOCK_ROWS):
        gaps = find_gaps(part)
        row = gaps.begin - part.offsets[gaps.series]
        start = part.start[gaps.series] + row * part.step_us

        if panel.axis.tz is None and panel.axis.kind == ELAPSED:
            is_whole_hour = (gaps.length * part.step_us == HOUR_US) & (start % HOUR_US == 0)
            gaps = gaps.chosen(~(is_whole_hour & may_change_clocks(start, _DST_MONTHS)))

        length = gaps.length
        if panel.axis.kind == WALL_CLOCK:
            length = length - _count_skipped_rows(panel, start, length)
        np.add.at(n_missing, first + gaps.series, length)
        np.maximum.at(longest, first + gaps.series, length)
    return n_missing, longest


def may_change_clocks(times: Integers, months: Sequence[int]) -> Flags:
    """Tell which times, without a zone, are in the first hours of a Sunday of these months."""
    stamps = pd.DatetimeIndex(times.view("datetime64[us]"))
    is_early = (stamps.day_of_week == _SUNDAY) & (stamps.hour <= _LAST_DST_HOUR)
    return is_early & np.isin(stamps.month, months)


def _count_skipped_rows(panel: Panel, start: Integers, length: Integers) -> Integers:
    """Return how many rows of gaps, `(gap,)`, lie in hours that clocks skip.

    `start` is the time of a gap's first row, on the axis.
    """
    n_skipped = np.zeros(len(start), np.int64)
    step_us = panel.step_us
    for first_us, last_us in panel.axis.skipped_rows(int(panel.start.min()), panel.end_us, step_us):
        before = np.clip(-((start - first_us) // step_us), 0, length)  # rounded up
        n_skipped += np.clip((last_us - start) // step_us + 1, 0, length) - before
    return n_skipped
