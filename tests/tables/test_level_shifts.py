"""Levels that jump and stay, and what only looks like it."""

import numpy as np
import pytest

from rnnforecast.tables.quality import find_changepoint
from tests.builders import random_walk, wave

N, AT = 960, 600
ROWS = np.arange(N)


@pytest.mark.parametrize(
    "changed",
    [lambda x: 1.8 * x + 32, lambda x: 1000 * x, lambda x: x / 1000, lambda x: x - 80],
    ids=["Fahrenheit", "thousandths", "thousands", "another sensor"],
)
def test_a_unit_that_changes_is_found_where_it_does(changed):
    readings = np.where(ROWS < AT, wave(N), changed(wave(N))).astype(np.float32)
    readings[50:80] = np.nan
    jump = find_changepoint(readings)
    assert jump is not None
    assert abs(jump.row - AT) <= 12
    assert np.isclose(jump.before, 20, atol=1)
    assert np.isclose(jump.after, changed(20), rtol=0.1)


@pytest.mark.parametrize("changed", [lambda x: 1.8 * x + 32, lambda x: x - 45])
def test_a_jump_beyond_all_others_is_found_though_days_differ_as_much(changed):
    days = 15 + 8 * np.sin(ROWS * 2 * np.pi / 24) + 0.1 * wave(N)

    jump = find_changepoint(np.where(ROWS < AT, days, changed(days)).astype(np.float32))

    assert jump is not None and abs(jump.row - AT) <= 1
    steps = np.where(ROWS % 24 < 8, days, changed(days))  # a machine of two temperatures
    assert find_changepoint(steps.astype(np.float32)) is None


@pytest.mark.parametrize(
    "readings",
    [
        wave(N),
        wave(N) + ROWS / 10,
        np.where((ROWS > 300) & (ROWS < 600), 80, 20) + wave(N),
        np.where(ROWS < AT, 0.0, wave(N)),
        wave(200),
        np.full(N, np.nan),
    ],
    ids=["season", "drift", "back again", "switched on", "short", "nothing"],
)
def test_what_is_no_jump_is_not_called_one(readings):
    assert find_changepoint(np.asarray(readings, np.float32)) is None


def test_walks_are_rarely_called_jumps():
    found = [find_changepoint(random_walk(N, seed=seed)) for seed in range(300)]
    assert sum(jump is not None for jump in found) <= 3
