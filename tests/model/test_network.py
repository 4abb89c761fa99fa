"""The network: the mean of its members, in the units of each series, and what it keeps of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnforecast.data.arrays import Doubles
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import make_past
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.network import History, Network
from rnnforecast.spec import BUILTIN, QUANTILES, MemberSpec, expected_shapes
from tests.builders import make_panel, make_spec, wave
from tests.model.networks import (
    CELL_NAMES,
    DAY,
    HORIZON,
    LOOKBACK,
    draw_network,
    forecast_by,
    make_history,
    make_network,
    sensor_windows,
)

SMALL = MemberSpec("gru", 4, 1, 4)
ENSEMBLE = (SMALL, MemberSpec("lstm", 4, 1, 8), MemberSpec("mingru", 6, 2, 4))
READINGS = sensor_windows(5)


def forecast(network: Network, readings: np.ndarray = READINGS, **options: object) -> Doubles:
    return network.forecast(make_history(readings, **options))


def alone(network: Network, index: int) -> Network:
    """Make a network of one of the members."""
    spec = replace(network.spec, members=network.spec.members[index : index + 1])
    members = network.members[index : index + 1]
    return replace(network, spec=replace(spec, weights=()), members=members)


# Members


@pytest.mark.parametrize("weights", [(), (0.5, 0.2, 0.3)])
def test_a_quantile_is_the_weighted_mean_of_those_that_members_have_alone(
    weights: tuple[float, ...],
) -> None:
    network = make_network(*ENSEMBLE)
    network = replace(network, spec=replace(network.spec, weights=weights))
    singles = [forecast(alone(network, index)) for index in range(3)]
    assert not np.allclose(singles[0], singles[1], atol=0.1)
    expected = np.average(singles, axis=0, weights=weights or None)
    np.testing.assert_allclose(forecast(network), expected, rtol=1e-12)
    for member, single in zip(network.members, singles, strict=True):
        assert np.array_equal(forecast_by(network, member, make_history(READINGS)), single)


def test_quantiles_never_cross() -> None:
    network = make_network(*ENSEMBLE)
    values = forecast(network, sensor_windows(40, missing=0.3))
    assert values.shape == (40, HORIZON, len(QUANTILES))
    assert (np.diff(values, axis=-1) >= 0).all()


@pytest.mark.parametrize(
    ("weights", "chosen", "shares"),
    [
        ((1.0, 0.0, 0.0), (0,), (1.0,)),
        ((0.0, 0.2, 0.6), (1, 2), (0.25, 0.75)),
        ((0.5, 0.3, 0.2), (0, 1, 2), (0.5, 0.3, 0.2)),
    ],
)
def test_the_members_with_a_weight_go_on_without_the_others(
    weights: tuple[float, ...], chosen: tuple[int, ...], shares: tuple[float, ...]
) -> None:
    network = make_network(*ENSEMBLE)
    singles = [forecast(alone(network, i)) for i in chosen]

    network, numbers = network.weigh_members(weights)

    assert numbers == chosen

    assert network.spec.members == tuple(ENSEMBLE[i] for i in chosen)
    assert network.spec.shares == pytest.approx(shares)
    expected = np.average(singles, axis=0, weights=shares)
    np.testing.assert_allclose(forecast(network), expected, rtol=1e-12)
    assert expected_shapes(network.spec) == shapes_of(network)


def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in network.tensors().items()}


def test_covariates_that_no_member_sees_are_forgotten() -> None:
    network = make_network(SMALL, replace(SMALL, covariates=True), n_features=(1, 2, 1))
    readings = READINGS[:1]
    features = Features(
        np.ones((1, 1, LOOKBACK + HORIZON)), np.ones((1, 2, LOOKBACK)), np.ones((1, 1))
    )
    blind = forecast(alone(network, 0), readings)

    network, _ = network.weigh_members([1.0, 0.0])

    assert (network.spec.n_known, network.spec.n_past, network.spec.n_static) == (0, 0, 0)
    assert expected_shapes(network.spec) == shapes_of(network)
    assert np.array_equal(forecast(network, readings), blind)
    assert np.array_equal(forecast(network, readings, features=features), blind)


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize(
    ("lookback", "horizon", "segment"), [(32, 12, 4), (23, 7, 6), (5, 1, 1), (10, 30, 4), (6, 3, 8)]
)
def test_an_artifact_expects_the_tensors_that_the_network_has(
    cell: str, lookback: int, horizon: int, segment: int
) -> None:
    members = MemberSpec(cell, 3, 2, segment), MemberSpec(cell, 4, 1, segment, covariates=True)
    network = make_network(*members, lookback=lookback, horizon=horizon, n_features=(2, 1, 3))
    assert expected_shapes(network.spec) == shapes_of(network)
    network, _ = network.weigh_members([1.0, 0.0])
    values = forecast(network, sensor_windows(lookback=lookback))
    assert values.shape == (3, horizon, len(QUANTILES))
    assert np.isfinite(values).all()


def test_the_built_in_member_has_the_tensors_that_are_expected() -> None:
    network = draw_network(make_spec(members=(BUILTIN,)))
    assert expected_shapes(network.spec) == shapes_of(network)


# What a forecast depends on


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_lead_depends_on_the_newest_reading(cell: str) -> None:
    network = make_network(cell=cell)
    changed = READINGS.copy()
    changed[:, -1] += 1.0
    moved = np.abs(forecast(network, changed) - forecast(network))
    assert (moved[..., network.spec.median] > 1e-6).all()


@pytest.mark.parametrize("n_features", [(0, 0, 0), (2, 1, 1)])
@pytest.mark.parametrize(("n_rows", "context"), [(48, 512), (45, 512), (48, 8), (46, 10)])
def test_a_window_that_ends_earlier_in_a_stretch_is_forecast_as_the_stretch_cut_there(
    n_rows: int, context: int, n_features: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other windows of the cut stretch let the recurrence begin with the same segment."""
    monkeypatch.setattr("rnnforecast.model.inputs.CONTEXT_ROWS", context)
    # else a cutoff may have the fit of up to three segments before, counted from the stretch's end
    monkeypatch.setattr("rnnforecast.model.inputs._REFIT", 1)
    spec = replace(SMALL, layers=2, covariates=any(n_features))
    network = make_network(spec, horizon=12, n_features=n_features)
    (member,), readings = network.members, sensor_windows(3, lookback=n_rows, missing=0.1)
    rng = np.random.default_rng(0)
    n_known, n_past, n_static = n_features
    shapes = (3, n_known, n_rows + 12), (3, n_past, n_rows), (3, n_static)
    known, past, static = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

    def windows(n_origins: int) -> Doubles:
        """Forecast windows of the stretch without the last segments, `(stretch, window, H, Q)`."""
        n = n_rows - 8 * (3 - n_origins)
        features = Features(known[..., : n + 12], past[..., :n], static)
        history = make_history(readings[:, :n], features=features if any(n_features) else None)
        prepared = network.prepare(history, 4, n_origins=n_origins)
        is_whole = prepared.places.n_history == prepared.places.n_segments
        assert is_whole == (context > n_rows)
        return network.member_forecast(member, prepared).reshape(3, n_origins, 12, -1)

    together = windows(3)

    for n_origins in (1, 2):
        cut = windows(n_origins)[:, 0]
        np.testing.assert_allclose(together[:, 3 - n_origins], cut, rtol=1e-3, atol=1e-3)
    assert not np.allclose(together[:, 1], together[:, 2], atol=0.05)


