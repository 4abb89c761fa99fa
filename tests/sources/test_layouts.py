"""Lines that are no rows: several headers, units, totals, comments; and columns between blanks."""

from __future__ import annotations

import pytest

from tests.data.tables import failure, hourly, pasted, read, write

HEADER = "time,a,b"
ROWS = hourly(*(f"{i % 7}.5,{i % 5}.25" for i in range(60)))
EXPECTED = [i % 7 + 0.5 for i in range(60)]


def values(path, **options):
    return read(path, **options).panel.of(0).tolist()


def fix(error):
    options = pasted(error.advice)
    return {name: int(x) if name == "skip_rows" else x for name, x in options.items()}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", [HEADER, '"time","a","b"'])
@pytest.mark.parametrize("block", [1 << 22, 300])
def test_a_header_that_comes_again_is_left_out_and_counted(
    tmp_path, monkeypatch, end, header, block
):
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", block)
    third = header if '"' in header else "\ufeff" + header  # as parts of UTF-8 with a mark begin
    lines = [header, *ROWS[:20], header, *ROWS[20:50], third, *ROWS[50:], header]
    result = read(write(tmp_path / "x.csv", *lines, end=end))
    assert result.panel.of(0).tolist() == EXPECTED
    assert result.warnings["repeated-header"].count == 3


def test_lines_are_counted_past_headers_that_come_again(tmp_path):
    lines = [HEADER, *ROWS[:20], HEADER, *ROWS[20:40], "2024-01-05 00:00,ERR,1"]
    error = failure(write(tmp_path / "x.csv", *lines))
    assert (error.location.line, error.location.token) == (43, "ERR")


def test_units_that_come_again_with_the_header_are_left_out(tmp_path):
    part = [HEADER, ",°C,%"]
    path = write(tmp_path / "x.csv", *part, *ROWS[:30], *part, *ROWS[30:])
    assert values(path, **fix(failure(path))) == EXPECTED


def test_titles_that_come_again_with_the_header_are_left_out(tmp_path):
    part = ["Logger 7", "north;south", HEADER]
    path = write(tmp_path / "x.csv", *part, *ROWS[:30], *part, *ROWS[30:])
    result = read(path, skip_rows=2)
    assert result.panel.of(0).tolist() == EXPECTED
    assert result.warnings["repeated-header"].count == 3


@pytest.mark.parametrize(
    "types", ["timestamp,float64,int64", "datetime,double,string", "20d,14n,10s"]
)
def test_types_below_the_names_are_asked_for_and_the_names_stay(tmp_path, types):
    path = write(tmp_path / "x.csv", HEADER, types, *ROWS)
    error = failure(path)
    assert (error.code, fix(error)) == ("units-row", {"skip_rows": 1})
    assert read(path, skip_rows=1).panel.names == ("a", "b")


def test_units_are_asked_for_where_a_column_has_no_name(tmp_path):
    rows = [row.replace(" ", ",").replace(":00,", ":00,000,", 1) for row in ROWS]
    error = failure(path := write(tmp_path / "x.csv", "Date,Time,,A,B", ",,,°C,m3/h", *rows))
    assert (error.code, fix(error)) == ("units-row", {"skip_rows": 1})
    result = read(path, skip_rows=1)
    assert (result.panel.names, result.panel.of(0).tolist()) == (("A", "B"), EXPECTED)


def test_titles_with_as_many_fields_as_rows_are_one_question_and_the_fix_works(tmp_path):
    titles = ["Plant 7,,", "exported,2024-01-05,", HEADER, "hh:mm,°C,m³/h"]
    error = failure(path := write(tmp_path / "x.csv", *titles, *ROWS))
    assert (error.code, fix(error)) == ("preamble", {"skip_rows": 3})
    assert values(path, skip_rows=3) == EXPECTED


def test_rows_that_a_user_skips_are_not_left_out_where_they_come_again(tmp_path):
    path = write(tmp_path / "x.csv", HEADER, *ROWS[:5], HEADER, *ROWS)
    assert values(path, skip_rows=6) == EXPECTED


def test_a_cell_that_holds_the_header_is_none(tmp_path):
    rows = [f'{row},"{HEADER}"' for row in ROWS]
    assert values(write(tmp_path / "x.csv", f"{HEADER},note", *rows)) == EXPECTED


