"""Products of states and weights in bfloat16: half of the time of training is spent in them.

Apart from `recurrence`, which says what is multiplied: here is how. Factors are rounded to 8 bits,
sums are not; errors on held-out readings stay the same to four digits. Only training does so, and
only where the processor multiplies such numbers itself: forecasts are made in float32 everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 on this processor."""
    if device.type != "cpu":
        return False
    supports = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not public in torch 2.13
    return supports is not None and bool(supports())


class RoundedLinear:
    """A linear layer for one pass, its weights rounded once."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear
        self._rounded = linear.weight.detach().bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        """Return x, (..., in), times the weights, (out, in), plus the bias: (..., out)."""
        result: Tensor = _RoundedProduct.apply(  # type: ignore[no-untyped-call]
            x, self._linear.weight, self._linear.bias, self._rounded
        )
        return result


class _RoundedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, _weight: Tensor, bias: Tensor, rounded: Tensor) -> Tensor:
        x = x.bfloat16()
        ctx.save_for_backward(x, rounded)
        return (x @ rounded.t()).float().add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        rounded = rows.bfloat16()
        d_x = (rounded @ weight).float().view(*grad.shape[:-1], -1)
        d_weight = (rounded.t() @ x.flatten(0, -2)).float()
        return d_x, d_weight, rows.sum(0), None
