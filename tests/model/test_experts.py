"""Experts, each against a loop over rows that shares no code with them; and laws of them all."""

from __future__ import annotations

import math
import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnforecast.data.season import Seasons
from rnnforecast.model.experts import (
    BASES,
    FULL,
    N_EXPERTS,
    N_FULL,
    N_LAGS,
    NAMES,
    Experts,
    levinson_durbin,
)
from tests.builders import random_walk, wave
from tests.data.tables import few

HORIZON = 20
SEASONS = [Seasons(), Seasons(8), Seasons(8, 24)]


def sensor(n: int = 190, *, seed: int = 0, missing: float = 0.1) -> np.ndarray:
    """Readings of a day of 8 rows, a week of 24, a remainder that lasts, and gaps."""
    rng = np.random.default_rng(seed)
    rows = np.arange(n)
    remainder = np.zeros(n)
    for t in range(1, n):
        remainder[t] = 0.6 * remainder[t - 1] + rng.standard_normal()
    readings = 30 + 5 * np.sin(np.pi * rows / 4) + 4 * (rows % 24 >= 16) + remainder
    readings[rng.random(n) < missing] = np.nan
    return readings


class Slow:
    """The experts of one series at one boundary, by loops."""

    def __init__(self, readings: np.ndarray, seasons: Seasons, segment: int) -> None:
        n_missing = -len(readings) % segment
        self.y = [math.nan] * n_missing + [float(x) for x in readings]
        self.main, self.long, self.segment = seasons.main, seasons.long, segment
        self.has_main = seasons.main >= 4
        known = [x for x in self.y if not math.isnan(x)]
        self.center = float(np.median(known)) if known else 0.0

    def newest(self, values: list[float], end: int, n: int, at_least: int = 1) -> float | None:
        """Mean of the newest n values before a row, or of all where these are too few."""
        part = [x for x in values[max(end - n, 0) : end] if not math.isnan(x)]
        if len(part) < at_least:
            part = [x for x in values[:end] if not math.isnan(x)]
        return sum(part) / len(part) if part else None

    @cache  # noqa: B019 - a few rows of a series that lives as long as a test
    def level(self, end: int) -> float:
        width = max(self.main, 12)
        begins = [max(end - width, 0), *range(end - self.segment, -1, -self.segment)]
        parts = [[x for x in self.y[begin:end] if not math.isnan(x)] for begin in begins]
        enough = max(1, width // 4)
        part = next((part for part in parts if len(part) >= enough), parts[-1])
        return sum(part) / len(part) if part else self.center

    def of_phase(self, values: list[float], row: int, season: int, rate: float) -> float | None:
        """Weighted mean of the values at a row, a season before, and so on, the oldest first."""
        mean, count = None, 0
        for t in range(row % season, row + 1, season):
            if not math.isnan(values[t]):
                count += 1
                weight = max(rate, 1 / count)
                mean = values[t] if mean is None else mean + weight * (values[t] - mean)
        return mean

    def profile(
        self, values: list[float], end: int, season: int, rate: float, lead: int
    ) -> float | None:
        row = end + lead
        while row >= end:
            row -= season
        return None if row < 0 else self.of_phase(values, row, season, rate)

    def level_before(self, row: int) -> float:
        """The level before a row's segment; where nothing was read then, that at its end."""
        begin = row // self.segment * self.segment
        has_level = any(not math.isnan(x) for x in self.y[:begin])
        return self.level(begin if has_level else begin + self.segment)

    @property
    def from_level(self) -> list[float]:
        return [x - self.level_before(t) for t, x in enumerate(self.y)]

    @property
    def remainder(self) -> list[float]:
        if not self.has_main:
            return self.from_level
        values = []
        for t, x in enumerate(self.y):
            expected = (
                None if t < self.main else self.of_phase(self.y, t - self.main, self.main, 0.25)
            )
            values.append(math.nan if expected is None else x - expected)
        return values

    @property
    def ratios(self) -> list[float]:
        values, lowest = [], math.inf
        for t, x in enumerate(self.y):
            lowest = x if x < lowest else lowest
            level = self.level_before(t)
            values.append(min(x / level, 10.0) if lowest >= 0 and level > 0 else math.nan)
        return values

    def autoregression(self, values: list[float], end: int, horizon: int) -> tuple[list, list]:
        """Forecast and deviation by the recursion of Durbin, with bounded reflections."""
        n = max(6 * self.main, 200)
        covariances = []
        for lag in range(N_LAGS + 1):
            products = [math.nan] * lag + [
                values[t] * values[t - lag] for t in range(lag, len(values))
            ]
            covariances.append(self.newest(products, end, n, 20) or 0.0)
        if covariances[0] == 0:
            return [0.0] * horizon, [0.0] * horizon
        variance, weights = covariances[0] * 1.01, []
        for n_known in range(N_LAGS):
            left = covariances[n_known + 1]
            left -= sum(w * covariances[n_known - i] for i, w in enumerate(weights))
            bound = 0.9 if n_known else 0.995
            reflection = min(max(left / variance, -bound), bound)
            weights = [
                *(w - reflection * u for w, u in zip(weights, weights[::-1], strict=True)),
                reflection,
            ]
            variance *= 1 - reflection**2

        newest = [math.nan] * N_LAGS + values[:end]
        path = [0.0 if math.isnan(x) else x for x in newest[-N_LAGS:]]
        most = max(abs(x) for x in path)
        impulse, deviation, total = [0.0] * (N_LAGS - 1) + [1.0], [], 0.0
        for _ in range(horizon):
            total += impulse[-1] ** 2
            deviation.append(math.sqrt(variance * total))
            step = sum(weights[i] * path[-1 - i] for i in range(N_LAGS))
            path.append(min(max(step, -most), most))
            step = sum(weights[i] * impulse[-1 - i] for i in range(N_LAGS))
            impulse.append(min(max(step, -1.0), 1.0))
        return path[N_LAGS:], deviation

    def forecast(self, boundary: int, horizon: int) -> dict[str, list[float]]:
        """Forecasts in the units of the readings; additive ones as what they add."""
        end, leads, main = boundary * self.segment, range(horizon), self.main
        y, level = self.y, self.level(end)
        seen = [t for t in range(end) if not math.isnan(y[t])]
        last = y[seen[-1]] if seen else level
        mean = sum(y[t] for t in seen) / len(seen) if seen else self.center

        def first(*choices: float | None) -> float:
            return next(x for x in choices if x is not None)

        def profile(season: int, rate: float, lead: int) -> float | None:
            return self.profile(y, end, season, rate, lead) if season > 1 else None

        season = [first(profile(main, 1.0, k), level) if main > 1 else last for k in leads]
        weighted = [first(profile(main, 0.25, k), level) for k in leads]
        slow = [first(profile(main, 0.04, k), level if self.has_main else mean) for k in leads]
        scaled = weighted
        if self.has_main:
            ratios = self.ratios
            of_level = [self.profile(ratios, end, main, 0.25, k) for k in leads]
            scaled = [
                w if ratio is None else ratio * level
                for w, ratio in zip(weighted, of_level, strict=True)
            ]

        remainder = self.remainder
        short = self.newest(remainder, end, min(max(main // 4, 2), 12)) or 0.0
        width = max(main, 12)
        lag = main if self.has_main else 24
        age = end - 1 - seen[-1] if seen else end
        duration = main if self.has_main else 12
        drift = [math.nan] * len(y)
        for t in range(lag, len(y)):
            rows = range(t - lag, -1, -main if self.has_main else -1)
            before = next((s for s in rows if not math.isnan(y[s])), None)
            drift[t] = math.nan if before is None else (y[t] - y[before]) * lag / (t - before)

        def since(lead: int) -> int:
            """Rows from the reading that is repeated, as if it was the newest where none is."""
            newest = main * (lead // main + 1)
            rows = range(end + lead - newest, -1, -main)
            repeated = (end + lead - s for s in rows if not math.isnan(y[s]))
            return next(repeated, newest)

        change = self.newest(drift, end, max(width, lag), 4) or 0.0
        return {
            "level": [level] * horizon,
            "last": [last] * horizon,
            "season": season,
            "weighted": weighted,
            "slow": slow,
            "long season": [first(profile(self.long, 1.0, k), season[k]) for k in leads],
            "weighted long season": [first(profile(self.long, 0.3, k), weighted[k]) for k in leads],
            "multiplicative": scaled,
            "drift": [season[k] + change * since(k) / lag for k in leads],
            "autoregression": self.autoregression(remainder, end, horizon)[0],
            "autoregression of the level": self.autoregression(self.from_level, end, horizon)[0],
            "fast fading": [short * math.exp(-(age + k + 1) / (duration / 4)) for k in leads],
            "fading": [short * math.exp(-(age + k + 1) / duration) for k in leads],
            "remainder": [self.newest(remainder, end, width, 4) or 0.0] * horizon,
        }

    def errors(self, boundary: int) -> dict[str, float]:
        """Mean absolute errors over the newest segments that are judged."""
        judged: list[tuple[int, dict[str, float]]] = []
        for i in range(boundary):
            begin = i * self.segment
            actual = self.y[begin : begin + self.segment]
            n_known = sum(not math.isnan(x) for x in actual)
            is_blind = all(math.isnan(x) for x in self.y[:begin])
            if is_blind or n_known < min(4, self.segment):
                continue
            forecasts = self.forecast(i, self.segment)
            means = {}
            for number, name in enumerate(NAMES):
                base = NAMES[BASES[number]]
                total = 0.0
                for k, x in enumerate(actual):
                    value = forecasts[name][k] + (forecasts[base][k] if name != base else 0.0)
                    total += 0.0 if math.isnan(x) else abs(x - value)
                means[name] = total / n_known
            judged.append((i, means))

        width = max(12, math.ceil(max(2 * self.main, self.long) / self.segment))
        newest = [means for i, means in judged if i >= boundary - width]
        chosen = newest if len(newest) >= 2 else [means for _, means in judged]
        return {
            name: sum(means[name] for means in chosen) / len(chosen) if chosen else 0.0
            for name in NAMES
        }


def forecasts_of(experts: Experts, horizon: int = HORIZON) -> np.ndarray:
    """Forecasts at all boundaries, `(series, boundary, expert, lead)`, in the sensor's units."""
    n_series = len(experts.readings)
    boundary = np.broadcast_to(
        np.arange(experts.n_segments + 1), (n_series, experts.n_segments + 1)
    )
    values = experts.forecast(np.arange(n_series), boundary, horizon).astype(np.float64)
    values *= experts.spread[:, :, None, None]
    values[:, :, :N_FULL] += (experts.level + experts.center[:, None])[:, :, None, None]
    return values


@pytest.mark.parametrize("segment", [1, 5, 16])
@pytest.mark.parametrize("seasons", SEASONS)
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.85])
def test_experts_are_those_of_loops_over_rows(
    seasons: Seasons, segment: int, missing: float
) -> None:
    readings = np.stack([sensor(seed=seed, missing=missing) for seed in range(2)])
    readings[1, 70:110] = readings[1, -50:] = np.nan
    values = forecasts_of(Experts(readings, seasons, segment))

    for number, series in enumerate(readings):
        slow = Slow(series, seasons, segment)
        for boundary in (0, 1, 2, 60 // segment, 100 // segment, values.shape[1] - 1):
            expected = slow.forecast(boundary, HORIZON)
            for expert, name in enumerate(NAMES):
                actual = values[number, boundary, expert]
                np.testing.assert_allclose(
                    actual, expected[name], rtol=1e-6, atol=1e-9, err_msg=name
                )


@pytest.mark.parametrize("seasons", SEASONS)
def test_the_deviation_of_the_autoregression_is_that_of_its_impulse_response(
    seasons: Seasons,
) -> None:
    series = sensor()
    experts = Experts(series[None], seasons, 16)
    newest = np.array([[0]]), np.array([[experts.n_segments]])
    deviation = experts.season_ar.deviation(*newest, HORIZON)

    slow = Slow(series, seasons, 16)
    _, expected = slow.autoregression(slow.remainder, len(slow.y), HORIZON)
    np.testing.assert_allclose(deviation[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("segment", [1, 5])
@pytest.mark.parametrize("seasons", SEASONS)
def test_errors_are_those_of_the_newest_segments_that_are_judged(
    seasons: Seasons, segment: int
) -> None:
    series = sensor(60 if segment == 1 else 120, missing=0.2)
    experts = Experts(series[None], seasons, segment)
    last = experts.n_segments if segment > 1 else 40
    expected = Slow(series, seasons, segment).errors(last)

    for number, name in enumerate(NAMES):
        np.testing.assert_allclose(experts.error[0, last, number], expected[name], rtol=1e-6)


def test_the_equations_of_levinson_are_solved() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.standard_normal(300)
        for t in range(2, 300):
            x[t] += 0.5 * x[t - 1] - 0.2 * x[t - 2]
        covariances = np.array([(x[lag:] * x[: 300 - lag]).mean() for lag in range(N_LAGS + 1)])
        coefficients, variance = levinson_durbin(
            covariances, np.full(covariances.shape[:-1], 1e-12)
        )

        lags = np.abs(np.subtract.outer(np.arange(N_LAGS), np.arange(N_LAGS)))
        matrix = covariances[lags] + 0.01 * covariances[0] * np.eye(N_LAGS)
        expected = np.linalg.solve(matrix, covariances[1:])
        np.testing.assert_allclose(coefficients, expected, rtol=1e-7, atol=1e-9)
        assert variance == pytest.approx(1.01 * covariances[0] - expected @ covariances[1:])


@few
@given(st.integers(0, 2**32))
def test_no_autocovariances_make_an_autoregression_explode(seed: int) -> None:
    rng = np.random.default_rng(seed)
    covariances = rng.standard_normal((50, N_LAGS + 1)) * 10.0 ** rng.integers(-9, 9, (50, 1))
    covariances[:, 0] = np.abs(covariances[:, 0])
    coefficients, variance = levinson_durbin(covariances, np.full(covariances.shape[:-1], 1e-12))

    companion = np.zeros((50, N_LAGS, N_LAGS))
    companion[:, 0] = coefficients
    companion[:, range(1, N_LAGS), range(N_LAGS - 1)] = 1
    assert np.abs(np.linalg.eigvals(companion)).max() < 1
    assert (variance > 0).all()


@settings(few, max_examples=20)
@given(st.sampled_from(SEASONS), st.sampled_from([1, 7, 16]), st.integers(1, 12), st.integers(0))
def test_no_reading_after_a_boundary_changes_anything_at_it(
    seasons: Seasons, segment: int, boundary: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    series = sensor(16 * 12)
    boundary = boundary * 16 // segment
    before = len(series) - (-(-len(series) // segment) - boundary) * segment
    changed = series.copy()
    changed[before:] = rng.choice([np.nan, -1e6, 0.0, 1e9], len(series) - before)

    one, other = (Experts(x[None], seasons, segment, far=2) for x in (series, changed))

    # before the first reading the level is the center, which is one of all readings
    at = np.flatnonzero(one.n_seen[0, : boundary + 1])
    np.testing.assert_allclose(forecasts_of(one)[0, at], forecasts_of(other)[0, at], atol=1e-3)
    for name in ("error", "far_error", "spread", "total_spread", "n_seen", "change"):
        values = (getattr(e, name)[0, at] for e in (one, other))
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("seasons", SEASONS)
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e9])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_forecasts_scale_with_the_readings_and_move_with_them(
    seasons: Seasons, scale: float, offset: float
) -> None:
    readings = sensor()[None]
    plain, other = (Experts(x, seasons, 16) for x in (readings, scale * (readings + offset)))

    expected = forecasts_of(plain)
    expected[:, :, :N_FULL] += offset
    values = forecasts_of(other) / scale
    moves = [number for number, name in enumerate(NAMES) if name != "multiplicative" or not offset]
    np.testing.assert_allclose(values[:, :, moves], expected[:, :, moves], atol=1e-3)
    np.testing.assert_allclose(other.error[..., moves] / scale, plain.error[..., moves], atol=1e-3)
    np.testing.assert_allclose(other.spread[:, 1:] / scale, plain.spread[:, 1:])


def test_series_are_forecast_alike_in_any_order_alone_and_after_rows_without_a_reading() -> None:
    readings = np.stack([sensor(seed=0), sensor(seed=1), random_walk(190).astype(float)])
    seasons = Seasons(8, 24)
    together = forecasts_of(Experts(readings, seasons, 16))

    np.testing.assert_allclose(forecasts_of(Experts(readings[::-1], seasons, 16)), together[::-1])
    for number, series in enumerate(readings):
        alone = forecasts_of(Experts(series[None], seasons, 16))
        np.testing.assert_allclose(alone[0], together[number], rtol=1e-12, atol=1e-12)

    padding = np.full((3, 16 * 3), np.nan)
    padded = Experts(np.concatenate([padding, readings], axis=1), seasons, 16)
    unpadded = Experts(readings, seasons, 16)
    np.testing.assert_allclose(forecasts_of(padded)[:, 3:], together, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(padded.error[:, 3:], unpadded.error, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(padded.spread[:, 3:], unpadded.spread, rtol=1e-9)


EXTREMES = {
    "nothing": [np.nan] * 50,
    "one": [np.nan] * 20 + [3.0] + [np.nan] * 29,
    "constant": [7.0] * 50,
    "zeros": [0.0] * 50,
    "huge": list(1e30 * wave(50, season=8)),
    "tiny": list(1e-30 * wave(50, season=8).astype(float)),
    "jump": [0.0] * 40 + [1e30] * 10,
    "spike": [1.0, 2.0] * 10 + [-3e38] + [1.0, 2.0] * 15,
    "short": [1.0, 2.0],
}


@pytest.mark.parametrize("segment", [1, 7, 16])
@pytest.mark.parametrize("seasons", [*SEASONS, Seasons(40, 1000), Seasons(5000)])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_readings_have_finite_forecasts_within_reason(
    name: str, seasons: Seasons, segment: int
) -> None:
    series = np.array(EXTREMES[name])
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        experts = Experts(series[None], seasons, segment, far=2)
        values = forecasts_of(experts)

    assert np.isfinite(values).all() and np.isfinite(experts.error).all()
    assert (experts.spread > 0).all() and (experts.error >= 0).all()
    seen = series[np.isfinite(series)]
    if len(seen):
        newest = values[0, -1, : FULL.index("multiplicative")]
        size = 1e-6 * np.abs(seen).max()
        assert newest.min() >= seen.min() - size and newest.max() <= seen.max() + size
    if name in ("constant", "zeros"):
        assert (values[0, -1, :N_FULL] == seen[0]).all() and not values[0, -1, N_FULL:].any()
    assert values.shape[2] == N_EXPERTS
