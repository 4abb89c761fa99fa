"""The training of one member: what it minimises, what it keeps, and when it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.windows import make_past, windows_of
from rnnforecast.errors import DivergedError
from rnnforecast.events import EpochEnded, Event, Listener, ignore
from rnnforecast.model import training
from rnnforecast.model.loss import N_ORIGINS, ValidationWindows, n_stretches
from rnnforecast.model.member import Member, make_member
from rnnforecast.model.network import Network
from rnnforecast.model.training import (
    MemberTraining,
    TrainingInputs,
    dropout_mask,
    fine_tune,
    make_generator,
    make_optimizer,
    swapped_parameters,
)
from tests.builders import make_panel, make_spec
from tests.model.fitting import (
    EPOCH,
    FOUR,
    HARMFUL_RATE,
    LSTM,
    NOISY,
    PATIENCE,
    PLAIN,
    Distances,
    fit,
    scales_of,
    short_epochs,
    started,
    train,
    weights_of,
    windows_to_train,
)

CPU = torch.device("cpu")
QUICK = TrainConfig(epochs=2, batch_size=8, threads=1)


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


def make_training(
    config: TrainConfig, *, is_validated: bool = False, dropout: float = 0.0
) -> MemberTraining:
    """Start the training of one member."""
    network = started(NOISY, make_spec(members=(PLAIN,)), dropout=dropout)
    windows, validation = windows_to_train(NOISY, network.spec)
    scales = scales_of(NOISY)
    held_out = ValidationWindows(network, validation, scales) if is_validated else None
    inputs = TrainingInputs(network, windows, scales, config)
    return MemberTraining(network, 0, inputs, held_out, config)


def validation_loss(network: Network) -> float:
    _, validation = windows_to_train(NOISY, network.spec)
    held_out = ValidationWindows(network, validation, scales_of(NOISY))
    return held_out.loss(make_member(network, 0))


def epochs_in(events: list[Event]) -> list[EpochEnded]:
    return [event for event in events if isinstance(event, EpochEnded)]


# What is kept


def test_an_epoch_without_a_better_loss_than_all_before_is_not_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss is the distance to the weights of two epochs."""
    shorter = started(NOISY, make_spec(members=(PLAIN,)))
    begun = make_member(shorter, 0)
    distances = Distances()
    distances.of(begun)
    trained, _ = train(shorter, NOISY, QUICK, validates=False)
    begun.load_state_dict(make_member(trained, 0).state_dict())
    best_distance, distances = distances.of(begun), Distances()

    def loss(_: ValidationWindows, member: Member) -> float:
        return abs(distances.of(member) - best_distance)

    monkeypatch.setattr(ValidationWindows, "loss", loss)
    events: list[Event] = []
    _, log = fit(NOISY, dataclasses.replace(QUICK, epochs=40), events.append)

    (member_log,) = log.members
    assert member_log.steps == (2 + PATIENCE) * EPOCH
    epochs = epochs_in(events)
    assert log.epochs == member_log.epochs == tuple(epochs)
    assert [epoch.is_best for epoch in epochs] == [True] * 2 + [False] * PATIENCE
    assert epochs[1].validation_loss == 0


@pytest.mark.parametrize(
    ("loss", "kept"), [(1.05, "last"), (1.15, "first"), (float("nan"), "first")]
)
def test_the_last_weights_are_kept_unless_they_are_far_worse_than_the_first(
    loss: float, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 0.5, loss, loss])
    monkeypatch.setattr(ValidationWindows, "loss", lambda *_: next(losses))
    run = make_training(QUICK, is_validated=True)
    before = weights_of(run.member)
    for _ in range(2 * EPOCH):
        run.step()
    averaged = [x.clone() for x in run._averaged]

    log = run.finish()

    assert log.steps == 2 * EPOCH
    if kept == "last":
        weights = list(run.member.parameters())
        assert all(torch.equal(a, b) for a, b in zip(weights, averaged, strict=True))
        assert log.kept_steps == 2 * EPOCH
    else:
        assert weights_of(run.member) == before
        assert log.kept_steps == 0


