"""Rows onto a regular grid: duplicates, aggregates, covariates; sensors with steps of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, offsets_from_lengths, take_names
from rnnforecast.data.axis import DAY_US, HOUR_US, Flags
from rnnforecast.data.panel import Covariates, Panel, covariates_from_columns
from rnnforecast.errors import DataError, Proposal, option_for_each
from rnnforecast.events import Listener, Notice, WarningEvent, warn_of_names
from rnnforecast.tables.bins import (
    BinShares,
    Timeline,
    complete_bins,
    counter_bins,
    grid_increments,
    held_bins,
    hold_on_grid,
    mean_angles,
)
from rnnforecast.tables.features import (
    category_codes,
    recode,
    static_values,
    warn_unknown_categories,
)
from rnnforecast.tables.quality import BLOCK_ROWS, may_change_clocks
from rnnforecast.tables.roles import STATUS
from rnnforecast.tables.rows import Chunks, Grid, ReadContext, Rows
from rnnforecast.tables.schema import Covariate, Schema
from rnnforecast.tables.steps import SAME_OWN_STEP, USUAL_STEPS_US, abbreviate, usual_step
from rnnforecast.tables.timestamps import zones_set_back_at
from rnnforecast.units import format_duration

UNIQUE = "unique"
"""The `keep` rule where no two rows of a series fall on one step."""
_MAX_LISTED_STEPS = 3
_MAX_SAMPLED_TARGETS, _MAX_SAMPLED_SERIES, _MAX_SAMPLED_ROWS = 20, 1000, 200_000
_MAX_OWN_STEP_SHARE = 0.75
"""A series that is read at every second step of others, or less often, holds fewer readings."""
_MAX_REPORTED = 0.8
"""Share of steps with a reading above which what is missing is little."""
_MIN_REPORTS = 50
_REGULAR_SHARE = 0.9
"""Share of steps of one length that makes readings regular."""
_MAX_EQUAL_SHARE = 0.01
"""Share of equal neighbours among reports of changes: some are sent at a restart."""
_LEAST_CHANGE = 0.3
"""Nearly all reports change by this share of the usual change: less is not reported."""
_USUAL_GAP = 0.995
"""Quantile of the times between two reports for which a value holds."""
_MIN_EVIDENCE = math.log(10_000)
"""Each further step of the same k rows is a chance of one in k; all together must be as unlikely as
this."""
_LAST_HOUR_US = 23 * HOUR_US
"""Some zones set their clocks back at midnight, by whatever calendar."""
_DST_MONTHS = (3, 4, 9, 10, 11)
"""When clocks are set back, on one half of the Earth or the other."""
_MOST_DROPPED, _FEW_DROPPED = 0.1, 3
"""No rule for duplicates is offered that drops a larger share of rows, and more rows than these: a
column that names the series is missing there."""


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
    shares = BinShares()
    # pages of an empty array take memory as they are written, while the chunks give theirs up
    target = np.empty(n_grid * len(schema.targets), np.float32)
    for i, name in enumerate(schema.targets):
        chunks = files[0].rows_of(rows.take_readings(name))
        series_values = target[i * n_grid : (i + 1) * n_grid]
        if config.is_resampled:
            shares += _place_in_bins(series_values, chunks, rows, files[0], name)
            continue

        is_counter = name in config.counter  # counts need more digits than their differences
        placed = np.empty(n_grid, np.float64) if is_counter else series_values
        placed.fill(np.nan)
        if keep == UNIQUE:
            for index, chunk in zip(indices, chunks, strict=True):
                placed[index] = chunk
        else:
            scatter(placed, positions, chunks, keep)
        if keep == "error":
            check_duplicates(placed, files[0], chunks, name)
        if is_counter:
            series_values[:] = grid_increments(placed, grid.offsets, name, context.listener)
        if config.hold_us is not None:
            n_steps = config.hold_us // grid.step_us
            hold_on_grid(series_values, grid, n_steps, until_us=rows.until_us)
    shares.report(config, context.listener)

    for file in files:
        file.report_repeated()

    n_targets = len(schema.targets)
    panel = Panel(
        target=target,
        offsets=offsets_from_lengths(np.tile(grid.lengths, n_targets)),
        start=np.tile(grid.start, n_targets),
        names=tuple(chain(*(schema.series_names(rows.names, t) for t in schema.targets))),
        step_us=grid.step_us,
        axis=grid.axis,
        base=np.concatenate(list(rows.value_offsets.values())),
        first_us=int(grid.start.min()),
        covariates=covariates,
    )
    if n_targets == 1 or schema.series is None:
        return panel
    # the targets of each key follow each other
    return panel.select(np.arange(panel.n_series).reshape(n_targets, -1).T.ravel())


def _place_in_bins(
    out: Floats, chunks: list[Floats], rows: Rows, file: FileRows, name: str
) -> BinShares:
    """Put a target's readings together to steps of `--freq`, `(position,)`, by its rule.

    Steps that hold too few of their readings are NaN, and counted.
    """
    grid, config, listener = file.grid, file.context.config, file.context.listener
    rule = config.agg_of(name)
    times = file.rows_of(rows.exact_times)
    timeline = Timeline.of(times, file.positions, chunks, grid)
    if name in config.counter:
        if rule != "sum":
            listener(Notice(f"the increments of counter {name!r} are summed in each step"))
        out[:], shares = counter_bins(timeline, grid, name, config, listener)
        return shares
    if config.hold is not None:
        out[:], shares = held_bins(timeline, grid, rule, config, until_us=rows.until_us)
        return shares

    offsets = rows.value_offsets[name]
    offset = np.repeat(offsets, grid.lengths) if offsets.any() else None
    out.fill(np.nan)
    if rule == ANGLE:
        out[:] = mean_angles(timeline, grid.n_rows)
    elif rule == "last":
        out[timeline.position] = timeline.value  # sorted by time, whatever the order of the rows
    else:
        scatter(out, file.positions, chunks, rule, offset)
    return complete_bins(out, timeline, grid, rule, config, offset)


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
    added = 0.0 if keep == "mean" or offset is None else (counts - 1) * offset  # one stays off
    with np.errstate(invalid="ignore"):
        values = sums / (counts if keep == "mean" else 1) + added
        out[:] = np.where(counts > 0, values, np.nan)


@dataclass(frozen=True)
class FileRows:
    """The rows of one file on the grid, and the rule where several of them fall on one step."""

    name: str
    content: str
    """Word for its cells in messages."""
    first_row: int
    positions: list[Integers]
    keep: str
    """error, last, mean, sum, min, max, or `UNIQUE`."""
    grid: Grid
    context: ReadContext

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

    def report_repeated(self) -> None:
        """Warn of rows at one time whose values were checked, and are the same."""
        if self.keep == "error":
            n = count_duplicates(self.positions, self.grid.n_rows)
            message = f"{n} rows repeat a timestamp with the same {self.content} and are used once"
            self.context.listener(WarningEvent("repeated-row", message, n))


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
        files.append(FileRows(name, content, first, file_positions, keep, grid, context))
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
    if config.is_resampled:
        return config.agg_of("")
    keep = config.on_duplicate
    set_back_to = _clock_set_back_to(positions, n_duplicates, grid) if keep == "error" else None
    if set_back_to is None:
        return keep

    first = grid.axis.format(int(set_back_to[0]))
    message = f"the clock was set back by an hour; {n_duplicates} timestamps occur twice, the "
    message += f"first {first}; the later reading is used"
    proposals = _zones_set_back(set_back_to)
    listener(WarningEvent("clock-set-back", message, n_duplicates, proposals))
    return "last"


def _zones_set_back(times: Integers) -> tuple[Proposal, ...]:
    """Return the zones whose clocks show these times twice, as options."""
    return tuple(Proposal(("--tz", z), f"if they are in {z}") for z in zones_set_back_at(times))


def count_duplicates(positions: list[Integers], n_grid: int) -> int:
    """Return the number of rows less the number of positions that hold any."""
    is_occupied = np.zeros(n_grid, np.bool_)
    for position in positions:
        is_occupied[position] = True
    return sum(map(len, positions)) - int(np.count_nonzero(is_occupied))


def _clock_set_back_to(positions: list[Integers], n_duplicates: int, grid: Grid) -> Integers | None:
    """Return the times to which a clock went back; None unless all duplicates are hours.

    Hourly readings repeat one stamp alone, for whatever reason: there the day and the hour must be
    those of a change. Readings at longer steps cannot show one.
    """
    hour = HOUR_US // grid.step_us
    position = np.concatenate(positions)
    series = np.searchsorted(grid.offsets, position, side="right")
    position = position[np.argsort(series, kind="stable")]
    moves = np.diff(position)
    backward = moves[moves <= 0]
    if hour < 1 or (backward != 1 - hour).any() or n_duplicates != hour * len(backward):
        return None

    times = grid.times_at(position[1:][moves <= 0])
    return times if hour > 1 or may_change_clocks(times, _DST_MONTHS).all() else None


def check_duplicates(
    placed: NDArray[np.floating[Any]], file: FileRows, chunks: list[Floats], column: str
) -> None:
    """Raise `DataError` where a value of a file's rows differs from the one that was placed."""
    source, schema, grid = file.context.source, file.context.schema, file.grid
    n_before = 0
    for position, chunk in zip(file.positions, chunks, strict=True):
        differs = np.isfinite(chunk) & (placed[position] != chunk)
        if not differs.any():
            n_before += len(chunk)
            continue

        row = int(np.argmax(differs))
        at, row_in_file = position[row : row + 1], n_before + row
        pairs = zip(file.positions, chunks, strict=True)
        same_step = np.flatnonzero(np.concatenate([(p == at) & np.isfinite(c) for p, c in pairs]))
        other_row = int(same_step[same_step != row_in_file][-1])
        location = source.location(file.first_row + row_in_file, schema.time)
        line = source.location(file.first_row + other_row, schema.time).line

        proposals = tuple(_ways_to_tell_apart(file, column))
        time = grid.times_at(at)
        if grid.axis.tz is None and may_change_clocks(time, _DST_MONTHS).all():
            proposals += _zones_set_back(time)
        elif grid.axis.tz is None and grid.step_us == HOUR_US and time % DAY_US == _LAST_HOUR_US:
            proposals = (*_zones_set_back(time), *proposals)
        hint = "rows of several sensors may be mixed; name the column that distinguishes them"
        content = "readings" if column in schema.targets else "values"
        raise DataError(
            f"conflicting {content} of {column!r} for the same timestamp",
            code="duplicate-time",
            location=replace(location, also_lines=(line,) if line else ()),
            proposals=proposals,
            hint=None if proposals else hint,
        )


