"""Input files as a command first saw them: their state, their bytes, what became of them."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnforecast.errors import DataError, Location
from rnnforecast.events import InputRead, Listener, WarningEvent
from rnnforecast.storage.remote import AnyPath, get_infos, is_remote

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_BYTES = 1 << 18
"""As much as the dialect of a CSV file is inferred from."""
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class FileState:
    """What tells whether a file, or an object of a store, is still the same."""

    size: int
    modified_ns: int
    identity: tuple[int, int] = (0, 0)
    """Device and number of a file; a store has none."""
    changed_ns: int = 0
    """Time of the last change of content or of attributes. Unlike that of modification it cannot be
    set."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Return the state that the system tells."""
        identity = status.st_dev, status.st_ino
        return cls(status.st_size, status.st_mtime_ns, identity, status.st_ctime_ns)


class InputFile:
    """A file of readings, or an object of a store, as it was when it was first looked at.

    However often it is opened, only the bytes are read that it had then, and those that are read
    again have to be the same: else `DataError` is raised. So what is appended meanwhile does not
    count, and no reading mixes two contents.
    """

    def __init__(self, path: AnyPath, state: FileState, *, is_database: bool = False) -> None:
        self.path = path
        self.state = state
        self._is_database = is_database
        """Whether a database reads it, which lets nobody see half a change."""
        self.n_hashed, self._digest = 0, hashlib.sha256().digest()
        """The longest beginning that was read, and its SHA-256."""

    @classmethod
    def of(cls, path: AnyPath, *, is_database: bool = False) -> InputFile:
        """Look at a file. Raises `DataError` where it is gone, or none that can be read."""
        return cls(path, _existing(path, next(_states([path]))), is_database=is_database)

    @classmethod
    def of_all(cls, paths: Sequence[AnyPath]) -> tuple[InputFile, ...]:
        """Look at many files of one kind; a store is asked for all of its objects at once."""
        states = zip(paths, _states(paths), strict=True)
        return tuple(cls(path, _existing(path, state)) for path, state in states)

    def open(self) -> io.BufferedReader:
        """Open the file as it is stored. For an object, this and each later read raise `DataError`.

        Raises `OSError`, and `DataError` where there is another file by now.
        """
        if is_remote(self.path):
            return self.path.open(convert_error=partial(unreadable, self.path))
        return io.BufferedReader(_BoundedFile(self.path, self), _BUFFER_BYTES)

    def arrow_input(self) -> AnyPath | io.BufferedReader:
        """Return what pyarrow opens: a path as it is, an object as a file read by ranges."""
        return self.open() if is_remote(self.path) else self.path

    def has_grown(self) -> bool:
        """Tell whether something was appended to the file since it was first looked at."""
        if is_remote(self.path):
            return False
        with suppress(OSError):
            return self.path.stat().st_size > self.state.size
        return False

    def compare(self, n_bytes: int, digest: bytes) -> None:
        """Raise `DataError` where the beginning of the file differs from what was read before.

        A longer beginning than the one that is known is remembered.
        """
        if n_bytes == self.n_hashed and digest != self._digest:
            raise self.changed()
        if n_bytes > self.n_hashed:
            self.n_hashed, self._digest = n_bytes, digest

    def check(self, now: FileState | None, listener: Listener) -> None:
        """Warn of a file that has grown while it was read; raise `DataError` for other changes.

        `now` is its state after the last byte was read; None where it is gone. Objects of a store
        do not grow: any change of them is an error.
        """
        if now == self.state or (self._is_database and now is not None):
            return
        has_same_bytes = (
            now is not None
            and not is_remote(self.path)
            and now.identity == self.state.identity
            and now.size >= self.state.size
            and self.n_hashed > 0
        )
        if not has_same_bytes:
            raise self.changed()

        self._read_again()
        if now is not None and now.size > self.state.size:
            message = f"{self.path} grew while it was read; only the first part was used"
            listener(WarningEvent("growing", message))

    def describe(self) -> dict[str, Any]:
        """Return the entry of what was read for a manifest: path, bytes and, of a file, SHA-256.

        A file whose bytes were not all read in their order is read now. Where it is another one by
        now, its entry has the time of its last change in place of the hash.
        """
        entry = {"path": str(self.path), "bytes": self.state.size}
        if not is_remote(self.path):
            entry["path"] = str(self.path.resolve())
            with suppress(OSError, DataError):
                if self.n_hashed < self.state.size and _file_state(self.path) == self.state:
                    self._read_again(to_end=True)
            if self.n_hashed >= self.state.size:
                return {**entry, "sha256": self._digest.hex()}
        changed = datetime.fromtimestamp(self.state.modified_ns / 1e9, UTC)
        return {**entry, "changed": changed.isoformat()}

    def changed(self) -> DataError:
        """Return the error for a file that has another content than when it was first read."""
        return DataError(
            f"{self.path} was replaced or rewritten while it was read",
            code="changed",
            location=Location(str(self.path)),
            hint="run again when it is complete",
        )

    def _read_again(self, *, to_end: bool = False) -> None:
        """Read the beginning that was read before, or all. Raises `DataError` where it differs."""
        n_left = self.state.size if to_end else self.n_hashed
        try:
            with self.open() as file:
                while n_left and (chunk := file.read(min(n_left, _CHUNK_BYTES))):
                    n_left -= len(chunk)
        except OSError as error:
            raise unreadable(self.path, error) from error


