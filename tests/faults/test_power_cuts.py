"""Writes that were not synced are lost: what CURRENT names, and what a manifest counts, is whole.

Fault 3 of the table. What a command does to the disk is written down, and after each step the disk
is made what a power cut may leave of it.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from rnnforecast.errors import ModelError
from rnnforecast.model import artifact
from rnnforecast.storage import versions
from tests.faults.counting import tell
from tests.faults.disk import Disk, Step
from tests.faults.powercut import Medium, cuts, lay_out
from tests.faults.scene import RUN, Scene, quietly, remembered_forecasts
from tests.faults.versions import ages
from tests.storage import test_durable


def recorded(root: Path, work: Callable[[], object]) -> tuple[Medium, list[Step]]:
    """Return a folder as it was before the work, and what the work does to it."""
    before, disk = Medium(root), Disk(root.parent)
    with disk.standing_between():
        work()
    return before, [step for step in disk.steps if step.path.startswith(str(root))]


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_after_a_power_cut_what_counts_is_whole(every: int, scene: Scene) -> None:
    """Of all states that a disk may be left in, each or every fifth."""
    with remembered_forecasts():
        before, steps = recorded(scene.place, lambda: scene.expect(0, *RUN.words))
        assert sum(step.name == "fsync" for step in steps) >= 8
        states = again = 0
        for number, left in list(cuts(before, steps))[::-every]:
            lay_out(left, scene.place)
            scene.check()
            states += 1
            if states % 10 == 1:
                again += 1
                outcome = quietly(*RUN.words, cwd=scene.place)
                assert outcome.code == 0, (number, outcome)
                scene.check_done(RUN)
                assert scene.leftovers() == []
    tell(3, "run", steps=len(steps), states=states, run_again=again, violations=0)


def published_version(model: Path, *, active: str) -> Callable[[], str]:
    """Return the work that saves a version and activates it."""
    files = {p.name: p.read_bytes() for p in (model / versions.VERSIONS / active).iterdir()}

    def work() -> str:
        versions.remove_leftovers(model)
        name = versions.publish_version(model, files, now=datetime.now(UTC) + timedelta(hours=1))
        versions.activate_version(model, name)
        return name

    return work


def lost_versions(model: Path, work: Callable[[], str]) -> tuple[int, int, list[str]]:
    """Cut the power after each step of some work at a model; say what is not whole then.

    The work returns the version that is active in the end, and that must stay so.
    """
    last: list[str] = []
    before, steps = recorded(model, lambda: last.append(work()))
    scratch = model.with_name("scratch")
    states, violations = 0, []
    for number, left in cuts(before, steps):
        lay_out(left, scratch)
        states += 1
        try:
            resolved = versions.resolve_version(scratch)
            for name in versions.list_versions(scratch):
                artifact.load(versions.resolve_version(scratch, name))
            if number == len(steps) and resolved.name != last[0]:
                violations.append("what came into force does not last")
        except ModelError as error:
            violations.append(f"before step {number}: {error}")
    shutil.rmtree(scratch)
    return len(steps), states, violations


def test_after_a_power_cut_the_version_active_is_whole(scene: Scene) -> None:
    active = versions.resolve_version(scene.model).name
    work = published_version(scene.model, active=active)
    n_steps, states, violations = lost_versions(scene.model, work)
    tell(3, "a version", steps=n_steps, states=states, violations=len(violations))
    assert violations == []


def test_after_a_power_cut_in_retention_no_version_is_seen_in_part(scene: Scene) -> None:
    ages(scene.model, 3)

    def work() -> str:
        gone = versions.retire_versions(scene.model, keep=1, pinned=(), now=datetime.now(UTC))
        assert len(gone) == 3
        return versions.resolve_version(scene.model).name

    n_steps, states, violations = lost_versions(scene.model, work)
    tell(3, "retention", steps=n_steps, states=states, violations=len(violations))
    assert violations == []


# The test of the tests: a disk that loses what was not synced notices each sync that is missing


def noticed(durable: ModuleType, scene: Scene) -> bool:
    """Tell whether a power cut shows that this module publishes less than it should."""
    scene.reset()
    active = versions.resolve_version(scene.model).name
    work = published_version(scene.model, active=active)
    names = ("publish_directory", "replace_pointer", "make_directory", "remove_directory")
    with mock.patch.multiple(versions, **{name: getattr(durable, name) for name in names}):
        try:
            return bool(lost_versions(scene.model, work)[2])
        except (AssertionError, OSError, KeyError, IndexError):
            return True


def in_functions(*names: str) -> list[tuple[int, int]]:
    """Return where syncs and renames stand in these functions of the durable module."""
    tree = ast.parse(test_durable.SOURCE)
    spans = [
        (node.lineno, node.end_lineno or 0)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names
    ]
    calls = test_durable.durable_calls()
    return [
        (call.lineno, call.col_offset)
        for call in calls
        if any(first <= call.lineno <= last for first, last in spans)
    ]


@pytest.mark.slow
def test_a_power_cut_notices_every_sync_and_rename_that_is_missing(scene: Scene) -> None:
    """But for the rename that takes a name back after an error, which no power cut sees."""
    places = in_functions(
        *("NewDirectory", "publishing_directory", "publishing_file", "_sync", "_sync_directory")
    )
    unnoticed = [place for place in places if not noticed(test_durable.without(place), scene)]
    lines = test_durable.SOURCE.splitlines()
    tell(3, "syncs and renames removed in turn", removed=len(places), unnoticed=len(unnoticed))
    assert [lines[line - 1].strip() for line, _ in unnoticed] == ["os.rename(path, temporary)"]
    assert not noticed(test_durable.without((0, 0)), scene)
