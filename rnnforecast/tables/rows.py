"""All rows of a source as chunks of flat arrays: times, series codes, readings and covariates.

`Rows` owns the arrays and changes them in place, so that the readings are held twice only for a
moment. It goes through four stages, and each method checks that it is called in the right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.arrays import (
    HALF_TURN,
    ArrayBuilder,
    Doubles,
    Floats,
    Integers,
    offsets_from_lengths,
    take_names,
    wrap_angles,
)
from rnnforecast.data.axis import ELAPSED_UTC, Flags, TimeAxis, format_timestamp, parse_time_us
from rnnforecast.data.scaling import LARGE_READING, find_value_offsets
from rnnforecast.errors import DataError, Location, NotEnoughDataError, Proposal
from rnnforecast.events import Listener, Notice, ProgressEvent, WarningEvent, warn_of_names
from rnnforecast.parallel import SINGLE_PROCESS, Ranks
from rnnforecast.sources.columns import is_integer, without_empty_tail
from rnnforecast.sources.csv import report_skipped
from rnnforecast.sources.files import check_memory, thread_map
from rnnforecast.sources.inputs import reading
from rnnforecast.sources.source import Source, WrappedSource
from rnnforecast.tables.future import future_frame_of
from rnnforecast.tables.roles import CONSTANT, SAME_IN_SERIES
from rnnforecast.tables.schema import Covariate, Schema, visible_name
from rnnforecast.tables.timestamps import (
    REPAIR_MESSAGES,
    TimestampReader,
    days_in_order,
    propose_zones,
    tz_localize,
)

_MAX_TEXTS = 10_000
"""A text column with more different texts than this is no categorical covariate."""
_MAX_EXACT = 2.0**53
"""Doubles hold every whole number up to this."""
MAX_READING = 1e20
"""No sensor reads more; whole numbers of 64 bits are smaller."""
_MIN_CONSTANT = 24
"""Fewer readings are the same by chance."""
_MOSTLY_FILLED = 0.95
"""What nobody measures stands in this share of rows at least: a sensor may be read rarely."""

Codes = NDArray[np.integer]
Chunks = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class ReadContext:
    """The source that is read, the roles of its columns, options, listener and ranks."""

    source: Source
    schema: Schema
    config: DataConfig
    listener: Listener
    ranks: Ranks = SINGLE_PROCESS
    tz: str | None = None
    """Time zone of the stamps, once the rows have been read; None for stamps without one."""

    @property
    def is_long(self) -> bool:
        """Whether a column names the series."""
        return self.schema.series is not None


@dataclass(frozen=True)
class Grid:
    """Where each series of rows lies on the grid of one step."""

    start: Integers
    """`(series,)`: time of the first grid row, in microseconds."""
    lengths: Integers
    step_us: int
    axis: TimeAxis = ELAPSED_UTC

    @property
    def offsets(self) -> Integers:
        """`(series + 1,)`: position of each series' first grid row, and the end of the last."""
        return offsets_from_lengths(self.lengths)

    @property
    def n_rows(self) -> int:
        """Number of grid rows of all series, which are the positions of one target."""
        return int(self.lengths.sum())

    def times_at(self, positions: Integers) -> Integers:
        """Return the times of positions in microseconds."""
        series = np.searchsorted(self.offsets, positions, side="right") - 1
        return self.start[series] + (positions - self.offsets[series]) * self.step_us


class Stage(Enum):
    """How far rows are on their way from a source to the grid."""

    READ = "read"
    """As the source has them, up to the as-of time."""
    CLEANED = "cleaned"
    """Readings that do not count are NaN; covariates are float32, less their value offset."""
    ALIGNED = "aligned"
    """All times lie on the grid."""
    PLACED = "placed"
    """Times have become positions; columns are taken out one at a time, and then freed."""


