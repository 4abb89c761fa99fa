"""How rows follow each other, against a loop over them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.tables.rows import Rows
from rnnforecast.tables.steps import StepCounts, step_statistics
from tests.data.tables import few


def make_rows(table: list[tuple[int, int]], n_each: int) -> Rows:
    """Make rows of (series, time) in chunks of this size."""
    codes, times = np.array(table, np.int64).reshape(-1, 2).T
    parts = range(0, len(table), n_each)
    return Rows(
        [times[i : i + n_each] for i in parts],
        [codes[i : i + n_each].astype(np.int16) for i in parts],
        {"v": []},
        {},
        {"v": np.zeros(int(codes.max()) + 1)},
        [],
    )


series = st.integers(0, 4)
tables = st.lists(st.tuples(series, st.integers(0, 20)), min_size=1, max_size=60)


def by_a_loop(table: list[tuple[int, int]]) -> tuple[Counter[int], Counter[int]]:
    """Return the steps ahead and back, each with how often it occurs."""
    last: dict[int, int] = {}
    ahead: Counter[int] = Counter()
    back: Counter[int] = Counter()
    for code, time in table:
        passed = time - last.get(code, time)
        ahead[passed] += passed > 0
        back[-passed] += passed < 0
        last[code] = time
    return +ahead, +back


def counted(steps: StepCounts) -> Counter[int]:
    return Counter(dict(zip(steps.lengths.tolist(), steps.counts.tolist(), strict=True)))


@few
@given(tables, st.integers(1, 30))
def test_each_row_is_held_against_the_one_before_of_its_series(table, n_each):
    statistics = step_statistics(make_rows(table, n_each))

    ahead, back = by_a_loop(table)
    assert Counter(statistics.backward.tolist()) == back
    if back:  # the steps are then those of the sorted times
        ahead, _ = by_a_loop(sorted(table))
    assert counted(statistics.steps) == ahead
    for code in {code for code, _ in table}:
        times = [time for number, time in table if number == code]
        assert (statistics.start[code], statistics.end[code]) == (min(times), max(times))


@few
@given(tables, st.integers(1, 30), st.integers(1, 5))
def test_times_are_on_a_grid_where_all_steps_are_multiples(table, n_each, step):
    rows = make_rows(sorted(table, key=lambda row: row[1]), n_each)

    statistics = step_statistics(rows)

    is_on_grid = [
        (t - statistics.start[c]) % step == 0 for t, c in zip(rows.times, rows.codes, strict=True)
    ]
    assert statistics.is_multiple_of(step) == all(part.all() for part in is_on_grid)


@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_counted_steps_have_the_median_of_all(lengths):
    steps = StepCounts(*np.unique(lengths, return_counts=True))

    assert steps.median == np.median(lengths)
    assert steps.total == len(lengths)
    assert steps.commonest[1] == max(Counter(lengths).values())
    assert steps.count_near(4, 0.25) == sum(3 <= length <= 5 for length in lengths)


@pytest.mark.parametrize("shape", ["by time", "by series", "mixed"])
def test_a_long_table_may_be_sorted_in_any_way(shape):
    rows = [(code, time) for time in range(40) for code in range(7)]
    if shape == "by series":
        rows.sort()
    if shape == "mixed":
        rows.sort(key=lambda row: (row[1] // 10, row))

    statistics = step_statistics(make_rows(rows, 25))

    assert not len(statistics.backward)
    assert counted(statistics.steps) == Counter({1: 7 * 39})
