"""What a network starts from: what lasts, and the pattern of the season."""

import dataclasses

import numpy as np
import pytest
import torch

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import ModelError
from rnnforecast.model import initialise
from rnnforecast.model.initialise import (
    _weighted_medians,
    check_start,
    initialise_network,
    known_entries,
    warm_start_from,
)
from rnnforecast.model.network import Network
from tests.builders import make_panel, make_spec, random_walk, wave
from tests.model.fitting import PLAIN, SEASONAL, SHORT_MIXED

TASK = make_spec()
SMALL = NetworkConfig(hidden=8)


def test_the_newest_reading_of_a_random_walk_lasts() -> None:
    panel = make_panel(*(random_walk(600, seed=s) for s in range(4)))
    spec = make_spec(season=1, n_series=4)
    network = Network(spec, SMALL)
    past = make_past(panel)
    initialise_network(network, fit_scaling(past), past.windows(24, 6))
    assert (network.members[0].persistence > 0.9).all()


def test_the_newest_reading_of_white_noise_does_not_last() -> None:
    panel = make_panel(np.random.default_rng(0).normal(size=3000))
    spec = make_spec(season=1)
    network = Network(spec, SMALL)
    past = make_past(panel)
    initialise_network(network, fit_scaling(past), past.windows(24, 6))
    assert (network.members[0].persistence < 0.15).all()


def test_the_cycle_starts_from_the_seasonal_means() -> None:
    panel = make_panel(wave(600, season=12, noise=0.0))
    network = Network(TASK, SMALL)
    past = make_past(panel)
    initialise_network(network, fit_scaling(past), past.windows(24, 6))
    phase = (int(panel.first_step[0]) + np.arange(12)) % 12
    pattern = (
        network.members[0].seasonal_pattern.weight[1].detach().numpy()[phase]
        * network.scale[1].item()
    )
    assert np.allclose(pattern, panel.target[:12] - 20, atol=0.05)


def what_lasts(*readings: np.ndarray) -> np.ndarray:
    """Return the shares that a member starts from: newest reading, level, pattern; each lead."""
    network = Network(make_spec(season=6, n_series=len(readings), members=(SEASONAL,)), SMALL)
    past = make_past(make_panel(*(one.astype(np.float32) for one in readings)))
    initialise_network(network, fit_scaling(past), past.windows(24, 6))
    return network.members[0].persistence.detach().numpy()


def test_a_pattern_that_changes_now_and_then_lasts() -> None:
    rng = np.random.default_rng(0)
    patterns = rng.normal(0, 5, (20, 6))
    patterns -= patterns.mean(1, keepdims=True)
    readings = np.repeat(patterns, 10, axis=0).ravel() + 0.1 * rng.normal(size=1200)

    newest, _, pattern = what_lasts(readings)

    assert (pattern > 0.95).all()
    assert (newest < 0.05).all()


def test_the_level_of_the_newest_season_lasts_where_single_readings_are_noisy() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.normal(0, 5, 40), 30)  # one for five seasons
    readings = levels + rng.normal(size=1200)

    newest, level, pattern = what_lasts(readings)

    assert (level > 0.7).all()
    assert (level > 2 * newest).all()
    assert (level > 2 * pattern).all()


def test_windows_with_less_than_half_of_their_history_do_not_say_what_lasts() -> None:
    walk, noise = random_walk(600, seed=0), np.random.default_rng(0).normal(0, 50, 400)
    noise[np.arange(400) % 3 > 0] = np.nan
    assert np.allclose(what_lasts(walk, noise), what_lasts(walk), atol=1e-5)


def test_a_long_horizon_is_worked_through_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = wave(1200, season=6, noise=3.0)
    whole = what_lasts(readings)
    monkeypatch.setattr(initialise, "_SORTED_LEADS", 4)
    assert np.array_equal(what_lasts(readings), whole)


