"""The specification of a network: look-back, horizon, season, quantiles, members, tensor shapes.

Standard library only: a damaged model is refused by its shapes before a network is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Shape = tuple[int, ...]
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
QUANTILES = (0.025, *DECILES, 0.975)
"""Levels that every network learns: the nine deciles and the ends of a 95 % band."""
N_FULL, N_EXPERTS = 9, 14
"""Experts that forecast the reading, and all of them: see `model.experts`."""
N_BEFORE, N_SHOWN, N_FACTS = 4, 10, 21
"""Inputs for each row of the segment before, experts whose forecasts are inputs, and facts."""
EXPANSION = 2
"""Width of the layers between, as a multiple of the state's."""
CONTEXT_ROWS = 384
"""Rows of history that the recurrence runs over, at most; the experts see the whole look-back."""
_LEAST_ROWS = 32


class Cell(NamedTuple):
    """The structure of a recurrent cell; see `model.inference` for its equations."""

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

    cell: str
    hidden: int
    layers: int
    segment: int
    """Readings that one step of the recurrence takes in."""
    covariates: bool = False
    """Whether the member sees the covariates."""
    is_trained: bool = True
    """Whether it learns from these readings; else it stays as it was built in."""
    is_drawn: bool = False
    """Whether it begins with drawn weights where others begin with the built-in ones."""

    def __str__(self) -> str:
        """Describe the member as `rnnforecast show` prints it."""
        layers = f"{self.layers} layer{'s' * (self.layers > 1)}"
        parts = [f"{self.cell.upper()} of width {self.hidden}, {layers}"]
        parts += [f"segments of {self.segment}"]
        parts += ["with covariates"] * self.covariates
        parts += ["built in, not trained on this data"] * (not self.is_trained)
        parts += ["trained from scratch"] * self.is_drawn
        return ", ".join(parts)


BUILTIN = MemberSpec("gru", hidden=64, layers=2, segment=16, is_trained=False)
"""The member that is built in; its weights lie beside `model.forecaster`."""


@dataclass(frozen=True)
class NetworkSpec:
    """The resolved specification of a network, which decides the shape of every tensor."""

    lookback: int
    horizon: int
    season: int
    """The season of most series, in steps, 1 where they have none: errors are measured by it."""
    n_series: int
    members: tuple[MemberSpec, ...]
    weights: tuple[float, ...] = ()
    """Shares of the members in the forecast, which add up to 1; equal ones where there are none."""
    quantiles: tuple[float, ...] = QUANTILES
    n_known: int = 0
    """Number of features known ahead."""
    n_past: int = 0
    """Number of features known up to the cutoff only."""
    n_static: int = 0
    """Number of features that are constant for each series."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each member in the forecast."""
        return self.weights or (1 / len(self.members),) * len(self.members)

    @property
    def least_history(self) -> int:
        """Rows before a cutoff that training and evaluation ask for: two seasons, 32 at least."""
        return min(self.lookback, max(2 * self.season, _LEAST_ROWS))

    @property
    def n_features(self) -> int:
        """Number of features of all three kinds."""
        return self.n_known + self.n_past + self.n_static

    @property
    def median(self) -> int:
        """Index of the median among the quantiles."""
        return self.quantiles.index(0.5)


def builtin_spec(n_series: int, *, lookback: int, horizon: int, season: int = 1) -> NetworkSpec:
    """Return the specification of the built-in network alone, in steps."""
    return NetworkSpec(lookback, horizon, season, n_series, (BUILTIN,))


def expected_shapes(spec: NetworkSpec) -> dict[str, Shape]:
    """Return the name and shape of every tensor that a network of this specification stores."""
    entries = spec.n_series + 1  # entry 0 stands for every unknown series
    shapes: dict[str, Shape] = {
        "center": (entries,),
        "scale": (entries,),
        "outlier_threshold": (entries,),
        "seasons": (entries, 2),
    }
    if spec.n_features:
        shapes |= {"feature_mean": (spec.n_features,), "feature_scale": (spec.n_features,)}
    for number, member in enumerate(spec.members):
        for name, shape in member_shapes(spec, member).items():
            shapes[f"members.{number}.{name}"] = shape
    return shapes


def member_shapes(spec: NetworkSpec, member: MemberSpec) -> dict[str, Shape]:
    """Return the shapes of one member's tensors: its layers are made and checked by them."""
    width, between = member.hidden, EXPANSION * member.hidden
    inputs, outputs = n_inputs(member.segment), len(spec.quantiles) + N_EXPERTS
    cell = CELLS[member.cell]
    linears: dict[str, Shape] = {
        "embed": (width, inputs),
        "embed_again": (width, width),
        "head_hidden": (between, width + inputs),
        "head": (member.segment * outputs, between),
    }
    shapes: dict[str, Shape] = {"norm.weight": (width,), "norm.bias": (width,)}
    for number in range(member.layers):
        block = f"blocks.{number}"
        for norm in ("norm", "norm_between"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        linears |= {f"{block}.expand": (between, width), f"{block}.contract": (width, between)}
        for gates in ("linear_ih", "linear_hh")[: 1 + cell.reads_state]:
            linears[f"{block}.recurrence.{gates}"] = (cell.n_gates * width, width)
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    if member.covariates:
        features = n_covariate_inputs(spec, member.segment)
        shapes["covariates_to_state.weight"] = (width, features)
        shapes["covariates_to_head.weight"] = (between, features)
        if spec.n_known:
            shapes["reaction_head.weight"] = (member.segment, between)
            shapes["reaction_head.bias"] = (member.segment,)
    return shapes


def n_inputs(segment: int) -> int:
    """Return how many inputs a segment has, covariates aside: see `model.inputs`."""
    return (N_BEFORE + N_SHOWN + 1) * segment + N_FACTS + 2 * N_EXPERTS


def n_covariate_inputs(spec: NetworkSpec, segment: int) -> int:
    """Return how many inputs a segment has from covariates: see `model.inputs`."""
    n_reaction = segment + 1 if spec.n_known else 0
    return (2 * spec.n_known + spec.n_past) * segment + spec.n_static + n_reaction
