"""Saved versions and the built-in network: restore them, read and check readings for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    AUTO,
    BUILTIN_MODEL,
    DEFAULT_MODEL,
    EXPERT,
    MAX_LOOKBACK,
    Config,
    PredictConfig,
    changed_fields,
    override,
)
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import Seasons, describe_windows, seasons_of, wanted_lookback
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import DataError, ModelError, Proposal, UsageError
from rnnforecast.evaluate.calibration import with_calibration
from rnnforecast.events import Listener, Notice, Recorder, WarningEvent, ignore
from rnnforecast.model.artifact import UNTRAINED, Artifact
from rnnforecast.model.artifact import load as load_artifact
from rnnforecast.model.builtin import builtin_artifact, note_of_builtin
from rnnforecast.model.forecaster import ExpertForecaster, RNNForecaster
from rnnforecast.sources.source import Source, open_table
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.remote import AnyPath, as_path
from rnnforecast.storage.versions import (
    LOCK,
    activate_version,
    active_version,
    list_versions,
    remove_leftovers,
    resolve_version,
)
from rnnforecast.tables.cleaning import load_excluded_times
from rnnforecast.tables.match import (
    TrainingStats,
    check_as_of,
    check_drift,
    check_freshness,
    read_inferred,
    read_matching,
    read_past,
    require_series,
    warn_unusual_covariates,
    warn_unusual_series,
)
from rnnforecast.tables.schema import Schema, check_counters
from rnnforecast.units import parse_steps
from rnnforecast.workflow.advice import Task, trying_proposals

_SETTLED = ("known", "past", "static", "categorical", "calendar", "holidays")
"""Options of covariates: they shape the network, so that a saved version cannot change them."""


def model_directory(model: str | AnyPath) -> AnyPath:
    """Return the path of a model directory. Raises `UsageError` for the built-in network."""
    if model == BUILTIN_MODEL:
        raise UsageError(
            f"{BUILTIN_MODEL} is the built-in network, which has no versions",
            hint=f"name a model directory (a folder of that name is  ./{BUILTIN_MODEL} ); "
            f"train and backtest have  --network {BUILTIN_MODEL}",
        )
    return as_path(model)


def versions(model: str | Path = DEFAULT_MODEL) -> list[dict[str, Any]]:
    """List the saved versions, oldest first: name, active or not, date, reason, skill, or damage.

    The reason is why a retraining made it, and whether it was better; None where `train` made it.

    >>> [version["active"] for version in rf.versions("model")]
    [True]
    """
    path = model_directory(model)
    active = active_version(path)
    listing: list[dict[str, Any]] = []
    for name in list_versions(path):
        item: dict[str, Any] = {"version": name, "active": name == active}
        try:
            loaded = load_artifact(resolve_version(path, name))
            challenge = loaded.provenance.get("challenge") or {}
            item |= {
                "created": loaded.provenance.get("created"),
                "trained_until": loaded.trained_until,
                "skill": loaded.metrics["skill"],
                "reason": challenge.get("reason"),
            }
        except ModelError as error:
            facts = dict.fromkeys(("created", "trained_until", "skill", "reason"))
            item |= {**facts, "damage": error.message}
        listing.append(item)
    return listing


def use(
    version: str, *, model: str | Path = DEFAULT_MODEL, listener: Listener = ignore
) -> str | None:
    """Activate a version, such as `previous`; return the one that was active before, or None.

    The version is loaded first, so that a damaged one is never activated. Raises a
    `RnnForecastError`.

    >>> newest = rf.versions("model")[-1]["version"]
    >>> rf.use(newest, model="model") == newest
    True
    """
    path = model_directory(model)
    directory = resolve_version(path, version)
    load_artifact(directory)
    with acquire(path / LOCK, listener=listener):
        remove_leftovers(path)
        before = active_version(path)
        if before != directory.name:
            activate_version(path, directory.name)
    return before


def restore(
    artifact: Artifact, *, is_adaptive: bool = True, n_threads: int | None = None
) -> Forecaster:
    """Make the forecaster of a saved version. Raises `ModelError`.

    An adaptive one scales its bands by the errors of its forecasts since the training. It uses
    `n_threads` threads, by default one per processor.
    """
    untrained_from_us = artifact.untrained_from_us if is_adaptive else None
    return with_calibration(
        restore_network(artifact, n_threads=n_threads),
        artifact.calibration,
        artifact.names,
        untrained_from_us=untrained_from_us,
    )


def restore_network(artifact: Artifact, *, n_threads: int | None = None) -> RNNForecaster:
    """Make the network of a saved version, without its calibration."""
    return RNNForecaster.restore(
        artifact.spec,
        artifact.config.network,
        names=artifact.names,
        weights=artifact.weights,
        self_test=artifact.self_test,
        n_threads=n_threads,
    )


def training_stats_of(artifact: Artifact) -> TrainingStats:
    """Return the statistics of the series that a saved network was trained on."""
    return TrainingStats(
        artifact.names,
        np.array(artifact.base),
        # Row 0 of these weights is for series that the network does not know.
        center=artifact.weights["center"][1:],
        scale=artifact.weights["scale"][1:],
        reach=artifact.weights["outlier_threshold"][1:],
    )


def task_of(artifact: Artifact, data: object, options: DataConfig) -> Task:
    """Return how a table is read for a saved version, so that other options can be tried on it."""
    schema, stats = artifact.schema, training_stats_of(artifact)

    def read(source: Source, options: DataConfig, listener: Listener) -> tuple[Panel, Schema]:
        return read_matching(source, schema=schema, options=options, stats=stats, listener=listener)

    config = replace(artifact.config, data=options)
    return Task(data, config, read, schema, is_training=False)


def resolve_options(
    artifact: Artifact, config: DataConfig | None = None, explicit: Collection[str] = ()
) -> DataConfig:
    """Return the reading options of a saved version, overridden by those set in `config`.

    A field is set where it differs from its default, or where `explicit` names it. A file that
    the version names is neither read nor written: of `exclude` it holds the content. Raises
    `UsageError` where `config` contradicts what the version was trained with, for a counter that
    is not one of its targets, and for an old version that holds the name of `exclude` alone.
    """
    stored = replace(artifact.config.data, exclude=None)
    config = load_excluded_times(config or DataConfig())
    changes = changed_fields(config, explicit)
    lost = artifact.config.data.exclude if stored.excluded_times is None else None
    if lost is not None and "exclude" not in changes:
        raise UsageError(
            f"the model was trained with --exclude {lost}, but stores only the name of that file",
            code="exclude-not-stored",
            proposals=[Proposal(("--exclude", lost), "if the file exists")],
            hint="or retrain: new versions store its content",
        )
    trained = {name: getattr(stored, name) for name in _SETTLED}
    for name, value in trained.items():
        change = changes.get(name, value)
        # The order of a list of columns does not count.
        is_same = set(change) == set(value) if isinstance(change, tuple) else change == value
        if not is_same:
            state = f"with {_option_text(name, value)}" if value else f"without --{name}"
            raise UsageError(
                f"the model was trained {state}, and cannot take {_option_text(name, change)}",
                hint=f"omit --{name}, or retrain with it",
            )
    if "counter" in changes:
        check_counters(config.target or artifact.schema.targets, config)
    if "exclude" in changes:  # its content counts, even where that is nothing
        explicit = {*explicit, "excluded_times"}
    return override(stored, replace(config, **trained), explicit)


def _option_text(name: str, value: Any) -> str:
    """Write an option as it is typed; values of a repeated one are separated by commas."""
    text = ", ".join(value) if isinstance(value, tuple) else value
    return f"--{name} {text or repr('')}"


@dataclass(frozen=True)
class PreparedForecast:
    """Inputs of a forecast, read and checked against the model."""

    artifact: Artifact
    past: Past
    schema: Schema
    config: PredictConfig
    options: DataConfig
    horizon: int
    age_us: int = 0
    """Age of the newest reading, in microseconds."""
    is_in_sample: bool = False
    """Whether the version has learnt from readings that come after those of the forecast."""
    silent: tuple[str, ...] = ()
    """Series of the model without any readings, or without one for longer than the horizon."""


def prepare(
    artifact: Artifact,
    data: object,
    config: PredictConfig,
    options: DataConfig,
    events: Recorder,
    *,
    future: object = None,
    is_expected: Callable[[str], bool] | None = None,
) -> PreparedForecast:
    """Read and check the readings for a forecast.

    `future` is the table of what is known ahead, by default the file that `config` names.
    `is_expected` tells which series of the model must be among the readings, where these are only a
    part of all. Raises a `RnnForecastError`.
    """
    if config.season != AUTO:
        raise UsageError(
            f"--season {config.season} cannot change the season of a trained model",
            hint="omit it, retrain with it, or use the built-in network with  --model "
            f"{BUILTIN_MODEL}",
        )
    horizon = resolve_horizon(config, artifact)
    known = replace(training_stats_of(artifact), is_expected=is_expected)
    future = config.future if future is None else future
    if future is not None and not artifact.spec.n_known:
        message = "the model uses no known covariates, so --future is ignored"
        events(WarningEvent("unused-future", message))
        future = None
    try:
        with trying_proposals(task_of(artifact, data, options), events) as listener:
            past, schema = read_past(
                data,
                schema=artifact.schema,
                options=options,
                as_of=config.as_of,
                future=future,
                stats=known,
                listener=listener,
            )
    except DataError as error:
        at, names = error.location, artifact.schema
        readings = {names.time, names.series, *names.targets} - {None}
        is_of_readings = at is not None and at.column in readings
        is_of_future = at is not None and future is not None and at.file == str(future)
        if error.code == "missing-column" and is_of_readings and not is_of_future:
            advice = (
                "for readings that the model does not know, use the built-in network:  --model "
                f'{BUILTIN_MODEL} , or  path = "{BUILTIN_MODEL}"  in a job file'
            )
            error.hint = f"{error.hint} ; {advice}" if error.hint else advice
        raise

    _check_names(artifact, past, options)
    return _check(
        PreparedForecast(artifact, past, schema, config, options, horizon),
        known,
        events,
        is_whole=is_expected is None,
    )


def _check_names(artifact: Artifact, past: Past, options: DataConfig) -> None:
    """Raise `UsageError` where a new option names a series or target that nobody knows."""
    stored, schema = artifact.config.data, artifact.schema
    known = {*artifact.names, *past.names, *schema.targets, *(c.name for c in schema.covariates)}
    for option, names in {
        "valid-range": options.valid_ranges.keys() - stored.valid_ranges.keys(),
        "agg": options.agg_by_column.keys() - stored.agg_by_column.keys(),
    }.items():
        unknown = min(names - known, default=None)
        if unknown is not None:
            raise UsageError(
                f"--{option}: no series or target is named {unknown!r}",
                hint=f"the model has e.g. {artifact.names[0]!r}",
            )


def check_builtin(data: object, version: str | None = None) -> None:
    """Raise `UsageError` where the built-in network is asked for what it has not."""
    if version is not None:
        raise UsageError(
            f"--version {version} cannot be used with the built-in network ({BUILTIN_MODEL})",
            hint="omit one of them",
        )
    if data is None:
        raise UsageError(
            "the built-in network has no training file to re-read", hint="pass the data"
        )


def prepare_builtin(
    data: object,
    config: PredictConfig,
    options: DataConfig,
    events: Recorder,
    *,
    has_future: bool = False,
) -> PreparedForecast:
    """Read and check readings for the built-in network, and say that it forecasts them.

    Raises a `RnnForecastError`.
    """
    if config.max_drift is not None or config.require_series:
        name = "require-series" if config.require_series else "max-drift"
        raise UsageError(
            f"--{name} compares with the training data, which the built-in network does not have",
            hint="omit it, or train a model on this data",
        )
    options = load_excluded_times(options)
    panel, schema = read_for_builtin(data, options, events, as_of=config.as_of)
    is_told = any(warning.code == "unused-covariates" for warning in events.warnings)
    if (has_future or config.future is not None) and not is_told:
        message = "the built-in network uses no covariates, so --future is ignored"
        events(WarningEvent("unused-future", message))
    artifact = builtin_artifact(
        panel, schema, options, horizon=config.horizon, season=config.season
    )
    spec = artifact.spec
    events(Notice(note_of_builtin(panel, data, options)))
    _, season, horizon, _ = describe_windows(
        panel.step_us,
        season=spec.season,
        lookback=spec.lookback,
        horizon=spec.horizon,
        segment=spec.members[0].segment,
    )
    events(Notice(f"{season}, {horizon}"))
    ready = PreparedForecast(artifact, make_past(panel), schema, config, options, spec.horizon)
    stats = training_stats_of(artifact)
    # what is told of a series is what it is like now
    stats = replace(stats, center=np.full_like(stats.center, np.nan))
    return _check(ready, stats, events, is_whole=True)


def _check(
    ready: PreparedForecast, known: TrainingStats, events: Recorder, *, is_whole: bool
) -> PreparedForecast:
    """Compare readings with those that the network was trained on, and with the clock.

    `is_whole` tells whether they are all of them: a bucket of slow sensors ends before the others
    that the version was trained on.
    """
    artifact, past, config = ready.artifact, ready.past, ready.config
    last_us = int(past.cutoff_time.max(initial=-1))
    is_in_sample = is_whole and last_us + past.step_us < artifact.untrained_from_us
    if is_in_sample:
        message = "the forecast is in-sample: the version was trained on data after "
        message += f"{past.axis.format(last_us)}, until {artifact.trained_until}"
        events(WarningEvent("in-sample", message))
    spec = artifact.spec
    silent = warn_unusual_series(past, known, events, lookback=spec.lookback, horizon=spec.horizon)
    if spec.n_known:
        warn_unusual_covariates(
            past,
            artifact.weights["feature_mean"],
            artifact.weights["feature_scale"],
            events,
            lookback=spec.lookback,
            horizon=ready.horizon,
        )
    if config.require_series:
        require_series(past, known)
    if config.max_drift is not None:
        check_drift(past, known, lookback=spec.lookback, limit=config.max_drift)
    age_us = check_freshness(past, config, events)
    return replace(ready, age_us=age_us, is_in_sample=is_in_sample, silent=silent)


def resolve_horizon(config: PredictConfig, artifact: Artifact) -> int:
    """Return the steps to forecast. Raises `UsageError` for more than the model was trained for."""
    spec, step_us = artifact.spec, artifact.schema.step_us
    if config.horizon is None:
        return spec.horizon

    assert step_us is not None
    horizon = parse_steps(
        config.horizon,
        step_us=step_us,
        name="horizon",
        limit=10**9,
        measure=artifact.schema.axis.measure,
    )
    if horizon > spec.horizon:
        raise UsageError(
            f"--horizon {config.horizon} is {horizon} steps, but the model was trained for "
            f"{spec.horizon}",
            hint=f"retrain with  --horizon {config.horizon} , or use the built-in network "
            f"with  --model {BUILTIN_MODEL}",
        )
    return horizon


def read_for_builtin(
    data: object, options: DataConfig, listener: Listener, *, as_of: str | None = None
) -> tuple[Panel, Schema]:
    """Read a table as `train` does, up to the as-of time; covariates are left out.

    Raises as `read_past` does.
    """
    with trying_proposals(Task(data, Config(options), is_training=False), listener) as tried:
        source = open_table(data, options, tried)
        panel, schema = read_inferred(source, options, tried, as_of=as_of)
        check_as_of(as_of, schema.axis, options)
    if panel.covariates is not None:
        message = "the built-in network uses no covariates; train a model that does"
        listener(WarningEvent("unused-covariates", message))
    return replace(panel, covariates=None), replace(schema, covariates=())


def untrained_forecaster(
    past: Past, horizon: int, seasons: Sequence[Seasons], *, n_rows: int = MAX_LOOKBACK
) -> Forecaster:
    """Return the built-in network as `predict` uses it on series that it has not learnt from.

    Each series has one origin at most, of which it is told level, spread and `seasons`. None of
    its forecasts has more than `n_rows` rows before it.
    """
    lookback = min(wanted_lookback(seasons), n_rows)
    network = RNNForecaster.untrained(past, lookback=lookback, horizon=horizon, seasons=seasons)
    return with_calibration(network, None, network.names, untrained_from_us=UNTRAINED)


@dataclass(frozen=True)
class BuiltinFallback:
    """The built-in network for series that a trained one cannot forecast."""

    common: Seasons | None
    """The seasons of all series, where the user named them; else they are looked for."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast, see `Forecaster`; each series has one origin at most."""
        seasons, n_rows = seasons_of(past, self.common), max(int(past.cutoff.max()), 1)
        untrained = untrained_forecaster(past, horizon, seasons, n_rows=n_rows)
        return untrained.predict(past, horizon, quantiles)


def common_seasons(artifact: Artifact) -> Seasons | None:
    """Return the seasons that the user named for all series of a version, if any."""
    main, long = artifact.weights["seasons"][0].astype(int).tolist()
    return Seasons(main, long) if main else None


def seasons_by_name(artifact: Artifact, names: Sequence[str]) -> tuple[Seasons, ...]:
    """Return the seasons that a version knows of each series; none of one that is new."""
    rows = artifact.weights["seasons"][1:].astype(int).tolist()
    known = {name: Seasons(*row) for name, row in zip(artifact.names, rows, strict=True)}
    return tuple(known.get(name, Seasons()) for name in names)


def make_references(
    names: Collection[str], past: Past, horizon: int, seasons: Sequence[Seasons]
) -> dict[str, Forecaster]:
    """Return the expert and the built-in network as far as `names` has them.

    `past` has one origin in each series, whose `seasons` are told to the network.
    """
    references: dict[str, Forecaster] = {}
    if EXPERT in names:
        references[EXPERT] = ExpertForecaster()
    if BUILTIN_MODEL in names:
        references[BUILTIN_MODEL] = untrained_forecaster(past, horizon, seasons)
    return references
