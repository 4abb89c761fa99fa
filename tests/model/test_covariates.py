"""Covariates: how they are cut into segments, how series react to them, and what that gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.panel import Covariates, FeatureBlock, Features
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Past, make_past
from rnnforecast.model import fitting
from rnnforecast.model.experts import Experts
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.inputs import Places, Reaction, covariate_inputs, standardise, window_inputs
from rnnforecast.model.network import Network
from rnnforecast.spec import MemberSpec, n_covariate_inputs
from tests.builders import make_panel, make_spec, wave
from tests.model.networks import (
    DAY,
    HORIZON,
    LOOKBACK,
    forecast_by,
    make_history,
    make_network,
    sensor_windows,
)

SEES = MemberSpec("gru", 4, 1, 4, covariates=True)
BLIND = replace(SEES, covariates=False)
SIZES = [(2, 3, 1), (1, 0, 0), (0, 2, 0), (0, 0, 2)]


def make_features(
    sizes: tuple[int, int, int] = (2, 3, 1), *, n: int = 3, missing: float = 0.1
) -> Features:
    rng = np.random.default_rng(0)
    n_known, n_past, n_static = sizes
    shapes = (n, n_known, LOOKBACK + HORIZON), (n, n_past, LOOKBACK), (n, n_static)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    for array in arrays:
        array[rng.random(array.shape) < missing] = np.nan
    return Features(*arrays)


# Standardised


def test_covariates_are_standardised_by_kind_and_far_ones_are_brought_nearer() -> None:
    features = Features(
        np.full((2, 1, 9), 9.0, np.float32),
        np.full((2, 1, 5), -4.0, np.float32),
        np.full((2, 1), 1e9, np.float32),
    )
    mean, scale = np.array([5.0, -3.0, 10.0]), np.array([2.0, 0.5, 1.0])
    known, past, static = standardise(features, mean, scale)
    assert (known == 2).all() and (past == -2).all() and (static == 10).all()


def test_a_missing_covariate_repeats_the_last_one_or_is_the_mean() -> None:
    features = make_features()
    n = sum(x.shape[1] for x in features)
    known, past, static = standardise(features, np.full(n, 0.5), np.full(n, 2.0))
    for found, given in ((known, features.known), (past, features.past)):
        for window, feature in np.ndindex(*given.shape[:2]):
            last = 0.0
            for row, value in enumerate(given[window, feature].tolist()):
                last = last if np.isnan(value) else (value - 0.5) / 2
                assert found[window, feature, row] == pytest.approx(last, abs=1e-6)
    expected = np.where(np.isnan(features.static), 0, (features.static - 0.5) / 2)
    np.testing.assert_allclose(static, expected, rtol=1e-6)


# Segments


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("segment", "n_origins", "context"), [(4, 1, 512), (5, 1, 512), (4, 3, 512), (5, 2, 11)]
)
def test_a_segment_has_the_covariates_of_its_rows_and_of_those_before(
    sizes: tuple[int, int, int], segment: int, n_origins: int, context: int, monkeypatch
) -> None:
    monkeypatch.setattr("rnnforecast.model.inputs.CONTEXT_ROWS", context)
    features = make_features(sizes, missing=0.0)
    n_ahead = -(-HORIZON // segment)
    places = Places.at_end(3, LOOKBACK, segment, n_ahead=n_ahead, n_origins=n_origins)
    known = features.known if sizes[0] else None
    readings = sensor_windows().astype(np.float64)
    inputs = window_inputs(readings, [DAY] * 3, segment, places, known)

    values = covariate_inputs(features, places, segment, *inputs)

    spec = replace(make_spec(LOOKBACK, HORIZON), n_known=sizes[0], n_past=sizes[1])
    spec = replace(spec, n_static=sizes[2])
    n_inputs = n_covariate_inputs(spec, segment)
    assert values[0].shape == (3, places.n_history, n_inputs)
    assert values[1].shape == (3 * n_origins, n_ahead, n_inputs)
    n_before = -LOOKBACK % segment

    def of(table: np.ndarray, number: int) -> list[float]:
        """Return the rows of a segment; 0 where there is no row."""
        rows = range(number * segment - n_before, (number + 1) * segment - n_before)
        return [
            float(feature[row]) if 0 <= row < len(feature) else 0.0
            for feature in table
            for row in rows
        ]

    def expected(stretch: int, number: int, boundary: int) -> list[float]:
        zeros = [0.0] * sizes[1] * segment
        return [
            *of(features.known[stretch], number - 1),
            *of(features.known[stretch], number),
            *(of(features.past[stretch], number - 1) if number <= boundary else zeros),
            *features.static[stretch],
        ]

    end = -(-LOOKBACK // segment)
    assert (places.n_history < end) == (context < LOOKBACK)
    for stretch in range(3):
        for i, row in enumerate(values[0][stretch], start=end - places.n_history):
            reference = expected(stretch, i, end)
            np.testing.assert_allclose(row[: len(reference)], reference, rtol=1e-6)
    for window, (stretch, boundary) in enumerate(zip(places.stretch, places.boundary, strict=True)):
        for i, row in enumerate(values[1][window], start=boundary):
            reference = expected(stretch, i, boundary)
            np.testing.assert_allclose(row[: len(reference)], reference, rtol=1e-6)


def test_no_past_covariate_after_the_cutoff_is_seen() -> None:
    """Of several windows in a stretch, too, each sees those before its cutoff alone."""
    features = make_features((0, 1, 0), n=1, missing=0.0)
    places = Places.at_end(1, LOOKBACK, 4, n_ahead=3, n_origins=3)
    inputs = window_inputs(sensor_windows(1).astype(np.float64), [DAY], 4, places)
    for window, boundary in enumerate(places.boundary):
        changed = features.past.copy()
        changed[..., boundary * 4 :] += 7
        before, after = (
            covariate_inputs(each, places, 4, *inputs)
            for each in (features, features._replace(past=changed))
        )
        assert np.array_equal(before[1][window], after[1][window])
        n_seen = places.state[window] + 1  # the first segment after the cutoff sees none of itself
        assert np.array_equal(before[0][:, :n_seen], after[0][:, :n_seen])
    assert not np.array_equal(before[0], after[0]), "the test needs changes that later ones see"


# Reaction


def driven_readings(n_rows: int, *, effect: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Return readings with a season of 8 rows that react to a covariate, and the covariate."""
    rng = np.random.default_rng(0)
    covariate = rng.normal(size=n_rows + 24)
    readings = wave(n_rows, season=8, noise=0.1) + effect * covariate[:n_rows]
    return readings.astype(np.float64), covariate


