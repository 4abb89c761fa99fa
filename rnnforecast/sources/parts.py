"""A time that is spread over columns: which of them hold its parts, and how these make one text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.sources.columns import (
    Column,
    Counts,
    are_halves,
    are_mostly,
    continues_within_hours,
    counts_by_one,
    fills_60,
    has_fractions,
    has_hours_to_12,
    infer_epoch_unit,
    is_called_split,
    is_time_of_day,
    parts_of_hour,
    repeats_row,
    split_of_hour,
)
from rnnforecast.sources.stamps import (
    MOSTLY,
    begin_of_period,
    clock_since_midnight,
    infer_forms,
    is_regular,
    number_texts,
    regularity,
)

_CALENDAR = ("year", "month", "day", "hour", "minute", "second")
DATE, CLOCK, DIGITS, DAY_OF_YEAR, OFFSET = "date", "clock", "digits", "day of year", "offset"
SIX_DIGITS = "six digits"
COUNTED_HOUR, HALF, QUARTER, WEEK = "counted hour", "half of the day", "quarter", "week"
MILLISECOND, MICROSECOND, HOURLY = "millisecond", "microsecond", "hour of a date"
"""What a column may hold besides: a date or a whole time; a time of day; one as digits, such as 130
for 01:30, or with seconds 013000; the day of the year; the offset from UTC; hours from 1 to 24
before parts of them; AM or PM; the quarter and the ISO week of a year; the millisecond or
microsecond of a second; whole times that lack the minute."""
_RANGES = {
    "year": (1700, 2099),
    "month": (1, 12),
    "day": (1, 31),
    DAY_OF_YEAR: (1, 366),
    "hour": (0, 24),
    "minute": (0, 59),
    "second": (0, 59),
    MILLISECOND: (0, 999),
    MICROSECOND: (0, 999_999),
    QUARTER: (1, 4),
    WEEK: (1, 53),
    DIGITS: (0, 2400),
    SIX_DIGITS: (0, 240_000),
}
"""The lowest and the highest number of each part; an hour may be 24, at the end of a day."""
_LAST_CENTURY = 1900
_ORDERS: tuple[tuple[str, ...], ...] = (
    _CALENDAR,
    ("day", "month", "year", "hour", "minute", "second"),
    ("month", "day", "year", "hour", "minute", "second"),
    ("year", "month", "day", DIGITS),
    ("year", DAY_OF_YEAR, "hour", "minute"),
    ("year", DAY_OF_YEAR, DIGITS),
    ("year", WEEK),
    ("year", QUARTER),
)
"""The orders in which columns of numbers hold a time; the last parts may be left out."""
_DATE_NAMES = ("date", "day", "datum", "fecha", "data")
_CLOCK_NAMES = ("time", "hour", "clock", "time_of_day", "zeit", "uhrzeit", "hora", "heure", "ora")
"""Names of columns that hold a date and a time of day, in several languages."""
_MIN_ROWS = 10
"""Fewer rows do not tell what numbers mean."""
_DAY_MINUTES = 1440
_N_DIGITS = {MILLISECOND: 3, MICROSECOND: 6}
"""Digits after the second."""
_PERIODS = (48, 96, 144, 288)
"""How many parts of equal length, counted from 1, markets and meters make of a day."""
_UNITS_S = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86_400.0}
"""Units in which a column may count the time since midnight, and their seconds."""
_PART_WORDS = {
    "month": ("month", "monat", "mois", "mese", "maand"),
    "day": (),
    DAY_OF_YEAR: ("julian",),
    "hour": ("hour", "stund", "hora", "heure"),
    "minute": ("minu",),
    "second": ("secon", "sekund", "segund"),
    MILLISECOND: ("millis", "milis"),
    MICROSECOND: ("micros", "mikros"),
    QUARTER: ("quart", "trimes", "kwart", "vierteljahr"),
    WEEK: ("week", "woche", "seman", "semain", "settim"),
}
"""How words begin, in several languages, that name a part of a time beside the others."""
_SHORT_NAMES = {
    "month": ("mo", "mon", "mth", "mm", "mes"),
    "day": ("day", "days", "dd", "dy", "tag", "dia", "jour", "giorno", "dag"),
    DAY_OF_YEAR: ("doy", "yday", "jday", "ddd", "jd"),
    "hour": ("hr", "hrs", "hh", "ora", "ore", "std", "uur"),
    "minute": ("min", "mins", "mm", "mi"),
    "second": ("sec", "secs", "ss"),
    MILLISECOND: ("ms", "msec", "msecs"),
    MICROSECOND: ("us", "usec", "usecs", "\u00b5s"),
    QUARTER: ("q", "qtr"),
    WEEK: ("wk", "kw"),
}
_QUARTERS = (0.25, 0.5, 0.75)
"""What follows the point of decimal hours that go by 1; 0.3 may be 30 minutes, or 18."""
_FEWEST_STEPS = 24
"""A day has as many steps, or more, where a column counts the time since midnight."""
_STEP_ERROR = 0.02
"""How far steps of rounded numbers differ from each other, as a share."""
_MIDNIGHT = r"[T ]0?0:00(:00(\.0*)?)?$"
"""What dates have where a tool writes whole stamps."""
_INTERVAL_END = r"[\s\x{a0}\x{202f}]*[-\x{2013}].*$"
"""The end of an interval between two times of day."""
_INTERVAL = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*[-\u2013]\s*\d{1,2}(?::\d{2})?")
_MONTH = re.compile(r"\d{4}-?(0[1-9]|1[0-2])")
_HALF_AT_END = r"(?i)^(.*?)(\s*[ap]\.?m\.?)?$"
_CODE = re.compile(r"([MQW])0?(\d{1,2})")
_CODE_LETTER = r"^[MQW]0?(\d)"
"""What offices of statistics write before the number of a month, quarter or week."""
_CODED = {"M": ("month", 12), "Q": (QUARTER, 4), "W": (WEEK, 52)}
"""What numbers behind these letters count, and how many a year has at least; one more follows for
the whole year, or in long years."""
_OFFSET = re.compile(r"[+-](0\d|1[0-4]):?[0134][05]|Z")
"""An offset from UTC, in quarters of an hour."""


@dataclass(frozen=True)
class TimeParts:
    """Columns that hold a time together."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """What each column holds; nothing where their texts stand side by side."""

    def plus(self, column: Column, kind: str) -> TimeParts:
        """Return these columns and another one, which holds the next part."""
        return TimeParts((*self.names, column.name), (*self.kinds, kind))

    def select(self, columns: Sequence[Column]) -> list[Column]:
        """Return these of the columns of a table."""
        by_name = {column.name: column for column in columns}
        return [by_name[name] for name in self.names]

    def join(self, texts: Sequence[pa.Array]) -> pa.Array:
        """Join the texts of the columns, `(row,)` each, to stamps; null where a part is missing."""
        trimmed = [pc.utf8_trim_whitespace(text) for text in texts]
        part = dict(zip(self.kinds, trimmed, strict=False))
        for kind in part.keys() & _RANGES.keys():
            part[kind] = pc.replace_substring_regex(part[kind], r"\.0*$", "")

        if not part or part.keys() == {DATE, HALF}:
            return pc.binary_join_element_wise(*trimmed, " ")
        if len(part) == 2 and part.keys() < {DATE, "second", *_N_DIGITS}:
            return _with_finer(part[DATE], part)
        if HOURLY in part:
            before = pc.replace_substring_regex(part[HOURLY], r":00.*$", "")
            after = pc.replace_substring_regex(part[HOURLY], r"^.*?:00", "")
            return pc.binary_join_element_wise(before, ":", _minute_of(part), after, "")
        if part.keys() == {DATE, "day"}:
            month = pc.replace_substring(part[DATE], "-", "")
            return pc.binary_join_element_wise(month, _two_digits(part, "day", ""), "")
        if part.keys() <= {DATE, OFFSET}:
            return pc.binary_join_element_wise(*trimmed, "")
        for kind, mark in ((WEEK, "-W"), (QUARTER, "Q")):
            if kind in part:
                part[kind] = pc.replace_substring_regex(part[kind], _CODE_LETTER, r"\1")
                number = _two_digits(part, kind, "") if kind == WEEK else part[kind]
                return pc.binary_join_element_wise(part["year"], mark, number, "")
        if part.keys() == {"year", "month"}:
            part["month"] = pc.replace_substring_regex(part["month"], _CODE_LETTER, r"\1")
        if DATE in part:
            pieces = [pc.replace_substring_regex(part[DATE], _MIDNIGHT, "")]
        elif DAY_OF_YEAR in part:
            pieces = [part["year"], "-", pc.utf8_lpad(part[DAY_OF_YEAR], 3, "0")]
        else:
            month, day = _two_digits(part, "month", "01"), _two_digits(part, "day", "01")
            pieces = [pc.utf8_lpad(part["year"], 4, "0"), "-", month, "-", day]

        offset = [part[OFFSET]] if OFFSET in part else []
        half = [" ", part[HALF]] if HALF in part else []
        return pc.binary_join_element_wise(*pieces, " ", *_clock_of(part), *half, *offset, "")


def _two_digits(part: Mapping[str, pa.Array], kind: str, default: str) -> pa.Array | str:
    """Return the texts of a part, with a 0 before a single digit, or the default without it."""
    return pc.utf8_lpad(part[kind], 2, "0") if kind in part else default


def _clock_of(part: Mapping[str, pa.Array]) -> list[Any]:
    """Return the pieces of the time of day."""
    if CLOCK in part:
        return [_with_finer(pc.replace_substring_regex(part[CLOCK], _INTERVAL_END, ""), part)]
    if DIGITS in part:
        digits = pc.utf8_lpad(part[DIGITS], 4, "0")
        clock = [pc.utf8_slice_codeunits(digits, 0, 2), ":", pc.utf8_slice_codeunits(digits, 2)]
    elif SIX_DIGITS in part:
        digits = pc.utf8_lpad(part[SIX_DIGITS], 6, "0")
        clock = [pc.replace_substring_regex(digits, r"^(..)(..)(..)$", r"\1:\2:\3")]
    elif periods := next(filter(n_periods_of, part), None):
        clock = [begin_of_period(part[periods], n_periods_of(periods))]
    elif unit := next((kind for kind in part if kind in _UNITS_S), None):
        clock = [clock_since_midnight(part[unit], _UNITS_S[unit])]
    else:
        hour, minute = _two_digits(part, "hour", "00"), _minute_of(part)
        if COUNTED_HOUR in part:
            begin = number_texts(part[COUNTED_HOUR], lambda n: pc.subtract(n, 1))
            hour = pc.utf8_lpad(begin, 2, "0")
        clock = [hour, ":", minute]
        clock += [":", _two_digits(part, "second", "")] if "second" in part else []
    return clock + _fraction_of(part)


def _minute_of(part: Mapping[str, pa.Array]) -> pa.Array | str:
    """Return the minute, which may be that in which a counted part of the hour begins."""
    split = next((kind for kind in part if parts_of_hour(kind)[0]), None)
    if split is None:
        return _two_digits(part, "minute", "00")
    n_parts, lowest = parts_of_hour(split)
    minute = number_texts(part[split], lambda n: pc.multiply(pc.subtract(n, lowest), 60 // n_parts))
    return pc.utf8_lpad(minute, 2, "0")


def _with_finer(clock: pa.Array, part: Mapping[str, pa.Array]) -> pa.Array:
    """Add the second and the millisecond, where there are any, to stamps or times of day.

    They stand before AM or PM.
    """
    pieces = [pc.replace_substring_regex(clock, _HALF_AT_END, r"\1")]
    if "second" in part:
        pieces += [":", pc.utf8_lpad(part["second"], 2, "0")]
    pieces += _fraction_of(part)
    half = pc.replace_substring_regex(clock, _HALF_AT_END, r"\2")
    return pc.binary_join_element_wise(*pieces, half, "")


def _fraction_of(part: Mapping[str, pa.Array]) -> list[Any]:
    """Return the pieces of a stamp that follow the second."""
    kind = next((kind for kind in _N_DIGITS if kind in part), None)
    return [] if kind is None else [".", pc.utf8_lpad(part[kind], _N_DIGITS[kind], "0")]


def named_parts(columns: Sequence[Column], names: tuple[str, ...]) -> TimeParts:
    """Return what each of the columns holds that a user, or a stored schema, calls the time."""
    by_name = _calendar_by_name(names) or next(
        iter(_calendar_by_codes([column for column in columns if column.name in names])), None
    )
    if by_name is not None and len(by_name.names) == len(names):
        return by_name
    parts = TimeParts(names, ()).select(columns)
    date = next((column for column in parts if column.kind == "time"), None)
    split = split_of_hour(parts[-1], parts[:-1]) if date is parts[0] and _is_hourly(date) else None
    if split is not None and len(parts) == 2:
        return TimeParts(names, (HOURLY, split))
    if date is not None:
        kinds: list[str | None] = []
        for number, column in enumerate(parts):
            kind = _kind_beside(column, date)
            finer = [part for part in _CALENDAR[3:] if part not in kinds]
            is_finer = bool(finer) and "hour" in kinds and kind in ("hour", DIGITS)
            has_hours = is_finer and finer[0] == "minute"
            split = split_of_hour(column, parts[:number]) if has_hours else None
            if split is not None:
                kind = split
            elif is_finer and _is_within(column, finer[0]):
                kind = None if has_hours and is_called_split(column) else finer[0]
            is_below_100 = column.integers.max(initial=0) < 100  # no times of day such as 1430
            kinds.append(None if kind == DIGITS and is_below_100 else kind)
        is_known = None not in kinds and len(set(kinds)) == len(kinds)
        known = tuple(filter(None, kinds)) if is_known else ()
        return _with_counted_hours(TimeParts(names, known), columns)

    orders = [order[: len(parts)] for order in _ORDERS if len(order) >= len(parts)]
    is_week = len(parts) > 1 and _is_called(parts[1], WEEK)
    stamps = {order: _stamps_of(parts, order) for order in orders}
    fitting = [o for o in orders if stamps[o] and not (is_week and DAY_OF_YEAR in o)]
    return TimeParts(names, max(fitting, key=lambda order: regularity(stamps[order]), default=()))


def infer_parts(columns: Sequence[Column]) -> list[TimeParts]:
    """Return the columns that hold the time together; none where one column holds it.

    Where the cells do not tell whether they do, there are several ways, the likeliest first.
    """
    ways = _infer_parts(columns)
    times = [column for column in columns if column.kind == "time"]
    is_hourly = not ways and len(times) == 1 and _is_hourly(times[0])
    if not is_hourly and not (ways and ways[0].kinds[-1:] == ("hour",)):
        return ways

    # Numbers that count the parts of each hour may be those of sensors, but for their names, and
    # for readings that go on from part to part.
    coarse = TimeParts((times[0].name,), (HOURLY,)) if is_hourly else ways[0]
    hours = coarse.select(columns)
    candidates = columns if repeats_row(hours).sum() >= _MIN_ROWS else ()
    for column in candidates:
        split = split_of_hour(column, hours)
        if split is None or column in hours:
            continue
        is_named = is_hourly and (is_called_split(column) or _is_called(column, "minute"))
        continues = any(
            continues_within_hours(c, column, hours) for c in columns if c is not column
        )
        parts = _with_counted_hours(coarse.plus(column, split), columns)
        if parts.kinds and is_named and continues:
            return [parts]
        if parts.kinds and (is_named or continues):
            return [parts, *(ways or [coarse])]
    return ways


def _is_hourly(time: Column) -> bool:
    """Tell whether all stamps have a time of day, and are whole hours."""
    pattern = re.compile(r"[T ]\d{1,2}:00(?![:.]?\d)|[T ]\d{1,2}:00:00(\.0+)?(?!\d)")
    return not _is_date(time) and all(map(pattern.search, time.sample))


def _infer_parts(columns: Sequence[Column]) -> list[TimeParts]:
    """Return the ways in which columns hold the time, but for counted parts without a name."""
    times = [column for column in columns if column.kind == "time"]
    if not times:
        by_name = _calendar_by_name([column.name for column in columns])
        if by_name is None:
            return _calendar_by_codes(columns) or _calendar_by_numbers(columns)
        return [_with_finer_parts(by_name, columns)]

    date = next((column for column in times if _is_date(column)), None)
    if date is not None and _is_month(date):
        days = [column for column in columns if _is_day_of(column, date)]
        return [TimeParts((date.name, days[0].name), (DATE, "day"))] if days else []
    clock = next(((c, CLOCK) for c in columns if are_mostly(is_time_of_day, c.sample)), None)
    if date is not None and clock is None and all(map(_is_date, times)):
        hours = [(c, kind) for c in columns if (kind := _hours_of(c, date))]
        hours += [(c, "hour") for c in columns if _is_hour_by_name(c, date)]
        clock = next(iter(hours), None)
    if date is not None and clock is not None:
        column, kind = clock
        parts = TimeParts((date.name, column.name), (DATE, kind))
        has_date_name = date.name.strip().casefold() in _DATE_NAMES
        has_clock_name = column.name.strip().casefold() in _CLOCK_NAMES
        is_sure = kind in (DIGITS, SIX_DIGITS) or (has_date_name and has_clock_name)
        parts = _with_finer_parts(parts, columns)
        return [parts] if is_sure else [parts, TimeParts((date.name,), (DATE,))]

    half = next(filter(are_halves, columns), None)
    if half is not None and len(times) == 1 and has_hours_to_12(times[0]):
        return [TimeParts((times[0].name, half.name), (DATE, HALF))]
    finer = _finer_than(times, columns)
    if finer is not None:
        return [finer]
    offset = next((column for column in columns if _are_offsets(column)), None)
    has_zone = times[0].tz or re.search(rf"({_OFFSET.pattern})$", times[0].sample[0].strip())
    if offset is None or len(times) > 1 or has_zone:
        return []
    return [TimeParts((times[0].name, offset.name), (DATE, OFFSET))]


def _finer_than(times: Sequence[Column], columns: Sequence[Column]) -> TimeParts | None:
    """Return whole stamps with the seconds or milliseconds beside them, if they lack these."""
    if len(times) > 1 or repeats_row(times).sum() < _MIN_ROWS:
        return None
    time = times[0]
    for column in columns:
        if _is_second_of(column, time):
            return TimeParts((time.name, column.name), (DATE, "second"))
        fraction = _fraction_kind(column)
        if fraction is not None and not has_fractions(time):
            return TimeParts((time.name, column.name), (DATE, fraction))
    return None


def _is_second_of(column: Column, time: Column) -> bool:
    """Tell whether a column is called the second, and changes, beside times without seconds."""
    if not (_is_called(column, "second") and _is_within(column, "second")):
        return False
    is_plain = _is_called_plainly(column, "second") or fills_60(column)
    has_seconds = any(text.count(":") != 1 for text in time.sample)
    return is_plain and len(set(column.sample)) > 1 and not has_seconds


def _is_hour_by_name(column: Column, date: Column) -> bool:
    """Tell whether a column is called the hour of dates that come several times."""
    if not (_is_called(column, "hour") and _is_within(column, "hour")):
        return False
    dates, numbers = np.array(date.sample), column.integers
    if len(dates) != len(numbers):
        return False
    steps = np.diff(numbers)[dates[1:] == dates[:-1]]
    return len(steps) >= _MIN_ROWS and bool(np.mean(steps >= 0) >= MOSTLY)


def _is_called(column: Column, part: str) -> bool:
    """Tell whether a word of a column's name may mean a part of a time of day."""
    words = re.split(r"[\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", column.name).casefold())
    return any(w.startswith(_PART_WORDS[part]) or w in _SHORT_NAMES.get(part, ()) for w in words)


