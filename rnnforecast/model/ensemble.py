"""Training of all members side by side in threads, and their selection."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.windows import TrainingWindows
from rnnforecast.errors import UsageError, WriteError
from rnnforecast.events import EpochEnded, Event, Listener, Noted, Progressed, Warned
from rnnforecast.gradients import exploding
from rnnforecast.model.checkpoint import Checkpoints, TrainingState, damaged
from rnnforecast.model.loss import ValidationWindows
from rnnforecast.model.network import Network
from rnnforecast.model.training import MemberTraining, TrainingLog, fine_tune, steps_per_epoch
from rnnforecast.parallel import ALONE, Ranks, said_by_first
from rnnforecast.process import holding_back, launched
from rnnforecast.units import parse_duration_us

_FIRST_SHARE = 0.5
"""Share of `--max-time` until training stops; learning on then takes at most as many steps."""
_TRIED_STEPS = 5
"""With `--max-time` so many steps show how long one takes."""
_SELECTION_WINDOWS = 4096
_AS_GOOD, _CERTAIN = 0.01, 100
"""A group is as good as the best one while its loss is larger by at most this share; by more where
there are fewer validation windows apart from each other than this number."""
_TURN_STEPS = 4
"""Steps that a member takes before another one may have its thread."""
_WAIT_S = 0.1
"""Threads without a member look so often whether all was given up."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class EnsembleLog:
    """What happened to all members, and which of them were selected."""

    members: tuple[TrainingLog, ...]
    selected: tuple[int, ...]

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
    checkpoints: Checkpoints | None = None,
) -> EnsembleLog:
    """Fit the network in place, and drop the members that do not help.

    With `checkpoints` the training can be gone on with after a signal: it ends at a step, is saved,
    and the signal is raised. With `--max-time` the steps taken before then count, and the time
    begins anew.
    """
    _check_shares(windows.ranks.n, config)
    _note_truncation(network, config, listener)

    held_out = ValidationWindows(validation) if validation is not None and len(validation) else None
    indices = range(len(network.members))
    members = [MemberTraining(network, i, windows, held_out, config) for i in indices]
    max_steps = steps_per_epoch(len(windows), config) * config.epochs
    ensemble = _Ensemble(members, min(max_steps, config.steps or max_steps), checkpoints)

    begin, pace = ensemble.resume(listener), _Pace(config, windows.ranks)
    total, done = ensemble.last * len(members), sum(member.steps for member in members)
    reporter = ProgressReporter(listener, "training", total, done=done)

    device = network.center.device
    with worker_pool(len(members), config, device, reporter, windows.ranks) as workers:
        target = begin if begin.steps else ensemble.after(begin, pace.steps_left(0))
        while target.going:
            workers.share(WorkQueue(ensemble.left(target)), reporter)
            if workers.signals:
                ensemble.save(target, reporter)
                raise workers.signals[0]
            target = ensemble.after(target, pace.steps_left(target.steps - begin.steps))
            ensemble.save(target, reporter)
        workers.each(members, lambda member: reporter.tell(member.end_epoch()))
    reporter.finish()

    logs = tuple(member.finish() for member in members)
    _warn_of_gradients(logs, config, listener)
    selected = (
        _members_without_validation(network)
        if held_out is None
        else _best_members(network, held_out)
    )
    network.select_members(selected)
    listener(
        Noted(
            f"trained {len(logs)} members, {target.steps} steps; {len(selected)} of them forecast"
        )
    )
    return EnsembleLog(logs, selected)


def _check_shares(n_ranks: int, config: TrainConfig) -> None:
    """Raise `UsageError` where a rank would have no window of a batch."""
    if config.batch_size < n_ranks:
        raise UsageError(
            f"--batch-size {config.batch_size} is less than there are ranks, {n_ranks}",
            hint="each rank takes a share of every batch: start fewer, or make it larger",
        )


def _note_truncation(network: Network, config: TrainConfig, listener: Listener) -> None:
    """Say what is given up where gradients do not reach over the look-back."""
    reach, lookback = config.truncate, network.spec.lookback
    if reach is not None and reach < lookback:
        message = (
            f"gradients come through the last {reach} of {lookback} steps: what is further back is "
            "remembered as it happens, and not learnt to be"
        )
        listener(Noted(message))


