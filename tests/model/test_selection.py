"""How members are weighed by their loss on validation windows, and which of them are kept."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.model import training
from rnnforecast.model.loss import quantile_losses
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.spec import QUANTILES, MemberSpec
from tests.builders import make_spec, wave
from tests.model.fitting import (
    HARMFUL_RATE,
    PAIR,
    PLAIN,
    THREE,
    UNTRAINED,
    short_epochs,
    started,
    train,
    windows_to_train,
)
from tests.model.networks import forecast_by, make_history

NOISY = wave(320, season=8, noise=2.0)
STILL = TrainConfig(epochs=1, batch_size=4, threads=1, learning_rate=1e-6)
N_DISJOINT = 13
"""Windows of six steps in the validation part of the noisy readings that do not overlap."""
SHARE = N_DISJOINT / (N_DISJOINT + 30)
SEES = dataclasses.replace(PLAIN, covariates=True)
Weights = tuple[float, ...]


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Validation by which the loss of weighted members is a function of their weights."""

    loss: Callable[[Weights], float]
    n_disjoint: int

    def losses(self, members: Sequence[Member], weightings: Sequence[Weights]) -> list[float]:
        assert all(len(weights) == len(members) for weights in weightings)
        assert all(sum(weights) == pytest.approx(1) for weights in weightings)
        return [self.loss(weights) for weights in weightings]


def weigh(
    best: Weights, *, n_disjoint: int, members: tuple[MemberSpec, ...] = (PLAIN, SEES, UNTRAINED)
) -> Weights:
    """Weigh members where these weights have the least loss."""
    spec = dataclasses.replace(make_spec(members=members), n_past=1)
    network = Network(spec, NetworkConfig())

    def loss(weights: Weights) -> float:
        return 1 + sum((w - b) ** 2 for w, b in zip(weights, best, strict=True))

    return training._weigh_members(network, Scripted(loss, n_disjoint))  # type: ignore[arg-type]


@pytest.mark.parametrize("n_disjoint", [1, 10, 11, 90, 10_000])
def test_weights_lie_between_usual_and_best_ones_and_nearer_the_more_windows_there_are(
    n_disjoint: int,
) -> None:
    weights = weigh((0.2, 0.7, 0.1), n_disjoint=n_disjoint)
    share = n_disjoint / (n_disjoint + 30)
    usual, best = (0.35, 0.35, 0.3), (0.2, 0.7, 0.1)
    expected = [share * b + (1 - share) * u for b, u in zip(best, usual, strict=True)]
    assert weights == pytest.approx(expected)
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("best", "kept"),
    [
        ((0.0, 0.8, 0.2), (1, 2)),
        ((0.3, 0.0, 0.7), (0, 2)),
        ((0.0, 0.0, 1.0), (0, 2)),
        ((0.0, 1.0, 0.0), (1, 2)),
        ((0.5, 0.5, 0.0), (0, 1, 2)),
    ],
)
def test_with_enough_windows_a_trained_member_without_a_weight_goes(
    best: Weights, kept: tuple[int, ...]
) -> None:
    for n_disjoint, expected in ((100, kept), (10, (0, 1, 2))):
        weights = weigh(best, n_disjoint=n_disjoint)
        assert tuple(i for i, weight in enumerate(weights) if weight) == expected


@pytest.mark.parametrize("best", [(1.0, 0.0), (0.0, 1.0)])
def test_the_only_trained_member_and_the_built_in_one_are_always_kept(best: Weights) -> None:
    weights = weigh(best, n_disjoint=1000, members=(PLAIN, UNTRAINED))
    assert all(weights)
    assert np.argmax(weights) == np.argmax(best)


def test_one_member_has_all_the_weight() -> None:
    assert weigh((1.0,), n_disjoint=50, members=(PLAIN,)) == (1.0,)


@pytest.mark.parametrize(
    ("members", "weights"),
    [
        ((PLAIN, UNTRAINED), (0.7, 0.3)),
        ((PLAIN, SEES, UNTRAINED), (0.0, 1.0, 0.0)),
        (THREE, (1 / 3,) * 3),
    ],
)
def test_without_validation_weights_are_usual_or_of_those_that_see_covariates(
    members: tuple[MemberSpec, ...], weights: Weights
) -> None:
    network = Network(dataclasses.replace(make_spec(members=members), n_past=1), NetworkConfig())
    assert training._weigh_members(network, None) == pytest.approx(weights)


