"""Times that are known to be bad, such as maintenance: their readings are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnnforecast.data.panel import Integers
from rnnforecast.data.rows import Rows
from rnnforecast.data.stamps import parse_time_us
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.events import Listener, Noted, Warned

_COLUMNS = ("series", "from", "to")
_ALL = ""
"""What stands for every series in the file."""


class _Times(NamedTuple):
    """Stretches of time, microseconds, sorted by their beginnings."""

    begin: Integers
    end: Integers
    """The latest end of all stretches that have begun, the first time that is no longer bad."""

    def hold(self, times: Integers) -> NDArray[np.bool_]:
        """Tell which times lie in one of them."""
        last = np.searchsorted(self.begin, times, side="right") - 1
        inside: NDArray[np.bool_] = (last >= 0) & (times < self.end[np.maximum(last, 0)])
        return inside


def exclude(rows: Rows, path: Path, tz: str | None, listener: Listener, *, is_wide: bool) -> None:
    """Take the readings of these times for missing, each from one time until before another.

    An empty series means all of them; one that is not there is warned of. Raises `DataError`.
    """
    bad = _bad_times(path, tz)
    unknown = sorted(bad.keys() - {_ALL, *rows.names})
    if unknown:
        listener(Warned.naming("unknown-series", f"in {path}, but not in the readings", unknown))
    n_out = 0
    for i, chunks in enumerate(rows.values):
        names = rows.names[i : i + 1] if is_wide else rows.names
        for times, codes, chunk in zip(rows.times, rows.codes, chunks, strict=True):
            for chosen, own in _by_series(codes, names, bad):
                at = chosen[own.hold(times[chosen])]
                n_out += int(np.count_nonzero(np.isfinite(chunk[at])))
                chunk[at] = np.nan
    listener(Noted(f"{n_out} readings of the times in {path} are missing"))


def _by_series(
    codes: NDArray[np.integer], names: list[str], bad: Mapping[str, _Times]
) -> Iterator[tuple[Integers, _Times]]:
    """Give the rows of each series that has bad times of its own, and all rows for those of all."""
    if _ALL in bad:
        yield np.arange(len(codes)), bad[_ALL]
    numbers = [number for number, name in enumerate(names) if name in bad and name != _ALL]
    if not numbers:
        return
    order = np.argsort(codes, kind="stable")
    first, last = (np.searchsorted(codes[order], numbers, side=s) for s in ("left", "right"))
    for number, begin, end in zip(numbers, first, last, strict=True):
        yield order[begin:end], bad[names[number]]


def _bad_times(path: Path, tz: str | None) -> dict[str, _Times]:
    """Return the bad times of each series that the file names."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line, (name, begin, end) in enumerate(_read(path).itertuples(index=False), 2):
        begin_us, end_us = (_time_us(text, tz, path, line) for text in (begin, end))
        if begin_us >= end_us:
            raise _not_before(begin, end, path, line)
        found[name].append((begin_us, end_us))
    times = {}
    for name, pairs in found.items():
        begin, end = np.array(sorted(pairs), np.int64).T
        times[name] = _Times(begin, np.maximum.accumulate(end))
    return times


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", code="bad-times", location=Location(str(path))
        ) from error
    if not set(_COLUMNS) <= set(table.columns):
        raise DataError(
            f"{path} needs the columns series, from, to, but has {', '.join(table.columns)}",
            code="bad-times",
            location=Location(str(path), line=1),
            hint="leave series empty where a time is bad for all of them",
        )
    return table[list(_COLUMNS)]


def _not_before(begin: str, end: str, path: Path, line: int) -> DataError:
    return DataError(
        f"a bad time from {begin} to {end} ends before it begins"
        if begin != end
        else f"a bad time from {begin} to {end} has no length",
        code="bad-times",
        location=Location(str(path), line),
        hint="the column from is the first bad moment, to the first good one after it",
    )


def _time_us(text: str, tz: str | None, path: Path, line: int) -> int:
    try:
        return parse_time_us(text, tz)
    except UsageError as error:
        raise DataError(
            error.message, code="bad-times", location=Location(str(path), line), hint=error.hint
        ) from error
