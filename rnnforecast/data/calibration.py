"""Calibration: how far quantiles move so that as many readings lie between them as they say.

Apart from `evaluate.intervals`, which finds the moves: here they are kept, and made. Two quantiles
with equal tails, such as q10 and q90, move outwards by the same distance, inwards where it is
negative (Romano, Patterson and Candès 2019, conformalised quantile regression). The unit is the
forecast's own 80 % band, lead by lead, so that quiet and noisy hours are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnforecast.config import BAND, QUANTILES
from rnnforecast.data.panel import Floats, Integers
from rnnforecast.data.past import Values

_MEDIAN = QUANTILES.index(0.5)
PAIRS = tuple((low, len(QUANTILES) - 1 - low) for low in range(_MEDIAN))
"""Places of the levels with equal tails, the widest first."""


@dataclass(frozen=True)
class Calibration:
    """Moves by lead, the same for all series, and what each series adds to them."""

    lead_ends: tuple[int, ...]
    """The last lead of each group of leads; the last of all is the horizon."""
    by_lead: Floats
    """`(group, pair)`, in widths of the forecast's own band."""
    by_series: Floats
    """`(series, pair)`, in the order of the names that the network knows."""
    n_windows: int
    """How many windows they rest on."""
    n_stretches: int
    """How many stretches of time, each at least a horizon long, these lie in."""

    def apply(self, values: Values, entries: Integers) -> Values:
        """Return moved quantiles, `(origin, horizon, quantile)` at the trained levels.

        `entries`, `(origin,)`, number the series from 1 on; 0 is one that the network does not
        know, which moves as all do. The median stays, quantiles do not cross, NaN stays NaN.
        """
        widths = band_widths(values)
        group = np.searchsorted(self.lead_ends, np.arange(1, values.shape[1] + 1))
        own = np.vstack([np.zeros((1, len(PAIRS)), np.float32), self.by_series])[entries]
        moved, median = values.copy(), values[:, :, _MEDIAN]
        for pair, (low, high) in enumerate(PAIRS):
            distance = (self.by_lead[group, pair] + own[:, pair, None]) * widths
            moved[:, :, low] = np.minimum(values[:, :, low] - distance, median)
            moved[:, :, high] = np.maximum(values[:, :, high] + distance, median)
        moved.sort(axis=-1)
        return moved

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says; `by_series` stands with the names."""
        return {
            "method": "conformalised quantile regression",
            "lead_ends": list(self.lead_ends),
            "by_lead": self.by_lead.tolist(),
            "n_windows": self.n_windows,
            "n_stretches": self.n_stretches,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any], by_series: Floats) -> Calibration:
        """Read it again. Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
        with np.errstate(over="ignore"):  # it is looked at below
            by_lead = np.array(said["by_lead"], np.float32)
        n_windows, n_stretches = said["n_windows"], said["n_stretches"]
        found = cls(tuple(said["lead_ends"]), by_lead, by_series, n_windows, n_stretches)
        ends = found.lead_ends
        if not all(type(n) is int for n in (*ends, found.n_windows, found.n_stretches)):
            raise TypeError("the calibration counts in fractions")
        if not ends or list(ends) != sorted(set(ends)) or ends[0] < 1:
            raise ValueError(f"the groups of leads end at {ends}")
        shapes = (found.by_lead.shape, by_series.shape[1:])
        if shapes != ((len(ends), len(PAIRS)), (len(PAIRS),)):
            raise ValueError("the calibration is not for these quantiles")
        if not (np.isfinite(found.by_lead).all() and np.isfinite(by_series).all()):
            raise ValueError("the calibration is not finite")
        return found


def band_widths(values: Values) -> Values:
    """Return the width of each forecast's 80 % band, `(origin, horizon)`."""
    low, high = (QUANTILES.index(level) for level in BAND)
    widths: Values = values[:, :, high] - values[:, :, low]
    return widths
