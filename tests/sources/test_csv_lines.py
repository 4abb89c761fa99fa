"""Rows and lines of a CSV file: the physical line of what is wrong, and files that are damaged."""

import gzip

import numpy as np
import pytest

from rnnforecast.errors import DataError
from tests.data.tables import failure, hourly, read, write

HEADER = "timestamp,temp"
LINES = [HEADER, *hourly(1, 2, 3, 4)]
WRONG = [HEADER, *hourly(1, 2, 3, "ERR", 5)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_reads_alike_and_counts_lines_alike(tmp_path, end):
    expected = read(write(tmp_path / "a.csv", *LINES)).panel.fingerprint()

    assert read(write(tmp_path / "b.csv", *LINES, end=end)).panel.fingerprint() == expected
    assert failure(write(tmp_path / "c.csv", *WRONG, end=end)).location.line == 5


def test_a_last_line_without_an_end_is_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n".join(LINES))

    assert read(path).panel.lengths[0] == 4


def test_trailing_blank_lines_do_not_count(tmp_path):
    assert read(write(tmp_path / "x.csv", *LINES, "", "", "")).panel.lengths[0] == 4


def test_a_blank_line_is_counted_as_a_line_but_not_as_a_row(tmp_path):
    lines = [*WRONG[:3], "", "", *WRONG[3:]]

    place = failure(write(tmp_path / "x.csv", *lines)).location

    assert (place.line, place.text, place.token) == (7, WRONG[4], "ERR")


def test_quoted_line_breaks_do_not_shift_line_numbers(tmp_path):
    lines = [HEADER + ",note", '2024-01-01 00:00,1,"a', "b", 'c"', *hourly("2,x", "ERR,y", "4,z")]

    place = failure(write(tmp_path / "x.csv", *lines), target=("temp",)).location

    assert (place.line, place.token) == (6, "ERR")
    assert place.text == "2024-01-01 01:00,ERR,y"


def test_a_header_may_hold_a_line_break(tmp_path):
    lines = ['timestamp,"temp', '°C"', *hourly(1, 2, "ERR", 4)]
    path = write(tmp_path / "x.csv", *lines)

    assert failure(path).location.line == 5
    assert read(path, na_values=("ERR",)).panel.names == ("temp\n°C",)


def test_lines_end_only_where_csv_says_so(tmp_path):
    lines = ["timestamp,id,v", *hourly("a\x85b,1", "a\x85b,2", "a\x85b,3")]

    assert read(write(tmp_path / "x.csv", *lines)).panel.names == ("a\x85b",)


@pytest.mark.parametrize("line", ["2024-01-01 09:00,1,2", "2024-01-01 09:00", "   "])
def test_a_ragged_row_is_an_error_with_its_line(tmp_path, line):
    error = failure(write(tmp_path / "x.csv", *LINES, line))

    assert (type(error), error.code) == (DataError, "ragged-row")
    assert (error.location.line, error.location.text) == (6, line)
    assert "the header has 2" in error.message


def test_lines_before_the_header_can_be_skipped(tmp_path):
    lines = ['# "unit 7', "", "# Vienna", "timestamp,temp", *hourly("ERR", 2, 3, 4)]
    path = write(tmp_path / "x.csv", *lines)

    error = failure(path, skip_rows=3)

    assert (error.location.line, error.location.token) == (5, "ERR")
    assert read(path, skip_rows=3, na_values=("ERR",)).panel.target.tolist() == [2, 3, 4]


def test_a_gzip_file_reads_like_what_is_in_it(tmp_path):
    plain = write(tmp_path / "x.csv", *LINES)
    packed = tmp_path / "x.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    assert read(packed).panel.fingerprint() == read(plain).panel.fingerprint()
    packed.write_bytes(gzip.compress("\n".join(WRONG).encode()))
    assert failure(packed).location.line == 5


def long_file(n: int) -> bytes:
    """Make a CSV file that is longer than its first look."""
    stamps = np.datetime64("2000-01-01") + np.arange(n).astype("timedelta64[m]")
    readings = np.random.default_rng(0).standard_normal(n)
    rows = (f"{s},{v}\n" for s, v in zip(stamps, readings, strict=True))
    return (HEADER + "\n" + "".join(rows)).encode()


@pytest.mark.parametrize("n", [20, 12_000])
def test_a_gzip_file_that_is_cut_off_is_an_error(tmp_path, n):
    packed = gzip.compress(long_file(n))
    path = tmp_path / "x.csv.gz"
    path.write_bytes(packed[: len(packed) * 3 // 4])

    error = failure(path)

    assert (type(error), error.code) == (DataError, "truncated")


def test_a_damaged_gzip_file_is_an_error(tmp_path):
    packed = bytearray(gzip.compress(long_file(12_000)))
    packed[-4000:-3000] = b"\xff" * 1000
    path = tmp_path / "x.csv.gz"
    path.write_bytes(packed)

    assert failure(path).code == "truncated"


def test_what_is_wrong_far_down_is_found(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(long_file(12_000) + b"2000-01-09 08:00,ERR\n")

    assert failure(path).location.line == 12_002


def test_a_quote_that_is_never_closed_is_an_error(tmp_path):
    lines = [HEADER + ",note", '2024-01-01 00:00,1,"a', *["x" * 1000] * 200]

    error = failure(write(tmp_path / "x.csv", *lines))

    assert (type(error), error.code) == (DataError, "long-field")
    assert "quote" in error.advice


@pytest.mark.parametrize("rest", [["2024-01-01 05:00,6,b", "2024-01-01 06:00,7,c"], []])
def test_rows_are_never_lost_in_a_quote_that_is_not_closed(tmp_path, rest):
    lines = [HEADER + ",note", *hourly("1,a", '2,"x'), 'y"', *hourly("3,z", "4,z", start=2)]
    path = write(tmp_path / "x.csv", "# a preamble", *lines, '2024-01-01 04:00,5,"a', *rest)

    error = failure(path, skip_rows=1)

    assert (type(error), error.code, error.location.line) == (DataError, "unclosed-quote", 8)


NOTED = [line + "," for line in hourly(*range(30))]


@pytest.mark.parametrize("n_rows", [1, 2, 9])
@pytest.mark.parametrize("odd", ["", '1,5" pipe'])
def test_a_quote_that_another_row_closes_is_an_error(tmp_path, n_rows, odd):
    lines = ["timestamp,temp,note", *NOTED]
    lines[12] += '"start'
    lines[12 + n_rows] += 'end"'
    lines[25] = lines[25].partition(",")[0] + "," + odd if odd else lines[25]

    error = failure(write(tmp_path / "x.csv", *lines))

    assert (error.code, error.location.line) == ("unclosed-quote", 13)
    assert f"line 13 to {13 + n_rows} " in error.message


def test_a_quote_in_the_middle_of_a_row_swallows_no_rows(tmp_path):
    lines = ["timestamp,note,temp", *(line.replace(",", ",ok,") for line in hourly(*range(30)))]
    lines[12] = lines[12].replace("ok", '"start')
    lines[15] = lines[15].replace("ok", 'end"')

    assert failure(write(tmp_path / "x.csv", *lines)).location.line == 13


@pytest.mark.parametrize(
    "note",
    ["a\nb, c, d", "checked, 5, ok\n2024-01-01 03:00", "filter\n2024-01-01, new, large\n1, 2, 3"],
)
def test_a_note_of_several_lines_is_no_row(tmp_path, note):
    lines = ["timestamp,temp,note", *(f'{line}"{note}"' for line in NOTED)]

    assert read(write(tmp_path / "x.csv", *lines)).panel.lengths[0] == 30


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_last_line_of_a_note_is_no_total(tmp_path, quote):
    rows = (line.split(",") for line in hourly(*range(30)))
    lines = [f'{quote}{time}{quote},"one\ntwo, three",{value}' for time, value in rows]
    totals = "Total,,435"

    for last in ((), (totals,)):
        panel = read(write(tmp_path / "x.csv", "time,note,temp", *lines, *last)).panel
        assert panel.lengths[0] == 30


def test_a_lone_quote_inside_of_a_field_is_a_sign_like_others(tmp_path):
    lines = [HEADER + ",note", *hourly('1,5" pipe', '2,"a ""b"""', "3,c")]

    assert read(write(tmp_path / "x.csv", *lines)).panel.target.tolist() == [1, 2, 3]


def test_a_very_wide_table_is_read(tmp_path):
    n, width = 3, 6_000
    header = "timestamp," + ",".join(f"a sensor with a rather long name {i}" for i in range(width))
    rows = hourly(*(",".join(str(row + i) for i in range(width)) for row in range(n)))

    panel = read(write(tmp_path / "wide.csv", header, *rows)).panel

    assert panel.n_series == width
    expected = np.arange(width)[:, None] + np.arange(n)
    np.testing.assert_array_equal(panel.target.reshape(width, n), expected)


SUMMED = [round(20 + (7 * i) % 11 + i % 10 / 10, 1) for i in range(30)]


@pytest.mark.parametrize("sensors", [1, 2])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_last_row_with_the_sum_of_all_above_is_a_total(tmp_path, sensors, decimal):
    values = [*SUMMED, round(sum(SUMMED), 1)]
    rows = [";".join([f"{value}".replace(".", decimal)] * sensors) for value in values]
    lines = [line.replace(",", ";", 1) for line in hourly(*rows)]
    path = write(tmp_path / "x.csv", "time;" + ";".join("ab"[:sensors]), *lines)

    result = read(path)

    assert result.panel.lengths[0] == 30
    assert lines[-1] in result.warnings["totals"].message


@pytest.mark.parametrize(
    "values",
    [
        [*SUMMED, round(sum(SUMMED), 1) + 0.2],
        [*SUMMED[:10], round(sum(SUMMED[:10]), 1)],
        [*[0] * 20, 5, *[0] * 9, 5],
        [*[1, -1] * 15, 3, 3],
        [f"{value}e-9" for value in [*SUMMED, SUMMED[0]]],
    ],
    ids=["not the sum", "few", "zeros", "negative", "tiny"],
)
def test_a_last_row_that_may_be_a_reading_stays(tmp_path, values):
    result = read(write(tmp_path / "x.csv", "time,flow", *hourly(*values)))

    assert result.panel.lengths[0] == len(values)
    assert "totals" not in result.warnings


def test_a_last_row_that_is_the_sum_of_one_of_two_sensors_stays(tmp_path):
    values = [*SUMMED, round(sum(SUMMED), 1)]
    rows = hourly(*(f"{value},{value % 7:.1f}" for value in values))

    assert read(write(tmp_path / "x.csv", "time,a,b", *rows)).panel.lengths[0] == 31
