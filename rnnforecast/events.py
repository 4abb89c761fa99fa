"""Events that long work reports to a listener: the console or a log.

Only the console prints. An event holds facts and numbers; the listener turns it into text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rnnforecast.errors import Proposal, join_hints, redact

_MAX_NAMES = 5
"""Names in the message of a warning; its count has all."""


CATCH_UP_HINT = "run the same command again to publish the rest"
"""What to do about a catch-up that ended early."""


@dataclass(frozen=True)
class Notice:
    """A decision that was made for the user, in one line."""

    message: str

    def __post_init__(self) -> None:
        """Take logins out of the URLs in the message."""
        object.__setattr__(self, "message", redact(self.message))


@dataclass(frozen=True)
class WarningEvent:
    """Something that was accepted, but that the user should know. Manifests keep it."""

    code: str
    message: str
    count: int = 1
    proposals: tuple[Proposal, ...] = ()
    """Options that may solve it."""
    hint: str | None = None
    """What to do about it, in words."""

    def __post_init__(self) -> None:
        """Take logins out of the URLs in the message."""
        object.__setattr__(self, "message", redact(self.message))

    @property
    def advice(self) -> str | None:
        """What to do about it: the proposals, and the hint."""
        return join_hints(self.proposals, self.hint)

    @property
    def text(self) -> str:
        """The message, and what to do about it."""
        return "; ".join(filter(None, (self.message, self.advice)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the warning as `WarningEvent(**fields)` takes them."""
        fields = {"code": self.code, "message": self.message, "count": self.count}
        return fields if self.advice is None else {**fields, "hint": self.advice}

    @classmethod
    def for_names(cls, code: str, problem: str, names: Sequence[str]) -> WarningEvent:
        """Return a warning of a problem that series or columns share; it names the first few."""
        text = ", ".join(name or "''" for name in names[:_MAX_NAMES])
        if len(names) > _MAX_NAMES:
            problem, text = f"{problem}, {len(names)} in all", f"{text}, ..."
        return cls(code, f"{problem}: {text}", len(names))


@dataclass(frozen=True)
class ProgressEvent:
    """`done` of `total` units of `task` are done: 0 in the first event, `total` in the last.

    Before the last event, the total may be an estimate.
    """

    task: str
    done: int
    total: int
    unit: str = "steps"


@dataclass(frozen=True)
class EpochEnded:
    """One epoch of one ensemble member's training has ended."""

    member: int
    epoch: int
    steps: int
    train_loss: float
    validation_loss: float | None
    gradient_norm: float
    """The median norm of the epoch's steps before clipping."""
    gradient_norm_99: float
    """Its 99th percentile."""
    clipped: float
    """The share of steps that were clipped; without a limit, of those with a norm above 1."""
    learning_rate: float
    """That of the last step."""
    is_best: bool


@dataclass(frozen=True)
class PublishedEvent:
    """A result is published. A failure after this event does not take it back."""

    result: str
    """The version, or the path of the output."""


@dataclass(frozen=True)
class InputRead:
    """A file was read to its end, and is what it was when it was first looked at."""

    path: str
    describe: Callable[[], dict[str, Any]]
    """Returns its entry for a manifest."""


@dataclass(frozen=True)
class CatchUpEvent:
    """Number of as-of times of a catch-up that are published, by this call or an earlier one."""

    n_published: int
    n_total: int

    @property
    def summary(self) -> str:
        """Describe the progress in words."""
        return f"{self.n_published} of {self.n_total} as-of times are published"


def merged_warnings(warnings: Sequence[WarningEvent], where: str) -> Iterator[WarningEvent]:
    """Yield one warning for each code: the first one, with the sum of all counts.

    Its message says how many more there are `where`, such as "of other ranks".
    """
    counts: Counter[str] = Counter()
    for warning in warnings:
        counts[warning.code] += warning.count
    first = {warning.code: warning for warning in reversed(warnings)}

    for code, total in counts.items():
        more = total - first[code].count
        message = first[code].message + (f" (and {more} more {where})" if more else "")
        yield replace(first[code], message=message, count=total)


Event = (
    Notice | WarningEvent | ProgressEvent | EpochEnded | PublishedEvent | InputRead | CatchUpEvent
)
Listener = Callable[[Event], None]


def warn_of_names(
    code: str,
    problem: str,
    names: Sequence[str],
    listener: Listener,
    *,
    proposals: Sequence[Proposal] = (),
    hint: str | None = None,
) -> None:
    """Warn of a problem that series or columns share; of none, nothing is reported."""
    if names:
        warning = WarningEvent.for_names(code, problem, names)
        listener(replace(warning, proposals=tuple(proposals), hint=hint))


def escape_controls(text: str) -> str:
    """Escape control characters, so that text from a file cannot end a line or move a cursor."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def ignore(_event: Event) -> None:
    """Ignore an event."""


@dataclass(frozen=True)
class Recorder:
    """A listener that passes events on, and collects warnings and inputs for manifest and result.

    The last reading of an input counts.
    """

    listener: Listener
    warnings: list[WarningEvent] = field(default_factory=list)
    inputs: dict[str, InputRead] = field(default_factory=dict)
    """The files that were read, by their paths."""

    def __call__(self, event: Event) -> None:
        """Pass the event on; a warning that is already in the list is dropped."""
        if isinstance(event, InputRead):
            self.inputs[event.path] = event
        if isinstance(event, WarningEvent):
            if event in self.warnings:
                return
            self.warnings.append(event)
        self.listener(event)


class ProgressReporter:
    """Counts steps, and passes events on to a listener."""

    def __init__(self, listener: Listener, name: str, total: int, *, done: int = 0) -> None:
        self._listener, self._name, self._total, self._done = listener, name, total, done

    def report(self, event: Event | None) -> None:
        """Pass an event on, if there is one."""
        if event is not None:
            self._listener(event)

    def advance(self) -> None:
        """Report one more step."""
        self._done += 1
        self._listener(ProgressEvent(self._name, self._done, self._total))

    def finish(self) -> None:
        """Report the end, also where members have stopped early."""
        self._listener(ProgressEvent(self._name, self._total, self._total))
