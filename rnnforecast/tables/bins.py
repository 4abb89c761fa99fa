"""Readings into the steps of `--freq`: lost readings, counters, and values that hold.

A step of `--freq` is a bin. How many readings belong into one follows from the pace of the series:
the step at which its own readings come around that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.axis import ELAPSED, Flags
from rnnforecast.events import Listener, Notice, WarningEvent
from rnnforecast.tables.rows import Grid

MIN_STRETCH = 8
"""Steps of one length in a row that show a pace; lost readings hardly ever leave as many."""
SAME_STEP = 0.2
"""Steps that differ by no more than this share are the same, with some jitter."""
_MIN_MODE_SHARE = 0.3
"""Share of steps of the commonest length that shows a pace where no stretch does."""
_MIN_REGULAR_SHARE = 0.9
"""Least share of steps that are multiples of the pace, if readings come regularly."""
_GAP = 1.5
"""Readings are lost in a gap longer than this multiple of the pace."""
_LONG_HOLE, _MIN_HOLE = 0.2, 4
"""Least share of a bin, and least number of readings, for a gap to count as a regular night."""
_JITTER = 0.1
"""A reading may come too late by this share of the pace."""
_PLAUSIBLE = 10.0
"""An increment above this multiple of the typical one is not plausible."""
_OFTEN = 0.9
"""Of what a counter counted at a time, this quantile is often reached."""
_N_MISREAD = 24
"""Readings in a row that may be misread, such as zeros while a meter starts."""
_MODULI = tuple(
    sorted(
        {float(base) / 10**digits for base in (2**16, 2**32) for digits in range(4)}
        | {10.0**n for n in range(3, 11)}
    )
)
"""Where counters roll over: registers of 16 and 32 bits, with decimals, and digits of a display."""


@dataclass(frozen=True)
class Timeline:
    """The readings of one target that are there, `(reading,)` each, sorted by series and time."""

    time: Integers
    """Microseconds of the clock, before they were put on the grid."""
    position: Integers
    """Number of the bin that each lies in, over all series."""
    series: Integers
    value: Doubles
    step: Integers
    """Microseconds since the reading before of the series; 0 for its first one.

    The hour that clocks skip in spring does not count.
    """

    @classmethod
    def of(
        cls,
        times: Sequence[Integers],
        positions: Sequence[Integers],
        values: Sequence[NDArray[np.floating]],
        grid: Grid,
    ) -> Timeline:
        """Collect chunks of rows, and sort them; NaN is no reading."""
        seen = np.isfinite(np.concatenate(values))
        time, position = (np.concatenate(chunks)[seen] for chunks in (times, positions))
        value = np.concatenate(values)[seen].astype(np.float64)
        moves = np.diff(position)
        if (moves < 0).any() or ((moves == 0) & (np.diff(time) < 0)).any():
            order = np.lexsort((time, position))
            time, position, value = time[order], position[order], value[order]

        series = series_of_bins(grid)[position]
        utc = time
        if grid.axis.kind != ELAPSED:
            utc = replace(grid.axis, open_steps=(), offset_us=0).to_utc(time)
            time = on_clock(time, grid)
        step = np.minimum(np.diff(time, prepend=time[:1]), np.diff(utc, prepend=utc[:1]))
        step[1:][series[1:] != series[:-1]] = 0
        return cls(time, position, series, value, step)

    def chosen(self, index: Flags) -> Timeline:
        """Return the readings where a mask is True."""
        n_before = np.cumsum(self.step)[index]  # since the first reading of all
        series = self.series[index]
        step = np.diff(n_before, prepend=n_before[:1])
        step[1:][series[1:] != series[:-1]] = 0
        return Timeline(self.time[index], self.position[index], series, self.value[index], step)

    @property
    def follows(self) -> Flags:
        """Whether a reading follows another one of its series."""
        return np.append(False, self.series[1:] == self.series[:-1])[: len(self.series)]


def series_of_bins(grid: Grid) -> Integers:
    """Return the number of each bin's series, `(bin,)`."""
    return np.repeat(np.arange(len(grid.lengths)), grid.lengths)


