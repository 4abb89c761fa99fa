"""Time stamps to rows of a regular grid: zones, the step, gaps, duplicates.

It takes a source's batches and a schema and gives a Panel; nothing after this validates again. Times
are microseconds since 1970, UTC for aware stamps, wall clock for naive ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.config import DataConfig, format_duration, parse_duration_us
from rnnforecast.data.columns import Column
from rnnforecast.data.panel import Floats, Integers, Panel, offsets_of
from rnnforecast.data.reading import Source
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import StampReader, Zone, localise
from rnnforecast.errors import DataError, NotEnoughDataError
from rnnforecast.events import Listener, Noted, Warned

_JITTER = 0.1
_SPARSE = 20
_STEP_SERIES = 32


@dataclass
class _Rows:
    """All rows of a source as flat chunks, in the order of the file. Chunks go as they are placed."""

    times: list[Integers]
    codes: list[NDArray[np.int32]]
    """Which series each row belongs to; all 0 for a wide table."""
    values: list[list[Floats]]
    """One list of chunks for each target."""
    names: list[str]


@dataclass(frozen=True)
class _Grid:
    """Where each series of rows lies on the grid."""

    start: Integers
    lengths: Integers
    step_us: int

    @property
    def offsets(self) -> Integers:
        return offsets_of(self.lengths)


def read_panel(
    source: Source, schema: Schema, config: DataConfig, listener: Listener
) -> tuple[Panel, Schema]:
    """Read a source onto a regular grid; return it with the schema, step and zone filled in.

    A missing reading is NaN, and so is every step without a row. Raises `DataError` for stamps that
    cannot be read, are irregular, or repeat with different readings.
    """
    rows, tz = _read_rows(source, schema, config)
    _reject_infinite(rows, source, schema)
    step_us = _find_step(rows, config)
    if config.agg:
        rows.times = [times - times % step_us for times in rows.times]
    else:
        _snap(rows, step_us, source, schema, listener)
    panel = _place(rows, _grid_of(rows, step_us, source), source, schema, config)
    panel = _trim(panel, is_wide=schema.series is None)
    panel = _drop_empty(panel, schema, config, source, listener)
    _note_gaps(panel, listener)
    targets = schema.targets if schema.series else panel.names
    return panel, replace(schema, step_us=step_us, tz=tz, targets=targets)


def check_step(panel: Panel, schema: Schema) -> None:
    """Raise `DataError` unless the readings come at the step that the model was trained on."""
    if schema.step_us is not None and panel.step_us != schema.step_us:
        expected, found = format_duration(schema.step_us), format_duration(panel.step_us)
        raise DataError(
            f"the model expects a reading every {expected}, but these come every {found}",
            code="other-step",
            hint=f"to bring them to its step, add  --freq {expected.replace(' ', '')} --agg mean",
        )


def _read_rows(source: Source, schema: Schema, config: DataConfig) -> tuple[_Rows, str | None]:
    stamps = StampReader(source, schema, Zone.of_sample(_column(source, schema.time).sample))
    wanted = {schema.time: stamps.arrow_type}
    if schema.series:
        wanted[schema.series] = pa.string()
    wanted.update({name: pa.float32() for name in schema.targets})
    rows = _Rows([], [], [[] for _ in schema.targets], [])
    known: dict[str, int] = {}
    n_before = 0
    for batch in source.batches(wanted):
        rows.times.append(stamps.read(batch.column(schema.time), n_before))
        rows.codes.append(_codes(batch, schema, known, source, n_before))
        for i, name in enumerate(schema.targets):
            rows.values[i].append(_floats(batch.column(name)))
        n_before += batch.num_rows
    rows.names = list(known) if schema.series else list(schema.targets)
    if config.tz and not stamps.zone.is_aware:
        rows.times = localise(rows.times, config.tz)
        return rows, config.tz
    return rows, stamps.zone.name


def _column(source: Source, name: str) -> Column:
    return next(column for column in source.columns if column.name == name)


def _codes(
    batch: pa.RecordBatch, schema: Schema, known: dict[str, int], source: Source, n_before: int
) -> NDArray[np.int32]:
    """Number the series of each row, in order of first appearance."""
    if schema.series is None:
        return np.zeros(batch.num_rows, np.int32)
    encoded = batch.column(schema.series).dictionary_encode()
    if encoded.null_count:
        row = int(np.flatnonzero(encoded.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"a row has no series name in column {schema.series!r}",
            code="missing-series",
            location=source.location(n_before + row, schema.series),
            hint="fill it in, or remove the row",
        )
    numbers = [known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()]
    return np.array(numbers, np.int32)[encoded.indices.to_numpy()]


def _floats(column: pa.Array) -> Floats:
    values = column.to_numpy(zero_copy_only=False)
    return np.array(values, np.float32)  # a copy: it must not hold on to the whole block


def _reject_infinite(rows: _Rows, source: Source, schema: Schema) -> None:
    for name, chunks in zip(schema.targets, rows.values, strict=True):
        n_before = 0
        for chunk in chunks:
            infinite = np.isinf(chunk)
            if infinite.any():
                raise DataError(
                    f"column {name!r} holds a value that is infinite",
                    code="infinite",
                    location=source.location(n_before + int(np.argmax(infinite)), name),
                    hint="to treat it as missing, add  --na-values inf",
                )
            n_before += len(chunk)


def _find_step(rows: _Rows, config: DataConfig) -> int:
    """The step is what the user said, or the commonest one found."""
    if config.freq:
        return parse_duration_us(config.freq)
    differences = _differences(rows)
    if not len(differences):
        raise NotEnoughDataError(
            f"{sum(map(len, rows.times))} row of readings is not enough: training needs at least "
            "lookback + horizon of them",
            code="too-short",
            hint="pass more readings",
        )
    values, counts = np.unique(differences, return_counts=True)
    step = int(values[np.argmax(counts)])
    if counts.max() < 0.5 * len(differences):
        near = np.median(differences)
        if np.mean(np.abs(differences - near) <= _JITTER * near) > 0.5:
            step = _round_step(float(near))
    return step


def _round_step(step: float) -> int:
    """Round a jittering step to the coarsest unit that changes it by less than one percent."""
    for unit in (3_600_000_000, 60_000_000, 1_000_000, 100_000, 1_000):
        rounded = round(step / unit) * unit
        if rounded and abs(rounded - step) < 0.01 * step:
            return int(rounded)
    return round(step)


def _differences(rows: _Rows) -> Integers:
    """Positive differences between neighbouring stamps, of some series."""
    if len(rows.values) > 1 or not rows.codes or max(int(c.max(initial=0)) for c in rows.codes) == 0:
        return _steps_between(np.concatenate(rows.times))
    n_series = len(rows.names)
    parts = []
    for code in np.unique(np.linspace(0, n_series - 1, _STEP_SERIES).astype(np.int32)):
        pairs = zip(rows.times, rows.codes, strict=True)
        parts.append(_steps_between(np.concatenate([t[c == code] for t, c in pairs])))
    return np.concatenate(parts)


def _steps_between(times: Integers) -> Integers:
    differences = np.diff(times)
    if (differences < 0).any():
        differences = np.diff(np.sort(times))
    return differences[differences > 0]


def _snap(
    rows: _Rows, step_us: int, source: Source, schema: Schema, listener: Listener
) -> None:
    """Move stamps that jitter a little onto the grid; raise for those far from it."""
    first = _first_times(rows)
    n_moved, n_before = 0, 0
    for i, (times, codes) in enumerate(zip(rows.times, rows.codes, strict=True)):
        base = first[codes]
        off = (times - base + step_us // 2) % step_us - step_us // 2
        far = np.abs(off) > _JITTER * step_us
        if far.any():
            raise DataError(
                f"the time stamps are not regular: most are {format_duration(step_us)} apart, "
                "this one does not fit",
                code="irregular",
                location=source.location(n_before + int(np.argmax(far)), schema.time),
                hint=f"to put the readings on a grid, add  "
                f"--freq {format_duration(step_us).replace(' ', '')} --agg mean",
            )
        n_moved += int(np.count_nonzero(off))
        n_before += len(times)
        rows.times[i] = times - off
    if n_moved:
        listener(Warned("jitter", f"{n_moved} time stamps were moved onto the grid", n_moved))


def _first_times(rows: _Rows) -> Integers:
    n_series = max((int(c.max(initial=0)) for c in rows.codes), default=0) + 1
    first = np.full(n_series, np.iinfo(np.int64).max)
    for times, codes in zip(rows.times, rows.codes, strict=True):
        np.minimum.at(first, codes, times)
    return first


def _grid_of(rows: _Rows, step_us: int, source: Source) -> _Grid:
    start = _first_times(rows)
    last = np.full(len(start), np.iinfo(np.int64).min)
    for times, codes in zip(rows.times, rows.codes, strict=True):
        np.maximum.at(last, codes, times)
    lengths = (last - start) // step_us + 1
    n_rows, n_grid = sum(map(len, rows.times)), int(lengths.sum())
    if n_grid > max(_SPARSE * n_rows, 10_000):
        raise DataError(
            f"{n_rows} rows spread over {n_grid} steps of {format_duration(step_us)}",
            code="sparse",
            hint=f"{source.name} may have a stamp far from the others; else say the step, "
            "such as  --freq 1h --agg mean",
        )
    return _Grid(start, lengths, step_us)


def _place(
    rows: _Rows, grid: _Grid, source: Source, schema: Schema, config: DataConfig
) -> Panel:
    """Scatter the rows onto the grid, one target at a time; each target's chunks go as it is done."""
    places = [
        (grid.offsets[codes] + (times - grid.start[codes]) // grid.step_us)
        for times, codes in zip(rows.times, rows.codes, strict=True)
    ]
    n_grid, n_targets = int(grid.lengths.sum()), len(rows.values)
    rows.times, rows.codes = [], []
    repeats = _has_repeats(places, n_grid)
    target = np.full(n_grid * n_targets, np.nan, np.float32)
    for i in range(n_targets):
        chunks, rows.values[i] = rows.values[i], []
        into = target[i * n_grid : (i + 1) * n_grid]
        if repeats:
            _scatter_repeats(into, places, chunks, source, schema.targets[i], schema, config)
        else:
            _scatter(into, places, chunks)
    return Panel(
        target=target,
        offsets=offsets_of(np.tile(grid.lengths, n_targets)),
        start=np.tile(grid.start, n_targets),
        names=tuple(rows.names),
        step_us=grid.step_us,
    )


def _has_repeats(places: list[Integers], n_grid: int) -> bool:
    taken = np.zeros(n_grid, np.bool_)
    for place in places:
        taken[place] = True
    return int(np.count_nonzero(taken)) < sum(map(len, places))


def _scatter(into: Floats, places: list[Integers], chunks: list[Floats]) -> None:
    """Write each reading to its place; a missing one never overwrites, and the last one stays."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = np.isfinite(chunk)
        into[place[seen]] = chunk[seen]


def _scatter_repeats(
    into: Floats,
    places: list[Integers],
    chunks: list[Floats],
    source: Source,
    column: str,
    schema: Schema,
    config: DataConfig,
) -> None:
    """Place readings of which several fall on one step: as `--agg` or `--on-duplicate` say."""
    how = config.agg or config.on_duplicate
    if how in ("error", "last"):
        _scatter(into, places, chunks)
        if how == "error":
            _reject_conflicts(into, places, chunks, source, schema, column)
        return
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


def _reject_conflicts(
    into: Floats,
    places: list[Integers],
    chunks: list[Floats],
    source: Source,
    schema: Schema,
    column: str,
) -> None:
    n_before = 0
    for place, chunk in zip(places, chunks, strict=True):
        differs = np.isfinite(chunk) & (into[place] != chunk)
        if differs.any():
            raise DataError(
                f"two different readings of {column!r} at one time",
                code="duplicate-time",
                location=source.location(n_before + int(np.argmax(differs)), schema.time),
                hint="say which counts, with  --on-duplicate last  or  --on-duplicate mean"
                + ("" if schema.series else " ; if a column names the series, add  --series COLUMN"),
            )
        n_before += len(chunk)


def _trim(panel: Panel, *, is_wide: bool) -> Panel:
    """Cut rows without any reading off both ends: of all sensors of a wide table, of each series."""
    seen = np.isfinite(panel.target)
    if is_wide:
        seen = np.repeat(seen.reshape(panel.n_series, -1).any(0)[None], panel.n_series, 0).ravel()
    rows = np.flatnonzero(seen)
    if len(rows) == len(seen) or not len(rows):
        return panel
    first = np.searchsorted(rows, panel.offsets[:-1])
    last = np.searchsorted(rows, panel.offsets[1:]) - 1
    empty = last < first
    begin = np.where(empty, panel.offsets[:-1], rows[np.minimum(first, len(rows) - 1)])
    end = np.where(empty, panel.offsets[1:], rows[last] + 1)
    if (begin == panel.offsets[:-1]).all() and (end == panel.offsets[1:]).all():
        return panel
    parts = [panel.target[a:b] for a, b in zip(begin, end, strict=True)]
    return replace(
        panel,
        target=np.concatenate(parts),
        offsets=offsets_of(end - begin),
        start=panel.start + (begin - panel.offsets[:-1]) * panel.step_us,
    )


def _drop_empty(
    panel: Panel, schema: Schema, config: DataConfig, source: Source, listener: Listener
) -> Panel:
    """Leave out series without any reading; raise where the user named one, or none is left."""
    counts = np.add.reduceat(np.isfinite(panel.target), panel.offsets[:-1], dtype=np.int64)
    empty = [panel.names[i] for i in np.flatnonzero(counts == 0)]
    if not empty:
        return panel
    named = [name for name in empty if name in config.target]
    if named or len(empty) == panel.n_series:
        raise DataError(
            f"column {(named or schema.targets)[0]!r} holds no reading",
            code="no-readings",
            hint=f"choose another target of {source.name}",
        )
    listener(Warned("empty-series", f"no readings, left out: {', '.join(empty[:10])}", len(empty)))
    return panel.select(np.flatnonzero(counts > 0))


def _note_gaps(panel: Panel, listener: Listener) -> None:
    n_missing = int(np.count_nonzero(~np.isfinite(panel.target)))
    if n_missing:
        longest = max(_longest_gap(panel.of(i)) for i in range(panel.n_series))
        listener(
            Noted(
                f"{n_missing} of {len(panel.target)} readings are missing, the longest gap is "
                f"{format_duration(longest * panel.step_us)}"
            )
        )


def _longest_gap(readings: Floats) -> int:
    there = np.flatnonzero(np.isfinite(readings))
    ends = np.concatenate([[-1], there, [len(readings)]])
    return int(np.diff(ends).max() - 1)