def _ways_to_tell_apart(file: FileRows, name: str) -> Iterator[Proposal]:
    """Yield the options that tell rows of a column at one time apart, or choose one of them.

    Where many rows are at a time that others have, too, a column that names the series is missing.
    """
    schema = file.context.schema
    used = (schema.time, *schema.key, *schema.targets, *schema.covariate_names)
    columns = [c for c in file.context.source.columns if c.kind == "text" and c.name not in used]
    reasons = dict(schema.reasons)
    names = [c.name for c in columns if reasons.get(c.name, STATUS) == STATUS]
    for text in names if schema.series is None else ():
        yield Proposal(("--series", text), f"if {text!r} names the series")

    n_rows = sum(map(len, file.positions))
    n_repeated = count_duplicates(file.positions, file.grid.n_rows)
    if name in schema.targets and n_repeated > max(_MOST_DROPPED * n_rows, _FEW_DROPPED):
        return
    for rule in ("last", "mean"):
        yield Proposal(("--on-duplicate", rule), f"to use the {rule} of them")


def place_covariates(
    rows: Rows, files: tuple[FileRows, ...], grid: Grid, context: ReadContext
) -> Covariates | None:
    """Scatter the covariates onto the grid; None if there are none.

    Each column is one feature; of texts it holds the numbers, until `features` tells categories
    apart. Values of the table of future covariates win over those in rows of readings. Raises
    `DataError` where a file has two values of one time, and no rule says which counts.
    """
    schema, config = context.schema, context.config
    if not schema.covariates:
        return None
    columns: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    is_ahead = _is_ahead(rows, files[0]) if len(files) > 1 else None
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

        placed = _scatter_covariate(files[0], chunks, covariate)
        if is_ahead is not None:
            future = _scatter_covariate(files[1], chunks, covariate)
            is_future = np.isfinite(future)
            if config.is_resampled and not covariate.is_text:
                aggregate = np.full(grid.n_rows, np.nan, np.float32)
                positions = [position for file in files for position in file.positions]
                parts = [part for file in files for part in file.rows_of(chunks)]
                keep = _covariate_keep(config.agg_of(covariate.name), covariate)
                scatter(aggregate, positions, parts, keep)
                placed = np.where(is_ahead, np.where(is_future, future, placed), aggregate)
            else:
                differs = is_future & np.isfinite(placed) & (future != placed)
                contradicted += [covariate.name] * bool((differs & ~is_ahead).any())
                placed = np.where(is_future, future, placed)
        if covariate.role == "static":
            placed = static_values(covariate, placed, grid.offsets, rows.names)
        columns[covariate.role].append(placed)

    if contradicted:
        message = f"{files[1].name} differs from the values in the data and is used instead"
        warn_of_names("plan-differs", message, contradicted, context.listener)
    names = {role: tuple(c.name for c in schema.covariates if c.role == role) for role in columns}
    return covariates_from_columns(columns, names, grid.offsets, len(schema.targets))


