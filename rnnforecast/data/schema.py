"""The role of each column: inferred once, stored with the model, matched with new readings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.data.axis import ELAPSED, TimeAxis
from rnnforecast.errors import DataError, Location, Proposal, UsageError
from rnnforecast.events import Listener, Notice, WarningEvent
from rnnforecast.sources.columns import Column, infer_epoch_unit, is_integer
from rnnforecast.sources.numbers import is_number
from rnnforecast.sources.sniff import shell_quote
from rnnforecast.sources.source import Source
from rnnforecast.units import EXCEL, join_names

_TIME_NAMES = ("timestamp", "time", "datetime", "date", "ds", "ts", "date_time", "utc")
_SERIES_NAMES = (
    "series", "series_id", "unique_id", "item_id", "id", "name", "sensor", "sensor_id", "machine",
    "machine_id", "device", "device_id", "station", "station_id", "tag", "unit", "asset", "channel",
)  # fmt: skip
_MANY_TARGETS = 2000
"""Above this, a hint says that a long table is faster to read."""
_N_LISTED, _N_SIMILAR = 20, 3
_ROW_NUMBER_NAMES = (
    "", "#", "no", "no.", "nr", "nr.", "index", "idx", "row", "row_id", "row_number", "rownum",
    "record", "unnamed: 0",
)  # fmt: skip


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
    """The column that names the series of a long table; None for a wide one."""
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

    @property
    def axis(self) -> TimeAxis:
        """The axis of the rows."""
        step_us = (self.step_us or 0) if self.open_steps else 0
        return TimeAxis(self.tz, self.axis_kind, self.stamp_offset_us, step_us, self.open_steps)

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariate columns."""
        return tuple(covariate.name for covariate in self.covariates)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as the manifest stores it."""
        return asdict(self)


def match_schema(source: Source, schema: Schema, config: DataConfig) -> Schema:
    """Find the columns of a stored schema in a source by name; others, and the order, are ignored.

    Columns that the user names win. Raises `DataError` for one that is missing.
    """
    columns = {column.name: column for column in source.columns}
    matched = replace(
        schema,
        time=config.time or schema.time,
        series=config.series or schema.series,
        targets=config.target or schema.targets,
    )
    names = (matched.time, matched.series, *matched.targets, *matched.covariate_names)
    for name in names:
        if name is not None:
            check_column(name, columns, source.name, code="missing-column", used=names)

    unit = epoch_unit_of(columns[matched.time], source.name, config)
    return replace(matched, epoch_unit=unit)


def check_zone(schema: Schema, trained: Schema) -> None:
    """Raise `DataError` if only these stamps, or only the model's, carry a zone."""
    if (schema.tz is None) == (trained.tz is None):
        return

    if schema.tz is None:
        raise DataError(
            f"the model was trained on stamps with a zone ({trained.tz}), but these have none",
            code="other-zone",
            proposals=[Proposal(("--tz", trained.tz or "UTC"), "if they are in that zone")],
        )
    raise DataError(
        f"the model was trained on stamps without a zone, but these have one ({schema.tz})",
        code="other-zone",
        hint="write the stamps without an offset, or train again on stamps that have one",
    )


def check_counters(targets: Sequence[str], config: DataConfig) -> None:
    """Raise `UsageError`, with a similar name, for a counter or an angle that is not a target."""
    for name in config.counter:
        if name not in targets:
            suggestions = [*_similar(name, targets), *targets]
            hint = f"such as  --counter {shell_quote(suggestions[0])}" if suggestions else None
            raise UsageError(f"--counter names {name!r}, but there is no such target", hint=hint)
    for name, rule in config.agg_by_column.items():
        if name not in (targets if rule == ANGLE else (*targets, *config.named_columns)):
            suggestions = [*_similar(name, targets), *targets]
            hint = f"such as  --agg {shell_quote(f'{suggestions[0]}={rule}')}" if targets else None
            raise UsageError(f"--agg names {name!r}, but there is no such target", hint=hint)


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
    unused = [column for column in existing if column not in used] or existing
    similar = _similar(name, unused)
    listed = ", ".join(map(repr, similar or unused[:_N_LISTED]))
    hint = f"{'columns that look alike' if similar else 'its columns are'}: {listed}"
    maps = [("--map", f"{new}={name}") for new in similar if code == "missing-column"]

    raise DataError(
        f"{source} has no column {name!r}",
        code=code,
        location=Location(source, column=name),
        proposals=[Proposal(options, "if it has another name now") for options in maps],
        hint=hint,
    )


