"""The cells: one step of a recurrence, for each kind of it.

Apart from `recurrence`, which runs a step over windows, layer by layer. A cell gets the products of
its input and of its state with their weights, x and h below, and says what it remembers next.

Shapes: N windows, D hidden; gates (N, G * D), one after the other. Sources: Elman 1990; Cho and
others 2014 (GRU); Hochreiter and Schmidhuber 1997 (LSTM); Feng and others 2024, arXiv 2410.01201
(minGRU).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


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
    reads_state: bool = True
    """Whether its gates depend on the state; else it has no weights for that."""
    keeping: int | None = None
    """The gate whose sigmoid is the share of each unit's state that is kept; None without one."""


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


def _mingru_step(x: Tensor, _h: Tensor, state: State) -> State:
    """update, new = sigmoid(x), x; state = new + update (state - new).

    The gate of the paper is 1 - update. It depends on the input alone: a state decays by it, and
    neither its gradient nor itself can explode; a step costs no product with the state.
    """
    update, new = x.chunk(2, -1)
    return State(torch.lerp(new, state.hidden, torch.sigmoid(update)))


def _rnn_step(x: Tensor, h: Tensor, _state: State) -> State:
    return State(torch.tanh(x + h))


CELLS = {
    "gru": Cell(3, _gru_step, keeping=1),
    "lstm": Cell(4, _lstm_step, has_memory=True, keeping=1),
    "mingru": Cell(2, _mingru_step, reads_state=False, keeping=0),
    "rnn": Cell(1, _rnn_step),
}