@pytest.mark.parametrize(
    ("options", "n_windows", "expected"),
    [
        ({}, 10, 100),
        ({}, 8_000, 200),
        ({}, 10**6, 300),
        ({"steps": 1000}, 10, 1000),
        ({"epochs": 40}, 10, 1000),
        ({"epochs": 4, "steps": 1000}, 10, 100),
        ({"epochs": 40, "steps": 7}, 10, 7),
    ],
)
def test_the_number_of_windows_bounds_the_steps_unless_they_are_told(
    options: dict[str, int], n_windows: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "EPOCH_STEPS", 25)
    assert training.max_steps(TrainConfig(**options), n_windows) == expected


def test_the_loss_that_an_epoch_reports_is_that_of_its_averaged_weights() -> None:
    network, log = fit(NOISY, dataclasses.replace(QUICK, epochs=1, learning_rate=0.01))
    assert validation_loss(network) == pytest.approx(log.epochs[0].validation_loss, rel=1e-6)


def test_a_training_that_only_harms_ends_in_the_weights_that_it_began_with() -> None:
    network = started(NOISY, make_spec(members=(PLAIN,)))
    config = dataclasses.replace(QUICK, epochs=40, learning_rate=HARMFUL_RATE)
    trained, log = fit(NOISY, config)

    assert weights_of(trained) == weights_of(network)
    assert log.members[0].kept_steps == 0
    assert not any(epoch.is_best for epoch in log.epochs)


def test_some_epochs_without_a_better_one_end_the_training() -> None:
    _, log = fit(NOISY, dataclasses.replace(QUICK, epochs=40, learning_rate=HARMFUL_RATE))
    assert log.steps == PATIENCE * EPOCH


def test_without_validation_training_never_stops_early() -> None:
    run = make_training(dataclasses.replace(QUICK, learning_rate=HARMFUL_RATE))
    for _ in range(5 * EPOCH):
        run.step()
    assert not run.has_stopped
    assert run.finish().kept_steps == 5 * EPOCH


def test_what_is_kept_is_a_running_mean_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_AVERAGED_STEPS", 3)
    run = make_training(QUICK)
    head = run.member.head.weight
    mean = head.detach().double().clone()
    for step in range(1, 21):
        run.step()
        mean += max(1 / 3, 9 / (step + 9)) * (head.detach().double() - mean)
    last = head.detach().clone()
    run.end_epoch()
    log = run.finish()

    assert torch.allclose(head.double(), mean, atol=1e-5)
    assert not torch.allclose(head, last, atol=1e-5)
    assert (log.steps, log.kept_steps) == (20, 20)


# Steps


def test_the_rate_is_constant_after_the_warm_up_however_long_the_training_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "_WARM_UP_STEPS", 5)
    for epochs in (1, 100):
        run = make_training(dataclasses.replace(QUICK, epochs=epochs, learning_rate=0.01))
        rates = []
        for _ in range(8):
            rates.append({group["lr"] for group in run._optimizer.param_groups})
            run.step()
        expected = [0.01 * min(1, (k + 1) / 5) for k in range(8)]
        assert [x for rate in rates for x in rate] == pytest.approx(expected)


def test_training_lowers_the_loss() -> None:
    config = dataclasses.replace(QUICK, epochs=20, batch_size=32, learning_rate=0.05)
    network = started(NOISY, make_spec(members=(PLAIN,)), seed=config.seed)
    trained, _ = fit(NOISY, config)
    assert validation_loss(trained) < 0.98 * validation_loss(network)


def test_a_run_stopped_after_n_steps_is_the_beginning_of_the_whole_run() -> None:
    events: list[Event] = []
    fit(NOISY, QUICK, events.append)
    beginning: list[Event] = []
    fit(NOISY, dataclasses.replace(QUICK, steps=EPOCH), beginning.append)
    assert len(epochs_in(events)) == 2
    assert epochs_in(beginning) == epochs_in(events)[:1]


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    run = make_training(QUICK)
    torch.nn.init.constant_(run.member.head.bias, float("nan"))
    with pytest.raises(DivergedError) as caught:
        for _ in range(EPOCH):
            run.step()
    assert "--learning-rate" in (caught.value.hint or "")
    assert run.state() is None, "nothing to resume from"


