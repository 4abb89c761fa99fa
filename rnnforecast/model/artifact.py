"""Artifact: a trained network as files, and back. No torch here, no pickle, no code from a file.

`pack` gives the files of a version; `load` reads them under these rules, each with a test:

1. Only the fixed names are opened, as regular files, without following links.
2. The manifest is bounded in size and depth; duplicate keys, NaN, unknown fields and types are
   refused, and so is a manifest that differs from its own hash.
3. A newer format is refused as such; an older one would be migrated in memory.
4. Size before hash before parse.
5. Widths and window lengths are bounded; names, shapes and types of the tensors follow from the
   configuration, and what differs is named.
6. Every weight is finite.
7. A self-test, a fixed input and its output, is stored; `forecaster` runs it once torch is there.
8. There is no pickle.

The hashes prove integrity, not where a model comes from. Every failure is a `ModelError`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass, replace
from typing import Any, get_type_hints

import safetensors.numpy

from rnnforecast.config import Config, NetworkConfig, TrainConfig, WindowConfig
from rnnforecast.data.calibration import Calibration
from rnnforecast.data.panel import Floats
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import ModelError, UsageError
from rnnforecast.model.expected import (
    Tensors,
    check_bounds,
    check_self_test,
    check_weights,
    expected_shapes,
)
from rnnforecast.model.files import damaged, read_listed, read_regular
from rnnforecast.model.series import SeriesTable, pack_series, unpack_series
from rnnforecast.model.strict import build, digest, is_of, parse_json, to_json
from rnnforecast.places.remote import Place
from rnnforecast.task import ForecastTask, MemberTask

FORMAT = "rnnforecast-model"
FORMAT_VERSION = 1
MANIFEST, WEIGHTS, SERIES = "manifest.json", "weights.safetensors", "series.parquet"
METRICS, HISTORY, REPORT = "metrics.json", "history.csv", "report.html"
_MAX_MANIFEST_BYTES = 1 << 24
_MAX_BYTES = {SERIES: 1 << 30, METRICS: 1 << 24, HISTORY: 1 << 24}
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A trained network and everything that predicting with it needs."""

    task: ForecastTask
    config: Config
    schema: Schema
    names: tuple[str, ...]
    """The series that the network knows, in the order of its entries 1, 2, ..."""
    base: tuple[float, ...]
    """What is subtracted from the readings of each, as `data.levels` says."""
    weights: Tensors
    metrics: dict[str, Any]
    history: str
    """The training log as CSV."""
    learnt_until: str
    training_range: dict[str, Any]
    self_test: dict[str, Any]
    provenance: dict[str, Any]
    parent: str | None = None
    calibration: Calibration | None = None
    """How its quantiles move; None where too little was held out to say."""

    @property
    def n_parameters(self) -> int:
        """How many figures the network has learnt; the scaling statistics do not count."""
        fixed = ("center", "scale", "reach")
        return sum(int(w.size) for name, w in self.weights.items() if name not in fixed)

    @property
    def _series(self) -> SeriesTable:
        moves = None if self.calibration is None else self.calibration.by_series
        return SeriesTable(self.names, self.base, moves)

    def pack(self, report: str | None = None) -> dict[str, bytes]:
        """Return the files of a version, the manifest last; a report is never read again."""
        files = {
            WEIGHTS: safetensors.numpy.save(dict(sorted(self.weights.items()))),
            SERIES: pack_series(self._series),
            METRICS: to_json(self.metrics),
            HISTORY: self.history.encode(),
        }
        if report is not None:
            files[REPORT] = report.encode()
        listed = {
            name: {"bytes": len(content), "sha256": digest(content)}
            for name, content in files.items()
        }
        manifest = {**self.to_json(), "files": listed}
        return {**files, MANIFEST: to_json({**manifest, "sha256": digest(to_json(manifest))})}

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says, but for the list of files and its own hash."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": "rnn",
            "parent": self.parent,
            "task": asdict(self.task),
            "config": asdict(self.config),
            "schema": self.schema.to_json(),
            "season": self.task.season,
            "learnt_until": self.learnt_until,
            "training_range": self.training_range,
            "calibration": self.calibration and self.calibration.to_json(),
            "self_test": self.self_test,
            "provenance": self.provenance,
        }


_STORED = (
    Artifact,
    ForecastTask,
    MemberTask,
    Schema,
    Covariate,
    DataConfig,
    WindowConfig,
    NetworkConfig,
    TrainConfig,
)
_HINTS: dict[type, dict[str, Any]] = {cls: get_type_hints(cls) for cls in _STORED}
"""Types of the fields. Found here: looking them up runs Python, and a load must run none."""


