"""Publish a file, a directory or a pointer atomically, on a disk or an object store."""

from __future__ import annotations

import errno
import hashlib
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rnnforecast.errors import WriteError
from rnnforecast.storage import durable
from rnnforecast.storage.durable import crash_point
from rnnforecast.storage.remote import Place, Remote, look_at, stores


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def publish(path: Place, content: bytes) -> dict[str, Any]:
    """Publish a file, unless it is what it should be already; return what a manifest says of it."""
    if not _holds(path, content):
        with publishing_file(path) as file:
            file.write(content)
    return describe(path, content)


def describe(path: Place, content: bytes) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": str(path.resolve()), "bytes": len(content), "sha256": sha256}


def describe_input(path: Place) -> dict[str, Any]:
    """Return the same of a file that was read, and that may be large."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return {"path": str(path.resolve()), "bytes": size, "sha256": sha256}


def describe_source(place: Place) -> dict[str, Any]:
    """Return the same of what was read, wherever it is; an object is not fetched again for it."""
    if isinstance(place, Path):
        return describe_input(place)
    state = place.look()
    if state is None:
        return {"path": str(place)}
    changed = datetime.fromtimestamp((state.changed_ns or 0) / 1e9, UTC)
    return {"path": str(place), "bytes": state.size, "changed": changed.isoformat()}


def _holds(path: Place, content: bytes) -> bool:
    with suppress(OSError):
        size = path.stat().st_size if isinstance(path, Path) else path.size()
        return size == len(content) and path.read_bytes() == content
    return False


@contextmanager
def publishing_file(place: Place) -> Iterator[IO[bytes]]:
    """Open a file for writing; when the block ends well, it is at its place, whole.

    What goes to a store waits in a temporary file of this machine.
    """
    if isinstance(place, Path):
        with durable.publishing_file(place) as file:
            yield file
        return
    with _naming(place), tempfile.TemporaryFile(prefix="rnnforecast-") as waiting:
        crash_point("file-created")
        yield waiting
        waiting.flush()
        if waiting.tell():
            with mmap.mmap(waiting.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _put(place, content)
        else:
            _put(place, b"")


def publish_directory(place: Place, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files, in the mapping's order: put the manifest last.

    On a store it counts from its last file on, and all are looked at before this returns: there is
    no lock that would keep somebody from taking away what is not whole yet.
    """
    if isinstance(place, Path):
        durable.publish_directory(place, files)
        return
    with _naming(place):
        for name, content in files.items():
            _put(place / name, content)
            crash_point("part-written")
        found = look_at([place / name for name in files])
        sizes = [None if state is None else state.size for state in found]
        if sizes != [len(content) for content in files.values()]:
            raise OSError(errno.EIO, "somebody else has changed what was written", str(place))
    crash_point("directory-named")


def replace_pointer(place: Place, text: str) -> None:
    """Make a file that holds one line."""
    if isinstance(place, Path):
        durable.replace_pointer(place, text)
        return
    with _naming(place):
        _put(place, f"{text}\n".encode())


def make_directory(place: Place) -> None:
    """Make a directory and its parents; a store has none, and needs none."""
    if isinstance(place, Path):
        durable.make_directory(place)


def remove_file(place: Place) -> None:
    """Take a file away; one that is gone already is no error."""
    if isinstance(place, Path):
        durable.remove_file(place)
        return
    with _naming(place):
        stores().remove(place.url)


def remove_below(place: Remote) -> None:
    """Take away all that lies below a prefix of a store."""
    with _naming(place):
        stores().remove_below(place.url)


def check_directory(place: Place) -> None:
    """Raise `WriteError` where no directory could be made or written to; make nothing."""
    if isinstance(place, Path):
        durable.check_directory(place)
        return
    with _naming(place):
        stores().check_writable(place.url)
        stores().check_bucket(place.url)


def check_file(place: Place) -> None:
    """Raise `WriteError` where no file could be published: before the work, not after it."""
    if isinstance(place, Path):
        durable.check_file(place)
        return
    check_directory(place)
    with _naming(place):
        if not place.url.key or place.is_dir():
            raise OSError(errno.EISDIR, "other objects lie below that name", str(place))


def _put(place: Remote, content: Any) -> None:
    crash_point("file-written")
    stores().put(place.url, content)
    crash_point("file-published")


@contextmanager
def _naming(place: Remote) -> Iterator[None]:
    """Turn an OSError into a WriteError that names the place."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write {place}: {error.strerror or error}",
            code="cannot-write",
            hint="what was there before is unchanged; check that the bucket exists, the "
            "credentials, and that the store can be reached",
        ) from error
