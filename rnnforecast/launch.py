"""Whether this process is one of several that a launcher has started together. Standard library.

torchrun, and Ray's trainer, say so in the environment: which process it is, how many there are, and
how many of them are on this machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """One process among those that were started together."""

    rank: int
    n: int
    rank_here: int
    """Which one of this machine."""
    n_here: int
    """How many of them share this machine."""
    restarts: int
    """How often the launcher has started all of them again, because one had died."""


def launched() -> Launch | None:
    """Return which process this is; None where no launcher has started it."""
    said = os.environ
    if any(name not in said for name in _NEEDED):
        return None
    try:
        return Launch(
            rank=int(said["RANK"]),
            n=int(said["WORLD_SIZE"]),
            rank_here=int(said.get("LOCAL_RANK", "0")),
            n_here=max(1, int(said.get("LOCAL_WORLD_SIZE", "1"))),
            restarts=int(said.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
    except ValueError:
        return None  # somebody else's variables


def speaks_for_all() -> bool:
    """Tell whether this process is the one that prints what all have come to."""
    launch = launched()
    return launch is None or launch.rank == 0
