"""Small networks that tests of the model share."""

from __future__ import annotations

import torch

from rnnforecast.config.training import NetworkConfig
from rnnforecast.model.network import Network
from rnnforecast.spec import CELLS, MemberSpec
from tests.builders import make_spec

CELL_NAMES = sorted(CELLS)


def make_network(
    *,
    cell: str = "gru",
    lookback: int = 24,
    horizon: int = 12,
    segment: int = 6,
    season: int = 4,
    layers: int = 1,
    dropout: float = 0.0,
    members: tuple[MemberSpec, ...] | None = None,
) -> Network:
    """Make a network of width 16 for two series, by default of one member."""
    torch.manual_seed(0)
    config = NetworkConfig(cell=cell, hidden=16, layers=layers, dropout=dropout)
    spec = make_spec(lookback, horizon, season, 2, segment=segment, members=members)
    return Network(spec, config).eval()
