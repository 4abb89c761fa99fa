"""Time stamps: text or number to UTC microseconds and back; zones, clock changes, formats."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.data.schema import Schema
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.sources.columns import Column
from rnnforecast.sources.source import Source
from rnnforecast.units import EPOCH_UNITS_US

_CLOCK = "[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)?"
_ISO_8601 = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)?)?"
    "|[0-9]{8}T[0-9]{4}([0-9]{2})?(Z|[+-][0-9]{2}([0-9]{2})?)?",
    re.IGNORECASE,
)
"""A date, or a date with a time; zones as offsets."""
_MOST_MOMENTS = 100_000
OFFSET = re.compile(r"[T ]\d{1,2}:?\d{2}.*?(Z|[+-]\d{2}(:?\d{2})?)$")
_MIDNIGHT = re.compile(r"(?<=[T ])24(?=:?00(?::?00(?:[.,]0+)?)?(?:\D|$))")
_LEAP_SECOND = re.compile(r"(?<=:\d\d):60(?:[.,]\d+)?")
_DAY_US = 86_400_000_000
_END_OF_SECOND_US = 999_000
REPAIRS = {
    "hour-24": "24:00 is read as midnight of the next day",
    "leap-second": "a leap second is read as the end of the second before",
}
"""What is said of stamps that are read as something near."""
_LONGEST_US = 7_200_000_000
"""No clock is set back by more; times further apart belong to different years."""


@dataclass(frozen=True)
class Zone:
    """Whether stamps carry a zone, and which one a forecast is written in."""

    is_aware: bool
    name: str | None = None

    @classmethod
    def of_column(cls, column: Column) -> Zone:
        """Take it from the file, or its first stamps: one offset is kept, several are UTC."""
        if column.is_typed:
            return cls(is_aware=column.tz is not None, name=column.tz)
        offsets = {match[1] for text in column.sample if (match := OFFSET.search(text.strip()))}
        if not offsets:
            return cls(is_aware=False)
        only = next(iter(offsets)) if len(offsets) == 1 else "Z"
        if not only.strip("Z+-0:"):
            return cls(is_aware=True, name="UTC")
        return cls(is_aware=True, name=f"{only[:3]}:{only[3:].strip(':') or '00'}")


@dataclass(frozen=True)
class StampReader:
    """Turns batches of one column's stamps into microseconds; errors name the row's line."""

    source: Source
    schema: Schema
    zone: Zone
    is_typed: bool
    texts: StampTexts
    years: tuple[int, int]
    """The first year that a stamp may lie in, and the first that it may not."""
    takes_leap_seconds: bool
    repairs: Counter[str] = field(default_factory=Counter)
    """How many stamps were read as something near, by the code of the warning."""
    instants: list[int] = field(default_factory=list)
    """How many stamps of each batch carried a zone although the column's own carry none."""

    @classmethod
    def of(cls, source: Source, schema: Schema, config: DataConfig) -> StampReader:
        """Make one for a source's time column."""
        column = next(c for c in source.columns if c.name == schema.time)
        zone = Zone.of_column(column)
        texts = StampTexts(zone.is_aware, config.time_format)
        takes = config.leap_second == "clamp"
        return cls(source, schema, zone, column.is_typed, texts, config.years, takes)

    @property
    def arrow_type(self) -> pa.DataType:
        """What to read the column as; text that is no ISO 8601 comes as text all the same."""
        if self.is_typed or (self.schema.epoch_unit is None and self.texts.format is None):
            return pa.timestamp("us", tz="UTC" if self.zone.is_aware else None)
        return pa.float64() if self.schema.epoch_unit else pa.string()

    def read(self, array: pa.Array, n_before: int) -> Integers:
        """Read one batch, `(row,)`; `n_before` rows came before it."""
        if array.null_count:
            missing = array.is_null().to_numpy(zero_copy_only=False)
            raise self._error(
                "a row has no time stamp",
                "missing-time",
                n_before + int(np.argmax(missing)),
                hint="remove the row, or name the time column with  --time COLUMN",
            )
        times: Integers
        if pa.types.is_timestamp(array.type):
            times = np.asarray(array.cast(pa.int64()).to_numpy())
            if array.type.tz is not None and not self.zone.is_aware:
                self.instants.append(len(times))
        elif self.schema.epoch_unit:
            factor = EPOCH_UNITS_US[self.schema.epoch_unit]
            times = np.rint(array.to_numpy(zero_copy_only=False) * factor).astype(np.int64)
        else:
            times = self._from_text(array, n_before)
        first, end = self.years
        outside = (times < _year_us(first)) | (times >= _year_us(end))
        if outside.any():
            raise self._error(
                f"a time stamp lies outside the years {first} to {end}",
                "time-range",
                n_before + int(np.argmax(outside)),
                hint="correct or remove the row; if it is right, say the years, such as  "
                f"--time-range {first}:2300",
            )
        return times

    def _from_text(self, array: pa.Array, n_before: int) -> Integers:
        column = self.schema.time
        try:
            parsed = self.texts.parse(array)
        except AmbiguousDateError:
            raise self._error(
                f"day and month cannot be told apart in column {column!r}",
                "ambiguous-date",
                0,
                hint="say the format, such as  --time-format '%d/%m/%Y %H:%M'",
            ) from None
        if parsed.bad.any():
            raise self._not_times(array, parsed.bad, n_before)
        if parsed.differs.any():
            raise self._error(
                f"some stamps in column {column!r} carry an offset from UTC, others none",
                "mixed-zones",
                n_before + int(np.argmax(parsed.differs)),
                hint="write the offset, such as +01:00 or Z, in every row or in none",
            )
        if parsed.repairs["leap-second"] and not self.takes_leap_seconds:
            raise self._error(
                "a stamp names a leap second, which no clock here has",
                "leap-second",
                n_before + next(i for i, t in enumerate(array) if has_leap_second(str(t))),
                hint="to read it as the end of the second before, leave out  --leap-second error",
            )
        self.repairs.update(parsed.repairs)
        return parsed.times

    def _not_times(self, array: pa.Array, bad: NDArray[np.bool_], n_before: int) -> DataError:
        """Name the first text that is no time, and the format of the others where it has one."""
        n_bad, first = int(bad.sum()), int(np.argmax(bad))
        text, column = str(array[first]), self.schema.time
        good = np.flatnonzero(~bad)
        if len(good) and guess_format(text) is not None:
            return self._error(
                f"column {column!r} has stamps of several formats, such as {str(array[good[0]])!r} "
                f"and {text!r}",
                "several-formats",
                n_before + first,
                hint="write all of them in one format; which is meant is not guessed row by row",
            )
        return self._error(
            f"{n_bad} value{'s' * (n_bad > 1)} in column {column!r} "
            f"{'are' if n_bad > 1 else 'is'} not a time",
            "not-a-time",
            n_before + first,
            hint="correct or remove the row"
            if self.texts.format is None
            else f"they must look like --time-format {self.texts.format}",
        )

    def _error(self, message: str, code: str, row: int, *, hint: str) -> DataError:
        location = self.source.location(row, self.schema.time)
        return DataError(message, code=code, location=location, hint=hint)


