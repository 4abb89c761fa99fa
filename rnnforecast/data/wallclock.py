"""Wall-clock times in a zone: the hour that comes twice in autumn, and the one that never comes.

Apart from `stamps`, which reads texts and numbers: here are the times of all rows, and their order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnnforecast.data.panel import Integers
from rnnforecast.errors import DataError, Location

_LONGEST_US = 7_200_000_000
"""No clock is set back by more; times further apart belong to different years."""


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
