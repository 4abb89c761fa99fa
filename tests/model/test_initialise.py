"""What a network begins with: built-in weights, statistics of series, another network."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.panel import Covariates, FeatureBlock, Features
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Past, make_past, windows_of
from rnnforecast.errors import ModelError
from rnnforecast.model.builtin import builtin_weights
from rnnforecast.model.fitting import (
    check_start,
    describe_series,
    find_new_series,
    fit,
    initialise_network,
    standardise_features,
    take_weights,
)
from rnnforecast.model.forecaster import known_entries
from rnnforecast.model.network import Network
from rnnforecast.spec import BUILTIN, QUANTILES, MemberSpec, NetworkSpec, member_shapes
from tests.builders import make_panel, make_spec, random_walk, wave
from tests.model.networks import DAY, draw_network, forecast_by, make_history, moved, sensor_windows

TRAINED = replace(BUILTIN, is_trained=True)
SMALL = MemberSpec("gru", 4, 1, 4)
SEES = replace(SMALL, covariates=True)
OTHER = replace(SMALL, segment=8)
WAVES = (wave(120, season=8), 3 * wave(120, season=8, seed=1) - 10)


def begin(spec: NetworkSpec, *readings: np.ndarray, common: Seasons | None = None) -> Network:
    """Make a network as training begins with it, on readings with a season of 8 rows."""
    past = make_past(make_panel(*readings))
    torch.manual_seed(0)
    network = draw_network(spec)
    return initialise_network(network, common, [DAY] * len(readings), past, windows_of(past, spec))


# Built-in weights


def test_built_in_weights_are_those_of_the_built_in_member() -> None:
    shapes = {name: x.shape for name, x in builtin_weights().items()}
    assert shapes == member_shapes(make_spec(members=(BUILTIN,)), BUILTIN)
    assert all(np.isfinite(x).all() for x in builtin_weights().values())


def test_the_manifest_of_the_built_in_weights_is_of_this_file_and_network() -> None:
    folder = files("rnnforecast.model")
    content = folder.joinpath("builtin.safetensors").read_bytes()
    manifest = json.loads(folder.joinpath("builtin.json").read_text())
    recipe = manifest["recipe"]

    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["quantiles"] == list(QUANTILES)
    shape = recipe["cell"], recipe["width"], recipe["layers"], recipe["segment"]
    assert shape == (BUILTIN.cell, BUILTIN.hidden, BUILTIN.layers, BUILTIN.segment)
    assert len(content) < 2_000_000


def test_members_of_its_shape_begin_as_the_built_in_one_and_others_do_not() -> None:
    others = replace(TRAINED, layers=1), replace(TRAINED, cell="lstm")
    spec = make_spec(members=(TRAINED, replace(TRAINED, covariates=True), BUILTIN, *others))
    spec = replace(spec, n_past=1)
    features = np.random.default_rng(0).normal(size=(1, 120)).astype(np.float32)
    zero = np.zeros(1, np.int64)
    block = FeatureBlock(features, ("past",), zero, zero, zero + 120)
    nothing = FeatureBlock(features[:0], (), zero, zero, zero)
    covariates = Covariates((nothing,), block, np.empty((1, 0), np.float32))
    past = make_past(replace(make_panel(WAVES[0]), covariates=covariates))
    network = draw_network(spec)
    network = initialise_network(network, None, [DAY], past, windows_of(past, spec))

    history = make_history(sensor_windows(1), features=past.features(32, 6))
    forecasts = [forecast_by(network, member, history) for member in network.members]

    for forecast in forecasts[:3]:
        assert np.array_equal(forecast, forecasts[2])
    for forecast in forecasts[3:]:
        assert not np.allclose(forecast, forecasts[2], atol=0.01)


@pytest.mark.parametrize("n_rows", [631, 632])
def test_with_a_hundred_windows_a_third_member_learns_from_drawn_weights(n_rows: int) -> None:
    readings, config = wave(n_rows, season=8), TrainConfig(steps=1, threads=1)
    past, spec = make_past(make_panel(readings)), make_spec(members=(TRAINED, BUILTIN))
    assert windows_of(past, spec).n_disjoint == 100 - (n_rows < 632)

    fitted = fit(past, None, spec=spec, network=NetworkConfig(), config=config)

    members = (TRAINED, replace(TRAINED, layers=1, is_drawn=True), BUILTIN)
    assert fitted.network.spec.members == (members if n_rows == 632 else members[::2])
    near = [
        np.abs(member.tensors["embed.weight"] - builtin_weights()["embed.weight"]).max() < 0.01
        for member in fitted.network.members
    ]
    assert near == ([True, False, True] if n_rows == 632 else [True, True])
    again = fit(past, None, spec=fitted.network.spec, network=NetworkConfig(), config=config)
    assert again.network.spec.members == fitted.network.spec.members


def test_a_network_of_other_quantiles_begins_without_built_in_weights() -> None:
    for quantiles, is_builtin in ((QUANTILES, True), ((*QUANTILES[:-1], 0.99), False)):
        spec = replace(make_spec(members=(TRAINED,)), quantiles=quantiles)
        weight = begin(spec, WAVES[0]).members[0].tensors["embed.weight"]
        assert np.array_equal(weight, builtin_weights()["embed.weight"]) == is_builtin


def test_a_season_is_forecast_before_training() -> None:
    network = begin(make_spec(lookback=96, members=(BUILTIN,)), wave(120, season=8))
    history = make_history(wave(126, season=8)[None, 24:120])
    median = network.forecast(history)[0, :, network.spec.median]
    assert np.abs(median - wave(126, season=8)[120:]).max() < 0.5


# Series


def test_each_series_has_its_seasons_center_and_scale() -> None:
    network = begin(make_spec(n_series=2), *WAVES)
    assert network.seasons_of(np.array([1, 2])) == (DAY, DAY)
    assert network.common_seasons is None
    for entry, readings in enumerate(WAVES, start=1):
        low, middle, high = np.quantile(readings, (0.25, 0.5, 0.75))
        assert network.center[entry].item() == pytest.approx(middle)
        assert network.scale[entry].item() == pytest.approx((high - low) / 1.349)
    assert np.isfinite(network.outlier_threshold).all()


def test_seasons_that_were_told_are_those_of_unknown_series_too() -> None:
    weekly = Seasons(8, 56)
    assert begin(make_spec(), WAVES[0], common=weekly).common_seasons == weekly


def test_only_the_series_that_are_named_are_described_anew() -> None:
    network = begin(make_spec(n_series=2), *WAVES)
    newer = make_past(make_panel(WAVES[0] + 100, WAVES[1] + 100))
    before = network.center.copy()
    described = describe_series(network, np.array([1]), [Seasons(6)], newer)
    assert described.seasons_of(np.array([1, 2])) == (DAY, Seasons(6))
    assert described.center[1] == before[1]
    assert described.center[2] == pytest.approx(before[2] + 100)
    assert np.array_equal(network.center, before), "the first network stays"
    assert describe_series(network, np.empty(0, np.int64), [], newer) is network


def test_one_spike_moves_neither_center_nor_scale_and_is_none_of_the_season() -> None:
    readings, spiked = wave(400, season=8), wave(400, season=8)
    spiked[200] = 65_535.0
    plain, other = (begin(make_spec(), x) for x in (readings, spiked))
    assert other.center[1].item() == pytest.approx(plain.center[1].item(), abs=0.1)
    assert other.scale[1].item() == pytest.approx(plain.scale[1].item(), rel=0.05)
    history = make_history(spiked[None, 190:222])
    assert np.allclose(other.forecast(history), plain.forecast(history), atol=0.1)


def test_a_series_that_had_no_reading_yet_counts_as_new() -> None:
    network = begin(make_spec(n_series=2), WAVES[0], np.full(120, np.nan, np.float32))
    assert np.isnan(network.scale[2])
    assert known_entries(("s1", "s0", "x"), network, ("s0", "s1")).tolist() == [0, 1, 0]


def test_a_series_with_few_readings_is_new() -> None:
    sparse = WAVES[0].copy()
    sparse[:110] = np.nan
    past = make_past(make_panel(WAVES[0], WAVES[0][:20], sparse, WAVES[1][:38]))
    spec = make_spec(n_series=4)
    assert spec.least_history == 32
    assert find_new_series(past, windows_of(past, spec)).tolist() == [1, 2]


# Covariates


def test_covariates_are_standardised_by_the_readings_that_are_there() -> None:
    rng = np.random.default_rng(0)
    features = Features(
        rng.normal(5, 2, (6, 2, 9)), rng.normal(-3, 0.5, (6, 1, 4)), rng.normal(size=(6, 2))
    )
    features.known[rng.random(features.known.shape) < 0.2] = np.nan
    features.static[:, 1] = 7.0
    features.past[2:] = np.nan
    spec = replace(make_spec(members=(SEES,)), n_known=2, n_past=1, n_static=2)

    network = standardise_features(draw_network(spec), features)

    columns = [*features.known.swapaxes(0, 1), *features.past.swapaxes(0, 1), *features.static.T]
    for number, column in enumerate(columns):
        values = [x for x in column.ravel().tolist() if not math.isnan(x)]
        mean = sum(values) / len(values)
        scale = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values)) or 1.0
        assert network.feature_mean[number].item() == pytest.approx(mean, rel=1e-5)
        assert network.feature_scale[number].item() == pytest.approx(scale, rel=1e-5)


# From another network


def trained(*readings: np.ndarray, members: tuple = (SMALL, OTHER)) -> Network:
    """Return a network whose every weight differs from what it starts from."""
    network = begin(make_spec(n_series=len(readings), members=members), *readings)
    return moved(network, 0.1)


def test_series_keep_their_own_statistics_and_weights_are_taken_over() -> None:
    source = trained(*WAVES, members=(SMALL,))
    spec = dataclasses.replace(source.spec, n_series=3)
    network = begin(spec, WAVES[1], 100 + WAVES[0], WAVES[0])
    own = network.tensors()

    network = take_weights(network, source)

    for name, values in network.tensors().items():
        expected = source.tensors() if name.startswith("members.") else own
        assert np.array_equal(values, expected[name])
    history = make_history(WAVES[1][None, :32])
    assert np.array_equal(network.forecast(history), source.forecast(history))


def test_the_standard_of_covariates_is_taken_over() -> None:
    spec = replace(make_spec(members=(SEES,)), n_known=1)
    source, network = (draw_network(spec) for _ in range(2))
    source.feature_mean[:], source.feature_scale[:] = 3.0, 2.0
    network = take_weights(network, source)
    assert (network.feature_mean.item(), network.feature_scale.item()) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("changed", "config", "message"),
    [
        ({"horizon": 5}, {}, "horizon is 5, not 6"),
        ({"lookback": 48}, {}, "lookback is 48, not 32"),
        ({"n_known": 1}, {}, "n_known is 1, not 0"),
        ({"members": (OTHER, SMALL)}, {}, "members is"),
        ({"members": (SMALL, OTHER, replace(SMALL, layers=2))}, {}, "members is"),
        ({"members": (replace(SMALL, hidden=5), OTHER)}, {}, "members is"),
        ({"members": (replace(SMALL, cell="lstm"), OTHER)}, {}, "members is"),
        ({}, {"init": "chrono"}, "init is chrono, not orthogonal"),
    ],
)
def test_a_network_of_another_task_is_refused_with_what_differs(
    changed: dict, config: dict, message: str
) -> None:
    source = trained(*WAVES)
    spec = dataclasses.replace(source.spec, **{"n_series": 5, **changed})
    with pytest.raises(ModelError) as caught:
        check_start(source, spec, NetworkConfig(**config))
    assert message in caught.value.message


def test_a_network_may_have_learnt_other_series_of_another_season() -> None:
    source = trained(*WAVES)
    check_start(source, dataclasses.replace(source.spec, n_series=5, season=24), NetworkConfig())


def test_a_random_walk_is_forecast_by_its_last_value_before_training() -> None:
    walks = np.stack([random_walk(102, seed=s) for s in range(8)])
    spec = make_spec(lookback=96, n_series=8, members=(BUILTIN,))
    past: Past = make_past(make_panel(*walks))
    network = initialise_network(
        draw_network(spec), Seasons(), [Seasons()] * 8, past, windows_of(past, spec)
    )
    history = make_history(walks[:, :96], seasons=Seasons())
    median = network.forecast(history)[..., spec.median]
    error = np.abs(median - walks[:, 96:]).mean()
    assert error < 1.15 * np.abs(walks[:, 95:96] - walks[:, 96:]).mean()
