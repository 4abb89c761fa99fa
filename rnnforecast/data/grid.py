"""`read_panel`: rows become series on one grid; step, jitter, gaps, trimming."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Integers, offsets_of, pick, stretches
from rnnforecast.data.cleaning import clean_rows, warn_of_oddities, without_stuck
from rnnforecast.data.features import settle_covariates, with_calendar
from rnnforecast.data.panel import Covariates, Panel, Shared, Track
from rnnforecast.data.quality import missing_of
from rnnforecast.data.resample import Grid, place_rows
from rnnforecast.data.rows import Rows, base_of_column, judge_future, read_rows, rows_until
from rnnforecast.data.schema import Schema
from rnnforecast.errors import DataError, Location, NotEnoughDataError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.parallel import ALONE, Ranks, all_say, joined
from rnnforecast.sources.files import in_threads
from rnnforecast.sources.source import Source
from rnnforecast.units import format_duration, parse_duration_us

_SPARSE = 20
_RESET_STEPS, _RESETS = 10, 0.01
"""A jump back by more steps, and an hour, is a clock that was reset, unless many rows have one."""
_HOUR_US = 3_600_000_000
LearnsUntil = Callable[[Panel, str | None], int]
"""Says of a panel, and the zone of its stamps, which moment ends what is learnt from."""
_SORTED_SERIES = 32
"""Where rows are not in the order of time, so many series are sorted to find the step."""
_MOST_STEPS = 1 << 21
"""Of more different steps than these, the first ones tell enough."""
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
_Number = TypeVar("_Number", bound=np.generic)


def read_panel(
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    known_base: Mapping[str, float] = MappingProxyType({}),
    as_of: str | None = None,
    learns_until: LearnsUntil | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Panel, Schema]:
    """Read a source onto a regular grid; return it with the schema, step and zone filled in.

    A missing reading is NaN, and so is every step without a row. `known_base` is what a model
    subtracts from the series that it knows; readings later than `as_of` are not used; which texts
    are told apart rests on the rows before what `learns_until` says of a panel. Of `ranks` each
    reads a source of its own, and the panel is that of all. Raises `DataError` for stamps that
    cannot be read, are irregular, or repeat with different readings, and for readings that are not
    finite.
    """
    check_alike(schema, ranks)
    rows, tz = read_rows(source, schema, config, listener, known_base=known_base)
    if as_of is not None:
        rows, source = rows_until(rows, source, as_of, schema, tz)
    clean_rows(rows, schema, config, listener, tz=tz)
    schema = _on_base(rows, schema)
    panel = _to_grid(rows, source, schema, config, listener, is_aware=tz is not None, ranks=ranks)
    panel = without_stuck(panel, config, listener)
    panel = trim_and_warn(panel, schema, listener)
    own = drop_empty(panel, schema, config, source, listener, ranks)
    panel = share(own, ranks)
    until_us = learns_until(panel, tz) if learns_until and schema.covariates else None
    panel, schema = settle_covariates(
        panel, schema, rows.texts, config, listener, until_us=until_us
    )
    panel = with_calendar(panel, config, schema.tz or tz)
    _note_gaps(own, config, listener, tz, ranks)
    if schema.step_us is None and own.n_series:  # those of a model were looked at in training
        warn_of_oddities(own, listener, tz=tz)
    targets = schema.targets if schema.series else panel.names
    schema = replace(schema, step_us=panel.step_us, tz=tz, targets=targets)
    check_alike(schema, ranks)
    return panel, schema


def _to_grid(
    rows: Rows,
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    is_aware: bool,
    ranks: Ranks,
) -> Panel:
    """Find the step, and put each row on its grid."""
    order = find_order(rows)
    step_us = _find_step(steps_of_all(order.steps, ranks), rows, schema, config)
    if not config.allow_future:
        judge_future(rows, step_us, source, schema, listener, is_aware=is_aware)
    _note_jumps_back(order, rows, step_us, listener)
    order = align(rows, order, step_us, source, schema, config, listener)
    grid = _grid_of(rows, order, step_us, source, schema)
    return place_rows(rows, grid, source, schema, config, listener)


def _on_base(rows: Rows, schema: Schema) -> Schema:
    """Subtract from large covariates what a model does, or else their first level, in place."""
    covariates = []
    for covariate in schema.covariates:
        chunks, base = rows.covariates[covariate.name], covariate.base
        if schema.step_us is None:
            base = base_of_column(rows.times, chunks)
        if base:
            chunks = [chunk - base for chunk in chunks]
        rows.covariates[covariate.name] = [c.astype(np.float32, copy=False) for c in chunks]
        covariates.append(replace(covariate, base=base))
    return replace(schema, covariates=tuple(covariates))


def check_step(panel: Panel, schema: Schema) -> None:
    """Raise `DataError` unless the readings come at the step that the model was trained on."""
    if schema.step_us is not None and panel.step_us != schema.step_us:
        expected, found = format_duration(schema.step_us), format_duration(panel.step_us)
        is_finer = schema.step_us % panel.step_us == 0
        raise DataError(
            f"the model expects a reading every {expected}, but these come every {found}",
            code="other-step",
            hint=f"to bring them to its step, add  --freq {expected.replace(' ', '')} --agg mean"
            if is_finer
            else "pass readings of the model's step, or train again on these",
        )


def _note_jumps_back(order: Order, rows: Rows, step_us: int, listener: Listener) -> None:
    """Warn where the time of a series goes back by many steps: parts moved, or a clock reset."""
    n_rows = rows.n_rows
    far = order.back[order.back > max(_RESET_STEPS * step_us, _HOUR_US)]
    if rows.n_planned and len(far) <= rows.n_series:
        return  # a plan begins before the readings end
    if 0 < len(far) <= _RESETS * n_rows:
        most = format_duration(int(far.max()))
        message = f"the time goes back {len(far)} times, by {most} at most: the rows are sorted"
        listener(Warned("time-goes-back", message, len(far)))


def _find_step(steps: Steps, rows: Rows, schema: Schema, config: DataConfig) -> int:
    """Return the step: what the user said, or the commonest one found.

    One reading has none; then it is the one that the model was trained on.
    """
    if config.freq:
        return parse_duration_us(config.freq)
    if not steps.total and schema.step_us is not None:
        return schema.step_us
    if not steps.total:
        n_rows = rows.n_rows
        what = "1 row of readings is" if n_rows == 1 else f"{n_rows} rows without a second time are"
        raise NotEnoughDataError(
            f"{what} not enough: training needs at least lookback + horizon of them",
            code="too-short",
            hint="pass more readings",
        )
    step, count = steps.commonest
    near = steps.median
    if count < 0.5 * steps.total and steps.count_near(near, JITTER) > 0.5 * steps.total:
        return _round_step(near)
    return step


def _round_step(step: float) -> int:
    """Round a jittering step to the coarsest unit that changes it by less than one percent."""
    for unit in (3_600_000_000, 60_000_000, 1_000_000, 100_000, 1_000):
        rounded = round(step / unit) * unit
        if rounded and abs(rounded - step) < 0.01 * step:
            return int(rounded)
    return round(step)


def _grid_of(rows: Rows, order: Order, step_us: int, source: Source, schema: Schema) -> Grid:
    lengths = (order.end - order.start) // step_us + 1
    n_rows, n_grid = rows.n_rows, int(lengths.sum())
    if n_grid > max(_SPARSE * n_rows, 10_000):
        raise _sparse(rows, step_us, n_grid, source, schema)
    return Grid(order.start, lengths, step_us)


def _sparse(rows: Rows, step_us: int, n_grid: int, source: Source, schema: Schema) -> DataError:
    """Name the row whose stamp lies furthest from the middle of all."""
    times = np.concatenate(rows.times)
    far = int(np.argmax(np.abs(times - np.median(times))))
    return DataError(
        f"{len(times)} rows spread over {n_grid} steps of {format_duration(step_us)}; "
        "this stamp lies furthest from the others",
        code="sparse",
        location=source.location(far, schema.time),
        hint="correct or remove it if it is wrong; if readings are that rare, say a longer step, "
        "such as  --freq 1d --agg mean",
    )


def _note_gaps(
    panel: Panel, config: DataConfig, listener: Listener, tz: str | None, ranks: Ranks
) -> None:
    """Say how much is missing; warn of series with a gap that is longer than the user accepts."""
    n_nan = int(np.count_nonzero(np.isnan(panel.target)))
    nothing = np.zeros((2, panel.n_series), np.int64)
    missing, longest = missing_of(panel, tz) if n_nan else nothing
    counts = np.array([n_nan, missing.sum(), len(panel.target)], np.int64)
    n_nan, n_missing, n_rows = ranks.total(counts).tolist()
    most = max(all_say(ranks, int(longest.max(initial=0))))
    if n_nan and not n_missing:
        listener(Noted("nothing is missing but the hour that clocks skip in spring"))
    if not n_missing:
        return
    what = f"{n_missing} of {n_rows} readings are missing, the longest gap is "
    listener(Noted(what + format_duration(most * panel.step_us)))
    limit = config.max_gap_steps(panel.step_us)
    if limit is not None and longest.max(initial=0) > limit:
        names = pick(panel.names, np.flatnonzero(longest > limit))
        listener(Warned.naming("long-gap", f"a gap longer than --max-gap {config.max_gap}", names))


@dataclass(frozen=True)
class Steps:
    """Times that pass from a row to the next of its series, in microseconds: which, how often."""

    lengths: Integers
    """`(any,)`, increasing and above 0."""
    counts: Integers

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    @property
    def median(self) -> float:
        """The one in the middle; NaN where there is none."""
        places = (self.total - 1) // 2, self.total // 2
        if not self.total:
            return float("nan")
        found = self.lengths[np.searchsorted(np.cumsum(self.counts), places, side="right")]
        return float(found.mean())

    @property
    def commonest(self) -> tuple[int, int]:
        """The one that occurs most often, and how often."""
        place = int(np.argmax(self.counts))
        return int(self.lengths[place]), int(self.counts[place])

    def count_near(self, step_us: float, share: float) -> int:
        """Return how many differ from a step by at most this share of it."""
        return int(self.counts[np.abs(self.lengths - step_us) <= share * step_us].sum())


@dataclass(frozen=True)
class Order:
    """What is to be known of the times of all rows, in microseconds."""

    start: Integers
    """`(series,)`: the earliest."""
    end: Integers
    """`(series,)`: the latest."""
    steps: Steps
    back: Integers
    """`(any,)`: how far the time goes back from a row to the next of its series, above 0."""
    is_whole: bool
    """Whether `steps` holds all of them."""

    def is_multiple_of(self, step_us: int) -> bool:
        """Tell whether all times lie on the grid of their series' first one."""
        parts = (self.steps.lengths, self.back)
        return self.is_whole and not any((part % step_us).any() for part in parts)


