"""How far back a network remembers: loss by kept history, gradients by lag, time constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rnnforecast.data.arrays import Doubles
from rnnforecast.data.panel import Features
from rnnforecast.data.windows import Batch
from rnnforecast.model.covariates import CovariateBatch
from rnnforecast.model.loss import covariates_of, entries, quantile_loss, scaled_windows
from rnnforecast.model.network import Member, Network, Window, mean_of
from rnnforecast.model.recurrence import State

TOLERANCE = 0.01
"""A history is long enough where the error is at most this share above that of the full one."""
_PER_DOUBLING = 4
"""Lengths that are tried between one and twice as much."""
_CERTAIN = 0.02
"""The effective memory is looked for until it is known to this share of itself."""
_WINDOW_VALUES = 5000
_MOST_WINDOWS = 1024
"""As many windows as have so many values each, readings and states and forecasts, may be measured
for each that must be; but at most so many. A percent is little beside the chance of a hundred."""
_MOST_BORDERS = 64
"""Gradients with respect to at most so many states along the window are asked for."""


@dataclass(frozen=True)
class Cut:
    """How the error grows as history is cut."""

    kept: tuple[int, ...]
    """Lengths that were tried, in steps, increasing; the last is the look-back."""
    losses: tuple[float, ...]
    """The quantile loss with each, in units of each series' scale."""
    effective: int
    """The least length from which on the loss stays within a percent of that of the full one."""


@dataclass(frozen=True)
class Deviations:
    """Readings and forecasts less what season and covariates let expect, in scales of a series."""

    past: Doubles
    """`(window, L)`, NaN where missing."""
    future: Doubles
    """`(window, H)`, the same."""
    median: Doubles
    """`(window, H)`, of the network."""

    def errors_beside(self, lag: int, correlation: float) -> tuple[float, float] | None:
        """Return the error of the network, and of no forecast at all, up to that many steps ahead.

        Both in units of the error of the reading one lag before, shrunk by its correlation; None
        where nothing is known there. No forecast at all is that a reading deviates from nothing.
        """
        leads = np.arange(min(self.future.shape[1], lag))
        repeated = correlation * self.past[:, self.past.shape[1] - lag + leads]
        actual = self.future[:, leads]
        known = np.isfinite(repeated) & np.isfinite(actual)

        naive_error = np.abs(actual - repeated)[known].sum()
        if not naive_error > 0:
            return None
        network_error = np.abs(actual - self.median[:, leads])[known].sum()
        return float(network_error / naive_error), float(np.abs(actual)[known].sum() / naive_error)


@torch.no_grad()
def deviations(network: Network, batch: Batch) -> Deviations:
    """Forecast a batch, and take out of all what is known by heart."""
    history, future, series, next_step, covariates = _inputs(network, batch)
    forecast = mean_of(
        [member(history, series, next_step, covariates) for member in network.members]
    )
    longest = max(network.members, key=lambda member: member.spec.lookback)
    past, ahead = longest.baselines(series, next_step, covariates)
    parts = (
        history[:, -past.shape[1] :] - past,
        future - ahead,
        forecast[:, :, network.spec.median] - ahead,
    )
    return Deviations(*(part.double().cpu().numpy() for part in parts))


@torch.no_grad()
def pattern_of(network: Network, entry: int, first_step: int, n: int) -> Doubles:
    """Return the season's pattern of a series over n rows, `(n,)`, in the units of the panel.

    It is the mean of what the members have learnt; 0 for an unknown series.
    """
    if not entry:
        return np.zeros(n)
    cycles = torch.stack(
        [member.seasonal_pattern.weight[entry] for member in network.members]
    ).mean(0)
    pattern = (cycles * network.scale[entry]).double().cpu().numpy()
    return pattern[(first_step + np.arange(n)) % network.spec.season]


