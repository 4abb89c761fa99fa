"""What the built-in network owes to its inputs and experts, and to the families of its series.

    [RNNFORECAST_DATA=...] python -m benchmarks.ablation [--steps 1500] [NAME ...]

Trains the network of the built-in weights for a few steps, on half as many series a step: as it is,
without one part of it at a time, and without one kind of made-up series at a time. What a network
lacks, its weights ignore: those of hidden inputs and experts are 0 and stay so, and a full expert
has no share. Networks without a part learn from the same batches, side by side; those without a
kind of series from batches of the same seed.

Each is scored as the built-in weights are, on made-up series of all families that no training
draws, and on the sets of benchmarks/suite.py, which it has not learnt from: mean absolute error and
quantile loss over those of the better naive method. Their seasons are found before the first
window, and bands are as the network has them. Two more trainings differ from the first by the seed
of the weights alone, and of the batches too: what is within their distance is chance.

With all names the table goes into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks import pretrain, signals, suite, synthetic
from benchmarks.pretrain import LAST_RATE, Recipe, Training, constant_rate, draw_examples
from benchmarks.signals import Flags, Rows
from benchmarks.suite_methods import LEVELS, Task, tasks_of
from rnnforecast.config.reading import DataConfig
from rnnforecast.data.arrays import Doubles
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import Seasons, find_seasons, wanted_lookback
from rnnforecast.data.windows import Past, make_past
from rnnforecast.events import ignore
from rnnforecast.model.experts import FULL, NAMES
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.spec import N_BEFORE, N_FACTS, N_SHOWN, QUANTILES
from rnnforecast.tables.match import read_for_training

HEADING = "## What the built-in network owes to its parts"
AS_IS, OTHER_WEIGHTS, OTHER_BATCHES = "as it is", "other first weights", "other batches, too"
RECIPE = Recipe(n_segments=1280, n_series=(12, 48))
"""Half of the series of the built-in training, to keep the run short."""
DECAY_SHARE = 0.25
"""Steps at the end over which the rate falls."""
_NO_SHARE = -1e4
"""Logit of an expert that has no share."""

Weights = dict[str, Tensor]


# Parts of the network


@dataclass(frozen=True)
class Part:
    """What a network is trained without; see `rnnforecast.model.inputs` for the places."""

    before: tuple[int, ...] = ()
    """Of what is known of the segment before: reading, whether it is read, two errors."""
    has_forecasts: bool = False
    """Whether it is what the experts forecast, as an input, and how sure they are."""
    facts: tuple[int, ...] = ()
    has_errors: bool = False
    """Whether it is how wrong each expert was."""
    experts: tuple[str, ...] = ()
    """Experts, with what they forecast and how wrong they were."""
    has_recurrence: bool = False


PARTS: Mapping[str, Part] = {
    "how wrong each expert was": Part(facts=(9, 10, 11, 12, 20), has_errors=True),
    "what the experts forecast, as inputs": Part(has_forecasts=True),
    "the segment before": Part(before=(0, 2, 3)),
    "level, range and remainders": Part(facts=tuple(range(9))),
    "what is missing, and for how long": Part(before=(1,), facts=(13, 14, 19)),
    "length and number of seasons": Part(facts=(15, 16, 17, 18)),
    "experts of the long season": Part(facts=(12, 18), experts=FULL[5:7]),
    "multiplicative expert": Part(experts=("multiplicative",)),
    "drift, as an expert": Part(experts=("drift",)),
    "autoregressive experts": Part(experts=NAMES[9:11]),
    "remainders, as experts": Part(experts=NAMES[11:]),
    "the recurrence": Part(has_recurrence=True),
}


def hidden_inputs(part: Part, segment: int) -> Flags:
    """Flag the inputs of a segment that a part consists of, `(input,)`."""
    expert_numbers = [NAMES.index(name) for name in part.experts]
    before = np.isin(np.arange(N_BEFORE), part.before)
    shown = part.has_forecasts | np.isin(np.arange(1, 1 + N_SHOWN), expert_numbers)
    errors = part.has_errors | np.isin(np.arange(len(NAMES)), expert_numbers)
    return np.concatenate(
        [
            before.repeat(segment),
            shown.repeat(segment),
            np.full(segment, part.has_forecasts),
            np.isin(np.arange(N_FACTS), part.facts),
            errors,
            errors,
        ]
    )


@torch.no_grad()
def leave_out(training: Training, part: Part) -> None:
    """Let a network that has not been trained do without a part, for ever, in place."""
    weights, segment = training.weights, training.recipe.segment
    is_hidden = torch.from_numpy(hidden_inputs(part, segment))
    kept = {name: torch.ones_like(weight) for name, weight in weights.items()}
    kept["embed.weight"][:, is_hidden] = 0
    kept["head_hidden.weight"][:, training.recipe.width :][:, is_hidden] = 0
    if part.has_recurrence:
        for name in kept:
            if ".recurrence." in name:  # a state of 0 stays so
                kept[name].zero_()

    for expert in (NAMES.index(name) for name in part.experts):
        first = (len(QUANTILES) + expert) * segment
        rows = slice(first, first + segment)
        kept["head.weight"][rows] = 0
        kept["head.bias"][rows] = 0
    for name, weight in weights.items():
        weight.mul_(kept[name])
        weight.register_hook(lambda gradient, mask=kept[name]: gradient * mask)
    for expert in (NAMES.index(name) for name in part.experts if name in FULL):
        first = (len(QUANTILES) + expert) * segment
        weights["head.bias"][first : first + segment] = _NO_SHARE
    training.averaged = {name: weight.detach().clone() for name, weight in weights.items()}


# Kinds of made-up series


def without(table: Sequence[tuple[float, Any]], *entries: object) -> Sequence[tuple[float, Any]]:
    """Return a table of shares without some entries."""
    return [(share, entry) for share, entry in table if entry not in entries]


def all_read(_rows: Rows, values: Doubles) -> tuple[Doubles, Flags]:
    """Put in no faults."""
    return values, np.ones(values.shape, np.bool_)


_LONG = {n: share for n, share in pretrain.CONTEXTS.items() if n > 8}
_S, _D = synthetic, synthetic.DISTORTIONS
KINDS: Mapping[str, Mapping[tuple[ModuleType, str], object]] = {
    "walks": {
        (signals, "TRENDS"): without(
            signals.TRENDS, signals.random_walk, signals.slow_walk, signals.power_law
        ),
    },
    "shifts of the level": {
        (signals, "TRENDS"): without(signals.TRENDS, signals.level_shifts),
        (_S, "FAMILIES"): without(_S.FAMILIES, _S.returns),
    },
    "weeks and years over a season": {
        (_S, "SEASONS"): [(share, Seasons(seasons.main)) for share, seasons in _S.SEASONS],
        (_S, "WEEK_SHARE"): 0.0,
        (_S, "OTHER_WEEK_SHARE"): 0.0,
        (_S, "WEEKLY_SHARE"): 0.0,
    },
    "zeros and counts": {
        (_S, "FAMILIES"): without(_S.FAMILIES, _S.rain, _S.solar, _S.shift_work),
        (_S, "DISTORTIONS"): without(_D, _S.floored, _S.switched, _S.counted, _S.metered),
    },
    "limits, steps of a converter, skewness": {
        (_S, "DISTORTIONS"): without(_D, _S.skewed, _S.capped, _S.bounded, _S.quantised),
    },
    "products of level and season": {(_S, "PRODUCT_SHARE"): 0.0},
    "steep trends and totals": {
        (_S, "STEEP_SHARE"): 0.0,
        (_S, "FAMILIES"): without(_S.FAMILIES, _S.totals),
    },
    "short histories": {
        (_S, "LONGER_SHARE"): 1.0,
        (_S, "LATE_SHARE"): 0.0,
        (pretrain, "CONTEXTS"): {n: share / sum(_LONG.values()) for n, share in _LONG.items()},
    },
    "spikes, stuck and missing readings": {(_S, "with_faults"): all_read},
    "wrong seasons": {(_S, "TOLD_SHARES"): (0.0, 0.0, 1.0)},
}
"""What of the generator is another without a kind."""


# Training


def train_together(trainings: Sequence[Training], recipe: Recipe, n_steps: int) -> None:
    """Train networks on the same batches, those of the recipe, in place."""
    n_decay = int(DECAY_SHARE * n_steps)
    for step in range(n_steps):
        decayed = max(0, step - (n_steps - n_decay)) / max(n_decay, 1)
        rate = constant_rate(recipe, step) * (1 - (1 - LAST_RATE) * decayed)
        examples = draw_examples(recipe, step)
        for training in trainings:
            training.update(examples, rate)


def train_alone(recipe: Recipe, n_steps: int) -> Weights:
    """Train the network as it is."""
    training = Training(recipe)
    train_together([training], recipe, n_steps)
    return training.averaged


def train_parts(names: Sequence[str], recipe: Recipe, n_steps: int) -> dict[str, Weights]:
    """Train the network as it is, from other first weights, and without each of these parts."""
    trainings = {AS_IS: Training(recipe), OTHER_WEIGHTS: Training(reseeded(recipe))}
    for name in names:
        trainings[name] = Training(recipe)
        leave_out(trainings[name], PARTS[name])
    train_together(list(trainings.values()), recipe, n_steps)
    return {name: training.averaged for name, training in trainings.items()}


def train_without_kind(name: str, recipe: Recipe, n_steps: int) -> Weights:
    """Train the network on series of all kinds but one."""
    with ExitStack() as changes:
        for (module, attribute), value in KINDS[name].items():
            changes.enter_context(mock.patch.object(module, attribute, value))
        return train_alone(recipe, n_steps)


def reseeded(recipe: Recipe) -> Recipe:
    """Return a recipe with another seed, of the weights and the batches."""
    return replace(recipe, seed=recipe.seed + 1)


# Scores


def score_made_up(networks: Mapping[str, Weights], recipe: Recipe) -> dict[str, float]:
    """Return the loss of each network on the made-up series that no training draws."""
    scored = pretrain.draw_scored(replace(recipe, n_series=Recipe.n_series))
    scores = {}
    for name, weights in networks.items():
        training = Training(recipe)
        training.averaged = weights
        scores[name] = training.scores(scored)["score"]
    return scores


def score_sets(networks: Mapping[str, Weights], tasks: Sequence[Task]) -> pd.DataFrame:
    """Return `mae` and `quantile_loss` of each network over the sets, by name.

    Ratios to the better naive method, averaged geometrically over the series of a set, then sets.
    """
    columns = ["mae", "quantile_loss"]
    scores = pd.concat([score_set(networks, task) for task in tasks])
    scores[columns] = np.log(scores[columns])
    by_set = scores.groupby(["method", "set"])[columns].mean()
    return np.exp(by_set.groupby("method").mean())


def score_set(networks: Mapping[str, Weights], task: Task) -> pd.DataFrame:
    """Forecast one set with each network; return what `suite.score` does."""
    readings = task.read()
    cutoffs = task.cutoffs(len(readings))

    def first_cutoff(panel: Panel) -> int:
        return panel.first_us + cutoffs[0] * panel.step_us

    options = DataConfig(closed="none")
    panel, _ = read_for_training(task.path, options, ignore, find_train_end=first_cutoff)
    late_by = (panel.start - panel.first_us) // panel.step_us  # rows before a series begins
    past = make_past(panel, np.maximum(cutoffs[0] - late_by, 0))
    seasons = find_seasons(past)
    builtin = RNNForecaster.untrained(
        past, lookback=wanted_lookback(seasons), horizon=task.horizon, seasons=seasons
    )
    series = np.arange(panel.n_series).repeat(len(cutoffs))
    origins = Past(panel, series, np.maximum(np.tile(cutoffs, panel.n_series) - late_by[series], 0))

    shape = readings.shape[1], len(cutoffs), task.horizon, len(LEVELS)
    at = readings.columns.get_indexer(list(panel.names))
    forecasts = {}
    for name, weights in networks.items():
        tensors = {key: weight.detach().numpy() for key, weight in weights.items()}
        member = replace(builtin.network.members[0], tensors=tensors)
        forecaster = replace(builtin, network=replace(builtin.network, members=(member,)))
        values = forecaster.predict(origins, task.horizon, LEVELS.tolist()).values
        deciles = np.full(shape, np.nan)
        deciles[at] = values.reshape(panel.n_series, *shape[1:])
        forecasts[name] = deciles[..., len(LEVELS) // 2], deciles
    return suite.score(task, readings, forecasts)


# The table


@dataclass(frozen=True)
class Scores:
    """What each network scored."""

    made_up: dict[str, float]
    sets: pd.DataFrame | None
    """What `score_sets` returns; None without readings."""

    def cells(self, name: str) -> list[str]:
        """Return the cells of a row of the table: each score, and by how much it is worse."""

        def cell(score: float, as_is: float) -> str:
            return f"{score:.3f}" + (f" ({_percent(score / as_is - 1)})" if name != AS_IS else "")

        cells = [cell(self.made_up[name], self.made_up[AS_IS])]
        if self.sets is not None:
            pairs = zip(self.sets.loc[name], self.sets.loc[AS_IS], strict=True)
            cells += [cell(*pair) for pair in pairs]
        return cells

    def worse_by(self, name: str) -> float:
        """Return by how much of its quantile loss a network is worse, on sets where there are."""
        scores = pd.Series(self.made_up) if self.sets is None else self.sets["quantile_loss"]
        return float(scores[name] / scores[AS_IS] - 1)


def section(scores: Scores, parts: Sequence[str], kinds: Sequence[str], n_steps: int) -> str:
    """Return the table as Markdown, and what it teaches in a sentence."""
    columns = ["network", "steps", "made-up series", "MAE, sets", "quantile loss, sets"]
    columns = columns[: 2 + len(scores.cells(AS_IS))]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    titles = {name: name for name in (AS_IS, OTHER_WEIGHTS, OTHER_BATCHES)}
    titles |= {name: f"without {name}" for name in parts}
    titles |= {name: f"without series: {name}" for name in kinds}
    for name, title in titles.items():
        lines.append(f"| {' | '.join([title, f'{n_steps:,}', *scores.cells(name)])} |")

    chance = max(abs(scores.worse_by(name)) for name in (OTHER_WEIGHTS, OTHER_BATCHES))
    losses = sorted(((scores.worse_by(name), name) for name in (*parts, *kinds)), reverse=True)
    lost = [f"{titles[name]} ({_percent(loss)})" for loss, name in losses if loss > chance]
    won = [f"{titles[name]} ({_percent(loss)})" for loss, name in losses[::-1] if loss < -chance]
    return "\n\n".join(
        [
            HEADING,
            "Made by `python -m benchmarks.ablation`; the protocol stands at its top. "
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, torch {torch.__version__}, one "
            "thread, steps of half the series: far fewer than the built-in weights have.",
            "\n".join(lines),
            f"Seeds alone move the quantile loss by up to {100 * chance:.1f} %, as far as three "
            f"trainings tell. It is higher by more {'; '.join(lost) or 'in no row'}. It is lower "
            f"by more {'; '.join(won) or 'in no row'}.",
        ]
    )


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def main() -> None:
    """Train, score, print, and write the section where all parts and kinds were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*PARTS, *KINDS)))
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in {**PARTS, **KINDS}]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}")
    parts, kinds = (
        [name for name in names if name in options.names or not options.names]
        for names in (PARTS, KINDS)
    )

    torch.set_num_threads(1)
    networks = train_parts(parts, RECIPE, options.steps)
    print(f"trained without each of {len(parts)} parts", flush=True)
    networks[OTHER_BATCHES] = train_alone(reseeded(RECIPE), options.steps)
    for name in kinds:
        networks[name] = train_without_kind(name, RECIPE, options.steps)
        print(f"trained without series: {name}", flush=True)

    sets = None
    if "RNNFORECAST_DATA" in os.environ:
        tasks = tasks_of(Path(os.environ["RNNFORECAST_DATA"]).parent / "suite")
        sets = score_sets(networks, tasks)
    text = section(Scores(score_made_up(networks, RECIPE), sets), parts, kinds, options.steps)
    print(text)
    if not options.names:
        page = Path(__file__).parent / "RESULTS.md"
        page.write_text(suite.with_section(page.read_text(), text + "\n"))


if __name__ == "__main__":
    main()
