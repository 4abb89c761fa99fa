"""The naive methods against loops, and against published figures on ETTh1."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.baselines import SeasonalNaive, naive, seasonal_differences
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, make_panel, random_walk, wave

NAN = np.nan
seeds = st.integers(0, 2**32 - 1)
repeatable = settings(max_examples=40, deadline=None, derandomize=True)


def past_at(panel: Panel, *origins: tuple[int, int]) -> Past:
    """Make a Past of these (series, cutoff) pairs."""
    series, cutoff = np.array(origins, np.int64).reshape(-1, 2).T
    return Past(panel, series=series, cutoff=cutoff)


def point_of(method: SeasonalNaive, past: Past, horizon: int) -> np.ndarray:
    return method.predict(past, horizon, (0.5,)).point


def slow_point(readings: np.ndarray, horizon: int, season: int) -> list[float]:
    """For each lead, go back by seasons to the newest reading; failing that, the last reading."""
    there = [r for r in readings.tolist() if not math.isnan(r)]
    last = there[-1] if there else NAN
    forecast = []
    for lead in range(horizon):
        row = len(readings) + lead
        while row >= 0 and (row >= len(readings) or math.isnan(readings[row])):
            row -= season
        forecast.append(float(readings[row]) if row >= 0 else last)
    return forecast


def slow_differences(readings: np.ndarray, season: int) -> list[float]:
    pairs = zip(readings.tolist(), readings[season:].tolist(), strict=False)
    return [b - a for a, b in pairs if not (math.isnan(a) or math.isnan(b))]


def draw(seed: int) -> tuple[Past, int]:
    """Make origins of three series of different lengths with gaps, and a season."""
    rng = np.random.default_rng(seed)
    season = int(rng.integers(1, 6))
    series = []
    for _ in range(3):
        readings = rng.normal(size=rng.integers(1, 40)).astype(np.float32)
        readings[rng.random(len(readings)) < rng.choice([0.0, 0.3, 0.9])] = np.nan
        series.append(readings)
    chosen = rng.integers(0, 3, 8)
    origins = [(int(s), int(rng.integers(1, len(series[s]) + 1))) for s in chosen]
    return past_at(make_panel(*series), *origins), season


@given(seeds)
@repeatable
def test_the_forecast_equals_a_loop_for_origins_of_several_series_with_gaps(seed: int) -> None:
    past, season = draw(seed)

    found = point_of(SeasonalNaive(season), past, 11)

    expected = [slow_point(past.readings(o), 11, season) for o in range(past.n_origins)]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@given(seeds)
@repeatable
def test_the_naive_forecast_is_the_last_reading_that_is_there(seed: int) -> None:
    past, _ = draw(seed)

    found = point_of(naive(), past, 3)

    for origin in range(past.n_origins):
        readings = past.readings(origin)
        there = readings[np.isfinite(readings)]
        expected = there[-1] if len(there) else np.float32(NAN)
        np.testing.assert_array_equal(found[origin], np.full(3, expected))


@given(seeds)
@repeatable
def test_in_sample_differences_equal_a_loop(seed: int) -> None:
    past, season = draw(seed)

    found = seasonal_differences(past, season)

    for origin in range(past.n_origins):
        steps = slow_differences(past.readings(origin), season)
        absolute = sum(abs(d) for d in steps) / len(steps) if steps else NAN
        square = sum(d * d for d in steps) / len(steps) if steps else NAN
        assert found.mean_absolute[origin] == pytest.approx(absolute, nan_ok=True)
        assert found.mean_square[origin] == pytest.approx(square, nan_ok=True)


def test_a_season_is_repeated_in_phase() -> None:
    past = make_past(make_panel([9, 9, 9, 1, 2, 3]))

    assert point_of(SeasonalNaive(3), past, 7)[0].tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_a_reading_missing_from_the_last_season_comes_from_the_one_before() -> None:
    past = make_past(make_panel([10, 20, 30, NAN, 21, NAN, 12, NAN, NAN]))

    assert point_of(SeasonalNaive(3), past, 3)[0].tolist() == [12, 21, 30]


def test_a_history_shorter_than_a_season_is_continued_by_its_last_reading() -> None:
    past = make_past(make_panel([7, 8]))

    assert point_of(SeasonalNaive(4), past, 5)[0].tolist() == [8, 8, 7, 8, 8]


def test_without_any_reading_there_is_no_forecast() -> None:
    past = make_past(make_panel([NAN, NAN, NAN], [1, 2, 3]))

    values = SeasonalNaive(2).predict(past, 3, QUANTILES).values

    assert np.isnan(values[0]).all()
    assert np.isfinite(values[1]).all()


@pytest.mark.parametrize("season", [1, 4])
def test_quantiles_are_normal_with_the_spread_of_the_seasonal_differences(season: int) -> None:
    readings = random_walk(50, seed=5)
    readings[[3, 20]] = NAN

    forecast = SeasonalNaive(season).predict(make_past(make_panel(readings)), 13, QUANTILES)

    steps = slow_differences(readings, season)
    spread = math.sqrt(sum(d * d for d in steps) / len(steps))
    for lead in range(1, 14):
        deviation = spread * math.sqrt((lead - 1) // season + 1)
        normal = NormalDist(float(forecast.point[0, lead - 1]), deviation)
        expected = [normal.inv_cdf(q) for q in QUANTILES]
        np.testing.assert_allclose(forecast.values[0, lead - 1], expected, rtol=1e-5, atol=1e-5)


def test_quantiles_without_two_readings_a_season_apart_are_the_point() -> None:
    forecast = SeasonalNaive(4).predict(make_past(make_panel([7, 8])), 2, QUANTILES)

    np.testing.assert_array_equal(forecast.values, np.full((1, 2, 11), 8.0))


@given(seeds)
@repeatable
def test_quantiles_never_cross_and_the_median_is_the_point(seed: int) -> None:
    past, season = draw(seed)

    values = SeasonalNaive(season).predict(past, 9, QUANTILES).values

    assert not (np.diff(values, axis=2) < 0).any()
    np.testing.assert_array_equal(
        values[:, :, QUANTILES.index(0.5)], point_of(SeasonalNaive(season), past, 9)
    )


@given(seeds)
@repeatable
def test_readings_after_the_cutoff_change_no_forecast(seed: int) -> None:
    past, season = draw(seed)
    rng = np.random.default_rng(seed)
    first = past._panel.offsets[past.series[0]] + past.cutoff[0]
    end = past._panel.offsets[past.series[0] + 1]
    changed = past._panel.target.copy()
    changed[first:end] = rng.choice([NAN, 1e6, -1e6], end - first)
    other = make_panel(*np.split(changed, past._panel.offsets[1:-1]))
    later = Past(other, past.series, past.cutoff)

    before = SeasonalNaive(season).predict(past, 9, QUANTILES).values[0]

    np.testing.assert_array_equal(
        SeasonalNaive(season).predict(later, 9, QUANTILES).values[0], before
    )


@given(seeds)
@repeatable
def test_an_origin_is_forecast_alike_alone_and_among_others(seed: int) -> None:
    past, season = draw(seed)
    together = SeasonalNaive(season).predict(past, 6, QUANTILES).values

    for origin in range(past.n_origins):
        alone = past.subset(np.array([origin]))
        found = SeasonalNaive(season).predict(alone, 6, QUANTILES).values[0]
        np.testing.assert_array_equal(found, together[origin])


def test_forecasting_leaves_the_readings_as_they_were() -> None:
    panel = make_panel([1, NAN, 3, NAN, 5, NAN])
    before = panel.target.copy()

    SeasonalNaive(2).predict(make_past(panel), 4, QUANTILES)

    np.testing.assert_array_equal(panel.target, before)


def test_a_forecast_names_the_series_and_the_last_time_of_each_origin() -> None:
    past = past_at(make_panel(wave(30), wave(20)), (1, 20), (0, 5), (1, 7))

    forecast = naive().predict(past, 2, (0.1, 0.5))

    assert forecast.names == ("s1", "s0", "s1")
    assert forecast.quantiles == (0.1, 0.5)
    assert forecast.values.dtype == np.float32
    assert forecast.cutoff_us.tolist() == [START_US + (n - 1) * HOUR_US for n in (20, 5, 7)]


def test_no_origins_give_an_empty_forecast() -> None:
    past = make_past(make_panel(wave(30))).subset(slice(0, 0))

    assert SeasonalNaive(6).predict(past, 4, QUANTILES).values.shape == (0, 4, 11)


@pytest.mark.parametrize("season", [1, 24])
def test_a_sensor_that_has_long_been_silent_costs_one_pass(season: int) -> None:
    """Going back season by season, each time from the newest row, would take minutes."""
    readings = np.full(100_000, NAN, np.float32)
    readings[:24] = np.arange(24)
    origins = [(0, 100_000 - k) for k in range(0, 1200, 24)]
    past = past_at(make_panel(readings), *origins)

    began = time.process_time()
    found = point_of(SeasonalNaive(season), past, 24)

    assert time.process_time() - began < 2
    repeated = np.roll(np.arange(24), -(100_000 % 24)) if season == 24 else np.full(24, 23)
    np.testing.assert_array_equal(found, np.tile(repeated, (50, 1)))


# Published figures

HORIZON, SCALED_BEFORE, TEST_FROM, TEST_UNTIL = 96, 8640, 11_520, 14_400


def etth1() -> np.ndarray:
    """Read ETTh1, `(row, channel)`, from the folder that RNNFORECAST_DATA names."""
    folder = os.environ.get("RNNFORECAST_DATA")
    if not folder:
        pytest.skip("RNNFORECAST_DATA does not name a folder with ETTh1.csv")
    path = Path(folder) / "ETTh1.csv"
    if not path.is_file():
        pytest.skip("the folder that RNNFORECAST_DATA names has no ETTh1.csv")
    return pd.read_csv(path).drop(columns="date").to_numpy(np.float64)


@pytest.mark.parametrize(("season", "mse", "mae"), [(24, "0.512", "0.433"), (1, "1.294", "0.713")])
def test_scaled_errors_on_etth1_are_the_published_ones(season: int, mse: str, mae: str) -> None:
    """Rows [11520, 14400), stride 1, 7 channels, horizon 96, in units of the training deviation."""
    readings = etth1()
    deviation = readings[:SCALED_BEFORE].std(0)
    panel = make_panel(*(readings / deviation).T)
    cutoffs = range(TEST_FROM, TEST_UNTIL - HORIZON + 1)
    assert len(cutoffs) == 2785
    past = past_at(panel, *((s, c) for s in range(7) for c in cutoffs))

    point = point_of(SeasonalNaive(season), past, HORIZON)

    windows = np.lib.stride_tricks.sliding_window_view(readings / deviation, HORIZON, axis=0)
    truth = windows[TEST_FROM : TEST_UNTIL - HORIZON + 1].swapaxes(0, 1).reshape(-1, HORIZON)
    error = point - truth
    assert f"{np.mean(error**2):.3f}" == mse
    assert f"{np.mean(np.abs(error)):.3f}" == mae
