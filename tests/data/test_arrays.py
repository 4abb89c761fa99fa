"""Helpers of arrays, against those of numpy."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.data.arrays import row_quantiles


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_of_rows_are_numpys(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 31)).astype(dtype)
    values[rng.random(values.shape) < 0.5] = np.nan
    values[:, 7] = 3
    values[0, :7] = values[0, 8:] = np.nan  # one reading only
    shares = (0.0, 0.005, 0.25, 0.5, 0.995, 1.0)

    expected = np.nanquantile(values.astype(np.float64), shares, axis=1)
    np.testing.assert_allclose(row_quantiles(values, shares), expected, rtol=1e-12, atol=1e-12)


def test_a_row_without_a_reading_has_no_quantile() -> None:
    values = np.array([[np.nan, np.nan], [1.0, np.nan]])

    quantiles = row_quantiles(values, (0.5,))

    assert np.isnan(quantiles[0, 0]) and quantiles[0, 1] == 1.0
    assert np.isnan(row_quantiles(np.empty((2, 0)), (0.1, 0.9))).all()
