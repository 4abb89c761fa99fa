"""Time stamps: text or number to UTC microseconds and back; zones, daylight saving, formats."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.sources.columns import Column
from rnnforecast.sources.source import Source
from rnnforecast.units import EPOCH_UNITS_US

if TYPE_CHECKING:
    from rnnforecast.data.schema import Schema

_CLOCK = "[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)?"
_ISO_8601 = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)?)?"
    "|[0-9]{8}T[0-9]{4}([0-9]{2})?(Z|[+-][0-9]{2}([0-9]{2})?)?",
    re.IGNORECASE,
)
"""A date, or a date with a time; zones as offsets."""
_UTC_OFFSET = re.compile(r"[T ]\d{1,2}:?\d{2}.*?(Z|[+-]\d{2}(:?\d{2})?)$")
_MIDNIGHT = re.compile(r"(?<=[T ])24(?=:?00(?::?00(?:[.,]0+)?)?(?:\D|$))")
_LEAP_SECOND = re.compile(r"(?<=:\d\d):60(?:[.,]\d+)?")
_DAY_US = 86_400_000_000
_END_OF_SECOND_US = 999_000
"""A leap second is read as 59.999."""
_MAX_DATES = 100_000
REPAIR_MESSAGES = {
    "hour-24": "24:00 is read as midnight of the next day",
    "leap-second": "a leap second is read as the end of the second before",
}
"""Messages, by warning code, for stamps that are read as a time near by."""
_MAX_SET_BACK_US = 7_200_000_000
"""No clock is set back by more; times further apart belong to different years."""


@dataclass(frozen=True)
class Zone:
    """Whether stamps carry a zone, and the zone in which a forecast is written."""

    is_aware: bool
    name: str | None = None

    @classmethod
    def of_column(cls, column: Column) -> Zone:
        """Infer it from the file, or its first stamps: one offset is kept, several become UTC."""
        if column.is_typed:
            return cls(is_aware=column.tz is not None, name=column.tz)
        matches = (_UTC_OFFSET.search(text.strip()) for text in column.sample)
        offsets = {match[1] for match in matches if match}
        if not offsets:
            return cls(is_aware=False)
        offset = next(iter(offsets)) if len(offsets) == 1 else "Z"
        if not offset.strip("Z+-0:"):
            return cls(is_aware=True, name="UTC")
        return cls(is_aware=True, name=f"{offset[:3]}:{offset[3:].strip(':') or '00'}")


@dataclass(frozen=True)
class TimestampReader:
    """Converts batches of one column's stamps to microseconds; errors name the line of the row."""

    source: Source
    schema: Schema
    zone: Zone
    is_typed: bool
    parser: TimestampParser
    years: tuple[int, int]
    """First year that a stamp may lie in, and the first year after them."""
    clamps_leap_seconds: bool
    repairs: Counter[str] = field(default_factory=Counter)
    """Number of stamps that were read as a time near by, by the code of the warning."""
    n_aware: list[int] = field(default_factory=list)
    """Rows of each batch that carried a zone although the column's own stamps carry none."""

    @classmethod
    def of(cls, source: Source, schema: Schema, config: DataConfig) -> TimestampReader:
        """Return a reader for the time column of a source."""
        column = next(c for c in source.columns if c.name == schema.time)
        zone = Zone.of_column(column)
        parser = TimestampParser(zone.is_aware, config.time_format)
        clamps = config.leap_second == "clamp"
        return cls(source, schema, zone, column.is_typed, parser, config.years, clamps)

    @property
    def arrow_type(self) -> pa.DataType:
        """Type to read the column as; text that is not ISO 8601 comes as text nevertheless."""
        if self.is_typed or (self.schema.epoch_unit is None and self.parser.format is None):
            return pa.timestamp("us", tz="UTC" if self.zone.is_aware else None)
        return pa.float64() if self.schema.epoch_unit else pa.string()

    def read(self, array: pa.Array, n_before: int) -> Integers:
        """Convert one batch to microseconds, `(row,)`; `n_before` rows came in earlier batches."""
        if array.null_count:
            is_missing = array.is_null().to_numpy(zero_copy_only=False)
            raise self._error(
                "a row has no time stamp",
                "missing-time",
                n_before + int(np.argmax(is_missing)),
                hint="remove the row, or name the time column with  --time COLUMN",
            )

        times: Integers
        if pa.types.is_timestamp(array.type):
            times = np.asarray(array.cast(pa.int64()).to_numpy())
            if array.type.tz is not None and not self.zone.is_aware:
                self.n_aware.append(len(times))
        elif self.schema.epoch_unit:
            factor = EPOCH_UNITS_US[self.schema.epoch_unit]
            times = np.rint(array.to_numpy(zero_copy_only=False) * factor).astype(np.int64)
        else:
            times = self._parse_texts(array, n_before)

        begin_us, end_us = (np.datetime64(f"{y:04d}", "us").astype(np.int64) for y in self.years)
        is_outside = (times < begin_us) | (times >= end_us)
        if is_outside.any():
            first, end = self.years
            raise self._error(
                f"a time stamp lies outside the years {first} to {end}",
                "time-range",
                n_before + int(np.argmax(is_outside)),
                hint="correct or remove the row; if it is right, say the years, such as  "
                f"--time-range {first}:2300",
            )
        return times

    def _parse_texts(self, array: pa.Array, n_before: int) -> Integers:
        """Parse a batch of texts; raise `DataError` for one that is no time, or of another kind."""
        column = self.schema.time
        try:
            parsed = self.parser.parse(array)
        except AmbiguousDateError:
            raise self._error(
                f"day and month cannot be told apart in column {column!r}",
                "ambiguous-date",
                0,
                hint="say the format, such as  --time-format '%d/%m/%Y %H:%M'",
            ) from None

        if parsed.is_bad.any():
            raise self._not_a_time(array, parsed.is_bad, n_before)
        if parsed.is_mixed.any():
            raise self._error(
                f"some stamps in column {column!r} carry an offset from UTC, others none",
                "mixed-zones",
                n_before + int(np.argmax(parsed.is_mixed)),
                hint="write the offset, such as +01:00 or Z, in every row or in none",
            )
        if parsed.repairs["leap-second"] and not self.clamps_leap_seconds:
            has_leap_second = [_LEAP_SECOND.search(str(text)) is not None for text in array]
            raise self._error(
                "a stamp names a leap second, which no clock here has",
                "leap-second",
                n_before + has_leap_second.index(True),
                hint="to read it as the end of the second before, leave out  --leap-second error",
            )
        self.repairs.update(parsed.repairs)
        return parsed.times

    def _not_a_time(self, array: pa.Array, is_bad: NDArray[np.bool_], n_before: int) -> DataError:
        """Return an error that names the first bad text, and the format of the good ones."""
        n_bad, first = int(is_bad.sum()), int(np.argmax(is_bad))
        text, column = str(array[first]), self.schema.time
        good = np.flatnonzero(~is_bad)
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
            if self.parser.format is None
            else f"they must look like --time-format {self.parser.format}",
        )

    def _error(self, message: str, code: str, row: int, *, hint: str) -> DataError:
        location = self.source.location(row, self.schema.time)
        return DataError(message, code=code, location=location, hint=hint)


