"""The built-in network: weights trained on made-up series (docs/concepts/builtin.md)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import safetensors.numpy

from rnnforecast._version import __version__
from rnnforecast.config.fields import to_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config, NetworkConfig, WindowConfig
from rnnforecast.data.limits import fit_limits
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import (
    Seasons,
    default_horizon,
    most_common,
    parse_seasons,
    parse_window,
    seasons_of,
    wanted_lookback,
)
from rnnforecast.data.windows import Past, make_past
from rnnforecast.model.artifact import Artifact, Tensors
from rnnforecast.model.inference import MemberWeights
from rnnforecast.model.network import Network, describe_series
from rnnforecast.spec import BUILTIN, NetworkSpec, builtin_spec
from rnnforecast.tables.schema import Schema

_WEIGHTS, _MANIFEST = "builtin.safetensors", "builtin.json"
_DIGITS = 6
_ENOUGH_ROWS = 500
"""Rows of the longest series from which the note recommends training; a rule of thumb."""


@cache
def builtin_weights() -> Tensors:
    """Return the weights of its only member."""
    return safetensors.numpy.load(files("rnnforecast.model").joinpath(_WEIGHTS).read_bytes())


@cache
def builtin_version() -> str:
    """Return a name of the weights, such as builtin-3f9c2a."""
    manifest = json.loads(files("rnnforecast.model").joinpath(_MANIFEST).read_text())
    return f"builtin-{manifest['sha256'][:_DIGITS]}"


def builtin_network(
    spec: NetworkSpec, past: Past, seasons: Sequence[Seasons], common: Seasons | None = None
) -> Network:
    """Return the built-in network for the series of `past`, one origin in each.

    What it is told of a series are level, spread and outlier threshold before the cutoff, and
    `seasons`, `(series,)`; of an unknown one, the `common` seasons, if there are any.
    """
    member = MemberWeights(BUILTIN, builtin_weights())
    network = Network.of_members(spec, NetworkConfig(), [member])
    return describe_series(network, np.arange(past.n_origins), seasons, past, common=common)


def note_of_builtin(panel: Panel, data: object, options: DataConfig) -> str:
    """Return the sentence that says what forecasts these readings, and what would do so better."""
    is_file = isinstance(data, str | Path) and str(data) != "-"
    source = shlex.join([str(data) if is_file else "DATA", *to_arguments(options)])
    text = "forecast by the built-in network, which was not trained on this data"
    if panel.lengths.max() < _ENOUGH_ROWS:
        return f"{text}; with {_ENOUGH_ROWS} rows or more, try  rnnforecast train {source}"
    return f"{text};  rnnforecast train {source}  is usually better"


def builtin_artifact(
    panel: Panel, schema: Schema, options: DataConfig, *, horizon: str | None, season: str = "auto"
) -> Artifact:
    """Return the built-in network for the series of a panel; made without torch.

    Without a `horizon` (steps or a duration) that is the main season or, without one, 24 steps, an
    hour of finer ones, as long as half of the longest series. `season` is that of all series where
    it is not `auto`.
    """
    past = make_past(panel)
    window = WindowConfig(season=season)
    common = parse_seasons(window, past)
    seasons = seasons_of(past, common)
    main_season = most_common(seasons, past.n_seen)
    if horizon is None:
        most = max(1, int(panel.lengths.max()) // 2)
        n_ahead = min(default_horizon(main_season, panel.step_us), most)
    else:
        n_ahead = parse_window(horizon, "horizon", panel.step_us, panel.axis)
    limits = fit_limits(past)
    lookback = min(wanted_lookback(seasons), int(panel.lengths.max()))
    spec = builtin_spec(panel.n_series, lookback=lookback, horizon=n_ahead, season=main_season)
    return Artifact(
        spec=spec,
        config=Config(options, replace(window, horizon=str(n_ahead))),
        schema=schema,
        names=panel.names,
        base=tuple(panel.base.tolist()),
        weights=builtin_network(spec, past, seasons, common).tensors(),
        metrics={},
        history="",
        trained_until=None,
        training_range={},
        self_test=None,
        provenance={"rnnforecast": __version__},
        limits=limits if limits.any else None,
    )
