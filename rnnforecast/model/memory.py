"""Memory of a network: loss by length of history, gradients by lag and state, time constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.panel import Features
from rnnforecast.data.windows import Batch
from rnnforecast.model.loss import history_of, quantile_losses, take_rows
from rnnforecast.model.member import Member, State, to_tensors
from rnnforecast.model.network import Network
from rnnforecast.spec import CONTEXT_ROWS

TOLERANCE = 0.01
"""A history is long enough where its loss exceeds that of the full one by at most this share."""
_PER_DOUBLING = 2
"""Lengths that are tried between one length and twice as much."""
_PRECISION = 0.02
"""The search for the effective memory ends when it is known to this share of itself."""
_MAX_BORDERS = 64
"""States along the window for which gradients are computed, at most."""
_MAX_LAGS = 64
"""Lags at which readings are changed to see what that does to a forecast, at most."""
_LAGS_AT_ONCE = 16
"""Lags of which the changed windows are forecast together."""
_NUDGE = 0.05
"""By how much a reading is changed, in units of its series' scale."""


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
    """Readings and forecasts less the level of each series, in units of its scale."""

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


def deviations_of(network: Network, batch: Batch) -> Deviations:
    """Return the readings and forecasts of a batch less the level of their series."""
    center, scale = _scaling(network, batch)
    median = network.forecast(history_of(network, batch))[:, :, network.spec.median]
    parts = batch.history, batch.future, median
    return Deviations(*((part.astype(np.float64) - center) / scale for part in parts))


