"""Bytes to lines of text, and these to fields: encoding, compression, limits, separator."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

import numpy as np

from rnnforecast.config.reading import WHITESPACE, DataConfig
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.sources.columns import has_value, is_value
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.numbers import NUMERIC_SHARE
from rnnforecast.sources.stamps import MOSTLY
from rnnforecast.storage.remote import is_remote

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


SEPARATORS = (",", ";", "\t", "|")
_MAX_BLANK_SEPARATED = 10_000
"""A longer line is no table with blanks between its columns."""
MIN_ROWS = 3
"""The fewest lines, header included, that count as a table."""
_HEAD_BYTES = 1 << 18
_TAIL_BYTES = 1 << 14
BOM = "\ufeff"
QUOTE = ord('"')
UNDECODABLE = "\uffff"
"""What stands for bytes that are not text in the encoding of a file: no text holds it."""
MARK_UNDECODABLE = "rnnforecast.mark"
"""The name of the handler that puts it there, as `errors` of a decoder."""
codecs.register_error(MARK_UNDECODABLE, lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]
_BLANKS = re.compile(rb"[ \t]+")
_DAMAGED_LINE = re.compile(rb"[^\r\n\x00]*\x00[^\r\n]*(?:\r\n|\n|\r|\Z)")
_MAX_DAMAGED_SHARE = 0.1
"""Share of lines that may hold bytes of 0; a file with more is no text."""
MAX_LINE_BYTES = 1 << 24
_MIN_HEAD_LINES = 3
_GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of a gzip file."""
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged gzip file raises."""
_FOREIGN_WORD = re.compile("[\x80-\uffff]{3}")
"""Three letters outside of ASCII in a row: hardly a word of a western language."""
_CODE_PAGES = {
    "cp1251": ("Cyrillic", rb"[\xc0-\xff]"),
    "gb18030": ("Chinese", rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]"),
    "big5": ("traditional Chinese", rb"[\xa1-\xa3\xa4-\xc6]."),
    "cp932": ("Japanese", rb"[\x81-\x83\x88-\x97]."),
    "cp949": ("Korean", rb"[\xa1-\xa3\xb0-\xc8][\xa1-\xfe]"),
}
"""Encodings that are offered for text that is not western, and the bytes of common letters."""
_COMMON_SHARE = 0.8
"""Share of common letters in text that is of such a language."""
_BYTE_ENCODINGS = ("utf-8", "utf-8-sig", "ascii", "cp1252", "iso8859-1")
"""Encodings in which a line feed is one byte wherever it stands."""
_MAX_CHARACTER_BYTES = 4
"""Bytes of a character in UTF-8, at most."""
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The line with which Excel is told the separator."""
_RULE = re.compile(r"(?=.*---|.*===)[-=+|,;: \t]+\r?\n?")
"""A line that is drawn below the names, as the shells of databases do."""


