"""Readings into the steps of `--freq`: lost readings, counters, directions, values that hold."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnnforecast.errors import UsageError
from rnnforecast.tables.bins import count_increments, local_pace
from tests.builders import HOUR_US, START_US, wave
from tests.data.tables import failure, few, hourly, read, write

MINUTE_US = 60_000_000
NAN = float("nan")


def table(minutes: object, readings: object, name: str = "v") -> pa.Table:
    """Make a table of readings at these minutes of 2024."""
    times = START_US + np.asarray(minutes, np.int64) * MINUTE_US
    return pa.table(
        {"ts": pa.array(times.view("datetime64[us]")), name: np.asarray(readings, float)}
    )


def target(result) -> list[float]:
    return result.panel.target.tolist()


def slow_expected(minutes: list[int], pace: int, step: int) -> dict[int, int]:
    """Count the readings that each bin would have, had none been lost between the first and last.

    All bins that hold a reading are whole but for the lost ones: a reading is due at every pace.
    """
    bins = {minute // step for minute in minutes}
    due = range(minutes[0] % pace, max(bins) * step + step, pace)
    return {number: sum(minute // step == number for minute in due) for number in bins}


@few
@given(
    st.sets(st.integers(0, 59), min_size=40, max_size=60),
    st.sampled_from([5, 10, 15]),
    st.sampled_from(["sum", "mean", "last", "min", "max"]),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_a_bin_with_too_few_of_its_readings_is_missing(numbers, pace, rule, min_share):
    minutes = [pace * number for number in sorted(numbers)]
    values = [float(minute % 7 + 1) for minute in minutes]
    due = slow_expected(minutes, pace, 60)
    in_bin = {b: [v for m, v in zip(minutes, values, strict=True) if m // 60 == b] for b in due}
    rules = {
        "sum": sum,
        "mean": np.mean,
        "last": lambda seen: seen[-1],
        "min": min,
        "max": max,
    }

    assume(any(len(in_bin[b]) >= min_share * due[b] for b in due if b != max(due)))

    panel = read(table(minutes, values), freq="1h", agg=rule, min_share=min_share).panel

    for number, seen in in_bin.items():
        row = number - (int(panel.start[0]) - START_US) // HOUR_US
        share = len(seen) / due[number]
        is_newest = number == max(in_bin)
        value = panel.target[row] if 0 <= row < len(panel.target) else NAN
        if share < min_share:
            assert np.isnan(value)
        elif not is_newest or minutes[-1] + 1.5 * pace >= number * 60 + 60:
            expected = rules[rule](seen) / (share if rule == "sum" else 1)
            assert value == pytest.approx(expected, rel=1e-6)


@few
@given(st.permutations(range(48)), st.sampled_from(["sum", "mean", "last"]))
def test_the_value_of_a_bin_does_not_depend_on_the_order_of_rows(order, rule):
    minutes, values = np.arange(48) * 10 + 3, np.arange(48.0) % 5
    expected = read(table(minutes, values), freq="1h", agg=rule).panel

    shuffled = table(minutes[list(order)], values[list(order)])

    assert read(shuffled, freq="1h", agg=rule).panel.fingerprint() == expected.fingerprint()


def test_a_sum_over_lost_readings_is_missing_or_scaled_and_said():
    minutes = np.arange(0, 600, 5)
    lost = np.isin(minutes, [70, 130, 135, 140, 145])  # one of the second hour, four of the third

    result = read(table(minutes[~lost], np.full(115, 10.0)), freq="1h", agg="sum")

    np.testing.assert_array_equal(result.panel.target, [120, 120, NAN, *[120] * 7])
    assert result.warnings["incomplete-bins"].count == 2
    as_they_are = read(table(minutes[~lost], np.full(115, 10.0)), freq="1h", agg="sum", min_share=0)
    assert target(as_they_are) == [120, 110, 80, *[120] * 7]
    assert "incomplete-bins" not in as_they_are.warnings


def test_a_missing_cell_counts_as_a_lost_reading():
    values = np.ones(60)
    values[12:20] = NAN

    panel = read(table(np.arange(60) * 5, values), freq="1h", agg="mean").panel

    np.testing.assert_array_equal(panel.target, [1, NAN, 1, 1, 1])


def test_the_first_hour_of_a_table_is_left_out_where_it_is_not_whole():
    minutes = np.arange(40, 360, 5)

    result = read(table(minutes, np.ones(len(minutes))), freq="1h", agg="sum")

    assert (target(result), result.panel.start[0]) == ([12] * 5, START_US + HOUR_US)
    assert "incomplete-bins" not in result.warnings
    assert "incomplete steps at the ends" in result.notes


def test_each_series_has_its_own_pace_and_so_has_each_stretch_of_one():
    hours = [60 * np.arange(48), 5 * np.arange(12 * 48)]
    changes = np.concatenate([np.arange(24) * 60, 24 * 60 + np.arange(24 * 12) * 5])
    stamps = np.concatenate([*hours, changes])
    names = np.repeat(["slow", "fast", "both"], [48, 12 * 48, len(changes)])
    rows = table(stamps, np.ones(len(stamps))).append_column("id", pa.array(names))

    panel = read(rows, series="id", freq="1h", agg="sum").panel

    assert panel.of(0).tolist() == [1] * 48
    assert panel.of(1).tolist() == [12] * 48
    assert panel.of(2).tolist() == [1] * 24 + [12] * 24


def test_stamps_that_jitter_over_the_edges_of_bins_lack_nothing():
    seconds = np.arange(400) * 900 + np.random.default_rng(0).integers(-60, 60, 400)
    rows = pa.table(
        {"ts": pa.array((START_US + seconds * 10**6).view("datetime64[us]")), "v": np.ones(400)}
    )

    result = read(rows, freq="1h", agg="mean", min_share=1)

    assert "incomplete-bins" not in result.warnings
    assert np.isfinite(result.panel.target).all()


@pytest.mark.parametrize("n_off", [0, 3])
def test_a_stamp_a_little_early_lies_in_the_bin_of_its_time(n_off):
    seconds = 60 * np.arange(1000) + np.random.default_rng(0).integers(-3, 4, 1000)
    seconds[[300, 500, 700][:n_off]] += 21  # far off: where they are
    times = pa.array((START_US + seconds * 1_000_000).view("datetime64[us]"))
    readings = pa.table({"ts": times, "v": np.arange(1000.0)})

    minutes = read(readings, freq="1min", agg="mean")
    hours = read(readings, freq="1h", agg="mean").panel

    assert target(minutes) == list(range(1000))
    assert hours.target.tolist()[:16] == [60 * hour + 29.5 for hour in range(16)]


def test_readings_that_come_as_they_like_have_no_pace():
    times = np.cumsum(np.random.default_rng(0).exponential(60, 500)).astype(np.int64)
    assert np.isnan(local_pace(times, np.zeros(500, np.int64))).all()
    regular = np.array([0, 20, 40, 60, 80, 140, 160]), np.zeros(7, np.int64)
    assert local_pace(*regular).tolist() == [20] * 7


@few
@given(
    st.lists(st.integers(0, 9), min_size=30, max_size=80),
    st.sets(st.integers(1, 79), max_size=20),
    st.sampled_from([60, 120, 240]),
)
def test_what_a_counter_counted_in_all_bins_is_the_last_count_less_the_first(
    increments, lost, minutes
):
    counts = np.cumsum(increments) + 50_000.0
    counts[[i for i in lost if i < len(counts) - 1]] = NAN
    table_of_counts = table(np.arange(len(counts)) * 20, counts)

    result = read(table_of_counts, counter=("v",), freq=f"{minutes}min", agg="sum", min_share=0)

    # what was counted over a hole across the edge of a bin belongs to none of them
    seen = np.flatnonzero(np.isfinite(counts))
    known = [
        (a, b) for a, b in pairwise(seen) if b - a == 1 or a * 20 // minutes == b * 20 // minutes
    ]
    expected = sum(counts[b] - counts[a] for a, b in known)
    assert np.nansum(result.panel.target) == pytest.approx(expected, abs=1e-3)


def test_a_counter_is_differenced_before_its_counts_are_binned():
    used = np.abs(np.random.default_rng(1).normal(1, 0.3, 24 * 12))
    counts = 1000 + np.cumsum(used)
    counts[200:] -= counts[199]  # exchanged
    counts[110:118] = NAN  # within a day
    counts[160:175] = NAN  # over midnight
    pulses = (65_000 + 10 * np.arange(24 * 12)) % 65_536
    frame = pd.DataFrame(
        {"ts": pd.date_range("2024-01-01", periods=24 * 12, freq="1h"), "kwh": counts, "n": pulses}
    )

    result = read(frame, counter=("kwh", "n"), freq="1d", agg="sum")

    kwh, n = result.panel.of(0), result.panel.of(1)
    days = [used[24 * day + 1 : 24 * day + 25].sum() for day in range(11)]
    assert np.flatnonzero(np.isnan(kwh)).tolist() == [6, 7]
    np.testing.assert_allclose(np.delete(kwh, [6, 7])[:9], np.delete(days, [6, 7]), rtol=1e-5)
    assert n.tolist() == [240] * 12
    codes = {code: w.count for code, w in result.warnings.items() if code.startswith("counter")}
    assert codes == {"counter-reset": 1, "counter-rollover": 1}


@pytest.mark.parametrize("night_use", [0.0, 0.1])
def test_a_meter_that_is_not_read_by_night_counts_by_day(night_use):
    hours = np.arange(24 * 30)
    is_read = (hours % 24 >= 5) & (hours % 24 < 22)
    used = np.where(is_read, 1.0, night_use)
    counts = 7000 + np.cumsum(used)
    days = 30 * [17 + 7 * night_use]

    counted = table(60 * hours[is_read], counts[is_read])
    result = read(counted, counter=("v",), freq="1d", agg="sum")

    assert len(target(result)) == 30
    np.testing.assert_allclose(result.panel.target[1:-1], days[1:-1], atol=0.3)
    assert "incomplete-bins" not in result.warnings


def test_lost_counts_cost_a_meter_no_day():
    counts = 7000 + np.cumsum(np.full(96 * 20, 0.25))
    is_kept = np.random.default_rng(2).random(96 * 20) > 0.15
    is_kept[700:900] = False  # two days and their nights

    panel = read(
        table(15 * np.arange(96 * 20), np.where(is_kept, counts, NAN)),
        counter=("v",),
        freq="1d",
        agg="sum",
    ).panel

    assert np.flatnonzero(np.isnan(panel.target)).tolist() == [7, 8, 9]
    np.testing.assert_allclose(panel.target[np.isfinite(panel.target)], 24, rtol=1e-3)


def test_a_reading_between_two_bins_is_shared_by_time():
    counts = np.arange(0.0, 20)

    panel = read(table(np.arange(20) * 40, counts), counter=("v",), freq="1h", agg="sum").panel

    np.testing.assert_allclose(panel.target, 1.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("counts", "increments"),
    [
        ([100, 101, 102, 0, 1, 2], [1, 1, 0, 1, 1]),  # began anew
        ([100, 101, 102, 1, 2, 3], [1, 1, 1, 1, 1]),
        ([100, 101, 102, 0, 104, 105], [1, 1, 2, 1]),  # one zero, misread
        ([100, 101, 102, 0, 0, 0, 106], [1, 1, 4]),
        ([100, 101, 950, 103, 104], [1, 2, 1]),  # one count too high
        ([100, 102, 99, 106, 108], [2, 4, 2]),  # a little too low
        ([100, 101, 102, 60, 61, 62], [1, 1, NAN, 1, 1]),  # another meter
        ([65533, 65535, 1, 3], [2, 2, 2]),
        ([99.8, 99.9, 100.0, 0.1, 0.2], [0.1, 0.1, 0.1, 0.1]),
        ([999.7, 999.9, 0.1, 0.3], [0.2, 0.2, 0.2]),
        ([4294967.290, 4294967.294, 0.001], [0.004, 0.003]),
    ],
)
def test_a_fall_is_a_reset_a_rollover_or_a_misreading(counts, increments):
    usual = increments[0]
    counts = np.append(counts[0] - usual * np.arange(30, 0, -1), counts)

    counted = count_increments(counts, np.arange(len(counts)), np.zeros(len(counts), np.int64))

    kept = counted.increment[counted.is_kept]
    np.testing.assert_allclose(kept[1:], [usual] * 30 + increments, atol=1e-6)
    assert np.isnan(kept[0])


def test_a_counter_beside_a_mean_is_summed_and_that_is_said():
    frame = pd.DataFrame(
        {
            "ts": pd.date_range("2024-01-01", periods=96, freq="15min"),
            "kwh": np.arange(96.0),
            "temp": np.tile([1.0, 2, 3, 4], 24),
        }
    )

    result = read(frame, counter=("kwh",), freq="1h", agg="mean")

    assert (result.panel.of(0)[:23].tolist(), result.panel.of(1).tolist()) == ([4] * 23, [2.5] * 24)
    assert "summed" in result.notes


def test_directions_are_averaged_as_unit_vectors_and_other_columns_by_their_rule():
    frame = pd.DataFrame(
        {
            "ts": pd.date_range("2024-01-01", periods=48, freq="30min"),
            "dir": np.tile([350.0, 20], 24),
            "rain": np.tile([0.5, 1.5], 24),
        }
    )

    result = read(frame, freq="1h", agg=("sum", "dir=angle"))

    np.testing.assert_allclose((result.panel.of(0) + result.panel.base[0]) % 360, 5, atol=1e-3)
    assert result.panel.of(1).tolist() == [2] * 24


@few
@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 9)), min_size=5, max_size=40),
    st.sampled_from(["mean", "last", "min", "max"]),
    st.sampled_from([30, 60, 600]),
)
def test_a_value_holds_until_the_next_one(reports, rule, hold):
    """The slow reference looks at each minute of each bin."""
    minutes = np.cumsum([gap for gap, _ in reports]) - reports[0][0]
    values = [float(value) for _, value in reports]
    assume(minutes[-1] > 60)
    result = read(table(minutes, values), freq="30min", agg=rule, hold=f"{hold}min")

    steps = np.diff(minutes)
    until = minutes[-1] + float(np.median(steps))
    in_force: dict[int, float] = {}
    for minute in range(int(until)):
        at = int(np.searchsorted(minutes, minute, side="right")) - 1
        if minute < minutes[at] + hold:
            in_force[minute] = values[at]
    first = (int(result.panel.start[0]) - START_US) // (30 * MINUTE_US)
    for number in range(min(int(until), minutes[-1] + 30) // 30):
        held = [in_force[m] for m in range(30 * number, 30 * number + 30) if m in in_force]
        row = number - first
        value = result.panel.target[row] if 0 <= row < len(result.panel.target) else NAN
        if len(held) < 15:
            assert np.isnan(value)
            continue
        rules = {"mean": np.mean, "last": lambda x: x[-1], "min": min, "max": max}
        assert value == pytest.approx(rules[rule](held), abs=1e-5)


def test_an_unchanged_sensor_is_held_on_a_grid_without_an_aggregate():
    values = [1, NAN, NAN, NAN, 5, NAN]

    panel = read(table(np.arange(6) * 60, values), hold="2h").panel

    np.testing.assert_array_equal(panel.target, [1, 1, 1, NAN, 5])


def test_a_sensor_that_reported_last_an_hour_ago_holds_up_to_the_newest_report():
    frame = pd.DataFrame(
        {
            "ts": pd.to_datetime([f"2024-01-01 {h:02d}:00" for h in (0, 1, 2, 3, 0, 1)]),
            "id": list("aaaabb"),
            "v": [1.0, 2, 3, 4, 7, 8],
        }
    )

    panel = read(frame, series="id", freq="1h", agg="last", hold="90min").panel

    assert panel.of(0).tolist() == [1, 2, 3, 4]
    assert panel.of(1).tolist() == [7, 8, 8]


def test_readings_without_holes_are_the_same_bytes_whatever_their_share_must_be():
    frame = pd.DataFrame(
        {"ts": pd.date_range("2024-01-01", periods=2880, freq="1min"), "a": wave(2880)}
    )
    for rule in ("mean", "sum", "last", "min", "max"):
        prints = {
            read(frame, freq="15min", agg=rule, min_share=share).panel.fingerprint()
            for share in (None, 0, 0.5, 1)
        }
        assert len(prints) == 1


N = 400
RNG = np.random.default_rng(0)
HOURS = np.arange(N)
USE = RNG.gamma(2, 0.3, N) * (1 + 0.8 * np.sin(2 * np.pi * HOURS / 24))


def columns_warned_of(code: str, **columns: object) -> tuple[set[str], tuple[str, ...]]:
    """Read columns of hours; return those that a warning names, and the options it proposes."""
    stamps = pd.date_range("2024-01-01", periods=N, freq="1h")
    warning = read(pd.DataFrame({"ts": stamps, **columns})).warnings.get(code)
    if warning is None:
        return set(), ()
    names = warning.message.rpartition(": ")[2].split(", ")
    return set(names), warning.proposals[0].options


def test_counters_are_proposed_as_such():
    columns = {
        "meter": 12_345 + np.cumsum(USE),
        "pulses": np.cumsum(RNG.random(N) < 0.3),
        "exchanged": np.append(np.cumsum(USE[:250]), np.cumsum(USE[250:])),
        "register": 65_000 + np.cumsum(RNG.integers(1, 40, N)) - 65_536,
        "holes": np.where(RNG.random(N) < 0.2, NAN, np.cumsum(USE)),
    }
    columns["register"] %= 65_536

    names, options = columns_warned_of("counter", **columns)

    assert names == set(columns)
    assert options == tuple(word for name in columns for word in ("--counter", name))


def test_a_counter_of_a_long_table_is_proposed_by_its_whole_name():
    stamps = pd.date_range("2024-01-01", periods=N, freq="1h")
    part = pd.DataFrame({"ts": stamps, "in/out m3": np.cumsum(USE), "temp": USE})

    warning = read(pd.concat([part.assign(site="a"), part.assign(site="b")])).warnings["counter"]

    assert warning.proposals[0].options == ("--counter", "in/out m3")


def test_what_rises_without_counting_is_no_counter():
    columns = {
        "row": HOURS,
        "seconds": 1.7e9 + 3600.0 * HOURS,
        "day": HOURS // 24,
        "hour": HOURS % 24,
        "line": np.round(np.linspace(10, 30, N), 1),
        "warms_up": np.round(20 + 60 * (1 - np.exp(-HOURS / 80)), 1),
        "constant": np.full(N, 5.0),
        "setpoint": np.where(HOURS < 200, 20, 22),
        "temperature": wave(N) + HOURS / 50,
        "walk": np.cumsum(RNG.normal(0.2, 1, N)),
        "tank": HOURS % 50 + RNG.normal(0, 1, N),
        "wet_hours": np.where(HOURS % 40 < 4, HOURS % 40, 0),
    }

    assert columns_warned_of("counter", **columns) == (set(), ())


@pytest.mark.parametrize("n_rows", [150, 200, 300])
@pytest.mark.parametrize("seed", range(4))
def test_a_counter_of_less_than_a_day_is_one_by_its_noise(n_rows, seed):
    rng = np.random.default_rng(seed)
    hours = np.arange(n_rows) / 12
    load = 3e7 * (1 + 0.4 * np.sin(2 * np.pi * (hours - 3) / 24))
    counter = np.cumsum(load * (1 + 0.03 * rng.standard_normal(n_rows))).round()
    curve = 1e9 * (1 - np.exp(-hours / 15)) + 3e4 * rng.standard_normal(n_rows)
    times = pd.date_range("2026-01-01", periods=n_rows, freq="5min")
    table = pd.DataFrame({"time": times, "octets": counter, "curve": curve.round()})
    assert (table.diff().dropna()[["octets", "curve"]] > 0).all(axis=None)
    assert read(table).warnings["counter"].message.endswith(": octets")


def test_a_walk_of_fifty_points_that_happens_to_rise_is_no_counter():
    steps = np.abs(RNG.normal(0.5, 0.3, 50))
    assert "counter" not in read(table(np.arange(50) * 60, np.cumsum(steps))).warnings


def test_a_counter_that_is_named_is_not_proposed():
    frame = table(np.arange(N) * 60, np.cumsum(USE), "kwh")
    assert "counter" in read(frame).warnings
    assert "counter" not in read(frame, counter=("kwh",)).warnings


def test_a_column_of_a_long_table_is_proposed_where_all_its_series_count():
    def long(second: object) -> pd.DataFrame:
        frame = pd.DataFrame({"ts": pd.date_range("2024-01-01", periods=N, freq="1h")})
        return pd.concat([frame.assign(id="a", v=np.cumsum(USE)), frame.assign(id="b", v=second)])

    both = read(long(5 + np.cumsum(USE)), series="id").warnings["counter"]
    one = read(long(wave(N)), series="id").warnings["counter"]

    assert (both.count, both.proposals[0].options) == (2, ("--counter", "v"))
    assert (one.count, one.proposals) == (1, ())


def test_directions_are_proposed_as_angles():
    columns = {
        "north": np.round((358 + RNG.normal(0, 12, N)) % 360),
        "around": np.cumsum(RNG.normal(0, 25, N)) % 360,
        "tens": np.round((350 + RNG.normal(0, 25, N)) / 10) * 10 % 360,
        "azimuth": 15.0 * HOURS % 360,
        "yaw": np.round((180 + RNG.normal(0, 12, N) + 180) % 360 - 180),
    }

    names, options = columns_warned_of("direction", **columns)

    assert names == set(columns)
    assert options == tuple(word for name in columns for word in ("--agg", f"{name}=angle"))


def test_what_jumps_between_two_levels_is_no_direction():
    is_on = HOURS // 7 % 2 == 1
    columns = {
        "south": 180 + RNG.normal(0, 20, N),
        "noise": RNG.uniform(0, 360, N),
        "load": np.where(is_on, 358 + RNG.normal(0, 0.5, N), np.abs(RNG.normal(0, 0.5, N))),
        "sun": np.clip(359 * np.sin(2 * np.pi * HOURS / 24), 0, None),
        "wave": 180 + 179.9 * np.sin(HOURS / 10),
        "charge": np.where(is_on, 175, -175) + RNG.normal(0, 3, N),
        "heel": RNG.normal(0, 60, N).clip(-180, 180),
    }

    assert columns_warned_of("direction", **columns) == (set(), ())


def test_readings_of_a_direction_do_not_jump_at_north():
    degrees = np.round(355 + RNG.normal(0, 15, N), 1) % 360
    stamps = pd.date_range("2024-01-01", periods=N, freq="1h")
    frame = pd.DataFrame({"ts": stamps, "dir": degrees, "temp": wave(N)})

    result = read(frame, agg=("dir=angle",), valid_range=("dir=0:360",))

    panel = result.panel
    assert np.abs(panel.of(0)).max() < 90
    np.testing.assert_allclose((panel.of(0) + panel.base[0]) % 360, degrees, atol=1e-3)
    assert panel.of(1).tolist() == np.float32(wave(N)).tolist()
    assert "direction" in read(frame).warnings
    assert "direction" not in result.warnings


def test_a_direction_from_minus_180_stays_one():
    degrees = np.round(-175 + RNG.normal(0, 15, N), 1)
    degrees = (degrees + 180) % 360 - 180
    stamps = pd.date_range("2024-01-01", periods=N, freq="1h")
    frame = pd.DataFrame({"ts": stamps, "yaw": degrees, "dir": degrees % 360})

    result = read(frame, agg=("yaw=angle", "dir=angle"))
    limited = read(frame, agg=("yaw=angle",), valid_range=("yaw=-180:-90",)).panel

    assert result.schema.signed == ("yaw",)
    assert abs(result.panel.base - [-175, 185]).max() <= 2
    assert np.isnan(limited.of(0)).tolist() == (~(degrees <= -90)).tolist()


def test_a_value_that_is_no_direction_is_an_error_whose_fix_works(tmp_path):
    path = write(tmp_path / "x.csv", "ts,dir", *hourly(350, 355, 999, 5, 10, 358))

    error = failure(path, agg=("dir=angle",))

    assert (error.code, error.location.line) == ("no-direction", 4)
    fixed = read(path, agg=("dir=angle",), na_values=(error.proposals[0].options[1],)).panel
    assert np.flatnonzero(np.isnan(fixed.target)).tolist() == [2]


def test_an_angle_of_no_target_is_a_usage_error():
    frame = table(np.arange(50) * 60, wave(50), "dir")
    assert isinstance(failure(frame, agg=("DIR=angle",)), UsageError)


def test_nights_without_readings_are_no_lost_readings():
    hours = np.arange(24 * 30)
    is_shift = (hours % 24 >= 6) & (hours % 24 < 14) & (hours // 24 % 7 < 5)
    is_shift &= ~((hours // 24 == 9) & (hours % 24 >= 10))  # half a shift is lost
    minutes = 60 * hours[is_shift]

    panel = read(table(minutes, np.ones(len(minutes))), freq="1d", agg="sum", closed="none").panel

    assert set(panel.target[np.isfinite(panel.target)]) == {8}
    assert np.isnan(panel.target[9])
    assert np.isfinite(panel.target[:9]).sum() == 7


def test_days_when_clocks_change_lack_nothing():
    stamps = pd.date_range("2024-03-25", "2024-11-03", freq="1h", tz="Europe/Berlin")
    frame = pd.DataFrame(
        {"ts": stamps, "kwh": np.ones(len(stamps)), "total": np.arange(len(stamps))}
    )
    sums = read(frame, tz="Europe/Berlin", freq="1d", agg="sum", target=("kwh",))
    counted = read(frame, target=("total",), counter=("total",), freq="1d", agg="sum")

    assert "incomplete-bins" not in {**sums.warnings, **counted.warnings}
    assert sums.panel.target[6] == 23
    assert set(np.delete(sums.panel.target, 6)) <= {24, 25}
    assert np.isfinite(counted.panel.target).all()
    assert set(counted.panel.target) <= {23, 24, 25}


def test_months_of_all_lengths_lack_nothing():
    frame = pd.DataFrame({"ts": pd.date_range("2023-01-01", "2024-12-31", freq="1D"), "v": 1.0})

    panel = read(frame, freq="1mo", agg="sum").panel

    assert panel.target.tolist() == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] * 1 + [
        *(31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    ]
