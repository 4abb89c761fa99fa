"""The report in a browser: quiet, whole at every width, and accessible. Needs Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnnforecast.report.html import report_html
from tests.report.test_html import make_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra dev: playwright")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="needs the extra dev: axe"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the driver's own pipes
]
PARTS = 9
"""Pictures in a whole report."""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_html(make_report("flow_m3h & <b>")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_is_quiet_whole_and_accessible(
    browser, page_file: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    page.goto(page_file.as_uri())

    assert said == []
    assert asked == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.eval_on_selector_all(
        "svg",
        "all => all.map(one => one.getBoundingClientRect()).map(b => [b.x, b.right, b.height])",
    )
    assert len(boxes) == PARTS
    assert all(left >= 0 and right <= width and height > 100 for left, right, height in boxes)
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    context.close()


def test_pointing_at_a_forecast_says_its_values(browser, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(page_file.as_uri())
    title = page.evaluate(
        """() => {
            const svg = document.querySelector("svg");
            const box = svg.getBoundingClientRect();
            const x = box.x + 0.9 * box.width, y = box.y + 0.5 * box.height;
            const shape = document.elementFromPoint(x, y);
            const owner = shape.closest("g:has(> title)");
            return owner && owner.querySelector("title").textContent;
        }"""
    )
    assert title is not None
    assert "forecast 20.000" in title
    page.close()


def test_dark_and_light_differ(browser, page_file: Path) -> None:
    shown = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(page_file.as_uri())
        shown.append(
            page.evaluate(
                "['body', 'svg text'].map(s => getComputedStyle(document.querySelector(s)))"
                ".map((s, i) => i ? s.fill : s.backgroundColor)"
            )
        )
        page.close()
    assert shown[0] != shown[1]
    assert len({colour for pair in shown for colour in pair}) == 4
