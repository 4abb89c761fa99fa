"""What of a panel holds no reading: rows at its ends, and whole series.

After `placing`, which puts rows where they belong: here some are taken away again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rnnforecast.data.panel import Panel, offsets_of, pick, stretches
from rnnforecast.data.ranks import ALONE, Ranks
from rnnforecast.data.schema import Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.reading import Source


def trim_and_warn(panel: Panel, schema: Schema, listener: Listener) -> Panel:
    """Cut off rows without any reading; warn of those at the end.

    Where covariates are known ahead, such rows are there to hold them.
    """
    trimmed = trim(panel, is_wide=schema.series is None)
    n_empty = (panel.end_us - trimmed.end_us) // panel.step_us
    if n_empty and not any(covariate.role == "known" for covariate in schema.covariates):
        message = f"the last {n_empty} rows hold no reading: a forecast begins before their end"
        listener(Warned("empty-tail", message, int(n_empty)))
    return trimmed


def trim(panel: Panel, *, is_wide: bool) -> Panel:
    """Cut rows without any reading off both ends: of a wide table, or of each series.

    The sensors of a wide table share their rows, so a row stays while one sensor has a reading.
    """
    seen = np.isfinite(panel.target)
    if seen.all() or not seen.any():
        return panel
    begin, end = panel.offsets[:-1], panel.offsets[1:]
    if is_wide:
        rows = np.flatnonzero(seen.reshape(panel.n_series, -1).any(0))
        begin, end = begin + rows[0], begin + rows[-1] + 1
    else:
        rows = np.flatnonzero(seen)
        first, last = np.searchsorted(rows, begin), np.searchsorted(rows, end) - 1
        empty = last < first
        begin = np.where(empty, begin, rows[np.minimum(first, len(rows) - 1)])
        end = np.where(empty, end, rows[last] + 1)
    if (begin == panel.offsets[:-1]).all() and (end == panel.offsets[1:]).all():
        return panel
    return replace(
        panel,
        target=stretches(panel.target, begin, end),
        offsets=offsets_of(end - begin),
        start=panel.start + (begin - panel.offsets[:-1]) * panel.step_us,
        covariates=panel.covariates and panel.covariates.moved(begin - panel.offsets[:-1]),
    )


def drop_empty(
    panel: Panel,
    schema: Schema,
    config: DataConfig,
    source: Source,
    listener: Listener,
    ranks: Ranks = ALONE,
) -> Panel:
    """Leave out series without any reading; raise where the user named one, or none is left.

    A stored schema keeps them: that a sensor of the model fell silent is for the forecast to say.
    """
    has_reading = np.logical_or.reduceat(np.isfinite(panel.target), panel.offsets[:-1])
    empty = pick(panel.names, ~has_reading)
    n_left = int(ranks.total(np.array([np.count_nonzero(has_reading)], np.int64))[0])
    if not empty:
        return panel
    named = [name for name in empty if name in config.target]
    if schema.step_us is not None and len(empty) < panel.n_series:
        return panel
    if named or not n_left:
        raise DataError(
            f"column {(named or schema.targets)[0]!r} holds no reading",
            code="no-readings",
            hint=f"choose another target of {source.name}",
        )
    listener(Warned.naming("empty-series", "no readings, left out", empty))
    return panel.select(np.flatnonzero(has_reading))
