"""What is done to a window before a network sees it: level and spread taken out, gaps filled.

Apart from `network` and `member`, which both need it: functions of arrays, without weights.

Shapes: N windows, L readings of a history. Source: RevIN (Kim and others 2022).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_WIDEST = 4.0
"""A window that moves more than so many times as its series used to is brought to this spread."""
_SPREAD_FLOOR = 1e-2
"""Least spread of a window, in units of its series' scale: a stuck sensor has none of its own."""
_PRIOR_READINGS = 4.0
"""An empty window has the spread of its series, as if so many readings said so."""


class Window(NamedTuple):
    """One batch of histories after normalisation."""

    values: Tensor  # (N, L), 0 mean over the readings that are there
    missing: Tensor | None  # (N, L), 1.0 where no reading is; None where all are there
    level: Tensor  # (N, 1), in units of the series' scale
    spread: Tensor  # (N, 1), what the values are in units of
    newest: Tensor  # (N, 1), the last reading that is there, normalised


def normalise(scaled: Tensor, *, rescaled: bool = True) -> Window:
    """Bring each window, (N, L), to zero mean over the readings that are there.

    Where it is rescaled also to unit spread; else it stays in the units of its series. A missing
    reading repeats the last one before it, 0 where there is none. A few readings do not show their
    spread: the emptier a window, the more its series' own, 1, counts.
    """
    seen = torch.isfinite(scaled)
    level, variance = moments(scaled, seen)
    n_seen = seen.sum(1, keepdim=True)
    prior = _PRIOR_READINGS * (1 - n_seen / scaled.shape[1])
    variance = (variance * n_seen + prior) / (n_seen + prior)
    spread = (variance + _SPREAD_FLOOR**2).sqrt()
    if not rescaled:
        spread = (spread / _WIDEST).clamp(min=1.0)
    values = torch.where(seen, scaled - level, 0.0) / spread
    missing = None
    if not bool(seen.all()):
        values = carry_forward(values, seen)
        missing = (~seen).to(scaled.dtype)
    return Window(values, missing, level, spread, values[:, -1:])


def moments(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of what is there in each row, (N, 1) each; 0 where nothing is."""
    n_seen = seen.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(seen, values, 0.0).sum(1, keepdim=True) / n_seen
    variance = torch.where(seen, values - mean, 0.0).square().sum(1, keepdim=True) / n_seen
    return mean, variance


def carry_forward(values: Tensor, seen: Tensor) -> Tensor:
    """Repeat the last value that is there, (N, L); what stands before the first one stays."""
    positions = torch.arange(values.shape[1], device=values.device).expand_as(values)
    last = torch.where(seen, positions, 0).cummax(1).values
    return values.gather(1, last)
