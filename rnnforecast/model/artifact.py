"""A model version as files: manifest, weights, table of series, metrics, training log.

Packs a version into files, and reads it back verified: sizes before content, content by its hash,
shapes before the network is made. torch is not imported, and nothing in the files is executed.
"""

from __future__ import annotations

import hmac
import io
import math
import operator
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet
import safetensors.numpy
from numpy.typing import NDArray

from rnnforecast.config.fields import decode, has_type, parse_json, to_json
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    MAX_FEATURES,
    MAX_HIDDEN,
    MAX_HORIZON,
    MAX_LAYERS,
    MAX_LOOKBACK,
    MAX_MEMBERS,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.data.arrays import Floats
from rnnforecast.data.forecast import TAIL_PAIRS, Calibration
from rnnforecast.data.limits import Limits
from rnnforecast.errors import ModelError, UsageError
from rnnforecast.spec import CELLS, MemberSpec, NetworkSpec, expected_shapes
from rnnforecast.storage.publish import digest
from rnnforecast.storage.remote import AnyPath, read_bounded
from rnnforecast.system import open_flags
from rnnforecast.tables.schema import Covariate, Schema

FORMAT = "rnnforecast-model"
FORMAT_VERSION = 4
"""Networks of earlier formats are none that this release knows: they have to be trained again."""
MANIFEST, WEIGHTS, SERIES = "manifest.json", "weights.safetensors", "series.parquet"
METRICS, HISTORY, REPORT = "metrics.json", "history.csv", "report.html"
Tensors = dict[str, NDArray[np.float32]]

# Limits on what is read before it is verified: a damaged manifest must not fill the memory.
_MAX_MANIFEST_BYTES = 1 << 24
_MAX_MANIFEST_KEYS = 1 << 16
"""Keys of one of its objects; they are hashed before it is known that most mean nothing."""
_MAX_BYTES = {SERIES: 1 << 30, METRICS: 1 << 24, HISTORY: 1 << 24}
_MAX_HEADER_BYTES = 1 << 20
"""Room for the JSON header of the weights, besides the tensors, whose sizes are known."""
_MAX_SERIES = 10_000_000
_MAX_SERIES_BYTES = 1 << 29
"""The table of ten million series has less."""
_MAX_SEASON = MAX_LOOKBACK
"""A longer season would not fit into any look-back."""
_KEY_BYTES = 32
_MAX_OUTPUT = 1e30
"""Outputs of the self-test are in units of a series' scale; no network is near this."""

UNTRAINED = -(1 << 62)
"""Before all times: from when on readings are new to the built-in network, in microseconds."""
_SHIFTS = pa.list_(pa.float32(), len(TAIL_PAIRS))
_SERIES_SCHEMA = pa.schema({"series": pa.string(), "offset": pa.float64()})
_OPTIONAL_FIELDS = pa.schema(
    {"quantile_shifts": _SHIFTS, "low": pa.float64(), "high": pa.float64(), "rises": pa.bool_()}
)
"""Fields that only calibrated versions have, and those whose readings rest on limits or rise."""


@dataclass(frozen=True)
class Artifact:
    """A trained network and everything that a prediction needs, without torch."""

    spec: NetworkSpec
    config: Config
    schema: Schema
    names: tuple[str, ...]
    """Names of the trained series, in the order of the network's entries 1, 2, ..."""
    base: tuple[float, ...]
    """Offset of each series, subtracted from its readings before they become float32."""
    weights: Tensors
    metrics: dict[str, Any]
    history: str
    """The training log as CSV."""
    trained_until: str | None
    """Time of the newest reading that the weights were trained on; None for the built-in network,
    which is never saved."""
    training_range: dict[str, Any]
    """Time ranges of the train, validation and test parts, and the numbers of readings."""
    self_test: dict[str, Any] | None
    """Expected output for a fixed input, see `RNNForecaster.self_test`."""
    provenance: dict[str, Any]
    parent: str | None = None
    """The version whose weights the training began from, if any."""
    calibration: Calibration | None = None
    """Shifts of the quantiles; None where too little was held out to estimate them."""
    limits: Limits | None = None
    """The limits that the readings rest on, of the trained series in their order; None without."""

    @property
    def untrained_from_us(self) -> int:
        """The first time on the axis that the weights have not learnt from, in microseconds."""
        if self.trained_until is None or not any(m.is_trained for m in self.spec.members):
            return UNTRAINED
        assert self.schema.step_us is not None
        return self.schema.axis.parse(self.trained_until) + self.schema.step_us

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters; the scaling statistics do not count."""
        fixed = ("center", "scale", "outlier_threshold", "seasons")
        return sum(int(w.size) for name, w in self.weights.items() if name not in fixed)

    def pack(self, report: str | None = None) -> dict[str, bytes]:
        """Return the files of a version by name, the manifest last.

        The manifest lists size and SHA-256 of each file, and carries the SHA-256 of itself. A
        report is written along, but never read back.
        """
        shifts = None if self.calibration is None else self.calibration.by_series
        files = {
            WEIGHTS: safetensors.numpy.save(dict(sorted(self.weights.items()))),
            SERIES: pack_series(SeriesTable(self.names, self.base, shifts, self.limits)),
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
        """Return the manifest without the list of files and its own hash."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": "rnn",
            "parent": self.parent,
            "spec": asdict(self.spec),
            "config": {**asdict(self.config), "data": _stored_options(self.config.data)},
            "schema": self.schema.to_json(),
            "season": self.spec.season,
            "trained_until": self.trained_until,
            "training_range": self.training_range,
            "calibration": self.calibration and self.calibration.to_json(),
            "self_test": self.self_test,
            "provenance": self.provenance,
        }


