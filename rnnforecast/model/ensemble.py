"""Training of all members, step by step in turn, and their weights in the forecast."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.arrays import Doubles
from rnnforecast.data.windows import TrainingWindows
from rnnforecast.errors import UsageError, WriteError
from rnnforecast.events import EpochEnded, Event, Listener, Notice, ProgressEvent, WarningEvent
from rnnforecast.gradients import diagnose_explosion
from rnnforecast.model.checkpoint import Checkpoints, TrainingState, damaged
from rnnforecast.model.loss import ValidationWindows
from rnnforecast.model.network import Network
from rnnforecast.model.training import (
    EPOCH_STEPS,
    MemberTraining,
    TrainingLog,
    fine_tune,
    n_stretches,
)
from rnnforecast.parallel import Ranks, broadcast_int
from rnnforecast.process import current_launch, defer_signals
from rnnforecast.spec import NetworkSpec
from rnnforecast.units import parse_duration_us

_FIRST_SHARE = 0.5
"""Share of `--max-time` after which training stops; fine-tuning takes at most as many steps."""
_TRIED_STEPS = 5
"""Steps by which the duration of a step is first measured with `--max-time`."""
_STEP = 0.1
"""Weights of members are multiples of this before they are shrunk."""
_PRIOR_WINDOWS = 10.0
"""With so many disjoint validation windows, weights lie halfway between equal and best ones."""
_ENOUGH = 0.5
"""Share of the best weights in those that are used from which a member without any may go."""
_STOPPING = Notice("stopping after this step; a second signal ends at once")


@dataclass(frozen=True)
class EnsembleLog:
    """The training of all members, and the indices of those that were selected."""

    members: tuple[TrainingLog, ...]
    """Of the trained ones, which are the first ones of the network."""
    selected: tuple[int, ...]

    @property
    def of_selected(self) -> tuple[TrainingLog, ...]:
        """The training of each selected member; of one that is not trained, that of no step."""
        untrained = TrainingLog((), 0, 0)
        n_trained = len(self.members)
        return tuple(self.members[i] if i < n_trained else untrained for i in self.selected)

    @property
    def epochs(self) -> tuple[EpochEnded, ...]:
        """All epochs of all members, member by member."""
        return tuple(epoch for member in self.members for epoch in member.epochs)

    @property
    def steps(self) -> int:
        """Steps of the member that trained longest: `--steps` with them repeats the training."""
        return max(member.steps for member in self.members)


def train_members(
    network: Network,
    windows: TrainingWindows,
    *,
    scales: Doubles,
    validation: TrainingWindows | None,
    config: TrainConfig,
    listener: Listener,
    checkpoints: Checkpoints | None = None,
) -> EnsembleLog:
    """Train the network in place, and keep the members that help.

    `scales`, `(series,)`, are what errors of each series are divided by.

    With `checkpoints` the training can be resumed after a signal: all members stop after a step,
    the state is saved, and what the signal's handler has raised is raised again. After resuming,
    earlier steps count and `--max-time` begins anew. Raises `UsageError` where a batch has fewer
    windows than there are ranks, and `DivergedError`.
    """
    _check_options(network, windows.ranks.n, config, listener)

    held_out = None
    if validation is not None and len(validation):
        held_out = ValidationWindows(network, validation, scales)
    indices = [i for i, spec in enumerate(network.spec.members) if spec.is_trained]
    members = [MemberTraining(network, i, windows, held_out, config, scales) for i in indices]
    max_steps = EPOCH_STEPS * config.epochs
    ensemble = _Ensemble(members, min(max_steps, config.steps or max_steps), checkpoints)

    start, pace = ensemble.resume(listener), _Pace(config, windows.ranks)
    total, done = ensemble.max_steps * len(members), sum(member.steps for member in members)
    reporter = ProgressReporter(listener, "training", total, done=done)

    with defer_signals(lambda: reporter.report(_STOPPING)) as signals:
        current = start if start.end else ensemble.next_round(start, pace.steps_left(0))
        while current.active:
            for member in ensemble.turns(current):
                reporter.report(member.step())
                reporter.advance()
                if signals:
                    ensemble.save(current, reporter)
                    raise signals[0]
            current = ensemble.next_round(current, pace.steps_left(current.end - start.end))
            ensemble.save(current, reporter)
        for member in members:
            reporter.report(member.end_epoch())
    reporter.finish()

    logs = tuple(member.finish() for member in members)
    _warn_of_gradients(logs, config, listener)
    selected = network.weigh_members(_weigh_members(network, held_out))
    trained = f"trained {len(logs)} member(s), {current.end} steps"
    listener(Notice(f"{trained}; {describe_shares(network.spec)}"))
    return EnsembleLog(logs, selected)


def _check_options(network: Network, n_ranks: int, config: TrainConfig, listener: Listener) -> None:
    """Raise `UsageError` where a rank would have no window of a batch; note a truncation."""
    if n_stretches(config) < n_ranks:
        raise UsageError(
            f"--batch-size {config.batch_size} gives {n_stretches(config)} stretches of readings "
            f"to {n_ranks} ranks",
            hint="each rank takes a share of every batch: start fewer, or make it larger",
        )

    reach, lookback = config.truncate, network.spec.lookback
    if reach is not None and reach < lookback:
        message = (
            f"gradients come through the last {reach} of {lookback} steps: what is further back is "
            "remembered as it happens, and not learnt to be"
        )
        listener(Notice(message))


def _warn_of_gradients(
    logs: Sequence[TrainingLog], config: TrainConfig, listener: Listener
) -> None:
    """Warn of members whose gradients were too large too often, or whose loss jumped."""
    for number, log in enumerate(logs):
        reason = log.explosion(config)
        if reason is not None:
            diagnosis = diagnose_explosion(reason, config)
            message = (
                f"{diagnosis.verdict}: member {number}: {diagnosis.reason}; try  {diagnosis.advice}"
            )
            listener(WarningEvent("exploding-gradients", message))


def _weigh_members(network: Network, validation: ValidationWindows | None) -> tuple[float, ...]:
    """Return the weight of each member in the forecast.

    They are those with the least loss on validation windows, shrunk towards equal ones where these
    are few. With enough windows a member that sees covariates goes where its weight is none, and
    one that does not where they are all that helps. Without validation all members count alike, or
    those that see covariates, if any: the user asked for them.
    """
    members = list(network.members)
    n = len(members)
    if validation is None:
        sees = [float(member.spec.covariates) for member in members]
        return tuple(sees) if any(sees) else (1 / n,) * n

    n_parts = round(1 / _STEP)
    grid = [
        tuple(part / n_parts for part in parts)
        for parts in itertools.product(range(n_parts + 1), repeat=n)
        if sum(parts) == n_parts
    ]
    best = min(zip(validation.losses(members, grid), grid, strict=True))[1]
    share = validation.n_disjoint / (validation.n_disjoint + _PRIOR_WINDOWS)
    trained = [i for i, member in enumerate(members) if member.spec.is_trained]
    unused = {i for i in trained if not best[i]} if len(trained) > 1 and share > _ENOUGH else set()
    if len(unused) == len(trained):  # the built-in one is best: at least one may learn on
        unused.discard(trained[0])
    weights = [share * weight + (1 - share) / n for weight in best]
    return tuple(0.0 if i in unused else weight for i, weight in enumerate(weights))


@dataclass(frozen=True)
class _Round:
    """A part of the training: the active members train until each has taken `end` steps."""

    end: int
    active: tuple[int, ...]
    """Indices of the members that train; empty where the training is over."""


@dataclass(frozen=True)
class _Ensemble:
    """The members in training, and their checkpoints."""

    members: Sequence[MemberTraining]
    max_steps: int
    checkpoints: Checkpoints | None

    def next_round(self, current: _Round, max_more: int) -> _Round:
        """Return the next round: to the end of the epoch, but at most `max_more` steps."""
        active = tuple(i for i in current.active if not self.members[i].has_stopped)
        n_steps = min(max_more, self.max_steps - current.end)
        if not active or n_steps < 1:
            return _Round(current.end, ())
        n_steps = min(n_steps, self.members[active[0]].steps_to_epoch_end)
        return _Round(current.end + n_steps, active)

    def turns(self, current: _Round) -> Iterator[MemberTraining]:
        """Yield the member that takes each step of a round: they take turns."""
        members = [self.members[i] for i in current.active]
        while waiting := [member for member in members if member.steps < current.end]:
            yield min(waiting, key=lambda member: member.steps)

    def save(self, current: _Round, reporter: ProgressReporter) -> None:
        """Save a checkpoint; where it cannot be written the training continues with a warning."""
        state = self._state(current)
        if self.checkpoints is None or state is None:
            return
        try:
            self.checkpoints.save(state)
        except WriteError as error:
            warning = f"the training cannot be kept: {error.message}"
            reporter.report(WarningEvent("no-checkpoint", warning))

    def resume(self, listener: Listener) -> _Round:
        """Restore the members from a checkpoint if one is asked for; return the round it was in."""
        first = _Round(0, tuple(range(len(self.members))))
        if self.checkpoints is None or not self.checkpoints.is_resuming:
            return first

        like = self._state(first)
        assert like is not None
        state = self.checkpoints.load(like)
        if state is None:
            listener(Notice("there is no checkpoint to go on from: training begins anew"))
            return first

        try:
            if state.target > self.max_steps:
                raise ValueError(f"it is on its way to step {state.target}, after the last")
            for member, member_state in zip(self.members, state.members, strict=True):
                member.restore(member_state)
        except (RuntimeError, ValueError) as error:  # the generator of another release of torch
            raise damaged(self.checkpoints.path, str(error)) from error
        least_steps = min(member_state.steps for member_state in state.members)
        listener(Notice(f"training goes on after step {least_steps}"))
        return _Round(state.target, state.active)

    def _state(self, current: _Round) -> TrainingState | None:
        """Return the state for a checkpoint; None where a member's loss is not finite."""
        states = [state for member in self.members if (state := member.state()) is not None]
        if len(states) < len(self.members):
            return None
        return TrainingState(current.end, current.active, tuple(states))