class AmbiguousDateError(ValueError):
    """Every stamp can be read with day and month either way round."""


class Parsed(NamedTuple):
    """Texts as times, `(row,)` each."""

    times: Integers
    """Microseconds; of a bad text any number."""
    is_bad: NDArray[np.bool_]
    """The text is no time."""
    is_mixed: NDArray[np.bool_]
    """The text has an offset where those of the column have none, or the other way round."""
    repairs: Counter[str]
    """Number of texts that were read as a time near by, by the code of the warning."""


@dataclass(frozen=True)
class TimestampParser:
    """Parses the texts of one column."""

    is_aware: bool
    format: str | None = None
    """The user's format; without it an early batch decides for all later ones."""
    _guessed: list[str] = field(default_factory=list)
    """The format that was guessed, once it was."""

    def parse(self, array: pa.Array) -> Parsed:
        """Convert texts without nulls to microseconds. Raises `AmbiguousDateError`."""
        nowhere = np.zeros(len(array), np.bool_)
        if self.format is None:
            try:  # nearly every file has ISO 8601, and Arrow reads it without making objects
                stamps = pc.cast(array, pa.timestamp("us", tz="UTC" if self.is_aware else None))
            except pa.ArrowInvalid:
                pass
            else:
                times: Integers = np.array(stamps.cast(pa.int64()).to_numpy())
                return Parsed(times, nowhere, nowhere, Counter())

        # 24:00 becomes midnight of the same day, a leap second the second before, plus an addend
        texts = repaired = array.to_pandas()
        is_midnight = texts.str.contains(_MIDNIGHT).to_numpy(np.bool_)
        is_leap = texts.str.contains(_LEAP_SECOND).to_numpy(np.bool_)
        repairs: Counter[str] = Counter()
        if is_midnight.any():
            repaired = repaired.str.replace(_MIDNIGHT, "00", regex=True)
            repairs["hour-24"] += int(is_midnight.sum())
        if is_leap.any():
            repaired = repaired.str.replace(_LEAP_SECOND, ":59", regex=True)
            repairs["leap-second"] += int(is_leap.sum())
        addend_us = is_midnight * _DAY_US + is_leap * _END_OF_SECOND_US

        parsed = pd.to_datetime(
            repaired, utc=True, errors="coerce", format=self.format or "ISO8601"
        )
        if self.format is None and parsed.isna().all():
            guessed = self._guess(repaired)
            parsed = pd.to_datetime(repaired, utc=True, errors="coerce", format=guessed)
        is_mixed = nowhere
        if self.format is None:
            has_offset = [_UTC_OFFSET.search(text.strip()) is not None for text in texts]
            is_mixed = np.array(has_offset) != self.is_aware
        naive = parsed.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
        return Parsed(naive + addend_us, parsed.isna().to_numpy(), is_mixed, repairs)

    def _guess(self, texts: pd.Series[str]) -> str:
        """Return the one format of stamps that are not ISO 8601.

        Day and month are never guessed: one of the stamps must have a day after the twelfth.
        """
        if self._guessed:
            return self._guessed[0]
        guesses = Counter(filter(None, map(guess_format, texts.iloc[:100])))
        guess = max(guesses, key=guesses.__getitem__, default="ISO8601")

        if re.match(r"%[dm][-/.]%[dm]", guess):
            mark = guess[2]
            pattern = re.compile(r"\s*(\d{1,2})M(\d{1,2})M".replace("M", re.escape(mark)))
            parts = [match for text in texts if (match := pattern.match(text))]
            first, second = (max(int(match[i]) for match in parts) for i in (1, 2))
            if first <= 12 and second <= 12:
                raise AmbiguousDateError
            order = f"%d{mark}%m" if first > 12 else f"%m{mark}%d"
            guess = order + guess[5:]
        self._guessed.append(guess)
        return guess


