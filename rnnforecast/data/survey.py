"""What is in a table: its columns, and of each series the length, the gaps, the level, the season.

Apart from `schema`, which decides, and `quality`, which finds single strange readings: here all of
it is put together for somebody who wants to look before he trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rnnforecast.data.figures import find_figures
from rnnforecast.data.oddities import Stretch, find_oddities
from rnnforecast.data.outliers import Shift, Spikes, find_shifts, find_spikes
from rnnforecast.data.panel import Doubles, Integers, Panel
from rnnforecast.data.past import past_of
from rnnforecast.data.schema import Schema
from rnnforecast.data.season import find_season
from rnnforecast.data.stamps import format_stamp
from rnnforecast.data.summertime import missing_of
from rnnforecast.events import Listener, Progressed, Warned, ignore
from rnnforecast.sources.columns import Column
from rnnforecast.sources.dialect import quote

_IN_WORDS = {"known": "known ahead", "past": "known up to now", "static": "static"}
_LISTED = 5
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
    warnings: tuple[Warned, ...]
    """Of spikes and of levels that jump."""


def survey(panel: Panel, tz: str | None, listener: Listener = ignore) -> Survey:
    """Look at all series of a panel."""
    figures = find_figures(panel)
    odd = find_oddities(panel)
    spikes = tuple(find_spikes(panel, odd.sentinels))
    shifts = tuple(find_shifts(panel, figures))
    missing, longest_gap = missing_of(panel, tz)
    return Survey(
        panel=panel,
        missing=missing,
        longest_gap=longest_gap,
        level=figures.mean + panel.base,
        spread=figures.spread,
        season=_seasons(panel, listener),
        findings=(
            *(_finding("stuck-sensor", "stands at", one, tz) for one in odd.stuck),
            *(_finding("sentinel", "far from all others:", one, tz) for one in odd.sentinels),
            *(_finding("spike", "far from all others:", one, tz) for one in _stretches(spikes)),
            *(_shift_finding(one, panel, tz) for one in shifts),
        ),
        sentinels=tuple(sorted({one.value for one in odd.sentinels})),
        warnings=(*_warnings_of_spikes(spikes, tz), *_warnings_of_shifts(shifts, tz)),
    )


def _warnings_of_spikes(spikes: tuple[Spikes, ...], tz: str | None) -> Iterator[Warned]:
    if not spikes:
        return
    stretches = _stretches(spikes)
    shown = "; ".join(
        f"{one.series} reads {one.value:g} at {format_stamp(one.start_us, tz)}"
        for one in stretches[:_LISTED]
    ) + ", ..." * (len(stretches) > _LISTED)
    bounds = [(one.series, _round(one.low), _round(one.high)) for one in spikes[:_LISTED]]
    ranges = " ".join(f"--valid-range {quote(f'{name}={a}:{b}')}" for name, a, b in bounds)
    n_rows = sum(one.n_rows for one in spikes)
    lie = f"{n_rows} readings lie" if n_rows > 1 else "1 reading lies"
    message = f"{lie} far from all others: {shown}; if wrong, add  {ranges}"
    yield Warned("spike", message, n_rows)


def _stretches(spikes: tuple[Spikes, ...]) -> list[Stretch]:
    return [stretch for one in spikes for stretch in one.stretches]


def _warnings_of_shifts(shifts: tuple[Shift, ...], tz: str | None) -> Iterator[Warned]:
    if shifts:
        shown = "; ".join(
            f"{one.series} from {one.before:.4g} to {one.after:.4g} at "
            f"{format_stamp(one.time_us, tz)}"
            for one in shifts[:_LISTED]
        )
        message = f"levels jump and stay: {shown}" + ", ..." * (len(shifts) > _LISTED)
        message += "; if a unit was changed there, convert what came before, or leave it out"
        yield Warned("level-jump", message, len(shifts))


def _shift_finding(one: Shift, panel: Panel, tz: str | None) -> Finding:
    start, end = format_stamp(one.time_us, tz), format_stamp(panel.end_us - panel.step_us, tz)
    what = f"jumps from {one.before:.4g} to {one.after:.4g}"
    return Finding("level-jump", one.series, what, one.n_rows, start, end)


def _round(value: float) -> str:
    """Write a bound with as few digits as it needs."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def _finding(code: str, what: str, one: Stretch, tz: str | None) -> Finding:
    start, end = format_stamp(one.start_us, tz), format_stamp(one.end_us, tz)
    return Finding(code, one.series, f"{what} {one.value:g}", one.n_rows, start, end)


def roles(columns: tuple[Column, ...], schema: Schema, *, given: set[str]) -> tuple[Role, ...]:
    """Say what each column was taken for; `given` are those that the user named."""
    targets = set(schema.targets)

    def role_of(column: Column) -> Role:
        name, kind = column.name, column.kind
        why = {"number": "holds numbers", "time": "holds times", "text": "holds text"}.get(
            kind, kind
        )
        if name == schema.time:
            role = "time"
        elif name == schema.series:
            role = "series"
        elif name in targets:
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
