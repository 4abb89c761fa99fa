"""What is read: folders, patterns, streams; threads, memory; what must not overwrite it."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa

from rnnforecast.config.commands import check_format
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import STANDARD_OUTPUT
from rnnforecast.errors import DataError, Location, Proposal, UsageError
from rnnforecast.sources.inputs import not_a_file, unreadable
from rnnforecast.storage.durable import check_directory, check_not_overwriting
from rnnforecast.storage.publish import check_file
from rnnforecast.storage.remote import (
    AnyPath,
    RemotePath,
    as_path,
    is_remote,
    list_objects,
    local_path,
    stores,
)
from rnnforecast.system import physical_memory
from rnnforecast.urls import parse_database

_STANDARD_INPUT, _STANDARD_INPUT_FILE = "-", "/dev/stdin"
_MAGIC = frozenset("*[")
"""Characters that make a pattern of a URL; a question mark begins its query."""
_MAX_THREADS = 8
AHEAD = 1
"""Tasks that are submitted beyond the number of threads, so that no thread waits for one."""
_CHUNK_BYTES = 1 << 20
_MAX_COMPARED = 2000
"""Names in a folder that are compared with that of a missing file."""
Item = TypeVar("Item")
Result = TypeVar("Result")
_BASE_BYTES = 600 << 20
"""Memory that the libraries need, however small a table is."""
_BYTES_PER_READING, _BYTES_PER_ROW = 6, 16
_MEMORY_SHARE = 0.8
"""Share of the machine's memory that may be used where the user sets no limit."""


def expand_path(text: str) -> list[Path]:
    """Return the files that a path stands for: itself, a folder's files, or those of a glob."""
    path = Path(text)
    try:
        path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"{text} is not a valid path: {error}", code="not-found") from error

    if path.is_dir():
        files = sorted(_walk(path))
        if files:
            return files
        raise DataError(f"folder {text} is empty", code="empty", location=Location(text))

    if path.exists():
        if not path.is_file():
            raise not_a_file(path)
        return [path]

    matches = _match_pattern(text)
    if matches:
        return matches
    problem = "matches no file" if glob.has_magic(text) else "does not exist"
    similar = None if glob.has_magic(text) else _similar_file(path)
    raise DataError(
        f"{text} {problem}",
        code="not-found",
        hint=f"did you mean {similar}?"
        if similar
        else "check the path; quote a pattern such as 'a/*.csv'",
    )


def _similar_file(path: Path) -> Path | None:
    """Return the path in the same folder whose name is most like that of one that is missing."""
    with suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, _MAX_COMPARED)]
        return next((path.with_name(n) for n in get_close_matches(path.name, names, n=1)), None)
    return None


def expand_url(path: RemotePath) -> list[RemotePath]:
    """Return the objects that a URL stands for: itself, those below it, or those of a pattern."""
    with as_data_error(path):
        if _has_magic(path.url.key):
            folder, pattern = _split_pattern(path)
            candidates = list_objects(folder, recursive=len(pattern) > 1 or "**" in pattern)
            paths = [p for p in candidates if matches_pattern(p.relative_parts(folder), pattern)]
            code, problem = "not-found", "matches no object"
        else:
            info = path.get_info()
            if info is not None and info.size is not None:
                return [path]
            candidates = list_objects(path)
            paths = [p for p in candidates if not _is_hidden(p.relative_parts(path))]
            code, problem = "empty", "has no files"
            if info is None:
                stores().check_bucket(path.url)
                code, problem = "not-found", "does not exist"

    if paths:
        return paths
    raise DataError(
        f"{path} {problem}",
        code=code,
        location=Location(str(path)),
        hint="check the URL; quote a pattern such as 's3://bucket/a/*.csv'",
    )


def standard_input_chunks(name: str, limit: int) -> Iterator[bytes]:
    """Yield the bytes of standard input. Raises `DataError` beyond a limit: it may be endless."""
    n_read = 0
    while True:
        try:
            chunk = sys.stdin.buffer.read(_CHUNK_BYTES)
        except OSError as error:
            raise DataError(
                f"cannot read {name}: {error.strerror or error}",
                code="unreadable",
                location=Location(name),
            ) from error
        if not chunk:
            return
        n_read += len(chunk)
        if n_read > limit:
            raise DataError(
                f"{name} is larger than --max-input-bytes",
                code="input-bytes",
                location=Location(name),
                proposals=[
                    Proposal(("--max-input-bytes", "1T"), "if the input really is that large")
                ],
            )
        yield chunk


