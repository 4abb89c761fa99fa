"""Parse and format durations, ranges and numbers. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from rnnforecast.errors import UsageError

_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "sec": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
    "mo": 2_629_800_000_000,
    "q": 7_889_400_000_000,
    "y": 31_557_600_000_000,
}
"""On the axis of rows, a month is a twelfth of 365.25 days, a quarter a fourth."""
MONTH_US = _MICROSECONDS["mo"]
_OTHER_SPELLINGS = {
    "MS": "mo", "ME": "mo", "QS": "q", "QE": "q", "YS": "y", "YE": "y",
    "month": "mo", "months": "mo", "quarter": "q", "quarters": "q", "year": "y", "years": "y",
    "day": "d", "days": "d", "week": "w", "weeks": "w", "hour": "h", "hours": "h",
    "minute": "min", "minutes": "min", "second": "s", "seconds": "s",
}  # fmt: skip
"""Units as pandas and people write them."""
_ISO_DURATION = re.compile(r"P(?:(\d{1,15})([YMWD])|T(\d{1,15})([HMS]))")
_ISO_UNITS = {"Y": "y", "M": "mo", "W": "w", "D": "d", "TH": "h", "TM": "min", "TS": "s"}
EPOCH_UNITS_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
"""Units of numeric time stamps since 1970, in microseconds."""
EXCEL = "excel"
"""Days of a spreadsheet, since 30 December 1899, as another unit of numeric time stamps."""
YEAR = "year"
"""Years, with decimals for parts of one, as another unit: 1949.25 is the first of April."""
TICKS = "ticks"
"""Tenths of a microsecond since the year 1, as .NET counts, as another unit."""
TICKS_1970 = 621_355_968_000_000_000
"""1 January 1970 in these."""
_MANY = 100
"""A duration of this many units or more is described in a longer one."""
_MAX_DURATION_US = 300 * 365 * _MICROSECONDS["d"]
OFFERED_ZONES = (
    "America/New_York", "America/Chicago", "America/Denver", "America/Phoenix",
    "America/Los_Angeles", "America/Anchorage", "America/Halifax", "Pacific/Honolulu",
    "Europe/London", "Europe/Berlin", "Europe/Lisbon", "Europe/Athens", "Europe/Moscow",
    "Asia/Kolkata", "Asia/Tokyo", "Asia/Seoul", "Australia/Sydney", "Australia/Adelaide",
    "Pacific/Auckland", "UTC",
)  # fmt: skip
"""One zone of many with the same abbreviations, the best known."""


def parse_duration_us(text: str) -> int:
    """Parse a duration such as `15min`, `24h`, `1.5d`, `1mo` or `P1M` into microseconds.

    Raises `UsageError` for text that is not a duration, and for one that is not positive or is
    longer than 300 years.
    """
    iso = _ISO_DURATION.fullmatch(text.strip())
    if iso:
        text = f"{iso[1]}{_ISO_UNITS[iso[2]]}" if iso[2] else f"{iso[3]}{_ISO_UNITS['T' + iso[4]]}"
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)?\s*([a-zA-Z]+)\s*", text)
    if match and match[2] == "M":
        count = match[1] or 1
        raise UsageError(
            f"{text!r} is ambiguous: month or minute", hint=f"write {count}mo or {count}min"
        )
    unit = match and _MICROSECONDS.get(_OTHER_SPELLINGS.get(match[2], match[2].lower()))
    if not match or not unit:
        raise UsageError(
            f"{text!r} is not a duration", hint="use a number and a unit, e.g. 15min, 24h or 7d"
        )

    microseconds = round(float(match[1] or 1) * unit)
    if microseconds <= 0:
        raise UsageError(f"{text!r} is not a positive duration")
    if microseconds > _MAX_DURATION_US:
        raise UsageError(f"{text!r} is longer than 300 years")
    return microseconds


def is_end_of_period(text: str) -> bool:
    """Tell whether a step such as pandas' `ME` is named by the last day of each period."""
    return re.fullmatch(r"\s*\d*\s*[MQY]E\s*", text) is not None


def parse_steps(
    text: str | int,
    *,
    step_us: int,
    name: str,
    limit: int,
    measure: Callable[[int, int], int] | None = None,
) -> int:
    """Parse 24, `24` or `24h` into a number of steps of `step_us` microseconds.

    `measure` returns how long a duration is where not all hours and months count alike. Raises
    `UsageError` for a duration that is not a whole number of steps, and for a number that is not
    between 1 and `limit`.
    """
    steps, remainder = parse_step_count(text, name=name, limit=limit), 0
    if steps is None:
        duration_us = parse_duration_us(str(text))
        if measure is not None:
            duration_us = measure(duration_us, step_us)
        steps, remainder = divmod(duration_us, step_us)
    if remainder:
        raise UsageError(
            f"--{name} {text} is not a whole number of steps of {format_duration(step_us)}",
            hint=f"use {' or '.join(str(n) for n in (steps, steps + 1) if n)} steps",
        )
    check_range(name, steps, 1, limit)
    return steps


