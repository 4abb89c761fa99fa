"""Which members are kept: the largest group whose mean forecast is as good as the best."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.model import ensemble
from rnnforecast.model.loss import quantile_losses
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.spec import QUANTILES
from tests.builders import make_spec
from tests.data.tables import few
from tests.model.fitting import (
    FOUR,
    HARMFUL_RATE,
    NOISY,
    PAIR,
    PLAIN,
    THREE,
    UNTRAINED,
    scales_of,
    short_epochs,
    started,
    train,
    windows_to_train,
)
from tests.model.networks import make_history

STILL = TrainConfig(epochs=1, batch_size=4, threads=1, learning_rate=1e-6)
N_DISJOINT = 8
"""Windows of six steps in the validation part of the noisy readings that do not overlap."""
AS_GOOD = 1 + 0.01 * math.sqrt(100 / N_DISJOINT)

Group = tuple[int, ...]


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


def losses_by_hand(network: Network, members: list[Member]) -> dict[Group, float]:
    """Return the loss of every group of these members on the validation part."""
    _, windows = windows_to_train(NOISY, network.spec)
    batch = windows.gather(np.arange(len(windows)))
    history = make_history(batch.history)
    forecasts = [network.forecast(history, [member]) for member in members]
    return {
        group: quantile_losses(
            sum(forecasts[i] for i in group) / len(group), batch.future, QUANTILES
        ).sum()
        / batch.future.size
        / scales_of(NOISY)[0]
        for size in range(1, len(members) + 1)
        for group in itertools.combinations(range(len(members)), size)
    }


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Validation that knows the loss of each group; others are very bad."""

    network: Network
    known: dict[Group, float]
    n_disjoint: int = 1000

    def losses(self, groups: list[list[Member]]) -> list[float]:
        number = {id(member): i for i, member in enumerate(self.network.members)}
        return [self.known.get(tuple(number[id(m)] for m in group), 9.0) for group in groups]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ({(0,): 1, (1,): 1, (2,): 1, (0, 1): 1, (0, 1, 2): 1.009}, (0, 1, 2)),
        ({(1,): 1, (0, 1, 2): 1.011, (0, 1): 1.009, (1, 2): 1.005, (0, 2): 1.02}, (1, 2)),
        ({(0,): 1.04, (1,): 1.08, (0, 1): 1, (0, 2): 1.02, (0, 1, 2): 1.015}, (0, 1)),
        ({(0,): 1.002, (2,): 1, (0, 2): 1.03, (0, 1, 2): 1.02}, (2,)),
        ({(0, 1): 1.001, (0, 2): 1.001, (1, 2): 1.001, (2,): 1}, (0, 1)),
    ],
    ids=["all as good", "best of the pairs", "a pair beats its parts", "one alone", "a tie"],
)
def test_the_largest_group_within_one_percent_is_kept_and_the_best_of_these(
    losses: dict[Group, float], kept: Group
) -> None:
    network = Network(make_spec(members=THREE), NetworkConfig())

    assert ensemble._select_members(network, Scripted(network, losses)) == kept  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_disjoint", "kept"), [(400, (1,)), (101, (1,)), (25, (0, 1)), (4, (0, 1, 2))]
)
def test_few_validation_windows_leave_more_groups_as_good_as_the_best(
    n_disjoint: int, kept: Group
) -> None:
    network = Network(make_spec(members=THREE), NetworkConfig())
    losses = {(1,): 1.0, (0, 1): 1.019, (0, 1, 2): 1.045}

    assert ensemble._select_members(network, Scripted(network, losses, n_disjoint)) == kept  # type: ignore[arg-type]


@cache
def network_of_four() -> Network:
    return Network(make_spec(members=FOUR), NetworkConfig())


GROUPS = [g for size in (1, 2, 3, 4) for g in itertools.combinations(range(4), size)]