@contextmanager
def as_data_error(path: RemotePath) -> Iterator[None]:
    """Turn an error of a store into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def matches_pattern(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a path matches a pattern, part by part; `**` is any number of parts.

    As in `glob`, what is hidden is matched only by a pattern that begins with a dot.
    """
    if not pattern:
        return not parts
    first, *remaining = pattern

    if first == "**":
        return matches_pattern(parts, remaining) or (
            bool(parts) and not parts[0].startswith(".") and matches_pattern(parts[1:], pattern)
        )
    return (
        bool(parts)
        and fnmatchcase(parts[0], first)
        and (first.startswith(".") or not parts[0].startswith("."))
        and matches_pattern(parts[1:], remaining)
    )


def is_read_with(source: RemotePath, path: RemotePath) -> bool:
    """Tell whether an object of this name would be read with a URL of a folder or a pattern."""
    folder, pattern = _split_pattern(source)
    if not path.is_relative_to(folder):
        return False
    parts = path.relative_parts(folder)
    return matches_pattern(parts, pattern) if pattern else not _is_hidden(parts)


def _split_pattern(path: RemotePath) -> tuple[RemotePath, list[str]]:
    """Return the folder that a pattern begins with, and the parts of the pattern below it."""
    parts = path.url.key.split("/")
    fixed = list(takewhile(lambda part: not _has_magic(part), parts))
    return RemotePath(path.url.with_key("/".join(fixed))), parts[len(fixed) :]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, but hidden ones; links to folders are not followed.

    Raises `DataError` for what cannot be looked at: a file that is left out makes a wrong forecast.
    """
    for entry in _list_folder(folder):
        if _is_hidden((entry.name,)):
            continue
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            is_file = not is_folder and stat.S_ISREG(entry.stat().st_mode)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not entry.is_symlink():
                continue  # it was removed meanwhile
            raise _not_listed(Path(entry.path), error) from error
        if is_folder:
            yield from _walk(Path(entry.path))
        elif is_file:
            yield Path(entry.path)


def _match_pattern(text: str) -> list[Path]:
    """Return what matches a pattern, as `glob` does. Raises `DataError` for what it hides."""
    folder, pattern = _split_local_pattern(Path(text))
    return sorted(set(_matches_below(folder, pattern)), key=str) if pattern else []


def _split_local_pattern(path: Path) -> tuple[Path, Sequence[str]]:
    """Return the folder that a pattern begins with, and the parts of the pattern below it."""
    fixed = list(takewhile(lambda part: not glob.has_magic(part), path.parts))
    return Path(*fixed), path.parts[len(fixed) :]


def _matches_below(
    folder: Path, pattern: Sequence[str], above: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """Yield what matches the parts of a pattern in a folder; nothing where there is no folder.

    `above` are the folders that were entered for `**`: a link to one of them is not followed.
    """
    first, *remaining = pattern
    if not glob.has_magic(first):
        path = folder / first
        if remaining:
            yield from _matches_below(path, remaining)
        elif _exists(path):
            yield path
        return

    is_any_depth = first == "**"
    if is_any_depth:
        resolved = folder.resolve()
        if resolved in above:
            return
        above = (*above, resolved)
        if remaining:
            yield from _matches_below(folder, remaining)
    for entry in _list_folder(folder, missing_ok=True):
        is_hidden = entry.name.startswith(".") and not first.startswith(".")
        if is_hidden or not (is_any_depth or fnmatchcase(entry.name, first)):
            continue
        path = folder / entry.name
        if not remaining:
            yield path
        if is_any_depth and not _is_file(entry):
            yield from _matches_below(path, pattern, above)
        elif remaining and not is_any_depth:
            yield from _matches_below(path, remaining)


def _list_folder(folder: Path, *, missing_ok: bool = False) -> list[os.DirEntry[str]]:
    """Return what lies in a folder. Raises `DataError` where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if missing_ok and isinstance(error, FileNotFoundError | NotADirectoryError):
            return []
        raise _not_listed(folder, error) from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a file, and no link."""
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError as error:
        raise _not_listed(Path(entry.path), error) from error


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _not_listed(path, error) from error
    return True


def _not_listed(path: Path, error: OSError) -> DataError:
    """Return the error for a file or a folder of the readings that cannot be looked at."""
    return DataError(
        f"cannot access {path}: {error.strerror or error}",
        code="unreadable",
        location=Location(str(path)),
        hint="make it readable, or select files with a quoted pattern",
    )


def _has_magic(text: str) -> bool:
    return not _MAGIC.isdisjoint(text)


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(("_", ".")) for part in parts)


def thread_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of a function of each item, in order, computed a few items ahead.

    A single item is processed in this thread. An exception of the function is raised in the place
    of its result.
    """
    iterator = iter(items)
    first = list(islice(iterator, 2))
    if len(first) < 2:
        yield from map(function, first)
        return

    max_waiting = n_threads() + AHEAD
    pool = ThreadPoolExecutor(n_threads())
    waiting: deque[Future[Result]] = deque()
    try:
        for item in chain(first, iterator):
            waiting.append(pool.submit(function, item))
            if len(waiting) > max_waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def n_threads() -> int:
    """Return how many threads are used: one for each processor that Arrow may use, 8 at most."""
    return int(min(pa.cpu_count(), _MAX_THREADS))


