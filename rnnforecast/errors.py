"""The errors as one tree. Each class has the exit code of the command line.

    RnnForecastError
    ├── UsageError          2   options or configuration
    ├── CatchUpError        3   a catch-up ended early; what it has published stays
    ├── DataError           4   readings that cannot be used, or do not match the model
    │   └── DivergedError   4   the training loss is not finite
    ├── NotEnoughDataError  5   no series is long enough, or the data is stale
    ├── ModelError          6   the model is missing, damaged or incompatible
    ├── WriteError          7   the result cannot be written
    ├── QualityGateError    8   a quality gate failed: the candidate is saved, not activated
    ├── OutputError         9   published, but standard output could not be written
    ├── WorkerError        10   workers died, retries did not help; what is published stays
    ├── LockedError        11   another process is writing there
    └── TimeLimitError    124   --max-time ran out

An error says what was found, where, and what to type next.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

_PACKAGES = {"sklearn": "scikit-learn"}
"""Packages that are not called as the library is that they bring."""
_URL = re.compile(r"\b(?:[A-Za-z][A-Za-z0-9+.-]*):/+[^\s'\"]+")
_LOGIN = re.compile(r"(?P<before>^[^:]+:/+)(?P<login>[^/@?]*:[^?]*|[^/@?]*)@")
_CONTAINER = re.compile(r"abfss?:/+[^:]*@", re.IGNORECASE)
"""Azure's container stands where other URLs have a login."""
_QUERY_LOGIN = re.compile(r"([?&][^=&]*=)[^&]*@")
_QUERY_SECRET = re.compile(
    r"([?&][^=&]*(?:sig|token|secret|key|passw|pwd|credential|auth)[^=&]*=)[^&]*", re.IGNORECASE
)
PARTIAL = 3
"""Exit code of a success with restrictions: findings, or series that were not forecast as usual."""


def redact(text: str) -> str:
    """Return a text without the logins and the secrets of the URLs in it.

    A URL with one is refused, but an error, a warning or a log may quote what was typed before
    anybody has looked at it. One slash after the scheme is what `pathlib` leaves of two.
    """
    return _URL.sub(lambda match: _redact_url(match[0]), text) if ":/" in text else text


def _redact_url(url: str) -> str:
    if _CONTAINER.match(url) is None:
        url = _LOGIN.sub(r"\g<before>...@", url)
    return _QUERY_SECRET.sub(r"\1...", _QUERY_LOGIN.sub(r"\1...@", url))


@dataclass(frozen=True)
class Location:
    """The place of an error: a physical line of a text file, or a row of a Parquet file."""

    file: str
    line: int | None = None
    column: str | None = None
    column_number: int | None = None
    text: str | None = None
    """The whole line."""
    token: str | None = None
    """The part of the line that is at fault."""
    also_lines: tuple[int, ...] = ()
    unit: str = "line"


@dataclass(frozen=True)
class Proposal:
    """Options that may solve a problem, one word each, as a user would type them.

    It can be tried on the readings before a user sees it, which text in a message cannot.
    """

    options: tuple[str, ...]
    condition: str = ""
    """When they are right, such as `if the comma is a decimal mark`."""
    effect: str = ""
    """What they change, once they were tried: how many readings are dropped."""

    def __str__(self) -> str:
        add = f"add  {shlex.join(self.options)}"
        return (f"{self.condition}, {add}" if self.condition else add) + (
            f"  ({self.effect})" if self.effect else ""
        )


def option_for_each(option: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return the words of an option that is given once for each value."""
    return tuple(part for value in values for part in (option, value))


def join_hints(proposals: Sequence[Proposal], hint: str | None) -> str | None:
    """Return all that may help in one line: the proposals in their order, then other words."""
    parts = [*map(str, proposals), *([hint] if hint else [])]
    return redact(" ; ".join(parts)) or None


class RnnForecastError(Exception):
    """A failure that a user can act on: what was found, where, and what to type next.

    `code` is a stable name for programs, such as `usage`; `hint` says in words what no option does.
    """

    exit_code = 1
    default_code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        location: Location | None = None,
        hint: str | None = None,
        proposals: Sequence[Proposal] = (),
    ) -> None:
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.location = location and replace(location, file=redact(location.file))
        self.hint = hint
        self.proposals = tuple(proposals)

    @property
    def advice(self) -> str | None:
        """What to do next: the proposals, and the hint."""
        return join_hints(self.proposals, self.hint)


class StandardOutputError(Exception):
    """Standard output could not be written; the command line says what is published all the same.

    It is no `OSError`, of which many have no name of a file: a temporary one, or a socket.
    """


@contextmanager
def writing_standard_output() -> Iterator[None]:
    """Tell errors of standard output from others. A reader that has seen enough is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StandardOutputError(error.strerror or str(error)) from error


class UsageError(RnnForecastError):
    """Invalid options or configuration."""

    exit_code = 2
    default_code = "usage"


class CatchUpError(RnnForecastError):
    """A catch-up ended early: some of its as-of times are published, and stay."""

    exit_code = PARTIAL
    default_code = "catch-up"


class DataError(RnnForecastError):
    """Readings that cannot be used, or that do not match the model."""

    exit_code = 4
    default_code = "data"


class DivergedError(DataError):
    """The training loss is not finite; nothing is saved."""

    default_code = "diverged"


class NotEnoughDataError(RnnForecastError):
    """No series is long enough, or the readings are too old."""

    exit_code = 5
    default_code = "not-enough-data"


class ModelError(RnnForecastError):
    """The model is missing, damaged or incompatible."""

    exit_code = 6
    default_code = "model"


class WriteError(RnnForecastError):
    """The result cannot be written; the previous one is unchanged."""

    exit_code = 7
    default_code = "write"


class QualityGateError(RnnForecastError):
    """A quality gate failed: the candidate is saved, but not activated."""

    exit_code = 8
    default_code = "quality-gate"


class OutputError(RnnForecastError):
    """The result is published, but standard output could not be written."""

    exit_code = 9
    default_code = "output"


class WorkerError(RnnForecastError):
    """Workers died, or did not answer, and retries did not help."""

    exit_code = 10
    default_code = "worker"


class LockedError(RnnForecastError):
    """Another process has the lock; nothing was started."""

    exit_code = 11
    default_code = "locked"


class TimeLimitError(RnnForecastError):
    """`--max-time` ran out before anything was published."""

    exit_code = 124
    default_code = "time-limit"


def require_libraries(purpose: str, *names: str) -> None:
    """Raise `UsageError` unless these libraries are installed; none of them is imported.

    An install for small machines has neither torch nor what draws. `purpose` is what needs them.
    """
    missing = [_PACKAGES.get(name, name) for name in names if not _is_installed(name)]
    if missing:
        raise UsageError(
            f"{purpose} needs {' and '.join(missing)}, which this install does not have",
            code="missing-library",
            hint=f"pip install {' '.join(missing)}",
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # it is kept from being imported
        return False
