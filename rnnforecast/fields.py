"""What a field of the configuration says of itself: its help as an option, its choices.

Below `config`, whose dataclasses are made of such fields, and `options`, which makes the options of
a command of them. Standard library only.
"""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from rnnforecast.errors import UsageError


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