def on_clock(times: Integers, grid: Grid) -> Integers:
    """Return times of the grid's axis as the clock shows them, where months have their lengths."""
    return replace(grid.axis, open_steps=(), offset_us=0).to_wall_clock(times)


def bin_bounds(grid: Grid) -> tuple[Integers, Integers]:
    """Return the times of the clock at which bins begin and end, `(bin,)` each.

    A month that is named by its last day begins a step before.
    """
    row = np.arange(grid.n_rows) - np.repeat(grid.offsets[:-1], grid.lengths)
    begin = np.repeat(grid.start, grid.lengths) + row * grid.step_us
    if grid.axis.open_steps:  # exact times are those before closed steps are left out
        begin = replace(grid.axis, kind=ELAPSED).to_wall_clock(begin)
    begin = begin - (grid.step_us if grid.axis.offset_us else 0)
    return on_clock(begin, grid), on_clock(begin + grid.step_us, grid)


def local_pace(time: Integers, series: Integers) -> Doubles:
    """Return the step of a series' readings around each of them, `(reading,)`, in microseconds.

    `time` and `series` are sorted. Where the step changes, each reading has the step of its
    stretch. NaN for a single reading, and for all readings of a series without a regular step.
    """
    pace = np.full(len(time), np.nan)
    steps = np.diff(time, prepend=time[:1])
    steps[1:][series[1:] != series[:-1]] = 0
    index = np.flatnonzero(steps > 0)  # others begin a series, or repeat a time
    if not len(index):
        return pace
    lengths, owner = steps[index].astype(np.float64), series[index]
    if lengths.min() == lengths.max():
        pace[index] = lengths[0]
        return _fill(pace, series)

    stretch_pace = pace_of_stretches(lengths, owner)
    stretch_pace = _fill(stretch_pace, owner)
    without = np.isnan(stretch_pace)
    if without.any():
        stretch_pace[without] = _commonest(lengths[without], owner[without])

    # readings are regular where steps are multiples of the pace, and many are the pace itself
    multiple = lengths / np.where(np.isnan(stretch_pace), np.inf, stretch_pace)
    is_near = (np.rint(multiple) >= 1) & (np.abs(multiple - np.rint(multiple)) <= SAME_STEP)
    is_pace = is_near & (np.rint(multiple) == 1)
    n_series = int(owner[-1]) + 1
    n_near, n_pace = (np.bincount(owner, weights=x, minlength=n_series) for x in (is_near, is_pace))
    n_steps = np.bincount(owner, minlength=n_series)
    is_regular = (n_near >= _MIN_REGULAR_SHARE * n_steps) & (n_pace >= _MIN_MODE_SHARE * n_steps)
    stretch_pace[~is_regular[owner]] = np.nan
    pace[index] = stretch_pace
    return _fill(pace, series)


def pace_of_stretches(lengths: Doubles, owner: Integers) -> Doubles:
    """`(step,)`: the mean step of each stretch of steps of one length; NaN for steps between."""
    shorter = np.minimum(lengths[1:], lengths[:-1])
    is_same = (owner[1:] == owner[:-1]) & (np.abs(np.diff(lengths)) <= SAME_STEP * shorter)
    begin = np.append(0, np.flatnonzero(~is_same) + 1)
    n_steps = np.diff(begin, append=len(lengths))
    mean = np.add.reduceat(lengths, begin) / n_steps
    return np.repeat(np.where(n_steps >= MIN_STRETCH, mean, np.nan), n_steps)


