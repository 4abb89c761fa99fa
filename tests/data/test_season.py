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
    _variogram,
    describe_windows,
    find_seasons,
    infer_season,
    resolve_season,
    resolve_segment,
    resolve_windows,
)
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.spec import MemberSpec
from tests.builders import HOUR_US, make_panel, random_walk, wave
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
        _variogram(readings.astype(np.float64)), variogram_by_loops(readings), rtol=1e-6, atol=1e-6
    )


def test_the_variogram_of_too_few_readings_is_unknown():
    assert np.isnan(_variogram(np.float32([1, 2, np.nan, 3, np.nan, np.nan]))).all()


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

    assert infer_season(past(readings, step_us=step_us)) == season


def test_a_day_is_found_under_a_slow_drift_with_gaps_and_spikes():
    readings = wave(24 * 40, noise=1) + 10 * random_walk(24 * 40) / 24
    readings[100:190] = np.nan
    readings[[50, 300, 777]] = 5000

    assert infer_season(past(readings)) == 24


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


def test_a_year_stands_beside_the_week_of_days_and_alone_without_one():
    days = np.arange(5 * 365)
    year = 10 * np.sin(2 * np.pi * days / 365.25)
    weekend = 5.0 * (days % 7 >= 5)
    noise = np.random.default_rng(0).standard_normal(len(days))

    assert find_seasons(past(year + noise, year + weekend + noise, step_us=DAY_US)) == (
        Seasons(365),
        Seasons(7, 365),
    )


def test_a_period_that_no_calendar_knows_is_found_too():
    assert infer_season(past(wave(37 * 20, season=37, noise=0.5))) == 37


def test_no_season_is_invented_in_noise_and_walks():
    """Of 240 series, each of a different kind, length and seed, at most two are told a season."""
    rng = np.random.default_rng(0)
    n_invented = 0
    for n_rows in (240, 500, 1500):
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


@pytest.mark.parametrize("n_rows", [30, 50, 70])
def test_a_series_that_is_too_short_to_tell_has_the_usual_season_of_its_step(n_rows):
    noise = np.random.default_rng(0).standard_normal(n_rows)

    assert find_seasons(past(wave(n_rows, noise=1), noise[:20])) == (Seasons(24), Seasons())


@pytest.mark.parametrize(
    "readings", [[], [1.0], [1.0, 2.0, 3.0], np.full(500, 7.0), np.full(500, np.nan)]
)
def test_there_is_no_season_in_constant_missing_or_few_readings(readings):
    assert infer_season(past(readings)) == 1


@pytest.mark.parametrize("n_days", [4, 5, 7])
def test_a_day_of_minutes_is_found_in_a_few_noisy_days_with_gaps(n_days):
    readings = wave(1440 * n_days, season=1440, noise=5)
    readings[1000:1300] = np.nan

    assert infer_season(past(readings, step_us=MINUTE_US)) == 1440


@pytest.mark.parametrize("seed", range(5))
def test_there_is_no_day_in_minutes_of_noise_and_random_walks(seed):
    noise = np.random.default_rng(seed).standard_normal(20_000)

    assert infer_season(past(noise, step_us=MINUTE_US)) == 1
    assert infer_season(past(random_walk(20_000, seed=seed), step_us=MINUTE_US)) == 1


def test_a_season_that_no_look_back_holds_is_none():
    season = MAX_SEASON * 2

    assert infer_season(past(wave(5 * season, season=season), step_us=5 * MINUTE_US)) == 1


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
def test_fine_steps_are_forecast_an_hour_ahead_or_as_far_as_a_look_back_goes(
    step_us, season, horizon
):
    lookbacks, found = resolve_windows(
        WindowConfig(), season=season, step_us=step_us, longest=50_000
    )

    assert found == horizon
    assert lookbacks[-1] <= MAX_SEASON


def test_most_series_decide():
    series = [wave(480, seed=s, noise=1) for s in range(6)] + [np.zeros(480), random_walk(480)]

    assert infer_season(past(*series)) == 24


def test_many_series_that_are_too_short_to_tell_outvote_no_long_one():
    assert infer_season(past(wave(480), *(wave(n) for n in (1, 2, 3, 5, 8, 12)))) == 24


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


def test_a_series_that_is_constant_in_part_warns_of_nothing():
    readings = wave(480)
    readings[:300] = 20
    alarm = np.zeros(480)
    alarm[[200, 203]] = 1  # brought nearer as spikes are, it never changes

    assert infer_season(past(readings, np.zeros(480), [1.0, np.nan])) in (1, 24)
    assert infer_season(past(alarm)) == 1


