"""Files while they are read: globs on stores, change guards, threads, memory limit."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.storage.remote import Place, Remote, list_below, look_at, stores

if TYPE_CHECKING:
    from rnnforecast.storage.stores import ObjectInfo

_MAGIC = frozenset("*[")
_State = tuple[int, int, int]
_MOST_THREADS = 8
AHEAD = 1
"""So many more things than threads are under way, so that no thread waits for one."""
Given = TypeVar("Given")
Made = TypeVar("Made")
_FIXED = 600 << 20
"""What the libraries need, however small a table is."""
_PER_READING, _PER_ROW = 6, 16
_SHARE = 0.8
"""So much of the machine's memory may be used where the user does not say."""


def open_remote(place: Remote) -> io.BufferedReader:
    """Open an object. Raises `DataError`, and so does each read of it that fails."""
    return place.open(turn=lambda error: unreadable(place, error))


def opened(place: Place) -> Place | io.BufferedReader:
    """Return what pyarrow opens: a path as it is, an object as a file that is read by ranges."""
    return open_remote(place) if isinstance(place, Remote) else place


def expand_remote(place: Remote) -> list[Remote]:
    """Return the objects that a URL stands for: itself, those below it, or a pattern's."""
    with reading(place):
        if _has_magic(place.url.key):
            found, code, what = _matching(place), "not-found", "matches no object"
        else:
            state = place.look()
            if state is not None and state.size is not None:
                return [place]
            found = [one for one in list_below(place) if not _is_hidden(one.parts_below(place))]
            if state is None:
                stores().check_bucket(place.url)
            is_there = state is not None
            code, what = ("empty", "has no files") if is_there else ("not-found", "does not exist")
    if found:
        return found
    raise DataError(
        f"{place} {what}",
        code=code,
        location=Location(str(place)),
        hint="check the URL; quote a pattern such as 's3://bucket/a/*.csv'",
    )


def states_of(places: Sequence[Remote]) -> list[ObjectInfo | None]:
    """Look at objects side by side; None for one that is gone. Raises `DataError`."""
    if not places:
        return []
    with reading(places[0]):
        return look_at(places)


@contextmanager
def reading(place: Remote) -> Iterator[None]:
    """Turn what a store fails with into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise unreadable(place, error) from error


def unreadable(place: Remote, error: OSError) -> DataError:
    """Say that an object cannot be read, and why."""
    is_missing = isinstance(error, FileNotFoundError)
    return DataError(
        f"{place} cannot be read: {error.strerror or error}",
        code="not-found" if is_missing else "unreadable",
        location=Location(str(place)),
        hint="check the URL, the credentials in the environment, and the network",
    )


def fits_pattern(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a path fits a pattern, part by part; `**` stands for any number of parts."""
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == "**":
        return fits_pattern(parts, rest) or (
            bool(parts) and not parts[0].startswith(".") and fits_pattern(parts[1:], pattern)
        )
    return (
        bool(parts)
        and fnmatchcase(parts[0], first)
        and (first.startswith(".") or not parts[0].startswith("."))
        and fits_pattern(parts[1:], rest)
    )


def takes_in(source: Remote, place: Remote) -> bool:
    """Tell whether a URL, be it a folder's or a pattern, takes in an object of this name."""
    folder, pattern = _fixed_part(source)
    if not place.is_relative_to(folder):
        return False
    parts = place.parts_below(folder)
    return fits_pattern(parts, pattern) if pattern else not _is_hidden(parts)


def _fixed_part(place: Remote) -> tuple[Remote, list[str]]:
    """Return the folder that a pattern begins with, and the pattern below it."""
    parts = place.url.key.split("/")
    n_fixed = next((i for i, part in enumerate(parts) if _has_magic(part)), len(parts))
    return Remote(place.url.at("/".join(parts[:n_fixed]))), parts[n_fixed:]


def _matching(place: Remote) -> list[Remote]:
    folder, pattern = _fixed_part(place)
    found = list_below(folder, is_deep=len(pattern) > 1 or "**" in pattern)
    return [one for one in found if fits_pattern(one.parts_below(folder), pattern)]


def _has_magic(text: str) -> bool:
    return not _MAGIC.isdisjoint(text)


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(("_", ".")) for part in parts)


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


def in_threads(work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """Do the same with all that is given, a few ahead; what is made comes in order.

    One thing alone is done in this thread. What the work raises is raised where its result would
    have come.
    """
    rest = iter(given)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    most = n_threads() + AHEAD
    pool = ThreadPoolExecutor(n_threads())
    waiting: deque[Future[Made]] = deque()
    try:
        for one in chain(first, rest):
            waiting.append(pool.submit(work, one))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def n_threads() -> int:
    """Return how many threads work: one for each processor that Arrow may use, 8 at most."""
    return int(min(pa.cpu_count(), _MOST_THREADS))


def check_memory(n_rows: int, n_targets: int, config: DataConfig, name: str) -> None:
    """Raise `DataError` where so many rows need more than may be used."""
    needed = _FIXED + n_rows * (_PER_ROW + n_targets * _PER_READING)
    limit = config.memory_limit
    if limit is None:
        limit = int(_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if needed > limit:
        raise DataError(
            f"{name} needs about {_in_words(needed)} of memory for {n_rows} rows and {n_targets} "
            f"columns, but {_in_words(limit)} may be used",
            code="memory",
            location=Location(name),
            hint=f"if it has that much, add  --max-memory {(needed >> 20) + 1}M ; else name fewer "
            "columns with  --target",
        )


def _in_words(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 30):.1f} GB"
