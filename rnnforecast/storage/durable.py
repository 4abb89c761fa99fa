"""Durable, atomic writes to a disk, and the crash points at which tests kill a process.

No other module renames or fsyncs files.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from rnnforecast.errors import UsageError, WriteError
from rnnforecast.storage.remote import AnyPath, is_remote
from rnnforecast.system import IS_POSIX, is_writable, lock_file, open_flags

TEMPORARY_PREFIX = ".tmp-"
_RANDOM_BYTES = 6
_MAX_NAME_BYTES = 255
"""What file systems of Unix take; a longer name is cut in the temporary one."""
PIPE_PATIENCE_S = 1.0
"""How long a run that holds its lock waits for the reader of a log or a text file."""
_IDLE_S = 30.0
"""How long a pipe may have no reader, or take no byte, until a write to it is given up."""
_POLL_S = 0.05
_WRITE_BYTES = 1 << 16
_STANDARD_STREAMS = (1, 2)
CRASH_VARIABLE = "RNNFORECAST_CRASH_AT"
"""Names the crash point at which to die, as `LABEL[:PASSAGE[:SIGNAL]]`."""
_passages: Counter[str] = Counter()
"""How often each crash point was passed."""


@contextmanager
def publishing_output(path: Path, *, patience_s: float | None = None) -> Iterator[IO[bytes]]:
    """Open a file that a user has named; it gets its content when the block succeeds.

    A link is followed: what it leads to is replaced, in its own folder. An existing file keeps its
    mode and its owner. A device or a pipe is written to when the block ends, and stays what it is.
    Raises `WriteError` for what is none of these, and where a pipe takes nothing for `patience_s`,
    30 seconds where it is not given.
    """
    patience_s = _IDLE_S if patience_s is None else patience_s
    with as_write_error(path):
        target = resolve_output(path)
        existing = target.stat() if target is not None and target.exists() else None
    if target is not None:
        with publishing_file(target, existing=existing) as file:
            yield file
        return

    with as_write_error(path), tempfile.TemporaryFile(prefix="rnnforecast-") as buffer:
        yield buffer
        buffer.seek(0)
        descriptor = _open_stream(path, patience_s)
        try:
            while chunk := buffer.read(_WRITE_BYTES):
                _write_stream(descriptor, chunk, patience_s)
        finally:
            os.close(descriptor)


def resolve_output(path: Path) -> Path | None:
    """Return the file that an output is, behind all links; None for a pipe or a device.

    What this process prints to counts as a device, whatever it is redirected to. Raises `OSError`
    for a folder, a socket and a disk.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    mode = status.st_mode
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or _standard_stream(status) is not None:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, f"{path} is a folder")
    if not stat.S_ISREG(mode):
        kind = "a socket" if stat.S_ISSOCK(mode) else "a disk"
        raise OSError(errno.EINVAL, f"{path} is {kind}, and no file")
    return Path(os.path.realpath(path))


def _standard_stream(status: os.stat_result) -> int | None:
    """Return the descriptor of standard output or error that is this file."""
    for descriptor in _STANDARD_STREAMS:
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
    return None


def _open_stream(path: Path, patience_s: float) -> int:
    """Open a device, or a pipe once somebody reads from it, so that no write to it waits."""
    standard = _standard_stream(path.stat())
    if standard is not None:
        return os.dup(standard)
    flags = open_flags("O_WRONLY", "O_NONBLOCK", "O_NOCTTY")
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() >= deadline:
                message = f"nobody has read from this pipe for {patience_s:g} s"
                raise TimeoutError(errno.ETIMEDOUT, message) from error
        time.sleep(_POLL_S)


def _write_stream(descriptor: int, content: bytes, patience_s: float) -> None:
    """Write all of it. Raises `TimeoutError` where no byte is taken for too long."""
    while content:
        if not is_writable(descriptor, patience_s):
            message = f"nobody has read from this pipe for {patience_s:g} s"
            raise TimeoutError(errno.ETIMEDOUT, message)
        with suppress(BlockingIOError):
            content = content[os.write(descriptor, content) :]


