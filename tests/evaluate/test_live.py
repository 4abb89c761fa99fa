"""Issued forecasts against what came: a slow loop, a backtest of the same, and drift."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from rnnforecast.data.axis import TimeAxis
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Panel
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.backtest import ErrorUnits, Round, Truth, evaluate
from rnnforecast.evaluate.baselines import SeasonalNaive
from rnnforecast.evaluate.comparison import (
    REFERENCE_FIELDS,
    ErrorReference,
    compare,
    fit_error_reference,
    reference_table,
)
from rnnforecast.evaluate.live import DRIFTED, Score, issue_table, score_issues
from rnnforecast.evaluate.metrics import MetricAccumulator
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, make_panel, random_walk, wave
from tests.evaluate.test_comparison import FixedOrigins, Shifted

DAY = 24
KEYS = (
    (),
    ("series",),
    ("lead",),
    ("day",),
    ("lead", "series"),
    ("series", "day"),
    ("series", "lead", "day"),
)


def issues(*parts: pa.Table) -> pa.Table:
    """Put parts together as the ledger does."""
    numbered = [
        part.append_column("issue", pa.repeat(pa.scalar(n, pa.int32()), len(part)))
        for n, part in enumerate(parts)
    ]
    return pa.concat_tables(numbered, promote_options="permissive")


def issued(
    panel: Panel, row: int, *, horizon: int = 6, off: float = 0.0, seed: int = 0, **more: Any
) -> pa.Table:
    """Issue a forecast of all series after this many rows: seasonal naive, shifted, with noise."""
    past = make_past(panel, np.minimum(panel.lengths, row))
    forecast = SeasonalNaive(12).predict(past, horizon, (0.1, 0.5, 0.9))
    noise = np.random.default_rng(seed + row).normal(off, 1, (panel.n_series, horizon, 1))
    forecast = replace(
        forecast,
        values=forecast.values + noise.astype(np.float32),
        axis=more.pop("axis", TimeAxis()),
    )
    return issue_table(
        forecast, past, **{"season": 12, "version": "v", "error_reference": None, **more}
    )


def sensors(n: int = 200) -> Panel:
    readings = [wave(n, season=12, noise=1, seed=s) for s in range(3)]
    readings[1][n - 30 : n - 25] = np.nan
    readings[2][: n // 2] = np.nan
    return make_panel(*readings)


def slow_scores(
    table: pa.Table, panel: Panel, tz: str | None, since_us: int | None, by: tuple[str, ...]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Score row by row."""
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    times = {
        name: column.cast(pa.int64()).to_pylist()
        for name, column in (("cutoff", table["cutoff"]), ("timestamp", table["timestamp"]))
    }
    for place, row in enumerate(table.drop_columns(["cutoff", "timestamp"]).to_pylist()):
        row |= {name: column[place] for name, column in times.items()}
        key = row["series"], row["cutoff"], row["timestamp"]
        if key not in last or row["issue"] >= last[key]["issue"]:
            last[key] = row
    groups = defaultdict(list)
    for row in last.values():
        if row["series"] not in panel.names or (since_us and row["timestamp"] < since_us):
            continue
        s = panel.names.index(row["series"])
        at = (row["timestamp"] - int(panel.start[s])) / panel.step_us
        if not (at.is_integer() and 0 <= at < panel.lengths[s]):
            continue
        actual = float(panel.of(s)[int(at)])
        if math.isnan(actual):
            continue
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row["timestamp"])
        day = f"{moment.astimezone(ZoneInfo(tz)) if tz else moment:%Y-%m-%d}"
        row |= {"actual": actual, "day": day}
        groups[tuple(row[name] for name in by)].append(row)
    return {key: _slow_score(rows) for key, rows in groups.items()}


