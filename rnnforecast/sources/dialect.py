"""How one CSV file is written: encoding, separator, decimal mark, and what its cells can be.

Below `csvfile`, which reads a file whose dialect is known. Nothing is guessed from one line: what
is found holds for all of the first lines, or is an error that names the option to pass.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.places.remote import Place
from rnnforecast.sources.columns import Column, is_number, kind_of_texts
from rnnforecast.sources.header import SEPARATORS, Lines, find_header
from rnnforecast.sources.textfile import field_too_long, find_encoding, lines_of, read_head

MISSING = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-", "--")
"""Text that means a missing reading, beside what `--na-values` adds."""
_HEAD_LINES = 100
_GROUPED = ((",", "."), (".", ","), (",", " "), (".", " "), (".", "'"), (",", "\u00a0"))
"""Decimal mark and mark between thousands, as they occur together."""


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
