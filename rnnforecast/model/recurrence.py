"""A recurrent layer over segments: cells, how they start, and how long their units retain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.spec import CELLS


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

    def forward(self, embedded: Tensor, begin: State | None = None) -> tuple[Tensor, State]:
        """Run over all steps, (S, N, D), from a state or zeros.

        Returns the hidden states, (S, N, D), and the final state.
        """
        state = self.zeros(embedded) if begin is None else begin
        states: list[Tensor] = []
        for x_gates in self.linear_ih(embedded).unbind(0):
            state = self.step(x_gates, self._state_gates(state), state)
            states.append(state.hidden)
        return torch.stack(states) if states else embedded, state

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
