"""Read a table for training, or for a trained model; compare new readings with what it has seen.

Column names, series names, step, level, age and covariates that are known ahead are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, row_quantiles, take_names
from rnnforecast.data.axis import Flags, TimeAxis, parse_time_us
from rnnforecast.data.panel import Panel
from rnnforecast.data.scaling import OUTLIER_FACTOR, SPIKE_RUN
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import (
    DataError,
    Location,
    NotEnoughDataError,
    Proposal,
    QualityGateError,
    UsageError,
)
from rnnforecast.events import Event, Listener, ProgressEvent, WarningEvent, warn_of_names
from rnnforecast.parallel import SINGLE_PROCESS, Ranks
from rnnforecast.sources.shards import open_rank_slice
from rnnforecast.sources.source import Source, WrappedSource, open_table
from rnnforecast.tables.calendar import warn_of_time_in_columns
from rnnforecast.tables.evidence import sample_size
from rnnforecast.tables.future import append_future
from rnnforecast.tables.grid import FindTrainEnd, check_step, read_panel
from rnnforecast.tables.resample import drop_other_steps
from rnnforecast.tables.schema import (
    Schema,
    canonical_name,
    check_column,
    epoch_unit_of,
    infer_schema,
)
from rnnforecast.tables.steps import MAX_UTC_OFFSET_US
from rnnforecast.units import describe_duration, parse_duration_us

_MIN_SHIFT = 3.0
"""A recent median is never reported as another scale below this distance from the training level,
in scales of the training readings, however small the reach of the series is."""
_MIN_UNUSUAL = 6.0
"""Standard deviations of a covariate between its values in training and unusual ones."""
_STAMPS_SHOWN = 3
"""Time stamps that an error message lists."""
_SEARCH_GROWTH = 8
"""The window that is searched for the newest reading grows by this factor, so that a series that
has been silent for long needs few passes."""
STALE = "stale"
"""Code of the error and of the warning about the age of the newest reading."""


def read_for_training(
    data: object,
    options: DataConfig,
    listener: Listener,
    *,
    find_train_end: FindTrainEnd,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[Panel, Schema]:
    """Read a table onto a regular grid; return it with the schema inferred from its columns.

    Series that are read at a longer step than others are left out; the reader warns of them.
    `find_train_end` returns the time that ends the readings to learn from. With several `ranks`,
    each of them reads its own buckets of a folder that `shard` has made. Raises as `read_panel`
    does.
    """
    if ranks is not SINGLE_PROCESS:
        data = open_rank_slice(data, ranks.rank, ranks.n)

    source = open_table(data, options, listener)
    return read_inferred(source, options, listener, find_train_end=find_train_end, ranks=ranks)


def read_inferred(
    source: Source,
    options: DataConfig,
    listener: Listener,
    *,
    find_train_end: FindTrainEnd | None = None,
    ranks: Ranks = SINGLE_PROCESS,
    keeps_other_steps: bool = False,
    as_of: str | None = None,
) -> tuple[Panel, Schema]:
    """Infer the schema of an open source, and read it, up to the as-of time if there is one.

    Where times then repeat that did not in the first rows, the key is looked for in all rows.
    Series that are read at a longer step than others are left out, unless `keeps_other_steps`.
    Raises as `read_panel` does.
    """

    def read(source: Source, listener: Listener, *, all_rows: bool) -> tuple[Panel, Schema]:
        schema = infer_schema(source, options, listener, all_rows=all_rows)
        panel, schema = read_panel(
            source,
            schema,
            options,
            listener,
            as_of=as_of,
            find_train_end=find_train_end,
            ranks=ranks,
        )
        are_columns = len(schema.targets) > 1
        names = schema.targets if are_columns else panel.names
        warn_of_time_in_columns(names, panel, listener, are_columns=are_columns)
        if keeps_other_steps or ranks is not SINGLE_PROCESS:
            return panel, schema
        return drop_other_steps(panel, schema)

    is_known = options.series is not None or options.id_from_columns or ranks is not SINGLE_PROCESS
    if is_known or source.n_rows_estimate <= sample_size(len(source.columns)):
        return read(source, listener, all_rows=False)

    events: list[Event] = []

    def hold(event: Event) -> None:
        """Report progress at once, and the rest once the schema is known to be right."""
        (listener if isinstance(event, ProgressEvent) else events.append)(event)

    keeps_rules = not options.agg and options.on_duplicate == "error"
    try:  # a rule for duplicates would hide that a key is missing
        result = read(UnlocatedSource(source), hold, all_rows=not keeps_rules)
    except RowError:
        return read(source, listener, all_rows=True)
    for event in events:
        listener(event)
    return result


class RowError(Exception):
    """An error of one row was to be raised."""


@dataclass(frozen=True)
class UnlocatedSource(WrappedSource):
    """A source that raises `RowError` instead of locating a row, which takes long."""

    def location(self, row: int, column: str) -> Location:
        """Raise `RowError`."""
        raise RowError(f"row {row} of {column!r}")


@dataclass(frozen=True)
class TrainingStats:
    """Statistics of the series that a network was trained on, `(series,)` each."""

    names: tuple[str, ...]
    base: Doubles
    center: Floats
    """Level of the training readings, less the base; NaN where there was none."""
    scale: Floats
    reach: Floats
    """In scales: a single reading further from the level is treated as missing."""
    is_expected: Callable[[str], bool] | None = None
    """Tells which of the series must be among the readings; None: all of them."""

    def missing_series(self, names: Sequence[str]) -> list[str]:
        """Return the expected series that are missing from these names."""
        present = set(names)
        missing = [name for name in self.names if name not in present]
        return missing if self.is_expected is None else list(filter(self.is_expected, missing))


def read_past(
    data: object,
    *,
    schema: Schema,
    options: DataConfig,
    as_of: str | None,
    future: object = None,
    stats: TrainingStats,
    listener: Listener,
) -> tuple[Past, Schema]:
    """Read new readings up to the as-of time, with one origin per series, at its end.

    `future` is a second table with the covariates that are known ahead; without it they stand in
    rows after the last reading. Raises `DataError` where columns, step or time zone do not match
    the schema, and `UsageError` for an as-of time that has not come yet: files that are named by it
    would be the newest ones for ever.
    """
    check_as_of(as_of, schema.axis, options)
    source = open_table(
        data, options, listener, time_column=schema.time, series_column=schema.series, tz=schema.tz
    )
    if future is not None:
        source = append_future(source, future, schema, options, listener)

    panel, matched = read_matching(
        source, schema=schema, options=options, stats=stats, listener=listener, as_of=as_of
    )
    return make_past(panel), matched


def check_as_of(as_of: str | None, axis: TimeAxis, options: DataConfig) -> None:
    """Raise `UsageError` for an as-of time that has not come yet."""
    if as_of is None or options.allow_future:
        return
    now_us = time.time_ns() // 1000 + (MAX_UTC_OFFSET_US if axis.tz is None else 0)
    if parse_time_us(as_of, axis.tz) > now_us:
        raise UsageError(
            f"--as-of {as_of} is in the future",
            code="future",
            proposals=[Proposal(("--allow-future",), "if that is intended")],
        )


def read_for_model(
    data: object, *, schema: Schema, options: DataConfig, stats: TrainingStats, listener: Listener
) -> tuple[Panel, Schema]:
    """Read all of a table for a trained model. Raises as `read_past` does."""
    source = open_table(
        data, options, listener, time_column=schema.time, series_column=schema.series, tz=schema.tz
    )
    return read_matching(source, schema=schema, options=options, stats=stats, listener=listener)


def read_matching(
    source: Source,
    *,
    schema: Schema,
    options: DataConfig,
    stats: TrainingStats,
    listener: Listener,
    as_of: str | None = None,
) -> tuple[Panel, Schema]:
    """Read an open source as the training readings were. Raises as `read_past` does."""
    matched = match_schema(source, schema, options)
    base = dict(zip(stats.names, stats.base.tolist(), strict=True))
    panel, matched = read_panel(source, matched, options, listener, known_offsets=base, as_of=as_of)
    check_step(panel, schema)
    _check_zone(matched, schema)
    return _with_known_names(panel, stats, listener), matched


def match_schema(source: Source, schema: Schema, config: DataConfig) -> Schema:
    """Find the columns of a stored schema in a source by name; others, and the order, are ignored.

    Columns that the user names win. Raises `DataError` for one that is missing.
    """
    columns = {column.name: column for column in source.columns}
    matched = replace(
        schema,
        time=config.time or schema.time,
        series=config.series or schema.series,
        targets=config.target or schema.targets,
    )
    names = (matched.time, matched.series, *matched.targets, *matched.covariate_names)
    for name in names:
        if name is not None:
            check_column(name, columns, source.name, code="missing-column", used=names)

    unit = epoch_unit_of(columns[matched.time], source, config)
    return replace(matched, epoch_unit=unit)


def _check_zone(schema: Schema, trained: Schema) -> None:
    """Raise `DataError` if only these stamps, or only the model's, carry a zone."""
    if (schema.tz is None) == (trained.tz is None):
        return

    if schema.tz is None:
        raise DataError(
            f"the model was trained on timestamps with a time zone ({trained.tz}), but these "
            "have none",
            code="other-zone",
            proposals=[Proposal(("--tz", trained.tz or "UTC"), "if they are in that time zone")],
        )
    raise DataError(
        "the model was trained on timestamps without a time zone, but these have one "
        f"({schema.tz})",
        code="other-zone",
        hint="write the timestamps without an offset, or retrain on this data",
    )


