"""The methods that suite.py compares: the network, LightGBM, AutoETS and AutoTheta.

Each is fitted once, before the first window, and returns a row for each value that it forecasts:
`series, cutoff, lead, forecast, q10, q20, .. q90`, where the cutoff is the number of rows known.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

LEVELS = np.arange(1, 10) / 10
DECILES = [f"q{10 * i}" for i in range(1, 10)]


@dataclass(frozen=True)
class Task:
    """One set of the suite."""

    name: str
    kind: str
    season: int
    horizon: int
    windows: int
    path: Path

    def read(self) -> pd.DataFrame:
        """Return the readings by time, a float column for each series; gaps are NaN."""
        return pd.read_csv(self.path, index_col=0, parse_dates=True).astype(float)

    def cutoffs(self, n_rows: int) -> list[int]:
        """Return the first row of each window."""
        return list(range(n_rows - self.windows * self.horizon, n_rows, self.horizon))


def tasks_of(folder: Path) -> list[Task]:
    """Read the list of sets."""
    fields = ("name", "kind", "season", "horizon", "windows")
    entries = json.loads((folder / "suite.json").read_text())
    return [
        Task(*(entry[name] for name in fields), folder / "data" / f"{entry['name']}.csv.gz")
        for entry in entries
    ]


def repeat_season(task: Task, readings: pd.DataFrame, season: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the readings a season before; with a season of 1, the newest one.

    Where that is missing, up to 60 seasons before count, then the newest reading. The deciles are
    normal, with the root mean square of the steps from season to season, growing with the root of
    the number of seasons ahead.
    """
    seasons_ahead = np.arange(task.horizon) // season + 1
    normal = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    medians, deciles = [], []
    for values in readings.to_numpy().T:
        for cutoff in task.cutoffs(len(values)):
            past = values[:cutoff]
            n_seasons = min(60, len(past) // season)
            blocks = past[len(past) - n_seasons * season :].reshape(n_seasons, season)
            newest = pd.Series(past).ffill().iloc[-1]
            profile = pd.DataFrame(blocks).ffill().iloc[-1].fillna(newest).to_numpy()
            squares = (past[season:] - past[:-season]) ** 2
            spread = np.sqrt(np.nanmean(squares)) if np.isfinite(squares).any() else 0.0
            median = profile[np.arange(task.horizon) % season]
            width = spread * np.sqrt(seasons_ahead)[:, None]
            medians.append(median)
            deciles.append(median[:, None] + width * normal)
    shape = (readings.shape[1], task.windows, task.horizon)
    return np.reshape(medians, shape), np.reshape(deciles, (*shape, len(LEVELS)))


def builtin(task: Task, readings: pd.DataFrame, _seed: int) -> pd.DataFrame:
    """Forecast with the built-in network, which has not learnt from the readings."""
    return network(task, readings, 0, method="builtin")


def network(
    task: Task, readings: pd.DataFrame, seed: int, *, method: str = "network"
) -> pd.DataFrame:
    """Forecast with `rnnforecast.backtest`, in one thread."""
    import rnnforecast

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "forecast.parquet"
        rnnforecast.backtest(
            task.path,
            horizon=task.horizon,
            closed="none",  # leads are rows of the table, closed hours or not
            config=rnnforecast.Config(
                network=rnnforecast.NetworkConfig(
                    network="builtin" if method == "builtin" else "auto"
                ),
                training=rnnforecast.TrainConfig(seed=seed, threads=1),
            ),
            ends=rnnforecast.BacktestConfig(
                windows=task.windows, baselines=() if method == "network" else (method,)
            ),
            output=output,
        )
        forecast = pd.read_parquet(output)
    forecast = forecast[forecast["method"] == method]
    newest = pd.DatetimeIndex(forecast["cutoff"]).tz_localize(None)
    rows = readings.index.get_indexer(newest) + 1
    return forecast.assign(cutoff=rows, q50=forecast["forecast"])


def lightgbm(task: Task, readings: pd.DataFrame, _seed: int) -> pd.DataFrame:
    """Forecast with LightGBM through mlforecast, fitted to all series of a set together.

    Fitted three times: to the readings, to their steps, and to their steps from season to season.
    What was best in the windows before the first counts for a series. The deciles are conformal:
    those of the errors of a series, in both directions, that were known at this lead by then.
    """
    long = _long_form(task, readings, None)
    n_rows = long.groupby("unique_id").size().min() - task.windows * task.horizon
    # A quarter of the shortest series at most; 20 windows say enough of the errors.
    n_earlier = int(np.clip(n_rows // (4 * task.horizon), 2, 20))
    differences = sorted({0, 1, task.season})
    fits = [_lightgbm(task, long, n_rows, n_earlier, steps) for steps in differences]
    rows = fits[0]
    shape = (rows["series"].nunique(), -1, task.horizon)
    forecasts = np.stack([fit["forecast"].to_numpy().reshape(shape) for fit in fits])
    columns = readings.columns.get_indexer(rows["series"])
    errors = readings.to_numpy()[rows["ds"], columns].reshape(shape) - forecasts
    best = np.nanmean(np.abs(errors[:, :, :n_earlier]), axis=(2, 3)).argmin(axis=0)
    error, forecast = (values[best, np.arange(len(best))] for values in (errors, forecasts))

    deciles = np.full((*error.shape, len(LEVELS)), np.nan)
    for window in range(n_earlier, error.shape[1]):
        known = np.concatenate([error[:, :window], -error[:, :window]], axis=1)
        widths = np.moveaxis(np.nanquantile(known, LEVELS, axis=1), 0, -1)
        deciles[:, window] = forecast[:, window, :, None] + widths
    rows = rows.assign(forecast=forecast.ravel())
    rows[DECILES] = deciles.reshape(-1, len(LEVELS))
    return rows[rows["cutoff"].isin(task.cutoffs(len(readings)))]


def _lightgbm(
    task: Task, long: pd.DataFrame, n_rows: int, n_earlier: int, difference: int
) -> pd.DataFrame:
    """Fit to steps over so many readings, or to the readings; forecast the earlier windows, too.

    Lags of the last 24 readings, of one, two, three and seven seasons, and beside one season.
    """
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.target_transforms import Differences, LocalStandardScaler

    m = task.season
    lags = {*range(1, 25), m - 1, m, m + 1, 2 * m, 3 * m, 7 * m} - {0}
    model = LGBMRegressor(
        objective="l1", n_estimators=300, learning_rate=0.05, verbosity=-1, n_jobs=1, seed=0
    )
    forecaster = MLForecast(
        {"forecast": model},
        freq=1,
        lags=[lag for lag in sorted(lags) if lag <= n_rows // 3],
        target_transforms=[
            *([Differences([difference])] if difference else []),
            LocalStandardScaler(),
        ],
    )
    rows = forecaster.cross_validation(
        long,
        n_windows=n_earlier + task.windows,
        h=task.horizon,
        step_size=task.horizon,
        refit=False,
        static_features=[],
        weight_col="weight",
        # mlforecast hands the weights to the model as a feature from the second window on.
        before_predict_callback=lambda features: features.drop(columns="weight", errors="ignore"),
    )
    rows = rows.rename(columns={"unique_id": "series"}).sort_values(["series", "cutoff", "ds"])
    return rows.assign(cutoff=rows["cutoff"] + 1, lead=rows["ds"] - rows["cutoff"])


def ets(task: Task, readings: pd.DataFrame, _seed: int) -> pd.DataFrame:
    """Forecast with AutoETS of statsforecast.

    It has no seasons of more than 24 steps: those are taken off by STL first, in its own MSTL.
    """
    from statsforecast.models import MSTL, AutoETS

    if task.season > 24:
        model = MSTL(task.season, trend_forecaster=AutoETS(model="ZZN"), alias="ets")
    else:
        model = AutoETS(task.season, alias="ets")
    return _statistical(task, readings, model)


def theta(task: Task, readings: pd.DataFrame, _seed: int) -> pd.DataFrame:
    """Forecast with AutoTheta of statsforecast."""
    from statsforecast.models import AutoTheta

    return _statistical(task, readings, AutoTheta(season_length=task.season))


def _statistical(task: Task, readings: pd.DataFrame, model: Any) -> pd.DataFrame:
    """Fit to ten seasons before the first window, 1,500 to 3,000 readings, and move on.

    Longer histories would take hours.
    """
    from statsforecast import StatsForecast

    history = int(np.clip(10 * task.season, 1500, 3000))
    rows = StatsForecast([model], freq=1, n_jobs=1).cross_validation(
        df=_long_form(task, readings, history).drop(columns="weight"),
        h=task.horizon,
        n_windows=task.windows,
        step_size=task.horizon,
        level=[20, 40, 60, 80],
        refit=False,
    )
    return _from_intervals(rows, model.alias)


def _long_form(task: Task, readings: pd.DataFrame, history: int | None) -> pd.DataFrame:
    """Return rows `unique_id, ds, y, weight`, with row numbers as times.

    These methods take no gaps: they get the reading a season before, else the newest, with a weight
    of nothing. With `history`, only so many rows before the first window.
    """
    first = 0 if history is None else max(0, task.cutoffs(len(readings))[0] - history)
    parts = []
    for name, column in readings.items():
        values = column.to_numpy().copy()
        for row in np.flatnonzero(np.isnan(values)):
            values[row] = values[row - task.season] if row >= task.season else np.nan
        values = pd.Series(values).ffill().to_numpy()
        rows = np.arange(max(first, np.isnan(values).sum()), len(values))  # from the first reading
        if len(rows) > task.windows * task.horizon:
            weight = np.isfinite(column.to_numpy()[rows]).astype(float)
            part = {"unique_id": name, "ds": rows, "y": values[rows], "weight": weight}
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _from_intervals(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return a cross-validation's point forecasts and intervals of 20, 40, 60 and 80 %."""
    ends = [f"{model}-lo-{level}" for level in (80, 60, 40, 20)]
    ends += [model, *(f"{model}-hi-{level}" for level in (20, 40, 60, 80))]
    columns = {
        "series": rows["unique_id"],
        "cutoff": rows["cutoff"] + 1,
        "lead": rows["ds"] - rows["cutoff"],
        "forecast": rows[model],
        **{decile: rows[end] for decile, end in zip(DECILES, ends, strict=True)},
    }
    return pd.DataFrame(columns)


NETWORK = "network"
OURS = {NETWORK: network, "builtin": builtin}
METHODS: dict[str, Callable[[Task, pd.DataFrame, int], pd.DataFrame]] = {
    **OURS,
    "lightgbm": lightgbm,
    "ets": ets,
    "theta": theta,
}
LIBRARIES = {
    "lightgbm": ("mlforecast", "lightgbm"),
    "ets": ("statsforecast",),
    "theta": ("statsforecast",),
}
"""What decides a forecast beside the code here; of other methods nothing is kept."""
