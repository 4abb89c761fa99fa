"""Forecasters: a network with the names of its series, and the experts without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, sums_before, take_names
from rnnforecast.data.axis import Flags
from rnnforecast.data.forecast import Forecast, interpolate_quantiles, normal_scores
from rnnforecast.data.panel import Features
from rnnforecast.data.season import MIN_SEASON, Seasons, local_seasons, seasons_of
from rnnforecast.data.windows import Past, Values, add_base
from rnnforecast.errors import ModelError
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.builtin import builtin_network
from rnnforecast.model.experts import NAMES, Experts
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
        n_read, low, high = _counts_and_extremes(newest)
        reach = max(1, period // 24)
        around = (np.arange(period)[:, None] + np.arange(-reach, reach + 1)) % period
        is_still = (low[:, around].min(-1) == high[:, around].max(-1)) & (n_read >= _FEWEST_SEASONS)
        phase = np.arange(horizon) % period
        flags[windows], levels[windows] = is_still[:, phase], low[:, phase]
    return flags, levels


def _counts_and_extremes(readings: Floats) -> tuple[Integers, Floats, Floats]:
    """Return how many readings of each window, `(window, row, ...)`, are known, and their extremes.

    These are inf and -inf where none is.
    """
    lowest = np.fmin.reduce(readings, axis=1, initial=np.inf)
    highest = np.fmax.reduce(readings, axis=1, initial=-np.inf)
    return np.isfinite(readings).sum(1), lowest, highest


def known_entries(names: Sequence[str], network: Network, known: Sequence[str]) -> Integers:
    """Return the entry of each name, `(name,)`, in a network that knows these series; 0 for none.

    A series that had no reading yet when that network was trained counts as unknown.
    """
    has_scale = np.isfinite(network.scale[1:]).tolist()
    entries = {name: i for i, name in enumerate(known, start=1) if has_scale[i - 1]}
    return np.array([entries.get(name, 0) for name in names], np.int64)


_MAX_PREDICTING = 8
"""Batches that are forecast at once, each of which takes its own memory."""
# Origins, and their rows of history and horizon, in one batch of forecasts. This bounds memory:
# experts take some 2 kB for each row.
_BATCH_ORIGINS = 768
_BATCH_ROWS = 1 << 17
_SELF_TEST_LEADS = 4
_SELF_TEST_TOLERANCE = 1e-3
"""Allowed difference in units of the largest output."""
_FEWEST_SEASONS, _LATEST_SEASONS = 5, 14
"""Seasons in which a part has to be constant, and those that are looked at, the newest ones."""
_MIN_READINGS = 3
"""Readings from which the level and scale of an unknown series are estimated, at least."""

_WITHOUT_SEASON = ("last", "level", "slow", "autoregression", "drift")
"""Forecasts without a season; the first one where no error is known."""
_SEGMENT = 16
"""Rows between the boundaries of experts."""
_MAX_FAR = 6
"""Segments ahead over which experts are compared, at most."""
_HISTORY = 16_384
"""Rows that experts see at least, where there are as many."""
_TABLE_VALUES, _COPIES = 1 << 22, 64
"""Values of a table of them, and those for each reading."""
_SEASON_DIGITS = 5
"""Binary digits of the row at which seasons are looked for: at least 15 in 16 of the readings."""
_BAND_ROWS, _BAND_SEASONS = 512, 6
"""Newest rows whose errors set the bands: at least the first number, or the second in seasons."""
_PRIOR = 4
"""Segments of errors that the deviation of the autoregression counts for."""
_MAX_ERROR_RATIO = 10.0
"""Errors lately are bands of their own where they are more than this times what was expected."""
_MEAN_ABSOLUTE = float(np.sqrt(2 / np.pi))
"""Mean absolute value of a normal variable of deviation 1."""


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
        cls, past: Past, *, lookback: int, horizon: int, seasons: Sequence[Seasons]
    ) -> RNNForecaster:
        """Return the built-in network for the series of the origins, of which each has one."""
        spec = builtin_spec(past.n_origins, lookback=lookback, horizon=horizon)
        names = take_names(past.names, past.series)
        return cls(builtin_network(spec, past, seasons), names)

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
            n_readings, lowest, highest = _counts_and_extremes(history.readings)
            is_constant = lowest == highest
            output[is_constant] = highest[is_constant, None, None]
            still, levels = constant_phases(history.readings, history.seasons, horizon)
            output[still] = levels[still, None]
            output[n_readings < _MIN_READINGS] = np.nan
            values[places] = interpolate_quantiles(output, spec.quantiles, quantiles)

        self._for_parts(predict_part, past)
        return Forecast.of_past(past, values, quantiles)

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
                n_known, *extremes = _counts_and_extremes(history.readings[:, : n_rows - rows])
                says_nothing = (n_known < _MIN_READINGS) | np.equal(*extremes)
                values[places][says_nothing, number] = np.nan

        self._for_parts(predict_part, past, n_cutoffs=n + 1)
        values[:, 2 * ago > spec.lookback] = np.nan
        return add_base(values, past), ago

    def _for_parts(
        self, work: Callable[[slice, History], None], past: Past, *, n_cutoffs: int = 1
    ) -> None:
        """Call `work` for one batch of origins after another, with their slice and history.

        `n_cutoffs` is the number of forecasts of an origin, which bounds the size of a batch.
        """
        spec = self.network.spec
        entries = known_entries(past.names, self.network, self.names)[past.series]
        seasons = self._seasons(past, entries)
        width = spec.lookback + n_cutoffs * spec.horizon
        size = max(1, min(_BATCH_ORIGINS, _BATCH_ROWS // width))

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
                "the model fails its self-test: its forecasts differ from those when it was saved",
                code="self-test",
                hint="use the releases of rnnforecast and numpy shown by  rnnforecast show , "
                "or retrain",
            )
        return forecaster

    def _seasons(self, past: Past, entries: Integers) -> tuple[Seasons, ...]:
        """Return the seasons of each origin's series: of unknown ones those found before it."""
        seasons = list(self.network.seasons_of(entries))  # of entry 0 the common ones
        unknown = np.flatnonzero(entries == 0)
        if len(unknown) and self.network.common_seasons is None:
            # those of other ranks are theirs to look for
            rows = local_seasons(past.subset(unknown)).tolist()
            for origin, row in zip(unknown.tolist(), rows, strict=True):
                seasons[origin] = Seasons(*row)
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
    """Call a function with each number, on up to `n_threads` threads."""
    n_workers = min(len(numbers), n_threads, _MAX_PREDICTING)
    if n_workers < 2:
        for number in numbers:
            function(number)
        return
    with ThreadPoolExecutor(n_workers) as pool:
        list(pool.map(function, numbers))  # where one fails, those that wait are cancelled


