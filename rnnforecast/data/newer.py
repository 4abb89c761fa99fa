"""Newer readings for a model that is trained: read as its own were, and held against them.

Apart from `timegrid`, which reads any table: here there is a schema to match, and what the network
has learnt from says which series are new, gone, stale or on another scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.future import with_future
from rnnforecast.data.naming import canonical
from rnnforecast.data.panel import Doubles, Floats, Integers, Panel, pick
from rnnforecast.data.past import Past, past_of
from rnnforecast.data.scaling import SPIKE_RUN, TIMES
from rnnforecast.data.schema import Schema, check_zone, match_schema
from rnnforecast.data.timegrid import check_step, read_panel
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, QualityGateError
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.reading import Source, open_source
from rnnforecast.sources.renaming import rename
from rnnforecast.sources.splittime import join_time

_FAR = 3.0
"""Scales from the level of the training readings to a median that may be strange."""


@dataclass(frozen=True)
class Known:
    """What a network knows of the series that it has learnt from, `(series,)` each."""

    names: tuple[str, ...]
    base: Doubles
    center: Floats
    """Level of the training readings, less the base; NaN where there was none."""
    scale: Floats
    reach: Floats
    """In scales: a single reading further off the level is taken for missing."""
    is_expected: Callable[[str], bool] | None = None
    """Which of the series should be among the readings; None: all of them."""

    def gone_from(self, names: Sequence[str]) -> list[str]:
        """Return the series that should be among these, and are not."""
        there = set(names)
        gone = [name for name in self.names if name not in there]
        return gone if self.is_expected is None else list(filter(self.is_expected, gone))


def read_past(
    data: object,
    *,
    schema: Schema,
    options: DataConfig,
    as_of: str | None,
    future: object = None,
    known: Known,
    listener: Listener,
) -> tuple[Past, Schema]:
    """Read new readings up to the as-of time, one origin a series, at the end of each.

    `future` holds what is known ahead, where it does not stand in rows after the last reading.

    Raises `DataError` for readings that do not match the schema: a column, the step, the zone.
    """
    source = _open(data, schema, options, listener)
    if future is not None:
        source = with_future(source, future, schema, options, listener)
    panel, found = read_matching(
        source, schema=schema, options=options, known=known, listener=listener, as_of=as_of
    )
    return past_of(panel), found


def read_newer(
    data: object, *, schema: Schema, options: DataConfig, known: Known, listener: Listener
) -> tuple[Panel, Schema]:
    """Read new readings whole; raises as `read_past` does."""
    source = _open(data, schema, options, listener)
    return read_matching(source, schema=schema, options=options, known=known, listener=listener)


def _open(data: object, schema: Schema, options: DataConfig, listener: Listener) -> Source:
    source = rename(open_source(data, options, listener), options.map)
    return join_time(source, options.time or schema.time)


def read_matching(
    source: Source,
    *,
    schema: Schema,
    options: DataConfig,
    known: Known,
    listener: Listener,
    as_of: str | None = None,
) -> tuple[Panel, Schema]:
    """Read a source that is open as a model's own readings were; raises as `read_past` does."""
    found = match_schema(source, schema, options)
    base = dict(zip(known.names, known.base.tolist(), strict=True))
    panel, found = read_panel(source, found, options, listener, known_base=base, as_of=as_of)
    check_step(panel, schema)
    check_zone(found, schema)
    return _with_known_names(panel, known, listener), found


def _with_known_names(panel: Panel, known: Known, listener: Listener) -> Panel:
    """Call series what the model calls them where only the writing of a number differs.

    So 7, 7.0 and 007 are one sensor. Raises `DataError` where they could be two.
    """
    there = set(panel.names)
    absent = [name for name in known.names if name not in there]
    by_number = {canonical(name): name for name in absent}
    strangers = there - set(known.names)
    renamed = {n: by_number[canonical(n)] for n in strangers if canonical(n) in by_number}
    if not renamed:
        return panel
    new = next(name for name in panel.names if name in renamed)
    if len(by_number) < len(absent) or len(set(renamed.values())) < len(renamed):
        raise DataError(
            f"series {new!r} is not in the model, and could be several of its series",
            code="other-names",
            hint=f"write the names as the model has them, such as {renamed[new]!r}",
        )
    what = f"{new!r} is taken for {renamed[new]!r} of the model, and so on"
    listener(Warned("names-written-otherwise", what, len(renamed)))
    names = tuple(renamed.get(name, name) for name in panel.names)
    return _on_known_base(replace(panel, names=names), known)


def _on_known_base(panel: Panel, known: Known) -> Panel:
    """Subtract from each series what the model subtracts from it, instead of what was found."""
    base = dict(zip(known.names, known.base.tolist(), strict=True))
    wanted = np.array([base.get(n, b) for n, b in zip(panel.names, panel.base, strict=True)])
    shift = np.repeat(panel.base - wanted, panel.lengths)
    return replace(panel, target=(panel.target + shift).astype(np.float32), base=wanted)


