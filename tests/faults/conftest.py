"""Fixture: a folder with a job that has run once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.scene import Scene

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # they look into /proc


@pytest.fixture(scope="session")
def _scene(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.make(trained, tmp_path_factory.mktemp("scene"))


@pytest.fixture
def scene(_scene: Scene) -> Scene:
    """A place as it was before the second run of its job."""
    _scene.reset()
    return _scene
