"""Tables on a screen: never wider. Names give way from their middle, then columns go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rnnforecast.cli.console import Screen, fit_table

HEADER = ("series", "rows", "missing %", "longest gap")


def width_of(rows: list) -> int:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


@given(
    st.lists(st.text("aé温度 ", min_size=1, max_size=60), min_size=1, max_size=4),
    st.integers(22, 120),
)
def test_a_table_is_never_wider_than_the_screen(names: list[str], width: int) -> None:
    rows = [(name, "1234", "0.5", "12") for name in names]
    header, shown, left_out = fit_table(HEADER, rows, width)
    assert width_of([header, *shown]) <= width
    assert [*header, *left_out] == [*HEADER]
    assert [row[1:] for row in shown] == [[*row[1 : len(header)]] for row in rows]


def test_a_table_that_fits_is_left_as_it_is() -> None:
    rows = [("flow", "1", "2", "3")]
    width = width_of([HEADER, *rows])
    assert fit_table(HEADER, rows, width) == ([*HEADER], [[*rows[0]]], ())


def test_names_keep_their_beginning_and_their_end() -> None:
    rows = [("plant-7/pump-12/vibration-x", "1", "2", "3")]
    _, (row,), left_out = fit_table(HEADER, rows, 45)
    assert not left_out
    begin, end = row[0].split("…")
    assert rows[0][0].startswith(begin) and rows[0][0].endswith(end)
    assert 0 <= len(begin) - len(end) <= 1


def test_what_does_not_fit_is_named_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    Screen().table(HEADER, [("a sensor", "1234", "0.5", "12")])
    out, err = capsys.readouterr()
    assert "longest gap" not in out and max(map(len, out.splitlines())) <= 30
    assert "longest gap" in err and "--json" in err


def test_a_file_takes_tables_of_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "x" * 300
    Screen().table(HEADER, [(name, "1234", "0.5", "12")])
    out, err = capsys.readouterr()
    assert name in out and "longest gap" in out and err == ""
