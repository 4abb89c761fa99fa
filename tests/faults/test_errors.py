"""The disk refuses: the N-th open, write, sync, rename, link, unlink or mkdir, and a full one.

Faults 2 and 7 of the table. As in the I/O error tests of SQLite, N grows until a run is clean.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rnnforecast.errors import WriteError
from rnnforecast.model import artifact
from rnnforecast.storage import versions
from tests.faults.confined import confined, refused
from tests.faults.counting import tell
from tests.faults.disk import KINDS, Disk
from tests.faults.scene import PREDICT, RUN, Command, Scene, quietly, remembered_forecasts
from tests.faults.warm import ROOT, Warm
from tests.thorough import THOROUGHLY

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
MOST_CALLS = 200
LONGEST_MESSAGE = 300


def n_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def each_fault(
    root: Path,
    errors: tuple[int, ...],
    attempt: Callable[[Disk], None],
    *,
    every: int = 1,
) -> tuple[int, int]:
    """Let the N-th call of each kind fail until none is left to; return faults and attempts.

    Calls take turns with the errors, and so does each call once and from then on. With `every`
    only each such call fails, another third once than from then on.
    """
    n_faults = n_attempts = 0
    for kind in KINDS:
        for for_ever in (False, True):
            for at in range(1 + for_ever % every, MOST_CALLS, every):
                error = errors[(at + for_ever) % len(errors)]
                disk = Disk(root, kind, at, for_ever, error)
                attempt(disk)
                n_attempts += 1
                n_faults += disk.has_failed
                if not disk.has_failed:
                    break
            else:
                raise AssertionError(f"no run was clean of {kind}")
    return n_faults, n_attempts


def fails_whole(scene: Scene, command: Command, errors: tuple[int, ...]) -> None:
    """Let every call of a command fail in turn: exit 7 or success, and the old or the new."""
    codes: dict[int, int] = {}

    def attempt(disk: Disk) -> None:
        scene.reset()
        descriptors = n_descriptors()
        with disk.standing_between():
            outcome = quietly(*command.words, cwd=scene.place)
        said = f"{disk.kind} {disk.at} {disk.for_ever} {os.strerror(disk.error)}: {outcome}"
        assert n_descriptors() <= descriptors, said
        codes[outcome.code] = codes.get(outcome.code, 0) + 1
        scene.check()
        if outcome.code == 0:
            assert scene.read(command.result) == scene.after[command.result], said
        else:
            assert outcome.code == 7, said
            assert disk.has_failed, said
            assert names_a_path(outcome.err, scene), said
            # once names cannot be changed any more, nothing can be taken back
            if not (disk.for_ever and disk.kind == "rename"):
                assert scene.read(command.result) == scene.before[command.result], said
        scene.expect(0, *command.words)
        scene.check_done(command)
        if command is RUN:
            assert scene.leftovers() == [], said

    with remembered_forecasts():
        every = 1 if THOROUGHLY > 1 else 3  # a command takes half a second, and makes many calls
        n_faults, n_attempts = each_fault(scene.folder, errors, attempt, every=every)
    tell(
        2,
        f"{command.name}, each call fails",
        injected=n_faults,
        runs=n_attempts,
        exit_0=codes.get(0, 0),
        exit_7=codes.get(7, 0),
        violations=0,
    )


def names_a_path(said: str, scene: Scene) -> bool:
    error = next((line for line in said.splitlines() if line.startswith("error")), "")
    return bool(re.search(r"(out|ledger|model|data)\b|job\.", error)) or str(scene.place) in error


@pytest.mark.slow
@pytest.mark.parametrize("command", [RUN, PREDICT], ids=lambda command: command.name)
def test_a_command_survives_each_call_that_fails(command: Command, scene: Scene) -> None:
    fails_whole(scene, command, ERRORS)


@pytest.mark.slow
def test_publishing_a_version_survives_each_call_that_fails(scene: Scene) -> None:
    resolved = versions.resolve_version(scene.model)
    files = {path.name: path.read_bytes() for path in resolved.iterdir()}
    before = (scene.model / versions.CURRENT).read_bytes()
    n_failed = 0

    def attempt(disk: Disk) -> None:
        nonlocal n_failed
        versions.activate_version(scene.model, resolved.name)
        versions.remove_leftovers(scene.model)
        descriptors = n_descriptors()
        try:
            with disk.standing_between():
                version = versions.publish_version(scene.model, files, now=datetime.now(UTC))
                versions.activate_version(scene.model, version)
        except WriteError as error:
            n_failed += 1
            assert disk.has_failed
            assert str(scene.model) in error.message
            if not (disk.for_ever and disk.kind == "rename"):
                assert (scene.model / versions.CURRENT).read_bytes() == before
        assert n_descriptors() <= descriptors
        for name in versions.list_versions(scene.model):
            artifact.load(versions.resolve_version(scene.model, name))
            if name != resolved.name:
                shutil.rmtree(scene.model / versions.VERSIONS / name)

    n_faults, n_attempts = each_fault(scene.folder, ERRORS, attempt)
    tell(
        2,
        "a version's publishing, each call fails",
        injected=n_faults,
        runs=n_attempts,
        exit_7=n_failed,
        violations=0,
    )


STRACE = ["strace", "-f", "-o", os.devnull]


def traced() -> str | None:
    """Say why no call can be made to fail from outside; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    words = [*STRACE, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "true"]
    done = subprocess.run(words, capture_output=True, text=True)
    return None if done.returncode == 0 else f"strace is refused here: {done.stderr.strip()}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "name", "at"),
    [
        ("fsync", "EIO", 1),
        ("rename", "EACCES", 2),
        ("link", "EIO", 1),
        ("mkdir", "ENOSPC", 1),
    ],
)
def test_a_real_process_survives_a_call_that_fails(
    call: str, name: str, at: int, scene: Scene
) -> None:
    refusal = traced()
    if refusal is not None:
        pytest.skip(refusal)
    calls = {"rename": "rename,renameat,renameat2", "link": "link,linkat", "mkdir": "mkdir,mkdirat"}
    inject = f"inject={calls.get(call, call)}:error={name}:when={at}"
    words = [*STRACE, "-e", f"trace={calls.get(call, call)}", "-e", inject]
    if call == "mkdir":
        shutil.rmtree(scene.place / "out")
        scene_has_output = False
    else:
        scene_has_output = True
    done = subprocess.run(
        [*words, sys.executable, "-m", "rnnforecast", *RUN.words],
        cwd=scene.place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 7), done.stderr
    if done.returncode:
        assert os.strerror(getattr(errno, name)) in done.stderr
        if scene_has_output:
            scene.check()
            assert scene.read(RUN.result) == scene.before[RUN.result]
    scene.expect(0, *RUN.words)
    assert scene.read(RUN.result) == scene.after[RUN.result]
    assert scene.leftovers() == []
    tell(2, f"a real process, {call} {at} ends in {name}", injected=1, exit_code=done.returncode)


