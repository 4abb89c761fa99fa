"""Readings that are wrong: spikes, lost signs and decimal points, sums, bad ones.

Spikes are single readings, or two, that leave and return far beyond the series' own jumps.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import Flags
from rnnforecast.data.panel import Panel
from rnnforecast.errors import Proposal
from rnnforecast.events import WarningEvent
from rnnforecast.tables.evidence import (
    JUMP,
    MANY_READINGS,
    Changes,
    ColumnEvidence,
    Evidence,
    changes_of,
    median_step,
)
from rnnforecast.tables.quality import RunLengths, SeriesStats

_MIN_ROWS = 24
"""A shorter series does not show what its usual jumps are."""
_MOST, _ONE_IN = 20, 500
"""No more readings than these can be spikes: twenty, and two plus one in five hundred readings."""
_SAMPLE = 20_000
"""Jumps of a long series that give a first bound of the sizes of spikes, at least."""
_MIN_MOVING = 0.2
"""Share of the jumps that are not 0. A series that rests more, such as rain, demand for a spare
part or a contact, has no usual jumps: each event is an outlier of its rest."""
_MIN_RATIO = 2.0
"""Least ratio of a spike to the largest remaining jump."""
_MIN_EVIDENCE = 25.0
"""How far the gap between spikes and other jumps exceeds those between the largest of these.

Gaps between logarithms, times ranks, over their mean, are standard exponential in a power law's
tail. A heavy tail, whose mean is less certain, needs more evidence. The value was chosen by spikes
planted into made-up sensors of thirty kinds, and by false alarms there.
"""
_MIN_TAIL = 0.1
"""Least mean gap between the logarithms of the largest jumps: that of normal noise. A coarse
thermometer, whose largest jumps are all the same, would have 0."""
_MAX_TAIL = 0.5
"""Where it is larger, jumps differ by factors, as a household's power does, and none is a spike.
Their variance would be infinite."""
_TAIL = (10, 50)
"""The largest values that tell how heavy a tail is: a twentieth of all, within these limits."""
_NEIGHBOURS = 3
"""Readings on either side that say what a reading returns to."""
_KIND, _ALIKE = 5, 0.25
"""Five spikes whose levels differ by at most this share of their size are no spikes, but a kind of
reading, such as a kettle's."""
_QUALITY_NAMES = frozenset({"quality", "qc", "q", "flag", "valid", "validity", "err", "error"})
_BAD = re.compile("(?i).*(bad|invalid|fault|fail|err|missing|suspect|reject|not.?ok|no.?data).*")
_MIN_BAD, _MOST_BAD, _MAX_BAD_RUN, _FAR = 5, 0.35, 3.0, 0.9
"""Rows of a bad quality, their largest share, how many follow each other on average (more are a
state, such as an outage), and the share of them that no usual reading of their series equals, or
comes near to."""
_MIN_SIGNS, _NEARLY_ALL, _LOW, _STRAIGHTER = 20, 0.8, 0.5, 0.75
"""Changes that tell a sign; share of them between readings above 0; the quantile of the readings
below which nearly all of these are; how far they are from a straight line with the sign, in
comparison with without."""
_RARELY = 0.01
"""Largest share of rows that are exceptions."""

_MODULI = tuple(2.0**n_bits / 10**n for n_bits in (8, 12, 16, 24, 32) for n in range(4))
"""What is added to negative numbers that are read as unsigned ones, with up to three decimals."""
_MIN_CROSSINGS, _MIN_LEVELS = 4, 3
"""Jumps between both bands of such numbers, and different readings in each band."""
_MAX_PLACES = 15
"""Digits behind a decimal point that may have been lost."""
_MIN_LOST, _MAX_LOST = 5, 0.5
"""Readings without their decimal point, and the largest share of them."""
_MIN_DECIMALS = 0.7
"""The share of a series' readings, at least, that have decimals where their points are told."""
_ALIGNED = 0.5
"""Where readings fit their neighbours, they are closer to these than this share of what they are
to those of other readings."""
_FEWEST_SUMMED, _SUM_ERROR = 20, 1e-4
"""Readings of which another one is the sum, and how exactly."""


