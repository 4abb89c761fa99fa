"""The networks beside LightGBM, AutoETS and AutoTheta, on readings of many kinds of sensor.

    pip install -e ".[bench]"
    RNNFORECAST_DATA=... python -m benchmarks.suite [--methods network,builtin,lightgbm,ets,theta]
        [--sets a,b] [--seeds 0,1,2] [--jobs 2] [--cache FOLDER]

The folder `suite` beside that of RNNFORECAST_DATA holds `suite.json`, which names the sets with
their season, horizon H and number of windows W, and `data/NAME.csv.gz`: a time column and a column
for each series.

The last W times H rows of a set are forecast, each window of H rows from the rows before it; every
method is fitted once, before the first window. The mean absolute error (MAE) of a series, and its
quantile loss (WQL: twice the pinball loss, mean over q10, q20, .. q90), are divided by those of
naive or of seasonal naive, whichever is better on just these readings. A hundredth of the mean step
from one season to the next is added to both sides, and ratios are kept within 0.1 and 10, so that
a sensor that stands still decides nothing. Ratios are averaged geometrically over the series of a
set, then over sets. A series is lost where its MAE is more than 5 % above that of the better naive
method. What a method does not forecast counts as seasonal naive. With several seeds, the medians of
a series count.

The network is called with its defaults and the horizon, and finds the season itself, and so does
the built-in one, which learns nothing; the others are told it. Their forecasts are kept in the
cache, by a digest of all that decides them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

import rnnforecast
from benchmarks import suite_methods
from benchmarks.suite_methods import (
    DECILES,
    LEVELS,
    METHODS,
    NETWORK,
    OURS,
    Task,
    repeat_season,
    tasks_of,
)

_RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## Sensors of many kinds"
NAIVE, SEASONAL_NAIVE = "naive", "seasonal naive"
LOST = 1.05
_FLOOR, _SMALLEST, _LARGEST = 0.01, 0.1, 10.0
FIGURES = ["mae", "quantile_loss", "inside", "filled"]
"""Of a series: two ratios, the share of readings inside q10..q90, and the share not forecast."""


def to_arrays(
    task: Task, readings: pd.DataFrame, forecast: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Return a table of `series, cutoff (row), lead, forecast, q10 .. q90` as arrays, else NaN."""
    shape = (readings.shape[1], task.windows, task.horizon)
    median, deciles = np.full(shape, np.nan), np.full((*shape, len(LEVELS)), np.nan)
    cutoffs = task.cutoffs(len(readings))
    rows = forecast[forecast["cutoff"].isin(cutoffs) & forecast["lead"].between(1, task.horizon)]
    at = (
        readings.columns.get_indexer(rows["series"]),
        np.searchsorted(cutoffs, rows["cutoff"]),
        rows["lead"].to_numpy(int) - 1,
    )
    median[at] = rows["forecast"]
    deciles[at] = np.sort(rows[DECILES].to_numpy(float), axis=1)
    return median, deciles


