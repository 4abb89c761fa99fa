"""What was usual at training: how much single forecasts of a series differ in quality.

Later, live forecasts are held against it: a few bad days are no news where such days were seen
before, and are where they were not. Stretches of time, each a horizon long at least, are the units,
as single windows share their weather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnforecast.data.panel import Doubles
from rnnforecast.evaluate.tally import Tally

FIELDS = (
    "coverage",
    "coverage_sd",
    "ratio",
    "excess_sd",
    "log_error",
    "log_error_sd",
    "stretches",
)
SMALLEST = 1e-6
"""Errors, in units of MASE, that are as good as none."""
_FEWEST = 8
_SURE = 4.0
"""Stretches that a deviation can be told from."""
_MOST_SERIES = 5000
"""Of so many series each stands for itself in the manifest."""


@dataclass(frozen=True)
class Usual:
    """Means and deviations over single forecasts, `(series,)` each; NaN where too few are known."""

    names: tuple[str, ...]
    coverage: Doubles
    """Share of the actuals inside q10..q90."""
    coverage_sd: Doubles
    ratio: Doubles
    """Absolute errors of the network over those of the seasonal naive forecast."""
    excess_sd: Doubles
    """Deviation of an error from `ratio` times the seasonal naive one, in units of MASE."""
    log_error: Doubles
    """Logarithm of the absolute error in units of MASE: errors differ by factors."""
    log_error_sd: Doubles
    stretches: Doubles
    """How many stretches of time all of that was told from: it is no surer than they are many."""

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest holds: figures by series, and their medians for all others."""
        table = np.stack([getattr(self, name) for name in FIELDS], axis=1)
        known = np.isfinite(table).all(1)
        rows = {
            name: [round(float(x), 6) for x in row]
            for name, row, has in zip(self.names, table, known, strict=True)
            if has and len(self.names) <= _MOST_SERIES
        }
        middle = np.median(table[known], axis=0).round(6).tolist() if known.any() else None
        return {"fields": list(FIELDS), "series": rows, "others": middle}


def usual_from(said: Any, names: Sequence[str]) -> Doubles:
    """Return the figures of these series, `(series, figure)`, as `FIELDS` says; NaN where unknown.

    `said` is what `Usual.to_json` gave, or None, of a version that has none.
    """
    if not said or tuple(said["fields"]) != FIELDS:
        said = {"series": {}, "others": None}
    unknown = said["others"] or [np.nan] * len(FIELDS)
    rows = [said["series"].get(name, unknown) for name in names]
    return np.array(rows, np.float64).reshape(len(names), len(FIELDS))


def stretches_of(said: Any) -> float:
    """Return on how many stretches of time rests what `Usual.to_json` gave; 0 for None."""
    if not said or not said["others"] or tuple(said["fields"]) != FIELDS:
        return 0.0
    return float(said["others"][FIELDS.index("stretches")])


def usual_of(network: Tally, naive: Tally, names: tuple[str, ...]) -> Usual:
    """Say how forecasts differed from stretch to stretch, per forecast of one horizon.

    A stretch that holds several forecasts differs less than one of them does: by the root of their
    number, were they independent.
    """
    errors, others, inside = network.by_block, naive.by_block, network.inside
    several = np.sqrt(np.maximum(_mean_where(inside.counts > 0, inside.counts), network.horizon))
    several /= np.sqrt(network.horizon)
    both = (errors.counts > 0) & (others.counts > 0)
    own, naives = (np.where(both, one.values, 0.0).sum(0) for one in (errors, others))
    ratio = np.where(naives > 0, own / np.where(naives > 0, naives, 1.0), np.nan)
    excess = np.where(both, errors.values - ratio * others.values, np.nan)
    logs = np.log(np.maximum(errors.values, SMALLEST))
    return Usual(
        names,
        network.coverage_by_series(),
        _deviation(inside.values) * several,
        ratio,
        _deviation(excess) * several,
        np.nan_to_num(logs).sum(0) / np.maximum(np.isfinite(logs).sum(0), 1),
        _deviation(logs) * several,
        np.isfinite(excess).sum(0).astype(np.float64),
    )


def _mean_where(there: Any, values: Any) -> Doubles:
    """Return the mean over the blocks that are there, `(series,)`; 0 where none is."""
    found: Doubles = np.where(there, values, 0).sum(0) / np.maximum(there.sum(0), 1)
    return found


def _deviation(values: Doubles) -> Doubles:
    """Return the deviation over blocks, `(series,)`; NaN where too few of them hold something.

    It is estimated, and the surer too small the fewer there are: it is stretched so that four of
    it are as rare as four of a deviation that is known (Student 1908).
    """
    from scipy import special  # slow to import, and no forecast needs it

    seen = np.isfinite(values)
    n = seen.sum(0)
    mean = np.where(seen, values, 0.0).sum(0) / np.maximum(n, 1)
    squares = np.where(seen, values - mean, 0.0) ** 2
    stretch = special.stdtrit(np.maximum(n - 1, 1), special.ndtr(_SURE)) / _SURE
    return np.where(n >= _FEWEST, stretch * np.sqrt(squares.sum(0) / np.maximum(n - 1, 1)), np.nan)
