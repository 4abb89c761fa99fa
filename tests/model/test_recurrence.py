"""The recurrence against torch's own layers with the same weights, and against slow loops."""

from __future__ import annotations

import math
import operator

import pytest
import torch
from torch import Tensor, nn

from rnnforecast.model.recurrence import _STEPS, Recurrence, State, _GRUStep
from rnnforecast.spec import CELLS

CELL_NAMES = sorted(CELLS)
TORCHS_OWN = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
OF_TORCH = sorted(TORCHS_OWN)
WIDTH, N_WINDOWS, N_STEPS, N_QUERIES = 5, 3, 7, 4


def make_recurrence(cell: str, *, layers: int = 1) -> Recurrence:
    torch.manual_seed(0)
    recurrence = Recurrence(cell, WIDTH, layers).double()
    for parameter in recurrence.parameters():
        nn.init.normal_(parameter, std=0.5)
    return recurrence


def torchs_own(cell: str, recurrence: Recurrence) -> nn.RNNBase:
    """Make torch's layers of the same weights."""
    layers = len(recurrence.linear_ih)
    own = TORCHS_OWN[cell](WIDTH, WIDTH, num_layers=layers).double()
    with torch.no_grad():
        for k in range(layers):
            for letter, linears in (("i", recurrence.linear_ih), ("h", recurrence.linear_hh)):
                getattr(own, f"weight_{letter}h_l{k}").copy_(linears[k].weight)
                getattr(own, f"bias_{letter}h_l{k}").copy_(linears[k].bias)
    return own


def gradients_of(own: nn.RNNBase) -> dict[str, Tensor]:
    """Return the gradients of torch's layers, by the names of ours."""
    return {
        f"linear_{letter}h.{k}.{part}": getattr(own, f"{part}_{letter}h_l{k}").grad
        for k in range(own.num_layers)
        for letter in ("i", "h")
        for part in ("weight", "bias")
    }


def assert_equal_gradients(recurrence: Recurrence, own: nn.RNNBase) -> None:
    expected = gradients_of(own)
    assert expected.keys() == dict(recurrence.named_parameters()).keys()
    for name, parameter in recurrence.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)
        assert (expected[name] != 0).any()


def run_by_torch(own: nn.RNNBase, embedded: Tensor, states: object = None) -> tuple[Tensor, ...]:
    """Return the outputs, the final hidden states and, of an LSTM, the cells."""
    outputs, final = own(embedded, states)
    return (outputs, *final) if isinstance(final, tuple) else (outputs, final)


@pytest.mark.parametrize("n_steps", [1, N_STEPS])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", OF_TORCH)
def test_the_final_states_and_all_gradients_are_those_of_torchs_own_layers(
    cell: str, layers: int, n_steps: int
) -> None:
    recurrence = make_recurrence(cell, layers=layers)
    own = torchs_own(cell, recurrence)
    embedded = torch.randn(n_steps, N_WINDOWS, WIDTH, dtype=torch.float64, requires_grad=True)
    same = embedded.detach().clone().requires_grad_()

    final = recurrence(embedded)
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
    torch.testing.assert_close(embedded.grad, same.grad)
    if n_steps > 1:
        assert_equal_gradients(recurrence, own)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", OF_TORCH)
def test_asking_is_one_more_step_of_torchs_own_layers_for_each_query(
    cell: str, layers: int
) -> None:
    recurrence = make_recurrence(cell, layers=layers)
    own = torchs_own(cell, recurrence)
    embedded = torch.randn(N_STEPS, N_WINDOWS, WIDTH, dtype=torch.float64)
    queries = torch.randn(N_WINDOWS, N_QUERIES, WIDTH, dtype=torch.float64)

    answers = recurrence.decode(recurrence.linear_ih[0](queries), recurrence(embedded))
    slow = []
    for q in range(N_QUERIES):
        longer = torch.cat([embedded, queries[None, :, q]])
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

    together = recurrence.decode(shared, final)
    alone = torch.empty_like(together)
    for n in range(N_WINDOWS):
        states = [
            State(s.hidden[n, None], None if s.memory is None else s.memory[n, None]) for s in final
        ]
        for q in range(N_QUERIES):
            alone[n, q] = recurrence.decode(single[None, None, q], states)[0, 0]

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

    assert len(recurrence.linear_hh) == (2 if CELLS[cell].reads_state else 0)
    for linear_hh in recurrence.linear_hh:
        for gate in linear_hh.weight.chunk(CELLS[cell].n_gates):
            assert torch.allclose(gate @ gate.T, torch.eye(16), atol=1e-5)
        assert (linear_hh.bias == 0).all()
    for linear_ih in recurrence.linear_ih:
        opened = torch.zeros_like(linear_ih.bias)
        if cell == "lstm":
            opened[16:32] = 1
        assert torch.equal(linear_ih.bias, opened)


