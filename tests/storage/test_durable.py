"""Publishing: whole or not at all, whatever fails, and in an order that survives a power cut.

The laws take the module as an argument, so that the last test can remove each fsync and each rename
of it in turn and see that a law notices.
"""

from __future__ import annotations

import ast
import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from rnnforecast.errors import WriteError
from rnnforecast.storage import durable

OLD, NEW = b"old\n", b"new and longer\n" * 1000
FILES = {"weights": b"w" * 20_000, "names": b"", "manifest": b"m"}
KINDS = {
    "open": ("open",),
    "write": ("write",),
    "fsync": ("fsync",),
    "rename": ("rename", "replace"),
    "mkdir": ("mkdir",),
    "link": ("link",),
    "unlink": ("unlink",),
}


@dataclass
class Disk:
    """Stands between a publication and the operating system: records, and fails when told to."""

    kind: str = "nothing"
    at: int = 0
    """Which call of this kind fails, counted from 1."""
    for_ever: bool = False
    error: int = errno.EIO
    look: Callable[[], None] = lambda: None
    """Called after every operation, as a reader would."""
    log: list[tuple[str, ...]] = field(default_factory=list)
    n_calls: int = 0
    _paths: dict[int, str] = field(default_factory=dict)

    @property
    def has_failed(self) -> bool:
        return 0 < self.at <= self.n_calls

    def doing(self, name: str, *what: object) -> None:
        if name in KINDS.get(self.kind, ()):
            self.n_calls += 1
            if self.n_calls == self.at or (self.for_ever and self.n_calls > self.at):
                raise OSError(self.error, os.strerror(self.error), str(what[0]))
        self.log.append((name, *map(str, what)))

    def named(self, descriptor: int) -> str:
        return self._paths[descriptor]

    def wrapped(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if name == "fsync":
                path = Path(self._paths[arguments[0]])
                size = path.stat().st_size if path.is_file() else 0
                self.doing(name, path, size)
            else:
                self.doing(name, *arguments[: 2 if name in ("rename", "replace", "link") else 1])
            result = None if name == "fsync" else real(*arguments, **options)
            if name == "open":
                self._paths[result] = str(arguments[0])
            self.look()
            return result

        return call

    def writing(self, descriptor: int, mode: str) -> io.BufferedWriter:
        assert mode == "wb"
        return io.BufferedWriter(_Raw(descriptor, self))


class _Raw(io.FileIO):
    """A file whose writes go through the disk."""

    def __init__(self, descriptor: int, disk: Disk) -> None:
        super().__init__(descriptor, "wb")
        self._disk = disk

    def write(self, content: Any) -> int:
        self._disk.doing("write", self._disk.named(self.fileno()))
        written = super().write(content)
        self._disk.look()
        return written


@contextmanager
def using(disk: Disk) -> Iterator[Disk]:
    names = [name for names in KINDS.values() for name in names if name != "write"]
    wrapped = {name: disk.wrapped(name) for name in names}
    with mock.patch.multiple(os, **wrapped, fdopen=disk.writing):
        yield disk


@dataclass(frozen=True)
class Story:
    """One publication: what is there before, what is done, and what is there after."""

    name: str
    target: str
    before: dict[str, bytes]
    after: dict[str, bytes]

    def prepare(self, folder: Path) -> None:
        for name, content in self.before.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def publish(self, durable: ModuleType, folder: Path) -> None:
        path = folder / self.target
        if self.name == "directory":
            durable.publish_directory(path, FILES)
        elif self.name == "pointer":
            durable.replace_pointer(path, "version-2")
        elif self.name == "folders":
            durable.make_directory(path)
        else:
            with durable.publishing_file(path) as file:
                file.write(NEW)


OTHER = {"other": b"not ours"}
STORIES = [
    Story("file", "f.csv", {**OTHER, "f.csv": OLD}, {**OTHER, "f.csv": NEW}),
    Story("new file", "f.csv", OTHER, {**OTHER, "f.csv": NEW}),
    Story("pointer", "CURRENT", {"CURRENT": b"version-1\n"}, {"CURRENT": b"version-2\n"}),
    Story(
        "directory",
        "v2",
        {"v1/manifest": OLD},
        {"v1/manifest": OLD, **{f"v2/{name}": content for name, content in FILES.items()}},
    ),
]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, temporary ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def n_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def without_leftovers(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith(".tmp-")}


def places(folder: Path) -> Iterator[tuple[Story, Path]]:
    for number, story in enumerate(STORIES):
        place = folder / f"{number}"
        place.mkdir(parents=True)
        story.prepare(place)
        yield story, place


# Laws


def what_is_published_is_whole_and_nothing_else_changes(durable: ModuleType, folder: Path) -> None:
    for story, place in places(folder):
        story.publish(durable, place)
        assert contents(place) == story.after
        assert {p.name for p in place.iterdir()} == {name.split("/")[0] for name in story.after}


def a_reader_sees_the_old_or_the_new_at_every_moment(durable: ModuleType, folder: Path) -> None:
    for story, place in places(folder):
        seen = []

        def look(place: Path = place, seen: list = seen) -> None:
            seen.append(without_leftovers(contents(place)))

        with using(Disk(look=look)):
            story.publish(durable, place)
        changes = [now for before, now in zip([None, *seen], seen, strict=False) if now != before]
        assert changes == [story.before, story.after]


def every_file_is_synced_whole_before_it_gets_its_name(durable: ModuleType, folder: Path) -> None:
    for story, place in places(folder):
        with using(Disk()) as disk:
            story.publish(durable, place)
        renames = [i for i, (what, *_) in enumerate(disk.log) if what in ("rename", "replace")]
        assert len(renames) == 1
        named = renames[0]
        _, temporary, final = disk.log[named]
        assert Path(final) == place / story.target
        assert Path(temporary).parent == place
        for name, content in story.after.items():
            if name.startswith(story.target):
                inside = temporary + name.removeprefix(story.target)
                assert ("fsync", inside, str(len(content))) in disk.log[:named]
                assert ("write", inside) not in disk.log[named:]
        if story.name == "directory":
            assert disk.log[named - 1] == ("fsync", temporary, "0")


def the_folder_is_synced_after_the_name(durable: ModuleType, folder: Path) -> None:
    for story, place in places(folder):
        with using(Disk()) as disk:
            story.publish(durable, place)
        names = [i for i, (what, *_) in enumerate(disk.log) if what in ("rename", "replace")]
        assert names
        assert ("fsync", str(place), "0") in disk.log[names[-1] :]


def files_are_written_in_the_order_given(durable: ModuleType, folder: Path) -> None:
    place = folder / "place"
    place.mkdir()
    with using(Disk()) as disk:
        durable.publish_directory(place / "v2", FILES)
    synced = [Path(what[1]).name for what in disk.log if what[0] == "fsync"]
    assert synced[: len(FILES)] == list(FILES)


def a_new_folder_is_synced_into_its_parent(durable: ModuleType, folder: Path) -> None:
    place = folder / "place"
    place.mkdir()
    with using(Disk()) as disk:
        durable.make_directory(place / "a" / "b")
    steps = [what[:2] for what in disk.log if what[0] in ("mkdir", "fsync")]
    assert steps == [
        ("mkdir", str(place / "a")),
        ("fsync", str(place)),
        ("mkdir", str(place / "a" / "b")),
        ("fsync", str(place / "a")),
    ]


def whatever_fails_what_was_there_stays_as_it_was(durable: ModuleType, folder: Path) -> None:
    """The N-th call of each kind fails, once or from then on, until a run is clean."""
    for kind in KINDS:
        _fail_each(durable, folder / kind / "once", kind=kind, for_ever=False, error=errno.EIO)
        _fail_each(durable, folder / kind / "full", kind=kind, for_ever=False, error=errno.ENOSPC)
        _fail_each(durable, folder / kind / "ever", kind=kind, for_ever=True, error=errno.EACCES)


def _fail_each(durable: ModuleType, folder: Path, **fault: Any) -> None:
    for at in range(1, 50):
        n_failed = 0
        for story, place in places(folder / str(at)):
            disk = Disk(at=at, **fault)
            _fail_one(durable, story, place, disk)
            n_failed += disk.has_failed
        if not n_failed:
            return
    raise AssertionError("no run was clean")


def _fail_one(durable: ModuleType, story: Story, place: Path, disk: Disk) -> None:
    descriptors = n_descriptors()
    try:
        with using(disk):
            story.publish(durable, place)
    except WriteError as error:
        assert error.exit_code == 7
        assert str(place / story.target) in error.message
        assert os.strerror(disk.error) in error.message
        assert error.hint
        expected = story.before
    else:
        assert not disk.has_failed or disk.kind in ("link", "unlink")
        expected = story.after
    found = contents(place)
    assert without_leftovers(found) == expected
    if not disk.for_ever and disk.kind != "unlink":
        assert found == expected
        assert {p.name for p in place.iterdir()} == {name.split("/")[0] for name in expected}
    assert n_descriptors() <= descriptors
    if expected is story.before:
        with using(Disk()):
            story.publish(durable, place)
        assert without_leftovers(contents(place)) == story.after


def what_is_removed_goes_in_one_step_and_for_good(durable: ModuleType, folder: Path) -> None:
    (folder / "v1").mkdir()
    for name, content in FILES.items():
        (folder / "v1" / name).write_bytes(content)
    (folder / "f.csv").write_bytes(OLD)
    seen = []

    with using(Disk(look=lambda: seen.append(len(contents(folder / "v1"))))) as disk:
        durable.remove_directory(folder / "v1")
        durable.remove_file(folder / "f.csv")

    assert set(seen) <= {0, len(FILES)}
    assert list(folder.iterdir()) == []
    steps = [what[:2] for what in disk.log]
    unnamed = steps.index(("rename", str(folder / "v1")))
    emptied = next(i for i, step in enumerate(steps) if step == ("unlink", next(iter(FILES))))
    gone = steps.index(("unlink", str(folder / "f.csv")))
    assert ("fsync", str(folder)) in steps[unnamed:emptied]
    assert ("fsync", str(folder)) in steps[gone:]


def a_log_that_is_full_gives_its_name_to_a_new_one(durable: ModuleType, folder: Path) -> None:
    for number in range(7):
        durable.append_line(folder / "run.log", b"%d\n" % number, max_bytes=4)
    assert contents(folder) == {"run.log": b"6\n", "run.log.1": b"4\n5\n"}


LAWS = [
    a_log_that_is_full_gives_its_name_to_a_new_one,
    what_is_published_is_whole_and_nothing_else_changes,
    a_reader_sees_the_old_or_the_new_at_every_moment,
    every_file_is_synced_whole_before_it_gets_its_name,
    the_folder_is_synced_after_the_name,
    files_are_written_in_the_order_given,
    a_new_folder_is_synced_into_its_parent,
    whatever_fails_what_was_there_stays_as_it_was,
    what_is_removed_goes_in_one_step_and_for_good,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[ModuleType, Path], None], tmp_path: Path) -> None:
    law(durable, tmp_path)


