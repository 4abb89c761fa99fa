"""RNNForecaster: a network with the names of its series, to fit, fine-tune, predict and restore."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils import deterministic

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.arrays import Floats, Integers, take_names
from rnnforecast.data.forecast import Forecast, interpolate_quantiles
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons, find_seasons
from rnnforecast.data.windows import Past, add_base, windows_of
from rnnforecast.errors import ModelError, UsageError
from rnnforecast.events import Listener, ignore
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.ensemble import EnsembleLog, fine_tune_members, n_processors, train_members
from rnnforecast.model.initialise import (
    check_start,
    describe_series,
    find_new_series,
    initialise_network,
    known_entries,
    take_weights,
)
from rnnforecast.model.loss import loss_scales
from rnnforecast.model.network import History, Network
from rnnforecast.process import current_launch
from rnnforecast.spec import NetworkSpec

_MAX_PREDICTING = 8
"""Batches that are forecast at once, each of which takes its own memory."""
# Origins, and their readings and quantiles, in one batch of forecasts. This bounds memory: experts
# take some 2 kB for each reading.
_BATCH_ORIGINS = 512
_BATCH_VALUES = 1 << 17
_SELF_TEST_LEADS = 4
_SELF_TEST_TOLERANCE = 1e-3
"""Allowed difference in units of the largest output."""
_FINE_TUNE_SHARE = 0.25
"""Steps of fine-tuning, as a share of the steps to the best weights (docs/decisions.md, 1)."""
_MIN_READINGS = 3
"""Readings from which the level and scale of an unknown series are estimated, at least."""


@dataclass(frozen=True)
class RNNForecaster:
    """A trained network and the names of its series."""

    network: Network
    names: tuple[str, ...]
    """Names of the trained series, in the order of the network's entries 1, 2, ..."""
    log: EnsembleLog | None = None
    """The training; None for a restored network."""
    fine_tune_steps: tuple[int, ...] = ()
    """Steps of fine-tuning by member, in the order of `log.selected`; empty before it."""
    new_series: tuple[int, ...] = ()
    """Numbers of the series that had no window to train on."""

    @classmethod
    def fit(
        cls,
        train: Past,
        validation: Past | None,
        *,
        spec: NetworkSpec,
        network: NetworkConfig,
        config: TrainConfig,
        told: Seasons | None = None,
        listener: Listener = ignore,
        checkpoints: Checkpoints | None = None,
        start: RNNForecaster | None = None,
    ) -> RNNForecaster:
        """Train a network on the readings before the cutoffs of `train`, one origin per series.

        The readings from there to the cutoffs of `validation` decide when to stop. Seasons are
        `told` for all series, or found in each. With
        `checkpoints` an interrupted training can be resumed. With `start` the training begins from
        the weights of that network; its spec may differ in the number of series only, otherwise a
        `ModelError` names the differences.
        """
        windows = windows_of(train, spec)
        seasons = seasons_of(train, told)
        scales = loss_scales(train, seasons)
        held_out = None
        if validation is not None:
            held_out = windows_of(validation, spec, targets_after=train)

        with _repeatable(config):
            model = Network(spec, network)
            entries = np.zeros(spec.n_series, np.int64)
            initialise_network(model, told, seasons, train, windows)
            if start is not None:
                check_start(start.network, spec, network)
                entries = known_entries(train.names, start.network, start.names)
                take_weights(model, start.network)
            model.to(_device(config))
            log = train_members(
                model,
                windows,
                scales=scales,
                validation=held_out,
                config=config,
                listener=listener,
                checkpoints=checkpoints,
            )

        new_series = [i for i in find_new_series(train, windows).tolist() if not entries[i]]
        return cls(model.eval(), train.names, log, new_series=tuple(new_series))

    def fine_tune(
        self, past: Past, *, config: TrainConfig, listener: Listener = ignore
    ) -> RNNForecaster:
        """Return a forecaster that is also trained on the readings before the cutoffs of `past`.

        Each member takes a quarter of the steps that led to its best weights, over all windows, old
        and new, at a rate that falls from a quarter of the peak. `new_series` get the seasons of
        their readings first.
        """
        assert self.log is not None
        spec = self.network.spec
        best = [log.best_steps for log in self.log.of_selected]
        n_steps = tuple(round(_FINE_TUNE_SHARE * steps) for steps in best)

        with _repeatable(config):
            model = Network(spec, self.network.config)
            model.load_state_dict(self.network.state_dict())
            added = np.array(self.new_series, np.int64)
            seasons = seasons_of(past.subset(added), model.told_seasons)
            describe_series(model, added, seasons, past)
            scales = loss_scales(past, model.seasons_of(np.arange(past.n_origins) + 1))
            model.to(_device(config))
            fine_tune_members(
                model,
                windows_of(past, spec),
                scales=scales,
                n_steps=n_steps,
                config=config,
                listener=listener,
            )
        return replace(self, network=model.eval(), fine_tune_steps=n_steps)

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast the `horizon` steps after each cutoff, at most the trained horizon.

        Quantiles between the trained ones are interpolated. A look-back in which all readings are
        equal is forecast by them, without a band. A series with fewer than three readings in its
        look-back gets NaN, as nothing tells how far it varies.
        """
        spec = self.network.spec
        entries = known_entries(past.names, self.network, self.names)[past.series]
        seasons = self._seasons(past, entries)

        values = np.empty((past.n_origins, horizon, len(quantiles)), np.float32)
        width = spec.lookback + spec.horizon * len(spec.quantiles)
        size = max(1, min(_BATCH_ORIGINS, _BATCH_VALUES // width))

        def predict_part(first: int) -> None:
            part = past.subset(slice(first, first + size))
            places = slice(first, first + part.n_origins)
            readings = part.history(spec.lookback)
            features = part.features(spec.lookback, spec.horizon)
            history = History(readings, entries[places], seasons[places], features)
            output = self.network.forecast(history)[:, :horizon].astype(np.float32)

            n_readings = np.isfinite(readings).sum(1)
            has_readings = n_readings > 0
            newest = np.fmax.reduce(readings, axis=1, initial=-np.inf)
            is_constant = has_readings & (
                np.fmin.reduce(readings, axis=1, initial=np.inf) == newest
            )
            output[is_constant] = newest[is_constant, None, None]
            output[n_readings < _MIN_READINGS] = np.nan
            values[places] = interpolate_quantiles(output, spec.quantiles, quantiles)

        firsts = range(0, past.n_origins, size)
        if self.network.center.is_cuda:
            for first in firsts:
                predict_part(first)
        else:
            _call_on_single_threads(predict_part, firsts)

        return Forecast(
            values=add_base(values, past),
            quantiles=tuple(quantiles),
            names=take_names(past.names, past.series),
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
            axis=past.axis,
        )

    def tensors(self) -> Tensors:
        """Return all tensors of the network as numpy arrays, for the artifact."""
        state = self.network.state_dict()
        return {name: value.cpu().numpy().copy() for name, value in state.items()}

    def self_test(self) -> dict[str, Any]:
        """Return the output for a fixed input, which every later load has to reproduce."""
        output = self._self_test_output()
        return {"tolerance": _SELF_TEST_TOLERANCE, "output": [round(float(x), 7) for x in output]}

    @classmethod
    def restore(
        cls,
        spec: NetworkSpec,
        network: NetworkConfig,
        *,
        names: tuple[str, ...],
        weights: Tensors,
        self_test: dict[str, Any],
    ) -> RNNForecaster:
        """Build a forecaster from verified weights, and run the stored self-test.

        Raises `ModelError` where this release of torch computes another output.
        """
        with torch.random.fork_rng(devices=[]):
            model = Network(spec, network)
        model.load_state_dict(
            {name: torch.from_numpy(value) for name, value in weights.items()}, assign=True
        )

        forecaster = cls(model.eval(), names)
        expected = np.array(self_test["output"], np.float64)
        output = forecaster._self_test_output()
        size = np.abs(expected).max(initial=1e-6)
        if output.shape != expected.shape or not np.allclose(
            output / size, expected / size, atol=self_test["tolerance"], rtol=0
        ):
            raise ModelError(
                "the model does not reproduce its self-test with this release of torch",
                code="self-test",
                hint="use the torch version that `rnnforecast show` names, or train again",
            )
        return forecaster

    def _seasons(self, past: Past, entries: Integers) -> tuple[Seasons, ...]:
        """Return the seasons of each origin's series: of unknown ones those found before it."""
        seasons = list(self.network.seasons_of(entries))
        unknown = np.flatnonzero(entries == 0)
        if len(unknown):
            of_unknown = seasons_of(past.subset(unknown), self.network.told_seasons)
            for origin, of_origin in zip(unknown.tolist(), of_unknown, strict=True):
                seasons[origin] = of_origin
        return tuple(seasons)

    def _self_test_output(self) -> Floats:
        """Return outer quantiles and median of the first leads, scaled, for a wave with gaps."""
        spec = self.network.spec
        wave = np.sin(np.arange(spec.lookback) * 0.7) + 0.01 * np.arange(spec.lookback)
        wave[:: max(7, spec.lookback // 5)] = np.nan
        readings = wave.astype(np.float32)[None]
        entry = np.zeros(1, np.int64)
        history = History(readings, entry, [Seasons()], self._self_test_features())
        output = self.network.forecast(history)[0, :_SELF_TEST_LEADS]
        return output[:, [0, spec.median, -1]].ravel().astype(np.float32)

    def _self_test_features(self) -> Features | None:
        """Return waves as covariates, each of another length."""
        spec = self.network.spec
        if not spec.n_features:
            return None
        mean, scale = (
            x.cpu().numpy()[:, None]
            for x in (self.network.feature_mean, self.network.feature_scale)
        )

        steps = np.arange(spec.lookback + spec.horizon) * 0.3
        waves = np.sin(steps / np.arange(1, spec.n_features + 1)[:, None])
        values = (mean + scale * waves).astype(np.float32)[None]
        n_ahead = spec.n_known + spec.n_past
        return Features(
            known=values[:, : spec.n_known],
            past=values[:, spec.n_known : n_ahead, : spec.lookback],
            static=values[:, n_ahead:, 0],
        )


def seasons_of(past: Past, told: Seasons | None) -> tuple[Seasons, ...]:
    """Return the seasons of each origin: those that were told, or those found before it."""
    return find_seasons(past) if told is None else (told,) * past.n_origins


def _device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch finds no CUDA device", hint="use --device cpu")
    wants_cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    if not wants_cuda:
        return torch.device("cpu")
    launch = current_launch()
    return torch.device("cuda", 0 if launch is None else launch.local_rank)


def _call_on_single_threads(function: Callable[[int], None], numbers: Sequence[int]) -> None:
    """Call a function with each number, on as many threads as torch may use for an operation.

    How torch divides an operation among threads shows in the last bits of its result. So the calls
    are divided instead, and the bytes of a forecast do not depend on the number of processors.
    """
    n_threads = torch.get_num_threads()
    n_workers = min(len(numbers), n_threads, _MAX_PREDICTING)
    torch.set_num_threads(1)
    try:
        if n_workers < 2:
            for number in numbers:
                function(number)
            return
        pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for _ in pool.map(function, numbers):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def _repeatable(config: TrainConfig) -> Iterator[None]:
    """Seed torch, set its threads and allow deterministic algorithms only, inside of the context.

    On CUDA, operations without a deterministic version are allowed: runs are only nearly equal.
    """
    on_cuda = _device(config).type == "cuda"
    if on_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    n_threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    fills_memory = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        n = config.threads or n_processors()
        torch.set_num_threads(max(1, n - 1))  # one prepares the inputs of the next step
        torch.use_deterministic_algorithms(True, warn_only=on_cuda)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
            deterministic.fill_uninitialized_memory = fills_memory  # type: ignore[attr-defined]
            torch.set_num_threads(n_threads)
