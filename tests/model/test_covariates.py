"""What a member makes of covariates: nothing at first, then the effect that it has learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.panel import Covariates, FeatureBlock
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import Past, make_past
from rnnforecast.model.covariates import CovariateBatch
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.initialise import initialise_network
from rnnforecast.model.loss import covariates_of
from rnnforecast.model.network import Member, Network
from rnnforecast.spec import MemberSpec, NetworkSpec, expected_shapes
from tests.builders import make_panel, make_spec

LOOKBACK, HORIZON = 24, 10
SIZES = [(2, 3, 1), (1, 0, 0), (0, 2, 0), (0, 0, 2), (1, 0, 1), (0, 1, 1)]
SEES = MemberSpec(LOOKBACK, 6, linear=False, seasonal=False, covariates=True)
BLIND = replace(SEES, covariates=False)
STATE = tuple[Tensor, Tensor]


def task_of(sizes: tuple[int, int, int], *members: MemberSpec) -> NetworkSpec:
    spec = make_spec(LOOKBACK, HORIZON, 4, 2, members=members or (SEES,))
    return replace(spec, n_known=sizes[0], n_past=sizes[1], n_static=sizes[2])


def make_member(sizes: tuple[int, int, int] = (2, 3, 1), own: MemberSpec = SEES) -> Member:
    torch.manual_seed(0)
    (member,) = Network(task_of(sizes, own), NetworkConfig(hidden=16)).eval().members
    return member


def make_beside(sizes: tuple[int, int, int] = (2, 3, 1), n: int = 4) -> CovariateBatch:
    torch.manual_seed(1)
    n_known, n_past, n_static = sizes
    return CovariateBatch(
        torch.randn(n, n_known, LOOKBACK + HORIZON),
        torch.randn(n, n_past, LOOKBACK),
        torch.randn(n, n_static),
    )


def windows(n: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(n, LOOKBACK), torch.ones(n).long(), torch.zeros(n).long()


def learnt(member: Member) -> Member:
    """Let every weight of the reader be something else than zero."""
    torch.manual_seed(3)
    assert member.covariate_encoder is not None
    with torch.no_grad():
        for weight in member.covariate_encoder.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return member


@pytest.mark.parametrize("sizes", SIZES)
def test_the_tensors_are_those_that_the_task_says(sizes: tuple[int, int, int]) -> None:
    spec, config = task_of(sizes, SEES, BLIND), NetworkConfig(hidden=16)
    state = Network(spec, config).state_dict()

    assert {name: tuple(x.shape) for name, x in state.items()} == expected_shapes(spec, config)


@pytest.mark.parametrize("sizes", SIZES)
def test_before_training_it_is_as_if_there_were_none(sizes: tuple[int, int, int]) -> None:
    sees, blind = make_member(sizes), make_member(sizes, BLIND)
    state = {k: v for k, v in sees.state_dict().items() if not k.startswith("covariate_encoder.")}
    blind.load_state_dict(state)

    found = sees(*windows(), make_beside(sizes))

    assert torch.equal(found, blind(*windows()))


@pytest.mark.parametrize("sizes", SIZES)
def test_after_training_each_kind_moves_the_forecast(sizes: tuple[int, int, int]) -> None:
    member, beside = learnt(make_member(sizes)), make_beside(sizes)
    before = member(*windows(), beside)

    for kind, size in zip(CovariateBatch._fields, sizes, strict=True):
        moved = beside._replace(**{kind: getattr(beside, kind) + 1.0})
        assert torch.equal(member(*windows(), moved), before) == (size == 0), kind


def test_a_value_ahead_reaches_its_own_stretch_and_no_other() -> None:
    member, beside = learnt(make_member()), make_beside()
    known = beside.known.clone()
    known[:, :, LOOKBACK + 7] += 1.0  # lead 8, in the second stretch of 6

    moved = member(*windows(), beside._replace(known=known)) - member(*windows(), beside)

    assert (moved[:, :6].abs() < 1e-5).all()
    assert (moved[:, 7].abs() > 1e-4).all()


def test_what_known_covariates_explain_is_taken_out_and_put_back() -> None:
    member, beside = make_member(), make_beside()
    history, series, step = windows()
    assert member.covariate_encoder is not None
    with torch.no_grad():
        member.covariate_encoder.series_effect.weight[1] = 0.3 * torch.randn(18)
        effect = member.covariate_encoder.effect(beside, series)
        plain = member(history, series, step, CovariateBatch(*map(torch.zeros_like, beside)))
        at_rest = member.covariate_encoder.effect(
            CovariateBatch(*map(torch.zeros_like, beside)), series
        )
        found = member(history + (effect[0] - at_rest[0]), series, step, beside)

    expected = plain + (effect[1] - at_rest[1])[..., None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert effect[1].std() > 0.1


def test_a_member_sees_the_newest_of_a_longer_history() -> None:
    short = replace(SEES, lookback=12)
    member, beside = learnt(make_member(own=short)), make_beside()
    history, series, step = windows()
    shorter = CovariateBatch(beside.known[..., 12:], beside.past[..., 12:], beside.static)

    found = member(history[:, 12:], series, step, shorter)

    assert torch.equal(found, member(history, series, step, beside))


def test_each_series_reacts_in_its_own_way() -> None:
    member, beside = make_member(), make_beside()
    assert member.covariate_encoder is not None
    with torch.no_grad():
        member.covariate_encoder.series_effect.weight[2, 0] = 1.0

    one, other = (member.covariate_encoder.effect(beside, torch.full((4,), s))[1] for s in (1, 2))

    assert (one == 0).all()
    torch.testing.assert_close(other, beside.known[:, 0, LOOKBACK:])


def make_network(sizes: tuple[int, int, int] = (1, 1, 1)) -> Network:
    torch.manual_seed(0)
    network = Network(task_of(sizes), NetworkConfig(hidden=16)).eval()
    network.feature_mean.copy_(torch.tensor([5.0, -3.0, 10.0]))
    network.feature_scale.copy_(torch.tensor([2.0, 0.5, 1.0]))
    return network


def test_features_are_standardised_by_kind() -> None:
    known, past = torch.full((2, 1, LOOKBACK + HORIZON), 9.0), torch.full((2, 1, LOOKBACK), -4.0)
    beside = make_network().standardise_covariates([known, past, torch.full((2, 1), 12.0)])

    assert beside is not None
    assert (beside.known == 2).all() and (beside.past == -2).all() and (beside.static == 2).all()


def test_what_is_missing_is_as_before_or_average() -> None:
    known, past = torch.full((1, 1, LOOKBACK + HORIZON), 9.0), torch.full((1, 1, LOOKBACK), -4.0)
    known[0, 0, 5:9] = torch.nan
    known[0, 0, 5:] += 2
    past[0, 0, :4] = torch.nan
    beside = make_network().standardise_covariates([known, past, torch.full((1, 1), torch.nan)])

    assert beside is not None
    assert (beside.known[0, 0, :9] == 2).all() and (beside.known[0, 0, 9:] == 3).all()
    assert (beside.past[0, 0, :4] == 0).all() and (beside.past[0, 0, 4:] == -2).all()
    assert beside.static.item() == 0


def driven(
    n: int = 600, *, unit: float = 1.0, offset: float = 0.0, effect: Callable = lambda x: 3 * x
) -> Past:
    """Make a reading that a setpoint drives, written in some unit, to be forecast at 3/4."""
    rng = np.random.default_rng(0)
    setpoint = np.repeat(rng.normal(size=n // 6 + 10), 6)[: n + HORIZON].astype(np.float32)
    readings = 20 + effect(setpoint[:n]) + 0.1 * rng.normal(size=n)
    panel = make_panel(readings)
    every = np.zeros(1, np.int64)
    values = (unit * setpoint + offset)[None].astype(np.float32)
    known = FeatureBlock(values, ("setpoint",), every, every, every + n + HORIZON)
    nothing = FeatureBlock(values[:0], (), every, every, every)
    beside = Covariates((known,), nothing, np.empty((1, 0), np.float32))
    return make_past(replace(panel, covariates=beside))


def fit(
    past: Past, *members: MemberSpec, epochs: int = 20, validates: bool = True
) -> RNNForecaster:
    spec = replace(make_spec(LOOKBACK, HORIZON, 1, 1, members=members), n_known=1)
    first = replace(past, cutoff=past.cutoff * 3 // 4)
    return RNNForecaster.fit(
        first,
        past if validates else None,
        spec=spec,
        network=NetworkConfig(hidden=16),
        config=TrainConfig(epochs=epochs, threads=1, batch_size=64, learning_rate=1e-2),
    )


@pytest.mark.parametrize("effect", [lambda x: 3 * x, lambda x: 3 * x**2, lambda x: 3 * np.abs(x)])
def test_a_reaction_is_there_before_training(effect: Callable[[np.ndarray], np.ndarray]) -> None:
    past = driven(effect=effect)
    drawn = past.windows(LOOKBACK, HORIZON)
    batch = drawn.gather(drawn.spread(200))
    spec = replace(make_spec(LOOKBACK, HORIZON, 1, 1, members=(SEES,)), n_known=1)
    torch.manual_seed(0)
    network = Network(spec, NetworkConfig(hidden=16))

    initialise_network(network, fit_scaling(past), drawn)

    (member,), beside = network.members, covariates_of(network, batch)
    assert (
        member.covariate_encoder is not None and beside is not None and batch.features is not None
    )
    with torch.no_grad():
        found = torch.cat(
            member.covariate_encoder.effect(beside, torch.ones(200).long()), 1
        ).numpy()
    actual = effect(batch.features.known[:, 0])
    left = network.scale[1].item() * found - actual
    assert left.std() < 0.3 * actual.std()


@pytest.mark.slow
def test_a_setpoint_that_is_known_halves_the_error() -> None:
    past = driven()
    origins = np.arange(460, 590, 7)
    many = replace(past, series=np.zeros(len(origins), np.int64), cutoff=origins)
    actual = past.readings(0)[origins[:, None] + np.arange(HORIZON)]

    errors = [
        np.abs(fit(past, own).predict(many, HORIZON, (0.5,)).point - actual).mean()
        for own in (SEES, BLIND)
    ]

    assert errors[0] < 0.5 * errors[1]


def test_the_unit_of_a_covariate_does_not_matter() -> None:
    celsius, fahrenheit = driven(), driven(unit=1.8, offset=32.0)

    first, second = (
        fit(past, SEES, epochs=2).predict(past, HORIZON, (0.5,)).values
        for past in (celsius, fahrenheit)
    )

    np.testing.assert_allclose(first, second, rtol=1e-3)


@pytest.mark.slow
def test_validation_leaves_out_the_members_that_do_not_see_what_helps() -> None:
    forecaster = fit(driven(), BLIND, SEES)

    assert forecaster.log is not None and forecaster.log.selected == (1,)


def test_a_saved_network_reproduces_its_self_test() -> None:
    forecaster = fit(driven(), SEES, epochs=1)
    network = forecaster.network

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


@pytest.mark.parametrize(("members", "kept"), [((BLIND, SEES), (1,)), ((BLIND, BLIND), (0, 1))])
def test_without_validation_the_members_that_see_covariates_are_kept(
    members: tuple[MemberSpec, ...], kept: tuple[int, ...]
) -> None:
    forecaster = fit(driven(), *members, epochs=1, validates=False)

    assert forecaster.log is not None and forecaster.log.selected == kept