def _is_called_plainly(column: Column, part: str) -> bool:
    """Tell whether a column's name is one word that means nothing else."""
    name = column.name.strip().casefold()
    return name.isalpha() and name.startswith(_PART_WORDS[part])


def _with_finer_parts(parts: TimeParts, columns: Sequence[Column]) -> TimeParts:
    """Add the minute to an hour, and the second to a minute, or a part of the hour, counted.

    Likewise the half of the day, and the millisecond.
    """
    parts = _with_minutes(parts, columns)
    if parts.kinds == (DATE, CLOCK):
        clock = parts.select(columns)[1]
        second = next((column for column in columns if _is_second_of(column, clock)), None)
        if second is not None:
            parts = parts.plus(second, "second")
    for column in columns:
        fraction = _fraction_kind(column)
        if parts.kinds[-1] in ("hour", "minute", "second", CLOCK) and are_halves(column):
            parts = parts.plus(column, HALF)
        elif parts.kinds[-1] in ("second", CLOCK) and fraction is not None:
            parts = parts.plus(column, fraction)
    if parts.kinds[-1] == "hour":
        hours = parts.select(columns)
        splits = ((c, split_of_hour(c, hours)) for c in columns if is_called_split(c))
        parts = next((parts.plus(c, kind) for c, kind in splits if kind is not None), parts)
    return _with_counted_hours(parts, columns)