def _commonest(lengths: Doubles, owner: Integers) -> Doubles:
    """`(step,)`: the commonest step of each series; NaN where it is not common enough."""
    order = np.lexsort((lengths, owner))
    ordered, of_series = lengths[order], owner[order]
    is_new = (ordered[1:] != ordered[:-1]) | (of_series[1:] != of_series[:-1])
    begin = np.append(0, np.flatnonzero(is_new) + 1)
    count = np.diff(begin, append=len(ordered))
    n_series = int(of_series[-1]) + 1
    total = np.bincount(of_series, minlength=n_series)

    # of several commonest lengths, the shortest: it is written last
    result = np.full(n_series, np.nan)
    rank = np.lexsort((-begin, count))
    ranked = of_series[begin[rank]]
    is_common = (count[rank] > 1) & (count[rank] >= _MIN_MODE_SHARE * total[ranked])
    result[ranked] = np.where(is_common, ordered[begin[rank]], np.nan)
    return result[owner]


def _fill(values: Doubles, series: Integers) -> Doubles:
    """Fill NaN by the value before of the same series, or else by the next one."""

    def filled(values: Doubles, series: Integers) -> Doubles:
        last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
        has_value = (last >= 0) & (series[last] == series)
        return np.where(has_value, values[last], np.nan)

    forward = filled(values, series)
    return filled(forward[::-1], series[::-1])[::-1]


def expected_readings(timeline: Timeline, grid: Grid) -> tuple[Integers, Integers]:
    """Return how many readings each bin holds, and how many it would without lost ones.

    `(bin,)` each. A lost reading shows as a step of several paces, or at either end of a series. A
    bin of a series that has no pace lacks none.
    """
    n_present = np.bincount(timeline.position, minlength=grid.n_rows)
    if not len(timeline.time):
        return n_present, n_present
    time, position = timeline.time, timeline.position
    pace = local_pace(time, timeline.series)
    bounds = bin_bounds(grid)
    begin, end = bounds[0][position], bounds[1][position]
    long_us = _LONG_HOLE * (end - begin)

    with np.errstate(invalid="ignore"):
        n_before = np.floor((time - begin) / pace + _JITTER)
        n_after = np.ceil((end - time) / pace - _JITTER) - 1
        is_gap = timeline.follows & (timeline.step > _GAP * pace)
        n_lost = np.where(is_gap, np.rint(timeline.step / pace) - 1, 0.0)
    # before the first reading of a series, and after its last one, any number may be lost
    is_first = ~timeline.follows
    n_lost[is_first] = np.inf
    is_last = np.append(is_first[1:], True)
    lost_after = np.append(n_lost[1:], np.inf)
    lost_after[is_last] = np.inf
    is_within = np.append(False, position[1:] == position[:-1]) & ~is_first
    ends_within = np.append(is_within[1:], False)

    lost_before = np.where(is_within, n_lost, np.minimum(n_lost, n_before))
    lost_behind = np.where(ends_within, 0.0, np.minimum(lost_after, n_after))

    def per_bin(lost: Doubles, is_counted: Flags) -> NDArray[Any]:
        weights = np.where(is_counted, np.maximum(np.nan_to_num(lost), 0), 0.0)
        return np.bincount(position, weights=weights, minlength=grid.n_rows)

    # holes that are long, and lie in most bins of a series, are its closed hours: nothing is lost
    with np.errstate(invalid="ignore"):
        is_long = (n_lost >= _MIN_HOLE) & (n_lost * pace >= long_us)
        ends_long = (lost_after >= _MIN_HOLE) & (lost_after * pace >= long_us)
    short = per_bin(lost_before, ~is_long) + per_bin(lost_behind, ~ends_long)
    long = per_bin(lost_before, is_long) + per_bin(lost_behind, ends_long)
    n_lost_of_bin = short + _beyond_usual(long, n_present, grid)
    n_expected: Integers = n_present + np.rint(n_lost_of_bin).astype(np.int64)
    return n_present, n_expected


