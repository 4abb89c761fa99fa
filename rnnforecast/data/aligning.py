"""Time stamps onto the grid of a step that is known: jitter, and steps that hold several readings.

Between `order`, which says how the stamps follow each other, and `timegrid`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rnnforecast.data.order import Order
from rnnforecast.data.panel import Integers
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import format_duration, parse_duration_us
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.sources.reading import Source

JITTER = 0.1
"""Stamps that lie off the grid by this share of a step are moved onto it."""
_USUAL_STEPS_US = tuple(
    parse_duration_us(f"{count}{unit}")
    for unit, counts in {
        "s": (1, 2, 5, 10, 15, 30),
        "m": (1, 2, 5, 10, 15, 20, 30),
        "h": (1, 2, 3, 4, 6, 12),
        "d": (1, 7),
    }.items()
    for count in counts
)


def align(
    rows: Rows,
    order: Order,
    step_us: int,
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
) -> Order:
    """Move stamps onto the grid: to the beginning of their step where readings are put together."""
    if not config.agg and order.is_multiple_of(step_us):
        return order
    if not config.agg:
        return _snap(rows, order, step_us, source, schema, listener, freq=config.freq)

    _leave_out_begun_steps(rows, order, step_us, listener)

    def floor(times: Integers) -> Integers:
        return times - times % step_us

    rows.times = list(map(floor, rows.times))
    return replace(order, start=floor(order.start), end=floor(order.end))


def _leave_out_begun_steps(rows: Rows, order: Order, step_us: int, listener: Listener) -> None:
    """Take the readings of a series' newest step for missing, in place, until it is over.

    Of a step that has only begun, a sum would be too small, and a mean that of some minutes. It is
    over where no more than half a reading is missing at its end, at the pace of all readings.
    """
    newest = np.full(rows.n_series, np.iinfo(np.int64).min)
    for place, (times, codes) in enumerate(zip(rows.times, rows.codes, strict=True)):
        seen = np.logical_or.reduce([np.isfinite(chunks[place]) for chunks in rows.values])
        np.maximum.at(newest, codes[seen], times[seen])
    begin = newest - newest % step_us
    pace = order.steps.median if order.steps.total else step_us
    has_begun = (newest > 0) & (newest + 1.5 * pace < begin + step_us)
    if not has_begun.any():
        return
    for chunks in rows.values:
        for times, codes, chunk in zip(rows.times, rows.codes, chunks, strict=True):
            chunk[(times >= begin[codes]) & has_begun[codes]] = np.nan
    what = f"the newest step of {int(has_begun.sum())} series is not over, and left out"
    listener(Noted(what))


def _snap(
    rows: Rows,
    order: Order,
    step_us: int,
    source: Source,
    schema: Schema,
    listener: Listener,
    *,
    freq: str | None,
) -> Order:
    """Move stamps that jitter a little onto the grid; raise for those far from it.

    The grid of a series begins at its first stamp; where stamps jitter, it is the one that begins
    in 1970 if all lie near that, so that a first stamp that is late does not move all others.
    """
    first = order.start
    if not any(
        _off(t, first[c], step_us).any() for t, c in zip(rows.times, rows.codes, strict=True)
    ):
        return order
    limit = JITTER * step_us
    near_1970 = all((np.abs(_off(times, 0, step_us)) <= limit).all() for times in rows.times)
    n_moved, n_before = 0, 0
    for i, (times, codes) in enumerate(zip(rows.times, rows.codes, strict=True)):
        off = _off(times, 0 if near_1970 else first[codes], step_us)
        far = np.abs(off) > limit
        if far.any():
            row = n_before + int(np.argmax(far))
            raise _irregular(order, source.location(row, schema.time), freq)
        n_moved += int(np.count_nonzero(off))
        n_before += len(times)
        rows.times[i] = times - off
    listener(Warned("jitter", f"{n_moved} time stamps were moved onto the grid", n_moved))
    base = 0 if near_1970 else first
    start, end = (times - _off(times, base, step_us) for times in (first, order.end))
    return replace(order, start=start, end=end)


def _off(times: Integers, base: Integers | int, step_us: int) -> Integers:
    """How far each time lies from the nearest point of the grid that `base` lies on."""
    off: Integers = (times - base + step_us // 2) % step_us - step_us // 2
    return off


def _irregular(order: Order, location: Location, freq: str | None) -> DataError:
    usual = order.steps.median
    nearest = min(_USUAL_STEPS_US, key=lambda step: abs(math.log(step / usual)))
    grid = freq or format_duration(nearest).replace(" ", "")
    return DataError(
        f"the time stamps are not regular: about {format_duration(round(usual))} lie between them, "
        "and this one does not fit",
        code="irregular",
        location=location,
        hint=f"to put the readings on a grid, add  --freq {grid} --agg mean",
    )