def guess_format(text: str) -> str | None:
    """Return the format of one stamp; day and month may be the wrong way round."""
    with warnings.catch_warnings():  # pandas warns of a day that stands first; it is checked here
        warnings.simplefilter("ignore", UserWarning)
        return pd.tseries.api.guess_datetime_format(text)


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

    is_repeated = wall.tz_localize(tz, ambiguous="NaT", nonexistent="shift_forward").isna()
    repeated = np.flatnonzero(is_repeated)
    is_first, is_ambiguous = _first_passes(flat[order], series[order], repeated)
    if is_ambiguous.any():
        row = int(repeated[np.argmax(is_ambiguous)])
        raise DataError(
            f"{wall[row]} occurs twice in {tz}, and the order of the rows does not tell which",
            code="ambiguous-time",
            location=locate(int(order[row])),
            hint="write the offset from UTC in every stamp, or sort the rows by time",
        )

    is_dst = np.zeros(n_local, np.bool_)
    is_dst[repeated] = is_first
    local = wall.tz_localize(tz, ambiguous=is_dst, nonexistent="NaT")
    if local.isna().any():
        row = int(np.argmax(local.isna()))
        raise DataError(
            f"{wall[row]} does not exist in {tz}: the clock was set forward over it",
            code="nonexistent-time",
            location=locate(int(order[row])),
            hint="if the clock knows no summer time, say so, such as  --tz UTC  or  --tz +01:00",
        )
    flat[order] = local.tz_convert("UTC").as_unit("us").asi8
    return np.split(flat, ends)


