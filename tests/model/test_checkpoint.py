"""A training that is interrupted, kept as one file and gone on with: the same bits in the end."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from rnnforecast.config.training import TrainConfig
from rnnforecast.errors import DivergedError, ModelError, UsageError, WriteError
from rnnforecast.events import Event, Notice, ProgressEvent, WarningEvent, ignore
from rnnforecast.model import checkpoint, training
from rnnforecast.model.checkpoint import CHECKPOINT, Checkpoints, TrainingState, pack, unpack
from rnnforecast.model.network import Network
from rnnforecast.model.training import EnsembleLog, MemberTraining, TrainingInputs
from tests.builders import make_spec
from tests.model.fitting import (
    EPOCH,
    FOUR,
    HARMFUL_RATE,
    NOISY,
    PAIR,
    PATIENCE,
    PLAIN,
    fit,
    scales_of,
    second_member_stops,
    short_epochs,
    started,
    weights_of,
    windows_to_train,
)

QUICK = TrainConfig(epochs=2, batch_size=8, threads=2)
LONG = dataclasses.replace(QUICK, epochs=1000)
IDENTITY = {"readings": "abc", "hidden": "8"}
N_TRAINED = 3
"""Of the four members."""


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


class Asked(BaseException):
    """What the handler of a signal raises here."""


@pytest.fixture(scope="module", autouse=True)
def raises_when_terminated() -> Iterator[None]:
    """Answer SIGTERM as the command line does: by raising in the main thread."""

    def stop(_number: int, _frame: object) -> None:
        raise Asked

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def place(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "model" / CHECKPOINT, IDENTITY, is_resuming=True)


@pytest.fixture(scope="module")
def interrupted() -> Callable[..., None]:
    """Train until all members have taken this many steps, and then send a signal."""

    def train(n_steps: int, config: TrainConfig, where: Checkpoints, **more: object) -> None:
        taken, step = itertools.count(1), MemberTraining.step

        def counted(run: MemberTraining) -> object:
            ended = step(run)
            if next(taken) == n_steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return ended

        readings = more.pop("readings", NOISY)
        with pytest.MonkeyPatch.context() as patched, pytest.raises(Asked):
            patched.setattr(MemberTraining, "step", counted)
            fit(readings, config, checkpoints=where, **more)

    return train


def loaded(where: Checkpoints, *, members: tuple = FOUR) -> TrainingState:
    """Return what is kept there."""
    state = where.load(untrained(members))
    assert state is not None
    return state


@cache
def untrained(members: tuple = FOUR) -> TrainingState:
    network = started(NOISY, make_spec(members=members))
    windows, _ = windows_to_train(NOISY, network.spec)
    trained = [i for i, each in enumerate(members) if each.is_trained]
    inputs = TrainingInputs(network, windows, scales_of(NOISY), QUICK)
    runs = [MemberTraining(network, i, inputs, None, QUICK) for i in trained]
    return TrainingState(0, tuple(trained), tuple(run.state() for run in runs))


def outcome(network: Network, log: EnsembleLog) -> tuple[EnsembleLog, dict[str, bytes]]:
    return log, weights_of(network)


# What an interruption leaves, and what comes of it


@cache
def whole() -> tuple[EnsembleLog, dict[str, bytes]]:
    """Train without an interruption; how many threads there are makes no difference."""
    return outcome(*fit(NOISY, QUICK, members=FOUR, dropout=0.2))


@pytest.mark.parametrize(("n_steps", "threads"), [(1, 2), (12, 2), (17, 1), (23, 2)])
def test_a_training_that_was_interrupted_ends_in_the_bits_of_one_that_was_not(
    n_steps: int, threads: int, place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    config = dataclasses.replace(QUICK, threads=threads)

    interrupted(n_steps, config, place, members=FOUR, dropout=0.2)
    state = loaded(place)
    resumed = outcome(*fit(NOISY, config, members=FOUR, dropout=0.2, checkpoints=place))

    steps = sum(member.steps for member in state.members)
    assert n_steps <= steps < n_steps + 8, "a signal ends it at the next step"
    assert resumed == whole()


def test_members_stand_at_different_steps_where_a_signal_ends_them(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    interrupted(2, dataclasses.replace(QUICK, threads=1), place, members=FOUR)
    state = loaded(place)
    assert len({member.steps for member in state.members}) > 1
    assert (state.target, state.active) == (EPOCH, (0, 1, 2))


def test_training_that_is_interrupted_again_and_again_comes_to_the_same_end(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    for n_steps in (2, 7, 4):
        interrupted(n_steps, QUICK, place, members=FOUR, dropout=0.2)
    resumed = fit(NOISY, QUICK, members=FOUR, dropout=0.2, checkpoints=place)
    assert outcome(*resumed) == whole()


def test_members_that_had_stopped_early_stay_stopped(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    config = dataclasses.replace(QUICK, epochs=5)
    with second_member_stops():
        uninterrupted = fit(NOISY, config, members=PAIR)
        interrupted(2 * PATIENCE * EPOCH + 2, config, place, members=PAIR)
        assert loaded(place, members=PAIR).active == (0,)
        resumed = fit(NOISY, config, members=PAIR, checkpoints=place)
    assert [member.steps for member in resumed[1].members] == [5 * EPOCH, PATIENCE * EPOCH]
    assert outcome(*resumed) == outcome(*uninterrupted)


def test_a_training_that_only_harms_keeps_no_step_after_an_interruption_either(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    config = dataclasses.replace(QUICK, epochs=10, learning_rate=HARMFUL_RATE)
    interrupted(6, config, place)
    network, log = fit(NOISY, config, checkpoints=place)
    assert log.members[0].kept_steps == 0
    assert weights_of(network) == weights_of(started(NOISY, make_spec(members=(PLAIN,))))


@pytest.mark.parametrize("steps", [6, 8])
def test_a_training_that_was_over_is_not_repeated(
    steps: int, place: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(QUICK, steps=steps)
    first = outcome(*fit(NOISY, config, members=FOUR, checkpoints=place))
    assert loaded(place).active == ()
    monkeypatch.setattr(MemberTraining, "step", None)
    assert outcome(*fit(NOISY, config, members=FOUR, checkpoints=place)) == first


def test_what_a_time_limit_ended_is_over(place: Checkpoints) -> None:
    config = dataclasses.replace(LONG, max_time="300ms")
    first = outcome(*fit(NOISY, config, members=PAIR, checkpoints=place))
    assert outcome(*fit(NOISY, config, members=PAIR, checkpoints=place)) == first


def test_after_an_interruption_a_time_limit_begins_anew_and_the_steps_count(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    config = dataclasses.replace(LONG, max_time="300ms")
    interrupted(3, config, place, members=PAIR)
    network, log = fit(NOISY, config, members=PAIR, checkpoints=place)
    again = dataclasses.replace(config, max_time=None, steps=log.steps)
    repeated = fit(NOISY, again, members=PAIR)
    assert log.steps >= 2
    assert outcome(*repeated) == outcome(network, log)


def test_a_signal_while_members_fine_tune_is_raised_once_they_have_ended() -> None:
    network = started(NOISY, make_spec(members=PAIR))
    (windows, _), steps = windows_to_train(NOISY, network.spec), []

    def listen(event: Event) -> None:
        steps.append(event)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Asked):
        training.fine_tune_members(
            network,
            windows,
            scales=scales_of(NOISY),
            n_steps=[999, 999],
            config=QUICK,
            listener=listen,
        )
    assert len(steps) < 40


def test_keeping_a_training_changes_nothing_about_it(place: Checkpoints) -> None:
    assert outcome(*fit(NOISY, QUICK, members=FOUR, dropout=0.2, checkpoints=place)) == whole()


def test_a_checkpoint_lies_there_after_every_epoch(
    place: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, save = [], Checkpoints.save

    def saved(self: Checkpoints, state: TrainingState) -> None:
        save(self, state)
        steps.append([member.steps for member in state.members])
        assert list(place.path.parent.iterdir()) == [place.path]

    monkeypatch.setattr(Checkpoints, "save", saved)
    fit(NOISY, QUICK, members=FOUR, checkpoints=place)
    assert steps == [[EPOCH] * 3, [2 * EPOCH] * 3]


def test_progress_goes_on_where_it_was(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    interrupted(13, QUICK, place, members=FOUR)
    taken = sum(member.steps for member in loaded(place).members)
    seen: list[Event] = []
    fit(NOISY, QUICK, seen.append, members=FOUR, checkpoints=place)
    progress = [event.done for event in seen if isinstance(event, ProgressEvent)]
    assert (progress[0], progress[-1]) == (taken + 1, 2 * EPOCH * N_TRAINED)


def test_what_a_signal_does_is_reported_at_once(place: Checkpoints) -> None:
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if len(events) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Asked):
        fit(NOISY, QUICK, listen, members=FOUR, checkpoints=place)
    assert [event.message for event in events if isinstance(event, Notice)] == [
        "no checkpoint found; training starts from the beginning",
        "stopping after this step; a second signal stops immediately",
    ]


def test_a_listener_that_fails_does_not_swallow_a_signal(place: Checkpoints) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Notice) and "stopping" in event.message:
            raise BrokenPipeError
        if isinstance(event, ProgressEvent) and event.done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Asked):
        fit(NOISY, QUICK, listen, members=FOUR, checkpoints=place)
    assert place.path.exists()


def test_weights_that_are_no_numbers_are_not_kept(
    place: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, signals = MemberTraining.step, [signal.SIGTERM]

    def diverging(run: MemberTraining) -> object:
        diverges = run.steps == EPOCH + 1 and run.index == 1
        if diverges:
            torch.nn.init.constant_(run.member.head.bias, float("nan"))
        ended = step(run)
        if diverges and signals:
            os.kill(os.getpid(), signals.pop())
        return ended

    monkeypatch.setattr(MemberTraining, "step", diverging)
    with pytest.raises(Asked):
        fit(NOISY, QUICK, members=FOUR, checkpoints=place)
    assert {member.steps for member in loaded(place).members} == {EPOCH}
    with pytest.raises(DivergedError):
        fit(NOISY, QUICK, members=FOUR, checkpoints=place)


def test_where_a_checkpoint_cannot_be_written_training_goes_on_and_says_so(
    place: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Checkpoints, _state: TrainingState) -> None:
        raise WriteError("cannot write checkpoint.safetensors: no space")

    monkeypatch.setattr(Checkpoints, "save", full)
    events: list[Event] = []
    trained = fit(NOISY, QUICK, events.append, members=FOUR, dropout=0.2, checkpoints=place)
    assert outcome(*trained) == whole()
    warnings = [event for event in events if isinstance(event, WarningEvent)]
    assert {(event.code, "no space" in event.message) for event in warnings} == {
        ("no-checkpoint", True)
    }


# Which checkpoint is gone on from


def test_without_a_checkpoint_training_begins_anew_and_says_so(place: Checkpoints) -> None:
    events: list[Event] = []
    resumed = fit(NOISY, QUICK, events.append, members=FOUR, dropout=0.2, checkpoints=place)
    assert outcome(*resumed) == whole()
    assert any(
        isinstance(event, Notice) and "from the beginning" in event.message for event in events
    )


def test_a_checkpoint_is_overwritten_where_nobody_asks_to_go_on(
    place: Checkpoints, interrupted: Callable[..., None]
) -> None:
    anew = dataclasses.replace(place, is_resuming=False)
    interrupted(18, QUICK, place, members=FOUR, dropout=0.2)
    before = place.stamp()
    trained = fit(NOISY, QUICK, members=FOUR, dropout=0.2, checkpoints=anew)
    assert outcome(*trained) == whole()
    assert place.stamp() != before
    assert loaded(place).active == ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"readings": "abd"}, "readings was abc, now abd"),
        ({"readings": 64 * "f"}, "different readings"),
        ({"hidden": "16"}, "hidden was 8, now 16"),
        ({"torch": "3.0"}, "torch was None, now 3.0"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(
    changed: dict[str, str], message: str, place: Checkpoints
) -> None:
    fit(NOISY, QUICK, checkpoints=place)
    other = dataclasses.replace(place, identity={**IDENTITY, **changed})
    with pytest.raises(UsageError) as caught:
        fit(NOISY, QUICK, checkpoints=other)
    assert message in caught.value.message
    assert str(place.path) in caught.value.message
    assert "--resume" in (caught.value.hint or "")


def test_what_differs_is_said_before_what_does_not_fit(place: Checkpoints) -> None:
    fit(NOISY, QUICK, members=PAIR, checkpoints=place)
    other = dataclasses.replace(place, identity={**IDENTITY, "members": "one"})
    with pytest.raises(UsageError, match="members was None, now one"):
        fit(NOISY, QUICK, checkpoints=other)


# The file


@pytest.fixture(scope="module")
def content(interrupted: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Interrupt a training in an epoch; return the file."""
    path = tmp_path_factory.mktemp("kept") / CHECKPOINT
    interrupted(6, QUICK, Checkpoints(path, IDENTITY, is_resuming=True))
    return path.read_bytes()


