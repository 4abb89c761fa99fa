import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnforecast.config import QUANTILES, ForecastTask, NetworkConfig
from rnnforecast.model.expected import expected_shapes
from rnnforecast.model.network import CELLS, Network, Window, normalise, order_quantiles

CELL_NAMES = sorted(CELLS)


def make_network(
    *,
    cell: str = "gru",
    lookback: int = 24,
    horizon: int = 12,
    segment: int = 6,
    season: int = 4,
    layers: int = 1,
    n_series: int = 2,
    kind: type[Network] = Network,
) -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(cell=cell, hidden=16, layers=layers, segment=segment, dropout=0.0)
    return kind(ForecastTask(lookback, horizon, season, n_series), config).eval()


def make_window(network: Network, n: int = 3) -> Window:
    torch.manual_seed(1)
    return normalise(torch.randn(n, network.task.lookback))


def gradients_at_the_newest(network: Network) -> Tensor:
    """Gradient of every lead's median with respect to the newest reading, (horizon,).

    The window's level, spread and anchor are constants, so all of it comes through the recurrence.
    """
    window = make_window(network)
    values = window.values.clone().requires_grad_()
    medians = network.decode(window._replace(values=values), torch.ones(3, dtype=torch.long))
    medians = medians[..., network.task.median].sum(0)
    gradients = [torch.autograd.grad(m, values, retain_graph=True)[0][:, -1] for m in medians]
    return torch.stack(gradients).abs().min(1).values


class LaggingNetwork(Network):
    """The mistake to catch: later leads are decoded from a state that has not seen the newest."""

    def decode(self, window: Window, series: Tensor) -> Tensor:
        output = super().decode(window, series)
        older = torch.cat([window.values[:, :1], window.values[:, :-1]], 1)
        lagging = super().decode(window._replace(values=older), series)
        half = self.task.horizon // 2
        return torch.cat([output[:, :half], lagging[:, half:]], 1)


@pytest.mark.parametrize("segment", [1, 6])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_lead_depends_on_the_newest_reading(cell: str, segment: int) -> None:
    network = make_network(cell=cell, segment=segment)
    assert (gradients_at_the_newest(network) > 1e-9).all()


@pytest.mark.parametrize("segment", [1, 6])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_decoding_from_an_earlier_state_is_caught(cell: str, segment: int) -> None:
    network = make_network(cell=cell, segment=segment, kind=LaggingNetwork)
    assert not (gradients_at_the_newest(network) > 1e-9).all()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_decoding_in_parallel_is_one_step_of_torchs_own_cell(cell: str, layers: int) -> None:
    network = make_network(cell=cell, layers=layers)
    window, series = make_window(network), torch.tensor([0, 1, 2])
    hidden, cells = network._encode(window)
    query = network.position + network.identity(series)[:, None]  # (N, M, D)
    n_windows, n_segments, width = query.shape

    def repeated(state: Tensor) -> Tensor:
        return state.repeat_interleave(n_segments, 1).contiguous()

    start = repeated(hidden) if cells is None else (repeated(hidden), repeated(cells))
    slow, _ = network.recurrence(query.reshape(-1, 1, width), start)
    raw = network.head(slow.reshape(n_windows, n_segments, width))
    leads = raw.reshape(n_windows, -1, len(QUANTILES))[:, : network.task.horizon]
    expected = order_quantiles(leads, network.task.median)
    assert torch.allclose(network.decode(window, series), expected, atol=1e-5)


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize(
    ("lookback", "horizon", "segment"), [(24, 12, 6), (23, 7, 6), (5, 1, 1), (10, 30, 4), (6, 3, 6)]
)
def test_an_artifact_expects_the_tensors_that_the_network_has(
    cell: str, lookback: int, horizon: int, segment: int
) -> None:
    network = make_network(cell=cell, lookback=lookback, horizon=horizon, segment=segment, layers=2)
    actual = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert expected_shapes(network.task, network.config) == actual
    output = network(torch.randn(3, lookback), torch.tensor([0, 1, 2]), torch.zeros(3).long())
    assert output.shape == (3, horizon, len(QUANTILES))


def test_quantiles_never_cross_whatever_the_head_says() -> None:
    raw = 50 * torch.randn(200, 9, len(QUANTILES))
    assert (order_quantiles(raw, 5).diff(dim=-1) >= 0).all()


def test_an_untrained_network_gives_the_quantiles_of_a_normal_distribution() -> None:
    from statistics import NormalDist

    network = make_network()
    nn.init.zeros_(network.head.weight)
    window = make_window(network)
    output = network.decode(window, torch.ones(3).long())
    expected = [NormalDist(0, 0.5).inv_cdf(q) for q in QUANTILES]
    assert torch.allclose(output[0, 0], torch.tensor(expected), atol=1e-5)


