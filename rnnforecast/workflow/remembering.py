"""The story of `memory`: load a version, read, measure how far back it remembers, judge."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.config import DEFAULT_MODEL
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import NotEnoughDataError
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.verdicts import explosion
from rnnforecast.workflow.measuring import FEWEST, Remembered, remember
from rnnforecast.workflow.prediction import restore_network, source_of
from rnnforecast.workflow.saved import Model, known_of, load
from rnnforecast.workflow.settled import reading_of

if TYPE_CHECKING:
    from rnnforecast.data.panel import Panel
    from rnnforecast.data.windows import TrainingWindows
    from rnnforecast.model.artifact import Artifact

_WINDOWS = 128
_NEWEST_SHARE = 0.15
"""Where all is learnt from, the targets lie in the newest readings: so many of them."""


def memory(
    data: object = None,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    listener: Listener = ignore,
) -> Remembered:
    """Measure how far back a saved version remembers, and say what to try where that is wrong.

    Without data, on what it was trained on. Windows after what it has learnt from count, where
    there are enough of them; else the newest ones. Raises a `RnnForecastError`.
    """
    from rnnforecast.data.newer import read_newer
    from rnnforecast.model.start import entries_in

    artifact = (model if isinstance(model, Model) else load(model)).artifact
    events = Recorder(listener, [])
    panel, schema = read_newer(
        source_of(artifact) if data is None else data,
        schema=artifact.schema,
        options=reading_of(artifact, reading, given),
        known=known_of(artifact),
        listener=events,
    )
    windows = _windows_of(artifact, panel, schema.tz, events)
    forecaster = restore_network(artifact)
    found = remember(
        forecaster.network,
        windows,
        panel,
        artifact.config,
        entries=entries_in(panel.names, forecaster.network, forecaster.names).tolist(),
        explosion=_explosion_in(artifact),
        least=_WINDOWS,
    )
    return replace(found, warnings=tuple(events.warnings))


def _windows_of(
    artifact: Artifact, panel: Panel, tz: str | None, listener: Listener
) -> TrainingWindows:
    """Return the windows to measure on: those that the version has not learnt from, if it can."""
    import numpy as np

    from rnnforecast.data.past import past_of
    from rnnforecast.data.stamps import parse_time_us

    lookback, horizon = artifact.task.lookback, artifact.task.horizon
    past, lengths = past_of(panel), panel.lengths
    learnt = panel.rows_before(parse_time_us(artifact.learnt_until, tz) + 1)
    newer = past.windows(lookback, horizon, targets_after=past_of(panel, learnt))
    if len(newer) >= FEWEST:
        return newer
    n_newest = np.maximum((_NEWEST_SHARE * lengths).astype(np.int64), horizon)
    before = past_of(panel, np.maximum(lengths - n_newest, 0))
    windows = past.windows(lookback, horizon, targets_after=before)
    if not len(windows):
        raise NotEnoughDataError(
            f"no series has the {lookback} + {horizon} readings of a look-back and a horizon",
            code="too-short",
            hint="pass more readings",
        )
    message = (
        f"measured on readings that the model has learnt from, until {artifact.learnt_until}: "
        "pass newer ones to see what it makes of them"
    )
    listener(Warned("already-learnt", message))
    return windows


def _explosion_in(artifact: Artifact) -> str | None:
    """Say why the training of a member that is kept exploded; None where none did."""
    rows = list(csv.DictReader(io.StringIO(artifact.history)))
    for number in artifact.provenance["kept_members"]:
        own = [row for row in rows if row["member"] == str(number)]
        clipped, losses = ([float(row[name]) for row in own] for name in ("clipped", "train_loss"))
        reason = explosion(clipped, losses, artifact.config.training)
        if reason is not None:
            return reason
    return None
