"""How numbers are written: marks, signs and units are read by evidence, or asked for."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.sources.numbers import NumberForm, infer_numbers
from tests.data.tables import failure, few, hourly, read, write

WATTS = [int(1200 + 900 * math.sin(i / 4)) for i in range(60)]
"""Whole numbers below a thousand and above."""
DEGREES = [round(20 + 5 * math.sin(i / 4), 1) for i in range(60)]


def table(tmp_path, cells, sep=";", header="time;v"):
    return write(tmp_path / "x.csv", header.replace(";", sep), *hourly(*cells, sep=sep))


def grouped(numbers, mark):
    return [f"{number:,}".replace(",", mark) for number in numbers]


def options_of(proposal):
    names = [option.removeprefix("--").replace("-", "_") for option in proposal.options[::2]]
    return dict(zip(names, proposal.options[1::2], strict=True))


@pytest.mark.parametrize(("sep", "mark"), [(";", "."), (",", "."), ("\t", "."), (";", ",")])
def test_a_mark_that_may_be_either_is_asked_for_and_both_answers_work(tmp_path, sep, mark):
    path = table(tmp_path, grouped(WATTS, mark), sep)

    error = failure(path)

    assert (error.code, error.exit_code) == ("thousands", 4)
    whole, decimal = (read(path, **options_of(p)).panel.target for p in error.proposals)
    assert whole.tolist() == WATTS
    expected = [w / 1000 if w >= 1000 else w for w in WATTS]
    assert decimal.tolist() == pytest.approx(expected)
    assert f"1{mark}200 means 1200" in error.advice


@pytest.mark.parametrize("blank", ["\u00a0", "\u202f", "\u2009", " ", "'", "\u2019"])
def test_blanks_and_apostrophes_between_thousands_are_asked_for_once(tmp_path, blank):
    path = table(tmp_path, grouped(WATTS, blank))

    error = failure(path)

    assert (error.code, len(error.proposals)) == ("thousands", 1)
    assert read(path, **options_of(error.proposals[0])).panel.target.tolist() == WATTS


@pytest.mark.parametrize(
    ("cells", "sep"),
    [
        ([f"{x:.3f}" for x in DEGREES], ","),  # a logger of three places
        ([f"{x / 30:.3f}" for x in DEGREES], ";"),  # no thousand begins with 0
        ([f"{1000 * x:.3f}" for x in DEGREES], ";"),  # nor with five digits
        ([f"{round(8 * x) / 8:g}" for x in DEGREES], ";"),  # zeros at the end are left out
        ([f"{x:.3f}" if i % 9 else "2024" for i, x in enumerate(DEGREES)], ";"),
    ],
)
def test_decimals_of_three_places_are_no_question(tmp_path, cells, sep):
    result = read(table(tmp_path, cells, sep))
    assert result.panel.target.tolist() == pytest.approx([float(cell) for cell in cells])
    assert not result.warnings.keys() & {"decimal-comma", "decimal-mark"}


def test_another_column_tells_which_mark_is_that_of_decimals(tmp_path):
    three = [f"{x:.3f}" for x in DEGREES]
    cells = [f"{a};{b:.1f}" for a, b in zip(three, DEGREES, strict=True)]
    path = table(tmp_path, cells, header="time;a;b")
    assert read(path).panel.of(0).tolist() == pytest.approx(list(map(float, three)))

    cells = [f"{a};{b:.1f}".replace(".", ",") for a, b in zip(WATTS, DEGREES, strict=True)]
    cells = [f"{a};{c.split(';')[1]}" for a, c in zip(grouped(WATTS, "."), cells, strict=True)]
    path = table(tmp_path, cells, header="time;a;b")
    error = failure(path)
    assert (error.code, len(error.proposals)) == ("thousands", 1)
    assert read(path, **options_of(error.proposals[0])).panel.of(0).tolist() == WATTS


def test_a_column_that_is_not_read_is_not_asked_about(tmp_path):
    cells = [f"{a};{b}" for a, b in zip(grouped(WATTS, "."), DEGREES, strict=True)]
    path = table(tmp_path, [c.replace(".", ",") for c in cells], header="time;a;b")
    assert read(path, target=("b",)).panel.target.tolist() == pytest.approx(DEGREES)


@pytest.mark.parametrize("below", [grouped(WATTS, "."), [f"1.{i:03d}" for i in range(60)]])
def test_marks_that_come_below_the_first_lines_are_asked_for(tmp_path, monkeypatch, below):
    monkeypatch.setattr("rnnforecast.sources.text._HEAD_BYTES", 400)
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", 300)
    path = table(tmp_path, [*range(900, 960), *below], ",")

    error = failure(path)

    assert error.code == "thousands"
    options = options_of(error.proposals[0])
    expected = [*range(900, 960), *(int(cell.replace(".", "")) for cell in below)]
    assert read(path, **options).panel.target.tolist() == expected


@pytest.mark.parametrize("below", [[f"{i}.5" for i in range(60)], [f"{i}.125" for i in range(60)]])
def test_decimals_that_come_below_whole_numbers_are_read(tmp_path, monkeypatch, below):
    monkeypatch.setattr("rnnforecast.sources.text._HEAD_BYTES", 400)
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", 300)
    cells = [*range(60), *below]
    assert read(table(tmp_path, cells, ",")).panel.target.tolist() == [float(x) for x in cells]


@pytest.mark.parametrize(
    "write_number",
    [
        lambda x: f"{x:.1f}".replace("-", "\u2212"),
        lambda x: f"{x:.1f}".replace("-", "\u2013"),
        lambda x: f"{abs(x):.1f}" + "-" * (x < 0),
        lambda x: f"({-x:.1f})" if x < 0 else f"{x:.1f}",
        lambda x: f'"=""{x:.1f}"""',
        lambda x: f'="{x:.1f}"',
        lambda x: f"{x:.1f} °C",
        lambda x: f"{x:.1f}°C",
        lambda x: f"{x:.1f}\u00a0kWh",
        lambda x: f"{x:.1f} m3/h",
        lambda x: f"{x:.1f} %",
        lambda x: f"{x:.1f}%",
        lambda x: f"$ {x:.1f}",
        lambda x: f"{x:.1f} \u20ac".replace("-", "\u2212"),
        lambda x: f"EUR {x:.1f}",
        lambda x: f"{x:.1f} kWh" if x else "0",
    ],
)
def test_what_stands_around_a_number_is_left_out_and_said(tmp_path, write_number):
    numbers = [round(x - 20, 1) for x in DEGREES]
    result = read(table(tmp_path, list(map(write_number, numbers)), ","))
    assert result.panel.target.tolist() == pytest.approx(numbers, abs=1e-6)
    assert "units" in result.notes or "dash" in result.notes


