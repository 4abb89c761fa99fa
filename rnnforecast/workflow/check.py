"""`check`: open a table, infer its schema, profile it, propose the command that trains."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from rnnforecast.config.fields import options_of
from rnnforecast.config.reading import DataConfig
from rnnforecast.data.cleaning import warn_of_oddities
from rnnforecast.data.grid import read_panel
from rnnforecast.data.match import read_matching, warn_of_strangers
from rnnforecast.data.panel import Panel
from rnnforecast.data.profile import Role, Survey, roles, survey
from rnnforecast.data.schema import Schema, infer_schema
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.data.windows import past_of
from rnnforecast.evaluate.postprocess import warn_of_short
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.sources.source import Source, join_time, open_source, rename
from rnnforecast.workflow.model import Model, check_outputs, known_of, reading_of


@dataclass(frozen=True)
class Check:
    """What is in a table, and whether it can be used."""

    source: str
    columns: tuple[Role, ...]
    schema: Schema
    survey: Survey
    warnings: tuple[Warned, ...]
    train: str
    """The command line to train on it."""
    predict: str | None = None
    """The command line to forecast from it, with the model that it was held against."""

    @property
    def start(self) -> str:
        """The time of the first reading."""
        return self._format(int(self.survey.panel.start.min()))

    @property
    def end(self) -> str:
        """The time of the last one."""
        panel = self.survey.panel
        return self._format(panel.end_us - panel.step_us)

    def _format(self, time_us: int) -> str:

        return format_stamp(time_us, self.schema.tz)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is strange."""
        return not self.warnings


def check(
    data: object,
    *,
    config: DataConfig | None = None,
    model: Model | None = None,
    given: Collection[str] = (),
    listener: Listener = ignore,
) -> Check:
    """Say what is in a table; with a model, whether the model can forecast from it.

    A model is asked how to read; what differs from the defaults in `config` overrides it, and so do
    its fields that `given` names. Raises a `RnnForecastError` for a table that cannot be used, or
    does not fit the model.
    """
    events = Recorder(listener, [])
    config = config or DataConfig()
    if model is not None:
        config = reading_of(model.artifact, config, given)
    check_outputs(data, config)
    source = _open(data, config, model, events)
    panel, schema = _read(source, config, model, events)
    found = survey(panel, schema.tz, events)
    for warning in found.warnings:
        events(warning)
    return Check(
        source=source.name,
        columns=roles(source.columns, schema, given=set(config.named_columns)),
        schema=schema,
        survey=found,
        warnings=tuple(events.warnings),
        train=_command(data, config, found),
        predict=None if model is None else _predict_command(data, model),
    )


def _open(data: object, config: DataConfig, model: Model | None, listener: Listener) -> Source:

    source = rename(open_source(data, config, listener), config.map)
    return join_time(source, config.time or (model.artifact.schema.time if model else None))


def _read(
    source: Source, config: DataConfig, model: Model | None, listener: Listener
) -> tuple[Panel, Schema]:
    """Read the table; a model's columns, step and series are held against it."""
    if model is None:
        return read_panel(source, infer_schema(source, config, listener), config, listener)
    spec, known = model.artifact.spec, known_of(model.artifact)
    panel, schema = read_matching(
        source, schema=model.artifact.schema, options=config, known=known, listener=listener
    )
    past = past_of(panel)
    warn_of_oddities(panel, listener, tz=schema.tz)
    warn_of_strangers(past, known, listener, lookback=spec.lookback, horizon=spec.horizon)
    warn_of_short(past, listener, lookback=spec.lookback)
    return panel, schema


def _predict_command(data: object, model: Model) -> str:
    """Return the line that forecasts from the table with a saved model."""
    path = str(data) if isinstance(data, str | Path) else "DATA"
    return shlex.join(["rnnforecast", "predict", path, "--model", str(model.path)])


def _command(data: object, config: DataConfig, found: Survey) -> str:
    """Return the line that trains on the table, with what is missing by all appearance left out."""
    strange = {f"{value:g}" for value in found.sentinels}
    config = replace(config, na_values=(*config.na_values, *sorted(strange)))
    path = str(data) if isinstance(data, str | Path) else "DATA"
    return shlex.join(["rnnforecast", "train", path, *options_of(config)])
