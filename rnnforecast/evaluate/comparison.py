"""The network beside the baselines on the same held-out windows, and a verdict in words.

Apart from `backtest`, which lets methods forecast and counts their errors: here the counts become
figures that a person can act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from rnnforecast.config import QUANTILES
from rnnforecast.data.panel import Doubles
from rnnforecast.durations import format_duration
from rnnforecast.evaluate.bootstrap import skill_interval
from rnnforecast.evaluate.metrics import Metrics, skill
from rnnforecast.evaluate.tally import UNCALIBRATED, Tally
from rnnforecast.evaluate.usual import Usual, usual_of

UNKNOWN = "no held-out readings say how good the network is"
UNDEFINED = "the readings never change from season to season, so no method can be better"
_TINY = 1e-9
_EQUAL = 0.05
"""Percent of skill that shows as 0.0."""
NETWORK, NAIVE, SEASONAL_NAIVE, RIDGE = "network", "naive", "seasonal_naive", "ridge"
_SKILL_OVER = (NAIVE, SEASONAL_NAIVE)
_MOST_LISTED = 20


@dataclass(frozen=True)
class OneSeries:
    """How the network forecasts one series, beside the better naive method."""

    series: str
    mase: float
    naive_mase: float


@dataclass(frozen=True)
class Bands:
    """How many of the actuals the network's bands hold."""

    levels: tuple[float, ...]
    observed: tuple[float, ...]
    """Share of the actuals at or below each quantile."""
    narrowest: tuple[str, float]
    widest: tuple[str, float]
    """The series with the smallest and the largest share inside q10..q90."""
    uncalibrated: tuple[float, ...] | None = None
    """The same shares without the calibration; None where there is none."""
    uncalibrated_coverage_80: float | None = None
    uncalibrated_wql: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Every method's metrics on the same windows, and the network's skill over the best naive."""

    metrics: dict[str, Metrics]
    season: int
    step_us: int
    n_windows: int
    skill: float | None = None
    """Percent by which the network's MASE is below that of the better naive method."""
    skill_over: str | None = None
    skill_interval: tuple[float, float] | None = None
    """Its 95 % interval by block bootstrap; None where there are too few stretches of time."""
    n_worse: int = 0
    """How many series the network forecasts worse than `skill_over`."""
    worst: tuple[OneSeries, ...] = ()
    """The series with the highest error beside `skill_over`'s, the worst first; at most twenty."""
    by_lead: Mapping[str, list[float | None]] | None = None
    """For each method the scaled absolute error by lead."""
    bands: Bands | None = None
    usual: Usual | None = field(default=None, compare=False)
    """How single forecasts of each series differ."""

    @property
    def verdict(self) -> str:
        """Say in words how good the network is."""
        if self.skill_over is None:
            return UNDEFINED if any(m.n for m in self.metrics.values()) else UNKNOWN
        over = self._in_words(self.skill_over)
        if self.skill is None:
            return f"worse than {over}, whose MASE is 0 here"
        if abs(self.skill) < _EQUAL:
            return f"as good as {over}" + self._beside_ridge()
        side = "better" if self.skill > 0 else "worse"
        return f"{_percent(self.skill)} {side} than {over}{self._how_sure()}{self._beside_ridge()}"

    def to_json(self) -> dict[str, Any]:
        """Return what JSON and the artifact hold."""
        return {
            "metrics": {name: m.to_json() for name, m in self.metrics.items()},
            "skill": self.skill,
            "skill_over": self.skill_over,
            "skill_interval": None if self.skill_interval is None else list(self.skill_interval),
            "n_windows": self.n_windows,
            "verdict": self.verdict,
            "by_lead": self.by_lead or {},
            "n_worse": self.n_worse,
            "worst_series": [asdict(item) for item in self.worst],
            "bands": self.bands and asdict(self.bands),
            "usual": self.usual and self.usual.to_json(),
        }

    def _in_words(self, method: str | None) -> str:
        if method == NAIVE:
            return "repeating the last reading (naive)"
        length = self.season * self.step_us
        known = {86_400_000_000: "yesterday", 604_800_000_000: "last week"}
        what = known.get(length, f"the last {format_duration(length)}")
        return f"repeating {what} (seasonal naive)"

    def _how_sure(self) -> str:
        if self.skill is None or self.skill_interval is None:
            return ""
        low, high = self.skill_interval
        if self.skill < 0:
            low, high = -high, -low
        return f", between {low:.0f} and {high:.0f} %"

    def _beside_ridge(self) -> str:
        """Say it plainly where ridge regression is better than the network."""
        if RIDGE not in self.metrics:
            return ""
        ridge, network = self.metrics[RIDGE].mase, self.metrics[NETWORK].mase
        if ridge is None or network is None or ridge >= network:
            return ""
        return f"; but ridge regression on lags is {_percent(100 * (1 - ridge / network))} better"


