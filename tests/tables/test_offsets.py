"""Value offsets: readings that float32 would blur keep their steps; no later reading matters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.scaling import LARGE_READING, find_value_offsets
from rnnforecast.data.windows import add_base, make_past
from rnnforecast.events import ignore
from rnnforecast.sources.source import open_source
from rnnforecast.tables.grid import read_panel
from rnnforecast.tables.schema import infer_schema
from tests.builders import make_panel


def panel_of(frame: pd.DataFrame, **options):
    config = DataConfig(**options)
    source = open_source(frame, config)
    panel, _ = read_panel(source, infer_schema(source, config, ignore), config, ignore)
    return panel


def table(n=200, **columns):
    return pd.DataFrame({"time": pd.date_range("2024-01-01", periods=n, freq="1h"), **columns})


def own(panel, series=0):
    return panel.of(series).astype(np.float64) + panel.base[series]


def test_a_meter_keeps_steps_that_float32_would_blur():
    meter = 123_456_789.0 + np.arange(200) * 0.25
    assert len(np.unique(meter.astype(np.float32))) < 20
    panel = panel_of(table(meter=meter))
    np.testing.assert_array_equal(own(panel), meter)


def test_usual_readings_have_no_base():
    panel = panel_of(table(temp=np.linspace(-40, 60_000, 200)))
    assert panel.base.tolist() == [0.0]


@pytest.mark.parametrize("backwards", [False, True])
def test_no_later_reading_moves_the_base(backwards):
    meter = 1e7 + np.arange(200.0)
    changed = meter.copy()
    changed[5:] = np.linspace(-1e9, 1e9, 195)
    order = slice(None, None, -1) if backwards else slice(None)
    first, second = (panel_of(table(meter=m).iloc[order]) for m in (meter, changed))
    assert first.base.tolist() == second.base.tolist() == [1e7 + 2]
    np.testing.assert_array_equal(first.target[:5], second.target[:5])


def test_one_wild_first_reading_is_not_the_level():
    meter = 1e8 + np.arange(200.0)
    meter[0] = 1e17
    assert panel_of(table(meter=meter)).base.tolist() == [1e8 + 3]


def test_a_late_jump_of_a_small_series_keeps_its_small_readings():
    readings = np.concatenate([np.linspace(0.1, 0.2, 150), np.full(50, 1e9)])
    panel = panel_of(table(x=readings))
    np.testing.assert_array_equal(panel.target, readings.astype(np.float32))


def test_every_series_of_a_long_table_has_its_own_base():
    small, large = table(value=np.arange(200.0)), table(value=5e8 + np.arange(200.0))
    frame = pd.concat([small.assign(id="a"), large.assign(id="b")]).sort_values(["time", "id"])
    panel = panel_of(frame)
    assert panel.base.tolist() == [0.0, 5e8 + 2]
    np.testing.assert_array_equal(own(panel, 1), 5e8 + np.arange(200.0))


def test_sums_of_large_readings_are_rounded_once():
    readings = 1e6 + np.round(np.random.default_rng(0).normal(0, 50, 5760), 1)
    sums = own(panel_of(table(5760, x=readings), freq="1d", agg=("sum",)))
    expected = readings.reshape(-1, 24).sum(1)
    np.testing.assert_allclose(sums, expected, atol=np.spacing(np.float32(expected.max())))


def test_the_base_is_the_median_of_the_earliest_readings():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 7, 5000).astype(np.int32)
    times, values = rng.permutation(5000), rng.normal(size=5000) * 1e6
    values[rng.random(5000) < 0.3] = np.nan
    parts = [slice(0, 1000), slice(1000, 5000)]
    offsets = find_value_offsets(
        *([x[p] for p in parts] for x in (times, codes, values)), n_series=7
    )
    for code in range(7):
        seen = (codes == code) & np.isfinite(values)
        level = np.median(values[seen][np.argsort(times[seen])][:5])
        assert offsets[code] == (np.rint(level) if abs(level) >= LARGE_READING else 0)


def test_a_series_without_readings_has_no_base():
    values = [np.array([np.nan, 1e9])]
    offsets = find_value_offsets([np.arange(2)], [np.array([0, 1], np.int32)], values, n_series=3)
    assert offsets.tolist() == [0.0, 1e9, 0.0]


@pytest.mark.parametrize("agg", ["mean", "sum", "last", "min", "max"])
def test_aggregates_of_meters_are_those_of_pandas(agg):
    frame = table(meter=2.0**27 + np.arange(200.0))
    panel = panel_of(frame, freq="4h", agg=agg)
    expected = frame.set_index("time").meter.resample("4h").agg(agg)
    np.testing.assert_allclose(own(panel), expected, rtol=1e-12 if agg != "sum" else 1e-7)


def test_a_forecast_with_a_base_is_in_the_sensors_units_and_shows_sensible_digits():
    panel = make_panel([1.0, 2.0], [1.0, 2.0])
    object.__setattr__(panel, "base", np.array([0.0, 1e8]))
    values = add_base(np.full((2, 1, 3), 21.4, np.float32) + np.arange(3), make_past(panel))
    forecast = Forecast(values, (0.1, 0.5, 0.9), ("a", "b"), np.zeros(2, np.int64), 1)
    rows = forecast.to_arrow()
    assert rows["forecast"].type == pa.float64()
    assert rows["q10"].to_pylist() == [21.4, 100_000_021.4]
    assert rows["q90"].to_pylist() == [23.4, 100_000_023.4]
