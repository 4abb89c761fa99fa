"""How the times of rows follow each other: their steps, changes of these, times out of order."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rnnforecast.data.arrays import Integers
from rnnforecast.data.axis import DAY_US, HOUR_US, WALL_CLOCK, TimeAxis, format_timestamp
from rnnforecast.errors import DataError, Location, Proposal, option_for_each
from rnnforecast.events import WarningEvent
from rnnforecast.parallel import Ranks
from rnnforecast.sources.files import thread_map
from rnnforecast.tables.bins import SAME_STEP, pace_of_stretches
from rnnforecast.tables.rows import Codes, ReadContext, Rows
from rnnforecast.units import MONTH_US, describe_duration, format_duration, parse_duration_us

USUAL_STEPS_US = tuple(
    parse_duration_us(f"{count}{unit}")
    for unit, counts in {
        "s": (1, 2, 5, 10, 15, 30),
        "m": (1, 2, 5, 10, 15, 20, 30),
        "h": (1, 2, 3, 4, 6, 12),
        "d": (1, 7),
    }.items()
    for count in counts
)
_OTHER_STEP = 1.4
"""A step that is longer by this factor is another one."""
_MIN_STRETCHES = 0.7
"""Share of the steps that lie in stretches where a step has changed."""
_SAME_LEVEL = 0.2
"""Levels of sums follow their step to this share."""
_GAP_FACTOR = 20
"""A time between two readings that is longer than this many medians is a gap."""
_MAX_EMPTY_SHARE = 0.1
"""Share of the steps that may be empty where a step fits."""
SAME_OWN_STEP = 0.1
"""Steps of a slow sensor may differ by this share: months do."""
_N_SORTED_SERIES = 32
"""Series that are sorted to find the step, where rows are not in the order of time."""
_MAX_STEPS = 1 << 21
"""Of more different steps than these, the first ones tell enough."""
MAX_JITTER = 0.1
"""Stamps that lie off the grid by this share of a step are moved onto it."""
_MIN_OWN_STEPS = 10
"""Fewer steps do not tell that no reading comes between."""
_FEWEST_DAYS, _MOST_DAYS = 3, 0.8
"""As many days with rows of another date, and this share of the days, are no chance."""
_HALF_DAY_US, _MINUTE_US = DAY_US // 2, 60_000_000
_RESET_STEPS, _RESET_SHARE = 10, 0.01
"""A jump back by more steps, and an hour, is a clock that was reset, unless many rows have one."""
_CUT_UNITS_US = (1_000_000, 60_000_000, HOUR_US)
_CUT_FRACTIONS = ((1, 4), (1, 3), (1, 2), (2, 3), (3, 4))
_MIN_CUT_STEPS, _MOSTLY_CUT, _CUT_ERROR = 48, 0.95, 0.02
"""Units to which stamps are cut, fractions of them that are part of a step, the fewest steps that
tell that, the share of those by n and n + 1 units, and the error of the fraction."""
MAX_UTC_OFFSET_US = 14 * HOUR_US
"""Wall clocks are ahead of UTC by this at most."""


@dataclass(frozen=True)
class StepCounts:
    """Histogram of the times from a row to the next one of its series, in microseconds."""

    lengths: Integers
    """`(any,)`, increasing and above 0."""
    counts: Integers

    @classmethod
    def of(cls, lengths: Integers) -> StepCounts:
        """Count the lengths."""
        return cls(*np.unique(lengths, return_counts=True))

    @classmethod
    def merge(cls, parts: Sequence[StepCounts]) -> StepCounts:
        """Add up the counts of several parts."""
        if len(parts) == 1 or not parts:
            return parts[0] if parts else cls.of(np.zeros(0, np.int64))
        all_lengths = np.concatenate([part.lengths for part in parts])
        lengths, index = np.unique(all_lengths, return_inverse=True)
        counts = np.zeros(len(lengths), np.int64)
        np.add.at(counts, index, np.concatenate([part.counts for part in parts]))
        return cls(lengths[:_MAX_STEPS], counts[:_MAX_STEPS])

    @property
    def total(self) -> int:
        """Number of steps."""
        return int(self.counts.sum())

    @property
    def median(self) -> float:
        """Median length; NaN where there is no step."""
        middle = (self.total - 1) // 2, self.total // 2
        if not self.total:
            return float("nan")
        lengths = self.lengths[np.searchsorted(np.cumsum(self.counts), middle, side="right")]
        return float(lengths.mean())

    @property
    def commonest(self) -> tuple[int, int]:
        """The length that occurs most often, and its count."""
        index = int(np.argmax(self.counts))
        return int(self.lengths[index]), int(self.counts[index])

    def count_near(self, step_us: float, share: float) -> int:
        """Return how many lengths differ from a step by at most this share of it."""
        return int(self.counts[np.abs(self.lengths - step_us) <= share * step_us].sum())

    def coarser_than(self, step_us: int) -> int | None:
        """Return the step of readings that come only at each n-th of the steps named, n above 1.

        It is the commonest length, and all lengths are multiples of it; or about a month, a quarter
        or a year. None where a reading lies between, or steps are too few to tell.
        """
        if self.total < _MIN_OWN_STEPS:
            return None
        numbers = np.rint(self.lengths / step_us).astype(np.int64)
        divisor = int(np.gcd.reduce(numbers))
        is_on_grid = np.abs(self.lengths - numbers * step_us) <= MAX_JITTER * step_us
        if (
            divisor > 1
            and is_on_grid.all()
            and 2 * self.counts[numbers == divisor].sum() >= self.total
        ):
            return divisor * step_us
        n_months = round(self.median / MONTH_US)
        are_months = self.count_near(n_months * MONTH_US, MAX_JITTER) == self.total
        return n_months * MONTH_US if n_months and are_months and step_us < MONTH_US else None

    def infer_step(self) -> int:
        """Return the commonest length, or where stamps jitter the median, rounded."""
        step, count = self.commonest
        median = self.median
        is_jittering = count < 0.5 * self.total
        if not is_jittering or self.count_near(median, MAX_JITTER) <= 0.5 * self.total:
            return step

        # the coarsest unit that changes the step by less than one percent
        for unit in (HOUR_US, 60_000_000, 1_000_000, 100_000, 1_000):
            rounded = round(median / unit) * unit
            if rounded and abs(rounded - median) < 0.01 * median:
                return int(rounded)
        return round(median)


@dataclass(frozen=True)
class StepStatistics:
    """How the times of all rows follow each other, in microseconds."""

    start: Integers
    """`(series,)`: the earliest time."""
    end: Integers
    """`(series,)`: the latest time."""
    steps: StepCounts
    backward: Integers
    """`(any,)`: how far the time goes back from a row to the next of its series, above 0."""
    is_complete: bool
    """Whether `steps` counts all steps."""

    def is_multiple_of(self, step_us: int) -> bool:
        """Tell whether all times lie on the grid of their series' first one."""
        parts = (self.steps.lengths, self.backward)
        return self.is_complete and not any((part % step_us).any() for part in parts)


