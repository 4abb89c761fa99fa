"""What is released: the sdist is the repository, the wheel the package, of one version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from rnnforecast import __version__

ROOT = Path(__file__).parent.parent
MAX_WHEEL_BYTES = 3 << 20
BACKEND = "import setuptools.build_meta as b, sys; getattr(b, sys.argv[1])(sys.argv[2])"
"""Makes a distribution as pip and build do, but from what is installed."""


@dataclass(frozen=True)
class Built:
    """The distributions of the working tree; the wheel is made from the sdist alone."""

    sdist: Path
    wheel: Path

    def sdist_files(self) -> set[str]:
        """Return the files of the sdist, relative to the folder in it."""
        with tarfile.open(self.sdist) as archive:
            names = [member.name for member in archive.getmembers() if member.isfile()]
        return {name.partition("/")[2] for name in names}

    def wheel_files(self) -> set[str]:
        """Return the files of the wheel."""
        return set(zipfile.ZipFile(self.wheel).namelist())


def repository_files() -> list[str]:
    """Return the files that git knows or would add; skips where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is no repository")
    names = filter(None, listed.stdout.split("\0"))
    return [name for name in names if (ROOT / name).is_file()]


def build(kind: str, source: Path, output: Path) -> Path:
    """Build an sdist or a wheel of a folder, with what is installed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BACKEND, f"build_{kind}", str(output)],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return next(output.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("built")
    for name in repository_files():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "tree" / name)
    sdist = build("sdist", folder / "tree", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return Built(sdist, build("wheel", unpacked, folder))


@pytest.mark.slow
def test_the_sdist_is_the_repository(built: Built) -> None:
    made = {"PKG-INFO", "setup.cfg"}
    files = {name for name in built.sdist_files() if not name.startswith("rnnforecast.egg-info/")}

    assert files - made == set(repository_files())
    assert made <= files


@pytest.mark.slow
def test_the_wheel_is_the_package_and_small(built: Built) -> None:
    package = {name for name in repository_files() if name.startswith("rnnforecast/")}
    info = f"rnnforecast-{__version__}.dist-info/"
    files = built.wheel_files()

    assert {name for name in files if not name.startswith(info)} == package
    assert f"{info}licenses/LICENSE" in files
    assert built.wheel.stat().st_size < MAX_WHEEL_BYTES


@pytest.mark.slow
def test_both_ways_to_start_an_installed_wheel_work(built: Built, tmp_path: Path) -> None:
    """The libraries are lent by the environment of the tests, which lies behind in the path."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    binaries = environment / "bin"
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", built.wheel]
    subprocess.run([*pip, *options], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def printed(*words: str | Path) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    module = [binaries / "python", "-m", "rnnforecast"]
    home = printed(binaries / "python", "-c", "import rnnforecast; print(rnnforecast.__file__)")
    assert Path(home.strip()).is_relative_to(packages)
    assert printed(binaries / "rnnforecast", "--version") == printed(*module, "--version")
    readings = ROOT / "sample_data" / "pumping_station.csv"
    printed(binaries / "rnnforecast", "predict", readings, "--model", "builtin", "--quiet")
    assert (tmp_path / "forecast.csv").read_text().startswith("series,timestamp,forecast")


def test_the_citation_and_the_changelog_name_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (\d\S*) - (\S+)$", changelog, re.MULTILINE)
    dates = re.findall(r'^date-released: "(\S+)"$', citation, re.MULTILINE)

    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [__version__]
    assert releases[0] == (__version__, *dates)


def test_the_changelog_has_the_newest_first_and_known_headings() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *releases = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    kinds = set(re.findall(r"^### (.*)$", changelog, re.MULTILINE))

    assert first == "Unreleased"
    dates = [release.split(" - ")[1] for release in releases]
    assert dates == sorted(dates, reverse=True)
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_metadata_say_for_whom_and_name_no_host() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {"authors", "classifiers", "description", "keywords", "license", "readme"} <= {*project}
    assert "urls" not in project
    assert f"Python :: {project['requires-python'].removeprefix('>=')}" in str(
        project["classifiers"]
    )


def test_the_hooks_before_a_commit_and_the_hosted_checks_run_the_tools_of_the_repository() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")

    assert re.findall(r"- repo: (\S+)", hooks) == ["local"]
    entries = re.findall(r"entry: (\S+)", hooks)
    assert entries == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    assert re.findall(r"run: (\S+)", workflow) == [".ci/run"]
    assert "://" not in hooks + workflow