def test_a_shifted_and_stretched_window_gives_a_shifted_and_stretched_forecast() -> None:
    network = make_network(season=1)
    history = torch.randn(4, 24)
    series, step = torch.ones(4).long(), torch.zeros(4).long()
    plain = network.forecast_scaled(history, series, step)
    moved = network.forecast_scaled(7 + 3 * history, series, step)
    assert torch.allclose(moved, 7 + 3 * plain, atol=2e-3)


def test_an_unknown_series_is_forecast_in_its_own_units() -> None:
    network = make_network(season=1)
    history = torch.randn(4, 24)
    unknown, step = torch.zeros(4).long(), torch.zeros(4).long()
    plain = network(history, unknown, step)
    moved = network(1e6 + 1e3 * history, unknown, step)
    assert torch.allclose((moved - 1e6) / 1e3, plain, atol=0.01)


def test_missing_readings_are_a_mask_and_not_a_value() -> None:
    network = make_network()
    torch.nn.init.normal_(network.read_missing.weight)
    history = torch.randn(2, 24)
    history[1, 10:14] = float("nan")
    carried = history.clone()
    carried[1, 10:14] = history[1, 9]
    series, step = torch.ones(2).long(), torch.zeros(2).long()
    with_gap, without = network(history, series, step), network(carried, series, step)
    assert torch.isfinite(with_gap).all()
    assert torch.allclose(with_gap[0], without[0], atol=1e-5)
    assert not torch.allclose(with_gap[1], without[1], atol=1e-3)


def test_a_window_without_any_reading_gives_a_finite_forecast() -> None:
    network = make_network()
    output = network(torch.full((1, 24), torch.nan), torch.ones(1).long(), torch.zeros(1).long())
    assert torch.isfinite(output).all()


def test_normalising_uses_only_the_readings_that_are_there() -> None:
    values = torch.tensor([[1.0, torch.nan, 3.0, torch.nan, 5.0]])
    window = normalise(values)
    assert window.level.item() == pytest.approx(3.0)
    prior = 4 * 2 / 5  # readings of the series' own spread, by the share that is missing
    spread = np.sqrt((3 * np.var([1, 3, 5]) + prior) / (3 + prior))
    assert window.spread.item() == pytest.approx(spread, rel=1e-3)
    assert window.missing.tolist() == [[0, 1, 0, 1, 0]]
    assert window.values[0, 1] == window.values[0, 0]
    assert window.newest.item() == window.values[0, -1].item()


@pytest.mark.parametrize("next_step", [0, 1, 5, 1000, -3])
def test_the_cycle_follows_the_calendar_and_not_the_window(next_step: int) -> None:
    network = make_network(lookback=6, horizon=5, season=4)
    found = network.cycle_at(torch.tensor([1]), torch.tensor([next_step]))[0]
    table = network.cycle.weight[1]
    expected = torch.stack([table[(next_step - 6 + k) % 4] for k in range(11)])
    assert torch.equal(found, expected)


def test_recurrent_weights_start_orthogonal_and_the_forget_gate_open() -> None:
    network = make_network(cell="lstm")
    for gate in network.recurrence.weight_hh_l0.chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(16), atol=1e-5)
    assert (network.recurrence.bias_ih_l0[16:32] == 1).all()
    assert (network.recurrence.bias_hh_l0 == 0).all()


def with_reach(reach: float) -> Network:
    network = make_network()
    network.reach[1:] = reach
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
    assert torch.equal(network.believable(history, torch.tensor([1])), history)


def test_an_unknown_series_is_judged_by_its_own_window() -> None:
    network = with_reach(20.0)
    history = 1000 + torch.randn(2, 24)
    history[0, 3] = 1e9
    seen = network.believable(history, torch.tensor([0, 0]))
    assert torch.isnan(seen).nonzero().tolist() == [[0, 3]]
    constant = torch.full((1, 24), 7.0)
    constant[0, 5] = 8.0
    assert torch.equal(network.believable(constant, torch.tensor([0])), constant)


@pytest.mark.parametrize(("run", "is_believed"), [(1, False), (2, False), (3, True)])
def test_several_far_readings_in_a_row_are_no_spike(run: int, *, is_believed: bool) -> None:
    network = with_reach(20.0)
    history = torch.randn(1, 24).repeat(1, 3)
    for start in (0, 30, 72 - run):
        changed = history.clone()
        changed[0, start : start + run] = 500.0
        seen = network.believable(changed, torch.ones(1).long())
        assert torch.isfinite(seen).all() == is_believed
