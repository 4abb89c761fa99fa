"""The ledger of issued forecasts, and their scores."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet

from rnnforecast.config.commands import (
    DEFAULT_LEDGER,
    ScoreConfig,
    check_option_names,
    names_of_options,
    set_options,
)
from rnnforecast.config.fields import to_json
from rnnforecast.config.job import JOB, Job, belongs_to, describe_owner, read_job
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import BUILTIN_MODEL, DEFAULT_MODEL
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import (
    DataError,
    Location,
    NotEnoughDataError,
    Proposal,
    QualityGateError,
    UsageError,
)
from rnnforecast.evaluate.live import IN_SAMPLE, SCORED_COLUMNS, Score, score_issues
from rnnforecast.events import Listener, Recorder, WarningEvent, ignore
from rnnforecast.process import open_regular
from rnnforecast.sources.files import as_table, check_fits
from rnnforecast.storage.durable import publishing_file, remove_file
from rnnforecast.storage.publish import publish
from rnnforecast.storage.remote import local_path, read_json
from rnnforecast.tables.match import newest_reading
from rnnforecast.units import parse_duration_us
from rnnforecast.workflow.model import Model, as_model, load, read_with_model, training_data

if TYPE_CHECKING:
    from rnnforecast.config.keywords import ScoreOptions, ScoringOptions

STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}(?:_[0-9]{6})?Z?"
"""A regular expression of the as-of time in names of files, as `format_for_file_name` writes it."""
KEY_LENGTH = 16
"""Hexadecimal digits of a run's key in the name of its part."""
_NAME = re.compile(rf"({STAMP})_([0-9]{{4,9}})_([0-9a-f]{{{KEY_LENGTH}}})\.parquet")
OWNER_FILE, _OWNER_FORMAT = "job.json", "rnnforecast-ledger"
"""File of a ledger that says to which job it belongs."""
_BYTES_PER_ROW, _BYTES_PER_POOLED_ROW = 250, 640
"""Memory that a value takes while it is scored: by series, or all series together. Measured."""
ISSUE = "issue"
"""Name of the column that `read_parts` adds: the position of a row's part in the order of issue."""


@dataclass(frozen=True, order=True)
class LedgerPart:
    """The forecast that one run has issued, as a file of the ledger."""

    as_of: str
    issue: int
    """Sequence number among forecasts issued for the same time, from 1."""
    key: str
    path: Path


def check_ledger_owner(job: Job, ledger: Path) -> None:
    """Raise `UsageError` where a ledger belongs to another job: its forecasts would be mixed."""
    owner = _read_owner(ledger)
    if not belongs_to(job, owner, ledger):
        raise UsageError(
            f"{ledger} is the ledger of another job: {owner[JOB]}",
            code="shared-ledger",
            hint="give each job its own ledger",
        )


def write_ledger_owner(job: Job, ledger: Path) -> None:
    """Record to which job a ledger belongs; the folder must exist, and its lock be held."""
    owner = describe_owner(job, ledger)
    if _read_owner(ledger).items() >= owner.items():
        return
    publish(ledger / OWNER_FILE, to_json({"format": _OWNER_FORMAT, **owner}))


def _read_owner(ledger: Path) -> dict[str, Any]:
    """Return the record of a ledger's job; an empty one where there is none that can be read."""
    with suppress(OSError, ValueError):
        return read_json(ledger / OWNER_FILE, expected_format=_OWNER_FORMAT)
    return {}


def list_parts(
    ledger: Path, *, as_of: str | None = None, since: str | None = None
) -> list[LedgerPart]:
    """Return all parts, in the order in which they were issued.

    Or those of one as-of time, or those `since` one, as file names have it: names are compared, for
    they are many.
    """
    prefix, oldest = "" if as_of is None else f"{as_of}_", since or ""
    try:
        with os.scandir(ledger) as entries:
            matches = [
                _NAME.fullmatch(entry.name)
                for entry in entries
                if entry.name >= oldest and entry.name.startswith(prefix) and entry.is_file()
            ]
    except OSError:
        return []
    return sorted(LedgerPart(m[1], int(m[2]), m[3], ledger / m[0]) for m in matches if m)


def publish_part(ledger: Path, table: pa.Table, *, as_of: str, key: str) -> LedgerPart:
    """Add the part of a run and return it; a part that the run has added before stays as it is.

    One that is damaged is replaced. The folder `ledger` must exist, and its lock be held.
    """
    parts, key = list_parts(ledger, as_of=as_of), key[:KEY_LENGTH]
    existing = next((part for part in parts if part.key == key), None)
    if existing is not None:
        with suppress(DataError):
            read_parts([existing])
            return existing

    issue = 1 + max((part.issue for part in parts), default=0)
    path = ledger / f"{as_of}_{issue:04d}_{key}.parquet"
    if existing is not None:
        issue, path = existing.issue, existing.path
    content = io.BytesIO()
    pa_parquet.write_table(table, content, compression="zstd")
    with publishing_file(path) as file:
        file.write(content.getvalue())
    return LedgerPart(as_of, issue, key, path)


