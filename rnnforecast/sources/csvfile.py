"""One CSV file: its batches, and where in it something stands.

Apart from `reading`, which knows sources of every kind, because text needs what no other format
does: physical line numbers, and rows that have to be read one by one to find what is wrong.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TextIO

import pyarrow as pa
import pyarrow.csv as pa_csv

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener
from rnnforecast.places.remote import Place
from rnnforecast.sources.columns import Column
from rnnforecast.sources.csvblocks import BLOCK_BYTES, Conversion, RowBlocks
from rnnforecast.sources.dialect import Dialect, sniff
from rnnforecast.sources.misfits import Misfits
from rnnforecast.sources.streams import LimitedStream, LinesLeftOut, Recoded
from rnnforecast.sources.textfile import (
    DAMAGED,
    bounded_lines,
    field_too_long,
    open_binary,
    truncated,
    unpacked_size,
)
from rnnforecast.sources.threads import in_threads


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose dialect and columns are known; the readings are not read yet."""

    path: Place
    shown: str
    """What the file is called in messages."""
    dialect: Dialect
    columns: tuple[Column, ...]
    skips_bad_rows: bool
    most_bytes: int
    _skipped: list[str] = field(default_factory=list)
    """Rows with too few or too many fields that the last reading came across."""

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read these columns, a block at a time. Raises `DataError` with the line at fault.

        Time stamps that are not ISO 8601 come as text.
        """
        skip = self._skip if self.skips_bad_rows else None
        convert = Conversion(self.dialect, wanted, skip)
        self._skipped.clear()
        try:
            with LimitedStream(self._rows_alone(), self.most_bytes, self.shown) as stream:
                blocks = RowBlocks(stream, self.dialect.sep)
                for batches in in_threads(partial(convert.of_block, blocks), blocks):
                    yield from batches
                rest = blocks.rest
                if rest is not None:
                    yield from convert.of_stream(rest)
            if rest is not None and rest.n_quotes % 2:
                self._check_end()
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError, *DAMAGED, OSError) as error:
            raise self._explain(error, wanted) from error
        finally:
            pa.default_memory_pool().release_unused()

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, by the size of the file and of its first rows."""
        try:
            with self._open() as file:
                head = file.read(BLOCK_BYTES)
            n_bytes = unpacked_size(self.path)
        except (*DAMAGED, OSError):
            return 0  # reading will say what is wrong
        n_lines = max(head.count(b"\n"), head.count(b"\r"))
        return int(n_bytes / max(len(head), 1) * n_lines)

    def _skip(self, row: pa_csv.InvalidRow) -> str:
        self._skipped.append(row.text)
        return "skip"

    def rejected(self) -> list[Location]:
        """Return where the rows stand that the last reading skipped."""
        if not self._skipped:
            return []
        return [
            Location(self.shown, number, text=line)
            for number, line, cells in self._lines()
            if len(cells) != len(self.columns)
        ]

    def location(self, row: int, column: str) -> Location:
        """Say where a row (0 is the first after the header) stands, and quote it."""
        for number, line, cells in self._lines():
            if self.skips_bad_rows and len(cells) != len(self.columns):
                continue
            if row == 0:
                return self._at(number, line, cells, column)
            row -= 1
        return Location(file=self.shown, column=column)

    def _open(self) -> io.BufferedReader:
        return open_binary(self.path)

    def _rows_alone(self) -> LinesLeftOut:
        """Open the file as UTF-8, without comments and without what is above the first row."""
        file, encoding = self._open(), self.dialect.encoding
        is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
        text = file if is_utf8 else Recoded(file, encoding)
        return LinesLeftOut(text, self.dialect.n_above, self.dialect.comment)

    def _lines(self) -> Iterator[tuple[int, str, list[str]]]:
        """Every row: physical line number, first line of its text, cells."""
        with (
            self._open() as raw,
            io.TextIOWrapper(raw, self.dialect.encoding, "replace", newline="") as text,
        ):
            read: list[tuple[int, str]] = []
            reader = csv.reader(self._remembered(text, read), delimiter=self.dialect.sep)
            try:
                for cells in reader:
                    if cells:
                        number, line = read[0]
                        yield number, line.rstrip("\r\n"), cells
                    read.clear()
            except csv.Error as error:
                raise field_too_long(self.shown) from error

    def _remembered(self, text: TextIO, read: list[tuple[int, str]]) -> Iterator[str]:
        """Give the lines below the header that are no comments, and note each with its number."""
        comment = self.dialect.comment
        for number, line in enumerate(bounded_lines(text, self.shown), 1):
            if number > self.dialect.n_above and not (comment and line.startswith(comment)):
                read.append((number, line))
                yield line

    def _check_end(self) -> None:
        """Raise where the file ends inside of quotes: they swallow all rows that follow them."""
        with self._open() as raw, io.TextIOWrapper(raw, self.dialect.encoding, "replace") as text:
            read: list[tuple[int, str]] = []
            lines = self._remembered(text, read)
            reader = csv.reader(lines, delimiter=self.dialect.sep, strict=True)
            try:
                for _ in reader:
                    read.clear()
            except csv.Error as error:
                if "end of data" not in str(error):
                    return  # quotes of another kind, which are read as they stand
                raise self._unclosed(*read[0]) from error

    def _unclosed(self, number: int, line: str) -> DataError:
        return DataError(
            f"{self.shown} ends inside of quotes that are opened in line {number}",
            code="unclosed-quote",
            location=Location(self.shown, line=number, text=line.rstrip("\r\n")),
            hint="close the quote, or fetch the file again if it is cut off",
        )

    def _at(self, number: int, line: str, cells: Sequence[str], column: str) -> Location:
        place = self._places[column]
        return Location(
            file=self.shown,
            line=number,
            column=column,
            column_number=place + 1,
            text=line,
            token=cells[place] if place < len(cells) else None,
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {column.name: place for place, column in enumerate(self.columns)}

    def _explain(self, error: Exception, wanted: dict[str, pa.DataType]) -> DataError:
        """Find what pyarrow stumbled over, by reading the rows one by one."""
        if isinstance(error, DAMAGED):
            return truncated(error, self.path, self.shown)
        self._check_end()
        numbers = [name for name, type_ in wanted.items() if pa.types.is_floating(type_)]
        misfits = Misfits(self.dialect, {name: self._places[name] for name in numbers})
        for number, line, cells in self._lines():
            if len(cells) == len(self.columns):
                for name in misfits.of(cells):
                    misfits.note(name, self._at(number, line, cells, name))
            elif not self.skips_bad_rows:
                return self._ragged(number, line, len(cells))
        return misfits.error() or DataError(
            f"{self.shown} cannot be read: {error}",
            code="unreadable",
            location=Location(self.shown),
            hint="if the file is not UTF-8 text, name its encoding, such as  --encoding cp1252",
        )

    def _ragged(self, number: int, line: str, n_fields: int) -> DataError:
        return DataError(
            f"line {number} has {n_fields} fields, but the header has {len(self.columns)}",
            code="ragged-row",
            location=Location(self.shown, line=number, text=line),
            hint="correct the line, or add  --on-bad-rows skip",
        )


def open_csv_file(path: Place, config: DataConfig, listener: Listener, *, shown: str) -> CsvFile:
    """Look at a CSV file's first lines. Raises `DataError` if it is empty or no table."""
    found = sniff(path, config, listener, shown=shown)
    return CsvFile(
        path,
        shown,
        *found,
        skips_bad_rows=config.on_bad_rows == "skip",
        most_bytes=config.input_limit,
    )
