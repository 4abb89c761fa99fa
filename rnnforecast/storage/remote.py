"""Paths of this machine and URLs of object stores as one type, and how both are read."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from rnnforecast.errors import UsageError
from rnnforecast.process import open_regular
from rnnforecast.system import open_flags
from rnnforecast.urls import Url, check_not_collapsed, is_url, parse_database, parse_url

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from typing_extensions import TypeIs

    from rnnforecast.storage.stores import ObjectInfo


_READ_BYTES = 1 << 22
"""What one request asks for, at least: its latency is that of about as many bytes."""
_MAX_BRACKETS = 100
"""The most brackets that are opened in a line of JSON."""
MAX_JSON_BYTES = 1 << 26
"""Largest JSON file that is read: the manifest of 100,000 buckets has about a third of that."""
ErrorConverter = Callable[[OSError], Exception]
"""Makes the exception that is raised in place of an error of a store."""


@dataclass(frozen=True)
class RemotePath:
    """An object on a store, or all objects below a prefix, with the methods of `pathlib.Path`."""

    url: Url

    def __str__(self) -> str:
        """Return the URL, which holds no secret."""
        return str(self.url)

    def __truediv__(self, name: str) -> RemotePath:
        """Return the location with a name appended."""
        return RemotePath(self.url.child(name))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.url.path.name

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return self.url.path.suffix

    @property
    def parent(self) -> RemotePath:
        """The location without its last part."""
        return RemotePath(self.url.with_key(self.url.key.rpartition("/")[0]))

    def resolve(self) -> RemotePath:
        """Return itself: there are no links, and a URL is absolute."""
        return self

    def absolute(self) -> RemotePath:
        """Return itself: a URL is absolute."""
        return self

    def is_relative_to(self, folder: RemotePath) -> bool:
        """Tell whether it is the folder, or lies below it."""
        url, above = self.url, folder.url
        is_below = not above.key or f"{url.key}/".startswith(f"{above.key}/")
        return url.with_key("") == above.with_key("") and is_below

    def relative_parts(self, folder: RemotePath) -> tuple[str, ...]:
        """Return the parts of the path that lead from a folder to it."""
        return tuple(self.url.key.removeprefix(folder.url.key).strip("/").split("/"))

    def get_info(self) -> ObjectInfo | None:
        """Return size and time of the object; None where neither it nor one below it exists."""
        return get_infos([self])[0]

    def exists(self) -> bool:
        """Tell whether there is an object of this name, or one below it."""
        return self.get_info() is not None

    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        info = self.get_info()
        return info is not None and info.size is not None

    def is_dir(self) -> bool:
        """Tell whether there are objects below this name, but none of this name."""
        info = self.get_info()
        return info is not None and info.size is None

    def open(
        self, mode: Literal["rb"] = "rb", *, convert_error: ErrorConverter | None = None
    ) -> io.BufferedReader:
        """Open the object for reading, by ranges.

        Opening and reading raise `OSError`, or what `convert_error` makes of it.
        """
        assert mode == "rb"
        return io.BufferedReader(RemoteFile(self, convert_error), _READ_BYTES)

    def read_bytes(self) -> bytes:
        """Return the content of the object."""
        with self.open() as file:
            return file.read()

    def unlink(self) -> None:
        """Remove the object; one that is gone already is no error. Raises `OSError`."""
        stores().remove(self.url)


AnyPath = Path | RemotePath
"""Where something is read or published: a path of this machine, or a URL of a store."""


class RemoteFile(io.RawIOBase):
    """An open object: each read is a request for a range of it."""

    def __init__(self, location: RemotePath, convert_error: ErrorConverter | None) -> None:
        self._location, self._convert_error = location, convert_error
        self._file = self._call(lambda: stores().open_object(location.url))

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: it can be read from anywhere."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read a range into a buffer; returns 0 only at the end."""
        n_read: int = self._call(lambda: self._file.readinto(buffer))
        return n_read

    def readall(self) -> bytes:
        """Read up to the end in one request, rather than in many of a disk's block size."""
        content: bytes = self._call(self._file.read)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to another position, which sends no request."""
        position: int = self._call(lambda: self._file.seek(offset, whence))
        return position

    def tell(self) -> int:
        """Return the position."""
        position: int = self._call(self._file.tell)
        return position

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return stores().call(self._location.url, function)
        except OSError as error:
            if self._convert_error is None:
                raise
            raise self._convert_error(error) from error


def as_path(text: str | AnyPath) -> AnyPath:
    """Return the location that a path or a URL names, without looking whether it exists."""
    if isinstance(text, RemotePath):
        return text
    database = parse_database(text)
    if database is not None:
        return Path(database.path)
    if isinstance(text, str) and is_url(text):
        return RemotePath(parse_url(text))
    check_not_collapsed(str(text))
    return Path(text)


def local_path(text: str | AnyPath, name: str) -> Path:
    """Return a path of this machine. Raises `UsageError` for a URL: `name` cannot be on a store."""
    location = as_path(text)
    if isinstance(location, RemotePath):
        raise UsageError(
            f"{name} cannot be on an object store: {location}",
            code="not-on-a-store",
            hint="use a local path and copy it afterwards",
        )
    return location


def is_remote(location: AnyPath) -> TypeIs[RemotePath]:
    """Tell whether a location is on an object store."""
    return isinstance(location, RemotePath)


def is_in_folder(location: AnyPath, folder: AnyPath) -> bool:
    """Tell whether a location is a folder or lies in it; links on a disk are followed."""
    if is_remote(location):
        return is_remote(folder) and location.is_relative_to(folder)
    return not is_remote(folder) and location.resolve().is_relative_to(folder.resolve())


def size_of(location: AnyPath) -> int:
    """Return how many bytes a file has. Raises `OSError` where there is none."""
    if not is_remote(location):
        return location.stat().st_size
    with location.open() as file:
        return file.seek(0, io.SEEK_END)


def etag_of(location: AnyPath) -> tuple[int, int] | None:
    """Return a value that changes whenever a file is replaced; None where it cannot be found."""
    with suppress(OSError):
        if not is_remote(location):
            status = location.lstat()
            return status.st_ino, status.st_mtime_ns
        info = location.get_info()
        if info is not None and info.size is not None:
            return info.size, info.mtime_ns or 0
    return None


def read_bounded(location: AnyPath, max_bytes: int) -> bytes:
    """Return the content of a regular file, which must not be a link.

    Raises `ValueError` for a larger one, and for one that cannot be read.
    """
    name = location.name
    try:
        # a store has no links, and nothing but objects
        flags = open_flags("O_NOFOLLOW")
        with location.open() if is_remote(location) else open_regular(location, flags) as file:
            return _read_all(file, max_bytes, name)
    except OSError as error:
        raise ValueError(f"cannot read {name} ({error.strerror})") from error


def _read_all(file: BinaryIO, max_bytes: int, subject: str) -> bytes:
    """Return the content. Raises `ValueError`, whose message begins with `subject`, if it is large.

    A file that grows meanwhile cannot fill the memory: one byte of what is new is read. Files of
    the kernel have no size, and reading some of them waits.
    """
    size = file.seek(0, os.SEEK_END)
    if size > max_bytes:
        raise ValueError(f"{subject} has {size} bytes; at most {max_bytes} are allowed")
    file.seek(0)
    return file.read(size + 1) if size else b""


def read_json(
    location: AnyPath, *, expected_format: str | None = None, max_bytes: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """Return the JSON object in a small file, such as a manifest.

    Raises `OSError` where the file cannot be read. Raises `ValueError` where it is larger than
    `max_bytes`, is no JSON, is nested too deeply, holds no object, or where the value of its key
    "format" is not `expected_format`; None accepts any.
    """
    with location.open() if is_remote(location) else open_regular(location) as file:
        content = _read_all(file, max_bytes, "it")
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004
    if expected_format is not None and value.get("format") != expected_format:
        raise ValueError(f"its format is not {expected_format!r}")
    return value


def check_json_lines(lines: Sequence[bytes]) -> None:
    """Raise `ValueError` for lines that end the process of Arrow's reader, not just the reading.

    These are a line `null`, of which it takes an address, and some ten thousand levels, for which
    its stack is too small. Brackets within texts count as levels here.
    """
    for number, line in enumerate(lines, 1):
        if line.lstrip()[:1] not in (b"{", b""):
            raise ValueError(f"line {number} is not a JSON object")
        if line.count(b"{") + line.count(b"[") > _MAX_BRACKETS:
            raise ValueError(f"line {number} is nested too deeply")


def get_infos(locations: Sequence[RemotePath]) -> list[ObjectInfo | None]:
    """Return size and time of many objects of one store, all asked for at once; None for none."""
    infos: list[ObjectInfo | None] = stores().get_infos([location.url for location in locations])
    return infos


def list_objects(folder: RemotePath, *, recursive: bool = True) -> dict[RemotePath, ObjectInfo]:
    """Return the objects below a prefix, or only those right below it, in the order of names."""
    infos: dict[Url, ObjectInfo] = stores().list_objects(folder.url, recursive=recursive)
    return {RemotePath(url): info for url, info in infos.items()}


def stores() -> Any:
    """Return the module that talks to stores; pyarrow, which it needs, is slow to import."""
    from rnnforecast.storage import stores

    return stores
