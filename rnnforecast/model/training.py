"""Training: members step by step, in turn; early stopping, checkpoints, weights, fine-tuning."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config.training import MAX_EPOCHS, TrainConfig
from rnnforecast.data.arrays import Doubles, Floats
from rnnforecast.data.windows import TrainingWindows
from rnnforecast.errors import DivergedError, UsageError, WriteError
from rnnforecast.events import (
    EpochEnded,
    Listener,
    Notice,
    ProgressReporter,
    WarningEvent,
)
from rnnforecast.gradients import EXPLODING, LARGE_NORM, diagnose_explosion, explain_explosion
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.checkpoint import Checkpoints, MemberState, TrainingState, damaged
from rnnforecast.model.distributed import sum_gradients
from rnnforecast.model.inference import MemberWeights
from rnnforecast.model.loss import (
    StepInputs,
    ValidationWindows,
    n_stretches,
    prepared_batches,
    step_loss,
)
from rnnforecast.model.member import Member, device_of, make_member, weights_of
from rnnforecast.model.network import Network
from rnnforecast.parallel import Ranks, broadcast_int, rank_share
from rnnforecast.process import defer_signals
from rnnforecast.spec import NetworkSpec
from rnnforecast.units import parse_duration_us

# A constant rate after a warm-up with a running mean of the weights: the validation loss is that of
# a one-cycle schedule, and no step depends on how many will follow (docs/decisions.md, 9).
_WARM_UP_STEPS = 50
_AVERAGED_STEPS = 100
"""Steps that the running mean of the weights reaches back."""
EPOCH_STEPS = 25
"""Steps of an epoch, whatever the size of the data: after each the weights are validated."""
_PATIENCE = 4
"""Epochs without a better validation loss that end the training of a member."""
_WINDOWS_A_STEP = 40
"""Windows for each step: where there are few, more steps learn them by heart."""
_MIN_STEPS, _MAX_STEPS = 100, EPOCH_STEPS * MAX_EPOCHS
"""Bounds of the steps that are taken at most (docs/decisions.md, 109)."""
_MOST_HARM = 1.1
"""Validation loss, in units of that before the first step, above which training was in vain."""
_WEIGHT_DECAY = 0.02
_DRAWN_RATE = 3.0
"""Learning rate of a member that begins with drawn weights, in units of the usual one."""
_FINE_TUNE_KEY = 1 << 20
"""Number of the epoch by which the batches of fine-tuning are drawn."""
FINE_TUNE_RATE = 0.25
"""Share of the peak rate that fine-tuning starts from (docs/decisions.md, 1)."""


@dataclass(frozen=True)
class TrainingLog:
    """The training of one member, epoch by epoch."""

    epochs: tuple[EpochEnded, ...]
    steps: int
    """Steps taken until training stopped."""
    kept_steps: int
    """The same, or 0 where they only harmed, and the first weights are kept."""

    def explosion(self, config: TrainConfig) -> str | None:
        """Return the reason why the gradients exploded; None where they did not."""
        return explain_explosion(
            [epoch.clipped for epoch in self.epochs],
            [epoch.train_loss for epoch in self.epochs],
            config,
            has_improved=any(epoch.is_best for epoch in self.epochs),
        )


class TrainingInputs:
    """The inputs of each step, for members of one segment: they learn from the same windows."""

    def __init__(
        self, network: Network, windows: TrainingWindows, scales: Doubles, config: TrainConfig
    ) -> None:
        """Take the windows of an epoch by its number; `scales` are those of `loss_scales`."""
        self.ranks = windows.ranks
        self._source = network, windows, scales, config
        self._newest = -1
        self._batches: Iterator[StepInputs] = iter(())

    def of_step(self, member: Member, step: int) -> StepInputs:
        """Return the inputs of a step from 0; those of the newest one are kept."""
        if step != self._newest:
            network, windows, scales, config = self._source
            epoch, first = divmod(step, EPOCH_STEPS)
            if not first or step != self._newest + 1:
                self._batches = prepared_batches(
                    network,
                    member,
                    windows,
                    scales,
                    n_steps=EPOCH_STEPS,
                    config=config,
                    key=(config.seed, 0, epoch),
                    first=first,
                )
            self._inputs, self._newest = next(self._batches), step
        return self._inputs


class MemberTraining:
    """The training of one member, one step at a time, so that members can take turns."""

    def __init__(
        self,
        network: Network,
        index: int,
        inputs: TrainingInputs,
        validation: ValidationWindows | None,
        config: TrainConfig,
    ) -> None:
        """Begin with the weights that the member has."""
        self.member = make_member(network, index, device_of(config))
        self.index = index
        self.steps = 0
        self.epochs: list[EpochEnded] = []
        self._network = network
        self._inputs = inputs
        self._validation = validation
        self._config = config
        self._peak_rate = config.learning_rate
        self._peak_rate *= _DRAWN_RATE if network.spec.members[index].is_drawn else 1

        self._parameters = list(self.member.parameters())
        self._averaged = [p.detach().clone() for p in self._parameters]
        self._first = [x.clone() for x in self._averaged]
        self._first_loss = float("inf") if validation is None else validation.loss(self.member)
        self._optimizer = make_optimizer(self.member, self._peak_rate)
        self._set_rate()

        self._generator = make_generator(config.seed, index, device=self.member.device)
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
        loss, norm = train_step(
            self._network,
            self.member,
            self._inputs.of_step(self.member, self.steps),
            self._optimizer,
            config=self._config,
            generator=self._generator,
            ranks=self._inputs.ranks,
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
        """Validate the averaged weights.

        Returns None where no step was taken since the last epoch. Raises `DivergedError` where a
        loss or the norm of a gradient is not finite.
        """
        if not self._losses:
            return None
        losses, norms = (to_numpy(x) for x in (self._losses, self._norms))
        if not (np.isfinite(losses).all() and np.isfinite(norms).all()):
            diverged_loss = losses[~np.isfinite(losses + norms)][0]
            raise DivergedError(
                f"{EXPLODING}: training diverged (loss {diverged_loss})",
                hint="nothing was saved; try a lower --learning-rate or --clip, and check the "
                "data for extreme readings",
            )

        self._losses, self._norms = [], []
        loss = None
        if self._validation is not None:
            with swapped_parameters(self._parameters, self._averaged):
                loss = self._validation.loss(self.member)

        earlier = [epoch.validation_loss for epoch in self.epochs]
        lowest = min([self._first_loss, *(x for x in earlier if x is not None)])
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
            is_best=loss is not None and loss < lowest,
        )
        self.epochs.append(ended)
        return ended

    def finish(self) -> TrainingLog:
        """Load the averaged weights into the member, or the first ones where training harmed.

        They are no earlier ones that validated better: chosen by few windows, those forecast worse.
        """
        last = self.epochs[-1].validation_loss if self.epochs else None
        harms = last is not None and not last <= _MOST_HARM * self._first_loss
        with torch.no_grad():
            for parameter, kept in zip(
                self._parameters, self._first if harms else self._averaged, strict=True
            ):
                parameter.copy_(kept)
        return TrainingLog(tuple(self.epochs), self.steps, 0 if harms else self.steps)

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
            epochs=tuple(self.epochs),
            weights=self._by_name(self._parameters),
            averaged=self._by_name(self._averaged),
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
        tensors = (*self._parameters, *self._averaged)
        values = (*state.weights.values(), *state.averaged.values())
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(torch.from_numpy(value))
        restore_optimizer_state(
            self._optimizer,
            self._parameters,
            means=state.means.values(),
            squares=state.squares.values(),
            counts=state.counts,
        )

        self.steps = state.steps
        self.epochs = list(state.epochs)
        device = self._parameters[0].device
        self._losses, self._norms = (
            list(torch.from_numpy(x).to(device)) for x in (state.losses, state.norms)
        )

        self._generator.set_state(torch.from_numpy(state.generator))
        self._set_rate()

    def _set_rate(self) -> None:
        """Set the rate of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.steps)

    def _rate(self, steps: int) -> float:
        """Return the rate of the step after `steps` steps; it depends on nothing else."""
        return self._peak_rate * min(1.0, (steps + 1) / _WARM_UP_STEPS)

    def _by_name(self, tensors: Sequence[Tensor]) -> Tensors:
        names = (name for name, _ in self.member.named_parameters())
        return {n: x.detach().cpu().numpy() for n, x in zip(names, tensors, strict=True)}


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