@pytest.mark.parametrize(
    ("text", "season"), [("none", 1), ("auto", 24), ("12", 12), ("6h", 6), ("1d", 24)]
)
def test_a_season_can_be_said(text, season):
    assert resolve_season(WindowConfig(season=text), past(wave(480))) == season


@pytest.mark.parametrize("text", ["0", "-1", "90min", "weekly", "1000000"])
def test_a_season_that_cannot_be_meant_is_a_usage_error(text):
    with pytest.raises(UsageError):
        resolve_season(WindowConfig(season=text), past(wave(480)))


seasons = st.sampled_from([1, 2, 7, 12, 24, 37, 48, 96, 168, 288, 720])


@few
@given(seasons, st.integers(1, 50_000))
def test_windows_that_are_found_fit_into_the_data(season, longest):
    try:
        lookbacks, horizon = resolve_windows(
            WindowConfig(), season=season, step_us=HOUR_US, longest=longest
        )
    except NotEnoughDataError:
        assert longest < 20
        return

    assert 1 <= len(lookbacks) <= 3
    assert list(lookbacks) == sorted(set(lookbacks))
    assert lookbacks[0] >= 1 <= horizon
    assert lookbacks[-1] + horizon <= longest
    assert lookbacks[-1] <= MAX_SEASON
    assert all(steps <= season or steps % season == 0 for steps in lookbacks)


@settings(few, max_examples=300)
@given(st.integers(1, 720), st.integers(1, 720), st.integers(20, 20_000))
def test_look_backs_beside_any_horizon_increase_and_leave_room(season, horizon, longest):
    config = WindowConfig(horizon=str(horizon))
    room = min(MAX_SEASON, max((longest - 3 * horizon) // 3, 1))

    try:
        lookbacks, found = resolve_windows(config, season=season, step_us=HOUR_US, longest=longest)
    except NotEnoughDataError:
        assert longest <= horizon, "only a horizon that fills the data leaves nothing"
        return

    assert found == horizon
    assert 1 <= len(lookbacks) <= 3
    assert list(lookbacks) == sorted(set(lookbacks))
    assert 1 <= lookbacks[0] <= lookbacks[-1] <= room
    assert all(steps < season or steps % season == 0 for steps in lookbacks)
    if season > 1 and room >= 2 * season:
        assert lookbacks[0] >= 2 * season


@few
@given(seasons.filter(lambda season: season > 1))
def test_with_room_the_horizon_is_a_season_and_the_look_back_at_least_two(season):
    lookbacks, horizon = resolve_windows(
        WindowConfig(), season=season, step_us=HOUR_US, longest=20_000
    )

    assert horizon == season
    assert lookbacks[0] >= min(2 * season, MAX_SEASON)


@pytest.mark.parametrize(
    ("season", "expected"),
    [
        (24, ((168, 336, 504), 24)),  # hours of a day
        (48, ((240, 480, 720), 48)),  # half hours
        (96, ((192, 480, 672), 96)),  # quarters of an hour
        (144, ((288, 432, 720), 144)),  # ten minutes
        (288, ((576,), 288)),  # five minutes
        (7, ((49, 98, 147), 7)),  # days of a week
        (168, ((336, 504, 672), 168)),  # hours of a week
        (720, ((720,), 720)),
        (1, ((24, 48, 96), 24)),
    ],
)
def test_with_room_there_is_a_short_a_usual_and_a_long_look_back(season, expected):
    found = resolve_windows(WindowConfig(), season=season, step_us=HOUR_US, longest=20_000)

    assert found == expected


@pytest.mark.parametrize(
    ("season", "longest", "expected"),
    [
        (24, 1151, ((120, 216, 336), 24)),
        (24, 1152, ((120, 240, 360), 24)),
        (24, 1300, ((144, 264, 408), 24)),
        (24, 600, ((48, 120, 168), 24)),
        (24, 300, ((48, 72), 24)),
        (24, 40, ((8,), 5)),
        (144, 400, ((83,), 50)),
        (1, 300, ((24, 48, 76), 24)),
        (1, 216, ((24, 48), 24)),
        (1, 168, ((24, 35), 21)),
        (1, 20, ((4,), 2)),
    ],
)
def test_short_readings_leave_room_for_shorter_or_fewer_look_backs(season, longest, expected):
    found = resolve_windows(WindowConfig(), season=season, step_us=HOUR_US, longest=longest)

    assert found == expected


@pytest.mark.parametrize(
    ("season", "horizon", "expected"),
    [
        (1, 60, (60, 120, 240)),
        (24, 500, (168, 336, 504)),
        (24, 720, (240, 480, 720)),
        (4, 84, (28, 56, 84)),
        (4, 120, (40, 80, 120)),
        (4, 1000, (240, 480, 720)),
    ],
)
def test_a_longer_horizon_makes_look_backs_longer(season, horizon, expected):
    config = WindowConfig(horizon=str(horizon))

    found = resolve_windows(config, season=season, step_us=HOUR_US, longest=20_000)

    assert found == (expected, horizon)


def test_window_lengths_can_be_steps_or_durations():
    config = WindowConfig(horizon="6h", lookback="48")

    assert resolve_windows(config, season=24, step_us=30 * MINUTE_US, longest=100) == ((48,), 12)


@few
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 120))
def test_windows_that_do_not_fit_are_not_enough_data(lookback, horizon, longest):
    config = WindowConfig(horizon=str(horizon), lookback=str(lookback))
    options = {"season": 24, "step_us": HOUR_US, "longest": longest}

    if lookback + horizon <= longest:
        assert resolve_windows(config, **options) == ((lookback,), horizon)
        return
    with pytest.raises(NotEnoughDataError) as caught:
        resolve_windows(config, **options)
    assert caught.value.exit_code == 5
    assert f"{lookback} + {horizon} = {lookback + horizon}" in caught.value.message


