"""Rows onto a regular grid: duplicates, aggregation, counters, covariates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, offsets_of
from rnnforecast.data.features import numbers_of, once_a_series, renumber, warn_of_unknown
from rnnforecast.data.panel import Covariates, Panel, covariates_of
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.files import in_threads
from rnnforecast.sources.sniff import quote
from rnnforecast.sources.source import Source

Readings = NDArray[np.floating[Any]]
"""float32, or doubles where counts of meters need them."""
ONCE = "once"
"""The rule for a table that has one reading on each step at most."""
_HOUR_US = 3_600_000_000
_SUNDAY = 6
Flags = NDArray[np.bool_]
_ANEW = 0.5
"""A count that falls below this share of the one before has begun anew; others are mistakes."""


def place_rows(
    rows: Rows, grid: Grid, source: Source, schema: Schema, config: DataConfig, listener: Listener
) -> Panel:
    """Scatter the rows onto the grid, one target at a time; its chunks go as it is done.

    Of several readings on one step, `--agg` or `--on-duplicate` say which counts; where neither
    does, readings that differ raise `DataError`, and so do values that stand beside them.
    """
    parts = parts_of(rows, find_places(rows, grid), grid, source, config, listener)
    places, how = parts[0].places, parts[0].how
    n_grid, n_targets = int(grid.lengths.sum()), len(rows.values)
    covariates = place_covariates(rows, parts, grid, source, schema, config, listener)
    spots = [spot(place) for place in places] if how == ONCE else []
    target = np.empty(n_grid * n_targets, np.float32)  # memory is taken as chunks give theirs up
    for i, name in enumerate(schema.targets):
        chunks, rows.values[i] = parts[0].of(rows.values[i]), []
        own = target[i * n_grid : (i + 1) * n_grid]
        is_counter = name in config.counter  # counts need more digits than their differences
        into = np.empty(n_grid, np.float64) if is_counter else own
        into.fill(np.nan)
        if how == ONCE:
            for at, chunk in zip(spots, chunks, strict=True):
                into[at] = chunk
        else:
            base = np.repeat(rows.base[i], grid.lengths) if rows.base[i].any() else None
            write(into, places, chunks, "last" if is_counter and config.agg else how, base)
        if how == "error":
            reject_conflicts(into, parts[0], chunks, grid, source, schema, name)
        if is_counter:
            own[:] = differences(
                into.astype(np.float64, copy=False), grid.offsets[:-1], name, listener
            )
    for part in parts:
        if part.how == "error":
            n_repeats = count_repeats(part.places, n_grid)
            what = f"{n_repeats} rows repeat a time stamp with the same {part.what} and count once"
            listener(Warned("repeated-row", what, n_repeats))
    return _panel_of(target, rows, grid, covariates)


def _panel_of(target: Floats, rows: Rows, grid: Grid, covariates: Covariates | None) -> Panel:
    n_targets = len(rows.values)
    return Panel(
        target=target,
        offsets=offsets_of(np.tile(grid.lengths, n_targets)),
        start=np.tile(grid.start, n_targets),
        names=tuple(rows.names),
        step_us=grid.step_us,
        base=np.concatenate(rows.base),
        first_us=int(grid.start.min()),
        covariates=covariates,
    )


@dataclass(frozen=True)
class Grid:
    """Where each series of rows lies on the grid."""

    start: Integers
    lengths: Integers
    step_us: int

    @property
    def offsets(self) -> Integers:
        """`(series + 1,)`: where each series begins on one target's stretch of the grid."""
        return offsets_of(self.lengths)

    def time_at(self, place: int) -> int:
        """Return the time of a place on it."""
        series = int(np.searchsorted(self.offsets, place, side="right")) - 1
        return int(self.start[series] + (place - self.offsets[series]) * self.step_us)


def find_places(rows: Rows, grid: Grid) -> list[Integers]:
    """Turn the times of all rows into places on the grid; the times themselves are given up."""
    places, rows.times = rows.times, []
    first = grid.offsets[:-1] - grid.start // grid.step_us
    late = grid.start % grid.step_us

    def find(pair: tuple[Integers, NDArray[np.integer]]) -> None:
        place, codes = pair
        place -= late[codes]
        np.floor_divide(place, grid.step_us, out=place)
        place += first[codes]

    for _ in in_threads(find, zip(places, rows.codes, strict=True)):
        pass
    rows.codes = []
    return places


