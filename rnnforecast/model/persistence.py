"""What of a window lasts into the horizon by itself: its newest reading, level and pattern.

Apart from `member`, which learns which share of each is left at each lead, and from `start`, which
measures where that begins: here they are only read off a window.

Shapes: N windows, L lookback, H horizon.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rnnforecast.model.normalising import Window


class Part(NamedTuple):
    """Something of a window, as it lies in the history and as it would go on."""

    past: Tensor  # (N, L), or (N, 1) where it is the same at every step
    ahead: Tensor  # (N, H) or (N, 1)


def lasting(window: Window, *, season: int | None, horizon: int) -> list[Part]:
    """Return the newest reading and, with a season, the newest one's mean and the mean pattern.

    The pattern is the mean of the window's whole seasons, phase by phase, less its own mean.
    """
    parts = [Part(window.newest, window.newest)]
    if season is not None:
        values = window.values
        n, length = values.shape
        seasons = values[:, length % season :].view(n, -1, season)
        level = seasons[:, -1].mean(1, keepdim=True)
        pattern = seasons.mean(1)
        pattern = pattern - pattern.mean(1, keepdim=True)
        parts += [
            Part(level, level),
            Part(_repeat(pattern, length)[:, -length:], _repeat(pattern, horizon)[:, :horizon]),
        ]
    return parts


def _repeat(pattern: Tensor, at_least: int) -> Tensor:
    """Repeat a pattern, (N, season), a whole number of times."""
    return pattern.repeat(1, -(-at_least // pattern.shape[1]))
