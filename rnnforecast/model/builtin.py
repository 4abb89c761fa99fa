"""The built-in network: its weights, which were trained on made-up series (docs/builtin.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import safetensors.numpy

from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Past
from rnnforecast.model.artifact import Tensors

_WEIGHTS, _MANIFEST = "builtin.safetensors", "builtin.json"
_DIGITS = 6


@cache
def builtin_weights() -> Tensors:
    """Return the weights of its only member."""
    return safetensors.numpy.load(files("rnnforecast.model").joinpath(_WEIGHTS).read_bytes())


@cache
def builtin_version() -> str:
    """Return a name of the weights, such as builtin-3f9c2a."""
    manifest = json.loads(files("rnnforecast.model").joinpath(_MANIFEST).read_text())
    return f"builtin-{manifest['sha256'][:_DIGITS]}"


def builtin_tensors(past: Past, seasons: Sequence[Seasons]) -> Tensors:
    """Return all tensors of the built-in network for the series of `past`, one origin in each.

    What it is told of a series are level, spread and outlier threshold before the cutoff, and
    `seasons`, `(series,)`. Entry 0 stands for a series that it is told nothing of.
    """
    scaling = fit_scaling(past)
    rows = [(0, 0), *((of_series.main, of_series.long) for of_series in seasons)]
    told = {
        "center": np.append(np.float32(0), scaling.center),
        "scale": np.append(np.float32(1), scaling.scale),
        "outlier_threshold": np.append(np.float32(np.nan), scaling.reach),
        "seasons": np.array(rows, np.float32),
    }
    return {**told, **{f"members.0.{name}": x for name, x in builtin_weights().items()}}
