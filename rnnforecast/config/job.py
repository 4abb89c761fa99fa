"""A job file: TOML read strictly into dataclasses."""

from __future__ import annotations

import difflib
import glob
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rnnforecast.config.commands import check_format
from rnnforecast.config.fields import check_choices, option
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL, PredictConfig
from rnnforecast.errors import UsageError
from rnnforecast.units import check_range, parse_duration_us
from rnnforecast.urls import check_not_collapsed, is_url, parse_url

_T = TypeVar("_T")
_TABLES = (
    "data",
    "model",
    "forecast",
    "fresh",
    "ledger",
    "log",
    "metrics",
    "keep",
    "notify",
    "retrain",
)
AS_OF = "{as_of}"
"""In the name of an output it stands for the time of the forecast."""


def read_job(path: Path) -> Job:
    """Read a job file. Raises `UsageError` for one that cannot be meant, and names the key."""
    check_not_collapsed(str(path))
    tables = _read_tables(path)
    _check_keys(tables, _TABLES, f"{path} has a table")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table", hint=f"write [{name}] on a line")
        _check_texts(table, f"[{name}] in {path}")
    data, forecast = dict(tables.get("data", {})), dict(tables.get("forecast", {}))
    place = path.parent
    source = _source_of(_take(path, data, "data", "source"), place)
    output = _placed(_take(path, forecast, "forecast", "output"), place)
    _check_output(path, output)
    reading = _section(DataConfig, data, path, "data")
    ledger = _section(_Ledger, tables.get("ledger", {}), path, "ledger")
    textfile = _section(_Metrics, tables.get("metrics", {}), path, "metrics").textfile
    log = _section(LogPart, tables.get("log", {}), path, "log")
    model = _section(ModelPart, tables.get("model", {}), path, "model")
    _check_model(path, model, tables)
    return Job(
        path=path,
        source=source,
        output=output,
        reading=_with_places(reading, ("exclude", "rejects"), place),
        given=frozenset(key.replace("-", "_") for key in data),
        model=replace(model, path=_placed_anywhere(model.path, place)),
        forecast=_forecast_of(forecast, tables.get("fresh", {}), path),
        ledger=ledger.path and _placed(ledger.path, place),
        log=_with_places(log, ("file",), place),
        textfile=textfile and _placed(textfile, place),
        keep=_section(KeepPart, tables.get("keep", {}), path, "keep"),
        notify=_section(NotifyPart, tables.get("notify", {}), path, "notify"),
        retrain=_section(RetrainPart, tables.get("retrain", {}), path, "retrain"),
        tables=tables,
    )


@dataclass(frozen=True)
class _Ledger:
    path: str | None = None


@dataclass(frozen=True)
class _Metrics:
    textfile: str | None = None


def _read_tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise UsageError(f"there is no job file {path}", code="no-job") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", code="job-file") from error


def _check_texts(table: Mapping[str, Any], where: str) -> None:
    """Raise `UsageError` for what no path and no argument can hold, and for a key that is twice."""
    spelt: dict[str, str] = {}
    for key, value in table.items():
        each = value if isinstance(value, list) else [value]
        if any(isinstance(one, str) and "\0" in one for one in each):
            raise UsageError(f"{where}: {key} holds a NUL character", hint="take it out")
        other = spelt.setdefault(key.replace("-", "_"), key)
        if other != key:
            raise UsageError(f"{where} has both {other} and {key}", hint="leave out one")


def _source_of(source: str, place: Path) -> str:
    """Return where a source lies: a pattern is one by its own marks, not by its folder's."""
    if is_url(source):
        return str(parse_url(source))
    if not glob.has_magic(source) or (place / source).exists():
        return _placed(source, place)
    return _placed(source, Path(glob.escape(str(place))))


def _check_output(path: Path, output: str) -> None:
    check_format(output, allows_stream=False)
    name = Path(output).name.replace(AS_OF, "")
    if re.search(r"[{}]", name) or AS_OF in str(Path(output).parent):
        raise UsageError(
            f"{path}: [forecast] output is {output!r}, but only {AS_OF} can stand for something, "
            "in the name of the file"
        )


def _check_model(path: Path, model: ModelPart, tables: Mapping[str, Any]) -> None:
    """Raise `UsageError` for versions that come and go on a store, where there is no lock."""
    keeps = {"keep"} if "versions" in tables.get("keep", {}) else set()
    wanting = sorted(keeps | ({"retrain"} & tables.keys()))
    if is_url(model.path) and wanting:
        raise UsageError(
            f"{path}: [{wanting[0]}] changes the model, and {parse_url(model.path)} has no lock",
            code="not-on-a-store",
            hint="let one machine train it, and put the version in force there",
        )


