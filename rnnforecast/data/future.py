"""Covariates that are known ahead: the rows below the last reading, or the table of `--future`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.data.schema import Schema, canonical, check_column, epoch_unit_of, infer_time
from rnnforecast.data.timestamps import REPAIRS, StampReader, Zone, localise
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Event, Listener, Warned
from rnnforecast.sources.columns import Column
from rnnforecast.sources.files import check_memory
from rnnforecast.sources.source import Source, WrappedSource, join_time, open_source, rename
from rnnforecast.storage.remote import Place

_SHOWN = 3
_BATCH_ROWS = 1 << 20
_FORM = (
    "sep", "decimal", "thousands", "encoding", "skip_rows", "comment", "no_header", "columns",
)  # fmt: skip
"""Options that say how the text of one file is written, which another file need not share."""


@dataclass(frozen=True)
class WithFuture(WrappedSource):
    """A source whose rows are followed by those of a plan, which has fewer columns."""

    plan: Plan
    time: str
    series: str | None
    listener: Listener
    used: list[Plan] = field(default_factory=list)
    """What of the plan the last reading gave: rows of series that have readings."""

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return (*self.source.paths, *self.plan.source.paths)

    @property
    def n_rows_about(self) -> int:
        """How many rows both have."""
        return self.source.n_rows_about + int(self.plan.table.num_rows)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the readings."""
        return self.source.columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read both, one after the other; what the plan lacks is missing there."""
        names: set[str] = set()
        for batch in self.source.batches(wanted):
            if self.series is not None:
                names.update(pc.unique(batch.column(self.series)).to_pylist())
            yield batch
        plan = self.plan
        if self.series is not None:
            plan = _only_series(plan, self.series, names, self.listener)
        self.used[:] = [plan]
        for batch in plan.table.to_batches(max_chunksize=_BATCH_ROWS):
            there = {name: batch.column(name) for name in batch.schema.names}
            columns = [there.get(n, pa.nulls(batch.num_rows, t)) for n, t in wanted.items()]
            yield pa.RecordBatch.from_arrays(columns, names=list(wanted))

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and the line."""
        names = {one.name: pa.string() for one in self.source.columns if one.name == column}
        n_rows = sum(batch.num_rows for batch in self.source.batches(names))
        if row < n_rows:
            return self.source.location(row, column)
        return self.used[0].location(row - n_rows, column, is_time=column == self.time)

    def rejected(self) -> list[Location]:
        """Gather them from both."""
        return [*self.source.rejected(), *self.plan.source.rejected()]


def with_future(
    source: Source, future: object, schema: Schema, options: DataConfig, listener: Listener
) -> Source:
    """Let the rows of a second file follow. Raises `DataError` where it lacks a column.

    It must have the time, the series of a long table, and what is known ahead; its readings of
    anything else are not used.
    """
    time, series = options.time or schema.time, options.series or schema.series
    columns = {column.name: column for column in source.columns}
    check_column(time, columns, source.name, code="missing-column")
    wanted = replace(schema, time=time, series=series)
    plan = read_plan(future, columns[time], wanted, options, listener)
    return WithFuture(source, plan, time, series, listener)


def plan_of(source: Source) -> Plan | None:
    """Return the plan whose rows ended the last reading of a source; None where it has none."""
    return source.used[0] if isinstance(source, WithFuture) and source.used else None


def _only_series(plan: Plan, series: str, names: set[str], listener: Listener) -> Plan:
    """Keep the rows of series that have readings; `names` are these. The others are named.

    One whose name is another writing of the same number goes by the name of the readings.
    """
    encoded = plan.table.column(series).combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    own = _by_number(names) if not names.issuperset(texts) else {}
    called = [text if text in names else own.get(canonical(text), text) for text in texts]
    strangers = [new for new in called if new and new not in names]
    renamed = [(text, new) for text, new in zip(texts, called, strict=True) if text != new]
    if renamed:
        what = f"{renamed[0][0]!r} of {plan.source.name} is taken for {renamed[0][1]!r}"
        listener(Warned("names-written-otherwise", f"{what}, and so on", len(renamed)))
    if not strangers and not renamed:
        return plan
    if strangers:
        what = f"series of {plan.source.name} without readings, not used"
        listener(Warned.naming("future-only-series", what, strangers))
    new = pa.DictionaryArray.from_arrays(encoded.indices, pa.array(called, pa.string()))
    column = new.dictionary_decode()
    place = plan.table.schema.get_field_index(series)
    table = plan.table.set_column(place, series, column)
    kept = pc.invert(pc.is_in(column, pa.array(strangers, pa.string())))
    rows: Integers = plan.rows[kept.to_numpy(zero_copy_only=False)]
    return replace(plan, table=table.filter(kept), rows=rows)


def _by_number(names: set[str]) -> dict[str, str]:
    """Return names by the number that they write, but those that share one."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(canonical(name), []).append(name)
    return {number: alike[0] for number, alike in found.items() if len(alike) == 1}


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
