"""The picture in the terminal: as wide as asked, with its gaps, and its begin of the forecast."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from rnnforecast.report.plots import terminal_plot
from tests.report.fans import make_fan, without_readings


def dots(lines: list[str]) -> np.ndarray:
    """Return which characters of the picture hold a dot, `(line, column)`."""
    rows = [line.split("┤")[1] for line in lines if "┤" in line]
    return np.array([[0x2800 < ord(c) <= 0x28FF for c in row] for row in rows])


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("name", ["flow", "a very long name of a sensor in building 7, floor 3"])
def test_no_line_is_wider_than_asked(width: int, name: str) -> None:
    lines = terminal_plot(make_fan(name), width=width)

    assert max(map(len, lines)) <= width
    assert dots(lines).any()


def test_without_colour_no_line_holds_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in "".join(terminal_plot(make_fan("a\x1b[31mb"), width=80))
    assert "\x1b[" in "".join(terminal_plot(make_fan(), width=80, has_color=True))


def test_ascii_holds_what_any_terminal_shows() -> None:
    lines = terminal_plot(make_fan("Höhe"), width=60, is_unicode=False)

    assert all(line.isascii() for line in lines)
    assert sum(line.count("*") for line in lines) > 50


def test_a_gap_is_empty_and_the_forecast_begins_at_its_mark() -> None:
    fan = replace(make_fan(has_actual=False), quantiles=(0.5,), values=np.full((24, 1), 20.0))
    lines = terminal_plot(fan, width=130)
    seen = dots(lines)
    columns = np.flatnonzero(seen.any(0))

    place = round(96 / 119 * (seen.shape[1] - 1))
    mark = next(line for line in lines if "┴" in line).index("┴") - 10
    assert mark == place
    gap = [round(row / 119 * (seen.shape[1] - 1)) for row in (42, 48)]
    assert not seen[:, gap[0] : gap[1]].any()
    assert columns[0] == 0
    assert columns[-1] == seen.shape[1] - 1


def test_a_ramp_rises() -> None:
    fan = make_fan(n_rows=40, has_actual=False)
    ramp = replace(fan, readings=np.arange(40.0), values=np.arange(40.0, 64)[:, None])
    seen = dots(terminal_plot(replace(ramp, quantiles=(0.5,)), width=80))
    mark = round(40 / 63 * (seen.shape[1] - 1))

    highest = [
        int(np.argmax(seen[:, column]))
        for column in range(seen.shape[1])
        if seen[:, column].any() and abs(column - mark) > 1
    ]
    assert all(above <= below for below, above in pairwise(highest))
    assert highest[0] > 10
    assert highest[-1] < 3


def test_a_forecast_alone_and_a_constant_are_drawn() -> None:
    alone = terminal_plot(without_readings(make_fan()), width=60)
    constant = replace(without_readings(make_fan(has_actual=False)), values=np.full((24, 11), 7.0))

    assert dots(alone).any()
    assert dots(terminal_plot(constant, width=60)).any()
    assert "7.000" in "\n".join(terminal_plot(constant, width=60))


def test_nothing_to_show_is_said() -> None:
    empty = replace(without_readings(make_fan(has_actual=False)), values=np.full((24, 11), np.nan))
    assert terminal_plot(empty, width=60) == ["flow: nothing to show"]


def test_the_axis_names_the_first_the_last_and_the_forecasts_first_time() -> None:
    lines = terminal_plot(make_fan(tz="Asia/Kolkata"), width=100)

    assert "forecast from 2024-01-05 05:30:00+05:30" in lines[-2]
    assert lines[-1].split() == ["2024-01-01", "05:30:00+05:30", "2024-01-06", "04:30:00+05:30"]
