"""What is drawn of a fan is what is in it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from rnnforecast.report.plots import Palette, draw_fan, draw_fans, drawing, new_figure, render_image
from tests.builders import HOUR_US, START_US
from tests.report.fans import make_fan, without_readings

SVG = "{http://www.w3.org/2000/svg}"


def drawn(fan):
    with drawing(Palette()):
        axes = new_figure().subplots()
        draw_fan(axes, fan, Palette())
    return axes


def line_of(axes, label: str) -> np.ndarray:
    (line,) = [one for one in axes.get_lines() if one.get_label() == label]
    return line.get_ydata()


def test_readings_and_median_are_drawn_as_they_are_and_gaps_stay_gaps() -> None:
    fan = make_fan()
    axes = drawn(fan)

    np.testing.assert_array_equal(line_of(axes, "readings"), fan.readings)
    np.testing.assert_array_equal(line_of(axes, "forecast"), fan.point)
    assert np.isnan(line_of(axes, "readings")[40:50]).all()


def test_a_reading_without_neighbours_is_a_dot() -> None:
    dots = [one for one in drawn(make_fan()).get_lines() if one.get_marker() == "."]

    assert [list(one.get_ydata()) for one in dots] == [[21.0]]


def test_bands_lie_between_their_quantiles_the_widest_first() -> None:
    fan = make_fan(quantiles=(0.025, 0.1, 0.5, 0.9, 0.975))
    bands = [one for one in drawn(fan).collections if isinstance(one, PolyCollection)]

    assert [one.get_label() for one in bands] == ["95 % band", "80 % band"]
    for band, (low, high) in zip(bands, ((0, 4), (1, 3)), strict=True):
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(fan.values[:, low].min())
        assert heights.max() == pytest.approx(fan.values[:, high].max())


def test_what_came_is_drawn_where_it_is_known_and_not_elsewhere() -> None:
    n_lines = [len(drawn(make_fan(has_actual=has)).get_lines()) for has in (True, False)]
    assert n_lines[0] == n_lines[1] + 1


def test_a_forecast_alone_has_no_line_where_it_begins() -> None:
    alone = without_readings(make_fan())
    axes = drawn(alone)

    np.testing.assert_array_equal(line_of(axes, "forecast"), alone.point)
    assert all(len(one.get_xdata()) != 2 for one in axes.get_lines())


@pytest.mark.parametrize("n", [1, 2, 4, 12])
def test_each_series_has_axes_of_its_own_with_its_name(n: int) -> None:
    fans = [make_fan(f"M{i:02}", seed=i) for i in range(n)]
    with drawing(Palette()):
        figure = draw_fans(fans)

    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert titles == [fan.name for fan in fans]


def test_hours_on_the_axis_are_those_of_the_zone() -> None:
    first = [
        drawn(make_fan(n_rows=12, horizon=6, tz=tz)).xaxis.get_major_formatter()
        for tz in (None, "Asia/Kolkata")
    ]
    moment = START_US / HOUR_US / 24  # days since 1970, as matplotlib counts
    assert [one.format_data_short(moment)[11:16] for one in first] == ["00:00", "05:30"]


@pytest.mark.parametrize(
    ("n_rows", "first", "offset"),
    [(72, "01 Jan", "2024"), (24 * 90, "2024-01", ""), (12, "03:00", "2024-01-01")],
)
def test_dates_on_the_axis_name_day_month_and_year(n_rows: int, first: str, offset: str) -> None:
    axis = drawn(make_fan(n_rows=n_rows, horizon=6)).xaxis
    formatter, ticks = axis.get_major_formatter(), axis.get_majorticklocs()
    labels = formatter.format_ticks(ticks)

    assert first in labels
    assert formatter.get_offset() == offset
    assert not any(label.isdigit() or label.isalpha() for label in labels)


def test_a_png_is_a_png_and_an_svg_holds_the_names_as_text() -> None:
    fans = [make_fan('<b>&"$x$'), make_fan("温度")]

    assert render_image(fans, "png").startswith(b"\x89PNG\r\n\x1a\n")
    root = ET.fromstring(render_image(fans, "svg"))
    texts = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
    assert {'<b>&"$x$', "温度", "forecast"} <= texts


def test_drawing_leaves_the_settings_of_others_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    render_image([make_fan()], "svg")
    assert dict(mpl.rcParams) == before
