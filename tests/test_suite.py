"""The scores of benchmarks/suite.py, against loops over made-up sets; forecasts are stubs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from benchmarks import suite

N_ROWS, SEASON, HORIZON, WINDOWS = 60, 6, 5, 3
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
NORMAL = [-1.2815515655446004, -0.8416212335729143, -0.5244005127080407, -0.2533471031357997, 0.0]
NORMAL += [-z for z in NORMAL[3::-1]]


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    """Return three series: a whole one, one with gaps, and one that stands still at the end."""
    rng = np.random.default_rng(0)
    rows = np.arange(N_ROWS)
    wave = np.sin(2 * np.pi * rows / SEASON) + rng.normal(scale=0.4, size=N_ROWS)
    gappy = wave + rng.normal(size=N_ROWS)
    gappy[rng.random(N_ROWS) < 0.3] = np.nan
    still = np.where(rows < N_ROWS - 14, 3.0 + 0.1 * wave, 3.0)
    index = pd.date_range("2026-01-01", periods=N_ROWS, freq="h", name="time")
    return pd.DataFrame({"whole": wave, "gappy": gappy, "still": still}, index=index)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, readings: pd.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "data").mkdir()
    readings.to_csv(folder / "data" / "pump.csv.gz")
    entry = {"name": "pump", "kind": "water", "step": "1h", "season": SEASON}
    entry |= {"horizon": HORIZON, "windows": WINDOWS, "source": "made up"}
    (folder / "suite.json").write_text(json.dumps([entry]))
    return folder


def stub(readings: pd.DataFrame, error: float) -> pd.DataFrame:
    """Forecast the readings but for this error, with crossing deciles; nothing of `still`."""
    rows = []
    for name in ("whole", "gappy"):
        values = readings[name].ffill().to_numpy()
        for cutoff in range(N_ROWS - WINDOWS * HORIZON, N_ROWS, HORIZON):
            for lead in range(1, HORIZON + 1):
                median = values[cutoff + lead - 1] + error * (-1) ** lead
                deciles = {f"q{10 * i}": median + 0.3 * (5 - i) * lead for i in range(1, 10)}
                place = {"series": name, "cutoff": cutoff, "lead": lead, "forecast": median}
                rows.append({**place, **deciles})
    return pd.DataFrame(rows)


def naive_by_a_loop(past: list[float], season: int, lead: int) -> tuple[float, list[float]]:
    newest = next(value for value in reversed(past) if not math.isnan(value))
    row, point = len(past) - season + (lead - 1) % season, math.nan
    for back in range(60):
        # Only whole seasons count.
        if math.isnan(point) and len(past) >= (back + 1) * season:
            point = past[row - back * season]
    point = newest if math.isnan(point) else point
    steps = [b - a for a, b in zip(past, past[season:], strict=False) if not math.isnan(b - a)]
    spread = math.sqrt(sum(step**2 for step in steps) / len(steps))
    width = spread * math.sqrt((lead - 1) // season + 1)
    return point, [point + z * width for z in NORMAL]


def figures_by_a_loop(
    values: list[float], forecast: dict[tuple[int, int], tuple[float, list[float]]], season: int
) -> dict[str, float]:
    """MAE, quantile loss, share inside and share filled; season 1 or SEASON where not forecast."""
    errors, losses, inside, filled = [], [], [], []
    for cutoff in range(N_ROWS - WINDOWS * HORIZON, N_ROWS, HORIZON):
        for lead in range(1, HORIZON + 1):
            actual = values[cutoff + lead - 1]
            if math.isnan(actual):
                continue
            filled.append((cutoff, lead) not in forecast)
            point, deciles = forecast.get(
                (cutoff, lead), naive_by_a_loop(values[:cutoff], season, lead)
            )
            errors.append(abs(actual - point))
            pinballs = [
                level * (actual - q) if actual > q else (1 - level) * (q - actual)
                for level, q in zip(LEVELS, sorted(deciles), strict=True)
            ]
            losses.append(2 * sum(pinballs) / 9)
            inside.append(min(deciles) <= actual <= max(deciles))
    lists = {"mae": errors, "quantile_loss": losses, "inside": inside, "filled": filled}
    return {name: sum(items) / len(items) for name, items in lists.items()}


def test_scores_are_those_of_a_loop_over_the_readings(folder, readings):
    (task,) = suite.tasks_of(folder)
    forecast = stub(readings, 0.4)
    table = suite.score(task, readings, {"stub": suite.to_arrays(task, readings, forecast)})
    assert len(table) == 9
    for name in readings:
        values = readings[name].tolist()
        rows = forecast[forecast["series"] == name]
        by_place = {
            (row.cutoff, row.lead): (
                row.forecast,
                [getattr(row, f"q{10 * i}") for i in range(1, 10)],
            )
            for row in rows.itertuples()
        }
        figures = {
            "naive": figures_by_a_loop(values, {}, 1),
            "seasonal naive": figures_by_a_loop(values, {}, SEASON),
            "stub": figures_by_a_loop(values, by_place, SEASON),
        }
        before = values[: N_ROWS - WINDOWS * HORIZON]
        steps = [abs(b - a) for a, b in zip(before, before[SEASON:], strict=False)]
        steps = [step for step in steps if not math.isnan(step)]
        floor = 0.01 * sum(steps) / len(steps)
        for method, expected in figures.items():
            row = table[(table["series"] == name) & (table["method"] == method)].iloc[0]
            for figure in ("mae", "quantile_loss"):
                best = min(figures[m][figure] for m in ("naive", "seasonal naive"))
                ratio = (expected[figure] + floor) / (best + floor)
                assert row[figure] == pytest.approx(min(max(ratio, 0.1), 10), abs=1e-9)
            assert row["inside"] == pytest.approx(expected["inside"])
            assert row["filled"] == (0 if method != "stub" else expected["filled"])
    assert set(table[table["method"] == "stub"]["filled"]) == {0, 1}


def test_other_libraries_run_once_and_the_network_with_each_seed(
    folder, readings, tmp_path, monkeypatch
):
    calls = []

    def method(name):
        def forecast(_task, _readings, seed):
            calls.append((name, seed))
            if name == "ets":
                raise ValueError("no season fits\nat all")
            return stub(readings, 0.1 + seed if name == "network" else 9.0)

        return forecast

    names = ("network", "lightgbm", "ets")
    monkeypatch.setattr(suite, "METHODS", {name: method(name) for name in names})
    monkeypatch.setattr(suite, "version", lambda _library: "1.0")
    (task,) = suite.tasks_of(folder)
    outcomes = [suite.measure(task, names, (0, 1, 4), tmp_path) for _ in range(2)]

    seeds = [("network", 0), ("network", 1), ("network", 4)]
    first = [("network", 0), ("lightgbm", 0), ("ets", 0), *seeds[1:]]
    assert calls == [*first, *(call for call in first if call[0] != "lightgbm")]
    assert outcomes[1].failures == {"ets": "ValueError: no season fits"}
    pd.testing.assert_frame_equal(outcomes[0].scores, outcomes[1].scores)

    text = suite.section(outcomes[:1], names, (0, 1, 4))
    medians = outcomes[0].scores.groupby(["method", "series"])["mae"].median()
    mean = math.exp(np.log(medians["network"]).mean())
    lost = {m: int((medians[m] > 1.05).sum()) for m in ("network", "lightgbm")}
    assert lost["lightgbm"] == 2
    (row,) = (line for line in text.splitlines() if line.startswith("| pump | water | 3 "))
    cells = [cell.strip() for cell in row.split("|")[4:7]]
    assert cells[0].startswith(f"{mean:.3f}/") and cells[0].endswith(f"({lost['network']})")
    assert cells[1].endswith("(2)") and cells[2] == "-"
    assert f"pump/gappy {medians['lightgbm', 'gappy']:.2f}" in text
    assert "network pump/still 100%" in text
    assert "pump by ets: ValueError: no season fits" in text


def test_the_networks_cutoffs_become_row_numbers(folder, readings, monkeypatch):
    expected = stub(readings, 0.2)

    def backtest(_data, *, horizon, closed, config, ends, output):
        assert closed == "none"
        assert (horizon, config.training.seed, ends.windows) == (HORIZON, 7, WINDOWS)
        table = expected.drop(columns="q50").assign(
            cutoff=readings.index[expected["cutoff"] - 1], method="network"
        )
        others = table.assign(method="naive", forecast=1e6)
        pd.concat([table, others]).to_parquet(output)

    monkeypatch.setattr(rnnforecast, "backtest", backtest)
    (task,) = suite.tasks_of(folder)
    forecast = suite.METHODS["network"](task, readings, 7)
    arrays = (suite.to_arrays(task, readings, table) for table in (forecast, expected))
    for by_time, by_row in zip(*arrays, strict=True):
        np.testing.assert_array_equal(by_time, by_row)


def test_gaps_are_filled_from_the_past_alone(folder, readings):
    (task,) = suite.tasks_of(folder)
    fill = suite.suite_methods._long_form
    whole = fill(task, readings, None)
    changed = readings.copy()
    changed.iloc[50:] = 1e6
    other = fill(task, changed, None)
    before = whole["ds"] < 50
    assert whole["y"].notna().all() and (whole["weight"] == 0).any()
    pd.testing.assert_frame_equal(whole[before], other[before])


def test_a_section_replaces_itself_and_nothing_else():
    page = "# Results\n\n## A\n\nold\nlines\n\n## B\n\nkept\n"
    assert suite.with_section(page, "## A\n\nnew\n") == "# Results\n\n## A\n\nnew\n\n## B\n\nkept\n"
    assert suite.with_section(page, "## B\n\nnew\n").endswith("lines\n\n## B\n\nnew\n")
    assert suite.with_section("# Results\n", "## A\n\nnew\n") == "# Results\n\n## A\n\nnew\n"
