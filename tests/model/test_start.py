"""What a network starts from: what lasts, and the pattern of the season."""

import numpy as np
import pytest
import torch

from rnnforecast.config import NetworkConfig
from rnnforecast.data.forecast import past_of
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.model import start
from rnnforecast.model.network import Network
from rnnforecast.model.start import _weighted_medians, start_from
from tests.builders import make_panel, make_task, random_walk, wave
from tests.model.fitting import PLAIN, SEASONAL, SHORT_MIXED

TASK = make_task()
SMALL = NetworkConfig(hidden=8)


def test_the_newest_reading_of_a_random_walk_lasts() -> None:
    panel = make_panel(*(random_walk(600, seed=s) for s in range(4)))
    task = make_task(season=1, n_series=4)
    network = Network(task, SMALL)
    past = past_of(panel)
    start_from(network, fit_scaling(past), past.windows(24, 6))
    assert (network.members[0].persistence > 0.9).all()


def test_the_newest_reading_of_white_noise_does_not_last() -> None:
    panel = make_panel(np.random.default_rng(0).normal(size=3000))
    task = make_task(season=1)
    network = Network(task, SMALL)
    past = past_of(panel)
    start_from(network, fit_scaling(past), past.windows(24, 6))
    assert (network.members[0].persistence < 0.15).all()


def test_the_cycle_starts_from_the_seasonal_means() -> None:
    panel = make_panel(wave(600, season=12, noise=0.0))
    network = Network(TASK, SMALL)
    past = past_of(panel)
    start_from(network, fit_scaling(past), past.windows(24, 6))
    phase = (int(panel.first_step[0]) + np.arange(12)) % 12
    pattern = network.members[0].cycle.weight[1].detach().numpy()[phase] * network.scale[1].item()
    assert np.allclose(pattern, panel.target[:12] - 20, atol=0.05)


def what_lasts(*readings: np.ndarray) -> np.ndarray:
    """Return the shares that a member starts from: newest reading, level, pattern; each lead."""
    network = Network(make_task(season=6, n_series=len(readings), members=(SEASONAL,)), SMALL)
    past = past_of(make_panel(*(one.astype(np.float32) for one in readings)))
    start_from(network, fit_scaling(past), past.windows(24, 6))
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
    monkeypatch.setattr(start, "_SORTED_LEADS", 4)
    assert np.array_equal(what_lasts(readings), whole)


def test_one_spike_does_not_become_a_season() -> None:
    readings = wave(3000, season=12, noise=0.0)
    readings[1500] = 65535.0
    network = Network(TASK, SMALL)
    past = past_of(make_panel(readings))
    start_from(network, fit_scaling(past), past.windows(24, 6))
    phase = (int(make_panel(readings).first_step[0]) + np.arange(12)) % 12
    pattern = network.members[0].cycle.weight[1].detach().numpy()[phase] * network.scale[1].item()
    assert np.allclose(pattern, readings[:12] - 20, atol=0.3)


def test_every_member_starts_from_the_same_cycle_and_a_persistence_of_its_own_window() -> None:
    past = past_of(make_panel(wave(600, season=12, noise=2.0)))
    network = Network(make_task(members=(PLAIN, SHORT_MIXED)), SMALL)
    windows = past.windows(24, 6)
    start_from(network, fit_scaling(past), windows)
    first, second = network.members
    assert torch.equal(first.cycle.weight, second.cycle.weight)
    assert not torch.equal(first.persistence, second.persistence)

    batch = windows.gather(np.arange(len(windows)))
    scaled = (torch.from_numpy(batch.history) - network.center[1]) / network.scale[1]
    future = (torch.from_numpy(batch.future) - network.center[1]) / network.scale[1]
    series, step = torch.ones(len(batch.series)).long(), torch.from_numpy(batch.next_step)
    for member in network.members:
        before, ahead = member.cycle_around(series, step)
        window = member.normalised(scaled[:, -member.own.lookback :] - before)
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
