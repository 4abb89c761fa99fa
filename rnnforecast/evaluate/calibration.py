"""Conformal calibration of the quantiles on validation windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.forecast import (
    TAIL_PAIRS,
    Calibration,
    Forecast,
    Forecaster,
    band_widths,
    interpolate_quantiles,
)
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.backtest import PART_VALUES, Truth
from rnnforecast.parallel import all_gather
from rnnforecast.spec import QUANTILES

_MAX_BLOCKS, _MIN_BLOCKS = 20, 5
"""Time blocks of the held-out windows, each a horizon long or more. With fewer a difference cannot
be told from chance: nothing moves."""
_MAX_GROUPS = 6
"""Groups of leads, the first ones short; one for each lead was no better on any data set."""


@dataclass(frozen=True)
class Calibrated:
    """A forecaster with its quantiles moved by a calibration."""

    forecaster: Forecaster
    calibration: Calibration
    names: tuple[str, ...]
    """The series of the calibration, in its order."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast, and move the quantiles; `uncalibrated` holds those before."""
        raw = self.forecaster.predict(past, horizon, QUANTILES)
        entries = np.array([self._entries.get(name, 0) for name in raw.names], np.int64)
        moved = self.calibration.apply(raw.values, entries)
        return replace(
            raw,
            values=interpolate_quantiles(moved, QUANTILES, quantiles),
            quantiles=tuple(quantiles),
            uncalibrated=interpolate_quantiles(raw.values, QUANTILES, quantiles),
        )

    @cached_property
    def _entries(self) -> dict[str, int]:
        return {name: entry for entry, name in enumerate(self.names, start=1)}


def fit_calibration(
    forecaster: Forecaster, held_out: Origins, truth: Truth, *, lookback: int
) -> Calibration | None:
    """Fit the moves of the quantiles on held-out windows; None where these are too few.

    Conformalised quantile regression: pairs of quantiles move by the same distance on both sides,
    in widths of the forecast's own band. `forecaster` must not be trained on the readings of
    `held_out`, and knows its series by the same names in the same order. Missing readings do not
    count, nor do bands without a width.
    """
    scores = _score(forecaster, held_out, truth, lookback=lookback)
    if scores is None or scores.n_blocks < _MIN_BLOCKS:
        return None

    # groups of leads, whose lengths grow geometrically
    n_groups = min(_MAX_GROUPS, truth.horizon)
    ends = np.unique(np.rint(np.geomspace(1, truth.horizon + 1, n_groups + 1)).astype(int)) - 1
    groups = [slice(int(begin), int(end)) for begin, end in pairwise(ends)]

    by_lead = np.zeros((len(groups), len(TAIL_PAIRS)), np.float32)
    by_series = np.zeros((len(held_out.names), len(TAIL_PAIRS)), np.float32)
    for pair, (low, high) in enumerate(TAIL_PAIRS):
        # first all windows move together, then groups of leads, then series by what remains
        share = QUANTILES[high] - QUANTILES[low]
        remaining = scores.values[:, :, pair].astype(np.float64)
        common = _move(remaining, scores.block, share)
        remaining = remaining - common
        for number, leads in enumerate(groups):
            group_move = _move(remaining[:, leads], scores.block, share)
            remaining[:, leads] -= group_move
            by_lead[number, pair] = common + group_move
        for series, rows in scores.by_series():
            by_series[series, pair] = _move(remaining[rows], scores.block[rows], share)

    lead_ends = tuple(leads.stop for leads in groups)
    return Calibration(lead_ends, by_lead, by_series, len(scores.series), scores.n_blocks)


@dataclass(frozen=True)
class _Scores:
    """Conformity scores: how far actuals lie outside of each pair of quantiles."""

    values: Floats
    """`(window, lead, pair)`, in widths of the band; negative inside, NaN where unknown."""
    series: Integers
    block: Integers
    """`(window,)` each: the series, and the time block of the cutoff."""

    @property
    def n_blocks(self) -> int:
        return len(np.unique(self.block))

    def by_series(self) -> list[tuple[int, Integers]]:
        """List the series that have windows in enough time blocks, and their windows."""
        order = np.argsort(self.series, kind="stable")
        series, first = np.unique(self.series[order], return_index=True)
        windows = np.split(order, first[1:])
        return [
            (int(number), rows)
            for number, rows in zip(series, windows, strict=True)
            if len(np.unique(self.block[rows])) >= _MIN_BLOCKS
        ]


def _score(
    forecaster: Forecaster, held_out: Origins, truth: Truth, *, lookback: int
) -> _Scores | None:
    """Forecast the held-out windows, and score their actuals; None without a window."""
    ranks, empty = held_out.ranks, np.zeros(0, np.int64)
    values = [np.zeros((0, truth.horizon, len(TAIL_PAIRS)), np.float32)]
    series, cutoffs = [empty], [empty]
    size = max(1, PART_VALUES // (lookback + truth.horizon * len(QUANTILES)))
    for origins in held_out.parts(size):
        part = origins.subset(origins.is_local)
        part = part.subset(part.observed_share(lookback) > 0)
        if not part.n_origins:
            continue
        quantiles = forecaster.predict(part, truth.horizon, QUANTILES).values
        actual, widths = truth.after(part), band_widths(quantiles)
        widths = np.where(widths > 0, widths, np.nan)
        pairs = [
            np.maximum(quantiles[:, :, low] - actual, actual - quantiles[:, :, high]) / widths
            for low, high in TAIL_PAIRS
        ]
        values.append(np.stack(pairs, axis=-1).astype(np.float32))
        series.append(part.series)
        cutoffs.append(part.cutoff_time)

    cutoff = all_gather(ranks, np.concatenate(cutoffs))
    if not len(cutoff):
        return None
    elapsed = cutoff - cutoff.min()
    shortest = truth.horizon * held_out.step_us
    block = elapsed // max(shortest, -(-int(elapsed.max() + 1) // _MAX_BLOCKS))
    scores = all_gather(ranks, np.concatenate(values))
    return _Scores(scores, all_gather(ranks, np.concatenate(series)), block)


def _move(scores: Doubles, block: Integers, share: float) -> float:
    """Return how far a pair moves so that it holds its share, as far as the evidence goes.

    Scores `(window, lead)`, time blocks `(window,)`. With p the promised and o the observed share,
    whose variance v is that of a ratio of sums over n blocks, the share aimed at is
    o + max(0, 1 - f v / (p - o)^2) (p - o) (James and Stein); f, (n - 1) / (n - 3), is what v
    estimated from n costs. Moves that were not shrunk spoilt bands that were right.
    """
    is_known = np.isfinite(scores)
    counts = np.bincount(block, is_known.sum(1)).astype(np.float64)
    inside = np.bincount(block, ((scores <= 0) & is_known).sum(1))
    counts, inside = counts[counts > 0], inside[counts > 0]
    n = len(counts)
    if n < _MIN_BLOCKS:
        return 0.0

    observed = inside.sum() / counts.sum()
    variance = n / (n - 1) * ((inside - observed * counts) ** 2).sum() / counts.sum() ** 2
    lacking = share - observed
    by_chance = (n - 1) / (n - 3) * variance
    evidence = max(0.0, 1 - by_chance / lacking**2) if lacking else 0.0
    if not evidence:
        return 0.0
    return float(np.quantile(scores[is_known], observed + evidence * lacking))
