"""The ensemble: members learn side by side, for as long as they may, and errors end them."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.windows import make_past
from rnnforecast.errors import DivergedError, WorkerError
from rnnforecast.events import EpochEnded, Event, ProgressEvent, ignore
from rnnforecast.model import ensemble, training
from rnnforecast.model.ensemble import (
    CancelToken,
    EnsembleLog,
    ProgressReporter,
    WorkQueue,
    fine_tune_members,
    train_members,
    worker_pool,
)
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.network import Network
from rnnforecast.model.training import MemberTraining
from rnnforecast.parallel import Ranks
from tests.builders import make_panel, make_spec, wave
from tests.model.fitting import FOUR, MIXED, PLAIN, SMALL, fit, split, started, weights_of
from tests.model.fitting import train as train_in_place

NOISY = wave(400, season=12, noise=2.0)
QUICK = TrainConfig(epochs=3, batch_size=16, threads=2)
HASTY = dataclasses.replace(QUICK, epochs=12, learning_rate=0.05)
PAIR = (PLAIN, MIXED)


def steps_of(log: EnsembleLog) -> list[int]:
    return [member.steps for member in log.members]


# Which threads there are


def fitted(threads: int, *, is_validated: bool = True) -> RNNForecaster:
    """Fit four members with so many threads; without validation all of them are kept."""
    panel = make_panel(NOISY)
    return RNNForecaster.fit(
        make_past(panel, np.array([280])),
        make_past(panel, np.array([340])) if is_validated else None,
        spec=make_spec(members=FOUR),
        network=SMALL,
        config=dataclasses.replace(QUICK, epochs=2, threads=threads),
    )


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 4])
def test_members_that_learn_side_by_side_learn_what_they_learn_one_by_one(threads: int) -> None:
    one, several = fitted(1), fitted(threads)

    assert several.log == one.log
    assert weights_of(several.network) == weights_of(one.network)


def test_members_that_fine_tune_side_by_side_learn_what_they_learn_one_by_one() -> None:
    first = fitted(1, is_validated=False)
    everything = make_past(make_panel(NOISY))

    one, two = (
        first.fine_tune(everything, config=dataclasses.replace(QUICK, threads=threads))
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "chunks"), [(1, [5, 10, 4]), (3, [5, 15, 10, 5]), (4, [5, 12, 3, 8, 7]), (4, [5])]
)
def test_when_the_clock_was_looked_at_changes_nothing(
    epochs: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scripted:
        def __init__(self, _config: TrainConfig, _ranks: Ranks) -> None:
            self.left = list(chunks)

        def steps_left(self, _steps: int) -> int:
            return self.left.pop(0) if self.left else 0

    config = dataclasses.replace(QUICK, epochs=epochs)
    with monkeypatch.context() as patched:
        patched.setattr(ensemble, "_Pace", Scripted)
        network, log = fit(NOISY, config, members=FOUR)
    assert log.steps == min(sum(chunks), 20 * epochs)

    repeated, other = fit(NOISY, dataclasses.replace(config, steps=log.steps), members=FOUR)

    assert other == log
    assert weights_of(repeated) == weights_of(network)


def test_a_thread_that_dies_of_lack_of_memory_ends_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is out of memory may not even pass on that it is; nobody may wait for it for ever."""
    from concurrent.futures import thread

    monkeypatch.setattr(thread._WorkItem, "run", raise_memory_error)
    with pytest.raises(WorkerError) as caught:
        fit(NOISY, QUICK, members=FOUR)
    assert caught.value.exit_code == 10


def raise_memory_error(_: object) -> None:
    raise MemoryError


def test_a_time_limit_allows_half_of_it_for_the_first_training() -> None:
    began = time.monotonic()
    fit(NOISY, dataclasses.replace(QUICK, epochs=10_000, max_time="1s"), members=PAIR)
    assert time.monotonic() - began < 2