def spot(place: Integers) -> Integers | slice:
    """Return the places as a slice where they follow each other."""
    begin, end = int(place[0]), int(place[-1]) + 1
    is_slice = end - begin == len(place) and bool((np.diff(place) == 1).all())
    return slice(begin, end) if is_slice else place


def write(
    into: Readings,
    places: list[Integers],
    chunks: list[Floats],
    how: str,
    base: Doubles | None = None,
) -> None:
    """Write values to their places, by a rule for those that share one; missing ones never count.

    `base`, `(grid row,)`, is what the values lack: sums of several lack it as often.
    """
    if how in ("last", "error"):
        _scatter(into, places, chunks)
        return
    _aggregate(into, places, chunks, how)
    if how == "sum" and base is not None:
        _add_base_of_sums(into, places, chunks, base)


def _scatter(into: Readings, places: list[Integers], chunks: list[Floats]) -> None:
    """Write each reading to its place; a missing one never overwrites, and the last one stays."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = np.isfinite(chunk)
        into[place[seen]] = chunk[seen]


def _aggregate(into: Readings, places: list[Integers], chunks: list[Floats], how: str) -> None:
    """Make one reading of those on each step: their mean, sum, min or max; missing ones apart."""
    place = np.concatenate(places)
    value = np.concatenate(chunks).astype(np.float64)
    seen = np.isfinite(value)
    place, value = place[seen], value[seen]
    if how in ("min", "max"):
        worst = np.inf if how == "min" else -np.inf
        result = np.full(len(into), worst)
        (np.minimum if how == "min" else np.maximum).at(result, place, value)
        into[:] = np.where(np.isfinite(result), result, np.nan)
        return
    sums = np.bincount(place, weights=value, minlength=len(into))
    counts = np.bincount(place, minlength=len(into))
    with np.errstate(invalid="ignore"):
        into[:] = np.where(counts > 0, sums / (counts if how == "mean" else 1), np.nan)


def _add_base_of_sums(
    into: Readings, places: list[Integers], chunks: list[Floats], base: Doubles
) -> None:
    """Add to each sum the bases, `(grid row,)`, that its readings lack; one stays subtracted."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = place[np.isfinite(chunk)]
        np.add.at(into, seen, base[seen])
    into -= base


