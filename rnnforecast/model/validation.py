"""The loss on windows held back: what stops training, and what chooses among members.

Apart from `training`, which looks at one member: here forecasts of several are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnforecast.data.covariates import Features
from rnnforecast.data.ranks import Ranks, share_of
from rnnforecast.data.windows import Batch, TrainingWindows
from rnnforecast.model.beside import Beside
from rnnforecast.model.loss import quantile_loss
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network, mean_of

_BATCH_VALUES = 1 << 21
_BATCH_WINDOWS = 1024
_BATCH_STATES = 1 << 23
"""At most so many values, windows, and figures of states, at once: gates take a few times that."""


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
        everyone = list({id(m): m for group in groups for m in group}.values())
        chosen = self._windows.spread(most)
        task = network.task
        width = task.lookback + task.horizon * len(task.quantiles)
        n_steps = max(-(-member.own.lookback // member.own.segment) for member in everyone)
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
            beside = features_beside(network, batch)
            made = {id(m): m(history, series, next_step, beside) for m in everyone}
            count = int(np.isfinite(batch.future).sum())
            n_seen += count
            for number, group in enumerate(groups):
                forecast = mean_of([made[id(m)] for m in group])
                loss = quantile_loss(forecast, future, task.quantiles)
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


def features_beside(network: Network, batch: Batch) -> Beside | None:
    """Return the covariates of a batch, standardised."""
    if batch.features is None:
        return None
    device = network.center.device
    return network.beside([torch.from_numpy(x).to(device) for x in batch.features])


def scaled_windows(
    network: Network, batch: Batch, series: Tensor, shown: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return history, (N, L), and future, (N, H), in the units of the series as it is shown.

    Also the step of lead 1, (N,), and how many units of the series itself one of these is, (N, 1).
    Spikes are missing.
    """
    device = network.center.device
    history, future, next_step = (
        torch.from_numpy(x).to(device) for x in (batch.history, batch.future, batch.next_step)
    )
    history, future = (network.believable(part, series) for part in (history, future))
    _, scale = network.scaling(history, series)
    center, shown_scale = network.scaling(history, shown)
    history, future = ((part - center) / shown_scale for part in (history, future))
    return history, future, next_step, shown_scale / scale
