"""Laws of the code itself: what may import what, and what may stand only in one place."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePath

import pytest

import rnnforecast

PACKAGE = Path(rnnforecast.__file__).parent
MODULES = {
    ".".join(("rnnforecast", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
GROUND = (
    "_version",
    "errors",
    "events",
    "gradients",
    "parallel",
    "process",
    "spec",
    "system",
    "units",
    "urls",
)
"""Modules outside of every room; each imports the standard library and others of them only."""
BELOW = {
    "config": (),
    "storage": (),
    "sources": ("storage", "config"),
    "data": ("storage", "config"),
    "tables": ("data", "sources", "storage", "config"),
    "model": ("tables", "data", "storage", "config"),
    "evaluate": ("tables", "data", "config"),
    "report": ("data", "config"),
    "workflow": ("model", "evaluate", "report", "tables", "data", "sources", "storage", "config"),
    "batch": ("workflow", "model", "evaluate", "tables", "data", "sources", "storage", "config"),
    "jobs": ("workflow", "model", "evaluate", "tables", "data", "sources", "storage", "config"),
    "cli": (
        "batch",
        "jobs",
        "workflow",
        "report",
        "evaluate",
        "model",
        "tables",
        "data",
        "storage",
        "config",
    ),
}
"""The rooms, and what each may import besides itself and the ground. Arrows point down only."""
LIBRARIES_OF_THE_GROUND = {"parallel": {"numpy"}}
TRAINING = ("distributed", "fitting", "loss", "member", "memory", "training")
"""Modules of `model` that import torch; a forecast needs none of them."""
MAX_LINES, MAX_MODULES_OF_A_ROOM, MAX_MODULES, MAX_OWN_IMPORTS = 800, 24, 138, 24
VAGUE_NAMES = {
    *("said", "told", "found", "own", "one", "each", "every", "other", "others", "here", "there"),
    *("beside", "asked", "meant", "wanted", "given", "kept", "left", "rest", "made", "shown"),
    *("word", "words", "what", "which", "why", "how", "who", "whole", "among", "apart", "alone"),
    *("held", "begun", "came", "come", "gone", "called", "near", "far", "looks", "taken", "alike"),
    *("error_reference", "lasting", "within", "outside"),
}
"""Pronouns and participles name nothing. Say `manifest`, `member`, `existing`, `timestamps`."""
MAX_VAGUE_NAMES_PER_1000_LINES = 1.0
BANNED_NAMES = {
    *("utils", "helpers", "manager", "args", "data2", "said", "found", "given", "beside"),
    *("in_force", "put_in_force", "name_in_force", "learnt_until", "learn_on", "not_as_usual"),
    *("committee", "stepping", "aftermath", "teller", "newcomers", "strangers", "oddities"),
}
"""Private words of this code's past, and names that say nothing about what they name."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """`rnnforecast.data.panel` lies in `data`; `rnnforecast.units` is `units`."""
    return module.split(".")[1] if "." in module else "__init__"


def modules_of(room: str) -> dict[str, Path]:
    return {module: path for module, path in MODULES.items() if room_of(module) == room}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def at_run_time(tree: ast.AST, *, into_functions: bool = True) -> Iterator[ast.AST]:
    """Every node but what only a type checker reads, or what only a call runs."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for child in ast.iter_child_nodes(tree):
        if is_for_types(child) or (not into_functions and isinstance(child, functions)):
            continue
        yield child
        yield from at_run_time(child, into_functions=into_functions)


@cache
def imported(tree: ast.AST, *, into_functions: bool = True) -> frozenset[str]:
    """Names of the modules that are imported; of `from a import b`, both `a` and `a.b`."""
    names: set[str] = set()
    for node in at_run_time(tree, into_functions=into_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def imported_rooms(tree: ast.AST) -> set[str]:
    """Which rooms, and modules of the ground, a module imports."""
    names = {name for name in imported(tree) if name.startswith("rnnforecast.")}
    return {room_of(name) for name in names} & {room_of(module) for module in MODULES}


def imported_libraries(tree: ast.AST) -> set[str]:
    names = {name.split(".")[0] for name in imported(tree)}
    return names - set(sys.stdlib_module_names) - {"rnnforecast"}


@cache
def called(tree: ast.AST) -> frozenset[str]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return frozenset(ast.unparse(node.func) for node in calls)


@cache
def used(tree: ast.AST) -> frozenset[str]:
    """Every dotted name that is used or imported."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name))
    return imported(tree) | {ast.unparse(node) for node in nodes}


