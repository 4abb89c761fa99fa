"""What the cells of columns tell about their roles: key, target, zone, unit, status, second time.

The possible keys of a table, and its possible times, are ranked by the evidence of its rows. Names
of columns only break ties, and between keys that name different series not even those.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import DAY_US, HOUR_US, MONDAY_US, Flags, time_zone
from rnnforecast.sources.columns import Column
from rnnforecast.tables.evidence import (
    NO_TIME,
    ColumnEvidence,
    Evidence,
    Partition,
    count_codes,
    pair_codes,
    partition,
    regularity_of,
    without_repeated_rows,
)
from rnnforecast.tables.timestamps import known_zones
from rnnforecast.units import OFFERED_ZONES

_MAX_KEY_COLUMNS, _MAX_COMBINED = 4, 8
"""A key has at most four columns, of the eight likeliest: texts, then numbers that repeat most."""
_MAX_KEYS_OF_ROWS, _MAX_ROWS_DESCRIBED = 50_000, 500_000
"""Rows, of the earliest times, on which keys are compared: many keys where stamps do not repeat,
and few where they do."""
_MAX_ROWS_OF_TIME = 10_000
"""Rows, evenly spread, on which numbers are compared with the time."""
_MIN_ROWS = 24
"""In fewer rows, columns look alike by chance."""
_UNEXPLAINED_SHARE = 0.1
"""Share of the rows at repeated times that a key may leave so: some rows are there twice."""
_REPEATING_FACTOR, _TEXT_REPEATING_FACTOR = 3, 2
"""Least mean number of rows for each value of a key: of numbers, and of texts."""
_ORDERLY = 0.5
"""Least share of all times at which a key of numbers has readings, unless they are regular."""
_REGULAR, _LESS_REGULAR = 0.9, 0.25
"""Least share of steps on the grid of a series that is regular; and how much smaller that share may
be for a time column than for the best one."""
_EVEN, _SEVERAL = 0.6, 1.5
"""Sensors that are read in turn: most steps of each are even, and longer than those of all."""
_JITTER = 0.1
_SAME_SENSOR, _OTHER_SENSOR = 0.8, 0.5
"""How far a reading is from the one before, with the key in comparison with without: readings of
one sensor do not come closer to each other by a key; those of several do. Where values change as
by chance, readings that are noise are neither closer nor further."""
_HOLDING = 0.5
"""A status holds on: it has fewer runs than this share of those that chance would make."""
_LEVELS_APART = 0.9
"""Share of the variance that lies between series."""
_RARE_SHARE = 0.1
"""A status has one usual value; all others together take a smaller share than this."""
_RARELY = 0.01
"""Largest share of rows that are exceptions."""
_EXACT, _ROUNDING = 1e-6, 1e-12
"""A second time is linear in the first, but for rounding, by this share of its range; and a number
is rounded by this share of itself."""
_ALIKE_SLOPE = 0.05
"""Units of time, and their powers of ten, are further apart than this."""
_TIME_NAMES = ("timestamp", "time", "datetime", "date", "ds", "ts", "date_time", "utc")
"""Names of columns of times, the more usual ones first."""
_STATUS_WORDS = frozenset({"quality", "qc", "flag", "status", "valid", "validity", "alarm", "code"})
_COORDINATES = frozenset({"lat", "latitude"}), frozenset({"lon", "lng", "long", "longitude"})
_MAX_IN_TURN = 8
"""Numbers up to this may be those of sensors that send in turn; longer counts are of messages."""
_MAX_QUALITIES = 10
"""Different numbers that the quality of a reading has at most."""
_GERMAN_CLOCKS = {"MEZ": "CET", "MESZ": "CEST"}
CONSTANT = "always"
MARKED = "numbers with other text, such as"
STATUS = "a status: its values change with time"
SAME_IN_SERIES = "the same for each series at all times"
_UNITS_US = (1, 60_000_000, HOUR_US, DAY_US)
"""Units of time that numbers count, or powers of ten of them."""
_LEAST_SUMMER_DAYS = 30
"""Least number of days between two clock changes (Morocco's Ramadan)."""
_QUARTER_US = 900_000_000
"""Zones are multiples of a quarter of an hour apart."""
_FURTHEST_ZONES_US = 26 * HOUR_US
"""How far clocks of two zones may be apart."""
_UTC_NAME, _LOCAL_NAME = re.compile("utc|gmt", re.IGNORECASE), re.compile("lo[ck]al", re.IGNORECASE)
_OFFSET = re.compile(r"\d(Z|[+-]\d{2}:?\d{2})$")


@dataclass(frozen=True)
class KeyReading:
    """One way to read a table: these columns name its series, or none does."""

    key: tuple[str, ...]
    reason: str
    is_sure: bool = True
    """Whether the evidence speaks for this one alone."""


def rank_keys(evidence: Evidence, names: Collection[str]) -> list[KeyReading]:
    """Return the keys that a table may have, the best first; those after it are less likely.

    Where the first one is not sure, the others are as likely. The key is the smallest set of
    columns that makes key and time unique, and whose values each look like one sensor. `names` are
    the columns that may be part of one.
    """
    candidates = [c for c in _candidates(evidence) if c.column.name in names]
    distinct = without_repeated_rows(evidence)
    if not candidates or not distinct.repeats_times:
        return _keys_of_single_times(distinct, candidates)

    # A key leaves something to forecast
    numbers = {name for name, column in evidence.columns.items() if column.numbers is not None}
    keys = _keys_of_repeated_times(distinct, candidates)
    return [k for k in keys if not numbers or numbers - {*k.key}] or [KeyReading((), "")]


def _candidates(evidence: Evidence) -> Iterator[ColumnEvidence]:
    """Yield the columns that may be a key, or a part of one: their values repeat.

    Texts need not repeat where nearly all rows have the same time.
    """
    rows_per_time = evidence.n_rows / max(evidence.n_times, 1)
    for column in evidence.columns.values():
        is_text = column.numbers is None
        most = evidence.n_rows / _REPEATING_FACTOR
        if is_text:
            most = max(evidence.n_rows / _TEXT_REPEATING_FACTOR, rows_per_time, 2)
        repeats = 2 <= column.n_values <= most
        is_zone = column.is_zone and not evidence.comes_together(column)
        if repeats and column.is_complete and not is_zone:
            yield column


def _keys_of_repeated_times(
    evidence: Evidence, candidates: Sequence[ColumnEvidence]
) -> list[KeyReading]:
    """Return the keys that tell repeated times apart, of as few columns as possible.

    A column of readings may do that by chance, but its values do not come at regular times. A
    status tells only the few rows apart that it marks: there a smaller key is right, and these rows
    are there twice.
    """
    ordered = sorted(candidates, key=lambda column: (column.numbers is not None, column.n_values))
    names = [column.column.name for column in ordered[:_MAX_COMBINED]]
    limit = max(_RARELY, _UNEXPLAINED_SHARE * evidence.repeated_times)
    earliest = evidence.earliest(_MAX_ROWS_DESCRIBED)
    is_large = earliest is not evidence
    partitions: list[Partition] = []
    for size in range(1, min(_MAX_KEY_COLUMNS, len(names)) + 1):
        for key in itertools.combinations(names, size):
            if any(p.repeats == 0 and set(p.key) < set(key) for p in partitions):
                continue
            # Numbers of large tables have many values, which take long to count in all rows
            has_numbers = any(evidence.columns[name].numbers is not None for name in key)
            series = partition(earliest, key) if has_numbers and is_large else None
            if series is not None and not _is_orderly(series):
                continue
            share = evidence.repeated_share(evidence.key_codes(key))
            if share <= limit:
                series = replace(series or partition(earliest, key), repeats=share)
                partitions += [series] if _is_orderly(series) or not has_numbers else []
        if any(_rank_of_rows(p) == 0 and p.orderliness >= _REGULAR for p in partitions):
            break

    return _ranked(partitions, evidence) if partitions else _keys_by_name(evidence, candidates)


def _is_orderly(series: Partition) -> bool:
    """Tell whether series named by numbers have readings at most times, or at regular ones."""
    return series.coverage >= _ORDERLY or series.regularity >= _REGULAR


def _rank_of_rows(series: Partition) -> int:
    """Return how well a key tells rows apart: 0 is best."""
    if series.repeats == 0:
        return 0 if series.smallest >= _RARE_SHARE else 2
    return 1 if series.repeats <= _RARELY else 3


def _ranked(partitions: list[Partition], evidence: Evidence) -> list[KeyReading]:
    """Rank keys: by their rows and order, by the number of columns and of series, by names."""

    def likelihood(series: Partition) -> tuple[float, ...]:
        order = -round(series.orderliness, 1)
        return _rank_of_rows(series), order, len(series.key), series.n_series

    def columns_of(series: Partition) -> list[ColumnEvidence]:
        return [evidence.columns[name] for name in series.key]

    def kind(series: Partition) -> tuple[bool, bool]:
        columns = columns_of(series)
        is_text = not any(column.numbers is not None for column in columns)
        return any(column.is_unit or column.is_zone for column in columns), is_text

    def rank(series: Partition) -> tuple[float, ...]:
        is_unit_or_zone, is_text = kind(series)
        is_named = all(column.is_named_series for column in columns_of(series))
        return *likelihood(series), is_unit_or_zone, not is_named, not is_text

    # A name decides which one is offered first, but does not choose: both may be meant
    ordered = sorted(partitions, key=rank)
    best = ordered[0]
    rivals = [
        series
        for series in ordered[1:]
        if likelihood(series) == likelihood(best)
        and kind(series) == kind(best)
        and not _is_same_partition(evidence.key_codes(best.key), evidence.key_codes(series.key))
    ]
    order = list(evidence.columns)
    return [
        KeyReading(
            tuple(sorted(series.key, key=order.index)),
            "it distinguishes repeated timestamps",
            is_sure=not rivals,
        )
        for series in (best, *rivals)
    ]


def _keys_by_name(
    evidence: Evidence, candidates: Sequence[ColumnEvidence], statuses: Collection[str] = ()
) -> list[KeyReading]:
    """Return the first key that its name tells, if any, and no key."""
    is_small = evidence.n_rows < _MIN_ROWS
    texts = [c for c in evidence.columns.values() if c.numbers is None]
    constants = [c for c in texts if c.n_values == 1 or (is_small and c.n_values)]
    named = [c for c in (*candidates, *constants) if c.is_named_series and not c.is_unit]
    by_name = [c.column.name for c in named if c.column.name not in statuses]
    none = KeyReading((), "no column distinguishes the series")
    return [KeyReading((by_name[0],), "by its name"), none] if by_name else [none]


def _is_same_partition(codes: Integers, other_codes: Integers) -> bool:
    """Tell whether two keys name the same series differently."""
    n_pairs = count_codes(pair_codes(codes, other_codes))
    return n_pairs == int(codes.max(initial=0)) + 1 == int(other_codes.max(initial=0)) + 1


def _keys_of_single_times(
    evidence: Evidence, candidates: Sequence[ColumnEvidence]
) -> list[KeyReading]:
    """Return the keys of a table whose times do not repeat: of sensors that send in turn, or none.

    A status changes at any time, or stays for long, and the readings of one sensor go on across its
    changes. Columns with fractions are readings, and what is true or false is a status.
    """
    candidates = [c for c in candidates if not c.is_fraction and c.column.kind != "other"]
    statuses: set[str] = set()
    if evidence.is_timed and evidence.n_rows >= _MIN_ROWS:
        earliest = evidence.earliest(_MAX_KEYS_OF_ROWS)
        together = partition(earliest, ())
        names = [c.column.name for c in candidates]
        keys = [key for n in (1, 2) for key in itertools.combinations(names, n)]
        rated = [(p := partition(earliest, key), rate(p, together, earliest)) for key in keys]
        sure = [(p, reason) for p, (verdict, reason) in rated if verdict == "key"]
        if sure:
            roughness = min(p.roughness for p, _ in sure)
            best, reason = next(pair for pair in sure if pair[0].roughness <= 2 * roughness + 0.01)
            return [KeyReading(best.key, reason)]

        unsure = [p for p, (verdict, _) in rated if verdict == "unsure"]
        named = [p for p in unsure if all(evidence.columns[n].is_named_series for n in p.key)]
        # units that follow each other are apart, too, and `unit` is the name of machines as well
        no_units = [p for p in named if not any(evidence.columns[n].may_be_unit for n in p.key)]
        by_name = [p for p in named if p.n_runs > p.n_series]
        by_name += [p for p in no_units if p.levels >= _LEVELS_APART and p not in by_name]
        if by_name:
            return [KeyReading(by_name[0].key, "each value may be a sensor, also by its name")]
        if unsure:
            single = [p for p in unsure if len(p.key) == 1] or unsure
            reason = "each value may be a separate sensor"
            none = KeyReading((), reason, is_sure=False)
            return [*(KeyReading(p.key, reason, is_sure=False) for p in single), none]
        statuses = {p.key[0] for p, (verdict, _) in rated if verdict == "status"}
    texts = [c for c in candidates if c.numbers is None]
    return _keys_by_name(evidence, texts, statuses)


def rate(series: Partition, together: Partition, evidence: Evidence) -> tuple[str, str]:
    """Return what columns are where times do not repeat, and the reason.

    They are a `key`, a `status`, `unsure`, or `other`, which are readings.
    """
    has_numbers = any(evidence.columns[name].numbers is not None for name in series.key)
    is_apart = series.levels >= _LEVELS_APART and series.roughness <= _OTHER_SENSOR
    doubt, status = ("other", "other") if has_numbers else ("unsure", "status")
    is_regular = together.regularity >= _REGULAR
    is_named = all(evidence.columns[name].is_named_series for name in series.key)
    shares = np.bincount(evidence.key_codes(series.key)) / evidence.n_rows
    is_rarely_other = shares.max() > 1 - _RARE_SHARE

    if is_regular and series.n_runs == series.n_series:
        # batches of one machine, or sensors that followed each other: a name tells neither
        is_open = is_apart or (is_named and not has_numbers and not is_rarely_other)
        return (doubt if is_open else "other"), "each value stays for a while"
    is_even = series.regularity >= _REGULAR and series.evenness >= _EVEN
    if is_even and series.step_us >= _SEVERAL * together.step_us:
        # values that come once or twice a day, a week, a month or a year may name hours, days and
        # months, and readings may have such a pattern
        days = series.step_us / DAY_US
        is_calendar = 28 <= days <= 366 or any(abs(days - n) <= _JITTER * n for n in (0.5, 1, 7))
        if is_apart and not (is_calendar and (is_regular or has_numbers)):
            return "key", "the values alternate, each with its own level"
        is_apart_in_time = has_numbers and _has_own_times(series, together, evidence)
        if has_numbers and (is_named or (is_apart_in_time and not is_calendar)):
            doubt = "unsure"
        if not is_regular:
            is_key = not is_calendar and ((is_apart_in_time and is_named) or not has_numbers)
            reason = "each value has regular times, but all of them together do not"
            return ("key" if is_key else doubt), reason
        return (status if is_calendar else doubt), "the values alternate"

    runs_of_chance = (1 - float((shares**2).sum())) * evidence.n_rows
    holds = series.n_runs <= _HOLDING * runs_of_chance
    is_same_sensor = series.roughness >= (_SAME_SENSOR if holds else 1 / _SAME_SENSOR)
    if is_regular or is_rarely_other or is_same_sensor:
        return status, "its values change with time"
    if has_numbers and not holds and (is_apart or is_named) and series.n_series > 2:
        doubt = "unsure"
    return doubt, "the times are irregular"


def _has_own_times(series: Partition, together: Partition, evidence: Evidence) -> bool:
    """Tell whether each value of a column of numbers has equal steps, unlike all rows together.

    The times themselves, and numbers of messages that begin anew, do so without naming a sensor.
    """
    is_even = min(series.regularity, series.evenness) >= _REGULAR > together.evenness
    n_numbers = sum(column.numbers is not None for column in evidence.columns.values())
    if not is_even or len(series.key) > 1 or n_numbers < 2:
        return False
    column = evidence.columns[series.key[0]]
    order = np.argsort(evidence.times, kind="stable")
    if column.numbers is None or _reason_of_number(column, evidence, 0 * order, order):
        return False
    cycle = np.ptp(column.numbers) + 1
    steps = np.diff(column.numbers[order]) % cycle
    return column.n_values <= _MAX_IN_TURN or float(np.mean(steps == 1)) < _REGULAR


def left_out_numbers(
    evidence: Evidence, key: Sequence[str], named: Collection[str]
) -> dict[str, str]:
    """Return the columns of numbers that are no readings, with the reason; not those `named`."""
    codes = evidence.key_codes(key)
    order = evidence.sort(codes) if evidence.is_timed else np.arange(len(codes))
    reasons = {
        name: _reason_of_number(column, evidence, codes, order)
        for name, column in evidence.columns.items()
        if column.numbers is not None and name not in (*key, *named)
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _reason_of_number(
    column: ColumnEvidence, evidence: Evidence, codes: Integers, order: Integers
) -> str | None:
    """Return the reason why a column of numbers is no reading; None where it may be one."""
    values = column.numbers
    assert values is not None
    is_seen = np.isfinite(values)
    n_seen = int(np.count_nonzero(is_seen))
    if n_seen < _MIN_ROWS or not column.is_complete:
        return None

    if evidence.is_whole and column.n_values == 1:
        return f"{CONSTANT} {values[is_seen][0]:g}"
    n_series = int(codes.max(initial=0)) + 1
    if evidence.is_whole and n_series > 1:
        seen = slice(None) if n_seen == len(values) else is_seen
        n_pairs = count_codes(pair_codes(codes[seen], column.codes[seen]))
        if n_pairs <= n_series:
            return SAME_IN_SERIES
    if n_seen < len(values):
        return None

    if _is_row_number(values, column.n_values, codes, order):
        return "numbers the rows"
    if column.n_values > 1 and evidence.is_timed:
        some = order[:: max(1, len(values) // _MAX_ROWS_OF_TIME)]
        if _is_calendar(values[some], evidence.times[some]):
            return "derived from the timestamp"
        if _is_second_time(values[some], evidence.times[some], codes[some]):
            return "a second time"
        if column.n_values == 2 and _tells_clock(values, evidence.times):
            return "the daylight saving flag"
        if not column.is_fraction and _counts_steps(values, evidence.times, codes, order):
            return "numbers the rows"
    name_words = set(re.split(r"[^a-z]+", column.column.name.casefold()))
    if name_words & _STATUS_WORDS and not column.is_fraction:
        usual = np.bincount(column.codes).max() / n_seen
        if usual > 1 - _RARE_SHARE:
            return "a status: almost always the same integer"
    if _is_coordinate(column, evidence):
        return "a coordinate"
    if not column.is_fraction and column.n_values <= _MAX_QUALITIES:
        reading = _quality_of(column.column.name, evidence.columns)
        return f"the quality of {reading}" if reading is not None else None
    return None


def _is_coordinate(column: ColumnEvidence, evidence: Evidence) -> bool:
    """Tell whether a column is called a latitude or a longitude, beside one that is called so."""

    def is_called(name: str, names: frozenset[str]) -> bool:
        return not names.isdisjoint(re.findall(r"[^\W\d_]+", name.casefold()))

    latitude, longitude = _COORDINATES
    name, values = column.column.name, column.numbers
    pair = next((n for n in _COORDINATES if is_called(name, n)), None)
    if pair is None or values is None or np.abs(values[np.isfinite(values)]).max(initial=0.0) > 180:
        return False
    partner = longitude if pair is latitude else latitude
    return any(is_called(column_name, partner) for column_name in evidence.columns)


def _quality_of(name: str, columns: Collection[str]) -> str | None:
    """Return the column whose quality another one tells by its name; None without one.

    It is called so with a word for quality, such as flow_qc, or with a letter, such as QRR for RR.
    """
    tokens = re.findall(r"[^\W_]+", name.casefold())
    stem = [token for token in tokens if token not in _STATUS_WORDS and token != "q"]
    has_letter = len(tokens) == 1 and tokens[0].startswith("q")
    if not has_letter and not 0 < len(stem) < len(tokens):
        return None
    for column in columns:
        of_column = re.findall(r"[^\W_]+", column.casefold())
        is_stem = 0 < len(stem) < len(tokens) and of_column[: len(stem)] == stem
        if column != name and (is_stem or tokens == [f"q{''.join(of_column)}"]):
            return column
    return None


def _is_row_number(values: Doubles, n_values: int, codes: Integers, order: Integers) -> bool:
    """Tell whether numbers count the rows by one: in the file, in time, or within each series.

    Rows that were sorted otherwise since have each number of a range once.
    """
    if n_values == len(values) and np.ptp(values) == len(values) - 1:
        return bool((values == np.rint(values)).all())
    for rows in (order[:_MAX_ROWS_OF_TIME], order):  # the first rows tell most columns
        is_same = np.diff(codes[rows]) == 0
        steps = np.diff(values[rows])[is_same]
        if (steps != 1).any():
            return False
    return len(steps) > 0


def _counts_steps(values: Doubles, times: Integers, codes: Integers, order: Integers) -> bool:
    """Tell whether whole numbers count by one at each step of their series, lost rows too.

    `order` sorts rows by series and time.
    """
    values, times, codes = values[order], times[order], codes[order]
    steps = np.diff(times)[np.diff(codes) == 0]
    steps = steps[steps > 0]
    if not len(steps):
        return False
    deviation = values - (times - times.min()) / float(np.median(steps))
    some = slice(_MAX_ROWS_OF_TIME)
    return _is_band(deviation[some], codes[some], 1.0) and _is_band(deviation, codes, 1.0)


def _is_band(deviation: Doubles, codes: Integers, width: float) -> bool:
    """Tell whether nearly all values of each series lie within a band of this width."""
    groups = pd.Series(deviation).groupby(codes)
    middle = groups.transform("median").to_numpy()
    is_within: Flags = np.abs(deviation - middle) <= width / 2
    return bool(is_within.mean() >= 1 - _RARELY)


def _resolution(values: Doubles) -> float:
    """Return the place of the last decimal of numbers; 0 for those with more than nine."""
    size = float(np.abs(values).max())
    for n_decimals in range(10):
        if (np.abs(np.round(values, n_decimals) - values) <= _ROUNDING * size).all():
            return 10.0**-n_decimals
    return 0.0


def _calendar_numbers(times: Integers) -> Iterator[Integers]:
    """Yield the hours, the days, the months and so on, of times, as they may be counted."""
    stamps = pd.DatetimeIndex(times.view("datetime64[us]"))
    weekday = stamps.day_of_week  # from Monday, 0
    thursday = stamps - pd.to_timedelta(weekday - 3, unit="D")  # tells the number of the week
    numbers = (
        *(stamps.hour, stamps.hour + 1, stamps.minute, stamps.day, stamps.day_of_year),
        *((thursday.day_of_year - 1) // 7 + 1, stamps.month, stamps.quarter, stamps.year),
        *(stamps.days_in_month, weekday, weekday + 1, (weekday + 1) % 7, (weekday + 1) % 7 + 1),
        weekday >= 5,
    )
    yield from map(np.asarray, numbers)


def _is_calendar(values: Doubles, times: Integers) -> bool:
    """Tell whether numbers are the hour, the day, the month and so on, of their times."""
    is_whole = bool((values == np.rint(values)).all())
    if is_whole and any(bool((values == x).all()) for x in _calendar_numbers(times)):
        return True

    # minutes of the day, numbers of quarters of an hour and the like rise evenly, and begin anew
    resolution = _resolution(values)
    width = max(1.001 * resolution, _EXACT * float(np.ptp(values)))
    steps = np.diff(np.unique(times))
    units = (*_UNITS_US, float(np.median(steps)) if len(steps) else 1.0)
    for period in (HOUR_US, DAY_US, 7 * DAY_US):
        phase = ((times - MONDAY_US) % period).astype(np.float64)
        growth, span = float(np.ptp(values)), float(np.ptp(phase))
        if np.ptp(times) < 2 * period or growth < _MIN_ROWS * resolution or not span:
            continue
        slope = _usual_slope(growth, span, units)
        if slope is not None and np.ptp(values - slope * phase) <= width:
            return True
    return False


def _usual_slope(growth: float, span_us: float, units: Sequence[float]) -> float | None:
    """Return 1, 10, ... per unit of time, in microseconds, if it is about equal to the growth."""
    slopes = [10.0 ** round(np.log10(growth / span_us * unit)) / unit for unit in units]
    slope = min(slopes, key=lambda power: abs(np.log(power * span_us / growth)))
    return slope if abs(slope * span_us / growth - 1) <= _ALIKE_SLOPE else None


def _tells_clock(values: Doubles, times: Integers) -> bool:
    """Tell whether two numbers are the offsets of a zone from UTC, or 0 and 1 for its summer time.

    They change on the days on which its clocks are set, and on no others.
    """
    low, high = np.unique(values)
    by_time = np.argsort(times, kind="stable")
    moves = np.flatnonzero(np.diff(values[by_time]))
    days = (times[by_time[moves + 1]] // DAY_US).tolist()
    first, last = int(times.min()) // DAY_US, int(times.max()) // DAY_US
    if len(set(days)) > 2 + (last - first) // _LEAST_SUMMER_DAYS:
        return False

    noons = pd.DatetimeIndex((np.arange(first, last + 2) * DAY_US + DAY_US // 2).view("M8[us]"))
    for zone in OFFERED_ZONES:
        offset = (
            (noons - noons.tz_localize(time_zone(zone)).tz_convert(None))
            .to_numpy()
            .astype(np.float64)
        )
        changes = np.flatnonzero(np.diff(offset)) + first + 1
        is_flag = (low, high) == (0, 1)
        is_offset = bool(np.isclose(low * offset.max(), high * offset.min()))
        is_same = len(changes) and np.isin(days, [changes, changes + 1, changes - 1]).all()
        if is_same and len(changes) <= len(days) and (is_flag or is_offset):
            return True
    return False


def _is_second_time(values: Doubles, times: Integers, codes: Integers) -> bool:
    """Tell whether numbers are the time in other units: since a first one, or a date long ago.

    They grow by one, ten, ... in a unit of time, but for their last decimal, and where they are
    those of another zone's clock by whole quarters of an hour. Or they are years with decimals.
    """
    if _are_decimal_years(values, times):
        return True
    elapsed = (times - times.min()).astype(np.float64)
    order = np.argsort(elapsed, kind="stable")
    n_rare = int(_RARELY * len(order))
    first, last = int(order[n_rare]), int(order[-1 - n_rare])
    span = float(elapsed[last] - elapsed[first])
    growth = float(values[last] - values[first])
    if span <= 0 or growth <= 0:
        return False
    slope, resolution = _usual_slope(growth, span, _UNITS_US), _resolution(values)
    if slope is None or growth < _MIN_ROWS * resolution:
        return False

    deviation = values - slope * elapsed
    quarter = slope * _QUARTER_US
    width = max(1.001 * resolution, _EXACT * slope * span)
    starts_at_0 = deviation.min() >= -width and deviation.min() <= width
    is_epoch = np.median(values) / slope >= 366 * DAY_US
    if not (starts_at_0 or is_epoch):
        return False
    if is_epoch and width < quarter / 4:  # clocks of another zone, and changes of it
        deviation = (deviation - deviation[0] + quarter / 2) % quarter
    return _is_band(deviation, codes, width)


def _are_decimal_years(values: Doubles, times: Integers) -> bool:
    """Tell whether numbers are years, such as 2024.042, within a step of their times."""
    years = times.astype("datetime64[us]").astype("datetime64[Y]")
    begin, end = (y.astype("datetime64[us]").astype(np.int64) for y in (years, years + 1))
    exact = years.astype(np.int64) + 1970 + (times - begin) / (end - begin)
    steps = np.diff(np.unique(exact))
    if len(steps) < _MIN_ROWS:
        return False
    width = 1.1 * float(np.median(steps)) + _resolution(values)
    return bool((np.abs(values - exact) <= width).all())


def reason_of_text(column: Column, evidence: Evidence, key: Sequence[str]) -> str:
    """Return the reason why a column that holds no numbers has no role."""
    if column.name not in evidence.columns:
        return "a second time" if column.kind == "time" else f"contains {column.kind}"
    cells = evidence.columns[column.name]
    if cells.n_values == 0:
        return "is empty"
    if cells.n_values == 1 and cells.texts:
        is_whole = "" if evidence.is_whole else " in the first rows"
        kind = "a time zone:" if cells.is_zone else "a unit:" if cells.is_unit else CONSTANT
        return f"{kind} {cells.texts[0]}{is_whole}"
    if cells.is_zone:
        return "a time zone"

    codes = evidence.key_codes(key)
    n_series = int(codes.max(initial=0)) + 1
    n_pairs = count_codes(pair_codes(codes, cells.codes))
    if n_series > 1 and n_pairs <= n_series:
        return "units of measurement" if cells.is_unit else SAME_IN_SERIES
    if cells.marked_numbers:
        return f"{MARKED} {cells.marked_numbers[0]!r}"
    if _TEXT_REPEATING_FACTOR * cells.n_values > evidence.n_rows:
        return "free text"
    return STATUS


def zones_of(column: ColumnEvidence, evidence: Evidence) -> list[str]:
    """Return known zones whose clocks have a column's names, or offsets, at the times of rows."""
    names = [_GERMAN_CLOCKS.get(text.strip(), text.strip()) for text in column.texts]
    known = [name for name in names if "/" in name and name in known_zones()]
    if known:
        return list(dict.fromkeys(known))

    zones = []
    for zone in OFFERED_ZONES:
        is_right = True
        for code, name in enumerate(names):
            rows = np.flatnonzero(column.codes == code)
            middle = rows[[0, len(rows) // 2, -1]]
            stamps = pd.DatetimeIndex(evidence.times[middle].view("datetime64[us]"))
            local = stamps.tz_localize(time_zone(zone), ambiguous="NaT", nonexistent="NaT").dropna()
            clocks = {clock for stamp in local for clock in (stamp.tzname(), stamp.strftime("%z"))}
            is_right &= not len(local) or name.replace(":", "") in clocks
        if is_right:
            zones.append(zone)
    return zones


def rank_time_name(name: str) -> int:
    """Return the place of a name among those that columns of times have; the last for others."""
    folded = name.strip().casefold()
    return _TIME_NAMES.index(folded) if folded in _TIME_NAMES else len(_TIME_NAMES)


def is_time_name(name: str) -> bool:
    """Tell whether columns of times are called so."""
    return rank_time_name(name) < len(_TIME_NAMES)


def find_main_times(
    stamps: Mapping[str, Integers], columns: Sequence[Column]
) -> tuple[list[str], str]:
    """Return the column of the times that readings are taken at, and why it is that one.

    Where the cells do not tell, they are several, which are as likely, without a reason.
    """
    names = [name for name, times in stamps.items() if len(pd.unique(times[times != NO_TIME])) > 1]
    zones = {c.name: c.tz or any(_OFFSET.search(s.strip()) for s in c.sample[:1]) for c in columns}
    if len(names) < 2 or max(map(len, stamps.values())) < _MIN_ROWS:
        return [min(names or stamps, key=rank_time_name)], "contains timestamps"
    if _alternates_with_numbers(names, columns):
        main = next((n for n in names if _has_events_within_steps(n, names, stamps)), None)
        if main is not None:
            return [main], "regular; the other times are within its steps"
        return names, ""

    names = [b for b in names if not any(_ends_interval(stamps[a], stamps[b]) for a in names)]
    if len(names) == 1:
        return names, "the start of an interval"
    steps = {n: np.diff(np.unique(stamps[n][stamps[n] != NO_TIME])) for n in names}
    regular = {n: regularity_of(s, np.zeros(len(s), np.int64))[0] for n, s in steps.items()}
    names = [n for n in names if regular[n] >= max(regular.values()) - _LESS_REGULAR]
    names = [n for n in names if 2 * len(steps[n]) >= max(len(steps[m]) for m in names)]
    if len(names) == 1:
        return names, "the most regular of several timestamp columns"

    if all(_is_other_zone(stamps[names[0]], stamps[name]) for name in names):
        n_moments = {name: len(np.unique(times)) for name, times in stamps.items()}
        most = max(n_moments.values())  # a clock that is set back shows some times twice
        merits = {
            "has a UTC offset": [n for n in names if zones[n]],
            "continues when clocks are set back": [n for n in names if n_moments[n] == most],
            "its name says UTC": [n for n in names if _UTC_NAME.search(n)],
            "the other's name says local": [n for n in names if not _LOCAL_NAME.search(n)],
        }
        for reason, better in merits.items():
            if 0 < len(better) < len(names):
                return [min(better, key=rank_time_name)], reason
        return names, ""

    ordered = sorted(names, key=rank_time_name)
    if rank_time_name(ordered[0]) < rank_time_name(ordered[1]):
        return ordered[:1], "the most common name for a timestamp"
    first = [n for n in names if all(_comes_before(stamps[n], stamps[m]) for m in names)]
    return (first[:1], "is the first of the timestamps") if first else (names, "")


def _alternates_with_numbers(names: Sequence[str], columns: Sequence[Column]) -> bool:
    """Tell whether each time column has columns of numbers of its own, before or after it."""
    kinds = ["t" if c.name in names else "n" for c in timed_columns(names, columns)]
    return re.fullmatch("(tn+){2,}|(n+t){2,}", "".join(kinds)) is not None


def timed_columns(names: Collection[str], columns: Sequence[Column]) -> list[Column]:
    """Return the columns of times and of numbers, without numbers before them that are the same."""
    timed = [c for c in columns if c.name in names or c.kind == "number"]
    n_before = next((i for i, c in enumerate(timed) if c.name in names), 0)
    are_constant = all(len(c.sample) > 1 and len({*c.sample}) == 1 for c in timed[:n_before])
    return timed[n_before:] if are_constant else timed


def _has_events_within_steps(
    name: str, names: Sequence[str], stamps: Mapping[str, Integers]
) -> bool:
    """Tell whether other columns are times of events, such as maxima, within the steps of one."""
    steps = np.diff(np.unique(stamps[name][stamps[name] != NO_TIME]))
    if regularity_of(steps, 0 * steps)[1] < _REGULAR:
        return False
    for event in names:
        time, moment = _both(stamps[name], stamps[event])
        distance = moment - time
        is_far = np.abs(distance) > np.median(steps)
        n_different = len(np.unique(distance))
        if event != name and (np.mean(is_far) > _RARELY or n_different < _MIN_ROWS / 2):
            return False
    return True


def _both(first: Integers, second: Integers) -> tuple[Integers, Integers]:
    """Return the times of the rows that have both."""
    has_both = (first != NO_TIME) & (second != NO_TIME)
    return first[has_both], second[has_both]


def _ends_interval(begin: Integers, end: Integers) -> bool:
    """Tell whether a column ends the intervals that another one begins."""
    begin, end = _both(begin, end)
    if not len(begin) or (end <= begin).any():
        return False
    begins, index = np.unique(begin, return_inverse=True)
    follows = begins[1:][index[index < len(begins) - 1]] == end[index < len(begins) - 1]
    return len(follows) > 0 and float(follows.mean()) >= _REGULAR


def _is_other_zone(first: Integers, second: Integers) -> bool:
    """Tell whether two columns are the same moments on clocks of two zones."""
    first, second = _both(first, second)
    offsets = np.unique(second - first)
    is_near = bool(np.abs(offsets).max(initial=0) <= _FURTHEST_ZONES_US)
    return len(offsets) <= 2 and is_near and not (offsets % _QUARTER_US).any()


def _comes_before(first: Integers, second: Integers) -> bool:
    """Tell whether no time of one column lies after that of another in the same row."""
    first, second = _both(first, second)
    return bool((second >= first).all())
