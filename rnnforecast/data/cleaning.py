"""Readings that are left out: outside a valid range, of a stuck sensor, in excluded times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.data.panel import Panel
from rnnforecast.data.quality import BLOCK_ROWS, Runs, Stretches, find_oddities, find_runs
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.data.timestamps import format_stamp, parse_time_us
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.sources.sniff import quote
from rnnforecast.units import parse_duration_us, shorten_duration

_LISTED = 5
_COLUMNS = ("series", "from", "to")
_ALL = ""
"""What stands for every series in the file."""


def clean_rows(
    rows: Rows, schema: Schema, config: DataConfig, listener: Listener, *, tz: str | None
) -> None:
    """Take for missing what lies outside of ranges or in bad times, before readings are joined."""
    if config.valid_range:
        _reject_outside(rows, schema, config, listener)
    if config.exclude is not None:
        exclude(rows, Path(config.exclude), tz, listener, is_wide=schema.series is None)


def warn_of_oddities(panel: Panel, listener: Listener, *, tz: str | None) -> None:
    """Say which sensors stand still or never change, and which values seem to mean missing ones."""
    found = find_oddities(panel)
    if found.constant:
        listener(Warned.naming("constant-series", "always the same reading", found.constant))
    _warn_of_stuck(found.stuck, listener, step_us=panel.step_us, tz=tz)
    _warn_of_sentinels(found.sentinels, listener)


def without_stuck(panel: Panel, config: DataConfig, listener: Listener) -> Panel:
    """Take readings for missing that stay the same for as long as the user says, all of a stretch.

    A backtest from an origin within such a stretch misses its readings a little too early.
    """
    if config.stuck_as_na is None:
        return panel
    least = max(-(-parse_duration_us(config.stuck_as_na) // panel.step_us), 2)
    target, n_rows = panel.target.copy(), 0
    for first, part in panel.blocks(BLOCK_ROWS):
        runs = find_runs(part)
        stuck = runs.chosen(~runs.is_missing & (runs.length >= least))
        target[panel.offsets[first] + _rows(stuck)] = np.nan
        n_rows += int(stuck.length.sum())
    if n_rows:
        listener(Noted(f"{n_rows} readings of sensors that stood still are missing"))
    return replace(panel, target=target)


def _reject_outside(rows: Rows, schema: Schema, config: DataConfig, listener: Listener) -> None:
    """Take readings outside of the user's ranges for missing, in place."""
    n_out = 0
    for name, (low, high) in config.valid_ranges.items():
        places = _places_of(name, rows, schema)
        if not places and schema.step_us is None:
            raise UsageError(
                f"--valid-range names {name!r}, but there is no such series or target",
                hint=f"such as  --valid-range {quote(rows.names[0])}={low:g}:{high:g}",
            )
        for target, chosen in places:
            base = rows.base[target]
            for codes, chunk in zip(rows.codes, rows.values[target], strict=True):
                own = chunk + base[codes]
                with np.errstate(invalid="ignore"):
                    outside = ((own < low) | (own > high)) & chosen[codes]
                chunk[outside] = np.nan
                n_out += int(np.count_nonzero(outside))
    if n_out:
        listener(Noted(f"{n_out} readings outside of their range are missing"))


def _places_of(name: str, rows: Rows, schema: Schema) -> list[tuple[int, NDArray[np.bool_]]]:
    """Return the targets with this name, and which of their series, `(series,)`, are meant.

    All of a long table are, whose target has the name, or else the one that has it.
    """
    if schema.series is None or name in schema.targets:
        return [
            (i, np.ones(len(rows.base[i]), np.bool_))
            for i, target in enumerate(schema.targets)
            if target == name
        ]
    chosen = np.array([own == name for own in rows.names], np.bool_)
    return [(0, chosen)] if chosen.any() else []


def _rows(runs: Runs) -> Integers:
    """Return all rows of the runs."""
    first = np.cumsum(runs.length) - runs.length
    within = np.arange(int(runs.length.sum())) - np.repeat(first, runs.length)
    rows: Integers = np.repeat(runs.begin, runs.length) + within
    return rows


def _warn_of_stuck(stuck: Stretches, listener: Listener, *, step_us: int, tz: str | None) -> None:
    if not len(stuck):
        return
    longest = stuck.chosen(np.argsort(-stuck.n_rows, kind="stable")[:_LISTED])
    listed = "; ".join(
        f"{one.series} from {format_stamp(one.start_us, tz)} to {format_stamp(one.end_us, tz)}"
        for one in longest
    )
    shortest = shorten_duration(int(stuck.n_rows.min()) * step_us)
    more = f" and {len(stuck) - _LISTED} more" * (len(stuck) > _LISTED)
    message = f"sensors stand still: {listed}{more}; if they hang, add  --stuck-as-na {shortest}"
    listener(Warned("stuck-sensor", message, len(stuck)))


def _warn_of_sentinels(sentinels: Stretches, listener: Listener) -> None:
    """Name the values that occur most often, in their order; of more of them, how many."""
    values, which = np.unique(sentinels.value, return_inverse=True)
    counts = np.bincount(which, weights=sentinels.n_rows, minlength=len(values)).astype(np.int64)
    commonest = np.argsort(-counts, kind="stable")
    for at in np.sort(commonest[:_LISTED]).tolist():
        value, count = f"{values[at]:g}", int(counts[at])
        own = np.flatnonzero(which == at)
        shown = ", ".join(one.series for one in sentinels.chosen(own[:_LISTED]))
        shown += ", ..." * (len(own) > _LISTED)
        message = f"{value} occurs {count} times, far from all other readings, in {shown}: if it "
        message += f"means a missing one, add  --na-values {quote(value)}"
        listener(Warned("sentinel", message, count))
    if len(values) > _LISTED:
        count = int(counts[commonest[_LISTED:]].sum())
        n_more = len(values) - _LISTED
        message = f"{n_more} more values occur {count} times, far from all other readings"
        listener(
            Warned("more-sentinels", f"{message}: look at them with  rnnforecast check", count)
        )


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
