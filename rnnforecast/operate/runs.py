"""Published runs: a forecast, and beside it a manifest that names the hashes of what belongs to it.

A run counts as published when its manifest names its key and every file that it lists is what it
says. Whatever is missing, the same run adds; what is there stays.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.durable import collect_leftovers, remove_file
from rnnforecast.errors import UsageError
from rnnforecast.jobconfig import AS_OF, Job
from rnnforecast.places.publishing import publishing_file
from rnnforecast.places.remote import Place as AnyPlace

FORMAT, FORMAT_VERSION = "rnnforecast-run", 1
MANIFEST = "run.json"
_STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}(?:_[0-9]{6})?Z?"
"""What stands for `{as_of}` in the name of a file."""
_WHOLE, _FRACTION = (form.replace("#", "[0-9]") for form in ("####-##-##T######", "_######"))
_STAMP_GLOBS = tuple(_WHOLE + rest for rest in ("", "Z", _FRACTION, f"{_FRACTION}Z"))
"""The same, as patterns of files."""


@dataclass(frozen=True)
class Place:
    """Where one run of a job publishes."""

    output: Path
    manifest: Path


def place_of(job: Job, as_of: str) -> Place:
    """Return where a run of this time publishes: one manifest for each output."""
    output = job.output_of(as_of)
    if AS_OF not in job.output:
        return Place(output, output.parent / MANIFEST)
    return Place(output, output.with_suffix(f".{MANIFEST}"))


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the run's key: a hash of all that decides what it forecasts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read a run's manifest; None where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict) and said.get("format") == FORMAT:
            return said
    return None


def published(place: Place, key: str, *, ledger: Path | None) -> dict[str, Any] | None:
    """Return the manifest of a run that is published whole; None where something is missing.

    Of a job with a ledger a part there belongs to it.
    """
    said = read_manifest(place.manifest)
    if said is None or said.get("key") != key:
        return None
    is_there = _is_as_said(said.get("output"), place.output)
    if ledger is not None:
        part = ledger / Path(_path_of(said.get("ledger"))).name
        is_there = is_there and _is_as_said(said.get("ledger"), part)
    return said if is_there else None


def check_own_place(place: Place, job: Job) -> None:
    """Raise `UsageError` where the manifest there belongs to another job's output."""
    said = read_manifest(place.manifest)
    if said is None:
        return
    other = said.get("job"), _path_of(said.get("output"))
    if other[0] != str(job.path.resolve()) and other[1] != str(place.output.resolve()):
        raise UsageError(
            f"{place.manifest} belongs to another job, {other[0]}, with the output {other[1]}",
            code="shared-output",
            hint="let each job write to a folder of its own",
        )


def publish(path: AnyPlace, content: bytes) -> dict[str, Any]:
    """Publish a file, unless it is what it should be already; return what a manifest says of it."""
    if not _holds(path, content):
        with publishing_file(path) as file:
            file.write(content)
    return describe(path, content)


def describe(path: AnyPlace, content: bytes) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": str(path.resolve()), "bytes": len(content), "sha256": sha256}


def write_manifest(path: Path, said: Mapping[str, Any]) -> None:
    """Publish a run's manifest."""
    content = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **said}, indent=2)
    publish(path, f"{content}\n".encode())


def describe_input(path: AnyPlace) -> dict[str, Any]:
    """Return the same of a file that was read, and that may be large."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return {"path": str(path.resolve()), "bytes": size, "sha256": sha256}


def describe_source(place: AnyPlace) -> dict[str, Any]:
    """Return the same of what was read, wherever it is; an object is not fetched again for it."""
    if isinstance(place, Path):
        return describe_input(place)
    state = place.look()
    if state is None:
        return {"path": str(place)}
    changed = datetime.fromtimestamp((state.changed_ns or 0) / 1e9, UTC)
    return {"path": str(place), "bytes": state.size, "changed": changed.isoformat()}


def list_outputs(job: Job) -> list[Path]:
    """Return the outputs of a job whose names carry the as-of time, oldest first."""
    pattern = Path(job.output)
    if AS_OF not in job.output:
        return [pattern] if pattern.exists() else []
    before, _, after = pattern.name.partition(AS_OF)
    after = re.escape(after).replace(re.escape(AS_OF), _STAMP)
    name = re.compile(re.escape(before) + f"({_STAMP})" + after)
    try:
        named = [(m[1], p) for p in pattern.parent.iterdir() if (m := name.fullmatch(p.name))]
        found = [(stamp, path) for stamp, path in named if path.is_file()]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def newest_manifest(job: Job) -> dict[str, Any] | None:
    """Return the manifest of the newest published run; None where there is none."""
    if AS_OF not in job.output:
        return read_manifest(Path(job.output).parent / MANIFEST)
    for output in reversed(list_outputs(job)):
        said = read_manifest(output.with_suffix(f".{MANIFEST}"))
        if said is not None:
            return said
    return None


def retire_outputs(job: Job, *, spared: Path) -> list[Path]:
    """Remove all outputs but the newest `keep.forecasts`, and `spared`; return what is gone.

    The manifest goes first: a forecast without one is found again by who is cut short here.
    """
    if job.keep.forecasts is None or AS_OF not in job.output:
        return []
    gone = [path for path in list_outputs(job)[: -job.keep.forecasts] if path != spared]
    for path in gone:
        remove_file(path.with_suffix(f".{MANIFEST}"))
        remove_file(path)
    return gone


def collect(job: Job) -> None:
    """Remove what killed runs of this job have left; its lock must be held."""
    place = place_of(job, AS_OF)
    written = [place.output, place.manifest, *([Path(job.textfile)] if job.textfile else [])]
    for path in written:
        parts = [glob.escape(part) for part in path.name.split(AS_OF)]
        for of in {stamp.join(parts) for stamp in _STAMP_GLOBS}:
            collect_leftovers(path.parent, of=of)
    if job.ledger is not None:
        for stamp in _STAMP_GLOBS:
            collect_leftovers(Path(job.ledger), of=f"{stamp}_*_*.parquet")


def _path_of(said: Any) -> str:
    """Return the path of a file that a manifest names; nothing where it names none."""
    path = said.get("path") if isinstance(said, dict) else None
    return path if isinstance(path, str) else ""


def _is_as_said(said: Any, path: Path) -> bool:
    """Tell whether a file is the one that a manifest names, and what it says of it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = describe_input(path)
        return all(found[name] == said[name] for name in found)
    return False


def _holds(path: AnyPlace, content: bytes) -> bool:
    with suppress(OSError):
        size = path.stat().st_size if isinstance(path, Path) else path.size()
        return size == len(content) and path.read_bytes() == content
    return False
