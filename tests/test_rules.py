"""Rules of the code itself: what may be imported by what, and what may stand only in one place."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rnnforecast

PACKAGE = Path(rnnforecast.__file__).parent
MODULES = {
    "rnnforecast." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOMS = ("places", "sources", "data", "model", "evaluate", "pictures", "operate")
GROUND = (
    "card",
    "config",
    "crashpoints",
    "dataconfig",
    "task",
    "durations",
    "errors",
    "fields",
    "formats",
    "jobconfig",
    "jobfile",
    "launch",
    "limits",
    "numerals",
    "ranksconfig",
    "runconfig",
    "signals",
    "timelimit",
    "verdicts",
    "events",
    "durable",
    "urls",
    "_version",
)
"""What every room may import; it imports the standard library and itself only."""
BELOW = {
    "places": ("places",),
    "sources": ("sources", "places"),
    "data": ("data", "sources", "places"),
    "model": ("model", "data", "places"),
    "evaluate": ("evaluate", "data"),
    "pictures": ("pictures", "data"),
    "operate": ("operate", "data", "places"),
}
ENTRIES = ("cli", "entry", "__init__", "__main__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """`rnnforecast.data.panel` lies in `data`; `rnnforecast.cli` is `cli`."""
    return module.split(".")[1] if "." in module else "__init__"


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


def imported(tree: ast.AST, *, into_functions: bool = True) -> set[str]:
    """Names of the modules that are imported; of `from a import b`, both `a` and `a.b`."""
    found = set()
    for node in at_run_time(tree, into_functions=into_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own_rooms(tree: ast.AST) -> set[str]:
    """Which parts of the package a module imports."""
    known = {room_of(module) for module in MODULES}
    names = {name for name in imported(tree) if name.startswith("rnnforecast.")}
    return {room_of(name) for name in names} & known


def called(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def named(tree: ast.AST) -> set[str]:
    """Every dotted name that is used or imported."""
    used = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute | ast.Name)}
    return used | imported(tree)


def offenders(module_breaks: object, *, but: tuple[str, ...] = ()) -> list[str]:
    return [
        module
        for module, path in MODULES.items()
        if module not in but and module_breaks(parsed(path))  # type: ignore[operator]
    ]


def test_every_module_of_the_package_is_looked_at() -> None:
    assert {f"rnnforecast.{room}.__init__" for room in ROOMS} <= MODULES.keys()
    assert {
        f"rnnforecast.{name}" for name in (*GROUND, *ENTRIES) if name != "cli"
    } <= MODULES.keys()
    assert "rnnforecast.cli.commands" in MODULES


@pytest.mark.parametrize("banned", ["pickle", "cPickle", "dill", "joblib", "shelve", "marshal"])
def test_nothing_is_pickled(banned: str) -> None:
    assert offenders(lambda tree: banned in {name.split(".")[0] for name in imported(tree)}) == []


def test_torch_load_and_what_runs_text_as_code_are_not_used() -> None:
    banned = {"torch.load", "torch.jit.load", "eval", "exec", "compile", "__import__", "os.system"}

    assert offenders(lambda tree: called(tree) & banned) == []
    assert offenders(lambda tree: {"torch.load", "torch.jit"} & named(tree)) == []


def test_only_the_console_prints() -> None:
    assert offenders(lambda tree: "print" in called(tree), but=("rnnforecast.console",)) == []


@pytest.mark.parametrize("call", ["replace", "rename", "fsync", "link", "renames"])
def test_only_durable_names_and_syncs_files(call: str) -> None:
    assert offenders(lambda tree: f"os.{call}" in named(tree), but=("rnnforecast.durable",)) == []


def test_only_one_module_talks_to_stores() -> None:
    libraries = {"pyarrow.fs", "fsspec"}

    assert offenders(lambda tree: libraries & imported(tree)) == ["rnnforecast.places.stores"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_itself_what_lies_below_and_the_ground(room: str) -> None:
    for module, path in MODULES.items():
        if room_of(module) == room:
            assert own_rooms(parsed(path)) <= {*BELOW[room], *GROUND}, module


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_imports_only_itself_and_the_standard_library(name: str) -> None:
    tree = parsed(PACKAGE / f"{name}.py")

    assert own_rooms(tree) <= set(GROUND)
    others = {name.split(".")[0] for name in imported(tree)} - {"rnnforecast"}
    assert others <= set(sys.stdlib_module_names)


def test_nothing_but_the_entries_imports_the_workflow() -> None:
    found = {room_of(m) for m, path in MODULES.items() if "workflow" in own_rooms(parsed(path))}

    assert found <= {*ENTRIES, "workflow"}
    assert "cli" in found


def test_nothing_but_the_entry_imports_the_command_line() -> None:
    found = {room_of(m) for m, path in MODULES.items() if "cli" in own_rooms(parsed(path))}

    assert found == {"cli", "entry"}


@pytest.mark.parametrize("library", ["torch", "matplotlib"])
def test_a_slow_library_is_imported_at_module_level_only_where_it_is_at_home(library: str) -> None:
    def at_import(tree: ast.AST) -> bool:
        names = imported(tree, into_functions=False)
        return library in {name.split(".")[0] for name in names}

    at_home = {m for m in MODULES if library == "torch" and room_of(m) == "model"}
    assert set(offenders(at_import)) <= at_home


FIRST = ("cli", "entry", "options", "console", "reports", "workflow", "__init__")


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) in FIRST])
def test_the_command_line_starts_without_the_libraries_that_are_slow_to_import(module: str) -> None:
    names = imported(parsed(MODULES[module]), into_functions=False)

    slow = {"torch", "numpy", "pandas", "pyarrow", "sklearn", "matplotlib", "rich", "safetensors"}
    assert not slow & {name.split(".")[0] for name in names}
    rooms = {room_of(name) for name in names if name.startswith("rnnforecast.")}
    assert not (set(ROOMS) - {"operate", "places"}) & rooms


def test_no_room_imports_typer_or_rich() -> None:
    def knows_the_screen(tree: ast.AST) -> bool:
        return bool({"typer", "rich", "click"} & {name.split(".")[0] for name in imported(tree)})

    found = {room_of(module) for module in offenders(knows_the_screen)}
    assert found == {"cli", "entry", "options", "console", "tables"}


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
