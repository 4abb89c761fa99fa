"""Texts in columns of numbers: which, how often, and what would make numbers of them.

Below `csvfile`, which looks for them row by row once pyarrow has stumbled over one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rnnforecast.errors import DataError, Location
from rnnforecast.sources.columns import is_number
from rnnforecast.sources.dialect import Dialect, quote

_MAX_LISTED = 5
_MOST_REMEMBERED = 1 << 16
"""So many texts that are numbers are known without looking at them again."""
_OTHER_MARK = {".": ",", ",": "."}


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
