"""What one unattended cycle reads, forecasts, writes and keeps, as frozen dataclasses.

Each table of a job file is one of them, its keys are the fields; `jobfile` reads them. Apart from
`runconfig`, the options of the commands around a job. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnforecast.config import DEFAULT_MODEL, PredictConfig
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import check_range, parse_duration_us
from rnnforecast.errors import UsageError
from rnnforecast.fields import option

AS_OF = "{as_of}"
"""In the name of an output it stands for the time of the forecast."""


@dataclass(frozen=True)
class ModelPart:
    """Which model forecasts."""

    path: str = DEFAULT_MODEL
    version: str | None = None
    """Always this version; by default the one in force."""


@dataclass(frozen=True)
class LogPart:
    """Where a run says what it did."""

    file: str | None = None
    format: str = option("json", "", choices=("json", "text"))


@dataclass(frozen=True)
class KeepPart:
    """What retention leaves; None leaves all."""

    forecasts: int | None = None
    versions: int | None = None
    pinned: tuple[str, ...] = ()
    """Versions that stay, whatever their age."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for numbers that cannot be meant."""
        for name in ("forecasts", "versions"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 1, 10**6)


@dataclass(frozen=True)
class NotifyPart:
    """Whom to tell."""

    on_failure: tuple[str, ...] = ()
    """A command, word by word; it gets the message on standard input."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a command that is one text: it would name one program."""
        if len(self.on_failure) == 1 and " " in (text := self.on_failure[0]):
            words = ", ".join(f'"{word}"' for word in text.split())
            raise UsageError(
                f"on_failure is {text!r}, but must be a list of words", hint=f"write [{words}]"
            )


@dataclass(frozen=True)
class RetrainPart:
    """When a challenger is trained on newer readings, and when it replaces the version in force."""

    every: str | None = None
    """So long after the version in force has learnt."""
    when: str | None = option(None, "", choices=("drift",))
    promote_if: str = "1%"
    """By so much its MASE must be below that of the version in force, on the same windows."""
    hold_out: float = 0.5
    """Share of the newer readings that both are compared on."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        if self.every is not None:
            parse_duration_us(self.every)
        check_range("hold_out", self.hold_out, 0.1, 0.9)
        _ = self.margin

    @property
    def margin(self) -> float:
        """The share by which a challenger must be better."""
        match = re.fullmatch(r"(\d{1,2}(?:\.\d+)?) *%", self.promote_if)
        if match is None:
            raise UsageError(f"promote_if is {self.promote_if!r}, but must be such as '1%'")
        return float(match[1]) / 100


@dataclass(frozen=True)
class Job:
    """A job file, read and checked; every path leads there from the working directory."""

    path: Path
    source: str
    output: str
    reading: DataConfig = field(default_factory=DataConfig)
    given: frozenset[str] = frozenset()
    """Options of reading that the file gives, be it their default."""
    model: ModelPart = field(default_factory=ModelPart)
    forecast: PredictConfig = field(default_factory=PredictConfig)
    ledger: str | None = None
    log: LogPart = field(default_factory=LogPart)
    textfile: str | None = None
    keep: KeepPart = field(default_factory=KeepPart)
    notify: NotifyPart = field(default_factory=NotifyPart)
    retrain: RetrainPart = field(default_factory=RetrainPart)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the file says, as it stands there."""

    @property
    def name(self) -> str:
        """What messages and metrics call it."""
        return self.path.stem

    @property
    def lock(self) -> Path:
        """The file whose lock a run holds: that of the ledger, or where there is none, its output.

        Two jobs may write to one folder.
        """
        if self.ledger is not None:
            return Path(self.ledger) / ".lock"
        output = Path(self.output)
        return output.parent / f".{output.name}.lock"

    def output_of(self, as_of: str) -> Path:
        """Return the file that holds the forecast of this time."""
        return Path(self.output.replace(AS_OF, as_of))
