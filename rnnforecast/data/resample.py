"""Rows onto a regular grid: duplicates, aggregates, counters and covariates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, offsets_from_lengths
from rnnforecast.data.features import category_codes, recode, static_values, warn_unknown_categories
from rnnforecast.data.panel import Covariates, Panel, covariates_from_columns
from rnnforecast.data.roles import STATUS
from rnnforecast.data.rows import Chunks, Flags, Grid, ReadContext, Rows
from rnnforecast.data.schema import Covariate
from rnnforecast.data.timestamps import format_timestamp
from rnnforecast.errors import DataError, Proposal
from rnnforecast.events import Listener, WarningEvent

UNIQUE = "unique"
"""The `keep` rule where no two rows of a series fall on one step."""
_HOUR_US = 3_600_000_000
_SUNDAY = 6
_DST_MONTHS = (3, 4, 9, 10, 11)
"""When clocks are set back, on one half of the Earth or the other."""
_MOST_DROPPED, _FEW_DROPPED = 0.1, 3
"""No rule for duplicates is offered that drops a larger share of rows, and more rows than these: a
column that names the series is missing there."""
_RESET_SHARE = 0.5
"""A count below this share of the one before was reset; a smaller fall is a misreading."""


def to_grid(rows: Rows, grid: Grid, context: ReadContext) -> Panel:
    """Scatter the rows onto the grid, one target at a time; free its chunks once it is done.

    Of several readings on one step, `--agg` or `--on-duplicate` say which counts. Where neither
    does, readings that differ raise `DataError`, and so do values of a covariate.
    """
    schema, config = context.schema, context.config
    files = split_by_file(rows, rows.place(grid), grid, context)
    positions, keep = files[0].positions, files[0].keep
    covariates = place_covariates(rows, files, grid, context)

    indices = files[0].indices() if keep == UNIQUE else []
    n_grid = grid.n_rows
    # pages of an empty array take memory as they are written, while the chunks give theirs up
    target = np.empty(n_grid * len(schema.targets), np.float32)
    for i, name in enumerate(schema.targets):
        chunks = files[0].rows_of(rows.take_readings(name))
        series_values = target[i * n_grid : (i + 1) * n_grid]
        is_counter = name in config.counter  # counts need more digits than their differences
        placed = np.empty(n_grid, np.float64) if is_counter else series_values
        placed.fill(np.nan)

        if keep == UNIQUE:
            for index, chunk in zip(indices, chunks, strict=True):
                placed[index] = chunk
        else:
            offsets = rows.value_offsets[name]
            offset = np.repeat(offsets, grid.lengths) if offsets.any() else None
            scatter(
                placed, positions, chunks, "last" if is_counter and config.agg else keep, offset
            )
        if keep == "error":
            check_duplicates(placed, files[0], chunks, grid, context, name)
        if is_counter:
            series_values[:] = counter_increments(
                placed.astype(np.float64, copy=False), grid.offsets[:-1], name, context.listener
            )

    for file in files:
        if file.keep == "error":
            n_duplicates = count_duplicates(file.positions, n_grid)
            message = f"{n_duplicates} rows repeat a time stamp with the same {file.content} "
            message += "and count once"
            context.listener(WarningEvent("repeated-row", message, n_duplicates))
    n_targets = len(schema.targets)
    panel = Panel(
        target=target,
        offsets=offsets_from_lengths(np.tile(grid.lengths, n_targets)),
        start=np.tile(grid.start, n_targets),
        names=tuple(chain(*(schema.series_names(rows.names, t) for t in schema.targets))),
        step_us=grid.step_us,
        base=np.concatenate(list(rows.value_offsets.values())),
        first_us=int(grid.start.min()),
        covariates=covariates,
    )
    if n_targets == 1 or schema.series is None:
        return panel
    # the targets of each key follow each other
    return panel.select(np.arange(panel.n_series).reshape(n_targets, -1).T.ravel())


def scatter(
    out: NDArray[np.floating[Any]],
    positions: list[Integers],
    chunks: list[Floats],
    keep: str,
    offset: Doubles | None = None,
) -> None:
    """Write values to their positions of `out`, by the rule for duplicates; NaN never counts.

    `keep` is last, error (as last; the caller checks), mean, sum, min or max. `offset`, `(grid
    row,)`, is what was subtracted from each value: a sum of n values lacks it n times.
    """
    if keep in ("last", "error"):
        for position, chunk in zip(positions, chunks, strict=True):
            seen = np.isfinite(chunk)
            out[position[seen]] = chunk[seen]
        return

    all_positions = np.concatenate(positions)
    values = np.concatenate(chunks).astype(np.float64)
    seen = np.isfinite(values)
    all_positions, values = all_positions[seen], values[seen]
    if keep in ("min", "max"):
        extreme = np.full(len(out), np.inf if keep == "min" else -np.inf)
        (np.minimum if keep == "min" else np.maximum).at(extreme, all_positions, values)
        out[:] = np.where(np.isfinite(extreme), extreme, np.nan)
        return

    sums = np.bincount(all_positions, weights=values, minlength=len(out))
    counts = np.bincount(all_positions, minlength=len(out))
    with np.errstate(invalid="ignore"):
        out[:] = np.where(counts > 0, sums / (counts if keep == "mean" else 1), np.nan)
    if keep == "sum" and offset is not None:  # n offsets are added, and one stays subtracted
        for position, chunk in zip(positions, chunks, strict=True):
            seen_positions = position[np.isfinite(chunk)]
            np.add.at(out, seen_positions, offset[seen_positions])
        out -= offset


@dataclass(frozen=True)
class FileRows:
    """The rows of one file among all, and the rule where several of them fall on one step."""

    name: str
    content: str
    """Word for its cells in messages."""
    first_row: int
    positions: list[Integers]
    keep: str
    """error, last, mean, sum, min, max, or `UNIQUE`."""

    def indices(self) -> list[Integers | slice]:
        """Return the positions, those that follow each other as a slice, which is faster."""

        def index(position: Integers) -> Integers | slice:
            begin, end = int(position[0]), int(position[-1]) + 1
            is_slice = end - begin == len(position) and bool((np.diff(position) == 1).all())
            return slice(begin, end) if is_slice else position

        return [index(position) for position in self.positions]

    def rows_of(self, chunks: Chunks) -> list[NDArray[Any]]:
        """Return the file's rows of a column, as views."""
        return _slice_chunks(chunks, self.first_row, self.first_row + sum(map(len, self.positions)))


