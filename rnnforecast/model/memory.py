"""Memory of a network: loss by length of history, gradients by lag and state, time constants."""

from __future__ import annotations

import itertools
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
"""A history is long enough where its loss exceeds that of the full one by at most this share."""
_PER_DOUBLING = 4
"""Lengths that are tried between one length and twice as much."""
_PRECISION = 0.02
"""The search for the effective memory ends when it is known to this share of itself."""
_WINDOW_VALUES = 5000
"""Of windows with fewer values (readings, states, quantiles) more are measured: on 128 windows the
loss of a shorter history differs by two percent by chance alone (docs/decisions.md, 69)."""
_MAX_WINDOWS = 1024
_MAX_BORDERS = 64
"""States along the window for which gradients are computed, at most."""


@dataclass(frozen=True)
class MemoryCurve:
    """The loss by length of the history that forecasts are made from."""

    kept: tuple[int, ...]
    """Lengths that were tried, in steps, increasing; the last is the look-back."""
    losses: tuple[float, ...]
    """The quantile loss with each, in units of each series' scale."""
    effective: int
    """The least length from which the loss stays within `TOLERANCE` of that of the full history."""


@dataclass(frozen=True)
class Deviations:
    """Readings and forecasts less the baselines, in units of each series' scale."""

    past: Doubles
    """`(window, L)`, NaN where missing."""
    future: Doubles
    """`(window, H)`, NaN where missing."""
    median: Doubles
    """`(window, H)`, of the network."""

    def errors_relative_to_lag(self, lag: int, correlation: float) -> tuple[float, float] | None:
        """Return the absolute errors of the network and of no forecast, over up to `lag` steps.

        Both are in units of the error of a naive forecast: the deviation one lag before, times its
        autocorrelation. No forecast means a deviation of 0. None where no reading is known, or the
        naive forecast has no error.
        """
        leads = np.arange(min(self.future.shape[1], lag))
        naive = correlation * self.past[:, self.past.shape[1] - lag + leads]
        actual = self.future[:, leads]
        known = np.isfinite(naive) & np.isfinite(actual)

        naive_error = np.abs(actual - naive)[known].sum()
        if not naive_error > 0:
            return None
        network_error = np.abs(actual - self.median[:, leads])[known].sum()
        return float(network_error / naive_error), float(np.abs(actual)[known].sum() / naive_error)


@torch.no_grad()
def deviations_from_baseline(network: Network, batch: Batch) -> Deviations:
    """Return the readings and forecasts of a batch less season and effects of covariates."""
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
def mean_seasonal_pattern(network: Network, entry: int, first_step: int, n: int) -> Doubles:
    """Return the seasonal pattern of a series over n rows, `(n,)`, in the units of the panel.

    It is the mean over the members; 0 for an unknown series, entry 0. `first_step` is the step of
    the first row on the grid that begins in 1970.
    """
    if not entry:
        return np.zeros(n)
    patterns = [member.seasonal_pattern.weight[entry] for member in network.members]
    scaled = torch.stack(patterns).mean(0)
    pattern = (scaled * network.scale[entry]).double().cpu().numpy()
    return pattern[(first_step + np.arange(n)) % network.spec.season]