class _GzipReader(gzip.GzipFile):
    """A gzip file that closes the file below when it is closed."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(fileobj=file)
        self._file_below = file

    def close(self) -> None:
        super().close()
        self._file_below.close()


def open_binary(file: InputFile) -> io.BufferedReader:
    """Open a file for reading, unpacked if its first bytes say that it is gzip."""
    packed = file.open()
    is_gzip = packed.read(2) == _GZIP_MAGIC
    packed.seek(0)
    return io.BufferedReader(_GzipReader(packed)) if is_gzip else packed


@contextmanager
def readable(file: InputFile, name: str) -> Iterator[io.BufferedReader]:
    """Open a file as `open_binary` does; raise `DataError` where it cannot be read to its end."""
    try:
        with open_binary(file) as stream:
            yield stream
    except DAMAGED as error:
        raise truncated(error, file, name) from error
    except OSError as error:
        raise DataError(
            f"cannot read {name}: {error}", code="unreadable", location=Location(name)
        ) from error


def unpacked_size(file: InputFile) -> int:
    """Return how many bytes a file unpacks to; for a gzip file of over 4 GB a lower bound."""
    with file.open() as packed:
        size = packed.seek(0, io.SEEK_END)
        packed.seek(0)
        if packed.read(2) != _GZIP_MAGIC:
            return size
        # The last four bytes of a gzip file are its unpacked size, modulo 2 ** 32.
        packed.seek(-4, io.SEEK_END)
        return max(size, int.from_bytes(packed.read(4), "little"))


def read_head(file: InputFile, name: str) -> tuple[bytes, bool]:
    """Return the first bytes of a file, a few lines at least, and whether they are all of it."""
    with readable(file, name) as stream:
        head = stream.read(_HEAD_BYTES)
        # The rows of a very wide table are long.
        while (
            max(head.count(b"\n"), head.count(b"\r")) < _MIN_HEAD_LINES
            and len(head) < MAX_LINE_BYTES
        ):
            more = stream.read(len(head) or 1)
            if not more:
                break
            head += more
        return head, not stream.read(1)


def lines_of(head: bytes, encoding: str, *, is_complete: bool, name: str) -> list[str]:
    """Split the head into complete lines. Raises `DataError` where it is one endless line."""
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline=""))  # str.splitlines splits at other characters, too
    lines = ["\n" if "\0" in line else line for line in lines]
    if not is_complete and len(lines) < _MIN_HEAD_LINES:
        raise line_too_long(name, len(lines))
    return lines if is_complete else lines[:-1]


@dataclass(frozen=True)
class Lines:
    """The first lines of a file, without comments and without those that the user skips."""

    numbered: Sequence[tuple[int, str]]
    """The physical number of each, from 1, and its text."""
    above: Sequence[str] = ()
    """The lines that the user skips."""
    comments: Sequence[str] = ()
    """Comments above the first line of the table, without their mark."""
    sep: str | None = None
    """The separator that the first line names, as Excel has it."""
    rules: Sequence[str] = ()
    """Lines that are drawn, which are no rows."""

    @classmethod
    def of(cls, lines: Sequence[str], config: DataConfig) -> Lines:
        """Leave out the lines that cannot be rows."""
        numbered = list(enumerate(lines, 1))[config.skip_rows :]
        above = list(lines[: config.skip_rows])
        match = _SEP_LINE.fullmatch(lines[0]) if lines else None
        if match is not None and not config.skip_rows:
            above.append(numbered.pop(0)[1])
        mark, comments = config.comment, []
        if mark:
            first = itertools.takewhile(lambda line: line[1].startswith(mark), numbered)
            comments = [text.removeprefix(mark).lstrip() for _, text in first]
            numbered = [line for line in numbered if not line[1].startswith(mark)]
        rules = [text for _, text in numbered if _RULE.fullmatch(text)]
        if rules:
            numbered = [line for line in numbered if line[1] not in rules]
        return cls(numbered, above, comments, match and match[1], rules)

    @property
    def texts(self) -> list[str]:
        """Their texts."""
        return [text for _, text in self.numbered]

    @property
    def nonempty(self) -> Lines:
        """Those that are not empty."""
        return replace(self, numbered=[line for line in self.numbered if line[1].strip()])

    def after(self, number: int) -> list[str]:
        """Return the lines that follow a physical line."""
        return [text for n, text in self.numbered if n > number]


def read_tail(file: InputFile) -> bytes:
    """Return the last bytes of a local file that is not packed; none of another one."""
    if is_remote(file.path):
        return b""
    with file.open() as stream:
        if stream.read(2) == _GZIP_MAGIC:
            return b""
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - _TAIL_BYTES))
        return stream.read()


def tail_lines(tail: bytes, encoding: str) -> list[str]:
    """Return the last lines of a file from its last bytes, without one that may begin before."""
    if codecs.lookup(encoding).name not in _BYTE_ENCODINGS:
        return []
    lines = list(io.StringIO(tail.decode(encoding, "replace"), newline=""))
    return lines if len(tail) < _TAIL_BYTES else lines[1:]


def split_rows(lines: Iterable[str], sep: str, *, strict: bool = False) -> Iterator[list[str]]:
    """Yield the fields of each row. Raises `csv.Error`.

    Where it is `strict`, also for misplaced quotes. Between blanks there are no quotes: each line
    is a row.
    """
    if sep == WHITESPACE:
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=sep, strict=strict)


def split_row(line: str, sep: str) -> list[str]:
    """Return the fields of one line, none of an empty one. Raises `csv.Error`."""
    return next(split_rows([line], sep), [])


def infer_separator(lines: Sequence[str]) -> str:
    """Return the separator that gives every line as many fields as the header, and the most.

    Where none does, it is blanks if they divide each line into as many dates and numbers.
    """

    def merit(sep: str) -> tuple[bool, int]:
        # With another separator a very wide row is one field, which is too long: it has no count.
        counts = list(filter(None, count_fields(lines, sep))) or [0]
        return counts[0] > 1 and len(set(counts)) == 1, counts[0]

    merits = {sep: merit(sep) for sep in SEPARATORS}
    best = max(SEPARATORS, key=lambda sep: merits[sep])
    is_consistent = merits[best][0] and not (best == "\t" and _hold_two_numbers(lines))
    if not is_consistent and _are_quoted_between_blanks(lines):
        return " "
    return WHITESPACE if not is_consistent and are_blank_separated(lines) else best


def _are_quoted_between_blanks(lines: Sequence[str]) -> bool:
    """Tell whether single blanks divide the cells, and names are in quotes, as R writes tables."""
    if not lines[0].startswith('"') or len(lines) < MIN_ROWS:
        return False
    header, *counts = count_fields([line.rstrip() for line in lines], " ") or [0]
    return header > 1 and len(set(counts)) == 1 and counts[0] - header in (0, 1)


def _hold_two_numbers(lines: Sequence[str]) -> bool:
    """Tell whether cells between tabs hold two numbers each, as their names share a cell.

    1 234 is one number.
    """
    header, *rows = split_rows(lines, "\t")
    pair = re.compile(r"[-+\d.,]+ +(?!\d{3}\b)[-+\d.,]+")
    return any(
        len(name.split()) > 1 and all(i < len(row) and pair.fullmatch(row[i]) for row in rows)
        for i, name in enumerate(header)
    )


def are_blank_separated(lines: Sequence[str]) -> bool:
    """Tell whether lines are names, and below them dates and numbers with blanks between them."""
    if len(lines) < MIN_ROWS or len(lines[0]) > _MAX_BLANK_SEPARATED:
        return False
    header, *rows = split_rows(lines, WHITESPACE)
    if any(row[0].startswith("#") and len(row) != len(header) for row in rows):
        return False  # else they are units, below names that begin so, too
    header = header[1:] if header[:1] == ["#"] else header
    n_fields, n_rows = Counter(map(len, rows)).most_common(1)[0]
    if n_fields < 2 or n_rows < MOSTLY * len(rows):
        return False
    if n_fields - len(header) not in (0, 1) or any(sep in "".join(header) for sep in ",;|"):
        return False

    cells = [cell for row in rows for cell in row]
    n_values = sum(map(is_value, cells))
    n_valued = sum(map(has_value, rows))
    return n_values > NUMERIC_SHARE * len(cells) and n_valued >= MOSTLY * len(rows)


def count_fields(lines: Sequence[str], sep: str) -> list[int]:
    """Return the number of fields of each row; none where a field is too long."""
    try:
        return [len(row) for row in csv.reader(lines, delimiter=sep)]
    except csv.Error:
        return []


def align(cells: list[str], names: Sequence[str]) -> list[str]:
    """Return a row with as many cells as names where they differ by an empty one at the end."""
    n_more = len(cells) - len(names)
    if n_more == 1 and not cells[-1].strip():
        return cells[:-1]
    return [*cells, ""] if n_more == -1 and not names[-1].strip() else cells


def align_rows(rows: bytes, names: Sequence[str], sep: str) -> bytes:
    """Do what `align` does, to the bytes of rows."""
    mark = re.escape(sep.encode())
    cell = rb'(?:"(?:[^"]|"")*+"|[^%b"\r\n]*+)' % mark
    n_named = len(names) - (not names[-1].strip())
    row = rb"(?:%b%b){%d}+%b" % (cell, mark, n_named - 1, cell)
    pattern = rb"(?:\A|(?<=[\r\n]))(%b)(?:%b *)?(\r\n|\n|\r|\Z)" % (row, mark)
    end = b"" if n_named == len(names) else sep.encode()
    return re.sub(pattern, lambda match: match[1] + end + match[2], rows)


def truncated(error: Exception, file: InputFile, name: str) -> DataError:
    """Return the error for a gzip file that ends too early, with its last complete line."""
    n_lines = 0
    with file.open() as packed, gzip.GzipFile(fileobj=packed) as stream, suppress(*DAMAGED):
        while part := stream.read1():
            n_lines += part.count(b"\n")
    return DataError(
        f"{name} is truncated or damaged: {error}"
        + f"; the last complete line is {n_lines}" * (n_lines > 0),
        code="truncated",
        location=Location(name, line=n_lines or None),
        hint="the file may still be being written; copy it again",
    )


def bounded_lines(text: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a file. Raises `DataError` for one that would fill the memory."""
    for number in itertools.count(1):
        line = text.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise line_too_long(name, number)
        if not line:
            return
        yield line


