"""Where a command finds itself: read-only places, no home, other locales, no streams, odd paths.

Fault 13 of the table. That modes follow the umask is looked at in `tests/storage/test_durable.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import JOB
from tests.faults.confined import confined, refused
from tests.faults.counting import tell
from tests.faults.scene import PREDICT, RUN, Scene, files_in, quietly
from tests.faults.warm import QUIET, ROOT
from tests.thorough import only_thoroughly

ODD = "a b\n\u00fc \U0001f321 'x\" $HOME;&"
"""A space, a line break, other scripts, and what a shell would take for its own."""


def shell(
    script: str, *words: object, cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess:
    """Run a command by a shell that changes its streams; the environment is this and no more."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", sys.executable, *map(str, words)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **QUIET, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_model_that_can_only_be_read_forecasts(scene: Scene) -> None:
    refusal = refused()
    if refusal is not None:
        pytest.skip(refusal)
    found = confined("read only", scene.place)
    assert found["is_read_only"]
    assert found["codes"] == {"run": 0, "predict": 0}
    for command in (RUN, PREDICT):
        assert found["results"][command.name].encode() == scene.after[command.result]
    code, said = found["train"]
    assert code == 7 and "no permission to write in model/versions" in said
    tell(13, "a read-only model and read-only readings", commands=3)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_who_may_not_write_forecasts_all_the_same(scene: Scene) -> None:
    """Nor has that user a home, or a place for caches."""
    nobody = 65534
    place = Path(shutil.copytree(scene.place, Path("/var/tmp") / f"rnnforecast-{os.getpid()}"))
    try:
        place.chmod(0o755)
        for path in (place / "out", place / "ledger"):
            shutil.rmtree(path)
            path.mkdir()
            os.chown(path, nobody, nobody)
        job = place / "job.toml"
        job.write_text(job.read_text().replace('"run.log"', '"out/log"').replace("job.p", "out/p"))
        before = files_in(place / "model")
        words = ["-c", _AS_NOBODY, "run", str(job)]
        done = shell('"$@"', *words, cwd=place, env={})
        if b"No module named" in done.stderr:
            pytest.skip("another user cannot read the libraries of these tests")
        assert done.returncode == 0, done.stderr
        assert (place / "out/forecast.csv").read_bytes() == scene.after[RUN.result]
        assert files_in(place / "model") == before
    finally:
        shutil.rmtree(place)
    tell(13, "a user who may not write to the model", commands=1)


_AS_NOBODY = """
import os, sys
from rnnforecast.cli.main import main
from tests.preloaded import preload
preload("torch")  # another user may have no right to read the libraries
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main(sys.argv[1:])
"""


def odd_place(scene: Scene, folder: Path) -> Path:
    """Make a place in which every path is odd."""
    place = folder / ODD
    shutil.copytree(scene.place / "model", place / f"model {ODD}")
    shutil.copy(scene.place / "data.csv", place / f"data {ODD}.csv")
    toml = ODD.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    text = JOB
    for name in ("data", "model", "out/forecast", "ledger", "run", "job"):
        ending = {"data": ".csv", "out/forecast": ".csv", "run": ".log", "job": ".prom"}
        end = ending.get(name, "")
        text = text.replace(f'= "{name}{end}"', f'= "{name} {toml}{end}"')
    assert text.count(toml) == 6
    (place / f"job {ODD}.toml").write_text(text, encoding="utf-8")
    return place


def check_odd(place: Path, scene: Scene) -> None:
    assert (place / f"out/forecast {ODD}.csv").read_bytes() == scene.after[RUN.result]
    (part,) = (place / f"ledger {ODD}").glob("*.parquet")
    assert part.read_bytes() == scene.after[f"ledger/{part.name}"]
    assert not list(place.rglob(".tmp-*"))


def test_paths_may_hold_spaces_line_breaks_and_other_scripts(scene: Scene, tmp_path: Path) -> None:
    place = odd_place(scene, tmp_path)
    for said in ("published: ", "already published: "):
        outcome = quietly("run", f"job {ODD}.toml", cwd=place)
        assert outcome.code == 0, outcome
        assert outcome.out.startswith(said)
    check_odd(place, scene)
    words = ("predict", f"data {ODD}.csv", "-m", f"model {ODD}", "-q", "-o", f"{ODD}.csv")
    assert quietly(*words, cwd=place).code == 0
    assert (place / f"{ODD}.csv").read_bytes() == scene.after[PREDICT.result]
    tell(13, "odd paths", commands=3)


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = [
    pytest.param({"LC_ALL": "C"}, id="the C locale", marks=only_thoroughly),
    pytest.param(
        {"LC_ALL": "xx_YY.ISO-8859-15", "LANG": "nonsense"}, id="a locale that does not exist"
    ),
    pytest.param({}, id="no locale"),
]


@pytest.mark.slow
@pytest.mark.parametrize("env", LOCALES)
def test_odd_paths_in_any_locale_without_a_home(
    env: dict[str, str], scene: Scene, tmp_path: Path
) -> None:
    place = odd_place(scene, tmp_path)
    done = shell('"$@"', "-m", "rnnforecast", "run", f"job {ODD}.toml", cwd=place, env=env)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    check_odd(place, scene)
    tell(13, f"locale {env.get('LC_ALL', 'none')}, no HOME", commands=1)


@pytest.mark.slow
def test_a_locale_that_cannot_spell_a_path_is_an_error_that_says_what_to_set(
    scene: Scene, tmp_path: Path
) -> None:
    words = ("-m", "rnnforecast", "run")
    place = odd_place(scene, tmp_path)
    done = shell('"$@"', *words, f"job {ODD}.toml", cwd=place, env=ASCII)
    assert done.returncode == 2, done.stderr
    assert b"cannot be encoded in this locale's ascii" in done.stderr
    assert b"PYTHONUTF8=1" in done.stderr
    done = shell('"$@"', *words, "job.toml", cwd=scene.place, env=ASCII)
    assert done.returncode == 0, done.stderr
    scene.check_done(RUN)
    tell(13, "a locale of ASCII alone", commands=2)


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">&-"])
def test_a_run_whose_streams_are_closed_publishes_the_same(streams: str, scene: Scene) -> None:
    """What is opened first must not take the place of a stream, nor be printed into.

    `tests/cli/test_start.py` has `predict`.
    """
    done = shell(f'exec "$@" {streams}', "-m", "rnnforecast", *RUN.words, cwd=scene.place, env={})
    assert done.returncode == 0, done.stderr
    scene.check_done(RUN)
    tell(13, f"run with closed streams {streams}", commands=1)
