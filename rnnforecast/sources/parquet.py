"""Parquet files and Arrow tables as sources."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from rnnforecast.errors import DataError, Location
from rnnforecast.sources.columns import Column, Kind, cast_all, is_text, kind_of_texts
from rnnforecast.sources.files import opened
from rnnforecast.storage.remote import Place, Remote

_BATCH_VALUES = 1 << 20
_MIN_BATCH_ROWS = 1 << 10
_HEAD_ROWS = 1000
COLUMNS_AT_ONCE = 100
"""Of each column that is read a page or two are in memory, which may be a megabyte large."""
_BUFFER_BYTES = 1 << 16
_REMOTE_BUFFER_BYTES = 1 << 20
_AHEAD_BYTES = 1 << 27
"""A row group is read ahead from a store where what is wanted of it is no larger."""
_DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading a damaged file raises; the last one for names of columns."""


@dataclass(frozen=True)
class ParquetFile:
    """One Parquet file; `folders` are the values that its folders' names give, as in `id=007`."""

    path: Place
    folders: tuple[tuple[str, str], ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types, the folders' last. Raises `DataError` if it is damaged."""
        try:
            schema = pa_parquet.read_schema(opened(self.path))
            _ = schema.names  # which are decoded here
        except _DAMAGED as error:
            raise self._damaged(error) from error
        for name, _ in self.folders:
            field, at = pa.field(name, pa.string()), schema.get_field_index(name)
            schema = schema.append(field) if at < 0 else schema.set(at, field)
        return schema

    def batches(self, names: list[str], n_rows: int) -> Generator[pa.RecordBatch]:
        """Read these columns, at most `n_rows` rows at a time, in the order of `names`."""
        given = dict(self.folders)
        try:
            stored = [name for name in names if name not in given]
            with self._open(stored) as file:
                for batch in self._stored_batches(file, stored, n_rows):
                    arrays = [
                        pa.repeat(given[n], batch.num_rows) if n in given else batch.column(n)
                        for n in names
                    ]
                    for array in arrays:
                        if not pa.types.is_primitive(array.type):
                            is_coded = pa.types.is_dictionary(array.type)
                            texts = array.dictionary if is_coded else array
                            texts.validate(full=True)  # a damaged page may hold no UTF-8
                    yield pa.RecordBatch.from_arrays(arrays, names=names)
        except _DAMAGED as error:
            raise self._damaged(error) from error
        finally:
            pa.default_memory_pool().release_unused()

    def _open(self, names: list[str]) -> pa_parquet.ParquetFile:
        if not isinstance(self.path, Remote):
            return pa_parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        metadata = pa_parquet.read_metadata(opened(self.path))
        return pa_parquet.ParquetFile(
            opened(self.path),
            metadata=metadata,
            pre_buffer=_largest_group(metadata, names) <= _AHEAD_BYTES,
            buffer_size=_REMOTE_BUFFER_BYTES,
        )

    def _stored_batches(
        self, file: pa_parquet.ParquetFile, names: list[str], n_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Read what the file holds; from a store one row group after the other.

        What was read ahead is held until its iterator ends.
        """
        if not isinstance(self.path, Remote):
            yield from file.iter_batches(n_rows, columns=names, use_threads=True)
            return
        for group in range(file.num_row_groups):
            yield from file.iter_batches(n_rows, [group], columns=names, use_threads=True)

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path} is not a whole Parquet file: {error}",
            code="unreadable",
            location=Location(str(self.path)),
            hint="the file may still be being written, or is cut off; fetch it again",
        )


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files, one after the other."""

    name: str
    files: tuple[ParquetFile, ...]
    columns: tuple[Column, ...]

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other. Raises `DataError` for one without a column."""
        for file in self.files:
            there = set(file.schema.names)  # reading it takes long where columns are many
            missing = [name for name in wanted if name not in there]
            if missing:
                raise DataError(
                    f"{file.path} has no column {missing[0]!r}, but other files have",
                    code="different-columns",
                    location=Location(str(file.path), column=missing[0]),
                )
            n_rows = max(_MIN_BATCH_ROWS, _BATCH_VALUES // len(wanted))
            for batch in file.batches(list(wanted), n_rows):
                yield cast_all(batch, wanted, str(file.path))

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and count from its first."""
        for file in self.files[:-1]:
            n_rows = pa_parquet.read_metadata(opened(file.path)).num_rows
            if row < n_rows:
                return Location(str(file.path), line=row + 1, column=column, unit="row")
            row -= n_rows
        return Location(str(self.files[-1].path), line=row + 1, column=column, unit="row")

    def rejected(self) -> list[Location]:
        """Return none: each row has every column."""
        return []

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return tuple(file.path for file in self.files)

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, as the footers say."""
        return sum(pa_parquet.read_metadata(opened(file.path)).num_rows for file in self.files)


@dataclass(frozen=True)
class TableSource:
    """An Arrow table in memory."""

    table: pa.Table
    name: str = "the table"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns."""
        return _describe(self.table.schema, self.table[:_HEAD_ROWS])

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Hand out the table's rows in parts."""
        for batch in self.table.select(list(wanted)).to_batches(max_chunksize=_BATCH_VALUES):
            yield cast_all(batch, wanted, self.name)

    def location(self, row: int, column: str) -> Location:
        """Count the rows from 1."""
        return Location(self.name, line=row + 1, column=column, unit="row")

    def rejected(self) -> list[Location]:
        """Return none: each row has every column."""
        return []

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return ()

    @property
    def n_rows_about(self) -> int:
        """How many rows there are."""
        return int(self.table.num_rows)


def open_parquet(name: str, files: tuple[ParquetFile, ...]) -> ParquetSource:
    """Find out what the columns of Parquet files hold, from the first file that has rows."""
    for file in files:
        schema = file.schema
        if len(set(schema.names)) < len(schema):
            raise DataError(
                f"two columns of {file.path} have the same name",
                code="duplicate-column",
                location=Location(str(file.path)),
            )
        head = _head(file, schema)
        if head is not None and head.num_rows:
            return ParquetSource(name, files, _describe(schema, head))
    raise DataError(
        f"{name} has columns, but no readings", code="header-only", location=Location(name)
    )


def _largest_group(metadata: pa_parquet.FileMetaData, names: list[str]) -> int:
    """Return how many bytes these columns take in the row group where they take most."""
    wanted, sizes = set(names), [0]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        sizes.append(sum(c.total_compressed_size for c in columns if c.path_in_schema in wanted))
    return max(sizes)


def _head(file: ParquetFile, schema: pa.Schema) -> pa.Table | None:
    """Return the first rows; a column that is nested is not read. None where there are none."""
    names = [field.name for field in schema if not pa.types.is_nested(field.type)]
    parts = []
    for at in range(0, max(1, len(names)), COLUMNS_AT_ONCE):
        batches = file.batches(names[at : at + COLUMNS_AT_ONCE], _HEAD_ROWS)
        with closing(batches):
            parts.append(next(batches, None))
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    n_rows = min(part.num_rows for part in found)
    columns = {
        field.name: a[:n_rows] for part in found for field, a in zip(part.schema, part, strict=True)
    }
    return pa.table(columns)


def _describe(schema: pa.Schema, head: pa.Table) -> tuple[Column, ...]:
    return tuple(_column(field, head) for field in schema if not _is_row_number(field))


def _column(field: pa.Field, head: pa.Table) -> Column:
    if pa.types.is_nested(field.type):
        return Column(field.name, "nested")
    type_ = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    sample = _sample(field.name, head.column(field.name).drop_null(), type_)
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return Column(field.name, "time", sample, is_typed=True, tz=getattr(type_, "tz", None))
    kind: Kind = "other"
    if pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        kind = "number"
    elif is_text(type_):
        judged = kind_of_texts(field.name, sample, is_number=lambda _: False)
        kind = "text" if judged.kind == "empty" else judged.kind
    elif pa.types.is_null(type_):
        kind = "empty"
    return Column(field.name, kind, sample)


def _sample(name: str, values: pa.ChunkedArray, type_: pa.DataType) -> tuple[str, ...]:
    """Return values as text; none of a type that nothing is made of.

    Times go to text in Arrow: Python has no years above 9999, which a damaged file may hold.
    """
    if pa.types.is_temporal(type_) and not pa.types.is_duration(type_):
        try:
            return tuple(values.cast(type_).cast(pa.string()).to_pylist())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"the times of column {name!r} cannot be read: {error}",
                code="unknown-zone",
                location=Location(name, column=name),
                hint="write the column with a zone that is known, such as UTC",
            ) from error
    is_plain = pa.types.is_primitive(type_) and not pa.types.is_duration(type_)
    if is_plain or pa.types.is_decimal(type_) or is_text(type_):
        return tuple(map(str, values.to_pylist()))
    return ()


def _is_row_number(field: pa.Field) -> bool:
    """Tell whether pandas wrote this column to keep an index that only counts rows."""
    return field.name.startswith("__index_level_") and bool(pa.types.is_integer(field.type))
