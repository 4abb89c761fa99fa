"""What the user does not believe of the readings becomes missing; what is strange is said.

Between `placing`, which makes a panel, and `quality`, which finds what is strange in it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.badtimes import exclude
from rnnforecast.data.oddities import Stretches, find_oddities
from rnnforecast.data.panel import Floats, Integers, Panel
from rnnforecast.data.quality import BLOCK_ROWS, Runs, find_runs
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import format_stamp
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import parse_duration_us, shorten_duration
from rnnforecast.errors import UsageError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.sources.dialect import quote

_LISTED = 5


def clean(
    panel: Panel, schema: Schema, config: DataConfig, listener: Listener, *, tz: str | None
) -> Panel:
    """Take for missing what the user does not believe: ranges, bad times, stuck sensors."""
    if config.valid_range:
        panel = replace(panel, target=_within_ranges(panel, schema, config, listener))
    if config.exclude is not None:
        panel = exclude(panel, Path(config.exclude), tz, listener)
    if config.stuck_as_na is not None:
        panel = _without_stuck(panel, parse_duration_us(config.stuck_as_na), listener)
    return panel


def warn_of_oddities(panel: Panel, listener: Listener, *, tz: str | None) -> None:
    """Say which sensors stand still or never change, and which values seem to mean missing ones."""
    found = find_oddities(panel)
    if found.constant:
        listener(Warned.naming("constant-series", "always the same reading", found.constant))
    _warn_of_stuck(found.stuck, listener, step_us=panel.step_us, tz=tz)
    _warn_of_sentinels(found.sentinels, listener)


def _without_stuck(panel: Panel, least_us: int, listener: Listener) -> Panel:
    least = max(-(-least_us // panel.step_us), 2)
    target, n_rows = panel.target.copy(), 0
    for first, part in panel.blocks(BLOCK_ROWS):
        runs = find_runs(part)
        stuck = runs.chosen(~runs.is_missing & (runs.length >= least))
        target[panel.offsets[first] + _rows(stuck)] = np.nan
        n_rows += int(stuck.length.sum())
    if n_rows:
        listener(Noted(f"{n_rows} readings of sensors that stood still are missing"))
    return replace(panel, target=target)


def _within_ranges(panel: Panel, schema: Schema, config: DataConfig, listener: Listener) -> Floats:
    """Return the readings, those outside of the user's ranges missing."""
    target = panel.target
    for name, (low, high) in config.valid_ranges.items():
        chosen = _series_called(panel, schema, name)
        if not chosen.any():
            raise UsageError(
                f"--valid-range names {name!r}, but there is no such series or target",
                hint=f"such as  --valid-range {quote(panel.names[0])}={low:g}:{high:g}",
            )
        for first, part in panel.blocks(BLOCK_ROWS):
            own = part.target + np.repeat(part.base, part.lengths)
            with np.errstate(invalid="ignore"):
                outside = (own < low) | (own > high)
            outside &= np.repeat(chosen[first : first + part.n_series], part.lengths)
            if outside.any():
                target = target.copy() if target is panel.target else target
                target[panel.offsets[first] + np.flatnonzero(outside)] = np.nan
    n_out = int(np.count_nonzero(np.isnan(target)) - np.count_nonzero(np.isnan(panel.target)))
    if n_out:
        listener(Noted(f"{n_out} readings outside of their range are missing"))
    return target


def _series_called(panel: Panel, schema: Schema, name: str) -> NDArray[np.bool_]:
    """Tell which series, `(series,)`, have this name: all of a long table whose target has it."""
    if schema.series is not None and name in schema.targets:
        return np.ones(panel.n_series, np.bool_)
    return np.array([own == name for own in panel.names], np.bool_)


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
