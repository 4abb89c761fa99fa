"""The state of a training between two steps: all that the next one depends on. No torch here.

Apart from `checkpoint`, which knows files, and `training`, which knows what it means.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Floats
from rnnforecast.events import EpochEnded
from rnnforecast.model.expected import Tensors

KINDS = ("weights", "averaged", "best", "means", "squares")
"""What there is of each parameter."""


@dataclass(frozen=True)
class MemberState:
    """One member between two of its steps. Parameters are float32, by their names."""

    steps: int
    best_steps: int
    best_loss: float | None
    """None as long as there was none."""
    epochs: tuple[EpochEnded, ...]
    weights: Tensors
    averaged: Tensors
    best: Tensors
    means: Tensors
    """Running means of the gradients, as the optimizer keeps them."""
    squares: Tensors
    """The same of their squares."""
    counts: Floats
    """`(parameter,)`: for how many steps the optimizer has; 0 where it has not seen a gradient."""
    losses: Floats
    """`(step,)` of the epoch that is not over."""
    norms: Floats
    """`(step,)`, of the gradients, before clipping."""
    generator: NDArray[np.uint8]
    """The state of the source of random numbers."""

    @property
    def _rest(self) -> dict[str, NDArray[Any]]:
        names = ("counts", "losses", "norms", "generator")
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all of them by the name that they have in a file."""
        named = {f"{kind}.{n}": x for kind in KINDS for n, x in getattr(self, kind).items()}
        return {**named, **self._rest}

    def figures(self) -> dict[str, Any]:
        """Return the rest."""
        return {
            "steps": self.steps,
            "best_steps": self.best_steps,
            "best_loss": self.best_loss,
            "epochs": [asdict(epoch) for epoch in self.epochs],
        }


@dataclass(frozen=True)
class TrainingState:
    """All members, and how far the committee was."""

    target: int
    """Steps after which it looks again who goes on."""
    going: tuple[int, ...]
    """Numbers of the members that are on their way there; none where the fit is over."""
    members: tuple[MemberState, ...]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return those of all members, float32 before bytes."""
        named = {
            f"members.{number}.{name}": np.ascontiguousarray(x)
            for number, member in enumerate(self.members)
            for name, x in member.tensors().items()
        }
        return dict(sorted(named.items(), key=lambda item: (item[1].dtype == np.uint8, item[0])))
