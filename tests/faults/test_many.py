"""Many at once: one writer wins, readers see no mix, and a lock is free when its holder is gone.

Faults 4, 5 and 12 of the table.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rnnforecast.model import artifact
from rnnforecast.storage import versions
from rnnforecast.storage.durable import CRASH_VARIABLE
from rnnforecast.storage.lock import acquire
from tests.faults.counting import tell
from tests.faults.scene import RUN, TRAIN, Command, Scene
from tests.faults.test_kills import Reader
from tests.faults.warm import PATIENCE_S, QUIET, ROOT, Warm
from tests.thorough import THOROUGHLY

SOON_S = 1.0
SLOW_LIBRARIES = ("torch", "sklearn", "scipy", "matplotlib")


def refused(scene: Scene, command: Command) -> tuple[float, float, set[str], str]:
    """Run a command, as cron would, that another keeps out; it is at an end before torch is there.

    Return how long it took, how much of the processor, what it imported, and what it said.
    """
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "rnnforecast", *command.words],
        cwd=scene.place,
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    assert process.returncode == 11, said[-1000:]
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", said, re.MULTILINE))
    words = "\n".join(line for line in said.splitlines() if not line.startswith("import time:"))
    return seconds, used.ru_utime + used.ru_stime, imported, words


def keeps_out(
    scene: Scene, warm: Warm, command: Command, label: str, *, n: int, n_reads: int
) -> None:
    """Stop a command while it holds its lock; the others are refused; then it goes on and wins."""
    reader = Reader(scene)
    first = warm.start(*command.words, cwd=scene.place, env={CRASH_VARIABLE: f"{label}:1:STOP"})
    assert first.is_stopped()
    with reader.reading():
        with ThreadPoolExecutor(n) as pool:
            others = list(pool.map(lambda _: refused(scene, command), range(n)))
        alone = refused(scene, command)
        for _ in range(n_reads):
            reader.read()
        scene.check()
        first.kill(signal.SIGCONT)
        assert first.wait().code == 0
    scene.check_done(command)
    assert scene.leftovers() == []
    for _, used_s, imported, words in (*others, alone):
        assert used_s < SOON_S
        assert not imported.intersection(SLOW_LIBRARIES)
        assert f"process {first.pid} on " in words
        assert ("--lock-wait" in words) == (command.words[0] == "run")
    tell(
        4,
        f"{command.name} kept out by one that is stopped",
        refused=len(others) + 1,
        seconds_alone=round(alone[0], 2),
        processor_seconds=max(used for _, used, *_ in others),
        reads=reader.n_reads,
        violations=len(reader.violations),
    )
    assert reader.n_reads >= n_reads and not reader.violations


@pytest.mark.slow
def test_who_comes_while_another_runs_is_sent_away_before_torch_is_there(
    scene: Scene, warm: Warm
) -> None:
    keeps_out(scene, warm, RUN, "file-created", n=1, n_reads=50)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "label"), [(RUN, "ledger-published"), (TRAIN, "part-written")], ids=["run", "train"]
)
def test_of_several_one_writes_and_the_others_are_sent_away(
    command: Command, label: str, scene: Scene, warm: Warm
) -> None:
    keeps_out(scene, warm, command, label, n=6 if THOROUGHLY > 1 else 2, n_reads=1000)


def test_of_eight_at_once_exactly_one_publishes(scene: Scene, warm: Warm) -> None:
    reader = Reader(scene)
    with reader.reading():
        running = [warm.start(*RUN.words, "--json", cwd=scene.place) for _ in range(8)]
        done = [one.wait() for one in running]
    scene.check_done(RUN)
    assert scene.leftovers() == []
    came_to = [
        json.loads(one.out)["status"] if one.code == 0 else f"exit {one.code}" for one in done
    ]
    assert came_to.count("published") == 1, came_to
    assert set(came_to) <= {"published", "already published", "exit 11"}
    assert not reader.violations
    tell(
        4,
        "eight runs at once",
        published=1,
        already_published=came_to.count("already published"),
        exit_11=came_to.count("exit 11"),
        reads=reader.n_reads,
        violations=0,
    )


# A parent that is killed while its child lives

FORKING = """
import os, sys, time
from rnnforecast.cli import main
from rnnforecast.jobs import run
real = run._prepare_files
def fork_first(job):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(120)
        os._exit(0)
    time.sleep(120)
