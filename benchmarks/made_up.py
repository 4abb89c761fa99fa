"""An example of each family of made-up series, as the documentation shows them.

python -m benchmarks.made_up
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.signals import NOISES, PATTERNS, TRENDS, Rows, held, standardise
from benchmarks.synthetic import (
    DISTORTIONS,
    FAMILIES,
    Calendar,
    composed,
    seasonal,
    single_steps,
    spikes,
    stretch,
)
from rnnforecast.data.arrays import Doubles
from rnnforecast.data.season import Seasons
from rnnforecast.report.plots import Palette, drawing, new_figure
from rnnforecast.storage.publish import publishing_file

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "made-up.svg"
_COLUMNS = 6
_EXAMPLE = Calendar(Seasons(24, 168), is_weekly=True)
_EXAMPLE_STEPS = 192


def examples(seed: int) -> dict[str, Doubles]:
    """Return a series of each family, trend, noise, pattern and distortion, by its name."""

    def named(function: Callable[..., Doubles]) -> str:
        return function.__name__.replace("_", " ")

    def rows(n_steps: int = _EXAMPLE_STEPS) -> Rows:
        return Rows(np.random.default_rng([seed, len(series)]), 1, n_steps)

    series: dict[str, Doubles] = {}
    for _, shape in PATTERNS:
        series[named(shape)] = np.tile(shape(rows(_EXAMPLE_STEPS // 4)), 4)[0]
    for _, signal in (*TRENDS[1:], *NOISES):
        series[named(signal)] = signal(rows())[0]
    for family in (seasonal, *(family for _, family in FAMILIES)):
        series[named(family)] = family(rows(), _EXAMPLE)[0]
    for _, distort in DISTORTIONS[1:]:
        some = rows()
        series[named(distort)] = distort(some, standardise(composed(some, _EXAMPLE)))[0]

    some = rows()
    values = standardise(composed(some, _EXAMPLE))
    is_affected = stretch(some, 20, 0.3) > 0
    is_missing = is_affected | (single_steps(some) > 0)
    series |= {"spikes": (values + spikes(some))[0], "stuck": held(values, ~is_affected)[0]}
    return series | {"missing": np.where(is_missing, np.nan, values)[0]}


def main() -> int:
    """Draw the examples, eight days of hours each."""
    with drawing(Palette()), mpl.rc_context({"svg.hashsalt": PICTURE.stem}):
        series = examples(seed=1)
        n_rows = -(-len(series) // _COLUMNS)
        figure = new_figure(10.0, 0.95 * n_rows)
        for number, (name, values) in enumerate(series.items(), start=1):
            axes = figure.add_subplot(n_rows, _COLUMNS, number)
            axes.plot(np.round(values, 3), color=Palette.readings, linewidth=0.8)
            axes.set_title(name, fontsize=8)
            axes.axis("off")
        with publishing_file(PICTURE) as file:
            figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
    print(f"{len(series)} examples are in {PICTURE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
