"""What is measured of a network's memory, against forecasts that are known and slow loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnforecast.data.panel import Features
from rnnforecast.data.windows import Batch, make_past
from rnnforecast.model import memory
from rnnforecast.model.experts import NAMES
from rnnforecast.model.loss import history_of, quantile_losses
from rnnforecast.model.member import State, make_member, to_tensors
from rnnforecast.model.memory import (
    Deviations,
    deviations_of,
    find_effective_memory,
    gradients_by_lag,
    measure_memory,
    state_gradients,
    time_constants,
)
from rnnforecast.model.network import Network
from rnnforecast.spec import (
    CELLS,
    CONTEXT_ROWS,
    N_BEFORE,
    N_FULL,
    N_SHOWN,
    MemberSpec,
    NetworkSpec,
)
from tests.builders import make_panel, make_spec, random_walk, wave
from tests.model.networks import draw_network, moved, with_weights

LOOKBACK, HORIZON, SEASON = 24, 12, 8
CELL_NAMES = sorted(CELLS)


def gathered(n: int = 5, *, missing: bool = False, lookback: int = LOOKBACK) -> Batch:
    rng = np.random.default_rng(0)
    readings = rng.standard_normal((2, lookback + 56)).astype(np.float32)
    if missing:
        readings[rng.random(readings.shape) < 0.3] = np.nan
    windows = make_past(make_panel(*readings)).windows(lookback, HORIZON)
    return windows.gather(windows.spread(n))


def made(spec: NetworkSpec) -> Network:
    network = draw_network(spec)
    network.seasons[:] = SEASON, 1
    return network


def lively(
    cell: str = "gru", *, layers: int = 1, segment: int = 2, lookback: int = LOOKBACK, **n: int
) -> Network:
    """Make a network whose every weight matters."""
    torch.manual_seed(0)
    member = MemberSpec(cell, hidden=6, layers=layers, segment=segment)
    spec = replace(make_spec(lookback, HORIZON, SEASON, 2, members=(member,)), **n)
    return moved(made(spec), 0.3)


def repeating(expert: str) -> Network:
    """Make a network that forecasts by one expert alone."""
    network = made(make_spec(LOOKBACK, HORIZON, SEASON, 2))
    tensors, n_quantiles = network.members[0].tensors, len(network.spec.quantiles)
    bias = np.zeros_like(tensors["head.bias"])
    by_output = bias.reshape(-1, network.spec.members[0].segment)
    by_output[n_quantiles:][:N_FULL] = -100.0
    by_output[n_quantiles + NAMES.index(expert)] = 100.0
    weight = np.zeros_like(tensors["head.weight"])
    return with_weights(network, 0, {"head.weight": weight, "head.bias": bias})


# Gradients by lag


@pytest.mark.parametrize("missing", [False, True])
def test_the_gradient_of_the_last_value_is_1_at_the_newest_reading(
    missing: bool,  # noqa: FBT001
) -> None:
    batch = gathered(20, missing=missing)

    gradients = gradients_by_lag(repeating("last"), batch, [1, HORIZON])

    is_read = np.isfinite(batch.history[:, ::-1])
    for lag in range(1, LOOKBACK + 1):
        windows = is_read[is_read[:, lag - 1]]
        is_newest = ~windows[:, : lag - 1].any(1)
        np.testing.assert_allclose(gradients[:, lag - 1], is_newest.mean(), atol=1e-4)


def test_the_gradient_of_a_repeated_season_is_1_one_season_before_the_lead() -> None:
    gradients = gradients_by_lag(repeating("season"), gathered(), [1, 3, SEASON, SEASON + 1])

    expected = np.zeros((4, LOOKBACK))
    expected[range(4), np.array([8, 6, 1, 8]) - 1] = 1.0
    np.testing.assert_allclose(gradients, expected, atol=1e-4)


def test_the_gradient_of_the_level_is_spread_over_the_readings_that_it_is_the_mean_of() -> None:
    gradients = gradients_by_lag(repeating("level"), gathered(), [1])

    np.testing.assert_allclose(gradients[0, :12], 1 / 12, atol=1e-4)
    np.testing.assert_allclose(gradients[0, 12:], 0.0, atol=1e-4)


def test_long_look_backs_are_looked_at_more_closely_near_the_cutoff() -> None:
    network, batch = lively(lookback=100), gathered(2, lookback=100)

    (gradients,) = gradients_by_lag(network, batch, [1])

    lags = np.flatnonzero(np.isfinite(gradients)) + 1
    assert {*range(1, 33), 100} <= set(lags.tolist())
    assert len(lags) <= 64


def test_a_lag_at_which_nothing_was_read_has_no_gradient() -> None:
    batch = gathered()
    batch.history[:, -3] = np.nan

    (gradients,) = gradients_by_lag(lively(), batch, [1])

    assert np.flatnonzero(np.isnan(gradients)).tolist() == [2]


# Gradients by state


def from_border(network: Network, batch: Batch, border: int, lead: int) -> float:
    """Run the segments one by one, from states at a border that are leaves."""
    member = make_member(network, 0)
    prepared = network.prepare(history_of(network, batch), member.spec.segment)
    inputs, n_history = to_tensors(prepared, member.device), prepared.places.n_history
    parts = member.embedded(inputs.history), member.embedded(inputs.ahead)
    embedded = torch.cat(parts).detach()
    states: list[State | None] = [None] * len(member.blocks)
    leaves, outputs = [], []
    for number in range(len(embedded)):
        if number == border:
            states = [
                State(*(None if part is None else part.detach().requires_grad_() for part in state))
                for state in states
                if state is not None
            ]
            leaves = [part for state in states for part in state if part is not None]
        x = embedded[number : number + 1]
        for layer, block in enumerate(member.blocks):
            x, both = block(x, states[layer])
            states[layer] = both.at(1)
        outputs.append(x)

    encoded = torch.cat(outputs[n_history:]).transpose(0, 1)
    ahead = member.decode(encoded, inputs.ahead)[:, :, network.spec.median].flatten(1)
    gradients = torch.autograd.grad(ahead[:, lead - 1].sum(), leaves)
    return float(torch.cat(gradients, -1).norm(dim=-1).mean())


@pytest.mark.parametrize("most_borders", [64, 5])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_state_gradients_are_those_of_a_plain_loop(
    cell: str, layers: int, most_borders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MAX_BORDERS", most_borders)
    network, batch = lively(cell, layers=layers), gathered()
    member = make_member(network, 0)

    steps_back, sizes = state_gradients(network, member, batch, 3)

    n_segments = LOOKBACK // 2
    assert steps_back == list(range(0, n_segments, 1 if most_borders == 64 else 3))
    expected = [from_border(network, batch, n_segments - n, 3) for n in steps_back]
    np.testing.assert_allclose(sizes, expected, rtol=1e-3)
    assert sizes[0] > 0


# Loss by length of history


def test_a_forecast_from_the_last_k_readings_knows_nothing_of_those_before() -> None:
    """Neither by level nor by spread: what stands there changes no loss but the longer ones."""
    network, batch = lively(), gathered()
    other = batch.history.copy()
    other[:, : LOOKBACK - 10] *= 7.0

    one = measure_memory(network, batch)
    two = measure_memory(network, replace(batch, history=other))

    assert one.kept[-1] == LOOKBACK
    for kept, first, second in zip(one.kept, one.losses, two.losses, strict=False):
        assert (first == second) == (kept <= 10)


def test_nor_of_covariates_before_them() -> None:
    network, batch = lively(n_known=2, n_past=1, n_static=1), gathered()
    member = replace(network.spec.members[0], covariates=True)
    network = made(replace(network.spec, members=(member,)))
    rng = np.random.default_rng(0)
    names = "covariates_to_head.weight", "covariates_to_state.weight"
    shapes = {name: network.members[0].tensors[name].shape for name in names}
    changed = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    network = with_weights(network, 0, changed)

    def with_covariates(n_changed: int) -> Batch:
        known, past, static = (
            np.ones(shape, np.float32)
            for shape in ((5, 2, LOOKBACK + HORIZON), (5, 1, LOOKBACK), (5, 1))
        )
        for values in (known, past):
            values[:, :, :n_changed] = rng.standard_normal((*values.shape[:2], n_changed))
        return replace(batch, features=Features(known, past, static))

    one = measure_memory(network, with_covariates(0))
    two = measure_memory(network, with_covariates(LOOKBACK - 10))

    for kept, first, second in zip(one.kept, one.losses, two.losses, strict=False):
        assert (first == second) == (kept <= 10)


def test_the_loss_of_a_length_is_that_of_windows_without_older_readings() -> None:
    """Also where most rows are left out: those that the recurrence does not reach.

    How many rows were missing before them is an input, which no weight reads here.
    """
    lookback = 2 * CONTEXT_ROWS
    network, batch = lively(lookback=lookback, segment=16), gathered(lookback=lookback)
    network.scale[1:] = 2.0
    ages = (N_BEFORE + N_SHOWN + 1) * 16 + np.array([13, 14])
    (member,) = network.members
    for name, first in (("embed.weight", 0), ("head_hidden.weight", member.spec.hidden)):
        member.tensors[name][:, first + ages] = 0.0

    curve = measure_memory(network, batch, per_doubling=1)

    assert curve.kept[0] == 0
    for kept, loss in zip(curve.kept[1:], curve.losses[1:], strict=True):
        history = batch.history.copy()
        history[:, : lookback - kept] = np.nan
        forecast = network.forecast(history_of(network, replace(batch, history=history)))
        losses = quantile_losses(forecast, batch.future, network.spec.quantiles)
        assert loss == pytest.approx(losses.sum() / 2 / batch.future.size, rel=1e-3)


def test_the_loss_without_any_reading_is_that_of_the_level() -> None:
    network, batch = lively(), gathered()
    network.center[1:], network.scale[1:] = 0.5, 2.0

    curve = measure_memory(network, batch)

    assert curve.losses[0] == pytest.approx(np.abs(batch.future - 0.5).mean() / 2.0)


@pytest.mark.parametrize(
    ("expert", "readings", "needed"),
    [("last", random_walk(100), 1), ("season", wave(100, season=SEASON), SEASON)],
)
def test_the_memory_of_an_expert_is_what_it_repeats(
    expert: str, readings: np.ndarray, needed: int
) -> None:
    network = repeating(expert)
    bias = network.members[0].tensors["head.bias"].reshape(-1, 4)
    bias[1 : len(network.spec.quantiles)] = -100.0  # no band: it is wider after a longer history
    windows = make_past(make_panel(readings)).windows(LOOKBACK, HORIZON)

    assert measure_memory(network, windows.gather(windows.spread(40))).effective == needed


@pytest.mark.parametrize("needed", [0, 1, 5, 50, 200, 719, 720])
def test_the_effective_memory_is_exact_to_two_percent(needed: int) -> None:
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


# Time constants and errors


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_time_constants_are_those_of_the_gates_bias_where_nothing_else_moves_them(
    cell: str,
) -> None:
    network, batch = lively(cell, layers=2), gathered()
    member = make_member(network, 0)
    gate = CELLS[cell].retention_gate
    if gate is None:
        assert time_constants(network, member, batch) is None
        return
    with torch.no_grad():
        for block, share in zip(member.blocks, (0.98, 0.5), strict=True):
            for parameter in block.recurrence.parameters():
                parameter.zero_()
            logit = np.log(share / (1 - share))
            block.recurrence.linear_ih.bias[gate * 6 : (gate + 1) * 6] = logit

    first, second = time_constants(network, member, batch)

    np.testing.assert_allclose(first, 2 / -np.log(0.98), rtol=1e-5)
    np.testing.assert_allclose(second, 2 / -np.log(0.5), rtol=1e-5)


def test_deviations_of_an_unknown_series_are_from_the_level_of_its_own_history() -> None:
    network, batch = repeating("last"), gathered()
    network.center[1:], network.scale[1:] = 5.0, 2.0
    unknown = replace(batch, series=np.full_like(batch.series, -1))

    known, own = (deviations_of(network, each).past for each in (batch, unknown))

    np.testing.assert_allclose(known, (batch.history - 5.0) / 2.0, rtol=1e-6)
    np.testing.assert_allclose(np.median(own, axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(own.std(1), 1.0, rtol=1e-6)


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
