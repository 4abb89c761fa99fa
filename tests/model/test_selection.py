"""How members are weighed by their loss on validation windows, and which of them are kept."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from rnnforecast.config.training import TrainConfig
from rnnforecast.model import training
from rnnforecast.model.loss import quantile_losses
from rnnforecast.model.member import Member, make_member
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
from tests.model.networks import draw_network, forecast_by, make_history, with_weights

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
    best: Weights,
    *,
    n_disjoint: int,
    n_windows: float = 1e9,
    members: tuple[MemberSpec, ...] = (PLAIN, SEES, UNTRAINED),
) -> Weights:
    """Weigh members where these weights have the least loss."""
    spec = dataclasses.replace(make_spec(members=members), n_past=1)

    def loss(weights: Weights) -> float:
        return 1 + sum((w - b) ** 2 for w, b in zip(weights, best, strict=True))

    network = draw_network(spec)
    modules = [make_member(network, i) for i in range(len(members))]
    return training._weigh_members(modules, n_windows, Scripted(loss, n_disjoint))  # type: ignore[arg-type]


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


@pytest.mark.parametrize(("n_windows", "usual"), [(0.0, 0.0), (7.0, 0.35), (63.0, 0.63)])
def test_what_was_trained_on_few_windows_counts_little(n_windows: float, usual: float) -> None:
    weights = weigh((0.5, 0.5), n_disjoint=0, n_windows=n_windows, members=(PLAIN, UNTRAINED))
    assert weights == pytest.approx((usual, 1 - usual))


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


@pytest.mark.parametrize(
    ("best", "n_disjoint", "kept"),
    [
        ((1.0, 0.0), 149, (0, 1)),
        ((1.0, 0.0), 151, (0,)),
        ((0.0, 1.0), 1000, (0, 1)),
    ],
)
def test_the_built_in_member_goes_where_it_counts_little_and_the_only_trained_one_stays(
    best: Weights, n_disjoint: int, kept: tuple[int, ...]
) -> None:
    weights = weigh(best, n_disjoint=n_disjoint, members=(PLAIN, UNTRAINED))
    assert tuple(i for i, weight in enumerate(weights) if weight) == kept
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
    network = draw_network(dataclasses.replace(make_spec(members=members), n_past=1))
    modules = [make_member(network, i) for i in range(len(members))]
    assert training._weigh_members(modules, 1e9, None) == pytest.approx(weights)


def best_weights(network: Network) -> Weights:
    """Return the weights with the least loss, by a loop over weights and windows."""
    _, windows = windows_to_train(NOISY, network.spec)
    batch = windows.gather(np.arange(len(windows)))
    history = make_history(batch.history)
    forecasts = [forecast_by(network, member, history) for member in network.members]
    losses = {}
    for parts in itertools.product(range(11), repeat=len(forecasts)):
        if sum(parts) != 10:
            continue
        mean = sum(part / 10 * f for part, f in zip(parts, forecasts, strict=True))
        losses[parts] = quantile_losses(mean, batch.future, QUANTILES).sum()
    return tuple(part / 10 for part in min(losses, key=losses.__getitem__))


def expected_shares(network: Network) -> tuple[float, ...]:
    n = len(network.members)
    best = best_weights(network)
    weights = [SHARE * weight + (1 - SHARE) / n for weight in best if weight]
    return tuple(weight / sum(weights) for weight in weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_members_that_were_trained_have_the_weights_that_their_losses_give(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, weigh_members = [], Network.weigh_members

    def recorded(self: Network, weights: Weights) -> tuple[Network, tuple[int, ...]]:
        networks.append(self)
        return weigh_members(self, weights)

    monkeypatch.setattr(Network, "weigh_members", recorded)
    begun = started(NOISY, make_spec(members=THREE), seed=seed)

    network, log = train(begun, NOISY, dataclasses.replace(STILL, epochs=2, learning_rate=0.5))

    (trained,) = networks
    best = best_weights(trained)
    assert log.selected == tuple(i for i, weight in enumerate(best) if weight)
    assert list(network.members) == [trained.members[i] for i in log.selected]
    assert network.spec.members == tuple(THREE[i] for i in log.selected)
    assert network.spec.shares == pytest.approx(expected_shares(trained))


def erring(network: Network, *errors: float) -> Network:
    """Let the members forecast the same, but for an error in units of the gain."""
    for number, error in enumerate(errors):
        tensors, segment = network.members[number].tensors, network.spec.members[number].segment
        bias = tensors["head.bias"].copy()
        bias[:segment] += error
        changed = {"head.weight": np.zeros_like(tensors["head.weight"]), "head.bias": bias}
        network = with_weights(network, number, changed)
    return network


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("error", [9.0, 50.0])
def test_a_member_that_harms_the_mean_is_left_out(bad: int, error: float) -> None:
    network = started(NOISY, make_spec(members=PAIR))
    network = erring(network, *(error * (i == bad) for i in range(2)))

    network, log = train(network, NOISY, STILL)

    assert log.selected == (1 - bad,)
    assert [member.spec for member in network.members] == [PAIR[1 - bad]]
    assert network.spec.shares == (1.0,)
    assert len(log.members) == 2, "a bad one trains to the end, too"


def test_members_that_err_in_opposite_ways_share_the_forecast() -> None:
    network = erring(started(NOISY, make_spec(members=PAIR)), 3.0, -1.5)
    best = best_weights(network)
    assert 0.1 < best[0] < best[1]

    network, log = train(network, NOISY, STILL)

    assert log.selected == (0, 1)
    assert network.spec.shares == pytest.approx(expected_shares(network))


def test_where_training_only_harms_the_members_forecast_as_they_began() -> None:
    """So the built-in member is the floor: a trained one begins as it, and cannot get worse."""
    network = started(NOISY, make_spec(members=(PLAIN, UNTRAINED)))
    first, second = network.members
    second = dataclasses.replace(second, tensors=first.tensors)
    network = dataclasses.replace(network, members=(first, second))
    history = make_history(NOISY[None, :32])
    before = forecast_by(network, network.members[0], history)

    config = dataclasses.replace(STILL, epochs=10, learning_rate=HARMFUL_RATE)
    network, log = train(network, NOISY, config)

    assert log.selected == (0, 1)
    assert [each.kept_steps for each in log.of_selected] == [0, 0]
    np.testing.assert_allclose(network.forecast(history), before, rtol=1e-12)


def test_windows_are_as_many_as_these_tests_say() -> None:
    _, windows = windows_to_train(NOISY, make_spec())
    assert -(-len(windows) // 6) == N_DISJOINT
