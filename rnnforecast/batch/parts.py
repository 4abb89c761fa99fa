"""The parts of a batch and their manifests: what is done, what is missing, what is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnforecast.errors import DataError
from rnnforecast.storage import publish
from rnnforecast.storage.durable import collect_leftovers, crash_point
from rnnforecast.storage.publish import make_directory, replace_pointer
from rnnforecast.storage.remote import Place

PART, WHOLE = "rnnforecast-part", "rnnforecast-forecast"
FORMAT_VERSION = 1
CURRENT, RUNS, LOCK, MANIFEST = "CURRENT", "runs", ".lock", "_forecast.json"
COUNTS = ("rows", "series", "left_out", "shortened", "replaced")
"""What is counted of each part, and summed over all of them."""
_KEY_DIGITS = 16


@dataclass(frozen=True)
class Parts:
    """Where the parts of one forecast are."""

    output: Place
    key: str
    n_buckets: int

    @property
    def name(self) -> str:
        """The folder of this forecast, as CURRENT names it."""
        return f"{RUNS}/{self.key[:_KEY_DIGITS]}"

    @property
    def folder(self) -> Place:
        """The same as a path."""
        return self.output / self.name

    def file_of(self, bucket: int) -> Place:
        """Return where the forecast of a bucket is."""
        return self.folder / f"bucket-{bucket:05d}-of-{self.n_buckets:05d}.parquet"

    def manifest_of(self, bucket: int) -> Place:
        """Return where its manifest is."""
        return self.folder / f"_bucket-{bucket:05d}.json"

    def read(self, bucket: int) -> dict[str, Any] | None:
        """Return the manifest of a part that is published whole; None where something is amiss."""
        said = _read_json(self.manifest_of(bucket), PART)
        if said is None or said.get("key") != self.key or said.get("bucket") != bucket:
            return None
        if "newest_us" not in said:  # of a release that did not say how old readings are
            return None
        if said.get("file") is None:
            return said
        with suppress(OSError):
            path = self.file_of(bucket)
            if _described(publish.describe_input(path), path) == said["file"]:
                return said
        return None

    def publish(
        self, bucket: int, content: bytes | None, counted: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Publish a part: its file, None where nothing was forecast, and then its manifest."""
        make_directory(self.folder)
        path, file = self.file_of(bucket), None
        if content is not None:
            file = _described(publish.publish(path, content), path)
        crash_point("part-file-published")
        said = {"key": self.key, "bucket": bucket, "file": file, **counted}
        _write_json(self.manifest_of(bucket), PART, said)
        crash_point("part-published")
        return said

    def missing(self) -> list[int]:
        """Return the buckets that are not published whole."""
        return [bucket for bucket in range(self.n_buckets) if self.read(bucket) is None]

    def each(self) -> Iterator[dict[str, Any]]:
        """Give the manifest of each bucket. Raises `DataError` where some are missing."""
        found = [self.read(bucket) for bucket in range(self.n_buckets)]
        missing = [str(bucket) for bucket, said in enumerate(found) if said is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {self.n_buckets} buckets are not forecast, or not as their "
                f"manifests say: {', '.join(missing[:5])}" + ", ..." * (len(missing) > 5),
                code="missing-parts",
                hint="run the same command with  --shard  for them, then  --commit  again",
            )
        yield from (said for said in found if said is not None)

    @property
    def committed(self) -> dict[str, Any] | None:
        """What the manifest of the whole says where this forecast is in force; else None."""
        with suppress(OSError, UnicodeDecodeError):
            if (self.output / CURRENT).read_bytes().decode().strip() == self.name:
                return _read_json(self.folder / MANIFEST, WHOLE)
        return None

    def commit(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Publish the manifest of the whole, and put it in force. The lock must be held."""
        for folder in (self.output, self.folder):  # who still writes a part writes one that is here
            if isinstance(folder, Path):  # a store shows nothing that is not whole
                collect_leftovers(folder)
        whole = {"key": self.key, "buckets": self.n_buckets, **said}
        _write_json(self.folder / MANIFEST, WHOLE, whole)
        crash_point("forecast-complete")
        replace_pointer(self.output / CURRENT, self.name)
        crash_point("forecast-in-force")
        return whole


def _described(said: Mapping[str, Any], path: Place) -> dict[str, Any]:
    """Return what a manifest says of a file beside it: a folder may be moved."""
    return {"name": path.name, "bytes": said["bytes"], "sha256": said["sha256"]}


def _read_json(path: Place, format_: str) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict) and said.get("format") == format_:
            return said
    return None


def _write_json(path: Place, format_: str, said: Mapping[str, Any]) -> None:
    content = json.dumps({"format": format_, "format_version": FORMAT_VERSION, **said}, indent=2)
    publish.publish(path, f"{content}\n".encode())
