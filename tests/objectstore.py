"""A store of objects on this machine, for tests: a server that speaks S3, and what lies in it."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ACCESS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""What the environment says of who asks; nothing is asked of the machine or its network."""
MISSING = "needs the extra dev: moto[server]"
_START_S = 60


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Start a server of its own, and end it; give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ACCESS})
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(_START_S)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass(frozen=True)
class Bucket:
    """A bucket, seen with pyarrow alone."""

    name: str
    port: int
    fs: Any = field(repr=False)

    @classmethod
    def make(cls, name: str, port: int) -> Bucket:
        """Make one that is empty."""
        from pyarrow import fs

        found = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            region="us-east-1",
            access_key=ACCESS["AWS_ACCESS_KEY_ID"],
            secret_key=ACCESS["AWS_SECRET_ACCESS_KEY"],
            allow_bucket_creation=True,
        )
        found.create_dir(name)
        return cls(name, port, found)

    @property
    def env(self) -> dict[str, str]:
        """What a command needs in its environment to find it."""
        return {**ACCESS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def url(self, key: str = "") -> str:
        """Return the URL of a key, for who has that environment."""
        return f"s3://{self.name}/{key}".rstrip("/")

    def put(self, key: str, content: bytes | Path) -> str:
        """Put an object there, or a folder of them; return its URL."""
        if isinstance(content, Path) and content.is_dir():
            for file in sorted(content.rglob("*")):
                if file.is_file():
                    self.put(f"{key}/{file.relative_to(content).as_posix()}", file)
            return self.url(key)
        with self.fs.open_output_stream(f"{self.name}/{key}", compression=None) as stream:
            stream.write(content.read_bytes() if isinstance(content, Path) else content)
        return self.url(key)

    def get(self, key: str) -> bytes:
        """Return what an object holds."""
        with self.fs.open_input_stream(f"{self.name}/{key}", compression=None) as stream:
            found: bytes = stream.read()
            return found

    def names(self, below: str = "") -> list[str]:
        """Return the keys of all objects, in order."""
        from pyarrow import fs

        base = f"{self.name}/{below}".rstrip("/")
        infos = self.fs.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        names = (info.path.removeprefix(f"{self.name}/") for info in infos if info.is_file)
        return sorted(names)

    def all(self, below: str = "") -> dict[str, bytes]:
        """Return all objects."""
        return {key: self.get(key) for key in self.names(below)}

    def remove(self, key: str) -> None:
        """Take an object away."""
        self.fs.delete_file(f"{self.name}/{key}")


class _Denying(http.server.BaseHTTPRequestHandler):
    """Says no to everything, as a store does to who may not."""

    def do_GET(self) -> None:
        self._deny()

    def do_PUT(self) -> None:
        self._deny()

    def do_POST(self) -> None:
        self._deny()

    def do_HEAD(self) -> None:
        self._deny()

    def _deny(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Gives the files of a folder."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def denying() -> Iterator[int]:
    """Serve a store that denies all access; give its port."""
    with _listening(_Denying) as port:
        yield port


@contextmanager
def web(folder: Path) -> Iterator[int]:
    """Serve a folder to who asks by http; give the port."""
    with _listening(partial(_Quiet, directory=str(folder))) as port:
        yield port


@contextmanager
def _listening(handler: Callable[..., Any]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent() -> Iterator[int]:
    """Take connections, and never answer; give the port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield int(listening.getsockname()[1])


def require() -> None:
    """Skip a test, and say so, where there is no server that speaks S3."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        pytest.skip(MISSING)
