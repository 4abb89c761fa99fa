"""The cells of columns, as evidence of what they are: those of the first rows, or of all."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import DAY_US, HOUR_US, Flags
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.sources.columns import Column
from rnnforecast.sources.numbers import is_unit, quantity_of
from rnnforecast.sources.source import Source
from rnnforecast.tables.timestamps import TimestampReader, known_zones

_SAMPLE_CELLS, _SAMPLE_ROWS, _MIN_SAMPLE_ROWS = 1 << 22, 1 << 18, 100
"""Cells and rows that are looked at first, and the fewest rows: most tables are read whole."""
_MAX_NUMBERS, _MAX_TEXTS, _MAX_LOOKED_AT, _MAX_NUMBERS_OF_ALL = 32, 16, 1000, 6
"""Columns that are looked at: a table of more numbers than these is a wide one. The last is for
all rows of a large table."""
_REPEATED_SHARE = 0.05
"""With more rows than these at a time that another has, too, a key is missing; with fewer, a clock
was set back, or rows were sent twice."""
_MOST_MISSING = 0.05
"""A column that names the series, or a zone, lacks no more than this share of its cells."""
_JITTER = 0.1
_N_LISTED, _RARELY = 3, 0.01
"""Units that a message names; largest share of rows that are exceptions."""
_MAX_GAP_STEPS = 20.0
"""A longer gap says nothing about the step."""
_SERIES_NAMES = (
    "series", "series_id", "unique_id", "item_id", "id", "name", "sensor", "sensor_id", "machine",
    "machine_id", "device", "device_id", "station", "station_id", "tag", "unit", "asset", "channel",
)  # fmt: skip
_MARKED_NUMBER = re.compile(
    r"\s*[<>~'\u2248\u2264\u2265]?\s*(?P<number>[-+]?(0|[1-9]\d*)([.,]\d+)?(:\d{2}:\d{2})?)\s*"
    r"([^\d\s:/.,-]\S{0,4}(\s*\d+\s*(min|m|sec|s))*)?\s*"
)
_MIN_MARKED, _MOSTLY_MARKED = 10, 0.8
"""Different numbers with marks that a column has at least, and their share of its texts."""
_ZONE_ABBREVIATION = re.compile(
    r"UTC|GMT|Z|WET|WEST|BST|CET|CEST|MEZ|MESZ|EET|EEST|MSK|[ECMPA][SD]T|AK[SD]T|HST|NZ[SD]T"
    r"|A[EC][SD]T|AWST|IST|JST|KST|SGT|HKT|(UTC|GMT)?[+-]\d{1,2}(:?\d{2})?"
)
_UNIT_NAME = re.compile(r"(^|.*[^a-zA-Z])(?i:units?|uom)|.*[a-z](Units?|UOM)")
_CURRENCY_NAME, _CURRENCY = re.compile("(?i).*(currency|ccy)"), re.compile("[A-Z]{3}")
MANY_READINGS = 20
"""Different values that a column of readings has, at least."""
JUMP = 4.0
"""Steps at which a unit changes are this many times as long as the others, at least."""
_MIN_CHANGES, _EXACT_POWER, _SMOOTH_SHARE = 20, 0.02, 0.6
"""Changes of a status that tell a factor; how far, in decades, it is from a power of ten; and how
long the steps there are in comparison with the spread of all readings, once these are scaled: those
of readings that are noise about the level of their state are as long."""
_MAX_FLAGS_PER_ROW = 8
"""Distinct codes are counted in a byte array of up to this many entries per row, which is smaller
and faster than a hash table."""
NO_TIME = np.iinfo(np.int64).min
"""A row without a time."""


@dataclass(frozen=True)
class ColumnEvidence:
    """The cells of one column."""

    column: Column
    codes: Integers
    """`(row,)`: number of the row's value; -1 where it is missing."""
    texts: tuple[str, ...] = ()
    """The values of a column of text, by their codes."""
    numbers: Doubles | None = None
    """`(row,)`: the cells of a column of numbers, NaN where missing."""

    @cached_property
    def n_values(self) -> int:
        """Number of different values."""
        return int(self.codes.max(initial=-1)) + 1

    @cached_property
    def is_complete(self) -> bool:
        """Whether nearly all cells are filled."""
        return bool(np.mean(self.codes < 0) <= _MOST_MISSING)

    @cached_property
    def is_unit(self) -> bool:
        """Whether it holds units of measurement; single letters may be names as well."""
        is_short = all(len(text.strip()) == 1 and text.isalpha() for text in self.texts)
        is_name = is_short and self.is_named_series
        return bool(self.texts) and all(map(is_unit, self.texts)) and not is_name

    @cached_property
    def quantities(self) -> list[str]:
        """What each of several units measures, by code; empty for other texts, and for letters."""
        quantities = list(map(quantity_of, self.texts[: _MAX_TEXTS + 1]))
        known = [quantity for quantity in quantities if quantity is not None]
        return known if self._are_words and len(known) == len(quantities) else []

    @property
    def _are_words(self) -> bool:
        """Whether there are a few texts, of which some have several characters."""
        is_text = self.numbers is None and 2 <= self.n_values <= _MAX_TEXTS
        return is_text and any(len(text.strip()) > 1 for text in self.texts)

    @property
    def may_be_unit(self) -> bool:
        """Whether it holds units, or is called so: `unit` is also the name of a machine."""
        is_called_unit = self.column.name.strip().casefold() in ("unit", "units", "uom")
        return is_called_unit or (self._are_words and self.is_unit)

    @property
    def may_be_status(self) -> bool:
        """Whether it holds a few texts or whole numbers, or one that is missing in some rows."""
        n_states = self.n_values + int(self.codes.min(initial=0) < 0)
        return 1 < n_states <= _MAX_TEXTS and not self.is_fraction

    @property
    def is_called_unit(self) -> bool:
        """Whether the name ends in a word for a unit, such as temp_unit."""
        return _UNIT_NAME.fullmatch(self.column.name.strip()) is not None

    @property
    def are_currencies(self) -> bool:
        """Whether it holds several currencies, such as EUR and USD, and is called so."""
        is_called = _CURRENCY_NAME.fullmatch(self.column.name.strip()) is not None
        codes = [text for text in self.texts[: _MAX_TEXTS + 1] if _CURRENCY.fullmatch(text)]
        return is_called and self.numbers is None and 2 <= self.n_values == len(codes)

    @cached_property
    def is_zone(self) -> bool:
        """Whether it holds time zones: names, abbreviations or offsets."""
        texts = [text.strip() for text in self.texts]
        return 0 < len(texts) <= _MAX_TEXTS and all(
            _ZONE_ABBREVIATION.fullmatch(text) or text in known_zones() for text in texts
        )

    @cached_property
    def marked_numbers(self) -> list[str]:
        """The texts that are numbers with a mark or a unit, where these are most of them."""
        matches = [m for m in map(_MARKED_NUMBER.fullmatch, self.texts) if m is not None]
        numbers = {match["number"] for match in matches}
        are_most = len(matches) >= _MOSTLY_MARKED * len(self.texts)
        marked = [match[0] for match in matches if match[0] != match["number"]]
        return marked if are_most and len(numbers) >= _MIN_MARKED else []

    @cached_property
    def is_fraction(self) -> bool:
        """Whether it holds numbers that are not all whole."""
        if self.numbers is None:
            return False
        finite = self.numbers[np.isfinite(self.numbers)]
        return bool((finite != np.trunc(finite)).any())

    @property
    def is_named_series(self) -> bool:
        """Whether the name is one that columns of sensors have."""
        name = self.column.name.strip().casefold()
        return name in _SERIES_NAMES or name.endswith("_id")

    def select(self, rows: Flags | Integers) -> ColumnEvidence:
        """Return some rows; the numbers of values stay."""
        numbers = None if self.numbers is None else self.numbers[rows]
        return replace(self, codes=self.codes[rows], numbers=numbers)


