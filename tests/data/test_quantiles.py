"""Quantiles between the trained ones."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from rnnforecast.data.forecast import interpolate_quantiles
from rnnforecast.spec import QUANTILES


def of(distribution: NormalDist, levels: list[float]) -> np.ndarray:
    return np.array([[[distribution.inv_cdf(level) for level in levels]]])


def test_trained_levels_are_picked_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 11)).cumsum(-1).astype(np.float32)

    found = interpolate_quantiles(values, QUANTILES, QUANTILES)

    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32


@pytest.mark.parametrize("level", [0.03, 0.05, 0.15, 0.5, 0.77, 0.95, 0.97])
def test_levels_of_a_normal_distribution_are_exact(level: float) -> None:
    distribution = NormalDist(20, 3)

    found = interpolate_quantiles(of(distribution, list(QUANTILES)), QUANTILES, [level])

    assert found.item() == pytest.approx(distribution.inv_cdf(level), abs=1e-5)


def test_quantiles_never_cross_whatever_lies_between() -> None:
    values = np.random.default_rng(1).exponential(size=(50, 2, 11)).cumsum(-1)
    levels = np.linspace(0.025, 0.975, 97).tolist()

    found = interpolate_quantiles(values, QUANTILES, levels)

    assert (np.diff(found, axis=-1) >= 0).all()
    np.testing.assert_array_equal(found[..., [0, -1]], values[..., [0, -1]])