def _with_minutes(parts: TimeParts, columns: Sequence[Column]) -> TimeParts:
    """Add the minute to an hour, and the second to a minute: columns that are called so.

    Other names than one plain word also have to fill the hour in equal steps: `min` may be the
    least reading, `mm` is rain, and `per_minute` a rate.
    """
    for part, coarser in (("minute", "hour"), ("second", "minute")):
        if coarser not in parts.kinds or part in parts.kinds:
            break
        candidates = [c for c in columns if _is_called(c, part) and _is_within(c, part)]
        is_repeated = repeats_row(parts.select(columns)).sum() >= _MIN_ROWS
        plain = [c for c in candidates if _is_called_plainly(c, part)]
        chosen = [c for c in plain if is_repeated or len(set(c.sample)) > 1]
        chosen = chosen or list(filter(fills_60, candidates))
        if not chosen:
            break
        parts = parts.plus(chosen[0], part)
    return parts


def _with_counted_hours(parts: TimeParts, columns: Sequence[Column]) -> TimeParts:
    """Take hours from 1 to 24 as counted where they are followed by a part of them.

    Of hours that are neither 0 nor 24 nothing tells what parts that are counted, too, belong to.
    """
    kinds = parts.kinds
    finer = next((kind for kind in kinds if kind == "minute" or parts_of_hour(kind)[0]), None)
    if "hour" not in kinds or finer is None:
        return parts
    by_kind = dict(zip(kinds, parts.select(columns), strict=True))
    hours, later = by_kind["hour"].integers, by_kind[finer].integers
    if (hours == 0).any() or len(hours) != len(later):
        return parts
    if (later[hours == 24] > later.min()).any():
        return replace(parts, kinds=tuple(COUNTED_HOUR if k == "hour" else k for k in kinds))
    return replace(parts, kinds=()) if finer != "minute" else parts


