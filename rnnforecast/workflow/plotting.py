"""The story of a plot: a forecast from its file, the readings around it, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.config import PlotConfig
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import parse_steps
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import Listener, Noted, Warned, ignore
from rnnforecast.formats import check_picture
from rnnforecast.places.remote import local_path
from rnnforecast.workflow.outputs import check_outputs
from rnnforecast.workflow.saved import Model, known_of
from rnnforecast.workflow.steps import read_readings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rnnforecast.data.issued import Issued
    from rnnforecast.data.past import Past
    from rnnforecast.pictures.fan import Fan

MOST_DRAWN = 12
"""Series in a picture, unless more are named."""
_MOST_BACK = 100_000


def plot(
    data: object = None,
    *,
    config: PlotConfig | None = None,
    model: Model | None = None,
    output: str | Path | None = None,
    most: int = MOST_DRAWN,
    listener: Listener = ignore,
) -> list[Fan]:
    """Return a forecast with the readings around it, and draw it where there is an `output`.

    `data` is read as `model` reads, or as it is found; without it the forecast stands alone. The
    series are those that are named, or the first ones, at most `most`. Raises a `RnnForecastError`.
    """
    from rnnforecast.data.issued import read_issued

    config = config or PlotConfig()
    if output is not None:
        check_picture(str(output))
        others = {"the forecast": config.forecast}
        check_outputs(data, DataConfig(), page=output, others=others)
    issued = _chosen(
        read_issued(local_path(config.forecast, "--forecast")), config.series, most, listener
    )
    if data is None:
        fans = [_alone(one) for one in issued]
    else:
        fans = _with_readings(issued, data, config, model, listener)
    if output is not None:
        _draw(fans, Path(output))
    return fans


def _chosen(
    issued: list[Issued], names: tuple[str, ...], most: int, listener: Listener
) -> list[Issued]:
    """Return the series that are named, or the first ones; say how many are not shown."""
    by_name = {one.series: one for one in issued}
    for name in names:
        if name not in by_name:
            near = get_close_matches(name, by_name, n=1)
            known = (
                f"the nearest is {near[0]!r}" if near else f"it begins with {issued[0].series!r}"
            )
            raise UsageError(f"the forecast has no series {name!r}", hint=known)
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]
    if len(issued) > most:
        left = len(issued) - most
        listener(Noted(f"{left} more series are not shown; name those to see with  --series NAME"))
    return issued[:most]


def _alone(one: Issued) -> Fan:
    import numpy as np

    from rnnforecast.pictures.fan import Fan

    nothing = np.empty(0)
    return Fan(
        one.series,
        nothing.astype(np.int64),
        nothing,
        one.times_us,
        one.values,
        one.quantiles,
        tz=one.tz,
    )


def _with_readings(
    issued: list[Issued], data: object, config: PlotConfig, model: Model | None, listener: Listener
) -> list[Fan]:
    """Put the readings before the forecast, and those that have come since beside it."""
    past, tz = _read(data, model, listener)
    if (tz is None) != (issued[0].tz is None):
        raise DataError(
            "the times of the forecast and of the readings do not compare: only one has a zone",
            code="zone",
            hint="pass the readings that the forecast was made from, or leave out --data",
        )
    places = {name: place for place, name in enumerate(past.names)}
    missing = [one.series for one in issued if one.series not in places]
    if len(missing) == len(issued):
        raise DataError(
            f"the readings have no series {missing[0]!r}: they are of others than the forecast",
            code="other-series",
            hint="pass the readings that the forecast was made from, and their model with  --model",
        )
    if missing:
        listener(Warned.naming("no-readings", "forecast, but not in the readings", missing))
    return [
        _alone(one) if one.series not in places else _beside(one, past, places, config, tz)
        for one in issued
    ]


def _read(data: object, model: Model | None, listener: Listener) -> tuple[Past, str | None]:
    from rnnforecast.data.newer import read_past
    from rnnforecast.data.past import past_of

    if model is None:
        panel, schema = read_readings(
            data, DataConfig(), listener, learns_until=lambda panel, _: panel.end_us
        )
        return past_of(panel), schema.tz
    artifact = model.artifact
    past, schema = read_past(
        data,
        schema=artifact.schema,
        options=artifact.config.data,
        as_of=None,
        known=known_of(artifact),
        listener=listener,
    )
    return past, schema.tz


def _beside(
    one: Issued, past: Past, places: dict[str, int], config: PlotConfig, tz: str | None
) -> Fan:
    """Return the forecast of a series between the readings before and those since."""
    import numpy as np

    from rnnforecast.pictures.fan import Fan

    own = past.subset(np.array([places[one.series]]))
    last, begin = int(own.cutoff_time[0]), int(one.times_us[0])
    n_since = max(0, (last - begin) // past.step_us + 1)
    n_back = _rows_back(config.history, past.step_us, len(one.times_us))
    n_rows = min(n_since + n_back, int(own.cutoff[0]))
    times = last + np.arange(1 - n_rows, 1) * past.step_us
    readings = own.history(n_rows)[0].astype(np.float64) + own.base[0]
    is_before = times < begin
    actual = _at(one.times_us, times, readings) if n_since else None
    before, seen = times[is_before], readings[is_before]
    return Fan(one.series, before, seen, one.times_us, one.values, one.quantiles, actual, tz)


def _rows_back(history: str, step_us: int, horizon: int) -> int:
    from rnnforecast.pictures.fan import rows_back

    if history == "auto":
        return rows_back(horizon)
    return parse_steps(history, step_us=step_us, name="history", limit=_MOST_BACK)


def _at(
    wanted: NDArray[np.int64], times: NDArray[np.int64], readings: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the readings of these times, NaN where there is none."""
    import numpy as np

    place = np.searchsorted(times, wanted)
    is_there = (place < len(times)) & (times[np.minimum(place, len(times) - 1)] == wanted)
    return np.where(is_there, readings[np.minimum(place, len(times) - 1)], np.nan)


def _draw(fans: Sequence[Fan], path: Path) -> None:
    """Draw a picture, and publish it whole."""
    from rnnforecast.durable import publishing_file
    from rnnforecast.pictures.drawing import picture
    from rnnforecast.pictures.report import forecast_html

    kind = path.suffix.lower().removeprefix(".")
    content = forecast_html(fans).encode() if kind == "html" else picture(fans, kind)
    with publishing_file(path) as file:
        file.write(content)
