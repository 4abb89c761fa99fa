"""A matplotlib figure as an SVG within a page, whose light or dark colours it follows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from rnnforecast.pictures.drawing import Palette, new_figure, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_HREF = f"{{{_LINK}}}href"
_UNWANTED = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")
_FAMILY = re.compile(r"font-family:[^;]*; ?")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")

PAGE = Palette(
    ink="#000001",
    muted="#000002",
    grid="#000003",
    readings="#000004",
    forecast="#000005",
    other="#000006",
    third="#000007",
)
"""Colours to draw with; each becomes the page's variable of its name."""
TIP = "tip-"
"""How the ids of what explains itself begin; see `inline_svg`."""


def draw_inline(
    name: str, title: str, description: str, draw: Callable[[Axes], dict[str, str]]
) -> str:
    """Draw on axes of its own; return the `<svg>`. `draw` returns its tips, see `inline_svg`."""
    chart = new_figure()
    tips = draw(chart.subplots())
    return inline_svg(chart, name, title=title, description=description, tips=tips)


def inline_svg(
    figure: Figure, name: str, *, title: str, description: str, tips: Mapping[str, str]
) -> str:
    """Return an `<svg>` to stand in a page; the same figure gives the same text.

    It must be drawn with the colours of `PAGE`, within `drawing`. `name` is unique on the page.
    Shapes whose id is in `tips` say that text when a pointer rests on them; they are not seen.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    root = ET.fromstring(buffer.getvalue())
    _explain(root, tips)
    _settle(root, name)
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag in _UNWANTED:
                parent.remove(child)
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = visible(text)
        root.insert(place, element)
    size = root.get("viewBox")
    root.attrib.clear()
    root.attrib |= {
        "viewBox": size or "",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    return ET.tostring(root, "unicode")


def _explain(root: ET.Element, tips: Mapping[str, str]) -> None:
    """Give shapes their text, and make them invisible to all but pointers."""
    for element in root.iter():
        text = tips.get(element.get("id", ""))
        if text is None:
            continue
        title = ET.Element(f"{{{_SVG}}}title")
        title.text = visible(text)
        element.insert(0, title)
        for path in element.iter(f"{{{_SVG}}}path"):
            path.attrib.pop("clip-path", None)
            path.set("style", "fill-opacity:0;stroke:none")


def _settle(root: ET.Element, name: str) -> None:
    """Make ids the page's own, colours its variables, the font its own; shorten numbers.

    Only attributes are touched: a sensor may be called like a colour.
    """
    used = set(re.findall(r"#([\w-]+)", ET.tostring(root, "unicode")))
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
        for key, value in element.attrib.items():
            if key == _HREF:
                element.set(key, value.replace("#", f"#{name}-"))
            elif key == "style":
                element.set(key, _style(value))
            elif key != "id":
                shorter = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
                element.set(key, shorter.replace("url(#", f"url(#{name}-"))


def _style(text: str) -> str:
    for role, colour in asdict(PAGE).items():
        text = text.replace(colour, f"var(--{role})")
    return _FAMILY.sub("", text)
