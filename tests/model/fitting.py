"""What tests of training share: readings cut in two, and a small network fitted to them."""

from __future__ import annotations

import numpy as np
import torch

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import Past, make_past
from rnnforecast.events import Listener, ignore
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.ensemble import EnsembleLog, train_members
from rnnforecast.model.initialise import initialise_network
from rnnforecast.model.network import Network
from rnnforecast.spec import MemberSpec, NetworkSpec
from tests.builders import make_panel, make_spec

SMALL = NetworkConfig(hidden=8)
PLAIN = MemberSpec(24, 6, linear=False, seasonal=False)
MIXED = MemberSpec(24, 6, linear=True, seasonal=False)
SHORT = MemberSpec(12, 6, linear=False, seasonal=False)
SHORT_MIXED = MemberSpec(12, 6, linear=True, seasonal=False)
SEASONAL = MemberSpec(24, 6, linear=True, seasonal=True)
FOUR = (SEASONAL, PLAIN, SHORT, SHORT_MIXED)


def split(readings: np.ndarray) -> tuple[Past, Past]:
    """Return the first three quarters, and all of the readings."""
    panel = make_panel(readings)
    return make_past(panel, np.array([len(readings) * 3 // 4])), make_past(panel)


def started(
    readings: np.ndarray, spec: NetworkSpec, *, seed: int = 0, config: NetworkConfig = SMALL
) -> Network:
    """Make a network before its first step."""
    train, _ = split(readings)
    torch.manual_seed(seed)
    network = Network(spec, config)
    initialise_network(network, fit_scaling(train), train.windows(spec.lookback, spec.horizon))
    return network


def train(
    network: Network,
    readings: np.ndarray,
    config: TrainConfig,
    listener: Listener = ignore,
    *,
    checkpoints: Checkpoints | None = None,
) -> EnsembleLog:
    """Train a network in place on the first three quarters, validated on the rest."""
    first, everything = split(readings)
    spec = network.spec
    return train_members(
        network,
        first.windows(spec.lookback, spec.horizon),
        validation=everything.windows(spec.lookback, spec.horizon, targets_after=first),
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
) -> tuple[Network, EnsembleLog]:
    """Make a network and train it."""
    network = started(readings, make_spec(members=members), seed=config.seed)
    return network, train(network, readings, config, listener, checkpoints=checkpoints)


def weights_of(network: Network) -> dict[str, bytes]:
    """Return every weight, to compare bit by bit."""
    return {name: x.numpy().tobytes() for name, x in network.state_dict().items()}