def _beyond_usual(n_lost: Doubles, n_present: Integers, grid: Grid) -> Doubles:
    """Return how many readings long holes took from each bin, `(bin,)`, beyond the usual number.

    The usual number of a series is the median over its bins with readings: 0 unless most have a
    hole.
    """
    holds = np.flatnonzero(n_present)
    if not n_lost.any():
        return n_lost

    series, n_series = series_of_bins(grid)[holds], len(grid.lengths)
    n_bins = np.bincount(series, minlength=n_series)
    usual = np.where(n_bins >= MIN_STRETCH, _medians(n_lost[holds], series, n_series), 0)
    beyond: Doubles = np.maximum(n_lost - np.repeat(usual, grid.lengths), 0)
    return beyond


@dataclass(frozen=True)
class BinShares:
    """How much of each bin is there, counted over the targets of a table."""

    n_incomplete: int = 0
    """Bins that hold too little, between the first and the last of a series."""
    n_edges: int = 0
    """The same, at either end of a series."""
    n_scaled: int = 0
    """Bins that lack a little, and whose sums were scaled up."""

    def __add__(self, other: BinShares) -> BinShares:
        return BinShares(
            self.n_incomplete + other.n_incomplete,
            self.n_edges + other.n_edges,
            self.n_scaled + other.n_scaled,
        )

    def report(self, config: DataConfig, listener: Listener) -> None:
        """Warn of incomplete bins; those at the ends of series are no more than a note."""
        if self.n_edges:
            message = f"{self.n_edges} incomplete steps at the ends of series were skipped"
            listener(Notice(message))
        n_bins = self.n_incomplete + self.n_scaled
        if not n_bins:
            return

        share = "the required share" if config.min_share is None else f"{config.min_share:.0%}"
        message = (
            f"{n_bins} steps of {config.freq} are incomplete; {self.n_incomplete} of them "
            "contain less than "
        )
        message += f"{share} of the expected readings and are missing"
        if self.n_scaled:
            message += f"; the sums of {self.n_scaled} are scaled up"
        listener(WarningEvent("incomplete-bins", message, n_bins))


def complete_bins(
    placed: NDArray[np.floating],
    timeline: Timeline,
    grid: Grid,
    rule: str,
    config: DataConfig,
    offset: Doubles | None,
) -> BinShares:
    """Set bins with too few of their readings to NaN, in place, and scale sums that lack a few.

    `placed` is `(bin,)`; `offset` is what was subtracted from each value of a bin. Nothing changes
    with `--min-share 0`.
    """
    min_share = config.min_share_of(rule)
    if not min_share:
        return BinShares()

    n_present, n_expected = expected_readings(timeline, grid)
    with np.errstate(invalid="ignore"):
        share = n_present / n_expected
    is_scaled = (share < 1) & (share >= min_share) if rule == "sum" else np.zeros(0, np.bool_)
    if is_scaled.any():
        base = 0.0 if offset is None else offset[is_scaled]
        placed[is_scaled] = (placed[is_scaled] + base) / share[is_scaled] - base
    return _mask_bins(placed, (n_present > 0) & (share < min_share), int(is_scaled.sum()), grid)


def _mask_bins(
    placed: NDArray[np.floating], is_incomplete: Flags, n_scaled: int, grid: Grid
) -> BinShares:
    """Set incomplete bins to NaN, in place, and count them."""
    was_present = np.flatnonzero(np.isfinite(placed))
    placed[is_incomplete] = np.nan
    incomplete = np.flatnonzero(is_incomplete)
    if not len(incomplete):
        return BinShares(n_scaled=n_scaled)

    series = np.searchsorted(grid.offsets, was_present, side="right") - 1
    is_change = series[1:] != series[:-1]
    is_edge = np.append(True, is_change) | np.append(is_change, True)
    n_edges = int(np.isin(incomplete, was_present[is_edge]).sum())
    return BinShares(len(incomplete) - n_edges, n_edges, n_scaled)


