"""Newer readings for a model that is trained: read as its own were, and held against them.

Apart from `timegrid`, which reads any table: here there is a schema to match, and what the network
has learnt from says which series are new, gone, stale or on another scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config import DataConfig
from rnnforecast.data.forecast import Past, past_of
from rnnforecast.data.panel import Doubles, Floats
from rnnforecast.data.placing import trim
from rnnforecast.data.reading import open_source
from rnnforecast.data.schema import Schema, check_zone, match_schema
from rnnforecast.data.stamps import parse_time_us
from rnnforecast.data.timegrid import check_step, read_panel
from rnnforecast.events import Listener, Warned

_FAR = 5.0
"""Scales from the level of the training readings to the median of a look-back that is strange."""
_LISTED = 5


@dataclass(frozen=True)
class Known:
    """What a network knows of the series that it has learnt from, `(series,)` each."""

    names: tuple[str, ...]
    base: Doubles
    center: Floats
    """Level of the training readings, less the base; NaN where there was none."""
    scale: Floats


def read_past(
    data: object,
    *,
    schema: Schema,
    options: DataConfig,
    as_of: str | None,
    known: Known,
    listener: Listener,
) -> tuple[Past, Schema]:
    """Read new readings up to the as-of time, one origin a series, at the end of each.

    Raises `DataError` for readings that do not match the schema: a column, the step, the zone.
    """
    source = open_source(data, options)
    found = match_schema(source, schema, options)
    base = dict(zip(known.names, known.base.tolist(), strict=True))
    panel, found = read_panel(source, found, options, listener, known_base=base)
    check_step(panel, schema)
    check_zone(found, schema)
    if as_of is not None:
        seen = panel.rows_before(parse_time_us(as_of, found.tz) + 1)
        panel = trim(panel.before(seen), is_wide=found.series is None)
    return past_of(panel), found


def warn_of_strangers(
    past: Past, known: Known, listener: Listener, *, lookback: int, horizon: int
) -> None:
    """Say which series are gone, new, stale, or far from what the network has learnt from."""
    place = {name: at for at, name in enumerate(known.names)}
    entry = np.array([place.get(name, -1) for name in past.names], np.int64)
    there = set(past.names)
    newest = past.cutoff_time.max(initial=0)
    is_stale = newest - past.cutoff_time > horizon * past.step_us
    kinds: dict[str, tuple[str, list[str]]] = {
        "vanished-series": (
            "not in these readings",
            [name for name in known.names if name not in there],
        ),
        "new-series": (
            "not in the training readings, forecast by the shape of their look-back alone",
            _chosen(past.names, entry < 0),
        ),
        "stale-series": (
            "ends so long before the newest reading that its forecast lies in the past",
            _chosen(past.names, is_stale),
        ),
        "other-scale": (
            "readings far outside of what the network has learnt from",
            _chosen(past.names, _is_far(past, known, entry, lookback)),
        ),
    }
    for code, (what, names) in kinds.items():
        if names:
            shown = ", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED)
            listener(Warned(code, f"{what}: {shown}", len(names)))


def _is_far(past: Past, known: Known, entry: NDArray[np.int64], lookback: int) -> NDArray[np.bool_]:
    """`(series,)`: whether the middle of a look-back lies many scales off the known level."""
    far = np.zeros(len(entry), np.bool_)
    rows = np.flatnonzero((entry >= 0) & (past.share_seen(lookback) > 0))
    if len(rows):
        middle = np.nanmedian(past.subset(rows).history(lookback), axis=1)
        at = entry[rows]
        far[rows] = np.abs(middle - known.center[at]) > _FAR * known.scale[at]
    return far


def _chosen(names: tuple[str, ...], chosen: NDArray[np.bool_]) -> list[str]:
    return [names[i] for i in np.flatnonzero(chosen)]