def line_too_long(name: str, line: int) -> DataError:
    """Return the error for a line that is longer than that of any table."""
    return DataError(
        f"line {line} has more than {MAX_LINE_BYTES >> 20} million characters",
        code="long-line",
        location=Location(name, line=line),
        hint="this is not a table of readings; check how the file was written",
    )


def field_too_long(name: str) -> DataError:
    """Return the error for a field that is longer than any reading."""
    return DataError(
        f"{name} has a field of more than {csv.field_size_limit()} characters",
        code="long-field",
        location=Location(name),
        hint="a quote may be missing its closing quote; correct the line",
    )


def find_encoding(head: bytes, name: str, listener: Listener) -> str:
    """Infer the encoding of a file; warns where it is not UTF-8.

    cp1252 is accepted where all characters are printable and those outside of ASCII, such as of °C
    and m³, stand alone or in pairs: other alphabets fill whole words with them.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        listener(WarningEvent("encoding", f"{name} is read as UTF-32 (byte order mark)"))
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        listener(WarningEvent("encoding", f"{name} is read as UTF-16 (byte order mark)"))
        return "utf-16"
    if 0 in head:
        n_damaged = sum(b"\0" in line for line in head.splitlines())
        text = _DAMAGED_LINE.sub(b"", head)
        is_text = _is_printable(text, "utf-8") or _is_printable(text, "cp1252")
        if not is_text or n_damaged > _MAX_DAMAGED_SHARE * max(text.count(b"\n"), 1):
            raise _zero_bytes(head, name)
        message = "skipped lines with NUL bytes, left by an interrupted write"
        listener(WarningEvent("zero-bytes", f"{name}: {message}", n_damaged))
        head = text
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"

    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        is_western = _is_printable(head, "cp1252")
        if is_western and _FOREIGN_WORD.search(head.decode("cp1252")) is None:
            listener(WarningEvent("encoding", f"{name} is not UTF-8 (line {line}), read as cp1252"))
            return "cp1252"
        printable = [page for page in _CODE_PAGES if _is_printable(head, page)]
        likely = [page for page in printable if _has_common_letters(head, page)]
        raise DataError(
            f"byte {head[error.start]:#04x} is not UTF-8 text",
            code="encoding",
            location=Location(name, line=line),
            proposals=[
                Proposal(("--encoding", page), f"if the text is {_CODE_PAGES[page][0]}")
                for page in likely or printable
            ],
            hint="give the encoding of the file"
            + f", likely --encoding {' or '.join(likely)}" * bool(likely),
        ) from error
    return "utf-8"


def _is_printable(head: bytes, encoding: str) -> bool:
    """Tell whether bytes are text in an encoding; the last character may be cut off."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\r\n\t" for char in set(text))


