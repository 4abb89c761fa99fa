"""Charts on axes, as SVG with tips."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

from rnnforecast.data.timestamps import format_stamp
from rnnforecast.events import EpochEnded
from rnnforecast.report.plots import Fan, Palette, new_figure, visible
from rnnforecast.units import figure, format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_TIPS = 48
_DASHES = ("-", "--", ":", "-.")
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


def explain_fan(axes: Axes, fan: Fan) -> dict[str, str]:
    """Lay columns over a drawn fan that say its time, actual, forecast and bands."""
    leads = _thinned(len(fan.ahead_us))
    half = (fan.ahead_us[1] - fan.ahead_us[0]) / 2 if len(fan.ahead_us) > 1 else 1
    edges = fan.ahead_us[leads].astype(np.float64)
    begins = np.concatenate([[edges[0] - half], (edges[1:] + edges[:-1]) / 2])
    ends = np.concatenate([begins[1:], [edges[-1] + half]])
    tips = {}
    for number, lead in enumerate(leads):
        words = [f"{format_stamp(int(fan.ahead_us[lead]), fan.tz)}"]
        if fan.actual is not None and np.isfinite(fan.actual[lead]):
            words.append(f"reading {figure(float(fan.actual[lead]))}")
        words.append(f"forecast {figure(float(fan.point[lead]))}")
        words += [
            f"{100 * share:g} % between {figure(float(low[lead]))} and {figure(float(high[lead]))}"
            for share, low, high in fan.bands
        ]
        span = (np.array([begins[number], ends[number]])).astype("datetime64[us]")
        axes.axvspan(span[0], span[1], gid=f"{TIP}{number}", zorder=9, alpha=0.0)
        tips[f"{TIP}{number}"] = ", ".join(words)
    return tips


def draw_leads(
    axes: Axes, by_lead: Mapping[str, Sequence[float | None]], step_us: int, palette: Palette
) -> dict[str, str]:
    """Draw each method's error by lead; the network's line is the one that is solid and thick."""
    colours = (palette.forecast, palette.other, palette.readings, palette.third)
    for number, (method, errors) in enumerate(by_lead.items()):
        values = np.array([np.nan if e is None else e for e in errors])
        leads = np.arange(1, len(values) + 1)
        axes.plot(
            leads,
            values,
            _DASHES[number % 4],
            color=colours[number % 4],
            linewidth=2.0 if number == 0 else 1.2,
            marker="." if len(values) == 1 else None,
            label=method.replace("_", " "),
        )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.set_xlabel(f"steps ahead, of {format_duration(step_us)}")
    axes.set_ylabel("error, standard deviations")
    _legend(axes)
    return _columns(
        axes,
        [
            (
                lead + 1,
                f"{lead + 1} steps ahead: "
                + ", ".join(
                    f"{method.replace('_', ' ')} {figure(errors[lead])}"
                    for method, errors in by_lead.items()
                ),
            )
            for lead in _thinned(max(map(len, by_lead.values()), default=0))
        ],
    )


def draw_calibration(
    axes: Axes,
    levels: Sequence[float],
    observed: Sequence[float],
    before: Sequence[float] | None,
    palette: Palette,
) -> dict[str, str]:
    """Draw the share of readings below each quantile over the share that there should be."""
    axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=0.8, linestyle=":", label="ideal")
    if before is not None:
        axes.plot(levels, before, "o--", color=palette.other, markersize=3, label="as learnt")
    axes.plot(levels, observed, "o-", color=palette.forecast, markersize=4, label="calibrated")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("quantile")
    axes.set_ylabel("share of readings below")
    _legend(axes)
    words = [
        (level, f"below q{100 * level:g} lie {100 * share:.1f} % of the readings")
        for level, share in zip(levels, observed, strict=True)
    ]
    return _columns(axes, words)


def draw_kept(
    axes: Axes, kept: Sequence[int], losses: Sequence[float], effective: int, palette: Palette
) -> dict[str, str]:
    """Draw the loss over how many readings are seen, and from where on more of them change none."""
    axes.plot(kept, losses, ".-", color=palette.forecast, markersize=4)
    axes.axvline(effective, color=palette.muted, linewidth=1.0, linestyle=":")
    axes.margins(x=0.01)
    axes.set_xlabel("readings that are seen, the newest")
    axes.set_ylabel("quantile loss")
    words = [
        (float(k), f"with the last {k} readings: loss {figure(x)}")
        for k, x in zip(kept, losses, strict=True)
    ]
    return _columns(axes, [words[i] for i in _thinned(len(words))])


def draw_lags(
    axes: Axes,
    gradients: Mapping[str, Sequence[float | None]],
    leads: Mapping[str, int],
    peaks: Sequence[int],
    palette: Palette,
) -> dict[str, str]:
    """Draw each lead's gradient by lag, and the lags at which readings come again."""
    colours = (palette.forecast, palette.other, palette.third)
    for number, (name, curve) in enumerate(gradients.items()):
        values = np.array([x if x else np.nan for x in curve], np.float64)
        label = f"{name}, {leads[name]} ahead"
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            _DASHES[number % 4],
            color=colours[number % 3],
            linewidth=1.2,
            label=label,
        )
    for lag in peaks:
        axes.axvline(lag, color=palette.muted, linewidth=0.8, linestyle=":")
    if any(any(curve) for curve in gradients.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda size, _: f"{size:g}")
    axes.margins(x=0.01)
    axes.set_xlabel("lag, in steps back from the forecast")
    axes.set_ylabel("gradient")
    _legend(axes)
    return {}


