"""`plot`, `anomalies` and `memory`: what a saved model, or a forecast, looks like."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config.commands import MOST_DRAWN, check_format, check_picture
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL, AnomalyConfig, PlotConfig
from rnnforecast.data.match import read_newer, read_past
from rnnforecast.data.output import Issued, read_issued, write_table
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import moment_of
from rnnforecast.data.timestamps import parse_time_us
from rnnforecast.data.windows import Past, TrainingWindows, past_of
from rnnforecast.errors import DataError, NotEnoughDataError, UsageError
from rnnforecast.evaluate.anomalies import Anomalies, Episode, episodes, find_anomalies
from rnnforecast.events import Listener, Noted, Recorder, Warned, ignore
from rnnforecast.gradients import explosion
from rnnforecast.model.artifact import Artifact
from rnnforecast.report.html import forecast_html
from rnnforecast.report.plots import Fan, picture, rows_back
from rnnforecast.storage.durable import publishing_file
from rnnforecast.storage.remote import local_path
from rnnforecast.units import parse_steps
from rnnforecast.workflow.model import (
    Model,
    check_outputs,
    known_of,
    load,
    reading_of,
    restore,
    restore_network,
    source_of,
)
from rnnforecast.workflow.steps import FEWEST, Remembered, read_readings, remember

_MOST_BACK = 100_000
_WINDOWS = 128
_NEWEST_SHARE = 0.15
"""Where all is learnt from, the targets lie in the newest readings: so many of them."""


def plot(
    data: object = None,
    *,
    config: PlotConfig | None = None,
    model: Model | None = None,
    output: str | Path | None = None,
    most: int = MOST_DRAWN,
    listener: Listener = ignore,
) -> list[Fan]:
    """Return a forecast with the readings around it, and draw it where there is an `output`.

    `data` is read as `model` reads, or as it is found; without it the forecast stands alone. The
    series are those that are named, or the first ones, at most `most`. Raises a `RnnForecastError`.
    """
    config = config or PlotConfig()
    if output is not None:
        check_picture(str(output))
        others = {"the forecast": config.forecast}
        check_outputs(data, DataConfig(), page=output, others=others)
    issued = _chosen(
        read_issued(local_path(config.forecast, "--forecast")), config.series, most, listener
    )
    if data is None:
        fans = [_alone(one) for one in issued]
    else:
        fans = _with_readings(issued, data, config, model, listener)
    if output is not None:
        _draw(fans, Path(output))
    return fans


def _chosen(
    issued: list[Issued], names: tuple[str, ...], most: int, listener: Listener
) -> list[Issued]:
    """Return the series that are named, or the first ones; say how many are not shown."""
    by_name = {one.series: one for one in issued}
    for name in names:
        if name not in by_name:
            near = get_close_matches(name, by_name, n=1)
            known = (
                f"the nearest is {near[0]!r}" if near else f"it begins with {issued[0].series!r}"
            )
            raise UsageError(f"the forecast has no series {name!r}", hint=known)
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]
    if len(issued) > most:
        left = len(issued) - most
        listener(Noted(f"{left} more series are not shown; name those to see with  --series NAME"))
    return issued[:most]


def _alone(one: Issued) -> Fan:

    nothing = np.empty(0)
    return Fan(
        one.series,
        nothing.astype(np.int64),
        nothing,
        one.times_us,
        one.values,
        one.quantiles,
        tz=one.tz,
    )


def _with_readings(
    issued: list[Issued], data: object, config: PlotConfig, model: Model | None, listener: Listener
) -> list[Fan]:
    """Put the readings before the forecast, and those that have come since beside it."""
    past, tz = _read(data, model, listener)
    if (tz is None) != (issued[0].tz is None):
        raise DataError(
            "the times of the forecast and of the readings do not compare: only one has a zone",
            code="zone",
            hint="pass the readings that the forecast was made from, or leave out --data",
        )
    places = {name: place for place, name in enumerate(past.names)}
    missing = [one.series for one in issued if one.series not in places]
    if len(missing) == len(issued):
        raise DataError(
            f"the readings have no series {missing[0]!r}: they are of others than the forecast",
            code="other-series",
            hint="pass the readings that the forecast was made from, and their model with  --model",
        )
    if missing:
        listener(Warned.naming("no-readings", "forecast, but not in the readings", missing))
    return [
        _alone(one) if one.series not in places else _beside(one, past, places, config, tz)
        for one in issued
    ]


def _read(data: object, model: Model | None, listener: Listener) -> tuple[Past, str | None]:

    if model is None:
        panel, schema = read_readings(
            data, DataConfig(), listener, learns_until=lambda panel, _: panel.end_us
        )
        return past_of(panel), schema.tz
    artifact = model.artifact
    past, schema = read_past(
        data,
        schema=artifact.schema,
        options=artifact.config.data,
        as_of=None,
        known=known_of(artifact),
        listener=listener,
    )
    return past, schema.tz


def _beside(
    one: Issued, past: Past, places: dict[str, int], config: PlotConfig, tz: str | None
) -> Fan:
    """Return the forecast of a series between the readings before and those since."""
    own = past.subset(np.array([places[one.series]]))
    last, begin = int(own.cutoff_time[0]), int(one.times_us[0])
    n_since = max(0, (last - begin) // past.step_us + 1)
    n_back = _rows_back(config.history, past.step_us, len(one.times_us))
    n_rows = min(n_since + n_back, int(own.cutoff[0]))
    times = last + np.arange(1 - n_rows, 1) * past.step_us
    readings = own.history(n_rows)[0].astype(np.float64) + own.base[0]
    is_before = times < begin
    actual = _at(one.times_us, times, readings) if n_since else None
    before, seen = times[is_before], readings[is_before]
    return Fan(one.series, before, seen, one.times_us, one.values, one.quantiles, actual, tz)


def _rows_back(history: str, step_us: int, horizon: int) -> int:

    if history == "auto":
        return rows_back(horizon)
    return parse_steps(history, step_us=step_us, name="history", limit=_MOST_BACK)


def _at(
    wanted: NDArray[np.int64], times: NDArray[np.int64], readings: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the readings of these times, NaN where there is none."""
    place = np.searchsorted(times, wanted)
    is_there = (place < len(times)) & (times[np.minimum(place, len(times) - 1)] == wanted)
    return np.where(is_there, readings[np.minimum(place, len(times) - 1)], np.nan)


