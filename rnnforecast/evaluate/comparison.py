"""Skill over the better naive method, the verdict, and the reference for drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any

import numpy as np

from rnnforecast.config.training import BUILTIN_MODEL, EXPERT
from rnnforecast.data.arrays import Doubles
from rnnforecast.evaluate.metrics import (
    UNCALIBRATED,
    MetricAccumulator,
    Metrics,
    skill,
    skill_interval,
)
from rnnforecast.spec import QUANTILES
from rnnforecast.units import describe_duration

UNKNOWN = "no held-out data, so the accuracy is unknown"
UNDEFINED = "the data repeats exactly every season, so no method can be better"
NETWORK, NAIVE, SEASONAL_NAIVE = "network", "naive", "seasonal_naive"
RIDGE = "ridge"
_REMARKED = {
    EXPERT: "the expert (weighted season with autoregression)",
    BUILTIN_MODEL: "the built-in network (not trained on this data)",
    RIDGE: "ridge regression on lags",
}
"""Methods that the verdict names where they are better than the network."""
_SKILL_OVER = (NAIVE, SEASONAL_NAIVE)
_SEASONS = {86_400_000_000: "yesterday", 604_800_000_000: "last week"}
_EQUAL = 0.05
"""Percent of skill that shows as 0.0."""
_TINY = 1e-9
"""Added to both errors of a ratio, so that it is defined where one is 0."""
_MAX_LISTED = 20

MIN_ERROR = 1e-6
"""Errors below, in units of MASE, count as this one: their logarithm is taken."""
_MIN_BLOCKS = 8
"""Fewer time blocks tell no deviation."""
_SIGMAS = 4.0
"""Number of deviations at which an estimated one is as rare as a known one."""
_MAX_SERIES = 5000
"""With more series than these, the manifest does not hold the statistics of each."""


@dataclass(frozen=True)
class SeriesError:
    """MASE of one series: of the network and of the better naive method."""

    series: str
    mase: float
    naive_mase: float


@dataclass(frozen=True)
class Bands:
    """Share of the actuals that the network's bands hold."""

    levels: tuple[float, ...]
    observed: tuple[float, ...]
    """Share of the actuals at or below each quantile."""
    narrowest: tuple[str, float]
    widest: tuple[str, float]
    """The series with the smallest and the largest share inside q10..q90."""
    uncalibrated: tuple[float, ...] | None = None
    """`observed` without the calibration; None where there is none."""
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
    """The better naive method; None where no method has an error."""
    skill_interval: tuple[float, float] | None = None
    """Its 95 % interval by block bootstrap; None where there are too few time blocks."""
    n_worse: int = 0
    """How many series the network forecasts worse than `skill_over`."""
    worst: tuple[SeriesError, ...] = ()
    """The series with the highest error relative to `skill_over`, the worst first; at most 20."""
    by_lead: Mapping[str, list[float | None]] | None = None
    """For each method the scaled absolute error by lead."""
    bands: Bands | None = None
    error_reference: ErrorReference | None = field(default=None, compare=False)
    """How single forecasts of each series differ."""

    @property
    def verdict(self) -> str:
        """How good the network is, in words."""
        if self.skill_over is None:
            return UNDEFINED if any(m.n for m in self.metrics.values()) else UNKNOWN
        if self.skill_over == NAIVE:
            over = "repeating the last reading (naive)"
        else:
            length = self.season * self.step_us
            season = _SEASONS.get(length, f"the last {describe_duration(length)}")
            over = f"repeating {season} (seasonal naive)"

        if self.skill is None:
            return f"worse than {over}, which has a MASE of 0"
        if abs(self.skill) < _EQUAL:
            return f"as good as {over}" + self._remark()

        side, interval = "better" if self.skill > 0 else "worse", ""
        if self.skill_interval is not None:
            low, high = self.skill_interval
            if self.skill < 0:
                low, high = -high, -low
            interval = f", between {low:.0f} and {high:.0f} %"
        return f"{_percent(self.skill)} {side} than {over}{interval}{self._remark()}"

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints and the artifact stores."""
        interval, reference = self.skill_interval, self.error_reference
        return {
            "metrics": {name: m.to_json() for name, m in self.metrics.items()},
            "skill": self.skill,
            "skill_over": self.skill_over,
            "skill_interval": None if interval is None else list(interval),
            "n_windows": self.n_windows,
            "verdict": self.verdict,
            "by_lead": self.by_lead or {},
            "n_worse": self.n_worse,
            "worst_series": [asdict(item) for item in self.worst],
            "bands": self.bands and asdict(self.bands),
            "error_reference": reference and reference.to_json(),
        }

    def _remark(self) -> str:
        """Return a remark on the best of the other methods where it is better than the network."""
        mases = {name: self.metrics[name].mase for name in _REMARKED if name in self.metrics}
        known = {name: mase for name, mase in mases.items() if mase is not None}
        network = self.metrics[NETWORK].mase if NETWORK in self.metrics else None
        if network is None or not known:
            return ""
        best = min(known, key=lambda name: known[name])
        if known[best] >= network:
            return ""
        gain = _percent(100 * (1 - known[best] / network))
        return f"; {_REMARKED[best]} is {gain} better than the network"


def _percent(value: float) -> str:
    size = abs(value)
    return f"{size:.0f} %" if size >= 1 else f"{size:.1f} %"


def not_compared() -> Comparison:
    """Return the comparison of a training without held-out readings."""
    return Comparison({}, season=1, step_us=1, n_windows=0)


def compare(
    sums: dict[str, MetricAccumulator], *, names: tuple[str, ...], season: int, step_us: int
) -> Comparison:
    """Compute metrics, skill and verdict of the network from the summed errors of all methods."""
    uncalibrated = sums.get(UNCALIBRATED)
    sums = {name: method for name, method in sums.items() if name != UNCALIBRATED}
    network = sums[NETWORK]
    metrics = {name: method.metrics() for name, method in sums.items()}
    naive = {name: m for name, m in metrics.items() if name in _SKILL_OVER}
    gain, over = skill(metrics[NETWORK], naive)

    comparison = Comparison(
        metrics,
        season,
        step_us,
        n_windows=network.n_windows,
        skill=gain,
        skill_over=over,
        by_lead={
            name: [float(x) if np.isfinite(x) else None for x in method.by_lead.values]
            for name, method in sums.items()
        },
        bands=_bands(network, uncalibrated, names),
        error_reference=fit_error_reference(network, sums[SEASONAL_NAIVE], names),
    )
    if over is None:
        return comparison

    mase, naive_mase = network.mase_by_series(), sums[over].mase_by_series()
    known = np.flatnonzero(np.isfinite(mase) & np.isfinite(naive_mase))
    ratio = (mase[known] + _TINY) / (naive_mase[known] + _TINY)
    worst = known[np.argsort(-ratio, kind="stable")][:_MAX_LISTED]
    return replace(
        comparison,
        skill_interval=skill_interval(network, sums[over]),
        n_worse=int((mase > naive_mase).sum()),
        worst=tuple(SeriesError(names[i], float(mase[i]), float(naive_mase[i])) for i in worst),
    )


def _bands(
    network: MetricAccumulator, uncalibrated: MetricAccumulator | None, names: tuple[str, ...]
) -> Bands | None:
    """Return the share of actuals below each quantile; None where there is no actual."""
    by_series = network.coverage_by_series()
    if not np.isfinite(by_series).any():
        return None

    low, high = int(np.nanargmin(by_series)), int(np.nanargmax(by_series))
    bands = Bands(
        QUANTILES,
        tuple(network.below.values.tolist()),
        narrowest=(names[low], float(by_series[low])),
        widest=(names[high], float(by_series[high])),
    )
    if uncalibrated is None:
        return bands
    metrics = uncalibrated.metrics()
    return replace(
        bands,
        uncalibrated=tuple(uncalibrated.below.values.tolist()),
        uncalibrated_coverage_80=metrics.coverage_80,
        uncalibrated_wql=metrics.wql,
    )


@dataclass(frozen=True)
class ErrorReference:
    """Errors of single held-out forecasts, which live forecasts are compared with to see drift.

    Means and deviations over forecasts of one horizon, `(series,)` each; NaN where too few are
    known.
    """

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
    """Number of time blocks that the statistics rest on."""

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest stores: statistics by series, and their medians for others."""
        table = np.stack([getattr(self, name) for name in REFERENCE_FIELDS], axis=1)
        is_known = np.isfinite(table).all(1)
        by_series = {
            name: [round(float(x), 6) for x in row]
            for name, row, has_all in zip(self.names, table, is_known, strict=True)
            if has_all and len(self.names) <= _MAX_SERIES
        }
        medians = np.median(table[is_known], axis=0).round(6).tolist() if is_known.any() else None
        return {"fields": list(REFERENCE_FIELDS), "series": by_series, "others": medians}