def _warn_of_gradients(
    logs: Sequence[TrainingLog], config: TrainConfig, listener: Listener
) -> None:
    """Warn of members whose gradients were too large too often, or whose loss jumped."""
    for number, log in enumerate(logs):
        reason = log.explosion(config)
        if reason is not None:
            judged = exploding(reason, config)
            message = f"{judged.verdict}: member {number}: {judged.reason}; try  {judged.advice}"
            listener(Warned("exploding-gradients", message))


@dataclass(frozen=True)
class _Target:
    """How far the committee goes before it looks again who goes on."""

    steps: int
    going: tuple[int, ...]
    """Numbers of the members that go on; none where the training is over."""


@dataclass(frozen=True)
class _Ensemble:
    """The members in training, and where they are kept meanwhile."""

    members: Sequence[MemberTraining]
    last: int
    """Steps that none of them goes beyond."""
    checkpoints: Checkpoints | None

    def after(self, target: _Target, max_steps: int) -> _Target:
        """Say how far to go on from there, by at most so many steps, and who does."""
        going = tuple(i for i in target.going if not self.members[i].has_stopped)
        n_steps = min(max_steps, self.last - target.steps)
        if not going or n_steps < 1:
            return _Target(target.steps, ())
        return _Target(
            target.steps + min(n_steps, self.members[going[0]].steps_to_epoch_end), going
        )

    def left(self, target: _Target) -> dict[MemberTraining, int]:
        """Return how many steps each member has to take; after a signal they differ."""
        return {self.members[i]: target.steps - self.members[i].steps for i in target.going}

    def save(self, target: _Target, reporter: ProgressReporter) -> None:
        """Keep the members as they are. Training goes on where that fails, as the user is told."""
        state = self._state(target)
        if self.checkpoints is None or state is None:
            return
        try:
            self.checkpoints.save(state)
        except WriteError as error:
            reporter.tell(Warned("no-checkpoint", f"the training cannot be kept: {error.message}"))

    def resume(self, listener: Listener) -> _Target:
        """Go on from a checkpoint, where there is one that is wanted, and say where it was."""
        begin = _Target(0, tuple(range(len(self.members))))
        if self.checkpoints is None or not self.checkpoints.is_resuming:
            return begin

        like = self._state(begin)
        assert like is not None
        state = self.checkpoints.load(like)
        if state is None:
            listener(Noted("there is no checkpoint to go on from: training begins anew"))
            return begin

        try:
            if state.target > self.last:
                raise ValueError(f"it is on its way to step {state.target}, after the last")
            for member, member_state in zip(self.members, state.members, strict=True):
                member.restore(member_state)
        except (RuntimeError, ValueError) as error:  # the random numbers of another release
            raise damaged(self.checkpoints.path, str(error)) from error
        least_steps = min(member_state.steps for member_state in state.members)
        listener(Noted(f"training goes on after step {least_steps}"))
        return _Target(state.target, state.going)

    def _state(self, target: _Target) -> TrainingState | None:
        """Return what a checkpoint holds; None where a member has come to no number."""
        states = [state for member in self.members if (state := member.state()) is not None]
        if len(states) < len(self.members):
            return None
        return TrainingState(target.steps, target.going, tuple(states))


def _members_without_validation(network: Network) -> tuple[int, ...]:
    """Return the members to keep where nothing is held out: those that see what the user named."""
    indices = range(len(network.members))
    return tuple(i for i in indices if network.members[i].spec.covariates) or tuple(indices)


def _best_members(network: Network, validation: ValidationWindows) -> tuple[int, ...]:
    """Return the largest group of members that is as good as the best; the best of these."""
    indices = range(len(network.members))
    groups = [g for size in indices for g in itertools.combinations(indices, size + 1)]
    members = list(network.members)
    candidates = [[members[i] for i in g] for g in groups]

    losses = validation.losses(network, candidates, most=_SELECTION_WINDOWS)
    tolerance = _AS_GOOD * max(1.0, math.sqrt(_CERTAIN / validation.n_apart))
    good = [
        (-len(g), loss, g)
        for g, loss in zip(groups, losses, strict=True)
        if loss <= (1 + tolerance) * min(losses)
    ]
    return min(good)[2]


