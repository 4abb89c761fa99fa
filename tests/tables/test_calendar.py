"""Tables of days, weeks, months, years and shifts, against pandas and Python's calendar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from rnnforecast.data.axis import ELAPSED, MONTHS, WALL_CLOCK
from rnnforecast.errors import UsageError
from rnnforecast.units import format_duration, parse_duration_us
from tests.builders import wave
from tests.data.tables import Read, failure, read

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Sydney")


def series(index: pd.DatetimeIndex, values: object = None) -> pd.DataFrame:
    return pd.DataFrame({"time": index, "v": np.arange(len(index)) if values is None else values})


def stamps_of(result: Read, series_number: int = 0) -> list[str]:
    """Return the stamps of all rows, as they would be written."""
    panel = result.panel
    n = int(panel.lengths[series_number])
    return [
        panel.axis.format(int(panel.start[series_number]) + i * panel.step_us) for i in range(n)
    ]


@pytest.mark.parametrize(
    ("freq", "step"),
    [("MS", "1 month"), ("ME", "1 month"), ("2MS", "2 months"), ("QS", "1 quarter"),
     ("QE", "1 quarter"), ("QS-FEB", "1 quarter"), ("YS", "1 year"), ("YE", "1 year"),
     ("D", "1 d"), ("W-WED", "1 w")],
)  # fmt: skip
@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_steps_of_the_calendar_are_found_and_leave_nothing_missing(
    freq: str, step: str, tz: str | None
) -> None:
    index = pd.date_range("1966-01-01", periods=58, freq=freq, tz=tz)

    result = read(series(index))

    assert format_duration(result.panel.step_us) == step
    np.testing.assert_array_equal(result.panel.target, np.arange(58))
    assert [pd.Timestamp(text) for text in stamps_of(result)] == index.tolist()


def test_the_fifteenth_of_each_month_is_a_stamp_of_months() -> None:
    index = pd.date_range("2015-01-01", periods=40, freq="MS") + pd.Timedelta("14D12h")

    result = read(series(index).drop(index=[7, 8, 20]))

    assert result.panel.axis.kind == MONTHS
    assert np.flatnonzero(np.isnan(result.panel.target)).tolist() == [7, 8, 20]
    assert [pd.Timestamp(text) for text in stamps_of(result)] == index.tolist()


@pytest.mark.parametrize("step", ["28D", "30D", "91D"])
def test_equal_steps_that_are_no_months_are_none(step: str) -> None:
    result = read(series(pd.date_range("2015-01-01", periods=40, freq=step)))

    assert result.panel.axis.kind == ELAPSED
    assert result.panel.step_us == parse_duration_us(step)


@pytest.mark.parametrize(
    ("freq", "rule"),
    [("1mo", "MS"), ("MS", "MS"), ("P1M", "MS"), ("1q", "QS"), ("1y", "YS"), ("1w", "W-SUN"),
     ("1d", "D"), ("ME", "ME")],
)  # fmt: skip
@pytest.mark.parametrize("tz", [None, *ZONES])
def test_bins_are_those_of_the_calendar_of_the_zone(freq: str, rule: str, tz: str | None) -> None:
    hours = pd.date_range("2021-11-20", "2024-02-10 05:00", freq="h", tz=tz)
    values = np.random.default_rng(1).integers(0, 9, len(hours))

    result = read(series(hours, values), freq=freq, agg="sum", min_share=0)

    labels = {"W-SUN": {"label": "left", "closed": "left"}}.get(rule, {})
    frame = pd.Series(values, hours)
    if rule == "W-SUN":  # weeks from Monday on
        expected = frame.resample("W-MON", **labels).sum()
    else:
        expected = frame.resample(rule).sum()
    whole = len(result.panel.target)  # the newest bin is not over
    np.testing.assert_array_equal(result.panel.target, expected.to_numpy()[:whole])
    assert whole >= len(expected) - 1
    assert [pd.Timestamp(text) for text in stamps_of(result)] == expected.index[:whole].tolist()


@pytest.mark.parametrize("text", ["1M", "M", "3M"])
def test_a_capital_m_is_asked_for(text: str) -> None:
    with pytest.raises(UsageError, match="month or minute") as caught:
        parse_duration_us(text)
    assert "mo or" in str(caught.value.hint)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [2023, 2024])
def test_the_rows_of_a_year_in_a_zone_are_the_hours_of_its_clock(zone: str, year: int) -> None:
    hours = pd.date_range(f"{year}-01-01", f"{year}-12-31 23:00", freq="h", tz=zone)
    shown = pd.Series(np.arange(float(len(hours))), hours.tz_localize(None))

    result = read(series(hours))

    expected = shown.groupby(level=0).mean().asfreq("h")
    assert result.panel.axis.kind == WALL_CLOCK
    np.testing.assert_array_equal(result.panel.target, expected.to_numpy().astype(np.float32))
    assert result.panel.target.size == 8760 + 24 * (year == 2024)


def test_a_missing_reading_beside_the_skipped_hour_is_the_only_one_missing() -> None:
    hours = pd.date_range("2024-03-28", "2024-04-03", freq="h", tz="Europe/Berlin")

    result = read(series(hours).drop(index=[74, 75]))

    assert "2 of 144 readings are missing" in result.notes.replace("145", "144")


def test_synoptic_hours_keep_their_steps_of_elapsed_time() -> None:
    index = pd.date_range("2024-01-01", periods=900, freq="6h", tz="UTC").tz_convert(
        "Europe/Berlin"
    )

    result = read(series(index))

    assert result.panel.axis.kind == ELAPSED
    assert not np.isnan(result.panel.target).any()


def shifts(weeks: int = 8, tz: str | None = None) -> pd.DatetimeIndex:
    """Return the quarter hours of a shift from 6 to 14 h, Monday to Friday."""
    index = pd.date_range("2024-03-04", periods=weeks * 7 * 96, freq="15min")
    index = index[(index.day_of_week < 5) & (index.hour >= 6) & (index.hour < 14)]
    return index if tz is None else index.tz_localize(tz)


@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_closed_hours_are_no_gaps(tz: str | None) -> None:
    index = shifts(tz=tz)

    result = read(series(index))

    np.testing.assert_array_equal(result.panel.target, np.arange(len(index)))
    assert [pd.Timestamp(text) for text in stamps_of(result)] == index.tolist()
    assert "160 of the 672 steps of 15 min" in result.notes
    assert "in durations a day is 8 h, and a week is 40 h" in result.notes


def test_empty_rows_of_closed_hours_repeat_no_timestamp() -> None:
    hours = pd.date_range("2024-03-04", periods=8 * 168, freq="h")
    table = series(hours)
    name = table.columns[-1]
    table[name] = table[name].where((hours.hour >= 6) & (hours.hour < 20))

    result = read(table)

    assert len(result.panel.axis.open_steps) == 98 and not np.isnan(result.panel.target).any()
    assert "repeated-row" not in result.warnings


def test_closed_hours_may_be_read_as_missing() -> None:
    result = read(series(shifts()), closed="none")

    assert np.isnan(result.panel.target).mean() > 0.7


def test_a_holiday_is_missing_and_a_single_gap_closes_nothing() -> None:
    index = shifts()
    with_holiday = read(series(index[index.normalize() != pd.Timestamp("2024-04-01")]))
    hours = pd.date_range("2024-03-04", periods=8 * 168, freq="h")
    with_gap = read(series(hours).drop(index=range(300, 400)))

    assert np.isnan(with_holiday.panel.target).sum() == 32
    assert with_gap.panel.axis.open_steps == ()
    assert np.isnan(with_gap.panel.target).sum() == 100


def test_three_weeks_close_nothing_and_nights_without_sun_neither() -> None:
    few_weeks = read(series(shifts(weeks=3)))
    days = pd.date_range("2024-01-01", periods=366, freq="D")
    light = [4 + 4 * np.sin(np.pi * (day.day_of_year - 80) / 183) ** 2 for day in days]
    sun = pd.DatetimeIndex(
        [
            day + pd.Timedelta(h, "h")
            for day, n in zip(days, light, strict=True)
            for h in range(12 - int(n), 12 + int(n))
        ]
    )

    assert few_weeks.panel.axis.open_steps == ()
    assert read(series(sun)).panel.axis.open_steps == ()


@pytest.mark.parametrize(
    ("step", "freq", "own"),
    [
        ("h", "15min", "1h"),
        ("h", "20min", "1h"),
        ("D", "1h", "1d"),
        ("W", "1d", "1w"),
        ("MS", "1d", "1month"),
        ("QS", "1mo", "1quarter"),
    ],
)
@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_a_step_that_is_finer_than_the_readings_asks(
    step: str, freq: str, own: str, tz: str | None
) -> None:
    stamps = pd.date_range("1990-01-01", periods=120 if step in ("QS", "MS") else 840, freq=step)
    frame = series(stamps.tz_localize(tz, nonexistent="NaT", ambiguous=False), wave(len(stamps)))
    frame = frame.dropna() if step == "MS" else frame.dropna().drop(index=[*range(50, 61), 100])

    for aggregate in ({}, {"agg": "mean"}):
        error = failure(frame, freq=freq, **aggregate)
        assert error.code == "finer-freq" and error.exit_code == 4
        (to_own, hold) = error.proposals
        assert to_own.options == ("--freq", own) and hold.options == ("--hold", own)
        assert read(frame, freq=own, **aggregate).panel.step_us == parse_duration_us(own)

    result = read(frame[:60], freq=freq, hold=own)
    assert result.panel.axis.open_steps == () and np.isnan(result.panel.target).mean() < 0.25
    assert len(failure(frame, freq=freq, agg="sum").proposals) == 1


def test_a_step_of_closed_hours_or_rare_readings_is_no_coarser_step() -> None:
    hours = pd.date_range("2024-03-04", periods=8 * 168, freq="h")
    thrice = read(series(hours[np.isin(hours.hour, (8, 12, 17))]), freq="1h")
    pairs = read(series(hours[np.isin(hours.hour % 4, (0, 1))]), freq="1h")

    assert thrice.panel.axis.open_steps[:4] == (8, 12, 17, 32)
    assert pairs.panel.step_us == parse_duration_us("1h")


def test_readings_at_each_fourth_of_the_rows_close_no_hours() -> None:
    quarters = pd.date_range("2024-03-04", periods=6 * 7 * 96, freq="15min")
    values = np.where(np.arange(len(quarters)) % 4, np.nan, wave(len(quarters)))
    frame = series(quarters, values).assign(outside=wave(len(quarters)))

    result = read(frame, target="v", known=["outside"])

    assert result.panel.axis.open_steps == () and result.panel.step_us == parse_duration_us("15min")


def test_what_a_model_knows_as_closed_is_left_out_later() -> None:
    trained = read(series(shifts())).schema
    saturday = pd.date_range("2024-05-04 08:00", periods=8, freq="15min")
    later = shifts(weeks=9)[-160:].append(saturday)

    from rnnforecast.config.reading import DataConfig
    from rnnforecast.events import WarningEvent
    from rnnforecast.sources.source import open_table
    from rnnforecast.tables.grid import read_panel

    events: list[object] = []
    source = open_table(series(later), DataConfig(), events.append)
    panel, _ = read_panel(source, trained, DataConfig(), events.append)

    counts = {e.code: e.count for e in events if isinstance(e, WarningEvent)}
    assert counts["closed-hours"] == 8
    assert panel.target.tolist() == list(range(160))


def test_months_without_a_whole_one_say_so() -> None:
    error = failure(
        series(pd.date_range("2024-01-03", periods=200, freq="h")), freq="1mo", agg="mean"
    )

    assert error.exit_code in (4, 5) and "1 month" in error.message


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("freq", ["D", "MS"])
def test_midnights_of_a_zone_in_utc_offer_the_zone(zone: str, freq: str) -> None:
    stamps = pd.date_range("2011-01-01", periods=120, freq=freq, tz=zone)
    frame = pd.DataFrame({"ts": stamps.tz_convert("UTC"), "v": wave(120)})

    if freq == "D":
        proposals = read(frame).warnings["jitter"].proposals
    else:
        proposals = failure(frame).proposals

    assert ("--tz", zone) in [proposal.options for proposal in proposals]
    panel = read(frame, tz=zone).panel
    assert (panel.n_readings, panel.axis.format(int(panel.start[0]))[:10]) == (120, "2011-01-01")
    same = frame.assign(ts=pd.date_range("2011-01-01 05:00", periods=120, freq="D", tz="UTC"))
    assert "jitter" not in read(same).warnings


def test_last_working_days_of_months_offer_months() -> None:
    stamps = pd.date_range("2015-01-01", periods=90, freq="BME")
    frame = pd.DataFrame({"ts": stamps, "v": wave(90)})

    (proposal,) = failure(frame).proposals

    assert proposal.options[:2] == ("--freq", "1month")
    panel = read(frame, freq="1month", agg="mean").panel
    assert (panel.n_readings, len(panel.target)) == (90, 90)


ENGLISH = pd.date_range("2024-01-01", periods=12, freq="MS").strftime("%b").tolist()
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
GERMAN = ["Jan", "Feb", "Mär", "Apr", "Mai", "Jun", "Jul", "Aug", "Sep", "Okt", "Nov", "Dez"]


@pytest.mark.parametrize(
    ("names", "freq", "parts"),
    [
        (ENGLISH, "YS", "the months of a year"),
        (GERMAN, "YS", "the months of a year"),
        ([f"H{hour:02d}" for hour in range(1, 25)], "D", "the hours of a day"),
        ([f"{hour}:00" for hour in range(24)], "D", "the hours of a day"),
        ([f"{i // 2:02d}:{i % 2 * 30:02d}" for i in range(1, 49)], "D", "the half hours of a day"),
        ([f"kWh_{i // 2:02d}{i % 2 * 30:02d}" for i in range(48)], "D", "the half hours of a day"),
        ([f"P{i}" for i in range(1, 97)], "D", "the quarter hours of a day"),
        ([f"HE{hour:02d}" for hour in range(1, 25)] + ["Total"], "D", "the hours of a day"),
        ([f"{i % 12 or 12} {'AP'[i // 12]}M" for i in range(24)], "D", "the hours of a day"),
        ([*ENGLISH, "Annual"], "YS", "the months of a year"),
        ([*ENGLISH, "J-D", "DJF", "Jan-Feb"], "YS", "the months of a year"),
        ([f"m{month}" for month in range(1, 13)], "YS", "the months of a year"),
        (["Q1", "Q2", "Q3", "Q4"], "YS", "the quarters of a year"),
        (["T1", "T2", "T3", "T4"], "YS", "the quarters of a year"),
        (["T1", "T2", "T3", "T4"], "D", None),
        (["DJF", "MAM", "JJA", "SON"], "YS", "the seasons of a year"),
        (
            ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"],
            "YS",
            "the months of a year",
        ),
        ([f"D{day:02d}" for day in range(1, 32)], "MS", "the days of a month"),
        ([f"V{day}" for day in range(1, 32)], "MS", "the days of a month"),
        ([f"{kind}{i:02d}" for i in range(1, 25) for kind in "HV"], "D", "the hours of a day"),
        ([f"{name}_{i:02d}" for i in range(24) for name in "AB"], "D", "the hours of a day"),
        ([*(f"{i:02d}" for i in range(1, 25)), "02X"], "D", "the hours of a day"),
        ([f"TP{i}" for i in range(1, 51)], "D", "the half hours of a day"),
        ([f"Steps{i:02d}" for i in range(60)], "h", "the minutes of an hour"),
        ([f"room {i}" for i in range(1, 13)], "YS", None),
        ([*(f"T{i}" for i in range(1, 25)), "flow", "level"], "D", None),
        ([f"well {i}" for i in range(1, 32)], "MS", None),
        (["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "W-MON", "the days of a week"),
        (["Mo", "Di", "Mi", "Do", "Fr", "Sa", "So"], "W-MON", "the days of a week"),
        (
            ["lun", "mar", "mi\u00e9", "jue", "vie", "s\u00e1b", "dom"],
            "W-MON",
            "the days of a week",
        ),
        (["Mo", "Di", "Mi", "Do", "Fr", "Sa", "So"], "D", None),
        ([f"meter{i}" for i in range(1, 49)], "D", None),
        (ENGLISH, "h", None),  # twelve sensors
        (ENGLISH[:11], "YS", None),
        ([f"H{hour:02d}" for hour in range(1, 25)], "h", None),
        ([f"pump {number}" for number in range(2, 26)], "D", None),
    ],
)
def test_columns_that_are_parts_of_a_step_are_pointed_out(
    names: list[str], freq: str, parts: str | None
) -> None:
    stamps = pd.date_range("1980-01-01", periods=40, freq=freq)
    columns = {name: wave(40, seed=number) for number, name in enumerate(names)}

    warnings = read(pd.DataFrame({"time": stamps, **columns})).warnings

    assert ("time-in-columns" in warnings) == (parts is not None)
    if parts is not None:
        assert parts in warnings["time-in-columns"].message


def test_parts_of_a_step_are_pointed_out_beside_a_key_too() -> None:
    days = pd.date_range("1980-01-01", periods=40, freq="D")
    hours = {f"H{hour:02d}": wave(40, seed=hour) for hour in range(1, 25)}
    tables = [pd.DataFrame({"day": days, "station": name, **hours}) for name in "ab"]
    assert "time-in-columns" in read(pd.concat(tables)).warnings


def drifting(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Make readings that go on from those before, on a daily season of hourly steps."""
    noise = np.random.default_rng(seed).normal(0, 1, n)
    drift = pd.Series(noise).ewm(alpha=0.2).mean().to_numpy()
    return np.round(20 + 5 * np.sin(np.arange(n) * 2 * np.pi / 24) + drift, 2)