# Single cases


def test_making_a_folder_that_fails_names_it(tmp_path: Path) -> None:
    for kind in ("mkdir", "fsync", "open"):
        with using(Disk(kind, at=1)), pytest.raises(WriteError, match=r"a/b") as caught:
            durable.make_directory(tmp_path / "a" / "b")
        assert caught.value.exit_code == 7
    durable.make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_making_a_folder_that_exists_leaves_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(OLD)

    with using(Disk()) as disk:
        durable.make_directory(tmp_path)

    assert disk.log == []
    assert contents(tmp_path) == {"f": OLD}


def test_a_folder_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(OLD)

    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(WriteError, match="ot a directory"):
            durable.make_directory(path)

    assert contents(tmp_path) == {"f": OLD}


def test_nothing_has_the_name_while_the_content_is_written(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"

    with durable.publishing_file(path) as file:
        file.write(NEW)
        file.flush()
        assert not path.exists()
        assert [p.name[:5] for p in tmp_path.iterdir()] == [".tmp-"]

    assert path.read_bytes() == NEW


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_error_of_the_caller_passes_and_publishes_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(OLD)

    with pytest.raises(error), durable.publishing_file(path) as file:
        file.write(NEW)
        raise error

    assert contents(tmp_path) == {"f.csv": OLD}


def test_a_missing_folder_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    path = tmp_path / "none" / "f.csv"

    with pytest.raises(WriteError, match=r"none/f\.csv: No such file") as caught:
        durable.replace_pointer(path, "x")
    with pytest.raises(WriteError, match=r"none/f\.csv: No such file"):
        durable.publish_directory(path, FILES)

    assert (caught.value.exit_code, caught.value.code) == (7, "cannot-write")
    assert "folder exists" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "f.csv").mkdir()
    (tmp_path / "f.csv" / "inside").write_bytes(OLD)

    with pytest.raises(WriteError, match=r"f\.csv: Is a directory"):
        durable.replace_pointer(tmp_path / "f.csv", "x")

    assert contents(tmp_path) == {"f.csv/inside": OLD}
    assert [p.name for p in tmp_path.iterdir()] == ["f.csv"]


