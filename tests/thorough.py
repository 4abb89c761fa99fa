"""How often slow tests try what could be tried for ever: `make thorough` tries more."""

from __future__ import annotations

import os

import pytest

THOROUGHLY = int(os.environ.get("RNNFORECAST_THOROUGH", "1"))

only_thoroughly = pytest.mark.skipif(THOROUGHLY == 1, reason="make thorough tries it, too")
"""For further cases of a law that CI shows on others."""


def often(n: int) -> int:
    """Return the number of cases to try, given that of CI."""
    return n * THOROUGHLY