REFERENCE_FIELDS = tuple(item.name for item in fields(ErrorReference) if item.name != "names")
"""Statistics of an `ErrorReference`, in the order in which they are stored."""


def reference_table(stored: Any, names: Sequence[str]) -> Doubles:
    """Return the statistics of these series, `(series, field)`, in the order of `REFERENCE_FIELDS`.

    `stored` is the result of `ErrorReference.to_json`, or None for a version without one. Series
    that are not in it have the medians; NaN where nothing is known.
    """
    if not stored or tuple(stored["fields"]) != REFERENCE_FIELDS:
        stored = {"series": {}, "others": None}
    default = stored["others"] or [np.nan] * len(REFERENCE_FIELDS)
    rows = [stored["series"].get(name, default) for name in names]
    return np.array(rows, np.float64).reshape(len(names), len(REFERENCE_FIELDS))


def n_reference_blocks(stored: Any) -> float:
    """Return the number of time blocks that a result of `ErrorReference.to_json` rests on.

    0 for None.
    """
    if not stored or not stored["others"] or tuple(stored["fields"]) != REFERENCE_FIELDS:
        return 0.0
    return float(stored["others"][REFERENCE_FIELDS.index("stretches")])


def fit_error_reference(
    network: MetricAccumulator, naive: MetricAccumulator, names: tuple[str, ...]
) -> ErrorReference:
    """Compute how forecasts of one horizon differ, from the differences between time blocks.

    A block that holds several forecasts differs less than one of them does: by the root of their
    number, were they independent.
    """
    errors, naive_errors, inside = network.by_block, naive.by_block, network.inside
    has_inside = inside.counts > 0
    n_actuals = np.where(has_inside, inside.counts, 0).sum(0) / np.maximum(has_inside.sum(0), 1)
    root_of_n = np.sqrt(np.maximum(n_actuals, network.horizon))
    root_of_n /= np.sqrt(network.horizon)

    both = (errors.counts > 0) & (naive_errors.counts > 0)
    total, naive_total = (np.where(both, e.values, 0.0).sum(0) for e in (errors, naive_errors))
    ratio = np.where(naive_total > 0, total / np.where(naive_total > 0, naive_total, 1.0), np.nan)
    excess = np.where(both, errors.values - ratio * naive_errors.values, np.nan)
    logs = np.log(np.maximum(errors.values, MIN_ERROR))
    return ErrorReference(
        names,
        network.coverage_by_series(),
        _deviation(inside.values) * root_of_n,
        ratio,
        _deviation(excess) * root_of_n,
        np.nan_to_num(logs).sum(0) / np.maximum(np.isfinite(logs).sum(0), 1),
        _deviation(logs) * root_of_n,
        np.isfinite(excess).sum(0).astype(np.float64),
    )


