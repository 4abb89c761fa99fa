"""Build steps of the documentation: generated pages, pages from the repository, and links.

Markdown in this repository links to files by their path, so that links also work where the
repository is looked at. Here each is rewritten to the page that the file becomes.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import TYPE_CHECKING, Any

from generate import pages
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
REPOSITORY_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "results.md",
    "examples/README.md": "examples/index.md",
    "sample_data/README.md": "sample-data.md",
}
"""Files outside of docs/ that are pages, too: path in the repository, path in the documentation."""
EXAMPLES = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "examples" / "README.md").read_text("utf-8"))
"""Files that the page of examples links to; the site has them under the same path."""
_LINK = re.compile(r"\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")

_TABLE_CODE = re.compile(r"`[^`\n]*\\\|[^`\n]*`")
"""Code with an escaped vertical bar, as tables have it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, those of the repository, and the examples."""
    texts = {name: (ROOT / path).read_text("utf-8") for path, name in REPOSITORY_PAGES.items()}
    for name, text in {**pages(), **texts}.items():
        files.append(File.generated(config, name, content=text))
    for path in (path for path in EXAMPLES if not path.startswith("..")):
        source = str(ROOT / "examples" / path)
        files.append(File.generated(config, f"examples/{path}", abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite the links of a page to paths in the documentation, and unescape bars in code.

    GitHub wants a bar escaped in a table's code, Python-Markdown shows the backslash.
    """
    sources = {name: path for path, name in REPOSITORY_PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewrite(link: re.Match[str]) -> str:
        target = normpath(join(dirname(source), link["path"]))
        name = REPOSITORY_PAGES.get(target, target.removeprefix("docs/"))
        is_on_site = target in REPOSITORY_PAGES or target.startswith(("docs/", "examples/"))
        path = relpath(name, dirname(page.file.src_uri) or ".") if is_on_site else link["path"]
        return f"]({path}{link['anchor'] or ''})"

    markdown = _TABLE_CODE.sub(lambda code: code[0].replace("\\|", "|"), markdown)
    return _LINK.sub(rewrite, markdown)
