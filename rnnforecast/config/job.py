"""A job file: TOML decoded strictly into dataclasses."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rnnforecast.config.commands import check_format
from rnnforecast.config.fields import (
    FieldError,
    check_choices,
    check_keys,
    decode,
    from_toml,
    inner_type,
    option,
    option_fields,
    read_toml,
)
from rnnforecast.config.reading import DataConfig, parse_bytes
from rnnforecast.config.training import BUILTIN_MODEL, DEFAULT_MODEL, PredictConfig
from rnnforecast.errors import Proposal, UsageError
from rnnforecast.units import check_range, parse_duration_us
from rnnforecast.urls import check_not_collapsed, is_url, parse_database, parse_url

_T = TypeVar("_T")
_TABLES = (
    "job",
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
_OPTION = re.compile(r"(?<!\w)--([a-z][a-z-]*)")
"""The name of an option, which is a key in a job file."""
_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
AS_OF = "{as_of}"
"""Placeholder for the time of the forecast in the file name of an output."""


@dataclass(frozen=True)
class JobPart:
    """What the job is called."""

    name: str | None = None
    """Its name in messages, the log and metrics; by default that of the job file."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a name that no label could show."""
        if self.name is not None and not (self.name.isprintable() and 0 < len(self.name) <= 200):
            raise UsageError(f"name is {self.name!r}, but must have 1 to 200 characters")


@dataclass(frozen=True)
class ModelPart:
    """Which model forecasts."""

    path: str = DEFAULT_MODEL
    version: str | None = None
    """The version to use; by default the active one."""


@dataclass(frozen=True)
class LogPart:
    """Where and how a run is logged."""

    file: str | None = None
    format: str = option("json", "", choices=("json", "text"))
    max_size: str = "16M"
    """Size at which the log is rotated; the previous log is kept as `file.1`."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a size that is none."""
        _ = self.max_bytes

    @property
    def max_bytes(self) -> int:
        """The size in bytes."""
        return parse_bytes("max_size", self.max_size)


@dataclass(frozen=True)
class KeepPart:
    """How many outputs and versions are kept, and how much of the ledger; None keeps all."""

    forecasts: int | None = None
    versions: int | None = None
    ledger: str | None = None
    """Age of the forecasts that the ledger keeps, before the newest reading: 400d."""
    pinned: tuple[str, ...] = ()
    """Versions that are never removed."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for numbers out of range."""
        check_range("forecasts", self.forecasts, 1, 10**6)
        check_range("versions", self.versions, 1, 10**6)
        if self.ledger is not None:
            parse_duration_us(self.ledger)


@dataclass(frozen=True)
class NotifyPart:
    """What to run after a failure."""

    on_failure: tuple[str, ...] = ()
    """A command and its arguments; it gets the message on standard input."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a command in one text: it would be the name of a program."""
        if len(self.on_failure) == 1 and " " in (text := self.on_failure[0]):
            arguments = ", ".join(f'"{argument}"' for argument in text.split())
            raise UsageError(
                f"on_failure is {text!r}, but must be a list of strings",
                hint=f"write [{arguments}]",
            )


@dataclass(frozen=True)
class RetrainPart:
    """When a challenger is trained on newer readings, and when it replaces the active version."""

    every: str | None = None
    """Span of new readings, since the last training or attempt, after which one is due: 7d."""
    when: str | None = option(None, "", choices=("drift",))
    promote_if: str = "1%"
    """Share by which its MASE must be below that of the active version, on the same windows."""
    hold_out: float = 0.5
    """Share of the newer readings that both are compared on."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid durations and shares."""
        if self.every is not None:
            parse_duration_us(self.every)
        check_range("hold_out", self.hold_out, 0.1, 0.9)
        _ = self.margin

    @property
    def margin(self) -> float:
        """`promote_if` as a share between 0 and 1."""
        match = re.fullmatch(r"(\d{1,2}(?:\.\d+)?) *%", self.promote_if)
        if match is None:
            raise UsageError(
                f"promote_if is {self.promote_if!r}, but must be a percentage such as '1%'"
            )
        return float(match[1]) / 100


