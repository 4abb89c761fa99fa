"""Catch-ups: what they say when they end early is true, and what is published is not done again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rnnforecast.jobs.run as run_module
from rnnforecast.config.commands import RunConfig
from rnnforecast.errors import CatchUpError, WriteError
from tests.builders import wave
from tests.cli.test_run import JOB, change, gauges, log, stamps_of
from tests.conftest import SMALL, Command, Outcome
from tests.faults.warm import Warm

N = 5
"""As-of times of each catch-up here."""


@pytest.fixture
def place(workplace: Path) -> Path:
    (workplace / "job.toml").write_text(JOB)
    change(workplace, "out/forecast.csv", "out/{as_of}.csv")
    return workplace


def span_of(place: Path) -> list[str]:
    """Return the options of a catch-up over N days."""
    stamps = [stamp.replace(" ", "T") for stamp in stamps_of(place)]
    return ["--from", stamps[290], "--to", stamps[290 + 24 * (N - 1)]]


def catch_up(command: Command, place: Path, *more: object) -> Outcome:
    return command("run", place / "job.toml", "--json", *span_of(place), *more)


def n_published(place: Path) -> int:
    return len(list((place / "out").glob("*.run.json")))


def failing_at(n: int, error: BaseException) -> Callable[..., Any]:
    """Return a forecast that fails the n-th time."""
    real, calls = run_module.forecast, []

    def forecast(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == n:
            raise error
        return real(*arguments, **more)

    return forecast


@pytest.mark.parametrize(
    "name",
    ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGHUP"))],
)
def test_a_signal_leaves_a_true_count_and_the_rest_can_be_done(
    warm: Warm, command: Command, place: Path, name: str
) -> None:
    """The signal comes right after the second manifest is there."""
    words = ["run", place / "job.toml", "--json", *span_of(place)]
    env = {"RNNFORECAST_CRASH_AT": f"run-published:2:{name.removeprefix('SIG')}"}
    done = warm.start(*words, cwd=place, env=env).wait()

    error = json.loads(done.err.strip().splitlines()[-1])["error"]
    assert (done.code, error["exit"], error["code"]) == (3, 3, "interrupted")
    assert f"2 of {N} as-of times are published" in error["message"]
    assert n_published(place) == 2
    assert log(place)[-1]["exit"] == gauges(place)["last_exit_code"] == 3
    rest = catch_up(command, place)
    assert (rest.code, rest.document["published"]) == (0, N)
    assert [run["status"] for run in rest.document["runs"]] == ["already published"] * 2 + [
        "published"
    ] * (N - 2)


@pytest.mark.parametrize("n", [1, 3])
def test_a_signal_while_it_computes(
    n: int, command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "forecast", failing_at(n, KeyboardInterrupt()))
    outcome = catch_up(command, place)
    code = {1: 128 + signal.SIGINT, 3: 3}[n]
    assert (outcome.code, n_published(place)) == (code, n - 1)
    assert log(place)[-1]["exit"] == code
    assert ("nothing was published" in outcome.error["message"]) == (n == 1)


def test_a_signal_after_the_last_one_says_that_all_is_done(warm: Warm, place: Path) -> None:
    env = {"RNNFORECAST_CRASH_AT": f"run-published:{N}:TERM"}
    done = warm.start("run", place / "job.toml", *span_of(place), cwd=place, env=env).wait()
    assert (done.code, n_published(place)) == (9, N)
    assert "the result is complete and published" in done.err


def test_a_time_limit_tells_how_many_are_published(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock runs out at the third as-of time."""
    limits: list[float] = []
    real = run_module.time_limit

    def limit(seconds: float) -> Any:
        limits.append(seconds)
        return real(1e-6 if len(limits) == 3 else seconds)

    monkeypatch.setattr(run_module, "time_limit", limit)
    outcome = catch_up(command, place, "--max-time", "10m")

    assert (outcome.code, outcome.error["code"]) == (3, "time-limit")
    assert f"2 of {N} as-of times are published" in outcome.error["message"]
    assert "unchanged" not in json.dumps(outcome.error)
    assert n_published(place) == 2
    assert command("status", place / "job.toml", "--json").document["last_exit"] == 3


