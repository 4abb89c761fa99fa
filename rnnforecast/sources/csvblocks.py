"""Rows of a CSV file, block by block: cut where a row ends, so that threads can read them apart.

Between `streams`, which gives bytes, and `csvfile`, which knows lines and says what is wrong.
pyarrow reads a stream in one thread, and only a part of a file that ends with a row in several.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from rnnforecast.sources.columns import number_pattern
from rnnforecast.sources.dialect import Dialect
from rnnforecast.sources.streams import end_of_lines
from rnnforecast.sources.textfile import MAX_LINE_BYTES

BLOCK_BYTES = 1 << 22
_ROOM = 1 << 16
"""Bytes for the row that began in the block before; a longer one makes a buffer of its own."""
_QUOTE = ord('"')

Wanted = dict[str, pa.DataType]
SkipRow = Callable[[pa_csv.InvalidRow], str]


class Block(NamedTuple):
    """Whole rows: the first bytes of a buffer."""

    buffer: bytearray
    n_bytes: int

    @property
    def rows(self) -> memoryview:
        """The bytes of the rows."""
        return memoryview(self.buffer)[: self.n_bytes]


class RowBlocks:
    """The bytes of a stream in blocks of whole rows.

    A line end inside of quotes is none of a row. Where quotes stand so that this cannot be told,
    the blocks end, and what follows is in `rest`. Buffers are used again once they are given back.
    """

    def __init__(self, stream: io.BufferedIOBase, sep: str) -> None:
        self._stream = stream
        self._sep = sep.encode()
        self._free: list[bytearray] = []
        self.rest: Rest | None = None

    def __iter__(self) -> Iterator[Block]:
        """Give the blocks, in the order of the file."""
        left = b""
        while True:
            buffer = self._buffer(len(left) + BLOCK_BYTES)
            buffer[: len(left)] = left
            begin = len(left)
            length = begin + self._stream.readinto(memoryview(buffer)[begin : begin + BLOCK_BYTES])
            if length == begin:
                break
            end = end_of_rows(buffer, length, self._sep)
            if end is None or length - end > MAX_LINE_BYTES:
                self.rest = Rest(bytes(buffer[:length]), self._stream)
                return
            left = bytes(memoryview(buffer)[end:length])
            if end:
                yield Block(buffer, end)
        buffer[length : length + 2] = b"\n\n"
        if end_of_rows(buffer, length + 2, self._sep) != length + 2:
            self.rest = Rest(left, self._stream)
        elif length:
            yield Block(buffer, length)

    def give_back(self, block: Block) -> None:
        """Let the buffer of a block be used again."""
        self._free.append(block.buffer)

    def _buffer(self, n_bytes: int) -> bytearray:
        buffer = self._free.pop() if self._free else bytearray()
        return buffer if len(buffer) >= n_bytes + 2 else bytearray(n_bytes + _ROOM)


class Rest(io.BufferedIOBase):
    """Some bytes, then those of a stream, as a file; closing it leaves the stream open."""

    def __init__(self, first: bytes, stream: io.BufferedIOBase) -> None:
        self._first = first
        self._stream = stream
        self.n_quotes = 0
        """How many quotes were read."""

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes; none only at the end."""
        most = BLOCK_BYTES if size is None or size < 0 else size
        given = self._first[:most]
        self._first = self._first[len(given) :]
        if not given:
            buffer = bytearray(most)
            given = bytes(memoryview(buffer)[: self._stream.readinto(buffer)])
        self.n_quotes += given.count(b'"')
        return given


