"""Open a path, glob, folder, table or stdin as a Source; rename and join columns."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location, Proposal, UsageError
from rnnforecast.events import Listener, WarningEvent, ignore
from rnnforecast.sources.columns import (
    Column,
    find_clock_changes,
    is_time_of_day,
    on_the_clock,
    with_numbers_of_texts,
    with_weak_dates,
)
from rnnforecast.sources.csv import CsvFile, check_same_columns, open_csv_file
from rnnforecast.sources.files import expand_path, expand_url, standard_input_chunks
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.parquet import (
    ParquetFile,
    ParquetSource,
    TableSource,
    folder_columns,
    open_parquet,
)
from rnnforecast.sources.parts import DATE, TimeParts, infer_parts, n_periods_of, named_parts
from rnnforecast.sources.shards import ShardFolder, is_sharded, open_shards
from rnnforecast.sources.tables import (
    ARROW_ENDINGS,
    EXCEL_ENDINGS,
    JSON_ENDINGS,
    open_arrow_file,
    open_json_lines,
    open_query,
    sheet_as_text,
)
from rnnforecast.storage.durable import as_write_error
from rnnforecast.storage.remote import AnyPath, as_path, is_remote
from rnnforecast.urls import parse_database

_CSV_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".csv.gz", ".tsv.gz", ".txt.gz", ".dat.gz")
_PARQUET_ENDINGS = (".parquet", ".pq")
_TABLE_ENDINGS = JSON_ENDINGS + EXCEL_ENDINGS + ARROW_ENDINGS
_ALL_ENDINGS = _CSV_ENDINGS + _PARQUET_ENDINGS + _TABLE_ENDINGS
STANDARD_INPUT, _STANDARD_INPUT_NAME = "-", "standard input"
UNNAMED_INDEX, UNNAMED_SERIES = "index", "value"
"""Columns that an index of times and a pandas Series without a name become."""
KEY_SEPARATOR = "/"
"""What stands between the parts of a series' name: of several key columns, or key and target."""
_BYTES_PER_CELL = 8
"""A number of a few digits and its separator, or a part of a time stamp."""


@dataclass(frozen=True)
class WrappedSource:
    """Base of sources that present another source in another way: all that is not overridden."""

    source: Source

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.source.name

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in the order of the file."""
        return self.source.columns

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read columns as these types, a batch at a time. Raises `DataError` for other text.

        Time stamps may come as text, though: there are more ways to write them than ISO 8601.
        """
        return self.source.batches(types)

    def location(self, row: int, column: str) -> Location:
        """Return the location of a row, counted from 0 over all batches."""
        return self.source.location(row, column)

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        """The files that are read."""
        return self.source.inputs

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows, as far as it can be estimated without reading them."""
        return self.source.n_rows_estimate

    def rejected(self) -> list[Location]:
        """Return the locations of the rows that the last reading skipped."""
        return self.source.rejected()


@dataclass(frozen=True)
class CsvSource:
    """One CSV file, or several with the same columns, one after the other."""

    name: str
    files: tuple[CsvFile, ...]
    owner: object = None
    """The source of which it is a part, and with which a temporary file is deleted."""
    origin: InputFile | None = None
    """The file whose content the text is, such as that of a sheet."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The first file's columns; the others have the same names."""
        return self.files[0].columns

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other."""
        for file in self.files:
            yield from file.batches(types)

    def location(self, row: int, column: str) -> Location:
        """Return the file that holds a row, and its line."""
        for file in self.files[:-1]:
            n_rows = sum(b.num_rows for b in file.batches({column: pa.string()}))
            if row < n_rows:
                return file.location(row, column)
            row -= n_rows
        return self.files[-1].location(row, column)

    def rejected(self) -> list[Location]:
        """Return the locations of the skipped rows of all files."""
        return [location for file in self.files for location in file.rejected()]

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        """The files that are read."""
        return tuple(f.input for f in self.files) if self.origin is None else (self.origin,)

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows, estimated from the sizes of the files and their first rows."""
        return sum(file.n_rows_estimate for file in self.files)


Source = CsvSource | ParquetSource | TableSource | WrappedSource
"""A table of readings that is not read yet, with the methods of `WrappedSource`.

Buckets are a `ParquetSource`. Around another source: `Head`, `Renamed`, `FilledTime`, `JoinedTime`,
`JoinedKey`, and in `tables` `FutureSource`, `FilteredSource` and `UnlocatedSource`.
"""