def _year_us(year: int) -> int:
    return int(np.datetime64(f"{year:04d}", "us").astype(np.int64))


def parse_time_us(text: str, tz: str | None) -> int:
    """Read a time that a user typed as microseconds; without a zone it is in the data's.

    A time that clocks skip is the first after it. Only ISO 8601 with a whole date is read:
    02.01.2024 is not guessed, and no result depends on a clock, as that of `12:00` would. Raises
    `UsageError`.
    """
    stamp = _typed_time(text)
    if tz is not None and stamp.tzinfo is None:
        try:
            stamp = stamp.tz_localize(tz, nonexistent="shift_forward")
        except ValueError as error:
            raise UsageError(f"{text!r} is not a time in {tz}: {error}") from error
    if tz is not None:
        stamp = stamp.tz_convert("UTC")
    elif stamp.tzinfo is not None:
        raise UsageError(f"{text!r} has a zone, but the readings have none")
    return int(stamp.tz_localize(None).to_datetime64().astype("datetime64[us]").astype(np.int64))


def stamp_array(times_us: Integers, tz: str | None) -> pa.Array:
    """Turn microseconds into Arrow time stamps, flat, that carry the data's zone."""
    return pa.array(times_us.ravel(), pa.int64()).cast(pa.timestamp("us", tz=tz))