def bound(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound: variables and parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def offenders(breaks: Callable[[ast.Module], object], *, but: tuple[str, ...] = ()) -> list[str]:
    return [m for m, path in MODULES.items() if m not in but and breaks(parsed(path))]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other."""

    def reached(node: str) -> set[str]:
        seen: set[str] = set()
        ahead = [node]
        while ahead:
            for target in graph.get(ahead.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    ahead.append(target)
        return seen

    below = {node: reached(node) for node in graph}
    groups = {tuple(sorted(m for m in below[n] if n in below[m])) for n in graph if n in below[n]}
    return [list(group) for group in sorted(groups)]


def test_every_module_lies_in_a_room_or_on_the_ground() -> None:
    assert {room_of(module) for module in MODULES} == {*GROUND, *BELOW, "__init__", "__main__"}


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_itself_what_lies_below_and_the_ground(room: str) -> None:
    for module, path in modules_of(room).items():
        assert imported_rooms(parsed(path)) <= {room, *BELOW[room], *GROUND}, module


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_imports_only_itself_and_the_standard_library(name: str) -> None:
    tree = parsed(PACKAGE / f"{name}.py")

    assert imported_rooms(tree) <= set(GROUND)
    assert imported_libraries(tree) <= LIBRARIES_OF_THE_GROUND.get(name, set())


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_the_libraries_that_its_header_names(room: str) -> None:
    header = ast.get_docstring(parsed(PACKAGE / room / "__init__.py")) or ""
    named = re.search(r"Libraries: ([\w, ]+)\.", header)
    assert named, f"the header of {room} ends with a line such as  Libraries: numpy, pyarrow."
    allowed = set(named[1].split(", ")) - {"none"}

    libraries = {
        module: imported_libraries(parsed(path)) for module, path in modules_of(room).items()
    }

    assert set().union(*libraries.values()) == allowed


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        room: set().union(*(imported_rooms(parsed(p)) for p in modules_of(room).values())) - {room}
        for room in BELOW
    }

    assert cycles(graph) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Imports inside of functions count: a circle that is closed late is one, too."""
    but = ("rnnforecast",)  # it exports what lies below, and every module of the package imports it
    graph = {
        module: {name for name in imported(parsed(path)) if name in MODULES and name not in but}
        for module, path in MODULES.items()
        if module not in but
    }

    assert cycles(graph) == []


def test_a_cycle_is_found_and_a_diamond_is_none() -> None:
    assert cycles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_modules_are_neither_too_many_nor_too_long() -> None:
    assert len(MODULES) <= MAX_MODULES
    lengths = {m: len(path.read_text(encoding="utf-8").splitlines()) for m, path in MODULES.items()}
    assert {m: n for m, n in lengths.items() if n > MAX_LINES} == {}
    sizes = {room: len(modules_of(room)) for room in BELOW}
    assert {room: n for room, n in sizes.items() if n > MAX_MODULES_OF_A_ROOM} == {}


def test_no_module_imports_half_of_the_package() -> None:
    def of_the_package(tree: ast.Module) -> int:
        return len({name for name in imported(tree, into_functions=False) if name in MODULES})

    counts = {module: of_the_package(parsed(path)) for module, path in MODULES.items()}
    assert {module: n for module, n in counts.items() if n > MAX_OWN_IMPORTS} == {}


def test_names_name_something() -> None:
    names = [name for path in MODULES.values() for name in bound(parsed(path))]
    n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values())
    vague = [name for name in names if name in VAGUE_NAMES]

    assert 1000 * len(vague) / n_lines <= MAX_VAGUE_NAMES_PER_1000_LINES


