"""A second file that says what is known ahead: opened, and read whole, before the readings are.

Apart from `future`, which puts its rows below the readings. Another tool wrote it, as a rule: its
separator, its format of stamps and its zone are its own, and its errors name its own lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from rnnforecast.data.inference import infer_time
from rnnforecast.data.memory import check_memory
from rnnforecast.data.panel import Integers
from rnnforecast.data.schema import Schema, check_column, epoch_unit_of
from rnnforecast.data.stamps import StampReader, Zone
from rnnforecast.data.stamptexts import REPAIRS
from rnnforecast.data.wallclock import localise
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Event, Listener, Warned
from rnnforecast.sources.columns import Column
from rnnforecast.sources.reading import Source, open_source
from rnnforecast.sources.renaming import rename
from rnnforecast.sources.splittime import join_time

_FORM = (
    "sep", "decimal", "thousands", "encoding", "skip_rows", "comment", "no_header", "columns",
)  # fmt: skip
"""Options that say how the text of one file is written, which another file need not share."""


@dataclass(frozen=True)
class Plan:
    """What a second file says, under the names that the readings have."""

    source: Source
    time: str
    """What its own column of times is called."""
    table: pa.Table
    """Times in microseconds, with a zone where they are instants; series; what is known ahead."""
    rows: Integers
    """`(row,)`: the number of each row in the file."""

    def location(self, row: int, column: str, *, is_time: bool) -> Location:
        """Say where a row stands in the file."""
        return self.source.location(int(self.rows[row]), self.time if is_time else column)


def read_plan(
    data: object, readings: Column, schema: Schema, options: DataConfig, listener: Listener
) -> Plan:
    """Read a second file as the readings are written, or else as it says itself.

    `readings` is their time column; the schema names what is wanted. Raises the `DataError` of the
    first attempt where none succeeds.
    """
    first: DataError | None = None
    for attempt in _attempts(options):
        events: list[Event] = []
        try:
            plan = _read(data, readings, schema, attempt, events.append)
        except DataError as error:
            if error.code == "ambiguous-date":  # an option would hold for the readings, too
                error.hint = "write the stamps as 2024-12-31 23:00"
            first = first or error
            continue
        for event in events:
            listener(event)
        return plan
    assert first is not None
    raise first


def _attempts(options: DataConfig) -> Iterator[DataConfig]:
    """Give the options, then without those that say how text is written, or stamps, or both."""
    default = DataConfig()
    own_form = replace(options, **{name: getattr(default, name) for name in _FORM})
    tried: list[DataConfig] = []
    for form in (options, own_form):
        for attempt in (form, replace(form, time_format=None)):
            if attempt not in tried:
                tried.append(attempt)
                yield attempt


def _read(
    data: object, readings: Column, schema: Schema, options: DataConfig, listener: Listener
) -> Plan:
    source = _open(data, schema.time, options, listener)
    time = _time_of(source, schema.time, options)
    known = [c for c in schema.covariates if c.role == "known"]
    names = [column.name for column in source.columns]
    for name in (schema.series, *(covariate.name for covariate in known)):
        if name is not None:
            check_column(name, names, source.name, code="missing-column")
    check_memory(source.n_rows_about, len(known), options, source.name)
    unit = epoch_unit_of(time, source.name, options)
    stamps = StampReader.of(source, replace(schema, time=time.name, epoch_unit=unit), options)
    types = {c.name: pa.string() if c.is_text else pa.float64() for c in known}
    types |= {schema.series: pa.string()} if schema.series else {}
    times, batches, n_rows = [], [], 0
    for batch in source.batches({time.name: stamps.arrow_type, **types}):
        times.append(stamps.read(batch.column(time.name), n_rows))
        batches.append(batch.select(list(types)))
        n_rows += batch.num_rows
    for code, count in stamps.repairs.items():
        listener(Warned(code, f"{source.name}: {REPAIRS[code]} ({count})", count))
    table = pa.Table.from_batches(batches, pa.schema(types))
    when = _in_zone_of(readings, np.concatenate(times), table, stamps, options)
    table = table.add_column(0, schema.time, when)
    return Plan(source, time.name, table, np.arange(n_rows))


def _open(data: object, time: str, options: DataConfig, listener: Listener) -> Source:
    """Open it, under the names that the readings have: it need not share all new names."""
    source = open_source(data, options, listener)
    names = {column.name for column in source.columns}
    source = rename(source, [pair for pair in options.map if pair.partition("=")[0] in names])
    joined = join_time(source, time)
    is_there = time in (column.name for column in joined.columns)
    return joined if is_there or "," not in time else join_time(source, None)


def _time_of(source: Source, wanted: str, options: DataConfig) -> Column:
    """Return the time column; where the readings' is joined of several, it may be any one."""
    columns = {column.name: column for column in source.columns}
    if wanted not in columns and "," in wanted:
        return infer_time(source, options)
    check_column(wanted, columns, source.name, code="missing-column")
    return columns[wanted]


def _in_zone_of(
    readings: Column, times: Integers, table: pa.Table, stamps: StampReader, options: DataConfig
) -> pa.Array:
    """Return the times as instants, or on the wall clock where the readings' are so.

    Numbers count from 1970 in UTC: they are instants beside stamps with a zone. Raises `DataError`
    where only one of the two has a zone, and the user names none.
    """
    is_aware, is_number = Zone.of_column(readings).is_aware, readings.kind == "number"
    is_instant = stamps.zone.is_aware or (stamps.schema.epoch_unit is not None and not is_number)
    if not is_aware and (options.tz is None or not is_instant):
        if stamps.zone.is_aware and not is_number:
            raise _other_zone(stamps, "carry a zone, but those of the readings carry none")
        return pa.array(times).cast(pa.timestamp("us"))
    if not is_instant:
        if options.tz is None:
            raise _other_zone(stamps, "carry no zone, but those of the readings do")
        locate = partial(stamps.source.location, column=stamps.schema.time)
        times = localise([times], [_codes(table, stamps.schema.series)], options.tz, locate)[0]
    return pa.array(times).cast(pa.timestamp("us", tz="UTC"))


def _codes(table: pa.Table, series: str | None) -> Integers:
    """Return the number of each row's series, `(row,)`."""
    if series is None:
        return np.zeros(table.num_rows, np.int64)
    encoded = table.column(series).combine_chunks().dictionary_encode(null_encoding="encode")
    codes: Integers = encoded.indices.to_numpy().astype(np.int64)
    return codes


def _other_zone(stamps: StampReader, what: str) -> DataError:
    return DataError(
        f"the stamps of {stamps.source.name} {what}",
        code="mixed-zones",
        location=stamps.source.location(0, stamps.schema.time),
        hint="write the offset, such as +01:00 or Z, in every stamp or in none; --tz names the "
        "zone of stamps that carry none",
    )
