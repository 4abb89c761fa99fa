"""Files of text as bytes: unpacked, decoded, cut into lines of bounded length.

Below `dialect` and `csvfile`, which know what the text means.
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
from contextlib import suppress
from typing import TextIO

from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.places.remote import Place, Remote
from rnnforecast.sources.remotefiles import open_remote

_HEAD_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 24
_MIN_HEAD_LINES = 3
_GZIP_MARK = b"\x1f\x8b"
"""The first bytes of a packed file."""
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged gzip file raises."""
_FOREIGN_WORD = re.compile("[\x80-\uffff]{3}")


def open_binary(path: Place) -> io.BufferedReader:
    """Open a file for reading, unpacked if its first bytes say that it is gzip."""
    file = _open_as_it_is(path)
    packed = file.read(2) == _GZIP_MARK
    file.seek(0)
    if not packed:
        return file
    if isinstance(path, Remote):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    file.close()
    return io.BufferedReader(gzip.GzipFile(path))


def _open_as_it_is(path: Place) -> io.BufferedReader:
    return open_remote(path) if isinstance(path, Remote) else path.open("rb")


def unpacked_size(path: Place) -> int:
    """Return how many bytes a file unpacks to; of a packed one of over 4 GB, how many at least."""
    with _open_as_it_is(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if file.read(2) != _GZIP_MARK:
            return size
        file.seek(-4, io.SEEK_END)
        return max(size, int.from_bytes(file.read(4), "little"))


def read_head(path: Place, shown: str) -> tuple[bytes, bool]:
    """Return the first bytes of a file, a few lines at least, and whether they are all of it."""
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
        raise truncated(error, path, shown) from error
    except OSError as error:
        raise DataError(
            f"{shown} cannot be read: {error}", code="unreadable", location=Location(shown)
        ) from error


def lines_of(head: bytes, encoding: str, *, whole: bool, shown: str) -> list[str]:
    """Cut the head into whole lines. Raises `DataError` where it is one endless line."""
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline=""))  # str.splitlines also cuts where CSV does not
    if not whole and len(lines) < _MIN_HEAD_LINES:
        raise line_too_long(shown, len(lines))
    return lines if whole else lines[:-1]


def _n_lines(head: bytes) -> int:
    return max(head.count(b"\n"), head.count(b"\r"))


def truncated(error: Exception, path: Place, shown: str) -> DataError:
    """Say that a packed file ends too early, and after which line."""
    last = 0
    with _open_as_it_is(path) as packed, gzip.GzipFile(fileobj=packed) as file, suppress(*DAMAGED):
        while part := file.read1():
            last += part.count(b"\n")
    return DataError(
        f"{shown} is cut off or damaged: {error}" + f"; the last whole line is {last}" * (last > 0),
        code="truncated",
        location=Location(shown, line=last or None),
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


def find_encoding(head: bytes, shown: str, listener: Listener) -> str:
    """Tell how a file turns text into bytes; what was not UTF-8 is said.

    cp1252 is believed where all of it is printable and its own letters, such as those of °C and m³,
    stand alone or in pairs: other alphabets fill whole words with them.
    """
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        listener(Warned("encoding", f"{shown} is read as UTF-16, as its first bytes say"))
        return "utf-16"
    if 0 in head:
        raise _no_text(head, shown)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        if _is_western(head):
            listener(Warned("encoding", f"{shown} is no UTF-8 (line {line}): read as cp1252"))
            return "cp1252"
        raise DataError(
            f"byte {head[error.start]:#04x} is not UTF-8 text",
            code="encoding",
            location=Location(shown, line=line),
            hint="name the encoding, such as  --encoding cp1251",
        ) from error
    return "utf-8"


def _is_western(head: bytes) -> bool:
    try:
        text = head.decode("cp1252")
    except UnicodeDecodeError:
        return False
    is_printable = all(char.isprintable() or char in "\r\n\t" for char in set(text))
    return is_printable and _FOREIGN_WORD.search(text) is None


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
