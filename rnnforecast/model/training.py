"""How one member learns: warm-up, clipping, averaged weights, early stopping, the best ones kept.

It knows a network, one of its members, and batches. It does not know files, baselines, other
members, or what the weights are for. The rate does not depend on how long training will last, so
that one which is stopped early has taken the same steps as one that was meant to be short.

The weights that are measured and kept are a running mean over the last steps (Polyak and Juditsky
1992): at a constant rate single weights jump about the minimum, their mean lies in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config import TrainConfig
from rnnforecast.data.windows import SEEN_SHARE, Batch, TrainingWindows, epoch_batches
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded
from rnnforecast.model.augment import draw_mixture
from rnnforecast.model.beside import Beside
from rnnforecast.model.loss import pinball
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.model.product import has_fast_bfloat16
from rnnforecast.model.validation import ValidationWindows, entries, features_beside, scaled_windows

CONTINUED_RATE = 0.25
"""Share of the rate at which a trained network learns on."""
_UNKNOWN_SHARE = 1 / 16
"""Share of the training windows shown without their series' name, so that a new one can come."""
_WARM_UP = 100
"""Steps until the full rate."""
_AVERAGED = 50
"""Steps that the mean of the weights reaches back."""
_MIN_EPOCH_STEPS = 20
_MAX_EPOCH_STEPS = 60
_PATIENCE = 3
_EPOCH_WINDOWS = 2048
"""At most so many validation windows are forecast after each epoch."""


@dataclass(frozen=True)
class TrainingLog:
    """What happened to one member, epoch by epoch."""

    epochs: tuple[EpochEnded, ...]
    steps: int
    """Steps taken until training stopped."""
    best_steps: int
    """Steps taken until the weights that were kept."""