@dataclass(frozen=True)
class Job:
    """A validated job file; its paths are relative to the working directory."""

    path: Path
    source: str
    output: str
    label: str | None = None
    """The name that the file gives the job."""
    reading: DataConfig = field(default_factory=DataConfig)
    explicit: frozenset[str] = frozenset()
    """Options of [data] that the file sets, even to their default."""
    model: ModelPart = field(default_factory=ModelPart)
    forecast: PredictConfig = field(default_factory=PredictConfig)
    ledger: str | None = None
    log: LogPart = field(default_factory=LogPart)
    textfile: str | None = None
    keep: KeepPart = field(default_factory=KeepPart)
    notify: NotifyPart = field(default_factory=NotifyPart)
    retrain: RetrainPart = field(default_factory=RetrainPart)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The content of the file."""

    @property
    def name(self) -> str:
        """The name of the job in messages and metrics."""
        return self.label or self.path.stem

    @property
    def lock(self) -> Path:
        """The file that a run locks: in the ledger or, without a ledger, next to the output.

        Without a ledger each output has its own lock, because two jobs may write to one folder.
        """
        if self.ledger is not None:
            return Path(self.ledger) / ".lock"
        output = Path(self.output)
        return output.parent / f".{output.name}.lock"

    def output_path(self, as_of: str) -> Path:
        """Return the path of the forecast that is issued for this time."""
        return Path(self.output.replace(AS_OF, as_of))


@dataclass(frozen=True)
class _LedgerPart:
    path: str | None = None


@dataclass(frozen=True)
class _MetricsPart:
    textfile: str | None = None


def read_job(path: Path) -> Job:
    """Read a job file. Paths in it are relative to its folder.

    Raises `UsageError`, which names the table and the key, for a file that is missing or invalid.
    """
    tables, folder = _read_tables(path), path.parent
    data, forecast = dict(tables.get("data", {})), dict(tables.get("forecast", {}))
    source = _pop_path(path, data, "data", "source")
    database = parse_database(source)
    if database is not None:
        source = str(replace(database, path=_resolve(database.path, folder)))
    elif is_url(source):
        source = str(parse_url(source))
    else:  # glob characters in the job's folder are literal
        is_glob = glob.has_magic(source) and not _place(source, folder).exists()
        source = _resolve(source, Path(glob.escape(str(folder))) if is_glob else folder)
    output = _resolve(_pop_path(path, forecast, "forecast", "output"), folder)
    _check_output(path, output)

    def decode_part(cls: type[_T], name: str) -> _T:
        return _decode_table(cls, tables.get(name, {}), path, name)

    reading = _decode_table(DataConfig, data, path, "data")
    ledger = decode_part(_LedgerPart, "ledger").path
    textfile = decode_part(_MetricsPart, "metrics").textfile
    log, model = decode_part(LogPart, "log"), decode_part(ModelPart, "model")
    _check_model(path, model, tables)
    if model.path != BUILTIN_MODEL:
        model = replace(model, path=_resolve_input(model.path, folder))
    return Job(
        path=path,
        source=source,
        output=output,
        label=decode_part(JobPart, "job").name,
        reading=_resolve_fields(reading, ("exclude", "rejects"), folder),
        explicit=frozenset(key.replace("-", "_") for key in data),
        model=model,
        forecast=_decode_forecast(forecast, tables.get("fresh", {}), path),
        ledger=ledger and _resolve(ledger, folder),
        log=_resolve_fields(log, ("file",), folder),
        textfile=textfile and _resolve(textfile, folder),
        keep=decode_part(KeepPart, "keep"),
        notify=decode_part(NotifyPart, "notify"),
        retrain=decode_part(RetrainPart, "retrain"),
        tables=tables,
    )


def _read_tables(path: Path) -> dict[str, Any]:
    """Read the tables of a job file by name. Raises `UsageError`."""
    check_not_collapsed(str(path))
    try:
        tables = read_toml(path)
    except FileNotFoundError as error:
        raise UsageError(
            f"job file {path} does not exist",
            code="no-job",
            hint="check the path, or write one with  rnnforecast init DATA",
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", code="job-file") from error

    check_keys(tables, _TABLES, f"{path} has an unknown table")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(
                f"{path}: {name} must be a table",
                hint=f"write [{name}] on its own line and its keys below it",
            )
        _check_texts(table, f"{path}: [{name}]")
    return tables


def name_keys(text: str, job: Job) -> str:
    """Return a text that names keys of the job file instead of the options that they set.

    `--max-age 3h` becomes `max_age = 3h in [fresh] of job.toml`.
    """
    for table, values in job.tables.items():
        for key, value in values.items():
            option, spelling = f"--{key.replace('_', '-')}", key.replace("-", "_")
            where = f"in [{table}] of {job.path.name}"
            text = text.replace(f"{option} {value}", f"{spelling} = {value} {where}")
            text = re.sub(rf"{re.escape(option)}(?![\w-])", f"{spelling} {where}", text)
    return text


@dataclass(frozen=True)
class KeyProposal(Proposal):
    """Options that may solve a problem of a job, named as keys of its file."""

    keys: str = ""

    def __str__(self) -> str:
        effect = f"  ({self.effect})" if self.effect else ""
        return f"{self.condition + ', ' if self.condition else ''}write  {self.keys}{effect}"

    @classmethod
    def of(cls, proposal: Proposal, job: Job) -> Proposal:
        """Return a proposal with the keys of [data] for its options; others as they are."""
        hints, values = get_type_hints(DataConfig), dict[str, list[str]]()
        for text in proposal.options:
            if text.startswith("--"):
                values.setdefault(text.removeprefix("--").replace("-", "_"), [])
            elif values:
                values[next(reversed(values))].append(text)
        if not values or not values.keys() <= hints.keys():
            return proposal

        keys = []
        for name, texts in values.items():
            if get_origin(hints[name]) is tuple:
                before = job.tables.get("data", {}).get(name, [])
                value = json.dumps([*(before if isinstance(before, list) else []), *texts])
            elif texts and str in (hints[name], *get_args(hints[name])):
                value = json.dumps(texts[0])
            else:
                value = texts[0] if texts else "true"
            keys.append(f"{name} = {value}")
        text = f"{' and '.join(keys)}  in [data] of {job.path.name}"
        return cls(proposal.options, proposal.condition, proposal.effect, text)


def _check_texts(table: Mapping[str, Any], subject: str) -> None:
    """Raise `UsageError` for NUL, which no path or argument can hold, and for a duplicate key."""
    spellings: dict[str, str] = {}
    for key, value in table.items():
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, str) and "\0" in item for item in items):
            raise UsageError(f"{subject}: {key} contains a NUL character", hint="remove it")
        first = spellings.setdefault(key.replace("-", "_"), key)
        if first != key:
            raise UsageError(f"{subject} has both {first} and {key}", hint="remove one of them")


def _pop_path(path: Path, table: dict[str, Any], name: str, key: str) -> str:
    """Remove a required path from a table, and return it."""
    value = table.pop(key, None)
    if not isinstance(value, str) or not value or value == "-":
        raise UsageError(
            f"{path}: [{name}] must have {key}, the path of a file",
            hint=f'e.g.  {key} = "{"readings.csv" if key == "source" else "forecast.csv"}"',
        )
    return value


def _check_output(path: Path, output: str) -> None:
    check_format(output, allows_stream=False)
    name = Path(output).name.replace(AS_OF, "")
    if re.search(r"[{}]", name) or AS_OF in str(Path(output).parent):
        raise UsageError(
            f"{path}: [forecast] output is {output!r}, but {AS_OF} is the only placeholder, "
            "and only in the file name"
        )


def _check_model(path: Path, model: ModelPart, tables: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a job that changes the versions of a model on an object store."""
    keep = {"keep"} if "versions" in tables.get("keep", {}) else set()
    changing = sorted(keep | ({"retrain"} & tables.keys()))
    if model.path == BUILTIN_MODEL and (changing or model.version is not None):
        raise UsageError(
            f"{path}: [{'model' if model.version else changing[0]}] needs a trained model, but "
            "the built-in network has no versions",
            hint='train a model and name its directory:  [model]  and below it  path = "model"',
        )
    if is_url(model.path) and changing:
        raise UsageError(
            f"{path}: [{changing[0]}] changes the model, and {parse_url(model.path)} has no lock",
            code="not-on-a-store",
            hint="train on one machine and activate the version there",
        )


