"""What stands where the header should be: readings, a preamble, halves of a time."""

from __future__ import annotations

import gzip
from contextlib import suppress
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import Notice, WarningEvent
from rnnforecast.sources.csv import open_csv_file
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.sniff import NOT_SNIFFED, _sniff, infer_preamble
from tests.data.tables import failure, hourly, pasted, read, write

HEADER = "timestamp,temp"


def test_a_first_row_of_readings_is_no_header(tmp_path):
    error = failure(write(tmp_path / "bare.csv", *hourly(1, 2, 3)))
    assert (error.code, error.exit_code, error.location.line) == ("no-header", 4, 1)
    assert "time,sensor1" in error.advice


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("web1.load,{t},{v}", "series0,time,sensor2"),
        ("{t},north,{v},{v}1", "time,series1,sensor2,sensor3"),
        ("hall,{t},{v},OK", "series0,time,sensor2,series3"),
    ],
)
def test_a_first_row_of_readings_with_a_text_is_no_header(tmp_path, row, names):
    rows = [row.format(t=f"2026-09-14 {i % 24:02d}:00", v=i + 0.5) for i in range(24)]
    path = write(tmp_path / "bare.csv", *rows)

    error = failure(path)
    assert error.code == "no-header"
    assert error.proposals[0].options == ("--no-header", "--columns", names)
    result = read(path, no_header=True, columns=tuple(names.split(",")), time="time")
    assert result.panel.target[0] == 0.5


@pytest.mark.parametrize("constant", ["0", "", "-9999", "7.5"])
def test_a_first_row_of_readings_with_equal_cells_is_no_header(tmp_path, constant):
    rows = [f"2026-09-14 {i % 24:02d}:00,{constant},{constant},{i}.5" for i in range(24)]
    error = failure(write(tmp_path / "bare.csv", *rows))
    assert (error.code, error.proposals[0].options[0]) == ("no-header", "--no-header")


def test_a_first_row_with_the_first_of_the_years_is_no_header(tmp_path):
    rows = [f" {year}; {year % 7 + 6800};N;000" for year in range(1880, 1990)]
    error = failure(path := write(tmp_path / "bare.csv", *rows))
    assert (error.code, error.proposals[0].options[0]) == ("no-header", "--no-header")
    options = {**pasted(error.advice), "target": ("sensor1",)}
    assert read(path, **options).panel.n_rows == 110


MONTHS = pd.date_range("1990-01-01", periods=60, freq="MS")


@pytest.mark.parametrize(
    "form",
    [
        *("{m:%Y/%m}", "{m:%Y-%m}", "{m:%b-%y}", "{m:%b %Y}", "{m.year}Q{m.quarter}"),
        *("{m.year}-Q{m.quarter}", "{m:%G-W%V}", "{m:%H:%M:%S %d/%m/%Y}"),
    ],
)
@pytest.mark.parametrize("sep", [",", ";"])
def test_a_first_row_with_a_month_a_quarter_or_a_week_is_no_header(tmp_path, form, sep):
    is_weekly = "%V" in form or "%H" in form
    weeks = pd.date_range("1990-01-01", periods=60, freq="7D")
    times = MONTHS[::3] if "quarter" in form else weeks if is_weekly else MONTHS
    rows = [sep.join((form.format(m=m), f"-{i % 7}.07", f"{i}")) for i, m in enumerate(times)]
    error = failure(path := write(tmp_path / "bare.csv", *rows))
    columns = ("--no-header", "--columns", "time,sensor1,sensor2")
    assert (error.code, error.proposals[0].options) == ("no-header", columns)
    result = read(path, no_header=True, columns=("time", "sensor1", "sensor2"))
    assert len(result.panel.of(0)) == len(times)


