"""Past: what a forecaster may see. Change the future, and nothing that it hands out moves."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data import windows
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Covariates, FeatureBlock, Panel
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.split import split_by_time, split_times_by_share
from rnnforecast.data.windows import Past, TrainingWindows, make_past
from tests.builders import HOUR_US, START_US, main_season, make_panel, make_spec, random_walk, wave
from tests.data.tables import few

CUTOFF = np.array([60, 45, 0, 80], np.int64)
LOOKBACK, HORIZON = 12, 6


def sensors() -> Panel:
    """Make four sensors with gaps."""
    readings = [wave(100, noise=1, seed=s) for s in range(3)] + [random_walk(90, seed=3)]
    for series in readings:
        series[30:34] = np.nan
    panel = make_panel(*readings)
    begin, end = panel.offsets[:-1], panel.offsets[1:]
    values = np.random.default_rng(4).random((2, len(panel.target))).astype(np.float32)
    known, past = (
        FeatureBlock(one[None], (name,), begin, begin, end)
        for one, name in zip(values, ("known", "past"), strict=True)
    )
    return dataclasses.replace(
        panel, covariates=Covariates((known,), past, np.ones((4, 1), np.float32))
    )


def with_another_future(panel: Panel, cutoff: np.ndarray) -> Panel:
    """Change every reading after the cutoffs, and make some of them go and others come.

    Also every covariate but those that are known ahead.
    """
    target = panel.target.copy()
    arrays = [target]
    covariates = panel.covariates
    if covariates is not None:
        past = dataclasses.replace(covariates.past, values=covariates.past.values.copy())
        covariates = dataclasses.replace(covariates, past=past)
        arrays.append(past.values[0])
    rng = np.random.default_rng(0)
    for s in range(panel.n_series):
        later = slice(panel.offsets[s] + cutoff[s], panel.offsets[s + 1])
        for future in (array[later] for array in arrays):
            is_gone = rng.random(len(future)) < 0.3
            future[:] = np.where(is_gone, np.nan, 1e6 * rng.random(len(future)))
    return dataclasses.replace(panel, target=target, covariates=covariates)


def with_another_past(panel: Panel, cutoff: np.ndarray) -> Panel:
    """Change the readings shortly before the cutoffs."""
    target = panel.target.copy()
    for s in range(panel.n_series):
        row = panel.offsets[s] + cutoff[s]
        target[max(row - LOOKBACK, panel.offsets[s]) : row] *= -3
    return dataclasses.replace(panel, target=target)


def everything_in(windows: TrainingWindows) -> list[np.ndarray]:
    """Gather all windows."""
    batch = windows.gather(np.arange(len(windows)))
    return [batch.history, batch.future, batch.series, batch.next_step]


def earlier(past: Past) -> Past:
    """Move the cutoffs back."""
    return dataclasses.replace(past, cutoff=np.maximum(past.cutoff - 20, 0))


def every_time(past: Past) -> tuple[np.ndarray, np.ndarray]:
    """Return all that can be asked of `at`: each origin at each time, the future too."""
    times = past.first_us + np.arange(-5, 120) * past.step_us
    return np.repeat(np.arange(past.n_origins), len(times)), np.tile(times, past.n_origins)


VIEWS: dict[str, Callable[[Past], object]] = {
    "series": lambda past: past.series,
    "cutoff": lambda past: past.cutoff,
    "n_origins": lambda past: past.n_origins,
    "step_us": lambda past: past.step_us,
    "axis": lambda past: dataclasses.astuple(past.axis),
    "names": lambda past: past.names,
    "base": lambda past: past.base,
    "next_step": lambda past: past.next_step,
    "cutoff_time": lambda past: past.cutoff_time,
    "history": lambda past: past.history(LOOKBACK),
    "n_features": lambda past: past.n_features,
    "known_names": lambda past: past.known_names,
    "features": lambda past: list(past.features(LOOKBACK, HORIZON) or ()),
    "longest_gap": lambda past: past.longest_gap(LOOKBACK),
    "observed_share": lambda past: past.observed_share(LOOKBACK),
    "readings": lambda past: np.concatenate([past.readings(i) for i in range(past.n_origins)]),
    "tables": lambda past: [table for _, table in past.tables()],
    "n_seen": lambda past: past.n_seen,
    "is_local": lambda past: past.is_local,
    "filled": lambda past: past.filled(past.cutoff),
    "ranks": lambda past: past.ranks.n,
    "windows": lambda past: everything_in(past.windows(LOOKBACK, HORIZON)),
    "windows of a later part": lambda past: everything_in(
        past.windows(LOOKBACK, HORIZON, targets_after=earlier(past))
    ),
    "alone": lambda past: past.alone(1).history(LOOKBACK),
    "panel_at_cutoffs": lambda past: [
        past.panel_at_cutoffs().target,
        past.panel_at_cutoffs().offsets,
    ],
    "n_rows": lambda past: past.n_rows,
    "first_us": lambda past: past.first_us,
    "fingerprint": lambda past: past.fingerprint(),
    "at": lambda past: past.at(*every_time(past)),
    "subset": lambda past: past.subset(np.array([3, 0])).history(LOOKBACK),
    "fit_scaling": lambda past: dataclasses.astuple(fit_scaling(past)),
    "find_season": main_season,
}
READINGS = (
    "history",
    "readings",
    "tables",
    "windows",
    "windows of a later part",
    "subset",
    "fit_scaling",
    "fingerprint",
    "at",
    "panel_at_cutoffs",
)


def assert_same(one: object, other: object) -> None:
    many = isinstance(one, list | tuple) and not isinstance(one[0], str)
    for a, b in zip(one, other, strict=True) if many else [(one, other)]:
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_of_a_past_moves_when_the_future_changes(view):
    panel = sensors()
    past = make_past(panel, CUTOFF)
    changed = make_past(with_another_future(panel, CUTOFF), CUTOFF)

    assert_same(VIEWS[view](past), VIEWS[view](changed))


@pytest.mark.parametrize("view", READINGS)
def test_what_a_past_shows_moves_when_the_past_changes(view):
    panel = sensors()
    past = make_past(panel, CUTOFF)
    changed = make_past(with_another_past(panel, CUTOFF), CUTOFF)

    with pytest.raises(AssertionError):
        assert_same(VIEWS[view](past), VIEWS[view](changed))


def test_the_law_covers_all_that_a_past_offers():
    fields = {field.name for field in dataclasses.fields(Past)}
    offered = {name for name in {*dir(Past), *fields} if not name.startswith("_")}

    assert offered <= set(VIEWS)


@few
@given(st.integers(1, 30), st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_history_is_the_last_rows_before_each_cutoff(n, cutoffs):
    panel = make_panel(np.arange(20.0), np.arange(100.0, 120.0))
    series = np.arange(len(cutoffs)) % 2
    past = Past(panel, series=series, cutoff=np.array(cutoffs, np.int64))

    history = past.history(n)

    for i, cutoff in enumerate(cutoffs):
        seen = panel.of(series[i])[:cutoff][-n:]
        expected = [*[np.nan] * (n - len(seen)), *seen]
        np.testing.assert_array_equal(history[i], expected)
        np.testing.assert_array_equal(past.readings(i)[-n:], seen)


def test_the_share_seen_counts_missing_readings_and_what_lies_before_the_first_row():
    panel = make_panel([1, np.nan, 3, 4], [1.0, 2.0])

    assert make_past(panel).observed_share(4).tolist() == [0.75, 0.5]


@few
@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(1, 2000))
def test_tables_hold_what_each_origin_may_see_once_and_little_else(cutoffs, n_values):
    panel = make_panel(np.arange(300.0), np.arange(1000.0, 1300.0))
    series = np.arange(len(cutoffs)) % 2
    past = Past(panel, series=series, cutoff=np.array(cutoffs, np.int64))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(windows, "_TABLE_VALUES", n_values)
        tables = list(past.tables())

    assert sorted(np.concatenate([origins for origins, _ in tables])) == list(range(len(cutoffs)))
    for origins, table in tables:
        assert table.size <= max(n_values, *cutoffs)
        assert table.size <= 32 * len(origins) + 2 * past.cutoff[origins].sum()
        for origin, row in zip(origins, table, strict=True):
            seen = past.readings(origin)
            np.testing.assert_array_equal(row[: len(seen)], seen)
            assert np.isnan(row[len(seen) :]).all()


def test_the_readings_that_may_be_seen_are_counted():
    panel = make_panel([1, np.nan, 3, 4], [np.nan], [5.0, 6.0])

    assert make_past(panel, np.array([3, 1, 0])).n_seen.tolist() == [2, 0, 0]


def test_a_past_sees_everything_unless_it_has_a_cutoff():
    panel = make_panel([1, 2, 3], [4])

    assert make_past(panel).cutoff.tolist() == [3, 1]
    assert make_past(panel, np.array([2, 0])).readings(0).tolist() == [1, 2]


def test_times_of_a_past_follow_from_its_cutoffs():
    past = Past(make_panel(np.zeros(5)), series=np.array([0, 0]), cutoff=np.array([1, 4]))

    assert past.cutoff_time.tolist() == [START_US, START_US + 3 * HOUR_US]
    assert (past.next_step - START_US // HOUR_US).tolist() == [1, 4]


def test_windows_of_the_validation_part_share_no_target_with_the_train_part():
    split = split_by_time(make_panel(wave(200)), make_spec(12, 6), validation=0.2, test=0.2)
    rows = make_panel(np.arange(200.0))
    train, validation = (
        dataclasses.replace(past, _panel=rows) for past in (split.train, split.validation)
    )

    learnt = everything_in(train.windows(12, 6))
    judged = everything_in(validation.windows(12, 6, targets_after=train))

    assert max(learnt[0].max(), learnt[1].max()) < judged[1].min()
    assert judged[1].max() < rows.rows_before(split.test_from_us)[0]
    assert judged[0].min() >= judged[1].min() - 12


def test_nothing_chosen_before_training_depends_on_what_is_held_out():
    panel = make_panel(wave(300), wave(200, seed=1))
    shares = {"validation": 0.15, "test": 0.15, "at_least": 24}
    cuts = split_times_by_share(panel, **shares)
    past = make_past(panel, panel.rows_before(cuts.train_until_us))

    another = with_another_future(panel, past.cutoff)
    changed = make_past(another, another.rows_before(cuts.train_until_us))

    assert split_times_by_share(another, **shares) == cuts
    assert main_season(past) == main_season(changed) == 24


def forecast_of(*names: str) -> Forecast:
    """Make a forecast of three steps and three quantiles."""
    n = len(names)
    return Forecast(
        values=np.arange(n * 9, dtype=np.float32).reshape(n, 3, 3),
        quantiles=(0.1, 0.5, 0.9),
        names=names,
        cutoff_us=START_US + np.arange(n) * HOUR_US,
        step_us=HOUR_US,
        source=tuple(f"by {name}" for name in names),
    )


def test_the_point_forecast_is_the_median():
    assert forecast_of("a", "b").point.tolist() == [[1, 4, 7], [10, 13, 16]]


def test_a_forecast_begins_a_step_after_its_cutoff():
    hours = (forecast_of("a", "b").times_us - START_US) / HOUR_US

    assert hours.tolist() == [[1, 2, 3], [2, 3, 4]]


def test_a_part_of_a_forecast_keeps_what_belongs_to_its_origins():
    part = forecast_of("a", "b", "c").subset(np.array([True, False, True]))

    assert (part.names, part.source) == (("a", "c"), ("by a", "by c"))
    assert part.values[:, 0, 0].tolist() == [0, 18]
    assert ((part.cutoff_us - START_US) / HOUR_US).tolist() == [0, 2]


@few
@given(st.lists(st.sampled_from([1.0, np.nan]), max_size=15), st.integers(1, 18))
def test_the_longest_gap_is_of_rows_that_the_series_has(readings, n):
    past = make_past(make_panel(readings, [np.nan, 1.0]))
    run = longest = 0
    for reading in readings[-n:]:
        run = run + 1 if np.isnan(reading) else 0
        longest = max(longest, run)
    assert past.longest_gap(n).tolist() == [longest, int(n > 1)]


def read_slowly(past: Past, panel: Panel, origin: int, time_us: int) -> float:
    """Look a reading up row by row."""
    if origin < 0:
        return np.nan
    series = int(past.series[origin])
    for row in range(int(past.cutoff[origin])):
        if panel.start[series] + row * panel.step_us == time_us:
            return float(panel.of(series)[row]) + panel.base[series]
    return np.nan


@few
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(-1, 3), st.integers(-20, 100)), max_size=30),
)
def test_a_reading_is_found_by_its_time_and_none_after_the_cutoff(origins, asked):
    """Steps of 10 us, series that begin at 0 and at 30, readings with a base."""
    panel = dataclasses.replace(
        make_panel([0, np.nan, 2, 3, 4, 5, 6, 7], np.arange(10.0, 18.0), step_us=10, start_us=0),
        start=np.array([0, 30]),
        base=np.array([0.0, 1e6]),
    )
    series, cutoff = (np.array(x, np.int64) for x in zip(*origins, strict=True))
    past = Past(panel, series=series, cutoff=cutoff)
    asked = [(origin, time) for origin, time in asked if origin < len(origins)]
    numbers = np.array([origin for origin, _ in asked], np.int64)
    times = np.array([time for _, time in asked], np.int64)

    found = past.at(numbers, times)

    expected = [read_slowly(past, panel, origin, time) for origin, time in asked]
    np.testing.assert_array_equal(found, np.array(expected, np.float64))


def test_nothing_is_found_where_there_is_no_origin():
    past = make_past(make_panel())
    assert (
        past.at(np.array([-1, -1]), np.array([0, START_US])).tolist()
        == [pytest.approx(np.nan, nan_ok=True)] * 2
    )
    assert past.at(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == []


def test_the_fingerprint_changes_with_every_reading_that_is_seen_and_with_no_other():
    panel = make_panel([1, np.nan, 3, 4], [5.0, 6.0, 7.0])
    past = make_past(panel, np.array([3, 2]))
    is_seen = [True, True, True, False, True, True, False]

    for place, seen in enumerate(is_seen):
        target = panel.target.copy()
        target[place] = 1.5
        another = dataclasses.replace(past, _panel=dataclasses.replace(panel, target=target))
        assert (another.fingerprint() != past.fingerprint()) == seen


def test_the_fingerprint_is_that_of_a_table_that_ends_at_the_cutoffs():
    panel, cutoff = sensors(), np.array([60, 45, 1, 80])
    short = panel.before(cutoff)

    assert make_past(panel, cutoff).fingerprint() == make_past(short).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"start": START_US + HOUR_US * np.arange(4)},
        {"step_us": 2 * HOUR_US},
        {"names": ("s0", "s1", "s2", "another")},
        {"base": np.array([0.0, 0.0, 0.0, 1.0])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_changes_with_what_the_readings_are(change):
    panel = sensors()
    changed = dataclasses.replace(panel, **change)

    assert make_past(changed, CUTOFF).fingerprint() != make_past(panel, CUTOFF).fingerprint()


def test_the_fingerprint_changes_with_where_its_origins_stand():
    panel = sensors()
    windows = [
        make_past(panel, CUTOFF),
        make_past(panel, CUTOFF + np.array([1, 0, 0, 0])),
        Past(panel, series=np.arange(4)[::-1], cutoff=CUTOFF),
        make_past(panel, CUTOFF).subset(np.array([0, 1])),
        Past(panel, series=np.array([0, 0, 1, 2, 3]), cutoff=np.array([60, 50, 45, 0, 80])),
    ]
    assert len({past.fingerprint() for past in windows}) == len(windows)


def test_the_fingerprint_changes_with_what_is_known_ahead_and_was_known_before():
    panel = sensors()
    covariates = panel.covariates
    before = make_past(panel, CUTOFF).fingerprint()

    for role, place, moves in (("known", 70, True), ("past", 59, True), ("past", 60, False)):
        track = covariates.known[0] if role == "known" else covariates.past
        values = track.values.copy()
        values[0, place] += 1  # of the first series, which is seen up to row 60
        changed = dataclasses.replace(track, values=values)
        another = {role: (changed,) if role == "known" else changed}
        moved = dataclasses.replace(panel, covariates=dataclasses.replace(covariates, **another))
        assert (make_past(moved, CUTOFF).fingerprint() != before) == moves


@pytest.mark.parametrize("horizon", [1, 5])
def test_what_is_known_beyond_the_horizon_is_no_part_of_the_fingerprint(horizon):
    """Plans grow every day: a forecast that sees nothing of the new rows is the same one."""
    panel = sensors()
    covariates = panel.covariates
    before = make_past(panel, CUTOFF).fingerprint(horizon)
    block = covariates.known[0]
    for place in range(int(block.high[0])):
        values = block.values.copy()
        values[0, place] += 1  # of the first series, which is seen up to row 60
        known = (dataclasses.replace(block, values=values), *covariates.known[1:])
        moved = dataclasses.replace(panel, covariates=dataclasses.replace(covariates, known=known))
        assert (make_past(moved, CUTOFF).fingerprint(horizon) != before) == (place < 60 + horizon)
