"""What a run tells the world: a line in a log, and gauges for the Prometheus node exporter.

Neither may keep a run from publishing: where they cannot be written, that is a warning. The text
file is written after failures too, as what is not written raises no alarm; its time stamps are
values, since that collector takes none of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.durable import publishing_file
from rnnforecast.errors import WriteError
from rnnforecast.events import Listener, Warned

LAST_SUCCESS, LAST_RUN, LAST_EXIT = (
    "last_success_timestamp_seconds",
    "last_run_timestamp_seconds",
    "last_exit_code",
)
GAUGES = {
    LAST_SUCCESS: "When a run last succeeded.",
    LAST_RUN: "When a run last ended.",
    LAST_EXIT: "Its exit code: 0 complete, 3 partial, all others a failure.",
    "last_duration_seconds": "How long it took.",
    "newest_reading_timestamp_seconds": "Time of the newest reading that it saw.",
    "series": "Series that were forecast.",
    "series_not_as_usual": "Series left out, forecast by a fallback, or from a short history.",
    "series_flagged": "Series whose live forecasts are not as good as was usual at training.",
    "model_created_timestamp_seconds": "When the version that forecast was trained.",
}
_PREFIX = "rnnforecast_"
_LINE = re.compile(r"rnnforecast_(\w+)\{job=\"(?:[^\"\\]|\\.)*\"\} (\S+)")
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_LONGEST_LINE = 1 << 16
_TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class Journal:
    """A job's log and text file, as far as it has them."""

    job: str
    log: Path | None
    log_format: str
    textfile: Path | None

    def record(self, event: str, facts: Mapping[str, Any], listener: Listener) -> None:
        """Append one line to the log, in one write: lines of several processes do not mix."""
        if self.log is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": now, "job": self.job, "event": event, **facts}
        line = json.dumps(entry) if self.log_format == "json" else _as_text(entry)
        try:
            descriptor = os.open(self.log, _APPENDING, 0o666)
            try:
                os.write(descriptor, line[:_LONGEST_LINE].encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            listener(Warned("log", f"the log {self.log} cannot be written: {error.strerror}"))

    def gauge(self, values: Mapping[str, float | None], listener: Listener) -> None:
        """Replace the text file; a gauge without a value now keeps the one that it had."""
        if self.textfile is None:
            return
        kept = {**self.gauges(), **{k: v for k, v in values.items() if v is not None}}
        label = self.job.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines = []
        for name, meaning in GAUGES.items():
            if name in kept:
                lines += [f"# HELP {_PREFIX}{name} {meaning}", f"# TYPE {_PREFIX}{name} gauge"]
                lines.append(f'{_PREFIX}{name}{{job="{label}"}} {kept[name]:.15g}')
        try:
            with publishing_file(self.textfile) as file:
                file.write(("\n".join(lines) + "\n").encode())
        except WriteError as error:
            listener(Warned("textfile", error.message))

    def gauges(self) -> dict[str, float]:
        """Return what the text file says."""
        found: dict[str, float] = {}
        if self.textfile is not None:
            with suppress(OSError, ValueError):
                for match in _LINE.finditer(self.textfile.read_text("utf-8", "replace")):
                    found[match[1]] = float(match[2])
        return found

    def last(self, event: str) -> dict[str, Any] | None:
        """Return the newest entry of this kind in a log of JSON lines; None where there is none."""
        if self.log is None:
            return None
        with suppress(OSError):
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().splitlines()
            for line in reversed(lines):
                with suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict) and entry.get("event") == event:
                        return entry
        return None


def _as_text(entry: Mapping[str, Any]) -> str:
    words = [str(entry["time"]), str(entry["job"]), str(entry["event"])]
    rest = {k: v for k, v in entry.items() if k not in ("time", "job", "event")}
    return " ".join([*words, *(f"{key}={json.dumps(value)}" for key, value in rest.items())])
