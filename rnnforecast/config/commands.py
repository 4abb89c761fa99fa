"""Options of single commands: jobs, scores, batches, ranks, output formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any, TypeVar, get_type_hints

from rnnforecast.config.fields import check_choices, from_python, option, option_fields
from rnnforecast.config.training import STANDARD_OUTPUT
from rnnforecast.errors import UsageError
from rnnforecast.units import check_range, parse_duration_us
from rnnforecast.urls import strip_query

ENGINES = ("processes", "ray")
MAX_WORKERS = 1024
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")
TRAINING_ENGINES = ("ray",)
OUTPUT_FORMATS = (".csv", ".parquet", ".jsonl")
PICTURE_FORMATS = (".png", ".svg", ".html")
PAGE_FORMATS = (".html", ".htm")
MAX_DRAWN = 12
"""Series in a picture, unless `--series` names more."""
DEFAULT_LEDGER = "ledger"
_Config = TypeVar("_Config")
_run = partial(option, group="Run")
_catch_up = partial(option, group="Catch-up")
_score = partial(option, group="Scoring")
_processes = partial(option, group="Several processes")


@dataclass(frozen=True)
class RunConfig:
    """Options of one run of a job."""

    force: bool = _run(False, "Publish again even if this forecast exists already")
    dry_run: bool = _run(False, "Show what would be done; write nothing and take no lock")
    as_of: str | None = _run(None, "Run as of this time (ignore later readings)", metavar="TIME")
    from_: str | None = _catch_up(None, "First as-of time", metavar="TIME")
    to: str | None = _catch_up(None, "Last as-of time", metavar="TIME")
    every: str = _catch_up("1d", "Interval between catch-up runs", metavar="DURATION")
    fail_on: str = _run(
        "partial",
        "Exit with a failure code on errors only, or also if some series were not forecast as "
        "usual",
        choices=("error", "partial"),
    )
    lock_wait: str | None = _run(
        None, "Wait up to this long for another run to finish", metavar="DURATION"
    )
    max_time: str | None = _run(
        None, "Abort after this time without publishing anything", metavar="DURATION"
    )

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid values, and for options that contradict each other."""
        check_choices(self)
        for duration in filter(None, (self.every, self.lock_wait, self.max_time)):
            parse_duration_us(duration)
        if (self.from_ is None) != (self.to is None):
            raise UsageError("--from and --to must be given together")
        if self.from_ is not None and self.as_of is not None:
            raise UsageError(
                "--as-of cannot be combined with --from and --to", hint="use one or the other"
            )


@dataclass(frozen=True)
class ScoreConfig:
    """Which forecasts are scored, and how scores are grouped."""

    since: str | None = _score(
        None, "Only score the last 30d, or from a given time", metavar="DURATION|TIME"
    )
    by: tuple[str, ...] = _score(
        ("series",),
        "Group results by series, lead, day (comma-separated)",
        choices=("series", "lead", "day"),
        listed=True,
    )
    in_sample: bool = _score(
        False, "Include forecasts of versions that were trained on later readings"
    )
    max_drift: float | None = _score(
        None,
        "Exit with code 8 if recent forecasts deviate from those at training time by more than "
        "this many standard deviations",
        metavar="X",
    )

    def __post_init__(self) -> None:
        """Raise `UsageError` for an invalid group or drift."""
        check_choices(self)
        check_range("max-drift", self.max_drift, 0.0, 1e9)


