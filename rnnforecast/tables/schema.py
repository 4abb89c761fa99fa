"""The role of each column: inferred once, stored with the model, matched with new readings."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.axis import ELAPSED, TimeAxis
from rnnforecast.errors import DataError, Location, Proposal, UsageError, option_for_each
from rnnforecast.events import Listener, Notice, WarningEvent, warn_of_names
from rnnforecast.sources.columns import Column, are_mostly, may_be_years, unit_of
from rnnforecast.sources.files import check_memory
from rnnforecast.sources.numbers import is_number
from rnnforecast.sources.sniff import shell_quote
from rnnforecast.sources.source import KEY_SEPARATOR, JoinedKey, Source
from rnnforecast.tables.evidence import (
    Evidence,
    check_units,
    count_codes,
    gather_evidence,
    pair_codes,
    time_evidence,
    with_texts_of_numbers,
)
from rnnforecast.tables.roles import (
    CONSTANT,
    MARKED,
    find_main_times,
    is_time_name,
    left_out_numbers,
    rank_keys,
    rank_time_name,
    reason_of_text,
    timed_columns,
    zones_of,
)
from rnnforecast.tables.spikes import find_bad_quality, find_signs
from rnnforecast.tables.timestamps import MAX_OFFERED_ZONES, TimestampReader
from rnnforecast.units import EPOCH_UNITS_US, EXCEL, TICKS, YEAR, join_names

_MANY_TARGETS = 2000
"""Above this, a hint says that a long table is faster to read."""
_FEWEST_DIGITS = 2
"""Digits of any time, such as of 21-Jan."""
_MANY_VALUES = 24
"""As many readings, of as many values, are not the same by chance."""
_N_LISTED, _N_SIMILAR = 20, 3
_1900_US, _MINUTE_US = -2_208_988_800_000_000, 60_000_000
_MOST_ELAPSED = 100
"""Steps after 0 at which a count of the time may begin."""
_FEWEST_COUNTS, _EVEN_SHARE = 10, 0.9
"""Least count of numbers that may be times, and the share of their steps that must be equal."""
_YEARS = 1800, 2100
"""Numbers between them, or with two digits behind, are years and months, and count no seconds."""
_RARELY = 0.01
"""Largest share of rows that are exceptions."""
_COUNTED = {EXCEL: "Excel days", TICKS: ".NET ticks"}
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
"""Soft hyphens, blanks without width, marks of direction and of byte order."""
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}


@dataclass(frozen=True)
class Covariate:
    """A covariate column."""

    name: str
    role: str
    """known (ahead), past (up to now) or static (the same for a series at all times)."""
    is_text: bool = False
    categories: tuple[str, ...] | None = None
    """Texts with a feature of their own; None for numbers, and until a table has been read."""
    base: float = 0.0
    """Value offset: what is subtracted from numbers that float32 would blur."""

    @property
    def n_features(self) -> int:
        """Number of features: of texts one per category, and one for all others."""
        return 1 if self.categories is None else len(self.categories) + 1


@dataclass(frozen=True)
class Schema:
    """The role of each column, and the grid's step: `predict` then needs no column options."""

    time: str
    series: str | None
    """The column that names the series of a long table, or several with commas; None for a wide
    one."""
    targets: tuple[str, ...]
    epoch_unit: str | None = None
    """The unit of numeric time stamps; None where they are dates."""
    step_us: int | None = None
    tz: str | None = None
    """Time zone of the stamps in readings and forecasts; None for stamps without one."""
    axis_kind: str = ELAPSED
    """How rows follow each other, as in `TimeAxis`; so do the next two."""
    stamp_offset_us: int = 0
    open_steps: tuple[int, ...] = ()
    covariates: tuple[Covariate, ...] = ()
    signed: tuple[str, ...] = ()
    """Targets of directions that go from -180 to 180 degrees; others go from 0 to 360."""
    reasons: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    """Columns, and why they have their role or none; not stored."""

    @property
    def axis(self) -> TimeAxis:
        """The axis of the rows."""
        step_us = (self.step_us or 0) if self.open_steps else 0
        return TimeAxis(self.tz, self.axis_kind, self.stamp_offset_us, step_us, self.open_steps)

    def with_axis(self, axis: TimeAxis, step_us: int) -> Schema:
        """Return the schema of readings whose rows lie on an axis at this step."""
        return replace(
            self,
            step_us=step_us,
            tz=axis.tz,
            axis_kind=axis.kind,
            stamp_offset_us=axis.offset_us,
            open_steps=axis.open_steps,
        )

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariate columns."""
        return tuple(covariate.name for covariate in self.covariates)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as the manifest stores it."""
        stored = asdict(replace(self, reasons=()))
        del stored["reasons"]
        return stored

    def series_names(self, keys: Sequence[str], target: str) -> list[str]:
        """Return the names of a target's series: one, or in a long table one for each key."""
        if self.series is None:
            return [target]
        if len(self.targets) == 1:
            return list(keys)
        return [f"{key}{KEY_SEPARATOR}{target}" for key in keys]

    def key_of(self, series: str) -> str:
        """Return the key of a long table's series by its name."""
        if len(self.targets) < 2:
            return series
        return series.removesuffix(f"{KEY_SEPARATOR}{target_of(series, self.targets)}")

    def target_of_series(self, name: str) -> str:
        """Return the target that a series is of; an empty text for an unknown one."""
        if self.series is None:
            return name
        return self.targets[0] if len(self.targets) == 1 else target_of(name, self.targets)

    @property
    def key(self) -> tuple[str, ...]:
        """The column that names the series, and where it is joined its parts."""
        return () if self.series is None else (self.series, *self.series.split(","))


