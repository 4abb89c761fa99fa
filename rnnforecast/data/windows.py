"""Windows: a window is an integer, and nothing is copied until a batch is gathered.

A training window covers `lookback + horizon` rows of one series. All windows of all series are
numbered from 0, series by series; a number becomes a row by one search in the cumulated counts, so
memory grows with the number of series, never with the number of windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rnnforecast.data.covariates import Features
from rnnforecast.data.panel import Floats, Integers, Panel
from rnnforecast.data.ranks import Ranks, scattered

SEEN_SHARE = 0.5
"""Windows with less of their history than this are not trained on."""


@dataclass(frozen=True)
class Batch:
    """Windows, gathered: what one step of training takes in."""

    history: Floats
    """`(window, lookback)`, NaN where missing."""
    future: Floats
    """`(window, horizon)`, NaN where missing: no loss there."""
    series: Integers
    """`(window,)`: which series of the panel."""
    next_step: Integers
    """`(window,)`: where lead 1 lies on the grid that begins in 1970."""
    features: Features | None = None
    """The covariates, where there are any."""


@dataclass(frozen=True)
class TrainingWindows:
    """All windows of some series that end before a cutoff."""

    _panel: Panel
    series: Integers
    """`(series,)`: the series that windows are taken from."""
    begin: Integers
    """`(series,)`: row of the series where its first window begins."""
    ends: Integers
    """`(series,)`: cumulated counts of windows."""
    lookback: int
    horizon: int

    @classmethod
    def before(
        cls,
        panel: Panel,
        series: Integers,
        cutoff: Integers,
        *,
        lookback: int,
        horizon: int,
        targets_from: Integers | None = None,
    ) -> TrainingWindows:
        """Count the windows whose last row lies before `cutoff`, `(series,)`, in rows.

        With `targets_from`, `(series,)`, no target lies before that row; histories may.
        """
        begin = np.zeros_like(cutoff)
        if targets_from is not None:
            begin = np.maximum(targets_from - lookback, 0)
        counts = np.maximum(cutoff - begin - lookback - horizon + 1, 0)
        return cls(
            panel,
            series=series,
            begin=begin,
            ends=np.cumsum(counts),
            lookback=lookback,
            horizon=horizon,
        )

    @property
    def counts(self) -> Integers:
        """`(series,)`: how many windows each series has."""
        return np.diff(self.ends, prepend=0)

    @property
    def ranks(self) -> Ranks:
        """Who holds the windows together: they are gathered by all at once."""
        return self._panel.ranks

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def gather(self, windows: Integers) -> Batch:
        """Gather windows by number, `(window,)`, in `[0, len(self))`."""
        place = np.searchsorted(self.ends, windows, side="right")
        counted = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        series = self.series[place]
        row = self.begin[place] + windows - counted[place] + self.lookback
        values, features = self._rows(series, row)
        return Batch(
            history=values[:, : self.lookback],
            future=values[:, self.lookback :],
            series=series,
            next_step=self._panel.first_step[series] + row,
            features=features,
        )

    def _rows(self, series: Integers, row: Integers) -> tuple[Floats, Features | None]:
        """Return the readings around these rows, `(window, lookback + horizon)`, and covariates.

        Of ranks each gives the windows of the series that it has, and all get all of them.
        """
        panel, width = self._panel, self.lookback + self.horizon
        here = panel.here[series]
        own, at = series[here], row[here]
        first = panel.offsets[own] + at - self.lookback
        values = np.empty((0, width), np.float32)
        if len(first):
            values = sliding_window_view(panel.target, width)[first]
        features = None
        if panel.covariates is not None:
            features = panel.covariates.features(
                own, at, lookback=self.lookback, horizon=self.horizon
            )
        if panel.shared is None:
            return values, features
        values = scattered(self.ranks, values, here)
        if features is not None:
            features = Features(*(scattered(self.ranks, x, here) for x in features))
        return values, features

    def without_features(self) -> TrainingWindows:
        """Return the same windows without covariates, for whom does not look at them."""
        return replace(self, _panel=replace(self._panel, covariates=None))

    def spread(self, n: int) -> Integers:
        """Return the numbers of at most n windows, evenly spread over all of them."""
        total = len(self)
        return np.unique(np.linspace(0, max(total - 1, 0), min(n, total)).astype(np.int64))


def epoch_batches(
    windows: TrainingWindows, *, n_steps: int, batch_size: int, key: tuple[int, ...]
) -> Iterator[Batch]:
    """Gather the batches of one epoch: `n_steps` of them, decided by the key alone."""
    rng = np.random.default_rng(key)
    order = _draw(len(windows), n_steps * batch_size, rng)
    for step in range(n_steps):
        yield windows.gather(order[step * batch_size : (step + 1) * batch_size])


def _draw(n_windows: int, n_draws: int, rng: np.random.Generator) -> Integers:
    """Draw window numbers: whole shuffles while they fit, else one from each equal stretch."""
    if n_draws >= n_windows:
        rounds = -(-n_draws // n_windows)
        return np.concatenate([rng.permutation(n_windows) for _ in range(rounds)])[:n_draws]
    edges = np.linspace(0, n_windows, n_draws + 1)
    inside = edges[:-1] + rng.random(n_draws) * np.diff(edges)
    return rng.permutation(np.minimum(inside.astype(np.int64), n_windows - 1))


def gather(target: Floats, start: Integers, width: int, *, low: Integers, high: Integers) -> Floats:
    """Return `target[start : start + width]` for each start, NaN outside `[low, high)`.

    All are rows of `target`, `(window,)`; the result is `(window, width)`.
    """
    whole = (start >= low) & (start + width <= high)
    if whole.all() and width <= len(target):
        return sliding_window_view(target, width)[start]
    values = np.empty((len(start), width), np.float32)
    if whole.any():
        values[whole] = sliding_window_view(target, width)[start[whole]]
    cut = np.flatnonzero(~whole)
    rows = start[cut, None] + np.arange(width)
    inside = (rows >= low[cut, None]) & (rows < high[cut, None])
    found = target[np.where(inside, rows, 0)] if len(target) else np.float32(np.nan)
    values[cut] = np.where(inside, found, np.float32(np.nan))
    return values
