"""Columns as the types that are wanted: what can be cast, and what is an error.

Apart from `parquetfile`, whose columns come as they were stored, as it is done for tables, too.
"""

from __future__ import annotations

import pyarrow as pa

from rnnforecast.errors import DataError, Location


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
