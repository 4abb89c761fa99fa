"""`check`: read a table, infer its schema, profile it, propose the command that trains on it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from rnnforecast.config.commands import check_option_names, names_of_options, set_options
from rnnforecast.config.fields import to_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config
from rnnforecast.data.panel import Panel
from rnnforecast.data.setup import set_up_training
from rnnforecast.data.windows import make_past
from rnnforecast.errors import NotEnoughDataError, Proposal, option_for_each
from rnnforecast.evaluate.postprocess import Fallback, warn_of_short_history
from rnnforecast.events import Listener, Recorder, WarningEvent, ignore
from rnnforecast.sources.files import as_table, check_outputs
from rnnforecast.tables.cleaning import load_excluded_times, warn_of_suspect_readings
from rnnforecast.tables.match import read_inferred, warn_unusual_series
from rnnforecast.tables.profile import ColumnRole, Profile, column_roles, profile_panel
from rnnforecast.tables.quality import texts_of_sentinel
from rnnforecast.tables.resample import drop_other_steps
from rnnforecast.tables.schema import Schema
from rnnforecast.workflow.advice import MAX_SHARE, Task, trying_proposals, with_harmless
from rnnforecast.workflow.model import Model, as_model
from rnnforecast.workflow.saved import resolve_options, task_of, training_stats_of

if TYPE_CHECKING:
    from rnnforecast.config.keywords import ReadingOptions

_REFUSALS = ("too-short", "too-sparse")
"""Codes of the errors with which `train` refuses readings that can be read."""


@dataclass(frozen=True, repr=False)
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
        panel = self.profile.panel
        return panel.axis.format(int(panel.start.min()))

    @property
    def end(self) -> str:
        """The time of the last reading."""
        panel = self.profile.panel
        return panel.axis.format(panel.end_us - panel.step_us)

    @property
    def findings(self) -> tuple[WarningEvent, ...]:
        """What is strange about the readings: each has a `code`, a `message` and a `text`."""
        return self.warnings

    @property
    def is_clean(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    def __repr__(self) -> str:
        n_series, codes = self.profile.panel.n_series, [item.code for item in self.findings]
        return f"Check({n_series} series from {self.start} to {self.end}, findings: {codes})"


def check(
    data: object,
    *,
    config: DataConfig | None = None,
    model: Model | str | Path | None = None,
    version: str | None = None,
    explicit: Collection[str] = (),
    listener: Listener = ignore,
    **options: Unpack[ReadingOptions],
) -> Check:
    """Profile a table; with a model, check whether the model can forecast from it.

    `data` is a path or a table, as for `train`. The keyword options are those of the command and
    override `config`; options that are set, or named in `explicit`, override the model's reading
    options. Raises a `RnnForecastError` if the table cannot be used or does not fit the model.

    >>> result = rf.check("readings.csv", known=["setpoint"])
    >>> [finding.code for finding in result.findings]
    []
    >>> result.train
    'rnnforecast train readings.csv --known setpoint'
    """
    events, data = Recorder(listener), as_table(data)
    check_option_names(check, options, DataConfig())
    config = set_options(config or DataConfig(), options)
    model = None if model is None else as_model(model, version=version)
    if model is not None:
        explicit = names_of_options(explicit, options)
        config = resolve_options(model.artifact, config, explicit)
    check_outputs(data, config)
    config = load_excluded_times(config)

    task = Task(data, Config(config)) if model is None else task_of(model.artifact, data, config)
    with trying_proposals(task, events) as listener:
        source = task.open(data, config, listener)
        if model is None:
            # Series of a longer step are shown; training leaves them out.
            panel, schema = read_inferred(source, config, listener, keeps_other_steps=True)
            _warn_unless_trainable(drop_other_steps(panel, schema)[0], task.config, listener)
        else:
            panel, schema = task.read(source, config, listener)
            _warn_of_misfit(panel, model, listener)
        profile = profile_panel(panel, listener)
        for warning in profile.warnings:
            # a range holds for the counts of a counter, not for what it counts in a step
            proposals = (p for p in warning.proposals if not _is_of_counter(p, schema, config))
            listener(replace(warning, proposals=tuple(proposals)))

    path = str(data) if isinstance(data, str | Path) else "DATA"
    predict = ["rnnforecast", "predict", path, "--model", str(model.path)] if model else None
    proposed = training_options(task, profile, events.warnings)
    return Check(
        source=source.name,
        columns=column_roles(source.columns, schema, explicit=set(config.named_columns)),
        schema=schema,
        profile=profile,
        warnings=tuple(map(_without_windows, events.warnings)),
        train=shlex.join(["rnnforecast", "train", path, *proposed]),
        predict=shlex.join(predict) if predict else None,
    )


def _warn_of_misfit(panel: Panel, model: Model, listener: Listener) -> None:
    """Warn of readings that are unlike those that a model was trained on, or too few for it."""
    spec, known = model.artifact.spec, training_stats_of(model.artifact)
    past = make_past(panel)
    warn_of_suspect_readings(panel, listener)
    warn_unusual_series(past, known, listener, lookback=spec.lookback, horizon=spec.horizon)
    rule = Fallback(spec.lookback, spec.least_history, spec.season)
    warn_of_short_history(past, listener, rule)


def training_options(
    task: Task, profile: Profile, warnings: Sequence[WarningEvent]
) -> tuple[str, ...]:
    """Return the options to train on a table: those that it was read with, and what it needs.

    Values that probably stand for missing readings are declared as such. Where the default windows
    do not fit, windows that do are added.
    """
    sentinels = [
        Proposal(option_for_each("--na-values", texts_of_sentinel(value)))
        for value in profile.sentinels
        if _largest_share(profile.panel, value) <= MAX_SHARE
    ]
    windows = [
        proposal.options
        for warning in warnings
        if warning.code in _REFUSALS
        for proposal in filter(_names_windows, warning.proposals)
    ]

    options = to_arguments(with_harmless(task, sentinels).data)
    return (*options, *(windows[0] if windows else ()))


def _warn_unless_trainable(panel: Panel, config: Config, listener: Listener) -> None:
    """Warn where `train` would refuse the readings, and say what it needs."""
    try:
        set_up_training(panel, config, ignore)
    except NotEnoughDataError as error:
        message = f"not enough data for training: {error.message}"
        listener(WarningEvent(error.code, message, proposals=error.proposals, hint=error.hint))


def _names_windows(proposal: Proposal) -> bool:
    return not {"--horizon", "--lookback"}.isdisjoint(proposal.options)


def _without_windows(warning: WarningEvent) -> WarningEvent:
    """Return a warning without options of windows, which `train` has, and `check` has not."""
    proposals = tuple(p for p in warning.proposals if not _names_windows(p))
    if len(proposals) == len(warning.proposals):
        return warning
    hint = "the suggested command uses windows that fit"
    hint = f"{hint}; or {warning.hint}" if warning.hint else hint
    return replace(warning, proposals=proposals, hint=hint)


def _is_of_counter(proposal: Proposal, schema: Schema, config: DataConfig) -> bool:
    """Tell whether the range that a proposal names is that of a series of a counter."""
    series = proposal.options[1].rpartition("=")[0]
    return schema.target_of_series(series) in config.counter


def _largest_share(panel: Panel, value: float) -> float:
    """Return the largest share of a series' readings that are this value."""
    is_equal = panel.target == (value - np.repeat(panel.base, panel.lengths)).astype(np.float32)
    n_equal = np.add.reduceat(is_equal, panel.offsets[:-1], dtype=np.int64)
    n_readings = np.add.reduceat(np.isfinite(panel.target), panel.offsets[:-1], dtype=np.int64)
    return float((n_equal / np.maximum(n_readings, 1)).max())
