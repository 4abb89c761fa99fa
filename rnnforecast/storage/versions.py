"""A model directory: its versions, the active one, retention."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rnnforecast.errors import ModelError, UsageError, WriteError
from rnnforecast.storage.durable import remove_directory, remove_stale_temps
from rnnforecast.storage.publish import (
    check_directory,
    make_directory,
    publish_directory,
    remove_tree,
    replace_pointer,
)
from rnnforecast.storage.remote import AnyPath, RemotePath, is_remote, list_objects

CURRENT = "CURRENT"
VERSIONS = "versions"
LATEST, PREVIOUS = "latest", "previous"
"""Names for the newest version, and for the one that was active before the one that is."""
LOCK = ".lock"
_LAST_FILE = "manifest.json"
"""Written last: on a store a version counts once it is there."""
_RETENTION = timedelta(hours=1)
"""How long a reader may go on reading the version that it has resolved."""
_ABANDONED = timedelta(days=1)
"""An incomplete version on a store is removed at this age: no lock says if it is being written."""
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
_NAME_FORMAT = "%Y%m%dT%H%M%SZ"
_CANNOT_BE_READ = ("unreadable-model", "unreachable-model")
"""Codes of errors that leave open which version is active."""
_HINT_TRAIN = (
    "train one with  rnnforecast train DATA , pass its directory with  --model , or forecast "
    "with  rnnforecast predict DATA --model builtin"
)


def publish_version(model: AnyPath, files: Mapping[str, bytes], *, now: datetime) -> str:
    """Save a new version and return its name; `activate_version` makes it the active one."""
    versions = model / VERSIONS
    make_directory(versions)
    digest = hashlib.sha256(repr(now).encode())
    for content in files.values():
        digest.update(content)
    name = f"{now.astimezone(UTC):{_NAME_FORMAT}}-{digest.hexdigest()[:6]}"
    publish_directory(versions / name, files)
    return name


def check_writable(model: AnyPath) -> None:
    """Raise `WriteError` where a model could not be saved: before the work, not after it."""
    check_directory(model / VERSIONS)


def activate_version(model: AnyPath, version: str) -> None:
    """Make a saved version the one that readers use."""
    replace_pointer(model / CURRENT, version)


def resolve_version(model: AnyPath, version: str | None = None) -> AnyPath:
    """Return the directory of a version; None is the active one.

    `latest`, `previous` (the newest before the active one, without challengers that lost) and an
    unambiguous prefix of a name are versions, too. Raises `ModelError` where there is no such
    version, `UsageError` for what is no version's name.
    """
    if not is_remote(model) and not os.path.isdir(model):  # noqa: PTH112 - a name may be too long
        raise ModelError(f"no model found in '{model}'", code="no-model", hint=_HINT_TRAIN)

    name = _read_current(model) if version is None else _complete_name(model, version)
    if not _NAME.fullmatch(name):
        raise ModelError(
            f"{model / CURRENT} does not contain a version name",
            code="damaged-model",
            hint=_saved_versions(model),
        )

    directory = model / VERSIONS / name
    if not _is_version(directory):
        raise ModelError(
            f"{model} has no version {name}", code="no-such-version", hint=_saved_versions(model)
        )
    return directory


def _complete_name(model: AnyPath, version: str) -> str:
    """Return the name of the version that a user names; raise `UsageError` where none matches."""
    if _NAME.fullmatch(version):
        return version
    names = list_versions(model)
    if version == LATEST:
        matching = names[-1:]
    elif version == PREVIOUS:
        active = _read_current(model)
        matching = [n for n in names if n < active and not _has_lost(model / VERSIONS / n)][-1:]
    else:
        matching = [name for name in names if version and name.startswith(version)]

    if len(matching) == 1:
        return matching[0]
    if version == PREVIOUS:
        problem = "there is no version before the active one"
    elif matching:
        problem = f"{version!r} is ambiguous: {len(matching)} versions start with it"
    else:
        problem = f"{version!r} is not a version name, nor {LATEST} or {PREVIOUS}"
    raise UsageError(problem, hint=_saved_versions(model))


def active_version(model: AnyPath) -> str | None:
    """Return the active version; None where versions are saved, but none is active."""
    try:
        return resolve_version(model).name
    except ModelError as error:
        if error.code in _CANNOT_BE_READ or not list_versions(model):
            raise
        return None


def list_versions(model: AnyPath) -> list[str]:
    """Return the names of all saved versions, oldest first.

    Raises `ModelError` where they cannot be listed.
    """
    if is_remote(model):
        return sorted(name for name, files in _list_files(model).items() if _LAST_FILE in files)
    try:
        with os.scandir(model / VERSIONS) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(model / VERSIONS, error) from error
    return sorted(name for name in names if _NAME.fullmatch(name))


def retire_versions(model: Path, *, keep: int, pinned: Collection[str], now: datetime) -> list[str]:
    """Remove all versions but the newest `keep`; return those removed. The lock must be held.

    Challengers that lost do not count, and of them the newest stays: it tells when the next is due.
    The active version stays, and so do pinned ones and those younger than an hour. Nothing is
    removed within an hour after another version became active, as a reader may still have resolved
    the one before, nor while the clock is behind the time of the newest version, nor where CURRENT
    names no version. A version that is ahead of the clock although the folder of all was changed
    since, by a clock that was not, stays and does not count among the newest.
    """
    names = list_versions(model)
    active = active_version(model) if names else None
    ahead = versions_ahead(model, now=now)
    if active is None or active in ahead:
        return []
    activated = datetime.fromtimestamp((model / CURRENT).stat().st_mtime, UTC)
    changed = datetime.fromtimestamp((model / VERSIONS).stat().st_mtime, UTC)
    if now < activated + _RETENTION or (ahead and now < changed):
        return []

    names = names[: len(names) - len(ahead)]
    oldest_young = f"{now.astimezone(UTC) - _RETENTION:{_NAME_FORMAT}}"
    lost = [name for name in names if _has_lost(model / VERSIONS / name)]
    winners = [name for name in names if name not in lost]
    retained = {*winners[-keep:], *lost[-1:], *pinned, active}
    retired = [name for name in names if name not in retained and name < oldest_young]
    for name in retired:
        remove_directory(model / VERSIONS / name)
    return retired


def _has_lost(directory: AnyPath) -> bool:
    """Tell whether a version is a challenger that was trained and did not become active."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        with (directory / _LAST_FILE).open("rb") as file:
            manifest = json.load(file)
        return manifest["provenance"]["challenge"]["promoted"] is False
    return False


