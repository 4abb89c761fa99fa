"""What each column is for, as it is stored with a model, and found again in newer tables.

Below `inference`, which decides it the first time.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.sources.columns import Column, epoch_unit
from rnnforecast.sources.dialect import quote
from rnnforecast.sources.reading import Source


@dataclass(frozen=True)
class Covariate:
    """A column that stands beside the readings."""

    name: str
    role: str
    """known (ahead), past (up to now) or static (the same for a series at all times)."""
    is_text: bool = False
    categories: tuple[str, ...] | None = None
    """The texts that are told apart; None for numbers, and until a table has been read."""
    base: float = 0.0
    """What is subtracted from numbers that float32 would blur."""

    @property
    def n_features(self) -> int:
        """How many features it becomes: of texts one for each, and one for all others."""
        return 1 if self.categories is None else len(self.categories) + 1


@dataclass(frozen=True)
class Schema:
    """What each column is for, and the grid's step: `predict` then needs no column options."""

    time: str
    series: str | None
    """The column that names the series of a long table; None for a wide one."""
    targets: tuple[str, ...]
    epoch_unit: str | None = None
    """The unit of numeric time stamps; None where they are dates."""
    step_us: int | None = None
    tz: str | None = None
    """The zone that stamps carry in and out; None for stamps without one."""
    covariates: tuple[Covariate, ...] = ()

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """The columns that stand beside the readings."""
        return tuple(covariate.name for covariate in self.covariates)

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest stores."""
        return asdict(self)


def match_schema(source: Source, schema: Schema, config: DataConfig) -> Schema:
    """Find a stored schema's columns in a source, by name; other columns and orders do not matter.

    Columns that the user names now win. Raises `DataError` for one that is missing.
    """
    columns = {column.name: column for column in source.columns}
    wanted = replace(
        schema,
        time=config.time or schema.time,
        series=config.series or schema.series,
        targets=config.target or schema.targets,
    )
    names = (wanted.time, wanted.series, *wanted.targets, *wanted.covariate_names)
    for name in names:
        if name is not None:
            check_column(name, columns, source.name, code="missing-column", taken=names)
    unit = epoch_unit_of(columns[wanted.time], source.name, config)
    return replace(wanted, epoch_unit=unit)


def check_zone(schema: Schema, trained: Schema) -> None:
    """Raise `DataError` if only these stamps, or only the model's, carry a zone."""
    if (schema.tz is None) == (trained.tz is None):
        return
    if schema.tz is None:
        raise DataError(
            f"the model was trained on stamps with a zone ({trained.tz}), but these have none",
            code="other-zone",
            hint=f"say which zone they are in, such as  --tz {trained.tz}",
        )
    raise DataError(
        f"the model was trained on stamps without a zone, but these have one ({schema.tz})",
        code="other-zone",
        hint="write the stamps without an offset, or train again on stamps that have one",
    )


def check_counters(targets: Sequence[str], config: DataConfig) -> None:
    """Raise `UsageError`, with the names that look alike, for a counter that is no target."""
    for name in config.counter:
        if name not in targets:
            shown = [*_alike(name, targets), *targets][:1]
            raise UsageError(
                f"--counter names {name!r}, but there is no such target",
                hint=f"such as  --counter {quote(shown[0])}" if shown else None,
            )


def check_column(
    name: str,
    columns: Iterable[str],
    source: str,
    *,
    code: str = "no-such-column",
    taken: Collection[str | None] = (),
) -> None:
    """Raise `DataError` unless the column is there, with the names that look alike.

    Those that are `taken` are columns of their own, and not meant.
    """
    there = list(columns)
    if name in there:
        return
    there = [column for column in there if column not in taken] or there
    near = _alike(name, there)
    listed = ", ".join(map(repr, near or there[:20]))
    hint = f"{'columns that look alike' if near else 'its columns are'}: {listed}"
    if near and code == "missing-column":
        hint += f" ; if it has another name now, add  --map {quote(f'{near[0]}={name}')}"
    raise DataError(
        f"{source} has no column {name!r}",
        code=code,
        location=Location(source, column=name),
        hint=hint,
    )


def _alike(name: str, there: Sequence[str]) -> list[str]:
    """Return up to three of the names that look like this one, the nearest first."""
    folded = {column.strip().casefold(): column for column in there}
    return [folded[n] for n in difflib.get_close_matches(name.strip().casefold(), folded, n=3)]


def unit_of(column: Column) -> str | None:
    """Return the one unit in which a column's numbers are times of our days; None without one."""
    try:
        return epoch_unit([float(text) for text in column.sample])
    except ValueError:
        return None


def epoch_unit_of(time: Column, source: str, config: DataConfig) -> str | None:
    """Return the unit of a time column that holds numbers, None where it holds dates.

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
        shown = f", such as {time.sample[0]!r}" if time.sample else ""
        raise DataError(
            f"column {time.name!r} holds no times{shown}",
            code="not-a-time",
            location=Location(source, column=time.name),
            hint="name the time column with  --time COLUMN",
        )
    return unit
