"""Rolling origins: numbers that become cutoffs, series by series, a part at a time."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.split import Origins
from tests.builders import HOUR_US, START_US, make_panel
from tests.data.tables import few


def slow_origins(lengths, begins, test_from, lookback, horizon, stride):
    """Walk through every row of every series."""
    found = []
    for series, (length, begin) in enumerate(zip(lengths, begins, strict=True)):
        first = max(lookback, min(max(test_from - begin, 0), length))
        found += [(series, cutoff) for cutoff in range(first, length - horizon + 1, stride)]
    return found


def pairs(origins, size=1000):
    parts = list(origins.parts(size))
    assert all(part.n_origins <= size for part in parts)
    return [pair for p in parts for pair in zip(p.series.tolist(), p.cutoff.tolist(), strict=True)]


@few
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30)), min_size=1, max_size=4),
    st.integers(0, 70),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 7),
    st.lists(st.integers(0, 90), max_size=3),
    st.integers(1, 50),
)
def test_origins_are_those_of_a_walk_through_every_row(
    series, test_from, lookback, horizon, stride, cuts, size
):
    lengths, begins = zip(*series, strict=True)
    panel = make_panel(*(np.zeros(n) for n in lengths))
    panel = dataclasses.replace(panel, start=START_US + np.array(begins, np.int64) * HOUR_US)

    origins = Origins.rolling(
        panel,
        START_US + test_from * HOUR_US,
        lookback=lookback,
        horizon=horizon,
        stride=stride,
    )

    found = pairs(origins, size)
    assert found == slow_origins(lengths, begins, test_from, lookback, horizon, stride)
    assert len(origins) == len(found)
    if found:
        times = [begins[s] + cutoff for s, cutoff in found]
        expected = tuple(START_US + t * HOUR_US for t in (min(times), max(times)))
        assert origins.time_range == expected
    divided = []
    for begin, until in itertools.pairwise([-1, *sorted(cuts), 1000]):
        part = pairs(origins.between(START_US + begin * HOUR_US, START_US + until * HOUR_US))
        assert all(begin <= begins[s] + cutoff < until for s, cutoff in part)
        divided += part
    assert sorted(divided) == sorted(found)


@pytest.mark.parametrize(("at_most", "n"), [(1000, 89), (89, 89), (88, 45), (1, 1)])
def test_thinned_origins_are_spread_over_all(at_most, n):
    panel = make_panel(np.zeros(100))
    origins = Origins.rolling(panel, START_US, lookback=2, horizon=10, stride=1)

    subsample = origins.subsample(at_most)

    cutoffs = next(subsample.parts(1000)).cutoff
    assert len(subsample) == len(cutoffs) == n <= at_most
    assert len(set(np.diff(cutoffs).tolist())) <= 1
