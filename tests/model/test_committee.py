"""The committee: members learn side by side, and the largest group that is good is kept."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config import TrainConfig
from rnnforecast.data.forecast import past_of
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded, Event, Progressed, ignore
from rnnforecast.model import committee, training
from rnnforecast.model.committee import CommitteeLog, learn_on_members, train_members
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.loss import quantile_loss
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.model.training import MemberTraining
from tests.builders import make_panel, make_task, wave
from tests.data.tables import few
from tests.model.fitting import FOUR, MIXED, PLAIN, SHORT, SMALL, fit, split, started, weights_of
from tests.model.fitting import train as train_in_place

NOISY = wave(400, season=12, noise=2.0)
QUICK = TrainConfig(epochs=3, batch_size=16, threads=2)
HASTY = dataclasses.replace(QUICK, epochs=12, learning_rate=0.05)
STILL = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-6)
PAIR = (PLAIN, MIXED)
THREE = (PLAIN, MIXED, SHORT)


def losses_by_hand(network: Network, members: list[torch.nn.Module]) -> dict[tuple, float]:
    """Return the loss of every group of these members on the validation part."""
    train, everything = split(NOISY)
    windows = everything.windows(24, 6, targets_after=train)
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
            sum(made[i] for i in group) / len(group), future, network.task.quantiles
        ).item()
        for size in range(1, len(members) + 1)
        for group in itertools.combinations(range(len(members)), size)
    }


def steps_of(log: CommitteeLog) -> list[int]:
    return [member.steps for member in log.members]


# Which threads there are


def fitted(threads: int, *, is_validated: bool = True) -> RNNForecaster:
    """Fit four members with so many threads; without validation all of them are kept."""
    panel = make_panel(NOISY)
    return RNNForecaster.fit(
        past_of(panel, np.array([280])),
        past_of(panel, np.array([340])) if is_validated else None,
        task=make_task(members=FOUR),
        network=SMALL,
        config=dataclasses.replace(QUICK, epochs=2, threads=threads),
    )


@pytest.mark.parametrize("threads", [2, 4])
def test_members_that_learn_side_by_side_learn_what_they_learn_one_by_one(threads: int) -> None:
    one, several = fitted(1), fitted(threads)

    assert several.log == one.log
    assert weights_of(several.network) == weights_of(one.network)


def test_members_that_learn_on_side_by_side_learn_what_they_learn_one_by_one() -> None:
    first = fitted(1, is_validated=False)
    everything = past_of(make_panel(NOISY))

    one, two = (
        first.learn_on(everything, config=dataclasses.replace(QUICK, threads=threads))
        for threads in (1, 2)
    )

    assert len(one.network.members) == 4
    assert weights_of(two.network) == weights_of(one.network) != weights_of(first.network)


# How long it lasts


def test_what_a_time_limit_ended_can_be_repeated_with_as_many_steps() -> None:
    config = dataclasses.replace(QUICK, epochs=1000, max_time="600ms")
    network, log = fit(NOISY, config, members=FOUR)
    assert 0 < log.steps < 40_000
    again = dataclasses.replace(config, max_time=None, steps=log.steps)

    repeated, other = fit(NOISY, again, members=FOUR)

    assert other == log
    assert weights_of(repeated) == weights_of(network)


@pytest.mark.parametrize(
    ("epochs", "chunks"), [(1, [5, 10, 4]), (3, [5, 15, 10, 5]), (4, [5, 12, 3, 8, 7]), (4, [5])]
)
def test_when_the_clock_was_looked_at_changes_nothing(
    epochs: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scripted:
        def __init__(self, _config: TrainConfig) -> None:
            self.left = list(chunks)

        def steps_left(self, _steps: int) -> int:
            return self.left.pop(0) if self.left else 0

    config = dataclasses.replace(QUICK, epochs=epochs)
    with monkeypatch.context() as patched:
        patched.setattr(committee, "_Pace", Scripted)
        network, log = fit(NOISY, config, members=FOUR)
    assert log.steps == min(sum(chunks), 20 * epochs)

    repeated, other = fit(NOISY, dataclasses.replace(config, steps=log.steps), members=FOUR)

    assert other == log
    assert weights_of(repeated) == weights_of(network)


def test_a_time_limit_allows_half_of_it_for_the_first_training() -> None:
    began = time.monotonic()
    fit(NOISY, dataclasses.replace(QUICK, epochs=10_000, max_time="1s"), members=PAIR)
    assert time.monotonic() - began < 2


def test_progress_comes_to_its_end_although_members_drop_out() -> None:
    seen: list[Event] = []
    _, log = fit(NOISY, HASTY, seen.append, members=FOUR)
    assert len(set(steps_of(log))) > 1, "the test needs a member that stops before the others"
    progress = [event for event in seen if isinstance(event, Progressed)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    assert {(event.task, event.total) for event in progress} == {("training", 4 * 12 * 20)}
    assert progress[-1].done == progress[-1].total


# Who is kept


def test_every_member_goes_on_until_validation_says_that_it_gains_no_more() -> None:
    _, log = fit(NOISY, HASTY, members=FOUR)

    for own in log.members:
        assert own.steps == 12 * 20 or own.steps - own.best_steps == 3 * 20
    assert len(set(steps_of(log))) > 1, "the test needs a member that stops before the others"


def test_without_validation_all_members_go_on_and_are_kept() -> None:
    network = started(NOISY, make_task(members=FOUR))
    windows = split(NOISY)[0].windows(24, 6)

    log = train_members(network, windows, validation=None, config=QUICK, listener=ignore)

    assert steps_of(log) == [60] * 4
    assert log.kept == (0, 1, 2, 3)
    assert network.task.members == FOUR


Group = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Validation that knows the loss of each group; of others it says that they are very bad."""

    known: dict[Group, float]

    def losses(self, network: Network, groups: list[list[Member]], *, most: int) -> list[float]:
        assert most > 0
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
    network = Network(make_task(members=THREE), SMALL)

    assert committee._best_group(network, Scripted(losses)) == kept  # type: ignore[arg-type]


