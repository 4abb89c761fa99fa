"""What is settled before a training starts: seasons, windows and members."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnforecast.config.training import Config, NetworkConfig, WindowConfig
from rnnforecast.data.panel import Panel, covariates_from_columns
from rnnforecast.data.season import Seasons
from rnnforecast.data.setup import TrainingSetup, set_up_training
from rnnforecast.data.windows import windows_of
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.events import Event, Listener, Notice, ignore
from rnnforecast.spec import BUILTIN, MemberSpec
from tests.builders import HOUR_US, make_panel, random_walk, wave


def plan(
    panel: Panel,
    network: NetworkConfig | None = None,
    listener: Listener = ignore,
    **window: str,
) -> TrainingSetup:
    config = Config(window=WindowConfig(**window), network=network or NetworkConfig())
    return set_up_training(panel, config, listener)


def sizes(setup: TrainingSetup) -> tuple[int, int, int]:
    return setup.spec.lookback, setup.spec.horizon, setup.spec.season


@pytest.mark.parametrize(("n", "lookback"), [(4000, 672), (600, 552), (250, 202), (100, 76)])
def test_the_look_back_is_four_weeks_of_hours_or_what_the_readings_have_room_for(
    n: int, lookback: int
) -> None:
    setup = plan(make_panel(wave(n)))

    assert sizes(setup) == (lookback, min(24, n // 8), 24)
    assert len(windows_of(setup.split.train, setup.spec)) > 0


def test_the_look_back_is_that_of_the_series_with_the_longest_season() -> None:
    quarters = make_panel(wave(8000), wave(8000, season=96), step_us=HOUR_US // 4)

    assert sizes(plan(quarters))[0] == 2048


def test_without_a_season_the_look_back_is_the_shortest_that_is_chosen() -> None:
    assert sizes(plan(make_panel(random_walk(2000)), season="none")) == (672, 24, 1)


def test_each_series_has_its_own_season_unless_all_are_told_theirs() -> None:
    panel = make_panel(wave(1000), random_walk(1000))

    assert plan(panel).common is None
    assert plan(panel).seasons == (Seasons(24), Seasons())
    assert plan(panel, season="none").common == Seasons()
    for season in ("12", "12h", "12,12h", "1,12"):
        assert plan(panel, season=season).common == Seasons(12)
    week_and_day = plan(panel, season="1w,1d")
    assert week_and_day.common == Seasons(24, 168)
    assert week_and_day.seasons == (Seasons(24, 168),) * 2
    assert sizes(week_and_day)[1:] == (24, 24)


def test_seasons_of_fewer_series_are_named_beside_that_of_most() -> None:
    panel = make_panel(random_walk(1000), wave(1000), random_walk(1000, seed=3))
    notices: list[str] = []

    plan(panel, listener=lambda event: notices.append(event.message))
    plan(make_panel(wave(1000)), listener=lambda event: notices.append(event.message))

    assert "no season" in notices
    assert [line for line in notices if "other seasons" in line] == [
        "other seasons: 1 d in 1 of 3 series"
    ]


@pytest.mark.parametrize("season", ["1d,1w,90d", "1d,", "none,24"])
def test_other_lists_of_seasons_are_a_usage_error(season: str) -> None:
    with pytest.raises(UsageError):
        plan(make_panel(wave(4000)), season=season)


def test_a_second_season_has_to_fit_too() -> None:
    with pytest.raises(NotEnoughDataError, match="168 steps does not fit"):
        plan(make_panel(wave(100)), season="1d,1w")


def test_windows_that_are_given_are_taken() -> None:
    assert sizes(plan(make_panel(wave(600)), lookback="48", horizon="6")) == (48, 6, 24)


@pytest.mark.parametrize(("lookback", "least"), [("672", 48), ("40", 40)])
def test_windows_begin_before_the_first_reading_but_for_two_seasons(
    lookback: str, least: int
) -> None:
    setup = plan(make_panel(wave(800)), lookback=lookback, horizon="6")
    short = replace(setup.split.train, cutoff=np.array([least + 6]))

    assert setup.spec.least_history == least
    assert len(windows_of(short, setup.spec)) == 1


def test_the_built_in_network_is_a_member_beside_the_one_that_begins_with_it() -> None:
    trained = MemberSpec("gru", hidden=64, layers=2, segment=16)

    assert plan(make_panel(wave(600))).spec.members == (trained, BUILTIN)
    assert replace(trained, is_trained=False) == BUILTIN


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(cell="lstm"),
        NetworkConfig(hidden=32),
        NetworkConfig(layers=1),
        NetworkConfig(segment=8),
        NetworkConfig(segment=200),
    ],
)
def test_a_network_of_another_shape_stands_alone(network: NetworkConfig) -> None:
    (member,) = plan(make_panel(wave(600)), network).spec.members

    assert (member.cell, member.hidden, member.layers) == (
        network.cell,
        network.hidden,
        network.layers,
    )
    assert member.segment == (network.segment or 16)
    assert member.is_trained


def test_covariates_add_a_member_that_sees_them() -> None:
    panel = make_panel(wave(600))
    columns = {"known": [np.zeros(600, np.float32)], "past": [], "static": []}
    names = {"known": ("heating",), "past": (), "static": ()}
    covariates = covariates_from_columns(columns, names, panel.offsets, 1)
    panel = replace(panel, covariates=covariates)

    first, second, builtin = plan(panel).spec.members

    assert second == replace(first, covariates=True)
    assert not first.covariates
    assert builtin == BUILTIN


def test_what_was_settled_is_said_once() -> None:
    told: list[Event] = []

    plan(make_panel(wave(1100)), listener=told.append)

    assert [event.message for event in told if isinstance(event, Notice)] == [
        "step 1 h",
        "season 24 steps (1 d)",
        "horizon 24 steps (1 d)",
        "look-back 672 steps (4 w), in segments of 16",
    ]