def test_matrices_decay_and_biases_and_norms_do_not() -> None:
    member = make_member(started(NOISY, make_spec(members=(PLAIN,))), 0)
    before = {name: p.detach().clone() for name, p in member.named_parameters()}
    optimizer = make_optimizer(member, 0.5)
    for parameter in member.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in member.named_parameters():
        share = 1 - 0.5 * 0.02 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), share * before[name], msg=name)


def test_windows_of_a_step_are_a_multiple_of_the_stretches_that_they_end_in() -> None:
    batch_sizes = 1, N_ORIGINS - 1, N_ORIGINS, 4 * N_ORIGINS, 4 * N_ORIGINS + 3
    assert [n_stretches(TrainConfig(batch_size=n)) for n in batch_sizes] == [1, 1, 1, 4, 4]


def test_members_share_the_windows_of_a_step_and_draw_other_random_numbers() -> None:
    weights = []
    for dropout in (0.0, 0.3):
        network = started(NOISY, make_spec(members=(PLAIN, PLAIN)), dropout=dropout)
        network = replace(network, members=network.members[:1] * 2)
        windows, _ = windows_to_train(NOISY, network.spec)
        inputs = TrainingInputs(network, windows, scales_of(NOISY), QUICK)
        runs = [MemberTraining(network, i, inputs, None, QUICK) for i in range(2)]
        for run in runs:
            run.step()
        weights.append([run.member.head.weight for run in runs])
    assert [torch.equal(*both) for both in weights] == [True, False]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (2, 3, 2, 1), (4, 4, 0, 0, 1)])
def test_inputs_of_a_step_do_not_depend_on_the_steps_before(order: tuple[int, ...]) -> None:
    network = started(NOISY, make_spec(members=(PLAIN,)))
    windows, _ = windows_to_train(NOISY, network.spec)
    member = make_member(network, 0)
    inputs, targets = TrainingInputs(network, windows, scales_of(NOISY), QUICK), {}
    for step in order:
        alone = TrainingInputs(network, windows, scales_of(NOISY), QUICK).of_step(member, step)
        targets[step] = inputs.of_step(member, step).target
        assert torch.equal(targets[step], alone.target), step
    first, second, *_ = targets.values()
    assert not torch.equal(first, second)


def test_a_series_shorter_than_the_look_back_teaches() -> None:
    past = make_past(make_panel(NOISY[:44]))
    spec = make_spec(lookback=96, members=(PLAIN,))
    assert spec.least_history == 32
    windows = windows_of(past, spec)
    assert len(windows) == 44 - 32 - 6 + 1
    network = started(NOISY, spec)
    inputs = TrainingInputs(network, windows, np.ones(1), QUICK)
    run = MemberTraining(network, 0, inputs, None, QUICK)
    run.step()
    assert torch.isfinite(run._losses[0]) and run._losses[0] > 0
    assert weights_of(run.member) != weights_of(network.members[0])


# Options


def small_fit(
    listener: Listener = ignore, *, dropout: float = 0.0, **options: object
) -> dict[str, bytes]:
    config = dataclasses.replace(QUICK, steps=2, **options)
    return weights_of(fit(NOISY, config, listener, members=(PLAIN, LSTM), dropout=dropout)[0])


@pytest.mark.parametrize("reach", [32, 100])
def test_truncated_after_the_whole_look_back_the_weights_are_the_same_bits(reach: int) -> None:
    events: list[Event] = []

    assert small_fit(events.append, truncate=reach) == small_fit()
    assert not any("gradients are truncated" in str(event) for event in events)


def test_truncated_before_it_they_differ_and_a_notice_says_so() -> None:
    events: list[Event] = []

    assert small_fit(events.append, truncate=12) != small_fit()
    assert any("truncated after 12 of 32 steps" in str(event) for event in events)


def test_no_limit_clips_nothing() -> None:
    """Every gradient here is larger than 1e-9, and none than 1e9."""
    free, wide, tight = (small_fit(clip=clip) for clip in (0.0, 1e9, 1e-9))

    assert free == wide
    assert free != tight


def test_steps_that_are_clipped_are_counted() -> None:
    events: list[Event] = []
    small_fit(events.append, clip=1e-4)
    for epoch in epochs_in(events):
        assert epoch.clipped == 1.0 and epoch.gradient_norm > 1e-4


