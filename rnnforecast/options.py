"""From configuration to command signatures: each field of a group becomes one option.

A command takes its groups as parameters annotated with their dataclasses; `with_options` expands
them into what Typer reads, and puts them together again when the command is called. Help, defaults
and choices stand once, at the fields of `config`. Precedence is the command line, the environment
(`RNNFORECAST_TRAIN_HORIZON`), a TOML file (one table for each command), the default.
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from rnnforecast.errors import UsageError
from rnnforecast.fields import option

CONFIG_FILE = "rnnforecast.toml"


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
