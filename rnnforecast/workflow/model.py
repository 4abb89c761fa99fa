"""Model, load, versions, use and predict; what a model has settled, and checks of outputs."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.config.commands import check_format
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    DEFAULT_MODEL,
    QUANTILES,
    STANDARD_OUTPUT,
    PredictConfig,
    changes_of,
    override,
)
from rnnforecast.data.arrays import pick
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.match import (
    Known,
    check_drift,
    check_fresh,
    check_known_ahead,
    read_past,
    require_series,
    warn_of_strangers,
)
from rnnforecast.data.output import names_like_formulas, without_formulas, write_table
from rnnforecast.data.schema import Schema, check_counters
from rnnforecast.data.windows import Past
from rnnforecast.errors import ModelError, NotEnoughDataError, UsageError
from rnnforecast.evaluate.postprocess import (
    Fallback,
    Prediction,
    exceeding,
    outside,
    predict_or_fall_back,
    warnings_of,
    within,
)
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.model import artifact
from rnnforecast.model.artifact import Artifact
from rnnforecast.sources.files import takes_in
from rnnforecast.storage.durable import check_directory, check_spared
from rnnforecast.storage.lock import holding
from rnnforecast.storage.publish import check_file
from rnnforecast.storage.remote import Place, Remote, is_remote, local_path, place_of
from rnnforecast.storage.versions import (
    LOCK,
    collect,
    list_versions,
    name_in_force,
    put_in_force,
    resolve_version,
)
from rnnforecast.units import parse_steps
from rnnforecast.workflow.steps import with_calibration

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster

_SETTLED = ("known", "past", "static", "categorical", "calendar", "holidays")
_STANDARD_INPUT, _STANDARD_INPUT_FILE = "-", "/dev/stdin"


def predict(
    model: Model | str | Path = DEFAULT_MODEL,
    data: object = None,
    *,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    version: str | None = None,
    output: str | Path | None = None,
    listener: Listener = ignore,
) -> Prediction:
    """Forecast the steps after the last reading; with `output`, write them to a file, or to `-`.

    Without `data`, the source that the model was trained on is read again. What differs from the
    defaults in `reading` overrides how, and so do its fields that `given` names. Raises a
    `RnnForecastError`; a series that cannot be forecast is left out and named.
    """
    config = config or PredictConfig()
    if output is not None:
        check_format(str(output))
    events = Recorder(listener, [])
    artifact = (model if isinstance(model, Model) else load(model, version=version)).artifact
    options = reading_of(artifact, reading, given)
    source = artifact.provenance["source"] if data is None else data
    check_outputs(source, options, output=output, others={"what is known ahead": config.future})
    prediction = forecast(prepare(artifact, data, config, options, events), events)
    if output is not None:
        write_table(table_to_write(prediction.forecast, str(output), config, events), str(output))
    return replace(prediction, warnings=tuple(events.warnings))


@dataclass(frozen=True)
class Ready:
    """What a forecast needs: read, held against the model and found to serve. No torch yet."""

    artifact: Artifact
    past: Past
    schema: Schema
    config: PredictConfig
    options: DataConfig
    horizon: int
    age_us: int
    """Age of the newest reading."""


def prepare(
    artifact: Artifact,
    data: object,
    config: PredictConfig,
    options: DataConfig,
    events: Recorder,
    *,
    is_expected: Callable[[str], bool] | None = None,
) -> Ready:
    """Read the readings that a saved version forecasts from; without `data`, its own again.

    Where they are a part of all, `is_expected` tells which series should be among them.
    """
    horizon = horizon_of(config, artifact)
    known = replace(known_of(artifact), is_expected=is_expected)
    past, schema = _read_past(artifact, data, config, options, known, events)
    _check_series(past, artifact, config, known, events)
    age_us = check_fresh(past, schema.tz, config, events)
    return Ready(artifact, past, schema, config, options, horizon, age_us)


def forecast(ready: Ready, events: Recorder, *, forecaster: Forecaster | None = None) -> Prediction:
    """Forecast every series that can be; torch is imported here, but for who has a forecaster."""
    spec, past, config = ready.artifact.spec, ready.past, ready.config
    max_gap = ready.options.max_gap_steps(past.step_us)
    rule = Fallback(spec.lookback, spec.season, config.fallback, max_gap)
    unknown = _unknown_ahead(past, ready.horizon, ready.schema, rule, events)
    prediction = _forecast(forecaster or restore(ready.artifact), ready, rule, unknown, events)
    return _limited(prediction, ready.schema, config, events)


def _limited(
    prediction: Prediction, schema: Schema, config: PredictConfig, listener: Listener
) -> Prediction:
    """Keep the forecast within its bounds, and say how likely readings go above their limits."""
    targets = schema.targets if schema.series is not None else ()
    ranges = config.ranges
    beyond = outside(prediction.forecast, prediction.past, ranges, targets)
    if beyond.any():
        what = "the newest readings lie outside of their --bounds, the forecast does not"
        listener(Warned.naming("bounds", what, pick(prediction.forecast.names, beyond)))
    forecast = within(prediction.forecast, ranges, targets)
    forecast, found = exceeding(forecast, config.limits, ranges, targets)
    forecast = forecast.only(sorted({0.5, *config.quantiles}))
    return replace(prediction, forecast=forecast, exceedances=found)


def table_to_write(
    forecast: Forecast, output: str, config: PredictConfig, listener: Listener
) -> pa.Table:
    """Return what is written; names that a spreadsheet would run are said, or marked as text."""
    formulas = names_like_formulas(forecast, output)
    if formulas and config.excel_safe:
        forecast = without_formulas(forecast)
    elif formulas:
        what = "spreadsheets run names like these as formulas (--excel-safe marks them as text)"
        listener(Warned.naming("formula", what, formulas))
    return forecast.to_arrow(config.quantiles)


def horizon_of(config: PredictConfig, artifact: Artifact) -> int:
    """Return how many steps are forecast. Raises `UsageError` for more than were trained."""
    spec, step_us = artifact.spec, artifact.schema.step_us
    if config.horizon is None:
        return spec.horizon
    assert step_us is not None
    horizon = parse_steps(config.horizon, step_us=step_us, name="horizon", limit=10**9)
    if horizon > spec.horizon:
        raise UsageError(
            f"--horizon {config.horizon} is {horizon} steps, but the model was trained for "
            f"{spec.horizon}",
            hint=f"train again with  --horizon {config.horizon}",
        )
    return horizon


def _read_past(
    artifact: Artifact,
    data: object,
    config: PredictConfig,
    options: DataConfig,
    known: Known,
    listener: Listener,
) -> tuple[Past, Schema]:
    """Read new readings as the model's own were."""
    return read_past(
        source_of(artifact) if data is None else data,
        schema=artifact.schema,
        options=options,
        as_of=config.as_of,
        future=_future_of(config, artifact, listener),
        known=known,
        listener=listener,
    )


