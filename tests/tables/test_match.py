"""Newer readings beside what a network knows: gone, new, stale, on another scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import make_past
from rnnforecast.errors import DataError, QualityGateError, UsageError
from rnnforecast.events import Event, ignore
from rnnforecast.tables.match import (
    TrainingStats,
    check_drift,
    read_for_model,
    require_series,
    warn_unusual_series,
)
from rnnforecast.tables.schema import Schema
from tests.builders import make_panel, wave
from tests.data.tables import hourly, pasted, read, write


def known(*names: str, center: float = 20.0, scale: float = 4.0) -> TrainingStats:
    n = len(names)
    values = (np.full(n, value, np.float32) for value in (center, scale, 18.0))
    return TrainingStats(names, np.zeros(n), *values)


def warnings(panel, what):
    heard = []
    warn_unusual_series(make_past(panel), what, heard.append, lookback=48, horizon=24)
    return {warned.code: warned for warned in heard}


def test_readings_like_the_known_ones_get_no_warning():
    assert warnings(make_panel(wave(100), wave(100)), known("s0", "s1")) == {}


def test_series_that_are_gone_or_new_are_named():
    found = warnings(make_panel(wave(100), wave(100)), known("s0", "old"))
    assert found.keys() == {"vanished-series", "new-series"}
    assert "old" in found["vanished-series"].message
    assert "s1" in found["new-series"].message


@pytest.mark.parametrize(("behind", "is_stale"), [(24, False), (25, True)])
def test_a_series_that_ended_more_than_a_horizon_ago_is_stale(behind, is_stale):
    panel = make_panel(wave(200), wave(200 - behind))
    assert ("stale-series" in warnings(panel, known("s0", "s1"))) == is_stale


def test_rows_of_a_silent_series_that_reach_ahead_make_no_other_one_stale():
    panel = make_panel(wave(200), np.full(300, np.nan))
    assert "s0" not in warnings(panel, known("s0", "s1"))["stale-series"].message


def test_readings_in_another_unit_are_named():
    fahrenheit = make_panel(wave(100), wave(100) * 1.8 + 32)
    found = warnings(fahrenheit, known("s0", "s1"))
    assert found.keys() == {"other-scale"}
    assert found["other-scale"].message.endswith(": s1")


def test_a_base_is_subtracted_before_levels_are_compared():
    panel = replace(make_panel(wave(100)), base=np.array([1e8]))
    assert warnings(panel, known("s0")) == {}


def test_series_without_readings_or_without_a_level_are_not_compared():
    silent = np.full(100, np.nan)
    what = known("s0", "s1")
    what.center[1] = what.scale[1] = np.nan
    found = warnings(make_panel(silent, wave(100) * 100), what)
    assert found.keys() == {"stale-series"}
    assert found["stale-series"].message.endswith(": s0")


@pytest.mark.parametrize(("missing", "is_stale"), [(24, False), (25, True)])
def test_a_sensor_that_fell_silent_among_others_is_stale(missing, is_stale):
    silent = wave(200)
    silent[-missing:] = np.nan
    found = warnings(make_panel(wave(200), silent), known("s0", "s1"))
    assert ("stale-series" in found) == is_stale


@pytest.mark.parametrize(
    ("n", "code"), [(1, "far-reading"), (2, "far-reading"), (3, "other-scale")]
)
def test_newest_readings_that_are_far_off_are_named(n, code):
    spiked = wave(100)
    spiked[-n:] = 900
    assert warnings(make_panel(spiked), known("s0")).keys() == {code}


def test_a_new_level_of_the_newest_day_is_named():
    raised = wave(100)
    raised[-24:] += 500
    assert warnings(make_panel(raised), known("s0")).keys() == {"other-scale"}


def test_a_long_list_is_cut_and_counted():
    found = warnings(make_panel(*[wave(60)] * 9), known("other"))
    assert found["new-series"].count == 9
    assert found["new-series"].message.endswith("s4, ...")


def of_parts(*names: str, base: float = 0.0) -> tuple[Schema, TrainingStats]:
    """Return a long table's schema, and what a model knows of its series."""
    stamps = pd.date_range("2024-01-01", periods=48, freq="1h")
    frame = pd.concat(
        [pd.DataFrame({"ts": stamps, "id": name, "v": wave(48) + base}) for name in names]
    )
    schema = read(frame, series="id").schema
    return schema, replace(known(*names), base=np.full(len(names), base))


