"""Times that are known to be bad, such as maintenance: their readings are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rnnforecast.data.panel import Panel
from rnnforecast.data.stamps import parse_time_us
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.events import Listener, Noted, Warned

_COLUMNS = ("series", "from", "to")


def exclude(panel: Panel, path: Path, tz: str | None, listener: Listener) -> Panel:
    """Take the readings of these times for missing, each from one time until before another.

    An empty series means all of them; one that is not there is warned of. Raises `DataError`.
    """
    table = _read(path)
    numbers = {name: i for i, name in enumerate(panel.names)}
    target = panel.target.copy()
    unknown: list[str] = []
    for line, (name, begin, end) in enumerate(table.itertuples(index=False), 2):
        begin_us, end_us = (_time_us(text, tz, path, line) for text in (begin, end))
        if begin_us >= end_us:
            raise _not_before(begin, end, path, line)
        if name and name not in numbers:
            unknown.append(name)
            continue
        chosen = np.array([numbers[name]]) if name else np.arange(panel.n_series)
        rows = [-((panel.start[chosen] - us) // panel.step_us) for us in (begin_us, end_us)]
        first, last = (np.clip(r, 0, panel.lengths[chosen]) for r in rows)
        for series, a, b in zip(chosen, first, last, strict=True):
            target[panel.offsets[series] + a : panel.offsets[series] + b] = np.nan
    n_out = int(np.isnan(target).sum() - np.isnan(panel.target).sum())
    listener(Noted(f"{n_out} readings of the times in {path} are missing"))
    if unknown:
        listener(Warned.naming("unknown-series", f"in {path}, but not in the readings", unknown))
    return replace(panel, target=target)


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
