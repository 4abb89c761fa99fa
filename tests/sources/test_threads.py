"""Work in threads: in order, only a few things ahead, and with its errors."""

import threading
import time

import pytest

from rnnforecast.sources.files import AHEAD, n_threads, thread_map


def test_what_threads_make_comes_in_order_and_in_several_threads():
    names = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.02 if number % 2 else 0)
        return number

    assert list(thread_map(work, range(20))) == list(range(20))
    assert threading.current_thread().name not in names


def test_threads_take_only_a_few_things_ahead():
    taken = []
    made = thread_map(lambda number: number, (taken.append(i) or i for i in range(1000)))

    next(made)

    assert len(taken) <= n_threads() + AHEAD + 1
    made.close()


def test_one_thing_alone_needs_no_thread():
    (name,) = thread_map(lambda _: threading.current_thread().name, [1])

    assert name == threading.current_thread().name


def test_an_error_in_a_thread_is_raised_where_its_result_would_come():
    def work(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    made = thread_map(work, range(100))

    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(made)
