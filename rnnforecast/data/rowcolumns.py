"""The columns of a table while its rows are read: which series, the readings, what stands beside.

Below `rows`, which reads them all, batch by batch. Each says which Arrow types it wants, and takes
a batch at a time with the number of rows before it, so that an error names the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data import levels
from rnnforecast.data.growing import Growing
from rnnforecast.data.panel import Doubles, Floats, Integers
from rnnforecast.data.schema import Covariate
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.columns import is_digits
from rnnforecast.sources.dialect import quote
from rnnforecast.sources.reading import Source

_MOST_TEXTS = 10_000
_EXACT = 2.0**53
"""Up to this, doubles hold every whole number."""
_MOST = 1e30
"""No sensor reads more, and squares of more do not fit into float32 sums."""


class SeriesColumn:
    """The column that names the series of a long table; in a wide one there is none."""

    def __init__(self, column: str | None, source: Source) -> None:
        self._column = column
        self._source = source
        self._codes = Growing(np.int16)
        self._known: dict[str, int] = {}

    @property
    def wanted(self) -> dict[str, pa.DataType]:
        """The type to read it as."""
        return {self._column: pa.dictionary(pa.int32(), pa.string())} if self._column else {}

    @property
    def names(self) -> list[str]:
        """The series' names, in order of first appearance."""
        return list(self._known)

    def append(self, batch: pa.RecordBatch, n_before: int) -> None:
        """Add the number of each row's series; raise `DataError` for a row without a name."""
        codes = self._coded(batch, n_before)
        if len(self._known) > np.iinfo(np.int16).max:
            self._codes.widen(np.int32)
        self._codes.append(codes)

    def chunks(self) -> list[NDArray[np.integer]]:
        """Return the numbers of all rows' series."""
        return self._codes.chunks()

    def _coded(self, batch: pa.RecordBatch, n_before: int) -> NDArray[np.int32]:
        if self._column is None:
            return np.zeros(batch.num_rows, np.int32)
        encoded = encode_names(batch.column(self._column), self._column, self._source, n_before)
        names = encoded.dictionary.to_pylist()
        numbers = [self._known.setdefault(name, len(self._known)) for name in names]
        codes: NDArray[np.int32] = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
        return codes


def encode_names(column: pa.Array, name: str, source: Source, n_before: int) -> pa.DictionaryArray:
    """Return series' names as a dictionary and each row's number in it.

    Raises `DataError` for a row without a name.
    """
    encoded = column.dictionary_encode()
    is_missing = encoded.is_null()
    empty = pc.index(encoded.dictionary, "").as_py()
    if empty >= 0:
        is_empty = pc.equal(encoded.indices, empty)
        is_missing = pc.or_(is_missing, is_empty.fill_null(True))
    if pc.any(is_missing).as_py():
        row = int(np.argmax(is_missing.to_numpy(zero_copy_only=False)))
        raise DataError(
            f"a row has no series name in column {name!r}",
            code="missing-series",
            location=source.location(n_before + row, name),
            hint="fill it in, or remove the row",
        )
    return encoded


