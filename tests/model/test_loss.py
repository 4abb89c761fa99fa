"""The quantile loss against a loop, and the one with its own gradient against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnnforecast.model.loss import pinball, quantile_loss
from rnnforecast.spec import QUANTILES


def test_quantile_loss_is_the_mean_of_the_pinball_losses() -> None:
    rng = np.random.default_rng(0)
    forecast, actual = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3))
    actual[1, 2] = np.nan
    levels = (0.2, 0.7)
    losses = [
        max(q * (actual[i, h] - forecast[i, h, k]), (q - 1) * (actual[i, h] - forecast[i, h, k]))
        for i in range(4)
        for h in range(3)
        for k, q in enumerate(levels)
        if np.isfinite(actual[i, h])
    ]
    found = quantile_loss(torch.from_numpy(forecast), torch.from_numpy(actual), levels)
    assert found.item() == pytest.approx(np.mean(losses))


def test_a_missing_target_carries_no_loss_and_no_gradient() -> None:
    forecast = torch.zeros(1, 3, 2, requires_grad=True)
    actual = torch.tensor([[1.0, torch.nan, 2.0]])
    quantile_loss(forecast, actual, (0.1, 0.9)).backward()
    assert (forecast.grad[0, 1] == 0).all()
    assert (forecast.grad[0, [0, 2]] != 0).all()
    assert quantile_loss(forecast, torch.full((1, 3), torch.nan), (0.1, 0.9)).item() == 0


@pytest.mark.parametrize("quantiles", [QUANTILES, (0.5,), (0.2, 0.5)])
def test_pinball_is_the_quantile_loss_of_each_lead_with_its_gradients(
    quantiles: tuple[float, ...],
) -> None:
    torch.manual_seed(0)
    levels = torch.tensor(quantiles, dtype=torch.float64)
    forecast, actual = torch.randn(4, 3, len(quantiles)).double(), torch.randn(4, 3).double()
    weights = torch.rand(4, 3).double()
    quick = [x.clone().requires_grad_() for x in (forecast, actual)]
    slow = [x.clone().requires_grad_() for x in (forecast, actual)]

    found = pinball(*quick, levels)
    expected = torch.stack(
        [
            quantile_loss(slow[0][n, h][None, None], slow[1][n, h][None, None], quantiles)
            for n in range(4)
            for h in range(3)
        ]
    ).view(4, 3)

    torch.testing.assert_close(found, expected)
    for loss in (found, expected):
        (weights * loss).sum().backward()
    for one, other in zip(quick, slow, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_gradient_of_pinball_is_that_of_differences() -> None:
    torch.manual_seed(0)
    forecast = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    actual = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    levels = torch.tensor([0.1, 0.4, 0.5, 0.9], dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda f, a: pinball(f, a, levels), (forecast, actual))


def test_pinball_is_least_at_the_quantiles() -> None:
    actual = torch.arange(101.0)[:, None]
    best = torch.tensor([10.0, 50.0, 90.0])
    levels = torch.tensor([0.1, 0.5, 0.9])

    def loss(forecast: torch.Tensor) -> float:
        return pinball(forecast.expand(101, 1, 3), actual, levels).mean().item()

    for k in range(3):
        for step in (-5.0, 5.0):
            moved = best.clone()
            moved[k] += step
            assert loss(moved) > loss(best)
