"""A disk that fails when it is told to, or that writes down what is done to it.

It stands between this process and the operating system: every call that opens for writing, writes,
syncs or changes a name below one folder goes through it. What lies elsewhere is left alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

KINDS = {
    "open": ("open",),
    "write": ("write", "pwrite", "ftruncate"),
    "fsync": ("fsync",),
    "rename": ("rename", "replace"),
    "link": ("link",),
    "unlink": ("unlink", "rmdir"),
    "mkdir": ("mkdir",),
}
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
_TWO_PATHS = ("rename", "replace", "link")
_BY_DESCRIPTOR = ("write", "pwrite", "ftruncate", "fsync")


@dataclass(frozen=True)
class Step:
    """One thing that was done to the disk; paths are those of the moment."""

    name: str
    path: str
    other: str = ""
    """Where a rename or a link leads."""
    content: bytes = b""
    """What a file holds after it was written to."""


@dataclass
class Disk:
    """What fails, and what was done."""

    root: Path
    kind: str = "nothing"
    at: int = 0
    """Which call of this kind fails, counted from 1."""
    for_ever: bool = False
    error: int = 0
    n_calls: int = 0
    steps: list[Step] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        return 0 < self.at <= self.n_calls

    @contextmanager
    def standing_between(self) -> Iterator[Disk]:
        """Let every call of this process go through the disk."""
        wrapped = {name: self._wrapped(name) for name in _KIND_OF}
        with mock.patch.multiple(os, **wrapped, fdopen=self._fdopen):
            yield self

    def _before(self, name: str, path: str) -> None:
        if _KIND_OF[name] != self.kind:
            return
        self.n_calls += 1
        if self.n_calls == self.at or (self.for_ever and self.has_failed):
            raise OSError(self.error, os.strerror(self.error), path)

    def _is_ours(self, path: str) -> bool:
        return path.startswith(f"{self.root}/")

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            path = _path_of(name, arguments, options)
            if not self._is_ours(path) or (name == "open" and not _is_to_write(arguments[1])):
                return real(*arguments, **options)
            is_new = name == "open" and not os.path.lexists(path)
            self._before(name, path)
            result = real(*arguments, **options)
            if name == "open":
                if is_new:
                    self.steps.append(Step("create", path))
            elif name in ("write", "pwrite", "ftruncate"):
                self._wrote(arguments[0], path)
            else:
                other = _absolute(arguments[1]) if name in _TWO_PATHS else ""
                self.steps.append(Step("rename" if name == "replace" else name, path, other))
            return result

        return call

    def _wrote(self, descriptor: int, path: str) -> None:
        content = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        self.steps.append(Step("write", path, content=content))

    def _fdopen(self, descriptor: int, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode != "wb" or not self._is_ours(_descriptor_path(descriptor)):
            return io.open(descriptor, mode, *more, **options)  # noqa: UP020
        return io.BufferedWriter(_Raw(descriptor, self))


class _Raw(io.FileIO):
    """A file whose writes go through the disk."""

    def __init__(self, descriptor: int, disk: Disk) -> None:
        super().__init__(descriptor, "wb")
        self._disk = disk

    def write(self, content: Any) -> int:
        path = _descriptor_path(self.fileno())
        self._disk._before("write", path)
        written = super().write(content)
        self._disk._wrote(self.fileno(), path)
        return written


def _path_of(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    if name in _BY_DESCRIPTOR:
        return _descriptor_path(arguments[0])
    folder = options.get("dir_fd")
    if folder is not None:
        return str(Path(_descriptor_path(folder)) / os.fsdecode(arguments[0]))
    return _absolute(arguments[0])


def _descriptor_path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


def _is_to_write(flags: int) -> bool:
    """Tell a file that is opened to write, or a folder to sync, from what is only read."""
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or (
        flags & os.O_DIRECTORY == os.O_DIRECTORY
    )
