"""The files of a version, read with care: regular ones, of the size and hash that was written.

Below `artifact`, which says which files there are. Every failure is a `ModelError`.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from rnnforecast.errors import ModelError
from rnnforecast.model.strict import digest
from rnnforecast.places.remote import Place, Remote


def read_listed(directory: Place, name: str, manifest: dict[str, Any], limit: int) -> bytes:
    """Read a file that the manifest lists, checking size before hash."""
    try:
        entry = manifest["files"][name]
        size, expected = entry["bytes"], entry["sha256"]
    except (KeyError, TypeError) as error:
        raise damaged(directory, f"its manifest does not list {name}") from error
    if type(size) is not int or not 0 <= size <= limit:
        raise damaged(directory, f"its manifest says {size!r} bytes for {name}")
    content = read_regular(directory / name, size)
    if len(content) != size:
        raise damaged(directory, f"{name} has {len(content)} bytes, not {size}")
    if digest(content) != expected:
        raise damaged(directory, f"{name} is not what was written (its hash differs)")
    return content


def read_regular(path: Place, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes, without following a link."""
    try:
        return read_bounded(path, limit)
    except ValueError as error:
        raise damaged(path.parent, str(error)) from error


def read_bounded(path: Place, limit: int) -> bytes:
    """Do the same for any file; `ValueError` says what is wrong with it."""
    try:
        if isinstance(path, Remote):
            return _read_object(path, limit)
        with open(path, "rb", opener=_open_itself) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path.name} is not a regular file")
            if status.st_size > limit:
                raise ValueError(f"{path.name} has {status.st_size} bytes, over {limit}")
            return file.read(status.st_size + 1)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror})") from error


def _read_object(place: Remote, limit: int) -> bytes:
    """Read an object; there are no links on a store, and nothing but objects."""
    with place.open() as file:
        size = file.seek(0, os.SEEK_END)
        if size > limit:
            raise ValueError(f"{place.name} has {size} bytes, over {limit}")
        file.seek(0)
        return file.read(size + 1)


def _open_itself(path: str, flags: int) -> int:
    """Open without following a link, and without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def damaged(directory: Place, why: str) -> ModelError:
    """Say that a version cannot be used, and why."""
    return ModelError(
        f"the model version {directory} cannot be used: {why}",
        code="damaged-model",
        hint="put an intact copy in its place, or train again",
    )
