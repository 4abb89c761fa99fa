"""Ridge regression on lags: what it must find, and what it must not see."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.baselines import RidgeOnLags, SeasonalNaive
from tests.builders import make_panel, random_walk, wave

LOOKBACK, HORIZON = 24, 6
LEVELS = (0.1, 0.5, 0.9)


def fitted(panel, train: int = 400, validation: int | None = 500) -> RidgeOnLags:
    ends = np.ones(panel.n_series, np.int64)
    found = RidgeOnLags.fit(
        make_past(panel, train * ends),
        None if validation is None else make_past(panel, validation * ends),
        lookback=LOOKBACK,
        horizon=HORIZON,
    )
    assert found is not None
    return found


def test_it_continues_a_sine_that_it_has_seen() -> None:
    panel = make_panel(wave(700, season=12, noise=0.0))
    past = make_past(panel, np.array([650]))

    forecast = fitted(panel).predict(past, HORIZON, LEVELS)

    assert forecast.point[0] == pytest.approx(panel.target[650:656], abs=0.02)


def test_it_is_the_ridge_of_sklearn_on_windows_less_their_mean() -> None:
    readings = random_walk(300)
    panel = make_panel(readings)
    train = make_past(panel, np.array([200]))
    found = fitted(panel, 200, None)
    scale = fit_scaling(train).scale[0]
    x, y = [], []
    for row in range(200 - LOOKBACK - HORIZON + 1):
        history = readings[row : row + LOOKBACK].astype(np.float64)
        future = readings[row + LOOKBACK : row + LOOKBACK + HORIZON].astype(np.float64)
        x.append((history - history.mean()) / scale)
        y.append((future - history.mean()) / scale)

    expected = Ridge(found.strength).fit(np.array(x), np.array(y))

    np.testing.assert_allclose(found.coefficients, expected.coef_, atol=1e-5)
    newest = readings[230 - LOOKBACK : 230].astype(np.float64)
    scaled = expected.predict(((newest - newest.mean()) / scale)[None])[0]
    forecast = found.predict(make_past(panel, np.array([230])), HORIZON, LEVELS)
    np.testing.assert_allclose(forecast.point[0], scaled * scale + newest.mean(), rtol=1e-4)


def test_it_beats_yesterday_on_waves_with_noise() -> None:
    panel = make_panel(wave(900, noise=2.0))
    cutoffs = np.arange(600, 890, 7)
    past = Past(panel, np.zeros(len(cutoffs), np.int64), cutoffs)
    truth = np.stack([panel.target[c : c + HORIZON] for c in cutoffs])

    errors = [
        np.abs(method.predict(past, HORIZON, LEVELS).point - truth).mean()
        for method in (fitted(panel), SeasonalNaive(24))
    ]

    assert errors[0] < 0.9 * errors[1]


def test_no_reading_after_the_cutoffs_changes_it() -> None:
    readings = wave(700)
    changed = readings.copy()
    changed[500:] = 1e6

    one, other = (fitted(make_panel(r)) for r in (readings, changed))

    np.testing.assert_array_equal(one.coefficients, other.coefficients)
    assert (one.strength, one.scale_of) == (other.strength, other.scale_of)


def test_noise_is_regularised_more_than_a_pattern() -> None:
    noise = np.random.default_rng(0).standard_normal(600)
    pattern = wave(600, season=12, noise=0.0)

    assert fitted(make_panel(noise)).strength > fitted(make_panel(pattern)).strength


def test_bands_hold_about_four_readings_in_five() -> None:
    panel = make_panel(wave(6000, noise=1.0))
    cutoffs = np.arange(3000, 5990, 3)
    past = Past(panel, np.zeros(len(cutoffs), np.int64), cutoffs)
    truth = np.stack([panel.target[c : c + HORIZON] for c in cutoffs])

    values = fitted(panel, 2000, 3000).predict(past, HORIZON, LEVELS).values

    inside = ((values[:, :, 0] <= truth) & (truth <= values[:, :, 2])).mean()
    assert 0.77 < inside < 0.83


def test_gaps_are_filled_forward_and_an_empty_look_back_has_no_forecast() -> None:
    readings = wave(700)
    readings[640:648] = np.nan
    gapped, empty = readings.copy(), readings.copy()
    empty[620:650] = np.nan
    ridge = fitted(make_panel(wave(700)))

    found = ridge.predict(make_past(make_panel(gapped), np.array([650])), HORIZON, LEVELS)
    none = ridge.predict(make_past(make_panel(empty), np.array([650])), HORIZON, LEVELS)

    assert np.isfinite(found.values).all()
    assert np.isnan(none.values).all()


def test_an_unknown_series_takes_the_scale_of_its_window() -> None:
    ridge = fitted(make_panel(wave(700, season=12, noise=0.0)))
    stranger = make_panel(wave(10), 1000 * wave(700, season=12, noise=0.0))

    forecast = ridge.predict(Past(stranger, np.array([1]), np.array([650])), HORIZON, LEVELS)

    assert forecast.point[0] == pytest.approx(stranger.of(1)[650:656], rel=0.01)


def test_without_a_whole_window_there_is_nothing_to_fit() -> None:
    panel = make_panel(wave(20))
    assert RidgeOnLags.fit(make_past(panel), None, lookback=LOOKBACK, horizon=HORIZON) is None
