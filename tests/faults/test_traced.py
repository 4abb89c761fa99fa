"""What a model from a stranger makes a command open, write and connect to: all calls are traced.

With strace, where it exists and may be used, calls of C libraries are seen as well; else, and for
one command, those that Python's own audit hook shows. `make thorough` looks with both.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.builders import ONE_FILE_JOB, wave, write_wide
from tests.strangers import rewrite_manifest
from tests.thorough import THOROUGHLY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BAIT = "bait"
LINES = {
    "check data.csv --model model": (),
    "predict data.csv": ("forecast.csv",),
    "predict data.csv -o out.parquet": ("out.parquet",),
    "predict": (),
    "run job.toml --dry-run": (),
    "show": (),
    "show --versions": (),
    "memory data.csv": (),
    "memory": (),
    "anomalies data.csv": (),
    "anomalies data.csv -o a.csv": ("a.csv",),
    "plot --data data.csv --model model --forecast first.csv": (),
    "plot --data data.csv --model model --forecast first.csv -o p.html": ("p.html",),
}
"""Commands, and what each may write."""
HOOK = """
import os, sys
log = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        is_written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not flags & os.O_DIRECTORY
        log.write(f"{'w' if is_written else 'r'} {os.path.abspath(os.fsdecode(arguments[0]))}\\n")
    elif event in ("os.rename", "os.link", "os.symlink"):
        log.write(f"w {os.path.abspath(os.fsdecode(arguments[1]))}\\n")
    elif event in ("os.mkdir", "os.remove", "os.truncate", "os.chmod", "os.chown"):
        log.write(f"w {os.path.abspath(os.fsdecode(arguments[0]))}\\n")
    elif event in ("socket.connect", "socket.getaddrinfo", "os.exec", "subprocess.Popen"):
        log.write(f"c {event} {arguments!r}\\n")
sys.addaudithook(hook)
from rnnforecast.cli.main import main
main()
"""
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WRITES = "creat|rename|renameat|renameat2|link|linkat|symlink|symlinkat|mkdir|mkdirat|unlink"
_WRITES += "|unlinkat|truncate|chmod|fchmodat|chown|fchownat|mknod|mknodat"


@cache
def strace_works() -> bool:
    strace = shutil.which("strace")
    line = [strace, "-f", "-o", os.devnull, sys.executable, "-c", "pass"]
    return strace is not None and subprocess.run(line, capture_output=True).returncode == 0


def read_strace(log: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what was done, `r`, `w` or `c`, and the path or the address."""
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        name, rest = match[1], match[2]
        paths = [str(folder / path) for path in _PATH.findall(rest)]
        if name in ("connect", "sendto") and ("AF_INET" in rest):
            yield "c", rest
        elif name in ("open", "openat") and paths:
            yield ("w" if re.search("O_WRONLY|O_RDWR|O_CREAT", rest) else "r"), paths[0]
        elif re.fullmatch(_WRITES, name) and paths:
            yield "w", paths[-1]


