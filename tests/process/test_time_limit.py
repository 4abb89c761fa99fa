"""A limit to how long a block may take: it ends the block, whatever that does, and is gone then."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from rnnforecast.errors import TimeLimitError
from rnnforecast.process import time_limit


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.fixture(autouse=True)
def own_answer() -> object:
    """Answer the alarm in a way of our own, and see that this is so again after each test."""

    def answer(*_: object) -> None:
        pytest.fail("an alarm came although nothing is limited any more")

    before = signal.signal(signal.SIGALRM, answer)
    yield answer
    assert signal.getsignal(signal.SIGALRM) is answer
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("wait", [busy, time.sleep], ids=["busy", "asleep"])
def test_a_block_that_takes_longer_is_ended_in_time(wait: object) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeLimitError) as caught, time_limit(0.05):
        wait(10)
    assert time.monotonic() - begun < 2
    assert (caught.value.exit_code, caught.value.code) == (124, "time-limit")
    assert "--max-time" in caught.value.message


def test_a_block_that_is_done_in_time_is_left_alone() -> None:
    with time_limit(0.05):
        result = 1
    time.sleep(0.1)  # the limit is gone with the block
    assert result == 1


def test_no_library_that_catches_every_exception_swallows_it() -> None:
    def library() -> None:
        with suppress(Exception):
            busy(10)

    with pytest.raises(TimeLimitError), time_limit(0.05):
        library()


@pytest.mark.parametrize("seconds", [0.0, -1.0, -math.inf])
def test_a_time_that_is_over_already_ends_the_block_at_once(seconds: float) -> None:
    with pytest.raises(TimeLimitError), time_limit(seconds):
        busy(10)


def test_an_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), time_limit(10):
        _ = 1 / 0


def test_a_limit_works_in_any_thread() -> None:
    """A thread of a server cannot be reached by an alarm."""
    found: list[object] = []

    def work() -> None:
        with time_limit(math.inf):
            found.append("done")
        with time_limit(10):
            found.append("in time")
        try:
            with time_limit(0.05), suppress(Exception):
                busy(10)
        except TimeLimitError as error:
            found.append(error.exit_code)
        busy(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["done", "in time", 124]


def test_a_limit_of_a_thread_leaves_nothing_behind_that_slows_the_interpreter() -> None:
    """CPython 3.11 stands still under a profiler where an exception of a thread was taken back."""
    program = (
        "import sys, threading\n"
        "from rnnforecast.process import time_limit\n"
        "def work():\n"
        "    with time_limit(10):\n"
        "        pass\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
        "sys.setprofile(lambda *_: None)\n"
        "work()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 1e-3])
def test_a_limit_of_a_thread_that_runs_out_as_its_block_ends_is_raised_there(seconds) -> None:
    outcomes: list[str] = []

    def work() -> None:
        for _ in range(200):
            try:
                with time_limit(seconds):
                    busy(seconds)
                outcomes.append("in time")
            except TimeLimitError:
                outcomes.append("late")
        busy(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(outcomes) == 200


def test_a_limit_that_runs_out_while_the_block_ends_is_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The alarm may come between the last line of the block and the call that takes it back."""
    real = signal.setitimer

    def late(which: int, seconds: float) -> object:
        before = real(which, seconds)
        if not seconds:
            os.kill(os.getpid(), signal.SIGALRM)
        return before

    monkeypatch.setattr(signal, "setitimer", late)
    with pytest.raises(TimeLimitError), time_limit(10):
        pass


def test_a_system_without_a_timer_limits_the_main_thread_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as without:
        without.delattr(signal, "setitimer")
        with pytest.raises(TimeLimitError), time_limit(0.05):
            busy(10)
        with time_limit(10):
            pass