def test_seed_and_dropout_decide_the_weights_and_threads_do_not() -> None:
    weights = [small_fit(), small_fit(seed=1), small_fit(dropout=0.3)]
    assert small_fit(dropout=0.3, threads=2) == weights[2]
    assert weights[0] != weights[1] != weights[2] != weights[0]


def test_a_dropout_mask_keeps_whole_units_and_their_mean() -> None:
    member = make_member(started(NOISY, make_spec(members=(PLAIN,))), 0)

    def draw(seed: int) -> torch.Tensor:
        return dropout_mask(member, 5000, 0.2, make_generator(seed, device=CPU))

    mask = draw(0)

    assert mask.shape == (5000, 1, 4)
    assert mask.unique().tolist() == [0.0, 1.25]
    assert mask.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(draw(0), mask)
    assert not torch.equal(draw(1), mask)


def test_generators_depend_on_every_number_of_their_key() -> None:
    draws = [
        torch.rand(3, generator=make_generator(*key, device=CPU)).tolist()
        for key in ((0, 1), (1, 0), (0, 1, 2), (0, 1))
    ]
    assert draws[0] == draws[3]
    assert len({tuple(x) for x in draws}) == 3


# Fine-tuning


def test_fine_tuning_takes_the_steps_it_was_given_and_changes_one_member() -> None:
    network = started(NOISY, make_spec(members=FOUR))
    member, before = make_member(network, 2), weights_of(network)
    windows, _ = windows_to_train(NOISY, network.spec)
    options = {"scales": scales_of(NOISY), "config": QUICK}
    steps = fine_tune(network, member, 2, windows, n_steps=5, **options)
    assert list(steps) == [1, 2, 3, 4, 5]
    after = weights_of(member)
    assert after != weights_of(network.members[2])
    assert weights_of(network) == before
    assert not list(fine_tune(network, member, 2, windows, n_steps=0, **options))
    assert weights_of(member) == after


def test_the_rate_of_fine_tuning_falls_from_a_quarter_of_the_peak_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates, step = [], training.train_step

    def recorded(network: Network, member: Member, batch: object, optimizer: object, **options):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(network, member, batch, optimizer, **options)

    monkeypatch.setattr(training, "train_step", recorded)
    network = started(NOISY, make_spec(members=(PLAIN,)))
    windows, _ = windows_to_train(NOISY, network.spec)
    config = dataclasses.replace(QUICK, learning_rate=0.04)
    member = make_member(network, 0)
    list(fine_tune(network, member, 0, windows, scales=scales_of(NOISY), n_steps=5, config=config))
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])


def test_other_values_are_active_only_for_a_while() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(KeyError), swapped_parameters([parameter], [torch.ones(3)]):
        assert parameter.tolist() == [1, 1, 1]
        raise KeyError
    assert parameter.tolist() == [0, 0, 0]


# State


@pytest.mark.parametrize("n_steps", [0, 1, EPOCH, EPOCH + 3])
def test_a_training_that_is_restored_goes_on_in_the_same_bits(n_steps: int) -> None:
    config = dataclasses.replace(QUICK, seed=3)
    run = make_training(config, is_validated=True, dropout=0.2)
    for _ in range(n_steps):
        run.step()
    state = run.state()
    assert state is not None
    copies = {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in vars(state).items()
    }
    for kind in ("weights", "averaged", "means", "squares"):
        copies[kind] = {name: value.copy() for name, value in copies[kind].items()}
    state = dataclasses.replace(state, **copies)

    resumed = make_training(config, is_validated=True, dropout=0.2)
    resumed.restore(state)
    for _ in range(EPOCH + 1):
        run.step()
        resumed.step()

    assert weights_of(resumed.member) == weights_of(run.member)
    assert resumed.epochs == run.epochs
    assert resumed.finish() == run.finish()
    assert weights_of(resumed.member) == weights_of(run.member)


def test_scales_are_those_of_the_training_readings() -> None:
    assert scales_of(NOISY)[0] == pytest.approx(
        np.abs(NOISY[16:150] - NOISY[:134]).mean(), rel=1e-6
    )
