"""Signals, a time limit, and the place of this process among those of a launcher."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from rnnforecast.errors import TimeLimitError, UsageError

_NAMES = ("SIGHUP", "SIGINT", "SIGTERM")  # not every system has all of them
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Let `handler` answer every signal to end but those that are ignored, as nohup asks."""
    for number in _numbers():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def holding_back(tell: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Hold back what the handlers of signals raise; it is raised when the block ends.

    It stands in the list meanwhile, which the block is to look at. An exception that comes between
    any two instructions would leave locks taken and work half done. `tell` is called at once, in
    the main thread. Only the first signal is held back: to the next its handler answers. In another
    thread than the main one there is nothing to do, for handlers do not run there.
    """
    came: list[BaseException] = []
    before: dict[int, Callable[[int, FrameType | None], object]] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if came:
            before[number](number, frame)
            return
        try:
            before[number](number, frame)
        except BaseException as error:
            came.append(error)
            with suppress(Exception):  # where nobody can be told, the signal counts all the same
                tell()

    try:
        if threading.current_thread() is threading.main_thread():
            for number in _numbers():
                handler = signal.getsignal(number)
                if callable(handler):
                    before[number] = handler
                    signal.signal(number, hold)
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            raise came[0]


def _numbers() -> list[int]:
    found = (getattr(signal, name, None) for name in _NAMES)
    return [number for number in found if number is not None]


class _Expired(BaseException):
    """No `except Exception` of a library may swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block once so many seconds are over.

    It is a timer of the process, so it works in the main thread alone, and one at a time.
    """
    if seconds == math.inf:
        yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise _Expired

    try:
        before = signal.signal(signal.SIGALRM, expire)
    except ValueError as error:
        raise UsageError("--max-time works in the main thread only") from error
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
            yield
        finally:  # the alarm may come even here, and is an answer then as well
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Expired:
        raise TimeLimitError(
            "--max-time ran out; nothing was published",
            hint="what was there before is unchanged",
        ) from None
    finally:
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Launch:
    """One process among those that were started together."""

    rank: int
    n: int
    rank_here: int
    """Which one of this machine."""
    n_here: int
    """How many of them share this machine."""
    restarts: int
    """How often the launcher has started all of them again, because one had died."""


def launched() -> Launch | None:
    """Return which process this is; None where no launcher has started it."""
    said = os.environ
    if any(name not in said for name in _NEEDED):
        return None
    try:
        return Launch(
            rank=int(said["RANK"]),
            n=int(said["WORLD_SIZE"]),
            rank_here=int(said.get("LOCAL_RANK", "0")),
            n_here=max(1, int(said.get("LOCAL_WORLD_SIZE", "1"))),
            restarts=int(said.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
    except ValueError:
        return None  # somebody else's variables


def speaks_for_all() -> bool:
    """Tell whether this process is the one that prints what all have come to."""
    launch = launched()
    return launch is None or launch.rank == 0
