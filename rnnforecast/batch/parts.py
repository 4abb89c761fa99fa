"""Parts of a batch forecast, a file and a manifest for each bucket, and the manifest of all."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnforecast.config.fields import to_json
from rnnforecast.errors import DataError, WriteError
from rnnforecast.storage import publish
from rnnforecast.storage.durable import crash_point, remove_directory, remove_stale_temps
from rnnforecast.storage.publish import make_directory, replace_pointer
from rnnforecast.storage.remote import AnyPath, is_remote, read_json

PART, WHOLE = "rnnforecast-part", "rnnforecast-forecast"
"""Formats of the manifests of a part and of a complete forecast."""
FORMAT_VERSION = 1
CURRENT, LOCK, MANIFEST = "CURRENT", ".lock", "_forecast.json"
"""Files of the output: the name of the current forecast's folder, the lock; and of that folder."""
DEGRADED = ("left_out", "short_history", "fallback")
"""Series without a usual forecast, as the attributes of `Prediction` are called."""
COUNTS = ("rows", "series", *DEGRADED)
"""Counts in the manifest of each part; that of the forecast has their sums."""
RUNS = "runs"
"""The folder of all forecasts."""
_ABANDONED_S = 24 * 3600
"""A forecast that is neither current nor the one before goes once nothing was written for a day."""
_KEY_DIGITS = 16
"""Hexadecimal digits of a forecast's key in the name of its folder."""


@dataclass(frozen=True)
class Parts:
    """The parts of one forecast below an output folder."""

    output: AnyPath
    key: str
    n_buckets: int

    @property
    def name(self) -> str:
        """The folder of this forecast, relative to the output, as CURRENT names it."""
        return f"{RUNS}/{self.key[:_KEY_DIGITS]}"

    @property
    def folder(self) -> AnyPath:
        """The folder of this forecast."""
        return self.output / self.name

    def file_of(self, bucket: int) -> AnyPath:
        """Return the path of a bucket's forecast."""
        return self.folder / f"bucket-{bucket:05d}-of-{self.n_buckets:05d}.parquet"

    def manifest_of(self, bucket: int) -> AnyPath:
        """Return the path of a bucket's manifest."""
        return self.folder / f"_bucket-{bucket:05d}.json"

    def read(self, bucket: int) -> dict[str, Any] | None:
        """Return the manifest of a part; None where it is not published, or its file differs."""
        path = self.file_of(bucket)
        with suppress(OSError, ValueError):
            manifest = read_json(self.manifest_of(bucket), expected_format=PART)
            if (manifest.get("key"), manifest.get("bucket")) != (self.key, bucket):
                return None
            if "newest_us" not in manifest:
                return None  # from a release that did not record how old readings are
            file = manifest.get("file")
            if file is None or file == _file_entry(publish.describe_input(path), path):
                return manifest
        return None

    def publish(
        self, bucket: int, content: bytes | None, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Publish a part and return its manifest, which is written after the file.

        `content` is None, and there is no file, where nothing was forecast.
        """
        make_directory(self.folder)
        path, file = self.file_of(bucket), None
        if content is not None:
            file = _file_entry(publish.publish(path, content), path)
        crash_point("part-file-published")
        manifest = {"key": self.key, "bucket": bucket, "file": file, **facts}
        _write_json(self.manifest_of(bucket), PART, manifest)
        crash_point("part-published")
        return manifest

    def read_all(self) -> list[dict[str, Any]]:
        """Return the manifests of all buckets. Raises `DataError` where parts are missing."""
        manifests = [self.read(bucket) for bucket in range(self.n_buckets)]
        missing = [str(bucket) for bucket, manifest in enumerate(manifests) if manifest is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {self.n_buckets} buckets are missing or do not match their "
                f"manifests: {', '.join(missing[:5])}" + ", ..." * (len(missing) > 5),
                code="missing-parts",
                hint="run the same command with  --shard  for these buckets, then  --commit  again",
            )
        return [manifest for manifest in manifests if manifest is not None]

    def read_committed(self) -> dict[str, Any] | None:
        """Return the manifest of the forecast if it is the current one; else None."""
        with suppress(OSError, ValueError):
            if self._current_name() == self.name:
                return read_json(self.folder / MANIFEST, expected_format=WHOLE)
        return None

    def commit(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Publish the manifest of the forecast, and make it the current one.

        The lock must be held. Workers that are still writing parts of this forecast lose their
        temporary files: all parts are already published.
        """
        for folder in (self.output, self.folder):
            if not is_remote(folder):  # a store shows no incomplete objects
                remove_stale_temps(folder)
        manifest = {"key": self.key, "buckets": self.n_buckets, **facts}
        _write_json(self.folder / MANIFEST, WHOLE, manifest)
        crash_point("forecast-complete")
        previous = self._current_name()
        replace_pointer(self.output / CURRENT, self.name)
        crash_point("forecast-activated")
        if not is_remote(self.output):
            retire_runs(self.output / RUNS, keep={self.name, previous}, now_s=time.time())
        return manifest

    def _current_name(self) -> str:
        """Return what CURRENT names; nothing where it cannot be read."""
        with suppress(OSError, ValueError):
            return (self.output / CURRENT).read_bytes().decode().strip()
        return ""


def retire_runs(runs: Path, *, keep: Collection[str], now_s: float) -> list[Path]:
    """Remove the forecasts of earlier days but those to `keep`, by their names; return them.

    One that is younger than a day may be read, or be written by other shards. The lock of the
    output must be held.
    """
    retired = []
    for folder in runs.iterdir():
        is_run = re.fullmatch(rf"[0-9a-f]{{{_KEY_DIGITS}}}", folder.name) is not None
        if is_run and not folder.is_symlink() and f"{RUNS}/{folder.name}" not in keep:
            with suppress(WriteError, OSError):  # the next commit tries again
                if folder.stat().st_mtime < now_s - _ABANDONED_S:
                    remove_directory(folder)
                    retired.append(folder)
    return retired


def _file_entry(entry: Mapping[str, Any], path: AnyPath) -> dict[str, Any]:
    """Return a manifest's entry of a file with its name only, so that the folder can be moved."""
    return {"name": path.name, "bytes": entry["bytes"], "sha256": entry["sha256"]}


def _write_json(path: AnyPath, format_: str, facts: Mapping[str, Any]) -> None:
    document = {"format": format_, "format_version": FORMAT_VERSION, **facts}
    publish.publish(path, to_json(document))