def _clock_order(times: Integers, codes: NDArray[np.integer]) -> Integers:
    """Return the rows, series by series, each as its clock ran."""
    position = np.arange(len(times))
    n_series = int(codes.max(initial=0)) + 1
    first, last = np.zeros(n_series, np.int64), np.zeros(n_series, np.int64)
    first[codes[::-1]], last[codes] = times[::-1], times
    return np.lexsort((np.where(last < first, -1, 1)[codes] * position, codes))


def _first_passes(
    wall: Integers, series: NDArray[np.integer], repeated: Integers
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
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


def parse_time_us(text: str, tz: str | None) -> int:
    """Parse a time that a user typed to microseconds; without a zone it is in the data's.

    A time that clocks skip is the first after it. Only ISO 8601 with a whole date is read:
    02.01.2024 is not guessed, and no result depends on a clock, as that of `12:00` would. Raises
    `UsageError`.
    """
    stamp = _parse_iso(text)
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


def _parse_iso(text: str) -> pd.Timestamp:
    """Parse ISO 8601 with a whole date. Raises `UsageError`."""
    try:
        if not _ISO_8601.fullmatch(text.strip()):
            raise ValueError("it is not written as ISO 8601 has it, year first")
        return pd.Timestamp(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a time: {error}", hint="write 2024-05-01 or 2024-05-01T12:00+00:00"
        ) from error


def date_range(first: str, last: str, every_us: int) -> list[str]:
    """Return the times from the first to at most the last in equal steps, written as the first is.

    A day is 24 hours here. Raises `UsageError` for text that is no time, for a last time before the
    first, and where only one of the two has a zone.
    """
    begin, end = _parse_iso(first), _parse_iso(last)
    if (begin.tzinfo is None) != (end.tzinfo is None):
        raise UsageError(f"of {first!r} and {last!r} only one has a zone")
    if end < begin:
        raise UsageError(f"--to {last} lies before --from {first}")

    step = pd.Timedelta(every_us, "us")
    n_times = int((end - begin) / step) + 1
    if n_times > _MAX_DATES:
        raise UsageError(f"--from {first} --to {last} are {n_times} times", hint="--every longer")
    return [(begin + i * step).isoformat() for i in range(n_times)]


def timestamp_array(times_us: Integers, tz: str | None) -> pa.Array:
    """Convert microseconds to flat Arrow timestamps in the data's zone."""
    return pa.array(times_us.ravel(), pa.int64()).cast(pa.timestamp("us", tz=tz))


def format_timestamps(stamps: pa.ChunkedArray) -> pa.Array:
    """Format timestamps: `2024-05-01 12:00:00`, with the offset where they have a zone."""
    times_us = stamps.cast(pa.int64())
    is_whole_second = pc.equal(pc.multiply(pc.divide(times_us, 1_000_000), 1_000_000), times_us)
    unit: Literal["s", "us"] = "s" if pc.all(is_whole_second).as_py() else "us"
    if stamps.type.tz is None:
        return stamps.cast(pa.timestamp(unit)).cast(pa.string())

    encoded = times_us.combine_chunks().dictionary_encode()  # many series share their stamps
    utc = pd.DatetimeIndex(encoded.dictionary.to_numpy().view("datetime64[us]"), tz="UTC")
    local = utc.tz_convert(stamps.type.tz).as_unit(unit)
    texts = pa.array([stamp.isoformat(" ") for stamp in local], pa.string())
    return pa.DictionaryArray.from_arrays(encoded.indices, texts).dictionary_decode()


def format_timestamp(time_us: int, tz: str | None) -> str:
    """Format one time in microseconds."""
    text: str = format_timestamps(pa.chunked_array([timestamp_array(np.array([time_us]), tz)]))[
        0
    ].as_py()
    return text


def format_for_file_name(time_us: int, tz: str | None) -> str:
    """Format one time for a file name: `2024-05-01T120000`, with Z and in UTC if it is aware.

    Names of one zone sort in the order of their times. So a fraction of a second comes after `_`,
    which sorts after `Z` and all that follows the time in a name, as `.` does not.
    """
    text = format_timestamp(time_us, None).replace(" ", "T").replace(":", "").replace(".", "_")
    return text if tz is None else f"{text}Z"