_MIN_ROWS_OF_DAY, _MIN_DAYS, _MOST_DAYS = 3, 2, 0.9
"""Rows of a day that show how its hours go on; days on which they start over, and their share."""


@dataclass(frozen=True)
class Evidence:
    """Rows of a table: their times, and the cells of columns that may be a key or a target."""

    times: Integers
    """`(row,)`: microseconds; numbers in any order where they cannot be parsed yet."""
    is_timed: bool
    columns: dict[str, ColumnEvidence]
    is_whole: bool
    """Whether these are all rows of the table."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.times)

    @property
    def has_constant_text(self) -> bool:
        """Whether a column of text has one value, which is no unit and no zone."""
        texts = [c for c in self.columns.values() if c.n_values == 1 and c.numbers is None]
        return not all(column.is_unit or column.is_zone for column in texts)

    @property
    def constant_numbers(self) -> list[str]:
        """The columns that hold one whole number; none in a table of many numbers."""
        numbers = {n: c for n, c in self.columns.items() if c.numbers is not None}
        constant = [n for n, c in numbers.items() if c.n_values == 1 and not c.is_fraction]
        return constant if len(numbers) <= _MAX_NUMBERS_OF_ALL else []

    @cached_property
    def time_codes(self) -> Integers:
        """`(row,)`: code of the row's time."""
        return code_times(self.times)

    @cached_property
    def n_times(self) -> int:
        """Number of different times."""
        return count_codes(self.time_codes)

    @property
    def repeated_times(self) -> float:
        """Share of rows at a time that another row has had before."""
        return 1 - self.n_times / max(self.n_rows, 1)

    @property
    def repeats_times(self) -> bool:
        """Whether many rows are of a time that another row has, too: of several series."""
        return self.repeated_times >= _REPEATED_SHARE

    def comes_together(self, column: ColumnEvidence) -> bool:
        """Tell whether most times have several values of a column: it names series, not times."""
        return count_codes(pair_codes(self.time_codes, column.codes)) > 1.5 * self.n_times

    def is_successive(self, column: ColumnEvidence) -> bool:
        """Tell whether each value of a column is that of one stretch of time, and of no other."""
        codes = column.codes[np.argsort(self.times, kind="stable")]
        n_runs = int(np.count_nonzero(np.diff(codes))) + 1
        return self.is_timed and not self.repeats_times and 1 < n_runs == column.n_values

    def key_codes(self, key: Sequence[str]) -> Integers:
        """`(row,)`: number of the row's series, where these columns name it."""
        codes = np.zeros(self.n_rows, np.int64)
        for name in key:
            codes = pd.factorize(pair_codes(codes, self.columns[name].codes))[0]
        return codes

    def repeated_share(self, codes: Integers) -> float:
        """Return the share of rows at a time that their series has had before."""
        n_pairs = count_codes(pair_codes(codes, self.time_codes))
        return 1 - n_pairs / max(self.n_rows, 1)

    def sort(self, codes: Integers) -> Integers:
        """Return the rows, `(row,)`, in the order of their series, and of time in each."""
        short = codes.astype(np.min_scalar_type(codes.max(initial=0)))  # 8 or 16 bits sort faster
        return np.lexsort((self.times, short))

    def lacks_halves(self, codes: Integers) -> bool:
        """Tell whether AM and PM are missing: hours of 12 start over once in most days.

        They are from 1 to 12, or from 0 to 11.
        That is so in each series by the order of its rows, one way or the other.
        """
        half = self.times % (12 * HOUR_US)
        hours = self.times % DAY_US // HOUR_US
        if not (self.is_timed and self.n_rows and hours.max() - (hours.min() > 0) <= 11):
            return False
        by_series = np.argsort(codes, kind="stable")
        for rows in (by_series, by_series[::-1]):
            days = self.times[rows] // DAY_US
            is_same = (np.diff(codes[rows]) == 0) & (np.diff(days) == 0)
            day = np.concatenate([[0], np.cumsum(~is_same)])  # (row,): the number of the day
            goes_back = is_same & (np.diff(self.times[rows]) < 0)
            begins = is_same & (np.diff(half[rows]) < 0)
            is_long = np.bincount(day) >= _MIN_ROWS_OF_DAY
            n_begun, n_back = (
                np.bincount(day[1:], weights=w, minlength=len(is_long))[is_long]
                for w in (begins, goes_back)
            )
            if np.sum(n_back > 0) >= _MIN_DAYS and np.mean(n_begun == 1) >= _MOST_DAYS:
                return True
        return False

    def earliest(self, n_rows: int) -> Evidence:
        """Return the rows up to the time of the n-th one."""
        if self.n_rows <= n_rows:
            return self
        return self.select(self.times <= np.partition(self.times, n_rows)[n_rows])

    def select(self, rows: Flags | Integers) -> Evidence:
        """Return some rows."""
        columns = {name: column.select(rows) for name, column in self.columns.items()}
        return replace(self, times=self.times[rows], columns=columns)


