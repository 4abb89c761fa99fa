"""What Linux, macOS and Windows do differently: functions that work on each of them."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    IS_POSIX = False
else:
    IS_POSIX = True
"""On POSIX an open file can be renamed and removed, a folder fsynced; on Windows neither."""

_LOCKED_BYTE = 1 << 30
"""Where Windows locks: nobody else can read a locked byte, and the holder stands in the first."""
_LOCKED = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def lock_file(descriptor: int) -> None:
    """Lock an open file for as long as it is open; a process that dies leaves it unlocked.

    Raises `BlockingIOError` where it is locked already, by this process or another, and another
    `OSError` where the file system knows no locks.
    """
    try:
        if IS_POSIX:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno in _LOCKED:
            raise BlockingIOError(error.errno, error.strerror) from error
        raise


def open_flags(*names: str) -> int:
    """Return those of these flags of `os.open` that this system has; line ends stay as they are."""
    flags = 0
    for name in (*names, "O_BINARY"):
        flags |= getattr(os, name, 0)
    return flags


def is_writable(descriptor: int, patience_s: float) -> bool:
    """Wait until a pipe or a device takes bytes; tell whether it does in time.

    Windows cannot tell: there a write waits.
    """
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(1000 * patience_s))


def user_id() -> int | None:
    """Return the number of this user, which owns new files; None on Windows, where none has one."""
    return os.getuid() if hasattr(os, "getuid") else None


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None where the system does not tell."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own session, with all that it has started.

    On Windows what it has started goes on.
    """
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def call_in_forks(close: Callable[[], None]) -> None:
    """Have each process that is forked from this one call `close` first."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
