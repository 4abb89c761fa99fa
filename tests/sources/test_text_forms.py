"""How text is written: marks between thousands, comments, headers, rows that do not fit."""

from __future__ import annotations

import gzip
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import UsageError
from rnnforecast.sources import files
from rnnforecast.sources.csv import CsvFile
from rnnforecast.sources.parquet import ParquetSource
from tests.builders import HOUR_US
from tests.data.tables import failure, hourly, pasted, read, write


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.234,5", "12.345.678", "21,4", "0"], [1234.5, 12345678, 21.4, 0]),
        (["1 234.5", "12 345 678", "21.4", "0"], [1234.5, 12345678, 21.4, 0]),
        (["1'234.5", "12'345'678", "21.4", "0"], [1234.5, 12345678, 21.4, 0]),
        (["1,234.5", "12,345,678", "21.4", "-1,000"], [1234.5, 12345678, 21.4, -1000]),
    ],
)
def test_marks_between_thousands_are_asked_for_and_the_fix_works(tmp_path, cells, expected):
    path = write(tmp_path / "x.csv", "time;v", *hourly(*cells, sep=";"))

    error = failure(path)

    assert (error.code, error.exit_code) == ("thousands", 4)
    assert "1234.5" in error.advice
    assert read(path, **pasted(error.advice)).panel.target.tolist() == pytest.approx(expected)


def test_a_group_of_other_than_three_digits_is_no_number(tmp_path):
    path = write(tmp_path / "x.csv", "time;v", *hourly("1.234", "1.5", "2.345", "3.456", sep=";"))
    error = failure(path, thousands=".", decimal=",")
    assert (error.code, error.location.line, error.location.token) == ("not-a-number", 3, "1.5")


def test_missing_cells_stay_missing_beside_marks_between_thousands(tmp_path):
    path = write(tmp_path / "x.csv", "time;v", *hourly("1.234,0", "", "NaN", "5", sep=";"))
    table = read(path, thousands=".", decimal=",").panel.target
    assert table[[0, 3]].tolist() == [1234, 5]
    assert (table[1:3] != table[1:3]).all()


def test_the_same_mark_cannot_be_both() -> None:
    with pytest.raises(UsageError):
        DataConfig(thousands=".")


def test_a_decimal_comma_is_said(tmp_path):
    path = write(tmp_path / "x.csv", "time;v", *hourly("1,5", "2,5", sep=";"))
    result = read(path)
    assert result.panel.target.tolist() == [1.5, 2.5]
    assert "comma" in result.warnings["decimal-comma"].message
    assert "decimal-comma" not in read(path, decimal=",").warnings


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_comments_are_left_out_wherever_they_stand(tmp_path, end):
    lines = ["# logger 7", "time,v", "# units", *hourly(1, 2), "#,", *hourly(3, start=2), "# end"]
    path = write(tmp_path / "x.csv", *lines, end=end)
    assert read(path, comment="#").panel.target.tolist() == [1, 2, 3]


def test_lines_are_counted_past_comments(tmp_path):
    lines = ["# logger 7", "time,v", *hourly(1), "# a,b", *hourly("ERR", 3, start=1)]
    error = failure(write(tmp_path / "x.csv", *lines), comment="#")
    assert (error.location.line, error.location.token) == (5, "ERR")


