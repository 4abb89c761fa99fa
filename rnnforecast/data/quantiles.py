"""Between quantiles: what a forecast says at levels that the network was not trained on.

Between two neighbouring quantiles the forecast is as if normal, stretched to fit both; outside of
the outermost ones the two nearest say how fast the tail ends. So a level and its quantile say the
same both ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from rnnforecast.data.panel import Doubles
from rnnforecast.data.past import Values


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


def scores_of(values: Values, levels: Sequence[float], readings: Values) -> Doubles:
    """Return how far readings, `(origin, horizon)`, lie off the median, as normal scores.

    -1.28 and 1.28 are q10 and q90. A reading that equals several quantiles has the highest of their
    scores; where all are equal it is infinite, above and at the value. NaN stays NaN.
    """
    z, quantiles = normal_scores(levels), values.astype(np.float64)
    n_below = (quantiles <= readings[..., None]).sum(-1)
    upper = np.clip(n_below, 1, len(levels) - 1)[..., None]
    low, high = (np.take_along_axis(quantiles, at, -1)[..., 0] for at in (upper - 1, upper))
    begin, end = z[upper[..., 0] - 1], z[upper[..., 0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = begin + (readings - low) / (high - low) * (end - begin)
    flat = high <= low
    scores = np.where(flat, np.where(n_below > 0, np.inf, -np.inf), scores)
    missing = ~np.isfinite(readings) | np.isnan(quantiles).any(-1)
    return np.where(missing, np.nan, scores)


def share_below(values: Values, levels: Sequence[float], limit: float) -> Doubles:
    """`(origin, horizon)`: the probability that a reading is at or below a limit."""
    scores = scores_of(values, levels, np.full(values.shape[:2], limit))
    below: Doubles = 0.5 * (1 + _error_function(scores / np.sqrt(2)))
    return below


_error_function = np.vectorize(math.erf, otypes=[np.float64])
