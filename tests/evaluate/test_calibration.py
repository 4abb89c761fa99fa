"""Conformal calibration: bands come to hold what they promise, and nothing moves by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest

from rnnforecast.data.arrays import take_names
from rnnforecast.data.forecast import TAIL_PAIRS, Forecast
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.backtest import Truth
from rnnforecast.evaluate.calibration import Calibrated, _move, fit_calibration
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, make_panel

HORIZON, LOOKBACK = 12, 24
SCORES = np.array([NormalDist().inv_cdf(level) for level in QUANTILES])


def noise(n: int, *, seed: int = 0, spread: object = 1.0) -> np.ndarray:
    return 20 + spread * np.random.default_rng(seed).standard_normal(n)


@dataclass(frozen=True)
class Normal:
    """Normal around 20; its spread is wrong by a factor, and knows quiet from noisy hours."""

    factor: float = 1.0
    by_lead: float = 0.0
    noisy: float = 1.0
    """The true spread of every other stretch of 12 hours."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        hour = past.next_step[:, None] + np.arange(horizon)
        spread = np.where(hour // 12 % 2, self.noisy, 1.0) * self.factor
        spread = spread * (1 + self.by_lead * np.arange(horizon) / horizon)
        at = [QUANTILES.index(level) for level in quantiles]
        values = (20 + spread[:, :, None] * SCORES[at]).astype(np.float32)
        names = take_names(past.names, past.series)
        return Forecast(values, tuple(quantiles), names, past.cutoff_time, past.step_us)

    def predict_earlier(self, past: Past, horizon: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """From cutoffs a horizon apart."""
        ago = horizon * np.arange(1, n + 1)
        earlier = [replace(past, cutoff=past.cutoff - rows) for rows in ago]
        values = [self.predict(one, horizon, QUANTILES).values for one in earlier]
        return np.stack(values, axis=1), ago


def origins(panel, *, from_row: int = LOOKBACK, stride: int = 5) -> Origins:
    begin = START_US + from_row * HOUR_US
    return Origins.rolling(panel, begin, lookback=LOOKBACK, horizon=HORIZON, stride=stride)


def fitted(panel, forecaster=None, **options) -> Calibrated:
    forecaster = forecaster or Normal()
    found = fit_calibration(
        forecaster, origins(panel, **options), Truth(panel, HORIZON), lookback=LOOKBACK
    )
    assert found is not None
    return Calibrated(forecaster, found, panel.names)


def inside(forecaster, panel, low: float = 0.1, high: float = 0.9) -> np.ndarray:
    """Which readings lie inside, `(window, lead)`, on windows of a panel."""
    past = next(origins(panel, stride=HORIZON).parts(100_000))
    values = forecaster.predict(past, HORIZON, (low, 0.5, high)).values
    actual = Truth(panel, HORIZON).after(past)
    return (values[:, :, 0] <= actual) & (actual <= values[:, :, 2])


@pytest.mark.parametrize("factor", [0.4, 0.8, 1.0, 1.5, 3.0])
def test_bands_come_to_hold_what_they_promise_on_new_readings(factor: float) -> None:
    calibrated = fitted(make_panel(noise(4000)), Normal(factor))
    new = make_panel(noise(20_000, seed=1))

    assert inside(calibrated, new).mean() == pytest.approx(0.8, abs=0.02)
    assert inside(calibrated, new, 0.025, 0.975).mean() == pytest.approx(0.95, abs=0.015)
    assert inside(calibrated, new, 0.4, 0.6).mean() == pytest.approx(0.2, abs=0.02)


def test_quiet_and_noisy_hours_are_treated_alike() -> None:
    spread = np.where(np.arange(12_000) // 12 % 2, 8.0, 1.0)
    calibrated = fitted(make_panel(noise(12_000, spread=spread)), Normal(0.5, noisy=8.0))
    hits = inside(calibrated, make_panel(noise(12_000, seed=1, spread=spread)))

    assert hits[::2].mean() == pytest.approx(0.8, abs=0.025)
    assert hits[1::2].mean() == pytest.approx(0.8, abs=0.025)


def test_each_lead_gets_what_it_lacks() -> None:
    calibrated = fitted(make_panel(noise(12_000)), Normal(1.0, by_lead=2.0))
    hits = inside(calibrated, make_panel(noise(20_000, seed=1)))

    raw = inside(calibrated.forecaster, make_panel(noise(20_000, seed=1)))
    assert np.abs(raw.mean(0) - 0.8).max() > 0.15
    assert np.abs(hits.mean(0) - 0.8).max() < 0.08


def test_each_series_gets_what_it_lacks_and_an_unknown_one_what_all_do() -> None:
    known = make_panel(noise(6000), noise(6000, seed=1, spread=2.0))
    calibrated = fitted(known)
    new = make_panel(noise(6000, seed=2), noise(6000, seed=3, spread=2.0))
    hits = inside(calibrated, new).reshape(2, -1)

    assert hits.mean(1) == pytest.approx(0.8, abs=0.03)
    strangers = replace(new, names=("a", "b"))
    by_stranger = inside(calibrated, strangers).reshape(2, -1).mean(1)
    assert by_stranger[0] > 0.85 > 0.75 > by_stranger[1]


def test_what_chance_explains_moves_nothing() -> None:
    moves = [fitted(make_panel(noise(1000, seed=s))).calibration.by_lead for s in range(20)]
    without = [fit_with_full_moves(make_panel(noise(1000, seed=s)), Normal()) for s in range(20)]
    assert np.abs(moves).mean() < 0.75 * np.abs(without).mean()


def fit_with_full_moves(panel, forecaster) -> np.ndarray:
    """Conformal moves of all leads together, without regard to the evidence."""
    past = next(origins(panel).parts(100_000))
    values = forecaster.predict(past, HORIZON, QUANTILES).values
    actual = Truth(panel, HORIZON).after(past)
    width = values[..., 9] - values[..., 1]
    return np.array(
        [
            np.quantile(
                np.maximum(values[..., a] - actual, actual - values[..., b]) / width,
                QUANTILES[b] - QUANTILES[a],
            )
            for a, b in TAIL_PAIRS
        ]
    )


def test_strong_evidence_moves_pairs_as_split_conformal_prediction_does() -> None:
    panel = make_panel(noise(12_000))
    found = fitted(panel, Normal(0.5)).calibration

    np.testing.assert_allclose(
        found.by_lead.mean(0), fit_with_full_moves(panel, Normal(0.5)), rtol=0.1, atol=0.02
    )


def test_too_few_stretches_of_time_calibrate_nothing() -> None:
    panel = make_panel(noise(LOOKBACK + 5 * HORIZON - 5))
    found = fit_calibration(
        Normal(0.1), origins(panel, stride=1), Truth(panel, HORIZON), lookback=LOOKBACK
    )
    assert found is None


def test_missing_readings_do_not_count() -> None:
    whole = noise(4000)
    part = np.where(np.random.default_rng(5).random(4000) < 0.3, np.nan, whole)
    first, second = (fitted(make_panel(x), Normal(0.5)).calibration for x in (whole, part))

    np.testing.assert_allclose(first.by_lead, second.by_lead, atol=0.08)
    assert (
        fit_calibration(
            Normal(),
            origins(make_panel(np.full(400, np.nan))),
            Truth(make_panel(np.full(400, np.nan)), HORIZON),
            lookback=LOOKBACK,
        )
        is None
    )


@pytest.mark.parametrize("width", [0.0, 1e-3])
def test_a_band_that_is_all_but_closed_says_next_to_nothing_about_others(width: float) -> None:
    """Such is that of a sensor that stood still, and then came to life again."""

    @dataclass(frozen=True)
    class Closed(Normal):
        def predict(self, past, horizon, quantiles):
            made = super().predict(past, horizon, quantiles)
            closed = 20 + width * (made.values - 20)
            is_closed = past.series[:, None, None] == 1
            return replace(made, values=np.where(is_closed, closed, made.values))

    alone = fitted(make_panel(noise(4000)), Normal(0.5)).calibration
    beside = fitted(make_panel(noise(4000), noise(4000, seed=1)), Closed(0.5)).calibration

    np.testing.assert_allclose(alone.by_lead, beside.by_lead, atol=0.06 if width else 1e-6)
    assert width or not beside.by_series[1].any()


def test_the_move_is_that_of_a_slow_obvious_reference() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(0.3, 1, (60, 4))
    scores[rng.random((60, 4)) < 0.2] = np.nan
    stretch = np.repeat(np.arange(10), 6)

    shares, counts = [], []
    for block in range(10):
        own = [x for row in scores[stretch == block] for x in row if not np.isnan(x)]
        shares.append(sum(x <= 0 for x in own))
        counts.append(len(own))
    observed = sum(shares) / sum(counts)
    squares = [(s - observed * c) ** 2 for s, c in zip(shares, counts, strict=True)]
    variance = 10 / 9 * sum(squares) / sum(counts) ** 2
    evidence = max(0, 1 - 9 / 7 * variance / (0.8 - observed) ** 2)
    goal = observed + evidence * (0.8 - observed)
    expected = np.quantile(scores[~np.isnan(scores)], goal)

    assert 0 < evidence < 1
    assert _move(scores, stretch, 0.8) == pytest.approx(expected)


def test_the_forecast_before_the_calibration_is_kept() -> None:
    panel = make_panel(noise(4000))
    calibrated = fitted(panel, Normal(0.5))
    past = next(origins(panel).parts(10))
    levels = (0.1, 0.25, 0.5, 0.9)

    made = calibrated.predict(past, HORIZON, levels)

    raw = Normal(0.5).predict(past, HORIZON, (0.1, 0.5, 0.9)).values
    np.testing.assert_allclose(made.uncalibrated[..., [0, 2, 3]], raw, rtol=1e-6)
    np.testing.assert_array_equal(made.point, raw[..., 1])
    assert (made.values[..., 3] > raw[..., 2]).all()
    kept = made.subset(np.arange(past.n_origins) == 3)
    np.testing.assert_array_equal(kept.uncalibrated[0], made.uncalibrated[3])
