"""Skill over the better naive method, the verdict, and the reference for drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from rnnforecast.config.training import QUANTILES
from rnnforecast.data.arrays import Doubles
from rnnforecast.evaluate.metrics import UNCALIBRATED, Metrics, Tally, skill, skill_interval
from rnnforecast.units import format_duration

UNKNOWN = "no held-out readings say how good the network is"
UNDEFINED = "the readings never change from season to season, so no method can be better"
_TINY = 1e-9
_EQUAL = 0.05
"""Percent of skill that shows as 0.0."""
NETWORK, NAIVE, SEASONAL_NAIVE, RIDGE = "network", "naive", "seasonal_naive", "ridge"
_SKILL_OVER = (NAIVE, SEASONAL_NAIVE)
_MOST_LISTED = 20
FIELDS = (
    "coverage",
    "coverage_sd",
    "ratio",
    "excess_sd",
    "log_error",
    "log_error_sd",
    "stretches",
)
SMALLEST = 1e-6
"""Errors, in units of MASE, that are as good as none."""
_FEWEST = 8
_SURE = 4.0
"""Stretches that a deviation can be told from."""
_MOST_SERIES = 5000
"""Of so many series each stands for itself in the manifest."""


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
            "error_reference": self.usual and self.usual.to_json(),
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


@dataclass(frozen=True)
class Usual:
    """Means and deviations over single forecasts, `(series,)` each; NaN where too few are known."""

    names: tuple[str, ...]
    coverage: Doubles
    """Share of the actuals inside q10..q90."""
    coverage_sd: Doubles
    ratio: Doubles
    """Absolute errors of the network over those of the seasonal naive forecast."""
    excess_sd: Doubles
    """Deviation of an error from `ratio` times the seasonal naive one, in units of MASE."""
    log_error: Doubles
    """Logarithm of the absolute error in units of MASE: errors differ by factors."""
    log_error_sd: Doubles
    stretches: Doubles
    """How many stretches of time all of that was told from: it is no surer than they are many."""

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest holds: figures by series, and their medians for all others."""
        table = np.stack([getattr(self, name) for name in FIELDS], axis=1)
        known = np.isfinite(table).all(1)
        rows = {
            name: [round(float(x), 6) for x in row]
            for name, row, has in zip(self.names, table, known, strict=True)
            if has and len(self.names) <= _MOST_SERIES
        }
        middle = np.median(table[known], axis=0).round(6).tolist() if known.any() else None
        return {"fields": list(FIELDS), "series": rows, "others": middle}


def usual_from(said: Any, names: Sequence[str]) -> Doubles:
    """Return the figures of these series, `(series, figure)`, as `FIELDS` says; NaN where unknown.

    `said` is what `Usual.to_json` gave, or None, of a version that has none.
    """
    if not said or tuple(said["fields"]) != FIELDS:
        said = {"series": {}, "others": None}
    unknown = said["others"] or [np.nan] * len(FIELDS)
    rows = [said["series"].get(name, unknown) for name in names]
    return np.array(rows, np.float64).reshape(len(names), len(FIELDS))


def stretches_of(said: Any) -> float:
    """Return on how many stretches of time rests what `Usual.to_json` gave; 0 for None."""
    if not said or not said["others"] or tuple(said["fields"]) != FIELDS:
        return 0.0
    return float(said["others"][FIELDS.index("stretches")])


def usual_of(network: Tally, naive: Tally, names: tuple[str, ...]) -> Usual:
    """Say how forecasts differed from stretch to stretch, per forecast of one horizon.

    A stretch that holds several forecasts differs less than one of them does: by the root of their
    number, were they independent.
    """
    errors, others, inside = network.by_block, naive.by_block, network.inside
    several = np.sqrt(np.maximum(_mean_where(inside.counts > 0, inside.counts), network.horizon))
    several /= np.sqrt(network.horizon)
    both = (errors.counts > 0) & (others.counts > 0)
    own, naives = (np.where(both, one.values, 0.0).sum(0) for one in (errors, others))
    ratio = np.where(naives > 0, own / np.where(naives > 0, naives, 1.0), np.nan)
    excess = np.where(both, errors.values - ratio * others.values, np.nan)
    logs = np.log(np.maximum(errors.values, SMALLEST))
    return Usual(
        names,
        network.coverage_by_series(),
        _deviation(inside.values) * several,
        ratio,
        _deviation(excess) * several,
        np.nan_to_num(logs).sum(0) / np.maximum(np.isfinite(logs).sum(0), 1),
        _deviation(logs) * several,
        np.isfinite(excess).sum(0).astype(np.float64),
    )


def _mean_where(there: Any, values: Any) -> Doubles:
    """Return the mean over the blocks that are there, `(series,)`; 0 where none is."""
    found: Doubles = np.where(there, values, 0).sum(0) / np.maximum(there.sum(0), 1)
    return found


def _deviation(values: Doubles) -> Doubles:
    """Return the deviation over blocks, `(series,)`; NaN where too few of them hold something.

    It is estimated, and the surer too small the fewer there are: it is stretched so that four of
    it are as rare as four of a deviation that is known (Student 1908).
    """
    from scipy import special  # slow to import, and no forecast needs it

    seen = np.isfinite(values)
    n = seen.sum(0)
    mean = np.where(seen, values, 0.0).sum(0) / np.maximum(n, 1)
    squares = np.where(seen, values - mean, 0.0) ** 2
    stretch = special.stdtrit(np.maximum(n - 1, 1), special.ndtr(_SURE)) / _SURE
    return np.where(n >= _FEWEST, stretch * np.sqrt(squares.sum(0) / np.maximum(n - 1, 1)), np.nan)
