"""Options of windows, the network, its training, and the commands that use a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

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
_EXCEL_SAFE = "Put ' before names that a spreadsheet would take for a formula (CSV)."
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
_C = TypeVar("_C", "DataConfig", "WindowConfig")


@dataclass(frozen=True)
class WindowConfig:
    """Lengths of a window: steps, a duration such as 24h, or auto."""

    horizon: str = option("auto", "Steps to forecast: a number, a duration such as 24h.", "-H")
    lookback: str = option("auto", "Steps of history the network sees: the same forms.", "-L")
    season: str = option(
        "auto",
        "Season: steps, a duration, two such as 1d,1w, none, or auto (found in each series).",
    )

    def __post_init__(self) -> None:
        """Convert numbers, which Python callers may pass, to text."""
        for name in ("horizon", "lookback", "season"):
            object.__setattr__(self, name, str(getattr(self, name)))


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of the network."""

    network: str = option(
        AUTO,
        "What forecasts: a network trained on these readings, the built-in one, or both as far as "
        "validation says so (auto).",
        choices=(AUTO, TRAINED, BUILTIN_MODEL),
    )
    cell: str = option("gru", "Recurrent cell.", choices=tuple(CELLS))
    hidden: int = option(64, "Width of the recurrent state.")
    layers: int = option(2, "Recurrent layers.")
    segment: int | None = option(
        None, "Readings that one recurrent step takes in; 1 is the textbook network."
    )
    init: str = option(
        "orthogonal",
        "How the recurrence starts: chrono spreads how long its units remember over the window, "
        "default is torch's own.",
        choices=INITS,
    )
    dropout: float = option(0.0, "Share of the decoded state that is dropped while training.")

    def __post_init__(self) -> None:
        """Raise `UsageError` for an invalid shape."""
        check_choices(self)
        shape = self.cell, self.hidden, self.layers, self.segment
        if self.network == BUILTIN_MODEL and shape != _BUILTIN_SHAPE:
            raise UsageError(
                "--network builtin has a fixed architecture",
                hint="leave out the other options of the network, or train one",
            )
        if self.init == "chrono" and self.cell not in GATED:
            raise UsageError(
                f"--init chrono sets how long gates let a unit remember, and --cell {self.cell} "
                "has none",
                hint=f"pass one of  --cell {' | '.join(GATED)}",
            )

        check_range("hidden", self.hidden, 1, MAX_HIDDEN)
        check_range("layers", self.layers, 1, MAX_LAYERS)
        check_range("dropout", self.dropout, 0.0, 0.95)
        if self.segment is not None:
            check_range("segment", self.segment, 1, MAX_LOOKBACK)


