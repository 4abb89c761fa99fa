"""Columns of covariates to features on the grid: numbers as they are, texts by what they say.

Apart from `covariates`, which holds the result, and `placing`, which finds each row's place. A
column of texts becomes one feature for each of its commonest texts and one for all others; a text
that is new when forecasting counts among these.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rnnforecast.data.covariates import Covariates, Track
from rnnforecast.data.naming import canonical
from rnnforecast.data.panel import Floats, Integers
from rnnforecast.data.schema import Covariate, Schema
from rnnforecast.errors import DataError
from rnnforecast.events import Listener, Noted, Warned

_MOST_CATEGORIES = 32
_RARE = 0.001
"""Texts in a smaller share of the rows are not told apart: there is nothing to learn of them."""


def settle_covariates(
    schema: Schema, texts: dict[str, list[str]], chunks: dict[str, list[Floats]], listener: Listener
) -> Schema:
    """Settle which covariates there are, and which texts of each are told apart.

    `texts` are all that occur in a column, `chunks` its values, `(row,)` each: numbers, or those of
    texts. A model has settled it already.
    """
    if schema.step_us is not None:
        return schema
    empty = [
        name for name, values in chunks.items() if not any(np.isfinite(x).any() for x in values)
    ]
    if empty:
        listener(Warned.naming("empty-covariate", "no values, left out", empty))
    settled = []
    for covariate in schema.covariates:
        name = covariate.name
        if name in empty:
            continue
        categories = _common(texts[name], chunks[name]) if covariate.is_text else None
        if categories is not None:
            listener(Noted(f"column {name!r} is one of {', '.join(categories)}"))
        settled.append(replace(covariate, categories=categories))
    return replace(schema, covariates=tuple(settled))


def _common(texts: list[str], chunks: list[Floats]) -> tuple[str, ...]:
    """Return the texts that occur often enough, the commonest first."""
    counts = _counts(len(texts), chunks)
    order = np.argsort(-counts, kind="stable")[:_MOST_CATEGORIES]
    return tuple(texts[i] for i in order if counts[i] > _RARE * counts.sum())


def _counts(n_texts: int, chunks: list[Floats]) -> Integers:
    """Return how often each text occurs, `(text,)`."""
    counts = np.zeros(n_texts, np.int64)
    for chunk in chunks:
        counts += np.bincount(chunk[np.isfinite(chunk)].astype(np.int64), minlength=n_texts)
    return counts


def numbers_of(covariate: Covariate, texts: list[str]) -> Floats:
    """Return the number of each text, `(text,)`: that of its category; beyond these, its own.

    A text that is no category counts as the only one that writes the same number, as 2 and 2.0 do.
    """
    categories = covariate.categories or ()
    exact = {text: i for i, text in enumerate(categories)}
    alike: dict[str, list[int]] = {}
    for text, i in exact.items():
        alike.setdefault(canonical(text), []).append(i)

    def number(i: int, text: str) -> int:
        found = [exact[text]] if text in exact else alike.get(canonical(text), [])
        return found[0] if len(found) == 1 else len(categories) + i

    return np.array([number(i, text) for i, text in enumerate(texts)], np.float32)


def warn_of_unknown(
    covariate: Covariate, texts: list[str], chunks: list[Floats], name: str, listener: Listener
) -> None:
    """Say so where most values of a column are texts that the model does not tell apart.

    `chunks` hold the numbers of `texts`, `(row,)` each, of the file that has this name.
    """
    counts = _counts(len(texts), chunks)
    is_unknown = numbers_of(covariate, texts) >= len(covariate.categories or ())
    if 2 * counts[is_unknown].sum() > counts.sum():
        order = np.argsort(-counts, kind="stable")
        unknown = [texts[i] for i in order if is_unknown[i] and counts[i]]
        what = f"most of column {covariate.name!r} of {name} is unknown to the model"
        listener(Warned.naming("unknown-categories", what, unknown))


def features_of(covariate: Covariate, placed: Floats) -> tuple[Floats, list[str]]:
    """Return a covariate's features, `(feature, place)`, and what each is called; NaN is unknown.

    `placed` holds its numbers, `(place,)`; of texts those that `numbers_of` gives.
    """
    if covariate.categories is None:
        return placed[None], [covariate.name]
    other = len(covariate.categories)
    is_known = np.isfinite(placed)
    category = np.minimum(np.where(is_known, placed, other), other).astype(np.int64)
    features = (category == np.arange(other + 1)[:, None]).astype(np.float32)
    features[:, ~is_known] = np.nan
    return features, [f"{covariate.name}={text}" for text in (*covariate.categories, "(other)")]


def once_a_series(
    covariate: Covariate, placed: Floats, offsets: Integers, names: list[str]
) -> Floats:
    """Return the one value that each series has, `(series,)`; NaN where it has none.

    `placed` holds numbers, or numbers of texts, `(place,)`. Raises `DataError` for a series that
    has several.
    """
    starts = offsets[:-1]
    low = np.fmin.reduceat(placed, starts)
    high = np.fmax.reduceat(placed, starts)
    differs = np.flatnonzero(low < high)
    if len(differs):
        raise DataError(
            f"column {covariate.name!r} is not the same at all times for series "
            f"{names[differs[0]]!r}" + f" and {len(differs) - 1} more" * (len(differs) > 1),
            code="not-static",
            hint=f"if it is known ahead, write  --known {covariate.name} , else  "
            f"--past {covariate.name}",
        )
    return low


def tracks_of(
    features: dict[str, list[Floats]],
    names: dict[str, list[str]],
    offsets: Integers,
    n_targets: int,
) -> Covariates:
    """Put features by role, `(feature, place)` or `(feature, series)`, together for a panel.

    The targets of a wide table share them.
    """
    begin, high = np.tile(offsets[:-1], n_targets), np.tile(offsets[1:], n_targets)

    def track(role: str) -> Track:
        values = np.concatenate([*features[role], np.empty((0, int(offsets[-1])), np.float32)])
        return Track(values, tuple(names[role]), begin, low=begin, high=high)

    static = np.concatenate([*features["static"], np.empty((0, len(offsets) - 1), np.float32)])
    return Covariates((track("known"),), track("past"), np.tile(static.T, (n_targets, 1)))