def target_of(series: str, targets: Sequence[str]) -> str:
    """Return which of several targets a series of a long table is of; none is empty."""
    ends = (target for target in targets if series.endswith(f"{KEY_SEPARATOR}{target}"))
    return max(ends, key=len, default="")


def check_counters(targets: Sequence[str], config: DataConfig) -> None:
    """Raise `UsageError`, with a similar name, for a counter or an angle that is not a target."""

    def check(option: str, name: str, names: Collection[str], rule: str = "") -> None:
        if name not in names:
            nearest = next(iter([*_similar(name, targets), *targets]), None)
            hint = f"use e.g.  {option} {shell_quote(f'{nearest}{rule}')}" if nearest else None
            raise UsageError(f"{option}: there is no target {name!r}", hint=hint)

    for name in config.counter:
        check("--counter", name, targets)
    for name, rule in config.agg_by_column.items():
        names = targets if rule == ANGLE else (*targets, *config.named_columns)
        check("--agg", name, names, f"={rule}")


def check_column(
    name: str,
    columns: Iterable[str],
    source: str,
    *,
    code: str = "no-such-column",
    used: Collection[str | None] = (),
) -> None:
    """Raise `DataError` unless the column exists, with the names that look alike.

    Columns that are `used` otherwise are not suggested.
    """
    existing = list(columns)
    if name in existing:
        return
    parts = [part.strip() for part in name.split(",")]
    if code == "no-such-column" and len(parts) > 1 and set(parts) <= set(existing):
        raise DataError(
            f"{source} has no column {name!r}, but {' and '.join(map(repr, parts))}",
            code=code,
            location=Location(source, column=name),
            hint="repeat the option, once for each column",
        )

    unused = [column for column in existing if column not in used] or existing
    similar = _similar(name, unused)
    listed = ", ".join(map(repr, similar or unused[:_N_LISTED]))
    hint = f"{'columns that look alike' if similar else 'its columns are'}: {listed}"
    maps = [("--map", f"{new}={name}") for new in similar if code == "missing-column"]

    raise DataError(
        f"{source} has no column {name!r}",
        code=code,
        location=Location(source, column=name),
        proposals=[Proposal(options, "if it was renamed") for options in maps],
        hint=hint,
    )