def _check_series(
    past: Past, artifact: Artifact, config: PredictConfig, known: Known, listener: Listener
) -> None:
    """Say what is strange about the readings beside those that the network knows."""
    spec = artifact.spec
    warn_of_strangers(past, known, listener, lookback=spec.lookback, horizon=spec.horizon)
    if config.require_series:
        require_series(past, known)
    if config.max_drift is not None:
        check_drift(past, known, lookback=spec.lookback, limit=config.max_drift)


def _unknown_ahead(
    past: Past, horizon: int, schema: Schema, rule: Fallback, listener: Listener
) -> NDArray[np.bool_]:
    """`(origin,)`: which series the network cannot forecast as what comes is not known; say so."""
    unknown = check_known_ahead(past, horizon, schema.tz, needed=~rule.lacks_history(past))
    if unknown.any():
        what = "ended before the others, and what is known ahead does not begin there"
        listener(Warned.naming("missing-future", what, pick(past.names, unknown)))
    return unknown


def _future_of(config: PredictConfig, artifact: Artifact, listener: Listener) -> str | None:
    """Return the file with what is known ahead; a network that sees nothing of it needs none."""
    if config.future is not None and not artifact.spec.n_known:
        message = "the model uses no covariate that is known ahead: --future is not read"
        listener(Warned("unused-future", message))
        return None
    return config.future


def source_of(artifact: Artifact) -> str:
    """Return the file that a version was trained on. Raises `UsageError` where it was none."""
    source = artifact.provenance.get("source")
    if not isinstance(source, str):
        raise UsageError(
            "the model was not trained on a file, so there is nothing to read again",
            hint="pass the readings:  rnnforecast predict DATA",
        )
    return source


def restore(artifact: Artifact) -> Forecaster:
    """Make the forecaster of a saved version; torch is imported here. Raises `ModelError`."""
    return with_calibration(restore_network(artifact), artifact.calibration, artifact.names)


def restore_network(artifact: Artifact) -> RNNForecaster:
    """Make the network of a saved version, whose quantiles are as it learnt them."""
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.restore(
        artifact.spec,
        artifact.config.network,
        names=artifact.names,
        weights=artifact.weights,
        self_test=artifact.self_test,
    )


