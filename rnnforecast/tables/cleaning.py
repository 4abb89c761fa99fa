"""Readings that do not count: outside a valid range, of a stuck sensor, in excluded times."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.arrays import Integers, take_names, wrap_angles
from rnnforecast.data.axis import Flags, parse_time_us
from rnnforecast.data.panel import Panel
from rnnforecast.errors import DataError, Location, Proposal, UsageError, option_for_each
from rnnforecast.events import Listener, Notice, WarningEvent, warn_of_names
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.sniff import shell_quote
from rnnforecast.storage.remote import local_path
from rnnforecast.tables.quality import (
    BLOCK_ROWS,
    Segments,
    SeriesStats,
    find_quality_issues,
    n_equal,
    run_lengths,
    texts_of_sentinel,
)
from rnnforecast.tables.rows import Codes, ReadContext, Rows
from rnnforecast.tables.spikes import find_lost_points, find_sums, find_wrapped
from rnnforecast.tables.steps import abbreviate
from rnnforecast.units import abbreviate_duration, parse_duration_us

_MAX_LISTED = 5
_COLUMNS = ("series", "from", "to")
_ALL_SERIES = ""
"""An empty series name in the file of excluded times."""
_MAX_EXCLUDED_CHARACTERS = 1 << 22
"""Longest list of excluded times: some 80,000 rows. It is saved in a version's manifest."""


def load_excluded_times(config: DataConfig) -> DataConfig:
    """Return the options with the rows of `exclude`, so that its file need not be there later.

    Raises `DataError` for a file that cannot be read, lacks a column, or is too long.
    """
    if config.exclude is None or config.excluded_times is not None:
        return config
    path = str(local_path(config.exclude, "--exclude"))
    try:
        with InputFile.of(Path(path)).open() as stream:
            table = pd.read_csv(stream, dtype=str, keep_default_na=False)
    except (DataError, OSError, ValueError) as error:
        message = str(error) if isinstance(error, DataError) else f"cannot read {path}: {error}"
        hint = "--exclude needs a CSV file with the columns series, from, to"
        raise _bad_times(message, Location(path), hint) from error
    if not set(_COLUMNS) <= set(table.columns):
        message = f"{path} needs the columns series, from, to, but has {', '.join(table.columns)}"
        hint = "leave series empty for periods that apply to all series"
        raise _bad_times(message, Location(path, line=1), hint)

    text = table[list(_COLUMNS)].to_csv(index=False)
    if len(text) > _MAX_EXCLUDED_CHARACTERS:
        message = f"{path} lists {len(table)} periods, more than a version can store"
        raise _bad_times(message, Location(path), "merge adjacent periods")
    return replace(config, excluded_times=text)


def _bad_times(message: str, location: Location, hint: str | None) -> DataError:
    return DataError(message, code="bad-times", location=location, hint=hint)


def clean_rows(rows: Rows, context: ReadContext) -> None:
    """Set readings to NaN that lie outside valid ranges or in excluded times."""
    if context.config.valid_range:
        _mask_outside_ranges(rows, context)
    config = load_excluded_times(context.config)
    if config.excluded_times is not None:
        name = config.exclude or "the excluded periods of the model"
        intervals = parse_excluded_times(config.excluded_times, name, context.tz)
        _mask_excluded(rows, intervals, name, context)


def _mask_outside_ranges(rows: Rows, context: ReadContext) -> None:
    """Set readings outside the ranges of `--valid-range` to NaN.

    A range holds for the target of that name, all series of it, or for the series of a long table.
    """
    schema = context.schema
    n_masked = 0
    for name, (low, high) in context.config.valid_ranges.items():
        is_meant = {
            target: np.array([name in (target, n) for n in schema.series_names(rows.names, target)])
            for target in schema.targets
        }
        if not any(in_range.any() for in_range in is_meant.values()):
            if schema.step_us is not None:  # a series of the model may be gone
                continue
            first = schema.series_names(rows.names, schema.targets[0])[0]
            raise UsageError(
                f"--valid-range: no series or target is named {name!r}",
                hint=f"use e.g.  --valid-range {shell_quote(first)}={low:g}:{high:g}",
            )

        for target, in_range in is_meant.items():
            if not in_range.any():
                continue
            offsets = rows.value_offsets[target]
            is_angle = context.config.agg_by_column.get(target) == ANGLE
            for i, (codes, chunk) in enumerate(zip(rows.codes, rows.readings(target), strict=True)):
                values = chunk + offsets[codes]
                if is_angle:
                    values = wrap_angles(values, low if np.isfinite(low) else 0.0)
                with np.errstate(invalid="ignore"):
                    is_outside = ((values < low) | (values > high)) & in_range[codes]
                n_masked += rows.mask(target, i, is_outside)
    if n_masked:
        context.listener(
            Notice(f"{n_masked} readings outside --valid-range are treated as missing")
        )


