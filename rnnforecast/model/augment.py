"""Windows made of windows: a year of readings holds few independent ones.

Both kinds rest on the same belief, that a forecast of deviations from the season's pattern should
be nearly linear in them: upside down, or as a mean of two, they must forecast as well. Where this
does not hold, validation leaves out the member that learnt so.

Shapes: N windows, L lookback, H horizon. Source: mixing, Zhang and others 2018 (mixup), for
forecasts Ansari and others 2024 (Chronos).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MIRRORED_SHARE = 0.25
_MIXING_POWER = 1 / 0.3
"""The smaller share of a mixture is half of u to this power, near the smaller of Beta(0.3, 0.3)."""


class Mixture(NamedTuple):
    """Which windows are turned upside down, and which is mixed with which."""

    sign: Tensor  # (N, 1)
    share: Tensor  # (N, 1)
    other: Tensor  # (N,)

    def of(self, values: Tensor) -> Tensor:
        """Mix deviations, (N, ...), NaN where missing: there the window's own stays."""
        shape = (-1, *[1] * (values.dim() - 1))
        values = values * self.sign.view(shape)
        mixed = torch.lerp(values, values[self.other], self.share.view(shape))
        return torch.where(torch.isnan(mixed), values, mixed)


def draw_mixture(n: int, generator: torch.Generator) -> Mixture:
    """Draw how windows are turned upside down, and mixed each with another one."""
    device = generator.device
    mirrored = torch.rand(n, 1, generator=generator, device=device) < MIRRORED_SHARE
    sign = torch.where(mirrored, -1.0, 1.0)
    share = 0.5 * torch.rand(n, 1, generator=generator, device=device) ** _MIXING_POWER
    other = torch.randperm(n, generator=generator, device=device)
    return Mixture(sign, share, other)
