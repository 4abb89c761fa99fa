"""The recurrence against torch's own layers with the same weights, and against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rnnforecast.model.member import _STEPS, Recurrence, State, _GRUStep, joined
from rnnforecast.spec import CELLS

CELL_NAMES = sorted(CELLS)
TORCH_LAYERS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
OF_TORCH = sorted(TORCH_LAYERS)
WIDTH, N_WINDOWS, N_STEPS = 5, 3, 7


def make_recurrence(cell: str) -> Recurrence:
    torch.manual_seed(0)
    recurrence = Recurrence(cell, WIDTH).double()
    for parameter in recurrence.parameters():
        nn.init.normal_(parameter, std=0.5)
    return recurrence


def make_steps(n: int = N_STEPS) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(n, N_WINDOWS, WIDTH, dtype=torch.float64)


def make_layer(cell: str, recurrence: Recurrence) -> nn.RNNBase:
    """Make torch's layer of the same weights."""
    layer = TORCH_LAYERS[cell](WIDTH, WIDTH).double()
    with torch.no_grad():
        for letter, linear in (("i", recurrence.linear_ih), ("h", recurrence.linear_hh)):
            getattr(layer, f"weight_{letter}h_l0").copy_(linear.weight)
            getattr(layer, f"bias_{letter}h_l0").copy_(linear.bias)
    return layer


@pytest.mark.parametrize("n_steps", [1, N_STEPS])
@pytest.mark.parametrize("cell", OF_TORCH)
def test_states_and_all_gradients_are_those_of_torchs_own_layer(cell: str, n_steps: int) -> None:
    recurrence = make_recurrence(cell)
    layer = make_layer(cell, recurrence)
    steps, same = (make_steps(n_steps).requires_grad_() for _ in range(2))

    states = recurrence(steps)
    expected, end = layer(same)

    assert states.hidden.shape == (1 + n_steps, N_WINDOWS, WIDTH)
    results = [states.hidden[1:], states.hidden[-1]]
    references = [expected, (end[0] if cell == "lstm" else end)[0]]
    if cell == "lstm":
        results.append(states.memory[-1])
        references.append(end[1][0])
    weights = [torch.randn_like(x) for x in results]
    for values in (results, references):
        sum((w * x).sum() for w, x in zip(weights, values, strict=True)).backward()
    for result, reference in zip(results, references, strict=True):
        torch.testing.assert_close(result, reference)
    torch.testing.assert_close(steps.grad, same.grad)
    for name, parameter in recurrence.named_parameters():
        linear, part = name.split(".")
        torch.testing.assert_close(parameter.grad, getattr(layer, f"{part}_{linear[-2:]}_l0").grad)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def next_state(
    cell: str, x: list[list[float]], h: list[list[float]], hidden: float, memory: float, i: int
) -> tuple[float, float]:
    """Return unit i of the next state: x and h are the gates from input and state, gate by gate."""
    if cell == "rnn":
        return math.tanh(x[0][i] + h[0][i]), 0.0
    if cell == "gru":
        reset, update = (sigmoid(x[k][i] + h[k][i]) for k in range(2))
        new = math.tanh(x[2][i] + reset * h[2][i])
        return (1 - update) * new + update * hidden, 0.0
    if cell == "mingru":  # Feng and others 2024; their gate is 1 - update
        update = sigmoid(x[0][i])
        return (1 - update) * x[1][i] + update * hidden, 0.0
    enter, forget, new, leave = (x[k][i] + h[k][i] for k in range(4))
    memory = sigmoid(forget) * memory + sigmoid(enter) * math.tanh(new)
    return sigmoid(leave) * math.tanh(memory), memory


def products(linear: nn.Linear | None, values: list[float], n_gates: int) -> list[list[float]]:
    """Return what a layer makes of values, gate by gate; zeros where there is none."""
    if linear is None:
        return [[0.0] * WIDTH] * n_gates
    rows = zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    flat = [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in rows]
    return [flat[k * WIDTH : (k + 1) * WIDTH] for k in range(n_gates)]


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_each_cell_is_the_loop_of_its_equations(cell: str) -> None:
    recurrence, steps = make_recurrence(cell), make_steps()
    n_gates = CELLS[cell].n_gates

    states = recurrence(steps)

    assert (states.memory is None) == (cell != "lstm")
    assert all(x is None or not x[0].any() for x in states), "it began with zeros"
    for n in range(N_WINDOWS):
        hidden, memory = [0.0] * WIDTH, [0.0] * WIDTH
        for t in range(N_STEPS):
            x = products(recurrence.linear_ih, steps[t, n].tolist(), n_gates)
            h = products(recurrence.linear_hh, hidden, n_gates)
            units = [next_state(cell, x, h, hidden[i], memory[i], i) for i in range(WIDTH)]
            hidden, memory = [u[0] for u in units], [u[1] for u in units]
            assert states.hidden[1 + t, n].tolist() == pytest.approx(hidden)
            if states.memory is not None:
                assert states.memory[1 + t, n].tolist() == pytest.approx(memory)


