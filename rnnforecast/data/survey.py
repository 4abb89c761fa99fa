"""What is in a table: its columns, and of each series the length, the gaps, the level, the season.

Apart from `schema`, which decides, and `quality`, which finds single strange readings: here all of
it is put together for somebody who wants to look before he trains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data import quality
from rnnforecast.data.columns import Column
from rnnforecast.data.forecast import past_of
from rnnforecast.data.panel import Doubles, Integers, Panel
from rnnforecast.data.schema import Schema
from rnnforecast.data.season import find_season
from rnnforecast.data.stamps import format_stamp

_OWN_SEASONS = 256
"""With more series than these, the season of all is each one's."""


@dataclass(frozen=True)
class Finding:
    """Something strange about one series."""

    code: str
    series: str
    message: str
    count: int
    """How many readings."""
    start: str
    """The time of the first."""
    end: str


@dataclass(frozen=True)
class Role:
    """What a column was taken for, and why."""

    name: str
    role: str
    why: str


@dataclass(frozen=True)
class Survey:
    """All series of a table, `(series,)` each."""

    panel: Panel
    missing: Integers
    longest_gap: Integers
    level: Doubles
    """Mean, in the sensor's own units; NaN where there is no reading."""
    spread: Doubles
    """Standard deviation."""
    season: Integers
    """In steps; 1 where none is found."""
    findings: tuple[Finding, ...]
    sentinels: tuple[float, ...]
    """Values that seem to mean a missing reading."""


def survey(panel: Panel, tz: str | None) -> Survey:
    """Look at all series of a panel."""
    runs, found = quality.find_runs(panel), quality.find_sentinels(panel)
    seen = np.isfinite(panel.target)
    starts = panel.offsets[:-1]
    n_seen = np.add.reduceat(seen, starts, dtype=np.int64)
    level = quality.means(panel.target, starts)
    return Survey(
        panel=panel,
        missing=panel.lengths - n_seen,
        longest_gap=quality.longest_gaps(runs, panel.n_series),
        level=np.where(n_seen > 0, level + panel.base, np.nan),
        spread=np.where(
            n_seen > 0, quality.deviations(panel.target, starts, panel.lengths), np.nan
        ),
        season=_seasons(panel),
        findings=(*_stuck(panel, runs, tz), *_sentinels(panel, found, tz)),
        sentinels=tuple(np.unique(found.value).tolist()),
    )


def roles(columns: tuple[Column, ...], schema: Schema, *, given: set[str]) -> tuple[Role, ...]:
    """Say what each column was taken for; `given` are those that the user named."""

    def role_of(column: Column) -> Role:
        name, kind = column.name, column.kind
        why = {"number": "holds numbers", "time": "holds times", "text": "holds text"}.get(
            kind, kind
        )
        if name == schema.time:
            role = "time"
        elif name == schema.series:
            role = "series"
        elif name in schema.targets:
            role = "target"
        else:
            role = "not used"
        return Role(name, role, "named by the user" if name in given else why)

    return tuple(role_of(column) for column in columns)


def _seasons(panel: Panel) -> Integers:
    past = past_of(panel)
    if panel.n_series > _OWN_SEASONS:
        return np.full(panel.n_series, find_season(past), np.int64)
    return np.array([find_season(past.subset(slice(i, i + 1))) for i in range(panel.n_series)])


def _stuck(panel: Panel, runs: quality.Runs, tz: str | None) -> list[Finding]:
    found = quality.find_stuck(runs, panel.n_series)
    return [
        Finding(
            "stuck-sensor",
            panel.names[series],
            f"stands at {panel.target[begin] + panel.base[series]:g}",
            int(length),
            *_times(panel, int(series), int(begin), int(begin + length - 1), tz),
        )
        for begin, length, series in zip(found.begin, found.length, found.series, strict=True)
    ]


def _sentinels(panel: Panel, found: quality.Sentinels, tz: str | None) -> list[Finding]:
    findings = []
    for series, value, count in zip(found.series, found.value, found.count, strict=True):
        rows = np.flatnonzero(panel.of(series) == np.float32(value - panel.base[series]))
        first, last = (int(panel.offsets[series] + rows[i]) for i in (0, -1))
        message = f"{value:g} is far from all other readings"
        times = _times(panel, int(series), first, last, tz)
        findings.append(Finding("sentinel", panel.names[series], message, int(count), *times))
    return findings


def _times(panel: Panel, series: int, first: int, last: int, tz: str | None) -> tuple[str, str]:
    """Format the times of two of the panel's rows."""
    start, offset = int(panel.start[series]), int(panel.offsets[series])
    us = (start + (row - offset) * panel.step_us for row in (first, last))
    begin, end = (format_stamp(time, tz) for time in us)
    return begin, end
