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
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rnnforecast.config import TrainConfig
from rnnforecast.data.ranks import Ranks, said_by_first
from rnnforecast.data.windows import TrainingWindows
from rnnforecast.durations import parse_duration_us
from rnnforecast.errors import UsageError, WriteError
from rnnforecast.events import EpochEnded, Listener, Noted, Warned
from rnnforecast.model.checkpoint import Checkpoints, damaged
from rnnforecast.model.continuing import learn_on
from rnnforecast.model.network import Network
from rnnforecast.model.state import TrainingState
from rnnforecast.model.training import MemberTraining, TrainingLog, steps_per_epoch
from rnnforecast.model.validation import ValidationWindows
from rnnforecast.model.workers import Told, Turns, side_by_side
from rnnforecast.verdicts import exploding

_FIRST_SHARE = 0.5
"""Share of `--max-time` until training stops; learning on then takes at most as many steps."""
_TRIED_STEPS = 5
"""With `--max-time` so many steps show how long one takes."""
_CHOOSING_WINDOWS = 4096
_AS_GOOD, _CERTAIN = 0.01, 100
"""A group is as good as the best one while its loss is larger by at most this share; by more where
there are fewer validation windows apart from each other than this number."""


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
    checkpoints: Checkpoints | None = None,
) -> CommitteeLog:
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
    last = steps_per_epoch(len(windows), config) * config.epochs
    committee = _Committee(members, min(last, config.steps or last), checkpoints)
    begun, pace = committee.resume(listener), _Pace(config, windows.ranks)
    total, done = committee.last * len(members), sum(one.steps for one in members)
    told = Told(listener, "training", total, done=done)
    device = network.center.device
    with side_by_side(len(members), config, device, told, windows.ranks) as workers:
        aim = begun if begun.steps else committee.after(begun, pace.steps_left(0))
        while aim.going:
            workers.share(Turns(committee.left(aim)), told)
            if workers.signals:
                committee.save(aim, told)
                raise workers.signals[0]
            aim = committee.after(aim, pace.steps_left(aim.steps - begun.steps))
            committee.save(aim, told)
        workers.each(members, lambda one: told.tell(one.end_epoch()))
    told.finish()
    logs = tuple(one.finish() for one in members)
    _warn_of_gradients(logs, config, listener)
    kept = _unjudged(network) if held_out is None else _best_group(network, held_out)
    network.keep(kept)
    listener(Noted(f"trained {len(logs)} members, {aim.steps} steps; {len(kept)} of them forecast"))
    return CommitteeLog(logs, kept)


def _check_shares(n_ranks: int, config: TrainConfig) -> None:
    """Raise `UsageError` where a rank would have no window of a batch."""
    if config.batch_size < n_ranks:
        raise UsageError(
            f"--batch-size {config.batch_size} is less than there are ranks, {n_ranks}",
            hint="each rank takes a share of every batch: start fewer, or make it larger",
        )


def _note_truncation(network: Network, config: TrainConfig, listener: Listener) -> None:
    """Say what is given up where gradients do not reach over the look-back."""
    reach, lookback = config.truncate, network.task.lookback
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
class _Aim:
    """How far the committee goes before it looks again who goes on."""

    steps: int
    going: tuple[int, ...]
    """Numbers of the members that go on; none where the training is over."""


@dataclass(frozen=True)
class _Committee:
    """The members in training, and where they are kept meanwhile."""

    members: Sequence[MemberTraining]
    last: int
    """Steps that none of them goes beyond."""
    checkpoints: Checkpoints | None

    def after(self, aim: _Aim, most: int) -> _Aim:
        """Say how far to go on from there, by at most so many steps, and who does."""
        going = tuple(i for i in aim.going if not self.members[i].has_stopped)
        n_steps = min(most, self.last - aim.steps)
        if not going or n_steps < 1:
            return _Aim(aim.steps, ())
        return _Aim(aim.steps + min(n_steps, self.members[going[0]].steps_to_epoch_end), going)

    def left(self, aim: _Aim) -> dict[MemberTraining, int]:
        """Return how many steps each member has to take; after a signal they differ."""
        return {self.members[i]: aim.steps - self.members[i].steps for i in aim.going}

    def save(self, aim: _Aim, told: Told) -> None:
        """Keep the members as they are. Training goes on where that fails, as the user is told."""
        state = self._state(aim)
        if self.checkpoints is None or state is None:
            return
        try:
            self.checkpoints.save(state)
        except WriteError as error:
            told.tell(Warned("no-checkpoint", f"the training cannot be kept: {error.message}"))

    def resume(self, listener: Listener) -> _Aim:
        """Go on from a checkpoint, where there is one that is wanted, and say where it was."""
        begun = _Aim(0, tuple(range(len(self.members))))
        if self.checkpoints is None or not self.checkpoints.is_resuming:
            return begun
        like = self._state(begun)
        assert like is not None
        state = self.checkpoints.load(like)
        if state is None:
            listener(Noted("there is no checkpoint to go on from: training begins anew"))
            return begun
        try:
            if state.target > self.last:
                raise ValueError(f"it is on its way to step {state.target}, after the last")
            for member, own in zip(self.members, state.members, strict=True):
                member.restore(own)
        except (RuntimeError, ValueError) as error:  # the random numbers of another release
            raise damaged(self.checkpoints.path, str(error)) from error
        listener(Noted(f"training goes on after step {min(own.steps for own in state.members)}"))
        return _Aim(state.target, state.going)

    def _state(self, aim: _Aim) -> TrainingState | None:
        """Return what a checkpoint holds; None where a member has come to no number."""
        states = [state for one in self.members if (state := one.state()) is not None]
        if len(states) < len(self.members):
            return None
        return TrainingState(aim.steps, aim.going, tuple(states))


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
    told = Told(listener, "learning from the held-out readings", sum(n_steps))
    device = network.center.device
    with side_by_side(len(n_steps), config, device, told, windows.ranks) as workers:

        def learn(index: int) -> None:
            for _ in learn_on(network, index, windows, n_steps=n_steps[index], config=config):
                told.advance()
                if workers.given_up.is_set():
                    return

        workers.each(range(len(n_steps)), learn)
    told.finish()


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
