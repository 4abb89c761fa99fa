"""Options of windows, the network, its training, and the commands that use a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

from rnnforecast.config.fields import check_choices, option
from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import UsageError
from rnnforecast.spec import BUILTIN, CELLS, QUANTILES
from rnnforecast.units import check_range, parse_duration_us, parse_limits, parse_ranges

BAND = (0.1, 0.9)
"""Quantiles that are written next to the median by default."""
STANDARD_OUTPUT = "-"
DEFAULT_MODEL = "model"
BUILTIN_MODEL = "builtin"
"""Stands for the built-in network where a model is named; a folder of that name is ./builtin."""
NO_BOUNDS = "none"
"""The value of `bounds` by which forecasts go beyond the limits that readings rest on."""
AUTO, TRAINED = "auto", "trained"
EXPERT = "expert"
FALLBACKS = ("seasonal-naive", "naive", EXPERT, BUILTIN_MODEL)
BASELINES = ("naive", "seasonal-naive", EXPERT, BUILTIN_MODEL, "ridge")
_EXCEL_SAFE = "Prefix names that look like formulas with ' (CSV only)"
MAX_LOOKBACK = 16_384
MAX_HORIZON = 16_384
MAX_HIDDEN = 4_096
MAX_LAYERS = 8
MAX_MEMBERS = 16
MAX_FEATURES = 4096
GATED = tuple(name for name, cell in CELLS.items() if cell.retention_gate is not None)
"""Cells with a gate that decides how long a unit remembers."""
MAX_EPOCHS = 12
"""Epochs of a training that is not told how many, at most."""
INITS = ("orthogonal", "chrono", "default")
_BUILTIN_SHAPE = BUILTIN.cell, BUILTIN.hidden, BUILTIN.layers, None
_data = partial(option, group="Data")
_network = partial(option, group="Network")
_training = partial(option, group="Training")
_forecast = partial(option, group="Forecast")
_evaluation = partial(option, group="Evaluation")
_anomalies = partial(option, group="Anomalies")
_plot = partial(option, group="Plot")
_output = partial(option, group="Output")


@dataclass(frozen=True)
class WindowConfig:
    """Lengths of a window: steps, a duration such as 24h, or auto."""

    horizon: str = _network(
        "auto", "Forecast horizon: steps or a duration (24h)", "-H", metavar="N|DURATION"
    )
    lookback: str = _network(
        "auto", "History to use: steps or duration", "-L", metavar="N|DURATION"
    )
    season: str = _data("auto", "Season: steps, 1d, 1d,1w or none", metavar="PERIOD")

    def __post_init__(self) -> None:
        """Convert numbers, which Python callers may pass, to text."""
        for name in ("horizon", "lookback", "season"):
            object.__setattr__(self, name, str(getattr(self, name)))


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of the network."""

    network: str = _network(
        AUTO,
        "Use a trained network, the built-in one, or both",
        choices=(AUTO, TRAINED, BUILTIN_MODEL),
    )
    cell: str = _network("gru", "Recurrent cell", choices=tuple(CELLS))
    hidden: int = _network(64, "Width of the recurrent state", rare=True)
    layers: int = _network(2, "Number of recurrent layers", rare=True)
    segment: int | None = _network(
        None, "Readings per recurrent step; 1 is the textbook network", rare=True
    )
    init: str = _network(
        "orthogonal", "Initialisation of the recurrent weights", choices=INITS, rare=True
    )
    dropout: float = _network(0.0, "Dropout rate", metavar="FRACTION", rare=True)

    def __post_init__(self) -> None:
        """Raise `UsageError` for an invalid shape."""
        check_choices(self)
        shape = self.cell, self.hidden, self.layers, self.segment
        if self.network == BUILTIN_MODEL and shape != _BUILTIN_SHAPE:
            raise UsageError(
                "--network builtin has a fixed architecture",
                hint="remove the other network options, or use --network trained",
            )
        if self.init == "chrono" and self.cell not in GATED:
            raise UsageError(
                f"--init chrono needs a cell with gates, but --cell {self.cell} has none",
                hint=f"use one of  --cell {' | '.join(GATED)}",
            )

        check_range("hidden", self.hidden, 1, MAX_HIDDEN)
        check_range("layers", self.layers, 1, MAX_LAYERS)
        check_range("dropout", self.dropout, 0.0, 0.95)
        check_range("segment", self.segment, 1, MAX_LOOKBACK)