def _decode_forecast(table: dict[str, Any], fresh: dict[str, Any], path: Path) -> PredictConfig:
    """Return the options of the tables [forecast] and [fresh] together."""
    ages = ("max_age", "warn_age")
    known = [f.name for f in fields(PredictConfig) if f.name not in (*ages, "as_of")]
    check_keys(table, known, f"{path}: [forecast] has an unknown key")
    check_keys(fresh, ages, f"{path}: [fresh] has an unknown key")

    config = _decode_table(PredictConfig, table, path, "forecast")
    limits = _decode_table(PredictConfig, fresh, path, "fresh")
    config = replace(config, max_age=limits.max_age, warn_age=limits.warn_age)
    return replace(config, future=config.future and _resolve_input(config.future, path.parent))


def _decode_table(cls: type[_T], table: Mapping[str, Any], path: Path, name: str) -> _T:
    """Decode a table, whose keys may have hyphens, into a dataclass. Raises `UsageError`."""
    hints = get_type_hints(cls)
    known = [item.name for item in option_fields(cls)]
    check_keys(table, known, f"{path}: [{name}] has an unknown key")
    values = {key.replace("-", "_"): value for key, value in table.items()}
    try:
        part = decode(cls, values, hints, from_toml)
        check_choices(part)

    except FieldError as error:
        expected = _TYPE_NAMES[inner_type(error.hint)]
        if get_origin(error.hint) is tuple:
            expected = f"a list of {'numbers' if expected == 'a number' else 'texts'}"
        raise UsageError(f"{path}: [{name}]: {error}, but must be {expected}") from None

    except UsageError as error:
        key = next((key for key in values if _is_invalid(cls, key, values[key])), "")
        where = f"{path}: [{name}]: " + (
            "" if key in error.message.replace("-", "_") else f"{key}: "
        )
        message = _OPTION.sub(lambda match: match[1].replace("-", "_"), error.message)
        raise UsageError(f"{where}{message}", hint=error.hint) from error
    return part


