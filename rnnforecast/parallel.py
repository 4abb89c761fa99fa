"""Ranks: processes that train one network together, and the collectives between them.

Every rank runs the same code in the same order; arrays are exchanged by `all_reduce`,
`all_gather` and `broadcast`. A process that is alone does nothing for that. `model.distributed`
connects ranks by torch.
"""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)
_Array = TypeVar("_Array", bound=NDArray[Any])


class Ranks(Protocol):
    """All ranks, seen from one of them. Each method waits for all; `WorkerError` where one fails.

    Arrays must have the same shape and type on all ranks, but for what `gather` takes.
    """

    @property
    def rank(self) -> int:
        """Which one this is, from 0; the first is the one that speaks and writes."""

    @property
    def n(self) -> int:
        """How many there are."""

    def total(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return the sums over all ranks, the same bits on each."""

    def gather(self, own: bytes) -> list[bytes]:
        """Return what each rank has given, in their order."""


class Alone:
    """A process that trains by itself."""

    rank, n = 0, 1

    def total(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return the values."""
        return values

    def gather(self, own: bytes) -> list[bytes]:
        """Return what is given, alone."""
        return [own]


ALONE: Ranks = Alone()


def share_of(ranks: Ranks, n: int) -> slice:
    """Return which of n items are this rank's work; those of all ranks make up the whole."""
    return slice(n * ranks.rank // ranks.n, n * (ranks.rank + 1) // ranks.n)


def filled(ranks: Ranks, values: NDArray[_Number], here: NDArray[np.bool_]) -> NDArray[_Number]:
    """Return rows, `(row, ...)`, each from the rank that has it: exactly one says so in `here`.

    Sums of whole numbers keep every bit: of a reading, and of one that is missing.
    """
    if ranks.n == 1:
        return values
    own = np.zeros_like(values)
    own[here] = values[here]
    bits = own.view(f"i{values.dtype.itemsize}")
    return ranks.total(bits).view(values.dtype)


def scattered(ranks: Ranks, own: NDArray[_Number], here: NDArray[np.bool_]) -> NDArray[_Number]:
    """Return rows, `(row, ...)`, of which each rank gives only its own, those that are `here`."""
    values = np.zeros((len(here), *own.shape[1:]), own.dtype)
    values[here] = own
    return filled(ranks, values, here)


def joined(ranks: Ranks, values: _Array) -> _Array:
    """Return the rows of all ranks, `(row, ...)`, those of the first one before the others."""
    if ranks.n == 1:
        return values
    parts = ranks.gather(np.ascontiguousarray(values).tobytes())
    whole: Any = np.frombuffer(b"".join(parts), values.dtype)
    return cast(_Array, whole.reshape(-1, *values.shape[1:]))


def said_by_first(ranks: Ranks, value: int) -> int:
    """Return what the first rank says: others may see another clock."""
    word = np.array([value if ranks.rank == 0 else 0], np.int64)
    return int(ranks.total(word)[0])


def sent_by_first(ranks: Ranks, own: bytes | None) -> bytes | None:
    """Return what the first rank has, on all; None where it has nothing."""
    said = ranks.gather(b"" if ranks.rank or own is None else b"1" + own)[0]
    return said[1:] or None


def all_say(ranks: Ranks, said: Any) -> list[Any]:
    """Return what each rank says, in their order: anything that JSON can write."""
    if ranks.n == 1:
        return [said]
    return [json.loads(part) for part in ranks.gather(json.dumps(said).encode())]


def any_has(ranks: Ranks, has: dict[str, bool]) -> dict[str, bool]:
    """Return for each name whether it is so on any rank."""
    counts = ranks.total(np.array([*has.values(), False], np.int64))
    return dict(zip(has, (counts > 0).tolist(), strict=False))


def counts_of_all(ranks: Ranks, counts: dict[str, int]) -> dict[str, int]:
    """Return how often each text occurs on all ranks, in the order in which they came up."""
    found: dict[str, int] = {}
    for said in all_say(ranks, counts):
        for text, n in said.items():
            found[text] = found.get(text, 0) + n
    return found
