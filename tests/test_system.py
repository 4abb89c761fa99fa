"""What Windows lacks is not needed: the names of POSIX are hidden, and the commands work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import JOB, wave, write_wide
from tests.conftest import SMALL

LIBRARIES = """
import matplotlib, numpy, pandas, pyarrow.parquet, scipy.stats, torch  # made for this system
"""
HIDE = """
import ctypes, fcntl, multiprocessing, os, select, signal, subprocess, sys, tempfile, types

flock, link = fcntl.flock, os.link
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK = 2

def locking(descriptor, mode, n_bytes):
    assert (mode, n_bytes) == (msvcrt.LK_NBLCK, 1)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) > 1 << 20, "nobody can read what is locked"
    try:
        flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error

def link_here(source, target, *, follow_symlinks=True):
    if not follow_symlinks:
        raise NotImplementedError("link: follow_symlinks unavailable on this platform")
    link(source, target)

msvcrt.locking, os.link = locking, link_here
os.supports_follow_symlinks.discard(link)
sys.modules["msvcrt"] = msvcrt
for name in ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for module, names in {
    os: "O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC chown fchmod fchown fork "
    "forkpty getegid geteuid getgid getpgid getuid killpg mkfifo pread pwrite register_at_fork "
    "sched_getaffinity setsid statvfs sysconf uname",
    signal: "ITIMER_REAL SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm "
    "pthread_sigmask setitimer",
    select: "epoll poll",
}.items():
    for name in names.split():
        delattr(module, name)
os.O_BINARY = 0
"""
COMMANDS = """
from rnnforecast.cli.main import run
"""


def without_posix(folder: Path, program: str) -> str:
    """Run a program that hides the names that only POSIX has; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_need_no_name_that_only_posix_has(tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(300))
    (tmp_path / "job.toml").write_text(JOB)
    lines = [
        ["train", "data.csv", "-q", *SMALL],
        ["predict", "-q"],
        ["predict", "data.csv", "-m", "builtin", "-o", "builtin.csv", "-q"],
        *(["run", "job.toml", "--max-time", "10m"], ["run", "job.toml", "--json"]),
        *(["status", "job.toml", "-q"], ["check", "data.csv", "-q"], ["show", "--versions"]),
    ]

    call = f"print('CODES', *[run(line) for line in {lines!r}])"
    printed = without_posix(tmp_path, LIBRARIES + HIDE + COMMANDS + call)

    assert printed.splitlines()[-1] == "CODES 0 0 0 0 0 0 0 0"
    assert "already published" in printed
    assert (tmp_path / "forecast.csv").read_bytes() != b""
    events = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    assert events, "the log is a file of lines"
    assert not list(tmp_path.rglob(".tmp-*")), "nothing temporary is left"
    assert not list(tmp_path.rglob("*lock*")), "nor a lock"


LOCK_TWICE = """
from pathlib import Path
from rnnforecast.errors import LockedError
from rnnforecast.storage.lock import acquire

lock = Path("place/.lock")
with acquire(lock):
    try:
        with acquire(lock, wait_s=0.1):
            print("both")
    except LockedError as error:
        print("refused", f"process {os.getpid()} on" in error.message)
with acquire(lock):
    print("free")
print(lock.parent.exists())
"""


def test_a_lock_excludes_and_names_its_holder_on_a_system_that_locks_bytes(tmp_path: Path) -> None:
    printed = without_posix(tmp_path, HIDE + LOCK_TWICE)

    assert printed.splitlines() == ["refused True", "free", "False"]
