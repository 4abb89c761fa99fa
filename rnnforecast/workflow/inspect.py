"""`plot` a forecast, list `anomalies`, and measure the `memory` of a saved model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from rnnforecast.config.commands import (
    MAX_DRAWN,
    check_format,
    check_option_names,
    check_picture,
    names_of_options,
    set_options,
)
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL, AnomalyConfig, Config, PlotConfig
from rnnforecast.data.limits import with_limits
from rnnforecast.data.output import SeriesForecast, read_forecast, without_formulas, write_table
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import parse_moment
from rnnforecast.data.windows import Past, TrainingWindows, make_past, windows_of
from rnnforecast.errors import DataError, NotEnoughDataError, UsageError, require_libraries
from rnnforecast.evaluate.anomalies import Anomalies, Episode, episodes, find_anomalies
from rnnforecast.events import Listener, Notice, Recorder, WarningEvent, ignore
from rnnforecast.model.artifact import Artifact
from rnnforecast.report.html import forecast_html
from rnnforecast.report.plots import Fan, n_rows_back, render_image
from rnnforecast.sources.files import as_table, check_outputs
from rnnforecast.storage.durable import publishing_output
from rnnforecast.storage.remote import local_path
from rnnforecast.tables.match import read_for_training
from rnnforecast.units import parse_steps
from rnnforecast.workflow.advice import Task, trying_proposals
from rnnforecast.workflow.model import Model, as_model, read_with_model, training_data
from rnnforecast.workflow.saved import resolve_options, restore, restore_network
from rnnforecast.workflow.steps import MIN_WINDOWS, MemoryReport, analyse_memory, find_explosion

if TYPE_CHECKING:
    from rnnforecast.config.keywords import AnomalyOptions, PlotOptions, ReadingOptions

_MAX_HISTORY = 100_000
"""Most readings that `--history` can ask for."""
_MEMORY_WINDOWS = 128
"""Windows that memory is measured on, at least, as far as there are any."""
_NEWEST_SHARE = 0.15
"""Where a version was trained on all readings, memory is measured on the newest of them: this share
holds the targets."""


def plot(
    data: object = None,
    *,
    config: PlotConfig | None = None,
    model: Model | str | Path | None = None,
    version: str | None = None,
    output: str | Path | None = None,
    most: int = MAX_DRAWN,
    listener: Listener = ignore,
    **options: Unpack[PlotOptions],
) -> list[Fan]:
    """Return a forecast with the readings around it; with `output`, plot it to a file.

    `data` is read with the options of `model`, or with inferred ones; without it, only the forecast
    is shown. The series are the named ones, or the first ones, at most `most`. The keyword options
    are those of the command and override `config`. Raises a `RnnForecastError`.

    >>> fans = rf.plot("readings.csv", forecast="forecast.csv", output="forecast.png")
    >>> [fan.name for fan in fans]
    ['flow']
    """
    check_option_names(plot, options, PlotConfig())
    config = set_options(config or PlotConfig(), options)
    model, data = None if model is None else as_model(model, version=version), as_table(data)
    if output is not None:
        check_picture(str(output))
        require_libraries("a picture", "matplotlib")
        check_outputs(data, DataConfig(), page=output, inputs={"the forecast": config.forecast})
    forecasts = read_forecast(local_path(config.forecast, "--forecast"))
    forecasts = _select_series(forecasts, config.series, most, listener)

    if data is None:
        fans = [_fan_without_readings(forecast) for forecast in forecasts]
    else:
        fans = _fans_with_readings(forecasts, data, config, model, listener)
    if output is not None:
        kind = Path(output).suffix.lower().removeprefix(".")
        content = forecast_html(fans).encode() if kind == "html" else render_image(fans, kind)
        with publishing_output(Path(output)) as file:
            file.write(content)
    return fans


def _select_series(
    forecasts: list[SeriesForecast], names: tuple[str, ...], most: int, listener: Listener
) -> list[SeriesForecast]:
    """Return the named series, or the first `most`, with a note of how many are not shown.

    Raises `UsageError` for a name that the forecast does not have.
    """
    by_name = {forecast.series: forecast for forecast in forecasts}
    for name in names:
        if name not in by_name:
            nearest = get_close_matches(name, by_name, n=1)
            first = f"the first series is {forecasts[0].series!r}"
            hint = f"did you mean {nearest[0]!r}?" if nearest else first
            raise UsageError(f"series {name!r} is not in the forecast", hint=hint)
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]

    n_hidden = len(forecasts) - most
    if n_hidden > 0:
        message = f"{n_hidden} more series not shown; choose some with  --series NAME"
        listener(Notice(message))
    return forecasts[:most]


def _fan_without_readings(forecast: SeriesForecast) -> Fan:
    return Fan(
        forecast.series,
        np.empty(0, np.int64),
        np.empty(0),
        forecast.times_us,
        forecast.values,
        forecast.quantiles,
        tz=forecast.tz,
    )


def _fans_with_readings(
    forecasts: list[SeriesForecast],
    data: object,
    config: PlotConfig,
    model: Model | None,
    listener: Listener,
) -> list[Fan]:
    """Add the readings before each forecast, and those that have come since.

    Raises `DataError` where the times do not compare, or no series has readings.
    """
    if model is None:
        with trying_proposals(Task(data, Config(), is_training=False), listener) as tried:
            panel, schema = read_for_training(
                data, DataConfig(), tried, find_train_end=lambda panel: panel.end_us
            )
    else:
        panel, schema = model.read(data, resolve_options(model.artifact), listener)
    past = make_past(panel)
    if (schema.tz is None) != (forecasts[0].tz is None):
        raise DataError(
            "cannot compare the times of the forecast and the data: only one has a time zone",
            code="zone",
            hint="pass the data the forecast was made from, or omit --data",
        )

    positions = {name: position for position, name in enumerate(past.names)}
    missing = [forecast.series for forecast in forecasts if forecast.series not in positions]
    if len(missing) == len(forecasts):
        raise DataError(
            f"series {missing[0]!r} of the forecast is not in the data",
            code="other-series",
            hint="pass the data the forecast was made from, and its model with  --model",
        )
    if missing:
        listener(WarningEvent.for_names("no-readings", "forecast, but not in the data", missing))
    return [
        _fan_without_readings(forecast)
        if forecast.series not in positions
        else _fan_with_readings(forecast, past, positions[forecast.series], config)
        for forecast in forecasts
    ]


def _fan_with_readings(
    forecast: SeriesForecast, past: Past, position: int, config: PlotConfig
) -> Fan:
    """Return a forecast between the readings before it and those since; NaN where one is missing.

    `position` is that of the series in `past`, which has one origin per series, at its end.
    """
    series_past = past.subset(np.array([position]))
    axis = past.axis
    last, begin = int(series_past.cutoff_time[0]), int(axis.from_utc(forecast.times_us)[0])
    n_since = max(0, (last - begin) // past.step_us + 1)
    if config.history == "auto":
        n_back = n_rows_back(len(forecast.times_us))
    else:
        n_back = parse_steps(
            config.history, step_us=past.step_us, name="history", limit=_MAX_HISTORY
        )
    n_rows = min(n_since + n_back, int(series_past.cutoff[0]))
    times = axis.to_utc(last + np.arange(1 - n_rows, 1) * past.step_us)
    readings = series_past.history(n_rows)[0].astype(np.float64) + series_past.base[0]

    actual = None
    if n_since:
        index = np.searchsorted(times, forecast.times_us)
        bounded = np.minimum(index, len(times) - 1)
        has_reading = (index < len(times)) & (times[bounded] == forecast.times_us)
        actual = np.where(has_reading, readings[bounded], np.nan)

    is_before = times < forecast.times_us[0]
    return replace(
        _fan_without_readings(forecast),
        times_us=times[is_before],
        readings=readings[is_before],
        actual=actual,
        tz=axis.tz,
    )


@dataclass(frozen=True)
class Search:
    """Result of a search for anomalies."""

    anomalies: Anomalies
    episodes: tuple[Episode, ...]
    """Anomalies near each other, put together, the most surprising first."""
    warnings: tuple[WarningEvent, ...]


def anomalies(
    data: object,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    version: str | None = None,
    config: AnomalyConfig | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    output: str | Path | None = None,
    listener: Listener = ignore,
    **options: Unpack[AnomalyOptions],
) -> Search:
    """List the readings outside their forecast band; with `output`, write all of them to a file.

    The keyword options are those of the command and override `config` and `reading`. Reading
    options that are set, or named in `explicit`, override the model's. Raises a `RnnForecastError`.

    >>> search = rf.anomalies("readings.csv", at_least=6)
    >>> len(search.episodes)
    0
    """
    check_option_names(anomalies, options, AnomalyConfig(), DataConfig())
    config = set_options(config or AnomalyConfig(), options)
    reading = set_options(reading or DataConfig(), options)
    explicit, data = names_of_options(explicit, options), as_table(data)
    if not isinstance(model, Model) and version is not None:
        model = as_model(model, version=version)
    if output is not None:
        check_format(str(output))
    events = Recorder(listener)
    model, panel, _ = read_with_model(data, model, reading, explicit, events, output=output)
    result = _find_anomalies(model.artifact, panel, config, events)

    if output is not None:
        names = result.anomalous_names
        safe = without_formulas(names, str(output), events, is_escaped=config.excel_safe)
        written = result.with_names(dict(zip(names, safe, strict=True)))
        write_table(written.to_arrow(), str(output))
    put_together = tuple(episodes(result, max_gap=model.artifact.spec.horizon))
    return Search(result, put_together, tuple(events.warnings))


def _find_anomalies(
    artifact: Artifact, panel: Panel, config: AnomalyConfig, listener: Listener
) -> Anomalies:
    """Judge the readings by forecasts that have not seen them.

    Raises `UsageError` for a stride beyond the horizon, and `NotEnoughDataError` where no reading
    can be judged.
    """
    spec = artifact.spec
    stride = config.stride or spec.horizon
    if stride > spec.horizon:
        raise UsageError(
            f"--stride is {stride}, but the horizon of the model is {spec.horizon} steps",
            hint=f"use at most  --stride {spec.horizon}",
        )

    if artifact.trained_until is None:
        listener(Notice("scored by the built-in network, which was not trained on this data"))
    since = None if config.since is None else parse_moment(config.since, panel)
    first_us = panel.first_us if since is None else since
    if artifact.untrained_from_us - panel.step_us >= first_us:
        message = f"the model was trained on data until {artifact.trained_until}"
        message += ", so anomalies before that are underestimated"
        listener(WarningEvent("already-learnt", message))

    result = find_anomalies(
        with_limits(restore(artifact, is_adaptive=False), artifact.limits),
        panel,
        lookback=spec.least_history,
        stride=stride,
        at_least=config.at_least,
        since_us=since,
        listener=listener,
    )
    if not result.n_judged:
        raise NotEnoughDataError(
            f"no reading has {spec.least_history} steps of history before it",
            code="too-short",
            hint="use more data or an earlier --since",
        )
    return result


def memory(
    data: object = None,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    version: str | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    trust_source: bool = False,
    listener: Listener = ignore,
    **options: Unpack[ReadingOptions],
) -> MemoryReport:
    """Measure how much history a saved version uses, and advise how to improve it.

    Without data, the training source is read again, as in `predict`. The windows are those after
    the training data if there are enough of them, otherwise the newest ones. The keyword options
    are those of the command and override `reading`. Raises a `RnnForecastError`.

    >>> rf.memory("readings.csv").memory.lookback
    24
    """
    require_libraries("the memory of a network", "torch")
    check_option_names(memory, options, DataConfig())
    reading = set_options(reading or DataConfig(), options)
    explicit = names_of_options(explicit, options)
    model = as_model(model, version=version)
    artifact = model.artifact
    events = Recorder(listener)
    source = training_data(model, is_trusted=trust_source) if data is None else as_table(data)
    panel, _ = model.read(source, resolve_options(artifact, reading, explicit), events)
    windows = _memory_windows(artifact, panel, events)
    network, entries = restore_network(artifact).with_unknown_series(make_past(panel))
    result = analyse_memory(
        network,
        windows,
        panel,
        artifact.config,
        entries=entries.tolist(),
        explosion=find_explosion(artifact),
        n_windows=_MEMORY_WINDOWS,
    )
    return replace(result, warnings=tuple(events.warnings))


def _memory_windows(artifact: Artifact, panel: Panel, listener: Listener) -> TrainingWindows:
    """Return the windows to measure memory on: with targets after the training, or the newest."""
    spec = artifact.spec
    past, lengths = make_past(panel), panel.lengths
    n_trained = panel.rows_before(artifact.untrained_from_us)
    newer = windows_of(past, spec, targets_after=make_past(panel, n_trained))
    if len(newer) >= MIN_WINDOWS:
        return newer

    n_newest = np.maximum((_NEWEST_SHARE * lengths).astype(np.int64), spec.horizon)
    before = make_past(panel, np.maximum(lengths - n_newest, 0))
    windows = windows_of(past, spec, targets_after=before)
    if not len(windows):
        raise NotEnoughDataError(
            f"no series has {spec.least_history} + {spec.horizon} readings (history + horizon)",
            code="too-short",
            hint="use more data",
        )
    message = (
        f"measured on training data (until {artifact.trained_until}); pass newer data for an "
        "independent measurement"
    )
    listener(WarningEvent("already-learnt", message))
    return windows
