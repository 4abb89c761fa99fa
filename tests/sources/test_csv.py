"""One CSV file: its dialect, its encoding, and what counts as a number."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import UsageError
from rnnforecast.sources.numbers import is_number
from rnnforecast.sources.sniff import shell_quote
from tests.data.tables import failure, few, hourly, pasted, read, write

HEADER = "timestamp,temp"
LINES = [HEADER, *hourly(1, 2, 3, 4)]
WRONG = [HEADER, *hourly(1, 2, 3, "ERR", 5)]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_the_separator_is_recognised(tmp_path, sep):
    lines = [f"timestamp{sep}temp{sep}flow", *hourly(*[f"1.5{sep}2"] * 3, sep=sep)]

    panel = read(write(tmp_path / "table.tsv", *lines)).panel

    assert panel.names == ("temp", "flow")
    assert panel.target.tolist() == [1.5] * 3 + [2] * 3


def test_a_separator_inside_of_quotes_does_not_count(tmp_path):
    lines = ['timestamp,"temp; inside",note', *hourly('1,"a;b"', '2,"c;d"', "3,e")]

    assert read(write(tmp_path / "x.csv", *lines)).panel.names == ("temp; inside",)


def test_the_separator_can_be_said(tmp_path):
    lines = ["timestamp:temp", "2024-01-01:1", "2024-01-02:2", "2024-01-03:3"]

    assert read(write(tmp_path / "x.csv", *lines), sep=":").panel.target.tolist() == [1, 2, 3]


def test_a_decimal_comma_between_commas_is_read_and_said(tmp_path):
    result = read(write(tmp_path / "x.csv", HEADER, *hourly(1, 2, '"3,5"', 4)))

    assert result.panel.target.tolist() == [1, 2, 3.5, 4]
    assert "decimal-comma" in result.warnings


def test_a_decimal_comma_far_below_points_is_an_error_with_its_line(tmp_path):
    path = write(tmp_path / "x.csv", HEADER, *hourly(*["0.25"] * 9, '"3,5"', 4))

    error = failure(path)

    assert (error.location.line, error.location.token) == (11, "3,5")


def test_a_decimal_point_where_commas_are_said_is_an_error_whose_fix_works(tmp_path):
    path = write(tmp_path / "x.csv", "timestamp;temp", *hourly(1, 2, "3.5", 4, sep=";"))

    error = failure(path, decimal=",")

    assert pasted(error.advice) == {"decimal": "."}
    assert read(path, **pasted(error.advice)).panel.target.tolist() == [1, 2, 3.5, 4]


@pytest.mark.parametrize(
    "options", [{"sep": "\\t"}, {"sep": ""}, {"decimal": ",,"}, {"encoding": "no-such"}]
)
def test_options_that_cannot_be_meant_are_usage_errors(options):
    with pytest.raises(UsageError):
        DataConfig(**options)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    lines = ["timestamp,temp °C", *LINES[1:]]

    result = read(write(tmp_path / "x.csv", *lines, encoding=encoding))

    assert result.schema.time == "timestamp"
    assert result.panel.names == ("temp °C",)
    wrong = write(tmp_path / "y.csv", *WRONG, encoding=encoding)
    assert failure(wrong).location.line == 5


def test_a_byte_order_mark_is_no_part_of_a_name_when_utf_8_is_said(tmp_path):
    path = write(tmp_path / "x.csv", *LINES, encoding="utf-8-sig")

    assert read(path, encoding="utf-8").schema.time == "timestamp"


def test_western_text_that_is_not_utf_8_is_read_as_cp1252_and_said(tmp_path):
    path = write(
        tmp_path / "x.csv", "timestamp,temp °C,m³", *hourly("1,2", "2,3", "3,4"), encoding="cp1252"
    )

    table = read(path)

    assert table.schema.targets == ("temp °C", "m³")
    assert "line 1" in table.warnings["encoding"].message
    assert "cp1252" in table.warnings["encoding"].message


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("Температура", "cp1251"),
        ("温度传感器", "gbk"),
        ("温度センサ", "shift_jis"),
        ("기온센서", "euc_kr"),
        ("溫度感測器", "big5"),
    ],
)
def test_other_text_that_is_not_utf_8_names_its_line_and_a_fix_that_works(tmp_path, name, encoding):
    path = write(tmp_path / "x.csv", f"timestamp,{name}", *hourly(1, 2, 3), encoding=encoding)

    error = failure(path)

    assert (error.code, error.location.line) == ("encoding", 1)
    assert "0x" in error.message
    options = {**pasted(error.advice), "encoding": encoding}
    assert read(path, **options).schema.targets == (name,)


@pytest.mark.parametrize(
    ("name", "encoding", "likely"),
    [
        ("気温センサー", "cp932", "cp932"),
        ("日時，１２", "cp932", "cp932"),
        ("溫度感測器", "big5", "big5"),
        ("温度传感器", "gbk", "gb18030 or big5 or cp949"),
        ("Температура", "cp1251", "cp1251"),
    ],
)
def test_an_encoding_is_named_by_the_common_letters_of_its_language(
    tmp_path, name, encoding, likely
):
    path = write(tmp_path / "x.csv", f"timestamp,{name}", *hourly(1, 2, 3), encoding=encoding)

    assert failure(path).advice.endswith(f"likely --encoding {likely}")


def test_names_that_stand_twice_are_an_error(tmp_path):
    error = failure(write(tmp_path / "x.csv", "timestamp,a,a", *hourly("1,2", "3,4")))

    assert (error.code, error.location.line) == ("duplicate-column", 1)
    assert "'a'" in error.message


def test_a_single_column_asks_for_the_separator(tmp_path):
    error = failure(write(tmp_path / "x.csv", "timestamp:temp", *hourly(1, 2, sep=":")))

    assert error.code == "one-column"
    assert "column separator" in error.advice


@pytest.mark.parametrize("text", ["1", "-1.5", "+2", ".5", "5.", "1e-3", " 7 ", "\t7", "inf"])
def test_what_counts_as_a_number_is_read_as_that_number(tmp_path, text):
    assert is_number(text, ".")
    lines = [HEADER, *hourly(0, 0, text, 0)]
    if "inf" in text:
        assert failure(write(tmp_path / "x.csv", *lines)).code == "infinite"
    else:
        assert read(write(tmp_path / "x.csv", *lines)).panel.target[2] == np.float32(text)


@pytest.mark.parametrize("text", ["1,5", "1_000", "٣", "5\u00a0m", "0x10", "1.2.3", "e5", "1d5"])
def test_what_is_no_number_is_an_error_with_its_line(tmp_path, text):
    assert not is_number(text, ".")
    cells = hourly("0;a", "0;a", f"{text};a", "0;a", sep=";")

    error = failure(write(tmp_path / "x.csv", "timestamp;temp;n", *cells), decimal=".")

    assert (error.code, error.location.line, error.location.token) == ("not-a-number", 4, text)


@pytest.mark.parametrize("token", ["", "NaN", "NA", "null", "-", "#N/A"])
def test_what_usually_means_missing_is_missing(tmp_path, token):
    panel = read(write(tmp_path / "x.csv", HEADER, *hourly(1, token, 3))).panel

    np.testing.assert_array_equal(panel.target, [1, np.nan, 3])


@few
@given(st.lists(st.text("ab,;\"'\n\r\t é|", min_size=1), min_size=1, max_size=4, unique=True))
def test_any_column_names_come_back_as_they_are(tmp_path_factory, names):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["timestamp", *names])
    for line in hourly(*range(4)):
        writer.writerow([line.split(",")[0], *range(1, len(names) + 1)])
    path = tmp_path_factory.mktemp("names") / "x.csv"
    path.write_bytes(text.getvalue().encode())

    panel = read(path, sep=",").panel

    assert panel.names == tuple(names)


@few
@given(st.text(min_size=1))
def test_a_quoted_word_is_one_word_to_a_shell(text):
    assert pasted(f"add  --na-values {shell_quote(text)}") == {"na_values": (text,)}