def fine_tune_members(
    network: Network,
    windows: TrainingWindows,
    *,
    scales: Doubles,
    n_steps: Sequence[int],
    config: TrainConfig,
    listener: Listener,
) -> None:
    """Train member i for `n_steps[i]` more steps over these windows, in place."""
    reporter = ProgressReporter(listener, "learning from the held-out readings", sum(n_steps))
    with defer_signals(lambda: reporter.report(_STOPPING)) as signals:
        for index, n in enumerate(n_steps):
            steps = fine_tune(network, index, windows, scales=scales, n_steps=n, config=config)
            for _ in steps:
                reporter.advance()
                if signals:
                    raise signals[0]
    reporter.finish()


def describe_shares(spec: NetworkSpec) -> str:
    """Describe the share of each member in the forecast."""
    parts = []
    for share, member in zip(spec.shares, spec.members, strict=True):
        name = "trained" if member.is_trained else "built in"
        parts.append(f"{100 * share:.0f} % {name}" + " with covariates" * member.covariates)
    return "forecasts are " + ", ".join(parts)


class _Pace:
    """The number of steps that fit into `--max-time`, by the clock of the first rank."""

    def __init__(self, config: TrainConfig, ranks: Ranks) -> None:
        self._ranks = ranks
        self._started = time.monotonic()
        limit = config.max_time
        self._limit_s = None if limit is None else _FIRST_SHARE * parse_duration_us(limit) / 1e6

    def steps_left(self, steps: int) -> int:
        """Return how many more steps fit after `steps` steps; `_TRIED_STEPS` before the first."""
        if self._limit_s is None:
            return 1 << 62
        if not steps:
            return _TRIED_STEPS
        elapsed_s = time.monotonic() - self._started
        return broadcast_int(self._ranks, int((self._limit_s - elapsed_s) * steps / elapsed_s))


def n_processors() -> int:
    """Return the number of processors for this process: its affinity, where the system tells it.

    Processes that a launcher has started on one machine share them.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    launch = current_launch()
    return n if launch is None else max(1, n // launch.local_world_size)


class ProgressReporter:
    """Counts steps, and passes events on to a listener."""

    def __init__(self, listener: Listener, name: str, total: int, *, done: int = 0) -> None:
        self._listener, self._name, self._total, self._done = listener, name, total, done

    def report(self, event: Event | None) -> None:
        """Pass an event on, if there is one."""
        if event is not None:
            self._listener(event)

    def advance(self) -> None:
        """Report one more step."""
        self._done += 1
        self._listener(ProgressEvent(self._name, self._done, self._total))

    def finish(self) -> None:
        """Report the end, also where members have stopped early."""
        self._listener(ProgressEvent(self._name, self._total, self._total))
