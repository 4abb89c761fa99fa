"""Small networks that tests of the model share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Doubles
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons
from rnnforecast.model.inference import MemberWeights
from rnnforecast.model.inputs import Segments
from rnnforecast.model.member import Member, draw_members
from rnnforecast.model.network import History, Network
from rnnforecast.spec import (
    CELLS,
    N_EXPERTS,
    MemberSpec,
    NetworkSpec,
    n_covariate_inputs,
    n_inputs,
)
from tests.builders import make_spec

CELL_NAMES = sorted(CELLS)
LOOKBACK, HORIZON, SEGMENT = 32, 10, 4
DAY = Seasons(8)


def make_network(
    *members: MemberSpec,
    cell: str = "gru",
    layers: int = 1,
    segment: int = SEGMENT,
    lookback: int = LOOKBACK,
    horizon: int = HORIZON,
    n_features: tuple[int, int, int] = (0, 0, 0),
) -> Network:
    """Make a network for two series whose every weight has been moved, by default of one member."""
    torch.manual_seed(0)
    chosen = members or (MemberSpec(cell, 4, layers, segment),)
    spec = make_spec(lookback, horizon, 8, 2, members=chosen)
    n_known, n_past, n_static = n_features
    spec = replace(spec, n_known=n_known, n_past=n_past, n_static=n_static)
    return moved(draw_network(spec), 0.3)


def draw_network(spec: NetworkSpec, config: NetworkConfig | None = None) -> Network:
    """Draw the first weights of a network that is told nothing of any series."""
    config = config or NetworkConfig()
    return Network.of_members(spec, config, draw_members(spec, init=config.init))


def moved(network: Network, size: float) -> Network:
    """Return a network whose every weight differs, by about this much."""

    def other(values: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(values) + size * torch.randn(values.shape)).numpy()

    members = [
        replace(member, tensors={name: other(x) for name, x in member.tensors.items()})
        for member in network.members
    ]
    return replace(network, members=tuple(members))


def with_weights(network: Network, number: int, changed: dict[str, np.ndarray]) -> Network:
    """Return a network in which some weights of a member are others."""
    changed = {name: np.asarray(x, np.float32) for name, x in changed.items()}
    members = list(network.members)
    members[number] = replace(members[number], tensors={**members[number].tensors, **changed})
    return replace(network, members=tuple(members))


def make_segments(
    member: Member, spec: NetworkSpec, *, n: int = 3, n_segments: int = 6
) -> Segments[Tensor]:
    """Make the inputs of n windows from random numbers."""
    torch.manual_seed(1)
    segment = member.spec.segment
    segments = Segments(
        torch.randn(n, n_segments, n_inputs(segment)),
        torch.randn(n, n_segments, N_EXPERTS, segment),
        0.1 + 0.9 * torch.rand(n, n_segments),
    )
    if not spec.n_features:
        return segments
    return segments._replace(
        covariates=torch.randn(n, n_segments, n_covariate_inputs(spec, segment)),
        reaction=torch.randn(n, n_segments, segment if spec.n_known else 0),
        reaction_error=torch.rand(n, n_segments),
    )


def split_segments(
    segments: Segments[Tensor], n_history: int
) -> tuple[Segments[Tensor], Segments[Tensor]]:
    """Return the first segments, a history, and the others, those ahead."""
    first, second = (
        Segments(*(x if x is None else x[:, part] for x in segments))
        for part in (slice(n_history), slice(n_history, None))
    )
    return first, second


def quantiles_of(
    member: Member, segments: Segments[Tensor], *, n_ahead: int = 2, reach: int | None = None
) -> Tensor:
    """Return the quantiles of all segments, the last of which lie ahead, (N, S, Q, P).

    Each stretch has one window, at the end of its history.
    """
    n, n_segments = segments.gain.shape
    history, ahead = split_segments(segments, n_segments - n_ahead)
    encoded, states = member.encode(history, reach=reach)
    later = member.encode_ahead(
        states, ahead, torch.arange(n), torch.full((n,), n_segments - n_ahead)
    )
    return torch.cat([member.decode(encoded, history), member.decode(later, ahead)], dim=1)


def forecast_by(network: Network, member: MemberWeights, history: History) -> Doubles:
    """Forecast by one member."""
    return network.member_forecast(member, network.prepare(history, member.spec.segment))


def make_history(
    readings: np.ndarray,
    *,
    entry: int | np.ndarray = 1,
    seasons: Seasons = DAY,
    features: Features | None = None,
) -> History:
    """Make windows, `(window, lookback)`, of one series or of several."""
    entries = np.broadcast_to(np.asarray(entry, np.int64), len(readings)).copy()
    return History(np.asarray(readings, np.float32), entries, [seasons] * len(readings), features)


def sensor_windows(n: int = 3, *, lookback: int = LOOKBACK, missing: float = 0.0) -> np.ndarray:
    """Make windows of a season of 8 rows, a walk and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(lookback)
    walks = rng.normal(0, 0.3, (n, lookback)).cumsum(1)
    readings = 3 * np.sin(np.pi * t / 4) + walks + rng.normal(0, 0.5, (n, lookback))
    readings[rng.random(readings.shape) < missing] = np.nan
    return readings.astype(np.float32)