@dataclass(frozen=True)
class TrainConfig:
    """How the network learns. Equal configurations and equal readings give equal weights."""

    epochs: int | None = _training(None, "Maximum epochs of 25 steps (default: 4 to 12)")
    batch_size: int = _training(64, "Batch size", rare=True)
    learning_rate: float = _training(1e-3, "Peak learning rate", metavar="RATE", rare=True)
    clip: float = _training(
        1.0, "Gradient-norm clipping threshold; 0 disables it", metavar="NORM", rare=True
    )
    truncate: int | None = _training(
        None, "Truncate backpropagation to this many readings (default: no limit)", rare=True
    )
    seed: int = _training(0, "Random seed")
    device: str = _training("auto", "Device to train on", choices=("auto", "cpu", "cuda"))
    threads: int | None = _training(None, "Number of CPU threads (default: all)", rare=True)
    max_time: str | None = _training(
        None, "Stop training after this time, e.g. 2m", metavar="DURATION"
    )
    steps: int | None = _training(None, "Stop training after this many steps", rare=True)
    validation: float = _training(0.15, "Share of data for early stopping", metavar="FRACTION")
    test: float = _training(0.15, "Share of the newest data held out", metavar="FRACTION")

    def __post_init__(self) -> None:
        """Raise `UsageError` for values out of range."""
        check_choices(self)
        check_range("epochs", self.epochs, 1, 10_000)
        check_range("batch-size", self.batch_size, 1, 1_000_000)
        check_range("learning-rate", self.learning_rate, 1e-9, 10.0)
        check_range("clip", self.clip, 0.0, 1e9)
        check_range("seed", self.seed, 0, 2**63 - 1)
        check_range("validation", self.validation, 0.0, 0.9)
        check_range("test", self.test, 0.0, 0.9)
        check_range("validation + test", self.validation + self.test, 0.0, 0.9)
        check_range("threads", self.threads, 1, 1_024)
        check_range("truncate", self.truncate, 1, MAX_LOOKBACK)
        check_range("steps", self.steps, 1, 10**9)
        if self.max_time is not None:
            parse_duration_us(self.max_time)