def _with_known_names(panel: Panel, known: TrainingStats, listener: Listener) -> Panel:
    """Rename series whose names are numbers that the model writes differently: 7, 7.0 and 007.

    Raises `DataError` where a number could be several series of the model.
    """
    present = set(panel.names)
    absent = [name for name in known.names if name not in present]
    by_number = {canonical_name(name): name for name in absent}
    unknown = present - set(known.names)
    renamed = {n: by_number[canonical_name(n)] for n in unknown if canonical_name(n) in by_number}
    if not renamed:
        return panel

    first = next(name for name in panel.names if name in renamed)
    if len(by_number) < len(absent) or len(set(renamed.values())) < len(renamed):
        raise DataError(
            f"series {first!r} is not in the model and matches several of its series",
            code="other-names",
            hint=f"use the names of the model, e.g. {renamed[first]!r}",
        )
    message = f"{first!r} is read as {renamed[first]!r} of the model, and so on"
    listener(WarningEvent("names-written-otherwise", message, len(renamed)))
    names = tuple(renamed.get(name, name) for name in panel.names)

    # A renamed series was read with a base of its own: replace it by the one of the model.
    base_of = dict(zip(known.names, known.base.tolist(), strict=True))
    base = np.array([base_of.get(name, b) for name, b in zip(names, panel.base, strict=True)])
    shift = np.repeat(panel.base - base, panel.lengths)
    return replace(panel, names=names, target=(panel.target + shift).astype(np.float32), base=base)


