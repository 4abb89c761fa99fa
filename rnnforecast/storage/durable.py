"""Durable, atomic writes to a disk, and the crash points at which tests kill a process.

No other module renames or fsyncs files.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from rnnforecast.errors import UsageError, WriteError
from rnnforecast.storage.remote import AnyPath, is_remote

TEMPORARY_PREFIX = ".tmp-"
_RANDOM_BYTES = 6
_MAX_NAME_BYTES = 255
"""What file systems of Unix take; a longer name is cut in the temporary one."""
CRASH_VARIABLE = "RNNFORECAST_CRASH_AT"
"""Names the crash point at which to die, as `LABEL[:PASSAGE[:SIGNAL]]`."""
_passages: Counter[str] = Counter()
"""How often each crash point was passed."""


@contextmanager
def publishing_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`; it becomes `path` when the block succeeds."""
    temporary = _temporary_path(path)
    with as_write_error(path):
        try:
            with _open_new(temporary) as file:
                crash_point("file-created")
                yield file
                crash_point("file-written")
                _sync(file)
            crash_point("file-synced")

            with rollback_on_error(path):
                os.replace(temporary, path)
                crash_point("file-named")
                _sync_directory(path.parent)
            crash_point("file-published")
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def rollback_on_error(path: Path) -> Iterator[None]:
    """Restore `path` where the block fails, from a hard link to the old file.

    Exit code 7 promises that nothing was published, but a rename is visible before it is durable,
    and some files count only together with one that follows. On a file system without hard links
    the new file stays.
    """
    is_new = not os.path.lexists(path)
    before = _temporary_path(path)
    with suppress(OSError):
        os.link(path, before, follow_symlinks=False)

    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink() if is_new else os.replace(before, path)
        raise
    finally:
        with suppress(OSError):
            before.unlink()


class NewDirectory:
    """A directory that is being written, under a temporary name.

    Scratch files may lie at its path, and must be removed before the end; `file` makes the others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file in it for writing; it is synced when the block succeeds."""
        with _open_new(self.path / name) as file:
            yield file
            crash_point("part-written")
            _sync(file)


@contextmanager
def publishing_directory(path: Path) -> Iterator[NewDirectory]:
    """Make a temporary directory next to `path`; it becomes `path` when the block succeeds.

    `path` must not exist. Many files may be open at once; each is synced when it is closed.
    """
    temporary = _temporary_path(path)
    with as_write_error(path):
        try:
            temporary.mkdir()
            yield NewDirectory(temporary)
            _sync_directory(temporary)
            crash_point("directory-synced")

            os.rename(temporary, path)
            crash_point("directory-named")
            try:
                _sync_directory(path.parent)
            except BaseException:
                os.rename(path, temporary)
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def publish_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the directory `path` with these files, all of them or none.

    The files are written in the mapping's order: put the manifest last. `path` must not exist.
    """
    with publishing_directory(path) as directory:
        for name, content in files.items():
            with directory.file(name) as file:
                file.write(content)


def replace_pointer(path: Path, text: str) -> None:
    """Write a file that holds one line."""
    with publishing_file(path) as file:
        file.write(f"{text}\n".encode())


def remove_directory(path: Path) -> None:
    """Remove a directory: rename it in one step, then delete its content.

    A reader finds all of it or nothing; a killed process leaves a temporary name. The rename is
    synced before the first file is deleted, or a power cut could bring the name back without files.
    """
    temporary = _temporary_path(path)
    with as_write_error(path):
        os.rename(path, temporary)
        _sync_directory(path.parent)
        crash_point("directory-unnamed")
        shutil.rmtree(temporary)


def remove_file(path: Path) -> None:
    """Remove a file; one that is gone already is no error."""
    with as_write_error(path):
        path.unlink(missing_ok=True)
        _sync_directory(path.parent)


def remove_stale_temps(directory: Path, *, pattern: str = "*") -> None:
    """Remove temporary files of killed writers, where possible.

    `pattern` is a glob for the names that the files were to get. The caller must hold the lock
    under which these are written.
    """
    random = "[0-9a-f]" * (2 * _RANDOM_BYTES)
    for path in directory.glob(f"{TEMPORARY_PREFIX}{random}-{pattern}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def make_directory(path: Path) -> None:
    """Make `path` and its parents durably; existing ones are left as they are."""
    with as_write_error(path):
        for directory in reversed((path, *path.parents)):
            if not directory.exists():
                directory.mkdir(exist_ok=True)
                _sync_directory(directory.parent)
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory")


def check_directory(path: Path) -> None:
    """Raise `WriteError` where no directory `path` could be made or written to; make nothing."""
    with as_write_error(path):
        nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is not a directory")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{nearest} does not let you write")


def check_file(path: Path) -> None:
    """Raise `WriteError` where no file `path` could be published: before the work, not after it."""
    with as_write_error(path):
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path} is a folder")
    check_directory(path.parent)


def check_not_overwriting(path: Path, source: Path, content: str) -> None:
    """Raise `UsageError` where both paths are the same file, by whatever names.

    `content` is what the file holds, for the message.
    """
    is_same = False
    with suppress(OSError):  # in a folder that may not be entered, which writing reports
        is_same = path.exists() and source.exists() and path.samefile(source)
    if is_same:
        raise UsageError(
            f"{path} holds {content}, and would be overwritten", hint="name another file"
        )


def _temporary_path(path: Path) -> Path:
    """Return a random name in the same directory that ends with the name of `path`."""
    prefix = f"{TEMPORARY_PREFIX}{secrets.token_hex(_RANDOM_BYTES)}-"
    n_bytes = _MAX_NAME_BYTES - len(prefix)
    return path.parent / (prefix + os.fsdecode(os.fsencode(path.name)[:n_bytes]))


def _open_new(path: Path) -> BinaryIO:
    """Open a new file for writing, with the mode of the umask; an existing one is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "wb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def as_write_error(location: AnyPath) -> Iterator[None]:
    """Turn an `OSError` into a `WriteError` that names the location, on a disk or a store."""
    try:
        yield
    except OSError as error:
        advice = "that the folder exists, that it can be written and that the disk has space"
        if is_remote(location):
            advice = "that the bucket exists, the credentials, and that the store can be reached"
        raise WriteError(
            f"cannot write {location}: {error.strerror or error}",
            code="cannot-write",
            hint=f"what was there before is unchanged; check {advice}",
        ) from error


def crash_point(label: str) -> None:
    """Kill this process at once, like a power cut, where the environment names this label."""
    setting = os.environ.get(CRASH_VARIABLE)
    if setting is None:
        return

    _passages[label] += 1
    # By default the first passage and SIGKILL.
    fatal_label, passage, signal_name = [*setting.split(":"), *("1", "KILL")[setting.count(":") :]]
    if fatal_label == label and _passages[label] == int(passage):
        os.kill(os.getpid(), signal.Signals[f"SIG{signal_name}"])
