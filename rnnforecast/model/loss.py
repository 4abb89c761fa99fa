"""The pinball loss, the loss on validation windows, and the augmentation of training windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnnforecast.data.panel import Features
from rnnforecast.data.windows import Batch, TrainingWindows
from rnnforecast.model.covariates import CovariateBatch
from rnnforecast.model.network import Member, Network, mean_of
from rnnforecast.parallel import Ranks, rank_share

# Validation windows are forecast in batches that bound the memory of inputs and activations.
_BATCH_VALUES = 1 << 21
"""Inputs and outputs in one batch."""
_BATCH_WINDOWS = 1024
_BATCH_STATES = 1 << 23
"""Values of hidden states in one batch, over all steps; the gates take several times as much."""

# These had the lowest validation loss of the variants tried on ETTh1 and ETTm1 (benchmarks/LOG.md).
MIRRORED_SHARE = 0.25
_MIXING_POWER = 1 / 0.3
"""The smaller share of a mixture is u ** power / 2 for a uniform u, which is close to the smaller
of x and 1 - x for x from Beta(0.3, 0.3)."""


def quantile_loss(forecast: Tensor, actual: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Return the mean pinball loss of a forecast (N, H, Q) of the readings (N, H).

    Missing readings, NaN, do not count; the loss is 0 where all are missing. Twice the pinball loss
    at the median is the absolute error.
    """
    seen = torch.isfinite(actual)
    error = torch.where(seen, actual, 0.0)[..., None] - forecast
    levels = torch.tensor(quantiles, dtype=error.dtype, device=error.device)
    pinball = torch.maximum(levels * error, (levels - 1.0) * error).mean(-1)
    return torch.where(seen, pinball, 0.0).sum() / seen.sum().clamp(min=1)


def pinball(forecast: Tensor, actual: Tensor, levels: Tensor) -> Tensor:
    """Return the pinball loss of a forecast (N, H, Q), averaged over the quantiles: (N, H).

    `actual` is (N, H) and must not be NaN; `levels` is (Q,). The loss is (q - 1/2) error +
    |error| / 2, with its own gradient: a quarter of the passes over (N, H, Q) of autograd.
    """
    loss: Tensor = _Pinball.apply(forecast, actual, levels)  # type: ignore[no-untyped-call]
    return loss