def split_by_file(
    rows: Rows, positions: list[Integers], grid: Grid, context: ReadContext
) -> tuple[FileRows, ...]:
    """Return the rows of the readings, and then those of future covariates if there is a table."""
    n_rows = sum(map(len, positions))
    n_readings = n_rows - rows.n_future_rows
    parts = [(context.source.name, "readings", 0, n_readings)]
    if rows.n_future_rows:
        parts.append((rows.future_name, "values", n_readings, n_rows))

    files = []
    for name, content, first, end in parts:
        file_positions = _slice_chunks(positions, first, end)
        keep = resolve_keep(file_positions, grid, context.config, context.listener)
        files.append(FileRows(name, content, first, file_positions, keep))
    return tuple(files)


def _slice_chunks(chunks: Chunks, first: int, end: int) -> list[NDArray[Any]]:
    """Return the rows from `first` to before `end`, counted over all chunks, as views."""
    parts, n_before = [], 0
    for chunk in chunks:
        part = chunk[max(first - n_before, 0) : max(end - n_before, 0)]
        n_before += len(chunk)
        if len(part):
            parts.append(part)
    return parts


def resolve_keep(
    positions: list[Integers], grid: Grid, config: DataConfig, listener: Listener
) -> str:
    """Return the rule for duplicates, or `UNIQUE` where there are none.

    Where the user names none, and a clock was set back by an hour, the last reading counts.
    """
    n_duplicates = count_duplicates(positions, grid.n_rows)
    if not n_duplicates:
        return UNIQUE
    keep = config.agg or config.on_duplicate
    set_back_at = _clock_set_back_at(positions, n_duplicates, grid) if keep == "error" else None
    if set_back_at is None:
        return keep

    first = format_timestamp(grid.time_at(set_back_at), None)
    message = f"the clock was set back by an hour: {n_duplicates} time stamps occur twice, the "
    message += f"first {first}, and the later reading counts; to use "
    message += "both where they are an hour of their own, name the zone with  --tz"
    listener(WarningEvent("clock-set-back", message, n_duplicates))
    return "last"


def count_duplicates(positions: list[Integers], n_grid: int) -> int:
    """Return the number of rows less the number of positions that hold any."""
    is_occupied = np.zeros(n_grid, np.bool_)
    for position in positions:
        is_occupied[position] = True
    return sum(map(len, positions)) - int(np.count_nonzero(is_occupied))


