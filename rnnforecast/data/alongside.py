"""What stands beside the readings, onto the grid: which of several values of one step counts.

Beside `placing`, which does it with the readings themselves. The rows of a plan are placed apart
from those of the readings' own file: each must agree with itself, and the plan has the last word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.covariates import Covariates, covariates_of
from rnnforecast.data.features import numbers_of, once_a_series, renumber, warn_of_unknown
from rnnforecast.data.panel import Floats
from rnnforecast.data.repeats import ONCE, Part, reject_conflicts
from rnnforecast.data.rows import Rows
from rnnforecast.data.scattering import Grid, write
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.reading import Source

Flags = NDArray[np.bool_]


def place_covariates(
    rows: Rows,
    parts: tuple[Part, ...],
    grid: Grid,
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
) -> Covariates | None:
    """Scatter what stands beside the readings onto the grid; None if nothing does.

    Each column is one feature; of texts it holds the numbers, until `features` tells them apart.
    Raises `DataError` where a file gives two values of one time, and no rule says which counts.
    """
    if not schema.covariates:
        return None
    columns: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    is_ahead = _is_ahead(rows, parts[0], grid) if len(parts) > 1 else None
    contradicted: list[str] = []
    for covariate in schema.covariates:
        chunks = _numbers(rows, parts, covariate, schema, listener)
        placed = _placed(parts[0], chunks, covariate, grid, source, schema)
        if is_ahead is not None:
            plan = _placed(parts[1], chunks, covariate, grid, source, schema)
            if config.agg is not None and not covariate.is_text:
                whole = _aggregated(parts, chunks, grid, _rule_beside(config.agg, covariate))
                placed = np.where(is_ahead, _planned(plan, placed), whole)
            else:
                contradicted += [covariate.name] * _is_contradicted(plan, placed, is_ahead)
                placed = _planned(plan, placed)
        if covariate.role == "static":
            placed = once_a_series(covariate, placed, grid.offsets, rows.names)
        columns[covariate.role].append(placed)
    if contradicted:
        what = f"{parts[1].name} differs from the values beside the readings, and counts there"
        listener(Warned.naming("plan-differs", what, contradicted))
    names = {role: tuple(c.name for c in schema.covariates if c.role == role) for role in columns}
    return covariates_of(columns, names, grid.offsets, len(rows.values))


def _numbers(
    rows: Rows, parts: tuple[Part, ...], covariate: Covariate, schema: Schema, listener: Listener
) -> list[Floats]:
    """Take a column's chunks from the rows; texts become the numbers of what they say."""
    chunks = rows.covariates.pop(covariate.name)
    if not covariate.is_text:
        return chunks
    texts = rows.texts[covariate.name]
    for part in parts if schema.step_us is not None else ():
        warn_of_unknown(covariate, texts, part.of(chunks), part.name, listener)
    numbers = numbers_of(covariate, texts)
    return [renumber(chunk, numbers) for chunk in chunks]


def _placed(
    part: Part,
    chunks: list[Floats],
    covariate: Covariate,
    grid: Grid,
    source: Source,
    schema: Schema,
) -> Floats:
    """Put the values of one file onto the grid, `(place,)`; NaN where it has none."""
    placed = np.full(int(grid.lengths.sum()), np.nan, np.float32)
    own = part.of(chunks)
    how = _rule_beside(part.how, covariate)
    write(placed, part.places, own, how)
    if how == "error":
        reject_conflicts(placed, part, own, grid, source, schema, covariate.name)
    return placed


def _rule_beside(how: str, covariate: Covariate) -> str:
    """Return the rule for what stands beside: a text has no mean, and a sum would mean nothing."""
    if how == ONCE or (covariate.is_text and how != "error"):
        return "last"
    return "mean" if how == "sum" else how


def _aggregated(parts: tuple[Part, ...], chunks: list[Floats], grid: Grid, how: str) -> Floats:
    """Put the values of all files together on each step, `(place,)`."""
    whole = np.full(int(grid.lengths.sum()), np.nan, np.float32)
    places = [place for part in parts for place in part.places]
    write(whole, places, [own for part in parts for own in part.of(chunks)], how)
    return whole


def _planned(plan: Floats, placed: Floats) -> Floats:
    """Let the plan have the last word where it says something."""
    value: Floats = np.where(np.isfinite(plan), plan, placed)
    return value


def _is_contradicted(plan: Floats, placed: Floats, is_ahead: Flags) -> bool:
    """Tell whether the plan says something else at a time that has passed."""
    is_both = np.isfinite(plan) & np.isfinite(placed)
    return bool((is_both & (plan != placed) & ~is_ahead).any())


def _is_ahead(rows: Rows, readings: Part, grid: Grid) -> Flags:
    """`(place,)`: which places lie after the last reading of their series."""
    is_seen = np.zeros(int(grid.lengths.sum()), np.bool_)
    for values in rows.values:
        for place, chunk in zip(readings.places, readings.of(values), strict=True):
            is_seen[place[np.isfinite(chunk)]] = True
    seen = np.flatnonzero(is_seen)
    found = np.searchsorted(seen, grid.offsets[1:]) - 1
    last = np.append(seen, -1)[found]  # of a series without any, one before its own
    places: Flags = np.arange(len(is_seen)) > np.repeat(last, grid.lengths)
    return places
