"""Whether files stay as they are while they are read: loggers append, jobs replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned

_State = tuple[int, int, int]


@contextmanager
def watching(paths: Sequence[Path], listener: Listener) -> Iterator[None]:
    """Warn of a file that grows while the block reads it; raise `DataError` for other changes."""
    before = {path: _state(path) for path in paths}
    yield
    for path, (inode, size, changed) in before.items():
        new_inode, new_size, new_changed = _state(path)
        if (new_inode, new_size, new_changed) == (inode, size, changed):
            continue
        if new_inode != inode or new_size <= size:
            raise DataError(
                f"{path} was replaced or rewritten while it was read",
                code="changed",
                location=Location(str(path)),
                hint="run again when it is complete",
            )
        what = f"{path} grew while it was read: what was written first counts"
        listener(Warned("growing", what))


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error}", code="unreadable", location=Location(str(path))
        ) from error
    return found.st_ino, found.st_size, found.st_mtime_ns
