"""One writer: a lock that is gone when its process is, and a message that says who holds it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rnnforecast.errors import LockedError, WriteError
from rnnforecast.storage import durable
from rnnforecast.storage.lock import acquire
from tests.builders import another_user

HOLD = """
import os, sys, time
from pathlib import Path
from rnnforecast.storage.lock import acquire
with acquire(Path(sys.argv[1])):
    if "fork" in sys.argv and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import os, sys
from pathlib import Path
from rnnforecast.storage.lock import acquire
lock, counter, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    with acquire(lock, wait_s=60):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
SOON_S = 1.0
"""Seconds within which a lock must be free again."""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "place" / ".lock"


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def another_holds(lock: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Let another process hold the lock; give it, and what it and its child have printed."""
    with script(HOLD, lock, *words) as process:
        try:
            yield process, [process.stdout.readline().strip() for _ in ("held", *words)]
        finally:
            process.kill()


def refusal(lock: Path, **options: float) -> LockedError:
    with pytest.raises(LockedError) as caught, acquire(lock, **options):
        pass
    return caught.value


def test_what_another_process_holds_cannot_be_had_and_nothing_waits(lock: Path) -> None:
    with another_holds(lock):
        begun = time.monotonic()
        refusal(lock)
        assert time.monotonic() - begun < SOON_S
    with acquire(lock):
        pass


def test_in_one_process_two_holders_are_one_too_many(lock: Path) -> None:
    with acquire(lock):
        refusal(lock)
        refusal(lock)
        with acquire(lock.with_name("another")):
            pass
    with acquire(lock):
        pass


def test_who_is_refused_hears_of_the_holder(lock: Path) -> None:
    with another_holds(lock) as (process, _):
        error = refusal(lock)
        waited = refusal(lock, wait_s=0.0)

    assert (error.exit_code, error.code) == (11, "locked")
    assert f"process {process.pid} on {socket.gethostname()} since " in error.message
    assert str(lock.parent) in error.message
    since = datetime.fromisoformat(error.message.split("since ")[1])
    assert abs((datetime.now(UTC) - since).total_seconds()) < 60
    assert "--lock-wait" in waited.hint
    assert error.hint and "--" not in error.hint, "of a command that has no such option"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"null", b'{"pid": 1}'])
def test_a_lock_that_does_not_say_who_holds_it_is_held_all_the_same(
    lock: Path, content: bytes
) -> None:
    with acquire(lock):
        lock.write_bytes(content)
        assert "another process" in refusal(lock).message


def test_the_holder_stands_in_the_file_and_no_earlier_one(lock: Path) -> None:
    lock.parent.mkdir()
    lock.write_text("x" * 500)
    with acquire(lock):
        said = json.loads(lock.read_text())
        assert (said["pid"], said["host"]) == (os.getpid(), socket.gethostname())


def test_who_waits_gets_it_when_it_is_free(lock: Path) -> None:
    with another_holds(lock) as (process, _):
        threading.Timer(0.3, process.stdin.close).start()
        begun = time.monotonic()
        with acquire(lock, wait_s=30):
            assert 0.25 < time.monotonic() - begun < 5
        assert process.wait() == 0


def test_who_waits_in_vain_is_refused_when_the_time_is_over(lock: Path) -> None:
    with acquire(lock):
        begun = time.monotonic()
        refusal(lock, wait_s=0.2)
        assert 0.2 <= time.monotonic() - begun < SOON_S


@pytest.mark.parametrize("words", [(), ("fork",)], ids=["alone", "with a child that lives on"])
def test_the_lock_of_a_process_that_was_killed_is_free_at_once(
    lock: Path, words: tuple[str, ...]
) -> None:
    with another_holds(lock, *words) as (process, said):
        refusal(lock)
        process.kill()
        process.wait()
        assert lock.exists(), "it had no time to take it away"
        begun = time.monotonic()
        with acquire(lock):
            assert time.monotonic() - begun < SOON_S
        for child in (int(text) for text in said if text.isdigit()):
            os.kill(child, signal.SIGKILL)  # it was there all the time


FORK_WITHIN = """
import os, sys
from pathlib import Path
from rnnforecast.storage.lock import acquire
lock, code = Path(sys.argv[1]), 3
with acquire(lock):
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        code = 0 if lock.exists() and status == 0 else 1
os._exit(code if child else 0)
"""


def test_a_child_that_leaves_the_block_takes_nothing_away(lock: Path) -> None:
    with script(FORK_WITHIN, lock) as process:
        assert process.wait() == 0
    assert not lock.exists()


def test_nothing_is_left_of_a_lock_in_a_folder_that_was_not_there(lock: Path) -> None:
    with acquire(lock):
        assert lock.exists()
    assert not lock.parent.exists()
    with pytest.raises(RuntimeError), acquire(lock):
        raise RuntimeError
    assert not lock.parent.exists()


def test_a_folder_with_something_in_it_stays_and_so_does_one_that_was_there(lock: Path) -> None:
    with acquire(lock):
        (lock.parent / "result").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["result"]
    (lock.parent / "result").unlink()
    with acquire(lock):
        pass
    assert list(lock.parent.iterdir()) == []


def test_a_lock_file_that_nobody_holds_is_taken_over(lock: Path) -> None:
    lock.parent.mkdir()
    lock.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}))
    with acquire(lock):
        refusal(lock)
    assert not lock.exists()


def test_who_has_lost_the_name_of_its_lock_takes_nobody_elses_away(lock: Path) -> None:
    first = acquire(lock)
    first.__enter__()
    lock.unlink()  # by hand
    with acquire(lock):
        first.__exit__(None, None, None)
        assert lock.exists()
        refusal(lock)
    assert not lock.exists()


def test_a_folder_that_goes_while_it_is_made_is_made_again(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the lock of another goes together with the folder that it had made."""
    made: list[Path] = []

    def go(folder: Path) -> None:
        made.append(folder)
        if len(made) == 1:
            lock.parent.rmdir()

    monkeypatch.setattr(durable, "_sync_directory", go)
    with acquire(lock):
        assert lock.exists()
    assert len(made) == 2


@pytest.mark.parametrize("in_new_folder", [False, True])
def test_however_many_want_it_never_two_have_it(tmp_path: Path, *, in_new_folder: bool) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    lock = tmp_path / "new" / ".lock" if in_new_folder else tmp_path / ".lock"
    contenders = [script(COUNT, lock, counter, 50) for _ in range(8)]
    codes = []
    for contender in contenders:
        with contender:
            codes.append(contender.wait())

    assert codes == [0] * 8
    assert counter.read_text() == "400"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [counter]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / ".lock", tmp_path / "file" / "below" / ".lock"):
        with pytest.raises(WriteError, match=re.escape(str(path.parent))), acquire(path):
            pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="folder") as caught, acquire(tmp_path / "folder"):
        pass
    assert caught.value.exit_code == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_a_folder_that_does_not_let_us_write_is_an_error(lock: Path) -> None:
    lock.parent.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(WriteError, match="cannot lock"), acquire(lock):
        pass