def test_a_window_is_forecast_as_it_is_alone_and_in_any_order() -> None:
    network = make_network(*ENSEMBLE)
    readings = sensor_windows(6, missing=0.1)
    seasons = [DAY, Seasons(), Seasons(8, 16), DAY, Seasons(), Seasons(6)]
    entry = np.array([0, 1, 2, 0, 1, 2])

    def forecast_some(chosen: list[int]) -> Doubles:
        history = History(readings[chosen], entry[chosen], [seasons[i] for i in chosen])
        return network.forecast(history)

    together = forecast_some([*range(6)])

    order = [3, 5, 0, 2, 4, 1]
    np.testing.assert_allclose(forecast_some(order), together[order], rtol=1e-5, atol=1e-5)
    for window in range(6):
        np.testing.assert_allclose(
            forecast_some([window])[0], together[window], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize(
    ("offset", "factor"), [(-700.0, 1.0), (0.0, 1000.0), (-3e4, 20.0), (0.0, 1e-3)]
)
def test_moved_and_stretched_readings_have_moved_and_stretched_forecasts(
    offset: float, factor: float, entry: int
) -> None:
    """But for the multiplicative expert: a reading below zero leaves it out."""
    network = make_network(*ENSEMBLE)
    readings = sensor_windows(4, missing=0.1) - 20
    moved = (offset + factor * readings.astype(np.float64)).astype(np.float32)

    values = (forecast(network, moved, entry=entry) - offset) / factor

    rounding = 2e-4 + 1e-5 * abs(offset) / factor  # of float32, and what the weights make of it
    np.testing.assert_allclose(values, forecast(network, readings, entry=entry), atol=rounding)


def test_the_season_that_a_series_has_changes_its_forecast() -> None:
    network = make_network()
    by_season = [forecast(network, seasons=s) for s in (Seasons(), DAY, Seasons(8, 16))]
    assert not np.allclose(by_season[0], by_season[1], atol=0.01)
    assert not np.allclose(by_season[1], by_season[2], atol=0.01)


@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize("n_readings", [0, 1, 2])
def test_hardly_any_reading_gives_a_finite_forecast(n_readings: int, entry: int) -> None:
    readings = np.full((1, LOOKBACK), np.nan, np.float32)
    readings[0, 20 : 20 + n_readings] = [7.0, 9.0][:n_readings]
    assert np.isfinite(forecast(make_network(), readings, entry=entry)).all()


def test_rows_before_the_first_reading_do_not_count() -> None:
    """A short history is forecast as it is where the look-back is shorter, but for noise."""
    noise = 0.2
    readings = 10 + wave(192, season=24) + np.random.default_rng(0).normal(scale=noise, size=192)
    readings[:96] = np.nan

    def forecast_from(lookback: int) -> np.ndarray:
        past = make_past(make_panel(readings[-lookback:].astype(np.float32)))
        network = RNNForecaster.untrained(
            past, lookback=lookback, horizon=24, seasons=[Seasons(24)]
        )
        return network.predict(past, 24, QUANTILES).values

    np.testing.assert_allclose(forecast_from(192), forecast_from(96), rtol=0, atol=noise)


# Seasons of series


def test_unknown_series_have_the_seasons_that_were_told_if_any() -> None:
    network = make_network()
    assert network.common_seasons is None
    network.seasons[:] = [[0, 0], [8, 1], [24, 168]]
    assert network.common_seasons is None
    assert network.seasons_of(np.array([2, 1])) == (Seasons(24, 168), Seasons(8, 1))
    network.seasons[0] = 8, 16
    assert network.common_seasons == Seasons(8, 16)


# Spikes


def with_threshold(threshold: float) -> Network:
    network = make_network()
    network.outlier_threshold[1:] = threshold
    return network


def mask(network: Network, readings: np.ndarray, entry: int = 1) -> np.ndarray:
    return network.mask_spikes(readings, np.full(len(readings), entry))


def test_a_spike_in_the_history_does_not_move_the_forecast() -> None:
    network = with_threshold(20.0)
    spiked, gapped = READINGS.copy(), READINGS.copy()
    spiked[:, 7], gapped[:, 7] = 65_535.0, np.nan
    assert np.array_equal(forecast(network, spiked), forecast(network, gapped))
    assert not np.array_equal(forecast(with_threshold(1e6), spiked), forecast(network, gapped))


def test_a_new_level_is_believed() -> None:
    network = with_threshold(20.0)
    readings = READINGS - 20
    raised = forecast(network, readings - 500)
    np.testing.assert_allclose(raised, forecast(network, readings) - 500, atol=0.01)


def test_a_series_without_a_threshold_believes_everything() -> None:
    spiked = READINGS.copy()
    spiked[:, 3] = 1e5
    assert np.array_equal(mask(with_threshold(np.nan), spiked), spiked)


def test_an_unknown_series_is_judged_by_its_own_window() -> None:
    network = with_threshold(20.0)
    readings = 1000 + READINGS[:2]
    readings[0, 3] = 1e9
    assert np.argwhere(np.isnan(mask(network, readings, entry=0))).tolist() == [[0, 3]]
    constant = np.full((1, LOOKBACK), 7.0, np.float32)
    constant[0, 5] = 8.0
    assert np.array_equal(mask(network, constant, entry=0), constant)
    nothing = np.full((1, LOOKBACK), np.nan, np.float32)
    assert np.isnan(mask(network, nothing, entry=0)).all()


@pytest.mark.parametrize(("run", "is_believed"), [(1, False), (2, False), (3, True)])
def test_several_far_readings_in_a_row_are_no_spike(run: int, *, is_believed: bool) -> None:
    network = with_threshold(20.0)
    readings = np.tile(READINGS[:1], (1, 2))
    for start in (0, 30, 64 - run):
        changed = readings.copy()
        changed[0, start : start + run] = 500.0
        assert np.isfinite(mask(network, changed)).all() == is_believed


def test_more_than_one_far_reading_in_twenty_is_no_spike() -> None:
    network = with_threshold(20.0)
    readings = np.tile(READINGS[:1], (1, 2))  # 64 rows: three are few
    readings[0, [5, 20, 40]] = 500.0
    assert np.isnan(mask(network, readings)).sum() == 3
    readings[0, 50] = 500.0
    assert np.array_equal(mask(network, readings), readings)