def train_step(
    network: Network,
    member: Member,
    inputs: StepInputs,
    optimizer: torch.optim.Optimizer,
    *,
    config: TrainConfig,
    generator: torch.Generator,
    ranks: Ranks,
) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the gradient's norm before clipping.

    Each rank computes the gradient of its share of the batch.
    """
    optimizer.zero_grad(set_to_none=True)
    mask = None
    if network.config.dropout:
        n = n_stretches(config)
        rows = rank_share(ranks, n)
        mask = dropout_mask(member, n, network.config.dropout, generator)[rows]
    loss = step_loss(network, member, inputs, reach=config.truncate, mask=mask)

    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(member.parameters())
    loss = sum_gradients(parameters, loss, ranks)

    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or float("inf"))
    optimizer.step()
    return loss, norm


def dropout_mask(member: Member, n: int, dropout: float, generator: torch.Generator) -> Tensor:
    """Draw a dropout mask for the states of n stretches, (N, 1, D), the same for all segments.

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
    member: Member,
    index: int,
    windows: TrainingWindows,
    *,
    scales: Doubles,
    n_steps: int,
    config: TrainConfig,
) -> Iterator[int]:
    """Train the member of this number for `n_steps` steps, in place.

    The rate falls linearly from a share of the peak. Yields the number of steps taken, after each.
    Nothing is held out, hence no early stopping.
    """
    optimizer = make_optimizer(member, config.learning_rate * FINE_TUNE_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, max(n_steps, 1))
    key = (config.seed, index, _FINE_TUNE_KEY)
    generator = make_generator(*key, device=member.device)
    inputs = prepared_batches(
        network, member, windows, scales, n_steps=n_steps, config=config, key=key
    )

    for step, prepared in enumerate(inputs, start=1):
        train_step(
            network,
            member,
            prepared,
            optimizer,
            config=config,
            generator=generator,
            ranks=windows.ranks,
        )
        schedule.step()
        yield step


