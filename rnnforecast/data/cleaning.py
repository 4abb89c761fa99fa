"""What the user does not believe of the readings becomes missing; what is strange is said.

Between `placing`, which makes a panel, and `quality`, which finds what is strange in it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rnnforecast.data.badtimes import exclude
from rnnforecast.data.dialect import quote
from rnnforecast.data.panel import Floats, Panel
from rnnforecast.data.quality import Runs, find_runs, find_sentinels, find_stuck
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
    target = _within_ranges(panel, schema, config, listener)
    if target is not panel.target:
        panel = replace(panel, target=target)
    if config.exclude is not None:
        panel = exclude(panel, Path(config.exclude), tz, listener)
    if config.stuck_as_na is not None:
        panel = _without_stuck(panel, parse_duration_us(config.stuck_as_na), listener)
    return panel


def warn_of_oddities(panel: Panel, listener: Listener, *, tz: str | None) -> None:
    """Say which sensors stand still or never change, and which values seem to mean missing ones."""
    _warn_of_constant(panel, listener)
    _warn_of_stuck(panel, listener, tz)
    _warn_of_sentinels(panel, listener)


def _without_stuck(panel: Panel, least_us: int, listener: Listener) -> Panel:
    runs = find_runs(panel)
    least = max(-(-least_us // panel.step_us), 2)
    stuck = runs.chosen(~runs.is_missing & (runs.length >= least))
    target = panel.target.copy()
    target[_rows(stuck)] = np.nan
    n_rows = int(stuck.length.sum())
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


def _warn_of_constant(panel: Panel, listener: Listener) -> None:
    lows, highs = (fn.reduceat(panel.target, panel.offsets[:-1]) for fn in (np.fmin, np.fmax))
    constant = [panel.names[i] for i in np.flatnonzero(lows == highs)]
    if constant:
        listener(Warned.naming("constant-series", "always the same reading", constant))


def _warn_of_stuck(panel: Panel, listener: Listener, tz: str | None) -> None:
    stuck = find_stuck(find_runs(panel), panel.n_series)
    if not len(stuck.begin):
        return
    longest = np.argsort(-stuck.length, kind="stable")[:_LISTED]
    listed = "; ".join(_stretch(panel, stuck, int(i), tz) for i in longest)
    shortest = format_duration(int(stuck.length.min()) * panel.step_us).replace(" ", "")
    more = f" and {len(stuck.begin) - _LISTED} more" * (len(stuck.begin) > _LISTED)
    message = f"sensors stand still: {listed}{more}; if they hang, add  --stuck-as-na {shortest}"
    listener(Warned("stuck-sensor", message, len(stuck.begin)))


def _stretch(panel: Panel, runs: Runs, number: int, tz: str | None) -> str:
    series = int(runs.series[number])
    row = int(runs.begin[number] - panel.offsets[series])
    first = int(panel.start[series]) + row * panel.step_us
    last = first + int(runs.length[number] - 1) * panel.step_us
    return f"{panel.names[series]} from {format_stamp(first, tz)} to {format_stamp(last, tz)}"


def _warn_of_sentinels(panel: Panel, listener: Listener) -> None:
    found = find_sentinels(panel)
    for value in np.unique(found.value):
        own = found.value == value
        names = [panel.names[i] for i in found.series[own]]
        count = int(found.count[own].sum())
        shown = ", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED)
        listener(
            Warned(
                "sentinel",
                f"{value:g} occurs {count} times, far from all other readings, in {shown}: if it "
                f"means a missing one, add  --na-values {quote(f'{value:g}')}",
                count,
            )
        )
