"""What a series gets that the network cannot forecast: the next method in the user's list.

Apart from `baselines`, which forecasts, and from the stories: here rows of one forecast are
replaced by another's, and marked with where they come from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rnnforecast.data.forecast import Forecast, Past
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.evaluate.comparison import NETWORK


def fill_from_fallbacks(
    forecast: Forecast,
    past: Past,
    methods: tuple[str, ...],
    *,
    season: int,
) -> Forecast:
    """Replace the origins whose forecast is NaN by the first method that can forecast them.

    One that no method can forecast keeps NaN. `source` names the method of each origin.
    """
    values = forecast.values.copy()
    source = [NETWORK] * past.n_origins
    for method in methods:
        open_rows = np.flatnonzero(np.isnan(values).any((1, 2)))
        if not len(open_rows):
            break
        baseline = naive() if method == "naive" else SeasonalNaive(season)
        other = baseline.predict(past.subset(open_rows), forecast.horizon, forecast.quantiles)
        for row, filled in zip(open_rows, other.values, strict=True):
            if np.isfinite(filled).all():
                values[row] = filled
                source[row] = method.replace("-", "_")
    return replace(forecast, values=values, source=tuple(source))
