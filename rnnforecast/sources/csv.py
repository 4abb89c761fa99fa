"""A CSV file as batches: blocks of lines, line numbers, cells that cannot be parsed, bad rows."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from rnnforecast.config.reading import WHITESPACE, DataConfig
from rnnforecast.errors import DataError, Location, Proposal, option_for_each
from rnnforecast.events import Listener, Notice, WarningEvent, ignore
from rnnforecast.sources.columns import Column, is_date, is_text
from rnnforecast.sources.files import thread_map
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.numbers import OTHER_MARK, NumberForm, grouped_error, infer_numbers
from rnnforecast.sources.sniff import Dialect, are_names, second_table, sniff
from rnnforecast.sources.stamps import spread
from rnnforecast.sources.text import (
    BOM,
    DAMAGED,
    MARK_UNDECODABLE,
    MAX_LINE_BYTES,
    QUOTE,
    UNDECODABLE,
    LimitedStream,
    RowStream,
    Utf8Stream,
    align,
    align_rows,
    bounded_lines,
    end_of_lines,
    end_of_rows,
    field_too_long,
    open_binary,
    split_rows,
    truncated,
    unpacked_size,
)
from rnnforecast.storage.durable import publishing_output

BLOCK_BYTES = 1 << 22
_SPARE_BYTES = 1 << 16
"""Room for the row that began in the block before; a longer one makes a larger buffer."""
_REPLACEMENT = "\ufffd"
"""What stands for bytes that are no text."""
_FEED, _RETURN = ord("\n"), ord("\r")
ColumnTypes = dict[str, pa.DataType]
SkipRow = Callable[[pa_csv.InvalidRow], str]
_MAX_LISTED, _MAX_OFFERED = 5, 20
"""Values, or lines, that a message lists."""
_FLAG = re.compile(r"[-+]?\d+(?:[.,]\d+)?([^\d.,:/-]{1,3}| ?\(?\d\)| \d)$", re.ASCII)
"""A number and what may say of which quality it is: 20.3s, 20.3*, 20.3(1), 20.3 2."""
_N_NEXT_ROWS = 100
"""Rows below one with too few or too many fields that tell whether it is an exception."""
_MAX_KNOWN_NUMBERS = 1 << 16
"""The most texts that are remembered as numbers, and not parsed again."""
_WHOLE_SHARE = 0.01
"""Of decimals with three places, one in a thousand is a whole number; of more, some may be whole
because a mark stands between thousands."""
_MAX_TEXTS = 5000
"""Texts of a block by which it is told what a mark is."""
_LINE = rb"(?:\A|(?<=[\r\n]))(?:\xef\xbb\xbf)?%b(?:\r\n|\n|\r|\Z)"
"""The regular expression of a line, which may begin as a file does."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose dialect and columns are known; its rows are not read yet."""

    input: InputFile
    name: str
    """What messages call the file."""
    dialect: Dialect
    columns: tuple[Column, ...]
    skips_bad_rows: bool
    max_bytes: int
    head_bytes: int | None = None
    """Only the rows within the first bytes are read; None for all of them."""
    listener: Listener = ignore
    _skipped: list[str] = field(default_factory=list)
    """Rows with too few or too many fields that the last reading skipped."""

    def batches(self, types: ColumnTypes) -> Iterator[pa.RecordBatch]:
        """Read these columns, a block at a time. Raises `DataError` with the line at fault.

        Time stamps that are not ISO 8601 come as text.
        """
        self._skipped.clear()
        skip = self._skip if self.skips_bad_rows else None
        converter = Converter(self.dialect, self.columns, types, skip, self.name)
        try:
            file, encoding = self._open(), self.dialect.encoding
            is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
            # Arrow shows the text of a row that is skipped, and cannot where that is no UTF-8
            errors = MARK_UNDECODABLE if self.skips_bad_rows else "strict"
            needs_no_recoding = is_utf8 and not self.skips_bad_rows
            text = file if needs_no_recoding else Utf8Stream(file, encoding, errors)
            dialect = self.dialect
            rows = RowStream(
                text, dialect.n_above, dialect.comment, dialect.sep, is_damaged=dialect.is_damaged
            )

            with LimitedStream(rows, self.max_bytes, self.name) as stream:
                blocks = RowBlocks(stream, dialect.delimiter, self._is_torn)
                for batches in thread_map(partial(converter.convert_block, blocks), blocks):
                    yield from batches

                remainder = blocks.remainder
                if remainder is not None:
                    n_rows = 0
                    for batch in converter.convert_stream(remainder):
                        n_rows += batch.num_rows
                        yield batch
            if remainder is not None and remainder.n_quotes % 2:
                self._check_end()
            if remainder is not None and remainder.n_lines > n_rows:
                self._check_quotes()
            if converter.signs:
                self.listener(
                    Notice(f"{self.name}: some numbers have quotes or a dash as the minus sign")
                )
            for name, error in converter.doubts.items():
                if name not in converter.proven:
                    raise error
            n_repeated = sum(converter.repeated.values())
            if n_repeated:
                message = f"{self.name}: skipped {n_repeated} repeated header lines"
                self.listener(WarningEvent("repeated-header", message, n_repeated))
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError, *DAMAGED, OSError) as error:
            raise self._find_error(error, types) from error
        finally:
            pa.default_memory_pool().release_unused()

    def _skip(self, row: pa_csv.InvalidRow) -> str:
        self._skipped.append(row.text)
        return "skip"

    def _is_torn(self) -> bool:
        """Tell whether somebody was still writing the last row of the file."""
        return self.head_bytes is None and self.input.has_grown()

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows, estimated from the size of the file and its first rows."""
        try:
            with self._open() as file:
                head = file.read(BLOCK_BYTES)
            n_bytes = unpacked_size(self.input)
        except (*DAMAGED, OSError):
            return 0  # reading raises the error
        n_bytes = min(n_bytes, self.head_bytes or n_bytes)
        n_lines = max(head.count(b"\n"), head.count(b"\r"))
        return int(n_bytes / max(len(head), 1) * n_lines)

    def rejected(self) -> list[Location]:
        """Return the locations of the rows that the last reading skipped."""
        if not self._skipped:
            return []
        return [
            Location(self.name, number, text=line)
            for number, line, cells in self._rows()
            if len(cells) != len(self.columns)
        ]

    def location(self, row: int, column: str) -> Location:
        """Return the location and text of a row; 0 is the first below the header."""
        for number, line, cells in self._rows():
            if self.skips_bad_rows and len(cells) != len(self.columns):
                continue
            if row == 0:
                return self._cell_location(number, line, cells, column)
            row -= 1
        return Location(file=self.name, column=column)

    def head(self, n_bytes: int) -> CsvFile:
        """Return the file with the rows of its first bytes; itself where it has no more bytes."""
        try:
            is_longer = unpacked_size(self.input) > n_bytes
        except (*DAMAGED, OSError):
            is_longer = False  # reading raises the error
        return replace(self, head_bytes=n_bytes, _skipped=[]) if is_longer else self

    def _open(self) -> io.BufferedReader:
        file = open_binary(self.input)
        if self.head_bytes is None:
            return file
        with file:
            content = file.read(self.head_bytes)
        return io.BufferedReader(io.BytesIO(content[: end_of_lines(content, len(content))]))

    def _rows(self) -> Iterator[tuple[int, str, list[str]]]:
        """Yield the physical line number of each row, the first line of its text, and its cells."""
        row_lines: list[tuple[int, str]] = []
        try:
            for cells in self._parse(row_lines):
                if cells:
                    yield *row_lines[0], align(cells, self.dialect.names)
        except csv.Error as error:
            raise field_too_long(self.name) from error

    def _check_end(self) -> None:
        """Raise where the file ends inside of quotes: they swallow all rows that follow them."""
        row_lines: list[tuple[int, str]] = []
        try:
            for _ in self._parse(row_lines, strict=True):
                pass
        except csv.Error as error:
            if "end of data" not in str(error):
                return  # misplaced quotes, which are read as they stand
            number, line = row_lines[0]
            raise DataError(
                f"{self.name} ends inside a quoted field that starts in line {number}",
                code="unclosed-quote",
                location=Location(self.name, line=number, text=line),
                hint="close the quote, or copy the file again if it is truncated",
            ) from error

    def _check_quotes(self) -> None:
        """Raise for a cell that holds rows, as a quote before them is not closed in its line."""
        for number, line, cells in self._rows():
            for cell in cells:
                if "\n" in cell and _holds_rows(cell, self.dialect, self.columns):
                    end = number + cell.count("\n")
                    raise DataError(
                        f"a quoted field from line {number} to {end} of {self.name} holds rows",
                        code="unclosed-quote",
                        location=Location(self.name, line=number, text=line),
                        hint="close the quote in its first line, or remove it",
                    )

    def _parse(
        self, row_lines: list[tuple[int, str]], *, strict: bool = False
    ) -> Iterator[list[str]]:
        """Yield the cells of each row; meanwhile `row_lines` holds its lines and their numbers.

        A row has several lines where a cell holds a line end; the parser does not say how many.
        Raises `csv.Error`; where it is `strict`, also for misplaced quotes.
        """
        first, comment = self.dialect.n_above + 1, self.dialect.comment
        left_out = set(self.dialect.left_out)

        def read_lines(text: TextIO) -> Iterator[str]:
            for number, line in enumerate(bounded_lines(text, self.name), 1):
                is_damaged = self.dialect.is_damaged and "\0" in line
                is_comment = bool(comment) and line.startswith(comment or "")
                if number >= first and not (is_comment or is_damaged):
                    bare = line.rstrip("\r\n")
                    if not row_lines and bare.removeprefix(BOM) in left_out:
                        continue
                    row_lines.append((number, bare))
                    yield line

        with (
            self._open() as file,
            io.TextIOWrapper(file, self.dialect.encoding, "replace", newline="") as text,
        ):
            lines, sep = read_lines(text), self.dialect.sep
            for cells in split_rows(lines, sep, strict=strict):
                yield cells
                row_lines.clear()

    def _cell_location(self, number: int, line: str, cells: Sequence[str], column: str) -> Location:
        index = self._column_indices[column]
        return Location(
            file=self.name,
            line=number,
            column=column,
            column_number=index + 1,
            text=line,
            token=cells[index] if index < len(cells) else None,
        )

    @cached_property
    def _column_indices(self) -> dict[str, int]:
        return {column.name: index for index, column in enumerate(self.columns)}

    def _find_error(self, error: Exception, types: ColumnTypes) -> DataError:
        """Return what pyarrow failed at, with its line, found by reading the rows one by one."""
        if isinstance(error, DAMAGED):
            return truncated(error, self.input, self.name)
        self._check_end()
        self._check_quotes()

        numbers = [name for name, type_ in types.items() if pa.types.is_floating(type_)]
        parse_errors = ParseErrors(self.dialect, {n: self._column_indices[n] for n in numbers})
        rows = itertools.chain(self._rows(), [(0, "", [])])
        location = Location(self.name)
        for (number, line, cells), (_, _, below) in itertools.pairwise(rows):
            if len(cells) == len(self.columns):
                if _REPLACEMENT in line and location.line is None:
                    location = Location(self.name, line=number, text=line)
                parse_errors.check(cells, partial(self._cell_location, number, line, cells))
                has_names = len(cells) > 1 and not set(cells).isdisjoint(self.dialect.names)
                if has_names and are_names(cells):
                    return second_table(self.name, number, line)
            elif not self.skips_bad_rows:
                if len(below) == len(cells) > 1 and are_names(cells):
                    return second_table(self.name, number, line)
                next_rows = list(itertools.islice(rows, _N_NEXT_ROWS))
                return self._ragged(number, line, cells, [row for _, _, row in next_rows])

        return parse_errors.error() or DataError(
            f"cannot read {self.name}: {error}",
            code="unreadable",
            location=location,
            hint="if the file is not UTF-8, give its encoding",
        )

    def _ragged(
        self, number: int, line: str, cells: list[str], next_rows: Sequence[list[str]]
    ) -> DataError:
        """Return the error for a line with too few or too many fields.

        Where most of the next ones are like it because of decimal commas, none is to be skipped.
        """
        n_alike = sum(len(row) == len(cells) for row in next_rows)
        is_decimal = (
            2 * n_alike > len(next_rows)
            and self.dialect.sep == ","
            and len(cells) > len(self.columns)
            and all(map(str.isdigit, cells[-2:]))
        )
        skip = Proposal(("--on-bad-rows", "skip"), "to skip such lines")
        return DataError(
            f"line {number} has {len(cells)} fields, but the header has {len(self.columns)}",
            code="ragged-row",
            location=Location(self.name, line=number, text=line),
            proposals=() if is_decimal else (skip,),
            hint="if a comma is the decimal mark, write another separator between columns"
            if is_decimal
            else "correct the line",
        )


def open_csv_file(file: InputFile, config: DataConfig, listener: Listener, *, name: str) -> CsvFile:
    """Infer dialect and columns of a CSV file. Raises `DataError` if it is empty or no table."""
    dialect, columns = sniff(file, config, listener, name=name)
    return CsvFile(
        file,
        name,
        dialect,
        columns,
        skips_bad_rows=config.on_bad_rows == "skip",
        max_bytes=config.input_limit,
        listener=listener,
    )


def check_same_columns(files: tuple[CsvFile, ...]) -> None:
    """Raise `DataError` for a file whose columns have other names than those of the first."""
    expected = {column.name for column in files[0].columns}
    for file in files[1:]:
        names = {column.name for column in file.columns}
        if names != expected:
            raise DataError(
                f"the columns of {file.name} and {files[0].name} differ: "
                f"{', '.join(sorted(expected ^ names))}",
                code="different-columns",
                location=Location(file.name),
            )


class Block(NamedTuple):
    """Complete rows: the first bytes of a buffer."""

    buffer: bytearray
    n_bytes: int
    number: int
    """How many blocks of the stream came before."""

    @property
    def rows(self) -> memoryview:
        """The bytes of the rows."""
        return memoryview(self.buffer)[: self.n_bytes]


class RowBlocks:
    """The bytes of a stream in blocks of complete rows.

    A line end inside of quotes ends no row. Where quotes stand so that this cannot be decided, the
    blocks end, and the bytes that follow are in `remainder`. Buffers are reused once given back,
    also for the next stream: to make one takes longer than to read a small file.
    """

    _free: ClassVar[list[bytearray]] = []

    def __init__(
        self, stream: io.BufferedIOBase, sep: str, is_torn: Callable[[], bool] = lambda: False
    ) -> None:
        self._stream = stream
        self._sep = sep.encode()
        self._is_torn = is_torn
        """Tells whether a last row without a line end was not written to its end."""
        self.remainder: PrefixedStream | None = None

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks, in the order of the file."""
        partial_row = b""
        for number in itertools.count():
            n_needed = len(partial_row) + BLOCK_BYTES
            buffer = bytearray()
            with suppress(IndexError):
                buffer = self._free.pop()
            if len(buffer) < n_needed + 2:  # the two bytes that may be added at the end
                buffer = bytearray(n_needed + _SPARE_BYTES)

            begin = len(partial_row)
            buffer[:begin] = partial_row
            length = begin + self._stream.readinto(memoryview(buffer)[begin : begin + BLOCK_BYTES])
            if length == begin:
                break

            end = end_of_rows(buffer, length, self._sep)
            if end is None or length - end > MAX_LINE_BYTES:
                self.remainder = PrefixedStream(bytes(buffer[:length]), self._stream)
                return
            partial_row = bytes(memoryview(buffer)[end:length])
            if end:
                yield Block(buffer, end, number)

        if length and buffer[length - 1] != _RETURN and self._is_torn():
            return
        # The last row may lack a line end. With two added, it is complete if no quote is open.
        buffer[length : length + 2] = b"\n\n"
        if end_of_rows(buffer, length + 2, self._sep) != length + 2:
            self.remainder = PrefixedStream(partial_row, self._stream)
        elif length:
            yield Block(buffer, length, number)
        else:
            self.give_back(Block(buffer, 0, number))

    def give_back(self, block: Block) -> None:
        """Let the buffer of a block be reused, but for one of very long rows."""
        if len(block.buffer) <= BLOCK_BYTES + _SPARE_BYTES:
            self._free.append(block.buffer)


