"""Checkpoints: the whole state of a training run between two steps, as one safetensors file.

The file ends with the SHA-256 of everything before it. Whatever is not a tensor is JSON in a tensor
of bytes, because the order of the format's own metadata varies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rnnforecast.config.fields import decode, parse_json, to_json
from rnnforecast.data.arrays import Floats
from rnnforecast.errors import ModelError, UsageError, WriteError
from rnnforecast.events import EpochEnded
from rnnforecast.model.artifact import Tensors, check_tensors
from rnnforecast.parallel import SINGLE_PROCESS, Ranks, broadcast
from rnnforecast.storage.publish import make_directory, publishing_file
from rnnforecast.storage.remote import AnyPath, etag_of, read_bounded

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "rnnforecast-checkpoint"
_FORMAT_VERSION = 2
_MIN_SIZE_LIMIT = 1 << 30
"""A checkpoint of another training run may be larger than this one's: up to this many bytes it is
read nevertheless, so that the message says what differs."""
_TYPES = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}
_STATE, _HASH, _HASH_BYTES = "state", "sha256", 32
_MAX_SHOWN = 60
"""A message shows two differing values only where they have at most this many characters."""
_HINTS = get_type_hints(EpochEnded)
_PARAMETER_KINDS = ("weights", "averaged", "means", "squares")
"""Fields of `MemberState` with an array for each parameter."""
_ARRAYS = ("counts", "losses", "norms", "generator")


@dataclass(frozen=True)
class MemberState:
    """The state of one member between two steps. Parameters are float32, by their names."""

    steps: int
    epochs: tuple[EpochEnded, ...]
    weights: Tensors
    averaged: Tensors
    """Running means of the weights."""
    means: Tensors
    """The optimizer's running means of the gradients."""
    squares: Tensors
    """The optimizer's running means of the squared gradients."""
    counts: Floats
    """`(parameter,)`: steps counted by the optimizer; 0 for one without a gradient so far."""
    losses: Floats
    """`(step,)`, of the epoch under way."""
    norms: Floats
    """`(step,)`, of its gradients before clipping."""
    generator: NDArray[np.uint8]
    """The state of the random number generator."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by their names in a file."""
        by_name = {
            f"{kind}.{parameter}": values
            for kind in _PARAMETER_KINDS
            for parameter, values in getattr(self, kind).items()
        }
        return by_name | {name: getattr(self, name) for name in _ARRAYS}


@dataclass(frozen=True)
class TrainingState:
    """The state of all members, and the round of training that they are in."""

    target: int
    """Steps at which the round ends."""
    active: tuple[int, ...]
    """Indices of the members that train up to there; empty where training is over."""
    members: tuple[MemberState, ...]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of all members, float32 before bytes, so that float32 is aligned."""
        by_name = {
            f"members.{i}.{name}": np.ascontiguousarray(x)
            for i, member in enumerate(self.members)
            for name, x in member.tensors().items()
        }
        return dict(sorted(by_name.items(), key=lambda item: (item[1].dtype == np.uint8, item[0])))


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint file of a training run, and what identifies the run."""

    path: AnyPath
    identity: Mapping[str, str]
    """Everything that the weights depend on, by names for messages: equal means equal weights."""
    is_resuming: bool = False
    """Whether to resume from an existing checkpoint instead of overwriting it."""
    ranks: Ranks = SINGLE_PROCESS
    """Only the first rank reads and writes the file."""

    def save(self, state: TrainingState) -> None:
        """Replace the file atomically. Raises `WriteError`."""
        if self.ranks.rank:
            return
        make_directory(self.path.parent)
        with publishing_file(self.path) as file:
            for part in pack(state, self.identity):
                file.write(part)

    def load(self, like: TrainingState) -> TrainingState | None:
        """Return the state to resume from; None without a checkpoint, or unless resuming.

        `like` is the state of this training run before its first step. Raises `UsageError`, which
        names the differences, for a checkpoint of another training run, and `ModelError` for a
        damaged one.
        """
        if not self.is_resuming:
            return None
        if self.ranks.n == 1:
            return self._read(like)

        state = None if self.ranks.rank else self._read(like)
        packed = None if state is None else b"".join(pack(state, self.identity))
        content = broadcast(self.ranks, packed)
        return None if content is None else unpack(content, like)[0]

    def _read(self, like: TrainingState) -> TrainingState | None:
        """Read the file; None where there is none."""
        if self.stamp() is None:
            return None
        limit = max(_MIN_SIZE_LIMIT, 2 * sum(x.nbytes for x in like.tensors().values()))
        try:
            description, tensors = _parse(read_bounded(self.path, limit))
            _check_identity(self.path, description["identity"], self.identity)
            return _decode_state(description, tensors, like)
        except (KeyError, TypeError) as error:
            raise damaged(self.path, f"it is not a valid checkpoint ({error!r})") from error
        except ValueError as error:
            raise damaged(self.path, str(error)) from error

    def stamp(self) -> tuple[int, int] | None:
        """Return a value that changes with every save; None where there is no readable file."""
        return etag_of(self.path)


