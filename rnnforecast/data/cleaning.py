"""What the user does not believe of the readings becomes missing; what is strange is said.

Beside `placing`, which makes a panel of rows, and over `quality`, which looks for what is strange.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.badtimes import exclude
from rnnforecast.data.oddities import Stretches, find_oddities
from rnnforecast.data.panel import Integers, Panel
from rnnforecast.data.quality import BLOCK_ROWS, Runs, find_runs
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import format_stamp
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import parse_duration_us, shorten_duration
from rnnforecast.errors import UsageError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.sources.dialect import quote

_LISTED = 5


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
