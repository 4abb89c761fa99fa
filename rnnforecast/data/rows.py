"""All rows of a source as flat arrays: times, series codes, values, covariates.

They are read in the order of the file, cut at an as-of time, and placed on a grid by `resample`.
The readings are held twice only for a moment: a chunk is dropped once it has been placed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, pick
from rnnforecast.data.future import plan_of
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.data.timestamps import REPAIRS, StampReader, format_stamp, localise, parse_time_us
from rnnforecast.errors import DataError, Location, NotEnoughDataError
from rnnforecast.events import Listener, Progressed, Warned
from rnnforecast.sources.columns import Column, is_digits
from rnnforecast.sources.csv import report_skipped
from rnnforecast.sources.files import check_memory, watching
from rnnforecast.sources.sniff import quote
from rnnforecast.sources.source import Source, WrappedSource
from rnnforecast.units import format_duration

_MOST_TEXTS = 10_000
_EXACT = 2.0**53
"""Up to this, doubles hold every whole number."""
_MOST = 1e30
"""No sensor reads more, and squares of more do not fit into float32 sums."""
_FIRST_ROWS = 1 << 6
_CHUNK_ROWS = 1 << 20
LARGE = 65_536.0
"""Below this, float32 is exact to 0.004 or better."""
_EARLIEST = 5
Chunks = Sequence[NDArray[Any]]
_EASTERNMOST_US = 14 * 3_600_000_000
"""Clocks on the wall are ahead of UTC by this at most."""


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
    plan: str = ""
    """What messages call the plan whose rows come last."""
    n_planned: int = 0
    """How many rows of a plan there are."""

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.times))

    @property
    def n_series(self) -> int:
        """How many series the codes tell apart."""
        return len(self.base[0])


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
    stamps, times = StampReader.of(source, schema, config), Growing(np.int64)
    series = SeriesColumn(schema.series, source)
    targets = TargetColumns(schema.targets, source, config)
    beside = CovariateColumns(schema.covariates, source, config)
    wanted = {schema.time: stamps.arrow_type, **series.wanted, **targets.wanted, **beside.wanted}
    n_rows = 0
    for batch in _watched(source, wanted, schema, config, listener):
        times.append(stamps.read(batch.column(schema.time), n_rows))
        for columns in (series, targets, beside):
            columns.append(batch, n_rows)
        n_rows += batch.num_rows
    report_skipped(source.rejected(), n_rows, config, listener)
    targets.warn_of_lost_digits(listener)
    for code, count in stamps.repairs.items():
        what = f"{REPAIRS[code]} ({count} stamp{'s' * (count > 1)})"
        listener(Warned(code, what, count))
    names = series.names if schema.series else list(schema.targets)
    own = {name: names if schema.series else [name] for name in schema.targets}
    when, codes = times.chunks(), series.chunks()
    values, base = targets.chunks(when, codes, own, known_base)
    rows = Rows(when, codes, values, base, names, beside.chunks(), beside.texts)
    plan = plan_of(source)
    if plan is not None:
        rows.plan, rows.n_planned = plan.source.name, len(plan.rows)
    return rows, _localised(rows, stamps, config.tz)


def _localised(rows: Rows, stamps: StampReader, tz: str | None) -> str | None:
    """Read wall-clock times in the zone that the user names, in place; return the zone of all."""
    if tz is None or stamps.zone.is_aware:
        return stamps.zone.name
    locate = partial(stamps.source.location, column=stamps.schema.time)
    n_instants = sum(stamps.instants)
    rows.times = localise(rows.times, rows.codes, tz, locate, n_instants=n_instants)
    return tz


def _watched(
    source: Source,
    wanted: dict[str, pa.DataType],
    schema: Schema,
    config: DataConfig,
    listener: Listener,
) -> Iterator[pa.RecordBatch]:
    """Read batches while files, memory and progress are watched."""
    n_rows, n_about = 0, source.n_rows_about
    n_columns = len(schema.targets) + len(schema.covariates)
    check_memory(n_about, n_columns, config, source.name)
    listener(_progress(0, n_about))
    with watching(source.paths, listener):
        try:
            for batch in source.batches(wanted):
                yield batch
                n_rows += batch.num_rows
                check_memory(n_rows, n_columns, config, source.name)
                listener(_progress(n_rows, n_about))
        except DataError as error:
            column = error.location and error.location.column
            is_settled = schema.step_us is not None  # a model knows which columns are names
            if error.code == "not-a-number" and column in schema.covariate_names and not is_settled:
                error.hint = f"if its values are names, add  --categorical {quote(str(column))} ; "
                error.hint += "else name what means missing with  --na-values"
            raise
    listener(_progress(n_rows, n_rows))


def _progress(n_rows: int, n_about: int) -> Progressed:
    return Progressed("reading", n_rows, max(n_rows, n_about), "rows")


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
            if largest >= LARGE:
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
                    base = find_base(times, codes, chunks, n_series=len(base))
                if known_base:
                    base = keep_known_base(names[name], base, known_base)
                chunks = subtract_base(codes, chunks, base)
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
                if largest >= LARGE:
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


class Growing:
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


def find_base(
    times: Sequence[Integers],
    codes: Sequence[NDArray[np.integer]],
    values: Sequence[Doubles],
    *,
    n_series: int,
) -> Doubles:
    """`(series,)`: the median of each series' five earliest readings where that is large, else 0.

    `times`, `codes` (which series) and `values` are chunks, `(row,)` each; missing readings do not
    count.
    """
    most = np.zeros(n_series)
    for code, chunk in zip(codes, values, strict=True):
        np.fmax.at(most, code, np.abs(chunk))
    is_candidate = most >= LARGE
    base = np.zeros(n_series)
    if not is_candidate.any():
        return base
    rows = [is_candidate[c] & np.isfinite(v) for c, v in zip(codes, values, strict=True)]

    def pick(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([part[chosen] for part, chosen in zip(parts, rows, strict=True)])

    time, code, value = pick(times), pick(codes), pick(values)
    order = np.lexsort((time, code))
    code, value = code[order], value[order]
    place = np.arange(len(code)) - np.searchsorted(code, code)
    early = place < _EARLIEST
    table = np.full((n_series, _EARLIEST), np.nan)
    table[code[early], place[early]] = value[early]
    level = np.nanmedian(table[is_candidate], axis=1)
    base[is_candidate] = np.where(np.abs(level) >= LARGE, np.rint(level), 0.0)
    return base


def keep_known_base(names: Sequence[str], found: Doubles, known: Mapping[str, float]) -> Doubles:
    """Return the base that a model has for a series, and the one found for all others."""
    return np.array([known.get(name, own) for name, own in zip(names, found, strict=True)])


def subtract_base(
    codes: Sequence[NDArray[np.integer]], values: Sequence[Doubles], base: Doubles
) -> list[Floats]:
    """Return the chunks of readings, `(row,)`, less the base of their series, as float32."""
    if not base.any():
        return [chunk.astype(np.float32, copy=False) for chunk in values]
    return [
        (chunk - base[code]).astype(np.float32) for code, chunk in zip(codes, values, strict=True)
    ]


def base_of_column(times: Sequence[Integers], values: Sequence[NDArray[Any]]) -> float:
    """Return the base of a column that all series share: that of its five earliest values."""
    if not values or values[0].dtype != np.float64:
        return 0.0
    one = [np.zeros(len(chunk), np.int16) for chunk in times]
    return float(find_base(times, one, values, n_series=1)[0])


@dataclass(frozen=True)
class _Kept(WrappedSource):
    """A source of which some rows are kept, `(row,)` in chunks: errors name their own lines."""

    kept: Chunks

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them."""
        return self.source.columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read all rows."""
        return self.source.batches(wanted)

    def location(self, row: int, column: str) -> Location:
        """Say where one of the rows that are kept stands."""
        for n_before, kept in zip(self._n_before(), self.kept, strict=True):
            own = np.flatnonzero(kept)
            if row < len(own):
                return self.source.location(n_before + int(own[row]), column)
            row -= len(own)
        return self.source.location(row, column)

    def _n_before(self) -> list[int]:
        return [0, *np.cumsum([len(kept) for kept in self.kept]).tolist()][:-1]


def rows_until(
    rows: Rows, source: Source, as_of: str, schema: Schema, tz: str | None
) -> tuple[Rows, Source]:
    """Return the rows up to a moment, and later ones only for what they tell ahead.

    With them comes a source that knows where they stand. Raises `NotEnoughDataError` where there
    is none.
    """
    until_us = parse_time_us(as_of, tz)
    is_late = [times > until_us for times in rows.times]
    has_begun = np.zeros(rows.n_series, np.bool_)
    for codes, late in zip(rows.codes, is_late, strict=True):
        has_begun[codes[~late]] = True
    if not has_begun.any():
        first = format_stamp(min(int(times.min()) for times in rows.times), tz)
        raise NotEnoughDataError(
            f"--as-of {as_of} lies before the first reading, {first}",
            code="too-short",
            hint="pass a later time",
        )
    known = {c.name for c in schema.covariates if c.role == "known"}
    if known:
        later_known = [chunks for name, chunks in rows.covariates.items() if name not in known]
        for chunks in (*rows.values, *later_known):
            for chunk, late in zip(chunks, is_late, strict=True):
                chunk[late] = np.nan
        kept = [has_begun[codes] for codes in rows.codes]
    else:
        kept = [~late for late in is_late]
    chosen = _chosen(rows, kept, has_begun, is_long=schema.series is not None)
    return chosen, _Kept(source, kept)


def _chosen(rows: Rows, kept: Chunks, series: NDArray[np.bool_], *, is_long: bool) -> Rows:
    """Return some rows, of some series only, with these numbered anew."""
    number = np.cumsum(series) - 1
    n_planned = _n_last(kept, rows.n_planned)

    def those(chunks: Chunks, change: Callable[[Any], Any] = lambda x: x) -> list[NDArray[Any]]:
        return [change(c[k]) for c, k in zip(chunks, kept, strict=True) if k.any()]

    return Rows(
        those(rows.times),
        those(rows.codes, lambda codes: number[codes]),
        [those(chunks) for chunks in rows.values],
        [base[series] for base in rows.base],
        list(pick(rows.names, series)) if is_long else rows.names,
        {name: those(chunks) for name, chunks in rows.covariates.items()},
        rows.texts,
        rows.plan,
        n_planned,
    )


def _n_last(kept: Chunks, n: int) -> int:
    """Return how many of the last n rows, counted over all chunks, are kept."""
    found = 0
    for chunk in reversed(kept):
        last = chunk[max(len(chunk) - n, 0) :]
        n -= len(last)
        found += int(np.count_nonzero(last))
    return found


def judge_future(
    rows: Rows, step_us: int, source: Source, schema: Schema, listener: Listener, *, is_aware: bool
) -> None:
    """Warn of readings up to a step ahead; raise `DataError` for one further ahead.

    Without a zone a time has come if it has in any. Rows without a reading may lie ahead: they hold
    what is known of the future.
    """
    now_us = time.time_ns() // 1000 + (0 if is_aware else _EASTERNMOST_US)
    n_before = n_early = 0
    for i, times in enumerate(rows.times):
        late = np.flatnonzero(times > now_us)
        if len(late):
            there = np.any([np.isfinite(chunks[i][late]) for chunks in rows.values], axis=0)
            late = late[there]
            far = late[times[late] > now_us + step_us]
            if len(far):
                raise DataError(
                    "a reading has a time that has not come yet",
                    code="future",
                    location=source.location(n_before + int(far[0]), schema.time),
                    hint="correct the clock of the sensor; if it is meant, add  --allow-future",
                )
            n_early += len(late)
        n_before += len(times)
    if n_early:
        what = f"{n_early} readings are ahead of the clock, by {format_duration(step_us)} at most"
        listener(Warned("future", what, n_early))
