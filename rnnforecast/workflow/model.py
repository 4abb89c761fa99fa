"""Saved models: load, list and activate versions, read new readings, predict; check outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rnnforecast.config.commands import check_format
from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.config.training import (
    BUILTIN_MODEL,
    DEFAULT_MODEL,
    EXPERT,
    NO_BOUNDS,
    PredictConfig,
    changed_fields,
    override,
)
from rnnforecast.data.arrays import take_names
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.limits import Limits
from rnnforecast.data.output import without_formulas, write_table
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import find_seasons
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import ModelError, NotEnoughDataError, Proposal, UsageError
from rnnforecast.evaluate.postprocess import (
    Fallback,
    Prediction,
    add_exceedance,
    clip_to_bounds,
    is_outside_bounds,
    predict_with_fallback,
    warnings_of,
    wrap_directions,
)
from rnnforecast.events import Listener, Notice, Recorder, WarningEvent, ignore
from rnnforecast.model.artifact import Artifact, is_sealed
from rnnforecast.model.artifact import load as load_artifact
from rnnforecast.model.builtin import builtin_version
from rnnforecast.sources.files import check_outputs, lies_beside
from rnnforecast.spec import QUANTILES
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
    check_drift,
    check_freshness,
    check_known_ahead,
    read_for_model,
    read_past,
    require_series,
    warn_unusual_series,
)
from rnnforecast.tables.schema import Schema, check_counters
from rnnforecast.units import parse_steps
from rnnforecast.workflow.advice import Task, trying_proposals
from rnnforecast.workflow.builtin import builtin_artifact, note_of_builtin, read_for_builtin
from rnnforecast.workflow.steps import untrained_forecaster, with_calibration

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster

_SETTLED = ("known", "past", "static", "categorical", "calendar", "holidays")
"""Options of covariates: they shape the network, so that a saved version cannot change them."""


_LEAST_UNTRAINED = 6
"""Rows of which half should have been read lately, for a forecast by the built-in network."""


@dataclass(frozen=True)
class Model:
    """A trained network, as `train` and `load` return it."""

    artifact: Artifact = field(repr=False)
    path: AnyPath | None = None
    """The model directory; None where nothing was saved."""
    version: str | None = None
    warnings: tuple[WarningEvent, ...] = ()
    timing: dict[str, float] | None = field(default=None, repr=False)
    is_trained_here: bool = field(default=False, repr=False)
    """Whether this process has trained it, so that its source is what the caller has named."""

    def predict(
        self,
        data: object = None,
        config: PredictConfig | None = None,
        *,
        trust_source: bool = False,
    ) -> Prediction:
        """Forecast the steps after the last reading of `data`, or of the training source."""
        return predict(data, model=self, config=config, trust_source=trust_source)

    def read(self, data: object, options: DataConfig, listener: Listener) -> tuple[Panel, Schema]:
        """Read a table as the training readings were, with the options of `resolve_options`.

        Raises `DataError` where columns, step or time zone do not match the training readings.
        """
        with trying_proposals(task_of(self.artifact, data, options), listener) as tried:
            return read_for_model(
                data,
                schema=self.artifact.schema,
                options=options,
                stats=training_stats_of(self.artifact),
                listener=tried,
            )

    @property
    def metrics(self) -> dict[str, Any]:
        """Held-out metrics by method, with the skill and the verdict."""
        return self.artifact.metrics


def model_directory(model: str | AnyPath) -> AnyPath:
    """Return the path of a model directory. Raises `UsageError` for the built-in network."""
    if model == BUILTIN_MODEL:
        raise UsageError(
            f"{BUILTIN_MODEL} is the built-in network, which has no versions",
            hint=f"name a model directory; one that is called so is  ./{BUILTIN_MODEL}",
        )
    return as_path(model)


def load(model: str | AnyPath = DEFAULT_MODEL, *, version: str | None = None) -> Model:
    """Load a saved version, by default the active one. Raises `ModelError` if it is damaged."""
    path = model_directory(model)
    directory = resolve_version(path, version)
    return Model(load_artifact(directory), path, directory.name)


def as_model(model: Model | str | AnyPath, *, version: str | None = None) -> Model:
    """Return a model as it is, and a model directory loaded. Raises `ModelError`."""
    return model if isinstance(model, Model) else load(model, version=version)


def versions(model: str | Path = DEFAULT_MODEL) -> list[dict[str, Any]]:
    """List the saved versions, oldest first: name, active or not, date, reason, skill, or damage.

    The reason is why a retraining made it, and whether it was better; None where `train` made it.
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
    """Activate a version; return the one that was active before, or None.

    The version is loaded first, so that a damaged one is never activated. Raises a
    `RnnForecastError`.
    """
    path = model_directory(model)
    load(path, version=version)
    with acquire(path / LOCK, listener=listener):
        remove_leftovers(path)
        before = active_version(path)
        if before != version:
            activate_version(path, version)
    return before