run._prepare_files = fork_first
main.main(sys.argv[1:])
"""


def test_a_child_that_outlives_a_killed_run_does_not_keep_its_lock(
    scene: Scene, warm: Warm
) -> None:
    lock = scene.place / "ledger/.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, *RUN.words],
        cwd=scene.place,
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert lock.exists()
    assert warm.run(*RUN.words, cwd=scene.place).code == 11
    process.kill()
    process.wait()
    begun = time.monotonic()
    with acquire(lock):
        took = time.monotonic() - begun
    next_one = warm.run(*RUN.words, cwd=scene.place)
    os.kill(child, 0)  # it was there all the time
    os.kill(child, signal.SIGKILL)
    process.stdout.close()
    assert took < SOON_S
    assert next_one.code == 0, next_one.err
    scene.check_done(RUN)
    tell(5, "a forked child outlives the run", lock_free_after_s=took)


def test_a_command_that_is_told_of_failures_does_not_keep_the_lock(
    scene: Scene, warm: Warm
) -> None:
    """The run is killed while the command that it started goes on."""
    job, readings = scene.place / "job.toml", scene.place / "data.csv"
    before = job.read_text(), readings.read_text()
    script = "import os, time; open('told', 'w').write(str(os.getpid())); time.sleep(120)"
    told = json.dumps([sys.executable, "-S", "-c", script])
    job.write_text(f"{before[0]}\n[notify]\non_failure = {told}\n")
    readings.write_text("no,table\n")
    running = warm.start(*RUN.words, cwd=scene.place)
    deadline = time.monotonic() + PATIENCE_S
    while not (scene.place / "told").exists() or not (scene.place / "told").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int((scene.place / "told").read_text())
    for is_running in (True, False):
        begun = time.monotonic()
        with acquire(scene.place / "ledger/.lock"):
            took = time.monotonic() - begun
        assert took < SOON_S
        if is_running:
            running.kill()
            running.wait()
    os.kill(child, 0)
    os.kill(child, signal.SIGKILL)
    (scene.place / "told").unlink()
    job.write_text(before[0])
    readings.write_text(before[1])
    scene.expect(0, *RUN.words)
    scene.check_done(RUN)
    tell(5, "a command that is told outlives the run", lock_free_after_s=took)


# Retention and readers

TICK = timedelta(minutes=10)
HOUR = timedelta(hours=1)


def race(model: Path, *, n_ticks: int, n_readers: int) -> tuple[int, int, int, list[str]]:
    """Let versions come and go on a clock of our own while readers load what they resolved.

    A reader may take up to an hour of that clock; one that took longer is not counted.
    """
    resolved = versions.resolve_version(model)
    files = {path.name: path.read_bytes() for path in resolved.iterdir()}
    now = [datetime.now(UTC) + TICK]
    ended, violations = threading.Event(), []
    counts = [0] * n_readers
    os.utime(model / versions.CURRENT, (now[0].timestamp(),) * 2)

    def read_on(number: int) -> None:
        while not ended.is_set():
            begun = now[0]
            found = versions.resolve_version(model)
            time.sleep(0.004 * (number % 4))
            try:
                artifact.load(found)
            except Exception as error:
                if now[0] - begun < HOUR:
                    violations.append(repr(error))
                continue
            counts[number] += 1

    readers = [threading.Thread(target=read_on, args=(number,)) for number in range(n_readers)]
    for reader in readers:
        reader.start()
    published = retired = 0
    for tick in range(n_ticks):
        now[0] += TICK
        if tick % 9 == 0:
            versions.activate_version(model, versions.publish_version(model, files, now=now[0]))
            os.utime(model / versions.CURRENT, (now[0].timestamp(),) * 2)
            published += 1
        retired += len(versions.retire_versions(model, keep=1, pinned=(), now=now[0]))
        time.sleep(0.003)
    ended.set()
    for reader in readers:
        reader.join()
    return sum(counts), published, retired, violations


@pytest.mark.parametrize("n_ticks", [100, pytest.param(600, marks=pytest.mark.slow)])
def test_no_reader_loses_the_version_that_it_resolved(n_ticks: int, scene: Scene) -> None:
    reads, published, retired, violations = race(scene.model, n_ticks=n_ticks, n_readers=4)
    tell(
        12,
        "retention races with readers",
        published=published,
        retired=retired,
        reads=reads,
        violations=len(violations),
    )
    assert retired > published // 2
    assert reads > 10
    assert violations == []
