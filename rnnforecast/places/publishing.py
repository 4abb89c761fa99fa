"""Publish a file or a directory: on a disk as `durable` does, on a store as objects.

An object appears whole or not at all, and is replaced in one step; a directory of a store is not
one step, so that its last file is what makes it count. Every failure is a `WriteError` that names
the place. What a kill leaves on a store has no temporary name: who reads must know what counts.
"""

from __future__ import annotations

import errno
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rnnforecast import durable
from rnnforecast.crashpoints import crash_point
from rnnforecast.errors import WriteError
from rnnforecast.places.remote import Place, Remote, look_at, stores


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
