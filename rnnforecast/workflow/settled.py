"""How a saved version reads: as its own readings were, but for what the user says otherwise now.

What its network has learnt to see cannot be said otherwise: the covariates and the calendar.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rnnforecast.config import changes_of, override
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import UsageError

if TYPE_CHECKING:
    from rnnforecast.model.artifact import Artifact

_SETTLED = ("known", "past", "static", "categorical", "calendar", "holidays")


def reading_of(
    artifact: Artifact, config: DataConfig | None = None, given: Collection[str] = ()
) -> DataConfig:
    """Return how a saved version reads, with what differs from the defaults in `config`.

    Fields named in `given` hold although they equal their defaults. Raises `UsageError` for what
    the version has settled in another way, and for a counter that is none of its targets.
    """
    from rnnforecast.data.schema import check_counters

    stored = artifact.config.data
    if config is None:
        return stored
    changes = changes_of(config, given)
    for name in _SETTLED:
        if name in changes and not _is_same(changes[name], getattr(stored, name)):
            raise _settled(name, changes[name], getattr(stored, name))
    if "counter" in changes:
        check_counters(config.target or artifact.schema.targets, config)
    kept = {name: getattr(stored, name) for name in _SETTLED}
    return override(stored, replace(config, **kept), given)


def _is_same(wanted: Any, stored: Any) -> bool:
    """Tell whether two values mean the same; the order of what is listed means nothing."""
    if isinstance(wanted, tuple):
        return set(wanted) == set(stored)
    return bool(wanted == stored)


def _settled(name: str, wanted: Any, stored: Any) -> UsageError:
    has = f"with {_words(name, stored)}" if stored else f"without --{name}"
    return UsageError(
        f"the model was trained {has}, and cannot take {_words(name, wanted)}",
        hint=f"leave out --{name}, or train again with what you want",
    )


def _words(name: str, value: Any) -> str:
    """Write an option as it is typed; one that is repeated with commas for short."""
    shown = ", ".join(value) if isinstance(value, tuple) else value
    return f"--{name} {shown or repr('')}"
