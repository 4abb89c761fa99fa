"""The recurrence: layers of one cell, run over steps, then asked from their final state.

Written out rather than taken from torch, because the same step runs the history and answers every
lead: the product of state and weights, most of a step's work, is then computed once for all leads.
The GRU's step also has its own gradient, a third of the passes over memory that autograd makes.

Shapes: S steps, N windows, D hidden, G gates, Q queries. Sources of initialisation: Saxe and others
2014 (orthogonal), Jozefowicz and others 2015 (forget gate), Tallec and Ollivier 2018, arXiv
1804.11188 (chrono); of truncation: Williams and Peng 1990.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rnnforecast.model.cells import CELLS, State
from rnnforecast.model.product import RoundedLinear


def _linears(width: int, n_out: int, layers: int) -> Any:
    return nn.ModuleList(nn.Linear(width, n_out) for _ in range(layers))


_Product = Callable[[Tensor], Tensor]


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
