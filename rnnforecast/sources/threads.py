"""The same work on many things, in several threads: what numpy and Arrow do, they do beside Python.

It knows nothing of what the work is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import pyarrow as pa

_MOST_THREADS = 8
AHEAD = 1
"""So many more things than threads are under way, so that no thread waits for one."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_threads(work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """Do the same with all that is given, a few ahead; what is made comes in order.

    One thing alone is done in this thread. What the work raises is raised where its result would
    have come.
    """
    rest = iter(given)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    most = n_threads() + AHEAD
    pool = ThreadPoolExecutor(n_threads())
    waiting: deque[Future[Made]] = deque()
    try:
        for one in chain(first, rest):
            waiting.append(pool.submit(work, one))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def n_threads() -> int:
    """Return how many threads work: one for each processor that Arrow may use, 8 at most."""
    return int(min(pa.cpu_count(), _MOST_THREADS))