def restore(artifact: Artifact, *, is_adaptive: bool = True) -> Forecaster:
    """Make the forecaster of a saved version; imports torch. Raises `ModelError`.

    One that is adaptive scales its bands by how it forecast the readings since its training.
    """
    untrained_from_us = artifact.untrained_from_us if is_adaptive else None
    return with_calibration(
        restore_network(artifact),
        artifact.calibration,
        artifact.names,
        untrained_from_us=untrained_from_us,
    )


def restore_network(artifact: Artifact) -> RNNForecaster:
    """Make the network of a saved version, without its calibration; imports torch."""
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.restore(
        artifact.spec,
        artifact.config.network,
        names=artifact.names,
        weights=artifact.weights,
        self_test=artifact.self_test,
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
    config = replace(artifact.config, data=options)
    return Task.for_model(data, config, artifact.schema, training_stats_of(artifact))


def training_source(model: Model, *, is_trusted: bool) -> str:
    """Return the file that a version was trained on.

    Somebody else may have made the model, and a name in it must not lead to any file or host: the
    source counts where this user has trained on it, where it lies in the folder that holds the
    model, or with the model in one bucket; else only where it `is_trusted`. Raises `UsageError`,
    also where it was no file.
    """
    source = model.artifact.provenance.get("source")
    if not isinstance(source, str):
        raise UsageError(
            "the model was not trained on a file, so there is nothing to read again",
            hint="pass the readings:  rnnforecast predict DATA",
        )
    if is_trusted or model.is_trained_here or is_sealed(model.artifact.provenance):
        return source
    if model.path is None or not lies_beside(source, model.path):
        raise UsageError(
            f"the model was trained on {source}, which lies elsewhere than the model: who made the "
            "model may have named any file or host",
            code="untrusted-source",
            proposals=[Proposal(("--trust-source",), "if that is to be read again")],
            hint="or pass the readings:  rnnforecast predict DATA",
        )
    return source


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
            f"the model was trained with --exclude {lost}, and holds only the name of that file",
            code="exclude-not-stored",
            proposals=[Proposal(("--exclude", lost), "if it is there")],
            hint="or train again: new versions hold its content",
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
                hint=f"leave out --{name}, or train again with what you want",
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


def predict(
    data: object = None,
    *,
    model: Model | str | Path | None = None,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    version: str | None = None,
    output: str | Path | None = None,
    trust_source: bool = False,
    listener: Listener = ignore,
) -> Prediction:
    """Forecast the steps after the last reading; with `output`, write them to a file, or to `-`.

    Without a `model`, the one in the directory `model` forecasts; where there is none, or with
    `"builtin"`, the built-in network does, which has not learnt from these readings. Without
    `data`, the training source is read again: `training_source` says when it is trusted. Fields of
    `reading` that differ from their defaults, or that `explicit` names, override the model's
    reading options. Raises a `RnnForecastError`; a series that cannot be forecast is left out and
    named.
    """
    config = config or PredictConfig()
    if output is not None:
        check_format(str(output))
    events, inputs = Recorder(listener), {"what is known ahead": config.future}
    if model is None:
        has_default = version is not None or data is None or as_path(DEFAULT_MODEL).exists()
        model = DEFAULT_MODEL if has_default else BUILTIN_MODEL
    if model == BUILTIN_MODEL:
        options = load_excluded_times(reading or DataConfig())
        check_outputs(data, options, output=output, inputs=inputs)
        model, ready = prepare_builtin(data, config, options, events)
    else:
        model = as_model(model, version=version)
        options = resolve_options(model.artifact, reading, explicit)
        if data is None:
            data = training_source(model, is_trusted=trust_source)
        check_outputs(data, options, output=output, inputs=inputs)
        ready = prepare(model.artifact, data, config, options, events)

    prediction = forecast(ready, events)
    if output is not None:
        write_table(output_table(prediction.forecast, str(output), config, events), str(output))
    return replace(prediction, version=model.version, warnings=tuple(events.warnings))


@dataclass(frozen=True)
class PreparedForecast:
    """Inputs of a forecast, read and checked against the model. Made without torch."""

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


def prepare(
    artifact: Artifact,
    data: object,
    config: PredictConfig,
    options: DataConfig,
    events: Recorder,
    *,
    is_expected: Callable[[str], bool] | None = None,
) -> PreparedForecast:
    """Read and check the readings for a forecast.

    `is_expected` tells which series of the model must be among the readings, where these are only a
    part of all. Raises a `RnnForecastError`.
    """
    horizon = resolve_horizon(config, artifact)
    known = replace(training_stats_of(artifact), is_expected=is_expected)
    future = config.future
    if future is not None and not artifact.spec.n_known:
        message = "the model uses no covariate that is known ahead: --future is not read"
        events(WarningEvent("unused-future", message))
        future = None
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

    return _check(
        PreparedForecast(artifact, past, schema, config, options, horizon),
        known,
        events,
        is_whole=is_expected is None,
    )


def prepare_builtin(
    data: object, config: PredictConfig, options: DataConfig, events: Recorder
) -> tuple[Model, PreparedForecast]:
    """Read and check readings for the built-in network, and say that it forecasts them.

    Raises a `RnnForecastError`.
    """
    if config.max_drift is not None or config.require_series:
        name = "require-series" if config.require_series else "max-drift"
        raise UsageError(
            f"--{name} compares with what a network was trained on, and the built-in one was not",
            hint="leave it out, or train a network on these readings",
        )
    if config.future is not None:
        message = "the built-in network knows no covariates: --future is not read"
        events(WarningEvent("unused-future", message))
    panel, schema = read_for_builtin(data, options, events, as_of=config.as_of)
    artifact = builtin_artifact(panel, schema, options, horizon=config.horizon)
    events(Notice(note_of_builtin(panel, data)))
    ready = PreparedForecast(
        artifact, make_past(panel), schema, config, options, artifact.spec.horizon
    )
    stats = training_stats_of(artifact)
    # what is told of a series is what it is like now
    stats = replace(stats, center=np.full_like(stats.center, np.nan))
    return Model(artifact, version=builtin_version()), _check(ready, stats, events, is_whole=True)


def read_with_model(
    data: object,
    model: Model | str | AnyPath,
    reading: DataConfig | None,
    explicit: Collection[str],
    events: Recorder,
    *,
    output: str | Path | None = None,
) -> tuple[Model, Panel, DataConfig]:
    """Read all of a table as the training readings of a model were, or for the built-in network.

    Returns the options of reading, too.
    Raises a `RnnForecastError`.
    """
    if model == BUILTIN_MODEL:
        options = load_excluded_times(reading or DataConfig())
        check_outputs(data, options, output=output)
        panel, schema = read_for_builtin(data, options, events)
        artifact = builtin_artifact(panel, schema, options, horizon=None)
        return Model(artifact, version=builtin_version()), panel, options
    model = as_model(model)
    options = resolve_options(model.artifact, reading, explicit)
    check_outputs(data, options, output=output)
    return model, model.read(data, options, events)[0], options


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
        message = "the forecast is in-sample: the version has learnt from readings after "
        message += f"{past.axis.format(last_us)}, until {artifact.trained_until}"
        events(WarningEvent("in-sample", message))
    spec = artifact.spec
    warn_unusual_series(past, known, events, lookback=spec.lookback, horizon=spec.horizon)
    if config.require_series:
        require_series(past, known)
    if config.max_drift is not None:
        check_drift(past, known, lookback=spec.lookback, limit=config.max_drift)
    age_us = check_freshness(past, config, events)
    return replace(ready, age_us=age_us, is_in_sample=is_in_sample)


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
            hint=f"train again with  --horizon {config.horizon}",
        )
    return horizon