@dataclass
class Rows:
    """All rows of a source in the order of the file, in chunks of the same lengths per column.

    The stages follow each other in the order of `Stage`. Raises `RuntimeError` where a method is
    called in a stage that is not its own.
    """

    _times: list[Integers]
    """Microseconds since 1970, UTC or wall clock."""
    _codes: list[Codes]
    """Number of each row's series; 0 in all rows of a wide table."""
    _readings: dict[str, list[Floats]]
    """Chunks of each target, less its value offset; NaN where a reading is missing."""
    _covariates: dict[str, list[Floats]]
    """Chunks of each covariate; a text is the number of it in `texts`."""
    value_offsets: dict[str, Doubles]
    """What is subtracted from each target, `(series,)`; a wide table has one series per target."""
    names: list[str]
    """Keys of the series, in the order of their first rows; of a wide table its targets."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Texts of each text covariate, in order of appearance."""
    future_name: str = ""
    """Name in messages of the table of future covariates, whose rows come last."""
    n_future_rows: int = 0
    stage: Stage = Stage.READ
    exact_times: list[Integers] = field(default_factory=list)
    """Chunks of times as they were before they were put on the grid of `--agg`."""
    zones: tuple[Proposal, ...] | None = None
    """Zones that stamps with several offsets from UTC may be of; None for other stamps."""
    until_us: int = 0
    """When the values that `--hold` holds end: a step after the newest reading."""
    signed: tuple[str, ...] = ()
    """Targets of directions, some of which are negative."""
    has_hour_24: bool = False
    """Whether stamps have a time of day of 24:00 or later."""

    @property
    def n_rows(self) -> int:
        """Number of rows of the source."""
        return sum(map(len, self.times))

    @property
    def n_series(self) -> int:
        """Number of series that the codes distinguish."""
        return len(next(iter(self.value_offsets.values())))

    @property
    def times(self) -> Sequence[Integers]:
        """Chunks of times in microseconds, until the rows are placed."""
        self._check(Stage.READ, Stage.CLEANED, Stage.ALIGNED)
        return self._times

    @property
    def codes(self) -> Sequence[Codes]:
        """Chunks of series numbers, until the rows are placed."""
        self._check(Stage.READ, Stage.CLEANED, Stage.ALIGNED)
        return self._codes

    def readings(self, target: str) -> Sequence[Floats]:
        """Return the chunks of a target that has not been taken yet."""
        return self._readings[target]

    def has_reading(self, chunk: int) -> Flags:
        """`(row,)`: which rows of a chunk hold a reading of any target."""
        seen: Flags = np.any([np.isfinite(c[chunk]) for c in self._readings.values()], axis=0)
        return seen

    def newest_readings(self) -> Integers:
        """`(series,)`: time of the newest reading of any target; the least integer for none."""
        newest = np.full(self.n_series, np.iinfo(np.int64).min)
        for i, (times, codes) in enumerate(zip(self.times, self.codes, strict=True)):
            seen = self.has_reading(i)
            np.maximum.at(newest, codes[seen], times[seen])
        return newest

    def keep_until(self, as_of: str, context: ReadContext) -> ReadContext:
        """Drop the rows after a moment; return a context with a source that locates the others.

        Where covariates are known ahead, later rows of series that have begun stay, with nothing
        but those. Raises `NotEnoughDataError` where no row is left.
        """
        self._check(Stage.READ)
        until_us = parse_time_us(as_of, context.tz)
        is_late = [times > until_us for times in self._times]
        has_begun = np.zeros(self.n_series, np.bool_)
        for codes, late in zip(self._codes, is_late, strict=True):
            has_begun[codes[~late]] = True

        if not has_begun.any():
            first = format_timestamp(min(int(times.min()) for times in self._times), context.tz)
            raise NotEnoughDataError(
                f"--as-of {as_of} is before the first reading, {first}",
                code="too-short",
                hint="use a later time",
            )

        known = {c.name for c in context.schema.covariates if c.role == "known"}
        selected = [~late for late in is_late]
        if known:
            selected = [has_begun[codes] for codes in self._codes]
            unknown = [c for name, c in self._covariates.items() if name not in known]
            for chunks in (*self._readings.values(), *unknown):
                for chunk, late in zip(chunks, is_late, strict=True):
                    chunk[late] = np.nan
        return self._select(selected, has_begun, context)

    def _select(
        self, selected: Sequence[Flags], has_rows: Flags, context: ReadContext
    ) -> ReadContext:
        """Drop all other rows and series, a column at a time, and number the series anew."""

        def select(chunks: Chunks) -> list[NDArray[Any]]:
            return [c[rows] for c, rows in zip(chunks, selected, strict=True) if rows.any()]

        if self.n_future_rows:
            future = np.concatenate(selected)[self.n_rows - self.n_future_rows :]
            self.n_future_rows = int(np.count_nonzero(future))
        number = np.cumsum(has_rows) - 1
        self._times = select(self._times)
        self._codes = [number[codes] for codes in select(self._codes)]
        for columns in (self._readings, self._covariates):
            for name in columns:
                columns[name] = select(columns[name])
        self.value_offsets = {name: x[has_rows] for name, x in self.value_offsets.items()}
        if context.is_long:
            self.names = list(take_names(self.names, has_rows))
        return replace(context, source=FilteredSource(context.source, selected))

    def constant_targets(self) -> dict[str, str]:
        """Return the targets that never change in any series, with the reason.

        Targets with few readings are not judged.
        """
        reasons = {}
        for target, chunks in self._readings.items():
            if not len(chunks) or (self.n_series == 1 and abs(chunks[0][-1] - chunks[0][0]) > 0):
                continue  # of 100,000 columns, most are told by that

            levels, n_readings = np.full(self.n_series, np.nan), 0
            for codes, chunk in zip(self._codes, chunks, strict=True):
                is_seen = np.isfinite(chunk)
                series, seen = codes[is_seen], chunk[is_seen]
                levels[series] = np.where(np.isnan(levels[series]), seen, levels[series])
                n_readings += len(seen)
                if (levels[series] != seen).any():
                    break
            else:
                if n_readings >= max(_MIN_CONSTANT, _MOSTLY_FILLED * self.n_rows):
                    values = (levels + self.value_offsets[target])[np.isfinite(levels)]
                    is_same = bool((values == values[0]).all())
                    reasons[target] = f"{CONSTANT} {values[0]:g}" if is_same else SAME_IN_SERIES
        return reasons

    def drop_targets(self, targets: Collection[str], *, is_long: bool) -> None:
        """Drop the readings of targets."""
        self._check(Stage.READ)
        for target in targets:
            del self._readings[target], self.value_offsets[target]
        self.names = self.names if is_long else [n for n in self.names if n not in targets]

    def mask(self, target: str, chunk: int, is_bad: Flags) -> int:
        """Set the bad rows of a chunk, `(row,)`, to NaN; return how many of them held a reading."""
        self._check(Stage.READ, Stage.CLEANED)
        readings = self._readings[target][chunk]
        n_masked = int(np.count_nonzero(is_bad & np.isfinite(readings)))
        readings[is_bad] = np.nan
        return n_masked

    def finish_cleaning(self, schema: Schema) -> Schema:
        """Subtract the value offsets of covariates; the stage is CLEANED.

        Returns the schema with the offsets: those of the model, or without one the level of each
        column's earliest values, of all series together.
        """
        self._check(Stage.READ)
        covariates = []
        for covariate in schema.covariates:
            chunks, offset = self._covariates[covariate.name], covariate.base
            if schema.step_us is None:
                offset = 0.0
                if chunks and chunks[0].dtype == np.float64:
                    codes = [np.zeros(len(times), np.int16) for times in self._times]
                    offset = float(find_value_offsets(self._times, codes, chunks, n_series=1)[0])
            if offset:
                chunks = [chunk - offset for chunk in chunks]
            self._covariates[covariate.name] = [c.astype(np.float32, copy=False) for c in chunks]
            covariates.append(replace(covariate, base=offset))

        self.stage = Stage.CLEANED
        return replace(schema, covariates=tuple(covariates))

    def merge(self, first: tuple[Integers, Integers], second: tuple[Integers, Integers]) -> None:
        """Set the readings of the first row of each pair to the means of both rows' readings.

        A row is given by the number of its chunk, and its number in the chunk, `(pair,)` each; a
        missing reading does not count.
        """
        self._check(Stage.CLEANED)
        for chunks in self._readings.values():
            pairs = np.empty((2, len(first[0])))
            for values, (chunk, row) in zip(pairs, (first, second), strict=True):
                for i in np.unique(chunk).tolist():
                    values[chunk == i] = chunks[i][row[chunk == i]]

            means = np.where(np.isfinite(pairs[1]), pairs[1], pairs[0])
            is_pair = np.isfinite(pairs).all(0)
            means[is_pair] = pairs[:, is_pair].mean(0)
            for i in np.unique(first[0]).tolist():
                chunks[i][first[1][first[0] == i]] = means[first[0] == i]

    def keep(self, selected: Sequence[Flags], context: ReadContext) -> ReadContext:
        """Drop all other rows; return a context with a source that locates those selected."""
        self._check(Stage.CLEANED)
        has_rows = np.zeros(self.n_series, np.bool_)
        for codes, rows in zip(self._codes, selected, strict=True):
            has_rows[codes[rows]] = True
        return self._select(selected, has_rows, context)

    def convert(self, axis: TimeAxis) -> None:
        """Replace the times in UTC by those on an axis."""
        self._check(Stage.CLEANED)
        self._times = [axis.from_utc(times) for times in self._times]

    def move(self, times: list[Integers]) -> None:
        """Replace the times by more exact ones."""
        self._check(Stage.CLEANED)
        self._times = times

    def align(self, times: list[Integers], *, keep_exact: bool = False) -> None:
        """Replace the times by times on the grid; the stage is ALIGNED.

        The times before that stay in `exact_times` where they are to be kept.
        """
        self._check(Stage.CLEANED)
        if keep_exact:
            self.exact_times = self._times
        self._times = times
        self.stage = Stage.ALIGNED

    def place(self, grid: Grid) -> list[Integers]:
        """Return the positions of rows on the grid, written over the times; the stage is PLACED."""
        self._check(Stage.ALIGNED)
        positions, self._times = self._times, []
        origin = grid.offsets[:-1] - grid.start // grid.step_us
        phase = grid.start % grid.step_us

        def locate(chunk: tuple[Integers, Codes]) -> None:
            position, codes = chunk
            position -= phase[codes]
            np.floor_divide(position, grid.step_us, out=position)
            position += origin[codes]

        for _ in thread_map(locate, zip(positions, self._codes, strict=True)):
            pass
        self._codes = []
        self.stage = Stage.PLACED
        return positions

    def take_readings(self, target: str) -> list[Floats]:
        """Hand over the chunks of a target, once."""
        self._check(Stage.PLACED)
        return self._readings.pop(target)

    def take_covariate(self, name: str) -> list[Floats]:
        """Hand over the chunks of a covariate, once."""
        self._check(Stage.PLACED)
        return self._covariates.pop(name)

    def _check(self, *stages: Stage) -> None:
        if self.stage not in stages:
            expected = " or ".join(stage.value for stage in stages)
            raise RuntimeError(f"the rows are {self.stage.value}, but must be {expected}")