def _forecast(
    forecaster: Forecaster,
    ready: Ready,
    rule: Fallback,
    unknown: NDArray[np.bool_],
    events: Recorder,
) -> Prediction:
    """Forecast every series that can be, and say which could not."""
    config = ready.config
    quantiles = sorted({0.5, *config.quantiles, *(QUANTILES if config.limits else ())})
    prediction = predict_or_fall_back(
        forecaster, ready.past, ready.horizon, quantiles, rule, unknown=unknown
    )
    for warning in warnings_of(prediction, lookback=rule.lookback):
        events(warning)
    if not prediction.forecast.names:
        raise NotEnoughDataError(
            "no series has a reading in its look-back, so nothing can be forecast",
            code="too-short",
            hint="pass newer readings, or add  --fallback seasonal-naive,naive",
        )
    return replace(prediction, forecast=replace(prediction.forecast, tz=ready.schema.tz))


@dataclass(frozen=True)
class Model:
    """A trained network, as `train` and `load` return it."""

    artifact: Artifact = field(repr=False)
    path: Place | None = None
    """The model directory; None where nothing was saved."""
    version: str | None = None
    warnings: tuple[Warned, ...] = ()
    timing: dict[str, float] | None = field(default=None, repr=False)

    def predict(self, data: object = None, config: PredictConfig | None = None) -> Prediction:
        """Forecast the steps after the last reading of `data`, or of what it was trained on."""
        return predict(self, data, config=config)

    @property
    def metrics(self) -> dict[str, Any]:
        """Held-out metrics by method, with the skill and the verdict."""
        return self.artifact.metrics


def load(model: str | Place = DEFAULT_MODEL, *, version: str | None = None) -> Model:
    """Load a saved version, by default the one in force. Raises `ModelError` if it is damaged."""
    path = place_of(model)
    directory = resolve_version(path, version)
    return Model(artifact.load(directory), path, directory.name)


def versions(model: str | Path = DEFAULT_MODEL) -> list[dict[str, Any]]:
    """List the saved versions, oldest first: name, in force or not, skill, or what is wrong."""
    path = place_of(model)
    in_force = name_in_force(path)
    listing: list[dict[str, Any]] = []
    for name in list_versions(path):
        item: dict[str, Any] = {"version": name, "in_force": name == in_force}
        try:
            loaded = artifact.load(resolve_version(path, name))
            item |= {"skill": loaded.metrics["skill"], "trained_until": loaded.trained_until}
        except ModelError as error:
            item |= {"skill": None, "trained_until": None, "damage": error.message}
        listing.append(item)
    return listing


def known_of(artifact: Artifact) -> Known:
    """Return what a saved network knows of the series that it has learnt from."""
    return Known(
        artifact.names,
        np.array(artifact.base),
        center=artifact.weights["center"][1:],
        scale=artifact.weights["scale"][1:],
        reach=artifact.weights["outlier_threshold"][1:],
    )


def reading_of(
    artifact: Artifact, config: DataConfig | None = None, given: Collection[str] = ()
) -> DataConfig:
    """Return how a saved version reads, with what differs from the defaults in `config`.

    Fields named in `given` hold although they equal their defaults. Raises `UsageError` for what
    the version has settled in another way, and for a counter that is none of its targets.
    """
    stored = artifact.config.data
    if config is None:
        return stored
    changes = changes_of(config, given)
    for name in _SETTLED:
        if name in changes and not _is_same(changes[name], getattr(stored, name)):
            raise _settled(name, changes[name], getattr(stored, name))
    if "counter" in changes:
        check_counters(config.target or artifact.schema.targets, config)
    kept = {name: getattr(stored, name) for name in _SETTLED}
    return override(stored, replace(config, **kept), given)


def _is_same(wanted: Any, stored: Any) -> bool:
    """Tell whether two values mean the same; the order of what is listed means nothing."""
    if isinstance(wanted, tuple):
        return set(wanted) == set(stored)
    return bool(wanted == stored)


def _settled(name: str, wanted: Any, stored: Any) -> UsageError:
    has = f"with {_words(name, stored)}" if stored else f"without --{name}"
    return UsageError(
        f"the model was trained {has}, and cannot take {_words(name, wanted)}",
        hint=f"leave out --{name}, or train again with what you want",
    )


def _words(name: str, value: Any) -> str:
    """Write an option as it is typed; one that is repeated with commas for short."""
    shown = ", ".join(value) if isinstance(value, tuple) else value
    return f"--{name} {shown or repr('')}"


