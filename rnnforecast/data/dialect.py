"""How one CSV file is written: encoding, separator, decimal mark, and what its cells can be.

Below `csvfile`, which reads a file whose dialect is known. Nothing is guessed from one line: what
is found holds for all of the first lines, or is an error that names the option to pass.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from rnnforecast.config import DataConfig
from rnnforecast.data.columns import Column, is_number, kind_of_texts
from rnnforecast.data.header import SEPARATORS, Header
from rnnforecast.errors import DataError, Location

MISSING = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-", "--")
"""Text that means a missing reading, beside what `--na-values` adds."""
_HEAD_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 24
_HEAD_LINES = 100
_MIN_HEAD_LINES = 3
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged gzip file raises."""


@dataclass(frozen=True)
class Dialect:
    """How one CSV file is written."""

    sep: str
    decimal: str
    encoding: str
    skip_rows: int
    missing: tuple[str, ...]


def sniff(path: Path, config: DataConfig, *, shown: str) -> tuple[Dialect, tuple[Column, ...]]:
    """Find out how a CSV file is written and what its columns hold, from its first lines.

    Raises `DataError` for a file that is empty, has no rows, or is no table.
    """
    head, whole = _read_head(path, shown)
    encoding = config.encoding or _find_encoding(head, shown)
    lines = _lines_of(head, encoding, whole=whole, shown=shown)[config.skip_rows :]
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
        raise field_too_long(shown) from error
    names, body = table[0], table[1:]
    header = Header(shown, config.skip_rows, rows, sep)
    header.check(names, has_body=bool(body))
    missing = (*MISSING, *config.na_values)
    decimal = config.decimal or _find_decimal(body, sep, missing)
    header.check_is_no_row(names, decimal)
    dialect = Dialect(sep, decimal, encoding, config.skip_rows, missing)
    columns = tuple(
        kind_of_texts(
            name,
            [row[i] for row in body if i < len(row) and row[i] not in missing],
            is_number=lambda cell: is_number(cell, decimal),
        )
        for i, name in enumerate(names)
    )
    return dialect, columns


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked if its first bytes say that it is gzip."""
    file = path.open("rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        return file
    file.close()
    return io.BufferedReader(gzip.GzipFile(path))


def quote(text: str) -> str:
    """Quote a word for a shell where it needs it; an option's value must not look like one."""
    plain = re.fullmatch(r"[\w.,:/+@%-]+", text) is not None
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def _read_head(path: Path, shown: str) -> tuple[bytes, bool]:
    try:
        with open_binary(path) as file:
            head = file.read(_HEAD_BYTES)
            while _n_lines(head) < _MIN_HEAD_LINES and len(head) < MAX_LINE_BYTES:
                more = file.read(len(head) or 1)  # the rows of a very wide table are long
                if not more:
                    break
                head += more
            return head, not file.read(1)
    except DAMAGED as error:
        raise truncated(error, shown) from error
    except OSError as error:
        raise DataError(
            f"{shown} cannot be read: {error}", code="unreadable", location=Location(shown)
        ) from error


def _lines_of(head: bytes, encoding: str, *, whole: bool, shown: str) -> list[str]:
    """Cut the head into whole lines. Raises `DataError` where it is one endless line."""
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline=""))  # str.splitlines also cuts where CSV does not
    if not whole and len(lines) < _MIN_HEAD_LINES:
        raise line_too_long(shown, len(lines))
    return lines if whole else lines[:-1]


def _n_lines(head: bytes) -> int:
    return max(head.count(b"\n"), head.count(b"\r"))


def truncated(error: Exception, shown: str) -> DataError:
    """Say that a file ends too early."""
    return DataError(
        f"{shown} is cut off or damaged: {error}",
        code="truncated",
        location=Location(shown),
        hint="the file may still be being written; fetch it again",
    )


def bounded_lines(text: TextIO, shown: str) -> Iterator[str]:
    """Give the lines of a file one by one. Raises `DataError` for one that would fill memory."""
    for number in itertools.count(1):
        line = text.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise line_too_long(shown, number)
        if not line:
            return
        yield line


def line_too_long(shown: str, line: int) -> DataError:
    """Say that a line is longer than that of any table."""
    return DataError(
        f"line {line} has more than {MAX_LINE_BYTES >> 20} million characters",
        code="long-line",
        location=Location(shown, line=line),
        hint="this is no table of readings; check what wrote the file",
    )


def field_too_long(shown: str) -> DataError:
    """Say that a field is longer than any reading."""
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
    if 0 in head:
        raise _no_text(head, shown)
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


def _no_text(head: bytes, shown: str) -> DataError:
    """Say that bytes of 0 are no text, unless nearly every second one is 0, as in UTF-16."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    is_utf16 = max(even, odd) > len(head) // 3 and min(even, odd) < len(head) // 20
    return DataError(
        f"{shown} holds bytes of 0, as "
        + ("UTF-16 does, but no mark that says so" if is_utf16 else "no text does"),
        code="encoding",
        location=Location(shown),
        hint=f"if it is UTF-16, add  --encoding utf-16-{'be' if even > odd else 'le'}"
        if is_utf16
        else "pass a CSV file; a Parquet file must be called .parquet",
    )


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

    return max(SEPARATORS, key=merit)


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