def test_a_directory_of_many_open_files_has_no_name_until_all_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "v"

    with using(Disk()) as disk, durable.publishing_directory(path) as directory:
        with directory.file("a") as first, directory.file("b") as second:
            for _ in range(3):
                first.write(OLD)
                second.write(NEW)
        assert not path.exists()

    assert contents(tmp_path) == {"v/a": 3 * OLD, "v/b": 3 * NEW}
    assert [Path(what[1]).name for what in disk.log if what[0] == "fsync"][:2] == ["b", "a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_of_who_fills_a_directory_passes_and_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), durable.publishing_directory(tmp_path / "v") as directory:
        with directory.file("a") as file:
            file.write(NEW)
        raise error

    assert list(tmp_path.iterdir()) == []


def test_a_version_that_exists_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "manifest").write_bytes(OLD)
    (tmp_path / "v2").write_bytes(OLD)

    for name in ("v1", "v2"):
        with pytest.raises(WriteError, match=name):
            durable.publish_directory(tmp_path / name, FILES)

    assert contents(tmp_path) == {"v1/manifest": OLD, "v2": OLD}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v1", "v2"]


def test_a_link_is_replaced_and_what_it_led_to_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "aim").write_bytes(OLD)
    (tmp_path / "f.csv").symlink_to("aim")

    durable.replace_pointer(tmp_path / "f.csv", "x")

    assert contents(tmp_path) == {"aim": OLD, "f.csv": b"x\n"}
    assert not (tmp_path / "f.csv").is_symlink()


