"""Columns to features: names, numbers, what stays the same, what the calendar says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.panel import Covariates, Panel
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import Recorder, WarningEvent, ignore
from rnnforecast.sources import files
from rnnforecast.sources.source import open_source
from rnnforecast.tables.grid import FindTrainEnd, read_panel
from rnnforecast.tables.match import match_schema
from rnnforecast.tables.schema import Schema, infer_schema
from tests.builders import wave


def read(
    table: pd.DataFrame,
    config: DataConfig,
    schema: Schema | None = None,
    learns_until: FindTrainEnd | None = None,
) -> tuple[Panel, Covariates, Schema, list[WarningEvent]]:
    """Read a table; with a schema, as a trained model does."""
    events = Recorder(ignore)
    source = open_source(table, config, events)
    wanted = (
        infer_schema(source, config, events)
        if schema is None
        else match_schema(source, schema, config)
    )
    panel, found = read_panel(source, wanted, config, events, find_train_end=learns_until)
    assert panel.covariates is not None
    return panel, panel.covariates, found, events.warnings


def wide(
    n: int = 40, start: str = "2024-03-04", freq: str = "1h", **columns: object
) -> pd.DataFrame:
    """Make a table of one reading, and these columns."""
    stamps = pd.date_range(start, periods=n, freq=freq)
    return pd.DataFrame({"time": stamps, "y": np.arange(n, dtype=float), **columns})


def test_a_column_that_is_named_is_no_target() -> None:
    table = wide(y=wave(40, seed=1), setpoint=np.arange(40.0), flow=wave(40), mode="a")
    panel, covariates, schema, _ = read(table, DataConfig(known=("setpoint",), past=("mode",)))

    assert panel.names == ("y", "flow")
    assert covariates.known_names == ("setpoint",)
    assert [(c.name, c.role, c.is_text) for c in schema.covariates] == [
        ("setpoint", "known", False),
        ("mode", "past", True),
    ]


@pytest.mark.parametrize("name", ["unit", "machine"])
def test_a_covariate_whose_name_sounds_like_a_series_is_none(name: str) -> None:
    table = wide(y=wave(40, seed=1), flow=wave(40), **{name: ["a", "b"] * 20})
    panel, _, schema, _ = read(table, DataConfig(past=(name,)))

    assert schema.series is None
    assert panel.names == ("y", "flow")


def test_texts_become_features_and_rare_and_new_ones_count_as_others() -> None:
    mode = np.array(["low", "high", "high", None] * 1000, object)
    mode[5] = "once"
    table = wide(4000, mode=mode)
    _, covariates, schema, _ = read(table, DataConfig(past=("mode",)))

    assert schema.covariates[0].categories == ("high", "low")
    assert covariates.past.names == ("mode=high", "mode=low", "mode=(other)")
    np.testing.assert_array_equal(
        covariates.past.values[:, :3].T, [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    )
    assert np.isnan(covariates.past.values[:, 3]).all()
    np.testing.assert_array_equal(covariates.past.values[:, 5], [0, 0, 1])

    newer = wide(4, mode=["high", "never seen", "low", "low"])
    _, found, again, _ = read(newer, DataConfig(past=("mode",)), schema)
    assert again.covariates == schema.covariates
    np.testing.assert_array_equal(found.past.values[:, :2].T, [[1, 0, 0], [0, 0, 1]])


def test_texts_need_the_memory_of_all_their_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BASE_BYTES", 0)
    table = wide(2000, mode=[f"m{i % 20}" for i in range(2000)])

    with pytest.raises(DataError) as caught:
        read(table, DataConfig(past=("mode",), max_memory="100K"))

    assert caught.value.code == "memory"
    assert read(table, DataConfig(past=("mode",), max_memory="400K"))[1].sizes == (0, 21, 0)


def test_texts_are_told_apart_by_what_may_be_learnt_from() -> None:
    mode = ["a", "b"] * 10 + ["c"] * 20
    table = wide(40, mode=mode, later=[np.nan] * 30 + [1.0] * 10)
    config = DataConfig(known=("mode",), past=("later",))

    _, covariates, schema, warned = read(table, config, learns_until=lambda panel: at(panel, 20))

    assert [c.name for c in schema.covariates] == ["mode"]
    assert schema.covariates[0].categories == ("a", "b")
    assert covariates.known[0].values[:, 20:].tolist() == [[0] * 20, [0] * 20, [1] * 20]
    assert [w.code for w in warned] == ["empty-covariate"]


def test_what_is_told_apart_does_not_depend_on_what_comes_later() -> None:
    early, late = ["a", "b", "b"] * 10, ["x", "a"] * 5
    found = [
        read(
            wide(40, mode=early + end),
            DataConfig(past=("mode",)),
            learns_until=lambda panel: at(panel, 30),
        )[2]
        for end in (late, ["a"] * 10)
    ]

    assert found[0] == found[1]


def at(panel: Panel, row: int) -> int:
    return int(panel.start[0]) + row * panel.step_us


def test_more_features_than_a_network_takes_are_refused() -> None:
    names = tuple(f"c{i}" for i in range(4097))
    table = pd.concat([wide(10), pd.DataFrame(1.0, range(10), names)], axis=1)

    with pytest.raises(DataError, match="4097 features"):
        read(table, DataConfig(past=names))


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9])
def test_small_steps_of_large_covariates_are_kept(offset: float) -> None:
    steps = np.arange(40.0) / 8
    _, covariates, schema, _ = read(wide(load=offset + steps), DataConfig(past=("load",)))
    _, newer, _, _ = read(wide(load=offset + steps + 5), DataConfig(), schema)

    for values, more in ((covariates.past.values[0], 0), (newer.past.values[0], 5)):
        np.testing.assert_allclose(
            values + schema.covariates[0].base, offset + steps + more, atol=0.01
        )
        np.testing.assert_array_equal(np.diff(values), np.diff(steps))


def test_a_covariate_that_says_nothing_any_more_is_said() -> None:
    _, _, schema, _ = read(wide(load=np.arange(40.0)), DataConfig(past=("load",)))

    _, covariates, again, warned = read(wide(load=np.full(40, np.nan)), DataConfig(), schema)

    assert [w.code for w in warned] == ["empty-covariate"]
    assert again.covariates == schema.covariates and np.isnan(covariates.past.values).all()


def test_numbers_that_are_names_are_told_apart() -> None:
    table = wide(recipe=[3, 7] * 20)
    _, covariates, _, _ = read(table, DataConfig(known=("recipe",), categorical=("recipe",)))

    assert set(covariates.known_names) == {"recipe=3", "recipe=7", "recipe=(other)"}


def test_rows_after_the_last_reading_are_known_and_no_readings() -> None:
    table = wide(setpoint=np.arange(40.0))
    table.loc[30:, "y"] = np.nan
    panel, covariates, _, warnings = read(table, DataConfig(known=("setpoint",)))

    assert panel.lengths.tolist() == [30]
    assert not [w for w in warnings if w.code == "empty-tail"]
    known = covariates.features(np.array([0]), np.array([30]), lookback=2, horizon=12).known
    np.testing.assert_array_equal(known[0, 0], [*range(28, 40), np.nan, np.nan])


def test_readings_that_begin_late_keep_the_features_of_their_time() -> None:
    table = wide(load=np.arange(40.0))
    table.loc[:9, "y"] = np.nan
    panel, covariates, _, _ = read(table, DataConfig(past=("load",)))

    assert panel.lengths.tolist() == [30]
    past = covariates.features(np.array([0]), np.array([3]), lookback=5, horizon=1).past
    np.testing.assert_array_equal(past[0, 0], [8, 9, 10, 11, 12])


def long(n: int = 30) -> pd.DataFrame:
    """Make a long table of two series, in the order of time."""
    parts = []
    for number, name in enumerate(("p", "q")):
        stamps = pd.date_range("2024-03-04", periods=n, freq="1h")
        parts.append(
            pd.DataFrame(
                {
                    "time": stamps,
                    "sensor": name,
                    "y": np.arange(n) + 100.0 * number,
                    "size": 10.0 * (number + 1),
                    "kind": ["small", "big"][number],
                    "load": np.arange(n) + 1000.0 * number,
                }
            )
        )
    return pd.concat(parts).sort_values(["time", "sensor"], ignore_index=True)


def test_each_series_of_a_long_table_has_its_own_features() -> None:
    config = DataConfig(past=("load",), static=("size", "kind"))
    panel, covariates, _, _ = read(long(), config)

    assert panel.names == ("p", "q")
    np.testing.assert_array_equal(covariates.static, [[10, 1, 0, 0], [20, 0, 1, 0]])
    past = covariates.features(np.array([1]), np.array([3]), lookback=3, horizon=1).past
    np.testing.assert_array_equal(past[0, 0], [1000, 1001, 1002])


def test_what_changes_is_not_static() -> None:
    with pytest.raises(DataError, match=r"'load' is not constant within series 'p'"):
        read(long(), DataConfig(past=("size",), static=("load",), target=("y",)))


def test_a_wide_table_has_nothing_static() -> None:
    with pytest.raises(UsageError, match="--static"):
        read(wide(size=1.0), DataConfig(static=("size",)))


def test_an_empty_covariate_is_left_out_and_said() -> None:
    table = wide(load=np.full(40, np.nan), setpoint=1.0)
    _, covariates, _, warnings = read(table, DataConfig(past=("load",), known=("setpoint",)))

    assert covariates.sizes == (1, 0, 0)
    assert [w.code for w in warnings if "load" in w.message] == ["empty-covariate"]


def test_aggregation_takes_the_mean_of_numbers_and_the_last_text() -> None:
    table = wide(8, freq="15min", load=[1.0, 2, 3, 6, 5, 5, 5, 5], mode=[*"aaab", *"bbbb"])
    config = DataConfig(past=("load", "mode"), freq="1h", agg="mean")
    _, covariates, _, _ = read(table, config)

    np.testing.assert_array_equal(covariates.past.values[0], [3, 5])
    assert covariates.past.names[1] == "mode=b"
    np.testing.assert_array_equal(covariates.past.values[1], [1, 1])


def test_sums_are_of_readings_and_not_of_what_stands_beside() -> None:
    table = wide(8, freq="15min", load=[1.0, 2, 3, 6, 5, 5, 5, 5])
    panel, covariates, _, _ = read(table, DataConfig(past=("load",), freq="1h", agg="sum"))

    assert panel.target.tolist() == [6, 22]
    assert covariates.past.values.tolist() == [[3, 5]]


def test_a_column_is_named_for_one_thing_only() -> None:
    for given in (
        {"known": ("a",), "past": ("a",)},
        {"target": ("a",), "known": ("a",)},
        {"time": "a", "past": ("a",)},
    ):
        with pytest.raises(UsageError, match="given two roles"):
            DataConfig(**given)  # type: ignore[arg-type]


def test_a_kind_needs_a_role(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,y,a\n2024-01-01,1,2\n2024-01-02,2,3\n")
    with pytest.raises(UsageError, match="--categorical 'a' has no role"):
        read(path, DataConfig(categorical=("a",)))


def test_a_column_of_numbers_and_names_says_how_to_take_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"2024-03-04 {hour:02}:00,{hour},{hour if hour % 4 else 'OFF'}" for hour in range(24)]
    path.write_text("\n".join(["time,y,valve", *rows]))
    config = DataConfig(past=("valve",))

    with pytest.raises(DataError) as caught:
        source = open_source(str(path), config)
        read_panel(source, infer_schema(source, config, ignore), config, ignore)

    assert caught.value.location is not None and caught.value.location.line == 2
    assert "--categorical valve" in str(caught.value.advice)


def calendar_at(
    config: DataConfig, when: str, *, start: str = "2024-03-04", tz: str | None = None
) -> dict[str, float]:
    """Return what the calendar says at a time, on the clock on the wall."""
    stamps = pd.date_range(start, periods=24 * 60, freq="1h", tz=tz)
    table = pd.DataFrame({"time": stamps, "y": np.arange(len(stamps)) % 7})
    panel, covariates, _, _ = read(table, config)
    row = (panel.axis.parse(when) - int(panel.start[0])) // panel.step_us
    known = covariates.features(np.array([0]), np.array([row]), lookback=1, horizon=1).known
    return dict(zip(covariates.known_names, known[0, :, 1].tolist(), strict=True))


def test_the_calendar_says_hour_weekday_and_month() -> None:
    config = DataConfig(calendar=("hour", "weekday", "month"))

    at = calendar_at(config, "2024-04-02 06:00")  # a Tuesday

    assert [at[f"weekday={day}"] for day in range(7)] == [0, 1, 0, 0, 0, 0, 0]
    assert at["hour=sin1"] == pytest.approx(1) and at["hour=cos1"] == pytest.approx(0, abs=1e-6)
    assert at["month=sin1"] == pytest.approx(np.sin(2 * np.pi * (3 + 1 / 31) / 12))


@pytest.mark.parametrize("day", ["2024-03-29", "2024-04-02"], ids=["before", "after"])
def test_the_hour_is_that_of_the_wall_before_and_after_clocks_are_changed(day: str) -> None:
    at = calendar_at(DataConfig(calendar=("hour",)), f"{day} 06:00", tz="Europe/Berlin")

    assert at["hour=sin1"] == pytest.approx(1)


def test_the_hour_is_that_of_the_zone_that_the_model_knows() -> None:
    stamps = pd.date_range("2024-01-01", periods=48, freq="h", tz="Asia/Tokyo")
    table = pd.DataFrame({"time": stamps, "y": np.arange(48.0)})
    config = DataConfig(calendar=("hour",))
    _, at_home, schema, _ = read(table, config)

    moved = table.assign(time=table["time"].dt.tz_convert("UTC"))
    _, elsewhere, _, _ = read(moved, config, schema)

    np.testing.assert_array_equal(elsewhere.known[-1].values, at_home.known[-1].values)


def test_a_reading_a_day_has_no_hour() -> None:
    table = wide(40, freq="1D")
    _, covariates, _, _ = read(table, DataConfig(calendar=("hour", "weekday")))

    assert covariates.known_names == tuple(f"weekday={day}" for day in range(7))


def test_holidays_are_those_of_the_place() -> None:
    germany, bavaria = DataConfig(holidays="DE"), DataConfig(holidays="DE-BY")

    assert calendar_at(germany, "2024-04-01 12:00") == {"holiday": 1}  # Easter Monday
    assert calendar_at(germany, "2024-04-02 00:00") == {"holiday": 0}
    corpus_christi = {"start": "2024-05-01", "when": "2024-05-30 08:00"}
    assert calendar_at(germany, **corpus_christi) == {"holiday": 0}
    assert calendar_at(bavaria, **corpus_christi) == {"holiday": 1}


@pytest.mark.parametrize("place", ["XX", "DE-QQ", "Germania"])
def test_a_place_without_known_holidays_is_a_usage_error(place: str) -> None:
    with pytest.raises(UsageError, match="--holidays"):
        read(wide(), DataConfig(holidays=place))