@dataclass(frozen=True)
class BatchConfig:
    """Which buckets of a folder made by `shard` are forecast, and by which workers."""

    shard: str | None = _processes(
        None, "Forecast only shard I of N, counted from 0", metavar="I/N", rare=True
    )
    commit: bool = _processes(False, "Verify all shards and publish the result", rare=True)
    workers: int | None = _processes(
        None,
        "Number of worker processes; they forecast all buckets and publish the result",
        rare=True,
    )
    engine: str | None = _processes(
        None, "Launcher of the workers (default: processes)", choices=ENGINES, rare=True
    )
    address: str | None = _processes(
        None, "Address of the Ray cluster (default: a local one)", metavar="ADDRESS", rare=True
    )

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid values, and for options that contradict each other."""
        check_choices(self)
        if self.shard is not None:
            _ = self.shard_index
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--workers {self.workers} must be between 1 and {MAX_WORKERS}")

        if self.shard is not None and (self.commit or self.has_workers):
            conflict = "--commit" if self.commit else "--workers and --engine"
            raise UsageError(
                f"--shard cannot be combined with {conflict}",
                hint="run all shards first, in any order and on any machine, then  --commit",
            )
        if self.commit and self.has_workers:
            raise UsageError("--workers and --engine already include --commit")
        if self.address is not None and self.engine != "ray":
            raise UsageError("--address needs --engine ray", hint="add  --engine ray")

    @property
    def is_batch(self) -> bool:
        """Whether a forecast in batches is asked for."""
        return self.shard is not None or self.commit or self.has_workers

    @property
    def has_workers(self) -> bool:
        """Whether this process starts workers that forecast all buckets."""
        return self.workers is not None or self.engine is not None

    @property
    def uses_processes(self) -> bool:
        """Whether the workers are other processes of this machine."""
        return self.engine != "ray" and (self.workers or 1) > 1

    @property
    def shard_index(self) -> tuple[int, int]:
        """Index I and number N of shards; shard I has the buckets b with b mod N = I."""
        match = _SHARD.fullmatch(self.shard or "0/1")
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(
                f"--shard {self.shard} is not I/N with I below N",
                hint="the four shards of  --shard I/4  are 0/4, 1/4, 2/4 and 3/4",
            )
        return int(match[1]), int(match[2])


@dataclass(frozen=True)
class RanksConfig:
    """Ranks that train together. Those that torchrun starts need no options to find each other."""

    engine: str | None = _processes(
        None, "Launcher for multi-process training", choices=TRAINING_ENGINES, rare=True
    )
    workers: int | None = _processes(
        None, "Number of training processes (with --engine)", rare=True
    )
    address: str | None = _processes(
        None, "Address of the Ray cluster (default: a local one)", metavar="ADDRESS", rare=True
    )
    rank_timeout: str = _processes(
        "10m",
        "Abort if another process does not respond within this time",
        metavar="DURATION",
        rare=True,
    )

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid values, and for options that need each other."""
        check_choices(self)
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--workers {self.workers} must be between 1 and {MAX_WORKERS}")

        if self.engine is None and self.workers is not None:
            raise UsageError(
                "--workers needs a launcher",
                hint=f"add  --engine ray , or run  torchrun --nproc-per-node {self.workers} -m "
                "rnnforecast train ...",
            )
        if self.engine is None and self.address is not None:
            raise UsageError("--address needs --engine ray", hint="add  --engine ray")
        if self.timeout_s <= 0:
            raise UsageError(f"--rank-timeout {self.rank_timeout} must be longer than 0")

    @property
    def timeout_s(self) -> float:
        """Seconds that a rank waits for another."""
        return parse_duration_us(self.rank_timeout) / 1e6


def check_option_names(
    function: Callable[..., object], options: Mapping[str, object], *configs: object
) -> None:
    """Raise `UsageError` for a keyword argument of a function that is no option of `configs`.

    They are dataclasses of options, or of such dataclasses.
    """
    items = [name for config in configs for name in _option_names(config)]
    for name in options:
        if name in items:
            continue
        known = [*items, *(p.name for p in signature(function).parameters.values())]
        nearest = get_close_matches(name, known, n=1)
        raise UsageError(
            f"{function.__name__}() got an unexpected keyword argument {name!r}",
            code="unknown-option",
            hint=f"the nearest known one is {nearest[0]!r}"
            if nearest
            else "they are the options of the command, with underscores for hyphens",
        )


def _option_names(config: Any) -> list[str]:
    names = []
    for item in option_fields(config):
        value = getattr(config, item.name)
        names += _option_names(value) if is_dataclass(value) else [item.name]
    return names


def set_options(config: _Config, options: Mapping[str, object]) -> _Config:
    """Return a dataclass of options, or of such dataclasses, as keyword arguments set its fields.

    None leaves an option as it is. Raises `UsageError` for a value of another type.
    """
    hints, values = get_type_hints(type(config)), {}
    for item in option_fields(config):
        part, value = getattr(config, item.name), options.get(item.name)
        if is_dataclass(part):
            values[item.name] = set_options(part, options)
        elif value is not None:
            is_listed = item.metadata["listed"]
            try:
                values[item.name] = from_python(value, hints[item.name], is_listed=is_listed)
            except TypeError as error:
                raise UsageError(
                    f"{item.name} is {value!r}, of a type that it cannot have",
                    hint=f"{item.name}: {item.metadata['help']}",
                ) from error
    return replace(config, **values) if values else config  # type: ignore[type-var]


def names_of_options(explicit: Collection[str], options: Mapping[str, object]) -> set[str]:
    """Return the names of the options that a caller has set, even to their default."""
    return {*explicit, *(name for name, value in options.items() if value is not None)}


def check_format(path: str, *, allows_stream: bool = True) -> None:
    """Raise `UsageError` for a file whose name has no known format's suffix."""
    if not allows_stream or path != STANDARD_OUTPUT:
        _check_suffix(path, strip_query(path), OUTPUT_FORMATS)


def check_picture(path: str) -> None:
    """Raise `UsageError` for a picture whose name has no known format's suffix."""
    _check_suffix(path, path, PICTURE_FORMATS)


def _check_suffix(path: str, name: str, formats: tuple[str, ...]) -> None:
    if not name.lower().endswith(formats):
        raise UsageError(
            f"cannot tell the format of {path!r}",
            hint=f"use a name that ends in one of {', '.join(formats)}",
        )


def check_page(path: str) -> None:
    """Raise `UsageError` for a report whose name does not have the suffix of HTML."""
    if not path.lower().endswith(PAGE_FORMATS):
        raise UsageError(f"{path!r} is not an HTML file", hint="use a name that ends in .html")
