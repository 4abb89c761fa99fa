"""Recurrent layers over segments of a window: cells, stacked layers, bfloat16 products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.spec import CELLS

_Product = Callable[[Tensor], Tensor]


def _linears(width: int, n_out: int, layers: int) -> Any:
    return nn.ModuleList(nn.Linear(width, n_out) for _ in range(layers))


class Recurrence(nn.Module):
    """Layers of one cell, all of width D."""

    linear_ih: Sequence[nn.Linear]
    linear_hh: Sequence[nn.Linear]
    """Empty for a cell that does not read its state."""
    rounds: bool
    """Whether products over the history are taken in bfloat16 while gradients are recorded."""

    def __init__(
        self, cell: str, width: int, layers: int, *, init: str = "orthogonal", n_steps: int = 1
    ) -> None:
        """Make one that will run over `n_steps` steps: chrono initialisation asks for them."""
        super().__init__()
        self.cell = CELLS[cell]
        self.step = _STEPS[cell]
        n_gates = self.cell.n_gates * width
        self.linear_ih = _linears(width, n_gates, layers)
        self.linear_hh = _linears(width, n_gates, layers if self.cell.reads_state else 0)
        self.rounds = False
        if init != "default":  # torch has drawn all weights
            self._initialise(width)
        if init == "chrono":
            self._chrono_init(n_steps, width)

    def forward(self, embedded: Tensor, begin: Sequence[State] | None = None) -> list[State]:
        """Run over all steps, (S, N, D); return the final state of each layer.

        The initial states are `begin`, the final ones of an earlier chunk, or zeros.
        """
        final: list[State] = []

        for layer, (linear_ih, linear_hh) in enumerate(zip(*self._products(), strict=True)):
            state = self._zeros(embedded) if begin is None else begin[layer]
            states: list[Tensor] = []
            if begin is None and self.cell.reads_state:
                h_gates: Tensor = self.linear_hh[layer].bias.expand(embedded.shape[1], -1)
            else:
                h_gates = linear_hh(state.hidden)
            for x_gates in linear_ih(embedded).unbind(0):
                state = self.step(x_gates, h_gates, state)
                states.append(state.hidden)
                if len(states) < len(embedded):
                    h_gates = linear_hh(state.hidden)
            final.append(state)
            if len(final) < len(self.linear_ih):
                embedded = torch.stack(states)
        return final

    def run(self, embedded: Tensor, begin: State | None = None) -> tuple[Tensor, State]:
        """Run a single layer over all steps, (S, N, D); return all states, and the final one."""
        (linear_ih,), (linear_hh,) = self._products()
        state = self._zeros(embedded) if begin is None else begin
        states: list[Tensor] = []
        for x_gates in linear_ih(embedded).unbind(0):
            state = self.step(x_gates, linear_hh(state.hidden), state)
            states.append(state.hidden)
        return torch.stack(states) if states else embedded, state

    def truncated(self, embedded: Tensor, n_steps: int) -> list[State]:
        """Run over all steps, with gradients through the last `n_steps` only.

        The state is carried over, as in truncated backpropagation through time. With at least as
        many `n_steps` as steps this is `forward`.
        """
        if n_steps >= len(embedded):
            return self(embedded)  # type: ignore[no-any-return]
        with torch.no_grad():
            carried = self(embedded[:-n_steps])
        return self(embedded[-n_steps:], carried)  # type: ignore[no-any-return]

    @torch.no_grad()
    def log_retention(self, embedded: Tensor) -> list[Tensor] | None:
        """Return the mean logarithm of the share of its state that a unit retains in a step.

        One tensor, (D,), for each layer, over all steps and windows of embedded (S, N, D); None for
        a cell without such gates.
        """
        if self.cell.retention_gate is None:
            return None
        layers = []

        for linear_ih, linear_hh in zip(self.linear_ih, self._linear_hh, strict=True):
            state, states, logs = self._zeros(embedded), [], []
            for x_gates in linear_ih(embedded).unbind(0):
                h_gates = linear_hh(state.hidden)
                gates = (x_gates + h_gates).chunk(self.cell.n_gates, -1)
                logs.append(F.logsigmoid(gates[self.cell.retention_gate]).mean(0))
                state = self.step(x_gates, h_gates, state)
                states.append(state.hidden)
            layers.append(torch.stack(logs).mean(0))
            embedded = torch.stack(states)
        return layers

    def decode(self, queries: Tensor, final: Sequence[State]) -> Tensor:
        """Take one more step for each query from the final states, (N, Q, D).

        The queries, broadcast to (N, Q, D), come as the gates of the first layer's input.
        """
        out, gates = queries, queries
        for layer, state in enumerate(final):
            if layer:
                gates = self.linear_ih[layer](out)
            h_gates = self._linear_hh[layer](state.hidden)[:, None]
            memory = None if state.memory is None else state.memory[:, None]
            out = self.step(gates, h_gates, State(state.hidden[:, None], memory)).hidden
        return out

    def _products(self) -> tuple[Sequence[_Product], Sequence[_Product]]:
        if not (self.rounds and torch.is_grad_enabled()):
            return self.linear_ih, self._linear_hh
        linear_ih = [BF16Linear(layer) for layer in self.linear_ih]
        if not self.cell.reads_state:
            return linear_ih, self._linear_hh
        return linear_ih, [BF16Linear(layer) for layer in self.linear_hh]

    @property
    def _linear_hh(self) -> Sequence[_Product]:
        """The layers from state to gates; functions that return 0 for a cell without them."""
        if self.cell.reads_state:
            return self.linear_hh
        return [_nothing] * len(self.linear_ih)

    def _zeros(self, embedded: Tensor) -> State:
        zeros = embedded.new_zeros(embedded.shape[1:])
        return State(zeros, zeros if self.cell.has_memory else None)

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        for linear_hh in self.linear_hh:
            for gate in linear_hh.weight.chunk(self.cell.n_gates):
                nn.init.orthogonal_(gate)
            nn.init.zeros_(linear_hh.bias)
        for linear_ih in self.linear_ih:
            nn.init.xavier_uniform_(linear_ih.weight)
            nn.init.zeros_(linear_ih.bias)
            if self.cell.has_memory:
                linear_ih.bias[width : 2 * width] = 1.0  # the forget gate starts open

    @torch.no_grad()
    def _chrono_init(self, n_steps: int, width: int) -> None:
        """Draw biases by which units retain their state for times from one step to all steps.

        A gate that retains 1 - 1/T of the state in a step has a bias of log(T - 1). The input gate
        of the LSTM starts closed as far.
        """
        assert self.cell.retention_gate is not None
        first = self.cell.retention_gate * width
        for linear_ih in self.linear_ih:
            bias = torch.log(1 + torch.rand(width) * max(n_steps - 2, 1))
            linear_ih.bias[first : first + width] = bias
            if self.cell.has_memory:
                linear_ih.bias[:width] = -bias


def _nothing(hidden: Tensor) -> Tensor:
    """Return zeros that broadcast to any gates."""
    return hidden.new_zeros(1).expand(*hidden.shape[:-1], 1)


class State(NamedTuple):
    """The state of one layer; `memory` is the cell state of the LSTM, None for other cells."""

    hidden: Tensor  # (N, D)
    memory: Tensor | None = None


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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether products in bfloat16 are faster than in float32 on this processor."""
    if device.type != "cpu":
        return False
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not public in torch 2.13
    return supports is not None and bool(supports())


class BF16Linear:
    """A linear layer with weights rounded to bfloat16 once, for one pass."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._rounded = linear.weight.detach().bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        """Return x, (..., in), times the weights, (out, in), plus the bias: (..., out)."""
        result: Tensor = _BF16Product.apply(  # type: ignore[no-untyped-call]
            x, self._linear.weight, self._linear.bias, self._rounded
        )
        return result


class _BF16Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, _weight: Tensor, bias: Tensor, rounded: Tensor) -> Tensor:
        x = x.bfloat16()
        ctx.save_for_backward(x, rounded)
        return (x @ rounded.t()).float().add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        rounded = rows.bfloat16()
        d_x = (rounded @ weight).float().view(*grad.shape[:-1], -1)
        d_weight = (rounded.t() @ x.flatten(0, -2)).float()
        return d_x, d_weight, rows.sum(0), None
