"""The backtest: past and truth apart, every origin scored once, and no way to look ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.backtest import (
    ErrorUnits,
    LeakageError,
    Round,
    Truth,
    deviations,
    evaluate,
)
from rnnforecast.evaluate.baselines import SeasonalNaive, naive, seasonal_differences
from rnnforecast.evaluate.metrics import UNCALIBRATED
from rnnforecast.spec import QUANTILES
from tests.builders import START_US, make_panel, random_walk, wave
from tests.evaluate.reference import mae, mase

NAN = np.nan
DAY, LOOKBACK, HORIZON = 24, 24, 12


def rolling(panel, *, from_row: int = 100, until_row: int = 10_000):
    hour = panel.step_us
    begin, until = (START_US + row * hour for row in (from_row, until_row))
    return Origins.rolling(
        panel, START_US + 100 * hour, lookback=LOOKBACK, horizon=HORIZON, stride=5
    ).between(begin, until)


def tried(panel, forecaster, **options):
    units = ErrorUnits(DAY, np.ones(panel.n_series))
    rounds = [Round(rolling(panel), {"it": forecaster})]
    return evaluate(rounds, Truth(panel, HORIZON), units, lookback=LOOKBACK, **options)["it"]


@dataclass(frozen=True)
class Cheat:
    """Reaches into a private field of the past, and forecasts what comes."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        forecast = naive().predict(past, horizon, quantiles)
        panel = past._panel
        first = panel.offsets[past.series] + past.cutoff
        rows = np.minimum(first[:, None] + np.arange(horizon), len(panel.target) - 1)
        values = np.repeat(panel.target[rows][:, :, None], len(quantiles), axis=2)
        return replace(forecast, values=values)


def test_the_truth_is_what_came_after_each_cutoff_and_nan_where_nothing_did() -> None:
    panel = make_panel([1, 2, NAN, 4, 5], [6, 7])

    truth = Truth(panel, 3).after(Past(panel, np.array([0, 0, 1, 1]), np.array([1, 4, 1, 2])))

    np.testing.assert_array_equal(
        truth, np.array([[2, NAN, 4], [5, NAN, NAN], [7, NAN, NAN], [NAN] * 3], np.float32)
    )


def test_the_past_and_the_truth_together_are_the_series() -> None:
    panel = make_panel(random_walk(40), random_walk(60, seed=1))
    past = make_past(panel, np.array([25, 25]))

    truth = Truth(panel, 10).after(past)

    for s in range(2):
        joined = np.concatenate([past.readings(s), truth[s]])
        np.testing.assert_array_equal(joined, panel.of(s)[:35])


def test_a_past_of_the_whole_panel_has_no_truth() -> None:
    panel = make_panel(wave(30), wave(20))

    assert np.isnan(Truth(panel, 5).after(make_past(panel))).all()


def test_the_truth_of_a_meter_is_in_its_own_units() -> None:
    panel = replace(make_panel(wave(30)), base=np.array([1e8]))

    truth = Truth(panel, 5).after(make_past(panel, np.array([20])))

    np.testing.assert_array_equal(truth[0], 1e8 + panel.target[20:25].astype(np.float64))


@pytest.mark.parametrize("looks", ["history", "readings", "windows", "alone"])
def test_a_past_hands_out_nothing_after_its_cutoff(looks: str) -> None:
    panel = make_panel(np.arange(200.0))
    past = make_past(panel, np.array([120]))

    shown = {
        "history": lambda: past.history(500),
        "readings": lambda: past.readings(0),
        "windows": lambda: past.windows(24, 12).gather(np.arange(len(past.windows(24, 12)))).future,
        "alone": lambda: past.alone(0)._panel.target,
    }[looks]()

    assert np.nanmax(shown) == 119


def test_a_forecaster_that_reaches_for_the_future_is_caught() -> None:
    with pytest.raises(LeakageError, match="after its cutoff"):
        tried(make_panel(wave(300)), Cheat())


@pytest.mark.parametrize("method", [naive(), SeasonalNaive(DAY)])
def test_honest_forecasters_are_not_accused(method: SeasonalNaive) -> None:
    readings = wave(300)
    readings[130:150] = NAN
    tried(make_panel(readings, 1e6 * random_walk(280)), method)


