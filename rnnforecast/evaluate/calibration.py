"""Calibration of the quantiles: on validation windows, and by the newest forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from rnnforecast.config.training import BAND
from rnnforecast.data.arrays import Doubles, Floats, Integers, take_names
from rnnforecast.data.forecast import (
    TAIL_PAIRS,
    Calibration,
    Forecast,
    Forecaster,
    RollingForecaster,
    band_widths,
    interpolate_quantiles,
)
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, Values, add_base
from rnnforecast.evaluate.backtest import PART_VALUES, Truth
from rnnforecast.parallel import all_gather
from rnnforecast.spec import QUANTILES

_MAX_BLOCKS, _MIN_BLOCKS = 20, 5
"""Time blocks of the held-out windows, each a horizon long or more. With fewer a difference cannot
be told from chance: nothing moves."""
_MAX_GROUPS = 6
"""Groups of leads, the first ones short; one for each lead was no better on any data set."""
_LOST = 10.0
"""Readings further outside the band, in band widths, are ignored. They come from bands that are
almost closed, such as those of a sensor that was stuck, and would widen the bands of others."""

# How the newest forecasts count (docs/decisions.md, 110).
_N_RECENT = 6
"""Forecasts of the newest past, a horizon apart, whose bands are held against the readings."""
_PRIOR = 3.0
"""Whole windows of readings that would have to speak for another width to be half believed."""
_SHARE_INSIDE = 0.82
"""Share of the readings that the band is scaled to hold: a quantile of few windows is low."""
_MAX_FACTOR = 3.0
"""The newest readings alone widen a band by at most this, and narrow it by its inverse."""


@dataclass(frozen=True)
class Calibrated:
    """A forecaster with its quantiles moved by a calibration."""

    forecaster: RollingForecaster
    calibration: Calibration
    names: tuple[str, ...]
    """The series of the calibration, in its order."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast, and move the quantiles; `uncalibrated` holds those before."""
        raw = self.forecaster.predict(past, horizon, QUANTILES)
        moved = self.calibration.apply(raw.values, self._entries_of(raw.names))
        return replace(
            raw,
            values=interpolate_quantiles(moved, QUANTILES, quantiles),
            quantiles=tuple(quantiles),
            uncalibrated=interpolate_quantiles(raw.values, QUANTILES, quantiles),
        )

    def predict_earlier(self, past: Past, horizon: int, n: int) -> tuple[Values, Integers]:
        """Forecast from earlier cutoffs, see `RollingForecaster`, and move the quantiles."""
        raw, ago = self.forecaster.predict_earlier(past, horizon, n)
        entries = self._entries_of(take_names(past.names, past.series))
        flat = raw.reshape(-1, *raw.shape[2:])
        return self.calibration.apply(flat, entries.repeat(n)).reshape(raw.shape), ago

    def _entries_of(self, names: Sequence[str]) -> Integers:
        return np.array([self._entries.get(name, 0) for name in names], np.int64)

    @cached_property
    def _entries(self) -> dict[str, int]:
        return {name: entry for entry, name in enumerate(self.names, start=1)}


