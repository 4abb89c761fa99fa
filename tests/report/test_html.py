"""The report: whole, quiet, readable by machines, and the same for the same findings."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rnnforecast.evaluate.metrics import HEADINGS
from rnnforecast.events import EpochEnded
from rnnforecast.report.html import ExampleWindow, MemoryFigures, Report, forecast_html, report_html
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US
from tests.report.fans import make_fan

VOID = {"meta", "br", "hr", "link", "img", "input"}
NASTY = '<script>alert("1")</script> & #000001 \x1b 温度 1.23456'


def make_report(name: str = "flow", *, n_seen: int = 3, horizon: int = 24) -> Report:
    metrics = dict.fromkeys(HEADINGS, 0.5)
    epochs = [
        EpochEnded(
            member=member,
            epoch=epoch,
            steps=40 * epoch,
            train_loss=0.3 / epoch,
            validation_loss=0.4 / epoch,
            gradient_norm=0.7,
            gradient_norm_99=0.9,
            clipped=0.1,
            learning_rate=0.003,
            is_best=epoch == 2,
        )
        for member in range(3)
        for epoch in (1, 2, 3)
    ]
    bands = {
        "levels": QUANTILES,
        "observed": QUANTILES,
        "uncalibrated": QUANTILES,
        "narrowest": (name, 0.75),
        "widest": ("other", 0.85),
        "uncalibrated_coverage_80": 0.83,
    }
    seen = tuple(
        ExampleWindow(f"Best series: {name}", "MAE 0.5.", make_fan(name, horizon=horizon, seed=i))
        for i in range(n_seen)
    )
    return Report(
        f"Forecasts of {name}",
        "10 % better than repeating yesterday.",
        "Measured on 63 forecasts.",
        headings=HEADINGS,
        metrics={"network": metrics, "naive": {**metrics, "mase": None}},
        examples=seen,
        by_lead={"network": [0.1] * horizon, "naive": [None, *[0.2] * (horizon - 1)]},
        step_us=HOUR_US,
        bands=bands,
        worst=[{"series": name, "mase": 0.8, "naive_mase": 0.9}] * 2,
        epochs=epochs,
        findings=[("stuck-sensor", f"{name} stands still"), ("stuck-sensor", "another")],
        card={"series": name},
        memory=MemoryFigures(
            f"OK: {name} is remembered.",
            5,
            lengths=(0, 1, 5, 10),
            losses=(0.9, 0.8, 0.5, 0.5),
            gradients={"early": (0.5, None, 0.1), "late": (0.0, None, 0.0)},
            leads={"early": 1, "late": horizon},
            peaks=(5,),
        ),
    )


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report_html(make_report(NASTY)))


def test_a_reading_that_equals_a_quantile_lies_within_the_band(page: Page) -> None:
    # the metric counts them, which a difference of the shares below two quantiles does not
    assert "The 80 % band contained 50.0 % of the readings" in page.text


def test_every_tag_is_closed(page: Page) -> None:
    assert page.open == []


def test_nothing_asks_anybody_for_anything(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed"}
        assert not {"src", "onload", "onclick"} & attributes.keys()
        for key in ("href", "xlink:href"):
            assert attributes.get(key, "#").startswith("#")
        assert "url(" not in attributes.get("style", "").replace("url(#", "")


def test_text_from_data_is_text(page: Page) -> None:
    assert '<script>alert("1")</script>' in page.text
    assert "#000001" in page.text
    assert "1.23456" in page.text
    assert "温度" in page.text
    assert "\x1b" not in page.text


def test_ids_are_unique_and_everything_that_is_referred_to_is_there(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set()
    for _, attributes in page.tags:
        wanted |= set(attributes.get("aria-labelledby", "").split())
        wanted |= {attributes[key][1:] for key in ("xlink:href",) if key in attributes}
        wanted |= set(re.findall(r"url\(#([\w-]+)\)", " ".join(attributes.values())))
    assert wanted <= set(ids)


def test_every_picture_has_a_title_and_a_description(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 9
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert [part.split("-")[1] for part in attributes["aria-labelledby"].split()] == [
            "title",
            "desc",
        ]


def test_headings_come_in_order(page: Page) -> None:
    levels = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == "h1"
    assert set(levels[1:]) == {"h2"}


def test_colours_are_the_pages_variables(page: Page) -> None:
    styles = " ".join(a.get("style", "") for tag, a in page.tags if tag != "html")
    assert "var(--forecast)" in styles
    assert not re.search(r"#[0-9a-f]{6}", styles)


def test_the_same_report_gives_the_same_page() -> None:
    assert report_html(make_report()) == report_html(make_report())


def test_values_are_there_for_who_points_at_them() -> None:
    text = report_html(make_report())
    assert re.search(r"<title>2024-01-05 00:00:00, reading [\d.]+, forecast 20.000, 95 %", text)


def test_what_is_missing_is_left_out_or_said() -> None:
    bare = replace(
        make_report(),
        metrics={},
        examples=(),
        by_lead={},
        bands=None,
        worst=(),
        epochs=(),
        findings=(),
        memory=None,
    )
    page = Page(report_html(bare))

    assert not [tag for tag, _ in page.tags if tag == "svg"]
    assert "No data was held out" in page.text
    assert "No data problems found" in page.text


@pytest.mark.slow
def test_a_large_report_is_under_three_megabytes() -> None:
    report = make_report(n_seen=12, horizon=720)
    assert len(report_html(report).encode()) < 3_000_000


def test_a_forecast_alone_is_a_page_too() -> None:
    page = Page(forecast_html([make_fan("a<b"), make_fan("c")]))
    assert page.open == []
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 2
    assert "a<b" in page.text