def _calendar_by_name(names: Sequence[str]) -> TimeParts | None:
    """Return the columns called year, month and so on, if there are two of them or more."""
    by_part = {name.strip().casefold(): name for name in reversed(names)}
    kinds = tuple(kind for kind in _CALENDAR if kind in by_part)
    if kinds == ("year",):
        kinds += tuple(kind for kind in (QUARTER, WEEK) if kind in by_part)[:1]
    elif kinds != _CALENDAR[: len(kinds)]:
        return None
    if len(kinds) < 2:
        return None
    return TimeParts(tuple(by_part[kind] for kind in kinds), kinds)


def _calendar_by_codes(columns: Sequence[Column]) -> list[TimeParts]:
    """Return a year and the column of its months, quarters or weeks, such as M01, if there is one.

    Where they do not follow each other they may as well name series: there are two ways.
    """
    year = next((column for column in columns if _is_within(column, "year")), None)
    for column in columns:
        matches = [_CODE.fullmatch(text.strip()) for text in column.sample]
        letters = {match[1] if match else "" for match in matches}
        if year is None or len(matches) != len(year.sample) or len(letters) != 1:
            continue
        kind, n_codes = _CODED.get(letters.pop(), ("", 0))
        if not kind:
            continue
        numbers = np.array([int(match[2]) for match in matches if match is not None])
        is_part = numbers <= n_codes  # what comes behind is a mean of the year, or a 53rd week
        steps = np.diff((year.integers * n_codes + numbers)[is_part])
        parts = TimeParts((year.name, column.name), ("year", kind))
        is_sure = len(steps) > 0 and np.mean(steps == 1) >= MOSTLY
        return [parts] if is_sure else [parts, TimeParts((year.name,), ("year",))]
    return []


