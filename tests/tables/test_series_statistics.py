"""The figures of series, against loops over each of them, however they are cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.panel import Panel
from rnnforecast.tables import quality
from rnnforecast.tables.quality import SeriesStats, describe, find_quality_issues
from tests.builders import make_panel, wave
from tests.data.tables import few

cells = st.sampled_from([0.0, 1.0, -3.5, 7.25, 1e6, float("nan")])
tables = st.lists(st.lists(cells, max_size=40), min_size=1, max_size=5)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_CHUNK_ROWS", 24)


def in_pieces_of(n_rows: int, panel: Panel) -> SeriesStats:
    before, quality._CHUNK_ROWS = quality._CHUNK_ROWS, n_rows
    try:
        return describe(panel)
    finally:
        quality._CHUNK_ROWS = before


@few
@given(tables, st.sampled_from([12, 24, 1200]))
def test_figures_are_those_of_a_loop_over_series(table, n_rows):
    panel = make_panel(*table)

    found = in_pieces_of(n_rows, panel)

    for i in range(panel.n_series):
        own = panel.of(i)[~np.isnan(panel.of(i))].astype(np.float64)
        assert found.n_observed[i] == len(own)
        if not len(own):
            assert np.isnan([found.min[i], found.max[i], found.mean[i], found.std[i]]).all()
            continue
        assert (found.min[i], found.max[i]) == (own.min(), own.max())
        assert found.n_min[i] == (own == own.min()).sum()
        assert found.n_max[i] == (own == own.max()).sum()
        np.testing.assert_allclose(found.mean[i], own.mean(), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.std[i], own.std(), rtol=1e-9, atol=1e-9)


@few
@given(st.integers(0, 60), st.integers(20, 40), st.integers(0, 60), st.sampled_from([12, 24, 1200]))
def test_a_series_that_stands_still_for_24_steps_is_looked_at(before, n, after, n_rows):
    readings = np.arange(before + n + after, dtype=np.float64)
    readings[before : before + n] = -1
    panel = make_panel(np.arange(30.0), readings, np.arange(30.0))

    found = in_pieces_of(n_rows, panel).may_be_stuck

    assert found[1] or n < 24
    assert not found[[0, 2]].any()


def test_equal_readings_on_both_sides_of_a_border_do_not_stand_still():
    panel = make_panel([1, 2, *[5] * 14], [5] * 14)

    assert not find_quality_issues(panel).stuck


def odd(rng: np.random.Generator) -> np.ndarray:
    """Make a series that may stand still, be constant, or hold values that mean missing."""
    readings = wave(400, seed=int(rng.integers(1000))).astype(np.float64)
    for _ in range(rng.integers(3)):
        begin, length = rng.integers(380), rng.integers(5, 80)
        readings[begin : begin + length] = readings[begin]
    if rng.random() < 0.5:
        value = rng.choice([-200.0, -77.0, 9999.0, 55.0, 27.0])
        readings[rng.random(400) < rng.choice([0.001, 0.01, 0.6])] = value
    if rng.random() < 0.3:
        readings[rng.random(400) < rng.choice([0.05, 0.99])] = np.nan
    if rng.random() < 0.1:
        readings[~np.isnan(readings)] = 3
    return readings


@pytest.mark.usefixtures("small_pieces")
def test_looking_again_at_some_series_finds_what_looking_at_all_of_them_does():
    rng = np.random.default_rng(0)
    panel = make_panel(*(odd(rng) for _ in range(300)))

    found = find_quality_issues(panel)

    stuck = quality.find_stuck(panel)
    expected = [(panel.names[s], n) for s, n in zip(stuck.series, stuck.length, strict=True)]
    assert [(one.series, one.n_rows) for one in found.stuck] == expected
    sentinels = quality.find_sentinels(panel)
    columns = (sentinels.series, sentinels.value, sentinels.count)
    expected = {(panel.names[s], value, n) for s, value, n in zip(*columns, strict=True)}
    assert {(one.series, one.value, one.n_rows) for one in found.sentinels} == expected
    assert min(len(found.stuck), len(found.sentinels), len(found.constant)) > 10
