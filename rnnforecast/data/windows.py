"""Past, which hands out history up to a cutoff, and windows and batches for training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.panel import Features, Panel
from rnnforecast.parallel import Ranks, filled, scattered

SEEN_SHARE = 0.5
"""Windows with less of their history than this are not trained on."""
_TABLE_VALUES = 1 << 20
_EQUAL_ROWS = 32
"""Origins with fewer rows than this share tables, however unlike their numbers are."""
_Number = TypeVar("_Number", bound=np.generic)
Values = NDArray[np.floating[Any]]
"""Of a forecast: float32, or doubles where float32 would blur them."""


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


@dataclass(frozen=True)
class Past:
    """Many origins at once: for each a series, and the number of its rows that may be seen."""

    _panel: Panel
    series: Integers
    """`(origin,)`: which series."""
    cutoff: Integers
    """`(origin,)`: how many rows of the series, from its first, lie before the cutoff."""

    @property
    def n_origins(self) -> int:
        """How many origins there are."""
        return len(self.series)

    @property
    def step_us(self) -> int:
        """The grid's step in microseconds."""
        return self._panel.step_us

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the panel's series, whether an origin names them or not."""
        return self._panel.names

    @property
    def base(self) -> Doubles:
        """`(origin,)`: what was subtracted from the readings that the origin sees."""
        return self._panel.base[self.series]

    @property
    def n_rows(self) -> int:
        """How many rows the panel has, missing readings included."""
        return self._panel.n_rows

    @property
    def ranks(self) -> Ranks:
        """Who holds the panel together."""
        return self._panel.ranks

    @property
    def here(self) -> NDArray[np.bool_]:
        """`(origin,)`: whose readings this process has. What is said of them, it says alone."""
        return self._panel.here[self.series]

    def filled(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return figures of origins, `(origin, ...)`, each from the rank that has its readings."""
        return filled(self.ranks, values, self.here)

    @property
    def first_us(self) -> int:
        """Time of the panel's first row, in microseconds."""
        return int(self._panel.start.min())

    @property
    def next_step(self) -> Integers:
        """`(origin,)`: where lead 1 lies on the grid that begins in 1970. Seasons count from it."""
        return self._panel.first_step[self.series] + self.cutoff

    @property
    def cutoff_time(self) -> Integers:
        """`(origin,)`: time of the last row that may be seen, in microseconds."""
        return self._panel.time_at(self.series, self.cutoff - 1)

    def history(self, n: int) -> Floats:
        """Return the last n rows before each cutoff, `(origin, n)`; NaN before the first row."""
        first = self._panel.begins(self.series)
        end = first + self.cutoff
        return gather(self._panel.target, end - n, n, low=first, high=end)

    @property
    def n_features(self) -> tuple[int, int, int]:
        """How many features are known ahead, known up to now, and static."""
        covariates = self._panel.covariates
        return (0, 0, 0) if covariates is None else covariates.sizes

    @property
    def known_names(self) -> tuple[str, ...]:
        """What the features that are known ahead are called."""
        covariates = self._panel.covariates
        return () if covariates is None else covariates.known_names

    def features(self, lookback: int, horizon: int) -> Features | None:
        """Return the covariates around each cutoff; those of after it only where known ahead."""
        covariates = self._panel.covariates
        if covariates is None:
            return None
        return covariates.features(self.series, self.cutoff, lookback=lookback, horizon=horizon)

    def share_seen(self, n: int) -> NDArray[np.float64]:
        """`(origin,)`: the share of the last n rows before each cutoff that hold a reading."""
        share: NDArray[np.float64] = np.isfinite(self.history(n)).mean(1)
        return share

    def longest_gap(self, n: int) -> Integers:
        """`(origin,)`: most rows in a row without a reading, of the last n before each cutoff.

        Rows before a series' first one are no gap.
        """
        rows = np.arange(n)
        is_own = rows >= n - self.cutoff[:, None]
        last = np.where(np.isfinite(self.history(n)) | ~is_own, rows, -1)
        longest: Integers = (rows - np.maximum.accumulate(last, axis=1)).max(1)
        return longest

    def readings(self, origin: int, newest: int | None = None) -> Floats:
        """Return all that one origin may see, `(row,)`, or its newest rows, wherever they are."""
        end = int(self.cutoff[origin])
        begin = 0 if newest is None else max(0, end - newest)
        return self._panel.of(int(self.series[origin]), begin, end)

    def fingerprint(self) -> str:
        """Return a SHA-256 of what all origins together may see, and where they stand.

        What is known ahead counts as seen, however far it reaches.
        """
        furthest = np.zeros(self._panel.n_series, np.int64)
        np.maximum.at(furthest, self.series, self.cutoff)
        digest = hashlib.sha256(self._panel.seen(furthest).fingerprint().encode())
        for array in (self.series, self.cutoff):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def at(self, origins: Integers, times_us: Integers) -> Doubles:
        """Return what origins saw at these times, `(reading,)` each, in the sensor's own units.

        NaN for a time that lies after the cutoff, before the first row, or between two steps, and
        for an origin -1.
        """
        found = np.full(len(origins), np.nan)
        if not self.n_origins:
            return found
        series, cutoff = self.series[origins], self.cutoff[origins]
        row, rest = np.divmod(times_us - self._panel.start[series], self.step_us)
        there = (origins >= 0) & (rest == 0) & (row >= 0) & (row < cutoff)
        place = self._panel.offsets[series[there]] + row[there]
        found[there] = self._panel.target[place].astype(np.float64) + self.base[origins[there]]
        return found

    def tables(self) -> Iterator[tuple[Integers, Floats]]:
        """Give all that the origins may see, as tables: their origins, and `(origin, row)`.

        Row 0 is the first of the series; after the cutoff is NaN. Origins that see about as much
        share a table, so that many short series cost what their readings cost. Origins that see
        nothing are in tables without a row; those of series that are elsewhere are in none.
        """
        order = np.argsort(self.cutoff, kind="stable")
        order = order[self.here[order]]
        lengths = self.cutoff[order]
        begin = 0
        while begin < len(order):
            alike = max(_EQUAL_ROWS, 2 * int(lengths[begin]))
            end = int(np.searchsorted(lengths, alike, side="right"))
            n_values = np.arange(1, end - begin + 1) * lengths[begin:end]
            end = begin + max(1, int(np.searchsorted(n_values, _TABLE_VALUES, side="right")))
            origins, width = order[begin:end], int(lengths[end - 1])
            low = self._panel.begins(self.series[origins])
            high = low + self.cutoff[origins]
            yield origins, gather(self._panel.target, low, width, low=low, high=high)
            begin = end

    @property
    def n_seen(self) -> Integers:
        """`(origin,)`: how many readings each origin may see."""
        counts = np.zeros(self.n_origins, np.int64)
        for origins, readings in self.tables():
            counts[origins] = np.isfinite(readings).sum(1)
        return self.filled(counts)

    def windows(
        self, lookback: int, horizon: int, *, targets_after: Past | None = None
    ) -> TrainingWindows:
        """Return the windows to learn from: all that end before the cutoffs, one origin a series.

        With `targets_after`, their targets lie after its cutoffs; their histories may not.
        """
        return TrainingWindows.before(
            self._panel,
            self.series,
            self.cutoff,
            lookback=lookback,
            horizon=horizon,
            targets_from=None if targets_after is None else targets_after.cutoff,
        )

    def subset(self, origins: Integers | NDArray[np.bool_] | slice) -> Past:
        """Return a Past of some of the origins."""
        return replace(self, series=self.series[origins], cutoff=self.cutoff[origins])

    def panel_seen(self) -> Panel:
        """Return the panel as it ends at the cutoffs; there must be one origin for each series."""
        return self._panel.select(self.series).before(self.cutoff)

    def alone(self, origin: int) -> Past:
        """Return one origin over a panel of its own that ends at the cutoff."""
        panel = self._panel.select(self.series[origin : origin + 1])
        return past_of(panel.before(self.cutoff[origin : origin + 1]))


def past_of(panel: Panel, cutoff: Integers | None = None) -> Past:
    """Make a Past with one origin a series; by default it sees all of the panel."""
    every = np.arange(panel.n_series, dtype=np.int64)
    return Past(panel, series=every, cutoff=panel.lengths if cutoff is None else cutoff)


def in_own_units(values: Floats, past: Past) -> Values:
    """Add each origin's base to what was forecast, `(origin, ...)`; doubles where there is one."""
    base = past.base
    if not base.any():
        return values
    return values + base.reshape(-1, *[1] * (values.ndim - 1))