def format_stamps(stamps: pa.ChunkedArray) -> pa.Array:
    """Write stamps as text: `2024-05-01 12:00:00`, with the offset where they have a zone."""
    whole = stamps.cast(pa.int64())
    is_whole = pc.all(pc.equal(pc.multiply(pc.divide(whole, 1_000_000), 1_000_000), whole)).as_py()
    unit: Literal["s", "us"] = "s" if is_whole else "us"
    if stamps.type.tz is None:
        return stamps.cast(pa.timestamp(unit)).cast(pa.string())
    each = whole.combine_chunks().dictionary_encode()  # many series share their stamps
    local = pd.DatetimeIndex(each.dictionary.to_numpy().view("datetime64[us]"), tz="UTC")
    local = local.tz_convert(stamps.type.tz).as_unit(unit)
    texts = pa.array([stamp.isoformat(" ") for stamp in local], pa.string())
    return pa.DictionaryArray.from_arrays(each.indices, texts).dictionary_decode()


def format_stamp(time_us: int, tz: str | None) -> str:
    """Write one stamp as text."""
    text: str = format_stamps(pa.chunked_array([stamp_array(np.array([time_us]), tz)]))[0].as_py()
    return text


def file_stamp(time_us: int, tz: str | None) -> str:
    """Write one stamp for the name of a file: `2024-05-01T120000`, with Z and in UTC if aware.

    Names of one zone lie in the order of their times; so a fraction of a second comes after `_`,
    which is behind `Z` and all that a name goes on with, as `.` is not.
    """
    text = format_stamp(time_us, None).replace(" ", "T").replace(":", "").replace(".", "_")
    return text if tz is None else f"{text}Z"


def each_moment(first: str, last: str, every_us: int) -> list[str]:
    """Return times from the first to the last at most, so far apart, written as the first is.

    A day is 24 hours here. Raises `UsageError` for what is no time, or ends before it begins.
    """
    begin, end = _typed_time(first), _typed_time(last)
    if (begin.tzinfo is None) != (end.tzinfo is None):
        raise UsageError(f"of {first!r} and {last!r} only one has a zone")
    if end < begin:
        raise UsageError(f"--to {last} lies before --from {first}")
    n_times = int((end - begin) / pd.Timedelta(every_us, "us")) + 1
    if n_times > _MOST_MOMENTS:
        raise UsageError(f"--from {first} --to {last} are {n_times} times", hint="--every longer")
    step = pd.Timedelta(every_us, "us")
    return [(begin + i * step).isoformat() for i in range(n_times)]


def _typed_time(text: str) -> pd.Timestamp:
    """Read a time that a user typed: ISO 8601 with a whole date. Raises `UsageError`."""
    try:
        if not _ISO_8601.fullmatch(text.strip()):
            raise ValueError("it is not written as ISO 8601 has it, year first")
        return pd.Timestamp(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a time: {error}", hint="write 2024-05-01 or 2024-05-01T12:00+00:00"
        ) from error


class AmbiguousDateError(ValueError):
    """Day and month could be either way round in every stamp."""


class Parsed(NamedTuple):
    """What became of some stamps, `(row,)` each."""

    times: Integers
    bad: NDArray[np.bool_]
    """No time; what stands in `times` means nothing."""
    differs: NDArray[np.bool_]
    """With an offset where the others have none, or without one."""
    repairs: Counter[str]
    """How many were read as something near, by the code of the warning."""


