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
from rnnforecast.data.axis import Flags
from rnnforecast.data.forecast import Forecast, interpolate_quantiles
from rnnforecast.data.panel import Features
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.season import MIN_SEASON, Seasons, local_seasons, seasons_of
from rnnforecast.data.windows import (
    MIN_OBSERVED_SHARE,
    Past,
    TrainingWindows,
    Values,
    add_base,
    windows_of,
)
from rnnforecast.errors import ModelError, UsageError
from rnnforecast.events import Listener, ignore
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.builtin import builtin_tensors, builtin_weights
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.loss import loss_scales
from rnnforecast.model.network import History, Network
from rnnforecast.model.training import EnsembleLog, fine_tune_members, train_members
from rnnforecast.process import current_launch, n_processors
from rnnforecast.spec import BUILTIN, QUANTILES, NetworkSpec, builtin_spec

_WINDOWS = 4096
"""Windows from which the mean and scale of covariates are taken, at most."""


@torch.no_grad()
def initialise_network(
    network: Network,
    common: Seasons | None,
    seasons: Sequence[Seasons],
    past: Past,
    windows: TrainingWindows,
) -> None:
    """Set what is known of each series and the covariates, and built-in weights, in place.

    `seasons` are those of the series of `past`; unknown series have the `common` ones, if any.
    """
    if common is not None:
        network.seasons[0] = torch.tensor([common.main, common.long])
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