def mean_angles(timeline: Timeline, n_bins: int) -> Doubles:
    """`(bin,)`: the direction of the mean of unit vectors, in degrees from -180 to 180.

    NaN for a bin without readings, and where they cancel out.
    """
    angle, position = np.deg2rad(timeline.value), timeline.position
    x = np.bincount(position, weights=np.cos(angle), minlength=n_bins)
    y = np.bincount(position, weights=np.sin(angle), minlength=n_bins)
    return _direction(x, y, np.bincount(position, minlength=n_bins))


def _direction(x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any]) -> Doubles:
    """Return the angle of sums of unit vectors; NaN where they cancel out."""
    is_known = np.hypot(x, y) > 1e-6 * np.maximum(weight, 1e-9)
    return np.where(is_known, np.rad2deg(np.arctan2(y, x)), np.nan)


class BinIntegral:
    """Sums over bins of something that each reading adds for a while, at a constant rate.

    `duration`, `(reading,)`, is for how many microseconds: at most until the next reading.
    """

    def __init__(self, timeline: Timeline, grid: Grid, duration: Doubles) -> None:
        self._time, self._duration = timeline.time, duration
        self.begin, self.end = bin_bounds(grid)
        self._first = np.searchsorted(timeline.series, series_of_bins(grid))
        self.last, self.before = (
            np.searchsorted(timeline.position, np.arange(grid.n_rows), side=side) - 1
            for side in ("right", "left")
        )
        """The last reading up to the end of each bin, and before its begin; -1: there is none."""
        self.last[self.last < self._first] = -1
        self.before[self.before < self._first] = -1

    def of(self, rate: Doubles) -> Doubles:
        """`(bin,)`: the sum of the rates, `(reading,)`, times the microseconds that they count."""
        total = np.append(0.0, np.cumsum(rate * self._duration))

        def until(index: Integers, edge: Integers) -> Doubles:
            elapsed = np.minimum(edge - self._time[index], self._duration[index])
            return np.where(index >= 0, total[index] + rate[index] * elapsed, total[self._first])

        return until(self.last, self.end) - until(self.before, self.begin)


def held_bins(
    timeline: Timeline, grid: Grid, rule: str, config: DataConfig, *, until_us: int
) -> tuple[Doubles, BinShares]:
    """Return a value for each bin, `(bin,)`, where each reading counts until the next one.

    It counts for `--hold` at most, and until `until_us`, when the table ends. A mean is weighted by
    time. A bin that values cover too little of is NaN, and so is one that ends after the table.
    """
    time, value, n = timeline.time, timeline.value, len(timeline.time)
    if not n:
        return np.full(grid.n_rows, np.nan), BinShares()
    until_us = int(on_clock(np.array([until_us]), grid)[0])
    until = np.minimum(time + (config.hold_us or 0), until_us)
    is_followed = np.append(timeline.follows[1:], False)
    until[is_followed] = np.minimum(until[is_followed], np.append(time[1:], 0)[is_followed])
    integral = BinIntegral(timeline, grid, np.maximum(until - time, 0).astype(np.float64))

    covered = integral.of(np.ones(n))
    enters = (integral.before >= 0) & (until[integral.before] > integral.begin)
    if rule == "last":
        is_known = (integral.last > integral.before) | enters
        placed = np.where(is_known, value[integral.last], np.nan)
    elif rule in ("min", "max"):
        placed = np.where(enters, value[integral.before], np.nan)
        (np.fmin if rule == "min" else np.fmax).at(placed, timeline.position, value)
    elif rule == ANGLE:
        x, y = (integral.of(function(np.deg2rad(value))) for function in (np.cos, np.sin))
        placed = _direction(x, y, covered)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            placed = np.where(covered > 0, integral.of(value) / covered, np.nan)

    placed[integral.end > until_us] = np.nan
    share = covered / (integral.end - integral.begin)
    is_incomplete = np.isfinite(placed) & (share < config.min_share_of(rule))
    return placed, _mask_bins(placed, is_incomplete, 0, grid)


