"""New readings for a trained model: names, step, scale, drift and age are checked against it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, pick
from rnnforecast.data.future import _SHOWN, with_future
from rnnforecast.data.grid import check_step, read_panel
from rnnforecast.data.panel import Panel
from rnnforecast.data.scaling import SPIKE_RUN, TIMES
from rnnforecast.data.schema import Schema, canonical, check_zone, match_schema
from rnnforecast.data.timestamps import format_stamp, parse_time_us
from rnnforecast.data.windows import Past, past_of
from rnnforecast.errors import DataError, NotEnoughDataError, QualityGateError
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.source import Source, join_time, open_source, rename
from rnnforecast.units import parse_duration_us, shorten_duration

_FAR = 3.0
"""Scales from the level of the training readings to a median that may be strange."""
STALE = "stale"
"""The code of the error, and of the warning."""


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


def newest_readings(past: Past) -> Integers:
    """`(origin,)`: time of the newest reading of each, in microseconds; -1 where there is none."""
    newest = np.full(past.n_origins, -1, np.int64)
    open_ones, n = np.arange(past.n_origins), 1
    while len(open_ones):
        part = past.subset(open_ones)
        seen = np.isfinite(part.history(n))
        behind = np.argmax(seen[:, ::-1], axis=1)
        found = seen.any(1)
        newest[open_ones[found]] = (part.cutoff_time - behind * past.step_us)[found]
        open_ones = open_ones[~found & (part.cutoff > n)]
        n *= 8
    return newest


def newest_of(past: Past) -> int:
    """Return the time of the newest reading of all, in microseconds; -1 where there is none."""
    return int(newest_readings(past).max(initial=-1))


def check_fresh(past: Past, tz: str | None, config: PredictConfig, listener: Listener) -> int:
    """Return the age of the newest reading, and judge it: see `check_age`."""
    return check_age(newest_of(past), tz, config, listener)


def check_age(newest: int, tz: str | None, config: PredictConfig, listener: Listener) -> int:
    """Return the age of the newest reading in microseconds, 0 where it is ahead of the clock.

    Warns where it is over `warn_age`; raises `NotEnoughDataError` with the code `stale` where it is
    over `max_age`. Stamps without a zone are on this machine's clock.
    """
    now = _now_us(tz) if config.as_of is None else parse_time_us(config.as_of, tz)
    age = max(0, now - newest)
    what = f"the newest reading, {format_stamp(newest, tz)}, is {shorten_duration(age)} old"
    if config.max_age is not None and age > parse_duration_us(config.max_age):
        raise NotEnoughDataError(
            f"{what}, more than --max-age {config.max_age}",
            code=STALE,
            hint="see why no newer readings come; nothing was published, what was there stays",
        )
    if config.warn_age is not None and age > parse_duration_us(config.warn_age):
        listener(Warned(STALE, f"{what}, more than --warn-age {config.warn_age}"))
    return age


def epoch_s(time_us: int, tz: str | None) -> float:
    """Return a reading's time in seconds since 1970, in UTC, as other programs count them."""
    if tz is not None:
        return time_us / 1e6
    return (datetime(1970, 1, 1) + timedelta(microseconds=time_us)).astimezone().timestamp()


def _now_us(tz: str | None) -> int:
    """Return the clock's time as the readings count theirs: in UTC, or on this machine's wall."""
    now_us = time.time_ns() // 1000
    if tz is not None:
        return now_us
    offset = datetime.fromtimestamp(now_us / 1e6).astimezone().utcoffset()
    return now_us + (0 if offset is None else int(offset.total_seconds()) * 1_000_000)


def check_known_ahead(
    past: Past, horizon: int, tz: str | None, *, needed: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """`(origin,)`: which origins lack a value, over the horizon, of what must be known ahead.

    `needed` are the origins that the network is to forecast, by default all. One of them that ended
    before the others is to be left out, or left to a fallback. Raises `DataError`, with the stamps,
    where one that did not lacks a value.
    """
    if needed is None:
        needed = np.ones(past.n_origins, np.bool_)
    features = past.features(1, horizon)
    if not past.n_features[0] or features is None or not needed.any():
        return np.zeros(past.n_origins, np.bool_)
    unknown = np.isnan(features.known[:, :, 1:])  # (origin, feature, lead)
    lacks: NDArray[np.bool_] = unknown.any((1, 2)) & needed
    is_newest = past.cutoff_time == past.cutoff_time[needed].max()
    open_origins = np.flatnonzero(lacks & is_newest)
    if len(open_origins):
        raise _not_known(past, unknown[open_origins[0]], open_origins, tz)
    return lacks


def _not_known(
    past: Past, unknown: NDArray[np.bool_], origins: Integers, tz: str | None
) -> DataError:
    """Name the first of these origins, and what is unknown there, `(feature, lead)`."""
    origin, horizon = origins[0], unknown.shape[1]
    feature = int(np.argmax(unknown.any(1)))
    leads = np.flatnonzero(unknown[feature]) + 1
    column = past.known_names[feature].partition("=")[0]
    times = past.cutoff_time[origin] + leads * past.step_us
    shown = ", ".join(format_stamp(int(time), tz) for time in times[:_SHOWN])
    more = f", ... ({len(times)} of {horizon})" if len(times) > _SHOWN else ""
    others = f"; {len(origins) - 1} more series lack values, too" if len(origins) > 1 else ""
    return DataError(
        f"{column!r} is not known for {past.names[past.series[origin]]!r} at {shown}{more}{others}",
        code="missing-future",
        hint="add rows with these stamps below the last reading, without readings, or pass them in "
        "a second file with  --future FILE",
    )
