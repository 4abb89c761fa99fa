"""The Typer application; shared arguments; options from dataclasses and TOML."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, is_dataclass
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer

import rnnforecast
from rnnforecast._version import __version__
from rnnforecast.cli.completion import (
    complete_choices,
    complete_columns,
    complete_versions,
    while_completing,
)
from rnnforecast.cli.console import Screen
from rnnforecast.cli.help import Command, Group, metavar_of, show_all
from rnnforecast.config.fields import (
    FieldError,
    check_keys,
    decode,
    option,
    option_fields,
    read_toml,
)
from rnnforecast.config.reading import COLUMN
from rnnforecast.config.training import BUILTIN_MODEL, STANDARD_OUTPUT
from rnnforecast.errors import Proposal, UsageError
from rnnforecast.storage.durable import check_not_overwriting
from rnnforecast.system import user_id
from rnnforecast.urls import is_url, parse_database

if TYPE_CHECKING:
    from rnnforecast.workflow.model import Model

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="File, folder, quoted glob, URL, database, or - for standard input"
    ),
]
OptionalData = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", help="Data to forecast from (default: re-read the training file)"
    ),
]


_model = partial(typer.Option, rich_help_panel="Model")


def model_option(description: str) -> Any:
    """Return the option that names a model."""
    return _model("--model", "-m", metavar="DIR", help=description)


def output_option(description: str, metavar: str = "FILE") -> Any:
    """Return the option that names the file or the folder of the result."""
    return typer.Option(
        "--output", "-o", metavar=metavar, help=description, rich_help_panel="Output"
    )


ModelDirectory = Annotated[str, model_option("Model directory")]
ModelPath = Annotated[str, model_option("Model directory, or builtin for the built-in network")]
Version = Annotated[
    str | None,
    _model(
        metavar="NAME",
        help="Model version to use (default: the active one)",
        autocompletion=while_completing(complete_versions),
    ),
]
TrustSource = Annotated[
    bool,
    _model(
        "--trust-source",
        help="Without DATA: read the source that the model names, wherever it is",
        hidden=True,
    ),
]
CONFIG_FILE = "rnnforecast.toml"
_OUTPUTS = ("output", "rejects", "report")
_MODEL_WRITERS = ("train", "use")
"""Commands that write to the model directory."""
_TRUSTED_OWNERS = (0,)
"""Whose file of options counts like one's own: root's."""
_INPUTS = ("data", "exclude", "forecast", "future", "ledger", "model")


def make_app(commands: Iterable[Callable[..., None]]) -> typer.Typer:
    """Return the application; its help lists the commands in this order."""
    app = typer.Typer(
        name="rnnforecast",
        cls=Group,
        rich_markup_mode=None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "auto_envvar_prefix": "RNNFORECAST",
        },
    )
    app.callback()(root)
    for command in commands:
        app.command(cls=Command)(command)
    return app


def _show_version(is_set: bool) -> None:  # noqa: FBT001
    if is_set:
        Screen().result(f"rnnforecast {__version__}")
        raise typer.Exit


def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_version,
            help="Show the version and exit",
            allow_from_autoenv=False,  # many images set RNNFORECAST_VERSION to something else
        ),
    ] = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", is_eager=True, callback=show_all, hidden=True)
    ] = False,
) -> None:
    """Forecast sensor readings with recurrent networks."""


@dataclass(frozen=True)
class CommonOptions:
    """Options of every command."""

    quiet: bool = option(False, "Suppress progress and notes (results still go to stdout)", "-q")
    verbose: bool = option(False, "Verbose output; show tracebacks", "-v")
    json: bool = option(False, "Print the result as JSON")
    no_color: bool = option(False, "Disable colours")
    config: Path | None = option(
        None, "Read options from a TOML file (default: ./rnnforecast.toml)"
    )
    help_all: bool = option(False, "Show all options and their environment variables")


class Explicit(frozenset[str]):
    """Names of the options that the user has set, even to their default.

    A command with a parameter of this type also takes a `typer.Context` called context.
    """


def load_optional_model(model: str | None, version: str | None) -> Model | None:
    """Load a model that the command can do without; None where no path is given."""
    if model is None and version is not None:
        raise UsageError("--version needs a model", hint="add  --model DIR")
    return None if model is None else rnnforecast.load(model, version=version)


def load_or_builtin(model: str, version: str | None) -> Model | str:
    """Load a model; return the name of the built-in network as it is."""
    if model == BUILTIN_MODEL and version is None:
        return model
    return rnnforecast.load(model, version=version)


def configure_screen(context: typer.Context, common: CommonOptions) -> Screen:
    """Configure the screen of this run, and check that no result overwrites the options' file."""
    screen: Screen = context.obj
    screen.is_quiet, screen.is_verbose, screen.is_json = common.quiet, common.verbose, common.json
    screen.has_color = not common.no_color and not os.environ.get("NO_COLOR")

    for name in _written_options(context):
        path, file = context.params[name], common.config or Path(CONFIG_FILE)
        check_not_overwriting(Path(path), file, "the options")
        source = context.get_parameter_source(name)
        if common.config is None and source is not None and source.name == "DEFAULT_MAP":
            _check_in_folder(name, path)
    return screen


