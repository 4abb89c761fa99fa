"""Each row to its place on the grid: the step it falls on, and which reading counts there.

Between `rows`, which knows files, and `panel`. It takes regular times as given: `timegrid` has
moved them onto the grid.
"""

from __future__ import annotations

import numpy as np

from rnnforecast.data.counters import differences
from rnnforecast.data.covariates import Covariates, covariates_of
from rnnforecast.data.features import once_a_series
from rnnforecast.data.panel import Floats, Integers, Panel, offsets_of
from rnnforecast.data.repeats import ONCE, count_repeats, reject_conflicts, rule_for_repeats
from rnnforecast.data.rows import Rows
from rnnforecast.data.scattering import Grid, find_places, spot, write
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.reading import Source


def place_rows(
    rows: Rows, grid: Grid, source: Source, schema: Schema, config: DataConfig, listener: Listener
) -> Panel:
    """Scatter the rows onto the grid, one target at a time; its chunks go as it is done.

    Of several readings on one step, `--agg` or `--on-duplicate` say which counts; where neither
    does, readings that differ raise `DataError`.
    """
    places = find_places(rows, grid)
    n_grid, n_targets = int(grid.lengths.sum()), len(rows.values)
    how = rule_for_repeats(places, grid, config, listener)
    covariates = _place_covariates(rows, places, grid, schema, config)
    spots = [spot(place) for place in places] if how == ONCE else []
    target = np.empty(n_grid * n_targets, np.float32)  # memory is taken as chunks give theirs up
    for i, name in enumerate(schema.targets):
        chunks, rows.values[i] = rows.values[i], []
        own = target[i * n_grid : (i + 1) * n_grid]
        is_counter = name in config.counter  # counts need more digits than their differences
        into = np.empty(n_grid, np.float64) if is_counter else own
        into.fill(np.nan)
        if how == ONCE:
            for at, chunk in zip(spots, chunks, strict=True):
                into[at] = chunk
        else:
            base = np.repeat(rows.base[i], grid.lengths) if rows.base[i].any() else None
            write(into, places, chunks, "last" if is_counter and config.agg else how, base)
        if how == "error":
            reject_conflicts(into, places, chunks, grid, source, schema, name)
        if is_counter:
            own[:] = differences(
                into.astype(np.float64, copy=False), grid.offsets[:-1], name, listener
            )
    if how == "error":
        n_repeats = count_repeats(places, n_grid)
        what = f"{n_repeats} rows repeat a time stamp with the same readings and count once"
        listener(Warned("repeated-row", what, n_repeats))
    return _panel_of(target, rows, grid, covariates)


def _rule_beside(covariate: Covariate, config: DataConfig) -> str:
    """Say how values of a covariate within one step become one; sums of them would mean nothing."""
    if covariate.is_text or config.agg is None:
        return "last"
    return "mean" if config.agg == "sum" else config.agg


def _panel_of(target: Floats, rows: Rows, grid: Grid, covariates: Covariates | None) -> Panel:
    n_targets = len(rows.values)
    return Panel(
        target=target,
        offsets=offsets_of(np.tile(grid.lengths, n_targets)),
        start=np.tile(grid.start, n_targets),
        names=tuple(rows.names),
        step_us=grid.step_us,
        base=np.concatenate(rows.base),
        first_us=int(grid.start.min()),
        covariates=covariates,
    )


def _place_covariates(
    rows: Rows, places: list[Integers], grid: Grid, schema: Schema, config: DataConfig
) -> Covariates | None:
    """Scatter what stands beside the readings onto the grid; None if nothing does.

    Each column is one feature; of texts it holds the numbers, until `features` tells them apart.
    """
    if not schema.covariates:
        return None
    columns: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    for covariate in schema.covariates:
        chunks = rows.covariates.pop(covariate.name)
        placed = np.full(int(grid.lengths.sum()), np.nan, np.float32)
        write(placed, places, chunks, _rule_beside(covariate, config))
        if covariate.role == "static":
            placed = once_a_series(covariate, placed, grid.offsets, rows.names)
        columns[covariate.role].append(placed)
    names = {role: tuple(c.name for c in schema.covariates if c.role == role) for role in columns}
    return covariates_of(columns, names, grid.offsets, len(rows.values))
