"""Accuracy metrics as running sums over windows, and bootstrap intervals of the skill."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from rnnforecast.config.training import DECILES, QUANTILES
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast, normal_scores
from rnnforecast.data.windows import Values
from rnnforecast.parallel import Ranks

UNCALIBRATED = "uncalibrated"
"""Under this name stands what the network would be without its calibration."""
_LEVELS = np.array(DECILES)
_AT_DECILES = [QUANTILES.index(level) for level in DECILES]
_N_DRAWS, _N_PARTS = 1000, 20
_SHARE = 0.95
_FEWEST_STRETCHES = 8
"""Fewer stretches of time say nothing about how the next will be."""
_RUN = 1.5
"""Stretches in one run, times the cube root of their number: the usual rate (Künsch 1989)."""
HEADINGS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "smape": "sMAPE %",
    "mase": "MASE",
    "wql": "WQL",
    "coverage_80": "in q10..q90",
}
"""Metrics that people see, and what they are called."""


@dataclass(frozen=True)
class Metrics:
    """The contract's metrics of one method. None where a metric is undefined."""

    mae: float | None
    rmse: float | None
    smape: float | None
    mase: float | None
    wql: float | None
    coverage_80: float | None
    scaled_mse: float | None
    scaled_mae: float | None
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return what JSON shows under `metrics.<method>`."""
        return asdict(self)


def mae(actual: Doubles, forecast: Doubles) -> float | None:
    """Mean absolute error, in the sensor's unit."""
    return mean(np.abs(actual - forecast))


def rmse(actual: Doubles, forecast: Doubles) -> float | None:
    """Root of the mean squared error, in the sensor's unit."""
    squared = mean((actual - forecast) ** 2)
    return None if squared is None else float(np.sqrt(squared))


def smape(actual: Doubles, forecast: Doubles) -> float | None:
    """Symmetric mean absolute percentage error, 0 to 200 (Makridakis and others, M4, 2020).

    0 / 0 counts as 0: a zero that was forecast as zero is no error.
    """
    return mean(percentage_errors(actual, forecast))


def percentage_errors(actual: Doubles, forecast: Doubles) -> Doubles:
    """Return the parts of `smape`, one for each reading; NaN where it is missing."""
    size = np.abs(actual) + np.abs(forecast)
    error = np.abs(actual - forecast)
    return np.where(size > 0, 200 * error / np.where(size > 0, size, 1.0), size * 0)


def mase(actual: Doubles, forecast: Doubles, *, scale: Doubles, series: Integers) -> float | None:
    """Mean over series of the absolute error over the in-sample seasonal naive error.

    Hyndman and Koehler 2006. Windows whose scale is 0 or unknown do not count; a series none of
    whose windows count does not either.
    """
    errors = scaled_errors(actual, forecast, scale)
    return mean(np.array([mean(errors[series == s]) for s in np.unique(series)], np.float64))


def scaled_errors(actual: Doubles, forecast: Doubles, scale: Doubles) -> Doubles:
    """Absolute errors over each window's scale, `(window,)`; NaN where it is 0 or unknown."""
    usable = np.where(np.isfinite(scale) & (scale > 0), scale, np.nan)
    errors: Doubles = np.abs(actual - forecast) / usable[:, None]
    return errors


def scaled_mae(actual: Doubles, forecast: Doubles, *, deviation: Doubles) -> float | None:
    """Mean absolute error in standard deviations of each series, `(window,)`.

    It is what papers on long horizons print as MAE (Zhou and others 2021, Informer). Windows whose
    deviation is 0 or unknown do not count.
    """
    return mean(scaled_errors(actual, forecast, deviation))


def scaled_mse(actual: Doubles, forecast: Doubles, *, deviation: Doubles) -> float | None:
    """Mean squared error in variances of each series: what the same papers print as MSE."""
    return mean(scaled_errors(actual, forecast, deviation) ** 2)


def wql(actual: Doubles, quantiles: Doubles, levels: Doubles) -> float | None:
    """Weighted quantile loss, as in Salinas and others 2020, section 4.

    The mean over levels of twice the summed pinball loss over the summed absolute actuals.
    """
    total = np.nansum(np.abs(actual))
    if not np.isfinite(actual).any() or total == 0:
        return None
    losses = pinball_losses(actual, quantiles, levels)
    return float(np.mean(2 * np.nansum(losses, axis=(0, 1)) / total))


def pinball_losses(actual: Doubles, quantiles: Doubles, levels: Doubles) -> Doubles:
    """Return the loss of each reading at each level, `(window, horizon, quantile)`."""
    error = actual[:, :, None] - quantiles
    losses: Doubles = np.maximum(levels * error, (levels - 1) * error)
    return losses


