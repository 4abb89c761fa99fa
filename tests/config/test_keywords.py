"""Options as keyword arguments: names, how people write them, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from rnnforecast.config import keywords
from rnnforecast.config.commands import (
    BatchConfig,
    RanksConfig,
    RunConfig,
    ScoreConfig,
    check_option_names,
    names_of_options,
    set_options,
)
from rnnforecast.config.fields import option_fields
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
from rnnforecast.errors import UsageError

NETWORK = (WindowConfig, NetworkConfig, TrainConfig)


@pytest.mark.parametrize(
    ("typed", "configs", "apart"),
    [
        (keywords.ReadingOptions, (DataConfig,), set()),
        (keywords.TrainOptions, (DataConfig, *NETWORK, RanksConfig), set()),
        (keywords.BacktestOptions, (DataConfig, *NETWORK, BacktestConfig), set()),
        # `future` is a parameter, for it may be a table
        (keywords.PredictOptions, (DataConfig, PredictConfig), {"future"}),
        (keywords.BatchOptions, (DataConfig, PredictConfig, BatchConfig), set()),
        (keywords.AnomalyOptions, (DataConfig, AnomalyConfig), set()),
        (keywords.PlotOptions, (PlotConfig,), set()),
        (keywords.RunOptions, (RunConfig,), set()),
        (keywords.ScoreOptions, (DataConfig, ScoreConfig), set()),
        (keywords.ScoringOptions, (ScoreConfig,), set()),
    ],
)
def test_a_type_checker_knows_each_option_and_no_other(
    typed: Any, configs: tuple[type, ...], apart: set[str]
) -> None:
    names = {item.name for config in configs for item in option_fields(config)}

    assert typed.__total__ is False
    assert set(get_type_hints(typed)) == names - apart


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        (DataConfig(), {"target": "flow"}, DataConfig(target=("flow",))),
        (DataConfig(), {"target": "a,b"}, DataConfig(target=("a,b",))),  # a name with a comma
        (DataConfig(), {"known": ["a", "b"]}, DataConfig(known=("a", "b"))),
        (DataConfig(), {"series": ["site", "sensor"]}, DataConfig(series="site,sensor")),
        (DataConfig(), {"calendar": "hour, month"}, DataConfig(calendar=("hour", "month"))),
        (DataConfig(), {"agg": {"w": "angle"}}, DataConfig(agg=("w=angle",))),
        (
            DataConfig(),
            {"valid_range": {"t": (-40, None), "p": (None, 0.5)}},
            DataConfig(valid_range=("t=-40:", "p=:0.5")),
        ),
        (TrainConfig(), {"clip": 2}, TrainConfig(clip=2.0)),
        (DataConfig(), {"exclude": Path("bad.csv")}, DataConfig(exclude="bad.csv")),
        (DataConfig(), {"tz": None, "skip_rows": None}, DataConfig()),
        (WindowConfig(), {"horizon": np.int64(24)}, WindowConfig(horizon="24")),
        (WindowConfig(), {"horizon": timedelta(hours=6)}, WindowConfig(horizon="21600000000us")),
        (WindowConfig(), {"season": ("1d", "1w")}, WindowConfig(season="1d,1w")),
        (PredictConfig(), {"quantiles": 0.9}, PredictConfig(quantiles=(0.9,))),
        (PredictConfig(), {"quantiles": np.array([0.1])}, PredictConfig(quantiles=(0.1,))),
        (PredictConfig(), {"exceed": {"t": 90}}, PredictConfig(exceed=("t=90",))),
        (
            PredictConfig(),
            {"fallback": "naive,expert"},
            PredictConfig(fallback=("naive", "expert")),
        ),
        (
            PredictConfig(),
            {"as_of": datetime(2024, 1, 2, 3)},
            PredictConfig(as_of="2024-01-02T03:00:00"),
        ),
        (BacktestConfig(), {"train_end": 500}, BacktestConfig(train_end="500")),
    ],
)
def test_options_may_be_written_as_people_write_them_in_python(
    config: object, options: dict[str, object], expected: object
) -> None:
    assert set_options(config, options) == expected


def test_an_option_comes_before_the_field_of_a_config_and_leaves_the_others() -> None:
    config = Config(window=WindowConfig(horizon=6, lookback=48), training=TrainConfig(seed=3))

    changed = set_options(config, {"horizon": 12, "hidden": 8})

    assert changed.window == WindowConfig(horizon="12", lookback="48")
    assert changed.network == NetworkConfig(hidden=8)
    assert changed.training == TrainConfig(seed=3)
    assert config.window.horizon == "6"


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (NetworkConfig(), {"hidden": "8"}),
        (NetworkConfig(), {"hidden": 8.5}),
        (NetworkConfig(), {"dropout": "0.1"}),
        (NetworkConfig(), {"hidden": True}),
        (WindowConfig(), {"horizon": True}),
        (WindowConfig(), {"horizon": {6}}),
        (DataConfig(), {"no_header": 1}),
        (DataConfig(), {"target": [None]}),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_option(
    config: object, options: dict[str, object]
) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(options))} is "):
        set_options(config, options)


@pytest.mark.parametrize(
    ("name", "nearest"), [("horizn", "horizon"), ("targets", "target"), ("modl", "model")]
)
def test_an_unknown_option_is_an_error_that_names_the_nearest(name: str, nearest: str) -> None:
    def train(*, model: str = "model", **options: object) -> None:
        assert model == "model"
        check_option_names(train, options, Config())

    with pytest.raises(UsageError, match=f"train.*unexpected keyword argument '{name}'") as caught:
        train(**{name: 1})
    assert caught.value.hint == f"the nearest known one is {nearest!r}"
    train(horizon=1, hidden=2)


def test_what_is_none_is_not_set() -> None:
    assert names_of_options(["a"], {"b": 1, "c": None, "d": False}) == {"a", "b", "d"}
