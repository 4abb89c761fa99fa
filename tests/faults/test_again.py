"""The same command twice, and a clock that jumps: the same bytes, and nothing is taken away.

Faults 8 and 9 of the table.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import rnnforecast
from rnnforecast.storage import versions
from tests.faults.counting import tell
from tests.faults.scene import RUN, TOLD, TRAIN, Scene
from tests.faults.versions import ages
from tests.faults.warm import Warm

YEAR_S = 365.25 * 86_400


def states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what changes of a file or a folder when it is written to."""
    found = {path: path.stat() for path in (folder, *folder.rglob("*")) if path.name not in TOLD}
    return {str(path): (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found.items()}


def changed(before: dict, after: dict) -> list[str]:
    return sorted(path for path in before | after if before.get(path) != after.get(path))


@pytest.mark.slow
def test_the_same_run_again_writes_nothing(scene: Scene, warm: Warm) -> None:
    """Nothing but the log, the text file, and the lock that comes and goes."""
    scene.expect(0, *RUN.words)
    before = states(scene.place)
    for _ in range(3):
        done = warm.run(*RUN.words, "--json", cwd=scene.place)
        assert (done.code, json.loads(done.out)["status"]) == (0, "already published")
    touched = changed(before, states(scene.place))
    assert touched == sorted(str(p) for p in (scene.place, scene.place / "ledger"))
    scene.check_done(RUN)
    tell(8, "run again", runs=3, files_changed=0)


def test_using_the_version_active_again_writes_nothing(scene: Scene) -> None:
    (older,) = ages(scene.model, 1)
    scene.expect(0, "use", older, "-m", "model")
    before = states(scene.model)
    for _ in range(3):
        outcome = scene.expect(0, "use", older, "-m", "model")
        assert "is already active" in outcome.out
    assert changed(before, states(scene.model)) == [str(scene.model)]
    assert versions.resolve_version(scene.model).name == older
    tell(8, "use again", runs=3, files_changed=0)


# A clock that jumps


@contextmanager
def clock_ahead(seconds: float, *, after_calls: int = 0) -> Iterator[None]:
    """Let the wall clock of the package be ahead, from a call of it on; the monotonic one is not.

    Modules hold the class `datetime` by name, so each gets one that asks the same clock.
    """
    real_time, real_ns, calls = time.time, time.time_ns, [0]

    def ahead() -> float:
        calls[0] += 1
        return seconds if calls[0] > after_calls else 0.0

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(real_time() + ahead(), tz)

    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(rnnforecast.__path__, "rnnforecast.")
        if found.name not in ("rnnforecast.__main__",)
    ]
    with (
        mock.patch.object(time, "time", lambda: real_time() + ahead()),
        mock.patch.object(time, "time_ns", lambda: int(real_ns() + ahead() * 1e9)),
    ):
        patches = [
            mock.patch.object(module, "datetime", Moved)
            for module in modules
            if getattr(module, "datetime", None) is datetime
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def durations(scene: Scene) -> list[float]:
    """Return every duration that the log and the manifest speak of."""
    lines = [json.loads(line) for line in (scene.place / "run.log").read_text().splitlines()]
    timings = [line["timing"] for line in lines if "timing" in line]
    timings.append(scene.manifest()["timing"])
    gauges = (scene.place / "job.prom").read_text().splitlines()
    took = [float(x.split()[-1]) for x in gauges if x.startswith("rnnforecast_last_duration")]
    return [value for timing in timings for value in timing.values()] + took


JUMPS = {
    "a year ahead": YEAR_S,
    "a year behind": -YEAR_S,
}


@pytest.mark.parametrize("after_calls", [0, 2])
@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_a_clock_that_jumps_changes_no_byte(jump: float, after_calls: int, scene: Scene) -> None:
    """Before the run, or in the middle of it."""
    (scene.place / "job.toml").write_text(
        (scene.place / "job.toml").read_text() + "[keep]\nversions = 1\nforecasts = 1\n"
    )
    with clock_ahead(jump, after_calls=after_calls):
        scene.expect(0, *RUN.words)
    scene.expect(0, *RUN.words)
    for name, content in scene.after.items():
        if name.startswith(("out/forecast", "ledger/")):
            assert scene.read(name) == content
    took = durations(scene)
    assert min(took) >= 0
    tell(9, f"the clock jumps by {jump:.0f} s", durations=len(took), negative=0)


def test_a_clock_that_is_behind_the_readings_publishes_nothing_until_it_is_right(
    scene: Scene,
) -> None:
    """The readings seem to come from the future, which is refused."""
    with clock_ahead(-10 * YEAR_S):
        outcome = scene.expect(4, *RUN.words)
    assert "in the future" in outcome.err
    assert scene.read(RUN.result) == scene.before[RUN.result]
    scene.expect(0, *RUN.words)
    scene.check_done(RUN)
    assert min(durations(scene)) >= 0
    tell(9, "the clock is behind the readings", runs=1, published=0)


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_night_in_which_the_clock_is_changed_changes_no_byte(
    zone: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = [
        datetime(2024, month, day, hour, 30, tzinfo=UTC).timestamp()
        for month, day in ((3, 31), (10, 27), (3, 10), (11, 3), (4, 6), (10, 5))
        for hour in (0, 1, 5, 15)  # of UTC, before and after the change somewhere
    ]
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for night in nights:
            scene.reset()
            with clock_ahead(night - time.time()):
                scene.expect(0, *RUN.words)
            for name, content in scene.after.items():
                if name.startswith(("out/forecast", "ledger/")):
                    assert scene.read(name) == content
            assert min(durations(scene)) >= 0
    finally:
        monkeypatch.undo()
        time.tzset()
    tell(9, f"nights of another clock in {zone}", runs=len(nights), differing=0, negative=0)


@pytest.mark.parametrize("jump", [-YEAR_S, -2 * 86_400.0, 0.0])
def test_retention_takes_nothing_while_the_clock_is_behind(jump: float, scene: Scene) -> None:
    ages(scene.model, 4)
    before = versions.list_versions(scene.model)
    (scene.place / "job.toml").write_text(
        (scene.place / "job.toml").read_text() + "[keep]\nversions = 2\n"
    )
    with clock_ahead(jump):
        scene.expect(0, *RUN.words)
    left = versions.list_versions(scene.model)
    assert left == (before if jump < 0 else before[-2:])
    tell(9, f"retention, the clock by {jump:.0f} s", versions=len(before), left=len(left))


def test_a_version_that_is_trained_while_the_clock_is_behind_comes_into_force(
    scene: Scene,
) -> None:
    older = versions.resolve_version(scene.model).name
    with clock_ahead(-YEAR_S):
        scene.expect(0, *TRAIN.words)
    newer = versions.resolve_version(scene.model).name
    assert newer < older
    scene.check_done(TRAIN)
    now = datetime.now(UTC) + timedelta(days=1)
    assert older in [*versions.retire_versions(scene.model, keep=1, pinned=(), now=now), older]
    assert versions.resolve_version(scene.model).name == newer
