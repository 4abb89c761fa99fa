"""The forward pass of a member in numpy, by which everything is forecast; torch only trains.

It computes what `model.member` computes, from the same weights by their names in the artifact.
Arrays lie by feature, then by window: gates are whole blocks of memory, and a mean over features
runs along the windows. N windows, S segments, K experts, Q quantiles, P rows of a segment, D wide
states.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from rnnforecast.data.arrays import Floats, Integers
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.inputs import MIN_GAIN, Segments
from rnnforecast.spec import CELLS, N_EXPERTS, N_FULL, MemberSpec

_COLUMNS = 16
"""Windows in one product of matrices. A library of linear algebra rounds otherwise where a window
stands elsewhere among others, or beside more of them: in products of this one shape, a forecast
has the same bytes whatever is forecast beside it."""
_WINDOWS = 256
"""Windows that are computed together: their states and gates fit into the cache of a core."""
_NORM_EPSILON = np.float32(1e-5)


@dataclass(frozen=True)
class MemberWeights:
    """The weights of one member, float32, by their names in the artifact without its number."""

    spec: MemberSpec
    tensors: Tensors

    def product(self, name: str, x: Floats, inputs: slice = slice(None)) -> Floats:
        """Multiply x, `(..., input, N)`, by the weights of a layer, or of some of its inputs."""
        weight = self.tensors[f"{name}.weight"][:, inputs]
        out = np.empty((*x.shape[:-2], len(weight), x.shape[-1]), np.float32)
        np.matmul(weight, _in_blocks(x), out=_in_blocks(out))
        return out

    def linear(self, name: str, x: Floats) -> Floats:
        """Apply a linear layer to x, `(..., input, N)`."""
        out = self.product(name, x)
        out += self.tensors[f"{name}.bias"][:, None]
        return out

    def norm(self, name: str, x: Floats) -> Floats:
        """Normalise the features of each window of x, `(..., feature, N)`, to mean 0, variance 1.

        Then they are scaled and moved by weights.
        """
        centred: Floats = x - x.mean(-2, keepdims=True)
        variance = np.square(centred).mean(-2, keepdims=True)
        centred /= np.sqrt(variance + _NORM_EPSILON)
        centred *= self.tensors[f"{name}.weight"][:, None]
        centred += self.tensors[f"{name}.bias"][:, None]
        return centred


@dataclass(frozen=True)
class _States:
    """States of one layer after 0, 1, ... segments, `(1 + S, D, N)`; `memory` is the LSTM's."""

    hidden: Floats
    memory: Floats | None

    def at(self, segment: Integers, stretch: Integers) -> tuple[Floats, Floats | None]:
        """Return the states of stretches after some of their segments, `(D, N)` each."""

        def select(states: Floats) -> Floats:
            return np.ascontiguousarray(states[segment, :, stretch].T)

        return select(self.hidden), None if self.memory is None else select(self.memory)


def member_quantiles(
    member: MemberWeights,
    history: Segments[Floats],
    ahead: Segments[Floats],
    stretch: Integers,
    state: Integers,
    *,
    median: int,
) -> Floats:
    """Return quantiles of segments ahead less the level, in units of the spread, `(N, S, P, Q)`.

    `history` is that of stretches. Window n is forecast from stretch[n], after state[n] of its
    segments. `median` is the number of the median among the quantiles.
    """
    n_stretches, n_windows = len(history.gain), len(stretch)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # as torch computes
        chunks = [_encode(member, _part(history, i)) for i in _slices(n_stretches)]
        states = [_joined(of_block) for of_block in zip(*chunks, strict=True)]
        parts = []
        for places in _slices(n_windows):
            segments = _part(ahead, places)
            n_padded = segments.gain.shape[1]
            at = (_padded(x[places], n_padded) for x in (state, stretch))
            x = _encode_ahead(member, states, segments, *at)
            quantiles = _decode(member, x, segments, median)
            n = len(stretch[places])
            parts.append(quantiles.transpose(3, 0, 2, 1)[:n])
    return np.concatenate(parts)


def _slices(n: int) -> list[slice]:
    return [slice(first, first + _WINDOWS) for first in range(0, max(n, 1), _WINDOWS)]


