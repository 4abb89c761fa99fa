"""Training of one member: steps, epochs, early stopping, state for checkpoints, fine-tuning."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.arrays import Doubles, Floats
from rnnforecast.data.windows import Batch, TrainingWindows, epoch_batches
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded
from rnnforecast.gradients import EXPLODING, LARGE_NORM, explain_explosion
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.checkpoint import MemberState
from rnnforecast.model.distributed import sum_gradients
from rnnforecast.model.loss import (
    N_ORIGINS,
    StepInputs,
    ValidationWindows,
    step_inputs,
    step_loss,
)
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.parallel import SINGLE_PROCESS, Ranks, rank_share

# A constant rate after a warm-up with a running mean of the weights: the validation loss is that of
# a one-cycle schedule, and no step depends on how many will follow (docs/decisions.md, 9).
_WARM_UP_STEPS = 50
_AVERAGED_STEPS = 100
"""Steps that the running mean of the weights reaches back."""
EPOCH_STEPS = 25
"""Steps of an epoch, whatever the size of the data: after each the weights are validated."""
_PATIENCE = 6
"""Epochs without a better validation loss that end the training of a member."""
_WEIGHT_DECAY = 0.02
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


class MemberTraining:
    """The training of one member, one step at a time, so that members can take turns."""

    def __init__(
        self,
        network: Network,
        index: int,
        windows: TrainingWindows,
        validation: ValidationWindows | None,
        config: TrainConfig,
        scales: Doubles,
    ) -> None:
        """Begin with the weights that the member has; `scales` are those of `loss_scales`."""
        self.member = network.members[index]
        self.index = index
        self.steps = 0
        self.best_steps = 0
        self.epochs: list[EpochEnded] = []
        self._network = network
        self._windows = windows
        self._validation = validation
        self._config = config
        self._scales = scales

        self._parameters = list(self.member.parameters())
        self._averaged = [p.detach().clone() for p in self._parameters]
        self._best = [x.clone() for x in self._averaged]
        self._best_loss = float("inf")
        if validation is not None:
            self._best_loss = validation.loss(self.member)
        self._optimizer = make_optimizer(self.member, config.learning_rate)
        self._set_rate()

        self._generator = make_generator(config.seed, index, device=network.center.device)
        self._batches: Iterator[StepInputs] = iter(())
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    @property
    def has_stopped(self) -> bool:
        """Whether the validation loss has not improved for `_PATIENCE` epochs."""
        recent = self.epochs[-_PATIENCE:]
        return (
            len(self.epochs) >= _PATIENCE
            and recent[-1].validation_loss is not None
            and not any(epoch.is_best for epoch in recent)
        )

    @property
    def steps_to_epoch_end(self) -> int:
        """Number of steps until the epoch ends."""
        return EPOCH_STEPS - self.steps % EPOCH_STEPS

    def step(self) -> EpochEnded | None:
        """Take one step; return the epoch that it ends, if any. Raises `DivergedError`."""
        if self.steps % EPOCH_STEPS == 0:
            self._batches = self._epoch_batches(0)
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
        return self.end_epoch() if self.steps % EPOCH_STEPS == 0 else None

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
        loss = None
        if self._validation is not None:
            with swapped_parameters(self._parameters, self._averaged):
                loss = self._validation.loss(self.member)

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
            "best": self._best,
        }
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
        self._batches = self._epoch_batches(self.steps % EPOCH_STEPS)

    def _set_rate(self) -> None:
        """Set the rate of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.steps)

    def _rate(self, steps: int) -> float:
        """Return the rate of the step after `steps` steps; it depends on nothing else."""
        return self._config.learning_rate * min(1.0, (steps + 1) / _WARM_UP_STEPS)

    def _epoch_batches(self, first: int) -> Iterator[StepInputs]:
        """Yield the batches of the epoch that the next step belongs to, from the first one on."""
        batches = epoch_batches(
            self._windows,
            n_steps=EPOCH_STEPS,
            batch_size=n_stretches(self._config),
            key=(self._config.seed, self.index, self.steps // EPOCH_STEPS),
        )
        return prepared_batches(
            self._network,
            self.member,
            islice(batches, first, None),
            self._scales,
            config=self._config,
            ranks=self._windows.ranks,
        )

    def _by_name(self, tensors: Sequence[Tensor]) -> Tensors:
        names = (name for name, _ in self.member.named_parameters())
        return {n: x.detach().cpu().numpy() for n, x in zip(names, tensors, strict=True)}


def n_stretches(config: TrainConfig) -> int:
    """Return how many stretches of readings the windows of a step end in."""
    return max(1, config.batch_size // N_ORIGINS)


def make_optimizer(member: Member, rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of a member: matrices decay, biases and norms do not."""
    parameters = list(member.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def make_generator(*key: int, device: torch.device) -> torch.Generator:
    """Return a random number generator that is seeded by these numbers alone."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed))


def prepared_batches(
    network: Network,
    member: Member,
    batches: Iterable[Batch],
    scales: Doubles,
    *,
    config: TrainConfig,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[StepInputs]:
    """Yield the inputs of steps, each computed in a thread while the one before is learnt from.

    Batches are gathered in the thread that asks for them, in which ranks exchange readings.
    """

    def prepare(batch: Batch) -> StepInputs:
        rows = rank_share(ranks, len(batch.series))
        return step_inputs(network, member, batch, scales, rows=rows)

    if config.threads == 1:
        yield from map(prepare, batches)
        return
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[StepInputs]] = deque()
        for batch in batches:
            pending.append(pool.submit(prepare, batch))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def train_step(
    network: Network,
    member: Member,
    inputs: StepInputs,
    optimizer: torch.optim.Optimizer,
    *,
    config: TrainConfig,
    generator: torch.Generator,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the gradient's norm before clipping.

    Each rank computes the gradient of its share of the batch.
    """
    optimizer.zero_grad(set_to_none=True)
    mask = None
    if network.config.dropout:
        n = n_stretches(config)
        rows = rank_share(ranks, n)
        mask = dropout_mask(member, n * N_ORIGINS, network.config.dropout, generator)
        mask = mask[rows.start * N_ORIGINS : rows.stop * N_ORIGINS][: len(inputs.targets)]
    loss = step_loss(network, member, inputs, reach=config.truncate, mask=mask)

    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(member.parameters())
    loss = sum_gradients(parameters, loss, ranks)

    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or float("inf"))
    optimizer.step()
    return loss, norm


def dropout_mask(member: Member, n: int, dropout: float, generator: torch.Generator) -> Tensor:
    """Draw a dropout mask for the states of n windows, (N, 1, D), the same for all segments.

    It is scaled by 1 / (1 - dropout) where it keeps a value.
    """
    shape = (n, 1, member.spec.hidden)
    is_kept = torch.rand(shape, generator=generator, device=generator.device) >= dropout
    return is_kept / (1 - dropout)


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return AdamW's running means of the gradients and of their squares, and its step counts.

    One tensor for each parameter; zeros for a parameter without a gradient so far.
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
    network: Network,
    index: int,
    windows: TrainingWindows,
    *,
    scales: Doubles,
    n_steps: int,
    config: TrainConfig,
) -> Iterator[int]:
    """Train a member for `n_steps` steps, at a rate that falls linearly from a share of the peak.

    Yields the number of steps taken, after each. Nothing is held out, hence no early stopping.
    """
    member = network.members[index]
    optimizer = make_optimizer(member, config.learning_rate * FINE_TUNE_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, max(n_steps, 1))
    key = (config.seed, index, config.epochs)
    generator = make_generator(*key, device=network.center.device)
    ranks = windows.ranks
    batches = epoch_batches(windows, n_steps=n_steps, batch_size=n_stretches(config), key=key)
    inputs = prepared_batches(network, member, batches, scales, config=config, ranks=ranks)

    for step, prepared in enumerate(inputs, start=1):
        train_step(
            network,
            member,
            prepared,
            optimizer,
            config=config,
            generator=generator,
            ranks=ranks,
        )
        schedule.step()
        yield step