@dataclass(frozen=True)
class FilteredSource(WrappedSource):
    """A source of which some rows are dropped: it locates those that are left by their numbers.

    Its batches still hold all rows.
    """

    selected: Sequence[Flags]
    """`(row,)` in chunks: the rows that are left."""

    def location(self, row: int, column: str) -> Location:
        """Return the file and line of a row that is left."""
        n_before = 0
        for selected in self.selected:
            rows = np.flatnonzero(selected)
            if row < len(rows):
                return self.source.location(n_before + int(rows[row]), column)
            row -= len(rows)
            n_before += len(selected)
        return self.source.location(row, column)


def read_rows(
    context: ReadContext, *, known_offsets: Mapping[str, float]
) -> tuple[Rows, ReadContext]:
    """Read the columns that the schema names; return them, and the context with the time zone.

    `known_offsets` are the value offsets of the series that a model knows. Raises `DataError` for a
    reading that is not finite.
    """
    source, schema, config = context.source, context.schema, context.config
    reader = TimestampReader.of(source, schema, config)
    times = ArrayBuilder(np.int64)
    series = SeriesColumn(schema.series, source)
    targets = TargetColumns(schema.targets, source, config)
    covariates = CovariateColumns(schema.covariates, source, config)

    types = {schema.time: reader.arrow_type, **series.types, **targets.types, **covariates.types}
    n_rows = n_empty = 0
    for read in _read_batches(types, context):
        batch = without_empty_tail(read)
        if n_empty and batch.num_rows:  # rows follow, so that no row before them is left out
            reader.read(pa.nulls(1, reader.arrow_type), n_rows)
        n_empty += read.num_rows - batch.num_rows
        times.append(reader.read(batch.column(schema.time), n_rows))
        for columns in (series, targets, covariates):
            columns.append(batch, n_rows)
        n_rows += batch.num_rows

    if n_empty:
        context.listener(Notice(f"{source.name}: {n_empty} rows without any value end the table"))
    report_skipped(source.rejected(), n_rows, config, context.listener)
    targets.warn_of_lost_digits(context.listener)
    for code, count in reader.repairs.items():
        message = f"{REPAIR_MESSAGES[code]} ({count} timestamp{'s' * (count > 1)})"
        context.listener(WarningEvent(code, message, count))

    names = series.names if schema.series else list(schema.targets)
    names_of_target = {target: schema.series_names(names, target) for target in schema.targets}
    time_chunks, codes = times.chunks(), series.chunks()
    series.warn_of_look_alikes(context.listener)
    if schema.step_us is None:
        warn_of_similar_names(names, context.listener)
    if config.time_format is None and not reader.zone.is_aware:
        time_chunks = days_in_order(time_chunks, codes, context.listener)
    readings, offsets = targets.chunks(time_chunks, codes, names_of_target, known_offsets)

    zones = None if config.tz else propose_zones(reader.offsets, context.listener)
    tz = config.tz or (reader.zone.name if zones is None else "UTC")
    if tz is not None and not reader.zone.is_aware:
        locate = partial(source.location, column=schema.time)
        n_utc_rows = sum(reader.n_aware)
        time_chunks = tz_localize(time_chunks, codes, tz, locate, n_utc_rows=n_utc_rows)

    rows = Rows(time_chunks, codes, readings, covariates.chunks(), offsets, names, covariates.texts)
    rows.zones, rows.signed = zones, targets.signed
    rows.has_hour_24 = reader.repairs["hour-24"] > 0
    future = future_frame_of(source)
    if future is not None:
        rows.future_name, rows.n_future_rows = future.source.name, len(future.rows)
    return rows, replace(context, tz=tz)