@pytest.mark.parametrize("first", ["9.56 °C,47.2 %", "9 °C,NA", "NA,NA", ",-"])
def test_a_first_row_with_units_or_missing_readings_is_no_header(tmp_path, first):
    rows = [f"{row} °C,{i % 9} %" for i, row in enumerate(hourly(*(x + 0.5 for x in range(24))))]
    rows[0] = f"{rows[0][:16]},{first}"
    error = failure(write(tmp_path / "bare.csv", *rows))
    assert error.code == "no-header"
    assert error.proposals[0].options[-1] == "time,sensor1,sensor2"


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("time,0.5,1.0,2.0", "{m:%Y-%m}"),
        ("month,1990,1991,1992", "{m:%b %Y}"),
        ("1990-01,a,b,c", "{m:%Y-%m}"),  # hardly the name of a column, but the others are
        ("Q1,1,2,3", "{m:%Y-%m}"),
        ("time,5 cm,10 cm,1 m", "{m:%Y/%m}"),
    ],
)
def test_names_with_numbers_are_a_header(tmp_path, header, form):
    rows = [f"{form.format(m=m)},{i % 7}.5,{i % 5},{i % 3}.25" for i, m in enumerate(MONTHS)]
    panel = read(write(tmp_path / "x.csv", header, *rows)).panel
    assert panel.names == tuple(header.split(",")[1:])
    assert len(panel.of(0)) == 60


def test_titles_of_as_many_cells_are_offered_to_be_skipped(tmp_path):
    titles = ["Prices in EUR/MWh;;;", "last updated 20-06-2023;;;"]
    rows = [
        f"2026-06-{i // 24 + 1:02d} {i % 24:02d}:00;{i},5;{i % 7},25;1{i % 9},5" for i in range(99)
    ]
    path = write(tmp_path / "x.csv", *titles, ";north;south;west", *rows)

    error = failure(path)
    assert error.code == "duplicate-column"
    assert error.proposals[0].options == ("--skip-rows", "2")
    assert read(path, skip_rows=2).panel.names == ("north", "south", "west")


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["Zeit,K1,,K2,", ",Temp,Druck,Temp,Druck"], "K1 Temp,K1 Druck,K2 Temp,K2 Druck"),
        (["Time,T,T,T,T", ",mean,min,max,last"], "T mean,T min,T max,T last"),
        ([",A,A,B,B", ",x,y,x,y", "time,,,,"], "A x,A y,B x,B y"),
        (["Site,S1,,S2,", "What,T,RH,T,RH", "Unit,C,%,C,%"], "S1 T C,S1 RH %,S2 T C,S2 RH %"),
    ],
)
def test_names_in_several_rows_are_joined(tmp_path, header, names):
    times = pd.date_range("2026-09-14", periods=60, freq="1h")
    rows = [f"{time},{i % 11}.5,{i % 7},{i % 5},{i % 3}" for i, time in enumerate(times)]
    path = write(tmp_path / "x.csv", *header, *rows, *header)  # and once more at the end
    panel = read(path).panel
    assert panel.names == tuple(names.split(","))
    assert (panel.step_us, panel.lengths.tolist()) == (3_600_000_000, [60] * 4)
    assert panel.of(0).tolist() == [i % 11 + 0.5 for i in range(60)]


def test_names_in_two_rows_match_those_of_a_table_of_pandas(tmp_path):
    index = pd.date_range("2026-09-14", periods=60, freq="1h", name="time")
    columns = pd.MultiIndex.from_product([["pump", "fan"], ["flow", "power"]])
    table = pd.DataFrame(np.arange(240.0).reshape(60, 4), index, columns)
    table.to_csv(tmp_path / "x.csv")
    panel = read(tmp_path / "x.csv").panel
    assert panel.names == ("pump flow", "pump power", "fan flow", "fan power")
    assert panel.of(3).tolist() == table["fan", "power"].tolist()


@pytest.mark.parametrize("header", ["2024,temp", ",temp", "timestamp,1"])
def test_one_odd_name_is_still_a_header(tmp_path, header):
    assert read(write(tmp_path / "odd.csv", header, *hourly(1, 2, 3))).panel.n_series == 1


