"""The only module that renames and fsyncs; and the crash points that tests stop at."""

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
from typing import BinaryIO

from rnnforecast.errors import UsageError, WriteError

TEMPORARY_PREFIX = ".tmp-"
_RANDOM_BYTES = 6
_LONGEST_NAME = 255
VARIABLE = "RNNFORECAST_CRASH_AT"
_passed: Counter[str] = Counter()


@contextmanager
def publishing_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; when the block ends well, it becomes `path`."""
    temporary = _temporary_beside(path)
    with _naming(path):
        try:
            with _create(temporary) as file:
                crash_point("file-created")
                yield file
                crash_point("file-written")
                _sync(file)
            crash_point("file-synced")
            with taking_back(path):
                os.replace(temporary, path)
                crash_point("file-named")
                _sync_directory(path.parent)
            crash_point("file-published")
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def taking_back(path: Path) -> Iterator[None]:
    """Make `path` what it was before, by a second name of the old file, where the block fails.

    Exit code 7 says that nothing was published, but a rename is seen before it is known to last,
    and some files count only with one that follows. On a file system without hard links the new
    file stays.
    """
    is_new = not os.path.lexists(path)
    before = _temporary_beside(path)
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

    At its path may lie what is needed meanwhile and gone before the end; `file` makes what stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file of it for writing; where the block ends well, it is synced."""
        with _create(self.path / name) as file:
            yield file
            crash_point("part-written")
            _sync(file)


@contextmanager
def publishing_directory(path: Path) -> Iterator[NewDirectory]:
    """Hand out a temporary directory beside `path`; when the block ends well, it becomes `path`.

    `path` must not exist. Many files may be open at once; each is synced as it is closed.
    """
    temporary = _temporary_beside(path)
    with _naming(path):
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
    """Make `path` a file that holds one line."""
    with publishing_file(path) as file:
        file.write(f"{text}\n".encode())


def remove_directory(path: Path) -> None:
    """Take a directory away: first its name, in one step, then what is in it.

    Who opens it later finds nothing, never a part; what a kill leaves has a temporary name. The
    name is gone for good before the first file is, or a power cut could bring it back without them.
    """
    temporary = _temporary_beside(path)
    with _naming(path):
        os.rename(path, temporary)
        _sync_directory(path.parent)
        crash_point("directory-unnamed")
        shutil.rmtree(temporary)


def remove_file(path: Path) -> None:
    """Take a file away; one that is gone already is no error."""
    with _naming(path):
        path.unlink(missing_ok=True)
        _sync_directory(path.parent)


def collect_leftovers(directory: Path, *, of: str = "*") -> None:
    """Remove what a killed writer has left for names that fit a pattern, as far as it can be.

    Only for who holds the lock under which those names are written.
    """
    random = "[0-9a-f]" * (2 * _RANDOM_BYTES)
    for path in directory.glob(f"{TEMPORARY_PREFIX}{random}-{of}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def make_directory(path: Path) -> None:
    """Make `path` and its parents, durably; one that exists is left as it is."""
    with _naming(path):
        for directory in reversed((path, *path.parents)):
            if not directory.exists():
                directory.mkdir(exist_ok=True)
                _sync_directory(directory.parent)
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory")


def check_directory(path: Path) -> None:
    """Raise `WriteError` where no directory `path` could be made or written to; make nothing."""
    with _naming(path):
        nearest = next(known for known in (path, *path.parents) if os.path.lexists(known))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is not a directory")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{nearest} does not let you write")


def check_file(path: Path) -> None:
    """Raise `WriteError` where no file `path` could be published: before the work, not after it."""
    with _naming(path):
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path} is a folder")
    check_directory(path.parent)


def check_spared(path: Path, kept: Path, what: str) -> None:
    """Raise `UsageError` where `path` is the file `kept`, by whatever name, and so overwrites it.

    `what` says what the file holds.
    """
    if path.exists() and kept.exists() and path.samefile(kept):
        raise UsageError(f"{path} holds {what}, and would be overwritten", hint="name another file")


def _temporary_beside(path: Path) -> Path:
    """Return a new name in the same directory that says what it is for."""
    beginning = f"{TEMPORARY_PREFIX}{secrets.token_hex(_RANDOM_BYTES)}-"
    room = _LONGEST_NAME - len(beginning)
    return path.parent / (beginning + os.fsdecode(os.fsencode(path.name)[:room]))


def _create(path: Path) -> BinaryIO:
    """Open a new file for writing; its mode follows the umask, an existing one is an error."""
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
def _naming(path: Path) -> Iterator[None]:
    """Turn an OSError into a WriteError that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"cannot write {path}: {reason}",
            code="cannot-write",
            hint="what was there before is unchanged; "
            "check that the folder exists, that it can be written and that the disk has space",
        ) from error


def crash_point(label: str) -> None:
    """Die as by a power cut, without a word, where the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    _passed[label] += 1
    name, time, how = [*wanted.split(":"), *("1", "KILL")[wanted.count(":") :]]
    if name == label and _passed[label] == int(time):
        os.kill(os.getpid(), signal.Signals[f"SIG{how}"])
