"""Covariates as inputs of the network: standardised, and cut into segments."""

from __future__ import annotations

import numpy as np

from rnnforecast.data.arrays import Doubles, Floats
from rnnforecast.data.panel import Features
from rnnforecast.data.season import ffill
from rnnforecast.model.inputs import Inputs, Places, compress

_MOST = 10.0
"""Features are clipped to this many standard deviations around their mean."""
_LEAST_ERROR = 0.01
"""Least error of the reaction, in units of the best expert's, whose logarithm is an input."""


def standardise(features: Features, mean: Floats, scale: Floats) -> Features:
    """Standardise covariates; an unknown value repeats the last one, or is the mean, 0.

    `mean` and `scale`, `(feature,)`, are those of known, past and static ones, in this order.
    """
    n_known, n_past = features.known.shape[1], features.past.shape[1]

    def standard(values: Floats, begin: int) -> Doubles:
        places = slice(begin, begin + values.shape[1])
        shape = (1, -1, *[1] * (values.ndim - 2))
        return np.clip(
            (values.astype(np.float64) - mean[places].reshape(shape))
            / scale[places].reshape(shape),
            -_MOST,
            _MOST,
        )

    def filled(values: Doubles) -> Floats:
        flat, _ = ffill(values.reshape(-1, values.shape[-1]))
        return np.nan_to_num(flat).reshape(values.shape).astype(np.float32)

    return Features(
        known=filled(standard(features.known, 0)),
        past=filled(standard(features.past, n_known)),
        static=np.nan_to_num(standard(features.static, n_known + n_past)).astype(np.float32),
    )


def covariate_inputs(features: Features, places: Places, segment: int, inputs: Inputs) -> Floats:
    """Return what is known of standardised covariates in segments, `(window, segment, input)`.

    For each segment: the known ones in the segment before and in it, the past ones in the one
    before, 0 where that lies ahead, the static ones; the reaction, and its error's logarithm.
    """
    numbers, n_all = places.segments, places.n_segments + places.n_ahead
    n_before = places.n_segments * segment - features.past.shape[2]  # rows before the first

    def cut(values: Floats) -> Floats:
        """Return `(stretch, segment, feature * row)`, with zeros where there is no row."""
        n, n_features, length = values.shape
        table = np.zeros((n, n_features, n_all * segment), np.float32)
        length = min(length, n_all * segment - n_before)
        table[:, :, n_before : n_before + length] = values[:, :, :length]
        parts = table.reshape(n, n_features, n_all, segment).transpose(0, 2, 1, 3)
        return parts.reshape(n, n_all, n_features * segment)

    known, past = cut(features.known), cut(features.past)
    stretch = places.stretch[:, None]
    now, last = np.maximum(numbers, 0), np.maximum(numbers - 1, 0)
    is_known = (numbers >= 1) & (numbers <= places.boundary[:, None])
    static = np.repeat(features.static[places.stretch, None], numbers.shape[1], axis=1)
    parts = [
        np.where((numbers >= 1)[..., None], known[stretch, last], np.float32(0)),
        np.where((numbers >= 0)[..., None], known[stretch, now], np.float32(0)),
        np.where(is_known[..., None], past[stretch, last], np.float32(0)),
        static,
    ]
    if features.known.shape[1]:
        error = np.log(np.maximum(inputs.reaction_error / inputs.gain, _LEAST_ERROR))
        parts += [compress(inputs.reaction.astype(np.float64)), 0.5 * error[..., None]]
    joined: Floats = np.concatenate(parts, axis=-1).astype(np.float32)
    return joined
