"""Recurrent layers over segments of a window: cells, stacked layers, bfloat16 products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Product = Callable[[Tensor], Tensor]


def _linears(width: int, n_out: int, layers: int) -> Any:
    return nn.ModuleList(nn.Linear(width, n_out) for _ in range(layers))


class Recurrence(nn.Module):
    """Layers of one cell, all of width D."""

    from_input: Sequence[nn.Linear]
    from_state: Sequence[nn.Linear]
    """Empty for a cell that does not read its state."""
    rounds: bool
    """Whether the products over the history are taken in bfloat16 while there are gradients."""

    def __init__(
        self, cell: str, width: int, layers: int, *, init: str = "orthogonal", n_steps: int = 1
    ) -> None:
        """Make one that will run over `n_steps` steps: chrono initialisation asks for them."""
        super().__init__()
        self.cell = CELLS[cell]
        n_gates = self.cell.n_gates * width
        self.from_input = _linears(width, n_gates, layers)
        self.from_state = _linears(width, n_gates, layers if self.cell.reads_state else 0)
        self.rounds = False
        if init != "default":  # torch has drawn all weights
            self._initialise(width)
        if init == "chrono":
            self._keep_for(n_steps, width)

    def forward(self, entering: Tensor, begin: Sequence[State] | None = None) -> list[State]:
        """Run over all steps, (S, N, D); return the final state of each layer.

        It begins with states of zeros, or with those that a part before has ended with.
        """
        final: list[State] = []
        for layer, (from_input, from_state) in enumerate(zip(*self._products(), strict=True)):
            state = self._zeros(entering) if begin is None else begin[layer]
            states: list[Tensor] = []
            if begin is None and self.cell.reads_state:
                h_gates: Tensor = self.from_state[layer].bias.expand(entering.shape[1], -1)
            else:
                h_gates = from_state(state.hidden)
            for x_gates in from_input(entering).unbind(0):
                state = self.cell.step(x_gates, h_gates, state)
                states.append(state.hidden)
                if len(states) < len(entering):
                    h_gates = from_state(state.hidden)
            final.append(state)
            if len(final) < len(self.from_input):
                entering = torch.stack(states)
        return final

    def truncated(self, entering: Tensor, n_steps: int) -> list[State]:
        """Run over all steps, but let gradients come through the last `n_steps` only.

        The state is carried across the border, as truncated backpropagation through time does it.
        With `n_steps` of all of them it is `forward`.
        """
        if n_steps >= len(entering):
            return self(entering)  # type: ignore[no-any-return]
        with torch.no_grad():
            carried = self(entering[:-n_steps])
        return self(entering[-n_steps:], carried)  # type: ignore[no-any-return]

    @torch.no_grad()
    def log_kept(self, entering: Tensor) -> list[Tensor] | None:
        """Return the mean logarithm of the share of its state that each unit keeps in a step.

        One tensor, (D,), for each layer, over all steps and windows of entering (S, N, D); None for
        a cell without such gates.
        """
        if self.cell.keeping is None:
            return None
        found = []
        for from_input, from_state in zip(self.from_input, self._from_state, strict=True):
            state, states, logs = self._zeros(entering), [], []
            for x_gates in from_input(entering).unbind(0):
                h_gates = from_state(state.hidden)
                gates = (x_gates + h_gates).chunk(self.cell.n_gates, -1)
                logs.append(F.logsigmoid(gates[self.cell.keeping]).mean(0))
                state = self.cell.step(x_gates, h_gates, state)
                states.append(state.hidden)
            found.append(torch.stack(logs).mean(0))
            entering = torch.stack(states)
        return found

    def ask(self, queries: Tensor, final: Sequence[State]) -> Tensor:
        """Take one more step for each query from the final states, (N, Q, D).

        The queries, broadcast to (N, Q, D), come as the gates of the first layer's input.
        """
        out, gates = queries, queries
        for layer, state in enumerate(final):
            if layer:
                gates = self.from_input[layer](out)
            h_gates = self._from_state[layer](state.hidden)[:, None]
            memory = None if state.memory is None else state.memory[:, None]
            out = self.cell.step(gates, h_gates, State(state.hidden[:, None], memory)).hidden
        return out

    def _products(self) -> tuple[Sequence[_Product], Sequence[_Product]]:
        if not (self.rounds and torch.is_grad_enabled()):
            return self.from_input, self._from_state
        from_input = [RoundedLinear(one) for one in self.from_input]
        if not self.cell.reads_state:
            return from_input, self._from_state
        return from_input, [RoundedLinear(one) for one in self.from_state]

    @property
    def _from_state(self) -> Sequence[_Product]:
        """The products of the states, layer by layer; nothing for a cell that reads none."""
        if self.cell.reads_state:
            return self.from_state
        return [_nothing] * len(self.from_input)

    def _zeros(self, entering: Tensor) -> State:
        zeros = entering.new_zeros(entering.shape[1:])
        return State(zeros, zeros if self.cell.has_memory else None)

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        for from_state in self.from_state:
            for gate in from_state.weight.chunk(self.cell.n_gates):
                nn.init.orthogonal_(gate)
            nn.init.zeros_(from_state.bias)
        for from_input in self.from_input:
            nn.init.xavier_uniform_(from_input.weight)
            nn.init.zeros_(from_input.bias)
            if self.cell.has_memory:
                from_input.bias[width : 2 * width] = 1.0  # the forget gate starts open

    @torch.no_grad()
    def _keep_for(self, n_steps: int, width: int) -> None:
        """Let units keep what they know for times spread from one step to all of them.

        A gate that keeps 1 - 1/T of the state in a step has a bias of log(T - 1). The LSTM's gate
        that lets new readings in starts as far closed.
        """
        assert self.cell.keeping is not None
        first = self.cell.keeping * width
        for from_input in self.from_input:
            bias = torch.log(1 + torch.rand(width) * max(n_steps - 2, 1))
            from_input.bias[first : first + width] = bias
            if self.cell.has_memory:
                from_input.bias[:width] = -bias


def _nothing(hidden: Tensor) -> Tensor:
    """Return zeros that add to any gates."""
    return hidden.new_zeros(1).expand(*hidden.shape[:-1], 1)


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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 on this processor."""
    if device.type != "cpu":
        return False
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not public in torch 2.13
    return supports is not None and bool(supports())


class RoundedLinear:
    """A linear layer for one pass, its weights rounded once."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._rounded = linear.weight.detach().bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        """Return x, (..., in), times the weights, (out, in), plus the bias: (..., out)."""
        result: Tensor = _RoundedProduct.apply(  # type: ignore[no-untyped-call]
            x, self._linear.weight, self._linear.bias, self._rounded
        )
        return result


class _RoundedProduct(torch.autograd.Function):
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
