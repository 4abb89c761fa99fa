"""The network beside the naive methods on readings that none of them has seen, and a verdict.

Apart from `metrics`, which knows arrays, and `baselines`, which knows forecasts: here methods meet
the truth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rnnforecast.config import QUANTILES
from rnnforecast.data.forecast import Forecaster, Past, Values, in_own_units
from rnnforecast.data.panel import Doubles, Panel
from rnnforecast.durations import format_duration
from rnnforecast.evaluate.baselines import SeasonalNaive, naive, seasonal_differences
from rnnforecast.evaluate.metrics import Metrics, compute_metrics, mase_by_series, skill

UNKNOWN = "no held-out readings say how good the network is"
UNDEFINED = "the readings never change from season to season, so no method can be better"
_EQUAL = 0.05
"""Percent of skill that shows as 0.0."""
NETWORK, NAIVE, SEASONAL_NAIVE = "network", "naive", "seasonal_naive"


@dataclass(frozen=True)
class Worse:
    """A series that the network forecasts worse than a naive method does."""

    series: str
    mase: float
    naive_mase: float


@dataclass(frozen=True)
class Comparison:
    """Every method's metrics on the same windows, and the network's skill over the best other."""

    metrics: dict[str, Metrics]
    season: int
    step_us: int
    n_windows: int
    skill: float | None
    """Percent by which the network's MASE is below that of the better naive method."""
    skill_over: str | None
    worse: tuple[Worse, ...] = ()
    """The series for which the network is worse than `skill_over`, the worst first."""

    @property
    def verdict(self) -> str:
        """Say in words how good the network is."""
        if self.skill_over is None:
            return UNDEFINED if any(m.n for m in self.metrics.values()) else UNKNOWN
        if self.skill is None:
            return f"worse than {self._in_words(self.skill_over)}, whose MASE is 0 here"
        if abs(self.skill) < _EQUAL:
            return f"as good as {self._in_words(self.skill_over)}"
        size = f"{abs(self.skill):.0f} %" if abs(self.skill) >= 1 else f"{abs(self.skill):.1f} %"
        side = "better" if self.skill > 0 else "worse"
        return f"{size} {side} than {self._in_words(self.skill_over)}"

    def to_json(self) -> dict[str, Any]:
        """Return what JSON and the artifact hold."""
        return {
            "metrics": {name: m.to_json() for name, m in self.metrics.items()},
            "skill": self.skill,
            "skill_over": self.skill_over,
            "n_windows": self.n_windows,
            "verdict": self.verdict,
            "worse_series": [asdict(item) for item in self.worse],
        }

    def _in_words(self, method: str | None) -> str:
        if method == NAIVE:
            return "repeating the last reading (naive)"
        length = self.season * self.step_us
        known = {86_400_000_000: "yesterday", 604_800_000_000: "last week"}
        what = known.get(length, f"the last {format_duration(length)}")
        return f"repeating {what} (seasonal naive)"


def not_compared() -> dict[str, Any]:
    """Return the same fields as `Comparison.to_json` where nothing could be held out."""
    nothing = Comparison({}, 1, 1, n_windows=0, skill=None, skill_over=None)
    return nothing.to_json()


def compare(
    network: Forecaster, origins: Past, truth: Values, *, horizon: int, season: int
) -> Comparison:
    """Score network and naive methods; `truth` is `(origin, horizon)`, NaN where missing."""
    methods: dict[str, Forecaster] = {
        NETWORK: network,
        NAIVE: naive(),
        SEASONAL_NAIVE: SeasonalNaive(season),
    }
    scale = seasonal_differences(origins, season).mean_absolute
    metrics, by_series = {}, {}
    for name, method in methods.items():
        forecast = method.predict(origins, horizon, QUANTILES)
        metrics[name] = compute_metrics(truth, forecast, scale=scale, series=origins.series)
        by_series[name] = mase_by_series(
            truth.astype(np.float64),
            forecast.point.astype(np.float64),
            scale=scale,
            series=origins.series,
        )
    gain, over = skill(metrics[NETWORK], {n: m for n, m in metrics.items() if n != NETWORK})
    worse = _worse(origins.names, by_series[NETWORK], by_series[over]) if over else ()
    return Comparison(metrics, season, origins.step_us, origins.n_origins, gain, over, worse)


def _worse(names: tuple[str, ...], network: Doubles, other: Doubles) -> tuple[Worse, ...]:
    """Find the series whose MASE, `(series,)`, is above the other's; the worst ratio first."""
    found = np.flatnonzero(network > other)
    order = np.argsort(other[found] / network[found], kind="stable")
    return tuple(Worse(names[i], float(network[i]), float(other[i])) for i in found[order])


def truth_after(panel: Panel, origins: Past, horizon: int) -> Values:
    """Return what came after each cutoff, `(origin, horizon)`; NaN where nothing did."""
    from rnnforecast.data.windows import gather

    first = panel.offsets[origins.series] + origins.cutoff
    end = panel.offsets[origins.series + 1]
    return in_own_units(gather(panel.target, first, horizon, low=first, high=end), origins)