def _stored_options(config: DataConfig) -> dict[str, Any]:
    """Return options of reading as they are stored: bad times only where there are some."""
    options = asdict(config)
    if config.excluded_times is None:
        del options["excluded_times"]
    return options


_STORED: tuple[type, ...] = (
    *(Artifact, NetworkSpec, MemberSpec, Schema, Covariate),
    *(DataConfig, WindowConfig, NetworkConfig, TrainConfig),
)
_HINTS = {cls: get_type_hints(cls) for cls in _STORED}
"""Types of the fields, resolved at import: that evaluates annotations, and a load runs no code."""


def load(directory: AnyPath) -> Artifact:
    """Read and verify a version. Raises `ModelError` for one that is damaged or too new."""
    manifest = load_manifest(directory)
    try:
        spec, config, schema = _decode(manifest)
        check_bounds(spec)
        check_self_test(manifest)

        # Sizes are checked before anything of that size is read.
        shapes = expected_shapes(spec)
        limits = {
            **_MAX_BYTES,
            WEIGHTS: _MAX_HEADER_BYTES + 4 * sum(map(math.prod, shapes.values())),
        }
        files = {name: read_listed(directory, name, manifest, limits[name]) for name in limits}

        series = unpack_series(files[SERIES], spec.n_series)
        weights = _unpack_weights(files[WEIGHTS])
        check_tensors(weights, {name: ("float32", shape) for name, shape in shapes.items()})
        artifact = Artifact(
            spec=spec,
            config=config,
            schema=schema,
            names=series.names,
            base=series.base,
            weights=weights,
            metrics=parse_json(files[METRICS]),
            history=files[HISTORY].decode(),
            trained_until=manifest["trained_until"],
            training_range=manifest["training_range"],
            self_test=manifest["self_test"],
            provenance=manifest["provenance"],
            parent=manifest["parent"],
            calibration=_calibration_of(manifest, series.quantile_shifts, spec.horizon),
            limits=series.limits,
        )
        _check_manifest(manifest, artifact)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise damaged(directory, f"it does not describe a network ({error!r})") from error
    # Versions of earlier releases may name a file to write to: nothing that is stored is written.
    return replace(artifact, config=replace(config, data=replace(config.data, rejects=None)))


def load_manifest(directory: AnyPath) -> dict[str, Any]:
    """Read a version's manifest only, and check its format. Raises `ModelError`."""
    content = read_regular(directory / MANIFEST, _MAX_MANIFEST_BYTES)
    try:
        manifest = parse_json(content, max_keys=_MAX_MANIFEST_KEYS)
        version = manifest["format_version"]
        if manifest["format"] != FORMAT or type(version) is not int or version < 1:
            raise ValueError("not an rnnforecast model")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(directory, f"cannot read its manifest ({error})") from error

    if version > FORMAT_VERSION:
        raise ModelError(
            f"{directory} was written by a newer rnnforecast (format {version}, this one reads "
            f"format {FORMAT_VERSION})",
            code="newer-format",
            hint="update rnnforecast, or retrain with this version",
        )
    if version < FORMAT_VERSION:
        raise ModelError(
            f"{directory} was written by an older rnnforecast (format {version}, this one "
            f"reads format {FORMAT_VERSION})",
            code="older-format",
            hint="retrain with this version, or forecast with the older one",
        )
    return manifest