class _Chunk(NamedTuple):
    """Some rows; groups are stretches of one series, sorted so that each has only one."""

    series: NDArray[np.integer]
    first: Integers
    """`(group,)`: the time of the first row in the file."""
    last: Integers
    low: Integers
    high: Integers
    steps: Steps
    back: Integers


def find_order(rows: Rows) -> Order:
    """Look at the times of all rows, one after the other for each series."""
    n_series = rows.n_series
    start = np.full(n_series, np.iinfo(np.int64).max)
    end = np.full(n_series, np.iinfo(np.int64).min)
    last, is_known = np.zeros(n_series, np.int64), np.zeros(n_series, np.bool_)
    steps: list[Steps] = []
    back: list[Integers] = []
    pairs = zip(rows.times, rows.codes, strict=True)
    for chunk in in_threads(lambda pair: _look_at(*pair, n_series), pairs):
        own = chunk.series
        between = (chunk.first - last[own])[is_known[own]]
        back += [chunk.back, -between[between < 0]]
        steps += [chunk.steps, _counted(between[between > 0])]
        start[own], end[own] = np.minimum(start[own], chunk.low), np.maximum(end[own], chunk.high)
        last[own], is_known[own] = chunk.last, True
        if len(steps) > 100:
            steps = [merged_steps(steps)]
    merged = merged_steps(steps)
    is_whole = len(merged.lengths) < _MOST_STEPS
    backwards = np.concatenate([np.zeros(0, np.int64), *back])
    if len(backwards):
        merged, is_whole = _sorted_steps(rows), False
    return Order(start, end, merged, backwards, is_whole)