class TargetColumns:
    """The readings: float32, and double from where float32 would blur them."""

    def __init__(self, names: Sequence[str], source: Source, config: DataConfig) -> None:
        self.wanted = dict.fromkeys(names, pa.float64())
        self._source = source
        self._config = config
        self._largest = dict.fromkeys(names, 0.0)
        self._growing = {
            name: Growing(np.float64 if name in config.counter else np.float32) for name in names
        }

    def append(self, batch: pa.RecordBatch, n_before: int) -> None:
        """Add a batch's readings; raise `DataError` for one that is infinite."""
        for name, growing in self._growing.items():
            readings, largest = _believed(batch, name, self._source, self._config, n_before)
            self._largest[name] = max(self._largest[name], largest)
            if largest >= levels.LARGE:
                growing.widen(np.float64)
            growing.append(readings)

    def chunks(
        self,
        times: Sequence[Integers],
        codes: Sequence[NDArray[np.integer]],
        names: Mapping[str, Sequence[str]],
        known_base: Mapping[str, float],
    ) -> tuple[list[list[Floats]], list[Doubles]]:
        """Return each target's readings less their base, and the base, `(series,)`.

        `names` are each target's series. What counts up has no base: its differences are what is
        forecast.
        """
        values, bases = [], []
        for name, growing in self._growing.items():
            chunks, base = growing.chunks(), np.zeros(len(names[name]))
            if name not in self._config.counter:
                if chunks and chunks[0].dtype == np.float64:
                    base = levels.find_base(times, codes, chunks, n_series=len(base))
                if known_base:
                    base = levels.known_base(names[name], base, known_base)
                chunks = levels.subtract_base(codes, chunks, base)
            values.append(chunks)
            bases.append(base)
        return values, bases

    def warn_of_lost_digits(self, listener: Listener) -> None:
        """Say which columns hold whole numbers that doubles round, such as ids and keys."""
        rounded = [
            column.name
            for column in self._source.columns
            if self._largest.get(column.name, 0.0) > _EXACT and all(map(is_digits, column.sample))
        ]
        if rounded:
            what = "whole numbers above 2^53, whose last digits are lost"
            listener(Warned.naming("lost-digits", what, rounded))


class CovariateColumns:
    """The columns that stand beside the readings: numbers, and texts by their numbers."""

    def __init__(self, covariates: Sequence[Covariate], source: Source, config: DataConfig) -> None:
        self.wanted = {c.name: pa.string() if c.is_text else pa.float64() for c in covariates}
        self.texts: dict[str, list[str]] = {c.name: [] for c in covariates if c.is_text}
        """The texts of each column that holds such, in order of appearance."""
        self._source = source
        self._config = config
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in self.texts}
        self._growing = {c.name: Growing(np.float32) for c in covariates}

    def append(self, batch: pa.RecordBatch, n_before: int) -> None:
        """Add a batch's values, NaN where missing."""
        for name, growing in self._growing.items():
            if name in self.texts:
                growing.append(self._coded(name, batch.column(name)))
            else:
                values, largest = _believed(batch, name, self._source, self._config, n_before)
                if largest >= levels.LARGE:
                    growing.widen(np.float64)
                growing.append(values)

    def chunks(self) -> dict[str, list[Floats]]:
        """Return all that was appended."""
        return {name: growing.chunks() for name, growing in self._growing.items()}

    def _coded(self, name: str, column: pa.Array) -> Doubles:
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
                location=Location(self._source.name, column=name),
                hint="leave it out, or put its texts into groups",
            )
        own = np.array([numbers[text] for text in encoded.dictionary.to_pylist()] or [0], float)
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(float)
        return np.where(np.isnan(codes), np.nan, own[np.nan_to_num(codes).astype(np.int64)])


def _believed(
    batch: pa.RecordBatch, name: str, source: Source, config: DataConfig, n_before: int
) -> tuple[Doubles, float]:
    """Return a column's numbers, NaN where missing, and the largest size of them.

    What the user takes for missing is so as a number, too: -200 is also -200.0. Raises `DataError`
    for one that is no reading.
    """
    readings: Doubles = batch.column(name).to_numpy(zero_copy_only=False)
    if config.inf_as_na or config.missing_numbers:
        is_missing = np.isin(readings, config.missing_numbers)
        if config.inf_as_na:
            is_missing |= np.isinf(readings)
        readings = np.where(is_missing, np.nan, readings)
    sizes = np.abs(readings)
    largest = float(np.fmax.reduce(sizes, initial=0.0))
    if largest > _MOST:
        location = source.location(n_before + int(np.argmax(sizes > _MOST)), name)
        raise _no_reading(location, name, largest)
    return readings, largest


def _no_reading(location: Location, name: str, largest: float) -> DataError:
    what = "infinite" if np.isinf(largest) else f"larger than {_MOST:g}"
    hint = "remove the value, or make it a missing one"
    if np.isinf(largest):
        hint = "to treat such values as missing, add  --inf-as-na"
    elif location.token:
        hint = f"to treat it as missing, add  --na-values {quote(location.token)}"
    message = f"column {name!r} holds a value that is {what}"
    return DataError(message, code="infinite", location=location, hint=hint)