def _is_invalid(cls: type[Any], key: str, value: Any) -> bool:
    """Tell whether a value is invalid by itself, whatever the other fields are."""
    try:
        decode(cls, {key: value}, get_type_hints(cls), from_toml)
    except UsageError:
        return True
    return False


def _resolve_input(path: str, folder: Path) -> str:
    """Return a path or a URL that is only read."""
    return str(parse_url(path)) if is_url(path) else _resolve(path, folder)


def _resolve_fields(part: _T, names: tuple[str, ...], folder: Path) -> _T:
    paths = {name: getattr(part, name) for name in names}
    resolved = {name: _resolve(path, folder) for name, path in paths.items() if path is not None}
    return replace(part, **resolved)  # type: ignore[type-var]


def _resolve(path: str, folder: Path) -> str:
    """Return a path that is relative to the job's folder or, with `~/`, to the user's home.

    Raises `UsageError` for a path that the file system's encoding does not have, and for a URL:
    what a job writes relies on file names on a disk.
    """
    if is_url(path):
        raise UsageError(
            f"a job cannot write to {parse_url(path)}: its outputs must be on this machine",
            code="not-on-a-store",
            hint="use a local path and copy the forecast afterwards",
        )
    resolved = str(_place(path, folder))
    try:
        os.fsencode(resolved)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the path {path!r} cannot be encoded in this locale's {error.encoding}",
            hint="set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename the file",
        ) from error
    return resolved


def _place(path: str, folder: Path) -> Path:
    return Path.home() / path[2:] if path.startswith("~/") else folder / path


# To which job a file belongs, also after a job has been moved, or mounted elsewhere. A job's name
# is no identity: `job.toml` lies in many folders. Its path is none either, because a folder that
# is moved, copied or mounted elsewhere takes manifest, ledger and log with it. So each of these
# records the job's path twice: absolute, and from the folder of the record.
JOB, FROM_HERE, OUTPUT, LABEL = "job", "job_from_here", "output_from_here", "job_name"
"""Keys of a record: the job file, absolute and from the record's folder; the output, from there;
and the name that the job file gives the job."""


def describe_owner(job: Job, folder: Path) -> dict[str, Any]:
    """Return what a record in this folder says about the job that it belongs to."""
    return {
        JOB: str(job.path.resolve()),
        FROM_HERE: path_from(folder, job.path),
        OUTPUT: path_from(folder, Path(job.output)),
        LABEL: job.label,
    }


def path_from(folder: Path, path: Path) -> str:
    """Return a path relative to a folder; links in both are resolved."""
    return os.path.relpath(path.resolve(), folder.resolve())


def belongs_to(job: Job, record: Mapping[str, Any], folder: Path) -> bool:
    """Tell whether a record in this folder is that of the job.

    It is where the names that the job files give differ in nothing, and the job file lies at the
    recorded path, or as far from the folder as it did. Elsewhere it is the job's only if no file
    lies at the recorded path any more, and the job has the recorded name, file name or output: it
    was moved. A record that names no job belongs to everybody.
    """
    path, name = record.get(JOB), record.get(LABEL)
    if not isinstance(path, str):
        return True
    if None not in (name, job.label) and name != job.label:
        return False

    from_here = record.get(FROM_HERE)
    if path == str(job.path.resolve()) or from_here == path_from(folder, job.path):
        return True
    recorded = [Path(path)] + ([folder / from_here] if isinstance(from_here, str) else [])
    are_same = [is_same for place in recorded if (is_same := _is_file_of(job, place)) is not None]
    if are_same:
        return any(are_same)

    has_output = record.get(OUTPUT) == path_from(folder, Path(job.output))
    has_name = job.label is not None and name == job.label
    return has_name or has_output or Path(path).name == job.path.name


def _is_file_of(job: Job, place: Path) -> bool | None:
    """Tell whether a place is that of the job's file, by another name; None where no file is there.

    A folder that is mounted twice shows one file under two names. What may not be looked at is
    another's.
    """
    try:
        return place.samefile(job.path)
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        return None if is_gone and not os.path.lexists(place) else False