@pytest.fixture
def kept(place: Checkpoints, content: bytes) -> tuple[Checkpoints, bytes]:
    """Where a training is kept that was interrupted in an epoch, and the file."""
    place.path.parent.mkdir()
    place.path.write_bytes(content)
    return place, content


def test_a_state_is_the_same_after_a_round_trip(kept: tuple[Checkpoints, bytes]) -> None:
    where, content = kept
    state, identity = unpack(content, untrained((PLAIN,)))
    assert b"".join(pack(state, identity)) == content
    assert identity == IDENTITY
    (member,) = state.members
    assert len(member.losses) == len(member.norms) == member.steps - EPOCH > 0
    assert loaded(where, members=(PLAIN,)).target == 2 * EPOCH


def test_the_same_state_is_the_same_file(
    kept: tuple[Checkpoints, bytes], tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    where, content = kept
    member = loaded(where, members=(PLAIN,)).members[0]
    other = dataclasses.replace(where, path=tmp_path / "other" / CHECKPOINT)
    interrupted(member.steps, dataclasses.replace(QUICK, threads=1), other)
    if loaded(other, members=(PLAIN,)).members[0].steps == member.steps:
        assert other.path.read_bytes() == content


def refused(where: Checkpoints, content: bytes | None = None) -> ModelError:
    """Return the error that the file, or this content of it, leads to."""
    if content is not None:
        where.path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        where.load(untrained((PLAIN,)))
    assert caught.value.exit_code == 6
    assert str(where.path) in caught.value.message
    assert "--resume" in (caught.value.hint or "")
    return caught.value


def test_a_file_that_was_cut_off_or_changed_is_refused(kept: tuple[Checkpoints, bytes]) -> None:
    where, content = kept
    rng = np.random.default_rng(0)
    for length in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        refused(where, content[:length])
    refused(where, content + b" ")
    for place in (*range(12), *rng.integers(0, len(content), 100), len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        refused(where, bytes(changed))


def test_what_is_no_file_of_its_own_is_refused(
    kept: tuple[Checkpoints, bytes], tmp_path: Path
) -> None:
    where, _ = kept
    elsewhere = where.path.rename(tmp_path / "elsewhere")
    where.path.symlink_to(elsewhere)
    refused(where)
    where.path.unlink()
    where.path.symlink_to(tmp_path / "nowhere")
    refused(where)
    where.path.unlink()
    where.path.mkdir()
    refused(where)
    where.path.rmdir()
    os.mkfifo(where.path)
    refused(where)


def test_a_file_that_is_too_large_is_not_read(
    kept: tuple[Checkpoints, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    where, content = kept
    monkeypatch.setattr(checkpoint, "_MIN_SIZE_LIMIT", 1 << 10)
    with where.path.open("ab") as file:
        file.truncate(5 * len(content))
    assert "bytes; at most" in refused(where).message


def test_tensors_that_this_training_does_not_have_are_named(
    kept: tuple[Checkpoints, bytes],
) -> None:
    where, content = kept
    state, _ = unpack(content, untrained((PLAIN,)))
    (member,) = state.members
    weights, name = dict(member.weights), "head.bias"
    broken = weights[name].copy()
    broken[0] = np.nan
    for changed, message in [
        ({**weights, name: broken}, "not finite"),
        ({**weights, name: weights[name][:-1]}, "not float32"),
        ({**weights, "other": weights[name]}, "does not belong"),
        ({n: w for n, w in weights.items() if n != name}, "is missing"),
    ]:
        other = dataclasses.replace(state, members=(dataclasses.replace(member, weights=changed),))
        assert message in refused(where, b"".join(pack(other, IDENTITY))).message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"target": 8', '"target": -1'),
        ('"target": 8', '"target": 4'),
        ('"target": 8', '"target": 8e0'),
        ('"format_version": 2', '"format_version": 1'),
        ('"format": "rnnforecast-checkpoint"', '"format": "other"'),
        ('"steps": 4', '"steps": "x"'),
        ('"epochs": [', '"epochs": [{}, '),
        ('"epoch": 1', '"epoch": "one"'),
        ('"members": [', '"members": [{}, '),
        ('"going": [', '"going": [7, '),
        ('"identity": {', '"identity": 3, "x": {'),
        ('"steps": 4', '"steps": 4, "steps": 4'),
    ],
)
def test_what_a_training_does_not_say_is_refused(
    before: str, after: str, kept: tuple[Checkpoints, bytes]
) -> None:
    where, content = kept
    refused(where, resealed(content, before, after))


def resealed(content: bytes, before: str, after: str) -> bytes:
    """Change what the file says, and let all lengths and the hash fit again."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    begin, end = header["state"]["data_offsets"]
    data = content[8 + size : -32]
    text = data[begin:end].decode()
    assert before in text
    changed = text.replace(before, after, 1).encode()
    header["state"] |= {"shape": [len(changed)], "data_offsets": [begin, begin + len(changed)]}
    after_it = begin + len(changed)
    header["sha256"]["data_offsets"] = [after_it, after_it + 32]
    written = json.dumps(header).encode()
    whole = len(written).to_bytes(8, "little") + written + data[:begin] + changed
    return whole + hashlib.sha256(whole).digest()


def test_random_numbers_of_another_kind_are_refused(kept: tuple[Checkpoints, bytes]) -> None:
    where, content = kept
    state, _ = unpack(content, untrained((PLAIN,)))
    (member,) = state.members
    nothing = dataclasses.replace(member, generator=np.zeros_like(member.generator))
    other = dataclasses.replace(state, members=(nothing,))
    where.path.write_bytes(b"".join(pack(other, IDENTITY)))
    with pytest.raises(ModelError, match="cannot use"):
        fit(NOISY, QUICK, checkpoints=where, listener=ignore)


def test_nothing_is_left_of_what_is_discarded(kept: tuple[Checkpoints, bytes]) -> None:
    where, _ = kept
    checkpoint.discard_checkpoint(where.path.parent)
    assert list(where.path.parent.iterdir()) == []
    checkpoint.discard_checkpoint(where.path.parent)