@pytest.mark.parametrize("seasons", [DAY, Seasons()])
def test_the_reaction_to_a_covariate_is_fitted_and_forecast(seasons: Seasons) -> None:
    readings, covariate = driven_readings(400)
    if seasons == Seasons():
        readings = readings - wave(400, season=8, noise=0.0) + 20
    experts = Experts(readings[None], seasons, 8)
    reaction = Reaction(experts, covariate[None, None])

    (added,) = reaction.forecast(np.zeros(1, int), np.array([[50]]), 24)[0]

    correlation = np.corrcoef(added, 3 * covariate[400:])[0, 1]
    slope = np.dot(added, covariate[400:]) / np.dot(covariate[400:], covariate[400:])
    assert correlation > 0.9
    assert slope == pytest.approx(3, abs=0.5)
    assert reaction.error[0, -1, 0] < 0.3 * np.abs(3 * covariate).mean() + 0.3


def test_the_reaction_is_a_ridge_regression_on_a_covariate_and_its_averages() -> None:
    """Without a season, all less the mean of the last twelve rows before each segment."""
    readings, covariate = driven_readings(80)
    readings[20:25] = np.nan
    experts = Experts(readings[None], Seasons(), 8)
    reaction = Reaction(experts, covariate[None, None])

    features = [covariate[:80].tolist()]
    for rows in (2.0, 8.0, 32.0):
        average, averages = covariate[0], []
        for value in covariate[:80]:
            average += (1 - np.exp(-1 / rows)) * (value - average)
            averages.append(average)
        features.append(averages)
    products, squares = np.zeros(4), np.zeros((4, 4))
    for row in range(80):
        begin = row // 8 * 8
        levels = [np.mean(x[max(begin - 12, 0) : begin]) if begin else 0.0 for x in features]
        values = np.array([x[row] - level for x, level in zip(features, levels, strict=True)])
        target = experts.remainder[0, row]
        if not np.isnan(target):
            products += target * values
            squares += np.outer(values, values)
    ridge = 1 + 0.01 * np.trace(squares) / 4
    expected = np.linalg.solve(squares + ridge * np.eye(4), products)

    np.testing.assert_allclose(reaction._coefficients[0, -1], expected, rtol=1e-6)


