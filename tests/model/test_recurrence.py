"""The recurrence against torch's own layers with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnnforecast.model.recurrence import CELLS, Recurrence, State, _GRUStep

CELL_NAMES = sorted(CELLS)
TORCHS_OWN = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
WIDTH, N_WINDOWS, N_STEPS, N_QUERIES = 5, 3, 7, 4


def make_recurrence(cell: str, *, layers: int = 1) -> Recurrence:
    torch.manual_seed(0)
    recurrence = Recurrence(cell, WIDTH, layers).double()
    for parameter in recurrence.parameters():
        nn.init.normal_(parameter, std=0.5)
    return recurrence


def torchs_own(cell: str, recurrence: Recurrence) -> nn.RNNBase:
    """Make torch's layers of the same weights."""
    layers = len(recurrence.from_input)
    own = TORCHS_OWN[cell](WIDTH, WIDTH, num_layers=layers).double()
    with torch.no_grad():
        for k in range(layers):
            for letter, linears in (("i", recurrence.from_input), ("h", recurrence.from_state)):
                getattr(own, f"weight_{letter}h_l{k}").copy_(linears[k].weight)
                getattr(own, f"bias_{letter}h_l{k}").copy_(linears[k].bias)
    return own


def gradients_of(own: nn.RNNBase) -> dict[str, Tensor]:
    """Return the gradients of torch's layers, by the names of ours."""
    return {
        f"from_{way}.{k}.{part}": getattr(own, f"{part}_{letter}h_l{k}").grad
        for k in range(own.num_layers)
        for way, letter in (("input", "i"), ("state", "h"))
        for part in ("weight", "bias")
    }


def assert_equal_gradients(recurrence: Recurrence, own: nn.RNNBase) -> None:
    expected = gradients_of(own)
    assert expected.keys() == dict(recurrence.named_parameters()).keys()
    for name, parameter in recurrence.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)
        assert (expected[name] != 0).any()


def run_by_torch(own: nn.RNNBase, entering: Tensor, states: object = None) -> tuple[Tensor, ...]:
    """Return the outputs, the final hidden states and, of an LSTM, the cells."""
    outputs, final = own(entering, states)
    return (outputs, *final) if isinstance(final, tuple) else (outputs, final)


@pytest.mark.parametrize("n_steps", [1, N_STEPS])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_the_final_states_and_all_gradients_are_those_of_torchs_own_layers(
    cell: str, layers: int, n_steps: int
) -> None:
    recurrence = make_recurrence(cell, layers=layers)
    own = torchs_own(cell, recurrence)
    entering = torch.randn(n_steps, N_WINDOWS, WIDTH, dtype=torch.float64, requires_grad=True)
    same = entering.detach().clone().requires_grad_()

    final = recurrence(entering)
    _, *expected = run_by_torch(own, same)

    found = [torch.stack([state.hidden for state in final])]
    if cell == "lstm":
        found.append(torch.stack([state.memory for state in final]))
    assert len(found) == len(expected)
    weights = [torch.randn_like(x) for x in found]
    for values in (found, expected):
        sum((w * x).sum() for w, x in zip(weights, values, strict=True)).backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(entering.grad, same.grad)
    if n_steps > 1:
        assert_equal_gradients(recurrence, own)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_asking_is_one_more_step_of_torchs_own_layers_for_each_query(
    cell: str, layers: int
) -> None:
    recurrence = make_recurrence(cell, layers=layers)
    own = torchs_own(cell, recurrence)
    entering = torch.randn(N_STEPS, N_WINDOWS, WIDTH, dtype=torch.float64)
    queries = torch.randn(N_WINDOWS, N_QUERIES, WIDTH, dtype=torch.float64)

    answers = recurrence.ask(recurrence.from_input[0](queries), recurrence(entering))
    slow = []
    for q in range(N_QUERIES):
        longer = torch.cat([entering, queries[None, :, q]])
        slow.append(run_by_torch(own, longer)[0][-1])
    expected = torch.stack(slow, 1)

    torch.testing.assert_close(answers, expected)
    weights = torch.randn_like(answers)
    (weights * answers).sum().backward()
    (weights * expected).sum().backward()
    assert_equal_gradients(recurrence, own)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_queries_that_all_windows_share_are_asked_as_one_by_one(cell: str, layers: int) -> None:
    recurrence = make_recurrence(cell, layers=layers)
    final = recurrence(torch.randn(N_STEPS, N_WINDOWS, WIDTH, dtype=torch.float64))
    gates = torch.randn(N_QUERIES, CELLS[cell].n_gates * WIDTH, dtype=torch.float64)
    shared, single = gates.clone().requires_grad_(), gates.clone().requires_grad_()

    together = recurrence.ask(shared, final)
    alone = torch.empty_like(together)
    for n in range(N_WINDOWS):
        states = [
            State(s.hidden[n, None], None if s.memory is None else s.memory[n, None]) for s in final
        ]
        for q in range(N_QUERIES):
            alone[n, q] = recurrence.ask(single[None, None, q], states)[0, 0]

    assert together.shape == (N_WINDOWS, N_QUERIES, WIDTH)
    torch.testing.assert_close(together, alone)
    weights = torch.randn_like(together)
    (weights * together).sum().backward(retain_graph=True)
    (weights * alone).sum().backward()
    torch.testing.assert_close(shared.grad, single.grad)


@pytest.mark.parametrize(
    ("x", "h", "state"),
    [
        ((3,), (3,), (3,)),
        ((3,), (1,), (3,)),
        ((3, 4), (3, 1), (3, 1)),
        ((1, 4), (3, 1), (3, 1)),
        ((4,), (3, 1), (3, 1)),
        ((1, 1), (3, 1), (3, 1)),
    ],
)
def test_the_gradient_of_the_grus_step_is_that_of_differences(
    x: tuple[int, ...], h: tuple[int, ...], state: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    inputs = tuple(
        torch.randn(*shape, width, dtype=torch.float64, requires_grad=True)
        for shape, width in ((x, 6), (h, 6), (state, 2))
    )

    assert torch.autograd.gradcheck(_GRUStep.apply, inputs)


def test_the_grus_step_writes_into_none_of_its_inputs() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(3, width, requires_grad=True) for width in (6, 6, 2)]
    before = [x.detach().clone() for x in inputs]

    _GRUStep.apply(*inputs).sum().backward()

    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_the_grus_step_bears_gates_that_are_far_out() -> None:
    x = torch.tensor([[-200.0, 200.0, -200.0], [200.0, -200.0, 200.0]], requires_grad=True)

    state = _GRUStep.apply(x, torch.zeros(2, 3), torch.tensor([[0.3], [0.3]]))
    state.sum().backward()

    assert torch.allclose(state, torch.tensor([[0.3], [1.0]]))
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_recurrent_weights_start_orthogonal_and_the_forget_gate_open(cell: str) -> None:
    recurrence = Recurrence(cell, 16, 2)

    for from_input, from_state in zip(recurrence.from_input, recurrence.from_state, strict=True):
        for gate in from_state.weight.chunk(CELLS[cell].n_gates):
            assert torch.allclose(gate @ gate.T, torch.eye(16), atol=1e-5)
        assert (from_state.bias == 0).all()
        opened = torch.zeros_like(from_input.bias)
        if cell == "lstm":
            opened[16:32] = 1
        assert torch.equal(from_input.bias, opened)
