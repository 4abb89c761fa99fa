"""Threads that share the processors, what they take turns at, and whom they tell of it.

Apart from `committee`, which says what is to be done: here is who does it when, and how all of it
ends early. After an error, or a signal, each thread ends at its next step, never within one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from rnnforecast.config import TrainConfig
from rnnforecast.data.ranks import ALONE, Ranks
from rnnforecast.events import Event, Listener, Noted, Progressed
from rnnforecast.launch import launched
from rnnforecast.model.training import MemberTraining
from rnnforecast.signals import holding_back

_TURN_STEPS = 4
"""Steps that a member takes before another one may have its thread."""
_WAIT_S = 0.1
"""Threads without a member look so often whether all was given up."""

_T = TypeVar("_T")


def n_processors() -> int:
    """How many processors this process may use; not every system says.

    Those that a launcher has started on one machine share them.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    launch = launched()
    return n if launch is None else max(1, n // launch.n_here)


class Told:
    """Tells a listener, from several threads, one event at a time."""

    def __init__(self, listener: Listener, task: str, total: int, *, done: int = 0) -> None:
        self._listener, self._task, self._total, self._done = listener, task, total, done
        self._lock = threading.RLock()  # a handler of signals tells, whatever its thread is at

    def tell(self, event: Event | None) -> None:
        """Pass an event on, where there is one."""
        if event is not None:
            with self._lock:
                self._listener(event)

    def advance(self) -> None:
        """One more step is done."""
        with self._lock:
            self._done += 1
            self._listener(Progressed(self._task, self._done, self._total))

    def finish(self) -> None:
        """All that will be done is done."""
        self._listener(Progressed(self._task, self._total, self._total))


class GivenUp:
    """Whether the work is given up: an error happened, or a signal came."""

    def __init__(self, signals: Sequence[BaseException] = ()) -> None:
        self._signals = signals
        self._is_given_up = False

    def set(self) -> None:
        """Give it up."""
        self._is_given_up = True

    def is_set(self) -> bool:
        """Tell whether all are to end."""
        return self._is_given_up or bool(self._signals)


class Turns:
    """Members take turns of a few steps, so that no processor waits while three share two.

    Of those that are not at it, the one goes next that has most to do, by its look-back. Each takes
    as many steps as `left` says.
    """

    def __init__(self, left: Mapping[MemberTraining, int]) -> None:
        self._left = dict(left)
        self._idle = set(left)
        self._changed = threading.Condition()

    def work(self, told: Told, given_up: GivenUp) -> None:
        """Take turns until all is done, or given up."""
        while (turn := self._next(given_up)) is not None:
            one, n_steps = turn
            try:
                for _ in range(n_steps):
                    if given_up.is_set():
                        return
                    told.tell(one.step())
                    told.advance()
            finally:
                with self._changed:
                    self._left[one] -= n_steps
                    self._idle.add(one)
                    self._changed.notify_all()

    def _next(self, given_up: GivenUp) -> tuple[MemberTraining, int] | None:
        with self._changed:
            while any(self._left.values()) and not given_up.is_set():
                waiting = [one for one in self._idle if self._left[one]]
                if waiting:
                    one = max(waiting, key=lambda x: (self._left[x] * x.lookback, -x.index))
                    self._idle.remove(one)
                    return one, min(self._left[one], _TURN_STEPS)
                self._changed.wait(_WAIT_S)
        return None


@dataclass(frozen=True)
class Workers:
    """The threads, and what may end their work early."""

    pool: ThreadPoolExecutor
    n: int
    given_up: GivenUp
    signals: Sequence[BaseException]
    """What a signal that came meanwhile will raise."""

    def share(self, turns: Turns, told: Told) -> None:
        """Let all threads take turns until they are done, or until a signal came."""
        self.each(range(self.n), lambda _: turns.work(told, self.given_up))

    def each(self, items: Sequence[_T], work: Callable[[_T], None]) -> None:
        """Do this for each item side by side, and wait for all; an error is raised at once."""
        futures = [self.pool.submit(work, item) for item in items]
        ended = wait(futures, return_when=FIRST_EXCEPTION).done
        for future in futures:
            if future in ended:
                future.result()


@contextmanager
def side_by_side(
    n: int, config: TrainConfig, device: torch.device, told: Told, ranks: Ranks = ALONE
) -> Iterator[Workers]:
    """Start threads that share the processors. An error, or a signal, ends their work at once.

    What a signal raises is held back until all threads have ended. Of ranks each has one thread:
    they wait for each other at every step, and so must take the same ones in the same order.
    """
    n_threads = config.threads or n_processors()
    n_workers = 1 if device.type == "cuda" or ranks.n > 1 else min(n, n_threads)
    own = max(1, n_threads // n_workers)
    stopping = Noted("stopping after this step; a second signal ends at once")
    with (
        holding_back(lambda: told.tell(stopping)) as signals,
        ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(own,)) as pool,
    ):
        workers = Workers(pool, n_workers, GivenUp(signals), signals)
        try:
            yield workers
        except BaseException:
            workers.given_up.set()
            raise
