"""The autocorrelation against a slow loop, and its peaks on series whose period is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.delayed import delayed
from rnnforecast.evaluate.memory import autocorrelation, find_peaks, median_curve


def slow(readings: np.ndarray, lag: int) -> float:
    """Correlate pair by pair."""
    mean = np.nanmean(readings)
    pairs = [
        (readings[t] - mean) * (readings[t - lag] - mean)
        for t in range(lag, len(readings))
        if np.isfinite(readings[t]) and np.isfinite(readings[t - lag])
    ]
    return float(np.mean(pairs) / np.nanvar(readings))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_it_is_what_a_loop_over_the_pairs_finds(share: float) -> None:
    rng = np.random.default_rng(0)
    readings = 1e6 + rng.standard_normal(200).cumsum()
    readings[rng.random(200) < share] = np.nan

    found = autocorrelation(readings, 120)

    assert found[0] == pytest.approx(1.0)
    for lag in (1, 7, 60, 120):
        assert found[lag] == pytest.approx(slow(readings, lag), abs=1e-9)


def test_lags_without_pairs_are_unknown() -> None:
    found = autocorrelation(np.random.default_rng(0).standard_normal(50), 80)

    assert np.isfinite(found[:31]).all()
    assert np.isnan(found[31:]).all()
    assert np.isnan(autocorrelation(np.full(50, 3.0), 10)).all()
    assert np.isnan(autocorrelation(np.full(50, np.nan), 10)).all()


@pytest.mark.parametrize("period", [5, 24, 50, 200])
def test_readings_that_depend_on_one_some_steps_back_peak_there_alone(period: int) -> None:
    readings = delayed(12_000, period)

    found = find_peaks(autocorrelation(readings, 2 * period + 10), len(readings))

    assert found == [period]


def test_a_week_in_days_is_a_peak_of_its_own_where_it_says_more() -> None:
    hours = np.arange(24 * 7 * 30)
    rng = np.random.default_rng(0)
    daily = 2 * np.sin(2 * np.pi * hours / 24)
    weekly = np.where(hours // 24 % 7 < 5, 1.0, -1.0)
    noise = 0.3 * rng.standard_normal(len(hours))

    assert find_peaks(autocorrelation(daily + noise, 400), len(hours)) == [24]
    assert find_peaks(autocorrelation(daily + weekly + noise, 400), len(hours)) == [24, 168]


@pytest.mark.parametrize("readings", ["noise", "walk"])
def test_noise_and_a_random_walk_have_no_peak(readings: str) -> None:
    values = np.random.default_rng(1).standard_normal(3000)

    found = autocorrelation(values if readings == "noise" else values.cumsum(), 300)

    assert find_peaks(found, 3000) == []


def test_the_curve_of_several_series_is_their_median_where_it_is_known() -> None:
    found = median_curve([np.array([1.0, 0.2, np.nan]), np.array([1.0, 0.4, np.nan])])

    np.testing.assert_allclose(found, [1.0, 0.3, np.nan])