def test_a_write_error_half_way_tells_how_many_are_published(command: Command, place: Path) -> None:
    stamps = [stamp.replace(" ", "T").replace(":", "") for stamp in stamps_of(place)]
    (place / "out").mkdir()
    (place / f"out/{stamps[290 + 48]}.csv").mkdir()
    outcome = catch_up(command, place)

    assert (outcome.code, outcome.error["code"]) == (3, "cannot-write")
    message = outcome.error["message"]
    assert f"2 of {N} as-of times are published" in message and stamps[290 + 48] in message
    assert n_published(place) == 2
    assert log(place)[-1]["message"] == message


def test_a_write_error_at_the_first_one_is_exit_7(command: Command, place: Path) -> None:
    stamps = [stamp.replace(" ", "T").replace(":", "") for stamp in stamps_of(place)]
    (place / "out").mkdir()
    (place / f"out/{stamps[290]}.csv").mkdir()
    outcome = catch_up(command, place)
    assert (outcome.code, n_published(place)) == (7, 0)


def test_the_last_line_of_a_catch_up_says_how_many(command: Command, place: Path) -> None:
    outcome = command("run", place / "job.toml", "--from", "2023-12-31", "--to", "2024-01-02")
    assert outcome.code == 3
    assert outcome.out.splitlines()[-1] == "1 of 3 as-of times are published"


def test_from_python_an_early_end_is_one_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, _, last = span_of(place)
    config = RunConfig(from_=first, to=last)
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "forecast", failing_at(2, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt) as interrupted:
            run_module.run(place / "job.toml", config=config)
    assert interrupted.value.__notes__ == [f"1 of {N} as-of times are published"]
    stamps = [stamp.replace(" ", "T").replace(":", "") for stamp in stamps_of(place)]
    (place / f"out/{stamps[290 + 24]}.csv").mkdir()
    with pytest.raises(CatchUpError, match=f"1 of {N} as-of times are published") as early:
        run_module.run(place / "job.toml", config=config)
    assert isinstance(early.value.__cause__, WriteError)


@pytest.mark.slow  # tests/data/test_axis.py has the times alone
def test_an_hour_that_comes_twice_or_not_at_all_does_not_stop_it(
    command: Command, tmp_path: Path
) -> None:
    """Vienna sets its clocks on 31 March and on 27 October 2024, between 2 and 3."""
    frames = []
    for start in ("2024-03-10", "2024-10-06"):
        times = pd.date_range(start, periods=24 * 24, freq="1h", tz="UTC")
        frames.append(pd.DataFrame({"time": times, "flow": wave(len(times))}))
    spring, autumn = frames
    spring.to_csv(tmp_path / "spring.csv", index=False)
    autumn.to_csv(tmp_path / "autumn.csv", index=False)
    options = ["--tz", "Europe/Vienna", *SMALL]
    assert command("train", "spring.csv", "-q", *options).code == 0
    for season, first, last in (
        ("spring", "2024-03-29T02:30", "2024-04-02T02:30"),
        ("autumn", "2024-10-25T02:30", "2024-10-29T02:30"),
    ):
        text = JOB.replace("data.csv", f"{season}.csv").replace("out/forecast", season + "/{as_of}")
        (tmp_path / "job.toml").write_text(text)
        outcome = command("run", "job.toml", "--from", first, "--to", last, "--json")
        assert (outcome.code, outcome.document["published"]) == (0, 5), outcome.err
        times = [run["as_of"] for run in outcome.document["runs"]]
        assert len(set(times)) == 5
        assert command("run", "job.toml", "--as-of", times[2], "--json").document["status"] == (
            "already published"
        )