@pytest.mark.parametrize(
    ("names", "freq"),
    [
        ([f"{hour}.3" for hour in range(24)], "D"),
        (["0-15", "15-30", "30-45", "45-60"], "h"),
        (["morning", "noon", "evening"], "D"),
    ],
)
def test_columns_that_continue_each_other_are_parts_of_a_step_whatever_their_names(
    names: list[str], freq: str
) -> None:
    stamps = pd.date_range("2024-01-01", periods=60, freq=freq)
    table = drifting(60 * len(names)).reshape(60, -1)
    wide = pd.DataFrame({"time": stamps, **dict(zip(names, table.T, strict=True))})
    long = wide.melt("time", var_name="part").sort_values("time", kind="stable")
    reversed_columns = wide[["time", *names[::-1]]]

    assert "parts of each step" in read(wide).warnings["time-in-columns"].message
    assert "time-in-columns" in read(long, series="part").warnings
    is_numbered = names[0] == "0.3"  # their numbers tell the order
    assert ("time-in-columns" in read(reversed_columns).warnings) == is_numbered


def test_sensors_that_see_the_same_are_no_parts_of_a_step() -> None:
    """Neighbours are near each other at one time, and the first is not nearer a step later."""
    stamps = pd.date_range("2024-01-01", periods=400, freq="h")
    weather, rng = drifting(402), np.random.default_rng(1)
    near = {f"r{i}": weather[:400] + rng.normal(0, 0.1, 400) for i in range(4)}
    lags = {f"lag{i}": weather[i : 400 + i] for i in range(3)}
    apart = {f"s{i}": drifting(400, seed=i + 1) for i in range(3)}
    for columns in (near, lags, dict(reversed(lags.items())), apart):
        assert "time-in-columns" not in read(pd.DataFrame({"time": stamps, **columns})).warnings


def test_sensors_of_one_weather_that_are_read_in_turn_are_no_parts_of_a_step() -> None:
    stamps = pd.date_range("2024-01-01", periods=300, freq="h")
    numbers = np.arange(300) % 3
    table = pd.DataFrame({"time": stamps, "x": numbers, "v": drifting(300) + 50 * numbers})
    result = read(table.astype({"x": str}), series="x")
    assert result.panel.n_series == 3 and "time-in-columns" not in result.warnings


@pytest.mark.parametrize(("n", "freq"), [(12, "YS"), (31, "MS"), (60, "h")])
def test_numbers_of_sites_are_no_parts_of_a_step(n: int, freq: str) -> None:
    stamps = pd.date_range("1980-01-01", periods=40, freq=freq)
    first = 0 if n == 60 else 1
    tables = [
        pd.DataFrame({"time": stamps, "site": f"{i}", "v": wave(40, seed=i)})
        for i in range(first, first + n)
    ]
    result = read(pd.concat(tables), series="site")
    assert result.panel.n_series == n and "time-in-columns" not in result.warnings