GROUPS = [g for size in (1, 2, 3, 4) for g in itertools.combinations(range(4), size)]


@few
@given(st.lists(st.integers(1000, 1040), min_size=15, max_size=15))
def test_no_larger_group_and_none_as_large_would_be_better(drawn: list[int]) -> None:
    losses = dict(zip(GROUPS, drawn, strict=True))
    network = Network(make_task(members=FOUR), SMALL)

    kept = committee._best_group(network, Scripted(losses))  # type: ignore[arg-type]

    good = [g for g in GROUPS if 100 * losses[g] <= 101 * min(drawn)]
    assert kept in good
    assert all(len(g) <= len(kept) for g in good)
    assert all(losses[kept] <= losses[g] for g in good if len(g) == len(kept))


def largest_good(losses: dict[Group, float]) -> Group:
    """Return the best of the largest groups whose loss is within one percent of the least."""
    good = [g for g in losses if losses[g] <= 1.01 * min(losses.values())]
    return min(good, key=lambda g: (-len(g), losses[g]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_members_that_learnt_the_largest_good_group_is_kept(seed: int) -> None:
    network = started(NOISY, make_task(members=THREE), seed=seed)
    everyone = list(network.members)

    log = train_in_place(network, NOISY, QUICK)

    assert log.kept == largest_good(losses_by_hand(network, everyone))
    assert list(network.members) == [everyone[i] for i in log.kept]
    assert network.task.members == tuple(THREE[i] for i in log.kept)


def err(network: Network, *errors: float) -> list[Member]:
    """Let the members forecast the same, but for an error, in units of the series; return them."""
    with torch.no_grad():
        for member, error in zip(network.members, errors, strict=True):
            member.head.weight.zero_()
            member.head.bias.view(6, -1)[:, network.task.median] += error
    return list(network.members)


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("error", [0.4, 50.0])
def test_a_member_that_harms_the_mean_is_left_out(bad: int, error: float) -> None:
    network = started(NOISY, make_task(members=PAIR))
    everyone = err(network, *(error * (i == bad) for i in range(2)))

    log = train_in_place(network, NOISY, STILL)

    losses = losses_by_hand(network, everyone)
    assert losses[0, 1] > 1.01 * losses[1 - bad,]
    assert log.kept == (1 - bad,)
    assert network.task.members == (PAIR[1 - bad],)
    assert steps_of(log) == [20, 20], "a bad one learns to the end too"


def test_a_member_that_is_a_little_worse_but_does_no_harm_stays() -> None:
    network = started(NOISY, make_task(members=PAIR))
    everyone = err(network, 0.0, 0.25)

    log = train_in_place(network, NOISY, STILL)

    losses = losses_by_hand(network, everyone)
    assert losses[0,] < losses[0, 1] < 1.01 * losses[0,] < losses[1,]
    assert log.kept == (0, 1)


@pytest.mark.parametrize(("third", "kept"), [(4.0, (0, 1)), (0.0, (0, 1, 2))])
def test_members_that_err_in_opposite_ways_are_better_together(third: float, kept: Group) -> None:
    network = started(NOISY, make_task(members=THREE))
    everyone = err(network, 1.0, -1.0, third)

    log = train_in_place(network, NOISY, STILL)

    losses = losses_by_hand(network, everyone)
    assert 1.01 * losses[0, 1] < min(losses[0,], losses[1,])
    assert log.kept == kept


def test_the_look_back_shrinks_to_what_the_kept_members_need() -> None:
    network = started(NOISY, make_task(members=(PLAIN, SHORT)))
    torch.nn.init.constant_(network.members[0].head.bias, 50.0)

    train_in_place(network, NOISY, dataclasses.replace(QUICK, learning_rate=1e-6, epochs=1))

    assert network.task.lookback == SHORT.lookback


def test_learning_on_takes_a_quarter_of_the_steps_to_the_best_weights_of_those_kept() -> None:
    first, seen = fitted(2), []
    learnt = first.learn_on(past_of(make_panel(NOISY)), config=QUICK, listener=seen.append)
    best = [first.log.members[i].best_steps for i in first.log.kept]
    assert learnt.learn_on_steps == tuple(round(steps / 4) for steps in best)
    assert seen[-1].done == seen[-1].total == sum(learnt.learn_on_steps)


# Listeners, errors and signals


def test_events_of_several_threads_come_one_at_a_time() -> None:
    inside, threads, overlaps = [], set(), []

    def listen(_event: Event) -> None:
        overlaps.extend(inside)
        inside.append(threading.get_ident())
        threads.add(threading.get_ident())
        time.sleep(0.001)
        inside.pop()

    config = dataclasses.replace(QUICK, epochs=1)
    network, _ = fit(NOISY, config, listen, members=PAIR)
    windows = split(NOISY)[1].windows(24, 6)
    n_steps = [20] * len(network.members)
    learn_on_members(network, windows, n_steps=n_steps, config=config, listener=listen)

    assert len(threads) >= 2, "the test needs several threads"
    assert not overlaps


def test_every_epoch_of_every_member_is_told_once() -> None:
    seen: list[Event] = []
    _, log = fit(NOISY, QUICK, seen.append, members=FOUR)
    told = [event for event in seen if isinstance(event, EpochEnded)]
    assert sorted(told, key=lambda e: (e.member, e.epoch)) == list(log.epochs)
    for number, member in enumerate(log.members):
        assert {event.member for event in member.epochs} == {number}


class Slow:
    """Lets a member take its steps slowly, and counts them; one of them fails at its second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failing: int) -> None:
        self.counts = {0: 0, 1: 0}
        step, learn = MemberTraining.step, training.take_step

        def count(index: int) -> None:
            self.counts[index] += 1
            if index == failing and self.counts[index] == 2:
                raise DivergedError("the loss became nan")
            time.sleep(0.02)

        def slow_step(one: MemberTraining) -> EpochEnded | None:
            count(one.index)
            return step(one)

        def slow_take(network: Network, member: torch.nn.Module, *rest: object, **more: object):
            count(list(network.members).index(member))
            return learn(network, member, *rest, **more)

        self.of_training = lambda: monkeypatch.setattr(MemberTraining, "step", slow_step)
        self.of_learning_on = lambda: monkeypatch.setattr(training, "take_step", slow_take)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_member_reaches_the_caller_and_ends_the_others_soon(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, failing=failing)
    slow.of_training()
    with pytest.raises(DivergedError, match="the loss became nan"):
        fit(NOISY, QUICK, members=PAIR)
    assert slow.counts[1 - failing] < 20


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_while_learning_on_ends_the_others_soon(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, failing=failing)
    slow.of_learning_on()
    network = started(NOISY, make_task(members=PAIR))
    windows = split(NOISY)[1].windows(24, 6)
    with pytest.raises(DivergedError, match="the loss became nan"):
        learn_on_members(network, windows, n_steps=[40, 40], config=QUICK, listener=ignore)
    assert slow.counts[1 - failing] < 20


def test_a_loss_that_is_not_finite_reaches_the_caller() -> None:
    network = started(NOISY, make_task(members=PAIR))
    torch.nn.init.constant_(network.members[1].head.bias, float("nan"))
    with pytest.raises(DivergedError) as caught:
        train_in_place(network, NOISY, QUICK)
    assert "--learning-rate" in (caught.value.hint or "")


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_that_a_listener_raises_ends_the_training_soon(threads: int) -> None:
    told: list[Event] = []

    def listen(event: Event) -> None:
        told.append(event)
        time.sleep(0.005)
        if len(told) == 5:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        fit(NOISY, dataclasses.replace(QUICK, threads=threads), listen, members=PAIR)
    assert len(told) < 25
    assert set(threading.enumerate()) <= before, "no thread goes on"


def test_an_error_of_a_listener_while_learning_on_reaches_the_caller() -> None:
    def listen(_event: Event) -> None:
        raise KeyboardInterrupt

    network = started(NOISY, make_task(members=PAIR))
    windows = split(NOISY)[1].windows(24, 6)
    with pytest.raises(KeyboardInterrupt):
        learn_on_members(network, windows, n_steps=[9, 9], config=QUICK, listener=listen)
