"""The report's charts: legends beside the lines, lines that differ, and names that are true."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnforecast.report import charts
from rnnforecast.report.html import report_html
from rnnforecast.report.plots import Palette, drawing, new_figure
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US
from tests.report.test_html import make_report

METHODS = ("network", "naive", "seasonal_naive", "expert", "builtin", "ridge")


def drawn(draw: Callable[[Axes], object]) -> tuple[Figure, Axes]:
    with drawing(Palette()):
        figure = new_figure()
        axes = figure.subplots()
        draw(axes)
        figure.draw_without_rendering()
    return figure, axes


def leads(axes: Axes) -> None:
    by_lead = {method: [0.1 * i, 0.5] for i, method in enumerate(METHODS, start=1)}
    charts.draw_leads(axes, by_lead, HOUR_US, Palette())


def calibration(axes: Axes) -> None:
    charts.draw_calibration(axes, QUANTILES, QUANTILES, QUANTILES, Palette())


def test_legends_lie_outside_of_the_axes() -> None:
    for draw in (leads, calibration):
        figure, axes = drawn(draw)

        assert axes.get_legend() is None
        (legend,) = figure.legends
        below = legend.get_window_extent()
        assert below.y1 <= axes.get_window_extent().y0
        assert below.x0 >= 0
        assert below.x1 <= figure.bbox.width


def test_six_methods_differ_in_style_and_five_in_colour() -> None:
    _, axes = drawn(leads)
    lines = axes.get_lines()

    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}
    assert len(looks) == len(METHODS)
    assert len({line.get_color() for line in lines[:5]}) == 5


@pytest.mark.parametrize(
    ("uncalibrated", "names"),
    [(QUANTILES, ["ideal", "not calibrated", "calibrated"]), (None, ["ideal", "not calibrated"])],
)
def test_only_calibrated_quantiles_are_called_calibrated(
    uncalibrated: tuple[float, ...] | None, names: list[str]
) -> None:
    _, axes = drawn(
        lambda axes: charts.draw_calibration(axes, QUANTILES, QUANTILES, uncalibrated, Palette())
    )

    assert [line.get_label() for line in axes.get_lines()] == names


def test_gradients_are_joined_across_lags_that_were_not_measured() -> None:
    gradients = {"early": (0.5, None, 0.1, None, 0.0)}
    _, axes = drawn(
        lambda axes: charts.draw_gradients(axes, gradients, {"early": 1}, (), Palette())
    )

    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [1, 3, 5]
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 0.1, np.nan])


def test_no_axis_has_the_markup_of_formulas() -> None:
    text = report_html(make_report())

    assert "mathdefault" not in text
    assert "$" not in text