def _decode(manifest: dict[str, Any]) -> tuple[NetworkSpec, Config, Schema]:
    """Build the dataclasses that the manifest stores. Raises `ValueError` for other fields."""
    spec = manifest["spec"]
    members = tuple(decode(MemberSpec, member, _HINTS[MemberSpec]) for member in spec["members"])
    network_spec = decode(NetworkSpec, {**spec, "members": []}, _HINTS[NetworkSpec])

    parts = manifest["config"]
    config = Config(
        data=decode(DataConfig, parts["data"], _HINTS[DataConfig]),
        window=decode(WindowConfig, parts["window"], _HINTS[WindowConfig]),
        network=decode(NetworkConfig, parts["network"], _HINTS[NetworkConfig]),
        training=decode(TrainConfig, parts["training"], _HINTS[TrainConfig]),
    )

    columns = manifest["schema"]
    covariates = tuple(
        decode(Covariate, covariate, _HINTS[Covariate])
        for covariate in columns.get("covariates", ())  # a field with a default may be missing
    )
    schema = decode(Schema, {**columns, "covariates": []}, _HINTS[Schema])
    return replace(network_spec, members=members), config, replace(schema, covariates=covariates)


def check_bounds(spec: NetworkSpec) -> None:
    """Raise `ValueError` for sizes that no network has, before anything is allocated by them."""
    sizes = {
        "lookback": (spec.lookback, MAX_LOOKBACK),
        "horizon": (spec.horizon, MAX_HORIZON),
        "season": (spec.season, _MAX_SEASON),
        "n_series": (spec.n_series, _MAX_SERIES),
        "number of members": (len(spec.members), MAX_MEMBERS),
    }
    for number, member in enumerate(spec.members):
        sizes[f"width of member {number}"] = (member.hidden, MAX_HIDDEN)
        sizes[f"number of layers of member {number}"] = (member.layers, MAX_LAYERS)
        sizes[f"segment of member {number}"] = (member.segment, MAX_LOOKBACK)
        if member.cell not in CELLS:
            raise ValueError(f"the cell of member {number} is {member.cell!r}")

    features = ("n_known", "n_past", "n_static")
    if any(not 0 <= getattr(spec, name) <= MAX_FEATURES for name in features):
        raise ValueError("the number of features is negative or too large")
    if any(member.covariates for member in spec.members) and not spec.n_features:
        raise ValueError("a member sees covariates, but there are none")

    for name, (value, limit) in sizes.items():
        if type(value) is not int or not 1 <= value <= limit:
            raise ValueError(f"{name} is {value!r}")
    weights = spec.weights
    are_shares = all(0 < w <= 1 for w in weights) and math.isclose(sum(weights), 1, rel_tol=1e-6)
    if weights and (len(weights) != len(spec.members) or not are_shares):
        raise ValueError("the weights of the members are missing or invalid")

    levels = spec.quantiles
    if not 1 <= len(levels) <= 99 or list(levels) != sorted(set(levels)) or 0.5 not in levels:
        raise ValueError("the quantiles are not increasing levels around the median")
    if not 0 < levels[0] <= levels[-1] < 1:
        raise ValueError("the quantiles are not between 0 and 1")


def check_self_test(manifest: dict[str, Any]) -> None:
    """Raise `ValueError` unless the self-test holds a tolerance and outputs of plausible size."""
    self_test = manifest["self_test"]
    output = self_test["output"]
    if not isinstance(output, list) or not output:
        raise ValueError("the self-test has no output")
    for number in (self_test["tolerance"], *output):
        if type(number) not in (int, float) or abs(number) > _MAX_OUTPUT:
            raise ValueError(f"the self-test contains {number!r}")


def read_listed(directory: AnyPath, name: str, manifest: dict[str, Any], limit: int) -> bytes:
    """Read a file that the manifest lists, and check its size, then its hash.

    Raises `ModelError` where either differs, or the manifest allows more than `limit` bytes.
    """
    try:
        entry = manifest["files"][name]
        size, expected = entry["bytes"], entry["sha256"]
    except (KeyError, TypeError) as error:
        raise damaged(directory, f"its manifest does not list {name}") from error
    if type(size) is not int or not 0 <= size <= limit:
        raise damaged(directory, f"its manifest gives {size!r} bytes for {name}")

    content = read_regular(directory / name, size)
    if len(content) != size:
        raise damaged(directory, f"{name} has {len(content)} bytes, not {size}")
    if digest(content) != expected:
        raise damaged(directory, f"{name} has been modified (its hash differs)")
    return content