@pytest.mark.parametrize("second", ["time,c,d", "time,c", "when,x,y,z"])
@pytest.mark.parametrize("head", [1 << 18, 500])
def test_a_second_table_is_an_error_that_names_its_line(tmp_path, monkeypatch, second, head):
    monkeypatch.setattr("rnnforecast.sources.text._HEAD_BYTES", head)
    rows = [row[:16] + ",1" * second.count(",") for row in ROWS]
    error = failure(write(tmp_path / "x.csv", HEADER, *ROWS, "", second, *rows))
    assert (error.code, error.location.line) == ("several-tables", 63)


@pytest.mark.parametrize(
    "words", [["Total"], ["Sum", "Mean", "Max:"], ["Durchschnitt"], ["Sums (of 60 values)"]]
)
@pytest.mark.parametrize("form", ["{}", "{}.01.2024 00:00"])
def test_totals_at_the_end_are_left_out_and_counted(tmp_path, words, form):
    rows = ROWS if form == "{}" else [f"{13 + i}.01.2024,{i % 7}.5,1" for i in range(15)]
    path = write(tmp_path / "x.csv", HEADER, *rows, *(f"{word},99.5,7" for word in words))
    result = read(path)
    assert result.panel.of(0).tolist() == EXPECTED[: len(rows)]
    assert result.warnings["totals"].count == len(words)


@pytest.mark.parametrize("every", [24, 59])
def test_totals_among_the_rows_are_left_out_and_counted(tmp_path, every):
    lines = [HEADER, "Total,180.5,60"]
    for i, row in enumerate(ROWS, 1):
        lines += [row, f"Subtotal,{i}.5,7"] if i % every == 0 else [row]
    result = read(write(tmp_path / "x.csv", *lines))
    assert result.panel.of(0).tolist() == EXPECTED
    assert result.warnings["totals"].count == 1 + 60 // every


def test_many_rows_without_a_time_are_no_totals(tmp_path):
    lines = ["unknown,1,2" if i % 5 == 0 else row for i, row in enumerate(ROWS)]
    assert failure(write(tmp_path / "x.csv", HEADER, *lines)).code == "not-a-time"


@pytest.mark.parametrize(("last", "code"), [("2024-01-0", "not-a-time"), ("NaN", "missing-time")])
def test_a_last_line_that_is_damaged_is_no_total(tmp_path, last, code):
    path = write(tmp_path / "x.csv", HEADER, *ROWS, f"{last},1,2")
    assert failure(path).code == code


TOA5 = [
    '"TOA5","st7","CR1000","1234","CR1000.Std","CPU:x.CR1","123","Table1"',
    '"TIMESTAMP","RECORD","AirTC","RH"',
    '"TS","RN","Deg C","%"',
    '"","","Avg","Smp"',
]


@pytest.mark.parametrize("environment", [TOA5[0], '"TOA5","CR1000","CR1000","1234"'])
def test_the_four_lines_of_a_logger_are_one_question_and_the_fix_works(tmp_path, environment):
    rows = [f'"{row[:16]}:00",{i},{row[17:]}' for i, row in enumerate(ROWS)]
    path = write(tmp_path / "x.csv", environment, *TOA5[1:], *rows)
    error = failure(path)
    assert (error.code, fix(error)) == ("preamble", {"skip_rows": 3})
    result = read(path, skip_rows=3, target=("AirTC", "RH"))
    assert (result.panel.names, result.panel.of(0).tolist()) == (("AirTC", "RH"), EXPECTED)


def test_formats_below_the_names_are_asked_for_and_the_names_stay(tmp_path):
    rows = ["5s\t20d\t14n", *(f"USGS\t{row[:16]}\t{row[17:20]}" for row in ROWS)]
    path = write(tmp_path / "x.tsv", "# a", "#  b", "agency\tdatetime\tflow_00060", *rows)
    options = fix(failure(path))
    assert options == {"comment": "#", "skip_rows": 3}
    result = read(path, **options)
    assert (result.panel.names, result.panel.of(0).tolist()) == (("flow_00060",), EXPECTED)


def test_names_in_the_last_comment_are_the_header(tmp_path):
    path = write(tmp_path / "x.csv", "# station 7", f"# {HEADER}", *ROWS)
    options = fix(failure(path))
    assert options == {"comment": "#"}
    assert read(path, **options).panel.names == ("a", "b")
    assert values(path, **options) == EXPECTED