def coverage(actual: Doubles, low: Doubles, high: Doubles) -> float | None:
    """Return the share of actuals inside `[low, high]`."""
    inside = ((actual >= low) & (actual <= high)).astype(np.float64)
    return mean(np.where(np.isfinite(actual), inside, np.nan))


def skill(network: Metrics, others: dict[str, Metrics]) -> tuple[float | None, str | None]:
    """Return by how many percent the network's MASE is below the best other's, and whose."""
    known = {name: m.mase for name, m in others.items() if m.mase is not None}
    if network.mase is None or not known:
        return None, None
    best = min(known, key=lambda name: known[name])
    if known[best] == 0:
        return None, best
    return 100 * (1 - network.mase / known[best]), best


def normal_quantiles(point: Doubles, deviation: Doubles, levels: tuple[float, ...]) -> Doubles:
    """Quantiles of a normal distribution around each point, `(..., quantile)`."""
    quantiles: Doubles = point[..., None] + deviation[..., None] * normal_scores(levels)
    return quantiles


def mean(values: Doubles) -> float | None:
    """Return the mean of what is there; None where nothing is."""
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if seen.size else None


@dataclass(frozen=True)
class Windows:
    """What scoring must know of each window beside its actuals, `(window,)` each."""

    series: Integers
    scale: Doubles
    """In-sample error of the seasonal naive forecast before the cutoff: the unit of MASE."""
    deviation: Doubles
    """Standard deviation of the series before the train part ends."""
    block: Integers
    """Which stretch of time the cutoff lies in."""