def warn_of_strangers(
    past: Past, known: Known, listener: Listener, *, lookback: int, horizon: int
) -> None:
    """Say which series are gone, new, stale, or far from what the network has learnt from."""
    entry = _entries(past, known)
    missing = _n_missing_at_end(past, lookback)
    times = past.cutoff_time  # of a series without readings, only what is known ahead may end there
    newest = times[missing < lookback].max(initial=times.min(initial=0))
    is_stale = np.maximum((newest - times) // past.step_us, 0) + missing > horizon
    is_far = _is_far(past, known, entry, (lookback, min(horizon, lookback)))
    beyond = _beyond(past, known, entry)
    kinds: dict[str, tuple[str, Sequence[str]]] = {
        "vanished-series": ("not in these readings", known.gone_from(past.names)),
        "new-series": (
            "not in the training readings, forecast by the shape of their look-back alone",
            pick(past.names, entry < 0),
        ),
        "stale-series": (
            "no reading for longer than the horizon, so its forecast says little",
            pick(past.names, is_stale),
        ),
        "far-reading": (
            "the newest reading is so far off that it is taken for missing",
            pick(past.names, beyond[:, -1] & ~beyond.all(1)),
        ),
        "other-scale": (
            "newest readings far outside of what was learnt from (is the unit the same?)",
            pick(past.names, is_far | beyond.all(1)),
        ),
    }
    for code, (what, names) in kinds.items():
        if names:
            listener(Warned.naming(code, what, names))


def require_series(past: Past, known: Known) -> None:
    """Raise `DataError` where a series that the network knows is not there."""
    gone = known.gone_from(past.names)
    if gone:
        raise DataError(
            f"{len(gone)} series of the model are not in these readings: {', '.join(gone[:5])}"
            + ", ..." * (len(gone) > 5),
            code="vanished-series",
            hint="pass readings of all of them, or leave out  --require-series",
        )


def check_drift(past: Past, known: Known, *, lookback: int, limit: float) -> None:
    """Raise `QualityGateError` where a series' look-back is further off its trained level.

    The limit is in scales of the training readings; a series that is new has no level.
    """
    drift = np.nan_to_num(_drift(past, known, _entries(past, known), lookback))
    worst = int(np.argmax(drift))
    if drift[worst] > limit:
        n_over = int(np.count_nonzero(drift > limit))
        raise QualityGateError(
            f"{n_over} series are further off the level they were trained on than --max-drift "
            f"{limit:g}: {past.names[worst]} by {drift[worst]:.1f} spreads",
            code="drift",
            hint="check the unit; if the level is right, train again on newer readings",
        )


def _entries(past: Past, known: Known) -> NDArray[np.int64]:
    """`(series,)`: where the network knows each series; -1 where it does not."""
    place = {name: at for at, name in enumerate(known.names)}
    return np.array([place.get(name, -1) for name in past.names], np.int64)


def _drift(past: Past, known: Known, entry: NDArray[np.int64], n: int) -> Doubles:
    """`(series,)`: how far the middle of the last n rows is off the known level, in its scales."""
    drift = np.full(len(entry), np.nan)
    rows = np.flatnonzero((entry >= 0) & (past.share_seen(n) > 0))
    if len(rows):
        at = entry[rows]
        middle = _medians(past.subset(rows).history(n))
        drift[rows] = np.abs(middle - known.center[at]) / known.scale[at]
    return drift


def _medians(values: Floats) -> Floats:
    """Return the median of what is there in each row, `(row,)`; something is there in each.

    `numpy.nanmedian` takes a hundred times as long over many short rows.
    """
    ordered, row = np.sort(values, axis=1), np.arange(len(values))  # missing ones come last
    n = np.isfinite(values).sum(1)
    middle: Floats = (ordered[row, (n - 1) // 2] + ordered[row, n // 2]) / 2
    return middle


def _is_far(
    past: Past, known: Known, entry: NDArray[np.int64], stretches: tuple[int, ...]
) -> NDArray[np.bool_]:
    """`(series,)`: whether the middle of one of the newest stretches is where hardly one was."""
    limit = np.maximum(known.reach[np.maximum(entry, 0)] / TIMES, _FAR)
    far: NDArray[np.bool_] = np.zeros(len(entry), np.bool_)
    for n in stretches:
        far |= np.nan_to_num(_drift(past, known, entry, n)) > limit
    return far


def _beyond(past: Past, known: Known, entry: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`(series, 3)`: which of the three newest readings are beyond the reach of their series."""
    newest = past.history(SPIKE_RUN)
    at = np.maximum(entry, 0)[:, None]
    beyond = np.abs(newest - known.center[at]) > known.reach[at] * known.scale[at]
    found: NDArray[np.bool_] = (entry >= 0)[:, None] & beyond
    return found


def _n_missing_at_end(past: Past, n: int) -> Integers:
    """`(series,)`: how many of the last n rows follow the last reading."""
    seen = np.isfinite(past.history(n))
    behind: Integers = np.where(seen.any(1), np.argmax(seen[:, ::-1], axis=1), n)
    return behind
