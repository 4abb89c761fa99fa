"""Profile of a table: the role of each column, statistics and findings of each series."""

from __future__ import annotations

import difflib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import HOUR_US, TimeAxis
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import Seasons, find_seasons
from rnnforecast.data.windows import make_past
from rnnforecast.errors import Proposal, option_for_each
from rnnforecast.events import Listener, WarningEvent, ignore, warn_of_names
from rnnforecast.sources.columns import Column
from rnnforecast.tables.bins import count_increments
from rnnforecast.tables.quality import (
    BLOCK_ROWS,
    Segment,
    Segments,
    SeriesStats,
    count_missing,
    find_changepoint,
    find_quality_issues,
    is_logger_code,
    n_equal,
    segments_of_runs,
)
from rnnforecast.tables.schema import Schema, target_of
from rnnforecast.tables.spikes import find_spikes

_ROLE_LABELS = {"known": "known ahead", "past": "known up to now", "static": "static"}
_KIND_LABELS = {
    "number": "contains numbers",
    "time": "contains timestamps",
    "text": "contains text",
}
SPIKE = "spike"
_MAX_LISTED = 5
"""Findings that a warning lists."""
_END_SHARE = 0.1
"""Share of a series that is its beginning, or its end, when their means are compared."""
_SHIFT_FACTOR = 1.5
"""Standard deviations between both ends of a series whose level may shift.

Two levels of equal length are two standard deviations apart.
"""
_MIN_COUNTS, _MIN_RISES = 100, 20
"""Least number of steps of a series, and of rises between two resets, for a counter."""
_MAX_RESETS, _MAX_RESET_SHARE = 3, 0.02
"""A counter begins anew at few steps, or at this share of them: each day, read every half hour."""
_MAX_RISE = 0.2
"""A counter hardly counts this share of all at one time."""
_USUALLY = 0.9
_LINE_ROWS = 25
"""Readings in a row that show whether a series rises along a straight line."""
_N_PARTS = 16
"""Number of parts of a series in which the increments of a counter are compared."""
_MIN_LARGE, _LOCAL, _MIN_NOISE, _MIN_CORRELATION = 100, 9, 0.01, -0.3
"""Of increments along a curve: the least median, the steps of a running mean, the least share of
noise around it, and the least correlation of this noise from step to step; that of the differences
of noise is -0.5, and that of independent noise 0, or -0.1 beside its own mean."""
_MAX_JUDGED = 1000
"""More series than these are not looked at one by one."""
_TURN = 360.0
_MIN_TURNS = 5
"""Jumps through north that show a direction."""
_MAX_GAP_AT_NORTH = 6.0
"""Degrees around north in which no reading of a direction may lie."""
_TURN_FACTOR = 4.0
"""Largest ratio between turns through north and turns elsewhere."""

_LOOK_ALIKE = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425", "ABEKMHOPCTX"
)
"""Cyrillic letters that look like Latin ones."""
_MIN_SUCCESSION, _MAX_SUCCESSIONS, _ALIKE_NAMES = 24, 50, 0.6
"""Readings of a sensor that follows another, or that both have alike; more sensors that end early
than these are not looked at; and the similarity of names such as boiler and boiler_new."""

_LONGEST_TURN_US, _ROWS_OF_TURNS, _MIN_TURN_ROWS, _SAME_LEVEL = 6 * HOUR_US, 5000, 48, 0.25
"""Longest step, and rows, in which two levels that take turns are looked for; and the least rows,
and how near readings of one level are in comparison with those of both."""


@dataclass(frozen=True)
class Finding:
    """Suspect readings of one series."""

    code: str
    series: str
    message: str
    count: int
    """How many readings are suspect."""
    percent: float
    """Their share of the readings of the series."""
    start: str
    """The time of the first."""
    end: str


@dataclass(frozen=True)
class ColumnRole:
    """The role of a column, and why it has it."""

    name: str
    role: str
    why: str


