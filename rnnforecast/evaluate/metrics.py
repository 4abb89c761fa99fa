"""Accuracy metrics as running sums over windows, and bootstrap intervals of the skill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.windows import Values
from rnnforecast.parallel import Ranks
from rnnforecast.spec import DECILES, QUANTILES

UNCALIBRATED = "uncalibrated"
"""Name of the network without its calibration, among the methods that are scored."""
_DECILE_LEVELS = np.array(DECILES)
_AT_DECILES = [QUANTILES.index(level) for level in DECILES]
_N_DRAWS, _N_BATCHES = 1000, 20
"""Bootstrap draws, and the batches that they are drawn in."""
_CONFIDENCE = 0.95
_MIN_BLOCKS = 8
"""With fewer time blocks no interval is given."""
_RUN_FACTOR = 1.5
"""Length of a bootstrap run, in blocks: this factor times the cube root of their number (Künsch
1989). On ETTh1, 24 steps, single blocks gave an interval of 7.7 points, runs of a week 11.5."""


def percentage_errors(actual: Doubles, forecast: Doubles) -> Doubles:
    """Return the terms of sMAPE, 0 to 200; NaN where the actual is missing.

    0 / 0 counts as 0: a zero that was forecast as zero is no error.
    """
    size = np.abs(actual) + np.abs(forecast)
    error = np.abs(actual - forecast)
    return np.where(size > 0, 200 * error / np.where(size > 0, size, 1.0), size * 0)


def scaled_errors(actual: Doubles, forecast: Doubles, scale: Doubles) -> Doubles:
    """Return absolute errors over each window's scale; NaN where the scale is 0 or unknown."""
    usable = np.where(np.isfinite(scale) & (scale > 0), scale, np.nan)
    errors: Doubles = np.abs(actual - forecast) / usable[:, None]
    return errors


def pinball_losses(actual: Doubles, quantiles: Doubles, levels: Doubles) -> Doubles:
    """Return the loss of each actual at each level, `(window, horizon, quantile)`."""
    error = actual[:, :, None] - quantiles
    losses: Doubles = np.maximum(levels * error, (levels - 1) * error)
    return losses


def finite_mean(values: Doubles) -> float | None:
    """Return the mean of the finite values; None where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def _mean_of(
    terms: Callable[[_Errors], Doubles], heading: str | None = None, *, root: bool = False
) -> dict[str, Any]:
    """Declare a metric that is the mean of `terms`, `(window, horizon)`, or the mean's root."""
    return {"terms": terms, "heading": heading, "root": root}


def _derived(
    value: Callable[[MetricAccumulator], float | None], heading: str | None = None
) -> dict[str, Any]:
    """Declare a metric that is computed from sums by series, time block or level."""
    return {"value": value, "heading": heading}


@dataclass(frozen=True)
class Metrics:
    """The metrics of one method; None where a metric is undefined.

    A metric is declared here and nowhere else: its field holds the formula, and the heading of its
    column in tables. Without a heading it stands only in JSON.
    """

    mae: float | None = field(metadata=_mean_of(lambda e: e.absolute, "MAE"))
    """Mean absolute error, in the sensor's unit."""
    rmse: float | None = field(metadata=_mean_of(lambda e: e.absolute**2, "RMSE", root=True))
    """Root of the mean squared error, in the sensor's unit."""
    smape: float | None = field(
        metadata=_mean_of(lambda e: percentage_errors(e.actual, e.point), "sMAPE %")
    )
    """Symmetric mean absolute percentage error, 0 to 200 (Makridakis and others, M4, 2020)."""
    mase: float | None = field(
        metadata=_derived(lambda sums: finite_mean(sums.mase_by_series()), "MASE")
    )
    """Mean over series of the absolute error over the in-sample seasonal naive error (Hyndman and
    Koehler 2006). Windows whose scale is 0 or unknown do not count, nor series without others."""
    wql: float | None = field(metadata=_derived(lambda sums: sums.wql, "WQL"))
    """Weighted quantile loss (Salinas and others 2020, section 4): the mean over deciles of twice
    the summed pinball loss over the summed absolute actuals."""
    coverage_80: float | None = field(
        metadata=_derived(lambda sums: sums.inside.overall, "in q10..q90")
    )
    """Share of the actuals inside `[q10, q90]`."""
    scaled_mse: float | None = field(metadata=_mean_of(lambda e: e.in_deviations**2))
    """Mean squared error in variances of each series: what papers on long horizons print as MSE."""
    scaled_mae: float | None = field(metadata=_mean_of(lambda e: e.in_deviations))
    """Mean absolute error in standard deviations of each series: MAE of the same papers (Zhou and
    others 2021, Informer). Windows whose deviation is 0 or unknown do not count."""
    n: int = field(metadata=_derived(lambda sums: int(sums.means["mae"].counts[0])))
    """How many actuals there are."""

    def to_json(self) -> dict[str, float | int | None]:
        """Return what JSON shows under `metrics.<method>`."""
        return asdict(self)


