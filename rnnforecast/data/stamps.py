"""Time stamps: from what a column holds to microseconds, and back to text.

Apart from `timegrid`, which knows steps and rows: here stamps have formats and zones. Microseconds
count from 1970, in UTC for aware stamps and on the wall clock for naive ones.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data.panel import Integers
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamptexts import (
    OFFSET,
    AmbiguousDateError,
    StampTexts,
    guess_format,
    has_leap_second,
)
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import EPOCH_UNITS_US
from rnnforecast.errors import DataError, UsageError
from rnnforecast.sources.columns import Column
from rnnforecast.sources.reading import Source

_CLOCK = "[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)?"
_ISO_8601 = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)?)?"
    "|[0-9]{8}T[0-9]{4}([0-9]{2})?(Z|[+-][0-9]{2}([0-9]{2})?)?",
    re.IGNORECASE,
)
"""A date, or a date with a time; zones as offsets."""
_MOST_MOMENTS = 100_000


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