@pytest.mark.parametrize("text", ["0", "-4", "45min", "soon", "20000"])
@pytest.mark.parametrize("name", ["horizon", "lookback"])
def test_window_lengths_that_cannot_be_meant_are_usage_errors(name, text):
    with pytest.raises(UsageError, match=f"--{name}|duration"):
        resolve_windows(WindowConfig(**{name: text}), season=1, step_us=HOUR_US, longest=10**6)


@few
@given(seasons, st.integers(1, 720))
def test_a_segment_divides_the_season_or_is_a_multiple_of_it(season, lookback):
    segment = resolve_segment(None, season=season, lookback=lookback)

    assert 1 <= segment <= max(lookback // 2, 1)
    assert segment <= (48 if season == 1 else min(max(season, 24), 96))
    assert segment <= max(lookback // 4, 48)
    if season > 1:
        assert season % segment == 0 or segment % season == 0
    if 24 <= season <= min(96, lookback // 4):
        assert segment == season


@pytest.mark.parametrize(
    ("season", "lookback", "segment"),
    [
        (24, 336, 24),
        (24, 168, 24),
        (24, 672, 24),
        (96, 384, 96),
        (96, 383, 48),
        (96, 192, 48),
        (48, 192, 48),
        (144, 288, 72),
        (7, 336, 21),
        (168, 336, 84),
        (168, 672, 84),
        (720, 720, 90),
        (37, 333, 37),
        (24, 30, 12),
        (24, 2, 1),
        (24, 1, 1),
        (1, 48, 6),
        (1, 96, 12),
        (1, 720, 48),
        (1, 3, 1),
    ],
)
def test_a_segment_is_a_season_or_the_largest_part_or_multiple_that_is_short_enough(
    season, lookback, segment
):
    assert resolve_segment(None, season=season, lookback=lookback) == segment


@few
@given(st.integers(1, 100), st.integers(1, 100))
def test_a_segment_that_is_said_is_taken_but_never_longer_than_the_look_back(segment, lookback):
    assert resolve_segment(segment, season=24, lookback=lookback) == min(segment, lookback)


@few
@given(seasons, st.integers(1, 400), st.integers(1, 400))
def test_what_was_settled_is_said(season, horizon, lookback):
    assume(season > 1 < horizon)

    members = [MemberSpec(n, 5, kind, kind) for n in (lookback, 1000) for kind in (False, True)]

    said = describe_windows(HOUR_US, season=season, horizon=horizon, members=members)

    assert said[0] == "step 1 h"
    assert f"season {season} steps" in said[1]
    assert f"horizon {horizon} steps" in said[2]
    assert f"look-back {lookback} step" in said[3]
    assert "look-back 1000 steps" in said[4]
    assert all(line.endswith("in segments of 5") for line in said[3:])
    assert len(said) == 5
