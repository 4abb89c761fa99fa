"""The dialect and the header of a CSV file, inferred from its first lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.columns import Column, is_date, is_number, is_unit, kind_of_texts
from rnnforecast.sources.text import field_too_long, find_encoding, lines_of, read_head
from rnnforecast.storage.remote import Place

MISSING = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-", "--")
"""Text that means a missing reading, beside what `--na-values` adds."""
_HEAD_LINES = 100
_GROUPED = ((",", "."), (".", ","), (",", " "), (".", " "), (".", "'"), (",", "\u00a0"))
"""Decimal mark and mark between thousands, as they occur together."""
SEPARATORS = (",", ";", "\t", "|")
_MIN_ROWS = 3
_MAX_PREAMBLE = 100
Row = list[str]


@dataclass(frozen=True)
class Dialect:
    """How one CSV file is written."""

    sep: str
    decimal: str
    thousands: str | None
    encoding: str
    comment: str | None
    names: tuple[str, ...]
    n_above: int
    """So many lines stand above the first row: a preamble, the header, a line of units."""
    missing: tuple[str, ...]

    def is_number(self, text: str) -> bool:
        """Tell whether a cell is a number as this file writes them."""
        return is_number(text, self.decimal, self.thousands)


def sniff(
    path: Place, config: DataConfig, listener: Listener, *, shown: str
) -> tuple[Dialect, tuple[Column, ...]]:
    """Find out how a CSV file is written and what its columns hold, from its first lines.

    Raises `DataError` for a file that is empty, has no rows, or is no table.
    """
    head, whole = read_head(path, shown)
    encoding = config.encoding or find_encoding(head, shown, listener)
    lines = Lines.of(lines_of(head, encoding, whole=whole, shown=shown), config)
    if not lines.said.texts:
        raise DataError(
            f"{shown} is empty",
            code="empty",
            location=Location(shown),
            hint="pass a file with rows",
        )
    sep = config.sep or _find_separator(lines.said.texts[: _HEAD_LINES + 1])
    missing = (*MISSING, *config.na_values)
    try:
        header = find_header(lines, sep, config, shown)
        body = [row for row in csv.reader(lines.after(header.n_above), delimiter=sep) if row]
    except csv.Error as error:
        raise field_too_long(shown) from error
    decimal = config.decimal or _find_decimal(body, sep, missing)
    if decimal != "." and config.decimal is None:
        listener(Warned("decimal-comma", f"{shown} has commas as decimal marks"))
    header.check(body, decimal)
    names = header.names_beside(body)
    dialect = Dialect(
        sep, decimal, config.thousands, encoding, config.comment, names, header.n_above, missing
    )
    columns = tuple(_column(name, i, body, dialect) for i, name in enumerate(names))
    for column in columns:
        _reject_grouped(column, dialect, shown)
    return dialect, columns


def _column(name: str, place: int, body: list[list[str]], dialect: Dialect) -> Column:
    """Tell what the cells at one place of the first rows are."""
    cells = (row[place] for row in body if place < len(row))
    there = [cell for cell in cells if cell not in dialect.missing]
    return kind_of_texts(name, there, is_number=dialect.is_number)


def _reject_grouped(column: Column, dialect: Dialect, shown: str) -> None:
    """Raise `DataError` for a column that would be numbers with marks between thousands."""
    odd = [cell for cell in column.sample if not dialect.is_number(cell)]
    if column.kind not in ("text", "number") or not odd or dialect.thousands is not None:
        return
    for decimal, thousands in _GROUPED:
        if all(is_number(cell, decimal, thousands) for cell in odd):
            grouped = next((cell for cell in odd if thousands in cell), None)
            if grouped is None:
                continue
            also = f" --decimal {decimal}" if decimal != dialect.decimal else ""
            raise DataError(
                f"column {column.name!r} holds {grouped!r}: numbers with marks between thousands",
                code="thousands",
                location=Location(shown, column=column.name),
                hint=f"if it means {grouped.replace(thousands, '').replace(decimal, '.')}, add  "
                f"--thousands {quote(thousands)}{also}",
            )


def quote(text: str) -> str:
    """Quote a word for a shell where it needs it; an option's value must not look like one."""
    plain = re.fullmatch(r"[\w.,:/+@%=-]+", text) is not None
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def _find_separator(lines: Sequence[str]) -> str:
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