def test_one_spike_does_not_become_a_season() -> None:
    readings = wave(3000, season=12, noise=0.0)
    readings[1500] = 65535.0
    network = Network(TASK, SMALL)
    past = make_past(make_panel(readings))
    initialise_network(network, fit_scaling(past), past.windows(24, 6))
    phase = (int(make_panel(readings).first_step[0]) + np.arange(12)) % 12
    pattern = (
        network.members[0].seasonal_pattern.weight[1].detach().numpy()[phase]
        * network.scale[1].item()
    )
    assert np.allclose(pattern, readings[:12] - 20, atol=0.3)


def test_every_member_starts_from_the_same_cycle_and_a_persistence_of_its_own_window() -> None:
    past = make_past(make_panel(wave(600, season=12, noise=2.0)))
    network = Network(make_spec(members=(PLAIN, SHORT_MIXED)), SMALL)
    windows = past.windows(24, 6)
    initialise_network(network, fit_scaling(past), windows)
    first, second = network.members
    assert torch.equal(first.seasonal_pattern.weight, second.seasonal_pattern.weight)
    assert not torch.equal(first.persistence, second.persistence)

    batch = windows.gather(np.arange(len(windows)))
    scaled = (torch.from_numpy(batch.history) - network.center[1]) / network.scale[1]
    future = (torch.from_numpy(batch.future) - network.center[1]) / network.scale[1]
    series, step = torch.ones(len(batch.series)).long(), torch.from_numpy(batch.next_step)
    for member in network.members:
        before, ahead = member.seasonal_baseline(series, step)
        window = member.normalised(scaled[:, -member.spec.lookback :] - before)
        for lead in range(6):
            goal = future[:, lead] - ahead[:, lead] - window.level[:, 0]
            newest = (window.newest * window.spread)[:, 0]

            def error(share: float, goal=goal, newest=newest) -> float:
                return (goal - share * newest).abs().mean().item()

            tried = np.linspace(0, 1, 101)
            best = tried[np.argmin([error(share) for share in tried])]
            assert abs(member.persistence[0, lead].item() - best) < 0.02


def test_a_weighted_median_has_half_of_the_weight_on_either_side() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(40, 5)), rng.random((40, 5))
    values[rng.random((40, 5)) < 0.2] = np.nan
    values[:, 4] = np.nan

    medians = _weighted_medians(values, weights)

    for column in range(4):
        seen = ~np.isnan(values[:, column])
        value, weight = values[seen, column], weights[seen, column]
        assert medians[column] in value
        assert weight[value < medians[column]].sum() < weight.sum() / 2
        assert weight[value <= medians[column]].sum() >= weight.sum() / 2
    assert medians[4] == 0


# From another network


def learnt(*readings: np.ndarray, members: tuple = (SEASONAL, PLAIN)) -> tuple[Network, Past]:
    """Return a network whose every weight differs from what it starts from, and its readings."""
    past = make_past(make_panel(*readings))
    torch.manual_seed(1)
    network = Network(make_spec(n_series=len(readings), members=members), SMALL)
    initialise_network(network, fit_scaling(past), past.windows(24, 6))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network, past


def again(other: Network, names: tuple[str, ...], past: Past) -> Network:
    """Begin anew from a network that knows s0, s1, ..., for readings of these names."""
    past = Past(
        dataclasses.replace(past._panel, names=names), series=past.series, cutoff=past.cutoff
    )
    known = [f"s{i}" for i in range(other.spec.n_series)]
    torch.manual_seed(2)
    network = Network(dataclasses.replace(other.spec, n_series=len(names)), SMALL)
    warm_start_from(network, other, known_entries(names, other, known), past)
    return network


def forecasts(network: Network, readings: np.ndarray, entry: int) -> torch.Tensor:
    windows = make_past(make_panel(readings)).windows(24, 6)
    batch = windows.gather(np.arange(len(windows)))
    series = torch.full((len(windows),), entry)
    with torch.no_grad():
        return network(torch.from_numpy(batch.history), series, torch.from_numpy(batch.next_step))


