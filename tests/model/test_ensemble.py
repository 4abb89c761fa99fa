"""The ensemble: members learn side by side, for as long as they may, and errors end them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.windows import make_past
from rnnforecast.errors import DivergedError, WorkerError
from rnnforecast.events import EpochEnded, Event, Notice, ProgressEvent, WarningEvent
from rnnforecast.model import ensemble, training
from rnnforecast.model.ensemble import (
    CancelToken,
    EnsembleLog,
    ProgressReporter,
    WorkQueue,
    fine_tune_members,
    worker_pool,
)
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.network import Network
from rnnforecast.model.training import MemberTraining
from rnnforecast.parallel import SINGLE_PROCESS, Ranks
from tests.builders import make_panel, make_spec
from tests.model.fitting import (
    DAY,
    EPOCH,
    FOUR,
    HARMFUL_RATE,
    NOISY,
    PAIR,
    THREE,
    fit,
    scales_of,
    short_epochs,
    started,
    train,
    weights_of,
    windows_to_train,
)

QUICK = TrainConfig(epochs=2, batch_size=8, threads=2)
LONG = dataclasses.replace(QUICK, epochs=1000)
HASTY = dataclasses.replace(QUICK, epochs=12, learning_rate=1.0)


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


def steps_of(log: EnsembleLog) -> list[int]:
    return [member.steps for member in log.members]


def fine_tune(network: Network, n_steps: list[int], listener=lambda _: None, **options) -> None:
    """Let members take so many more steps, in place."""
    windows, _ = windows_to_train(NOISY, network.spec)
    fine_tune_members(
        network,
        windows,
        scales=scales_of(NOISY),
        n_steps=n_steps,
        config=dataclasses.replace(QUICK, **options),
        listener=listener,
    )


# Which threads there are


def fitted(threads: int) -> RNNForecaster:
    """Fit three members and an untrained one with so many threads, without validation."""
    return RNNForecaster.fit(
        make_past(make_panel(NOISY), np.array([150])),
        None,
        spec=make_spec(members=FOUR),
        network=NetworkConfig(),
        config=dataclasses.replace(QUICK, threads=threads, steps=3),
        told=DAY,
    )


def test_members_that_train_side_by_side_come_to_what_they_come_to_one_by_one() -> None:
    single, several = fitted(1), fitted(3)

    assert several.log == single.log
    assert weights_of(several.network) == weights_of(single.network)


def test_members_that_fine_tune_side_by_side_come_to_what_they_come_to_one_by_one() -> None:
    first = fitted(1)
    everything = make_past(make_panel(NOISY))

    single, several = (
        first.fine_tune(everything, config=dataclasses.replace(QUICK, threads=threads))
        for threads in (1, 2)
    )

    assert len(single.network.members) == 4
    assert weights_of(several.network) == weights_of(single.network) != weights_of(first.network)
    before, after = (weights_of(f.network.members[3]) for f in (first, single))
    assert before == after, "the built-in member stays as it is"


# How long it lasts


def test_training_that_a_time_limit_ended_can_be_repeated_with_as_many_steps() -> None:
    config = dataclasses.replace(QUICK, epochs=1000, max_time="400ms")
    network, log = fit(NOISY, config, members=PAIR)
    assert 0 < log.steps < 4000
    again = dataclasses.replace(config, max_time=None, steps=log.steps)

    repeated, log_of_repeated = fit(NOISY, again, members=PAIR)

    assert log_of_repeated == log
    assert weights_of(repeated) == weights_of(network)


@pytest.mark.parametrize(
    ("epochs", "chunks"), [(1, [1, 2, 1]), (3, [1, 3, 2, 1]), (4, [1, 2, 1, 1, 2]), (4, [3])]
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
        network, log = fit(NOISY, config, members=PAIR)
    assert log.steps == min(sum(chunks), EPOCH * epochs)

    repeated, log_of_repeated = fit(
        NOISY, dataclasses.replace(config, steps=log.steps), members=PAIR
    )

    assert log_of_repeated == log
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


def test_a_time_limit_allows_half_of_it_for_the_first_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = ensemble._Pace(dataclasses.replace(QUICK, max_time="20s"), SINGLE_PROCESS)
    assert pace.steps_left(0) == 5
    now = 102.0
    assert pace.steps_left(5) == 20, "8 of 10 seconds are left, and 5 steps took 2"
    now = 111.0
    assert pace.steps_left(28) < 0
    unlimited = ensemble._Pace(QUICK, SINGLE_PROCESS)
    assert unlimited.steps_left(0) > 1 << 60


def test_progress_comes_to_its_end_although_members_drop_out() -> None:
    events: list[Event] = []
    _, log = fit(NOISY, HASTY, events.append, members=THREE)
    assert len(set(steps_of(log))) > 1, "the test needs a member that stops before the others"
    for member in log.members:
        assert member.steps == 12 * EPOCH or member.steps - member.best_steps >= 4 * EPOCH
    progress = [event for event in events if isinstance(event, ProgressEvent)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    total = 3 * 12 * EPOCH
    assert {(event.task, event.total) for event in progress} == {("training", total)}
    assert progress[-1].done == progress[-1].total


# Who trains


def test_without_validation_all_members_train_to_the_end_and_are_kept() -> None:
    network = started(NOISY, make_spec(members=FOUR))

    log = train(network, NOISY, QUICK, validates=False)

    assert steps_of(log) == [2 * EPOCH] * 3
    assert log.selected == (0, 1, 2, 3)
    assert network.spec.members == FOUR
    assert [each.best_steps for each in log.of_selected] == [2 * EPOCH] * 3 + [0]


def test_a_member_that_is_not_trained_stays_as_it_is() -> None:
    network = started(NOISY, make_spec(members=FOUR))
    before = weights_of(network)
    train(network, NOISY, QUICK, validates=False)
    after = weights_of(network)
    changed = {name.split(".")[1] for name in before if before[name] != after[name]}
    assert changed == {"0", "1", "2"}


def test_fine_tuning_takes_a_quarter_of_the_steps_to_the_best_weights_of_those_kept() -> None:
    first, events = fitted(2), []
    tuned = first.fine_tune(make_past(make_panel(NOISY)), config=QUICK, listener=events.append)
    assert first.log is not None
    assert [each.best_steps for each in first.log.of_selected] == [3, 3, 3, 0]
    assert tuned.fine_tune_steps == (1, 1, 1, 0)
    assert events[-1].done == events[-1].total == sum(tuned.fine_tune_steps)


def test_members_whose_gradients_explode_are_warned_of() -> None:
    events: list[Event] = []
    fit(NOISY, dataclasses.replace(QUICK, learning_rate=HARMFUL_RATE), events.append, members=PAIR)
    warnings = [event for event in events if isinstance(event, WarningEvent)]
    assert {event.code for event in warnings} == {"exploding-gradients"}
    assert all("--learning-rate" in event.message for event in warnings)


def test_the_end_of_a_training_says_how_many_members_forecast() -> None:
    events: list[Event] = []
    _, log = fit(NOISY, QUICK, events.append, members=FOUR)
    notice = [event.message for event in events if isinstance(event, Notice)][-1]
    assert notice == f"trained 3 members, {2 * EPOCH} steps; of all 4 {len(log.selected)} forecast"


# Listeners, errors and signals


def test_events_of_several_threads_come_one_at_a_time() -> None:
    inside, threads, overlaps = [], set(), []

    def listen(_event: Event) -> None:
        overlaps.extend(inside)
        inside.append(threading.get_ident())
        threads.add(threading.get_ident())
        time.sleep(0.001)
        inside.pop()

    network = started(NOISY, make_spec(members=PAIR))
    train(network, NOISY, QUICK, listen, validates=False)
    fine_tune(network, [8, 8], listen)

    assert len(threads) >= 2, "the test needs several threads"
    assert not overlaps


def test_every_epoch_of_every_member_is_reported_once() -> None:
    seen: list[Event] = []
    _, log = fit(NOISY, QUICK, seen.append, members=FOUR)
    epochs = [event for event in seen if isinstance(event, EpochEnded)]
    assert sorted(epochs, key=lambda e: (e.member, e.epoch)) == list(log.epochs)
    for number, member in enumerate(log.members):
        assert {event.member for event in member.epochs} == {number}


class Slow:
    """Lets a member take its steps slowly, and counts them; one of them fails at its second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failing: int) -> None:
        self.counts = {0: 0, 1: 0}
        step, take_step = MemberTraining.step, training.train_step

        def count(index: int) -> None:
            self.counts[index] += 1
            if index == failing and self.counts[index] == 2:
                raise DivergedError("the loss became nan")
            time.sleep(0.02)

        def slow_step(run: MemberTraining) -> EpochEnded | None:
            count(run.index)
            return step(run)

        def slow_take(network: Network, member: torch.nn.Module, *rest: object, **more: object):
            count(list(network.members).index(member))
            return take_step(network, member, *rest, **more)

        self.of_training = lambda: monkeypatch.setattr(MemberTraining, "step", slow_step)
        self.of_fine_tuning = lambda: monkeypatch.setattr(training, "train_step", slow_take)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_member_reaches_the_caller_and_ends_the_others_soon(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, failing=failing)
    slow.of_training()
    with pytest.raises(DivergedError, match="the loss became nan"):
        fit(NOISY, LONG, members=PAIR)
    assert slow.counts[1 - failing] < 20


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_while_fine_tuning_ends_the_others_soon(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, failing=failing)
    slow.of_fine_tuning()
    network = started(NOISY, make_spec(members=PAIR))
    with pytest.raises(DivergedError, match="the loss became nan"):
        fine_tune(network, [40, 40])
    assert slow.counts[1 - failing] < 20


