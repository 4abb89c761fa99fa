"""Made-up readings whose memory is known, for `delays.py` and the tests."""

from __future__ import annotations

import numpy as np


def delayed(n: int, lag: int, *, seed: int = 0) -> np.ndarray:
    """Return n readings, each 0.9 times the one `lag` before it, and noise of deviation 1."""
    readings = np.random.default_rng(seed).standard_normal(n)
    for t in range(lag, n):
        readings[t] += 0.9 * readings[t - lag]
    return readings


def with_outages(readings: np.ndarray, lookback: int) -> np.ndarray:
    """Take out stretches of 0.4 look-backs, with 1.2 to 2 look-backs between them."""
    rng = np.random.default_rng(1)
    sparse, begin = readings.copy(), 0
    while begin < len(readings):
        begin += int(rng.integers(6 * lookback // 5, 2 * lookback))
        end = begin + 2 * lookback // 5
        sparse[begin:end] = np.nan
        begin = end
    return sparse