WAVES = (wave(300, season=12), 3 * wave(300, season=12, seed=1) - 10)


def test_on_the_same_readings_a_network_begins_as_the_other_ended() -> None:
    other, past = learnt(*WAVES)
    network = again(other, ("s0", "s1"), past)
    for name, tensor in other.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_series_are_known_by_name_in_whatever_order_they_come() -> None:
    other, _ = learnt(*WAVES)
    turned = make_past(make_panel(WAVES[1], WAVES[0]))
    network = again(other, ("s1", "s0"), turned)
    for entry, old in ((1, 2), (2, 1), (0, 0)):
        readings = WAVES[old - 1]
        found = forecasts(network, readings, entry)
        assert torch.equal(found, forecasts(other, readings, old))


def test_a_series_that_has_vanished_is_dropped_and_a_new_one_starts_as_newcomers_do() -> None:
    other, _ = learnt(*WAVES)
    newer = make_past(make_panel(100 + wave(300, season=12, seed=2), WAVES[1]))
    network = again(other, ("new", "s1"), newer)
    assert len(network.center) == 3
    assert network.center[1] == pytest.approx(120, abs=1)
    for one, known in zip(network.members, other.members, strict=True):
        assert torch.equal(one.series_embedding.weight[1], known.series_embedding.weight[0])
        assert torch.equal(one.series_embedding.weight[2], known.series_embedding.weight[2])
        assert torch.equal(one.seasonal_pattern.weight[2], known.seasonal_pattern.weight[2])
        own = one.seasonal_pattern.weight[1].detach() * network.scale[1]
        assert own.std().item() == pytest.approx(5 / np.sqrt(2), rel=0.1), (
            "its own season's pattern"
        )


def test_where_a_scale_has_changed_a_linear_member_forecasts_what_it_did() -> None:
    other, _ = learnt(*WAVES, members=(SEASONAL,))
    wider = WAVES[0] + 20 * (np.arange(300) % 2 == 0).astype(np.float32)
    network = again(other, ("s0", "s1"), make_past(make_panel(wider, WAVES[1])))
    assert network.scale[1] > 1.5 * other.scale[1]
    found, before = (forecasts(one, WAVES[0], 1) for one in (network, other))
    assert (found - before).abs().max() < 0.1
    with torch.no_grad():
        network.members[0].seasonal_pattern.weight.copy_(other.members[0].seasonal_pattern.weight)
    assert (forecasts(network, WAVES[0], 1) - before).abs().max() > 1, "it needs the conversion"


def test_a_series_that_had_no_reading_yet_counts_as_new() -> None:
    other, _ = learnt(WAVES[0], np.full(300, np.nan, np.float32))
    assert torch.isnan(other.scale[2])
    assert known_entries(("s1", "s0", "x"), other, ("s0", "s1")).tolist() == [0, 1, 0]
    network = again(other, ("s0", "s1"), make_past(make_panel(*WAVES)))
    for tensor in network.state_dict().values():
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize(
    ("changed", "config", "message"),
    [
        ({"horizon": 5}, {}, "horizon is 5, not 6"),
        ({"lookback": 48}, {}, "lookback is 48, not 24"),
        ({"season": 6}, {}, "season is 6, not 12"),
        ({"n_known": 1}, {}, "n_known is 1, not 0"),
        ({"members": (PLAIN,)}, {}, "members is"),
        ({}, {"hidden": 9}, "hidden is 9, not 8"),
        ({}, {"cell": "lstm"}, "cell is lstm, not gru"),
    ],
)
def test_a_network_of_another_task_is_refused_with_what_differs(
    changed: dict, config: dict, message: str
) -> None:
    other, _ = learnt(*WAVES)
    spec = dataclasses.replace(other.spec, **{"n_series": 5, **changed})
    with pytest.raises(ModelError) as caught:
        check_start(other, spec, dataclasses.replace(SMALL, **config))
    assert message in caught.value.message
    check_start(other, dataclasses.replace(other.spec, n_series=5), SMALL)