class _ChunkStatistics(NamedTuple):
    """Statistics of some rows, sorted into one group per series: `(group,)` each."""

    series: Codes
    first: Integers
    """The time of the first row in the file."""
    last: Integers
    low: Integers
    high: Integers
    steps: StepCounts
    backward: Integers
    """`(any,)`."""


def step_statistics(rows: Rows) -> StepStatistics:
    """Compare the time of each row with the one before of its series."""
    n_series = rows.n_series
    start = np.full(n_series, np.iinfo(np.int64).max)
    end = np.full(n_series, np.iinfo(np.int64).min)
    last, is_known = np.zeros(n_series, np.int64), np.zeros(n_series, np.bool_)
    steps: list[StepCounts] = []
    backward: list[Integers] = []

    pairs = zip(rows.times, rows.codes, strict=True)
    for chunk in thread_map(lambda pair: _chunk_statistics(*pair, n_series), pairs):
        series = chunk.series
        between = (chunk.first - last[series])[is_known[series]]  # from the chunk before
        backward += [chunk.backward, -between[between < 0]]
        steps += [chunk.steps, StepCounts.of(between[between > 0])]
        start[series] = np.minimum(start[series], chunk.low)
        end[series] = np.maximum(end[series], chunk.high)
        last[series], is_known[series] = chunk.last, True
        if len(steps) > 100:  # bounds the memory of many chunks
            steps = [StepCounts.merge(steps)]

    merged = StepCounts.merge(steps)
    is_complete = len(merged.lengths) < _MAX_STEPS
    all_backward = np.concatenate([np.zeros(0, np.int64), *backward])
    if len(all_backward):
        merged, is_complete = _sorted_steps(rows), False
    return StepStatistics(start, end, merged, all_backward, is_complete)