def _has_common_letters(head: bytes, encoding: str) -> bool:
    """Tell whether most letters outside of ASCII are common in the language of an encoding."""
    text = codecs.getincrementaldecoder(encoding)().decode(head)
    letters = [char.encode(encoding) for char in text if not char.isascii()]
    is_common = re.compile(_CODE_PAGES[encoding][1], re.DOTALL).fullmatch
    return sum(map(bool, map(is_common, letters))) >= _COMMON_SHARE * len(letters)


def _zero_bytes(head: bytes, name: str) -> DataError:
    """Return the error for bytes of 0; if nearly every second byte is 0, the file is UTF-16."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    is_utf16 = max(even, odd) > len(head) // 3 and min(even, odd) < len(head) // 20
    utf16 = Proposal(("--encoding", f"utf-16-{'be' if even > odd else 'le'}"), "if it is UTF-16")

    return DataError(
        f"{name} contains NUL bytes, like "
        + ("UTF-16 without a byte order mark" if is_utf16 else "no text file"),
        code="encoding",
        location=Location(name),
        proposals=[utf16] if is_utf16 else (),
        hint=None
        if is_utf16
        else "use a CSV file; the name of a Parquet file must end in .parquet",
    )


class _Stream(io.BufferedIOBase):
    """Base of the streams that read another one, which is closed with them."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


