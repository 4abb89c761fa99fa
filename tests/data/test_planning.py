"""What is settled before a training starts: who the members are."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.config import Config, MemberTask, NetworkConfig, WindowConfig
from rnnforecast.data.planning import Plan, plan_training
from rnnforecast.events import Event, Noted
from tests.builders import make_panel, random_walk, wave


def plan(readings: np.ndarray, *, segment: int | None = None, **window: str) -> Plan:
    """Plan the training on one hourly series."""
    config = Config(window=WindowConfig(**window), network=NetworkConfig(segment=segment))
    return plan_training(make_panel(readings), config, lambda _event: None)


def members_of(made: Plan) -> list[tuple[int, int, bool]]:
    return [(own.lookback, own.segment, own.augmented) for own in made.task.members]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (4000, [(672, 24, True), (336, 24, True), (336, 24, False), (168, 24, True)]),
        (1100, [(336, 24, True), (336, 24, False), (168, 24, True), (168, 24, True)]),
        (500, [(120, 24, True), (120, 24, True), (120, 24, True), (120, 24, False)]),
    ],
    ids=["three look-backs", "two", "one"],
)
def test_three_augmented_members_share_the_look_backs_and_one_is_plain(
    n: int, expected: list[tuple[int, int, bool]]
) -> None:
    made = plan(wave(n))

    assert members_of(made) == expected
    assert (made.task.season, made.task.horizon) == (24, 24)
    assert made.task.lookback == expected[0][0], "the longest comes first"


def test_without_a_season_the_members_look_one_two_and_four_horizons_back() -> None:
    made = plan(random_walk(2000), season="none")

    assert members_of(made) == [(96, 12, True), (48, 6, True), (48, 6, False), (24, 3, True)]
    assert made.task.lookback == 96


def test_with_a_given_look_back_three_are_augmented_and_one_is_plain() -> None:
    made = plan(wave(600), lookback="48", horizon="6")

    augmented, plain = (MemberTask(48, 24, augmented=kind) for kind in (True, False))
    assert made.task.members == (augmented, augmented, augmented, plain)
    assert (made.task.lookback, made.task.horizon) == (48, 6)


def test_a_given_segment_is_that_of_every_member() -> None:
    made = plan(wave(4000), segment=200)

    assert [own.segment for own in made.task.members] == [200, 200, 200, 168]


@pytest.mark.parametrize("season", ["none", "7", "24", "144"])
@pytest.mark.parametrize("n", [240, 700, 1152, 3000])
def test_members_always_are_three_augmented_and_one_plain_the_longest_first(
    n: int, season: str
) -> None:
    made = plan(wave(n), season=season)

    lookbacks = [own.lookback for own in made.task.members]
    assert lookbacks == sorted(lookbacks, reverse=True)
    assert made.task.lookback == lookbacks[0]
    assert sorted(own.augmented for own in made.task.members) == [False, True, True, True]


def test_each_look_back_is_said_once() -> None:
    told: list[Event] = []

    plan_training(make_panel(wave(1100)), Config(), told.append)

    said = [e.message for e in told if isinstance(e, Noted) and "look-back" in e.message]
    assert said == [
        "look-back 336 steps (2 w), in segments of 24",
        "look-back 168 steps (1 w), in segments of 24",
    ]
