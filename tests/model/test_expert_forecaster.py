"""The forecaster of experts alone: against loops, causality, bands, and its cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Past, make_past
from rnnforecast.model import forecaster
from rnnforecast.model.experts import Experts
from rnnforecast.model.forecaster import ExpertForecaster
from rnnforecast.spec import QUANTILES
from tests.builders import make_panel, random_walk, wave
from tests.model.test_experts import EXTREMES, Slow, sensor

HORIZON, SEGMENT = 20, 16
BAND = (0.1, 0.5, 0.9)


def past_of(*series: object, cutoffs: object = None) -> Past:
    """A past of these series, with the same cutoffs in each; by default after all rows."""
    past = make_past(make_panel(*series))
    if cutoffs is None:
        return past
    n_series = len(series)
    return replace(
        past,
        series=np.repeat(np.arange(n_series), len(cutoffs)),
        cutoff=np.tile(np.asarray(cutoffs), n_series),
    )


def predict(past: Past, levels: tuple[float, ...] = BAND) -> Forecast:
    return ExpertForecaster().predict(past, HORIZON, levels)


def daily(n: int = 24 * 20, *, seed: int = 0) -> np.ndarray:
    """A day of hours and a remainder that lasts."""
    rng = np.random.default_rng(seed)
    remainder = np.zeros(n)
    for t in range(1, n):
        remainder[t] = 0.7 * remainder[t - 1] + rng.standard_normal()
    return wave(n) + remainder


def weekly(n: int = 24 * 7 * 6) -> np.ndarray:
    """A day of hours, five days a week."""
    hours = np.arange(n)
    noise = 0.3 * np.random.default_rng(0).standard_normal(n)
    return np.where(hours // 24 % 7 >= 5, 0, 5 + 3 * np.sin(2 * np.pi * hours / 24)) + noise


def test_the_median_is_the_weighted_season_and_the_autoregression_of_what_it_leaves_over() -> None:
    series = daily().astype(np.float32)
    series[100:110] = np.nan
    cutoffs = [480, 471, 400, 101]
    forecast = predict(past_of(series, cutoffs=cutoffs))

    for origin, cutoff in enumerate(cutoffs):
        slow = Slow(series[:cutoff], Seasons(24), SEGMENT)
        parts = slow.forecast(len(slow.y) // SEGMENT, HORIZON)
        expected = np.add(parts["weighted"], parts["autoregression"])
        np.testing.assert_allclose(forecast.point[origin], expected, rtol=1e-4)


def test_without_a_season_the_median_is_that_of_the_expert_with_the_least_error() -> None:
    walk, noise = random_walk(400), np.random.default_rng(1).standard_normal(400)
    forecast = predict(past_of(walk, noise))

    np.testing.assert_allclose(forecast.point[0], walk[-1], rtol=1e-5)
    assert np.abs(forecast.point[1]).max() < 0.5


def test_of_two_seasons_the_better_counts() -> None:
    series = weekly()
    cutoff = len(series) - 24 * 4  # then a weekend comes
    point = ExpertForecaster().predict(past_of(series, cutoffs=[cutoff]), 96, BAND).point[0]

    assert np.abs(point - series[cutoff:]).mean() < 0.5


@pytest.mark.parametrize("history", [16_384, 128])
def test_an_origin_has_the_forecast_that_it_has_alone(
    history: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecaster, "_HISTORY", history)
    monkeypatch.setattr(forecaster, "_TABLE_VALUES", 1 << 15)
    series = [daily(300, seed=1), weekly(300), random_walk(300), sensor(300), np.full(300, np.nan)]
    past = past_of(*series, cutoffs=[1, 37, 150, 151, 166, 299, 300])
    together = predict(past)

    order = np.random.default_rng(0).permutation(past.n_origins)
    np.testing.assert_allclose(
        predict(past.subset(order)).values, together.values[order], rtol=1e-5, atol=1e-5
    )
    for origin in range(past.n_origins):
        alone = predict(past.alone(origin)).values[0]
        np.testing.assert_allclose(alone, together.values[origin], rtol=1e-4, atol=1e-4)


def test_of_a_long_history_only_the_newest_rows_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecaster, "_HISTORY", 128)
    series = daily(480)
    other = np.concatenate([np.full(240, 1e3), series[240:]])

    one, two = (Experts(x[None, 300:], Seasons(24), SEGMENT) for x in (series, other))
    np.testing.assert_array_equal(one.level, two.level)
    seasons = np.array([[24, 1]])
    monkeypatch.setattr(forecaster, "_seasons", lambda past: np.repeat(seasons, past.n_origins, 0))
    np.testing.assert_array_equal(predict(past_of(series)).values, predict(past_of(other)).values)


def test_many_origins_of_a_series_share_passes_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many origins and rows cost four times as much, not sixteen times."""
    n_values: list[int] = []

    class Counted(Experts):
        def __init__(self, readings: np.ndarray, *rest: object, **options: object) -> None:
            n_values.append(readings.size)
            super().__init__(readings, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(forecaster, "Experts", Counted)
    monkeypatch.setattr(forecaster, "_HISTORY", 256)
    costs = []
    for n in (1000, 4000):
        n_values.clear()
        predict(past_of(daily(n), cutoffs=np.arange(n // 2, n)))
        costs.append(sum(n_values))
        assert len(n_values) <= 2 * SEGMENT * (n / 128 + 1)

    assert costs[1] < 6 * costs[0]


@pytest.mark.parametrize("kind", ["daily", "walk", "noise", "spiky"])
def test_bands_hold_about_four_fifths_and_grow_as_errors_do(kind: str) -> None:
    rng = np.random.default_rng(3)
    n = 1500
    series = {
        "daily": daily(n),
        "walk": random_walk(n, seed=3),
        "noise": rng.standard_normal(n),
        "spiky": rng.standard_t(2, n),
    }[kind].astype(np.float32)
    cutoffs = np.arange(700, n - HORIZON, 7)
    forecast = predict(past_of(series, cutoffs=cutoffs))
    actual = series[cutoffs[:, None] + np.arange(HORIZON)]

    low, high = forecast.values[..., 0], forecast.values[..., 2]
    inside = (actual >= low) & (actual <= high)
    assert 0.72 <= inside.mean() <= 0.88
    for leads in (slice(0, 4), slice(HORIZON - 8, HORIZON)):
        assert 0.66 <= inside[:, leads].mean() <= 0.94
    growth = (high - low)[:, -1].mean() / (high - low)[:, 0].mean()
    if kind == "walk":
        assert 3 < growth < 7  # the root of 20 is 4.5
    elif kind == "daily":
        assert 1.2 < growth < 2
    else:
        assert 0.8 < growth < 1.3


def test_quantiles_do_not_cross_and_are_normal() -> None:
    values = predict(past_of(daily(), random_walk(300)), QUANTILES).values

    assert (np.diff(values, axis=-1) >= 0).all()
    middle = QUANTILES.index(0.5)
    np.testing.assert_allclose(
        values[..., middle] - values[..., 0], values[..., -1] - values[..., middle], rtol=1e-2
    )


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_readings_are_forecast_or_left_out(name: str) -> None:
    series = np.array(EXTREMES[name])
    with np.errstate(invalid="raise", divide="raise"):
        forecast = predict(past_of(series, series[:17], []), QUANTILES)

    has_readings = [np.isfinite(x).any() for x in (series, series[:17], np.empty(0))]
    assert (np.isfinite(forecast.point).all(1) == has_readings).all()
    if name in ("constant", "zeros"):
        np.testing.assert_allclose(forecast.values[:2], series[0], atol=1e-4)


def test_there_may_be_no_origin() -> None:
    past = past_of(daily())

    assert predict(past.subset(np.empty(0, np.int64))).values.shape == (0, HORIZON, 3)
