"""The generated reference: every command, option, key, exit code and public name is described."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import typer

import rnnforecast
from rnnforecast.cli.main import app
from rnnforecast.config import job
from rnnforecast.config.fields import option_fields
from rnnforecast.errors import UsageError
from tests.docs.pages import ROOT


def load(path: Path) -> ModuleType:
    """Import a file that is no module of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(ROOT / "docs" / "generate.py")
PAGES = generate.pages()


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of all tables of a page, but their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]
    return [row for row in cells if row[0] not in ("option", "key", "code", "name")]


def test_every_option_of_every_command_is_listed() -> None:
    command = typer.main.get_command(app)
    parts = PAGES["reference/commands.md"].split("\n## ")
    sections = {part.partition("\n")[0]: part for part in parts}
    shared = sections["Common options"] + sections["Reading options"]
    for name, listed in command.commands.items():  # type: ignore[attr-defined]
        names = {option for p in listed.params for option in p.opts if option.startswith("-")}
        for option in names - {"--help", "-h"}:
            assert f"`{option}`" in sections[name] + shared, f"{name} {option}"


@pytest.mark.parametrize("page", PAGES)
def test_every_row_says_what_it_means(page: str) -> None:
    rows = rows_of(PAGES[page])

    assert rows
    if page != "reference/python.md":  # dataclasses there have fields that explain themselves
        assert [row for row in rows if not row[-1].strip()] == []


def accepted_keys(table: str, folder: Path) -> set[str]:
    """Return the keys of a table that the error for an unknown one names."""
    tables = {"data": "source = 'readings.csv'", "forecast": "output = 'forecast.csv'"}
    tables[table] = f"{tables.get(table, '')}\nqqqqqq = 1"
    path = folder / "job.toml"
    path.write_text("\n".join(f"[{name}]\n{keys}" for name, keys in tables.items()))
    with pytest.raises(UsageError) as refused:
        job.read_job(path)
    return set((refused.value.hint or "").removeprefix("known keys: ").split(", "))


@pytest.mark.parametrize("table", [name for name in generate.JOB_TABLES if name != "data"])
def test_the_keys_of_a_job_file_are_those_that_it_accepts(table: str, tmp_path: Path) -> None:
    listed = {row[0].strip("`") for row in generate.job_rows(table)}

    assert listed - {"output"} == accepted_keys(table, tmp_path) - {"output"}


def test_every_table_of_a_job_file_is_listed() -> None:
    assert set(generate.JOB_TABLES) == set(job._TABLES)


def test_the_keys_that_stand_in_the_generator_are_still_keys() -> None:
    for table, key in generate.JOB_KEYS:
        group = generate.JOB_TABLES[table]
        names = {item.name for item in option_fields(group)} if group else {"path", "textfile"}
        assert key in names | {"source", "output"}


def test_the_exit_codes_are_those_of_the_error_tree() -> None:
    documented = {int(row[0]) for row in rows_of(PAGES["reference/exit-codes.md"])}

    assert {kind.exit_code for kind in generate.error_classes()} <= documented


def test_every_public_name_is_described() -> None:
    headings = re.findall(r"^### (\w+)$", PAGES["reference/python.md"], re.MULTILINE)

    assert set(headings) == set(rnnforecast.__all__) - {"__version__"}


def test_examples_of_docstrings_are_code() -> None:
    outside = re.sub(
        r"^```.*?^```$", "", PAGES["reference/python.md"], flags=re.DOTALL | re.MULTILINE
    )

    assert "```pycon\n>>> result = rf.check(" in PAGES["reference/python.md"]
    assert ">>>" not in outside


def test_choices_of_an_option_end_the_sentence_of_its_help() -> None:
    rows = {row[0]: row[-1] for row in rows_of(PAGES["reference/commands.md"])}

    assert rows["`--cell`"] == "Recurrent cell; one of gru, lstm, mingru, rnn"


def test_code_in_tables_has_no_backslash_before_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    monkeypatch.setitem(sys.modules, "generate", generate)
    hooks = load(ROOT / "docs" / "hooks.py")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/train.md"))

    text = hooks.on_page_markdown("| `--network auto\\|trained` | a \\| b |", page)

    assert text == "| `--network auto|trained` | a \\| b |"
