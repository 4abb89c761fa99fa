"""The state of a training that is under way, as one file."""

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

from rnnforecast.config.fields import build, parse_json, to_json
from rnnforecast.data.arrays import Floats
from rnnforecast.errors import ModelError, UsageError, WriteError
from rnnforecast.events import EpochEnded
from rnnforecast.model.artifact import Tensors
from rnnforecast.parallel import ALONE, Ranks, sent_by_first
from rnnforecast.storage.publish import make_directory, publishing_file
from rnnforecast.storage.remote import Place, etag_of, read_bounded

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "rnnforecast-checkpoint"
_FORMAT_VERSION = 2
_LEAST_LIMIT = 1 << 30
"""A checkpoint of another training may be larger than this one's, and is to be told from it."""
_TYPES = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}
_STATE, _HASH, _HASH_BYTES = "state", "sha256", 32
_SHOWN = 60
"""Characters of two values that are shown in a message."""
_HINTS = get_type_hints(EpochEnded)
KINDS = ("weights", "averaged", "best", "means", "squares")
"""What there is of each parameter."""


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps its checkpoint, and how it is told from another one's."""

    path: Place
    identity: Mapping[str, str]
    """All that the weights depend on, by names for messages: the same means the same result."""
    is_resuming: bool = False
    """Whether a checkpoint that is there is gone on from, rather than overwritten."""
    ranks: Ranks = ALONE
    """Of these the first alone reads and writes it."""

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint; a reader sees the old or the new one. Raises `WriteError`."""
        if self.ranks.rank:
            return
        make_directory(self.path.parent)
        with publishing_file(self.path) as file:
            for part in pack(state, self.identity):
                file.write(part)

    def load(self, like: TrainingState) -> TrainingState | None:
        """Return what to go on from; None where there is nothing, or it is not wanted.

        `like` is this training before its first step. Raises `UsageError` for the checkpoint of
        another training, saying what differs, and `ModelError` for a damaged one.
        """
        if not self.is_resuming:
            return None
        if self.ranks.n == 1:
            return self._read(like)
        state = None if self.ranks.rank else self._read(like)
        packed = None if state is None else b"".join(pack(state, self.identity))
        content = sent_by_first(self.ranks, packed)
        return None if content is None else unpack(content, like)[0]

    def _read(self, like: TrainingState) -> TrainingState | None:
        """Read the file; None where there is none."""
        if self.stamp() is None:
            return None
        limit = max(_LEAST_LIMIT, 2 * sum(x.nbytes for x in like.tensors().values()))
        try:
            description, tensors = _parse(read_bounded(self.path, limit))
            _check_same(self.path, description["identity"], self.identity)
            return _state_of(description, tensors, like)
        except (KeyError, TypeError) as error:
            raise damaged(self.path, f"it is not what a training writes ({error!r})") from error
        except ValueError as error:
            raise damaged(self.path, str(error)) from error

    def stamp(self) -> tuple[int, int] | None:
        """Return what changes whenever the checkpoint is saved; None where there is none."""
        return etag_of(self.path)


def discard_checkpoint(model: Place) -> None:
    """Remove the checkpoint in a model directory. Where that fails it stays, and does no harm."""
    path = model / CHECKPOINT
    with suppress(OSError, WriteError):
        path.unlink()


def damaged(path: Place, reason: str) -> ModelError:
    """Say that a checkpoint cannot be used, and why."""
    return ModelError(
        f"the checkpoint {path} cannot be used: {reason}",
        code="damaged-checkpoint",
        hint="leave out  --resume  to train from the beginning",
    )


def pack(state: TrainingState, identity: Mapping[str, str]) -> Iterator[bytes | memoryview[Any]]:
    """Give the parts of the file, one after the other; no tensor is copied."""
    description = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "identity": dict(identity),
        "target": state.target,
        "going": list(state.going),
        "members": [member.figures() for member in state.members],
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
    """Return what `pack` has packed. Raises `ValueError` for what does not fit `like`."""
    description, tensors = _parse(content)
    return _state_of(description, tensors, like), description["identity"]


def _header(entries: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """Return the header of a safetensors file with these types, shapes and sizes in bytes."""
    listed, begin = {}, 0
    for name, (kind, shape, size) in {**entries, _HASH: ("U8", (32,), _HASH_BYTES)}.items():
        offsets = [begin, begin + size]
        listed[name] = {"dtype": kind, "shape": list(shape), "data_offsets": offsets}
        begin += size
    text = json.dumps(listed).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what a file says, and its tensors; `ValueError` for what `pack` has not written."""
    end = len(content) - _HASH_BYTES
    if end < 0 or hashlib.sha256(memoryview(content)[:end]).digest() != content[end:]:
        raise ValueError("it is not what was written (its hash differs)")
    try:
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"it cannot be read: {error}") from error

    description = parse_json(tensors.pop(_STATE).tobytes())
    tensors.pop(_HASH)
    if description["format"] != _FORMAT or type(description["format_version"]) is not int:
        raise ValueError("it is no checkpoint of rnnforecast")
    if not isinstance(description["identity"], dict):
        raise ValueError("it does not say of what it is")  # noqa: TRY004
    return description, tensors


