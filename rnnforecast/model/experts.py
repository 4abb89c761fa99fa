"""Experts: closed-form forecasts from the end of every segment, and how wrong each has been.

The network weighs them. All are causal, skip missing readings, and are computed for all series of
one season at once: by running sums over time, and by one step of numpy for each season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers, row_quantiles, sums_before
from rnnforecast.data.axis import Flags
from rnnforecast.data.season import Seasons, ffill, last_of_phase, phase_means, shift
from rnnforecast.spec import N_EXPERTS, N_FULL

N_LAGS = 5
"""Order of the autoregression of what a season leaves over."""
FULL = (
    "level",
    "last",
    "season",
    "weighted",
    "slow",
    "long season",
    "weighted long season",
    "multiplicative",
    "drift",
)
"""Forecasts of the reading: see `Experts.forecast`."""
ADDITIVE = ("autoregression", "autoregression of the level", "fast fading", "fading", "remainder")
"""Forecasts of the difference between the reading and a full expert's forecast."""
NAMES = (*FULL, *ADDITIVE)
assert (len(FULL), len(NAMES)) == (N_FULL, N_EXPERTS)
WEIGHTED = FULL.index("weighted")
BASES = np.array([*range(N_FULL), 3, 0, 3, 3, 3])
"""`(expert,)`: the full expert to which each is added; its own number for a full one."""

WEIGHTED_RATE, _SLOW_RATE, _LONG_RATE = 0.25, 0.04, 0.3
"""Weights of the newest season in the exponentially weighted means of each phase."""
_NO_SEASON_ROWS = 12
"""Rows that stand for a season where there is none."""
DRIFT_ROWS = 24
"""Rows over which a drift is measured without a season: between two means of as many rows."""
_MAX_RATIO = 10.0
"""Largest ratio between a reading and its level in a multiplicative season."""
_SPREAD_FLOOR = 0.05
"""Least spread of the newest readings, as a share of the spread of all."""
_RESOLUTION, _LEAST_SPREAD = 1e-8, 1e-24
"""Least spread, as a share of the level and in units of the readings: smaller are roundings."""
_MAX_UNITS = 1e30
"""Largest reading in units of the spread: after a constant nothing was spread."""
_MAX_REFLECTION, _FIRST_REFLECTION = 0.9, 0.995
"""Bounds of the reflection coefficients, which keep the autoregression stable."""
_LEAST_VARIANCE, _SMALL_SPREAD = 1e-12, 0.01
"""Variance of a step below which readings are constant; where a series spreads less than the
second, the first is as much smaller as a square is."""
_MIN_PAIRS = 20
"""Pairs of readings that an autocovariance needs; with fewer, all earlier ones count."""
_MIN_AR_ROWS, _AR_SEASONS = 200, 6
"""Newest rows that the autocovariances are means over: at least these, or these seasons."""
_MIN_ERRORS = 4
"""Readings of a segment without which the experts are not judged by it."""
_ERROR_SEGMENTS = 12
"""Segments over which errors are averaged; or two main seasons or a long one, if longer."""