def find_wrapped(panel: Panel, stats: SeriesStats) -> Iterator[tuple[int, float]]:
    """Yield the series of signed numbers that are read as unsigned: their number and the modulus.

    They lie in two bands at both ends of its range, and go from one end to the other as they go on
    elsewhere. A machine that is on or off goes from anywhere in one band to anywhere in the other.
    """
    spread = stats.max.astype(np.float64) - stats.min
    for modulus in _MODULI:
        is_full = (spread > 0.9 * modulus) & (spread < (1 + 1e-6) * modulus)  # float32 rounds
        for i in np.flatnonzero(is_full).tolist():
            readings = panel.of(i)
            values = readings[np.isfinite(readings)].astype(np.float64)
            if _wraps(values - values.min(), modulus):
                yield i, modulus


def _wraps(values: Doubles, modulus: float) -> bool:
    """Tell whether numbers from 0 to below a modulus, `(reading,)`, are those less it, in part."""
    is_high = values > modulus / 2
    if ((values > modulus / 4) & (values < 3 * modulus / 4)).any():
        return False
    low, high = values[~is_high], values[is_high]
    moves = np.abs(np.diff(np.where(is_high, values - modulus, values)))
    is_crossing = np.diff(is_high)
    if (
        np.count_nonzero(is_crossing) < _MIN_CROSSINGS
        or min(len(np.unique(low)), len(np.unique(high))) < _MIN_LEVELS
    ):
        return False
    crossing = float(np.median(moves[is_crossing]))
    is_usual = crossing <= np.quantile(moves[~is_crossing], 0.95)
    apart = float(np.median(low) + modulus - np.median(high))
    return bool(is_usual and crossing <= _ALIGNED * apart)