def test_every_origin_is_scored_once_whatever_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = make_panel(wave(300), np.where(np.arange(250) % 7 == 0, NAN, wave(250, seed=1)))
    past = next(rolling(panel).parts(10_000))
    truth = Truth(panel, HORIZON).after(past).astype(np.float64)
    point = naive().predict(past, HORIZON, QUANTILES).point.astype(np.float64)
    scale = seasonal_differences(past, DAY).mean_absolute
    expected = (mae(truth, point), mase(truth, point, scale=scale, series=past.series))

    for values in (1, (LOOKBACK + HORIZON * len(QUANTILES)) * 7, 1 << 22):
        monkeypatch.setattr("rnnforecast.evaluate.backtest.PART_VALUES", values)
        found = tried(panel, naive())
        assert (found.metrics().mae, found.metrics().mase) == pytest.approx(expected)
        assert found.n_windows == past.n_origins


@dataclass(frozen=True)
class Widened:
    """Naive, with twice the spread, and what it was before."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        forecast = naive().predict(past, horizon, quantiles)
        point = forecast.point[:, :, None]
        values = point + 2 * (forecast.values - point)
        return replace(forecast, values=values, uncalibrated=forecast.values)


def test_a_calibrated_network_is_also_scored_as_it_was_before() -> None:
    panel = make_panel(wave(300), random_walk(250))
    rounds = [Round(rolling(panel), {"network": Widened(), "it": Widened(), "naive": naive()})]

    found = evaluate(rounds, Truth(panel, HORIZON), ErrorUnits(DAY, np.ones(2)), lookback=LOOKBACK)

    assert found[UNCALIBRATED].metrics() == found["naive"].metrics()
    assert found["it"].metrics().coverage_80 > found["naive"].metrics().coverage_80
    assert found["it"].metrics().mae == found["naive"].metrics().mae


def test_rounds_divide_the_origins_between_forecasters() -> None:
    panel = make_panel(wave(300))
    whole = tried(panel, naive()).metrics()
    rounds = [
        Round(rolling(panel, until_row=200), {"it": naive()}),
        Round(rolling(panel, from_row=200), {"it": SeasonalNaive(DAY)}),
    ]

    found = evaluate(rounds, Truth(panel, HORIZON), ErrorUnits(DAY, np.ones(1)), lookback=LOOKBACK)

    seasonal = tried(panel, SeasonalNaive(DAY)).metrics()
    assert found["it"].metrics().n == whole.n == seasonal.n
    assert seasonal.mae < found["it"].metrics().mae < whole.mae


def test_origins_whose_look_back_is_empty_are_left_out() -> None:
    readings = wave(300)
    readings[60:200] = NAN
    panel = make_panel(readings)
    found = tried(panel, naive())
    assert 0 < found.n_windows < len(rolling(panel))
    assert found.metrics().mae is not None


@dataclass(frozen=True)
class Sometimes:
    """Forecasts every other origin of a part alone, and NaN for the others."""

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        forecast = naive().predict(past, horizon, quantiles)
        values = forecast.values.copy()
        values[past.cutoff % 10 == 0] = NAN
        return replace(forecast, values=values)


def test_methods_are_scored_on_the_origins_that_all_of_them_can_forecast() -> None:
    panel = make_panel(wave(300))
    rounds = [Round(rolling(panel), {"it": Sometimes(), "other": naive()})]
    written = []

    class Sink:
        def write(self, method: str, forecast: Forecast, actual: np.ndarray) -> None:
            written.append((method, forecast, actual))

    found = evaluate(
        rounds, Truth(panel, HORIZON), ErrorUnits(DAY, np.ones(1)), lookback=LOOKBACK, sink=Sink()
    )

    assert found["it"].metrics() == found["other"].metrics()
    assert found["it"].n_windows < len(rolling(panel))
    assert all(np.isfinite(forecast.values).all() for _, forecast, _ in written)


def test_the_audit_is_not_blind_for_large_meters() -> None:
    panel = replace(make_panel(random_walk(300)), base=np.array([1e8]))
    with pytest.raises(LeakageError):
        tried(panel, Cheat())


def test_no_block_is_shorter_than_a_horizon() -> None:
    counts = tried(make_panel(wave(300)), naive()).by_block.counts
    n_origins = len(rolling(make_panel(wave(300))))
    assert len(counts) <= (300 - 100) // HORIZON + 1
    assert counts.sum() == n_origins * HORIZON


def test_deviations_are_those_of_the_readings_that_may_be_seen() -> None:
    readings = wave(300)
    readings[::5] = NAN
    panel = make_panel(readings, np.full(300, NAN))
    found = deviations(make_past(panel, np.array([200, 200])))
    assert found[0] == pytest.approx(np.nanstd(readings[:200].astype(np.float64)))
    assert np.isnan(found[1])
