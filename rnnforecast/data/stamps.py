"""Time stamps: from what a column holds to microseconds, and back to text.

Apart from `timegrid`, which knows steps and rows: here stamps have formats and zones. Microseconds
count from 1970, in UTC for aware stamps and on the wall clock for naive ones.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data.columns import EPOCH_UNITS_US, Column
from rnnforecast.data.panel import Integers
from rnnforecast.data.reading import Source
from rnnforecast.data.schema import Schema
from rnnforecast.errors import DataError, UsageError

_EARLIEST_US, _LATEST_US = -2_208_988_800_000_000, 7_258_118_400_000_000  # 1900, 2200
_OFFSET = re.compile(r"[T ]\d{1,2}:?\d{2}.*?(Z|[+-]\d{2}(:?\d{2})?)$")


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
        offsets = {match[1] for text in column.sample if (match := _OFFSET.search(text.strip()))}
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
    _decided: list[str] = field(default_factory=list)
    """The format of stamps that are not ISO 8601: an early batch decides for all that follow."""

    @classmethod
    def of(cls, source: Source, schema: Schema) -> StampReader:
        """Make one for a source's time column."""
        column = next(c for c in source.columns if c.name == schema.time)
        return cls(source, schema, Zone.of_column(column), column.is_typed)

    @property
    def arrow_type(self) -> pa.DataType:
        """What to read the column as."""
        if self.is_typed:
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
        if self.is_typed:
            times = np.asarray(array.cast(pa.int64()).to_numpy())
        elif self.schema.epoch_unit:
            factor = EPOCH_UNITS_US[self.schema.epoch_unit]
            times = np.rint(array.to_numpy(zero_copy_only=False) * factor).astype(np.int64)
        else:
            times = self._from_text(array, n_before)
        outside = (times < _EARLIEST_US) | (times >= _LATEST_US)
        if outside.any():
            raise self._error(
                "a time stamp lies outside the years 1900 to 2200",
                "time-range",
                n_before + int(np.argmax(outside)),
                hint="correct or remove the row",
            )
        return times

    def _from_text(self, array: pa.Array, n_before: int) -> Integers:
        is_aware = self.zone.is_aware
        try:  # nearly every file has ISO 8601, and Arrow reads it without making objects
            stamps = pc.cast(array, pa.timestamp("us", tz="UTC" if is_aware else None))
        except pa.ArrowInvalid:
            pass
        else:
            microseconds = stamps.cast(pa.int64())
            fast: Integers = np.array(microseconds.to_numpy())
            return fast
        texts = array.to_pandas()
        parsed = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
        if parsed.isna().all():
            parsed = pd.to_datetime(texts, utc=True, errors="coerce", format=self._format(texts))
        bad = parsed.isna().to_numpy()
        if bad.any():
            n_bad = int(bad.sum())
            raise self._error(
                f"{n_bad} value{'s' * (n_bad > 1)} in column {self.schema.time!r} "
                f"{'are' if n_bad > 1 else 'is'} not a time",
                "not-a-time",
                n_before + int(np.argmax(bad)),
                hint="correct or remove the row; mixed formats in one column are not guessed",
            )
        differs = np.array([(_OFFSET.search(t.strip()) is None) == is_aware for t in texts])
        if differs.any():
            raise self._error(
                f"some stamps in column {self.schema.time!r} carry an offset from UTC, others none",
                "mixed-zones",
                n_before + int(np.argmax(differs)),
                hint="write the offset, such as +01:00 or Z, in every row or in none",
            )
        times: Integers = parsed.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
        return times

    def _format(self, texts: pd.Series[str]) -> str:
        """Find the one format of stamps that are not ISO 8601; day and month are never guessed."""
        if self._decided:
            return self._decided[0]
        guesses = Counter(filter(None, map(_guess_format, texts.iloc[:100])))
        guessed = max(guesses, key=guesses.__getitem__, default="ISO8601")
        if re.match(r"%[dm][-/.]%[dm]", guessed):
            mark = guessed[2]
            pattern = re.compile(r"\s*(\d{1,2})M(\d{1,2})M".replace("M", re.escape(mark)))
            parts = [match for text in texts if (match := pattern.match(text))]
            first, second = (max(int(match[i]) for match in parts) for i in (1, 2))
            if first <= 12 and second <= 12:
                raise self._error(
                    f"day and month cannot be told apart in column {self.schema.time!r}",
                    "ambiguous-date",
                    0,
                    hint="write the stamps as YYYY-MM-DD",
                )
            order = f"%d{mark}%m" if first > 12 else f"%m{mark}%d"
            guessed = order + guessed[5:]
        self._decided.append(guessed)
        return guessed

    def _error(self, message: str, code: str, row: int, *, hint: str) -> DataError:
        location = self.source.location(row, self.schema.time)
        return DataError(message, code=code, location=location, hint=hint)


def localise(times: list[Integers], codes: list[NDArray[np.int32]], tz: str) -> list[Integers]:
    """Read wall-clock times in a zone.

    The hour that occurs twice is told apart by the order within each series, which `codes` tell;
    a series whose last row lies before its first runs backwards.
    """
    ends = np.cumsum([len(chunk) for chunk in times])[:-1]
    flat = np.concatenate(times)
    order = _forward_order(flat, np.concatenate(codes))
    index = pd.DatetimeIndex(flat[order].view("datetime64[us]"))
    try:
        local = index.tz_localize(tz, ambiguous="infer", nonexistent="raise")
    except (ValueError, KeyError) as error:
        raise DataError(
            f"the stamps do not fit the zone {tz}: {error}",
            code="zone",
            hint="check --tz ; stamps in UTC or standard time need none",
        ) from error
    flat[order] = local.tz_convert("UTC").as_unit("us").asi8
    return np.split(flat, ends)


def _forward_order(times: Integers, codes: NDArray[np.int32]) -> Integers:
    """Return the rows, series by series, each as its clock ran."""
    position = np.arange(len(times))
    n_series = int(codes.max(initial=0)) + 1
    first, last = np.zeros(n_series, np.int64), np.zeros(n_series, np.int64)
    first[codes[::-1]], last[codes] = times[::-1], times
    return np.lexsort((np.where(last < first, -1, 1)[codes] * position, codes))


def _guess_format(text: str) -> str | None:
    with warnings.catch_warnings():  # pandas warns of a day that stands first; it is checked here
        warnings.simplefilter("ignore", UserWarning)
        return pd.tseries.api.guess_datetime_format(text)


def parse_time_us(text: str, tz: str | None) -> int:
    """Read a time that a user typed as microseconds; without a zone it is in the data's.

    Words such as `now` are refused: no result depends on a clock.
    """
    try:
        if not any(character.isdigit() for character in text):
            raise ValueError("it names no date")
        stamp = pd.Timestamp(text)
        if tz is not None and stamp.tzinfo is None:
            stamp = stamp.tz_localize(tz)
        if pd.isna(stamp):
            raise ValueError("it is empty")
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a time: {error}", hint="write 2024-05-01 or 2024-05-01T12:00+00:00"
        ) from error
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
    local = pd.DatetimeIndex(whole.to_numpy().view("datetime64[us]"), tz="UTC")
    local = local.tz_convert(stamps.type.tz).as_unit(unit)
    return pa.array([stamp.isoformat(" ") for stamp in local], pa.string())


def format_stamp(time_us: int, tz: str | None) -> str:
    """Write one stamp as text."""
    text: str = format_stamps(pa.chunked_array([stamp_array(np.array([time_us]), tz)]))[0].as_py()
    return text