@pytest.mark.parametrize(
    "preamble",
    [
        ["Logger;X100", "Serial,123,456", "Exported,2024"],
        ["Logger X100, plant 7, line 3"],
        ["Logger X100", "", "Exported 2024", ""],
    ],
)
def test_what_stands_above_the_header_is_counted_and_the_fix_works(tmp_path, preamble):
    path = write(tmp_path / "logger.csv", *preamble, HEADER, *hourly(1, 2, 3, 4))
    hint = failure(path).advice
    n_lines = len(preamble) - (not preamble[-1])  # an empty line above the header is no matter
    assert int(pasted(hint)["skip_rows"]) in (n_lines, len(preamble))
    assert read(path, skip_rows=n_lines).panel.target.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "preamble", [["# Logger", "# X100"], ["Logger X100", ""], ['"Source: X"', '"Title"']]
)
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("end", ["", ";"])
def test_a_preamble_above_rows_that_end_with_a_separator_is_counted(tmp_path, preamble, quote, end):
    lines = ["timestamp;temp;wind", *hourly(*(f"{i % 9}.5;W, then N" for i in range(30)))]
    lines = [line.replace(",", ";", 1) for line in lines]
    lines = [";".join(f"{quote}{cell}{quote}" for cell in line.split(";")) for line in lines]
    path = write(tmp_path / "x.csv", *preamble, lines[0], *(line + end for line in lines[1:]))
    error = failure(path)
    is_comment = preamble[0].startswith("#")
    options = {"comment": "#"} if is_comment else {"skip_rows": "2"}
    assert (error.code, pasted(error.advice)) == ("one-column", options)
    result = read(path, skip_rows=2)
    assert result.panel.of(0).tolist() == [i % 9 + 0.5 for i in range(30)]


def test_a_title_above_columns_between_blanks_is_counted(tmp_path):
    rows = [f"{i % 5} {i * 7} 2024-05-13 {i // 60:02d}:{i % 60:02d}:00" for i in range(90)]
    path = write(tmp_path / "x.txt", "procs --- memory --- -- time --", " r  free  UTC", *rows)
    error = failure(path)
    assert (error.code, pasted(error.advice)) == ("one-column", {"skip_rows": "1"})
    assert read(path, skip_rows=1, target=("free",)).panel.of(0).tolist() == [
        i * 7 for i in range(90)
    ]


def test_a_line_below_the_rows_does_not_hide_the_preamble(tmp_path):
    lines = ['"Report"', '"Point","X"', '""', HEADER, *hourly(*range(30)), '"End of report"']
    error = failure(path := write(tmp_path / "x.csv", *lines))
    assert (error.code, error.proposals[0].options[:2]) == ("one-column", ("--skip-rows", "3"))
    assert read(path, skip_rows=3, on_bad_rows="skip").panel.lengths.tolist() == [30]


@pytest.mark.parametrize("preamble", [["# Logger X100"], ["# Logger X100", "# Site: 7", "#"]])
def test_comments_above_the_header_are_named_and_the_fix_works(tmp_path, preamble):
    path = write(
        tmp_path / "logger.csv", *preamble, HEADER, *hourly(1, 2), "# 3", *hourly(3, start=2)
    )
    hint = failure(path).advice
    assert pasted(hint) == {"comment": "#"}
    assert read(path, comment="#").panel.target.tolist() == [1, 2, 3]


@pytest.mark.parametrize("sep", [",", "|"])
def test_a_wrong_separator_is_told_the_right_one(tmp_path, sep):
    rows = [row.replace(",", ";") + ",5" for row in hourly(1, 2, 3, 4)]
    path = write(tmp_path / "german.csv", "timestamp;temp", *rows)

    assert pasted(failure(path, sep=sep).advice) == {"sep": ";"}
    assert read(path, sep=";").panel.target.tolist() == [1.5, 2.5, 3.5, 4.5]


def test_a_decimal_comma_or_a_ragged_row_is_no_preamble():
    commas = ["time;temp", *["2024-01-01;20,5"] * 5]
    assert infer_preamble(commas, ",") == 0
    ragged = [HEADER, *hourly(1, 2), "2024-01-01 02:00,3,4", *hourly(1, 2, 3)]
    assert infer_preamble(ragged, ",") == 0