@dataclass
class _Mean:
    """A mean in the making, one for each group."""

    sums: Doubles
    counts: Integers

    @classmethod
    def of(cls, *shape: int) -> _Mean:
        return cls(np.zeros(shape), np.zeros(shape, np.int64))

    def add(self, values: Doubles, group: Integers | int = 0) -> None:
        """Add values to their groups, numbers of the flat result; missing ones do not count."""
        seen = np.isfinite(values)
        owner = np.broadcast_to(group, values.shape)[seen]
        size = self.sums.size
        self.sums += np.bincount(owner, values[seen], size).reshape(self.sums.shape)
        self.counts += np.bincount(owner, minlength=size).reshape(self.counts.shape)

    def total(self, ranks: Ranks) -> _Mean:
        """Return the same of what all ranks have added."""
        return _Mean(ranks.total(self.sums), ranks.total(self.counts))

    @property
    def values(self) -> Doubles:
        """The means; NaN for a group without a value."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)

    @property
    def overall(self) -> float | None:
        """The mean over all groups together."""
        n = int(self.counts.sum())
        return float(self.sums.sum() / n) if n else None


@dataclass
class Tally:
    """The sums of one method."""

    n_series: int
    horizon: int
    n_blocks: int
    absolute: _Mean = field(init=False)
    squared: _Mean = field(init=False)
    percentage: _Mean = field(init=False)
    scaled: _Mean = field(init=False)
    scaled_squared: _Mean = field(init=False)
    below: _Mean = field(init=False)
    """Share of the actuals at or below each quantile, `(quantile,)`."""
    inside: _Mean = field(init=False)
    """Share of the actuals inside q10..q90, `(block, series)`."""
    by_series: _Mean = field(init=False)
    """MAE, `(series,)`."""
    by_lead: _Mean = field(init=False)
    """Scaled absolute errors, `(horizon,)`."""
    by_block: _Mean = field(init=False)
    """Absolute errors in units of MASE, `(block, series)`."""
    pinball: Doubles = field(init=False)
    size: float = 0.0
    """Sum of the absolute actuals."""
    n_windows: int = 0

    def __post_init__(self) -> None:
        """Start from nothing."""
        for name in ("absolute", "squared", "percentage", "scaled", "scaled_squared"):
            setattr(self, name, _Mean.of(1))
        self.below = _Mean.of(len(QUANTILES))
        self.inside = _Mean.of(self.n_blocks, self.n_series)
        self.by_series = _Mean.of(self.n_series)
        self.by_lead = _Mean.of(self.horizon)
        self.by_block = _Mean.of(self.n_blocks, self.n_series)
        self.pinball = np.zeros(len(DECILES))

    def empty(self) -> Tally:
        """Return one like this that nothing has been counted in."""
        return Tally(self.n_series, self.horizon, self.n_blocks)

    def total(self, ranks: Ranks) -> Tally:
        """Return the sums of all ranks; the figures that belong to a window belong to one rank."""
        if ranks.n == 1:
            return self
        whole = self.empty()
        for name, part in vars(self).items():
            if isinstance(part, _Mean):
                setattr(whole, name, part.total(ranks))
        whole.pinball = ranks.total(self.pinball)
        size, n_windows = ranks.total(np.array([self.size, self.n_windows])).tolist()
        whole.size, whole.n_windows = size, round(n_windows)
        return whole

    def add(self, actual: Values, forecast: Forecast, windows: Windows) -> None:
        """Count some windows: actuals `(window, horizon)`, NaN where missing, and their forecast.

        The forecast must hold the trained quantiles, and only them.
        """
        truth, point = actual.astype(np.float64), forecast.point.astype(np.float64)
        quantiles = forecast.values.astype(np.float64)
        deciles = quantiles[:, :, _AT_DECILES]
        errors = np.abs(truth - point)
        series = windows.series[:, None]
        self.absolute.add(errors)
        self.squared.add(errors**2)
        self.percentage.add(percentage_errors(truth, point))
        within = (deciles[:, :, 0] <= truth) & (truth <= deciles[:, :, -1])
        cell = windows.block[:, None] * self.n_series + series
        self.inside.add(np.where(np.isfinite(truth), within, np.nan), cell)
        under = np.where(np.isfinite(truth)[:, :, None], truth[:, :, None] <= quantiles, np.nan)
        self.below.add(under, np.arange(len(QUANTILES)))
        in_deviations = scaled_errors(truth, point, windows.deviation)
        self.scaled.add(in_deviations)
        self.scaled_squared.add(in_deviations**2)
        self.by_lead.add(in_deviations, np.arange(self.horizon))
        self.by_series.add(errors, series)
        in_scales = scaled_errors(truth, point, windows.scale)
        self.by_block.add(in_scales, cell)
        self.pinball += np.nansum(pinball_losses(truth, deciles, _LEVELS), axis=(0, 1))
        self.size += float(np.nansum(np.abs(truth)))
        self.n_windows += len(truth)

    def metrics(self) -> Metrics:
        """Return the contract's metrics of all that was counted."""
        squared = self.squared.overall
        return Metrics(
            mae=self.absolute.overall,
            rmse=None if squared is None else float(np.sqrt(squared)),
            smape=self.percentage.overall,
            mase=mean(self.mase_by_series()),
            wql=float(np.mean(2 * self.pinball / self.size)) if self.size > 0 else None,
            coverage_80=self.inside.overall,
            scaled_mse=self.scaled_squared.overall,
            scaled_mae=self.scaled.overall,
            n=int(self.absolute.counts[0]),
        )

    def coverage_by_series(self) -> Doubles:
        """`(series,)`: share of the actuals inside q10..q90; NaN where there is none."""
        sums, counts = self.inside.sums.sum(0), self.inside.counts.sum(0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def mase_by_series(self) -> Doubles:
        """`(series,)`: each series' part of MASE; NaN where undefined."""
        return self._mase(np.ones(self.n_blocks), slice(None))

    def drawn_mase(self, weights: Doubles) -> Doubles:
        """`(draw, series)`: the same where each stretch of time counts so often, `(draw, block)`.

        Only series that were forecast at all are there.
        """
        return self._mase(weights, np.flatnonzero(self.by_block.counts.any(0)))

    def _mase(self, weights: Doubles, series: Integers | slice) -> Doubles:
        counts = weights @ self.by_block.counts[:, series]
        sums = weights @ self.by_block.sums[:, series]
        return np.where(counts > 0, sums / np.where(counts > 0, counts, 1.0), np.nan)


def skill_interval(network: Tally, other: Tally) -> tuple[float, float] | None:
    """Return the 95 % interval of the skill, in percent; None where there is too little time.

    The skill is by how much the network's MASE lies below the other's, on the same windows.
    """
    used = np.flatnonzero(network.by_block.counts.sum(1))
    n = len(used)
    if n < _FEWEST_STRETCHES:
        return None
    rng = np.random.default_rng(0)
    run = int(np.ceil(_RUN * np.cbrt(n)))
    ratios = []
    for _ in range(_N_PARTS):
        begins = rng.integers(0, n, (_N_DRAWS // _N_PARTS, -(-n // run), 1))
        drawn = ((begins + np.arange(run)) % n).reshape(len(begins), -1)[:, :n]
        weights = np.zeros((len(drawn), network.n_blocks))
        np.add.at(weights, (np.arange(len(drawn))[:, None], used[drawn]), 1.0)
        ratios.append(_mase(network, weights) / _mase(other, weights))
    ratio = np.concatenate(ratios)
    skills = 100 * (1 - ratio[np.isfinite(ratio)])
    if not len(skills):
        return None
    low, high = np.quantile(skills, ((1 - _SHARE) / 2, (1 + _SHARE) / 2))
    return float(low), float(high)


def _mase(tally: Tally, weights: Doubles) -> Doubles:
    """MASE of each draw, `(draw,)`; NaN where it is undefined or 0."""
    by_series = tally.drawn_mase(weights)
    known = np.isfinite(by_series)
    counts = known.sum(1)
    sums = np.where(known, by_series, 0.0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mase: Doubles = np.where(sums > 0, sums / counts, np.nan)
    return mase