@pytest.mark.parametrize("sep", [";", "\t", "|", ","])
def test_a_line_for_excel_names_the_separator(tmp_path, sep):
    lines = [line.replace(",", sep) for line in (HEADER, *ROWS)]
    assert values(write(tmp_path / "x.csv", f"sep={sep}", *lines)) == EXPECTED


def test_annotated_csv_says_what_it_is_and_the_fix_works(tmp_path):
    annotations = ["#group,false,false,true,true", "#datatype,string,long,dateTime:RFC3339,double"]
    part = [*annotations, "#default,mean,,,", ",result,table,_time,_value"]
    rows = [f",,0,{row[:10]}T{row[11:16]}:00Z,{row[17:20]}" for row in ROWS]
    path = write(tmp_path / "x.csv", *part, *rows[:30], "", *part, *rows[30:])
    error = failure(path)
    assert error.code == "annotated-csv"
    assert values(path, **pasted(error.advice), target=("_value",)) == EXPECTED


def between_blanks(row, blank="  "):
    return row.replace(" ", "T", 1).replace(",", blank)


@pytest.mark.parametrize("header", ["#time a b", "# time a b", "time   a b", "  time a\tb"])
@pytest.mark.parametrize("blank", [" ", "    ", " \t", "\t "])
def test_blanks_divide_columns_where_each_line_has_as_many_fields(tmp_path, header, blank):
    rows = [" " * (i % 3) + between_blanks(row, blank) + " " for i, row in enumerate(ROWS)]
    path = write(tmp_path / "x.txt", header, *rows)
    result = read(path)
    assert (result.panel.names, result.panel.of(0).tolist()) == (("a", "b"), EXPECTED)
    assert "separated by blanks" in result.notes
    for sep in ("whitespace", r"\s+"):
        assert values(path, sep=sep) == EXPECTED


@pytest.mark.parametrize("mark", ["#", "# "])
def test_units_below_the_names_may_begin_as_these_do(tmp_path, mark):
    header = [f"{mark}time a b", f"{mark}iso degC m/s"]
    path = write(tmp_path / "x.txt", *header, *map(between_blanks, ROWS))
    error = failure(path)
    assert (error.code, pasted(error.advice)) == ("units-row", {"skip_rows": "1"})
    assert values(path, skip_rows=1) == EXPECTED


@pytest.mark.parametrize("header", ["when a b", "date time a b"])
def test_a_date_and_a_time_between_blanks_are_joined(tmp_path, header):
    rows = [row.replace(",", " ") for row in ROWS]
    assert values(write(tmp_path / "x.txt", header, *rows)) == EXPECTED


def test_an_error_between_blanks_names_line_and_cell(tmp_path):
    rows = list(map(between_blanks, ROWS))
    bad = write(tmp_path / "x.txt", "time a b", *rows[:30], rows[30].replace("2.5", "ERR"))
    error = failure(bad)
    assert (error.location.line, error.location.token) == (32, "ERR")
    ragged = write(tmp_path / "y.txt", "time a b", *rows[:30], rows[30] + " 7", *rows[31:])
    assert (failure(ragged).code, failure(ragged).location.line) == ("ragged-row", 32)


@pytest.mark.parametrize("lines", [["time stamp,temp C"], ["time stamp\ttemp C"]])
def test_blanks_in_names_or_stamps_are_no_separators(tmp_path, lines):
    sep = "\t" if "\t" in lines[0] else ","
    rows = hourly(*range(20), sep=sep)
    assert read(write(tmp_path / "x.csv", *lines, *rows)).panel.names == ("temp C",)


@pytest.mark.parametrize("again", ["Time,A,B", "time, a, b", "TIME ,A ,B"])
def test_a_header_that_comes_again_in_other_letters_is_left_out(tmp_path, again):
    result = read(write(tmp_path / "x.csv", HEADER, *ROWS[:20], again, *ROWS[20:]))
    assert result.panel.of(0).tolist() == EXPECTED
    assert result.warnings["repeated-header"].count == 1