def check_memory(n_rows: int, n_targets: int, config: DataConfig, name: str) -> None:
    """Raise `DataError` where `n_rows` need more memory than may be used."""
    needed = _BASE_BYTES + n_rows * (_BYTES_PER_ROW + n_targets * _BYTES_PER_READING)
    purpose = f"for {n_rows} rows and {n_targets} columns"
    check_fits(needed, name, purpose, config, hint="or forecast fewer columns")


def check_fits(needed: int, name: str, purpose: str, config: DataConfig, *, hint: str) -> None:
    """Raise `DataError` where something needs more bytes than the user or the machine allows."""
    limit = config.memory_limit
    if limit is None:
        memory = physical_memory()
        limit = needed if memory is None else int(_MEMORY_SHARE * memory)

    if needed > limit:
        raise DataError(
            f"{name} needs about {_gigabytes(needed)} of memory {purpose}; the limit is "
            f"{_gigabytes(limit)}",
            code="memory",
            location=Location(name),
            proposals=[
                Proposal(("--max-memory", f"{(needed >> 20) + 1}M"), "if the machine has that much")
            ],
            hint=hint,
        )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 30):.1f} GB"


def as_table(data: object) -> object:
    """Return readings that can be read again: whatever streams Arrow's batches as an Arrow table.

    Such are tables of polars, queries of DuckDB, and readers, which end after one reading; texts
    are no views in it. Paths and tables of pandas, whose index counts, are returned as they are.
    Raises `DataError`.
    """
    if isinstance(data, pd.DataFrame | pd.Series) or not hasattr(data, "__arrow_c_stream__"):
        return data
    try:
        table = pa.table(data)
        fields = [field.with_type(_without_views(field.type)) for field in table.schema]
        return table.cast(pa.schema(fields))
    except (pa.ArrowException, ValueError) as error:
        name = type(data).__name__
        raise DataError(f"the {name} cannot be read: {error}", code="unreadable") from error


def _without_views(type_: pa.DataType) -> pa.DataType:
    """Return the type of texts for views, which few functions of Arrow know; others as they are."""
    if pa.types.is_dictionary(type_):
        values = _without_views(type_.value_type)
        return pa.dictionary(type_.index_type, values, ordered=type_.ordered)
    return pa.large_string() if pa.types.is_string_view(type_) else type_


