"""A member in torch, to be trained: recurrent layers over segments, which weigh the experts.

`model.inference` forecasts by the same equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.config.training import TrainConfig
from rnnforecast.errors import UsageError
from rnnforecast.model.experts import NAMES
from rnnforecast.model.inference import MemberWeights
from rnnforecast.model.inputs import MIN_GAIN, Segments
from rnnforecast.model.network import Network, Prepared
from rnnforecast.process import current_launch
from rnnforecast.spec import (
    CELLS,
    EXPANSION,
    N_EXPERTS,
    N_FULL,
    MemberSpec,
    NetworkSpec,
    n_covariate_inputs,
    n_inputs,
)


class Recurrence(nn.Module):
    """One layer of a cell of width D."""

    linear_hh: nn.Linear | None
    """None for a cell that does not read its state."""

    def __init__(
        self, cell: str, width: int, *, init: str = "orthogonal", n_steps: int = 1
    ) -> None:
        """Make one that will run over `n_steps` steps: chrono initialisation asks for them."""
        super().__init__()
        self.cell = CELLS[cell]
        self.step = _STEPS[cell]
        n_gates = self.cell.n_gates * width
        self.linear_ih = nn.Linear(width, n_gates)
        self.linear_hh = nn.Linear(width, n_gates) if self.cell.reads_state else None
        if init != "default":  # torch has drawn all weights
            self._initialise(width)
        if init == "chrono":
            self._chrono_init(n_steps, width)

    def forward(self, embedded: Tensor, begin: State | None = None) -> State:
        """Run over all steps, (S, N, D), from a state or zeros; return the states, (1 + S, N, D).

        The first is the one that it began with.
        """
        states = [self.zeros(embedded) if begin is None else begin]
        for x_gates in self.linear_ih(embedded).unbind(0):
            states.append(self.step(x_gates, self._state_gates(states[-1]), states[-1]))
        hidden = torch.stack([state.hidden for state in states])
        memories = [state.memory for state in states if state.memory is not None]
        return State(hidden, torch.stack(memories) if memories else None)

    @torch.no_grad()
    def log_retention(self, embedded: Tensor) -> Tensor | None:
        """Return the mean logarithm of the share of its state that a unit retains in a step, (D,).

        The mean is over all steps and windows of embedded (S, N, D). None for a cell without such
        a gate.
        """
        if self.cell.retention_gate is None:
            return None
        state, logs = self.zeros(embedded), []
        for x_gates in self.linear_ih(embedded).unbind(0):
            h_gates = self._state_gates(state)
            gates = (x_gates + h_gates).chunk(self.cell.n_gates, -1)
            logs.append(F.logsigmoid(gates[self.cell.retention_gate]).mean(0))
            state = self.step(x_gates, h_gates, state)
        return torch.stack(logs).mean(0)

    def zeros(self, embedded: Tensor) -> State:
        """Return the state before the first of embedded (S, N, D)."""
        zeros = embedded.new_zeros(embedded.shape[1:])
        return State(zeros, zeros if self.cell.has_memory else None)

    def _state_gates(self, state: State) -> Tensor:
        """Return what the state adds to the gates; zeros for a cell that does not read it."""
        if self.linear_hh is None:
            return state.hidden.new_zeros(1).expand(*state.hidden.shape[:-1], 1)
        gates: Tensor = self.linear_hh(state.hidden)
        return gates

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        nn.init.xavier_uniform_(self.linear_ih.weight)
        nn.init.zeros_(self.linear_ih.bias)
        if self.linear_hh is not None:
            for gate in self.linear_hh.weight.chunk(self.cell.n_gates):
                nn.init.orthogonal_(gate)
            nn.init.zeros_(self.linear_hh.bias)
        if self.cell.has_memory:
            self.linear_ih.bias[width : 2 * width] = 1.0  # the forget gate starts open

    @torch.no_grad()
    def _chrono_init(self, n_steps: int, width: int) -> None:
        """Draw biases by which units retain their state for times from one step to all steps.

        A gate that retains 1 - 1/T of the state in a step has a bias of log(T - 1). The input gate
        of the LSTM starts closed as far.
        """
        assert self.cell.retention_gate is not None
        first = self.cell.retention_gate * width
        bias = torch.log(1 + torch.rand(width) * max(n_steps - 2, 1))
        self.linear_ih.bias[first : first + width] = bias
        if self.cell.has_memory:
            self.linear_ih.bias[:width] = -bias


class State(NamedTuple):
    """States of one layer; `memory` is the cell state of the LSTM, None for other cells."""

    hidden: Tensor  # (N, D), or (..., D)
    memory: Tensor | None = None

    def at(self, *place: Tensor | int | slice) -> State:
        """Return the states at a place of all dimensions but the last."""
        return State(self.hidden[place], None if self.memory is None else self.memory[place])

    def detach(self) -> State:
        """Return the same states, which gradients do not come through."""
        return State(self.hidden.detach(), None if self.memory is None else self.memory.detach())


class _GRUStep(torch.autograd.Function):
    """reset, update = sigmoid(x + h); new = tanh(x + reset * h); state = new + update (h - new).

    tanh(a) is computed as 2 sigmoid(2a) - 1, which torch computes three times as fast.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, state: Tensor) -> Tensor:
        width = state.shape[-1]
        gates = (x[..., : 2 * width] + h[..., : 2 * width]).sigmoid_()
        reset, update = gates.chunk(2, -1)
        h_new = h[..., 2 * width :]
        new = (x[..., 2 * width :] + reset * h_new).mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
        ctx.save_for_backward(gates, new, h_new, state)
        ctx.shapes = x.shape, h.shape, state.shape
        return torch.lerp(new, state.expand_as(new), update)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (grad,) = grads
        gates, new, h_new, state = ctx.saved_tensors
        x_shape, h_shape, state_shape = ctx.shapes
        width = state.shape[-1]
        reset, update = gates.chunk(2, -1)
        reset_slope, update_slope = torch.addcmul(gates, gates, gates, value=-1).chunk(2, -1)
        d_state = grad * update

        d_x = grad.new_empty((*grad.shape[:-1], 3 * width))
        d_reset, d_update, d_new = d_x.chunk(3, -1)
        torch.mul(grad - d_state, (new * new).neg_().add_(1.0), out=d_new)
        torch.mul(d_new, h_new, out=d_reset)
        d_reset.mul_(reset_slope)
        torch.mul((state - new).mul_(grad), update_slope, out=d_update)
        parts = d_x[..., : 2 * width], d_new * reset
        d_h = torch.cat([part.sum_to_size((*h_shape[:-1], part.shape[-1])) for part in parts], -1)
        return d_x.sum_to_size(x_shape), d_h, d_state.sum_to_size(state_shape)