def _calendar_by_numbers(columns: Sequence[Column]) -> list[TimeParts]:
    """Return neighbouring columns of numbers that are dates in regular steps, if there are any.

    The last one changes. Where one follows that may be the minute of all readings, there are two
    ways.
    """
    if any(infer_epoch_unit(column.integers) for column in columns):
        return []
    has_years = [_is_within(column, "year") for column in columns]
    best: tuple[tuple[int, float], Sequence[Column], tuple[str, ...], int] | None = None
    for order in _ORDERS:
        place = order.index("year")
        for first in range(len(columns) - place):
            if not has_years[first + place]:
                continue
            for n_parts in range(place + 1, min(len(order), len(columns) - first) + 1):
                group = columns[first : first + n_parts]
                if QUARTER in order and not _is_called(group[-1], QUARTER):
                    continue  # the numbers of four sensors
                if DAY_OF_YEAR in order[:n_parts] and _is_called(group[1], WEEK):
                    continue
                stamps = _stamps_of(group, order[:n_parts])
                n_stamps = len(set(stamps))
                if n_stamps < _MIN_ROWS or (best is not None and n_stamps < best[0][0]):
                    continue
                score = n_stamps, regularity(stamps)
                if is_regular(stamps) and (best is None or score > best[0]):
                    best = score, group, order, first + n_parts
    if best is None:
        return []

    _, group, order, end = best
    ways = [TimeParts(tuple(column.name for column in group), order[: len(group)])]
    if len(group) == 2 and not _is_part_of_year(group[1], group[0], order[1]):
        return [*ways, TimeParts((group[0].name,), order[:1])]
    is_followed = len(group) < len(order) and order[len(group)] == "minute" and end < len(columns)
    if is_followed and _is_within(columns[end], "minute") and len(set(columns[end].sample)) == 1:
        names = (*ways[0].names, columns[end].name)
        ways.insert(0, TimeParts(names, order[: len(names)]))
        if float(columns[end].sample[0]) == 0:
            ways.pop()
    return ways


