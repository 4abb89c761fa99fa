"""Commands where the disk is small, or the model can only be read: in a mount namespace of its own.

Run as `unshare ... python -m tests.faults.confined WHAT PLACE`; prints one JSON document. Nothing
outside of the namespace sees what is mounted here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.warm import QUIET, ROOT

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]


def refused() -> str | None:
    """Say why nothing can be mounted here; None where it can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    words = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(words, capture_output=True, text=True)
    return None if done.returncode == 0 else f"nothing can be mounted here: {done.stderr.strip()}"


def confined(what: str, place: Path) -> dict[str, Any]:
    """Run one of the stories below in a namespace of its own."""
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.faults.confined", what, str(place)],
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _full_disk(place: Path) -> dict[str, Any]:
    """Fill a small disk to the last byte, run, make room, run again."""
    from tests.faults.scene import PREDICT, RUN, quietly

    _on_small_disk(place)
    old = {c.name: (place / c.result).read_bytes() for c in (RUN, PREDICT)}
    filler, codes, same = place / "filler", [], []
    for room in (0, 2000, 8000, 16_000):
        _fill(filler, room)
        for command in (RUN, PREDICT):
            outcome = quietly(*command.words, cwd=place)
            codes.append(outcome.code)
            said = (outcome.code == 7) == ("No space left on device" in outcome.err)
            is_old = (place / command.result).read_bytes() == old[command.name]
            same.append(outcome.code == 0 or (is_old and said))
        filler.unlink()
    last = [quietly(*command.words, cwd=place).code for command in (RUN, PREDICT)]
    left = sorted(path.name for path in place.rglob(".tmp-*"))
    results = {c.name: (place / c.result).read_text() for c in (RUN, PREDICT)}
    return {"codes": codes, "old": same, "last": last, "left": left, "results": results}


def _on_small_disk(place: Path) -> None:
    aside = place.with_name("aside")
    shutil.copytree(place, aside)
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    subprocess.run(words, check=True)
    shutil.copytree(aside, place, dirs_exist_ok=True)
    shutil.rmtree(aside)


def _fill(filler: Path, room: int) -> None:
    """Leave this many bytes."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - room))


def _read_only(place: Path) -> dict[str, Any]:
    """Let the model, and the readings, be on a disk that can only be read."""
    from tests.faults.scene import PREDICT, RUN, quietly

    for name in ("model", "data.csv"):
        path = str(place / name)
        subprocess.run(["mount", "--bind", path, path], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
    try:
        (place / "model/probe").touch()
        is_read_only = False
    except OSError:
        is_read_only = True
    outcomes = {c.name: quietly(*c.words, cwd=place) for c in (RUN, PREDICT)}
    refusal = quietly("train", "data.csv", "-m", "model", "-q", cwd=place)
    results = {c.name: (place / c.result).read_text() for c in (RUN, PREDICT)}
    return {
        "is_read_only": is_read_only,
        "codes": {name: outcome.code for name, outcome in outcomes.items()},
        "train": [refusal.code, refusal.err],
        "results": results,
    }


_STORIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "full disk": _full_disk,
    "read only": _read_only,
}


if __name__ == "__main__":
    found = _STORIES[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.write(json.dumps(found) + "\n")
