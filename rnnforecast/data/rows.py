"""All rows of a source, in its own order, as flat chunks: time, which series, readings.

Between `reading`, which gives Arrow batches, and `placing`, which finds each row's place.
A chunk is dropped as soon as it has been placed, so that the readings are held twice only for a
moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.config import DataConfig
from rnnforecast.data.dialect import quote
from rnnforecast.data.panel import Floats, Integers
from rnnforecast.data.reading import Source
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import StampReader, localise
from rnnforecast.errors import DataError

_FIRST_ROWS = 1 << 12
_CHUNK_ROWS = 1 << 20


@dataclass
class Rows:
    """All rows of a source as flat chunks, in the order of the file."""

    times: list[Integers]
    codes: list[NDArray[np.int32]]
    """Which series each row belongs to; all 0 for a wide table."""
    values: list[list[Floats]]
    """One list of chunks for each target."""
    names: list[str]


class _Growing:
    """An array that grows at its end; its chunks are views of it, and it goes with the last."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._array = np.empty(_FIRST_ROWS, dtype)
        self._n = 0

    def append(self, values: NDArray[np.generic]) -> None:
        """Copy values to the end, cast to the array's type."""
        end = self._n + len(values)
        if end > len(self._array):
            self._array.resize(max(end, 2 * len(self._array)), refcheck=False)
        self._array[self._n : end] = values
        self._n = end

    def chunks(self) -> list[NDArray[Any]]:
        """Return all that was appended, in chunks of the same lengths for every column."""
        self._array.resize(self._n, refcheck=False)
        return [self._array[i : i + _CHUNK_ROWS] for i in range(0, self._n, _CHUNK_ROWS)]


def first_times(rows: Rows) -> Integers:
    """`(series,)`: the earliest time of each series."""
    n_series = max((int(c.max(initial=0)) for c in rows.codes), default=0) + 1
    first = np.full(n_series, np.iinfo(np.int64).max)
    for times, codes in zip(rows.times, rows.codes, strict=True):
        np.minimum.at(first, codes, times)
    return first


def read_rows(source: Source, schema: Schema, config: DataConfig) -> tuple[Rows, str | None]:
    """Read the columns that a schema names; return them with the zone that the stamps carry."""
    stamps = StampReader.of(source, schema)
    wanted = {schema.time: stamps.arrow_type}
    if schema.series:
        wanted[schema.series] = pa.string()
    wanted.update({name: pa.float32() for name in schema.targets})
    times, codes = _Growing(np.int64), _Growing(np.int32)
    values = [_Growing(np.float32) for _ in schema.targets]
    known: dict[str, int] = {}
    n_before = 0
    for batch in source.batches(wanted):
        times.append(stamps.read(batch.column(schema.time), n_before))
        codes.append(_codes(batch, schema, known, source, n_before))
        for growing, name in zip(values, schema.targets, strict=True):
            growing.append(batch.column(name).to_numpy(zero_copy_only=False))
        n_before += batch.num_rows
    names = list(known) if schema.series else list(schema.targets)
    rows = Rows(times.chunks(), codes.chunks(), [v.chunks() for v in values], names)
    if config.tz and not stamps.zone.is_aware:
        rows.times = localise(rows.times, rows.codes, config.tz)
        return rows, config.tz
    return rows, stamps.zone.name


def _codes(
    batch: pa.RecordBatch, schema: Schema, known: dict[str, int], source: Source, n_before: int
) -> NDArray[np.int32]:
    """Return the number of each row's series, in order of first appearance."""
    if schema.series is None:
        return np.zeros(batch.num_rows, np.int32)
    encoded = batch.column(schema.series).dictionary_encode()
    if encoded.null_count:
        row = int(np.flatnonzero(encoded.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"a row has no series name in column {schema.series!r}",
            code="missing-series",
            location=source.location(n_before + row, schema.series),
            hint="fill it in, or remove the row",
        )
    numbers = [known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()]
    codes: NDArray[np.int32] = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
    return codes


def reject_infinite(rows: Rows, source: Source, schema: Schema) -> None:
    """Raise `DataError` for the first reading that is not finite."""
    for name, chunks in zip(schema.targets, rows.values, strict=True):
        n_before = 0
        for chunk in chunks:
            infinite = np.isinf(chunk)
            if infinite.any():
                location = source.location(n_before + int(np.argmax(infinite)), name)
                token = location.token
                raise DataError(
                    f"column {name!r} holds a value that is infinite",
                    code="infinite",
                    location=location,
                    hint=f"to treat it as missing, add  --na-values {quote(token)}"
                    if token
                    else "remove the value, or make it a missing one",
                )
            n_before += len(chunk)