def find_lost_points(panel: Panel, stats: SeriesStats) -> Iterator[tuple[int, int, int, float]]:
    """Yield the series some of whose readings have no decimal point: their number and three more.

    These are how many digits stand behind the point, how many readings lack it, and the largest of
    the others. Only series with decimals are searched whose largest readings have none.
    """
    low, high = (np.abs(x.astype(np.float64) + panel.base) for x in (stats.min, stats.max))
    largest = np.fmax(low, high)
    for i in np.flatnonzero((largest >= 10) & (largest == np.rint(largest))).tolist():
        readings = panel.of(i)
        values = readings[:: 1 + len(readings) // 1000].astype(np.float64) + panel.base[i]
        values = values[np.isfinite(values)]
        if np.count_nonzero(values != np.rint(values)) < (1 - _MAX_LOST) * len(values):
            continue
        values = readings[np.isfinite(readings)].astype(np.float64) + panel.base[i]
        reach = float(np.abs(values[values != np.rint(values)]).max(initial=0.0))
        n_digits = _n_digits_lost(values, np.abs(values) > 2 * reach)
        if n_digits:
            yield i, n_digits, int(np.count_nonzero(np.abs(values) > 2 * reach)), reach


def _n_digits_lost(values: Doubles, is_large: Flags) -> int:
    """Return how many digits behind the point make large readings fit to their neighbours, or 0.

    `values` and `is_large` are `(reading,)`. Each fits to its own neighbours, and far better than
    to those of the next large one.
    """
    n_large, others = int(np.count_nonzero(is_large)), values[~is_large]
    has_decimals = others != np.rint(others)
    if (
        not _MIN_LOST <= n_large <= _MAX_LOST * len(values)
        or has_decimals.mean() < _MIN_DECIMALS
        or len(others) < 2 * _MIN_LOST
    ):
        return 0
    rows = np.flatnonzero(is_large)
    nearby = np.interp(rows, np.flatnonzero(~is_large), others)
    level = max(float(np.median(np.abs(nearby))), 1e-9)
    n_digits = round(np.log10(float(np.median(np.abs(values[rows]))) / level))
    if not 1 <= n_digits <= _MAX_PLACES:
        return 0

    scaled = values[rows] / 10.0**n_digits
    usual = 2 * np.quantile(np.abs(np.diff(others)), 0.9)
    distance = np.abs(scaled - nearby)
    apart = np.median(np.abs(scaled - np.roll(nearby, 1)))
    is_aligned = np.median(distance) <= _ALIGNED * apart
    return n_digits if np.mean(distance <= usual) >= 0.9 and is_aligned else 0


def find_sums(panel: Panel, stats: SeriesStats) -> Integers:
    """Return the series whose first or last reading is the sum of all of their others.

    None of these is negative, and there are twenty at least, so that it is no chance.
    """
    total = (stats.mean + panel.base) * stats.n_observed
    is_long = (stats.n_observed > _FEWEST_SUMMED) & (stats.min + panel.base >= 0)
    is_sum = np.zeros(panel.n_series, np.bool_)
    for rows in (panel.offsets[:-1], panel.offsets[1:] - 1):
        end = panel.target[np.where(is_long, rows, 0)] + panel.base
        is_sum |= (np.abs(total - 2 * end) <= _SUM_ERROR * end) & is_long
    candidates = np.flatnonzero(is_sum)
    n_positive = [np.count_nonzero(panel.of(i) + panel.base[i] > 0) for i in candidates.tolist()]
    return candidates[np.array(n_positive, np.int64) > _FEWEST_SUMMED]


def find_spikes(panel: Panel) -> RunLengths:
    """Return the spikes of all series, as runs of one or two readings.

    A spike leaves and returns by twice the largest of the other jumps of its series, and more where
    jumps differ by factors, as those of wind or of a power draw do. The first and the last reading
    are never spikes, nor is one between two gaps.
    """
    spikes: list[tuple[int, int, int]] = []
    for number in np.flatnonzero(panel.lengths >= _MIN_ROWS).tolist():
        readings = panel.of(number)
        rows = np.flatnonzero(np.isfinite(readings))
        before_gap = np.diff(rows, append=-1) != 1
        for first, length in spikes_of(readings[rows].astype(np.float64), before_gap):
            spikes.append((int(panel.offsets[number] + rows[first]), length, number))

    begins, lengths, series = np.array(spikes, np.int64).reshape(-1, 3).T
    return RunLengths(begins, lengths, series, np.zeros(len(begins), np.bool_))


def spikes_of(values: Doubles, before_gap: Flags) -> list[tuple[int, int]]:
    """Return the first reading and the number of readings of each spike of one series.

    `before_gap`, `(reading,)`, tells whether the row after a reading is missing.
    """
    n = len(values)
    if n < _MIN_ROWS:
        return []
    jumps = np.append(np.diff(values), 0.0)  # from each reading to the next
    sizes = np.where(before_gap, 0.0, np.abs(jumps))

    # With the most spikes taken away, the largest jump that is left is no smaller than this one;
    # nor than the same one of a sample.
    most = min(2 + n // _ONE_IN, _MOST)
    sample = sizes[:: max(1, n // _SAMPLE)]
    smallest = _MIN_RATIO * float(np.partition(sample, -3 * most - 1)[-3 * most - 1])
    chosen = _largest(values, jumps, before_gap, most=most, smallest=smallest)
    if not chosen:
        return []

    n_most = _TAIL[1] + 3 * len(chosen) + 1
    distances = np.abs(values - np.median(values))
    large_jumps, far_values = _order_of_largest(sizes, n_most), _order_of_largest(distances, n_most)
    n_moving = int(np.count_nonzero(sizes))
    spread = float(np.subtract(*np.quantile(values, (0.75, 0.25)))) / 1.349

    # the most of the largest ones that stand out of all jumps that are left
    is_spike, n_spikes = np.zeros(n, np.bool_), 0
    for number, (begin, length, size) in enumerate(chosen, start=1):
        is_spike[begin : begin + length] = True
        touches_spike = is_spike | np.append(is_spike[1:], False)  # the jumps to and from spikes
        jumps_left = sizes[large_jumps[~touches_spike[large_jumps]]]
        n_left = n_moving - int(np.count_nonzero(sizes[touches_spike]))
        if n_left < max(_MIN_MOVING * n, 2 * _TAIL[0]) or size < spread:
            break
        values_left = distances[far_values[~is_spike[far_values]]]
        n_tail = min(max(n_left // 20, _TAIL[0]), _TAIL[1])
        if size >= _MIN_RATIO * jumps_left[0] and (
            _stands_out(size, number, jumps_left[: n_tail + 1])
            or _stands_out(float(distances[is_spike].min()), number, values_left[: n_tail + 1])
        ):
            n_spikes = number
    return sorted((begin, length) for begin, length, _ in _unlike(values, chosen[:n_spikes]))


def _order_of_largest(values: Doubles, n: int) -> Integers:
    """Return where the n largest values stand, the largest first."""
    largest = np.arange(len(values))
    if n < len(values):
        largest = np.argpartition(-values, n)[:n]
    return largest[np.argsort(-values[largest], kind="stable")]


def _largest(
    values: Doubles, jumps: Doubles, before_gap: Flags, *, most: int, smallest: float
) -> list[tuple[int, int, float]]:
    """Return the largest spikes that share no jump, the largest first: row, length and size.

    Those that are not larger than `smallest`, or stand between two gaps, do not count, nor two
    readings around a gap.
    """
    candidates = []
    for before in np.flatnonzero(np.abs(jumps) > smallest).tolist():
        row = before + 1
        for length in (1, 2):
            after = before + length
            if after >= len(values) - 1 or (before_gap[before] and before_gap[after]):
                continue
            if length == 2 and before_gap[row]:
                continue
            inside, neighbours = values[row : after + 1], values[[before, after + 1]]
            size = float(max(inside.min() - neighbours.max(), neighbours.min() - inside.max()))
            # what stands between two spikes stands out of both, but is what others return to
            around = np.r_[
                values[max(row - _NEIGHBOURS, 0) : row], values[after + 1 :][:_NEIGHBOURS]
            ]
            away = float(np.abs(inside - np.median(around)).min())
            if size > smallest and away >= size / 2:
                candidates.append((size, length, row))

    chosen: list[tuple[int, int, float]] = []
    used_jumps: set[int] = set()
    for size, length, row in sorted(candidates, reverse=True):
        own_jumps = set(range(row - 1, row + length))
        if not own_jumps & used_jumps and len(chosen) < most:
            used_jumps |= own_jumps
            chosen.append((row, length, size))
    return chosen


def _stands_out(smallest: float, n: int, other_jumps: Doubles) -> bool:
    """Tell whether the smallest of n values is too far above the largest others, decreasing."""
    tail = max(float(np.log(other_jumps[:-1] / other_jumps[-1]).mean()), _MIN_TAIL)
    evidence = n * np.log(smallest / other_jumps[0]) / tail if smallest > 0 else 0.0
    return bool(evidence >= _MIN_EVIDENCE * tail and tail <= _MAX_TAIL)


def _unlike(values: Doubles, spikes: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Leave out spikes of which there are many of one level, and all that are smaller."""
    smallest = 0.0
    ordered = sorted(spikes, key=lambda spike: values[spike[0]])
    for first, last in zip(ordered, ordered[_KIND - 1 :], strict=False):
        if values[last[0]] - values[first[0]] <= _ALIKE * min(first[2], last[2]):
            smallest = max(smallest, first[2], last[2])
    return [spike for spike in spikes if spike[2] > smallest]


def find_bad_quality(
    evidence: Evidence, key: Sequence[str], targets: Collection[str], *, na_values: Sequence[float]
) -> Iterator[WarningEvent]:
    """Yield warnings of readings that a column marks as bad, and that are far from those beside.

    Those that equal one of `na_values` are missing.
    """
    if not evidence.is_timed:
        return
    codes = evidence.key_codes(key)
    readings = {n: c for n, c in evidence.columns.items() if n in targets and c.numbers is not None}
    words = {token for name in readings for token in _tokens(name)}
    for name, column in evidence.columns.items():
        if name in key or not column.may_be_status:
            continue
        tokens = _tokens(name)
        is_quality = bool(tokens & _QUALITY_NAMES) and tokens <= _QUALITY_NAMES | words
        states = column.codes + 1
        counts = np.bincount(states)
        usual = int(counts.argmax())
        for state in np.flatnonzero((counts >= _MIN_BAD) & (counts <= _MOST_BAD * len(states))):
            text = _text_of(column, int(state) - 1)
            if not (is_quality or (column.texts and _BAD.fullmatch(text))):
                continue
            changes = changes_of(evidence, replace(column, codes=(states == state) * 1), codes)
            n_runs = (len(changes.before) + 1) // 2
            if counts[state] > _MAX_BAD_RUN * n_runs:
                continue
            for reading, cells in readings.items():
                values = np.asarray(cells.numbers)
                is_seen = np.isfinite(values) & ~np.isin(values, na_values)
                is_bad, is_usual = is_seen & (states == state), is_seen & (states == usual)
                is_reading = cells is not column and cells.n_values >= MANY_READINGS
                if is_reading and _is_far(values, codes, is_bad, is_usual, changes):
                    mark = f"where {name!r} is {text!r}"
                    yield _bad_quality(reading, mark, values[is_bad], values[is_usual])


def find_signs(
    evidence: Evidence, key: Sequence[str], targets: Collection[str]
) -> Iterator[WarningEvent]:
    """Yield warnings of readings whose sign another column tells.

    They go down to 0 and up again where it changes, and cross 0 in a straight line with the sign.
    """
    codes = evidence.key_codes(key)
    order = evidence.sort(codes)
    series = codes[order]
    for name, column in evidence.columns.items():
        states = column.codes[order] + 1
        if name in key or not (column.may_be_status and evidence.is_timed):
            continue
        if np.count_nonzero(np.bincount(states)) != 2:
            continue
        # Rows of one series, of which the third has another state than the two before it
        is_change = (states[:-2] == states[1:-1]) & (states[1:-1] != states[2:])
        first = np.flatnonzero(is_change & (series[:-2] == series[2:]))
        for reading in targets if len(first) >= _MIN_SIGNS else ():
            cells = evidence.columns.get(reading)
            if cells is None or cells.numbers is None or cells is column:
                continue
            values = cells.numbers[order]
            if np.fmin.reduce(values) >= 0 and _is_reflected(values, first):
                message = f"the readings of {reading!r} go down to 0 and up again where {name!r} "
                message += "changes: it may tell their sign"
                hint = "write the readings with their sign"
                yield WarningEvent("sign-column", message, len(first), hint=hint)


def _is_reflected(values: Doubles, first: Integers) -> bool:
    """Tell whether readings would cross 0, with another sign, at the third of three rows."""
    before, last, after = (values[first + i] for i in range(3))
    is_seen = np.isfinite(before) & np.isfinite(last) & np.isfinite(after)
    before, last, after = before[is_seen], last[is_seen], after[is_seen]
    is_above = (last > 0) & (after > 0)
    if len(last) < _MIN_SIGNS or is_above.mean() < _NEARLY_ALL:
        return False
    is_low = np.maximum(last, after) <= np.nanquantile(values, _LOW)
    expected = 2 * last - before
    distances = np.median(np.abs(expected + after)), np.median(np.abs(expected - after))
    return bool(is_low.mean() >= _NEARLY_ALL and distances[0] <= _STRAIGHTER * distances[1])


def _bad_quality(reading: str, mark: str, bad: Doubles, usual: Doubles) -> WarningEvent:
    """Return a warning of bad readings, with the options that leave them out."""
    is_same = bool((bad == bad[0]).all())
    extent = f"all {bad[0]:g}" if is_same else f"{bad.min():g} to {bad.max():g}"
    options = [("--na-values", f"{bad[0]:g}")] * is_same
    # A range ends halfway between the usual readings and the bad ones
    low, high = usual.min(), usual.max()
    below, above = bad[bad < low].max(initial=-np.inf), bad[bad > high].min(initial=np.inf)
    ends = ["" if np.isinf(end) else f"{end:g}" for end in ((below + low) / 2, (above + high) / 2)]
    if any(ends):
        options.append(("--valid-range", f"{reading}={ends[0]}:{ends[1]}"))
    message = f"{len(bad)} readings of {reading!r} {mark} are {extent}, far from those beside them"
    proposals = tuple(Proposal(option, "if they are invalid") for option in options)
    return WarningEvent("bad-quality", message, len(bad), proposals)


def _is_far(
    values: Doubles, codes: Integers, is_bad: Flags, is_usual: Flags, changes: Changes
) -> bool:
    """Tell whether bad readings jump, to where hardly any usual one of their series is."""
    jump = median_step(values, changes.before, changes.after)
    step = median_step(values, changes.first, changes.second)
    if np.count_nonzero(is_bad) < _MIN_BAD or not jump > JUMP * step:
        return False
    groups = pd.Series(values[is_usual]).groupby(codes[is_usual])
    low, high = (groups.quantile(q).reindex(codes[is_bad]) for q in (_RARELY, 1 - _RARELY))
    is_outside = (values[is_bad] < low.to_numpy()) | (values[is_bad] > high.to_numpy())
    return bool(is_outside.mean() >= _FAR)


def _text_of(column: ColumnEvidence, code: int) -> str:
    """Return a value of a column as text; an empty one for missing values."""
    if code < 0 or column.texts:
        return column.texts[code] if code >= 0 else ""
    return f"{np.asarray(column.numbers)[column.codes == code][0]:g}"


def _tokens(name: str) -> set[str]:
    """Return the words of a name."""
    return set(re.findall(r"[^\W_]+", name.casefold()))