def test_comments_may_end_in_any_block(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", 64)
    lines = [x for i in range(40) for x in (f"# {'x' * (i * 7 % 90)}", *hourly(i, start=i))]
    path = write(tmp_path / "x.csv", "time,v", *lines)
    assert read(path, comment="#").panel.target.tolist() == list(range(40))


def test_a_file_without_a_header_asks_for_names_and_the_fix_works(tmp_path):
    path = write(tmp_path / "x.csv", *hourly("1,5", "2,6", "3,7"))

    error = failure(path)

    assert (error.code, error.location.line) == ("no-header", 1)
    result = read(path, **pasted(error.advice))
    assert result.panel.names == ("sensor1", "sensor2")
    assert result.panel.of(0).tolist() == [1, 2, 3]


def test_names_must_be_as_many_as_the_fields(tmp_path):
    path = write(tmp_path / "x.csv", *hourly("1,5", "2,6", "3,7"))
    error = failure(path, no_header=True, columns=("time", "a"))
    assert error.code == "no-header"
    assert "2 names" in error.message and "3 fields" in error.message


@pytest.mark.parametrize(
    "units", [",°C,m3/h", "[-],[degC],[m3/h]", "datetime,degC,l/s", "string,float,float"]
)
def test_a_line_of_units_under_the_header_is_named_and_the_fix_works(tmp_path, units):
    path = write(tmp_path / "x.csv", "time,temp,flow", units, *hourly("1,5", "2,6", "3,7"))

    error = failure(path)

    assert (error.code, error.location.line) == ("units-row", 2)
    options = pasted(error.advice)
    assert options == {"skip_rows": "1"}
    result = read(path, skip_rows=1)
    assert result.panel.names == ("temp", "flow")
    assert result.panel.of(1).tolist() == [5, 6, 7]


def test_two_lines_of_names_are_no_units(tmp_path):
    path = write(tmp_path / "x.csv", "Time,Plant,Basin", "time,temp,flow", *hourly("1,5", "2,6"))
    assert read(path, skip_rows=1).panel.names == ("temp", "flow")


def test_a_separator_at_the_end_of_every_row_is_no_column(tmp_path):
    path = write(tmp_path / "x.csv", "time,v", *hourly("1,", "2,", "3,"))
    assert read(path).panel.names == ("v",)


@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize("at_end_of_header", [False, True])
def test_a_separator_at_the_end_of_some_rows_is_no_cell(tmp_path, sep, at_end_of_header):
    cells = [f'"{i}{sep}x"{sep}{i}.5{sep * (i % 3 == 0)}{" " * (i % 2)}' for i in range(1, 40)]
    header = f"time{sep}note{sep}v{sep * at_end_of_header}"
    path = write(tmp_path / "x.csv", header, *hourly(*cells, sep=sep))

    for options in ({}, {"on_bad_rows": "skip"}):
        result = read(path, **options)
        assert result.panel.names == ("v",)
        assert result.panel.of(0).tolist() == [i + 0.5 for i in range(1, 40)]
        assert "bad-rows" not in result.warnings


def test_a_cell_beside_the_header_makes_a_bad_row(tmp_path):
    rows = hourly(*(f"{i},{2 * i}{',' * (i % 2)}" for i in range(40)))
    rows[6] += ",7"
    path = write(tmp_path / "x.csv", "time,a,b", *rows)

    assert (failure(path).code, failure(path).location.line) == ("ragged-row", 8)
    result = read(path, on_bad_rows="skip", max_bad_rows="5%")
    assert (result.warnings["bad-rows"].count, result.panel.lengths[0]) == (1, 40)
    assert np.isnan(result.panel.of(0)[6])


RAGGED = ["time,a,b", *hourly(*(f"{i},{2 * i}" for i in range(40)))]


def test_rows_that_do_not_fit_can_be_skipped_and_are_kept_elsewhere(tmp_path):
    lines = RAGGED.copy()
    lines[7] = "2024-01-01 06:00,1"
    lines[9] = "2024-01-01 08:00,1,2,3"
    path = write(tmp_path / "x.csv", *lines)
    assert failure(path).code == "ragged-row"

    many = failure(path, on_bad_rows="skip", rejects=str(tmp_path / "bad.csv"))
    skipping = {"on_bad_rows": "skip", "rejects": str(tmp_path / "bad.csv"), "target": ("a", "b")}
    result = read(path, max_bad_rows="5%", **skipping)

    assert (many.code, many.location.line, many.location.also_lines) == ("bad-rows", 8, (10,))
    assert read(path, on_bad_rows="skip", **pasted(many.advice)).panel.lengths[0] == 40
    assert (tmp_path / "bad.csv").read_text().splitlines() == [lines[7], lines[9]]
    kept = result.panel.of(0)
    assert [i for i in range(40) if kept[i] != i] == [6, 8]
    assert (result.warnings["bad-rows"].count, "line 8" in result.warnings["bad-rows"].message) == (
        2,
        True,
    )


def test_rows_that_are_no_text_can_be_skipped(tmp_path):
    lines = [line.encode() for line in RAGGED]
    lines[7] = b"2024-01-01 06:00,\xb4,1,2"
    path, rejects = tmp_path / "x.csv", tmp_path / "bad.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    skipping = {"on_bad_rows": "skip", "max_bad_rows": "1"}

    result = read(path, rejects=str(rejects), **skipping)

    assert np.isnan(result.panel.of(0)[6]) and result.panel.lengths[0] == 40
    assert rejects.read_text() == "2024-01-01 06:00,\ufffd,1,2\n"
    lines[9] = b"2024-01-01 08:00,\xb4,1"  # a reading that is none, as before
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    assert failure(path, **skipping).location.line == 10


def test_names_that_cannot_be_decoded_are_an_error_where_rows_are_skipped(tmp_path):
    lines = [f"{line},north".encode() for line in hourly(*range(300))]
    path = tmp_path / "x.csv"
    for name, code in ((b"Au\xdfen", "unreadable"), ("Au\ufffden".encode(), None)):
        lines[200] = hourly(*range(201))[200].encode() + b"," + name
        path.write_bytes(b"\xef\xbb\xbftime,v,site\n" + b"\n".join(lines))
        if code is None:
            assert read(path, series="site", on_bad_rows="skip").panel.n_series == 2
        else:
            error = failure(path, series="site", on_bad_rows="skip")
            assert (error.code, error.location.line) == (code, 202)


def test_lines_are_counted_past_rows_that_are_skipped(tmp_path):
    lines = RAGGED.copy()
    lines[7], lines[20] = "2024-01-01 06:00,1", "2024-01-01 19:00,1,1e99"
    path = write(tmp_path / "x.csv", *lines)
    error = failure(path, on_bad_rows="skip", max_bad_rows="5")
    assert (error.code, error.location.line) == ("infinite", 21)


def test_a_row_that_is_cut_off_inside_of_quotes_says_so(tmp_path):
    path = write(tmp_path / "x.csv", "time,a,b", *hourly("1,2", "3,4"), '2024-01-01 02:00,"5,6')
    error = failure(path)
    assert (error.code, error.location.line) == ("unclosed-quote", 4)


@pytest.mark.parametrize(("text", "most"), [("0%", 0), ("0.0%", 0), ("0", 0), ("0.1%", 1)])
def test_a_share_of_nothing_lets_no_bad_row_through(tmp_path, text, most):
    path = write(tmp_path / "x.csv", *RAGGED[:7], "2024-01-01 06:00,1", *RAGGED[8:])
    config = {"on_bad_rows": "skip", "max_bad_rows": text}

    assert DataConfig(**config).bad_row_limit(41) == most
    if most:
        assert "bad-rows" in read(path, **config).warnings
    else:
        assert failure(path, **config).code == "bad-rows"


@pytest.mark.parametrize("text", ["x", "-1", "101%", "1.5.2", "", "9" * 400, "9" * 400 + "%"])
def test_a_share_of_bad_rows_that_cannot_be_meant_is_a_usage_error(text):
    with pytest.raises(UsageError):
        DataConfig(on_bad_rows="skip", max_bad_rows=text)


@pytest.mark.parametrize("text", ["1900", "2200:1900", "a:b", "0000:2000"])
def test_years_that_cannot_be_meant_are_a_usage_error(text):
    with pytest.raises(UsageError):
        DataConfig(time_range=text)


def test_other_years_can_be_said(tmp_path):
    path = write(tmp_path / "x.csv", "time,v", "1850-01-01,1", "1850-01-02,2")
    assert failure(path).code == "time-range"
    assert read(path, time_range="1800:1900").panel.target.tolist() == [1, 2]


def test_a_packed_file_that_unpacks_to_more_than_may_be_is_refused_early(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    row = b"2024-01-01 00:00,1\n"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"time,v\n")
        for _ in range(200):
            file.write(row * 10_000)
    assert path.stat().st_size < 1_000_000

    error = failure(path, max_input_bytes="20M")

    assert (error.code, error.exit_code) == ("input-bytes", 4)
    assert read(path, max_input_bytes="100M", freq="1h", agg="mean").panel.lengths[0] == 1


def test_a_table_that_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "x.csv", "time,v", *hourly(*range(700)))
    monkeypatch.setattr(files, "_BASE_BYTES", 0)
    error = failure(path, max_memory="10K")
    assert (error.code, error.exit_code) == ("memory", 4)
    assert "700" in error.message or "about" in error.message
    assert read(path, **pasted(str(error.proposals[0]))).panel.lengths[0] == 700


