"""TimeAxis: the axis on which rows lie at equal steps; times as text.

Grids, windows and seasons count rows. A day of a time zone has 23, 24 or 25 hours, a month 28 to 31
days, and a machine that runs one shift is not read at night: so readings are put on an axis on
which all these are equal steps, and only here are its times converted to those of the stamps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data.arrays import Integers
from rnnforecast.errors import UsageError
from rnnforecast.units import MONTH_US, parse_utc_offset_us

ELAPSED, WALL_CLOCK, MONTHS = "elapsed", "wall-clock", "months"
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
_YEAR_US = 12 * MONTH_US
MONDAY_US = 4 * DAY_US
"""A Monday: 1970-01-05."""
_YEARS = (1890, 2210)
"""Years whose changes of the clock are looked up; stamps lie between 1900 and 2200."""
Flags = NDArray[np.bool_]
_CLOCK = "[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?)?"
_ISO_8601 = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)?)?"
    "|[0-9]{8}T[0-9]{4}([0-9]{2})?(Z|[+-][0-9]{2}([0-9]{2})?)?",
    re.IGNORECASE,
)
"""A date, or a date with a time; zones as offsets."""
_IN_FILE_NAME = re.compile(r"([0-9-]{10}T[0-9]{2})([0-9]{2})([0-9]{2})(?:_([0-9]{6}))?(Z?)")
"""A time as `format_for_file_name` writes it."""
_MAX_DATES = 100_000


class Offsets(NamedTuple):
    """The offsets of a zone from UTC, in microseconds, `(period,)`: between two changes each."""

    start: Integers
    """When the period begins, UTC."""
    offset: Integers

    @property
    def end(self) -> Integers:
        """When the period ends, UTC."""
        return np.append(self.start[1:], np.iinfo(np.int64).max)

    def to_wall_clock(self, times: Integers) -> Integers:
        """Return what the clock shows at times in UTC."""
        return times + self.offset[np.searchsorted(self.start, times, side="right") - 1]

    @property
    def wall_start(self) -> Integers:
        """What the clock shows when the period begins."""
        return self.start + self.offset

    @property
    def wall_end(self) -> Integers:
        """What the clock shows when each period but the last ends."""
        return self.start[1:] + self.offset[:-1]


@cache
def time_zone(tz: str) -> tzinfo:
    """Return the zone of a name, such as `Europe/Vienna` or `+01:00`, for pandas.

    pandas 2 takes the name itself for a zone of pytz, which has no summer time after 2037.
    """
    fixed_us = parse_utc_offset_us(tz)
    return ZoneInfo(tz) if fixed_us is None else timezone(timedelta(microseconds=fixed_us))


@cache
def zone_offsets(tz: str) -> Offsets:
    """Return the offsets of a zone, such as `Europe/Vienna` or `+01:00`, in all years."""
    fixed_us = parse_utc_offset_us(tz)
    if fixed_us is not None:
        return Offsets(np.array([np.iinfo(np.int64).min // 2]), np.array([fixed_us]))

    zone = ZoneInfo(tz)

    def offset_at(day: datetime) -> timedelta:
        return day.astimezone(zone).utcoffset() or timedelta()

    # Nights in which the offset changes, each then bisected to the second.
    days = pd.date_range(f"{_YEARS[0]}-01-01", f"{_YEARS[1]}-01-01", tz="UTC")
    offsets = (days.tz_convert(zone).tz_localize(None) - days.tz_localize(None)).asi8
    starts, values = [days[0].to_pydatetime()], [offset_at(days[0].to_pydatetime())]
    for i in np.flatnonzero(np.diff(offsets)).tolist():
        low, high = days[i].to_pydatetime(), days[i + 1].to_pydatetime()
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
            if offset_at(middle) == offset_at(low):
                low = middle
            else:
                high = middle
        starts.append(high)
        values.append(offset_at(high))

    second = timedelta(microseconds=1)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return Offsets(
        np.array([(start - epoch) // second for start in starts], np.int64),
        np.array([value // second for value in values], np.int64),
    )


@dataclass(frozen=True)
class TimeAxis:
    """Maps the times of stamps, microseconds in UTC, to the axis of the rows, and back.

    Stamps without a zone are mapped as if they were in UTC. On the axis, too, times are
    microseconds; a month takes `MONTH_US` there, whichever it is.
    """

    tz: str | None = None
    """Zone of the stamps, in readings and forecasts; None where they carry none."""
    kind: str = ELAPSED
    """elapsed (as UTC counts), wall-clock (as clocks of the zone show), or months of its calendar.

    On the wall clock, the hour that clocks skip in spring is a row without a reading, and the hour
    that comes twice in autumn is a single row.
    """
    offset_us: int = 0
    """Offset of a stamp from the start of its month; -1 day for month-end stamps."""
    step_us: int = 0
    """Step that `open_steps` count."""
    open_steps: tuple[int, ...] = ()
    """Steps of a week, from Monday on, in which there are readings; empty for all of them.

    The others have no rows: what is closed at night is no gap.
    """

    @property
    def _offsets(self) -> Offsets:
        return zone_offsets("UTC" if self.tz is None or self.kind == ELAPSED else self.tz)

    def from_utc(self, times: Integers) -> Integers:
        """Return the times on the axis, of the same shape.

        What lies in a closed step becomes the beginning of the next open one.
        """
        if self.kind != ELAPSED and self.tz is not None:
            times = self._offsets.to_wall_clock(times)
        return self.from_wall_clock(times)

    def with_dates_from(self, change_us: int, times: Integers) -> Integers:
        """Return times of a clock whose dates change at a time of day, as if they did at midnight.

        In the morning dates change late, and rows before have that of the day before; after noon
        they change early.
        """
        clock = self.from_utc(times) % DAY_US
        if 2 * change_us < DAY_US:
            return np.where(clock < change_us, times + DAY_US, times)
        return np.where(clock >= change_us, times - DAY_US, times)

    def from_wall_clock(self, times: Integers) -> Integers:
        """Return times that the clock of the zone shows on the axis; of `elapsed`, those of UTC."""
        if self.kind == MONTHS:
            stamps = times - self.offset_us
            month = stamps.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
            begin, length = _months(month)
            part = np.rint((stamps - begin) / length * MONTH_US).astype(np.int64)
            times = month * MONTH_US + part

        if self.open_steps:
            week, in_week = np.divmod(times - MONDAY_US, WEEK_US)
            position, remainder = np.divmod(in_week, self.step_us)
            is_open = np.isin(position, self.open_steps)
            row = week * len(self.open_steps) + np.searchsorted(self.open_steps, position)
            times = row * self.step_us + np.where(is_open, remainder, 0)
        return times

    def to_wall_clock(self, times: Integers) -> Integers:
        """Return what the clock of the zone shows at times of the axis; of `elapsed`, UTC."""
        if self.open_steps:
            row, remainder = np.divmod(times, self.step_us)
            week, rank = np.divmod(row, len(self.open_steps))
            position = np.array(self.open_steps, np.int64)[rank]
            times = MONDAY_US + week * WEEK_US + position * self.step_us + remainder
        if self.kind == MONTHS:
            month, remainder = np.divmod(times, MONTH_US)
            begin, length = _months(month)
            times = begin + np.rint(remainder / MONTH_US * length).astype(np.int64) + self.offset_us
        return times

    def to_utc(self, times: Integers) -> Integers:
        """Return times of the axis in UTC.

        Of an hour that comes twice it is the second; for what clocks skip, the moment after it.
        """
        wall, offsets = self.to_wall_clock(times), self._offsets
        period = np.searchsorted(offsets.wall_start, wall, side="right") - 1
        utc: Integers = np.minimum(wall - offsets.offset[period], offsets.end[period])
        return utc

    def first_utc(self, times: Integers) -> Integers:
        """Return times of the axis in UTC; of an hour that comes twice it is the first one."""
        wall, offsets = self.to_wall_clock(times), self._offsets
        period = np.searchsorted(offsets.wall_end, wall, side="right")
        utc: Integers = np.maximum(wall - offsets.offset[period], offsets.start[period])
        return utc

    def exists(self, times: Integers, step_us: int) -> Flags:
        """Tell which rows of a step a clock shows, if only in part: not those skipped in spring."""
        exists: Flags = self.to_utc(times + step_us) > self.to_utc(times)
        return exists

    def stamp_rows(self, times: Integers, step_us: int) -> tuple[Integers, Integers]:
        """Return the stamps of rows as `(row number, time in UTC)`, in the order of the rows.

        A row that clocks skip has no stamp. One of an hour that comes twice has two, unless it is
        longer than that hour.
        """
        first, last, exists = self.first_utc(times), self.to_utc(times), self.exists(times, step_us)
        is_twice = exists & (last - first >= step_us)
        n_stamps = exists.astype(np.int64) + is_twice
        rows = np.repeat(np.arange(len(times)), n_stamps)
        is_second = np.diff(rows, prepend=-1) == 0
        return rows, np.where(is_second, last[rows], first[rows])

    def local(self, times: Integers) -> pd.DatetimeIndex:
        """Return what the clock of the zone shows at times of the axis, without a zone."""
        wall = self.to_wall_clock(times)
        if self.kind == ELAPSED and self.tz is not None:
            wall = zone_offsets(self.tz).to_wall_clock(wall)
        return pd.DatetimeIndex(wall.astype("datetime64[us]"))

    def skipped_rows(self, begin_us: int, end_us: int, step_us: int) -> list[tuple[int, int]]:
        """Return the first and last rows that clocks skip each spring, as times on the axis.

        Those between two times of the axis are returned; with closed hours, none.
        """
        if self.open_steps or self.kind != WALL_CLOCK:
            return []
        offsets = self._offsets
        ends = offsets.wall_start[1:] - step_us
        pairs = zip(offsets.wall_end.tolist(), ends.tolist(), strict=True)
        return [(a, b) for a, b in pairs if a <= b and begin_us <= b and a < end_us]

    def repeated_hours(self, begin_us: int, end_us: int) -> list[tuple[int, int]]:
        """Return the times in UTC that clocks show twice: begin of the first hour, of the second.

        Those between two times in UTC are returned; the second hour is as long as the first.
        """
        offsets = self._offsets
        changes = zip(offsets.start[1:].tolist(), np.diff(offsets.offset).tolist(), strict=True)
        return [(t + jump, t) for t, jump in changes if jump < 0 and begin_us < t < end_us]

    def is_open(self, times: Integers) -> Flags:
        """Tell which times, before closed steps are left out, lie in open ones."""
        position = (times - MONDAY_US) % WEEK_US // self.step_us
        return np.isin(position, self.open_steps)

    def periods(self, step_us: int) -> tuple[int, ...]:
        """Return the periods of the clock and the calendar in steps, the shortest first.

        They are a minute, an hour, a day and a week, and a year of days, weeks or months. With
        closed hours a day is one of the days that are open, where all of these are equally long.
        """
        if self.kind == MONTHS:
            lengths: tuple[int, ...] = (_YEAR_US,)
        else:
            lengths = (HOUR_US // 60, HOUR_US, DAY_US, WEEK_US)
            if step_us in (DAY_US, WEEK_US):  # 365 days, 52 weeks
                lengths += (365 * DAY_US // step_us * step_us,)
        if not self.open_steps:
            return tuple(us // step_us for us in lengths if us % step_us == 0)

        finer = (us // step_us for us in lengths[:2] if us % step_us == 0)
        day = self._open_days if len(self._open_days) == 1 else []
        return (*finer, *day, len(self.open_steps))

    def measure(self, duration_us: int, step_us: int) -> int:
        """Return how long a duration is on the axis, in microseconds.

        With closed hours, a day and a week are as long as their open hours. A month, a quarter or a
        year is rounded to a whole number of shorter steps.
        """
        if self.open_steps and duration_us % WEEK_US == 0:
            return duration_us // WEEK_US * len(self.open_steps) * step_us
        if self.open_steps and duration_us % DAY_US == 0 and len(self._open_days) == 1:
            return duration_us // DAY_US * self._open_days[0] * step_us
        if duration_us % MONTH_US == 0 and self.kind != MONTHS:
            return round(duration_us / step_us) * step_us
        return duration_us

    @property
    def _open_days(self) -> list[int]:
        """The different numbers of open steps that days have; closed days do not count."""
        days = np.bincount(np.array(self.open_steps, np.int64) * self.step_us // DAY_US)
        return sorted(set(days[days > 0].tolist()))

    def floor(self, times: Integers, step_us: int) -> Integers:
        """Return where the bin of each time of the axis begins; weeks begin on a Monday."""
        origin = MONDAY_US if self.kind != MONTHS and step_us % WEEK_US == 0 else 0
        return times - (times - origin) % step_us

    def stamps(self, times: Integers) -> pa.Array:
        """Return times of the axis as flat Arrow timestamps in the zone."""
        return timestamp_array(self.to_utc(times), self.tz)

    def format(self, time_us: int) -> str:
        """Format a time of the axis: `2024-05-01 12:00:00`, with the offset where it has a zone."""
        return format_timestamp(self._utc(time_us), self.tz)

    def format_for_file_name(self, time_us: int) -> str:
        """Format a time of the axis for a file name."""
        return format_for_file_name(self._utc(time_us), self.tz)

    def parse(self, text: str) -> int:
        """Parse a time that a user typed; without a zone it is that of the clock.

        Raises `UsageError`.
        """
        stamp = _parse_iso(text)
        if self.tz is not None and self.kind != ELAPSED and stamp.tzinfo is None:
            return int(self.from_wall_clock(np.array([_microseconds(stamp)]))[0])
        return int(self.from_utc(np.array([parse_time_us(text, self.tz)]))[0])

    def _utc(self, time_us: int) -> int:
        return int(self.to_utc(np.array([time_us], np.int64))[0])


ELAPSED_UTC = TimeAxis()
"""The axis of stamps without a zone, and of those in UTC: nothing is converted."""


def _months(month: Integers) -> tuple[Integers, Integers]:
    """Return the beginnings of months, counted from 1970, and their lengths, in microseconds."""
    begin = month.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
    end = (month + 1).astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
    return begin, end - begin


def parse_time_us(text: str, tz: str | None) -> int:
    """Parse a time that a user typed to microseconds; without a zone it is in the data's.

    A time that clocks skip is the first after it; of one that comes twice it is the second, as in
    `to_utc`, so that no reading of that name is left out. Only ISO 8601 with a whole date is read:
    02.01.2024 is not guessed, and no result depends on a clock, as that of `12:00` would. Raises
    `UsageError`.
    """
    stamp = _parse_iso(text)
    if tz is not None and stamp.tzinfo is None:
        try:
            stamp = stamp.tz_localize(time_zone(tz), nonexistent="shift_forward", ambiguous=False)
        except ValueError as error:
            raise UsageError(f"cannot parse time {text!r} in {tz}: {error}") from error
    if tz is not None:
        stamp = stamp.tz_convert("UTC")
    elif stamp.tzinfo is not None:
        raise UsageError(f"{text!r} has a time zone, but the data has none")

    return _microseconds(stamp.tz_localize(None))


def _microseconds(stamp: pd.Timestamp) -> int:
    return int(stamp.to_datetime64().astype("datetime64[us]").astype(np.int64))


def _parse_iso(text: str) -> pd.Timestamp:
    """Parse ISO 8601 with a whole date, also as file names have it. Raises `UsageError`."""
    in_name = _IN_FILE_NAME.fullmatch(text.strip())
    if in_name is not None:
        date_and_hour, minute, second, fraction, zone = in_name.groups()
        text = f"{date_and_hour}:{minute}:{second}.{fraction or 0}{zone}"
    try:
        if not _ISO_8601.fullmatch(text.strip()):
            raise ValueError("not in ISO 8601 format")
        return pd.Timestamp(text.strip())
    except ValueError as error:
        raise UsageError(
            f"cannot parse time {text!r}: {error}",
            hint="use ISO 8601, e.g. 2024-05-01 or 2024-05-01T12:00+00:00",
        ) from error


def check_not_ahead(text: str) -> None:
    """Raise `UsageError` for a time that a user typed which is days ahead of this machine's clock.

    In the name of a file it would be the newest one until then. A day is left for zones.
    """
    stamp = _parse_iso(text)
    utc = stamp if stamp.tzinfo is None else stamp.tz_convert("UTC").tz_localize(None)
    if utc > pd.Timestamp.now("UTC").tz_localize(None) + pd.Timedelta(days=1):
        raise UsageError(
            f"{text} is in the future by this machine's clock",
            code="not-yet",
            hint="omit the time to use the newest reading",
        )


def date_range(first: str, last: str, every_us: int) -> list[str]:
    """Return the times from the first to at most the last in equal steps, written as the first is.

    A day is 24 hours here. Raises `UsageError` for text that is no time, for a last time before the
    first, and where only one of the two has a zone.
    """
    begin, end = _parse_iso(first), _parse_iso(last)
    if (begin.tzinfo is None) != (end.tzinfo is None):
        raise UsageError(f"only one of {first!r} and {last!r} has a time zone")
    if end < begin:
        raise UsageError(f"--to {last} is before --from {first}")

    step = pd.Timedelta(every_us, "us")
    n_times = int((end - begin) / step) + 1
    if n_times > _MAX_DATES:
        raise UsageError(
            f"--from {first} --to {last} gives {n_times} times; at most {_MAX_DATES} are allowed",
            hint="use a longer --every",
        )
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
    local = utc.tz_convert(time_zone(stamps.type.tz)).as_unit(unit)
    texts = pa.array([stamp.isoformat(" ") for stamp in local], pa.string())
    return pa.DictionaryArray.from_arrays(encoded.indices, texts).dictionary_decode()


def format_timestamp(time_us: int, tz: str | None) -> str:
    """Format one time in microseconds."""
    times = pa.chunked_array([timestamp_array(np.array([time_us]), tz)])
    text: str = format_timestamps(times)[0].as_py()
    return text


def format_for_file_name(time_us: int, tz: str | None) -> str:
    """Format one time for a file name: `2024-05-01T120000`, with Z and in UTC if it is aware.

    Names of one zone sort in the order of their times. So a fraction of a second comes after `_`,
    which sorts after `Z` and all that follows the time in a name, as `.` does not.
    """
    text = format_timestamp(time_us, None).replace(" ", "T").replace(":", "").replace(".", "_")
    return text if tz is None else f"{text}Z"
