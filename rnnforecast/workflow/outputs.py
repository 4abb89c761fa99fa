"""Where results may be written: never over what they come from, nor among it.

It looks at names only; what is in a file, and whether it can be read, others say.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from rnnforecast.config import STANDARD_OUTPUT
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durable import check_directory, check_spared
from rnnforecast.errors import UsageError
from rnnforecast.formats import check_format
from rnnforecast.places.publishing import check_file
from rnnforecast.places.remote import Place, Remote, local_path, place_of

_STANDARD_INPUT, _STANDARD_INPUT_FILE = "-", "/dev/stdin"


def check_outputs(
    data: object,
    options: DataConfig,
    *,
    output: str | Path | None = None,
    page: str | Path | None = None,
    others: Mapping[str, object] | None = None,
    allows_stream: bool = True,
) -> None:
    """Raise where a result could not be written, or would overwrite something that is read.

    Results are the `output`, a `page` or picture, and the rows that are rejected; read are the
    readings, the times that are bad, and `others`, which are named for messages.
    """
    results: list[Place] = []
    if options.rejects is not None:
        results.append(local_path(options.rejects, "--rejects"))
    if options.exclude is not None:
        local_path(options.exclude, "--exclude")
    if output is not None:
        check_format(str(output), allows_stream=allows_stream)
    if page is not None:
        page = local_path(page, "a picture or a report")
    for path in (output, page):
        if path is not None and str(path) != STANDARD_OUTPUT:
            place = place_of(path)
            check_file(place)
            _check_apart(place, results)
            results.append(place)
    sources = {"the readings": data, "bad times": options.exclude, **(others or {})}
    for place in results:
        for what, source in sources.items():
            if isinstance(source, str | Path) and str(source):
                _check_source_spared(place, source, what)


def check_new_directory(path: Path, data: object, options: DataConfig) -> None:
    """Raise where a directory could not be made, is there already, or would lie among readings."""
    if os.path.lexists(path):
        raise UsageError(
            f"{path} exists already, and is never written over",
            hint="name another folder with  --output , or remove this one first",
        )
    check_directory(path.parent)
    check_outputs(data, options)
    if isinstance(data, str | Path) and str(data):
        _check_source_spared(path, data, "the readings")


def _check_apart(output: Place, rejects: list[Place]) -> None:
    for path in rejects:
        if path.resolve() == output.resolve():
            raise UsageError(
                f"{output} cannot hold two results at once",
                hint="name different files with  --output, --report  and  --rejects",
            )


def _check_source_spared(path: Place, data: str | Path, what: str) -> None:
    """Raise `UsageError` where a source holds the file, or would the next time it is read."""
    place, source = place_of(data), str(data)
    if isinstance(path, Remote) or isinstance(place, Remote):
        if isinstance(path, Remote) and isinstance(place, Remote):
            _check_object_spared(path, place, what)
        return
    with suppress(OSError, ValueError):  # no path at all, which is said where it is opened
        for file in _local_files_of(source) if path.exists() else ():
            check_spared(path, file, what)
        if _takes_in(source, path):
            raise _among(path, source, what)


def _check_object_spared(path: Remote, source: Remote, what: str) -> None:
    """Do the same on a store, by names alone."""
    from rnnforecast.sources.remotefiles import takes_in

    if path == source:
        raise UsageError(f"{path} holds {what}, and would be overwritten", hint="name another file")
    if takes_in(source, path):
        raise _among(path, source, what)


def _among(path: Place, source: object, what: str) -> UsageError:
    return UsageError(
        f"{path} would lie among {what}, {source}, and be read with them the next time",
        hint="name a file elsewhere",
    )


def files_of(source: str) -> Iterator[Place]:
    """Give the files, or objects, that a source stands for, as far as they are there."""
    if isinstance(place := place_of(source), Remote):
        from rnnforecast.sources.remotefiles import expand_remote

        yield from expand_remote(place)
    else:
        yield from _local_files_of(source)


def _local_files_of(source: str) -> Iterator[Path]:
    path = Path(_STANDARD_INPUT_FILE if source == _STANDARD_INPUT else source)
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif path.exists():
        yield path
    else:
        yield from map(Path, glob.iglob(source, recursive=True))  # noqa: PTH207


def _takes_in(source: str, path: Path) -> bool:
    """Tell whether a folder or a pattern takes in a file of this name, be it there or not."""
    if Path(source).is_dir():
        return path.resolve().is_relative_to(Path(source).resolve())
    if Path(source).exists() or not glob.has_magic(source):
        return False
    parts = Path(source).parts
    n_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base, rest = Path(*parts[:n_fixed]).resolve(), parts[n_fixed:]
    place = path.parent.resolve() / path.name
    if "**" in rest:
        return place.is_relative_to(base) and fnmatch(place.name, rest[-1])
    return place.match(str(Path(glob.escape(str(base)), *rest)))
