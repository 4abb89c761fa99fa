"""How one member learns: warm-up, clipping, averaged weights, early stopping, the best ones kept.

It knows a network, one of its members, and batches. It does not know files, baselines, other
members, or what the weights are for. The rate does not depend on how long training will last, so
that one which is stopped early has taken the same steps as one that was meant to be short.

The weights that are measured and kept are a running mean over the last steps (Polyak and Juditsky
1992): at a constant rate single weights jump about the minimum, their mean lies in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config import TrainConfig
from rnnforecast.data.windows import Batch, TrainingWindows, epoch_batches
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded
from rnnforecast.model.expected import Tensors
from rnnforecast.model.member import Member
from rnnforecast.model.memory import enough_windows, measure_cut
from rnnforecast.model.network import Network
from rnnforecast.model.state import MemberState
from rnnforecast.model.stepping import (
    figures,
    make_optimizer,
    moments_of,
    restore_moments,
    seeded,
    take_step,
    using,
)
from rnnforecast.model.validation import ValidationWindows
from rnnforecast.verdicts import EXPLODING, LARGE_NORM, explosion

_WARM_UP = 100
"""Steps until the full rate."""
_AVERAGED = 50
"""Steps that the mean of the weights reaches back."""
_MIN_EPOCH_STEPS = 20
_MAX_EPOCH_STEPS = 60
_PATIENCE = 3
_EPOCH_WINDOWS = 2048
"""At most so many validation windows are forecast after each epoch."""
_MEMORY_EPOCHS, _MEMORY_WINDOWS = 3, 64
"""After every so many epochs so many windows or more show how far back the member remembers."""


@dataclass(frozen=True)
class TrainingLog:
    """What happened to one member, epoch by epoch."""

    epochs: tuple[EpochEnded, ...]
    steps: int
    """Steps taken until training stopped."""
    best_steps: int
    """Steps taken until the weights that were kept."""

    def explosion(self, config: TrainConfig) -> str | None:
        """Say why this training exploded; None where it did not."""
        clipped = [epoch.clipped for epoch in self.epochs]
        return explosion(clipped, [epoch.train_loss for epoch in self.epochs], config)


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
        self._windows = seen_by(self.member, windows)
        self._validation = validation
        self._config = config
        self._epoch_steps = steps_per_epoch(len(windows), config)
        self._parameters = list(self.member.parameters())
        self._averaged = [p.detach().clone() for p in self._parameters]
        self._best = self._averaged
        self._best_loss = float("inf")
        self._optimizer = make_optimizer(self.member, config.learning_rate)
        self._set_rate()
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
            self._batches = self._epoch_batches()
        loss, norm = take_step(
            self._network,
            self.member,
            next(self._batches),
            self._optimizer,
            config=self._config,
            generator=self._generator,
            ranks=self._windows.ranks,
        )
        self.steps += 1
        self._set_rate()
        share = max(1 / _AVERAGED, 9 / (self.steps + 9))
        torch._foreach_lerp_(self._averaged, [p.detach() for p in self._parameters], share)
        self._losses.append(loss)
        self._norms.append(norm)
        return self.end_epoch() if self.steps % self._epoch_steps == 0 else None

    def end_epoch(self) -> EpochEnded | None:
        """Measure the averaged weights, and remember them if they are the best so far."""
        if not self._losses:
            return None
        losses, norms = (figures(x) for x in (self._losses, self._norms))
        if not (np.isfinite(losses).all() and np.isfinite(norms).all()):
            became = losses[~np.isfinite(losses + norms)][0]
            raise DivergedError(
                f"{EXPLODING}: training diverged, the loss became {became}",
                hint="nothing was saved; try a lower --learning-rate or --clip, "
                "and look for extreme readings in the data",
            )
        self._losses, self._norms = [], []
        loss = effective_memory = None
        if self._validation is not None:
            with using(self._parameters, self._averaged):
                (loss,) = self._validation.losses(
                    self._network, [[self.member]], most=_EPOCH_WINDOWS
                )
                if (len(self.epochs) + 1) % _MEMORY_EPOCHS == 0:
                    effective_memory = self._effective_memory()
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
            gradient_norm_99=float(np.quantile(norms, 0.99)),
            clipped=float((norms > (self._config.clip or LARGE_NORM)).mean()),
            learning_rate=self._rate(self.steps - 1),
            is_best=is_best and loss is not None,
            effective_memory=effective_memory,
        )
        self.epochs.append(ended)
        return ended

    def finish(self) -> TrainingLog:
        """Put the best weights in force; without validation they are the last."""
        with torch.no_grad():
            for parameter, best in zip(self._parameters, self._best, strict=True):
                parameter.copy_(best)
        return TrainingLog(tuple(self.epochs), self.steps, self.best_steps)

    def state(self) -> MemberState | None:
        """Return all that the next step depends on; None where that would be no number.

        Arrays share their memory with the tensors as far as they can: use them before that step.
        """
        losses, norms = (figures(x) for x in (self._losses, self._norms))
        held_out = [epoch.validation_loss or 0.0 for epoch in self.epochs]
        if not all(np.isfinite(x).all() for x in (losses, norms, held_out)):
            return None
        means, squares, counts = moments_of(self._optimizer, self._parameters)
        return MemberState(
            steps=self.steps,
            best_steps=self.best_steps,
            best_loss=self._best_loss if np.isfinite(self._best_loss) else None,
            epochs=tuple(self.epochs),
            weights=self._named(self._parameters),
            averaged=self._named(self._averaged),
            best=self._named(self._best),
            means=self._named(means),
            squares=self._named(squares),
            counts=figures(counts),
            losses=losses,
            norms=norms,
            generator=self._generator.get_state().numpy(),
        )

    @torch.no_grad()
    def restore(self, state: MemberState) -> None:
        """Be where the training was that had this state."""
        own: dict[str, Sequence[Tensor]] = {"weights": self._parameters, "averaged": self._averaged}
        self._best = self._averaged  # as long as there is no best: `state.best` is a copy
        if state.best_steps:
            own["best"] = self._best = [x.clone() for x in self._averaged]
        for kind, tensors in own.items():
            for tensor, value in zip(tensors, getattr(state, kind).values(), strict=True):
                tensor.copy_(torch.from_numpy(value))
        moments = (state.means.values(), state.squares.values(), state.counts)
        restore_moments(self._optimizer, self._parameters, *moments)
        self.steps, self.best_steps = state.steps, state.best_steps
        self._best_loss = float("inf") if state.best_loss is None else state.best_loss
        self.epochs = list(state.epochs)
        device = self._parameters[0].device
        self._losses, self._norms = (
            list(torch.from_numpy(x).to(device)) for x in (state.losses, state.norms)
        )
        self._generator.set_state(torch.from_numpy(state.generator))
        self._set_rate()
        self._batches = islice(self._epoch_batches(), self.steps % self._epoch_steps, None)

    def _effective_memory(self) -> int:
        """Measure how far back the member remembers, with the weights that are in force."""
        assert self._validation is not None
        most = enough_windows(self._network, [self.member], _MEMORY_WINDOWS)
        batch = self._validation.gather(most)
        cut = measure_cut(self._network, batch, members=[self.member], per_doubling=2)
        return cut.effective

    def _set_rate(self) -> None:
        """Warm up; the rate of a step depends on the number of steps before it alone."""
        (group,) = self._optimizer.param_groups
        group["lr"] = self._rate(self.steps)

    def _rate(self, steps: int) -> float:
        return self._config.learning_rate * min(1.0, (steps + 1) / _WARM_UP)

    def _epoch_batches(self) -> Iterator[Batch]:
        """Gather the batches of the epoch that the next step is in."""
        return epoch_batches(
            self._windows,
            n_steps=self._epoch_steps,
            batch_size=self._config.batch_size,
            key=(self._config.seed, self.index, self.steps // self._epoch_steps),
        )

    def _named(self, tensors: Sequence[Tensor]) -> Tensors:
        names = (name for name, _ in self.member.named_parameters())
        return {n: x.detach().cpu().numpy() for n, x in zip(names, tensors, strict=True)}


def seen_by(member: Member, windows: TrainingWindows) -> TrainingWindows:
    """Return the windows as a member looks at them: covariates are not gathered in vain."""
    return windows if member.own.covariates else windows.without_features()
