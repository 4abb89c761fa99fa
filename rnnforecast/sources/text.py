"""Bytes to lines of text: encoding, compression, limits."""

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
from typing import TYPE_CHECKING, TextIO

from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.files import open_remote
from rnnforecast.storage.remote import Place, Remote

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


_HEAD_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 24
_MIN_HEAD_LINES = 3
_GZIP_MARK = b"\x1f\x8b"
"""The first bytes of a packed file."""
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged gzip file raises."""
_FOREIGN_WORD = re.compile("[\x80-\uffff]{3}")
_LONGEST_SIGN = 4
"""Bytes of a sign in UTF-8, at most."""


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


class Recoded(io.BufferedIOBase):
    """A stream of text in another encoding, as UTF-8."""

    def __init__(self, file: io.BufferedIOBase, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all; none only at the end. Raises `UnicodeDecodeError`."""
        most = None if size is None or size < 0 else size
        made = ""
        while not made:
            block = self._file.read(-1 if most is None else max(most // _LONGEST_SIGN, 1))
            made = self._decoder.decode(block, final=not block)
            if not block:
                break
        return made.encode()

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


class LinesLeftOut(io.BufferedIOBase):
    """A stream without its first lines, and without those that begin with a mark.

    Bytes of a line end must be those of ASCII. A comment has to be a line of its own, not the
    second one of a cell.
    """

    def __init__(self, file: io.BufferedIOBase, n_first: int, mark: str | None) -> None:
        self._file = file
        self._comment: re.Pattern[bytes] | None = None
        if mark is not None:
            self._comment = re.compile(
                rb"(?:^|(?<=[\r\n]))" + re.escape(mark.encode()) + rb"[^\r\n]*(?:\r\n|\n|\r|\Z)"
            )
        self._n_first = n_first
        self._made = b""
        """What was read, but not given yet."""
        self._rest = b""
        """The beginning of a line."""
        self._is_done = False

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all; none only at the end."""
        most = None if size is None or size < 0 else size
        if self._gives_all:
            return self._file.read(-1 if most is None else most)
        while not self._made and not self._is_done:
            self._made = self._more(most)
        given, self._made = self._made[:most], b"" if most is None else self._made[most:]
        return given

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes into a buffer; none only at the end."""
        if self._gives_all:
            return self._file.readinto(buffer)
        view = memoryview(buffer)
        given = self.read(len(view))
        view[: len(given)] = given
        return len(given)

    @property
    def _gives_all(self) -> bool:
        """Whether there is nothing more to leave out."""
        return not (self._n_first or self._comment or self._made or self._rest)

    def _more(self, size: int | None) -> bytes:
        """Read a block, and leave out what is to be; lines that are not whole wait."""
        block = self._file.read(-1 if size is None else size)
        self._is_done = not block
        made = self._rest + block if self._rest else block
        end = len(made) if self._is_done else end_of_lines(made, len(made))
        made, self._rest = made[:end], made[end:]
        if self._n_first:
            lines = made.splitlines(keepends=True)
            made = b"".join(lines[self._n_first :])
            self._n_first -= min(self._n_first, len(lines))
        return made if self._comment is None else self._comment.sub(b"", made)

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


def end_of_lines(text: bytes | bytearray, length: int) -> int:
    """Return where the last of so many bytes' lines ends; a carriage return last may go on."""
    return max(text.rfind(b"\n", 0, length), text.rfind(b"\r", 0, length - 1)) + 1


class LimitedStream(io.BufferedIOBase):
    """A stream that ends a file without end."""

    def __init__(self, file: LinesLeftOut, limit: int, shown: str) -> None:
        self._file, self._left, self._shown = file, limit, shown

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes into a buffer. Raises `DataError` where more come than may."""
        n_read = self._file.readinto(buffer)
        self._left -= n_read
        if self._left < 0:
            raise DataError(
                f"{self._shown} unpacks to more bytes than may be read",
                code="input-bytes",
                location=Location(self._shown),
                hint="if it is as large as that, add  --max-input-bytes 1T",
            )
        return n_read

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()