def _gru_step(x: Tensor, h: Tensor, state: State) -> State:
    step: Callable[..., Tensor] = _GRUStep.apply
    return State(step(x, h, state.hidden))


def _lstm_step(x: Tensor, h: Tensor, state: State) -> State:
    assert state.memory is not None
    enter, forget, new, leave = (x + h).chunk(4, -1)
    memory = torch.sigmoid(forget) * state.memory + torch.sigmoid(enter) * torch.tanh(new)
    return State(torch.sigmoid(leave) * torch.tanh(memory), memory)


def _mingru_step(x: Tensor, _h: Tensor, state: State) -> State:
    """update, new = sigmoid(x), x; state = new + update (state - new).

    The gate of the paper is 1 - update. It depends on the input alone: a state decays by it, and
    neither its gradient nor itself can explode; a step costs no product with the state.
    """
    update, new = x.chunk(2, -1)
    return State(torch.lerp(new, state.hidden, torch.sigmoid(update)))


def _rnn_step(x: Tensor, h: Tensor, _state: State) -> State:
    return State(torch.tanh(x + h))


_STEPS: dict[str, Callable[[Tensor, Tensor, State], State]] = {
    "gru": _gru_step,
    "lstm": _lstm_step,
    "mingru": _mingru_step,
    "rnn": _rnn_step,
}
"""(input gates, state gates, state) -> new state; the three broadcast against each other."""


