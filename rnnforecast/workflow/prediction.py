"""The story of forecasting: load a version, read, forecast what can be, write."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.config import DEFAULT_MODEL, QUANTILES, PredictConfig
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import parse_steps
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.formats import check_format
from rnnforecast.workflow.outputs import check_outputs
from rnnforecast.workflow.saved import Model, known_of, load
from rnnforecast.workflow.settled import reading_of
from rnnforecast.workflow.steps import with_calibration

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from rnnforecast.data.forecast import Forecast, Forecaster
    from rnnforecast.data.newer import Known
    from rnnforecast.data.past import Past
    from rnnforecast.data.schema import Schema
    from rnnforecast.evaluate.fallback import Fallback, Prediction
    from rnnforecast.model.artifact import Artifact
    from rnnforecast.model.forecaster import RNNForecaster


def predict(
    model: Model | str | Path = DEFAULT_MODEL,
    data: object = None,
    *,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    version: str | None = None,
    output: str | Path | None = None,
    listener: Listener = ignore,
) -> Prediction:
    """Forecast the steps after the last reading; with `output`, write them to a file, or to `-`.

    Without `data`, the source that the model was trained on is read again. What differs from the
    defaults in `reading` overrides how, and so do its fields that `given` names. Raises a
    `RnnForecastError`; a series that cannot be forecast is left out and named.
    """
    from rnnforecast.data.writing import write_table

    config = config or PredictConfig()
    if output is not None:
        check_format(str(output))
    events = Recorder(listener, [])
    artifact = (model if isinstance(model, Model) else load(model, version=version)).artifact
    options = reading_of(artifact, reading, given)
    source = artifact.provenance["source"] if data is None else data
    check_outputs(source, options, output=output, others={"what is known ahead": config.future})
    prediction = forecast(prepare(artifact, data, config, options, events), events)
    if output is not None:
        write_table(table_to_write(prediction.forecast, str(output), config, events), str(output))
    return replace(prediction, warnings=tuple(events.warnings))


@dataclass(frozen=True)
class Ready:
    """What a forecast needs: read, held against the model and found to serve. No torch yet."""

    artifact: Artifact
    past: Past
    schema: Schema
    config: PredictConfig
    options: DataConfig
    horizon: int
    age_us: int
    """Age of the newest reading."""


def prepare(
    artifact: Artifact,
    data: object,
    config: PredictConfig,
    options: DataConfig,
    events: Recorder,
    *,
    is_expected: Callable[[str], bool] | None = None,
) -> Ready:
    """Read the readings that a saved version forecasts from; without `data`, its own again.

    Where they are a part of all, `is_expected` tells which series should be among them.
    """
    from rnnforecast.data.freshness import check_fresh

    horizon = horizon_of(config, artifact)
    known = replace(known_of(artifact), is_expected=is_expected)
    past, schema = _read_past(artifact, data, config, options, known, events)
    _check_series(past, artifact, config, known, events)
    age_us = check_fresh(past, schema.tz, config, events)
    return Ready(artifact, past, schema, config, options, horizon, age_us)


def forecast(ready: Ready, events: Recorder, *, forecaster: Forecaster | None = None) -> Prediction:
    """Forecast every series that can be; torch is imported here, but for who has a forecaster."""
    from rnnforecast.evaluate.fallback import Fallback

    task, past, config = ready.artifact.task, ready.past, ready.config
    max_gap = ready.options.max_gap_steps(past.step_us)
    rule = Fallback(task.lookback, task.season, config.fallback, max_gap)
    unknown = _unknown_ahead(past, ready.horizon, ready.schema, rule, events)
    prediction = _forecast(forecaster or restore(ready.artifact), ready, rule, unknown, events)
    return _limited(prediction, ready.schema, config, events)


def _limited(
    prediction: Prediction, schema: Schema, config: PredictConfig, listener: Listener
) -> Prediction:
    """Keep the forecast within its bounds, and say how likely readings go above their limits."""
    from rnnforecast.data.panel import pick
    from rnnforecast.evaluate.bounding import exceeding, outside, within

    targets = schema.targets if schema.series is not None else ()
    ranges = config.ranges
    beyond = outside(prediction.forecast, prediction.past, ranges, targets)
    if beyond.any():
        what = "the newest readings lie outside of their --bounds, the forecast does not"
        listener(Warned.naming("bounds", what, pick(prediction.forecast.names, beyond)))
    forecast = within(prediction.forecast, ranges, targets)
    forecast, found = exceeding(forecast, config.limits, ranges, targets)
    forecast = forecast.only(sorted({0.5, *config.quantiles}))
    return replace(prediction, forecast=forecast, exceedances=found)


def table_to_write(
    forecast: Forecast, output: str, config: PredictConfig, listener: Listener
) -> pa.Table:
    """Return what is written; names that a spreadsheet would run are said, or marked as text."""
    from rnnforecast.data.writing import names_like_formulas, without_formulas

    formulas = names_like_formulas(forecast, output)
    if formulas and config.excel_safe:
        forecast = without_formulas(forecast)
    elif formulas:
        what = "spreadsheets run names like these as formulas (--excel-safe marks them as text)"
        listener(Warned.naming("formula", what, formulas))
    return forecast.to_arrow(config.quantiles)


def horizon_of(config: PredictConfig, artifact: Artifact) -> int:
    """Return how many steps are forecast. Raises `UsageError` for more than were trained."""
    task, step_us = artifact.task, artifact.schema.step_us
    if config.horizon is None:
        return task.horizon
    assert step_us is not None
    horizon = parse_steps(config.horizon, step_us=step_us, name="horizon", limit=10**9)
    if horizon > task.horizon:
        raise UsageError(
            f"--horizon {config.horizon} is {horizon} steps, but the model was trained for "
            f"{task.horizon}",
            hint=f"train again with  --horizon {config.horizon}",
        )
    return horizon


def _read_past(
    artifact: Artifact,
    data: object,
    config: PredictConfig,
    options: DataConfig,
    known: Known,
    listener: Listener,
) -> tuple[Past, Schema]:
    """Read new readings as the model's own were."""
    from rnnforecast.data.newer import read_past

    return read_past(
        source_of(artifact) if data is None else data,
        schema=artifact.schema,
        options=options,
        as_of=config.as_of,
        future=_future_of(config, artifact, listener),
        known=known,
        listener=listener,
    )