def not_compared() -> Comparison:
    """Return the comparison of a training that could hold nothing out."""
    return Comparison({}, season=1, step_us=1, n_windows=0)


def compare(
    tallies: dict[str, Tally], *, names: tuple[str, ...], season: int, step_us: int
) -> Comparison:
    """Turn the counted errors of the network and the baselines into figures and a verdict."""
    raw, tallies = (
        tallies.get(UNCALIBRATED),
        {k: v for k, v in tallies.items() if k != UNCALIBRATED},
    )
    metrics = {name: tally.metrics() for name, tally in tallies.items()}
    naive = {name: m for name, m in metrics.items() if name in _SKILL_OVER}
    gain, over = skill(metrics[NETWORK], naive)
    found = Comparison(
        metrics,
        season,
        step_us,
        n_windows=tallies[NETWORK].n_windows,
        skill=gain,
        skill_over=over,
        by_lead={name: _by_lead(tally) for name, tally in tallies.items()},
        bands=_bands(tallies[NETWORK], raw, names),
        usual=usual_of(tallies[NETWORK], tallies[SEASONAL_NAIVE], names),
    )
    if over is None:
        return found
    own, others = (tallies[name].mase_by_series() for name in (NETWORK, over))
    return replace(
        found,
        skill_interval=skill_interval(tallies[NETWORK], tallies[over]),
        n_worse=int((own > others).sum()),
        worst=_worst(names, own, others),
    )


def _worst(names: tuple[str, ...], own: Doubles, others: Doubles) -> tuple[OneSeries, ...]:
    """List the series by the ratio of their MASE, `(series,)`, to the other's, the worst first."""
    known = np.flatnonzero(np.isfinite(own) & np.isfinite(others))
    ratio = (own[known] + _TINY) / (others[known] + _TINY)
    order = known[np.argsort(-ratio, kind="stable")][:_MOST_LISTED]
    return tuple(OneSeries(names[i], float(own[i]), float(others[i])) for i in order)


def _bands(tally: Tally, raw: Tally | None, names: tuple[str, ...]) -> Bands | None:
    """Say how many actuals lie below each quantile; None where there is no actual."""
    by_series = tally.coverage_by_series()
    if not np.isfinite(by_series).any():
        return None
    low, high = int(np.nanargmin(by_series)), int(np.nanargmax(by_series))
    found = Bands(
        QUANTILES,
        tuple(tally.below.values.tolist()),
        narrowest=(names[low], float(by_series[low])),
        widest=(names[high], float(by_series[high])),
    )
    if raw is None:
        return found
    before = raw.metrics()
    return replace(
        found,
        uncalibrated=tuple(raw.below.values.tolist()),
        uncalibrated_coverage_80=before.coverage_80,
        uncalibrated_wql=before.wql,
    )


def _by_lead(tally: Tally) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in tally.by_lead.values]


def _percent(value: float) -> str:
    size = abs(value)
    return f"{size:.0f} %" if size >= 1 else f"{size:.1f} %"
