"""What a column holds, judged from its first values: a time, numbers, text, or nothing.

Below `csvfile` and `reading`, which both describe their columns with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["time", "number", "text", "empty", "other"]
_NUMERIC_SHARE = 0.5
_DATE = re.compile(
    r"\s*(\d{4}[-/.]?\d{1,2}[-/.]?\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})"
    r"([T ]+\d{1,2}:?\d{2}.*)?\s*"
)
_TIME_OF_DAY = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp][Mm])?\s*")
EPOCH_UNITS_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
EPOCH_1990_US, EPOCH_2100_US = 631_152_000_000_000, 4_102_444_800_000_000


@dataclass(frozen=True)
class Column:
    """One column of a source."""

    name: str
    kind: Kind
    sample: tuple[str, ...] = ()
    """Its first values as text, missing ones left out."""
    is_typed: bool = False
    """Whether the file itself says that these are times, as Parquet does."""
    tz: str | None = None
    """The zone that the file gives such times."""


def kind_of_texts(name: str, cells: Sequence[str], *, is_number: Callable[[str], bool]) -> Column:
    """Judge a column of text cells; missing ones are left out by the caller.

    A column most of whose cells are numbers counts as numbers, so that the rest is an error with a
    line, and not a column that is silently left out.
    """
    sample = tuple(cells[:1000])
    n_numbers = sum(map(is_number, sample))
    kind: Kind = "text"
    if not sample:
        kind = "empty"
    elif n_numbers == len(sample):
        kind = "number"
    elif sum(is_date(cell) for cell in sample) > _NUMERIC_SHARE * len(sample):
        kind = "time"
    elif n_numbers >= _NUMERIC_SHARE * len(sample):
        kind = "number"
    return Column(name, kind, sample)


def is_number(text: str, decimal: str) -> bool:
    """Tell whether a cell is a number with this decimal mark."""
    mark = re.escape(decimal)
    pattern = rf"[+-]?(\d+({mark}\d*)?|{mark}\d+)(e[+-]?\d+)?|[+-]?(inf|infinity)"
    return re.fullmatch(pattern, text.strip(" \t"), re.IGNORECASE | re.ASCII) is not None


def is_date(text: str) -> bool:
    """Tell whether a cell looks like a date, with or without a time of day."""
    return _DATE.fullmatch(text) is not None


def is_time_of_day(text: str) -> bool:
    """Tell whether a cell looks like a time of day without a date."""
    return _TIME_OF_DAY.fullmatch(text) is not None


def epoch_unit(values: Sequence[float]) -> str | None:
    """Return the only unit in which all values are times between 1990 and 2100, if there is one."""
    fitting = [
        unit
        for unit, factor in EPOCH_UNITS_US.items()
        if values and all(EPOCH_1990_US <= value * factor < EPOCH_2100_US for value in values)
    ]
    return fitting[0] if len(fitting) == 1 else None