def _is_part_of_year(column: Column, year: Column, kind: str) -> bool:
    """Tell whether a column after the year is its month, week or day, and not a number of sensors.

    Its name says so, or it counts all days of all years but the last.
    """
    if _is_called(column, kind):
        return True
    years, numbers = year.integers, column.integers
    highest = [int(numbers[years == number].max()) for number in np.unique(years)[:-1]]
    return kind == DAY_OF_YEAR and min(highest, default=0) >= 365


def _stamps_of(columns: Sequence[Column], kinds: Sequence[str]) -> list[str]:
    """Return the times that columns of numbers hold, in ISO 8601; none where they cannot."""
    numbers = [column.integers for column in columns]
    lengths = {len(values) for values in numbers}
    if len(lengths) != 1 or not all(map(_is_within, columns, kinds)):
        return []
    part = dict(zip(kinds, numbers, strict=True))
    zero, one = np.zeros(lengths.pop(), np.int64), np.ones(1, np.int64)
    if "year" not in part:
        return []

    months = (part["year"] - 1970) * 12 + part.get("month", 3 * part.get(QUARTER, one) - 2) - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]")
    days = days + (part.get("day", one) - 1).astype("timedelta64[D]")
    if (days.astype("datetime64[M]").astype(np.int64) != months).any():
        return []  # a thirtieth of February
    days = days + (part.get(DAY_OF_YEAR, one) - 1).astype("timedelta64[D]")
    if WEEK in part:  # the first week has the fourth of January, and begins on a Monday
        fourth = days + np.timedelta64(3, "D")
        monday = fourth - (fourth.astype(np.int64) + 3) % 7
        days = monday + (7 * (part[WEEK] - 1)).astype("timedelta64[D]")
    minutes = part.get("hour", zero) * 60 + part.get("minute", zero)
    minutes = minutes + _minutes_of_digits(part.get(DIGITS, zero))
    seconds = minutes * 60 + part.get("second", zero)
    stamps = days.astype("datetime64[s]") + seconds.astype("timedelta64[s]")
    texts: list[str] = np.datetime_as_string(stamps).tolist()
    return texts


