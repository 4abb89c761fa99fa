"""What `check` reports: statistics and findings for each series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnforecast.data import quality
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.panel import Panel
from rnnforecast.data.quality import (
    Figures,
    Stretch,
    find_figures,
    find_jump,
    find_oddities,
    missing_of,
    stretches_of,
)
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.schema import Schema
from rnnforecast.data.season import find_season
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.data.windows import past_of
from rnnforecast.events import Listener, Progressed, Warned, ignore
from rnnforecast.sources.columns import Column
from rnnforecast.sources.sniff import quote

_IN_WORDS = {"known": "known ahead", "past": "known up to now", "static": "static"}
_LISTED = 5
_OWN_SEASONS = 256
"""With more series than these, the season of all is each one's."""
_FEWEST_ROWS = 24
_END_SHARE = 0.1
_APART = 1.5
"""Spreads between both ends of a series that may have jumped: two levels are two spreads apart."""


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


@dataclass(frozen=True)
class Spikes:
    """Readings of one series that lie out of its reach."""

    stretches: tuple[Stretch, ...]
    low: float
    """In the sensor's own units: what the others lie between, with room to spare."""
    high: float

    @property
    def series(self) -> str:
        """The name of the series."""
        return self.stretches[0].series

    @property
    def n_rows(self) -> int:
        """How many readings they are."""
        return sum(one.n_rows for one in self.stretches)


@dataclass(frozen=True)
class Shift:
    """A level that jumps and stays, in the sensor's own units."""

    series: str
    time_us: int
    before: float
    after: float
    n_rows: int
    """How many rows follow."""


def find_spikes(panel: Panel, sentinels: Iterable[Stretch]) -> Iterator[Spikes]:
    """Give the series with spikes; a value that seems to mean a missing reading is none.

    A series of a few rows does not show what its usual readings are.
    """
    known = {(one.series, np.float32(one.value)) for one in sentinels}
    long_enough = panel.select(np.flatnonzero(panel.lengths >= _FEWEST_ROWS))
    for _, part in long_enough.blocks(quality.BLOCK_ROWS):
        scaling = fit_scaling(past_of(part))
        reach = scaling.reach * scaling.scale
        found = quality.find_spikes(part, scaling.center, reach)
        low, high = (scaling.center + sign * reach + part.base for sign in (-1, 1))
        rows = found.begin, found.begin + found.length - 1
        stretches = stretches_of(part, found.series, part.target[found.begin], found.length, rows)
        by_series: dict[int, list[Stretch]] = {}
        for series, one in zip(found.series.tolist(), stretches, strict=True):
            if (one.series, np.float32(one.value)) not in known:
                by_series.setdefault(series, []).append(one)
        for at, spikes in by_series.items():
            yield Spikes(tuple(spikes), float(low[at]), float(high[at]))


def find_shifts(panel: Panel, figures: Figures) -> Iterator[Shift]:
    """Give the series whose level jumps and stays."""
    for i in _may_have_jumped(panel, figures):
        jump = find_jump(panel.of(i))
        if jump is not None:
            base, time_us = float(panel.base[i]), int(panel.start[i]) + jump.row * panel.step_us
            n_rows = int(panel.lengths[i]) - jump.row
            name = panel.names[i]
            yield Shift(name, time_us, jump.before + base, jump.after + base, n_rows)


def _may_have_jumped(panel: Panel, figures: Figures) -> list[int]:
    """Return the series whose first and last readings lie as far apart as two levels do."""
    apart = np.zeros(panel.n_series)
    for first, part in panel.blocks(quality.BLOCK_ROWS):
        begin, end = part.offsets[:-1], part.offsets[1:]
        n = np.maximum((_END_SHARE * part.lengths).astype(np.int64), 1)
        means = _means(part, begin, begin + n), _means(part, end - n, end)
        apart[first : first + part.n_series] = np.abs(means[0] - means[1])
    may_have: list[int] = np.flatnonzero(~(apart <= _APART * figures.spread)).tolist()
    return may_have


def _means(part: Panel, begin: Integers, end: Integers) -> Doubles:
    """Return the mean of what is there between these rows of each series; NaN where nothing is."""
    seen = np.isfinite(part.target)
    sums = np.cumsum(np.where(seen, part.target, 0.0), dtype=np.float64)
    counts = np.cumsum(seen)
    sums, counts = (np.concatenate([np.zeros(1), x]) for x in (sums, counts))
    with np.errstate(invalid="ignore"):
        means: Doubles = (sums[end] - sums[begin]) / (counts[end] - counts[begin])
    return means
