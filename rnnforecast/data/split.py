"""The split into training, validation and test parts by time, and the origins in each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.config.training import BacktestConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.data.limits import Limits, fit_limits
from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import Past, make_past, windows_of
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.parallel import Ranks
from rnnforecast.spec import NetworkSpec

_MAX_EVALUATED = 150_000
"""Readings that are forecast in the test part, at most."""
_MAX_TESTED = 10_000
"""Origins in the test part, at most."""
_MAX_CALIBRATED = 400_000
"""Readings that are forecast in the validation part to calibrate quantiles, at most."""
_MAX_DIGITS = 18
"""Digits of the number of a row, at most."""
_MIN_ORIGINS = 20
"""Origins of the longest series in the test part, where it has as many rows for them."""
_CALIBRATED_A_HORIZON = 4
"""Origins in each horizon of the validation part."""


@dataclass(frozen=True)
class SplitTimes:
    """Three moments, in microseconds: the first times that no longer belong to each part."""

    train_until_us: int
    test_from_us: int
    end_us: int


@dataclass(frozen=True)
class Split:
    """Three parts of one panel, each after the other in time.

    The cuts are the same moments for all series. A part that the data have no room for is None.
    """

    panel: Panel
    train: Past
    validation: Past | None
    """Sees up to the end of the validation part; its targets lie after the train part."""
    test_from_us: int | None
    """The first time that belongs to the test part."""
    train_until_us: int
    """The first time that no longer belongs to the train part."""
    end_us: int
    """The first time after the test part."""

    @property
    def before_test(self) -> Past:
        """All readings before the test part: those that may be learnt from before it is scored."""
        return self.validation or self.train

    @property
    def limits_before_test(self) -> Limits:
        """The limits that those readings rest on."""
        return fit_limits(self.before_test)

    @property
    def everything(self) -> Past:
        """All readings: the saved version learns from them in the end."""
        return make_past(self.panel)


def split_by_time(panel: Panel, spec: NetworkSpec, *, validation: float, test: float) -> Split:
    """Cut the newest share of the readings off as test part, and the share before as validation.

    Each part is at least one horizon long. Where that leaves no window to train on, the validation
    part goes first, then the test part.
    """
    cuts = split_times_by_share(panel, validation=validation, test=test, at_least=spec.horizon)
    no_validation = replace(cuts, train_until_us=cuts.test_from_us)
    no_test = SplitTimes(cuts.end_us, cuts.end_us, cuts.end_us)

    for candidate in (cuts, no_validation, no_test):
        split = split_at(panel, candidate)
        if len(windows_of(split.train, spec)):
            break
    return split


def split_at(panel: Panel, cuts: SplitTimes) -> Split:
    """Cut a panel at three moments."""
    train_until, test_from = cuts.train_until_us, cuts.test_from_us
    return Split(
        panel,
        train=make_past(panel, panel.rows_before(train_until)),
        validation=make_past(panel, panel.rows_before(test_from))
        if train_until < test_from
        else None,
        test_from_us=test_from if test_from < cuts.end_us else None,
        train_until_us=train_until,
        end_us=cuts.end_us,
    )


def rolling_test_origins(split: Split, *, lookback: int, horizon: int) -> Origins:
    """Return the origins of the test part: a horizon apart, closer where that gives too few."""
    assert split.test_from_us is not None
    panel, from_us = split.panel, split.test_from_us
    lengths = {"lookback": lookback, "horizon": horizon}
    all_rows = Origins.rolling(panel, from_us, stride=1, **lengths)
    stride = max(1, min(horizon, int(all_rows.counts.max(initial=0)) // _MIN_ORIGINS))
    origins = Origins.rolling(panel, from_us, stride=stride, **lengths)
    return origins.subsample(min(_MAX_EVALUATED // horizon, _MAX_TESTED))


def rolling_validation_origins(split: Split, *, lookback: int, horizon: int) -> Origins:
    """Return origins in the validation part whose horizons end before the test part begins.

    There are some in each horizon, an odd number of steps apart: not always at the same hour.
    """
    assert split.validation is not None
    panel = split.panel.before(split.validation.cutoff)
    stride = max(1, horizon // _CALIBRATED_A_HORIZON) | 1
    origins = Origins.rolling(
        panel, split.train_until_us, lookback=lookback, horizon=horizon, stride=stride
    )
    return origins.subsample(_MAX_CALIBRATED // horizon)


def split_times_by_share(
    panel: Panel, *, validation: float, test: float, at_least: int
) -> SplitTimes:
    """Return the moments that leave these shares of all rows to the validation and test part.

    A part has at least `at_least` steps, or none where its share is 0.
    """
    end = panel.end_us
    test_from = _moment(panel, end, share=test, at_least=at_least) if test else end
    if not validation:
        return SplitTimes(test_from, test_from, end)
    share = validation / (1 - test)
    return SplitTimes(_moment(panel, test_from, share=share, at_least=at_least), test_from, end)


def split_times_by_ends(
    panel: Panel, ends: BacktestConfig, *, validation: float, test: float, horizon: int
) -> SplitTimes:
    """Return the moments that the user names; the others come from shares of the rows.

    The panel must end where the test part does. Raises `UsageError` for ends in another order, and
    `NotEnoughDataError` where no reading is left to learn from.
    """
    test_from = start_of_test_us(panel, ends, horizon=horizon)
    if test_from is None:
        test_from = _moment(panel, panel.end_us, share=test, at_least=horizon)
    train_until = test_from
    if ends.train_end is not None:
        train_until = parse_moment(ends.train_end, panel)
    elif validation:
        share = validation / (1 - test)
        train_until = _moment(panel, test_from, share=share, at_least=horizon)

    cuts = SplitTimes(train_until, test_from, panel.end_us)
    if not train_until <= test_from < cuts.end_us:
        stamps = [panel.axis.format(us) for us in (train_until, test_from, cuts.end_us)]
        raise UsageError(
            f"the training part ends at {stamps[0]}, the validation part at {stamps[1]}, the "
            f"test part at {stamps[2]}; these times must be in order",
            hint="check --train-end, --validation-end and --test-end",
        )
    if not panel.rows_before(train_until).any():
        raise NotEnoughDataError(
            "there is no data before the end of the training part",
            code="too-short",
            hint="use a later --train-end or fewer --windows",
        )
    return cuts


def start_of_test_us(panel: Panel, ends: BacktestConfig, *, horizon: int) -> int | None:
    """Return the beginning of the test part: the later of `validation_end` and the first window.

    None where the user names neither.
    """
    moments = []
    if ends.validation_end is not None:
        moments.append(parse_moment(ends.validation_end, panel))
    if ends.windows is not None:
        n_steps = horizon + (ends.windows - 1) * (ends.stride or horizon)
        moments.append(max(panel.end_us - n_steps * panel.step_us, panel.first_us))
    return max(moments, default=None)


def parse_moment(text: str, panel: Panel) -> int:
    """Parse a time stamp, or a row number counted from the table's first row, in microseconds.

    Raises `UsageError` for neither, and for a row that the table does not have.
    """
    if not re.fullmatch(r"[+-]?\d+", text.strip()):
        return panel.axis.parse(text)
    n_rows = (panel.end_us - panel.first_us) // panel.step_us
    if len(text) > _MAX_DIGITS or not 0 <= int(text) <= n_rows:
        raise UsageError(
            f"row {text} is outside the {n_rows} rows of the data",
            hint="write a date with dashes, e.g. 2024-05-01",
        )
    return panel.first_us + int(text) * panel.step_us


def _moment(panel: Panel, before_us: int, *, share: float, at_least: int) -> int:
    """Return the latest time that leaves this share of the rows before `before_us` after it.

    It lies a whole number of steps, and at least `at_least`, before `before_us`.
    """
    n_rows = int(panel.rows_before(before_us).sum())
    low, high = int(panel.start.min()), before_us
    while high - low > panel.step_us:
        middle = (low + high) // 2
        if n_rows - int(panel.rows_before(middle).sum()) >= share * n_rows:
            low = middle
        else:
            high = middle
    n_steps = max(1, at_least, (before_us - low) // panel.step_us)
    return before_us - n_steps * panel.step_us


@dataclass(frozen=True)
class Origins:
    """Rolling origins: for each series a first cutoff, and more of them a stride apart.

    They are numbered series by series and then in time. Nothing is stored for each origin.
    """

    _panel: Panel
    first: Integers
    """`(series,)`: rows before the first cutoff."""
    counts: Integers
    """`(series,)`: cutoffs of each series."""
    stride: int
    """Rows from one cutoff to the next."""
    every: int = 1
    """Every n-th origin, counted through all series, is used."""

    @classmethod
    def rolling(
        cls, panel: Panel, from_us: int, *, lookback: int, horizon: int, stride: int
    ) -> Origins:
        """Return the origins whose leads are all rows of the panel, at `from_us` or later.

        Before each lie at least `lookback` rows.
        """
        first = np.maximum(panel.rows_before(from_us), lookback)
        last = panel.lengths - horizon
        return cls(panel, first, np.maximum((last - first) // stride + 1, 0), stride)

    def between(self, from_us: int, until_us: int) -> Origins:
        """Return the origins whose first lead lies in `[from_us, until_us)`."""
        stride_us = self.stride * self._panel.step_us
        first_us = self._panel.start + self.first * self._panel.step_us

        def n_before(time_us: int) -> Integers:
            count: Integers = np.clip(-((first_us - time_us) // stride_us), 0, self.counts)
            return count

        n_skipped = n_before(from_us)
        counts = n_before(until_us) - n_skipped
        return replace(self, first=self.first + n_skipped * self.stride, counts=counts)

    def __len__(self) -> int:
        return math.ceil(int(self.counts.sum()) / self.every)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all series of the panel."""
        return self._panel.names

    @property
    def step_us(self) -> int:
        """Step of the grid in microseconds."""
        return self._panel.step_us

    @property
    def ranks(self) -> Ranks:
        """The ranks that hold the panel together: each has the origins of all series."""
        return self._panel.ranks

    def gather_from_ranks(self, series: Sequence[int]) -> Origins:
        """Return the same over a panel that stores the rows of a few series on all ranks."""
        return replace(self, _panel=self._panel.gather_from_ranks(series))

    @property
    def time_range(self) -> tuple[int, int]:
        """Times of the first row ahead at the earliest and the latest origin, in microseconds."""
        has_origins = self.counts > 0
        first = self._panel.start + self.first * self._panel.step_us
        last = first + (self.counts - 1) * self.stride * self._panel.step_us
        return int(first[has_origins].min()), int(last[has_origins].max())

    def subsample(self, at_most: int) -> Origins:
        """Return every n-th origin, n as small as leaves no more than `at_most`."""
        return replace(self, every=max(1, -(-len(self) // max(at_most, 1))))

    def parts(self, size: int) -> Iterator[Past]:
        """Yield all origins, at most `size` at a time, series by series and then in time."""
        ends = np.cumsum(self.counts)
        for start in range(0, len(self), size):
            numbers = np.arange(start, min(start + size, len(self))) * self.every
            series = np.searchsorted(ends, numbers, side="right")
            position = numbers - (ends - self.counts)[series]
            cutoff = self.first[series] + position * self.stride
            yield Past(self._panel, series=series.astype(np.int64), cutoff=cutoff)
