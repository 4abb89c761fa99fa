"""The season, the look-back and the segment, from the autocorrelation of the readings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.training import MAX_LOOKBACK, WindowConfig
from rnnforecast.data.arrays import Doubles, Integers, row_quantiles, sums_before
from rnnforecast.data.axis import ELAPSED_UTC, HOUR_US, Flags, TimeAxis
from rnnforecast.data.windows import Past
from rnnforecast.errors import NotEnoughDataError, Proposal, UsageError
from rnnforecast.events import Listener, ProgressEvent, ignore
from rnnforecast.process import n_processors
from rnnforecast.units import describe_duration, format_duration, parse_steps

MIN_SEASON = 4
"""Shorter seasons count as none: an autoregression holds them."""
MAX_SEASON = 720
"""Steps of the longest look-back, and of the longest horizon, that `auto` chooses."""
_MIN_DIP = 0.1
"""Least dip of the variogram at a season."""
_NOISE_DIP = 4.0
"""Two standard deviations of the dip of white noise, times the root of the number of pairs."""
_MAX_ROWS = 15_000
"""Newest rows of each series that seasons are found in, at most."""
_MAX_THREADS = 4
"""Parts of the series that are looked at at once, each of which takes some 25 MB."""
_MAX_BLOCK = 96
"""Rows of a block that is forecast at once, at most: a long season has several."""
_TAIL = 0.005
"""Share of the readings at each end that are brought nearer."""
_MIN_BINS = 48
"""Least number of bins in which a season is looked at, if it has twice as many rows or more."""
_BINNED_RATIO, _MOST_RATIO = 0.8, 1.2
"""A season that gains less in bins has to gain in every row, too; none may lose much there."""
_PHASE_RATES = (0.25, 0.04)
"""Weights of the newest season in the means of each phase: a mean of many shows weak seasons."""
_MIN_BLOCKS = 6
"""With fewer blocks the errors do not show what is chance."""
_CLEAR_RATIO, _CLEAR_SCORE = 0.98, 2.0
"""What a season has to gain: of walks, noises and autoregressions, less than one in 100 did."""
_DEFAULT_RATIO, _DEFAULT_SCORE = 0.99, 1.0
"""The same for the default season of a step, such as the day of hours."""
_OPEN_BLOCKS, _PRIOR_GAIN = 14, 2.0
"""With fewer blocks a default season is believed unless the logarithm of the ratio, times their
number, is above this: with so few days a season that is missed costs six times as much as one that
is invented (docs/decisions.md, 111)."""
_MIN_LONG_BLOCKS = 3
"""With fewer blocks a longer season has to gain as much as a period that is none of the clock."""
_REPEAT_NOISE = 0.5
"""Two standard deviations of the ratio of changes of one day of noise."""
_FEW_RATIO = 0.8
"""Largest ratio at which an odd season is believed after a few blocks."""
_ODD_RATIO = 0.9
"""The same for a period that is none of the clock: it is the best of many."""
_ODD_SHARE = 0.6
"""Largest error of repeating such a period, as a share of that of repeating a natural one."""
_WEEKLY_SHARE = 0.3
"""Largest error of repeating a week, as a share of that of a day that alone is no season."""
_MAX_VARIOGRAM = 1 << 20
"""Cells of the variograms that are computed at once."""
_RESOLUTION = 1e-9
"""Errors below this share of the readings are roundings."""
_MAIN_SEASONS, _LONG_SEASONS = 28, 4
"""Seasons in a look-back that is not given."""
_MIN_LOOKBACK, _MAX_LOOKBACK, _MAX_LONG_LOOKBACK = 672, 2048, 8192
"""Bounds of a look-back that is not given (docs/decisions.md, 108, 130)."""
_FEWEST_ROWS = 20
"""With fewer rows nothing tells how wrong a forecast will be."""
_NO_SEASON_HORIZON = 24
_LEAST_HORIZON_US = 3_600_000_000
"""Without a season, fine steps are forecast an hour ahead: 24 of them would be over at once."""
_FEWEST_PAIRS = 20
"""With fewer pairs of readings, no season repeats better than another."""


def parse_seasons(config: WindowConfig, past: Past) -> Seasons | None:
    """Return the seasons that the user names for all series; None where each has its own.

    Raises `NotEnoughDataError` where a named season is as long as the longest series.
    """
    if config.season == "auto":
        return None
    if config.season == "none":
        return Seasons()
    longest = int(past.cutoff.max(initial=0))
    periods = []
    for text in config.season.split(","):
        season = parse_window(text, "season", past.step_us, past.axis)
        if season >= longest:
            raise NotEnoughDataError(
                f"a season of {season} steps does not fit into {longest} training rows",
                code="too-short",
                hint="use a shorter --season or more data",
            )
        periods.append(season)
    if len(periods) > 2:
        raise UsageError(
            f"--season has {len(periods)} values, but at most two are allowed",
            hint="give a short and a long season, e.g.  --season 1d,1w",
        )
    return Seasons(*sorted({period for period in periods if period > 1}))


def most_common(seasons: Sequence[Seasons], n_readings: Integers) -> int:
    """Return the main season of most readings, in steps; 1 where most have none.

    `n_readings`, `(series,)`, are those of each series: few of them tell nothing.
    """
    counts: Counter[int] = Counter()
    for of_series, n in zip(seasons, n_readings.tolist(), strict=True):
        counts[of_series.main] += n
    return max(counts, key=lambda period: (counts[period], period > 1, -period), default=1)


def seasons_of(past: Past, common: Seasons | None) -> tuple[Seasons, ...]:
    """Return the seasons of each origin: the common ones, or those found before it."""
    return find_seasons(past) if common is None else (common,) * past.n_origins


def find_seasons(past: Past, listener: Listener = ignore) -> tuple[Seasons, ...]:
    """Find the seasons of each origin in its newest readings, each held against none.

    Periods of the clock and the calendar come first: the shortest that helps is the main season,
    but for an hour where a day helps more; a longer one that helps is the long season. Where a
    series is too short to tell, it has the default season of its step. Other periods are looked for
    only where these do not help.
    """
    return tuple(Seasons(*row) for row in past.filled(local_seasons(past, listener)).tolist())


def local_seasons(past: Past, listener: Listener = ignore) -> Integers:
    """Return the main and the long season of each origin, `(origin, 2)`, as `find_seasons` does.

    1 for origins whose series other ranks store.
    """
    periods = [p for p in past.axis.periods(past.step_us) if p >= MIN_SEASON]
    default = next((p for p in periods if p * past.step_us > HOUR_US), 0)
    chosen = np.ones((past.n_origins, 2), np.int64)

    def choose(origins: Integers) -> None:
        n_rows = min(int(past.cutoff[origins].max()), _MAX_ROWS)
        if not n_rows:
            return
        readings = _clip(past.subset(origins).history(n_rows).astype(np.float64))
        lengths = np.minimum(past.cutoff[origins], n_rows)
        is_short = past.cutoff[origins] < (_OPEN_BLOCKS + 1) * default
        main = _main_seasons(readings, lengths, periods, default, is_short)
        chosen[origins, 0] = main
        for period in periods:
            is_open = (main > 1) & (main < period) & (period < lengths)
            for shorter in np.unique(main[is_open]).tolist():
                rows = np.flatnonzero(is_open & (main == shorter))
                # a year beside weeks has 364 days: its days of the week are the same
                long = period // shorter * shorter if shorter in periods else period
                helps = _has_longer(readings[rows], long, lengths[rows], over=shorter)
                chosen[origins[rows[helps]], 1] = long

    parts = [origins for origins, _ in past.tables()]
    n_done = 0
    with ThreadPoolExecutor(min(_MAX_THREADS, n_processors(), max(len(parts), 1))) as pool:
        for origins, _ in zip(parts, pool.map(choose, parts), strict=True):
            listener(ProgressEvent("looking for seasons", n_done, past.n_origins, "series"))
            n_done += len(origins)
    listener(ProgressEvent("looking for seasons", past.n_origins, past.n_origins, "series"))
    return chosen


def _main_seasons(
    readings: Doubles, lengths: Integers, periods: Sequence[int], default: int, is_short: Flags
) -> Integers:
    """Return the main season of each series, `(series,)`; 1 for none.

    It is the natural period, up to the default one, that helps most, or the shortest longer one.
    `lengths`, `(series,)`, are the rows of each: the rest of the table is missing. Of those that
    are short the default period is believed unless it speaks against it.
    """
    gains = {}
    for period in periods:
        if 2 * period < readings.shape[1]:
            gain = _gains(readings, period, lengths)
            n_blocks = np.where(2 * period < lengths, gain.n_blocks, 0)
            gains[period] = replace(gain, n_blocks=n_blocks)
    main = np.ones(len(readings), np.int64)
    n_readings = np.isfinite(readings).sum(1)
    is_untested = gains[default].n_blocks == 0 if default in gains else n_readings > default
    main[is_untested & (n_readings > default) & (default > 1)] = default

    best = np.full(len(readings), np.inf)
    for period, gain in gains.items():
        is_better = gain.ratio < best if period <= default else np.isinf(best)
        chosen = gain.are_enough(is_default=period == default) & is_better
        main[chosen] = period
        best[chosen] = gain.ratio[chosen]
        if period > default > 1 and period % default == 0:
            for row in np.flatnonzero(
                chosen
            ).tolist():  # such a week holds days, but for what is weekly
                share = _share_of_error(_of_row(readings, lengths, row), period, default)
                is_weekly = share < _WEEKLY_SHARE and lengths[row] >= _MIN_LONG_BLOCKS * period
                main[row] = period if is_weekly else default
    main = _odd_seasons(readings, lengths, main, list(gains))
    if default in gains:
        main[(main == 1) & is_short & gains[default].are_open] = default
    return main


def _has_longer(readings: Doubles, period: int, lengths: Integers, *, over: int) -> Flags:
    """Tell whether a longer season helps beside a main one, `over`, `(series,)`.

    A week that is too short to forecast blocks of it is believed where its days differ less from
    those a week before than from those the day before (docs/decisions.md, 126).
    """
    helps = is_tested = np.zeros(len(readings), np.bool_)
    if 2 * period < readings.shape[1]:
        gains = _gains(readings, period, lengths, over=over)
        is_tested = (2 * period < lengths) & (gains.n_blocks > 0)
        largest = np.where(gains.n_blocks < _MIN_LONG_BLOCKS, _ODD_RATIO, _CLEAR_RATIO)
        helps = is_tested & gains.are_enough(is_default=True) & (gains.ratio < largest)
    if period == 7 * over:
        helps = np.where(is_tested, helps, _repeats_better(readings, period, lengths, over=over))
    return helps


def _repeats_better(readings: Doubles, period: int, lengths: Integers, *, over: int) -> Flags:
    """Tell whether readings differ less from those a period before than from those a shorter one.

    They do so by more than noise would, over all that have a reading a period before.
    """
    n_rows = readings.shape[1]
    changes = [
        np.abs(readings[:, period:] - readings[:, period - lag : n_rows - lag])
        for lag in (period, over)
    ]
    is_known = np.isfinite(changes[0]) & np.isfinite(changes[1])
    is_known &= np.arange(period, n_rows) >= (n_rows - lengths + period)[:, None]
    long, short = (np.where(is_known, change, 0.0).sum(1) for change in changes)
    n_periods = is_known.sum(1) / over
    least = 1 - _REPEAT_NOISE / np.sqrt(np.maximum(n_periods, 1))
    is_better: Flags = (n_periods >= 1) & (long < least * short)
    return is_better


def _odd_seasons(
    readings: Doubles, lengths: Integers, main: Integers, natural: Sequence[int]
) -> Integers:
    """Return the main season of each series, or a better one of any length, `(series,)`.

    A natural season was found where `main` is above 1. Repeating the other one has to err by much
    less than repeating any natural one, `natural`, that is not shorter than the main season.
    """
    seasons = main.copy()
    n_series = max(_MAX_VARIOGRAM // readings.shape[1], 1)
    for begin in range(0, len(readings), n_series):
        part = slice(begin, begin + n_series)
        seasons[part] = _deepest_dips(_variograms(readings[part]), lengths[part])
    is_odd = (seasons > 1) & (2 * seasons < lengths)
    is_odd &= lengths >= 6 * (MIN_SEASON + 1)  # six of any
    is_odd &= (main == 1) | ~np.isin(seasons, natural)
    for row in np.flatnonzero(is_odd & (main > 1)).tolist():
        of_row = _of_row(readings, lengths, row)
        longer = {int(main[row]), *(p for p in natural if main[row] < p < lengths[row])}
        shares = [_share_of_error(of_row, int(seasons[row]), period) for period in longer]
        is_odd[row] = max(shares) < _ODD_SHARE
    for period in np.unique(seasons[is_odd]).tolist():
        rows = np.flatnonzero(is_odd & (seasons == period))
        gains = _gains(readings[rows], period, lengths[rows])
        is_odd[rows] = gains.are_enough(is_default=False) & (gains.ratio < _ODD_RATIO)
    return np.where(is_odd, seasons, main)


def _of_row(readings: Doubles, lengths: Integers, row: int) -> Doubles:
    """Return the rows of one series, without the missing ones before its first."""
    return readings[row, readings.shape[1] - int(lengths[row]) :]


def _share_of_error(readings: Doubles, season: int, of: int) -> float:
    """Return the root mean square error of repeating a season, as a share of that of another."""
    longest = max(season, of)
    errors = [
        (readings[longest:] - readings[longest - period : len(readings) - period]) ** 2
        for period in (season, of)
    ]
    is_known = np.isfinite(errors[0]) & np.isfinite(errors[1])
    if is_known.sum() < _FEWEST_PAIRS:
        return 1.0
    of_season, of_longer = (float(error[is_known].mean()) for error in errors)
    return math.sqrt(of_season / of_longer) if of_longer > 0 else 1.0


@dataclass(frozen=True)
class Gains:
    """What a season gains over none in forecasts of each series' own past, `(series,)`."""

    ratio: Doubles
    """Mean absolute error with the season, as a share of that without."""
    score: Doubles
    """Mean difference of the errors of a block, in its standard errors."""
    n_blocks: Integers
    """Blocks of rows that were forecast."""

    def are_enough(self, *, is_default: bool) -> Flags:
        """Tell where the season helps more than chance explains; a default one is expected to."""
        most, least = (
            (_DEFAULT_RATIO, _DEFAULT_SCORE) if is_default else (_CLEAR_RATIO, _CLEAR_SCORE)
        )
        is_clear = (self.n_blocks >= _MIN_BLOCKS) & (self.ratio < most) & (self.score > least)
        is_likely = self.ratio < (1.0 if is_default else _FEW_RATIO)
        flags: Flags = is_clear | ((self.n_blocks > 0) & (self.n_blocks < _MIN_BLOCKS) & is_likely)
        return flags

    @property
    def are_open(self) -> Flags:
        """Whether there is too little to tell that a season which is expected does not help."""
        is_likely = self.ratio < np.exp(_PRIOR_GAIN / np.maximum(self.n_blocks, 1))
        flags: Flags = (self.n_blocks > 0) & (self.n_blocks < _OPEN_BLOCKS) & is_likely
        return flags