@pytest.mark.parametrize("unit", ["", " V"])
def test_numbers_that_are_all_in_brackets_are_asked_about(tmp_path, unit):
    cells = [f"({x}{unit})" for x in DEGREES]
    assert failure(table(tmp_path, cells, ",")).code == "brackets"
    cells[3] = f"{DEGREES[3]}{unit}"
    readings = read(table(tmp_path, cells, ",")).panel.of(0)
    assert readings.tolist() == pytest.approx([-x if i != 3 else x for i, x in enumerate(DEGREES)])


def test_a_unit_is_named(tmp_path):
    path = table(tmp_path, [f"{x} °C,{x:.0f}%" for x in DEGREES], ",", "time;temp;hum")
    result = read(path)
    assert "°C of 'temp', % of 'hum'" in result.notes
    assert result.panel.of(0).tolist() == pytest.approx(DEGREES)


@pytest.mark.parametrize(("first", "second"), [("°C", "°F"), ("kW", "W"), ("bar", "psi")])
def test_several_units_in_one_column_are_an_error_that_names_them(tmp_path, first, second):
    cells = [f"{x} {second if i % 3 else first}" for i, x in enumerate(DEGREES)]
    error = failure(table(tmp_path, cells, ","))
    assert error.code == "several-units"
    assert f"{second}, {first}" in error.message


