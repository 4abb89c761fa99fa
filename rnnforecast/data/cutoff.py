"""Rows as they stood at a moment: what was read or decided later is not there.

Between `rows`, which reads all of them, and `timegrid`. What is known ahead stays: it was known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import pick
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import format_stamp, parse_time_us
from rnnforecast.errors import NotEnoughDataError

Chunks = Sequence[NDArray[Any]]


def rows_until(rows: Rows, as_of: str, schema: Schema, tz: str | None) -> Rows:
    """Return the rows up to a moment, and later ones only for what they tell ahead.

    Raises `NotEnoughDataError` where there is none.
    """
    until_us = parse_time_us(as_of, tz)
    is_late = [times > until_us for times in rows.times]
    has_begun = np.zeros(rows.n_series, np.bool_)
    for codes, late in zip(rows.codes, is_late, strict=True):
        has_begun[codes[~late]] = True
    if not has_begun.any():
        first = format_stamp(min(int(times.min()) for times in rows.times), tz)
        raise NotEnoughDataError(
            f"--as-of {as_of} lies before the first reading, {first}",
            code="too-short",
            hint="pass a later time",
        )
    known = {c.name for c in schema.covariates if c.role == "known"}
    if known:
        later_known = [chunks for name, chunks in rows.covariates.items() if name not in known]
        for chunks in (*rows.values, *later_known):
            for chunk, late in zip(chunks, is_late, strict=True):
                chunk[late] = np.nan
        kept = [has_begun[codes] for codes in rows.codes]
    else:
        kept = [~late for late in is_late]
    return _chosen(rows, kept, has_begun, is_long=schema.series is not None)


def _chosen(rows: Rows, kept: Chunks, series: NDArray[np.bool_], *, is_long: bool) -> Rows:
    """Return some rows, of some series only, with these numbered anew."""
    number = np.cumsum(series) - 1

    def those(chunks: Chunks, change: Callable[[Any], Any] = lambda x: x) -> list[NDArray[Any]]:
        return [change(c[k]) for c, k in zip(chunks, kept, strict=True) if k.any()]

    return Rows(
        those(rows.times),
        those(rows.codes, lambda codes: number[codes]),
        [those(chunks) for chunks in rows.values],
        [base[series] for base in rows.base],
        list(pick(rows.names, series)) if is_long else rows.names,
        {name: those(chunks) for name, chunks in rows.covariates.items()},
        rows.texts,
    )