def gather_evidence(
    source: Source, reader: TimestampReader, columns: Sequence[Column], *, all_rows: bool
) -> Evidence:
    """Read the cells of columns, of the first rows or all; `reader` reads the time."""
    texts, numbers = columns_to_read(columns)
    if all_rows:  # of large tables, only what may be a key
        numbers = sorted(numbers, key=lambda c: len(set(c.sample)))[:_MAX_NUMBERS_OF_ALL]

    types = {reader.schema.time: reader.arrow_type}
    types |= {c.name: pa.dictionary(pa.int32(), pa.string()) for c in texts}
    types |= {c.name: pa.float64() for c in numbers}
    n_rows = None if all_rows else sample_size(len(source.columns))
    table, is_whole = read_rows_of(source, types, n_rows)

    stamps = table.column(reader.schema.time)
    is_timed = True
    try:
        times = read_times(reader, stamps)
    except DataError:  # later rows may tell how to read them, and if not, reading raises the error
        column = Column(reader.schema.time, "time")
        times, is_timed = column_evidence(column, stamps).codes, False

    names = {column.name for column in (*texts, *numbers)} & set(table.column_names)
    cells = {c.name: column_evidence(c, table.column(c.name)) for c in columns if c.name in names}
    return Evidence(times, is_timed, cells, is_whole)


