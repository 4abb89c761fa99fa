"""The model directory: versions, CURRENT, publish. It knows files and names, not what is in them.

A version directory never changes once it is named. Readers resolve CURRENT once and then stay with
that version, whatever is published meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rnnforecast.durable import (
    check_directory,
    collect_leftovers,
    make_directory,
    publish_directory,
    remove_directory,
    replace_pointer,
)
from rnnforecast.errors import ModelError, UsageError

CURRENT = "CURRENT"
VERSIONS = "versions"
LOCK = ".lock"
_YOUNG = timedelta(hours=1)
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def publish_version(model: Path, files: Mapping[str, bytes], *, now: datetime) -> str:
    """Save a new version and return its name. It is not in force yet: see `put_in_force`."""
    versions = model / VERSIONS
    make_directory(versions)
    digest = hashlib.sha256(repr(now).encode())
    for content in files.values():
        digest.update(content)
    name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest.hexdigest()[:6]}"
    publish_directory(versions / name, files)
    return name


def check_place(model: Path) -> None:
    """Raise `WriteError` where a model could not be saved: before the work, not after it."""
    check_directory(model / VERSIONS)


def put_in_force(model: Path, version: str) -> None:
    """Make a saved version the one that readers use."""
    replace_pointer(model / CURRENT, version)


def resolve_version(model: Path, version: str | None = None) -> Path:
    """Return a version's directory: the named one, or the one in force, or `ModelError`."""
    if not _is_directory(model):
        raise ModelError(
            f"there is no model at {model}",
            code="no-model",
            hint="train one first with  rnnforecast train DATA , or pass its folder with  --model",
        )
    name = _read_current(model) if version is None else version
    if not _NAME.fullmatch(name):
        if version is not None:
            raise UsageError(f"{version!r} is not the name of a version", hint=_known(model))
        raise ModelError(
            f"{model / CURRENT} does not name a version", code="damaged-model", hint=_known(model)
        )
    directory = model / VERSIONS / name
    if directory.is_symlink() or not _is_directory(directory):
        raise ModelError(
            f"{model} has no version {name}", code="no-such-version", hint=_known(model)
        )
    return directory


def name_in_force(model: Path) -> str | None:
    """Return the version in force; None where versions are saved, but none is in force."""
    try:
        return resolve_version(model).name
    except ModelError:
        if not list_versions(model):
            raise
        return None


def list_versions(model: Path) -> list[str]:
    """Return the names of all saved versions, oldest first."""
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


def collect(model: Path) -> None:
    """Remove what killed writers have left; the lock must be held."""
    collect_leftovers(model)
    collect_leftovers(model / VERSIONS)


def _read_current(model: Path) -> str:
    try:
        if not stat.S_ISREG((model / CURRENT).stat().st_mode):  # a pipe would wait for ever
            return ""
        with (model / CURRENT).open("rb") as file:
            return file.read(200).decode("ascii", "replace").strip()
    except OSError as error:
        if list_versions(model):
            raise ModelError(
                f"no version of {model} is in force",
                code="no-version-in-force",
                hint=f"name one with  --version ; {_known(model)}",
            ) from error
        raise ModelError(
            f"{model} is not a model directory: {CURRENT} cannot be read ({error.strerror})",
            code="no-model",
            hint="pass the folder that `rnnforecast train` wrote with  --model",
        ) from error


def _is_directory(path: Path) -> bool:
    """Whether there is a directory that can be looked at; `Path.is_dir` raises where it cannot."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _known(model: Path) -> str:
    versions = list_versions(model)
    return (
        f"saved versions: {', '.join(versions[-5:])}" if versions else "no version is saved there"
    )
