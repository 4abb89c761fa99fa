"""A program that uses the package, for type checkers: it is checked, and not run."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa

import rnnforecast as rf


def train_and_forecast(frame: pd.DataFrame, table: pa.Table) -> pd.DataFrame:
    model = rf.train("readings.csv", horizon="24h", target="flow", known=["setpoint"])
    rf.train(frame, model=None, horizon=24, hidden=32, dropout=0.1, max_time=timedelta(minutes=2))
    forecast: rf.Prediction = model.predict(table, horizon=6, quantiles=[0.05, 0.95])
    rf.predict(frame, bounds={"flow": (0, None)}, as_of=datetime(2024, 1, 1), future=frame)
    rf.predict(frame, config=rf.PredictConfig(horizon="24h"), tz="UTC", output=Path("f.csv"))
    forecast.plot("flow").savefig("forecast.png")
    return forecast.to_pandas()


def measure() -> float | int | None:
    result = rf.backtest("readings.csv", horizon=24, windows=10, baselines="naive")
    result.to_pandas().to_csv("values.csv")
    skill: float | None = rf.load("model", version="latest").skill
    return result.metrics["network"]["mase"] or skill


def look(path: Path) -> list[str]:
    findings = [
        finding.message for finding in rf.check(path, valid_range={"t": (-40, 90)}).findings
    ]
    episodes = rf.anomalies(path, model="builtin", since="2024-01-01").episodes
    fans = rf.plot(path, forecast=Path("forecast.csv"), series=["flow"], history="7d")
    verdict: str = rf.memory(path).diagnosis.verdict
    return [*findings, *(e.series for e in episodes), *(fan.name for fan in fans), verdict]


def operate() -> int:
    try:
        results = rf.run("job.toml", from_="2024-01-01", to="2024-02-01", every=timedelta(days=1))
        scores = rf.score("ledger", since="30d", by=["series", "lead"]).scores
    except (rf.DataError, rf.LockedError) as error:
        raise SystemExit(f"{error.code}: {error.advice}") from error
    rf.use(str(rf.versions()[-1]["version"]))
    return rf.status("job.toml").exit_code + len(results) + len(scores)
