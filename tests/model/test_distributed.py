"""Ranks that train one network take the steps of one process."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.panel import Panel
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import make_past
from rnnforecast.errors import UsageError
from rnnforecast.events import ignore
from rnnforecast.model.distributed import sum_gradients
from rnnforecast.model.ensemble import train_members
from rnnforecast.model.initialise import initialise_network
from rnnforecast.model.loss import ValidationWindows
from rnnforecast.model.network import Network
from rnnforecast.model.training import MemberTraining, fine_tune
from rnnforecast.spec import MemberSpec
from tests.builders import make_panel, make_spec, wave
from tests.data.test_past import sensors
from tests.together import ThreadRanks, held_by, together

MEMBERS = {
    "plain": MemberSpec(24, 6, linear=False, seasonal=False),
    "linear": MemberSpec(24, 6, linear=True, seasonal=True),
    "beside": MemberSpec(24, 6, linear=True, seasonal=True, covariates=True),
}
CONFIG = TrainConfig(batch_size=32, epochs=2, threads=1)
N_STEPS = 25
"""Into the second epoch."""


def readings() -> Panel:
    """Four sensors with gaps; the last is much shorter than the others."""
    panel = dataclasses.replace(sensors(), covariates=None)
    return panel.before(np.array([100, 100, 100, 40]))


def begun(panel: Panel, own: MemberSpec, **network: object) -> Network:
    """Return a network as training begins with it."""
    known, past, static = panel.covariates.sizes if panel.covariates else (0, 0, 0)
    spec = dataclasses.replace(
        make_spec(season=12, n_series=panel.n_series, members=(own,)),
        n_known=known,
        n_past=past,
        n_static=static,
    )
    torch.manual_seed(0)
    return Network(spec, NetworkConfig(hidden=8, **network))


def steps_of(network: Network, panel: Panel, config: TrainConfig = CONFIG) -> list[float]:
    """Train from the readings of a panel; return the loss of each step, and of each validation."""
    train = make_past(panel, panel.rows_before(panel.end_us - 20 * panel.step_us))
    windows = train.windows(24, 6)
    initialise_network(network, fit_scaling(train), windows)
    held_out = ValidationWindows(make_past(panel).windows(24, 6, targets_after=train))
    training = MemberTraining(network, 0, windows, held_out, config)
    losses = []
    for _ in range(N_STEPS):
        ended = training.step()
        losses.append(ended.train_loss if ended else float(training._losses[-1]))
    losses += [epoch.validation_loss for epoch in training.epochs]
    for _ in fine_tune(network, 0, make_past(panel).windows(24, 6), n_steps=3, config=config):
        pass
    return losses


@pytest.mark.parametrize(
    ("kind", "sizes"), [("plain", (1, 1, 2)), ("linear", (3, 1)), ("beside", (1, 1, 2))]
)
def test_ranks_reach_the_losses_of_one_process_at_each_step(kind, sizes):
    panel = sensors() if kind == "beside" else readings()
    alone = begun(panel, MEMBERS[kind], dropout=0.1)
    networks = [copy.deepcopy(alone) for _ in sizes]
    expected = steps_of(alone, panel)

    found = together(
        len(sizes), lambda ranks: steps_of(networks[ranks.rank], held_by(panel, sizes, ranks))
    )

    assert len(expected) == N_STEPS + 1
    assert expected[-1] < expected[0], "it learns"
    for losses in found:
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    first = networks[0].state_dict()
    for other in networks[1:]:
        for name, value in other.state_dict().items():
            assert torch.equal(value, first[name]), f"{name} differs between ranks"
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=2e-3)


def test_more_ranks_than_windows_in_a_batch_are_told():
    panel = make_panel(*(wave(60, season=12, seed=s) for s in range(3)))

    def fit(ranks: ThreadRanks) -> None:
        shared = held_by(panel, (1, 1, 1), ranks)
        windows = make_past(shared).windows(24, 6)
        network = begun(panel, MEMBERS["plain"])
        config = dataclasses.replace(CONFIG, batch_size=2)
        train_members(network, windows, validation=None, config=config, listener=ignore)

    with pytest.raises(UsageError, match="--batch-size 2 is less than there are ranks, 3"):
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