_FIRST_SHARES = {
    "level": -1.0,
    "last": -1.0,
    "weighted": 1.0,
    "long season": -1.0,
    "weighted long season": -0.5,
    "multiplicative": -1.0,
    "drift": -2.0,
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


class MemberInputs(NamedTuple):
    """What `Member.forward` takes, as tensors."""

    history: Segments[Tensor]
    ahead: Segments[Tensor]
    stretch: Tensor  # (N,)
    state: Tensor  # (N,)


def to_tensors(prepared: Prepared, device: torch.device) -> MemberInputs:
    """Return prepared inputs as tensors on a device."""

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    history, ahead = (part.apply(tensor) for part in (prepared.history, prepared.ahead))
    places = prepared.places
    return MemberInputs(history, ahead, tensor(places.stretch), tensor(places.state))


def joined(chunks: Sequence[State]) -> State:
    """Join the states of chunks, each of which begins with the last one of the chunk before."""
    if len(chunks) == 1:
        return chunks[0]
    parts = [chunks[0], *(chunk.at(slice(1, None)) for chunk in chunks[1:])]
    memories = [part.memory for part in parts if part.memory is not None]
    hidden = torch.cat([part.hidden for part in parts])
    return State(hidden, torch.cat(memories) if memories else None)


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
        """Run over segments, (S, N, D), from a state or zeros; return them and all states."""
        states = self.recurrence(self.norm(x), begin)
        x = x + states.hidden[1:]
        return x + self.contract(F.silu(self.expand(self.norm_between(x)))), states


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

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.norm.weight.device

    def forward(
        self, history: Segments[Tensor], ahead: Segments[Tensor], stretch: Tensor, state: Tensor
    ) -> Tensor:
        """Return quantiles of segments ahead less the level, in units of the spread, (N, S, Q, P).

        `history` is that of stretches. Window n is forecast from stretch[n], after state[n] of its
        segments.
        """
        _, states = self.encode(history)
        return self.decode(self.encode_ahead(states, ahead, stretch, state), ahead)

    def embedded(self, segments: Segments[Tensor]) -> Tensor:
        """Return the input of the first block, (S, N, D)."""
        first = self.embed(segments.values)
        x = first + self.embed_again(F.silu(first))
        if self.covariates_to_state is not None:
            x = x + self.covariates_to_state(segments.covariates)
        embedded: Tensor = x.transpose(0, 1)
        return embedded

    def encode(
        self, segments: Segments[Tensor], *, reach: int | None = None
    ) -> tuple[Tensor, list[State]]:
        """Run the blocks over all segments; return what comes out, (N, S, D), and their states.

        States are those of each block, (1 + S, N, D). With `reach`, gradients come back over so
        many segments at most: they end at every `reach`-th one.
        """
        parts, chunks = [], []
        begin: list[State] | None = None
        for chunk in torch.split(self.embedded(segments), reach or 1 << 30):
            x, states = self.run(chunk, begin)
            begin = [state.at(-1).detach() for state in states]
            parts.append(x)
            chunks.append(states)
        return torch.cat(parts).transpose(0, 1), [joined(s) for s in zip(*chunks, strict=True)]

    def encode_ahead(
        self, states: Sequence[State], ahead: Segments[Tensor], stretch: Tensor, state: Tensor
    ) -> Tensor:
        """Run the blocks over segments ahead, from the states of stretches: (N, S, D)."""
        x, _ = self.run(self.embedded(ahead), [of_block.at(state, stretch) for of_block in states])
        return x.transpose(0, 1)

    def run(self, x: Tensor, begin: Sequence[State] | None) -> tuple[Tensor, list[State]]:
        """Run the blocks over embedded segments, (S, N, D), from a state of each, or zeros.

        Returns what comes out, (S, N, D), and all states of each block, (1 + S, N, D).
        """
        states = []
        for number, block in enumerate(self.blocks):
            x, state = block(x, None if begin is None else begin[number])
            states.append(state)
        return x, states

    def decode(self, encoded: Tensor, segments: Segments[Tensor]) -> Tensor:
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


def draw_members(spec: NetworkSpec, *, init: str) -> tuple[MemberWeights, ...]:
    """Draw the first weights of all members by torch's random numbers."""
    return tuple(
        weights_of(Member(spec, member, init=init, n_steps=-(-spec.lookback // member.segment)))
        for member in spec.members
    )


def make_member(
    network: Network,
    index: int,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> Member:
    """Return a member of a network with copies of its weights, to be trained."""
    weights = network.members[index]
    with torch.device("meta"):  # nothing is drawn
        member = Member(network.spec, weights.spec, init="default")
    tensors = {name: torch.tensor(values) for name, values in weights.tensors.items()}
    member.load_state_dict(tensors, assign=True)
    return member.to(device)


def weights_of(member: Member) -> MemberWeights:
    """Return the weights that a member has now."""
    state = member.state_dict()
    return MemberWeights(member.spec, {name: x.cpu().numpy().copy() for name, x in state.items()})


def device_of(config: TrainConfig) -> torch.device:
    """Return the device to train on. Raises `UsageError` where there is none of that kind."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise UsageError(
            "--device cuda needs a CUDA device, but torch finds none", hint="use --device cpu"
        )
    if config.device == "cpu" or not has_cuda:
        return torch.device("cpu")
    launch = current_launch()
    return torch.device("cuda", 0 if launch is None else launch.local_rank)