@dataclass(frozen=True)
class Profile:
    """Statistics of all series of a table, `(series,)` each, and what is suspect."""

    panel: Panel
    missing: Integers
    longest_gap: Integers
    """In rows."""
    level: Doubles
    """Mean, in the sensor's own units; NaN where there is no reading."""
    spread: Doubles
    """Standard deviation."""
    seasons: tuple[Seasons, ...]
    """In steps; 1 where none is found."""
    findings: tuple[Finding, ...]
    sentinels: tuple[float, ...]
    """Values that loggers write for a missing reading, and that are nothing else in any series."""
    warnings: tuple[WarningEvent, ...]
    """Of spikes and of level shifts."""


def profile_panel(panel: Panel, listener: Listener = ignore) -> Profile:
    """Profile all series of a panel."""
    issues = find_quality_issues(panel)
    stats = issues.stats
    spikes = tuple(spikes_by_series(panel, issues.sentinels))
    shifts = tuple(find_level_shifts(panel, stats))
    missing, longest_gap = count_missing(panel)
    values, counts, _ = issues.sentinels.by_value()
    is_code = is_logger_code(values)

    n_readings = dict(zip(panel.names, stats.n_observed.tolist(), strict=True))

    def finding(
        code: str, series: str, message: str, n_rows: int, times: tuple[int, int]
    ) -> Finding:
        percent = round(100 * n_rows / n_readings[series], 4)
        start, end = (panel.axis.format(time_us) for time_us in times)
        return Finding(code, series, message, n_rows, percent, start, end)

    def suspect(code: str, label: str, segments: Iterable[Segment]) -> Iterator[Finding]:
        for s in segments:
            times = s.start_us, s.end_us
            yield finding(code, s.series, f"{label} {s.value:g}", s.n_rows, times)

    def shifted() -> Iterator[Finding]:
        for s in shifts:
            message = f"jumps from {s.before:.4g} to {s.after:.4g}"
            times = s.time_us, panel.end_us - panel.step_us
            yield finding("level-jump", s.series, message, s.n_rows, times)

    return Profile(
        panel=panel,
        missing=missing,
        longest_gap=longest_gap,
        level=stats.mean + panel.base,
        spread=stats.std,
        seasons=find_seasons(make_past(panel), listener),
        findings=(
            *suspect("stuck-sensor", "is stuck at", issues.stuck),
            *suspect("sentinel", "far from all others:", issues.sentinels),
            *suspect(SPIKE, "leaves and returns:", _segments(spikes)),
            *shifted(),
        ),
        sentinels=tuple(
            float(value)
            for value, count in zip(values[is_code], counts[is_code], strict=True)
            if n_equal(panel, float(value)) == count  # in other series it may be a reading
        ),
        warnings=tuple(_warnings(spikes, shifts, panel.axis)),
    )


def _warnings(
    spikes: tuple[SeriesSpikes, ...], shifts: tuple[LevelShift, ...], axis: TimeAxis
) -> Iterator[WarningEvent]:
    """Yield a warning of all spikes, and one of all level shifts."""
    if spikes:
        segments = _segments(spikes)
        examples = "; ".join(
            f"{segment.series} reads {segment.value:g} at {axis.format(segment.start_us)}"
            for segment in segments[:_MAX_LISTED]
        ) + ", ..." * (len(segments) > _MAX_LISTED)
        n_rows = sum(series_spikes.n_rows for series_spikes in spikes)
        subject = (
            f"{n_rows} readings leave and return" if n_rows > 1 else "1 reading leaves and returns"
        )
        message = f"{subject}, far more than the usual changes of the sensor: {examples}"
        proposals = tuple(s.proposal for s in spikes[:_MAX_LISTED] if s.proposal is not None)
        yield WarningEvent(SPIKE, message, n_rows, proposals)

    if shifts:
        examples = "; ".join(
            f"{shift.series} from {shift.before:.4g} to {shift.after:.4g} at "
            f"{axis.format(shift.time_us)}"
            for shift in shifts[:_MAX_LISTED]
        )
        message = f"the level shifts: {examples}" + ", ..." * (len(shifts) > _MAX_LISTED)
        message += "; if the unit changed there, convert or remove the earlier data"
        yield WarningEvent("level-jump", message, len(shifts))


