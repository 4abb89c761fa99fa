"""What is settled before a training starts: who the members are."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.config.training import Config, NetworkConfig, WindowConfig
from rnnforecast.data.setup import TrainingSetup, set_up_training
from rnnforecast.events import Event, Notice
from tests.builders import make_panel, random_walk, wave


def plan(readings: np.ndarray, *, segment: int | None = None, **window: str) -> TrainingSetup:
    """Plan the training on one hourly series."""
    config = Config(window=WindowConfig(**window), network=NetworkConfig(segment=segment))
    return set_up_training(make_panel(readings), config, lambda _event: None)


def members_of(made: TrainingSetup) -> list[tuple[int, int, bool, bool]]:
    return [(own.lookback, own.segment, own.linear, own.seasonal) for own in made.spec.members]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (4000, [(504, 24, True, True), (336, 24, False, False), (168, 24, True, True)]),
        (600, [(168, 24, True, True), (120, 24, False, False), (48, 24, True, True)]),
        (250, [(48, 24, True, True), (48, 24, False, False), (48, 24, True, True)]),
    ],
    ids=["three look-backs", "shorter ones", "one"],
)
def test_three_members_take_different_things_for_granted(
    n: int, expected: list[tuple[int, int, bool, bool]]
) -> None:
    made = plan(wave(n))

    assert members_of(made) == expected
    assert (made.spec.season, made.spec.horizon) == (24, 24)
    assert made.spec.lookback == expected[0][0], "the longest comes first"


def test_without_a_season_the_members_look_one_two_and_four_horizons_back() -> None:
    made = plan(random_walk(2000), season="none")

    assert members_of(made) == [
        (96, 12, True, False),
        (48, 6, False, False),
        (24, 3, True, False),
    ]


def test_with_a_given_look_back_all_members_have_it() -> None:
    made = plan(wave(600), lookback="48", horizon="6")

    assert [(own.lookback, own.segment) for own in made.spec.members] == [(48, 24)] * 3
    assert (made.spec.lookback, made.spec.horizon) == (48, 6)


def test_a_pattern_is_what_occurs_twice() -> None:
    made = [plan(wave(600), lookback=str(n), horizon="6", season="24") for n in (24, 47, 48)]

    for one, expected in zip(made, (False, False, True), strict=True):
        assert [own.seasonal for own in one.spec.members] == [expected, False, expected]


def test_a_given_segment_is_that_of_every_member() -> None:
    made = plan(wave(4000), segment=200)

    assert [own.segment for own in made.spec.members] == [200, 200, 168]


@pytest.mark.parametrize("season", ["none", "7", "24", "144"])
@pytest.mark.parametrize("n", [240, 700, 1152, 3000])
def test_members_always_are_two_linear_ones_and_one_plain_the_longest_first(
    n: int, season: str
) -> None:
    made = plan(wave(n), season=season)

    lookbacks = [own.lookback for own in made.spec.members]
    assert lookbacks == sorted(lookbacks, reverse=True)
    assert made.spec.lookback == lookbacks[0]
    assert [own.linear for own in made.spec.members] == [True, False, True]
    assert all(own.linear or not own.seasonal for own in made.spec.members)


def test_each_look_back_is_said_once() -> None:
    told: list[Event] = []

    set_up_training(make_panel(wave(1100)), Config(), told.append)

    said = [e.message for e in told if isinstance(e, Notice) and "look-back" in e.message]
    assert said == [
        "look-back 336 steps (2 w), in segments of 24",
        "look-back 216 steps (9 d), in segments of 24",
        "look-back 120 steps (5 d), in segments of 24",
    ]
