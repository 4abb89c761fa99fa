"""Time stamps: text or number to UTC microseconds and back; zones, daylight saving, formats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import available_timezones

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import DAY_US, WALL_CLOCK, Flags, TimeAxis, time_zone
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.sources.columns import Column, count_decimals
from rnnforecast.sources.source import Source
from rnnforecast.sources.stamps import (
    ZONES_CALLED,
    StampForm,
    choose_form,
    form_of_format,
    infer_forms,
    is_stamp,
    offset_minutes,
    with_english_half,
    with_english_halves,
)
from rnnforecast.units import (
    EPOCH_UNITS_US,
    EXCEL,
    OFFERED_ZONES,
    TICKS,
    TICKS_1970,
    YEAR,
    format_utc_offset,
)

if TYPE_CHECKING:
    from rnnforecast.tables.schema import Schema

MAX_OFFERED_ZONES = 3
_MAX_LISTED = 5
"""Offsets from UTC that a message lists."""
_UTC_OFFSET = re.compile(r"[T ]\d{1,2}:?\d{2}[\d:.,]* ?(Z|[+-]\d{2}(:?\d{2})?)$")
_OFFSET_AT_END = re.compile(r"(?:Z|[+-]\d{2}(?::?\d{2})?)$")
_LONGEST_OFFSET = 6
"""Characters of `+01:00`."""
_N_EVEN_ROWS = 50
"""Rows of a batch, evenly spread, whose offsets are examined in addition to those at changes."""
_WITHOUT_ZONE = re.compile(r"[\d\s:.,/-]*")
"""A stamp that names no zone and ends with none."""
_DECIMAL_MONTH = re.compile(r"\s*\d{4}\.\d{1,2}\s*")
"""A year and a month as a number, in which 1990.1 is October, but in ISO 8601 January."""
_MIDNIGHT = re.compile(r"(?<=[T ])24(?=:?00(?::?00(?:[.,]0+)?)?(?:\D|$))")
_HOUR_24 = re.compile(r"(?<=[T ])2[4-9](?=:?[0-5]\d)")
_AFTER_24, _MIN_AFTER_24 = re.compile(r"(?<=[T ])2[4-9]:[0-5]\d(?:\D|$)"), 3
"""A time of day that goes on after 24:00, and how many of them are no mistakes."""
_LEAP_SECOND = re.compile(r"(?<=:\d\d):60(?:[.,]\d+)?")
_MAX_FORMS = 3
"""Forms of stamps that are offered at once."""
_END_OF_SECOND_US = 999_000
"""A leap second is read as 59.999."""
_EXCEL_1970 = 25_569
"""1 January 1970 in days of a spreadsheet."""
_EXCEL_UNITS = (3600.0, 60.0, 1.0, 0.001)
"""Seconds to whose multiples days are rounded where their decimals allow it."""
_EXCEL_ERROR_S = 5e-6
"""What doubles leave of a time in days, as seconds."""
_PERIODS_OF_YEAR = (1, 2, 4, 12)
"""Years, halves, quarters and months in a year."""
_UNEVEN, _MAX_YEAR = 0.1, 10_000
"""Share by which a month may be shorter than a twelfth of a year; what is later is no year."""
REPAIR_MESSAGES = {
    "hour-24": "24:00 and later read as times of the next day",
    "leap-second": "leap second read as the end of the previous second",
    "interval": "time interval read as its start",
}
"""Messages, by warning code, for stamps that are read as a time near by."""
_END_OF_TIME_US = 2.0**63
_MONTHS, _MIN_TURNS = 12, 2
"""Months of a year, and how often the time goes back, at least, where day and month are taken to be
exchanged."""
_MAX_SET_BACK_US = 7_200_000_000
"""No clock is set back by more; times further apart belong to different years."""


@dataclass(frozen=True)
class Zone:
    """Whether stamps carry a zone, and the zone in which a forecast is written."""

    is_aware: bool
    name: str | None = None
    has_offsets: bool = False
    """Whether stamps carry offsets from UTC, which may change with the seasons."""

    @classmethod
    def of_column(cls, column: Column) -> Zone:
        """Infer it from the file, or its first stamps: one offset is kept, several become UTC."""
        if column.is_typed:
            return cls(is_aware=column.tz is not None, name=column.tz)
        texts = _zone_texts(column.sample)
        minutes = set(map(offset_minutes, texts)) - {None}
        if not minutes:
            return cls(is_aware=False)
        offset = minutes.pop() if len(minutes) == 1 else 0
        name = format_utc_offset(offset) if offset else "UTC"
        return cls(is_aware=True, name=name, has_offsets=not texts <= {"Z", "UTC"})


@cache
def known_zones() -> frozenset[str]:
    """Return the names of all time zones, which takes long to list."""
    return frozenset(available_timezones())


@lru_cache(maxsize=8)  # each column is looked at more than once
def _zone_texts(stamps: tuple[str, ...]) -> frozenset[str]:
    """Return the offsets and names of zones that stamps carry."""
    zones = set()
    forms: list[StampForm] = []
    for stamp in map(str.strip, stamps):
        match = _UTC_OFFSET.search(stamp)
        if match is not None:
            zones.add(match[1])
            continue
        if _WITHOUT_ZONE.fullmatch(stamp):
            continue
        text = with_english_half(stamp)
        if not forms or forms[0].parts(text) is None:
            forms = infer_forms([text])
        parts = forms[0].parts(text) if forms else None
        zones.add((parts or {}).get("z", ""))

    return frozenset(zones - {""})


def _check_zone_names(column: Column, source: str) -> None:
    """Raise `DataError` where stamps carry the name of a zone that says no offset."""
    name = next((zone for zone in _zone_texts(column.sample) if offset_minutes(zone) is None), None)
    if name is None:
        return
    zones = ZONES_CALLED.get(name.strip("()"), (name,) if name in known_zones() else ())
    raise DataError(
        f"the timestamps in column {column.name!r} have a time zone {name!r}, "
        + (f"which could be {' or '.join(zones)}" if zones else "which is unknown"),
        code="zone-name",
        location=Location(source, column=column.name),
        proposals=[Proposal(("--tz", zone), f"if they are in {zone}") for zone in zones],
        hint=None if zones else "give the time zone",
    )


_HISTORY, _MIN_HISTORY = (1700, 1900), 20
"""Years, and how many different stamps must lie in them, of readings that begin before 1900."""


@dataclass(frozen=True)
class TimestampReader:
    """Converts batches of one column's stamps to microseconds; errors name the line of the row."""

    source: Source
    schema: Schema
    config: DataConfig
    column: Column
    zone: Zone
    parser: TimestampParser
    repairs: Counter[str] = field(default_factory=Counter)
    """Number of stamps that were read as a time near by, by the code of the warning."""
    offsets: dict[int, list[Integers]] = field(default_factory=dict)
    """UTC times of stamps by their offset in minutes: a sample of each batch."""
    n_aware: list[int] = field(default_factory=list)
    """Rows of each batch that carried a zone although the column's own stamps carry none."""

    @classmethod
    def of(cls, source: Source, schema: Schema, config: DataConfig) -> TimestampReader:
        """Return a reader for the time column of a source."""
        column = next(c for c in source.columns if c.name == schema.time)
        zone = Zone.of_column(column)
        if not column.is_typed and column.kind == "time" and config.tz is None:
            _check_zone_names(column, source.name)
        day_us = 0 if config.midnight == "start" else DAY_US
        parser = TimestampParser(zone.is_aware, config.time_format, day_us)
        return cls(source, schema, config, column, zone, parser)

    @property
    def arrow_type(self) -> pa.DataType:
        """Type to read the column as; text that is not ISO 8601 comes as text nevertheless."""
        has_offsets = self._notes_offsets and not self.column.is_typed
        is_date = self.schema.epoch_unit is None and self.parser.format is None
        if self.column.is_typed or (is_date and not has_offsets):
            return pa.timestamp("us", tz="UTC" if self.zone.is_aware else None)
        return pa.float64() if self.schema.epoch_unit else pa.string()

    def read(self, array: pa.Array, n_before: int) -> Integers:
        """Convert one batch to microseconds, `(row,)`; `n_before` rows came in earlier batches."""
        if array.null_count:
            is_missing = array.is_null().to_numpy(zero_copy_only=False)
            raise self._error(
                "a row has no timestamp",
                "missing-time",
                n_before + int(np.argmax(is_missing)),
                hint="remove the row",
            )

        times: Integers
        if pa.types.is_timestamp(array.type):
            times = np.asarray(array.cast(pa.int64()).to_numpy())
            if array.type.tz is not None and not self.zone.is_aware:
                self.n_aware.append(len(times))
        elif self.schema.epoch_unit:
            numbers = array.to_numpy(zero_copy_only=False)
            times = _from_numbers(numbers, self.schema.epoch_unit, self.column.sample)
        else:
            times = self._parse_texts(array, n_before)

        change_us = self.config.date_change_us
        if change_us is not None and not self.repairs["hour-24"]:
            times = TimeAxis(self.zone.name, WALL_CLOCK).with_dates_from(change_us, times)

        is_outside = ~_are_in_years(times, self.config.years)
        if is_outside.any() and not self._is_history(times[is_outside]):
            first, end = self.config.years
            row = int(np.argmax(is_outside))
            year = 1970 + int(times[row].view("datetime64[us]").astype("datetime64[Y]").astype(int))
            years = f"{min(first, year):04d}:{max(end, year + 1)}"
            raise self._error(
                f"a timestamp is outside the years {first} to {end}",
                "time-range",
                n_before + row,
                proposals=[Proposal(("--time-range", years), "if it is correct")]
                * (1 <= year < 3000),
                hint="correct or remove the row",
            )
        return times

    def _is_history(self, times: Integers) -> bool:
        """Tell whether stamps before the years are meant: a climate is known for centuries.

        What loggers write for no time, such as 1899-12-31, is one stamp or a few.
        """
        is_history = bool(_are_in_years(times, _HISTORY).all())
        return is_history and len(np.unique(times)) >= _MIN_HISTORY

    def _parse_texts(self, array: pa.Array, n_before: int) -> Integers:
        """Parse a batch of texts; raise `DataError` for one that is no time, or of another kind."""
        column = self.schema.time
        try:
            parsed = self.parser.parse(array)
        except UnknownHalfError as error:
            raise self._unknown_half(error, str(array[error.row]), n_before) from None
        except AmbiguousDateError as error:
            readings = zip(*(form.to_iso(array).to_pylist() for form in error.forms), strict=True)
            n_dates = [len(set(dates)) for dates in readings]
            row = n_dates.index(max(n_dates))  # the text that tells most of the forms apart
            text = str(array[row])
            is_of_years = len({form.year_place for form in error.forms}) > 1
            raise self._error(
                f"day{', month and year' if is_of_years else ' and month'} cannot be "
                f"distinguished in column {column!r}",
                "ambiguous-date",
                n_before + row,
                proposals=[
                    Proposal(("--time-format", form.format_of(text)), f"if {text} is {date}")
                    for form in error.forms
                    for date in [form.date_in_words(text)]
                ],
            ) from None

        if parsed.is_bad.any():
            raise self._not_a_time(array, parsed.is_bad, n_before)
        if parsed.is_mixed.any():
            raise self._error(
                f"some timestamps in column {column!r} have a UTC offset, others do not",
                "mixed-zones",
                n_before + int(np.argmax(parsed.is_mixed)),
                hint="write the offset, such as +01:00 or Z, in every row or in none",
            )
        if parsed.repairs["leap-second"] and self.config.leap_second != "clamp":
            has_leap_second = [_LEAP_SECOND.search(str(text)) is not None for text in array]
            raise self._error(
                "a timestamp is a leap second",
                "leap-second",
                n_before + has_leap_second.index(True),
                proposals=[
                    Proposal(
                        ("--leap-second", "clamp"), "to read it as the end of the previous second"
                    )
                ],
            )
        self.repairs.update(parsed.repairs)
        if self._notes_offsets:
            self._note_offsets(parsed)
        return parsed.times

    def _unknown_half(self, error: UnknownHalfError, text: str, n_before: int) -> DataError:
        """Return an error that asks what the text beside hours from 1 to 12 means."""
        mark = error.forms[0].clock_mark
        return self._error(
            f"hours are from 1 to 12 in column {self.schema.time!r}, and the text {mark!r} may "
            "mean morning or afternoon",
            "half-of-day",
            n_before + error.row,
            proposals=[
                Proposal(("--time-format", form.format_of(text)), f"if {text} is {moment}")
                for form in error.forms
                for moment in [form.moment_in_words(text)]
            ],
            hint=f"or write AM or PM in place of {mark!r}",
        )

    @property
    def _notes_offsets(self) -> bool:
        """Whether it is noted which offsets stamps carry: a model has its zone already."""
        return self.zone.has_offsets and self.schema.step_us is None

    def _note_offsets(self, parsed: Parsed) -> None:
        """Note the offsets of a batch of stamps: where they change, and at times between."""
        if not len(parsed.texts):
            return
        texts = pc.utf8_trim_whitespace(parsed.texts.fill_null(""))
        ends = pc.utf8_slice_codeunits(texts, -_LONGEST_OFFSET).dictionary_encode()
        matches = [_OFFSET_AT_END.search(end) for end in ends.dictionary.to_pylist()]
        by_end = [offset_minutes(match[0]) if match else None for match in matches]
        minutes = np.array([offset or 0 for offset in by_end])[ends.indices.to_numpy()]

        changes = np.flatnonzero(np.diff(minutes))[:_N_EVEN_ROWS]
        even = np.linspace(0, len(minutes) - 1, _N_EVEN_ROWS).astype(np.int64)
        rows = np.unique(np.concatenate([changes, changes + 1, even]))
        for offset in np.unique(minutes).tolist():
            times = parsed.times[rows[minutes[rows] == offset]]
            self.offsets.setdefault(offset, []).append(times)

    def _not_a_time(self, array: pa.Array, is_bad: Flags, n_before: int) -> DataError:
        """Return an error that names the first bad text, and the format of the good ones."""
        n_bad, first = int(is_bad.sum()), int(np.argmax(is_bad))
        text, column = str(array[first]), self.schema.time
        good = np.flatnonzero(~is_bad)

        if len(good) and is_stamp(text):
            return self._error(
                f"column {column!r} has timestamps in several formats, such as "
                f"{str(array[good[0]])!r} and {text!r}",
                "several-formats",
                n_before + first,
                hint="write all of them in one format",
            )

        hint, forms = "correct or remove the row", []
        if self.parser.format is not None:
            hint = f"the expected format is {self.parser.format!r}"
            forms = [] if len(good) else infer_forms(array.to_pylist())[:_MAX_FORMS]
        elif not len(good):
            hint = (
                f"the format of {text!r} is unknown: give it as for strftime, or write 2024-05-31"
            )
        return self._error(
            f"{n_bad} value{'s' * (n_bad > 1)} in column {column!r} "
            f"{'are' if n_bad > 1 else 'is'} not a timestamp",
            "not-a-time",
            n_before + first,
            proposals=[
                Proposal(
                    ("--time-format", form.format_of(text)),
                    f"if {text} is {form.date_in_words(text)}",
                )
                for form in forms
            ],
            hint=hint,
        )

    def _error(
        self,
        message: str,
        code: str,
        row: int,
        *,
        hint: str | None = None,
        proposals: Sequence[Proposal] = (),
    ) -> DataError:
        location = self.source.location(row, self.schema.time)
        return DataError(message, code=code, location=location, hint=hint, proposals=proposals)


