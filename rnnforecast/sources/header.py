"""The header of a CSV file: where it is, whether it is one, and what to type where it is not.

Below `dialect`, which finds out how a file is written: here its first lines are judged.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.sources.columns import is_date, is_number, is_unit

SEPARATORS = (",", ";", "\t", "|")
_MIN_ROWS = 3
_MAX_PREAMBLE = 100

Row = list[str]


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