@few
@given(st.lists(st.integers(1000, 1040), min_size=15, max_size=15))
def test_no_larger_group_and_none_as_large_would_be_better(drawn: list[int]) -> None:
    losses = dict(zip(GROUPS, drawn, strict=True))
    network = network_of_four()

    kept = ensemble._select_members(network, Scripted(network, losses))  # type: ignore[arg-type]

    good = [g for g in GROUPS if 100 * losses[g] <= 101 * min(drawn)]
    assert kept in good
    assert all(len(g) <= len(kept) for g in good)
    assert all(losses[kept] <= losses[g] for g in good if len(g) == len(kept))


def largest_good(losses: dict[Group, float]) -> Group:
    """Return the best of the largest groups whose loss is as good as the least."""
    good = [g for g in losses if losses[g] <= AS_GOOD * min(losses.values())]
    return min(good, key=lambda g: (-len(g), losses[g]))


@pytest.mark.parametrize("seed", [0, 1])
def test_of_members_that_were_trained_the_largest_good_group_is_kept(seed: int) -> None:
    network = started(NOISY, make_spec(members=THREE), seed=seed)
    members = list(network.members)

    log = train(network, NOISY, dataclasses.replace(STILL, epochs=3, learning_rate=0.5))

    assert log.selected == largest_good(losses_by_hand(network, members))
    assert list(network.members) == [members[i] for i in log.selected]
    assert network.spec.members == tuple(THREE[i] for i in log.selected)


def err(network: Network, *errors: float) -> list[Member]:
    """Let the members forecast the same, but for an error in units of the gain; return them."""
    with torch.no_grad():
        for member, error in zip(network.members, errors, strict=True):
            member.head.weight.zero_()
            member.head.bias.view(-1, member.spec.segment)[0] += error
    return list(network.members)


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("error", [3.0, 50.0])
def test_a_member_that_harms_the_mean_is_left_out(bad: int, error: float) -> None:
    network = started(NOISY, make_spec(members=PAIR))
    members = err(network, *(error * (i == bad) for i in range(2)))

    log = train(network, NOISY, STILL)

    losses = losses_by_hand(network, members)
    assert losses[0, 1] > AS_GOOD * losses[1 - bad,]
    assert log.selected == (1 - bad,)
    assert list(network.members) == [members[1 - bad]]
    assert len(log.members) == 2, "a bad one trains to the end, too"


def test_a_member_that_is_a_little_worse_but_does_no_harm_stays() -> None:
    network = started(NOISY, make_spec(members=PAIR))
    members = err(network, 0.0, 0.45)

    log = train(network, NOISY, STILL)

    losses = losses_by_hand(network, members)
    assert losses[0,] < losses[0, 1] < AS_GOOD * losses[0,] < losses[1,]
    assert log.selected == (0, 1)


@pytest.mark.parametrize(("third", "kept"), [(9.0, (0, 1)), (0.0, (0, 1, 2))])
def test_members_that_err_in_opposite_ways_are_better_together(third: float, kept: Group) -> None:
    network = started(NOISY, make_spec(members=THREE))
    members = err(network, 1.5, -1.5, third)

    log = train(network, NOISY, STILL)

    losses = losses_by_hand(network, members)
    assert AS_GOOD * losses[0, 1] < min(losses[0,], losses[1,])
    assert log.selected == kept


def test_where_training_only_harms_the_members_forecast_as_they_began() -> None:
    """So the built-in member is the floor: a trained one begins as it, and cannot get worse."""
    network = started(NOISY, make_spec(members=(PLAIN, UNTRAINED)))
    network.members[1].load_state_dict(network.members[0].state_dict())
    before = losses_by_hand(network, list(network.members))

    config = dataclasses.replace(STILL, epochs=10, learning_rate=HARMFUL_RATE)
    log = train(network, NOISY, config)

    assert log.selected == (0, 1)
    assert losses_by_hand(network, list(network.members)) == before
    assert [each.best_steps for each in log.of_selected] == [0, 0]
