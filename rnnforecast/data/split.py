"""The split by time: what trains, what decides when to stop, what is held out.

Apart from `windows`, which takes cutoffs as given: here the share of the readings becomes a moment,
the same for every series, so that nothing learnt from one series is later than what another is
judged by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data.forecast import Past, past_of
from rnnforecast.data.panel import Panel

_MAX_EVALUATED = 150_000
_MIN_ORIGINS = 20


@dataclass(frozen=True)
class Split:
    """Three stretches of one panel. A stretch that the data have no room for is None."""

    panel: Panel
    train: Past
    validation: Past | None
    """Sees up to the end of the validation part; its targets lie after the train part."""
    test_from_us: int | None
    """The first time that belongs to the test part."""

    @property
    def before_test(self) -> Past:
        """All that may be learnt from before the test part is looked at."""
        return self.validation or self.train

    @property
    def everything(self) -> Past:
        """All readings: what the saved version learns from in the end."""
        return past_of(self.panel)


def split_by_time(
    panel: Panel, *, validation: float, test: float, lookback: int, horizon: int
) -> Split:
    """Cut the newest share of the readings off as test part, and the share before as validation.

    Each part is at least one horizon long. Where that leaves no window to train on, the validation
    part goes first, then the test part.
    """
    end = _end_of(panel)
    train_until, test_from = _cuts(panel, validation=validation, test=test, at_least=horizon)
    cuts = [(train_until, test_from), (test_from, test_from), (end, end)]
    for train_until, test_from in cuts:  # noqa: B007
        train = past_of(panel, panel.rows_before(train_until))
        if len(train.windows(lookback, horizon)):
            break
    return Split(
        panel,
        train=train,
        validation=past_of(panel, panel.rows_before(test_from))
        if train_until < test_from
        else None,
        test_from_us=test_from if test_from < end else None,
    )


def known_before_test(panel: Panel, *, validation: float, test: float, at_least: int) -> Past:
    """Return what lies before both held-out parts, for choices made before windows have lengths.

    `at_least` is the longest horizon that may come of them: the parts are that long or longer, so
    that no later choice moves them back over readings that were looked at here.
    """
    train_until, _ = _cuts(panel, validation=validation, test=test, at_least=at_least)
    return past_of(panel, panel.rows_before(train_until))


def test_origins(split: Split, *, lookback: int, horizon: int) -> Past:
    """Return the origins of the test part: a horizon apart, closer where that gives too few."""
    assert split.test_from_us is not None
    panel = split.panel
    first = np.maximum(panel.rows_before(split.test_from_us), lookback)
    rows = np.maximum(panel.lengths - horizon - first + 1, 0)
    stride = max(1, min(horizon, int(rows.max(initial=0)) // _MIN_ORIGINS))
    counts = -(-rows // stride)
    series = np.repeat(np.arange(panel.n_series, dtype=np.int64), counts)
    number = np.arange(len(series)) - np.repeat(np.cumsum(counts) - counts, counts)
    thinned = slice(None, None, max(1, -(-len(series) * horizon // _MAX_EVALUATED)))
    return Past(panel, series=series, cutoff=first[series] + number * stride).subset(thinned)


def _cuts(panel: Panel, *, validation: float, test: float, at_least: int) -> tuple[int, int]:
    """Return the first times that no longer belong to the train and to the validation part."""
    end = _end_of(panel)
    test_from = _moment(panel, end, share=test, at_least=at_least) if test else end
    if not validation:
        return test_from, test_from
    share = validation / (1 - test)
    return _moment(panel, test_from, share=share, at_least=at_least), test_from


def _end_of(panel: Panel) -> int:
    """Return the first time after all readings."""
    return int((panel.start + panel.lengths * panel.step_us).max())


def _moment(panel: Panel, before_us: int, *, share: float, at_least: int) -> int:
    """Return the grid time that leaves this share of the rows before `before_us` after it."""
    total = int(panel.rows_before(before_us).sum())
    low, high = int(panel.start.min()), before_us
    while high - low > panel.step_us:
        middle = (low + high) // 2
        if total - int(panel.rows_before(middle).sum()) >= share * total:
            low = middle
        else:
            high = middle
    steps_back = max(1, at_least, (before_us - low) // panel.step_us)
    return before_us - steps_back * panel.step_us
