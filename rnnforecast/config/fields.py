"""Dataclass fields as options; strict JSON; strict decoding of mappings into dataclasses."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import operator
import os
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, replace
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, TypeVar, get_args, get_origin, get_type_hints

from rnnforecast.errors import UsageError
from rnnforecast.process import open_regular

_MAX_DEPTH = 12
"""Deepest nesting of JSON objects and lists that is accepted."""
_MAX_TOML_BYTES = 1 << 20
"""No file of options is larger: a thousand names of columns take 20 KB."""
_T = TypeVar("_T")


def option(
    default: Any,
    help: str,  # noqa: A002
    *names: str,
    choices: tuple[str, ...] = (),
    listed: bool = False,
    metavar: str | None = None,
    group: str = "General",
    rare: bool = False,
) -> Any:
    """Return a dataclass field that is an option on the command line: help, short names, choices.

    An option with a tuple may be repeated or, if `listed`, takes one text with commas. `group` is
    the heading it stands under in the help, `metavar` what its value is called there; a `rare`
    option is listed by `--help-all` alone.
    """
    metadata = {
        "help": help,
        "names": names,
        "choices": choices,
        "listed": listed,
        "metavar": metavar,
        "group": group,
        "is_rare": rare,
    }
    return field(default=default, metadata=metadata)


def resolved(default: Any) -> Any:
    """Return a dataclass field that is no option: it is filled in from what options name."""
    return field(default=default, metadata={"is_resolved": True})


def option_fields(config: Any) -> list[Field[Any]]:
    """Return the fields of a dataclass, or of an instance, that a user may set."""
    return [item for item in fields(config) if not item.metadata.get("is_resolved")]


def to_arguments(config: Any) -> list[str]:
    """Return the command-line arguments that set the fields which differ from their defaults."""
    arguments = []
    for item in option_fields(config):
        value, name = getattr(config, item.name), f"--{item.name.replace('_', '-')}"
        if value == item.default:
            continue

        if value is True:
            arguments.append(name)
        elif item.metadata.get("listed"):
            arguments += [name, ",".join(map(str, value))]
        else:
            for part in value if isinstance(value, tuple) else (value,):
                arguments += [name, str(part)]
    return arguments


def add_arguments(config: _T, arguments: Sequence[str]) -> tuple[_T, list[str]]:
    """Return a config with command-line arguments added, and those that name no field of it.

    A repeatable option gets one more value, any other one its new value. Raises `UsageError` for
    values that the config refuses.
    """
    hints = get_type_hints(type(config))
    items = {f"--{item.name.replace('_', '-')}": item for item in option_fields(config)}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    words = iter(arguments)
    for word in words:
        item = items.get(word)
        if item is None:
            unknown.append(word)
            continue

        hint = hints[item.name]
        if hint is bool:
            values[item.name] = True
        elif get_origin(hint) is tuple and item.metadata.get("listed"):
            values[item.name] = tuple(part for part in next(words, "").split(",") if part)
        elif get_origin(hint) is tuple:
            before = values.get(item.name, getattr(config, item.name))
            values[item.name] = tuple(dict.fromkeys((*before, next(words, ""))))
        else:
            values[item.name] = inner_type(hint)(next(words, ""))
    return replace(config, **values), unknown  # type: ignore[type-var]


def check_choices(config: Any) -> None:
    """Raise `UsageError` for a field whose value is not among its choices; None is allowed."""
    for item in fields(config):
        choices = item.metadata.get("choices")
        value = getattr(config, item.name)
        for choice in value if isinstance(value, tuple) else (value,):
            if choices and choice is not None and choice not in choices:
                name = item.name.replace("_", "-")
                raise UsageError(f"--{name} is {choice!r}, but must be one of {', '.join(choices)}")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a file of options, without waiting where it is a pipe or endless.

    Raises `OSError` where it cannot be read, and `ValueError` where it is no TOML.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_TOML_BYTES:
            raise ValueError(f"it has {size} bytes; at most {_MAX_TOML_BYTES} are allowed")
        # Files of the kernel have no size, and reading some of them waits.
        content = file.read(size) if size else b""
    try:
        return tomllib.loads(content.decode().removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_json(content: bytes, *, max_keys: int | None = None) -> dict[str, Any]:
    """Parse a JSON object.

    Raises `ValueError` for duplicate keys, NaN, deep nesting, and an object of more than `max_keys`
    keys.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if max_keys is not None and len(pairs) > max_keys:
            raise ValueError(f"an object has {len(pairs)} keys; at most {max_keys} are allowed")
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a number")

    def finite(text: str) -> float:
        return value if math.isfinite(value := float(text)) else refuse(text)

    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=refuse,
            parse_float=finite,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    _check_depth(value, _MAX_DEPTH)
    return value


def _check_depth(value: Any, depth_left: int) -> None:
    if not depth_left:
        raise ValueError("nested too deeply")
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, dict | list):
            _check_depth(child, depth_left - 1)