def score(
    task: Task, readings: pd.DataFrame, forecasts: dict[str, tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """Return a row for each method and series: what stands at the top of this module.

    `forecasts` are medians and deciles by method, NaN where there is none; naive and seasonal naive
    are added.
    """
    values = readings.to_numpy().T
    first, season = task.cutoffs(len(readings))[0], task.season
    actual = values[:, first:].reshape(len(values), task.windows, task.horizon)
    steps = pd.DataFrame(np.abs(values[:, season:first] - values[:, : first - season]))
    floor = _FLOOR * steps.mean(axis=1).to_numpy()

    naive = {
        NAIVE: repeat_season(task, readings, 1),
        SEASONAL_NAIVE: repeat_season(task, readings, task.season),
    }
    measured = {}
    for method, (median, deciles) in {**naive, **forecasts}.items():
        is_absent, has_deciles = np.isnan(median), np.isfinite(deciles).all(axis=-1)
        point = np.where(is_absent, naive[SEASONAL_NAIVE][0], median)
        band = np.where(has_deciles[..., None], deciles, naive[SEASONAL_NAIVE][1])
        above = actual[..., None] - band
        is_inside = (actual >= band[..., 0]) & (actual <= band[..., -1])
        columns = {
            "mae": np.abs(actual - point),
            "quantile_loss": 2 * np.maximum(LEVELS * above, (LEVELS - 1) * above).mean(axis=-1),
            "inside": np.where(np.isnan(actual), np.nan, is_inside),
            "filled": np.where(np.isnan(actual), np.nan, is_absent),
        }
        flat = {name: pd.DataFrame(c.reshape(len(values), -1)) for name, c in columns.items()}
        measured[method] = {name: frame.mean(axis=1).to_numpy() for name, frame in flat.items()}

    rows = []
    for method, means in measured.items():
        frame = pd.DataFrame({"series": readings.columns, **means})
        for name in ("mae", "quantile_loss"):
            best = np.fmin(measured[NAIVE][name], measured[SEASONAL_NAIVE][name])
            ratio = (means[name] + floor) / (best + floor)
            frame[name] = np.clip(ratio, _SMALLEST, _LARGEST)
        rows.append(frame.assign(method=method, set=task.name, kind=task.kind))
    scores = pd.concat(rows, ignore_index=True)
    return scores[scores["filled"].notna()]  # a series that has no reading to forecast is left out


@dataclass(frozen=True)
class Outcome:
    """How the methods did on one set."""

    task: Task
    scores: pd.DataFrame
    """What `score` returns, for each seed."""
    seconds: dict[str, float]
    """By method; the median over the seeds."""
    failures: dict[str, str]
    """Why a method has no forecast, by method."""


def measure(task: Task, methods: Sequence[str], seeds: Sequence[int], cache: Path) -> Outcome:
    """Forecast one set with each method and score it; only the network depends on the seed."""
    readings = task.read()
    scores, failures = [], {}
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for seed in seeds:
        forecasts = {}
        for method in methods:
            if method in failures or (method != NETWORK and seed != seeds[0]):
                continue
            try:
                forecast, duration = _forecast(task, readings, method, seed, cache)
            except ImportError:  # the extra `bench` is missing
                raise
            except Exception as error:  # the tables have a dash, and name the reason
                failures[method] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            seconds[method].append(duration)
            forecasts[method] = to_arrays(task, readings, forecast)
        scores.append(score(task, readings, forecasts).assign(seed=seed))
    medians = {method: float(np.median(values)) for method, values in seconds.items() if values}
    return Outcome(task, pd.concat(scores, ignore_index=True), medians, failures)


def _forecast(
    task: Task, readings: pd.DataFrame, method: str, seed: int, cache: Path
) -> tuple[pd.DataFrame, float]:
    """Return a forecast and the seconds it took; those of other libraries from the cache."""
    path = None if method in OURS else _cache_path(task, method, cache)
    if path is not None and path.exists():
        forecast = pd.read_parquet(path)
        return forecast, float(forecast["seconds"].iloc[0])
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries warn of each other's changes
        forecast = METHODS[method](task, readings, seed)
    seconds = time.monotonic() - started
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        columns = ["series", "cutoff", "lead", "forecast", *DECILES]
        forecast[columns].assign(seconds=seconds).to_parquet(partial)
        partial.replace(path)
    return forecast, seconds


def _cache_path(task: Task, method: str, cache: Path) -> Path:
    """Name a file by a digest of the readings, the code but ours, and the libraries."""
    code = Path(suite_methods.__file__).read_text()
    for function in OURS.values():
        code = code.replace(inspect.getsource(function), "")
    facts = [code, f"{task.season} {task.horizon} {task.windows}"]
    facts += [version(library) for library in suite_methods.LIBRARIES[method]]
    digest = hashlib.sha256(task.path.read_bytes() + "\n".join(facts).encode()).hexdigest()
    return cache / method / f"{task.name}-{digest[:12]}.parquet"


def section(outcomes: Sequence[Outcome], methods: Sequence[str], seeds: Sequence[int]) -> str:
    """Return the tables of all sets as Markdown."""
    columns = [*methods, NAIVE, SEASONAL_NAIVE]
    scores = pd.concat([outcome.scores for outcome in outcomes], ignore_index=True)
    series = scores.groupby(["set", "kind", "series", "method"], sort=False)[FIGURES].median()
    series["lost"] = series["mae"] > LOST
    sets = _by_set(series)
    seconds = {(o.task.name, m): s for o in outcomes for m, s in o.seconds.items()}

    scores_table, bands = {}, {}
    for (name, kind), rows in sets.groupby(["set", "kind"], sort=False):
        of = {row.method: row for row in rows.reset_index().itertuples()}
        text = {m: f"{r.mae:.3f}/{r.quantile_loss:.3f} ({r.lost})" for m, r in of.items()}
        n_series = str(rows["series"].iloc[0])
        scores_table[name] = [kind, n_series, *(text.get(method, "-") for method in columns)]
        text = {m: f"{r.inside:.2f}, {seconds.get((name, m), 0):.0f} s" for m, r in of.items()}
        bands[name] = [text.get(method, "-") for method in methods]

    forecast_by_all = sets.groupby("set")["mae"].transform("size") == len(columns)
    lost = series.groupby("method")["lost"].agg(["sum", "mean"])
    inside = sets.groupby("method")["inside"].mean()
    total = {m: sum(s for (_, method), s in seconds.items() if method == m) for m in methods}
    scores_table["**all (sets)**"] = ["", "", *_means(sets, columns)]
    scores_table["**those that all forecast**"] = ["", "", *_means(sets[forecast_by_all], columns)]
    shares = {m: f"{row['sum']:.0f}, {row['mean']:.0%}" for m, row in lost.iterrows()}
    scores_table["**series lost**"] = ["", "", *(shares.get(method, "-") for method in columns)]
    bands["**mean, sum**"] = [f"{inside.get(m, np.nan):.2f}, {total[m]:.0f} s" for m in methods]
    kinds = {str(k): _means(rows, columns) for k, rows in sets.groupby("kind", sort=False)}

    filled = [f"{m} {_names(series, m, 'filled', 'filled', '.0%')}" for m in methods]
    failures = [f"{o.task.name} by {m}: {why}" for o in outcomes for m, why in o.failures.items()]
    paragraphs = [
        HEADING,
        _introduction(seeds),
        _table("MAE/WQL (series lost)", ["kind", "series", *columns], scores_table),
        _table("MAE/WQL by kind (sets)", columns, kinds),
        _table("inside q10..q90, seconds", methods, bands),
        *(f"Lost by {m}: {_names(series, m, 'lost', 'mae', '.2f')}." for m in methods),
        f"Counted as seasonal naive, share of the readings: {'; '.join(filled)}.",
        f"Not forecast: {'; '.join(failures) or 'none'}.",
    ]
    if len(seeds) > 1 and NETWORK in methods:
        by_seed = [
            _means(_by_set(rows.assign(lost=False)), [NETWORK])[0]
            for _, rows in scores.groupby("seed")
        ]
        paragraphs.append(f"The network, by seed: {', '.join(by_seed)}.")
    return "\n\n".join(paragraphs) + "\n"


def _by_set(series: pd.DataFrame) -> pd.DataFrame:
    """Return the figures of sets from those of series: ratios averaged geometrically."""
    return series.groupby(["set", "kind", "method"], sort=False).agg(
        mae=("mae", _geometric_mean),
        quantile_loss=("quantile_loss", _geometric_mean),
        inside=("inside", "mean"),
        lost=("lost", "sum"),
        series=("lost", "size"),
    )


def _geometric_mean(ratios: pd.Series) -> float:
    return float(np.exp(np.log(ratios).mean()))


def _means(sets: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """Return the geometric means over the sets of each method, with the number of sets."""
    cells = dict.fromkeys(methods, "-")
    for method, rows in sets.groupby("method"):
        means = rows[["mae", "quantile_loss"]].apply(_geometric_mean)
        cells[method] = f"{means['mae']:.3f}/{means['quantile_loss']:.3f} ({len(rows)})"
    return [cells[method] for method in methods]


def _names(series: pd.DataFrame, method: str, which: str, figure: str, style: str) -> str:
    """Name the series of a method where `which` is above zero, the largest figure first."""
    rows = series[series[which] > 0].reset_index()
    rows = rows[rows["method"] == method].sort_values(figure, ascending=False)
    texts = [f"{r['set']}/{r['series']} {r[figure]:{style}}" for _, r in rows.iterrows()]
    return ", ".join(texts) or "none"


def _table(title: str, columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    lines = [[title, *columns], ["---"] * (len(columns) + 1), *([n, *c] for n, c in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _introduction(seeds: Sequence[int]) -> str:
    libraries = [f"rnnforecast {rnnforecast.__version__}"]
    for name in ("torch", "mlforecast", "lightgbm", "statsforecast"):
        with contextlib.suppress(PackageNotFoundError):
            libraries.append(f"{name} {version(name)}")
    return (
        "Made by `python -m benchmarks.suite`; the protocol stands at its top. MAE and quantile "
        "loss over those of the better of naive and seasonal naive, geometric means over series "
        "and sets; a series is lost where its MAE is more than 5 % above. **The season is told to "
        "all but the networks**, which find it; `builtin` learns nothing. LightGBM chooses for "
        "each series among readings and two kinds of steps; AutoETS (`ets`, after STL where a "
        "season has more than 24 steps) and AutoTheta (`theta`) are fitted to the last 1,500 to "
        "3,000 readings before the first window. A dash: no forecast. Seconds are those of one "
        "thread.\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores, "
        f"{platform.machine()}, {', '.join(libraries)}, seeds {list(seeds)}."
    )


def with_section(page: str, text: str) -> str:
    """Return a page with this section in place of the one with its heading, or at the end."""
    heading = text.splitlines()[0]
    begin = page.find(f"{heading}\n")
    if begin < 0:
        return f"{page.rstrip()}\n\n{text}"
    end = page.find("\n## ", begin)
    return page[:begin] + text + (page[end:] if end >= 0 else "")


def main() -> None:
    """Measure, print, and write the section where all methods and sets were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--sets", help="names, with commas between them; default: all")
    parser.add_argument("--seeds", default="0", help="of the network")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/rnnforecast-suite")
    options = parser.parse_args()
    methods = options.methods.split(",")
    if not set(methods) <= set(METHODS):
        parser.error(f"--methods is {options.methods}; there are {', '.join(METHODS)}")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    tasks = tasks_of(Path(os.environ["RNNFORECAST_DATA"]).parent / "suite")
    names = options.sets.split(",") if options.sets else [task.name for task in tasks]
    chosen = [task for task in tasks if task.name in names]
    if len(chosen) < len(names):
        parser.error(f"--sets is {options.sets}; there are {', '.join(t.name for t in tasks)}")

    os.environ["OMP_NUM_THREADS"] = "1"
    outcomes = {}
    # One process for each set, the largest files first, so that none is left to the end.
    with ProcessPoolExecutor(
        options.jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        ordered = sorted(chosen, key=lambda task: -task.path.stat().st_size)
        futures = [pool.submit(measure, t, methods, seeds, options.cache) for t in ordered]
        for future in as_completed(futures):
            outcome = future.result()
            outcomes[outcome.task.name] = outcome
            seconds = ", ".join(f"{method} {s:.0f} s" for method, s in outcome.seconds.items())
            print(f"{outcome.task.name}: {seconds}", file=sys.stderr, flush=True)

    text = section([outcomes[task.name] for task in chosen], methods, seeds)
    print(text)
    if chosen == tasks and set(methods) == set(METHODS):
        _RESULTS.write_text(with_section(_RESULTS.read_text(), text))


if __name__ == "__main__":
    main()