def _check_series(
    past: Past, artifact: Artifact, config: PredictConfig, known: Known, listener: Listener
) -> None:
    """Say what is strange about the readings beside those that the network knows."""
    from rnnforecast.data.newer import check_drift, require_series, warn_of_strangers

    task = artifact.task
    warn_of_strangers(past, known, listener, lookback=task.lookback, horizon=task.horizon)
    if config.require_series:
        require_series(past, known)
    if config.max_drift is not None:
        check_drift(past, known, lookback=task.lookback, limit=config.max_drift)


def _unknown_ahead(
    past: Past, horizon: int, schema: Schema, rule: Fallback, listener: Listener
) -> NDArray[np.bool_]:
    """`(origin,)`: which series the network cannot forecast as what comes is not known; say so."""
    from rnnforecast.data.future import check_known_ahead
    from rnnforecast.data.panel import pick

    unknown = check_known_ahead(past, horizon, schema.tz, needed=~rule.lacks_history(past))
    if unknown.any():
        what = "ended before the others, and what is known ahead does not begin there"
        listener(Warned.naming("missing-future", what, pick(past.names, unknown)))
    return unknown


def _future_of(config: PredictConfig, artifact: Artifact, listener: Listener) -> str | None:
    """Return the file with what is known ahead; a network that sees nothing of it needs none."""
    if config.future is not None and not artifact.task.n_known:
        message = "the model uses no covariate that is known ahead: --future is not read"
        listener(Warned("unused-future", message))
        return None
    return config.future


def source_of(artifact: Artifact) -> str:
    """Return the file that a version was trained on. Raises `UsageError` where it was none."""
    source = artifact.provenance.get("source")
    if not isinstance(source, str):
        raise UsageError(
            "the model was not trained on a file, so there is nothing to read again",
            hint="pass the readings:  rnnforecast predict DATA",
        )
    return source


def restore(artifact: Artifact) -> Forecaster:
    """Make the forecaster of a saved version; torch is imported here. Raises `ModelError`."""
    return with_calibration(restore_network(artifact), artifact.calibration, artifact.names)


def restore_network(artifact: Artifact) -> RNNForecaster:
    """Make the network of a saved version, whose quantiles are as it learnt them."""
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.restore(
        artifact.task,
        artifact.config.network,
        names=artifact.names,
        weights=artifact.weights,
        self_test=artifact.self_test,
    )


def _forecast(
    forecaster: Forecaster,
    ready: Ready,
    rule: Fallback,
    unknown: NDArray[np.bool_],
    events: Recorder,
) -> Prediction:
    """Forecast every series that can be, and say which could not."""
    from rnnforecast.evaluate.fallback import predict_or_fall_back, warnings_of

    config = ready.config
    quantiles = sorted({0.5, *config.quantiles, *(QUANTILES if config.limits else ())})
    prediction = predict_or_fall_back(
        forecaster, ready.past, ready.horizon, quantiles, rule, unknown=unknown
    )
    for warning in warnings_of(prediction, lookback=rule.lookback):
        events(warning)
    if not prediction.forecast.names:
        raise NotEnoughDataError(
            "no series has a reading in its look-back, so nothing can be forecast",
            code="too-short",
            hint="pass newer readings, or add  --fallback seasonal-naive,naive",
        )
    return replace(prediction, forecast=replace(prediction.forecast, tz=ready.schema.tz))
