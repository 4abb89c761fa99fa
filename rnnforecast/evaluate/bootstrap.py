"""How sure a skill is: a confidence interval by block bootstrap over origins.

Errors of neighbouring origins go together, so whole stretches of time are drawn, never single
windows (Künsch 1989, here with blocks that do not overlap). All series of a stretch are drawn
together: they share its weather.
"""

from __future__ import annotations

import numpy as np

from rnnforecast.data.panel import Doubles
from rnnforecast.evaluate.tally import Tally

_N_DRAWS, _N_PARTS = 1000, 20
_SHARE = 0.95
_FEWEST_BLOCKS = 5
"""Fewer stretches of time say nothing about how the next will be."""


def skill_interval(network: Tally, other: Tally) -> tuple[float, float] | None:
    """Return the 95 % interval of the skill, in percent; None where there are too few blocks.

    The skill is by how much the network's MASE lies below the other's, on the same windows.
    """
    used = np.flatnonzero(network.by_block.counts.sum(1))
    if len(used) < _FEWEST_BLOCKS:
        return None
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(_N_PARTS):
        weights = np.zeros((_N_DRAWS // _N_PARTS, network.n_blocks))
        weights[:, used] = rng.multinomial(
            len(used), np.full(len(used), 1 / len(used)), size=len(weights)
        )
        ratios.append(_mase(network, weights) / _mase(other, weights))
    ratio = np.concatenate(ratios)
    skills = 100 * (1 - ratio[np.isfinite(ratio)])
    if not len(skills):
        return None
    low, high = np.quantile(skills, ((1 - _SHARE) / 2, (1 + _SHARE) / 2))
    return float(low), float(high)


def _mase(tally: Tally, weights: Doubles) -> Doubles:
    """MASE of each draw, `(draw,)`; NaN where it is undefined or 0."""
    by_series = tally.mase_by_series(weights)
    known = np.isfinite(by_series)
    counts = known.sum(1)
    sums = np.where(known, by_series, 0.0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mase: Doubles = np.where(sums > 0, sums / counts, np.nan)
    return mase
