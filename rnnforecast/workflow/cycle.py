"""What one run of a job came to, and what it did after its forecast was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnforecast.errors import RnnForecastError
from rnnforecast.events import Recorder, Warned
from rnnforecast.workflow.steps import Clock

if TYPE_CHECKING:
    from rnnforecast.evaluate.scoring import Score

PUBLISHED, ALREADY, STALE, PLANNED, FAILED = (
    "published",
    "already published",
    "stale",
    "planned",
    "failed",
)
PARTIAL = 3
"""The exit code where some series were not forecast as usual."""


@dataclass(frozen=True)
class Aftermath:
    """What followed a published forecast. Nothing of it can take the forecast back."""

    scores: tuple[Score, ...] = ()
    """Of recent forecasts, by series."""
    retired: tuple[str, ...] = ()
    """Outputs and versions that retention has removed."""
    retrain: dict[str, Any] | None = None
    """What was decided about a challenger, and why; None where none was due."""

    @property
    def flagged(self) -> list[str]:
        """Series whose live forecasts have left the band that was usual at training."""
        return [str(score.series) for score in self.scores if score.flag]


@dataclass(frozen=True)
class Cycle:
    """What one run came to."""

    status: str
    exit_code: int = 0
    as_of: str | None = None
    key: str | None = None
    output: Path | None = None
    version: str | None = None
    newest_s: float | None = None
    """Time of the newest reading, in seconds since 1970, in UTC."""
    created: str | None = None
    """When the version was trained."""
    series: int | None = None
    not_as_usual: int | None = None
    warnings: tuple[Warned, ...] = ()
    error: RnnForecastError | None = None
    aftermath: Aftermath = field(default_factory=Aftermath)
    timing: dict[str, float] = field(default_factory=dict)

    def ended(self, status: str, code: int, events: Recorder, clock: Clock) -> Cycle:
        """Return this with how it ended."""
        return replace(
            self,
            status=status,
            exit_code=code,
            warnings=tuple(events.warnings),
            timing=dict(clock.laps),
        )


def exit_code_of(cycles: Sequence[Cycle]) -> int:
    """Return the code of the first failure; 3 where only parts are missing, else 0."""
    codes = [cycle.exit_code for cycle in cycles if cycle.exit_code]
    return next((code for code in codes if code != PARTIAL), codes[0] if codes else 0)