def _clip(readings: Doubles) -> Doubles:
    """Bring the farthest readings of each series, `(series, row)`, nearer: no spike may decide."""
    low, high = row_quantiles(readings, (_TAIL, 1 - _TAIL))[..., None]
    clipped: Doubles = np.clip(readings, low, high)
    return clipped


def _gains(readings: Doubles, season: int, lengths: Integers, *, over: int = 1) -> Gains:
    """Return what a season gains, in bins where it is long and helps much, or in every row."""
    common = math.gcd(season, over) if over > 1 else season
    width = max(k for k in range(1, max(season // _MIN_BINS, 1) + 1) if common % k == 0)
    gains = season_gain(readings, season, lengths, over=over)
    if width == 1:
        return gains

    bins, n_bins = _binned(readings, width), lengths // width
    bins[np.arange(bins.shape[1]) < (bins.shape[1] - n_bins)[:, None]] = np.nan  # not whole ones
    binned = season_gain(bins, season // width, n_bins, over=max(over // width, 1))
    is_clear = (binned.ratio < _BINNED_RATIO) & (gains.ratio < _MOST_RATIO)
    is_shown = is_clear | (gains.ratio < 1.0)
    return Gains(np.where(is_shown, binned.ratio, np.inf), binned.score, binned.n_blocks)


def season_gain(readings: Doubles, season: int, lengths: Integers, *, over: int = 1) -> Gains:
    """Forecast blocks of a series' past with a season and without, `(series, row)`.

    `lengths`, `(series,)`, are the rows of each series, which end its row of the table. A block is
    a season, or a part of a long one, and is forecast from the row before it. The forecast with the
    least error of each side counts, so that neither a walk nor noise is told a season.
    """
    n_rows = readings.shape[1]
    block = min(season, _MAX_BLOCK)
    last = np.arange(n_rows - block, season, -block)[::-1] - 1  # the newest row that is known
    actual = readings[:, last[:, None] + 1 + np.arange(block)]  # (series, block, row)
    plain, seasonal = _block_forecasts(readings, season, last, block=block, over=over)

    is_known = np.isfinite(actual)
    for forecast in (*plain, *seasonal):
        is_known &= np.isfinite(forecast)
    n_known = is_known.sum(-1)
    counts = n_known >= max(1, block // 4)
    counts &= last >= (n_rows - lengths + season)[:, None]  # as if each series were alone
    errors = [_least_errors(forecasts, actual, is_known, counts) for forecasts in (plain, seasonal)]
    n_blocks = counts.sum(1)
    difference = np.where(counts, errors[0] - errors[1], 0.0)
    mean = difference.sum(1) / np.maximum(n_blocks, 1)
    variance = np.where(counts, (difference - mean[:, None]) ** 2, 0.0).sum(1)
    deviation = np.sqrt(variance) / np.maximum(n_blocks, 1)
    sums = [np.where(counts, error, 0.0).sum(1) for error in errors]
    # where all forecasts are exact but for roundings, none is better
    largest = np.abs(np.nan_to_num(readings)).max(1, initial=0.0)
    smallest = _RESOLUTION * np.where(largest > 0, largest, 1.0)
    return Gains(
        (sums[1] + smallest) / (sums[0] + smallest),
        mean / np.maximum(deviation, smallest),
        n_blocks,
    )


def _block_forecasts(
    readings: Doubles, season: int, last: Integers, *, block: int, over: int
) -> tuple[list[Doubles], list[Doubles]]:
    """Forecast blocks of rows after `last`, `(series, block, row)`, without a season and with it.

    With it they are means of each phase, alone or shifted by what they left over lately. Without,
    the same means are taken over all phases, so that trends and levels count on both sides, and the
    last readings may come again. Both sides may also go on growing. A shorter season, `over`, is on
    both sides, and the longer one is added to it.
    """
    leads = np.arange(block)
    ahead, ahead_over = (last[:, None] + 1 + steps for steps in (leads, leads % over))

    def shifted(forecast: Doubles, remainder: Doubles, period: int) -> list[Doubles]:
        widths = max(2, period // 8), period
        shifts = [_last_known(remainder, last), *_trailing_means(remainder, widths, last)]
        return [forecast, *(forecast + np.nan_to_num(by[..., None]) for by in shifts)]

    def phases(values: Doubles, period: int) -> list[Doubles]:
        return [shift(phase_means(values, period, rate), period) for rate in _PHASE_RATES]

    plain, seasonal = [], []
    for expected in phases(readings, season):
        level = _trailing_mean(expected, season)
        seasonal += shifted(expected[:, ahead], readings - expected, season)
        plain += shifted(level[:, ahead], readings - level, season)
    plain += shifted(np.zeros((len(readings), *ahead.shape)), readings, season)
    # means of each phase lag behind a steep trend: continue the last season, or, without one, the
    # last reading and the newest level, by the growth of a season
    last_season = shift(phase_means(readings, season, 1.0), season)
    (growth,) = _trailing_means(readings - last_season, [season], last)
    growth = np.nan_to_num(growth)[..., None]
    if over == 1:
        seasonal.append(last_season[:, ahead] + growth)
    newest = _last_known(readings, last)
    (newest_level,) = _trailing_means(readings, [season], last)
    newest_level = np.where(np.isfinite(newest_level), newest_level, newest)
    for begin, age in ((newest, 1), (newest_level, (season + 1) / 2)):
        plain.append(begin[..., None] + growth * (leads + age) / season)

    if over > 1:
        for expected in phases(readings, over):
            plain += shifted(expected[:, ahead_over], readings - expected, over)
            # growth is no season, however much a longer one explains of it
            grown = _grown(readings - expected, over, last, leads, apart=season - over)
            plain.append(expected[:, ahead_over] + np.nan_to_num(grown))
            for added in phases(readings - expected, season):
                # row by row, or alike for a whole short season, as a Sunday differs
                smooth = np.roll(_trailing_mean(added, over), -(over // 2), axis=1)
                for shape in (added, smooth):
                    remainder = readings - expected - shape
                    both = expected[:, ahead_over] + shape[:, ahead]
                    seasonal += shifted(both, remainder, over)
    return plain, seasonal


def _grown(
    readings: Doubles, width: int, last: Integers, leads: Integers, *, apart: int
) -> Doubles:
    """Extrapolate the trend of a trailing mean of `width` rows, `(series, block, row)`.

    The slope is that between two trailing means `apart` rows from each other.
    """
    level = _trailing_mean(readings, width)
    slope = (level - shift(level, apart)) / apart
    grown: Doubles = level[:, last, None] + slope[:, last, None] * (leads + (width + 1) / 2)
    return grown


def _binned(readings: Doubles, width: int) -> Doubles:
    """Average readings over bins, `(series, bin)`: the shape of a season shows through noise."""
    n_series, n_rows = readings.shape
    parts = readings[:, n_rows % width :].reshape(n_series, -1, width)
    n_known = np.isfinite(parts).sum(-1)
    return np.where(n_known > 0, np.nansum(parts, axis=-1) / np.maximum(n_known, 1), np.nan)


def _least_errors(
    forecasts: Sequence[Doubles], actual: Doubles, is_known: Flags, counts: Flags
) -> Doubles:
    """Return the mean absolute errors, `(series, block)`, of the forecast with the least of all."""
    n_known = np.maximum(is_known.sum(-1), 1)
    errors = np.stack(
        [
            np.where(is_known, np.abs(actual - forecast), 0.0).sum(-1) / n_known
            for forecast in forecasts
        ]
    )
    best = np.where(counts, errors, 0.0).sum(-1).argmin(0)
    least: Doubles = np.take_along_axis(errors, best[None, :, None], axis=0)[0]
    return least


def _last_known(values: Doubles, at: Integers) -> Doubles:
    """Return the last value up to and with some rows, `(series, len(at))`; NaN without any."""
    last = values[:, at]
    has_gap = ~np.isfinite(last).all(1)
    if has_gap.any():
        last[has_gap] = ffill(values[has_gap])[0][:, at]
    return last


def _trailing_mean(values: Doubles, n_rows: int) -> Doubles:
    """Return the mean of the newest rows up to and with each, `(series, row)`; NaN without any."""
    sums, counts = _sums_and_counts(values)
    total, n_known = sums[:, 1:].copy(), counts[:, 1:].copy()
    total[:, n_rows:] -= sums[:, 1:-n_rows]
    n_known[:, n_rows:] -= counts[:, 1:-n_rows]
    return _mean(total, n_known)


def _trailing_means(values: Doubles, widths: Sequence[int], at: Integers) -> list[Doubles]:
    """Return means over windows of each width that end with some rows, `(series, len(at))` each."""
    sums, counts = _sums_and_counts(values)
    begins = [np.maximum(at + 1 - width, 0) for width in widths]
    return [
        _mean(sums[:, at + 1] - sums[:, begin], counts[:, at + 1] - counts[:, begin])
        for begin in begins
    ]


def _sums_and_counts(values: Doubles) -> tuple[Doubles, Doubles]:
    """Return sums of the first values of each series, and how many are known, `(series, row + 1)`.

    Where the same rows are known of all series, the counts are those of one, `(1, row + 1)`.
    """
    is_known = np.isfinite(values)
    if (is_known == is_known[:1]).all():
        is_known = is_known[:1]
    return sums_before(np.where(is_known, values, 0.0)), sums_before(is_known)


def _mean(total: Doubles, n_known: Doubles) -> Doubles:
    """Return sums as means; NaN where nothing is known."""
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)


def _variograms(readings: Doubles) -> Doubles:
    """Return the mean squared difference of readings k rows apart, for k in `[0, rows / 2)`.

    `(series, lag)`. Pairs with a missing reading do not count; NaN for a lag without pairs, and for
    a series of fewer than four readings. The sums over all pairs are correlations, computed by
    Fourier transforms: with w = 1 where there is a reading,
    sum w[t] w[t+k] (x[t+k] - x[t])^2 = x^2 with w, plus w with x^2, less twice x with x.
    """
    seen = np.isfinite(readings)
    n_seen, n_rows = seen.sum(1), readings.shape[1]
    mean = np.where(seen, readings, 0.0).sum(1) / np.maximum(n_seen, 1)
    values = np.where(seen, readings - mean[:, None], 0.0)
    n_lags = max(n_rows // 2, 1)
    least = n_rows + n_lags  # zero padding: no circular overlap
    size = min(factor << int((least - 1) // factor).bit_length() for factor in (1, 3, 5))

    def correlate(spectrum: NDArray[np.complex128]) -> Doubles:
        return np.fft.irfft(spectrum, size)[:, :n_lags]

    first = np.fft.rfft(values, size)
    both = np.fft.rfft(values**2, size)
    if seen.all():
        # Each pair has both readings, so that the squares are sums from both ends.
        n_pairs = np.arange(n_rows, n_rows - n_lags, -1.0)[None]
        sums = sums_before(values**2)
        both_sums = sums[:, n_rows : n_rows - n_lags : -1] + sums[:, -1:] - sums[:, :n_lags]
        squares = both_sums - 2 * correlate(first * np.conj(first))
    else:
        ones = np.fft.rfft(seen.astype(np.float64), size)
        n_pairs = correlate(ones * np.conj(ones))
        crossed = both * np.conj(ones)
        squares = correlate(2 * (crossed.real - first * np.conj(first)))
    has_pairs = (n_pairs > 0.5) & (n_seen >= 4)[:, None]
    return np.where(has_pairs, squares / np.where(has_pairs, n_pairs, 1.0), np.nan)


def _deepest_dips(curves: Doubles, lengths: Integers) -> Integers:
    """Find the period with the deepest dip of each variogram, up to a sixth of the readings.

    `(series,)`; 1 where none dips enough. A dip is 1 for an exact repetition and 0 for no pattern.
    A period must also be a minimum among its neighbours a quarter away: a smooth curve that only
    rises lies beneath its chords too. `lengths` are the rows of each series.
    """
    n_lags = lengths // 2
    longest = np.minimum(n_lags // 3, MAX_SEASON)
    dips = np.zeros((int(longest.max(initial=0)) + 1, len(curves)))
    by_lag = np.ascontiguousarray(curves.T)
    for period in range(MIN_SEASON, len(dips)):
        quarter = max(1, period // 4)
        at = by_lag[period]
        is_least = at < np.minimum(by_lag[period - quarter], by_lag[period + quarter])
        chord = by_lag[period // 2] + by_lag[period * 3 // 2]
        is_deep = is_least & (chord > 0) & (period <= longest)  # not of readings that never change
        dip = 1 - 2 * at / np.where(is_deep, chord, 1.0)
        least = _NOISE_DIP / np.sqrt(np.maximum(2 * n_lags - period, 1))
        dips[period] = np.where(is_deep & (dip > least), dip, 0.0)

    largest, periods = dips.max(0, initial=0.0), np.arange(len(dips))[:, None]
    is_deep = dips >= 0.9 * largest
    first = is_deep.argmax(0)
    end = np.where(~is_deep & (periods > first), periods, len(dips)).min(0, initial=len(dips))
    is_first_peak = (periods >= first) & (periods < end)
    deepest = np.where(is_first_peak, dips, -1.0).argmax(0)
    # at the end of the range the dip may lie beyond it
    return np.where((largest >= 3 * _MIN_DIP) & (deepest < longest), deepest, 1)


@dataclass(frozen=True)
class Seasons:
    """Seasons of a series, in rows: the main one, and a longer one beside it; 1 for none."""

    main: int = 1
    long: int = 1

    @property
    def periods(self) -> tuple[int, ...]:
        """The seasons that there are, the shortest first."""
        return tuple(n for n in (self.main, self.long) if n > 1)

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
    table = _by_phase(values, season)
    n_seasons = table.shape[1]
    is_known = np.isfinite(table)
    count = np.cumsum(is_known, axis=1, dtype=np.int32)
    weight = np.where(is_known, np.maximum(rate, 1 / np.maximum(count, 1)), 0.0)
    means = np.where(is_known, table, 0.0)
    for number in range(1, n_seasons):
        mean, newest = means[:, number - 1], means[:, number]
        newest -= mean
        newest *= weight[:, number]
        newest += mean
    means[count == 0] = np.nan
    return means.reshape(n_series, -1)[:, :n_rows]


def last_of_phase(values: Doubles, season: int) -> tuple[Doubles, Doubles]:
    """Return the last value of each phase up to and with each row, and the rows since.

    `(series, row)` each. Without a season it is the last value. NaN before the first value, where
    the second counts all rows of the phase so far.
    """
    if season < MIN_SEASON:
        last, age = ffill(values)
        return last, age.astype(np.float64)
    if np.isfinite(values).all():
        return values.copy(), np.zeros(values.shape)
    n_series, n_rows = values.shape
    table = _by_phase(values, season)
    n_seasons = table.shape[1]
    last, age = ffill(table.swapaxes(1, 2).reshape(-1, n_seasons))

    def by_row(array: NDArray[Any]) -> NDArray[Any]:
        back = array.reshape(n_series, season, n_seasons).swapaxes(1, 2)
        return back.reshape(n_series, -1)[:, :n_rows]

    return by_row(last), by_row(season * age.astype(np.float64))


def _by_phase(values: Doubles, season: int) -> Doubles:
    """Return values, `(series, row)`, as `(series, season, phase)`, NaN after the last."""
    n_series, n_rows = values.shape
    n_seasons = -(-n_rows // season)
    padding = np.full((n_series, n_seasons * season - n_rows), np.nan)
    return np.concatenate([values, padding], axis=1).reshape(n_series, n_seasons, season)


def ffill(values: Doubles) -> tuple[Doubles, Integers]:
    """Repeat the last value where one is missing; and count rows since it, `(series, row)` each.

    NaN before the first value, where the count is that of all rows so far.
    """
    rows = np.arange(values.shape[1])
    is_known = np.isfinite(values)
    if is_known.all():
        return values.copy(), np.zeros(values.shape, np.int64)
    last = np.maximum.accumulate(np.where(is_known, rows, -1), axis=1)
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


def default_horizon(season: int, step_us: int) -> int:
    """Return one season, or 24 steps without one, an hour of finer ones."""
    return season if season > 1 else max(_NO_SEASON_HORIZON, _LEAST_HORIZON_US // step_us)


def wanted_lookback(seasons: Sequence[Seasons]) -> int:
    """Return the rows that hold 28 main and 4 long seasons of each series, from 672 to 2,048.

    Longer ones forecast worse (docs/decisions.md, 108), but for those that hold two long seasons
    and a main one, up to 8,192 rows: a week of five minutes is forecast from the one before.
    """
    rows = [max(_MAIN_SEASONS * s.main, _LONG_SEASONS * s.long) for s in seasons]
    least = [n for s in seasons if (n := 2 * s.long + s.main) <= _MAX_LONG_LOOKBACK]
    return max(min(max(_MIN_LOOKBACK, *rows), _MAX_LOOKBACK), *least, 0)


def resolve_windows(
    config: WindowConfig,
    *,
    season: int,
    n_wanted: int,
    step_us: int,
    longest: int,
    axis: TimeAxis = ELAPSED_UTC,
) -> tuple[int, int]:
    """Return look-back and horizon in steps.

    By default they are `default_horizon` and `n_wanted`, see `wanted_lookback`, as far as the data
    have room for them: `longest` is the longest series' rows. Raises `NotEnoughDataError` where
    that is shorter than a window.
    """
    if longest < _FEWEST_ROWS and "auto" in (config.horizon, config.lookback):
        raise NotEnoughDataError(
            f"the longest series has {longest} rows, but training needs at least {_FEWEST_ROWS}",
            code="too-short",
            hint="use more data",
        )

    if config.horizon == "auto":
        horizon = min(default_horizon(season, step_us), max_auto_horizon(longest))
    else:
        horizon = parse_window(config.horizon, "horizon", step_us, axis)
    if config.lookback == "auto":
        lookback = min(n_wanted, max(longest - 2 * horizon, 1))
    else:
        lookback = parse_window(config.lookback, "lookback", step_us, axis)

    if longest < lookback + horizon:
        short = "--horizon", str(max(1, longest // 8)), "--lookback", str(max(1, longest // 3))
        fitting = [Proposal(short, "to use windows that fit")]
        raise NotEnoughDataError(
            f"the longest series has {longest} rows, but training needs at least "
            f"lookback + horizon = {lookback} + {horizon} = {lookback + horizon}",
            code="too-short",
            proposals=fitting if longest >= _FEWEST_ROWS else (),
            hint="use more data",
        )
    return lookback, horizon


def parse_window(text: str, name: str, step_us: int, axis: TimeAxis) -> int:
    """Parse a season, a look-back or a horizon to steps. Raises `UsageError`."""
    return parse_steps(text, step_us=step_us, name=name, limit=MAX_LOOKBACK, measure=axis.measure)


def describe_windows(
    step_us: int, *, season: int, lookback: int, horizon: int, segment: int
) -> tuple[str, ...]:
    """Describe what was settled, a line for each."""

    def steps(n: int) -> str:
        return f"{n} steps ({describe_duration(n * step_us)})" if n > 1 else "1 step"

    return (
        f"step {format_duration(step_us)}",
        f"season {steps(season)}" if season > 1 else "no season",
        f"horizon {steps(horizon)}",
        f"look-back {steps(lookback)}, in segments of {segment}",
    )
