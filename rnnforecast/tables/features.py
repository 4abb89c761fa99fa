"""Covariate columns as features of the network: numbers, categories, calendar, holidays."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import MAX_FEATURES, MAX_HORIZON
from rnnforecast.data.arrays import Floats, Integers
from rnnforecast.data.axis import DAY_US
from rnnforecast.data.panel import Covariates, FeatureBlock, Panel
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import Listener, Notice, warn_of_names
from rnnforecast.parallel import Ranks, all_reduce_any, all_reduce_counts
from rnnforecast.sources.files import check_memory
from rnnforecast.tables.schema import Covariate, Schema, canonical_name

_MOST_CATEGORIES = 32
"""Texts of a column with a feature of their own; all others share one."""
_RARE = 0.001
"""Texts in a smaller share of the rows are no categories: there is nothing to learn of them."""
_CENTURY_US = 36_525 * DAY_US
"""Nobody knows the holidays after a century."""
_HARMONICS = (1, 2)
"""Waves in a day, and in a year."""


def encode_covariates(
    panel: Panel,
    schema: Schema,
    texts: dict[str, list[str]],
    config: DataConfig,
    listener: Listener,
    *,
    until_us: int | None,
) -> tuple[Panel, Schema]:
    """Turn the covariate columns of a panel into features, and choose the categories of texts.

    `texts` are all that occur in a column. Which of them are categories, and whether a column
    holds anything at all, depends on the rows before `until_us` alone; the schema of a trained
    model says both already. Raises `DataError` where there are more features than a network takes.
    """
    if panel.covariates is None:
        return panel, schema
    columns = _columns(panel, panel.covariates, until_us)

    if schema.step_us is None:  # not that of a trained model
        schema = _choose_categories(schema, columns, texts, listener, panel.ranks)
        for covariate in schema.covariates:
            if covariate.is_text:
                column = columns[covariate.name]
                codes = category_codes(covariate, texts[covariate.name])
                columns[covariate.name] = column._replace(values=recode(column.values, codes))
    else:
        empty = [c.name for c in schema.covariates if not columns[c.name].has_values]
        problem = "no values, so the forecast ignores this column"
        warn_of_names("empty-covariate", problem, empty, listener)

    if not schema.covariates:
        return replace(panel, covariates=None), schema
    _check_size(panel, schema, config)
    return replace(panel, covariates=_encode(panel.covariates, schema, columns)), schema


class _Column(NamedTuple):
    """One column: numbers, or codes of texts; NaN where unknown."""

    values: Floats
    """`(place,)`, or `(series,)` of a static column."""
    early: Floats
    """The values before `until_us`, which decide what is a category."""

    @property
    def has_values(self) -> bool:
        """Whether any early value is known."""
        return bool(np.isfinite(self.early).any())


def _columns(panel: Panel, covariates: Covariates, until_us: int | None) -> dict[str, _Column]:
    """Return each column by its name."""
    n_rows = panel.lengths if until_us is None else panel.rows_before(until_us)
    columns = {}
    for block in (*covariates.known, covariates.past):
        is_early = slice(None) if until_us is None else block.places_before(n_rows)
        for name, values in zip(block.names, block.values, strict=True):
            columns[name] = _Column(values, values[is_early])
    for name, values in zip(covariates.static_names, covariates.static.T, strict=True):
        columns[name] = _Column(values, values[n_rows > 0])
    return columns


def _choose_categories(
    schema: Schema,
    columns: dict[str, _Column],
    texts: dict[str, list[str]],
    listener: Listener,
    ranks: Ranks,
) -> Schema:
    """Return the schema with the covariates that hold values, and the categories of each."""
    has_values = {c.name: columns[c.name].has_values for c in schema.covariates}
    empty = [name for name, is_filled in all_reduce_any(ranks, has_values).items() if not is_filled]
    warn_of_names("empty-covariate", "no values, skipped", empty, listener)

    covariates = []
    for covariate in schema.covariates:
        if covariate.name in empty:
            continue
        name, categories = covariate.name, None
        if covariate.is_text:
            local_counts = _count(len(texts[name]), [columns[name].early]).tolist()
            counts = all_reduce_counts(ranks, dict(zip(texts[name], local_counts, strict=True)))
            by_count = sorted(counts, key=counts.__getitem__, reverse=True)[:_MOST_CATEGORIES]
            min_count = _RARE * sum(counts.values())
            categories = tuple(text for text in by_count if counts[text] > min_count)
            listener(Notice(f"column {name!r} is one of {', '.join(categories)}"))
        covariates.append(replace(covariate, categories=categories))
    return replace(schema, covariates=tuple(covariates))


def _check_size(panel: Panel, schema: Schema, config: DataConfig) -> None:
    """Raise `DataError` for more features than memory, or a network, takes."""
    for role in ("known", "past", "static"):
        n_features = sum(c.n_features for c in schema.covariates if c.role == role)
        if n_features > MAX_FEATURES:
            raise DataError(
                f"the columns of --{role} make {n_features} features, but a network accepts at "
                f"most {MAX_FEATURES}",
                code="too-many-features",
                hint="use fewer columns",
            )
    n_features = sum(c.n_features for c in schema.covariates)
    n_targets = len(schema.targets)
    check_memory(len(panel.target) // n_targets, n_targets + n_features, config, "the table")


def _encode(raw: Covariates, schema: Schema, columns: dict[str, _Column]) -> Covariates:
    """Return covariates with the features of each column instead of the column."""
    features: dict[str, list[Floats]] = {"known": [], "past": [], "static": []}
    names: dict[str, list[str]] = {role: [] for role in features}
    for covariate in schema.covariates:
        column_features, feature_names = encode_column(covariate, columns[covariate.name].values)
        features[covariate.role].append(column_features)
        names[covariate.role] += feature_names

    def make_block(role: str, block: FeatureBlock) -> FeatureBlock:
        no_feature = np.empty((0, block.values.shape[1]), np.float32)
        values = np.concatenate([*features[role], no_feature])
        return replace(block, values=values, names=tuple(names[role]))

    static = np.concatenate([*features["static"], np.empty((0, len(raw.static)), np.float32)])
    return Covariates(
        (make_block("known", raw.known[0]),),
        make_block("past", raw.past),
        static.T,
        tuple(names["static"]),
    )


def _count(n_texts: int, chunks: list[Floats]) -> Integers:
    """Return how often each code occurs in chunks, `(text,)`."""
    counts = np.zeros(n_texts, np.int64)
    for chunk in chunks:
        counts += np.bincount(chunk[np.isfinite(chunk)].astype(np.int64), minlength=n_texts)
    return counts


def category_codes(covariate: Covariate, texts: list[str]) -> Floats:
    """Return the code of each text, `(text,)`: the index of its category.

    A text without a category gets a code beyond these. One that is not written as any category
    belongs to the category that writes the same number, as 2.0 and 2 do, if there is just one.
    """
    categories = covariate.categories or ()
    code_of = {text: code for code, text in enumerate(categories)}
    codes_of_number: dict[str, list[int]] = {}
    for text, code in code_of.items():
        codes_of_number.setdefault(canonical_name(text), []).append(code)

    codes = []
    for i, text in enumerate(texts):
        matches = (
            [code_of[text]] if text in code_of else codes_of_number.get(canonical_name(text), [])
        )
        codes.append(matches[0] if len(matches) == 1 else len(categories) + i)
    return np.array(codes, np.float32)


def recode(codes: Floats, new_codes: Floats) -> Floats:
    """Return `new_codes[code]` for each code; `new_codes` is `(text,)`. NaN stays."""
    codes_and_nan: Floats = np.append(new_codes, np.float32(np.nan))
    return codes_and_nan[np.nan_to_num(codes, nan=len(new_codes)).astype(np.int64)]


def warn_unknown_categories(
    covariate: Covariate, texts: list[str], chunks: list[Floats], name: str, listener: Listener
) -> None:
    """Warn where most values of a column are texts that are no categories of the model.

    `chunks` hold codes, indices of `texts`, `(row,)` each, of the file that has this name.
    """
    counts = _count(len(texts), chunks)
    is_unknown = category_codes(covariate, texts) >= len(covariate.categories or ())
    if 2 * counts[is_unknown].sum() > counts.sum():
        order = np.argsort(-counts, kind="stable")
        unknown = [texts[i] for i in order if is_unknown[i] and counts[i]]
        message = f"most of column {covariate.name!r} of {name} is unknown to the model"
        warn_of_names("unknown-categories", message, unknown, listener)


def encode_column(covariate: Covariate, values: Floats) -> tuple[Floats, list[str]]:
    """Return a covariate's features, `(feature, place)`, and the name of each; NaN is unknown.

    `values` are `(place,)`. A column of numbers is one feature. Codes of `category_codes` become
    one feature of 0 and 1 for each category, and a last one for all other texts.
    """
    if covariate.categories is None:
        return values[None], [covariate.name]
    n_categories = len(covariate.categories)
    is_known = np.isfinite(values)
    codes = np.minimum(np.where(is_known, values, n_categories), n_categories).astype(np.int64)
    features = (codes == np.arange(n_categories + 1)[:, None]).astype(np.float32)
    features[:, ~is_known] = np.nan
    return features, [f"{covariate.name}={text}" for text in (*covariate.categories, "(other)")]


def static_values(
    covariate: Covariate, values: Floats, offsets: Integers, names: list[str]
) -> Floats:
    """Return the value that each series has in all of its rows, `(series,)`; NaN for none.

    `values`, numbers or codes, are `(place,)`. Raises `DataError` for a series with several.
    """
    starts = offsets[:-1]
    low = np.fmin.reduceat(values, starts)
    high = np.fmax.reduceat(values, starts)
    differing = np.flatnonzero(low < high)
    if len(differing):
        raise DataError(
            f"column {covariate.name!r} is not constant within series {names[differing[0]]!r}"
            + f" and {len(differing) - 1} more" * (len(differing) > 1),
            code="not-static",
            hint="name it as known in advance or known up to the present instead",
        )
    return low


def add_calendar(panel: Panel, config: DataConfig) -> Panel:
    """Add features of the calendar for all steps of a panel, and the longest horizon after them.

    The panel stays as it is where the user does not ask for them. Raises `UsageError` for a
    country without a known calendar, and where the package that knows holidays is not installed.
    """
    if not (config.calendar or config.holidays):
        return panel

    first = int(panel.first_step.min())
    n_ahead = min(MAX_HORIZON, _CENTURY_US // panel.step_us)
    last = int((panel.first_step + panel.lengths).max()) + n_ahead
    times = np.arange(first, last, dtype=np.int64) * panel.step_us
    clock = panel.axis.local(times + panel.start[0] % panel.step_us)
    features = _calendar_features(clock, config, panel.step_us)
    if not features:
        return panel

    zeros = np.zeros(panel.n_series, np.int64)
    block = FeatureBlock(  # all series share one range of places
        np.stack(list(features.values())),
        tuple(features),
        begin=panel.first_step - first,
        low=zeros,
        high=zeros + len(clock),
    )
    covariates = panel.covariates
    if covariates is None:
        no_past = FeatureBlock(np.empty((0, 1), np.float32), (), zeros, low=zeros, high=zeros)
        covariates = Covariates((), no_past, np.empty((panel.n_series, 0), np.float32))
    return replace(panel, covariates=replace(covariates, known=(*covariates.known, block)))


def _calendar_features(
    clock: pd.DatetimeIndex, config: DataConfig, step_us: int
) -> dict[str, Floats]:
    """Return features, `(step,)` each, by their names, but for those that would be constant."""
    features: dict[str, Floats] = {}
    if "hour" in config.calendar and step_us < DAY_US:
        features |= _waves("hour", (clock.hour + clock.minute / 60).to_numpy(), 24)
    if "weekday" in config.calendar and step_us <= DAY_US:
        weekday = clock.day_of_week.to_numpy()
        features |= {f"weekday={day}": (weekday == day).astype(np.float32) for day in range(7)}
    if "month" in config.calendar:
        features |= _waves("month", (clock.month - 1 + (clock.day - 1) / 31).to_numpy(), 12)
    if config.holidays:
        features["holiday"] = _holidays(clock, config.holidays)
    return features


def _waves(name: str, position: np.ndarray, period: int) -> dict[str, Floats]:
    """Return sines and cosines of a position in its period: hour 23 is as near to 0 as 1 is."""
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
            "--holidays needs the package holidays",
            hint="install it with  pip install 'rnnforecast[holidays]'",
        ) from error

    country, _, subdivision = place.partition("-")
    years = range(int(clock[0].year), int(clock[-1].year) + 1)
    try:
        calendar = holidays.country_holidays(country, subdiv=subdivision or None, years=years)
    except (NotImplementedError, KeyError) as error:
        raise UsageError(
            f"unknown country or region --holidays {place}",
            hint="use a country or a region of one, e.g. DE or DE-BY",
        ) from error
    days: Integers = clock.to_numpy().astype("datetime64[D]")
    return np.isin(days, np.array(sorted(calendar), "datetime64[D]")).astype(np.float32)
