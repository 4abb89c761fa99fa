"""The pages of help, and what the shell completes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from pyarrow import parquet

from rnnforecast.cli.help import COMMON, GENERAL, PAGES
from rnnforecast.cli.main import app
from tests.conftest import Command

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
MAX_LINES, MIN_HEADINGS, N_EXAMPLES = 90, 6, 3


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def headings(page: str) -> list[str]:
    return re.findall(r"^([A-Z][\w -]+):$", page, re.MULTILINE)


def listed_options(page: str) -> list[str]:
    """The long names at the beginning of the lines of a page."""
    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", page, re.MULTILINE)


def long_names(name: str, *, rare: bool) -> set[str]:
    params = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    return {max(p.opts, key=len) for p in params if rare or not p.hidden} | {"--help"}


# Pages


def test_every_command_has_a_page() -> None:
    assert set(PAGES) == set(COMMANDS)


@pytest.mark.parametrize("name", PAGES)
def test_help_lists_each_usual_option_once_under_a_heading(command: Command, name: str) -> None:
    page = command(name, "--help").out

    assert sorted(listed_options(page)) == sorted(long_names(name, rare=False))
    assert headings(page)[-2:] == [GENERAL, "Examples"]
    assert (COMMON in headings(page)) == bool(PAGES[name].common)


@pytest.mark.parametrize("name", PAGES)
def test_help_all_lists_every_option_with_its_variable(command: Command, name: str) -> None:
    page = command(name, "--help-all").out
    params = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    variables = {f"RNNFORECAST_{name.upper()}_{p.name.upper()}" for p in params}

    assert sorted(listed_options(page)) == sorted(long_names(name, rare=True))
    assert variables - set(re.findall(r"RNNFORECAST_\w+", page)) == {
        f"RNNFORECAST_{name.upper()}_HELP_ALL"
    }


@pytest.mark.parametrize("name", PAGES)
def test_help_names_no_variable_no_type_and_fits_eighty_columns(
    command: Command, name: str
) -> None:
    page = command(name, "-h").out

    assert not re.search(r"RNNFORECAST_|<\w+>|\{|\.\.\.", page)
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = [p.name for p in COMMANDS[name].params]

    assert set(PAGES[name].common) <= set(params)
    assert len(PAGES[name].examples) == N_EXAMPLES
    for example in PAGES[name].examples:
        program, command_name, *arguments = shlex.split(example.partition(" || ")[0])
        assert (program, command_name) == ("rnnforecast", name)
        COMMANDS[name].make_context(name, arguments, obj=None)  # raises for a mistyped option


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_short(command: Command, name: str) -> None:
    assert len(command(name, "--help").out.splitlines()) <= MAX_LINES


def test_the_page_of_train_is_in_groups(command: Command) -> None:
    page = command("train", "--help").out

    assert len(headings(page)) >= MIN_HEADINGS
    assert headings(page)[:2] == ["Arguments", COMMON]
    assert "--cell [gru|lstm|mingru|rnn]" in page


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_command_all_commands_are_shown_whole(
    command: Command, arguments: tuple[str, ...]
) -> None:
    outcome = command(*arguments)

    assert (outcome.code, outcome.err) == (0, "")
    assert headings(outcome.out) == ["Forecast", "Inspect", "Operate", "Scale", "Options"]
    for name in COMMANDS:
        summary = COMMANDS[name].help.splitlines()[0].removesuffix(".")
        assert re.search(rf"^  {name} +{re.escape(summary)}$", outcome.out, re.MULTILINE)


# Completion

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """What is completed at the end of a line in a folder, as bash asks for it."""

    def call(line: str) -> list[str]:
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        done = subprocess.run(
            [sys.executable, "-m", "rnnforecast"],
            cwd=tmp_path,
            env={
                **os.environ,
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(words) - 1),
                "_RNNFORECAST_COMPLETE": "complete_bash",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    return call


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rnnforecast st", ["status"]),
        ("rnnforecast train x.csv --cell ", ["gru", "lstm", "mingru", "rnn"]),
        ("rnnforecast train x.csv --cell m", ["mingru"]),
        ("rnnforecast train x.csv --calendar hour,", ["hour,weekday", "hour,month"]),
        ("rnnforecast train x.csv --stuck", ["--stuck-as-na"]),
        ("rnnforecast train x.csv --seed ", []),
    ],
)
def test_commands_options_and_choices_are_completed(
    complete: Complete, line: str, expected: list[str]
) -> None:
    assert complete(line) == expected


@pytest.mark.parametrize("header", ["time,flow,fl ow,level", "time;flow;fl ow;level"])
def test_columns_of_a_text_file_are_completed(
    complete: Complete, tmp_path: Path, header: str
) -> None:
    (tmp_path / "x.csv").write_text(f"{header}\n", encoding="utf-8-sig")

    assert complete("rnnforecast train x.csv --target fl") == ["flow", "fl ow"]
    assert complete("rnnforecast train x.csv -H 5 --time ") == ["time", "flow", "fl ow", "level"]


def test_columns_of_a_parquet_file_and_of_a_folder_are_completed(
    complete: Complete, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    table = pa.table({"time": [1], "flow": [2.0]})
    parquet.write_table(table, tmp_path / "folder" / "x.parquet")

    for data in ("folder", "folder/x.parquet"):
        assert complete(f"rnnforecast check {data} --target ") == ["time", "flow"]


@pytest.mark.parametrize("data", ["missing.csv", "-", "s3://bucket/x.csv", "broken.parquet"])
def test_data_that_cannot_be_read_complete_nothing(
    complete: Complete, tmp_path: Path, data: str
) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "rnnforecast.toml").write_text("[broken\n")

    assert complete(f"rnnforecast check {data} --target ") == []


def test_saved_versions_are_completed(complete: Complete, tmp_path: Path) -> None:
    names = ["20240101T000000Z-aaaaaa", "20240102T000000Z-bbbbbb"]
    for name in names:
        (tmp_path / "elsewhere" / "versions" / name).mkdir(parents=True)

    newest_first = ["latest", "previous", *names[::-1]]
    assert complete("rnnforecast use --model elsewhere ") == newest_first
    assert complete("rnnforecast show -m elsewhere --version 20240102") == names[1:]
    assert complete("rnnforecast use ") == []


PRESS_TAB = {
    "bash": (
        "eval \"$(rnnforecast --show-completion)\"; COMP_WORDS=(rnnforecast train x.csv --cell m); "
        "COMP_CWORD=4; _rnnforecast_completion rnnforecast; printf '%s\\n' \"${COMPREPLY[@]}\""
    ),
    "zsh": (
        "autoload -U compinit; compinit -D; eval \"$(rnnforecast --show-completion)\"; "
        "_arguments() { print -r -- $2 }; words=(rnnforecast train x.csv --cell m); CURRENT=5; "
        "_rnnforecast_completion"
    ),
}  # fmt: skip


@pytest.mark.parametrize("shell", PRESS_TAB)
def test_the_script_for_a_shell_completes_in_it(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "rnnforecast"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rnnforecast "$@"\n')
    program.chmod(0o755)

    done = subprocess.run(
        [shell, "-c", PRESS_TAB[shell]],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "mingru" in done.stdout and "lstm" not in done.stdout


def test_completion_is_installed_for_the_shell_in_use(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    install = f"{sys.executable} -m rnnforecast --install-completion; echo code $?"

    done = subprocess.run(
        ["bash", "-c", install],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "code 0" in done.stdout, done.stderr
    assert "rnnforecast" in (tmp_path / ".bashrc").read_text()