@pytest.mark.parametrize(
    ("x", "h", "state"),
    [((3,), (3,), (3,)), ((3,), (1,), (3,)), ((1, 4), (3, 1), (3, 1)), ((4,), (3, 1), (3, 1))],
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
    recurrence = Recurrence(cell, 16)

    assert (recurrence.linear_hh is not None) == CELLS[cell].reads_state
    if recurrence.linear_hh is not None:
        for gate in recurrence.linear_hh.weight.chunk(CELLS[cell].n_gates):
            assert torch.allclose(gate @ gate.T, torch.eye(16), atol=1e-5)
        assert (recurrence.linear_hh.bias == 0).all()
    opened = torch.zeros_like(recurrence.linear_ih.bias)
    if cell == "lstm":
        opened[16:32] = 1
    assert torch.equal(recurrence.linear_ih.bias, opened)


def test_no_step_of_the_mingru_makes_a_gradient_larger() -> None:
    recurrence = make_recurrence("mingru")
    begin = torch.randn(N_WINDOWS, WIDTH, dtype=torch.float64).requires_grad_()

    states = recurrence(10 * make_steps(50), State(begin))
    states.hidden[-1].sum().backward()

    assert (begin.grad.abs() <= 1).all()


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_pass_in_parts_that_carry_the_state_is_one_pass(cell: str) -> None:
    recurrence, steps = make_recurrence(cell), make_steps()

    parts, state = [], recurrence.zeros(steps)
    for part in (*steps.split(3), steps[:0]):
        parts.append(recurrence(part, state))
        assert torch.equal(parts[-1].hidden[0], state.hidden), "the first is what it began with"
        state = parts[-1].at(-1)

    for result, reference in zip(joined(parts), recurrence(steps), strict=True):
        torch.testing.assert_close(result, reference)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_retention_is_the_derivative_of_the_state_where_no_gate_reads_it(cell: str) -> None:
    """Without recurrent weights a unit decays by its retention gate alone."""
    recurrence = make_recurrence(cell)
    if recurrence.linear_hh is not None:
        nn.init.zeros_(recurrence.linear_hh.weight)
    steps = make_steps(2)[:, :1]
    logs = recurrence.log_retention(steps)
    if CELLS[cell].retention_gate is None:
        assert logs is None
        return

    begin = State(*(x.requires_grad_() for x in recurrence.zeros(steps) if x is not None))
    kind = "memory" if cell == "lstm" else "hidden"
    end, first = getattr(recurrence(steps, begin).at(-1), kind), getattr(begin, kind)
    (gradient,) = torch.autograd.grad(end.sum(), first)

    torch.testing.assert_close(gradient[0].log() / 2, logs)


@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_chrono_spreads_how_long_units_remember_over_the_window(cell: str) -> None:
    torch.manual_seed(0)
    recurrence = Recurrence(cell, 400, init="chrono", n_steps=200)

    logs = recurrence.log_retention(torch.zeros(1, 1, 400))

    steps = 1 / -torch.expm1(logs)  # 1 / (1 - share) of a uniform draw between 1 and 200
    assert steps.min() >= 1
    assert steps.max() <= 200
    quarters = torch.quantile(steps, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quarters, torch.tensor([50.0, 100.0, 150.0]), rtol=0.2, atol=0)


@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_chrono_keeps_more_of_a_gradient_than_orthogonal_and_that_more_than_torchs_own(
    cell: str,
) -> None:
    norms = []
    for init in ("default", "orthogonal", "chrono"):
        torch.manual_seed(0)
        recurrence = Recurrence(cell, 32, init=init, n_steps=100)
        memory = torch.zeros(8, 32) if CELLS[cell].has_memory else None
        begin = State(torch.zeros(8, 32).requires_grad_(), memory)
        states = recurrence(torch.randn(100, 8, 32), begin)
        (gradient,) = torch.autograd.grad(states.hidden[-1].sum(), begin.hidden)
        norms.append(float(gradient.norm()))

    assert norms[2] > 100 * max(norms[:2])
    if cell != "mingru":  # whose gates have no recurrent weights
        assert norms[1] > 10 * norms[0]


def test_every_cell_has_its_equations() -> None:
    assert list(CELLS) == list(_STEPS)
