"""What is measured of a network's memory, against finite differences and slow loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnforecast.data.windows import make_past
from rnnforecast.model.memory import (
    Deviations,
    find_effective_memory,
    gradients_by_lag,
    measure_memory,
    n_windows_to_measure,
    run_in_chunks,
    state_gradients,
    time_constants,
)
from rnnforecast.model.network import Network
from rnnforecast.model.recurrence import State
from rnnforecast.spec import CELLS, MemberSpec
from tests.builders import make_panel
from tests.model.networks import CELL_NAMES, make_network

LOOKBACK, HORIZON = 24, 12
PLAIN = MemberSpec(LOOKBACK, 6, linear=False, seasonal=False)
LINEAR = MemberSpec(LOOKBACK, 6, linear=True, seasonal=True)
SHORT = MemberSpec(10, 4, linear=True, seasonal=False)


def gathered(n: int = 5, *, missing: bool = False):
    rng = np.random.default_rng(0)
    readings = rng.standard_normal((2, 80)).astype(np.float32)
    if missing:
        readings[rng.random(readings.shape) < 0.1] = np.nan
    windows = make_past(make_panel(*readings)).windows(LOOKBACK, HORIZON)
    return windows.gather(windows.spread(n))


def lively(**options: object) -> Network:
    """Make a network in doubles whose every weight matters."""
    network = make_network(**options).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).double())
    return network


def medians(network: Network, batch) -> np.ndarray:
    history = torch.from_numpy(batch.history).double()
    series, step = torch.from_numpy(batch.series) + 1, torch.from_numpy(batch.next_step)
    with torch.no_grad():
        return network(history, series, step)[:, :, network.spec.median].numpy()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("members", [(PLAIN,), (LINEAR, PLAIN, SHORT)])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_gradients_by_lag_are_those_of_finite_differences(
    cell: str,
    members: tuple[MemberSpec, ...],
    missing: bool,  # noqa: FBT001
) -> None:
    network, batch = lively(cell=cell, members=members), gathered(missing=missing)
    leads = [1, 6, HORIZON]

    found = gradients_by_lag(network, batch, leads)

    seen, step = np.isfinite(batch.history), 1e-4
    for lag in (1, 2, 7, LOOKBACK):
        place = LOOKBACK - lag
        moved = []
        for sign in (1, -1):
            history = batch.history.astype(np.float64)
            history[:, place] += sign * step
            moved.append(medians(network, replace(batch, history=history)))
        slopes = np.abs(moved[0] - moved[1]) / (2 * step)
        expected = slopes[seen[:, place]].mean(0)[np.array(leads) - 1]
        np.testing.assert_allclose(found[:, lag - 1], expected, rtol=1e-3, atol=1e-9)
    assert (found[:, 0] > 0).all()


def step_by_step(network: Network, embedded: torch.Tensor) -> list[list[State]]:
    """Run the cell's step in a plain loop, all layers at each step."""
    (member,) = network.members
    recurrence = member.recurrence
    cell, width = recurrence.cell, embedded.shape[-1]
    zeros = embedded.new_zeros(embedded.shape[1], width)
    memory = zeros if cell.has_memory else None
    states = [State(zeros, memory) for _ in recurrence.linear_ih]
    every = []
    for outside in embedded:
        x = outside
        for layer, state in enumerate(states):
            h_gates = zeros[:, :1]
            if cell.reads_state:
                h_gates = recurrence.linear_hh[layer](state.hidden)
            states[layer] = recurrence.step(recurrence.linear_ih[layer](x), h_gates, state)
            x = states[layer].hidden
        every.append(list(states))
    return every


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_state_gradients_of_the_chunked_pass_are_those_of_a_plain_loop(
    cell: str, layers: int
) -> None:
    network, batch = lively(cell=cell, layers=layers, segment=2), gathered()
    (member,) = network.members
    embedded = torch.randn(12, 5, 16, dtype=torch.float64)
    series = torch.from_numpy(batch.series) + 1

    borders = run_in_chunks(member, embedded.split(3))
    loop = step_by_step(network, embedded)
    both = []
    for states, last in (([borders[1]], borders[-1]), ([loop[5]], loop[-1])):
        moved = member.decode_leads(last, series)[:, 0, network.spec.median].sum()
        parts = [part for state in states[0] for part in state if part is not None]
        both.append(torch.autograd.grad(moved, parts))

    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)
    assert any(bool((one != 0).any()) for one in both[0])


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_state_gradients_begin_at_the_end_and_have_a_place_for_each_border(cell: str) -> None:
    network, batch = lively(cell=cell, segment=2), gathered()
    (member,) = network.members

    back, sizes = state_gradients(network, member, batch, 1)

    assert back == list(range(12))
    assert len(sizes) == 12
    assert (sizes > 0).all()


