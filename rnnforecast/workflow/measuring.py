"""How far back a network remembers, measured on windows and set beside what the readings do.

A step of two stories: training, which measures on what it has held out, and `memory`, which does on
what a saved version may see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rnnforecast.config import Config
from rnnforecast.events import Warned
from rnnforecast.verdicts import Judged

if TYPE_CHECKING:
    from rnnforecast.data.panel import Doubles, Integers, Panel
    from rnnforecast.data.planning import Plan
    from rnnforecast.data.windows import Batch, TrainingWindows
    from rnnforecast.evaluate.remembering import MemberMemory, Memory, Peak
    from rnnforecast.model.forecaster import RNNForecaster
    from rnnforecast.model.network import Network

FEWEST = 8
"""Windows that say something."""
_TRAINING_WINDOWS = 64
"""So many are looked at after a training, which should not take much longer for it."""
_GRADIENT_VALUES = 1 << 23
"""Recurrent states, in figures, that gradients are taken of at once: they are kept for it."""
_MAX_SERIES = 32
_MAX_ROWS = 65_536


@dataclass(frozen=True)
class Remembered:
    """What was found of a network, and what it amounts to."""

    memory: Memory
    judged: Judged
    step_us: int
    warnings: tuple[Warned, ...] = ()

    def summary(self) -> dict[str, object]:
        """Return what a version says of it among its metrics."""
        return {
            "effective_memory": self.memory.effective,
            "lookback": self.memory.lookback,
            "verdict": self.judged.verdict,
            "reason": self.judged.reason,
            "advice": self.judged.advice,
        }


def remember_held_out(fitted: RNNForecaster, plan: Plan) -> Remembered | None:
    """Measure a network that was just fitted on its validation part; None where that is too short.

    The panel up to the end of that part stands for what the readings do.
    """
    split, task = plan.split, fitted.network.task
    if split.validation is None:
        return None
    windows = split.validation.windows(task.lookback, task.horizon, targets_after=split.train)
    if len(windows) < FEWEST:
        return None
    assert fitted.log is not None
    logs = [fitted.log.members[i] for i in fitted.log.kept]
    explosions = (log.explosion(plan.config.training) for log in logs)
    return remember(
        fitted.network,
        windows,
        split.panel.before(split.validation.cutoff),
        plan.config,
        entries=range(1, split.panel.n_series + 1),
        explosion=next(filter(None, explosions), None),
        least=_TRAINING_WINDOWS,
    )


def remember(
    network: Network,
    windows: TrainingWindows,
    panel: Panel,
    config: Config,
    *,
    entries: Sequence[int],
    explosion: str | None,
    least: int,
) -> Remembered:
    """Measure on so many windows, on more where that costs little, and judge.

    `entries`, one for each series of the panel, are their numbers in the network, 0 for unknown
    ones; `explosion` is why the training of one of its members exploded, if one did.
    """
    import numpy as np

    from rnnforecast.evaluate.remembering import Memory, judge
    from rnnforecast.model.memory import enough_windows, measure_cut

    task = network.task
    most = enough_windows(network, network.members, least)
    places = np.array(entries, np.int64) - 1
    n_steps = max(-(-own.lookback // own.segment) for own in task.members)
    room = _GRADIENT_VALUES // (n_steps * network.config.hidden)
    batch = _gathered(windows, most, places)
    few = _gathered(windows, max(FEWEST, min(most, room)), places)
    leads = {"early": 1, "middle": (task.horizon + 1) // 2, "late": task.horizon}
    cut = measure_cut(network, batch)
    found = Memory(
        lookback=task.lookback,
        effective=cut.effective,
        kept=cut.kept,
        losses=cut.losses,
        leads=leads,
        gradients=_gradients(network, few, leads),
        members=tuple(_members(network, batch, few)),
        peaks=tuple(_peaks(network, batch, panel, entries)),
        n_windows=len(batch.series),
        explosion=explosion,
    )
    return Remembered(found, judge(found, task, config), panel.step_us)


def _gathered(windows: TrainingWindows, n: int, places: Integers) -> Batch:
    """Gather n windows; `places`, `(series,)`: where the network has each series, -1 nowhere."""
    batch = windows.gather(windows.spread(n))
    return replace(batch, series=places[batch.series])


def _gradients(
    network: Network, few: Batch, leads: Mapping[str, int]
) -> dict[str, tuple[float | None, ...]]:
    """Return how much each of some leads moves with each reading, by lag from 1."""
    import numpy as np

    from rnnforecast.model.memory import gradients_by_lag

    found = gradients_by_lag(network, few, list(leads.values()))
    return {
        name: tuple(None if np.isnan(x) else float(x) for x in row)
        for name, row in zip(leads, found, strict=True)
    }


def _members(network: Network, batch: Batch, few: Batch) -> list[MemberMemory]:
    """Measure each member by itself, gradients on fewer windows."""
    from rnnforecast.evaluate.remembering import MemberMemory
    from rnnforecast.model.memory import measure_cut, state_gradients, time_constants

    found = []
    for member in network.members:
        steps_back, sizes = state_gradients(network, member, few, 1)
        constants = time_constants(network, member, few)
        effective = measure_cut(network, batch, members=[member], per_doubling=2).effective
        found.append(
            MemberMemory(
                lookback=member.own.lookback,
                segment=member.own.segment,
                effective_memory=effective,
                state_lags=tuple(member.own.segment * n for n in steps_back),
                state_gradient=tuple(sizes.tolist()),
                time_constants=None
                if constants is None
                else tuple(tuple(layer) for layer in constants.tolist()),
            )
        )
    return found


def _peaks(network: Network, batch: Batch, panel: Panel, entries: Sequence[int]) -> list[Peak]:
    """Return the peaks of the readings' autocorrelation, and what the forecasts make of them."""
    import numpy as np

    from rnnforecast.data.autocorrelation import autocorrelation, median_curve, peaks
    from rnnforecast.evaluate.remembering import Peak
    from rnnforecast.model.memory import deviations, pattern_of

    lookback = network.task.lookback
    chosen = np.unique(np.linspace(0, panel.n_series - 1, _MAX_SERIES).astype(np.int64))
    whole: list[Doubles] = []
    left: list[Doubles] = []
    for series in chosen.tolist():
        n_before = max(0, int(panel.lengths[series]) - _MAX_ROWS)
        readings = panel.of(series, n_before).astype(np.float64)
        if np.isfinite(readings).any():  # a spike must not decide
            readings = np.clip(readings, *np.nanquantile(readings, (0.005, 0.995)))
        first_step = int(panel.first_step[series]) + n_before
        pattern = pattern_of(network, entries[series], first_step, len(readings))
        whole.append(autocorrelation(readings, 2 * lookback))
        left.append(autocorrelation(readings - pattern, 2 * lookback))
    curve, rest = median_curve(whole), median_curve(left)
    own = deviations(network, batch)
    found = []
    for lag in peaks(curve, int(panel.lengths[chosen].max())):
        errors = own.errors_beside(lag, float(rest[lag])) if lag <= lookback else None
        found.append(Peak(lag, float(curve[lag]), float(rest[lag]), *(errors or ())))
    return found
