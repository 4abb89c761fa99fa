"""`check`: read a table, infer its schema, profile it, propose the command that trains on it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from rnnforecast.config.fields import to_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.data.cleaning import warn_of_suspect_readings
from rnnforecast.data.match import read_inferred, read_matching, warn_unusual_series
from rnnforecast.data.profile import ColumnRole, Profile, column_roles, profile_panel
from rnnforecast.data.schema import Schema
from rnnforecast.data.timestamps import format_timestamp
from rnnforecast.data.windows import make_past
from rnnforecast.evaluate.postprocess import warn_of_short_history
from rnnforecast.events import Listener, Recorder, WarningEvent, ignore
from rnnforecast.sources.source import open_table
from rnnforecast.workflow.model import Model, check_outputs, resolve_options, training_stats_of


@dataclass(frozen=True)
class Check:
    """Columns, schema and profile of a table, and the command lines that use it."""

    source: str
    columns: tuple[ColumnRole, ...]
    schema: Schema
    profile: Profile
    warnings: tuple[WarningEvent, ...]
    train: str
    """The command line to train on it."""
    predict: str | None = None
    """The command line to forecast from it, with the model that it was checked against."""

    @property
    def start(self) -> str:
        """The time of the first reading."""
        return self._format(int(self.profile.panel.start.min()))

    @property
    def end(self) -> str:
        """The time of the last reading."""
        panel = self.profile.panel
        return self._format(panel.end_us - panel.step_us)

    def _format(self, time_us: int) -> str:
        return format_timestamp(time_us, self.schema.tz)

    @property
    def is_clean(self) -> bool:
        """Whether there is no warning."""
        return not self.warnings


def check(
    data: object,
    *,
    config: DataConfig | None = None,
    model: Model | None = None,
    explicit: Collection[str] = (),
    listener: Listener = ignore,
) -> Check:
    """Profile a table; with a model, check whether the model can forecast from it.

    Fields of `config` that differ from their defaults, or that `explicit` names, override the
    model's reading options. Raises a `RnnForecastError` for a table that cannot be used, or does
    not fit the model.
    """
    events = Recorder(listener)
    config = config or DataConfig()
    if model is not None:
        config = resolve_options(model.artifact, config, explicit)
    check_outputs(data, config)

    stored = None if model is None else model.artifact.schema
    names = (stored.time, stored.series) if stored else (None, None)
    source = open_table(data, config, events, time_column=names[0], series_column=names[1])
    if model is None:
        panel, schema = read_inferred(source, config, events)
    else:
        spec, known = model.artifact.spec, training_stats_of(model.artifact)
        panel, schema = read_matching(
            source, schema=model.artifact.schema, options=config, stats=known, listener=events
        )
        past = make_past(panel)
        warn_of_suspect_readings(panel, events, tz=schema.tz)
        warn_unusual_series(past, known, events, lookback=spec.lookback, horizon=spec.horizon)
        warn_of_short_history(past, events, lookback=spec.lookback)
    profile = profile_panel(panel, schema.tz, events)
    for warning in profile.warnings:
        events(warning)

    path = str(data) if isinstance(data, str | Path) else "DATA"
    predict = None
    if model is not None:
        predict = shlex.join(["rnnforecast", "predict", path, "--model", str(model.path)])
    # Values that probably stand for missing readings are proposed as such.
    sentinels = sorted({f"{value:g}" for value in profile.sentinels})
    options = to_arguments(replace(config, na_values=(*config.na_values, *sentinels)))
    return Check(
        source=source.name,
        columns=column_roles(source.columns, schema, explicit=set(config.named_columns)),
        schema=schema,
        profile=profile,
        warnings=tuple(events.warnings),
        train=shlex.join(["rnnforecast", "train", path, *options]),
        predict=predict,
    )
