"""What is strange about a panel, as stretches with their series and times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rnnforecast.data.panel import Panel
from rnnforecast.events import Event, WarningEvent
from rnnforecast.tables import quality
from rnnforecast.tables.cleaning import warn_of_suspect_readings
from rnnforecast.tables.quality import Segment, find_quality_issues
from tests.builders import HOUR_US, START_US, make_panel, wave
from tests.data.tables import read, write


def strange() -> Panel:
    """Five series: stuck, as usual, with a sentinel, constant, and with two sentinels."""
    stuck, sentinel, both = wave(300), wave(200, seed=1), wave(100, seed=2)
    stuck[50:90] = stuck[50]
    sentinel[[3, 70, 199]] = -999
    both[40], both[70] = -9999, 9999
    return make_panel(stuck, wave(150), sentinel, np.full(80, 4.0), both)


@pytest.mark.parametrize("block_rows", [1, 400, 1 << 22])
def test_stretches_have_their_series_value_and_times_whatever_the_parts(
    block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "BLOCK_ROWS", block_rows)
    panel = strange()

    found = find_quality_issues(panel)

    def hours(segment: Segment) -> tuple[str, float, int, int, int]:
        first, last = ((us - START_US) // HOUR_US for us in (segment.start_us, segment.end_us))
        return segment.series, segment.value, segment.n_rows, first, last

    assert found.constant == ("s3",)
    assert [hours(one) for one in found.stuck] == [("s0", float(panel.of(0)[50]), 40, 50, 89)]
    assert sorted(hours(one) for one in found.sentinels) == [
        ("s2", -999, 3, 3, 199),
        ("s4", -9999, 1, 40, 40),
        ("s4", 9999, 1, 70, 70),
    ]


def test_values_are_in_the_units_of_the_sensor() -> None:
    panel = replace(make_panel(strange().of(0)), base=np.array([1e8]))
    (one,) = find_quality_issues(panel).stuck
    assert one.value == 1e8 + float(panel.target[50])


def warnings(panel: Panel) -> list[WarningEvent]:
    said: list[Event] = []
    warn_of_suspect_readings(panel, said.append)
    return [event for event in said if isinstance(event, WarningEvent)]


def test_however_many_series_have_sentinels_a_few_lines_say_so() -> None:
    series = []
    for i in range(300):
        readings = wave(60, seed=i)
        readings[[5, 9, 30]] = 2000 if i < 4 else 1000 + i // 2
        series.append(readings)

    said = warnings(make_panel(*series))

    assert [w.code for w in said] == ["sentinel"] * 5 + ["more-sentinels"]
    assert sum(w.count for w in said) == 300 * 3
    assert any("2000 occurs 12 times" in w.text and "in s0, s1, s2, s3;" in w.text for w in said)
    assert all(len(w.message) < 300 for w in said)


def test_of_many_stuck_sensors_the_longest_are_named() -> None:
    series = [wave(200, seed=i) for i in range(40)]
    for i, readings in enumerate(series):
        readings[100 : 130 + i] = readings[100]

    (said,) = warnings(make_panel(*series))

    assert (said.code, said.count) == ("stuck-sensor", 40)
    assert "stuck at one value: s39 from" in said.message and "and 35 more" in said.message
    assert "--stuck-as-na 30h" in said.text


@pytest.mark.parametrize("level", [20, 1013])
@pytest.mark.parametrize(
    "code",
    [
        *("-999.25", "-99999.99", "999999.9", "-9999.999", "99999999", "-999999999", "100000000"),
        *("2147483647", "4294967295", "6553.5", "8888888", "1e10", "1e15"),
        *("-999999.99", "99999.999", "-9999999.9", "1000000"),
    ],
)
def test_the_option_that_is_offered_drops_the_sentinel_as_it_is_written(tmp_path, level, code):
    rng = np.random.default_rng(1)
    readings = level * (1 + 0.3 * np.sin(np.arange(600) / 23) + rng.normal(0, 0.01, 600))
    is_code = rng.random(600) < 0.03
    times = pd.date_range("2026-01-01", periods=600, freq="10min")
    cells = np.where(is_code, code, [f"{reading:.2f}" for reading in readings])
    rows = [f"{time},{cell}" for time, cell in zip(times, cells, strict=True)]
    path = write(tmp_path / "x.csv", "time,v", *rows)

    (proposal,) = read(path).warnings["sentinel"].proposals
    panel = read(path, na_values=proposal.options[1::2]).panel
    assert np.isnan(panel.of(0)).tolist() == is_code.tolist()
