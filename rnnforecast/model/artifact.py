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

import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import safetensors.numpy
from numpy.typing import NDArray

from rnnforecast.config import (
    MAX_HORIZON,
    MAX_LOOKBACK,
    Config,
    DataConfig,
    ForecastTask,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.data.schema import Schema
from rnnforecast.errors import ModelError, UsageError

FORMAT = "rnnforecast-model"
FORMAT_VERSION = 1
MANIFEST, WEIGHTS, SERIES = "manifest.json", "weights.safetensors", "series.parquet"
METRICS, HISTORY = "metrics.json", "history.csv"
_MAX_MANIFEST_BYTES = 1 << 24
_MAX_BYTES = {SERIES: 1 << 30, METRICS: 1 << 24, HISTORY: 1 << 24}
_MAX_HEADER_BYTES = 1 << 20
_MAX_DEPTH = 12
_MAX_SERIES = 10_000_000
_MAX_SEASON = MAX_LOOKBACK
_MAX_OUTPUT = 1e30
_GATES = {"gru": 3, "lstm": 4, "rnn": 1}

Tensors = dict[str, NDArray[np.float32]]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Artifact:
    """A trained network and everything that predicting with it needs."""

    task: ForecastTask
    config: Config
    schema: Schema
    names: tuple[str, ...]
    """The series that the network knows, in the order of its entries 1, 2, ..."""
    weights: Tensors
    metrics: dict[str, Any]
    history: str
    """The training log as CSV."""
    learnt_until: str
    training_range: dict[str, Any]
    self_test: dict[str, Any]
    provenance: dict[str, Any]
    parent: str | None = None

    @property
    def n_parameters(self) -> int:
        """How many figures the network has learnt; the scaling statistics do not count."""
        fixed = ("center", "scale")
        return sum(int(w.size) for name, w in self.weights.items() if name not in fixed)

    def pack(self) -> dict[str, bytes]:
        """Return the files of a version, the manifest last."""
        files = {
            WEIGHTS: safetensors.numpy.save(dict(sorted(self.weights.items()))),
            SERIES: _pack_names(self.names),
            METRICS: _to_json(self.metrics),
            HISTORY: self.history.encode(),
        }
        listed = {
            name: {"bytes": len(content), "sha256": _digest(content)}
            for name, content in files.items()
        }
        manifest = {**self.to_json(), "files": listed}
        return {**files, MANIFEST: _to_json({**manifest, "sha256": _digest(_to_json(manifest))})}

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
            "calibration": None,
            "self_test": self.self_test,
            "provenance": self.provenance,
        }


_STORED = (Artifact, ForecastTask, Schema, DataConfig, WindowConfig, NetworkConfig, TrainConfig)
_HINTS: dict[type, dict[str, Any]] = {cls: get_type_hints(cls) for cls in _STORED}
"""Types of the fields. Found here: looking them up runs Python, and a load must run none."""


def load(directory: Path) -> Artifact:
    """Read and verify a version. Raises `ModelError`; nothing in the files is run."""
    manifest = load_manifest(directory)
    try:
        task, config = _task_of(manifest), _config_of(manifest)
        schema = _build(Schema, manifest["schema"])
        _check_bounds(task, config)
        _check_self_test(manifest)
        shapes = expected_shapes(task, config.network)
        limits = {
            **_MAX_BYTES,
            WEIGHTS: _MAX_HEADER_BYTES + 4 * sum(map(math.prod, shapes.values())),
        }
        files = {name: _read_listed(directory, name, manifest, limits[name]) for name in limits}
        names = _unpack_names(files[SERIES], task.n_series)
        weights = _unpack_weights(files[WEIGHTS])
        _check_weights(weights, shapes)
        artifact = Artifact(
            task=task,
            config=config,
            schema=schema,
            names=names,
            weights=weights,
            metrics=parse_json(files[METRICS]),
            history=files[HISTORY].decode(),
            learnt_until=manifest["learnt_until"],
            training_range=manifest["training_range"],
            self_test=manifest["self_test"],
            provenance=manifest["provenance"],
            parent=manifest["parent"],
        )
        _check_rest(manifest, artifact)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise _damaged(directory, f"it does not describe a network ({error!r})") from error
    return artifact