def _similar(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of the names that look like this one, the most similar first."""
    folded = {candidate.strip().casefold(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.strip().casefold(), folded, n=_N_SIMILAR)
    return [folded[match] for match in matches]


def unit_of(column: Column) -> str | None:
    """Return the only unit in which a column's numbers are times between 1990 and 2100, or None."""
    try:
        return infer_epoch_unit([float(text) for text in column.sample])
    except ValueError:
        return None


def epoch_unit_of(time: Column, source: str, config: DataConfig) -> str | None:
    """Return the unit of a time column that holds numbers; None where it holds dates.

    Raises `DataError` for a column of neither.
    """
    if time.kind == "time" or config.time_format is not None:
        return None

    unit = (config.time_unit or unit_of(time)) if time.kind == "number" else None
    if unit is None and time.kind == "number":
        raise DataError(
            f"column {time.name!r} holds numbers, such as {time.sample[0]}, and no unit alone makes"
            " them times between 1990 and 2100",
            code="time-unit",
            location=Location(source, column=time.name),
            hint="say what they count since 1970, such as  --time-unit s , or name the time column "
            "with  --time COLUMN",
        )
    if unit is None:
        example = f", such as {time.sample[0]!r}" if time.sample else ""
        raise DataError(
            f"column {time.name!r} holds no times{example}",
            code="not-a-time",
            location=Location(source, column=time.name),
            hint="name the time column with  --time COLUMN",
        )
    return unit


def infer_schema(source: Source, config: DataConfig, listener: Listener) -> Schema:
    """Infer the role of each column. Raises `DataError` where it cannot be inferred."""
    columns = {column.name: column for column in source.columns}
    for name in config.named_columns:
        check_column(name, columns, source.name)
        if columns[name].kind == "nested":
            raise DataError(
                f"column {name!r} of {source.name} is nested: its cells are lists or tables",
                code="nested",
                location=Location(source.name, column=name),
                hint="write what they hold into columns of their own",
            )

    covariate_names = (*config.known, *config.past, *config.static)
    time = columns[config.time] if config.time else infer_time(source, config)
    unit = epoch_unit_of(time, source.name, config)
    if unit is not None and config.time_unit is None:
        counted = "days of Excel" if unit == EXCEL else f"{unit} since 1970"
        listener(WarningEvent("epoch", f"column {time.name!r} is read as {counted}"))

    free = [column for column in source.columns if column.name not in (time.name, *covariate_names)]
    series = None if config.id_from_columns else config.series or _infer_series(free, time)
    targets = config.target or tuple(
        column.name
        for column in free
        if column.kind == "number" and column.name != series and not _is_row_number(column)
    )
    _check_targets(source, targets, series, explicit=bool(config.target))
    check_counters(targets, config)
    covariates = _covariates(columns, config, series)

    listed = join_names(targets, 5)
    layout = f"series named by {series!r}, target {listed}" if series else f"targets {listed}"
    listener(Notice(f"{source.name}: time {time.name!r}, {layout}"))
    if series is None and len(targets) > _MANY_TARGETS:
        hint = f"{len(targets)} columns: a long table (time, series, value; --series names the "
        listener(Notice(hint + "second) takes less time to read"))
    used = {series, *targets}
    unused = [c for c in free if c.name not in used]
    empty = [c.name for c in unused if c.kind == "empty"]
    if empty:
        listener(WarningEvent.for_names("empty-column", "empty, left out", empty))
    ignored = [c.name for c in unused if c.kind != "empty"]
    if ignored:
        listener(Notice(f"not used: {', '.join(ignored)}"))
    return Schema(time.name, series, targets, unit, covariates=covariates)


def infer_time(source: Source, config: DataConfig) -> Column:
    """Return the time column, by the cells and names of columns. Raises `DataError`."""

    def rank(column: Column) -> int:
        name = column.name.strip().casefold()
        return _TIME_NAMES.index(name) if name in _TIME_NAMES else len(_TIME_NAMES)

    times = [c for c in source.columns if c.kind == "time"]
    if not times and (config.time_unit or config.time_format):
        times = [c for c in source.columns if rank(c) < len(_TIME_NAMES)]
    times = times or [
        c
        for c in source.columns
        if c.kind == "number" and rank(c) < len(_TIME_NAMES) and unit_of(c) is not None
    ]
    if times:
        return min(times, key=rank)

    names = ", ".join(repr(c.name) for c in source.columns[:_N_LISTED])
    raise DataError(
        f"no time column was found in {source.name}",
        code="no-time-column",
        location=Location(source.name),
        hint=f"name it with  --time COLUMN ; the columns are {names}",
    )


def _infer_series(columns: Sequence[Column], time: Column) -> str | None:
    """Return a text column with a usual name, an id, or a text that tells repeated stamps apart.

    `columns` are those without a role.
    """
    texts = [c for c in columns if c.kind == "text"]
    candidates = [c for c in columns if c.is_series]
    candidates += [c for c in texts if c.name.strip().casefold() in _SERIES_NAMES]
    candidates += [c for c in columns if c.kind == "number" and _is_id(c)]
    if candidates:
        return candidates[0].name
    if len(set(time.sample)) == len(time.sample):
        return None

    for column in texts:
        pairs = list(zip(time.sample, column.sample, strict=False))
        if len(column.sample) == len(time.sample) and len(set(pairs)) == len(pairs):
            return column.name
    return None


def _is_id(column: Column) -> bool:
    """Tell whether a column of whole numbers is called an id and repeats, as sensors' do."""
    name = column.name.strip().casefold()
    return (
        (name == "id" or name.endswith("_id"))
        and all(text.strip().isdigit() for text in column.sample)
        and len(set(column.sample)) < max(2, len(column.sample))
    )


def _covariates(
    columns: dict[str, Column], config: DataConfig, series: str | None
) -> tuple[Covariate, ...]:
    """Return the covariates that the user names. Raises `UsageError` for a kind without a role."""
    if config.static and series is None:
        raise UsageError(
            "--static needs a table with a column that names the series",
            hint="name it with  --series COLUMN",
        )
    for name in config.categorical:
        if name not in (*config.known, *config.past, *config.static):
            raise UsageError(
                f"--categorical {name} needs --known, --past or --static for the same column"
            )

    roles = {"known": config.known, "past": config.past, "static": config.static}
    return tuple(
        Covariate(name, role, is_text=columns[name].kind != "number" or name in config.categorical)
        for role, names in roles.items()
        for name in names
    )


def _is_row_number(column: Column) -> bool:
    """Tell whether a column numbers the rows: by its name, and each number is one more."""
    if column.name.strip().casefold() not in _ROW_NUMBER_NAMES:
        return False
    texts = [text.strip() for text in column.sample]
    if not all(is_integer(text) and len(text) < 16 for text in texts):
        return False
    numbers = list(map(int, texts))
    return all(b - a == 1 for a, b in pairwise(numbers))


def _check_targets(
    source: Source, targets: tuple[str, ...], series: str | None, *, explicit: bool
) -> None:
    """Raise `DataError` for no target, several ones of a long table, and one without numbers."""
    if not targets:
        raise DataError(
            f"{source.name} has no numeric column to forecast",
            code="no-target",
            location=Location(source.name),
            hint=_hint_for_text(source),
        )
    if series is not None and len(targets) > 1:
        raise DataError(
            f"a table with a series column has one target, but {', '.join(map(repr, targets))} "
            "are numeric",
            code="several-targets",
            location=Location(source.name),
            hint=f"name the one to forecast, such as  --target {targets[0]}",
        )

    by_name = {c.name: c for c in source.columns}
    for name in targets:
        column = by_name[name]
        if explicit and column.kind != "number":
            problem = "is empty" if column.kind == "empty" else "does not hold numbers"
            example = f": {column.sample[0]!r}" if column.sample else ""
            raise DataError(
                f"the target {name!r} {problem}{example}",
                code="target-not-numeric",
                location=Location(source.name, column=name),
                hint="choose a numeric column, or name what means missing with  --na-values",
            )


def _hint_for_text(source: Source) -> str:
    """Return a hint that shows a cell of a column that may hold numbers, written otherwise."""
    texts = [c for c in source.columns if c.kind == "text" and c.sample and c.sample[0]]
    for column in texts:
        cell = column.sample[0]
        if is_number(cell, ","):
            return (
                f"{column.name!r} holds {cell!r}: if the comma is a decimal mark, add  --decimal ,"
            )
        if is_number(re.sub("[.,' ]", "", cell), "."):
            return f"{column.name!r} holds {cell!r}: write numbers without thousands separators"

    text = next((c for c in source.columns if c.kind == "text" and c.sample), None)
    if text is None:
        return "a column to forecast must hold numbers"
    return f"a column to forecast must hold numbers, but {text.name!r} holds {text.sample[0]!r}"


def canonical_name(name: str) -> str:
    """Return a whole number without leading zeros and `.0`; any other name stripped."""
    match = re.fullmatch(r"0*(\d+)(?:\.0*)?", name.strip())
    return match[1] if match else name.strip()