def measure_memory(
    network: Network, batch: Batch, *, per_doubling: int = _PER_DOUBLING
) -> MemoryCurve:
    """Return the loss of forecasts from the newest readings only, by their number.

    Older readings and covariates are marked missing before anything is computed from a window.
    Without any the forecast is the level of the series.
    """
    lookback = batch.history.shape[1]
    center, scale = _scaling(network, batch)
    future = batch.future.astype(np.float64)
    n_known = max(int(np.isfinite(future).sum()), 1)

    def loss(length: int) -> float:
        forecast = np.broadcast_to(center[..., None], (*future.shape, len(network.spec.quantiles)))
        if length:
            forecast = network.forecast(history_of(network, _only_newest(batch, length)))
        losses = quantile_losses(forecast, future, network.spec.quantiles)
        return float((losses / scale[:, 0]).sum() / n_known)

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

    It is the mean over the windows of the absolute change of the median, where the reading changes
    by a twentieth of its series' scale, over that change; leads count from 1. NaN at lags that are
    not looked at, of which there are more the longer they are, or at which nothing was read.
    """
    lookback = batch.history.shape[1]
    _, scale = _scaling(network, batch)
    n_near = min(_MAX_LAGS // 2, lookback)
    far_lags = np.geomspace(n_near, lookback, n_near).round().astype(int)
    lags = np.union1d(np.arange(1, n_near + 1), far_lags)
    at = [lead - 1 for lead in leads]

    def medians(history: Floats, rows: Integers) -> Doubles:
        """Forecast windows, `(row,)` of the batch, from other readings."""
        windows = replace(take_rows(batch, rows), history=history)
        values: Doubles = network.forecast(history_of(network, windows))[:, at, spec.median]
        return values

    spec, n = network.spec, len(batch.history)
    before = medians(batch.history, np.arange(n))
    gradients = np.full((len(leads), lookback), np.nan)
    for first in range(0, len(lags), _LAGS_AT_ONCE):
        part = lags[first : first + _LAGS_AT_ONCE]
        rows, number = np.tile(np.arange(n), len(part)), np.repeat(np.arange(len(part)), n)
        place = np.arange(len(rows)), -part[number]
        history = batch.history[rows].astype(np.float64)
        history[place] += _NUDGE * scale[rows, 0]
        changed = history.astype(np.float32)
        nudge = changed[place].astype(np.float64) - batch.history[rows, -part[number]]
        change = np.abs(medians(changed, rows) - before[rows]) / np.abs(nudge[:, None])
        of_lag = change.reshape(len(part), n, len(leads))
        is_seen = np.isfinite(nudge).reshape(len(part), n, 1)
        n_seen = is_seen.sum(1)
        total = np.where(is_seen, of_lag, 0.0).sum(1)
        means = np.where(n_seen > 0, total / np.maximum(n_seen, 1), np.nan)
        gradients[:, part - 1] = means.T
    return gradients


def state_gradients(
    network: Network, member: Member, batch: Batch, lead: int
) -> tuple[list[int], Doubles]:
    """Return the gradient of a member's median at one lead with respect to earlier states.

    The first result, `(border,)`, counts recurrent steps back from the cutoff, increasing from 0;
    the second, `(border,)`, is the norm of the gradient with respect to the states of all blocks,
    averaged over the windows. The window is run in chunks, and gradients are taken at their
    borders.
    """
    prepared = network.prepare(history_of(network, batch), member.spec.segment)
    inputs, n_history = to_tensors(prepared, member.device), prepared.places.n_history
    per_chunk = -(-n_history // _MAX_BORDERS)
    first = n_history % per_chunk or per_chunk
    sizes = [first, *[per_chunk] * ((n_history - first) // per_chunk)]
    history = torch.split(member.embedded(inputs.history).detach(), sizes)

    borders: list[list[State]] = []
    for chunk in history:
        _, states = member.run(chunk, borders[-1] if borders else None)
        # copies, as a state is also an input of others at its own border
        borders.append([State(*(x[-1].clone() for x in s if x is not None)) for s in states])
    encoded, _ = member.run(member.embedded(inputs.ahead), borders[-1])
    quantiles = member.decode(encoded.transpose(0, 1), inputs.ahead)
    number, row = divmod(lead - 1, member.spec.segment)
    median = quantiles[:, number, network.spec.median, row].sum()

    flat = [x for states in borders for state in states for x in state if x is not None]
    gradients = torch.autograd.grad(median, flat, allow_unused=True)
    n = len(flat) // len(borders)
    norms = []
    for place in range(len(borders)):
        present = [x for x in gradients[place * n : (place + 1) * n] if x is not None]
        norms.append(float(torch.cat(present, -1).norm(dim=-1).double().mean()) if present else 0.0)
    steps_back = [per_chunk * i for i in range(len(borders))]
    return steps_back, np.array(norms[::-1])


@torch.no_grad()
def time_constants(network: Network, member: Member, batch: Batch) -> Doubles | None:
    """Return the number of readings after which a unit retains 1/e of its state, `(layer, D)`.

    It follows from the mean logarithm of the retention gate (Tallec and Ollivier 2018, arXiv
    1804.11188); None for a cell without such a gate.
    """
    prepared = network.prepare(history_of(network, batch), member.spec.segment)
    x = member.embedded(to_tensors(prepared, member.device).history)
    logs = []
    for block in member.blocks:
        retention = block.recurrence.log_retention(block.norm(x))
        if retention is None:
            return None
        logs.append(retention)
        x, _ = block(x)
    rates: Doubles = -torch.stack(logs).double().cpu().numpy()
    return member.spec.segment / np.maximum(rates, 1e-9)


def _scaling(network: Network, batch: Batch) -> tuple[Doubles, Doubles]:
    """Return level and scale of each window's series, (N, 1) each; its own where it is unknown."""
    entry = batch.series + 1
    center, scale = (x[entry].astype(np.float64) for x in (network.center, network.scale))
    unknown = np.flatnonzero((entry == 0) | ~np.isfinite(scale))
    for row in unknown.tolist():
        readings = batch.history[row][np.isfinite(batch.history[row])].astype(np.float64)
        center[row] = np.median(readings) if len(readings) else 0.0
        scale[row] = (readings.std() if len(readings) else 0.0) or 1.0
    return center[:, None], scale[:, None]


def _only_newest(batch: Batch, length: int) -> Batch:
    """Mark all but the newest `length` readings, and their covariates, as missing.

    Rows that neither these nor the recurrence reach are left out.
    """
    lookback = batch.history.shape[1]
    n_rows = min(lookback, max(length, CONTEXT_ROWS))
    history = batch.history[:, lookback - n_rows :].copy()
    n_masked = n_rows - length
    history[:, :n_masked] = np.nan
    features = batch.features
    if features is not None:
        known = features.known[:, :, lookback - n_rows :].copy()
        past = features.past[:, :, lookback - n_rows :].copy()
        known[:, :, :n_masked] = past[:, :, :n_masked] = np.nan
        features = Features(known=known, past=past, static=features.static)
    return replace(batch, history=history, features=features)
