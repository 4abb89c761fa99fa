"""Ranks that are threads of one process: laws of what several hold together, without a launcher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from rnnforecast.data.panel import Panel
from rnnforecast.tables.grid import merge_ranks

_T = TypeVar("_T")
_PATIENCE_S = 20


@dataclass
class _Table:
    """Where the threads lay down what they have."""

    n: int
    barrier: threading.Barrier = field(init=False)
    said: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier, self.said = threading.Barrier(self.n), [None] * self.n


@dataclass(frozen=True)
class ThreadRanks:
    """One thread among several; a thread that fails lets all others fail."""

    rank: int
    table: _Table

    @property
    def n(self) -> int:
        return self.table.n

    def _all(self, own: Any) -> list[Any]:
        self.table.said[self.rank] = own
        self.table.barrier.wait(_PATIENCE_S)
        said = list(self.table.said)
        self.table.barrier.wait(_PATIENCE_S)
        return said

    def all_reduce(self, values: Any) -> Any:
        said = self._all(values.copy())
        assert len({(part.shape, part.dtype) for part in said}) == 1, "ranks ask different things"
        return np.add.reduce(said, dtype=values.dtype)

    def all_gather(self, own: bytes) -> list[bytes]:
        return self._all(own)


def together(n: int, work: Callable[[ThreadRanks], _T]) -> list[_T]:
    """Let n ranks do the same, and return what each has come to; raise what the first raised."""
    table = _Table(n)

    def one(rank: int) -> _T:
        try:
            return work(ThreadRanks(rank, table))
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(one, rank) for rank in range(n)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


def held_by(panel: Panel, sizes: Sequence[int], ranks: ThreadRanks) -> Panel:
    """Return the panel shared by ranks that have read this many series each."""
    assert sum(sizes) == panel.n_series, "every series is somewhere"
    first = sum(sizes[: ranks.rank])
    own = panel.select(np.arange(first, first + sizes[ranks.rank]))
    if own.covariates is not None:  # as a rank that reads its own rows has them
        own = own.before(own.lengths)
    return merge_ranks(own, ranks)
