"""Signals: held back while work must not be torn, never lost, and never those that are ignored."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from rnnforecast.process import defer_signals, on_signals

NUMBERS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Asked(BaseException):
    """What a handler raises here."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[int]]:
    """Let every signal to end raise; return those that came."""
    came: list[int] = []

    def answer(number: int, _frame: object) -> None:
        came.append(number)
        raise Asked(number)

    before = {number: signal.signal(number, answer) for number in NUMBERS}
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def ignore() -> None:
    """Tell nobody."""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_raised_when_the_block_ends(number: int) -> None:
    done, told = [], []
    with pytest.raises(Asked) as caught, defer_signals(lambda: told.append("at once")) as came:
        assert not came
        send(number)
        done.append("all of it")
        assert told == ["at once"]
        assert [error.args for error in came] == [(number,)]
    assert done == ["all of it"]
    assert caught.value.args == (number,)


def test_without_a_signal_nothing_happens(handlers: list[int]) -> None:
    with defer_signals(ignore) as came:
        pass
    assert not came and not handlers


def test_after_the_block_a_signal_is_raised_where_it_comes() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with defer_signals(ignore):
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before
    with pytest.raises(Asked):
        send(signal.SIGTERM)


def test_the_second_signal_is_not_held_back(handlers: list[int]) -> None:
    reached = []
    with pytest.raises(Asked), defer_signals(ignore):
        send(signal.SIGINT)
        reached.append(1)
        send(signal.SIGTERM)
        reached.append(2)
    assert (reached, handlers) == ([1], [signal.SIGINT, signal.SIGTERM])


def test_an_error_of_the_block_does_not_hide_a_signal() -> None:
    with pytest.raises(Asked) as caught, defer_signals(ignore):
        send(signal.SIGTERM)
        raise ValueError("something else")
    assert isinstance(caught.value.__context__, ValueError)


def test_whoever_cannot_be_told_does_not_lose_a_signal() -> None:
    def tell() -> None:
        raise BrokenPipeError

    done = []
    with pytest.raises(Asked), defer_signals(tell):
        send(signal.SIGTERM)
        done.append(1)
    assert done == [1]


def test_an_interrupt_from_the_keyboard_is_held_back_in_python() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []
    with pytest.raises(KeyboardInterrupt), defer_signals(ignore):
        send(signal.SIGINT)
        done.append(1)
    assert done == [1]


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_signals(lambda number, _frame: pytest.fail(str(number)))
    with defer_signals(ignore) as came:
        send(signal.SIGHUP)
    send(signal.SIGHUP)
    assert not came
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_handler_that_raises_nothing_ends_nothing() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with defer_signals(ignore) as came:
        send(signal.SIGTERM)
    assert heard == [signal.SIGTERM] and not came


def test_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with defer_signals(ignore):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
