"""Each row to its place on the grid: the step it falls on, and which reading counts there.

Between `rows`, which knows files, and `panel`. It takes regular times as given: `timegrid` has
moved them onto the grid.
"""

from __future__ import annotations

import numpy as np

from rnnforecast.data.alongside import place_covariates
from rnnforecast.data.counters import differences
from rnnforecast.data.covariates import Covariates
from rnnforecast.data.panel import Floats, Panel, offsets_of
from rnnforecast.data.repeats import ONCE, count_repeats, parts_of, reject_conflicts
from rnnforecast.data.rows import Rows
from rnnforecast.data.scattering import Grid, find_places, spot, write
from rnnforecast.data.schema import Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.reading import Source


def place_rows(
    rows: Rows, grid: Grid, source: Source, schema: Schema, config: DataConfig, listener: Listener
) -> Panel:
    """Scatter the rows onto the grid, one target at a time; its chunks go as it is done.

    Of several readings on one step, `--agg` or `--on-duplicate` say which counts; where neither
    does, readings that differ raise `DataError`, and so do values that stand beside them.
    """
    parts = parts_of(rows, find_places(rows, grid), grid, source, config, listener)
    places, how = parts[0].places, parts[0].how
    n_grid, n_targets = int(grid.lengths.sum()), len(rows.values)
    covariates = place_covariates(rows, parts, grid, source, schema, config, listener)
    spots = [spot(place) for place in places] if how == ONCE else []
    target = np.empty(n_grid * n_targets, np.float32)  # memory is taken as chunks give theirs up
    for i, name in enumerate(schema.targets):
        chunks, rows.values[i] = parts[0].of(rows.values[i]), []
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
            reject_conflicts(into, parts[0], chunks, grid, source, schema, name)
        if is_counter:
            own[:] = differences(
                into.astype(np.float64, copy=False), grid.offsets[:-1], name, listener
            )
    for part in parts:
        if part.how == "error":
            n_repeats = count_repeats(part.places, n_grid)
            what = f"{n_repeats} rows repeat a time stamp with the same {part.what} and count once"
            listener(Warned("repeated-row", what, n_repeats))
    return _panel_of(target, rows, grid, covariates)


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
