"""All rows of a source, in its own order, as flat chunks: time, which series, readings.

Between `reading`, which gives Arrow batches, and `placing`, which finds each row's place.
A chunk is dropped as soon as it has been placed, so that the readings are held twice only for a
moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data import levels
from rnnforecast.data.badrows import report_skipped
from rnnforecast.data.columns import is_digits
from rnnforecast.data.dialect import quote
from rnnforecast.data.filestates import watching
from rnnforecast.data.memory import check_memory
from rnnforecast.data.panel import Doubles, Floats, Integers
from rnnforecast.data.reading import Source
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.data.stamps import StampReader, localise
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Progressed, Warned

_FIRST_ROWS = 1 << 6
_CHUNK_ROWS = 1 << 20
_MOST_TEXTS = 10_000
_EXACT = 2.0**53
"""Up to this, doubles hold every whole number."""
_MOST = 1e30
"""No sensor reads more, and squares of more do not fit into float32 sums."""


@dataclass
class Rows:
    """All rows of a source as flat chunks, in the order of the file."""

    times: list[Integers]
    codes: list[NDArray[np.integer]]
    """Which series each row belongs to; all 0 for a wide table."""
    values: list[list[Floats]]
    """One list of chunks for each target, less the base."""
    base: list[Doubles]
    """For each target, `(series,)`: one for a wide table."""
    names: list[str]
    covariates: dict[str, list[Floats]] = field(default_factory=dict)
    """The chunks of each covariate; of texts their numbers."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """The texts of each covariate that holds such, in order of appearance."""

    @property
    def n_series(self) -> int:
        """How many series the codes tell apart."""
        return len(self.base[0])


class _Growing:
    """An array that grows at its end; its chunks are views of it, and it goes with the last."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._array = np.empty(_FIRST_ROWS, dtype)
        self._n = 0

    def widen(self, dtype: type[np.generic]) -> None:
        """Hold values of another type from here on."""
        if self._array.dtype != dtype:
            wide = np.empty(len(self._array), dtype)
            wide[: self._n] = self._array[: self._n]
            self._array = wide

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


def read_rows(
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    known_base: Mapping[str, float],
) -> tuple[Rows, str | None]:
    """Read the columns that a schema names; return them with the zone that the stamps carry.

    `known_base` is what a model subtracts from the series that it knows. Raises `DataError` for a
    reading that is not finite.
    """
    stamps = StampReader.of(source, schema, config)
    wanted = {schema.time: stamps.arrow_type}
    if schema.series:
        wanted[schema.series] = pa.dictionary(pa.int32(), pa.string())
    wanted.update({name: pa.float64() for name in schema.targets})
    beside = _Beside(schema.covariates)
    wanted.update(beside.wanted)
    times, codes = _Growing(np.int64), _Growing(np.int16)
    values = [
        _Growing(np.float64 if name in config.counter else np.float32) for name in schema.targets
    ]
    known: dict[str, int] = {}
    largest = dict.fromkeys(schema.targets, 0.0)
    n_before, n_about = 0, source.n_rows_about
    n_columns = len(schema.targets) + len(schema.covariates)
    check_memory(n_about, n_columns, config, source.name)
    listener(_progress(0, n_about))
    for batch in _watched(source, wanted, schema, listener):
        read = stamps.read(batch.column(schema.time), n_before)
        times.append(read)
        numbers = _codes(batch, schema, known, source, n_before)
        if len(known) > np.iinfo(np.int16).max:
            codes.widen(np.int32)
        codes.append(numbers)
        for growing, name in zip(values, schema.targets, strict=True):
            readings = batch.column(name).to_numpy(zero_copy_only=False)
            readings = _without(readings, config)
            largest[name] = max(largest[name], _largest(readings, name, source, n_before))
            if largest[name] >= levels.LARGE:
                growing.widen(np.float64)
            growing.append(readings)
        beside.append(batch, config, source, n_before)
        n_before += batch.num_rows
        check_memory(n_before, n_columns, config, source.name)
        listener(_progress(n_before, n_about))
    listener(_progress(n_before, n_before))
    report_skipped(source.rejected(), n_before, config, listener)
    _warn_of_lost_digits(source, largest, listener)
    for what, count in stamps.repairs.items():
        listener(Warned("repaired-time", f"{what}, {count} times", count))
    names = list(known) if schema.series else list(schema.targets)
    rows = Rows(times.chunks(), codes.chunks(), [], [], names, beside.chunks(), beside.texts)
    for growing, name in zip(values, schema.targets, strict=True):
        own = names if schema.series else [name]
        if name in config.counter:
            rows.base.append(np.zeros(len(own)))
            rows.values.append(growing.chunks())
        else:
            _append_values(rows, growing.chunks(), own, known_base)
    if config.tz and not stamps.zone.is_aware:
        locate = partial(source.location, column=schema.time)
        rows.times = localise(rows.times, rows.codes, config.tz, locate)
        return rows, config.tz
    return rows, stamps.zone.name


def _progress(n_rows: int, n_about: int) -> Progressed:
    return Progressed("reading", n_rows, max(n_rows, n_about), "rows")


