"""Ranks, processes that train one network together, and the collectives between them.

Every rank runs the same code and calls the same collectives in the same order. In a single process
collectives exchange nothing. `model.distributed` connects ranks by torch.
"""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)
_Array = TypeVar("_Array", bound=NDArray[Any])


class Ranks(Protocol):
    """The group of ranks, seen from one of them.

    Methods block until all ranks have called them, and raise `WorkerError` where a rank fails.
    Arrays must have the same shape and type on all ranks; bytes may differ in length.
    """

    @property
    def rank(self) -> int:
        """The number of this rank, from 0. Rank 0 prints and writes."""

    @property
    def n(self) -> int:
        """The number of ranks."""

    def all_reduce(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return the sums over all ranks, the same bits on each."""

    def all_gather(self, content: bytes) -> list[bytes]:
        """Return the bytes of all ranks, ordered by rank."""


class SingleProcess:
    """A single process, a group of one rank."""

    rank, n = 0, 1

    def all_reduce(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return the values."""
        return values

    def all_gather(self, content: bytes) -> list[bytes]:
        """Return a list of these bytes."""
        return [content]


SINGLE_PROCESS: Ranks = SingleProcess()


def rank_share(ranks: Ranks, n: int) -> slice:
    """Return this rank's slice of n items; the slices of all ranks partition them."""
    return slice(n * ranks.rank // ranks.n, n * (ranks.rank + 1) // ranks.n)


def all_reduce_masked(
    ranks: Ranks, values: NDArray[_Number], is_local: NDArray[np.bool_]
) -> NDArray[_Number]:
    """Return rows, `(row, ...)`, each from the only rank on which `is_local`, `(row,)`, is true.

    The bits are added as integers, so that each value and each kind of NaN is kept exactly.
    """
    if ranks.n == 1:
        return values
    local = np.zeros_like(values)
    local[is_local] = values[is_local]
    bits = local.view(f"i{values.dtype.itemsize}")
    return ranks.all_reduce(bits).view(values.dtype)


def all_reduce_scattered(
    ranks: Ranks, local: NDArray[_Number], is_local: NDArray[np.bool_]
) -> NDArray[_Number]:
    """Return all rows, `(row, ...)`, where each rank has only the rows where `is_local` is true."""
    values = np.zeros((len(is_local), *local.shape[1:]), local.dtype)
    values[is_local] = local
    return all_reduce_masked(ranks, values, is_local)


def all_gather(ranks: Ranks, values: _Array) -> _Array:
    """Return the rows of all ranks, `(row, ...)`, concatenated in the order of ranks."""
    if ranks.n == 1:
        return values
    parts = ranks.all_gather(np.ascontiguousarray(values).tobytes())
    rows: Any = np.frombuffer(b"".join(parts), values.dtype)
    return cast(_Array, rows.reshape(-1, *values.shape[1:]))


def broadcast_int(ranks: Ranks, value: int) -> int:
    """Return the first rank's number on all ranks, such as one that depends on its clock."""
    message = np.array([value if ranks.rank == 0 else 0], np.int64)
    return int(ranks.all_reduce(message)[0])


def broadcast(ranks: Ranks, content: bytes | None) -> bytes | None:
    """Return the first rank's bytes on all ranks; None where it has none, or empty ones."""
    return ranks.all_gather(b"" if ranks.rank or content is None else content)[0] or None


def all_gather_object(ranks: Ranks, value: Any) -> list[Any]:
    """Return the values of all ranks, ordered by rank: anything that JSON can hold."""
    if ranks.n == 1:
        return [value]
    return [json.loads(part) for part in ranks.all_gather(json.dumps(value).encode())]


def all_reduce_any(ranks: Ranks, has: dict[str, bool]) -> dict[str, bool]:
    """Return for each name whether it is true on any rank."""
    counts = ranks.all_reduce(np.array([*has.values(), False], np.int64))
    return dict(zip(has, (counts > 0).tolist(), strict=False))


def all_reduce_counts(ranks: Ranks, counts: dict[str, int]) -> dict[str, int]:
    """Return the sum of the counts of all ranks for each text, in order of first appearance."""
    totals: dict[str, int] = {}
    for local in all_gather_object(ranks, counts):
        for text, n in local.items():
            totals[text] = totals.get(text, 0) + n
    return totals
