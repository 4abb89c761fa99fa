import dataclasses

import numpy as np
import pytest
import torch

from rnnforecast.config import ForecastTask, NetworkConfig, TrainConfig
from rnnforecast.data.forecast import past_of
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded, Event, ignore
from rnnforecast.model.network import Network
from rnnforecast.model.start import start_from
from rnnforecast.model.training import (
    batch_loss,
    quantile_loss,
    steps_per_epoch,
    train_network,
)
from tests.builders import make_panel, random_walk, wave

TASK = ForecastTask(lookback=24, horizon=6, season=12, n_series=1)
SMALL = NetworkConfig(hidden=8, segment=6)


def split(readings: np.ndarray):
    panel = make_panel(readings)
    return past_of(panel, np.array([len(readings) * 3 // 4])), past_of(panel)


def fit(readings: np.ndarray, config: TrainConfig, listener=ignore):
    train, validation = split(readings)
    torch.manual_seed(config.seed)
    network = Network(TASK, SMALL)
    windows = train.windows(24, 6)
    start_from(network, fit_scaling(train), windows)
    log = train_network(
        network,
        windows,
        validation=validation.windows(24, 6, targets_after=train),
        config=config,
        listener=listener,
    )
    return network, log


def test_quantile_loss_is_the_mean_of_the_pinball_losses() -> None:
    rng = np.random.default_rng(0)
    forecast, actual = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3))
    actual[1, 2] = np.nan
    levels = (0.2, 0.7)
    losses = [
        max(q * (actual[i, h] - forecast[i, h, k]), (q - 1) * (actual[i, h] - forecast[i, h, k]))
        for i in range(4)
        for h in range(3)
        for k, q in enumerate(levels)
        if np.isfinite(actual[i, h])
    ]
    found = quantile_loss(torch.from_numpy(forecast), torch.from_numpy(actual), levels)
    assert found.item() == pytest.approx(np.mean(losses))


def test_a_missing_target_carries_no_loss_and_no_gradient() -> None:
    forecast = torch.zeros(1, 3, 2, requires_grad=True)
    actual = torch.tensor([[1.0, torch.nan, 2.0]])
    quantile_loss(forecast, actual, (0.1, 0.9)).backward()
    assert (forecast.grad[0, 1] == 0).all()
    assert (forecast.grad[0, [0, 2]] != 0).all()
    assert quantile_loss(forecast, torch.full((1, 3), torch.nan), (0.1, 0.9)).item() == 0


def test_the_best_weights_seen_are_restored() -> None:
    seen: list[Event] = []
    config = TrainConfig(epochs=6, batch_size=32, learning_rate=0.05)
    network, log = fit(wave(400, season=12, noise=2.0), config, seen.append)
    epochs = [event for event in seen if isinstance(event, EpochEnded)]
    best = min(epochs, key=lambda e: e.validation_loss)
    assert best.is_best and best.steps == log.best_steps
    assert log.best_steps < log.steps, "the test needs a run that overfits"
    train, validation = split(wave(400, season=12, noise=2.0))
    held_out = validation.windows(24, 6, targets_after=train)
    batch = held_out.gather(np.arange(len(held_out)))
    network.eval()
    with torch.no_grad():
        series, step = torch.ones(len(held_out)).long(), torch.from_numpy(batch.next_step)
        scaled = (torch.from_numpy(batch.history) - network.center[1]) / network.scale[1]
        future = (torch.from_numpy(batch.future) - network.center[1]) / network.scale[1]
        loss = quantile_loss(network.forecast_scaled(scaled, series, step), future, TASK.quantiles)
    assert loss.item() == pytest.approx(best.validation_loss, rel=1e-4)


def test_a_run_stopped_after_n_steps_is_the_beginning_of_the_whole_run() -> None:
    config = TrainConfig(epochs=3, batch_size=32)
    seen: list[Event] = []
    fit(wave(400), config, seen.append)
    part: list[Event] = []
    fit(wave(400), dataclasses.replace(config, steps=40), part.append)
    first = next(e for e in seen if isinstance(e, EpochEnded))
    only = [e for e in part if isinstance(e, EpochEnded)]
    assert len(only) == 1 and only[0] == first


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    train, _ = split(wave(400))
    network = Network(TASK, SMALL)
    torch.nn.init.constant_(network.head.bias, float("nan"))
    with pytest.raises(DivergedError) as caught:
        train_network(
            network, train.windows(24, 6), validation=None, config=TrainConfig(), listener=ignore
        )
    assert "--learning-rate" in (caught.value.hint or "")


def test_clipping_bounds_every_step() -> None:
    seen: list[Event] = []
    fit(wave(400), TrainConfig(epochs=1, clip=1e-4), seen.append)
    epoch = next(e for e in seen if isinstance(e, EpochEnded))
    assert epoch.clipped == 1.0 and epoch.gradient_norm > 1e-4


def test_an_epoch_is_bounded_however_large_the_data_are() -> None:
    config = TrainConfig(batch_size=256)
    assert steps_per_epoch(10, config) == steps_per_epoch(10_000, config) == 40
    assert steps_per_epoch(10**9, config) == 120


@pytest.mark.parametrize(("n_missing", "teaches"), [(0, True), (12, True), (13, False)])
def test_a_window_with_more_than_half_of_its_history_missing_teaches_nothing(
    n_missing: int,
    teaches: bool,  # noqa: FBT001
) -> None:
    readings = wave(30, season=12)
    readings[:n_missing] = np.nan
    network = Network(TASK, SMALL)
    batch = past_of(make_panel(readings)).windows(24, 6).gather(np.array([0]))
    assert np.isnan(batch.history).sum() == n_missing
    batch_loss(network, batch).backward()
    assert bool((network.head.bias.grad != 0).any()) == teaches


def test_the_anchor_of_a_random_walk_is_its_newest_reading() -> None:
    panel = make_panel(*(random_walk(600, seed=s) for s in range(4)))
    task = ForecastTask(lookback=24, horizon=6, season=1, n_series=4)
    network = Network(task, SMALL)
    past = past_of(panel)
    start_from(network, fit_scaling(past), past.windows(24, 6))
    assert (network.anchor > 0.9).all()


def test_the_anchor_of_white_noise_is_near_nothing() -> None:
    panel = make_panel(np.random.default_rng(0).normal(size=3000))
    task = ForecastTask(lookback=24, horizon=6, season=1, n_series=1)
    network = Network(task, SMALL)
    past = past_of(panel)
    start_from(network, fit_scaling(past), past.windows(24, 6))
    assert (network.anchor < 0.15).all()


def test_the_cycle_starts_from_the_seasonal_means() -> None:
    panel = make_panel(wave(600, season=12, noise=0.0))
    network = Network(TASK, SMALL)
    past = past_of(panel)
    start_from(network, fit_scaling(past), past.windows(24, 6))
    phase = (int(panel.first_step[0]) + np.arange(12)) % 12
    pattern = network.cycle.weight[1].detach().numpy()[phase] * network.scale[1].item()
    assert np.allclose(pattern, panel.target[:12] - 20, atol=0.05)


def test_one_spike_does_not_become_a_season() -> None:
    readings = wave(3000, season=12, noise=0.0)
    readings[1500] = 65535.0
    network = Network(TASK, SMALL)
    past = past_of(make_panel(readings))
    start_from(network, fit_scaling(past), past.windows(24, 6))
    phase = (int(make_panel(readings).first_step[0]) + np.arange(12)) % 12
    pattern = network.cycle.weight[1].detach().numpy()[phase] * network.scale[1].item()
    assert np.allclose(pattern, readings[:12] - 20, atol=0.3)