def fine_tune_members(
    network: Network,
    windows: TrainingWindows,
    *,
    n_steps: Sequence[int],
    config: TrainConfig,
    listener: Listener,
) -> None:
    """Let each member take so many more steps over these windows, in place."""
    reporter = ProgressReporter(listener, "learning from the held-out readings", sum(n_steps))
    device = network.center.device
    with worker_pool(len(n_steps), config, device, reporter, windows.ranks) as workers:

        def fine_tune_one(index: int) -> None:
            for _ in fine_tune(network, index, windows, n_steps=n_steps[index], config=config):
                reporter.advance()
                if workers.cancelled.is_set():
                    return

        workers.each(range(len(n_steps)), fine_tune_one)
    reporter.finish()


class _Pace:
    """How many steps fit into the time that is left, by the clock of the first rank."""

    def __init__(self, config: TrainConfig, ranks: Ranks) -> None:
        self._ranks = ranks
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
        return said_by_first(self._ranks, int((self._seconds - spent) * steps / spent))


def n_processors() -> int:
    """How many processors this process may use; not every system says.

    Those that a launcher has started on one machine share them.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    launch = launched()
    return n if launch is None else max(1, n // launch.n_here)


class ProgressReporter:
    """Tells a listener, from several threads, one event at a time."""

    def __init__(self, listener: Listener, spec: str, total: int, *, done: int = 0) -> None:
        self._listener, self._task, self._total, self._done = listener, spec, total, done
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


class CancelToken:
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


class WorkQueue:
    """Members take turns of a few steps, so that no processor waits while three share two.

    Of those that are not at it, the one goes next that has most to do, by its look-back. Each takes
    as many steps as `left` says.
    """

    def __init__(self, left: Mapping[MemberTraining, int]) -> None:
        self._left = dict(left)
        self._idle = set(left)
        self._changed = threading.Condition()

    def work(self, reporter: ProgressReporter, cancelled: CancelToken) -> None:
        """Take turns until all is done, or given up."""
        while (turn := self._next(cancelled)) is not None:
            member, n_steps = turn

            try:
                for _ in range(n_steps):
                    if cancelled.is_set():
                        return
                    reporter.tell(member.step())
                    reporter.advance()
            finally:
                with self._changed:
                    self._left[member] -= n_steps
                    self._idle.add(member)
                    self._changed.notify_all()

    def _next(self, cancelled: CancelToken) -> tuple[MemberTraining, int] | None:
        with self._changed:
            while any(self._left.values()) and not cancelled.is_set():
                waiting = [member for member in self._idle if self._left[member]]
                if waiting:
                    member = max(waiting, key=lambda x: (self._left[x] * x.lookback, -x.index))
                    self._idle.remove(member)
                    return member, min(self._left[member], _TURN_STEPS)
                self._changed.wait(_WAIT_S)
        return None


@dataclass(frozen=True)
class Workers:
    """The threads, and what may end their work early."""

    pool: ThreadPoolExecutor
    n: int
    cancelled: CancelToken
    signals: Sequence[BaseException]
    """What a signal that came meanwhile will raise."""

    def share(self, turns: WorkQueue, told: ProgressReporter) -> None:
        """Let all threads take turns until they are done, or until a signal came."""
        self.each(range(self.n), lambda _: turns.work(told, self.cancelled))

    def each(self, items: Sequence[_T], work: Callable[[_T], None]) -> None:
        """Do this for each item side by side, and wait for all; an error is raised at once."""
        futures = [self.pool.submit(work, item) for item in items]
        ended = wait(futures, return_when=FIRST_EXCEPTION).done
        for future in futures:
            if future in ended:
                future.result()


@contextmanager
def worker_pool(
    n: int,
    config: TrainConfig,
    device: torch.device,
    reporter: ProgressReporter,
    ranks: Ranks = ALONE,
) -> Iterator[Workers]:
    """Start threads that share the processors. An error, or a signal, ends their work at once.

    What a signal raises is held back until all threads have ended. Of ranks each has one thread:
    they wait for each other at every step, and so must take the same ones in the same order.
    """
    n_threads = config.threads or n_processors()
    n_workers = 1 if device.type == "cuda" or ranks.n > 1 else min(n, n_threads)
    factory = max(1, n_threads // n_workers)
    stopping = Noted("stopping after this step; a second signal ends at once")
    with (
        holding_back(lambda: reporter.tell(stopping)) as signals,
        ThreadPoolExecutor(
            n_workers, initializer=torch.set_num_threads, initargs=(factory,)
        ) as pool,
    ):
        workers = Workers(pool, n_workers, CancelToken(signals), signals)
        try:
            yield workers
        except BaseException:
            workers.cancelled.set()
            raise
