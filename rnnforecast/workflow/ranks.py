"""Ranks of a training: how they meet, and how the first one speaks for all.

A step of one story: every rank goes through `training` from top to bottom, and only the first
one's listener, lock and model directory are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.events import Event, Listener, Warned, merged_warnings
from rnnforecast.launch import Launch, launched
from rnnforecast.places.remote import place_of
from rnnforecast.ranksconfig import RanksConfig

if TYPE_CHECKING:
    from rnnforecast.data.ranks import Ranks


def launch_for(data: object) -> Launch | None:
    """Return which rank this process is in a training from these readings; None if it is alone.

    A table in memory is trained on alone, whatever a launcher was started for; so is by a single
    process what is no folder of buckets.
    """
    launch = launched()
    if launch is None or not isinstance(data, str | Path):
        return None
    from rnnforecast.sources.shards import is_sharded

    return launch if launch.n > 1 or is_sharded(place_of(data)) else None


@contextmanager
def joined(config: RanksConfig, launch: Launch | None) -> Iterator[Ranks]:
    """Meet the processes that a launcher has started beside this one; there may be none."""
    if launch is None:
        from rnnforecast.data.ranks import ALONE

        yield ALONE
        return
    from rnnforecast.model.ranks import joined_ranks

    with joined_ranks(config.timeout_s) as ranks:
        yield ranks


@contextmanager
def warning_once(listener: Listener, ranks: Ranks) -> Iterator[Listener]:
    """Give each rank a listener for what it does; all are warned, in the end, of what any was."""
    from rnnforecast.data.ranks import all_say

    if ranks.n == 1:
        yield listener
        return
    own: list[Warned] = []

    def hear(event: Event) -> None:
        if isinstance(event, Warned):
            own.append(event)
        else:
            listener(event)

    yield hear
    said = all_say(ranks, [asdict(warning) for warning in own])
    found = [Warned(**warning) for part in said for warning in part]
    for warning in merged_warnings(found, "of other ranks"):
        listener(warning)
