"""Covariates that are known ahead: the rows below the last reading, or the table of `--future`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.events import Event, Listener, WarningEvent, warn_of_names
from rnnforecast.sources.columns import Column
from rnnforecast.sources.files import check_memory
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.source import Source, WrappedSource, join_time, open_table
from rnnforecast.tables.schema import (
    Schema,
    canonical_name,
    check_column,
    choose_time,
    epoch_unit_of,
)
from rnnforecast.tables.timestamps import REPAIR_MESSAGES, TimestampReader, Zone, tz_localize

_BATCH_ROWS = 1 << 20
"""Rows of a batch, at most."""
_FORMAT_OPTIONS = (
    "sep", "decimal", "thousands", "encoding", "skip_rows", "comment", "no_header", "columns",
)  # fmt: skip
"""Options that say how the text of one file is written, which another file need not share."""


@dataclass(frozen=True)
class FutureFrame:
    """Covariates that are known ahead, read from a second file, under the names of the readings."""

    source: Source
    time: str
    """The name of the time column in the second file."""
    table: pa.Table
    """Times in microseconds, in UTC where they have a zone; series; covariates known ahead."""
    rows: Integers
    """`(row,)`: the number of each row in the file."""

    def location(self, row: int, column: str, *, is_time: bool) -> Location:
        """Return where a row stands in the file."""
        return self.source.location(int(self.rows[row]), self.time if is_time else column)

    def match_series(self, series: str, names: set[str], listener: Listener) -> FutureFrame:
        """Keep the rows of series that have readings, `names`, and warn of the others.

        A name that writes the same number as just one of `names`, as 07 and 7 do, becomes that.
        """
        encoded = self.table.column(series).combine_chunks().dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        names_by_number: dict[str, list[str]] = {}
        if not names.issuperset(texts):
            for name in names:
                names_by_number.setdefault(canonical_name(name), []).append(name)

        new_texts = []
        for text in texts:
            matches = [] if text in names else names_by_number.get(canonical_name(text), [])
            new_texts.append(matches[0] if len(matches) == 1 else text)
        unknown = [text for text in new_texts if text and text not in names]
        renamed = [(old, new) for old, new in zip(texts, new_texts, strict=True) if old != new]
        if renamed:
            message = f"{renamed[0][0]!r} of {self.source.name} is read as {renamed[0][1]!r}"
            listener(WarningEvent("names-written-otherwise", f"{message}, and so on", len(renamed)))
        if not unknown and not renamed:
            return self
        message = f"series of {self.source.name} without readings, ignored"
        warn_of_names("future-only-series", message, unknown, listener)

        decoded = pa.DictionaryArray.from_arrays(encoded.indices, pa.array(new_texts, pa.string()))
        column = decoded.dictionary_decode()
        column_index = self.table.schema.get_field_index(series)
        table = self.table.set_column(column_index, series, column)
        is_known = pc.invert(pc.is_in(column, pa.array(unknown, pa.string())))
        rows: Integers = self.rows[is_known.to_numpy(zero_copy_only=False)]
        return replace(self, table=table.filter(is_known), rows=rows)


@dataclass(frozen=True)
class FutureSource(WrappedSource):
    """A source whose rows are followed by those of a second file, which has fewer columns."""

    future: FutureFrame
    time: str
    series: str | None
    listener: Listener
    last_read: list[FutureFrame] = field(default_factory=list)
    """The rows of the second file that the last reading gave: those of series with readings."""

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        """The files that are read."""
        return (*self.source.inputs, *self.future.source.inputs)

    @property
    def n_rows_estimate(self) -> int:
        """About how many rows both have."""
        return self.source.n_rows_estimate + int(self.future.table.num_rows)

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the readings, then the second file; columns that it lacks are null there."""
        names: set[str] = set()
        for batch in self.source.batches(types):
            if self.series is not None:
                names.update(pc.unique(batch.column(self.series)).to_pylist())
            yield batch

        future = self.future
        if self.series is not None:
            future = future.match_series(self.series, names, self.listener)
        self.last_read[:] = [future]
        for batch in future.table.to_batches(max_chunksize=_BATCH_ROWS):
            existing = {name: batch.column(name) for name in batch.schema.names}
            columns = [existing.get(n, pa.nulls(batch.num_rows, t)) for n, t in types.items()]
            yield pa.RecordBatch.from_arrays(columns, names=list(types))

    def location(self, row: int, column: str) -> Location:
        """Return the file that holds the row, and the line."""
        types = {c.name: pa.string() for c in self.source.columns if c.name == column}
        n_rows = sum(batch.num_rows for batch in self.source.batches(types))
        if row < n_rows:
            return self.source.location(row, column)
        return self.last_read[0].location(row - n_rows, column, is_time=column == self.time)

    def rejected(self) -> list[Location]:
        """Return the rejected rows of both files."""
        return [*self.source.rejected(), *self.future.source.rejected()]


def append_future(
    source: Source, future: object, schema: Schema, options: DataConfig, listener: Listener
) -> Source:
    """Append the rows of a second file. Raises `DataError` where it lacks a column.

    It must have the time, the series of a long table, and what is known ahead; its readings of
    anything else are not used.
    """
    time, series = options.time or schema.time, options.series or schema.series
    columns = {column.name: column for column in source.columns}
    check_column(time, columns, source.name, code="missing-column")
    future_schema = replace(schema, time=time, series=series)
    frame = read_future(future, columns[time], future_schema, options, listener)
    return FutureSource(source, frame, time, series, listener)


