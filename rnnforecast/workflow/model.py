"""Models, saved or built in: load one, read new readings as it was trained, and predict."""

from __future__ import annotations

import glob
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pyarrow as pa

from rnnforecast.config.commands import (
    check_format,
    check_option_names,
    names_of_options,
    set_options,
)
from rnnforecast.config.reading import ANGLE, DataConfig
from rnnforecast.config.training import (
    BUILTIN_MODEL,
    DEFAULT_MODEL,
    EXPERT,
    NO_BOUNDS,
    PredictConfig,
)
from rnnforecast.data.arrays import take_names
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.limits import Limits
from rnnforecast.data.output import without_formulas, write_table
from rnnforecast.data.panel import Panel
from rnnforecast.errors import DataError, NotEnoughDataError, Proposal, UsageError
from rnnforecast.evaluate.postprocess import (
    Fallback,
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
from rnnforecast.model.builtin import builtin_artifact, builtin_version
from rnnforecast.model.forecaster import ExpertForecaster
from rnnforecast.sources.files import as_table, check_outputs, lies_beside
from rnnforecast.spec import QUANTILES
from rnnforecast.storage.remote import AnyPath, as_path
from rnnforecast.storage.versions import resolve_version
from rnnforecast.tables.cleaning import load_excluded_times
from rnnforecast.tables.match import check_known_ahead, read_for_model
from rnnforecast.tables.schema import Schema
from rnnforecast.workflow.advice import trying_proposals
from rnnforecast.workflow.prediction import Prediction, column_names
from rnnforecast.workflow.saved import (
    BuiltinFallback,
    PreparedForecast,
    check_builtin,
    common_seasons,
    model_directory,
    prepare,
    prepare_builtin,
    read_for_builtin,
    resolve_options,
    restore,
    task_of,
    training_stats_of,
)

if TYPE_CHECKING:
    from rnnforecast.config.keywords import PredictOptions

_LEAST_UNTRAINED = 6
"""Rows of which half should have been read lately, for a forecast by the built-in network."""


@dataclass(frozen=True, repr=False)
class Model:
    """A trained network, as `train` and `load` return it."""

    artifact: Artifact
    path: AnyPath | None = None
    """The model directory; None where nothing was saved."""
    version: str | None = None
    warnings: tuple[WarningEvent, ...] = ()
    timing: dict[str, float] | None = None
    is_trained_here: bool = False
    """Whether this process has trained it, so that its source is what the caller has named."""
    table: object = field(default=None, compare=False)
    """The table in memory that this process has trained it on; None where that was none."""

    def predict(
        self,
        data: object = None,
        config: PredictConfig | None = None,
        *,
        future: object = None,
        output: str | Path | None = None,
        trust_source: bool = False,
        listener: Listener = ignore,
        **options: Unpack[PredictOptions],
    ) -> Prediction:
        """Forecast the steps after the last reading of `data`, or of what it was trained on.

        It is `predict` with this model:

        >>> model = rf.load("model")
        >>> len(model.predict("readings.csv", horizon=6).to_pandas())
        6
        """
        return predict(
            data,
            model=self,
            config=config,
            future=future,
            output=output,
            trust_source=trust_source,
            listener=listener,
            **options,
        )

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
    def metrics(self) -> dict[str, dict[str, float | int | None]]:
        """Held-out metrics by method: `metrics["network"]["mase"]`. None where one is undefined.

        It is empty where nothing was held out. All that was measured, by lead and series too, is
        in `artifact.metrics`.
        """
        metrics: dict[str, dict[str, float | int | None]] = self.artifact.metrics["metrics"]
        return metrics

    @property
    def skill(self) -> float | None:
        """Percent by which the network's MASE is below that of the better naive method."""
        skill: float | None = self.artifact.metrics["skill"]
        return skill

    @property
    def verdict(self) -> str:
        """Verdict on the network, in a sentence."""
        return str(self.artifact.metrics["verdict"])

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else repr(str(self.path))
        return f"Model({place}, version {self.version}, horizon {self.artifact.spec.horizon} steps)"


def load(model: str | AnyPath = DEFAULT_MODEL, *, version: str | None = None) -> Model:
    """Load a saved version, by default the active one. Raises `ModelError` if it is damaged.

    >>> rf.load("model").metrics["network"]["mase"] > 0
    True
    """
    path = model_directory(model)
    directory = resolve_version(path, version)
    return Model(load_artifact(directory), path, directory.name)


def as_model(model: Model | str | AnyPath, *, version: str | None = None) -> Model:
    """Return a model as it is, and a model directory loaded. Raises `ModelError`."""
    return model if isinstance(model, Model) else load(model, version=version)


def training_source(model: Model, *, is_trusted: bool) -> str:
    """Return the file that a version was trained on.

    Somebody else may have made the model, and a name in it must not lead to any file or host: the
    source counts where this user has trained on it, where it lies in the folder that holds the
    model, or with the model in one bucket; else only where it `is_trusted`. Raises `UsageError`,
    also where it was no file, and `DataError` where the file is gone.
    """
    source = model.artifact.provenance.get("source")
    if not isinstance(source, str):
        raise UsageError(
            "the model was trained on a DataFrame or on standard input: nothing can be re-read",
            hint="pass the data as the argument DATA, in Python  model.predict(df)",
        )
    is_known = is_trusted or model.is_trained_here or is_sealed(model.artifact.provenance)
    if not is_known and (model.path is None or not lies_beside(source, model.path)):
        raise UsageError(
            f"the model was trained on {source}, which is outside the folder of the model; "
            "only read it again if you trust the model",
            code="untrusted-source",
            proposals=[Proposal(("--trust-source",), "to read it again")],
            hint="or pass the data as the argument DATA",
        )
    if _is_gone(source):
        raise DataError(
            f"{source}, which the model was trained on, does not exist",
            code="not-found",
            hint="pass the data as the argument DATA",
        )
    return source


def _is_gone(source: str) -> bool:
    """Tell whether a source is the path of a local file or folder, and nothing is there."""
    if not Path(source).is_absolute() or glob.has_magic(source):
        return False
    try:
        Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False  # reading it says what is wrong
    return False


def training_data(model: Model, *, is_trusted: bool) -> object:
    """Return what a version was trained on: the table in memory, or the file of `training_source`.

    Raises `UsageError`.
    """
    return model.table if model.table is not None else training_source(model, is_trusted=is_trusted)


def predict(
    data: object = None,
    *,
    model: Model | str | Path | None = None,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    version: str | None = None,
    future: object = None,
    output: str | Path | None = None,
    trust_source: bool = False,
    listener: Listener = ignore,
    **options: Unpack[PredictOptions],
) -> Prediction:
    """Forecast the steps after the last reading; with `output`, write them to a file, or to `-`.

    Without a `model`, the one in the directory `model` is used; if there is none, or with
    `"builtin"`, the built-in network, which was not trained on this data. Without `data`, the
    training source is read again if it is trusted. `data` and `future`, the future values of
    covariates, are paths or tables: pandas, Arrow, polars, DuckDB, or any object with
    `__arrow_c_stream__`. A missing reading is null or NaN. The keyword options are those of the
    command and override `config` and `reading`; reading options that are set, differ from their
    defaults, or are named in `explicit`, override the model's. Raises a `RnnForecastError`; a
    series that cannot be forecast is skipped and named.

    >>> forecast = rf.predict("readings.csv", quantiles=[0.05, 0.95], output="forecast.csv")
    >>> list(forecast.to_pandas())
    ['series', 'time', 'forecast', 'q5', 'q95']
    """
    check_option_names(predict, options, PredictConfig(), DataConfig())
    config = set_options(config or PredictConfig(), options)
    reading = set_options(reading or DataConfig(), options)
    explicit, data = names_of_options(explicit, options), as_table(data)
    future = config.future if future is None else as_table(future)
    if output is not None:
        check_format(str(output))
    events, inputs = Recorder(listener), {"the future values": future}
    if model is None:
        has_default = version is not None or data is None or as_path(DEFAULT_MODEL).is_dir()
        model = DEFAULT_MODEL if has_default else BUILTIN_MODEL
    if model == BUILTIN_MODEL:
        check_builtin(data, version)
        check_outputs(data, reading, output=output, inputs=inputs)
        ready = prepare_builtin(data, config, reading, events, has_future=future is not None)
        model = Model(ready.artifact, version=builtin_version())
    else:
        model = as_model(model, version=version)
        reading = resolve_options(model.artifact, reading, explicit)
        if data is None:
            data = training_data(model, is_trusted=trust_source)
        check_outputs(data, reading, output=output, inputs=inputs)
        ready = prepare(model.artifact, data, config, reading, events, future=future)

    prediction = forecast(ready, events)
    if output is not None:
        write_table(output_table(prediction.forecast, str(output), config, events), str(output))
    return replace(prediction, version=model.version, warnings=tuple(events.warnings))


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

    Returns the options of reading, too. Raises a `RnnForecastError`.
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


def forecast(
    ready: PreparedForecast, events: Recorder, *, forecaster: Forecaster | None = None
) -> Prediction:
    """Forecast every series that can be, within its bounds, and warn of the others.

    Without a `forecaster`, that of the saved version is made. Raises `NotEnoughDataError` where no
    series can be forecast.
    """
    spec, past, config = ready.artifact.spec, ready.past, ready.config
    max_gap = ready.options.max_gap_steps(past.step_us)
    is_untrained = ready.artifact.trained_until is None
    least_history = _LEAST_UNTRAINED if is_untrained else spec.least_history
    rule = Fallback(spec.lookback, least_history, spec.season, config.fallback, max_gap)
    needed = ~rule.lacks_history(past)
    unknown = check_known_ahead(past, ready.horizon, needed=needed)
    if unknown.any():
        message = "ended earlier than the others, and the future values do not start there"
        events(WarningEvent.for_names("missing-future", message, take_names(past.names, unknown)))

    forecaster = forecaster or restore(ready.artifact)
    # The probability of exceeding a limit is interpolated from all trained quantiles.
    quantiles = sorted({0.5, *config.quantiles, *(QUANTILES if config.limits else ())})
    extra: dict[str, Forecaster] = {}
    if BUILTIN_MODEL in config.fallback:
        extra[BUILTIN_MODEL] = BuiltinFallback(common_seasons(ready.artifact))
    if EXPERT in config.fallback:
        extra[EXPERT] = ExpertForecaster()
    outcome = predict_with_fallback(
        forecaster, past, ready.horizon, quantiles, rule, unknown=unknown, extra_forecasters=extra
    )
    for warning in warnings_of(outcome, least_history=rule.least_history):
        events(warning)
    if not outcome.forecast.names:
        raise NotEnoughDataError(
            "no series has at least three readings in its look-back window",
            code="too-short",
            proposals=[Proposal(("--fallback", "seasonal-naive,naive"))],
            hint="use newer data",
        )

    schema = ready.schema
    angles = [name for name, rule in ready.options.agg_by_column.items() if rule == ANGLE]
    targets = schema.targets if schema.series is not None else ()
    prediction = Prediction(
        wrap_directions(outcome.forecast, angles, targets, signed=schema.signed),
        outcome.left_out,
        outcome.short_history,
        outcome.fallback,
        outcome.past,
        columns=column_names(schema),
    )
    return _apply_limits(prediction, ready.artifact.limits, targets, config, events)


def _apply_limits(
    prediction: Prediction,
    limits: Limits | None,
    targets: tuple[str, ...],
    config: PredictConfig,
    listener: Listener,
) -> Prediction:
    """Clip the forecast to its bounds, and add the probabilities of exceeding the limits.

    `targets` are those of a long table. Series that are not named stay inside of the `limits` that
    their readings rest on.
    """
    ranges = config.ranges
    is_outside = is_outside_bounds(prediction.forecast, prediction.past, ranges, targets)
    if is_outside.any():
        message = "the newest readings are outside --bounds; the forecast is clipped to them"
        names = take_names(prediction.forecast.names, is_outside)
        listener(WarningEvent.for_names("bounds", message, names))

    default, bounded = None, prediction.forecast
    if limits is not None and NO_BOUNDS not in config.bounds:
        default = limits.of(prediction.past, bounded.horizon)
        bounded = limits.without_falls(bounded, prediction.past)
    bounded = clip_to_bounds(bounded, ranges, targets, default)
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
