"""The kind of values in a column, inferred from its cells, and casts to Arrow types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby, pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.sources.numbers import (
    MISSING,
    NUMERIC_SHARE,
    NumberForm,
    TextNumbers,
    is_number,
)
from rnnforecast.sources.stamps import (
    FORMS,
    MOSTLY,
    infer_forms,
    is_stamp,
    number_texts,
    spread,
    weak_form,
)
from rnnforecast.units import EPOCH_UNITS_US, EXCEL, OFFERED_ZONES, TICKS, TICKS_1970

Counts = NDArray[np.int64]
Kind = Literal["time", "number", "text", "empty", "nested", "other"]
MAX_SAMPLE = 1000
MAX_COLUMNS = 150_000
_DATE = re.compile(
    r"\s*(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{8}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})"
    r"([T ]+\d{1,2}:?\d{2}.*)?\s*"
)
_TIME_OF_DAY = re.compile(
    r"\s*(\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp][Mm]?)?\s*(UTC|GMT|[Zz]|\+\d{2}:?\d{2})?"
    r"|\d{1,2}\.00\.\d{2}|\d{1,2}\s*[AaPp]\.?[Mm]\.?|\d{4}\s*(UTC|GMT|Z))\s*"
)
_PERIOD, _N_PARTS = re.compile(r"(?=.*\d).{1,80}"), 5
"""What any time is like; and its parts: year, month, day, hour and minute."""
_COUNTED = 3
"""Whole numbers that follow each other are a count if they are more."""
_N_FIRST, _N_STAMPS = 20, 100
"""Cells that tell whether a column may hold times, and those that decide."""
EPOCH_1990_US, EPOCH_2100_US = 631_152_000_000_000, 4_102_444_800_000_000
"""Numbers are taken for times only between 1990 and 2100."""
_TICKS_2000, _TICKS_2100 = TICKS_1970 + 9_466_848 * 10**9, TICKS_1970 + 41_024_448 * 10**9
"""These years in .NET ticks."""
_MINUTE_NS = 60e9
_EXCEL_1990, _EXCEL_2100 = 32_874, 73_051
"""These years in days of Excel."""
_EXCEL_ERROR = 2e-4
"""By how much a step in days, of stamps that are written with four decimals, may be off."""
_HALF = re.compile(r"[ap]\.?m\.?", re.IGNORECASE)
_SPLIT_NAME = re.compile(
    r"(?:^|[\W\d_])(?:quart|interval|period|slot|block|viertel|cuart|kwart|tramo|qh)"
)
"""How words begin, in several languages, that name the parts of an hour, counted."""
_SPLIT = re.compile(r"(\d+) parts from (\d)")
_SPLITS = (2, 3, 4, 6, 12)
"""Equal parts that an hour has where a column counts them."""
_FEWEST_PARTS = 10
"""Fewer rows do not tell what numbers count."""
_SPARSE = 10
"""By how much the numbers of rows out of order may exceed their count, as most rows are gone."""
_EVEN_CHANGES, _LESS_THAN_HOURLY = 2.0, 0.75
"""How far readings change from part to part of an hour, and from one hour to the next: about
equally, and less than in an hour."""
_FIRST_YEAR, _PAST_YEAR, _LONGEST_YEARS, _FEWEST_YEARS = 1700, 2100, 10, 9
"""Range of numbers that can be years, the longest step in years, and the fewest steps."""
_MAX_DECODED_BYTES = 1 << 28
"""Bytes of the texts of a batch, at most."""


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

    @cached_property
    def floats(self) -> NDArray[np.float64]:
        """The cells as numbers; none where one of them is another text."""
        try:
            return np.array([float(text) for text in self.sample])
        except ValueError:
            return np.zeros(0)

    @cached_property
    def integers(self) -> Counts:
        """The cells as whole numbers; none where one of them is another text."""
        bare = [text.strip() for text in self.sample]
        if self.kind not in ("number", "text") or not all(is_number(text, ".") for text in bare):
            return np.zeros(0, np.int64)
        numbers = np.array([float(text) for text in bare])
        is_whole = (np.abs(numbers) < 1e15) & (numbers == np.rint(numbers))
        return numbers.astype(np.int64) if is_whole.all() else np.zeros(0, np.int64)


def check_n_columns(n_columns: int, source: str) -> None:
    """Raise `DataError` for more columns than there is memory for: each takes some kilobytes."""
    if n_columns > MAX_COLUMNS:
        raise DataError(
            f"{source} has {n_columns} columns; at most {MAX_COLUMNS} are supported",
            code="too-many-columns",
            location=Location(source),
            hint="write a long table instead, with one row per reading",
        )


def infer_text_column(name: str, cells: Sequence[str], form: NumberForm | None) -> Column:
    """Infer the kind of a column from its text cells, without missing ones.

    `form` is how its numbers are written; None for a column without numbers. The sample has them
    with decimal points. A column most of whose cells are numbers counts as numbers, so that the
    others are an error with a line number, and the column is not silently left out.
    """
    sample = tuple(cells[:MAX_SAMPLE])
    n_numbers = 0 if form is None else sum(map(form.is_number, sample))

    kind: Kind = "text"
    if not sample:
        kind = "empty"
    elif n_numbers == len(sample):
        kind = "number"
    elif _are_dates(sample):
        kind = "time"
    elif n_numbers >= NUMERIC_SHARE * len(sample):
        kind = "number"
    if kind == "number" and form is not None and form != NumberForm():
        sample = tuple(map(form.to_plain, sample))
    return Column(name, kind, sample)


def _are_dates(cells: Sequence[str]) -> bool:
    """Tell whether most cells are dates, by a few of them."""
    first = spread(cells, _N_FIRST)
    if 4 * sum(map(is_date, first)) <= len(first):
        return False
    sample = spread(cells, _N_STAMPS)
    return sum(map(is_date, sample)) > NUMERIC_SHARE * len(sample)


def with_weak_dates(
    columns: Sequence[Column], source: str, config: DataConfig
) -> tuple[Column, ...]:
    """Take columns of numbers or names for times where all cells are dates, such as 20240131.

    This is done where no other column holds times, and for the one that the user calls the time,
    but not where the user says what they count. Raises `DataError` for numbers that may as well
    be seconds.
    """
    has_times = any(column.kind == "time" for column in columns)
    if config.time_unit or (has_times and config.time is None):
        return tuple(columns)

    result = []
    for column in columns:
        form = None
        if column.kind in ("number", "text") and (column.name == config.time or not has_times):
            form = weak_form(column.sample)
        if form is None or any(_counts(other) for other in columns if other is not column):
            result.append(column)
            continue

        if config.time_format is None and _may_count(column.sample):
            options = ("--time", column.name)
            digits = len(column.sample[0].strip())
            format_ = form.format + {10: "", 12: "%M", 14: "%M%S"}.get(digits, "")
            raise DataError(
                f"column {column.name!r} contains numbers, such as {column.sample[0]}, that "
                "may be dates or Unix time",
                code="time-unit",
                location=Location(source, column=column.name),
                proposals=[
                    Proposal((*options, "--time-format", format_), "if they are dates"),
                    Proposal((*options, "--time-unit", "s"), "if they are seconds"),
                ],
            )
        result.append(replace(column, kind="time"))
    return tuple(result)


def with_numbers_of_texts(
    columns: Sequence[Column], source: str, config: DataConfig
) -> tuple[tuple[Column, ...], TextNumbers]:
    """Take columns of texts in a typed table for numbers where the texts are measurements.

    Raises `DataError` where marks may stand between thousands.
    """
    cells = {column.name: column.sample for column in columns if column.kind == "text"}
    texts = TextNumbers.of(cells, config, source)
    result = []
    for column in columns:
        form = texts.forms.get(column.name)
        if form is None:
            result.append(column)
            continue
        numbers = [form.to_plain(t) for t in column.sample if t.strip() not in texts.missing]
        result.append(replace(column, kind="number", sample=tuple(numbers)))
    return tuple(result), texts


def _counts(column: Column) -> bool:
    """Tell whether a column holds whole numbers that are times since 1970."""
    is_whole = column.kind == "number" and all(map(is_integer, column.sample[:1]))
    return is_whole and unit_of(column) is not None


def unit_of(column: Column) -> str | None:
    """Return the only unit in which a column's numbers are times between 1990 and 2100, or None."""
    return infer_epoch_unit(column.floats)