@dataclass(frozen=True)
class Config:
    """All options of a training run."""

    data: DataConfig = field(default_factory=DataConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class PredictConfig:
    """What to forecast; by default the whole horizon of the model.

    Python callers may pass the horizon as a number of steps.
    """

    horizon: str | None = _forecast(
        None,
        "Steps or duration to forecast, up to the trained horizon (default: all of it)",
        "-H",
        metavar="N|DURATION",
    )
    season: str = _forecast(
        AUTO, "Season for the built-in network: steps, 1d, 1d,1w or none", metavar="PERIOD"
    )
    quantiles: tuple[float, ...] = _forecast(
        BAND, "Quantiles to write beside the median, comma-separated", listed=True
    )
    as_of: str | None = _forecast(
        None, "Ignore readings after this time (default: the newest reading)", metavar="TIME"
    )
    fallback: tuple[str, ...] = _forecast(
        (),
        "Methods for series the network cannot forecast, comma-separated: seasonal-naive, naive, "
        "expert, builtin",
        choices=FALLBACKS,
        listed=True,
    )
    bounds: tuple[str, ...] = _forecast(
        (),
        "Keep forecasts inside name=low:high (either bound optional); none lifts the limits "
        "learned in training; repeatable",
        metavar="RANGE",
    )
    exceed: tuple[str, ...] = _forecast(
        (),
        "Add the column p_exceed, the probability of a reading above name=limit; repeatable",
        metavar="LIMIT",
    )
    future: str | None = _forecast(
        None, "File with the future values of --known columns", metavar="FILE"
    )
    max_age: str | None = _forecast(
        None,
        "Exit with code 5 if the newest reading is older than this, e.g. 2h",
        metavar="DURATION",
    )
    warn_age: str | None = _forecast(
        None, "Warn if the newest reading is older than this", metavar="DURATION"
    )
    require_series: bool = _forecast(
        False, "Fail if a series of the model is missing from the data", rare=True
    )
    max_drift: float | None = _forecast(
        None,
        "Exit with code 8 if a series is more than this many standard deviations from its "
        "training level",
        metavar="X",
    )
    excel_safe: bool = _output(False, _EXCEL_SAFE, rare=True)
    wide: bool = _output(False, "Write one column per series, point forecasts only")

    def facts(self) -> dict[str, Any]:
        """Return all that decides what is written, for the key of a forecast.

        Ages do not, and the as-of time counts by itself.
        """
        values = {k: v for k, v in asdict(self).items() if k not in ("max_age", "warn_age")}
        # as before there were such options
        if not self.wide:
            del values["wide"]
        if self.season == AUTO:
            del values["season"]
        return values

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid values; convert a horizon in steps to text."""
        check_choices(self)
        if self.wide and (self.exceed or self.quantiles != BAND):
            name = "exceed" if self.exceed else "quantiles"
            raise UsageError(
                f"--wide writes point forecasts only; it cannot be combined with --{name}"
            )
        check_range("max-drift", self.max_drift, 0.0, 1e9)
        object.__setattr__(self, "season", str(self.season))
        if self.horizon is not None:
            object.__setattr__(self, "horizon", str(self.horizon))
        for level in self.quantiles:
            if not QUANTILES[0] <= level <= QUANTILES[-1]:
                is_percent = QUANTILES[0] <= level / 100 <= QUANTILES[-1]
                raise UsageError(
                    f"--quantiles is {level}, but must be between {QUANTILES[0]} and "
                    f"{QUANTILES[-1]}",
                    hint=f"write {level / 100:g} for {level:g} %" if is_percent else None,
                )
        for age in filter(None, (self.max_age, self.warn_age)):
            parse_duration_us(age)
        _ = self.ranges, self.limits

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest forecast by series or column."""
        return parse_ranges("bounds", [text for text in self.bounds if text != NO_BOUNDS])

    @property
    def limits(self) -> dict[str, float]:
        """The limits of `exceed` by series or column."""
        return parse_limits(self.exceed)


@dataclass(frozen=True)
class AnomalyConfig:
    """Which readings are compared with forecasts, and which are listed as anomalies."""

    at_least: float = _anomalies(4.0, "Minimum anomaly score in standard deviations", metavar="X")
    stride: int | None = _anomalies(None, "Steps between forecasts (default: the horizon)")
    since: str | None = _anomalies(None, "Ignore readings before this time", metavar="TIME")
    excel_safe: bool = _output(False, _EXCEL_SAFE, rare=True)

    def __post_init__(self) -> None:
        """Raise `UsageError` for numbers out of range."""
        check_range("at-least", self.at_least, 0.0, 100.0)
        check_range("stride", self.stride, 1, MAX_HORIZON)


@dataclass(frozen=True)
class PlotConfig:
    """Which series of a forecast to plot, with how much history."""

    forecast: str = _plot("forecast.csv", "Forecast file written by predict", metavar="FILE")
    series: tuple[str, ...] = _plot(
        (), "Series to show; repeatable (default: the first ones)", metavar="NAME"
    )
    history: str = _plot(
        "auto", "Readings before the forecast: steps or a duration", metavar="N|DURATION"
    )


@dataclass(frozen=True)
class BacktestConfig:
    """Where the parts of the readings end, and which origins are forecast from.

    An end is a timestamp or a row number, and exclusive.
    """

    train_end: str | None = _evaluation(None, "End of the training part", metavar="TIME|ROW")
    validation_end: str | None = _evaluation(
        None, "End of the validation part; the test part follows", metavar="TIME|ROW"
    )
    test_end: str | None = _evaluation(
        None, "End of the test part (default: the end of the data)", metavar="TIME|ROW"
    )
    stride: int | None = _evaluation(None, "Steps between origins (default: the horizon)")
    windows: int | None = _evaluation(None, "Evaluate only the last N windows")
    refit: int | None = _evaluation(None, "Refit every N windows")
    baselines: tuple[str, ...] = _evaluation(
        BASELINES, "Methods to compare with, comma-separated", choices=BASELINES, listed=True
    )
    excel_safe: bool = _output(False, _EXCEL_SAFE, rare=True)

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid numbers; convert row numbers from Python to text."""
        object.__setattr__(self, "baselines", tuple(self.baselines))
        check_choices(self)
        for name in ("train_end", "validation_end", "test_end"):
            end = getattr(self, name)
            object.__setattr__(self, name, None if end is None else str(end))
        for name in ("stride", "windows", "refit"):
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise UsageError(f"--{name} is {value!r}, but must be a whole number")
            check_range(name, value, 1, 10**6)


def changed_fields(config: DataConfig, explicit: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields that differ from their defaults, and those that `explicit` names."""
    values = {item.name: (getattr(config, item.name), item.default) for item in fields(config)}
    return {n: value for n, (value, default) in values.items() if n in explicit or value != default}


def override(config: DataConfig, changed: DataConfig, explicit: Collection[str] = ()) -> DataConfig:
    """Return `config` with the fields of `changed` that differ from their defaults.

    Fields that `explicit` names are taken even if they equal their defaults.
    """
    return replace(config, **changed_fields(changed, explicit))


def quantile_name(quantile: float) -> str:
    """Return the column name of a quantile: 0.1 is `q10`, 0.025 is `q2.5`."""
    return f"q{round(quantile * 100, 6):g}"