SHELLS = {
    "psql": ["        time       |  a  |  b", "-------------------+-----+------", "{} | {} | {}"],
    "sqlcmd": ["time a b", "------------------- ---- ----", "{} {} {}"],
    "csv": ["time,a,b", "----,-,-", "{},{},{}"],
    "markdown": ["time;a;b", ":-----;-----:;-----:", "{};{};{}"],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_that_is_drawn_below_the_names_is_no_row(tmp_path, shell):
    names, rule, form = SHELLS[shell]
    rows = [form.format(*row.split(",")) for row in ROWS]
    assert values(write(tmp_path / "x.csv", names, rule, *rows)) == EXPECTED


def test_a_header_between_blanks_that_comes_again_is_left_out(tmp_path):
    rows = [row.replace(",", "  ") for row in ROWS]
    header = "time   a  b"
    assert values(write(tmp_path / "x.txt", header, *rows[:20], header, *rows[20:])) == EXPECTED


def test_the_count_of_rows_below_a_table_is_skipped_on_request(tmp_path):
    names, rule, form = SHELLS["sqlcmd"]
    rows = [form.format(*row.split(",")) for row in ROWS]
    path = write(tmp_path / "x.txt", names, rule, *rows, "", "(60 rows affected)")
    error = failure(path)
    assert (error.code, fix(error)) == ("ragged-row", {"on_bad_rows": "skip"})
    assert values(path, on_bad_rows="skip", max_bad_rows="1") == EXPECTED


@pytest.mark.parametrize(
    "above",
    [
        ["source,place,zone", "net 7,Graz,-7"],
        ["min,max,mean", "1.5,6.5,3.2", ""],
        ["Logger,ML-400,", "Serial,231,", "Start,2024-01-13 00:00:00,", "Interval,3600,"],
        ["Logger,ML-400", "Serial,231", "Start,2024-01-13 00:00:00", "Interval,3600"],
    ],
)
def test_settings_above_the_names_are_one_question_and_the_fix_works(tmp_path, above):
    error = failure(path := write(tmp_path / "x.csv", *above, HEADER, *ROWS))
    assert (error.code, fix(error)) == ("preamble", {"skip_rows": len(above)})
    assert values(path, **fix(error)) == EXPECTED


@pytest.mark.parametrize(
    ("sep", "quote"), [(",", ""), (",", '"'), ("\t", ""), ("\t", '"'), (" ", '"')]
)
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_of_rows_without_a_name_are_no_column(tmp_path, quote, sep, first):
    header = sep.join(f"{quote}{name}{quote}" for name in ("time", "a", "b"))
    rows = [row.split(",") for row in ROWS]
    lines = [
        sep.join([f"{quote}{i}{quote}", f"{quote}{row[0]}{quote}", *row[1:]])
        for i, row in enumerate(rows, first)
    ]
    result = read(write(tmp_path / "x.txt", header, *lines))
    assert (result.panel.names, result.panel.of(0).tolist()) == (("a", "b"), EXPECTED)


def test_a_first_row_with_a_date_and_a_time_of_day_is_no_header(tmp_path):
    rows = [row.replace(" ", ",") for row in ROWS]
    error = failure(path := write(tmp_path / "x.csv", *rows))
    assert error.code == "no-header"
    options = pasted(error.advice)
    assert read(path, **options).panel.of(0).tolist() == EXPECTED


@pytest.mark.parametrize("block", [1 << 22, 300])
@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_with_bytes_of_0_are_left_out_and_counted(tmp_path, monkeypatch, block, end):
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", block)
    lines = [HEADER, *ROWS[:20], "\0" * 100, *ROWS[20:40], "2024-01-0\0\0\0,5", *ROWS[40:]]
    path = tmp_path / "x.csv"
    path.write_bytes(("\n".join(lines) + "\n" + "\0" * 700 + end).encode())
    result = read(path)
    assert result.panel.of(0).tolist() == EXPECTED
    assert result.warnings["zero-bytes"].count == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_lines_with_bytes_of_0_are_said_in_any_encoding(tmp_path, encoding):
    header = HEADER.replace("a", "a °C")
    path = write(tmp_path / "x.csv", header, *ROWS, "\0" * 20, encoding=encoding)
    result = read(path)
    assert (result.panel.names[0], result.warnings["zero-bytes"].count) == ("a °C", 1)


def test_lines_are_counted_past_those_with_bytes_of_0(tmp_path):
    lines = [HEADER, *ROWS[:20], "\0" * 100, *ROWS[20:40], "2024-01-05 00:00,ERR,1"]
    error = failure(write(tmp_path / "x.csv", *lines))
    assert (error.location.line, error.location.token) == (43, "ERR")


def test_a_file_of_zeros_or_of_other_bytes_is_no_text(tmp_path):
    path = tmp_path / "x.csv"
    for content in (b"\0" * 5000, b"time,a\n" + b"\0\x01\x02\x03\n" * 500):
        path.write_bytes(content)
        assert failure(path).code == "encoding"