def _scatter_covariate(file: FileRows, chunks: list[Floats], covariate: Covariate) -> Floats:
    """Put a column of one file onto the grid, `(position,)`; NaN where it has no value."""
    placed, config = np.full(file.grid.n_rows, np.nan, np.float32), file.context.config
    part = file.rows_of(chunks)
    is_aggregate = config.is_resampled and file.keep != UNIQUE
    keep = config.agg_of(covariate.name) if is_aggregate else file.keep
    keep = _covariate_keep(keep, covariate)
    scatter(placed, file.positions, part, keep)
    if keep == "error":
        check_duplicates(placed, file, part, covariate.name)
    return placed


def _covariate_keep(keep: str, covariate: Covariate) -> str:
    """Return the rule for a covariate: a text has no mean, and a sum would mean nothing."""
    if keep == UNIQUE or (covariate.is_text and keep != "error"):
        return "last"
    return "mean" if keep == "sum" else keep


def _is_ahead(rows: Rows, file: FileRows) -> Flags:
    """`(position,)`: which positions lie after the last reading of their series."""
    grid, targets = file.grid, file.context.schema.targets
    is_seen = np.zeros(grid.n_rows, np.bool_)
    for target in targets:
        pairs = zip(file.positions, file.rows_of(rows.readings(target)), strict=True)
        for position, chunk in pairs:
            is_seen[position[np.isfinite(chunk)]] = True

    seen = np.flatnonzero(is_seen)
    last = np.append(seen, -1)[np.searchsorted(seen, grid.offsets[1:]) - 1]
    # a series without a reading gets the last one of the series before, so all of it is ahead
    return np.arange(len(is_seen)) > np.repeat(last, grid.lengths)