def _deviation(values: Doubles) -> Doubles:
    """Return the deviation over blocks, `(series,)`; NaN where too few of them have a value.

    Estimated from few blocks it is likely too small. It is widened so that four of it are as rare
    as four of a known deviation (Student 1908).
    """
    is_known = np.isfinite(values)
    n = is_known.sum(0)
    mean = np.where(is_known, values, 0.0).sum(0) / np.maximum(n, 1)
    squares = np.where(is_known, values - mean, 0.0) ** 2
    n_free = np.maximum(n - 1, 1)
    factor = np.array([_widening(k) for k in n_free.tolist()])
    deviation = factor * np.sqrt(squares.sum(0) / n_free)
    return np.where(n >= _MIN_BLOCKS, deviation, np.nan)


@cache
def _widening(n_free: int) -> float:
    """Return the factor that widens a deviation with `n_free` degrees of freedom, by bisection."""
    known = math.erfc(_SIGMAS / math.sqrt(2))
    low, high = _SIGMAS, 1e6  # with one degree it is 10,050
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_tails(middle, n_free) > known else (low, middle)
    return high / _SIGMAS


def student_tails(t: float, n_free: int) -> float:
    """Return the probability that Student's t is further from 0 than `t`.

    It is a finite sum for each number of degrees of freedom (Abramowitz and Stegun 26.7.3 and
    26.7.4).
    """
    angle = math.atan(t / math.sqrt(n_free))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    is_odd = n_free % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for k in range(2 + is_odd, n_free + 1, 2):
        total += term
        term *= square * (k - 1) / k
    inside = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return max(1 - inside, 0.0)
