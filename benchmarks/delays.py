"""How far back each kind of network remembers, where it is known how far it should.

    python benchmarks/delays.py RESULTS.json         # trains some fifty networks, an hour
    python benchmarks/delays.py RESULTS.json --draw  # docs/pictures/, and the table on the screen

Each reading is 0.9 times the one 5, 30, 50 or 200 steps before it, and noise: nothing else helps. A
logger fails now and then, so that networks learn what to make of a window whose past is missing.
Memory is measured on other readings of the kind, without failures. What is in RESULTS.json already
is not trained again, and a kind that has lost a lag is tried with no longer one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from delayed import delayed, with_outages

import rnnforecast
from rnnforecast.config.training import Config, NetworkConfig, TrainConfig, WindowConfig
from rnnforecast.report.plots import Palette, drawing, new_figure
from rnnforecast.workflow.inspect import memory

LAGS = (5, 30, 50, 200)
N_READINGS, N_NEWER = 120_000, 8_000
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
TEXTBOOK = "Elman, as in textbooks"
KINDS: Mapping[str, tuple[bool, dict[str, Any]]] = {
    TEXTBOOK: (False, {"cell": "rnn", "init": "default"}),
    "Elman": (False, {"cell": "rnn"}),
    "GRU": (False, {"cell": "gru"}),
    "LSTM": (False, {"cell": "lstm"}),
    "minGRU, two layers": (False, {"cell": "mingru", "layers": 2}),
    "Elman, in segments": (True, {"cell": "rnn"}),
    "GRU, in segments": (True, {"cell": "gru"}),
    "LSTM, in segments": (True, {"cell": "lstm"}),
    "minGRU, two layers, in segments": (True, {"cell": "mingru", "layers": 2}),
}
"""Whether a recurrent step takes in half of the lag, and the options of the network."""
SHOWN = {
    TEXTBOOK: "-",
    "GRU": "--",
    "GRU, in segments": "-.",
}
COLOURS = (Palette.other, Palette.third, Palette.forecast)
TRAINING = TrainConfig(epochs=40)
UNTRAINED = TrainConfig(steps=1, learning_rate=1e-9)
BAD = TrainConfig(epochs=12, learning_rate=1.0, clip=0.0)
GOOD = TrainConfig(epochs=12)

Results = dict[str, dict[str, Any]]


def hourly(readings: np.ndarray) -> pd.DataFrame:
    """Return readings as a table."""
    stamps = pd.date_range("2010-01-01", periods=len(readings), freq="h")
    return pd.DataFrame({"time": stamps, "reading": readings})


def measure(kind: str, lag: int, training: TrainConfig) -> dict[str, Any]:
    """Train a network of a kind, and say what is known of it."""
    in_segments, options = KINDS[kind]
    lookback = max(8, 6 * lag // 5)
    config = Config(
        window=WindowConfig(horizon="1", lookback=str(lookback), season="none"),
        network=NetworkConfig(
            segment=max(1, lag // 2) if in_segments else 1, hidden=64, dropout=0.0, **options
        ),
        training=training,
    )
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = rnnforecast.train(
            hourly(with_outages(delayed(N_READINGS, lag, seed=0), lookback)),
            model=folder,
            config=config,
            report=False,
        )
        seconds = time.monotonic() - begin
        found = memory(hourly(delayed(N_NEWER, lag, seed=9)), model=folder)
    peak = next((p for p in found.memory.peaks if p.lag == lag), None)
    assert peak is not None
    assert peak.unaided is not None
    return {
        **found.memory.to_json(found.diagnosis),
        "seconds": round(seconds),
        "error": peak.error,
        "unaided": peak.unaided,
        "epochs": list(csv.DictReader(io.StringIO(model.artifact.history))),
    }


def complete(path: Path) -> Results:
    """Measure what is not measured yet, and keep it after each network."""
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    wanted = [(kind, lag, "trained", TRAINING) for lag in LAGS for kind in KINDS]
    wanted += [(kind, 50, "untrained", UNTRAINED) for kind in KINDS]
    wanted += [(TEXTBOOK, 5, name, how) for name, how in (("bad", BAD), ("good", GOOD))]
    for kind, lag, name, training in wanted:
        key = f"{kind}/{lag}/{name}"
        if key not in results and not (name == "trained" and has_lost(results, kind, lag)):
            results[key] = measure(kind, lag, training)
            path.write_text(json.dumps(results))
            own = results[key]
            print(key, own["effective_memory"], own["verdict"], own["seconds"], flush=True)
    return results


def has_lost(results: Results, kind: str, lag: int) -> bool:
    """Tell whether a kind has not learnt a lag that is shorter."""
    before = (results.get(f"{kind}/{shorter}/trained") for shorter in LAGS if shorter < lag)
    return any(own is not None and own["verdict"] != "OK" for own in before)


def table(results: Results) -> str:
    """Return the effective memory of each kind for each lag, as Markdown."""
    rows = [
        f"| network | {' | '.join(f'{lag} steps' for lag in LAGS)} |",
        "|---" * (1 + len(LAGS)) + "|",
    ]
    for kind in KINDS:
        words = []
        for lag in LAGS:
            own = results.get(f"{kind}/{lag}/trained")
            if own is None:
                words.append("")
                continue
            share = (own["unaided"] - own["error"]) / (own["unaided"] - 1)
            remembered = f"**{own['effective_memory']}**" if own["verdict"] == "OK" else "lost"
            words.append(f"{remembered} ({100 * max(share, 0):.0f} %)")
        rows.append(f"| {kind} | {' | '.join(words)} |")
    return "\n".join(rows)


def draw(results: Results) -> None:
    """Draw all pictures of docs/concepts/memory.md."""
    PICTURES.mkdir(exist_ok=True)
    with drawing(Palette()):
        for name, make in (
            ("history", draw_history),
            ("gradients", draw_gradients),
            ("states", draw_states),
            ("explosion", draw_explosion),
        ):
            figure = make(results)
            with mpl.rc_context({"svg.hashsalt": name}):
                figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None}, facecolor="white")


def draw_history(results: Results) -> Any:
    """Draw the loss over how many readings are seen, one panel for each lag."""
    return _panels(
        results,
        lambda own: [(point["kept"], point["loss"]) for point in own["loss_by_kept"][1:]],
        across="newest readings seen",
        up="quantile loss",
    )


def draw_gradients(results: Results) -> Any:
    """Draw how much the forecast moves with the reading at each lag."""
    figure = _panels(
        results,
        lambda own: list(enumerate(own["gradient_by_lag"]["early"], start=1)),
        across="steps back",
        up="gradient of the forecast",
    )
    for axes in figure.axes:
        _in_powers(axes)
    return figure


def _panels(results: Results, points: Any, *, across: str, up: str) -> Any:
    figure = new_figure(10.0, 3.2)
    grid = figure.subplots(1, len(LAGS), sharey=True)
    for axes, lag in zip(grid, LAGS, strict=True):
        for (kind, style), colour in zip(SHOWN.items(), COLOURS, strict=True):
            own = results.get(f"{kind}/{lag}/trained")
            if own is None:
                continue
            xs, ys = zip(*points(own), strict=True)
            axes.plot(xs, ys, style, color=colour, label=kind)
        axes.axvline(lag, color=Palette.muted, linewidth=1.0, linestyle=":")
        axes.set_title(f"{lag} steps back")
        axes.set_xlabel(across)
    grid[0].set_ylabel(up)
    _legend(figure, grid[0])
    return figure


def draw_states(results: Results) -> Any:
    """Draw what is left of the gradient on its way back, before training and after."""
    figure = new_figure(10.0, 3.4)
    grid = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(grid, ("untrained", "trained"), strict=True):
        kinds = (TEXTBOOK, "Elman", "GRU", "LSTM", "GRU, in segments")
        colours = (Palette.other, Palette.readings, Palette.third, Palette.muted, Palette.forecast)
        for kind, colour, style in zip(kinds, colours, ("-", ":", "--", "-.", "-"), strict=True):
            own = results[f"{kind}/50/{name}"]["members"][0]["state_gradient_by_lag"]
            lags, sizes = zip(*own, strict=True)
            relative = np.array(sizes) / sizes[0]
            axes.plot(lags, relative, style, color=colour, label=kind)
        _in_powers(axes)
        axes.set_title("before training" if name == "untrained" else "after it")
        axes.set_xlabel("readings between the state and the forecast")
    grid[0].set_ylabel("gradient, as a share of the last")
    _legend(figure, grid[0])
    return figure


def draw_explosion(results: Results) -> Any:
    """Draw the gradients and losses of a training that explodes beside one that does not."""
    figure = new_figure(10.0, 3.2)
    left, right = figure.subplots(1, 2)
    ways = (("good", GOOD, Palette.forecast), ("bad", BAD, Palette.other))
    for name, how, colour in ways:
        epochs = [row for row in results[f"{TEXTBOOK}/5/{name}"]["epochs"] if row["member"] == "0"]
        numbers = [int(row["epoch"]) for row in epochs]
        label = f"learning rate {how.learning_rate:g}, --clip {how.clip:g}"
        for axes, column in ((left, "gradient_norm_99"), (right, "validation_loss")):
            values = [float(row[column]) for row in epochs]
            axes.plot(numbers, values, ".-", color=colour, label=label)
            _in_powers(axes)
            axes.set_xticks(range(1, GOOD.epochs + 1))
            axes.set_xlabel("epoch")
    for axes in (left, right):
        axes.set_ylim(0.1, 20)
    left.set_ylabel("gradient norm, 99th percentile")
    right.set_ylabel("loss on held-out readings")
    _legend(figure, left)
    return figure


def _in_powers(axes: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda size, _: f"{size:g}")
    axes.minorticks_off()


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--draw", action="store_true")
    given = parser.parse_args()
    results = complete(given.results)
    print(table(results))
    if given.draw:
        draw(results)


if __name__ == "__main__":
    main()
