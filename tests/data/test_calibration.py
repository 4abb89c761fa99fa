"""What a calibration does to quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.data.forecast import TAIL_PAIRS, Calibration
from rnnforecast.spec import QUANTILES

HORIZON = 6
MEDIAN = QUANTILES.index(0.5)
LOW, HIGH = QUANTILES.index(0.1), QUANTILES.index(0.9)


def quantiles(n: int = 5, *, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).exponential(size=(n, HORIZON, len(QUANTILES)))
    return steps.cumsum(-1).astype(np.float32)


def calibration(by_lead: float = 0.0, by_series: float = 0.0, *, spread: float = 0.0):
    rng = np.random.default_rng(7)
    shared = by_lead + spread * rng.normal(size=(2, len(TAIL_PAIRS)))
    own = by_series + spread * rng.normal(size=(3, len(TAIL_PAIRS)))
    return Calibration((2, HORIZON), shared.astype(np.float32), own.astype(np.float32), 90, 9)


def test_pairs_have_equal_tails_and_leave_the_median() -> None:
    for low, high in TAIL_PAIRS:
        assert QUANTILES[low] + QUANTILES[high] == pytest.approx(1)
    assert sorted([*sum(TAIL_PAIRS, ()), MEDIAN]) == list(range(len(QUANTILES)))


def test_without_moves_nothing_changes() -> None:
    values = quantiles()
    np.testing.assert_array_equal(calibration().apply(values, np.arange(4).repeat(2)[:5]), values)


def test_a_pair_moves_by_widths_of_its_own_band() -> None:
    values = quantiles()
    moved = calibration(0.25).apply(values, np.zeros(5, np.int64))

    width = values[..., HIGH] - values[..., LOW]
    np.testing.assert_allclose(moved[..., HIGH], values[..., HIGH] + 0.25 * width, rtol=1e-5)
    np.testing.assert_allclose(moved[..., LOW], values[..., LOW] - 0.25 * width, rtol=1e-5)


def test_leads_and_series_move_each_on_their_own() -> None:
    found = Calibration(
        (2, HORIZON),
        np.array([[0.1] * 5, [0.2] * 5], np.float32),
        np.array([[0.0] * 5, [0.3] * 5], np.float32),
        90,
        9,
    )
    values = quantiles(3)
    moved = found.apply(values, np.array([0, 1, 2]))

    width = values[..., HIGH] - values[..., LOW]
    moves = (moved[..., HIGH] - values[..., HIGH]) / width
    np.testing.assert_allclose(moves[:, :2], np.array([[0.1], [0.1], [0.4]]) + np.zeros(2), 1e-4)
    np.testing.assert_allclose(moves[:, 2:], np.array([[0.2], [0.2], [0.5]]) + np.zeros(4), 1e-4)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_quantiles_never_cross_and_the_median_stays(spread: float) -> None:
    values = quantiles(40)
    moved = calibration(-0.3, spread=spread).apply(values, np.arange(40) % 4)

    assert (np.diff(moved, axis=-1) >= 0).all()
    np.testing.assert_array_equal(moved[..., MEDIAN], values[..., MEDIAN])


def test_what_is_missing_stays_missing_and_a_band_without_width_does_not_move() -> None:
    values = quantiles(2)
    values[0] = np.nan
    values[1] = 7.0
    moved = calibration(0.5).apply(values, np.zeros(2, np.int64))
    np.testing.assert_array_equal(moved, values)


def test_a_shorter_horizon_moves_as_the_first_leads_do() -> None:
    values, found = quantiles(), calibration(spread=0.2)
    entries = np.array([0, 1, 2, 3, 1])
    whole = found.apply(values, entries)
    np.testing.assert_array_equal(found.apply(values[:, :3], entries), whole[:, :3])


def test_the_input_is_left_as_it_is_and_units_do_not_matter() -> None:
    values, found = quantiles(), calibration(0.1, spread=0.2)
    before, entries = values.copy(), np.ones(5, np.int64)
    moved = found.apply(values, entries)

    np.testing.assert_array_equal(values, before)
    scaled = found.apply(1000 * values.astype(np.float64) + 1e6, entries)
    np.testing.assert_allclose(scaled, 1000 * moved.astype(np.float64) + 1e6, rtol=1e-6)
