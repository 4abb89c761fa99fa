"""Panel: many series as flat arrays, with the times of their rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data import arrays
from rnnforecast.data.arrays import concat_slices, offsets_from_lengths
from tests.builders import HOUR_US, START_US, make_panel
from tests.data.tables import few


def test_every_series_is_its_own_stretch():
    panel = make_panel([1, 2, 3], [], [4, 5])

    assert [panel.of(s).tolist() for s in range(3)] == [[1, 2, 3], [], [4, 5]]
    assert panel.lengths.tolist() == [3, 0, 2]
    assert panel.n_series == 3


def test_rows_have_times_that_lie_a_step_apart():
    panel = make_panel([1, 2, 3])

    times = panel.time_at(np.array([0, 0, 0]), np.array([0, 1, 5]))

    assert (times - START_US).tolist() == [0, HOUR_US, 5 * HOUR_US]


@few
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.integers(-5 * HOUR_US, 40 * HOUR_US),
    st.integers(0, HOUR_US),
)
def test_rows_before_a_time_are_those_whose_stamp_is_less(lengths, ahead, phase):
    panel = make_panel(*(np.zeros(n) for n in lengths), start_us=START_US + phase)

    counted = panel.rows_before(START_US + ahead)

    for s, n in enumerate(lengths):
        stamps = START_US + phase + np.arange(n) * HOUR_US
        assert counted[s] == np.count_nonzero(stamps < START_US + ahead)


def test_selected_series_keep_their_names_readings_and_times():
    panel = make_panel([1, 2, 3], [4], [5, 6])

    chosen = panel.select(np.array([2, 0]))

    assert chosen.names == ("s2", "s0")
    assert [chosen.of(s).tolist() for s in range(2)] == [[5, 6], [1, 2, 3]]
    assert panel.select(np.empty(0, np.int64)).n_series == 0


def test_the_fingerprint_changes_with_everything_that_the_readings_say():
    base = make_panel([1, 2, 3], [4])

    others = [
        make_panel([1, 2, 3.5], [4]),
        make_panel([1, 2], [3, 4]),
        make_panel([1, 2, 3], [4], step_us=HOUR_US * 2),
        make_panel([1, 2, 3], [4], start_us=START_US + 1),
        base.select(np.array([1, 0])),
    ]

    assert base.fingerprint() == make_panel([1, 2, 3], [4]).fingerprint()
    assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 6


@pytest.mark.parametrize("lengths", [[], [3], [2, 0, 5]])
def test_offsets_begin_at_zero_and_end_with_the_sum(lengths):
    offsets = offsets_from_lengths(np.array(lengths, np.int64))

    assert offsets[0] == 0
    assert np.diff(offsets).tolist() == lengths
    assert offsets.dtype == np.int64


@few
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8),
    st.sampled_from([1, 7, 1000]),
)
def test_stretches_are_the_slices_one_after_the_other(pairs, copied_at_once):
    target = np.arange(50, dtype=np.float32)
    pairs = [tuple(sorted(pair)) for pair in pairs]
    begin, end = np.array(pairs, np.int64).reshape(-1, 2).T

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrays, "_COPIED_ROWS", copied_at_once)
        found = concat_slices(target, begin, end)

    assert found.tolist() == [x for a, b in pairs for x in range(a, b)]


def test_the_first_rows_of_each_series_are_a_panel_of_their_own():
    panel = make_panel([1, 2, 3], [4], [5, 6])

    first = panel.before(np.array([2, 0, 1]))

    assert [first.of(s).tolist() for s in range(3)] == [[1, 2], [], [5]]
    assert panel.target.tolist() == [1, 2, 3, 4, 5, 6]