def steps_per_epoch(n_windows: int, config: TrainConfig) -> int:
    """How many steps an epoch has: it depends on the size of the data, never on a clock."""
    whole = -(-n_windows // config.batch_size)
    return min(max(whole, _MIN_EPOCH_STEPS), _MAX_EPOCH_STEPS)


class MemberTraining:
    """The training of one member, step by step, so that several can go on side by side."""

    def __init__(
        self,
        network: Network,
        index: int,
        windows: TrainingWindows,
        validation: ValidationWindows | None,
        config: TrainConfig,
    ) -> None:
        self.member = network.members[index]
        self.index = index
        self.steps = 0
        self.best_steps = 0
        self.epochs: list[EpochEnded] = []
        self._network = network
        self._windows = windows
        self._validation = validation
        self._config = config
        self._epoch_steps = steps_per_epoch(len(windows), config)
        self._parameters = list(self.member.parameters())
        self._averaged = [p.detach().clone() for p in self._parameters]
        self._best = self._averaged
        self._best_loss = float("inf")
        self._optimizer = _optimizer(self.member, config.learning_rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP)
        )
        self._generator = seeded(config.seed, index, device=network.center.device)
        self._batches: Iterator[Batch] = iter(())
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    @property
    def lookback(self) -> int:
        """Steps of history: how long one of training takes grows with them."""
        return self.member.own.lookback

    @property
    def has_stopped(self) -> bool:
        """Whether validation says that more steps would not help."""
        recent = self.epochs[-_PATIENCE:]
        return (
            len(self.epochs) > _PATIENCE
            and recent[-1].validation_loss is not None
            and not any(epoch.is_best for epoch in recent)
        )

    @property
    def steps_to_epoch_end(self) -> int:
        """How many steps are left of the epoch."""
        return self._epoch_steps - self.steps % self._epoch_steps

    def step(self) -> EpochEnded | None:
        """Take one step; at the end of an epoch say how it went. Raises `DivergedError`."""
        if self.steps % self._epoch_steps == 0:
            self._batches = epoch_batches(
                self._windows,
                n_steps=self._epoch_steps,
                batch_size=self._config.batch_size,
                key=(self._config.seed, self.index, self.steps // self._epoch_steps),
            )
        loss, norm = take_step(
            self._network,
            self.member,
            next(self._batches),
            self._optimizer,
            clip=self._config.clip,
            generator=self._generator,
        )
        self._schedule.step()
        self.steps += 1
        share = max(1 / _AVERAGED, 9 / (self.steps + 9))
        torch._foreach_lerp_(self._averaged, [p.detach() for p in self._parameters], share)
        self._losses.append(loss)
        self._norms.append(norm)
        return self.end_epoch() if self.steps % self._epoch_steps == 0 else None

    def end_epoch(self) -> EpochEnded | None:
        """Measure the averaged weights, and remember them if they are the best so far."""
        if not self._losses:
            return None
        losses, norms = (torch.stack(x).cpu().numpy() for x in (self._losses, self._norms))
        if not (np.isfinite(losses).all() and np.isfinite(norms).all()):
            raise DivergedError(
                f"training diverged: the loss became {losses[~np.isfinite(losses + norms)][0]}",
                hint="nothing was saved; try a lower --learning-rate or --clip, "
                "and look for extreme readings in the data",
            )
        self._losses, self._norms = [], []
        loss = None
        if self._validation is not None:
            with using(self._parameters, self._averaged):
                (loss,) = self._validation.losses(
                    self._network, [[self.member]], most=_EPOCH_WINDOWS
                )
        is_best = loss is None or loss < self._best_loss
        if is_best:
            self._best_loss = float("inf") if loss is None else loss
            self._best, self.best_steps = [x.clone() for x in self._averaged], self.steps
        ended = EpochEnded(
            member=self.index,
            epoch=len(self.epochs) + 1,
            steps=self.steps,
            train_loss=float(losses.mean()),
            validation_loss=loss,
            gradient_norm=float(np.median(norms)),
            clipped=float((norms > self._config.clip).mean()),
            is_best=is_best and loss is not None,
        )
        self.epochs.append(ended)
        return ended

    def finish(self) -> TrainingLog:
        """Put the best weights in force; without validation they are the last."""
        with torch.no_grad():
            for parameter, best in zip(self._parameters, self._best, strict=True):
                parameter.copy_(best)
        return TrainingLog(tuple(self.epochs), self.steps, self.best_steps)


def take_step(
    network: Network,
    member: Member,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *,
    clip: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss = member_loss(network, member, batch, generator)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(member.parameters(), clip)
    optimizer.step()
    return loss.detach(), norm


def member_loss(
    network: Network, member: Member, batch: Batch, generator: torch.Generator
) -> Tensor:
    """Return the quantile loss of a batch in units of each series' scale; spikes do not count.

    Some windows are shown without their name; those with less than half of their history do not
    count. Members that are linear see windows made of windows.
    """
    series = entries(batch, network.center.device)
    hidden = torch.rand(len(series), generator=generator, device=series.device) < _UNKNOWN_SHARE
    shown = torch.where(hidden, 0, series)
    history, future, next_step, stretch = scaled_windows(network, batch, series, shown)
    beside = features_beside(network, batch)
    too_empty = torch.isfinite(history).float().mean(1, keepdim=True) < SEEN_SHARE
    past, ahead = member.expected_around(shown, next_step, beside)
    past, ahead = history[:, -member.own.lookback :] - past, future - ahead
    if member.own.linear:
        mixture = draw_mixture(len(past), generator)
        past, ahead = mixture.of(past), mixture.of(ahead)
        beside = beside and Beside(*map(mixture.of, beside))
    counts = torch.isfinite(ahead) & ~too_empty
    window = member.normalised(past)
    leads = member.decode(window, shown, beside, generator=generator)
    goal = (torch.where(counts, ahead, 0.0) - window.level) / window.spread
    loss = pinball(leads, goal - member.persisting(window), member.levels) * window.spread * stretch
    return torch.where(counts, loss, 0.0).sum() / counts.sum().clamp(min=1)


def learn_on(
    network: Network,
    index: int,
    windows: TrainingWindows,
    *,
    n_steps: int,
    config: TrainConfig,
) -> Iterator[int]:
    """Take `n_steps` more steps over these windows, at a rate that falls from a part of the peak.

    There is nothing left to stop early on: the number of steps is decided beforehand. Yields the
    number of steps taken after each.
    """
    member = network.members[index]
    optimizer = _optimizer(member, config.learning_rate * CONTINUED_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    key = (config.seed, index, config.epochs)
    generator = seeded(*key, device=network.center.device)
    batches = epoch_batches(windows, n_steps=n_steps, batch_size=config.batch_size, key=key)
    for step, batch in enumerate(batches, start=1):
        take_step(network, member, batch, optimizer, clip=config.clip, generator=generator)
        schedule.step()
        yield step


def seeded(*key: int, device: torch.device) -> torch.Generator:
    """Make a source of random numbers that these numbers alone decide."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed))


@contextmanager
def using(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Put other values in force for a while."""
    with torch.no_grad():
        own = [p.detach().clone() for p in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
        try:
            yield
        finally:
            for parameter, value in zip(parameters, own, strict=True):
                parameter.copy_(value)


def _optimizer(member: Member, rate: float) -> torch.optim.Optimizer:
    member.recurrence.rounds = has_fast_bfloat16(member.persistence.device)
    return torch.optim.AdamW(member.parameters(), lr=rate, fused=True)
