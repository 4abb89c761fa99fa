"""The quantile loss: as it is defined, for measuring, and with its own gradient, for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def quantile_loss(forecast: Tensor, actual: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Mean pinball loss of (N, H, Q) over the readings that are there, (N, H); 0 if none is.

    Twice the pinball loss at the median is the absolute error.
    """
    seen = torch.isfinite(actual)
    error = torch.where(seen, actual, 0.0)[..., None] - forecast
    levels = torch.tensor(quantiles, dtype=error.dtype, device=error.device)
    pinball = torch.maximum(levels * error, (levels - 1.0) * error).mean(-1)
    return torch.where(seen, pinball, 0.0).sum() / seen.sum().clamp(min=1)


def pinball(forecast: Tensor, actual: Tensor, levels: Tensor) -> Tensor:
    """Mean over the quantiles, (N, H), of (N, H, Q) against (N, H), in a quarter of the passes.

    Nothing may be missing. The pinball loss is (q - 1/2) error + |error| / 2.
    """
    loss: Tensor = _Pinball.apply(forecast, actual, levels)  # type: ignore[no-untyped-call]
    return loss


class _Pinball(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forecast: Tensor, actual: Tensor, levels: Tensor) -> Tensor:
        error = actual[..., None] - forecast
        centred = levels - 0.5
        ctx.save_for_backward(error, centred)
        return (error @ centred + 0.5 * error.abs().sum(-1)) / len(levels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        error, centred = ctx.saved_tensors
        slope = torch.sign(error).mul_(0.5).add_(centred).mul_(grad[..., None] / len(centred))
        return -slope, slope.sum(-1), None
