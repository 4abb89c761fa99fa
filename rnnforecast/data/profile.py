"""Profile of a table: the role of each column, statistics and findings of each series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.panel import Panel
from rnnforecast.data.quality import (
    BLOCK_ROWS,
    Segment,
    SeriesStats,
    count_missing,
    describe,
    find_changepoint,
    find_quality_issues,
    find_spikes,
    segments_of_runs,
)
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.schema import Schema
from rnnforecast.data.season import infer_season
from rnnforecast.data.timestamps import format_timestamp
from rnnforecast.data.windows import make_past
from rnnforecast.events import Listener, ProgressEvent, WarningEvent, ignore
from rnnforecast.sources.columns import Column
from rnnforecast.sources.sniff import shell_quote

_ROLE_LABELS = {"known": "known ahead", "past": "known up to now", "static": "static"}
_KIND_LABELS = {"number": "holds numbers", "time": "holds times", "text": "holds text"}
_MAX_LISTED = 5
"""Findings that a warning lists."""
_MAX_OWN_SEASONS = 256
"""With more series than these, one season is found for all of them."""
_MIN_SPIKE_ROWS = 24
"""A shorter series does not show what its usual readings are."""
_END_SHARE = 0.1
"""Share of a series that is its beginning, or its end, when their means are compared."""
_SHIFT_FACTOR = 1.5
"""Standard deviations between both ends of a series whose level may shift.

Two levels of equal length are two standard deviations apart.
"""


@dataclass(frozen=True)
class Finding:
    """Suspect readings of one series."""

    code: str
    series: str
    message: str
    count: int
    """How many readings are suspect."""
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
    season: Integers
    """In steps; 1 where none is found."""
    findings: tuple[Finding, ...]
    sentinels: tuple[float, ...]
    """Values that seem to mean a missing reading."""
    warnings: tuple[WarningEvent, ...]
    """Of spikes and of level shifts."""


def profile_panel(panel: Panel, tz: str | None, listener: Listener = ignore) -> Profile:
    """Profile all series of a panel."""
    stats = describe(panel)
    issues = find_quality_issues(panel)
    spikes = tuple(spikes_by_series(panel, issues.sentinels))
    shifts = tuple(find_level_shifts(panel, stats))
    missing, longest_gap = count_missing(panel, tz)

    def suspect(code: str, label: str, segments: Iterable[Segment]) -> Iterator[Finding]:
        for s in segments:
            start, end = format_timestamp(s.start_us, tz), format_timestamp(s.end_us, tz)
            yield Finding(code, s.series, f"{label} {s.value:g}", s.n_rows, start, end)

    def shifted() -> Iterator[Finding]:
        end = format_timestamp(panel.end_us - panel.step_us, tz)
        for s in shifts:
            message = f"jumps from {s.before:.4g} to {s.after:.4g}"
            start = format_timestamp(s.time_us, tz)
            yield Finding("level-jump", s.series, message, s.n_rows, start, end)

    return Profile(
        panel=panel,
        missing=missing,
        longest_gap=longest_gap,
        level=stats.mean + panel.base,
        spread=stats.std,
        season=_seasons(panel, listener),
        findings=(
            *suspect("stuck-sensor", "stands at", issues.stuck),
            *suspect("sentinel", "far from all others:", issues.sentinels),
            *suspect("spike", "far from all others:", _segments(spikes)),
            *shifted(),
        ),
        sentinels=tuple(sorted({segment.value for segment in issues.sentinels})),
        warnings=tuple(_warnings(spikes, shifts, tz)),
    )


def _warnings(
    spikes: tuple[SeriesSpikes, ...], shifts: tuple[LevelShift, ...], tz: str | None
) -> Iterator[WarningEvent]:
    """Yield a warning of all spikes, and one of all level shifts."""
    if spikes:
        segments = _segments(spikes)
        examples = "; ".join(
            f"{segment.series} reads {segment.value:g} at {format_timestamp(segment.start_us, tz)}"
            for segment in segments[:_MAX_LISTED]
        ) + ", ..." * (len(segments) > _MAX_LISTED)
        bounds = [(s.series, _round(s.low), _round(s.high)) for s in spikes[:_MAX_LISTED]]
        ranges = " ".join(
            f"--valid-range {shell_quote(f'{name}={a}:{b}')}" for name, a, b in bounds
        )
        n_rows = sum(series_spikes.n_rows for series_spikes in spikes)
        subject = f"{n_rows} readings lie" if n_rows > 1 else "1 reading lies"
        message = f"{subject} far from all others: {examples}; if wrong, add  {ranges}"
        yield WarningEvent("spike", message, n_rows)

    if shifts:
        examples = "; ".join(
            f"{shift.series} from {shift.before:.4g} to {shift.after:.4g} at "
            f"{format_timestamp(shift.time_us, tz)}"
            for shift in shifts[:_MAX_LISTED]
        )
        message = f"levels jump and stay: {examples}" + ", ..." * (len(shifts) > _MAX_LISTED)
        message += "; if a unit was changed there, convert what came before, or leave it out"
        yield WarningEvent("level-jump", message, len(shifts))


def _segments(spikes: tuple[SeriesSpikes, ...]) -> list[Segment]:
    return [segment for series_spikes in spikes for segment in series_spikes.segments]


def _round(value: float) -> str:
    """Format a bound with as few digits as it needs."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def column_roles(
    columns: tuple[Column, ...], schema: Schema, *, explicit: set[str]
) -> tuple[ColumnRole, ...]:
    """Return the role of each column; `explicit` are the columns that the user named."""
    targets, key = set(schema.targets), set(schema.key)
    names = {column.name for column in columns}
    reasons = dict(schema.reasons)
    is_joined = schema.series in names and set(schema.key[1:]) <= names - {schema.series}

    def role_of(column: Column) -> ColumnRole:
        name = column.name
        if name == schema.time:
            role = "time"
        elif name in targets:
            role = "target"
        elif name in schema.covariate_names:
            role = next(_ROLE_LABELS[c.role] for c in schema.covariates if c.name == name)
        elif name in key:
            role = "series"
        else:
            role = "not used"

        reason = reasons.get(name) or _KIND_LABELS.get(column.kind, column.kind)
        return ColumnRole(name, role, "named by the user" if name in explicit else reason)

    return tuple(role_of(c) for c in columns if not (is_joined and c.name == schema.series))


