"""A path or URL of an object store, with the methods of pathlib that are used."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rnnforecast.errors import UsageError
from rnnforecast.urls import Url, check_not_collapsed, is_url, parse_url

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from rnnforecast.storage.stores import ObjectInfo


_READ_BYTES = 1 << 22
"""What one request asks for, at least: its latency is that of about as many bytes."""


@dataclass(frozen=True)
class Remote:
    """An object, or what lies below a prefix."""

    url: Url

    def __str__(self) -> str:
        """Return the URL, which holds no secret."""
        return str(self.url)

    def __truediv__(self, name: str) -> Remote:
        """Return what lies below it."""
        return Remote(self.url.below(name))

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.url.path.name

    @property
    def suffix(self) -> str:
        """How its name ends."""
        return self.url.path.suffix

    @property
    def parent(self) -> Remote:
        """What it lies in."""
        return Remote(self.url.at(self.url.key.rpartition("/")[0]))

    def resolve(self) -> Remote:
        """Return itself: there are no links, and a URL is absolute."""
        return self

    def is_relative_to(self, other: Remote) -> bool:
        """Tell whether it is the other, or lies below it."""
        mine, theirs = self.url, other.url
        is_below = not theirs.key or f"{mine.key}/".startswith(f"{theirs.key}/")
        return mine.at("") == theirs.at("") and is_below

    def parts_below(self, folder: Remote) -> tuple[str, ...]:
        """Return the parts that lead from a folder to it."""
        return tuple(self.url.key.removeprefix(folder.url.key).strip("/").split("/"))

    def look(self) -> ObjectInfo | None:
        """Return what is known of the object; None where there is none, nor anything below it."""
        return look_at([self])[0]

    def exists(self) -> bool:
        """Tell whether there is an object of this name, or one below it."""
        return self.look() is not None

    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        state = self.look()
        return state is not None and state.size is not None

    def is_dir(self) -> bool:
        """Tell whether anything lies below it."""
        state = self.look()
        return state is not None and state.size is None

    def size(self) -> int:
        """Return how many bytes the object has. Raises `OSError` where there is none."""
        with self.open() as file:
            return file.seek(0, io.SEEK_END)

    def open(
        self, mode: Literal["rb"] = "rb", *, turn: Callable[[OSError], Exception] | None = None
    ) -> io.BufferedReader:
        """Open the object for reading, by ranges. What fails meanwhile is raised as `turn` says."""
        assert mode == "rb"
        return io.BufferedReader(RemoteFile(self, turn or _as_it_is), _READ_BYTES)

    def read_bytes(self) -> bytes:
        """Return all of the object."""
        with self.open() as file:
            return file.read()


Place = Path | Remote
"""Where something is read or published."""


class RemoteFile(io.RawIOBase):
    """An object that is open: each read is a request for a range of it."""

    def __init__(self, place: Remote, turn: Callable[[OSError], Exception]) -> None:
        self._place, self._turn = place, turn
        self._file = self._try(lambda _: stores().open_object(place.url))

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from anywhere."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read a range into a buffer; nothing only at the end."""
        read: int = self._try(lambda file: file.readinto(buffer))
        return read

    def readall(self) -> bytes:
        """Read what is left of it, in one request rather than in those of a disk's size."""
        left: bytes = self._try(lambda file: file.read())
        return left

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to another place, which asks for nothing."""
        at: int = self._try(lambda file: file.seek(offset, whence))
        return at

    def tell(self) -> int:
        """Say where it is."""
        at: int = self._try(lambda file: file.tell())
        return at

    def _try(self, work: Callable[[Any], Any]) -> Any:
        try:
            with stores().naming(self._place.url):
                return stores().answering(lambda: work(getattr(self, "_file", None)))
        except OSError as error:
            raise self._turn(error) from error


def place_of(text: str | Place) -> Place:
    """Return the place that a path or a URL leads to; nothing is looked at there."""
    if isinstance(text, str) and is_url(text):
        return Remote(parse_url(text))
    if isinstance(text, Remote):
        return text
    check_not_collapsed(str(text))
    return Path(text)


def local_path(text: str | Place, what: str) -> Path:
    """Return a path of this machine. Raises `UsageError` for a URL: `what` cannot be on a store."""
    place = place_of(text)
    if isinstance(place, Remote):
        raise UsageError(
            f"{what} cannot be on a store: {place}",
            code="not-on-a-store",
            hint="name a path of this machine, and copy it afterwards",
        )
    return place


def look_at(places: Sequence[Remote]) -> list[ObjectInfo | None]:
    """Look at many names of one store side by side; None for each where there is nothing."""
    found: list[ObjectInfo | None] = stores().look_at([place.url for place in places])
    return found


def list_below(folder: Remote, *, is_deep: bool = True) -> dict[Remote, ObjectInfo]:
    """Return the objects below a prefix, or only those right below it, in the order of names."""
    found: dict[Url, ObjectInfo] = stores().list_below(folder.url, is_deep=is_deep)
    return {Remote(url): state for url, state in found.items()}


def _as_it_is(error: OSError) -> Exception:
    return error


def stores() -> Any:
    """Return the module that talks to stores; pyarrow, which it needs, is slow to import."""
    from rnnforecast.storage import stores

    return stores
