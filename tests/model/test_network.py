"""The network: what its members share, and that it is their mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnnforecast.model.network import Network
from rnnforecast.spec import QUANTILES, MemberSpec, expected_shapes
from tests.builders import make_spec
from tests.model.networks import CELL_NAMES, make_network

ENSEMBLE = (
    MemberSpec(24, 6, linear=True, seasonal=True),
    MemberSpec(11, 4, linear=True, seasonal=False),
    MemberSpec(7, 7, linear=False, seasonal=False),
)


def make_ensemble() -> Network:
    """Make a network of three members that look back 24, 11 and 7 steps, and that disagree."""
    network = make_network(members=ENSEMBLE)
    for member in network.members:
        nn.init.normal_(member.head.weight, std=2.0)
        nn.init.normal_(member.seasonal_pattern.weight)
    network.center[1:], network.scale[1:] = 3.0, 2.0
    return network


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return 3 + 2 * torch.randn(5, 24), torch.tensor([0, 1, 2, 1, 0]), torch.arange(5)


def alone(network: Network, index: int) -> Network:
    """Make a network of one of the members."""
    own = network.spec.members[index]
    spec = make_spec(network.spec.lookback, 12, 4, 2, members=(own,))
    single = Network(spec, network.config).eval()
    single.load_state_dict(
        {
            name.replace(f"members.{index}.", "members.0."): value
            for name, value in network.state_dict().items()
            if not name.startswith("members.") or name.startswith(f"members.{index}.")
        }
    )
    return single


def test_a_quantile_of_the_ensemble_is_the_mean_of_the_members() -> None:
    network, inputs = make_ensemble(), make_inputs()
    each = [alone(network, index)(*inputs) for index in range(3)]
    expected = (each[0] + each[1] + each[2]) / 3
    assert not torch.allclose(each[0], each[1], atol=0.1)
    assert torch.allclose(network(*inputs), expected, atol=1e-4)


def test_quantiles_of_the_ensemble_never_cross() -> None:
    assert (make_ensemble()(*make_inputs()).diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_lead_depends_on_the_newest_reading_by_every_member(cell: str, index: int) -> None:
    network = alone(make_network(cell=cell, members=ENSEMBLE), index)
    history, series, step = make_inputs()
    history.requires_grad_()
    medians = network(history, series, step)[..., network.spec.median].sum(0)
    for lead in medians:
        (gradient,) = torch.autograd.grad(lead, history, retain_graph=True)
        assert (gradient[:, -1].abs() > 1e-9).all()
        assert (gradient[1:4, : -ENSEMBLE[index].lookback] == 0).all()  # of known series


@pytest.mark.parametrize(
    ("chosen", "lookback"), [((0,), 24), ((1, 2), 11), ((2,), 7), ((2, 0), 24), ((0, 1, 2), 24)]
)
def test_the_members_that_are_kept_go_on_alone(chosen: tuple[int, ...], lookback: int) -> None:
    network, (history, series, step) = make_ensemble(), make_inputs()
    known = series > 0  # the scaling of an unknown one comes from the whole window
    expected = torch.stack([alone(network, i)(history, series, step) for i in chosen]).mean(0)

    network.select_members(chosen)

    assert network.spec.members == tuple(ENSEMBLE[i] for i in chosen)
    assert network.spec.lookback == lookback
    found = network(history[:, -lookback:], series, step)
    assert torch.allclose(found[known], expected[known], atol=1e-4)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert expected_shapes(network.spec, network.config) == shapes


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize(
    ("lookback", "horizon", "segment"), [(24, 12, 6), (23, 7, 6), (5, 1, 1), (10, 30, 4), (6, 3, 6)]
)
def test_an_artifact_expects_the_tensors_that_the_network_has(
    cell: str, lookback: int, horizon: int, segment: int
) -> None:
    network = make_network(cell=cell, lookback=lookback, horizon=horizon, segment=segment, layers=2)
    actual = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert expected_shapes(network.spec, network.config) == actual
    output = network(torch.randn(3, lookback), torch.tensor([0, 1, 2]), torch.zeros(3).long())
    assert output.shape == (3, horizon, len(QUANTILES))


def test_an_unknown_series_is_forecast_in_its_own_units() -> None:
    network = make_network(season=1)
    history = torch.randn(4, 24)
    unknown, step = torch.zeros(4).long(), torch.zeros(4).long()
    plain = network(history, unknown, step)
    moved = network(1e6 + 1e3 * history, unknown, step)
    assert torch.allclose((moved - 1e6) / 1e3, plain, atol=0.01)


def test_a_window_without_any_reading_gives_a_finite_forecast() -> None:
    network = make_network()
    output = network(torch.full((1, 24), torch.nan), torch.ones(1).long(), torch.zeros(1).long())
    assert torch.isfinite(output).all()


def with_reach(reach: float) -> Network:
    network = make_network()
    network.outlier_threshold[1:] = reach
    return network


def test_a_spike_in_the_history_does_not_move_the_forecast() -> None:
    network = with_reach(20.0)
    history = torch.randn(1, 24)
    spiked, gapped = history.clone(), history.clone()
    spiked[0, 7], gapped[0, 7] = 65_535.0, torch.nan
    series, step = torch.ones(1).long(), torch.zeros(1).long()
    assert torch.equal(network(spiked, series, step), network(gapped, series, step))
    assert not torch.equal(with_reach(1e6)(spiked, series, step), network(gapped, series, step))


def test_a_new_level_is_believed() -> None:
    network = with_reach(20.0)
    history = torch.randn(1, 24)
    series, step = torch.ones(1).long(), torch.zeros(1).long()
    raised = network(history + 500.0, series, step)
    assert torch.allclose(raised, network(history, series, step) + 500.0, atol=0.05)


def test_a_series_without_a_reach_believes_everything() -> None:
    network = with_reach(torch.nan)
    history = torch.randn(1, 24)
    history[:, 3] = 1e5
    assert torch.equal(network.mask_spikes(history, torch.tensor([1])), history)


def test_an_unknown_series_is_judged_by_its_own_window() -> None:
    network = with_reach(20.0)
    history = 1000 + torch.randn(2, 24)
    history[0, 3] = 1e9
    seen = network.mask_spikes(history, torch.tensor([0, 0]))
    assert torch.isnan(seen).nonzero().tolist() == [[0, 3]]
    constant = torch.full((1, 24), 7.0)
    constant[0, 5] = 8.0
    assert torch.equal(network.mask_spikes(constant, torch.tensor([0])), constant)


@pytest.mark.parametrize(("run", "is_believed"), [(1, False), (2, False), (3, True)])
def test_several_far_readings_in_a_row_are_no_spike(run: int, *, is_believed: bool) -> None:
    network = with_reach(20.0)
    history = torch.randn(1, 24).repeat(1, 3)
    for start in (0, 30, 72 - run):
        changed = history.clone()
        changed[0, start : start + run] = 500.0
        seen = network.mask_spikes(changed, torch.ones(1).long())
        assert torch.isfinite(seen).all() == is_believed