@dataclass(frozen=True)
class Increments:
    """What counters counted from one reading to the next, `(reading,)` each."""

    is_kept: Flags
    """False for readings that are misread."""
    increment: Doubles
    """Since the reading before that is kept; NaN for the first one, and where it is not known."""
    n_resets: int = 0
    n_rollovers: int = 0
    n_falls: int = 0

    def report(self, name: str, listener: Listener) -> None:
        """Warn of what is not plain counting."""
        for code, message, n in (
            ("counter-reset", "was reset", self.n_resets),
            ("counter-rollover", "rolled over", self.n_rollovers),
            (
                "counter-fall",
                "decreased without a reset (those steps are missing)",
                self.n_falls,
            ),
        ):
            if n:
                times = "once" if n == 1 else f"{n} times"
                listener(WarningEvent(code, f"counter {name!r} {message} {times}", n))


def count_increments(count: Doubles, time: Integers, series: Integers) -> Increments:
    """Return what counters counted between readings, which are sorted by series and time.

    A fall to near zero is a reset: the counter has counted what it shows. Where the count before is
    that of a register or a display that is nearly full, it rolled over. A fall that later readings
    take back is misread, and left out; what was counted over any other fall is not known.
    """
    n = len(count)
    increment = np.diff(count, prepend=np.nan)
    is_same = np.append(False, series[1:] == series[:-1])[:n]
    increment[~is_same] = np.nan
    is_kept = np.ones(n, np.bool_)
    falls = np.flatnonzero(increment < 0)
    if not len(falls):
        return Increments(is_kept, increment)

    known: dict[int, float] = {}
    totals = np.zeros(3, np.int64)
    falling, first_fall = np.unique(series[falls], return_index=True)
    for number, some in zip(falling.tolist(), np.split(falls, first_fall[1:]), strict=True):
        begin, end = np.searchsorted(series, [number, number + 1]).tolist()
        counter = _Counter(count[begin:end], time[begin:end], is_kept[begin:end])
        known |= {begin + i: x for i, x in counter.over_falls((some - begin).tolist()).items()}
        totals += counter.n_resets, counter.n_rollovers, counter.n_falls

    kept_rows = np.flatnonzero(is_kept)
    increment[kept_rows] = np.append(np.nan, np.diff(count[kept_rows]))[: len(kept_rows)]
    is_first = np.append(True, series[kept_rows[1:]] != series[kept_rows[:-1]])
    increment[kept_rows[is_first]] = np.nan
    for i, counted in known.items():
        increment[i] = counted
    increment[~is_kept] = np.nan
    return Increments(is_kept, increment, *totals.tolist())


