"""What an install brings: pins of the edge install, the container, and the recipes that name it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from rnnforecast import __version__
from rnnforecast.cli.main import app
from tests.test_edge import ABSENT

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
RECIPES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LARGE = {"scikit-learn" if name == "sklearn" else name for name in ABSENT}


def pins(name: str) -> dict[str, str]:
    """Return the version of each package of a file, by its name in lower case."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {package.lower(): version for package, version in pairs}


def steps(word: str) -> list[list[str]]:
    """Return the words of each step of the Dockerfile that begins with this one."""
    lines = (line.split() for line in DOCKERFILE.splitlines())
    return [rest for first, *rest in filter(None, lines) if first == word]


def test_the_edge_install_has_all_but_what_training_and_pictures_need() -> None:
    direct = {Requirement(text).name for text in PROJECT["dependencies"]}

    assert direct - set(pins("requirements-edge.txt")) == direct & LARGE
    assert not LARGE & set(pins("requirements-edge.txt"))


def test_the_edge_install_has_the_versions_of_the_tests() -> None:
    assert pins("requirements-edge.txt").items() <= pins("constraints.txt").items()


def test_pinned_versions_are_ones_that_are_declared() -> None:
    pinned = pins("constraints.txt")
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert pinned[requirement.name.lower()] in requirement.specifier, text


def test_the_container_copies_what_is_there_and_sent_to_it() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {name for *names, _ in steps("COPY") for name in names if names[0] != "--from=build"}

    assert "*" in ignored
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_the_container_does_not_run_as_root() -> None:
    assert DOCKERFILE.rindex("\nUSER ") > DOCKERFILE.rindex("\nFROM ")
    assert steps("USER")[-1][0].isdigit(), "Kubernetes checks numbers alone"
    assert steps("USER")[-1] != ["0"]


def test_recipes_name_the_image_of_this_version_and_commands_of_its_entry_point() -> None:
    assert steps("ENTRYPOINT") == [['["rnnforecast"]']]
    text = "\n".join(path.read_text(encoding="utf-8") for path in RECIPES) + DOCKERFILE
    tags = set(re.findall(r"rnnforecast:(\d[\w.]*)", text))
    first = re.findall(r'args: \["([^"]+)"', text)

    assert tags == {__version__}
    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    assert len(first) == 2
    assert set(first) <= commands
