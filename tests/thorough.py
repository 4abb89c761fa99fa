"""How often slow tests try what could be tried for ever: `make thorough` tries more."""

from __future__ import annotations

import os

THOROUGHLY = int(os.environ.get("RNNFORECAST_THOROUGH", "1"))


def often(n: int) -> int:
    """Return how many cases to try, where CI tries so many."""
    return n * THOROUGHLY
