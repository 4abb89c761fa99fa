"""Which signals ask a process to end, and when they may. Quick to import: it comes first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NAMES = ("SIGHUP", "SIGINT", "SIGTERM")  # not every system has all of them


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