HEADINGS: dict[str, str] = {
    metric.name: metric.metadata["heading"]
    for metric in fields(Metrics)
    if metric.metadata["heading"] is not None
}
"""Metrics that tables show, and their headings."""


@dataclass(frozen=True)
class WindowContext:
    """What scoring needs of each window besides its actuals and forecast, `(window,)` each."""

    series: Integers
    scale: Doubles
    """In-sample error of the seasonal naive forecast before the cutoff: the unit of MASE."""
    deviation: Doubles
    """Standard deviation of the series before the train part ends."""
    block: Integers
    """The time block that the cutoff lies in."""


@dataclass(frozen=True)
class _Errors:
    """Actuals, forecasts and errors of some windows, `(window, horizon)`; NaN where missing."""

    actual: Doubles
    point: Doubles
    absolute: Doubles
    in_deviations: Doubles
    """In standard deviations of the series."""


@dataclass
class _RunningMean:
    """A mean of each of several groups, kept as sum and count."""

    sums: Doubles
    counts: Integers

    @classmethod
    def zeros(cls, *shape: int) -> _RunningMean:
        return cls(np.zeros(shape), np.zeros(shape, np.int64))

    def add(self, values: Doubles, group: Integers | int = 0) -> None:
        """Add values to their groups, which are flat indices; missing values do not count."""
        seen = np.isfinite(values)
        groups = np.broadcast_to(group, values.shape)[seen]
        size = self.sums.size
        self.sums += np.bincount(groups, values[seen], size).reshape(self.sums.shape)
        self.counts += np.bincount(groups, minlength=size).reshape(self.counts.shape)

    def all_reduce(self, ranks: Ranks) -> _RunningMean:
        """Return the running mean of what all ranks have added."""
        return _RunningMean(ranks.all_reduce(self.sums), ranks.all_reduce(self.counts))

    @property
    def values(self) -> Doubles:
        """The mean of each group; NaN for a group without a value."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)

    @property
    def overall(self) -> float | None:
        """The mean over all groups together; None without a value."""
        n = int(self.counts.sum())
        return float(self.sums.sum() / n) if n else None


class MetricAccumulator:
    """Running sums of one method's errors, from which its metrics are computed."""

    def __init__(self, n_series: int, horizon: int, n_blocks: int) -> None:
        self.n_series, self.horizon, self.n_blocks = n_series, horizon, n_blocks
        self.means: dict[str, _RunningMean] = {
            metric.name: _RunningMean.zeros(1)
            for metric in fields(Metrics)
            if "terms" in metric.metadata
        }
        # shares of the actuals: at or below each quantile, and inside q10..q90 by (block, series)
        self.below = _RunningMean.zeros(len(QUANTILES))
        self.inside: _RunningMean = _RunningMean.zeros(n_blocks, n_series)
        # absolute errors: as they are, in standard deviations, and in units of MASE
        self.by_series = _RunningMean.zeros(n_series)
        self.by_lead = _RunningMean.zeros(horizon)
        self.by_block = _RunningMean.zeros(n_blocks, n_series)
        # summed pinball losses by decile, and summed absolute actuals
        self.pinball = np.zeros(len(DECILES))
        self.size = 0.0
        self.n_windows = 0

    def empty(self) -> MetricAccumulator:
        """Return an accumulator of the same shape without any windows."""
        return MetricAccumulator(self.n_series, self.horizon, self.n_blocks)

    def all_reduce(self, ranks: Ranks) -> MetricAccumulator:
        """Return the sums over all ranks; each window is counted by one rank."""
        if ranks.n == 1:
            return self

        total = self.empty()
        total.means = {name: mean.all_reduce(ranks) for name, mean in self.means.items()}
        for name, value in vars(self).items():
            if isinstance(value, _RunningMean):
                setattr(total, name, value.all_reduce(ranks))
        total.pinball = ranks.all_reduce(self.pinball)
        size, n_windows = ranks.all_reduce(np.array([self.size, self.n_windows])).tolist()
        total.size, total.n_windows = size, round(n_windows)
        return total

    def add(self, actual: Values, forecast: Forecast, windows: WindowContext) -> None:
        """Add windows: their actuals, `(window, horizon)`, NaN where missing, and their forecast.

        The forecast must hold the trained quantiles, and only them.
        """
        truth, point = actual.astype(np.float64), forecast.point.astype(np.float64)
        quantiles = forecast.values.astype(np.float64)
        deciles = quantiles[:, :, _AT_DECILES]
        in_deviations = scaled_errors(truth, point, windows.deviation)
        errors = _Errors(truth, point, np.abs(truth - point), in_deviations)

        for metric in fields(Metrics):
            if metric.name in self.means:
                self.means[metric.name].add(metric.metadata["terms"](errors))

        series = windows.series[:, None]
        cell = windows.block[:, None] * self.n_series + series
        self.by_series.add(errors.absolute, series)
        self.by_lead.add(in_deviations, np.arange(self.horizon))
        self.by_block.add(scaled_errors(truth, point, windows.scale), cell)

        is_known = np.isfinite(truth)
        is_inside = (deciles[:, :, 0] <= truth) & (truth <= deciles[:, :, -1])
        self.inside.add(np.where(is_known, is_inside, np.nan), cell)
        is_below = np.where(is_known[:, :, None], truth[:, :, None] <= quantiles, np.nan)
        self.below.add(is_below, np.arange(len(QUANTILES)))

        self.pinball += np.nansum(pinball_losses(truth, deciles, _DECILE_LEVELS), axis=(0, 1))
        self.size += float(np.nansum(np.abs(truth)))
        self.n_windows += len(truth)

    def metrics(self) -> Metrics:
        """Return the metrics of all windows that were added."""
        values: dict[str, Any] = {}
        for metric in fields(Metrics):
            if "value" in metric.metadata:
                values[metric.name] = metric.metadata["value"](self)
                continue
            mean = self.means[metric.name].overall
            if mean is not None and metric.metadata["root"]:
                mean = float(np.sqrt(mean))
            values[metric.name] = mean
        return Metrics(**values)

    @property
    def wql(self) -> float | None:
        """Weighted quantile loss; None where all actuals are 0 or missing."""
        return float(np.mean(2 * self.pinball / self.size)) if self.size > 0 else None

    def coverage_by_series(self) -> Doubles:
        """`(series,)`: share of the actuals inside q10..q90; NaN where there is none."""
        sums, counts = self.inside.sums.sum(0), self.inside.counts.sum(0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def mase_by_series(self) -> Doubles:
        """`(series,)`: each series' term of MASE; NaN where undefined."""
        return self._weighted_mase(np.ones(self.n_blocks), slice(None))

    def resampled_mase(self, weights: Doubles) -> Doubles:
        """`(draw,)`: MASE where block b counts `weights[draw, b]` times; NaN if undefined or 0."""
        by_series = self._weighted_mase(weights, np.flatnonzero(self.by_block.counts.any(0)))
        is_known = np.isfinite(by_series)
        counts = is_known.sum(1)
        sums = np.where(is_known, by_series, 0.0).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mase: Doubles = np.where(sums > 0, sums / counts, np.nan)
        return mase

    def _weighted_mase(self, weights: Doubles, series: Integers | slice) -> Doubles:
        counts = weights @ self.by_block.counts[:, series]
        sums = weights @ self.by_block.sums[:, series]
        return np.where(counts > 0, sums / np.where(counts > 0, counts, 1.0), np.nan)


def skill(network: Metrics, baselines: dict[str, Metrics]) -> tuple[float | None, str | None]:
    """Return by how many percent the network's MASE is below the best baseline's, and its name."""
    mases = {name: m.mase for name, m in baselines.items() if m.mase is not None}
    if network.mase is None or not mases:
        return None, None
    best = min(mases, key=lambda name: mases[name])
    if mases[best] == 0:
        return None, best
    return 100 * (1 - network.mase / mases[best]), best


def skill_interval(
    network: MetricAccumulator, baseline: MetricAccumulator
) -> tuple[float, float] | None:
    """Return the 95 % interval of the skill, in percent; None where there are too few time blocks.

    The skill is by how much the network's MASE lies below the baseline's, on the same windows. Runs
    of blocks are drawn, all series together, as neighbouring origins and sensors err together.
    """
    used = np.flatnonzero(network.by_block.counts.sum(1))
    n = len(used)
    if n < _MIN_BLOCKS:
        return None

    rng = np.random.default_rng(0)
    run = int(np.ceil(_RUN_FACTOR * np.cbrt(n)))
    batches = []
    for _ in range(_N_BATCHES):
        # runs begin anywhere and wrap around; the last one is cut off at n blocks
        begins = rng.integers(0, n, (_N_DRAWS // _N_BATCHES, -(-n // run), 1))
        drawn = ((begins + np.arange(run)) % n).reshape(len(begins), -1)[:, :n]
        weights = np.zeros((len(drawn), network.n_blocks))  # (draw, block)
        np.add.at(weights, (np.arange(len(drawn))[:, None], used[drawn]), 1.0)
        batches.append(network.resampled_mase(weights) / baseline.resampled_mase(weights))

    ratios = np.concatenate(batches)
    skills = 100 * (1 - ratios[np.isfinite(ratios)])
    if not len(skills):
        return None
    low, high = np.quantile(skills, ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return float(low), float(high)
