import numpy as np
import pytest
import torch

from rnnforecast.model.network import normalise


def test_normalising_uses_only_the_readings_that_are_there() -> None:
    values = torch.tensor([[1.0, torch.nan, 3.0, torch.nan, 5.0]])
    window = normalise(values)
    assert window.level.item() == pytest.approx(3.0)
    prior = 4 * 2 / 5  # readings of the series' own spread, by the share that is missing
    spread = np.sqrt((3 * np.var([1, 3, 5]) + prior) / (3 + prior))
    assert window.spread.item() == pytest.approx(spread, rel=1e-3)
    assert window.missing.tolist() == [[0, 1, 0, 1, 0]]
    assert window.values[0, 1] == window.values[0, 0]
    assert window.newest.item() == window.values[0, -1].item()


def test_a_window_without_a_gap_has_no_mask_and_zero_mean_and_unit_spread() -> None:
    window = normalise(7 + 3 * torch.randn(5, 200))
    assert window.missing is None
    assert torch.allclose(window.values.mean(1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(window.values.std(1, correction=0), torch.ones(5), atol=1e-3)


def test_a_window_that_is_not_rescaled_keeps_the_units_of_its_series() -> None:
    values = 7 + 3 * torch.randn(5, 200)
    window = normalise(values, rescaled=False)
    assert window.spread.tolist() == [[1.0]] * 5
    assert torch.allclose(window.values, values - window.level)


def test_a_window_far_wider_than_its_series_is_brought_down_to_the_widest_that_is_believed() -> (
    None
):
    window = normalise(1000 * torch.randn(5, 200), rescaled=False)
    assert torch.allclose(window.values.std(1, correction=0), torch.full((5,), 4.0), rtol=1e-3)


def test_a_gap_in_one_window_changes_no_other_window() -> None:
    values = torch.randn(2, 30)
    gapped = values.clone()
    gapped[1, 5:9] = torch.nan
    whole, part = normalise(values), normalise(gapped)
    assert torch.equal(whole.values[0], part.values[0])
    assert torch.equal(whole.spread[0], part.spread[0])
    assert (part.missing[0] == 0).all()


def test_what_no_reading_precedes_is_filled_with_the_level() -> None:
    window = normalise(torch.tensor([[torch.nan, torch.nan, 4.0, 8.0]]))
    assert window.level.item() == 6
    assert window.values[0, :2].tolist() == [0, 0]
