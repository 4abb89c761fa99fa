"""A place where faults happen: a job that has run once, new readings, and what must always hold.

The place always lies at the same path, as manifests name files with their whole path. `before` is
how it was before the command whose fault is looked at, `after` what an undisturbed one makes of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pa_parquet

from rnnforecast.cli.main import run
from rnnforecast.jobs import ledger
from rnnforecast.model import artifact
from rnnforecast.storage import versions
from tests.builders import JOB
from tests.conftest import SMALL, Outcome

TOLD = ("run.log", "job.prom")
"""What a run tells changes with every run."""
NEW_ROWS = 6
_KNOWN = re.compile(
    r"data\.csv|job\.toml|run\.log|job\.prom|out/(forecast\.csv|predicted\.csv|run\.json)"
    r"|ledger/job\.json|ledger/[0-9T-]+_\d{4}_[0-9a-f]{16}\.parquet|(ledger|model)/\.lock|\.job\.prom\.lock|model/CURRENT"
    r"|model/checkpoint\.safetensors|model/versions/[0-9TZ]+-[0-9a-f]{6}/[a-z]+\.[a-z]+"
    r"|(.+/)?\.tmp-[0-9a-f]{12}-.*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Command:
    """A command line at the scene, and the files that say what came of it."""

    name: str
    words: tuple[str, ...]
    result: str


RUN = Command("run", ("run", "job.toml"), "out/forecast.csv")
PREDICT = Command(
    "predict",
    ("predict", "data.csv", "-m", "model", "-q", "-o", "out/predicted.csv"),
    "out/predicted.csv",
)
TRAIN = Command(
    "train", ("train", "data.csv", "-m", "model", "-q", "--steps", "3", *SMALL), "weights"
)
COMMANDS = (RUN, PREDICT, TRAIN)


def quietly(*words: object, cwd: Path) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@dataclass
class Scene:
    """The place, what it was before, and what it is to be after."""

    folder: Path
    keys: dict[str, str] = field(default_factory=dict)
    """Of the run before and of the one after."""
    before: dict[str, bytes] = field(default_factory=dict)
    after: dict[str, bytes] = field(default_factory=dict)
    """By the names of results, and of the ledger's new part."""

    @property
    def place(self) -> Path:
        return self.folder / "place"

    @property
    def model(self) -> Path:
        return self.place / "model"

    @classmethod
    def make(cls, trained: Path, folder: Path) -> Scene:
        """Let a job run once, bring new readings, and see what undisturbed commands make of it."""
        scene = cls(folder)
        shutil.copytree(trained, scene.place)
        (folder / "outside").mkdir()
        (folder / "outside" / "other.csv").write_text("not ours\n")
        (scene.place / "job.toml").write_text(JOB)
        whole = (scene.place / "data.csv").read_text()
        lines = whole.splitlines(keepends=True)
        (scene.place / "data.csv").write_text("".join(lines[:-NEW_ROWS]))
        for command in (RUN, PREDICT):
            scene.expect(0, *command.words)
        scene.keys["before"] = scene.manifest()["key"]
        (scene.place / "data.csv").write_text(whole)
        shutil.copytree(scene.place, folder / "before")
        scene.before = files_in(scene.place)
        for command in (RUN, PREDICT):
            scene.expect(0, *command.words)
        scene.keys["after"] = scene.manifest()["key"]
        after = files_in(scene.place)
        parts = {name for name in after if name.startswith("ledger/20")}
        for name in (*parts, RUN.result, PREDICT.result):
            scene.after[name] = after[name]
        return scene

    def trained_undisturbed(self) -> bytes:
        """Return the weights that an undisturbed training comes to."""
        if TRAIN.result not in self.after:
            aside = self.folder / "aside"
            shutil.copytree(self.folder / "before", aside)
            assert quietly(*TRAIN.words, cwd=aside).code == 0
            version = versions.resolve_version(aside / "model")
            self.after[TRAIN.result] = (version / artifact.WEIGHTS).read_bytes()
            shutil.rmtree(aside)
        return self.after[TRAIN.result]

    def reset(self) -> None:
        """Make the place what it was before."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.folder / "before", self.place)

    def expect(self, code: int, *words: object) -> Outcome:
        """Run a command in this process, which ends with this code."""
        return self.expect_any((code,), *words)

    def expect_any(self, codes: tuple[int, ...], *words: object) -> Outcome:
        """Run a command in this process, which ends with one of these codes."""
        outcome = quietly(*words, cwd=self.place)
        assert outcome.code in codes, outcome
        return outcome

    def read(self, name: str) -> bytes | None:
        """Read a file of the place; None where there is none."""
        try:
            return (self.place / name).read_bytes()
        except FileNotFoundError:
            return None

    def manifest(self) -> dict:
        said: dict = json.loads((self.place / "out/run.json").read_bytes())
        return said

    def weights(self) -> bytes:
        """Read the active weights."""
        return (versions.resolve_version(self.model) / artifact.WEIGHTS).read_bytes()

    # What must always hold

    def check(self) -> None:
        """Whatever has happened: all that is published is whole, and nothing else has changed."""
        self._check_model()
        for command in (RUN, PREDICT):
            old_and_new = (self.before[command.result], self.after[command.result])
            assert self.read(command.result) in old_and_new, command.result
        self._check_manifest()
        self._check_ledger()
        assert files_in(self.folder / "outside") == {"other.csv": b"not ours\n"}
        for name in ("data.csv", "job.toml"):
            assert self.read(name) == self.before[name]
        found = files_in(self.place)
        strangers = [name for name in found if not _KNOWN.fullmatch(name)]
        assert not strangers, strangers
        for name, content in self.before.items():
            if name.startswith(("model/versions/", "ledger/20")):
                assert found.get(name) == content, name

    def check_done(self, command: Command) -> None:
        """After an undisturbed command: the same bytes as ever, and nothing is left over."""
        self.check()
        if command is TRAIN:
            assert self.weights() == self.trained_undisturbed()
        else:
            assert self.read(command.result) == self.after[command.result]
        if command is RUN:
            assert self.manifest()["key"] == self.keys["after"]
            expected = {n: c for n, c in self.after.items() if n.startswith("ledger/20")}
            parts = {n: c for n, c in files_in(self.place).items() if n.startswith("ledger/20")}
            assert parts == expected
        assert not (self.place / "model/.lock").exists()
        assert not (self.place / "ledger/.lock").exists()
        assert not (self.place / ".job.prom.lock").exists()

    def leftovers(self) -> list[str]:
        """Return what has a temporary name."""
        found = (path.relative_to(self.place) for path in self.place.rglob(".tmp-*"))
        return sorted(map(str, found))

    def _check_model(self) -> None:
        active = versions.resolve_version(self.model).name
        for name in {*versions.list_versions(self.model), active}:
            artifact.load(versions.resolve_version(self.model, name))

    def _check_manifest(self) -> None:
        """A manifest that names the new run counts, so what it names must be there."""
        said = self.manifest()
        assert said["key"] in self.keys.values()
        if said["key"] == self.keys["before"]:
            assert self.read("out/run.json") == self.before["out/run.json"]
            return
        for name in ("output", "ledger"):
            content = Path(said[name]["path"]).read_bytes()
            assert len(content) == said[name]["bytes"]
            assert hashlib.sha256(content).hexdigest() == said[name]["sha256"]

    def _check_ledger(self) -> None:
        known = {key[: ledger.KEY_LENGTH] for key in self.keys.values()}
        for part in ledger.list_parts(self.place / "ledger"):
            assert part.key in known
            assert pa_parquet.read_table(part.path).num_rows


@contextlib.contextmanager
def remembered_forecasts():
    """Compute each forecast once: what is written is looked at, not what is computed."""
    from rnnforecast.workflow import model

    made, real = {}, model.forecast

    def forecast(ready, events):
        key = (ready.past.fingerprint(), ready.horizon, ready.config)
        if key not in made:
            made[key] = real(ready, events)
        return made[key]

    with mock.patch.object(model, "forecast", forecast):
        yield
