"""The dialect and the header of a CSV file, inferred from its first lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.sources.columns import Column, infer_text_column, is_date, is_number, is_unit
from rnnforecast.sources.text import field_too_long, find_encoding, lines_of, read_head
from rnnforecast.storage.remote import AnyPath

MISSING = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-", "--")
"""Text that means a missing reading, in addition to what `--na-values` names."""
_MAX_SNIFFED = 100
"""Lines below the first from which the separator is inferred."""
_GROUPED = ((",", "."), (".", ","), (",", " "), (".", " "), (".", "'"), (",", "\u00a0"))
"""Decimal marks and thousands separators that occur together."""
SEPARATORS = (",", ";", "\t", "|")
_MIN_ROWS = 3
"""The fewest lines below a preamble, header included, that count as a table."""
_MAX_PREAMBLE = 100
Row = list[str]


@dataclass(frozen=True)
class Dialect:
    """The format of one CSV file."""

    sep: str
    decimal: str
    thousands: str | None
    encoding: str
    comment: str | None
    names: tuple[str, ...]
    n_above: int
    """Number of lines above the first row: a preamble, the header, a line of units."""
    missing: tuple[str, ...]

    def is_number(self, text: str) -> bool:
        """Tell whether a cell is a number in this dialect."""
        return is_number(text, self.decimal, self.thousands)


def sniff(
    path: AnyPath, config: DataConfig, listener: Listener, *, name: str
) -> tuple[Dialect, tuple[Column, ...]]:
    """Infer the dialect of a CSV file and the kinds of its columns, from its first lines.

    `name` is what messages call the file. Raises `DataError` for a file that is empty, has no rows,
    or is no table.
    """
    head, is_complete = read_head(path, name)
    encoding = config.encoding or find_encoding(head, name, listener)
    lines = Lines.of(lines_of(head, encoding, is_complete=is_complete, name=name), config)
    if not lines.nonempty.texts:
        raise DataError(
            f"{name} is empty",
            code="empty",
            location=Location(name),
            hint="pass a file with rows",
        )

    sep = config.sep or infer_separator(lines.nonempty.texts[: _MAX_SNIFFED + 1])
    missing = (*MISSING, *config.na_values)
    try:
        header = find_header(lines, sep, config, name)
        body = [row for row in csv.reader(lines.after(header.n_above), delimiter=sep) if row]
    except csv.Error as error:
        raise field_too_long(name) from error

    decimal = config.decimal or infer_decimal(body, sep, missing)
    if decimal != "." and config.decimal is None:
        listener(WarningEvent("decimal-comma", f"{name} has commas as decimal marks"))
    header.check(body, decimal)

    names = header.names_for(body)
    dialect = Dialect(
        sep, decimal, config.thousands, encoding, config.comment, names, header.n_above, missing
    )
    columns = []
    for i, column_name in enumerate(names):
        cells = [row[i] for row in body if i < len(row) and row[i] not in missing]
        columns.append(infer_text_column(column_name, cells, is_number=dialect.is_number))
    for column in columns:
        _check_not_grouped(column, dialect, name)
    return dialect, tuple(columns)


def infer_separator(lines: Sequence[str]) -> str:
    """Return the separator that gives every line as many fields as the header, and the most."""

    def merit(sep: str) -> tuple[bool, int]:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=sep) if row]
        except csv.Error:  # with another separator a very wide row is one field, which is too long
            return False, 0
        is_consistent = counts[0] > 1 and len(set(counts)) == 1
        return is_consistent, counts[0]

    return max(SEPARATORS, key=merit)


def infer_decimal(body: list[Row], sep: str, missing: tuple[str, ...]) -> str:
    """Return the decimal mark: a comma only where a column has commas that a point cannot be."""
    if sep == ",":
        return "."
    for column in zip(*(row for row in body if len(row) == len(body[0])), strict=True):
        cells = [cell for cell in column if cell not in missing]
        if (
            cells
            and all(is_number(cell, ",") for cell in cells)
            and not all(is_number(cell, ".") for cell in cells)
        ):
            return ","
    return "."


def _check_not_grouped(column: Column, dialect: Dialect, name: str) -> None:
    """Raise `DataError` for a column whose texts are numbers with thousands separators."""
    texts = [cell for cell in column.sample if not dialect.is_number(cell)]
    if column.kind not in ("text", "number") or not texts or dialect.thousands is not None:
        return

    for decimal, thousands in _GROUPED:
        if not all(is_number(cell, decimal, thousands) for cell in texts):
            continue
        grouped = next((cell for cell in texts if thousands in cell), None)
        if grouped is None:
            continue
        decimal_option = f" --decimal {decimal}" if decimal != dialect.decimal else ""
        raise DataError(
            f"column {column.name!r} holds {grouped!r}: numbers with marks between thousands",
            code="thousands",
            location=Location(name, column=column.name),
            hint=f"if it means {grouped.replace(thousands, '').replace(decimal, '.')}, add  "
            f"--thousands {shell_quote(thousands)}{decimal_option}",
        )


def shell_quote(text: str) -> str:
    """Quote a word for a shell where it needs it."""
    is_plain = re.fullmatch(r"[\w.,:/+@%=-]+", text) is not None
    return text if is_plain else "'" + text.replace("'", "'\\''") + "'"


@dataclass(frozen=True)
class Lines:
    """The first lines of a file, without comments and without those that the user skips."""

    numbered: Sequence[tuple[int, str]]
    """The physical number of each, from 1, and its text."""
    above: str | None
    """The last of the lines that the user skips."""

    @classmethod
    def of(cls, lines: Sequence[str], config: DataConfig) -> Lines:
        """Drop the lines that are no rows."""
        numbered = [
            (number, line)
            for number, line in enumerate(lines, 1)
            if number > config.skip_rows
            and not (config.comment and line.startswith(config.comment))
        ]
        above = lines[config.skip_rows - 1] if 0 < config.skip_rows <= len(lines) else None
        return cls(numbered, above)

    @property
    def texts(self) -> list[str]:
        """Their texts."""
        return [text for _, text in self.numbered]

    @property
    def nonempty(self) -> Lines:
        """Those that are not empty."""
        return Lines([(n, text) for n, text in self.numbered if text.strip()], self.above)

    def after(self, number: int) -> list[str]:
        """Return the lines that follow a physical line."""
        return [text for n, text in self.numbered if n > number]


@dataclass(frozen=True)
class Header:
    """The names of the columns, and where they stand."""

    source: str
    """What messages call the file."""
    names: tuple[str, ...]
    n_above: int
    """Lines above the first row."""
    lines: Lines
    """The first lines that are not empty."""
    sep: str
    is_explicit: bool
    """Whether the user names the columns, because the file has no header."""

    def check(self, body: Sequence[Row], decimal: str) -> None:
        """Raise `DataError` where this is no header, or where the rows below do not fit it."""
        n_preamble = self._count_preamble()
        if len(self.names) == 1 and (n_preamble or body):
            hint = (
                f"if another separator than {self.sep!r} divides the columns, name it with  --sep"
            )
            raise self._error(
                f"only one column was found, {self.names[0]!r}",
                "one-column",
                hint=self._hint_for_preamble(n_preamble) if n_preamble else hint,
            )
        if not body:
            raise self._error(
                f"{self.source} has a header, but no readings",
                "header-only",
                hint="pass a file with rows below the header",
            )

        duplicate = next((name for name, n in Counter(self.names).items() if n > 1), None)
        if duplicate is not None:
            raise self._error(
                f"two columns are called {duplicate!r}",
                "duplicate-column",
                hint="give every column a name of its own",
            )

        if self.is_explicit:
            if len(body[0]) != len(self.names):
                raise self._error(
                    f"--columns has {len(self.names)} names, but the first row has {len(body[0])} "
                    "fields",
                    "no-header",
                    hint="name every column, in the order of the file",
                )
            return

        if n_preamble:
            raise self._error(
                f"the first {n_preamble} lines have other numbers of fields than the rest",
                "preamble",
                hint=self._hint_for_preamble(n_preamble),
            )
        self._reject_rows_of_other_kinds(body, decimal)

    def names_for(self, body: Sequence[Row]) -> tuple[str, ...]:
        """Return the names, with an empty one added where every row has one more, empty field.

        That is so where each line ends with a separator, but not the header.
        """
        n = len(self.names)
        if body and all(len(row) == n + 1 and not row[n].strip() for row in body):
            return (*self.names, "")
        return self.names

    def _reject_rows_of_other_kinds(self, body: Sequence[Row], decimal: str) -> None:
        """Raise `DataError` for a header that is a row, and for a first row that is none."""

        def has_value(cells: Sequence[str]) -> bool:
            return any(is_date(cell) or is_number(cell, decimal) for cell in cells)

        if all(is_date(name) or is_number(name, decimal) for name in self.names if name):
            names = ["time", *(f"sensor{i}" for i in range(1, len(self.names)))]
            raise self._error(
                "the first line holds readings, not the names of columns",
                "no-header",
                hint=f"if there is no header, add  --no-header --columns {','.join(names)}",
            )

        if len(body) > 1 and not has_value(body[0]) and has_value(body[1]):
            number, text = next(line for line in self.lines.numbered if line[0] > self.n_above)
            raise DataError(
                "the line under the header holds neither a time nor a number",
                code="units-row",
                location=Location(self.source, line=number, text=text.rstrip("\r\n")),
                hint=f"if it holds units, add  --skip-rows {self.n_above}",
            )

    def _count_preamble(self) -> int:
        """Return the number of lines above the header; 0 where the separator fits all lines."""
        texts = self.lines.texts
        if len(set(_count_fields(texts, self.sep))) == 1 and self.sep in texts[0]:
            return 0
        n_comments = len(texts) - len(self._without_comments())
        return n_comments or max(infer_preamble(texts, sep) for sep in SEPARATORS)

    def _without_comments(self) -> Sequence[str]:
        """Drop lines that begin like the first, where all others make a table."""
        texts = self.lines.texts
        mark = texts[0][0]
        rows = [text for text in texts if not text.startswith(mark)]
        if mark.isalnum() or mark in "\"'" or len(rows) < _MIN_ROWS:
            return texts
        counts = [set(_count_fields(rows, sep)) for sep in SEPARATORS]
        return rows if any(len(c) == 1 and c != {1} for c in counts) else texts

    def _hint_for_preamble(self, n_lines: int) -> str:
        """Return the option that skips these lines, as comments where they begin with a mark."""
        if len(self._without_comments()) < len(self.lines.texts):
            mark = self.lines.texts[0][0]
            return f"if lines that begin with {mark} are comments, add  --comment '{mark}'"
        n_rows = self.lines.numbered[n_lines][0] - 1
        return f"to skip what stands above the header, add  --skip-rows {n_rows}"

    def _error(self, message: str, code: str, *, hint: str) -> DataError:
        number, text = self.lines.numbered[0]
        location = Location(self.source, number, text=text.rstrip("\r\n"))
        return DataError(message, code=code, location=location, hint=hint)


def find_header(lines: Lines, sep: str, config: DataConfig, name: str) -> Header:
    """Find the names of the columns: those of the user, or those of the first line.

    Where the first line holds units, and the last one that is skipped has as many names, the names
    are there.
    """
    if config.no_header:
        n_above = lines.nonempty.numbered[0][0] - 1
        return Header(name, config.columns, n_above, lines.nonempty, sep, is_explicit=True)

    reader = csv.reader(lines.texts, delimiter=sep)
    first = next(row for row in reader if row)
    n_above = lines.numbered[reader.line_num - 1][0]

    above = [] if lines.above is None else next(csv.reader([lines.above], delimiter=sep), [])
    if len(above) == len(first) and _are_names(above):
        # Units, nothing, or the same word twice could hardly be names.
        n_units = sum(is_unit(cell) for cell in first)
        if not _are_names(first) or 2 * n_units >= len(first):
            first = above
    return Header(name, tuple(first), n_above, lines.nonempty, sep, is_explicit=False)


def infer_preamble(lines: Sequence[str], sep: str) -> int:
    """Return the number of lines above the first that is a header of all that follow; else 0.

    At least two rows follow, with as many fields as the header, two or more; no name is a number.
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


def _count_fields(lines: Sequence[str], sep: str) -> list[int]:
    try:
        return [len(row) for row in csv.reader(lines, delimiter=sep)]
    except csv.Error:
        return []
