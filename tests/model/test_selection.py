"""Which members are kept: the largest group whose mean forecast is as good as the best."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config.training import TrainConfig
from rnnforecast.model import ensemble
from rnnforecast.model.loss import quantile_loss
from rnnforecast.model.network import Member, Network
from tests.builders import make_spec, wave
from tests.data.tables import few
from tests.model.fitting import FOUR, PLAIN, SHORT, SMALL, split, started, train

NOISY = wave(400, season=12, noise=2.0)
QUICK = TrainConfig(epochs=3, batch_size=16, threads=2)
STILL = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-6)
PAIR = (PLAIN, PLAIN)
THREE = (PLAIN, PLAIN, SHORT)

AS_GOOD = 1 + 0.01 * math.sqrt(100 / 16)
"""The validation part of the noisy readings has 16 windows of six steps apart from each other."""

Group = tuple[int, ...]


def losses_by_hand(network: Network, members: list[Member]) -> dict[Group, float]:
    """Return the loss of every group of these members on the validation part."""
    first, everything = split(NOISY)
    windows = everything.windows(24, 6, targets_after=first)
    batch = windows.gather(np.arange(len(windows)))
    center, scale = network.center[1], network.scale[1]
    history, future = (
        (torch.from_numpy(x) - center) / scale for x in (batch.history, batch.future)
    )
    series, step = torch.ones(len(history)).long(), torch.from_numpy(batch.next_step)
    with torch.no_grad():
        made = [member(history, series, step) for member in members]
    return {
        group: quantile_loss(
            sum(made[i] for i in group) / len(group), future, network.spec.quantiles
        ).item()
        for size in range(1, len(members) + 1)
        for group in itertools.combinations(range(len(members)), size)
    }


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Validation that knows the loss of each group; of others it says that they are very bad."""

    known: dict[Group, float]
    n_disjoint: int = 1000

    def losses(
        self, network: Network, groups: list[list[Member]], *, max_windows: int
    ) -> list[float]:
        assert max_windows > 0
        number = {id(member): i for i, member in enumerate(network.members)}
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
    network = Network(make_spec(members=THREE), SMALL)

    assert ensemble._select_members(network, Scripted(losses)) == kept  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_disjoint", "kept"), [(400, (1,)), (101, (1,)), (25, (0, 1)), (4, (0, 1, 2))]
)
def test_few_validation_windows_leave_more_groups_as_good_as_the_best(
    n_disjoint: int, kept: Group
) -> None:
    network = Network(make_spec(members=THREE), SMALL)
    losses = {(1,): 1.0, (0, 1): 1.019, (0, 1, 2): 1.045}

    assert ensemble._select_members(network, Scripted(losses, n_disjoint)) == kept  # type: ignore[arg-type]


GROUPS = [g for size in (1, 2, 3, 4) for g in itertools.combinations(range(4), size)]


@few
@given(st.lists(st.integers(1000, 1040), min_size=15, max_size=15))
def test_no_larger_group_and_none_as_large_would_be_better(drawn: list[int]) -> None:
    losses = dict(zip(GROUPS, drawn, strict=True))
    network = Network(make_spec(members=FOUR), SMALL)

    kept = ensemble._select_members(network, Scripted(losses))  # type: ignore[arg-type]

    good = [g for g in GROUPS if 100 * losses[g] <= 101 * min(drawn)]
    assert kept in good
    assert all(len(g) <= len(kept) for g in good)
    assert all(losses[kept] <= losses[g] for g in good if len(g) == len(kept))


def largest_good(losses: dict[Group, float]) -> Group:
    """Return the best of the largest groups whose loss is as good as the least."""
    good = [g for g in losses if losses[g] <= AS_GOOD * min(losses.values())]
    return min(good, key=lambda g: (-len(g), losses[g]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_members_that_learnt_the_largest_good_group_is_kept(seed: int) -> None:
    network = started(NOISY, make_spec(members=THREE), seed=seed)
    everyone = list(network.members)

    log = train(network, NOISY, QUICK)

    assert log.selected == largest_good(losses_by_hand(network, everyone))
    assert list(network.members) == [everyone[i] for i in log.selected]
    assert network.spec.members == tuple(THREE[i] for i in log.selected)


def err(network: Network, *errors: float) -> list[Member]:
    """Let the members forecast the same, but for an error, in units of the series; return them."""
    with torch.no_grad():
        for member, error in zip(network.members, errors, strict=True):
            member.head.weight.zero_()
            member.head.bias.view(6, -1)[:, network.spec.median] += error
    return list(network.members)


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("error", [0.4, 50.0])
def test_a_member_that_harms_the_mean_is_left_out(bad: int, error: float) -> None:
    network = started(NOISY, make_spec(members=PAIR))
    everyone = err(network, *(error * (i == bad) for i in range(2)))

    log = train(network, NOISY, STILL)

    losses = losses_by_hand(network, everyone)
    assert losses[0, 1] > AS_GOOD * losses[1 - bad,]
    assert log.selected == (1 - bad,)
    assert list(network.members) == [everyone[1 - bad]]
    assert [own.steps for own in log.members] == [20, 20], "a bad one learns to the end too"


def test_a_member_that_is_a_little_worse_but_does_no_harm_stays() -> None:
    network = started(NOISY, make_spec(members=PAIR))
    everyone = err(network, 0.0, 0.15)

    log = train(network, NOISY, STILL)

    losses = losses_by_hand(network, everyone)
    assert losses[0,] < losses[0, 1] < AS_GOOD * losses[0,] < losses[1,]
    assert log.selected == (0, 1)


@pytest.mark.parametrize(("third", "kept"), [(4.0, (0, 1)), (0.0, (0, 1, 2))])
def test_members_that_err_in_opposite_ways_are_better_together(third: float, kept: Group) -> None:
    network = started(NOISY, make_spec(members=THREE))
    everyone = err(network, 1.0, -1.0, third)

    log = train(network, NOISY, STILL)

    losses = losses_by_hand(network, everyone)
    assert AS_GOOD * losses[0, 1] < min(losses[0,], losses[1,])
    assert log.selected == kept


def test_the_look_back_shrinks_to_what_the_kept_members_need() -> None:
    network = started(NOISY, make_spec(members=(PLAIN, SHORT)))
    torch.nn.init.constant_(network.members[0].head.bias, 50.0)

    train(network, NOISY, STILL)

    assert network.spec.lookback == SHORT.lookback
