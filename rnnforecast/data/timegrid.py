"""Time stamps to rows of a regular grid: zones, the step, gaps, duplicates.

It takes a source's batches and a schema and gives a Panel; nothing after this validates again.
Times are microseconds since 1970, UTC for aware stamps, wall clock for naive ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from rnnforecast.data.aligning import JITTER, align
from rnnforecast.data.calendar import with_calendar
from rnnforecast.data.cleaning import clean_rows, warn_of_oddities, without_stuck
from rnnforecast.data.cutoff import rows_until
from rnnforecast.data.features import settle_covariates
from rnnforecast.data.futuretimes import judge_future
from rnnforecast.data.levels import base_of_column
from rnnforecast.data.order import Order, Steps, find_order
from rnnforecast.data.panel import Panel, pick
from rnnforecast.data.placing import place_rows
from rnnforecast.data.ranks import ALONE, Ranks, all_say
from rnnforecast.data.rows import Rows, read_rows
from rnnforecast.data.scattering import Grid
from rnnforecast.data.schema import Schema
from rnnforecast.data.sharing import check_alike, share, steps_of_all
from rnnforecast.data.summertime import missing_of
from rnnforecast.data.trimming import drop_empty, trim_and_warn
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import format_duration, parse_duration_us
from rnnforecast.errors import DataError, NotEnoughDataError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.sources.reading import Source

_SPARSE = 20
_RESET_STEPS, _RESETS = 10, 0.01
"""A jump back by more steps, and an hour, is a clock that was reset, unless many rows have one."""
_HOUR_US = 3_600_000_000


LearnsUntil = Callable[[Panel, str | None], int]
"""Says of a panel, and the zone of its stamps, which moment ends what is learnt from."""


def read_panel(
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    known_base: Mapping[str, float] = MappingProxyType({}),
    as_of: str | None = None,
    learns_until: LearnsUntil | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Panel, Schema]:
    """Read a source onto a regular grid; return it with the schema, step and zone filled in.

    A missing reading is NaN, and so is every step without a row. `known_base` is what a model
    subtracts from the series that it knows; readings later than `as_of` are not used; which texts
    are told apart rests on the rows before what `learns_until` says of a panel. Of `ranks` each
    reads a source of its own, and the panel is that of all. Raises `DataError` for stamps that
    cannot be read, are irregular, or repeat with different readings, and for readings that are not
    finite.
    """
    check_alike(schema, ranks)
    rows, tz = read_rows(source, schema, config, listener, known_base=known_base)
    if as_of is not None:
        rows, source = rows_until(rows, source, as_of, schema, tz)
    clean_rows(rows, schema, config, listener, tz=tz)
    schema = _on_base(rows, schema)
    panel = _to_grid(rows, source, schema, config, listener, is_aware=tz is not None, ranks=ranks)
    panel = without_stuck(panel, config, listener)
    panel = trim_and_warn(panel, schema, listener)
    own = drop_empty(panel, schema, config, source, listener, ranks)
    panel = share(own, ranks)
    until_us = learns_until(panel, tz) if learns_until and schema.covariates else None
    panel, schema = settle_covariates(
        panel, schema, rows.texts, config, listener, until_us=until_us
    )
    panel = with_calendar(panel, config, schema.tz or tz)
    _note_gaps(own, config, listener, tz, ranks)
    if schema.step_us is None and own.n_series:  # those of a model were looked at in training
        warn_of_oddities(own, listener, tz=tz)
    targets = schema.targets if schema.series else panel.names
    schema = replace(schema, step_us=panel.step_us, tz=tz, targets=targets)
    check_alike(schema, ranks)
    return panel, schema


def _to_grid(
    rows: Rows,
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    is_aware: bool,
    ranks: Ranks,
) -> Panel:
    """Find the step, and put each row on its grid."""
    order = find_order(rows)
    step_us = _find_step(steps_of_all(order.steps, ranks), rows, schema, config)
    if not config.allow_future:
        judge_future(rows, step_us, source, schema, listener, is_aware=is_aware)
    _note_jumps_back(order, rows, step_us, listener)
    order = align(rows, order, step_us, source, schema, config, listener)
    grid = _grid_of(rows, order, step_us, source, schema)
    return place_rows(rows, grid, source, schema, config, listener)


def _on_base(rows: Rows, schema: Schema) -> Schema:
    """Subtract from large covariates what a model does, or else their first level, in place."""
    covariates = []
    for covariate in schema.covariates:
        chunks, base = rows.covariates[covariate.name], covariate.base
        if schema.step_us is None:
            base = base_of_column(rows.times, chunks)
        if base:
            chunks = [chunk - base for chunk in chunks]
        rows.covariates[covariate.name] = [c.astype(np.float32, copy=False) for c in chunks]
        covariates.append(replace(covariate, base=base))
    return replace(schema, covariates=tuple(covariates))


def check_step(panel: Panel, schema: Schema) -> None:
    """Raise `DataError` unless the readings come at the step that the model was trained on."""
    if schema.step_us is not None and panel.step_us != schema.step_us:
        expected, found = format_duration(schema.step_us), format_duration(panel.step_us)
        is_finer = schema.step_us % panel.step_us == 0
        raise DataError(
            f"the model expects a reading every {expected}, but these come every {found}",
            code="other-step",
            hint=f"to bring them to its step, add  --freq {expected.replace(' ', '')} --agg mean"
            if is_finer
            else "pass readings of the model's step, or train again on these",
        )


def _note_jumps_back(order: Order, rows: Rows, step_us: int, listener: Listener) -> None:
    """Warn where the time of a series goes back by many steps: parts moved, or a clock reset."""
    n_rows = rows.n_rows
    far = order.back[order.back > max(_RESET_STEPS * step_us, _HOUR_US)]
    if rows.n_planned and len(far) <= rows.n_series:
        return  # a plan begins before the readings end
    if 0 < len(far) <= _RESETS * n_rows:
        most = format_duration(int(far.max()))
        message = f"the time goes back {len(far)} times, by {most} at most: the rows are sorted"
        listener(Warned("time-goes-back", message, len(far)))


def _find_step(steps: Steps, rows: Rows, schema: Schema, config: DataConfig) -> int:
    """Return the step: what the user said, or the commonest one found.

    One reading has none; then it is the one that the model was trained on.
    """
    if config.freq:
        return parse_duration_us(config.freq)
    if not steps.total and schema.step_us is not None:
        return schema.step_us
    if not steps.total:
        n_rows = rows.n_rows
        what = "1 row of readings is" if n_rows == 1 else f"{n_rows} rows without a second time are"
        raise NotEnoughDataError(
            f"{what} not enough: training needs at least lookback + horizon of them",
            code="too-short",
            hint="pass more readings",
        )
    step, count = steps.commonest
    near = steps.median
    if count < 0.5 * steps.total and steps.count_near(near, JITTER) > 0.5 * steps.total:
        return _round_step(near)
    return step


def _round_step(step: float) -> int:
    """Round a jittering step to the coarsest unit that changes it by less than one percent."""
    for unit in (3_600_000_000, 60_000_000, 1_000_000, 100_000, 1_000):
        rounded = round(step / unit) * unit
        if rounded and abs(rounded - step) < 0.01 * step:
            return int(rounded)
    return round(step)


def _grid_of(rows: Rows, order: Order, step_us: int, source: Source, schema: Schema) -> Grid:
    lengths = (order.end - order.start) // step_us + 1
    n_rows, n_grid = rows.n_rows, int(lengths.sum())
    if n_grid > max(_SPARSE * n_rows, 10_000):
        raise _sparse(rows, step_us, n_grid, source, schema)
    return Grid(order.start, lengths, step_us)


def _sparse(rows: Rows, step_us: int, n_grid: int, source: Source, schema: Schema) -> DataError:
    """Name the row whose stamp lies furthest from the middle of all."""
    times = np.concatenate(rows.times)
    far = int(np.argmax(np.abs(times - np.median(times))))
    return DataError(
        f"{len(times)} rows spread over {n_grid} steps of {format_duration(step_us)}; "
        "this stamp lies furthest from the others",
        code="sparse",
        location=source.location(far, schema.time),
        hint="correct or remove it if it is wrong; if readings are that rare, say a longer step, "
        "such as  --freq 1d --agg mean",
    )


def _note_gaps(
    panel: Panel, config: DataConfig, listener: Listener, tz: str | None, ranks: Ranks
) -> None:
    """Say how much is missing; warn of series with a gap that is longer than the user accepts."""
    n_nan = int(np.count_nonzero(np.isnan(panel.target)))
    nothing = np.zeros((2, panel.n_series), np.int64)
    missing, longest = missing_of(panel, tz) if n_nan else nothing
    counts = np.array([n_nan, missing.sum(), len(panel.target)], np.int64)
    n_nan, n_missing, n_rows = ranks.total(counts).tolist()
    most = max(all_say(ranks, int(longest.max(initial=0))))
    if n_nan and not n_missing:
        listener(Noted("nothing is missing but the hour that clocks skip in spring"))
    if not n_missing:
        return
    what = f"{n_missing} of {n_rows} readings are missing, the longest gap is "
    listener(Noted(what + format_duration(most * panel.step_us)))
    limit = config.max_gap_steps(panel.step_us)
    if limit is not None and longest.max(initial=0) > limit:
        names = pick(panel.names, np.flatnonzero(longest > limit))
        listener(Warned.naming("long-gap", f"a gap longer than --max-gap {config.max_gap}", names))