class _Counter:
    """The falls of one counter; readings that are misread become False in `is_kept`."""

    def __init__(self, count: Doubles, time: Integers, is_kept: Flags) -> None:
        self._count, self._time, self._is_kept = count, time, is_kept
        steps = np.diff(time)
        rises = np.diff(count)
        rises = rises[rises > 0]
        self._step_us = float(np.median(steps)) if len(steps) else 1.0
        self._often = float(np.quantile(rises, _OFTEN)) if len(rises) else 0.0
        self.n_resets = self.n_rollovers = self.n_falls = 0

    def over_falls(self, falls: list[int]) -> dict[int, float]:
        """Return what was counted over each fall that is not misread; NaN where it is not known."""
        known = {}
        for i in falls:
            kept_rows = np.flatnonzero(self._is_kept[:i])
            if not self._is_kept[i] or self._count[i] >= self._count[kept_rows[-1]]:
                continue
            counted = self._over_fall(i, kept_rows)
            if counted is not None:
                known[i] = counted
        return known

    def _over_fall(self, i: int, kept_rows: Integers) -> float | None:
        """Return what was counted up to reading `i`; None where a reading is misread."""
        count, last = self._count, int(kept_rows[-1])
        before, after = float(count[last]), float(count[i])
        n_steps = max((self._time[i] - self._time[last]) / max(self._step_us, 1.0), 1.0)
        plausible = _PLAUSIBLE * self._often * n_steps
        is_near_zero = 0 <= after <= plausible

        back = np.flatnonzero(count[i + 1 : i + 1 + _N_MISREAD] >= before)
        if len(back):
            jump = count[i + 1 + back[0]] - count[i + back[0]]
            if not is_near_zero or jump > plausible:
                self._is_kept[i : i + 1 + back[0]] = False
                self.n_falls += 1
                return None
        if (
            len(kept_rows) > 1
            and after >= count[kept_rows[-2]]
            and before - count[kept_rows[-2]] > plausible
        ):
            self._is_kept[last] = False
            self.n_falls += 1
            return None

        for modulus in _MODULI:
            if before < modulus and after >= 0 and modulus - before + after <= plausible:
                self.n_rollovers += 1
                return modulus - before + after
        if is_near_zero:
            self.n_resets += 1
            return after
        self.n_falls += 1
        return float("nan")


def counter_bins(
    timeline: Timeline, grid: Grid, name: str, config: DataConfig, listener: Listener
) -> tuple[Doubles, BinShares]:
    """Return what counters counted in each bin, `(bin,)`.

    What was counted from one reading to the next is split where a bin ends between them: over a
    hole too, if it is short for a bin, or comes in most bins, as nights do. Any other hole must lie
    within one bin. A bin of which too little is known is NaN.
    """
    counted = count_increments(timeline.value, timeline.time, timeline.series)
    counted.report(name, listener)
    kept_rows = timeline.chosen(counted.is_kept)
    increment = counted.increment[counted.is_kept]
    if not len(kept_rows.time):
        return np.full(grid.n_rows, np.nan), BinShares()

    # a reading and the next one: a hole where too long lies between them
    begin, end = bin_bounds(grid)
    position, min_share = kept_rows.position, config.min_share_of("sum")
    pace = local_pace(kept_rows.time, kept_rows.series)
    limit = np.where(np.isnan(pace), grid.step_us, np.minimum(_GAP * pace, grid.step_us))
    limit = np.maximum(limit, config.hold_us or 0)
    if min_share:  # the rest of a bin may be gaps
        limit = np.maximum(limit, (1 - min_share) * (end - begin)[position])
    is_known = np.append(kept_rows.follows[1:] & np.isfinite(increment[1:]), False)
    counted_next = np.where(is_known, np.append(increment[1:], 0.0), 0.0)
    length = np.where(is_known, np.append(np.diff(kept_rows.time), 0), 0).astype(np.float64)
    gap = np.append(kept_rows.step[1:], 0)
    is_within = np.append(position[1:], -1) == position
    is_hole = is_known & (gap > limit) & ~is_within
    usual = _usual_holes(gap[is_hole], kept_rows.series[is_hole], position, grid, min_share)
    is_spread = is_known & (gap <= np.maximum(limit, (1 + SAME_STEP) * usual[kept_rows.series]))

    integral = BinIntegral(kept_rows, grid, np.where(is_spread, length, 0.0))
    known = integral.of(np.ones(len(length)))
    total = integral.of(counted_next / np.maximum(length, 1.0))
    is_exact = is_known & ~is_spread & is_within
    holes = position[is_exact]
    total += np.bincount(holes, weights=counted_next[is_exact], minlength=grid.n_rows)
    known += np.bincount(holes, weights=length[is_exact], minlength=grid.n_rows)
    placed = np.where(known > 0, total, np.nan)
    if not min_share:
        return placed, BinShares()

    # a bin is as full as others with a night in it; what it lacks beyond is scaled, or too much
    length_of_bin = end - begin
    share = np.minimum((known + usual[series_of_bins(grid)]) / length_of_bin, 1.0)
    is_incomplete = (known > 0) & (share < min_share - 1e-9)
    # the bin of a series' last reading is over where the next reading would lie in another one
    is_last = np.append(~kept_rows.follows[1:], True)
    at_end = position[is_last]
    wait = np.maximum(_GAP * np.nan_to_num(pace[is_last]), usual[kept_rows.series[is_last]])
    is_incomplete[at_end] |= (known[at_end] > 0) & (kept_rows.time[is_last] + wait < end[at_end])
    is_scaled = (known > 0) & (share < 1 - 1e-9) & ~is_incomplete
    placed[is_scaled] /= share[is_scaled]
    is_scaled[at_end] = False  # its end has not been counted yet, but nothing is lost
    return placed, _mask_bins(placed, is_incomplete, int(is_scaled.sum()), grid)


