"""What the measured memory and gradients of a network amount to: verdicts and advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnforecast.config.training import Config
from rnnforecast.gradients import OK, VANISHING, WASTED, Judged, exploding
from rnnforecast.spec import NetworkSpec

_GROWS = 10.0
"""A gradient explodes that is so many times as large anywhere before the end as at the end."""
_STRONG = 0.3
"""Autocorrelation of a peak, after the learned pattern, that a forecast should make use of."""
_SHORT = 0.9
"""Share of a period from which on it counts as remembered."""
_AS_GOOD, _EXPLAINED = 1.05, 0.9
"""Errors, in units of what the reading one period before says alone: up to the first the network is
as good as that reading; below the second it does better by other means, and need not remember."""
_WASTED_SHARE = 0.25
_FEW_STEPS = 8


@dataclass(frozen=True)
class Peak:
    """A lag at which readings come again."""

    lag: int
    autocorrelation: float
    left: float
    """What is left of it without the pattern that the network knows by heart."""
    error: float | None = None
    """Error of the network up to this lead, in units of that of the reading one lag before, shrunk
    as the autocorrelation says; None where the look-back does not hold it."""
    unaided: float | None = None
    """The error of no forecast at all, in the same units."""

    @property
    def is_unused(self) -> bool:
        """Whether the network has not got half of the way from no forecast to that reading."""
        if self.error is None or self.unaided is None:
            return False
        return self.error > max(_AS_GOOD, (1 + self.unaided) / 2)


@dataclass(frozen=True)
class MemberMemory:
    """One member of the network."""

    lookback: int
    segment: int
    effective_memory: int
    state_lags: tuple[int, ...]
    """Readings between the state and the forecast's begin, increasing from 0."""
    state_gradient: tuple[float, ...]
    """How much the median of the first step moves with the state there."""
    time_constants: tuple[tuple[float, ...], ...] | None
    """Readings after which each unit has lost all but 1/e of its state, by layer."""

    @property
    def growth(self) -> float | None:
        """How many times the largest gradient is the one at the end; None where that is 0."""
        if not self.state_gradient or not self.state_gradient[0] > 0:
            return None
        return max(self.state_gradient) / self.state_gradient[0]


@dataclass(frozen=True)
class Memory:
    """All that was measured of one network on some windows."""

    lookback: int
    effective: int
    kept: tuple[int, ...]
    losses: tuple[float, ...]
    leads: Mapping[str, int]
    """Which steps are early, middle and late."""
    gradients: Mapping[str, tuple[float | None, ...]]
    """By lag from 1 on."""
    members: tuple[MemberMemory, ...]
    peaks: tuple[Peak, ...]
    n_windows: int
    explosion: str | None
    """Why its training exploded; None where it did not."""

    @property
    def half_life(self) -> dict[str, int | None]:
        """The furthest lag at which a reading counts half as much as the one that counts most."""
        return {name: half_life(curve) for name, curve in self.gradients.items()}

    def to_json(self, judged: Judged) -> dict[str, Any]:
        """Return what `memory --json` prints of it, but for the units."""
        return {
            "effective_memory": self.effective,
            "lookback": self.lookback,
            "half_life": self.half_life,
            "leads": dict(self.leads),
            "gradient_by_lag": {name: list(curve) for name, curve in self.gradients.items()},
            "loss_by_kept": [
                {"kept": k, "loss": round(x, 6)}
                for k, x in zip(self.kept, self.losses, strict=True)
            ],
            "autocorrelation_peaks": [
                {
                    "lag": peak.lag,
                    "autocorrelation": round(peak.autocorrelation, 3),
                    "after_pattern": round(peak.left, 3),
                    "error_ratio": None if peak.error is None else round(peak.error, 3),
                }
                for peak in self.peaks
            ],
            "members": [
                {
                    "lookback": own.lookback,
                    "segment": own.segment,
                    "effective_memory": own.effective_memory,
                    "state_gradient_by_lag": [
                        [lag, size]
                        for lag, size in zip(own.state_lags, own.state_gradient, strict=True)
                    ],
                }
                for own in self.members
            ],
            "windows": self.n_windows,
            "verdict": judged.verdict,
            "reason": judged.reason,
            "advice": judged.advice,
        }


def half_life(curve: Sequence[float | None]) -> int | None:
    """Return the furthest lag, from 1, whose value is at least half of the largest."""
    values = np.array([np.nan if x is None else x for x in curve], np.float64)
    if not np.nan_to_num(values).any():
        return None
    return int(np.flatnonzero(values >= 0.5 * np.nanmax(values)).max()) + 1


def judge(memory: Memory, spec: NetworkSpec, config: Config) -> Judged:
    """Say which failure there is, the gravest first, and what to try."""
    grown = [own.growth for own in memory.members if own.growth is not None]
    if memory.explosion is not None:
        return exploding(f"in training {memory.explosion}", config.training)
    if max(grown, default=0.0) > _GROWS:
        return exploding(
            f"the gradient grows to {max(grown):.0f} times its size on its way back",
            config.training,
        )
    for peak in memory.peaks:
        if peak.lag > memory.lookback or peak.left < _STRONG or peak.error is None:
            continue
        is_short = memory.effective < _SHORT * peak.lag and peak.error > _EXPLAINED
        if is_short or peak.is_unused:
            reason = (
                f"readings come again after {peak.lag} steps (autocorrelation {peak.left:.2f}), "
                "but the forecasts make no use of it"
            )
            return Judged(VANISHING, reason, _lengthened(peak.lag, spec, config))
    if memory.effective < _WASTED_SHARE * memory.lookback:
        reason = (
            f"the last {memory.effective} of {memory.lookback} steps forecast as well as all do"
        )
        return Judged(WASTED, reason, f"--lookback {_shorter(memory.effective, spec)}")
    return Judged(OK, f"it makes use of the last {memory.effective} steps", None)


def _lengthened(period: int, spec: NetworkSpec, config: Config) -> str:
    """Return what lets a network learn from readings a period before."""
    truncate, network = config.training.truncate, config.network
    if truncate is not None and truncate < period:
        return f"--truncate {spec.lookback}"
    segment = max(own.segment for own in spec.members)
    if period / segment > _FEW_STEPS:
        return f"--segment {-(-period // _FEW_STEPS)}"
    if network.cell == "rnn":
        return "--cell gru"
    if network.init != "chrono":
        return "--init chrono"
    return f"--epochs {2 * config.training.epochs}"


def _shorter(effective: int, spec: NetworkSpec) -> int:
    """Return twice the effective memory in whole seasons, two at least; no more than there is."""
    season = spec.season
    wanted = max(2 * effective, 2 * season if season > 1 else 2)
    return min(-(-wanted // season) * season, spec.lookback)