def _look_at(times: Integers, codes: NDArray[np.integer], n_series: int) -> _Chunk:
    """Find the steps within one chunk."""
    begins = _begins(codes)
    if len(begins) > 1 and not _are_unique(codes[begins], n_series):
        order = np.argsort(codes, kind="stable")  # the rows of each series stay in their order
        times, codes = times[order], codes[order]
        begins = _begins(codes)
    passed = np.diff(times)
    passed[begins[1:] - 1] = 0  # from one series to another
    low, high = int(passed.min(initial=0)), int(passed.max(initial=0))
    ends = np.append(begins[1:], len(times)) - 1
    first, last = times[begins], times[ends]
    if low < 0:
        lows, highs = np.minimum.reduceat(times, begins), np.maximum.reduceat(times, begins)
        back = -passed[passed < 0]
    else:
        lows, highs, back = first, last, np.zeros(0, np.int64)
    n_highest = int(np.count_nonzero(passed == high)) if high > 0 else 0
    if low == 0 and n_highest == np.count_nonzero(passed):
        one = slice(0, 1 if n_highest else 0)
        steps = Steps(np.array([high])[one], np.array([n_highest])[one])
    else:
        steps = _counted(passed[passed > 0])
    return _Chunk(codes[begins], first, last, lows, highs, steps, back)