def load(directory: Place) -> Artifact:
    """Read and verify a version. Raises `ModelError`; nothing in the files is run."""
    manifest = load_manifest(directory)
    try:
        task, config = _task_of(manifest), _config_of(manifest)
        schema = _schema_of(manifest)
        check_bounds(task)
        check_self_test(manifest)
        shapes = expected_shapes(task, config.network)
        limits = {
            **_MAX_BYTES,
            WEIGHTS: _MAX_HEADER_BYTES + 4 * sum(map(math.prod, shapes.values())),
        }
        files = {name: read_listed(directory, name, manifest, limits[name]) for name in limits}
        series = unpack_series(files[SERIES], task.n_series)
        weights = _unpack_weights(files[WEIGHTS])
        check_weights(weights, shapes)
        artifact = Artifact(
            task=task,
            config=config,
            schema=schema,
            names=series.names,
            base=series.base,
            weights=weights,
            metrics=parse_json(files[METRICS]),
            history=files[HISTORY].decode(),
            learnt_until=manifest["learnt_until"],
            training_range=manifest["training_range"],
            self_test=manifest["self_test"],
            provenance=manifest["provenance"],
            parent=manifest["parent"],
            calibration=_calibration_of(manifest, series.moves, task.horizon),
        )
        _check_rest(manifest, artifact)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise damaged(directory, f"it does not describe a network ({error!r})") from error
    return artifact


def load_manifest(directory: Place) -> dict[str, Any]:
    """Read the manifest alone, and check what it says of itself. Raises `ModelError`."""
    content = read_regular(directory / MANIFEST, _MAX_MANIFEST_BYTES)
    try:
        manifest = parse_json(content)
        version = manifest["format_version"]
        if manifest["format"] != FORMAT or type(version) is not int or version < 1:
            raise ValueError("not a model of rnnforecast")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(directory, f"its manifest cannot be read ({error})") from error
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{directory} was written by a newer rnnforecast (format {version}, this one reads "
            f"up to {FORMAT_VERSION})",
            code="newer-format",
            hint="update rnnforecast, or train again with this one",
        )
    return manifest


def _calibration_of(
    manifest: dict[str, Any], moves: Floats | None, horizon: int
) -> Calibration | None:
    said = manifest["calibration"]
    if said is None and moves is None:
        return None
    if said is None or moves is None:
        raise ValueError("there is only a part of the calibration")
    calibration = Calibration.from_json(said, moves)
    if calibration.lead_ends[-1] != horizon:
        raise ValueError("the calibration is for another horizon")
    return calibration


def _unpack_weights(content: bytes) -> Tensors:
    try:
        tensors: Tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"the weights cannot be read: {error}") from error
    return tensors


def _check_rest(manifest: dict[str, Any], artifact: Artifact) -> None:
    """Refuse what no other check looked at. It comes last: the others say more."""
    said = dict(manifest)
    expected = said.pop("sha256")
    for name in ("learnt_until", "training_range", "provenance", "parent"):
        if not is_of(said[name], _HINTS[Artifact][name]):
            raise ValueError(f"{name} is {said[name]!r}")
    meant = parse_json(to_json(artifact.to_json()))
    for name in sorted(said.keys() - {"files"} | meant.keys()):
        grows = name in ("config", "task", "schema")  # fields are added with time
        fits = _is_part if grows else operator.eq
        if name not in said or name not in meant or not fits(said[name], meant[name]):
            raise ValueError(f"the manifest's {name} is not what was written")
    if digest(to_json(said)) != expected:
        raise ValueError("the manifest is not what was written (its hash differs)")


def _task_of(manifest: dict[str, Any]) -> ForecastTask:
    said = manifest["task"]
    members = tuple(build(MemberTask, own, _HINTS[MemberTask]) for own in said["members"])
    task = build(ForecastTask, {**said, "members": []}, _HINTS[ForecastTask])
    return replace(task, members=members)


def _schema_of(manifest: dict[str, Any]) -> Schema:
    said = manifest["schema"]
    hints = _HINTS[Covariate]
    covariates = tuple(build(Covariate, one, hints) for one in said.get("covariates", ()))
    return replace(build(Schema, {**said, "covariates": []}, _HINTS[Schema]), covariates=covariates)


def _config_of(manifest: dict[str, Any]) -> Config:
    parts = manifest["config"]
    return Config(
        data=build(DataConfig, parts["data"], _HINTS[DataConfig]),
        window=build(WindowConfig, parts["window"], _HINTS[WindowConfig]),
        network=build(NetworkConfig, parts["network"], _HINTS[NetworkConfig]),
        training=build(TrainConfig, parts["training"], _HINTS[TrainConfig]),
    )


def _is_part(said: Any, meant: Any) -> bool:
    """Tell whether all that is said is meant: defaults that came later are meant alone."""
    if isinstance(said, list) and isinstance(meant, list):
        return len(said) == len(meant) and all(map(_is_part, said, meant))
    if not (isinstance(said, dict) and isinstance(meant, dict)):
        return bool(said == meant)
    return set(said) <= set(meant) and all(_is_part(said[key], meant[key]) for key in said)