@dataclass(frozen=True)
class StampTexts:
    """Reads one column's texts."""

    is_aware: bool
    format: str | None = None
    """What the user said; else an early batch decides for all that follow."""
    _decided: list[str] = field(default_factory=list)

    def parse(self, array: pa.Array) -> Parsed:
        """Turn texts without nulls into microseconds. Raises `AmbiguousDateError`."""
        nowhere = np.zeros(len(array), np.bool_)
        if self.format is None:
            try:  # nearly every file has ISO 8601, and Arrow reads it without making objects
                stamps = pc.cast(array, pa.timestamp("us", tz="UTC" if self.is_aware else None))
            except pa.ArrowInvalid:
                pass
            else:
                fast: Integers = np.array(stamps.cast(pa.int64()).to_numpy())
                return Parsed(fast, nowhere, nowhere, Counter())
        texts = array.to_pandas()
        repaired, more_us, repairs = _repair(texts)
        parsed = self._parse(repaired)
        bad = parsed.isna().to_numpy()
        differs = np.array([(OFFSET.search(t.strip()) is None) == self.is_aware for t in texts])
        if self.format is not None:
            differs = nowhere
        naive = parsed.dt.tz_localize(None).to_numpy("datetime64[us]")
        return Parsed(naive.astype(np.int64) + more_us, bad, differs, repairs)

    def _parse(self, texts: pd.Series[str]) -> pd.Series[pd.Timestamp]:
        if self.format is not None:
            return pd.to_datetime(texts, utc=True, errors="coerce", format=self.format)
        parsed = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
        if parsed.isna().all():
            parsed = pd.to_datetime(texts, utc=True, errors="coerce", format=self._found(texts))
        return parsed

    def _found(self, texts: pd.Series[str]) -> str:
        """Find the one format of stamps that are not ISO 8601; day and month are never guessed."""
        if self._decided:
            return self._decided[0]
        guesses = Counter(filter(None, map(guess_format, texts.iloc[:100])))
        guessed = max(guesses, key=guesses.__getitem__, default="ISO8601")
        if re.match(r"%[dm][-/.]%[dm]", guessed):
            mark = guessed[2]
            pattern = re.compile(r"\s*(\d{1,2})M(\d{1,2})M".replace("M", re.escape(mark)))
            parts = [match for text in texts if (match := pattern.match(text))]
            first, second = (max(int(match[i]) for match in parts) for i in (1, 2))
            if first <= 12 and second <= 12:
                raise AmbiguousDateError
            order = f"%d{mark}%m" if first > 12 else f"%m{mark}%d"
            guessed = order + guessed[5:]
        self._decided.append(guessed)
        return guessed


def guess_format(text: str) -> str | None:
    """Return the format of one stamp; where day and month could be either, some order of them."""
    with warnings.catch_warnings():  # pandas warns of a day that stands first; it is checked here
        warnings.simplefilter("ignore", UserWarning)
        return pd.tseries.api.guess_datetime_format(text)


def has_leap_second(text: str) -> bool:
    """Tell whether a stamp names the sixtieth second of a minute."""
    return _LEAP_SECOND.search(text) is not None


def _repair(texts: pd.Series[str]) -> tuple[pd.Series[str], Integers, Counter[str]]:
    """Write 24:00 as the midnight before, and a leap second as the second before.

    With the texts comes what is to be added to their times, `(row,)`, in microseconds.
    """
    is_midnight = texts.str.contains(_MIDNIGHT).to_numpy(np.bool_)
    is_leap = texts.str.contains(_LEAP_SECOND).to_numpy(np.bool_)
    repairs: Counter[str] = Counter()
    if is_midnight.any():
        texts = texts.str.replace(_MIDNIGHT, "00", regex=True)
        repairs["hour-24"] += int(is_midnight.sum())
    if is_leap.any():
        texts = texts.str.replace(_LEAP_SECOND, ":59", regex=True)
        repairs["leap-second"] += int(is_leap.sum())
    return texts, is_midnight * _DAY_US + is_leap * _END_OF_SECOND_US, repairs


