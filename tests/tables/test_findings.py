"""Faults are found in sensors of every kind, and sensors without one are left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.panel import Panel
from rnnforecast.errors import Proposal
from rnnforecast.events import Event, WarningEvent
from rnnforecast.tables.cleaning import warn_of_suspect_readings
from rnnforecast.tables.profile import profile_panel, spikes_by_series
from rnnforecast.tables.quality import find_quality_issues
from rnnforecast.tables.spikes import find_spikes, spikes_of
from rnnforecast.units import parse_ranges
from tests.builders import make_panel, wave
from tests.data.sensors import SENSORS, N, findings
from tests.data.tables import few, read

STEADY = ("temperature", "pressure", "air pressure", "voltage", "flow", "machine")
"""Sensors whose jumps are all of one size."""


def sensor(name: str, seed: int = 0) -> np.ndarray:
    return SENSORS[name](np.random.default_rng(seed)).astype(np.float32)


@pytest.mark.parametrize("name", SENSORS)
def test_a_sensor_without_a_fault_has_no_finding(name):
    panel = make_panel(*(sensor(name, seed) for seed in range(25)))
    assert findings(panel) == set()


@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize("height", [-20, 15, 40, 1000])
@pytest.mark.parametrize("length", [1, 2])
def test_one_or_two_readings_far_off_are_a_spike_at_any_height(name, height, length):
    readings = sensor(name, seed=1)
    unit = max(np.diff(readings).std(), readings.std() / 8)
    readings[700 : 700 + length] += height * unit

    assert findings(make_panel(sensor(name), readings)) == {("spike", "s1", float(readings[700]))}


def test_a_pressure_that_reads_nothing_or_twice_as_much_once_has_spikes():
    readings = sensor("pressure")
    readings[[300, 900]] = 0, 9.98
    assert findings(make_panel(readings)) == {
        ("spike", "s0", 0.0),
        ("spike", "s0", float(np.float32(9.98))),
    }


@pytest.mark.parametrize("name", ["rain", "downpours", "gusts", "household", "spare parts"])
def test_what_jumps_by_factors_needs_a_factor_more_to_have_a_spike(name):
    readings = sensor(name)
    readings[700] = 2 * readings.max()
    assert findings(make_panel(readings)) == set()


def test_a_kind_of_reading_is_no_spike_but_a_few_of_one_level_are():
    readings = sensor("temperature")
    for n, expected in ((4, 4), (5, 0), (12, 0)):
        spiky = readings.copy()
        spiky[100 : 100 + 50 * n : 50] += 80
        assert len(find_spikes(make_panel(spiky)).begin) == expected


def test_levels_around_a_gap_and_at_the_ends_are_no_spikes():
    readings = sensor("temperature")
    readings[0], readings[-1] = 500, -500
    readings[600:900] = np.nan
    readings[900:] += 70
    assert len(find_spikes(make_panel(readings)).begin) == 0

    readings[1200], readings[1500:1502] = 9000, 7000
    spikes = find_spikes(make_panel(wave(50), readings))
    assert (spikes.begin - 50).tolist() == [1200, 1500]
    assert spikes.length.tolist() == [1, 2]
    assert spikes.series.tolist() == [1, 1]


@few
@given(st.integers(0, 10_000), st.floats(0.01, 1e6), st.floats(-1e6, 1e6))
def test_spikes_do_not_depend_on_the_unit_or_the_sign(seed, scale, shift):
    rng = np.random.default_rng(seed)
    values = wave(300, seed=seed).astype(np.float64)
    values[rng.integers(5, 295, 3)] += rng.normal(0, 60, 3)
    no_gap = np.zeros(300, bool)

    assert spikes_of(shift + scale * values, no_gap) == spikes_of(values, no_gap)
    assert spikes_of(-values, no_gap) == spikes_of(values, no_gap)


@few
@given(st.integers(0, 10_000))
def test_series_of_a_panel_are_searched_as_if_each_were_alone(seed):
    rng = np.random.default_rng(seed)
    series = []
    for i in range(8):
        readings = wave(int(rng.integers(10, 400)), seed=seed + i)
        readings[rng.integers(0, len(readings), 3)] += rng.normal(0, 60, 3)
        readings[rng.random(len(readings)) < 0.05] = np.nan
        series.append(readings)

    together = find_spikes(make_panel(*series))
    alone = [find_spikes(make_panel(readings)) for readings in series]

    first = np.cumsum([0, *map(len, series)])
    assert together.begin.tolist() == [
        int(n + begin) for n, runs in zip(first, alone, strict=False) for begin in runs.begin
    ]


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("value", [-9999, 999999])
def test_a_value_that_loggers_write_is_found_in_sensors_of_every_kind(name, value):
    readings = sensor(name)
    readings[np.random.default_rng(0).random(N) < 0.02] = value
    assert findings(make_panel(readings)) == {("sentinel", "s0", value)}


@pytest.mark.parametrize("value", [9999.9, -99.99, -999.9, 6553.5, 3276.7, -327.68, 65535])
def test_nines_and_full_registers_are_found_however_often(value):
    readings = sensor("temperature")
    readings[np.random.default_rng(0).random(N) < 0.1] = value

    assert findings(make_panel(readings)) == {("sentinel", "s0", float(np.float32(value)))}


@pytest.mark.parametrize("name", ["temperature", "pressure", "air pressure", "voltage", "walk"])
@pytest.mark.parametrize("length", [60, 300])
def test_a_sensor_that_moves_and_stops_is_stuck(name, length):
    readings = sensor(name)
    readings[1000 : 1000 + length] = readings[1000]
    assert findings(make_panel(readings)) == {("stuck-sensor", "s0", float(readings[1000]))}


@pytest.mark.parametrize(
    "name", ["solar", "rain", "valve in steps", "contact", "set point", "coarse thermometer"]
)
def test_what_rests_by_itself_is_not_stuck(name):
    readings = sensor(name)
    readings[1000:1250] = readings.min()
    assert findings(make_panel(readings)) == set()


def faulty(name: str, seed: int) -> np.ndarray:
    """Make a sensor that hangs, has a spike, and writes -999."""
    readings = sensor(name, seed)
    readings[500:700] = readings[500]
    readings[900] = 1e5
    readings[[1200, 1300]] = -999
    return readings


@pytest.mark.parametrize("name", SENSORS)
def test_a_series_beside_others_changes_none_of_their_findings(name):
    series = [faulty("temperature", 0), sensor("rain"), faulty("pressure", 1)]
    alone = findings(make_panel(*series))
    assert {code for code, _, _ in alone} == {"stuck-sensor", "sentinel", "spike"}
    assert {f for f in findings(make_panel(*series, faulty(name, 2))) if f[1] != "s3"} == alone


def test_a_finding_has_its_share_of_the_readings():
    readings = faulty("temperature", 0)
    readings[2000:2400] = np.nan
    profile = profile_panel(make_panel(sensor("pressure"), readings))
    shares = {finding.code: (finding.count, finding.percent) for finding in profile.findings}
    assert shares == {
        "stuck-sensor": (200, 10.0),
        "sentinel": (2, 0.1),
        "spike": (1, 0.05),
    }


def proposals(panel: Panel) -> list[Proposal]:
    events: list[Event] = []
    warn_of_suspect_readings(panel, events.append)
    warnings = [event for event in events if isinstance(event, WarningEvent)]
    return [p for warning in warnings for p in warning.proposals]


def test_a_time_that_would_leave_out_what_rests_is_not_proposed():
    stuck = sensor("pressure")
    stuck[1000:1060] = stuck[1000]
    assert [p.options for p in proposals(make_panel(stuck))] == [("--stuck-as-na", "60h")]
    assert "drops 60 of 4800 readings" in str(*proposals(make_panel(stuck, sensor("walk"))))

    rests = sensor("set point")  # for 72 hours at a time
    stuck[1000:1072] = stuck[1000]
    assert proposals(make_panel(stuck, rests)) == []
    stuck[1000:1073] = stuck[1000]
    (proposal,) = proposals(make_panel(stuck, rests))
    assert proposal.options == ("--stuck-as-na", "73h")


def test_a_value_that_is_a_reading_elsewhere_is_not_proposed_as_missing():
    level, power = sensor("temperature"), np.round(900 + 300 * wave(N))
    level[[30, 200, 201]] = -999
    assert [p.options for p in proposals(make_panel(level, power))] == [("--na-values", "-999")]
    power = np.linspace(-2000, 2000, 4001)
    panel = make_panel(level, power)
    assert ("sentinel", "s0", -999) in findings(panel)
    assert proposals(panel) == []
    assert profile_panel(panel).sentinels == ()


@few
@given(
    st.lists(st.tuples(st.integers(5, N - 5), st.floats(-500, 500)), min_size=1, max_size=3),
    st.sampled_from(STEADY),
)
def test_a_proposed_range_keeps_every_reading_but_spikes(spikes, name):
    readings = sensor(name)
    for row, height in spikes:
        readings[row] += height
    panel = make_panel(readings)
    found = find_spikes(panel)
    is_spike = np.zeros(N, bool)
    for begin, length in zip(found.begin, found.length, strict=True):
        is_spike[begin : begin + length] = True

    for series in spikes_by_series(panel, find_quality_issues(panel).sentinels):
        if series.proposal is not None:
            ((low, high),) = parse_ranges("valid-range", series.proposal.options[1:]).values()
            is_kept = (readings >= low) & (readings <= high)
            assert is_kept[~is_spike].all()
            assert not is_kept.all()


def test_the_faults_that_were_planted_into_the_samples_are_found():
    panel = read("sample_data/pumping_station.csv").panel
    rounded = {(code, series, round(value, 2)) for code, series, value in findings(panel)}
    assert rounded == {
        ("stuck-sensor", "pressure_bar", 4.72),
        ("spike", "pressure_bar", 0.0),
        ("spike", "pressure_bar", 9.98),
        ("spike", "flow_m3h", 612.0),
        ("spike", "flow_m3h", 0.0),
        ("spike", "flow_m3h", 588.4),
        ("spike", "power_kw", 147.5),
    }


def test_a_proposal_says_what_it_leaves_out():
    spiky = sensor("pressure")
    spiky[300] = 9.98
    (warning,) = profile_panel(make_panel(spiky)).warnings
    assert warning.advice == (
        "if they are wrong, add  --valid-range s0=:8  (drops 1 of 2400 readings)"
    )


def warned(*series: np.ndarray) -> set[str]:
    """Return the codes of the warnings about readings."""
    events: list[Event] = []
    warn_of_suspect_readings(make_panel(*series), events.append)
    return {e.code for e in events if isinstance(e, WarningEvent)} - {"spike", "sentinel"}


@pytest.mark.parametrize("name", SENSORS)
def test_a_sensor_without_a_fault_has_lost_no_sign_or_decimal_point_and_holds_no_sum(name):
    series = [sensor(name, seed) for seed in range(10)]
    scaled = [s / s.max() * 250 for s in series if s.max() > 0]
    decimals = [np.round(s / 7, 2) for s in series]
    assert not warned(*series, *scaled, *decimals) & {"lost-sign", "lost-point", "sum"}


@pytest.mark.parametrize(("modulus", "unit"), [(256, 1), (6553.6, 0.1), (2**32, 50)])
@pytest.mark.parametrize("level", [0.0, 25.0])
def test_negative_numbers_that_are_read_as_unsigned_are_found(modulus, unit, level):
    values = np.rint(4 * (wave(600) - 20) + level)
    wrapped = np.where(values < 0, values * unit + modulus, values * unit)
    assert "lost-sign" not in warned(values)
    assert ("lost-sign" in warned(wrapped)) == (values < 0).any()


def test_a_lamp_and_a_load_of_two_levels_are_not_signed_numbers():
    rng = np.random.default_rng(1)
    is_on = np.arange(600) // 7 % 2 == 1
    lamp = np.where(is_on, 255, 0)
    load = np.where(is_on, 252 + 3 * rng.random(600), 3 * rng.random(600))
    assert not warned(lamp, load)


@pytest.mark.parametrize("every", [3, 50])
@pytest.mark.parametrize("n_digits", [1, 2, 3])
def test_readings_without_their_decimal_point_are_found(every, n_digits):
    values = np.round(wave(600).astype(float), n_digits)
    broken = values.copy()
    broken[::every] = np.rint(values[::every] * 10**n_digits)
    assert "lost-point" not in warned(values)
    assert "lost-point" in warned(broken)


def test_rare_large_readings_of_three_digits_are_not_without_a_point():
    rng = np.random.default_rng(2)
    heavy = np.array([float(f"{x:.3g}") for x in rng.lognormal(1, 2.5, 2000)])
    assert "lost-point" not in warned(heavy)


def test_a_sum_at_either_end_of_a_series_is_found():
    values = np.round(wave(100).astype(float), 1)
    assert "sum" in warned(np.append(values, values.sum()))
    assert "sum" in warned(np.append(values.sum(), values))
    assert "sum" not in warned(values)
    assert "sum" not in warned(np.append(np.zeros(99), [3.0, 3.0]))  # two showers


def marked(name: str, usual: object, mark: object, bad: float | None, *, run: int = 1):
    """Make a table of hourly readings, some of which a column marks; they are `bad` if given."""
    is_marked = np.arange(300) % (12 * run) < run
    readings = wave(300).astype(np.float64).round(1)
    if bad is not None:
        readings[is_marked] = bad
    marks = np.where(is_marked, np.array([mark], object), np.array([usual], object))
    stamps = pd.date_range("2024-01-01", periods=300, freq="1h")
    return pd.DataFrame({"when": stamps, "v": readings, name: marks, "hum": wave(300, seed=1)})


@pytest.mark.parametrize(
    ("name", "usual", "mark"),
    [
        ("quality", "Good", "Bad"),
        ("v_q", 192, 0),
        ("state", "OK", "sensor fault"),
        ("q", None, "M"),
    ],
)
def test_readings_that_a_column_marks_as_bad_are_found_and_left_out(name, usual, mark):
    table = marked(name, usual, mark, 0.0)

    warning = read(table).warnings["bad-quality"]

    assert (warning.count, f"{name!r} is '{mark}' are all 0" in warning.message) == (25, True)
    assert [p.options[0] for p in warning.proposals] == ["--na-values", "--valid-range"]
    for proposal in warning.proposals:
        option = proposal.options[0].removeprefix("--").replace("-", "_")
        result = read(table, **{option: (proposal.options[1],)})
        assert "bad-quality" not in result.warnings
        assert result.panel.count_readings().tolist()[:2] == [275, 300]


def test_bad_readings_of_several_values_are_left_out_by_a_range():
    table = marked("quality", "Good", "Bad", None)
    table.loc[table.quality == "Bad", "v"] *= 20

    (proposal,) = read(table).warnings["bad-quality"].proposals

    assert proposal.options[0] == "--valid-range"
    assert read(table, valid_range=(proposal.options[1],)).panel.count_readings()[0] == 275


@pytest.mark.parametrize(
    ("name", "mark", "bad", "run"),
    [
        ("mode", "defrost", 0.0, 1),  # a state of the machine, with its reading
        ("promo_flag", 1, 60.0, 1),
        ("quality", "Bad", None, 1),  # as good as the others
        ("quality", "Bad", 0.0, 6),  # an outage
    ],
)
def test_states_and_good_readings_are_not_bad(name, mark, bad, run):
    usual = "run" if isinstance(mark, str) else 0

    assert "bad-quality" not in read(marked(name, usual, mark, bad, run=run)).warnings


CROSSINGS = 3 * np.sin(np.arange(800) / 7) + np.random.default_rng(3).normal(0, 0.1, 800)


@pytest.mark.parametrize("texts", [("import", "export"), ("+", "-"), (1, 0)])
@pytest.mark.parametrize("n_sensors", [1, 2])
def test_a_column_that_tells_the_sign_of_readings_is_reported(texts, n_sensors):
    state = np.where(CROSSINGS > 0, *np.array(texts, object))
    stamps = pd.date_range("2024-01-01", periods=800, freq="1h")
    table = pd.DataFrame({"when": stamps, "v": np.abs(CROSSINGS), "flow": state})
    sensors = pd.concat([table.assign(sensor=name) for name in "pq"[:n_sensors]])
    table = sensors if n_sensors > 1 else table

    message = read(table).warnings["sign-column"].message

    assert message.startswith("the readings of 'v' go down to 0 and up again where 'flow' changes")


@pytest.mark.parametrize(
    "state",
    [
        CROSSINGS > 2.5,  # a high level
        np.abs(CROSSINGS) < 0.5,  # a low one
        np.gradient(CROSSINGS) > 0,  # rising
        np.arange(800) % 24 < 12,  # day and night
    ],
)
def test_a_state_is_no_sign(state):
    stamps = pd.date_range("2024-01-01", periods=800, freq="1h")
    table = pd.DataFrame({"when": stamps, "v": np.abs(CROSSINGS)})

    assert "sign-column" not in read(table.assign(state=np.where(state, "a", "b"))).warnings
    sun = np.maximum(CROSSINGS, 0) + 0.01
    is_day = np.where(CROSSINGS > 0, "day", "night")
    assert "sign-column" not in read(table.assign(v=sun, state=is_day)).warnings
