"""What is saved: a trained network, as `train` and `load` return it, and the versions there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnforecast.config import DEFAULT_MODEL, PredictConfig
from rnnforecast.errors import ModelError
from rnnforecast.events import Warned
from rnnforecast.operate import store
from rnnforecast.places.remote import Place, place_of

if TYPE_CHECKING:
    from rnnforecast.data.newer import Known
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.model.artifact import Artifact


@dataclass(frozen=True)
class Model:
    """A trained network, as `train` and `load` return it."""

    artifact: Artifact = field(repr=False)
    path: Place | None = None
    """The model directory; None where nothing was saved."""
    version: str | None = None
    warnings: tuple[Warned, ...] = ()
    timing: dict[str, float] | None = field(default=None, repr=False)

    def predict(self, data: object = None, config: PredictConfig | None = None) -> Prediction:
        """Forecast the steps after the last reading of `data`, or of what it was trained on."""
        from rnnforecast.workflow.prediction import predict

        return predict(self, data, config=config)

    @property
    def metrics(self) -> dict[str, Any]:
        """Held-out metrics by method, with the skill and the verdict."""
        return self.artifact.metrics


def load(model: str | Place = DEFAULT_MODEL, *, version: str | None = None) -> Model:
    """Load a saved version, by default the one in force. Raises `ModelError` if it is damaged."""
    from rnnforecast.model import artifact

    path = place_of(model)
    directory = store.resolve_version(path, version)
    return Model(artifact.load(directory), path, directory.name)


def versions(model: str | Path = DEFAULT_MODEL) -> list[dict[str, Any]]:
    """List the saved versions, oldest first: name, in force or not, skill, or what is wrong."""
    from rnnforecast.model import artifact

    path = place_of(model)
    in_force = store.name_in_force(path)
    listing: list[dict[str, Any]] = []
    for name in store.list_versions(path):
        item: dict[str, Any] = {"version": name, "in_force": name == in_force}
        try:
            loaded = artifact.load(store.resolve_version(path, name))
            item |= {"skill": loaded.metrics["skill"], "learnt_until": loaded.learnt_until}
        except ModelError as error:
            item |= {"skill": None, "learnt_until": None, "damage": error.message}
        listing.append(item)
    return listing


def known_of(artifact: Artifact) -> Known:
    """Return what a saved network knows of the series that it has learnt from."""
    import numpy as np

    from rnnforecast.data.newer import Known

    return Known(
        artifact.names,
        np.array(artifact.base),
        center=artifact.weights["center"][1:],
        scale=artifact.weights["scale"][1:],
        reach=artifact.weights["reach"][1:],
    )
