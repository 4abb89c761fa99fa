"""Inputs of the network: against loops, and laws that hold for any readings."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnforecast.data.season import Seasons
from rnnforecast.model.experts import NAMES
from rnnforecast.model.inputs import Inputs, Places, SeriesInputs, window_inputs
from rnnforecast.spec import CONTEXT_ROWS, N_BEFORE, N_EXPERTS, N_FACTS, N_SHOWN, n_inputs
from tests.builders import random_walk
from tests.data.tables import few
from tests.model.test_experts import EXTREMES, sensor

SEGMENT, N_AHEAD = 16, 3
FIRST_FACT = (N_BEFORE + N_SHOWN + 1) * SEGMENT
"""Place of the first fact, after what was read, what experts say, and the deviation."""
AGE, AGE_IN_SEASONS, N_SEEN, SEASON, HAS_SEASON, HAS_LONG, IS_BLIND, N_JUDGED = range(13, 21)
SEASONS = [Seasons(), Seasons(8), Seasons(8, 24), Seasons(24)]


def inputs_of(*series: object, seasons: object = None) -> SeriesInputs:
    chosen = seasons or [SEASONS[i % len(SEASONS)] for i in range(len(series))]
    return SeriesInputs(np.stack(series), chosen, SEGMENT, n_ahead=N_AHEAD)


def ahead_of(inputs: SeriesInputs, boundary: int | None = None) -> Inputs:
    n = len(inputs.center)
    boundaries = np.full(n, inputs.n_segments if boundary is None else boundary)
    return inputs.ahead(np.arange(n), boundaries, N_AHEAD)


def assert_equal(one: Inputs, other: Inputs, **tolerance: float) -> None:
    for name in ("values", "experts", "gain", "level", "spread"):
        pair = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(*pair, err_msg=name, **tolerance)


def test_shapes_are_those_of_the_network() -> None:
    inputs = inputs_of(*(sensor(seed=seed) for seed in range(4)))
    n = inputs.n_segments

    for part, n_segments in ((inputs.history, n), (ahead_of(inputs), N_AHEAD)):
        assert part.values.shape == (4, n_segments, n_inputs(SEGMENT))
        assert part.experts.shape == (4, n_segments, N_EXPERTS, SEGMENT)
        assert part.gain.shape == part.level.shape == part.spread.shape == (4, n_segments)
        assert part.values.dtype == part.experts.dtype == np.float32
    assert n == 12 and n_inputs(SEGMENT) == FIRST_FACT + N_FACTS + 2 * N_EXPERTS


def test_what_was_read_and_the_facts_are_those_of_loops_over_rows() -> None:
    series = sensor(192, missing=0.0)
    series[100:110] = np.nan
    inputs = inputs_of(series, seasons=[Seasons(8)])
    history = inputs.history
    y = (series - np.median(series[np.isfinite(series)])).tolist()

    for i in (1, 3, 9, 11):
        level, spread = float(history.level[0, i]), float(history.spread[0, i])
        read = history.values[0, i, : 4 * SEGMENT].reshape(4, SEGMENT)
        for k in range(SEGMENT):
            t = SEGMENT * (i - 1) + k
            is_seen = not math.isnan(y[t])
            assert read[1, k] == is_seen
            value = math.asinh((y[t] - level) / spread) if is_seen else 0.0
            assert read[0, k] == pytest.approx(value, rel=1e-5, abs=1e-6)
            before = SEGMENT * (i - 1) - 8 + k % 8
            if i > 1 and is_seen and not math.isnan(y[before]):
                value = math.asinh((y[t] - y[before]) / spread)
                assert read[2, k] == pytest.approx(value, rel=1e-5, abs=1e-6)

        facts = history.values[0, i, FIRST_FACT : FIRST_FACT + N_FACTS]
        seen = [t for t in range(SEGMENT * i) if not math.isnan(y[t])]
        past = [y[t] for t in seen]
        differences = {0: past[-1], 5: sum(past) / len(past), 6: min(past), 7: max(past)}
        for place, value in differences.items():
            expected = math.asinh((value - level) / spread)
            assert facts[place] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        age = SEGMENT * i - 1 - seen[-1]
        assert facts[AGE] == pytest.approx(0.5 * math.log1p(age))
        assert facts[AGE_IN_SEASONS] == pytest.approx(0.5 * math.log1p(age / 8))
        assert facts[N_SEEN] == pytest.approx(0.5 * math.log1p(len(seen) / 8))
        assert facts[SEASON] == pytest.approx(0.3 * math.log(8))
        assert facts[N_JUDGED] == pytest.approx(0.3 * math.log1p(i - 1))
        assert facts[[HAS_SEASON, HAS_LONG, IS_BLIND]].tolist() == [1, 0, 0]


def test_the_unit_is_the_least_error_of_an_expert_and_experts_are_less_the_level() -> None:
    series = sensor(192, missing=0.0)
    history = inputs_of(series, seasons=[Seasons(8)]).history
    y = series - np.median(series)

    last = NAMES.index("last")
    for i in (1, 5, 11):
        value = (y[SEGMENT * i - 1] - history.level[0, i]) / history.spread[0, i]
        np.testing.assert_allclose(history.experts[0, i, last], value, rtol=1e-5)
        np.testing.assert_allclose(history.experts[0, i, NAMES.index("level")], 0, atol=1e-6)
    logs = history.values[0, 2:, FIRST_FACT + N_FACTS : FIRST_FACT + N_FACTS + N_EXPERTS]
    is_best = history.gain[0, 2:] < 1  # else all are worse than the spread
    np.testing.assert_allclose(logs.min(1)[is_best], 0, atol=1e-6)
    assert is_best.any() and (logs >= -1e-6).all()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_first_segment_ahead_is_that_of_a_history_at_the_same_boundary(missing: float) -> None:
    inputs = inputs_of(*(sensor(seed=seed, missing=missing) for seed in range(4)))

    for boundary in (0, 1, 5, inputs.n_segments - 1):
        ahead = ahead_of(inputs, boundary).apply(lambda values: values[:, 0])
        assert_equal(ahead, inputs.history.apply(lambda v, i=boundary: v[:, i]), atol=1e-6)


def test_ahead_nothing_is_read_and_the_age_grows_and_the_rest_stays() -> None:
    series = sensor(192, missing=0.0)
    ahead = ahead_of(inputs_of(series, seasons=[Seasons(8)]))

    assert ahead.values[0, 0, SEGMENT : 2 * SEGMENT].all()
    assert not ahead.values[0, 1:, : 4 * SEGMENT].any()
    facts = ahead.values[0, :, FIRST_FACT : FIRST_FACT + N_FACTS]
    ages = np.arange(N_AHEAD) * SEGMENT
    np.testing.assert_allclose(facts[:, AGE], 0.5 * np.log1p(ages), rtol=1e-6)
    np.testing.assert_allclose(facts[:, AGE_IN_SEASONS], 0.5 * np.log1p(ages / 8), rtol=1e-6)
    rest = np.delete(facts, [AGE, AGE_IN_SEASONS], axis=1)
    assert (rest == rest[0]).all() and (ahead.level == ahead.level[0, 0]).all()
    seasonal = ahead.experts[0, :, NAMES.index("season")]
    np.testing.assert_allclose(seasonal, np.tile(seasonal[0], (N_AHEAD, 1)), rtol=1e-5)


@settings(few, max_examples=12)
@given(st.integers(1, 11), st.integers(0, 2**32), st.sampled_from(SEASONS))
def test_no_reading_after_a_boundary_changes_its_inputs(
    boundary: int, seed: int, seasons: Seasons
) -> None:
    series = sensor(192, missing=0.1)
    changed = series.copy()
    after = slice(boundary * SEGMENT, None)
    shape = changed[after].shape
    changed[after] = np.random.default_rng(seed).choice([np.nan, -50.0, 0.0, 1e4], shape)
    one, other = (inputs_of(x, seasons=[seasons]) for x in (series, changed))

    # levels are less the center of all readings, and all before the first reading is that center
    known = slice(1, boundary + 1)
    move = one.center - other.center
    for mine, its in (
        (one.history.apply(lambda v: v[:, known]), other.history.apply(lambda v: v[:, known])),
        (ahead_of(one, boundary), ahead_of(other, boundary)),
    ):
        for name in ("values", "experts", "gain", "spread"):
            pair = getattr(mine, name), getattr(its, name)
            np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(mine.level + move, its.level, rtol=1e-6, atol=1e-6)


def test_units_scale_with_the_readings_and_inputs_do_not() -> None:
    series = [sensor(seed=0), sensor(seed=1), random_walk(190).astype(float), sensor(seed=3)]
    inputs, scaled = inputs_of(*series), inputs_of(*(1000 * x for x in series))

    for one, other, first in (
        (inputs.history, scaled.history, 1),
        (ahead_of(inputs), ahead_of(scaled), 0),
    ):
        for name in ("values", "experts", "gain"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1e-4)
        for name in ("level", "spread"):  # before the first reading nothing has a unit
            pair = getattr(other, name)[:, first:], 1000 * getattr(one, name)[:, first:]
            np.testing.assert_allclose(*pair, rtol=1e-7)


def test_series_have_the_same_inputs_in_any_order_and_alone() -> None:
    series = [sensor(seed=seed) for seed in range(6)]
    seasons = [SEASONS[i] for i in (0, 2, 1, 2, 0, 3)]
    together = inputs_of(*series, seasons=seasons)
    order = np.array([4, 2, 5, 0, 1, 3])
    permuted = inputs_of(*(series[i] for i in order), seasons=[seasons[i] for i in order])

    def of(inputs: Inputs, numbers: np.ndarray) -> Inputs:
        return inputs.apply(lambda values: values[numbers])

    assert_equal(permuted.history, of(together.history, order), rtol=1e-6)
    assert_equal(ahead_of(permuted), of(ahead_of(together), order), rtol=1e-6)
    np.testing.assert_array_equal(permuted.center, together.center[order])
    for number, readings in enumerate(series):
        alone = inputs_of(readings, seasons=[seasons[number]])
        chosen = np.array([number])
        assert_equal(alone.history, of(together.history, chosen), rtol=1e-5, atol=1e-6)
        assert_equal(ahead_of(alone), of(ahead_of(together), chosen), rtol=1e-5, atol=1e-6)

    # origins in any order, some of one series
    which, boundary = np.array([3, 0, 3, 5]), np.array([12, 4, 2, 7])
    mixed = together.ahead(which, boundary, N_AHEAD)
    for window in range(4):
        part = slice(window, window + 1)
        single = together.ahead(which[part], boundary[part], N_AHEAD)
        assert_equal(single, mixed.apply(lambda v, part=part: v[part]), rtol=1e-6)


@pytest.mark.parametrize("n_rows", [96, 93])
def test_windows_that_end_in_one_stretch_have_the_inputs_that_they_have_alone(n_rows: int) -> None:
    segment, n_ahead = 8, 2
    readings = np.stack([sensor(n_rows, seed=seed) for seed in range(3)])
    seasons = [Seasons(), Seasons(8), Seasons(8, 24)]
    places = Places.at_end(3, n_rows, segment, n_ahead=n_ahead, n_origins=4)
    assert places.boundary.tolist() == [12, 11, 10, 9] * 3
    assert places.stretch.tolist() == [0] * 4 + [1] * 4 + [2] * 4

    history, ahead = window_inputs(readings, seasons, segment, places)

    assert history.gain.shape == (3, 12)
    for window, (stretch, boundary) in enumerate(zip(places.stretch, places.boundary, strict=True)):
        n_seen = n_rows - (12 - boundary) * segment
        single = Places.at_end(1, n_seen, segment, n_ahead=n_ahead)
        part = readings[stretch, None, :n_seen]
        alone = window_inputs(part, [seasons[stretch]], segment, single)
        # the level before the first reading is that of all, and counts for nothing
        known = history.apply(lambda v, s=stretch, b=boundary: v[s, None, 1:b])
        assert_equal(known, alone[0].apply(lambda v: v[:, 1:]), rtol=1e-4, atol=1e-4)
        own = ahead.apply(lambda v, w=window: v[w, None])
        assert_equal(own, alone[1], rtol=1e-4, atol=1e-4)


def test_places_do_not_lie_before_the_first_segment() -> None:
    places = Places.at_end(1, 20, 16, n_ahead=2, n_origins=8)
    assert places.boundary.tolist() == [2, 1, 0, 0, 0, 0, 0, 0]
    assert (places.first, places.n_history) == (0, 2)
    assert places.state.tolist() == places.boundary.tolist()
    assert places.ahead[[0, 2]].tolist() == [[2, 3], [0, 1]]


@pytest.mark.parametrize("n_origins", [1, 2, 8])
def test_the_recurrence_runs_over_the_context_of_the_earliest_window_and_all_after_it(
    n_origins: int,
) -> None:
    places = Places.at_end(1, 16 * 100, 16, n_ahead=3, n_origins=n_origins)
    assert places.boundary.tolist() == [100 - 3 * i for i in range(n_origins)]
    assert (places.boundary[-1] - places.first) * 16 == CONTEXT_ROWS
    assert places.first + places.n_history == 100
    assert (places.first + places.state == places.boundary).all()
    assert places.ahead[0].tolist() == [100, 101, 102]
    # as long as there are as many segments
    few_rows = Places.at_end(1, CONTEXT_ROWS + 5, 16, n_ahead=3, n_origins=n_origins)
    assert few_rows.first == (1 if n_origins == 1 else 0)


@pytest.mark.parametrize("seasons", [*SEASONS, Seasons(40, 1000)])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_readings_have_finite_inputs(name: str, seasons: Seasons) -> None:
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        inputs = inputs_of(np.array(EXTREMES[name]), seasons=[seasons])
        parts = [inputs.history, ahead_of(inputs), ahead_of(inputs, 0)]

    for part in parts:
        assert np.isfinite(part.values).all() and np.abs(part.values).max() < 100
        assert np.isfinite(part.experts).all() and (part.spread > 0).all()
        assert (part.gain > 0).all() and (part.gain <= 1).all()