def with_texts_of_numbers(evidence: Evidence, source: Source, reader: TimestampReader) -> Evidence:
    """Return evidence with the texts of numbers that are written in several ways: 7, 07 and 7.0.

    Ids that look like numbers are told apart by their texts alone; so are those of many digits.
    """
    repeating = [
        column.column
        for column in evidence.columns.values()
        if column.numbers is not None and 2 * column.n_values <= evidence.n_rows
    ]
    types = {reader.schema.time: reader.arrow_type}
    types |= {column.name: pa.dictionary(pa.int32(), pa.string()) for column in repeating}
    table, _ = read_rows_of(source, types, evidence.n_rows)
    columns = dict(evidence.columns)
    for column in repeating:
        cells = column_evidence(replace(column, kind="text"), table.column(column.name))
        if cells.n_values > columns[column.name].n_values and len(cells.codes) == evidence.n_rows:
            columns[column.name] = cells
    return replace(evidence, columns=columns)


def read_times(reader: TimestampReader, stamps: pa.ChunkedArray) -> Integers:
    """Return the times of stamps, `(row,)`."""
    starts = np.cumsum([0, *(len(chunk) for chunk in stamps.chunks)]).tolist()
    times = [reader.read(c, begin) for c, begin in zip(stamps.chunks, starts, strict=False)]
    return np.concatenate([np.zeros(0, np.int64), *times])


