"""Training of the members side by side, and the choice among them.

Members learn in threads side by side, each with its share of the processors: small products gain
little from a second processor, and torch lets go of the interpreter while it computes. All take the
same number of steps between two looks at the clock, so that what `--max-time` ended can be repeated
with `--steps`. How many threads there are changes nothing but the time, as long as each member has
one; with several, sums are rounded differently.

At the end validation decides which members are kept: of all groups of them the largest whose mean
forecast is within one percent of the best. One stretch of readings says little about which of two
good members will be the better one on the next; a mean of both is hardly ever worse. A short one
says still less, so there the percent grows, as standard errors do with fewer windows.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from rnnforecast.config import TrainConfig
from rnnforecast.data.windows import TrainingWindows
from rnnforecast.durations import parse_duration_us
from rnnforecast.events import EpochEnded, Event, Listener, Noted, Progressed
from rnnforecast.model.network import Network
from rnnforecast.model.training import MemberTraining, TrainingLog, learn_on, steps_per_epoch
from rnnforecast.model.validation import ValidationWindows

_FIRST_SHARE = 0.5
"""Share of `--max-time` until training stops; learning on then takes at most as many steps."""
_TRIED_STEPS = 5
"""With `--max-time` so many steps show how long one takes."""
_TURN_STEPS = 4
"""Steps that a member takes before another one may have its thread."""
_WAIT_S = 0.1
"""Threads without a member look so often whether all was given up."""
_CHOOSING_WINDOWS = 4096
_AS_GOOD, _CERTAIN = 0.01, 100
"""A group is as good as the best one while its loss is larger by at most this share; by more where
there are fewer validation windows apart from each other than this number."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class CommitteeLog:
    """What happened to all members, and which of them were kept."""

    members: tuple[TrainingLog, ...]
    kept: tuple[int, ...]

    @property
    def epochs(self) -> tuple[EpochEnded, ...]:
        """Every epoch of every member, member by member."""
        return tuple(epoch for member in self.members for epoch in member.epochs)

    @property
    def steps(self) -> int:
        """Steps that the member which trained longest has taken: `--steps` repeats them."""
        return max(member.steps for member in self.members)


def train_members(
    network: Network,
    windows: TrainingWindows,
    *,
    validation: TrainingWindows | None,
    config: TrainConfig,
    listener: Listener,
) -> CommitteeLog:
    """Fit the network in place, and drop the members that do not help."""
    held_out = ValidationWindows(validation) if validation is not None and len(validation) else None
    indices = range(len(network.members))
    trainings = [MemberTraining(network, i, windows, held_out, config) for i in indices]
    last = steps_per_epoch(len(windows), config) * config.epochs
    last = min(last, config.steps or last)
    with _side_by_side(len(trainings), config, network.center.device) as workers:
        told = _Told(listener, "training", last * len(trainings))
        pace = _Pace(config)
        going, steps = trainings, 0
        while steps < last and going:
            n_steps = min(going[0].steps_to_epoch_end, last - steps, pace.steps_left(steps))
            if n_steps < 1:
                break
            workers.share(_Turns(going, n_steps), told)
            steps += n_steps
            going = [one for one in going if not one.has_stopped]
        workers.each(trainings, lambda one: told.tell(one.end_epoch()))
    told.finish()
    logs = tuple(one.finish() for one in trainings)
    kept = _unjudged(network) if held_out is None else _best_group(network, held_out)
    network.keep(kept)
    listener(Noted(f"trained {len(logs)} members, {steps} steps; {len(kept)} of them forecast"))
    return CommitteeLog(logs, kept)


def _unjudged(network: Network) -> tuple[int, ...]:
    """Return the members to keep where nothing is held out: those that see what the user named."""
    every = range(len(network.members))
    return tuple(i for i in every if network.members[i].own.covariates) or tuple(every)