def open_source(data: object, config: DataConfig, listener: Listener = ignore) -> Source:
    """Open a path, a glob, `-`, a pandas table or an Arrow table, with its columns as stored.

    Buckets that are open already are returned as they are. Raises `DataError`.
    """
    if isinstance(data, ShardFolder):
        return data
    if isinstance(data, str | Path):
        return _open_path(str(data), config, listener)

    table = data if isinstance(data, pa.Table) else from_pandas(data)
    return _described(TableSource(table).check(), config)


def _described(source: ParquetSource | TableSource, config: DataConfig) -> Source:
    """Return a source of typed columns with the kinds that their cells tell.

    Texts may be numbers, and whole numbers dates, such as 20240131.
    """
    columns, texts = with_numbers_of_texts(source.columns, source.name, config)
    columns = with_weak_dates(columns, source.name, config)
    if isinstance(source, TableSource):
        return replace(source, described=columns, texts=texts)
    return replace(source, columns=columns, texts=texts)


def open_table(
    data: object,
    config: DataConfig,
    listener: Listener,
    *,
    time_column: str | None = None,
    series_column: str | None = None,
    tz: str | None = None,
    missing_ok: bool = False,
) -> Source:
    """Open a table with its columns renamed, and with those joined that hold the time or the key.

    `time_column`, `series_column` and `tz` are used where `config` names none: a trained model has
    its own. With `missing_ok` the table may lack columns that `--map` renames. Raises `DataError`
    or `UsageError`.
    """
    source, pairs = open_source(data, config, listener), config.map
    if missing_ok:
        names = {column.name for column in source.columns}
        pairs = tuple(pair for pair in pairs if pair.partition("=")[0] in names)
    source = fill_time(rename_columns(source, pairs), listener)
    source = join_time(source, config.time or time_column, config.tz or tz)
    return join_key(source, config.series or series_column)


def _open_path(text: str, config: DataConfig, listener: Listener) -> Source:
    if not text:
        raise UsageError("the data path is empty", hint="use a file, a folder or -")
    if text == STANDARD_INPUT:  # it is copied, since a table is read twice
        stream = _copy_of_standard_input(config.input_limit)
        return _open_temporary(stream, _STANDARD_INPUT_NAME, _STANDARD_INPUT_NAME, config, listener)

    database = parse_database(text)
    if database is not None:
        return _described(open_query(database, config), config)

    location = as_path(text)
    name = str(location) if is_remote(location) else text
    if is_sharded(location):
        return open_shards(name)

    paths: Sequence[AnyPath] = expand_url(location) if is_remote(location) else expand_path(text)
    if all(path.name.lower().endswith(_CSV_ENDINGS) or not path.suffix for path in paths):
        csv_files = tuple(
            open_csv_file(file, config, listener, name=str(file.path))
            for file in InputFile.of_all(paths)
        )
        check_same_columns(csv_files)
        return CsvSource(name, csv_files)

    if len(paths) == 1 and paths[0].name.lower().endswith(_TABLE_ENDINGS):
        return _open_table_file(InputFile.of(paths[0]), name, config, listener)

    stray = next((p for p in paths if p.suffix.lower() not in _PARQUET_ENDINGS), None)
    if stray is None:
        files = tuple(
            ParquetFile(file, folder_columns(file.path, location))
            for file in InputFile.of_all(paths)
        )
        table = open_parquet(name, files)
        table.report_later_columns(listener)
        return _described(table, config)
    if stray.name.lower().endswith(_CSV_ENDINGS):
        raise DataError(
            f"{name} contains CSV files and other files: {stray}",
            code="mixed-formats",
            location=Location(str(stray)),
            hint=f"select the CSV files with a quoted pattern, e.g.  '{location / '*.csv'}'"
            if location.is_dir()
            else "select files of one format",
        )
    if stray.name.lower().endswith(_TABLE_ENDINGS):
        raise DataError(
            f"{name} contains {stray.suffix} files, which are read one at a time: {stray}",
            code="mixed-formats",
            location=Location(str(stray)),
            hint="select one of them",
        )
    raise DataError(
        f"{stray} is neither CSV nor Parquet, JSON lines, Excel or Arrow",
        code="unknown-format",
        location=Location(str(stray)),
        hint=f"supported endings: {' '.join(_ALL_ENDINGS)} ; databases: sqlite:///file.db and "
        "duckdb:file.db",
    )


