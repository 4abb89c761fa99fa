"""The documentation's pages: short where promised, with links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest

from rnnforecast.cli.main import app
from tests.docs.pages import PAGES, ROOT

MAX_README_WORDS = 900
GENERATED = [
    f"docs/reference/{name}.md" for name in ("commands", "exit-codes", "job-file", "python")
]
"""Pages that docs/generate.py makes; the build of the site checks links to their headings."""
_LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as Markdown processors make them."""
    headings = re.findall(r"^#+ (.*)$", _CODE.sub(lambda m: m[0].strip("`"), text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].split()) <= MAX_README_WORDS


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file_and_to_a_heading_of_it(page: str) -> None:
    for link in _LINK.finditer(_CODE.sub("", PAGES[page])):
        target = normpath(join(dirname(page), link["path"])) if link["path"] else page
        if target in GENERATED:
            continue
        assert (ROOT / target).is_file(), f"{page} links to {target}"
        if link["anchor"]:
            assert link["anchor"] in anchors_of((ROOT / target).read_text("utf-8")), link[0]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}

    assert len(listed) == len(set(listed))
    assert pages <= set(listed)


def test_the_site_asks_no_other_host() -> None:
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")

    assert "font: false" in settings
    assert "://" not in settings


def test_every_command_is_in_the_readme() -> None:
    names = [c.name or c.callback.__name__ for c in app.registered_commands]  # type: ignore[union-attr]
    for name in names:
        assert f"rnnforecast {name}" in PAGES["README.md"]


@pytest.mark.parametrize("target", ["demo", "test", "docs", "picture"])
def test_make_targets_that_pages_name_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")

    assert any(f"make {target}" in text for text in PAGES.values())
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_figures_of_the_readme_are_in_the_results() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
    table = PAGES["README.md"].partition("\n## Why\n")[2].partition("\n\n## ")[0]
    figures = re.findall(r"\b\d\.\d+\b", table)

    assert len(figures) > 10
    assert [figure for figure in figures if figure not in results] == []


def test_the_files_of_a_version_are_all_described(trained: Path) -> None:
    version = next((trained / "model" / "versions").iterdir())
    for path in version.iterdir():
        assert path.name in PAGES["docs/reference/files.md"]