def _written_options(context: typer.Context) -> list[str]:
    """Return the options of a command that name what it writes."""
    names = [*_OUTPUTS, *(["model"] if context.info_name in _MODEL_WRITERS else [])]
    return [name for name in names if isinstance(context.params.get(name), str | Path)]


def _check_in_folder(name: str, path: str | Path) -> None:
    """Raise `UsageError` for an output that `rnnforecast.toml` of a foreign folder may not name.

    The file is read because it lies in the working directory, so somebody else may have written
    it: it names files below it alone, and none where it belongs to another user.
    """
    if str(path) == STANDARD_OUTPUT:
        return
    folder, owner = Path.cwd(), Path(CONFIG_FILE).stat().st_uid
    is_inside = not is_url(str(path)) and Path(path).resolve().is_relative_to(folder.resolve())
    if is_inside and owner in (*_TRUSTED_OWNERS, user_id()):
        return
    reason = "is outside this folder" if not is_inside else "is set by another user's file"
    raise UsageError(
        f"{CONFIG_FILE} in {folder} names {name} = {str(path)!r}, which {reason}; nothing was "
        "written",
        code="foreign-options",
        proposals=[
            Proposal((f"--{name}", str(path)), "to write it anyway"),
            Proposal(("--config", CONFIG_FILE), "if you trust the file"),
        ],
    )


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with one option for each field of its parameters that are dataclasses.

    A parameter of type `Explicit` gets the names of the options that the user has set.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {
        p.name: p.annotation for p in parameters if is_dataclass(p.annotation)
    }
    explicit = [p.name for p in parameters if p.annotation is Explicit]
    plain = [p for p in parameters if p.name not in (*groups, *explicit)]
    expanded = [p for cls in groups.values() for p in _parameters(cls)]

    @wraps(command)
    def call(**values: Any) -> None:  # Typer passes by keyword what the signature below declares
        arguments = {p.name: values[p.name] for p in plain}
        for name, cls in groups.items():
            group = {item.name: values[item.name] for item in option_fields(cls)}
            try:
                arguments[name] = decode(cls, group, get_type_hints(cls), _from_option)
            except FieldError as error:
                raise UsageError(
                    f"--{error.name} takes comma-separated numbers, not {error.value!r}"
                ) from error

        for name in explicit:
            context: typer.Context = values["context"]
            sources = {key: context.get_parameter_source(key) for key in context.params}
            arguments[name] = Explicit(
                key for key, source in sources.items() if source and source.name != "DEFAULT"
            )
        command(**arguments)

    declared = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*plain, *expanded)]
    call.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in declared}
    return call