def unread(*_: object) -> NoReturn:
    raise AssertionError("it was read")


def test_a_packed_table_that_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress("\n".join(["time,v", *hourly(*range(700))]).encode()))
    monkeypatch.setattr(files, "_BASE_BYTES", 0)
    monkeypatch.setattr(CsvFile, "batches", unread)
    assert failure(path, max_memory="10K").code == "memory"


def test_a_packed_table_that_hides_its_size_is_refused_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "x.csv.gz"
    whole = "\n".join(["time,v", *hourly(*range(700)), ""]).encode()
    path.write_bytes(gzip.compress(whole) + gzip.compress(b"2024-02-01 00:00,1\n"))
    monkeypatch.setattr(files, "_BASE_BYTES", 0)
    assert failure(path, max_memory="14K").code == "memory"
    assert read(path, max_memory="20K").panel.lengths[0] == 745


def test_a_parquet_file_that_does_not_fit_is_refused_by_its_footer(tmp_path, monkeypatch):
    n = 30_000_000
    table = pa.table({"time": pa.array(np.zeros(n, "datetime64[us]")), "v": np.zeros(n)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=n)
    assert (tmp_path / "x.parquet").stat().st_size < 1_000_000
    monkeypatch.setattr(ParquetSource, "batches", unread)

    error = failure(tmp_path / "x.parquet", max_memory="1G")

    assert (error.code, error.exit_code) == ("memory", 4)
    assert str(n) in error.message


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("4G", 4 << 30), ("500M", 500 << 20), ("1.5 KiB", 1536), ("77", 77)]
)
def test_sizes_are_read_as_people_write_them(text, n_bytes):
    assert DataConfig(max_memory=text).memory_limit == n_bytes


