"""Inputs of the network: for each segment what is known before it, and what the experts forecast.

All is in units of a local spread, and large values are compressed, so that a network trained on
other series can read it. Covariates are standardised, and cut into the same segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.axis import Flags
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons, ffill, phase_means, shift
from rnnforecast.model.experts import (
    DRIFT_ROWS,
    NAMES,
    WEIGHTED,
    WEIGHTED_RATE,
    Experts,
    TrailingMeans,
)
from rnnforecast.spec import CONTEXT_ROWS, N_BEFORE, N_EXPERTS, N_SHOWN

_SEASONS = [NAMES.index("season"), NAMES.index("weighted")]
_AGE_IN_ROWS, _AGE_IN_SEASONS = 13, 14
"""Places of two facts that change over the horizon: how long nothing was read."""
_IS_BLIND = 19
"""Place of the fact that nothing was read so far."""
_LOG_FLOOR = 1e-4
"""Least value, in units of the spread, whose logarithm is an input."""
_ERROR_FLOOR = 1e-3
"""The same for errors, in units of the best expert's error."""
MIN_GAIN = 0.01
"""Least error of the best expert, in units of the spread, that bands and offsets scale with."""
_MAX_VALUE = 1e6
_MAX_DEVIATION = 10.0
"""Covariates are clipped to this many standard deviations around their mean."""
_LEAST_REACTION_ERROR = 0.01
"""Least error of the reaction, in units of the best expert's, whose logarithm is an input."""
_MAX_FAR = 6
"""Segments ahead over which the experts' errors are measured, at most."""
_TIME_CONSTANTS = (2.0, 8.0, 32.0)
"""Time constants, in rows, of the exponential averages of covariates that are fitted."""
_MAX_FEATURES = 32
"""Features of the regression: with more covariates there are fewer time constants, then none."""
_REFIT = 4
"""Segments from one fit to the next."""
_PRIOR_ROWS = 1.0
"""Weight of no reaction, in rows in which each covariate is a standard deviation off."""
_RIDGE = 0.01
"""The same in units of the mean square of the features."""


Array = TypeVar("Array")
_Other = TypeVar("_Other")