def forecast(
    ready: PreparedForecast, events: Recorder, *, forecaster: Forecaster | None = None
) -> Prediction:
    """Forecast every series that can be, within its bounds, and warn of the others.

    Without a `forecaster`, that of the saved version is made, which imports torch. Raises
    `NotEnoughDataError` where no series can be forecast.
    """
    spec, past, config = ready.artifact.spec, ready.past, ready.config
    max_gap = ready.options.max_gap_steps(past.step_us)
    is_untrained = ready.artifact.trained_until is None
    least_history = _LEAST_UNTRAINED if is_untrained else spec.least_history
    rule = Fallback(spec.lookback, least_history, spec.season, config.fallback, max_gap)
    needed = ~rule.lacks_history(past)
    unknown = check_known_ahead(past, ready.horizon, needed=needed)
    if unknown.any():
        message = "ended before the others, and what is known ahead does not begin there"
        events(WarningEvent.for_names("missing-future", message, take_names(past.names, unknown)))

    forecaster = forecaster or restore(ready.artifact)
    # The probability of exceeding a limit is interpolated from all trained quantiles.
    quantiles = sorted({0.5, *config.quantiles, *(QUANTILES if config.limits else ())})
    extra: dict[str, Forecaster] = {}
    if BUILTIN_MODEL in config.fallback:
        extra[BUILTIN_MODEL] = untrained_forecaster(past, ready.horizon, find_seasons(past))
    if EXPERT in config.fallback:
        from rnnforecast.model.experts import ExpertForecaster

        extra[EXPERT] = ExpertForecaster()
    prediction = predict_with_fallback(
        forecaster, past, ready.horizon, quantiles, rule, unknown=unknown, extra_forecasters=extra
    )
    for warning in warnings_of(prediction, least_history=rule.least_history):
        events(warning)
    if not prediction.forecast.names:
        raise NotEnoughDataError(
            "no series has three readings in its look-back, so nothing can be forecast",
            code="too-short",
            proposals=[Proposal(("--fallback", "seasonal-naive,naive"))],
            hint="pass newer readings",
        )

    angles = [name for name, rule in ready.options.agg_by_column.items() if rule == ANGLE]
    targets = ready.schema.targets if ready.schema.series is not None else ()
    signed = ready.schema.signed
    wrapped = wrap_directions(prediction.forecast, angles, targets, signed=signed)
    prediction = replace(prediction, forecast=wrapped)
    return _apply_limits(prediction, ready.artifact.limits, ready.schema, config, events)


