"""Parquet files and Arrow tables as sources."""

from __future__ import annotations

import sys
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet

from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.sources.columns import (
    Column,
    Kind,
    cast_batch,
    check_n_columns,
    infer_text_column,
    is_text,
)
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.numbers import TextNumbers
from rnnforecast.storage.remote import AnyPath, is_remote

_BATCH_VALUES = 1 << 20
_MIN_BATCH_ROWS = 1 << 10
_HEAD_ROWS = 1000
"""Rows from which the kinds of the columns are inferred."""
_MAX_SCHEMAS = 100
"""Files, evenly spread, whose columns are compared with those of the first one."""
COLUMNS_AT_ONCE = 100
"""The most columns to read together: each has a dictionary and a page in memory, up to a megabyte
each."""
_BUFFER_BYTES = 1 << 16
_REMOTE_BUFFER_BYTES = 1 << 20
_AHEAD_BYTES = 1 << 27
"""Row groups of a store are read ahead where their columns that are read are no larger."""
_DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading a damaged file raises; `UnicodeDecodeError` comes from names of columns."""


MAX_TEXT_BYTES = 131_072
"""No name and no time is longer; fields of CSV files may be as long as that."""
_MAX_UNPACKED_BYTES, _MAX_RATIO = 1 << 27, 500
"""Texts that unpack to more than that, from less than a five-hundredth of it, are all alike."""


@dataclass(frozen=True)
class ParquetFile:
    """One Parquet file; `folders` are the columns in its folders' names, such as `id=007`."""

    input: InputFile
    folders: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> AnyPath:
        """Where it lies."""
        return self.input.path

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types, the folders' last. Raises `DataError` if it is damaged."""
        with self.checked():
            schema = pa_parquet.read_schema(self.input.arrow_input())
            _ = schema.names  # decodes them
        for name, _ in self.folders:
            field, index = pa.field(name, pa.string()), schema.get_field_index(name)
            schema = schema.append(field) if index < 0 else schema.set(index, field)
        return schema

    @cached_property
    def texts(self) -> Mapping[str, bool]:
        """Columns of texts, and whether their texts are too long to be names or times.

        So the footer says: some kilobytes may unpack to more than the memory holds.
        """
        with self.checked():
            metadata = pa_parquet.read_metadata(self.input.arrow_input())
            columns = map(metadata.schema.column, range(metadata.num_columns))
            groups = list(map(metadata.row_group, range(metadata.num_row_groups)))
            return {
                column.name: any(_is_long(group.column(index)) for group in groups)
                for index, column in enumerate(columns)
                if column.physical_type == "BYTE_ARRAY" and column.path == column.name
            }

    @property
    def n_rows(self) -> int:
        """The number of rows, from the footer."""
        return int(pa_parquet.read_metadata(self.input.arrow_input()).num_rows)

    def cast_batches(
        self, types: dict[str, pa.DataType], texts: TextNumbers | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read columns as these types. Raises `DataError` where the file lacks one."""
        existing = set(self.schema.names)  # reading a wide schema takes long
        missing = [name for name in types if name not in existing]
        if missing:
            raise DataError(
                f"{self.path} has no column {missing[0]!r}, but other files have",
                code="different-columns",
                location=Location(str(self.path), column=missing[0]),
            )

        n_rows = max(_MIN_BATCH_ROWS, _BATCH_VALUES // len(types))
        for batch in self.batches(list(types), n_rows):
            yield cast_batch(batch, types, str(self.path), texts)

    def batches(
        self, names: list[str], n_rows: int, opened: pa_parquet.ParquetFile | None = None
    ) -> Generator[pa.RecordBatch]:
        """Read columns of the types that they have, at most `n_rows` rows at a time.

        `opened` is the file, where it is open already.
        """
        folders = dict(self.folders)
        stored = [name for name in names if name not in folders]
        for name in stored:
            if self.texts.get(name):
                raise self._long_texts(name)

        try:
            with (
                self.checked(),
                nullcontext(opened) if opened else self.open_columns(set(stored)) as file,
            ):
                for batch in self._read(file, stored, n_rows):
                    arrays = [
                        pa.repeat(folders[n], batch.num_rows) if n in folders else batch.column(n)
                        for n in names
                    ]
                    for name, array in zip(names, arrays, strict=True):
                        if not pa.types.is_primitive(array.type):
                            is_dictionary = pa.types.is_dictionary(array.type)
                            texts = array.dictionary if is_dictionary else array
                            texts.validate(full=True)  # a damaged page may hold no UTF-8
                            if name in self.texts and _longest(texts) > MAX_TEXT_BYTES:
                                raise self._long_texts(name)
                    yield pa.RecordBatch.from_arrays(arrays, names=names)
        finally:
            pa.default_memory_pool().release_unused()

    def open_columns(self, names: Collection[str]) -> pa_parquet.ParquetFile:
        """Open the file to read these columns; texts come as dictionaries."""
        texts = [name for name in names if name in self.texts]
        if not is_remote(self.path):
            return pa_parquet.ParquetFile(
                self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=texts
            )

        metadata = pa_parquet.read_metadata(self.input.arrow_input())
        group_sizes = [0]
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            sizes = [c.total_compressed_size for c in columns if c.path_in_schema in names]
            group_sizes.append(sum(sizes))
        return pa_parquet.ParquetFile(
            self.input.arrow_input(),
            metadata=metadata,
            pre_buffer=max(group_sizes) <= _AHEAD_BYTES,
            buffer_size=_REMOTE_BUFFER_BYTES,
            read_dictionary=texts,
        )

    def _read(
        self, file: pa_parquet.ParquetFile, names: list[str], n_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Read the columns that the file holds; from a store one row group after the other.

        Bytes that were read ahead are held until the iterator of Arrow ends.
        """
        groups = [[i] for i in range(file.num_row_groups)] if is_remote(self.path) else [None]
        for group in groups:
            yield from file.iter_batches(n_rows, group, columns=names, use_threads=True)

    def _long_texts(self, name: str) -> DataError:
        return DataError(
            f"column {name!r} of {self.path} contains text longer than {MAX_TEXT_BYTES} bytes",
            code="long-field",
            location=Location(str(self.path), column=name),
            hint="no timestamp or name is that long; remove the column",
        )

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Raise `DataError` for what the block raises where Arrow cannot read the file."""
        try:
            yield
        except _DAMAGED as error:
            raise DataError(
                f"{self.path} is not a complete Parquet file: {error}",
                code="unreadable",
                location=Location(str(self.path)),
                hint="the file may still be being written or is truncated; copy it again",
            ) from error


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files, one after the other."""

    name: str
    files: tuple[ParquetFile, ...]
    columns: tuple[Column, ...]
    texts: TextNumbers | None = field(default=None, kw_only=True)
    """Columns of texts that hold numbers."""

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other. Raises `DataError` for one without a column."""
        for file in self.files:
            yield from file.cast_batches(types, self.texts)

    def report_later_columns(self, listener: Listener) -> None:
        """Warn of columns that the first file with rows lacks, and some of the files have."""
        first = {column.name for column in self.columns}
        some = (*self.files[:: 1 + len(self.files) // _MAX_SCHEMAS], self.files[-1])
        names = {name for file in some for name in file.schema.names} - first
        if names and len(self.files) > 1:
            message = f"not in every file, skipped: {', '.join(sorted(names))}"
            listener(WarningEvent("different-columns", message, len(names)))

    def location(self, row: int, column: str) -> Location:
        """Return the file that holds a row, and its number in that file, from 1."""
        for file in self.files[:-1]:
            n_rows = file.n_rows
            if row < n_rows:
                return Location(str(file.path), line=row + 1, column=column, unit="row")
            row -= n_rows
        return Location(str(self.files[-1].path), line=row + 1, column=column, unit="row")

    def rejected(self) -> list[Location]:
        """Return an empty list: each row has every column."""
        return []

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        """The files that are read."""
        return tuple(file.input for file in self.files)

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows, from the footers."""
        return sum(file.n_rows for file in self.files)


@dataclass(frozen=True)
class TableSource:
    """An Arrow table in memory."""

    table: pa.Table
    name: str = "the table"
    inputs: tuple[InputFile, ...] = ()
    """The files that it was read from."""
    unit: str = "row"
    """What rows are called in the file."""
    numbers: Sequence[int] = range(1, sys.maxsize)
    """The number of each row in the file."""
    described: tuple[Column, ...] | None = None
    """The columns, where their kinds were inferred from more than their types."""
    texts: TextNumbers | None = None
    """Columns of texts that hold numbers."""

    def check(self) -> TableSource:
        """Return it; raise `DataError` for a table without rows, or with two equal names."""
        if len(set(self.table.column_names)) < self.table.num_columns:
            raise DataError(
                f"two columns of {self.name} have the same name",
                code="duplicate-column",
                location=Location(self.name),
                hint="use unique column names",
            )
        if not self.table.num_rows:
            raise DataError(
                f"{self.name} has columns but no rows",
                code="header-only",
                location=Location(self.name),
            )
        return self

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns."""
        return self.described or _describe(self.table.schema, self.table[:_HEAD_ROWS])

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Yield the table's rows in batches."""
        for batch in self.table.select(list(types)).to_batches(max_chunksize=_BATCH_VALUES):
            yield cast_batch(batch, types, self.name, self.texts)

    def location(self, row: int, column: str) -> Location:
        """Return the number of a row, from 1."""
        return Location(self.name, line=self.numbers[row], column=column, unit=self.unit)

    def rejected(self) -> list[Location]:
        """Return an empty list: each row has every column."""
        return []

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows."""
        return int(self.table.num_rows)


def _is_long(column: pa_parquet.ColumnChunkMetaData) -> bool:
    """Tell whether the texts of a row group are too long, on average or as they unpack."""
    unpacked, packed = column.total_uncompressed_size, max(column.total_compressed_size, 1)
    is_bomb = unpacked > _MAX_UNPACKED_BYTES and unpacked > _MAX_RATIO * packed
    return bool(is_bomb or unpacked > MAX_TEXT_BYTES * max(column.num_values, 16))


def _longest(texts: pa.Array) -> int:
    """Return the bytes of the longest text."""
    return int(pc.max(pc.binary_length(texts)).as_py() or 0)


def folder_columns(path: AnyPath, folder: AnyPath) -> tuple[tuple[str, str], ...]:
    """Return the columns in the names of subfolders, such as `id=007`, as text: they are names."""
    if is_remote(path):
        parts = path.relative_parts(folder) if is_remote(folder) else ()
    elif not is_remote(folder) and folder.is_dir():
        parts = path.relative_to(folder).parts
    else:
        return ()
    pairs = (part.partition("=") for part in parts[:-1])
    return tuple((name, unquote(value)) for name, mark, value in pairs if mark)


def open_parquet(name: str, files: tuple[ParquetFile, ...]) -> ParquetSource:
    """Infer the kinds of the columns of Parquet files, from the first file that has rows."""
    for file in files:
        schema = file.schema
        check_n_columns(len(schema), str(file.path))
        if len(set(schema.names)) < len(schema):
            raise DataError(
                f"two columns of {file.path} have the same name",
                code="duplicate-column",
                location=Location(str(file.path)),
            )

        head = _head(file, schema)
        if head is not None and head.num_rows:
            return ParquetSource(name, files, _describe(schema, head))
    raise DataError(f"{name} has columns but no rows", code="header-only", location=Location(name))


def _head(file: ParquetFile, schema: pa.Schema) -> pa.Table | None:
    """Return the first rows, without nested columns; None where there are no rows."""
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    names = [name for name in plain if name not in file.texts]
    n_names = len(names) if plain else 1  # without any column it still has rows
    groups = [names[i : i + COLUMNS_AT_ONCE] for i in range(0, n_names, COLUMNS_AT_ONCE)]
    # A column of long texts is left out, and does not keep the others from being read.
    groups += [[name] for name in plain if name in file.texts]
    batches = []
    # A file of thousands of columns takes long to open: once is enough for the numbers.
    is_opened = len(groups) > 1 and not is_remote(file.path)
    with file.checked(), file.open_columns(()) if is_opened else nullcontext() as opened:
        for group in groups:
            has_texts = not file.texts.keys().isdisjoint(group)
            try:
                reading = file.batches(group, _HEAD_ROWS, None if has_texts else opened)
                with closing(reading) as iterator:
                    batches.append(next(iterator, None))
            except DataError as error:
                if error.code != "long-field":
                    raise

    filled = [batch for batch in batches if batch is not None]
    if len(filled) < len(batches):
        return None
    if not filled:  # nothing but long texts
        return pa.table({"": pa.nulls(min(file.n_rows, 1))})
    n_rows = min(batch.num_rows for batch in filled)
    columns = {
        field.name: array[:n_rows]
        for batch in filled
        for field, array in zip(batch.schema, batch, strict=True)
    }
    return pa.table(columns)


def _describe(schema: pa.Schema, head: pa.Table) -> tuple[Column, ...]:
    arrays = dict(zip(head.schema.names, head.columns, strict=True))
    return tuple(
        _column(field, arrays.get(field.name))
        for field in schema
        # pandas keeps an index that only counts rows in such a column.
        if not (field.name.startswith("__index_level_") and pa.types.is_integer(field.type))
    )


def _column(field: pa.Field, array: pa.ChunkedArray | None) -> Column:
    """Describe a column by its first values; None where these are long texts."""
    if pa.types.is_nested(field.type):
        return Column(field.name, "nested")
    if array is None:
        return Column(field.name, "other")

    type_ = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    sample = _sample(field.name, array.drop_null(), type_)
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return Column(field.name, "time", sample, is_typed=True, tz=getattr(type_, "tz", None))

    kind: Kind = "other"
    if pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        kind = "number"
    elif is_text(type_):
        inferred = infer_text_column(field.name, sample, None).kind
        kind = "text" if inferred == "empty" else inferred
    elif pa.types.is_null(type_):
        kind = "empty"
    return Column(field.name, kind, sample)


def _sample(name: str, values: pa.ChunkedArray, type_: pa.DataType) -> tuple[str, ...]:
    """Return values as text; none for types that are neither numbers, texts nor times.

    Times are converted to text by Arrow: Python has no years above 9999, which a damaged file may
    hold.
    """
    if pa.types.is_temporal(type_) and not pa.types.is_duration(type_):
        try:
            return tuple(values.cast(type_).cast(pa.string()).to_pylist())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"cannot read the timestamps of column {name!r}: {error}",
                code="unknown-zone",
                location=Location(name, column=name),
                hint="write the column with a known time zone such as UTC",
            ) from error

    is_plain = pa.types.is_primitive(type_) and not pa.types.is_duration(type_)
    if is_plain or pa.types.is_decimal(type_) or is_text(type_):
        return tuple(map(str, values.to_pylist()))
    return ()
