"""Forecasts of sensor readings with recurrent networks.

    model = rnnforecast.train("readings.csv", horizon=24)
    forecast = model.predict()
    forecast.to_pandas()

Names are imported when they are first used, so that `rnnforecast --help` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnnforecast._version import __version__

if TYPE_CHECKING:
    from rnnforecast.batch.predict import BatchResult, predict_batch
    from rnnforecast.batch.shard import shard
    from rnnforecast.config.commands import BatchConfig, RanksConfig
    from rnnforecast.config.reading import DataConfig
    from rnnforecast.config.training import (
        BacktestConfig,
        Config,
        NetworkConfig,
        PredictConfig,
        TrainConfig,
        WindowConfig,
    )
    from rnnforecast.errors import RnnForecastError
    from rnnforecast.evaluate.postprocess import Prediction
    from rnnforecast.jobs.ledger import score, score_job
    from rnnforecast.jobs.log import status
    from rnnforecast.jobs.run import run
    from rnnforecast.workflow.backtest import Backtest, backtest
    from rnnforecast.workflow.check import check
    from rnnforecast.workflow.inspect import anomalies, memory, plot
    from rnnforecast.workflow.model import Model, load, predict
    from rnnforecast.workflow.saved import use, versions
    from rnnforecast.workflow.train import train

_HOMES = {
    "rnnforecast.batch.predict": "BatchResult predict_batch",
    "rnnforecast.batch.shard": "shard",
    "rnnforecast.config.commands": "BatchConfig RanksConfig",
    "rnnforecast.config.reading": "DataConfig",
    "rnnforecast.config.training": (
        "BacktestConfig Config NetworkConfig PredictConfig TrainConfig WindowConfig"
    ),
    "rnnforecast.errors": "RnnForecastError",
    "rnnforecast.evaluate.postprocess": "Prediction",
    "rnnforecast.jobs.ledger": "score score_job",
    "rnnforecast.jobs.log": "status",
    "rnnforecast.jobs.run": "run",
    "rnnforecast.workflow.backtest": "Backtest backtest",
    "rnnforecast.workflow.check": "check",
    "rnnforecast.workflow.inspect": "anomalies memory plot",
    "rnnforecast.workflow.model": "Model load predict",
    "rnnforecast.workflow.saved": "use versions",
    "rnnforecast.workflow.train": "train",
}

__all__ = [
    "Backtest",
    "BacktestConfig",
    "BatchConfig",
    "BatchResult",
    "Config",
    "DataConfig",
    "Model",
    "NetworkConfig",
    "PredictConfig",
    "Prediction",
    "RanksConfig",
    "RnnForecastError",
    "TrainConfig",
    "WindowConfig",
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


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    for home, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