def _apply_limits(
    prediction: Prediction,
    limits: Limits | None,
    schema: Schema,
    config: PredictConfig,
    listener: Listener,
) -> Prediction:
    """Clip the forecast to its bounds, and add the probabilities of exceeding the limits.

    Series that are not named stay inside of the `limits` that their readings rest on.
    """
    targets = schema.targets if schema.series is not None else ()
    ranges = config.ranges
    is_outside = is_outside_bounds(prediction.forecast, prediction.past, ranges, targets)
    if is_outside.any():
        message = "the newest readings lie outside of their --bounds, the forecast does not"
        names = take_names(prediction.forecast.names, is_outside)
        listener(WarningEvent.for_names("bounds", message, names))

    default = None
    if limits is not None and NO_BOUNDS not in config.bounds:
        default = limits.of(prediction.past, prediction.forecast.horizon)
    bounded = clip_to_bounds(prediction.forecast, ranges, targets, default)
    bounded, exceedances = add_exceedance(bounded, config.limits, ranges, targets, default)
    bounded = bounded.only(sorted({0.5, *config.quantiles}))
    return replace(prediction, forecast=bounded, exceedances=exceedances)


def output_table(
    forecast: Forecast, output: str, config: PredictConfig, listener: Listener
) -> pa.Table:
    """Return the table of a forecast for a file.

    Warns of series names that a spreadsheet would run as formulas, or escapes them.
    """
    names = without_formulas(forecast.names, output, listener, is_escaped=config.excel_safe)
    forecast = replace(forecast, names=names)
    return forecast.to_wide() if config.wide else forecast.to_arrow(config.quantiles)