def _slow_score(rows: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [abs(row["actual"] - row["forecast"]) for row in rows]
    inside = [row["q10"] <= row["actual"] <= row["q90"] for row in rows]
    own, naive = defaultdict(list), defaultdict(list)
    for row, error in zip(rows, errors, strict=True):
        if row["scale"] > 0:
            own[row["series"]].append(error / row["scale"])
            naive[row["series"]].append(abs(row["actual"] - row["seasonal_naive"]) / row["scale"])
    mase, other = (
        sum(sum(x) / len(x) for x in each.values()) / len(each) if each else None
        for each in (own, naive)
    )
    return {
        "n": len(rows),
        "mae": sum(errors) / len(rows),
        "coverage_80": sum(inside) / len(rows),
        "skill": 100 * (1 - mase / other) if mase is not None and other else None,
    }


@pytest.mark.parametrize("by", [keys for keys in KEYS if "series" in keys], ids="-".join)
def test_scores_do_not_depend_on_how_many_series_are_scored_at_once(
    by: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = sensors()
    table = issues(*(issued(panel, row, horizon=h) for row, h in ((170, 6), (176, 3), (179, 6))))
    table = pa.concat_tables([table, table.slice(0, 7)])
    together = score_issues(table, make_past(panel), since_us=None, by=by)
    for n_rows in (1, 20):
        monkeypatch.setattr("rnnforecast.evaluate.live._BLOCK_ROWS", n_rows)
        assert score_issues(table, make_past(panel), since_us=None, by=by) == together


@pytest.mark.parametrize("by", KEYS, ids="-".join)
@pytest.mark.parametrize("tz", [None, "UTC", "Pacific/Auckland"])
@pytest.mark.parametrize("since", [None, 181])
def test_scores_are_what_a_loop_over_the_rows_finds(
    by: tuple[str, ...], tz: str | None, since: int | None
) -> None:
    panel = replace(sensors(), axis=TimeAxis(tz))
    parts = [
        issued(panel, row, seed=seed, axis=TimeAxis(tz))
        for seed, row in enumerate((170, 176, 176, 179, 198))
    ]
    table, since_us = issues(*parts), None if since is None else START_US + since * HOUR_US

    found = score_issues(table, make_past(panel), since_us=since_us, by=by)

    expected = slow_scores(table, panel, tz, since_us, by)
    assert len(found) == len(expected) > 0
    for score in found:
        key = tuple(getattr(score, name) for name in by)
        for name, value in expected[key].items():
            assert getattr(score, name) == pytest.approx(value), (key, name)
        assert {name for name in ("series", "lead", "day") if getattr(score, name)} == set(by)
    order = [panel.names.index(score.series) for score in found if score.series]
    assert order == sorted(order)


def test_the_last_issue_of_a_forecast_counts_whatever_the_order_of_the_rows() -> None:
    panel = sensors()
    first, last = issued(panel, 180, off=50.0), issued(panel, 180)
    table = issues(first, last)
    alone = score_issues(issues(last), make_past(panel), since_us=None, by=("series",))

    for rows in (table, table.take(np.arange(len(table))[::-1])):
        scores = score_issues(rows, make_past(panel), since_us=None, by=("series",))
        assert [score.series for score in scores] == [score.series for score in alone]
        for name in ("n", "mae", "skill", "coverage_80"):
            expected = [getattr(score, name) for score in alone]
            assert [getattr(score, name) for score in scores] == pytest.approx(expected)
    other = score_issues(issues(last, first), make_past(panel), since_us=None, by=("series",))
    assert all(score.mae > 30 for score in other)


def test_an_issue_that_holds_only_some_series_replaces_only_those() -> None:
    panel = sensors()
    first, last = issued(panel, 180, off=50.0), issued(panel, 180)

    found = score_issues(
        issues(first, last.slice(0, 6)), make_past(panel), since_us=None, by=("series",)
    )

    assert [score.mae > 30 for score in found] == [False, True, True]


def test_readings_that_have_not_come_do_not_count_and_change_nothing() -> None:
    panel = sensors()
    table = issues(issued(panel, 180), issued(panel, 190))
    changed = panel.target.copy()
    for s in range(3):
        changed[panel.offsets[s] + 193 : panel.offsets[s + 1]] = 1e6
    future = replace(panel, target=changed)
    cutoff = np.full(3, 193)

    found = [
        score_issues(table, make_past(one, cutoff), since_us=None, by=("series", "lead"))
        for one in (panel, future)
    ]

    assert found[0] == found[1]
    assert sum(score.n for score in found[0]) == 3 * (6 + 3)
    short = make_past(panel, np.full(3, 180))
    assert score_issues(table, short, since_us=None, by=("series",)) == []


def test_a_series_that_the_readings_do_not_have_does_not_count() -> None:
    panel = sensors()
    table = issues(issued(panel, 180))
    few = replace(panel.select(np.array([0, 2])), names=("s0", "another"))

    found = score_issues(table, make_past(few), since_us=None, by=("series",))

    assert [score.series for score in found] == ["s0"]


def test_a_forecast_and_its_ledger_say_the_same() -> None:
    panel = sensors()
    past = make_past(panel, np.array([180, 170, 190]))
    forecast = SeasonalNaive(12).predict(past, 2, (0.1, 0.5, 0.9))
    forecast = replace(
        forecast, axis=TimeAxis("Europe/Vienna"), source=("network", "naive", "network")
    )
    usual = {
        "fields": list(REFERENCE_FIELDS),
        "series": {"s1": [1, 2, 3, 4, 5, 6, 7]},
        "others": None,
    }

    table = issue_table(forecast, past, season=12, version="v1", error_reference=usual)

    rows = table.to_pylist()
    assert [row["series"] for row in rows] == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert [row["lead"] for row in rows] == [1, 2] * 3
    assert [row["source"] for row in rows] == ["network"] * 2 + ["naive"] * 2 + ["network"] * 2
    assert {row["version"] for row in rows} == {"v1"}
    for place, row in enumerate(rows):
        origin, lead = divmod(place, 2)
        q10, point, q90 = (float(x) for x in forecast.values[origin, lead])
        assert (row["q10"], row["forecast"], row["q90"]) == (q10, point, q90)
        assert row["seasonal_naive"] == row["forecast"]
        step = timedelta(hours=int(past.cutoff[origin]) - 1)
        cutoff = datetime(2024, 1, 1, tzinfo=UTC) + step
        assert (row["cutoff"], row["timestamp"]) == (cutoff, cutoff + timedelta(hours=lead + 1))
        seen = panel.of(origin)[: past.cutoff[origin]].astype(np.float64)
        assert row["scale"] == pytest.approx(np.nanmean(np.abs(seen[12:] - seen[:-12])))
        figures = [row[f"usual_{name}"] for name in REFERENCE_FIELDS]
        assert (
            figures == [1, 2, 3, 4, 5, 6, 7] if row["series"] == "s1" else np.isnan(figures).all()
        )


def test_live_scores_equal_those_of_a_backtest_over_the_same_cutoffs() -> None:
    panel = make_panel(wave(300, noise=1), 5 * random_walk(300), wave(260, noise=2, seed=3))
    panel.target[panel.offsets[0] + 250 : panel.offsets[0] + 255] = np.nan
    cutoffs, horizon = (200, 224, 231, 250), 24
    network = Shifted(SeasonalNaive(DAY), 0.7)
    methods = {"network": network, "naive": SeasonalNaive(1), "seasonal_naive": SeasonalNaive(DAY)}
    rounds = [Round(FixedOrigins(panel, cutoffs), methods)]  # type: ignore[arg-type]
    units = ErrorUnits(DAY, np.ones(3))
    tallies = evaluate(rounds, Truth(panel, horizon), units, lookback=24)
    names = panel.names
    backtest = compare(tallies, names=names, season=DAY, step_us=HOUR_US).metrics

    parts = []
    for row in cutoffs:
        past = make_past(panel.before(np.full(3, row)))
        forecast = network.predict(past, horizon, QUANTILES)
        parts.append(issue_table(forecast, past, season=DAY, version="v", error_reference=None))
    (live,) = score_issues(issues(*parts), make_past(panel), since_us=None, by=())

    one, naive = backtest["network"], backtest["seasonal_naive"]
    assert live.n == one.n
    assert live.mae == pytest.approx(one.mae, rel=1e-12)
    assert live.coverage_80 == pytest.approx(one.coverage_80, rel=1e-12)
    assert live.skill == pytest.approx(100 * (1 - one.mase / naive.mase), rel=1e-9)
    each = score_issues(issues(*parts), make_past(panel), since_us=None, by=("series",))
    by_series = tallies["network"].by_series.values
    assert [score.mae for score in each] == pytest.approx(by_series.tolist(), rel=1e-12)


# Drift: errors of a network and of the seasonal naive method are drawn, at training and live.

HORIZON = 24
Errors = tuple[np.ndarray, np.ndarray]


def draw(seed: int, n_series: int, cutoffs: list[int]) -> Errors:
    """Draw signed errors, `(series, window, lead)`, of the network and of the naive method.

    They grow with the lead, are larger on some days than on others, and forecasts of one time err
    together, whatever their cutoff.
    """
    rng = np.random.default_rng(seed)
    n_times = max(cutoffs) + HORIZON + 1
    days = np.exp(0.4 * rng.standard_normal((n_series, n_times // DAY + 1)))
    size = days[:, np.arange(n_times) // DAY]
    common = rng.standard_normal((n_series, n_times))
    for t in range(1, n_times):
        common[:, t] = 0.6 * common[:, t - 1] + 0.8 * common[:, t]
    at = np.array(cutoffs)[:, None] + np.arange(1, HORIZON + 1)
    own = 0.8 * common[:, at] + 0.6 * rng.standard_normal((n_series, len(cutoffs), HORIZON))
    naive = 1.25 * (rng.standard_normal((n_series, n_times)) * size)[:, at]
    return own * size[:, at] * growth(), naive


def growth() -> np.ndarray:
    return 0.5 + 0.5 * np.sqrt(np.arange(1, HORIZON + 1) / HORIZON)


def learnt(n_series: int, n_blocks: int = 30) -> ErrorReference:
    own, naive = draw(0, n_series, [DAY * i for i in range(n_blocks)])
    network, other = (MetricAccumulator(n_series, HORIZON, n_blocks) for _ in range(2))
    cell = np.arange(n_blocks)[:, None] * n_series + np.arange(n_series)[:, None, None]
    network.inside.add((np.abs(own) <= 1.2816 * growth()).astype(float), cell)
    network.by_block.add(np.abs(own), cell)
    other.by_block.add(np.abs(naive), cell)
    return fit_error_reference(network, other, tuple(f"s{i}" for i in range(n_series)))


def live(
    errors: Errors,
    cutoffs: list[int],
    reference: ErrorReference | None,
    *,
    by: str = "series",
    until: int | None = None,
) -> list[Score]:
    """Score a ledger of such errors on readings that are all 0, the first `until` of them."""
    own, naive = errors
    n_series, n_windows, _ = own.shape
    names = [f"s{i}" for i in range(n_series)]
    figures = reference_table(reference and reference.to_json(), names)
    cutoff = START_US + np.array(cutoffs)[:, None] * HOUR_US
    leads = np.arange(1, HORIZON + 1)

    def column(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, own.shape).ravel()

    table = {
        "series": np.repeat(names, n_windows * HORIZON),
        "cutoff": column(cutoff).view("datetime64[us]"),
        "timestamp": column(cutoff + leads * HOUR_US).view("datetime64[us]"),
        "lead": column(leads),
        "forecast": column(own),
        "q10": column(own - 1.2816 * growth()),
        "q90": column(own + 1.2816 * growth()),
        "seasonal_naive": column(naive),
        "scale": np.ones(own.size),
        "issue": column(np.arange(n_windows)[:, None]),
    }
    for place, name in enumerate(REFERENCE_FIELDS):
        table[f"usual_{name}"] = column(figures[:, place, None, None])
    n_rows = until or max(cutoffs) + HORIZON + 1
    past: Past = make_past(make_panel(*np.zeros((n_series, n_rows))))
    return score_issues(pa.table(table), past, since_us=None, by=(by,))


@pytest.mark.slow
@pytest.mark.parametrize(("n_series", "every"), [(400, 24), (200, 6), (100, 1)])
def test_series_that_are_as_they_were_at_training_are_hardly_ever_flagged(
    n_series: int, every: int
) -> None:
    """Also those whose forecasts overlap, as an hourly run of a day ahead issues them."""
    cutoffs = list(range(0, 7 * DAY, every))

    scores = live(draw(1, n_series, cutoffs), cutoffs, learnt(n_series))

    assert all(score.drift is not None for score in scores)
    assert sum(score.flag is not None for score in scores) <= 0.01 * n_series
    assert {score.flag is None for score in scores if score.drift <= DRIFTED} == {True}


@pytest.mark.parametrize("shift", [4.0, -6.0])
def test_a_shift_of_the_level_is_flagged_within_three_days(shift: float) -> None:
    cutoffs = [0, DAY, 2 * DAY]
    own, naive = draw(2, 50, cutoffs)

    scores = live((own + shift, naive), cutoffs, learnt(50))

    assert all(score.flag is not None and score.drift > DRIFTED for score in scores)
    assert all("coverage" in score.flag for score in scores)


def test_bands_that_hold_every_reading_are_flagged_too_and_small_errors_are_not() -> None:
    cutoffs = [DAY * i for i in range(60)]
    own, naive = draw(3, 20, cutoffs)

    scores = live((0.01 * own, naive), cutoffs, learnt(20))

    assert {score.flag for score in scores} <= {"coverage", None}
    assert sum(score.flag == "coverage" for score in scores) > 10


def test_a_single_first_lead_that_was_missed_flags_nothing() -> None:
    own, naive = draw(4, 50, [0])
    own[:, :, 0] = 2.0

    scores = live((own, naive), [0], learnt(50), until=2)

    assert all((score.n, score.coverage_80) == (1, 0.0) for score in scores)
    assert all(score.drift is not None and score.flag is None for score in scores)


def test_without_what_is_usual_nothing_is_said_of_drift() -> None:
    own, naive = draw(5, 3, [0, DAY])

    for score in live((own + 100, naive), [0, DAY], None):
        assert (score.drift, score.flag) == (None, None)
        assert score.mae > 90 and score.skill < -1000


def test_of_single_leads_it_is_not_known_what_is_usual() -> None:
    """The last lead is always worse than the mean of all, and the first one better."""
    cutoffs = [DAY * i for i in range(60)]
    usual = learnt(20)

    by_lead = live(draw(6, 20, cutoffs), cutoffs, usual, by="lead")
    by_day = live(draw(6, 20, cutoffs), cutoffs, usual, by="day")

    assert {(score.drift, score.flag) for score in by_lead} == {(None, None)}
    assert sum(score.flag is not None for score in by_day) <= 1
    assert all(score.drift is not None for score in by_day)


def test_a_forecast_must_not_be_wrong_to_be_empty() -> None:
    panel = sensors()
    table = issues(issued(panel, 180)).slice(0, 0)
    assert score_issues(table, make_past(panel), since_us=None, by=("series",)) == []
    nothing = Forecast(np.empty((0, 6, 3)), (0.1, 0.5, 0.9), (), np.empty(0, np.int64), HOUR_US)
    past = make_past(panel).subset(np.empty(0, np.int64))
    assert len(issue_table(nothing, past, season=12, version="v", error_reference=None)) == 0