@dataclass(frozen=True)
class Lines:
    """The first lines of a file, without those that the user wants skipped, and comments."""

    numbers: Sequence[int]
    """The physical number of each, from 1."""
    texts: Sequence[str]
    above: str | None
    """The last of the lines that the user wants skipped."""

    @classmethod
    def of(cls, lines: Sequence[str], config: DataConfig) -> Lines:
        """Leave out what is no row."""
        kept = [
            (number, line)
            for number, line in enumerate(lines, 1)
            if number > config.skip_rows
            and not (config.comment and line.startswith(config.comment))
        ]
        above = lines[config.skip_rows - 1] if 0 < config.skip_rows <= len(lines) else None
        return cls([number for number, _ in kept], [line for _, line in kept], above)

    @property
    def said(self) -> Lines:
        """Those that are not empty."""
        pairs = zip(self.numbers, self.texts, strict=True)
        kept = [(number, text) for number, text in pairs if text.strip()]
        return Lines([n for n, _ in kept], [text for _, text in kept], self.above)

    def after(self, number: int) -> list[str]:
        """Return the lines that follow a physical line."""
        return [t for n, t in zip(self.numbers, self.texts, strict=True) if n > number]


@dataclass(frozen=True)
class Header:
    """The names of the columns, and where they stand."""

    shown: str
    names: tuple[str, ...]
    n_above: int
    """Lines above the first row."""
    lines: Lines
    """Those that are not empty."""
    sep: str
    is_given: bool
    """Whether the user says the names, because the file does not."""

    def check(self, body: Sequence[Row], decimal: str) -> None:
        """Raise `DataError` where this is no header, or where what follows does not fit it."""
        if len(self.names) == 1:
            self._reject_one_column(has_body=bool(body))
        if not body:
            raise self._error(
                f"{self.shown} has a header, but no readings",
                "header-only",
                hint="pass a file with rows below the header",
            )
        twice = next((name for name, n in Counter(self.names).items() if n > 1), None)
        if twice is not None:
            raise self._error(
                f"two columns are called {twice!r}",
                "duplicate-column",
                hint="give every column a name of its own",
            )
        if self.is_given:
            self._check_count(body[0])
            return
        preamble = self._guess_preamble()
        if preamble:
            raise self._error(
                f"the first {preamble} lines have other numbers of fields than the rest",
                "preamble",
                hint=self._hint_for_preamble(preamble),
            )
        self._reject_rows_of_other_kinds(body, decimal)

    def names_beside(self, body: Sequence[Row]) -> tuple[str, ...]:
        """Return the names, with an empty one where every row has one field more, and it is empty.

        So it is where each line ends with a separator, but not the header.
        """
        n = len(self.names)
        if body and all(len(row) == n + 1 and not row[n].strip() for row in body):
            return (*self.names, "")
        return self.names

    def _reject_rows_of_other_kinds(self, body: Sequence[Row], decimal: str) -> None:
        """Raise `DataError` for a header that is a row, and for a first row that is none."""

        def says_something(cells: Sequence[str]) -> bool:
            return any(is_date(cell) or is_number(cell, decimal) for cell in cells)

        if all(is_date(name) or is_number(name, decimal) for name in self.names if name):
            names = ["time", *(f"sensor{i}" for i in range(1, len(self.names)))]
            raise self._error(
                "the first line holds readings, not the names of columns",
                "no-header",
                hint=f"if there is no header, add  --no-header --columns {','.join(names)}",
            )
        if len(body) > 1 and not says_something(body[0]) and says_something(body[1]):
            number = next(n for n in self.lines.numbers if n > self.n_above)
            text = self.lines.after(self.n_above)[0]
            raise DataError(
                "the line under the header holds neither a time nor a number",
                code="units-row",
                location=Location(self.shown, line=number, text=text.rstrip("\r\n")),
                hint=f"if it holds units, add  --skip-rows {self.n_above}",
            )

    def _check_count(self, row: Row) -> None:
        if len(row) != len(self.names):
            raise self._error(
                f"--columns has {len(self.names)} names, but the first row has {len(row)} fields",
                "no-header",
                hint="name every column, in the order of the file",
            )

    def _reject_one_column(self, *, has_body: bool) -> None:
        preamble = self._guess_preamble()
        if preamble:
            hint = self._hint_for_preamble(preamble)
        elif not has_body:
            return
        else:
            hint = (
                f"if another separator than {self.sep!r} divides the columns, name it with  --sep"
            )
        raise self._error(f"only one column was found, {self.names[0]!r}", "one-column", hint=hint)

    def _guess_preamble(self) -> int:
        """Return how many lines stand above the header; 0 where the separator fits all of them."""
        texts = self.lines.texts
        if len(set(_count_fields(texts, self.sep))) == 1 and self.sep in texts[0]:
            return 0
        n_comments = len(texts) - len(self._without_comments())
        return n_comments or max(guess_preamble(texts, sep) for sep in SEPARATORS)

    def _without_comments(self) -> Sequence[str]:
        """Leave out lines that begin as the first does, where that makes a table of the rest."""
        texts = self.lines.texts
        mark = texts[0][0]
        rest = [text for text in texts if not text.startswith(mark)]
        if mark.isalnum() or mark in "\"'" or len(rest) < _MIN_ROWS:
            return texts
        counts = [set(_count_fields(rest, sep)) for sep in SEPARATORS]
        return rest if any(len(c) == 1 and c != {1} for c in counts) else texts

    def _hint_for_preamble(self, n_lines: int) -> str:
        """Offer to skip these lines, as comments where they begin with a mark."""
        if len(self._without_comments()) < len(self.lines.texts):
            mark = self.lines.texts[0][0]
            return f"if lines that begin with {mark} are comments, add  --comment '{mark}'"
        n_rows = self.lines.numbers[n_lines] - 1
        return f"to skip what stands above the header, add  --skip-rows {n_rows}"

    def _error(self, message: str, code: str, *, hint: str) -> DataError:
        number, text = self.lines.numbers[0], self.lines.texts[0].rstrip("\r\n")
        return DataError(
            message, code=code, location=Location(self.shown, number, text=text), hint=hint
        )


