"""Forecasts within bounds, and the probability of a reading above a limit."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from rnnforecast.data.forecast import (
    Forecast,
    interpolate_quantiles,
    probability_below,
    to_normal_scores,
)
from rnnforecast.data.windows import make_past
from rnnforecast.errors import UsageError
from rnnforecast.evaluate.postprocess import (
    add_exceedance,
    clip_to_bounds,
    is_outside_bounds,
    wrap_directions,
)
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, make_panel

HORIZON = 4
Z = np.array([NormalDist().inv_cdf(level) for level in QUANTILES])


def normal(*means: float, spread: float = 2.0, quantiles=QUANTILES) -> Forecast:
    """Forecast each series as normal around its mean, rising by one a step."""
    scores = np.array([NormalDist().inv_cdf(level) for level in quantiles])
    point = np.array(means)[:, None] + np.arange(HORIZON)
    values = (point[:, :, None] + spread * scores).astype(np.float32)
    names = tuple(f"s{i}" for i in range(len(means)))
    return Forecast(values, quantiles, names, np.full(len(means), START_US), HOUR_US)


@pytest.mark.parametrize("limit", [-30.0, 12.0, 15.0, 18.0, 21.5, 26.0, 40.0])
def test_probabilities_of_a_normal_forecast_are_exact_in_the_tails_too(limit: float) -> None:
    expected = [NormalDist(20 + lead, 2).cdf(limit) for lead in range(HORIZON)]

    found = probability_below(normal(20.0).values, QUANTILES, limit)[0]

    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("level", [0.025, 0.05, 0.1, 0.33, 0.5, 0.9, 0.95, 0.975])
def test_a_limit_at_a_quantile_is_exceeded_as_often_as_it_says(level: float) -> None:
    values = np.random.default_rng(0).exponential(size=(20, 3, 11)).cumsum(-1)
    limits = interpolate_quantiles(values, QUANTILES, [level])

    for i in range(20):
        found = probability_below(values[i : i + 1, :1], QUANTILES, float(limits[i, 0, 0]))
        assert found.item() == pytest.approx(level, abs=1e-6)


def test_probabilities_rise_with_the_limit_and_stay_between_zero_and_one() -> None:
    values = np.random.default_rng(1).exponential(size=(1, 1, 11)).cumsum(-1)
    limits = np.linspace(-20, 40, 300)
    found = np.array([probability_below(values, QUANTILES, x).item() for x in limits])

    assert (np.diff(found) >= 0).all()
    assert 0 <= found[0] < 1e-6
    assert 1 - 1e-6 < found[-1] <= 1


def test_a_constant_is_above_what_is_less_and_not_above_itself() -> None:
    flat = np.full((1, 1, 11), 7.0)
    assert [1 - probability_below(flat, QUANTILES, x).item() for x in (6.9, 7.0, 7.1)] == [1, 0, 0]


def test_what_is_missing_has_no_score() -> None:
    values = normal(20.0).values
    readings = np.array([[np.nan, 21.0, 22.0, 23.0]])
    assert np.isnan(to_normal_scores(values, QUANTILES, readings)).tolist() == [
        [True] + [False] * 3
    ]
    assert np.isnan(to_normal_scores(values * np.nan, QUANTILES, readings)).all()


def test_scores_do_not_depend_on_units() -> None:
    values = normal(20.0).values.astype(np.float64)
    readings = np.array([[19.0, 25.0, 21.0, 10.0]])
    first = to_normal_scores(values, QUANTILES, readings)
    np.testing.assert_allclose(
        to_normal_scores(1e3 * values + 5, QUANTILES, 1e3 * readings + 5), first
    )
    np.testing.assert_allclose(first[0], [-0.5, 2.0, -0.5, -6.5], rtol=1e-4)


def test_bounds_hold_every_quantile_and_touch_nothing_else() -> None:
    forecast = normal(20.0, 20.0)
    found = clip_to_bounds(forecast, {"s0": (19.0, 22.0)})

    assert found.values[0].min() == 19
    assert found.values[0].max() == 22
    assert (np.diff(found.values, axis=-1) >= 0).all()
    np.testing.assert_array_equal(found.values[1], forecast.values[1])
    assert found.values.dtype == np.float32
    assert clip_to_bounds(forecast, {}) is forecast


def test_a_long_tables_column_means_all_its_series() -> None:
    found = clip_to_bounds(normal(20.0, 30.0), {"temp": (-np.inf, 21.0)}, ("temp",))
    assert found.values.max() == 21


def test_nothing_exceeds_its_bound() -> None:
    bounds = {"s0": (0.0, 22.0)}
    forecast = clip_to_bounds(normal(20.0), bounds)
    for limit, expected in ((22.0, 0.0), (25.0, 0.0), (-1.0, 1.0)):
        found, _ = add_exceedance(forecast, {"s0": limit}, bounds)
        assert found.p_exceed is not None
        assert set(found.p_exceed.ravel()) == {expected}


def test_the_first_time_is_the_first_that_is_more_likely_than_not() -> None:
    found, (one,) = add_exceedance(normal(20.0, 5.0), {"s0": 21.5}, {})

    assert (one.series, one.limit) == ("s0", 21.5)
    assert one.first == "2024-01-01 03:00:00"
    assert one.at == "2024-01-01 04:00:00"
    assert one.highest == pytest.approx(1 - NormalDist(23, 2).cdf(21.5), abs=1e-6)
    assert found.p_exceed is not None
    assert np.isnan(found.p_exceed[1]).all()
    assert found.to_arrow()["p_exceed"].null_count == HORIZON


def test_a_limit_that_is_never_likely_has_no_first_time() -> None:
    _, (one,) = add_exceedance(normal(20.0), {"s0": 90.0}, {})
    assert one.first is None
    assert one.highest < 1e-6


@pytest.mark.parametrize("call", [clip_to_bounds, lambda f, names: add_exceedance(f, names, {})])
def test_an_unknown_name_is_a_usage_error_that_names_the_nearest(call) -> None:
    with pytest.raises(UsageError, match="names 's00'") as caught:
        call(normal(20.0), {"s00": (0.0, 1.0)})
    assert caught.value.hint == "did you mean 's0'?"


def test_readings_outside_of_their_bounds_are_found() -> None:
    past = make_past(make_panel([1.0, 5.0], [1.0, np.nan], [5.0, 1.0]))
    found = is_outside_bounds(
        replace(normal(1.0, 1.0, 1.0)), past, dict.fromkeys(("s0", "s1", "s2"), (0.0, 4.0))
    )
    assert found.tolist() == [True, False, False]


def test_medians_of_directions_lie_within_a_turn_and_quantiles_move_with_them() -> None:
    forecast = normal(358.0, 358.0, -1.0)

    wrapped = wrap_directions(forecast, ["s0", "s2"])

    np.testing.assert_allclose(wrapped.point[0], [358, 359, 0, 1], atol=1e-3)
    np.testing.assert_allclose(wrapped.point[2], [359, 0, 1, 2], atol=1e-3)
    turns = (forecast.values - wrapped.values) / 360
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-6)
    assert (np.diff(wrapped.values, axis=-1) >= 0).all()
    assert wrapped.values[1].tolist() == forecast.values[1].tolist()
    signed = wrap_directions(forecast, ["s0", "s2"], signed=["s0"])
    np.testing.assert_allclose(signed.point[:, 0], [-2, 358, 359], atol=1e-3)
    whole = wrap_directions(forecast, ["v"], ("v",))
    assert whole.point.min() >= 0
    assert whole.point.max() < 360