def test_no_later_reading_nor_covariate_changes_the_reaction_before_it() -> None:
    readings, covariate = driven_readings(160)
    changed_readings, changed = readings.copy(), covariate.copy()
    changed_readings[80:], changed[80:] = -50.0, 9.0
    first, second = (
        Reaction(Experts(y[None], DAY, 8), x[None, None])
        for y, x in ((readings, covariate), (changed_readings, changed))
    )
    # levels are less the center of all readings, which no difference depends on
    np.testing.assert_allclose(first.next_segment[:, :10], second.next_segment[:, :10], rtol=1e-5)


def test_a_series_that_reacts_to_nothing_is_forecast_without_a_reaction() -> None:
    readings, covariate = driven_readings(400, effect=0.0)
    reaction = Reaction(Experts(readings[None], DAY, 8), covariate[None, None])
    added = reaction.forecast(np.zeros(1, int), np.array([[50]]), 24)
    assert np.abs(added).max() < 0.3


@pytest.mark.parametrize("n_known", [1, 20, 40])
def test_many_covariates_are_bounded(n_known: int) -> None:
    readings, _ = driven_readings(80)
    known = np.random.default_rng(1).normal(size=(1, n_known, 104))
    reaction = Reaction(Experts(readings[None], DAY, 8), known)
    assert np.isfinite(reaction.forecast(np.zeros(1, int), np.array([[10]]), 24)).all()


# Networks


@pytest.mark.parametrize("sizes", SIZES)
def test_a_member_that_sees_covariates_depends_on_them_and_another_does_not(
    sizes: tuple[int, int, int],
) -> None:
    network = make_network(SEES, BLIND, n_features=sizes)
    readings, features = sensor_windows(), make_features(sizes)
    changed = Features(*(x + np.float32(0.5) for x in features))
    if sizes[0]:  # a constant is none of the reaction
        changed.known[:, 0] *= -2
    histories = [make_history(readings, features=each) for each in (features, changed)]
    sees, blind = (
        [forecast_by(network, member, history) for history in histories]
        for member in network.members
    )
    assert (np.abs(sees[1] - sees[0]).max((1, 2)) > 1e-4).all()
    assert np.array_equal(*blind)
    assert np.isfinite(sees).all()


def test_windows_with_covariates_are_forecast_as_they_are_alone() -> None:
    network = make_network(SEES, n_features=(2, 3, 1))
    readings, features = sensor_windows(), make_features()
    seasons = [DAY, Seasons(), DAY]
    history = replace(make_history(readings, features=features), seasons=seasons)
    together = network.forecast(history)
    for window in range(3):
        part = slice(window, window + 1)
        single = make_history(
            readings[part], seasons=seasons[window], features=Features(*(x[part] for x in features))
        )
        np.testing.assert_allclose(network.forecast(single)[0], together[window], rtol=1e-4)


# Training