@contextmanager
def publishing_file(path: Path, *, existing: os.stat_result | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`; it becomes `path` when the block succeeds.

    It has the mode and the owner of the `existing` file, or else those of a new one.
    """
    temporary = _temporary_path(path)
    with as_write_error(path):
        try:
            with _open_new(temporary) as file:
                if existing is not None:
                    _make_like(file.fileno(), existing)
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
        os.link(path, before, follow_symlinks=os.link not in os.supports_follow_symlinks)

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


def append_line(path: Path, line: bytes, *, max_bytes: int | None = None) -> None:
    """Append a line to a file in one write, so that those of several processes do not mix.

    A file that would become larger than `max_bytes` is renamed to `path.1` first, in the place of
    the one before. A pipe or a device is written to as it is; nobody waits longer than a second for
    a pipe's reader. Raises `OSError`.
    """
    if max_bytes is not None:
        _rotate(path, max_bytes - len(line))
    flags = open_flags("O_WRONLY", "O_APPEND", "O_CREAT", "O_NONBLOCK", "O_NOCTTY")
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads this pipe", str(path)) from error
        raise

    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.write(descriptor, line)
            return
        deadline = time.monotonic() + PIPE_PATIENCE_S
        while line:
            patience = max(0.0, deadline - time.monotonic())
            if not is_writable(descriptor, patience) or not patience:
                raise TimeoutError(errno.ETIMEDOUT, "its reader is too slow", str(path))
            with suppress(BlockingIOError):  # a pipe that is nearly full
                line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)


def _rotate(path: Path, max_bytes: int) -> None:
    """Rename a file of more bytes to `path.1`, unless another process is doing so, or it fails."""
    try:
        status = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode) or not status.st_size or status.st_size <= max_bytes:
        return

    with suppress(OSError), path.open("rb") as file:
        lock_file(file.fileno())
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            target = path.resolve()
            if not IS_POSIX:
                file.close()
            os.replace(target, target.with_name(f"{target.name}.1"))


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
    """Raise `WriteError` where no output `path` could be written: before the work, not after it."""
    with as_write_error(path):
        target = resolve_output(path)
        if target is None:
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, f"{path} does not let you write")
            return
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}")
    check_directory(target.parent)


def check_not_overwriting(path: Path, source: Path, content: str) -> None:
    """Raise `UsageError` where both paths are the same file, by whatever names.

    `content` is what the file holds, for the message.
    """
    with suppress(OSError):  # what cannot be looked at is reported where it is opened
        if path.samefile(source):
            raise UsageError(
                f"{path} holds {content}, and would be overwritten", hint="name another file"
            )


def is_same_place(path: Path, other: Path) -> bool:
    """Tell whether both are one file, by whatever names, or would become one."""
    if path.resolve() == other.resolve():
        return True
    with suppress(OSError):
        return path.samefile(other)
    return False


def _temporary_path(path: Path) -> Path:
    """Return a random name in the same directory that ends with the name of `path`."""
    prefix = f"{TEMPORARY_PREFIX}{secrets.token_hex(_RANDOM_BYTES)}-"
    n_bytes = _MAX_NAME_BYTES - len(prefix)
    return path.parent / (prefix + os.fsdecode(os.fsencode(path.name)[:n_bytes]))


def _open_new(path: Path) -> BinaryIO:
    """Open a new file for writing, with the mode of the umask; an existing one is an error."""
    descriptor = os.open(path, open_flags("O_WRONLY", "O_CREAT", "O_EXCL"), 0o666)
    return os.fdopen(descriptor, "wb")


def _make_like(descriptor: int, existing: os.stat_result) -> None:
    """Give a new file the mode of an existing one, and its owner where that is allowed.

    Windows has neither for an open file.
    """
    if not IS_POSIX:
        return
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (existing.st_uid, existing.st_gid):
        with suppress(OSError):
            os.fchown(descriptor, existing.st_uid, existing.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(existing.st_mode) & 0o777)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    if not IS_POSIX:
        return
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