def localise(
    times: list[Integers],
    codes: list[NDArray[np.integer]],
    tz: str,
    locate: Callable[[int], Location],
    *,
    n_instants: int = 0,
) -> list[Integers]:
    """Read wall-clock times in a zone. Raises `DataError` at one that cannot be read, or not told.

    The hour that occurs twice is told apart by the order within each series, which `codes` tell;
    a series whose last row lies before its first runs backwards. The last `n_instants` rows are in
    UTC already.
    """
    ends = np.cumsum([len(chunk) for chunk in times])[:-1]
    flat, series = np.concatenate(times), np.concatenate(codes)
    n_local = len(flat) - n_instants
    order = _forward_order(flat[:n_local], series[:n_local])
    wall = pd.DatetimeIndex(flat[order].view("datetime64[us]"))
    is_twice = wall.tz_localize(tz, ambiguous="NaT", nonexistent="shift_forward").isna()
    twice = np.flatnonzero(is_twice)
    is_first, is_unclear = _passes(flat[order], series[order], twice)
    if is_unclear.any():
        at = int(twice[np.argmax(is_unclear)])
        raise _unclear(wall[at], tz, locate(int(order[at])))
    summer = np.zeros(n_local, np.bool_)
    summer[twice] = is_first
    local = wall.tz_localize(tz, ambiguous=summer, nonexistent="NaT")
    if local.isna().any():
        at = int(np.argmax(local.isna()))
        raise _skipped(wall[at], tz, locate(int(order[at])))
    flat[order] = local.tz_convert("UTC").as_unit("us").asi8
    return np.split(flat, ends)


def _passes(
    wall: Integers, series: NDArray[np.integer], twice: Integers
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which rows of hours that occur twice lie in the first one, and which may be in both.

    `wall` and `series`, `(row,)`, are in the order of the clock; `twice` are rows in such hours.
    The second one begins where the clock goes back. Where it does not, and later rows follow, the
    hour was read once only, and nothing tells which it was.
    """
    time, own = wall[twice], series[twice]
    begins = np.ones(len(twice), np.bool_)
    begins[1:] = (np.diff(own) != 0) | (np.abs(np.diff(time)) > _LONGEST_US)
    goes_back = np.zeros(len(twice), np.int64)
    goes_back[1:] = (np.diff(time) <= 0) & ~begins[1:]

    hour = np.cumsum(begins) - 1  # (row,): the number of the hour
    n_back = np.bincount(hour, weights=goes_back)
    before = np.cumsum(goes_back) - goes_back
    is_first = np.cumsum(goes_back) == before[begins][hour]
    last = twice[np.append(begins[1:], True)[: len(twice)]]
    is_end = np.append(series[1:] != series[:-1], True)[last]
    is_told = (n_back == 1) | ((n_back == 0) & is_end)
    return is_first, ~is_told[hour]


def _skipped(time: pd.Timestamp, tz: str, location: Location) -> DataError:
    return DataError(
        f"{time} does not exist in {tz}: the clock was set forward over it",
        code="nonexistent-time",
        location=location,
        hint="if the clock knows no summer time, say so, such as  --tz UTC  or  --tz +01:00",
    )


def _unclear(time: pd.Timestamp, tz: str, location: Location) -> DataError:
    return DataError(
        f"{time} occurs twice in {tz}, and the order of the rows does not tell which",
        code="ambiguous-time",
        location=location,
        hint="write the offset from UTC in every stamp, or sort the rows by time",
    )


def _forward_order(times: Integers, codes: NDArray[np.integer]) -> Integers:
    """Return the rows, series by series, each as its clock ran."""
    position = np.arange(len(times))
    n_series = int(codes.max(initial=0)) + 1
    first, last = np.zeros(n_series, np.int64), np.zeros(n_series, np.int64)
    first[codes[::-1]], last[codes] = times[::-1], times
    return np.lexsort((np.where(last < first, -1, 1)[codes] * position, codes))
