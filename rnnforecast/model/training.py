"""Training of one member: steps, epochs, early stopping, state for checkpoints, fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.arrays import Floats
from rnnforecast.data.windows import MIN_OBSERVED_SHARE, Batch, TrainingWindows, epoch_batches
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded
from rnnforecast.gradients import EXPLODING, LARGE_NORM, explain_explosion
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.checkpoint import MemberState
from rnnforecast.model.covariates import CovariateBatch
from rnnforecast.model.distributed import sum_gradients
from rnnforecast.model.loss import (
    ValidationWindows,
    covariates_of,
    draw_mixture,
    entries,
    pinball,
    scaled_windows,
)
from rnnforecast.model.memory import measure_memory, n_windows_to_measure
from rnnforecast.model.network import Member, Network
from rnnforecast.model.recurrence import has_fast_bfloat16
from rnnforecast.parallel import SINGLE_PROCESS, Ranks, rank_share

# A constant rate after a warm-up with a running mean of the weights: the validation loss is that of
# a one-cycle schedule, and no step depends on how many will follow (docs/decisions.md, 9).
_WARM_UP_STEPS = 100
_AVERAGED_STEPS = 50
"""Steps that the running mean of the weights reaches back."""

# An epoch's length depends on the size of the data alone, never on a clock (docs/decisions.md, 10).
_MIN_EPOCH_STEPS = 20
_MAX_EPOCH_STEPS = 60

_PATIENCE = 3
"""Epochs without a better validation loss that end the training of a member."""
_EPOCH_WINDOWS = 2048
"""Validation windows that are forecast after an epoch, at most."""
_MEMORY_EPOCHS, _MEMORY_WINDOWS = 3, 64
"""The effective memory is measured every third epoch, on 64 windows or more."""
_UNKNOWN_SHARE = 1 / 16
"""Share of the training windows that are shown as of an unknown series, so that entry 0 is trained
and a new series can be forecast."""
FINE_TUNE_RATE = 0.25
"""Share of the peak rate that fine-tuning starts from (docs/decisions.md, 1)."""


@dataclass(frozen=True)
class TrainingLog:
    """The training of one member, epoch by epoch."""

    epochs: tuple[EpochEnded, ...]
    steps: int
    """Steps taken until training stopped."""
    best_steps: int
    """Steps taken until the best weights."""

    def explosion(self, config: TrainConfig) -> str | None:
        """Return the reason why the gradients exploded; None where they did not."""
        clipped = [epoch.clipped for epoch in self.epochs]
        return explain_explosion(clipped, [epoch.train_loss for epoch in self.epochs], config)


def steps_per_epoch(n_windows: int, config: TrainConfig) -> int:
    """Return the number of steps in an epoch: as many as batches, within bounds."""
    n_batches = -(-n_windows // config.batch_size)
    return min(max(n_batches, _MIN_EPOCH_STEPS), _MAX_EPOCH_STEPS)


class MemberTraining:
    """The training of one member, one step at a time, so that members can take turns."""

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
        self._windows = visible_windows(self.member, windows)
        self._validation = validation
        self._config = config
        self._epoch_steps = steps_per_epoch(len(windows), config)

        self._parameters = list(self.member.parameters())
        self._averaged = [p.detach().clone() for p in self._parameters]
        self._best = self._averaged
        self._best_loss = float("inf")
        self._optimizer = make_optimizer(self.member, config.learning_rate)
        self._set_rate()

        self._generator = make_generator(config.seed, index, device=network.center.device)
        self._batches: Iterator[Batch] = iter(())
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    @property
    def lookback(self) -> int:
        """Steps of history; a training step takes longer with more."""
        return self.member.spec.lookback

    @property
    def has_stopped(self) -> bool:
        """Whether the validation loss has not improved for `_PATIENCE` epochs."""
        recent = self.epochs[-_PATIENCE:]
        return (
            len(self.epochs) > _PATIENCE
            and recent[-1].validation_loss is not None
            and not any(epoch.is_best for epoch in recent)
        )

    @property
    def steps_to_epoch_end(self) -> int:
        """Number of steps until the epoch ends."""
        return self._epoch_steps - self.steps % self._epoch_steps

    def step(self) -> EpochEnded | None:
        """Take one step; return the epoch that it ends, if any. Raises `DivergedError`."""
        if self.steps % self._epoch_steps == 0:
            self._batches = self._epoch_batches()
        loss, norm = train_step(
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
        # the running mean reaches back over fewer steps at the beginning
        share = max(1 / _AVERAGED_STEPS, 9 / (self.steps + 9))
        torch._foreach_lerp_(self._averaged, [p.detach() for p in self._parameters], share)
        self._losses.append(loss)
        self._norms.append(norm)
        return self.end_epoch() if self.steps % self._epoch_steps == 0 else None

    def end_epoch(self) -> EpochEnded | None:
        """Validate the averaged weights, and keep them if they are the best so far.

        Returns None where no step was taken since the last epoch. Raises `DivergedError` where a
        loss or the norm of a gradient is not finite.
        """
        if not self._losses:
            return None
        losses, norms = (to_numpy(x) for x in (self._losses, self._norms))
        if not (np.isfinite(losses).all() and np.isfinite(norms).all()):
            diverged_loss = losses[~np.isfinite(losses + norms)][0]
            raise DivergedError(
                f"{EXPLODING}: training diverged, the loss became {diverged_loss}",
                hint="nothing was saved; try a lower --learning-rate or --clip, "
                "and look for extreme readings in the data",
            )

        self._losses, self._norms = [], []
        loss = effective_memory = None
        if self._validation is not None:
            with swapped_parameters(self._parameters, self._averaged):
                (loss,) = self._validation.losses(
                    self._network, [[self.member]], max_windows=_EPOCH_WINDOWS
                )
                if (len(self.epochs) + 1) % _MEMORY_EPOCHS == 0:
                    n_windows = n_windows_to_measure(self._network, [self.member], _MEMORY_WINDOWS)
                    batch = self._validation.gather(n_windows)
                    cut = measure_memory(
                        self._network, batch, members=[self.member], per_doubling=2
                    )
                    effective_memory = cut.effective

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
        """Load the best weights into the network; without validation these are the last."""
        with torch.no_grad():
            for parameter, best in zip(self._parameters, self._best, strict=True):
                parameter.copy_(best)
        return TrainingLog(tuple(self.epochs), self.steps, self.best_steps)

    def state(self) -> MemberState | None:
        """Return everything that the next step depends on; None where a loss is not finite.

        Arrays may share memory with the tensors: they are valid until the next step.
        """
        losses, norms = (to_numpy(x) for x in (self._losses, self._norms))
        validation_losses = [epoch.validation_loss or 0.0 for epoch in self.epochs]
        if not all(np.isfinite(x).all() for x in (losses, norms, validation_losses)):
            return None

        means, squares, counts = optimizer_state(self._optimizer, self._parameters)
        return MemberState(
            steps=self.steps,
            best_steps=self.best_steps,
            best_loss=self._best_loss if np.isfinite(self._best_loss) else None,
            epochs=tuple(self.epochs),
            weights=self._by_name(self._parameters),
            averaged=self._by_name(self._averaged),
            best=self._by_name(self._best),
            means=self._by_name(means),
            squares=self._by_name(squares),
            counts=to_numpy(counts),
            losses=losses,
            norms=norms,
            generator=self._generator.get_state().numpy(),
        )

    @torch.no_grad()
    def restore(self, state: MemberState) -> None:
        """Continue from the state of an earlier training run, in place."""
        targets: dict[str, Sequence[Tensor]] = {
            "weights": self._parameters,
            "averaged": self._averaged,
        }
        self._best = self._averaged  # before the first epoch ends, the two are the same tensors
        if state.best_steps:
            targets["best"] = self._best = [x.clone() for x in self._averaged]

        for kind, tensors in targets.items():
            for tensor, value in zip(tensors, getattr(state, kind).values(), strict=True):
                tensor.copy_(torch.from_numpy(value))
        restore_optimizer_state(
            self._optimizer,
            self._parameters,
            means=state.means.values(),
            squares=state.squares.values(),
            counts=state.counts,
        )

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

    def _set_rate(self) -> None:
        """Set the rate of the next step."""
        (group,) = self._optimizer.param_groups
        group["lr"] = self._rate(self.steps)

    def _rate(self, steps: int) -> float:
        """Return the rate of the step after `steps` steps; it depends on nothing else."""
        return self._config.learning_rate * min(1.0, (steps + 1) / _WARM_UP_STEPS)

    def _epoch_batches(self) -> Iterator[Batch]:
        """Yield all batches of the epoch that the next step belongs to."""
        return epoch_batches(
            self._windows,
            n_steps=self._epoch_steps,
            batch_size=self._config.batch_size,
            key=(self._config.seed, self.index, self.steps // self._epoch_steps),
        )

    def _by_name(self, tensors: Sequence[Tensor]) -> Tensors:
        names = (name for name, _ in self.member.named_parameters())
        return {n: x.detach().cpu().numpy() for n, x in zip(names, tensors, strict=True)}


def visible_windows(member: Member, windows: TrainingWindows) -> TrainingWindows:
    """Return the windows without covariates where the member does not see them."""
    return windows if member.spec.covariates else windows.without_features()


def make_optimizer(member: Member, rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of a member, and let its recurrence round where that is faster."""
    member.recurrence.rounds = has_fast_bfloat16(member.persistence.device)
    return torch.optim.AdamW(member.parameters(), lr=rate, fused=True)


