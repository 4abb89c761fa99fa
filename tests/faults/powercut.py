"""What a disk may hold after a power cut: what was not synced may be lost, or half there.

A model of the promises of POSIX, and of no more: the content of a file lasts once it is synced, a
name once its folder is. Names of one folder that are not synced come as they were or as they are,
each folder for itself; contents that are not synced are empty, or cut in half.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disk import Step

EMPTY, HALF = 0, 0.5
"""How much of a content is left that was not synced."""
Contents = dict[str, bytes | None]
"""Files by their paths; None for a folder."""


@dataclass(eq=False)
class _Node:
    is_folder: bool
    content: bytes = b""
    synced: bytes | None = b""
    """The content that lasts; None where it was written to since."""
    names: dict[str, _Node] = field(default_factory=dict)
    lasting: dict[str, _Node] = field(default_factory=dict)


class Medium:
    """A folder as it is, and as it may be after a power cut."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = _read(root)

    def do(self, step: Step) -> None:
        """Follow one step."""
        if step.path == str(self.root):
            folder, name = None, ""
            node = self._top
        else:
            folder, name = self._find(str(Path(step.path).parent)), Path(step.path).name
            node = folder.names.get(name)
        if step.name == "fsync":
            assert node is not None
            if node.is_folder:
                node.lasting = dict(node.names)
            node.synced = node.content
            return
        assert folder is not None
        if step.name == "create":
            folder.names[name] = _Node(is_folder=False)
        elif step.name == "mkdir":
            folder.names[name] = _Node(is_folder=True)
        elif step.name == "write":
            if node is not None:  # a file may have lost its name while it is open
                node.content, node.synced = step.content, None
        elif step.name in ("unlink", "rmdir"):
            del folder.names[name]
        else:
            assert node is not None
            target = Path(step.other)
            self._find(str(target.parent)).names[target.name] = node
            if step.name == "rename" and step.path != step.other:
                del folder.names[name]

    def after_power_cut(self) -> Iterator[Contents]:
        """Give all that may be left, folder by folder old or new, contents empty or in half."""
        unsure = [node for node in self._folders(self._top) if node.names != node.lasting]
        seen = set()
        for are_new in itertools.product((False, True), repeat=len(unsure)):
            taken = {id(node): new for node, new in zip(unsure, are_new, strict=True)}
            for share in (EMPTY, HALF):
                left = _left(self._top, taken, share)
                mark = tuple(sorted((k, -1 if v is None else hash(v)) for k, v in left.items()))
                if mark not in seen:
                    seen.add(mark)
                    yield left

    def _find(self, path: str) -> _Node:
        node = self._top
        for name in Path(path).relative_to(self.root).parts:
            node = node.names[name]
        return node

    def _folders(self, node: _Node) -> list[_Node]:
        inside = {id(n): n for n in (*node.names.values(), *node.lasting.values()) if n.is_folder}
        below = (f for n in inside.values() for f in self._folders(n))
        return list({id(f): f for f in (node, *below)}.values())


def _read(path: Path) -> _Node:
    if not path.is_dir():
        content = path.read_bytes()
        return _Node(is_folder=False, content=content, synced=content)
    names = {one.name: _read(one) for one in path.iterdir()}
    return _Node(is_folder=True, names=names, lasting=dict(names))


def _left(node: _Node, taken: dict[int, bool], share: float, prefix: str = "") -> Contents:
    if not node.is_folder:
        kept = node.content[: int(share * len(node.content))]
        return {prefix: kept if node.synced is None else node.synced}
    found: Contents = {prefix: None} if prefix else {}
    names = node.names if taken.get(id(node), False) else node.lasting
    for name, inner in names.items():
        found.update(_left(inner, taken, share, f"{prefix}/{name}" if prefix else name))
    return found


def lay_out(contents: Contents, root: Path) -> None:
    """Make a folder what was left."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in contents.items():
        if content is None:
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


def cuts(before: Medium, steps: Sequence[Step]) -> Iterator[tuple[int, Contents]]:
    """Give all that may be left by a power cut before each step, and after the last."""
    for number, step in enumerate(steps):
        for left in before.after_power_cut():
            yield number, left
        before.do(step)
    for left in before.after_power_cut():
        yield len(steps), left