@dataclass(frozen=True)
class TrainConfig:
    """How the network learns. Equal configurations and equal readings give equal weights."""

    epochs: int | None = option(
        None,
        "Epochs of 25 steps at most; training stops early when validation says so. "
        "Default: 4 to 12, by the number of readings.",
    )
    batch_size: int = option(64, "Windows in one step.")
    learning_rate: float = option(2e-3, "Step size of the optimizer, after a warm-up.")
    clip: float = option(1.0, "Largest global gradient norm; 0 for no limit.")
    truncate: int | None = option(
        None, "Let gradients reach back over this many readings only. Default: all of them."
    )
    seed: int = option(0, "Seed of everything random.")
    device: str = option("auto", "Where to compute.", choices=("auto", "cpu", "cuda"))
    threads: int | None = option(None, "Processor threads. Default: as many as there are.")
    max_time: str | None = option(None, "Stop training after this time, such as 2m.")
    steps: int | None = option(None, "Stop training after this many steps.")
    validation: float = option(0.15, "Share of the readings that decides when to stop.")
    test: float = option(0.15, "Share of the readings, the newest, that is held out.")

    def __post_init__(self) -> None:
        """Raise `UsageError` for values out of range."""
        check_choices(self)
        if self.epochs is not None:
            check_range("epochs", self.epochs, 1, 10_000)
        check_range("batch-size", self.batch_size, 1, 1_000_000)
        check_range("learning-rate", self.learning_rate, 1e-9, 10.0)
        check_range("clip", self.clip, 0.0, 1e9)
        check_range("seed", self.seed, 0, 2**63 - 1)
        check_range("validation", self.validation, 0.0, 0.9)
        check_range("test", self.test, 0.0, 0.9)
        check_range("validation + test", self.validation + self.test, 0.0, 0.9)

        if self.threads is not None:
            check_range("threads", self.threads, 1, 1_024)
        if self.truncate is not None:
            check_range("truncate", self.truncate, 1, MAX_LOOKBACK)
        if self.steps is not None:
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

    horizon: str | None = option(None, "Steps to forecast, up to the trained ones.", "-H")
    quantiles: tuple[float, ...] = option(
        BAND, "Quantiles to write beside the median.", listed=True
    )
    as_of: str | None = option(None, "Use no reading after this time. Default: the newest one.")
    fallback: tuple[str, ...] = option(
        (),
        "Methods for series that the network cannot forecast: seasonal-naive, naive, expert, "
        "builtin.",
        choices=FALLBACKS,
        listed=True,
    )
    bounds: tuple[str, ...] = option(
        (),
        "Forecast and quantiles stay inside: name=low:high, either may be left out; repeatable. "
        "none: not even inside of the limits that the readings rest on.",
    )
    exceed: tuple[str, ...] = option(
        (), "Add p_exceed, the probability of a reading above: name=limit; repeatable."
    )
    future: str | None = option(None, "File with the future values of --known columns.")
    max_age: str | None = option(
        None, "Publish nothing where the newest reading is older, such as 2h."
    )
    warn_age: str | None = option(None, "Warn where the newest reading is older.")
    require_series: bool = option(False, "Fail where a series of the model is not in the readings.")
    max_drift: float | None = option(
        None, "Publish nothing where a series is further off its trained level, in its spreads."
    )
    excel_safe: bool = option(False, _EXCEL_SAFE)
    wide: bool = option(False, "Write one column for each series, of point forecasts only.")

    def facts(self) -> dict[str, Any]:
        """Return all that decides what is written, for the key of a forecast.

        Ages do not, and the as-of time counts by itself.
        """
        values = {k: v for k, v in asdict(self).items() if k not in ("max_age", "warn_age")}
        if not self.wide:  # as before there was such an option
            del values["wide"]
        return values

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid values; convert a horizon in steps to text."""
        check_choices(self)
        if self.wide and (self.exceed or self.quantiles != BAND):
            name = "exceed" if self.exceed else "quantiles"
            raise UsageError(f"--wide has point forecasts only, without those of --{name}")
        if self.max_drift is not None:
            check_range("max-drift", self.max_drift, 0.0, 1e9)
        if self.horizon is not None:
            object.__setattr__(self, "horizon", str(self.horizon))
        for level in self.quantiles:
            check_range("quantiles", level, QUANTILES[0], QUANTILES[-1])
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
        return parse_limits("exceed", self.exceed)


@dataclass(frozen=True)
class AnomalyConfig:
    """Which readings are compared with forecasts, and which are listed as anomalies."""

    at_least: float = option(
        4.0, "List what is so surprising: standard deviations off a normal forecast."
    )
    stride: int | None = option(None, "Steps between forecasts. Default: the horizon.")
    since: str | None = option(None, "Judge no reading before this time.")
    excel_safe: bool = option(False, _EXCEL_SAFE)

    def __post_init__(self) -> None:
        """Raise `UsageError` for numbers out of range."""
        check_range("at-least", self.at_least, 0.0, 100.0)
        if self.stride is not None:
            check_range("stride", self.stride, 1, MAX_HORIZON)


@dataclass(frozen=True)
class PlotConfig:
    """Which series of a forecast to plot, with how much history."""

    forecast: str = option("forecast.csv", "What `predict` has written.")
    series: tuple[str, ...] = option((), "A series to show; repeatable. Default: the first ones.")
    history: str = option("auto", "Readings before the forecast: steps, a duration, or auto.")


@dataclass(frozen=True)
class BacktestConfig:
    """Where the parts of the readings end, and which origins are forecast from.

    An end is a time stamp or a row number, and exclusive.
    """

    train_end: str | None = option(None, "End of the train part: a time stamp or a row number.")
    validation_end: str | None = option(None, "End of the validation part; the test part follows.")
    test_end: str | None = option(None, "End of the test part. Default: the end of the readings.")
    stride: int | None = option(None, "Steps between origins. Default: the horizon.")
    windows: int | None = option(None, "Only the last windows of the test part, this many.")
    refit: int | None = option(None, "Fit again after this many windows.")
    baselines: tuple[str, ...] = option(
        BASELINES,
        "Methods beside the network; the naive ones are always there.",
        choices=BASELINES,
        listed=True,
    )
    excel_safe: bool = option(False, _EXCEL_SAFE)

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
            if value is not None:
                check_range(name, value, 1, 10**6)


def changed_fields(
    config: DataConfig | WindowConfig, explicit: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields that differ from their defaults, and those that `explicit` names."""
    values = {item.name: (getattr(config, item.name), item.default) for item in fields(config)}
    return {n: value for n, (value, default) in values.items() if n in explicit or value != default}


def override(config: _C, changed: _C, explicit: Collection[str] = ()) -> _C:
    """Return `config` with the fields of `changed` that differ from their defaults.

    Fields that `explicit` names are taken even if they equal their defaults.
    """
    return replace(config, **changed_fields(changed, explicit))


def quantile_name(quantile: float) -> str:
    """Return the column name of a quantile: 0.1 is `q10`, 0.025 is `q2.5`."""
    return f"q{round(quantile * 100, 6):g}"
