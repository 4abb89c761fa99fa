"""What long work reports. The console and logs listen; nobody below them prints.

An event is a fact with its numbers; how it reads on a screen is the listener's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

_NAMED = 5


@dataclass(frozen=True)
class Noted:
    """A decision that the user did not make himself, in one line."""

    message: str


@dataclass(frozen=True)
class Warned:
    """Something that was accepted, but that the user should know. Stands in the manifest too."""

    code: str
    message: str
    count: int = 1

    @classmethod
    def naming(cls, code: str, what: str, names: Sequence[str]) -> Warned:
        """Warn of something that these, series or columns, have in common; the first are named."""
        shown = ", ".join(names[:_NAMED])
        if len(names) > _NAMED:
            what, shown = f"{what}, {len(names)} in all", f"{shown}, ..."
        return cls(code, f"{what}: {shown}", len(names))


@dataclass(frozen=True)
class Progressed:
    """`done` of `total` steps of `task` are behind us. The first has done = 0, the last = total.

    Before that, the total may be an estimate.
    """

    task: str
    done: int
    total: int
    unit: str = "steps"


@dataclass(frozen=True)
class EpochEnded:
    """One epoch of one member's training is over."""

    member: int
    epoch: int
    steps: int
    train_loss: float
    validation_loss: float | None
    gradient_norm: float
    """The median norm before clipping."""
    gradient_norm_99: float
    """Its 99th percentile."""
    clipped: float
    """The share of steps that were clipped; without a limit, of those whose norm was above 1."""
    learning_rate: float
    """Of the last step."""
    is_best: bool
    effective_memory: int | None = None
    """How many readings back the forecasts make use of, in steps; not measured in every epoch."""


@dataclass(frozen=True)
class Published:
    """A result is there for others to see, and counts: what may fail now only follows it."""

    what: str


def merged_warnings(warnings: Sequence[Warned], where: str) -> Iterator[Warned]:
    """Give one warning of each kind, the first, with what all of them count, and say where."""
    counts: Counter[str] = Counter()
    for warning in warnings:
        counts[warning.code] += warning.count
    first = {warning.code: warning for warning in reversed(warnings)}
    for code, total in counts.items():
        more = total - first[code].count
        words = first[code].message + (f" (and {more} more {where})" if more else "")
        yield replace(first[code], message=words, count=total)


Event = Noted | Warned | Progressed | EpochEnded | Published
Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Recorder:
    """Passes events on, and keeps the warnings for the manifest and the result."""

    listener: Listener
    warnings: list[Warned]

    def __call__(self, event: Event) -> None:
        """Keep a warning once; pass every event on."""
        if isinstance(event, Warned):
            if event in self.warnings:
                return
            self.warnings.append(event)
        self.listener(event)