@dataclass(frozen=True)
class Part:
    """The rows of one file, among all, and what to do where several of them fall on one step."""

    name: str
    what: str
    """What messages call that which it holds."""
    first_row: int
    places: list[Integers]
    how: str

    def of(self, chunks: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return its rows of a column, as views."""
        return _cut(chunks, self.first_row, self.first_row + sum(map(len, self.places)))


def parts_of(
    rows: Rows,
    places: list[Integers],
    grid: Grid,
    source: Source,
    config: DataConfig,
    listener: Listener,
) -> tuple[Part, ...]:
    """Return the rows of the readings, and then those of a plan where there is one."""
    n_rows = sum(map(len, places))
    n_readings = n_rows - rows.n_planned
    own = _cut(places, 0, n_readings)
    rule = rule_for_repeats(own, grid, config, listener)
    readings = Part(source.name, "readings", 0, own, rule)
    if not rows.n_planned:
        return (readings,)
    ahead = _cut(places, n_readings, n_rows)
    rule = rule_for_repeats(ahead, grid, config, listener)
    return readings, Part(rows.plan, "values", n_readings, ahead, rule)


def _cut(chunks: Sequence[NDArray[Any]], first: int, end: int) -> list[NDArray[Any]]:
    """Return the rows from `first` to before `end`, counted over all chunks."""
    found, n_before = [], 0
    for chunk in chunks:
        rows = chunk[max(first - n_before, 0) : max(end - n_before, 0)]
        n_before += len(chunk)
        if len(rows):
            found.append(rows)
    return found


def rule_for_repeats(
    places: list[Integers], grid: Grid, config: DataConfig, listener: Listener
) -> str:
    """Return what to do with several readings on one step, or that there are none."""
    n_repeats = count_repeats(places, int(grid.lengths.sum()))
    if not n_repeats:
        return ONCE
    how = config.agg or config.on_duplicate
    back_to = _set_back_to(places, n_repeats, grid) if how == "error" else None
    if back_to is None:
        return how
    message = f"the clock was set back by an hour: {n_repeats} time stamps occur twice, the first "
    message += f"{format_stamp(grid.time_at(back_to), None)}, and the later reading counts; to use "
    message += "both where they are an hour of their own, name the zone with  --tz"
    listener(Warned("clock-set-back", message, n_repeats))
    return "last"


def count_repeats(places: list[Integers], n_grid: int) -> int:
    """Return how many rows there are more than places that they fall on."""
    taken = np.zeros(n_grid, np.bool_)
    for place in places:
        taken[place] = True
    return sum(map(len, places)) - int(np.count_nonzero(taken))


def _set_back_to(places: list[Integers], n_repeats: int, grid: Grid) -> int | None:
    """Return the first place to which a clock went back; None unless all repeats are whole hours.

    One reading an hour shows only a repeated stamp, which may be anything: there the day and the
    hour must be those of a change. Readings less often cannot show it.
    """
    hour = _HOUR_US // grid.step_us
    place = np.concatenate(places)
    jumps = np.diff(place)
    back = jumps[jumps <= 0]
    if hour < 1 or (back != 1 - hour).any() or n_repeats != hour * len(back):
        return None
    repeated = place[1:][jumps <= 0].tolist()
    if hour > 1 or all(_may_be_end_of_summer_time(grid.time_at(one)) for one in repeated):
        return int(repeated[0])
    return None


def reject_conflicts(
    into: Readings,
    part: Part,
    chunks: list[Floats],
    grid: Grid,
    source: Source,
    schema: Schema,
    column: str,
) -> None:
    """Raise `DataError` where a value of a file's rows differs from the one that was placed."""
    what = "readings" if column in schema.targets else "values"
    n_before = 0
    for place, chunk in zip(part.places, chunks, strict=True):
        differs = np.isfinite(chunk) & (into[place] != chunk)
        if differs.any():
            row = int(np.argmax(differs))
            other = _other_row(part.places, chunks, int(place[row]), n_before + row)
            location = source.location(part.first_row + n_before + row, schema.time)
            also = source.location(part.first_row + other, schema.time).line
            raise DataError(
                f"two different {what} of {column!r} at one time",
                code="duplicate-time",
                location=replace(location, also_lines=(also,) if also else ()),
                hint=_hint_for_conflicts(source, schema, grid.time_at(int(place[row]))),
            )
        n_before += len(chunk)


def _other_row(places: list[Integers], chunks: list[Floats], place: int, row: int) -> int:
    """Return the last row, counted over all chunks, with a reading at this place, but not `row`."""
    there = [(own == place) & np.isfinite(c) for own, c in zip(places, chunks, strict=True)]
    rows = np.flatnonzero(np.concatenate(there))
    return int(rows[rows != row][-1])


def _hint_for_conflicts(source: Source, schema: Schema, time_us: int) -> str:
    hint = "say which counts, with  --on-duplicate last  or  --on-duplicate mean"
    if _may_be_end_of_summer_time(time_us):
        hint += " ; if a clock was set back there, say its zone, such as  --tz Europe/Berlin"
    used = (schema.time, *schema.covariate_names)
    texts = [c.name for c in source.columns if c.kind == "text" and c.name not in used]
    if schema.series or not texts:
        return hint
    return f"if column {texts[0]!r} names the series, add  --series {quote(texts[0])} ; else {hint}"


def _may_be_end_of_summer_time(time_us: int) -> bool:
    """Tell whether clocks are set back somewhere at this time: in the first hours of a Sunday."""
    time = datetime(1970, 1, 1) + timedelta(microseconds=time_us)
    return time.weekday() == _SUNDAY and time.hour <= 3 and time.month in (3, 4, 9, 10, 11)


def place_covariates(
    rows: Rows,
    parts: tuple[Part, ...],
    grid: Grid,
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
) -> Covariates | None:
    """Scatter what stands beside the readings onto the grid; None if nothing does.

    Each column is one feature; of texts it holds the numbers, until `features` tells them apart.
    Raises `DataError` where a file gives two values of one time, and no rule says which counts.
    """
    if not schema.covariates:
        return None
    columns: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    is_ahead = _is_ahead(rows, parts[0], grid) if len(parts) > 1 else None
    contradicted: list[str] = []
    for covariate in schema.covariates:
        chunks = _numbers(rows, parts, covariate, schema, listener)
        placed = _placed(parts[0], chunks, covariate, grid, source, schema)
        if is_ahead is not None:
            plan = _placed(parts[1], chunks, covariate, grid, source, schema)
            if config.agg is not None and not covariate.is_text:
                whole = _aggregated(parts, chunks, grid, _rule_beside(config.agg, covariate))
                placed = np.where(is_ahead, _planned(plan, placed), whole)
            else:
                contradicted += [covariate.name] * _is_contradicted(plan, placed, is_ahead)
                placed = _planned(plan, placed)
        if covariate.role == "static":
            placed = once_a_series(covariate, placed, grid.offsets, rows.names)
        columns[covariate.role].append(placed)
    if contradicted:
        what = f"{parts[1].name} differs from the values beside the readings, and counts there"
        listener(Warned.naming("plan-differs", what, contradicted))
    names = {role: tuple(c.name for c in schema.covariates if c.role == role) for role in columns}
    return covariates_of(columns, names, grid.offsets, len(rows.values))


def _numbers(
    rows: Rows, parts: tuple[Part, ...], covariate: Covariate, schema: Schema, listener: Listener
) -> list[Floats]:
    """Take a column's chunks from the rows; texts become the numbers of what they say."""
    chunks = rows.covariates.pop(covariate.name)
    if not covariate.is_text:
        return chunks
    texts = rows.texts[covariate.name]
    for part in parts if schema.step_us is not None else ():
        warn_of_unknown(covariate, texts, part.of(chunks), part.name, listener)
    numbers = numbers_of(covariate, texts)
    return [renumber(chunk, numbers) for chunk in chunks]


def _placed(
    part: Part,
    chunks: list[Floats],
    covariate: Covariate,
    grid: Grid,
    source: Source,
    schema: Schema,
) -> Floats:
    """Put the values of one file onto the grid, `(place,)`; NaN where it has none."""
    placed = np.full(int(grid.lengths.sum()), np.nan, np.float32)
    own = part.of(chunks)
    how = _rule_beside(part.how, covariate)
    write(placed, part.places, own, how)
    if how == "error":
        reject_conflicts(placed, part, own, grid, source, schema, covariate.name)
    return placed


def _rule_beside(how: str, covariate: Covariate) -> str:
    """Return the rule for what stands beside: a text has no mean, and a sum would mean nothing."""
    if how == ONCE or (covariate.is_text and how != "error"):
        return "last"
    return "mean" if how == "sum" else how


def _aggregated(parts: tuple[Part, ...], chunks: list[Floats], grid: Grid, how: str) -> Floats:
    """Put the values of all files together on each step, `(place,)`."""
    whole = np.full(int(grid.lengths.sum()), np.nan, np.float32)
    places = [place for part in parts for place in part.places]
    write(whole, places, [own for part in parts for own in part.of(chunks)], how)
    return whole


def _planned(plan: Floats, placed: Floats) -> Floats:
    """Let the plan have the last word where it says something."""
    value: Floats = np.where(np.isfinite(plan), plan, placed)
    return value


def _is_contradicted(plan: Floats, placed: Floats, is_ahead: Flags) -> bool:
    """Tell whether the plan says something else at a time that has passed."""
    is_both = np.isfinite(plan) & np.isfinite(placed)
    return bool((is_both & (plan != placed) & ~is_ahead).any())


def _is_ahead(rows: Rows, readings: Part, grid: Grid) -> Flags:
    """`(place,)`: which places lie after the last reading of their series."""
    is_seen = np.zeros(int(grid.lengths.sum()), np.bool_)
    for values in rows.values:
        for place, chunk in zip(readings.places, readings.of(values), strict=True):
            is_seen[place[np.isfinite(chunk)]] = True
    seen = np.flatnonzero(is_seen)
    found = np.searchsorted(seen, grid.offsets[1:]) - 1
    last = np.append(seen, -1)[found]  # of a series without any, one before its own
    places: Flags = np.arange(len(is_seen)) > np.repeat(last, grid.lengths)
    return places


def differences(counts: Doubles, starts: Integers, name: str, listener: Listener) -> Floats:
    """Return what was counted in each step, `(row,)`, of counts on a grid.

    A meter that begins anew has counted what it shows. A step is missing where it or the one before
    is, at the start of a series, and where a count is a little smaller than the one before.
    """
    steps = np.diff(counts, prepend=np.nan)
    steps[starts[starts < len(steps)]] = np.nan
    before = np.concatenate([[np.nan], counts[:-1]])
    falls = steps < 0
    is_anew = falls & (counts >= 0) & (counts < _ANEW * before)
    steps[is_anew] = counts[is_anew]
    is_mistake = falls & ~is_anew
    steps[is_mistake] = np.nan
    for code, what, which in (
        ("counter-reset", "began anew", is_anew),
        (
            "counter-fall",
            "fell a little, so that those steps are missing,",
            is_mistake,
        ),
    ):
        count = int(np.count_nonzero(which))
        if count:
            listener(Warned(code, f"counter {name!r} {what} {count} times", count))
    found: Floats = steps.astype(np.float32)
    return found
