"""Each row to its place on the grid: the step it falls on, and which reading counts there.

Between `rows`, which knows files, and `panel`. It takes regular times as given: `timegrid` has
moved them onto the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.counters import differences
from rnnforecast.data.covariates import Covariates
from rnnforecast.data.dialect import quote
from rnnforecast.data.features import features_of, once_a_series, tracks_of
from rnnforecast.data.panel import Doubles, Floats, Integers, Panel, offsets_of, pick, stretches
from rnnforecast.data.reading import Source
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.data.threads import in_threads
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Warned

_HOUR_US = 3_600_000_000
_SUNDAY = 6
_ONCE = "once"
"""The rule for a table that has one reading on each step at most."""


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


def place_rows(
    rows: Rows, grid: Grid, source: Source, schema: Schema, config: DataConfig, listener: Listener
) -> Panel:
    """Scatter the rows onto the grid, one target at a time; its chunks go as it is done.

    Of several readings on one step, `--agg` or `--on-duplicate` say which counts; where neither
    does, readings that differ raise `DataError`.
    """
    places = _find_places(rows, grid)
    n_grid, n_targets = int(grid.lengths.sum()), len(rows.values)
    how = _rule_for_repeats(places, grid, config, listener)
    covariates = _place_covariates(rows, places, grid, schema, config)
    spots = [_spot(place) for place in places] if how == _ONCE else []
    target = np.empty(n_grid * n_targets, np.float32)  # memory is taken as chunks give theirs up
    for i in range(n_targets):
        chunks, rows.values[i] = rows.values[i], []
        into = target[i * n_grid : (i + 1) * n_grid]
        if schema.targets[i] in config.counter:
            into = np.full(n_grid, np.nan)  # counts need more digits than their differences
        else:
            into.fill(np.nan)
        if how == _ONCE:
            for spot, chunk in zip(spots, chunks, strict=True):
                into[spot] = chunk
        elif how in ("last", "error"):
            _scatter(into, places, chunks)
        else:
            _aggregate(into, places, chunks, how)
            if how == "sum" and rows.base[i].any():
                _add_base_of_sums(into, places, chunks, np.repeat(rows.base[i], grid.lengths))
        if how == "error":
            _reject_conflicts(into, places, chunks, grid, source, schema, schema.targets[i])
        if schema.targets[i] in config.counter:
            counted = differences(
                into.astype(np.float64), grid.offsets[:-1], schema.targets[i], listener
            )
            target[i * n_grid : (i + 1) * n_grid] = counted
    if how == "error":
        n_repeats = _count_repeats(places, n_grid)
        what = f"{n_repeats} rows repeat a time stamp with the same readings and count once"
        listener(Warned("repeated-row", what, n_repeats))
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


def _place_covariates(
    rows: Rows, places: list[Integers], grid: Grid, schema: Schema, config: DataConfig
) -> Covariates | None:
    """Scatter what stands beside the readings onto the grid, as features; None if nothing does."""
    if not schema.covariates:
        return None
    features: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    names: dict[str, list[str]] = {"known": [], "past": [], "static": []}
    for covariate in schema.covariates:
        chunks = rows.covariates.pop(covariate.name)
        placed = np.full(int(grid.lengths.sum()), np.nan, np.float32)
        if config.agg and config.agg != "last" and not covariate.is_text:
            _aggregate(placed, places, chunks, config.agg)
        else:
            _scatter(placed, places, chunks)
        if covariate.role == "static":
            placed = once_a_series(covariate, placed, grid.offsets, rows.names)
        found, called = features_of(covariate, placed, rows.texts.get(covariate.name, []))
        features[covariate.role].append(found)
        names[covariate.role] += called
    return tracks_of(features, names, grid.offsets, len(rows.values))


def _find_places(rows: Rows, grid: Grid) -> list[Integers]:
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


def _spot(place: Integers) -> Integers | slice:
    """Return the places as a slice where they follow each other."""
    begin, end = int(place[0]), int(place[-1]) + 1
    is_slice = end - begin == len(place) and bool((np.diff(place) == 1).all())
    return slice(begin, end) if is_slice else place


def _rule_for_repeats(
    places: list[Integers], grid: Grid, config: DataConfig, listener: Listener
) -> str:
    """Return what to do with several readings on one step, or that there are none."""
    n_repeats = _count_repeats(places, int(grid.lengths.sum()))
    if not n_repeats:
        return _ONCE
    how = config.agg or config.on_duplicate
    if how == "error" and _was_set_back(places, n_repeats, grid):
        listener(
            Warned(
                "clock-set-back",
                f"the clock was set back by an hour: {n_repeats} time stamps occur twice, "
                "the later reading counts",
                n_repeats,
            )
        )
        return "last"
    return how


def _count_repeats(places: list[Integers], n_grid: int) -> int:
    taken = np.zeros(n_grid, np.bool_)
    for place in places:
        taken[place] = True
    return sum(map(len, places)) - int(np.count_nonzero(taken))


def _was_set_back(places: list[Integers], n_repeats: int, grid: Grid) -> bool:
    """Tell whether all repeats are whole hours that a clock went through twice.

    One reading an hour shows only a repeated stamp, which may be anything: there the day and the
    hour must be those of a change. Readings less often cannot show it.
    """
    hour = _HOUR_US // grid.step_us
    place = np.concatenate(places)
    jumps = np.diff(place)
    back = jumps[jumps <= 0]
    if hour < 1 or (back != 1 - hour).any() or n_repeats != hour * len(back):
        return False
    repeated = place[1:][jumps <= 0].tolist()
    return hour > 1 or all(_may_be_end_of_summer_time(grid.time_at(one)) for one in repeated)


def _scatter(into: Floats, places: list[Integers], chunks: list[Floats]) -> None:
    """Write each reading to its place; a missing one never overwrites, and the last one stays."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = np.isfinite(chunk)
        into[place[seen]] = chunk[seen]