def parse_step_count(text: str | int, *, name: str, limit: int) -> int | None:
    """Return 24 for 24 and `24`, None for a duration, whose steps depend on the readings' step.

    Raises `UsageError` for text that is neither, and for a number that is not between 1 and
    `limit`.
    """
    stripped = str(text).strip()
    if not re.fullmatch(r"[+-]?\d{1,18}", stripped):
        parse_duration_us(stripped)
        return None
    check_range(name, int(stripped), 1, limit)
    return int(stripped)


def format_duration(microseconds: int) -> str:
    """Format a duration in its largest whole unit: `15 min`, `1 h`, `1 d`, `2 months`."""
    for unit in ("y", "q", "mo", "w", "d", "h", "min", "s", "ms"):
        count, remainder = divmod(microseconds, _MICROSECONDS[unit])
        if count and not remainder:
            name = {"y": "year", "q": "quarter", "mo": "month"}.get(unit, unit)
            return f"{count} {name}" + "s" * (count > 1 and name != unit)
    return f"{microseconds} us"


def describe_duration(microseconds: int) -> str:
    """Format a duration as people write it: `36 h`, `14.5 d`, `943 d`, `3.2 years`.

    It is exact where a unit goes into it fewer than a hundred times, else rounded to a tenth.
    """
    exact = format_duration(microseconds)
    if int(exact.split()[0]) < _MANY:
        return exact
    is_long = microseconds >= 3 * _MICROSECONDS["y"]
    units = ("d", "h", "min", "s", "ms", "us")
    unit = "y" if is_long else next(u for u in units if microseconds >= _MICROSECONDS[u])
    count = microseconds / _MICROSECONDS[unit]
    text = f"{count:.0f}" if count >= _MANY else f"{count:.1f}".removesuffix(".0")
    return f"{text} {'years' if is_long else unit}"


def abbreviate_duration(microseconds: int) -> str:
    """Format a duration as an option takes it, rounded down: `6h`, `116d`.

    The unit is the largest of which it has three.
    """
    units = ("d", "h", "min", "s", "ms", "us")
    unit = next((u for u in units if microseconds >= 3 * _MICROSECONDS[u]), "us")
    return f"{microseconds // _MICROSECONDS[unit]}{unit}"


def parse_utc_offset_us(tz: str) -> int | None:
    """Return the offset from UTC of `UTC` or `+01:00`; None for the name of a place's zone."""
    match = re.fullmatch(r"([+-])(\d{2}):(\d{2})", tz)
    if match is None:
        return 0 if tz == "UTC" else None
    size = int(match[2]) * _MICROSECONDS["h"] + int(match[3]) * _MICROSECONDS["min"]
    return -size if match[1] == "-" else size


def format_utc_offset(minutes: int) -> str:
    """Format an offset from UTC: `+01:00`."""
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Raise `UsageError` for an option's value outside `[low, high]`; None is allowed."""
    if value is not None and not low <= value <= high:
        raise UsageError(f"--{name} is {value}, but must be between {low:g} and {high:g}")


def parse_ranges(option: str, texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Parse ranges `name=low:high`; a missing end is infinite. Raises `UsageError`."""
    ranges = {}
    for text in texts:
        name, _, ends = text.rpartition("=")
        low, mark, high = ends.partition(":")
        limits = _number(low or "-inf"), _number(high or "inf")
        if not name or not mark or not limits[0] < limits[1]:
            raise UsageError(
                f"--{option} is {text!r}, but must be NAME=LOW:HIGH with LOW below "
                "HIGH, such as temp=-40:90"
            )
        ranges[name] = limits
    return ranges


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """Parse the limits `name=90` of `--exceed`. Raises `UsageError`."""
    limits = {}
    for text in texts:
        name, _, end = text.rpartition("=")
        limit = _number(end)
        if not name or not math.isfinite(limit):
            raise UsageError(f"--exceed is {text!r}, but must be NAME=LIMIT, such as temp=90")
        limits[name] = limit
    return limits


def _number(text: str) -> float:
    """Return NaN for text that is not a number: it fails every comparison."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def format_number(value: float | None, *, unit: str = "") -> str:
    """Format a number with about four significant digits; None is a dash."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3e}{unit}"
    digits = 0 if size >= 10_000 else 1 if size >= 1000 else 2 if size >= 100 else 3
    return (f"{value:.{digits}f}" if size >= 0.001 or size == 0 else f"{value:.2e}") + unit


def join_names(names: Sequence[str], limit: int) -> str:
    """Return `a, b and 3 more`: at most `limit` names, and how many are not shown."""
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
