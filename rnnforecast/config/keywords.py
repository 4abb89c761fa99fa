"""The options of each command as the keyword arguments of its function, for type checkers.

The dataclasses of this room hold defaults, meanings and checks; a test holds the names equal. An
option that is left out, or None, has its default, or what the model was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from typing import TypeAlias, TypedDict

Names: TypeAlias = str | Sequence[str]
"""One name or several."""
Rules: TypeAlias = str | Sequence[str] | Mapping[str, object]
"""`"flow=0:"`, several such texts, or a mapping: `{"flow": (0, None)}`, `{"wind_dir": "angle"}`."""
Steps: TypeAlias = int | str | timedelta | None
"""A number of steps, or a duration such as `"24h"`."""
Duration: TypeAlias = str | timedelta | None
Moment: TypeAlias = str | datetime | None
PathName: TypeAlias = str | PathLike[str] | None


class ReadingOptions(TypedDict, total=False):
    """How readings are read: `DataConfig`."""

    time: str | None
    series: Names | None
    target: Names | None
    known: Names | None
    past: Names | None
    static: Names | None
    categorical: Names | None
    calendar: Names | None
    holidays: str | None
    freq: Duration
    agg: Rules | None
    min_share: float | None
    hold: Duration
    tz: str | None
    closed: str | None
    sep: str | None
    decimal: str | None
    thousands: str | None
    encoding: str | None
    sheet: str | None
    query: str | None
    skip_rows: int | None
    comment: str | None
    no_header: bool | None
    id_from_columns: bool | None
    columns: Names | None
    na_values: Names | None
    on_bad_rows: str | None
    rejects: PathName
    max_bad_rows: int | str | None
    inf_as_na: bool | None
    time_format: str | None
    time_unit: str | None
    leap_second: str | None
    midnight: str | None
    time_range: str | None
    counter: Names | None
    exclude: PathName
    valid_range: Rules | None
    stuck_as_na: Duration
    max_gap: Steps
    allow_future: bool | None
    map: Rules | None
    max_memory: int | str | None
    max_input_bytes: int | str | None
    on_duplicate: str | None


class NetworkOptions(TypedDict, total=False):
    """Windows, network and training: `WindowConfig`, `NetworkConfig` and `TrainConfig`."""

    horizon: Steps
    lookback: Steps
    season: int | str | timedelta | Sequence[str] | None
    network: str | None
    cell: str | None
    hidden: int | None
    layers: int | None
    segment: int | None
    init: str | None
    dropout: float | None
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    clip: float | None
    truncate: int | None
    seed: int | None
    device: str | None
    threads: int | None
    max_time: Duration
    steps: int | None
    validation: float | None
    test: float | None


class TrainOptions(ReadingOptions, NetworkOptions, total=False):
    """Options of `train`; the last four are those of `RanksConfig`."""

    engine: str | None
    workers: int | None
    address: str | None
    rank_timeout: Duration


class BacktestOptions(ReadingOptions, NetworkOptions, total=False):
    """Options of `backtest`: how readings are read, the network, and `BacktestConfig`."""

    train_end: int | Moment
    validation_end: int | Moment
    test_end: int | Moment
    stride: int | None
    windows: int | None
    refit: int | None
    baselines: Names | None
    excel_safe: bool | None


class PredictOptions(ReadingOptions, total=False):
    """Options of `predict`: how readings are read, and `PredictConfig` but for `future`."""

    horizon: Steps
    season: int | str | timedelta | Sequence[str] | None
    quantiles: float | Sequence[float] | None
    as_of: Moment
    fallback: Names | None
    bounds: Rules | None
    exceed: Rules | None
    max_age: Duration
    warn_age: Duration
    require_series: bool | None
    max_drift: float | None
    excel_safe: bool | None
    wide: bool | None


class BatchOptions(PredictOptions, total=False):
    """Options of `predict_batch`: those of `predict`, and `BatchConfig`."""

    future: PathName
    shard: str | None
    commit: bool | None
    workers: int | None
    engine: str | None
    address: str | None


class AnomalyOptions(ReadingOptions, total=False):
    """Options of `anomalies`: how readings are read, and `AnomalyConfig`."""

    at_least: float | None
    stride: int | None
    since: Moment
    excel_safe: bool | None


class PlotOptions(TypedDict, total=False):
    """Options of `plot`: `PlotConfig`."""

    forecast: PathName
    series: Names | None
    history: Steps


class RunOptions(TypedDict, total=False):
    """Options of `run`: `RunConfig`. `from_` is `--from`, which is a keyword of the language."""

    force: bool | None
    dry_run: bool | None
    as_of: Moment
    from_: Moment
    to: Moment
    every: Duration
    fail_on: str | None
    lock_wait: Duration
    max_time: Duration


class ScoringOptions(TypedDict, total=False):
    """Options of `score_job`: `ScoreConfig`."""

    since: Moment | timedelta
    by: Names | None
    in_sample: bool | None
    max_drift: float | None


class ScoreOptions(ReadingOptions, ScoringOptions, total=False):
    """Options of `score`: how readings are read, and `ScoreConfig`."""