class Experts:
    """Experts of a group of series with the same seasons, at every boundary between segments.

    A boundary is the row before which readings are known: boundary i lies before row
    `i * segment`, and the last one after all rows. Arrays at boundaries are
    `(series, boundary)`; values are in the sensor's units less `center`. Nothing at a boundary
    depends on a later reading, but for `center`, which is added again.
    """

    def __init__(
        self,
        readings: Doubles,
        seasons: Seasons,
        segment: int,
        *,
        far: int = 1,
        drift_rows: int = DRIFT_ROWS,
    ) -> None:
        """Compute the experts of readings, `(series, row)`, NaN where missing.

        Rows end with the last segment; the first segment is padded with missing readings. Errors
        are measured over the next segment, and over segment `far` after the boundary.
        """
        n_series, n_rows = readings.shape
        self.seasons, self.segment, self.far = seasons, segment, far
        self.drift_lag = seasons.main if seasons.has_main else drift_rows
        self.n_segments = -(-n_rows // segment)
        self.n_rows = self.n_segments * segment
        padding = np.full((n_series, self.n_rows - n_rows), np.nan)
        self.center = np.nan_to_num(row_quantiles(readings, (0.5,))[0])
        self.readings = np.concatenate([padding, readings - self.center[:, None]], axis=1)
        self.is_seen = np.isfinite(self.readings)

        self._measure_levels()
        self._measure_seasons()
        self.season_ar = self.autoregression(self.remainder, self.has_remainder)
        self.level_ar = self.season_ar
        if seasons.has_main:
            self.level_ar = self.autoregression(self.from_level, self.is_seen)
        self._measure_errors()

    # What the experts are made of

    def _measure_levels(self) -> None:
        """Level, spread, range and last reading at each boundary."""
        readings, seasons = self.readings, self.seasons
        self.last, self.age = ffill(readings)
        means = self._trailing(readings)
        self.n_seen = means.counts
        self.level = means.of_season(seasons)
        self.short_level = means.of_newest(_NO_SEASON_ROWS * 3 // 4)
        self.mean = means.of_all()
        # readings of the first segment have no level before them, but that of their own end
        is_first = self.n_seen[:, :-1] == 0
        self.level_before = self._by_row(np.where(is_first, self.level[:, 1:], self.level[:, :-1]))

        # deviations from the level at the end of each segment: those that a boundary sees
        deviation = self._trailing(np.abs(readings - self._by_row(self.level[:, 1:])))
        size = np.abs(self.level + self.center[:, None])
        spread = deviation.of_all()
        is_spread = spread > np.maximum(_RESOLUTION * size, _LEAST_SPREAD)
        self.total_spread = np.where(is_spread, spread, _RESOLUTION * (1 + size))
        smallness = np.where(is_spread, np.minimum(spread / _SMALL_SPREAD, 1.0), 1.0)
        self.least_variance = _LEAST_VARIANCE * smallness**2
        newest = deviation.of_newest(max(2 * seasons.main, 48), at_least=4)
        self.spread = np.maximum(newest, _SPREAD_FLOOR * self.total_spread)

        self.minimum = self._extremes(np.minimum, np.inf)
        self.maximum = self._extremes(np.maximum, -np.inf)
        changes = np.full_like(readings, np.nan)
        changes[:, 1:] = np.abs(np.diff(readings, axis=1))
        self.change = self._trailing(changes).of_newest(self._error_rows, at_least=8)

    def _measure_seasons(self) -> None:
        """Means of each phase, what they leave over, and their usual errors."""
        readings, seasons = self.readings, self.seasons
        main, long = seasons.main, seasons.long
        self.phase_last, self.phase_age = last_of_phase(readings, main)
        self.phase_mean = phase_means(readings, main, WEIGHTED_RATE)
        self.phase_slow = phase_means(readings, main, _SLOW_RATE)
        self.long_last, self.long_mean = self.phase_last, self.phase_mean
        if seasons.has_long:
            self.long_last = phase_means(readings, long, 1.0)
            self.long_mean = phase_means(readings, long, _LONG_RATE)
        self.phase_ratio = self._phase_ratios()

        self.from_level = readings - self.level_before
        self.remainder = self.from_level
        if seasons.has_main:
            expected = shift(self.phase_mean, main)
            is_known = np.isfinite(expected)
            self.remainder = readings - np.where(is_known, expected, self.level_before)
            self.has_remainder = self.is_seen & is_known
        else:
            self.has_remainder = self.is_seen

        # growth over a season: where the reading so long ago is missing, the last one of its phase
        # counts, which is older
        width, lag = max(main, _NO_SEASON_ROWS), self.drift_lag
        drift = readings - shift(self.phase_last, lag)
        if self.phase_age.any():
            drift *= lag / (lag + np.nan_to_num(shift(self.phase_age, lag)))
        remainders = self._trailing(np.where(self.has_remainder, self.remainder, np.nan))
        self.short_remainder = remainders.of_newest(int(np.clip(main // 4, 2, _NO_SEASON_ROWS)))
        self.season_remainder = remainders.of_newest(width, at_least=4)
        self.season_drift = self._trailing(drift).of_newest(max(lag, width), at_least=4)

        rows = self._error_rows
        error = np.where(self.has_remainder, np.abs(self.remainder), np.nan)
        self.weighted_error = self._trailing(error).of_newest(rows, at_least=8)
        self.season_error = self._trailing(np.abs(drift)).of_newest(rows, at_least=8)
        self.long_error = np.zeros_like(self.level)
        if seasons.has_long:
            error = np.abs(readings - shift(self.long_mean, long))
            self.long_error = self._trailing(error).of_newest(rows, at_least=8)

    def _phase_ratios(self) -> Doubles:
        """Means of each phase of the ratio to the level, where no reading was negative so far."""
        ratios = np.full_like(self.readings, np.nan)
        if not self.seasons.has_main:
            return ratios
        values = self.readings + self.center[:, None]
        level = self.level_before + self.center[:, None]
        lowest = np.minimum.accumulate(np.where(self.is_seen, values, np.inf), axis=1)
        is_positive = (lowest >= 0) & (level > 0)
        ratio = np.clip(values / np.where(level > 0, level, 1.0), 0, _MAX_RATIO)
        return phase_means(np.where(is_positive, ratio, np.nan), self.seasons.main, WEIGHTED_RATE)

    def autoregression(self, values: Doubles, is_known: NDArray[np.bool_]) -> Autoregression:
        """Fit an autoregression at each boundary by the Yule-Walker equations."""
        values = np.where(is_known, values, 0.0)
        rows = max(_AR_SEASONS * self.seasons.main, _MIN_AR_ROWS)
        covariances = np.empty((*self.level.shape, N_LAGS + 1))
        lagged, known = (_lagged(x, self.segment) for x in (values, is_known))
        for lag in range(N_LAGS + 1):
            means = TrailingMeans((lagged[0], lagged[lag]), (known[0], known[lag]))
            covariances[..., lag] = means.of_newest(rows, at_least=_MIN_PAIRS)
        return Autoregression(values, *levinson_durbin(covariances, self.least_variance))

    # Forecasts

    def forecast(
        self, series: Integers, boundary: Integers, horizon: int, *, begin: int = 0
    ) -> Floats:
        """Forecast series, `(window,)`, from boundaries, `(window, origin)`.

        Returns forecasts less the level, in units of the spread, `(window, origin, expert, lead)`,
        an additive expert's without its base. Leads up to `begin` are left out.
        """
        leads = np.arange(begin, horizon)
        main, long, has_main = self.seasons.main, self.seasons.long, self.seasons.has_main
        ahead = self.rows_ahead(series, boundary, leads, main, self.phase_last)
        series = series[:, None]

        level = self.level[series, boundary][..., None]
        last, age = self.last_reading(series, boundary)
        season = ahead.of(self.phase_last, level)
        weighted = ahead.of(self.phase_mean, level) if has_main else level
        mean = self.mean[series, boundary][..., None]
        slow = ahead.of(self.phase_slow, level) if has_main else mean
        long_season, long_weighted = season, weighted
        if self.seasons.has_long:
            ahead_long = self.rows_ahead(series[:, 0], boundary, leads, long, self.long_last)
            long_season = ahead_long.of(self.long_last, season)
            long_weighted = ahead_long.of(self.long_mean, weighted)
        center = self.center[series, None]
        scaled = ahead.of(self.phase_ratio, np.nan)
        scaled *= level + center
        scaled -= center
        scaled = _first_known(scaled, weighted)
        known_last = _first_known(last[..., None], level)

        forecasts = np.empty((*boundary.shape, N_EXPERTS, len(leads)), np.float32)
        spread = self.spread[series, boundary][..., None]

        def put(number: int, values: Doubles) -> None:
            np.divide(values, spread, out=forecasts[:, :, number], casting="same_kind")

        drift = season + self.growth(series, boundary, leads, ahead)
        profiles = season, weighted, slow, long_season, long_weighted, scaled, drift
        for number, values in enumerate((level, known_last, *profiles)):
            put(number, values - level)
        added = self.season_ar.forecast(series, boundary, self.segment, horizon)[..., begin:]
        put(N_FULL, added)
        if has_main:
            added = self.level_ar.forecast(series, boundary, self.segment, horizon)[..., begin:]
        put(N_FULL + 1, added)

        steps = age[..., None] + leads + 1.0
        remainder = self.short_remainder[series, boundary][..., None]
        duration = self.season_rows
        put(N_FULL + 2, remainder * np.exp(-steps / (duration / 4)))
        put(N_FULL + 3, remainder * np.exp(-steps / duration))
        put(N_FULL + 4, self.season_remainder[series, boundary][..., None])
        return forecasts

    def last_reading(self, series: Integers, boundary: Integers) -> tuple[Doubles, Integers]:
        """Return the last reading before each boundary, and how many rows ago that was.

        Both are `(window, origin)`; NaN, and all rows before, where nothing was read.
        """
        n_before = boundary * self.segment
        newest = np.maximum(n_before - 1, 0)
        last = np.where(boundary > 0, self.last[series, newest], np.nan)
        return last, np.minimum(self.age[series, newest], n_before)

    def growth(
        self, series: Integers, boundary: Integers, leads: Integers, ahead: RowsAhead
    ) -> Doubles:
        """Return by how much the drift exceeds the last season, `(window, origin, lead)`.

        That is the growth of the newest season, by the rows since the reading that is repeated.
        `series` is `(window, 1)`.
        """
        main = self.seasons.main
        rows = main * (leads // main + 1.0)
        if self.phase_age.any():
            rows = rows + ahead.of(self.phase_age, 0.0)
        growth: Doubles = self.season_drift[series, boundary][..., None] * (rows / self.drift_lag)
        return growth

    def rows_ahead(
        self, series: Integers, boundary: Integers, leads: Integers, season: int, last: Doubles
    ) -> RowsAhead:
        """Return the newest row of the phase of each lead, `(window, origin, lead)`.

        `last` are the last readings of each phase, by which those without any are known.
        """
        row = (boundary * self.segment)[..., None] + leads - season * (leads // season + 1)
        place = np.maximum(row, 0) + (series * self.n_rows)[:, None, None]
        return RowsAhead(place, (row < 0) | np.isnan(last.ravel().take(place)))

    @property
    def season_rows(self) -> float:
        """Rows of the main season, or those that stand for it."""
        return float(self.seasons.main if self.seasons.has_main else _NO_SEASON_ROWS)

    def _measure_errors(self) -> None:
        """Mean absolute error of each expert lately, `(series, boundary, expert)`."""
        series = np.arange(len(self.readings))
        boundary = np.broadcast_to(np.arange(self.n_segments), (len(series), self.n_segments))
        segment = self.segment
        self.next_segment = self.forecast(series, boundary, segment)
        self.next_deviation = self.season_ar.deviation(series[:, None], boundary, segment)
        self.error, self.n_judged = self.recent_errors(self._errors_of(self.next_segment, 0), 0)
        self.far_error, self.n_far_judged = self.error, np.zeros_like(self.n_judged)
        if 1 < self.far < self.n_segments:
            horizon, lead = self.far * segment, self.far - 1
            later = self.forecast(series, boundary[:, :-lead], horizon, begin=lead * segment)
            errors = self._errors_of(later, lead)
            self.far_error, self.n_far_judged = self.recent_errors(errors, lead)

    def actual(self, lead: int) -> Floats:
        """Return what was read in the segment `lead` segments after each boundary.

        `(series, boundary, row)`, less the level and in units of the spread there; any number where
        nothing was read.
        """
        n = self.n_segments - lead
        readings = np.where(self.is_seen, self.readings, 0.0)
        actual = readings.reshape(len(readings), -1, self.segment)[:, lead:]
        actual = actual - self.level[:, :n, None]
        actual /= self.spread[:, :n, None]
        return np.clip(actual, -_MAX_UNITS, _MAX_UNITS).astype(np.float32)

    def _errors_of(self, forecasts: Floats, lead: int) -> Floats:
        """Return the absolute errors of forecasts of a segment `lead` segments after a boundary.

        `(series, boundary, expert, row)`; any number where nothing was read. Those of additive
        experts are of what they and their bases forecast together.
        """
        actual = self.actual(lead)
        errors = np.empty_like(forecasts)
        np.subtract(actual[:, :, None], forecasts[:, :, :N_FULL], out=errors[:, :, :N_FULL])
        for number in range(N_FULL, N_EXPERTS):
            base = errors[:, :, BASES[number]]
            np.subtract(base, forecasts[:, :, number], out=errors[:, :, number])
        return np.abs(errors, out=errors)

    def recent_errors(self, errors: Floats, lead: int) -> tuple[Doubles, Doubles]:
        """Average absolute errors over a segment that lies `lead` segments after its boundary.

        `errors` are `(series, boundary, forecast, row)`, in units of the spread; those count where
        something was read. Returns their means lately in units of the readings,
        `(series, boundary, forecast)`, and how many segments were judged, `(series, boundary)`.
        """
        segment, n = self.segment, self.n_segments - lead
        is_seen = self.is_seen.reshape(len(errors), -1, segment)[:, lead:].astype(np.float32)
        n_readings = is_seen.sum(-1, dtype=np.float64)[..., None]
        absolute = np.einsum("sbfr,sbr->sbf", errors, is_seen) * self.spread[:, :n, None]
        is_judged = (n_readings >= min(_MIN_ERRORS, segment)) & (self.n_seen[:, :n, None] > 0)
        means = np.where(is_judged, absolute / np.maximum(n_readings, 1), 0.0)

        before = np.zeros((len(errors), 1 + lead, errors.shape[2]))
        sums = np.concatenate([before, np.cumsum(means, axis=1)], axis=1)
        counts = np.concatenate([before[..., :1], np.cumsum(is_judged, axis=1)], axis=1)
        n_rows = max(2 * self.seasons.main, self.seasons.long)
        width = max(_ERROR_SEGMENTS, -(-n_rows // segment))
        begin = np.maximum(np.arange(self.n_segments + 1) - width, 0)
        is_enough = counts - counts[:, begin] >= 2
        newest = np.where(is_enough, sums - sums[:, begin], sums)
        n_newest = np.where(is_enough, counts - counts[:, begin], counts)
        return newest / np.maximum(n_newest, 1), counts[..., 0]

    # Sums over time

    @property
    def _error_rows(self) -> int:
        return 2 * max(self.seasons.main, 16)

    def _trailing(self, values: Doubles) -> TrailingMeans:
        return TrailingMeans.of(values, self.segment)

    def _by_row(self, values: Doubles) -> Doubles:
        """Repeat values of segments, `(series, segment)`, for each of their rows."""
        return np.repeat(values, self.segment, axis=1)

    def _extremes(self, extreme: np.ufunc, start: float) -> Doubles:
        """Return the least or largest reading before each boundary; 0 before the first."""
        so_far = extreme.accumulate(np.where(self.is_seen, self.readings, start), axis=1)
        at_end = so_far[:, self.segment - 1 :: self.segment]
        values: Doubles = np.pad(np.where(np.isfinite(at_end), at_end, 0.0), ((0, 0), (1, 0)))
        return values


@dataclass(frozen=True)
class RowsAhead:
    """Rows of a table, `(series, row)`, from which leads are forecast."""

    place: Integers
    """`(window, origin, lead)`, in the flattened table."""
    is_blind: Flags
    """Whether nothing of the phase was read by then."""

    def of(self, values: Doubles, otherwise: Doubles | float) -> Doubles:
        """Return the values of a table in these rows, or others where nothing was read by then."""
        ahead = values.ravel().take(self.place)
        np.copyto(ahead, otherwise, where=self.is_blind)
        return ahead


@dataclass(frozen=True)
class Autoregression:
    """An autoregression of some values at each boundary."""

    values: Doubles
    """`(series, row)`; 0 where unknown."""
    coefficients: Doubles
    """`(series, boundary, lag)`."""
    variance: Doubles
    """`(series, boundary)`: that of one step."""

    def forecast(self, series: Integers, boundary: Integers, segment: int, horizon: int) -> Doubles:
        """Forecast from boundaries, `(window, origin, lead)`.

        `series` is `(window, 1)`. No forecast lies further from 0 than the values that it starts
        from.
        """
        back = (boundary * segment)[..., None] - np.arange(1, N_LAGS + 1)
        start = np.where(back >= 0, self.values[series[:, :, None], np.maximum(back, 0)], 0.0)
        most = np.abs(start).max(-1)
        return self._run(np.moveaxis(start, -1, 0)[::-1], most, series, boundary, horizon)

    def deviation(self, series: Integers, boundary: Integers, horizon: int) -> Doubles:
        """Return the standard deviation of forecasts, `(window, origin, lead)`."""
        start = np.zeros((N_LAGS, *boundary.shape))
        start[-1] = 1.0
        impulse = self._run(start, np.ones(boundary.shape), series, boundary, horizon - 1)
        growth = np.ones((*boundary.shape, horizon))
        np.cumsum(impulse**2, axis=-1, out=growth[..., 1:])
        growth[..., 1:] += 1.0
        deviation: Doubles = np.sqrt(growth * self.variance[series, boundary][..., None])
        return deviation

    def _run(
        self, start: Doubles, most: Doubles, series: Integers, boundary: Integers, horizon: int
    ) -> Doubles:
        """Go on from values, `(lag, window, origin)`, the oldest first: `(window, origin, lead)`.

        None is further from 0 than `most`, `(window, origin)`.
        """
        path = np.empty((N_LAGS + horizon, *boundary.shape))  # lead i is at place N_LAGS + i
        path[:N_LAGS] = start
        weights = np.moveaxis(self.coefficients[series, boundary], -1, 0)[::-1].copy()
        products, least = np.empty_like(path[:N_LAGS]), -most
        for lead in range(horizon):
            newest = path[N_LAGS + lead]
            np.multiply(weights, path[lead : lead + N_LAGS], out=products)
            np.add.reduce(products, axis=0, out=newest)
            np.minimum(newest, most, out=newest)
            np.maximum(newest, least, out=newest)
        return np.moveaxis(path[N_LAGS:], 0, -1)


def _lagged(values: NDArray[Any], segment: int) -> list[Doubles]:
    """View values, `(series, row)`, of each lag from 0 on as segments, `(series, segment, row)`.

    They are 0 before the first row.
    """
    n_series, n_rows = values.shape
    padded = np.zeros((n_series, N_LAGS + n_rows))
    padded[:, N_LAGS:] = values
    begins = range(N_LAGS, -1, -1)
    return [padded[:, i : i + n_rows].reshape(n_series, -1, segment) for i in begins]


class TrailingMeans:
    """Means of the newest values before each boundary.

    Sums are taken segment by segment: one over whole segments and one over the beginning of each
    give the sum up to any row.
    """

    def __init__(self, values: Sequence[Doubles], known: Sequence[Doubles]) -> None:
        """Take the products of some values, `(series, segment, row)`, 0 where unknown.

        Likewise the products of `known`, 1 where a value is known and 0 elsewhere.
        """
        self._values, self._known = values, known
        self._segment = values[0].shape[2]
        self._sums = sums_before(_sums(values, self._segment))
        self.counts = sums_before(_sums(known, self._segment))
        """How many values lie before each boundary."""

    @classmethod
    def of(cls, values: Doubles, segment: int) -> TrailingMeans:
        """Take values, `(series, row)`, NaN where missing."""
        is_known = np.isfinite(values)
        shape = len(values), -1, segment
        filled = np.where(is_known, values, 0.0).reshape(shape)
        return cls([filled], [is_known.astype(np.float64).reshape(shape)])

    def of_all(self) -> Doubles:
        """Return the mean of all values before each boundary, 0 without any."""
        return np.where(self.counts > 0, self._sums / np.maximum(self.counts, 1), 0.0)

    def of_season(self, seasons: Seasons) -> Doubles:
        """Return the mean of the newest season before each boundary, the level there.

        Where less than a quarter of it was read, it is that of the newest segments that hold so
        many readings: a level of long ago would be no level of a series that rises.
        """
        width = max(seasons.main, _NO_SEASON_ROWS)
        at_least = max(1, width // 4)
        level = self.of_newest(width, at_least=at_least)
        is_few = self._newest_counts(width) < at_least
        if is_few.any():
            series, boundary = np.nonzero(is_few)
            level[is_few] = self._of_newest_values(series, boundary, at_least)
        return level

    def of_newest(self, n_rows: int, *, at_least: int = 1) -> Doubles:
        """Return the mean of the newest rows before each boundary.

        Where these hold fewer values than `at_least`, it is that of all earlier ones; 0 without.
        """
        newest = self._newest_counts(n_rows)
        is_enough = newest >= at_least
        earlier = self._before(self._values, self._sums, n_rows)
        sums = np.where(is_enough, self._sums - earlier, self._sums)
        counts = np.where(is_enough, newest, self.counts)
        return np.where(counts > 0, sums / np.maximum(counts, 1), 0.0)

    def _newest_counts(self, n_rows: int) -> Doubles:
        """Return how many values the newest rows before each boundary hold."""
        return self.counts - self._before(self._known, self.counts, n_rows)

    def _of_newest_values(self, series: Integers, boundary: Integers, n: int) -> Doubles:
        """Return means of the newest segments that hold n values, `(place,)`; 0 without any."""
        counts, sums = self.counts, self._sums
        end = counts[series, boundary]
        # counts never fall: in one search for all, those of each series lie above all before
        above = (counts.max() + 1) * np.arange(len(counts))
        wanted = np.maximum(end - n, 0) + above[series]
        begin = np.searchsorted((counts + above[:, None]).ravel(), wanted, side="right") - 1
        begin -= series * counts.shape[1]
        n_values = end - counts[series, begin]
        total = sums[series, boundary] - sums[series, begin]
        return np.where(n_values > 0, total / np.maximum(n_values, 1), 0.0)

    def _before(self, parts: Sequence[Doubles], sums: Doubles, n_rows: int) -> Doubles:
        """Return the sums up to `n_rows` before each boundary."""
        n_back, n_more = -(-n_rows // self._segment), -n_rows % self._segment
        before = np.zeros_like(sums)
        n = max(sums.shape[1] - n_back, 0)
        before[:, n_back:] = sums[:, :n]
        if n and n_more:
            before[:, n_back:] += _sums([part[:, :n] for part in parts], n_more)
        return before


def _sums(parts: Sequence[Doubles], n_rows: int) -> Doubles:
    """Return sums of products over the first rows of each segment, `(series, segment)`."""
    first = [part[:, :, :n_rows] for part in parts]
    sums: Doubles = np.einsum("nsr->ns" if len(parts) == 1 else "nsr,nsr->ns", *first)
    return sums


def levinson_durbin(covariances: Doubles, floor: Doubles) -> tuple[Doubles, Doubles]:
    """Solve the Yule-Walker equations for autocovariances, `(..., lag + 1)`.

    Returns coefficients, `(..., lag)`, and the variance of one step, at least `floor`, `(...)`;
    where readings vary less, coefficients are 0. Reflection coefficients are bounded, so that
    missing readings, which leave no true autocovariance, do not make it explode.
    """
    coefficients = np.zeros((*covariances.shape[:-1], N_LAGS))
    variance = covariances[..., 0] * 1.01 + floor
    for lag in range(N_LAGS):
        earlier = coefficients[..., :lag]
        explained = (earlier * covariances[..., lag:0:-1]).sum(-1)
        bound = _MAX_REFLECTION if lag else _FIRST_REFLECTION
        reflection = np.clip((covariances[..., lag + 1] - explained) / variance, -bound, bound)
        coefficients[..., :lag] = earlier - reflection[..., None] * earlier[..., ::-1]
        coefficients[..., lag] = reflection
        variance = variance * (1 - reflection**2)

    is_constant = covariances[..., 0] <= floor
    coefficients[is_constant] = 0.0
    return coefficients, np.where(is_constant, floor, variance)


def _first_known(values: Doubles, otherwise: Doubles) -> Doubles:
    return np.where(np.isfinite(values), values, otherwise)