def _may_count(texts: Sequence[str]) -> bool:
    """Tell whether dates written as digits may as well be times since 1970, in equal steps."""
    if not all(map(is_integer, texts)):
        return False
    numbers = sorted({int(text) for text in texts})
    steps = {b - a for a, b in pairwise(numbers)}
    return len(steps) == 1 and infer_epoch_unit(numbers) is not None


def is_integer(text: str) -> bool:
    """Tell whether a cell is an integer, written without a decimal point or an exponent."""
    bare = text.strip().removeprefix("-")
    return bare.isascii() and bare.isdigit()


def is_date(text: str) -> bool:
    """Tell whether a cell looks like a date, with or without a time of day."""
    return _DATE.fullmatch(text) is not None or is_stamp(text)


def is_time_of_day(text: str) -> bool:
    """Tell whether a cell looks like a time of day without a date."""
    return _TIME_OF_DAY.fullmatch(text) is not None


def is_value(cell: str) -> bool:
    """Tell whether a cell is a number, a date or a time of day."""
    is_reading = is_number(cell, ".") or is_number(cell, ",")
    return is_reading or is_date(cell) or is_time_of_day(cell)


def are_readings(cells: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether cells hold a time and a number, each above another: they are a row, no names.

    A month, or a number with a unit, is above cells that are written alike. Readings may be missing
    where there is a time.
    """
    pairs = list(zip(cells, rows[0], strict=False))
    times = [is_date(cell) and is_date(below) for cell, below in pairs]
    values = [is_value(cell) and is_value(below) for cell, below in pairs]
    if (sum(times) == 1 or _count_on([row[0] for row in (cells, *rows)])) and sum(values) > 1:
        return True

    columns = list(zip(cells, *rows, strict=False))
    readings = [column for column in columns if not _are_periods(column)]
    are_missing = all(cells[0] in MISSING for cells in readings)
    has_readings = are_missing or any(map(_are_quantities, readings))
    return 0 < len(readings) < len(columns) and has_readings


def _count_on(cells: Sequence[str]) -> bool:
    """Tell whether cells are whole numbers that all follow each other, such as years."""
    numbers = [int(cell) for cell in cells if re.fullmatch(r"\d{1,9}", cell.strip())]
    steps = {below - number for number, below in pairwise(numbers)}
    return len(numbers) == len(cells) > _COUNTED and steps in ({1}, {-1})


def _are_periods(cells: Sequence[str]) -> bool:
    """Tell whether cells are times that are all written alike."""
    shapes = {re.sub(r"[^\W\d_]+", "a", shape_of(cell)) for cell in cells}
    return len(shapes) == 1 and is_period(cells[0])


def _are_quantities(cells: Sequence[str]) -> bool:
    """Tell whether cells are numbers, all of them bare or with the same unit."""
    shapes = {"0" if is_value(cell) else shape_of(cell) for cell in cells if cell not in MISSING}
    return cells[0] not in MISSING and len(shapes) == 1 and shapes.pop()[:1] == "0"


def is_period(cell: str) -> bool:
    """Tell whether a cell may be a date, or a month, a quarter or a week, but no number."""
    if is_date(cell) or is_number(cell, ".") or not _PERIOD.fullmatch(cell):
        return is_date(cell)
    has_date_and_clock = len(re.findall(r"\d+", cell)) >= _N_PARTS
    return has_date_and_clock or any(form.parts(cell) is not None for form in FORMS)


def shape_of(cell: str) -> str:
    """Return a cell with a 0 for each number: cells that are written alike have the same."""
    return re.sub(r"[-+]?\d+(?:[.,]\d+)*", "0", cell.strip())


def has_value(cells: Sequence[str]) -> bool:
    """Tell whether a cell of a row is a number, a date or a time of day."""
    return any(map(is_value, cells))


def infer_epoch_unit(values: Sequence[float] | NDArray[Any]) -> str | None:
    """Return the unit in which all values are times between 1990 and 2100; None if not just one.

    Days of Excel lie in order and in equal steps; other numbers of this size may be readings. .NET
    ticks of this century are nanoseconds of 1990, whose steps would be no whole minutes.
    """
    if not len(values):
        return None
    low, high = np.min(values), np.max(values)
    if low >= _TICKS_2000 and high < _TICKS_2100:
        steps = np.diff(np.unique(values))
        step = float(np.median(steps)) if len(steps) else 1.0
        return "ns" if abs(step - np.rint(step / _MINUTE_NS) * _MINUTE_NS) < 1000 else TICKS

    if low >= _EXCEL_1990 and high < _EXCEL_2100:
        steps = np.diff(np.unique(values))
        is_ahead = np.diff(values) >= 0
        if len(steps) < 2 or is_ahead.mean() < MOSTLY:
            return None
        is_even = np.abs(steps - np.median(steps)) <= _EXCEL_ERROR + 0.01 * np.median(steps)
        return EXCEL if is_even.mean() >= MOSTLY else None

    units = [
        unit
        for unit, factor in EPOCH_UNITS_US.items()
        if low * factor >= EPOCH_1990_US and high * factor < EPOCH_2100_US
    ]
    return units[0] if len(units) == 1 else None


def may_be_years(column: Column) -> bool:
    """Tell whether numbers may be years, with decimals for parts of one, such as 1949.25.

    They lie in order, those of one series after those of another, and their steps are equal but for
    rounding and the lengths of months.
    """
    if column.kind != "number":
        return False
    values = column.floats
    distinct = np.unique(values)
    steps, order = np.diff(distinct), np.sign(np.diff(values))
    if len(steps) < _FEWEST_YEARS or distinct[0] < _FIRST_YEAR or distinct[-1] >= _PAST_YEAR:
        return False
    step = float(np.median(steps))
    is_even = np.abs(steps - step) <= 0.1 * step + 10.0 ** -count_decimals(column.sample)
    is_ordered = max(np.mean(order >= 0), np.mean(order <= 0)) >= MOSTLY
    return bool(is_ordered and step <= _LONGEST_YEARS and is_even.mean() >= MOSTLY)


def count_decimals(texts: Sequence[str]) -> int:
    """Return how many decimals numbers are written with, at most."""
    return max((len(text.strip().partition(".")[2]) for text in texts), default=0)


def counts_by_one(column: Column) -> bool:
    """Tell whether a column counts from 1 by ones, to more than the hours of a day."""
    numbers = np.unique(column.integers)
    return len(numbers) > 24 and bool((numbers == np.arange(1, len(numbers) + 1)).all())


def is_index(column: Column) -> bool:
    """Tell whether numbers may count rows: mostly in equal steps, each row twice, or out of order.

    Those out of order all differ, and are about as many as the highest. Totals of a meter, and
    decimals that a comma cut off, go on otherwise.
    """
    numbers = column.integers
    steps = np.diff(numbers)
    if not len(steps):
        return False
    values, counts = np.unique(steps, return_counts=True)
    is_even = values[counts.argmax()] != 0 and counts.max() > NUMERIC_SHARE * len(steps)
    is_repeated = bool(np.isin(steps, (0, 1)).all())
    is_shuffled = len(np.unique(numbers)) == len(numbers) and numbers.min() >= 0
    has_zeros = any(re.match(r"0\d", text) for text in column.sample)
    is_shuffled = is_shuffled and not has_zeros and numbers.max() <= _SPARSE * len(numbers)
    return bool(is_even or is_repeated or (is_shuffled and values[0] < 0))


def repeats_row(columns: Sequence[Column]) -> NDArray[np.bool_]:
    """Tell of each row of the sample but the first whether it is like the one before."""
    rows = list(zip(*(column.sample for column in columns), strict=False))
    return np.array([a == b for a, b in pairwise(rows)], np.bool_)


def are_mostly(is_kind: Callable[[str], bool], texts: Sequence[str]) -> bool:
    """Tell whether texts are of a kind, but for a few."""
    return bool(texts) and sum(map(is_kind, texts)) >= MOSTLY * len(texts)


def has_hours_to_12(time: Column) -> bool:
    """Tell whether stamps have hours from 1 to 12, and no half of the day."""
    forms = infer_forms(time.sample)
    parts = [forms[0].parts(text) or {} for text in time.sample] if forms else []
    hours = {part.get("H") or "0" for part in parts}
    has_halves = any(part.get("p") or part.get("z") for part in parts)
    return bool(hours) and all(1 <= int(hour) <= 12 for hour in hours) and not has_halves


def fills_60(column: Column) -> bool:
    """Tell whether a column goes from 0 to 60 in equal steps, again and again, or by ones."""
    numbers = column.integers
    highest = int(numbers.max(initial=0))
    numbers = numbers[np.append(np.diff(numbers) != 0, True)[: len(numbers)]]
    is_next = [numbers[1:] == (numbers[:-1] + step) % 60 for step in (1, 60 - highest)]
    return highest > 0 and len(numbers) > 2 and any(x.mean() >= MOSTLY for x in is_next)


def is_called_split(column: Column) -> bool:
    """Tell whether a word of a column's name is one for a part of an hour."""
    return _SPLIT_NAME.search(column.name.casefold()) is not None


def split_of_hour(column: Column, hours: Sequence[Column]) -> str | None:
    """Return what a column holds that counts the parts of each hour, such as `4 parts from 1`.

    It goes up by one, or down, and begins again with each hour that the other columns hold; or it
    is the `minute` in which such parts begin. So may be the numbers of sensors.
    """
    numbers = column.integers
    if len(numbers) < _FEWEST_PARTS or any(len(c.sample) != len(numbers) for c in hours):
        return None
    low, distinct = int(numbers.min()), np.unique(numbers)
    is_minute = len(distinct) in _SPLITS and distinct[-1] == 60 - 60 // len(distinct)
    if is_minute and (np.diff(distinct) == 60 // len(distinct)).all():
        numbers = numbers // (60 // len(distinct))
    n_parts = int(numbers.max()) - low + 1
    if low > 1 or low < 0 or n_parts not in _SPLITS:
        return None
    hour = list(zip(*(c.sample for c in hours), strict=True))
    rows = [row for row, _ in groupby(zip(hour, (numbers - low).tolist(), strict=True))]

    def is_next(row: tuple[Any, int], after: tuple[Any, int]) -> bool:
        is_same = row[0] == after[0]
        return after[1] == (row[1] + 1 if is_same else 0) and (is_same or row[1] == n_parts - 1)

    fits = any(
        np.mean([is_next(*pair) for pair in pairwise(ordered)] or [False]) >= MOSTLY
        for ordered in (rows, rows[::-1])
    )
    kind = "minute" if distinct[-1] >= 30 else f"{n_parts} parts from {low}"
    return kind if fits and len(set(hour)) > 1 else None


def parts_of_hour(kind: str) -> tuple[int, int]:
    """Return how many parts of an hour a column counts, and the first number; zeros for others."""
    match = _SPLIT.fullmatch(kind)
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)


def continues_within_hours(column: Column, split: Column, hours: Sequence[Column]) -> bool:
    """Tell whether readings change from part to part of an hour as from its last to the next hour.

    These changes are less than those of each part in an hour. Sensors are apart from each other, or
    their readings of an hour are closer to each other than to those of the next. Totals, and
    numbers of rows, tell nothing.
    """
    values = column.floats
    n_parts = len(set(split.sample))
    if column.kind != "number" or len(values) != len(split.sample) or len(values) <= 2 * n_parts:
        return False
    is_same, steps = repeats_row(hours), np.diff(values)
    if (steps >= 0).all() or (steps <= 0).all() or is_same.all() or not is_same.any():
        return False
    inside, across = np.abs(steps[is_same]).mean(), np.abs(steps[~is_same]).mean()
    hourly = np.abs(values[n_parts:] - values[:-n_parts]).mean()
    largest, least = max(inside, across), min(inside, across)
    return bool(largest <= _EVEN_CHANGES * least and largest <= _LESS_THAN_HOURLY * hourly)


def find_clock_changes(
    pairs: pa.Table, n_periods: int, tz: str | None, source: str
) -> dict[str, tuple[int, int]]:
    """Return where periods that count elapsed time leave the clock of a zone, by the date.

    That is: after how many periods, and by how many the clock is ahead. `pairs` has each date and
    period once. Raises `DataError` where there is no zone, or one whose clock does not change on
    the days that have an hour of periods more, or less.
    """
    odd = _odd_days(pairs, n_periods)
    changes = _changes_in_zone(odd, n_periods, tz) if tz is not None else {}
    zones = [zone for zone in OFFERED_ZONES if _changes_in_zone(odd, n_periods, zone)]
    if changes or not odd or not (any(odd.values()) or (zones and tz is None)):
        return changes  # a day may lack an hour, but no sensor has one more
    name = pairs.column_names[1]
    raise DataError(
        f"the periods in column {name!r} are more, or less, on days on which clocks are changed, "
        f"such as {next(iter(odd))}",
        code="counted-periods",
        location=Location(source, column=name),
        proposals=[Proposal(("--tz", zone), f"if they are of {zone}") for zone in zones[:3]],
        hint=None if zones else "give the time zone whose clock is changed on these days",
    )


def _odd_days(pairs: pa.Table, n_periods: int) -> dict[str, bool]:
    """Return the days that have an hour of periods more, or less, and whether they have more.

    The first and the last day may lack some for another reason.
    """
    dates, texts = (column.to_pandas().str.strip() for column in pairs.columns)
    numbers = pd.to_numeric(texts, errors="coerce").groupby(dates).agg(["max", "nunique"])
    names, per_hour = numbers.index.to_list(), n_periods // 24
    days = _days_of(names)
    if not len(days):
        return {}
    highest, count = numbers["max"].to_numpy(), numbers["nunique"].to_numpy()
    is_inside = (days > days.min()) & (days < days.max())
    is_shorter = is_inside & (highest == count) & (highest == n_periods - per_hour)
    is_longer = highest > n_periods
    return {names[i]: bool(is_longer[i]) for i in np.flatnonzero(is_longer | is_shorter)}


def _days_of(texts: Sequence[str]) -> NDArray[np.datetime64]:
    """Return the days of dates; none where a text is no date, or may be of two days."""
    forms = infer_forms(texts)
    iso = forms[0].to_iso(pa.array(texts)).to_pylist() if len(forms) == 1 else list(texts)
    if not all(text and re.match(r"\d{4}-\d{2}-\d{2}", text) for text in iso):
        return np.zeros(0, "datetime64[D]")
    return np.array([text[:10] for text in iso], "datetime64[D]")


def _changes_in_zone(
    odd: Mapping[str, bool], n_periods: int, tz: str
) -> dict[str, tuple[int, int]]:
    """Return the changes of a zone's clock; none where a day has none, or the other direction."""
    try:
        zone = ZoneInfo(tz)
    except (KeyError, ValueError, OSError):  # no name of a zone, such as +01:00
        return {}
    changes = {}
    period = pd.Timedelta(days=1) / n_periods
    elapsed = pd.to_timedelta(np.arange(n_periods * 25 // 24) * period)
    for text, day in zip(odd, map(pd.Timestamp, _days_of(list(odd))), strict=True):
        wall = (day.tz_localize(zone, nonexistent="shift_forward") + elapsed).tz_localize(None)
        ahead = np.asarray((wall - day - elapsed) / period)
        last = int(np.argmax(ahead != 0))
        if not ahead[last] or (ahead[last] < 0) != odd[text]:
            return {}
        changes[text] = (last, int(ahead[last]))
    return changes


def _later(numbers: pa.Array, *, last: int, ahead: int) -> pa.Array:
    return pc.if_else(pc.greater(numbers, last), pc.add(numbers, ahead), numbers)


def on_the_clock(
    dates: pa.Array, periods: pa.Array, changes: Mapping[str, tuple[int, int]]
) -> pa.Array:
    """Return the texts of the periods in which the clock shows the time that has elapsed."""
    for date, (last, ahead) in changes.items():
        later = number_texts(periods, partial(_later, last=last, ahead=ahead))
        periods = pc.if_else(pc.equal(pc.utf8_trim_whitespace(dates), date), later, periods)
    return periods


def are_halves(column: Column) -> bool:
    """Tell whether cells are AM and PM."""
    return are_mostly(lambda text: _HALF.fullmatch(text.strip()) is not None, column.sample)


def has_fractions(time: Column) -> bool:
    """Tell whether stamps have decimals of a second."""
    return any(re.search(r":\d{2}[.,]\d", text) for text in time.sample)


def is_text(type_: pa.DataType) -> bool:
    """Tell whether a type is one of the string types."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def cast_batch(
    batch: pa.RecordBatch,
    types: dict[str, pa.DataType],
    source: str,
    texts: TextNumbers | None = None,
) -> pa.RecordBatch:
    """Return the columns that `types` names, cast. Raises `DataError` where that is impossible.

    Of the columns that `texts` knows, texts are read as numbers.
    """
    arrays = []
    for name, type_ in types.items():
        array = batch.column(name)

        is_time = pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)
        if is_time and pa.types.is_timestamp(type_):
            has_zone = getattr(array.type, "tz", None) is not None
            if has_zone != (type_.tz is not None):
                article, verb = ("a", "have none") if has_zone else ("no", "do")
                raise DataError(
                    f"the timestamps in column {name!r} of {source} have {article} time zone, "
                    f"but others {verb}",
                    code="mixed-zones",
                    location=Location(source, column=name),
                    hint="write all timestamps with a time zone or all without one",
                )

        try:
            if texts is not None and name in texts.forms and pa.types.is_floating(type_):
                strings = _cast(array, pa.string())
                arrays.append(texts.convert(name, strings, type_, source))
            else:
                arrays.append(_cast(array, type_))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"cannot read column {name!r} of {source} as {type_}: {error}",
                code="unreadable",
                location=Location(source, column=name),
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=list(types))


def _recode(array: pa.DictionaryArray, type_: pa.DataType) -> pa.DictionaryArray:
    """Return texts with a dictionary of those that rows have, in the order of their first rows.

    They are never written out, as one long text may stand for many rows.
    """
    used = pc.unique(array.indices.drop_null())
    encoded = _cast(array.dictionary.take(used), type_).dictionary_encode()
    rows = pc.index_in(array.indices, used)
    return pa.DictionaryArray.from_arrays(encoded.indices.take(rows), encoded.dictionary)


def _decode(array: pa.DictionaryArray) -> pa.Array:
    """Return the value of each row. Raises `pa.ArrowInvalid` for texts that fill the memory."""
    if is_text(array.type.value_type):
        lengths = pc.binary_length(array.dictionary)
        if (pc.sum(lengths.take(array.indices)).as_py() or 0) > _MAX_DECODED_BYTES:
            raise pa.ArrowInvalid("its text values are too long")
    return array.dictionary_decode()


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast an array; decimals become floats by way of doubles, and texts of times stay texts.

    Whole numbers become texts where times are asked for: they are dates written as digits. Bytes
    become texts only where they are UTF-8, and times are those that microseconds hold, which an
    unsafe cast does not check.
    """
    if pa.types.is_dictionary(array.type):
        if pa.types.is_dictionary(type_):
            return _recode(array, type_.value_type)
        array = _decode(array)
    if pa.types.is_dictionary(type_):
        return _cast(array, type_.value_type).dictionary_encode()
    if is_text(array.type) and pa.types.is_timestamp(type_):
        return array
    if pa.types.is_integer(array.type) and pa.types.is_timestamp(type_):
        return array.cast(pa.string())  # dates such as 20240131, never counts

    if pa.types.is_decimal(array.type) and pa.types.is_floating(type_):
        array = array.cast(pa.float64())
    is_bytes = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    # Nanoseconds lose their last digits; coarser times may be too large for microseconds.
    is_time = pa.types.is_date(array.type) or pa.types.is_timestamp(array.type)
    is_coarse = is_time and getattr(array.type, "unit", None) != "ns"
    return array.cast(type_, safe=is_bytes or (is_coarse and pa.types.is_timestamp(type_)))


def without_empty_tail(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Leave out the last rows in which no cell has a value, as spreadsheets write them."""
    is_empty = np.ones(batch.num_rows, np.bool_)
    for column in batch.columns:
        if not column.null_count:
            return batch
        is_empty &= column.is_null().to_numpy(zero_copy_only=False)
    return batch.slice(0, int(np.flatnonzero(~is_empty).max(initial=-1)) + 1)
