"""Places at which a process can be told to die: there, then, and nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rnnforecast.storage.durable import CRASH_VARIABLE, crash_point

PASS = """
from rnnforecast.storage.durable import crash_point
for number in range(1, 5):
    for label in ("first", "second"):
        print(label, number, flush=True)
        crash_point(label)
"""
ALL = [f"{label} {number}" for number in range(1, 5) for label in ("first", "second")]


def passed(wanted: str | None) -> tuple[int, list[str]]:
    """Return how a process ended that was to die there, and what it had come to."""
    environment = {name: value for name, value in os.environ.items() if name != CRASH_VARIABLE}
    if wanted is not None:
        environment[CRASH_VARIABLE] = wanted
    done = subprocess.run(
        [sys.executable, "-c", PASS], env=environment, stdout=subprocess.PIPE, text=True
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("wanted", "last"),
    [("first", 1), ("second", 2), ("first:1", 1), ("first:3", 5), ("second:4", 8)],
)
def test_a_process_dies_without_a_word_where_it_is_told(wanted: str, last: int) -> None:
    assert passed(wanted) == (-signal.SIGKILL, ALL[:last])


@pytest.mark.parametrize("wanted", [None, "", "third", "fir", "first:5", "first:0"])
def test_nothing_happens_where_nothing_is_told(wanted: str | None) -> None:
    assert passed(wanted) == (0, ALL)


def test_without_the_variable_this_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CRASH_VARIABLE, raising=False)
    crash_point("file-synced")