def _aggregate(into: Floats, places: list[Integers], chunks: list[Floats], how: str) -> None:
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
    into: Floats, places: list[Integers], chunks: list[Floats], base: Doubles
) -> None:
    """Add to each sum the bases, `(grid row,)`, that its readings lack; one stays subtracted."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = place[np.isfinite(chunk)]
        np.add.at(into, seen, base[seen])
    into -= base


def _reject_conflicts(
    into: Floats,
    places: list[Integers],
    chunks: list[Floats],
    grid: Grid,
    source: Source,
    schema: Schema,
    column: str,
) -> None:
    n_before = 0
    for place, chunk in zip(places, chunks, strict=True):
        differs = np.isfinite(chunk) & (into[place] != chunk)
        if differs.any():
            row = int(np.argmax(differs))
            other = _other_row(places, chunks, int(place[row]), n_before + row)
            location = source.location(n_before + row, schema.time)
            also = source.location(other, schema.time).line
            raise DataError(
                f"two different readings of {column!r} at one time",
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
    texts = [c.name for c in source.columns if c.kind == "text" and c.name != schema.time]
    if schema.series or not texts:
        return hint
    return f"if column {texts[0]!r} names the series, add  --series {quote(texts[0])} ; else {hint}"


def _may_be_end_of_summer_time(time_us: int) -> bool:
    """Tell whether clocks are set back somewhere at this time: in the first hours of a Sunday."""
    time = datetime(1970, 1, 1) + timedelta(microseconds=time_us)
    return time.weekday() == _SUNDAY and time.hour <= 3 and time.month in (3, 4, 9, 10, 11)


def trim(panel: Panel, *, is_wide: bool) -> Panel:
    """Cut rows without any reading off both ends: of a wide table, or of each series.

    The sensors of a wide table share their rows, so a row stays while one sensor has a reading.
    """
    seen = np.isfinite(panel.target)
    if seen.all() or not seen.any():
        return panel
    begin, end = panel.offsets[:-1], panel.offsets[1:]
    if is_wide:
        rows = np.flatnonzero(seen.reshape(panel.n_series, -1).any(0))
        begin, end = begin + rows[0], begin + rows[-1] + 1
    else:
        rows = np.flatnonzero(seen)
        first, last = np.searchsorted(rows, begin), np.searchsorted(rows, end) - 1
        empty = last < first
        begin = np.where(empty, begin, rows[np.minimum(first, len(rows) - 1)])
        end = np.where(empty, end, rows[last] + 1)
    if (begin == panel.offsets[:-1]).all() and (end == panel.offsets[1:]).all():
        return panel
    return replace(
        panel,
        target=stretches(panel.target, begin, end),
        offsets=offsets_of(end - begin),
        start=panel.start + (begin - panel.offsets[:-1]) * panel.step_us,
        covariates=panel.covariates and panel.covariates.moved(begin - panel.offsets[:-1]),
    )


def drop_empty(
    panel: Panel, schema: Schema, config: DataConfig, source: Source, listener: Listener
) -> Panel:
    """Leave out series without any reading; raise where the user named one, or none is left.

    A stored schema keeps them: that a sensor of the model fell silent is for the forecast to say.
    """
    has_reading = np.logical_or.reduceat(np.isfinite(panel.target), panel.offsets[:-1])
    empty = pick(panel.names, ~has_reading)
    if not empty:
        return panel
    named = [name for name in empty if name in config.target]
    if schema.step_us is not None and len(empty) < panel.n_series:
        return panel
    if named or len(empty) == panel.n_series:
        raise DataError(
            f"column {(named or schema.targets)[0]!r} holds no reading",
            code="no-readings",
            hint=f"choose another target of {source.name}",
        )
    listener(Warned.naming("empty-series", "no readings, left out", empty))
    return panel.select(np.flatnonzero(has_reading))
