"""Killed at every labelled place, and at any moment: a reader sees the old or the new, whole.

Faults 1 and 12 of the table.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from rnnforecast.model import artifact
from rnnforecast.storage import versions
from rnnforecast.storage.durable import CRASH_VARIABLE
from tests.faults.counting import tell
from tests.faults.scene import COMMANDS, PREDICT, RUN, TRAIN, Command, Scene
from tests.faults.versions import ages
from tests.faults.warm import Warm, plain
from tests.thorough import THOROUGHLY, often

LABELS = {
    "run": (
        "file-created",
        "file-written",
        "file-synced",
        "file-named",
        "file-published",
        "ledger-published",
        "forecast-published",
        "run-published",
    ),
    "predict": ("file-created", "file-written", "file-synced", "file-named", "file-published"),
    "train": (
        "part-written",
        "directory-synced",
        "directory-named",
        "file-created",
        "file-written",
        "file-synced",
        "file-named",
        "file-published",
    ),
}
MOST_PASSAGES = 30
KILLED = -signal.SIGKILL


@dataclass
class Reader:
    """Reads what is published in a loop, as programs do that know nothing of the writer."""

    scene: Scene
    n_reads: int = 0
    violations: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def reading(self) -> Iterator[None]:
        thread = threading.Thread(target=self._read_on)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._ended.clear()

    def _read_on(self) -> None:
        while not self._ended.is_set():
            self.read()
            self._ended.wait(0.005)

    def read(self) -> None:
        scene = self.scene
        try:
            artifact.load(versions.resolve_version(scene.model))
            for command in (RUN, PREDICT):
                found = scene.read(command.result)
                if found not in (scene.before[command.result], scene.after[command.result]):
                    self.violations.append(f"{command.result} is neither old nor new")
        except Exception as error:
            self.violations.append(repr(error))
        self.n_reads += 1


def go_on(scene: Scene, warm: Warm, command: Command, *, is_plain: bool = False) -> None:
    """Check what a kill has left, and that the same command completes it."""
    scene.check()
    done = (plain if is_plain else warm.run)(*command.words, cwd=scene.place)
    assert done.code == 0, done.err
    scene.check_done(command)
    if command is PREDICT:  # it takes no lock, so it may not take away what might be another's
        assert all(name.endswith("-predicted.csv") for name in scene.leftovers())
    else:
        assert scene.leftovers() == []


def test_a_kill_at_a_labelled_place_leaves_the_old_or_the_new(scene: Scene, warm: Warm) -> None:
    """Some places only: the others are tried by the slow test below."""
    some = [(PREDICT, "file-synced"), (RUN, "forecast-published"), (RUN, "file-named")]
    reader = Reader(scene)
    for command, label in some:
        scene.reset()
        with reader.reading():
            environment = {CRASH_VARIABLE: label}
            done = warm.run(*command.words, cwd=scene.place, env=environment)
            assert done.code == KILLED, (label, done)
            go_on(scene, warm, command)
    tell(
        1,
        "kills at some labelled places",
        kills=len(some),
        reads=reader.n_reads,
        violations=len(reader.violations),
    )
    assert reader.n_reads and not reader.violations


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_kill_at_every_labelled_place_leaves_the_old_or_the_new(
    command: Command, scene: Scene, warm: Warm
) -> None:
    """At every second passage of each, and in `make thorough` at all of them."""
    if command is TRAIN:
        warm.import_too("torch._dynamo")  # as the first step of a training does
    kills, reader = 0, Reader(scene)
    for label in LABELS[command.name]:
        for passage in range(1, MOST_PASSAGES, 1 if THOROUGHLY > 1 else 2):
            scene.reset()
            with reader.reading():
                environment = {CRASH_VARIABLE: f"{label}:{passage}"}
                done = warm.run(*command.words, cwd=scene.place, env=environment)
                assert done.code in (0, KILLED), done
                if done.code == 0:
                    scene.check_done(command)
                    break
                kills += 1
                go_on(scene, warm, command, is_plain=kills % 20 == 0)
        assert passage > 1, f"{label} was never passed"
    tell(
        1,
        f"{command.name} killed at every labelled place",
        labels=len(LABELS[command.name]),
        kills=kills,
        reads=reader.n_reads,
        violations=len(reader.violations),
    )
    assert reader.n_reads and not reader.violations


def kill_at_moments(scene: Scene, warm: Warm, command: Command, n: int, seed: int) -> None:
    if command is TRAIN:
        warm.import_too("torch._dynamo")
    rng, kills, reader = random.Random(seed), 0, Reader(scene)
    scene.reset()
    duration = warm.run(*command.words, cwd=scene.place).seconds
    for number in range(n):
        scene.reset()
        with reader.reading():
            running = warm.start(*command.words, cwd=scene.place)
            time.sleep(rng.uniform(0.2, 1.1) * duration)
            running.kill()
            code = running.wait().code
            assert code in (0, KILLED)
            kills += code == KILLED
            go_on(scene, warm, command, is_plain=number % 20 == 19)
    tell(
        1,
        f"{command.name} killed at random moments",
        runs=n,
        kills=kills,
        reads=reader.n_reads,
        violations=len(reader.violations),
    )
    assert kills and reader.n_reads and not reader.violations


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(scene: Scene, warm: Warm) -> None:
    kill_at_moments(scene, warm, PREDICT, 4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "n"), [(RUN, 13), (PREDICT, 7), (TRAIN, 5)], ids=lambda x: getattr(x, "name", x)
)
def test_many_kills_at_random_moments_leave_the_old_or_the_new(
    command: Command, n: int, scene: Scene, warm: Warm
) -> None:
    kill_at_moments(scene, warm, command, often(n), seed=7)


@pytest.mark.parametrize("number", [1, 2])
def test_retention_that_is_killed_takes_nothing_from_readers(
    number: int, scene: Scene, warm: Warm
) -> None:
    """Killed between taking a version's name away and its files."""
    names = ages(scene.model, 3)
    resolved = versions.resolve_version(scene.model)
    (scene.place / "job.toml").write_text(
        (scene.place / "job.toml").read_text() + "[keep]\nversions = 1\n"
    )
    killed = warm.run(
        *RUN.words, cwd=scene.place, env={CRASH_VARIABLE: f"directory-unnamed:{number}"}
    )
    assert killed.code == KILLED
    artifact.load(resolved)
    left = versions.list_versions(scene.model)
    assert left == [*names[number:], resolved.name]
    for name in left:
        artifact.load(versions.resolve_version(scene.model, name))
    assert len(scene.leftovers()) == 1
    done = warm.run(*RUN.words, "--force", cwd=scene.place)
    assert done.code == 0, done.err
    assert versions.list_versions(scene.model) == [resolved.name]
    assert scene.leftovers() == []
    tell(12, "retention killed inside", kills=1, versions_lost=0)


def test_the_process_that_forks_tells_of_kills_and_stops(scene: Scene, warm: Warm) -> None:
    running = warm.start(
        *PREDICT.words, cwd=scene.place, env={CRASH_VARIABLE: "file-created:1:STOP"}
    )
    assert running.is_stopped()
    scene.check()
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGCONT)
    assert running.wait().code == 0
    scene.check_done(PREDICT)
