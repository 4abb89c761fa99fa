"""Each row to its place on the grid, against a dictionary; what is trimmed, and what is dropped."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnnforecast.errors import DataError
from tests.builders import HOUR_US, START_US
from tests.data.tables import Read, failure, few, hourly, read, write

NAN = float("nan")
Row = tuple[str, int, float]

readings = st.integers(-50, 50).map(float) | st.just(NAN)
rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), readings), min_size=1)
RULES = {
    "last": lambda seen: seen[-1],
    "mean": lambda seen: sum(seen) / len(seen),
    "sum": sum,
    "min": min,
    "max": max,
}


def table(placed: list[Row], step_us: int = HOUR_US) -> pa.Table:
    """Make a long table of (series, step, reading)."""
    names, steps, values = zip(*placed, strict=True)
    times = START_US + np.array(steps, np.int64) * step_us
    stamps = pa.array(times.view("datetime64[us]"))
    return pa.table({"ts": stamps, "id": names, "v": np.array(values, np.float64)})


def cells_of(placed: list[Row]) -> dict[str, dict[int, list[float]]]:
    """Collect the readings that are there by series and step, in the order of the rows."""
    cells: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, step, value in placed:
        if not np.isnan(value):
            cells[name][step].append(value)
    return cells


def order_of(placed: list[Row]) -> list[str]:
    """Return the series that hold a reading, in the order in which they first appear."""
    cells = cells_of(placed)
    return [name for name in dict.fromkeys(name for name, *_ in placed) if name in cells]


def assert_placed(result: Read, placed: list[Row], rule: str) -> None:
    cells = cells_of(placed)
    assert list(result.panel.names) == order_of(placed)
    for i, name in enumerate(result.panel.names):
        first, last = min(cells[name]), max(cells[name])
        expected = [
            RULES[rule](cells[name][step]) if step in cells[name] else NAN
            for step in range(first, last + 1)
        ]
        assert result.panel.start[i] == START_US + first * HOUR_US
        np.testing.assert_array_equal(result.panel.of(i), np.float32(expected))


@few
@given(rows, st.sampled_from(["last", "mean"]))
def test_duplicates_are_placed_as_the_rule_says(placed, rule):
    assume(cells_of(placed))

    assert_placed(read(table(placed), freq="1h", on_duplicate=rule), placed, rule)


@few
@given(rows, st.sampled_from(sorted(RULES)))
def test_readings_are_aggregated_as_the_rule_says(placed, rule):
    assume(cells_of(placed))

    assert_placed(read(table(placed), freq="1h", agg=rule), placed, rule)


@few
@given(rows)
def test_only_different_readings_of_one_series_at_one_time_are_an_error(placed):
    cells = cells_of(placed)
    assume(cells)
    conflicts = any(len(set(seen)) > 1 for steps in cells.values() for seen in steps.values())

    if conflicts:
        assert failure(table(placed), freq="1h").code == "duplicate-time"
    else:
        assert_placed(read(table(placed), freq="1h"), placed, "last")


def test_the_row_of_a_conflict_is_one_of_its_rows():
    placed = [("a", 0, 1.0), ("b", 0, 5.0), ("a", 1, 2.0), ("b", 1, 6.0), ("b", 0, 7.0)]

    error = failure(table(placed))

    assert error.location.line in (2, 5)


def test_a_missing_reading_never_replaces_one_that_is_there():
    placed = [("a", 0, 1.0), ("a", 1, 2.0), ("a", 1, NAN), ("a", 2, 3.0)]

    assert read(table(placed)).panel.target.tolist() == [1, 2, 3]


def test_an_hour_that_a_clock_went_through_twice_is_accepted_with_a_warning():
    steps = [*range(12), *range(8, 20)]
    placed = [("a", step, float(i)) for i, step in enumerate(steps)]

    result = read(table(placed, HOUR_US // 4))

    assert result.warnings["clock-set-back"].count == 4
    assert result.panel.target.tolist() == [*range(8), *range(12, 24)]


@pytest.mark.parametrize("back", [1, 2, 3, 5, 8])
def test_a_clock_that_was_set_back_by_anything_else_is_an_error(back):
    steps = [*range(12), *range(12 - back, 20)]
    placed = [("a", step, float(i)) for i, step in enumerate(steps)]

    assert failure(table(placed, HOUR_US // 4)).code == "duplicate-time"


def test_a_wide_table_is_trimmed_to_where_any_sensor_reads(tmp_path):
    cells = [",", "1,", "2,5", ",", ",6", ","]

    panel = read(write(tmp_path / "x.csv", "ts,a,b", *hourly(*cells))).panel

    assert panel.start.tolist() == [START_US + HOUR_US] * 2
    np.testing.assert_array_equal(panel.of(0), [1, 2, NAN, NAN])
    np.testing.assert_array_equal(panel.of(1), [NAN, 5, NAN, 6])


def test_a_series_of_a_long_table_without_readings_is_left_out_with_a_warning():
    placed = [(name, step, 1.0 if name != "b" else NAN) for name in "abc" for step in range(3)]

    result = read(table(placed))

    assert result.panel.names == ("a", "c")
    assert result.warnings["empty-series"].count == 1
    assert "b" in result.warnings["empty-series"].message


def test_readings_that_are_all_missing_are_an_error():
    error = failure(table([("a", step, NAN) for step in range(3)]))

    assert (type(error), error.exit_code, error.code) == (DataError, 4, "no-readings")


def test_readings_of_the_wide_columns_stay_apart(tmp_path):
    lines = hourly(*(f"{i},{10 * i},{100 * i}" for i in range(5)))

    panel = read(write(tmp_path / "x.csv", "ts,a,b,c", *lines)).panel

    for i, factor in enumerate((1, 10, 100)):
        assert panel.of(i).tolist() == [factor * t for t in range(5)]


def test_what_is_read_in_many_batches_is_placed_like_one():
    n = 140_000
    stamps = START_US + np.arange(n) * 60_000_000
    order = np.random.default_rng(0).permutation(n)
    one = pa.table({"ts": pa.array(stamps.view("datetime64[us]")), "v": np.arange(n, dtype="f4")})

    panel = read(one.take(order)).panel

    np.testing.assert_array_equal(panel.target, np.arange(n))


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_clock_that_was_set_back_is_noticed_in_any_order_of_the_series(is_sorted):
    hours = pd.date_range("2024-10-26", periods=48, freq="1h", tz="Europe/Vienna")
    rows = [(str(t.tz_localize(None)), name, n) for n, t in enumerate(hours) for name in "ab"]
    frame = pd.DataFrame(rows, columns=["time", "id", "v"]).astype({"v": float})

    result = read(frame.sort_values("id", kind="stable") if is_sorted else frame)

    assert result.warnings["clock-set-back"].count == 2
