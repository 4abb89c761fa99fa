"""What is strange about readings, against loops that are slow and obvious."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.panel import Panel
from rnnforecast.data.quality import (
    RunLengths,
    find_gaps,
    find_sentinels,
    find_spikes,
    find_stuck,
    run_lengths,
)
from tests.builders import make_panel, wave
from tests.data.tables import few

cells = st.sampled_from([0.0, 1.0, 2.0, float("nan")])
tables = st.lists(st.lists(cells, min_size=1, max_size=30), min_size=1, max_size=4)


def runs_by_a_loop(panel: Panel) -> list[tuple[int, int, int, bool]]:
    found = []
    for s in range(panel.n_series):
        begin = 0
        readings = panel.of(s)
        for i in range(1, len(readings) + 1):
            ends = i == len(readings) or not np.array_equal(
                readings[i : i + 1], readings[i - 1 : i], equal_nan=True
            )
            if ends:
                missing = bool(np.isnan(readings[begin]))
                found.append((int(panel.offsets[s]) + begin, i - begin, s, missing))
                begin = i
    return found


def listed(runs: RunLengths) -> list[tuple[int, int, int, bool]]:
    columns = (runs.begin, runs.length, runs.series, runs.is_missing)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@few
@given(tables)
def test_runs_are_those_that_a_loop_finds(table):
    panel = make_panel(*table)
    runs = run_lengths(panel)
    expected = runs_by_a_loop(panel)
    assert listed(runs) == expected
    assert listed(find_gaps(panel)) == [run for run in expected if run[3]]


def stuck(*series: np.ndarray) -> list[tuple[int, int, int, bool]]:
    panel = make_panel(*series)
    return listed(find_stuck(run_lengths(panel), panel.n_series))


def test_a_sensor_that_stays_where_it_is_is_stuck():
    good, bad = wave(400), wave(400, seed=1)
    bad[100:160] = bad[100]
    assert stuck(good, bad) == [(500, 60, 1, False)]


def test_a_few_equal_readings_are_not_stuck():
    readings = wave(400)
    readings[100:123] = readings[100]
    assert stuck(readings) == []


@pytest.mark.parametrize("night", [30, 40])
def test_what_stands_still_every_night_is_not_stuck(night):
    readings = wave(96 * 20)
    for day in range(20):
        readings[96 * day : 96 * day + night] = 0
    assert stuck(readings) == []
    readings[96 * 3 : 96 * 8] = 0
    assert [(begin, length) for begin, length, _, _ in stuck(readings)] == [
        (96 * 3, 96 * 5 + night)
    ]


def test_a_constant_series_and_one_of_gaps_are_not_stuck():
    assert stuck(np.full(400, 5.0), np.full(400, np.nan)) == []


def stuck_by_a_loop(panel: Panel) -> list[tuple[int, int, int, bool]]:
    """Runs of at least 24, and of ten times the length that 99 % of a series' runs stay within."""
    found = []
    for s in range(panel.n_series):
        own = [run for run in runs_by_a_loop(panel) if run[2] == s and not run[3]]
        lengths = sorted(n for _, n, _, _ in own)
        if len(own) < 2:
            continue
        usual = lengths[max(min(int(np.ceil(0.99 * len(own))), len(own) - 1) - 1, 0)]
        found += [run for run in own if run[1] >= max(24, 10 * usual)]
    return found


@few
@given(st.lists(st.lists(st.tuples(cells, st.integers(1, 40)), min_size=1), min_size=1, max_size=4))
def test_stuck_runs_are_those_that_a_loop_finds(pieces):
    table = [[value for value, n in series for _ in range(n)] for series in pieces]
    assert stuck(*table) == stuck_by_a_loop(make_panel(*table))


def sentinels_by_a_loop(panel: Panel) -> list[tuple[int, float, int]]:
    found = []
    for worst_of in (np.nanmin, np.nanmax):
        for s in range(panel.n_series):
            readings = panel.of(s)[np.isfinite(panel.of(s))].astype(np.float64)
            if not len(readings):
                continue
            worst = worst_of(readings)
            rest, count = readings[readings != worst], int((readings == worst).sum())
            if not len(rest) or abs(worst - worst_of(rest)) <= 5 * rest.std():
                continue
            if worst in (-999.0, 9999.0) or (count >= 3 and rest.std() > 0):
                found.append((s, worst, count))
    return found


@few
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 500.0, -77.0, -999.0, 9999.0, float("nan")])),
        min_size=1,
        max_size=5,
    )
)
def test_sentinels_are_those_that_a_loop_finds(table):
    assert sentinels(*table) == sentinels_by_a_loop(make_panel(*table))


def sentinels(*series: np.ndarray, base: float = 0.0) -> list[tuple[int, float, int]]:
    panel = make_panel(*series, base=np.full(len(series), base)) if base else make_panel(*series)
    found = find_sentinels(panel)
    return list(zip(found.series.tolist(), found.value.tolist(), found.count.tolist(), strict=True))


@pytest.mark.parametrize("value", [-200.0, -999.0, 9999.0, 1e6, -77.0])
def test_a_value_far_off_that_occurs_again_and_again_is_a_sentinel(value):
    readings = wave(400, seed=2)
    readings[[5, 50, 51, 300]] = value
    assert sentinels(wave(400), readings) == [(1, value, 4)]


@pytest.mark.parametrize(("value", "is_known"), [(-999.0, True), (65535.0, True), (-777.0, False)])
def test_a_single_one_is_a_sentinel_where_loggers_write_it(value, is_known):
    readings = wave(400)
    readings[7] = value
    assert sentinels(readings) == ([(0, value, 1)] if is_known else [])


def test_a_reading_at_the_edge_is_no_sentinel():
    readings = np.clip(wave(400), 16.0, 24.0)
    assert sentinels(readings) == []
    assert sentinels(np.full(400, 9999.0), np.full(400, np.nan)) == []


def test_spikes_are_short():
    readings = wave(400)
    readings[50] = 500
    readings[[100, 101]] = -500
    readings[200:210] = 500
    panel = make_panel(wave(400), readings)
    center = np.array([20, 20], np.float32)
    found = find_spikes(panel, center, np.array([80, 80], np.float32))
    assert listed(found) == [(450, 1, 1, False), (500, 2, 1, False)]
    nothing = find_spikes(
        panel, np.array([20, 20], np.float32), np.array([1e9, np.nan], np.float32)
    )
    assert listed(nothing) == []


@few
@given(st.lists(st.lists(st.integers(1, 40), max_size=200), min_size=1, max_size=3))
def test_what_is_stuck_stands_ten_times_longer_than_99_of_100_runs(table):
    lengths = [[*own, 1] for own in table]
    series = [np.repeat(np.arange(len(own)) % 2.0, own) for own in lengths]
    expected = []
    for number, own in enumerate(lengths):
        n = len(own)
        usual = sorted(own)[max(min(int(np.ceil(0.99 * n)), n - 1), 1) - 1] if n > 1 else np.inf
        expected += [(number, length) for length in own if length >= max(24, 10 * usual)]

    assert [(s, n) for _, n, s, _ in stuck(*series)] == expected
