"""The season, the look-back and the segment, from the autocorrelation of the readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.training import MAX_LOOKBACK, WindowConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.axis import DAY_US, ELAPSED_UTC, TimeAxis
from rnnforecast.data.windows import Past
from rnnforecast.errors import NotEnoughDataError, Proposal
from rnnforecast.spec import MemberSpec
from rnnforecast.units import format_duration, parse_steps

MIN_SEASON = 4
"""Shorter seasons count as none: an autoregression holds them."""
MAX_SEASON = 720
"""Steps of the longest look-back, and of the longest horizon, that `auto` chooses."""
_MIN_DIP = 0.1
"""Least dip of the variogram at a season."""
_NOISE_DIP = 4.0
"""Two standard deviations of the dip of white noise, times the root of the number of pairs."""
_AROUND, _CLOSE = 0.4, 0.05
"""Shares of a long season: where the lowest variogram is looked for, and where it must lie."""
_LONGER_MUST_GAIN = 0.7
"""A longer season must leave less than this share of the variogram at the shorter one."""
_MAX_SERIES = 32
"""Series that the season is found in, at most."""
_MAX_ROWS = 65_536
"""Newest rows of each series that the season is found in, at most."""
_SEASONS = 21
"""Seasons in the longest look-back; the others hold a third and two thirds of them."""
_SEGMENTS = (24, 48, 96)
"""Three lengths of a segment, in steps, that `resolve_segment` chooses by."""
_FEWEST_ROWS = 20
"""With fewer rows nothing tells how wrong a forecast will be."""
_NO_SEASON_HORIZON = 24
_LEAST_HORIZON_US = 3_600_000_000
"""Without a season, fine steps are forecast an hour ahead: 24 of them would be over at once."""
_MIN_PEAK = 0.1
"""Lower peaks of the autocorrelation are not listed."""
_MIN_RISE = 0.05
"""Height of a peak over the lowest correlation before it."""
_PEAK_NOISE = 3.0
"""Height of a peak in standard deviations of the autocorrelation of white noise."""
_FEWEST_PAIRS = 20
"""With fewer pairs of readings the autocorrelation at a lag is unknown."""
_HIGHER_BY = 0.02
"""A peak after a shorter one counts only where it is higher by this much."""


def resolve_season(config: WindowConfig, past: Past) -> int:
    """Return the season in steps, given by the user or found before the cutoffs; 1 for none.

    Raises `NotEnoughDataError` where a given season is as long as the longest series.
    """
    if config.season == "none":
        return 1
    if config.season == "auto":
        return infer_season(past)

    season = parse_steps(
        config.season,
        step_us=past.step_us,
        name="season",
        limit=MAX_LOOKBACK,
        measure=past.axis.measure,
    )
    longest = int(past.cutoff.max(initial=0))
    if season >= longest:
        raise NotEnoughDataError(
            f"a season of {season} steps does not fit into {longest} rows to learn from",
            code="too-short",
            hint="pass a shorter --season, or more readings",
        )
    return season


def infer_season(past: Past) -> int:
    """Find the period, in steps, after which the readings repeat; 1 where there is none.

    Periods of the clock (a day) and of the calendar (a year of months) come first; the shortest
    wins unless a longer one explains much more. Other periods are looked for only where these are
    none. A season has at most 720 steps, which a look-back holds, but for a minute, an hour or a
    day of fine steps: the network learns their pattern by phase, and a day is what most sensors
    repeat.
    """
    chosen = np.unique(np.linspace(0, past.n_origins - 1, _MAX_SERIES).astype(np.int64))
    curves = [_variogram(past.readings(int(i), _MAX_ROWS)) for i in chosen]

    season = 1
    for period in past.axis.periods(past.step_us):
        longest = MAX_LOOKBACK if period * past.step_us <= DAY_US else MAX_SEASON
        if not 2 <= period <= longest or _median_dip(curves, period) < _MIN_DIP:
            continue
        if period > MAX_SEASON and not _is_lowest(curves, period):
            continue
        if season > 1:  # the share of the variogram that is left at the longer period
            ratios = [c[period] / c[season] for c in curves if period < len(c) and c[season] > 0]
            if not (ratios and np.nanmedian(ratios) < _LONGER_MUST_GAIN):
                continue
        season = period
    return season if season > 1 else _any_period(curves)


def _variogram(readings: Floats) -> Doubles:
    """Return the mean squared difference of readings k rows apart, for k in `[0, rows / 2)`.

    Pairs with a missing reading do not count; NaN for a lag without pairs. The sums over all
    pairs are correlations, computed by Fourier transforms: with w = 1 where there is a reading,
    sum w[t] w[t+k] (x[t+k] - x[t])^2 = x^2 with w, plus w with x^2, less twice x with x.
    """
    seen = np.isfinite(readings)
    n = len(readings)
    if seen.sum() < 4:
        return np.full(max(n // 2, 1), np.nan)

    low, high = np.quantile(readings[seen], (0.005, 0.995))  # a spike must not decide
    clipped = np.clip(readings, low, high, dtype=np.float64)
    values = np.where(seen, clipped - clipped[seen].mean(), 0.0)
    size = 1 << int(2 * n - 1).bit_length()  # zero padding: no circular overlap
    ones = np.fft.rfft(seen.astype(np.float64), size)
    first = np.fft.rfft(values, size)
    second = np.fft.rfft(values**2, size)

    def correlate(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> Doubles:
        return np.fft.irfft(a * np.conj(b), size)[: max(n // 2, 1)]

    n_pairs = correlate(ones, ones)
    squares = correlate(second, ones) + correlate(ones, second) - 2 * correlate(first, first)
    has_pairs = n_pairs > 0.5
    return np.where(has_pairs, squares / np.where(has_pairs, n_pairs, 1.0), np.nan)


def _dip(curve: Doubles, period: int) -> float:
    """Return how far a variogram dips at a period: 1 for an exact repetition, 0 for no pattern.

    It must also be a minimum among its neighbours a quarter away: a smooth curve that only rises
    lies beneath its chords too.
    """
    if period * 3 // 2 >= len(curve):
        return float("nan")
    quarter = max(1, period // 4)
    if not curve[period] < min(curve[period - quarter], curve[period + quarter]):
        return 0.0

    chord = float(curve[period // 2] + curve[period * 3 // 2])
    dip = 1 - 2 * float(curve[period]) / chord if chord > 0 else 0.0  # readings that never change
    n_pairs = 2 * len(curve) - period
    return dip if dip > _NOISE_DIP / np.sqrt(n_pairs) else 0.0


def _median_dip(curves: list[Doubles], period: int) -> float:
    dips = [dip for curve in curves if np.isfinite(dip := _dip(curve, period))]
    return float(np.median(dips)) if dips else 0.0


def _is_lowest(curves: list[Doubles], period: int) -> bool:
    """Tell whether most variograms of enough lags are lowest close to a period, and dip again.

    Readings that stay where they are for hours have a variogram of few independent pairs at a lag
    of a day, and dip there by chance: one in five walks that return to their level did.
    """
    around = slice(round((1 - _AROUND) * period), round((1 + _AROUND) * period))
    reaching = [curve for curve in curves if around.stop < len(curve)]
    width = 2 * round(_CLOSE * period) + 1  # a mean: noise must not decide what is lowest
    means = [np.convolve(curve[around], np.ones(width) / width, "valid") for curve in reaching]
    lowest = [around.start + width // 2 + int(np.argmin(mean)) for mean in means]
    is_close = [abs(lag - period) < _CLOSE * period for lag in lowest]

    twice, half = 2 * period, period // 2
    between = [
        (c[twice], c[twice - half] + c[twice + half]) for c in curves if twice + half < len(c)
    ]
    again = [2 * at_twice < (1 - _MIN_DIP) * chord for at_twice, chord in between]
    return sum(is_close) > len(is_close) / 2 and sum(again) >= len(again) / 2


def _any_period(curves: list[Doubles]) -> int:
    """Find the period with the deepest dip among all up to a sixth of the readings."""
    longest = max((len(curve) for curve in curves), default=0) // 3
    periods = np.arange(4, min(longest, MAX_SEASON) + 1)
    dips = np.array([_median_dip(curves, int(p)) for p in periods])
    if not len(dips) or dips.max() < 3 * _MIN_DIP:
        return 1
    deep = np.flatnonzero(dips >= 0.9 * dips.max())
    run = deep[: int(np.argmax(np.append(np.diff(deep) > 1, True))) + 1]  # the first peak
    best = int(periods[run[np.argmax(dips[run])]])
    return best if best < periods[-1] else 1  # at the end of the range the dip may lie beyond it


@dataclass(frozen=True)
class Seasons:
    """Seasons of a series, in rows: the main one, and a longer one beside it; 1 for none."""

    main: int = 1
    long: int = 1

    @property
    def has_main(self) -> bool:
        """Whether there is a main season that is long enough to count."""
        return self.main >= MIN_SEASON

    @property
    def has_long(self) -> bool:
        """Whether there is a longer season beside the main one."""
        return self.long > 1


def phase_means(values: Doubles, season: int, rate: float) -> Doubles:
    """Return exponentially weighted means of each phase of a season, `(series, row)`.

    At a row it is the mean over its phase up to and with that row: the newest counts `rate`, or
    as much as the others while there are fewer than 1 / rate. NaN before the first value.
    Without a season it is the last value.
    """
    if season < MIN_SEASON:
        return ffill(values)[0]
    n_series, n_rows = values.shape
    n_seasons = -(-n_rows // season)
    padding = np.full((n_series, n_seasons * season - n_rows), np.nan)
    table = np.concatenate([values, padding], axis=1).reshape(n_series, n_seasons, season)

    means = np.empty_like(table)
    mean = np.full((n_series, season), np.nan)
    count = np.zeros((n_series, season))
    for number in range(n_seasons):
        newest = table[:, number]
        is_known = np.isfinite(newest)
        count += is_known
        weight = np.maximum(rate, 1 / np.maximum(count, 1))
        moved = np.where(count > 1, mean + weight * (newest - mean), newest)
        mean = np.where(is_known, moved, mean)
        means[:, number] = mean
    return means.reshape(n_series, -1)[:, :n_rows]


def ffill(values: Doubles) -> tuple[Doubles, Integers]:
    """Repeat the last value where one is missing; and count rows since it, `(series, row)` each.

    NaN before the first value, where the count is that of all rows so far.
    """
    rows = np.arange(values.shape[1])
    last = np.maximum.accumulate(np.where(np.isfinite(values), rows, -1), axis=1)
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return np.where(last >= 0, filled, np.nan), rows - last


def shift(values: Doubles, n_rows: int) -> Doubles:
    """Move values, `(series, row)`, to later rows; the first are NaN."""
    shifted = np.full_like(values, np.nan)
    if n_rows < values.shape[1]:
        shifted[:, n_rows:] = values[:, : values.shape[1] - n_rows]
    return shifted


def max_auto_horizon(longest: int) -> int:
    """Return the longest horizon that `auto` chooses for series of at most `longest` rows."""
    return max(1, min(MAX_SEASON, longest // 8))


def resolve_windows(
    config: WindowConfig, *, season: int, step_us: int, longest: int, axis: TimeAxis = ELAPSED_UTC
) -> tuple[tuple[int, ...], int]:
    """Return the look-backs that validation may choose among, increasing, and the horizon.

    By default the horizon is one season, the longest look-back 21 seasons, or as many as a longer
    horizon has, and the others a third and two thirds of it, in whole seasons. Without a season
    the horizon is 24 steps, or an hour of finer ones, and the look-backs, where only the recent
    past tells, are one, two and four horizons. They are at most 720 steps, and never more than the
    data have room for: `longest` is the longest series' rows. Raises `NotEnoughDataError` where
    the longest series is shorter than a window.
    """
    if longest < _FEWEST_ROWS and "auto" in (config.horizon, config.lookback):
        raise NotEnoughDataError(
            f"the longest series has {longest} rows, but training needs at least {_FEWEST_ROWS}",
            code="too-short",
            hint="pass more readings",
        )

    if config.horizon == "auto":
        no_season = max(_NO_SEASON_HORIZON, _LEAST_HORIZON_US // step_us)
        default = season if season > 1 else no_season
        horizon = min(default, max_auto_horizon(longest))
    else:
        horizon = parse_steps(
            config.horizon,
            step_us=step_us,
            name="horizon",
            limit=MAX_LOOKBACK,
            measure=axis.measure,
        )
    if config.lookback == "auto":
        lookbacks = _lookbacks(season=season, horizon=horizon, longest=longest)
    else:
        lookbacks = (
            parse_steps(
                config.lookback,
                step_us=step_us,
                name="lookback",
                limit=MAX_LOOKBACK,
                measure=axis.measure,
            ),
        )

    if longest < lookbacks[-1] + horizon:
        short = "--horizon", str(max(1, longest // 8)), "--lookback", str(max(1, longest // 3))
        fitting = [Proposal(short, "for windows that fit")]
        raise NotEnoughDataError(
            f"the longest series has {longest} rows, but training needs at least "
            f"lookback + horizon = {lookbacks[-1]} + {horizon} = {lookbacks[-1] + horizon}",
            code="too-short",
            proposals=fitting if longest >= _FEWEST_ROWS else (),
            hint="pass more readings",
        )
    return lookbacks, horizon


def _lookbacks(*, season: int, horizon: int, longest: int) -> tuple[int, ...]:
    """Return the look-backs that `auto` stands for, increasing."""
    limit = min(MAX_SEASON, max((longest - 3 * horizon) // 3, 1))
    if season == 1:
        middle = max(2 * horizon, 2 * _NO_SEASON_HORIZON)
        candidates = [middle // 2, middle, 2 * middle]
    else:
        n_seasons = min(max(_SEASONS, -(-horizon // season)), limit // season)
        candidates = [max(2, round(n_seasons * thirds / 3)) * season for thirds in (1, 2, 3)]
    limited = {min(steps, limit) for steps in candidates}
    whole_seasons = {steps - steps % season if steps > season else steps for steps in limited}
    return tuple(sorted(whole_seasons))


def resolve_segment(segment: int | None, *, season: int, lookback: int) -> int:
    """Return how many readings one recurrent step takes in.

    Without a season an eighth of the look-back, at most 48. Else one season, or where that is not
    between 24 and 96 steps the largest divisor or multiple beneath; it is at most a quarter of the
    look-back, or 48 steps where these are more, and at most half of it. Segments that do not divide
    the season, or span several of them, forecast worse.
    """
    if segment is not None:
        return min(segment, lookback)
    short, middle, long = _SEGMENTS
    if season == 1:
        return max(1, min(round(lookback / 8), middle))
    longest = min(max(season, short), long, max(lookback // 4, middle), max(lookback // 2, 1))
    return max(k for k in range(1, longest + 1) if season % k == 0 or k % season == 0)


def describe_windows(
    step_us: int, *, season: int, horizon: int, members: Sequence[MemberSpec]
) -> tuple[str, ...]:
    """Describe what was settled, a line for each."""

    def steps(n: int) -> str:
        return f"{n} steps ({format_duration(n * step_us)})" if n > 1 else "1 step"

    lookbacks = [f"look-back {steps(m.lookback)}, in segments of {m.segment}" for m in members]
    return (
        f"step {format_duration(step_us)}",
        f"season {steps(season)}" if season > 1 else "no season",
        f"horizon {steps(horizon)}",
        *dict.fromkeys(lookbacks),
    )


def autocorrelation(readings: Doubles, most: int) -> Doubles:
    """Return the correlation of readings, `(row,)`, with those k rows before, for k up to `most`.

    `(most + 1,)`. Missing readings are NaN, and do not count. NaN where there are fewer than 20
    pairs, or where the readings are constant.
    """
    seen = np.isfinite(readings)
    n = len(readings)
    correlation = np.full(most + 1, np.nan)
    if seen.sum() < _FEWEST_PAIRS:
        return correlation
    values = np.where(seen, readings - readings[seen].mean(), 0.0)
    variance = float((values**2).sum() / seen.sum())
    if variance == 0:
        return correlation

    size = 1 << int(2 * n - 1).bit_length()  # zero padding: no circular overlap

    def correlate(x: Doubles) -> Doubles:
        spectrum = np.fft.rfft(x, size)
        return np.fft.irfft(spectrum * np.conj(spectrum), size)[: most + 1]

    n_pairs, products = correlate(seen.astype(np.float64)), correlate(values)
    enough = n_pairs > _FEWEST_PAIRS - 0.5
    correlation[: len(n_pairs)][enough] = products[enough] / n_pairs[enough] / variance
    correlation[n:] = np.nan
    return correlation


def find_peaks(correlation: Doubles, n_readings: int) -> list[int]:
    """Return the lags at which an autocorrelation, from lag 0, peaks, increasing.

    A peak is the highest within a quarter of its lag, stands out of the valley before it and of
    noise, and is higher than the peaks before it: what comes again after a day does so after two,
    and that says nothing new.
    """
    curve = np.nan_to_num(correlation, nan=-1.0)
    lowest = np.minimum.accumulate(curve)
    min_height = max(_MIN_PEAK, _PEAK_NOISE / np.sqrt(max(n_readings, 1)))

    lags: list[int] = []
    for lag in range(2, len(curve) - 1):
        quarter = max(1, lag // 4)
        neighbours = curve[lag - quarter : lag + quarter + 1]
        earlier = [curve[peak] + _HIGHER_BY for peak in lags]
        threshold = max([min_height, lowest[lag] + _MIN_RISE, *earlier])
        if curve[lag] >= threshold and curve[lag] == neighbours.max():
            lags.append(lag)
    return lags


def median_curve(curves: Sequence[Doubles]) -> Doubles:
    """Return the median over series at each lag, `(lag,)`; NaN where no series has a value."""
    table = np.stack(list(curves))
    is_known = np.isfinite(table).any(0)
    median = np.full(table.shape[1], np.nan)
    median[is_known] = np.nanmedian(table[:, is_known], axis=0)
    return median