def load_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest alone, and check what it says of itself. Raises `ModelError`."""
    content = _read_regular(directory / MANIFEST, _MAX_MANIFEST_BYTES)
    try:
        manifest = parse_json(content)
        version = manifest["format_version"]
        if manifest["format"] != FORMAT or type(version) is not int or version < 1:
            raise ValueError("not a model of rnnforecast")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory, f"its manifest cannot be read ({error})") from error
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{directory} was written by a newer rnnforecast (format {version}, this one reads "
            f"up to {FORMAT_VERSION})",
            code="newer-format",
            hint="update rnnforecast, or train again with this one",
        )
    return manifest


def expected_shapes(task: ForecastTask, config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a network of this configuration has."""
    assert config.segment is not None
    entries, width, gates = task.n_series + 1, config.hidden, _GATES[config.cell]
    out_segment = min(config.segment, task.horizon)
    shapes: dict[str, tuple[int, ...]] = {
        "center": (entries,),
        "scale": (entries,),
        "cycle.weight": (entries, task.season),
        "anchor": (task.horizon,),
        "read.weight": (width, config.segment),
        "read.bias": (width,),
        "read_missing.weight": (width, config.segment),
        "identity.weight": (entries, width),
        "position": (-(-task.horizon // out_segment), width),
        "head.weight": (out_segment * len(task.quantiles), width),
        "head.bias": (out_segment * len(task.quantiles),),
    }
    for layer in range(config.layers):
        for way in ("ih", "hh"):
            shapes[f"recurrence.weight_{way}_l{layer}"] = (gates * width, width)
            shapes[f"recurrence.bias_{way}_l{layer}"] = (gates * width,)
    return shapes


def parse_json(content: bytes) -> dict[str, Any]:
    """Parse JSON strictly: no duplicate keys, NaN or deep nesting; else ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a number")

    def finite(text: str) -> float:
        return value if math.isfinite(value := float(text)) else refuse(text)

    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=refuse,
            parse_float=finite,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    _check_depth(value, _MAX_DEPTH)
    return value


def _check_depth(value: Any, deepest: int) -> None:
    if not deepest:
        raise ValueError("nested too deeply")
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            _check_depth(child, deepest - 1)


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pack_names(names: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    pa_parquet.write_table(pa.table({"series": pa.array(names, pa.string())}), buffer)
    return buffer.getvalue()


def _unpack_names(content: bytes, n_series: int) -> tuple[str, ...]:
    try:
        file = pa_parquet.ParquetFile(pa.BufferReader(content))
        if file.schema_arrow != pa.schema({"series": pa.string()}):
            raise ValueError("the series names are not what was written")
        if file.metadata.num_rows != n_series:
            raise ValueError(f"there are {file.metadata.num_rows} series names, not {n_series}")
        names = file.read().column(0)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the series names cannot be read: {error}") from error
    if names.null_count or len(names.unique()) != n_series:
        raise ValueError("the series names are not all there, or not all different")
    return tuple(names.to_pylist())


def _unpack_weights(content: bytes) -> Tensors:
    try:
        tensors: Tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"the weights cannot be read: {error}") from error
    return tensors


def _check_weights(weights: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise ValueError(f"tensor {name} is missing")
        if name not in expected:
            raise ValueError(f"tensor {name} does not belong to this network")
        tensor = weights[name]
        if tensor.shape != expected[name] or tensor.dtype != np.float32:
            raise ValueError(
                f"tensor {name} is {tensor.dtype} {tensor.shape}, not float32 {expected[name]}"
            )
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds a value that is not finite")


def _check_bounds(task: ForecastTask, config: Config) -> None:
    sizes = {
        "lookback": (task.lookback, MAX_LOOKBACK),
        "horizon": (task.horizon, MAX_HORIZON),
        "season": (task.season, _MAX_SEASON),
        "segment": (config.network.segment, MAX_LOOKBACK),
        "n_series": (task.n_series, _MAX_SERIES),
    }
    for name, (value, limit) in sizes.items():
        if type(value) is not int or not 1 <= value <= limit:
            raise ValueError(f"{name} is {value!r}")
    levels = task.quantiles
    if not 1 <= len(levels) <= 99 or list(levels) != sorted(set(levels)) or 0.5 not in levels:
        raise ValueError("the quantiles are not increasing levels around the median")
    if not 0 < levels[0] <= levels[-1] < 1:
        raise ValueError("the quantiles do not lie between 0 and 1")


def _check_self_test(manifest: dict[str, Any]) -> None:
    self_test = manifest["self_test"]
    output = self_test["output"]
    if not isinstance(output, list) or not output:
        raise ValueError("the self-test has no output")
    for number in (self_test["tolerance"], *output):
        if type(number) not in (int, float) or abs(number) > _MAX_OUTPUT:
            raise ValueError(f"the self-test holds {number!r}")


def _check_rest(manifest: dict[str, Any], artifact: Artifact) -> None:
    """Refuse what no other check looked at. It comes last: the others say more."""
    said = dict(manifest)
    digest = said.pop("sha256")
    for name in ("learnt_until", "training_range", "provenance", "parent"):
        if not _is_of(said[name], _HINTS[Artifact][name]):
            raise ValueError(f"{name} is {said[name]!r}")
    meant = parse_json(_to_json(artifact.to_json()))
    for name in sorted(said.keys() - {"files"} | meant.keys()):
        if name not in said or name not in meant or said[name] != meant[name]:
            raise ValueError(f"the manifest's {name} is not what was written")
    if _digest(_to_json(said)) != digest:
        raise ValueError("the manifest is not what was written (its hash differs)")


def _task_of(manifest: dict[str, Any]) -> ForecastTask:
    return _build(ForecastTask, manifest["task"])


def _config_of(manifest: dict[str, Any]) -> Config:
    parts = manifest["config"]
    return Config(
        data=_build(DataConfig, parts["data"]),
        window=_build(WindowConfig, parts["window"]),
        network=_build(NetworkConfig, parts["network"]),
        training=_build(TrainConfig, parts["training"]),
    )


def _build(cls: type[_T], values: dict[str, Any]) -> _T:
    """Make a dataclass from JSON: every field there, none unknown, lists as tuples."""
    hints = _HINTS[cls]
    if not isinstance(values, dict) or set(values) != set(hints):
        raise ValueError(f"{cls.__name__} has other fields: {sorted(set(values) ^ set(hints))}")
    for name, value in values.items():
        if not _is_of(value, hints[name]):
            raise ValueError(f"{name} is {value!r}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what a field of this type holds."""
    options = get_args(hint)
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_is_of(part, options[0]) for part in value)
    if options:
        return any(_is_of(value, option) for option in options)
    return type(value) is hint or (hint is float and type(value) is int)


def _read_listed(directory: Path, name: str, manifest: dict[str, Any], limit: int) -> bytes:
    """Read a file that the manifest lists, checking size before hash."""
    try:
        entry = manifest["files"][name]
        size, digest = entry["bytes"], entry["sha256"]
    except (KeyError, TypeError) as error:
        raise _damaged(directory, f"its manifest does not list {name}") from error
    if type(size) is not int or not 0 <= size <= limit:
        raise _damaged(directory, f"its manifest says {size!r} bytes for {name}")
    content = _read_regular(directory / name, size)
    if len(content) != size:
        raise _damaged(directory, f"{name} has {len(content)} bytes, not {size}")
    if _digest(content) != digest:
        raise _damaged(directory, f"{name} is not what was written (its hash differs)")
    return content


def _read_regular(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes, without following a link."""
    try:
        with open(path, "rb", opener=_open_itself) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _damaged(path.parent, f"{path.name} is not a regular file")
            if status.st_size > limit:
                raise _damaged(path.parent, f"{path.name} has {status.st_size} bytes, over {limit}")
            return file.read(status.st_size + 1)
    except OSError as error:
        raise _damaged(path.parent, f"{path.name} cannot be read ({error.strerror})") from error


def _open_itself(path: str, flags: int) -> int:
    """Open without following a link, and without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _damaged(directory: Path, why: str) -> ModelError:
    return ModelError(
        f"the model version {directory} cannot be used: {why}",
        code="damaged-model",
        hint="put an intact copy in its place, or train again",
    )