def make_generator(*key: int, device: torch.device) -> torch.Generator:
    """Return a random number generator that is seeded by these numbers alone."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed))


def train_step(
    network: Network,
    member: Member,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *,
    config: TrainConfig,
    generator: torch.Generator,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the gradient's norm before clipping.

    All ranks have the same batch, and each computes the gradient of its share of it.
    """
    optimizer.zero_grad(set_to_none=True)
    rows = rank_share(ranks, len(batch.series))
    loss = member_loss(network, member, batch, generator, reach=config.truncate, rows=rows)

    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(member.parameters())
    loss = sum_gradients(parameters, loss, ranks)

    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or float("inf"))
    optimizer.step()
    return loss, norm


def member_loss(
    network: Network,
    member: Member,
    batch: Batch,
    generator: torch.Generator,
    *,
    reach: int | None = None,
    rows: slice = slice(None),
) -> Tensor:
    """Return the quantile loss of a batch, in units of each series' scale.

    Spikes do not count, nor do windows with less than half of their history. Some windows are shown
    as of an unknown series; linear members see mirrored and mixed windows. `reach` limits the steps
    that gradients come through. With `rows` the result is the part of the loss that these windows
    contribute: the parts of all windows add up to the whole.
    """
    series = entries(batch, network.center.device)
    is_unknown = torch.rand(len(series), generator=generator, device=series.device) < _UNKNOWN_SHARE
    entry = torch.where(is_unknown, 0, series)

    history, future, next_step, scale_ratio = scaled_windows(network, batch, series, entry)
    covariates = covariates_of(network, batch)
    is_sparse = torch.isfinite(history).float().mean(1, keepdim=True) < MIN_OBSERVED_SHARE
    past, ahead = member.baselines(entry, next_step, covariates)
    past, ahead = history[:, -member.spec.lookback :] - past, future - ahead

    if member.spec.linear:
        mixture = draw_mixture(len(past), generator)
        past, ahead = mixture.apply(past), mixture.apply(ahead)
        covariates = covariates and CovariateBatch(*map(mixture.apply, covariates))
    mask = member.dropout_mask(len(past), generator)

    # Everything is drawn and counted for the whole batch before the rows are taken.
    counts = torch.isfinite(ahead) & ~is_sparse
    n_counted = counts.sum().clamp(min=1)
    past, ahead, entry, counts, scale_ratio = (
        values[rows] for values in (past, ahead, entry, counts, scale_ratio)
    )
    covariates = covariates and CovariateBatch(*(values[rows] for values in covariates))
    mask = None if mask is None else mask[rows]

    window = member.normalised(past)
    window = window._replace(newest=window.newest.detach())
    leads = member.decode(window, entry, covariates, mask=mask, reach=reach)

    target = (torch.where(counts, ahead, 0.0) - window.level) / window.spread
    loss = (
        pinball(leads, target - member.persistence_term(window), member.levels)
        * window.spread
        * scale_ratio
    )
    return torch.where(counts, loss, 0.0).sum() / n_counted


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return AdamW's running means of the gradients and of their squares, and its step counts.

    One tensor for each parameter; zeros for a parameter without a gradient so far, such as
    `missing_proj` before the first gap.
    """
    zero = torch.zeros(())
    states = [optimizer.state.get(p, {}) for p in parameters]

    means, squares = (
        [state.get(key, zero.expand(p.shape)) for state, p in zip(states, parameters, strict=True)]
        for key in ("exp_avg", "exp_avg_sq")
    )
    return means, squares, [state.get("step", zero) for state in states]


def restore_optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    *,
    means: Iterable[Floats],
    squares: Iterable[Floats],
    counts: Floats,
) -> None:
    """Restore what `optimizer_state` returned, in an optimizer that has taken no step."""
    for parameter, mean, square, count in zip(parameters, means, squares, counts, strict=True):
        if count:
            optimizer.state[parameter] = {
                "step": torch.tensor(count, dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.empty_like(parameter).copy_(torch.from_numpy(mean)),
                "exp_avg_sq": torch.empty_like(parameter).copy_(torch.from_numpy(square)),
            }


@contextmanager
def swapped_parameters(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Give the parameters other values inside of the context."""
    with torch.no_grad():
        originals = [p.detach().clone() for p in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
        try:
            yield
        finally:
            for parameter, value in zip(parameters, originals, strict=True):
                parameter.copy_(value)


def to_numpy(scalars: Sequence[Tensor]) -> Floats:
    """Return scalar tensors as one array, `(scalar,)`."""
    if not scalars:
        return np.empty(0, np.float32)
    values: Floats = torch.stack(list(scalars)).cpu().numpy()
    return values


def fine_tune(
    network: Network, index: int, windows: TrainingWindows, *, n_steps: int, config: TrainConfig
) -> Iterator[int]:
    """Train a member for `n_steps` steps, at a rate that falls linearly from a share of the peak.

    Yields the number of steps taken, after each. Nothing is held out, hence no early stopping.
    """
    member = network.members[index]
    optimizer = make_optimizer(member, config.learning_rate * FINE_TUNE_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    key = (config.seed, index, config.epochs)
    generator = make_generator(*key, device=network.center.device)

    windows = visible_windows(member, windows)
    batches = epoch_batches(windows, n_steps=n_steps, batch_size=config.batch_size, key=key)

    for step, batch in enumerate(batches, start=1):
        train_step(
            network,
            member,
            batch,
            optimizer,
            config=config,
            generator=generator,
            ranks=windows.ranks,
        )
        schedule.step()
        yield step
