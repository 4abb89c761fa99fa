"""The encoder of one member for covariates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.config.training import NetworkConfig
from rnnforecast.spec import MemberSpec, NetworkSpec, Shape, covariate_shapes

MOST = 10.0
"""Features are clipped to this many standard deviations around their mean."""
_Module = TypeVar("_Module", nn.Linear, nn.Embedding)


class CovariateBatch(NamedTuple):
    """The covariates of some windows, standardised; 0 where unknown. L is at least a member's."""

    known: Tensor  # (N, K, L + H)
    past: Tensor  # (N, P, L)
    static: Tensor  # (N, C)


class CovariateEncoder(nn.Module):
    """Encodes covariates for one member."""

    def __init__(self, network_spec: NetworkSpec, spec: MemberSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.network_spec, self.spec = network_spec, spec
        self.out_segment = min(spec.segment, network_spec.horizon)
        shapes = covariate_shapes(network_spec, spec, config)

        # All but the hinges start at zero: a member begins as one without covariates.
        if network_spec.n_known:
            self.hinge = linear(shapes, "hinge")
            self.series_effect = _from_zero(embedding(shapes, "series_effect"))
            self.future_proj = _from_zero(linear(shapes, "future_proj"))
        if network_spec.n_known + network_spec.n_past:
            self.history_proj = _from_zero(linear(shapes, "history_proj"))
        if network_spec.n_static:
            self.static_proj = _from_zero(linear(shapes, "static_proj"))

    def effect(self, covariates: CovariateBatch, series: Tensor) -> tuple[Tensor, Tensor]:
        """Return the effect of the known covariates, (N, L) and (N, H), or (N, 1) of zeros."""
        if not self.network_spec.n_known:
            nothing = covariates.past.new_zeros(len(series), 1)
            return nothing, nothing
        known = self._newest(covariates.known, self.network_spec.horizon).transpose(1, 2)
        effect = (self.shapes(known) @ self.series_effect(series)[..., None])[..., 0]
        return effect[:, : self.spec.lookback], effect[:, self.spec.lookback :]

    def shapes(self, known: Tensor) -> Tensor:
        """Return features (N, T, K) with hinge functions of them, (N, T, K + HINGES)."""
        return torch.cat([known, F.relu(self.hinge(known))], -1)

    def history(self, covariates: CovariateBatch) -> Tensor | float:
        """Return the embedded covariates of each segment of the history, (S, N, D), or 0."""
        if not self.network_spec.n_known + self.network_spec.n_past:
            return 0.0
        known = self._newest(covariates.known[..., : -self.network_spec.horizon], 0)
        seen = torch.cat([known, self._newest(covariates.past, 0)], 1)
        embedded: Tensor = self.history_proj(_cut(seen, self.spec.segment, at_end=False)).transpose(
            0, 1
        )
        return embedded

    @property
    def asks(self) -> bool:
        """Whether the covariates add anything to the queries of the decoder."""
        return self.network_spec.n_known + self.network_spec.n_static > 0

    def question(self, covariates: CovariateBatch) -> Tensor:
        """Return what the covariates add to the query of each segment ahead, (N, M or 1, D)."""
        parts: list[Tensor] = []
        if self.network_spec.n_known:
            ahead = covariates.known[..., -self.network_spec.horizon :]
            parts.append(self.future_proj(_cut(ahead, self.out_segment, at_end=True)))
        if self.network_spec.n_static:
            parts.append(self.static_proj(covariates.static)[:, None])
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _newest(self, values: Tensor, n_more: int) -> Tensor:
        return values[..., -(self.spec.lookback + n_more) :]


def linear(shapes: Mapping[str, Shape], name: str) -> nn.Linear:
    """Return a linear layer of the listed shape, with a bias where one is listed."""
    n_out, n_in = shapes[f"{name}.weight"]
    return nn.Linear(n_in, n_out, bias=f"{name}.bias" in shapes)


def embedding(shapes: Mapping[str, Shape], name: str) -> nn.Embedding:
    """Return an embedding of the listed shape."""
    n_entries, width = shapes[f"{name}.weight"]
    return nn.Embedding(n_entries, width)


def _from_zero(module: _Module) -> _Module:
    nn.init.zeros_(module.weight)
    return module


def _cut(values: Tensor, segment: int, *, at_end: bool) -> Tensor:
    """Cut (N, F, T) into (N, T / segment, F * segment), filled up with zeros at one end."""
    empty = -values.shape[-1] % segment
    padded = F.pad(values, (0, empty) if at_end else (empty, 0))
    n, n_features, length = padded.shape
    parts = padded.view(n, n_features, length // segment, segment).transpose(1, 2)
    return parts.reshape(n, length // segment, n_features * segment)
