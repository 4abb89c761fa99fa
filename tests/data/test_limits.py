"""Limits that readings rest on are found, and what was merely never crossed is none."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.data.limits import Limited, Limits, fit_limits, with_limits
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.spec import QUANTILES
from tests.builders import make_panel, wave
from tests.data.sensors import DAY, SENSORS, N

INF = np.inf
EXPECTED = {
    "solar": (0, INF),
    "rain": (0, INF),
    "downpours": (0, INF),
    "compressor": (0, INF),
    "valve": (0, 100),
    "valve in steps": (0, 100),
    "contact": (0, 1),
    "spare parts": (0, INF),
    "people": (0, INF),
    "humidity": (-INF, 100),
}


def limits_of(*series: object) -> list[tuple[float, float]]:
    limits = fit_limits(make_past(make_panel(*series)))
    return list(zip(limits.low.tolist(), limits.high.tolist(), strict=True))


@pytest.mark.parametrize("name", SENSORS)
def test_a_sensor_has_the_limits_that_it_rests_on(name):
    series = [SENSORS[name](np.random.default_rng(seed)) for seed in range(1, 8)]
    assert limits_of(*series) == [EXPECTED.get(name, (-INF, INF))] * 7


@pytest.mark.parametrize("mean", [0.3, 1, 2, 3])
def test_counts_have_a_floor_at_zero(mean):
    assert limits_of(np.random.default_rng(0).poisson(mean, 1000)) == [(0, INF)]


@pytest.mark.parametrize("step", [0.1, 0.5, 1, 2])
@pytest.mark.parametrize("at_zero", [True, False])
def test_the_lowest_reading_of_a_summer_is_no_floor_however_coarse(step, at_zero):
    rng = np.random.default_rng(1)
    readings = wave(N, season=DAY, noise=0.5) + 2 * rng.standard_normal(N // DAY).repeat(DAY)
    readings = np.round(readings / step) * step
    if at_zero:
        readings -= readings.min()
    assert limits_of(readings, np.round(np.sin(np.arange(N) / 9), 1)) == [(-INF, INF)] * 2


def test_a_limit_needs_500_readings_two_percent_at_it_and_none_beyond():
    rain = SENSORS["rain"](np.random.default_rng(0))
    humidity = SENSORS["humidity"](np.random.default_rng(0))
    assert limits_of(humidity[:500], humidity[:499]) == [(-INF, 100), (-INF, INF)]
    rain[7] = -0.1
    assert limits_of(rain) == [(-INF, INF)]

    rare = 10 + np.random.default_rng(0).exponential(5, 1000)
    rare[10:29] = 0
    rare[5] = 0
    assert limits_of(rare) == [(0, INF)]
    rare[28] = 12
    assert limits_of(rare) == [(-INF, INF)]
    assert limits_of(np.full(1000, 5.0), np.full(1000, np.nan)) == [(-INF, INF)] * 2


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("n_rows", [24, 72, 240, 480])
def test_few_readings_have_a_floor_only_where_many_have_it(name, n_rows):
    series = [SENSORS[name](np.random.default_rng(seed)) for seed in range(1, 8)]
    expected = EXPECTED.get(name, (-INF, INF))
    found = limits_of(*(readings[i * 40 : i * 40 + n_rows] for i, readings in enumerate(series)))
    assert all(low in (-INF, expected[0]) and high in (INF, expected[1]) for low, high in found)
    if name in {"solar", "rain"} and n_rows >= 240:
        assert found == [expected] * 7


def test_few_readings_have_a_floor_at_a_frequent_zero():
    rng = np.random.default_rng(0)
    flow = np.where(rng.random(100) < 0.06, 0, 10 + rng.exponential(5, 100).round(2))
    n_zeros = np.count_nonzero(flow == 0)
    assert n_zeros >= 5
    assert (
        limits_of(flow, flow - 20, np.where(flow == 0, -1, flow)) == [(0, INF)] + [(-INF, INF)] * 2
    )
    flow[flow == 0] = np.where(np.arange(n_zeros) < 4, 0, 10)
    assert limits_of(flow) == [(-INF, INF)]  # too few zeros
    whole_degrees = np.round(3 + 3 * np.sin(np.arange(96) / 4))
    assert whole_degrees.min() == 0
    assert limits_of(whole_degrees) == [(-INF, INF)]
    assert limits_of(np.tile([0, 0, 1, 0], 20)) == [(0, 1)]
    assert limits_of(np.zeros(80), np.repeat([0.0, 3, 2, 4], 20)) == [(-INF, INF)] * 2


def switched(states: list[float], shares: list[float], n_rows: int = 1400) -> np.ndarray:
    """Make a sensor that stays in each state for 3 to 20 rows."""
    rng = np.random.default_rng(2)
    state = rng.choice(states, n_rows, p=shares)
    return np.repeat(state, rng.integers(3, 20, n_rows))[:n_rows]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("states", [[0, 1], [0, 100], [16, 21], [1, 2], [50, 100], [20.3, 21.7]])
def test_two_states_are_limits_however_often_each_is_taken(states, share):
    (limits,) = limits_of(switched(states, [share, 1 - share]))
    assert limits == pytest.approx(tuple(states), rel=1e-6)


def test_a_few_states_are_limits_where_readings_jump_between_them():
    assert limits_of(switched([0, 50, 100], [0.2, 0.2, 0.6])) == [(0, 100)]
    assert limits_of(switched([1, 2, 3, 5], [0.25] * 4)) == [(1, 5)]
    in_turn = np.tile(np.repeat([20.0, 21, 22, 21], 5), 70)
    assert limits_of(in_turn) == [(-INF, INF)]


def test_two_values_of_a_coarse_scale_or_a_short_history_are_no_limits():
    room = np.round(20.4 + 0.4 * np.sin(np.arange(1400) / 9))
    flickering = np.where(np.random.default_rng(0).random(1400) < 0.5, 16.0, 21.0)
    short = switched([16, 21], [0.5, 0.5], n_rows=300)
    assert set(room) == {20, 21}
    assert limits_of(room, flickering, short) == [(-INF, INF)] * 3


def test_a_limit_is_come_to_again_and_again():
    meter = np.cumsum(np.random.default_rng(0).integers(0, 2, 1000)).astype(float)
    meter[900:] = meter[900]
    started = np.where(np.arange(1000) < 300, 0, wave(1000))
    assert limits_of(meter, started) == [(-INF, INF)] * 2
    for floor, n in ((0, 2), (7, 5)):
        stopped = wave(1000)
        for begin in range(0, n * 150, 150):
            stopped[begin : begin + 12] = floor
        assert limits_of(stopped) == [(floor, INF)]
        stopped[:12] = 20
        assert limits_of(stopped) == [(-INF, INF)]


def test_limits_rest_on_the_readings_before_the_cutoff():
    rain = SENSORS["rain"](np.random.default_rng(0))
    later = rain.copy()
    later[1500:] = -5
    past = make_past(make_panel(rain, later), np.array([1500, 1500]))
    assert fit_limits(past).low.tolist() == [0, 0]


def rained(cutoff: int = 1500) -> tuple[Past, Limits]:
    rng = np.random.default_rng(0)
    past = make_past(
        make_panel(SENSORS["rain"](rng), wave(N), SENSORS["valve"](rng)),
        np.array([cutoff, cutoff, cutoff]),
    )
    return past, fit_limits(past)


@pytest.mark.parametrize("method", [naive(), SeasonalNaive(DAY)])
def test_every_quantile_stays_inside_and_series_without_a_limit_are_as_before(method):
    past, limits = rained()
    before = method.predict(past, 48, QUANTILES)
    inside = Limited(method, limits).predict(past, 48, QUANTILES)

    assert before.values[0].min() < 0
    assert inside.values[0].min() == 0
    assert inside.values[2].min() >= 0 and inside.values[2].max() <= 100
    assert (np.diff(inside.values, axis=-1) >= 0).all()
    np.testing.assert_array_equal(inside.values[1], before.values[1])
    np.testing.assert_array_equal(inside.values[0], np.maximum(before.values[0], 0))


def test_a_reading_beyond_a_limit_disproves_it():
    past, limits = rained()
    panel = past.panel_at_cutoffs()
    panel.target[1490] = -3
    low, high = limits.of(make_past(panel), 48)
    assert low.tolist() == [-INF, -INF, 0]
    assert high.tolist() == [INF, INF, 100]
    low, _ = limits.of(make_past(panel), 5)
    assert low[0] == 0


def test_series_are_matched_by_name_and_unknown_ones_have_no_limit():
    past, limits = rained()
    renamed = Limits(("s2", "gone", "s0"), limits.low, limits.high)
    low, high = renamed.of(past, 1)
    assert low.tolist() == [0, -INF, 0]
    assert high.tolist() == [100, INF, INF]


def metered(n_rows: int = 600) -> np.ndarray:
    """Make a run-hour meter of a machine with two shifts and free days."""
    rng = np.random.default_rng(3)
    hour = np.arange(n_rows)
    runs = (hour % 24 < 16) & (hour // 24 % 7 < 5)
    return 5000 + np.cumsum(runs * rng.uniform(0.9, 1, n_rows).round(1))


def test_a_total_that_never_falls_is_forecast_so():
    total = metered()
    past = make_past(make_panel(total, wave(600)))
    limits = fit_limits(past)
    assert limits.rises is not None and limits.rises.tolist() == [True, False]
    assert limits.describe() == "s0 never falling"

    before = naive().predict(past, 48, QUANTILES)
    inside = Limited(naive(), limits).predict(past, 48, QUANTILES)
    assert before.values[0].min() < total[-1] - 0.1
    assert inside.values[0].min() >= np.float32(total[-1])
    assert (np.diff(inside.values[0], axis=0) >= 0).all()
    assert (np.diff(inside.values, axis=-1) >= 0).all()
    np.testing.assert_array_equal(inside.values[1], before.values[1])

    panel = past.panel_at_cutoffs()
    panel.target[590:600] -= 300  # a new meter
    assert limits.of(make_past(panel), 48)[0].tolist() == [-INF, -INF]


def test_what_resets_or_rises_along_a_curve_or_too_short_is_no_such_total():
    total, rows = metered(), np.arange(600)
    resets = np.where(rows < 300, total, total - total[299])
    dip = total.copy()
    dip[200] -= 3
    warming = 80 - 60 * np.exp(-rows / 200)
    series = (resets, dip, warming, rows * 1.0, metered(90), total - 5100)
    assert fit_limits(make_past(make_panel(*series))).rises is None


def test_limits_are_said_in_words_by_range():
    limits = Limits(("a", "b", "c", "d"), np.array([0, 0, 0, -INF]), np.array([INF, 100, INF, INF]))
    assert limits.describe() == "a, c 0 or more; b 0 to 100"
    nothing = Limits(("a",), np.array([-INF]), np.array([INF]))
    assert with_limits(naive(), nothing) == naive()
    assert with_limits(naive(), None) == naive()