def newer(
    schema: Schema, what: TrainingStats, *names: str, base: float = 0.0
) -> tuple[Panel, list[Event]]:
    stamps = pd.date_range("2024-01-01", periods=48, freq="1h")
    frame = pd.concat(
        [pd.DataFrame({"ts": stamps, "id": name, "v": wave(48) + base}) for name in names]
    )
    heard: list[Event] = []
    options = DataConfig(series="id")
    panel, _ = read_for_model(
        frame, schema=schema, options=options, stats=what, listener=heard.append
    )
    return panel, heard


@pytest.mark.parametrize("written", [("7", "12"), ("7.0", "12.0"), ("0007", "012")])
def test_numbers_written_otherwise_are_the_same_series(written):
    panel, heard = newer(*of_parts("007", "12"), *written)
    assert panel.names == ("007", "12")
    (warned,) = [e for e in heard if getattr(e, "code", "") == "names-written-otherwise"]
    assert warned.count == len({"007", "12"} - set(written))


def test_a_base_goes_with_the_name():
    schema, what = of_parts("007", base=1e8)
    panel, _ = newer(schema, what, "7", base=1e8)
    assert panel.base.tolist() == [1e8]
    assert np.abs(panel.target).max() < 100


def test_names_that_are_known_stay_as_they_are():
    assert newer(*of_parts("007", "7"), "7", "9")[0].names == ("7", "9")


def test_a_name_that_could_be_two_of_the_models_is_an_error():
    with pytest.raises(DataError) as caught:
        newer(*of_parts("007", "07"), "7")
    assert (caught.value.code, caught.value.exit_code) == ("other-names", 4)


def test_a_column_that_was_renamed_is_named_and_the_fix_works(tmp_path):
    schema = read(write(tmp_path / "a.csv", "ts,temp", *hourly(*range(48)))).schema
    path = write(tmp_path / "b.csv", "ts,temp2", *hourly(*range(48)))
    what = known("temp")
    with pytest.raises(DataError) as caught:
        read_for_model(path, schema=schema, options=DataConfig(), stats=what, listener=ignore)
    assert caught.value.code == "missing-column"
    fix = pasted(str(caught.value.proposals[0]))
    assert fix == {"map": ("temp2=temp",)}
    options = DataConfig(**fix)
    panel, _ = read_for_model(path, schema=schema, options=options, stats=what, listener=ignore)
    assert panel.names == ("temp",)
    assert panel.target.tolist() == list(range(48))


@pytest.mark.parametrize("pair", ["gone=temp", "flow=temp2"])
def test_a_renaming_that_cannot_be_is_a_usage_error(tmp_path, pair):
    path = write(tmp_path / "b.csv", "ts,temp2,flow", *hourly(*(f"{i},{i}" for i in range(48))))
    with pytest.raises(UsageError):
        read(path, map=(pair,))


def test_series_can_be_required():
    require_series(make_past(make_panel(wave(100), wave(100))), known("s0", "s1"))
    with pytest.raises(DataError, match="old") as caught:
        require_series(make_past(make_panel(wave(100))), known("s0", "old"))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(("shift", "limit", "passes"), [(0, 1, True), (6, 2, True), (20, 2, False)])
def test_a_level_that_drifted_is_stopped_at_the_gate(shift, limit, passes):
    past = make_past(make_panel(wave(100), wave(100) + shift, wave(100) + 1000))
    what = known("s0", "s1")
    if passes:
        check_drift(past, what, lookback=48, limit=limit)
        return
    with pytest.raises(QualityGateError, match="s1 by") as caught:
        check_drift(past, what, lookback=48, limit=limit)
    assert caught.value.exit_code == 8
