"""A CSV file as batches: blocks of lines, line numbers, cells that cannot be parsed, bad rows."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.columns import Column, is_number, number_pattern
from rnnforecast.sources.files import in_threads
from rnnforecast.sources.sniff import Dialect, quote, sniff
from rnnforecast.sources.text import (
    DAMAGED,
    MAX_LINE_BYTES,
    LimitedStream,
    LinesLeftOut,
    Recoded,
    bounded_lines,
    end_of_lines,
    field_too_long,
    open_binary,
    truncated,
    unpacked_size,
)
from rnnforecast.storage.durable import publishing_file
from rnnforecast.storage.remote import Place

BLOCK_BYTES = 1 << 22
_ROOM = 1 << 16
"""Bytes for the row that began in the block before; a longer one makes a buffer of its own."""
_QUOTE = ord('"')
Wanted = dict[str, pa.DataType]
SkipRow = Callable[[pa_csv.InvalidRow], str]
_MAX_LISTED = 5
_MOST_REMEMBERED = 1 << 16
"""So many texts that are numbers are known without looking at them again."""
_OTHER_MARK = {".": ",", ",": "."}
_LISTED = 5


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


class Misfits:
    """What is found in columns of numbers, given as their names and places in a row."""

    def __init__(self, dialect: Dialect, places: Mapping[str, int]) -> None:
        self._dialect = dialect
        self._places = places
        self._mark = _OTHER_MARK[dialect.decimal]
        self._fit_mark = dict.fromkeys(places, True)
        """Whether all texts of a column are numbers with the other decimal mark."""
        self._good: set[str] = set()
        self._found: dict[str, list[Location]] = {}

    def of(self, cells: Sequence[str]) -> Iterator[str]:
        """Name the columns whose cell in this row is no number."""
        for name, place in self._places.items():
            text = cells[place]
            is_missing = text in self._dialect.missing
            if self._fit_mark[name]:
                self._fit_mark[name] = is_missing or is_number(text, self._mark)
            if text in self._good:
                continue
            if not is_missing and not self._dialect.is_number(text):
                yield name
            elif len(self._good) < _MOST_REMEMBERED:
                self._good.add(text)

    def note(self, name: str, place: Location) -> None:
        """Remember where a column holds such a text."""
        self._found.setdefault(name, []).append(place)

    def error(self) -> DataError | None:
        """Name the first text of the first column that holds such; None where none does."""
        if not self._found:
            return None
        name, places = next(iter(self._found.items()))
        tokens = Counter(place.token or "" for place in places).most_common(_MAX_LISTED)
        counted = f"{len(places)} values in column {name!r} are not a number"
        if len(places) == 1:
            counted = f"1 value in column {name!r} is not a number"
        elif len(tokens) > 1:
            counted += ": " + ", ".join(f"{text!r} {count} times" for text, count in tokens)
        if self._fit_mark[name]:
            hint = f"if all of them have another decimal mark, add  --decimal {self._mark}"
        else:
            all_missing = " ".join(f"--na-values {quote(text)}" for text, _ in tokens)
            them = "it" if len(tokens) == 1 else "them"
            hint = f"to treat {them} as missing, add  {all_missing}"
        also = tuple(place.line or 0 for place in places[1 : _MAX_LISTED + 1])
        first = replace(places[0], also_lines=also)
        return DataError(counted, code="not-a-number", location=first, hint=hint)


def report_skipped(
    skipped: Sequence[Location], n_rows: int, config: DataConfig, listener: Listener
) -> None:
    """Write the rows that were skipped to where the user wants them, and say how many they are.

    Raises `DataError` where they are more than may be; the file is written then, too.
    """
    if config.rejects is not None:
        with publishing_file(Path(config.rejects)) as file:
            file.write("".join(f"{place.text}\n" for place in skipped).encode())
    if not skipped:
        return
    most = config.most_bad_rows(n_rows + len(skipped))
    if len(skipped) > most:
        first, *rest = skipped
        lines = tuple(place.line or 0 for place in rest[:_LISTED])
        raise DataError(
            f"{len(skipped)} of {n_rows + len(skipped)} rows have too few or too many fields, more "
            f"than the {most} that may be skipped",
            code="bad-rows",
            location=replace(first, also_lines=lines),
            hint=f"if they may all go, add  --max-bad-rows {len(skipped)}",
        )
    first_line = skipped[0].line
    what = (
        f"{len(skipped)} rows with too few or too many fields are skipped, line {first_line} first"
    )
    listener(Warned("bad-rows", what, len(skipped)))
