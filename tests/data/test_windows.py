"""Windows against loops: which there are, what they hold, and in what order they come."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import TrainingWindows, epoch_batches, gather
from tests.builders import HOUR_US, make_panel
from tests.data.tables import few


@st.composite
def tasks(draw):
    """Draw a panel whose readings tell their series and row, window lengths and cutoffs."""
    lengths = draw(st.lists(st.integers(1, 25), min_size=1, max_size=5))
    panel = make_panel(*(1000 * s + np.arange(n) for s, n in enumerate(lengths)))
    lookback, horizon = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    least = draw(st.none() | st.integers(1, 10))
    cutoff = [draw(st.integers(0, n)) for n in lengths]
    targets_from = draw(st.none() | st.tuples(*(st.integers(0, c) for c in cutoff)))
    return panel, lookback, horizon, least, cutoff, targets_from


def windows_of(
    panel: Panel, lookback: int, horizon: int, least=None, cutoff=None, targets_from=None
):
    """Make the windows of all series of a panel."""
    return TrainingWindows.before(
        panel,
        np.arange(panel.n_series),
        panel.lengths if cutoff is None else np.array(cutoff, np.int64),
        lookback=lookback,
        horizon=horizon,
        least_history=least,
        targets_from=None if targets_from is None else np.array(targets_from, np.int64),
    )


def listed(panel: Panel, lookback: int, horizon: int, least, cutoff, targets_from):
    """List the windows by a loop: (series, first row), negative where rows are missing."""
    n_before = lookback - min(lookback, lookback if least is None else least)
    return [
        (s, row)
        for s in range(panel.n_series)
        for row in range(-n_before, int(panel.lengths[s]))
        if row + lookback + horizon <= cutoff[s]
        and (targets_from is None or row + lookback >= targets_from[s])
    ]


@few
@given(tasks())
def test_the_windows_are_those_that_a_loop_finds(task):
    panel, lookback, horizon, *_ = task
    expected = listed(*task)

    windows = windows_of(*task)

    assert len(windows) == len(expected)
    if expected:
        batch = windows.gather(np.arange(len(windows)))
        for i, (s, row) in enumerate(expected):
            n_before = max(-row, 0)
            readings = panel.of(s)[row + n_before : row + lookback + horizon]
            readings = np.concatenate([np.full(n_before, np.nan), readings])
            assert batch.series[i] == s
            assert batch.next_step[i] == panel.start[s] // HOUR_US + row + lookback
            np.testing.assert_array_equal(batch.history[i], readings[:lookback])
            np.testing.assert_array_equal(batch.future[i], readings[lookback:])


@few
@given(tasks())
def test_no_window_reaches_into_another_series_or_beyond_its_cutoff(task):
    _, _, _, _, cutoff, targets_from = task
    windows = windows_of(*task)
    if not len(windows):
        return

    batch = windows.gather(np.arange(len(windows)))

    both = np.concatenate([batch.history, batch.future], 1)
    is_row = np.isfinite(both)
    assert ((both // 1000 == batch.series[:, None]) | ~is_row).all()
    assert ((both % 1000 < np.array(cutoff)[batch.series][:, None]) | ~is_row).all()
    if targets_from is not None:
        assert (batch.future % 1000 >= np.array(targets_from)[batch.series][:, None]).all()


@few
@given(tasks())
def test_a_history_holds_the_least_of_its_rows_and_a_future_all(task):
    _, lookback, _, least, *_ = task
    windows = windows_of(*task)
    if not len(windows):
        return

    batch = windows.gather(np.arange(len(windows)))

    n_rows = np.isfinite(batch.history).sum(1)
    assert n_rows.min() >= min(lookback, lookback if least is None else least)
    assert np.isfinite(batch.future).all()


def test_windows_never_cross_a_gap_unseen():
    readings = np.arange(20.0)
    readings[8:11] = np.nan

    batch = windows_of(make_panel(readings), 4, 2).gather(np.arange(15))

    both = np.concatenate([batch.history, batch.future], 1)
    steps = np.diff(both, axis=1)
    assert (np.isnan(steps) | (steps == 1)).all()
    assert np.isnan(both[3:9]).any(1).all()


def test_windows_are_gathered_in_the_order_asked_for():
    windows = windows_of(make_panel(np.arange(9.0), np.arange(100.0, 109.0)), 3, 2)

    batch = windows.gather(np.array([9, 0, 5, 5]))

    assert batch.history[:, 0].tolist() == [104, 0, 100, 100]


def test_the_length_of_windows_is_their_number():
    assert len(windows_of(make_panel(np.zeros(10)), 6, 4)) == 1
    assert len(windows_of(make_panel(np.zeros(10)), 7, 4)) == 0
    assert len(windows_of(make_panel(np.zeros(10), np.zeros(3), np.zeros(12)), 6, 4)) == 4


@few
@given(st.integers(1, 500), st.integers(1, 60))
def test_spread_windows_are_even_and_hold_both_ends(n_windows, n):
    windows = windows_of(make_panel(np.zeros(n_windows + 1)), 1, 1)

    spread = windows.spread(n)

    assert len(windows) == n_windows
    assert len(spread) == min(n, n_windows)
    assert spread[0] == 0
    if n > 1:
        assert spread[-1] == n_windows - 1
        assert np.ptp(np.diff(spread)) <= 1 if len(spread) > 1 else n_windows == 1


def drawn(n_windows: int, *, n_steps: int, batch_size: int, key: tuple[int, ...] = (0, 0, 0)):
    """Return the first readings of the windows of each batch: the windows' numbers."""
    windows = windows_of(make_panel(np.arange(n_windows + 1.0)), 1, 1)
    batches = epoch_batches(windows, n_steps=n_steps, batch_size=batch_size, key=key)
    return [batch.history[:, 0].astype(int).tolist() for batch in batches]