def end_of_rows(text: bytes | bytearray, length: int, sep: bytes) -> int | None:
    """Return where the last whole row of so many bytes ends, 0 for none.

    The text begins with a row. None where a quote stands in an odd place: each must open a field,
    close it, or be one of two.
    """
    end = end_of_lines(text, length)
    if not text.count(b'"', 0, length):
        return end
    view = np.frombuffer(text, np.uint8, count=length)
    quotes = np.flatnonzero(view == _QUOTE)
    edges = np.frombuffer(sep + b'\r\n"', np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before = view[opening[opening > 0] - 1]
    after = view[closing[closing < length - 1] + 1]
    if not (np.isin(before, edges).all() and np.isin(after, edges).all()):
        return None
    while end:
        n_before = int(np.searchsorted(quotes, end))
        if n_before % 2 == 0:
            return end
        end = end_of_lines(text, int(quotes[n_before - 1]) + 1)
    return 0


@dataclass(frozen=True)
class Conversion:
    """How the bytes of a file become arrays."""

    dialect: Dialect
    wanted: Wanted
    skip: SkipRow | None
    """What to do with a row that has too few or too many fields; None to raise."""

    def of_block(self, blocks: RowBlocks, block: Block) -> list[pa.RecordBatch]:
        """Turn whole rows into arrays. Raises `ArrowInvalid` for text that is not what is wanted.

        Time stamps that are not ISO 8601 stay text, all of a block.
        """
        texts = _with_text_stamps(self.wanted)
        try:
            if block.buffer[0] in b"\r\n" and not bytes(block.rows).strip(b"\r\n"):
                return []
            return self._read(block, self.wanted)
        except pa.ArrowInvalid:
            if texts == self.wanted:
                raise
            return self._read(block, texts)
        finally:
            blocks.give_back(block)

    def of_stream(self, stream: Rest) -> Iterator[pa.RecordBatch]:
        """Turn what follows into arrays, in this thread; time stamps stay text."""
        wanted = _with_text_stamps(self.wanted)
        with pa_csv.open_csv(
            stream,
            read_options=self._reading(BLOCK_BYTES),
            parse_options=self._parsing(),
            convert_options=self._converting(wanted),
        ) as reader:
            for batch in reader:
                yield self._ungrouped(batch)

    def _read(self, block: Block, wanted: Wanted) -> list[pa.RecordBatch]:
        table = pa_csv.read_csv(
            pa.BufferReader(block.rows),
            read_options=self._reading(block.n_bytes + 1),
            parse_options=self._parsing(),
            convert_options=self._converting(wanted),
        )
        return [self._ungrouped(batch) for batch in table.to_batches()]

    def _reading(self, block_size: int) -> pa_csv.ReadOptions:
        names = self.dialect.names
        return pa_csv.ReadOptions(block_size=block_size, column_names=names, use_threads=False)

    def _parsing(self) -> pa_csv.ParseOptions:
        return pa_csv.ParseOptions(
            delimiter=self.dialect.sep, newlines_in_values=True, invalid_row_handler=self.skip
        )

    def _converting(self, wanted: Wanted) -> pa_csv.ConvertOptions:
        if self.dialect.thousands:
            wanted = {n: pa.string() if pa.types.is_floating(t) else t for n, t in wanted.items()}
        return pa_csv.ConvertOptions(
            column_types=wanted,
            include_columns=list(wanted),
            null_values=list(self.dialect.missing),
            strings_can_be_null=True,
            decimal_point=self.dialect.decimal,
        )

    def _ungrouped(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return ungroup(batch, self.wanted, self.dialect) if self.dialect.thousands else batch


def _with_text_stamps(wanted: Wanted) -> Wanted:
    return {
        n: pa.string() if pa.types.is_timestamp(type_) else type_ for n, type_ in wanted.items()
    }


def ungroup(batch: pa.RecordBatch, wanted: Wanted, dialect: Dialect) -> pa.RecordBatch:
    """Turn texts with marks between thousands into numbers. Raises `ArrowInvalid` for others."""
    assert dialect.thousands is not None
    pattern = f"^({number_pattern(dialect.decimal, dialect.thousands).pattern})$"
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not pa.types.is_floating(wanted[name]):
            columns.append(column)
            continue
        texts = pc.utf8_trim(column, " \t")
        if pc.all(pc.match_substring_regex(texts, pattern, ignore_case=True)).as_py() is False:
            raise pa.ArrowInvalid(f"column {name} holds text")
        plain = pc.replace_substring(texts, dialect.thousands, "")
        columns.append(pc.replace_substring(plain, dialect.decimal, ".").cast(wanted[name]))
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
