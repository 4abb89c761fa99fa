"""Series whose level jumps and stays: a unit that was changed, a sensor that was replaced.

Beside `quality`, which finds single strange readings and stretches. A drift and a season are no
jumps: before and after, all readings lie apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnforecast.data.panel import Doubles, Floats

_STRETCHES = 20
_FEWEST_ROWS = 12
"""A stretch has at least so many rows."""
_LOW, _HIGH = 0.1, 0.9
_APART = 3.0
"""What lies between the levels, in spreads of the quieter side."""


@dataclass(frozen=True)
class Jump:
    """Where a series' level jumps, and between which levels."""

    row: int
    """The first one on the new level."""
    before: float
    after: float


def find_jump(readings: Floats) -> Jump | None:
    """Return the jump of one series, `(row,)`, NaN where one is missing; None where there is none.

    The series is cut into twenty stretches. Without the one in which it jumps, the middle readings
    of those before and of those after share no value, and far more lies between them than either
    side's stretches span. A side that never changes says nothing.
    """
    n = len(readings) // _STRETCHES
    if n < _FEWEST_ROWS:
        return None
    low, high = _middle(readings[len(readings) - n * _STRETCHES :].reshape(_STRETCHES, n))
    spans = high - low
    best: tuple[float, int] | None = None
    for at in range(2, _STRETCHES - 2):
        sides = slice(None, at), slice(at + 1, None)
        if not all(np.isfinite(spans[side]).sum() >= 2 for side in sides):
            continue
        (low_before, low_after), (high_before, high_after) = (
            [pick(of[side]) for side in sides] for pick, of in ((np.nanmin, low), (np.nanmax, high))
        )
        span = min(np.nanmax(spans[side]) for side in sides)
        apart = max(low_after - high_before, low_before - high_after)
        if span > 0 and apart > _APART * span and (best is None or apart > best[0]):
            best = float(apart), at
    return None if best is None else _locate(readings, len(readings) - n * _STRETCHES, n, best[1])


def _middle(stretches: Floats) -> tuple[Doubles, Doubles]:
    """`(stretch,)` each: what a tenth of the readings lie below, and above; NaN where few are."""
    ordered = np.sort(stretches.astype(np.float64), axis=1)
    n_seen = np.isfinite(ordered).sum(1)
    rows = np.arange(len(ordered))
    low, high = (ordered[rows, ((n_seen - 1).clip(0) * q).astype(int)] for q in (_LOW, _HIGH))
    few = 2 * n_seen < stretches.shape[1]
    return np.where(few, np.nan, low), np.where(few, np.nan, high)


def _locate(readings: Floats, first: int, n: int, at: int) -> Jump:
    """Find the row within the stretch in which the series jumps, halfway between both levels."""
    begin, end = first + at * n, first + (at + 1) * n
    before, after = float(np.nanmedian(readings[:begin])), float(np.nanmedian(readings[end:]))
    is_over = (readings[begin:end] > (before + after) / 2) == (after > before)
    is_over |= np.isnan(readings[begin:end])
    under = np.flatnonzero(~is_over)
    return Jump(begin + (int(under[-1]) + 1 if len(under) else 0), before, after)