def find_header(lines: Lines, sep: str, config: DataConfig, shown: str) -> Header:
    """Find the names: those that the user says, or those of the first line.

    Where that holds units, and the last one that is skipped has as many names, the names are there.
    """
    if config.no_header:
        n_above = lines.said.numbers[0] - 1
        return Header(shown, config.columns, n_above, lines.said, sep, is_given=True)
    reader = csv.reader(lines.texts, delimiter=sep)
    first = next(row for row in reader if row)
    n_above = lines.numbers[reader.line_num - 1]
    above = [] if lines.above is None else next(csv.reader([lines.above], delimiter=sep), [])
    if len(above) == len(first) and _are_names(above) and _are_units(first):
        first = above
    return Header(shown, tuple(first), n_above, lines.said, sep, is_given=False)


def guess_preamble(lines: Sequence[str], sep: str) -> int:
    """Return how many lines stand above the first that is a header of all that follows; else 0.

    What follows is at least two rows with as many fields, two or more; no name is a number.
    """
    counts = _count_fields(lines, sep)
    if len(counts) != len(lines) or counts[-1] < 2:
        return 0
    first = max((i + 1 for i, n in enumerate(counts) if n != counts[-1]), default=0)
    for above in range(first, min(len(lines) - _MIN_ROWS, _MAX_PREAMBLE) + 1):
        names = next(csv.reader([lines[above]], delimiter=sep))
        if not any(is_number(name, ".") for name in names):
            return above
    return 0


def _are_names(cells: Row) -> bool:
    return len(set(cells)) == len(cells) and all(cell.strip() for cell in cells)


def _are_units(cells: Row) -> bool:
    """Tell whether these could hardly be names: units, nothing, or the same word twice."""
    n_units = sum(is_unit(cell) for cell in cells)
    return not _are_names(cells) or 2 * n_units >= len(cells)


def _count_fields(lines: Sequence[str], sep: str) -> list[int]:
    try:
        return [len(row) for row in csv.reader(lines, delimiter=sep)]
    except csv.Error:
        return []