def _read_batches(types: dict[str, pa.DataType], context: ReadContext) -> Iterator[pa.RecordBatch]:
    """Read batches; watch the files and the memory, and report the progress."""
    source, schema, listener = context.source, context.schema, context.listener
    n_columns = len(schema.targets) + len(schema.covariates)
    n_rows, n_expected = 0, source.n_rows_estimate

    def report() -> None:
        listener(ProgressEvent("reading", n_rows, max(n_rows, n_expected), "rows"))

    check_memory(n_expected, n_columns, context.config, source.name)
    report()
    with reading(source.inputs, listener):
        try:
            for batch in source.batches(types):
                yield batch
                n_rows += batch.num_rows
                check_memory(n_rows, n_columns, context.config, source.name)
                report()
        except DataError as error:
            column = error.location and error.location.column
            is_trained = schema.step_us is not None  # a model knows which columns are texts
            if error.code == "not-a-number" and column in schema.covariate_names and not is_trained:
                names = Proposal(("--categorical", str(column)), "if its values are categories")
                error.proposals = (names, *error.proposals)
            raise
    n_expected = n_rows
    report()


def warn_of_similar_names(names: Sequence[str], listener: Listener) -> None:
    """Warn of names of series that differ by blanks or by case only."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(" ".join(name.split()).casefold(), []).append(name)
    similar = [repr(name) for group in groups.values() if len(group) > 1 for name in group]
    message = "series names that differ only in blanks or case"
    warn_of_names("similar-names", message, similar, listener)


class SeriesColumn:
    """The column of series names of a long table; a wide table has none, and one code, 0."""

    def __init__(self, column: str | None, source: Source) -> None:
        self._column = column
        self._source = source
        self._codes = ArrayBuilder(np.int16)
        self._code_of: dict[str, int] = {}
        self._texts: set[str] = set()

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Arrow type to read the column as."""
        return {self._column: pa.dictionary(pa.int32(), pa.string())} if self._column else {}

    @property
    def names(self) -> list[str]:
        """Names of the series, in order of first appearance."""
        return list(self._code_of)

    def append(self, batch: pa.RecordBatch, n_before: int) -> None:
        """Add the code of each row's series; raise `DataError` for a row without a name."""
        if self._column is None:
            self._codes.append(np.zeros(batch.num_rows, np.int32))
            return
        encoded = encode_names(batch.column(self._column), self._column, self._source, n_before)
        texts = encoded.dictionary.to_pylist()
        names = texts if "".join(texts).isascii() else list(map(visible_name, texts))
        self._texts.update(texts)
        codes = [self._code_of.setdefault(name, len(self._code_of)) for name in names]
        if len(self._code_of) > np.iinfo(np.int16).max:
            self._codes.widen(np.int32)
        self._codes.append(np.array(codes, np.int32)[encoded.indices.to_numpy()])

    def chunks(self) -> list[Codes]:
        """Return the codes of all rows."""
        return self._codes.chunks()

    def warn_of_look_alikes(self, listener: Listener) -> None:
        """Warn of names that are told apart by invisible characters alone, and are read as one."""
        if len(self._texts) > len(self._code_of):
            counts = Counter(map(visible_name, self._texts))
            alike = [name for name, count in counts.items() if count > 1]
            message = "names that look the same are read as one series"
            warn_of_names("names-written-otherwise", message, alike, listener)


