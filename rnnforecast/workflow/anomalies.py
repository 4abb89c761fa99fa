"""The story of a search for anomalies: load a version, read, judge, write."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.config import DEFAULT_MODEL, AnomalyConfig
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.formats import check_format
from rnnforecast.workflow.outputs import check_outputs
from rnnforecast.workflow.prediction import restore
from rnnforecast.workflow.saved import Model, known_of, load
from rnnforecast.workflow.settled import reading_of

if TYPE_CHECKING:
    from rnnforecast.data.panel import Panel
    from rnnforecast.evaluate.anomalies import Anomalies, Episode
    from rnnforecast.model.artifact import Artifact


@dataclass(frozen=True)
class Search:
    """What a search has found."""

    found: Anomalies
    episodes: tuple[Episode, ...]
    """Anomalies that lie near each other, the most surprising first."""
    warnings: tuple[Warned, ...]


def anomalies(
    data: object,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    config: AnomalyConfig | None = None,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    output: str | Path | None = None,
    listener: Listener = ignore,
) -> Search:
    """List the readings that left their band, most of all with `output`, which takes them all.

    The readings are read as the model's own were, but for what `reading` says. Raises a
    `RnnForecastError`.
    """
    from rnnforecast.data.newer import read_newer
    from rnnforecast.data.writing import write_table
    from rnnforecast.evaluate.anomalies import episodes

    config = config or AnomalyConfig()
    if output is not None:
        check_format(str(output))
    artifact = (model if isinstance(model, Model) else load(model)).artifact
    options = reading_of(artifact, reading, given)
    check_outputs(data, options, output=output)
    events, task = Recorder(listener, []), artifact.task
    _ = _stride_of(config, task.horizon)  # before anything is read
    panel, schema = read_newer(
        data, schema=artifact.schema, options=options, known=known_of(artifact), listener=events
    )
    since = _since(config, panel, schema.tz)
    _warn_of_learnt(artifact, panel, since, schema.tz, events)
    found = _find(artifact, panel, config, since, events)
    search = Search(
        replace(found, tz=schema.tz),
        tuple(episodes(found, apart=task.horizon)),
        tuple(events.warnings),
    )
    if output is not None:
        write_table(search.found.to_arrow(), str(output))
    return search


def _find(
    artifact: Artifact, panel: Panel, config: AnomalyConfig, since: int | None, listener: Listener
) -> Anomalies:
    """Judge all readings that can be. Raises `NotEnoughDataError` where none can."""
    from rnnforecast.evaluate.anomalies import find_anomalies

    task = artifact.task
    found = find_anomalies(
        restore(artifact),
        panel,
        lookback=task.lookback,
        stride=_stride_of(config, task.horizon),
        at_least=config.at_least,
        since_us=since,
        listener=listener,
    )
    if not found.n_judged:
        raise NotEnoughDataError(
            f"no reading follows a whole look-back of {task.lookback} steps, so none can be judged",
            code="too-short",
            hint="pass more readings, or an earlier --since",
        )
    return found


def _stride_of(config: AnomalyConfig, horizon: int) -> int:
    stride = config.stride or horizon
    if stride > horizon:
        raise UsageError(
            f"--stride is {stride}, but the model forecasts {horizon} steps",
            hint=f"pass at most  --stride {horizon}",
        )
    return stride


def _since(config: AnomalyConfig, panel: Panel, tz: str | None) -> int | None:
    from rnnforecast.data.split import moment_of

    return None if config.since is None else moment_of(config.since, panel, tz)


def _warn_of_learnt(
    artifact: Artifact, panel: Panel, since: int | None, tz: str | None, listener: Listener
) -> None:
    """Say that readings look less surprising to a network that has learnt from them."""
    from rnnforecast.data.stamps import parse_time_us

    begin = panel.first_us if since is None else since
    if parse_time_us(artifact.learnt_until, tz) >= begin:
        message = (
            f"the model has learnt from the readings until {artifact.learnt_until}, and is less "
            "surprised by them than by new ones"
        )
        listener(Warned("already-learnt", message))