def _part(segments: Segments[Floats], windows: slice) -> Segments[Floats]:
    """Return the inputs of some windows with the windows last, `(S, ..., N)`, and zeros behind."""

    def turned(values: Floats) -> Floats:
        part = values[windows]
        n = max(-(-len(part) // _COLUMNS), 1) * _COLUMNS
        out = np.zeros((*part.shape[1:], n), np.float32)
        out[..., : len(part)] = np.moveaxis(part, 0, -1)
        return out

    return segments.apply(turned)


def _padded(numbers: Integers, n: int) -> Integers:
    """Return numbers of windows, and zeros behind, `(n,)`."""
    out = np.zeros(n, np.int64)
    out[: len(numbers)] = numbers
    return out


def _joined(parts: tuple[_States, ...]) -> _States:
    """Join the states of chunks of windows."""
    if len(parts) == 1:
        return parts[0]
    memories = [part.memory for part in parts if part.memory is not None]
    return _States(
        np.concatenate([part.hidden for part in parts], axis=-1),
        np.concatenate(memories, axis=-1) if memories else None,
    )


def _in_blocks(x: NDArray[Any]) -> NDArray[Any]:
    """View an array, `(..., feature, N)`, as blocks of windows, `(..., block, feature, 16)`."""
    return x.reshape(*x.shape[:-1], -1, _COLUMNS).swapaxes(-3, -2)


def _embed(member: MemberWeights, segments: Segments[Floats]) -> Floats:
    """Return the input of the first block, `(S, D, N)`."""
    x = member.linear("embed", segments.values)
    x += member.linear("embed_again", _silu(x))
    if member.spec.covariates:
        assert segments.covariates is not None
        x += member.product("covariates_to_state", segments.covariates)
    return x


def _encode(member: MemberWeights, segments: Segments[Floats]) -> list[_States]:
    """Run the blocks over all segments, `(S, ..., N)`; return the states of each block."""
    x = _embed(member, segments)
    states = []
    for number in range(member.spec.layers):
        begin = np.zeros(x.shape[1:], np.float32)
        memory = begin if CELLS[member.spec.cell].has_memory else None
        if number:  # what comes out of the last block is not needed
            x = _between(member, number - 1, x)
        x, of_block = _recur(member, number, x, begin, memory)
        states.append(of_block)
    return states


def _encode_ahead(
    member: MemberWeights,
    states: list[_States],
    ahead: Segments[Floats],
    state: Integers,
    stretch: Integers,
) -> Floats:
    """Run the blocks over segments ahead, from the states of stretches, `(S, D, N)`."""
    x = _embed(member, ahead)
    for number, of_block in enumerate(states):
        x, _ = _recur(member, number, x, *of_block.at(state, stretch))
        x = _between(member, number, x)
    return x


def _recur(
    member: MemberWeights, number: int, x: Floats, hidden: Floats, memory: Floats | None
) -> tuple[Floats, _States]:
    """Run a block's recurrence over segments, `(S, D, N)`, from a state.

    Returns its states added to them, and all states.
    """
    block = f"blocks.{number}"
    cell, cells = member.spec.cell, f"{block}.recurrence"
    all_hidden = np.empty((1 + len(x), *hidden.shape), np.float32)
    all_memory = None if memory is None else np.empty_like(all_hidden)
    all_hidden[0] = hidden
    if all_memory is not None:
        all_memory[0] = memory

    gates = member.linear(f"{cells}.linear_ih", member.norm(f"{block}.norm", x))
    for segment, x_gates in enumerate(gates):
        before, after = all_hidden[segment], all_hidden[segment + 1]
        if cell == "mingru":
            _mingru_step(x_gates, before, after)
            continue
        h_gates = member.linear(f"{cells}.linear_hh", before)
        if cell == "gru":
            _gru_step(x_gates, h_gates, before, after)
        elif all_memory is not None:
            _lstm_step(x_gates, h_gates, all_memory[segment], after, all_memory[segment + 1])
        else:
            np.tanh(x_gates + h_gates, out=after)

    return x + all_hidden[1:], _States(all_hidden, all_memory)


def _between(member: MemberWeights, number: int, x: Floats) -> Floats:
    """Add what the layer after a block's recurrence makes of segments, `(S, D, N)`, to them."""
    block = f"blocks.{number}"
    between = member.linear(f"{block}.expand", member.norm(f"{block}.norm_between", x))
    x += member.linear(f"{block}.contract", _silu(between))
    return x


def _decode(
    member: MemberWeights, encoded: Floats, segments: Segments[Floats], median: int
) -> Floats:
    """Return the quantiles of segments from their states, `(S, D, N)`: `(S, Q, P, N)`."""
    width = member.spec.hidden
    hidden = member.product("head_hidden", member.norm("norm", encoded), slice(width))
    hidden += member.product("head_hidden", segments.values, slice(width, None))
    hidden += member.tensors["head_hidden.bias"][:, None]
    if member.spec.covariates:
        assert segments.covariates is not None
        hidden += member.product("covariates_to_head", segments.covariates)
    hidden = _silu(hidden)
    out = member.linear("head", hidden)
    out = out.reshape(len(out), -1, member.spec.segment, out.shape[-1])

    n_quantiles = out.shape[1] - N_EXPERTS
    gain, has_reaction = segments.gain, "reaction_head.weight" in member.tensors
    if has_reaction and segments.reaction_error is not None:
        gain = np.minimum(gain, np.maximum(segments.reaction_error, np.float32(MIN_GAIN)))
    unit = gain[:, None, None]

    weights = out[:, n_quantiles:]
    full = _softmax(weights[:, :N_FULL])
    middle = out[:, 0] * unit[:, 0]
    middle += np.einsum("skpn,skpn->spn", full, segments.experts[:, :N_FULL])
    middle += np.einsum("skpn,skpn->spn", weights[:, N_FULL:], segments.experts[:, N_FULL:])
    if has_reaction:
        assert segments.reaction is not None
        middle += member.linear("reaction_head", hidden) * segments.reaction

    gaps = _softplus(out[:, 1:n_quantiles])
    gaps *= unit
    n_above = n_quantiles - 1 - median
    quantiles = np.empty((len(out), n_quantiles, *out.shape[2:]), np.float32)
    quantiles[:, median] = middle
    for number in range(n_above):  # no gap is negative: quantiles cannot cross
        np.add(
            quantiles[:, median + number], gaps[:, number], out=quantiles[:, median + number + 1]
        )
    for number in range(median):
        np.subtract(
            quantiles[:, median - number],
            gaps[:, n_above + number],
            out=quantiles[:, median - number - 1],
        )
    return quantiles


def _gru_step(x: Floats, h: Floats, before: Floats, after: Floats) -> None:
    """reset, update = sigmoid(x + h); new = tanh(x + reset * h); state = new + update (h - new)."""
    width = len(before)
    gates = _sigmoid(x[: 2 * width] + h[: 2 * width])
    reset, update = gates[:width], gates[width:]
    reset *= h[2 * width :]
    reset += x[2 * width :]
    new = np.tanh(reset, out=reset)
    np.subtract(before, new, out=after)
    after *= update
    after += new


def _lstm_step(
    x: Floats, h: Floats, memory_before: Floats, after: Floats, memory_after: Floats
) -> None:
    """enter, forget, leave = sigmoid(x + h); memory = forget * memory + enter * tanh(x + h)."""
    gates = (x + h).reshape(4, *after.shape)
    enter, forget, new, leave = gates
    for gate in (enter, forget, leave):
        _sigmoid(gate)
    np.tanh(new, out=new)
    np.multiply(forget, memory_before, out=memory_after)
    memory_after += np.multiply(enter, new, out=enter)
    np.tanh(memory_after, out=after)
    after *= leave


def _mingru_step(x: Floats, before: Floats, after: Floats) -> None:
    """update, new = sigmoid(x), x; state = new + update (state - new)."""
    update, new = _sigmoid(x[: len(before)]), x[len(before) :]
    np.subtract(before, new, out=after)
    after *= update
    after += new


def _sigmoid(x: Floats) -> Floats:
    """Replace x by its logistic function: by that of tanh, which neither overflows nor is slow."""
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x *= np.float32(0.5)
    x += np.float32(0.5)
    return x


def _silu(x: Floats) -> Floats:
    """Return x times its logistic function."""
    out = _sigmoid(x.copy())
    out *= x
    return out


def _softmax(x: Floats) -> Floats:
    """Return shares of experts, `(S, K, P, N)`, that add up to 1."""
    shares: Floats = x - x.max(1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(1, keepdims=True)
    return shares


def _softplus(x: Floats) -> Floats:
    """Return log(1 + exp(x))."""
    out: Floats = np.negative(np.abs(x))
    np.exp(out, out=out)
    np.log1p(out, out=out)
    out += np.maximum(x, np.float32(0))
    return out


_limit_lock = threading.Lock()
_limits: list[Any] = []
"""The limit that is in force, once for each context that is open."""


@cache
def _libraries() -> Any:
    """Find the libraries of linear algebra that are loaded; numpy has loaded its own by then."""
    return threadpoolctl.ThreadpoolController()


def _take_control() -> None:
    """Let this thread set the limit of OpenBLAS.

    From 3.8 on, threadpoolctl ignores all but the first thread that has set one, as long as that
    lives. Here a lock keeps threads from setting it at the same time.
    """
    library: Any = getattr(threadpoolctl, "OpenBLASController", None)
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Let products of matrices take one thread, in the whole process, inside of the context.

    How a library divides one among threads shows in the last bits of its result. Contexts of
    several threads may overlap: the last one that ends lifts the limit.
    """
    with _limit_lock:
        if not _limits:
            _take_control()
        limit = _limits[0] if _limits else _libraries().limit(limits=1, user_api="blas")
        _limits.append(limit)
    try:
        yield
    finally:
        with _limit_lock:
            _limits.pop()
            if not _limits:
                _take_control()
                limit.restore_original_limits()
                _take_control()
