"""The network beside the naive methods: same windows, same truth, and a verdict in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.backtest import ErrorUnits, Round, Truth, evaluate
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.evaluate.comparison import UNKNOWN, Comparison, compare, not_compared
from rnnforecast.evaluate.metrics import Metrics
from rnnforecast.parallel import SINGLE_PROCESS, Ranks
from tests.builders import HOUR_US, make_panel, random_walk, wave

DAY = 24


@dataclass(frozen=True)
class FixedOrigins:
    """A stand-in for rolling origins: every series, cut at these rows."""

    panel: Panel
    cutoffs: tuple[int, ...]
    ranks: Ranks = SINGLE_PROCESS

    def __len__(self) -> int:
        return self.panel.n_series * len(self.cutoffs)

    @property
    def names(self) -> tuple[str, ...]:
        return self.panel.names

    @property
    def step_us(self) -> int:
        return self.panel.step_us

    @property
    def time_range(self) -> tuple[int, int]:
        times = self.panel.start[0] + np.array(self.cutoffs) * self.panel.step_us
        return int(times.min()), int(times.max())

    def parts(self, size: int) -> Iterator[Past]:
        del size
        series = np.repeat(np.arange(self.panel.n_series), len(self.cutoffs)).astype(np.int64)
        cutoff = np.tile(np.array(self.cutoffs, np.int64), self.panel.n_series)
        yield Past(self.panel, series=series, cutoff=cutoff)


@dataclass(frozen=True)
class Shifted:
    """A stand-in for the network: another forecaster's forecast, moved up."""

    method: SeasonalNaive
    by: float = 0.0

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        forecast = self.method.predict(past, horizon, quantiles)
        return replace(forecast, values=forecast.values + np.float32(self.by))


def compared(network: object, panel: Panel, *cutoffs: int, season: int = DAY) -> Comparison:
    """Compare a network with the naive methods at these cutoffs of every series."""
    forecasters = {"network": network, "naive": naive(), "seasonal_naive": SeasonalNaive(season)}
    rounds = [Round(FixedOrigins(panel, cutoffs), forecasters)]  # type: ignore[arg-type]
    units = ErrorUnits(season, np.ones(panel.n_series))
    tallies = evaluate(rounds, Truth(panel, 12), units, lookback=24)
    return compare(tallies, names=panel.names, season=season, step_us=panel.step_us)


def of_skill(skill: float | None, over: str | None = "naive", **known: object) -> Comparison:
    known = {"season": DAY, "step_us": HOUR_US, "metrics": {}, **known}
    return Comparison(n_windows=1, skill=skill, skill_over=over, **known)  # type: ignore[arg-type]


def with_mase(**mase: float) -> dict[str, Metrics]:
    return {name: Metrics(1.0, 1.0, 1.0, m, 1.0, 1.0, 1.0, 1.0, 1) for name, m in mase.items()}


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
            "worse than repeating the last reading (naive), which has a MASE of 0",
        ),
        (of_skill(None, None), UNKNOWN),
        (
            of_skill(18.2, skill_interval=(15.1, 21.4)),
            "18 % better than repeating the last reading (naive), between 15 and 21 %",
        ),
        (
            of_skill(-18.2, skill_interval=(-21.4, -15.1)),
            "18 % worse than repeating the last reading (naive), between 15 and 21 %",
        ),
        (
            of_skill(18.2, metrics=with_mase(network=0.8, ridge=0.72)),
            "18 % better than repeating the last reading (naive); "
            "ridge regression on lags is 10 % better than the network",
        ),
        (
            of_skill(18.2, metrics=with_mase(network=0.8, ridge=0.72, expert=0.6)),
            "18 % better than repeating the last reading (naive); "
            "the expert (weighted season with autoregression) is 25 % better than the network",
        ),
        (
            of_skill(18.2, metrics=with_mase(network=0.8, ridge=0.8)),
            "18 % better than repeating the last reading (naive)",
        ),
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

    nothing = not_compared().to_json()

    assert nothing.keys() == found.to_json().keys()
    assert (nothing["skill"], nothing["metrics"], nothing["verdict"]) == (None, {}, UNKNOWN)


def test_series_that_the_network_forecasts_worse_are_named_the_worst_first() -> None:
    panel = make_panel(wave(240), 10 * wave(240, seed=1), 0.01 * wave(240, seed=2), wave(240))

    found = compared(Shifted(SeasonalNaive(DAY), by=0.2), panel, 150, 170)

    assert found.skill_over == "seasonal_naive"
    assert found.worst[0].series == "s2"
    ratios = [item.mase / item.naive_mase for item in found.worst]
    assert ratios == sorted(ratios, reverse=True)
    assert found.n_worse == sum(ratio > 1 for ratio in ratios) >= 1
    assert found.to_json()["worst_series"][0]["series"] == "s2"


def test_a_network_that_is_as_good_everywhere_is_worse_nowhere() -> None:
    found = compared(Shifted(SeasonalNaive(DAY)), make_panel(wave(240), wave(240, seed=1)), 150)
    assert (found.n_worse, len(found.worst)) == (0, 2)
