"""The report: one HTML file that shows how good a network is, and on what that rests.

It knows pictures and plain figures, and not where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnforecast.events import EpochEnded
from rnnforecast.numerals import figure
from rnnforecast.pictures import charts
from rnnforecast.pictures.drawing import draw_fan, drawing
from rnnforecast.pictures.fan import Fan
from rnnforecast.pictures.memory import ShownMemory, memory_section
from rnnforecast.pictures.page import facts, figures, heading, page, paragraph, table
from rnnforecast.pictures.svg import PAGE, draw_inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picture = tuple[str, str]
"""An SVG and its caption."""
_LEGEND = (
    "The dark line are the readings, before and after the dotted line, where the forecast begins. "
    "The coloured line is the forecast."
)
_SHOWN = (0.025, 0.1, 0.5, 0.9, 0.975)
"""Quantiles of the bands in the report."""


@dataclass(frozen=True)
class Seen:
    """A held-out window to look at."""

    title: str
    sentence: str
    fan: Fan


@dataclass(frozen=True)
class Report:
    """All that the report shows. What is empty is said to be missing, or left out."""

    title: str
    verdict: str
    held_out: str
    """What the figures were measured on."""
    headings: Mapping[str, str]
    """The metrics to show, and what they are called."""
    metrics: Mapping[str, Mapping[str, Any]]
    """By method."""
    seen: tuple[Seen, ...]
    by_lead: Mapping[str, Sequence[float | None]]
    step_us: int
    bands: Mapping[str, Any] | None
    """What `Comparison.to_json` says of the bands."""
    worst: Sequence[Mapping[str, Any]]
    epochs: Sequence[EpochEnded]
    findings: Sequence[tuple[str, str]]
    """What is strange about the readings: a code and a sentence."""
    card: Mapping[str, str]
    memory: ShownMemory | None = None


def report_html(report: Report) -> str:
    """Return the page. The same report gives the same text."""
    with drawing(PAGE):
        parts = [
            heading(report.title, 1),
            paragraph(report.verdict, "verdict"),
            *_metrics(report),
            *_examples(report),
            *_leads(report),
            *_calibration(report),
            *memory_section(report.memory),
            *_training(report),
            *_findings(report),
            heading("Model card"),
            facts(report.card),
        ]
    return page(report.title, parts)


def forecast_html(fans: Sequence[Fan]) -> str:
    """Return a page with a forecast alone, a picture for each series."""
    title = f"Forecast of {len(fans)} series" if len(fans) > 1 else f"Forecast of {fans[0].name}"
    with drawing(PAGE):
        pictures = [
            (_draw_fan(fan, f"fan{number}", f"Forecast of {fan.name}", ""), fan.name)
            for number, fan in enumerate(fans)
        ]
    bands = ", ".join(f"{100 * share:g} %" for share, _, _ in fans[0].bands)
    said = f"{_LEGEND} Its bands should hold {bands} of the readings." if bands else _LEGEND
    return page(title, [heading(title, 1), paragraph(said), figures(pictures)])


def _metrics(report: Report) -> list[str]:
    if not report.metrics:
        return [paragraph("No readings were held out, so nothing says how good the network is.")]
    rows = [
        [method.replace("_", " "), *(figure(values[key]) for key in report.headings)]
        for method, values in report.metrics.items()
    ]
    found = [
        paragraph(report.held_out),
        table("Metrics by method", ["method", *report.headings.values()], rows),
    ]
    if len(report.worst) > 1:
        worst = [
            [str(item["series"]), figure(item["mase"]), figure(item["naive_mase"])]
            for item in report.worst[:5]
        ]
        found += [
            paragraph("The series that are hardest beside the better naive method:"),
            table(
                "MASE of the worst series", ["series", "MASE", "MASE of the naive method"], worst
            ),
        ]
    return found


def _examples(report: Report) -> list[str]:
    if not report.seen:
        return []
    pictures = [
        (
            _draw_fan(seen.fan.only(_SHOWN), f"fan{number}", seen.title, seen.sentence),
            f"{seen.title}. {seen.sentence}",
        )
        for number, seen in enumerate(report.seen)
    ]
    return [
        heading("Forecasts of readings that the network had not seen"),
        paragraph(f"{_LEGEND} Its bands should hold 80 % and 95 % of the readings."),
        figures(pictures),
    ]


def _leads(report: Report) -> list[str]:
    if not any(any(e is not None for e in errors) for errors in report.by_lead.values()):
        return []
    ends = "; ".join(
        f"{method.replace('_', ' ')} from {figure(errors[0])} to {figure(errors[-1])}"
        for method, errors in report.by_lead.items()
    )
    svg = draw_inline(
        "leads",
        "Error by lead",
        f"Absolute error in standard deviations of each series, from the first step to the last: "
        f"{ends}.",
        lambda axes: charts.draw_leads(axes, report.by_lead, report.step_us, PAGE),
    )
    caption = "Absolute error in standard deviations of each series. Lower is better."
    return [heading("Error by lead"), figures([(svg, caption)])]


def _calibration(report: Report) -> list[str]:
    bands = report.bands
    if bands is None:
        return []
    levels, observed, before = bands["levels"], bands["observed"], bands["uncalibrated"]
    share = observed[levels.index(0.9)] - observed[levels.index(0.1)]
    (low, least), (high, most) = bands["narrowest"], bands["widest"]
    sentence = f"Between q10 and q90 lie {100 * share:.1f} % of the readings; 80 % should."
    if bands["uncalibrated_coverage_80"] is not None:
        sentence += f" Before calibration it was {100 * bands['uncalibrated_coverage_80']:.1f} %."
    if low != high:
        sentence += f" By series from {100 * least:.0f} % ({low}) to {100 * most:.0f} % ({high})."
    svg = draw_inline(
        "calibration",
        "Calibration",
        f"Share of readings below each quantile over the share that there should be. {sentence}",
        lambda axes: charts.draw_calibration(axes, levels, observed, before, PAGE),
    )
    return [heading("Are the bands as wide as they say?"), figures([(svg, sentence)])]


def _training(report: Report) -> list[str]:
    if not report.epochs:
        return []
    at_most = f"at most {100 * max(e.clipped for e in report.epochs):.0f} % in an epoch."
    pictures = [
        (
            draw_inline(
                "loss",
                "Loss by step",
                "Quantile loss of each member after each epoch, on the windows that it learns from "
                "(dashed) and on held-out ones; a dot marks the weights that were kept.",
                lambda axes: charts.draw_losses(axes, report.epochs, PAGE),
            ),
            "Loss on held-out windows, and, dashed, on those that are learnt from. A dot marks the "
            "weights that were kept.",
        ),
        (
            draw_inline(
                "clipping",
                "Clipped steps",
                f"Share of steps whose gradient was clipped, by member: {at_most}",
                lambda axes: charts.draw_clipping(axes, report.epochs, PAGE),
            ),
            f"Share of steps whose gradient was clipped: {at_most}",
        ),
    ]
    return [heading("Training"), figures(pictures)]


def _findings(report: Report) -> list[str]:
    found = [heading("Findings about the data")]
    if not report.findings:
        return [*found, paragraph("Nothing was strange about the readings.")]
    items = {code.replace("-", " "): "" for code, _ in report.findings}
    for code, message in report.findings:
        name = code.replace("-", " ")
        items[name] = f"{items[name]}; {message}" if items[name] else message
    return [*found, facts(items)]


def _draw_fan(fan: Fan, name: str, title: str, sentence: str) -> str:
    def draw(axes: Axes) -> dict[str, str]:
        draw_fan(axes, fan, PAGE)
        return charts.explain_fan(axes, fan)

    return draw_inline(name, title, f"{sentence} {_in_words(fan)}".strip(), draw)


def _in_words(fan: Fan) -> str:
    """Say what a picture shows to who does not see it."""
    point = fan.point
    low, high = figure(float(point.min())), figure(float(point.max()))
    return f"{len(point)} steps are forecast, between {low} and {high}."