def encode_names(column: pa.Array, name: str, source: Source, n_before: int) -> pa.DictionaryArray:
    """Encode series names as a dictionary and an index per row.

    `n_before` rows came in earlier batches. Raises `DataError` for a row without a name.
    """
    encoded = column.dictionary_encode()
    is_missing = encoded.is_null()
    empty = pc.index(encoded.dictionary, "").as_py()
    if empty >= 0:
        is_empty = pc.equal(encoded.indices, empty)
        is_missing = pc.or_(is_missing, is_empty.fill_null(True))

    if pc.any(is_missing).as_py():
        row = int(np.argmax(is_missing.to_numpy(zero_copy_only=False)))
        raise DataError(
            f"a row has no series name in column {name!r}",
            code="missing-series",
            location=source.location(n_before + row, name),
            hint="fill it in, or remove the row",
        )
    return encoded


class TargetColumns:
    """The target columns: float32, and doubles from the first reading that float32 blurs."""

    def __init__(self, names: Sequence[str], source: Source, config: DataConfig) -> None:
        self.types = dict.fromkeys(names, pa.float64())
        self._source = source
        self._config = config
        self._largest = dict.fromkeys(names, 0.0)
        self._negative: set[str] = set()
        self._builders = {
            name: ArrayBuilder(np.float64 if name in config.counter else np.float32)
            for name in names
        }

    def append(self, batch: pa.RecordBatch, n_before: int) -> None:
        """Add the readings of a batch; raise `DataError` for one that is infinite."""
        for name, builder in self._builders.items():
            readings, largest = _finite_values(batch, name, self._source, self._config, n_before)
            self._largest[name] = max(self._largest[name], largest)

            is_angle = self._config.agg_by_column.get(name) == ANGLE
            if is_angle and np.fmin.reduce(readings, initial=0.0) < 0:
                self._negative.add(name)
            if is_angle and largest > 2 * HALF_TURN:
                row = n_before + int(np.nanargmax(np.abs(readings)))
                location = self._source.location(row, name)
                token = location.token or f"{largest:g}"
                raise DataError(
                    f"column {name!r} contains directions, but also a value above 360 degrees",
                    code="no-direction",
                    location=location,
                    proposals=[Proposal(("--na-values", token), "if it means missing")],
                )

            if largest >= LARGE_READING:
                builder.widen(np.float64)
            builder.append(readings)

    def chunks(
        self,
        times: Sequence[Integers],
        codes: Sequence[Codes],
        names: Mapping[str, Sequence[str]],
        known_offsets: Mapping[str, float],
    ) -> tuple[dict[str, list[Floats]], dict[str, Doubles]]:
        """Return each target's readings less their value offset, and the offsets, `(series,)`.

        `names` are each target's series. The offset of a series that a model knows is the model's.
        A counter has none: its differences are what is forecast, so its readings stay doubles. That
        of a direction is its mean: readings less it, from -180 to 180 degrees, hardly ever jump.
        """
        readings: dict[str, list[Floats]] = {}
        offsets: dict[str, Doubles] = {}
        for target, builder in self._builders.items():
            chunks, offset = builder.chunks(), np.zeros(len(names[target]))
            if target in self._config.counter:
                readings[target], offsets[target] = chunks, offset
                continue

            is_angle = self._config.agg_by_column.get(target) == ANGLE
            if is_angle:
                offset = _mean_directions(codes, chunks, len(offset))
                offset = wrap_angles(offset, -HALF_TURN if target in self._negative else 0.0)
            elif chunks and chunks[0].dtype == np.float64:
                offset = find_value_offsets(times, codes, chunks, n_series=len(offset))
            if known_offsets:
                pairs = zip(names[target], offset, strict=True)
                offset = np.array([known_offsets.get(name, default) for name, default in pairs])

            # one chunk after the other, as all of them as doubles would take much memory
            shifted: Iterable[NDArray[Any]] = chunks
            if is_angle or offset.any():
                shifted = map(np.subtract, chunks, (offset[code] for code in codes))
            if is_angle:
                shifted = (wrap_angles(chunk, -HALF_TURN) for chunk in shifted)
            readings[target] = [chunk.astype(np.float32, copy=False) for chunk in shifted]
            offsets[target] = offset
        return readings, offsets

    @property
    def signed(self) -> tuple[str, ...]:
        """The targets of directions that have negative readings."""
        return tuple(name for name in self._builders if name in self._negative)

    def warn_of_lost_digits(self, listener: Listener) -> None:
        """Warn of columns of whole numbers that doubles round, such as ids and keys."""
        rounded = [
            column.name
            for column in self._source.columns
            if self._largest.get(column.name, 0.0) > _MAX_EXACT
            and all(map(is_integer, column.sample))
        ]
        message = "integers above 2^53 lose their last digits"
        warn_of_names("lost-digits", message, rounded, listener)