@cache
def driven(
    n: int = 320, *, unit: float = 1.0, offset: float = 0.0, effect: Callable = lambda x: 3 * x
) -> Past:
    """Make a reading that a setpoint drives, written in some unit, to be forecast at 3/4."""
    rng = np.random.default_rng(0)
    setpoint = np.repeat(rng.normal(size=n // 4 + 10), 4)[: n + HORIZON].astype(np.float32)
    readings = 20 + effect(setpoint[:n]) + 0.1 * rng.normal(size=n)
    zero = np.zeros(1, np.int64)
    values = (unit * setpoint + offset)[None].astype(np.float32)
    known = FeatureBlock(values, ("setpoint",), zero, zero, zero + n + HORIZON)
    nothing = FeatureBlock(values[:0], (), zero, zero, zero)
    covariates = Covariates((known,), nothing, np.empty((1, 0), np.float32))
    return make_past(replace(make_panel(readings), covariates=covariates))


def fit(past: Past, *members: MemberSpec, steps: int = 10, validates: bool = True) -> RNNForecaster:
    spec = replace(make_spec(LOOKBACK, HORIZON, 1, 1, members=members), n_known=1)
    return fitting.fit(
        replace(past, cutoff=past.cutoff * 3 // 4),
        past if validates else None,
        spec=spec,
        network=NetworkConfig(),
        config=TrainConfig(steps=steps, threads=1, batch_size=16, learning_rate=1e-2),
        common=Seasons(),
    )


def test_a_setpoint_that_is_known_halves_the_error_without_any_training() -> None:
    past = driven()
    origins = np.arange(240, 310, 7)
    many = replace(past, series=np.zeros(len(origins), np.int64), cutoff=origins)
    actual = past.readings(0)[origins[:, None] + np.arange(HORIZON)]

    errors = [
        np.abs(fit(past, member, steps=1).predict(many, HORIZON, (0.5,)).point - actual).mean()
        for member in (SEES, BLIND)
    ]

    assert errors[0] < 0.6 * errors[1]


def test_the_unit_of_a_covariate_does_not_matter() -> None:
    celsius, fahrenheit = driven(), driven(unit=1.8, offset=32.0)

    first, second = (
        fit(past, SEES).predict(past, HORIZON, (0.5,)).values for past in (celsius, fahrenheit)
    )

    np.testing.assert_allclose(first, second, rtol=1e-3)


def test_validation_gives_more_weight_to_the_member_that_sees_what_helps() -> None:
    forecaster = fit(driven(), BLIND, SEES)

    spec = forecaster.network.spec
    assert dict(zip(spec.members, spec.shares, strict=True))[SEES] > 0.6


@pytest.mark.parametrize(("members", "selected"), [((BLIND, SEES), (1,)), ((BLIND,) * 2, (0, 1))])
def test_without_validation_the_members_that_see_covariates_are_kept(
    members: tuple[MemberSpec, ...], selected: tuple[int, ...]
) -> None:
    forecaster = fit(driven(), *members, steps=1, validates=False)

    assert forecaster.log is not None and forecaster.log.selected == selected
    assert forecaster.network.spec.n_known == int(SEES in members)


def test_a_saved_network_reproduces_its_self_test() -> None:
    forecaster = fit(driven(), SEES, steps=2)
    network: Network = forecaster.network

    restored = RNNForecaster.restore(
        network.spec,
        network.config,
        names=forecaster.names,
        weights=forecaster.tensors(),
        self_test=forecaster.self_test(),
    )

    past = driven()
    np.testing.assert_array_equal(
        restored.predict(past, HORIZON, (0.5,)).values,
        forecaster.predict(past, HORIZON, (0.5,)).values,
    )


def test_covariates_that_are_all_missing_are_average() -> None:
    network = make_network(SEES, n_features=(1, 1, 1))
    readings = sensor_windows(1)
    empty, zero = (
        Features(
            np.full((1, 1, LOOKBACK + HORIZON), value, np.float32),
            np.full((1, 1, LOOKBACK), value, np.float32),
            np.full((1, 1), value, np.float32),
        )
        for value in (np.nan, 0.0)
    )
    assert network.feature_mean.tolist() == [0, 0, 0]
    forecasts = [network.forecast(make_history(readings, features=x)) for x in (empty, zero)]
    assert np.array_equal(*forecasts)