def retire_parts(ledger: Path, *, before: str) -> list[Path]:
    """Remove parts of as-of times before this one, as file names have it; return the removed."""
    retired = [part.path for part in list_parts(ledger) if part.as_of < before]
    for path in retired:
        remove_file(path)
    return retired


def read_parts(
    parts: Sequence[LedgerPart],
    columns: Collection[str] | None = None,
    *,
    since_utc_us: int | None = None,
) -> pa.Table:
    """Read parts as one table; its column `issue` is the position of each row's part in `parts`.

    With `columns`, only those of them that a part has are read, and with `since_utc_us` the rows of
    forecasts for that time and later; a part that has none of these is not read. Raises `DataError`
    for a part that cannot be read.
    """
    tables = []
    for number, part in enumerate(parts):
        with _as_damage(part), open_regular(part.path) as stream:
            file = pa_parquet.ParquetFile(stream, read_dictionary=["series"])
            if since_utc_us is not None and _ends_before(file.metadata, since_utc_us):
                continue
            names = [name for name in file.schema_arrow.names if columns is None or name in columns]
            table = file.read(names, use_threads=False)
        if since_utc_us is not None:
            times = table["timestamp"].cast(pa.int64())
            table = table.filter(pc.greater_equal(times, since_utc_us))
        if columns is None:
            series = table.schema.get_field_index("series")
            table = table.set_column(series, "series", table["series"].cast(pa.string()))

        numbers = pa.repeat(pa.scalar(number, pa.int32()), len(table))
        tables.append(table.append_column(ISSUE, numbers))
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


@contextmanager
def _as_damage(part: LedgerPart) -> Iterator[None]:
    """Turn the errors of reading a part into a `DataError` that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot read {part.path} of the ledger: {error}",
            code="damaged-ledger",
            location=Location(str(part.path)),
            hint="restore the file from a backup, or remove it",
        ) from error


def _ends_before(metadata: pa_parquet.FileMetaData, time_us: int) -> bool:
    """Tell whether all forecasts of a part are for times before this one, in UTC."""
    column = next(
        i for i in range(metadata.num_columns) if metadata.schema.column(i).name == "timestamp"
    )
    groups = (metadata.row_group(i).column(column) for i in range(metadata.num_row_groups))
    newest = [group.statistics and group.statistics.max_raw for group in groups]
    return None not in newest and all(time < time_us for time in newest)


@dataclass(frozen=True)
class ScoreResult:
    """Scores of a ledger's forecasts."""

    scores: tuple[Score, ...]
    since: str | None
    until: str
    """The newest reading."""
    warnings: tuple[WarningEvent, ...]


def score(
    ledger: str | Path = DEFAULT_LEDGER,
    data: object = None,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    config: ScoreConfig | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    version: str | None = None,
    trust_source: bool = False,
    job: str | Path | None = None,
    listener: Listener = ignore,
    **options: Unpack[ScoreOptions],
) -> ScoreResult:
    """Score the forecasts of a ledger for which readings exist; torch is not needed.

    The data is read like that of the model, by default from the same source, as in `predict`. With
    a `job`, this is `score_job`. The keyword options are those of the command and override `config`
    and `reading`. Raises a `RnnForecastError`; `QualityGateError` if the drift of a series exceeds
    the limit.

    >>> scored = rf.score("ledger", "newer.csv", by="lead")
    >>> [score.lead for score in scored.scores]
    [1, 2, 3, 4, 5, 6]
    """
    check_option_names(score, options, ScoreConfig(), DataConfig())
    config = set_options(config or ScoreConfig(), options)
    reading = set_options(reading or DataConfig(), options)
    if job is not None:
        return score_job(job, config=config, listener=listener)
    explicit, data = names_of_options(explicit, options), as_table(data)
    events = Recorder(listener)
    if model != BUILTIN_MODEL:
        model = as_model(model, version=version)
    folder = local_path(ledger, "a ledger")
    if not list_parts(folder):
        raise DataError(
            f"no ledger of forecasts found in {folder}",
            code="no-ledger",
            hint="pass the folder of  [ledger] path  of the job with  --ledger",
        )

    if data is None:
        data = training_data(as_model(model), is_trusted=trust_source)
    _, panel, reading = read_with_model(data, model, reading, explicit, events)
    return _score(folder, make_past(panel), config, reading, events)


def _score(
    folder: Path, past: Past, config: ScoreConfig, options: DataConfig, events: Recorder
) -> ScoreResult:
    """Score the forecasts of a ledger on readings in memory. Raises as `score` does."""
    newest, since = _span(past, config)
    _check_size(folder, past, since, config.by, options)
    table = _read_scored(list_parts(folder), past, since)
    scored = table if config.in_sample else _out_of_sample(table)
    n_in_sample = len(table) - len(scored)
    if n_in_sample:
        message = f"{n_in_sample} values are excluded because their version was trained "
        events(WarningEvent("in-sample", f"{message}on later readings", n_in_sample))
    scores = tuple(score_issues(scored, past, since_us=since, by=config.by))
    if not scores:
        condition = "to include them although they look too good"
        raise NotEnoughDataError(
            f"no forecast in {folder} can be scored yet"
            + (" (except in-sample ones)" if n_in_sample else ""),
            code="nothing-to-score",
            proposals=[Proposal(("--in-sample",), condition)] if n_in_sample else (),
            hint="pass newer data with  --data , or use an earlier  --since",
        )
    _check_drift(scores, config.max_drift)

    begin = None if since is None else past.axis.format(since)
    until = past.axis.format(newest)
    return ScoreResult(scores, begin, until, tuple(events.warnings))


