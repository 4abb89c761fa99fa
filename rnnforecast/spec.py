"""The specification of a network: look-back, horizon, season, quantiles, members, tensor shapes.

Standard library only: a damaged model is refused by its shapes before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rnnforecast.config.training import NetworkConfig

Shape = tuple[int, ...]
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
QUANTILES = (0.025, *DECILES, 0.975)
"""Levels that every network learns: the nine deciles and the ends of a 95 % band."""
HINGES = 16
"""Hinge functions that the effect of known covariates is made of, besides straight lines."""


class Cell(NamedTuple):
    """The structure of a recurrent cell; `model.recurrence` has its equations."""

    n_gates: int
    reads_state: bool = True
    """Whether the gates depend on the state; without that the cell has no `linear_hh`."""
    has_memory: bool = False
    """Whether the cell has a second state, as the LSTM has."""
    retention_gate: int | None = None
    """Index of the gate whose sigmoid is the share of the state that a unit retains, if any."""


CELLS = {
    "gru": Cell(3, retention_gate=1),
    "lstm": Cell(4, has_memory=True, retention_gate=1),
    "mingru": Cell(2, reads_state=False, retention_gate=0),
    "rnn": Cell(1),
}


@dataclass(frozen=True)
class MemberSpec:
    """The specification of one member of the ensemble."""

    lookback: int
    """Steps of history that the member sees, the newest ones."""
    segment: int
    """Steps that one step of the recurrence takes in."""
    linear: bool
    """Whether forecasts are assumed to be linear in the deviations from the season's pattern: the
    member trains on mirrored and mixed windows, too, and sees each window at unit spread."""
    seasonal: bool
    """Whether level and pattern of the window's own seasons persist into the horizon; requires two
    seasons in the look-back."""
    covariates: bool = False
    """Whether the member sees the covariates."""

    def __str__(self) -> str:
        """Describe the member as `rnnforecast show` prints it."""
        parts = [f"{self.lookback} steps in segments of {self.segment}"]
        parts += ["the window's own pattern lasts"] * self.seasonal
        parts += ["in the series' units"] * (not self.linear)
        parts += ["with covariates"] * self.covariates
        return ", ".join(parts)

    @property
    def n_components(self) -> int:
        """Number of components of a window that persist, as `model.network.lasting` lists them."""
        return 3 if self.seasonal else 1


@dataclass(frozen=True)
class NetworkSpec:
    """The resolved specification of a network, which decides the shape of every tensor."""

    lookback: int
    horizon: int
    season: int
    """Period of the pattern in steps; 1 where there is no season."""
    n_series: int
    members: tuple[MemberSpec, ...]
    quantiles: tuple[float, ...] = QUANTILES
    n_known: int = 0
    """Number of features known ahead."""
    n_past: int = 0
    """Number of features known up to the cutoff only."""
    n_static: int = 0
    """Number of features that are constant for each series."""

    @property
    def n_features(self) -> int:
        """Number of features of all three kinds."""
        return self.n_known + self.n_past + self.n_static

    @property
    def median(self) -> int:
        """Index of the median among the quantiles."""
        return self.quantiles.index(0.5)


def expected_shapes(spec: NetworkSpec, config: NetworkConfig) -> dict[str, Shape]:
    """Return the name and shape of every tensor that a network of this configuration stores."""
    entries = spec.n_series + 1  # entry 0 stands for every unknown series
    shapes: dict[str, Shape] = {
        "center": (entries,),
        "scale": (entries,),
        "outlier_threshold": (entries,),
    }
    if spec.n_features:
        shapes |= {"feature_mean": (spec.n_features,), "feature_scale": (spec.n_features,)}

    for number, member in enumerate(spec.members):
        for name, shape in member_shapes(spec, member, config).items():
            shapes[f"members.{number}.{name}"] = shape
    return shapes


def member_shapes(spec: NetworkSpec, member: MemberSpec, config: NetworkConfig) -> dict[str, Shape]:
    """Return the shapes of one member's tensors: its layers are made and checked by them."""
    entries, width = spec.n_series + 1, config.hidden
    out_segment = min(member.segment, spec.horizon)

    shapes = {
        "seasonal_pattern.weight": (entries, spec.season),
        "persistence": (member.n_components, spec.horizon),
        "segment_proj.weight": (width, member.segment),
        "segment_proj.bias": (width,),
        "missing_proj.weight": (width, member.segment),
        "series_embedding.weight": (entries, width),
        "lead_embedding": (-(-spec.horizon // out_segment), width),
        "head.weight": (out_segment * len(spec.quantiles), width),
        "head.bias": (out_segment * len(spec.quantiles),),
        **recurrence_shapes(config),
    }

    if member.covariates:
        covariates = covariate_shapes(spec, member, config)
        shapes |= {f"covariate_encoder.{name}": shape for name, shape in covariates.items()}
    return shapes


def recurrence_shapes(config: NetworkConfig) -> dict[str, Shape]:
    """Return the shapes of the recurrent layers: input to gates and state to gates."""
    cell = CELLS[config.cell]
    n_gates = cell.n_gates * config.hidden
    shapes: dict[str, Shape] = {}
    for layer in range(config.layers):
        for linear in ("linear_ih", "linear_hh") if cell.reads_state else ("linear_ih",):
            shapes[f"recurrence.{linear}.{layer}.weight"] = (n_gates, config.hidden)
            shapes[f"recurrence.{linear}.{layer}.bias"] = (n_gates,)
    return shapes


def covariate_shapes(
    spec: NetworkSpec, member: MemberSpec, config: NetworkConfig
) -> dict[str, Shape]:
    """Return the shapes of a member's covariate encoder; layers without input are left out."""
    width, out_segment = config.hidden, min(member.segment, spec.horizon)
    shapes: dict[str, Shape] = {}

    if spec.n_known:
        shapes["hinge.weight"] = (HINGES, spec.n_known)
        shapes["hinge.bias"] = (HINGES,)
        shapes["series_effect.weight"] = (spec.n_series + 1, spec.n_known + HINGES)
        shapes["future_proj.weight"] = (width, spec.n_known * out_segment)
    if spec.n_known + spec.n_past:
        shapes["history_proj.weight"] = (width, (spec.n_known + spec.n_past) * member.segment)
    if spec.n_static:
        shapes["static_proj.weight"] = (width, spec.n_static)
    return shapes
