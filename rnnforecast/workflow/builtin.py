"""The built-in network as a model of readings that it has not learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rnnforecast._version import __version__
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import MAX_HORIZON, Config, WindowConfig
from rnnforecast.data.limits import fit_limits
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import default_horizon, find_seasons, most_common, wanted_lookback
from rnnforecast.data.windows import make_past
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.model.artifact import Artifact
from rnnforecast.model.builtin import builtin_tensors
from rnnforecast.sources.source import STANDARD_INPUT, open_table
from rnnforecast.spec import builtin_spec
from rnnforecast.tables.match import check_as_of, read_inferred
from rnnforecast.tables.schema import Schema
from rnnforecast.units import parse_steps
from rnnforecast.workflow.advice import Task, trying_proposals

_ENOUGH_READINGS = 500
"""From so many readings of a series on, training has paid on most tables."""


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
        message = "the built-in network knows no covariates: train one that learns what they do"
        listener(WarningEvent("unused-covariates", message))
    return replace(panel, covariates=None), replace(schema, covariates=())


def note_of_builtin(panel: Panel, data: object) -> str:
    """Return the sentence that says what forecasts these readings, and what would do so better."""
    source = f" {data}" if isinstance(data, str | Path) and str(data) != STANDARD_INPUT else " DATA"
    text = "forecast by the built-in network, which has not learnt from these readings"
    if panel.lengths.max() < _ENOUGH_READINGS:
        return text
    return f"{text}: with so many  rnnforecast train{source}  is usually better"


def builtin_artifact(
    panel: Panel, schema: Schema, options: DataConfig, *, horizon: str | None
) -> Artifact:
    """Return the built-in network for the series of a panel; made without torch.

    Without a `horizon` (steps or a duration) that is the main season or, without one, 24 steps, an
    hour of finer ones, as long as half of the longest series.
    """
    past = make_past(panel)
    seasons = find_seasons(past)
    season = most_common(seasons, past.n_seen)
    if horizon is None:
        most = max(1, int(panel.lengths.max()) // 2)
        n_ahead = min(default_horizon(season, panel.step_us), most)
    else:
        n_ahead = parse_steps(
            horizon,
            step_us=panel.step_us,
            name="horizon",
            limit=MAX_HORIZON,
            measure=panel.axis.measure,
        )
    limits = fit_limits(past)
    lookback = wanted_lookback(seasons)
    return Artifact(
        spec=builtin_spec(panel.n_series, lookback=lookback, horizon=n_ahead, season=season),
        config=Config(options, WindowConfig(horizon=str(n_ahead))),
        schema=schema,
        names=panel.names,
        base=tuple(panel.base.tolist()),
        weights=builtin_tensors(past, seasons),
        metrics={},
        history="",
        trained_until=None,
        training_range={},
        self_test=None,
        provenance={"rnnforecast": __version__},
        limits=limits if limits.any else None,
    )
