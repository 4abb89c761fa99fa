"""HTML pages: the report of a version or a backtest, and forecasts alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rnnforecast.events import EpochEnded
from rnnforecast.report import charts
from rnnforecast.report.charts import PAGE, draw_inline
from rnnforecast.report.plots import Fan, Palette, draw_fan, drawing, visible
from rnnforecast.units import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEGEND = (
    "Readings are drawn in black (white in dark mode), the forecast in blue; the dotted line "
    "marks where it starts."
)
_BAND_QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)
"""Quantiles of the bands in the report."""
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
"""Nothing is loaded, and no script runs."""
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


@dataclass(frozen=True)
class ExampleWindow:
    """A held-out window that is shown as an example."""

    title: str
    sentence: str
    fan: Fan


@dataclass(frozen=True)
class MemoryFigures:
    """How far back the network remembers."""

    sentence: str
    effective: int
    lengths: Sequence[int]
    """Lengths of history, increasing."""
    losses: Sequence[float]
    """The loss with each length."""
    gradients: Mapping[str, Sequence[float | None]]
    """Gradient of each lead with respect to the reading at each lag, from 1."""
    leads: Mapping[str, int]
    peaks: Sequence[int]
    """Lags at which the autocorrelation peaks."""


@dataclass(frozen=True)
class Report:
    """Content of the report. An empty section is left out, or says that nothing is there."""

    title: str
    verdict: str
    held_out: str
    """The windows that metrics were measured on."""
    headings: Mapping[str, str]
    """The metrics to show, and their headings."""
    metrics: Mapping[str, Mapping[str, Any]]
    """By method."""
    examples: tuple[ExampleWindow, ...]
    by_lead: Mapping[str, Sequence[float | None]]
    step_us: int
    bands: Mapping[str, Any] | None
    """The bands in `Comparison.to_json`."""
    worst: Sequence[Mapping[str, Any]]
    epochs: Sequence[EpochEnded]
    findings: Sequence[tuple[str, str]]
    """Findings about the readings: a code and a sentence."""
    card: Mapping[str, str]
    memory: MemoryFigures | None = None


def report_html(report: Report) -> str:
    """Return the page. The same report gives the same text."""
    with drawing(PAGE):
        parts = [
            heading(report.title, 1),
            paragraph(report.verdict, "verdict"),
            *_metrics_section(report),
            *_examples_section(report.examples),
            *_leads_section(report),
            *_calibration_section(report),
            *_memory_section(report.memory),
            *_training_section(report.epochs),
            *_findings_section(report.findings),
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
    legend = f"{_LEGEND} Its bands should contain {bands} of the readings." if bands else _LEGEND
    return page(title, [heading(title, 1), paragraph(legend), figures(pictures)])


def _metrics_section(report: Report) -> list[str]:
    if not report.metrics:
        return [paragraph("No data was held out, so the accuracy is unknown.")]

    header = ["method", *report.headings.values()]
    rows = [
        [method.replace("_", " "), *(format_number(values[key]) for key in report.headings)]
        for method, values in report.metrics.items()
    ]
    section = [paragraph(report.held_out), table("Metrics by method", header, rows)]
    if len(report.worst) > 1:
        header = ["series", "MASE", "MASE of the naive method"]
        rows = [
            [str(item["series"]), format_number(item["mase"]), format_number(item["naive_mase"])]
            for item in report.worst[:5]
        ]
        section += [
            paragraph("The series with the largest error relative to the better naive method:"),
            table("MASE of the worst series", header, rows),
        ]
    return section


def _examples_section(examples: Sequence[ExampleWindow]) -> list[str]:
    if not examples:
        return []

    pictures = []
    for number, example in enumerate(examples):
        fan = example.fan.only(_BAND_QUANTILES)
        svg = _draw_fan(fan, f"fan{number}", example.title, example.sentence)
        pictures.append((svg, f"{example.title}. {example.sentence}"))
    return [
        heading("Forecasts of held-out data"),
        paragraph(f"{_LEGEND} Its bands should contain 80 % and 95 % of the readings."),
        figures(pictures),
    ]


def _leads_section(report: Report) -> list[str]:
    if not any(any(e is not None for e in errors) for errors in report.by_lead.values()):
        return []

    svg = draw_inline(
        "leads",
        "Error by lead",
        f"Absolute error in standard deviations of each series, from the first step to the last: "
        f"{_describe_ends(report.by_lead)}.",
        lambda axes: charts.draw_leads(axes, report.by_lead, report.step_us, PAGE),
    )
    caption = "Absolute error in standard deviations of each series. Lower is better."
    return [heading("Error by lead"), figures([(svg, caption)])]


def _calibration_section(report: Report) -> list[str]:
    bands = report.bands
    if bands is None:
        return []

    coverage = report.metrics["network"]["coverage_80"]
    levels, observed, uncalibrated = bands["levels"], bands["observed"], bands["uncalibrated"]
    (low, least), (high, most) = bands["narrowest"], bands["widest"]
    sentence = f"The 80 % band contained {100 * coverage:.1f} % of the readings."
    if bands["uncalibrated_coverage_80"] is not None:
        sentence += f" Before calibration: {100 * bands['uncalibrated_coverage_80']:.1f} %."
    if low != high:
        sentence += f" By series from {100 * least:.0f} % ({low}) to {100 * most:.0f} % ({high})."

    svg = draw_inline(
        "calibration",
        "Calibration",
        f"Observed share of readings below each quantile against the expected share. {sentence}",
        lambda axes: charts.draw_calibration(axes, levels, observed, uncalibrated, PAGE),
    )
    return [heading("Calibration of the prediction bands"), figures([(svg, sentence)])]


def _memory_section(memory: MemoryFigures | None) -> list[str]:
    if memory is None:
        return []

    longest = memory.lengths[-1]
    by_length = draw_inline(
        "kept",
        "Loss by length of history",
        "Quantile loss of forecasts from only the most recent readings. From "
        f"{memory.effective} readings on it equals that of all {longest}.",
        lambda axes: charts.draw_history_lengths(
            axes, memory.lengths, memory.losses, memory.effective, PAGE
        ),
    )
    by_lag = draw_inline(
        "lags",
        "Gradient by lag",
        "Gradient of the median forecast with respect to the reading at each lag, for an "
        "early, a middle and a late lead, on a logarithmic scale. "
        f"{_describe_ends(memory.gradients)}",
        lambda axes: charts.draw_gradients(
            axes, memory.gradients, memory.leads, memory.peaks, PAGE
        ),
    )
    captions = (
        f"Loss of forecasts from only the most recent readings. With {memory.effective} of "
        f"them it is within one percent of the loss with all {longest}.",
        "Gradient of a forecast with respect to earlier readings. Dotted lines: lags at which "
        "the data repeats (autocorrelation peaks).",
    )
    return [
        heading("How much history the network uses"),
        paragraph(memory.sentence),
        figures([(by_length, captions[0]), (by_lag, captions[1])]),
    ]


def _training_section(epochs: Sequence[EpochEnded]) -> list[str]:
    if not epochs:
        return []

    losses = draw_inline(
        "loss",
        "Loss by step",
        "Quantile loss of each network after each epoch, on training windows (dashed) and "
        "validation windows; a dot marks the weights that were kept.",
        lambda axes: charts.draw_losses(axes, epochs, PAGE),
    )
    at_most = f"at most {100 * max(e.clipped for e in epochs):.0f} % in an epoch."
    clipping = draw_inline(
        "clipping",
        "Clipped steps",
        f"Share of steps with a clipped gradient, by network: {at_most}",
        lambda axes: charts.draw_clipping(axes, epochs, PAGE),
    )
    captions = (
        "Loss on validation windows and, dashed, on training windows. A dot marks the weights "
        "that were kept.",
        f"Share of steps with a clipped gradient: {at_most}",
    )
    return [heading("Training"), figures([(losses, captions[0]), (clipping, captions[1])])]


def _findings_section(findings: Sequence[tuple[str, str]]) -> list[str]:
    title = heading("Findings about the data")
    if not findings:
        return [title, paragraph("No data problems found.")]
    messages: dict[str, list[str]] = {}
    for code, message in findings:
        messages.setdefault(code.replace("-", " "), []).append(message)
    return [title, facts({name: "; ".join(texts) for name, texts in messages.items()})]


def _describe_ends(curves: Mapping[str, Sequence[float | None]]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')} from {format_number(curve[0])} to {format_number(curve[-1])}"
        for name, curve in curves.items()
    )


def _draw_fan(fan: Fan, name: str, title: str, sentence: str) -> str:
    def draw(axes: Axes) -> charts.Tips:
        draw_fan(axes, fan, PAGE)
        return charts.add_fan_tips(axes, fan)

    # the description is for readers who do not see the picture
    low, high = format_number(float(fan.point.min())), format_number(float(fan.point.max()))
    summary = f"{len(fan.point)} steps are forecast, with values between {low} and {high}."
    return draw_inline(name, title, f"{sentence} {summary}".strip(), draw)


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page; `title` is text, the parts are HTML."""
    variables = {
        scheme: " ".join(f"--{role}: {colour};" for role, colour in asdict(palette).items())
        for scheme, palette in (("light", LIGHT), ("dark", DARK))
    }
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE % variables}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Escape text from any source; unprintable characters become blanks."""
    return escape(visible(text))


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str, kind: str | None = None) -> str:
    """Return a paragraph, of a CSS class `kind`."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escaped(text)}</p>"


def figures(pictures: Sequence[tuple[str, str]]) -> str:
    """Return pictures, each an SVG and a caption, in as many columns as fit."""
    items = [
        f"<figure>{svg}<figcaption>{escaped(caption)}</figcaption></figure>"
        for svg, caption in pictures
    ]
    return f'<div class="pictures">{"".join(items)}</div>'


def table(name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that can be scrolled where it is wider than the page."""
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{escaped(name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(items: Mapping[str, str]) -> str:
    """Return a definition list."""
    lines = [f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in items.items()]
    return f"<dl>{''.join(lines)}</dl>"