def warnings_of_spikes(panel: Panel) -> Iterator[WarningEvent]:
    """Yield the warning of all spikes of a panel, if there are any."""
    sentinels = find_quality_issues(panel).sentinels
    yield from _warnings(tuple(spikes_by_series(panel, sentinels)), (), panel.axis)


def _segments(spikes: tuple[SeriesSpikes, ...]) -> list[Segment]:
    return [segment for series_spikes in spikes for segment in series_spikes.segments]


def column_roles(
    columns: tuple[Column, ...], schema: Schema, *, explicit: set[str]
) -> tuple[ColumnRole, ...]:
    """Return the role of each column; `explicit` are the columns that the user named."""
    roles = dict.fromkeys(schema.key, "series")
    roles |= {covariate.name: _ROLE_LABELS[covariate.role] for covariate in schema.covariates}
    roles |= dict.fromkeys(schema.targets, "target") | {schema.time: "time"}
    names = {column.name for column in columns}
    reasons = dict(schema.reasons)
    is_joined = schema.series in names and set(schema.key[1:]) <= names - {schema.series}

    def role_of(column: Column) -> ColumnRole:
        name, role = column.name, roles.get(column.name, "not used")
        reason = reasons.get(name) or _KIND_LABELS.get(column.kind, column.kind)
        if role == "not used" and not name.strip():
            reason = "an index without a name"
        return ColumnRole(name, role, "named by the user" if name in explicit else reason)

    return tuple(
        role_of(column)
        for column in columns
        if not (is_joined and column.name == schema.series)
        and (column.name.strip() or column.kind != "empty")
    )


@dataclass(frozen=True)
class SeriesSpikes:
    """Spikes of one series."""

    segments: tuple[Segment, ...]
    proposal: Proposal | None
    """The range that leaves out spikes and keeps all other readings; None where there is none."""

    @property
    def n_rows(self) -> int:
        """How many readings are spikes."""
        return sum(segment.n_rows for segment in self.segments)


@dataclass(frozen=True)
class LevelShift:
    """A level that shifts for good, in the sensor's own units."""

    series: str
    time_us: int
    before: float
    after: float
    n_rows: int
    """How many rows are on the new level."""


def spikes_by_series(panel: Panel, sentinels: Segments) -> Iterator[SeriesSpikes]:
    """Yield the series with spikes. Sentinels are no spikes, nor jumps that others are told by."""
    target = panel.target.copy() if len(sentinels) else panel.target
    shifted = sentinels.value - panel.base[sentinels.series]
    for number, value in zip(sentinels.series, shifted, strict=True):
        readings = target[panel.offsets[number] : panel.offsets[number + 1]]
        readings[readings == np.float32(value)] = np.nan

    for _, part in replace(panel, target=target).blocks(BLOCK_ROWS):
        runs = find_spikes(part)
        segments = list(segments_of_runs(part, runs))
        for index in np.unique(runs.series).tolist():
            at = np.flatnonzero(runs.series == index)
            rows = [runs.begin[i] + np.arange(runs.length[i]) for i in at.tolist()]
            rows_of_series = np.concatenate(rows) - part.offsets[index]
            readings = part.of(index).astype(np.float64) + part.base[index]
            proposal = _range_without(part.names[index], readings, rows_of_series)
            yield SeriesSpikes(tuple(segments[i] for i in at.tolist()), proposal)


def _range_without(name: str, readings: Doubles, rows: Integers) -> Proposal | None:
    """Propose the range, half-way to the nearest spike, that keeps all readings but some spikes.

    None where all spikes lie within the range of the other readings.
    """
    spikes, remaining = readings[rows], np.delete(readings, rows)
    low, high = float(np.nanmin(remaining)), float(np.nanmax(remaining))
    below, above = spikes[spikes < low], spikes[spikes > high]
    n_left_out = len(below) + len(above)
    if not n_left_out:
        return None

    lowest = _between(float(below.max()), low) if len(below) else ""
    highest = _between(high, float(above.min())) if len(above) else ""
    effect = f"drops {n_left_out} of {np.isfinite(readings).sum()} readings"
    option = "--valid-range", f"{name}={lowest}:{highest}"
    return Proposal(option, "if they are wrong", effect)