def best_weights(network: Network, members: list[Member]) -> Weights:
    """Return the weights with the least loss, by a loop over weights and windows."""
    _, windows = windows_to_train(NOISY, network.spec)
    batch = windows.gather(np.arange(len(windows)))
    history = make_history(batch.history)
    forecasts = [forecast_by(network, member, history) for member in members]
    losses = {}
    for parts in itertools.product(range(11), repeat=len(members)):
        if sum(parts) != 10:
            continue
        mean = sum(part / 10 * f for part, f in zip(parts, forecasts, strict=True))
        losses[parts] = quantile_losses(mean, batch.future, QUANTILES).sum()
    return tuple(part / 10 for part in min(losses, key=losses.__getitem__))


def expected_shares(network: Network, members: list[Member]) -> tuple[float, ...]:
    n = len(members)
    best = best_weights(network, members)
    weights = [SHARE * weight + (1 - SHARE) / n for weight in best if weight]
    return tuple(weight / sum(weights) for weight in weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_members_that_were_trained_have_the_weights_that_their_losses_give(seed: int) -> None:
    network = started(NOISY, make_spec(members=THREE), seed=seed)
    members = list(network.members)

    log = train(network, NOISY, dataclasses.replace(STILL, epochs=2, learning_rate=0.5))

    shares = expected_shares(network, members)
    best = best_weights(network, members)
    assert log.selected == tuple(i for i, weight in enumerate(best) if weight)
    assert list(network.members) == [members[i] for i in log.selected]
    assert network.spec.members == tuple(THREE[i] for i in log.selected)
    assert network.spec.shares == pytest.approx(shares)


def err(network: Network, *errors: float) -> list[Member]:
    """Let the members forecast the same, but for an error in units of the gain; return them."""
    with torch.no_grad():
        for member, error in zip(network.members, errors, strict=True):
            member.head.weight.zero_()
            member.head.bias.view(-1, member.spec.segment)[0] += error
    return list(network.members)


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("error", [9.0, 50.0])
def test_a_member_that_harms_the_mean_is_left_out(bad: int, error: float) -> None:
    network = started(NOISY, make_spec(members=PAIR))
    members = err(network, *(error * (i == bad) for i in range(2)))

    log = train(network, NOISY, STILL)

    assert log.selected == (1 - bad,)
    assert list(network.members) == [members[1 - bad]]
    assert network.spec.shares == (1.0,)
    assert len(log.members) == 2, "a bad one trains to the end, too"


def test_members_that_err_in_opposite_ways_share_the_forecast() -> None:
    network = started(NOISY, make_spec(members=PAIR))
    members = err(network, 3.0, -1.5)
    best = best_weights(network, members)
    assert 0.1 < best[0] < best[1]

    log = train(network, NOISY, STILL)

    assert log.selected == (0, 1)
    assert network.spec.shares == pytest.approx(expected_shares(network, members))


def test_where_training_only_harms_the_members_forecast_as_they_began() -> None:
    """So the built-in member is the floor: a trained one begins as it, and cannot get worse."""
    network = started(NOISY, make_spec(members=(PLAIN, UNTRAINED)))
    network.members[1].load_state_dict(network.members[0].state_dict())
    history = make_history(NOISY[None, :32])
    before = forecast_by(network, network.members[0], history)

    config = dataclasses.replace(STILL, epochs=10, learning_rate=HARMFUL_RATE)
    log = train(network, NOISY, config)

    assert log.selected == (0, 1)
    assert [each.kept_steps for each in log.of_selected] == [0, 0]
    np.testing.assert_allclose(network.forecast(history), before, rtol=1e-12)


def test_windows_are_as_many_as_these_tests_say() -> None:
    _, windows = windows_to_train(NOISY, make_spec())
    assert -(-len(windows) // 6) == N_DISJOINT
