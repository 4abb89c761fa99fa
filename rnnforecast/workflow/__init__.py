"""The stories, each read from top to bottom, one module for each. Also the public functions.

A story wires the rooms together and decides nothing that a room could decide. It prints nothing: it
reports events and returns a result. What is slow to import is imported where it is first needed, so
that a damaged model is refused before torch is loaded.
"""

from rnnforecast.workflow.anomalies import Search, anomalies
from rnnforecast.workflow.backtesting import Backtest, backtest
from rnnforecast.workflow.batch import Batched, predict_batch
from rnnforecast.workflow.checking import Check, check
from rnnforecast.workflow.cycle import Cycle, exit_code_of
from rnnforecast.workflow.measuring import Remembered
from rnnforecast.workflow.plotting import MOST_DRAWN, plot
from rnnforecast.workflow.prediction import predict
from rnnforecast.workflow.remembering import memory
from rnnforecast.workflow.running import run
from rnnforecast.workflow.saved import Model, load, versions
from rnnforecast.workflow.scoring import DEFAULT_LEDGER, Scored, score, score_job
from rnnforecast.workflow.sharding import Sharded, shard
from rnnforecast.workflow.status import Status, status
from rnnforecast.workflow.training import train
from rnnforecast.workflow.using import use

__all__ = [
    "DEFAULT_LEDGER",
    "MOST_DRAWN",
    "Backtest",
    "Batched",
    "Check",
    "Cycle",
    "Model",
    "Remembered",
    "Scored",
    "Search",
    "Sharded",
    "Status",
    "anomalies",
    "backtest",
    "check",
    "exit_code_of",
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