class CovariateColumns:
    """The covariate columns: numbers, and texts as the numbers of them."""

    def __init__(self, covariates: Sequence[Covariate], source: Source, config: DataConfig) -> None:
        self.types = {c.name: pa.string() if c.is_text else pa.float64() for c in covariates}
        self._source = source
        self._config = config
        self._code_of: dict[str, dict[str, int]] = {c.name: {} for c in covariates if c.is_text}
        self._builders = {c.name: ArrayBuilder(np.float32) for c in covariates}

    @property
    def texts(self) -> dict[str, list[str]]:
        """Texts of each text column, in order of appearance."""
        return {name: list(code_of) for name, code_of in self._code_of.items()}

    def append(self, batch: pa.RecordBatch, n_before: int) -> None:
        """Add the values of a batch, NaN where missing."""
        for name, builder in self._builders.items():
            if name in self._code_of:
                builder.append(self._encode(name, batch.column(name)))
                continue
            values, largest = _finite_values(batch, name, self._source, self._config, n_before)
            if largest >= LARGE_READING:
                builder.widen(np.float64)
            builder.append(values)

    def chunks(self) -> dict[str, list[Floats]]:
        """Return the values of all rows."""
        return {name: builder.chunks() for name, builder in self._builders.items()}

    def _encode(self, name: str, column: pa.Array) -> Doubles:
        """Return the number of each row's text; raise `DataError` for too many texts."""
        encoded = column.dictionary_encode()
        code_of = self._code_of[name]
        codes = [code_of.setdefault(x, len(code_of)) for x in encoded.dictionary.to_pylist()]
        if len(code_of) > _MAX_TEXTS:
            raise DataError(
                f"column {name!r} contains more than {_MAX_TEXTS} different texts",
                code="too-many-categories",
                location=Location(self._source.name, column=name),
                hint="omit it, or group its values",
            )

        numbers = np.array([*codes, np.nan])
        code_of_row: Integers = encoded.indices.fill_null(-1).to_numpy()
        return numbers[code_of_row]


