"""Durations, ranges and numbers as text: parse and format them. Standard library."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

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
}
EPOCH_UNITS_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
"""What numeric time stamps may count."""
_LONGEST_US = 300 * 365 * _MICROSECONDS["d"]


def parse_duration_us(text: str) -> int:
    """Read a duration such as `15min`, `24h` or `1.5d` as microseconds.

    Raises `UsageError` where it is none, or not positive.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)?\s*([a-zA-Z]+)\s*", text)
    unit = match and _MICROSECONDS.get(match[2].lower())
    if not match or not unit:
        raise UsageError(
            f"{text!r} is not a duration", hint="write a number and a unit, such as 15min, 24h, 7d"
        )
    length = round(float(match[1] or 1) * unit)
    if length <= 0:
        raise UsageError(f"{text!r} is not a positive duration")
    if length > _LONGEST_US:
        raise UsageError(f"{text!r} is longer than 300 years")
    return length


def parse_steps(text: str | int, *, step_us: int, name: str, limit: int) -> int:
    """Read 24, `24` or `24h` as a number of steps. Raises `UsageError` where it is not whole."""
    steps, rest = check_steps(text, name=name, limit=limit), 0
    if steps is None:
        steps, rest = divmod(parse_duration_us(str(text)), step_us)
    if rest:
        raise UsageError(
            f"--{name} {text} is not a whole number of steps of {format_duration(step_us)}"
        )
    check_range(name, steps, 1, limit)
    return steps


def check_steps(text: str | int, *, name: str, limit: int) -> int | None:
    """Return 24 for 24 and `24`, None for a duration, whose steps depend on the readings' step.

    Raises `UsageError` for what is neither, and for a number that is not between 1 and the limit.
    """
    stripped = str(text).strip()
    if not re.fullmatch(r"[+-]?\d{1,18}", stripped):
        parse_duration_us(stripped)
        return None
    check_range(name, int(stripped), 1, limit)
    return int(stripped)


def format_duration(microseconds: int) -> str:
    """Write a duration in its largest whole unit: `15 min`, `1 h`, `1 d`."""
    for unit in ("w", "d", "h", "min", "s", "ms"):
        count, rest = divmod(microseconds, _MICROSECONDS[unit])
        if count and not rest:
            return f"{count} {unit}"
    return f"{microseconds} us"


def shorten_duration(microseconds: int) -> str:
    """Write it no longer than it is, in the largest unit of which it has three: `6h`, `116d`."""
    units = ("d", "h", "min", "s", "ms", "us")
    unit = next((u for u in units if microseconds >= 3 * _MICROSECONDS[u]), "us")
    return f"{microseconds // _MICROSECONDS[unit]}{unit}"


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `UsageError` for the value of an option outside `[low, high]`."""
    if not low <= value <= high:
        raise UsageError(f"--{name} is {value}, but must lie between {low:g} and {high:g}")


def parse_ranges(option: str, texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Read ranges, `name=low:high`, either end of which may be left out. Raises `UsageError`."""
    ranges = {}
    for text in texts:
        name, _, ends = text.rpartition("=")
        low, mark, high = ends.partition(":")
        found = _number(low or "-inf"), _number(high or "inf")
        if not name or not mark or not found[0] < found[1]:
            raise UsageError(
                f"--{option} is {text!r}, but must be a name, a lowest and a highest reading, "
                "such as temp=-40:90"
            )
        ranges[name] = found
    return ranges


def parse_limits(option: str, texts: Sequence[str]) -> dict[str, float]:
    """Read limits, `name=90`. Raises `UsageError`."""
    limits = {}
    for text in texts:
        name, _, end = text.rpartition("=")
        found = _number(end)
        if not name or not math.isfinite(found):
            raise UsageError(f"--{option} is {text!r}, but must be a name and a limit, as temp=90")
        limits[name] = found
    return limits


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def figure(value: float | None, *, unit: str = "") -> str:
    """Write a figure with four sensible digits; a dash where it is undefined."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3e}{unit}"
    digits = 0 if size >= 10_000 else 1 if size >= 1000 else 2 if size >= 100 else 3
    return (f"{value:.{digits}f}" if size >= 0.001 or size == 0 else f"{value:.2e}") + unit


def join_names(names: Sequence[str], limit: int) -> str:
    """Return `a, b and 3 more`: at most `limit` names, and how many are not shown."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
