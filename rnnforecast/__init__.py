"""Forecasts of sensor readings with recurrent networks.

    model = rnnforecast.train("readings.csv", horizon=24)
    forecast = model.predict()
    forecast.to_pandas()

The functions are imported when they are first used, so that `rnnforecast --help` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rnnforecast._version import __version__

if TYPE_CHECKING:
    from rnnforecast.batchconfig import BatchConfig
    from rnnforecast.config import (
        BacktestConfig,
        Config,
        NetworkConfig,
        PredictConfig,
        TrainConfig,
        WindowConfig,
    )
    from rnnforecast.dataconfig import DataConfig
    from rnnforecast.errors import RnnForecastError
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.ranksconfig import RanksConfig
    from rnnforecast.workflow import (
        Backtest,
        Batched,
        Model,
        backtest,
        load,
        predict,
        predict_batch,
        shard,
        train,
    )

_HOMES = {
    "rnnforecast.batchconfig": ("BatchConfig",),
    "rnnforecast.config": (
        "BacktestConfig",
        "Config",
        "NetworkConfig",
        "PredictConfig",
        "TrainConfig",
        "WindowConfig",
    ),
    "rnnforecast.dataconfig": ("DataConfig",),
    "rnnforecast.errors": ("RnnForecastError",),
    "rnnforecast.evaluate.fallback": ("Prediction",),
    "rnnforecast.ranksconfig": ("RanksConfig",),
    "rnnforecast.workflow": (
        "Backtest",
        "Batched",
        "Model",
        "backtest",
        "load",
        "predict",
        "predict_batch",
        "shard",
        "train",
    ),
}

__all__ = [
    "Backtest",
    "BacktestConfig",
    "BatchConfig",
    "Batched",
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
    "backtest",
    "load",
    "predict",
    "predict_batch",
    "shard",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