def n_windows_to_measure(network: Network, members: Sequence[Member], least: int) -> int:
    """Return how many windows to measure members on: `least`, or more where they cost little."""
    spec = network.spec
    n_steps = sum(-(-member.spec.lookback // member.spec.segment) for member in members)
    n_inputs = sum(member.spec.lookback + spec.horizon * len(spec.quantiles) for member in members)
    n_values = (n_steps * network.config.hidden + n_inputs) / len(members)
    return min(max(least, int(least * _WINDOW_VALUES / n_values)), max(least, _MAX_WINDOWS))


def measure_memory(
    network: Network,
    batch: Batch,
    *,
    members: Sequence[Member] | None = None,
    per_doubling: int = _PER_DOUBLING,
) -> MemoryCurve:
    """Return the loss of forecasts from the newest readings only, by their number.

    `members` forecast together; by default all of the network. Older readings and covariates are
    marked missing before anything is computed from a window: its level and spread would otherwise
    reveal them.
    """
    members = list(network.members) if members is None else list(members)
    lookback = max(member.spec.lookback for member in members)

    @torch.no_grad()
    def loss(length: int) -> float:
        newest = _mask_before(batch, length)
        history, future, series, next_step, covariates = _inputs(network, newest)
        forecast = mean_of([member(history, series, next_step, covariates) for member in members])
        return float(quantile_loss(forecast, future, network.spec.quantiles))

    return find_effective_memory(loss, lookback, per_doubling=per_doubling)


def find_effective_memory(
    loss: Callable[[int], float], lookback: int, *, per_doubling: int
) -> MemoryCurve:
    """Measure the loss by length of history, and bisect for the effective memory.

    `per_doubling` lengths are tried between one length and twice as much, then more between the
    longest that is too short and the next.
    """
    n = int(np.ceil(per_doubling * np.log2(lookback))) + 1
    lengths = sorted({0, lookback, *np.geomspace(1, lookback, n).round().astype(int).tolist()})
    losses = {length: loss(length) for length in lengths}
    limit = (1 + TOLERANCE) * losses[lookback]

    while True:
        lengths = sorted(losses)
        # `not <=` also counts a loss that is NaN as too large
        too_short = max((k for k in lengths if not losses[k] <= limit), default=-1)
        effective = min(k for k in lengths if k > too_short)
        middle = (too_short + effective) // 2
        if too_short < 0 or effective - too_short <= max(1, _PRECISION * effective):
            break
        losses[middle] = loss(middle)
    return MemoryCurve(tuple(lengths), tuple(losses[k] for k in lengths), effective)


def gradients_by_lag(network: Network, batch: Batch, leads: Sequence[int]) -> Doubles:
    """Return the gradient of the median forecast with respect to each reading, `(lead, L)`, by lag.

    It is the mean over the windows of the absolute gradient, both in the sensor's units; leads
    count from 1. Missing readings do not count; a lag at which all are missing is NaN.
    """
    device = network.center.device
    dtype = network.center.dtype
    history = torch.from_numpy(batch.history).to(device, dtype).requires_grad_()
    next_step = torch.from_numpy(batch.next_step).to(device)
    features = batch.features and [torch.from_numpy(x).to(device, dtype) for x in batch.features]
    quantiles = network(history, entries(batch, device), next_step, features)
    medians = quantiles[:, :, network.spec.median]

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
    """Return the gradient of a member's median at one lead with respect to earlier states.

    The first result, `(border,)`, counts recurrent steps back from the end of the window,
    increasing from 0, where the forecast is decoded; the second, `(border,)`, is the norm of the
    gradient with respect to the states of all layers, averaged over the windows.

    The window is run in chunks, and gradients are taken at their borders: with the fused layers of
    torch, `retain_grad` would show them at the last step only.
    """
    window, series, covariates = _window_of(network, member, batch)
    with torch.no_grad():
        embedded = member.embed(window, covariates)
    per_chunk = -(-len(embedded) // _MAX_BORDERS)
    first = len(embedded) % per_chunk or per_chunk
    sizes = [first, *[per_chunk] * ((len(embedded) - first) // per_chunk)]
    borders = run_in_chunks(member, torch.split(embedded, sizes))

    leads = member.decode_leads(borders[-1], series, covariates)
    median = leads[:, lead - 1, network.spec.median].sum()
    tensors = [
        [part for state in states for part in state if part is not None] for states in borders
    ]
    flat = [tensor for at_border in tensors for tensor in at_border]
    gradients = iter(torch.autograd.grad(median, flat, allow_unused=True))

    norms = []
    for at_border in tensors:
        present = [x for x in itertools.islice(gradients, len(at_border)) if x is not None]
        norms.append(float(torch.cat(present, -1).norm(dim=-1).double().mean()) if present else 0.0)
    steps_back = [per_chunk * i for i in range(len(borders))]
    return steps_back, np.array(norms[::-1])


def run_in_chunks(member: Member, chunks: Sequence[Tensor]) -> list[list[State]]:
    """Run the recurrence chunk by chunk; return the states of all layers after each chunk."""
    borders: list[list[State]] = []
    for chunk in chunks:
        borders.append(member.recurrence(chunk, borders[-1] if borders else None))
    return borders


@torch.no_grad()
def time_constants(network: Network, member: Member, batch: Batch) -> Doubles | None:
    """Return the number of readings after which a unit retains 1/e of its state, `(layer, D)`.

    It follows from the mean logarithm of the retention gate (Tallec and Ollivier 2018, arXiv
    1804.11188); None for a cell without such a gate.
    """
    window, _, covariates = _window_of(network, member, batch)
    log_retention = member.recurrence.log_retention(member.embed(window, covariates))
    if log_retention is None:
        return None
    rates: Doubles = -torch.stack(log_retention).double().cpu().numpy()
    return member.spec.segment / np.maximum(rates, 1e-9)


def _mask_before(batch: Batch, length: int) -> Batch:
    """Mark all but the newest `length` readings, and their covariates, as missing."""
    n_masked = batch.history.shape[1] - length
    if n_masked <= 0:
        return batch
    history = batch.history.copy()
    history[:, :n_masked] = np.nan
    features = batch.features
    if features is not None:
        known, past = features.known.copy(), features.past.copy()
        known[:, :, :n_masked] = past[:, :, :n_masked] = np.nan
        features = Features(known=known, past=past, static=features.static)
    return replace(batch, history=history, features=features)


def _inputs(
    network: Network, batch: Batch
) -> tuple[Tensor, Tensor, Tensor, Tensor, CovariateBatch | None]:
    """Return scaled history and future, entries of the series, next step, covariates."""
    series = entries(batch, network.center.device)
    history, future, next_step, _ = scaled_windows(network, batch, series, series)
    return history, future, series, next_step, covariates_of(network, batch)


def _window_of(
    network: Network, member: Member, batch: Batch
) -> tuple[Window, Tensor, CovariateBatch | None]:
    """Return the normalised windows of a member, the entries of their series, covariates."""
    history, _, series, next_step, covariates = _inputs(network, batch)
    past, _ = member.baselines(series, next_step, covariates)
    return member.normalised(history[:, -member.spec.lookback :] - past), series, covariates