def warn_unusual_series(
    past: Past, known: TrainingStats, listener: Listener, *, lookback: int, horizon: int
) -> tuple[str, ...]:
    """Warn of series that are missing, new or stale, or whose newest readings are far off.

    `lookback` and `horizon` are in steps. A series is stale where its newest reading is more than a
    horizon older than that of all series. Returns the names of the missing and stale ones.
    """
    position = _positions(past, known)
    is_seen = np.isfinite(past.history(lookback))
    n_missing = np.where(is_seen.any(1), np.argmax(is_seen[:, ::-1], axis=1), lookback)
    # A series without readings may end with rows of covariates only: it is not the newest one.
    times = past.cutoff_time
    newest = times[n_missing < lookback].max(initial=times.min(initial=0))
    is_stale = np.maximum((newest - times) // past.step_us, 0) + n_missing > horizon

    limit = np.maximum(known.reach[np.maximum(position, 0)] / OUTLIER_FACTOR, _MIN_SHIFT)
    has_shifted: Flags = np.zeros(len(position), np.bool_)
    for n in (lookback, min(horizon, lookback)):
        has_shifted |= np.nan_to_num(_drift(past, known, position, n)) > limit

    # The three newest readings, `(series, 3)`: the network treats single ones as missing.
    newest_values = past.history(SPIKE_RUN)
    trained = np.maximum(position, 0)[:, None]
    distance = np.abs(newest_values - known.center[trained])
    is_beyond = distance > known.reach[trained] * known.scale[trained]
    is_beyond = (position >= 0)[:, None] & is_beyond

    def warn(code: str, problem: str, is_affected: Flags) -> None:
        warn_of_names(code, problem, take_names(past.names, is_affected), listener)

    missing = known.missing_series(past.names)
    warn_of_names("vanished-series", "not in the data", missing, listener)
    warn("new-series", "new series, not in the training data", position < 0)
    problem = "no reading for longer than the horizon, so the forecast is uncertain"
    warn("stale-series", problem, is_stale)
    problem = "the newest reading is implausible and treated as missing"
    warn("far-reading", problem, is_beyond[:, -1] & ~is_beyond.all(1))
    problem = "newest readings far outside the training range (is the unit the same?)"
    warn("other-scale", problem, has_shifted | is_beyond.all(1))
    return (*missing, *take_names(past.names, is_stale))


def warn_unusual_covariates(
    past: Past, mean: Floats, scale: Floats, listener: Listener, *, lookback: int, horizon: int
) -> None:
    """Warn of covariates known ahead whose values are far from those in training.

    `mean` and `scale` are those of the training, `(feature,)`, the known ones first. The median of
    the look-back is compared, and that of the values ahead: another file may have another unit.
    """
    features = past.features(lookback, horizon)
    if features is None:
        return
    unusual = []
    for number, name in enumerate(past.known_names):
        values = features.known[:, number]
        if np.isin(values[np.isfinite(values)], (0, 1)).all():
            continue  # a rare state
        for part in (values[:, :lookback], values[:, lookback:]):
            finite = part[np.isfinite(part)]
            if len(finite) and abs(np.median(finite) - mean[number]) > _MIN_UNUSUAL * scale[number]:
                unusual.append(name)
    message = "known covariates far outside the training range (is the unit the same?)"
    names = list(dict.fromkeys(unusual))
    warn_of_names("other-scale-of-covariates", message, names, listener)


def require_series(past: Past, known: TrainingStats) -> None:
    """Raise `DataError` where a series that the network was trained on is missing."""
    missing = known.missing_series(past.names)
    if missing:
        raise DataError(
            f"{len(missing)} series of the model are not in the data: {', '.join(missing[:5])}"
            + ", ..." * (len(missing) > 5),
            code="vanished-series",
            hint="add the missing series, or omit  --require-series",
        )


def check_drift(past: Past, known: TrainingStats, *, lookback: int, limit: float) -> None:
    """Raise `QualityGateError` where the median of a look-back is too far from its trained level.

    `limit` is in scales of the training readings; a series that is new has no level.
    """
    drift = np.nan_to_num(_drift(past, known, _positions(past, known), lookback))
    worst = int(np.argmax(drift))

    if drift[worst] > limit:
        n_over = int(np.count_nonzero(drift > limit))
        raise QualityGateError(
            f"{n_over} series have drifted from their training level by more than --max-drift "
            f"{limit:g} standard deviations: {past.names[worst]} by {drift[worst]:.1f}",
            code="drift",
            hint="check the unit; if the level is correct, retrain on newer data",
        )


def _positions(past: Past, known: TrainingStats) -> NDArray[np.int64]:
    """`(series,)`: position of each series among those of the network; -1 for a new one."""
    position_of = {name: position for position, name in enumerate(known.names)}
    return np.array([position_of.get(name, -1) for name in past.names], np.int64)


def _drift(past: Past, known: TrainingStats, position: NDArray[np.int64], n: int) -> Doubles:
    """`(series,)`: distance of the median of the last n rows from the trained level, in scales."""
    drift = np.full(len(position), np.nan)
    rows = np.flatnonzero((position >= 0) & (past.observed_share(n) > 0))
    if len(rows):
        trained = position[rows]
        (medians,) = row_quantiles(past.subset(rows).history(n), (0.5,))
        drift[rows] = np.abs(medians - known.center[trained]) / known.scale[trained]
    return drift


def newest_readings(past: Past) -> Integers:
    """`(origin,)`: time of the newest reading of each, in microseconds; -1 where there is none."""
    newest = np.full(past.n_origins, -1, np.int64)
    pending, n = np.arange(past.n_origins), 1
    while len(pending):
        part = past.subset(pending)
        is_seen = np.isfinite(part.history(n))
        n_missing = np.argmax(is_seen[:, ::-1], axis=1)
        has_reading = is_seen.any(1)
        newest[pending[has_reading]] = (part.cutoff_time - n_missing * past.step_us)[has_reading]
        pending = pending[~has_reading & (part.cutoff > n)]
        n *= _SEARCH_GROWTH
    return newest


def newest_reading(past: Past) -> int:
    """Return the time of the newest reading of all, in microseconds; -1 where there is none."""
    return int(newest_readings(past).max(initial=-1))


def check_freshness(past: Past, config: PredictConfig, listener: Listener) -> int:
    """Return the age of the newest reading, and warn or raise as `check_age` does."""
    return check_age(newest_reading(past), past.axis, config, listener)


def check_age(newest: int, axis: TimeAxis, config: PredictConfig, listener: Listener) -> int:
    """Return the age of the newest reading in microseconds, 0 where it is ahead of the clock.

    `newest` is its time in microseconds on the axis. Warns where the age is over `warn_age`; raises
    `NotEnoughDataError` with the code `stale` where it is over `max_age`. Stamps without a zone are
    compared with this machine's local time.
    """
    if config.as_of is not None:
        now_us = parse_time_us(config.as_of, axis.tz)
    else:
        now_us = time.time_ns() // 1000
        if axis.tz is None:  # `datetime` has no zone as far from UTC as a machine's may be
            now_us += time.localtime(now_us / 1e6).tm_gmtoff * 1_000_000
    age = max(0, now_us - int(axis.to_utc(np.array([newest]))[0]))
    message = f"newest reading ({axis.format(newest)}) is {describe_duration(age)} old"

    if config.max_age is not None and age > parse_duration_us(config.max_age):
        raise NotEnoughDataError(
            f"{message}; limit --max-age {config.max_age}",
            code=STALE,
            hint="check the data feed; nothing was published, the previous forecast is unchanged",
        )
    if config.warn_age is not None and age > parse_duration_us(config.warn_age):
        listener(WarningEvent(STALE, f"{message}; limit --warn-age {config.warn_age}"))
    return age


def unix_time_s(time_us: int, axis: TimeAxis) -> float:
    """Return the time of a reading as Unix time: seconds since 1970 in UTC.

    A time without a zone is taken for this machine's local time.
    """
    time_us = int(axis.to_utc(np.array([time_us]))[0])
    if axis.tz is not None:
        return time_us / 1e6
    return (datetime(1970, 1, 1) + timedelta(microseconds=time_us)).timestamp()


def check_known_ahead(past: Past, horizon: int, *, needed: Flags | None = None) -> Flags:
    """`(origin,)`: which origins lack a value of a covariate that must be known over the horizon.

    `needed` are the origins that the network forecasts, by default all. One of them that ended
    before the others may be left out, or forecast by a fallback. Raises `DataError`, with the
    stamps, where one that ends with the newest lacks a value.
    """
    if needed is None:
        needed = np.ones(past.n_origins, np.bool_)
    features = past.features(1, horizon)
    if not past.n_features[0] or features is None or not needed.any():
        return np.zeros(past.n_origins, np.bool_)

    is_unknown = np.isnan(features.known[:, :, 1:])  # (origin, feature, lead)
    lacks_value: Flags = is_unknown.any((1, 2)) & needed
    is_newest = past.cutoff_time == past.cutoff_time[needed].max()
    origins = np.flatnonzero(lacks_value & is_newest)
    if not len(origins):
        return lacks_value

    origin = origins[0]
    feature = int(np.argmax(is_unknown[origin].any(1)))
    leads = np.flatnonzero(is_unknown[origin, feature]) + 1
    column = past.known_names[feature].partition("=")[0]
    times = past.cutoff_time[origin] + leads * past.step_us
    stamps = ", ".join(past.axis.format(int(time)) for time in times[:_STAMPS_SHOWN])
    more = f", ... ({len(times)} of {horizon})" if len(times) > _STAMPS_SHOWN else ""
    n_more = len(origins) - 1
    more_series = f"; {n_more} more series also lack values" if n_more else ""
    n_known = int(np.argmax(is_unknown[origins].any((0, 1))))
    fewer = f" ; or forecast only the steps that have one, with  --horizon {n_known}"
    raise DataError(
        f"{column!r} has no value for {past.names[past.series[origin]]!r} at "
        f"{stamps}{more}{more_series}",
        code="missing-future",
        hint="add rows with these timestamps and empty targets below the last reading, or "
        f"pass them with  --future FILE{fewer if n_known else ''}",
    )