def test_banned_names_do_not_come_back() -> None:
    for path in MODULES.values():
        tree = parsed(path)
        functions = {node.name for node in ast.walk(tree) if isinstance(node, DEFINITIONS)}
        assert not {*bound(tree), *functions, path.stem} & BANNED_NAMES, path


@pytest.mark.parametrize("banned", ["pickle", "cPickle", "dill", "joblib", "shelve", "marshal"])
def test_nothing_is_pickled(banned: str) -> None:
    assert offenders(lambda tree: banned in {name.split(".")[0] for name in imported(tree)}) == []


def test_torch_load_and_what_runs_text_as_code_are_not_used() -> None:
    banned = {"torch.load", "torch.jit.load", "eval", "exec", "compile", "__import__", "os.system"}

    assert offenders(lambda tree: called(tree) & banned) == []
    assert offenders(lambda tree: {"torch.load", "torch.jit"} & used(tree)) == []


def test_only_the_console_prints() -> None:
    assert offenders(lambda tree: "print" in called(tree), but=("rnnforecast.cli.console",)) == []


@pytest.mark.parametrize("call", ["replace", "rename", "fsync", "link", "renames"])
def test_only_durable_renames_and_syncs_files(call: str) -> None:
    durable = ("rnnforecast.storage.durable",)

    assert offenders(lambda tree: f"os.{call}" in used(tree), but=durable) == []


def test_only_one_module_talks_to_stores() -> None:
    libraries = {"pyarrow.fs", "fsspec"}

    assert offenders(lambda tree: libraries & imported(tree)) == ["rnnforecast.storage.stores"]


@pytest.mark.parametrize("library", ["torch", "matplotlib", "sklearn", "scipy", "ray"])
def test_a_slow_library_is_imported_at_module_level_only_where_it_is_at_home(library: str) -> None:
    def at_import(tree: ast.AST) -> bool:
        names = imported(tree, into_functions=False)
        return library in {name.split(".")[0] for name in names}

    at_home = {f"rnnforecast.model.{name}" for name in TRAINING} if library == "torch" else set()
    assert set(offenders(at_import)) == at_home


@pytest.mark.parametrize("module", ["rnnforecast", *modules_of("cli")])
def test_the_command_line_starts_without_the_libraries_that_are_slow_to_import(module: str) -> None:
    names = imported(parsed(MODULES[module]), into_functions=False)

    slow = {"torch", "numpy", "pandas", "pyarrow", "sklearn", "matplotlib", "rich", "safetensors"}
    assert not slow & {name.split(".")[0] for name in names}
    rooms = {room_of(name) for name in names if name.startswith("rnnforecast.")} & set(BELOW)
    assert rooms <= {"cli", "config", "storage"}


def test_what_imports_torch_is_imported_in_functions_alone_outside_of_training() -> None:
    training = {f"rnnforecast.model.{name}" for name in TRAINING}

    def at_import(tree: ast.AST) -> bool:
        return bool(training & imported(tree, into_functions=False))

    assert offenders(at_import, but=tuple(training)) == []


def test_no_room_but_the_command_line_imports_typer_or_rich() -> None:
    screen = {"typer", "rich", "click"}

    assert {room_of(m) for m in offenders(lambda tree: screen & imported_libraries(tree))} == {
        "cli"
    }


def test_every_module_says_what_it_is_for() -> None:
    assert offenders(lambda tree: not ast.get_docstring(tree)) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b as c", {"a.b"}),
        ("from a import b", {"a", "a.b"}),
        ("def f():\n    import a", {"a"}),
        ("if TYPE_CHECKING:\n    import a", set()),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
    ],
)
def test_the_rules_see_the_imports_that_run(source: str, names: set[str]) -> None:
    assert imported(ast.parse(source)) == names


def test_the_rules_tell_imports_at_module_level_from_those_of_a_call() -> None:
    tree = ast.parse("class A:\n    import a\ndef f():\n    import b\nif x:\n    import c")

    assert imported(tree, into_functions=False) == {"a", "c"}


def test_files_that_are_no_modules_are_in_the_wheel() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    data = project["tool"]["setuptools"]["package-data"]
    files = {
        path.relative_to(PACKAGE.parent)
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {
        PurePath(*package.split("."), name) for package in data for name in data[package]
    } == files