def _similar(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of the names that look like this one, the most similar first."""
    folded = {candidate.strip().casefold(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.strip().casefold(), folded, n=_N_SIMILAR)
    return [folded[match] for match in matches]


def epoch_unit_of(time: Column, source: Source, config: DataConfig) -> str | None:
    """Return the unit of a time column of a source that holds numbers; None where it holds dates.

    Raises `DataError` for a column of neither.
    """
    if time.kind == "time" or config.time_format is not None:
        return None

    if time.kind == "number":
        unit = config.time_unit or unit_of(time)
        if unit is not None:
            return unit
        code, ways = "time-unit", _ways_to_count(time)
        numbers = f"the numbers in column {time.name!r}, such as {time.sample[0]},"
        problem = f"{numbers} do not look like Unix time"
    else:
        code, ways = "not-a-time", []
        example = f", such as {time.sample[0]!r}" if time.sample else ""
        problem = f"cannot parse column {time.name!r} as timestamps{example}"
    raise DataError(
        problem,
        code=code,
        location=Location(source.name, column=time.name),
        proposals=[*ways, *_other_times(source.columns, time)],
        hint="choose the timestamp column, or give the format of its timestamps, --time-format",
    )


def _other_times(columns: Iterable[Column], time: Column | None = None) -> list[Proposal]:
    """Return the columns but `time` that hold times, or numbers that count them, as options."""
    candidates = [column for column in columns if column is not time]
    condition = "if that is the timestamp of the readings"
    names = [c.name for c in candidates if c.kind == "time" or (c.kind == "number" and unit_of(c))]
    proposals = [Proposal(("--time", name), condition) for name in names[:_N_SIMILAR]]
    if not proposals and time is None:
        counts = (ways for c in candidates if (ways := _ways_to_count(c)))
        proposals = [proposal for ways in islice(counts, _N_SIMILAR) for proposal in ways]
    return proposals


def _ways_to_count(column: Column) -> list[Proposal]:
    """Return what numbers may count if they are times: they grow in equal steps, but not by one.

    They begin near 0: times since 1990 are recognized, and larger numbers count something else,
    perhaps years. Those below 0 have steps of whole minutes since 1900.
    """
    if may_be_years(column):
        return [Proposal(("--time", column.name, "--time-unit", YEAR), "if it counts years")]
    if column.kind != "number" or len(column.sample) < _FEWEST_COUNTS:
        return []
    numbers = np.array([float(text) for text in column.sample if is_number(text, ".")])
    numbers = numbers[np.isfinite(numbers)]  # 1e400 is a number, and no time
    steps = np.diff(numbers)
    step = float(np.median(steps)) if len(steps) else 0.0
    is_even = step > 0 and np.mean(np.abs(steps - step) <= 0.1 * step) >= _EVEN_SHARE
    if not is_even or (step == 1 and numbers[0] in (0, 1)):  # row numbers
        return []
    if numbers[0] > _MOST_ELAPSED * step:
        return []
    lengths = {unit: EPOCH_UNITS_US[unit] for unit in _UNIT_NAMES}
    if numbers[0] < 0:  # before 1970
        units = [
            unit
            for unit, length in lengths.items()
            if numbers[0] * length >= _1900_US and (step * length) % _MINUTE_US == 0
        ]
    else:
        units = [unit for unit, length in lengths.items() if step * length >= 1]
    years, months = (numbers // 100, numbers % 100) if numbers[0] > _YEARS[1] else (numbers, 1)
    if ((_YEARS[0] <= years) & (years < _YEARS[1]) & (months <= 13)).all():
        return []
    return [
        Proposal(("--time", column.name, "--time-unit", unit), f"if it counts {name} since 1970")
        for unit, name in _UNIT_NAMES.items()
        if unit in units
    ]


def infer_schema(
    source: Source, config: DataConfig, listener: Listener, *, all_rows: bool = False
) -> Schema:
    """Infer the role of each column, from the first rows or all. Raises `DataError`.

    Two roles that are equally likely are an error that names both. Columns without a role are in
    `reasons` of the schema, which say why.
    """
    columns = {column.name: column for column in source.columns}
    _check_named(source, columns, config.named_columns)
    time, time_reason = (columns[config.time], "") if config.time else choose_time(source, config)
    unit = epoch_unit_of(time, source, config)
    if unit is not None and config.time_unit is None:
        counted = _COUNTED.get(unit) or f"Unix time in {_UNIT_NAMES.get(unit, unit)}"
        listener(WarningEvent("epoch", f"column {time.name!r} read as {counted}"))

    evidence, series, series_reason = infer_key(
        source, config, time, unit, all_rows=all_rows, listener=listener
    )
    key = tuple(n for n in (series, *(series or "").split(",")) if n in evidence.columns)

    if config.time_format is None:
        _check_halves(source, time, evidence, key)

    # The targets, and numbers that are no readings
    parts = source.parts if isinstance(source, JoinedKey) else ()
    roles = {time.name, *config.known, *config.past, *config.static, *parts}
    free = [column for column in source.columns if column.name not in roles]
    check_units(evidence, source.name, key, config.named_columns)
    reasons = left_out_numbers(evidence, key, named=config.named_targets)
    numbers = [c.name for c in free if c.kind == "number" and c.name not in (series, *key)]
    readings = [name for name in numbers if name not in reasons]
    targets = config.target or tuple(readings or numbers)
    if config.series is None and key and all(evidence.columns[n].n_values == 1 for n in key):
        # One name for all rows says nothing, but it is a better name than that of a target
        is_needed = len(targets) == 1 or any(column.is_series for column in source.columns)
        series, key = (series, key) if is_needed or config.static else (None, ())
    _check_targets(source, targets, explicit=bool(config.target))
    _check_routes(source, evidence, tuple(dict.fromkeys(key)), targets, config, listener)
    check_counters(targets, config)
    unbounded = {*targets} - config.valid_ranges.keys()
    bad = find_bad_quality(evidence, key, unbounded, na_values=config.numeric_na_values)
    for warning in (*bad, *find_signs(evidence, key, targets)):
        listener(warning)
    covariates = _covariates(columns, config, series)

    # What is left out, and why
    used = {series, *key, *targets}
    unused = [column for column in free if column.name not in used]
    reasons = {
        c.name: reasons.get(c.name) or reason_of_text(c, evidence, key)
        for c in unused
        if c.kind != "empty"
    }
    empty = list({c.name if c.name.strip() else "": c for c in unused if c.kind == "empty"})
    note_roles(source.name, time.name, series, targets, listener)
    warn_of_names("empty-column", "empty, skipped", empty, listener)
    note_left_out(reasons, numbers, listener)
    pairs = (reasons | {time.name: time_reason} | dict.fromkeys(key, series_reason)).items()
    return Schema(time.name, series, targets, unit, covariates=covariates, reasons=tuple(pairs))


def _check_named(source: Source, columns: Mapping[str, Column], names: Iterable[str]) -> None:
    """Raise `DataError` where a column that the user names is missing, or holds lists."""
    for name in names:
        check_column(name, columns, source.name)
        if columns[name].kind == "nested":
            raise DataError(
                f"column {name!r} of {source.name} is nested (lists or tables in its cells)",
                code="nested",
                location=Location(source.name, column=name),
                hint="flatten it into separate columns",
            )


def _check_halves(source: Source, time: Column, evidence: Evidence, key: Sequence[str]) -> None:
    """Raise `DataError` where the hours of each day are those of a clock without AM and PM."""
    if evidence.lacks_halves(evidence.key_codes(key)):
        raise DataError(
            f"no hour is above 12 in column {time.name!r}, and hours start over within each day: "
            "AM and PM are missing",
            code="half-of-day",
            location=source.location(0, time.name),
            hint="write AM or PM behind each time; if they are hours of 24, use --time-format",
        )


def infer_key(
    source: Source,
    config: DataConfig,
    time: Column,
    unit: str | None,
    *,
    all_rows: bool,
    listener: Listener,
) -> tuple[Evidence, str | None, str]:
    """Return the evidence of columns that may be a key, the columns that name the series, and why.

    The columns are joined by commas; None where none does. Raises `DataError` for stamps whose zone
    stands in another column, and where the evidence tells no key.
    """
    parts = source.parts if isinstance(source, JoinedKey) else ()
    no_key = {time.name, *config.known, *config.past, *parts} - set(config.static)
    may_be_key = [column for column in source.columns if column.name not in no_key]
    reader = TimestampReader.of(source, Schema(time.name, None, (), unit), config)
    check_memory(source.n_rows_estimate, max(len(config.target), 1), config, source.name)
    evidence = gather_evidence(source, reader, may_be_key, all_rows=all_rows)
    if unit is None and not reader.zone.is_aware and config.tz is None:
        _check_zone_column(source, evidence, listener)
    if config.series is not None or config.id_from_columns:
        return evidence, config.series, ""

    names = {column.name for column in may_be_key} - set(config.named_targets)
    series, reason = _infer_series(source, evidence, names)
    constant = evidence.constant_numbers
    if series is None and not evidence.is_whole and (evidence.has_constant_text or constant):
        # a large table may be sorted by a key that its first rows do not show
        rows = gather_evidence(source, reader, may_be_key, all_rows=True)
        numbers = [rows.columns[name] for name in constant if name in rows.columns]
        if evidence.has_constant_text or any(map(rows.comes_together, numbers)):
            evidence = rows
            series, reason = _infer_series(source, evidence, names)
    if series is None and evidence.repeats_times:
        evidence = with_texts_of_numbers(evidence, source, reader)
        series, reason = _infer_series(source, evidence, names)
    return evidence, series, reason


def note_roles(
    source: str, time: str, series: str | None, targets: Sequence[str], listener: Listener
) -> None:
    """Report which column is the time, which one names the series, and which are the targets."""
    listed = join_names(targets, 5)
    layout = f"series named by {series!r}, target {listed}" if series else f"targets {listed}"
    listener(Notice(f"{source}: time {time!r}, {layout}"))
    if series is None and len(targets) > _MANY_TARGETS:
        hint = f"{len(targets)} columns; a long table (time, series, value) is faster to read"
        listener(Notice(hint))


def note_left_out(reasons: Mapping[str, str], numbers: Collection[str], listener: Listener) -> None:
    """Report which columns are not used, and why; of very many, the first ones.

    `numbers` are columns of numbers: where one of them never changes, that is a warning, as it may
    be a sensor. So are numbers with marks.
    """
    constant = [name for name in numbers if reasons.get(name, "").startswith(CONSTANT)]
    warn_of_names("constant-series", "never changes, skipped", constant, listener)
    marked = [name for name, reason in reasons.items() if reason.startswith(MARKED)]
    message = "numbers with other text, skipped; to forecast them, remove the text"
    warn_of_names("marked-numbers", message, marked, listener)
    if reasons:
        listed = [f"{name} ({reason})" for name, reason in reasons.items()][:_N_LISTED]
        more = f" and {len(reasons) - _N_LISTED} more" * (len(reasons) > _N_LISTED)
        listener(Notice(f"not used: {', '.join(listed)}{more}"))


def choose_time(source: Source, config: DataConfig) -> tuple[Column, str]:
    """Return the time column, by the cells and names of columns, and why. Raises `DataError`.

    Of several columns of times it is the one that readings are taken at; where the cells do not
    tell which, the error names them.
    """
    times = [c for c in source.columns if c.kind == "time"]
    if len(times) > 1:
        named = config.named_columns
        return _choose_of_times(source, [c for c in times if c.name not in named] or times, config)
    called_times = [c for c in source.columns if is_time_name(c.name)]
    if not times and (config.time_unit or config.time_format):
        times = called_times
    times = times or [c for c in called_times if c.kind == "number" and unit_of(c) is not None]
    if times:
        return min(times, key=lambda column: rank_time_name(column.name)), ""

    names = ", ".join(repr(c.name) for c in source.columns[:_N_LISTED])
    texts = [c for c in source.columns if c.kind == "text" and are_mostly(_has_digits, c.sample)]
    format_hint = ""
    if texts:
        time = max(texts, key=lambda column: len(set(column.sample)))
        example = next(filter(_has_digits, time.sample))
        format_hint = (
            f"; if {time.name!r} is the time, such as {example!r}, give --time and "
            "--time-format, such as '%d/%m/%Y %H:%M'"
        )
    raise DataError(
        f"no timestamp column found in {source.name}",
        code="no-time-column",
        location=Location(source.name),
        proposals=_other_times(source.columns),
        hint=f"its columns are {names}{format_hint}",
    )


def _has_digits(text: str) -> bool:
    """Tell whether a text has as many digits as any time, which a name of a sensor may lack."""
    return sum(map(str.isdigit, text)) >= _FEWEST_DIGITS


def _choose_of_times(
    source: Source, times: Sequence[Column], config: DataConfig
) -> tuple[Column, str]:
    """Return the one of several columns of times that the readings are of, and why."""
    readers = {
        c.name: TimestampReader.of(source, Schema(c.name, None, ()), config)
        for c in times[:_N_LISTED]
    }
    stamps = time_evidence(source, readers) or {c.name: np.zeros(0, np.int64) for c in times}
    names, reason = find_main_times(stamps, source.columns)
    if len(names) == 1:
        return next(c for c in times if c.name == names[0]), reason

    raise DataError(
        f"{join_names(list(map(repr, names)), 5)} contain timestamps, and each could be the "
        "time of the readings",
        code="several-times",
        location=Location(source.name, column=names[1]),
        proposals=[
            Proposal(("--time", name, *options), "if that is the timestamp of the readings")
            for name, options in _readings_of_times(names, source.columns).items()
        ],
    )


def _readings_of_times(
    names: Sequence[str], columns: Sequence[Column]
) -> dict[str, tuple[str, ...]]:
    """Return the options that name the numbers of each time column, where they take turns."""
    kinds = timed_columns(names, columns)
    if kinds[-1].name in names:  # the times stand after their readings
        kinds = kinds[::-1]

    options: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    owner = kinds[0].name
    for column in kinds:
        if column.name in names:
            owner = column.name
        elif owner in names:
            options[owner] += ("--target", column.name)
    return options if all(options.values()) else dict.fromkeys(names, ())


def _check_zone_column(source: Source, evidence: Evidence, listener: Listener) -> None:
    """Raise `DataError` where a column names several zones, or clocks, of stamps without one.

    Where each series has its own, that is a warning.
    """
    for name, column in evidence.columns.items():
        if not column.is_zone or column.n_values < 2 or not column.is_complete:
            continue

        if evidence.comes_together(column):  # each series has its own zone
            message = f"{name!r} names several time zones, but the timestamps of each series are "
            message += "read as its clock shows them; to convert them, write their UTC offsets"
            listener(WarningEvent("zones-of-series", message, column.n_values))
            continue
        raise DataError(
            f"column {name!r} names the time zones of the timestamps: "
            f"{', '.join(column.texts[:_N_SIMILAR])}",
            code="zone-column",
            location=Location(source.name, column=name),
            proposals=[
                Proposal(("--tz", zone), "if that is the time zone")
                for zone in zones_of(column, evidence)[:MAX_OFFERED_ZONES]
            ],
            hint="or write the offset, such as +01:00, in every timestamp",
        )


def _infer_series(
    source: Source, evidence: Evidence, names: Collection[str]
) -> tuple[str | None, str]:
    """Return the columns that name the series, joined by commas, and why; None where none does.

    `names` are the columns that may. Raises `DataError` where the evidence does not tell.
    """
    known = next((c.name for c in source.columns if c.is_series), None)
    if known is not None:
        return known, "from the folder names"
    readings = rank_keys(evidence, names)
    best = readings[0]
    if best.is_sure:
        return ",".join(best.key) or None, best.reason

    check_units(evidence, source.name, best.key)
    keys = [",".join(reading.key) for reading in readings if reading.key]
    condition = "if each of its values is a separate sensor"
    proposals = [Proposal(("--series", key), condition) for key in keys]
    if len(keys) < len(readings):
        reason = "if it is a status or a note of one sensor"
        proposals.append(Proposal(("--id-from-columns",), reason))
    raise DataError(
        f"column {' or '.join(map(repr, keys))} may or may not name the series: {best.reason}",
        code="ambiguous-roles",
        location=Location(source.name, column=best.key[0]),
        proposals=proposals,
    )


def _check_routes(
    source: Source,
    evidence: Evidence,
    key: Sequence[str],
    readings: Sequence[str],
    config: DataConfig,
    listener: Listener,
) -> None:
    """Raise `DataError` where series that differ in one part of their key have the same readings.

    They came by several routes, such as the gateways that hear a device. Where some of the
    readings are the same, or the key has one column, that is noted. A few values may be equal by
    chance.
    """
    if config.series is not None or config.id_from_columns or not evidence.repeats_times:
        return
    columns = [evidence.columns[name] for name in readings if name in evidence.columns]
    columns = [column for column in columns if column.n_values >= _MANY_VALUES]
    same: dict[str, list[str]] = {}
    for name in key:
        remaining = [part for part in key if part != name]
        moments = pair_codes(evidence.key_codes(remaining), evidence.time_codes)
        n_moments = count_codes(moments)
        if evidence.n_rows - n_moments >= max(_MANY_VALUES, _RARELY * evidence.n_rows):
            pairs = ((c.column.name, pair_codes(moments, c.codes)) for c in columns)
            same[name] = [column for column, pair in pairs if count_codes(pair) == n_moments]
    names = [name for name in same if len(same[name]) == len(readings)]
    if names and len(key) > 1:
        keys = [",".join(part for part in key if part != name) for name in names]
        raise DataError(
            f"the readings are the same for each {names[0]!r} at all times",
            code="ambiguous-roles",
            location=Location(source.name, column=names[0]),
            proposals=[
                *(Proposal(("--series", parts), "to use each of them once") for parts in keys),
                Proposal(("--series", ",".join(key)), "if each combination is a separate sensor"),
            ],
        )

    for name in names if len(key) == 1 else same:
        if same[name]:
            listed = join_names(same[name], 5)
            listener(Notice(f"the same for each {name!r} at all times: {listed}"))


def _covariates(
    columns: dict[str, Column], config: DataConfig, series: str | None
) -> tuple[Covariate, ...]:
    """Return the covariates that the user names. Raises `UsageError` for a kind without a role."""
    if config.static and series is None:
        used = config.named_columns
        names = [c.name for c in columns.values() if c.kind == "text" and c.name not in used]
        raise UsageError(
            "--static needs a long table with --series",
            proposals=[
                Proposal(("--series", name), f"if {name!r} names the series")
                for name in names[:_N_SIMILAR]
            ],
            hint="the table has only one series" if not names else None,
        )
    for name in config.categorical:
        if name not in (*config.known, *config.past, *config.static):
            raise UsageError(
                f"--categorical {name!r} has no role",
                proposals=[
                    Proposal(("--past", name), "if it is known only up to the present"),
                    Proposal(("--known", name), "if it is known in advance"),
                ],
            )

    roles = {"known": config.known, "past": config.past, "static": config.static}
    return tuple(
        Covariate(name, role, is_text=columns[name].kind != "number" or name in config.categorical)
        for role, names in roles.items()
        for name in names
    )


def _check_targets(source: Source, targets: tuple[str, ...], *, explicit: bool) -> None:
    """Raise `DataError` for no target, and for one without numbers."""
    if not targets:
        raise DataError(
            f"{source.name} has no numeric column to forecast",
            code="no-target",
            location=Location(source.name),
            proposals=[p for c in source.columns for p in _ways_to_numbers(c)],
            hint=_hint_for_text(source),
        )

    by_name = {c.name: c for c in source.columns}
    for name in targets:
        column = by_name[name]
        if explicit and column.kind != "number":
            problem = "is empty" if column.kind == "empty" else "is not numeric"
            example = f": {column.sample[0]!r}" if column.sample else ""
            raise DataError(
                f"the target {name!r} {problem}{example}",
                code="target-not-numeric",
                location=Location(source.name, column=name),
                proposals=_ways_to_numbers(column),
                hint="choose a numeric column",
            )


def _ways_to_numbers(column: Column) -> list[Proposal]:
    """Return the options with which a column of text may hold numbers.

    They are written with another decimal mark, or stand between a few texts for missing ones.
    """
    cells = column.sample if column.kind == "text" else ()
    marks = [mark for mark in ".," if any(is_number(cell, mark) for cell in cells)]
    proposals = []
    for mark in marks:
        texts = {cell: None for cell in cells if not is_number(cell, mark)}
        if len(texts) <= _N_SIMILAR:
            options = () if texts and mark == "." else ("--decimal", mark)
            conditions = [f"{mark!r} is the decimal mark"] if options else []
            if texts:
                listed = " and ".join(map(repr, texts))
                conditions.append(f"{listed} mean{'s' * (len(texts) == 1)} missing")
            missing = option_for_each("--na-values", texts)
            proposals.append(Proposal((*options, *missing), f"if {', and '.join(conditions)}"))
    return proposals


def _hint_for_text(source: Source) -> str:
    """Return a hint that shows a cell of a column of text."""
    text = next((c for c in source.columns if c.kind == "text" and c.sample), None)
    if text is None:
        return "a column to forecast must be numeric"
    return f"a column to forecast must be numeric, but {text.name!r} contains {text.sample[0]!r}"


def canonical_name(name: str) -> str:
    """Return whole numbers without leading zeros and `.0`; any other part of a name stripped."""
    parts = [part.strip() for part in visible_name(name).split(KEY_SEPARATOR)]
    matches = [re.fullmatch(r"0*(\d+)(?:\.0*)?", part) for part in parts]
    pairs = zip(matches, parts, strict=True)
    return KEY_SEPARATOR.join(match[1] if match else part for match, part in pairs)


def visible_name(name: str) -> str:
    """Return a name without invisible characters, and with letters and their accents joined."""
    return name if name.isascii() else unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
