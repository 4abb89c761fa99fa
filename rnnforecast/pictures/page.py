"""An HTML page that asks nobody for anything: sections, tables and figures as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape

from rnnforecast.pictures.drawing import Palette, visible

LIGHT = Palette()
DARK = Palette(
    ink="#e8e8e8",
    muted="#a5a5a5",
    grid="#3a3a3a",
    readings="#f2f2f2",
    forecast="#56b4e9",
    other="#f0a860",
    third="#cc9bd8",
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; %(light)s }
@media (prefers-color-scheme: dark) { :root { --page: #161616; %(dark)s } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.25rem; border-top: 1px solid var(--grid);
  padding-top: 1rem; }
p { max-width: 46rem; margin: 0.4rem 0; }
.verdict { font-size: 1.15rem; font-weight: 600; }
.pictures { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%%, 22rem), 1fr)); }
figure { margin: 0.5rem 0; min-width: 0; max-width: 40rem; }
figcaption { font-size: 0.9rem; }
svg { display: block; width: 100%%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, sans-serif; }
.table { overflow-x: auto; }
.table:focus-visible { outline: 2px solid var(--forecast); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.95rem; }
th, td { padding: 0.25rem 1rem 0.25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: 0.25rem 1rem; }
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page; `title` is text, the parts are HTML."""
    style = _STYLE % {"light": _variables(LIGHT), "dark": _variables(DARK)}
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{words(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def words(text: str) -> str:
    """Escape text that comes from anywhere; what cannot be seen becomes a blank."""
    return escape(visible(text))


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{words(text)}</h{level}>"


def paragraph(text: str, kind: str | None = None) -> str:
    """Return a paragraph."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{words(text)}</p>"


def figures(pictures: Sequence[tuple[str, str]]) -> str:
    """Return pictures, SVG and caption, beside each other where there is room."""
    items = [
        f"<figure>{svg}<figcaption>{words(caption)}</figcaption></figure>"
        for svg, caption in pictures
    ]
    return f'<div class="pictures">{"".join(items)}</div>'


def table(name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that can be scrolled where it is wider than the page."""
    head = "".join(f'<th scope="col">{words(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{words(first)}</th>'
        + "".join(f"<td>{words(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{words(name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(items: Mapping[str, str]) -> str:
    """Return names and what they stand for."""
    lines = [f"<dt>{words(name)}</dt><dd>{words(text)}</dd>" for name, text in items.items()]
    return f"<dl>{''.join(lines)}</dl>"


def _variables(palette: Palette) -> str:
    return " ".join(f"--{role}: {colour};" for role, colour in asdict(palette).items())