class Utf8Stream(_Stream):
    """A stream of text in some encoding, recoded as UTF-8; `errors` is that of `bytes.decode`."""

    def __init__(self, file: io.BufferedIOBase, encoding: str, errors: str = "strict") -> None:
        super().__init__(file)
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all; none only at the end. Raises `UnicodeDecodeError`."""
        n_bytes = -1 if size is None or size < 0 else max(size // _MAX_CHARACTER_BYTES, 1)
        while block := self._file.read(n_bytes):
            if text := self._decoder.decode(block):
                return text.encode()
        return self._decoder.decode(b"", final=True).encode()


class RowStream(_Stream):
    """A stream without its first lines, and without those that begin with a comment mark.

    In a damaged file, lines that hold bytes of 0 are left out, too. Where blanks divide the
    columns, each run of them becomes a tab.

    Line ends must be single bytes, as in ASCII. A comment has to be a line of its own, not the
    second line of a cell.
    """

    def __init__(
        self,
        file: io.BufferedIOBase,
        n_first: int,
        mark: str | None,
        sep: str,
        *,
        is_damaged: bool,
    ) -> None:
        super().__init__(file)
        self._has_blanks = sep == WHITESPACE
        self._left_out: list[re.Pattern[bytes]] = []
        if mark is not None:
            comment = rb"(?:^|(?<=[\r\n]))%b[^\r\n]*(?:\r\n|\n|\r|\Z)" % re.escape(mark.encode())
            self._left_out.append(re.compile(comment))
        if is_damaged:
            self._left_out.append(_DAMAGED_LINE)
        self._n_first = n_first
        self._ready = b""
        """Bytes that were filtered, but are not read yet."""
        self._partial_line = b""
        """The beginning of a line whose end is not read yet."""
        self._is_done = False

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes into a buffer; none only at the end."""
        if not (self._is_filtered or self._ready):
            return self._file.readinto(buffer)  # all that follows is passed through as it is

        view = memoryview(buffer)
        while not self._ready and not self._is_done:
            block = self._file.read(len(view))
            self._is_done = not block
            self._ready = self._filter(block)
        content, self._ready = self._ready[: len(view)], self._ready[len(view) :]
        view[: len(content)] = content
        return len(content)

    def _filter(self, block: bytes) -> bytes:
        """Filter the complete lines of a block; the last, partial one waits for the next block."""
        content = self._partial_line + block if self._partial_line else block
        end = len(content) if self._is_done else end_of_lines(content, len(content))
        content, self._partial_line = content[:end], content[end:]

        if self._n_first:
            lines = content.splitlines(keepends=True)
            content = b"".join(lines[self._n_first :])
            self._n_first -= min(self._n_first, len(lines))
        for pattern in self._left_out:
            content = pattern.sub(b"", content)
        if not self._is_filtered:  # nothing is left to be done with the lines that follow
            content, self._partial_line = content + self._partial_line, b""
        return _BLANKS.sub(_tab, content) if self._has_blanks else content

    @property
    def _is_filtered(self) -> bool:
        """Whether lines may still have to be left out or changed."""
        return bool(self._n_first or self._left_out or self._has_blanks)


def _tab(match: re.Match[bytes]) -> bytes:
    """Return a tab for blanks between two fields, nothing for those at the ends of a line."""
    text, start, end = match.string, match.start(), match.end()
    is_within = start > 0 and end < len(text)
    is_between = is_within and text[start - 1] not in b"\r\n" and text[end] not in b"\r\n"
    return b"\t" if is_between else b""


def end_of_lines(text: bytes | bytearray, length: int) -> int:
    """Return where the last line within the first `length` bytes ends.

    A carriage return as the last byte ends no line, since a line feed may follow it.
    """
    return max(text.rfind(b"\n", 0, length), text.rfind(b"\r", 0, length - 1)) + 1


class LimitedStream(_Stream):
    """A stream that raises `DataError` beyond a limit: a small packed file may be endless."""

    def __init__(self, file: RowStream, limit: int, name: str) -> None:
        super().__init__(file)
        self._n_remaining, self._name = limit, name

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes into a buffer. Raises `DataError` once they are more than the limit."""
        n_read = self._file.readinto(buffer)
        self._n_remaining -= n_read
        if self._n_remaining < 0:
            raise DataError(
                f"{self._name} decompresses to more than --max-input-bytes",
                code="input-bytes",
                location=Location(self._name),
                proposals=[
                    Proposal(("--max-input-bytes", "1T"), "if the data really is that large")
                ],
            )
        return n_read


def end_of_rows(text: bytes | bytearray, length: int, sep: bytes) -> int | None:
    """Return where the last complete row within the first `length` bytes ends; 0 for none.

    The text begins with a row. Returns None where a quote stands in an odd position: each must open
    a field, close it, or be one of two.
    """
    end = end_of_lines(text, length)
    if not text.count(b'"', 0, length):
        return end

    view = np.frombuffer(text, np.uint8, count=length)
    quotes = np.flatnonzero(view == QUOTE)
    edges = np.frombuffer(sep + b'\r\n"', np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before = view[opening[opening > 0] - 1]
    after = view[closing[closing < length - 1] + 1]
    if not (np.isin(before, edges).all() and np.isin(after, edges).all()):
        return None

    # A line end with an odd number of quotes before it lies inside of quotes.
    while end:
        n_before = int(np.searchsorted(quotes, end))
        if n_before % 2 == 0:
            return end
        end = end_of_lines(text, int(quotes[n_before - 1]) + 1)
    return 0
