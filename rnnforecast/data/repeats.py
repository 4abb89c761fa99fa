"""Several readings on one step: which counts, a clock that was set back, and what is a mistake.

Between `scattering`, which writes, and `placing`, which asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Floats, Integers
from rnnforecast.data.rows import Rows
from rnnforecast.data.scattering import Grid, Readings
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import format_stamp
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.dialect import quote
from rnnforecast.sources.reading import Source

ONCE = "once"
"""The rule for a table that has one reading on each step at most."""
_HOUR_US = 3_600_000_000
_SUNDAY = 6


@dataclass(frozen=True)
class Part:
    """The rows of one file, among all, and what to do where several of them fall on one step."""

    name: str
    what: str
    """What messages call that which it holds."""
    first_row: int
    places: list[Integers]
    how: str

    def of(self, chunks: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return its rows of a column, as views."""
        return _cut(chunks, self.first_row, self.first_row + sum(map(len, self.places)))


def parts_of(
    rows: Rows,
    places: list[Integers],
    grid: Grid,
    source: Source,
    config: DataConfig,
    listener: Listener,
) -> tuple[Part, ...]:
    """Return the rows of the readings, and then those of a plan where there is one."""
    n_rows = sum(map(len, places))
    n_readings = n_rows - rows.n_planned
    own = _cut(places, 0, n_readings)
    rule = rule_for_repeats(own, grid, config, listener)
    readings = Part(source.name, "readings", 0, own, rule)
    if not rows.n_planned:
        return (readings,)
    ahead = _cut(places, n_readings, n_rows)
    rule = rule_for_repeats(ahead, grid, config, listener)
    return readings, Part(rows.plan, "values", n_readings, ahead, rule)


def _cut(chunks: Sequence[NDArray[Any]], first: int, end: int) -> list[NDArray[Any]]:
    """Return the rows from `first` to before `end`, counted over all chunks."""
    found, n_before = [], 0
    for chunk in chunks:
        rows = chunk[max(first - n_before, 0) : max(end - n_before, 0)]
        n_before += len(chunk)
        if len(rows):
            found.append(rows)
    return found


def rule_for_repeats(
    places: list[Integers], grid: Grid, config: DataConfig, listener: Listener
) -> str:
    """Return what to do with several readings on one step, or that there are none."""
    n_repeats = count_repeats(places, int(grid.lengths.sum()))
    if not n_repeats:
        return ONCE
    how = config.agg or config.on_duplicate
    back_to = _set_back_to(places, n_repeats, grid) if how == "error" else None
    if back_to is None:
        return how
    message = f"the clock was set back by an hour: {n_repeats} time stamps occur twice, the first "
    message += f"{format_stamp(grid.time_at(back_to), None)}, and the later reading counts; to use "
    message += "both where they are an hour of their own, name the zone with  --tz"
    listener(Warned("clock-set-back", message, n_repeats))
    return "last"


def count_repeats(places: list[Integers], n_grid: int) -> int:
    """Return how many rows there are more than places that they fall on."""
    taken = np.zeros(n_grid, np.bool_)
    for place in places:
        taken[place] = True
    return sum(map(len, places)) - int(np.count_nonzero(taken))


def _set_back_to(places: list[Integers], n_repeats: int, grid: Grid) -> int | None:
    """Return the first place to which a clock went back; None unless all repeats are whole hours.

    One reading an hour shows only a repeated stamp, which may be anything: there the day and the
    hour must be those of a change. Readings less often cannot show it.
    """
    hour = _HOUR_US // grid.step_us
    place = np.concatenate(places)
    jumps = np.diff(place)
    back = jumps[jumps <= 0]
    if hour < 1 or (back != 1 - hour).any() or n_repeats != hour * len(back):
        return None
    repeated = place[1:][jumps <= 0].tolist()
    if hour > 1 or all(_may_be_end_of_summer_time(grid.time_at(one)) for one in repeated):
        return int(repeated[0])
    return None


def reject_conflicts(
    into: Readings,
    part: Part,
    chunks: list[Floats],
    grid: Grid,
    source: Source,
    schema: Schema,
    column: str,
) -> None:
    """Raise `DataError` where a value of a file's rows differs from the one that was placed."""
    what = "readings" if column in schema.targets else "values"
    n_before = 0
    for place, chunk in zip(part.places, chunks, strict=True):
        differs = np.isfinite(chunk) & (into[place] != chunk)
        if differs.any():
            row = int(np.argmax(differs))
            other = _other_row(part.places, chunks, int(place[row]), n_before + row)
            location = source.location(part.first_row + n_before + row, schema.time)
            also = source.location(part.first_row + other, schema.time).line
            raise DataError(
                f"two different {what} of {column!r} at one time",
                code="duplicate-time",
                location=replace(location, also_lines=(also,) if also else ()),
                hint=_hint_for_conflicts(source, schema, grid.time_at(int(place[row]))),
            )
        n_before += len(chunk)


def _other_row(places: list[Integers], chunks: list[Floats], place: int, row: int) -> int:
    """Return the last row, counted over all chunks, with a reading at this place, but not `row`."""
    there = [(own == place) & np.isfinite(c) for own, c in zip(places, chunks, strict=True)]
    rows = np.flatnonzero(np.concatenate(there))
    return int(rows[rows != row][-1])


def _hint_for_conflicts(source: Source, schema: Schema, time_us: int) -> str:
    hint = "say which counts, with  --on-duplicate last  or  --on-duplicate mean"
    if _may_be_end_of_summer_time(time_us):
        hint += " ; if a clock was set back there, say its zone, such as  --tz Europe/Berlin"
    used = (schema.time, *schema.covariate_names)
    texts = [c.name for c in source.columns if c.kind == "text" and c.name not in used]
    if schema.series or not texts:
        return hint
    return f"if column {texts[0]!r} names the series, add  --series {quote(texts[0])} ; else {hint}"


def _may_be_end_of_summer_time(time_us: int) -> bool:
    """Tell whether clocks are set back somewhere at this time: in the first hours of a Sunday."""
    time = datetime(1970, 1, 1) + timedelta(microseconds=time_us)
    return time.weekday() == _SUNDAY and time.hour <= 3 and time.month in (3, 4, 9, 10, 11)