def reported_on_change(rows: Rows) -> Proposal | None:
    """Return how to read a table whose sensors send a reading once it has changed; None for others.

    Such readings come at no regular step. One is hardly ever equal to the one before, and differs
    from it by a least amount, up or down. A sample of the rows decides.
    """
    n_alike = 0
    gaps: list[Integers] = []
    for target in list(rows.value_offsets)[:_MAX_SAMPLED_TARGETS]:
        parts = zip(rows.times, rows.codes, rows.readings(target), strict=True)
        time, series, value = (x[:_MAX_SAMPLED_ROWS] for x in next(parts, (np.zeros(0),) * 3))
        seen = np.isfinite(value)
        time, series, value = time[seen], series[seen].astype(np.int64), value[seen]
        order = np.lexsort((time, series))
        is_next = np.diff(series[order]) == 0
        change, gap = np.diff(value[order])[is_next], np.diff(time[order])[is_next]
        owner = series[order][1:][is_next][gap > 0]
        change, gap = change[gap > 0], gap[gap > 0]
        n_alike += 1 if is_change_report(change, gap) else -1
        if len(gap):
            gaps += np.split(gap, np.flatnonzero(np.diff(owner)) + 1)
    if n_alike <= 0 or not gaps:
        return None

    step_us = usual_step(float(np.median(np.concatenate(gaps))))
    hold = abbreviate(max(map(_usual_hold, gaps)))
    options = ("--freq", abbreviate(step_us), "--agg", "last", "--hold", hold)
    return Proposal(options, "if sensors send only changes")


def warn_of_reports(panel: Panel, listener: Listener) -> None:
    """Warn of series whose missing steps seem to say that nothing has changed."""
    n_seen = panel.count_readings()
    is_sparse = (n_seen >= _MIN_REPORTS) & (n_seen < _MAX_REPORTED * panel.lengths)

    names, gaps = [], []
    for i in np.flatnonzero(is_sparse)[:_MAX_SAMPLED_SERIES].tolist():
        readings = panel.of(i)[:_MAX_SAMPLED_ROWS]
        row = np.flatnonzero(np.isfinite(readings))
        if is_change_report(np.diff(readings[row]), np.diff(row)):
            names.append(panel.names[i])
            gaps.append(np.diff(row) * panel.step_us)
    if not names:
        return

    options = ("--hold", abbreviate(max(map(_usual_hold, gaps))))
    problem = "sensors send only changes, so unchanged values count as missing"
    proposal = Proposal(options, "if sensors send only changes")
    warn_of_names("on-change", problem, names, listener, proposals=[proposal])


def _usual_hold(gap: Integers) -> int:
    """Return a usual step that nearly all times between two reports fit into."""
    longest = float(np.quantile(gap, _USUAL_GAP))
    return next((step_us for step_us in USUAL_STEPS_US if step_us >= longest), round(longest))


