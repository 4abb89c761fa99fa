"""`read_panel`: rows become series on one grid; step, jitter, gaps, trimming, ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import (
    Doubles,
    Integers,
    concat_slices,
    offsets_from_lengths,
    take_names,
)
from rnnforecast.data.axis import DAY_US, ELAPSED, HOUR_US, MONTHS, Flags, TimeAxis
from rnnforecast.data.panel import FeatureBlock, Panel, RankPartition
from rnnforecast.errors import DataError, Location, NotEnoughDataError, Proposal
from rnnforecast.events import Listener, Notice, WarningEvent, warn_of_names
from rnnforecast.parallel import SINGLE_PROCESS, Ranks, all_gather, all_gather_object
from rnnforecast.sources.source import Source, join_key
from rnnforecast.tables.bins import local_pace
from rnnforecast.tables.calendar import (
    SHORTEST_MONTH_US,
    choose_axis,
    find_open_steps,
    leave_out_closed,
    merge_repeated_hours,
    note_closed_hours,
    zones_of_midnights,
)
from rnnforecast.tables.cleaning import clean_rows, mask_stuck, warn_of_suspect_readings
from rnnforecast.tables.features import add_calendar, encode_covariates
from rnnforecast.tables.profile import warn_of_columns, warn_of_one_sensor, warn_of_two_levels
from rnnforecast.tables.quality import count_missing
from rnnforecast.tables.resample import (
    are_own_steps,
    reported_on_change,
    to_grid,
    warn_of_other_steps,
    warn_of_reports,
)
from rnnforecast.tables.rows import Grid, ReadContext, Rows, read_rows
from rnnforecast.tables.schema import Schema, note_left_out
from rnnforecast.tables.steps import (
    MAX_JITTER,
    USUAL_STEPS_US,
    StepCounts,
    StepStatistics,
    abbreviate,
    check_future,
    check_jumps_back,
    check_not_coarser,
    check_step_change,
    find_cut_step,
    fitting_step,
    merge_step_counts,
    step_statistics,
    without_cuts,
)
from rnnforecast.units import MONTH_US, describe_duration, format_duration, parse_duration_us

_MIN_READING, _MAX_READING = 1e-20, 1e17
"""Sums of squares of smaller and of larger readings, less their offset, do not fit into float32."""
_MAX_EMPTY = 20
"""Grid rows per row of the source above which a wrong stamp is likelier than rare readings."""
_MIN_FILLED = 0.9
"""Share of steps that hold a row where readings come in bursts."""
_N_SHORTER = 3
"""Number of shorter steps to suggest if no `--freq` step is complete."""
_IF_RARE = "if readings are really that rare"
_MAX_SEEN_SHARE = 0.75
"""Where more of the rows hold a reading, their step is that of the readings."""
_NOMINAL_SHARE = 0.99
"""Least share of stamps near a regular grid for the others to count as outliers."""
_N_RECENT_STEPS = 10
"""Steps of `--freq` before the newest reading that show the pace of a series."""
_MIN_OTHER_SHARE = 0.1
"""Where stretches of a longer step take this share of the time, the step has changed."""
FindTrainEnd = Callable[[Panel], int]
"""Returns the time that ends the training part of a panel."""
_Number = TypeVar("_Number", bound=np.generic)


def read_panel(
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    known_offsets: Mapping[str, float] = MappingProxyType({}),
    as_of: str | None = None,
    find_train_end: FindTrainEnd | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[Panel, Schema]:
    """Read a source onto a regular grid; return it with the schema, step and zone filled in.

    A missing reading is NaN, and so is every step without a row. `known_offsets` holds the value
    offsets of the series that a model knows; readings later than `as_of` are not used; categories
    of texts are those of the rows before the time that `find_train_end` returns. Each of `ranks`
    reads its own source, and the panel holds the series of all. Raises `DataError` for stamps that
    cannot be read, are irregular, or repeat with different readings, and for readings that are not
    finite.
    """
    check_same_schema(schema, ranks)
    context = ReadContext(join_key(source, schema.series), schema, config, listener, ranks)

    # READ: nothing after the as-of time is looked at
    rows, context = read_rows(context, known_offsets=known_offsets)
    if as_of is not None:
        context = rows.keep_until(as_of, context)
    if schema.step_us is None:
        context = replace(context, schema=leave_out_constants(rows, context))

    # CLEANED: readings that do not count are gone before others are aggregated
    clean_rows(rows, context)
    context = replace(context, schema=rows.finish_cleaning(context.schema))
    context = drop_silent(rows, context, known=known_offsets)

    # ALIGNED: times lie on the grid
    grid, context = align(rows, context)

    # PLACED: the arrays of the rows are freed one after the other
    panel = to_grid(rows, grid, context)

    panel = mask_stuck(panel, config, listener)
    local = drop_empty(trim_and_warn(panel, context), context)
    check_magnitude(local)
    panel, schema = merge_ranks(local, ranks), context.schema
    train_end_us = find_train_end(panel) if find_train_end and schema.covariates else None
    panel, schema = encode_covariates(
        panel, schema, rows.texts, config, listener, until_us=train_end_us
    )
    panel = add_calendar(panel, config)

    report(local, replace(context, schema=schema))
    schema = replace(schema, targets=schema.targets if schema.series else panel.names)
    signed = rows.signed if schema.step_us is None else schema.signed
    schema = replace(schema.with_axis(panel.axis, panel.step_us), signed=signed)
    check_same_schema(schema, ranks)
    return panel, schema


def check_magnitude(panel: Panel) -> None:
    """Raise `DataError` for a series that is too large or too small to compute with in float32."""
    starts = panel.offsets[:-1]
    if not len(starts):
        return
    with np.errstate(invalid="ignore"):
        highest = np.fmax.reduceat(panel.target, starts)
        lowest = np.fmin.reduceat(panel.target, starts)
    largest = np.fmax(highest, -lowest)
    is_huge, is_tiny = largest > _MAX_READING, (largest > 0) & (largest < _MIN_READING)
    if is_huge.any():
        names, code, unit = take_names(panel.names, is_huge), "too-large", "larger"
        problem = f"readings of {names[0]!r} exceed {_MAX_READING:g}, which is too large"
    elif is_tiny.any():
        names, code, unit = take_names(panel.names, is_tiny), "too-small", "smaller"
        problem = f"no reading of {names[0]!r} is larger than {_MIN_READING:g}, which is too small"
    else:
        return
    more = f"; also those of {len(names) - 1} more series" if len(names) > 1 else ""
    hint = f"use a {unit} unit, or omit the series"
    raise DataError(f"{problem} to compute with{more}", code=code, hint=hint)


def leave_out_constants(rows: Rows, context: ReadContext) -> Schema:
    """Drop targets that nobody named and that never change; return the schema of the others.

    They are coordinates, numbers of devices and the like. Where all are constant, all stay.
    """
    schema = context.schema
    n_targets, named = len(schema.targets), context.config.named_targets
    reasons = rows.constant_targets() if n_targets > 1 else {}
    unnamed = {target: reason for target, reason in reasons.items() if target not in named}
    parts = all_gather_object(context.ranks, unnamed)
    constants = {
        target: reason for target, reason in parts[0].items() if all(target in p for p in parts)
    }
    if not 0 < len(constants) < n_targets:
        return schema

    note_left_out(constants, list(constants), context.listener)
    rows.drop_targets(constants, is_long=context.is_long)
    targets = tuple(target for target in schema.targets if target not in constants)
    return replace(schema, targets=targets, reasons=(*schema.reasons, *constants.items()))


def drop_silent(rows: Rows, context: ReadContext, *, known: Collection[str]) -> ReadContext:
    """Drop the series of a long table that have no reading, so that they do not decide the step.

    An export of all devices has contacts and texts, too. Series that a model knows stay.
    """
    if not context.is_long:
        return context
    has_reading = np.zeros(rows.n_series, np.bool_)
    for i, codes in enumerate(rows.codes):
        has_reading[codes[rows.has_reading(i)]] = True
        if has_reading.all():
            return context
    for target in rows.value_offsets:
        names = context.schema.series_names(rows.names, target)
        has_reading |= np.array([name in known for name in names], np.bool_)
    if not has_reading.any() or has_reading.all():
        return context

    silent = take_names(rows.names, ~has_reading)
    warn_of_names("empty-series", "no readings, skipped", silent, context.listener)
    return rows.keep([has_reading[codes] for codes in rows.codes], context)


def check_step(panel: Panel, schema: Schema) -> None:
    """Raise `DataError` unless the readings come at the step that the model was trained on."""
    if schema.step_us is None or panel.step_us == schema.step_us:
        return
    expected, actual = format_duration(schema.step_us), format_duration(panel.step_us)
    is_finer = schema.step_us % panel.step_us == 0
    options = ("--freq", abbreviate(schema.step_us), "--agg", "mean")
    proposal = Proposal(options, "to resample to the step of the model")
    raise DataError(
        f"the model expects a reading every {expected}, but the data has one every {actual}",
        code="other-step",
        proposals=[proposal] if is_finer else (),
        hint=None if is_finer else "use data with that step, or retrain on this data",
    )


def align(rows: Rows, context: ReadContext) -> tuple[Grid, ReadContext]:
    """Choose the axis, find the step, and move all times onto the grid.

    Times are snapped, or floored for an aggregate. Returns the context with a source that locates
    the rows that are left. Raises `DataError` for times that lie ahead of the clock, are irregular,
    or spread over far more steps than there are rows.
    """
    config = context.config
    statistics, step_us, context = settle_step(rows, context)
    if not config.allow_future:
        check_future(rows, step_us, context)
    check_jumps_back(rows, statistics.backward, step_us, context)

    is_trained = context.schema.step_us is not None
    axis = context.schema.axis if is_trained else choose_axis(rows, step_us, context)
    open_steps, axis = axis.open_steps, replace(axis, open_steps=(), step_us=0)
    if axis.kind == ELAPSED:
        axis = TimeAxis(context.tz)
    else:
        keep = merge_repeated_hours(rows, axis) if step_us <= HOUR_US else None
        if keep is not None:
            context = rows.keep(keep, context)
        rows.convert(replace(axis, offset_us=0) if config.is_resampled else axis)
        statistics = step_statistics(rows)
        step_us = _find_step(statistics.steps, rows, context)

    times, start, end = times_on_grid(rows, statistics, step_us, axis, context)
    check_not_coarser(merge_step_counts(statistics.steps, context.ranks), step_us, context)
    if not is_trained and config.closed == "auto" and axis.kind != MONTHS:
        open_steps = find_open_steps(rows, times, step_us, context.ranks)
    if open_steps:
        axis = replace(axis, step_us=step_us, open_steps=open_steps)
        if not is_trained:
            note_closed_hours(axis, context.listener)
        times, context = leave_out_closed(rows, times, axis, context)
        times = [axis.from_wall_clock(chunk) for chunk in times]
        start, end = (axis.from_wall_clock(bound) for bound in (start, end))

    rows.align(times, keep_exact=config.is_resampled)
    grid = Grid(start, (end - start) // step_us + 1, step_us, axis)
    check_density(rows, grid, statistics.steps, context)
    return grid, context


def settle_step(rows: Rows, context: ReadContext) -> tuple[StepStatistics, int, ReadContext]:
    """Find the step, while times are still those of the stamps.

    Where the only target is read at a longer step than others, the rows without its readings are
    dropped. Returns the statistics of the rows that are left, the step, and the context with a
    source that locates these rows. Raises `DataError` where the step changes.
    """
    statistics = step_statistics(rows)
    step_us = _find_step(statistics.steps, rows, context)
    if rows.zones is not None and step_us >= DAY_US:
        raise DataError(
            "days, weeks and months need a time zone, but the timestamps have several UTC offsets",
            code="zone-of-days",
            location=Location(context.source.name, column=context.schema.time),
            proposals=[*rows.zones, Proposal(("--tz", "UTC"), "to use days in UTC")],
        )
    if context.config.freq is not None or context.ranks is not SINGLE_PROCESS:
        return statistics, step_us, context

    uncut_us = _undo_cuts(rows, statistics.steps, context)
    if uncut_us is not None:
        return step_statistics(rows), uncut_us, context
    own_step_us = _step_of_readings(rows, context, step_us)
    if own_step_us is not None:
        seen = [rows.has_reading(i) for i in range(len(rows.times))]
        context = rows.keep(seen, context)
        statistics, step_us = step_statistics(rows), own_step_us

    time_of = statistics.steps.lengths * statistics.steps.counts
    is_longer = statistics.steps.lengths > 1.5 * step_us
    if 0 < _MIN_OTHER_SHARE * time_of.sum() <= time_of[is_longer].sum():
        check_step_change(rows, context, step_us, min_share=_MIN_OTHER_SHARE)
    return statistics, step_us, context


def _undo_cuts(rows: Rows, steps: StepCounts, context: ReadContext) -> int | None:
    """Move stamps that were cut to the minute or the like back to where they were, and warn.

    Returns their step; None where they were not cut. A model knows the step.
    """
    step_us, unit_us = find_cut_step(steps) or (0, 0)
    known_us = context.schema.step_us
    if known_us is not None and steps.total and context.schema.axis.kind == ELAPSED:
        step_us, unit_us = known_us, int(np.gcd.reduce(steps.lengths))
    if not 0 < unit_us < step_us or step_us % unit_us == 0:
        return None
    times = without_cuts(rows, step_us, unit_us)
    if times is None:
        return None
    rows.move(times)
    step, unit = format_duration(step_us), format_duration(unit_us)
    message = f"the timestamps are those of a step of {step}, cut to {unit}; they were moved back"
    exact = Proposal(("--freq", abbreviate(steps.commonest[0])), "if they are exact, with gaps")
    ways = (exact,) if known_us is None else ()
    context.listener(WarningEvent("cut-times", message, rows.n_rows, proposals=ways))
    return step_us


def times_on_grid(
    rows: Rows, statistics: StepStatistics, step_us: int, axis: TimeAxis, context: ReadContext
) -> tuple[list[Integers], Integers, Integers]:
    """Return the times of the rows on the grid, and the start and end of each series, `(series,)`.

    Times are floored for an aggregate, and else snapped where they jitter. With `--hold` a series
    goes on after its newest reading. Raises `DataError` for times that are irregular.
    """
    config, start, end = context.config, statistics.start, statistics.end
    if config.hold_us is not None:
        newest = int(rows.newest_readings().max())
        rows.until_us = newest + (round(statistics.steps.median) if statistics.steps.total else 1)
        end = np.maximum(end, np.minimum(end + config.hold_us, newest))

    if config.is_resampled:
        if config.hold is None:
            _mask_incomplete_steps(rows, statistics, axis, step_us, context)
        # A month that is named by its last day ends a day before the next one begins.
        shift_us = step_us if axis.offset_us else 0
        nominal = _without_jitter([*rows.times, start, end], statistics.steps, step_us, config)
        *times, start, end = (axis.floor(chunk, step_us) + shift_us for chunk in nominal)
        return times, start, end
    if statistics.is_multiple_of(step_us):
        return list(rows.times), start, end
    return _snap(rows, statistics, step_us, context)


def check_density(rows: Rows, grid: Grid, steps: StepCounts, context: ReadContext) -> None:
    """Raise `DataError` for rows that spread over far more steps of the grid than there are rows.

    It names the stamp that lies furthest from the others, and offers a longer step that fits.
    """
    n_most = max(_MAX_EMPTY * rows.n_rows, 10_000)
    if grid.n_rows <= n_most:
        return

    times = np.concatenate(rows.times)
    furthest = int(np.argmax(np.abs(times - np.median(times))))
    fitting_us = fitting_step(steps.lengths, steps.counts, steps.median)
    n_fitting = ((grid.lengths - 1) * grid.step_us + fitting_us).sum() // fitting_us
    fits = fitting_us > grid.step_us and n_fitting < n_most
    if not fits:  # readings may come in bursts
        fitting_us = _filled_step(rows, grid)
        fits = fitting_us > grid.step_us
    proposals = [Proposal(("--freq", abbreviate(fitting_us), "--agg", "mean"), _IF_RARE)]
    raise DataError(
        f"with a step of {format_duration(grid.step_us)} only {len(times)} of "
        f"{grid.n_rows} rows would be filled; this timestamp is furthest from the others",
        code="sparse",
        location=context.source.location(furthest, context.schema.time),
        proposals=proposals if fits else (),
        hint="correct or remove this row if it is wrong",
    )


def _filled_step(rows: Rows, grid: Grid) -> int:
    """Return the shortest usual step that leaves few steps empty; 0 where none does."""
    start, end = grid.start, grid.start + (grid.lengths - 1) * grid.step_us
    times, codes = np.concatenate(rows.times), np.concatenate(rows.codes).astype(np.int64)
    for usual in USUAL_STEPS_US:
        n_steps = int((end // usual - start // usual + 1).sum())
        if _MIN_FILLED * n_steps <= len(times):
            step, first = times // usual, int(start.min()) // usual
            width = int(end.max()) // usual - first + 1
            if len(np.unique(codes * width + step - first)) >= _MIN_FILLED * n_steps:
                return usual
    return 0


def _find_step(local_steps: StepCounts, rows: Rows, context: ReadContext) -> int:
    """Return the step that the user names, or infer it from the rows of all ranks.

    One reading has none; then it is the step that the model was trained on.
    """
    if context.config.freq:
        return parse_duration_us(context.config.freq)
    steps = merge_step_counts(local_steps, context.ranks)
    if steps.total:
        return steps.infer_step()
    if context.schema.step_us is not None:
        return context.schema.step_us

    n_rows = rows.n_rows
    count = "1 row is" if n_rows == 1 else f"{n_rows} rows with only one timestamp are"
    raise NotEnoughDataError(
        f"{count} not enough; training needs at least lookback + horizon rows",
        code="too-short",
        hint="use more data",
    )


def _mask_incomplete_steps(
    rows: Rows, statistics: StepStatistics, axis: TimeAxis, step_us: int, context: ReadContext
) -> None:
    """Set the readings of a series' newest step to NaN until the step is over.

    The sum of a step that has only begun is too small, and its mean is that of some minutes. A step
    is over where no more than half a reading is missing at its end, at the pace of the series. The
    counts of a counter stay: the first one in a step ends what was counted in the step before.
    """
    newest = rows.newest_readings()
    begin = axis.floor(newest, step_us)
    pace = statistics.steps.median if statistics.steps.total else step_us
    is_incomplete = (newest > 0) & (newest + 1.5 * pace < begin + step_us)
    if is_incomplete.any():
        own_pace = _recent_pace(rows, newest, is_incomplete, step_us)
        own_pace = np.where(np.isnan(own_pace), pace, own_pace)
        is_incomplete &= newest + 1.5 * own_pace < begin + step_us
    if not is_incomplete.any():
        return

    for i, (times, codes) in enumerate(zip(rows.times, rows.codes, strict=True)):
        is_in_newest = (times >= begin[codes]) & is_incomplete[codes]
        for target in rows.value_offsets:
            if target not in context.config.counter:
                rows.mask(target, i, is_in_newest)
    message = f"the newest step of {int(is_incomplete.sum())} series is incomplete and was skipped"
    context.listener(Notice(message))


def _recent_pace(rows: Rows, newest: Integers, is_asked: Flags, step_us: int) -> Doubles:
    """Return the pace of the newest readings of some series, `(series,)`; NaN if none."""
    parts = []
    for i, (times, codes) in enumerate(zip(rows.times, rows.codes, strict=True)):
        is_recent = is_asked[codes] & (times >= newest[codes] - _N_RECENT_STEPS * step_us)
        index = np.flatnonzero(is_recent & rows.has_reading(i))
        parts.append((codes[index].astype(np.int64), times[index]))
    series, recent = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((recent, series))

    # written in the order of time, so the newest reading of a series counts
    pace = np.full(rows.n_series, np.nan)
    pace[series[order]] = local_pace(recent[order], series[order])
    return pace


def _without_jitter(
    chunks: Sequence[Integers], steps: StepCounts, step_us: int, config: DataConfig
) -> list[Integers]:
    """Return times of rows that jitter about a grid, of which `--freq` is a multiple, on that grid.

    A stamp a second too early would else fall into the bin before. Times without such a grid stay.
    """
    own_us = steps.infer_step() if steps.total and config.hold is None else step_us
    limit = MAX_JITTER * own_us
    off = [_off_grid(chunk, own_us) for chunk in chunks]
    is_near = [np.abs(deviation) <= limit for deviation in off]
    n_near = sum(int(np.count_nonzero(flags)) for flags in is_near)
    if step_us % own_us or n_near < _NOMINAL_SHARE * sum(map(len, chunks)):
        return list(chunks)
    moves = zip(chunks, off, is_near, strict=True)
    return [chunk - np.where(flags, deviation, 0) for chunk, deviation, flags in moves]


def _off_grid(times: Integers, step_us: int, origin: Integers | int = 0) -> Integers:
    """Return how far each time is from the nearest point of the grid through `origin`."""
    return (times - origin + step_us // 2) % step_us - step_us // 2


def _snap(
    rows: Rows, statistics: StepStatistics, step_us: int, context: ReadContext
) -> tuple[list[Integers], Integers, Integers]:
    """Snap stamps that jitter a little to the grid; raise `DataError` for those far from it.

    The grid of a series begins at its first stamp. Where stamps jitter, it begins in 1970 if all
    lie near that one, so that a first stamp that is late does not move all others. Returns the
    times of rows, and the start and end of each series, `(series,)`.
    """
    first, end = statistics.start, statistics.end
    chunks = list(zip(rows.times, rows.codes, strict=True))
    if not any(_off_grid(times, step_us, first[codes]).any() for times, codes in chunks):
        return list(rows.times), first, end

    limit = MAX_JITTER * step_us
    is_near_1970 = all((np.abs(_off_grid(times, step_us)) <= limit).all() for times in rows.times)
    snapped: list[Integers] = []
    n_moved = n_before = 0
    for times, codes in chunks:
        off = _off_grid(times, step_us, 0 if is_near_1970 else first[codes])
        is_far = np.abs(off) > limit
        if is_far.any():
            row = n_before + int(np.argmax(is_far))
            raise _irregular(rows, statistics.steps, step_us, row, context)
        n_moved += int(np.count_nonzero(off))
        n_before += len(times)
        snapped.append(times - off)

    message = f"{n_moved} timestamps were moved onto the grid"
    zones = _propose_zones(rows, step_us, context)
    context.listener(WarningEvent("jitter", message, n_moved, proposals=zones))
    origin = 0 if is_near_1970 else first
    start, end = (bound - _off_grid(bound, step_us, origin) for bound in (first, end))
    return snapped, start, end


def _irregular(
    rows: Rows, steps: StepCounts, step_us: int, row: int, context: ReadContext
) -> DataError:
    """Return the error of a row that does not lie on the grid; raise that of a step that changes.

    It offers the step that fits, and what is right where sensors report changes alone.
    """
    config, median = context.config, steps.median
    on_change = reported_on_change(rows) if config.freq is None else None
    if config.freq is None and on_change is None:
        check_step_change(rows, context, step_us, min_share=0)

    fitting = fitting_step(steps.lengths, steps.counts, median)
    freq = config.freq or abbreviate(fitting)
    if config.freq is None and median >= SHORTEST_MONTH_US:
        n_months = min((1, 3, 12), key=lambda n: abs(np.log(n * MONTH_US / median)))
        freq = abbreviate(n_months * MONTH_US)
    proposals = [Proposal(("--freq", freq, "--agg", "mean"), "to resample")]
    proposals = list(_propose_zones(rows, step_us, context)) or proposals
    if on_change is not None:
        proposals.insert(0, on_change)
    reason = "" if on_change is None else ", as if sensors report only changes"
    return DataError(
        f"timestamps are irregular (typical spacing {describe_duration(round(median))}); this "
        f"one does not fit{reason}",
        code="irregular",
        location=context.source.location(row, context.schema.time),
        proposals=proposals,
    )


def _propose_zones(rows: Rows, step_us: int, context: ReadContext) -> tuple[Proposal, ...]:
    """Propose the zones in which days, or months, begin at midnight, of stamps that are in UTC.

    None where the user has named a zone.
    """
    if context.config.tz is not None or context.tz != "UTC" or step_us < DAY_US - HOUR_US:
        return ()
    condition = "if its days start at midnight there"
    return tuple(Proposal(("--tz", zone), condition) for zone in zones_of_midnights(rows))


def _step_of_readings(rows: Rows, context: ReadContext, step_us: int) -> int | None:
    """Return the step of the rows that hold a reading where all rows have another one, or none.

    So a sensor that is read rarely among others is read at its own step where it is the only
    target, and a logger whose events have rows at any time is read as its readings are. None where
    covariates fill the rows between, and where steps differ. In a long table only rows without a
    reading that lie off the grid of their series are left out.
    """
    schema = context.schema
    if schema.covariates or rows.n_future_rows:
        return None
    seen = [rows.has_reading(i) for i in range(len(rows.times))]
    n_seen = sum(map(np.count_nonzero, seen))
    if not 1 < n_seen < rows.n_rows:
        return None
    if schema.series is not None:
        return step_us if _only_empty_are_off(rows, seen, step_us) else None

    times = np.concatenate([times[has] for times, has in zip(rows.times, seen, strict=True)])
    lengths = np.diff(np.sort(times))
    if n_seen >= _MAX_SEEN_SHARE * rows.n_rows:
        is_on_grid = not (lengths % step_us).any()
        are_events = any(((chunk - times[0]) % step_us).any() for chunk in rows.times)
        return step_us if is_on_grid and are_events else None
    steps = StepCounts.of(lengths[lengths > 0])
    if not steps.total:
        return None

    if schema.step_us is not None:  # a model has settled the step
        multiple = steps.lengths / schema.step_us
        is_multiple = (np.abs(multiple - np.rint(multiple)) <= MAX_JITTER).all()
        is_longer = schema.step_us > step_us and (multiple > 1 - MAX_JITTER).all()
        return schema.step_us if is_multiple and is_longer else None
    own_step_us, n_rows = steps.commonest[0], rows.n_rows
    is_own = are_own_steps(own_step_us / step_us, steps.count_near(steps.median, 0.1), steps.total)
    return own_step_us if is_own and n_rows > n_seen else None


def _only_empty_are_off(rows: Rows, seen: Sequence[Flags], step_us: int) -> bool:
    """Tell whether rows lie off the grid through the first reading of their series, all empty."""
    first = np.full(rows.n_series, np.iinfo(np.int64).max)
    chunks = list(zip(rows.times, rows.codes, seen, strict=True))
    for times, codes, has in chunks:
        np.minimum.at(first, codes[has], times[has])
    are_off = [(times - first[codes]) % step_us != 0 for times, codes, _ in chunks]
    if any((off & has).any() for off, has in zip(are_off, seen, strict=True)):
        return False
    return any(off.any() for off in are_off)


def report(panel: Panel, context: ReadContext) -> None:
    """Report what is odd about the readings of one rank: gaps, sensors and steps.

    A trained model's readings were profiled in training, so that of them gaps alone are told.
    """
    schema, config, listener = context.schema, context.config, context.listener
    report_gaps(panel, context)
    if schema.step_us is not None or not panel.n_series:
        return

    warn_of_suspect_readings(panel, listener)
    warn_of_columns(panel, schema.targets, config, listener, is_long=context.is_long)
    warn_of_two_levels(panel, listener)
    if context.is_long:
        warn_of_one_sensor(panel, listener)
    warn_of_other_steps(panel, schema, listener)
    if config.hold is None and not config.is_resampled:
        warn_of_reports(panel, listener)


def report_gaps(panel: Panel, context: ReadContext) -> None:
    """Note how much is missing; warn of series with a gap that is longer than `--max-gap`."""
    config, listener, ranks = context.config, context.listener, context.ranks
    n_nan = int(np.count_nonzero(np.isnan(panel.target)))
    zeros = np.zeros((2, panel.n_series), np.int64)
    missing, longest = count_missing(panel) if n_nan else zeros
    counts = np.array([n_nan, missing.sum(), len(panel.target)], np.int64)
    n_nan, n_missing, n_rows = ranks.all_reduce(counts).tolist()
    longest_of_all = max(all_gather_object(ranks, int(longest.max(initial=0))))
    if n_nan and not n_missing:
        listener(Notice("nothing is missing except the hour skipped in spring"))
    if not n_missing:
        return

    gap = describe_duration(longest_of_all * panel.step_us)
    listener(Notice(f"{n_missing} of {n_rows} readings are missing (longest gap {gap})"))

    limit = config.max_gap_steps(panel.step_us)
    if limit is not None:
        problem = f"a gap longer than --max-gap {config.max_gap}"
        warn_of_names("long-gap", problem, take_names(panel.names, longest > limit), listener)


def trim_and_warn(panel: Panel, context: ReadContext) -> Panel:
    """Trim rows without any reading; warn of those at the end.

    Where covariates are known ahead, such rows are there to hold them.
    """
    trimmed = trim(panel, is_wide=not context.is_long)
    n_empty = (panel.end_us - trimmed.end_us) // panel.step_us
    if n_empty and not any(covariate.role == "known" for covariate in context.schema.covariates):
        message = (
            f"the last {n_empty} rows are empty; the forecast starts right after the last reading"
        )
        context.listener(WarningEvent("empty-tail", message, int(n_empty)))
    return trimmed


def trim(panel: Panel, *, is_wide: bool) -> Panel:
    """Cut rows without any reading off both ends: of a wide table, or of each series.

    The sensors of a wide table share their rows, so a row stays while one sensor has a reading.
    """
    seen = np.isfinite(panel.target)
    if seen.all() or not seen.any():
        return panel

    first_begin, begin, end = panel.offsets[:-1], panel.offsets[:-1], panel.offsets[1:]
    if is_wide:
        rows = np.flatnonzero(seen.reshape(panel.n_series, -1).any(0))
        begin, end = begin + rows[0], begin + rows[-1] + 1
    else:
        rows = np.flatnonzero(seen)
        first, last = np.searchsorted(rows, begin), np.searchsorted(rows, end) - 1
        is_empty = last < first  # a series without a reading stays as it is
        begin = np.where(is_empty, begin, rows[np.minimum(first, len(rows) - 1)])
        end = np.where(is_empty, end, rows[last] + 1)
    if (begin == first_begin).all() and (end == panel.offsets[1:]).all():
        return panel

    n_cut = begin - first_begin
    return replace(
        panel,
        target=concat_slices(panel.target, begin, end),
        offsets=offsets_from_lengths(end - begin),
        start=panel.start + n_cut * panel.step_us,
        covariates=panel.covariates and panel.covariates.shift(n_cut),
    )


def drop_empty(panel: Panel, context: ReadContext) -> Panel:
    """Drop series without any reading; raise where the user named one, or none is left.

    A model's schema keeps them: the forecast reports that a sensor of the model fell silent.
    """
    schema = context.schema
    has_reading = panel.count_readings() > 0
    empty = take_names(panel.names, ~has_reading)
    n_left = int(context.ranks.all_reduce(np.array([np.count_nonzero(has_reading)], np.int64))[0])
    if not empty:
        return panel
    named = [name for name in empty if name in context.config.target]
    if schema.step_us is not None and len(empty) < panel.n_series:
        return panel

    if not n_left and context.config.is_resampled:
        shorter = [step for step in reversed(USUAL_STEPS_US) if step < panel.step_us]
        raise DataError(
            f"no step of {format_duration(panel.step_us)} is complete",
            code="no-readings",
            proposals=[
                Proposal(("--freq", abbreviate(step_us)), "to use shorter steps")
                for step_us in shorter[:_N_SHORTER]
            ],
            hint="use more data",
        )
    if named or not n_left:
        raise DataError(
            f"column {(named or schema.targets)[0]!r} has no readings",
            code="no-readings",
            hint=f"choose another target of {context.source.name}",
        )
    warn_of_names("empty-series", "no readings, skipped", empty, context.listener)
    return panel.select(np.flatnonzero(has_reading))


def merge_ranks(panel: Panel, ranks: Ranks) -> Panel:
    """Return the panel of all ranks: first the series of the first rank, then of the others.

    Raises `DataError` where there is no series at all.
    """
    if ranks is SINGLE_PROCESS:
        return panel
    parts = all_gather_object(ranks, {"names": panel.names, "first_us": panel.first_us})
    names = tuple(name for part in parts for name in part["names"])
    n_series = len(names)
    first = sum(len(part["names"]) for part in parts[: ranks.rank])
    local = slice(first, first + panel.n_series)

    def widen(values: NDArray[_Number], fill: Any = 0) -> NDArray[_Number]:
        """Return values of all series; those of other ranks are not known in this process."""
        wide = np.full((n_series, *values.shape[1:]), fill, values.dtype)
        wide[local] = values
        return wide

    def widen_block(track: FeatureBlock) -> FeatureBlock:
        begin, low, high = widen(track.begin), widen(track.low), widen(track.high)
        return replace(track, begin=begin, low=low, high=high)

    covariates = panel.covariates and replace(
        panel.covariates,
        known=tuple(widen_block(track) for track in panel.covariates.known),
        past=widen_block(panel.covariates.past),
        static=widen(panel.covariates.static, np.nan),
    )
    is_local = np.zeros(n_series, np.bool_)
    is_local[local] = True
    return replace(
        panel,
        offsets=offsets_from_lengths(widen(panel.lengths)),
        start=all_gather(ranks, panel.start),
        names=names,
        base=all_gather(ranks, panel.base),
        first_us=min(part["first_us"] for part in parts if part["names"]),
        covariates=covariates,
        shared=RankPartition(ranks, is_local, all_gather(ranks, panel.lengths)),
    )


def check_same_schema(schema: Schema, ranks: Ranks) -> None:
    """Raise `DataError` where the schemas of ranks differ in their columns or zones."""
    schemas = all_gather_object(ranks, repr(schema))
    if any(text != schemas[0] for text in schemas):
        raise DataError(
            f"the buckets have different columns or time zones: process {ranks.rank} found "
            f"{schema}",
            code="buckets-differ",
            hint="recreate the folder from one table with  rnnforecast shard",
        )
