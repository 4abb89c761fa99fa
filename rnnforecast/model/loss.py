"""The pinball loss, mixtures of windows, and the loss on validation windows."""

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
from rnnforecast.parallel import Ranks, share_of

_BATCH_VALUES = 1 << 21
_BATCH_WINDOWS = 1024
_BATCH_STATES = 1 << 23
"""At most so many values, windows, and figures of states, at once: gates take a few times that."""
MIRRORED_SHARE = 0.25
_MIXING_POWER = 1 / 0.3
"""The smaller share of a mixture is half of u to this power, near the smaller of Beta(0.3, 0.3)."""


def quantile_loss(forecast: Tensor, actual: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Mean pinball loss of (N, H, Q) over the readings that are there, (N, H); 0 if none is.

    Twice the pinball loss at the median is the absolute error.
    """
    seen = torch.isfinite(actual)
    error = torch.where(seen, actual, 0.0)[..., None] - forecast
    levels = torch.tensor(quantiles, dtype=error.dtype, device=error.device)
    pinball = torch.maximum(levels * error, (levels - 1.0) * error).mean(-1)
    return torch.where(seen, pinball, 0.0).sum() / seen.sum().clamp(min=1)


def pinball(forecast: Tensor, actual: Tensor, levels: Tensor) -> Tensor:
    """Mean over the quantiles, (N, H), of (N, H, Q) against (N, H), in a quarter of the passes.

    Nothing may be missing. The pinball loss is (q - 1/2) error + |error| / 2.
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


@dataclass(frozen=True)
class ValidationWindows:
    """Windows spread evenly over the validation part."""

    _windows: TrainingWindows

    @property
    def n_apart(self) -> int:
        """How many windows there are whose targets do not overlap."""
        return int((-(-self._windows.counts // self._windows.horizon)).sum())

    def gather(self, most: int) -> Batch:
        """Return at most so many of the windows, evenly spread."""
        return self._windows.gather(self._windows.spread(most))

    @torch.no_grad()
    def losses(
        self, network: Network, groups: Sequence[Sequence[Member]], *, most: int
    ) -> list[float]:
        """Return the quantile loss of each group's mean forecast, in units of the series' scale.

        It is computed over at most so many windows, evenly spread; of ranks each forecasts its
        share of them.
        """
        members = list({id(m): m for group in groups for m in group}.values())
        chosen = self._windows.spread(most)
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
            beside = covariates_of(network, batch)
            forecasts = {id(m): m(history, series, next_step, beside) for m in members}
            count = int(np.isfinite(batch.future).sum())
            n_seen += count
            for number, group in enumerate(groups):
                forecast = mean_of([forecasts[id(m)] for m in group])
                loss = quantile_loss(forecast, future, spec.quantiles)
                sums[number] += float(loss) * count

        *totals, n_all = self._windows.ranks.total(np.array([*sums, n_seen])).tolist()
        return [total / max(n_all, 1) for total in totals]


def share_of_batch(batch: Batch, ranks: Ranks) -> Batch:
    """Return the windows of a batch that are this rank's work."""
    if ranks.n == 1:
        return batch
    rows = share_of(ranks, len(batch.series))
    return Batch(
        batch.history[rows],
        batch.future[rows],
        batch.series[rows],
        batch.next_step[rows],
        batch.features and Features(*(x[rows] for x in batch.features)),
    )


def entries(batch: Batch, device: torch.device) -> Tensor:
    """Return the entry of each window's series, (N,): 0 stands for unknown ones."""
    return torch.from_numpy(batch.series).to(device) + 1


def covariates_of(network: Network, batch: Batch) -> CovariateBatch | None:
    """Return the covariates of a batch, standardised."""
    if batch.features is None:
        return None
    device = network.center.device
    return network.standardise_covariates([torch.from_numpy(x).to(device) for x in batch.features])


def scaled_windows(
    network: Network, batch: Batch, series: Tensor, entry: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return history, (N, L), and future, (N, H), in the units of the series as it is shown.

    Also the step of lead 1, (N,), and how many units of the series itself one of these is, (N, 1).
    Spikes are missing.
    """
    device = network.center.device
    history, future, next_step = (
        torch.from_numpy(x).to(device) for x in (batch.history, batch.future, batch.next_step)
    )

    history, future = (network.mask_spikes(part, series) for part in (history, future))
    _, scale = network.scaling(history, series)
    center, shown_scale = network.scaling(history, entry)
    history, future = ((part - center) / shown_scale for part in (history, future))
    return history, future, next_step, shown_scale / scale


class Mixture(NamedTuple):
    """Which windows are turned upside down, and which is mixed with which."""

    sign: Tensor  # (N, 1)
    share: Tensor  # (N, 1)
    other: Tensor  # (N,)

    def of(self, values: Tensor) -> Tensor:
        """Mix deviations, (N, ...), NaN where missing: there the window's own stays."""
        shape = (-1, *[1] * (values.dim() - 1))
        values = values * self.sign.view(shape)
        mixed = torch.lerp(values, values[self.other], self.share.view(shape))
        return torch.where(torch.isnan(mixed), values, mixed)


def draw_mixture(n: int, generator: torch.Generator) -> Mixture:
    """Draw how windows are turned upside down, and mixed each with another one."""
    device = generator.device
    mirrored = torch.rand(n, 1, generator=generator, device=device) < MIRRORED_SHARE
    sign = torch.where(mirrored, -1.0, 1.0)
    share = 0.5 * torch.rand(n, 1, generator=generator, device=device) ** _MIXING_POWER
    partner = torch.randperm(n, generator=generator, device=device)
    return Mixture(sign, share, partner)