@dataclass(frozen=True)
class AdaptiveBands:
    """A forecaster whose bands are scaled by how wide its newest ones should have been.

    Forecasts from a few earlier cutoffs, made from what was known there, are held against the
    readings that followed. Only such count that lie after the readings that it was trained on.
    """

    forecaster: RollingForecaster
    untrained_from_us: int
    """The first time that the forecaster has not learnt from; readings from there on count."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast, and scale the distances from the median."""
        forecast = self.forecaster.predict(past, horizon, QUANTILES)
        factor = self._factors(past, horizon)
        median = forecast.point[:, :, None]
        scaled = median + (forecast.values - median) * factor[:, None, None]
        raw = forecast.uncalibrated
        return replace(
            forecast,
            values=interpolate_quantiles(scaled, QUANTILES, quantiles),
            quantiles=tuple(quantiles),
            uncalibrated=None if raw is None else interpolate_quantiles(raw, QUANTILES, quantiles),
        )

    def _factors(self, past: Past, horizon: int) -> Floats:
        """`(origin,)`: what each band is multiplied by; 1 without earlier forecasts."""
        factors = np.ones(past.n_origins, np.float32)
        size = max(1, PART_VALUES // (_N_RECENT * horizon * len(QUANTILES)))
        for first in range(0, past.n_origins, size):
            places = slice(first, first + size)
            part = past.subset(places)
            factors[places] = _scale(self._ratios(part, horizon))
        return factors

    def _ratios(self, past: Past, horizon: int) -> Floats:
        """Return how far readings lay from the median, `(origin, window, lead)`, in half widths.

        1 is the edge of the 80 % band; NaN where nothing is known.
        """
        ratios = np.full((past.n_origins, _N_RECENT, horizon), np.nan, np.float32)
        origins = np.flatnonzero(past.cutoff_time >= self.untrained_from_us)
        if not len(origins):
            return ratios
        part = past.subset(origins)
        values, ago = self.forecaster.predict_earlier(part, horizon, _N_RECENT)

        # rows after the cutoff are not known
        readings = add_base(part.history(int(ago.max())), part)
        readings = np.pad(readings, ((0, 0), (0, horizon)), constant_values=np.nan)
        rows = ago.max() - ago[:, None] + np.arange(horizon)
        n_known = part.cutoff[:, None] - ago
        first_us = part.cutoff_time[:, None] - (ago - 1) * past.step_us  # of each horizon
        counts = (2 * n_known >= part.cutoff[:, None]) & (first_us >= self.untrained_from_us)
        for window in range(_N_RECENT):
            actual = np.where(counts[:, window, None], readings[:, rows[window]], np.nan)
            ratios[origins, window] = _in_half_widths(values[:, window], actual)
        return ratios


def _in_half_widths(values: Values, actual: Values) -> Values:
    """Return distances of readings, `(window, lead)`, from the median, in half widths of the band.

    The half is that of the reading's side. A reading on the median says nothing where a side has
    no width, as many readings are then equal to several quantiles: 1. NaN where the band is closed.
    """
    low, median, high = (values[:, :, QUANTILES.index(level)] for level in (BAND[0], 0.5, BAND[1]))
    distance, width = np.abs(actual - median), high - low
    half = np.where(actual < median, median - low, high - median)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(half > 0, distance / half, 1 + distance / width)
    is_tied = (distance == 0) & ((low == median) | (high == median))
    return np.where(width > 0, np.where(is_tied, 1, ratio), np.nan)


def _scale(ratios: Floats) -> Doubles:
    """Return what a band is multiplied by, `(origin,)`, from ratios `(origin, window, lead)`.

    With that factor it would have held its share of the readings of late. It counts as much as
    there are windows of readings, beside `_PRIOR` windows of which each says 1.
    """
    flat = np.sort(ratios.reshape(len(ratios), -1).astype(np.float64), axis=1)  # NaN come last
    n = np.isfinite(flat).sum(1)
    place = np.maximum(_SHARE_INSIDE * n - 0.5, 0)
    lower = np.minimum(place.astype(np.int64), np.maximum(n - 1, 0))
    upper = np.minimum(lower + 1, np.maximum(n - 1, 0))
    rows = np.arange(len(flat))
    needed = flat[rows, lower] + (place - lower) * (flat[rows, upper] - flat[rows, lower])
    needed = np.clip(np.where(n > 0, needed, 1.0), 1 / _MAX_FACTOR, _MAX_FACTOR)
    n_windows = n / ratios.shape[2]
    factors: Doubles = needed ** (n_windows / (n_windows + _PRIOR))
    return factors


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
        scores = np.stack(pairs, axis=-1)
        values.append(np.where(scores > _LOST, np.nan, scores).astype(np.float32))
        series.append(part.series)
        cutoffs.append(part.cutoff_time)

    cutoff = all_gather(ranks, np.concatenate(cutoffs))
    if not len(cutoff):
        return None
    elapsed = cutoff - cutoff.min()
    shortest = truth.horizon * held_out.step_us
    block = elapsed // max(shortest, -(-int(elapsed.max() + 1) // _MAX_BLOCKS))
    return _Scores(
        all_gather(ranks, np.concatenate(values)), all_gather(ranks, np.concatenate(series)), block
    )


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


def with_calibration(
    forecaster: RollingForecaster,
    calibration: Calibration | None,
    names: tuple[str, ...],
    *,
    untrained_from_us: int | None,
) -> Forecaster:
    """Return a forecaster with calibrated quantiles, which its newest forecasts scale.

    Without a calibration the quantiles are as learnt; where no time is given from which on
    readings are new to the forecaster, none scale them.
    """
    if calibration is not None:
        forecaster = Calibrated(forecaster, calibration, names)
    if untrained_from_us is None:
        return forecaster
    return AdaptiveBands(forecaster, untrained_from_us)
