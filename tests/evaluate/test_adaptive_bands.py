"""Bands that the newest forecasts scale: they follow the readings, ties and gaps say little."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.calibration import AdaptiveBands, _in_half_widths, _scale
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, make_panel
from tests.evaluate.test_calibration import HORIZON, Normal, fitted, inside, noise

LEVELS = (0.1, 0.5, 0.9)
WINDOWS = 6


def bands(past: Past, factor: float = 1.0, *, untrained_from_row: int = 0) -> np.ndarray:
    """q10, median and q90, `(origin, lead, 3)`."""
    since = START_US + untrained_from_row * HOUR_US
    return AdaptiveBands(Normal(factor), since).predict(past, HORIZON, LEVELS).values


def widths(past: Past, factor: float = 1.0, *, untrained_from_row: int = 0) -> np.ndarray:
    """What the bands were multiplied by, `(origin,)`."""
    adapted = bands(past, factor, untrained_from_row=untrained_from_row)
    raw = Normal(factor).predict(past, HORIZON, LEVELS).values
    ratio = (adapted[..., 2] - adapted[..., 0]) / (raw[..., 2] - raw[..., 0])
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(HORIZON, 1), rtol=1e-4)
    return ratio[:, 0]


def ending_in(values: np.ndarray, n_before: int = 400) -> Panel:
    return make_panel(np.concatenate([noise(n_before), values]))


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.5, 2.0])
def test_bands_move_towards_what_they_promise(factor: float) -> None:
    panel = make_panel(noise(12_000))
    raw, adapted = inside(Normal(factor), panel), inside(AdaptiveBands(Normal(factor), 0), panel)

    assert abs(adapted.mean() - 0.8) < 0.6 * abs(raw.mean() - 0.8)


def test_right_bands_stay_about_right() -> None:
    panel = make_panel(noise(12_000))
    assert inside(AdaptiveBands(Normal(), 0), panel).mean() == pytest.approx(0.8, abs=0.02)


def test_medians_stay_and_quantiles_keep_their_order() -> None:
    past = make_past(ending_in(noise(72, seed=3, spread=4.0)))
    made = AdaptiveBands(Normal(), 0).predict(past, HORIZON, QUANTILES)

    assert (np.diff(made.values, axis=-1) > 0).all()
    np.testing.assert_array_equal(made.point, 20)
    assert made.uncalibrated is None
    calibrated = fitted(make_panel(noise(4000)), Normal(0.5))
    raw = Normal(0.5).predict(past, HORIZON, QUANTILES).values
    both = AdaptiveBands(calibrated, 0).predict(past, HORIZON, QUANTILES)
    np.testing.assert_allclose(both.uncalibrated, raw, rtol=1e-6)


def test_readings_that_were_learnt_from_say_nothing() -> None:
    past = make_past(ending_in(noise(72, spread=5.0)))
    rows = int(past.cutoff[0])

    assert widths(past, untrained_from_row=rows) == pytest.approx(1.0)
    assert widths(past, untrained_from_row=rows - HORIZON + 1) == pytest.approx(1.0)
    assert widths(past, untrained_from_row=rows - HORIZON)[0] > 1.2
    assert widths(past, untrained_from_row=rows - 3 * HORIZON)[0] > 1.5


def test_after_a_shift_of_the_level_the_band_is_wider_but_not_without_bound() -> None:
    for n_since, least in ((2 * HORIZON, 1.5), (6 * HORIZON, 2.0)):
        (factor,) = widths(make_past(ending_in(noise(n_since) + 25)))
        assert least < factor < 3


def test_earlier_forecasts_know_at_least_half_of_the_readings() -> None:
    assert widths(make_past(make_panel(noise(2 * HORIZON - 1, spread=9.0))))[0] == pytest.approx(1)
    assert widths(make_past(make_panel(noise(2 * HORIZON, spread=9.0))))[0] > 1.2
    assert widths(make_past(make_panel(noise(0), noise(1))))[1] == pytest.approx(1)


def test_many_origins_are_adapted_as_each_alone() -> None:
    panel = make_panel(noise(300, spread=2.0), noise(260, seed=1, spread=0.4))
    series = np.repeat([0, 1], 20)
    cutoff = np.concatenate([np.arange(60, 300, 12), np.arange(30, 250, 11)])
    past = Past(panel, series=series, cutoff=cutoff)

    together = bands(past)
    alone = [bands(past.alone(i))[0] for i in range(past.n_origins)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_missing_readings_count_for_nothing() -> None:
    values = noise(WINDOWS * HORIZON, seed=2, spread=3.0)
    late = values.copy()
    late[:-HORIZON] = np.nan
    nothing = np.full(WINDOWS * HORIZON, np.nan)

    all_six, one, none = (widths(make_past(ending_in(v)))[0] for v in (values, late, nothing))
    assert all_six > one > 1.1
    assert none == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_readings_that_equal_many_quantiles_do_not_narrow_the_others(share: float) -> None:
    low = np.zeros((1, 40, len(QUANTILES)))
    low[..., 7:] = np.arange(1, 5)  # q70 is 0, q90 is 3
    actual = np.where(np.arange(40) < share * 40, 2.0, 0.0)[None]

    ratios = _in_half_widths(low, actual)
    assert _scale(ratios[:, None]) == pytest.approx(1.0)


def test_a_closed_band_says_nothing() -> None:
    closed = np.full((1, 5, len(QUANTILES)), 7.0)
    assert np.isnan(_in_half_widths(closed, np.array([[7.0, 7, 8, 6, np.nan]]))).all()


def test_distances_are_those_of_a_slow_obvious_reference() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(rng.integers(0, 6, (50, 4, len(QUANTILES))), axis=-1).astype(float)
    actual = rng.integers(-1, 8, (50, 4)).astype(float)
    actual[rng.random((50, 4)) < 0.2] = np.nan

    found = _in_half_widths(values, actual)
    for window, lead in np.ndindex(found.shape):
        low, middle, high = (float(values[window, lead, i]) for i in (1, 5, 9))
        reading = float(actual[window, lead])
        half = middle - low if reading < middle else high - middle
        if np.isnan(reading) or low == high:
            expected = np.nan
        elif half == 0:
            expected = 1 + abs(reading - middle) / (high - low) if reading != middle else 1.0
        elif reading == middle and low == middle:
            expected = 1.0
        else:
            expected = abs(reading - middle) / half
        np.testing.assert_allclose(found[window, lead], expected)


def test_the_factor_is_that_of_a_slow_obvious_reference() -> None:
    rng = np.random.default_rng(1)
    ratios = rng.gamma(1.0, 1.0, (30, WINDOWS, 8))
    ratios[rng.random(ratios.shape) < rng.random((30, 1, 1))] = np.nan
    ratios[0] = np.nan

    found = _scale(ratios)
    for origin in range(30):
        known = ratios[origin][np.isfinite(ratios[origin])]
        if not len(known):
            assert found[origin] == 1
            continue
        needed = np.quantile(known, 0.82, method="hazen")
        windows = len(known) / 8
        weight = windows / (windows + 3)
        expected = np.exp(np.log(np.clip(needed, 1 / 3, 3)) * weight)
        assert found[origin] == pytest.approx(expected)