def _begins(codes: NDArray[np.integer]) -> Integers:
    """Return where the rows of a series begin after those of another, or of none."""
    return np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)


def _are_unique(codes: NDArray[np.integer], n_series: int) -> bool:
    return len(codes) <= n_series and len(np.unique(codes)) == len(codes)


def _counted(lengths: Integers) -> Steps:
    return Steps(*np.unique(lengths, return_counts=True))


def merged_steps(parts: list[Steps]) -> Steps:
    """Count the steps of several parts together."""
    if len(parts) == 1 or not parts:
        return parts[0] if parts else _counted(np.zeros(0, np.int64))
    lengths, place = np.unique(np.concatenate([p.lengths for p in parts]), return_inverse=True)
    counts = np.zeros(len(lengths), np.int64)
    np.add.at(counts, place, np.concatenate([p.counts for p in parts]))
    return Steps(lengths[:_MOST_STEPS], counts[:_MOST_STEPS])


def _sorted_steps(rows: Rows) -> Steps:
    """Return the steps of some series, sorted by time."""
    if rows.n_series == 1:
        return _between(np.concatenate(rows.times))
    chosen = np.unique(np.linspace(0, rows.n_series - 1, _SORTED_SERIES).astype(np.int64))
    is_chosen = np.zeros(rows.n_series, np.bool_)
    is_chosen[chosen] = True
    which = [is_chosen[codes] for codes in rows.codes]
    times = np.concatenate([t[w] for t, w in zip(rows.times, which, strict=True)])
    codes = np.concatenate([c[w] for c, w in zip(rows.codes, which, strict=True)])
    return merged_steps([_between(times[codes == code]) for code in chosen])


def _between(times: Integers) -> Steps:
    times = np.sort(times)
    passed = times[1:] - times[:-1]
    return _counted(passed[passed > 0])


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


def share(panel: Panel, ranks: Ranks) -> Panel:
    """Return the panel of all ranks: first the series of the first one, then of the others.

    Raises `DataError` where there is no series at all.
    """
    if ranks is ALONE:
        return panel
    said = all_say(ranks, {"names": panel.names, "first_us": panel.first_us})
    names = tuple(name for one in said for name in one["names"])
    first = sum(len(one["names"]) for one in said[: ranks.rank])
    here = np.zeros(len(names), np.bool_)
    own = slice(first, first + panel.n_series)
    here[own] = True
    stored = np.zeros(len(names), np.int64)
    stored[own] = panel.lengths
    return replace(
        panel,
        offsets=offsets_of(stored),
        start=joined(ranks, panel.start),
        names=names,
        base=joined(ranks, panel.base),
        first_us=min(one["first_us"] for one in said if one["names"]),
        covariates=panel.covariates and _among(panel.covariates, own, len(names)),
        shared=Shared(ranks, here, joined(ranks, panel.lengths)),
    )


def steps_of_all(steps: Steps, ranks: Ranks) -> Steps:
    """Return the steps between the rows of all ranks."""
    if ranks.n == 1:
        return steps
    parts = ranks.gather(np.stack([steps.lengths, steps.counts]).tobytes())
    return merged_steps([Steps(*np.frombuffer(part, np.int64).reshape(2, -1)) for part in parts])


def check_alike(schema: Schema, ranks: Ranks) -> None:
    """Raise `DataError` where ranks have found other columns, or another zone, than each other."""
    said = all_say(ranks, repr(schema))
    if any(one != said[0] for one in said):
        raise DataError(
            f"the buckets differ in their columns or zones: rank {ranks.rank} found {schema}",
            code="buckets-differ",
            hint="make the folder again from one table, with  rnnforecast shard",
        )


def _among(own: Covariates, place: slice, n_series: int) -> Covariates:
    """Return covariates of these series among all; of the others nothing is known here."""

    def wide(values: NDArray[_Number], empty: Any = 0) -> NDArray[_Number]:
        found = np.full((n_series, *values.shape[1:]), empty, values.dtype)
        found[place] = values
        return found

    def track(one: Track) -> Track:
        return replace(one, begin=wide(one.begin), low=wide(one.low), high=wide(one.high))

    return replace(
        own,
        known=tuple(track(one) for one in own.known),
        past=track(own.past),
        static=wide(own.static, np.nan),
    )