def draw_losses(axes: Axes, epochs: Sequence[EpochEnded], palette: Palette) -> dict[str, str]:
    """Draw the loss after each epoch, member by member: on what is learnt, and held out."""
    _draw_members(axes, epochs, palette, "train_loss", style="--", width=1.0)
    _draw_members(axes, epochs, palette, "validation_loss", style="-", width=1.6)
    best = [(e.steps, e.validation_loss) for e in _best_of(epochs)]
    kept = [(steps, loss) for steps, loss in best if loss is not None]
    axes.plot(
        [steps for steps, _ in kept],
        [loss for _, loss in kept],
        "o",
        color=palette.ink,
        markersize=4,
        linestyle="none",
        label="kept",
    )
    axes.set_xlabel("steps")
    axes.set_ylabel("quantile loss")
    _legend(axes)
    return {}


def draw_clipping(axes: Axes, epochs: Sequence[EpochEnded], palette: Palette) -> dict[str, str]:
    """Draw which share of the steps was clipped in each epoch, member by member."""
    _draw_members(axes, epochs, palette, "clipped", style="-", width=1.4)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("steps")
    axes.set_ylabel("share of steps clipped")
    _legend(axes)
    return {}


def _draw_members(
    axes: Axes,
    epochs: Sequence[EpochEnded],
    palette: Palette,
    field: str,
    *,
    style: str,
    width: float,
) -> None:
    colours = (palette.forecast, palette.other, palette.third, palette.readings)
    what = "learning" if field == "train_loss" else "member"
    for member in sorted({e.member for e in epochs}):
        own = [e for e in epochs if e.member == member]
        values = [np.nan if (v := getattr(e, field)) is None else v for e in own]
        if np.isnan(values).all():
            continue
        label = f"{what} {member}" if what == "member" else None
        axes.plot(
            [e.steps for e in own],
            values,
            style,
            color=colours[member % 4],
            linewidth=width,
            marker="." if len(own) == 1 else None,
            label=label,
        )


def _best_of(epochs: Sequence[EpochEnded]) -> list[EpochEnded]:
    """Return the last epoch of each member that was its best."""
    return list({e.member: e for e in epochs if e.is_best}.values())


def _columns(axes: Axes, words: Sequence[tuple[float, str]]) -> dict[str, str]:
    """Lay columns over the axes, each around its place, that say their words."""
    if not words:
        return {}
    low, high = axes.get_xlim()
    places = [place for place, _ in words]
    edges = [low, *((a + b) / 2 for a, b in pairwise(places)), high]
    tips = {}
    for number, (_, text) in enumerate(words):
        axes.axvspan(edges[number], edges[number + 1], gid=f"{TIP}{number}", zorder=9, alpha=0.0)
        tips[f"{TIP}{number}"] = text
    axes.set_xlim(low, high)
    return tips


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9, handlelength=1.8)


def _thinned(n: int) -> list[int]:
    """Return at most so many of n numbers, evenly, with the last."""
    every = max(1, -(-n // _MAX_TIPS))
    return list(range(n - 1, -1, -every))[::-1]


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
