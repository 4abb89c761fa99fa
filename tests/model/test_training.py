"""The training of one member: what it minimises, what it keeps, and when it ends."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.windows import Batch, make_past
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded, Event, Listener, ignore
from rnnforecast.model import training
from rnnforecast.model.loss import ValidationWindows, quantile_loss
from rnnforecast.model.network import Network
from rnnforecast.model.training import (
    MemberTraining,
    fine_tune,
    make_generator,
    member_loss,
    steps_per_epoch,
    swapped_parameters,
)
from rnnforecast.spec import MemberSpec
from tests.builders import make_panel, make_spec, wave
from tests.model.fitting import FOUR, MIXED, PLAIN, SHORT, SMALL, fit, split, started, weights_of

CPU = torch.device("cpu")
NOISY = wave(400, season=12, noise=2.0)


def make_training(
    config: TrainConfig, *, readings: np.ndarray = NOISY, is_validated: bool = True
) -> tuple[Network, MemberTraining]:
    """Start the training of one plain member."""
    train, everything = split(readings)
    network = started(readings, make_spec())
    held_out = ValidationWindows(everything.windows(24, 6, targets_after=train))
    windows = train.windows(24, 6)
    return network, MemberTraining(network, 0, windows, held_out if is_validated else None, config)


def gathered(readings: np.ndarray) -> Batch:
    """Gather all windows of 24 + 6 readings."""
    windows = make_past(make_panel(readings)).windows(24, 6)
    return windows.gather(np.arange(len(windows)))


def make_calm_network(own: MemberSpec) -> Network:
    """Make a network without dropout whose quantiles do not cross."""
    torch.manual_seed(0)
    network = Network(make_spec(members=(own,)), NetworkConfig(hidden=8, dropout=0.0))
    network.center[1], network.scale[1] = 20.0, 5.0
    with torch.no_grad():
        network.members[0].head.weight.mul_(0.1)
        network.members[0].persistence.fill_(0.5)
    return network


@pytest.mark.parametrize("own", [PLAIN, SHORT])
def test_the_loss_is_the_quantile_loss_of_what_the_member_forecasts(
    own: MemberSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_UNKNOWN_SHARE", 0.0)
    readings = NOISY.copy()
    readings[50:60], readings[::13] = np.nan, np.nan
    network = make_calm_network(own)
    member, batch = network.members[0], gathered(readings)

    found = member_loss(network, member, batch, make_generator(0, device=CPU))

    history, future = ((torch.from_numpy(x) - 20) / 5 for x in (batch.history, batch.future))
    series, step = torch.ones(len(history)).long(), torch.from_numpy(batch.next_step)
    forecast = member(history, series, step)
    assert torch.isnan(future).any()
    expected = quantile_loss(forecast, future, network.spec.quantiles)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_window_shown_without_its_name_counts_in_the_units_of_its_series(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "_UNKNOWN_SHARE", 1.0)
    network = make_calm_network(PLAIN)
    member, batch = network.members[0], gathered(NOISY)

    found = member_loss(network, member, batch, make_generator(0, device=CPU))

    inputs = (torch.from_numpy(batch.history), torch.zeros(len(batch.series)).long())
    forecast = network(*inputs, torch.from_numpy(batch.next_step))
    loss = quantile_loss(forecast, torch.from_numpy(batch.future), network.spec.quantiles) / 5
    assert found.item() == pytest.approx(loss.item(), rel=1e-4)


def test_only_a_linear_member_learns_from_windows_made_of_windows() -> None:
    network = Network(make_spec(members=(PLAIN, MIXED)), NetworkConfig(hidden=8, dropout=0.0))
    plain, mixed = network.members
    mixed.load_state_dict(plain.state_dict())
    batch = gathered(NOISY)

    losses = [
        member_loss(network, m, batch, make_generator(0, device=CPU)).item() for m in (plain, mixed)
    ]

    assert losses[0] != losses[1]
    mixed.spec = PLAIN
    assert member_loss(network, mixed, batch, make_generator(0, device=CPU)).item() == losses[0]


def test_the_best_weights_seen_are_restored() -> None:
    seen: list[Event] = []
    config = TrainConfig(epochs=8, batch_size=32, learning_rate=0.05)
    network, log = fit(NOISY, config, seen.append)
    epochs = [event for event in seen if isinstance(event, EpochEnded)]
    best = min(epochs, key=lambda e: e.validation_loss)
    (own,) = log.members
    assert best.is_best and best.steps == own.best_steps
    assert own.best_steps < own.steps == log.steps, "the test needs a run that overfits"
    assert log.epochs == own.epochs == tuple(epochs)
    train, validation = split(NOISY)
    held_out = validation.windows(24, 6, targets_after=train)
    batch = held_out.gather(np.arange(len(held_out)))
    with torch.no_grad():
        series, step = torch.ones(len(held_out)).long(), torch.from_numpy(batch.next_step)
        scaled = (torch.from_numpy(batch.history) - network.center[1]) / network.scale[1]
        future = (torch.from_numpy(batch.future) - network.center[1]) / network.scale[1]
        forecast = network.members[0](scaled, series, step)
        loss = quantile_loss(forecast, future, network.spec.quantiles)
    assert loss.item() == pytest.approx(best.validation_loss, rel=1e-4)


def test_three_epochs_without_a_better_one_end_the_training() -> None:
    _, log = fit(NOISY, TrainConfig(epochs=40, batch_size=32, learning_rate=0.05))
    (own,) = log.members
    assert len(own.epochs) < 40
    assert own.steps - own.best_steps == 3 * 20


def test_what_is_kept_is_a_running_mean_of_the_weights() -> None:
    network, run = make_training(TrainConfig(batch_size=32), is_validated=False)
    head = network.members[0].head.weight
    mean, shares = head.detach().double().clone(), []
    for step in range(1, 71):
        run.step()
        shares.append(max(1 / 50, 9 / (step + 9)))
        mean += shares[-1] * (head.detach().double() - mean)
    last = head.detach().clone()
    run.end_epoch()
    log = run.finish()

    assert torch.allclose(head.double(), mean, atol=1e-5)
    assert not torch.allclose(head, last, atol=1e-5)
    assert (log.steps, log.best_steps) == (70, 70)


def test_the_rate_is_constant_after_the_warm_up_however_long_the_training_is() -> None:
    for epochs in (1, 100):
        _, run = make_training(TrainConfig(batch_size=4, epochs=epochs, learning_rate=0.01))
        rates = []
        for _ in range(120):
            rates.append(run._optimizer.param_groups[0]["lr"])
            run.step()
        assert rates == pytest.approx([0.01 * min(1, (k + 1) / 100) for k in range(120)])


def test_a_run_stopped_after_n_steps_is_the_beginning_of_the_whole_run() -> None:
    config = TrainConfig(epochs=3, batch_size=32)
    seen: list[Event] = []
    fit(wave(400), config, seen.append)
    part: list[Event] = []
    fit(wave(400), dataclasses.replace(config, steps=20), part.append)
    first = next(e for e in seen if isinstance(e, EpochEnded))
    only = [e for e in part if isinstance(e, EpochEnded)]
    assert len(only) == 1 and only[0] == first


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    network, run = make_training(TrainConfig(batch_size=32))
    torch.nn.init.constant_(network.members[0].head.bias, float("nan"))
    with pytest.raises(DivergedError) as caught:
        for _ in range(40):
            run.step()
    assert "--learning-rate" in (caught.value.hint or "")


def test_clipping_bounds_every_step() -> None:
    seen: list[Event] = []
    fit(wave(400), TrainConfig(epochs=1, clip=1e-4), seen.append)
    epoch = next(e for e in seen if isinstance(e, EpochEnded))
    assert epoch.clipped == 1.0 and epoch.gradient_norm > 1e-4


def test_an_epoch_is_bounded_however_large_the_data_are() -> None:
    config = TrainConfig(batch_size=256)
    assert steps_per_epoch(10, config) == steps_per_epoch(5_000, config) == 20
    assert steps_per_epoch(10_000, config) == 40, "every window once"
    assert steps_per_epoch(10**9, config) == 60


@pytest.mark.parametrize("own", [PLAIN, MIXED, SHORT])
@pytest.mark.parametrize(("n_missing", "teaches"), [(0, True), (12, True), (13, False)])
def test_a_window_with_more_than_half_of_its_history_missing_teaches_nothing(
    n_missing: int,
    teaches: bool,  # noqa: FBT001
    own: MemberSpec,
) -> None:
    readings = wave(30, season=12)
    readings[:n_missing] = np.nan
    network = Network(make_spec(members=(own,)), SMALL)
    member, batch = network.members[0], gathered(readings)
    assert np.isnan(batch.history).sum() == n_missing
    member_loss(network, member, batch, make_generator(0, device=CPU)).backward()
    assert bool((member.head.bias.grad != 0).any()) == teaches


def test_each_member_draws_other_windows_and_other_random_numbers() -> None:
    network = started(NOISY, make_spec(members=(PLAIN, PLAIN)))
    network.members[1].load_state_dict(network.members[0].state_dict())
    windows = split(NOISY)[0].windows(24, 6)
    for index in range(2):
        run = MemberTraining(network, index, windows, None, TrainConfig(batch_size=8))
        run.step()
    first, second = (m.head.weight for m in network.members)
    assert not torch.equal(first, second)


def test_learning_on_takes_the_steps_it_was_given_and_changes_one_member() -> None:
    network = started(NOISY, make_spec(members=FOUR))
    before = weights_of(network)
    windows = split(NOISY)[1].windows(24, 6)
    steps = fine_tune(network, 2, windows, n_steps=5, config=TrainConfig(batch_size=8))
    assert list(steps) == [1, 2, 3, 4, 5]
    after = weights_of(network)
    changed = {name for name in before if before[name] != after[name]}
    assert changed and all(name.startswith("members.2.") for name in changed)


def test_other_values_are_active_only_for_a_while() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    with swapped_parameters([parameter], [torch.ones(3)]):
        assert parameter.tolist() == [1, 1, 1]
    assert parameter.tolist() == [0, 0, 0]


def small_fit(listener: Listener = ignore, **options: object) -> dict[str, bytes]:
    config = TrainConfig(epochs=1, batch_size=32, **options)
    return weights_of(fit(NOISY, config, listener, members=(PLAIN, MIXED))[0])


@pytest.mark.parametrize("reach", [24, 100])
def test_truncated_after_the_whole_look_back_the_weights_are_the_same_bits(reach: int) -> None:
    said: list[Event] = []

    assert small_fit(said.append, truncate=reach) == small_fit()
    assert not any("gradients come through" in str(event) for event in said)


def test_truncated_before_it_they_differ_and_what_is_given_up_is_said() -> None:
    said: list[Event] = []

    assert small_fit(said.append, truncate=12) != small_fit()
    assert any("the last 12 of 24 steps" in str(event) for event in said)


def test_truncated_a_step_keeps_fewer_activations() -> None:
    network = make_calm_network(MemberSpec(24, 1, linear=False, seasonal=False))
    batch, kept = gathered(NOISY), []
    for reach in (None, 3):
        sizes: dict[int, int] = {}

        def keep(x: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = member_loss(
                network, network.members[0], batch, make_generator(0, device=CPU), reach=reach
            )
        kept.append(sum(sizes.values()))
        loss.backward()

    assert kept[1] < 0.5 * kept[0]


def test_no_limit_clips_nothing() -> None:
    """Every gradient here is larger than 1e-9, and none than 1e9."""
    free, wide, tight = (small_fit(clip=clip) for clip in (0.0, 1e9, 1e-9))

    assert free == wide
    assert free != tight