def _are_in_years(times: Integers, years: tuple[int, int]) -> Flags:
    """Tell which times are in the years from the first one until before the second one."""
    begin_us, end_us = (np.datetime64(f"{y:04d}", "us").astype(np.int64) for y in years)
    return (times >= begin_us) & (times < end_us)


def _from_numbers(numbers: Doubles, unit: str, texts: Sequence[str]) -> Integers:
    """Convert numbers that count time, the first of which are `texts`, to microseconds since 1970.

    Days of a spreadsheet are written with a few decimals: 45292.0417 is one o'clock.
    """
    if unit == EXCEL:
        return _from_days(numbers - _EXCEL_1970, 0.5 * 10.0 ** -count_decimals(texts))
    if unit == YEAR:
        return _from_years(numbers, texts)
    if unit == TICKS:  # doubles hold them to about 10 microseconds
        return _rounded(np.rint((numbers - TICKS_1970) / 1000) * 100)
    return _rounded(numbers * EPOCH_UNITS_US[unit])


def _from_days(days: Doubles, error: float) -> Integers:
    """Convert days since 1970, which may be off by so much, to microseconds.

    Where all may have been whole hours, minutes or seconds before, they become so.
    """
    error_s = max(error * DAY_US / 1e6, _EXCEL_ERROR_S)
    seconds = days * DAY_US / 1e6
    for unit in _EXCEL_UNITS:
        rounded = np.rint(seconds / unit) * unit
        if np.abs(rounded - seconds).max(initial=0.0) <= error_s + _EXCEL_ERROR_S:
            return _rounded(rounded * 1e6)
    return _rounded(seconds * 1e6)


