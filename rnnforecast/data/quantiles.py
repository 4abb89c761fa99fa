"""Between quantiles: what a forecast says at levels that the network was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from rnnforecast.data.forecast import Values
from rnnforecast.data.panel import Doubles


def at_levels(values: Values, trained: Sequence[float], wanted: Sequence[float]) -> Values:
    """Pick or interpolate quantiles, `(origin, horizon, quantile)`, among the trained ones.

    Between two of them a quantile lies as far along as on a normal distribution: monotone, and
    exact where the readings are normal. A straight line between levels would put q95 too far out.
    """
    known, z = normal_scores(trained), normal_scores(wanted)
    upper = np.clip(np.searchsorted(known, z), 1, len(known) - 1)
    share = ((z - known[upper - 1]) / (known[upper] - known[upper - 1])).astype(np.float32)
    low, high = values[..., upper - 1], values[..., upper]
    between: Values = np.where(share == 1, high, low + (high - low) * share)
    return between


def normal_scores(levels: Sequence[float]) -> Doubles:
    """Return the quantiles of a standard normal distribution."""
    return np.array([NormalDist().inv_cdf(level) for level in levels])