def versions_ahead(model: AnyPath, *, now: datetime) -> list[str]:
    """Return the versions that were made later than the clock is, by the times in their names."""
    # A tilde sorts after the dash that follows the time in a name.
    newest = f"{now.astimezone(UTC):{_NAME_FORMAT}}~"
    return [name for name in list_versions(model) if name > newest]


def remove_leftovers(model: AnyPath) -> None:
    """Remove what killed writers have left; the lock must be held.

    On a store, which has no lock, these are versions that have lacked a manifest for a day.
    """
    if not is_remote(model):
        remove_stale_temps(model)
        remove_stale_temps(model / VERSIONS)
        return

    newest_abandoned = f"{datetime.now(UTC) - _ABANDONED:{_NAME_FORMAT}}"
    with suppress(ModelError, WriteError):  # a writer may lack the right to list or to delete
        for name, files in _list_files(model).items():
            if _LAST_FILE not in files and name < newest_abandoned:
                remove_tree(model / VERSIONS / name)


def _read_current(model: AnyPath) -> str:
    """Return the text of CURRENT; nothing where that is no regular file."""
    try:
        # A pipe would block for ever. A store has none.
        if not is_remote(model) and not stat.S_ISREG((model / CURRENT).stat().st_mode):
            return ""
        with (model / CURRENT).open("rb") as file:
            return file.read(200).decode("ascii", "replace").strip()
    except OSError as error:
        if is_remote(model) and not isinstance(error, FileNotFoundError):
            raise _unreachable(model, error) from error
        if not is_remote(model) and not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise _unreadable(model / CURRENT, error) from error
        if list_versions(model):
            raise ModelError(
                f"no version of {model} is active",
                code="no-active-version",
                hint=f"choose one with  --version ; {_saved_versions(model)}",
            ) from error
        if is_remote(model):  # there are no folders on a store, but only objects
            raise ModelError(
                f"no model found in '{model}'", code="no-model", hint=_HINT_TRAIN
            ) from error
        raise ModelError(
            f"{model} is not a model directory: cannot read {CURRENT} ({error.strerror})",
            code="no-model",
            hint="pass the directory written by  rnnforecast train  with  --model",
        ) from error


def _list_files(model: RemotePath) -> dict[str, set[str]]:
    """Return the names of the files of each version on a store, complete or not."""
    files: dict[str, set[str]] = {}
    folder = model / VERSIONS
    try:
        for location in list_objects(folder):
            name, *parts = location.relative_parts(folder)
            if _NAME.fullmatch(name):
                files.setdefault(name, set()).add("/".join(parts))
    except OSError as error:
        raise _unreachable(model, error) from error
    return files


def _is_version(directory: AnyPath) -> bool:
    if not is_remote(directory):
        try:
            return stat.S_ISDIR(directory.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unreadable(directory, error) from error
    try:
        return (directory / _LAST_FILE).is_file()
    except OSError as error:
        raise _unreachable(directory, error) from error


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"cannot read the model: {path}: {error.strerror}",
        code="unreadable-model",
        hint="check the permissions and the disk",
    )


def _unreachable(location: RemotePath, error: OSError) -> ModelError:
    return ModelError(
        f"cannot read the model at {location}: {error.strerror}",
        code="unreachable-model",
        hint="check the URL, the credentials in the environment, and the network",
    )


def _saved_versions(model: AnyPath) -> str:
    """Return the newest saved versions, for a hint."""
    versions: list[str] = []
    with suppress(ModelError):
        versions = list_versions(model)
    return f"saved versions: {', '.join(versions[-5:])}" if versions else "no version is saved"