def read_regular(path: AnyPath, limit: int) -> bytes:
    """Read a file as `read_bounded` does; raises `ModelError` instead."""
    try:
        return read_bounded(path, limit)
    except ValueError as error:
        raise damaged(path.parent, str(error)) from error


@dataclass(frozen=True)
class SeriesTable:
    """The columns of `series.parquet`, a row for each trained series."""

    names: tuple[str, ...]
    base: tuple[float, ...]
    """Offset that is subtracted from its readings."""
    quantile_shifts: Floats | None
    """`(series, pair)`, see `Calibration.by_series`; None for a model without calibration."""
    limits: Limits | None = None


def pack_series(series: SeriesTable) -> bytes:
    """Return the table as a Parquet file."""
    columns = {
        "series": pa.array(series.names, pa.string()),
        "offset": pa.array(series.base, pa.float64()),
    }
    if series.quantile_shifts is not None:
        flat = pa.array(series.quantile_shifts.ravel(), pa.float32())
        columns["quantile_shifts"] = pa.FixedSizeListArray.from_arrays(flat, type=_SHIFTS)
    if series.limits is not None:
        columns |= {"low": pa.array(series.limits.low), "high": pa.array(series.limits.high)}
        if series.limits.rises is not None:
            columns["rises"] = pa.array(series.limits.rises)
    buffer = io.BytesIO()
    pa_parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def unpack_series(content: bytes, n_series: int) -> SeriesTable:
    """Read the table; raises `ValueError` for a file that `pack_series` has not written."""
    try:
        # A long name that stands for many series is not written out before it is looked at.
        schema = pa_parquet.read_schema(pa.BufferReader(content))
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        file = pa_parquet.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > _MAX_SERIES_BYTES:
            raise ValueError("the series names decompress to an implausible size")
        optional = [f for f in _OPTIONAL_FIELDS if f.name in schema.names]
        limit_names = {"low", "high", "rises"} & set(schema.names)
        is_partial = limit_names and not limit_names >= {"low", "high"}
        if schema != pa.schema([*_SERIES_SCHEMA, *optional]) or is_partial:
            raise ValueError("the series names have been modified")
        if file.metadata.num_rows != n_series:
            raise ValueError(
                f"there are {file.metadata.num_rows} series names instead of {n_series}"
            )
        table = file.read()
        encoded = table.column("series").combine_chunks()
        lengths = pc.binary_length(encoded.dictionary).take(encoded.indices)
        if (pc.sum(lengths).as_py() or 0) > _MAX_SERIES_BYTES:
            raise ValueError("the series names decompress to an implausible size")
        names = encoded.cast(pa.string())
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read the series names: {error}") from error

    if names.null_count or len(names.unique()) != n_series:
        raise ValueError("some series names are missing or duplicated")

    base = table.column("offset").to_numpy()
    if not np.isfinite(base).all():
        raise ValueError("the base of a series is not finite")

    shifts: Floats | None = None
    if "quantile_shifts" in table.column_names:
        flat = table.column("quantile_shifts").combine_chunks().flatten()
        shifts = flat.to_numpy(zero_copy_only=False).reshape(-1, len(TAIL_PAIRS))
        if len(shifts) != len(table):
            raise ValueError("a series has no variation")

    limits = None
    if "low" in table.column_names:
        low, high = (table.column(name).to_numpy() for name in ("low", "high"))
        if not (low <= high).all():  # nor where one of them is NaN or missing
            raise ValueError("a series has a floor above its ceiling")
        rises = None
        if "rises" in table.column_names:
            rises = np.array(table.column("rises").to_pylist(), np.bool_)
        limits = Limits(tuple(names.to_pylist()), low, high, rises)
    return SeriesTable(tuple(names.to_pylist()), tuple(base.tolist()), shifts, limits)


