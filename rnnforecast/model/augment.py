"""Windows made of windows: a year of readings holds few independent ones.

Both kinds rest on the same belief, that a forecast of deviations from the season's pattern should
be nearly linear in them: upside down, or as a mean of two, they must forecast as well. Where this
does not hold, validation leaves out the member that learnt so.

Shapes: N windows, L lookback, H horizon. Source: mixing, Zhang and others 2018 (mixup), for
forecasts Ansari and others 2024 (Chronos).
"""

from __future__ import annotations

import torch
from torch import Tensor

MIRRORED_SHARE = 0.25
_MIXING_POWER = 1 / 0.3
"""The smaller share of a mixture is half of u to this power, near the smaller of Beta(0.3, 0.3)."""


def augment(past: Tensor, ahead: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn some windows upside down, and mix each with another one.

    past (N, L) and ahead (N, H) are deviations from the season's pattern, NaN where missing. Where
    the other window has no reading, the window's own stays.
    """
    n, device = len(past), past.device
    mirrored = torch.rand(n, 1, generator=generator, device=device) < MIRRORED_SHARE
    sign = torch.where(mirrored, -1.0, 1.0)
    share = 0.5 * torch.rand(n, 1, generator=generator, device=device) ** _MIXING_POWER
    other = torch.randperm(n, generator=generator, device=device)
    return _mix(past * sign, share, other), _mix(ahead * sign, share, other)


def _mix(values: Tensor, share: Tensor, other: Tensor) -> Tensor:
    mixed = torch.lerp(values, values[other], share)
    return torch.where(torch.isnan(mixed), values, mixed)
