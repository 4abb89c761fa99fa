"""The lock of a directory: one writer at a time."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rnnforecast.errors import LockedError, WriteError
from rnnforecast.events import Listener, WarningEvent, ignore
from rnnforecast.storage.durable import make_directory
from rnnforecast.storage.remote import AnyPath, is_remote
from rnnforecast.system import IS_POSIX, call_in_forks, lock_file, open_flags

_POLL_S = 0.05
_READABLE = 0o444
_held: set[int] = set()
"""The descriptors of all locks that this process holds."""


@contextmanager
def acquire(
    path: AnyPath, *, wait_s: float | None = None, listener: Listener = ignore
) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; make its folder where there is none.

    Raises `LockedError` where another process holds it for longer than `wait_s`, `WriteError` where
    it cannot be made. None is for commands without `--lock-wait`: they do not wait. A folder that
    was made for the lock is removed at the end if it is empty. On an object store nothing is held,
    which the listener is told each time.
    """
    if is_remote(path):
        message = (
            f"object stores have no locks: make sure that only one machine writes to {path.parent}"
        )
        listener(WarningEvent("no-lock", message))
        yield
        return

    folder_is_new = not os.path.exists(path.parent)  # noqa: PTH110 - a name may be too long
    descriptor = _lock(path, wait_s)
    _held.add(descriptor)
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # a lock can be held on a full disk, too
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode() + b"\n")
        yield
    finally:
        if descriptor in _held:  # a forked child has closed it already
            _held.discard(descriptor)
            _remove(descriptor, path)
            if folder_is_new:
                with suppress(OSError):
                    path.parent.rmdir()


def _lock(path: Path, wait_s: float | None) -> int:
    """Open and lock the file, and return its descriptor."""
    deadline = time.monotonic() + (wait_s or 0.0)
    while True:
        _make_folder(path.parent)
        try:
            descriptor = _open(path)
        except FileNotFoundError:  # the folder was removed together with another process's lock
            continue
        except OSError as error:
            raise WriteError(
                f"cannot lock {path}: {error.strerror}",
                code="cannot-lock",
                hint="check the owner of the file and its folder; remove the file if no run "
                "is active",
            ) from error

        try:
            lock_file(descriptor)
            if _has_name(descriptor, path):
                return descriptor
            os.close(descriptor)  # a lock on a file that was unlinked meanwhile excludes nobody
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise _locked_error(path, can_wait=wait_s is not None) from None
            time.sleep(_POLL_S)
        except OSError as error:
            os.close(descriptor)
            raise WriteError(
                f"cannot lock {path}: {error.strerror}",
                code="cannot-lock",
                hint="the file system must know locks",
            ) from error


def _open(path: Path) -> int:
    """Open the lock file, and make it where there is none.

    Whoever may look into the folder may read it, so that a file that another user's killed process
    has left excludes nobody: a file that is only read can be locked, too.
    """
    try:
        descriptor = os.open(path, open_flags("O_RDWR", "O_CREAT", "O_NOFOLLOW"), 0o666)
    except PermissionError as error:
        try:
            return os.open(path, open_flags("O_RDONLY", "O_NOFOLLOW"))
        except FileNotFoundError:
            is_effective = os.access in os.supports_effective_ids
            if os.access(path.parent, os.W_OK | os.X_OK, effective_ids=is_effective):
                raise  # it was another user's, and is gone
            raise error from None
    status = os.fstat(descriptor)
    if IS_POSIX and status.st_uid == os.geteuid() and status.st_mode & _READABLE != _READABLE:
        with suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | _READABLE)
    return descriptor


def _make_folder(folder: Path) -> None:
    """Make the lock's folder, which may vanish meanwhile with the lock of another process.

    A third process may have made it again by the time that it is looked at.
    """
    try:
        make_directory(folder)
    except WriteError as error:
        is_raced = isinstance(error.__cause__, FileExistsError | NotADirectoryError)
        is_no_folder = os.path.lexists(folder) and not folder.is_dir()
        if not is_raced or is_no_folder or not folder.parent.is_dir():
            raise


def _remove(descriptor: int, path: Path) -> None:
    """Unlink and unlock the file, unless another process has taken over the name.

    Unlinking comes first where the system allows it, or another process could lock the file
    between the two and lose its name. Windows unlinks no file that is open anywhere.
    """
    has_name = _has_name(descriptor, path)
    if not IS_POSIX:
        os.close(descriptor)
    if has_name:
        with suppress(OSError):
            path.unlink()
    if IS_POSIX:
        os.close(descriptor)


def _has_name(descriptor: int, path: Path) -> bool:
    """Tell whether the locked file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _locked_error(path: Path, *, can_wait: bool) -> LockedError:
    try:
        content = json.loads(path.read_bytes()[:1000])
        holder = f"process {content['pid']} on {content['host']} since {content['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        holder = "another process"
    return LockedError(
        f"{path.parent} is being written to by {holder}",
        hint="wait for it, e.g. with  --lock-wait 10m"
        if can_wait
        else "try again when it has finished",
    )


def _close_in_child() -> None:
    """Close the descriptors in a forked child, so that the locks end with the parent."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


call_in_forks(_close_in_child)
