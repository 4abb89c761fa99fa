"""The documentation's pages, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [
        *(
            ROOT / f"{name}.md"
            for name in ("README", "CONTRIBUTING", "SECURITY", "examples/README")
        ),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
}
"""Text of each page by its path in the repository."""
LANGUAGES = ("sh", "python", "toml", "yaml", "crontab")
"""Languages whose blocks do something; all others show output or layouts."""
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code, and the comment above it that says what a test does with it."""

    page: str
    language: str
    text: str
    mark: str | None

    @property
    def is_run_elsewhere(self) -> bool:
        """Whether another test runs it, or none can."""
        return self.mark is not None and self.mark.startswith(("not run: ", "run by "))


def blocks_of(page: str, language: str | None = None) -> list[Block]:
    """Return the blocks of a page that do something, or those in one language."""
    blocks = [
        Block(page, match["language"], match["text"], match["mark"])
        for match in _BLOCK.finditer(PAGES[page])
    ]
    languages = LANGUAGES if language is None else (language,)
    return [block for block in blocks if block.language in languages]


def all_blocks() -> Iterator[Block]:
    """Yield the blocks of all pages that do something."""
    for page in PAGES:
        yield from blocks_of(page)
