"""A model directory: its versions, the active one, retention."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rnnforecast.errors import ModelError, UsageError, WriteError
from rnnforecast.storage.durable import collect_leftovers, remove_directory
from rnnforecast.storage.publish import (
    check_directory,
    make_directory,
    publish_directory,
    remove_below,
    replace_pointer,
)
from rnnforecast.storage.remote import Place, Remote, list_below

CURRENT = "CURRENT"
VERSIONS = "versions"
LOCK = ".lock"
_LAST = "manifest.json"
_YOUNG = timedelta(hours=1)
_ABANDONED = timedelta(days=1)
"""So old is what was left on a store, where no lock says whether it is still being written."""
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
_TRAIN = "train one first with  rnnforecast train DATA , or pass its folder with  --model"


def publish_version(model: Place, files: Mapping[str, bytes], *, now: datetime) -> str:
    """Save a new version and return its name. It is not in force yet: see `put_in_force`."""
    versions = model / VERSIONS
    make_directory(versions)
    digest = hashlib.sha256(repr(now).encode())
    for content in files.values():
        digest.update(content)
    name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest.hexdigest()[:6]}"
    publish_directory(versions / name, files)
    return name


def check_place(model: Place) -> None:
    """Raise `WriteError` where a model could not be saved: before the work, not after it."""
    check_directory(model / VERSIONS)


def put_in_force(model: Place, version: str) -> None:
    """Make a saved version the one that readers use."""
    replace_pointer(model / CURRENT, version)


def resolve_version(model: Place, version: str | None = None) -> Place:
    """Return a version's directory: the named one, or the one in force, or `ModelError`."""
    if isinstance(model, Path) and not _is_directory(model):
        raise ModelError(
            f"there is no model at {model}",
            code="no-model",
            hint=_TRAIN,
        )
    name = _read_current(model) if version is None else version
    if not _NAME.fullmatch(name):
        if version is not None:
            raise UsageError(f"{version!r} is not the name of a version", hint=_known(model))
        raise ModelError(
            f"{model / CURRENT} does not name a version", code="damaged-model", hint=_known(model)
        )
    directory = model / VERSIONS / name
    if not _is_version(directory):
        raise ModelError(
            f"{model} has no version {name}", code="no-such-version", hint=_known(model)
        )
    return directory


def name_in_force(model: Place) -> str | None:
    """Return the version in force; None where versions are saved, but none is in force."""
    try:
        return resolve_version(model).name
    except ModelError:
        if not list_versions(model):
            raise
        return None


def list_versions(model: Place) -> list[str]:
    """Return the names of all saved versions, oldest first."""
    if isinstance(model, Remote):
        return sorted(name for name, files in _versions_on(model).items() if _LAST in files)
    try:
        with os.scandir(model / VERSIONS) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name))


def retire_versions(model: Path, *, keep: int, pinned: Collection[str], now: datetime) -> list[str]:
    """Remove all versions but the newest `keep`; return what is gone. The lock must be held.

    The version in force stays, those that are pinned, and what is younger than an hour. Nothing
    goes within an hour of a change of which is in force, as a reader may still have resolved the
    one before, nor while the clock is behind what it has shown, nor where CURRENT leads to
    no version.
    """
    names = list_versions(model)
    in_force = name_in_force(model) if names else None
    if in_force is None:
        return []
    young = f"{now.astimezone(UTC) - _YOUNG:%Y%m%dT%H%M%SZ}"
    changed = datetime.fromtimestamp((model / CURRENT).stat().st_mtime, UTC)
    if names[-1] > f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}~" or now < changed + _YOUNG:
        return []
    kept = {*names[-keep:], *pinned, in_force}
    gone = [name for name in names if name not in kept and name < young]
    for name in gone:
        remove_directory(model / VERSIONS / name)
    return gone


def collect(model: Place) -> None:
    """Remove what killed writers have left; the lock must be held.

    On a store, where there is none, that is what has been without a manifest for a day.
    """
    if isinstance(model, Remote):
        begun = f"{datetime.now(UTC) - _ABANDONED:%Y%m%dT%H%M%SZ}"
        with suppress(ModelError, WriteError):  # who may neither list nor delete may still write
            for name, files in _versions_on(model).items():
                if _LAST not in files and name < begun:
                    remove_below(model / VERSIONS / name)
        return
    collect_leftovers(model)
    collect_leftovers(model / VERSIONS)


def _read_current(model: Place) -> str:
    if isinstance(model, Remote):
        return _read_current_on(model)
    try:
        if not stat.S_ISREG((model / CURRENT).stat().st_mode):  # a pipe would wait for ever
            return ""
        with (model / CURRENT).open("rb") as file:
            return file.read(200).decode("ascii", "replace").strip()
    except OSError as error:
        if list_versions(model):
            raise _not_in_force(model) from error
        raise ModelError(
            f"{model} is not a model directory: {CURRENT} cannot be read ({error.strerror})",
            code="no-model",
            hint="pass the folder that `rnnforecast train` wrote with  --model",
        ) from error


def _not_in_force(model: Place) -> ModelError:
    return ModelError(
        f"no version of {model} is in force",
        code="no-version-in-force",
        hint=f"name one with  --version ; {_known(model)}",
    )


def _read_current_on(model: Remote) -> str:
    """Do the same on a store, where a folder is nothing but the objects in it."""
    try:
        with (model / CURRENT).open() as file:
            return file.read(200).decode("ascii", "replace").strip()
    except FileNotFoundError as error:
        if list_versions(model):
            raise _not_in_force(model) from error
        raise ModelError(f"there is no model at {model}", code="no-model", hint=_TRAIN) from error
    except OSError as error:
        raise _unreachable(model, error) from error


def _versions_on(model: Remote) -> dict[str, set[str]]:
    """Return the names of the files of each version that a store holds, whole or not."""
    found: dict[str, set[str]] = {}
    folder = model / VERSIONS
    try:
        for place in list_below(folder):
            name, *rest = place.parts_below(folder)
            if _NAME.fullmatch(name):
                found.setdefault(name, set()).add("/".join(rest))
    except OSError as error:
        raise _unreachable(model, error) from error
    return found


def _is_version(directory: Place) -> bool:
    if isinstance(directory, Path):
        return not directory.is_symlink() and _is_directory(directory)
    try:
        return (directory / _LAST).is_file()
    except OSError as error:
        raise _unreachable(directory, error) from error


def _unreachable(place: Remote, error: OSError) -> ModelError:
    return ModelError(
        f"the model at {place} cannot be read: {error.strerror}",
        code="unreachable-model",
        hint="check the URL, the credentials in the environment, and the network",
    )


def _is_directory(path: Path) -> bool:
    """Whether there is a directory that can be looked at; `Path.is_dir` raises where it cannot."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _known(model: Place) -> str:
    versions = list_versions(model)
    return (
        f"saved versions: {', '.join(versions[-5:])}" if versions else "no version is saved there"
    )
