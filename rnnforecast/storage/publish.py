"""Publish a file, a directory or a pointer atomically, on a disk or an object store."""

from __future__ import annotations

import errno
import hashlib
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, Any

from rnnforecast.process import open_regular
from rnnforecast.storage import durable
from rnnforecast.storage.durable import as_write_error, crash_point
from rnnforecast.storage.remote import AnyPath, RemotePath, get_infos, is_remote, size_of, stores


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def publish(path: AnyPath, content: bytes, *, is_output: bool = False) -> dict[str, Any]:
    """Publish a file, unless it has this content already; return its entry for a manifest.

    An output is a file that a user has named, see `publishing_output`.
    """
    is_published = False
    with suppress(OSError):
        is_published = size_of(path) == len(content) and path.read_bytes() == content

    if not is_published:
        with publishing_output(path) if is_output else publishing_file(path) as file:
            file.write(content)
    return describe(path, content)


def describe(path: AnyPath, content: bytes) -> dict[str, Any]:
    """Return a file's entry for a manifest: path, size and SHA-256."""
    return {"path": str(path.resolve()), "bytes": len(content), "sha256": digest(content)}


def describe_input(path: AnyPath) -> dict[str, Any]:
    """Read a file, which may be large, and return its entry for a manifest. Raises `OSError`."""
    with path.open() if is_remote(path) else open_regular(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return {"path": str(path.resolve()), "bytes": size, "sha256": sha256}


def publishing_output(location: AnyPath) -> AbstractContextManager[IO[bytes]]:
    """Open a file that a user has named; it gets its content when the block succeeds.

    On a disk links are followed, and devices and pipes are written to.
    """
    return publishing_file(location) if is_remote(location) else durable.publishing_output(location)


@contextmanager
def publishing_file(location: AnyPath) -> Iterator[IO[bytes]]:
    """Open a file for writing; it appears at its location, complete, when the block succeeds.

    The content of an object waits in a temporary file of this machine, as it is put in one call.
    """
    if not is_remote(location):
        with durable.publishing_file(location) as file:
            yield file
        return

    with as_write_error(location), tempfile.TemporaryFile(prefix="rnnforecast-") as file:
        crash_point("file-created")
        yield file
        file.flush()
        if file.tell():
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _put(location, content)
        else:  # an empty file cannot be mapped
            _put(location, b"")


def publish_directory(location: AnyPath, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files, in the mapping's order: put the manifest last.

    On a store the directory counts once its last file is there. The sizes of all files are checked
    at the end: no lock keeps another process from removing an incomplete directory.
    """
    if not is_remote(location):
        durable.publish_directory(location, files)
        return

    with as_write_error(location):
        for name, content in files.items():
            _put(location / name, content)
            crash_point("part-written")

        infos = get_infos([location / name for name in files])
        sizes = [None if info is None else info.size for info in infos]
        if sizes != [len(content) for content in files.values()]:
            raise OSError(errno.EIO, "the file was changed by another process", str(location))
    crash_point("directory-named")


def replace_pointer(location: AnyPath, text: str) -> None:
    """Write a file that holds one line."""
    if not is_remote(location):
        durable.replace_pointer(location, text)
        return
    with as_write_error(location):
        _put(location, f"{text}\n".encode())


def make_directory(location: AnyPath) -> None:
    """Make a directory and its parents; a store has none, and needs none."""
    if not is_remote(location):
        durable.make_directory(location)


def remove_tree(location: RemotePath) -> None:
    """Remove all objects below a prefix."""
    with as_write_error(location):
        stores().remove_tree(location.url)


def check_directory(location: AnyPath) -> None:
    """Raise `WriteError` where no directory could be made or written to; make nothing."""
    if not is_remote(location):
        durable.check_directory(location)
        return
    with as_write_error(location):
        stores().check_writable(location.url)
        stores().check_bucket(location.url)


def check_file(location: AnyPath) -> None:
    """Raise `WriteError` where no file could be published: before the work, not after it."""
    if not is_remote(location):
        durable.check_file(location)
        return
    check_directory(location)
    with as_write_error(location):
        if not location.url.key or location.is_dir():
            raise OSError(errno.EISDIR, "other objects exist below that name", str(location))


def _put(location: RemotePath, content: Any) -> None:
    crash_point("file-written")
    stores().put(location.url, content)
    crash_point("file-published")
