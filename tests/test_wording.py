"""The English of what users read: phrases that no native speaker of the field would write.

Texts are the strings of the package, the pages of the documentation, also the generated ones, and
the examples.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rnnforecast
from tests.docs.pages import PAGES, ROOT
from tests.docs.test_reference import PAGES as GENERATED

PACKAGE = Path(rnnforecast.__file__).parent
BANNED = (
    r"\bso (?:many|long|much|far off|rarely)\b",
    r"\bstands? (?:for|at|in|still|beside|between|there)\b",
    r"\b(?:is|are|to be|put|put it) in force\b",
    r"\blearnt\b|\blearns? from\b|\bunlearnt\b",
    r"\banew\b",
    r"\b(?:end|last one|one|bound)s? apart\b|\bapart from\b",
    r"\btime stamps?\b|\bstamps?\b",
    r"\bfor ever\b|\bsomebody\b|\bnobody\b",
    r"\b(?:has|have) not come yet\b|\bthat (?:has|have) come\b",
    r"\blies?\b",
    r"\b(?<!there )(?:is|are) no (?:number|file|folder|text|time|object|table|model|word|name)\b",
    r"\bholds? (?:no|nothing|numbers|text|times|a|the)\b",
    r"\bthere is no (?:model|job|forecast|bucket|folder|ledger)\b",
    r"\bmust not be\b|\bwhere (?:it|they|there) (?:is|are)\b",
    r"\bsay(?:s)? (?:how|what|which|when|only|more)\b",
    r"\bto (?:say|tell|hold) (?:so|it|what)\b",
    r"\b(?:reads?|leaves?) of\b",
    r"\bas far as\b|\bhow far back\b",
    r"\bby (?:itself|themselves)\b",
    r"\bleave out\b|\bleft out\b",
    r"\bgoes? on\b|\bbegins? (?:again|with)\b",
    r"\bcarr(?:y|ies) (?:a|no|none|an)\b",
    r"\btaken? for\b|\btakes? (?:a|the|it) for\b",
    r"\b(?:in|out)side of\b",
    r"\bputs? out\b",
    r"(?:^|[.;] )Of an? ",
)
EXAMPLES = [path for path in sorted((ROOT / "examples").rglob("*")) if path.is_file()]
DOCUMENTS = {
    **PAGES,
    **GENERATED,
    "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    "sample_data/README.md": (ROOT / "sample_data" / "README.md").read_text(encoding="utf-8"),
    **{path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in EXAMPLES},
}
"""Text of each page and each example by its path."""


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Every string of a module but its docstrings, with its line; a field of an f-string is {}."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in formatted for part in ast.walk(node)} - {
        id(node) for node in formatted
    }
    for node in ast.walk(tree):
        if id(node) in docstrings | inside:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def banned_in(text: str) -> list[str]:
    return [match[0] for phrase in BANNED if (match := re.search(phrase, text, re.IGNORECASE))]


@pytest.mark.parametrize("room", sorted({p.parent.name for p in PACKAGE.rglob("*.py")}))
def test_no_text_of_the_package_has_a_banned_phrase(room: str) -> None:
    offenders = [
        f"{path.name}:{line}: {text!r}: {phrases}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name == room
        for line, text in texts_of(path.read_text(encoding="utf-8"))
        if " " in text and (phrases := banned_in(text))
    ]

    assert offenders == []


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_no_page_and_no_example_has_a_banned_phrase(name: str) -> None:
    paragraphs = (" ".join(text.split()) for text in re.split(r"\n\s*\n", DOCUMENTS[name]))
    offenders = [(text, phrases) for text in paragraphs if (phrases := banned_in(text))]

    assert offenders == []


def test_the_documents_are_all_pages_and_examples() -> None:
    pages = {"README.md", "CHANGELOG.md", "docs/decisions.md", "docs/how-to/cron.md"}

    assert pages | {"reference/python.md", "examples/job.toml"} <= DOCUMENTS.keys()


@pytest.mark.parametrize(
    "text",
    [
        "Skip so many rows at most",
        "version X is in force already",
        "the quantiles stay as learnt",
        "counter began anew",
        "Years that stamps may lie in, the last one apart",
        "sensors stand still",
        "there is no model at model",
        "inside of the band",
        "The band is wide. Of a plan, only a part counts",
    ],
)
def test_what_was_once_written_is_found(text: str) -> None:
    assert banned_in(text)


def test_texts_are_strings_and_not_docstrings() -> None:
    source = '"""A docstring."""\nname = f"of {1 + 1} parts"\nother = "text"\n'

    assert list(texts_of(source)) == [(2, "of {} parts"), (3, "text")]
