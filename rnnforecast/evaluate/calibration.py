"""Conformal calibration of the quantiles on validation windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from rnnforecast.config.training import QUANTILES
from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.forecast import (
    PAIRS,
    Calibration,
    Forecast,
    Forecaster,
    at_levels,
    band_widths,
)
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, Values
from rnnforecast.evaluate.backtest import PART_VALUES, Truth
from rnnforecast.parallel import joined

_MAX_STRETCHES = 20
_MIN_STRETCHES = 5
"""Fewer stretches of time do not tell chance from habit: nothing moves."""
_MAX_GROUPS = 6
"""Groups of leads, the first ones short; one for each lead was no better on any data set."""
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Calibrated:
    """A forecaster whose quantiles are moved."""

    forecaster: Forecaster
    calibration: Calibration
    names: tuple[str, ...]
    """The series that the calibration knows."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast, and move the quantiles; `uncalibrated` holds them as they were."""
        raw = self.forecaster.predict(past, horizon, QUANTILES)
        entries = np.array([self._entry_of.get(name, 0) for name in raw.names], np.int64)
        moved = self.calibration.apply(raw.values, entries)
        return replace(
            raw,
            values=at_levels(moved, QUANTILES, quantiles),
            quantiles=tuple(quantiles),
            uncalibrated=at_levels(raw.values, QUANTILES, quantiles),
        )

    @cached_property
    def _entry_of(self) -> dict[str, int]:
        return {name: entry for entry, name in enumerate(self.names, start=1)}


def fit_calibration(
    forecaster: Forecaster, held_out: Origins, truth: Truth, *, lookback: int
) -> Calibration | None:
    """Find the moves on held-out windows; None where they are too few to say anything.

    `forecaster` must not have learnt from the readings of `held_out`, whose series it knows by the
    same names in the same order. Missing readings do not count, nor do bands without a width.
    """
    scores = _score(forecaster, held_out, truth, lookback=lookback)
    if scores is None or scores.n_stretches < _MIN_STRETCHES:
        return None
    groups = _groups_of(truth.horizon)
    by_lead = np.zeros((len(groups), len(PAIRS)), np.float32)
    by_series = np.zeros((len(held_out.names), len(PAIRS)), np.float32)
    for pair, (low, high) in enumerate(PAIRS):
        share = QUANTILES[high] - QUANTILES[low]
        left = scores.values[:, :, pair].astype(np.float64)
        common = _move(left, scores.stretch, share)
        left = left - common
        for number, leads in enumerate(groups):
            own = _move(left[:, leads], scores.stretch, share)
            left[:, leads] -= own
            by_lead[number, pair] = common + own
        for series, rows in scores.by_series():
            by_series[series, pair] = _move(left[rows], scores.stretch[rows], share)
    ends = tuple(leads.stop for leads in groups)
    return Calibration(ends, by_lead, by_series, len(scores.series), scores.n_stretches)


@dataclass(frozen=True)
class _Scores:
    """How far readings lie outside of each pair of quantiles."""

    values: Floats
    """`(window, lead, pair)`, in widths of the band; negative inside, NaN where unknown."""
    series: Integers
    stretch: Integers
    """`(window,)` each: the series, and the stretch of time that the cutoff lies in."""

    @property
    def n_stretches(self) -> int:
        return len(np.unique(self.stretch))

    def by_series(self) -> list[tuple[int, Integers]]:
        """List the series that have windows in enough stretches, and their windows."""
        order = np.argsort(self.series, kind="stable")
        names, first = np.unique(self.series[order], return_index=True)
        rows = np.split(order, first[1:])
        return [
            (int(series), own)
            for series, own in zip(names, rows, strict=True)
            if len(np.unique(self.stretch[own])) >= _MIN_STRETCHES
        ]


def _score(
    forecaster: Forecaster, held_out: Origins, truth: Truth, *, lookback: int
) -> _Scores | None:
    """Forecast the held-out windows, and see how far outside of each pair the readings lie."""
    ranks, shape = held_out.ranks, (0, truth.horizon, len(PAIRS))
    values, series, cutoffs = [np.zeros(shape, np.float32)], [_NONE], [_NONE]
    size = max(1, PART_VALUES // (lookback + truth.horizon * len(QUANTILES)))
    for every in held_out.parts(size):
        part = every.subset(every.here)
        part = part.subset(part.share_seen(lookback) > 0)
        if not part.n_origins:
            continue
        forecast = forecaster.predict(part, truth.horizon, QUANTILES)
        values.append(_outside(truth.after(part), forecast.values))
        series.append(part.series)
        cutoffs.append(part.cutoff_time)
    cutoff = joined(ranks, np.concatenate(cutoffs))
    if not len(cutoff):
        return None
    stretch = _stretches(cutoff, truth.horizon * held_out.step_us)
    scores = joined(ranks, np.concatenate(values))
    return _Scores(scores, joined(ranks, np.concatenate(series)), stretch)


def _outside(actual: Values, quantiles: Values) -> Floats:
    """Return the scores of some windows, `(window, lead, pair)`."""
    widths = band_widths(quantiles)
    widths = np.where(widths > 0, widths, np.nan)
    pairs = [
        np.maximum(quantiles[:, :, low] - actual, actual - quantiles[:, :, high]) / widths
        for low, high in PAIRS
    ]
    return np.stack(pairs, axis=-1).astype(np.float32)


def _stretches(cutoffs: Integers, horizon_us: int) -> Integers:
    """Return each window's stretch of time: there are at most twenty, a horizon long or more."""
    since = cutoffs - cutoffs.min()
    length = max(horizon_us, -(-int(since.max() + 1) // _MAX_STRETCHES))
    numbers: Integers = since // length
    return numbers


def _groups_of(horizon: int) -> list[slice]:
    """Cut the leads into groups, each about as much longer as the one before."""
    n = min(_MAX_GROUPS, horizon)
    ends = np.unique(np.rint(np.geomspace(1, horizon + 1, n + 1)).astype(int)) - 1
    return [slice(int(begin), int(end)) for begin, end in pairwise(ends)]


def _move(scores: Doubles, stretch: Integers, share: float) -> float:
    """Return how far a pair moves so that it holds its share, as far as the evidence goes.

    Scores `(window, lead)`, stretches of time `(window,)`. With p the promised and o the observed
    share, whose variance v is that of a ratio of sums over n stretches, the share aimed at is
    o + max(0, 1 - f v / (p - o)^2) (p - o); f, (n - 1) / (n - 3), is what v estimated from n costs.
    """
    known = np.isfinite(scores)
    counts = np.bincount(stretch, known.sum(1)).astype(np.float64)
    inside = np.bincount(stretch, ((scores <= 0) & known).sum(1))
    counts, inside = counts[counts > 0], inside[counts > 0]
    n = len(counts)
    if n < _MIN_STRETCHES:
        return 0.0
    observed = inside.sum() / counts.sum()
    variance = n / (n - 1) * ((inside - observed * counts) ** 2).sum() / counts.sum() ** 2
    lacking = share - observed
    by_chance = (n - 1) / (n - 3) * variance
    evidence = max(0.0, 1 - by_chance / lacking**2) if lacking else 0.0
    if not evidence:
        return 0.0
    return float(np.quantile(scores[known], observed + evidence * lacking))
