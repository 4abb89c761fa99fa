"""The loop: one-cycle rate, clipping, early stopping, the best weights restored.

It knows a network and batches. It does not know files, baselines, or what the weights are for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config import TrainConfig
from rnnforecast.data.windows import SEEN_SHARE, Batch, TrainingWindows, epoch_batches
from rnnforecast.durations import parse_duration_us
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded, Listener, Progressed
from rnnforecast.model.network import Network

_UNKNOWN_SHARE = 1 / 16
"""Share of the training windows shown without their series' name, so that a new one can come."""
_MIN_EPOCH_STEPS = 40
_MAX_EPOCH_STEPS = 120
_PATIENCE = 3
_FIRST_SHARE = 0.5
"""Share of `--max-time` until training stops; learning on then takes at most as many steps."""
_VALIDATION_WINDOWS = 4096

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingLog:
    """What happened, epoch by epoch."""

    epochs: tuple[EpochEnded, ...]
    steps: int
    """Steps taken until training stopped."""
    best_steps: int
    """Steps taken until the weights that were kept."""


@dataclass
class _Run:
    """The mutable state of one training: what a checkpoint would hold."""

    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    best: Weights = field(default_factory=dict)
    epochs: list[EpochEnded] = field(default_factory=list)


def steps_per_epoch(n_windows: int, config: TrainConfig) -> int:
    """How many steps an epoch has: it depends on the size of the data, never on a clock."""
    whole = -(-n_windows // config.batch_size)
    return min(max(whole, _MIN_EPOCH_STEPS), _MAX_EPOCH_STEPS)


def train_network(
    network: Network,
    windows: TrainingWindows,
    *,
    validation: TrainingWindows | None,
    config: TrainConfig,
    listener: Listener,
) -> TrainingLog:
    """Fit the network in place; with validation windows the best weights seen are restored."""
    n_steps = steps_per_epoch(len(windows), config)
    total = n_steps * config.epochs
    last = min(total, config.steps or total)
    deadline = _deadline(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total)
    held_out = _validation_batches(validation, config)
    run = _Run()
    for epoch in range(config.epochs):
        losses, norms = [], []
        batches = epoch_batches(
            windows, n_steps=n_steps, batch_size=config.batch_size, seed=config.seed, epoch=epoch
        )
        for batch in batches:
            loss, norm = _step(network, batch, optimizer, clip=config.clip)
            schedule.step()
            losses.append(loss)
            norms.append(norm)
            run.step += 1
            listener(Progressed("training", run.step, last))
            if run.step >= last or time.monotonic() > deadline:
                break
        _end_epoch(run, network, held_out, losses=losses, norms=norms, clip=config.clip)
        listener(run.epochs[-1])
        if run.step >= last or time.monotonic() > deadline or _has_stopped_improving(run):
            break
    listener(Progressed("training", last, last))
    if run.best:
        network.load_state_dict(run.best)
    return TrainingLog(tuple(run.epochs), run.step, run.best_step if run.best else run.step)


def continue_training(
    network: Network,
    windows: TrainingWindows,
    *,
    n_steps: int,
    config: TrainConfig,
    listener: Listener,
) -> None:
    """Take `n_steps` more steps over these windows, at a rate that falls from a part of the peak.

    There is nothing left to stop early on: the number of steps is decided beforehand.
    """
    rate = config.learning_rate * CONTINUED_RATE
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    batches = epoch_batches(
        windows,
        n_steps=n_steps,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=config.epochs,
    )
    for step, batch in enumerate(batches, start=1):
        _step(network, batch, optimizer, clip=config.clip)
        schedule.step()
        listener(Progressed("learning from the held-out readings", step, n_steps))


CONTINUED_RATE = 0.25


def quantile_loss(forecast: Tensor, actual: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Mean pinball loss of (N, H, Q) over the readings that are there, (N, H); 0 if none is.

    Twice the pinball loss at the median is the absolute error.
    """
    seen = torch.isfinite(actual)
    error = torch.where(seen, actual, 0.0)[..., None] - forecast
    levels = torch.tensor(quantiles, dtype=error.dtype, device=error.device)
    pinball = torch.maximum(levels * error, (levels - 1.0) * error).mean(-1)
    return torch.where(seen, pinball, 0.0).sum() / seen.sum().clamp(min=1)


def _deadline(config: TrainConfig) -> float:
    if config.max_time is None:
        return float("inf")
    return time.monotonic() + _FIRST_SHARE * parse_duration_us(config.max_time) / 1e6


def _step(
    network: Network, batch: Batch, optimizer: torch.optim.Optimizer, *, clip: float
) -> tuple[float, float]:
    """Take one step; return the loss and the gradient's norm before clipping."""
    network.train()
    optimizer.zero_grad(set_to_none=True)
    loss = batch_loss(network, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    value, size = float(loss.detach()), float(norm)
    if not np.isfinite(value) or not np.isfinite(size):
        raise DivergedError(
            f"training diverged: the loss became {value}",
            hint="nothing was saved; try a lower --learning-rate or --clip, "
            "and look for extreme readings in the data",
        )
    optimizer.step()
    return value, size


def batch_loss(network: Network, batch: Batch) -> Tensor:
    """Return the quantile loss of a batch in units of each series' scale; spikes do not count.

    While training, some windows are shown without their name, and those with less than half of
    their history do not count.
    """
    device = network.center.device
    history, future = (torch.from_numpy(x).to(device) for x in (batch.history, batch.future))
    series = torch.from_numpy(batch.series).to(device) + 1
    next_step = torch.from_numpy(batch.next_step).to(device)
    history, future = (network.believable(part, series) for part in (history, future))
    center, scale = network.scaling(history, series)  # of the loss: whether a name is shown or not
    if network.training:
        series = series * (torch.rand(len(series), device=device) >= _UNKNOWN_SHARE)
        too_empty = torch.isfinite(history).float().mean(1) < SEEN_SHARE
        future = torch.where(too_empty[:, None], torch.nan, future)
    own_center, own_scale = network.scaling(history, series)
    scaled = network.forecast_scaled((history - own_center) / own_scale, series, next_step)
    shift, stretch = (own_center - center) / scale, own_scale / scale
    forecast = scaled * stretch[..., None] + shift[..., None]
    return quantile_loss(forecast, (future - center) / scale, network.task.quantiles)


def _validation_batches(
    windows: TrainingWindows | None, config: TrainConfig
) -> Callable[[], Iterable[Batch]] | None:
    if windows is None or not len(windows):
        return None
    chosen = windows.spread(_VALIDATION_WINDOWS)
    parts = np.array_split(chosen, max(1, len(chosen) // config.batch_size))
    return lambda: (windows.gather(part) for part in parts)


@torch.no_grad()
def _evaluate(network: Network, batches: Callable[[], Iterable[Batch]]) -> float:
    network.eval()
    losses = [
        (float(batch_loss(network, batch)), np.isfinite(batch.future).sum()) for batch in batches()
    ]
    weights = np.array([n for _, n in losses], np.float64)
    return float(np.dot([loss for loss, _ in losses], weights) / max(weights.sum(), 1.0))


def _end_epoch(
    run: _Run,
    network: Network,
    held_out: Callable[[], Iterable[Batch]] | None,
    *,
    losses: list[float],
    norms: list[float],
    clip: float,
) -> None:
    loss = None if held_out is None else _evaluate(network, held_out)
    is_best = loss is not None and loss < run.best_loss
    if loss is not None and is_best:
        run.best_loss, run.best_step = loss, run.step
        run.best = {name: value.clone() for name, value in network.state_dict().items()}
    run.epochs.append(
        EpochEnded(
            epoch=len(run.epochs) + 1,
            steps=run.step,
            train_loss=float(np.mean(losses)),
            validation_loss=loss,
            gradient_norm=float(np.median(norms)),
            clipped=float(np.mean(np.array(norms) > clip)),
            is_best=is_best,
        )
    )


def _has_stopped_improving(run: _Run) -> bool:
    recent = run.epochs[-_PATIENCE:]
    return (
        len(run.epochs) > _PATIENCE
        and recent[-1].validation_loss is not None
        and not any(epoch.is_best for epoch in recent)
    )
