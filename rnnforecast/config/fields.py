"""Options as dataclass fields, and mappings decoded strictly into dataclasses."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar, get_args, get_origin

from rnnforecast.errors import UsageError

_MAX_DEPTH = 12
_T = TypeVar("_T")


def option(
    default: Any,
    help: str,  # noqa: A002
    *names: str,
    choices: tuple[str, ...] = (),
    listed: bool = False,
) -> Any:
    """Describe one field that is an option on the command line: its help and short names.

    A tuple is an option that may be repeated, or, if `listed`, one list with commas.
    """
    metadata = {"help": help, "names": names, "choices": choices, "listed": listed}
    return field(default=default, metadata=metadata)


def options_of(config: Any) -> list[str]:
    """Return the command-line options that say what differs from the defaults, word by word."""
    words = []
    for item in fields(config):
        value, name = getattr(config, item.name), f"--{item.name.replace('_', '-')}"
        if value == item.default:
            continue
        if value is True:
            words.append(name)
        elif item.metadata.get("listed"):
            words += [name, ",".join(map(str, value))]
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [name, str(one)]
    return words


def check_choices(config: Any) -> None:
    """Raise `UsageError` for a field whose value is none of its choices."""
    for item in fields(config):
        choices = item.metadata.get("choices")
        value = getattr(config, item.name)
        chosen = value if isinstance(value, tuple) else (value,)
        for choice in chosen:
            if choices and choice is not None and choice not in choices:
                name = item.name.replace("_", "-")
                raise UsageError(f"--{name} is {choice!r}, but must be one of {', '.join(choices)}")


def parse_json(content: bytes) -> dict[str, Any]:
    """Parse JSON strictly: no duplicate keys, NaN or deep nesting; else ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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


def _check_depth(value: Any, deepest: int) -> None:
    if not deepest:
        raise ValueError("nested too deeply")
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            _check_depth(child, deepest - 1)


def to_json(value: Mapping[str, Any]) -> bytes:
    """Write JSON in ASCII: a path need not be text, and then has no UTF-8."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def build(cls: type[_T], values: dict[str, Any], hints: dict[str, Any]) -> _T:
    """Make a dataclass from JSON: no field unknown, lists as tuples.

    Only what has a default may be missing: an option that came after the artifact.
    """
    if not isinstance(values, dict) or not set(values) <= set(hints):
        raise ValueError(f"{cls.__name__} has other fields: {sorted(set(values) - set(hints))}")
    missing = {f.name for f in fields(cls) if f.default is MISSING} - set(values)  # type: ignore[arg-type]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {sorted(missing)}")
    for name, value in values.items():
        if not is_of(value, hints[name]):
            raise ValueError(f"{name} is {value!r}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def is_of(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what a field of this type holds."""
    options = get_args(hint)
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(is_of(part, options[0]) for part in value)
    if options:
        return any(is_of(value, option) for option in options)
    return type(value) is hint or (hint is float and type(value) is int)


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the run's key: a hash of all that decides what it forecasts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