def _unpack_weights(content: bytes) -> Tensors:
    """Return the tensors of a file. Raises `ValueError`."""
    try:
        tensors: Tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"cannot read the weights: {error}") from error
    return tensors


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[str, tuple[int | None, ...]]]
) -> None:
    """Raise `ValueError` unless these are the expected tensors, and all finite.

    `expected` are types and shapes, with None for any length.
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing")
        if name not in expected:
            raise ValueError(f"tensor {name} does not belong to this network")
        tensor, (dtype, shape) = tensors[name], expected[name]
        has_shape = tensor.ndim == len(shape) and all(
            n in (size, None) for n, size in zip(shape, tensor.shape, strict=True)
        )
        if tensor.dtype != dtype or not has_shape:
            raise ValueError(f"tensor {name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} contains a value that is not finite")


def _calibration_of(
    manifest: dict[str, Any], quantile_shifts: Floats | None, horizon: int
) -> Calibration | None:
    stored = manifest["calibration"]
    if stored is None and quantile_shifts is None:
        return None
    if stored is None or quantile_shifts is None:
        raise ValueError("the calibration is incomplete")
    calibration = Calibration.from_json(stored, quantile_shifts)
    if calibration.lead_ends[-1] != horizon:
        raise ValueError("the calibration is for another horizon")
    return calibration


def _check_manifest(manifest: dict[str, Any], artifact: Artifact) -> None:
    """Raise `ValueError` for whatever in the manifest no other check covers.

    It runs last, as the messages of the other checks say more.
    """
    stored = {key: value for key, value in manifest.items() if key != "sha256"}

    for name in ("trained_until", "training_range", "provenance", "parent"):
        hint = str if name == "trained_until" else _HINTS[Artifact][name]
        if not has_type(stored[name], hint):
            raise ValueError(f"{name} is {stored[name]!r}")

    expected = parse_json(to_json(artifact.to_json()))
    for name in sorted(stored.keys() - {"files"} | expected.keys()):
        # Dataclasses gain fields over time: one that was stored may lack those with defaults.
        matches = _is_subset if name in ("config", "spec", "schema") else operator.eq
        is_present = name in stored and name in expected
        if not (is_present and matches(stored[name], expected[name])):
            raise ValueError(f"{name} of the manifest has been modified")

    if digest(to_json(stored)) != manifest["sha256"]:
        raise ValueError("the manifest has been modified (its hash differs)")


def _is_subset(stored: Any, expected: Any) -> bool:
    """Tell whether every stored key and value is expected; objects may lack keys, lists nothing."""
    if isinstance(stored, list) and isinstance(expected, list):
        return len(stored) == len(expected) and all(map(_is_subset, stored, expected))
    if not (isinstance(stored, dict) and isinstance(expected, dict)):
        return bool(stored == expected)
    return set(stored) <= set(expected) and all(
        _is_subset(stored[key], expected[key]) for key in stored
    )


def damaged(directory: AnyPath, reason: str) -> ModelError:
    """Return the error for a version that cannot be used."""
    return ModelError(
        f"cannot use model version {directory}: {reason}",
        code="damaged-model",
        hint="restore it from a backup, activate another version, or retrain",
    )


def seal_source(source: str) -> str | None:
    """Return what shows later that this user has trained a model on a source.

    It is an HMAC by a key that lies in the user's folder of states, mode 600, and is made when it
    is first needed. None where there is no such folder, and none can be made.
    """
    key = _read_key() or _make_key()
    return None if key is None else hmac.new(key, source.encode(), "sha256").hexdigest()


def is_sealed(provenance: Mapping[str, Any]) -> bool:
    """Tell whether the source of a model is one that this user has trained on."""
    source, seal, key = provenance.get("source"), provenance.get("source_seal"), _read_key()
    if key is None or not isinstance(source, str) or not isinstance(seal, str):
        return False
    expected = hmac.new(key, source.encode(), "sha256").hexdigest()
    return hmac.compare_digest(expected.encode(), seal.encode())


def _key_path() -> Path:
    states = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(states).expanduser() / "rnnforecast" / "key"


def _read_key() -> bytes | None:
    with suppress(OSError, RuntimeError):  # there may be no home
        key = _key_path().read_bytes()
        return key if len(key) == _KEY_BYTES else None
    return None


def _make_key() -> bytes | None:
    """Write a random key, unless another process has written one meanwhile, and return it."""
    with suppress(OSError, RuntimeError):
        path = _key_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, open_flags("O_WRONLY", "O_CREAT", "O_EXCL"), 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
        finally:
            os.close(descriptor)
    return _read_key()