def _usual_holes(
    lengths: Integers, series: Integers, position: Integers, grid: Grid, min_share: float
) -> Doubles:
    """`(series,)`: the median hole of a meter that is not read by night, say; 0 for others.

    `lengths` and `series` are those of holes over the edge of a bin, `(hole,)`, and `position` the
    bins of all readings. Most bins with readings end in such a hole.
    """
    n_series = len(grid.lengths)
    usual = np.zeros(n_series)
    if not len(lengths) or not min_share:
        return usual
    n_bins = np.bincount(series_of_bins(grid)[np.unique(position)], minlength=n_series)
    n_holes = np.bincount(series, minlength=n_series)
    is_usual = (n_holes >= MIN_STRETCH) & (2 * n_holes > n_bins)
    usual[is_usual] = _medians(lengths, series, n_series)[is_usual]
    return usual


def _medians(values: NDArray[Any], series: Integers, n_series: int) -> Doubles:
    """`(series,)`: the lower median of the values of each series; 0 for one without any."""
    order = np.lexsort((values, series))
    n_values = np.bincount(series, minlength=n_series)
    middle = np.cumsum(n_values) - n_values + np.maximum(n_values - 1, 0) // 2
    medians = np.zeros(n_series)
    has_values = n_values > 0
    medians[has_values] = values[order][middle[has_values]]
    return medians


def grid_increments(
    counts: NDArray[np.floating], offsets: Integers, name: str, listener: Listener
) -> Floats:
    """Return what a meter counted in each step, `(row,)`, of its counts on a grid.

    A step is NaN where it or the one before is missing, and at the start of a series.
    """
    rows = np.flatnonzero(np.isfinite(counts))
    series = np.searchsorted(offsets, rows, side="right") - 1
    counted = count_increments(counts[rows].astype(np.float64, copy=False), rows, series)
    counted.report(name, listener)

    kept_rows = rows[counted.is_kept]
    is_adjacent = np.append(False, np.diff(kept_rows) == 1)[: len(kept_rows)]
    increments = np.full(len(counts), np.nan, np.float32)
    increments[kept_rows[is_adjacent]] = counted.increment[counted.is_kept][is_adjacent]
    return increments


def hold_on_grid(target: Floats, grid: Grid, n_steps: int, *, until_us: int) -> None:
    """Fill missing steps of a target, `(row,)`, in place, by the last reading: `n_steps` at most.

    Steps from `until_us` on, after the newest reading of the table, stay missing.
    """
    row = np.arange(len(target))
    grid_times = np.repeat(grid.start - grid.offsets[:-1] * grid.step_us, grid.lengths)
    grid_times = grid_times + row * grid.step_us
    last = np.maximum.accumulate(np.where(np.isnan(target), -1, row))
    is_held = np.isnan(target) & (last >= np.repeat(grid.offsets[:-1], grid.lengths))
    is_held &= (row - last <= n_steps) & (grid_times < until_us)
    target[is_held] = target[last[is_held]]