def test_a_unit_that_changes_far_below_is_an_error_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnforecast.sources.text._HEAD_BYTES", 400)
    cells = [f"{x} °C" for x in DEGREES] + ["68.5 °F"]
    error = failure(table(tmp_path, cells, ","))
    assert (error.code, error.location.line, error.location.token) == (
        "not-a-number",
        62,
        "68.5 °F",
    )


def test_a_dash_far_below_is_a_minus_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnforecast.sources.text._HEAD_BYTES", 400)
    result = read(table(tmp_path, [*DEGREES, "\u22125.5", "\u2013"], ","))
    assert result.panel.target[60] == -5.5
    assert np.isnan(result.panel.target[61:]).all()
    assert "dash" in result.notes


@pytest.mark.parametrize("unit", ["kWh", "\u20ac"])
def test_marks_between_thousands_before_a_unit_are_asked_for_and_the_fix_works(tmp_path, unit):
    path = table(tmp_path, [f"{cell} {unit}" for cell in grouped(WATTS, ".")])
    error = failure(path)
    assert error.code == "thousands"
    assert read(path, **options_of(error.proposals[0])).panel.target.tolist() == WATTS


def test_names_that_end_in_a_letter_are_no_numbers_with_units(tmp_path):
    rows = [f"{line},{name}" for line in hourly(*range(30)) for name in ("1A", "2A", "3A")]
    panel = read(write(tmp_path / "x.csv", "time,v,id", *rows)).panel
    assert panel.names == ("1A", "2A", "3A")


def test_a_column_with_the_other_decimal_mark_is_read_with_its_own_and_said(tmp_path):
    cells = [f"{w},5;{d}" for w, d in zip(WATTS, DEGREES, strict=True)]
    result = read(table(tmp_path, cells, header="time;a;b"))
    assert result.panel.of(0).tolist() == [w + 0.5 for w in WATTS]
    assert result.panel.of(1).tolist() == pytest.approx(DEGREES)
    assert result.warnings["decimal-mark"].count == 1


NUMBERS = st.decimals(-999_999_999, 999_999_999, places=3)
FORMS = [
    NumberForm(),
    NumberForm(","),
    NumberForm(",", "."),
    NumberForm(".", ","),
    NumberForm(",", " "),
    NumberForm(".", "'"),
    NumberForm(",", ".", unit="kWh"),
    NumberForm(unit="°C", has_signs=True),
    NumberForm(".", ",", unit="$", is_accounting=True),
    NumberForm(is_accounting=True),
]


def written(number, form):
    text = f"{abs(number):,.3f}".replace(",", "G").replace(".", form.decimal)
    text = text.replace("G", form.thousands or "")
    if form.is_accounting:
        text = f"({text})" if number < 0 else text
    elif number < 0:
        text = ("\u2212" if form.has_signs else "-") + text
    unit = f" {form.unit}" if form.unit else ""
    return text.replace(")", f"{unit})") if "(" in text else text + unit


@few
@given(st.lists(NUMBERS, min_size=1, max_size=20), st.sampled_from(FORMS))
def test_any_number_written_in_a_form_is_read_back(numbers, form):
    texts = [written(number, form) for number in numbers]

    back = form.convert(pa.array(texts), pa.float64()).to_pylist()

    assert back == [float(number) for number in numbers]
    assert all(map(form.is_number, texts))
    assert [float(form.to_plain(text)) for text in texts] == back


@few
@given(st.lists(NUMBERS, min_size=30, max_size=60), st.sampled_from(FORMS))
def test_the_form_of_numbers_is_inferred_or_doubted_but_never_another(numbers, form):
    texts = [written(number, form) for number in numbers]

    inferred = infer_numbers(texts, None, None)

    assert inferred.n_fit == len(texts)
    if inferred.doubtful is None:
        back = inferred.form.convert(pa.array(texts), pa.float64()).to_pylist()
        assert back == [float(number) for number in numbers]


