"""The season, the look-back and the segment, from the autocorrelation of the readings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.training import MAX_LOOKBACK, WindowConfig
from rnnforecast.data.arrays import Doubles, Floats
from rnnforecast.data.windows import Past
from rnnforecast.errors import NotEnoughDataError
from rnnforecast.spec import MemberSpec
from rnnforecast.units import format_duration, parse_steps

_DAY_US = 86_400_000_000
_NATURAL_US = (60_000_000, 3_600_000_000, _DAY_US, 7 * _DAY_US)
_MIN_DIP = 0.1
_NOISE = 4.0
"""Two standard deviations of the dip of white noise, times the root of the number of pairs."""
_LONGER_MUST_GAIN = 0.7
_MAX_SERIES = 32
_MAX_ROWS = 65_536
_SEASONS = 21
"""So many the longest look-back holds; the others hold a third and two thirds of them."""
_SEGMENTS = (24, 48, 96)
_FEWEST_ROWS = 20
"""Fewer say nothing about how wrong a forecast will be."""
LONGEST_SEASON = 720
"""A longer season would not fit into a look-back."""
_NO_SEASON_HORIZON = 24
_LEAST = 0.1
"""Lower peaks are not listed."""
_LEAST_RISE = 0.05
"""How far a peak stands above the lowest correlation before it."""
_PEAK_NOISE = 3.0
"""Standard deviations of the autocorrelation of white noise."""
_FEWEST_PAIRS = 20
_NO_HIGHER = 0.02
"""A peak counts beside a shorter one only where it is higher by so much."""


def resolve_season(config: WindowConfig, past: Past) -> int:
    """Return the season in steps: what the user said, or what the readings before the cutoff say.

    1 stands for none.
    """
    if config.season == "none":
        return 1
    if config.season == "auto":
        return find_season(past)
    season = parse_steps(config.season, step_us=past.step_us, name="season", limit=MAX_LOOKBACK)
    longest = int(past.cutoff.max(initial=0))
    if season >= longest:
        raise NotEnoughDataError(
            f"a season of {season} steps does not fit into {longest} rows to learn from",
            code="too-short",
            hint="pass a shorter --season, or more readings",
        )
    return season


def find_season(past: Past) -> int:
    """Find the period, in steps, after which the readings repeat; 1 where there is none.

    A season has at most 720 steps, or no look-back would hold it. Periods of the calendar (minute,
    hour, day, week) come first; the shortest wins unless a longer one explains much more. Only
    where none shows is any other period looked for.
    """
    chosen = np.unique(np.linspace(0, past.n_origins - 1, _MAX_SERIES).astype(np.int64))
    curves = [_variogram(past.readings(int(i), _MAX_ROWS)) for i in chosen]
    natural = [us // past.step_us for us in _NATURAL_US if us % past.step_us == 0]
    season = 1
    for period in (p for p in natural if 2 <= p <= LONGEST_SEASON):
        dip = _median_dip(curves, period)
        if dip < _MIN_DIP:
            continue
        if season == 1 or _gain(curves, season, period) < _LONGER_MUST_GAIN:
            season = period
    return season if season > 1 else _any_period(curves)


def _variogram(readings: Floats) -> NDArray[np.float64]:
    """D(k) for k in [0, rows / 2), over the pairs of which both readings are there."""
    seen = np.isfinite(readings)
    n = len(readings)
    if seen.sum() < 4:
        return np.full(max(n // 2, 1), np.nan)
    low, high = np.quantile(readings[seen], (0.005, 0.995))  # a spike must not decide
    clipped = np.clip(readings, low, high, dtype=np.float64)
    values = np.where(seen, clipped - clipped[seen].mean(), 0.0)
    size = 1 << int(2 * n - 1).bit_length()
    one = np.fft.rfft(seen.astype(np.float64), size)
    first = np.fft.rfft(values, size)
    second = np.fft.rfft(values**2, size)

    def correlate(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> NDArray[np.float64]:
        return np.fft.irfft(a * np.conj(b), size)[: max(n // 2, 1)]

    pairs = correlate(one, one)
    squares = correlate(second, one) + correlate(one, second) - 2 * correlate(first, first)
    enough = pairs > 0.5
    return np.where(enough, squares / np.where(enough, pairs, 1.0), np.nan)


def _dip(curve: NDArray[np.float64], period: int) -> float:
    """How far D dips at the period: 1 when the pattern repeats exactly, 0 without a pattern.

    It must also be a minimum among its neighbours a quarter away: a smooth curve that only rises
    lies beneath its chords too.
    """
    if period * 3 // 2 >= len(curve):
        return float("nan")
    near = max(1, period // 4)
    if not curve[period] < min(curve[period - near], curve[period + near]):
        return 0.0
    dip = float(1 - curve[period] * 2 / (curve[period // 2] + curve[period * 3 // 2]))
    n_pairs = 2 * len(curve) - period
    return dip if dip > _NOISE / np.sqrt(n_pairs) else 0.0


def _median_dip(curves: list[NDArray[np.float64]], period: int) -> float:
    dips = [dip for curve in curves if np.isfinite(dip := _dip(curve, period))]
    return float(np.median(dips)) if dips else 0.0


def _gain(curves: list[NDArray[np.float64]], shorter: int, longer: int) -> float:
    """Return the share of the variogram at the shorter period that is left at the longer one."""
    ratios = [c[longer] / c[shorter] for c in curves if longer < len(c) and c[shorter] > 0]
    return float(np.nanmedian(ratios)) if ratios else float("inf")


def _any_period(curves: list[NDArray[np.float64]]) -> int:
    """Find the period with the deepest dip among all up to a sixth of the readings."""
    longest = max((len(curve) for curve in curves), default=0) // 3
    periods = np.arange(4, min(longest, LONGEST_SEASON) + 1)
    dips = np.array([_median_dip(curves, int(p)) for p in periods])
    if not len(dips) or dips.max() < 3 * _MIN_DIP:
        return 1
    good = np.flatnonzero(dips >= 0.9 * dips.max())
    run = good[: int(np.argmax(np.append(np.diff(good) > 1, True))) + 1]  # the first peak
    best = int(periods[run[np.argmax(dips[run])]])
    return best if best < periods[-1] else 1  # at the end of the range the dip may lie beyond it


def longest_auto_horizon(longest: int) -> int:
    """Return the longest horizon that is chosen by itself for series of at most so many rows."""
    return max(1, min(LONGEST_SEASON, longest // 8))


def resolve_windows(
    config: WindowConfig, *, season: int, step_us: int, longest: int
) -> tuple[tuple[int, ...], int]:
    """Return the look-backs that validation may choose among, increasing, and the horizon.

    By default the horizon is one season, the longest look-back 21 seasons, or as many as a longer
    horizon has, and the others a third and two thirds of it, in whole seasons. Without a season,
    where only the recent past tells, they are one, two and four horizons. They are at most 720
    steps, and never more than the data have room for: `longest` is the longest series' rows.
    """
    if longest < _FEWEST_ROWS and "auto" in (config.horizon, config.lookback):
        raise NotEnoughDataError(
            f"the longest series has {longest} rows, but training needs at least {_FEWEST_ROWS}",
            code="too-short",
            hint="pass more readings; fewer are taken where --lookback and --horizon are given",
        )
    horizon = (
        min(season if season > 1 else _NO_SEASON_HORIZON, longest_auto_horizon(longest))
        if config.horizon == "auto"
        else parse_steps(config.horizon, step_us=step_us, name="horizon", limit=MAX_LOOKBACK)
    )
    if config.lookback == "auto":
        lookbacks = _lookbacks(season=season, horizon=horizon, longest=longest)
    else:
        lookback = parse_steps(
            config.lookback, step_us=step_us, name="lookback", limit=MAX_LOOKBACK
        )
        lookbacks = (lookback,)
    if longest < lookbacks[-1] + horizon:
        raise NotEnoughDataError(
            f"the longest series has {longest} rows, but training needs at least "
            f"lookback + horizon = {lookbacks[-1]} + {horizon} = {lookbacks[-1] + horizon}",
            code="too-short",
            hint="pass a shorter --lookback or --horizon, or more readings",
        )
    return lookbacks, horizon


def _lookbacks(*, season: int, horizon: int, longest: int) -> tuple[int, ...]:
    room = min(LONGEST_SEASON, max((longest - 3 * horizon) // 3, 1))
    if season == 1:
        shortest = max(2 * horizon, 2 * _NO_SEASON_HORIZON)
        wanted = [shortest // 2, shortest, 2 * shortest]
    else:
        most = min(max(_SEASONS, -(-horizon // season)), room // season)
        wanted = [max(2, round(most * thirds / 3)) * season for thirds in (1, 2, 3)]
    found = {min(steps, room) for steps in wanted}
    whole = {steps - steps % season if steps > season else steps for steps in found}
    return tuple(sorted(whole))


def resolve_segment(segment: int | None, *, season: int, lookback: int) -> int:
    """Return how many readings one recurrent step takes in.

    Without a season an eighth of the look-back, at most 48. Else one season, or where that is not
    between 24 and 96 steps the largest divisor or multiple beneath; it is at most a quarter of the
    look-back, or 48 steps where these are more, and at most half of it. Segments that do not divide
    the season, or span several of them, forecast worse.
    """
    if segment is not None:
        return min(segment, lookback)
    short, usual, long = _SEGMENTS
    if season == 1:
        return max(1, min(round(lookback / 8), usual))
    longest = min(max(season, short), long, max(lookback // 4, usual), max(lookback // 2, 1))
    return max(k for k in range(1, longest + 1) if season % k == 0 or k % season == 0)


def in_words(
    step_us: int, *, season: int, horizon: int, members: Sequence[MemberSpec]
) -> tuple[str, ...]:
    """Say what was settled, a line each."""

    def steps(n: int) -> str:
        return f"{n} steps ({format_duration(n * step_us)})" if n > 1 else "1 step"

    return (
        f"step {format_duration(step_us)}",
        f"season {steps(season)}" if season > 1 else "no season",
        f"horizon {steps(horizon)}",
        *dict.fromkeys(
            f"look-back {steps(own.lookback)}, in segments of {own.segment}" for own in members
        ),
    )


def autocorrelation(readings: Doubles, most: int) -> Doubles:
    """Return the correlation of readings, `(row,)`, NaN where missing, with those k rows before.

    `(most + 1,)` for k from 0; NaN where fewer than 20 pairs are there, or nothing moves.
    """
    seen = np.isfinite(readings)
    n = len(readings)
    found = np.full(most + 1, np.nan)
    if seen.sum() < _FEWEST_PAIRS:
        return found
    values = np.where(seen, readings - readings[seen].mean(), 0.0)
    variance = float((values**2).sum() / seen.sum())
    if variance == 0:
        return found
    size = 1 << int(2 * n - 1).bit_length()

    def correlate(x: Doubles) -> Doubles:
        spectrum = np.fft.rfft(x, size)
        return np.fft.irfft(spectrum * np.conj(spectrum), size)[: most + 1]

    pairs, products = correlate(seen.astype(np.float64)), correlate(values)
    length = len(pairs)
    enough = pairs > _FEWEST_PAIRS - 0.5
    found[:length][enough] = products[enough] / pairs[enough] / variance
    found[n:] = np.nan
    return found


def peaks(correlation: Doubles, n_readings: int) -> list[int]:
    """Return the lags at which an autocorrelation, from lag 0, peaks, increasing.

    A peak is the highest within a quarter of its lag, stands out of the valley before it and of
    noise, and is higher than the peaks before it: what comes again after a day does so after two,
    and that says nothing new.
    """
    curve = np.nan_to_num(correlation, nan=-1.0)
    lowest = np.minimum.accumulate(curve)
    least = max(_LEAST, _PEAK_NOISE / np.sqrt(max(n_readings, 1)))
    kept: list[int] = []
    for lag in range(2, len(curve) - 1):
        near = max(1, lag // 4)
        around = curve[lag - near : lag + near + 1]
        highest = max([least, lowest[lag] + _LEAST_RISE, *(curve[p] + _NO_HIGHER for p in kept)])
        if curve[lag] >= highest and curve[lag] == around.max():
            kept.append(lag)
    return kept


def median_curve(curves: Sequence[Doubles]) -> Doubles:
    """Return the median over series, lag by lag, of what is known."""
    table = np.stack(list(curves))
    known = np.isfinite(table).any(0)
    found = np.full(table.shape[1], np.nan)
    found[known] = np.nanmedian(table[:, known], axis=0)
    return found