def to_json(value: Mapping[str, Any]) -> bytes:
    """Return JSON in ASCII: a path that is not valid Unicode has no UTF-8 form."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


class FieldError(ValueError):
    """A value that does not fit the type of its dataclass field."""

    def __init__(self, name: str, value: Any, hint: Any) -> None:
        super().__init__(f"{name} is {value!r}")
        self.name, self.value, self.hint = name, value, hint


def check_keys(keys: Iterable[str], known: Collection[str], subject: str) -> None:
    """Raise `UsageError` for a key that is not known, and name the nearest known one.

    Keys may have hyphens for underscores. `subject` begins the message: "FILE has an unknown key".
    """
    for key in keys:
        if key.replace("-", "_") not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            kind = "tables" if subject.endswith("table") else "keys"
            hint = (
                f"did you mean {nearest[0]!r}?"
                if nearest
                else f"known {kind}: {', '.join(sorted(known))}"
            )
            raise UsageError(f"{subject} {key!r}", code="unknown-key", hint=hint)


def inner_type(hint: Any) -> Any:
    """Return the type of a field that may be None, or that of the items of a tuple."""
    options = (option for option in get_args(hint) if option is not type(None))
    return next(options, hint)


def from_json(value: Any, hint: Any) -> Any:
    """Convert a value of JSON to a field of this type, which is exact: only lists become tuples."""
    if not has_type(value, hint):
        raise TypeError(f"{value!r} is not {hint}")
    return tuple(value) if isinstance(value, list) else value


def has_type(value: Any, hint: Any) -> bool:
    """Tell whether a value of JSON has the type of a field."""
    options = get_args(hint)
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(has_type(part, options[0]) for part in value)
    if options:
        return any(has_type(value, option) for option in options)
    return type(value) is hint or (hint is float and type(value) is int)


def from_toml(value: Any, hint: Any) -> Any:
    """Convert a value of TOML to a field of this type; people may write 24 for text, or one item.

    Raises `TypeError` for a value of another type.
    """
    expected = inner_type(hint)
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(from_toml(item, expected) for item in items)

    if expected is bool or isinstance(value, bool):  # a bool is an int, but is not meant as one
        if expected is bool and isinstance(value, bool):
            return value
    elif expected is float and isinstance(value, int | float):
        return float(value)
    elif expected is str and isinstance(value, str | int | float):
        return str(value)
    elif expected is int and isinstance(value, int):
        return value
    raise TypeError(f"{value!r} is not {hint}")


def from_python(value: Any, hint: Any, *, is_listed: bool = False) -> Any:
    """Convert a keyword argument to a field of this type, as people write them in Python.

    One item stands for several, a mapping for `name=value` or `name=low:high`, a list for a text
    with commas where the field is one text, and a number, a path, a time or a duration for text.
    Raises `TypeError` for a value of another type.
    """
    expected = inner_type(hint)
    if get_origin(hint) is tuple:
        if isinstance(value, str) and is_listed:
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, Mapping):
            value = [f"{name}={_range_text(item)}" for name, item in value.items()]
        elif isinstance(value, str) or not isinstance(value, Iterable):
            value = [value]
        return tuple(from_python(item, expected) for item in value)

    if isinstance(value, bool) or expected is bool:
        if expected is bool and isinstance(value, bool):
            return value
    elif expected is int and isinstance(value, SupportsIndex):
        return operator.index(value)
    elif expected is float and isinstance(value, SupportsFloat) and not isinstance(value, str):
        return float(value)
    elif expected is str:
        return _as_text(value)
    raise TypeError(f"{value!r} is not {hint}")


def _as_text(value: Any) -> str:
    """Write a value as the command line takes it. Raises `TypeError` for one that has no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, PathLike):
        return str(os.fspath(value))
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)}us"
    if isinstance(value, list | tuple):
        return ",".join(map(_as_text, value))
    if isinstance(value, SupportsIndex):
        return str(operator.index(value))
    if isinstance(value, float):
        return str(value)
    raise TypeError(f"{value!r} is not a string")


def _range_text(value: Any) -> str:
    """Write what a mapping names: a value, or two limits of which either may be None."""
    if not isinstance(value, list | tuple):
        return _as_text(value)
    return ":".join("" if limit is None else _as_text(limit) for limit in value)


def decode(
    cls: type[_T],
    values: Mapping[str, Any],
    hints: Mapping[str, Any],
    convert: Callable[[Any, Any], Any] = from_json,
) -> _T:
    """Decode a mapping into a dataclass whose fields have these types.

    `convert(value, hint)` raises for a value of another type. A field with a default may be
    missing. Raises `FieldError` for a value that does not fit, `ValueError` for unknown and missing
    fields, and what the dataclass itself raises.
    """
    if not isinstance(values, dict) or not set(values) <= set(hints):
        raise ValueError(f"{cls.__name__} has other fields: {sorted(set(values) - set(hints))}")
    missing = {f.name for f in fields(cls) if f.default is MISSING} - set(values)  # type: ignore[arg-type]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {sorted(missing)}")

    converted = {}
    for name, value in values.items():
        try:
            converted[name] = convert(value, hints[name])
        except (TypeError, ValueError) as error:
            raise FieldError(name, value, hints[name]) from error
    return cls(**converted)


def hash_facts(facts: Mapping[str, Any]) -> str:
    """Return the key of a run: a hash of all facts that its forecast depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