@pytest.mark.parametrize(("order", "encoding"), [("le", "utf-16-le"), ("be", "utf-16-be")])
def test_utf_16_without_a_mark_is_named_and_the_fix_works(tmp_path, order, encoding):
    path = tmp_path / "wide.csv"
    path.write_bytes("\n".join([HEADER, *hourly(1, 2, 3, 4)]).encode(encoding))
    error = failure(path)
    assert error.code == "encoding"
    assert pasted(error.advice) == {"encoding": f"utf-16-{order}"}
    assert read(path, **pasted(error.advice)).panel.target.tolist() == [1, 2, 3, 4]


def test_bytes_of_0_are_no_text(tmp_path):
    path = tmp_path / "zeros.csv"
    path.write_bytes(bytes(5000))
    assert failure(path).code == "encoding"


@pytest.mark.parametrize(("token", "expected"), [("1.234,5", "thousands"), ("true", "'true'")])
def test_a_column_of_text_is_shown_where_no_column_holds_numbers(tmp_path, token, expected):
    rows = [f"2024-01-01 {i:02d}:00;{token}" for i in range(10)]
    advice = failure(write(tmp_path / "text.csv", "time;temp", *rows), decimal=".").advice
    assert expected in advice


@pytest.mark.parametrize("n_rows", [0, 300])
def test_a_line_without_end_is_refused_without_being_held(tmp_path, n_rows):
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write("\n".join([HEADER, *hourly(*range(n_rows)), ""]).encode())
        for _ in range(64):
            file.write(b"1" * (1 << 20))
    error = failure(path)
    assert (error.code, error.exit_code) == ("long-line", 4)
    assert error.location.line in (1, n_rows + 2)


# Opened again


TEXTS = (
    [HEADER, *hourly(1, 2, 3)],
    [
        "Datum;Wert;Ort",
        *[f"{day:02d}.01.2024;1.234,{day};Werk" for day in range(1, 29)],
        "Summe;9;",
    ],
    ["# Logger", "date time temp", *[f"2024-01-01 {hour:02d}:00 {hour}.5" for hour in range(24)]],
    ["time,flow,unit", "-,m3/h,-", *[f"{20240101 + day},{day},x" for day in range(28)]],
)


@pytest.mark.parametrize("lines", TEXTS)
@pytest.mark.parametrize("options", [{}, {"sep": ";"}, {"target": ("temp",), "time": "time"}])
def test_a_file_is_inferred_without_the_options_that_say_what_is_made_of_readings(lines, options):
    """So what is inferred with one of them holds with another, too."""
    looked_at = set()

    class Recorded(DataConfig):
        def __getattribute__(self, name):
            looked_at.add(name)
            return super().__getattribute__(name)

    config = Recorded(**options)
    looked_at.clear()
    content = "\n".join(lines).encode()
    for tail in (None, b"" if len(content) < 100 else content[-100:]):
        with suppress(DataError):  # what it refuses, it has looked at
            _sniff.__wrapped__(content, tail, config, "x.csv")

    assert looked_at & {field.name for field in fields(DataConfig)}
    assert not looked_at & set(NOT_SNIFFED)


def test_a_file_that_is_opened_again_says_the_same_and_a_changed_one_is_looked_at(tmp_path):
    path = write(tmp_path / "sums.csv", HEADER, *hourly(*range(30)), "Total,435")

    def opened(**options):
        events = []
        file = open_csv_file(
            InputFile.of(path), DataConfig(**options), events.append, name=str(path)
        )
        assert all(isinstance(event, Notice | WarningEvent) for event in events)
        return file.dialect, [str(event) for event in events]

    first = opened()
    assert first[0].totals and first[1]
    assert opened(valid_range=("temp=0:9",), max_gap="3") == first
    write(path, HEADER, *hourly(*range(30)), "Total,436", "Total,9")
    assert opened() != first


LEVELS = [f"{20 + (5 * i) % 13}.{i % 10}" for i in range(30)]
READINGS = hourly(*(f"{level},{40 + (7 * i) % 11}.5" for i, level in enumerate(LEVELS)))