class _Pinball(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forecast: Tensor, actual: Tensor, levels: Tensor) -> Tensor:
        error = actual[..., None] - forecast
        centred = levels - 0.5
        ctx.save_for_backward(error, centred)
        return (error @ centred + 0.5 * error.abs().sum(-1)) / len(levels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        error, centred = ctx.saved_tensors
        slope = torch.sign(error).mul_(0.5).add_(centred).mul_(grad[..., None] / len(centred))
        return -slope, slope.sum(-1), None


def entries(batch: Batch, device: torch.device) -> Tensor:
    """Return the entry of each window's series in the network, (N,); 0 for an unknown series."""
    return torch.from_numpy(batch.series).to(device) + 1


def covariates_of(network: Network, batch: Batch) -> CovariateBatch | None:
    """Return the standardised covariates of a batch; None without covariates."""
    if batch.features is None:
        return None
    device = network.center.device
    return network.standardise_covariates([torch.from_numpy(x).to(device) for x in batch.features])


def scaled_windows(
    network: Network, batch: Batch, series: Tensor, entry: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return history (N, L) and future (N, H), scaled as the series `entry` (N,) is scaled.

    `series` (N,) are the windows' real entries, by which spikes are masked; an `entry` of 0 shows a
    window as one of an unknown series. Also returns the step of lead 1, (N,), and the ratio of both
    scales, (N, 1): a scaled error times the ratio is in units of the real series' scale.
    """
    device = network.center.device
    history, future, next_step = (
        torch.from_numpy(x).to(device) for x in (batch.history, batch.future, batch.next_step)
    )

    history, future = (network.mask_spikes(values, series) for values in (history, future))
    _, series_scale = network.scaling(history, series)
    center, scale = network.scaling(history, entry)
    history, future = ((values - center) / scale for values in (history, future))
    return history, future, next_step, scale / series_scale


@dataclass(frozen=True)
class ValidationWindows:
    """The windows of the validation part, of which samples are spread evenly."""

    _windows: TrainingWindows

    @property
    def n_disjoint(self) -> int:
        """Number of windows whose targets do not overlap."""
        return int((-(-self._windows.counts // self._windows.horizon)).sum())

    def gather(self, max_windows: int) -> Batch:
        """Return up to `max_windows` windows, evenly spread."""
        return self._windows.gather(self._windows.spread(max_windows))

    @torch.no_grad()
    def losses(
        self, network: Network, groups: Sequence[Sequence[Member]], *, max_windows: int
    ) -> list[float]:
        """Return the quantile loss of each group's mean forecast, in units of the series' scale.

        It is computed over up to `max_windows` windows, evenly spread; each rank forecasts its
        share of them.
        """
        members = list({id(m): m for group in groups for m in group}.values())
        chosen = self._windows.spread(max_windows)
        spec = network.spec
        width = spec.lookback + spec.horizon * len(spec.quantiles)
        n_steps = max(-(-member.spec.lookback // member.spec.segment) for member in members)

        n_parts = max(
            1,
            len(chosen) * width // _BATCH_VALUES,
            len(chosen) // _BATCH_WINDOWS,
            len(chosen) * n_steps * network.config.hidden // _BATCH_STATES,
        )

        sums, n_seen = np.zeros(len(groups)), 0
        for part in np.array_split(chosen, n_parts):
            batch = share_of_batch(self._windows.gather(part), self._windows.ranks)
            if not len(batch.series):
                continue
            series = entries(batch, network.center.device)
            history, future, next_step, _ = scaled_windows(network, batch, series, series)
            covariates = covariates_of(network, batch)
            forecasts = {id(m): m(history, series, next_step, covariates) for m in members}

            count = int(np.isfinite(batch.future).sum())
            n_seen += count
            for i, group in enumerate(groups):
                forecast = mean_of([forecasts[id(m)] for m in group])
                loss = quantile_loss(forecast, future, spec.quantiles)
                sums[i] += float(loss) * count

        *totals, n_all = self._windows.ranks.all_reduce(np.array([*sums, n_seen])).tolist()
        return [total / max(n_all, 1) for total in totals]


def share_of_batch(batch: Batch, ranks: Ranks) -> Batch:
    """Return the windows of a batch that this rank forecasts."""
    if ranks.n == 1:
        return batch
    rows = rank_share(ranks, len(batch.series))
    return Batch(
        batch.history[rows],
        batch.future[rows],
        batch.series[rows],
        batch.next_step[rows],
        batch.features and Features(*(x[rows] for x in batch.features)),
    )


class Mixture(NamedTuple):
    """Signs and mixing partners of the windows of one batch."""

    sign: Tensor  # (N, 1), -1.0 for a mirrored window
    share: Tensor  # (N, 1), of the partner
    partner: Tensor  # (N,)

    def apply(self, values: Tensor) -> Tensor:
        """Mirror and mix deviations, (N, ...); where either window is missing nothing is mixed."""
        shape = (-1, *[1] * (values.dim() - 1))
        values = values * self.sign.view(shape)
        mixed = torch.lerp(values, values[self.partner], self.share.view(shape))
        return torch.where(torch.isnan(mixed), values, mixed)


def draw_mixture(n: int, generator: torch.Generator) -> Mixture:
    """Draw which of n windows are mirrored, and with which partner each is mixed."""
    device = generator.device
    mirrored = torch.rand(n, 1, generator=generator, device=device) < MIRRORED_SHARE
    sign = torch.where(mirrored, -1.0, 1.0)
    share = 0.5 * torch.rand(n, 1, generator=generator, device=device) ** _MIXING_POWER
    partner = torch.randperm(n, generator=generator, device=device)
    return Mixture(sign, share, partner)
