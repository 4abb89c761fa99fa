"""The network: recurrent layers over segments, which weigh the experts and set the quantiles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.model.experts import N_EXPERTS, N_FULL, NAMES
from rnnforecast.model.inputs import n_inputs
from rnnforecast.model.recurrence import Recurrence, State

_EXPANSION = 2
"""Width of the layers between, as a multiple of the state's."""
_FIRST_SHARES = {
    "level": -1.0,
    "last": -1.0,
    "weighted": 1.0,
    "long season": -1.0,
    "weighted long season": -0.5,
    "multiplicative": -1.0,
    "autoregression": 0.5,
    "fading": 0.2,
    "remainder": 0.1,
}
"""What the network begins with: of the full experts logits, of the additive ones weights."""
_FIRST_GAP = -1.0
"""Distance of neighbouring quantiles at the start, before softplus."""


class Block(nn.Module):
    """A recurrent layer and a layer between, each added to what comes in."""

    def __init__(self, cell: str, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.recurrence = Recurrence(cell, width, 1)
        self.norm_between = nn.LayerNorm(width)
        self.expand = nn.Linear(width, _EXPANSION * width)
        self.contract = nn.Linear(_EXPANSION * width, width)

    def forward(self, x: Tensor, begin: State | None = None) -> tuple[Tensor, State]:
        """Run over segments, (S, N, D), from a state or zeros; return them and the final state."""
        states, final = self.recurrence.run(self.norm(x), begin)
        x = x + states
        return x + self.contract(F.silu(self.expand(self.norm_between(x)))), final


class ExpertNetwork(nn.Module):
    """Quantiles of every segment: weighed experts, an offset, and gaps that cannot be negative.

    Nothing in it belongs to one series. N windows, S segments, K experts, Q quantiles, P rows of a
    segment, D wide states. A segment ahead is one that nothing is known of.
    """

    def __init__(
        self, cell: str, width: int, layers: int, segment: int, *, n_quantiles: int, median: int
    ) -> None:
        super().__init__()
        self.segment, self.n_quantiles, self.median = segment, n_quantiles, median
        n = n_inputs(segment)
        self.embed = nn.Linear(n, width)
        self.embed_again = nn.Linear(width, width)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(cell, width) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head_hidden = nn.Linear(width + n, _EXPANSION * width)
        self.head = nn.Linear(_EXPANSION * width, segment * (n_quantiles + N_EXPERTS))
        self._initialise()

    def forward(
        self, values: Tensor, experts: Tensor, gain: Tensor, *, reach: int | None = None
    ) -> Tensor:
        """Return quantiles less the level, in units of the spread, (N, S, Q, P).

        values (N, S, I), experts (N, S, K, P) and gain (N, S) are those of `Inputs`. With `reach`,
        gradients come through the last segments only.
        """
        encoded = self.encode(values, reach=reach)
        return self.combine(self.raw(encoded, values), experts, gain)

    def encode(self, values: Tensor, *, reach: int | None = None) -> Tensor:
        """Run the recurrence over all segments, (N, S, D)."""
        first = self.embed(values)
        x = (first + self.embed_again(F.silu(first))).transpose(0, 1)
        n_without = 0 if reach is None else max(0, len(x) - reach)
        before, begin = x[:n_without], [None] * len(self.blocks)
        if n_without:
            with torch.no_grad():
                for number, block in enumerate(self.blocks):
                    before, begin[number] = block(before)

        x = x[n_without:]
        for block, state in zip(self.blocks, begin, strict=True):
            x, _ = block(x, state)
        return torch.cat([before, x]).transpose(0, 1)

    def raw(self, encoded: Tensor, values: Tensor) -> Tensor:
        """Return what the head puts out, (N, S, Q + K, P)."""
        hidden = self.head_hidden(torch.cat([self.norm(encoded), values], -1))
        out: Tensor = self.head(F.silu(hidden))
        return out.view(*out.shape[:2], self.n_quantiles + N_EXPERTS, self.segment)

    def combine(self, raw: Tensor, experts: Tensor, gain: Tensor) -> Tensor:
        """Turn what the head puts out into quantiles, (N, S, Q, P)."""
        unit = gain[..., None, None]
        offset, gaps, full, additive = torch.split(
            raw, [1, self.n_quantiles - 1, N_FULL, N_EXPERTS - N_FULL], dim=2
        )
        weights = torch.cat([full.softmax(2), additive], dim=2)
        median = offset * unit + (weights * experts).sum(2, keepdim=True)

        gaps = F.softplus(gaps) * unit
        n_above = self.n_quantiles - 1 - self.median
        above = median + gaps[:, :, :n_above].cumsum(2)
        below = median - gaps[:, :, n_above:].cumsum(2)
        return torch.cat([below.flip(2), median, above], dim=2)

    @torch.no_grad()
    def _initialise(self) -> None:
        self.head.weight.mul_(0.3)
        bias = self.head.bias.view(self.n_quantiles + N_EXPERTS, self.segment)
        bias.zero_()
        bias[1 : self.n_quantiles] = _FIRST_GAP
        for name, share in _FIRST_SHARES.items():
            bias[self.n_quantiles + NAMES.index(name)] = share
