"""RNNForecaster: a network with the names of its series, to predict and to restore."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Floats, Integers, take_names
from rnnforecast.data.axis import Flags
from rnnforecast.data.forecast import Forecast, interpolate_quantiles
from rnnforecast.data.panel import Features
from rnnforecast.data.season import MIN_SEASON, Seasons, local_seasons, seasons_of
from rnnforecast.data.windows import Past, Values, add_base
from rnnforecast.errors import ModelError
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.builtin import builtin_tensors
from rnnforecast.model.network import History, Network
from rnnforecast.process import n_processors
from rnnforecast.spec import NetworkSpec, builtin_spec

if TYPE_CHECKING:
    from rnnforecast.model.training import EnsembleLog


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


def known_entries(names: Sequence[str], network: Network, known: Sequence[str]) -> Integers:
    """Return the entry of each name, `(name,)`, in a network that knows these series; 0 for none.

    A series that had no reading yet when that network was trained counts as unknown.
    """
    has_scale = np.isfinite(network.scale[1:]).tolist()
    entries = {name: i for i, name in enumerate(known, start=1) if has_scale[i - 1]}
    return np.array([entries.get(name, 0) for name in names], np.int64)


_MAX_PREDICTING = 8
"""Batches that are forecast at once, each of which takes its own memory."""
# Origins, and their readings and quantiles, in one batch of forecasts. This bounds memory: experts
# take some 2 kB for each reading.
_BATCH_ORIGINS = 512
_BATCH_VALUES = 1 << 17
_SELF_TEST_LEADS = 4
_SELF_TEST_TOLERANCE = 1e-3
"""Allowed difference in units of the largest output."""
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
    n_threads: int | None = None
    """Threads that forecast at once; None for as many as there are processors. No bit of a forecast
    depends on them."""
    new_series: tuple[int, ...] = ()
    """Numbers of the series that had no window to train on."""

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
        _call_on_threads(work_on, firsts, self.n_threads or n_processors())

    def with_unknown_series(self, past: Past) -> tuple[Network, Integers]:
        """Return a network with entries of unknown series too, and the entry of each, `(origin,)`.

        Only their seasons are known, as far as they are found before the cutoffs of `past`. The
        spec stays: they are none of the series that it was trained on.
        """
        network = self.network
        entries = known_entries(past.names, network, self.names)[past.series]
        unknown = np.flatnonzero(entries == 0)
        n, seasons = len(unknown), seasons_of(past.subset(unknown), network.common_seasons)
        entries[unknown] = len(network.scale) + np.arange(n)
        rows = np.array([(periods.main, periods.long) for periods in seasons], np.float32)
        nothing = np.full(n, np.nan, np.float32)
        more = {
            "center": np.zeros(n, np.float32),
            "scale": nothing,
            "outlier_threshold": nothing,
            "seasons": rows.reshape(n, 2),
        }
        extended: dict[str, Any] = {
            name: np.concatenate([getattr(network, name), x]) for name, x in more.items()
        }
        return replace(network, **extended), entries

    @property
    def seasons(self) -> tuple[Seasons, ...]:
        """The seasons of the trained series, `(series,)`."""
        return self.network.seasons_of(np.arange(1, len(self.names) + 1))

    def tensors(self) -> Tensors:
        """Return all arrays of the network, for the artifact."""
        return self.network.tensors()

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
        n_threads: int | None = None,
    ) -> RNNForecaster:
        """Build a forecaster from verified weights, and run the stored self-test, if any.

        Raises `ModelError` where another output is computed than when the model was saved.
        """
        model = Network.from_tensors(spec, network, weights)
        forecaster = cls(model, names, n_threads=n_threads)
        if self_test is None:
            return forecaster
        expected = np.array(self_test["output"], np.float64)
        output = forecaster._self_test_output()
        size = np.abs(expected).max(initial=1e-6)
        if output.shape != expected.shape or not np.allclose(
            output / size, expected / size, atol=self_test["tolerance"], rtol=0
        ):
            raise ModelError(
                "the model does not reproduce its self-test: it forecasts otherwise than when "
                "it was saved",
                code="self-test",
                hint="use the releases of rnnforecast and numpy that `rnnforecast show` names, or "
                "train again",
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
        output = self.network.forecast(history)[0, :_SELF_TEST_LEADS]
        return output[:, [0, spec.median, -1]].ravel().astype(np.float32)

    def _self_test_features(self) -> Features | None:
        """Return waves as covariates, each of another length."""
        spec = self.network.spec
        if not spec.n_features:
            return None
        assert self.network.feature_mean is not None and self.network.feature_scale is not None
        mean, scale = self.network.feature_mean[:, None], self.network.feature_scale[:, None]
        steps = np.arange(spec.lookback + spec.horizon) * 0.3
        waves = np.sin(steps / np.arange(1, spec.n_features + 1)[:, None])
        values = (mean + scale * waves).astype(np.float32)[None]
        n_ahead = spec.n_known + spec.n_past
        return Features(
            known=values[:, : spec.n_known],
            past=values[:, spec.n_known : n_ahead, : spec.lookback],
            static=values[:, n_ahead:, 0],
        )


def _call_on_threads(
    function: Callable[[int], None], numbers: Sequence[int], n_threads: int
) -> None:
    """Call a function with each number, on so many threads at most."""
    n_workers = min(len(numbers), n_threads, _MAX_PREDICTING)
    if n_workers < 2:
        for number in numbers:
            function(number)
        return
    pool = ThreadPoolExecutor(n_workers)
    try:
        for _ in pool.map(function, numbers):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
