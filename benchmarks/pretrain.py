"""Train the network that weighs forecasts on made-up series: the built-in weights.

    python -m benchmarks.pretrain --minutes 600 --threads 2
    python -m benchmarks.pretrain --minutes 0 --decay 2000 --out builtin.safetensors

The learning rate is constant, for as long as there is time, and a run goes on where the last one
ended. Weights are ready for use after a decay of the rate, which may be taken from any state and
leaves it as it is. The state, and the learning curve as CSV, lie in a folder outside of the tree.
Equal seeds and steps give equal bytes on one machine, however often a run was interrupted, and
with any number of threads.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from benchmarks import synthetic
from benchmarks.synthetic import Batch, Size
from rnnforecast.data.arrays import Doubles, Floats, sums_before
from rnnforecast.data.season import shift
from rnnforecast.model.experts import DRIFT_ROWS
from rnnforecast.model.inputs import Inputs, Segments, SeriesInputs
from rnnforecast.model.member import Member
from rnnforecast.spec import QUANTILES, MemberSpec, NetworkSpec
from rnnforecast.storage.publish import digest, publish, publishing_file

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rnnforecast-pretrain"
TRAINING, DECAY = "training", "decay"
"""Names of the states, and of their learning curves."""
SAVE_S = 180.0
SHOWN = ("step", "seconds", "rate", "context_loss", "ahead_loss", "score")
"""Columns of the learning curve that are printed."""
SCORED = ((48, 8), (24, 4), (6, 2), (48, 24), (32, 3), (64, 6), (32, 2), (16, 1))
"""Segments of context and ahead of the batches by which the network is scored."""
N_SCORED_SERIES, SCORED_SEED = 64, 999
CONTEXTS = {4: 0.08, 8: 0.12, 16: 0.15, 24: 0.2, 32: 0.2, 48: 0.15, 64: 0.1}
"""Shares of the lengths of context, in segments."""

# as the usual recipe of warm-up, constant rate and decay has it
WARM_UP_STEPS, LAST_RATE = 150, 0.03
BETAS, WEIGHT_DECAY, MAX_NORM = (0.9, 0.98), 0.02, 1.0
MAX_AVERAGED = 0.997
"""Share of the past in the running mean of the weights, which is what is scored and written."""

MAX_TARGET = 25.0
"""Readings further from the level, in units of the spread, are taken to lie there."""
MIN_SEEN = 4
"""Readings before a segment without which nothing is asked of it; changes that the loss needs."""
MIN_LAG, MIN_SCALE_SHARE, MAX_WEIGHT = 12, 0.03, 20.0
"""The loss is in units of the mean change over whole seasons of at least 12 rows, or of a share of
the mean deviation where that is more; a segment's spread counts at most 20 of them."""


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on, besides the numbers of steps."""

    seed: int = 1
    cell: str = "gru"
    width: int = 64
    layers: int = 2
    segment: int = 16
    rate: float = 3e-3
    n_segments: int = 2560
    """Segments of a batch, of context and ahead, over all series."""
    n_series: tuple[int, int] = (24, 96)
    """Fewest and most series of a batch."""
    max_context: int = max(CONTEXTS)
    max_ahead: int = 40
    """Segments of context, and ahead, at most."""
    drift_rows: int = 12
    """Rows of the slope without a season. Forecasts use twice as many: a steadier one, by which the
    loss of these series falls by 8 % without another training."""
    report_steps: int = 200
    """Steps between two rows of the learning curve, which end a run, too."""

    def network(self) -> Member:
        """Return the network before its first step."""
        torch.manual_seed(self.seed)
        member = MemberSpec(self.cell, self.width, self.layers, self.segment)
        n_rows, n_ahead = (n * self.segment for n in (self.max_context, self.max_ahead))
        return Member(NetworkSpec(n_rows, n_ahead, season=1, n_series=0, members=(member,)), member)


# Examples


@dataclass(frozen=True)
class Examples:
    """What the network is shown, and what it should have forecast."""

    inputs: Inputs
    """Of all segments, the context and then those ahead."""
    target: Floats
    """`(series, segment, row)`: readings less the level, in units of the spread."""
    weight: Floats
    """`(series, segment, row)`: the spread in units of the loss; 0 where nothing is asked."""
    n_context: int
    """Segments of context."""


def draw_examples(recipe: Recipe, step: int) -> Examples:
    """Draw the batch of a step, by nothing but the seed and the number of the step."""
    generator = np.random.default_rng([recipe.seed, step, 0])
    drawn = generator.choice(list(CONTEXTS), p=list(CONTEXTS.values()))
    n_context = min(int(drawn), recipe.max_context)
    n_ahead = int(np.exp(generator.uniform(0, np.log(recipe.max_ahead))))
    fewest, most = recipe.n_series
    n_series = min(max(recipe.n_segments // (n_context + n_ahead), fewest), most)
    size = Size(n_series, n_context, n_ahead)
    batch = synthetic.draw(generator, size, recipe.segment)
    return as_examples(batch, size, recipe.segment, drift_rows=recipe.drift_rows)


def draw_scored(recipe: Recipe) -> list[Examples]:
    """Draw the batches by which the network is scored, which do not depend on the seed."""
    batches = []
    for number, (n_context, n_ahead) in enumerate(SCORED):
        size = Size(
            min(N_SCORED_SERIES, recipe.n_series[1]),
            min(n_context, recipe.max_context),
            min(n_ahead, recipe.max_ahead),
        )
        generator = np.random.default_rng([SCORED_SEED, number, 1])
        drawn = synthetic.draw(generator, size, recipe.segment)
        batches.append(as_examples(drawn, size, recipe.segment))
    return batches


def as_examples(
    batch: Batch, size: Size, segment: int, *, drift_rows: int = DRIFT_ROWS
) -> Examples:
    """Turn a batch into inputs of the network and what it should forecast."""
    history, n_ahead = batch.history, size.n_ahead
    n_series, n_segments = len(history), batch.n_history // segment
    n_context = min(size.n_context, n_segments)
    told = [batch.told] * n_series
    series = SeriesInputs(history, told, segment, n_ahead=n_ahead, drift_rows=drift_rows)
    ahead = series.ahead(np.arange(n_series), np.full(n_series, n_segments), n_ahead)

    def joined(past: Any, future: Any) -> Any:
        return np.concatenate([past[:, n_segments - n_context :], future], axis=1)

    inputs = series.history.apply(joined, ahead)
    level, spread = inputs.level[..., None], inputs.spread[..., None]
    first = (n_segments - n_context) * segment
    shape = n_series, n_context + n_ahead, segment
    actual = (batch.values[:, first:] - series.center[:, None]).reshape(shape)
    target = np.clip((actual - level) / spread, -MAX_TARGET, MAX_TARGET)

    n_seen = sums_before(np.isfinite(history))[:, first::segment]
    n_seen = np.concatenate([n_seen, np.repeat(n_seen[:, -1:], n_ahead - 1, axis=1)], axis=1)
    is_asked = batch.is_read[:, first:].reshape(shape) & (n_seen >= MIN_SEEN)[..., None]
    scale = loss_scale(history, batch.told.main)[:, None, None]
    weight = np.where(is_asked, np.minimum(spread / scale, MAX_WEIGHT), 0.0)
    return Examples(inputs, target.astype(np.float32), weight.astype(np.float32), n_context)


def loss_scale(history: Doubles, season: int) -> Doubles:
    """Return the unit of the loss of each series, `(series,)`, by what is shown of it."""

    def mean(values: Doubles) -> Doubles:
        n = np.isfinite(values).sum(1)
        return np.nansum(values, axis=1) / np.maximum(n, 1)

    deviation = mean(np.abs(history - mean(history)[:, None]))
    lag = season * -(-MIN_LAG // season)
    change = np.abs(history - shift(history, lag))
    is_enough = np.isfinite(change).sum(1) >= MIN_SEEN
    unit = np.where(is_enough, mean(change), deviation)
    return np.maximum(np.maximum(unit, MIN_SCALE_SHARE * deviation), 1e-9)


def batches(recipe: Recipe, first: int, n_workers: int) -> Generator[Examples]:
    """Draw the batches of all steps from the first on, ahead of time where there are workers."""
    if not n_workers:
        for step in count(first):
            yield draw_examples(recipe, step)

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n_workers, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque(pool.submit(draw_examples, recipe, first + i) for i in range(3 * n_workers))
        for step in count(first + len(waiting)):
            yield waiting.popleft().result()
            waiting.append(pool.submit(draw_examples, recipe, step))
    finally:
        pool.shutdown(cancel_futures=True)


# Training


def losses(network: Member, examples: Examples) -> tuple[Tensor, Tensor]:
    """Return the mean quantile loss of the context, and of the segments ahead."""
    inputs = examples.inputs
    arrays = (inputs.values, inputs.experts, inputs.gain, examples.target, examples.weight)
    values, experts, gain, target, weight = map(torch.from_numpy, arrays)
    segments = Segments(values, experts, gain)
    encoded, _ = network.encode(segments)
    error = target[:, :, None] - network.decode(encoded, segments)
    levels = torch.tensor(QUANTILES)[:, None]
    loss = 2 * weight * torch.maximum(levels * error, (levels - 1) * error).mean(2)
    n_asked = weight > 0

    def mean(part: slice) -> Tensor:
        return loss[:, part].sum() / n_asked[:, part].sum().clamp(min=1)

    return mean(slice(examples.n_context)), mean(slice(examples.n_context, None))


class Training:
    """A network in training: its weights and their running mean, the optimizer, the curve."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.network = recipe, recipe.network()
        self.averaged = {name: w.detach().clone() for name, w in self.weights.items()}
        matrices = [w for w in self.weights.values() if w.ndim > 1]
        vectors = [w for w in self.weights.values() if w.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": WEIGHT_DECAY},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=BETAS,
        )
        self.step, self.seconds = 0, 0.0
        self.decay: tuple[int, int] | None = None
        """Step at which the decay began, and its steps; None before."""
        self.curve: list[dict[str, float]] = []

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights by their names."""
        return dict(self.network.named_parameters())

    def update(self, examples: Examples, rate: float) -> tuple[float, float, float]:
        """Take a step; return both losses and the norm of the gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        context, ahead = losses(self.network, examples)
        self.optimizer.zero_grad()
        (0.5 * context + 0.5 * ahead).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM))
        if math.isfinite(norm):
            self.optimizer.step()

        self.step += 1
        share = min(MAX_AVERAGED, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            weights = list(self.weights.values())
            torch._foreach_lerp_(list(self.averaged.values()), weights, 1 - share)
        return context.item(), ahead.item(), norm

    @torch.no_grad()
    def scores(self, scored: list[Examples]) -> dict[str, float]:
        """Return the loss ahead of the mean weights on each batch, and the geometric mean."""
        network = self.recipe.network()
        network.load_state_dict(self.averaged)
        names = (f"{n_context} to {n_ahead}" for n_context, n_ahead in SCORED)
        by_name = {
            name: losses(network, examples)[1].item()
            for name, examples in zip(names, scored, strict=True)
        }
        return {"score": float(np.exp(np.mean(np.log([*by_name.values()])))), **by_name}

    def save(self, path: Path) -> None:
        """Replace the state's file at once."""
        tensors = {f"averaged.{name}": w for name, w in self.averaged.items()}
        n_updates = 0
        for name, weight in self.weights.items():
            state = self.optimizer.state.get(weight)
            tensors[f"weights.{name}"] = weight.detach()
            if state:
                n_updates = int(state["step"])
                tensors[f"means.{name}"] = state["exp_avg"]
                tensors[f"squares.{name}"] = state["exp_avg_sq"]
        facts = {
            "recipe": asdict(self.recipe),
            "generator": synthetic.VERSION,
            "step": self.step,
            "n_updates": n_updates,
            "seconds": self.seconds,
            "decay": self.decay,
            "curve": self.curve,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with publishing_file(path) as file:
            file.write(save(tensors, metadata={"state": json.dumps(facts)}))
        publish(path.with_suffix(".csv"), as_csv(self.curve))

    @classmethod
    def load(cls, path: Path, recipe: Recipe) -> Training:
        """Resume a state; a new one where there is no file."""
        training = cls(recipe)
        if not path.exists():
            return training
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["state"])
            expected = json.loads(json.dumps(asdict(recipe)))
            if (facts["recipe"], facts["generator"]) != (expected, synthetic.VERSION):
                raise SystemExit(f"{path} belongs to another training: pass another --state")
            with torch.no_grad():
                for name, weight in training.weights.items():
                    weight.copy_(file.get_tensor(f"weights.{name}"))
                    training.averaged[name] = file.get_tensor(f"averaged.{name}")
                    if facts["n_updates"]:
                        training.optimizer.state[weight] = {
                            "step": torch.tensor(float(facts["n_updates"])),
                            "exp_avg": file.get_tensor(f"means.{name}"),
                            "exp_avg_sq": file.get_tensor(f"squares.{name}"),
                        }
        training.step, training.seconds = facts["step"], facts["seconds"]
        training.decay = facts["decay"] and tuple(facts["decay"])
        training.curve = facts["curve"]
        return training


def run(
    training: Training,
    path: Path,
    rate: Callable[[int], float],
    *,
    until: float,
    deadline: float = math.inf,
    n_workers: int = 0,
) -> None:
    """Train up to a step, or a row of the curve after the deadline; save every few minutes."""
    scored = draw_scored(training.recipe)
    taken: list[tuple[float, float, float]] = []
    begin = saved = time.monotonic()
    seconds = training.seconds
    with closing(batches(training.recipe, training.step, n_workers)) as drawn:
        while training.step < until and time.monotonic() < deadline:
            taken.append(training.update(next(drawn), rate(training.step)))
            if training.step % training.recipe.report_steps and training.step < until:
                continue

            training.seconds = seconds + time.monotonic() - begin
            context, ahead, norm = np.mean(taken, axis=0).tolist()
            row = {
                "step": training.step,
                "seconds": round(training.seconds, 1),
                "rate": rate(training.step - 1),
                "context_loss": context,
                "ahead_loss": ahead,
                "gradient_norm": norm,
                **training.scores(scored),
            }
            training.curve.append(row)
            taken.clear()
            print(", ".join(f"{name} {row[name]:.5g}" for name in SHOWN), flush=True)
            if time.monotonic() - saved > SAVE_S:
                training.save(path)
                saved = time.monotonic()
    training.save(path)


def constant_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step, after a warm-up."""
    return recipe.rate * min(1.0, (step + 1) / WARM_UP_STEPS)


def train(
    folder: Path, recipe: Recipe, *, until: float, deadline: float = math.inf, n_workers: int = 0
) -> Training:
    """Go on with the training whose state lies in a folder, at the constant rate."""
    path = folder / f"{TRAINING}.safetensors"
    training = Training.load(path, recipe)
    rate = partial(constant_rate, recipe)
    run(training, path, rate, until=until, deadline=deadline, n_workers=n_workers)
    return training


def decay(folder: Path, recipe: Recipe, n_steps: int, *, n_workers: int = 0) -> Training:
    """Lower the rate in a straight line from the state of the training, which stays as it is.

    An interrupted decay from the same state, over as many steps, goes on.
    """
    constant = Training.load(folder / f"{TRAINING}.safetensors", recipe)
    constant.decay = first, _ = constant.step, n_steps
    path = folder / f"{DECAY}.safetensors"
    interrupted = Training.load(path, recipe)
    training = interrupted if interrupted.decay == constant.decay else constant

    def rate(step: int) -> float:
        return constant_rate(recipe, step) * (1 - (1 - LAST_RATE) * (step - first) / n_steps)

    run(training, path, rate, until=first + n_steps, n_workers=n_workers)
    return training


def write(training: Training, out: Path) -> None:
    """Write the mean weights, and beside them a manifest of what they were made with."""
    content = save({name: w.contiguous() for name, w in training.averaged.items()})
    scores = training.scores(draw_scored(training.recipe))
    decay_steps = training.decay[1] if training.decay else 0
    manifest = {
        "format": "rnnforecast-builtin",
        "format_version": 1,
        "generator": synthetic.VERSION,
        "recipe": asdict(training.recipe),
        "steps": training.step - decay_steps,
        "decay_steps": decay_steps,
        "quantiles": QUANTILES,
        "scores": {name: round(score, 4) for name, score in scores.items()},
        "sha256": digest(content),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    publish(out.with_suffix(".json"), (json.dumps(manifest, indent=2) + "\n").encode())
    publish(out, content)


def as_csv(rows: list[dict[str, float]]) -> bytes:
    """Return rows of a learning curve as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def main() -> int:
    """Train, and write the weights after a decay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long to train at the constant rate")
    parser.add_argument("--steps", type=int, help="how many steps in all, of all runs")
    parser.add_argument("--decay", type=int, metavar="STEPS", help="then lower the rate to 3 %%")
    parser.add_argument("--out", type=Path, help="where the weights go after the decay")
    parser.add_argument("--threads", type=int, default=1, help="all but one draw batches ahead")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--state", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    if (options.decay is None) != (options.out is None):
        parser.error("--decay and --out go together")
    if options.minutes is None and options.steps is None:
        parser.error("pass --minutes or --steps: a training has no end of its own")

    torch.set_num_threads(1)
    recipe, n_workers = Recipe(seed=options.seed), options.threads - 1
    until = math.inf if options.steps is None else options.steps
    minutes = math.inf if options.minutes is None else options.minutes
    deadline = time.monotonic() + 60 * minutes
    training = train(options.state, recipe, until=until, deadline=deadline, n_workers=n_workers)
    if options.steps and training.step < options.steps:
        print(f"{options.steps - training.step} steps are left: run it again")
    elif options.decay:
        write(decay(options.state, recipe, options.decay, n_workers=n_workers), options.out)
        print(f"the weights are in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
