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
from rnnforecast.data.windows import Past
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
from rnnforecast.events import Listener, Recorder, WarningEvent, ignore
from rnnforecast.model.artifact import Artifact, is_sealed
from rnnforecast.model.artifact import load as load_artifact
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
from rnnforecast.workflow.steps import with_calibration

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster

_SETTLED = ("known", "past", "static", "categorical", "calendar", "holidays")
"""Options of covariates: they shape the network, so that a saved version cannot change them."""


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
        return predict(self, data, config=config, trust_source=trust_source)

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


def load(model: str | AnyPath = DEFAULT_MODEL, *, version: str | None = None) -> Model:
    """Load a saved version, by default the active one. Raises `ModelError` if it is damaged."""
    path = as_path(model)
    directory = resolve_version(path, version)
    return Model(load_artifact(directory), path, directory.name)


def as_model(model: Model | str | AnyPath, *, version: str | None = None) -> Model:
    """Return a model as it is, and a model directory loaded. Raises `ModelError`."""
    return model if isinstance(model, Model) else load(model, version=version)


def versions(model: str | Path = DEFAULT_MODEL) -> list[dict[str, Any]]:
    """List the saved versions, oldest first: name, active or not, date, reason, skill, or damage.

    The reason is why a retraining made it, and whether it was better; None where `train` made it.
    """
    path = as_path(model)
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
    path = as_path(model)
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
    untrained_from_us = None
    if is_adaptive:
        schema = artifact.schema
        assert schema.step_us is not None
        untrained_from_us = schema.axis.parse(artifact.trained_until) + schema.step_us
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
    model: Model | str | Path = DEFAULT_MODEL,
    data: object = None,
    *,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    version: str | None = None,
    output: str | Path | None = None,
    trust_source: bool = False,
    listener: Listener = ignore,
) -> Prediction:
    """Forecast the steps after the last reading; with `output`, write them to a file, or to `-`.

    Without `data`, the training source is read again: `training_source` says when it is trusted.
    Fields of `reading` that differ from their defaults, or that `explicit` names, override the
    model's reading options.
    Raises a `RnnForecastError`; a series that cannot be forecast is left out and named.
    """
    config = config or PredictConfig()
    if output is not None:
        check_format(str(output))
    events = Recorder(listener)
    model = as_model(model, version=version)
    options = resolve_options(model.artifact, reading, explicit)
    if data is None:
        data = training_source(model, is_trusted=trust_source)
    check_outputs(data, options, output=output, inputs={"what is known ahead": config.future})

    prediction = forecast(prepare(model.artifact, data, config, options, events), events)
    if output is not None:
        write_table(output_table(prediction.forecast, str(output), config, events), str(output))
    return replace(prediction, warnings=tuple(events.warnings))


@dataclass(frozen=True)
class PreparedForecast:
    """Inputs of a forecast, read and checked against the model. Made without torch."""

    artifact: Artifact
    past: Past
    schema: Schema
    config: PredictConfig
    options: DataConfig
    horizon: int
    age_us: int
    """Age of the newest reading, in microseconds."""
    is_in_sample: bool
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
    spec, horizon = artifact.spec, resolve_horizon(config, artifact)
    known = replace(training_stats_of(artifact), is_expected=is_expected)
    future = config.future
    if future is not None and not spec.n_known:
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

    # A bucket of slow sensors ends before the others that the version was trained on.
    last_us = int(past.cutoff_time.max(initial=-1))
    is_in_sample = is_expected is None and last_us < past.axis.parse(artifact.trained_until)
    if is_in_sample:
        message = "the forecast is in-sample: the version has learnt from readings after "
        message += f"{past.axis.format(last_us)}, until {artifact.trained_until}"
        events(WarningEvent("in-sample", message))
    warn_unusual_series(past, known, events, lookback=spec.lookback, horizon=spec.horizon)
    if config.require_series:
        require_series(past, known)
    if config.max_drift is not None:
        check_drift(past, known, lookback=spec.lookback, limit=config.max_drift)
    age_us = check_freshness(past, config, events)
    return PreparedForecast(artifact, past, schema, config, options, horizon, age_us, is_in_sample)


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
    rule = Fallback(spec.lookback, spec.least_history, spec.season, config.fallback, max_gap)
    needed = ~rule.lacks_history(past)
    unknown = check_known_ahead(past, ready.horizon, needed=needed)
    if unknown.any():
        message = "ended before the others, and what is known ahead does not begin there"
        events(WarningEvent.for_names("missing-future", message, take_names(past.names, unknown)))

    forecaster = forecaster or restore(ready.artifact)
    # The probability of exceeding a limit is interpolated from all trained quantiles.
    quantiles = sorted({0.5, *config.quantiles, *(QUANTILES if config.limits else ())})
    extra: dict[str, Forecaster] = {}
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
