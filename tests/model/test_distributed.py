"""Ranks that train one network take the steps of one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import find_seasons
from rnnforecast.data.windows import make_past, windows_of
from rnnforecast.errors import UsageError
from rnnforecast.events import ignore
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.distributed import sum_gradients
from rnnforecast.model.fitting import initialise_network
from rnnforecast.model.loss import N_ORIGINS, ValidationWindows, loss_scales
from rnnforecast.model.member import weights_of
from rnnforecast.model.network import Network
from rnnforecast.model.training import (
    MemberTraining,
    TrainingInputs,
    fine_tune,
    train_members,
)
from rnnforecast.spec import MemberSpec
from tests.builders import make_panel, make_spec, wave
from tests.data.test_past import sensors
from tests.model.fitting import EPOCH, short_epochs
from tests.model.networks import draw_network
from tests.together import ThreadRanks, held_by, together

PLAIN = MemberSpec("gru", 4, 1, 8)
MEMBERS = {
    "plain": PLAIN,
    "mingru": dataclasses.replace(PLAIN, cell="mingru"),
    "covariates": dataclasses.replace(PLAIN, covariates=True),
}
CONFIG = TrainConfig(batch_size=4 * N_ORIGINS, epochs=2, threads=1, learning_rate=0.01)
N_STEPS = EPOCH + 2
"""Into the second epoch."""


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


def readings() -> Panel:
    """Four sensors with gaps; the last is much shorter than the others."""
    panel = dataclasses.replace(sensors(), covariates=None)
    return panel.before(np.array([100, 100, 100, 50]))


def begun(panel: Panel, member: MemberSpec, *, dropout: float = 0.0) -> Network:
    """Return a network as training begins with it."""
    known, past, static = panel.covariates.sizes if panel.covariates else (0, 0, 0)
    spec = dataclasses.replace(
        make_spec(season=24, n_series=panel.n_series, members=(member,)),
        n_known=known,
        n_past=past,
        n_static=static,
    )
    torch.manual_seed(0)
    return draw_network(spec, NetworkConfig(dropout=dropout))


def steps_of(
    network: Network, panel: Panel, config: TrainConfig = CONFIG
) -> tuple[list[float], Tensors]:
    """Train from the readings of a panel; return losses and weights.

    The losses are those of each step and of each validation.
    """
    train = make_past(panel, panel.rows_before(panel.end_us - 20 * panel.step_us))
    seasons, spec = find_seasons(train), network.spec
    windows, scales = windows_of(train, spec), loss_scales(train, seasons)
    network = initialise_network(network, None, seasons, train, windows)
    validation = windows_of(make_past(panel), spec, targets_after=train)
    held_out = ValidationWindows(network, validation, scales)
    inputs = TrainingInputs(network, windows, scales, config)
    training = MemberTraining(network, 0, inputs, held_out, config)
    losses = [training._first_loss]
    for _ in range(N_STEPS):
        ended = training.step()
        losses.append(ended.train_loss if ended else float(training._losses[-1]))
    losses += [epoch.validation_loss for epoch in training.epochs]
    everything, member = windows_of(make_past(panel), spec), training.member
    for _ in fine_tune(network, member, 0, everything, scales=scales, n_steps=2, config=config):
        pass
    return losses, {**network.tensors(), **weights_of(member).tensors}


@pytest.mark.parametrize(
    ("kind", "sizes"), [("plain", (1, 1, 2)), ("mingru", (3, 1)), ("covariates", (1, 1, 2))]
)
def test_ranks_reach_the_losses_of_one_process_at_each_step(kind, sizes):
    panel = sensors() if kind == "covariates" else readings()
    network = begun(panel, MEMBERS[kind], dropout=0.1)
    expected, alone = steps_of(network, panel)

    of_ranks = together(len(sizes), lambda ranks: steps_of(network, held_by(panel, sizes, ranks)))

    assert len(expected) == N_STEPS + 2
    assert expected[-1] != expected[0], "it learns"
    _, first = of_ranks[0]
    for losses, weights in of_ranks:
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
        for name, value in weights.items():
            assert np.array_equal(value, first[name]), f"{name} differs between ranks"
    for name, value in alone.items():
        np.testing.assert_allclose(first[name], value, rtol=0, atol=2e-3)


def test_more_ranks_than_stretches_in_a_batch_are_refused():
    panel = make_panel(*(wave(60, season=12, seed=s) for s in range(3)))

    def fit(ranks: ThreadRanks) -> None:
        shared = held_by(panel, (1, 1, 1), ranks)
        network = begun(panel, PLAIN)
        train_members(
            network,
            windows_of(make_past(shared), network.spec),
            scales=np.ones(3),
            validation=None,
            config=dataclasses.replace(CONFIG, batch_size=2 * N_ORIGINS + 3),
            listener=ignore,
        )

    with pytest.raises(UsageError, match="gives 2 blocks of windows, fewer than the 3 processes"):
        together(3, fit)


def test_gradients_are_added_up_and_none_stays_none():
    def added(ranks: ThreadRanks) -> tuple[list[Tensor | None], float]:
        parameters = [torch.zeros(2, 3), torch.zeros(4), torch.zeros(1)]
        parameters[0].grad = torch.full((2, 3), 1.0 + ranks.rank)
        if ranks.rank == 1:
            parameters[1].grad = torch.arange(4.0)
        loss = sum_gradients(parameters, torch.tensor(0.5), ranks)
        return [p.grad for p in parameters], float(loss)

    for (first, second, third), loss in together(3, added):
        assert torch.equal(first, torch.full((2, 3), 6.0))
        assert torch.equal(second, torch.arange(4.0)), "one rank has met a gap"
        assert third is None
        assert loss == 1.5
