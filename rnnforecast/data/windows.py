"""Past, which hands out readings before a cutoff, and windows and batches for training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.axis import TimeAxis
from rnnforecast.data.panel import Features, Panel
from rnnforecast.parallel import Ranks, all_reduce_masked, all_reduce_scattered
from rnnforecast.spec import NetworkSpec

MIN_OBSERVED_SHARE = 0.5
"""Windows with a smaller share of readings in their history are not trained on."""
_TABLE_VALUES = 1 << 17
"""Values in one table of `Past.tables`, unless an origin sees more: a core's cache holds them."""
_EQUAL_ROWS = 32
"""Origins with at most this many rows share tables, however much their lengths differ."""

_Number = TypeVar("_Number", bound=np.generic)
Values = NDArray[np.floating[Any]]
"""Values of a forecast: float32, or doubles for readings too large for float32's digits."""


@dataclass(frozen=True)
class Batch:
    """Windows for one training step: history as input, future as target.

    Readings are in the sensor's units less the base of their series; NaN where missing.
    """

    history: Floats
    """`(window, lookback)`."""
    future: Floats
    """`(window, horizon)`: a missing reading has no part in the loss."""
    series: Integers
    """`(window,)`: number of the series in the panel."""
    next_step: Integers
    """`(window,)`: number of the first step of `future` on the grid that begins in 1970."""
    features: Features | None = None
    """The covariates; None where the panel has none."""


