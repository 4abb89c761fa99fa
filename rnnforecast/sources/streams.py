"""Streams between a file and pyarrow, which knows no comments and no limits."""

from __future__ import annotations

import codecs
import io
import re
from typing import TYPE_CHECKING

from rnnforecast.errors import DataError, Location

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LONGEST_SIGN = 4
"""Bytes of a sign in UTF-8, at most."""


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
