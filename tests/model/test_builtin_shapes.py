"""Shapes that anybody can continue by eye: the built-in network has to, as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rnnforecast.data.season import find_seasons
from rnnforecast.data.windows import make_past
from rnnforecast.model.forecaster import RNNForecaster
from tests.builders import HOUR_US, make_panel

HORIZON = 48
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "a daily wave": lambda t, _: 50 + 10 * np.sin(t * np.pi / 12),
    "saw teeth": lambda t, _: t % 24.0,
    "on and off": lambda t, _: (t % 24 > 12) * 1.0,
    "a growing wave": lambda t, _: np.sin(t * np.pi / 12) * (1 + t / 200),
    "a line": lambda t, _: 100 + 0.5 * t,
    "a falling line with noise": lambda t, noise: 500 - 0.5 * t + noise,
    "a daily wave that rises": lambda t, _: 50 + 10 * np.sin(t * np.pi / 12) + 0.5 * t,
    "hours of operation": lambda t, _: np.cumsum((t % 24 > 7) & (t % 24 < 18)) * 1.0,
    "a total of a daily load": lambda t, noise: np.cumsum(
        np.maximum(5 + 4 * np.sin(t * np.pi / 12) + noise, 0)
    ),
    "a total without a season": lambda _, noise: np.cumsum(np.abs(noise)),
}


def forecast_of(readings: np.ndarray) -> np.ndarray:
    """The median of the network's forecast two days ahead."""
    past = make_past(make_panel(readings.astype(np.float32), step_us=HOUR_US))
    network = RNNForecaster.untrained(
        past, lookback=min(len(readings), 672), horizon=HORIZON, seasons=find_seasons(past)
    )
    (forecast,) = network.predict(past, HORIZON, (0.5,)).values[..., 0]
    return forecast


@pytest.mark.parametrize("n_missing", [0, 10, 40])
@pytest.mark.parametrize("n_rows", [200, 960])
@pytest.mark.parametrize("name", SHAPES)
def test_a_clean_shape_goes_on(name: str, n_rows: int, n_missing: int) -> None:
    """Errors are a quarter at most of those of repeating the last reading, after a gap a third.

    After 40 hours without a reading they are no larger, and mostly smaller than that third.
    """
    rows = np.arange(n_rows + HORIZON)
    values = SHAPES[name](rows, np.random.default_rng(0).standard_normal(len(rows)))
    n_read = n_rows - n_missing
    readings = np.where(rows[:n_rows] < n_read, values[:n_rows], np.nan)

    error = np.abs(values[n_rows:] - forecast_of(readings)).mean()

    share = {0: 1 / 4, 10: 1 / 3, 40: 1.0}[n_missing]
    assert error <= share * np.abs(values[n_rows:] - values[n_read - 1]).mean()


@pytest.mark.parametrize("n_since", [1, 2, 3, 6, 10, 24])
@pytest.mark.parametrize("n_rows", [240, 960])
def test_a_level_that_has_shifted_lately_is_followed_or_inside_the_band(
    n_rows: int, n_since: int
) -> None:
    """Of a shift by 8, the error is less than 2.5; after one reading, both are in the band."""
    rng = np.random.default_rng(0)
    rows = np.arange(n_rows + 24)
    phase, sign = rng.integers(24, size=(30, 1)), rng.choice([-1, 1], size=(30, 1))
    usual = 10 + 2 * np.sin(2 * np.pi * (rows + phase) / 24) + rng.normal(0, 0.5, (30, len(rows)))
    values = usual + 8 * sign * (rows >= n_rows - n_since)
    past = make_past(make_panel(*values[:, :n_rows].astype(np.float32), step_us=HOUR_US))
    network = RNNForecaster.untrained(past, lookback=n_rows, horizon=24, seasons=find_seasons(past))

    forecast = network.predict(past, 24, (0.1, 0.5, 0.9)).values

    low, middle, high = np.moveaxis(forecast, -1, 0)
    shifted = values[:, n_rows:]
    if n_since > 1:
        assert np.abs(shifted - middle).mean() < 2.5
        assert ((shifted >= low) & (shifted <= high)).mean() > 0.5
    else:
        assert np.median(high - low) > 5


@pytest.mark.parametrize("exponent", [-60, -36, 30])
@pytest.mark.parametrize("name", ["a daily wave", "a line", "a total of a daily load"])
def test_a_unit_changes_no_forecast(name: str, exponent: int) -> None:
    """Whether pressures are in torr or in pascal: readings of 1e-17 have a season, too."""
    rows = np.arange(480)
    values = SHAPES[name](rows, np.random.default_rng(0).standard_normal(len(rows)))
    scale = 2.0**exponent

    forecast = forecast_of(values)

    error = np.abs(forecast_of(values * scale) / scale - forecast).max()
    assert error <= 1e-4 * np.abs(forecast).max()