def discard_checkpoint(model: AnyPath) -> None:
    """Remove the checkpoint of a model directory. A failure is ignored: a leftover is harmless."""
    path = model / CHECKPOINT
    with suppress(OSError, WriteError):
        path.unlink()


def pack(state: TrainingState, identity: Mapping[str, str]) -> Iterator[bytes | memoryview[Any]]:
    """Yield the parts of the file in order; no tensor is copied."""
    members = [
        {"steps": member.steps, "epochs": [asdict(epoch) for epoch in member.epochs]}
        for member in state.members
    ]
    description = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "identity": dict(identity),
        "target": state.target,
        "going": list(state.active),
        "members": members,
    }

    tensors = {**state.tensors(), _STATE: np.frombuffer(to_json(description), np.uint8)}
    header = _header({name: (_TYPES[x.dtype], x.shape, x.nbytes) for name, x in tensors.items()})

    digest = hashlib.sha256()
    parts: list[bytes | memoryview[Any]] = [header, *(x.data for x in tensors.values())]
    for part in parts:
        digest.update(part)
        yield part
    yield digest.digest()


def unpack(content: bytes, like: TrainingState) -> tuple[TrainingState, dict[str, str]]:
    """Return the state and the identity of a file; `ValueError` for a state not like `like`."""
    description, tensors = _parse(content)
    return _decode_state(description, tensors, like), description["identity"]


def _header(entries: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """Return the header of a safetensors file with these types, shapes and sizes in bytes."""
    listed, begin = {}, 0
    for name, (dtype, shape, size) in {**entries, _HASH: ("U8", (32,), _HASH_BYTES)}.items():
        offsets = [begin, begin + size]
        listed[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        begin += size
    text = json.dumps(listed).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors
    return len(text).to_bytes(8, "little") + text


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return description and tensors of a file; `ValueError` for one that `pack` did not write."""
    end = len(content) - _HASH_BYTES
    if end < 0 or hashlib.sha256(memoryview(content)[:end]).digest() != content[end:]:
        raise ValueError("it has been modified (its hash differs)")
    try:
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"cannot read it: {error}") from error

    description = parse_json(tensors.pop(_STATE).tobytes())
    tensors.pop(_HASH)
    if description["format"] != _FORMAT or type(description["format_version"]) is not int:
        raise ValueError("it is not a checkpoint of rnnforecast")
    if not isinstance(description["identity"], dict):
        raise ValueError("it lacks a description")  # noqa: TRY004
    return description, tensors


def _check_identity(path: AnyPath, stored: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    """Raise `UsageError` for a checkpoint of other readings, options or versions."""
    differences = []
    for name in {**expected, **stored}:
        before, now = stored.get(name), expected.get(name)
        if before != now:
            is_short = len(f"{before}{now}") <= _MAX_SHOWN
            differences.append(
                f"{name} was {before}, now {now}" if is_short else f"different {name}"
            )

    if differences:
        raise UsageError(
            f"checkpoint {path} belongs to a different training: {'; '.join(differences)}",
            code="other-checkpoint",
            hint="use the original data and options, or omit  --resume  to start over",
        )


def _decode_state(
    description: dict[str, Any], tensors: dict[str, NDArray[Any]], like: TrainingState
) -> TrainingState:
    """Build the state that a file holds. Raises `ValueError` for one that is not like `like`."""
    if description["format_version"] != _FORMAT_VERSION:
        raise ValueError(f"its format is {description['format_version']!r}, not {_FORMAT_VERSION}")
    check_tensors(
        tensors,
        {  # an epoch under way has any number of steps
            name: (str(x.dtype), (None,) if name.endswith((".losses", ".norms")) else x.shape)
            for name, x in like.tensors().items()
        },
    )

    indices = range(len(like.members))
    active = description["going"]
    if len(description["members"]) != len(indices) or not set(active) <= set(indices):
        raise ValueError("it has different networks")
    members = tuple(
        _decode_member(scalars, f"members.{i}.", tensors, like.members[i])
        for i, scalars in enumerate(description["members"])
    )

    target = _step_count(description["target"])
    if any(member.steps > target for member in members):
        raise ValueError("a network has more steps than planned")
    return TrainingState(target, tuple(sorted(active)), members)


def _decode_member(
    scalars: dict[str, Any], prefix: str, tensors: dict[str, NDArray[Any]], like: MemberState
) -> MemberState:
    arrays: dict[str, Any] = {name: tensors[f"{prefix}{name}"] for name in _ARRAYS}
    for kind in _PARAMETER_KINDS:
        arrays[kind] = {name: tensors[f"{prefix}{kind}.{name}"] for name in getattr(like, kind)}

    return MemberState(
        steps=_step_count(scalars["steps"]),
        epochs=tuple(decode(EpochEnded, epoch, _HINTS) for epoch in scalars["epochs"]),
        **arrays,
    )


def _step_count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of steps")
    return value


def damaged(path: AnyPath, reason: str) -> ModelError:
    """Return the error for a checkpoint that cannot be used."""
    return ModelError(
        f"cannot use checkpoint {path}: {reason}",
        code="damaged-checkpoint",
        hint="omit  --resume  to train from the beginning",
    )