@dataclass(frozen=True)
class TrainingWindows:
    """All windows, one for every row, of some series up to a cutoff for each.

    A window is `lookback` rows of history and the `horizon` rows after them, which the network
    learns to forecast. All of its rows belong to one series and lie before the cutoff of that
    series, so no reading at or after a cutoff is ever trained on. Windows that hold missing
    readings count as well: their rows are NaN, and so are rows before the first of the series,
    where at least `least_history` rows lie in it.

    Windows have numbers, from 0, series by series and then in time. Only `gather` copies
    readings, so that a panel may have many more windows than fit into memory.
    """

    _panel: Panel
    series: Integers
    """`(series,)`: numbers of the series in the panel."""
    begin: Integers
    """`(series,)`: row of the series where its first window begins, negative for one before it."""
    ends: Integers
    """`(series,)`: cumulated numbers of windows."""
    lookback: int
    horizon: int
    least_history: int

    @classmethod
    def before(
        cls,
        panel: Panel,
        series: Integers,
        cutoff: Integers,
        *,
        lookback: int,
        horizon: int,
        least_history: int | None = None,
        targets_from: Integers | None = None,
    ) -> TrainingWindows:
        """Return the windows of these series whose last row lies before `cutoff[i]`.

        `cutoff` is `(series,)`, in rows of each series. With `targets_from`, `(series,)`, the
        future of a window begins at that row or later; its history may lie before. Without
        `least_history` that is the whole look-back.
        """
        least = lookback if least_history is None else min(least_history, lookback)
        begin = np.full_like(cutoff, least - lookback)
        if targets_from is not None:
            begin = np.maximum(targets_from - lookback, begin)
        counts = np.maximum(cutoff - begin - lookback - horizon + 1, 0)
        return cls(
            panel,
            series,
            begin=begin,
            ends=np.cumsum(counts),
            lookback=lookback,
            horizon=horizon,
            least_history=least,
        )

    @property
    def counts(self) -> Integers:
        """`(series,)`: how many windows each series has."""
        return np.diff(self.ends, prepend=0)

    @property
    def n_disjoint(self) -> int:
        """Number of windows whose targets do not overlap."""
        return int((-(-self.counts // self.horizon)).sum())

    @property
    def ranks(self) -> Ranks:
        """The ranks that hold the panel together: all of them call `gather` at once."""
        return self._panel.ranks

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def gather(self, windows: Integers) -> Batch:
        """Copy the windows with these numbers, `(window,)`, each in `[0, len(self))`."""
        position = np.searchsorted(self.ends, windows, side="right")
        n_before = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        series = self.series[position]
        row = self.begin[position] + windows - n_before[position] + self.lookback
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

        Each rank sends the windows of the series that it stores; all ranks get all windows.
        """
        panel, width = self._panel, self.lookback + self.horizon
        is_local = panel.is_local[series]
        local_series, local_row = series[is_local], row[is_local]

        low = panel.begins(local_series)
        high = low + panel.lengths[local_series]
        start = low + local_row - self.lookback
        values = gather(panel.target, start, width, low=low, high=high)
        features = None
        if panel.covariates is not None:
            features = panel.covariates.features(
                local_series, local_row, lookback=self.lookback, horizon=self.horizon
            )
        if panel.shared is None:
            return values, features

        values = all_reduce_scattered(self.ranks, values, is_local)
        if features is not None:
            features = Features(
                *(all_reduce_scattered(self.ranks, array, is_local) for array in features)
            )
        return values, features

    def spread(self, n: int) -> Integers:
        """Return the numbers of at most n windows, evenly spread over all of them."""
        n_windows = len(self)
        numbers = np.linspace(0, max(n_windows - 1, 0), min(n, n_windows))
        return np.unique(numbers.astype(np.int64))


def epoch_batches(
    windows: TrainingWindows, *, n_steps: int, batch_size: int, key: tuple[int, ...]
) -> Iterator[Batch]:
    """Gather `n_steps` batches of random windows; the key seeds the generator, and decides alone.

    With at least as many draws as windows, an epoch consists of whole shuffles, the last one cut.
    With fewer, the numbers of the windows are divided into as many equal ranges as there are
    draws, and one window is drawn from each.
    """
    rng = np.random.default_rng(key)
    n_windows, n_draws = len(windows), n_steps * batch_size
    if n_draws >= n_windows:
        n_shuffles = -(-n_draws // n_windows)
        shuffles = [rng.permutation(n_windows) for _ in range(n_shuffles)]
        numbers = np.concatenate(shuffles)[:n_draws]
    else:
        edges = np.linspace(0, n_windows, n_draws + 1)
        positions = edges[:-1] + rng.random(n_draws) * np.diff(edges)
        numbers = rng.permutation(np.minimum(positions.astype(np.int64), n_windows - 1))

    for step in range(n_steps):
        yield windows.gather(numbers[step * batch_size : (step + 1) * batch_size])


def gather(target: Floats, start: Integers, width: int, *, low: Integers, high: Integers) -> Floats:
    """Return `target[start : start + width]` for each start, `(window, width)`.

    `start`, `low` and `high` are indices of `target`, `(window,)`. Values outside of
    `[low, high)` are NaN, whatever `target` holds there.
    """
    is_complete = (start >= low) & (start + width <= high)
    if is_complete.all() and width <= len(target):
        return sliding_window_view(target, width)[start]

    values = np.empty((len(start), width), np.float32)
    if is_complete.any():
        values[is_complete] = sliding_window_view(target, width)[start[is_complete]]
    partial = np.flatnonzero(~is_complete)
    rows = start[partial, None] + np.arange(width)
    is_inside = (rows >= low[partial, None]) & (rows < high[partial, None])
    readings = target[np.where(is_inside, rows, 0)] if len(target) else np.float32(np.nan)
    values[partial] = np.where(is_inside, readings, np.float32(np.nan))
    return values


@dataclass(frozen=True)
class Past:
    """Readings and covariates before a cutoff: all that forecasters and fitted statistics see.

    An origin is a series and a cutoff: the number of rows, from the first of the series, that lie
    before the moment of the forecast. Row `cutoff` is the first one ahead, lead 1. A series may
    have many origins, or none.

    The law: no method or property returns a target in row `cutoff` of its origin or later, and
    `features` returns later covariates only where they are known ahead. The panel is private, and
    every read of its readings ends at the cutoff. So later readings may change in any way, come
    or go, and nothing that a Past returns moves. `tests/data/test_past.py` holds every public name
    of this class to it.

    Shapes are `(origin,)`, or `(origin, row)` for readings. Times and steps are microseconds,
    times since 1970. Readings are float32 in the sensor's units less the `base` of their series,
    unless a method says otherwise. NaN is a missing reading, or a row before the first one.

    Where ranks share the panel, a process asks only for origins whose series it stores
    (`is_local`). `readings` and `n_seen` are for all origins; every rank calls them, and `filled`,
    at once.
    """

    _panel: Panel
    series: Integers
    """`(origin,)`: number of the series in the panel."""
    cutoff: Integers
    """`(origin,)`: how many rows of the series, from its first, lie before the cutoff."""

    @property
    def n_origins(self) -> int:
        """Number of origins."""
        return len(self.series)

    @property
    def step_us(self) -> int:
        """Step of the grid in microseconds."""
        return self._panel.step_us

    @property
    def axis(self) -> TimeAxis:
        """The axis of the times."""
        return self._panel.axis

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all series of the panel, also of those without an origin."""
        return self._panel.names

    @property
    def base(self) -> Doubles:
        """`(origin,)`: what was subtracted from the readings, in the sensor's units."""
        return self._panel.base[self.series]

    @property
    def n_rows(self) -> int:
        """Number of rows of the panel, missing readings included."""
        return self._panel.n_rows

    @property
    def ranks(self) -> Ranks:
        """The ranks that hold the panel together."""
        return self._panel.ranks

    @property
    def is_local(self) -> NDArray[np.bool_]:
        """`(origin,)`: whether this process stores the readings; only this process sees them."""
        return self._panel.is_local[self.series]

    def filled(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return values of all origins, `(origin, ...)`, each from the rank with its readings."""
        return all_reduce_masked(self.ranks, values, self.is_local)

    @property
    def first_us(self) -> int:
        """Time of the first row of all series, in microseconds."""
        return int(self._panel.start.min())

    @property
    def next_step(self) -> Integers:
        """`(origin,)`: number of lead 1 on the grid that begins in 1970; seasons count from it."""
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
        """Number of features known ahead, known up to now, and static."""
        covariates = self._panel.covariates
        return (0, 0, 0) if covariates is None else covariates.sizes

    @property
    def known_names(self) -> tuple[str, ...]:
        """Names of the features that are known ahead."""
        covariates = self._panel.covariates
        return () if covariates is None else covariates.known_names

    def features(self, lookback: int, horizon: int) -> Features | None:
        """Return the covariates of the last `lookback` rows, and those known of `horizon` leads.

        None where the panel has no covariates.
        """
        covariates = self._panel.covariates
        if covariates is None:
            return None
        return covariates.features(self.series, self.cutoff, lookback=lookback, horizon=horizon)

    def observed_share(self, n: int) -> NDArray[np.float64]:
        """`(origin,)`: the share of the last n rows before each cutoff that hold a reading."""
        share: NDArray[np.float64] = np.isfinite(self.history(n)).mean(1)
        return share

    def longest_gap(self, n: int) -> Integers:
        """`(origin,)`: most consecutive missing readings in the last n rows before each cutoff.

        Rows before a series' first one are no gap.
        """
        rows = np.arange(n)
        is_in_series = rows >= n - self.cutoff[:, None]
        last_seen = np.where(np.isfinite(self.history(n)) | ~is_in_series, rows, -1)
        longest: Integers = (rows - np.maximum.accumulate(last_seen, axis=1)).max(1)
        return longest

    def readings(self, origin: int, newest: int | None = None) -> Floats:
        """Return all rows that one origin may see, or the newest of them, `(row,)`.

        Of a panel that ranks share, all ranks call this, and get rows of whichever rank.
        """
        end = int(self.cutoff[origin])
        begin = 0 if newest is None else max(0, end - newest)
        return self._panel.of(int(self.series[origin]), begin, end)

    def fingerprint(self, horizon: int | None = None) -> str:
        """Return a SHA-256 of all that the origins together may see, and of the origins.

        Covariates known ahead count as seen for as many rows after the cutoff as a `horizon` has,
        however far they reach where none is given.
        """
        n_seen = np.zeros(self._panel.n_series, np.int64)
        np.maximum.at(n_seen, self.series, self.cutoff)
        panel = self._panel.truncate(n_seen)
        if horizon is not None and panel.covariates is not None:
            panel = replace(panel, covariates=panel.covariates.end_known(n_seen + horizon))
        digest = hashlib.sha256(panel.fingerprint().encode())
        for array in (self.series, self.cutoff):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def at(self, origins: Integers, times_us: Integers) -> Doubles:
        """Return what origins saw at these times, in the sensor's units, `(reading,)`.

        `origins` and `times_us` are `(reading,)`. NaN where no reading was seen: for a time after
        the cutoff, before the first row, or between two steps, and for an origin of -1.
        """
        values = np.full(len(origins), np.nan)
        if not self.n_origins:
            return values

        series, cutoff = self.series[origins], self.cutoff[origins]
        row, remainder = np.divmod(times_us - self._panel.start[series], self.step_us)
        is_row = (origins >= 0) & (remainder == 0) & (row >= 0) & (row < cutoff)
        places = self._panel.offsets[series[is_row]] + row[is_row]
        readings = self._panel.target[places].astype(np.float64)
        values[is_row] = readings + self.base[origins[is_row]]
        return values

    def tables(self) -> Iterator[tuple[Integers, Floats]]:
        """Yield all that the origins may see as padded tables: their origins, `(origin, row)`.

        Row 0 is the first of the series; NaN from the cutoff on. Origins that see about equally
        many rows share a table, so that many short series take no more time and memory than their
        readings do. Origins that see nothing are in tables without a row, those of series on other
        ranks in none. Cutoffs increase from table to table, and within each.
        """
        order = np.argsort(self.cutoff, kind="stable")
        order = order[self.is_local[order]]
        lengths = self.cutoff[order]

        begin = 0
        while begin < len(order):
            # The longest is at most twice the shortest, so at least half of a table is no padding.
            max_length = max(_EQUAL_ROWS, 2 * int(lengths[begin]))
            end = int(np.searchsorted(lengths, max_length, side="right"))
            n_values = np.arange(1, end - begin + 1) * lengths[begin:end]
            end = begin + max(1, int(np.searchsorted(n_values, _TABLE_VALUES, side="right")))

            origins, width = order[begin:end], int(lengths[end - 1])
            low = self._panel.begins(self.series[origins])
            high = low + self.cutoff[origins]
            yield origins, gather(self._panel.target, low, width, low=low, high=high)
            begin = end

    @property
    def n_seen(self) -> Integers:
        """`(origin,)`: how many readings each origin may see, on all ranks."""
        counts = np.zeros(self.n_origins, np.int64)
        for origins, readings in self.tables():
            counts[origins] = np.isfinite(readings).sum(1)
        return self.filled(counts)

    def windows(
        self,
        lookback: int,
        horizon: int,
        *,
        least_history: int | None = None,
        targets_after: Past | None = None,
    ) -> TrainingWindows:
        """Return the windows to train on: all whose last row lies before the cutoff.

        There must be at most one origin in each series. With `targets_after`, a Past of the same
        series, the future of each window lies at or after its cutoffs; histories may lie before.
        """
        return TrainingWindows.before(
            self._panel,
            self.series,
            self.cutoff,
            lookback=lookback,
            horizon=horizon,
            least_history=least_history,
            targets_from=None if targets_after is None else targets_after.cutoff,
        )

    def subset(self, origins: Integers | NDArray[np.bool_] | slice) -> Past:
        """Return a Past of some of the origins."""
        return replace(self, series=self.series[origins], cutoff=self.cutoff[origins])

    def panel_at_cutoffs(self) -> Panel:
        """Return a panel whose readings end at the cutoffs; there must be one origin in a series.

        Its covariates are not cut.
        """
        return self._panel.select(self.series).before(self.cutoff)

    def alone(self, origin: int) -> Past:
        """Return one origin over a new panel that holds its series alone and ends at the cutoff."""
        panel = self._panel.select(self.series[origin : origin + 1])
        return make_past(panel.before(self.cutoff[origin : origin + 1]))


def windows_of(
    past: Past, spec: NetworkSpec, *, targets_after: Past | None = None
) -> TrainingWindows:
    """Return the windows of a network: see `Past.windows`."""
    return past.windows(
        spec.lookback, spec.horizon, least_history=spec.least_history, targets_after=targets_after
    )


def make_past(panel: Panel, cutoff: Integers | None = None) -> Past:
    """Make a Past with one origin in each series, `cutoff` `(series,)`; default: after all rows."""
    all_series = np.arange(panel.n_series, dtype=np.int64)
    return Past(panel, series=all_series, cutoff=panel.lengths if cutoff is None else cutoff)


def add_base(values: Floats, past: Past) -> Values:
    """Add the base of each origin to values, `(origin, ...)`; doubles where any base is not 0."""
    base = past.base
    if not base.any():
        return values
    return values + base.reshape(-1, *[1] * (values.ndim - 1))
