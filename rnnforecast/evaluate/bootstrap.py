"""How sure a skill is: a confidence interval by block bootstrap over origins.

Errors of neighbouring origins go together, so runs of stretches of time in a row are drawn, never
single windows: the circular moving block bootstrap (Politis and Romano 1992). All series of a
stretch are drawn together: they share its weather.
"""

from __future__ import annotations

import numpy as np

from rnnforecast.data.panel import Doubles
from rnnforecast.evaluate.tally import Tally

_N_DRAWS, _N_PARTS = 1000, 20
_SHARE = 0.95
_FEWEST_STRETCHES = 8
"""Fewer stretches of time say nothing about how the next will be."""
_RUN = 1.5
"""Stretches in one run, times the cube root of their number: the usual rate (Künsch 1989)."""


def skill_interval(network: Tally, other: Tally) -> tuple[float, float] | None:
    """Return the 95 % interval of the skill, in percent; None where there is too little time.

    The skill is by how much the network's MASE lies below the other's, on the same windows.
    """
    used = np.flatnonzero(network.by_block.counts.sum(1))
    n = len(used)
    if n < _FEWEST_STRETCHES:
        return None
    rng = np.random.default_rng(0)
    run = int(np.ceil(_RUN * np.cbrt(n)))
    ratios = []
    for _ in range(_N_PARTS):
        begins = rng.integers(0, n, (_N_DRAWS // _N_PARTS, -(-n // run), 1))
        drawn = ((begins + np.arange(run)) % n).reshape(len(begins), -1)[:, :n]
        weights = np.zeros((len(drawn), network.n_blocks))
        np.add.at(weights, (np.arange(len(drawn))[:, None], used[drawn]), 1.0)
        ratios.append(_mase(network, weights) / _mase(other, weights))
    ratio = np.concatenate(ratios)
    skills = 100 * (1 - ratio[np.isfinite(ratio)])
    if not len(skills):
        return None
    low, high = np.quantile(skills, ((1 - _SHARE) / 2, (1 + _SHARE) / 2))
    return float(low), float(high)


def _mase(tally: Tally, weights: Doubles) -> Doubles:
    """MASE of each draw, `(draw,)`; NaN where it is undefined or 0."""
    by_series = tally.drawn_mase(weights)
    known = np.isfinite(by_series)
    counts = known.sum(1)
    sums = np.where(known, by_series, 0.0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mase: Doubles = np.where(sums > 0, sums / counts, np.nan)
    return mase