@few
@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 30), st.integers(0, 5))
def test_an_epoch_has_as_many_batches_and_windows_as_were_asked_for(n, n_steps, batch_size, epoch):
    batches = drawn(n, n_steps=n_steps, batch_size=batch_size, key=(0, 0, epoch))

    assert [len(batch) for batch in batches] == [batch_size] * n_steps
    numbers = list(chain(*batches))
    counts = np.bincount(numbers, minlength=n)
    assert len(counts) == n
    assert counts.max() <= -(-len(numbers) // n) + (len(numbers) < n)
    assert counts.min() >= len(numbers) // n


def test_fewer_draws_than_windows_take_one_from_each_stretch():
    numbers = sorted(chain(*drawn(1000, n_steps=5, batch_size=20)))

    assert [number // 10 for number in numbers] == list(range(100))
    assert numbers != list(range(0, 1000, 10))


def test_the_key_alone_decides_the_order():
    first = drawn(100, n_steps=5, batch_size=20, key=(1, 2, 3))

    assert drawn(100, n_steps=5, batch_size=20, key=(1, 2, 3)) == first
    for other in ((2, 1, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert drawn(100, n_steps=5, batch_size=20, key=other) != first
    assert list(chain(*first)) != list(range(100))


@few
@given(st.data())
def test_gather_is_a_slice_with_nan_outside_of_its_bounds(data):
    n = data.draw(st.integers(0, 20))
    width = data.draw(st.integers(1, 25))
    target = np.arange(n, dtype=np.float32)
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for _ in range(3)]
    start = np.array([data.draw(st.integers(-width, n)) for _ in range(3)])
    low, high = np.array(bounds).T

    values = gather(target, start, width, low=low, high=high)

    for i in range(3):
        expected = [
            target[row] if low[i] <= row < high[i] else np.nan
            for row in range(start[i], start[i] + width)
        ]
        np.testing.assert_array_equal(values[i], np.float32(expected))


@pytest.mark.parametrize("width", [3, 8])
def test_gather_never_writes_into_the_readings(width):
    target = np.arange(6, dtype=np.float32)
    target.flags.writeable = False

    values = gather(target, np.array([2]), width, low=np.array([0]), high=np.array([6]))
    values[:] = 0

    assert target.tolist() == [0, 1, 2, 3, 4, 5]
