"""Limits as they are typed: `temp=-40:90` and `temp=90`. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rnnforecast.errors import UsageError


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
