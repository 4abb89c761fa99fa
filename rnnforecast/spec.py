"""The shape of a network: look-back, horizon, season, quantiles, sizes of its members."""

from __future__ import annotations

from dataclasses import dataclass

from rnnforecast.config.training import QUANTILES

HINGES = 16
"""Curves that a series' reaction to covariates known ahead is made of, beside straight lines."""


@dataclass(frozen=True)
class MemberSpec:
    """What is particular to one network of the committee."""

    lookback: int
    """It sees so many steps, the newest ones."""
    segment: int
    """Readings that one recurrent step takes in."""
    linear: bool
    """Whether a window turned upside down, stretched, or mixed with another is as good as any: it
    learns from such windows, and sees each at unit spread."""
    seasonal: bool
    """Whether level and pattern of the window's own seasons last into the horizon; only where it
    holds two of them."""
    covariates: bool = False
    """Whether it sees the covariates."""

    def __str__(self) -> str:
        """Say it in the words of `show`."""
        parts = [f"{self.lookback} steps in segments of {self.segment}"]
        parts += ["the window's own pattern lasts"] * self.seasonal
        parts += ["in the series' units"] * (not self.linear)
        parts += ["with covariates"] * self.covariates
        return ", ".join(parts)

    @property
    def n_components(self) -> int:
        """How many parts of a window last, as `model.persistence` lists them."""
        return 3 if self.seasonal else 1


@dataclass(frozen=True)
class NetworkSpec:
    """What one network does, all found and fixed: it decides the shape of every tensor."""

    lookback: int
    horizon: int
    season: int
    """Steps after which the pattern repeats; 1 where there is no season."""
    n_series: int
    members: tuple[MemberSpec, ...]
    quantiles: tuple[float, ...] = QUANTILES
    n_known: int = 0
    """Features of covariates that are known ahead."""
    n_past: int = 0
    """Features of covariates that are known up to now only."""
    n_static: int = 0
    """Features that stay the same for each series."""

    @property
    def n_features(self) -> int:
        """All of them."""
        return self.n_known + self.n_past + self.n_static

    @property
    def median(self) -> int:
        """The position of the median among the quantiles."""
        return self.quantiles.index(0.5)