class Intervals(NamedTuple):
    """Half-open intervals of time in microseconds, sorted by their beginnings."""

    begin: Integers
    end: Integers
    """The latest end of all intervals up to this one."""

    def contain(self, times: Integers) -> Flags:
        """Tell which times lie in one of the intervals."""
        last = np.searchsorted(self.begin, times, side="right") - 1
        return (last >= 0) & (times < self.end[np.maximum(last, 0)])


def _mask_excluded(
    rows: Rows, intervals: Mapping[str, Intervals], file: str, context: ReadContext
) -> None:
    """Set the readings of the times in a file to NaN, each from one time until before another.

    An empty series means all of them, and a key all that it has; one without readings is warned
    of.
    """
    schema = context.schema
    names_of = {target: schema.series_names(rows.names, target) for target in rows.value_offsets}
    existing = {_ALL_SERIES, *rows.names}.union(*names_of.values())
    unknown = sorted(intervals.keys() - existing)
    warn_of_names("unknown-series", f"in {file}, but not in the data", unknown, context.listener)

    n_masked = 0
    for target, names in names_of.items():
        for i, (times, codes) in enumerate(zip(rows.times, rows.codes, strict=True)):
            is_excluded = np.zeros(len(times), np.bool_)
            for known in (names, rows.names) if schema.series else (names,):
                for indices, excluded in _rows_with_intervals(codes, known, intervals):
                    is_excluded[indices] |= excluded.contain(times[indices])
            n_masked += rows.mask(target, i, is_excluded)
    context.listener(Notice(f"{n_masked} readings in the periods of {file} are treated as missing"))


def _rows_with_intervals(
    codes: Codes, names: Sequence[str], intervals: Mapping[str, Intervals]
) -> Iterator[tuple[Integers, Intervals]]:
    """Yield all rows with the intervals of all series, and those of each series with its own."""
    if _ALL_SERIES in intervals:
        yield np.arange(len(codes)), intervals[_ALL_SERIES]
    numbers = [i for i, name in enumerate(names) if name in intervals and name != _ALL_SERIES]
    if not numbers:
        return
    order = np.argsort(codes, kind="stable")
    first, last = (np.searchsorted(codes[order], numbers, side=s) for s in ("left", "right"))
    for number, begin, end in zip(numbers, first, last, strict=True):
        yield order[begin:end], intervals[names[number]]


def parse_excluded_times(text: str, file: str, tz: str | None) -> dict[str, Intervals]:
    """Parse the rows of `--exclude`; return the intervals by the names of series.

    Raises `DataError` for a row without a time or a length.
    """
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        rows = table[list(_COLUMNS)].itertuples(index=False)
    except (KeyError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}", code="bad-times") from error

    pairs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line, (name, begin, end) in enumerate(rows, 2):
        try:
            begin_us, end_us = parse_time_us(begin, tz), parse_time_us(end, tz)
        except UsageError as error:
            raise _bad_times(error.message, Location(file, line), error.hint) from error
        if begin_us >= end_us:
            problem = "is empty" if begin == end else "ends before it starts"
            message = f"a period from {begin} to {end} {problem}"
            hint = "from is the first bad time, to is the first good time after it"
            raise _bad_times(message, Location(file, line), hint)
        pairs[name].append((begin_us, end_us))

    intervals = {}
    for name, series_pairs in pairs.items():
        begins, ends = np.array(sorted(series_pairs), np.int64).T
        intervals[name] = Intervals(begins, np.maximum.accumulate(ends))
    return intervals