def _between(low: float, high: float) -> str:
    """Format a number close to the middle of two others with as few digits as it needs."""
    middle = (low + high) / 2
    for n_digits in range(1, 17):
        rounded = float(f"{middle:.{n_digits}g}")
        if low < rounded < high:
            return f"{rounded:.15g}"
    return f"{middle!r}"


def find_level_shifts(panel: Panel, stats: SeriesStats) -> Iterator[LevelShift]:
    """Yield the series whose level shifts for good."""
    # Only series whose first and last readings are as far apart as two levels are searched.
    distance = np.zeros(panel.n_series)
    for first, part in panel.blocks(BLOCK_ROWS):
        begin, end = part.offsets[:-1], part.offsets[1:]
        n = np.maximum((_END_SHARE * part.lengths).astype(np.int64), 1)
        means = _means(part, begin, begin + n), _means(part, end - n, end)
        distance[first : first + part.n_series] = np.abs(means[0] - means[1])
    may_shift = ~(distance <= _SHIFT_FACTOR * stats.std)  # an unknown distance may be a shift

    for i in np.flatnonzero(may_shift).tolist():
        change = find_changepoint(panel.of(i))
        if change is not None:
            base, time_us = float(panel.base[i]), int(panel.start[i]) + change.row * panel.step_us
            n_rows = int(panel.lengths[i]) - change.row
            before, after = change.before + base, change.after + base
            yield LevelShift(panel.names[i], time_us, before, after, n_rows)


def _means(part: Panel, begin: Integers, end: Integers) -> Doubles:
    """Return the mean of the readings in rows `[begin, end)`, `(series,)`; NaN without any."""
    is_observed = np.isfinite(part.target)
    sums = np.cumsum(np.where(is_observed, part.target, 0.0), dtype=np.float64)
    counts = np.cumsum(is_observed)
    sums, counts = (np.concatenate([np.zeros(1), x]) for x in (sums, counts))
    with np.errstate(invalid="ignore"):
        means: Doubles = (sums[end] - sums[begin]) / (counts[end] - counts[begin])
    return means


def find_counters(panel: Panel) -> Integers:
    """Return the series that only rise, but for resets, as meters do.

    A hundred steps without a fall are no chance. What rises like time (row numbers, days), along
    one curve (a tank that warms up), or in a few steps, does not count anything.
    """
    candidates: list[int] = []
    for first, part in panel.blocks(BLOCK_ROWS):
        falls = np.append(0, np.cumsum(part.target[1:] < part.target[:-1]))
        begin, end = part.offsets[:-1], part.offsets[1:]
        is_long = end - begin > _MIN_COUNTS
        n_falls = np.zeros(part.n_series, np.int64)
        n_falls[is_long] = (falls[end[is_long] - 1] - falls[begin[is_long]]).astype(np.int64)
        is_rising = is_long & (n_falls <= _MAX_RESET_SHARE * (end - begin) + _MAX_RESETS)
        candidates += (first + np.flatnonzero(is_rising)).tolist()
    judged = candidates[:_MAX_JUDGED]
    counters = [i for i in judged if _counts(panel.of(i).astype(np.float64) + panel.base[i])]
    # of very many series that rise, the others are as those that were looked at
    more = candidates[_MAX_JUDGED:] if len(counters) == len(judged) else []
    return np.array(counters + more, np.int64)