# A full disk


def test_files_that_may_not_grow_leave_what_was_there(scene: Scene, warm: Warm) -> None:
    """RLIMIT_FSIZE: the first bytes fit, the rest does not."""
    limits, failed = (0, 400, 2000), 0
    for limit in limits:
        scene.reset()
        done = warm.run(*PREDICT.words, cwd=scene.place, limits={"FSIZE": limit})
        assert done.code in (0, 7), done
        if done.code and limit > LONGEST_MESSAGE:  # standard error is a file here, too
            assert "File too large" in done.err
        failed += done.code == 7
        expected = scene.after if done.code == 0 else scene.before
        assert scene.read(PREDICT.result) == expected[PREDICT.result]
        assert scene.leftovers() == []
    scene.expect(0, *PREDICT.words)
    scene.check_done(PREDICT)
    tell(7, "predict, files of a bounded size", limits=len(limits), exit_7=failed, left_over=0)


@pytest.mark.slow
def test_a_run_whose_files_may_not_grow_leaves_what_was_there(scene: Scene, warm: Warm) -> None:
    limits, failed = (0, 200, 1000, 3000, 5000, 7000, 9000, 20_000), 0
    for limit in limits:
        scene.reset()
        done = warm.run(*RUN.words, cwd=scene.place, limits={"FSIZE": limit})
        assert done.code in (0, 7), done
        failed += done.code == 7
        scene.check()
        expected = scene.after if done.code == 0 else scene.before
        assert scene.read(RUN.result) == expected[RUN.result]
        scene.expect(0, *RUN.words)
        scene.check_done(RUN)
        assert scene.leftovers() == []
    tell(7, "run, files of a bounded size", limits=len(limits), exit_7=failed, left_over=0)
    assert 0 < failed < len(limits)


@pytest.mark.slow
def test_a_disk_that_is_full_and_then_has_room_again(scene: Scene) -> None:
    """A disk of one megabyte, in a mount namespace of its own."""
    refusal = refused()
    if refusal is not None:
        pytest.skip(refusal)
    found = confined("full disk", scene.place)
    assert set(found["codes"]) <= {0, 7}
    assert found["codes"][:2] == [7, 7]
    assert all(found["old"])
    assert (found["last"], found["left"]) == ([0, 0], [])
    for command in (RUN, PREDICT):
        assert found["results"][command.name].encode() == scene.after[command.result]
    tell(
        7,
        "a disk of a megabyte, full and then not",
        runs=len(found["codes"]),
        exit_7=found["codes"].count(7),
        left_over=0,
    )
