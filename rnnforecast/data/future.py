"""What is known of the future: rows of a second file, and whether a forecast has all it needs.

Between `plan`, which reads that file, and `newer`, which reads for a trained model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data.naming import canonical
from rnnforecast.data.panel import Integers
from rnnforecast.data.past import Past
from rnnforecast.data.plan import Plan, read_plan
from rnnforecast.data.schema import Schema, check_column
from rnnforecast.data.stamps import format_stamp
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.places.remote import Place
from rnnforecast.sources.columns import Column
from rnnforecast.sources.reading import Source, WrappedSource

_SHOWN = 3
_BATCH_ROWS = 1 << 20


@dataclass(frozen=True)
class WithFuture(WrappedSource):
    """A source whose rows are followed by those of a plan, which has fewer columns."""

    plan: Plan
    time: str
    series: str | None
    listener: Listener
    used: list[Plan] = field(default_factory=list)
    """What of the plan the last reading gave: rows of series that have readings."""

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return (*self.source.paths, *self.plan.source.paths)

    @property
    def n_rows_about(self) -> int:
        """How many rows both have."""
        return self.source.n_rows_about + int(self.plan.table.num_rows)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the readings."""
        return self.source.columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read both, one after the other; what the plan lacks is missing there."""
        names: set[str] = set()
        for batch in self.source.batches(wanted):
            if self.series is not None:
                names.update(pc.unique(batch.column(self.series)).to_pylist())
            yield batch
        plan = self.plan
        if self.series is not None:
            plan = _only_series(plan, self.series, names, self.listener)
        self.used[:] = [plan]
        for batch in plan.table.to_batches(max_chunksize=_BATCH_ROWS):
            there = {name: batch.column(name) for name in batch.schema.names}
            columns = [there.get(n, pa.nulls(batch.num_rows, t)) for n, t in wanted.items()]
            yield pa.RecordBatch.from_arrays(columns, names=list(wanted))

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and the line."""
        names = {one.name: pa.string() for one in self.source.columns if one.name == column}
        n_rows = sum(batch.num_rows for batch in self.source.batches(names))
        if row < n_rows:
            return self.source.location(row, column)
        return self.used[0].location(row - n_rows, column, is_time=column == self.time)

    def rejected(self) -> list[Location]:
        """Gather them from both."""
        return [*self.source.rejected(), *self.plan.source.rejected()]


def with_future(
    source: Source, future: object, schema: Schema, options: DataConfig, listener: Listener
) -> Source:
    """Let the rows of a second file follow. Raises `DataError` where it lacks a column.

    It must have the time, the series of a long table, and what is known ahead; its readings of
    anything else are not used.
    """
    time, series = options.time or schema.time, options.series or schema.series
    columns = {column.name: column for column in source.columns}
    check_column(time, columns, source.name, code="missing-column")
    wanted = replace(schema, time=time, series=series)
    plan = read_plan(future, columns[time], wanted, options, listener)
    return WithFuture(source, plan, time, series, listener)


def plan_of(source: Source) -> Plan | None:
    """Return the plan whose rows ended the last reading of a source; None where it has none."""
    return source.used[0] if isinstance(source, WithFuture) and source.used else None


def _only_series(plan: Plan, series: str, names: set[str], listener: Listener) -> Plan:
    """Keep the rows of series that have readings; `names` are these. The others are named.

    One whose name is another writing of the same number goes by the name of the readings.
    """
    encoded = plan.table.column(series).combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    own = _by_number(names) if not names.issuperset(texts) else {}
    called = [text if text in names else own.get(canonical(text), text) for text in texts]
    strangers = [new for new in called if new and new not in names]
    renamed = [(text, new) for text, new in zip(texts, called, strict=True) if text != new]
    if renamed:
        what = f"{renamed[0][0]!r} of {plan.source.name} is taken for {renamed[0][1]!r}"
        listener(Warned("names-written-otherwise", f"{what}, and so on", len(renamed)))
    if not strangers and not renamed:
        return plan
    if strangers:
        what = f"series of {plan.source.name} without readings, not used"
        listener(Warned.naming("future-only-series", what, strangers))
    new = pa.DictionaryArray.from_arrays(encoded.indices, pa.array(called, pa.string()))
    column = new.dictionary_decode()
    place = plan.table.schema.get_field_index(series)
    table = plan.table.set_column(place, series, column)
    kept = pc.invert(pc.is_in(column, pa.array(strangers, pa.string())))
    rows: Integers = plan.rows[kept.to_numpy(zero_copy_only=False)]
    return replace(plan, table=table.filter(kept), rows=rows)


def _by_number(names: set[str]) -> dict[str, str]:
    """Return names by the number that they write, but those that share one."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(canonical(name), []).append(name)
    return {number: alike[0] for number, alike in found.items() if len(alike) == 1}


def check_known_ahead(
    past: Past, horizon: int, tz: str | None, *, needed: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """`(origin,)`: which origins lack a value, over the horizon, of what must be known ahead.

    `needed` are the origins that the network is to forecast, by default all. One of them that ended
    before the others is to be left out, or left to a fallback. Raises `DataError`, with the stamps,
    where one that did not lacks a value.
    """
    if needed is None:
        needed = np.ones(past.n_origins, np.bool_)
    features = past.features(1, horizon)
    if not past.n_features[0] or features is None or not needed.any():
        return np.zeros(past.n_origins, np.bool_)
    unknown = np.isnan(features.known[:, :, 1:])  # (origin, feature, lead)
    lacks: NDArray[np.bool_] = unknown.any((1, 2)) & needed
    is_newest = past.cutoff_time == past.cutoff_time[needed].max()
    open_origins = np.flatnonzero(lacks & is_newest)
    if len(open_origins):
        raise _not_known(past, unknown[open_origins[0]], open_origins, tz)
    return lacks


def _not_known(
    past: Past, unknown: NDArray[np.bool_], origins: Integers, tz: str | None
) -> DataError:
    """Name the first of these origins, and what is unknown there, `(feature, lead)`."""
    origin, horizon = origins[0], unknown.shape[1]
    feature = int(np.argmax(unknown.any(1)))
    leads = np.flatnonzero(unknown[feature]) + 1
    column = past.known_names[feature].partition("=")[0]
    times = past.cutoff_time[origin] + leads * past.step_us
    shown = ", ".join(format_stamp(int(time), tz) for time in times[:_SHOWN])
    more = f", ... ({len(times)} of {horizon})" if len(times) > _SHOWN else ""
    others = f"; {len(origins) - 1} more series lack values, too" if len(origins) > 1 else ""
    return DataError(
        f"{column!r} is not known for {past.names[past.series[origin]]!r} at {shown}{more}{others}",
        code="missing-future",
        hint="add rows with these stamps below the last reading, without readings, or pass them in "
        "a second file with  --future FILE",
    )
