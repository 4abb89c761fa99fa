"""What is strange about readings, against loops that are slow and obvious."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.panel import Panel
from rnnforecast.tables.quality import (
    RunLengths,
    find_gaps,
    find_sentinels,
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
    return listed(find_stuck(panel))


def test_a_sensor_that_stays_where_it_is_is_stuck():
    good, bad = wave(400), wave(400, seed=1)
    bad[100:160] = bad[100]
    assert stuck(good, bad) == [(500, 60, 1, False)]


def test_a_few_equal_readings_are_not_stuck():
    readings = wave(400)
    readings[100:123] = readings[100]
    assert stuck(readings) == []


@pytest.mark.parametrize("night", [30, 40])
@pytest.mark.parametrize("days", [1, 5])
def test_what_stands_still_every_night_is_not_stuck_for_some_days_either(night, days):
    readings = wave(96 * 20)
    for day in range(20):
        readings[96 * day : 96 * day + night] = 0
    readings[96 * 3 : 96 * (3 + days)] = 0
    assert stuck(readings) == []


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_only_a_sensor_that_usually_changes_can_be_stuck(share):
    rng = np.random.default_rng(0)
    readings = wave(1000, noise=1)
    held = np.maximum.accumulate(np.where(rng.random(1000) < share, np.arange(1000), 0))
    readings = readings[held]
    readings[500:700] = readings[500]
    assert [(begin, n) for begin, n, _, _ in stuck(readings)] == ([(500, 200)] * (share > 0.8))


def test_a_constant_series_and_one_of_gaps_are_not_stuck():
    assert stuck(np.full(400, 5.0), np.full(400, np.nan)) == []


def stuck_by_a_loop(panel: Panel) -> list[tuple[int, int, int, bool]]:
    """Runs of at least 24, and of ten times the length that 99 % of a series' runs stay within.

    Outside of them two thirds of the readings differ from the one before, and few equal it.
    """
    found = []
    for s in range(panel.n_series):
        own = [run for run in runs_by_a_loop(panel) if run[2] == s and not run[3]]
        lengths = sorted(n for _, n, _, _ in own)
        if len(own) < 2:
            continue
        usual = lengths[max(min(int(np.ceil(0.99 * len(own))), len(own) - 1) - 1, 0)]
        long = [run for run in own if run[1] >= max(24, 10 * usual)]
        others = [run for run in own if run not in long]
        n_others = sum(n for _, n, _, _ in others)
        for run in long:
            value = panel.target[run[0]]
            n_equal = sum(n for begin, n, _, _ in own if panel.target[begin] == value) - run[1]
            if len(others) >= n_others * 2 / 3 and n_equal < max(0.02 * n_others, 1):
                found.append(run)
    return found


@few
@given(st.lists(st.lists(st.tuples(cells, st.integers(1, 40)), min_size=1), min_size=1, max_size=4))
def test_stuck_runs_are_those_that_a_loop_finds(pieces):
    table = [[value for value, n in series for _ in range(n)] for series in pieces]
    assert stuck(*table) == stuck_by_a_loop(make_panel(*table))


def sentinels(*series: np.ndarray, base: float = 0.0) -> list[tuple[int, float, int]]:
    panel = make_panel(*series, base=np.full(len(series), base)) if base else make_panel(*series)
    found = find_sentinels(panel)
    return list(zip(found.series.tolist(), found.value.tolist(), found.count.tolist(), strict=True))


@pytest.mark.parametrize("value", [-200.0, -999.0, 9999.0, 1e6, -77.0])
def test_a_value_far_off_that_occurs_again_and_again_is_a_sentinel(value):
    readings = wave(400, seed=2)
    readings[[5, 50, 51, 300]] = value
    assert sentinels(wave(400), readings) == [(1, value, 4)]


@pytest.mark.parametrize(("value", "is_one"), [(-777.0, True), (888.0, True), (-30.0, False)])
def test_a_value_very_far_off_may_be_less_rare_but_not_regular(value, is_one):
    readings = wave(800, seed=2)  # between 14.8 and 25.2
    places = np.sort(np.random.default_rng(0).permutation(800)[:20])
    readings[places] = value
    assert sentinels(readings) == ([(0, value, 20)] if is_one else [])

    regular = wave(800, seed=2)
    regular[5:800:40] = value  # a test of the sensor
    assert sentinels(regular) == []


def test_a_value_very_far_from_smooth_readings_may_be_frequent_and_last():
    smooth, rng = wave(800, seed=2), np.random.default_rng(0)
    often, lasting, both_ends = smooth.copy(), smooth.copy(), smooth.copy()
    often[rng.permutation(800)[:100]] = -777
    lasting[200:214], lasting[500:512] = -777, -777
    places = rng.permutation(800)[:60]
    both_ends[places[:25]], both_ends[places[25:]] = 7999, -7999

    assert sentinels(often, lasting) == [(0, -777, 100), (1, -777, 26)]
    assert sorted(sentinels(both_ends)) == [(0, -7999, 35), (0, 7999, 25)]


@pytest.mark.parametrize(
    "idle",
    [
        np.random.default_rng(1).normal(1, 0.1, 800),  # noise
        np.arange(800) // 50 % 10 / 10,  # few different readings
        wave(800, seed=2),  # nearer than ten ranges
        np.zeros(800),
    ],
)
def test_the_load_of_a_machine_that_is_often_idle_is_no_sentinel(idle):
    readings = idle.copy()
    for start in (100, 260, 300, 410, 690):
        readings[start : start + 12] = 100
    assert sentinels(readings) == []


@pytest.mark.parametrize("value", [-999.0, 9999.0, 65535.0])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_value_that_loggers_write_is_a_sentinel_however_often_it_occurs(value, share):
    readings = wave(400, seed=2)
    readings[: int(share * 400)] = value
    assert sentinels(readings) == [(0, value, int(share * 400))]


@pytest.mark.parametrize(
    ("low", "high", "value", "means_missing"),
    [
        (-40, 30, -99, True),
        (990, 1020, 999, False),
        (1000, 1020, 999, False),
        (0, 950, 999, False),
        (0, 8000, 9999, False),
        (0, 8000, 65535, True),
        (20, 21, 85, True),
        (20, 80, 85, False),
        (-10, 35, 85, True),
        (-10, 35, -127, True),
        (300, 500, -200, True),
        (-150, 150, -200, False),
    ],
)
def test_a_value_that_loggers_write_may_be_a_reading_too(low, high, value, means_missing):
    readings = np.random.default_rng(0).uniform(low, high, 600)
    readings[[7, 90, 91]] = value
    assert sentinels(readings) == ([(0, value, 3)] if means_missing else [])


def test_minus_one_among_counts_is_no_count_but_beside_a_zero_it_is_a_reading():
    rng = np.random.default_rng(0)
    counts = rng.poisson(12, 500).astype(float)
    counts[[30, 200, 201, 400]] = -1
    assert sentinels(counts) == [(0, -1, 4)]

    degrees = np.round(8 + 9 * np.sin(np.arange(500) / 8))
    assert degrees.min() == -1
    assert sentinels(degrees) == []
    assert sentinels(np.where(rng.random(500) < 0.08, rng.choice([-1, 1, 2], 500), 0)) == []


def test_several_sentinels_of_one_series_are_found_whatever_their_order():
    readings = wave(400)
    readings[[3, 40]], readings[90], readings[[5, 6, 7]] = -999, -9999, 32767
    assert sorted(sentinels(readings)) == [(0, -9999, 1), (0, -999, 2), (0, 32767, 3)]


@pytest.mark.parametrize(
    "readings",
    [
        np.where(np.arange(600) % 12 < 8, 0, wave(600) + 17),
        np.where(np.random.default_rng(0).random(600) < 0.1, 38.4, 0),
        np.repeat(wave(150), 4) * (np.arange(600) // 5 % 40 > 0),
    ],
    ids=["a compressor's 0", "rain", "outages of five readings"],
)
def test_a_state_that_lasts_or_occurs_often_is_a_reading(readings):
    assert sentinels(readings) == []


@pytest.mark.parametrize(("value", "is_known"), [(-999.0, True), (65535.0, True), (-777.0, False)])
def test_a_single_one_is_a_sentinel_where_loggers_write_it(value, is_known):
    readings = wave(400)
    readings[7] = value
    assert sentinels(readings) == ([(0, value, 1)] if is_known else [])


def test_a_reading_at_the_edge_is_no_sentinel():
    readings = np.clip(wave(400), 16.0, 24.0)
    assert sentinels(readings) == []
    assert sentinels(np.full(400, 9999.0), np.full(400, np.nan)) == []