class PrefixedStream(io.BufferedIOBase):
    """Some bytes, then those of a stream, as a file; closing it leaves the stream open."""

    def __init__(self, prefix: bytes, stream: io.BufferedIOBase) -> None:
        self._prefix = prefix
        self._stream = stream
        self.n_quotes = self.n_lines = 0
        """How many quotes and line feeds were read."""

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes; none only at the end."""
        max_bytes = BLOCK_BYTES if size is None or size < 0 else size
        content = self._prefix[:max_bytes]
        self._prefix = self._prefix[len(content) :]
        if not content:
            buffer = bytearray(max_bytes)
            content = bytes(memoryview(buffer)[: self._stream.readinto(buffer)])
        self.n_quotes += content.count(b'"')
        self.n_lines += content.count(b"\n")
        return content


@dataclass(frozen=True)
class Converter:
    """Turns the bytes of a file into arrays."""

    dialect: Dialect
    columns: Sequence[Column]
    types: ColumnTypes
    skip: SkipRow | None
    """Handles a row that has too few or too many fields; None raises for it."""
    name: str
    """What messages call the file."""
    repeated: Counter[bytes] = field(default_factory=Counter)
    """How many times a line of the header came again."""
    signs: Counter[str] = field(default_factory=Counter)
    """In how many blocks numbers have dashes for a minus, or stand in quotes of Excel."""
    _rarest: dict[bytes, int] = field(default_factory=dict)
    """The character of a line of the header that rows have least."""
    proven: set[str] = field(default_factory=set)
    """Columns whose marks were doubtful, until a block proved that they are of decimals."""
    doubts: dict[str, DataError] = field(default_factory=dict)
    """Errors for the columns whose marks may stand between thousands, unless they are proven."""

    def convert_block(self, blocks: RowBlocks, block: Block) -> list[pa.RecordBatch]:
        """Turn complete rows into arrays. Raises `ArrowInvalid` for text of another type.

        Where a time stamp is not ISO 8601, all those of the block stay text; where a number has
        another sign than a hyphen, all of them are read more slowly.
        """
        text_types = _with_text_stamps(self.types)
        try:
            if block.buffer[0] in b"\r\n" and not bytes(block.rows).strip(b"\r\n"):
                return []
            rows = self._without_repeated(block)
            if not len(rows):
                return []
            attempts = [text_types] if text_types == self.types else [self.types, text_types]
            for types in attempts:
                with suppress(pa.ArrowInvalid):
                    batches = self._read(rows, types, has_signs=False)
                    self._look_at_marks(block.number, batches, rows)
                    return batches
            batches = self._read(rows, text_types, has_signs=True)
            self.signs[self.name] += 1
            return batches
        finally:
            blocks.give_back(block)

    def convert_stream(self, stream: PrefixedStream) -> Iterator[pa.RecordBatch]:
        """Turn the rest of a file into arrays, in this thread; time stamps stay text."""
        forms = self.dialect.marks.uncommon_forms
        options = self._options(_with_text_stamps(self.types), BLOCK_BYTES, forms)
        with pa_csv.open_csv(stream, **options) as reader:
            for batch in reader:
                yield self._to_numbers(batch, forms)

    def _without_repeated(self, block: Block) -> memoryview | bytes:
        """Return the rows of a block without lines that are no rows."""
        rows: memoryview | bytes = block.rows
        for text in self.dialect.left_out:
            has_blanks = self.dialect.sep == WHITESPACE
            line = ("\t".join(text.split()) if has_blanks else text).encode()
            if not self._holds(block, line):
                continue
            pattern = _LINE % re.escape(line)
            rows, count = re.subn(pattern, b"", bytes(rows))
            if count and text in self.dialect.header:
                self.repeated[line] += count
        return rows

    def _holds(self, block: Block, line: bytes) -> bool:
        """Tell whether a block holds a line, by its rarest character first: that takes no time."""
        text, n_bytes = block.buffer, block.n_bytes
        if line not in self._rarest:
            n_head = min(n_bytes, _SPARE_BYTES)
            self._rarest[line] = min(set(line), key=lambda byte: text.count(byte, 0, n_head))
        return text.find(self._rarest[line], 0, n_bytes) >= 0 and text.find(line, 0, n_bytes) >= 0

    def _read(
        self, rows: memoryview | bytes, types: ColumnTypes, *, has_signs: bool
    ) -> list[pa.RecordBatch]:
        forms = dict(self.dialect.marks.uncommon_forms)
        if has_signs:
            floats = [name for name, type_ in types.items() if pa.types.is_floating(type_)]
            forms |= {n: replace(self.dialect.marks.form_of(n), has_signs=True) for n in floats}
        options = self._options(types, len(rows) + 1, forms)
        table = self._parse(rows, options)
        self._check_quotes(bytes(rows), table.num_rows)
        return [self._to_numbers(batch, forms) for batch in table.to_batches()]

    def _parse(self, rows: memoryview | bytes, options: dict[str, Any]) -> pa.Table:
        """Parse rows, of which some may have a separator at their end that the header lacks."""
        sep, names = self.dialect.delimiter, self.dialect.names
        if self.skip is not None:  # no error tells of such rows
            rows = align_rows(bytes(rows), names, sep)
        try:
            return pa_csv.read_csv(pa.BufferReader(rows), **options)
        except pa.ArrowInvalid as error:
            if " columns, got " not in str(error):
                raise
            return pa_csv.read_csv(pa.BufferReader(align_rows(bytes(rows), names, sep)), **options)

    def _check_quotes(self, text: bytes, n_rows: int) -> None:
        """Raise `ArrowInvalid` for a cell that holds rows: a quote before them is not closed."""
        if b'"' not in text or text.count(b"\n") <= n_rows:
            return  # no cell has several lines
        view, sep = np.frombuffer(text, np.uint8), self.dialect.delimiter.encode()
        quotes, ends = np.flatnonzero(view == QUOTE), np.flatnonzero(view == _FEED)
        places = np.searchsorted(ends, quotes)
        for i in (2 * np.flatnonzero(places[1::2] > places[:-1:2])).tolist():
            cell = text[quotes[i] + 1 : quotes[i + 1]]
            has_cells = cell.count(sep) >= len(self.columns) - 1
            if has_cells and _holds_rows(cell.decode(errors="replace"), self.dialect, self.columns):
                raise pa.ArrowInvalid("a quote is not closed in its line, and its cell holds rows")

    def _check_decoded(self, batch: pa.RecordBatch) -> None:
        """Raise `ArrowInvalid` for texts with marks of bytes that could not be decoded."""
        for column in batch.columns if self.skip is not None else ():
            texts = column.dictionary if pa.types.is_dictionary(column.type) else column
            if is_text(texts.type) and pc.any(pc.match_substring(texts, UNDECODABLE)).as_py():
                raise pa.ArrowInvalid("bytes are not text in this encoding")

    def _options(
        self, types: ColumnTypes, block_size: int, forms: Mapping[str, NumberForm]
    ) -> dict[str, Any]:
        dialect = self.dialect
        return {
            "read_options": pa_csv.ReadOptions(
                block_size=block_size, column_names=dialect.names, use_threads=False
            ),
            "parse_options": pa_csv.ParseOptions(
                delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=self.skip
            ),
            "convert_options": pa_csv.ConvertOptions(
                column_types={
                    name: pa.string() if name in forms and pa.types.is_floating(type_) else type_
                    for name, type_ in types.items()
                },
                include_columns=list(types),
                null_values=list(dialect.missing),
                strings_can_be_null=True,
                decimal_point=dialect.marks.decimal,
            ),
        }

    def _to_numbers(self, batch: pa.RecordBatch, forms: Mapping[str, NumberForm]) -> pa.RecordBatch:
        """Convert numbers that were read as text. Raises `ArrowInvalid` for other text."""
        self._check_decoded(batch)
        names = batch.schema.names
        if forms.keys().isdisjoint(names):
            return batch
        columns = [
            forms[name].convert(column, self.types[name])
            if name in forms and pa.types.is_floating(self.types[name])
            else column
            for name, column in zip(names, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, names=names)

    def _look_at_marks(
        self, number: int, batches: Sequence[pa.RecordBatch], rows: memoryview | bytes
    ) -> None:
        """Note for each doubtful column what the marks are that come first in this block.

        The first rows held whole numbers without a mark; or numbers with three places alone, some
        of which are whole: then only some blocks are looked at, for many such columns are measured.
        """
        for name, has_no_mark in self.dialect.marks.doubtful.items():
            is_due = has_no_mark or number & (number - 1) == 0
            is_number = pa.types.is_floating(self.types.get(name, pa.null()))
            if name in self.proven or not (is_number and batches and is_due):
                continue
            readings = pa.chunked_array([batch.column(name) for batch in batches]).to_numpy()
            n_whole = np.count_nonzero(readings == np.rint(readings))
            n_readings = np.count_nonzero(np.isfinite(readings))
            if n_whole == n_readings or (not has_no_mark and n_whole <= _WHOLE_SHARE * n_readings):
                continue

            options = self._options({name: pa.string()}, len(rows) + 1, {})
            texts = self._parse(rows, options).column(name).unique()
            sample = spread(texts.drop_null().to_pylist(), _MAX_TEXTS)
            numbers = infer_numbers(sample, None, None)
            if numbers.decimal or numbers.has_long:
                self.proven.add(name)
            elif numbers.doubtful and (has_no_mark or numbers.has_small):
                marks = [OTHER_MARK[numbers.doubtful], numbers.doubtful]
                self.doubts[name] = grouped_error(name, numbers, marks, self.name)


def _holds_rows(cell: str, dialect: Dialect, columns: Sequence[Column]) -> bool:
    """Tell whether most lines of a cell are rows: as many cells, with times and numbers in place.

    Its first line is none, and its last may be cut short.
    """

    def is_reading(column: Column, text: str) -> bool:
        is_time = column.kind == "time"
        return is_date(text) if is_time else dialect.marks.form_of(column.name).is_number(text)

    def is_row(row: list[str]) -> bool:
        pairs = [
            (column, text)
            for column, text in zip(columns, row, strict=False)
            if column.kind in ("time", "number") and text not in dialect.missing
        ]
        return (
            len(row) == len(columns) and bool(pairs) and all(itertools.starmap(is_reading, pairs))
        )

    rows = [align(line.split(dialect.delimiter), dialect.names) for line in cell.splitlines()[1:]]
    if rows and len(rows[-1]) < len(columns):
        rows.pop()
    return 2 * sum(map(is_row, rows)) > len(rows)


def _with_text_stamps(types: ColumnTypes) -> ColumnTypes:
    return {n: pa.string() if pa.types.is_timestamp(type_) else type_ for n, type_ in types.items()}


class ParseErrors:
    """Cells that are no numbers in columns of numbers, which are given by name and index."""

    def __init__(self, dialect: Dialect, column_indices: Mapping[str, int]) -> None:
        self._dialect = dialect
        self._column_indices = column_indices
        self._forms = {name: dialect.marks.form_of(name) for name in column_indices}
        self._other_forms = {name: _other_forms(form) for name, form in self._forms.items()}
        """Forms, with the options that ask for them, that all texts of a column have so far."""
        self._known_numbers: dict[str, set[str]] = {name: set() for name in column_indices}
        self._locations: dict[str, list[Location]] = {}

    def check(self, cells: Sequence[str], locate: Callable[[str], Location]) -> None:
        """Record the columns whose cell in this row is no number; `locate` is given their names."""
        for name, index in self._column_indices.items():
            text, known = cells[index], self._known_numbers[name]
            if text in known or text in self._dialect.missing:
                continue
            forms = self._other_forms[name]
            if forms:
                self._other_forms[name] = [pair for pair in forms if pair[0].is_number(text)]
            if not self._forms[name].is_number(text):
                self._locations.setdefault(name, []).append(locate(name))
            elif len(known) < _MAX_KNOWN_NUMBERS:
                known.add(text)

    def error(self) -> DataError | None:
        """Return an error for the first column with such texts, at the first; None for none."""
        if not self._locations:
            return None

        name, locations = next(iter(self._locations.items()))
        texts = Counter(location.token or "" for location in locations).most_common(_MAX_OFFERED)
        tokens = texts[:_MAX_LISTED]
        message = f"{len(locations)} values in column {name!r} are not a number"
        if len(locations) == 1:
            message = f"1 value in column {name!r} is not a number"
        elif len(tokens) > 1:
            message += ": " + ", ".join(f"{text!r} {count} times" for text, count in tokens)
            message += ", ..." * (len(texts) > len(tokens))

        proposals = [proposal for _, proposal in self._other_forms[name][:1]]
        if not proposals:
            options = option_for_each("--na-values", [text for text, _ in texts])
            pronoun = "it means" if len(tokens) == 1 else "they mean"
            proposals = [Proposal(options, f"if {pronoun} a missing reading")]
        also_lines = tuple(location.line or 0 for location in locations[1 : _MAX_LISTED + 1])
        first = replace(locations[0], also_lines=also_lines)
        flags = {match and match[1].strip() for text, _ in texts for match in [_FLAG.match(text)]}
        hint = None
        if len(flags) == 1 and None not in flags:
            hint = f"remove the suffix {flags.pop()!r}, or move it to another column"
            proposals = proposals if len(texts) <= _MAX_LISTED else []  # they are many numbers
        return DataError(
            message, code="not-a-number", location=first, proposals=proposals, hint=hint
        )


def _other_forms(form: NumberForm) -> list[tuple[NumberForm, Proposal]]:
    """Return forms that may have been meant, each with the options that ask for it."""
    decimal = OTHER_MARK[form.decimal]
    proposal = Proposal(("--decimal", decimal), "if the decimal mark is different")
    forms = [(replace(form, decimal=decimal), proposal)]
    for mark in (decimal, " ", "'") if form.thousands is None else ():
        options = ("--thousands", mark, "--decimal", form.decimal)
        proposal = Proposal(options, f"if {mark!r} is the thousands separator")
        forms.append((replace(form, thousands=mark), proposal))
    return forms


def report_skipped(
    skipped: Sequence[Location], n_rows: int, config: DataConfig, listener: Listener
) -> None:
    """Write the skipped rows to the file that the user named for them, and warn of their number.

    Raises `DataError` where they are more than allowed; the file is written then, too.
    """
    if config.rejects is not None:
        with publishing_output(Path(config.rejects)) as file:
            file.write("".join(f"{location.text}\n" for location in skipped).encode())
    if not skipped:
        return

    max_skipped = config.bad_row_limit(n_rows + len(skipped))
    if len(skipped) > max_skipped:
        also_lines = tuple(location.line or 0 for location in skipped[1 : _MAX_LISTED + 1])
        raise DataError(
            f"{len(skipped)} of {n_rows + len(skipped)} rows have too few or too many fields; "
            f"at most {max_skipped} may be skipped",
            code="bad-rows",
            location=replace(skipped[0], also_lines=also_lines),
            proposals=[Proposal(("--max-bad-rows", str(len(skipped))), "to skip them all")],
        )

    first_line = skipped[0].line
    message = (
        f"skipped {len(skipped)} rows with too few or too many fields (first: line {first_line})"
    )
    listener(WarningEvent("bad-rows", message, len(skipped)))
