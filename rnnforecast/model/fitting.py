"""Fit a network to readings, from first or other weights, and fine-tune one. Imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch.utils import deterministic

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.arrays import Integers
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons, seasons_of
from rnnforecast.data.windows import MIN_OBSERVED_SHARE, Past, TrainingWindows, windows_of
from rnnforecast.errors import ModelError
from rnnforecast.events import Listener, ignore
from rnnforecast.model.builtin import builtin_weights
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.forecaster import RNNForecaster, known_entries
from rnnforecast.model.loss import loss_scales
from rnnforecast.model.member import device_of, draw_members
from rnnforecast.model.network import Network, describe_series
from rnnforecast.model.training import fine_tune_members, train_members
from rnnforecast.process import n_processors
from rnnforecast.spec import BUILTIN, QUANTILES, NetworkSpec

_WINDOWS = 4096
"""Windows from which the mean and scale of covariates are taken, at most."""
_DRAWN_WINDOWS = 100
"""Disjoint training windows of a series on average, from which on a second network is trained, from
drawn weights."""
_FINE_TUNE_SHARE = 0.25
"""Steps of fine-tuning, as a share of the steps before it (docs/decisions.md, 1)."""


def fit(
    train: Past,
    validation: Past | None,
    *,
    spec: NetworkSpec,
    network: NetworkConfig,
    config: TrainConfig,
    common: Seasons | None = None,
    seasons: Sequence[Seasons] | None = None,
    listener: Listener = ignore,
    checkpoints: Checkpoints | None = None,
    start: RNNForecaster | None = None,
) -> RNNForecaster:
    """Train a network on the readings before the cutoffs of `train`, one origin per series.

    The readings from there to the cutoffs of `validation` decide when to stop. Seasons are
    `common` to all series, or `seasons` of each, or found in it. With `checkpoints` an interrupted
    training can be resumed. With `start` the training begins from the weights of that network; its
    spec may differ in the number of series only, otherwise a `ModelError` names the differences.
    """
    windows = windows_of(train, spec)
    seasons = seasons or seasons_of(train, common)
    scales = loss_scales(train, seasons)
    held_out = None
    if validation is not None:
        held_out = windows_of(validation, spec, targets_after=train)

    if start is None and windows.n_disjoint >= _DRAWN_WINDOWS * len(windows.series):
        spec = with_drawn_member(spec)

    with _repeatable(config):
        first = Network.of_members(spec, network, draw_members(spec, init=network.init))
        first = initialise_network(first, common, seasons, train, windows)
        entries = np.zeros(spec.n_series, np.int64)
        if start is not None:
            check_start(start.network, spec, network)
            entries = known_entries(train.names, start.network, start.names)
            first = take_weights(first, start.network)
        trained, log = train_members(
            first,
            windows,
            scales=scales,
            validation=held_out,
            config=config,
            listener=listener,
            checkpoints=checkpoints,
        )

    new_series = [i for i in find_new_series(train, windows).tolist() if not entries[i]]
    return RNNForecaster(trained, train.names, log, new_series=tuple(new_series))


def fine_tune(
    fitted: RNNForecaster, past: Past, *, config: TrainConfig, listener: Listener = ignore
) -> RNNForecaster:
    """Return a forecaster that is also trained on the readings before the cutoffs of `past`.

    Each member takes a quarter of the steps that it has taken, over all windows, old and new, at a
    rate that falls from a quarter of the peak. `new_series` get the seasons of their readings
    first.
    """
    assert fitted.log is not None
    network, log = fitted.network, fitted.log
    n_steps = tuple(round(_FINE_TUNE_SHARE * member.kept_steps) for member in log.of_selected)

    with _repeatable(config):
        added = np.array(fitted.new_series, np.int64)
        seasons = seasons_of(past.subset(added), network.common_seasons)
        network = describe_series(network, added, seasons, past)
        tuned = fine_tune_members(
            network,
            windows_of(past, network.spec),
            scales=loss_scales(past, network.seasons_of(np.arange(past.n_origins) + 1)),
            n_steps=n_steps,
            config=config,
            listener=listener,
        )
    return replace(fitted, network=tuned, fine_tune_steps=n_steps)


def with_drawn_member(spec: NetworkSpec) -> NetworkSpec:
    """Return a spec with a third member beside a built-in one and one that begins as it.

    It is trained, too, but begins with drawn weights, and has one layer: two took twice as long and
    were no better. Other specs stay as they are.
    """
    trained = replace(BUILTIN, is_trained=True)
    if spec.members != (trained, BUILTIN):
        return spec
    return replace(spec, members=(trained, replace(trained, layers=1, is_drawn=True), BUILTIN))


def initialise_network(
    network: Network,
    common: Seasons | None,
    seasons: Sequence[Seasons],
    past: Past,
    windows: TrainingWindows,
) -> Network:
    """Return a network with what is known of each series and covariates, and built-in weights.

    `seasons` are those of the series of `past`; unknown series have the `common` ones, if any.
    """
    network = describe_series(network, np.arange(past.n_origins), seasons, past, common=common)
    if network.spec.n_features:
        features = windows.gather(windows.spread(_WINDOWS)).features
        assert features is not None
        network = standardise_features(network, features)
    if network.spec.quantiles != QUANTILES:
        return network
    members = [
        replace(member, tensors={**member.tensors, **builtin_weights()})
        if replace(member.spec, covariates=False, is_trained=False) == BUILTIN
        else member
        for member in network.members
    ]
    return replace(network, members=tuple(members))


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
            "cannot start training from a network with another specification: "
            f"{'; '.join(differing)}",
            code="other-task",
            hint="train without it, or with the same windows, season, covariates and network",
        )


def take_weights(network: Network, source: Network) -> Network:
    """Return a network with the weights and the statistics of covariates of another one."""
    return replace(
        network,
        members=source.members,
        feature_mean=source.feature_mean,
        feature_scale=source.feature_scale,
    )


def find_new_series(train: Past, windows: TrainingWindows) -> Integers:
    """Return the numbers of the series with too few readings to train on.

    They have no window, or fewer readings than a training window needs.
    """
    numbers: Integers = train.series[
        (windows.counts == 0) | (train.n_seen <= MIN_OBSERVED_SHARE * windows.least_history)
    ]
    return numbers


def standardise_features(network: Network, features: Features) -> Network:
    """Return a network with mean and standard deviation of each feature; 1 for a constant one."""
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

    mean, scale = (np.concatenate(parts).astype(np.float32) for parts in (means, scales))
    return replace(network, feature_mean=mean, feature_scale=scale)


@contextmanager
def _repeatable(config: TrainConfig) -> Iterator[None]:
    """Seed torch, set its threads and allow deterministic algorithms only, inside of the context.

    On CUDA, operations without a deterministic version are allowed: runs are only nearly equal.
    """
    on_cuda = device_of(config).type == "cuda"
    if on_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    n_threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    fills_memory = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or n_processors())
        torch.use_deterministic_algorithms(True, warn_only=on_cuda)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
            deterministic.fill_uninitialized_memory = fills_memory  # type: ignore[attr-defined]
            torch.set_num_threads(n_threads)