class Segments(NamedTuple, Generic[Array]):
    """What a member takes of N windows of S segments: arrays of numpy, or tensors in training."""

    values: Array  # (N, S, I)
    experts: Array  # (N, S, K, P)
    gain: Array  # (N, S)
    covariates: Array | None = None  # (N, S, C)
    reaction: Array | None = None  # (N, S, P)
    reaction_error: Array | None = None  # (N, S)

    def apply(self, function: Callable[[Array], _Other]) -> Segments[_Other]:
        """Return the results of a function of each array that is there."""
        return Segments(*(None if x is None else function(x) for x in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Inputs:
    """Inputs of segments, and the units of what the network puts out for them.

    Readings are those of the sensor less the center of their series.
    """

    values: Floats
    """`(window, segment, input)`."""
    experts: Floats
    """`(window, segment, expert, row)`: forecasts less the level, in units of the spread."""
    gain: Floats
    """`(window, segment)`: the usual error of the best expert, in units of the spread."""
    level: Doubles
    """`(window, segment)`, in units of the readings."""
    spread: Doubles
    """`(window, segment)`, in units of the readings."""
    reaction: Floats
    """`(window, segment, row)`: what known covariates add to the weighted season, in units of the
    spread. Without them there is no row."""
    reaction_error: Floats
    """`(window, segment)`: its usual error, in units of the spread."""

    def apply(self, function: Callable[..., NDArray[Any]], *more: Inputs) -> Inputs:
        """Return the results of a function of each array, and of the same arrays of more inputs."""
        arrays = [[getattr(inputs, f.name) for inputs in (self, *more)] for f in fields(self)]
        return Inputs(*(function(*same) for same in arrays))


class SeriesInputs:
    """Inputs of series, `(series, row)`, each with its seasons.

    The rows end with the last segment. Series with equal seasons are computed together.
    """

    def __init__(
        self,
        readings: Doubles,
        seasons: Sequence[Seasons],
        segment: int,
        *,
        n_ahead: int,
        known: Floats | None = None,
        drift_rows: int = DRIFT_ROWS,
    ) -> None:
        """Compute experts and inputs of all segments; `n_ahead` are those of a horizon.

        `known`, `(series, covariate, row)`, are covariates of these rows and those ahead.
        """
        self.segment = segment
        self._group = np.empty(len(readings), np.int64)
        self._place = np.empty(len(readings), np.int64)
        self.center = np.empty(len(readings))
        groups: dict[Seasons, list[int]] = {}
        for number, of_series in enumerate(seasons):
            groups.setdefault(of_series, []).append(number)

        self._experts: list[Experts] = []
        self._reactions: list[Reaction | None] = []
        parts: list[Inputs] = []
        for of_group, numbers in groups.items():
            self._group[numbers] = len(self._experts)
            self._place[numbers] = np.arange(len(numbers))
            lead = max(1, min(n_ahead, -(-of_group.main // segment) + 1, _MAX_FAR))
            experts = Experts(readings[numbers], of_group, segment, far=lead, drift_rows=drift_rows)
            self._experts.append(experts)
            self.center[numbers] = experts.center
            reaction = None
            if known is not None:
                n_before = experts.n_rows - readings.shape[1]
                n_after = experts.n_rows + n_ahead * segment - n_before - known.shape[2]
                padding = (0, 0), (0, 0), (n_before, n_after)
                reaction = Reaction(experts, np.pad(known[numbers], padding, mode="edge"))
            self._reactions.append(reaction)
            parts.append(_of_history(experts, reaction))

        self.history = _joined(parts, [*groups.values()])
        self.n_segments = self.history.gain.shape[1]

    def ahead(self, series: Integers, boundary: Integers, n_ahead: int) -> Inputs:
        """Return the inputs of the segments after boundaries, `(window,)`, as if nothing was read.

        `series` and `boundary` are `(window,)`.
        """
        groups = self._group[series]
        numbers = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        parts = [
            _of_horizon(
                self._experts[groups[at[0]]],
                self._reactions[groups[at[0]]],
                self._place[series[at]],
                boundary[at],
                n_ahead,
            )
            for at in numbers
        ]
        return _joined(parts, numbers)


def _joined(parts: Sequence[Inputs], numbers: Sequence[Sequence[int] | Integers]) -> Inputs:
    """Join the inputs of groups of windows in the order of their numbers."""
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(np.concatenate(numbers))
    return parts[0].apply(lambda *same: np.concatenate(same)[back], *parts[1:])


@dataclass(frozen=True)
class Places:
    """Where windows end in stretches of rows, and which segments the recurrence runs over.

    The recurrence runs once over the last segments of a stretch; from its states at their cutoffs
    all windows of the stretch are forecast.
    """

    stretch: Integers
    """`(window,)`: the stretch that each window ends in."""
    boundary: Integers
    """`(window,)`: segments of the stretch before the window's cutoff."""
    n_history: int
    """Segments of a stretch that the recurrence runs over, the last ones."""
    n_ahead: int
    n_segments: int
    """Segments of a stretch, the first of which may begin before its first row."""

    @classmethod
    def at_end(
        cls, n_stretches: int, n_rows: int, segment: int, *, n_ahead: int, n_origins: int = 1
    ) -> Places:
        """Place windows at the end of stretches; with several origins, more of them end before."""
        n_segments = -(-n_rows // segment)
        stride = max(1, min(n_ahead, n_segments // (2 * n_origins)))
        boundaries = np.maximum(n_segments - stride * np.arange(n_origins), 0)
        n_history = -(-CONTEXT_ROWS // segment) + stride * (n_origins - 1)
        return cls(
            np.repeat(np.arange(n_stretches), n_origins),
            np.tile(boundaries, n_stretches),
            n_history=min(n_history, n_segments),
            n_ahead=n_ahead,
            n_segments=n_segments,
        )

    @property
    def first(self) -> int:
        """Number of the first segment that the recurrence runs over."""
        return self.n_segments - self.n_history

    @property
    def state(self) -> Integers:
        """`(window,)`: segments that the recurrence has run over at the window's cutoff."""
        return self.boundary - self.first

    @property
    def ahead(self) -> Integers:
        """`(window, segment)`: numbers of the segments after the cutoff."""
        return self.boundary[:, None] + np.arange(self.n_ahead)


def window_inputs(
    readings: Doubles,
    seasons: Sequence[Seasons],
    segment: int,
    places: Places,
    known: Floats | None = None,
) -> tuple[Inputs, Inputs]:
    """Return the inputs of the history of stretches, `(stretch, row)`, and of windows ahead.

    NaN is missing. Levels are those of the readings. `known`, `(stretch, covariate, row)`, are
    covariates of these rows and those of the horizon.
    """
    stretches = SeriesInputs(readings, seasons, segment, n_ahead=places.n_ahead, known=known)
    center = stretches.center
    history = stretches.history.apply(lambda array: array[:, places.first :])
    ahead = stretches.ahead(places.stretch, places.boundary, places.n_ahead)
    return (
        replace(history, level=history.level + center[:, None]),
        replace(ahead, level=ahead.level + center[places.stretch, None]),
    )


def _of_history(experts: Experts, reaction: Reaction | None) -> Inputs:
    """Return the inputs of all segments, one ahead of each boundary."""
    n_series, n, segment = len(experts.readings), experts.n_segments, experts.segment
    series = np.arange(n_series)
    boundary = np.broadcast_to(np.arange(n), (n_series, n))
    facts, level, spread, gain = _facts(experts, series, boundary)

    # the segment before each boundary, which none stands before the first
    actual = experts.readings.reshape(n_series, n, segment)
    before = np.zeros((n_series, n, N_BEFORE, segment), np.float32)
    expected = _expected(experts, series, boundary)
    before[:, 1:] = _before(actual[:, :-1], expected[:, :-1], level[:, 1:], spread[:, 1:])
    values = _pack(experts.next_segment, experts.next_deviation, before, facts, level, spread, gain)
    if reaction is None:
        return values
    return _with_reaction(values, reaction.next_segment, reaction.error[:, :-1, 0])


def _of_horizon(
    experts: Experts, reaction: Reaction | None, series: Integers, boundary: Integers, n_ahead: int
) -> Inputs:
    """Return the inputs of the segments after boundaries, `(window,)` as `series` is.

    The first holds the segment before the boundary; to the others, nothing was read before.
    """
    segment, n_windows = experts.segment, len(series)
    forecasts = experts.forecast(series, boundary[:, None], n_ahead * segment)
    deviation = experts.season_ar.deviation(series[:, None], boundary[:, None], n_ahead * segment)
    forecasts = forecasts[:, 0].reshape(n_windows, N_EXPERTS, n_ahead, segment).swapaxes(1, 2)
    deviation = deviation[:, 0].reshape(n_windows, n_ahead, segment)
    facts, level, spread, gain = _facts(experts, series, boundary[:, None])

    repeated = [np.repeat(array, n_ahead, axis=1) for array in (facts, level, spread, gain)]
    _, age = experts.last_reading(series[:, None], boundary[:, None])
    age = age + np.arange(n_ahead) * segment
    repeated[0][..., _AGE_IN_ROWS] = 0.5 * np.log1p(age)
    repeated[0][..., _AGE_IN_SEASONS] = 0.5 * np.log1p(age / experts.season_rows)

    newest = np.maximum(boundary - 1, 0)
    actual = experts.readings.reshape(len(experts.readings), -1, segment)[series, newest]
    actual = np.where(boundary[:, None] > 0, actual, np.nan)
    before = np.zeros((n_windows, n_ahead, N_BEFORE, segment), np.float32)
    expected = _expected(experts, series, newest[:, None])
    before[:, :1] = _before(actual[:, None], expected, level, spread)
    values = _pack(forecasts, deviation, before, *repeated)
    if reaction is None:
        return values
    added = reaction.forecast(series, boundary[:, None], n_ahead * segment)
    error = np.repeat(reaction.error[series, boundary], n_ahead, axis=1)
    return _with_reaction(values, added.reshape(n_windows, n_ahead, segment), error)


def _with_reaction(inputs: Inputs, reaction: Doubles, error: Doubles) -> Inputs:
    """Add what known covariates add, `(window, segment, row)`, and its error, to inputs."""
    scaled = (reaction / inputs.spread[..., None]).astype(np.float32)
    return replace(
        inputs, reaction=scaled, reaction_error=(error / inputs.spread).astype(np.float32)
    )


def _facts(
    experts: Experts, series: Integers, boundary: Integers
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Return what is known at boundaries, `(window, origin)`, for series, `(window,)`.

    The facts, `(window, origin, fact)`, the level, the spread, and the gain.
    """
    at = series[:, None], boundary
    seasons = experts.seasons
    level, spread = experts.level[at], experts.spread[at]
    last, age = experts.last_reading(*at)
    last = np.where(np.isfinite(last), last, level)
    n_seen = experts.n_seen[at]
    error, n_judged = experts.error[at], experts.n_judged[at][..., None]
    far_error, n_far = experts.far_error[at], experts.n_far_judged[at][..., None]

    def log(values: Doubles) -> Doubles:
        logarithm: Doubles = 0.4 * np.log(np.maximum(values, _LOG_FLOOR * spread) / spread)
        return logarithm

    is_judged = n_judged > 0
    least = np.where(is_judged[..., 0], np.minimum(error.min(-1), spread), spread)
    gain = np.where(is_judged[..., 0], np.clip(least / spread, MIN_GAIN, 1.0), 1.0)
    unit = (gain * spread)[..., None]

    def log_errors(errors: Doubles) -> Doubles:
        logarithm: Doubles = 0.5 * np.log(np.maximum(errors, _ERROR_FLOOR * unit) / unit)
        return logarithm

    differences = [
        last - level,
        experts.short_remainder[at],
        experts.season_remainder[at],
        experts.season_drift[at],
        experts.short_level[at] - level,
        experts.mean[at] - level,
        np.where(n_seen > 0, experts.minimum[at] - level, 0.0),
        np.where(n_seen > 0, experts.maximum[at] - level, 0.0),
    ]
    facts = [
        *(compress(difference / spread) for difference in differences),
        0.4 * np.log(spread / experts.total_spread[at]),
        *(log(e[at]) for e in (experts.season_error, experts.weighted_error, experts.change)),
        log(experts.long_error[at]) if seasons.has_long else np.zeros_like(level),
        0.5 * np.log1p(age),
        0.5 * np.log1p(age / experts.season_rows),
        0.5 * np.log1p(n_seen / seasons.main),
        np.full_like(level, 0.3 * np.log(seasons.main)),
        np.full_like(level, float(seasons.main > 1)),
        np.where(n_seen > seasons.long, float(seasons.has_long), 0.0),
        (n_seen == 0).astype(np.float64),
        0.3 * np.log1p(n_judged[..., 0]),
    ]
    log_error = np.where(is_judged, log_errors(error), 0.0)
    log_far_error = np.where(n_far > 0, log_errors(far_error), log_error)
    joined: Doubles = np.concatenate([np.stack(facts, -1), log_error, log_far_error], -1)
    return joined, level, spread, gain


def _expected(experts: Experts, series: Integers, boundary: Integers) -> Doubles:
    """Return what both seasons had expected after boundaries, `(window, origin, season, row)`.

    Before the first reading they knew no level, and it is the one that the segment has ended at.
    """
    at = series[:, None], boundary
    next_level = experts.level[series[:, None], boundary + 1]
    level = np.where(experts.n_seen[at] > 0, experts.level[at], next_level)
    expected: Doubles = experts.next_segment[:, :, _SEASONS][at].astype(np.float64)
    expected *= experts.spread[at][..., None, None]
    expected += level[..., None, None]
    return expected


def _before(actual: Doubles, expected: Doubles, level: Doubles, spread: Doubles) -> Floats:
    """Return what was read in a segment, `(window, origin, 4, row)`.

    `actual` is `(window, origin, row)`, what seasons had expected `(window, origin, season, row)`.
    """
    is_seen = np.isfinite(actual)
    scale = spread[..., None]

    def scaled(values: Doubles) -> Floats:
        return compress(np.where(is_seen, values, 0.0) / scale)

    return np.stack(
        [
            scaled(actual - level[..., None]),
            is_seen.astype(np.float32),
            scaled(actual - expected[:, :, 0]),
            scaled(actual - expected[:, :, 1]),
        ],
        axis=2,
    )


def _pack(
    forecasts: Floats,
    deviation: Doubles,
    before: Floats,
    facts: Doubles,
    level: Doubles,
    spread: Doubles,
    gain: Doubles,
) -> Inputs:
    """Join the inputs of segments; forecasts are `(window, segment, expert, row)`."""
    scale = spread[..., None]
    noise = 0.4 * np.log(np.maximum(deviation, _LOG_FLOOR * scale) / scale)
    # without a reading there is no spread: the ratio would depend on the unit
    noise = np.where(facts[..., _IS_BLIND, None] > 0, 0.0, noise)
    shape = *forecasts.shape[:2], -1
    compressed = compress(forecasts[:, :, 1 : 1 + N_SHOWN])
    parts: list[NDArray[Any]] = [before.reshape(shape), compressed.reshape(shape), noise, facts]
    values = np.concatenate(parts, axis=-1, dtype=np.float32)
    nothing = np.zeros((*level.shape, 0), np.float32)
    return Inputs(
        values,
        forecasts,
        gain.astype(np.float32),
        level,
        spread,
        reaction=nothing,
        reaction_error=np.zeros(level.shape, np.float32),
    )


def compress(values: Doubles | Floats) -> Floats:
    """Return the inverse hyperbolic sine: small values stay, large ones grow as their logarithm.

    It is computed as the network takes it, in single precision, which is ten times as fast.
    """
    bounded = np.maximum(np.minimum(values, _MAX_VALUE), -_MAX_VALUE).astype(np.float32)
    compressed: Floats = np.arcsinh(bounded, out=bounded)
    return compressed


def standardise(features: Features, mean: Floats, scale: Floats) -> Features:
    """Standardise covariates; an unknown value repeats the last one, or is the mean, 0.

    `mean` and `scale`, `(feature,)`, are those of known, past and static ones, in this order.
    """
    n_known, n_past = features.known.shape[1], features.past.shape[1]

    def standard(values: Floats, begin: int) -> Doubles:
        places = slice(begin, begin + values.shape[1])
        shape = (1, -1, *[1] * (values.ndim - 2))
        return np.clip(
            (values.astype(np.float64) - mean[places].reshape(shape))
            / scale[places].reshape(shape),
            -_MAX_DEVIATION,
            _MAX_DEVIATION,
        )

    def filled(values: Doubles) -> Floats:
        flat, _ = ffill(values.reshape(-1, values.shape[-1]))
        return np.nan_to_num(flat).reshape(values.shape).astype(np.float32)

    return Features(
        known=filled(standard(features.known, 0)),
        past=filled(standard(features.past, n_known)),
        static=np.nan_to_num(standard(features.static, n_known + n_past)).astype(np.float32),
    )


def covariate_inputs(
    features: Features, places: Places, segment: int, history: Inputs, ahead: Inputs
) -> tuple[Floats, Floats]:
    """Return what is known of standardised covariates in the segments of both inputs.

    For each segment: the known ones in the segment before and in it, the past ones in the one
    before, 0 where that lies ahead, the static ones; the reaction, and its error's logarithm.
    """
    n_all = places.n_segments + places.n_ahead
    n_before = places.n_segments * segment - features.past.shape[2]  # rows before the first

    def cut(values: Floats) -> Floats:
        """Return `(stretch, 1 + segment, feature * row)`, zeros first and where no row is."""
        n, n_features, length = values.shape
        table = np.zeros((n, n_features, (1 + n_all) * segment), np.float32)
        begin = segment + n_before
        length = min(length, table.shape[2] - begin)
        table[:, :, begin : begin + length] = values[:, :, :length]
        parts = table.reshape(n, n_features, 1 + n_all, segment).transpose(0, 2, 1, 3)
        return parts.reshape(n, 1 + n_all, n_features * segment)

    known, past = cut(features.known), cut(features.past)

    def joined(stretch: Integers, numbers: Integers, n_past: Integers, inputs: Inputs) -> Floats:
        at = stretch[:, None], numbers
        is_past = (numbers <= n_past[:, None])[..., None]
        static = np.repeat(features.static[stretch, None], numbers.shape[1], axis=1)
        parts: list[NDArray[Any]] = [known[at], known[stretch[:, None], numbers + 1]]
        parts += [np.where(is_past, past[at], np.float32(0)), static]
        if features.known.shape[1]:
            error = np.log(np.maximum(inputs.reaction_error / inputs.gain, _LEAST_REACTION_ERROR))
            parts += [compress(inputs.reaction.astype(np.float64)), 0.5 * error[..., None]]
        return np.concatenate(parts, axis=-1).astype(np.float32)

    stretches = np.arange(len(features.static))
    numbers = np.broadcast_to(np.arange(places.first, places.n_segments), history.gain.shape)
    of_history = joined(stretches, numbers, np.full(len(stretches), places.n_segments), history)
    return of_history, joined(places.stretch, places.ahead, places.boundary, ahead)


class Reaction:
    """What known covariates add to the weighted season of each series, or to its level.

    A linear regression of what that leaves over on the covariates and exponential averages of
    them, all less their own season or level, fitted at every few boundaries to the rows before;
    what that leaves over in turn is forecast by an autoregression.
    """

    def __init__(self, experts: Experts, known: Doubles) -> None:
        """Fit to covariates in the rows of the experts and after them, `(series, feature, row)`.

        They are standardised, and none is missing.
        """
        self._experts = experts
        features = _averages(known)
        n_series, n_features, n_all = features.shape
        self._shape = n_series, n_features
        self._features = features.reshape(-1, n_all)
        past = self._features[:, : experts.n_rows]
        self._level = TrailingMeans.of(past, experts.segment).of_season(experts.seasons)
        expected = np.repeat(self._level[:, :-1], experts.segment, axis=1)
        self._phases = None
        if experts.seasons.has_main:
            main = experts.seasons.main
            self._phases = phase_means(past, main, WEIGHTED_RATE)
            of_phase = shift(self._phases, main)
            expected = np.where(np.isfinite(of_phase), of_phase, expected)
        deviations = (past - expected).reshape(n_series, n_features, experts.n_rows)

        known_rows = experts.has_remainder
        remainder = np.where(known_rows, experts.remainder, 0.0)
        self._coefficients = self._fit(deviations, remainder, known_rows)
        parts = deviations.reshape(n_series, n_features, -1, experts.segment)
        fitted = np.einsum("sfnr,snf->snr", parts, self._coefficients[:, :-1])
        residual = remainder - fitted.reshape(n_series, -1)
        self._residual = experts.autoregression(residual, known_rows)

        everything = np.arange(n_series)
        n = experts.n_segments
        boundary = np.broadcast_to(np.arange(n), (n_series, n))
        self.next_segment = self.forecast(everything, boundary, experts.segment)
        added = self.next_segment / experts.spread[:, :n, None]
        errors = np.abs(experts.actual(0) - (experts.next_segment[:, :, WEIGHTED] + added))
        self.error, _ = experts.recent_errors(errors[:, :, None], 0)

    def forecast(self, series: Integers, boundary: Integers, horizon: int) -> Doubles:
        """Forecast what is added, `(window, origin, lead)`.

        `series` is `(window,)`, `boundary` `(window, origin)`.
        """
        experts, (_, n_features) = self._experts, self._shape
        leads = np.arange(horizon)
        first = boundary * experts.segment
        # all are by window, origin and feature, then by lead
        rows = series[:, None, None] * n_features + np.arange(n_features)
        ahead = self._features[rows[..., None], (first[..., None] + leads)[:, :, None]]
        expected = self._level[rows, boundary[..., None]][..., None]
        if self._phases is not None:
            main = experts.seasons.main
            before = (first[..., None] + leads - main * (leads // main + 1))[:, :, None]
            of_phase = self._phases[rows[..., None], np.maximum(before, 0)]
            of_phase = np.where(before >= 0, of_phase, np.nan)
            expected = np.where(np.isfinite(of_phase), of_phase, expected)
        coefficients = self._coefficients[series[:, None], boundary]
        reaction = np.einsum("wofl,wof->wol", ahead - expected, coefficients)
        residual = self._residual.forecast(series[:, None], boundary, experts.segment, horizon)
        total: Doubles = reaction + residual
        return total

    def _fit(self, features: Doubles, target: Doubles, is_known: Flags) -> Doubles:
        """Return the coefficients at each boundary, `(series, boundary, feature)`."""
        segment = self._experts.segment
        n_series, n_features = self._shape
        n = target.shape[1] // segment
        seen = (features * is_known[:, None]).reshape(n_series, n_features, n, segment)
        target = target.reshape(n_series, n, segment)
        squares = np.zeros((n_series, n_features, n_features))
        products = np.zeros((n_series, n_features, 1))
        coefficients = np.zeros((n_series, n + 1, n_features))
        identity = np.eye(n_features)
        for number in range(n):
            part = seen[:, :, number]
            squares += part @ part.swapaxes(1, 2)
            products += part @ target[:, number, :, None]
            coefficients[:, number + 1] = coefficients[:, number]
            if (n - number - 1) % _REFIT == 0:  # the last boundary has the newest fit
                size = np.trace(squares, axis1=1, axis2=2) / n_features
                ridge = (_PRIOR_ROWS + _RIDGE * size)[:, None, None] * identity
                coefficients[:, number + 1] = np.linalg.solve(squares + ridge, products)[..., 0]
        return coefficients


def _averages(known: Doubles) -> Doubles:
    """Return covariates, `(series, feature, row)`, and exponential averages of them."""
    n_series, n_known, n_rows = known.shape
    n_more = min(len(_TIME_CONSTANTS), max(_MAX_FEATURES // max(n_known, 1) - 1, 0))
    first = known[:, :_MAX_FEATURES]
    shares = 1 - np.exp(-1 / np.array(_TIME_CONSTANTS[:n_more]))
    average = np.repeat(first[:, :, None, 0], n_more, axis=2)
    averages = np.empty((n_series, first.shape[1], n_more, n_rows))
    for row in range(n_rows):
        average = average + shares * (first[:, :, None, row] - average)
        averages[..., row] = average
    return np.concatenate([first, averages.reshape(n_series, -1, n_rows)], axis=1)