def _best_group(network: Network, validation: ValidationWindows) -> tuple[int, ...]:
    """Return the largest group of members that is as good as the best; the best of these."""
    indices = range(len(network.members))
    groups = [g for size in indices for g in itertools.combinations(indices, size + 1)]
    members = list(network.members)
    seats = [[members[i] for i in g] for g in groups]
    losses = validation.losses(network, seats, most=_CHOOSING_WINDOWS)
    tolerance = _AS_GOOD * max(1.0, math.sqrt(_CERTAIN / validation.n_apart))
    good = [
        (-len(g), loss, g)
        for g, loss in zip(groups, losses, strict=True)
        if loss <= (1 + tolerance) * min(losses)
    ]
    return min(good)[2]


def learn_on_members(
    network: Network,
    windows: TrainingWindows,
    *,
    n_steps: Sequence[int],
    config: TrainConfig,
    listener: Listener,
) -> None:
    """Let each member take so many more steps over these windows, in place."""
    told = _Told(listener, "learning from the held-out readings", sum(n_steps))
    with _side_by_side(len(n_steps), config, network.center.device) as workers:

        def learn(index: int) -> None:
            for _ in learn_on(network, index, windows, n_steps=n_steps[index], config=config):
                told.advance()
                if workers.given_up.is_set():
                    return

        workers.each(range(len(n_steps)), learn)
    told.finish()


def n_processors() -> int:
    """How many processors this process may use; not every system says."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Turns:
    """Members take turns of a few steps, so that no processor waits while three share two.

    Of those that are not at it, the one goes next that has most to do, by its look-back.
    """

    def __init__(self, members: Sequence[MemberTraining], n_steps: int) -> None:
        self._left = dict.fromkeys(members, n_steps)
        self._idle = set(members)
        self._changed = threading.Condition()

    def work(self, told: _Told, given_up: threading.Event) -> None:
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

    def _next(self, given_up: threading.Event) -> tuple[MemberTraining, int] | None:
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
class _Workers:
    pool: ThreadPoolExecutor
    n: int
    given_up: threading.Event

    def share(self, turns: _Turns, told: _Told) -> None:
        """Let all threads take turns until they are done."""
        self.each(range(self.n), lambda _: turns.work(told, self.given_up))

    def each(self, items: Sequence[_T], work: Callable[[_T], None]) -> None:
        """Do this for each item side by side, and wait for all; an error is raised at once."""
        futures = [self.pool.submit(work, item) for item in items]
        ended = wait(futures, return_when=FIRST_EXCEPTION).done
        for future in futures:
            if future in ended:
                future.result()


@contextmanager
def _side_by_side(n: int, config: TrainConfig, device: torch.device) -> Iterator[_Workers]:
    """Start threads that share the processors. An error, or a signal, ends their work at once."""
    n_threads = config.threads or n_processors()
    n_workers = 1 if device.type == "cuda" else min(n, n_threads)
    own = max(1, n_threads // n_workers)
    workers = _Workers(
        ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(own,)),
        n_workers,
        threading.Event(),
    )
    with workers.pool:
        try:
            yield workers
        except BaseException:
            workers.given_up.set()
            raise


class _Told:
    """Tells a listener, from several threads, one event at a time."""

    def __init__(self, listener: Listener, task: str, total: int) -> None:
        self._listener, self._task, self._total, self._done = listener, task, total, 0
        self._lock = threading.Lock()

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


class _Pace:
    """How many steps fit into the time that is left."""

    def __init__(self, config: TrainConfig) -> None:
        self._started = time.monotonic()
        limit = config.max_time
        self._seconds = None if limit is None else _FIRST_SHARE * parse_duration_us(limit) / 1e6

    def steps_left(self, steps: int) -> int:
        """Return how many more steps may be taken after so many; a few where none was taken yet."""
        if self._seconds is None:
            return 1 << 62
        if not steps:
            return _TRIED_STEPS
        spent = time.monotonic() - self._started
        return int((self._seconds - spent) * steps / spent)