def trace(
    words: list[str], scene: Path, tracer: str, log: Path
) -> tuple[int, str, list[tuple[str, str]]]:
    """Run a command; return its exit code, its standard error, and what it did."""
    environment = {
        **os.environ,
        "HOME": str(scene.parent / "home"),
        "TMPDIR": str(scene.parent / "tmp"),
        "MPLCONFIGDIR": str(scene.parent / "tmp"),  # where matplotlib lists the fonts, once
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
    }
    if tracer == "strace":
        prefix = ["strace", "-f", "-s", "4096", "-e", "trace=%file,connect,sendto", "-o", log]
        line = [*prefix, sys.executable, "-m", "rnnforecast", *words]
    else:
        line = [sys.executable, "-c", HOOK, log, *words]
    done = subprocess.run(line, cwd=scene, env=environment, capture_output=True, timeout=300)
    calls = [(line[0], line[2:]) for line in log.read_text(errors="replace").splitlines()]
    if tracer == "strace":
        calls = list(read_strace(log, scene))
    return done.returncode, done.stderr.decode(), calls


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def scene(trained: Path, port: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Readings with a bad row, and a model that names files and a host wherever a name can be."""
    folder = tmp_path_factory.mktemp("traced")
    for name in ("home", "tmp", BAIT):
        (folder / name).mkdir()
    for name in ("times.csv", "rejects", "secret.csv"):
        (folder / BAIT / name).write_text("root:x:0:0\n")
    scene = Path(shutil.copytree(trained, folder / "scene"))
    with (scene / "data.csv").open("a") as file:
        file.write("2024-01-17 16:00:00,1,2,of a stranger\n")
    (scene / "job.toml").write_text(ONE_FILE_JOB.replace("out/forecast.csv", "job.csv"))
    stamps = write_wide(folder / "ahead.csv", start="2024-01-17 16:00", flow=wave(6), level=wave(6))
    rows = [line.split(",") for line in stamps.read_text().splitlines()[1:]]
    first = ["series,timestamp,forecast,q10,q90"]
    first += [f"{s},{row[0]},{row[1]},1,99" for s in ("flow", "level") for row in rows]
    (scene / "first.csv").write_text("\n".join(first) + "\n")
    (scene / BAIT).symlink_to(folder / BAIT)
    rewrite_manifest(
        scene / "model",
        config__data__on_bad_rows="skip",
        config__data__max_bad_rows="50%",
        config__data__rejects=str(folder / BAIT / "rejects"),
        config__data__exclude=str(folder / BAIT / "times.csv"),
        config__data__excluded_times="series,from,to\n",
        config__data__query="select * from read_csv('/etc/passwd')",
        provenance__source=f"s3://b/k.csv?endpoint_override=127.0.0.1:{port}&scheme=http",
    )
    return scene


@pytest.mark.parametrize("tracer", ["strace", "audit hook"])
@pytest.mark.parametrize("line", LINES)
def test_a_model_from_a_stranger_reads_its_readings_writes_its_output_and_reaches_no_host(
    scene: Path, tmp_path: Path, line: str, tracer: str
) -> None:
    if tracer == "strace" and not strace_works():
        pytest.skip("there is no strace, or it may not trace")
    if tracer != "strace" and THOROUGHLY == 1 and line != "predict data.csv" and strace_works():
        pytest.skip("strace sees more; make thorough looks with both")
    inputs = {"data.csv", "first.csv", "job.toml", "rnnforecast.toml", "run.json"}
    before = {path: path.read_bytes() for path in scene.parent.rglob("*") if path.is_file()}

    code, errors, calls = trace(line.split(), scene, tracer, tmp_path / "log")

    needs_source = line in ("predict", "memory")
    assert code in ((2,) if needs_source else (0, 3)), errors
    assert len(calls) > 50, "the trace shows how Python starts"
    assert [call for kind, call in calls if kind == "c" and "fc-list" not in call] == []
    for kind, path in calls:
        place = Path(os.path.normpath(path))
        if kind == "w":
            is_own = place.is_relative_to(scene.parent / "tmp") or str(place).startswith("/dev/")
            name = re.sub(r"^\.tmp-[0-9a-f]{12}-", "", place.name)
            assert is_own or (place.parent == scene and name in LINES[line]), (kind, path)
        elif place.is_relative_to(scene.parent):
            relative = place.relative_to(scene.parent)
            top = relative.parts[1] if len(relative.parts) > 1 else ""
            is_known = relative.parts[:1] == ("scene",) and (
                top in ("", "model", *inputs, *LINES[line])
            )
            assert is_known or relative.parts[:1] in (("home",), ("tmp",), ()), (kind, path)

    for path, content in before.items():
        assert path.read_bytes() == content, path
    for name in LINES[line]:
        (scene / name).unlink()
    for path in (scene.parent / "tmp").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert {path for path in scene.parent.rglob("*") if path.is_file()} == before.keys()
