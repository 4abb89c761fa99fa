"""Codes of cells and times: equal ones have equal codes, however they are counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnnforecast.sources.columns import Column
from rnnforecast.tables.evidence import (
    ColumnEvidence,
    Evidence,
    code_times,
    count_codes,
    pair_codes,
    without_repeated_rows,
)

RANDOM = np.random.default_rng(0)
SECOND = 1_000_000
TIMES = {
    "on a grid": 1_700_000_000 * SECOND + RANDOM.integers(0, 300, 500) * SECOND,
    "off the grid of the first ones": np.append(np.arange(400), 1.5).repeat(2) * SECOND,
    "far apart": RANDOM.integers(0, 50, 500) ** 6 * SECOND,
    "the same": np.full(10, 7 * SECOND),
    "before 1970": -np.arange(100)[::-1].repeat(3) * SECOND,
    "none": np.zeros(0),
}


def evidence_of(times: np.ndarray, **columns: np.ndarray) -> Evidence:
    """Return evidence of rows with columns of text, given by codes."""
    cells = {name: ColumnEvidence(Column(name, "text"), codes) for name, codes in columns.items()}
    return Evidence(times, True, cells, is_whole=True)


@pytest.mark.parametrize("name", TIMES)
def test_times_have_equal_codes_where_they_are_equal(name):
    times = TIMES[name].astype(np.int64)

    pairs = set(zip(times.tolist(), code_times(times).tolist(), strict=True))

    n_times = len(set(times.tolist()))
    assert len(pairs) == len({code for _, code in pairs}) == n_times
    assert evidence_of(times).n_times == n_times


@pytest.mark.parametrize("n_values", [2, 30, 10_000])
def test_pairs_are_counted_with_missing_values(n_values):
    first, second = RANDOM.integers(0, n_values, 400), RANDOM.integers(-1, n_values, 400)

    n_pairs = count_codes(pair_codes(first, second))

    assert n_pairs == len(set(zip(first.tolist(), second.tolist(), strict=True)))


@pytest.mark.parametrize("n_values", [(3, 2), (3, 400), (200, 300)])
@pytest.mark.parametrize("is_repeated", [True, False])
def test_only_rows_that_are_the_same_in_all_columns_are_dropped(n_values, is_repeated):
    columns = {f"c{n}": RANDOM.integers(-1, n, 200) for n in n_values}
    frame = pd.DataFrame({"time": RANDOM.integers(0, 60, 200), **columns}).drop_duplicates()
    expected = frame.copy()
    if is_repeated:
        frame = pd.concat([frame, frame.sample(20, random_state=0)])

    kept = without_repeated_rows(
        evidence_of(frame.pop("time").to_numpy(), **{n: c.to_numpy() for n, c in frame.items()})
    )

    codes = {name: column.codes for name, column in kept.columns.items()}
    assert (pd.DataFrame({"time": kept.times, **codes}).to_numpy() == expected.to_numpy()).all()