def enough_windows(network: Network, members: Sequence[Member], least: int) -> int:
    """Return how many windows to measure members on: more than the least where they cost little."""
    spec = network.spec
    states = sum(-(-member.spec.lookback // member.spec.segment) for member in members)
    read = sum(member.spec.lookback + spec.horizon * len(spec.quantiles) for member in members)
    n_values = (states * network.config.hidden + read) / len(members)
    return min(max(least, int(least * _WINDOW_VALUES / n_values)), max(least, _MOST_WINDOWS))


def measure_cut(
    network: Network,
    batch: Batch,
    *,
    members: Sequence[Member] | None = None,
    per_doubling: int = _PER_DOUBLING,
) -> Cut:
    """Forecast from the last k readings only, for k from none to all, with these members or all.

    Older readings, and covariates beside them, are marked missing before anything is computed of
    the window: its level and its spread would else tell of them.
    """
    members = list(network.members) if members is None else list(members)
    lookback = max(member.spec.lookback for member in members)

    def loss(length: int) -> float:
        return _loss(network, _cut(batch, length), members)

    return cut_by(loss, lookback, per_doubling=per_doubling)


def cut_by(loss: Callable[[int], float], lookback: int, *, per_doubling: int) -> Cut:
    """Try lengths up to the look-back, and between those that enclose the effective memory."""
    losses = {lengths: loss(lengths) for lengths in _lengths(lookback, per_doubling)}
    limit = (1 + TOLERANCE) * losses[lookback]
    while True:
        lengths = sorted(losses)
        short = max((k for k in lengths if not losses[k] <= limit), default=-1)
        effective = min(k for k in lengths if k > short)
        between = (short + effective) // 2
        if short < 0 or effective - short <= max(1, _CERTAIN * effective):
            break
        losses[between] = loss(between)
    return Cut(tuple(lengths), tuple(losses[k] for k in lengths), effective)


def gradients_by_lag(network: Network, batch: Batch, leads: Sequence[int]) -> Doubles:
    """Return how much the median forecast moves with each reading, `(lead, L)`, by lag.

    The mean over the windows of the absolute gradient, both in the sensor's units; leads count from
    1. Readings that are missing do not count; a lag at which none is there is NaN.
    """
    device = network.center.device
    dtype = network.center.dtype
    history = torch.from_numpy(batch.history).to(device, dtype).requires_grad_()
    next_step = torch.from_numpy(batch.next_step).to(device)
    features = batch.features and [torch.from_numpy(x).to(device, dtype) for x in batch.features]
    medians = network(history, entries(batch, device), next_step, features)
    medians = medians[:, :, network.spec.median]

    seen = np.isfinite(batch.history)
    counts = seen.sum(0)
    gradients = np.empty((len(leads), batch.history.shape[1]))

    for row, lead in enumerate(leads):
        (gradient,) = torch.autograd.grad(medians[:, lead - 1].sum(), history, retain_graph=True)
        sizes = np.where(seen, gradient.abs().double().cpu().numpy(), 0.0).sum(0)
        gradients[row] = np.where(counts > 0, sizes / np.maximum(counts, 1), np.nan)
    return gradients[:, ::-1]


def state_gradients(
    network: Network, member: Member, batch: Batch, lead: int
) -> tuple[list[int], Doubles]:
    """Return how much a member's median moves with its state at earlier steps, and at which.

    The window is run in chunks, and the gradient asked for at their borders: with the fused layers
    of torch, `retain_grad` would show it at the last step only. The first result counts recurrent
    steps from the end of the window, increasing from 0, where the forecast is decoded; the second
    is the mean over the windows of the gradient's norm, over all layers, `(border,)`.
    """
    window, series, covariates = _window_of(network, member, batch)
    with torch.no_grad():
        embedded = member.embed(window, covariates)
    per_chunk = -(-len(embedded) // _MOST_BORDERS)
    first = len(embedded) % per_chunk or per_chunk
    sizes = [first, *[per_chunk] * ((len(embedded) - first) // per_chunk)]

    chunks = torch.split(embedded, sizes)
    borders = run_in_chunks(member, chunks)

    leads = member.decode_leads(borders[-1], series, covariates)
    moved = leads[:, lead - 1, network.spec.median].sum()
    parts = [part for states in borders for state in states for part in state if part is not None]
    gradients = iter(torch.autograd.grad(moved, parts, allow_unused=True))

    norms = []
    for states in borders:
        member_gradients = [
            next(gradients) for state in states for part in state if part is not None
        ]
        present = [part for part in member_gradients if part is not None]
        norms.append(float(torch.cat(present, -1).norm(dim=-1).double().mean()) if present else 0.0)
    back = [per_chunk * i for i in range(len(borders))]
    return back, np.array(norms[::-1])


def run_in_chunks(member: Member, chunks: Sequence[Tensor]) -> list[list[State]]:
    """Run the recurrence chunk by chunk; return the states of all layers after each."""
    borders: list[list[State]] = []
    for chunk in chunks:
        borders.append(member.recurrence(chunk, borders[-1] if borders else None))
    return borders


@torch.no_grad()
def time_constants(network: Network, member: Member, batch: Batch) -> Doubles | None:
    """Return after how many readings each unit has lost all but 1/e of its state, `(layer, D)`.

    By the mean of what its gates let it keep; None for a cell that has none (Tallec and Ollivier
    2018, arXiv 1804.11188).
    """
    window, _, covariates = _window_of(network, member, batch)
    log_retention = member.recurrence.log_retention(member.embed(window, covariates))
    if log_retention is None:
        return None
    rates: Doubles = -torch.stack(log_retention).double().cpu().numpy()
    return member.spec.segment / np.maximum(rates, 1e-9)


def _lengths(lookback: int, per_doubling: int) -> list[int]:
    n = int(np.ceil(per_doubling * np.log2(lookback))) + 1
    return sorted({0, lookback, *np.geomspace(1, lookback, n).round().astype(int).tolist()})


def _cut(batch: Batch, length: int) -> Batch:
    """Mark all but the last `kept` readings, and the covariates beside them, as missing."""
    lookback = batch.history.shape[1]
    n_cut = lookback - length
    if n_cut <= 0:
        return batch
    history = batch.history.copy()
    history[:, :n_cut] = np.nan
    features = batch.features
    if features is not None:
        known, past = features.known.copy(), features.past.copy()
        known[:, :, :n_cut] = past[:, :, :n_cut] = np.nan
        features = Features(known=known, past=past, static=features.static)
    return replace(batch, history=history, features=features)


@torch.no_grad()
def _loss(network: Network, batch: Batch, members: Sequence[Member]) -> float:
    history, future, series, next_step, covariates = _inputs(network, batch)
    forecast = mean_of([member(history, series, next_step, covariates) for member in members])
    return float(quantile_loss(forecast, future, network.spec.quantiles))


def _inputs(
    network: Network, batch: Batch
) -> tuple[Tensor, Tensor, Tensor, Tensor, CovariateBatch | None]:
    """Return history and future, scaled, the entries of the series, the next step, covariates."""
    series = entries(batch, network.center.device)
    history, future, next_step, _ = scaled_windows(network, batch, series, series)
    return history, future, series, next_step, covariates_of(network, batch)


def _window_of(
    network: Network, member: Member, batch: Batch
) -> tuple[Window, Tensor, CovariateBatch | None]:
    """Return a batch as a member sees it, the entries of its series, and its covariates."""
    history, _, series, next_step, covariates = _inputs(network, batch)
    past, _ = member.baselines(series, next_step, covariates)
    return member.normalised(history[:, -member.spec.lookback :] - past), series, covariates
