"""The recurrence: layers of one cell, run over steps, then asked from their final state.

Written out rather than taken from torch, because the same step runs the history and answers every
lead: the product of state and weights, most of a step's work, is then computed once for all leads.
The GRU's step also has its own gradient, a third of the passes over memory that autograd makes.

Shapes: S steps, N windows, D hidden, G gates, Q queries. Sources: Cho and others 2014 (GRU),
Hochreiter and Schmidhuber 1997 (LSTM), Elman 1990; initialisation, Saxe and others 2014
(orthogonal), Jozefowicz and others 2015 (forget gate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnforecast.model.product import RoundedLinear


class State(NamedTuple):
    """What one layer remembers: `memory` is the LSTM's cell, and None elsewhere."""

    hidden: Tensor  # (N, D)
    memory: Tensor | None = None


class Cell(NamedTuple):
    """One kind of recurrence."""

    n_gates: int
    step: Callable[[Tensor, Tensor, State], State]
    """(input gates, state gates, state) -> new state; the three broadcast against each other."""
    has_memory: bool = False


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
        kept = grad * update
        d_x = grad.new_empty((*grad.shape[:-1], 3 * width))
        d_reset, d_update, d_new = d_x.chunk(3, -1)
        torch.mul(grad - kept, (new * new).neg_().add_(1.0), out=d_new)
        torch.mul(d_new, h_new, out=d_reset)
        d_reset.mul_(reset_slope)
        torch.mul((state - new).mul_(grad), update_slope, out=d_update)
        parts = d_x[..., : 2 * width], d_new * reset
        d_h = torch.cat([part.sum_to_size((*h_shape[:-1], part.shape[-1])) for part in parts], -1)
        return d_x.sum_to_size(x_shape), d_h, kept.sum_to_size(state_shape)


def _gru_step(x: Tensor, h: Tensor, state: State) -> State:
    step: Callable[..., Tensor] = _GRUStep.apply
    return State(step(x, h, state.hidden))


def _lstm_step(x: Tensor, h: Tensor, state: State) -> State:
    assert state.memory is not None
    enter, forget, new, leave = (x + h).chunk(4, -1)
    memory = torch.sigmoid(forget) * state.memory + torch.sigmoid(enter) * torch.tanh(new)
    return State(torch.sigmoid(leave) * torch.tanh(memory), memory)


def _rnn_step(x: Tensor, h: Tensor, _state: State) -> State:
    return State(torch.tanh(x + h))


CELLS = {
    "gru": Cell(3, _gru_step),
    "lstm": Cell(4, _lstm_step, has_memory=True),
    "rnn": Cell(1, _rnn_step),
}


def _linears(width: int, n_out: int, layers: int) -> Any:
    return nn.ModuleList(nn.Linear(width, n_out) for _ in range(layers))


_Product = Callable[[Tensor], Tensor]


class Recurrence(nn.Module):
    """Layers of one cell, all of width D."""

    from_input: Sequence[nn.Linear]
    from_state: Sequence[nn.Linear]
    rounds: bool
    """Whether the products over the history are taken in bfloat16 while there are gradients."""

    def __init__(self, cell: str, width: int, layers: int) -> None:
        super().__init__()
        self.cell = CELLS[cell]
        n_gates = self.cell.n_gates * width
        self.from_input = _linears(width, n_gates, layers)
        self.from_state = _linears(width, n_gates, layers)
        self.rounds = False
        self._initialise(width)

    def forward(self, entering: Tensor) -> list[State]:
        """Run over all steps, (S, N, D); return the final state of each layer."""
        final: list[State] = []
        for from_input, from_state in zip(*self._products(), strict=True):
            state, states = self._zeros(entering), []
            bias = self.from_state[len(final)].bias
            h_gates = bias.expand(entering.shape[1], -1)  # of a state of zeros
            for x_gates in from_input(entering).unbind(0):
                state = self.cell.step(x_gates, h_gates, state)
                states.append(state.hidden)
                if len(states) < len(entering):
                    h_gates = from_state(state.hidden)
            final.append(state)
            if len(final) < len(self.from_input):
                entering = torch.stack(states)
        return final

    def ask(self, queries: Tensor, final: list[State]) -> Tensor:
        """Take one more step for each query from the final states, (N, Q, D).

        The queries, broadcast to (N, Q, D), come as the gates of the first layer's input.
        """
        out, gates = queries, queries
        for layer, state in enumerate(final):
            if layer:
                gates = self.from_input[layer](out)
            h_gates = self.from_state[layer](state.hidden)[:, None]
            memory = None if state.memory is None else state.memory[:, None]
            out = self.cell.step(gates, h_gates, State(state.hidden[:, None], memory)).hidden
        return out

    def _products(self) -> tuple[Sequence[_Product], Sequence[_Product]]:
        if not (self.rounds and torch.is_grad_enabled()):
            return self.from_input, self.from_state
        layers = self.from_input, self.from_state
        from_input, from_state = ([RoundedLinear(one) for one in each] for each in layers)
        return from_input, from_state

    def _zeros(self, entering: Tensor) -> State:
        zeros = entering.new_zeros(entering.shape[1:])
        return State(zeros, zeros if self.cell.has_memory else None)

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        for from_input, from_state in zip(self.from_input, self.from_state, strict=True):
            for gate in from_state.weight.chunk(self.cell.n_gates):
                nn.init.orthogonal_(gate)
            nn.init.xavier_uniform_(from_input.weight)
            nn.init.zeros_(from_input.bias)
            nn.init.zeros_(from_state.bias)
            if self.cell.has_memory:
                from_input.bias[width : 2 * width] = 1.0  # the forget gate starts open
