"""Which signals ask a process to end, and what it does then. Quick to import: it comes first."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

_NAMES = ("SIGHUP", "SIGINT", "SIGTERM")  # not every system has all of them


def on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Let `handler` answer every signal to end but those that are ignored, as nohup asks."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
