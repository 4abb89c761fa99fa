"""What a column of cells holds, and its conversion to Arrow types."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import pyarrow as pa

from rnnforecast.errors import DataError, Location
from rnnforecast.units import EPOCH_UNITS_US

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


def is_text(type_: pa.DataType) -> bool:
    """Tell whether a type is that of texts, of any length."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def cast_all(batch: pa.RecordBatch, wanted: dict[str, pa.DataType], source: str) -> pa.RecordBatch:
    """Return these columns as these types. Raises `DataError` for what cannot be."""
    arrays = []
    for name, type_ in wanted.items():
        array = batch.column(name)
        if _has_other_zone(array.type, type_):
            raise DataError(
                f"the stamps in column {name!r} of {source} carry "
                + ("no zone, but others do" if type_.tz else "a zone, but others carry none"),
                code="mixed-zones",
                location=Location(source, column=name),
                hint="write all of them with a zone, or all without one; --tz names the zone of "
                "stamps that carry none",
            )
        try:
            arrays.append(_cast(array, type_))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"column {name!r} of {source} cannot be read as {type_}: {error}",
                code="unreadable",
                location=Location(source, column=name),
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=list(wanted))


def _has_other_zone(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether stamps carry a zone where none is wanted, or none where one is."""
    is_time = pa.types.is_timestamp(found) or pa.types.is_date(found)
    if not (is_time and pa.types.is_timestamp(wanted)):
        return False
    return (getattr(found, "tz", None) is None) != (wanted.tz is None)


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast to what is wanted; decimals go to floats through doubles, and texts stay texts.

    Bytes are texts only where they are UTF-8, which a cast that is not safe does not ask.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()  # the dictionary may hold what no row has
    if pa.types.is_dictionary(type_):
        return _cast(array, type_.value_type).dictionary_encode()
    if is_text(array.type) and pa.types.is_timestamp(type_):
        return array
    if pa.types.is_decimal(array.type) and pa.types.is_floating(type_):
        array = array.cast(pa.float64())
    is_bytes = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    return array.cast(type_, safe=is_bytes)
