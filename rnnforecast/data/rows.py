"""All rows of a source, in its own order, as flat chunks: time, which series, readings.

Between `reading`, which gives Arrow batches, and `placing`, which finds each row's place.
A chunk is dropped as soon as it has been placed, so that the readings are held twice only for a
moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.data.future import plan_of
from rnnforecast.data.growing import Growing
from rnnforecast.data.memory import check_memory
from rnnforecast.data.panel import Doubles, Floats, Integers
from rnnforecast.data.rowcolumns import CovariateColumns, SeriesColumn, TargetColumns
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import StampReader
from rnnforecast.data.stamptexts import REPAIRS
from rnnforecast.data.wallclock import localise
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Progressed, Warned
from rnnforecast.sources.badrows import report_skipped
from rnnforecast.sources.dialect import quote
from rnnforecast.sources.filestates import watching
from rnnforecast.sources.reading import Source


@dataclass
class Rows:
    """All rows of a source as flat chunks, in the order of the file."""

    times: list[Integers]
    codes: list[NDArray[np.integer]]
    """Which series each row belongs to; all 0 for a wide table."""
    values: list[list[Floats]]
    """One list of chunks for each target, less the base."""
    base: list[Doubles]
    """For each target, `(series,)`: one for a wide table."""
    names: list[str]
    covariates: dict[str, list[Floats]] = field(default_factory=dict)
    """The chunks of each covariate; of texts their numbers."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """The texts of each covariate that holds such, in order of appearance."""
    plan: str = ""
    """What messages call the plan whose rows come last."""
    n_planned: int = 0
    """How many rows of a plan there are."""

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.times))

    @property
    def n_series(self) -> int:
        """How many series the codes tell apart."""
        return len(self.base[0])


def read_rows(
    source: Source,
    schema: Schema,
    config: DataConfig,
    listener: Listener,
    *,
    known_base: Mapping[str, float],
) -> tuple[Rows, str | None]:
    """Read the columns that a schema names; return them with the zone that the stamps carry.

    `known_base` is what a model subtracts from the series that it knows. Raises `DataError` for a
    reading that is not finite.
    """
    stamps, times = StampReader.of(source, schema, config), Growing(np.int64)
    series = SeriesColumn(schema.series, source)
    targets = TargetColumns(schema.targets, source, config)
    beside = CovariateColumns(schema.covariates, source, config)
    wanted = {schema.time: stamps.arrow_type, **series.wanted, **targets.wanted, **beside.wanted}
    n_rows = 0
    for batch in _watched(source, wanted, schema, config, listener):
        times.append(stamps.read(batch.column(schema.time), n_rows))
        for columns in (series, targets, beside):
            columns.append(batch, n_rows)
        n_rows += batch.num_rows
    report_skipped(source.rejected(), n_rows, config, listener)
    targets.warn_of_lost_digits(listener)
    for code, count in stamps.repairs.items():
        what = f"{REPAIRS[code]} ({count} stamp{'s' * (count > 1)})"
        listener(Warned(code, what, count))
    names = series.names if schema.series else list(schema.targets)
    own = {name: names if schema.series else [name] for name in schema.targets}
    when, codes = times.chunks(), series.chunks()
    values, base = targets.chunks(when, codes, own, known_base)
    rows = Rows(when, codes, values, base, names, beside.chunks(), beside.texts)
    plan = plan_of(source)
    if plan is not None:
        rows.plan, rows.n_planned = plan.source.name, len(plan.rows)
    return rows, _localised(rows, stamps, config.tz)


def _localised(rows: Rows, stamps: StampReader, tz: str | None) -> str | None:
    """Read wall-clock times in the zone that the user names, in place; return the zone of all."""
    if tz is None or stamps.zone.is_aware:
        return stamps.zone.name
    locate = partial(stamps.source.location, column=stamps.schema.time)
    n_instants = sum(stamps.instants)
    rows.times = localise(rows.times, rows.codes, tz, locate, n_instants=n_instants)
    return tz


def _watched(
    source: Source,
    wanted: dict[str, pa.DataType],
    schema: Schema,
    config: DataConfig,
    listener: Listener,
) -> Iterator[pa.RecordBatch]:
    """Read batches while files, memory and progress are watched."""
    n_rows, n_about = 0, source.n_rows_about
    n_columns = len(schema.targets) + len(schema.covariates)
    check_memory(n_about, n_columns, config, source.name)
    listener(_progress(0, n_about))
    with watching(source.paths, listener):
        try:
            for batch in source.batches(wanted):
                yield batch
                n_rows += batch.num_rows
                check_memory(n_rows, n_columns, config, source.name)
                listener(_progress(n_rows, n_about))
        except DataError as error:
            column = error.location and error.location.column
            is_settled = schema.step_us is not None  # a model knows which columns are names
            if error.code == "not-a-number" and column in schema.covariate_names and not is_settled:
                error.hint = f"if its values are names, add  --categorical {quote(str(column))} ; "
                error.hint += "else name what means missing with  --na-values"
            raise
    listener(_progress(n_rows, n_rows))


def _progress(n_rows: int, n_about: int) -> Progressed:
    return Progressed("reading", n_rows, max(n_rows, n_about), "rows")
