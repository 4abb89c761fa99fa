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
_LONGEST_VALUE = 2000
_SHOWN = 20
_BEGIN = b'{"time": "'
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
        written = json.dumps if self.log_format == "json" else _as_text
        line = written(entry)
        if len(line) >= _LONGEST_LINE:
            line = written({name: _shortened(value) for name, value in entry.items()})
        try:
            descriptor = os.open(self.log, _APPENDING, 0o666)
            try:
                os.write(descriptor, f"{line}\n".encode())
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
                file.write(("\n".join(lines) + "\n").encode(errors="replace"))
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
        """Return the job's newest entry of a kind in a log of JSON lines; None where is none."""
        if self.log is None:
            return None
        with suppress(OSError):
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().splitlines()
            for line in reversed(lines):
                entry = _entry(line)
                if entry is None or entry.get("job") != self.job:
                    continue  # several jobs may share a log
                if entry.get("event") == event:
                    return entry
        return None


def _as_text(entry: Mapping[str, Any]) -> str:
    job = str(entry["job"])
    job = job if re.fullmatch(r"[\w.-]+", job) else json.dumps(job)
    words = [str(entry["time"]), job, str(entry["event"])]
    rest = {k: v for k, v in entry.items() if k not in ("time", "job", "event")}
    return " ".join([*words, *(f"{key}={json.dumps(value)}" for key, value in rest.items())])


def _shortened(value: Any) -> Any:
    """Return what of a value there is room for in a line: a text's beginning, a list's first."""
    if len(json.dumps(value)) <= _LONGEST_VALUE:
        return value
    if isinstance(value, str):
        return f"{value[: _LONGEST_VALUE // 10]}..."
    if isinstance(value, list | tuple) and len(json.dumps(value[:_SHOWN])) <= _LONGEST_VALUE:
        return [*value[:_SHOWN], f"and {len(value) - _SHOWN} more"]
    return "too long for a line"


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read a line of the log; of one that a full disk or a power cut has cut short, what follows.

    No text within an entry looks like its beginning, as quotes are escaped there.
    """
    for begin in (0, line.rfind(_BEGIN)):
        with suppress(ValueError, RecursionError):
            entry = json.loads(line[max(begin, 0) :])
            return entry if isinstance(entry, dict) else None
    return None
