"""From DATA to Arrow batches: CSV, Parquet, folders, globs, URLs, standard input, tables in memory.

A source has columns, gives batches, says where a row stands, and names its files. It does not know
what its columns are for, nor what a time grid is.
"""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.events import Listener, ignore
from rnnforecast.places.remote import Place, Remote, place_of
from rnnforecast.sources.columns import Column
from rnnforecast.sources.csvfile import CsvFile, open_csv_file
from rnnforecast.sources.frames import table_of
from rnnforecast.sources.parquetfile import ParquetFile, TableSource, open_parquet
from rnnforecast.sources.remotefiles import expand_remote
from rnnforecast.sources.shards import ShardFolder, is_sharded, open_shards

_CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_PARQUET_ENDINGS = (".parquet", ".pq")
STANDARD_INPUT = "-"


class Source(Protocol):
    """Readings that have not been read yet."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in the order of the file."""

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read these columns as these types, a batch at a time; text that cannot be is an error.

        Time stamps may come as text, though: there are more ways to write them than ISO 8601.
        """

    def location(self, row: int, column: str) -> Location:
        """Say where a row (counted over all batches) stands."""

    def rejected(self) -> list[Location]:
        """Say where the rows stand that the last reading skipped."""

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, as far as can be told without reading them."""


@dataclass(frozen=True)
class WrappedSource:
    """What a source seen in another way has in common with it."""

    source: Source

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.source.name

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return self.source.paths

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, as far as can be told without reading them."""
        return self.source.n_rows_about

    def rejected(self) -> list[Location]:
        """Say where the rows stand that the last reading skipped."""
        return self.source.rejected()


@dataclass(frozen=True)
class CsvSource:
    """One CSV file, or several with the same columns, one after the other."""

    name: str
    files: tuple[CsvFile, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The first file's columns; the others have the same names."""
        return self.files[0].columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other."""
        for file in self.files:
            yield from file.batches(wanted)

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and the line."""
        for file in self.files[:-1]:
            n_rows = sum(b.num_rows for b in file.batches({column: pa.string()}))
            if row < n_rows:
                return file.location(row, column)
            row -= n_rows
        return self.files[-1].location(row, column)

    def rejected(self) -> list[Location]:
        """Gather them from all files."""
        return [place for file in self.files for place in file.rejected()]

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return tuple(file.path for file in self.files)

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, by the size of the files and of their first rows."""
        return sum(file.n_rows_about for file in self.files)


def open_source(data: object, config: DataConfig, listener: Listener = ignore) -> Source:
    """Open a path, a glob, `-`, a pandas table or an Arrow table. Raises `DataError`.

    Some buckets of a folder are open already.
    """
    if isinstance(data, ShardFolder):
        return data
    if isinstance(data, str | Path):
        return _open_path(str(data), config, listener)
    table = data if isinstance(data, pa.Table) else table_of(data)
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(
            "two columns of the table have the same name",
            code="duplicate-column",
            hint="give every column a name of its own",
        )
    if not table.num_rows:
        raise DataError("the table has columns, but no readings", code="header-only")
    return TableSource(table)


def _open_path(text: str, config: DataConfig, listener: Listener) -> Source:
    if not text:
        raise UsageError("the path of the readings is empty", hint="pass a file, a folder or -")
    if text == STANDARD_INPUT:
        return _open_standard_input(config, listener)
    place = place_of(text)
    text = text if isinstance(place, Path) else str(place)
    if is_sharded(place):
        return open_shards(text)
    paths: Sequence[Place] = expand_remote(place) if isinstance(place, Remote) else _expand(text)
    if all(path.name.lower().endswith(_CSV_ENDINGS) or not path.suffix for path in paths):
        files = tuple(open_csv_file(path, config, listener, shown=str(path)) for path in paths)
        _check_same_columns(files)
        return CsvSource(text, files)
    strange = next((p for p in paths if p.suffix.lower() not in _PARQUET_ENDINGS), None)
    if strange is not None and strange.name.lower().endswith(_CSV_ENDINGS):
        raise DataError(
            f"{text} holds CSV files and others, or is a folder of them: {strange}",
            code="mixed-formats",
            location=Location(str(strange)),
            hint=f"name the CSV files with a pattern in quotes, such as  '{place / '*.csv'}'"
            if place.is_dir()
            else "name files of one format",
        )
    if strange is not None:
        raise DataError(
            f"{strange} is neither CSV nor Parquet",
            code="unknown-format",
            location=Location(str(strange)),
            hint=f"name it with one of {' '.join(_CSV_ENDINGS + _PARQUET_ENDINGS)}",
        )
    return open_parquet(text, tuple(ParquetFile(p, _folder_values(p, place)) for p in paths))


def _expand(text: str) -> list[Path]:
    """Return the files that a path stands for: itself, a folder's Parquet files, or a glob's."""
    path = Path(text)
    try:
        path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be a path: {error}", code="not-found") from error
    if path.is_dir():
        found = [
            p
            for p in sorted(path.rglob("*"))
            if p.is_file() and not any(x.startswith(("_", ".")) for x in p.relative_to(path).parts)
        ]
        if found:
            return found
        raise DataError(f"the folder {text} has no files", code="empty", location=Location(text))
    if path.exists():
        if not path.is_file():
            raise DataError(f"{text} is not a regular file", code="not-a-file")
        return [path]
    found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
    if found:
        return found
    what = "matches no file" if glob.has_magic(text) else "does not exist"
    raise DataError(
        f"{text} {what}", code="not-found", hint="check the path; quote a pattern such as 'a/*.csv'"
    )


def _open_standard_input(config: DataConfig, listener: Listener) -> Source:
    """Copy standard input to a file that goes with the source: a table is looked at twice."""
    file = tempfile.NamedTemporaryFile(prefix="rnnforecast-", suffix=".csv")  # noqa: SIM115
    try:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        csv_file = open_csv_file(Path(file.name), config, listener, shown="standard input")
    except BaseException:
        file.close()
        raise
    source = CsvSource("standard input", (csv_file,))
    weakref.finalize(source, file.close)
    return source


def _folder_values(path: Place, folder: Place) -> tuple[tuple[str, str], ...]:
    """Read what subfolders are called, such as `id=007`, as text: it names things."""
    if isinstance(path, Remote) and isinstance(folder, Remote):
        parts = path.parts_below(folder)
    elif isinstance(path, Path) and isinstance(folder, Path) and folder.is_dir():
        parts = path.relative_to(folder).parts
    else:
        return ()
    pairs = (part.partition("=") for part in parts[:-1])
    return tuple((name, unquote(value)) for name, mark, value in pairs if mark)


def _check_same_columns(files: tuple[CsvFile, ...]) -> None:
    names = {column.name for column in files[0].columns}
    for file in files[1:]:
        other = {column.name for column in file.columns}
        if other != names:
            raise DataError(
                f"{file.shown} has other columns than {files[0].shown}: "
                f"{', '.join(sorted(names ^ other))}",
                code="different-columns",
                location=Location(file.shown),
            )