def _clock_set_back_at(positions: list[Integers], n_duplicates: int, grid: Grid) -> int | None:
    """Return the first position to which a clock went back; None unless all duplicates are hours.

    Hourly readings only repeat one stamp, which may be anything: there the day and the hour must be
    those of a change. Readings at longer steps cannot show one.
    """
    hour = _HOUR_US // grid.step_us
    position = np.concatenate(positions)
    moves = np.diff(position)
    backward = moves[moves <= 0]
    if hour < 1 or (backward != 1 - hour).any() or n_duplicates != hour * len(backward):
        return None
    repeated = position[1:][moves <= 0].tolist()
    if hour > 1 or all(_may_be_dst_end(grid.time_at(position)) for position in repeated):
        return int(repeated[0])
    return None


def check_duplicates(
    placed: NDArray[np.floating[Any]],
    file: FileRows,
    chunks: list[Floats],
    grid: Grid,
    context: ReadContext,
    column: str,
) -> None:
    """Raise `DataError` where a value of a file's rows differs from the one that was placed."""
    source, schema = context.source, context.schema
    n_before = 0
    for position, chunk in zip(file.positions, chunks, strict=True):
        differs = np.isfinite(chunk) & (placed[position] != chunk)
        if not differs.any():
            n_before += len(chunk)
            continue

        row = int(np.argmax(differs))
        at, row_in_file = int(position[row]), n_before + row
        pairs = zip(file.positions, chunks, strict=True)
        same_step = np.flatnonzero(np.concatenate([(p == at) & np.isfinite(c) for p, c in pairs]))
        other_row = int(same_step[same_step != row_in_file][-1])
        location = source.location(file.first_row + row_in_file, schema.time)
        line = source.location(file.first_row + other_row, schema.time).line

        proposals = tuple(_ways_to_tell_apart(file, column, grid, context))
        hint = None if proposals else "rows of several sensors may be mixed: name what tells them"
        if _may_be_dst_end(grid.time_at(at)):
            hint = "if a clock was set back there, say its zone, such as  --tz Europe/Berlin"
        content = "readings" if column in schema.targets else "values"
        raise DataError(
            f"two different {content} of {column!r} at one time",
            code="duplicate-time",
            location=replace(location, also_lines=(line,) if line else ()),
            proposals=proposals,
            hint=hint,
        )


def _ways_to_tell_apart(
    file: FileRows, name: str, grid: Grid, context: ReadContext
) -> Iterator[Proposal]:
    """Yield the options that tell rows of a column at one time apart, or choose one of them.

    Where many rows are at a time that others have, too, a column that names the series is missing.
    """
    schema = context.schema
    used = (schema.time, *schema.key, *schema.targets, *schema.covariate_names)
    columns = [c for c in context.source.columns if c.kind == "text" and c.name not in used]
    reasons = dict(schema.reasons)
    names = [c.name for c in columns if reasons.get(c.name, STATUS) == STATUS]
    for text in names if schema.series is None else ():
        yield Proposal(("--series", text), f"if {text!r} names the series")

    n_rows = sum(map(len, file.positions))
    n_repeated = count_duplicates(file.positions, grid.n_rows)
    if name in schema.targets and n_repeated > max(_MOST_DROPPED * n_rows, _FEW_DROPPED):
        return
    for rule in ("last", "mean"):
        yield Proposal(("--on-duplicate", rule), f"if the {rule} of them counts")


def _may_be_dst_end(time_us: int) -> bool:
    """Tell whether clocks are set back somewhere at this time: in the first hours of a Sunday."""
    time = datetime(1970, 1, 1) + timedelta(microseconds=time_us)
    return time.weekday() == _SUNDAY and time.hour <= 3 and time.month in _DST_MONTHS