def _chunk_statistics(times: Integers, codes: Codes, n_series: int) -> _ChunkStatistics:
    """Find the steps within one chunk."""
    starts = _group_starts(codes)
    n_groups = len(starts)
    if n_groups > 1 and (n_groups > n_series or len(np.unique(codes[starts])) < n_groups):
        order = np.argsort(codes, kind="stable")  # the rows of each series stay in their order
        times, codes = times[order], codes[order]
        starts = _group_starts(codes)

    moves = np.diff(times)
    moves[starts[1:] - 1] = 0  # from one series to another
    lowest, highest = int(moves.min(initial=0)), int(moves.max(initial=0))
    ends = np.append(starts[1:], len(times)) - 1
    first, last = times[starts], times[ends]
    if lowest < 0:
        low, high = np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)
        backward = -moves[moves < 0]
    else:
        low, high, backward = first, last, np.zeros(0, np.int64)

    # nearly every chunk has steps of one length, which need not be sorted to be counted
    n_highest = int(np.count_nonzero(moves == highest)) if highest > 0 else 0
    if lowest == 0 and n_highest == np.count_nonzero(moves):
        n_lengths = 1 if n_highest else 0
        steps = StepCounts(np.array([highest])[:n_lengths], np.array([n_highest])[:n_lengths])
    else:
        steps = StepCounts.of(moves[moves > 0])
    return _ChunkStatistics(codes[starts], first, last, low, high, steps, backward)


def _group_starts(codes: Codes) -> Integers:
    """Return where the rows of a series follow those of another, or of none."""
    return np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)


def _sorted_steps(rows: Rows) -> StepCounts:
    """Return the steps of some series, sorted by time."""

    def steps_between(times: Integers) -> StepCounts:
        times = np.sort(times)
        moves = times[1:] - times[:-1]
        return StepCounts.of(moves[moves > 0])

    if rows.n_series == 1:
        return steps_between(np.concatenate(rows.times))
    sample = np.unique(np.linspace(0, rows.n_series - 1, _N_SORTED_SERIES).astype(np.int64))
    in_sample = np.zeros(rows.n_series, np.bool_)
    in_sample[sample] = True
    selected = [in_sample[codes] for codes in rows.codes]
    times = np.concatenate([t[s] for t, s in zip(rows.times, selected, strict=True)])
    codes = np.concatenate([c[s] for c, s in zip(rows.codes, selected, strict=True)])
    return StepCounts.merge([steps_between(times[codes == series]) for series in sample])


def merge_step_counts(steps: StepCounts, ranks: Ranks) -> StepCounts:
    """Return the step counts of all ranks together."""
    if ranks.n == 1:
        return steps
    parts = ranks.all_gather(np.stack([steps.lengths, steps.counts]).tobytes())
    arrays = [np.frombuffer(part, np.int64).reshape(2, -1) for part in parts]
    return StepCounts.merge([StepCounts(lengths, counts) for lengths, counts in arrays])