def _forecast_of(table: dict[str, Any], fresh: dict[str, Any], path: Path) -> PredictConfig:
    """Return what the tables [forecast] and [fresh] say together."""
    ages = ("max_age", "warn_age")
    others = [f.name for f in fields(PredictConfig) if f.name not in (*ages, "as_of")]
    _check_keys(table, others, f"[forecast] in {path} has a key")
    _check_keys(fresh, ages, f"[fresh] in {path} has a key")
    config, limits = (
        _section(PredictConfig, each, path, name)
        for each, name in ((table, "forecast"), (fresh, "fresh"))
    )
    config = replace(config, max_age=limits.max_age, warn_age=limits.warn_age)
    return replace(config, future=config.future and _placed_anywhere(config.future, path.parent))


def _take(path: Path, table: dict[str, Any], name: str, key: str) -> str:
    """Take a text out of a table that must have it."""
    value = table.pop(key, None)
    if not isinstance(value, str) or not value or value == "-":
        raise UsageError(
            f"{path}: [{name}] must have {key}, the path of a file",
            hint=f'such as  {key} = "{"readings.csv" if key == "source" else "forecast.csv"}"',
        )
    return value


def _placed_anywhere(path: str, place: Path) -> str:
    """Return where a path or a URL leads, of what is only read."""
    return str(parse_url(path)) if is_url(path) else _placed(path, place)


def _placed(path: str, place: Path) -> str:
    """Return where a path leads that is relative to the job file, if a file can be called so.

    Raises `UsageError` for a URL: what a job writes counts by names on a disk.
    """
    if is_url(path):
        raise UsageError(
            f"a job cannot use {parse_url(path)} there: what it writes, and its small files, are "
            "on this machine",
            code="not-on-a-store",
            hint="name a path, and copy the forecast afterwards",
        )
    placed = str(place / path)
    try:
        os.fsencode(placed)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the path {path!r} cannot be written in {error.encoding}, as this locale asks for",
            hint="set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or name the file otherwise",
        ) from error
    return placed


def _with_places(part: _T, names: tuple[str, ...], place: Path) -> _T:
    found = {name: getattr(part, name) for name in names}
    changed = {name: _placed(path, place) for name, path in found.items() if path is not None}
    return replace(part, **changed)  # type: ignore[type-var]


def _section(cls: type[_T], table: Mapping[str, Any], path: Path, name: str) -> _T:
    """Make a dataclass of a table; its keys may be written with hyphens."""
    values = {key.replace("-", "_"): value for key, value in table.items()}
    hints = get_type_hints(cls)
    _check_keys(table, tuple(hints), f"[{name}] in {path} has a key")
    try:
        made = {key: _value(value, hints[key]) for key, value in values.items()}
    except TypeError:
        wrong = next(key for key, value in values.items() if not _fits(value, hints[key]))
        raise UsageError(
            f"[{name}] in {path}: {wrong} is {values[wrong]!r}, but must be {_kind(hints[wrong])}"
        ) from None
    try:
        section = cls(**made)
        check_choices(section)
    except UsageError as error:
        key = next((key for key in made if _is_at_fault(cls, key, made[key])), "")
        where = f"[{name}] in {path}: " + (
            "" if key in error.message.replace("-", "_") else f"{key}: "
        )
        raise UsageError(f"{where}{error.message}", hint=error.hint) from error
    return section


def _is_at_fault(cls: type[Any], key: str, value: Any) -> bool:
    """Tell whether a key cannot be meant, whatever the others are."""
    try:
        cls(**{key: value})
    except UsageError:
        return True
    return False


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...] | list[str], what: str) -> None:
    for key in table:
        if key.replace("-", "_") not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"the nearest known one is {near[0]!r}" if near else f"known: {sorted(known)}"
            raise UsageError(f"{what} {key!r} that is not known", code="unknown-key", hint=hint)


def _value(value: Any, hint: Any) -> Any:
    """Turn a value of TOML into that of a field; `TypeError` where it is of another kind."""
    options = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is tuple:
        each = value if isinstance(value, list) else [value]
        return tuple(_value(one, options[0]) for one in each)
    wanted = options[0] if options else hint
    if wanted is bool or isinstance(value, bool):
        if wanted is bool and isinstance(value, bool):
            return value
    elif wanted is float and isinstance(value, int | float):
        return float(value)
    elif wanted is str and isinstance(value, str | int | float):
        return str(value)
    elif wanted is int and isinstance(value, int):
        return value
    raise TypeError(wanted)


def _fits(value: Any, hint: Any) -> bool:
    try:
        _value(value, hint)
    except TypeError:
        return False
    return True


def _kind(hint: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    options = [one for one in get_args(hint) if one in names]
    if get_origin(hint) is tuple:
        return f"a list of {'numbers' if options == [float] else 'texts'}"
    return names[options[0] if options else hint]


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