def _minutes_of_digits(digits: Counts) -> Counts:
    """Return the minutes since midnight of times of day such as 1430."""
    return digits // 100 * 60 + digits % 100


def _is_within(column: Column, kind: str) -> bool:
    """Tell whether a column holds whole numbers, all of which may be this part of a time.

    A time of day may be an interval between two.
    """
    if kind == CLOCK:
        return bool(column.sample) and all(_INTERVAL.fullmatch(t.strip()) for t in column.sample)
    low, high = _RANGES.get(kind) or (1, n_periods_of(kind) * 25 // 24)
    numbers = column.integers
    if not (len(numbers) and low <= numbers.min() and numbers.max() <= high):
        return False
    if kind == "year":  # records that begin earlier go on in the last century
        return bool(numbers.max() >= _LAST_CENTURY)
    return kind != DIGITS or bool((numbers % 100 < 60).all())


def _is_date(column: Column) -> bool:
    """Tell whether stamps are dates without a time of day, or all of them are of midnight."""
    if column.tz:
        return False
    bare = list({re.sub(_MIDNIGHT, "", text.strip()) for text in column.sample})
    if any(":" in text for text in bare):
        return False
    forms = infer_forms(bare)
    return not any((forms[0].parts(text) or {}).get("H") for text in bare) if forms else True


def _is_month(column: Column) -> bool:
    """Tell whether cells are a year and a month, such as 202609."""
    return bool(column.sample) and all(_MONTH.fullmatch(text.strip()) for text in column.sample)


def _is_day_of(column: Column, month: Column) -> bool:
    """Tell whether a column holds the days of months, in regular steps.

    It is called so, or reaches the last day of each month: so do no numbers of sensors.
    """
    if not _is_within(column, "day") or len(column.sample) != len(month.sample):
        return False
    months = [text.strip().replace("-", "") for text in month.sample]
    year = Column("year", "number", tuple(text[:4] for text in months))
    number = Column("month", "number", tuple(text[4:] for text in months))
    stamps = _stamps_of([year, number, column], _CALENDAR[:3])
    if len(set(stamps)) < _MIN_ROWS or not is_regular(stamps):
        return False
    days = np.unique(np.array(stamps, "datetime64[D]"))
    is_last = days[:-1].astype("datetime64[M]") != days[1:].astype("datetime64[M]")
    ends = (days[:-1] + 1).astype("datetime64[M]") != days[:-1].astype("datetime64[M]")
    is_whole = bool(is_last.any() and ends[is_last].all())
    return _is_called(column, "day") or is_whole


def _hours_of(column: Column, date: Column) -> str | None:
    """Return how a column tells the hour of dates that come several times; None if it does not.

    Within a day it goes up, or down, and its steps are equal and fill all of a day. So do names of
    24 sensors.
    """
    dates = np.array(date.sample)
    if len(column.sample) != len(dates):
        return None
    is_named = column.name.strip("<> ").casefold() in _CLOCK_NAMES
    if _are_six_digits(column) and (is_named or len(set(column.sample)) >= _FEWEST_STEPS):
        return SIX_DIGITS
    since_midnight = _unit_since_midnight(column, dates)
    if since_midnight is not None:
        return since_midnight
    for kind in filter(None, ("hour", DIGITS, CLOCK, _periods_of(column))):
        if not _is_within(column, kind):
            continue
        minutes = _minutes_of(column, kind)
        steps = np.diff(minutes)[dates[1:] == dates[:-1]]
        if np.count_nonzero(steps) < _MIN_ROWS:
            continue
        if max(np.mean(steps >= 0), np.mean(steps <= 0)) < MOSTLY:
            continue
        begins = np.unique(minutes)
        lengths = np.diff(begins)
        fills = (lengths == lengths[0]).all() and len(begins) * lengths[0] == _DAY_MINUTES
        if fills or (is_named and kind == "hour"):
            return kind
    return None


def _are_six_digits(column: Column) -> bool:
    """Tell whether cells are hours, minutes and seconds as digits, such as 093000, all in range."""
    if not all(re.fullmatch(r"\d{6}", text.strip()) for text in column.sample):
        return False
    numbers = column.integers
    is_clock = (numbers % 100 < 60) & (numbers // 100 % 100 < 60)
    return len(numbers) >= _MIN_ROWS and _is_within(column, SIX_DIGITS) and bool(is_clock.all())


def _unit_since_midnight(column: Column, dates: NDArray[np.str_]) -> str | None:
    """Return the unit in which a column counts the time since midnight; None if it does not.

    Within a day it goes up in equal steps, and it begins again with the next. The unit is that in
    which the steps fill a day, or without a midnight that of the name. Whole hours and periods are
    told by other rules.
    """
    numbers = column.floats
    if column.kind != "number" or len(numbers) != len(dates):
        return None
    steps, is_same = np.diff(numbers), dates[1:] == dates[:-1]
    steps, begins = steps[is_same], numbers[1:][~is_same]
    if len(steps) < _MIN_ROWS:
        return None
    step, highest = float(np.median(steps)), float(numbers.max())
    is_even = np.abs(steps - step) <= _STEP_ERROR * step + 1e-9
    offset = numbers % 1
    are_centres = offset[0] in _QUARTERS and bool((offset == offset[0]).all())
    if step <= 0 or is_even.mean() < MOSTLY or begins.max(initial=0) > highest / 2:
        return None
    if step == 1 and not are_centres:
        return None  # by 1 go hours, periods and the numbers of rows
    lengths = {unit: _DAY_MINUTES * 60 / seconds for unit, seconds in _UNITS_S.items()}
    possible = [
        u for u, length in lengths.items() if highest < length > (_FEWEST_STEPS - 0.5) * step
    ]
    if len(begins):
        return next((u for u in possible if highest + step >= 0.99 * lengths[u]), None)
    name = column.name.strip().casefold()
    return next((u for u in possible if name.startswith(u[:3])), None)


def _periods_of(column: Column) -> str | None:
    """Return what a column holds that counts the parts of a day, such as `48 periods`."""
    numbers = column.integers
    highest = numbers.max(initial=0)
    n_periods = next((n for n in _PERIODS if highest <= n * 25 // 24), 0)
    return f"{n_periods} periods" if n_periods and highest > 24 and numbers.min() == 1 else None


def n_periods_of(kind: str) -> int:
    """Return how many parts of a day a column counts; 0 for another kind."""
    return int(kind.removesuffix(" periods")) if kind.endswith(" periods") else 0


def _minutes_of(column: Column, kind: str) -> Counts:
    """Return minutes since midnight, of hours, digits such as 1430, intervals, and periods."""
    if kind == CLOCK:
        begins = [_INTERVAL.fullmatch(text.strip()) for text in column.sample]
        return np.array([60 * int(m[1]) + int(m[2] or 0) for m in begins if m is not None])
    numbers = column.integers
    if n_periods_of(kind):
        return (numbers - 1) * (_DAY_MINUTES // n_periods_of(kind)) % _DAY_MINUTES
    return numbers * 60 if kind == "hour" else _minutes_of_digits(numbers)


def _kind_beside(column: Column, date: Column) -> str | None:
    """Return what a column holds that the user joins with a date."""
    if column is date:
        return DATE
    if _are_offsets(column):
        return OFFSET
    if _is_month(date) and _is_day_of(column, date):
        return "day"
    name = column.name.strip().casefold()
    if name in _CALENDAR[3:] and _is_within(column, name):
        return name
    if are_mostly(is_time_of_day, column.sample):
        return CLOCK
    if are_halves(column):
        return HALF
    fraction = _fraction_kind(column)
    if fraction is not None:
        return fraction
    if _is_within(column, "hour"):
        return "hour"
    if _are_six_digits(column):
        return SIX_DIGITS
    counted = _hours_of(column, date)
    if counted is not None and counted in (_periods_of(column), *_UNITS_S):
        return counted
    if counts_by_one(column):  # periods of a day on which the clock is changed, and no minutes
        return None
    return next((kind for kind in (DIGITS, CLOCK) if _is_within(column, kind)), None)


def _fraction_kind(column: Column) -> str | None:
    """Return whether a column counts milliseconds or microseconds, by its name; None for others.

    Some are 100 or more: a column `ms` of small numbers is in metres per second.
    """
    for kind in _N_DIGITS:
        if _is_called(column, kind) and _is_within(column, kind):
            return kind if column.integers.max() >= 100 else None
    return None


def _are_offsets(column: Column) -> bool:
    """Tell whether cells are offsets from UTC with a sign, such as +0100."""
    return are_mostly(lambda text: _OFFSET.fullmatch(text.strip()) is not None, column.sample)
