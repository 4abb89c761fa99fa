"""Covariate columns as features of the network: numbers, categories, calendar, holidays."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import MAX_FEATURES, MAX_HORIZON
from rnnforecast.data.arrays import Floats, Integers
from rnnforecast.data.panel import Covariates, Panel, Track
from rnnforecast.data.schema import Covariate, Schema, canonical
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.parallel import Ranks, any_has, counts_of_all
from rnnforecast.sources.files import check_memory

_MOST_CATEGORIES = 32
_RARE = 0.001
"""Texts in a smaller share of the rows are not told apart: there is nothing to learn of them."""
_DAY_US = 86_400_000_000
_FAR_US = 36_525 * _DAY_US
"""Nobody knows the holidays after a century."""
_HARMONICS = (1, 2)


def settle_covariates(
    panel: Panel,
    schema: Schema,
    texts: dict[str, list[str]],
    config: DataConfig,
    listener: Listener,
    *,
    until_us: int | None,
) -> tuple[Panel, Schema]:
    """Make features of a panel's covariates, and settle which texts of each are told apart.

    `texts` are all that occur in a column. What is told apart, and whether there is anything to
    tell, is found in the rows before `until_us`; a model has settled it already. Raises `DataError`
    where there are more features than a network takes.
    """
    if panel.covariates is None:
        return panel, schema
    columns = _columns(panel, panel.covariates, until_us)
    if schema.step_us is None:
        schema = _settled(schema, columns, texts, listener, panel.ranks)
        columns |= _renumbered(schema, columns, texts)
    else:
        empty = [c.name for c in schema.covariates if not columns[c.name].has_values]
        _warn_of_empty(empty, "no values: the forecasts do without what they would say", listener)
    if not schema.covariates:
        return replace(panel, covariates=None), schema
    _check_size(panel, schema, config)
    return replace(panel, covariates=_expanded(panel.covariates, schema, columns)), schema


class _Column(NamedTuple):
    """What one column holds: numbers, or those of texts."""

    values: Floats
    """`(place,)`, or `(series,)` of a static one."""
    early: Floats
    """Those of them that may be looked at."""

    @property
    def has_values(self) -> bool:
        """Whether any of the early ones is known."""
        return bool(np.isfinite(self.early).any())


def _columns(panel: Panel, beside: Covariates, until_us: int | None) -> dict[str, _Column]:
    """Return each column by its name."""
    n_rows = panel.lengths if until_us is None else panel.rows_before(until_us)
    columns = {}
    for track in (*beside.known, beside.past):
        is_early = slice(None) if until_us is None else track.rows(n_rows)
        for name, values in zip(track.names, track.values, strict=True):
            columns[name] = _Column(values, values[is_early])
    for name, values in zip(beside.static_names, beside.static.T, strict=True):
        columns[name] = _Column(values, values[n_rows > 0])
    return columns


def _settled(
    schema: Schema,
    columns: dict[str, _Column],
    texts: dict[str, list[str]],
    listener: Listener,
    ranks: Ranks,
) -> Schema:
    """Return the schema with the covariates that say something, and the texts of each."""
    has = {c.name: columns[c.name].has_values for c in schema.covariates}
    empty = [name for name, says in any_has(ranks, has).items() if not says]
    _warn_of_empty(empty, "no values, left out", listener)
    settled = []
    for covariate in schema.covariates:
        if covariate.name in empty:
            continue
        name, categories = covariate.name, None
        if covariate.is_text:
            categories = _common(texts[name], columns[name].early, ranks)
            listener(Noted(f"column {name!r} is one of {', '.join(categories)}"))
        settled.append(replace(covariate, categories=categories))
    return replace(schema, covariates=tuple(settled))


def _renumbered(
    schema: Schema, columns: dict[str, _Column], texts: dict[str, list[str]]
) -> dict[str, _Column]:
    """Return the columns of texts by the numbers of what is told apart of them."""
    found = {}
    for covariate in schema.covariates:
        if covariate.is_text:
            column = columns[covariate.name]
            values = renumber(column.values, numbers_of(covariate, texts[covariate.name]))
            found[covariate.name] = column._replace(values=values)
    return found


def _warn_of_empty(names: list[str], what: str, listener: Listener) -> None:
    if names:
        listener(Warned.naming("empty-covariate", what, names))


def _common(texts: list[str], values: Floats, ranks: Ranks) -> tuple[str, ...]:
    """Return the texts that occur often enough, the commonest first."""
    own = _counts(len(texts), [values]).tolist()
    every = counts_of_all(ranks, dict(zip(texts, own, strict=True)))
    texts, counts = list(every), np.array(list(every.values()), np.int64)
    order = np.argsort(-counts, kind="stable")[:_MOST_CATEGORIES]
    return tuple(texts[i] for i in order if counts[i] > _RARE * counts.sum())


def _check_size(panel: Panel, schema: Schema, config: DataConfig) -> None:
    """Raise `DataError` for more features than memory, or a network, takes."""
    for role in ("known", "past", "static"):
        n_features = sum(c.n_features for c in schema.covariates if c.role == role)
        if n_features > MAX_FEATURES:
            raise DataError(
                f"the columns of --{role} make {n_features} features, but a network takes "
                f"{MAX_FEATURES}",
                code="too-many-features",
                hint="name fewer columns",
            )
    n_features = sum(c.n_features for c in schema.covariates)
    n_targets = len(schema.targets)
    check_memory(len(panel.target) // n_targets, n_targets + n_features, config, "the table")


def _expanded(beside: Covariates, schema: Schema, columns: dict[str, _Column]) -> Covariates:
    """Return covariates with the features of each column in its place."""
    made: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    names: dict[str, list[str]] = {role: [] for role in made}
    for covariate in schema.covariates:
        values = columns[covariate.name].values
        found, called = features_of(covariate, values)
        made[covariate.role].append(found)
        names[covariate.role] += called

    def track(role: str, raw: Track) -> Track:
        values = np.concatenate([*made[role], np.empty((0, raw.values.shape[1]), np.float32)])
        return replace(raw, values=values, names=tuple(names[role]))

    static = np.concatenate([*made["static"], np.empty((0, len(beside.static)), np.float32)])
    return Covariates(
        (track("known", beside.known[0]),),
        track("past", beside.past),
        static.T,
        tuple(names["static"]),
    )


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


def renumber(values: Floats, numbers: Floats) -> Floats:
    """Return other numbers, `(text,)`, for those of texts; NaN stays."""
    either: Floats = np.append(numbers, np.float32(np.nan))
    return either[np.nan_to_num(values, nan=len(numbers)).astype(np.int64)]


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


def with_calendar(panel: Panel, config: DataConfig, tz: str | None) -> Panel:
    """Return the panel with what the calendar says of all its steps, and of a horizon after them.

    As it is where the user does not ask for it. Raises `UsageError` for a country without a known
    calendar, and where the package that knows holidays is not there.
    """
    if not (config.calendar or config.holidays):
        return panel
    first = int(panel.first_step.min())
    n_ahead = min(MAX_HORIZON, _FAR_US // panel.step_us)
    last = int((panel.first_step + panel.lengths).max()) + n_ahead
    times = np.arange(first, last, dtype=np.int64) * panel.step_us
    clock = pd.DatetimeIndex((times + panel.start[0] % panel.step_us).astype("datetime64[us]"))
    if tz is not None:
        clock = clock.tz_localize("UTC").tz_convert(tz).tz_localize(None)
    said = _said(clock, config, panel.step_us)
    if not said:
        return panel
    every = np.zeros(panel.n_series, np.int64)
    track = Track(
        np.stack(list(said.values())),
        tuple(said),
        begin=panel.first_step - first,
        low=every,
        high=every + len(clock),
    )
    beside = panel.covariates or _nothing(panel)
    return replace(panel, covariates=replace(beside, known=(*beside.known, track)))


def _said(clock: pd.DatetimeIndex, config: DataConfig, step_us: int) -> dict[str, Floats]:
    """Return the features, `(step,)` each, by their names; those that would never change apart."""
    said: dict[str, Floats] = {}
    if "hour" in config.calendar and step_us < _DAY_US:
        said |= _waves("hour", (clock.hour + clock.minute / 60).to_numpy(), 24)
    if "weekday" in config.calendar and step_us <= _DAY_US:
        weekday = clock.day_of_week.to_numpy()
        said |= {f"weekday={day}": (weekday == day).astype(np.float32) for day in range(7)}
    if "month" in config.calendar:
        said |= _waves("month", (clock.month - 1 + (clock.day - 1) / 31).to_numpy(), 12)
    if config.holidays:
        said["holiday"] = _holidays(clock, config.holidays)
    return said


def _nothing(panel: Panel) -> Covariates:
    """Return covariates without any feature."""
    every = np.zeros(panel.n_series, np.int64)
    empty = Track(np.empty((0, 1), np.float32), (), every, low=every, high=every)
    return Covariates((), empty, np.empty((panel.n_series, 0), np.float32))


def _waves(name: str, position: np.ndarray, period: int) -> dict[str, Floats]:
    """Return sines and cosines: the hour 23 is as near to 0 as 1 is."""
    waves = {}
    for n in _HARMONICS:
        angle = 2 * np.pi * n * position / period
        waves[f"{name}=sin{n}"] = np.sin(angle).astype(np.float32)
        waves[f"{name}=cos{n}"] = np.cos(angle).astype(np.float32)
    return waves


def _holidays(clock: pd.DatetimeIndex, place: str) -> Floats:
    """Tell for each step whether it lies on a public holiday of a country, such as DE or DE-BY."""
    try:
        import holidays
    except ImportError as error:
        raise UsageError(
            "--holidays needs the package that knows them",
            hint="install it with  pip install 'rnnforecast[holidays]'",
        ) from error
    country, _, subdivision = place.partition("-")
    years = range(int(clock[0].year), int(clock[-1].year) + 1)
    try:
        found = holidays.country_holidays(country, subdiv=subdivision or None, years=years)
    except (NotImplementedError, KeyError) as error:
        raise UsageError(
            f"--holidays {place} is no place whose holidays are known",
            hint="write a country, or a country and a part of it, such as DE or DE-BY",
        ) from error
    days: Integers = clock.to_numpy().astype("datetime64[D]")
    return np.isin(days, np.array(sorted(found), "datetime64[D]")).astype(np.float32)