def test_a_loss_that_is_not_finite_reaches_the_caller() -> None:
    network = started(NOISY, make_spec(members=PAIR))
    torch.nn.init.constant_(network.members[1].head.bias, float("nan"))
    with pytest.raises(DivergedError) as caught:
        train(network, NOISY, QUICK)
    assert "--learning-rate" in (caught.value.hint or "")


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_that_a_listener_raises_ends_the_training_soon(threads: int) -> None:
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        time.sleep(0.005)
        if len(events) == 5:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        fit(NOISY, dataclasses.replace(LONG, threads=threads), listen, members=PAIR)
    assert len(events) < 25
    assert set(threading.enumerate()) <= before, "no thread goes on"


def test_an_error_of_a_listener_while_fine_tuning_reaches_the_caller() -> None:
    def listen(_event: Event) -> None:
        raise KeyboardInterrupt

    network = started(NOISY, make_spec(members=PAIR))
    with pytest.raises(KeyboardInterrupt):
        fine_tune(network, [9, 9], listen)


# WorkQueue


class Scripted:
    """A member whose steps take no time; it notes who takes them."""

    def __init__(self, index: int, taken: list[int], fails_at: int = -1) -> None:
        self.index, self.taken, self.fails_at = index, taken, fails_at
        self.is_busy = False

    def step(self) -> None:
        assert not self.is_busy, "one member is in two threads"
        self.is_busy = True
        self.taken.append(self.index)
        if self.taken.count(self.index) == self.fails_at:
            raise RuntimeError("a step failed")
        self.is_busy = False


