"""A panel that ranks share: each has read series of its own, and learns where all others stand.

After `trimming`, which leaves what is there, and before anything is decided that holds for all.
What differs between what ranks have read, but must not, is an error on all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.covariates import Covariates, Track
from rnnforecast.data.order import Steps, merged_steps
from rnnforecast.data.panel import Panel, Shared, offsets_of
from rnnforecast.data.ranks import ALONE, Ranks, all_say, joined
from rnnforecast.data.schema import Schema
from rnnforecast.errors import DataError

_Number = TypeVar("_Number", bound=np.generic)


def share(panel: Panel, ranks: Ranks) -> Panel:
    """Return the panel of all ranks: first the series of the first one, then of the others.

    Raises `DataError` where there is no series at all.
    """
    if ranks is ALONE:
        return panel
    said = all_say(ranks, {"names": panel.names, "first_us": panel.first_us})
    names = tuple(name for one in said for name in one["names"])
    first = sum(len(one["names"]) for one in said[: ranks.rank])
    here = np.zeros(len(names), np.bool_)
    own = slice(first, first + panel.n_series)
    here[own] = True
    stored = np.zeros(len(names), np.int64)
    stored[own] = panel.lengths
    return replace(
        panel,
        offsets=offsets_of(stored),
        start=joined(ranks, panel.start),
        names=names,
        base=joined(ranks, panel.base),
        first_us=min(one["first_us"] for one in said if one["names"]),
        covariates=panel.covariates and _among(panel.covariates, own, len(names)),
        shared=Shared(ranks, here, joined(ranks, panel.lengths)),
    )


def steps_of_all(steps: Steps, ranks: Ranks) -> Steps:
    """Return the steps between the rows of all ranks."""
    if ranks.n == 1:
        return steps
    parts = ranks.gather(np.stack([steps.lengths, steps.counts]).tobytes())
    return merged_steps([Steps(*np.frombuffer(part, np.int64).reshape(2, -1)) for part in parts])


def check_alike(schema: Schema, ranks: Ranks) -> None:
    """Raise `DataError` where ranks have found other columns, or another zone, than each other."""
    said = all_say(ranks, repr(schema))
    if any(one != said[0] for one in said):
        raise DataError(
            f"the buckets differ in their columns or zones: rank {ranks.rank} found {schema}",
            code="buckets-differ",
            hint="make the folder again from one table, with  rnnforecast shard",
        )


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


def _among(own: Covariates, place: slice, n_series: int) -> Covariates:
    """Return covariates of these series among all; of the others nothing is known here."""

    def wide(values: NDArray[_Number], empty: Any = 0) -> NDArray[_Number]:
        found = np.full((n_series, *values.shape[1:]), empty, values.dtype)
        found[place] = values
        return found

    def track(one: Track) -> Track:
        return replace(one, begin=wide(one.begin), low=wide(one.low), high=wide(one.high))

    return replace(
        own,
        known=tuple(track(one) for one in own.known),
        past=track(own.past),
        static=wide(own.static, np.nan),
    )