def _from_years(years: Doubles, texts: Sequence[str]) -> Integers:
    """Convert years with decimals, such as 1949.25, to microseconds since 1970.

    The first of them, `texts`, tell by their steps whether they are whole years, halves, quarters
    or months, which become their first days, or days. They may be those of the middle: 1949.0417
    is January. Finer ones are rounded like days of a spreadsheet.
    """
    sample = np.unique([float(text) for text in texts])
    sample = sample[np.abs(sample) < _MAX_YEAR]
    step = float(np.median(np.diff(sample))) if len(sample) > 1 else 1.0
    is_year = np.abs(years) < _MAX_YEAR
    years = np.where(is_year, years, 1970.0)
    per_year = next((n for n in _PERIODS_OF_YEAR if step * n > 1 - _UNEVEN), None)
    if per_year is not None:
        periods = _to_periods((years - 1970) * per_year, sample * per_year)
        months = periods * (12 // per_year)
        times = months.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
    else:
        days, error = _days_of_years(years), 0.5 * 366 * 10.0 ** -count_decimals(texts)
        is_daily = step * 366 > 1 - _UNEVEN
        if is_daily:
            days = _to_periods(days, _days_of_years(sample)).astype(np.float64)
        times = _from_days(days, error)
    return np.where(is_year, times, -_END_OF_TIME_US).astype(np.int64)


def _days_of_years(years: Doubles) -> Doubles:
    """Convert years with decimals to days since 1970."""
    number = np.floor(years).astype(np.int64) - 1970
    begin, end = (
        n.astype("datetime64[Y]").astype("datetime64[D]").astype(np.float64)
        for n in (number, number + 1)
    )
    return np.asarray(begin + (years - np.floor(years)) * (end - begin))


def _to_periods(values: Doubles, sample: Doubles) -> Integers:
    """Return the periods in which values lie; in a sample of them, each is at its start or middle.

    What is a little before a start, by rounding, is at it.
    """
    is_at_start = np.cos(2 * np.pi * sample).mean() >= 0
    return (np.rint(values) if is_at_start else np.floor(values)).astype(np.int64)


def _rounded(times_us: Doubles) -> Integers:
    """Return whole microseconds; the earliest time there is for what is none, or too large."""
    is_time = np.abs(times_us) < _END_OF_TIME_US
    return np.where(is_time, np.rint(times_us), -_END_OF_TIME_US).astype(np.int64)


class UnclearFormError(ValueError):
    """Stamps can be read in several forms, as that of one row shows."""

    def __init__(self, forms: Sequence[StampForm], row: int = 0) -> None:
        super().__init__("the format of the timestamps is ambiguous")
        self.forms = tuple(forms)
        self.row = row


class AmbiguousDateError(UnclearFormError):
    """Day, month and year may be exchanged."""


class UnknownHalfError(UnclearFormError):
    """Hours are from 1 to 12, beside a text that may mean a half of the day."""


class Parsed(NamedTuple):
    """Texts as times, `(row,)` each."""

    times: Integers
    """Microseconds; of a bad text any number."""
    is_bad: Flags
    """The text is no time."""
    is_mixed: Flags
    """The text has an offset where those of the column have none, or the other way round."""
    texts: pa.Array
    """The texts in ISO 8601, or in the user's format."""
    repairs: Counter[str]
    """Number of texts that were read as a time near by, by the code of the warning."""


@dataclass(frozen=True)
class TimestampParser:
    """Parses the texts of one column."""

    is_aware: bool
    format: str | None = None
    """The user's format; without it an early batch decides for all later ones."""
    hour_24_us: int = DAY_US
    """What is added to midnight for 24:00: a day, or nothing where it starts its date."""
    _forms: list[StampForm] = field(default_factory=list)
    """The form that the stamps have, once an early batch has told it."""

    def parse(self, array: pa.Array) -> Parsed:
        """Convert texts without nulls to microseconds.

        Raises `AmbiguousDateError` and `UnknownHalfError`.
        """
        may_be_months = len(array) > 0 and _DECIMAL_MONTH.fullmatch(str(array[0])) is not None
        if self.format is None and not self._forms and not may_be_months:
            try:  # nearly every file has ISO 8601, and Arrow reads it without making objects
                stamps = pc.cast(array, pa.timestamp("us", tz="UTC" if self.is_aware else None))
            except pa.ArrowInvalid:
                pass
            else:
                nowhere = np.zeros(len(array), np.bool_)
                times: Integers = np.array(stamps.cast(pa.int64()).to_numpy())
                return Parsed(times, nowhere, nowhere, array, Counter())

        if self.format is None or "%p" in self.format:
            array = with_english_halves(array)
        form = self._forms[0] if self._forms else form_of_format(self.format or "")
        if form is not None:
            return self._parse_iso(form.to_iso(array), form, array)
        parsed = self._parse_iso(array)
        has_form = may_be_months or 2 * int(parsed.is_bad.sum()) > len(array)
        if self.format is None and has_form:
            forms = choose_form(infer_forms(array.to_pylist()), array)
            _check_halves(forms, array)
            if len(forms) > 1:
                raise AmbiguousDateError(forms)
            self._forms.extend(forms)
            if forms:
                return self._parse_iso(forms[0].to_iso(array), forms[0], array)
        return parsed

    def _parse_iso(
        self, array: pa.Array, form: StampForm | None = None, original: pa.Array | None = None
    ) -> Parsed:
        """Parse texts in ISO 8601, or in the user's format; null is no time."""
        # 24:00 becomes midnight of the same day, a leap second the second before, plus an addend
        texts = repaired = array.fill_null("").to_pandas()
        is_midnight = _have_hour_24(texts)
        is_leap = texts.str.contains(_LEAP_SECOND).to_numpy(np.bool_)
        repairs: Counter[str] = Counter()
        if is_midnight.any():
            late = repaired[is_midnight]
            late = late.str.replace(_HOUR_24, lambda m: f"{int(m[0]) - 24:02d}", regex=True)
            repaired = repaired.mask(is_midnight, late)
            repairs["hour-24"] += int(is_midnight.sum()) * (self.hour_24_us > 0)
        if is_leap.any():
            repaired = repaired.str.replace(_LEAP_SECOND, ":59", regex=True)
            repairs["leap-second"] += int(is_leap.sum())
        addend_us = is_midnight * self.hour_24_us + is_leap * _END_OF_SECOND_US

        pattern = "ISO8601" if form is not None or self.format is None else self.format
        parsed = pd.to_datetime(repaired, utc=True, errors="coerce", format=pattern)
        is_mixed = np.zeros(len(array), np.bool_)
        if self.format is None:
            trimmed = pc.utf8_trim_whitespace(array.fill_null(""))
            has_offset = pc.match_substring_regex(trimmed, _UTC_OFFSET.pattern)
            is_mixed = has_offset.to_numpy(zero_copy_only=False) != self.is_aware
        if form is not None and original is not None:
            is_interval = pc.match_substring_regex(original, form.interval_pattern)
            n_intervals = pc.sum(is_interval).as_py() or 0
            if n_intervals:
                repairs["interval"] += n_intervals
        naive = parsed.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
        return Parsed(naive + addend_us, parsed.isna().to_numpy(), is_mixed, array, repairs)


def _have_hour_24(texts: pd.Series) -> Flags:
    """Tell which texts have a time of day of 24:00; or later, where some are."""
    has_24: Flags = texts.str.contains(_HOUR_24).to_numpy(np.bool_)
    if not has_24.any():
        return has_24
    is_midnight = texts.str.contains(_MIDNIGHT).to_numpy(np.bool_)
    is_after = texts.str.contains(_AFTER_24).to_numpy(np.bool_) & ~is_midnight
    return is_midnight | (is_after & (np.count_nonzero(is_after) >= _MIN_AFTER_24))


def _check_halves(forms: Sequence[StampForm], texts: pa.Array) -> None:
    """Raise `UnknownHalfError` if the hours of texts, with unknown ones beside, are all 1 to 12."""
    if not forms or not forms[0].clock_mark:
        return
    iso = forms[0].to_iso(texts)
    hours = set(pc.unique(pc.utf8_slice_codeunits(iso.drop_null(), 11, 13)).to_pylist())
    if hours <= {f"{hour:02d}" for hour in range(1, 13)}:
        raise UnknownHalfError(forms, row=int(np.argmax(iso.is_valid())))


def tz_localize(
    times: list[Integers],
    codes: list[NDArray[np.integer]],
    tz: str,
    locate: Callable[[int], Location],
    *,
    n_utc_rows: int = 0,
) -> list[Integers]:
    """Convert wall-clock times in a zone to UTC; `times` and series `codes` are chunks.

    Rows of the hour that occurs twice are told apart by their order within each series; a series
    whose last row lies before its first one runs backwards. The last `n_utc_rows` rows are in UTC
    already. Raises `DataError` for a time that clocks skip, and for one that may be in both hours.
    """
    ends = np.cumsum([len(chunk) for chunk in times])[:-1]
    flat, series = np.concatenate(times), np.concatenate(codes)
    n_local = len(flat) - n_utc_rows
    order = _clock_order(flat[:n_local], series[:n_local])
    wall = pd.DatetimeIndex(flat[order].view("datetime64[us]"))
    zone = time_zone(tz)

    is_repeated = wall.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna()
    repeated = np.flatnonzero(is_repeated)
    is_first, is_ambiguous = _first_passes(flat[order], series[order], repeated)
    if is_ambiguous.any():
        row = int(repeated[np.argmax(is_ambiguous)])
        raise DataError(
            f"{wall[row]} occurs twice in {tz}, and the row order does not show which is which",
            code="ambiguous-time",
            location=locate(int(order[row])),
            hint="write the UTC offset in every timestamp, or sort the rows by time",
        )

    is_dst = np.zeros(n_local, np.bool_)
    is_dst[repeated] = is_first
    local = wall.tz_localize(zone, ambiguous=is_dst, nonexistent="NaT")
    if local.isna().any():
        row = int(np.argmax(local.isna()))
        raise DataError(
            f"{wall[row]} does not exist in {tz}: the clock was set forward over it",
            code="nonexistent-time",
            location=locate(int(order[row])),
            proposals=[
                Proposal(("--tz", offset), "if the clock has no daylight saving time")
                for offset in (_standard_offset(wall[row], tz), "UTC")
            ],
        )
    flat[order] = local.tz_convert("UTC").as_unit("us").asi8
    return np.split(flat, ends)


def days_in_order(
    times: list[Integers], codes: Sequence[NDArray[np.integer]], listener: Listener
) -> list[Integers]:
    """Return wall-clock times with day and month exchanged where only that puts all rows in order.

    A spreadsheet that expects the other order reads dates up to the twelfth of a month so, and
    leaves later ones as they are. Then the time goes back, and never does once they are exchanged.
    """
    if _count_turns(times, codes) < _MIN_TURNS:
        return times
    swapped = list(map(_exchange_early_days, times))
    n_swapped = sum(int(np.count_nonzero(a != b)) for a, b in zip(times, swapped, strict=True))
    days = (pd.DatetimeIndex(chunk.view("datetime64[us]")).day for chunk in times)
    if all((day <= _MONTHS).all() for day in days) or not n_swapped or _count_turns(swapped, codes):
        return times

    message = "day and month were exchanged in dates up to the twelfth of a month, as the order of "
    message += f"the rows tells ({n_swapped} timestamps); for others, use --time-format"
    listener(WarningEvent("swapped-days", message, n_swapped))
    return swapped


def _count_turns(times: list[Integers], codes: Sequence[NDArray[np.integer]]) -> int:
    """Return how often the time goes back, or ahead where it mostly goes back, within series."""
    n_back, n_ahead, highest = 0, 0, -1
    for stamps, code in zip(times, codes, strict=True):
        last = np.maximum(np.maximum.accumulate(code), highest)
        steps = np.diff(stamps)[code[1:] <= last[:-1]]  # not where a new series begins
        n_back += int(np.count_nonzero(steps < 0))
        n_ahead += int(np.count_nonzero(steps > 0))
        highest = int(last.max(initial=highest))
    return min(n_back, n_ahead)


def _exchange_early_days(times: Integers) -> Integers:
    """Exchange day and month of times on days up to the twelfth."""
    stamps = times.view("datetime64[us]")
    day, month = pd.DatetimeIndex(stamps).day.to_numpy(), stamps.astype("datetime64[M]")
    number = month.astype(np.int64) % _MONTHS
    dates = (month - number + day - 1).astype("datetime64[D]") + number
    exchanged = dates.astype(np.int64) * DAY_US + times % DAY_US
    return np.where(day <= _MONTHS, exchanged, times)


def _standard_offset(time: pd.Timestamp, tz: str) -> str:
    """Return the offset from UTC that a zone has without summer time, such as +01:00."""
    local = time.tz_localize(time_zone(tz), nonexistent="shift_forward")
    offset = (local.utcoffset() or timedelta()) - (local.dst() or timedelta())
    return format_utc_offset(round(offset.total_seconds() / 60))


def _clock_order(times: Integers, codes: NDArray[np.integer]) -> Integers:
    """Return the rows, series by series, each as its clock ran."""
    position = np.arange(len(times))
    n_series = int(codes.max(initial=0)) + 1
    first, last = np.zeros(n_series, np.int64), np.zeros(n_series, np.int64)
    first[codes[::-1]], last[codes] = times[::-1], times
    return np.lexsort((np.where(last < first, -1, 1)[codes] * position, codes))


def _first_passes(
    wall: Integers, series: NDArray[np.integer], repeated: Integers
) -> tuple[Flags, Flags]:
    """Tell which rows of hours that occur twice lie in the first one, and which may be in both.

    `wall` and `series`, `(row,)`, are in the order of the clock; `repeated` are rows in such hours.
    The second one begins where the clock goes back. Where it does not, and later rows follow, the
    hour was read once only, and nothing tells which it was.
    """
    time, code = wall[repeated], series[repeated]
    begins = np.ones(len(repeated), np.bool_)
    begins[1:] = (np.diff(code) != 0) | (np.abs(np.diff(time)) > _MAX_SET_BACK_US)
    goes_back = np.zeros(len(repeated), np.int64)
    goes_back[1:] = (np.diff(time) <= 0) & ~begins[1:]

    hour = np.cumsum(begins) - 1  # (row,): the number of the hour
    n_back = np.bincount(hour, weights=goes_back)
    before = np.cumsum(goes_back) - goes_back
    is_first = np.cumsum(goes_back) == before[begins][hour]

    last = repeated[np.append(begins[1:], True)[: len(repeated)]]
    is_end = np.append(series[1:] != series[:-1], True)[last]
    is_clear = (n_back == 1) | ((n_back == 0) & is_end)
    return is_first, ~is_clear[hour]


def propose_zones(
    offsets: Mapping[int, Sequence[Integers]], listener: Listener
) -> tuple[Proposal, ...] | None:
    """Warn of stamps that carry several offsets from UTC; return the zones that they may be of.

    `offsets` holds times of stamps by their minutes ahead of UTC. None where they carry one, or
    none.
    """
    if len(offsets) < 2:
        return None
    by_offset = {minutes: np.concatenate(times) for minutes, times in offsets.items()}
    zones = zones_with_offsets(by_offset)
    proposals = tuple(Proposal(("--tz", zone), f"if they are in {zone}") for zone in zones)
    listed = ", ".join(map(format_utc_offset, sorted(offsets)[:_MAX_LISTED]))
    message = f"the timestamps have several UTC offsets ({listed}); they are read in UTC, where "
    message += "daily patterns shift by an hour in summer"
    listener(WarningEvent("several-offsets", message, len(offsets), proposals))
    return proposals


def zones_with_offsets(offsets: Mapping[int, Integers]) -> list[str]:
    """Return the first known zones with these UTC offsets, in minutes, at these times."""
    times = np.concatenate(list(offsets.values()))
    expected_us = np.repeat(list(offsets), list(map(len, offsets.values()))) * 60_000_000
    stamps = pd.DatetimeIndex(times.view("datetime64[us]"), tz="UTC")

    def fits(zone: str) -> bool:
        local = stamps.tz_convert(time_zone(zone)).tz_localize(None).as_unit("us").asi8
        return bool((local - times == expected_us).all())

    return _first_zones(fits)


def zones_set_back_at(times: Integers) -> list[str]:
    """Return the first known zones whose clocks show each of these times twice."""
    stamps = pd.DatetimeIndex(times.view("datetime64[us]"))

    def fits(zone: str) -> bool:
        local = stamps.tz_localize(time_zone(zone), ambiguous="NaT", nonexistent="shift_forward")
        return bool(local.isna().all())

    return _first_zones(fits)


def _first_zones(fits: Callable[[str], bool]) -> list[str]:
    """Return a few zones that fit: of the best known ones, and of all where none of these does."""
    zones = list(filter(fits, OFFERED_ZONES))
    if not zones:
        places = (zone for zone in known_zones() if "/" in zone and zone[:4] != "Etc/")
        zones = list(filter(fits, sorted(places)))
    return zones[:MAX_OFFERED_ZONES]