def is_change_report(change: NDArray[np.floating[Any]], gap: Integers) -> bool:
    """Tell whether changes from one reading to the next, and the times between, show reports."""
    if len(change) < _MIN_REPORTS:
        return False
    size = np.abs(change)
    _, counts = np.unique(gap, return_counts=True)
    is_irregular = counts.max() < _REGULAR_SHARE * len(gap)
    n_up = np.count_nonzero(change > 0)
    goes_both_ways = 0.1 * len(change) < n_up < 0.9 * len(change)
    is_never_equal = np.count_nonzero(size == 0) <= _MAX_EQUAL_SHARE * len(size)
    has_least = np.quantile(size, 0.05) >= _LEAST_CHANGE * np.median(size)
    return bool(is_irregular and goes_both_ways and is_never_equal and has_least)


def are_own_steps(n_rows: ArrayLike, n_near: ArrayLike, n_steps: ArrayLike) -> Flags:
    """Tell whether `n_near` of `n_steps` steps of about `n_rows` rows each are no chance.

    All are numbers, or `(series,)` each.
    """
    evidence = (np.asarray(n_near) - 1) * np.log(n_rows)
    is_usual = np.asarray(n_near) >= _REGULAR_SHARE * np.asarray(n_steps)
    return (np.asarray(n_rows) > 1) & is_usual & (evidence >= _MIN_EVIDENCE)


def find_other_steps(panel: Panel) -> tuple[Integers, Integers]:
    """Return the series that are read at a longer step than others, and their steps in rows.

    Nine in ten of the steps between their readings are of one length, and too many for chance:
    readings that are lost at random leave steps of all lengths.
    """
    n_seen = panel.count_readings()
    is_sparse = (n_seen > 2) & (n_seen < _MAX_OWN_STEP_SHARE * panel.lengths)
    sparse = np.flatnonzero(is_sparse)
    step = np.ones(len(sparse), np.int64)
    is_other = np.zeros(len(sparse), np.bool_)
    for first, part in replace(panel, covariates=None).select(sparse).blocks(BLOCK_ROWS):
        block = slice(first, first + part.n_series)
        rows = np.flatnonzero(np.isfinite(part.target))
        series = np.searchsorted(part.offsets, rows, side="right") - 1
        is_next = np.diff(series) == 0
        length, series = np.diff(rows)[is_next], series[1:][is_next]

        n_steps = np.bincount(series, minlength=part.n_series)
        middle = np.cumsum(n_steps) - n_steps + n_steps // 2
        step[block] = length[np.lexsort((length, series))][middle]
        is_near = np.abs(length - step[block][series]) <= SAME_OWN_STEP * step[block][series]
        n_near = np.bincount(series[is_near], minlength=part.n_series)
        is_other[block] = are_own_steps(step[block], n_near, n_steps)
    return sparse[is_other], step[is_other]


def warn_of_other_steps(panel: Panel, schema: Schema, listener: Listener) -> None:
    """Warn of series that are read at a longer step than others, and offer to read it.

    A sensor of a wide table is read at its own step where it is the only target.
    """
    series, n_rows = find_other_steps(panel)
    if not 0 < len(series) < panel.n_series:
        return
    steps_us = n_rows * panel.step_us
    own_steps = np.unique(steps_us).tolist()
    step_list = ", ".join(format_duration(step_us) for step_us in own_steps[:_MAX_LISTED_STEPS])
    problem = f"read every {step_list}, others every {format_duration(panel.step_us)}; they have "
    problem += "their own step and are excluded from training"

    is_alone = not schema.series and not schema.covariates
    condition = "to forecast them separately" if is_alone else "to use their step for all"
    proposals = []
    for step_us in own_steps[:_MAX_LISTED_STEPS]:
        at_step = take_names(panel.names, series[steps_us == step_us])
        targets = () if schema.series else option_for_each("--target", at_step)
        rule = () if is_alone else ("--freq", abbreviate(step_us), "--agg", "last")
        proposals.append(Proposal((*targets, *rule), condition))
    names = take_names(panel.names, series)
    warn_of_names("other-step", problem, names, listener, proposals=proposals)


def drop_other_steps(panel: Panel, schema: Schema) -> tuple[Panel, Schema]:
    """Drop the series that `warn_of_other_steps` warns of: most of their steps would be missing."""
    series, _ = find_other_steps(panel)
    if not 0 < len(series) < panel.n_series:
        return panel, schema
    panel = panel.select(np.setdiff1d(np.arange(panel.n_series), series))
    return panel, schema if schema.series else replace(schema, targets=panel.names)
