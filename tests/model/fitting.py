"""What tests of training share: readings cut in two, and a small network fitted to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.arrays import Doubles
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Past, TrainingWindows, make_past, windows_of
from rnnforecast.events import Listener, ignore
from rnnforecast.model import training
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.fitting import initialise_network
from rnnforecast.model.inference import MemberWeights
from rnnforecast.model.loss import ValidationWindows, loss_scales
from rnnforecast.model.member import Member
from rnnforecast.model.member import weights_of as weights_of_member
from rnnforecast.model.network import Network
from rnnforecast.model.training import EnsembleLog, train_members
from rnnforecast.spec import MemberSpec, NetworkSpec
from tests.builders import make_panel, make_spec, wave
from tests.model.networks import draw_network

DAY = Seasons(8)
NOISY = wave(200, season=8, noise=2.0)
PLAIN = MemberSpec("gru", hidden=4, layers=1, segment=8)
LSTM = replace(PLAIN, cell="lstm")
MINGRU = replace(PLAIN, cell="mingru")
UNTRAINED = replace(PLAIN, is_trained=False)
PAIR = (PLAIN, LSTM)
THREE = (*PAIR, MINGRU)
"""Members that are trained."""
FOUR = (*THREE, UNTRAINED)
EPOCH, PATIENCE = 4, 3
"""Steps of an epoch, and epochs without a better loss that end a training, in these tests."""
HARMFUL_RATE = 10.0
"""A rate at which training only harms."""


@contextmanager
def short_epochs() -> Iterator[None]:
    """Let epochs have a few steps, and trainings end soon."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (training,):
            patched.setattr(module, "EPOCH_STEPS", EPOCH)
        patched.setattr(training, "_PATIENCE", PATIENCE)
        yield


class Distances:
    """How far the weights of members are from those that they began with, to validate by."""

    def __init__(self) -> None:
        self._first: dict[Member, Tensor] = {}

    def of(self, member: Member) -> float:
        weights = torch.cat([p.detach().flatten() for p in member.parameters()])
        return float((weights - self._first.setdefault(member, weights.clone())).norm())


@contextmanager
def second_member_stops() -> Iterator[None]:
    """Let validation say that the second member never gets better, and the others always do."""
    distances = Distances()

    def loss(self: ValidationWindows, member: Member) -> float:
        is_second = member.spec == self._network.spec.members[1]
        return 1.0 if is_second else -distances.of(member)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ValidationWindows, "loss", loss)
        yield


def split(readings: np.ndarray) -> tuple[Past, Past]:
    """Return the first three quarters, and all of the readings."""
    panel = make_panel(readings)
    return make_past(panel, np.array([len(readings) * 3 // 4])), make_past(panel)


def windows_to_train(
    readings: np.ndarray, spec: NetworkSpec
) -> tuple[TrainingWindows, TrainingWindows]:
    """Return the windows of the first three quarters, and those whose horizon lies after them."""
    first, everything = split(readings)
    return windows_of(first, spec), windows_of(everything, spec, targets_after=first)


def scales_of(readings: np.ndarray) -> Doubles:
    """Return what errors of the series are divided by."""
    return loss_scales(split(readings)[0], [DAY])


def started(
    readings: np.ndarray, spec: NetworkSpec, *, seed: int = 0, dropout: float = 0.0
) -> Network:
    """Make a network before its first step."""
    first, _ = split(readings)
    torch.manual_seed(seed)
    network = draw_network(spec, NetworkConfig(dropout=dropout))
    return initialise_network(network, DAY, [DAY], first, windows_of(first, spec))


def train(
    network: Network,
    readings: np.ndarray,
    config: TrainConfig,
    listener: Listener = ignore,
    *,
    checkpoints: Checkpoints | None = None,
    validates: bool = True,
) -> tuple[Network, EnsembleLog]:
    """Train a network on the first three quarters, validated on the rest."""
    windows, held_out = windows_to_train(readings, network.spec)
    return train_members(
        network,
        windows,
        scales=scales_of(readings),
        validation=held_out if validates else None,
        config=config,
        listener=listener,
        checkpoints=checkpoints,
    )


def fit(
    readings: np.ndarray,
    config: TrainConfig,
    listener: Listener = ignore,
    *,
    members: tuple[MemberSpec, ...] = (PLAIN,),
    checkpoints: Checkpoints | None = None,
    dropout: float = 0.0,
) -> tuple[Network, EnsembleLog]:
    """Make a network and train it."""
    network = started(readings, make_spec(members=members), seed=config.seed, dropout=dropout)
    return train(network, readings, config, listener, checkpoints=checkpoints)


def weights_of(network: Network | MemberWeights | Member) -> dict[str, bytes]:
    """Return every weight, to compare bit by bit."""
    if isinstance(network, Network):
        return {name: x.tobytes() for name, x in network.tensors().items()}
    weights = weights_of_member(network) if isinstance(network, Member) else network
    return {name: x.tobytes() for name, x in weights.tensors.items()}
