"""The header of a CSV file: whether it is one, and what to type where it is not.

Below `dialect`, which finds out how a file is written: here its first lines are judged.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from rnnforecast.data.columns import is_date, is_number
from rnnforecast.errors import DataError, Location

SEPARATORS = (",", ";", "\t", "|")
_MIN_ROWS = 3
_MAX_PREAMBLE = 100


@dataclass(frozen=True)
class Header:
    """The first lines of a file, and the separator that was found."""

    shown: str
    n_skipped: int
    lines: Sequence[str]
    """The header and what follows it, as they stand in the file, empty lines left out."""
    sep: str

    def check(self, names: Sequence[str], *, has_body: bool) -> None:
        """Raise `DataError` for a header without rows, with one column, or with a name twice."""
        if len(names) == 1:
            self._raise_one_column(names[0], has_body=has_body)
        if not has_body:
            raise self._error(
                f"{self.shown} has a header, but no readings",
                "header-only",
                hint="pass a file with rows below the header",
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise self._error(
                f"two columns are called {twice!r}",
                "duplicate-column",
                hint="give every column a name of its own",
            )
        preamble = self._guess_preamble()
        if preamble:
            raise self._error(
                f"the first {preamble} lines have other numbers of fields than the rest",
                "preamble",
                hint=f"to skip them, add  --skip-rows {self.n_skipped + preamble}",
            )

    def check_is_no_row(self, names: Sequence[str], decimal: str) -> None:
        """Raise `DataError` where every name is a time or a number: then there is no header."""
        if all(is_date(name) or is_number(name, decimal) for name in names if name):
            raise self._error(
                "the first line holds readings, not the names of columns",
                "no-header",
                hint="add a line with names at the top, such as  "
                + self.sep.join(["time", *(f"sensor{i}" for i in range(1, len(names)))]),
            )

    def _raise_one_column(self, name: str, *, has_body: bool) -> None:
        preamble = self._guess_preamble()
        if preamble:
            n_rows = self.n_skipped + preamble
            hint = f"to skip what stands above the header, add  --skip-rows {n_rows}"
        elif not has_body:
            return
        else:
            hint = (
                f"if another separator than {self.sep!r} divides the columns, name it with  --sep"
            )
        raise self._error(f"only one column was found, {name!r}", "one-column", hint=hint)

    def _guess_preamble(self) -> int:
        """Return how many lines stand above the header; 0 where the separator fits all of them."""
        if len(set(_count_fields(self.lines, self.sep))) == 1 and self.sep in self.lines[0]:
            return 0
        return max(guess_preamble(self.lines, sep) for sep in SEPARATORS)

    def _error(self, message: str, code: str, *, hint: str) -> DataError:
        location = Location(self.shown, line=self.n_skipped + 1, text=self.lines[0].rstrip("\r\n"))
        return DataError(message, code=code, location=location, hint=hint)


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


def _count_fields(lines: Sequence[str], sep: str) -> list[int]:
    try:
        return [len(row) for row in csv.reader(lines, delimiter=sep)]
    except csv.Error:
        return []