def _open_table_file(file: InputFile, name: str, config: DataConfig, listener: Listener) -> Source:
    """Open a file of JSON lines, an Arrow file, or a sheet of an Excel file."""
    ending = file.path.name.lower()
    if ending.endswith(JSON_ENDINGS):
        return _described(open_json_lines(file, config, name), config)
    if ending.endswith(ARROW_ENDINGS):
        return _described(open_arrow_file(file, name), config)

    text, sheet = sheet_as_text(file, config, listener, name)
    return _open_temporary(text, name, sheet, config, listener, origin=file)


@contextmanager
def closing_on_error(file: IO[Any]) -> Iterator[None]:
    """Close a file, and so delete a temporary one, where the block raises or a signal ends it."""
    try:
        yield
    except BaseException:
        file.close()
        raise


def _copy_of_standard_input(limit: int) -> IO[bytes]:
    """Return a temporary file of what standard input holds, up to a limit of bytes."""
    with as_write_error(Path(tempfile.gettempdir())):
        file = tempfile.NamedTemporaryFile(prefix="rnnforecast-", suffix=".csv")  # noqa: SIM115
    with closing_on_error(file):
        for chunk in standard_input_chunks(_STANDARD_INPUT_NAME, limit):
            with as_write_error(Path(file.name)):
                file.write(chunk)
                file.flush()
    return file


def _open_temporary(
    file: IO[Any],
    name: str,
    file_name: str,
    config: DataConfig,
    listener: Listener,
    *,
    origin: InputFile | None = None,
) -> CsvSource:
    """Open a temporary CSV file, which is deleted with its source; messages use the names."""
    with closing_on_error(file):
        csv_file = open_csv_file(InputFile.of(Path(file.name)), config, listener, name=file_name)
    source = CsvSource(name, (csv_file,), origin=origin)
    weakref.finalize(source, file.close)
    return source


@dataclass(frozen=True)
class Head(WrappedSource):
    """The first rows of a source."""

    n_rows: int

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows."""
        return self.n_rows

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the first rows."""
        n_missing = self.n_rows
        for batch in self.source.batches(types):
            yield batch[:n_missing]
            n_missing -= batch.num_rows
            if n_missing <= 0:
                return


