"""What `predict` returns: the forecast as a table, a picture and a page, and what befell series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from rnnforecast.config.commands import MAX_DRAWN
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.windows import Past
from rnnforecast.errors import UsageError, require_libraries
from rnnforecast.evaluate.postprocess import Exceedance
from rnnforecast.events import WarningEvent
from rnnforecast.report.plots import Palette, draw_fans, drawing, make_fans, n_rows_back
from rnnforecast.sources.source import UNNAMED_INDEX
from rnnforecast.tables.schema import Schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("series", "timestamp")
"""Columns of the series and the times of a forecast, where the readings have no names for them."""
_ROWS_SHOWN = 10


@dataclass(frozen=True, repr=False)
class Prediction:
    """A forecast, and the series that have none or a degraded one.

    It is a table to whatever takes Arrow's: `pl.from_arrow(prediction)`, `pa.table(prediction)`.
    """

    forecast: Forecast
    left_out: tuple[str, ...]
    """Series without a forecast: no method has readings to start from."""
    short_history: tuple[str, ...]
    """Series that the network forecasts from less than half of the least history."""
    fallback: tuple[str, ...]
    """Series that a fallback forecasts: the forecast's `source` names it."""
    past: Past = field(compare=False)
    """The readings that the forecast was made from, in the order of its series."""
    exceedances: tuple[Exceedance, ...] = ()
    """For each series with a limit, when it is likely above it."""
    version: str | None = None
    """The version of the model; None where it has not been saved."""
    warnings: tuple[WarningEvent, ...] = ()
    columns: tuple[str, str] = COLUMNS
    """Names of the columns of series and of times in tables: those that the readings have."""

    def to_arrow(self, quantiles: Sequence[float] | None = None) -> pa.Table:
        """Return a row for each series and step: series, time, forecast, and the quantiles.

        The first two columns are called as in the readings, such as `unique_id` and `ds`; else
        `series` and `timestamp`. `forecast` is the median; the quantiles, `q10` and so on, must be
        among those that were forecast, and are all of them by default.
        """
        table = self.forecast.to_arrow(quantiles)
        others = table.column_names[len(COLUMNS) :]
        names = [
            default if name in others else name
            for name, default in zip(self.columns, COLUMNS, strict=True)
        ]
        return table.rename_columns([*names, *others])

    def to_pandas(self, quantiles: Sequence[float] | None = None) -> pd.DataFrame:
        """Return the table of `to_arrow` as a pandas DataFrame."""
        frame: pd.DataFrame = self.to_arrow(quantiles).to_pandas()
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def plot(self, series: str | Sequence[str] = ()) -> Figure:
        """Draw the forecast of these series after their last readings; by default the first twelve.

        Raises `UsageError` for a series without a forecast, and where matplotlib is not installed.
        """
        require_libraries("a picture", "matplotlib")
        names, wanted = self.forecast.names, (series,) if isinstance(series, str) else series
        unknown = next((name for name in wanted if name not in names), None)
        if unknown is not None:
            raise UsageError(
                f"the forecast has no series {unknown!r}", hint=f"its first series is {names[0]!r}"
            )
        chosen = wanted or names[:MAX_DRAWN]
        is_drawn = np.array([name in chosen for name in names], np.bool_)
        forecast = self.forecast.subset(is_drawn)
        fans = make_fans(self.past.subset(is_drawn), forecast, n_rows=n_rows_back(forecast.horizon))
        with drawing(Palette()):
            return draw_fans(fans)

    def __repr__(self) -> str:
        forecast = self.forecast
        begin = forecast.axis.format(int(forecast.times_us.min()))
        end = forecast.axis.format(int(forecast.times_us.max()))
        n_series = len(forecast.names)
        text = f"{n_series} series" if n_series > 1 else repr(forecast.names[0])
        text += f", {forecast.horizon} steps from {begin} to {end}"
        return f"Prediction({text}, version {self.version})"

    def _repr_html_(self) -> str:
        """Return the first rows of the table, as notebooks show it."""
        forecast = self.forecast
        is_shown = np.arange(len(forecast.names)) < _ROWS_SHOWN
        first = replace(self, forecast=forecast.subset(is_shown)).to_arrow().slice(0, _ROWS_SHOWN)
        n_rows = len(forecast.stamp_rows[0])
        table: str = first.to_pandas().to_html(index=False, border=0)
        return f"{table}<p>{n_rows} rows of {len(forecast.names)} series</p>"

    @property
    def degraded(self) -> tuple[str, ...]:
        """Series that have no forecast, or a degraded one."""
        return (*self.left_out, *self.short_history, *self.fallback)

    @property
    def n_degraded(self) -> int:
        """How many series have no forecast, or a degraded one."""
        return len(self.degraded)

    @property
    def is_partial(self) -> bool:
        """Whether there are such series."""
        return bool(self.degraded)


def column_names(schema: Schema) -> tuple[str, str]:
    """Return what the readings call the columns of series and of times; see `Prediction.columns`.

    A series' name is that of one column only where this is the whole key of a table with one
    target.
    """
    series, time = COLUMNS
    if schema.series is not None and "," not in schema.series and len(schema.targets) == 1:
        series = schema.series
    if "," not in schema.time and schema.time != UNNAMED_INDEX:
        time = schema.time
    return series, time