def test_a_forecast_from_the_last_k_readings_knows_nothing_of_those_before() -> None:
    """Neither by level nor by spread: what stands there changes no loss but the longer ones."""
    network, batch = lively(members=(LINEAR, PLAIN)), gathered()
    other = batch.history.copy()
    other[:, : LOOKBACK - 10] *= 7.0

    one = measure_memory(network, batch)
    two = measure_memory(network, replace(batch, history=other))

    for kept, first, second in zip(one.kept, one.losses, two.losses, strict=False):
        assert (first == second) == (kept <= 10)


def test_the_last_length_is_all_of_it() -> None:
    network, batch = lively(members=(SHORT, PLAIN)), gathered()

    assert measure_memory(network, batch).kept[-1] == LOOKBACK
    assert measure_memory(network, batch, members=[network.members[0]]).kept[-1] == 10


@pytest.mark.parametrize("needed", [0, 1, 5, 50, 200, 719, 720])
def test_the_length_from_which_on_nothing_is_lost_is_found_to_two_percent(needed: int) -> None:
    found = find_effective_memory(lambda k: 1.0 if k >= needed else 1.2, 720, per_doubling=2)

    assert abs(found.effective - needed) <= max(0, 0.02 * needed)
    assert len(found.kept) < 40


def test_a_length_that_is_good_by_chance_is_not_the_effective_memory() -> None:
    losses = {3: 1.0}
    found = find_effective_memory(
        lambda k: losses.get(k, 1.0 if k >= 60 else 1.5), 100, per_doubling=4
    )

    assert found.effective == 60


def test_a_loss_that_is_no_number_is_no_good_one() -> None:
    found = find_effective_memory(lambda k: 1.0 if k >= 8 else float("nan"), 16, per_doubling=4)

    assert found.effective == 8


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_time_constants_are_those_of_the_gates_bias_where_nothing_else_moves_them(
    cell: str,
) -> None:
    network, batch = lively(cell=cell, segment=2), gathered()
    (member,) = network.members
    recurrence = member.recurrence
    if CELLS[cell].retention_gate is None:
        assert time_constants(network, member, batch) is None
        return
    width = 16
    gate = CELLS[cell].retention_gate
    with torch.no_grad():
        for parameter in recurrence.parameters():
            parameter.zero_()
        recurrence.linear_ih[0].bias[gate * width : (gate + 1) * width] = np.log(49.0)

    (found,) = time_constants(network, member, batch)

    np.testing.assert_allclose(found, 2 / -np.log(0.98), rtol=1e-6)


def test_errors_beside_a_repetition_are_in_units_of_it() -> None:
    rng = np.random.default_rng(0)
    past, future = rng.standard_normal((40, 10)), rng.standard_normal((40, 3))
    repeats = 0.8 * past[:, 5:8]

    def beside(median: np.ndarray, lag: int = 5, actual: np.ndarray = future) -> object:
        return Deviations(past, actual, median).errors_relative_to_lag(lag, 0.8)

    none_at_all = np.abs(future).sum() / np.abs(future - repeats).sum()
    assert beside(repeats) == pytest.approx((1.0, none_at_all))
    assert beside(future) == pytest.approx((0.0, none_at_all))
    assert beside(0 * future) == pytest.approx((none_at_all, none_at_all))
    assert beside(repeats, actual=np.full_like(future, np.nan)) is None
    first_two = np.abs(future[:, :2] - 0.8 * past[:, 8:10]).sum()
    assert beside(repeats, lag=2) == pytest.approx(
        (np.abs(future - repeats)[:, :2].sum() / first_two, np.abs(future[:, :2]).sum() / first_two)
    )


def test_more_windows_are_looked_at_where_they_cost_little() -> None:
    small, long = make_network(members=(PLAIN,)), make_network(lookback=4000, segment=1)

    assert n_windows_to_measure(long, long.members, 64) == 64
    n_values = 4 * 16 + 24 + 12 * 11  # states, readings, quantiles of forecasts
    assert n_windows_to_measure(small, small.members, 64) == min(64 * 5000 // n_values, 1024)
    assert n_windows_to_measure(small, small.members, 600) == 1024
    assert n_windows_to_measure(small, small.members, 2000) == 2000