@pytest.mark.parametrize("text", ["", "0", "-1G", "much", "4X", "9" * 400, "9" * 400 + "G"])
@pytest.mark.parametrize("name", ["max_memory", "max_input_bytes"])
def test_a_size_that_cannot_be_meant_is_a_usage_error(name, text):
    with pytest.raises(UsageError):
        DataConfig(**{name: text})


@pytest.mark.parametrize("text", ["-1", "0", "soon", "-3h", "9" * 400])
def test_a_gap_that_cannot_be_meant_is_a_usage_error_before_anything_is_read(text):
    with pytest.raises(UsageError):
        DataConfig(max_gap=text)


@pytest.mark.parametrize("text", ["3", "3h"])
def test_a_gap_is_in_steps_or_a_duration(text):
    assert DataConfig(max_gap=text).max_gap_steps(HOUR_US) == 3


@pytest.mark.parametrize("n", [600, 60_000])
def test_a_packed_file_that_is_cut_off_names_its_last_whole_line(tmp_path, n):
    readings = np.random.default_rng(0).random(n)
    rows = [f"{stamp},{reading}" for stamp, reading in enumerate(readings, 1_700_000_000)]
    packed = gzip.compress("\n".join(["time,temp", *rows]).encode())
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    error = failure(path)

    assert error.code == "truncated"
    assert error.location.line == pytest.approx(n / 2, rel=0.05)
    assert f"the last complete line is {error.location.line}" in error.message


def test_lines_with_decimal_commas_between_commas_are_not_to_be_skipped(tmp_path):
    numbers = [f"{15 + i % 9},{i % 10}" if i % 10 else "15" for i in range(200)]
    error = failure(write(tmp_path / "x.csv", "time,v", *hourly(*numbers)))
    assert (error.code, error.proposals) == ("ragged-row", ())
    assert "decimal mark" in str(error.hint)

    few = ["1,5" if i == 30 else str(i % 9) for i in range(200)]
    error = failure(write(tmp_path / "y.csv", "time,v", *hourly(*few)))
    assert [proposal.options for proposal in error.proposals] == [("--on-bad-rows", "skip")]


@pytest.mark.parametrize("mark", ["s", " e", "*", "²", "(1)", " 1)", " 2"])
def test_a_mark_behind_some_numbers_is_named(tmp_path, mark):
    cells = [f"{20 + i % 9}.{i % 10}" + mark * (i % 30 == 7) for i in range(900)]
    error = failure(write(tmp_path / "x.csv", "time,v", *hourly(*cells)))
    assert error.code == "not-a-number"
    assert f"remove the suffix {mark.strip()!r}" in str(error.hint)

    cells[8] = "12:30"
    error = failure(write(tmp_path / "x.csv", "time,v", *hourly(*cells)))
    assert error.hint is None