def _counts(readings: Doubles) -> bool:
    """Tell whether readings, `(row,)` with NaN for missing, are the counts of a meter."""
    rows = np.flatnonzero(np.isfinite(readings))
    counts = readings[rows]
    if len(counts) <= _MIN_COUNTS or counts.min() < 0:
        return False
    counted = count_increments(counts, rows, np.zeros(len(rows), np.int64))
    n_resets = counted.n_resets + counted.n_rollovers
    is_plain = counted.n_falls <= 1 and n_resets <= max(_MAX_RESETS, _MAX_RESET_SHARE * len(rows))
    increment = counted.increment[counted.is_kept]
    row = rows[counted.is_kept][np.isfinite(increment)]
    increment = increment[np.isfinite(increment)]
    rises = np.flatnonzero(increment > 0)
    growth = float(increment.sum())
    if (
        not is_plain
        or len(rises) < _MIN_RISES * (n_resets + 1)
        or increment.max() > _MAX_RISE * growth
    ):
        return False

    # days and weeks rise by one at equal distances; other clocks, and row numbers, along a line
    spacing, heights = np.diff(row[rises]), increment[rises]
    is_equal = np.abs(spacing - np.median(spacing)) <= 1  # a line that was rounded, too
    if is_equal.mean() > _USUALLY and np.ptp(heights) < 1e-3 * heights.max():
        return False
    total, smallest = np.cumsum(increment), float(heights.min())
    n_blocks = len(total) // _LINE_ROWS
    values = total[: n_blocks * _LINE_ROWS].reshape(n_blocks, _LINE_ROWS)
    times = row[: n_blocks * _LINE_ROWS].reshape(n_blocks, _LINE_ROWS)
    height, width = values[:, -1:] - values[:, :1], times[:, -1:] - times[:, :1]
    line = values[:, :1] + height * (times - times[:, :1]) / width
    is_line = np.abs(values - line).max(1) <= np.maximum(0.6 * smallest, 1e-3 * height[:, 0])
    if is_line.mean() > _USUALLY:
        return False

    # along a curve, parts of the series grow more and more, or less and less, or first this
    parts = np.diff(
        np.interp(np.linspace(0, 1, _N_PARTS + 1), np.linspace(0, 1, len(total)), total)
    )
    changes = np.diff(parts)
    turns = np.sign(changes[np.abs(changes) > 1.5 * smallest])  # less may come from rounding
    return bool(np.count_nonzero(np.diff(turns)) > 1) or _adds_up_noise(counts, increment)