@cache
def _parameters(cls: Any) -> tuple[inspect.Parameter, ...]:
    """Return the fields of a dataclass as Typer options; cached, for commands share dataclasses."""
    hints = get_type_hints(cls)
    parameters = []
    for item in option_fields(cls):
        spelling = item.name.rstrip("_").replace("_", "-")  # from_ is --from, a keyword of Python
        hint, default = hints[item.name], cast(Any, item.default)
        settings = _settings(item, hint)
        if item.metadata["listed"]:
            hint, default = str, ",".join(map(str, default))
        elif isinstance(default, tuple):
            hint, default = list[str], list(default)

        names = (f"--{spelling}", *item.metadata["names"])
        parameters.append(
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[hint, typer.Option(*names, **settings)],
            )
        )
    return tuple(parameters)


def _settings(item: Field[Any], hint: Any) -> dict[str, Any]:
    """Return what Typer is told of an option: help, metavar, heading, completion, callback."""
    choices, is_listed = item.metadata["choices"], item.metadata["listed"]
    metavar = item.metadata["metavar"] or metavar_of(hint, choices, is_listed=is_listed)
    settings: dict[str, Any] = {
        "help": item.metadata["help"],
        "metavar": metavar,
        "rich_help_panel": item.metadata["group"],
        "hidden": item.metadata["is_rare"],
    }

    if choices:
        complete = complete_choices(choices, is_listed=is_listed)
        settings["autocompletion"] = while_completing(complete)
    elif metavar == COLUMN:
        settings["autocompletion"] = while_completing(complete_columns)
    if item.name in _CALLBACKS:
        settings |= {"is_eager": True, "callback": _CALLBACKS[item.name]}
    return settings


def _from_option(value: Any, hint: Any) -> Any:
    """Convert a value from Typer to that of a field: a list, or text with commas, to a tuple."""
    if get_origin(hint) is not tuple:
        return value
    if not isinstance(value, str):
        return tuple(value or ())
    parts = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(map(get_args(hint)[0], parts))


def load_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the command's table in a TOML file its defaults; environment variables come first.

    Paths in the file are relative to its folder.
    """
    file = path or Path(CONFIG_FILE)
    if context.resilient_parsing:  # completion
        return path
    if path is None and not os.path.isfile(file):  # noqa: PTH113 - no error
        return path

    try:
        tables = read_toml(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {file}: {error}", code="config-file") from error

    command, name = context.command, context.info_name
    commands = getattr(context.find_root().command, "commands", {})
    check_keys(tables, commands, f"{file} has an unknown table")
    table = tables.get(str(name), {})
    if not isinstance(table, dict):
        raise UsageError(
            f"{file}: {name} must be a table, not {table!r}",
            hint=f"write [{name}] on its own line and its options below it",
        )

    known = {p.name.rstrip("_"): (p.name, p.multiple) for p in command.params if p.name}
    values = {str(key).replace("-", "_"): value for key, value in table.items()}
    check_keys(values, known.keys() - {*_CALLBACKS}, f"{file}: [{name}] has an unknown key")

    defaults: dict[str, Any] = {}
    for key, value in values.items():
        if key in (*_INPUTS, *_OUTPUTS) and isinstance(value, str):
            value = _relative_to(file.parent, value)  # noqa: PLW2901
        parameter, is_repeatable = known[key]
        if is_repeatable:
            defaults[parameter] = value if isinstance(value, list) else [value]
        else:
            defaults[parameter] = ",".join(map(str, value)) if isinstance(value, list) else value
    context.default_map = {**defaults, **(context.default_map or {})}
    return path


def _relative_to(folder: Path, path: str) -> str:
    """Return a path in a file of this folder; a URL, a database and `-` stay as they are."""
    is_elsewhere = is_url(path) or parse_database(path) is not None or path == STANDARD_OUTPUT
    return path if is_elsewhere or folder == Path() else str(folder / path)


_CALLBACKS: dict[str, Callable[..., object]] = {"config": load_config_file, "help_all": show_all}
"""Options that act before all others are looked at."""
