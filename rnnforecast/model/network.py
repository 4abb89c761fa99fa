"""The network: a committee of recurrent members, and what they share: scaling, and what to believe.

Shapes: N windows, L lookback, H horizon, Q quantiles. Everything that prediction needs happens
inside: scaling, the season's pattern, the normalisation of each window, missing readings, and the
order of the quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rnnforecast.config import NetworkConfig
from rnnforecast.data.scaling import SPIKE_RUN
from rnnforecast.model.beside import MOST, Beside
from rnnforecast.model.member import Member
from rnnforecast.model.normalising import carry_forward, moments
from rnnforecast.task import ForecastTask

_NO_LIMIT = 1e30
_SPIKE_SHARE = 0.05
_OWN_REACH = 14.0
"""Interquartile ranges, as many as 18 scales of a normal distribution."""


class Network(nn.Module):
    """Forecasts quantiles of H readings from L. Series 0 stands for every unknown series."""

    center: Tensor  # (series + 1,)
    scale: Tensor  # (series + 1,)
    reach: Tensor  # (series + 1,), in units of scale
    feature_mean: Tensor  # (K + P + C,)
    feature_scale: Tensor  # (K + P + C,)
    members: Sequence[Member]

    def __init__(self, task: ForecastTask, config: NetworkConfig) -> None:
        super().__init__()
        self.task = task
        self.config = config
        n_entries = task.n_series + 1
        self.register_buffer("center", torch.zeros(n_entries))
        self.register_buffer("scale", torch.ones(n_entries))
        self.register_buffer("reach", torch.full((n_entries,), _NO_LIMIT))
        if task.n_features:
            self.register_buffer("feature_mean", torch.zeros(task.n_features))
            self.register_buffer("feature_scale", torch.ones(task.n_features))
        self._seat(Member(task, own, config) for own in task.members)

    def forward(
        self,
        history: Tensor,
        series: Tensor,
        next_step: Tensor,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Forecast in the units of the panel, (N, H, Q): the sensors' own, less a base.

        history (N, L), NaN where missing; series (N,), 0 for unknown; next_step (N,), where lead 1
        lies on the grid that begins in 1970; features known ahead (N, K, L + H), known up to now
        (N, P, L) and static (N, C), NaN where unknown. Each quantile is the mean of the members'.
        """
        history = self.believable(history, series)
        center, scale = self.scaling(history, series)
        scaled = (history - center) / scale
        beside = self.beside(features)
        forecasts = [member(scaled, series, next_step, beside) for member in self.members]
        return mean_of(forecasts) * scale[..., None] + center[..., None]

    def keep(self, chosen: Sequence[int]) -> None:
        """Go on with these members alone; the look-back becomes as long as they need.

        Covariates that none of them sees are no part of the task any more.
        """
        members = tuple(self.task.members[i] for i in chosen)
        lookback = max(own.lookback for own in members)
        self.task = replace(self.task, members=members, lookback=lookback)
        if self.task.n_features and not any(own.covariates for own in members):
            self.task = replace(self.task, n_known=0, n_past=0, n_static=0)
            del self.feature_mean, self.feature_scale
        self._seat([self.members[i] for i in chosen])

    def _seat(self, members: Iterable[Member]) -> None:
        self.members = nn.ModuleList(members)  # type: ignore[assignment]

    def beside(self, features: Sequence[Tensor] | None) -> Beside | None:
        """Standardise covariates; what is unknown is as before, or else their mean."""
        if features is None or not self.task.n_features:
            return None
        sizes = [self.task.n_known, self.task.n_past, self.task.n_static]
        means = torch.split(self.feature_mean, sizes)
        scales = torch.split(self.feature_scale, sizes)
        known, past, static = (
            ((one.transpose(1, -1) - mean) / scale).clamp(-MOST, MOST).transpose(1, -1)
            for one, mean, scale in zip(features, means, scales, strict=True)
        )
        return Beside(_filled(known), _filled(past), static.nan_to_num(0.0))

    def believable(self, history: Tensor, series: Tensor) -> Tensor:
        """Take a few single readings beyond the reach of their series for missing: spikes.

        More than a few of them in one window, or several in a row, are a new level, and stay. An
        unknown series is judged by the middle of its window.
        """
        center, reach = self.center[series, None], (self.reach * self.scale)[series, None]
        unknown = series == 0
        if bool(unknown.any()):
            quarters = torch.tensor((0.25, 0.5, 0.75), device=history.device)
            low, middle, high = history[unknown].nanquantile(quarters, dim=1)[..., None]
            center, reach = center.clone(), reach.clone()
            center[unknown] = middle
            reach[unknown] = torch.where(high > low, _OWN_REACH * (high - low), torch.nan)
        beyond = (history - center).abs() > reach  # False where either is NaN
        if not bool(beyond.any()):
            return history
        few = beyond.sum(1, keepdim=True) <= _SPIKE_SHARE * history.shape[1]
        return torch.where(beyond & few & ~_in_runs(beyond), torch.nan, history)

    def scaling(self, history: Tensor, series: Tensor) -> tuple[Tensor, Tensor]:
        """Level and scale of each window's series, (N, 1) each; its own where it is unknown.

        Unknown are series 0, and one that had no reading yet when the scaling was fitted.
        """
        center, scale = self.center[series, None], self.scale[series, None]
        unknown = (series == 0)[:, None] | torch.isnan(scale)
        if not bool(unknown.any()):
            return center, scale
        mean, variance = moments(history, torch.isfinite(history))
        deviation = variance.sqrt()
        own_scale = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
        return torch.where(unknown, mean, center), torch.where(unknown, own_scale, scale)


def mean_of(forecasts: Sequence[Tensor]) -> Tensor:
    """Average forecasts, each (N, H, Q), quantile by quantile."""
    return forecasts[0] if len(forecasts) == 1 else torch.stack(list(forecasts)).mean(0)


def _filled(values: Tensor) -> Tensor:
    """Carry the last value forward, (N, F, T); 0 where there is none before."""
    seen = torch.isfinite(values)
    if bool(seen.all()):
        return values
    flat = carry_forward(values.nan_to_num(0.0).flatten(0, 1), seen.flatten(0, 1))
    return flat.view(values.shape)


def _in_runs(marked: Tensor) -> Tensor:
    """Tell which marks, (N, L), stand in a run that is too long for a spike."""
    wide = F.pad(marked, (SPIKE_RUN - 1, SPIKE_RUN - 1))
    runs = wide.unfold(1, SPIKE_RUN, 1).all(-1)  # a run begins here
    return runs.unfold(1, SPIKE_RUN, 1).any(-1)
