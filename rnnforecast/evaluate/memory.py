"""Diagnosis of a network's measured memory and gradients: verdict and advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnforecast.config.training import MAX_EPOCHS, Config
from rnnforecast.data.arrays import Doubles
from rnnforecast.gradients import OK, VANISHING, WASTED, Diagnosis, diagnose_explosion
from rnnforecast.spec import NetworkSpec

_MAX_GROWTH = 10.0
"""A gradient explodes that is more than this many times as large anywhere as at the end."""
_STRONG = 0.3
"""Autocorrelation of a peak that a forecast should make use of."""
_REMEMBERED_SHARE = 0.9
"""Share of a period from which on it counts as remembered."""
_AS_GOOD, _EXPLAINED = 1.05, 0.9
"""Errors, in units of that of the reading one period before: up to the first the network is as good
as that reading; below the second it does better by other means, and need not remember."""
_WASTED_SHARE = 0.25
"""A look-back is wasted where the effective memory is a smaller share of it."""
_MAX_STEPS = 8
"""Steps of the recurrence in one period; with more, longer segments are advised."""
_MIN_PEAK = 0.1
"""Lower peaks of the autocorrelation are not listed."""
_MIN_RISE = 0.05
"""Height of a peak over the lowest correlation before it."""
_PEAK_NOISE = 3.0
"""Height of a peak in standard deviations of the autocorrelation of white noise."""
_FEWEST_PAIRS = 20
"""With fewer pairs of readings the autocorrelation at a lag is unknown."""
_HIGHER_BY = 0.02
"""A peak after a shorter one counts only where it is higher by this much."""


@dataclass(frozen=True)
class Peak:
    """A lag at which the autocorrelation of the readings peaks."""

    lag: int
    autocorrelation: float
    error: float | None = None
    """Error of the network up to this lead, in units of the error of the reading one lag before,
    shrunk by its autocorrelation; None where the lag exceeds the look-back."""
    unaided: float | None = None
    """Error of no forecast at all, in the same units."""

    @property
    def is_unused(self) -> bool:
        """Whether the error is not halfway from that of no forecast to that of the reading."""
        if self.error is None or self.unaided is None:
            return False
        return self.error > max(_AS_GOOD, (1 + self.unaided) / 2)


@dataclass(frozen=True)
class MemberMemory:
    """Memory and gradients of one ensemble member."""

    segment: int
    state_lags: tuple[int, ...]
    """Readings between a state and the begin of the forecast, increasing from 0."""
    state_gradient: tuple[float, ...]
    """Gradient of the median of the first step with respect to the state at each lag."""
    time_constants: tuple[tuple[float, ...], ...] | None
    """Readings after which each unit has lost all but 1/e of its state, by layer."""

    @property
    def growth(self) -> float | None:
        """Largest gradient over the gradient at the end; None where that is 0."""
        if not self.state_gradient or not self.state_gradient[0] > 0:
            return None
        return max(self.state_gradient) / self.state_gradient[0]


@dataclass(frozen=True)
class MemoryAnalysis:
    """Memory and gradients of one network, measured on some windows."""

    lookback: int
    effective: int
    """Least length of history, in steps, with which forecasts are as good as with all of it."""
    lengths: tuple[int, ...]
    """Lengths of history that were tried, increasing."""
    losses: tuple[float, ...]
    """Quantile loss with each length."""
    leads: Mapping[str, int]
    """Steps ahead that are called early, middle and late."""
    gradients: Mapping[str, tuple[float | None, ...]]
    """Gradient of the median at each of these leads, by lag from 1."""
    members: tuple[MemberMemory, ...]
    peaks: tuple[Peak, ...]
    n_windows: int
    explosion: str | None
    """Why the training exploded; None where it did not."""

    @property
    def half_life(self) -> dict[str, int | None]:
        """Furthest lag whose gradient is at least half of the largest, by lead."""
        return {name: half_life(curve) for name, curve in self.gradients.items()}

    def to_json(self, diagnosis: Diagnosis) -> dict[str, Any]:
        """Return what `memory --json` prints, without the time constants of units."""
        return {
            "effective_memory": self.effective,
            "lookback": self.lookback,
            "half_life": self.half_life,
            "leads": dict(self.leads),
            "gradient_by_lag": {name: list(curve) for name, curve in self.gradients.items()},
            "loss_by_kept": [
                {"kept": k, "loss": round(x, 6)}
                for k, x in zip(self.lengths, self.losses, strict=True)
            ],
            "autocorrelation_peaks": [
                {
                    "lag": peak.lag,
                    "autocorrelation": round(peak.autocorrelation, 3),
                    "error_ratio": None if peak.error is None else round(peak.error, 3),
                }
                for peak in self.peaks
            ],
            "members": [
                {
                    "segment": member.segment,
                    "state_gradient_by_lag": [
                        [lag, size]
                        for lag, size in zip(member.state_lags, member.state_gradient, strict=True)
                    ],
                }
                for member in self.members
            ],
            "windows": self.n_windows,
            "verdict": diagnosis.verdict,
            "reason": diagnosis.reason,
            "advice": diagnosis.advice,
        }


def half_life(curve: Sequence[float | None]) -> int | None:
    """Return the furthest lag, from 1, whose value is at least half of the largest."""
    values = np.array([np.nan if x is None else x for x in curve], np.float64)
    if not np.nan_to_num(values).any():
        return None
    return int(np.flatnonzero(values >= 0.5 * np.nanmax(values)).max()) + 1


def diagnose(memory: MemoryAnalysis, spec: NetworkSpec, config: Config) -> Diagnosis:
    """Return the gravest failure there is, and what to try against it."""
    if memory.explosion is not None:
        return diagnose_explosion(f"in training {memory.explosion}", config.training)
    growths = [member.growth for member in memory.members if member.growth is not None]
    growth = max(growths, default=0.0)
    if growth > _MAX_GROWTH:
        return diagnose_explosion(
            f"the gradient grows {growth:.0f}-fold during backpropagation", config.training
        )

    for peak in memory.peaks:
        if peak.lag > memory.lookback or peak.autocorrelation < _STRONG or peak.error is None:
            continue
        is_forgotten = memory.effective < _REMEMBERED_SHARE * peak.lag and peak.error > _EXPLAINED
        if is_forgotten or peak.is_unused:
            reason = (
                f"the data repeats after {peak.lag} steps (autocorrelation "
                f"{peak.autocorrelation:.2f}), but the network does not use it"
            )
            return Diagnosis(VANISHING, reason, _advice_against_vanishing(peak.lag, spec, config))

    if memory.effective < _WASTED_SHARE * memory.lookback:
        reason = f"only the last {memory.effective} of {memory.lookback} steps matter"
        # twice the effective memory in whole seasons, two at least; no longer than it is
        season = spec.season
        needed = max(2 * memory.effective, 2 * season if season > 1 else 2)
        lookback = min(-(-needed // season) * season, spec.lookback)
        return Diagnosis(WASTED, reason, f"--lookback {lookback}")
    return Diagnosis(
        OK, f"the network uses the last {memory.effective} of {memory.lookback} steps", None
    )


def _advice_against_vanishing(period: int, spec: NetworkSpec, config: Config) -> str:
    """Return the option that lets a network learn from readings one period before."""
    truncate, network = config.training.truncate, config.network
    if truncate is not None and truncate < period:
        return f"--truncate {spec.lookback}"
    segment = max(member.segment for member in spec.members)
    if period / segment > _MAX_STEPS:
        return f"--segment {-(-period // _MAX_STEPS)}"
    if network.cell == "rnn":
        return "--cell gru"
    if network.init != "chrono":
        return "--init chrono"
    return f"--epochs {2 * (config.training.epochs or MAX_EPOCHS)}"


def autocorrelation(readings: Doubles, most: int) -> Doubles:
    """Return the correlation of readings, `(row,)`, with those k rows before, for k up to `most`.

    `(most + 1,)`. Missing readings are NaN, and do not count. NaN where there are fewer than 20
    pairs, or where the readings are constant.
    """
    seen = np.isfinite(readings)
    n = len(readings)
    correlation = np.full(most + 1, np.nan)
    if seen.sum() < _FEWEST_PAIRS:
        return correlation
    values = np.where(seen, readings - readings[seen].mean(), 0.0)
    variance = float((values**2).sum() / seen.sum())
    if variance == 0:
        return correlation

    size = 1 << int(2 * n - 1).bit_length()  # zero padding: no circular overlap

    def correlate(x: Doubles) -> Doubles:
        spectrum = np.fft.rfft(x, size)
        return np.fft.irfft(spectrum * np.conj(spectrum), size)[: most + 1]

    n_pairs, products = correlate(seen.astype(np.float64)), correlate(values)
    enough = n_pairs > _FEWEST_PAIRS - 0.5
    correlation[: len(n_pairs)][enough] = products[enough] / n_pairs[enough] / variance
    correlation[n:] = np.nan
    return correlation


def find_peaks(correlation: Doubles, n_readings: int) -> list[int]:
    """Return the lags at which an autocorrelation, from lag 0, peaks, increasing.

    A peak is the highest within a quarter of its lag, stands out of the valley before it and of
    noise, and is higher than the peaks before it: what comes again after a day does so after two,
    and that says nothing new.
    """
    curve = np.nan_to_num(correlation, nan=-1.0)
    lowest = np.minimum.accumulate(curve)
    min_height = max(_MIN_PEAK, _PEAK_NOISE / np.sqrt(max(n_readings, 1)))

    lags: list[int] = []
    for lag in range(2, len(curve) - 1):
        quarter = max(1, lag // 4)
        neighbours = curve[lag - quarter : lag + quarter + 1]
        earlier = [curve[peak] + _HIGHER_BY for peak in lags]
        threshold = max([min_height, lowest[lag] + _MIN_RISE, *earlier])
        if curve[lag] >= threshold and curve[lag] == neighbours.max():
            lags.append(lag)
    return lags


def median_curve(curves: Sequence[Doubles]) -> Doubles:
    """Return the median over series at each lag, `(lag,)`; NaN where no series has a value."""
    table = np.stack(list(curves))
    is_known = np.isfinite(table).any(0)
    median = np.full(table.shape[1], np.nan)
    median[is_known] = np.nanmedian(table[:, is_known], axis=0)
    return median