def _seasons(panel: Panel, listener: Listener) -> Integers:
    past = make_past(panel)
    n_series = panel.n_series
    if n_series > _MAX_OWN_SEASONS:
        return np.full(n_series, infer_season(past), np.int64)
    seasons = np.ones(n_series, np.int64)
    for i in range(n_series):
        listener(ProgressEvent("looking for seasons", i, n_series, "series"))
        seasons[i] = infer_season(past.subset(slice(i, i + 1)))
    listener(ProgressEvent("looking for seasons", n_series, n_series, "series"))
    return seasons


@dataclass(frozen=True)
class SeriesSpikes:
    """Spikes of one series."""

    segments: tuple[Segment, ...]
    low: float
    """All other readings lie between `low` and `high`, with a margin; in the sensor's own units."""
    high: float

    @property
    def series(self) -> str:
        """The name of the series."""
        return self.segments[0].series

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


def spikes_by_series(panel: Panel, sentinels: Iterable[Segment]) -> Iterator[SeriesSpikes]:
    """Yield the series with spikes.

    Sentinels are no spikes, and series of fewer than 24 rows are skipped: they do not show what
    their usual readings are.
    """
    known = {(segment.series, np.float32(segment.value)) for segment in sentinels}
    long_enough = panel.select(np.flatnonzero(panel.lengths >= _MIN_SPIKE_ROWS))
    for _, part in long_enough.blocks(BLOCK_ROWS):
        scaling = fit_scaling(make_past(part))
        threshold = scaling.reach * scaling.scale
        runs = find_spikes(part, scaling.center, threshold)
        low, high = (scaling.center + sign * threshold + part.base for sign in (-1, 1))

        by_series: dict[int, list[Segment]] = {}
        segments = segments_of_runs(part, runs)
        for index, segment in zip(runs.series.tolist(), segments, strict=True):
            if (segment.series, np.float32(segment.value)) not in known:
                by_series.setdefault(index, []).append(segment)
        for index, spikes in by_series.items():
            yield SeriesSpikes(tuple(spikes), float(low[index]), float(high[index]))


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
