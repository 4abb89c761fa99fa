"""Rounded products: near the exact ones, in training alone."""

import pytest
import torch
from torch import nn

from rnnforecast.model.recurrence import BF16Linear, Recurrence, has_fast_bfloat16

ROUNDING = 2.0**-8


def embed(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_rounded_product_and_its_gradients_are_near_the_exact_ones():
    torch.manual_seed(0)
    linear = nn.Linear(32, 48)
    x = embed(5, 7, 32).requires_grad_()
    grad = embed(5, 7, 48)
    wanted = [x, linear.weight, linear.bias]
    exact = torch.autograd.grad((linear(x) * grad).sum(), wanted)
    rounded = torch.autograd.grad((BF16Linear(linear)(x) * grad).sum(), wanted)
    torch.testing.assert_close(BF16Linear(linear)(x), linear(x), atol=4 * ROUNDING, rtol=0)
    for a, b in zip(exact, rounded, strict=True):
        assert a.shape == b.shape
        assert (a - b).norm() < ROUNDING * a.norm()
    torch.testing.assert_close(exact[2], rounded[2])  # sums are not rounded


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_only_passes_that_learn_are_rounded(cell: str):
    torch.manual_seed(0)
    recurrence = Recurrence(cell, 16, 2)
    steps = embed(6, 3, 16)
    exact = recurrence(steps)[-1].hidden
    recurrence.rounds = True
    learning = recurrence(steps)[-1].hidden
    with torch.no_grad():
        forecasting = recurrence(steps)[-1].hidden
    assert torch.equal(forecasting, exact)
    assert not torch.equal(learning, exact)
    torch.testing.assert_close(learning, exact, atol=0.05, rtol=0)


def test_nothing_is_rounded_on_other_devices():
    assert not has_fast_bfloat16(torch.device("cuda"))
