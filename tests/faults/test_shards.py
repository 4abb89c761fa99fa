"""Sharding that is killed, or whose disk fails: the folder is there whole or not at all."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.storage.durable import CRASH_VARIABLE
from tests.faults.disk import Disk
from tests.faults.scene import files_in, quietly
from tests.faults.warm import Warm

WORDS = ("shard", "x.parquet", "--output", "out", "--buckets", "6")
LABELS = ("part-written", "directory-synced", "directory-named")
KILLED = -signal.SIGKILL


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Readings of eight series, and something that is not ours."""
    times = pd.date_range("2024-01-01", periods=50, freq="1h")
    parts = [pd.DataFrame({"ts": times, "id": f"s{i}", "temp": np.arange(50.0)}) for i in range(8)]
    folder = tmp_path / "place"
    folder.mkdir()
    pd.concat(parts).to_parquet(folder / "x.parquet", index=False)
    (folder / ".tmp-0123456789ab-other").write_text("not ours")
    return folder


@pytest.fixture
def whole(place: Path) -> dict[str, bytes]:
    """What an undisturbed run makes."""
    assert quietly(*WORDS, cwd=place).code == 0
    found = files_in(place / "out")
    shutil.rmtree(place / "out")
    return found


def check(place: Path, whole: dict[str, bytes]) -> None:
    """All or nothing has the name, and nothing else has changed."""
    assert not (place / "out").exists() or files_in(place / "out") == whole
    assert (place / ".tmp-0123456789ab-other").read_text() == "not ours"


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


@pytest.mark.parametrize("label", LABELS)
def test_a_kill_leaves_all_or_nothing_and_the_next_run_what_is_right(
    label: str, place: Path, whole: dict[str, bytes], warm: Warm
) -> None:
    expected = {"x.parquet", "out", ".tmp-0123456789ab-other"}
    for passage in range(1, len(whole) + 2):
        done = warm.run(*WORDS, cwd=place, env={CRASH_VARIABLE: f"{label}:{passage}"})
        check(place, whole)
        if done.code == 0:
            break
        assert done.code == KILLED
        assert (place / "out").exists() == (label == "directory-named")
        again = warm.run(*WORDS, cwd=place)
        assert again.code == (2 if label == "directory-named" else 0), again.err
        check(place, whole)
        assert names(place) - {".lock-out"} == expected
        shutil.rmtree(place / "out")
    assert passage == (len(whole) + 1 if label == "part-written" else 2)


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "rename", "mkdir"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_nothing(
    kind: str, error: int, place: Path, whole: dict[str, bytes]
) -> None:
    before = names(place)
    for at in range(1, 60):
        disk = Disk(place, kind=kind, at=at, error=error)
        with disk.standing_between():
            outcome = quietly(*WORDS, cwd=place)
        if not disk.has_failed:
            break
        if outcome.code == 0:  # who holds the lock could not be said, which does no harm
            check(place, whole)
            shutil.rmtree(place / "out")
            continue
        assert outcome.code == 7, outcome
        assert "out" in outcome.err
        assert names(place) == before
    assert at > 1
    assert outcome.code == 0
    check(place, whole)


def test_two_at_a_time_never_meet(place: Path, whole: dict[str, bytes], warm: Warm) -> None:
    first = warm.start(*WORDS, cwd=place, env={CRASH_VARIABLE: "part-written:1:STOP"})
    assert first.is_stopped()
    assert warm.run(*WORDS, cwd=place).code == 11
    first.kill(signal.SIGCONT)
    assert first.wait().code == 0
    check(place, whole)


def test_a_signal_leaves_nothing(place: Path, whole: dict[str, bytes], warm: Warm) -> None:
    before = names(place)
    running = warm.start(*WORDS, cwd=place, env={CRASH_VARIABLE: "part-written:2:STOP"})
    assert running.is_stopped()
    running.kill(signal.SIGTERM)
    running.kill(signal.SIGCONT)
    done = running.wait()
    assert (done.code, "nothing was published" in done.err) == (143, True)
    assert "Traceback" not in done.err and "Exception ignored" not in done.err
    assert names(place) == before
    check(place, whole)


@pytest.mark.slow
def test_kills_at_any_moment_leave_all_or_nothing(
    place: Path, whole: dict[str, bytes], warm: Warm
) -> None:
    rng = random.Random(3)
    duration = warm.run(*WORDS, cwd=place).seconds
    for _ in range(20):
        shutil.rmtree(place / "out", ignore_errors=True)
        running = warm.start(*WORDS, cwd=place)
        time.sleep(rng.uniform(0.1, 1.1) * duration)
        running.kill()
        assert running.wait().code in (0, KILLED)
        check(place, whole)
    shutil.rmtree(place / "out", ignore_errors=True)
    assert warm.run(*WORDS, cwd=place).code == 0
    check(place, whole)
    assert names(place) == {"x.parquet", "out", ".tmp-0123456789ab-other"}