def test_the_mingru_is_the_loop_of_its_equations() -> None:
    """Feng and others 2024: z = sigmoid(W_z x); h = (1 - z) h + z W_h x, number by number."""
    recurrence = make_recurrence("mingru", layers=2)
    embedded = torch.randn(N_STEPS, N_WINDOWS, WIDTH, dtype=torch.float64)

    final = recurrence(embedded)

    for n in range(N_WINDOWS):
        inputs = embedded[:, n].tolist()
        for layer, linear in enumerate(recurrence.linear_ih):
            weight, bias = linear.weight.tolist(), linear.bias.tolist()
            hidden, outputs = [0.0] * WIDTH, []
            for x in inputs:
                product = [
                    sum(map(operator.mul, row, x)) + b for row, b in zip(weight, bias, strict=True)
                ]
                for i in range(WIDTH):
                    z = 1 - 1 / (1 + math.exp(-product[i]))  # the first gate says what is kept
                    hidden[i] = (1 - z) * hidden[i] + z * product[WIDTH + i]
                outputs.append(list(hidden))
            assert final[layer].hidden[n].tolist() == pytest.approx(hidden)
            inputs = outputs


def test_no_step_of_the_mingru_makes_a_gradient_larger() -> None:
    recurrence = make_recurrence("mingru")
    begin = [State(torch.randn(N_WINDOWS, WIDTH, dtype=torch.float64).requires_grad_())]
    embedded = 10 * torch.randn(50, N_WINDOWS, WIDTH, dtype=torch.float64)

    recurrence(embedded, begin)[0].hidden.sum().backward()

    assert (begin[0].hidden.grad.abs() <= 1).all()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_pass_in_parts_that_carry_the_state_is_one_pass(cell: str, layers: int) -> None:
    recurrence = make_recurrence(cell, layers=layers)
    embedded = torch.randn(N_STEPS, N_WINDOWS, WIDTH, dtype=torch.float64)

    states = None
    for part in embedded.split(3):
        states = recurrence(part, states)

    for one, other in zip(states, recurrence(embedded), strict=True):
        torch.testing.assert_close(one.hidden, other.hidden)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_truncated_the_states_are_the_same_and_gradients_end_at_the_border(cell: str) -> None:
    recurrence = make_recurrence(cell, layers=2)
    embedded = torch.randn(N_STEPS, N_WINDOWS, WIDTH, dtype=torch.float64, requires_grad=True)

    whole, part = recurrence(embedded), recurrence.truncated(embedded, 3)
    gradients = [
        torch.autograd.grad(final[-1].hidden.sum(), embedded)[0].abs().sum((1, 2))
        for final in (whole, part)
    ]

    for one, other in zip(whole, part, strict=True):
        torch.testing.assert_close(one.hidden, other.hidden)
    assert (gradients[0] > 0).all()
    assert (gradients[1][:-3] == 0).all()
    assert (gradients[1][-3:] > 0).all()


@pytest.mark.parametrize("n_steps", [N_STEPS, N_STEPS + 5])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_truncated_after_all_steps_nothing_differs_in_any_bit(cell: str, n_steps: int) -> None:
    recurrence = make_recurrence(cell).float()
    embedded = torch.randn(N_STEPS, N_WINDOWS, WIDTH)

    found = []
    for final in (recurrence(embedded), recurrence.truncated(embedded, n_steps)):
        recurrence.zero_grad()
        final[0].hidden.square().sum().backward()
        found.append([final[0].hidden, *(p.grad for p in recurrence.parameters())])

    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_chrono_spreads_how_long_units_remember_over_the_window(cell: str) -> None:
    torch.manual_seed(0)
    recurrence = Recurrence(cell, 400, 1, init="chrono", n_steps=200)

    (kept,) = recurrence.log_retention(torch.zeros(1, 1, 400))

    steps = 1 / -torch.expm1(kept)  # 1 / (1 - share) of a uniform draw between 1 and 200
    assert steps.min() >= 1
    assert steps.max() <= 200
    quarters = torch.quantile(steps, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quarters, torch.tensor([50.0, 100.0, 150.0]), rtol=0.2, atol=0)


@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
def test_chrono_keeps_more_of_a_gradient_than_orthogonal_and_that_more_than_torchs_own(
    cell: str,
) -> None:
    left = []
    for init in ("default", "orthogonal", "chrono"):
        torch.manual_seed(0)
        recurrence = Recurrence(cell, 64, 1, init=init, n_steps=100)
        memory = torch.zeros(8, 64) if CELLS[cell].has_memory else None
        begin = State(torch.zeros(8, 64).requires_grad_(), memory)
        embedded = torch.randn(100, 8, 64)
        (final,) = recurrence(embedded, [begin])
        (gradient,) = torch.autograd.grad(final.hidden.sum(), begin.hidden)
        left.append(float(gradient.norm()))

    assert left[2] > 100 * max(left[:2])
    if cell != "mingru":  # whose gates have no recurrent weights
        assert left[1] > 10 * left[0]


def test_every_cell_has_its_equations() -> None:
    assert list(CELLS) == list(_STEPS)