def _draw(fans: Sequence[Fan], path: Path) -> None:
    """Draw a picture, and publish it whole."""
    kind = path.suffix.lower().removeprefix(".")
    content = forecast_html(fans).encode() if kind == "html" else picture(fans, kind)
    with publishing_file(path) as file:
        file.write(content)


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
    config = config or AnomalyConfig()
    if output is not None:
        check_format(str(output))
    artifact = (model if isinstance(model, Model) else load(model)).artifact
    options = reading_of(artifact, reading, given)
    check_outputs(data, options, output=output)
    events, spec = Recorder(listener, []), artifact.spec
    _ = _stride_of(config, spec.horizon)  # before anything is read
    panel, schema = read_newer(
        data, schema=artifact.schema, options=options, known=known_of(artifact), listener=events
    )
    since = _since(config, panel, schema.tz)
    _warn_of_learnt(artifact, panel, since, schema.tz, events)
    found = _find(artifact, panel, config, since, events)
    search = Search(
        replace(found, tz=schema.tz),
        tuple(episodes(found, apart=spec.horizon)),
        tuple(events.warnings),
    )
    if output is not None:
        write_table(search.found.to_arrow(), str(output))
    return search


def _find(
    artifact: Artifact, panel: Panel, config: AnomalyConfig, since: int | None, listener: Listener
) -> Anomalies:
    """Judge all readings that can be. Raises `NotEnoughDataError` where none can."""
    spec = artifact.spec
    found = find_anomalies(
        restore(artifact),
        panel,
        lookback=spec.lookback,
        stride=_stride_of(config, spec.horizon),
        at_least=config.at_least,
        since_us=since,
        listener=listener,
    )
    if not found.n_judged:
        raise NotEnoughDataError(
            f"no reading follows a whole look-back of {spec.lookback} steps, so none can be judged",
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

    return None if config.since is None else moment_of(config.since, panel, tz)


def _warn_of_learnt(
    artifact: Artifact, panel: Panel, since: int | None, tz: str | None, listener: Listener
) -> None:
    """Say that readings look less surprising to a network that has learnt from them."""
    begin = panel.first_us if since is None else since
    if parse_time_us(artifact.trained_until, tz) >= begin:
        message = (
            f"the model has learnt from the readings until {artifact.trained_until}, and is less "
            "surprised by them than by new ones"
        )
        listener(Warned("already-learnt", message))


def memory(
    data: object = None,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    listener: Listener = ignore,
) -> Remembered:
    """Measure how far back a saved version remembers, and say what to try where that is wrong.

    Without data, on what it was trained on. Windows after what it has learnt from count, where
    there are enough of them; else the newest ones. Raises a `RnnForecastError`.
    """
    from rnnforecast.model.initialise import known_entries

    artifact = (model if isinstance(model, Model) else load(model)).artifact
    events = Recorder(listener, [])
    panel, schema = read_newer(
        source_of(artifact) if data is None else data,
        schema=artifact.schema,
        options=reading_of(artifact, reading, given),
        known=known_of(artifact),
        listener=events,
    )
    windows = _windows_of(artifact, panel, schema.tz, events)
    forecaster = restore_network(artifact)
    found = remember(
        forecaster.network,
        windows,
        panel,
        artifact.config,
        entries=known_entries(panel.names, forecaster.network, forecaster.names).tolist(),
        explosion=_explosion_in(artifact),
        least=_WINDOWS,
    )
    return replace(found, warnings=tuple(events.warnings))


def _windows_of(
    artifact: Artifact, panel: Panel, tz: str | None, listener: Listener
) -> TrainingWindows:
    """Return the windows to measure on: those that the version has not learnt from, if it can."""
    lookback, horizon = artifact.spec.lookback, artifact.spec.horizon
    past, lengths = past_of(panel), panel.lengths
    learnt = panel.rows_before(parse_time_us(artifact.trained_until, tz) + 1)
    newer = past.windows(lookback, horizon, targets_after=past_of(panel, learnt))
    if len(newer) >= FEWEST:
        return newer
    n_newest = np.maximum((_NEWEST_SHARE * lengths).astype(np.int64), horizon)
    before = past_of(panel, np.maximum(lengths - n_newest, 0))
    windows = past.windows(lookback, horizon, targets_after=before)
    if not len(windows):
        raise NotEnoughDataError(
            f"no series has the {lookback} + {horizon} readings of a look-back and a horizon",
            code="too-short",
            hint="pass more readings",
        )
    message = (
        f"measured on readings that the model has learnt from, until {artifact.trained_until}: "
        "pass newer ones to see what it makes of them"
    )
    listener(Warned("already-learnt", message))
    return windows


def _explosion_in(artifact: Artifact) -> str | None:
    """Say why the training of a member that is kept exploded; None where none did."""
    rows = list(csv.DictReader(io.StringIO(artifact.history)))
    for number in artifact.provenance["selected_members"]:
        own = [row for row in rows if row["member"] == str(number)]
        clipped, losses = ([float(row[name]) for row in own] for name in ("clipped", "train_loss"))
        reason = explosion(clipped, losses, artifact.config.training)
        if reason is not None:
            return reason
    return None
