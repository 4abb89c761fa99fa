"""The network beside the naive methods: same windows, same truth, and a verdict in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rnnforecast.config import QUANTILES
from rnnforecast.data.forecast import Forecast, Past, past_of
from rnnforecast.data.panel import Panel
from rnnforecast.evaluate.baselines import SeasonalNaive, naive, seasonal_differences
from rnnforecast.evaluate.comparison import (
    UNKNOWN,
    Comparison,
    compare,
    not_compared,
    truth_after,
)
from rnnforecast.evaluate.metrics import Metrics, compute_metrics
from tests.builders import HOUR_US, make_panel, random_walk, wave

NAN = np.nan
DAY = 24


@dataclass(frozen=True)
class Shifted:
    """A stand-in for the network: another forecaster's forecast, moved up."""

    method: SeasonalNaive
    by: float = 0.0

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        forecast = self.method.predict(past, horizon, quantiles)
        return replace(forecast, values=forecast.values + np.float32(self.by))


def origins_of(panel: Panel, *cutoffs: int) -> Past:
    """See every series up to each of these rows."""
    series = np.repeat(np.arange(panel.n_series), len(cutoffs)).astype(np.int64)
    return Past(panel, series=series, cutoff=np.tile(np.array(cutoffs, np.int64), panel.n_series))


def compared(network: object, panel: Panel, *cutoffs: int, season: int = DAY) -> Comparison:
    origins = origins_of(panel, *cutoffs)
    truth = truth_after(panel, origins, 12)
    return compare(network, origins, truth, horizon=12, season=season)  # type: ignore[arg-type]


def with_mase(mase: float | None) -> Metrics:
    return Metrics(1.0, 1.0, 1.0, mase, 1.0, 1.0, 1)


def of_skill(skill: float | None, over: str | None = "naive", **season: int) -> Comparison:
    known = {"season": DAY, "step_us": HOUR_US, **season}
    return Comparison({}, n_windows=1, skill=skill, skill_over=over, **known)  # type: ignore[arg-type]


def test_the_truth_is_what_came_after_each_cutoff_and_nan_where_nothing_did() -> None:
    panel = make_panel([1, 2, NAN, 4, 5], [6, 7])

    truth = truth_after(panel, Past(panel, np.array([0, 0, 1, 1]), np.array([1, 4, 1, 2])), 3)

    np.testing.assert_array_equal(
        truth, np.array([[2, NAN, 4], [5, NAN, NAN], [7, NAN, NAN], [NAN] * 3], np.float32)
    )


def test_the_past_and_the_truth_together_are_the_series() -> None:
    panel = make_panel(random_walk(40), random_walk(60, seed=1))
    origins = origins_of(panel, 25)

    truth = truth_after(panel, origins, 10)

    for s in range(2):
        joined = np.concatenate([origins.readings(s), truth[s]])
        np.testing.assert_array_equal(joined, panel.of(s)[:35])


def test_every_method_is_scored_on_the_same_windows() -> None:
    panel = make_panel(wave(200), np.where(np.arange(200) % 7 == 0, NAN, wave(200, seed=1)))
    origins = origins_of(panel, 100, 130, 188)
    truth = truth_after(panel, origins, 12)

    found = compare(Shifted(naive(), 1.0), origins, truth, horizon=12, season=DAY)

    assert list(found.metrics) == ["network", "naive", "seasonal_naive"]
    assert {m.n for m in found.metrics.values()} == {np.isfinite(truth).sum()}
    assert found.n_windows == 6
    scale = seasonal_differences(origins, DAY).mean_absolute
    for name, method in (
        ("network", Shifted(naive(), 1.0)),
        ("naive", naive()),
        ("seasonal_naive", SeasonalNaive(DAY)),
    ):
        forecast = method.predict(origins, 12, QUANTILES)
        expected = compute_metrics(truth, forecast, scale=scale, series=origins.series)
        assert found.metrics[name] == expected


