"""Publish a file, a directory or a pointer atomically, on a disk or an object store."""

from __future__ import annotations

import errno
import hashlib
import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import IO, Any, TypeVar, TypeVarTuple

from rnnforecast.errors import WriteError
from rnnforecast.storage import durable
from rnnforecast.storage.durable import crash_point
from rnnforecast.storage.remote import AnyPath, RemotePath, get_infos, size_of, stores

_Parameters = TypeVarTuple("_Parameters")
_Result = TypeVar("_Result")


def _disk_version(
    on_disk: Callable[[Path, *_Parameters], _Result],
) -> Callable[
    [Callable[[RemotePath, *_Parameters], _Result]], Callable[[AnyPath, *_Parameters], _Result]
]:
    """Decorate a function for objects of a store, so that paths go to `on_disk` instead."""

    def decorate(
        on_store: Callable[[RemotePath, *_Parameters], _Result],
    ) -> Callable[[AnyPath, *_Parameters], _Result]:
        @wraps(on_store)
        def call(location: AnyPath, *parameters: *_Parameters) -> _Result:
            if isinstance(location, Path):
                return on_disk(location, *parameters)
            return on_store(location, *parameters)

        return call

    return decorate


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def publish(path: AnyPath, content: bytes) -> dict[str, Any]:
    """Publish a file, unless it has this content already; return its entry for a manifest."""
    is_published = False
    with suppress(OSError):
        is_published = size_of(path) == len(content) and path.read_bytes() == content

    if not is_published:
        with publishing_file(path) as file:
            file.write(content)
    return describe(path, content)


def describe(path: AnyPath, content: bytes) -> dict[str, Any]:
    """Return a file's entry for a manifest: path, size and SHA-256."""
    return {"path": str(path.resolve()), "bytes": len(content), "sha256": digest(content)}


def describe_input(path: AnyPath) -> dict[str, Any]:
    """Return the same entry of a file that is read for it, and that may be large."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return {"path": str(path.resolve()), "bytes": size, "sha256": sha256}


@_disk_version(describe_input)
def describe_source(location: RemotePath) -> dict[str, Any]:
    """Return the entry of a source of readings.

    An object is not fetched again for it: in place of a hash stands when it was changed.
    """
    info = location.get_info()
    if info is None:
        return {"path": str(location)}
    changed = datetime.fromtimestamp((info.mtime_ns or 0) / 1e9, UTC)
    return {"path": str(location), "bytes": info.size, "changed": changed.isoformat()}


@_disk_version(durable.publishing_file)
@contextmanager
def publishing_file(location: RemotePath) -> Iterator[IO[bytes]]:
    """Open a file for writing; it appears at its location, complete, when the block succeeds.

    The content of an object waits in a temporary file of this machine, as it is put in one call.
    """
    with _as_write_error(location), tempfile.TemporaryFile(prefix="rnnforecast-") as file:
        crash_point("file-created")
        yield file
        file.flush()
        if file.tell():
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _put(location, content)
        else:  # an empty file cannot be mapped
            _put(location, b"")


@_disk_version(durable.publish_directory)
def publish_directory(location: RemotePath, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files, in the mapping's order: put the manifest last.

    On a store it counts once its last file is there. All are looked at before this returns, because
    there is no lock that keeps another process from removing an incomplete directory.
    """
    with _as_write_error(location):
        for name, content in files.items():
            _put(location / name, content)
            crash_point("part-written")

        infos = get_infos([location / name for name in files])
        sizes = [None if info is None else info.size for info in infos]
        if sizes != [len(content) for content in files.values()]:
            raise OSError(errno.EIO, "somebody else has changed what was written", str(location))
    crash_point("directory-named")


@_disk_version(durable.replace_pointer)
def replace_pointer(location: RemotePath, text: str) -> None:
    """Write a file that holds one line."""
    with _as_write_error(location):
        _put(location, f"{text}\n".encode())


@_disk_version(durable.make_directory)
def make_directory(location: RemotePath) -> None:
    """Make a directory and its parents; a store has none, and needs none."""


@_disk_version(durable.remove_file)
def remove_file(location: RemotePath) -> None:
    """Remove a file; one that is gone already is no error."""
    with _as_write_error(location):
        location.unlink()


def remove_tree(location: RemotePath) -> None:
    """Remove all objects below a prefix."""
    with _as_write_error(location):
        stores().remove_tree(location.url)


@_disk_version(durable.check_directory)
def check_directory(location: RemotePath) -> None:
    """Raise `WriteError` where no directory could be made or written to; make nothing."""
    with _as_write_error(location):
        stores().check_writable(location.url)
        stores().check_bucket(location.url)


@_disk_version(durable.check_file)
def check_file(location: RemotePath) -> None:
    """Raise `WriteError` where no file could be published: before the work, not after it."""
    check_directory(location)
    with _as_write_error(location):
        if not location.url.key or location.is_dir():
            raise OSError(errno.EISDIR, "other objects lie below that name", str(location))


def _put(location: RemotePath, content: Any) -> None:
    crash_point("file-written")
    stores().put(location.url, content)
    crash_point("file-published")


@contextmanager
def _as_write_error(location: RemotePath) -> Iterator[None]:
    """Turn an `OSError` into a `WriteError` that names the location."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write {location}: {error.strerror or error}",
            code="cannot-write",
            hint="what was there before is unchanged; check that the bucket exists, the "
            "credentials, and that the store can be reached",
        ) from error
