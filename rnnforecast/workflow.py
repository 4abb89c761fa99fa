"""The stories, each read from top to bottom: train, predict, show. Also the public functions.

A story wires the rooms together and decides nothing that a room could decide. It prints nothing: it
reports events and returns a result. What is slow to import is imported where it is first needed, so
that a damaged model is refused before torch is loaded.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnforecast.config import (
    Config,
    DataConfig,
    PredictConfig,
    WindowConfig,
    check_output,
    override,
    parse_steps,
)
from rnnforecast.errors import ModelError, NotEnoughDataError, QualityGateError, UsageError
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.operate import store

if TYPE_CHECKING:
    from rnnforecast.data.forecast import Forecast, Past
    from rnnforecast.data.panel import Panel
    from rnnforecast.data.planning import Plan
    from rnnforecast.data.schema import Schema
    from rnnforecast.evaluate.comparison import Comparison
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.model.artifact import Artifact
    from rnnforecast.model.forecaster import RNNForecaster

DEFAULT_MODEL = "model"


@dataclass(frozen=True)
class Model:
    """A trained network, as `train` and `load` return it."""

    artifact: Artifact
    path: Path | None = None
    """The model directory; None where nothing was saved."""
    version: str | None = None
    warnings: tuple[Warned, ...] = ()
    timing: dict[str, float] | None = None

    def predict(self, data: object = None, config: PredictConfig | None = None) -> Forecast:
        """Forecast the steps after the last reading of `data`, or of what it was trained on."""
        return predict(self, data, config=config).forecast

    @property
    def metrics(self) -> dict[str, Any]:
        """Held-out metrics by method, with the skill and the verdict."""
        return self.artifact.metrics


def train(
    data: object,
    *,
    model: str | Path | None = DEFAULT_MODEL,
    horizon: int | str | None = None,
    lookback: int | str | None = None,
    config: Config | None = None,
    require_skill: float | None = None,
    listener: Listener = ignore,
) -> Model:
    """Fit a network to readings, measure it on held-out ones, save it as a new version.

    `data` is a path, a pandas or an Arrow table. With `model=None` nothing is saved. Raises a
    `RnnForecastError`; a failed run leaves the version in force as it was.
    """
    from rnnforecast.data.planning import plan_training
    from rnnforecast.evaluate.comparison import not_compared
    from rnnforecast.model.provenance import describe_model

    _check_gate(require_skill)
    clock = _Clock()
    config = _with_windows(config or Config(), horizon, lookback)
    events = Recorder(listener, [])
    panel, schema = _read(data, config.data, events)
    clock.lap("read_s")
    plan = plan_training(panel, config, events)
    fitted = _fit(plan, events)
    clock.lap("fit_s")
    comparison = _compare(fitted, plan, events)
    clock.lap("evaluate_s")
    forecaster = _learn_on(fitted, plan, plan.split.everything, events)
    clock.lap("learn_on_s")
    artifact = describe_model(
        forecaster,
        plan,
        schema,
        metrics=comparison.to_json() if comparison else not_compared(),
        source=data,
        warnings=events.warnings,
    )
    if model is None:
        return Model(artifact, warnings=tuple(events.warnings), timing=clock.laps)
    path = Path(model)
    version = store.publish_version(path, artifact.pack(), now=datetime.now(UTC))
    _require(require_skill, comparison, version)
    store.put_in_force(path, version)
    return Model(artifact, path, version, tuple(events.warnings), clock.laps)


def predict(
    model: Model | str | Path = DEFAULT_MODEL,
    data: object = None,
    *,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    version: str | None = None,
    output: str | Path | None = None,
    listener: Listener = ignore,
) -> Prediction:
    """Forecast the steps after the last reading; with `output`, write them to a file, or to `-`.

    Without `data`, the source that the model was trained on is read again; `reading` overrides how.
    Raises a `RnnForecastError`; a series that cannot be forecast is left out and named.
    """
    from rnnforecast.data.writing import write_forecast

    config = config or PredictConfig()
    if output is not None:
        check_output(str(output))
    events = Recorder(listener, [])
    artifact = (model if isinstance(model, Model) else load(model, version=version)).artifact
    horizon = _horizon_of(config, artifact)
    past, schema = _read_past(artifact, data, config, reading or DataConfig(), events)
    forecaster = _restore(artifact)  # torch is imported here, once the readings are known to serve
    prediction = _forecast(forecaster, past, horizon, schema, config, events)
    if output is not None:
        write_forecast(prediction.forecast, str(output), config.quantiles)
    return prediction


def load(model: str | Path = DEFAULT_MODEL, *, version: str | None = None) -> Model:
    """Load a saved version, by default the one in force. Raises `ModelError` if it is damaged."""
    from rnnforecast.model import artifact

    directory = store.resolve_version(Path(model), version)
    return Model(artifact.load(directory), Path(model), directory.name)


def versions(model: str | Path = DEFAULT_MODEL) -> list[dict[str, Any]]:
    """List the saved versions, oldest first: name, in force or not, skill, or what is wrong."""
    from rnnforecast.model import artifact

    in_force = store.name_in_force(Path(model))
    listing: list[dict[str, Any]] = []
    for name in store.list_versions(Path(model)):
        item: dict[str, Any] = {"version": name, "in_force": name == in_force}
        try:
            loaded = artifact.load(store.resolve_version(Path(model), name))
            item |= {"skill": loaded.metrics["skill"], "learnt_until": loaded.learnt_until}
        except ModelError as error:
            item |= {"skill": None, "learnt_until": None, "damage": error.message}
        listing.append(item)
    return listing


class _Clock:
    """Durations of the parts of a story, on a clock that never goes back."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End a part."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self.laps["total_s"] = round(now - self._started, 3)
        self._last = now


