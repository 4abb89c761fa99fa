"""The split by time: one moment for all series, parts that do not overlap, nothing too small."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnnforecast.config.training import BacktestConfig
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import (
    Origins,
    Split,
    SplitTimes,
    parse_moment,
    rolling_test_origins,
    split_at,
    split_by_time,
    split_times_by_ends,
    split_times_by_share,
)
from rnnforecast.data.windows import Past, make_past, windows_of
from rnnforecast.errors import NotEnoughDataError, UsageError
from tests.builders import HOUR_US, START_US, make_panel, make_spec
from tests.data.tables import few

rolling_test_origins.__test__ = False  # a function of the package, not a test
SHARES = {"validation": 0.15, "test": 0.15}


def staggered(lengths: list[int], begins: list[int]) -> Panel:
    """Make a panel whose series begin at these hours; the reading is the hour."""
    panel = make_panel(*(begin + np.arange(n) for n, begin in zip(lengths, begins, strict=True)))
    return dataclasses.replace(panel, start=START_US + np.array(begins, np.int64) * HOUR_US)


def all_of(origins: Origins) -> Past:
    """Return all origins at once."""
    return next(origins.parts(max(1, len(origins))), make_past(origins._panel).subset(slice(0)))


@st.composite
def splits(draw):
    """Draw a panel with room for a window, and split it."""
    n = draw(st.integers(1, 4))
    lengths = [draw(st.integers(1, 150)) for _ in range(n)]
    begins = [draw(st.integers(0, 100)) for _ in range(n)]
    spec = make_spec(draw(st.integers(1, 60)), draw(st.integers(1, 10)), draw(st.integers(1, 20)))
    assume(max(lengths) >= spec.least_history + spec.horizon)
    shares = {
        "validation": draw(st.sampled_from([0.0, 0.1, 0.15, 0.4])),
        "test": draw(st.sampled_from([0.0, 0.1, 0.15, 0.4])),
    }
    panel = staggered(lengths, begins)
    return split_by_time(panel, spec, **shares), spec


def hours_of(split: Split) -> tuple[list[int], list[int], list[int]]:
    """Return the hours of all readings of the train, the validation and the test part."""
    panel = split.panel
    train, validation, test = [], [], []
    until = split.before_test.cutoff
    for s in range(panel.n_series):
        readings = panel.of(s).astype(int).tolist()
        train += readings[: split.train.cutoff[s]]
        validation += readings[split.train.cutoff[s] : until[s]]
        test += readings[until[s] :]
    return train, validation, test


@few
@given(splits())
def test_parts_are_cut_at_one_moment_for_all_series(drawn):
    split, *_ = drawn
    train, validation, test = hours_of(split)

    assert max(train) < min(validation, default=10**6)
    assert max(train + validation) < min(test, default=10**6)
    assert (split.validation is None) == (not validation)
    assert (split.test_from_us is None) == (not test)
    if test:
        first = (split.test_from_us - START_US) / HOUR_US
        assert max(train + validation) < first <= min(test)


@few
@given(splits())
def test_there_is_always_a_window_to_train_on(drawn):
    split, spec = drawn

    assert len(windows_of(split.train, spec)) > 0


@few
@given(splits())
def test_a_part_that_is_there_spans_a_horizon(drawn):
    split, spec = drawn
    train, validation, test = hours_of(split)
    end = max(train + validation + test) + 1
    test_from = end if split.test_from_us is None else (split.test_from_us - START_US) // HOUR_US

    assert end - test_from >= spec.horizon or not test
    assert test_from - max(train) - 1 >= spec.horizon or not validation


@few
@given(splits())
def test_test_origins_see_the_test_part_alone_as_truth(drawn):
    split, spec = drawn
    assume(split.test_from_us is not None)
    lookback, horizon = spec.least_history, spec.horizon

    origins = all_of(rolling_test_origins(split, lookback=lookback, horizon=horizon))

    lengths = split.panel.lengths[origins.series]
    assert (origins.cutoff >= lookback).all()
    assert (origins.cutoff + horizon <= lengths).all()
    assert (origins.cutoff >= split.before_test.cutoff[origins.series]).all()
    assert len({*zip(origins.series.tolist(), origins.cutoff.tolist(), strict=True)}) == len(
        lengths
    )


@pytest.mark.parametrize("n", [400, 1000, 12345])
@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.1, 0.3), (0.5, 0.2)])
def test_parts_have_the_sizes_that_were_asked_for(n, validation, test):
    panel = staggered([n], [0])

    split = split_by_time(panel, make_spec(24, 12), validation=validation, test=test)

    sizes = [len(part) for part in hours_of(split)]
    assert sizes == pytest.approx([n * (1 - validation - test), n * validation, n * test], abs=1.5)


def test_shares_count_the_readings_of_all_series():
    panel = staggered([1000, 500], [0, 500])

    sizes = [len(part) for part in hours_of(split_by_time(panel, make_spec(24, 6), **SHARES))]

    assert sizes == pytest.approx([1050, 225, 225], abs=4)


def test_a_share_of_zero_leaves_its_part_out():
    panel = staggered([200], [0])

    no_test = split_by_time(panel, make_spec(12, 6), validation=0.2, test=0.0)
    no_validation = split_by_time(panel, make_spec(12, 6), validation=0.0, test=0.2)

    assert no_test.test_from_us is None
    assert no_test.validation.cutoff.tolist() == [200]
    assert no_validation.validation is None
    assert no_validation.before_test is no_validation.train
    assert no_validation.train.cutoff.tolist() == [160]


def test_data_of_exactly_one_window_train_and_hold_nothing_out():
    split = split_by_time(staggered([30], [0]), make_spec(24, 6), **SHARES)

    assert split.train.cutoff.tolist() == [30]
    assert len(split.train.windows(24, 6)) == 1
    assert split.validation is None
    assert split.test_from_us is None


@pytest.mark.parametrize(
    ("n", "parts"), [(35, "train"), (36, "train, test"), (44, "train, validation, test")]
)
def test_the_validation_part_goes_first_where_room_is_short(n, parts):
    split = split_by_time(staggered([n], [0]), make_spec(24, 6), **SHARES)

    there = ["train"]
    there += ["validation"] if split.validation else []
    there += ["test"] if split.test_from_us is not None else []
    assert ", ".join(there) == parts


def test_series_that_end_before_the_test_part_train_with_all_they_have():
    split = split_by_time(staggered([1000, 100], [0, 0]), make_spec(12, 6), **SHARES)

    assert split.train.cutoff[1] == 100


def test_everything_is_all_readings():
    split = split_by_time(staggered([100, 50], [0, 7]), make_spec(12, 6), **SHARES)

    assert split.everything.cutoff.tolist() == [100, 50]


@pytest.mark.parametrize("horizon", [1, 12, 240, 400])
@pytest.mark.parametrize("lengths", [[1000], [1000, 400, 90]])
def test_what_is_known_before_the_test_part_never_reaches_into_a_held_out_part(lengths, horizon):
    panel = staggered(lengths, [0] * len(lengths))
    split = split_by_time(panel, make_spec(24, horizon), **SHARES)

    known = split_times_by_share(panel, at_least=horizon, **SHARES)

    assert (panel.rows_before(known.train_until_us) <= split.train.cutoff).all()


def test_test_origins_lie_a_horizon_apart_and_closer_where_that_gives_few():
    long = split_by_time(staggered([4000], [0]), make_spec(24, 12), **SHARES)
    short = split_by_time(staggered([400], [0]), make_spec(24, 12), **SHARES)

    assert set(np.diff(all_of(rolling_test_origins(long, lookback=24, horizon=12)).cutoff)) == {12}
    closer = all_of(rolling_test_origins(short, lookback=24, horizon=12))
    assert closer.n_origins >= 20
    assert len(set(np.diff(closer.cutoff))) == 1


def test_the_first_test_origin_forecasts_the_first_reading_of_the_test_part():
    split = split_by_time(staggered([400], [0]), make_spec(24, 12), **SHARES)

    first = all_of(rolling_test_origins(split, lookback=24, horizon=12))

    assert first.cutoff_time[0] + HOUR_US == split.test_from_us


def ends_of(panel: Panel, horizon: int = 12, **ends: object) -> SplitTimes:
    return split_times_by_ends(panel, BacktestConfig(**ends), horizon=horizon, **SHARES)


def hour_of(us: int) -> int:
    return (us - START_US) // HOUR_US


def test_ends_are_rows_counted_from_the_first_of_all_series_or_time_stamps():
    panel = staggered([300, 250], [0, 50])

    assert hour_of(parse_moment("100", panel)) == 100
    assert hour_of(parse_moment("2024-01-02 04:00", panel)) == 28
    cuts = ends_of(panel, train_end=100, validation_end="2024-01-07")
    assert (hour_of(cuts.train_until_us), hour_of(cuts.test_from_us)) == (100, 144)
    assert hour_of(cuts.end_us) == 300
    split = split_at(panel, cuts)
    assert split.train.cutoff.tolist() == [100, 50]
    assert split.before_test.cutoff.tolist() == [144, 94]


@pytest.mark.parametrize(("stride", "first"), [(None, 300 - 12 * 5), (2, 300 - 12 - 2 * 4)])
def test_windows_are_the_last_of_the_readings(stride, first):
    panel = staggered([300], [0])

    cuts = ends_of(panel, windows=5, stride=stride)

    assert hour_of(cuts.test_from_us) == first
    origins = Origins.rolling(
        panel, cuts.test_from_us, lookback=24, horizon=12, stride=stride or 12
    )
    assert all_of(origins).cutoff.tolist() == list(range(first, 289, stride or 12))
    assert len(origins) == 5


@pytest.mark.parametrize(
    "ends",
    [
        {"train_end": 200, "validation_end": 100},
        {"train_end": 299},
        {"validation_end": 300},
    ],
)
def test_parts_that_do_not_follow_each_other_are_a_usage_error(ends):
    with pytest.raises(UsageError, match="must be in order"):
        ends_of(staggered([300], [0]), **ends)


def test_a_train_part_without_a_reading_is_too_short():
    with pytest.raises(NotEnoughDataError, match="there is no data before"):
        ends_of(staggered([300], [0]), train_end=0, validation_end=100)


@pytest.mark.parametrize("row", ["301", "20240501", "-1", "9" * 20])
def test_a_row_that_the_table_does_not_have_is_a_usage_error(row):
    with pytest.raises(UsageError, match="outside the 300 rows"):
        parse_moment(row, staggered([300], [0]))


def test_rows_count_from_the_first_of_the_table_also_where_it_is_empty():
    panel = dataclasses.replace(staggered([300], [24]), first_us=START_US)
    assert hour_of(parse_moment("100", panel)) == 100


def test_windows_beside_an_end_are_the_last_of_that_test_part():
    panel = staggered([300], [0])
    late = ends_of(panel, validation_end=280, windows=5)
    early = ends_of(panel, validation_end=200, windows=5)
    assert hour_of(late.test_from_us) == 280
    assert hour_of(early.test_from_us) == 300 - 5 * 12


def test_without_a_validation_share_the_train_part_ends_where_the_test_begins():
    shares = {"validation": 0.0, "test": 0.2}
    cuts = split_times_by_ends(staggered([300], [0]), BacktestConfig(), horizon=12, **shares)
    assert cuts.train_until_us == cuts.test_from_us