def take_head(source: Source, n_cells: int) -> Source:
    """Return a source with its first rows, of about `n_cells`; itself where it has no more.

    Of several CSV files it is the beginning of the first.
    """
    if isinstance(source, WrappedSource):
        head = take_head(source.source, n_cells)
        return source if head is source.source else replace(source, source=head)
    if isinstance(source, CsvSource):
        file = source.files[0].head(n_cells * _BYTES_PER_CELL)
        is_all = file is source.files[0] and len(source.files) == 1
        return source if is_all else replace(source, files=(file,), owner=source)
    n_rows = max(1, n_cells // len(source.columns))
    return source if source.n_rows_estimate <= n_rows else Head(source, n_rows)


@dataclass(frozen=True)
class Renamed(WrappedSource):
    """A source some of whose columns have other names."""

    stored: dict[str, str]
    """The name of a column in the source, by its new name."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns under their new names."""
        new = {stored: name for name, stored in self.stored.items()}
        return tuple(replace(c, name=new.get(c.name, c.name)) for c in self.source.columns)

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read columns under their new names."""
        stored_types = {self.stored.get(name, name): type_ for name, type_ in types.items()}
        for batch in self.source.batches(stored_types):
            columns = [batch.column(self.stored.get(name, name)) for name in types]
            yield pa.RecordBatch.from_arrays(columns, names=list(types))

    def location(self, row: int, column: str) -> Location:
        """Return the location of a row; the column has the name that it has in the source."""
        return self.source.location(row, self.stored.get(column, column))


def rename_columns(source: Source, pairs: Sequence[str]) -> Source:
    """Rename columns by pairs `new=old`: the one that the source calls `new` becomes `old`."""
    stored = {old: new for new, _, old in (pair.partition("=") for pair in pairs)}
    if not stored:
        return source

    names = {column.name for column in source.columns}
    for old, new in stored.items():
        if new not in names:
            raise UsageError(
                f"--map {new}={old}: {source.name} has no column {new!r}",
                hint="the new name comes first, then the name in the model",
            )
        if old in names:
            raise UsageError(f"--map {new}={old!r}: {source.name} also has a column {old!r}")
    return Renamed(source, stored)


@dataclass(frozen=True)
class FilledTime(WrappedSource):
    """A source with the time of its rows repeated, where it stands only in the first of a group."""

    time: str
    head: tuple[str, ...]
    """The time of the first rows, as text."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, that of the time with the cells of its first rows."""
        columns = self.source.columns
        return tuple(replace(c, sample=self.head) if c.name == self.time else c for c in columns)

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read columns; a missing time is that of the row above."""
        last = None
        for batch in self.source.batches(types):
            place = batch.schema.get_field_index(self.time)
            if place < 0 or not batch.num_rows:
                yield batch
                continue
            column = batch.column(place)
            with_last = pa.concat_arrays([pa.array([last], column.type), column])
            filled = pc.fill_null_forward(with_last)[1:]
            yield batch.set_column(place, self.time, filled)
            last = filled[-1]


def fill_time(source: Source, listener: Listener) -> Source:
    """Return the source with its dates or times repeated where a pivot table leaves them blank.

    That is: at least half of the first rows lack the only column of dates, but the first has one.
    """
    dates = [c for c in source.columns if c.kind == "time" and not is_time_of_day(c.sample[0])]
    n_rows = max((len(column.sample) for column in source.columns), default=0)
    if len(dates) != 1 or 2 * len(dates[0].sample) > n_rows:
        return source
    name = dates[0].name
    head = Head(source, n_rows).batches({name: pa.string()})
    cells = pa.chunked_array([batch.column(name) for batch in head], pa.string()).combine_chunks()
    if not (len(cells) and cells[0].is_valid and 2 * cells.null_count >= len(cells)):
        return source
    message = f"{source.name}: an empty cell in column {name!r} has the value of the row above"
    listener(WarningEvent("repeated-time", message))
    return FilledTime(source, name, tuple(pc.fill_null_forward(cells).to_pylist()))


@dataclass(frozen=True)
class JoinedTime(WrappedSource):
    """A source whose time is spread over several columns, with these joined to one."""

    time_parts: TimeParts
    clock_changes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Where periods of a day count elapsed time: `find_clock_changes`."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the columns that are joined."""
        return self.time_parts.names

    @property
    def time(self) -> str:
        """The name of the joined column."""
        return ",".join(self.parts)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The joined column, and all that are not part of it."""
        samples = [pa.array(c.sample) for c in self.time_parts.select(self.source.columns)]
        n_shortest = min(map(len, samples))
        sample = self._join([texts[:n_shortest] for texts in samples]).to_pylist()
        remaining = (c for c in self.source.columns if c.name not in self.parts)
        return (Column(self.time, "time", tuple(sample)), *remaining)

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read columns; the time of a row that lacks a part of it is missing."""
        plain_types = {name: type_ for name, type_ in types.items() if name != self.time}
        part_types = dict.fromkeys(self.parts, pa.string()) if self.time in types else {}
        for batch in self.source.batches({**plain_types, **part_types}):
            columns = {name: batch.column(name) for name in plain_types}
            if part_types:
                texts = [batch.column(part) for part in self.parts]
                columns[self.time] = self._join(texts)
            yield pa.RecordBatch.from_pydict(columns)

    def _join(self, texts: Sequence[pa.Array]) -> pa.Array:
        if self.clock_changes:
            texts = [texts[0], on_the_clock(texts[0], texts[1], self.clock_changes)]
        return self.time_parts.join(texts)

    def location(self, row: int, column: str) -> Location:
        """Return the location of a row; for its time, that of the first part."""
        return self.source.location(row, self.parts[0] if column == self.time else column)


def _join_columns(source: Source, parts: TimeParts, tz: str | None) -> JoinedTime:
    """Join the columns of a time; periods of a day may count the time that has elapsed in a zone.

    All rows tell that: only the days on which its clock changes have an hour of them more, or less.
    """
    n_periods = n_periods_of(parts.kinds[-1]) if parts.kinds[:1] == (DATE,) else 0
    if not n_periods:
        return JoinedTime(source, parts)
    batches = source.batches(dict.fromkeys(parts.names, pa.string()))
    tables = [pa.Table.from_batches([b]).group_by(list(parts.names)).aggregate([]) for b in batches]
    days = pa.concat_tables(tables)
    return JoinedTime(source, parts, find_clock_changes(days, n_periods, tz, source.name))


def join_time(source: Source, name: str | None, tz: str | None = None) -> Source:
    """Return the source with one time column: as it is, or with the columns joined that hold it.

    `name` is what the user, or a stored schema, calls the time. Without it, columns are joined
    where their names tell that they are parts of a time; where only their cells tell, a `DataError`
    asks the user. `tz` is the zone of its clock.
    """
    columns = source.columns
    if name is not None:
        by_name = {column.name: column for column in columns}
        names = (name,) if name in by_name else tuple(name.split(","))
        if not set(names) <= by_name.keys():
            names = tuple(map(str.strip, names))
        is_alone = len(names) == 1
        if not set(names) <= by_name.keys() or (is_alone and by_name[name].kind != "number"):
            return source
        parts = named_parts(columns, names)
        return source if is_alone and not parts.kinds else _join_columns(source, parts, tz)

    ways = infer_parts(columns)
    if len(ways) < 2:
        return _join_columns(source, ways[0], tz) if ways else source
    *first, last = (repr(name) for name in ways[0].names)
    raise DataError(
        f"the timestamp may be split over the columns {', '.join(first)} and {last}",
        code="split-time",
        location=Location(source.name),
        proposals=[
            Proposal(
                ("--time", ",".join(way.names)), "if it is" if way is ways[0] else "if it is not"
            )
            for way in ways
        ],
    )


@dataclass(frozen=True)
class JoinedKey(WrappedSource):
    """A source whose series are named by several columns, with a column that joins their names."""

    parts: tuple[str, ...]
    """The names of the columns that are joined, which stay columns of their own."""

    @property
    def series(self) -> str:
        """The name of the joined column."""
        return ",".join(self.parts)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The joined column, and all others."""
        by_name = {column.name: column for column in self.source.columns}
        cells = zip(*(by_name[part].sample for part in self.parts), strict=False)
        sample = tuple(map(KEY_SEPARATOR.join, cells))
        return (Column(self.series, "text", sample, is_series=True), *self.source.columns)

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read columns; the name of a row that lacks a part of it is missing."""
        if self.series not in types:
            yield from self.source.batches(types)
            return

        inner = {name: type_ for name, type_ in types.items() if name != self.series}
        texts = {part: pa.string() for part in self.parts if part not in inner}
        for batch in self.source.batches({**inner, **texts}):
            columns = {name: batch.column(name) for name in inner}
            names = join_names_of_parts([batch.column(p).cast(pa.string()) for p in self.parts])
            is_dictionary = pa.types.is_dictionary(types[self.series])
            columns[self.series] = names.dictionary_encode() if is_dictionary else names
            yield pa.RecordBatch.from_pydict({name: columns[name] for name in types})

    def location(self, row: int, column: str) -> Location:
        """Return the location of a row; for its name, that of the first part."""
        return self.source.location(row, self.parts[0] if column == self.series else column)


def join_names_of_parts(parts: Sequence[pa.Array]) -> pa.Array:
    """Join the parts of names, `(row,)` each; without a part, a name is missing."""
    present = [pc.if_else(pc.equal(part, ""), pa.scalar(None, part.type), part) for part in parts]
    return pc.binary_join_element_wise(*present, KEY_SEPARATOR)


def join_key(source: Source, name: str | None) -> Source:
    """Return the source with a column that names its series, joined from several if need be.

    `name` is what the user, or a schema, calls it: one column, or several with commas.
    """
    names = [column.name for column in source.columns]
    parts = tuple(part.strip() for part in name.split(",")) if name is not None else ()
    is_joined = len(parts) > 1 and name not in names and set(parts) <= set(names)
    return JoinedKey(source, parts) if is_joined else source


def from_pandas(data: object) -> pa.Table:
    """Convert a pandas table to an Arrow table; an index with names or times becomes columns.

    A Series becomes the column of its name, or `value`.
    """
    if isinstance(data, pd.Series):
        data = data.to_frame(UNNAMED_SERIES if data.name is None else data.name)
    if not isinstance(data, pd.DataFrame):
        raise DataError(
            f"a {type(data).__name__} is not supported; pass a path, a pandas DataFrame or "
            "Series, or any table with __arrow_c_stream__ (Arrow, polars, DuckDB)",
            code="unknown-format",
            hint="call its collect() first" if hasattr(data, "collect") else None,
        )

    frame: Any = data
    names = [name for name in data.index.names if name is not None]
    if (names or isinstance(data.index, pd.DatetimeIndex)) and not set(names) & set(data):
        frame = data.reset_index()

    types = dict(zip(frame.columns, frame.dtypes, strict=True))
    sparse = {n: t.subtype for n, t in types.items() if isinstance(t, pd.SparseDtype)}
    try:
        dense = frame.astype(sparse) if sparse else frame
        table = pa.Table.from_pandas(dense, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"cannot read the pandas DataFrame: {error}",
            code="unreadable",
            hint="use unique column names, and one type per column",
        ) from error
    _check_zones(frame, table)
    return table


def _check_zones(frame: Any, table: pa.Table) -> None:
    """Raise `DataError` for a column of times only some of which have a zone.

    Arrow would take those without one for UTC.
    """
    for item in table.schema:
        if not pa.types.is_timestamp(item.type) or frame[item.name].dtype != object:
            continue

        first_rows: dict[bool, int] = {}  # with a zone, and without
        for row, time in enumerate(frame[item.name], start=1):
            if not pd.isna(time):
                first_rows.setdefault(getattr(time, "tzinfo", None) is None, row)
        if len(first_rows) > 1:
            raise DataError(
                f"some timestamps in column {item.name!r} have a time zone, others do not",
                code="mixed-zones",
                location=Location("the table", max(first_rows.values()), item.name, unit="row"),
                hint="give all of them a time zone, or none",
            )


def unwrap(source: Source) -> Source:
    """Return the source below all wrappers."""
    while isinstance(source, WrappedSource):
        source = source.source
    return source


def stored_names(source: Source, name: str) -> tuple[str, ...]:
    """Return the stored name of a column; of a joined one, the names of its parts."""
    names: tuple[str, ...] = (name,)
    if isinstance(source, JoinedTime | JoinedKey) and name == ",".join(source.parts):
        names = source.parts
    elif isinstance(source, Renamed):
        names = (source.stored.get(name, name),)
    if not isinstance(source, WrappedSource):
        return names
    return tuple(stored for name in names for stored in stored_names(source.source, name))


def stored_types(
    source: Source, texts: Collection[str], used: Collection[str], listener: Listener
) -> dict[str, pa.DataType]:
    """Return the types to read all columns of a stored source as, in its order.

    In text files, the columns `texts` are texts even if they look like numbers. Columns of Parquet
    files that are not `used` are left out, with a warning, where one of the files lacks them.
    Raises `DataError` for a column that has no type for all of its values.
    """
    if isinstance(source, TableSource):
        schema = source.table.schema
        return {c.name: _value_type(schema.field(c.name).type) for c in source.columns}
    if not isinstance(source, ParquetSource):
        return {
            column.name: pa.float64()
            if column.kind == "number" and column.name not in texts
            else pa.string()
            for column in source.columns
        }

    types_of: dict[str, list[pa.DataType]] = {column.name: [] for column in source.columns}
    for file in source.files:
        schema = file.schema
        for name in set(schema.names) & types_of.keys():
            types, type_ = types_of[name], _value_type(schema.field(name).type)
            if type_ not in types:
                types.append(type_)
        lacking = types_of.keys() - set(schema.names) - set(used)
        if lacking:
            message = f"not in every file, skipped: {', '.join(sorted(lacking))}"
            listener(WarningEvent("different-columns", message, len(lacking)))
            types_of = {name: types for name, types in types_of.items() if name not in lacking}
    return {name: _common_type(name, types, source.name) for name, types in types_of.items()}


def _value_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary: Parquet makes its own dictionaries."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _common_type(name: str, types: Sequence[pa.DataType], source: str) -> pa.DataType:
    """Return a type for all values.

    Of times only some of which have a zone it is the first one, and reading raises the error.
    """
    if len(types) == 1:
        return types[0]
    if all(pa.types.is_timestamp(type_) for type_ in types):
        if len({type_.tz is None for type_ in types}) > 1:
            return types[0]
        return pa.timestamp("ns" if pa.timestamp("ns", types[0].tz) in types else "us", types[0].tz)

    try:
        schemas = [pa.schema([(name, type_)]) for type_ in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} of {source} is {types[0]} in one file and {types[1]} in another",
            code="different-columns",
            location=Location(source, column=name),
            hint="use one type in all files",
        ) from error