def future_frame_of(source: Source) -> FutureFrame | None:
    """Return the rows of the second file that ended the last reading of a source, or None."""
    return source.last_read[0] if isinstance(source, FutureSource) and source.last_read else None


def read_future(
    data: object, readings_time: Column, schema: Schema, options: DataConfig, listener: Listener
) -> FutureFrame:
    """Read a second file with the options of the readings, or else with fewer of them.

    `readings_time` is the time column of the readings; the schema names the columns to read.
    Raises the `DataError` of the first attempt where none succeeds.
    """
    # Without the options that say how text is written, or stamps, or both.
    default = DataConfig()
    default_format = replace(options, **{name: getattr(default, name) for name in _FORMAT_OPTIONS})
    attempts: list[DataConfig] = []
    for text_options in (options, default_format):
        for attempt in (text_options, replace(text_options, time_format=None)):
            if attempt not in attempts:
                attempts.append(attempt)

    first_error: DataError | None = None
    for attempt in attempts:
        events: list[Event] = []  # those of a failed attempt are dropped
        try:
            future = _read_frame(data, readings_time, schema, attempt, events.append)
        except DataError as error:
            if error.code == "ambiguous-date":  # an option would hold for the readings, too
                error.proposals, error.hint = (), "write the timestamps as 2024-12-31 23:00"
            if error.code == "missing-column":  # --map would be for the readings, too
                error.proposals = ()
                error.hint = f"{error.hint} ; in this file, name it as in the readings"
            first_error = first_error or error
            continue
        for event in events:
            listener(event)
        return future

    assert first_error is not None
    raise first_error


def _read_frame(
    data: object, readings_time: Column, schema: Schema, options: DataConfig, listener: Listener
) -> FutureFrame:
    source = open_table(
        data,
        options,
        listener,
        time_column=schema.time,
        series_column=schema.series,
        tz=schema.tz,
        missing_ok=True,
    )
    columns = {column.name: column for column in source.columns}
    if schema.time not in columns and "," in schema.time:
        # The time of the readings is joined of several columns. Here it may be any one.
        source = join_time(source, None)
        time, _ = choose_time(source, options)
    else:
        check_column(schema.time, columns, source.name, code="missing-column")
        time = columns[schema.time]
    known = [c for c in schema.covariates if c.role == "known"]
    names = [column.name for column in source.columns]
    for name in (schema.series, *(covariate.name for covariate in known)):
        if name is not None:
            check_column(name, names, source.name, code="missing-column")
    check_memory(source.n_rows_estimate, len(known), options, source.name)

    unit = epoch_unit_of(time, source, options)
    stamps = TimestampReader.of(source, replace(schema, time=time.name, epoch_unit=unit), options)
    types = {c.name: pa.string() if c.is_text else pa.float64() for c in known}
    types |= {schema.series: pa.string()} if schema.series else {}
    times, batches, n_rows = [], [], 0
    for batch in source.batches({time.name: stamps.arrow_type, **types}):
        times.append(stamps.read(batch.column(time.name), n_rows))
        batches.append(batch.select(list(types)))
        n_rows += batch.num_rows
    for code, count in stamps.repairs.items():
        listener(WarningEvent(code, f"{source.name}: {REPAIR_MESSAGES[code]} ({count})", count))

    table = pa.Table.from_batches(batches, pa.schema(types))
    time_array = _to_zone_of(readings_time, np.concatenate(times), table, stamps, options)
    table = table.add_column(0, schema.time, time_array)
    return FutureFrame(source, time.name, table, np.arange(n_rows))


def _to_zone_of(
    readings_time: Column,
    times: Integers,
    table: pa.Table,
    stamps: TimestampReader,
    options: DataConfig,
) -> pa.Array:
    """Return the times in UTC, or on the wall clock where the readings have no zone.

    Numbers count from 1970 in UTC, which readings with a zone can be compared with. Raises
    `DataError` where only one of the two has a zone, and the user names none.
    """
    is_aware, is_number = Zone.of_column(readings_time).is_aware, readings_time.kind == "number"
    is_instant = stamps.zone.is_aware or (stamps.schema.epoch_unit is not None and not is_number)

    if not is_aware and (options.tz is None or not is_instant):
        if stamps.zone.is_aware and not is_number:
            raise _zones_differ(stamps, "have a time zone, but those of the data have none", None)
        return pa.array(times).cast(pa.timestamp("us"))

    if not is_instant:
        if options.tz is None:
            zone = Zone.of_column(readings_time).name
            raise _zones_differ(stamps, "have no time zone, but those of the data do", zone)
        locate = partial(stamps.source.location, column=stamps.schema.time)
        series = stamps.schema.series
        names = np.zeros(len(times)) if series is None else table.column(series).to_pandas()
        codes, _ = pd.factorize(names, use_na_sentinel=False)
        (times,) = tz_localize([times], [codes], options.tz, locate)
    return pa.array(times).cast(pa.timestamp("us", tz="UTC"))


def _zones_differ(stamps: TimestampReader, problem: str, zone: str | None) -> DataError:
    """Return the error of stamps that carry a zone, or none, unlike those of the readings.

    `zone` is that of the readings; None where theirs carry none.
    """
    return DataError(
        f"the timestamps of {stamps.source.name} {problem}",
        code="mixed-zones",
        location=stamps.source.location(0, stamps.schema.time),
        proposals=[Proposal(("--tz", zone), f"if they are in {zone}")] if zone else (),
        hint="write the offset, such as +01:00 or Z, in the timestamps of both or of neither",
    )
