"""The season against a double loop, and the window lengths that follow from it."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from rnnforecast.config.training import WindowConfig
from rnnforecast.data.season import (
    MAX_SEASON,
    Seasons,
    _variograms,
    describe_windows,
    find_seasons,
    parse_seasons,
    resolve_windows,
    wanted_lookback,
)
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import NotEnoughDataError, UsageError
from tests.builders import HOUR_US, main_season, make_panel, random_walk, wave
from tests.data.tables import few

MINUTE_US = 60_000_000
DAY_US = 24 * HOUR_US


def past(*series: object, step_us: int = HOUR_US) -> Past:
    """Make a past that sees all of these series."""
    return make_past(make_panel(*series, step_us=step_us))


def variogram_by_loops(readings: np.ndarray) -> list[float]:
    """Mean squared difference of the readings k steps apart, of the pairs that are both there."""
    y = readings.astype(np.float64)
    means = []
    for k in range(len(y) // 2):
        squares = [
            (y[t] - y[t - k]) ** 2
            for t in range(k, len(y))
            if not np.isnan(y[t]) and not np.isnan(y[t - k])
        ]
        means.append(sum(squares) / len(squares) if squares else np.nan)
    return means


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("missing", [0, 0.1, 0.7])
def test_the_variogram_is_that_of_a_double_loop(missing, offset):
    readings = offset + wave(60, season=7, noise=1)
    readings[np.random.default_rng(1).random(60) < missing] = np.nan

    np.testing.assert_allclose(
        _variograms(readings[None].astype(np.float64))[0],
        variogram_by_loops(readings),
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("period", "step_us", "n_rows"),
    [
        (37, MINUTE_US, 5 * 1440),
        (50, MINUTE_US, 2 * 1440),
        (11, 5 * MINUTE_US, 2000),
        (48, HOUR_US, 720),
        (8 * 24, HOUR_US, 8 * 8 * 24),
        (14 * 24, HOUR_US, 8 * 14 * 24),
        (6, DAY_US, 200),
    ],
)
def test_a_cycle_that_is_none_of_the_clock_is_not_hidden_by_a_day(period, step_us, n_rows):
    """Switched on for two fifths of a cycle: a day helps a little where it is nearly a multiple."""
    is_on = np.arange(n_rows) % period < 0.4 * period
    readings = 3.0 * is_on + np.random.default_rng(0).normal(0, 0.1, n_rows)
    assert main_season(past(readings.astype(np.float32), step_us=step_us)) == period


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_a_day_is_not_replaced_by_a_period_that_chance_makes_a_little_better(noise):
    rng = np.random.default_rng(1)
    for _ in range(20):
        readings = np.sin(2 * np.pi * np.arange(720) / 24) + noise * rng.standard_normal(720)
        assert main_season(past(readings.astype(np.float32))) in (1, 24)


def test_the_variogram_of_too_few_readings_is_unknown():
    assert np.isnan(_variograms(np.array([[1, 2, np.nan, 3, np.nan, np.nan]]))).all()


@pytest.mark.parametrize(
    ("period_us", "step_us"),
    [
        (DAY_US, HOUR_US),
        (DAY_US, 15 * MINUTE_US),
        (DAY_US, 10 * MINUTE_US),
        (HOUR_US, 5 * MINUTE_US),
        (7 * DAY_US, DAY_US),
        (MINUTE_US, 1_000_000),
        (DAY_US, MINUTE_US),
        (DAY_US, 30_000_000),
        (DAY_US, 10_000_000),
        (HOUR_US, 1_000_000),
    ],
)
def test_a_period_of_the_calendar_is_found(period_us, step_us):
    season = period_us // step_us
    readings = wave(min(12 * season, 65_536), season=season, noise=1)

    assert main_season(past(readings, step_us=step_us)) == season


def test_a_day_is_found_under_a_slow_drift_with_gaps_and_spikes():
    readings = wave(24 * 40, noise=1) + 10 * random_walk(24 * 40) / 24
    readings[100:190] = np.nan
    readings[[50, 300, 777]] = 5000

    assert main_season(past(readings)) == 24


def test_a_week_stands_beside_a_day_where_it_helps():
    hours = np.arange(24 * 7 * 8)
    weekend = hours // 24 % 7 >= 5
    day = np.sin(2 * np.pi * hours / 24)
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(hours))
    week = np.where(weekend, 0, 5 + 3 * day)

    assert find_seasons(past(day + noise, week + noise, noise)) == (
        Seasons(24),
        Seasons(24, 168),
        Seasons(),
    )


@pytest.mark.parametrize("n_weeks", [3, 6])
def test_what_happens_once_a_week_has_no_day(n_weeks):
    hours = np.arange(168 * n_weeks)
    noise = np.random.default_rng(0).normal(0, 0.2, len(hours))
    level = 100 - hours % 168 / 1.68
    batch = 5.0 * ((hours % 168 >= 33) & (hours % 168 < 37))
    assert find_seasons(past(level + noise, batch + noise)) == (Seasons(168), Seasons(168))


def test_a_year_stands_beside_the_week_of_days_and_alone_without_one():
    """Beside the week it has 52 of them, so that its days are those of the same name."""
    days = np.arange(5 * 365)
    year = 10 * np.sin(2 * np.pi * days / 365.25)
    weekend = 5.0 * (days % 7 >= 5)
    noise = np.random.default_rng(0).standard_normal(len(days))

    assert find_seasons(past(year + noise, year + weekend + noise, step_us=DAY_US)) == (
        Seasons(365),
        Seasons(7, 364),
    )


def test_a_period_that_no_calendar_knows_is_found_too():
    assert main_season(past(wave(37 * 20, season=37, noise=0.5))) == 37


def test_no_season_is_invented_in_noise_and_walks():
    """Of 240 series, each of a different kind, length and seed, at most two are told a season."""
    rng = np.random.default_rng(0)
    n_invented = 0
    for n_rows in (400, 700, 1500):
        noise = rng.standard_normal((80, n_rows))
        kinds = [
            noise[:10],
            np.cumsum(noise[10:20], axis=1),
            np.cumsum(noise[20:30] + 0.1, axis=1),
            30 * np.arange(n_rows) / n_rows + noise[30:40],
            rng.standard_t(1.5, (10, n_rows)),
            np.exp(noise[40:50]),
            lfilter([1], [1, -0.9], noise[50:60]),
            np.maximum(lfilter([1], [1, -0.8], noise[60:70]) - 1.5, 0),
        ]
        seasons = find_seasons(past(*np.concatenate(kinds)))
        n_invented += sum(each.has_main for each in seasons)

    assert n_invented <= 2


def test_a_few_days_are_believed_to_have_a_day_unless_they_speak_against_it():
    rng = np.random.default_rng(0)
    assert {main_season(past(rng.standard_normal(n))) for n in (60, 100, 240)} == {24}
    assert main_season(past(wave(300, season=10, noise=0.1))) == 10


@pytest.mark.parametrize("n_rows", [30, 50, 70])
def test_a_series_that_is_too_short_to_tell_has_the_usual_season_of_its_step(n_rows):
    noise = np.random.default_rng(0).standard_normal(n_rows)

    assert find_seasons(past(wave(n_rows, noise=1), noise[:20])) == (Seasons(24), Seasons())


@pytest.mark.parametrize(
    "readings", [[], [1.0], [1.0, 2.0, 3.0], np.full(500, 7.0), np.full(500, np.nan)]
)
def test_there_is_no_season_in_constant_missing_or_few_readings(readings):
    assert main_season(past(readings)) == 1


@pytest.mark.parametrize("n_days", [4, 5, 7])
def test_a_day_of_minutes_is_found_in_a_few_noisy_days_with_gaps(n_days):
    readings = wave(1440 * n_days, season=1440, noise=5)
    readings[1000:1300] = np.nan

    assert main_season(past(readings, step_us=MINUTE_US)) == 1440


@pytest.mark.parametrize("seed", range(5))
def test_there_is_no_day_in_minutes_of_noise_and_random_walks(seed):
    noise = np.random.default_rng(seed).standard_normal(20_000)

    assert main_season(past(noise, step_us=MINUTE_US)) == 1
    assert main_season(past(random_walk(20_000, seed=seed), step_us=MINUTE_US)) == 1


def test_a_season_of_no_clock_that_is_too_long_is_none():
    season = MAX_SEASON * 2

    assert main_season(past(wave(5 * season, season=season), step_us=5 * MINUTE_US)) == 1


@pytest.mark.parametrize(
    ("step_us", "season", "horizon"),
    [
        (MINUTE_US, 1440, 720),
        (MINUTE_US, 1, 60),
        (10_000_000, 8640, 720),
        (10_000_000, 1, 360),
        (1_000_000, 1, 720),
        (5 * MINUTE_US, 1, 24),
    ],
)
def test_fine_steps_are_forecast_an_hour_ahead_or_as_far_as_auto_goes(step_us, season, horizon):
    assert windows(season, step_us=step_us, longest=50_000)[1] == horizon


def test_most_series_decide():
    series = [wave(480, seed=s, noise=1) for s in range(6)] + [np.zeros(480), random_walk(480)]

    assert main_season(past(*series)) == 24


def test_many_series_that_are_too_short_to_tell_outvote_no_long_one():
    assert main_season(past(wave(480), *(wave(n) for n in (1, 2, 3, 5, 8, 12)))) == 24


def test_a_table_of_unlike_series_gets_the_season_of_each():
    """A walk, a day, a week of workdays, noise and growth, of 20 seeds; one in 100 may be wrong."""
    hours = np.arange(24 * 7 * 6)
    day = np.sin(2 * np.pi * hours / 24)
    weekend = hours // 24 % 7 >= 5
    truth = [{Seasons()}, {Seasons(24)}, {Seasons(24, 168)}, {Seasons()}, {Seasons()}]
    n_wrong = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal((5, len(hours)))
        seasons = find_seasons(
            past(
                np.cumsum(noise[0]),
                20 + 5 * day + noise[1],
                np.where(weekend, 2, 8 + 5 * day) + noise[2],
                noise[3],
                10 * np.exp(hours / 400) + noise[4],
            )
        )
        n_wrong += sum(each not in true for each, true in zip(seasons, truth, strict=True))

    assert n_wrong <= 1


def workdays(n_days: int, n_per_day: int, seed: int) -> np.ndarray:
    """Return readings that end at some hour of a week, with quiet weekends."""
    rng = np.random.default_rng(seed)
    step = np.arange(n_days * n_per_day) + int(rng.integers(7 * n_per_day))
    day = 10 + 5 * np.sin(2 * np.pi * step / n_per_day)
    return np.where(step // n_per_day % 7 >= 5, 2, day) + rng.normal(size=len(step)) / 2


@pytest.mark.parametrize("n_per_day", [24, 96])
@pytest.mark.parametrize("n_days", [14, 17, 21, 28])
def test_a_short_history_has_its_week_beside_the_day(n_days, n_per_day):
    step_us = DAY_US // n_per_day
    series = [workdays(n_days, n_per_day, seed) for seed in range(20)]
    expected = Seasons(n_per_day, 7 * n_per_day)
    assert find_seasons(past(*series, step_us=step_us)).count(expected) == 20


def test_a_short_history_of_equal_days_seldom_has_a_week():
    rng = np.random.default_rng(0)
    steps = np.arange(24 * 27)
    series = [
        10 + 5 * np.sin(2 * np.pi * steps / 24) + rng.normal(size=len(steps)) for _ in "x" * 100
    ]
    assert sum(found.has_long for found in find_seasons(past(*series))) <= 10


def test_a_series_has_the_seasons_that_it_has_alone() -> None:
    rng = np.random.default_rng(0)
    series = []
    for number, n_rows in enumerate(rng.integers(30, 900, 60)):
        hours, noise = np.arange(n_rows), rng.standard_normal(n_rows)
        kinds = (
            np.cumsum(noise),
            3 * np.sin(2 * np.pi * hours / 24) + noise,
            np.where(hours // 24 % 7 >= 5, 0, 3) + noise,
            3 * np.sin(2 * np.pi * hours / 37) + noise,
        )
        series.append(kinds[number % 4])

    assert find_seasons(past(*series)) == tuple(find_seasons(past(x))[0] for x in series)


def test_growth_neither_hides_a_day_nor_passes_for_a_week():
    hours = np.arange(24 * 40)
    growth = np.exp(hours / 500)
    day = np.sin(2 * np.pi * hours / 24)
    noise = np.random.default_rng(0).standard_normal((2, len(hours)))

    seasons = find_seasons(past(hours / 20 + 5 * day + noise[0], growth * (5 + day + noise[1] / 5)))

    assert seasons == (Seasons(24), Seasons(24))


def test_random_totals_rarely_get_a_season():
    """Of 30, at most three; a search that knows no growth gives half of them one."""
    rng = np.random.default_rng(0)
    n_invented = 0
    for n_rows in (400, 700, 1500):
        increments = np.abs(rng.standard_normal((80, n_rows))[70:])
        seasons = find_seasons(past(*np.cumsum(increments, axis=1)))
        n_invented += sum(each.has_main for each in seasons)

    assert n_invented <= 3


def test_the_total_of_a_daily_load_has_a_day():
    hours = np.arange(24 * 40)
    load = 5 + 4 * np.sin(2 * np.pi * hours / 24)
    noise = np.random.default_rng(0).normal(0, 0.7, len(hours))
    is_on = (hours % 24 > 7) & (hours % 24 < 18)

    seasons = find_seasons(past(np.cumsum(load + noise), np.cumsum(is_on), load / 9 - 5.0 * hours))

    assert [each.main for each in seasons] == [24, 24, 24]


def test_a_series_that_is_constant_in_part_warns_of_nothing():
    readings = wave(480)
    readings[:300] = 20
    alarm = np.zeros(480)
    alarm[[200, 203]] = 1  # brought nearer as spikes are, it never changes

    assert main_season(past(readings, np.zeros(480), [1.0, np.nan])) in (1, 24)
    assert main_season(past(alarm)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Seasons()),
        ("1", Seasons()),
        ("auto", None),
        ("12", Seasons(12)),
        ("6h", Seasons(6)),
        ("1d", Seasons(24)),
        ("1d,1w", Seasons(24, 168)),
        ("168,24", Seasons(24, 168)),
        ("1d,24", Seasons(24)),
    ],
)
def test_seasons_can_be_told(text: str, expected: Seasons | None) -> None:
    assert parse_seasons(WindowConfig(season=text), past(wave(480))) == expected


@pytest.mark.parametrize("text", ["0", "-1", "90min", "weekly", "1000000", "1d,", "6h,1d,1w"])
def test_a_season_that_cannot_be_meant_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_seasons(WindowConfig(season=text), past(wave(480)))


@pytest.mark.parametrize("text", ["480", "20d", "1d,20d"])
def test_a_season_as_long_as_the_readings_is_too_long(text):
    with pytest.raises(NotEnoughDataError, match="480 steps does not fit into 480 training rows"):
        parse_seasons(WindowConfig(season=text), past(wave(480)))


@pytest.mark.parametrize(
    ("seasons", "expected"),
    [
        ([Seasons()], 672),
        ([Seasons(24)], 672),
        ([Seasons(24, 168)], 672),
        ([Seasons(48)], 1344),
        ([Seasons(96)], 2048),
        ([Seasons(7, 365)], 1460),
        ([Seasons(168)], 2048),
        ([Seasons(), Seasons(48), Seasons(24, 168)], 1344),
        ([Seasons(96, 672)], 2048),
        ([Seasons(288, 2016), Seasons(24)], 4320),
        ([Seasons(1440, 10_080)], 2048),
    ],
)
def test_the_wanted_look_back_holds_28_main_and_4_long_seasons_within_bounds(seasons, expected):
    assert wanted_lookback(seasons) == expected


periods = st.sampled_from([1, 2, 7, 12, 24, 37, 48, 96, 168, 288, 720])


def windows(season: int, *, step_us: int = HOUR_US, longest: int, **config: str) -> tuple[int, int]:
    """Return the windows of series that all have one season."""
    return resolve_windows(
        WindowConfig(**config),
        season=season,
        n_wanted=wanted_lookback([Seasons(season)]),
        step_us=step_us,
        longest=longest,
    )


@few
@given(periods, st.integers(1, 50_000))
def test_windows_that_are_found_fit_into_the_data(season, longest):
    try:
        lookback, horizon = windows(season, longest=longest)
    except NotEnoughDataError:
        assert longest < 20
        return

    assert 1 <= lookback <= 2048
    assert 1 <= horizon <= max(season, 24)
    assert lookback + 2 * horizon <= longest


@settings(few, max_examples=300)
@given(periods, st.integers(1, 720), st.integers(20, 20_000))
def test_a_look_back_beside_any_horizon_leaves_room_for_one_more(season, horizon, longest):
    try:
        lookback, found = windows(season, longest=longest, horizon=str(horizon))
    except NotEnoughDataError:
        assert longest <= horizon, "only a horizon that fills the data leaves nothing"
        return

    assert found == horizon
    assert lookback == min(wanted_lookback([Seasons(season)]), max(longest - 2 * horizon, 1))


@pytest.mark.parametrize(
    ("season", "longest", "expected"),
    [
        (24, 20_000, (672, 24)),
        (96, 20_000, (2048, 96)),
        (7, 20_000, (672, 7)),
        (1, 20_000, (672, 24)),
        (24, 721, (672, 24)),
        (24, 719, (671, 24)),
        (24, 100, (76, 12)),
        (24, 40, (30, 5)),
        (1, 20, (16, 2)),
    ],
)
def test_short_readings_leave_room_for_a_shorter_look_back(season, longest, expected):
    assert windows(season, longest=longest) == expected


def test_window_lengths_can_be_steps_or_durations():
    options = {"step_us": 30 * MINUTE_US, "longest": 100}

    assert windows(24, **options, horizon="6h", lookback="48") == (48, 12)


@few
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 120))
def test_windows_that_do_not_fit_are_not_enough_data(lookback, horizon, longest):
    given_windows = {"horizon": str(horizon), "lookback": str(lookback)}

    if lookback + horizon <= longest:
        assert windows(24, longest=longest, **given_windows) == (lookback, horizon)
        return
    with pytest.raises(NotEnoughDataError) as caught:
        windows(24, longest=longest, **given_windows)
    assert caught.value.exit_code == 5
    assert f"{lookback} + {horizon} = {lookback + horizon}" in caught.value.message


@pytest.mark.parametrize("text", ["0", "-4", "45min", "soon", "20000"])
@pytest.mark.parametrize("name", ["horizon", "lookback"])
def test_window_lengths_that_cannot_be_meant_are_usage_errors(name, text):
    with pytest.raises(UsageError, match=f"--{name}|duration"):
        windows(1, longest=10**6, **{name: text})


@few
@given(periods, st.integers(1, 400), st.integers(1, 400))
def test_what_was_settled_is_said(season, horizon, lookback):
    assume(season > 1 < horizon)

    lines = describe_windows(HOUR_US, season=season, horizon=horizon, lookback=lookback, segment=5)

    assert lines[0] == "step 1 h"
    assert f"season {season} steps" in lines[1]
    assert f"horizon {horizon} steps" in lines[2]
    assert f"look-back {lookback} step" in lines[3]
    assert lines[3].endswith("in segments of 5")
    assert len(lines) == 4
