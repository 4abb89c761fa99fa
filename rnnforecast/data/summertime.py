"""The hour that clocks on the wall skip when summer time begins: no reading is missing there.

Only naive stamps have such hours; where a zone is known the times are in UTC, and have none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Integers, Panel
from rnnforecast.data.quality import BLOCK_ROWS, Runs, find_gaps

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_THURSDAY, _SUNDAY = 3, 6
_LAST_HOUR = 3
_MONTHS = (3, 4, 9, 10)
"""When clocks are set forward, on one half of the Earth or the other."""


def missing_of(panel: Panel, tz: str | None) -> tuple[Integers, Integers]:
    """`(series,)` each: how many readings are missing, and the rows of the longest gap.

    An hour that clocks skip is no gap.
    """
    missing, longest = np.zeros((2, panel.n_series), np.int64)
    for first, part in panel.blocks(BLOCK_ROWS):
        gaps = find_gaps(part)
        if tz is None:
            gaps = gaps.chosen(~_is_skipped_hour(gaps, part))
        np.add.at(missing, first + gaps.series, gaps.length)
        np.maximum.at(longest, first + gaps.series, gaps.length)
    return missing, longest


def _is_skipped_hour(runs: Runs, panel: Panel) -> NDArray[np.bool_]:
    """`(run,)`: whether a gap is one hour, in the first ones of a Sunday in spring."""
    start = panel.start[runs.series] + (runs.begin - panel.offsets[runs.series]) * panel.step_us
    weekday = (start // _DAY_US + _THURSDAY) % 7
    month = start.view("datetime64[us]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    found: NDArray[np.bool_] = (
        (runs.length * panel.step_us == _HOUR_US)
        & (start % _HOUR_US == 0)
        & (start % _DAY_US <= _LAST_HOUR * _HOUR_US)
        & (weekday == _SUNDAY)
        & np.isin(month, _MONTHS)
    )
    return found