def _adds_up_noise(counts: Doubles, increment: Doubles) -> bool:
    """Tell whether large whole numbers rise by increments that vary independently of each other.

    Of readings with noise along a curve, an increment that is too large is followed by one that is
    too small: what varies is the reading, and not what is added to it.
    """
    if (counts != np.rint(counts)).any() or np.median(increment) < _MIN_LARGE:
        return False
    local = np.convolve(increment, np.ones(_LOCAL) / _LOCAL, "valid")
    noise = increment[_LOCAL // 2 : len(increment) - _LOCAL // 2] - local
    is_noisy = noise.std() >= _MIN_NOISE * increment.mean()
    correlation = np.mean(noise[1:] * noise[:-1]) / max(noise.var(), 1e-300)
    return bool(is_noisy and correlation > _MIN_CORRELATION)


def find_directions(panel: Panel) -> Integers:
    """Return the series of degrees that go from 360 to 0 and back where a vane turns through north.

    Or from 180 to -180, through south. Their readings lie within such a turn, and jump between both
    ends more often than by half of it; across the end they change as elsewhere. A load that is
    switched on and off does not.
    """
    directions: list[int] = []
    for first, part in panel.blocks(BLOCK_ROWS):
        nonempty = np.flatnonzero(part.lengths > 0)
        begin, base = part.offsets[:-1][nonempty], part.base[nonempty]
        low = np.fmin.reduceat(part.target, begin) + base
        high = np.fmax.reduceat(part.target, begin) + base
        turn_begin = np.where(low < 0, -_TURN / 2, 0.0)
        with np.errstate(invalid="ignore"):
            is_within = (low >= turn_begin) & (high <= turn_begin + _TURN)
            may_turn = is_within & (high - low > 0.75 * _TURN)
        for i, at in zip(nonempty[may_turn].tolist(), turn_begin[may_turn], strict=True):
            if _turns(part.of(i) + part.base[i] - at):
                directions.append(first + i)
    return np.array(directions, np.int64)


def _turns(readings: Doubles) -> bool:
    """Tell whether readings between 0 and 360, `(row,)` with NaN for missing, are directions."""
    degrees = readings[np.isfinite(readings)]
    change = np.abs(np.diff(degrees))
    turn = np.minimum(change, _TURN - change)
    is_jump = change > 0.75 * _TURN
    n_jumps = int(np.count_nonzero(is_jump))
    n_between = int(np.count_nonzero(change > 0.25 * _TURN)) - n_jumps
    if n_jumps < _MIN_TURNS or n_between > n_jumps:
        return False

    values = np.unique(degrees)
    gap = float(values[0] + _TURN - values[-1])
    if gap > max(_MAX_GAP_AT_NORTH, 1.01 * float(np.diff(values).min())):
        return False
    usual = turn[~is_jump & (turn > 0)]
    return bool(len(usual) and np.median(turn[is_jump]) <= _TURN_FACTOR * np.median(usual))


def warn_of_columns(
    panel: Panel, targets: Sequence[str], config: DataConfig, listener: Listener, *, is_long: bool
) -> None:
    """Warn of series that are counters, and of directions, unless the user has said so.

    Of a long table, a column is proposed where all of its series are of that kind.
    """
    column_of = list(panel.names)
    if is_long:
        target = targets[0] if len(targets) == 1 else None
        column_of = [target or target_of(name, targets) for name in panel.names]

    def warn(
        code: str,
        problem: str,
        series: Integers,
        known: Collection[str],
        option: str,
        rule: str = "",
    ) -> None:
        unknown = [i for i in series.tolist() if column_of[i] not in known]
        n_series, n_unknown = Counter(column_of), Counter(column_of[i] for i in unknown)
        columns = [column for column, n in n_unknown.items() if n == n_series[column]]
        condition = "if it is one" if len(columns) == 1 else "if they are"
        options = option_for_each(option, [f"{column}{rule}" for column in columns])
        warn_of_names(
            code,
            problem,
            [panel.names[i] for i in unknown],
            listener,
            proposals=(Proposal(options, condition),) if columns else (),
            hint=None if columns else "if they are, read them from a separate table",
        )

    counters, problem = find_counters(panel), "increases like a counter"
    warn("counter", problem, counters, config.counter, "--counter")

    known_angles = [name for name, rule in config.agg_by_column.items() if rule == ANGLE]
    problem = "a direction that wraps around; averages and forecasts near north are wrong"
    warn("direction", problem, find_directions(panel), known_angles, "--agg", f"={ANGLE}")


def warn_of_one_sensor(panel: Panel, listener: Listener) -> None:
    """Warn of series of a long table that may be one sensor under several names.

    They are spelled alike and never have a reading at the same time, or one takes over from the
    other.
    """
    if panel.n_series > _MAX_JUDGED:
        return
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(panel.names):
        groups.setdefault(_spelling(name), []).append(number)
    # of blanks and case alone tells `warn_of_similar_names`
    spelled = [g for g in groups.values() if len({_fold(panel.names[i]) for i in g}) > 1]
    similar = [repr(panel.names[i]) for g in spelled if _take_turns(panel, g) for i in g]
    hint = "if they are of one sensor, use one name"
    problem = "series names that are spelled alike, and never have readings at the same time"
    warn_of_names("similar-names", problem, similar, listener, hint=hint)

    successions = [(panel.names[a], panel.names[b]) for a, b in _successions(panel)]
    pairs = [f"{a!r} and {b!r}" for a, b in successions if _fold(a) != _fold(b)]
    new = [pair for pair in pairs if not any(name in pair for name in similar)]
    problem = "series of which the second takes over from the first"
    warn_of_names("renamed-series", problem, new, listener, hint=hint)


def warn_of_two_levels(panel: Panel, listener: Listener) -> None:
    """Warn of series whose readings are on one level at even steps, and on another at odd ones.

    Each level varies as a sensor does, by far less than both are apart. Steps of half a day are
    those of day and night, and a switch has few values.
    """
    if panel.step_us > _LONGEST_TURN_US or panel.n_series > _MAX_JUDGED:
        return
    alternating = []
    for number in range(panel.n_series):
        readings = panel.of(number, 0, min(int(panel.lengths[number]), _ROWS_OF_TURNS))
        by_two, by_one = readings[2:] - readings[:-2], np.diff(readings)
        by_two, by_one = by_two[np.isfinite(by_two)], by_one[np.isfinite(by_one)]
        if min(len(by_two), len(by_one)) < _MIN_TURN_ROWS:
            continue
        is_apart = np.median(np.abs(by_two)) <= _SAME_LEVEL * np.median(np.abs(by_one))
        signs = np.sign(by_one)
        if is_apart and np.mean(signs[1:] * signs[:-1] < 0) >= _USUALLY:
            halves = (readings[::2], readings[1::2])
            if min(len(np.unique(half[np.isfinite(half)])) for half in halves) >= _MIN_RISES:
                alternating.append(panel.names[number])
    problem = "two levels take turns from step to step, as if two sensors were in one series"
    hint = "if they are, read them apart"
    warn_of_names("two-levels", problem, alternating, listener, hint=hint)


def _fold(name: str) -> str:
    """Return a name in small letters, with single blanks."""
    return " ".join(name.split()).casefold()


def _spelling(name: str) -> str:
    """Return a name in small letters, without separators, and a number by its value."""
    if re.fullmatch(r"[-+]?\d{1,9}[.,]?\d*", name):
        return f"{float(name.replace(',', '.')):.9g}"
    text = name if name.isascii() else unicodedata.normalize("NFKC", name).translate(_LOOK_ALIKE)
    spaced = re.sub(r"[\W_]+", " ", text.casefold()).strip()
    return re.sub(r"(?<=[^\W\d]) (?=\d)", "", spaced)


def _take_turns(panel: Panel, series: Sequence[int]) -> bool:
    """Tell whether no two of some series have a reading at the same time."""
    first = panel.first_step[series] - panel.first_step[series].min()
    n_readings = np.zeros(int((first + panel.lengths[series]).max()), np.int64)
    for number, begin in zip(series, first.tolist(), strict=True):
        n_readings[begin : begin + panel.lengths[number]] += np.isfinite(panel.of(number))
    return int(n_readings.max()) <= 1


def _successions(panel: Panel) -> Iterator[tuple[int, int]]:
    """Yield series that end, and those that go on in their place.

    The second begins a step after the first ends, while no third does either but another one has
    readings before and after; and its name or its level is that of the first. Or it has the same
    readings as long as there are both.
    """
    begin, end = panel.first_step, panel.first_step + panel.lengths
    ended = np.flatnonzero((end < end.max()) & (panel.lengths >= _MIN_SUCCESSION))
    starting = np.flatnonzero((begin > begin.min()) & (panel.lengths >= _MIN_SUCCESSION))
    if max(len(ended), len(starting)) > _MAX_SUCCESSIONS:
        return
    for a, b in itertools.product(ended.tolist(), starting.tolist()):
        overlap = int(end[a] - begin[b])
        is_later = overlap >= _MIN_SUCCESSION and end[b] > end[a] and begin[a] < begin[b]
        sizes = (_MIN_SUCCESSION, overlap) if is_later else ()  # a few tell most series apart
        if sizes and all(_have_equal(panel, a, b, overlap, n) for n in sizes):
            yield a, b
        is_alone = np.count_nonzero(end == end[a]) == np.count_nonzero(begin == begin[b]) == 1
        if overlap == 0 and is_alone and ((begin < begin[b]) & (end > end[a])).any():
            length = int(panel.lengths[a])
            last = panel.of(a, length - _MIN_SUCCESSION, length) + panel.base[a]
            next_ = panel.of(b, 0, _MIN_SUCCESSION) + panel.base[b]
            is_near = abs(np.nanmedian(last) - np.nanmedian(next_)) <= np.nanstd(last)
            names = _spelling(panel.names[a]), _spelling(panel.names[b])
            if is_near or difflib.SequenceMatcher(None, *names).ratio() >= _ALIKE_NAMES:
                yield a, b


def _have_equal(panel: Panel, a: int, b: int, overlap: int, n: int) -> bool:
    """Tell whether the newest n of the common readings of two series are equal, and vary."""
    length = int(panel.lengths[a])
    first = panel.of(a, length - n, length) + panel.base[a]
    second = panel.of(b, overlap - n, overlap) + panel.base[b]
    return np.array_equal(first, second, equal_nan=True) and len(np.unique(first)) > n // 4
