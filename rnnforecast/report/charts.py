"""Charts of the report, as inline SVG with tooltips."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

from rnnforecast.data.axis import format_timestamp
from rnnforecast.events import EpochEnded
from rnnforecast.report.plots import Fan, Palette, new_figure, visible
from rnnforecast.units import format_duration, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_TIPS = 48
"""Columns of a chart that carry a tooltip, at most."""
_DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 3)))
"""Line styles; with five colours, six methods differ in both colour and style."""
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_HREF = f"{{{_LINK}}}href"
_UNWANTED = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")
_FONT_FAMILY = re.compile(r"font-family:[^;]*; ?")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
PAGE = Palette(
    ink="#000001",
    muted="#000002",
    grid="#000003",
    readings="#000004",
    forecast="#000005",
    other="#000006",
    third="#000007",
)
"""Placeholder colours to draw with. Each becomes a CSS variable of the page, of the same name, so
that one drawing serves light and dark."""
TIP = "tip-"
"""Prefix of the ids of shapes that carry a tooltip; see `draw_inline`."""
Tips = dict[str, str]
"""Texts of tooltips by the id of their shape."""


def add_fan_tips(axes: Axes, fan: Fan) -> Tips:
    """Add columns to a drawn fan whose tooltips name its time, actual, forecast and bands."""
    leads = _subsample(len(fan.ahead_us))
    half_step = (fan.ahead_us[1] - fan.ahead_us[0]) / 2 if len(fan.ahead_us) > 1 else 1
    times = fan.ahead_us[leads].astype(np.float64)
    begins = np.concatenate([[times[0] - half_step], (times[1:] + times[:-1]) / 2])
    ends = np.concatenate([begins[1:], [times[-1] + half_step]])

    tips = {}
    for number, lead in enumerate(leads):
        parts = [f"{format_timestamp(int(fan.ahead_us[lead]), fan.tz)}"]
        if fan.actual is not None and np.isfinite(fan.actual[lead]):
            parts.append(f"reading {format_number(float(fan.actual[lead]))}")
        parts.append(f"forecast {format_number(float(fan.point[lead]))}")
        parts += [
            f"{100 * share:g} % between {format_number(float(low[lead]))} "
            f"and {format_number(float(high[lead]))}"
            for share, low, high in fan.bands
        ]
        span = np.array([begins[number], ends[number]]).astype("datetime64[us]")
        axes.axvspan(span[0], span[1], gid=f"{TIP}{number}", zorder=9, alpha=0.0)
        tips[f"{TIP}{number}"] = ", ".join(parts)
    return tips


def draw_leads(
    axes: Axes, by_lead: Mapping[str, Sequence[float | None]], step_us: int, palette: Palette
) -> Tips:
    """Draw the error of each method by lead. The first method's line is solid and thick."""
    colours = (palette.forecast, palette.other, palette.readings, palette.third, palette.muted)
    for number, (method, errors) in enumerate(by_lead.items()):
        values = np.array([np.nan if e is None else e for e in errors])
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            linestyle=_DASHES[number % len(_DASHES)],
            color=colours[number % len(colours)],
            linewidth=2.0 if number == 0 else 1.2,
            marker="." if len(values) == 1 else None,
            label=method.replace("_", " "),
        )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    _label(axes, f"steps ahead, of {format_duration(step_us)}", "error, standard deviations")

    columns = []
    for lead in _subsample(max(map(len, by_lead.values()), default=0)):
        errors_at_lead = ", ".join(
            f"{method.replace('_', ' ')} {format_number(errors[lead])}"
            for method, errors in by_lead.items()
        )
        columns.append((lead + 1, f"{lead + 1} steps ahead: {errors_at_lead}"))
    return _add_tips(axes, columns)


