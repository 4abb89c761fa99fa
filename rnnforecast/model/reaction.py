"""How series react to covariates that are known ahead, now and after a while: one more expert."""

from __future__ import annotations

import numpy as np

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import Flags
from rnnforecast.data.season import phase_means, shift
from rnnforecast.model.experts import WEIGHTED, WEIGHTED_RATE, Experts, TrailingMeans

_TIME_CONSTANTS = (2.0, 8.0, 32.0)
"""Rows after which a reaction has come to 1 - 1/e: besides that at once, those that are fitted."""
_MAX_FEATURES = 32
"""Features of the regression: with more covariates there are fewer time constants, then none."""
_REFIT = 4
"""Segments from one fit to the next."""
_PRIOR_ROWS = 1.0
"""Weight of no reaction, in rows in which each covariate is a standard deviation off."""
_RIDGE = 0.01
"""The same in units of the mean square of the features."""


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
        self._level = TrailingMeans(past, experts.segment).of_season(experts.seasons)
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
        values = self.next_segment + experts.next_segment[:, :, WEIGHTED]
        self.error, _ = experts.recent_errors(values[:, :, None], 0)

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
        residual, _ = self._residual.forecast(series[:, None], boundary, experts.segment, horizon)
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