def take_turns(n_steps: dict[Scripted, int], n_workers: int) -> None:
    config = dataclasses.replace(QUICK, threads=n_workers)
    reporter = ProgressReporter(lambda _event: None, "training", sum(n_steps.values()))
    with worker_pool(len(n_steps), config, torch.device("cpu"), reporter) as workers:
        workers.run(WorkQueue(n_steps), reporter)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("n_steps", [1, 4, 30])
def test_every_member_takes_its_steps_in_one_thread_at_a_time(n_workers: int, n_steps: int) -> None:
    taken: list[int] = []
    take_turns({Scripted(i, taken): n_steps for i in range(3)}, n_workers)
    assert sorted(taken) == [i for i in range(3) for _ in range(n_steps)]


def test_with_one_thread_the_one_with_most_steps_left_comes_first() -> None:
    taken: list[int] = []
    take_turns({Scripted(0, taken): 4, Scripted(1, taken): 13}, 1)
    assert taken == [1] * 12 + [0] * 4 + [1]


def test_a_step_that_fails_ends_all_turns() -> None:
    taken: list[int] = []
    members = [Scripted(i, taken, fails_at=6 if i else -1) for i in range(3)]
    with pytest.raises(RuntimeError, match="a step failed"):
        take_turns(dict.fromkeys(members, 1000), 2)
    assert len(taken) < 3000


def test_after_it_is_cancelled_no_step_is_taken() -> None:
    taken: list[int] = []
    token = CancelToken()

    class Last(Scripted):
        def step(self) -> None:
            super().step()
            token.cancel()

    reporter = ProgressReporter(lambda _event: None, "training", 30)
    WorkQueue({Last(0, taken): 30}).work(reporter, token)  # type: ignore[dict-item]
    assert taken == [0]
