"""Commands in processes of their own, forked from one that has imported the libraries already.

A process for each command costs less than a tenth of a second then, and can be killed, stopped and
limited like any other. The process that forks runs no product of matrices itself, so that it has no
threads that a child would miss. `plain` is the ordinary way, `python -m rnnforecast`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tests.preloaded import preload

ROOT = Path(__file__).parents[2]
KERNELS = {name: text for name, text in os.environ.items() if name.startswith("OPENBLAS_")}
"""Which kernels OpenBLAS takes: others round otherwise."""
QUIET = {
    **KERNELS,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RNNFORECAST_TRAIN_REPORT": "0",
}
PATIENCE_S = 120


@dataclass(frozen=True)
class Done:
    """How a command ended; a signal is a negative code."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Running:
    """A command that was started."""

    pid: int
    stem: Path
    _warm: Warm
    _begun: float = field(default_factory=time.monotonic)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal; one that has ended hears nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_for(self, line: str) -> None:
        """Wait until a line on its standard error begins like this."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            is_running = self._warm.is_running(self.pid)
            if f"\n{line}" in "\n" + _text_of(self.stem.with_suffix(".err")):
                return
            assert is_running, f"it ended before it said {line!r}"
            assert time.monotonic() < deadline, f"it never said {line!r}"
            time.sleep(0.01)

    def is_stopped(self) -> bool:
        """Wait until a signal has stopped it; False where it ended instead."""
        return os.WIFSTOPPED(self._warm.told(self.pid, 0))

    def wait(self) -> Done:
        """Wait for its end."""
        number = 0
        while os.WIFSTOPPED(status := self._warm.told(self.pid, number)):
            number += 1
        out, err = (_text_of(self.stem.with_suffix(ending)) for ending in (".out", ".err"))
        seconds = self._warm.ended[self.pid] - self._begun
        return Done(os.waitstatus_to_exitcode(status), out, err, seconds)


def _text_of(path: Path) -> str:
    """Read what a command said; one that was killed at once has not even opened the file."""
    return path.read_text("utf-8", "replace") if path.exists() else ""


class Warm:
    """The process that forks, seen from the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: dict[int, float] = {}
        self._n_started = 0
        self._statuses: dict[int, list[int]] = {}
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            cwd=ROOT,
            env={**os.environ, **QUIET},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._pids: list[int] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(
        self,
        *arguments: object,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Running:
        """Start a command; `limits` are names of `resource` without RLIMIT."""
        self._n_started += 1
        stem = self.folder / f"{self._n_started}"
        order = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": dict(env or {}),
            "limits": dict(limits or {}),
            "stem": str(stem),
        }
        self._order(order)
        with self._changed:
            known = self._changed.wait_for(lambda: len(self._pids) >= self._n_started, PATIENCE_S)
            assert known, "the process that forks does not answer"
            return Running(self._pids[self._n_started - 1], stem, self)

    def import_too(self, module: str) -> None:
        """Import what some commands import late; the next command waits for it."""
        self._order({"import": module})

    def run(self, *arguments: object, cwd: Path, **options: Any) -> Done:
        """Start a command and wait for its end."""
        return self.start(*arguments, cwd=cwd, **options).wait()

    def is_running(self, pid: int) -> bool:
        """Tell whether nothing is known of a process' end."""
        with self._changed:
            return pid not in self.ended

    def told(self, pid: int, number: int) -> int:
        """Wait for a process' next change, counted from 0, and return its status."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: len(self._statuses.get(pid, ())) > number, PATIENCE_S
            )
            if not done:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"process {pid} did not end within {PATIENCE_S} s")
            return self._statuses[pid][number]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._listener.join(PATIENCE_S)
        self._process.stdout.close()

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._changed:
                if "started" in said:
                    self._pids.append(said["started"])
                    self._statuses[said["started"]] = []
                else:
                    self._statuses[said["pid"]].append(said["status"])
                    self.ended[said["pid"]] = said["at"]
                self._changed.notify_all()


def plain(
    *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, flags: tuple[str, ...] = ()
) -> Done:
    """Run a command as cron would, from nothing."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, *flags, "-m", "rnnforecast", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - begun)


# The process that forks


def _serve() -> None:
    import torch

    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    preload()
    torch.set_num_threads(1)
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.write(answers, b"ready\n")
    rest = b""
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, 1000)
            for change in _changes():
                os.write(answers, json.dumps(change).encode() + b"\n")
        if orders in ready:
            content = os.read(orders, 1 << 16)
            if not content:
                return
            *lines, rest = (rest + content).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if "import" in order:
                    if order["import"] not in sys.modules:
                        importlib.import_module(order["import"])
                        gc.freeze()
                    continue
                child = os.fork()
                if not child:
                    os.close(orders)
                    os.close(answers)
                    _be_the_command(order)
                os.write(answers, json.dumps({"started": child}).encode() + b"\n")


def _changes() -> Iterator[dict[str, Any]]:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if not pid:
                return
            yield {"pid": pid, "status": status, "at": time.monotonic()}


def _be_the_command(order: dict[str, Any]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):  # ignored under nohup
            signal.signal(number, signal.SIG_DFL)
        for number, ending in ((1, "out"), (2, "err")):
            path = f"{order['stem']}.{ending}"
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        for name, limit in order["limits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
        sys.argv[1:] = order["arguments"]
        from rnnforecast.cli.main import main

        main(order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


if __name__ == "__main__":
    _serve()
