"""One CSV file: its dialect, its batches, and where in it something stands.

Apart from `reading`, which knows sources of every kind, because text needs what no other format
does: an encoding, separators, decimal marks, and physical line numbers.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv

from rnnforecast.config import DataConfig
from rnnforecast.data.columns import Column, kind_of_texts
from rnnforecast.errors import DataError, Location

MISSING = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-", "--")
"""Text that means a missing reading, beside what `--na-values` adds."""
_SEPARATORS = (",", ";", "\t", "|")
_HEAD_BYTES = 1 << 18
_MAX_HEAD_BYTES = 1 << 24
_HEAD_LINES = 100
_MIN_HEAD_LINES = 3
_BLOCK_BYTES = 1 << 22
_MAX_LISTED = 5
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True)
class Dialect:
    """How one CSV file is written."""

    sep: str
    decimal: str
    encoding: str
    skip_rows: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose dialect and columns are known; the readings are not read yet."""

    path: Path
    shown: str
    """What the file is called in messages."""
    dialect: Dialect
    columns: tuple[Column, ...]

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read these columns, a block at a time. Raises `DataError` with the line at fault."""
        dialect = self.dialect
        options = {
            "read_options": pa_csv.ReadOptions(
                block_size=_BLOCK_BYTES,
                skip_rows=dialect.skip_rows,
                encoding=dialect.encoding,
                use_threads=False,
            ),
            "parse_options": pa_csv.ParseOptions(delimiter=dialect.sep, newlines_in_values=True),
            "convert_options": pa_csv.ConvertOptions(
                column_types=wanted,
                include_columns=list(wanted),
                null_values=list(dialect.missing),
                strings_can_be_null=True,
                decimal_point=dialect.decimal,
            ),
        }
        try:
            with (
                _QuoteCounter(self._open()) as stream,
                pa_csv.open_csv(stream, **options) as reader,
            ):
                yield from reader
            if stream.n_quotes % 2:
                self._check_end()
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError, *_DAMAGED, OSError) as error:
            raise self._explain(error, wanted) from error
        finally:
            pa.default_memory_pool().release_unused()

    def location(self, row: int, column: str) -> Location:
        """Say where a row (0 is the first after the header) stands, and quote it."""
        for number, line, cells in self._lines():
            if row == 0:
                return self._at(number, line, cells, column)
            row -= 1
        return Location(file=self.shown, column=column)

    def _open(self) -> BinaryIO:
        return open_binary(self.path)

    def _lines(self) -> Iterator[tuple[int, str, list[str]]]:
        """Every row after the header: physical line number, first line of its text, cells."""
        with (
            self._open() as raw,
            io.TextIOWrapper(raw, self.dialect.encoding, "replace", newline="") as text,
        ):
            kept: list[str] = []

            def remember() -> Iterator[str]:
                for line in text:
                    kept.append(line)
                    yield line

            n_skipped = sum(1 for _ in itertools.islice(text, self.dialect.skip_rows))
            reader = csv.reader(remember(), delimiter=self.dialect.sep)
            is_header = True
            try:
                for cells in reader:
                    if cells and not is_header:
                        first = n_skipped + reader.line_num - len(kept) + 1
                        yield first, kept[0].rstrip("\r\n"), cells
                    is_header = is_header and not cells
                    kept.clear()
            except csv.Error as error:
                raise _field_too_long(self.shown) from error

    def _check_end(self) -> None:
        """Raise where the file ends inside of quotes: they swallow all rows that follow them."""
        with self._open() as raw, io.TextIOWrapper(raw, self.dialect.encoding, "replace") as text:
            first = 1 + sum(1 for _ in itertools.islice(text, self.dialect.skip_rows))
            reader = csv.reader(text, delimiter=self.dialect.sep, strict=True)
            try:
                for _ in reader:
                    first = self.dialect.skip_rows + reader.line_num + 1
            except csv.Error as error:
                if "end of data" not in str(error):
                    return  # quotes of another kind, which are read as they stand
                raise DataError(
                    f"{self.shown} ends inside of quotes that are opened in line {first}",
                    code="unclosed-quote",
                    location=Location(self.shown, line=first),
                    hint="close the quote, or fetch the file again if it is cut off",
                ) from error

    def _at(self, number: int, line: str, cells: Sequence[str], column: str) -> Location:
        place = [c.name for c in self.columns].index(column)
        return Location(
            file=self.shown,
            line=number,
            column=column,
            column_number=place + 1,
            text=line,
            token=cells[place] if place < len(cells) else None,
        )

    def _explain(self, error: Exception, wanted: dict[str, pa.DataType]) -> DataError:
        """Find what pyarrow stumbled over, by reading the rows one by one."""
        if isinstance(error, _DAMAGED):
            return _truncated(error, self.shown)
        numbers = [name for name, type_ in wanted.items() if pa.types.is_floating(type_)]
        bad: dict[str, list[tuple[Location, str]]] = {}
        for number, line, cells in self._lines():
            if len(cells) != len(self.columns):
                return DataError(
                    f"line {number} has {len(cells)} fields, but the header has "
                    f"{len(self.columns)}",
                    code="ragged-row",
                    location=Location(self.shown, line=number, text=line),
                    hint="correct or remove the line; a decimal comma needs another separator",
                )
            for name in numbers:
                location = self._at(number, line, cells, name)
                if self._is_number(location.token or ""):
                    continue
                bad.setdefault(name, []).append((location, location.token or ""))
        if bad:
            return self._not_numbers(*next(iter(bad.items())))
        return DataError(
            f"{self.shown} cannot be read: {error}",
            code="unreadable",
            location=Location(self.shown),
            hint="if the file is not UTF-8 text, name its encoding, such as  --encoding cp1252",
        )

    def _is_number(self, text: str) -> bool:
        return text in self.dialect.missing or is_number(text, self.dialect.decimal)

    def _not_numbers(self, column: str, bad: list[tuple[Location, str]]) -> DataError:
        first, token = bad[0]
        rest = tuple(place.line or 0 for place, _ in bad[1 : _MAX_LISTED + 1])
        return DataError(
            f"{len(bad)} value{'s' * (len(bad) > 1)} in column {column!r} "
            f"{'are' if len(bad) > 1 else 'is'} not a number",
            code="not-a-number",
            location=Location(
                first.file,
                first.line,
                column,
                first.column_number,
                text=first.text,
                token=token,
                also_lines=rest,
            ),
            hint=self._number_hint(token),
        )

    def _number_hint(self, token: str) -> str:
        if self.dialect.decimal == "." and is_number(token, ","):
            return "if the comma is a decimal mark, add  --decimal ,"
        if self.dialect.decimal == "," and is_number(token, "."):
            return "if the point is a decimal mark, add  --decimal ."
        return f"to treat it as missing, add  --na-values {quote(token)}"


class _QuoteCounter(io.BufferedIOBase):
    """A stream that counts the quotes that are read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.n_quotes = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all."""
        block = self._file.read(-1 if size is None else size)
        self.n_quotes += block.count(b'"')
        return block

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


def open_csv_file(path: Path, config: DataConfig, *, shown: str) -> CsvFile:
    """Find out how a CSV file is written and what its columns hold, from its first lines.

    Raises `DataError` for a file that is empty, has no rows, or is no table.
    """
    head, whole = _read_head(path, shown)
    encoding = config.encoding or _find_encoding(head, shown)
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline=""))  # str.splitlines also cuts where CSV does not
    lines = (lines if whole else lines[:-1])[config.skip_rows :]
    rows = [line for line in lines if line.strip()]
    if not rows:
        raise DataError(
            f"{shown} is empty",
            code="empty",
            location=Location(shown),
            hint="pass a file with rows",
        )
    sep = config.sep or _find_separator(rows[: _HEAD_LINES + 1])
    try:
        table = [row for row in csv.reader(lines, delimiter=sep) if row]
    except csv.Error as error:
        raise _field_too_long(shown) from error
    names, body = table[0], table[1:]
    if not body:
        raise DataError(
            f"{shown} has a header, but no readings",
            code="header-only",
            location=Location(shown, line=1, text=rows[0].rstrip("\r\n")),
            hint="pass a file with rows below the header",
        )
    _check_names(names, rows[0].rstrip("\r\n"), shown, sep=sep)
    missing = (*MISSING, *config.na_values)
    decimal = config.decimal or _find_decimal(body, sep, missing)
    dialect = Dialect(sep, decimal, encoding, config.skip_rows, missing)
    columns = tuple(
        kind_of_texts(
            name,
            [row[i] for row in body if i < len(row) and row[i] not in missing],
            is_number=lambda cell: is_number(cell, decimal),
        )
        for i, name in enumerate(names)
    )
    return CsvFile(path, shown, dialect, columns)


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked if its first bytes say that it is gzip."""
    file = path.open("rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        return file
    file.close()
    return io.BufferedReader(gzip.GzipFile(path))


def is_number(text: str, decimal: str) -> bool:
    """Tell whether a cell is a number with this decimal mark."""
    mark = re.escape(decimal)
    pattern = rf"[+-]?(\d+({mark}\d*)?|{mark}\d+)(e[+-]?\d+)?|[+-]?(inf|infinity)"
    return re.fullmatch(pattern, text.strip(" \t"), re.IGNORECASE | re.ASCII) is not None


def quote(text: str) -> str:
    """Quote a word for a shell where it needs it; an option's value must not look like one."""
    plain = re.fullmatch(r"[\w.,:/+@%-]+", text) is not None
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def _read_head(path: Path, shown: str) -> tuple[bytes, bool]:
    try:
        with open_binary(path) as file:
            head = file.read(_HEAD_BYTES)
            while _n_lines(head) < _MIN_HEAD_LINES and len(head) < _MAX_HEAD_BYTES:
                more = file.read(len(head) or 1)  # the rows of a very wide table are long
                if not more:
                    break
                head += more
            return head, not file.read(1)
    except _DAMAGED as error:
        raise _truncated(error, shown) from error
    except OSError as error:
        raise DataError(
            f"{shown} cannot be read: {error}", code="unreadable", location=Location(shown)
        ) from error


def _n_lines(head: bytes) -> int:
    return max(head.count(b"\n"), head.count(b"\r"))


def _truncated(error: Exception, shown: str) -> DataError:
    return DataError(
        f"{shown} is cut off or damaged: {error}",
        code="truncated",
        location=Location(shown),
        hint="the file may still be being written; fetch it again",
    )


def _field_too_long(shown: str) -> DataError:
    return DataError(
        f"{shown} has a field of more than {csv.field_size_limit()} characters",
        code="long-field",
        location=Location(shown),
        hint="a quote that is opened but never closed does this; correct the line",
    )


def _find_encoding(head: bytes, shown: str) -> str:
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        raise DataError(
            f"byte {head[error.start]:#04x} is not UTF-8 text",
            code="encoding",
            location=Location(shown, line=line),
            hint="name the encoding, such as  --encoding cp1252",
        ) from error
    return "utf-8"


def _find_separator(lines: list[str]) -> str:
    """Find the separator that gives every line as many fields as the header, the most of them."""

    def counts(sep: str) -> list[int]:
        return [len(row) for row in csv.reader(lines, delimiter=sep) if row]

    def merit(sep: str) -> tuple[bool, int]:
        try:
            fields = counts(sep)
        except csv.Error:  # without its own separator, a very wide row is one field, too long
            return False, 0
        consistent = fields[0] > 1 and len(set(fields)) == 1
        return consistent, fields[0]

    return max(_SEPARATORS, key=merit)


def _find_decimal(body: list[list[str]], sep: str, missing: tuple[str, ...]) -> str:
    """Find the decimal mark: a comma only where it explains whole columns that a point does not."""
    if sep == ",":
        return "."
    for cells in zip(*(row for row in body if len(row) == len(body[0])), strict=True):
        there = [cell for cell in cells if cell not in missing]
        if (
            there
            and all(is_number(cell, ",") for cell in there)
            and not all(is_number(cell, ".") for cell in there)
        ):
            return ","
    return "."


def _check_names(names: list[str], line: str, shown: str, *, sep: str) -> None:
    location = Location(shown, line=1, text=line)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"two columns are called {twice!r}",
            code="duplicate-column",
            location=location,
            hint="give every column a name of its own",
        )
    if len(names) == 1:
        raise DataError(
            f"only one column was found, {names[0]!r}",
            code="one-column",
            location=location,
            hint=f"if another separator than {sep!r} divides the columns, name it with  --sep",
        )