def offered(error):
    options = pasted(error.advice)
    return {**options, "skip_rows": int(options["skip_rows"])}


@pytest.mark.parametrize("header", ["time,temp,", "time,,hum", "time,,"])
def test_a_column_of_readings_without_a_name_asks_for_it(tmp_path, header):
    error = failure(write(tmp_path / "x.csv", header, *READINGS))

    assert error.code == "unnamed-column"
    assert len(read(tmp_path / "x.csv", **offered(error)).panel.names) == 2


def test_a_sensor_without_a_name_can_be_named(tmp_path):
    path = write(tmp_path / "x.csv", "time,temp,", *READINGS)

    error = failure(path)

    assert (error.code, error.location.line) == ("unnamed-column", 1)
    assert read(path, **offered(error)).panel.names == ("temp", "column3")


def test_names_are_not_shifted_where_that_of_the_time_is_missing(tmp_path):
    path = write(tmp_path / "x.csv", "cpu,mem,", *READINGS)

    panel = read(path, **offered(failure(path))).panel

    assert panel.names == ("cpu", "mem")
    assert panel.of(0).tolist() == pytest.approx(list(map(float, LEVELS)))


def test_decimals_behind_a_comma_are_no_sensor(tmp_path):
    rows = hourly(*(f"{i},{i * i * 7 % 100:02}" for i in range(30)))

    error = failure(write(tmp_path / "x.csv", "time,temp,", *rows))

    assert (error.code, error.proposals) == ("unnamed-column", ())
    assert "decimal" in error.hint


@pytest.mark.parametrize(
    "counts",
    [
        range(30),
        range(5, 65, 2),
        [*range(15), *range(15)],
        [i // 2 for i in range(30)],
        [7 * i % 30 + i // 7 % 2 * 30 for i in range(30)],
    ],
    ids=["by one", "by two", "again", "twice", "out of order"],
)
def test_a_count_without_a_name_is_not_used(tmp_path, counts):
    rows = [f"{n},{line}" for n, line in zip(counts, READINGS, strict=True)]

    assert read(write(tmp_path / "x.csv", ",time,temp,hum", *rows)).panel.names == ("temp", "hum")


def test_totals_of_a_meter_without_a_name_are_no_count(tmp_path):
    rows = [f"{line},{1200 + 5 * i + i * i % 7}" for i, line in enumerate(READINGS)]

    error = failure(write(tmp_path / "x.csv", "time,temp,hum,", *rows))

    assert error.code == "unnamed-column"


def test_a_column_without_a_name_that_repeats_another_is_not_used(tmp_path):
    rows = [f"{line},{line.rpartition(',')[2]}" for line in READINGS]

    assert "temp" in read(write(tmp_path / "x.csv", "time,temp,hum,", *rows)).panel.names


@pytest.mark.parametrize("index", [False, True])
def test_columns_with_neither_a_name_nor_a_value_are_none(tmp_path, index):
    rows = [f"{i}," * index + f"{line},,," for i, line in enumerate(READINGS)]

    result = read(write(tmp_path / "x.csv", "," * index + "time,temp,hum,,,", *rows))

    assert result.panel.names == ("temp", "hum")
    assert result.warnings["empty-column"].count == 1


def test_a_preamble_with_as_many_separators_as_the_table_is_skipped(tmp_path):
    above = [*(f"Name {i}: x,," for i in range(12)), ",,"]
    path = write(tmp_path / "x.csv", *above, "time,temp,hum", *READINGS)

    assert offered(failure(path)) == {"skip_rows": 13}


def test_a_first_line_of_readings_some_of_which_are_missing_is_no_header(tmp_path):
    rows = [f"{1_700_000_000 + 60 * i},nan,{i}.5,nan" for i in range(30)]
    path = write(tmp_path / "x.csv", *rows)

    options = pasted(failure(path).advice)

    assert options["no_header"]
    assert read(path, **options).panel.lengths[0] == 30
