"""Whether files stay as they are while they are read: loggers append, jobs replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.places.remote import Place, Remote
from rnnforecast.sources.remotefiles import states_of

_State = tuple[int, int, int]


@contextmanager
def watching(places: Sequence[Place], listener: Listener) -> Iterator[None]:
    """Warn of a file that grows while the block reads it; raise `DataError` for other changes.

    Objects of a store do not grow: any change is one.
    """
    before = {path: _state(path) for path in places if isinstance(path, Path)}
    remote = [place for place in places if isinstance(place, Remote)]
    objects = states_of(remote)
    yield
    for place, was, now in zip(remote, objects, states_of(remote), strict=True):
        if now != was or now is None:
            raise _changed(place)
    for path, (inode, size, changed) in before.items():
        new_inode, new_size, new_changed = _state(path)
        if (new_inode, new_size, new_changed) == (inode, size, changed):
            continue
        if new_inode != inode or new_size <= size:
            raise _changed(path)
        what = f"{path} grew while it was read: what was written first counts"
        listener(Warned("growing", what))


def _changed(place: Place) -> DataError:
    return DataError(
        f"{place} was replaced or rewritten while it was read",
        code="changed",
        location=Location(str(place)),
        hint="run again when it is complete",
    )


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error}", code="unreadable", location=Location(str(path))
        ) from error
    return found.st_ino, found.st_size, found.st_mtime_ns
