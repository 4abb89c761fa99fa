"""A limit to how long a block may take. Standard library only."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rnnforecast.errors import TimeLimitError, UsageError


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