def mask_stuck(panel: Panel, config: DataConfig, listener: Listener) -> Panel:
    """Set readings to NaN that stay the same for as long as `--stuck-as-na` says, all of a run.

    A backtest from an origin within such a run misses its readings a little too early.
    """
    if config.stuck_as_na is None:
        return panel
    min_length = max(-(-parse_duration_us(config.stuck_as_na) // panel.step_us), 2)
    target, n_masked = panel.target.copy(), 0
    for first_series, part in panel.blocks(BLOCK_ROWS):
        runs = run_lengths(part)
        is_stuck = np.repeat(~runs.is_missing & (runs.length >= min_length), runs.length)
        target[panel.offsets[first_series] :][: len(is_stuck)][is_stuck] = np.nan
        n_masked += int(np.count_nonzero(is_stuck))

    if n_masked:
        listener(Notice(f"{n_masked} readings of stuck sensors are treated as missing"))
    return replace(panel, target=target)


def warn_of_suspect_readings(panel: Panel, listener: Listener) -> None:
    """Warn of sensors that stand still or never change, and of values that may mean missing."""
    issues = find_quality_issues(panel)
    warn_of_names("constant-series", "never changes", issues.constant, listener)

    stuck = issues.stuck
    if len(stuck):
        longest = stuck.chosen(np.argsort(-stuck.n_rows, kind="stable")[:_MAX_LISTED])
        format_time = panel.axis.format
        listed = "; ".join(
            f"{run.series} from {format_time(run.start_us)} to {format_time(run.end_us)}"
            for run in longest
        )
        listed += f" and {len(stuck) - _MAX_LISTED} more" * (len(stuck) > _MAX_LISTED)
        message = f"sensors stuck at one value: {listed}; {_share(int(stuck.n_rows.sum()), panel)}"
        proposals = _propose_stuck_as_na(panel, stuck)
        listener(WarningEvent("stuck-sensor", message, len(stuck), proposals))
    _warn_of_sentinels(panel, issues.sentinels, listener)
    _warn_of_misread(panel, issues.stats, listener)


def _warn_of_misread(panel: Panel, stats: SeriesStats, listener: Listener) -> None:
    """Warn of series whose numbers lost their sign or decimal point, and of sums at their ends."""
    problem = "signed numbers were read as unsigned"
    for i, modulus in list(find_wrapped(panel, stats))[:_MAX_LISTED]:
        middle = (float(stats.min[i]) + float(stats.max[i])) / 2 + float(panel.base[i])
        message = f"{problem}, in {panel.names[i]}: readings jump by {modulus:.12g} and back"
        hint = f"subtract {modulus:.12g} from those above {middle:.5g}"
        if stats.min[i] + panel.base[i] < -modulus / 4:
            message = message.replace(problem, "large numbers were read as signed")
            hint = f"add {modulus:.12g} to those below {middle:.5g}"
        listener(WarningEvent("lost-sign", message, 1, hint=hint))

    for i, n_digits, count, reach in list(find_lost_points(panel, stats))[:_MAX_LISTED]:
        name = panel.names[i]
        low = f"{-2 * reach:.2g}" if stats.min[i] + panel.base[i] < 0 else ""
        message = (
            f"{count} readings of {name} have no decimal point: they are {10**n_digits:,} times "
            "as large as those around them, and have no decimals"
        )
        effect = f"drops {count} of {stats.n_observed[i]} readings"
        option = ("--valid-range", f"{name}={low}:{2 * reach:.2g}")
        proposals = (Proposal(option, "to leave them out", effect),)
        listener(WarningEvent("lost-point", message, count, proposals, hint="or correct them"))

    sums = take_names(panel.names, find_sums(panel, stats))
    problem = "the first or last reading is the sum of all others"
    warn_of_names("sum", problem, sums, listener, hint="remove the row of sums")


def _share(n_rows: int, panel: Panel) -> str:
    return f"{n_rows} of {panel.n_readings} readings"


def _propose_stuck_as_na(panel: Panel, stuck: Segments) -> tuple[Proposal, ...]:
    """Propose the shortest time that leaves out no run but those of stuck sensors, if there is one.

    The option holds for all series: what rests longer, such as a valve, must not be left out.
    """
    first_rows = (stuck.start_us - panel.start[stuck.series]) // panel.step_us
    first_rows += panel.offsets[stuck.series]
    longest_other = 1
    for first, part in panel.blocks(BLOCK_ROWS):
        runs = run_lengths(part)
        is_stuck = np.isin(runs.begin + panel.offsets[first], first_rows)
        lengths = runs.length[~runs.is_missing & ~is_stuck]
        longest_other = max(longest_other, int(lengths.max(initial=1)))

    longer = stuck.n_rows[stuck.n_rows > longest_other]
    if not len(longer):
        return ()
    shortest = int(longer.min())
    text = abbreviate_duration(shortest * panel.step_us)
    if -(-parse_duration_us(text) // panel.step_us) <= longest_other:  # it was rounded down
        text = abbreviate(shortest * panel.step_us)
    n_rows = int(longer[longer >= shortest].sum())
    effect = f"drops {_share(n_rows, panel)}"
    return (Proposal(("--stuck-as-na", text), "if that is a fault", effect),)


def _warn_of_sentinels(panel: Panel, sentinels: Segments, listener: Listener) -> None:
    """Warn of each value that may mean missing, the commonest few in their order, then the rest."""
    values, counts, value_index = sentinels.by_value()
    commonest = np.argsort(-counts, kind="stable")

    for i in np.sort(commonest[:_MAX_LISTED]).tolist():
        texts, count = texts_of_sentinel(float(values[i])), int(counts[i])
        occurrences = np.flatnonzero(value_index == i)
        names = ", ".join(s.series for s in sentinels.chosen(occurrences[:_MAX_LISTED]))
        names += ", ..." * (len(occurrences) > _MAX_LISTED)
        message = f"the value {texts[0]} occurs {count} times and is far from the rest, in {names}"
        proposals: tuple[Proposal, ...] = ()
        if n_equal(panel, float(values[i])) == count:  # in other series it may be a reading
            effect = f"drops {_share(count, panel)}"
            condition = "if it means missing"
            proposals = (Proposal(option_for_each("--na-values", texts), condition, effect),)
        listener(WarningEvent("sentinel", message, count, proposals))

    if len(values) > _MAX_LISTED:
        count = int(counts[commonest[_MAX_LISTED:]].sum())
        n_more = len(values) - _MAX_LISTED
        message = f"{n_more} more values occur {count} times and are far from the rest"
        listener(WarningEvent("more-sentinels", message, count))