def columns_to_read(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Return the columns of texts, and those of numbers, that are read as evidence.

    Of many columns of numbers, they are those whose first cells repeat most.
    """
    texts = [c for c in columns if c.kind == "text" or (c.kind == "other" and c.sample)]
    numbers = [c for c in columns if c.kind == "number"][:_MAX_LOOKED_AT]
    if len(numbers) > _MAX_NUMBERS:
        n_values = {c.name: len(set(c.sample)) for c in numbers}
        numbers = sorted(numbers, key=lambda c: n_values[c.name])[:_MAX_NUMBERS]
    return texts[:_MAX_TEXTS], numbers


def sample_size(n_columns: int) -> int:
    """Return how many rows are looked at first."""
    return max(_MIN_SAMPLE_ROWS, min(_SAMPLE_ROWS, _SAMPLE_CELLS // max(n_columns, 1)))


def read_rows_of(
    source: Source, types: Mapping[str, pa.DataType], n_rows: int | None
) -> tuple[pa.Table, bool]:
    """Read the first rows, or all; return them, and whether these are all.

    Numbers that are not written as such come as text, and columns that cannot be read are left
    out; the first one of `types` must be readable.
    """

    def batches_of(types: dict[str, pa.DataType]) -> Generator[pa.RecordBatch]:
        """Read as a generator, which can be closed before its end."""
        yield from source.batches(types)

    types = dict(types)
    while True:
        batches: list[pa.RecordBatch] = []
        n_read, is_whole = 0, True
        try:
            with closing(batches_of(types)) as generator:
                for batch in generator:
                    batches.append(batch)
                    n_read += batch.num_rows
                    if n_rows is not None and n_read >= n_rows:
                        is_whole = next(generator, None) is None
                        break
            break
        except DataError as error:
            name = error.location.column if error.location else None
            if name is None or name not in list(types)[1:]:
                raise
            if pa.types.is_floating(types[name]):
                types[name] = pa.dictionary(pa.int32(), pa.string())
            else:
                del types[name]

    # A text of times may come as such or as times, batch by batch
    chunks = {name: [batch.column(name) for batch in batches] for name in types}
    arrays = [_concatenate(chunks[name], types[name]) for name in types]
    return pa.table(arrays, list(types)), is_whole


def _concatenate(chunks: list[pa.Array], type_: pa.DataType) -> pa.ChunkedArray:
    if len({chunk.type for chunk in chunks}) > 1:
        chunks = [chunk.cast(pa.string()) for chunk in chunks]
    return pa.chunked_array(chunks, None if chunks else type_)


def column_evidence(column: Column, cells: pa.ChunkedArray) -> ColumnEvidence:
    """Return the cells of a column with their values numbered."""
    numbers = None
    if pa.types.is_floating(cells.type):
        numbers = cells.to_numpy().astype(np.float64, copy=False)
        codes = pd.factorize(numbers)[0]
        return ColumnEvidence(column, codes.astype(np.int64, copy=False), numbers=numbers)

    if not pa.types.is_dictionary(cells.type):
        cells = cells.cast(pa.string()).dictionary_encode()
    combined = cells.unify_dictionaries().combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = pa.concat_arrays(combined.chunks)
    texts = combined.dictionary.to_pylist()
    number_of: dict[str, int] = {}
    new = [-1 if not t else number_of.setdefault(t, len(number_of)) for t in texts]
    codes = combined.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    codes = np.append(np.array(new, np.int64), -1)[codes]
    if column.kind == "number":  # with a few cells that are none, which reading refuses
        values = pd.to_numeric(pd.Series([*number_of, None], dtype=object), errors="coerce")
        numbers = values.to_numpy(np.float64)[codes]
    return ColumnEvidence(column, codes, tuple(number_of), numbers)


def check_units(
    evidence: Evidence, source: str, key: Sequence[str], named: Collection[str] = ()
) -> None:
    """Raise `DataError` where a column tells that the readings of one series have several units.

    Units of different quantities may name the series; those of one, such as W and kW, may do so
    only where both come at a time, and so may those that follow each other. Columns that the user
    has `named` are not looked at.
    """
    for name, column in evidence.columns.items():
        units = column.quantities
        are_in_turn = column.may_be_unit and evidence.is_successive(column)
        is_sure = bool(units) or are_in_turn or column.are_currencies
        if not (is_sure or column.may_be_status) or name in named:
            continue

        remaining = [part for part in dict.fromkeys(key) if part != name]
        if name in key and not are_in_turn:
            is_needed = evidence.repeated_share(evidence.key_codes(remaining)) > _RARELY
            if is_needed or (units and len(set(units)) == len(units)):
                continue
        if not is_sure:
            _check_scale(evidence, source, key, column)
            continue
        is_seen = column.codes >= 0
        codes = evidence.key_codes(remaining)[is_seen]
        if count_codes(pair_codes(codes, column.codes[is_seen])) <= count_codes(codes):
            continue
        raise DataError(
            f"column {name!r} has several units ({', '.join(column.texts[:_N_LISTED])}) within "
            "one series",
            code="mixed-units",
            location=Location(source, column=name),
            proposals=[
                Proposal(("--series", ",".join([*remaining, name])), "if each unit is of a sensor"),
                Proposal(("--past", name), f"if {name!r} is not the unit of the readings"),
            ],
            hint="convert the readings to one unit",
        )


def _check_scale(
    evidence: Evidence, source: str, key: Sequence[str], column: ColumnEvidence
) -> None:
    """Raise `DataError` where the readings jump to another unit or power of ten with a column."""
    name = column.column.name
    is_unit = (column.is_called_unit or column.may_be_unit) and name not in key
    codes = evidence.key_codes([part for part in key if part != name])
    scaled = _find_scaled(evidence, column, codes, is_unit=is_unit)
    if scaled is None:
        return
    reading, power = scaled
    raise DataError(
        f"column {name!r} tells the unit of {reading!r}, whose readings jump "
        f"{f'by a factor of {10 ** abs(power):,} ' if power else ''}where it changes",
        code="mixed-units",
        location=Location(source, column=name),
        proposals=[Proposal(("--past", name), f"if {name!r} is not the unit of the readings")],
        hint="convert the readings to one unit",
    )


@dataclass(frozen=True)
class Changes:
    """Pairs of rows, `(pair,)` each, that follow each other in a series."""

    before: Integers
    """Rows before those at which a status changes."""
    after: Integers
    first: Integers
    """Rows before the next one of their series with the same status."""
    second: Integers


def changes_of(evidence: Evidence, column: ColumnEvidence, codes: Integers) -> Changes:
    """Return where a status changes; `codes` are those of series, `(row,)`."""
    order = evidence.sort(codes)
    is_change = (np.diff(codes[order]) == 0) & (np.diff(column.codes[order]) != 0)
    states = pair_codes(codes, column.codes)
    by_state = order[np.argsort(states[order], kind="stable")]
    is_same = np.diff(states[by_state]) == 0
    return Changes(
        order[:-1][is_change], order[1:][is_change], by_state[:-1][is_same], by_state[1:][is_same]
    )


def _find_scaled(
    evidence: Evidence, column: ColumnEvidence, codes: Integers, *, is_unit: bool
) -> tuple[str, int] | None:
    """Return readings whose unit or power of ten a column tells: their name, and the power.

    They jump where the column changes within a series of `codes`, `(row,)`, and go on once they are
    scaled. A column of units tells any factor, which is 0 here.
    """
    changes = changes_of(evidence, column, codes)
    if len(changes.before) < (1 if is_unit else _MIN_CHANGES):
        return None
    for name, cells in evidence.columns.items():
        values = cells.numbers
        if values is None or cells is column or cells.n_values < MANY_READINGS:
            continue
        jump = median_step(values, changes.before, changes.after)
        step = median_step(values, changes.first, changes.second)
        if not jump >= JUMP * step > 0:
            continue
        power = _power_between(values, column, codes, changes)
        if power or is_unit:
            return name, power
    return None


def median_step(values: Doubles, first: Integers, second: Integers) -> float:
    """Return the median distance between the readings of rows; NaN without any."""
    steps = np.abs(values[second] - values[first])
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if len(steps) else np.nan


def _power_between(
    values: Doubles, column: ColumnEvidence, codes: Integers, changes: Changes
) -> int:
    """Return the power of ten between the readings of two states that follow each other.

    0 where it is none.
    """
    states = column.codes + 1
    before, after = states[changes.before], states[changes.after]
    low, high = np.minimum(before, after), np.maximum(before, after)
    pairs = low * (column.n_values + 1) + high
    is_pair = pairs == np.bincount(pairs).argmax()  # the two states that meet most often
    if np.count_nonzero(is_pair) < _MIN_CHANGES:
        return 0
    with np.errstate(divide="ignore"):
        decades = np.log10(np.abs(values))
    growth = decades[changes.after] - decades[changes.before]
    growth = np.where(after > before, growth, -growth)[is_pair]
    growth = growth[np.isfinite(growth)]
    power = round(float(np.median(growth))) if len(growth) >= _MIN_CHANGES else 0
    if not power or abs(np.median(growth) - power) > _EXACT_POWER:
        return 0

    is_state = np.isfinite(decades) & np.isin(states, [low[is_pair][0], high[is_pair][0]])
    scaled = pd.Series(decades - np.where(states == high[is_pair][0], power, 0))[is_state]
    deviation = scaled - scaled.groupby(codes[is_state]).transform("median")
    is_smooth = np.median(np.abs(growth - power)) <= _SMOOTH_SHARE * deviation.std()
    return power if is_smooth else 0


def code_times(times: Integers) -> Integers:
    """`(row,)`: codes of times: their places on the grid of the first ones, if all lie on it.

    Others are numbered in the order in which they appear, which takes longer.
    """
    if len(times):
        first, last = int(times.min()), int(times.max())
        step = max(1, int(np.gcd.reduce(times[:_MIN_SAMPLE_ROWS] - first)))
        if (last - first) // step < _MAX_FLAGS_PER_ROW * len(times):
            places = times - first
            places //= step
            expected = places * step
            expected += first
            if (expected == times).all():
                return places
    return pd.factorize(times)[0]


def pair_codes(first: Integers, second: Integers) -> Integers:
    """`(row,)`: codes of the pairs of two codes; the second one may be -1, for a missing value."""
    codes = second + 1
    codes += first * (int(second.max(initial=-1)) + 2)
    return codes


def count_codes(codes: Integers) -> int:
    """Return how many codes, none below 0, are different."""
    n_codes = int(codes.max(initial=-1)) + 1
    if n_codes > _MAX_FLAGS_PER_ROW * len(codes):
        return len(pd.unique(codes))
    is_present = np.zeros(n_codes, np.bool_)
    is_present[codes] = True
    return int(np.count_nonzero(is_present))


def without_repeated_rows(evidence: Evidence) -> Evidence:
    """Drop rows that are the same as an earlier one in all of the columns."""
    codes = evidence.time_codes
    for column in sorted(evidence.columns.values(), key=lambda column: column.n_values):
        if int(codes.max(initial=0)) * (column.n_values + 1) > _MAX_FLAGS_PER_ROW * evidence.n_rows:
            break
        codes = pair_codes(codes, column.codes)
    if count_codes(codes) == evidence.n_rows:  # a few columns tell all rows apart
        return evidence

    digest = evidence.time_codes.astype(np.uint64)
    for column in evidence.columns.values():
        digest = digest * np.uint64(0x9E3779B97F4A7C15) + (column.codes + 1).astype(np.uint64)
    is_repeated = pd.Series(digest).duplicated().to_numpy()
    return evidence.select(~is_repeated) if is_repeated.any() else evidence


@dataclass(frozen=True)
class Partition:
    """How the rows of a table fall into series by a key."""

    key: tuple[str, ...]
    n_series: int
    coverage: float
    """Share of all pairs of a series and a time that have a row."""
    regularity: float
    """Share of steps that lie on the grid of their series; 0 where there are none."""
    step_us: float
    """Median step from a row to the next one of its series."""
    evenness: float
    """Share of steps that are as long as the median one of their series."""
    roughness: float
    """Mean distance of readings from the ones before in their series, over that without the key."""
    levels: float
    """Share of the variance of readings that lies between the series."""
    smallest: float
    """Rows of the smallest series, over those of the median one."""
    n_runs: int
    """Number of stretches of rows of one series, in the order of time."""
    repeats: float = 0.0
    """Share of rows, of all of the table, at a time that their series has had before."""

    @property
    def orderliness(self) -> float:
        """How much the rows of a series look like one sensor's: at all times, or at equal steps."""
        return max(min(self.coverage, 1.0), self.regularity)


def partition(evidence: Evidence, key: tuple[str, ...]) -> Partition:
    """Describe the series of a key."""
    codes = evidence.key_codes(key)
    n_series = int(codes.max(initial=0)) + 1
    order = evidence.sort(codes)
    series, times = codes[order], evidence.times[order]
    is_same = series[1:] == series[:-1]
    regularity, evenness, step_us = 0.0, 0.0, 0.0
    if evidence.is_timed:
        steps = np.diff(times)
        is_step = is_same & (steps > 0)
        regularity, evenness = regularity_of(steps[is_step], series[1:][is_step])
        step_us = float(np.median(steps[is_step])) if is_step.any() else 0.0

    by_time, counts = np.argsort(evidence.times, kind="stable"), np.bincount(codes)
    ratios, levels = [], []
    for name, column in evidence.columns.items():
        values = column.numbers
        if values is None or name in key or column.n_values < 2:
            continue
        distance = _mean_distance(values[by_time], None)
        if distance > 0:
            ratios.append(_mean_distance(values[order], series) / distance)
            levels.append(_share_between(values, codes, n_series))
    return Partition(
        key,
        n_series,
        evidence.n_rows / (n_series * max(evidence.n_times, 1)),
        regularity,
        step_us,
        evenness,
        float(np.median(ratios)) if ratios else 1.0,
        float(np.median(levels)) if levels else 0.0,
        float(counts.min() / np.median(counts)),
        int(np.count_nonzero(np.diff(codes[by_time]))) + 1,
    )


def regularity_of(steps: Integers, series: Integers) -> tuple[float, float]:
    """Return the shares of steps on the grid of their series, and of those of one grid step.

    `steps` are sorted by their `series`, `(row,)` each. The grid step of a series is its median
    one; a step on the grid is a small multiple of it.
    """
    if not len(steps):
        return 0.0, 0.0

    order = np.lexsort((steps, series))
    ordered, owner = steps[order].astype(np.float64), series[order]
    starts = np.append(0, np.flatnonzero(np.diff(owner)) + 1)
    lengths = np.diff(np.append(starts, len(owner)))
    medians = ordered[starts + (lengths - 1) // 2]

    ratio: Doubles = np.divide(ordered, np.repeat(medians, lengths))
    is_on_grid = (np.abs(ratio - np.rint(ratio)) <= _JITTER) & (np.rint(ratio) >= 1)
    is_telling = ratio <= _MAX_GAP_STEPS
    n_telling = int(np.count_nonzero(is_telling))
    share = int(np.count_nonzero(is_on_grid & is_telling)) / max(n_telling, 1)
    return share, float(np.mean(np.abs(ratio - 1) <= _JITTER))


def _mean_distance(values: Doubles, series: Integers | None) -> float:
    """Return the mean distance of readings from the ones before, of the same series if given."""
    is_seen = np.isfinite(values)
    moves = np.abs(np.diff(values[is_seen]))
    if series is not None:
        moves = moves[np.diff(series[is_seen]) == 0]
    return float(moves.mean()) if len(moves) else 0.0


def _share_between(values: Doubles, codes: Integers, n_series: int) -> float:
    """Return the share of the variance of readings that lies between series."""
    is_seen = np.isfinite(values)
    values, codes = values[is_seen], codes[is_seen]
    centered = values - values.mean()
    total = float((centered**2).sum())
    counts = np.bincount(codes, minlength=n_series)
    sums = np.bincount(codes, weights=centered, minlength=n_series)
    between = float((sums[counts > 0] ** 2 / counts[counts > 0]).sum())
    return between / total if total > 0 else 0.0


def time_evidence(source: Source, readers: Mapping[str, TimestampReader]) -> dict[str, Integers]:
    """Return the times of several columns in the first rows, `NO_TIME` where missing.

    A column that cannot be read is left out.
    """
    types = {name: reader.arrow_type for name, reader in readers.items()}
    table, _ = read_rows_of(source, types, sample_size(len(source.columns)))

    stamps = {}
    for name, reader in readers.items():
        column = table.column(name)
        is_seen = column.is_valid().to_numpy()
        times = np.full(len(column), NO_TIME)
        try:
            times[is_seen] = read_times(reader, column.drop_null())
        except DataError:
            continue
        stamps[name] = times
    return stamps
