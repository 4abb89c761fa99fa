"""What the user does not believe of the readings becomes missing; what is strange is said.

Between `placing`, which makes a panel, and `quality`, which finds what is strange in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rnnforecast.data.badtimes import exclude
from rnnforecast.data.dialect import quote
from rnnforecast.data.oddities import Stretch, find_oddities
from rnnforecast.data.panel import Floats, Panel
from rnnforecast.data.quality import BLOCK_ROWS, Runs, find_runs
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import format_stamp
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import format_duration, parse_duration_us
from rnnforecast.errors import UsageError
from rnnforecast.events import Listener, Noted, Warned

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
        if not len(chosen):
            raise UsageError(
                f"--valid-range names {name!r}, but there is no such series or target",
                hint=f"such as  --valid-range {quote(panel.names[0])}={low:g}:{high:g}",
            )
        for series in chosen:
            rows = slice(*panel.offsets[series : series + 2])
            own = target[rows].astype(np.float64) + panel.base[series]
            with np.errstate(invalid="ignore"):
                outside = (own < low) | (own > high)
            if outside.any():
                target = target.copy() if target is panel.target else target
                target[rows][outside] = np.nan
    n_out = int(np.count_nonzero(np.isnan(target)) - np.count_nonzero(np.isnan(panel.target)))
    if n_out:
        listener(Noted(f"{n_out} readings outside of their range are missing"))
    return target


def _series_called(panel: Panel, schema: Schema, name: str) -> list[int]:
    """Return the series of this name; all of a long table where its target has it."""
    if schema.series is not None and name in schema.targets:
        return list(range(panel.n_series))
    return [i for i, own in enumerate(panel.names) if own == name]


def _rows(runs: Runs) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return all rows of the runs."""
    first = np.cumsum(runs.length) - runs.length
    within = np.arange(int(runs.length.sum())) - np.repeat(first, runs.length)
    rows: np.ndarray[tuple[int], np.dtype[np.int64]] = np.repeat(runs.begin, runs.length) + within
    return rows


def _warn_of_stuck(
    stuck: Sequence[Stretch], listener: Listener, *, step_us: int, tz: str | None
) -> None:
    if not stuck:
        return
    longest = sorted(stuck, key=lambda one: -one.n_rows)[:_LISTED]
    listed = "; ".join(
        f"{one.series} from {format_stamp(one.start_us, tz)} to {format_stamp(one.end_us, tz)}"
        for one in longest
    )
    shortest = format_duration(min(one.n_rows for one in stuck) * step_us).replace(" ", "")
    more = f" and {len(stuck) - _LISTED} more" * (len(stuck) > _LISTED)
    message = f"sensors stand still: {listed}{more}; if they hang, add  --stuck-as-na {shortest}"
    listener(Warned("stuck-sensor", message, len(stuck)))


def _warn_of_sentinels(sentinels: Sequence[Stretch], listener: Listener) -> None:
    for value in sorted({one.value for one in sentinels}):
        own = [one for one in sentinels if one.value == value]
        count = sum(one.n_rows for one in own)
        shown = ", ".join(one.series for one in own[:_LISTED]) + ", ..." * (len(own) > _LISTED)
        message = f"{value:g} occurs {count} times, far from all other readings, in {shown}: if it "
        message += f"means a missing one, add  --na-values {quote(f'{value:g}')}"
        listener(Warned("sentinel", message, count))
