"""Streams between a file and pyarrow, which knows no comments and no limits."""

from __future__ import annotations

import io
import re
from typing import BinaryIO

from rnnforecast.errors import DataError, Location


class LinesLeftOut(io.BufferedIOBase):
    """A stream without its first lines, and without those that begin with a mark.

    Bytes of a line end must be those of ASCII. A comment has to be a line of its own, not the
    second one of a cell.
    """

    def __init__(self, file: BinaryIO, n_first: int, mark: bytes) -> None:
        self._file = file
        self._comment = re.compile(
            rb"(?:^|(?<=[\r\n]))" + re.escape(mark) + rb"[^\r\n]*(?:\r\n|\n|\r|\Z)"
        )
        self._n_first = n_first
        self._rest = b""
        self._is_done = False

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all; fewer than asked for, but none only at the end."""
        made = b""
        while not made and not self._is_done:
            block = self._file.read(-1 if size is None else size)
            self._is_done = not block
            whole, mark, self._rest = (self._rest + block).rpartition(b"\n")
            if self._is_done:
                whole, self._rest = whole + mark + self._rest, b""
                mark = b""
            whole += mark
            if self._n_first:
                lines = whole.splitlines(keepends=True)
                whole = b"".join(lines[self._n_first :])
                self._n_first -= min(self._n_first, len(lines))
            made = self._comment.sub(b"", whole)
        return made

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


class CountedStream(io.BufferedIOBase):
    """A stream that counts the quotes that are read from it, and ends a file without end."""

    def __init__(self, file: BinaryIO | LinesLeftOut, limit: int, shown: str) -> None:
        self._file, self._left, self._shown = file, limit, shown
        self.n_quotes = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all. Raises `DataError` where more come than may."""
        block = self._file.read(-1 if size is None else size)
        self.n_quotes += block.count(b'"')
        self._left -= len(block)
        if self._left < 0:
            raise DataError(
                f"{self._shown} unpacks to more bytes than may be read",
                code="input-bytes",
                location=Location(self._shown),
                hint="if it is as large as that, add  --max-input-bytes 1T",
            )
        return block

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()
