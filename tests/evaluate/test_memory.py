"""Verdicts on figures that are made up: each failure is named, with the option that helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rnnforecast.config.training import Config, NetworkConfig, TrainConfig
from rnnforecast.evaluate.memory import MemberMemory, MemoryAnalysis, Peak, diagnose, half_life
from rnnforecast.gradients import explain_explosion
from rnnforecast.spec import MemberSpec
from tests.builders import make_spec

MEMBER = MemberSpec("gru", hidden=4, layers=1, segment=1)
TASK = make_spec(100, 6, 1, members=(MEMBER,))
GOOD = MemoryAnalysis(
    lookback=100,
    effective=60,
    lengths=(0, 60, 100),
    losses=(1.0, 0.505, 0.5),
    leads={"early": 1},
    gradients={"early": (1.0, 0.5, 0.1)},
    members=(MemberMemory(1, (0, 50, 99), (1.0, 0.5, 0.1), None),),
    peaks=(Peak(50, 0.7, 0.8),),
    n_windows=64,
    explosion=None,
)
CONFIG = Config(network=NetworkConfig(cell="gru"))


def verdict(config: Config = CONFIG, **changes: object) -> tuple[str, str | None]:
    judged = diagnose(replace(GOOD, **changes), TASK, config)
    return judged.verdict, judged.advice


def test_a_network_that_makes_use_of_what_comes_again_is_ok() -> None:
    assert verdict() == ("OK", None)


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        (TrainConfig(learning_rate=0.1, clip=0.0), "--learning-rate 0.001"),
        (TrainConfig(clip=0.0), "--clip 1"),
        (TrainConfig(clip=50.0), "--clip 1"),
        (TrainConfig(), "--learning-rate 0.0003"),
    ],
)
def test_a_training_that_exploded_is_said_to_have(training: TrainConfig, advice: str) -> None:
    found = verdict(Config(training=training), explosion="the loss jumped in epoch 2")

    assert found == ("EXPLODING", advice)


@pytest.mark.parametrize(
    ("clipped", "losses", "expected"),
    [
        ([0.0, 0.0], [1.0, 0.9], None),
        ([0.2, 0.3], [1.0, 0.9], None),
        ([0.2, 0.4], [1.0, 0.9], "30 % of the gradient norms exceeded 1"),
        ([0.0] * 4, [1.0, 0.5, 0.9, 1.1], "the loss jumped in epoch 4"),
        ([0.0] * 3, [1.0, 0.5, 1.0], None),
        ([], [], None),
    ],
)
def test_a_training_explodes_where_steps_are_clipped_too_often_or_the_loss_jumps(
    clipped: list[float], losses: list[float], expected: str | None
) -> None:
    assert explain_explosion(clipped, losses, TrainConfig(), has_improved=False) == expected


def test_clipping_that_improves_the_forecasts_is_no_explosion() -> None:
    def reason(losses: list[float]) -> str | None:
        return explain_explosion([0.9, 0.9], losses, TrainConfig(), has_improved=True)

    assert reason([1.0, 0.5]) is None
    assert reason([1.0, 2.5]) == "the loss jumped in epoch 2"


@pytest.mark.parametrize(
    ("clipped", "losses", "expected"),
    [
        ([0.4, 0.0, 0.0], [18.9, 0.8, 1.1], "the loss jumped in epoch 1"),
        ([0.2, 0.0, 0.0], [18.9, 0.8, 1.1], None),  # hardly a step was clipped
        ([0.4, 0.0, 0.0], [3.9, 0.8, 1.1], None),  # it was learnt
        ([0.4], [18.9], None),
    ],
)
def test_a_first_epoch_may_jump(
    clipped: list[float], losses: list[float], expected: str | None
) -> None:
    reason = explain_explosion(clipped, losses, TrainConfig(), has_improved=True)

    assert reason == expected


def test_a_gradient_that_grows_on_its_way_back_is_an_explosion() -> None:
    (member,) = GOOD.members

    def grown(*sizes: float) -> str:
        return verdict(members=(replace(member, state_gradient=sizes),))[0]

    assert grown(1.0, 4.0, 11.0) == "EXPLODING"
    assert grown(1.0, 11.0, 0.1) == "EXPLODING"
    assert grown(1.0, 4.0, 9.0) == "OK"
    assert grown(0.0, 0.0, 0.0) == "OK"


@pytest.mark.parametrize(
    ("effective", "peak", "expected"),
    [
        (30, Peak(50, 0.7, 0.95), "VANISHING"),  # forgets it
        (44, Peak(50, 0.7, 0.95), "VANISHING"),
        (45, Peak(50, 0.7, 0.95), "OK"),
        (30, Peak(50, 0.7, 0.5), "OK"),  # and does well without
        (60, Peak(50, 0.7, 1.26, 1.5), "VANISHING"),  # sees it, and makes little of it
        (60, Peak(50, 0.7, 1.24, 1.5), "OK"),  # makes more than half of it
        (60, Peak(50, 0.7, 1.06, 1.04), "VANISHING"),
        (60, Peak(50, 0.7, 1.04, 1.04), "OK"),  # as good, as far as can be seen
        (30, Peak(50, 0.2, 0.95), "OK"),  # too weak
        (30, Peak(150, 0.7, None), "OK"),  # no look-back holds it
    ],
)
def test_what_comes_again_and_is_not_made_use_of_has_vanished(
    effective: int, peak: Peak, expected: str
) -> None:
    assert verdict(effective=effective, peaks=(peak,))[0] == expected


@pytest.mark.parametrize(
    ("config", "segment", "advice"),
    [
        (Config(training=TrainConfig(truncate=20)), 10, "--truncate 100"),
        (CONFIG, 1, "--segment 7"),
        (Config(network=NetworkConfig(cell="rnn")), 10, "--cell gru"),
        (CONFIG, 10, "--init chrono"),
        (Config(network=NetworkConfig(init="chrono")), 10, "--epochs 24"),
    ],
)
def test_against_vanishing_the_next_thing_to_try_is_named(
    config: Config, segment: int, advice: str
) -> None:
    spec = replace(TASK, members=(replace(MEMBER, segment=segment),))
    forgetful = replace(GOOD, effective=5, peaks=(Peak(50, 0.7, 2.0, 1.4),))

    judged = diagnose(forgetful, spec, config)

    assert (judged.verdict, judged.advice) == ("VANISHING", advice)
    assert "50 steps" in judged.reason


def test_a_window_of_which_little_is_used_is_wasted() -> None:
    assert verdict(effective=24, peaks=()) == ("WASTED WINDOW", "--lookback 48")
    assert verdict(effective=25, peaks=()) == ("OK", None)
    assert verdict(effective=0, peaks=()) == ("WASTED WINDOW", "--lookback 2")


def test_a_shorter_window_holds_whole_seasons() -> None:
    spec = make_spec(100, 6, 12, members=(MEMBER,))

    assert diagnose(replace(GOOD, effective=20, peaks=()), spec, CONFIG).advice == "--lookback 48"
    assert diagnose(replace(GOOD, effective=2, peaks=()), spec, CONFIG).advice == "--lookback 24"


def test_the_gravest_failure_comes_first() -> None:
    both = {"effective": 3, "peaks": (Peak(50, 0.7, 2.0, 1.4),)}

    assert verdict(**both, explosion="it did")[0] == "EXPLODING"
    assert verdict(**both)[0] == "VANISHING"


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([1.0, 0.6, 0.4], 2),
        ([0.1, 0.1, 1.0, 0.1], 3),
        ([1.0, 0.1, 0.5, 0.1], 3),
        ([None, 1.0, None], 2),
        ([0.0, 0.0], None),
        ([None], None),
    ],
)
def test_the_half_life_is_the_furthest_lag_that_counts_half_as_much(
    curve: list[float | None], expected: int | None
) -> None:
    assert half_life(curve) == expected