def check_outputs(
    data: object,
    options: DataConfig,
    *,
    output: str | Path | None = None,
    page: str | Path | None = None,
    others: Mapping[str, object] | None = None,
    allows_stream: bool = True,
) -> None:
    """Raise where a result could not be written, or would overwrite something that is read.

    Results are the `output`, a `page` or picture, and the rows that are rejected; read are the
    readings, the times that are bad, and `others`, which are named for messages.
    """
    results: list[Place] = []
    if options.rejects is not None:
        results.append(local_path(options.rejects, "--rejects"))
    if options.exclude is not None:
        local_path(options.exclude, "--exclude")
    if output is not None:
        check_format(str(output), allows_stream=allows_stream)
    if page is not None:
        page = local_path(page, "a picture or a report")
    for path in (output, page):
        if path is not None and str(path) != STANDARD_OUTPUT:
            place = place_of(path)
            check_file(place)
            _check_apart(place, results)
            results.append(place)
    sources = {"the readings": data, "bad times": options.exclude, **(others or {})}
    for place in results:
        for what, source in sources.items():
            if isinstance(source, str | Path) and str(source):
                _check_source_spared(place, source, what)


def check_new_directory(path: Path, data: object, options: DataConfig) -> None:
    """Raise where a directory could not be made, is there already, or would lie among readings."""
    if os.path.lexists(path):
        raise UsageError(
            f"{path} exists already, and is never written over",
            hint="name another folder with  --output , or remove this one first",
        )
    check_directory(path.parent)
    check_outputs(data, options)
    if isinstance(data, str | Path) and str(data):
        _check_source_spared(path, data, "the readings")


def _check_apart(output: Place, rejects: list[Place]) -> None:
    for path in rejects:
        if path.resolve() == output.resolve():
            raise UsageError(
                f"{output} cannot hold two results at once",
                hint="name different files with  --output, --report  and  --rejects",
            )


def _check_source_spared(path: Place, data: str | Path, what: str) -> None:
    """Raise `UsageError` where a source holds the file, or would the next time it is read."""
    place, source = place_of(data), str(data)
    if is_remote(path) or is_remote(place):
        if is_remote(path) and is_remote(place):
            _check_object_spared(path, place, what)
        return
    with suppress(OSError, ValueError):  # no path at all, which is said where it is opened
        for file in _local_files_of(source) if path.exists() else ():
            check_spared(path, file, what)
        if _takes_in(source, path):
            raise _among(path, source, what)


def _check_object_spared(path: Remote, source: Remote, what: str) -> None:
    """Do the same on a store, by names alone."""
    if path == source:
        raise UsageError(f"{path} holds {what}, and would be overwritten", hint="name another file")
    if takes_in(source, path):
        raise _among(path, source, what)


def _among(path: Place, source: object, what: str) -> UsageError:
    return UsageError(
        f"{path} would lie among {what}, {source}, and be read with them the next time",
        hint="name a file elsewhere",
    )


def files_of(source: str) -> Iterator[Place]:
    """Give the files, or objects, that a source stands for, as far as they are there."""
    if is_remote(place := place_of(source)):
        from rnnforecast.sources.files import expand_remote

        yield from expand_remote(place)
    else:
        yield from _local_files_of(source)


def _local_files_of(source: str) -> Iterator[Path]:
    path = Path(_STANDARD_INPUT_FILE if source == _STANDARD_INPUT else source)
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif path.exists():
        yield path
    else:
        yield from map(Path, glob.iglob(source, recursive=True))  # noqa: PTH207


def _takes_in(source: str, path: Path) -> bool:
    """Tell whether a folder or a pattern takes in a file of this name, be it there or not."""
    if Path(source).is_dir():
        return path.resolve().is_relative_to(Path(source).resolve())
    if Path(source).exists() or not glob.has_magic(source):
        return False
    parts = Path(source).parts
    n_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base, rest = Path(*parts[:n_fixed]).resolve(), parts[n_fixed:]
    place = path.parent.resolve() / path.name
    if "**" in rest:
        return place.is_relative_to(base) and fnmatch(place.name, rest[-1])
    return place.match(str(Path(glob.escape(str(base)), *rest)))


def use(version: str, *, model: str | Path = DEFAULT_MODEL) -> str | None:
    """Put a version in force; return the one that was before, or None.

    It is verified first, so that no damaged one comes into force. Raises a `RnnForecastError`.
    """
    path = place_of(model)
    load(path, version=version)
    with holding(path / LOCK):
        collect(path)
        before = name_in_force(path)
        if before != version:
            put_in_force(path, version)
    return before