class _BoundedFile(io.RawIOBase):
    """The bytes that a file had when it was first looked at; they are hashed as they are read."""

    def __init__(self, path: Path, input_file: InputFile) -> None:
        self._input = input_file
        # Without waiting for the writer of a pipe that has taken the name
        flags = getattr(os, "O_NONBLOCK", 0)
        self._file = open(  # noqa: SIM115
            path, "rb", buffering=0, opener=lambda name, mode: os.open(name, mode | flags)
        )
        state, expected = FileState.of(os.fstat(self._file.fileno())), input_file.state
        if state.identity != expected.identity or state.size < expected.size:
            self.close()
            raise input_file.changed()
        self._position = 0
        self._hash, self._n_hashed = hashlib.sha256(), 0

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: it can be read from anywhere."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read bytes into a buffer; returns 0 only at the end. Raises `DataError` for others."""
        n_left = max(self._input.state.size - self._position, 0)
        view = memoryview(buffer).cast("B")[:n_left]
        n_read = self._file.readinto(view) or 0
        if view.nbytes and not n_read:
            raise self._input.changed()  # it was cut short
        self._add(view[:n_read])
        self._position += n_read
        return n_read

    def readall(self) -> bytes:
        """Read up to the end."""
        content = bytearray(max(self._input.state.size - self._position, 0))
        n_read = 0
        while n_read < len(content):
            n_read += self.readinto(memoryview(content)[n_read:])
        return bytes(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to another position."""
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._input.state.size}
        self._position = self._file.seek(max(origins[whence] + offset, 0))
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):  # opening it may have failed
            self._file.close()
        super().close()

    def _add(self, content: memoryview) -> None:
        """Hash what follows the beginning that is hashed; nothing after a part was skipped."""
        n_known = self._n_hashed - self._position
        if not 0 <= n_known < len(content):
            return
        content = content[n_known:]
        n_until = self._input.n_hashed - self._n_hashed
        # What was read before is compared where it ended.
        parts = (content[:n_until], content[n_until:]) if n_until > 0 else (content,)
        for part in parts:
            if part:
                self._hash.update(part)
                self._n_hashed += len(part)
                self._input.compare(self._n_hashed, self._hash.digest())


def _file_state(path: Path) -> FileState:
    """Return the state of a regular file. Raises `DataError`."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error}", code="unreadable", location=Location(str(path))
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise not_a_file(path)
    return FileState.of(status)


def not_a_file(path: Path) -> DataError:
    """Return the error for a folder, a pipe or a device in the place of a file."""
    return DataError(
        f"{path} is not a regular file", code="not-a-file", location=Location(str(path))
    )


def _states(paths: Sequence[AnyPath]) -> Iterator[FileState | None]:
    """Yield the states of files and objects; None for an object that is gone. Raises `DataError`.

    A store is asked for all of its objects at once.
    """
    objects = [path for path in paths if is_remote(path)]
    try:
        infos = iter(get_infos(objects) if objects else ())
    except OSError as error:
        raise unreadable(objects[0], error) from error
    for path in paths:
        if not is_remote(path):
            yield _file_state(path)
        elif (info := next(infos)) is None or info.size is None:
            yield None
        else:
            yield FileState(info.size, info.mtime_ns or 0)


def _existing(path: AnyPath, state: FileState | None) -> FileState:
    """Return the state of an object. Raises `DataError` where it is gone."""
    if state is None:
        raise unreadable(path, FileNotFoundError(2, "no such object"))
    return state


def unreadable(path: AnyPath, error: OSError) -> DataError:
    """Return the error for a file or an object that cannot be read."""
    is_missing = isinstance(error, FileNotFoundError)
    return DataError(
        f"cannot read {path}: {error.strerror or error}",
        code="not-found" if is_missing else "unreadable",
        location=Location(str(path)),
        hint="check the URL, the credentials in the environment, and the network"
        if is_remote(path)
        else "check the path and its permissions",
    )


@contextmanager
def reading(inputs: Sequence[InputFile], listener: Listener) -> Iterator[None]:
    """Check after the block that the files which it reads are what they were when they were opened.

    Reports each of them, so that a manifest can name it. Raises `DataError`.
    """
    yield

    for file, now in zip(inputs, _states([file.path for file in inputs]), strict=True):
        file.check(now, listener)
    for file in inputs:
        listener(InputRead(str(file.path), file.describe))