def _finite_values(
    batch: pa.RecordBatch, name: str, source: Source, config: DataConfig, n_before: int
) -> tuple[Doubles, float]:
    """Return a column's numbers, NaN where missing, and the largest absolute value.

    A token that the user names as missing is so as a number, too: -200 is also -200.0. Raises
    `DataError` for a number that is no reading.
    """
    values: Doubles = batch.column(name).to_numpy(zero_copy_only=False)
    if config.inf_as_na or config.numeric_na_values:
        is_missing = np.isin(values, config.numeric_na_values)
        if config.inf_as_na:
            is_missing |= np.isinf(values)
        values = np.where(is_missing, np.nan, values)

    sizes = np.abs(values)
    largest = float(np.fmax.reduce(sizes, initial=0.0))
    if largest <= MAX_READING:
        return values, largest

    location = source.location(n_before + int(np.argmax(sizes > MAX_READING)), name)
    kind = "infinite" if np.isinf(largest) else f"larger than {MAX_READING:g}"
    token = location.token or f"{values[np.argmax(sizes > MAX_READING)]:g}"
    options = ("--inf-as-na",) if np.isinf(largest) else ("--na-values", token)
    raise DataError(
        f"column {name!r} contains a value that is {kind}",
        code="infinite",
        location=location,
        proposals=[Proposal(options, "to treat such values as missing")],
    )


def _mean_directions(
    codes: Sequence[Codes], chunks: Sequence[NDArray[Any]], n_series: int
) -> Doubles:
    """Return the direction of the mean of unit vectors, `(series,)`, in whole degrees."""
    x, y = np.zeros((2, n_series))
    for code, chunk in zip(codes, chunks, strict=True):
        seen = np.isfinite(chunk)
        angle = np.deg2rad(chunk[seen].astype(np.float64))
        x += np.bincount(code[seen], weights=np.cos(angle), minlength=n_series)
        y += np.bincount(code[seen], weights=np.sin(angle), minlength=n_series)
    return wrap_angles(np.rint(np.rad2deg(np.arctan2(y, x))))
