"""What one member makes of the covariates: of those known ahead, of those known so far, of static ones.

Apart from `member`, which knows the readings. Three ways lead in: what covariates known ahead explain
at the same step is taken out of the history and put back over the horizon, series by series; all of
them are read by the recurrence with the readings; and those of each stretch of the horizon are part of
the question that the stretch asks. All begin at zero: as if there were no covariates.

Shapes: N windows, L lookback, H horizon, K features known ahead, P known up to now, C static, S
segments of the history, M segments of the horizon, D hidden.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rnnforecast.task import CURVES, ForecastTask, MemberTask

MOST = 10.0
"""Features further from their mean, in standard deviations, count as this far."""


class Beside(NamedTuple):
    """The covariates of some windows, standardised; 0 where unknown."""

    known: Tensor  # (N, K, L + H)
    past: Tensor  # (N, P, L)
    static: Tensor  # (N, C)


class Reader(nn.Module):
    """Reads covariates for one member."""

    def __init__(
        self, task: ForecastTask, own: MemberTask, *, out_segment: int, width: int
    ) -> None:
        super().__init__()
        self.task, self.own = task, own
        self.out_segment, self.width = out_segment, width
        n_known, n_seen = task.n_known, task.n_known + task.n_past
        if n_known:
            self.curves = nn.Linear(n_known, CURVES)
            self.reaction = _zero(nn.Embedding(task.n_series + 1, n_known + CURVES))
            self.ask = _zero(nn.Linear(n_known * out_segment, width, bias=False))
        if n_seen:
            self.read = _zero(nn.Linear(n_seen * own.segment, width, bias=False))
        if task.n_static:
            self.describe = _zero(nn.Linear(task.n_static, width, bias=False))

    def explained(self, beside: Beside, series: Tensor) -> tuple[Tensor, Tensor]:
        """What the known covariates explain at each step, (N, L) and (N, H)."""
        if not self.task.n_known:
            nothing = beside.past.new_zeros(len(series), 1)
            return nothing, nothing
        known = self._newest(beside.known, self.task.horizon).transpose(1, 2)
        reaction = self.reaction(series)[..., None]  # (N, K + curves, 1)
        shapes = torch.cat([known, F.relu(self.curves(known))], -1)
        effect = (shapes @ reaction)[..., 0]
        return effect[:, : self.own.lookback], effect[:, self.own.lookback :]

    def history(self, beside: Beside) -> Tensor | float:
        """What enters the recurrence with each segment of the history, (S, N, D)."""
        if not self.task.n_known + self.task.n_past:
            return 0.0
        known = self._newest(beside.known[..., : self.task.lookback], 0)
        seen = torch.cat([known, self._newest(beside.past, 0)], 1)
        entering: Tensor = self.read(_cut(seen, self.own.segment, at_end=False)).transpose(0, 1)
        return entering

    def question(self, beside: Beside) -> Tensor:
        """What each stretch of the horizon adds to its question, (N, M, D), or (N, 1, D)."""
        asked = self._ahead(beside)
        if self.task.n_static:
            asked = asked + self.describe(beside.static)[:, None]
        return asked

    def _ahead(self, beside: Beside) -> Tensor:
        if not self.task.n_known:
            return beside.past.new_zeros(len(beside.past), 1, self.width)
        ahead = beside.known[..., self.task.lookback :]
        return self.ask(_cut(ahead, self.out_segment, at_end=True))

    def _newest(self, values: Tensor, n_more: int) -> Tensor:
        return values[..., -(self.own.lookback + n_more) :]


_Module = TypeVar("_Module", nn.Linear, nn.Embedding)


def _zero(module: _Module) -> _Module:
    nn.init.zeros_(module.weight)
    return module


def _cut(values: Tensor, segment: int, *, at_end: bool) -> Tensor:
    """Cut (N, F, T) into (N, T / segment, F * segment), filled up with zeros at one end."""
    empty = -values.shape[-1] % segment
    padded = F.pad(values, (0, empty) if at_end else (empty, 0))
    n, n_features, length = padded.shape
    parts = padded.view(n, n_features, length // segment, segment).transpose(1, 2)
    return parts.reshape(n, length // segment, n_features * segment)
