"""Where results may be written: never over what they come from, nor among it.

It looks at paths only; what is in a file, and whether it can be read, others say.
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
from rnnforecast.durable import check_directory, check_file, check_spared
from rnnforecast.errors import UsageError
from rnnforecast.formats import check_format

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
    results = [] if options.rejects is None else [Path(options.rejects)]
    if output is not None:
        check_format(str(output), allows_stream=allows_stream)
    for path in (output, page):
        if path is not None and str(path) != STANDARD_OUTPUT:
            check_file(Path(path))
            _check_apart(Path(path), results)
            results.append(Path(path))
    sources = {"the readings": data, "bad times": options.exclude, **(others or {})}
    for path in results:
        for what, source in sources.items():
            if isinstance(source, str | Path) and str(source):
                _check_source_spared(path, str(source), what)


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
        _check_source_spared(path, str(data), "the readings")


def _check_apart(output: Path, rejects: list[Path]) -> None:
    for path in rejects:
        if path.resolve() == output.resolve():
            raise UsageError(
                f"{output} cannot hold two results at once",
                hint="name different files with  --output, --report  and  --rejects",
            )


def _check_source_spared(path: Path, source: str, what: str) -> None:
    """Raise `UsageError` where a source holds the file, or would the next time it is read."""
    with suppress(OSError, ValueError):  # no path at all, which is said where it is opened
        for file in files_of(source) if path.exists() else ():
            check_spared(path, file, what)
        if _takes_in(source, path):
            raise UsageError(
                f"{path} would lie among {what}, {source}, and be read with them the next time",
                hint="name a file elsewhere",
            )


def files_of(source: str) -> Iterator[Path]:
    """Give the files that a source stands for, as far as they are there."""
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
