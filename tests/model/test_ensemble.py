"""The ensemble: members train in turn, for as long as they may, and errors end them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pytest

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.windows import make_past
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded, Event, Notice, ProgressEvent, WarningEvent
from rnnforecast.model import fitting, training
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.network import Network
from rnnforecast.model.training import (
    EnsembleLog,
    MemberTraining,
    describe_shares,
    fine_tune_members,
)
from rnnforecast.parallel import SINGLE_PROCESS, Ranks
from tests.builders import make_panel, make_spec
from tests.model.fitting import (
    DAY,
    EPOCH,
    FOUR,
    HARMFUL_RATE,
    NOISY,
    PAIR,
    PATIENCE,
    PLAIN,
    THREE,
    UNTRAINED,
    fit,
    scales_of,
    second_member_stops,
    short_epochs,
    started,
    train,
    weights_of,
    windows_to_train,
)
from tests.model.networks import with_weights

QUICK = TrainConfig(epochs=2, batch_size=8, threads=1)
LONG = dataclasses.replace(QUICK, epochs=1000)


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


def steps_of(log: EnsembleLog) -> list[int]:
    return [member.steps for member in log.members]


def tune(network: Network, n_steps: list[int], listener=lambda _: None, **options) -> None:
    """Let members take this many more steps."""
    windows, _ = windows_to_train(NOISY, network.spec)
    fine_tune_members(
        network,
        windows,
        scales=scales_of(NOISY),
        n_steps=n_steps,
        config=dataclasses.replace(QUICK, **options),
        listener=listener,
    )


def fitted(**options: object) -> RNNForecaster:
    """Fit three members and an untrained one, without validation."""
    return fitting.fit(
        make_past(make_panel(NOISY), np.array([150])),
        None,
        spec=make_spec(members=FOUR),
        network=NetworkConfig(),
        config=dataclasses.replace(QUICK, steps=3, **options),
        common=DAY,
    )


# Turns


def test_members_take_turns_until_each_has_come_to_the_end_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, step = [], MemberTraining.step

    def recorded(run: MemberTraining) -> EpochEnded | None:
        turns.append((run.index, run.steps))
        return step(run)

    monkeypatch.setattr(MemberTraining, "step", recorded)
    fit(NOISY, dataclasses.replace(QUICK, steps=EPOCH + 2), members=PAIR)
    assert turns == [(index, steps) for steps in range(EPOCH + 2) for index in range(2)]


def test_a_member_that_is_behind_catches_up_first() -> None:
    class Member:
        def __init__(self, steps: int) -> None:
            self.steps = steps

    members = [Member(4), Member(1), Member(6), Member(3)]
    rounds = training._Ensemble(members, 100, None)  # type: ignore[arg-type]
    order = []
    for member in rounds.turns(training._Round(6, (0, 1, 2, 3))):
        order.append(members.index(member))  # type: ignore[arg-type]
        member.steps += 1
    assert order == [1, 1, 1, 3, 0, 1, 3, 0, 1, 3]
    assert [member.steps for member in members] == [6] * 4


def test_beside_others_a_member_is_trained_as_it_is_alone() -> None:
    together = started(NOISY, make_spec(members=PAIR))
    alone = started(NOISY, make_spec(members=PAIR[:1]))
    alone = dataclasses.replace(alone, members=together.members[:1])
    results = [train(network, NOISY, QUICK, validates=False) for network in (together, alone)]
    weights = [weights_of(network.members[0]) for network, _ in results]
    assert weights[0] == weights[1]
    logs = [log.members[0] for _, log in results]
    assert logs[0] == logs[1]


def test_the_built_in_member_stays_as_it_is_when_the_others_learn_on() -> None:
    first = fitted()
    tuned = fitting.fine_tune(first, make_past(make_panel(NOISY)), config=QUICK)
    for number, member in enumerate(first.network.members):
        changes = weights_of(tuned.network.members[number]) != weights_of(member)
        assert changes == (number < 3)


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
        patched.setattr(training, "_Pace", Scripted)
        network, log = fit(NOISY, config, members=PAIR)
    assert log.steps == min(sum(chunks), EPOCH * epochs)

    repeated, log_of_repeated = fit(
        NOISY, dataclasses.replace(config, steps=log.steps), members=PAIR
    )

    assert log_of_repeated == log
    assert weights_of(repeated) == weights_of(network)


def test_a_time_limit_allows_half_of_it_for_the_first_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = training._Pace(dataclasses.replace(QUICK, max_time="20s"), SINGLE_PROCESS)
    assert pace.steps_left(0) == 5
    now = 102.0
    assert pace.steps_left(5) == 20, "8 of 10 seconds are left, and 5 steps took 2"
    now = 111.0
    assert pace.steps_left(28) < 0
    unlimited = training._Pace(QUICK, SINGLE_PROCESS)
    assert unlimited.steps_left(0) > 1 << 60


def test_progress_comes_to_its_end_although_a_member_stops_early() -> None:
    events: list[Event] = []
    with second_member_stops():
        _, log = fit(NOISY, dataclasses.replace(QUICK, epochs=5), events.append, members=THREE)
    assert steps_of(log) == [5 * EPOCH, PATIENCE * EPOCH, 5 * EPOCH]
    assert [member.kept_steps for member in log.members] == steps_of(log)
    progress = [event for event in events if isinstance(event, ProgressEvent)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    total = 3 * 5 * EPOCH
    assert {(event.task, event.total) for event in progress} == {("training", total)}
    assert progress[-1].done == progress[-1].total


# Who trains


def test_without_validation_all_members_train_to_the_end_and_are_kept() -> None:
    network = started(NOISY, make_spec(members=FOUR))

    network, log = train(network, NOISY, QUICK, validates=False)

    assert steps_of(log) == [2 * EPOCH] * 3
    assert log.selected == (0, 1, 2, 3)
    assert network.spec.members == FOUR
    assert [each.kept_steps for each in log.of_selected] == [2 * EPOCH] * 3 + [0]


def test_a_member_that_is_not_trained_stays_as_it_is() -> None:
    network = started(NOISY, make_spec(members=FOUR))
    before = weights_of(network)
    trained, _ = train(network, NOISY, QUICK, validates=False)
    after = weights_of(trained)
    changed = {name.split(".")[1] for name in before if before[name] != after[name]}
    assert changed == {"0", "1", "2"}


def test_fine_tuning_takes_a_quarter_of_the_steps_to_the_best_weights_of_those_kept() -> None:
    first, events = fitted(), []
    everything = make_past(make_panel(NOISY))
    tuned = fitting.fine_tune(first, everything, config=QUICK, listener=events.append)
    assert first.log is not None
    assert [each.kept_steps for each in first.log.of_selected] == [3, 3, 3, 0]
    assert tuned.fine_tune_steps == (1, 1, 1, 0)
    assert events[-1].done == events[-1].total == sum(tuned.fine_tune_steps)


def test_members_whose_gradients_explode_are_warned_of() -> None:
    events: list[Event] = []
    fit(NOISY, dataclasses.replace(QUICK, learning_rate=HARMFUL_RATE), events.append, members=PAIR)
    warnings = [event for event in events if isinstance(event, WarningEvent)]
    assert {event.code for event in warnings} == {"exploding-gradients"}
    assert all("--learning-rate" in event.message for event in warnings)


def test_the_end_of_a_training_says_what_the_forecasts_are() -> None:
    events: list[Event] = []
    network, _ = fit(NOISY, QUICK, events.append, members=(*PAIR, UNTRAINED))
    notice = [event.message for event in events if isinstance(event, Notice)][-1]
    shares = describe_shares(network.spec)
    assert notice == f"trained 2 networks ({2 * EPOCH} steps each at most); {shares}"


def test_shares_are_described_in_percent() -> None:
    members = (PLAIN, dataclasses.replace(PLAIN, covariates=True), UNTRAINED)
    spec = dataclasses.replace(make_spec(members=members), weights=(0.2, 0.5, 0.3))
    assert describe_shares(spec) == (
        "forecast: 20 % trained network, 50 % trained network with covariates, "
        "30 % built-in network"
    )


# Listeners, errors and signals


def test_every_epoch_of_every_member_is_reported_once() -> None:
    seen: list[Event] = []
    _, log = fit(NOISY, QUICK, seen.append, members=FOUR)
    epochs = [event for event in seen if isinstance(event, EpochEnded)]
    assert sorted(epochs, key=lambda e: (e.member, e.epoch)) == list(log.epochs)
    for number, member in enumerate(log.members):
        assert {event.member for event in member.epochs} == {number}


def test_a_loss_that_is_not_finite_reaches_the_caller() -> None:
    network = started(NOISY, make_spec(members=PAIR))
    bias = np.full_like(network.members[1].tensors["head.bias"], np.nan)
    network = with_weights(network, 1, {"head.bias": bias})
    with pytest.raises(DivergedError) as caught:
        train(network, NOISY, QUICK)
    assert "--learning-rate" in (caught.value.hint or "")


def test_an_interrupt_that_a_listener_raises_ends_the_training_at_once() -> None:
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if len(events) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(NOISY, LONG, listen, members=PAIR)
    assert len(events) == 5


def test_an_error_of_a_listener_while_fine_tuning_reaches_the_caller() -> None:
    def listen(_event: Event) -> None:
        raise KeyboardInterrupt

    network = started(NOISY, make_spec(members=PAIR))
    with pytest.raises(KeyboardInterrupt):
        tune(network, [9, 9], listen)
