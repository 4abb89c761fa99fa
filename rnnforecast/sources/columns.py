"""The kind of values in a column, inferred from its cells, and casts to Arrow types."""

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
_MAX_SAMPLE = 1000
_NUMERIC_SHARE = 0.5
"""A column with this share of numbers counts as numbers: cells that are none are errors then."""
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
"""Numbers are taken for times only between 1990 and 2100."""


@dataclass(frozen=True)
class Column:
    """One column of a source."""

    name: str
    kind: Kind
    sample: tuple[str, ...] = ()
    """Its first values as text, without missing ones."""
    is_typed: bool = False
    """Whether the file declares these as times, as Parquet does."""
    tz: str | None = None
    """The time zone that the file declares for them."""
    is_series: bool = False
    """Whether it is known to name the series, as in a folder of buckets."""


def infer_text_column(
    name: str, cells: Sequence[str], *, is_number: Callable[[str], bool]
) -> Column:
    """Infer the kind of a column from its text cells, without missing ones.

    A column most of whose cells are numbers counts as numbers, so that the others are an error with
    a line number, and the column is not silently left out.
    """
    sample = tuple(cells[:_MAX_SAMPLE])
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
    """Tell whether a cell is a number with this decimal mark and this thousands separator."""
    return number_pattern(decimal, thousands).fullmatch(text.strip(" \t")) is not None


@cache
def number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """Return the regular expression of a number."""
    mark, digits = re.escape(decimal), r"\d+"
    if thousands is not None:
        digits = rf"(?:\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    pattern = rf"[+-]?(?:{digits}(?:{mark}\d*)?|{mark}\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity)"
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


def is_integer(text: str) -> bool:
    """Tell whether a cell is an integer, written without a decimal point or an exponent."""
    bare = text.strip().removeprefix("-")
    return bare.isascii() and bare.isdigit()


def is_date(text: str) -> bool:
    """Tell whether a cell looks like a date, with or without a time of day."""
    return _DATE.fullmatch(text) is not None


def is_unit(text: str) -> bool:
    """Tell whether a cell looks like a unit: in brackets, with a sign such as °, or a known one."""
    bare = text.strip()
    in_brackets = bare[:1] in tuple("[(") and bare[-1:] in tuple(")]")
    return (
        in_brackets or any(sign in bare for sign in "°%µ²³/") or _UNIT.fullmatch(bare) is not None
    )


def is_time_of_day(text: str) -> bool:
    """Tell whether a cell looks like a time of day without a date."""
    return _TIME_OF_DAY.fullmatch(text) is not None


def infer_epoch_unit(values: Sequence[float]) -> str | None:
    """Return the unit in which all values are times between 1990 and 2100; None if not just one."""
    units = [
        unit
        for unit, factor in EPOCH_UNITS_US.items()
        if values and all(EPOCH_1990_US <= value * factor < EPOCH_2100_US for value in values)
    ]
    return units[0] if len(units) == 1 else None


def is_text(type_: pa.DataType) -> bool:
    """Tell whether a type is one of the string types."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def cast_batch(batch: pa.RecordBatch, types: dict[str, pa.DataType], source: str) -> pa.RecordBatch:
    """Return the columns that `types` names, cast. Raises `DataError` where that is impossible."""
    arrays = []
    for name, type_ in types.items():
        array = batch.column(name)

        is_time = pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)
        if is_time and pa.types.is_timestamp(type_):
            has_zone = getattr(array.type, "tz", None) is not None
            if has_zone != (type_.tz is not None):
                raise DataError(
                    f"the stamps in column {name!r} of {source} carry "
                    + ("a zone, but others carry none" if has_zone else "no zone, but others do"),
                    code="mixed-zones",
                    location=Location(source, column=name),
                    hint="write all of them with a zone, or all without one; --tz names the zone "
                    "of stamps that carry none",
                )

        try:
            arrays.append(_cast(array, type_))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"column {name!r} of {source} cannot be read as {type_}: {error}",
                code="unreadable",
                location=Location(source, column=name),
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=list(types))


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast an array; decimals become floats by way of doubles, and texts of times stay texts.

    Bytes become texts only where they are UTF-8, which an unsafe cast does not check.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()  # the dictionary may hold values that no row has
    if pa.types.is_dictionary(type_):
        return _cast(array, type_.value_type).dictionary_encode()
    if is_text(array.type) and pa.types.is_timestamp(type_):
        return array

    if pa.types.is_decimal(array.type) and pa.types.is_floating(type_):
        array = array.cast(pa.float64())
    is_bytes = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    return array.cast(type_, safe=is_bytes)