WITHOUT_THREE_DECIMALS = st.floats(-1e6, 1e6).filter(
    lambda number: not re.search(r"\.\d{3}(e|$)", repr(number))
)
"""Three digits behind a point may be thousands: 1.375 is doubted, as it should be."""


@few
@given(st.lists(WITHOUT_THREE_DECIMALS, min_size=1, max_size=30), st.integers(0, 9))
def test_what_python_writes_is_read_without_any_question(numbers, places):
    texts = [repr(number) for number in numbers] + [f"{number:.{places}e}" for number in numbers]
    inferred = infer_numbers(texts, None, None)
    assert inferred.form.is_plain
    assert inferred.form.decimal == "."
    assert inferred.doubtful is None or places == 3


def test_a_number_of_three_decimals_alone_is_doubted():
    assert infer_numbers(["1.375", "1e+00"], None, None).doubtful == "."


def test_a_code_after_a_number_and_a_comma_is_no_decimal(tmp_path):
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-03-01", periods=200, freq="1h")
    tenths = rng.integers(-50, 250, 200)
    coded = [f'{t},"{v:+05d},{rng.choice([1, 5])}"' for t, v in zip(times, tenths, strict=True)]
    error = failure(write(tmp_path / "coded.csv", "DATE,TMP", *coded))
    assert (error.code, error.proposals[0].options) == ("number-and-code", ("--decimal", ","))
    assert "'TMP'" in str(error)

    decimals = [f'{t},"{v // 10},{v % 10}"' for t, v in zip(times, tenths + 50, strict=True)]
    panel = read(write(tmp_path / "decimals.csv", "DATE,TMP", *decimals)).panel
    np.testing.assert_allclose(panel.of(0), (tenths + 50) / 10, rtol=1e-6)


@pytest.mark.parametrize(("mark", "sep"), [(" ", ","), (",", ";")])
def test_the_same_three_digits_behind_many_numbers_are_a_code(tmp_path, mark, sep):
    cells = [f"{40 + i % 17}{mark}192" for i in range(60)]
    error = failure(table(tmp_path, cells, sep))
    assert (error.code, error.proposals) == ("number-and-code", ())
    cells = [f"{40 + i % 17}{mark}{i % 5}00" for i in range(60)]
    assert failure(table(tmp_path, cells, sep)).code == "thousands"
    cells = [f"{40 + i % 17}{mark}500" for i in range(60)]
    assert failure(table(tmp_path, cells, sep)).code == "thousands"


@pytest.mark.parametrize(
    "text",
    [
        *("{} deg F", "{} V AC", "{} % RH", "{} m³/h (N)", "{} mg/l O2", "{} bar(g)", "{} - OK"),
        *("Rs. {}", "EUR{}", "OK {}", "{} No Data", "{}p.u."),
    ],
)
def test_the_same_text_around_all_numbers_is_their_unit(tmp_path, text):
    values = np.random.default_rng(0).normal(20, 50, 200).round(1)
    times = pd.date_range("2026-03-01", periods=200, freq="1h")
    cells = [text.format(f"{value:.1f}") for value in values]
    rows = [f"{t},{cell},{i % 7}" for i, (t, cell) in enumerate(zip(times, cells, strict=True))]
    panel = read(write(tmp_path / "x.csv", "time,v,w", *rows)).panel
    assert panel.names == ("v", "w")
    np.testing.assert_allclose(panel.of(0), values, rtol=1e-6)

    rows[150] = rows[150].replace(cells[150], text.format("off"))
    assert failure(write(tmp_path / "y.csv", "time,v,w", *rows)).location.line == 152


@pytest.mark.parametrize("text", ["Pump {}", "{} Main Street", "Building {} North", "{}:00", "#{}"])
def test_a_text_around_whole_numbers_is_a_name(tmp_path, text):
    times = pd.date_range("2026-03-01", periods=30, freq="1h")
    rows = [f"{t},{text.format(i)},{i}.{h}" for i in range(1, 13) for h, t in enumerate(times)]
    panel = read(write(tmp_path / "x.csv", "time,name,v", *rows), series="name").panel
    assert set(panel.names) == {text.format(i) for i in range(1, 13)}