def place_covariates(
    rows: Rows, files: tuple[FileRows, ...], grid: Grid, context: ReadContext
) -> Covariates | None:
    """Scatter the covariates onto the grid; None if there are none.

    Each column is one feature; of texts it holds the numbers, until `features` tells categories
    apart. Values of the table of future covariates win over those in rows of readings. Raises
    `DataError` where a file has two values of one time, and no rule says which counts.
    """
    schema, agg = context.schema, context.config.agg
    if not schema.covariates:
        return None
    columns: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    is_ahead = _is_ahead(rows, files[0], grid, schema.targets) if len(files) > 1 else None
    contradicted: list[str] = []
    for covariate in schema.covariates:
        chunks = rows.take_covariate(covariate.name)
        if covariate.is_text:
            texts = rows.texts[covariate.name]
            for file in files if schema.step_us is not None else ():
                part = file.rows_of(chunks)
                warn_unknown_categories(covariate, texts, part, file.name, context.listener)
            numbers = category_codes(covariate, texts)
            chunks = [recode(chunk, numbers) for chunk in chunks]

        placed = _scatter_covariate(files[0], chunks, covariate, grid, context)
        if is_ahead is not None:
            future = _scatter_covariate(files[1], chunks, covariate, grid, context)
            is_future = np.isfinite(future)
            if agg is not None and not covariate.is_text:
                aggregate = np.full(grid.n_rows, np.nan, np.float32)
                positions = [position for file in files for position in file.positions]
                parts = [part for file in files for part in file.rows_of(chunks)]
                scatter(aggregate, positions, parts, _covariate_keep(agg, covariate))
                placed = np.where(is_ahead, np.where(is_future, future, placed), aggregate)
            else:
                differs = is_future & np.isfinite(placed) & (future != placed)
                contradicted += [covariate.name] * bool((differs & ~is_ahead).any())
                placed = np.where(is_future, future, placed)
        if covariate.role == "static":
            placed = static_values(covariate, placed, grid.offsets, rows.names)
        columns[covariate.role].append(placed)

    if contradicted:
        message = f"{files[1].name} differs from the values beside the readings, and counts there"
        context.listener(WarningEvent.for_names("plan-differs", message, contradicted))
    names = {role: tuple(c.name for c in schema.covariates if c.role == role) for role in columns}
    return covariates_from_columns(columns, names, grid.offsets, len(schema.targets))


def _scatter_covariate(
    file: FileRows, chunks: list[Floats], covariate: Covariate, grid: Grid, context: ReadContext
) -> Floats:
    """Put a column of one file onto the grid, `(position,)`; NaN where it has no value."""
    placed = np.full(grid.n_rows, np.nan, np.float32)
    part = file.rows_of(chunks)
    keep = _covariate_keep(file.keep, covariate)
    scatter(placed, file.positions, part, keep)
    if keep == "error":
        check_duplicates(placed, file, part, grid, context, covariate.name)
    return placed


def _covariate_keep(keep: str, covariate: Covariate) -> str:
    """Return the rule for a covariate: a text has no mean, and a sum would mean nothing."""
    if keep == UNIQUE or (covariate.is_text and keep != "error"):
        return "last"
    return "mean" if keep == "sum" else keep


def _is_ahead(rows: Rows, file: FileRows, grid: Grid, targets: Sequence[str]) -> Flags:
    """`(position,)`: which positions lie after the last reading of their series."""
    is_seen = np.zeros(grid.n_rows, np.bool_)
    for target in targets:
        pairs = zip(file.positions, file.rows_of(rows.readings(target)), strict=True)
        for position, chunk in pairs:
            is_seen[position[np.isfinite(chunk)]] = True

    seen = np.flatnonzero(is_seen)
    last = np.append(seen, -1)[np.searchsorted(seen, grid.offsets[1:]) - 1]
    # a series without a reading gets the last one of the series before, so all of it is ahead
    is_ahead: Flags = np.arange(len(is_seen)) > np.repeat(last, grid.lengths)
    return is_ahead


def counter_increments(counts: Doubles, starts: Integers, name: str, listener: Listener) -> Floats:
    """Return what a meter counted in each step, `(row,)`, of its counts on a grid.

    A meter that was reset has counted what it shows. A step is NaN where it or the one before is,
    at the start of a series, and where a count is a little smaller than the one before.
    """
    increments = np.diff(counts, prepend=np.nan)
    increments[starts[starts < len(increments)]] = np.nan
    before = np.concatenate([[np.nan], counts[:-1]])

    falls = increments < 0
    is_reset = falls & (counts >= 0) & (counts < _RESET_SHARE * before)
    increments[is_reset] = counts[is_reset]
    is_misread = falls & ~is_reset
    increments[is_misread] = np.nan

    for code, message, is_affected in (
        ("counter-reset", "began anew", is_reset),
        ("counter-fall", "fell a little, so that those steps are missing,", is_misread),
    ):
        n_steps = int(np.count_nonzero(is_affected))
        if n_steps:
            listener(WarningEvent(code, f"counter {name!r} {message} {n_steps} times", n_steps))
    float_increments: Floats = increments.astype(np.float32)
    return float_increments
