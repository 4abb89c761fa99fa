"""The Typer application; shared arguments; options from dataclasses and TOML."""

from __future__ import annotations

import difflib
import inspect
import os
import tomllib
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

import rnnforecast
from rnnforecast._version import __version__
from rnnforecast.cli.console import Screen
from rnnforecast.config.fields import option
from rnnforecast.errors import UsageError
from rnnforecast.storage.durable import check_spared

if TYPE_CHECKING:
    from rnnforecast.workflow.model import Model

app = typer.Typer(
    name="rnnforecast",
    help="Forecasts of sensor readings with recurrent networks.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "RNNFORECAST",
    },
)
Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="CSV, Parquet, a folder, a glob in quotes, a URL, or -"),
]
AgainData = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", help="Newer readings. Default: what the model was trained on."
    ),
]
ModelPath = Annotated[
    str, typer.Option("--model", "-m", metavar="PATH", help="The model directory.")
]
Version = Annotated[str | None, typer.Option(help="A saved version. Default: the one in force.")]
CONFIG_FILE = "rnnforecast.toml"
PARTIAL = 3


def _show_version(wanted: bool) -> None:  # noqa: FBT001
    if wanted:
        Screen().result(f"rnnforecast {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_version,
            help="Show the version and exit.",
            show_envvar=False,
            allow_from_autoenv=False,  # RNNFORECAST_VERSION says other things in many images
        ),
    ] = False,
) -> None:
    """Forecasts of sensor readings with recurrent networks."""


def saved(model: str | None, version: str | None) -> Model | None:
    """Load the model that a command may do without."""
    if model is None and version is not None:
        raise UsageError("--version names one of a model's", hint="add  --model DIR")
    return None if model is None else rnnforecast.load(model, version=version)


def screen_of(context: typer.Context, common: CommonOptions) -> Screen:
    """Set the screen that this run has to what the options say; no result goes over their file."""
    screen: Screen = context.obj
    screen.is_quiet, screen.is_verbose, screen.is_json = common.quiet, common.verbose, common.json
    screen.has_color = not common.no_color and "NO_COLOR" not in os.environ
    for name in ("output", "rejects", "report"):
        if not isinstance(context.params.get(name), bool | None):
            path, file = Path(context.params[name]), common.config or Path(CONFIG_FILE)
            check_spared(path, file, "the options")
    return screen


@dataclass(frozen=True)
class CommonOptions:
    """What every command takes."""

    quiet: bool = option(False, "Say only what went wrong.", "-q")
    verbose: bool = option(False, "Say more; show the trace of a bug.", "-v")
    json: bool = option(False, "One JSON document on standard output, nothing else there.")
    no_color: bool = option(False, "No colour.")
    config: Path | None = option(None, "Options from this TOML file. Default: rnnforecast.toml.")


class Given(frozenset[str]):
    """Names of the options that were given, be it their default, and not left to it.

    A command that takes it takes a `typer.Context`, too, called context.
    """


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Expand the parameters of a command that are dataclasses into one option a field.

    One that is `Given` becomes the names of those that the user has given.
    """
    groups = _groups_of(command)
    own = inspect.signature(command, eval_str=True).parameters.values()
    told = [parameter.name for parameter in own if parameter.annotation is Given]
    plain = [parameter for parameter in own if parameter.name not in (*groups, *told)]
    expanded = [parameter for cls in groups.values() for parameter in _parameters(cls)]

    @wraps(command)
    def call(**given: Any) -> None:
        values = {parameter.name: given[parameter.name] for parameter in plain}
        for name, cls in groups.items():
            values[name] = cls(**{i.name: _value(given[i.name], i) for i in fields(cls)})
        for name in told:
            values[name] = _given_in(given["context"])
        command(**values)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*plain, *expanded)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _is_there(file: Path) -> bool:
    """Tell whether there is a file; in a folder that this user may not look into there is none."""
    try:
        return file.is_file()
    except OSError:
        return False


def load_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's table for this command its defaults, below the environment's."""
    file = path or Path(CONFIG_FILE)
    if path is None and not _is_there(file):
        return path
    try:
        with file.open("rb") as opened:
            tables = tomllib.load(opened)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}", code="config-file") from error
    root = context.find_root().command
    _check_keys(tables, set(getattr(root, "commands", {})), what=f"{file} has a table")
    given = tables.get(str(context.info_name), {})
    if not isinstance(given, dict):
        raise UsageError(
            f"{context.info_name} in {file} is {given!r}, not a table",
            hint=f"write [{context.info_name}] on a line of its own, and its options below",
        )
    known = {p.name.rstrip("_"): p.name for p in context.command.params if p.name}
    table = {str(k).replace("-", "_"): v for k, v in given.items()}
    _check_keys(table, set(known) - {"config"}, what=f"[{context.info_name}] in {file} has a key")
    named = {known[key]: value for key, value in table.items()}
    listed = {key: _listed(value, key, context) for key, value in named.items()}
    context.default_map = {**listed, **(context.default_map or {})}
    return path


def _listed(value: Any, key: str, context: typer.Context) -> Any:
    """Give a list option its list as text with commas, and a repeatable one a list."""
    is_repeatable = any(p.name == key and p.multiple for p in context.command.params)
    if is_repeatable:
        return value if isinstance(value, list) else [value]
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _check_keys(given: dict[str, Any], known: set[str], *, what: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"the nearest known one is {near[0]!r}" if near else f"known: {sorted(known)}"
            raise UsageError(f"{what} {key!r} that is not known", code="unknown-key", hint=hint)


def _given_in(context: typer.Context) -> Given:
    """Tell which options come from the command line, the environment or a file."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return Given(name for name, source in sources.items() if source and source.name != "DEFAULT")


def _groups_of(command: Callable[..., None]) -> dict[str, Any]:
    hints = get_type_hints(command)
    return {name: hint for name, hint in hints.items() if is_dataclass(hint)}


@cache
def _parameters(cls: Any) -> tuple[inspect.Parameter, ...]:
    """Return the fields of a group as Typer options; several commands have the same group."""
    hints = get_type_hints(cls)
    return tuple(_parameter(item, hints[item.name]) for item in fields(cls))


def _parameter(item: Field[Any], hint: Any) -> inspect.Parameter:
    """One field as a Typer option."""
    spelled = item.name.rstrip("_").replace("_", "-")  # from is a word of Python
    names = [f"--{spelled}", *item.metadata["names"]]
    choices = item.metadata["choices"]
    text = item.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
    eager: dict[str, Any] = {}
    if item.name == "config":
        eager = {"is_eager": True, "callback": load_config_file}
    default: Any = item.default
    if item.metadata["listed"]:
        hint, default = str, ",".join(map(str, default))
    elif isinstance(default, tuple):
        hint, default = list[str], list(default)
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[hint, typer.Option(*names, help=text, **eager)],
    )


def _value(given: Any, item: Field[Any]) -> Any:
    """Turn what Typer gives back into what the field holds."""
    if not item.metadata["listed"]:
        return tuple(given or ()) if isinstance(item.default, tuple) else given
    parts = [part.strip() for part in given.split(",") if part.strip()]
    default: tuple[Any, ...] = item.default  # type: ignore[assignment]
    if not isinstance(next(iter(default), None), float):
        return tuple(parts)
    try:
        return tuple(float(part) for part in parts)
    except ValueError as error:
        raise UsageError(f"--{item.name} takes numbers with commas, not {given!r}") from error