@pytest.mark.slow
def test_progress_comes_to_its_end_although_members_drop_out() -> None:
    seen: list[Event] = []
    _, log = fit(NOISY, HASTY, seen.append, members=FOUR)
    assert len(set(steps_of(log))) > 1, "the test needs a member that stops before the others"
    progress = [event for event in seen if isinstance(event, ProgressEvent)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    assert {(event.task, event.total) for event in progress} == {("training", 4 * 12 * 20)}
    assert progress[-1].done == progress[-1].total


# Who goes on


@pytest.mark.slow
def test_every_member_goes_on_until_validation_says_that_it_gains_no_more() -> None:
    _, log = fit(NOISY, HASTY, members=FOUR)

    for own in log.members:
        assert own.steps == 12 * 20 or own.steps - own.best_steps == 3 * 20
    assert len(set(steps_of(log))) > 1, "the test needs a member that stops before the others"


def test_without_validation_all_members_go_on_and_are_kept() -> None:
    network = started(NOISY, make_spec(members=FOUR))
    windows = split(NOISY)[0].windows(24, 6)

    log = train_members(network, windows, validation=None, config=QUICK, listener=ignore)

    assert steps_of(log) == [60] * 4
    assert log.selected == (0, 1, 2, 3)
    assert network.spec.members == FOUR


def test_learning_on_takes_a_quarter_of_the_steps_to_the_best_weights_of_those_kept() -> None:
    first, seen = fitted(2), []
    learnt = first.fine_tune(make_past(make_panel(NOISY)), config=QUICK, listener=seen.append)
    best = [first.log.members[i].best_steps for i in first.log.selected]
    assert learnt.fine_tune_steps == tuple(round(steps / 4) for steps in best)
    assert seen[-1].done == seen[-1].total == sum(learnt.fine_tune_steps)


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
    fine_tune_members(network, windows, n_steps=n_steps, config=config, listener=listen)

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
        step, learn = MemberTraining.step, training.train_step

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
        self.of_learning_on = lambda: monkeypatch.setattr(training, "train_step", slow_take)


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
    network = started(NOISY, make_spec(members=PAIR))
    windows = split(NOISY)[1].windows(24, 6)
    with pytest.raises(DivergedError, match="the loss became nan"):
        fine_tune_members(network, windows, n_steps=[40, 40], config=QUICK, listener=ignore)
    assert slow.counts[1 - failing] < 20


def test_a_loss_that_is_not_finite_reaches_the_caller() -> None:
    network = started(NOISY, make_spec(members=PAIR))
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

    network = started(NOISY, make_spec(members=PAIR))
    windows = split(NOISY)[1].windows(24, 6)
    with pytest.raises(KeyboardInterrupt):
        fine_tune_members(network, windows, n_steps=[9, 9], config=QUICK, listener=listen)


# WorkQueue


class Scripted:
    """A member whose steps take no time; it notes who takes them."""

    def __init__(self, index: int, lookback: int, taken: list[int], fails_at: int = -1) -> None:
        self.index, self.lookback, self.taken, self.fails_at = index, lookback, taken, fails_at
        self.is_at_it = False

    def step(self) -> None:
        assert not self.is_at_it, "one member is in two threads"
        self.is_at_it = True
        self.taken.append(self.index)
        if self.taken.count(self.index) == self.fails_at:
            raise RuntimeError("a step failed")
        self.is_at_it = False


def take_turns(members: list[Scripted], n_workers: int, n_steps: int) -> None:
    config = dataclasses.replace(QUICK, threads=n_workers)
    told = ProgressReporter(lambda _event: None, "training", n_steps * len(members))
    with worker_pool(len(members), config, torch.device("cpu"), told) as workers:
        workers.run(WorkQueue(dict.fromkeys(members, n_steps)), told)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("n_steps", [1, 4, 30])
def test_every_member_takes_its_steps_in_one_thread_at_a_time(n_workers: int, n_steps: int) -> None:
    taken: list[int] = []
    take_turns([Scripted(i, 96, taken) for i in range(3)], n_workers, n_steps)
    assert sorted(taken) == [i for i in range(3) for _ in range(n_steps)]


def test_with_one_thread_the_one_with_most_to_do_comes_first() -> None:
    taken: list[int] = []
    take_turns([Scripted(0, 40, taken), Scripted(1, 96, taken)], 1, 8)
    assert taken == [1] * 8 + [0] * 8


def test_a_step_that_fails_ends_all_turns() -> None:
    taken: list[int] = []
    with pytest.raises(RuntimeError, match="a step failed"):
        take_turns([Scripted(i, 96, taken, fails_at=6 if i else -1) for i in range(3)], 2, 1000)
    assert len(taken) < 3000


def test_what_is_given_up_takes_not_one_step_more() -> None:
    taken: list[int] = []
    token = CancelToken()

    class Last(Scripted):
        def step(self) -> None:
            super().step()
            token.cancel()

    told = ProgressReporter(lambda _event: None, "training", 30)
    WorkQueue({Last(0, 96, taken): 30}).work(told, token)  # type: ignore[dict-item]
    assert taken == [0]
