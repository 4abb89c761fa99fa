"""Signals, time limits, memory, the process that forks workers, and variables of a launcher."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BufferedReader
from pathlib import Path
from types import FrameType

from rnnforecast.errors import TimeLimitError
from rnnforecast.system import open_flags

_SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM")  # not every system has all of them
_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 1 << 30, 1 << 25
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""How worker processes are started."""
_PRELOAD_MODULE = "rnnforecast.batch.preload"


@cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory of arrays for the next ones, which are of the same sizes.

    Of what it gives back to the system, each page is zeroed again: a sixth of the time of a batch.
    """
    with suppress(AttributeError, OSError, TypeError):  # where there is another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)


def start_fork_server() -> None:
    """Start the process from which workers are forked, unless it runs; it begins to import.

    It does so while this process imports. SIGINT, which a terminal sends to all processes, is left
    to this one. The fork server finds modules where this process does, and not in the working
    directory first.
    """
    if START_METHOD != "forkserver":
        return
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload([_PRELOAD_MODULE])
    # Otherwise the fork server's `ensure_running` starts the tracker, which unblocks the signal.
    resource_tracker.ensure_running()

    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"}
    previous = {name: os.environ.get(name) for name in variables}
    # Blocked until the fork server ignores the signal by itself.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        # There is no parameter for the environment of the fork server: it inherits ours.
        os.environ.update(variables)
        forkserver.ensure_running()
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Install `handler` for every termination signal that is not ignored (nohup ignores some)."""
    for number in _signal_numbers():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def defer_signals(tell: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Defer the exception that a signal handler raises until the block ends.

    An exception between any two instructions would leave locks taken and work half done. Until the
    block ends, the exception is in the list that the block gets and should check. `tell` is called
    at once, in the main thread. Only the first signal is deferred; the original handler answers the
    next one. Outside of the main thread, where no handlers run, this does nothing.
    """
    deferred: list[BaseException] = []
    original: dict[int, Callable[[int, FrameType | None], object]] = {}

    def defer(number: int, frame: FrameType | None) -> None:
        if deferred:
            original[number](number, frame)
            return
        try:
            original[number](number, frame)
        except BaseException as error:
            deferred.append(error)
            with suppress(Exception):  # a listener that fails does not cancel the signal
                tell()

    try:
        if threading.current_thread() is threading.main_thread():
            for number in _signal_numbers():
                handler = signal.getsignal(number)
                if callable(handler):
                    original[number] = handler
                    signal.signal(number, defer)
        yield deferred

    finally:
        for number, handler in original.items():
            signal.signal(number, handler)
        if deferred:
            raise deferred[0]


def _signal_numbers() -> list[int]:
    numbers = (getattr(signal, name, None) for name in _SIGNALS)
    return [number for number in numbers if number is not None]


class _Expired(BaseException):
    """The timer ran out. Not an `Exception`, so that no library swallows it."""


_CHECKS = 100
"""Jumps back in a loop, at each of which the interpreter looks for an exception of a thread."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block after this many seconds; infinity is no limit.

    In the main thread it uses the timer of the process: one limit at a time. In another thread,
    which no signal reaches, and on Windows, which has no timer, a call of a library has to return
    before the exception is raised.
    """
    if seconds == math.inf:
        yield
        return
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer"):
        with _time_limit_of_thread(seconds):
            yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise _Expired

    original = signal.signal(signal.SIGALRM, expire)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
            yield
        finally:  # an alarm that arrives even here counts as well
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Expired:
        raise _time_limit_error() from None
    finally:
        signal.signal(signal.SIGALRM, original)


@contextmanager
def _time_limit_of_thread(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block of this thread after this many seconds."""
    thread, lock = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    is_over = is_set = False

    def expire() -> None:
        nonlocal is_set
        with lock:
            if not is_over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_Expired))
                is_set = True

    timer = threading.Timer(max(seconds, 1e-6), expire)
    timer.daemon = True
    try:
        try:
            timer.start()
            yield
        finally:
            with lock:
                is_over = True
            timer.cancel()
            # One that was set just now is raised here. Taken back, it would leave the interpreter
            # looking for it after each instruction for ever, and stuck where it is profiled.
            for _ in range(_CHECKS if is_set else 0):
                time.sleep(0)
    except _Expired:
        raise _time_limit_error() from None


def _time_limit_error() -> TimeLimitError:
    return TimeLimitError(
        "--max-time ran out", hint="nothing was published; the previous output is unchanged"
    )


def open_regular(path: Path, flags: int = 0) -> BufferedReader:
    """Open a regular file for reading; a pipe is refused, so that nobody waits for its writer.

    `flags` are further ones of `os.open`. Raises `OSError`.
    """
    flags |= open_flags("O_NONBLOCK")
    file = open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))  # noqa: SIM115
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except BaseException:
        file.close()
        raise
    return file


@dataclass(frozen=True)
class Launch:
    """One of the processes that a launcher has started together."""

    rank: int
    n: int
    """Number of processes (torch's world size)."""
    local_rank: int
    """Rank among the processes of this machine (torch's local rank)."""
    local_world_size: int
    """Number of processes on this machine (torch's local world size)."""
    restarts: int
    """How often the launcher has restarted all processes because one died."""


def current_launch() -> Launch | None:
    """Return the launch of this process; None where no launcher has started it."""
    environment = os.environ
    if any(name not in environment for name in _LAUNCH_VARIABLES):
        return None

    try:
        return Launch(
            rank=int(environment["RANK"]),
            n=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            local_world_size=max(1, int(environment.get("LOCAL_WORLD_SIZE", "1"))),
            restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
    except ValueError:
        return None  # variables of another program


def is_main_process() -> bool:
    """Tell whether this process prints the result: the first of a launch, or a single one."""
    launch = current_launch()
    return launch is None or launch.rank == 0


def n_processors() -> int:
    """Return the number of processors for this process: its affinity, where the system tells it.

    Processes that a launcher has started on one machine share them.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    launch = current_launch()
    return n if launch is None else max(1, n // launch.local_world_size)
