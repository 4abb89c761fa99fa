"""The ten commonest bad inputs: what each one gets, and that the fix which is offered works."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, NotEnoughDataError
from rnnforecast.sources.source import open_source
from rnnforecast.tables.match import match_schema
from tests.data.tables import failure, hourly, part, pasted, read, write

HEADER = "timestamp,temp"


def test_an_empty_file_is_a_data_error(tmp_path):
    path = write(tmp_path / "empty.csv")

    error = failure(path)

    assert (type(error), error.exit_code, error.code) == (DataError, 4, "empty")
    assert error.location.file == str(path)
    assert error.advice


def test_a_file_of_blank_lines_is_empty(tmp_path):
    assert failure(write(tmp_path / "blank.csv", "", "  ", "")).code == "empty"


def test_a_header_without_rows_is_a_data_error(tmp_path):
    error = failure(write(tmp_path / "head.csv", HEADER))

    assert (type(error), error.exit_code, error.code) == (DataError, 4, "header-only")
    assert (error.location.line, error.location.text) == (1, HEADER)


def test_one_row_is_not_enough(tmp_path):
    error = failure(write(tmp_path / "one.csv", HEADER, *hourly(1)))

    assert (type(error), error.exit_code) == (NotEnoughDataError, 5)
    assert error.message.startswith("1 row is not enough")
    assert "lookback + horizon" in error.message


def test_rows_of_one_moment_are_not_enough(tmp_path):
    error = failure(write(tmp_path / "same.csv", HEADER, *hourly(1), *hourly(1)))

    assert error.exit_code == 5
    assert "2 rows" in error.message


def test_without_a_time_column_the_columns_are_listed(tmp_path):
    error = failure(write(tmp_path / "plain.csv", "flow,level", "1,2", "3,4"))

    assert (type(error), error.code) == (DataError, "no-time-column")
    assert not error.proposals
    assert "'flow'" in error.advice
    assert "'level'" in error.advice


def test_without_a_time_column_the_options_for_another_format_are_named(tmp_path):
    lines = [f"S10,2024.03.{day:02} 00-30-00,{day}" for day in range(1, 20)]
    path = write(tmp_path / "x.csv", "sensor,at,flow", *lines)

    advice = failure(path).advice

    assert "if 'at' is the time, such as '2024.03.01 00-30-00'" in advice
    assert "--time and --time-format" in advice
    options = {"time": "at", "time_format": "%Y.%m.%d %H-%M-%S"}
    assert read(path, target=("flow",), **options).panel.lengths[0] == 19


def test_a_column_of_names_is_not_offered_as_the_time(tmp_path):
    lines = [f"S{i},{i}.5" for i in range(4)]

    assert "--time" not in failure(write(tmp_path / "x.csv", "sensor,flow", *lines)).advice


def test_a_numeric_time_column_of_any_name_works_once_it_is_named(tmp_path):
    lines = [f"{1_704_067_200 + 600 * i},{i}" for i in range(4)]
    path = write(tmp_path / "epoch.csv", "clock,flow", *lines)
    assert failure(path).code == "no-time-column"

    panel = read(path, time="clock").panel

    assert panel.names == ("flow",)
    assert panel.step_us == 600_000_000


def test_text_in_a_target_names_its_lines_and_offers_a_fix_that_works(tmp_path):
    path = write(tmp_path / "text.csv", HEADER, *hourly(1, 2, "ERR", 4, "ERR", 6, "ERR"))

    error = failure(path)

    assert (type(error), error.exit_code, error.code) == (DataError, 4, "not-a-number")
    assert error.message == "3 values in column 'temp' are not a number"
    place = error.location
    assert (place.file, place.line, place.column, place.column_number) == (str(path), 4, "temp", 2)
    assert (place.text, place.token) == ("2024-01-01 02:00,ERR", "ERR")
    assert place.also_lines == (6, 8)
    assert pasted(error.advice) == {"na_values": ("ERR",)}
    fixed = read(path, **pasted(error.advice)).panel
    np.testing.assert_array_equal(fixed.target, [1, 2, np.nan, 4, np.nan, 6])


@pytest.mark.parametrize("token", ["<1.0", "out of range", "it's broken", "$HOME", " ", "*"])
def test_a_token_is_quoted_for_the_shell_in_its_fix(tmp_path, token):
    path = write(tmp_path / "token.csv", HEADER, *hourly(1, 2, 3, token, 5))

    hint = failure(path).advice

    assert pasted(hint) == {"na_values": (token,)}
    assert read(path, **pasted(hint)).panel.lengths[0] == 5


def test_a_duplicate_with_the_same_reading_is_dropped(tmp_path):
    twice = write(tmp_path / "twice.csv", HEADER, *hourly(1, 2, 3), *hourly(3, 4, start=2))
    once = write(tmp_path / "once.csv", HEADER, *hourly(1, 2, 3, 4))

    assert read(twice).panel.fingerprint() == read(once).panel.fingerprint()


def test_a_duplicate_with_another_reading_is_an_error_with_its_line(tmp_path):
    path = write(tmp_path / "twice.csv", HEADER, *hourly(1, 2, 3), *hourly(30, 4, start=2))

    error = failure(path)

    assert (type(error), error.exit_code, error.code) == (DataError, 4, "duplicate-time")
    assert error.location.line in (4, 5)
    assert "02:00" in error.location.text
    assert "--on-duplicate last" in error.advice
    assert "--on-duplicate mean" in error.advice


@pytest.mark.parametrize(("rule", "reading"), [("last", 30.0), ("mean", 16.5)])
def test_on_duplicate_says_which_reading_counts(tmp_path, rule, reading):
    path = write(tmp_path / "twice.csv", HEADER, *hourly(1, 2, 3), *hourly(30, 4, start=2))

    panel = read(path, on_duplicate=rule).panel

    np.testing.assert_array_equal(panel.target, [1, 2, reading, 4])


def test_unsorted_rows_give_the_same_panel_as_sorted_ones(tmp_path):
    lines = hourly(*range(30))
    order = np.random.default_rng(0).permutation(30)
    shuffled = write(tmp_path / "shuffled.csv", HEADER, *(lines[i] for i in order))

    expected = read(write(tmp_path / "sorted.csv", HEADER, *lines)).panel

    assert read(shuffled).panel.fingerprint() == expected.fingerprint()


def test_a_gap_becomes_missing_rows_that_are_counted(tmp_path):
    lines = [*hourly(0, 1, 2), *hourly(6, "", 8, start=6)]

    result = read(write(tmp_path / "gap.csv", HEADER, *lines))

    expected = [0, 1, 2, np.nan, np.nan, np.nan, 6, np.nan, 8]
    np.testing.assert_array_equal(result.panel.target, expected)
    assert "4 of 9 readings are missing" in result.notes
    assert "longest gap 3 h" in result.notes


def test_whole_data_say_nothing_of_gaps(tmp_path):
    assert "missing" not in read(write(tmp_path / "x.csv", HEADER, *hourly(1, 2, 3))).notes


def test_semicolons_with_a_decimal_comma_are_recognised(tmp_path):
    lines = hourly("21,4;7", "-0,5;8", "3;9", ";10", sep=";")

    result = read(write(tmp_path / "european.csv", "zeit;temp;n", *lines))

    assert result.panel.names == ("temp", "n")
    np.testing.assert_array_equal(result.panel.of(0), np.float32([21.4, -0.5, 3, np.nan]))
    np.testing.assert_array_equal(result.panel.of(1), [7, 8, 9, 10])


def test_a_column_that_the_model_needs_is_missed_with_its_nearest_names(tmp_path):
    trained = read(write(tmp_path / "a.csv", "timestamp,Temperature,flow", *hourly(*["1,2"] * 3)))
    later = write(tmp_path / "b.csv", "timestamp,temperatur ,flow", *hourly(*["1,2"] * 3))

    with pytest.raises(DataError) as caught:
        match_schema(open_source(later, DataConfig()), trained.schema, DataConfig())

    assert (caught.value.exit_code, caught.value.code) == (4, "missing-column")
    assert "'Temperature'" in caught.value.message
    assert "'temperatur '" in caught.value.hint
    assert "flow" not in caught.value.hint


@pytest.mark.parametrize("cell", ["-200", "-200.0", "-2e2"])
def test_a_number_that_means_missing_is_missing_however_it_is_written(tmp_path, cell):
    path = write(tmp_path / "x.csv", HEADER, *hourly(1, cell, 3))
    panel = read(path, na_values=("-200",)).panel
    np.testing.assert_array_equal(panel.target, [1, np.nan, 3])


def test_a_number_that_means_missing_is_missing_in_a_typed_table():
    table = part(0, n=4)
    panel = read(table, na_values=("2",)).panel
    np.testing.assert_array_equal(panel.target, [0, 1, np.nan, 3])


@pytest.mark.parametrize("text", ["1e400", "-1e400"])
def test_numbers_that_no_double_holds_are_no_times(tmp_path, text):
    rows = [f"{text if day % 2 else f'2024-01-{day:02}'},{day}" for day in range(1, 29)]
    assert failure(write(tmp_path / "x.csv", "time,v", *rows)).exit_code == 4


@pytest.mark.parametrize("block", [None, 2000])
def test_empty_rows_at_the_end_are_left_out_and_others_are_not(
    block: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spreadsheets write rows of nothing but separators below a table."""
    if block is not None:
        monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", block)
    stamps = pd.date_range("2024-01-01", periods=201).strftime("%Y-%m-%d")
    lines = [f"{stamp},{row}.5,a" for row, stamp in enumerate(stamps)]
    empty = [",,"] * 1500

    path = tmp_path / "table.csv"
    result = read(write(path, "time,v,id", *lines, *empty))
    error = failure(write(path, "time,v,id", *lines[:-1], *empty, lines[-1]))

    assert result.panel.n_readings == 201
    assert "1500 rows without any value" in result.notes
    assert error.location.line == 202
