"""Readings whose time has not come yet: sensors whose clock runs ahead, or is wrong.

Between `rows`, which reads them, and `timegrid`, which knows the step.
"""

from __future__ import annotations

import time

import numpy as np

from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.durations import format_duration
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.reading import Source

_EASTERNMOST_US = 14 * 3_600_000_000
"""Clocks on the wall are ahead of UTC by this at most."""


def judge_future(
    rows: Rows, step_us: int, source: Source, schema: Schema, listener: Listener, *, is_aware: bool
) -> None:
    """Warn of readings up to a step ahead; raise `DataError` for one further ahead.

    Without a zone a time has come if it has in any. Rows without a reading may lie ahead: they hold
    what is known of the future.
    """
    now_us = time.time_ns() // 1000 + (0 if is_aware else _EASTERNMOST_US)
    n_before = n_early = 0
    for i, times in enumerate(rows.times):
        late = np.flatnonzero(times > now_us)
        if len(late):
            there = np.any([np.isfinite(chunks[i][late]) for chunks in rows.values], axis=0)
            late = late[there]
            far = late[times[late] > now_us + step_us]
            if len(far):
                raise DataError(
                    "a reading has a time that has not come yet",
                    code="future",
                    location=source.location(n_before + int(far[0]), schema.time),
                    hint="correct the clock of the sensor; if it is meant, add  --allow-future",
                )
            n_early += len(late)
        n_before += len(times)
    if n_early:
        what = f"{n_early} readings are ahead of the clock, by {format_duration(step_us)} at most"
        listener(Warned("future", what, n_early))