def check_outputs(
    data: object,
    options: DataConfig,
    *,
    output: str | Path | None = None,
    page: str | Path | None = None,
    inputs: Mapping[str, object] | None = None,
    allows_stream: bool = True,
) -> None:
    """Raise where a result could not be written, or would overwrite something that is read.

    Results are the `output`, a `page` or picture, and the rejected rows; inputs are the readings,
    the list of bad times, and `inputs`, by the names that messages give them.
    """
    results: list[AnyPath] = []
    if options.rejects is not None:
        rejects = local_path(options.rejects, "--rejects")
        check_file(rejects)
        results.append(rejects)
    if options.exclude is not None:
        local_path(options.exclude, "--exclude")
    if output is not None:
        check_format(str(output), allows_stream=allows_stream)
    if page is not None:
        page = local_path(page, "a picture or a report")

    for path in (output, page):
        if path is not None and str(path) != STANDARD_OUTPUT:
            place = as_path(path)
            check_file(place)
            if any(result.resolve() == place.resolve() for result in results):
                raise UsageError(
                    f"{place} is used for two results",
                    hint="use different files for  --output, --report  and  --rejects",
                )
            results.append(place)

    sources = {"the readings": data, "the excluded periods": options.exclude, **(inputs or {})}
    for place in results:
        for description, source in sources.items():
            if isinstance(source, str | Path) and str(source):
                check_spared(place, source, description)


def check_new_directory(path: Path, data: object, options: DataConfig) -> None:
    """Raise where a directory exists, cannot be made, or would lie among the readings."""
    if os.path.lexists(path):
        raise UsageError(
            f"{path} already exists and is never overwritten",
            hint="choose another folder with  --output , or remove this one first",
        )
    check_directory(path.parent)
    check_outputs(data, options)
    if isinstance(data, str | Path) and str(data):
        check_spared(path, data, "the readings")


def check_spared(output: AnyPath, data: str | Path, description: str) -> None:
    """Raise `UsageError` where an output is one of the files of an input, or would become one.

    An input that is a folder or a pattern would read the output the next time. On an object store
    only names are compared.
    """
    place, source = as_path(data), str(data)
    if is_remote(output) and is_remote(place):
        if output == place:
            raise UsageError(
                f"{output} contains {description} and would be overwritten",
                hint="choose another file",
            )
        if is_read_with(place, output):
            raise _would_be_read(output, place, description)
    if is_remote(output) or is_remote(place):
        return

    with suppress(OSError, ValueError):  # opening the source reports a path that is invalid
        for file in _local_files_of(source) if output.exists() else ():
            check_not_overwriting(output, file, description)
        if _would_match(source, output):
            raise _would_be_read(output, source, description)


def _would_be_read(output: AnyPath, source: object, description: str) -> UsageError:
    return UsageError(
        f"{output} is inside the folder of {description}, {source}, and would be read as data "
        "next time",
        hint="choose a file elsewhere",
    )


def _would_match(source: str, path: Path) -> bool:
    """Tell whether a folder or a glob pattern includes a path, whether it exists or not."""
    if Path(source).is_dir():
        return path.resolve().is_relative_to(Path(source).resolve())
    if Path(source).exists() or not glob.has_magic(source):
        return False

    # Links are resolved in the folders before the first wildcard, and in those of the path.
    folder, pattern = _split_local_pattern(Path(source))
    base, resolved = folder.resolve(), path.parent.resolve() / path.name
    if not resolved.is_relative_to(base):
        return False
    return matches_pattern(resolved.relative_to(base).parts, pattern)


def _local_files_of(source: str) -> Iterator[Path]:
    path = as_path(_STANDARD_INPUT_FILE if source == _STANDARD_INPUT else source)
    assert not is_remote(path)
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif path.exists():
        yield path
    else:
        yield from _match_pattern(source)


def lies_beside(source: str, model: AnyPath) -> bool:
    """Tell whether a source lies in the folder that holds a model, or in the same bucket.

    Links are followed. Hidden files never do, nor does anything where that folder is the root, nor
    a database of DuckDB, whose queries may read other files and hosts.
    """
    database = parse_database(source)
    if database is not None and database.kind != "sqlite":
        return False
    place = as_path(source) if database is None else Path(database.path)
    if is_remote(model) or is_remote(place):
        if not (is_remote(model) and is_remote(place)):
            return False
        return place.url.with_key("") == model.url.with_key("")

    folder = model.resolve().parent
    if folder == folder.parent:
        return False

    def is_inside(path: Path) -> bool:
        path = path.resolve()
        return path.is_relative_to(folder) and not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        )

    if not is_inside(place if place.exists() else _split_local_pattern(place)[0]):
        return False
    files = expand_path(str(place))
    linked = [file for file in files if file.is_symlink()]
    return all(map(is_inside, {*linked, *(file.parent for file in files if file != place)}))