@dataclass(frozen=True)
class ExpertForecaster:
    """Forecasts each series by the experts of its seasons alone, without a network.

    With two seasons it is the better one lately: see `combine`. Bands are normal. An origin
    has the forecast that it has alone; origins of one series share at most `_SEGMENT` passes over
    its readings.
    """

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        """Forecast after each cutoff; NaN where there is no reading."""
        point = np.full((past.n_origins, horizon), np.nan)
        deviation = np.zeros_like(point)
        for seasons, origins, row, table in _tables(past, horizon):
            end = np.zeros(len(table), np.int64)
            np.maximum.at(end, row, past.cutoff[origins])
            n_later = (end[row] - past.cutoff[origins]) // _SEGMENT
            error = np.full(len(origins), np.inf)
            for period in seasons.periods or (1,):
                far = min(-(-horizon // _SEGMENT), _MAX_FAR)
                experts = Experts(table, Seasons(period), _SEGMENT, far=far)
                combined = _with_bands(experts, row, experts.n_segments - n_later, horizon)
                is_better = (combined.error < error) | (period == seasons.main)
                point[origins[is_better]] = combined.point[is_better]
                deviation[origins[is_better]] = combined.deviation[is_better]
                error = np.where(is_better, combined.error, error)

        with np.errstate(over="ignore"):  # readings near the largest of float32
            values = point[..., None] + deviation[..., None] * normal_scores(quantiles)
            return Forecast.of_past(past, values.astype(np.float32), quantiles)


def _tables(past: Past, horizon: int) -> Iterator[tuple[Seasons, Integers, Integers, Doubles]]:
    """Yield seasons, origins, the row of each in a table, and the table, `(row, reading)`.

    The cutoffs of a row lie whole segments apart, and it ends at the latest of them. Shorter rows
    begin with missing readings.
    """
    seasons, half = _seasons(past), _HISTORY // 2
    begin = np.maximum((past.cutoff - _HISTORY) // half, 0) * half
    keys = np.column_stack([seasons, begin, past.series, past.cutoff % _SEGMENT])
    keys, row = np.unique(keys, axis=0, return_inverse=True)
    row = row.ravel()
    end = np.zeros(len(keys), np.int64)
    np.maximum.at(end, row, past.cutoff)
    lengths = end - keys[:, 2]

    # rows of equal seasons and beginnings, the shortest first, share tables
    order = np.lexsort((lengths, *keys[:, 2::-1].T))
    differs = (np.diff(keys[order, :3], axis=0) != 0).any(1)
    for group in np.split(order, np.flatnonzero(differs) + 1):
        n_done = 0
        while n_done < len(group):
            longest = 2 * int(lengths[group[n_done]]) + _SEGMENT
            n_rows = max(1, _TABLE_VALUES // (longest * (_COPIES + horizon // 4)))
            n_alike = int(np.searchsorted(lengths[group], longest, side="right"))
            chosen = group[n_done : min(n_alike, n_done + n_rows)]
            n_done += len(chosen)
            if not lengths[chosen].any():
                continue  # nothing lies before these cutoffs

            place = np.full(len(keys), -1)
            place[chosen] = np.arange(len(chosen))
            origins = np.flatnonzero(place[row] >= 0)
            main, long, first, *_ = keys[chosen[0]].tolist()
            ends = replace(past, series=keys[chosen, 3], cutoff=end[chosen])
            table = ends.history(int(end[chosen].max()) - first).astype(np.float64)
            is_earlier = np.arange(table.shape[1]) < (table.shape[1] - lengths[chosen])[:, None]
            table[is_earlier] = np.nan
            yield Seasons(main, long), origins, place[row[origins]], table


def _seasons(past: Past) -> Integers:
    """Return the main and the long season of each origin, `(origin, 2)`.

    They are looked for at the cutoff, rounded down to its first binary digits, so that origins of
    one series share them, and that none sees more than its past.
    """
    _, n_digits = np.frexp(past.cutoff)
    unit = 1 << np.maximum(n_digits - _SEASON_DIGITS, 0).astype(np.int64)
    keys = np.column_stack([past.series, past.cutoff // unit * unit])
    keys, number = np.unique(keys, axis=0, return_inverse=True)
    return local_seasons(replace(past, series=keys[:, 0], cutoff=keys[:, 1]))[number.ravel()]


@dataclass(frozen=True)
class _Combined:
    """Forecasts of experts, `(origin, lead)`, with their deviations and recent errors."""

    point: Doubles
    deviation: Doubles
    error: Doubles
    """`(origin,)`: the mean absolute one over leads, lately; infinite where none is known."""


def _with_bands(experts: Experts, series: Integers, boundary: Integers, horizon: int) -> _Combined:
    """Forecast series after boundaries, `(origin,)` each, with the errors of earlier ones.

    Deviations are those of the autoregression, times the errors of about the same lead lately as
    a share of what these deviations let expect. Mean absolute errors are less moved by spikes than
    squares, and as wide a band holds as much where errors are no normal variables.
    """
    segment, n_series = experts.segment, len(experts.readings)
    width = -(-max(_BAND_SEASONS * experts.seasons.main, _BAND_ROWS) // segment)
    begin = max(int(boundary.min()) - width - -(-horizon // segment), 0)
    earlier = np.arange(begin, int(boundary.max()) + 1)
    every_boundary = np.broadcast_to(earlier, (n_series, len(earlier)))
    point, deviation = combine(experts, np.arange(n_series), every_boundary, horizon)

    rows = earlier[:, None] * segment + np.arange(horizon)
    actual = experts.readings[:, np.minimum(rows, experts.n_rows - 1)]
    errors = np.where(rows < experts.n_rows, np.abs(actual - point), np.nan)
    is_known = np.isfinite(errors)
    expected = np.where(is_known, deviation * _MEAN_ABSOLUTE, 0.0)
    parts = np.where(is_known, errors, 0.0), expected, is_known

    # groups of leads, each twice as long as the one before
    ends = np.unique(np.minimum(2 ** np.arange(horizon.bit_length() + 1), horizon)).tolist()
    origin = boundary - begin
    deviations = deviation[series, origin]
    mean_error = np.zeros(len(series))
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        # boundaries whose readings up to the last lead are known
        stop = np.maximum(origin - -(-end // segment) + 1, 0)
        start = np.maximum(stop - width, 0)
        sums = (sums_before(part[..., first:end].sum(-1)) for part in parts)
        error, usual, n_known = (s[series, stop] - s[series, start] for s in sums)
        ratio = np.where(usual > 0, error / np.where(usual > 0, usual, 1.0), 1.0)
        weight = n_known / (end - first)
        factor = (weight * ratio + _PRIOR) / (weight + _PRIOR)
        mean = np.where(n_known > 0, error / np.maximum(n_known, 1), np.inf)
        # deviations that said next to nothing are no measure of the errors
        from_errors = np.where(ratio > _MAX_ERROR_RATIO, mean / _MEAN_ABSOLUTE, np.nan)[:, None]
        part = deviations[:, first:end]
        deviations[:, first:end] = np.where(
            np.isfinite(from_errors), from_errors, part * factor[:, None]
        )
        mean_error += mean * (end - first) / horizon

    center = experts.center[series, None]
    return _Combined(point[series, origin] + center, deviations, mean_error)


def combine(
    experts: Experts, series: Integers, boundary: Integers, horizon: int
) -> tuple[Doubles, Doubles]:
    """Forecast by the weighted season, and the autoregression of what it leaves over.

    Without a season it is one of `_WITHOUT_SEASON`: the one with the least error lately. Takes
    what `Experts.forecast` takes; returns forecasts less the center, NaN before the first reading,
    and their standard deviation as the autoregression has it, `(window, origin, lead)` each.
    """
    at = series[:, None], boundary
    level = experts.level[at][..., None]
    added = experts.season_ar.forecast(*at, experts.segment, horizon)
    deviation = experts.season_ar.deviation(*at, horizon)
    leads, main = np.arange(horizon), experts.seasons.main
    ahead = experts.rows_ahead(series, boundary, leads, main, experts.phase_last)
    if experts.seasons.has_main:
        values = ahead.of(experts.phase_mean, level) + added
    else:
        has_far = experts.n_far_judged[at][..., None] > 0
        errors = experts.error[at] + np.where(has_far, experts.far_error[at], experts.error[at])
        numbers = [NAMES.index(name) for name in _WITHOUT_SEASON]
        best = errors[..., numbers].argmin(-1)[..., None]
        last = experts.last_reading(*at)[0][..., None]
        drift = last + experts.growth(*at, leads, ahead)
        values = np.choose(best, (last, level, experts.mean[at][..., None], level + added, drift))
    return np.where(experts.n_seen[at][..., None] > 0, values, np.nan), deviation
