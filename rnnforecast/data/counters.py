"""Meters that count up: what they counted in each step, and what happens when they begin anew."""

from __future__ import annotations

import numpy as np

from rnnforecast.data.panel import Doubles, Floats, Integers
from rnnforecast.events import Listener, Warned

_ANEW = 0.5
"""A count that falls below this share of the one before has begun anew; others are mistakes."""


def differences(counts: Doubles, starts: Integers, name: str, listener: Listener) -> Floats:
    """Return what was counted in each step, `(row,)`, of counts on a grid.

    A meter that begins anew has counted what it shows. A step is missing where it or the one before
    is, at the start of a series, and where a count is a little smaller than the one before.
    """
    steps = np.diff(counts, prepend=np.nan)
    steps[starts[starts < len(steps)]] = np.nan
    before = np.concatenate([[np.nan], counts[:-1]])
    falls = steps < 0
    is_anew = falls & (counts >= 0) & (counts < _ANEW * before)
    steps[is_anew] = counts[is_anew]
    is_mistake = falls & ~is_anew
    steps[is_mistake] = np.nan
    for code, what, which in (
        ("counter-reset", "began anew", is_anew),
        (
            "counter-fall",
            "fell a little, so that those steps are missing,",
            is_mistake,
        ),
    ):
        count = int(np.count_nonzero(which))
        if count:
            listener(Warned(code, f"counter {name!r} {what} {count} times", count))
    found: Floats = steps.astype(np.float32)
    return found
