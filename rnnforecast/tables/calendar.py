"""Which axis a table asks for: days of its zone, months, the hours in which a machine runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from rnnforecast.data.arrays import Integers
from rnnforecast.data.axis import (
    DAY_US,
    HOUR_US,
    MONDAY_US,
    MONTHS,
    WALL_CLOCK,
    WEEK_US,
    Flags,
    TimeAxis,
)
from rnnforecast.data.panel import Panel
from rnnforecast.events import Listener, Notice, WarningEvent
from rnnforecast.parallel import Ranks, all_gather_object
from rnnforecast.sources.stamps import month_of
from rnnforecast.tables.rows import ReadContext, Rows
from rnnforecast.units import MONTH_US, OFFERED_ZONES, format_duration, is_end_of_period

SHORTEST_MONTH_US, SHORTEST_YEAR_US = 28 * DAY_US, 360 * DAY_US
_FEWEST_MONTHS = 3
"""Fewer different stamps do not tell that they are those of months."""
_FEWEST_WEEKS = 4
"""Fewer weeks do not tell in which of their hours there are never readings."""
_CLOSED_SHARE = 1 / 7
"""Share of a week that is closed at least: a day of each, or some hours of each day."""
_OPEN_OCCUPANCY = 0.9
"""Least share of the open steps with readings, on days that have any: daylight has less."""
_WEEKS_WORKED = 0.5
"""Least share of the open steps with readings, holidays and shut-downs included."""
_CLOCK = re.compile(r"\D*(\d{1,2})[:.h]?([0-5]\d)(?::00)?(?!\d).*")
_NUMBER = re.compile(r"(\D*?)[ _.-]*(\d{1,3})\D*")
"""Names of columns that may hold a part of the day: 01:30, kWh_0130; and H01, P1, Hour 1."""
_HALF_CLOCK = re.compile(r"(\d{1,2})(?::00)? *([AaPp])\.?[Mm]\.?")
_WEEKDAYS = {
    name: number
    for names in (
        "monday tuesday wednesday thursday friday saturday sunday",
        "mon tue wed thu fri sat sun",
        "montag dienstag mittwoch donnerstag freitag samstag sonntag",
        "mo di mi do fr sa so",
        "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "lun mar mer jeu ven sam dim",
        "lunes martes mi\u00e9rcoles jueves viernes s\u00e1bado domingo",
        "lun mar mi\u00e9 jue vie s\u00e1b dom",
        "luned\u00ec marted\u00ec mercoled\u00ec gioved\u00ec venerd\u00ec sabato domenica",
        "lun mar mer gio ven sab dom",
        "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
        "ma di wo do vr za zo",
        "segunda ter\u00e7a quarta quinta sexta s\u00e1bado domingo",
        "seg ter qua qui sex s\u00e1b dom",
    )
    for number, name in enumerate(names.split())
}
"""Names of weekdays in several languages, by their number."""
_PARTS_OF_DAY = {
    24: "the hours",
    48: "the half hours",
    96: "the quarter hours",
    144: "the 10-minute steps",
    288: "the 5-minute steps",
}
_PERIOD_NAMES = ("", "h", "hh", "he", "hr", "hour", "p", "sp", "tp", "period", "interval", "slot")
"""What stands before the numbers of parts of a day; 24 of anything else may be hours, too."""
_MONTH_NAMES, _DAY_NAMES = (
    ("", "m", "month", "monat", "mes", "mois"),
    ("", "d", "day", "tag", "dia", "v", "value"),
)
"""What stands before the numbers of months and of days."""
_ROMAN_MONTHS = frozenset(
    ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
)
_SEASONS = frozenset(("djf", "mam", "jja", "son"))
_FEWEST_PARTS, _MOST_PARTS, _FEWEST_STEPS, _MOST_STEPS, _FEWEST_READINGS = 3, 400, 8, 2000, 90
_MOSTLY_SEEN, _NEARLY_ALL = 0.5, 0.9
"""Parts of a step that are told by their readings, the steps that are looked at, and the least
shares of these that have a reading, and of parts that continue the one before."""
_LESS_THAN_STEPS = 0.75
"""From part to part, readings change by less than this share of their change from step to step."""
_DECIMAL = re.compile(r"\d+([.,]\d+)?")
_SPANS = (("day", DAY_US), ("week", WEEK_US))
"""Durations that closed hours make shorter."""
_FINEST_CLOSED_US = 60_000_000
"""Closed hours are looked for in steps of a minute or longer."""


def choose_axis(rows: Rows, step_us: int, context: ReadContext) -> TimeAxis:
    """Return the axis for rows whose times are still those of the stamps, at about this step.

    Months where the user names a step of months, or all stamps lie at one time of their months or
    of their ends; the wall clock for stamps of a zone, where they lie at equal steps on it; else
    the time that elapses.
    """
    config, ranks, tz = context.config, context.ranks, context.tz
    axis = TimeAxis(tz)
    has_clock = tz is not None and tz != "UTC"
    if step_us % MONTH_US == 0 and config.is_resampled:
        offset_us = -DAY_US if is_end_of_period(config.freq or "") else 0
        axis = TimeAxis(tz, MONTHS, offset_us)
    elif step_us % MONTH_US == 0 or (config.freq is None and step_us >= SHORTEST_MONTH_US):
        offset = _offset_in_month(rows, tz)
        if offset is not None or step_us % MONTH_US == 0:
            axis = TimeAxis(tz, MONTHS, offset or 0)
        elif has_clock:
            axis = TimeAxis(tz, WALL_CLOCK)
    elif has_clock:
        axis = TimeAxis(tz, WALL_CLOCK)
        is_even = step_us % DAY_US == 0 or HOUR_US % step_us == 0 or config.is_resampled
        phases = (np.unique(axis.from_utc(times) % step_us) for times in rows.times)
        if not is_even and len(np.unique(np.concatenate(list(phases)))) > 1:
            axis = TimeAxis(tz)

    if ranks.n == 1:
        return axis
    kinds = {tuple(kind) for kind in all_gather_object(ranks, [axis.kind, axis.offset_us])}
    return axis if len(kinds) == 1 else TimeAxis(tz)


def _offset_in_month(rows: Rows, tz: str | None) -> int | None:
    """Return how far after the beginning of its month every stamp lies, in microseconds.

    It is negative where every stamp lies as far before the end of its month instead; None for
    stamps that do neither.
    """
    clock = TimeAxis(tz, WALL_CLOCK)
    times = np.unique(np.concatenate([np.unique(chunk) for chunk in rows.times]))
    times = clock.from_utc(times)
    if len(times) < _FEWEST_MONTHS:
        return None

    month = times.astype("datetime64[us]").astype("datetime64[M]")
    begin = month.astype("datetime64[us]").astype(np.int64)
    end = (month + 1).astype("datetime64[us]").astype(np.int64)
    for offsets in (times - begin, times - end):
        if (offsets == offsets[0]).all():
            return int(offsets[0])
    return None


def zones_of_midnights(rows: Rows) -> list[str]:
    """Return known zones in which all days, or months, of times in UTC begin at midnight.

    None where they begin at one time of UTC, too.
    """
    times = np.unique(np.concatenate([np.unique(chunk) for chunk in rows.times]))
    if len(np.unique(times % DAY_US)) == 1:
        return []
    clocks = ((zone, TimeAxis(zone, WALL_CLOCK)) for zone in OFFERED_ZONES)
    return [zone for zone, clock in clocks if not (clock.from_utc(times) % DAY_US).any()]


def merge_repeated_hours(rows: Rows, axis: TimeAxis) -> list[Flags] | None:
    """Merge the two passes of hours that come twice; return the rows that stay, in chunks `(row,)`.

    Of two rows of a series at one time of the clock the first stays, with the means of the readings
    of both. Where a series ends within the second pass, rows of the first pass at later times of
    the clock are dropped: on the axis they would lie ahead. Returns None where all rows stay.
    """
    begin = min(int(times.min()) for times in rows.times)
    end = max(int(times.max()) for times in rows.times)
    hours = axis.repeated_hours(begin, end + DAY_US)
    if not hours:
        return None

    # Where a row lies: 3 i + 1 in the first passage of hour i, 3 i + 2 in the second
    edges = np.array([(first, second, 2 * second - first) for first, second in hours]).ravel()
    places = [np.searchsorted(edges, times, side="right") for times in rows.times]
    in_hours = [np.flatnonzero(p % 3) for p in places]
    row = np.concatenate(in_hours)
    chunk = np.repeat(np.arange(len(in_hours)), list(map(len, in_hours)))
    time, code, place = (
        np.concatenate([values[index] for values, index in zip(chunks, in_hours, strict=True)])
        for chunks in (rows.times, rows.codes, places)
    )
    length = edges[place // 3 * 3 + 1] - edges[place // 3 * 3]
    is_second = place % 3 == 2

    newest = rows.newest_readings()
    is_ahead = ~is_second & (time <= newest[code]) & (time + length > newest[code])

    # Second rows, each with the first row of its series at the same time of the clock
    clock_time = np.where(is_second, time - length, time)
    order = np.lexsort((is_second, clock_time, code))
    is_pair = (np.diff(code[order]) == 0) & (np.diff(clock_time[order]) == 0) & is_second[order][1:]
    first, second = order[:-1][is_pair], order[1:][is_pair]
    rows.merge((chunk[first], row[first]), (chunk[second], row[second]))

    keep = [np.ones(len(times), np.bool_) for times in rows.times]
    is_dropped = is_ahead.copy()
    is_dropped[second] = True
    for i, is_kept in enumerate(keep):
        is_kept[row[is_dropped & (chunk == i)]] = False
    return keep if is_dropped.any() else None


def find_open_steps(
    rows: Rows, times: Sequence[Integers], step_us: int, ranks: Ranks
) -> tuple[int, ...]:
    """Return the steps of a week, from Monday, in which there are readings; empty for all.

    `times` are those of the rows on the grid. Steps are closed where in at least four weeks no
    series has a reading in them, and most others have one. Each n-th step of the week is not open:
    readings then have a longer step.
    """
    if not _FINEST_CLOSED_US <= step_us <= DAY_US or WEEK_US % step_us:
        return ()

    n_steps = WEEK_US // step_us
    counts = np.zeros(n_steps, np.int64)
    first, last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for i, chunk in enumerate(times):
        seen = chunk[rows.has_reading(i)]
        if len(seen):
            counts += np.bincount((seen - MONDAY_US) % WEEK_US // step_us, minlength=n_steps)
            first, last = min(first, int(seen.min())), max(last, int(seen.max()))
    counts = ranks.all_reduce(counts)
    spans = all_gather_object(ranks, [int(first), int(last)])
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)

    n_closed = int(np.count_nonzero(counts == 0))
    open_steps = np.flatnonzero(counts)
    is_even = len(set(np.diff(open_steps, append=open_steps[:1] + n_steps).tolist())) == 1
    if is_even:
        return ()
    if last - first < _FEWEST_WEEKS * WEEK_US or not _CLOSED_SHARE * n_steps <= n_closed < n_steps:
        return ()

    distinct = np.unique(np.concatenate([np.unique(chunk) for chunk in times]))
    days, n_read = np.unique((distinct - MONDAY_US) // DAY_US, return_counts=True)
    open_per_day = np.bincount(open_steps * step_us // DAY_US, minlength=7)
    on_read_days = n_read.sum() / max(open_per_day[days % 7].sum(), 1)
    in_all_weeks = n_read.sum() * WEEK_US / (last - first) / (n_steps - n_closed)
    shares = all_gather_object(ranks, [float(on_read_days), float(in_all_weeks)])
    is_closed = all(a >= _OPEN_OCCUPANCY and b >= _WEEKS_WORKED for a, b in shares)
    return tuple(open_steps.tolist()) if is_closed else ()


def note_closed_hours(axis: TimeAxis, listener: Listener) -> None:
    """Report that the axis lacks the closed steps of each week."""
    n_open, step_us = len(axis.open_steps), axis.step_us
    share = f"{n_open} of the {WEEK_US // step_us} steps of {format_duration(step_us)} in a week"
    spans = ((name, us, axis.measure(us, step_us)) for name, us in _SPANS if us > step_us)
    lengths = [f"a {name} is {format_duration(n)}" for name, us, n in spans if n != us]
    message = f"readings occur in {share}; the other steps are treated as closed hours"
    listener(Notice(", and ".join([f"{message}: in durations {lengths[0]}", *lengths[1:]])))


def leave_out_closed(
    rows: Rows, times: list[Integers], axis: TimeAxis, context: ReadContext
) -> tuple[list[Integers], ReadContext]:
    """Drop rows in closed hours; warn of them where the hours were closed at training.

    Returns the times on the grid, and the context with a source, of the rows that are left.
    """
    is_open = [axis.is_open(chunk) for chunk in times]
    n_closed = sum(int(np.count_nonzero(~chunk)) for chunk in is_open)
    if not n_closed:
        return times, context
    if context.schema.step_us is not None:
        message = f"{n_closed} rows are in hours that were closed in training, skipped"
        context.listener(WarningEvent("closed-hours", message, n_closed))
    else:
        codes = np.concatenate([c[r] for c, r in zip(rows.codes, is_open, strict=True)])
        if len(np.unique(codes)) < rows.n_series:  # a series of empty rows stays
            return times, context
    context = rows.keep(is_open, context)
    open_times = [t[has_row] for t, has_row in zip(times, is_open, strict=True) if has_row.any()]
    return open_times, context


def warn_of_time_in_columns(
    names: Sequence[str], panel: Panel, listener: Listener, *, are_columns: bool = True
) -> None:
    """Warn where columns are parts of a step, such as months of a year: by names, or by readings.

    By their names, others may stand beside them, such as totals or qualities. Of names in a key,
    numbers are only taken for the parts of a day.
    """
    parts = _parts_in(names, panel.step_us, are_columns=are_columns)
    order = _order_in_step(panel) if parts is None else None
    if order is not None:
        names = [panel.names[i] for i in order.tolist()]
        parts = f"parts of each step of {format_duration(panel.step_us)}, as the readings of each "
        parts += "continue those of the one before"
    if parts is not None:
        message = f"{names[0]!r} to {names[-1]!r} look like {parts}, but each is forecast "
        message += "separately; to forecast one series, reshape the table to long format "
        message += "(pandas.melt)"
        listener(WarningEvent("time-in-columns", message, len(names)))


def _order_in_step(panel: Panel) -> Integers | None:
    """Return the order in which series are the parts of each step by their readings, or None.

    They go on from each part to the next, and from the last to the first of the next step, by less
    than from step to step. Sensors that see the same are near each other at one time, but not a
    step later. Usual differences between the parts, such as those of a day, do not count.
    """
    if panel.shared or not _FEWEST_PARTS <= panel.n_series <= _MOST_PARTS:
        return None
    begin = int(panel.start.max())
    if ((begin - panel.start) % panel.step_us).any():
        return None  # sensors that are read in turn
    end = int((panel.start + panel.lengths * panel.step_us).min())
    n_rows = min((end - begin) // panel.step_us, _MOST_STEPS)
    if n_rows < _FEWEST_STEPS or n_rows * panel.n_series < _FEWEST_READINGS:
        return None

    order = np.arange(panel.n_series)
    if all(map(str.isascii, panel.names)) and all(map(_DECIMAL.fullmatch, panel.names)):
        order = np.argsort([float(name.replace(",", ".")) for name in panel.names], kind="stable")
    first = panel.offsets[order] + (begin - panel.start[order]) // panel.step_us
    values = panel.target[np.arange(n_rows)[:, None] + first].astype(np.float64)
    if np.isfinite(values).mean(0).min() < _MOSTLY_SEEN:
        return None
    values -= np.nanmean(values, axis=0)

    following = np.column_stack([values[:-1, 1:], values[1:, 0]])
    moves = np.diff(values, axis=0), following - values[:-1]
    if not all(np.isfinite(x).any(0).all() for x in moves):
        return None
    per_step, change = (np.nanmean(np.abs(x), axis=0) for x in moves)
    is_less = change <= _LESS_THAN_STEPS * (per_step + np.roll(per_step, -1)) / 2
    is_order = bool(per_step.all() and is_less[-1] and is_less.mean() >= _NEARLY_ALL)
    return order if is_order else None


def _parts_in(names: Sequence[str], step_us: int, *, are_columns: bool) -> str | None:
    """Return what parts of a step columns hold, by their names; None for none."""
    folded = [name.strip().casefold() for name in names]
    numbered = [match for match in map(_NUMBER.fullmatch, folded) if match is not None]
    numbers: dict[str, set[int]] = {}
    for match in numbered:
        numbers.setdefault(match[1].strip(), set()).add(int(match[2]))
    if step_us != DAY_US and not are_columns:
        numbers = {}
    if step_us >= SHORTEST_YEAR_US:
        months = sorted(month_of(name) or 0 for name in folded if "-" not in name)
        if [month for month in months if month] == [*range(1, 13)] or any(
            values == {*range(1, 13)} and prefix in _MONTH_NAMES
            for prefix, values in numbers.items()
        ):
            return "the months of a year"
        if {*folded} >= _ROMAN_MONTHS:
            return "the months of a year"
        if {*folded} >= _SEASONS:
            return "the seasons of a year"
        is_quarter = any(numbers.get(prefix) == {1, 2, 3, 4} for prefix in "qt")
        return "the quarters of a year" if is_quarter else None
    if step_us >= SHORTEST_MONTH_US:
        days = any(
            {*range(1, 29)} <= values <= {*range(1, 32)} and prefix in _DAY_NAMES
            for prefix, values in numbers.items()
        )
        return "the days of a month" if days else None
    if step_us == WEEK_US:
        weekdays = {_WEEKDAYS.get(name) for name in folded} - {None}
        return "the days of a week" if len(weekdays) == 7 else None
    if step_us == DAY_US:
        return _parts_of_day(folded, numbers)
    if step_us == HOUR_US and {*range(60)} in numbers.values():
        return "the minutes of an hour"
    return None


def _parts_of_day(names: Sequence[str], numbers: Mapping[str, set[int]]) -> str | None:
    """Return which equal parts of a day names are: numbers or times of day; None for none.

    The day on which clocks are put back may have two more.
    """
    n_numbered = sum(map(len, numbers.values()))
    halves = [match for match in map(_HALF_CLOCK.fullmatch, names) if match is not None]
    minutes = {60 * (int(m[1]) % 12 + 12 * (m[2] == "p")) for m in halves}
    clocks = [match for match in map(_CLOCK.fullmatch, names) if match is not None]
    minutes |= {(60 * int(m[1]) + int(m[2])) % 1440 for m in clocks}
    for n_parts, parts in _PARTS_OF_DAY.items():
        if minutes == {*range(0, 1440, 1440 // n_parts)}:
            return f"{parts} of a day"
        for prefix, values in numbers.items():
            extra = values - {*range(n_parts)}, values - {*range(1, n_parts + 1)}
            is_whole = any(
                len(values) - len(x) == n_parts and len(x) <= n_parts // 24 for x in extra
            )
            are_all = n_parts == 24 and n_numbered >= len(names) - 1 and n_numbered % 24 == 0
            if is_whole and (prefix in _PERIOD_NAMES or are_all):
                return f"{parts} of a day"
    return None
