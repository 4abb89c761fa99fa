"""What a network begins with: built-in weights, statistics of series, another version's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

import numpy as np
import safetensors.numpy
import torch

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.data.panel import Features
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import MIN_OBSERVED_SHARE, Past, TrainingWindows
from rnnforecast.errors import ModelError
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.network import Network
from rnnforecast.spec import BUILTIN, QUANTILES, NetworkSpec

_WINDOWS = 4096
"""Windows from which the mean and scale of covariates are taken, at most."""
_BUILTIN_FILE = "builtin.safetensors"


@cache
def builtin_weights() -> Tensors:
    """Return the weights that were trained on made-up series: see docs/builtin.md."""
    content = files("rnnforecast.model").joinpath(_BUILTIN_FILE).read_bytes()
    return safetensors.numpy.load(content)


@torch.no_grad()
def initialise_network(
    network: Network,
    told: Seasons | None,
    seasons: Sequence[Seasons],
    past: Past,
    windows: TrainingWindows,
) -> None:
    """Set what is known of each series and the covariates, and built-in weights, in place.

    `seasons` are those of the series of `past`; where they were `told`, unknown series have them.
    """
    if told is not None:
        network.seasons[0] = torch.tensor([told.main, told.long])
    describe_series(network, np.arange(past.n_origins), seasons, past)
    if network.spec.n_features:
        features = windows.gather(windows.spread(_WINDOWS)).features
        assert features is not None
        standardise_features(network, features)
    if network.spec.quantiles != QUANTILES:
        return
    for member in network.members:
        if replace(member.spec, covariates=False, is_trained=False) == BUILTIN:
            parameters = member.state_dict()
            for name, values in builtin_weights().items():
                parameters[name].copy_(torch.from_numpy(values))


@torch.no_grad()
def describe_series(
    network: Network, numbers: Integers, seasons: Sequence[Seasons], past: Past
) -> None:
    """Set seasons, level, scale and outlier threshold of series, in place.

    `numbers`, `(series,)`, are the origins of `past` that they come from; `seasons` are theirs.
    """
    if not len(numbers):
        return
    entries = torch.from_numpy(numbers) + 1
    scaling = fit_scaling(past.subset(numbers))
    network.center[entries] = torch.from_numpy(scaling.center)
    network.scale[entries] = torch.from_numpy(scaling.scale)
    network.outlier_threshold[entries] = torch.from_numpy(scaling.reach)
    rows = [[of_series.main, of_series.long] for of_series in seasons]
    network.seasons[entries] = torch.tensor(rows, dtype=network.seasons.dtype)


@torch.no_grad()
def add_unknown_series(network: Network, seasons: Sequence[Seasons]) -> Integers:
    """Add entries of series of which only the seasons are known, in place; return their numbers."""
    first, n = len(network.scale), len(seasons)
    network.center = torch.cat([network.center, network.center.new_zeros(n)])
    network.scale = torch.cat([network.scale, network.scale.new_full((n,), torch.nan)])
    thresholds = network.outlier_threshold
    network.outlier_threshold = torch.cat([thresholds, thresholds.new_full((n,), torch.nan)])
    rows = network.seasons.new_tensor([[periods.main, periods.long] for periods in seasons])
    network.seasons = torch.cat([network.seasons, rows])
    return np.arange(first, first + n)


def check_start(trained: Network, spec: NetworkSpec, config: NetworkConfig) -> None:
    """Raise `ModelError` unless the weights of `trained` fit into a network of this spec."""
    expected = {**vars(spec), "init": config.init}
    stored = {**vars(trained.spec), "init": trained.config.init}
    differing = [
        f"{name} is {expected[name]}, not {stored[name]}"
        for name in expected
        if name not in ("n_series", "season", "weights") and expected[name] != stored[name]
    ]
    if differing:
        raise ModelError(
            f"training cannot begin from a network of another spec: {'; '.join(differing)}",
            code="other-task",
            hint="train without it, or with its windows, season, covariates and network",
        )


@torch.no_grad()
def take_weights(network: Network, source: Network) -> None:
    """Take over the weights and the statistics of covariates of a network of the same spec."""
    parameters, trained = network.state_dict(), source.state_dict()
    for name in parameters.keys() - {"center", "scale", "outlier_threshold", "seasons"}:
        parameters[name].copy_(trained[name])


def known_entries(names: Sequence[str], network: Network, known: Sequence[str]) -> Integers:
    """Return the entry of each name, `(name,)`, in a network that knows these series; 0 for none.

    A series that had no reading yet when that network was trained counts as unknown.
    """
    has_scale = torch.isfinite(network.scale[1:]).tolist()
    entries = {name: i for i, name in enumerate(known, start=1) if has_scale[i - 1]}
    return np.array([entries.get(name, 0) for name in names], np.int64)


def find_new_series(train: Past, windows: TrainingWindows) -> Integers:
    """Return the numbers of the series with too few readings to train on.

    They have no window, or fewer readings than a training window needs.
    """
    numbers: Integers = train.series[
        (windows.counts == 0) | (train.n_seen <= MIN_OBSERVED_SHARE * windows.least_history)
    ]
    return numbers


def standardise_features(network: Network, features: Features) -> None:
    """Set mean and standard deviation of each feature, in place; 1 for a constant one."""
    means, scales = [], []
    for values in features:
        flat = (
            values.swapaxes(0, 1)
            .reshape(values.shape[1], values.size // max(values.shape[1], 1))
            .astype(np.float64)
        )

        seen = np.isfinite(flat)
        n_seen = np.maximum(seen.sum(1), 1)
        mean = np.where(seen, flat, 0).sum(1) / n_seen
        square = np.where(seen, (flat - mean[:, None]) ** 2, 0).sum(1) / n_seen
        means.append(mean)
        scales.append(np.where(square > 0, np.sqrt(square), 1.0))

    network.feature_mean.copy_(torch.from_numpy(np.concatenate(means)))
    network.feature_scale.copy_(torch.from_numpy(np.concatenate(scales)))