def constant_phases(
    readings: Floats, seasons: Sequence[Seasons], horizon: int
) -> tuple[Flags, Floats]:
    """Tell where leads fall into a part of the season in which all readings are equal.

    `readings` is `(window, lookback)`, NaN where missing. Returns flags and the readings there,
    `(window, lead)`. At least five of the last fourteen seasons have to be read at that hour, and
    all readings from an hour of a day before it to an hour after it (a 24th of the season, one row
    at least) have to be the same: so days may grow a while.
    """
    n, n_rows = readings.shape
    flags, levels = np.zeros((n, horizon), np.bool_), np.zeros((n, horizon), np.float32)
    periods = np.array([of_window.main for of_window in seasons])
    for period in np.unique(periods[periods >= MIN_SEASON]).tolist():
        windows = np.flatnonzero(periods == period)
        n_seasons = min(n_rows // period, _LATEST_SEASONS)
        if n_seasons < _FEWEST_SEASONS:
            continue
        newest = readings[windows, n_rows - n_seasons * period :].reshape(-1, n_seasons, period)
        n_read = np.isfinite(newest).sum(1)
        low = np.fmin.reduce(newest, axis=1, initial=np.inf)
        high = np.fmax.reduce(newest, axis=1, initial=-np.inf)
        reach = max(1, period // 24)
        around = (np.arange(period)[:, None] + np.arange(-reach, reach + 1)) % period
        is_still = (low[:, around].min(-1) == high[:, around].max(-1)) & (n_read >= _FEWEST_SEASONS)
        phase = np.arange(horizon) % period
        flags[windows], levels[windows] = is_still[:, phase], low[:, phase]
    return flags, levels


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
"""Steps of fine-tuning, as a share of the steps before it (docs/decisions.md, 1)."""
_FEWEST_SEASONS, _LATEST_SEASONS = 5, 14
"""Seasons in which a part has to be constant, and those that are looked at, the newest ones."""
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
        common: Seasons | None = None,
        seasons: Sequence[Seasons] | None = None,
        listener: Listener = ignore,
        checkpoints: Checkpoints | None = None,
        start: RNNForecaster | None = None,
    ) -> RNNForecaster:
        """Train a network on the readings before the cutoffs of `train`, one origin per series.

        The readings from there to the cutoffs of `validation` decide when to stop. Seasons are
        `common` to all series, or `seasons` of each, or found in it. With `checkpoints` an
        interrupted training can be resumed. With `start` the training begins from
        the weights of that network; its spec may differ in the number of series only, otherwise a
        `ModelError` names the differences.
        """
        windows = windows_of(train, spec)
        seasons = seasons or seasons_of(train, common)
        scales = loss_scales(train, seasons)
        held_out = None
        if validation is not None:
            held_out = windows_of(validation, spec, targets_after=train)

        with _repeatable(config):
            model = Network(spec, network)
            entries = np.zeros(spec.n_series, np.int64)
            initialise_network(model, common, seasons, train, windows)
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

    @classmethod
    def untrained(
        cls,
        past: Past,
        *,
        lookback: int,
        horizon: int,
        seasons: Sequence[Seasons],
    ) -> RNNForecaster:
        """Return the built-in network for the series of the origins, of which each has one."""
        spec = builtin_spec(past.n_origins, lookback=lookback, horizon=horizon)
        names, weights = take_names(past.names, past.series), builtin_tensors(past, seasons)
        return cls.restore(spec, NetworkConfig(), names=names, weights=weights)

    def fine_tune(
        self, past: Past, *, config: TrainConfig, listener: Listener = ignore
    ) -> RNNForecaster:
        """Return a forecaster that is also trained on the readings before the cutoffs of `past`.

        Each member takes a quarter of the steps that it has taken, over all windows, old
        and new, at a rate that falls from a quarter of the peak. `new_series` get the seasons of
        their readings first.
        """
        assert self.log is not None
        spec = self.network.spec
        kept = [log.kept_steps for log in self.log.of_selected]
        n_steps = tuple(round(_FINE_TUNE_SHARE * steps) for steps in kept)

        with _repeatable(config):
            model = Network(spec, self.network.config)
            model.load_state_dict(self.network.state_dict())
            added = np.array(self.new_series, np.int64)
            seasons = seasons_of(past.subset(added), model.common_seasons)
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
        equal is forecast by them, without a band, and so are hours at which they were always equal
        (nights without sun): see `constant_phases`. A series with fewer than three readings in its
        look-back gets NaN, as nothing tells how far it varies.
        """
        spec = self.network.spec
        values = np.empty((past.n_origins, horizon, len(quantiles)), np.float32)

        def predict_part(places: slice, history: History) -> None:
            output = self.network.forecast(history)[:, :horizon].astype(np.float32)
            n_readings = np.isfinite(history.readings).sum(1)
            has_readings = n_readings > 0
            newest = np.fmax.reduce(history.readings, axis=1, initial=-np.inf)
            is_constant = has_readings & (
                np.fmin.reduce(history.readings, axis=1, initial=np.inf) == newest
            )
            output[is_constant] = newest[is_constant, None, None]
            still, levels = constant_phases(history.readings, history.seasons, horizon)
            output[still] = levels[still, None]
            output[n_readings < _MIN_READINGS] = np.nan
            values[places] = interpolate_quantiles(output, spec.quantiles, quantiles)

        self._for_parts(predict_part, past)
        return Forecast(
            values=add_base(values, past),
            quantiles=tuple(quantiles),
            names=take_names(past.names, past.series),
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
            axis=past.axis,
        )

    def predict_earlier(self, past: Past, horizon: int, n: int) -> tuple[Values, Integers]:
        """Forecast from n earlier cutoffs of each origin, `(origin, n, horizon, quantile)`.

        Returns also how many rows before those of `past` they lie, `(n,)`. NaN where less than half
        of the look-back lies before, or fewer than three readings that differ. The quantiles are
        those that the network learns.
        """
        spec = self.network.spec
        values = np.empty((past.n_origins, n, horizon, len(spec.quantiles)), np.float32)
        ago = np.zeros(n, np.int64)

        def predict_part(places: slice, history: History) -> None:
            output, ago[:] = self.network.forecast_earlier(history, n)
            values[places] = output[:, :, :horizon]
            n_rows = history.readings.shape[1]
            for number, rows in enumerate(ago.tolist()):
                known = history.readings[:, : n_rows - rows]
                n_known = np.isfinite(known).sum(1)
                lowest = np.fmin.reduce(known, axis=1, initial=np.inf)
                highest = np.fmax.reduce(known, axis=1, initial=-np.inf)
                says_nothing = (n_known < _MIN_READINGS) | (lowest == highest)
                values[places][says_nothing, number] = np.nan

        self._for_parts(predict_part, past, n_cutoffs=n + 1)
        values[:, 2 * ago > spec.lookback] = np.nan
        return add_base(values, past), ago

    def _for_parts(
        self, work: Callable[[slice, History], None], past: Past, *, n_cutoffs: int = 1
    ) -> None:
        """Call `work` for one batch of origins after another, with their slice and history.

        `n_cutoffs` is the number of forecasts per origin, which bounds the size of a batch.
        """
        spec = self.network.spec
        entries = known_entries(past.names, self.network, self.names)[past.series]
        seasons = self._seasons(past, entries)
        width = spec.lookback + n_cutoffs * spec.horizon * len(spec.quantiles)
        size = max(1, min(_BATCH_ORIGINS, _BATCH_VALUES // width))

        def work_on(first: int) -> None:
            part = past.subset(slice(first, first + size))
            places = slice(first, first + part.n_origins)
            features = part.features(spec.lookback, spec.horizon)
            readings = part.history(spec.lookback)
            work(places, History(readings, entries[places], seasons[places], features))

        firsts = range(0, past.n_origins, size)
        if self.network.center.is_cuda:
            for first in firsts:
                work_on(first)
        else:
            _call_on_single_threads(work_on, firsts)

    @property
    def seasons(self) -> tuple[Seasons, ...]:
        """The seasons of the trained series, `(series,)`."""
        return self.network.seasons_of(np.arange(1, len(self.names) + 1))

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
        self_test: dict[str, Any] | None = None,
    ) -> RNNForecaster:
        """Build a forecaster from verified weights, and run the stored self-test, if any.

        Raises `ModelError` where this release of torch computes another output.
        """
        with torch.random.fork_rng(devices=[]), _single_thread():
            model = Network(spec, replace(network, init="default"))  # soon made; then overwritten
        model.config = network
        model.load_state_dict(
            {name: torch.from_numpy(value) for name, value in weights.items()}, assign=True
        )

        forecaster = cls(model.eval(), names)
        if self_test is None:
            return forecaster
        expected = np.array(self_test["output"], np.float64)
        output = forecaster._self_test_output()
        size = np.abs(expected).max(initial=1e-6)
        if output.shape != expected.shape or not np.allclose(
            output / size, expected / size, atol=self_test["tolerance"], rtol=0
        ):
            raise ModelError(
                "the model fails its self-test with this release of torch",
                code="self-test",
                hint="use the torch version shown by  rnnforecast show , or retrain",
            )
        return forecaster

    def _seasons(self, past: Past, entries: Integers) -> tuple[Seasons, ...]:
        """Return the seasons of each origin's series: of unknown ones those found before it."""
        seasons = list(self.network.seasons_of(entries))
        unknown = np.flatnonzero(entries == 0)
        if len(unknown):
            common = self.network.common_seasons
            if common is None:  # those of other ranks are theirs to look for
                rows = local_seasons(past.subset(unknown)).tolist()
                of_unknown = [Seasons(*row) for row in rows]
            else:
                of_unknown = [common] * len(unknown)
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
        with _single_thread():
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


def _device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda needs a CUDA device, but torch finds none", hint="use --device cpu"
        )
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
    n_workers = min(len(numbers), torch.get_num_threads(), _MAX_PREDICTING)
    with _single_thread():
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


@contextmanager
def _single_thread() -> Iterator[None]:
    """Let operations of torch take one thread inside of the context.

    A process that was forked from one with threads of torch would wait for them for ever.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
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
        torch.set_num_threads(config.threads or n_processors())
        torch.use_deterministic_algorithms(True, warn_only=on_cuda)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
            deterministic.fill_uninitialized_memory = fills_memory  # type: ignore[attr-defined]
            torch.set_num_threads(n_threads)
