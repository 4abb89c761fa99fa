"""What is in a table: its columns, and of each series the length, the gaps, the level, the season.

Apart from `schema`, which decides, and `quality`, which finds single strange readings: here all of
it is put together for somebody who wants to look before he trains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data import quality
from rnnforecast.data.columns import Column
from rnnforecast.data.figures import find_figures
from rnnforecast.data.forecast import past_of
from rnnforecast.data.oddities import Stretch, find_oddities
from rnnforecast.data.panel import Doubles, Integers, Panel
from rnnforecast.data.schema import Schema
from rnnforecast.data.season import find_season
from rnnforecast.data.stamps import format_stamp
from rnnforecast.events import Listener, Progressed, ignore

_IN_WORDS = {"known": "known ahead", "past": "known up to now", "static": "static"}
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


def survey(panel: Panel, tz: str | None, listener: Listener = ignore) -> Survey:
    """Look at all series of a panel."""
    figures = find_figures(panel)
    odd = find_oddities(panel)
    return Survey(
        panel=panel,
        missing=panel.lengths - figures.n_seen,
        longest_gap=quality.longest_gaps(panel),
        level=figures.mean + panel.base,
        spread=figures.spread,
        season=_seasons(panel, listener),
        findings=(
            *(_finding("stuck-sensor", "stands at", one, tz) for one in odd.stuck),
            *(_finding("sentinel", "far from all others:", one, tz) for one in odd.sentinels),
        ),
        sentinels=tuple(sorted({one.value for one in odd.sentinels})),
    )


def _finding(code: str, what: str, one: Stretch, tz: str | None) -> Finding:
    start, end = format_stamp(one.start_us, tz), format_stamp(one.end_us, tz)
    return Finding(code, one.series, f"{what} {one.value:g}", one.n_rows, start, end)


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
        elif name in schema.covariate_names:
            role = next(_IN_WORDS[c.role] for c in schema.covariates if c.name == name)
        else:
            role = "not used"
        return Role(name, role, "named by the user" if name in given else why)

    return tuple(role_of(column) for column in columns)


def _seasons(panel: Panel, listener: Listener) -> Integers:
    past = past_of(panel)
    n_series = panel.n_series
    if n_series > _OWN_SEASONS:
        return np.full(n_series, find_season(past), np.int64)
    seasons = np.ones(n_series, np.int64)
    for i in range(n_series):
        listener(Progressed("looking for seasons", i, n_series, "series"))
        seasons[i] = find_season(past.subset(slice(i, i + 1)))
    listener(Progressed("looking for seasons", n_series, n_series, "series"))
    return seasons
