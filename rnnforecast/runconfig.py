"""How `run` and `score` are called, as frozen dataclasses. Standard library only.

Apart from `jobconfig`, which holds what a job file says, and takes longer to import.
"""

from __future__ import annotations

from dataclasses import dataclass

from rnnforecast.durations import check_range, parse_duration_us
from rnnforecast.errors import UsageError
from rnnforecast.fields import check_choices, option


@dataclass(frozen=True)
class RunConfig:
    """How one call of `run` goes about a job."""

    force: bool = option(False, "Publish again what is published already.")
    dry_run: bool = option(False, "Say what would be done; write nothing, take no lock.")
    as_of: str | None = option(None, "Run as at this time: use no reading after it.")
    from_: str | None = option(None, "Catch up: the first as-of time.")
    to: str | None = option(None, "Catch up: the last as-of time.")
    every: str = option("1d", "Catch up: the time between two.")
    fail_on: str = option(
        "partial",
        "What counts as a failure: only errors, or also series that were not forecast as usual.",
        choices=("error", "partial"),
    )
    lock_wait: str | None = option(None, "Wait so long for another run, such as 10m.")
    max_time: str | None = option(None, "Give up after this time; nothing is published then.")

    def __post_init__(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        check_choices(self)
        for length in filter(None, (self.every, self.lock_wait, self.max_time)):
            parse_duration_us(length)
        if (self.from_ is None) != (self.to is None):
            raise UsageError("--from and --to need each other")
        if self.from_ is not None and self.as_of is not None:
            raise UsageError("--as-of is one time, --from and --to are many", hint="leave out one")


@dataclass(frozen=True)
class ScoreConfig:
    """Which forecasts are scored, and how they are put together."""

    since: str | None = option(
        None, "Only readings of so long before the newest one, such as 30d, or from a time on."
    )
    by: tuple[str, ...] = option(
        ("series",),
        "Figures for each series, lead, day, or several of them.",
        choices=("series", "lead", "day"),
        listed=True,
    )
    max_drift: float | None = option(
        None, "Exit with 8 where a series is further off what was usual at training: deviations."
    )

    def __post_init__(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        check_choices(self)
        if self.max_drift is not None:
            check_range("max-drift", self.max_drift, 0.0, 1e9)