def score_job(
    path: str | Path,
    *,
    config: ScoreConfig | None = None,
    listener: Listener = ignore,
    **options: Unpack[ScoringOptions],
) -> ScoreResult:
    """Score the ledger of a job on the data of the job, like `score --job`. Raises as `score`.

    >>> [score.series for score in rf.score_job("job.toml", since="30d").scores]
    ['flow']
    """
    check_option_names(score_job, options, ScoreConfig())
    config = set_options(config or ScoreConfig(), options)
    job = read_job(Path(path))
    if job.ledger is None:
        raise UsageError(
            f"{path} has no ledger", hint='add one:  [ledger]  and below it  path = "ledger"'
        )
    check_ledger_owner(job, Path(job.ledger))

    is_builtin = job.model.path == BUILTIN_MODEL
    model = BUILTIN_MODEL if is_builtin else load(job.model.path, version=job.model.version)
    return score(
        job.ledger,
        job.source,
        model=model,
        config=config,
        reading=job.reading,
        explicit=job.explicit,
        listener=listener,
    )


def score_ledger(
    ledger: Path, past: Past, *, since_us: int, by: Sequence[str], longest_us: int
) -> tuple[Score, ...]:
    """Score a ledger on readings that are already in memory; an empty ledger has no scores.

    Parts that are too old, by `longest_us`, an upper bound of the horizon, are not opened.
    Forecasts that are in-sample do not count.
    """
    oldest = past.axis.format_for_file_name(since_us - longest_us)
    table = _read_scored(list_parts(ledger, since=oldest), past, since_us)
    return tuple(score_issues(_out_of_sample(table), past, since_us=since_us, by=by))


def _check_size(
    ledger: Path, past: Past, since_us: int | None, by: Sequence[str], options: DataConfig
) -> None:
    """Raise `DataError` where scoring needs more memory than may be used.

    How many values there are is estimated from the first, the middle and the last part.
    """
    oldest = None if since_us is None else past.axis.format_for_file_name(since_us)
    parts = list_parts(ledger, since=oldest)
    n_rows = 0
    for part in {parts[0], parts[len(parts) // 2], parts[-1]} if parts else ():
        with _as_damage(part), open_regular(part.path) as stream:
            n_rows = max(n_rows, len(parts) * pa_parquet.read_metadata(stream).num_rows)
    check_fits(
        n_rows * (_BYTES_PER_ROW if "series" in by else _BYTES_PER_POOLED_ROW),
        str(ledger),
        f"to score {n_rows} values",
        options,
        hint="or score only a part, e.g. with  --since 30d",
    )


def _read_scored(parts: Sequence[LedgerPart], past: Past, since_us: int | None) -> pa.Table:
    """Read what scoring needs of the parts: columns, and rows of forecasts for times that count."""
    since_utc_us = None
    if since_us is not None:
        since_utc_us = int(past.axis.first_utc(np.array([since_us], np.int64))[0])
    return read_parts(parts, SCORED_COLUMNS, since_utc_us=since_utc_us)


def _out_of_sample(table: pa.Table) -> pa.Table:
    """Drop the rows whose model version was trained on readings after the forecast's cutoff."""
    if IN_SAMPLE not in table.column_names:
        return table
    return table.filter(pc.invert(table[IN_SAMPLE].fill_null(False)))


def _span(past: Past, config: ScoreConfig) -> tuple[int, int | None]:
    """Return the time of the newest reading and the first time to score; None for all times."""
    newest = newest_reading(past)
    if newest < 0:
        raise DataError("there are no readings to score with", code="no-readings")
    if config.since is None:
        return newest, None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*[a-zA-Z]+\s*", config.since):
        return newest, newest - parse_duration_us(config.since) + past.step_us
    return newest, past.axis.parse(config.since)


def _check_drift(scores: Sequence[Score], limit: float | None) -> None:
    """Raise `QualityGateError` where the drift of a group exceeds the limit."""
    if limit is None:
        return
    over = [group for group in scores if group.drift is not None and group.drift > limit]
    if over:
        worst = max(over, key=lambda group: group.drift or 0.0)
        name = worst.series or worst.day or f"lead {worst.lead}"
        raise QualityGateError(
            f"{len(over)} groups have drifted from training by more than --max-drift "
            f"{limit:g} standard deviations: {name} by {worst.drift:.1f}",
            code="drift",
            hint="check the data; if it is correct, retrain on newer data",
        )