@dataclass(frozen=True)
class SortedSteps:
    """The times from one row to the next of its series, `(step,)`, sorted by series and time."""

    length: Integers
    """Microseconds, above 0."""
    series: Integers
    begin: Integers
    """Number of the row at which each begins, in the order of the file."""
    end: Integers

    @classmethod
    def of(cls, rows: Rows) -> SortedSteps:
        """Compare all rows."""
        time, series = np.concatenate(rows.times), np.concatenate(rows.codes).astype(np.int64)
        order = np.arange(len(time))
        if (np.diff(series) != 0).any() or (np.diff(time) < 0).any():
            order = np.lexsort((time, series))
        length = np.diff(time[order])
        is_step = (length > 0) & (np.diff(series[order]) == 0)
        return cls(
            length[is_step], series[order][1:][is_step], order[:-1][is_step], order[1:][is_step]
        )


def find_cut_step(steps: StepCounts) -> tuple[int, int] | None:
    """Return the step of stamps that may be cut to the minute or the like, and that unit.

    They are n and n + 1 units apart, each so often that the step is n and a usual fraction: 90
    seconds, cut to the minute, are a minute and two minutes in turn. None for other stamps, and for
    days, some of which may be days off.
    """
    if len(steps.counts) < 2 or steps.total < _MIN_CUT_STEPS:
        return None
    common = np.sort(np.argsort(steps.counts)[-2:])
    (short, long), counts = steps.lengths[common].tolist(), steps.counts[common]
    unit = long - short
    if unit not in _CUT_UNITS_US or short % unit or counts.sum() < _MOSTLY_CUT * steps.total:
        return None
    share = float(counts[1] / counts.sum())
    fraction = min(_CUT_FRACTIONS, key=lambda pair: abs(pair[0] / pair[1] - share))
    if abs(fraction[0] / fraction[1] - share) > _CUT_ERROR:
        return None
    return short + unit * fraction[0] // fraction[1], unit


