"""Rolling origins: which cutoffs a forecast is tried at. An origin is a number, until it is used.

Apart from `split`, which says where the test part begins: here it is walked through, a stride at a
time. Nothing grows with the number of origins; a part of them becomes a `Past` when it is its turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.data.panel import Integers, Panel
from rnnforecast.data.past import Past
from rnnforecast.data.ranks import Ranks


@dataclass(frozen=True)
class Origins:
    """For each series a first cutoff and how many follow it, a stride apart."""

    _panel: Panel
    first: Integers
    """`(series,)`: rows before the first cutoff."""
    counts: Integers
    """`(series,)`."""
    stride: int
    every: int = 1
    """Of all origins, numbered through all series, only each so-manieth is used."""

    @classmethod
    def rolling(
        cls, panel: Panel, from_us: int, *, lookback: int, horizon: int, stride: int
    ) -> Origins:
        """Return the origins whose leads lie in the panel, at `from_us` or later.

        Before each lie at least `lookback` rows.
        """
        first = np.maximum(panel.rows_before(from_us), lookback)
        last = panel.lengths - horizon
        return cls(panel, first, np.maximum((last - first) // stride + 1, 0), stride)

    def between(self, from_us: int, until_us: int) -> Origins:
        """Return those of the origins whose first lead lies in `[from_us, until_us)`."""
        stride_us = self.stride * self._panel.step_us
        first_us = self._panel.start + self.first * self._panel.step_us

        def n_before(moment: int) -> Integers:
            count: Integers = np.clip(-((first_us - moment) // stride_us), 0, self.counts)
            return count

        skipped = n_before(from_us)
        counts = n_before(until_us) - skipped
        return replace(self, first=self.first + skipped * self.stride, counts=counts)

    def __len__(self) -> int:
        return math.ceil(int(self.counts.sum()) / self.every)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the panel's series."""
        return self._panel.names

    @property
    def step_us(self) -> int:
        """The grid's step in microseconds."""
        return self._panel.step_us

    @property
    def ranks(self) -> Ranks:
        """Who holds the panel together: all of them know of all origins."""
        return self._panel.ranks

    def fetched(self, series: Sequence[int]) -> Origins:
        """Return the same over a panel that has a few series here, wherever they were."""
        return replace(self, _panel=self._panel.fetched(series))

    @property
    def time_range(self) -> tuple[int, int]:
        """Times of the first and the last cutoff, the first row not seen, in microseconds."""
        there = self.counts > 0
        first = self._panel.start + self.first * self._panel.step_us
        last = first + (self.counts - 1) * self.stride * self._panel.step_us
        return int(first[there].min()), int(last[there].max())

    def thinned(self, at_most: int) -> Origins:
        """Return every so-manieth origin, so that no more than `at_most` are left."""
        return replace(self, every=max(1, -(-len(self) // max(at_most, 1))))

    def parts(self, size: int) -> Iterator[Past]:
        """Give all origins, at most `size` at a time, series by series and then in time."""
        ends = np.cumsum(self.counts)
        for start in range(0, len(self), size):
            number = np.arange(start, min(start + size, len(self))) * self.every
            series = np.searchsorted(ends, number, side="right")
            place = number - (ends - self.counts)[series]
            cutoff = self.first[series] + place * self.stride
            yield Past(self._panel, series=series.astype(np.int64), cutoff=cutoff)