def draw_calibration(
    axes: Axes,
    levels: Sequence[float],
    observed: Sequence[float],
    uncalibrated: Sequence[float] | None,
    palette: Palette,
) -> Tips:
    """Draw the share of readings below each quantile over the share that there should be."""
    axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=0.8, linestyle=":", label="ideal")
    label = "not calibrated"
    if uncalibrated is not None:
        axes.plot(levels, uncalibrated, "o--", color=palette.other, markersize=3, label=label)
        label = "calibrated"
    axes.plot(levels, observed, "o-", color=palette.forecast, markersize=4, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    _label(axes, "quantile", "share of readings below")

    columns = [
        (level, f"{100 * share:.1f} % of the readings are below q{100 * level:g}")
        for level, share in zip(levels, observed, strict=True)
    ]
    return _add_tips(axes, columns)


def draw_history_lengths(
    axes: Axes, lengths: Sequence[int], losses: Sequence[float], effective: int, palette: Palette
) -> Tips:
    """Draw the loss over the length of history that is seen, and mark the effective memory."""
    axes.plot(lengths, losses, ".-", color=palette.forecast, markersize=4)
    axes.axvline(effective, color=palette.muted, linewidth=1.0, linestyle=":")
    axes.margins(x=0.01)
    _label(
        axes,
        "number of most recent readings shown to the network",
        "quantile loss",
        has_legend=False,
    )
    columns = [
        (float(length), f"with the last {length} readings: loss {format_number(loss)}")
        for length, loss in zip(lengths, losses, strict=True)
    ]
    return _add_tips(axes, [columns[i] for i in _subsample(len(columns))])


def draw_gradients(
    axes: Axes,
    gradients: Mapping[str, Sequence[float | None]],
    leads: Mapping[str, int],
    peaks: Sequence[int],
    palette: Palette,
) -> Tips:
    """Draw the gradient of each lead by lag, and mark the peaks of the autocorrelation.

    Lags that were not measured (None) are skipped; a gradient of 0 leaves a gap.
    """
    colours = (palette.forecast, palette.other, palette.third)
    for number, (name, curve) in enumerate(gradients.items()):
        lags = [lag for lag, size in enumerate(curve, start=1) if size is not None]
        axes.plot(
            lags,
            [curve[lag - 1] or np.nan for lag in lags],
            linestyle=_DASHES[number],
            color=colours[number % 3],
            linewidth=1.2,
            label=f"{name}, {leads[name]} ahead",
        )
    for lag in peaks:
        axes.axvline(lag, color=palette.muted, linewidth=0.8, linestyle=":")

    if any(any(curve) for curve in gradients.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda size, _: f"{size:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")  # matplotlib's has markup of formulas
    axes.margins(x=0.01)
    _label(axes, "lag, in steps before the forecast", "gradient")
    return {}


def draw_losses(axes: Axes, epochs: Sequence[EpochEnded], palette: Palette) -> Tips:
    """Draw the training and the validation loss of each member, and mark the weights kept."""
    _draw_members(axes, epochs, palette, "train_loss", style="--", width=1.0)
    _draw_members(axes, epochs, palette, "validation_loss", style="-", width=1.6)
    best_of_member = {e.member: e for e in epochs if e.is_best}
    best = [
        (e.steps, e.validation_loss)
        for e in best_of_member.values()
        if e.validation_loss is not None
    ]

    axes.plot(
        [steps for steps, _ in best],
        [loss for _, loss in best],
        "o",
        color=palette.ink,
        markersize=4,
        linestyle="none",
        label="kept",
    )
    _label(axes, "steps", "quantile loss")
    return {}


def draw_clipping(axes: Axes, epochs: Sequence[EpochEnded], palette: Palette) -> Tips:
    """Draw the share of clipped steps of each member by epoch."""
    _draw_members(axes, epochs, palette, "clipped", style="-", width=1.4)
    axes.set_ylim(-0.02, 1.02)
    _label(axes, "steps", "share of steps clipped")
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
    """Draw a field of the epochs over steps, a line for each member; None leaves a gap."""
    colours = (palette.forecast, palette.other, palette.third, palette.readings)
    for member in sorted({e.member for e in epochs}):
        of_member = [e for e in epochs if e.member == member]
        values = [np.nan if (v := getattr(e, field)) is None else v for e in of_member]
        if np.isnan(values).all():
            continue
        axes.plot(
            [e.steps for e in of_member],
            values,
            style,
            color=colours[member % 4],
            linewidth=width,
            marker="." if len(of_member) == 1 else None,
            label=None if field == "train_loss" else f"network {member + 1}",
        )


def _label(axes: Axes, x: str, y: str, *, has_legend: bool = True) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if has_legend:  # below the axes, where it hides no line
        axes.figure.legend(
            loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=2.4
        )


def _add_tips(axes: Axes, columns: Sequence[tuple[float, str]]) -> Tips:
    """Add invisible columns to the axes, each around its x, with a tooltip."""
    if not columns:
        return {}
    low, high = axes.get_xlim()
    centres = [x for x, _ in columns]
    edges = [low, *((a + b) / 2 for a, b in pairwise(centres)), high]
    tips = {}
    for number, (_, text) in enumerate(columns):
        axes.axvspan(edges[number], edges[number + 1], gid=f"{TIP}{number}", zorder=9, alpha=0.0)
        tips[f"{TIP}{number}"] = text
    axes.set_xlim(low, high)
    return tips


def _subsample(n: int) -> list[int]:
    """Return evenly spaced indices of n items, at most `_MAX_TIPS`, with the last."""
    stride = max(1, -(-n // _MAX_TIPS))
    return list(range(n - 1, -1, -stride))[::-1]


def draw_inline(name: str, title: str, description: str, draw: Callable[[Axes], Tips]) -> str:
    """Draw a chart; return an `<svg>` to stand in a page. The same chart gives the same text.

    `draw` draws on the axes with the colours of `PAGE`, and returns its tooltips. Shapes whose id
    is in them become invisible and show the text under a pointer. `name` is unique on the page.
    Call it within `drawing`.
    """
    import matplotlib as mpl

    chart, buffer = new_figure(), io.BytesIO()
    tips = draw(chart.subplots())
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}):
        chart.savefig(buffer, format="svg", metadata=no_metadata, transparent=True)
    root = ET.fromstring(buffer.getvalue())

    _insert_tips(root, tips)
    _rewrite_attributes(root, name)
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag in _UNWANTED:
                parent.remove(child)

    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = visible(text)
        root.insert(index, element)
    view_box = root.get("viewBox") or ""
    root.attrib.clear()
    labels = f"{name}-title {name}-desc"
    root.attrib |= {"viewBox": view_box, "role": "img", "aria-labelledby": labels}

    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    return ET.tostring(root, "unicode")


def _insert_tips(root: ET.Element, tips: Tips) -> None:
    """Give shapes their tooltip, and make them invisible."""
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


def _rewrite_attributes(root: ET.Element, name: str) -> None:
    """Prefix ids by the name, replace colours by CSS variables, drop fonts, shorten numbers.

    Only attributes are changed: a sensor may be called like a colour.
    """
    used_ids = set(re.findall(r"#([\w-]+)", ET.tostring(root, "unicode")))
    for element in root.iter():
        element_id = element.attrib.pop("id", None)
        if element_id in used_ids:
            element.set("id", f"{name}-{element_id}")

        for key, value in element.attrib.items():
            if key == _HREF:
                element.set(key, value.replace("#", f"#{name}-"))
            elif key == "style":
                style = value
                for role, colour in asdict(PAGE).items():
                    style = style.replace(colour, f"var(--{role})")
                element.set(key, _FONT_FAMILY.sub("", style))
            elif key != "id":
                short = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value)
                element.set(key, short.replace("url(#", f"url(#{name}-"))