def without_cuts(rows: Rows, step_us: int, unit_us: int) -> list[Integers] | None:
    """Return the times before they were cut to a unit, on the grid of a step; None if they weren't.

    The times of each series, less whole steps, then lie within less than a unit, and no two on the
    same step.
    """
    grain = math.gcd(step_us, unit_us)
    origin = int(rows.times[0][0])
    n_places = step_us // grain
    has_time = np.zeros((rows.n_series, n_places), np.bool_)
    for times, codes in zip(rows.times, rows.codes, strict=True):
        if ((times - origin) % grain).any():
            return None
        has_time[codes, (times - origin) % step_us // grain] = True

    latest = np.zeros(rows.n_series, np.int64)
    for number, flags in enumerate(has_time):
        places = np.flatnonzero(flags)
        gaps = np.diff(places, append=places[:1] + n_places)
        if not len(gaps) or (n_places - gaps.max()) * grain >= unit_us:
            return None
        latest[number] = places[np.argmax(gaps)] * grain
    return [
        t + (latest[c] + origin - t) % step_us for t, c in zip(rows.times, rows.codes, strict=True)
    ]


def check_step_change(rows: Rows, context: ReadContext, step_us: int, *, min_share: float) -> None:
    """Raise `DataError` where series have stretches of another step than `step_us`, too.

    Nothing is raised where such stretches take less than `min_share` of the time of their series.
    """
    steps = SortedSteps.of(rows)
    pace = pace_of_stretches(steps.length.astype(np.float64), steps.series)
    is_step = np.abs(pace - step_us) <= SAME_STEP * step_us
    is_other = (pace >= _OTHER_STEP * step_us) | (pace * _OTHER_STEP <= step_us)
    both = np.intersect1d(steps.series[is_step], steps.series[is_other])
    has_both = np.isin(steps.series, both)
    is_other, is_step = is_other & has_both, is_step & has_both
    is_regular = is_other | is_step
    total = float(steps.length[is_regular].sum())
    if not is_other.any() or steps.length[is_other].sum() < min_share * total:
        return
    if np.count_nonzero(is_regular) < _MIN_STRETCHES * np.count_nonzero(has_both):
        return

    # the other step is the one that takes most of the time
    paces, index = np.unique(np.rint(pace[is_other]).astype(np.int64), return_inverse=True)
    times = np.bincount(index, weights=steps.length[is_other])
    other_us = int(paces[np.argmax(times)])
    if abs(usual_step(other_us) - other_us) <= SAME_OWN_STEP * other_us:  # it jitters
        other_us = usual_step(other_us)
    stretch = np.flatnonzero(is_regular)
    changes = np.flatnonzero(
        (is_other[stretch[1:]] != is_other[stretch[:-1]])
        & (steps.series[stretch[1:]] == steps.series[stretch[:-1]])
    )
    row = int(steps.begin[stretch[changes[0] + 1]])
    first, second = (step_us, other_us)[:: -1 if is_other[stretch[changes[0]]] else 1]
    at = format_timestamp(int(np.concatenate(rows.times)[row]), context.tz)
    times_text = "" if len(changes) == 1 else f", the first of {len(changes)} changes"
    coarse_us, fine_us = max(step_us, other_us), min(step_us, other_us)
    is_fine, is_coarse = (is_step, is_other) if step_us <= other_us else (is_other, is_step)
    raise DataError(
        f"the step changes from {format_duration(first)} to {format_duration(second)} at {at}"
        f"{times_text}",
        code="step-change",
        location=context.source.location(row, context.schema.time),
        proposals=_common_steps(
            rows, steps.end[is_coarse], steps.end[is_fine], coarse_us, fine_us / coarse_us
        ),
        hint="or remove the rows of one step",
    )


def _common_steps(
    rows: Rows, coarse: Integers, fine: Integers, step_us: int, ratio: float
) -> list[Proposal]:
    """Return how to bring all rows to the coarser step, by the levels of both stretches.

    `ratio` is the finer step by the coarser one: where the level falls by as much, readings are
    sums of their step.
    """
    summed: list[str] = []
    averaged: list[str] = []
    for target, offsets in rows.value_offsets.items():
        codes = np.concatenate(rows.codes)
        values = np.concatenate(rows.readings(target)).astype(np.float64) + offsets[codes]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no reading at one of the steps
            level = np.nanmean(values[fine]) / np.nanmean(values[coarse])
        is_sum = abs(level - ratio) <= _SAME_LEVEL * ratio
        (summed if is_sum else averaged).append(target)

    freq = ("--freq", abbreviate(step_us))
    mean = Proposal((*freq, "--agg", "mean"), "if the readings are levels")
    if not summed:
        return [replace(mean, condition="to use one step for all")]
    if not averaged:
        return [Proposal((*freq, "--agg", "sum"), "if each reading is the sum of its step"), mean]
    rules = option_for_each("--agg", [f"{name}=sum" for name in summed])
    return [Proposal((*freq, "--agg", "mean", *rules), "if these are sums of their step"), mean]


def abbreviate(step_us: int) -> str:
    """Return a step as an option takes it: `15min`."""
    return format_duration(step_us).replace(" ", "")


def usual_step(step_us: float) -> int:
    """Return the usual step that is nearest."""
    return min(USUAL_STEPS_US, key=lambda candidate: abs(math.log(candidate / step_us)))


def fitting_step(lengths: Integers, counts: Integers, median_us: float) -> int:
    """Return the shortest usual step near the median, or longer, that leaves few steps empty.

    `lengths` and `counts` are a histogram of the times between readings. Times without readings
    that are far longer than the median are gaps, whatever the step.
    """
    is_usual = lengths <= _GAP_FACTOR * median_us
    lengths, counts = lengths[is_usual], counts[is_usual]
    nearest = usual_step(median_us)

    for step_us in USUAL_STEPS_US:
        n_empty = (np.maximum(lengths / step_us - 1, 0) * counts).sum()  # wherever steps begin
        n_steps = (lengths * counts).sum() / step_us
        if step_us >= nearest and n_empty <= (_MAX_EMPTY_SHARE + 1e-9) * n_steps:
            return step_us
    return nearest


def check_future(rows: Rows, step_us: int, context: ReadContext) -> None:
    """Warn of readings up to a step ahead of the clock; raise `DataError` for one further ahead.

    A time without a zone is in the future only if it is so in every zone. Rows without a reading
    may be in the future: they hold covariates that are known ahead.
    """
    now_us = time.time_ns() // 1000 + (MAX_UTC_OFFSET_US if context.tz is None else 0)
    n_before = n_early = 0
    for i, times in enumerate(rows.times):
        is_late = times > now_us
        if is_late.any():
            late = np.flatnonzero(is_late & rows.has_reading(i))
            too_late = late[times[late] > now_us + step_us]
            if len(too_late):
                raise DataError(
                    "a reading has a timestamp in the future",
                    code="future",
                    location=context.source.location(
                        n_before + int(too_late[0]), context.schema.time
                    ),
                    proposals=[Proposal(("--allow-future",), "if that is intended")],
                    hint="correct the clock of the sensor",
                )
            n_early += len(late)
        n_before += len(times)

    if n_early:
        limit = format_duration(step_us)
        subject = "1 reading is" if n_early == 1 else f"{n_early} readings are"
        message = f"{subject} ahead of the clock, by at most {limit}"
        context.listener(WarningEvent("future", message, n_early))


def check_jumps_back(rows: Rows, backward: Integers, step_us: int, context: ReadContext) -> None:
    """Raise `DataError` where rows of most days have another date, or another half of the day.

    Warns where a clock seems to have been reset: the time goes back far, and seldom.
    """
    config, is_trained = context.config, context.schema.step_us is not None
    wrong = None
    if config.midnight != "start":
        wrong = _find_wrong_dates(rows, backward, step_us, context.tz)
    ways = () if wrong is None or config.midnight is not None else wrong.ways()
    if wrong is not None and wrong.n_days >= _FEWEST_DAYS:
        problem = f"{wrong.describe()}, as the order of the rows shows"
        if is_trained:  # a model reads as it did before
            message = f"{problem}; they were sorted"
            context.listener(WarningEvent("time-goes-back", message, wrong.n_runs))
            return
        raise DataError(
            problem,
            code="time-goes-back",
            location=context.source.location(wrong.row, context.schema.time),
            proposals=ways,
            hint=None
            if len(ways) > 1
            else "correct the times of these rows; if they are right, sort the rows by time",
        )

    wrong_row = _row_of_another_year(rows, backward, step_us)
    if wrong_row is not None and not is_trained:
        raise DataError(
            "rows have another year than those before and after them, between which they would "
            "fit exactly with the same year",
            code="time-goes-back",
            location=context.source.location(wrong_row, context.schema.time),
            hint="correct the year of these rows",
        )

    long_jumps = backward[backward > max(_RESET_STEPS * step_us, HOUR_US)]
    # A table of future covariates begins before the readings end: one jump back in each series.
    is_future_table = rows.n_future_rows > 0 and len(long_jumps) <= rows.n_series
    if 0 < len(long_jumps) <= _RESET_SHARE * rows.n_rows and not is_future_table:
        longest = describe_duration(int(long_jumps.max()))
        how_often = "once" if len(long_jumps) == 1 else f"{len(long_jumps)} times"
        message = f"the time goes backwards {how_often}, by up to {longest}; the rows were sorted"
        context.listener(WarningEvent("time-goes-back", message, len(long_jumps), ways[:1]))


@dataclass(frozen=True)
class _WrongDates:
    """Rows that would fit between those before and after them a day or half a day later."""

    shift_us: int
    """By how much they are early; below 0 where they are late."""
    clock_us: tuple[int, int]
    """The earliest and the latest time of day of such a row."""
    change_us: int
    """The time of day at which dates change with these rows."""
    n_runs: int
    n_days: int
    """Days with such rows."""
    row: int
    """The first one."""
    has_hour_24: bool = False

    def describe(self) -> str:
        """Return what is wrong."""
        first, last = map(_format_clock, self.clock_us)
        if self.shift_us == DAY_US and self.clock_us == (0, 0):
            return "each midnight has the date of the day that it ends"
        if self.has_hour_24:
            return "24:00 begins its date"
        named = f"the rows at {first}" if first == last else f"the rows from {first} to {last}"
        if abs(self.shift_us) == DAY_US:
            return f"{named} have the date of the day {'before' if self.shift_us > 0 else 'after'}"
        if all(us % _HALF_DAY_US < HOUR_US for us in self.clock_us):
            moment = "noon" if self.shift_us > 0 else "midnight"
            return f"12 AM and 12 PM are exchanged: {named} are those of {moment}"
        return f"{named} belong to the {'second' if self.shift_us > 0 else 'first'} half of the day"

    def ways(self) -> tuple[Proposal, ...]:
        """Return the options that may read them."""
        if self.has_hour_24:
            return (Proposal(("--midnight", "start"), "if 24:00 starts its date"),)
        if abs(self.shift_us) != DAY_US:
            return ()
        if self.clock_us == (0, 0):
            return (
                Proposal(("--midnight", "end"), "if 00:00 ends its date, as 24:00 does"),
                Proposal(("--midnight", "start"), "if 00:00 starts its date, to sort the rows"),
            )
        at = _format_clock(self.change_us)
        return (Proposal(("--midnight", at), f"if dates change at {at}"),)


def _format_clock(us: int) -> str:
    """Return a time of day as 14:30."""
    return f"{us // HOUR_US:02d}:{us // _MINUTE_US % 60:02d}"


def _find_wrong_dates(
    rows: Rows, backward: Integers, step_us: int, tz: str | None
) -> _WrongDates | None:
    """Return rows that lie a day or half a day from where their place in the file puts them.

    On most days the time goes back, and later ahead, by that and about a step. The file may begin
    with its newest row, or with its newest date. None where most days do not have such rows.
    """
    longest_us = max(step_us, HOUR_US)
    for period_us in (DAY_US, _HALF_DAY_US):
        is_near = (np.abs(backward - period_us) <= longest_us) & (backward != period_us)
        if step_us >= period_us or not is_near.any():
            continue
        order, times, codes = _by_series(rows)
        clock = TimeAxis(tz, WALL_CLOCK).from_utc(times)
        places = np.arange(len(order))
        for place in (places, places[::-1], np.lexsort((clock // DAY_US, codes))):
            wrong = _wrong_runs(clock[place], codes[place], place, period_us, longest_us)
            if wrong is not None:
                wrong = replace(wrong, row=int(order[wrong.row]))
                is_24 = rows.has_hour_24 and wrong.shift_us == -DAY_US and not wrong.clock_us[0]
                return replace(wrong, has_hour_24=is_24)
    return None


def _wrong_runs(
    clock: Integers, codes: Codes, place: Integers, period_us: int, longest_us: int
) -> _WrongDates | None:
    """Find runs of rows that begin with a jump of a period, and end with one to the other side.

    `clock`, `codes` and the places of rows in the file, `(row,)`, are in the order of the clock.
    """
    moves, is_same = np.diff(clock), np.diff(codes) == 0
    is_same &= (np.abs(np.diff(place)) == 1) | (moves > 0)  # rows of a file go back
    is_back = is_same & (moves > -period_us) & (moves <= longest_us - period_us)
    is_ahead = is_same & (moves > period_us) & (moves <= longest_us + period_us)
    jumps = np.flatnonzero(is_back | is_ahead)
    begin, end, is_early = jumps[:-1] + 1, jumps[1:], is_back[jumps[:-1]]
    is_run = (is_early != is_back[end]) & (codes[begin] == codes[end])
    is_run &= clock[end] - clock[begin] < period_us
    n_rows = end - begin + 1
    n_early, n_late = (int(n_rows[is_run & kind].sum()) for kind in (is_early, ~is_early))
    if not n_early + n_late:
        return None

    # the fewer rows are the wrong ones
    sign = 1 if n_early and (not n_late or n_early <= n_late) else -1
    begin, end = (x[is_run & (is_early == (sign > 0))] for x in (begin, end))
    days = clock // DAY_US
    n_days = len(np.unique(days[begin]))
    lowest, highest = int((clock % DAY_US)[begin].min()), int((clock % DAY_US)[end].max())
    if n_days < _FEWEST_DAYS:  # all rows at such times count
        time_of_day = clock % DAY_US
        n_all = np.count_nonzero((time_of_day >= lowest) & (time_of_day <= highest))
        are_most = (end - begin + 1).sum() >= _MOST_DAYS * n_all
    else:
        first, last = np.full((2, int(codes.max()) + 1), np.iinfo(np.int64).max)
        np.minimum.at(first, codes[begin], days[begin])
        np.minimum.at(last, codes[begin], -days[begin])
        is_between = (days >= first[codes]) & (days <= -last[codes])
        day_of_series = codes.astype(np.int64) * (np.ptp(days) + 1) + days - days.min()
        are_most = len(begin) >= _MOST_DAYS * len(np.unique(day_of_series[is_between]))
    if not are_most:
        return None
    change_us = int(np.median((clock[end + 1] if sign > 0 else clock[begin]) % DAY_US))
    row = int(min(place[begin].min(), place[end].min()))
    return _WrongDates(sign * period_us, (lowest, highest), change_us, len(begin), n_days, row)


def _by_series(rows: Rows) -> tuple[Integers, Integers, Codes]:
    """Return the rows, their times and their codes, `(row,)`, series by series."""
    codes = np.concatenate(rows.codes)
    order = np.argsort(codes, kind="stable")
    return order, np.concatenate(rows.times)[order], codes[order]


def _row_of_another_year(rows: Rows, backward: Integers, step_us: int) -> int | None:
    """Return the first row of a block whose year is wrong; None where there is none.

    With the year of the rows around it, it would begin a step after the row before it, and end a
    step before the next one, in its series.
    """
    years = [n_days * DAY_US for n_days in (365, 366)]
    if not np.isin(backward + step_us, years).any():
        return None

    order, times, codes = _by_series(rows)
    moves = np.diff(times) - step_us
    is_jump = np.isin(np.abs(moves), years) & (np.diff(codes) == 0)
    jumps = np.flatnonzero(is_jump)
    is_pair = (np.diff(codes[jumps]) == 0) & (np.diff(np.sign(moves[jumps])) != 0)
    return int(order[jumps[np.argmax(is_pair)] + 1]) if is_pair.any() else None


def check_not_coarser(steps: StepCounts, step_us: int, context: ReadContext) -> None:
    """Raise `DataError` where readings come only at each n-th step of `--freq`.

    Nothing would fill the steps between, of which most of a season and of a forecast would be made.
    """
    config, is_trained = context.config, context.schema.step_us is not None
    own_us = steps.coarser_than(step_us)
    if own_us is None or is_trained or config.freq is None or config.hold is not None:
        return
    actual, named = (format_duration(us) for us in (own_us, step_us))
    proposals = [Proposal(("--freq", abbreviate(own_us)), "to keep the step of the readings")]
    if not config.counter and not any(rule.rpartition("=")[2] == "sum" for rule in config.agg):
        condition = "if each reading holds until the next one"
        proposals.append(Proposal(("--hold", abbreviate(own_us)), condition))
    raise DataError(
        f"--freq is {named}, but the readings come every {actual}",
        code="finer-freq",
        location=Location(context.source.name, column=context.schema.time),
        proposals=proposals,
    )