@pytest.mark.parametrize("is_there", [False, True])
def test_a_link_in_the_place_of_a_lock_is_refused_and_what_it_leads_to_is_spared(
    lock: Path, tmp_path: Path, *, is_there: bool
) -> None:
    precious = tmp_path / "precious"
    if is_there:
        precious.write_text("mine")
    lock.parent.mkdir()
    lock.symlink_to(precious)
    with pytest.raises(WriteError, match="cannot lock"), acquire(lock):
        pass
    assert lock.is_symlink()
    assert precious.exists() == is_there
    assert not is_there or precious.read_text() == "mine"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root is another user for a while")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_a_killed_run_of_root_has_left_excludes_no_other_user(
    open_folder: Path, umask: int
) -> None:
    lock = open_folder / ".lock"
    before = os.umask(umask)
    try:
        with script(HOLD, lock) as process:
            process.stdout.readline()
            with another_user():
                refusal(lock)
            process.kill()
    finally:
        os.umask(before)

    assert lock.stat().st_uid == 0
    with another_user(), acquire(lock):
        refusal(lock)
    assert not lock.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_folder_without_the_right_to_write_is_an_error_at_once() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        lock = Path(folder) / ".lock"
        denied = pytest.raises(WriteError, match="Permission denied")
        with another_user(), denied, acquire(lock, wait_s=60):
            pass
        assert not lock.exists()
