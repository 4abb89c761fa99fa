"""DATA on an object store: which objects a URL stands for, and how one is opened.

Below `reading`, as `textfile` is for the files of a disk. What fails is a `DataError`, also in the
middle of an object.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from rnnforecast.errors import DataError, Location
from rnnforecast.places.remote import Place, Remote, list_below, look_at, stores
from rnnforecast.places.state import State

_MAGIC = frozenset("*[")


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


def states_of(places: Sequence[Remote]) -> list[State | None]:
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