_FIRST_SHARE = 0.5
"""Share of `--max-time` after which training stops; fine-tuning takes at most as many steps."""
_TRIED_STEPS = 5
"""Steps by which the duration of a step is first measured with `--max-time`."""
_STEP = 0.1
"""Weights of members are multiples of this before they are shrunk."""
_PRIOR_WINDOWS = 30.0
"""Number of disjoint validation windows at which default and best weights count equally."""
_TRAINED_SHARE = 0.7
"""Default weight of what was trained on many windows, beside the built-in member."""
_FEW_WINDOWS = 7.0
"""Number of disjoint training windows of a series at which the default weight is half of that."""
_LEAST_WEIGHT = 0.05
"""Weight under which the built-in member goes."""
_ENOUGH = 0.25
"""Share of the best weights in those that are used from which a member without any may go."""
_STOPPING = Notice("stopping after this step; a second signal stops immediately")


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
        return max((member.steps for member in self.members), default=0)


def train_members(
    network: Network,
    windows: TrainingWindows,
    *,
    scales: Doubles,
    validation: TrainingWindows | None,
    config: TrainConfig,
    listener: Listener,
    checkpoints: Checkpoints | None = None,
) -> tuple[Network, EnsembleLog]:
    """Train a network; return it with the members that help.

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
    members = _to_train(network, windows, held_out, config, scales)
    ensemble = _Ensemble(members, max_steps(config, len(windows)), checkpoints)

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
    trained = {member.index: member.member for member in members}
    modules = [
        trained.get(i) or make_member(network, i, device_of(config))
        for i in range(len(network.members))
    ]
    network = replace(network, members=tuple(weights_of(module) for module in modules))
    n_windows = windows.n_disjoint / len(windows.series)
    network, selected = network.weigh_members(_weigh_members(modules, n_windows, held_out))
    listener(Notice(_summary(len(logs), current.end, network.spec)))
    return network, EnsembleLog(logs, selected)


def _to_train(
    network: Network,
    windows: TrainingWindows,
    validation: ValidationWindows | None,
    config: TrainConfig,
    scales: Doubles,
) -> list[MemberTraining]:
    """Return the members that are trained, with the same inputs for all of one segment."""
    specs = network.spec.members
    inputs = {spec.segment: TrainingInputs(network, windows, scales, config) for spec in specs}
    return [
        MemberTraining(network, i, inputs[spec.segment], validation, config)
        for i, spec in enumerate(specs)
        if spec.is_trained
    ]


def _summary(n: int, n_steps: int, spec: NetworkSpec) -> str:
    """Say how many members were trained, and which weights the members have."""
    steps = f"{n_steps} steps{' each at most' * (n > 1)}"
    trained = f"trained {n} network{'s' * (n > 1)} ({steps})" if n else "no network was trained"
    return f"{trained}; {describe_shares(spec)}"


def max_steps(config: TrainConfig, n_windows: int) -> int:
    """Return the steps that a member takes at most, by how many windows it learns from."""
    if config.epochs is not None:
        steps = EPOCH_STEPS * config.epochs
        return min(steps, config.steps or steps)
    return config.steps or min(max(n_windows // _WINDOWS_A_STEP, _MIN_STEPS), _MAX_STEPS)


def _check_options(network: Network, n_ranks: int, config: TrainConfig, listener: Listener) -> None:
    """Raise `UsageError` where a rank would have no window of a batch; note a truncation."""
    if n_stretches(config) < n_ranks:
        raise UsageError(
            f"--batch-size {config.batch_size} gives {n_stretches(config)} blocks of windows, "
            f"fewer than the {n_ranks} processes",
            hint="use fewer processes or a larger --batch-size",
        )

    reach, lookback = config.truncate, network.spec.lookback
    if reach is not None and reach < lookback:
        listener(Notice(f"gradients are truncated after {reach} of {lookback} steps"))


def _warn_of_gradients(
    logs: Sequence[TrainingLog], config: TrainConfig, listener: Listener
) -> None:
    """Warn of members whose gradients were too large too often, or whose loss jumped."""
    for number, log in enumerate(logs):
        reason = log.explosion(config)
        if reason is not None:
            diagnosis = diagnose_explosion(reason, config)
            message = f"{diagnosis.verdict}: network {number + 1}: {diagnosis.reason}"
            message += f"; try  {diagnosis.advice}"
            listener(WarningEvent("exploding-gradients", message))


def _weigh_members(
    members: Sequence[Member], n_windows: float, validation: ValidationWindows | None
) -> tuple[float, ...]:
    """Return the weight of each member in the forecast.

    They are those with the least loss on validation windows, shrunk towards default ones where
    these are few; the default weight of what was trained grows with `n_windows`, the disjoint
    training windows of a series. With enough validation windows, one of several trained members
    goes where its weight is none, the built-in one where it is little. Without validation weights
    are the default ones, or those members count that see covariates, if any: the user asked for
    them.
    """
    n = len(members)
    trained = [i for i, member in enumerate(members) if member.spec.is_trained]
    if not trained:
        return (1.0,) * n
    default = [1 / n] * n
    if len(trained) < n:
        of_trained = _TRAINED_SHARE * n_windows / (n_windows + _FEW_WINDOWS)
        shares = of_trained / len(trained), (1 - of_trained) / (n - len(trained))
        default = [shares[0] if i in trained else shares[1] for i in range(n)]
    if validation is None:
        sees = [float(member.spec.covariates) for member in members]
        return tuple(sees if any(sees) else default)

    n_parts = round(1 / _STEP)
    grid = [
        tuple(part / n_parts for part in parts)
        for parts in itertools.product(range(n_parts + 1), repeat=n)
        if sum(parts) == n_parts
    ]
    best = min(zip(validation.losses(members, grid), grid, strict=True))[1]
    share = validation.n_disjoint / (validation.n_disjoint + _PRIOR_WINDOWS)
    unused = {i for i in trained if not best[i]} if len(trained) > 1 and share > _ENOUGH else set()
    if len(unused) == len(trained):  # the built-in one is best: at least one may learn on
        unused.discard(trained[0])
    weights = [share * b + (1 - share) * u for b, u in zip(best, default, strict=True)]
    unused |= {i for i in range(n) if i not in trained and weights[i] < _LEAST_WEIGHT}
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
            warning = f"cannot save the checkpoint: {error.message}"
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
            listener(Notice("no checkpoint found; training starts from the beginning"))
            return first

        try:
            if state.target > self.max_steps:
                raise ValueError(f"its target step {state.target} is beyond the last one")
            for member, member_state in zip(self.members, state.members, strict=True):
                member.restore(member_state)
        except (RuntimeError, ValueError) as error:  # the generator of another release of torch
            raise damaged(self.checkpoints.path, str(error)) from error
        least_steps = min(member_state.steps for member_state in state.members)
        listener(Notice(f"resuming training after step {least_steps}"))
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
) -> Network:
    """Return a network whose member i is trained for `n_steps[i]` more steps over these windows."""
    reporter = ProgressReporter(listener, "training on the held-out data", sum(n_steps))
    tuned: list[MemberWeights] = []
    with defer_signals(lambda: reporter.report(_STOPPING)) as signals:
        for index, n in enumerate(n_steps):
            member = make_member(network, index, device_of(config))
            steps = fine_tune(
                network, member, index, windows, scales=scales, n_steps=n, config=config
            )
            for _ in steps:
                reporter.advance()
                if signals:
                    raise signals[0]
            tuned.append(weights_of(member))
    reporter.finish()
    return replace(network, members=tuple(tuned))


def describe_shares(spec: NetworkSpec) -> str:
    """Describe the share of each member in the forecast."""
    parts = []
    for share, member in zip(spec.shares, spec.members, strict=True):
        name = "trained network" if member.is_trained else "built-in network"
        name += " with covariates" * member.covariates + " from scratch" * member.is_drawn
        parts.append(f"{100 * share:.0f} % {name}")
    return "forecast: " + ", ".join(parts)


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
