"""What a column holds, judged from its first values: times, numbers, texts, lists, or nothing.

Below `csvfile` and `reading`, which both describe their columns with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from rnnforecast.durations import EPOCH_UNITS_US

Kind = Literal["time", "number", "text", "empty", "nested", "other"]
_NUMERIC_SHARE = 0.5
_DATE = re.compile(
    r"\s*(\d{4}[-/.]?\d{1,2}[-/.]?\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})"
    r"([T ]+\d{1,2}:?\d{2}.*)?\s*"
)
_TIME_OF_DAY = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp][Mm])?\s*")
_UNIT = re.compile(
    r"[cdhkmMGnu]?(s|m|g|a|v|w|wh|j|n|pa|bar|hz|l|va|var|ohm)"
    "|min|h|t|psi|c|degc|f|degf|k|rpm|ppm|ppb|ph|lux|lx|db",
    re.IGNORECASE,
)
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
    is_series: bool = False
    """Whether it is known to name the series, as a sharded folder says."""


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


def is_number(text: str, decimal: str, thousands: str | None = None) -> bool:
    """Tell whether a cell is a number with this decimal mark, and this mark between thousands."""
    return number_pattern(decimal, thousands).fullmatch(text.strip(" \t")) is not None


@cache
def number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """Return the pattern of a number."""
    mark, digits = re.escape(decimal), r"\d+"
    if thousands is not None:
        digits = rf"(?:\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    pattern = rf"[+-]?(?:{digits}(?:{mark}\d*)?|{mark}\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity)"
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


def is_digits(text: str) -> bool:
    """Tell whether a cell is a whole number, written without a point or an exponent."""
    bare = text.strip().removeprefix("-")
    return bare.isascii() and bare.isdigit()


def is_date(text: str) -> bool:
    """Tell whether a cell looks like a date, with or without a time of day."""
    return _DATE.fullmatch(text) is not None


def is_unit(text: str) -> bool:
    """Tell whether a cell looks like a unit: in brackets, with a sign of one, or a known one."""
    bare = text.strip()
    in_brackets = bare[:1] in tuple("[(") and bare[-1:] in tuple(")]")
    return (
        in_brackets or any(sign in bare for sign in "°%µ²³/") or _UNIT.fullmatch(bare) is not None
    )


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