def _without(readings: Doubles, config: DataConfig) -> Doubles:
    """Take for missing what the user says, as a number too: -200 is also -200.0."""
    if not (config.inf_as_na or config.missing_numbers):
        return readings
    is_missing = np.isin(readings, config.missing_numbers)
    if config.inf_as_na:
        is_missing |= np.isinf(readings)
    return np.where(is_missing, np.nan, readings)


def _watched(
    source: Source, wanted: dict[str, pa.DataType], schema: Schema, listener: Listener
) -> Iterator[pa.RecordBatch]:
    with watching(source.paths, listener):
        try:
            yield from source.batches(wanted)
        except DataError as error:
            column = error.location and error.location.column
            if error.code == "not-a-number" and column in schema.covariate_names:
                error.hint = f"if its values are names, add  --categorical {quote(str(column))} ; "
                error.hint += "else name what means missing with  --na-values"
            raise


class _Beside:
    """The columns that stand beside the readings, while they are read."""

    def __init__(self, covariates: tuple[Covariate, ...]) -> None:
        self.wanted = {c.name: pa.string() if c.is_text else pa.float64() for c in covariates}
        self.texts: dict[str, list[str]] = {c.name: [] for c in covariates if c.is_text}
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in self.texts}
        self._growing = {c.name: _Growing(np.float32) for c in covariates}

    def append(
        self, batch: pa.RecordBatch, config: DataConfig, source: Source, n_before: int
    ) -> None:
        """Add a batch's values: numbers as they are, texts by their numbers, NaN where missing."""
        for name, growing in self._growing.items():
            if name in self.texts:
                growing.append(self._coded(name, batch.column(name), source))
            else:
                values = _without(batch.column(name).to_numpy(zero_copy_only=False), config)
                _largest(values, name, source, n_before)
                growing.append(values)

    def chunks(self) -> dict[str, list[Floats]]:
        """Return all that was appended."""
        return {name: growing.chunks() for name, growing in self._growing.items()}

    def _coded(self, name: str, column: pa.Array, source: Source) -> Doubles:
        encoded = column.dictionary_encode()
        numbers = self._numbers[name]
        for text in encoded.dictionary.to_pylist():
            if text not in numbers:
                numbers[text] = len(numbers)
                self.texts[name].append(text)
        if len(numbers) > _MOST_TEXTS:
            raise DataError(
                f"column {name!r} holds more than {_MOST_TEXTS} different texts",
                code="too-many-categories",
                location=Location(source.name, column=name),
                hint="leave it out, or put its texts into groups",
            )
        own = np.array([numbers[text] for text in encoded.dictionary.to_pylist()] or [0], float)
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(float)
        return np.where(np.isnan(codes), np.nan, own[np.nan_to_num(codes).astype(np.int64)])


def _append_values(
    rows: Rows, chunks: list[Doubles], names: list[str], known_base: Mapping[str, float]
) -> None:
    """Add one target's readings, less their base."""
    if chunks and chunks[0].dtype == np.float64:
        found = levels.find_base(rows.times, rows.codes, chunks, n_series=len(names))
    else:
        found = np.zeros(len(names))
    base = levels.known_base(names, found, known_base) if known_base else found
    rows.base.append(base)
    rows.values.append(levels.subtract_base(rows.codes, chunks, base))


def _largest(readings: Doubles, name: str, source: Source, n_before: int) -> float:
    """Return the largest size of these readings; raise `DataError` for one that is no reading."""
    sizes = np.abs(readings)
    most = float(np.fmax.reduce(sizes, initial=0.0))
    if most <= _MOST:
        return most
    location = source.location(n_before + int(np.argmax(sizes > _MOST)), name)
    what = "infinite" if np.isinf(most) else f"larger than {_MOST:g}"
    raise DataError(
        f"column {name!r} holds a value that is {what}",
        code="infinite",
        location=location,
        hint="to treat such values as missing, add  --inf-as-na"
        if np.isinf(most)
        else f"to treat it as missing, add  --na-values {quote(location.token)}"
        if location.token
        else "remove the value, or make it a missing one",
    )


def _warn_of_lost_digits(source: Source, largest: Mapping[str, float], listener: Listener) -> None:
    """Say which columns hold whole numbers that doubles round, such as ids and keys."""
    rounded = [
        column.name
        for column in source.columns
        if largest.get(column.name, 0.0) > _EXACT and all(map(is_digits, column.sample))
    ]
    if rounded:
        what = "whole numbers above 2^53, whose last digits are lost"
        listener(Warned.naming("lost-digits", what, rounded))


def _codes(
    batch: pa.RecordBatch, schema: Schema, known: dict[str, int], source: Source, n_before: int
) -> NDArray[np.int32]:
    """Return the number of each row's series, in order of first appearance."""
    if schema.series is None:
        return np.zeros(batch.num_rows, np.int32)
    encoded = batch.column(schema.series).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    is_missing = encoded.is_null()
    if "" in names:
        is_missing = pc.or_(is_missing, pc.equal(encoded.indices, names.index("")).fill_null(True))
    if pc.any(is_missing).as_py():
        row = int(np.argmax(is_missing.to_numpy(zero_copy_only=False)))
        raise DataError(
            f"a row has no series name in column {schema.series!r}",
            code="missing-series",
            location=source.location(n_before + row, schema.series),
            hint="fill it in, or remove the row",
        )
    numbers = [known.setdefault(name, len(known)) for name in names]
    codes: NDArray[np.int32] = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
    return codes
