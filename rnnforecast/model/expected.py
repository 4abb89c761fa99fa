"""What a network of a given configuration must look like: sizes, tensors, self-test. No torch here.

Apart from `artifact`, which knows files: here what was read from them is held against the task and
the configuration, and a `ValueError` says what does not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.config import MAX_FEATURES, MAX_HORIZON, MAX_LOOKBACK, MAX_MEMBERS, NetworkConfig
from rnnforecast.task import CURVES, ForecastTask, MemberTask

_MAX_SERIES = 10_000_000
_MAX_SEASON = MAX_LOOKBACK
_MAX_OUTPUT = 1e30
_GATES = {"gru": 3, "lstm": 4, "mingru": 2, "rnn": 1}
_WITHOUT_STATE = ("mingru",)
"""Cells whose gates do not read the state."""

Tensors = dict[str, NDArray[np.float32]]


def expected_shapes(task: ForecastTask, config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a network of this configuration has."""
    entries = task.n_series + 1
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("center", "scale", "reach"), (entries,))
    if task.n_features:
        shapes |= dict.fromkeys(("feature_mean", "feature_scale"), (task.n_features,))
    for number, own in enumerate(task.members):
        for name, shape in _member_shapes(task, own, config).items():
            shapes[f"members.{number}.{name}"] = shape
    return shapes


def _member_shapes(
    task: ForecastTask, own: MemberTask, config: NetworkConfig
) -> dict[str, tuple[int, ...]]:
    entries, width, gates = task.n_series + 1, config.hidden, _GATES[config.cell]
    out_segment = min(own.segment, task.horizon)
    shapes: dict[str, tuple[int, ...]] = {
        "cycle.weight": (entries, task.season),
        "persistence": (own.n_lasting, task.horizon),
        "read.weight": (width, own.segment),
        "read.bias": (width,),
        "read_missing.weight": (width, own.segment),
        "identity.weight": (entries, width),
        "position": (-(-task.horizon // out_segment), width),
        "head.weight": (out_segment * len(task.quantiles), width),
        "head.bias": (out_segment * len(task.quantiles),),
    }
    for layer in range(config.layers):
        ways = ("from_input", "from_state")
        for way in ways[: 1 if config.cell in _WITHOUT_STATE else 2]:
            shapes[f"recurrence.{way}.{layer}.weight"] = (gates * width, width)
            shapes[f"recurrence.{way}.{layer}.bias"] = (gates * width,)
    if own.covariates:
        shapes |= _reader_shapes(task, own, out_segment, width)
    return shapes


def _reader_shapes(
    task: ForecastTask, own: MemberTask, out_segment: int, width: int
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if task.n_known:
        shapes["reader.curves.weight"] = (CURVES, task.n_known)
        shapes["reader.curves.bias"] = (CURVES,)
        shapes["reader.reaction.weight"] = (task.n_series + 1, task.n_known + CURVES)
        shapes["reader.ask.weight"] = (width, task.n_known * out_segment)
    if task.n_known + task.n_past:
        shapes["reader.read.weight"] = (width, (task.n_known + task.n_past) * own.segment)
    if task.n_static:
        shapes["reader.describe.weight"] = (width, task.n_static)
    return shapes


def check_weights(weights: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise `ValueError` unless these are the tensors of the network, all of them finite."""
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise ValueError(f"tensor {name} is missing")
        if name not in expected:
            raise ValueError(f"tensor {name} does not belong to this network")
        tensor = weights[name]
        if tensor.shape != expected[name] or tensor.dtype != np.float32:
            raise ValueError(
                f"tensor {name} is {tensor.dtype} {tensor.shape}, not float32 {expected[name]}"
            )
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds a value that is not finite")


def check_bounds(task: ForecastTask) -> None:
    """Raise `ValueError` for sizes that no network has, before anything of that size is made."""
    sizes = {
        "lookback": (task.lookback, MAX_LOOKBACK),
        "horizon": (task.horizon, MAX_HORIZON),
        "season": (task.season, _MAX_SEASON),
        "n_series": (task.n_series, _MAX_SERIES),
        "number of members": (len(task.members), MAX_MEMBERS),
    }
    for number, own in enumerate(task.members):
        sizes[f"look-back of member {number}"] = (own.lookback, task.lookback)
        sizes[f"segment of member {number}"] = (own.segment, own.lookback)
    features = ("n_known", "n_past", "n_static")
    if any(not 0 <= getattr(task, name) <= MAX_FEATURES for name in features):
        raise ValueError("there are fewer features than none, or too many")
    if any(own.covariates for own in task.members) and not task.n_features:
        raise ValueError("a member sees covariates, but there are none")
    for name, (value, limit) in sizes.items():
        if type(value) is not int or not 1 <= value <= limit:
            raise ValueError(f"{name} is {value!r}")
    if any(own.seasonal and not 1 < task.season <= own.lookback // 2 for own in task.members):
        raise ValueError("a member takes its pattern from less than two seasons")
    levels = task.quantiles
    if not 1 <= len(levels) <= 99 or list(levels) != sorted(set(levels)) or 0.5 not in levels:
        raise ValueError("the quantiles are not increasing levels around the median")
    if not 0 < levels[0] <= levels[-1] < 1:
        raise ValueError("the quantiles do not lie between 0 and 1")


def check_self_test(manifest: dict[str, Any]) -> None:
    """Raise `ValueError` unless the self-test is a list of sensible numbers."""
    self_test = manifest["self_test"]
    output = self_test["output"]
    if not isinstance(output, list) or not output:
        raise ValueError("the self-test has no output")
    for number in (self_test["tolerance"], *output):
        if type(number) not in (int, float) or abs(number) > _MAX_OUTPUT:
            raise ValueError(f"the self-test holds {number!r}")
