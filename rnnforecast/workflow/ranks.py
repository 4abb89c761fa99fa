"""Ranks of a training: how they meet, and how the first one speaks for all.

A step of one story: every rank goes through `training` from top to bottom, and only the first
one's listener, lock and model directory are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rnnforecast.events import Recorder, Warned, merged_warnings
from rnnforecast.launch import launched
from rnnforecast.ranksconfig import RanksConfig

if TYPE_CHECKING:
    from rnnforecast.data.ranks import Ranks


@contextmanager
def joined(config: RanksConfig) -> Iterator[Ranks]:
    """Meet the processes that a launcher has started beside this one; there may be none."""
    if launched() is None:
        from rnnforecast.data.ranks import ALONE

        yield ALONE
        return
    from rnnforecast.model.ranks import joined_ranks

    with joined_ranks(config.timeout_s) as ranks:
        yield ranks


def tell_of_others(events: Recorder, ranks: Ranks) -> None:
    """Let the first rank tell, once, what all ranks were warned of while they read."""
    from rnnforecast.data.ranks import all_say

    said = all_say(ranks, [asdict(warning) for warning in events.warnings])
    if ranks.n == 1:
        return
    found = [Warned(**warning) for own in said for warning in own]
    events.warnings.clear()
    for warning in merged_warnings(found, "of other ranks"):
        events(warning)