def test_a_link_comes_back_where_the_folder_cannot_be_synced(tmp_path: Path) -> None:
    (tmp_path / "aim").write_bytes(OLD)
    (tmp_path / "f.csv").symlink_to("aim")

    with using(Disk("fsync", at=2)), pytest.raises(WriteError):
        durable.replace_pointer(tmp_path / "f.csv", "x")

    assert (tmp_path / "f.csv").readlink() == Path("aim")
    assert contents(tmp_path) == {"aim": OLD, "f.csv": OLD}


def test_a_link_under_the_temporary_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_bytes(OLD)
    monkeypatch.setattr("secrets.token_hex", lambda _n: "0")
    (tmp_path / ".tmp-0-f.csv").symlink_to("victim")

    with pytest.raises(WriteError, match="File exists"):
        durable.replace_pointer(tmp_path / "f.csv", "x")

    assert contents(tmp_path)["victim"] == OLD


def test_what_a_killed_writer_left_is_collected_for_the_names_that_are_asked_for(
    tmp_path: Path,
) -> None:
    left = {f".tmp-{'0a' * 6}-f.csv": OLD, f".tmp-{'1b' * 6}-v2/manifest": OLD}
    other = {f".tmp-{'2c' * 6}-g.csv": OLD, ".tmp-mine": OLD, "f.csv": NEW}
    Story("left", "", {**left, **other}, {}).prepare(tmp_path)

    durable.remove_stale_temps(tmp_path, pattern="[fv]*")

    assert contents(tmp_path) == other


def test_a_name_as_long_as_can_be_is_published(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127 + "x")

    durable.replace_pointer(path, "x")

    assert contents(tmp_path) == {path.name: b"x\n"}