def _with_windows(config: Config, horizon: int | str | None, lookback: int | str | None) -> Config:
    given = WindowConfig(
        horizon="auto" if horizon is None else str(horizon),
        lookback="auto" if lookback is None else str(lookback),
    )
    return replace(config, window=override(config.window, given))


def _read(data: object, config: DataConfig, listener: Listener) -> tuple[Panel, Schema]:
    from rnnforecast.data.reading import open_source
    from rnnforecast.data.schema import infer_schema
    from rnnforecast.data.timegrid import read_panel

    source = open_source(data, config)
    return read_panel(source, infer_schema(source, config, listener), config, listener)


def _fit(plan: Plan, listener: Listener) -> RNNForecaster:
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.fit(
        plan.split.train,
        plan.split.validation,
        task=plan.task,
        network=plan.config.network,
        config=plan.config.training,
        listener=listener,
    )


def _compare(fitted: RNNForecaster, plan: Plan, listener: Listener) -> Comparison | None:
    """Measure on the test part what the saved version will be one part later.

    The network first learns from the validation part as the saved one will learn from all parts.
    """
    from rnnforecast.data.split import test_origins
    from rnnforecast.evaluate.comparison import compare, truth_after

    split, task = plan.split, plan.task
    if split.test_from_us is None:
        return None
    forecaster = _learn_on(fitted, plan, split.before_test, listener)
    origins = test_origins(split, lookback=task.lookback, horizon=task.horizon)
    origins = origins.subset(origins.share_seen(task.lookback) > 0)  # a dead sensor has no forecast
    truth = truth_after(split.panel, origins, task.horizon)
    return compare(forecaster, origins, truth, horizon=task.horizon, season=task.season)


def _learn_on(fitted: RNNForecaster, plan: Plan, known: Past, listener: Listener) -> RNNForecaster:
    """Let the network learn from the readings after the train part too, where there are any."""
    if known.cutoff.sum() == plan.split.train.cutoff.sum():
        return fitted
    return fitted.learn_on(known, config=plan.config.training, listener=listener)


def _check_gate(skill: float | None) -> None:
    if skill is not None and not math.isfinite(skill):
        raise UsageError(f"--require-skill {skill} is not a number")


def _require(skill: float | None, comparison: Comparison | None, version: str) -> None:
    """Raise `QualityGateError` unless the network is as much better as the user asks for."""
    if skill is None:
        return
    reached = comparison.skill if comparison else None
    if reached is None or reached < skill:
        shown = "unknown" if reached is None else f"{reached:.1f} %"
        raise QualityGateError(
            f"the skill is {shown}, but --require-skill asks for {skill:g} %",
            code="require-skill",
            hint=f"version {version} was saved, but not put in force",
        )


def _horizon_of(config: PredictConfig, artifact: Artifact) -> int:
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
    artifact: Artifact, data: object, config: PredictConfig, reading: DataConfig, listener: Listener
) -> tuple[Past, Schema]:
    """Read new readings as the model's own were read, up to the as-of time."""
    from rnnforecast.data.forecast import past_of
    from rnnforecast.data.placing import trim
    from rnnforecast.data.reading import open_source
    from rnnforecast.data.schema import check_zone, match_schema
    from rnnforecast.data.stamps import parse_time_us
    from rnnforecast.data.timegrid import check_step, read_panel

    data = _source_of(artifact) if data is None else data
    options = override(artifact.config.data, reading)
    source = open_source(data, options)
    schema = match_schema(source, artifact.schema, options)
    panel, schema = read_panel(source, schema, options, listener)
    check_step(panel, artifact.schema)
    check_zone(schema, artifact.schema)
    _warn_vanished(panel, artifact, listener)
    if config.as_of is not None:
        seen = panel.rows_before(parse_time_us(config.as_of, schema.tz) + 1)
        panel = trim(panel.before(seen), is_wide=schema.series is None)
    return past_of(panel), schema


def _source_of(artifact: Artifact) -> str:
    source = artifact.provenance.get("source")
    if not isinstance(source, str):
        raise UsageError(
            "the model was not trained on a file, so there is nothing to read again",
            hint="pass the readings:  rnnforecast predict DATA",
        )
    return source


def _warn_vanished(panel: Panel, artifact: Artifact, listener: Listener) -> None:
    gone = sorted(set(artifact.names) - set(panel.names))
    if gone and artifact.schema.series:
        shown = ", ".join(gone[:5])
        listener(Warned("vanished-series", f"not in these readings: {shown}", len(gone)))


def _restore(artifact: Artifact) -> RNNForecaster:
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.restore(
        artifact.task,
        artifact.config.network,
        names=artifact.names,
        weights=artifact.weights,
        self_test=artifact.self_test,
    )


def _forecast(
    forecaster: RNNForecaster,
    past: Past,
    horizon: int,
    schema: Schema,
    config: PredictConfig,
    events: Recorder,
) -> Prediction:
    """Forecast every series that can be, and say which could not."""
    from rnnforecast.evaluate.fallback import predict_or_fall_back, warnings_of

    task = forecaster.network.task
    prediction = predict_or_fall_back(
        forecaster,
        past,
        horizon,
        sorted({0.5, *config.quantiles}),
        lookback=task.lookback,
        season=task.season,
        fallbacks=config.fallback,
    )
    for warning in warnings_of(prediction, lookback=task.lookback):
        events(warning)
    if not prediction.forecast.names:
        raise NotEnoughDataError(
            "no series has a reading in its look-back, so nothing can be forecast",
            code="too-short",
            hint="pass newer readings, or add  --fallback seasonal-naive,naive",
        )
    forecast = replace(prediction.forecast, tz=schema.tz)
    return replace(prediction, forecast=forecast, warnings=tuple(events.warnings))
