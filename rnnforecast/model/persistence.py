"""What of a window lasts into the horizon by itself: its newest reading, level and pattern.

Apart from `member`, which learns which share of each is left at each lead, and from `start`, which
measures where that begins: here they are only read off a window.

Shapes: N windows, L lookback, H horizon.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rnnforecast.model.normalising import Window


class Part(NamedTuple):
    """Something of a window, as it lies in the history and as it would go on."""

    past: Tensor  # (N, L), or (N, 1) where it is the same at every step
    ahead: Tensor  # (N, H) or (N, 1)


def lasting(window: Window, *, season: int | None, horizon: int) -> list[Part]:
    """Return the newest reading and, with a season, the newest one's level and the mean pattern.

    They are as many as `MemberTask.n_lasting` says.
    """
    parts = [Part(window.newest, window.newest)]
    if season is not None:
        level, pattern = _level_and_pattern(window, season)
        length = window.values.shape[1]
        parts += [
            Part(level, level),
            Part(_repeat(pattern, length)[:, -length:], _repeat(pattern, horizon)[:, :horizon]),
        ]
    return parts


def _level_and_pattern(window: Window, season: int) -> tuple[Tensor, Tensor]:
    """Return the level of the newest season, (N, 1), and the pattern, (N, season).

    The pattern is the mean of the whole seasons, phase by phase, less its own mean. What is
    missing does not count: a phase that never occurred is 0, and the level is that of the newest
    season of which anything is there, less the pattern at those phases.
    """
    n, length = window.values.shape
    seasons = window.values[:, length % season :].view(n, -1, season)
    if window.missing is None:
        pattern = seasons.mean(1)
        return seasons[:, -1].mean(1, keepdim=True), pattern - pattern.mean(1, keepdim=True)
    seen = 1 - window.missing[:, length % season :].view(n, -1, season)
    pattern = _mean(seasons, seen, 1)
    occurred = (seen.sum(1) > 0).to(seen.dtype)
    pattern = (pattern - _mean(pattern, occurred, 1)[:, None]) * occurred
    levels = _mean(seasons - pattern[:, None], seen, 2)
    order = torch.arange(1, seasons.shape[1] + 1, device=seen.device)
    newest = ((seen.sum(2) > 0) * order).argmax(1, keepdim=True)
    return levels.gather(1, newest), pattern


def _mean(values: Tensor, seen: Tensor, dim: int) -> Tensor:
    """Mean of what is there, 0 where nothing is."""
    return (values * seen).sum(dim) / seen.sum(dim).clamp(min=1)


def _repeat(pattern: Tensor, at_least: int) -> Tensor:
    """Repeat a pattern, (N, season), a whole number of times."""
    return pattern.repeat(1, -(-at_least // pattern.shape[1]))
