"""The story of putting a saved version in force: the one before, or one that a gate held back."""

from __future__ import annotations

from pathlib import Path

from rnnforecast.config import DEFAULT_MODEL
from rnnforecast.operate import store
from rnnforecast.operate.lock import holding
from rnnforecast.places.remote import place_of
from rnnforecast.workflow.saved import load


def use(version: str, *, model: str | Path = DEFAULT_MODEL) -> str | None:
    """Put a version in force; return the one that was before, or None.

    It is verified first, so that no damaged one comes into force. Raises a `RnnForecastError`.
    """
    path = place_of(model)
    load(path, version=version)
    with holding(path / store.LOCK):
        store.collect(path)
        before = store.name_in_force(path)
        if before != version:
            store.put_in_force(path, version)
    return before
