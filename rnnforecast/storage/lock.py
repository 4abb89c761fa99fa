"""The lock of a directory: one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rnnforecast.errors import LockedError, WriteError
from rnnforecast.storage.durable import make_directory
from rnnforecast.storage.remote import Place, Remote

_BUSY = (errno.EAGAIN, errno.EACCES)
_POLL_S = 0.05
_held: set[int] = set()


@contextmanager
def holding(path: Place, *, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock `path` while the block runs; make its folder where there is none.

    Raises `LockedError` where another holds it for longer than `wait_s`, `WriteError` where it
    cannot be made. None does not wait, and is for commands that cannot be told to. A folder that
    was made and holds nothing in the end goes again. On an object store nothing is held.
    """
    if isinstance(path, Remote):
        yield
        return
    folder_is_new = not path.parent.exists()
    descriptor = _acquire(path, wait_s)
    _held.add(descriptor)
    try:
        _say_who(descriptor)
        yield
    finally:
        if descriptor in _held:  # a forked child that comes by here has let go of it already
            _held.discard(descriptor)
            _let_go(descriptor, path, takes_folder=folder_is_new)


def _acquire(path: Path, wait_s: float | None) -> int:
    deadline = time.monotonic() + (wait_s or 0.0)
    while True:
        _make_folder(path.parent)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # the folder went with the lock of another
            continue
        except OSError as error:
            raise WriteError(f"cannot lock {path}: {error.strerror}", code="cannot-lock") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(descriptor, path):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _BUSY:
                raise WriteError(
                    f"cannot lock {path}: {error.strerror}",
                    code="cannot-lock",
                    hint="the file system must know locks",
                ) from error
            if time.monotonic() >= deadline:
                raise _taken(path, can_wait=wait_s is not None) from None
            time.sleep(_POLL_S)


def _make_folder(folder: Path) -> None:
    """Make the lock's folder; one that goes again meanwhile, with the lock of another, may.

    A third one may have made it anew by the time of the look.
    """
    try:
        make_directory(folder)
    except WriteError as error:
        is_raced = isinstance(error.__cause__, FileExistsError | NotADirectoryError)
        is_other = os.path.lexists(folder) and not folder.is_dir()
        if not is_raced or is_other or not folder.parent.is_dir():
            raise


def _let_go(descriptor: int, path: Path, *, takes_folder: bool) -> None:
    """Take the file away while it is locked, unless its name is another's by now."""
    if _has_name(descriptor, path):
        with contextlib.suppress(OSError):
            path.unlink()
    os.close(descriptor)
    if takes_folder:
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _has_name(descriptor: int, path: Path) -> bool:
    """Tell whether the file that is locked is the one that others find."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _say_who(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk keeps nobody from holding a lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _taken(path: Path, *, can_wait: bool) -> LockedError:
    try:
        holder = json.loads(path.read_bytes()[:1000])
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return LockedError(
        f"{path.parent} is being written to by {who}",
        hint="wait for it, such as with  --lock-wait 10m"
        if can_wait
        else "try again when that has ended",
    )


def _let_go_in_child() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
