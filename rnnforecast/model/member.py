"""One network: recurrent layers over segments, which weigh the experts and set the quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.model.experts import NAMES
from rnnforecast.model.inputs import MIN_GAIN
from rnnforecast.model.recurrence import Recurrence, State
from rnnforecast.spec import (
    EXPANSION,
    N_EXPERTS,
    N_FULL,
    MemberSpec,
    NetworkSpec,
    n_covariate_inputs,
    n_inputs,
)

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
"""What a member begins with: of the full experts logits, of the additive ones weights."""
_FIRST_GAP = -1.0
"""Distance of neighbouring quantiles at the start, before softplus."""
_FIRST_REACTION = 0.5
"""Share of the reaction to covariates that a member begins with."""
_HEAD_SCALE = 0.3
"""The head begins with smaller weights than torch's own: the experts forecast at first."""


class Segments(NamedTuple):
    """Inputs of N windows of S segments: those of `model.inputs`, as tensors."""

    values: Tensor  # (N, S, I)
    experts: Tensor  # (N, S, K, P)
    gain: Tensor  # (N, S)
    covariates: Tensor | None = None  # (N, S, C)
    reaction: Tensor | None = None  # (N, S, P)
    reaction_error: Tensor | None = None  # (N, S)


class Block(nn.Module):
    """A recurrent layer and a layer between, each added to what comes in."""

    def __init__(self, spec: MemberSpec, *, init: str, n_steps: int) -> None:
        super().__init__()
        width = spec.hidden
        self.norm = nn.LayerNorm(width)
        self.recurrence = Recurrence(spec.cell, width, init=init, n_steps=n_steps)
        self.norm_between = nn.LayerNorm(width)
        self.expand = nn.Linear(width, EXPANSION * width)
        self.contract = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor, begin: State | None = None) -> tuple[Tensor, State]:
        """Run over segments, (S, N, D), from a state or zeros; return them and the final state."""
        states, final = self.recurrence(self.norm(x), begin)
        x = x + states
        return x + self.contract(F.silu(self.expand(self.norm_between(x)))), final


class Member(nn.Module):
    """Quantiles of every segment: weighed experts, an offset, and gaps that cannot be negative.

    Nothing in it belongs to one series. N windows, S segments, K experts, Q quantiles, P rows of a
    segment, D wide states. A segment ahead is one that nothing is known of.
    """

    blocks: Sequence[Block]

    def __init__(
        self, network: NetworkSpec, spec: MemberSpec, *, init: str = "orthogonal", n_steps: int = 1
    ) -> None:
        """Make one for `n_steps` segments of history: chrono initialisation asks for them."""
        super().__init__()
        self.spec = spec
        self.n_quantiles, self.median = len(network.quantiles), network.median
        width, n, between = spec.hidden, n_inputs(spec.segment), EXPANSION * spec.hidden
        self.embed = nn.Linear(n, width)
        self.embed_again = nn.Linear(width, width)
        blocks = [Block(spec, init=init, n_steps=n_steps) for _ in range(spec.layers)]
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = nn.LayerNorm(width)
        self.head_hidden = nn.Linear(width + n, between)
        self.head = nn.Linear(between, spec.segment * (self.n_quantiles + N_EXPERTS))

        self.covariates_to_state = self.covariates_to_head = self.reaction_head = None
        if spec.covariates:
            # From zero: but for the reaction a member begins as one without covariates.
            n_features = n_covariate_inputs(network, spec.segment)
            self.covariates_to_state = nn.Linear(n_features, width, bias=False)
            self.covariates_to_head = nn.Linear(n_features, between, bias=False)
            nn.init.zeros_(self.covariates_to_state.weight)
            nn.init.zeros_(self.covariates_to_head.weight)
            if network.n_known:
                self.reaction_head = nn.Linear(between, spec.segment)
                nn.init.zeros_(self.reaction_head.weight)
                nn.init.constant_(self.reaction_head.bias, _FIRST_REACTION)
        self._initialise()

    def forward(
        self, segments: Segments, *, n_frozen: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Return quantiles less the level, in units of the spread, (N, S, Q, P).

        Gradients do not come through the first `n_frozen` states. `mask`, (N, 1, D), is that of
        dropout.
        """
        encoded = self.encode(segments, n_frozen=n_frozen)
        return self.decode(encoded if mask is None else encoded * mask, segments)

    def embedded(self, segments: Segments) -> Tensor:
        """Return the input of the first block, (S, N, D)."""
        first = self.embed(segments.values)
        x = first + self.embed_again(F.silu(first))
        if self.covariates_to_state is not None:
            x = x + self.covariates_to_state(segments.covariates)
        embedded: Tensor = x.transpose(0, 1)
        return embedded

    def encode(self, segments: Segments, *, n_frozen: int = 0) -> Tensor:
        """Run the blocks over all segments, (N, S, D)."""
        x = self.embedded(segments)
        begin: list[State | None] = [None] * len(self.blocks)
        before = x[:n_frozen]
        if n_frozen:
            with torch.no_grad():
                for number, block in enumerate(self.blocks):
                    before, begin[number] = block(before)

        x = x[n_frozen:]
        for block, state in zip(self.blocks, begin, strict=True):
            x, _ = block(x, state)
        encoded = torch.cat([before, x]) if n_frozen else x
        return encoded.transpose(0, 1)

    def decode(self, encoded: Tensor, segments: Segments) -> Tensor:
        """Return the quantiles of segments from their states, (N, S, D): (N, S, Q, P)."""
        hidden = self.head_hidden(torch.cat([self.norm(encoded), segments.values], -1))
        if self.covariates_to_head is not None:
            hidden = hidden + self.covariates_to_head(segments.covariates)
        hidden = F.silu(hidden)
        out = self.head(hidden)
        out = out.view(*out.shape[:2], self.n_quantiles + N_EXPERTS, self.spec.segment)

        gain = segments.gain
        if self.reaction_head is not None and segments.reaction_error is not None:
            gain = torch.minimum(gain, segments.reaction_error.clamp(min=MIN_GAIN))
        unit = gain[..., None, None]
        sizes = [1, self.n_quantiles - 1, N_FULL, N_EXPERTS - N_FULL]
        offset, gaps, full, additive = torch.split(out, sizes, dim=2)
        weights = torch.cat([full.softmax(2), additive], dim=2)
        median = offset * unit + (weights * segments.experts).sum(2, keepdim=True)

        if self.reaction_head is not None:
            median = median + (self.reaction_head(hidden) * segments.reaction)[:, :, None]

        gaps = F.softplus(gaps) * unit
        n_above = self.n_quantiles - 1 - self.median
        above = median + gaps[:, :, :n_above].cumsum(2)
        below = median - gaps[:, :, n_above:].cumsum(2)
        return torch.cat([below.flip(2), median, above], dim=2)

    @torch.no_grad()
    def _initialise(self) -> None:
        self.head.weight.mul_(_HEAD_SCALE)
        bias = self.head.bias.view(self.n_quantiles + N_EXPERTS, self.spec.segment)
        bias.zero_()
        bias[1 : self.n_quantiles] = _FIRST_GAP
        for name, share in _FIRST_SHARES.items():
            bias[self.n_quantiles + NAMES.index(name)] = share
