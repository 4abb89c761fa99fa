"""Forecasts of sensor readings with recurrent networks.

    import rnnforecast as rf

    model = rf.train("readings.csv", horizon="24h")
    forecast = model.predict()
    forecast.to_pandas()

Each command of the command line is a function here, and its options are keyword arguments. Names
are imported when they are first used, so that `rnnforecast --help` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rnnforecast._version import __version__

if TYPE_CHECKING:
    from rnnforecast.batch.predict import BatchResult, predict_batch
    from rnnforecast.batch.shard import ShardResult, shard
    from rnnforecast.config.commands import BatchConfig, RanksConfig, RunConfig, ScoreConfig
    from rnnforecast.config.reading import DataConfig
    from rnnforecast.config.training import (
        AnomalyConfig,
        BacktestConfig,
        Config,
        NetworkConfig,
        PlotConfig,
        PredictConfig,
        TrainConfig,
        WindowConfig,
    )
    from rnnforecast.errors import (
        CatchUpError,
        DataError,
        DivergedError,
        LockedError,
        ModelError,
        NotEnoughDataError,
        OutputError,
        QualityGateError,
        RnnForecastError,
        TimeLimitError,
        UsageError,
        WorkerError,
        WriteError,
    )
    from rnnforecast.jobs.ledger import ScoreResult, score, score_job
    from rnnforecast.jobs.log import RunResult, Status, status
    from rnnforecast.jobs.run import run
    from rnnforecast.workflow.backtest import Backtest, backtest
    from rnnforecast.workflow.check import Check, check
    from rnnforecast.workflow.inspect import Search, anomalies, memory, plot
    from rnnforecast.workflow.model import Model, load, predict
    from rnnforecast.workflow.prediction import Prediction
    from rnnforecast.workflow.saved import use, versions
    from rnnforecast.workflow.steps import MemoryReport
    from rnnforecast.workflow.train import train

_HOMES = {
    "rnnforecast.batch.predict": "BatchResult predict_batch",
    "rnnforecast.batch.shard": "ShardResult shard",
    "rnnforecast.config.commands": "BatchConfig RanksConfig RunConfig ScoreConfig",
    "rnnforecast.config.reading": "DataConfig",
    "rnnforecast.config.training": (
        "AnomalyConfig BacktestConfig Config NetworkConfig PlotConfig PredictConfig TrainConfig "
        "WindowConfig"
    ),
    "rnnforecast.errors": (
        "CatchUpError DataError DivergedError LockedError ModelError NotEnoughDataError "
        "OutputError QualityGateError RnnForecastError TimeLimitError UsageError WorkerError "
        "WriteError"
    ),
    "rnnforecast.jobs.ledger": "ScoreResult score score_job",
    "rnnforecast.jobs.log": "RunResult Status status",
    "rnnforecast.jobs.run": "run",
    "rnnforecast.workflow.backtest": "Backtest backtest",
    "rnnforecast.workflow.check": "Check check",
    "rnnforecast.workflow.inspect": "Search anomalies memory plot",
    "rnnforecast.workflow.model": "Model load predict",
    "rnnforecast.workflow.prediction": "Prediction",
    "rnnforecast.workflow.saved": "use versions",
    "rnnforecast.workflow.steps": "MemoryReport",
    "rnnforecast.workflow.train": "train",
}

__all__ = [
    "AnomalyConfig",
    "Backtest",
    "BacktestConfig",
    "BatchConfig",
    "BatchResult",
    "CatchUpError",
    "Check",
    "Config",
    "DataConfig",
    "DataError",
    "DivergedError",
    "LockedError",
    "MemoryReport",
    "Model",
    "ModelError",
    "NetworkConfig",
    "NotEnoughDataError",
    "OutputError",
    "PlotConfig",
    "PredictConfig",
    "Prediction",
    "QualityGateError",
    "RanksConfig",
    "RnnForecastError",
    "RunConfig",
    "RunResult",
    "ScoreConfig",
    "ScoreResult",
    "Search",
    "ShardResult",
    "Status",
    "TimeLimitError",
    "TrainConfig",
    "UsageError",
    "WindowConfig",
    "WorkerError",
    "WriteError",
    "__version__",
    "anomalies",
    "backtest",
    "check",
    "load",
    "memory",
    "plot",
    "predict",
    "predict_batch",
    "run",
    "score",
    "score_job",
    "shard",
    "status",
    "train",
    "use",
    "versions",
]


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)


if not TYPE_CHECKING:  # a checker would take any name for one that is there

    def __getattr__(name: str) -> object:
        """Import a public name from its home when it is first used."""
        for home, names in _HOMES.items():
            if name in names.split():
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