def test_mase_is_in_units_of_the_seasonal_naive_error_before_the_cutoff() -> None:
    """A wave that grows by 3 from each day to the next is off by 3 for every seasonal forecast."""
    readings = wave(240, noise=0.0).astype(np.float64) + 3.0 * (np.arange(240) // DAY)

    found = compared(Shifted(SeasonalNaive(DAY), 1.5), make_panel(readings), 120, 144)

    assert found.metrics["seasonal_naive"].mase == pytest.approx(1.0, abs=1e-5)
    assert found.metrics["network"].mase == pytest.approx(0.5, abs=1e-5)
    assert (found.skill, found.skill_over) == (pytest.approx(50, abs=1e-3), "seasonal_naive")


def test_skill_is_over_the_naive_method_that_is_better_on_these_readings() -> None:
    seasonal = compared(Shifted(naive()), make_panel(wave(240)), 150)
    walk = compared(Shifted(naive()), make_panel(random_walk(400)), 150, 200, 250, 300)

    assert seasonal.skill_over == "seasonal_naive"
    assert seasonal.skill < -50
    assert (walk.skill_over, walk.skill) == ("naive", 0)


def test_nothing_is_said_where_no_actual_came() -> None:
    panel = make_panel(wave(100))

    found = compared(Shifted(naive()), panel, 100)

    assert (found.skill, found.skill_over, found.verdict) == (None, None, UNKNOWN)
    assert found.metrics["naive"].mae is None


def test_readings_after_the_truth_change_nothing() -> None:
    readings = random_walk(200)
    changed = readings.copy()
    changed[112:] = 1e6

    before = compared(Shifted(naive(), 0.1), make_panel(readings), 80, 100)

    assert compared(Shifted(naive(), 0.1), make_panel(changed), 80, 100) == before


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (of_skill(31.4), "31 % better than repeating the last reading (naive)"),
        (of_skill(-12.0), "12 % worse than repeating the last reading (naive)"),
        (of_skill(0.44), "0.4 % better than repeating the last reading (naive)"),
        (
            of_skill(20.0, "seasonal_naive"),
            "20 % better than repeating yesterday (seasonal naive)",
        ),
        (
            of_skill(20.0, "seasonal_naive", season=7 * DAY),
            "20 % better than repeating last week (seasonal naive)",
        ),
        (
            of_skill(20.0, "seasonal_naive", season=12),
            "20 % better than repeating the last 12 h (seasonal naive)",
        ),
        (
            of_skill(20.0, "seasonal_naive", season=96, step_us=HOUR_US // 4),
            "20 % better than repeating yesterday (seasonal naive)",
        ),
        (of_skill(0.0), "as good as repeating the last reading (naive)"),
        (of_skill(-0.04), "as good as repeating the last reading (naive)"),
        (
            of_skill(None, "naive"),
            "worse than repeating the last reading (naive), whose MASE is 0 here",
        ),
        (of_skill(None, None), UNKNOWN),
    ],
)
def test_the_verdict_says_how_good_the_network_is(comparison: Comparison, verdict: str) -> None:
    assert comparison.verdict == verdict


def test_json_holds_every_metric_and_the_verdict() -> None:
    found = compared(Shifted(naive()), make_panel(wave(240)), 150)

    document = json.loads(json.dumps(found.to_json(), allow_nan=False))

    assert document["metrics"]["network"] == found.metrics["network"].to_json()
    assert (document["skill"], document["skill_over"]) == (found.skill, found.skill_over)
    assert (document["n_windows"], document["verdict"]) == (1, found.verdict)


def test_json_has_the_same_fields_where_nothing_could_be_compared() -> None:
    found = compared(Shifted(naive()), make_panel(wave(240)), 150)

    nothing = not_compared()

    assert nothing.keys() == found.to_json().keys()
    assert (nothing["skill"], nothing["metrics"], nothing["verdict"]) == (None, {}, UNKNOWN)


def test_a_past_of_the_whole_panel_has_no_truth() -> None:
    panel = make_panel(wave(30), wave(20))

    assert np.isnan(truth_after(panel, past_of(panel), 5)).all()


def test_series_that_the_network_forecasts_worse_are_named_the_worst_first() -> None:
    panel = make_panel(wave(240), 10 * wave(240, seed=1), 0.01 * wave(240, seed=2), wave(240))

    found = compared(Shifted(SeasonalNaive(DAY), by=0.2), panel, 150, 170)

    assert found.skill_over == "seasonal_naive"
    assert found.worse[0].series == "s2"
    assert all(item.mase > item.naive_mase for item in found.worse)
    assert found.to_json()["worse_series"][0]["series"] == "s2"


def test_a_network_that_is_better_everywhere_is_worse_nowhere() -> None:
    assert compared(Shifted(SeasonalNaive(DAY)), make_panel(wave(240)), 150).worse == ()
