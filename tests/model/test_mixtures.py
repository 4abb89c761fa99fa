"""Windows made of windows: what a mirror and a mixture are, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rnnforecast.model import loss
from rnnforecast.model.loss import draw_mixture


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(past: Tensor, ahead: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    mixture = draw_mixture(len(past), generator)
    return mixture.apply(past), mixture.apply(ahead)


def make_windows(n: int = 40) -> tuple[Tensor, Tensor]:
    """Make histories and horizons with gaps."""
    generator = make_generator(1)
    past, ahead = torch.randn(n, 9, generator=generator), torch.randn(n, 4, generator=generator)
    past[torch.rand(past.shape, generator=generator) < 0.2] = torch.nan
    ahead[torch.rand(ahead.shape, generator=generator) < 0.2] = torch.nan
    return past, ahead


@pytest.fixture
def unmixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other window's share be 0."""
    monkeypatch.setattr(loss, "_MIXING_POWER", float("inf"))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("unmixed")
def test_without_mirrors_and_mixing_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "MIRRORED_SHARE", 0.0)
    windows = make_windows()

    for found, expected in zip(augment(*windows, make_generator()), windows, strict=True):
        assert_same(found, expected)


@pytest.mark.usefixtures("unmixed")
def test_a_mirrored_window_is_the_negative_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "MIRRORED_SHARE", 1.0)
    windows = make_windows()

    for found, expected in zip(augment(*windows, make_generator()), windows, strict=True):
        assert_same(found, -expected)


@pytest.mark.usefixtures("unmixed")
def test_a_quarter_of_the_windows_is_mirrored() -> None:
    past, ahead = augment(torch.ones(10_000, 1), torch.ones(10_000, 1), make_generator())

    assert set(past.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(past, ahead)
    assert (past < 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_past_and_ahead_have_the_same_sign_share_and_other_window() -> None:
    past, _ = make_windows()

    found_past, found_ahead = augment(past, past.clone(), make_generator())

    assert_same(found_past, found_ahead)
    assert not torch.equal(found_past.nan_to_num(), past.nan_to_num())


def test_a_gap_stays_a_gap_and_no_other_comes() -> None:
    windows = make_windows()

    for found, own in zip(augment(*windows, make_generator()), windows, strict=True):
        assert torch.equal(torch.isnan(found), torch.isnan(own))


def test_where_the_other_window_has_a_gap_the_own_reading_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "MIRRORED_SHARE", 0.0)
    past, ahead = torch.full((2, 3), 5.0), torch.full((2, 2), 5.0)
    past[1] = torch.tensor([1.0, torch.nan, 1.0])
    ahead[1] = torch.tensor([torch.nan, 1.0])
    seeds = (s for s in range(50) if order_of(s, 2) == [1, 0])

    found_past, found_ahead = augment(past, ahead, make_generator(next(seeds)))

    assert found_past[0, 1] == 5 and found_ahead[0, 0] == 5
    assert (found_past[0, [0, 2]] < 5).all() and found_ahead[0, 1] < 5


def order_of(seed: int, n: int) -> list[int]:
    """Return which other window each of n is mixed with."""
    marked, _ = augment(torch.eye(n), torch.ones(n, 1), make_generator(seed))
    others = marked.abs() - torch.diag(marked.abs().diag())
    return [int(row.argmax()) if row.any() else i for i, row in enumerate(others)]


def test_a_mixture_is_of_two_windows_and_at_least_half_of_it_is_the_own() -> None:
    mixed, _ = augment(torch.eye(50), torch.ones(50, 1), make_generator())

    shares = mixed.abs()
    assert torch.allclose(shares.sum(1), torch.ones(50))
    assert ((shares > 0).sum(1) <= 2).all()
    assert (shares.diag() >= 0.5).all()
    others = shares - torch.diag(shares.diag())
    assert ((others > 0).sum(0) <= 1).all(), "no window is the other of two"
    assert (others.sum(1) > 0.1).any()


def test_the_generator_alone_decides() -> None:
    windows = make_windows()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = augment(*windows, make_generator())

    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    for found, expected in zip(augment(*windows, make_generator()), first, strict=True):
        assert_same(found, expected)
    other, _ = augment(*windows, make_generator(1))
    assert not torch.equal(other.nan_to_num(), first[0].nan_to_num())


def test_the_windows_themselves_are_not_written_to() -> None:
    windows = make_windows()

    augment(*windows, make_generator())

    for found, expected in zip(windows, make_windows(), strict=True):
        assert_same(found, expected)
