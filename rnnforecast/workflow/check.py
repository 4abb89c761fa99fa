"""`check`: read a table, infer its schema, profile it, propose the command that trains on it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from rnnforecast.config.fields import options_of
from rnnforecast.config.reading import DataConfig
from rnnforecast.data.cleaning import warn_of_oddities
from rnnforecast.data.grid import read_panel
from rnnforecast.data.match import open_table, read_matching, warn_of_strangers
from rnnforecast.data.profile import Role, Survey, roles, survey
from rnnforecast.data.schema import Schema, infer_schema
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.data.windows import past_of
from rnnforecast.evaluate.postprocess import warn_of_short
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.workflow.model import Model, check_outputs, known_of, reading_of


@dataclass(frozen=True)
class Check:
    """Columns, schema and profile of a table, and the command lines that use it."""

    source: str
    columns: tuple[Role, ...]
    schema: Schema
    survey: Survey
    warnings: tuple[Warned, ...]
    train: str
    """The command line to train on it."""
    predict: str | None = None
    """The command line to forecast from it, with the model that it was checked against."""

    @property
    def start(self) -> str:
        """The time of the first reading."""
        return self._format(int(self.survey.panel.start.min()))

    @property
    def end(self) -> str:
        """The time of the last reading."""
        panel = self.survey.panel
        return self._format(panel.end_us - panel.step_us)

    def _format(self, time_us: int) -> str:
        return format_stamp(time_us, self.schema.tz)

    @property
    def is_clean(self) -> bool:
        """Whether there is no warning."""
        return not self.warnings


def check(
    data: object,
    *,
    config: DataConfig | None = None,
    model: Model | None = None,
    given: Collection[str] = (),
    listener: Listener = ignore,
) -> Check:
    """Profile a table; with a model, check whether the model can forecast from it.

    Fields of `config` that differ from their defaults, or that `given` names, override the model's
    reading options. Raises a `RnnForecastError` for a table that cannot be used, or does not fit
    the model.
    """
    events = Recorder(listener, [])
    config = config or DataConfig()
    if model is not None:
        config = reading_of(model.artifact, config, given)
    check_outputs(data, config)

    time_column = None if model is None else model.artifact.schema.time
    source = open_table(data, config, events, time_column=time_column)
    if model is None:
        panel, schema = read_panel(source, infer_schema(source, config, events), config, events)
    else:
        spec, known = model.artifact.spec, known_of(model.artifact)
        panel, schema = read_matching(
            source, schema=model.artifact.schema, options=config, known=known, listener=events
        )
        past = past_of(panel)
        warn_of_oddities(panel, events, tz=schema.tz)
        warn_of_strangers(past, known, events, lookback=spec.lookback, horizon=spec.horizon)
        warn_of_short(past, events, lookback=spec.lookback)
    profile = survey(panel, schema.tz, events)
    for warning in profile.warnings:
        events(warning)

    path = str(data) if isinstance(data, str | Path) else "DATA"
    predict = None
    if model is not None:
        predict = shlex.join(["rnnforecast", "predict", path, "--model", str(model.path)])
    # Values that probably stand for missing readings are proposed as such.
    sentinels = sorted({f"{value:g}" for value in profile.sentinels})
    options = options_of(replace(config, na_values=(*config.na_values, *sentinels)))
    return Check(
        source=source.name,
        columns=roles(source.columns, schema, given=set(config.named_columns)),
        schema=schema,
        survey=profile,
        warnings=tuple(events.warnings),
        train=shlex.join(["rnnforecast", "train", path, *options]),
        predict=predict,
    )