def test_removing_what_is_not_there_is_an_error_for_a_directory_only(tmp_path: Path) -> None:
    durable.remove_file(tmp_path / "f.csv")
    with pytest.raises(WriteError, match="v1"):
        durable.remove_directory(tmp_path / "v1")


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_modes_follow_the_umask(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    before = os.umask(umask)
    try:
        durable.replace_pointer(tmp_path / "CURRENT", "x")
        durable.publish_directory(tmp_path / "v", {"manifest": b"m"})
        durable.make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes == {p: file if p.is_file() else folder for p in modes}
    assert len(modes) == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
@pytest.mark.parametrize("content", [b"x", NEW * 100], ids=["in a buffer", "larger than a buffer"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.csv").write_bytes(OLD)
    real = os.open

    def full(path: Any, flags: int, *more: Any, **options: Any) -> int:
        real_path = "/dev/full" if flags & os.O_CREAT else path
        return real(real_path, flags & ~(os.O_CREAT | os.O_EXCL), *more, **options)

    with (
        mock.patch.object(os, "open", full),
        pytest.raises(WriteError, match=r"f\.csv: No space left on device"),
        durable.publishing_file(tmp_path / "f.csv") as file,
    ):
        file.write(content)

    assert contents(tmp_path) == {"f.csv": OLD}


def test_paths_with_spaces_line_breaks_and_other_scripts_can_be_published(tmp_path: Path) -> None:
    for name in ("a b.csv", "a\nb.csv", "größe 🌡.csv", "-x.csv", "." * 3):
        durable.replace_pointer(tmp_path / name, "x")

        assert (tmp_path / name).read_bytes() == b"x\n"


def test_a_relative_path_is_published_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    durable.make_directory(Path("a"))
    durable.replace_pointer(Path("f.csv"), "x")
    durable.publish_directory(Path("a/v"), FILES)

    assert contents(tmp_path) == {"f.csv": b"x\n", **{f"a/v/{k}": v for k, v in FILES.items()}}


def test_a_line_goes_through_a_pipe_or_is_an_error_soon(tmp_path: Path) -> None:
    """Nobody may hang because of a reader that is not there, or does not read."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="nothing reads from this pipe"):
        durable.append_line(pipe, b"x\n")

    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    durable.append_line(pipe, b"x\n", max_bytes=1)
    assert os.read(reader, 100) == b"x\n"
    with mock.patch.object(durable, "PIPE_PATIENCE_S", 0.05), pytest.raises(TimeoutError):
        durable.append_line(pipe, b"x" * (1 << 20))
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_several_processes_that_begin_a_log_anew_lose_no_more_than_one_file(tmp_path: Path) -> None:
    """Whoever has waited finds a log that another process has begun anew, and leaves it."""
    log = tmp_path / "run.log"
    log.write_bytes(b"old\n" * 10)
    with log.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        durable.append_line(log, b"new\n", max_bytes=20)
        assert contents(tmp_path) == {"run.log": b"old\n" * 10 + b"new\n"}
    durable.append_line(log, b"newer\n", max_bytes=20)
    assert contents(tmp_path) == {"run.log": b"newer\n", "run.log.1": b"old\n" * 10 + b"new\n"}


# The test of the tests

SOURCE = Path(durable.__file__).read_text()
DURABLE_CALLS = ("os.fsync", "os.replace", "os.rename", "os.link", "_sync", "_sync_directory")
OTHER_SPELLINGS = ("fsync", "fdatasync", "sync", "replace", "rename", "renames", "move", "link")


def durable_calls() -> list[ast.Call]:
    calls = (node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Call))
    return [call for call in calls if ast.unparse(call.func) in DURABLE_CALLS]


def without(place: tuple[int, int]) -> ModuleType:
    """Make the module again without the call that stands at this line and column."""

    class Remover(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            if (node.lineno, node.col_offset) == place and ast.unparse(node.func) in DURABLE_CALLS:
                return ast.copy_location(ast.Constant(None), node)
            return self.generic_visit(node)

    module = ModuleType("durable_without_one_call")
    tree = Remover().visit(ast.parse(SOURCE))
    exec(compile(tree, module.__name__, "exec"), module.__dict__)
    return module


def broken_laws(durable: ModuleType, folder: Path) -> Iterator[str]:
    for law in LAWS:
        (folder / law.__name__).mkdir()
        try:
            law(durable, folder / law.__name__)
        except (AssertionError, OSError, WriteError):
            yield law.__name__


@pytest.mark.parametrize(
    "place",
    [
        pytest.param((c.lineno, c.col_offset), id=f"{ast.unparse(c)}, line {c.lineno}")
        for c in durable_calls()
    ],
)
def test_no_fsync_and_no_rename_can_be_removed_unnoticed(
    place: tuple[int, int], tmp_path: Path
) -> None:
    assert any(broken_laws(without(place), tmp_path))


def test_no_sync_and_no_rename_is_spelt_otherwise() -> None:
    """Or it would not be among those that are removed."""
    calls = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Call)]
    spelt = {ast.unparse(c.func) for c in calls if isinstance(c.func, ast.Attribute)}
    sounding = {name for name in spelt if name.rpartition(".")[2] in OTHER_SPELLINGS}
    assert sounding == {name for name in DURABLE_CALLS if "." in name}


def test_the_module_made_again_in_full_keeps_every_law(tmp_path: Path) -> None:
    assert list(broken_laws(without((0, 0)), tmp_path)) == []