def _check_same(path: Place, stored: Mapping[str, Any], expected: Mapping[str, str]) -> None:
    """Raise `UsageError` for a checkpoint of other readings, options or versions."""
    differing = [name for name in {**expected, **stored} if stored.get(name) != expected.get(name)]
    if not differing:
        return
    differences = [_difference(name, stored.get(name), expected.get(name)) for name in differing]
    raise UsageError(
        f"{path} is a checkpoint of another training: {'; '.join(differences)}",
        code="other-checkpoint",
        hint="go on with what it was begun with, or leave out  --resume  to begin anew",
    )


def _difference(name: str, stored: Any, expected: str | None) -> str:
    if len(f"{stored}{expected}") > _SHOWN:
        return f"other {name}"
    return f"{name} was {stored}, and is {expected}"


def _state_of(
    description: dict[str, Any], tensors: dict[str, NDArray[Any]], like: TrainingState
) -> TrainingState:
    """Put a state together again. Raises `ValueError` for what does not fit."""
    if description["format_version"] != _FORMAT_VERSION:
        raise ValueError(f"its format is {description['format_version']!r}, not {_FORMAT_VERSION}")
    _check_tensors(tensors, like.tensors())

    numbers = range(len(like.members))
    going = description["going"]
    if len(description["members"]) != len(numbers) or not set(going) <= set(numbers):
        raise ValueError("it is of other members")
    members = tuple(
        _member_of(figures, f"members.{number}.", tensors, like.members[number])
        for number, figures in enumerate(description["members"])
    )

    target = _counted(description["target"])
    if any(member.steps > target for member in members):
        raise ValueError("a member is further than it was to go")
    return TrainingState(target, tuple(sorted(going)), members)


def _member_of(
    figures: dict[str, Any], prefix: str, tensors: dict[str, NDArray[Any]], like: MemberState
) -> MemberState:
    best_loss = figures["best_loss"]
    if best_loss is not None and type(best_loss) is not float:
        raise ValueError(f"the best loss is {best_loss!r}")

    parameters = {
        kind: {name: tensors[f"{prefix}{kind}.{name}"] for name in getattr(like, kind)}
        for kind in KINDS
    }

    return MemberState(
        steps=_counted(figures["steps"]),
        best_steps=_counted(figures["best_steps"]),
        best_loss=best_loss,
        epochs=tuple(build(EpochEnded, epoch, _HINTS) for epoch in figures["epochs"]),
        weights=parameters["weights"],
        averaged=parameters["averaged"],
        best=parameters["best"],
        means=parameters["means"],
        squares=parameters["squares"],
        counts=tensors[f"{prefix}counts"],
        losses=tensors[f"{prefix}losses"],
        norms=tensors[f"{prefix}norms"],
        generator=tensors[f"{prefix}generator"],
    )


def _counted(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of steps")
    return value


def _check_tensors(tensors: Mapping[str, NDArray[Any]], like: Mapping[str, NDArray[Any]]) -> None:
    """Raise `ValueError` for tensors that a state like this does not have, or that hold no number.

    How many steps of the epoch there are differs.
    """
    for name in sorted(tensors.keys() | like.keys()):
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing")
        if name not in like:
            raise ValueError(f"tensor {name} does not belong to this training")

        tensor, expected = tensors[name], like[name]
        is_free = name.endswith((".losses", ".norms")) and tensor.ndim == 1
        if tensor.dtype != expected.dtype or not (is_free or tensor.shape == expected.shape):
            raise ValueError(
                f"tensor {name} is {tensor.dtype} {tensor.shape}, "
                f"not {expected.dtype} {expected.shape}"
            )
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds a value that is not finite")


@dataclass(frozen=True)
class MemberState:
    """One member between two of its steps. Parameters are float32, by their names."""

    steps: int
    best_steps: int
    best_loss: float | None
    """None as long as there was none."""
    epochs: tuple[EpochEnded, ...]
    weights: Tensors
    averaged: Tensors
    best: Tensors
    means: Tensors
    """Running means of the gradients, as the optimizer keeps them."""
    squares: Tensors
    """The same of their squares."""
    counts: Floats
    """`(parameter,)`: for how many steps the optimizer has; 0 where it has not seen a gradient."""
    losses: Floats
    """`(step,)` of the epoch that is not over."""
    norms: Floats
    """`(step,)`, of the gradients, before clipping."""
    generator: NDArray[np.uint8]
    """The state of the source of random numbers."""

    @property
    def _rest(self) -> dict[str, NDArray[Any]]:
        names = ("counts", "losses", "norms", "generator")
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all of them by the name that they have in a file."""
        named = {f"{kind}.{n}": x for kind in KINDS for n, x in getattr(self, kind).items()}
        return {**named, **self._rest}

    def figures(self) -> dict[str, Any]:
        """Return the rest."""
        return {
            "steps": self.steps,
            "best_steps": self.best_steps,
            "best_loss": self.best_loss,
            "epochs": [asdict(epoch) for epoch in self.epochs],
        }


@dataclass(frozen=True)
class TrainingState:
    """All members, and how far the committee was."""

    target: int
    """Steps after which it looks again who goes on."""
    going: tuple[int, ...]
    """Numbers of the members that are on their way there; none where the fit is over."""
    members: tuple[MemberState, ...]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return those of all members, float32 before bytes."""
        named = {
            f"members.{number}.{name}": np.ascontiguousarray(x)
            for number, member in enumerate(self.members)
            for name, x in member.tensors().items()
        }
        return dict(sorted(named.items(), key=lambda item: (item[1].dtype == np.uint8, item[0])))
