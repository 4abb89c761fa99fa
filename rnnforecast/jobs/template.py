"""`init`: a commented job file for a table.

Separate from `config.job`, which reads the file: it needs `check`, a layer above.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from rnnforecast.config.fields import add_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import BUILTIN_MODEL, DEFAULT_MODEL, changed_fields
from rnnforecast.errors import UsageError
from rnnforecast.events import Listener, ignore
from rnnforecast.storage.durable import as_write_error, check_directory
from rnnforecast.storage.versions import CURRENT
from rnnforecast.units import describe_duration
from rnnforecast.urls import is_url, parse_database
from rnnforecast.workflow.check import Check, check

_PLACEHOLDER = "readings.csv"
"""The source of a job file that is written without data."""
_TEMPLATE = """\
# A job of rnnforecast: run it with  rnnforecast run {name}
# Paths are relative to this file. Remove the # in front of a line to use it.

[data]
{facts}source = {source}
{reading}
[model]
{hint}path = {model}

[forecast]
output = "forecasts/{{as_of}}.csv"  # .csv, .parquet or .jsonl
# horizon = "24h"
# quantiles = [0.1, 0.9]
# fallback = ["seasonal-naive", "naive"]

[fresh]
# max_age = "6h"  # fail with exit code 5 if the newest reading is older
# warn_age = "3h"

[ledger]
path = "ledger"  # every forecast, for  rnnforecast score --job {name}

[log]
file = "run.log"

[keep]
# forecasts = 30
# ledger = "400d"
# versions = 5  # of a trained model

[notify]
# the command gets the message on standard input
# on_failure = ["mail", "-s", "forecast failed", "me@example.com"]

[metrics]
# textfile = "job.prom"  # for Prometheus

# of a trained model; remove the # in front of both lines
# [retrain]
# every = "7d"
"""


def write_job(
    data: str | None,
    path: str | Path,
    *,
    config: DataConfig | None = None,
    listener: Listener = ignore,
) -> Path:
    """Write a commented job file, with the options that `check` proposes for `data`.

    The model is the one in the directory `model`, else the built-in network. Raises `UsageError`
    where the path exists or the data is standard input, `WriteError` where it cannot be written,
    and what `check` raises.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise UsageError(
            f"{path} already exists and is never overwritten",
            hint="choose another name with  --output , or remove this one first",
        )
    if data == "-":
        raise UsageError("a job cannot read standard input", hint="pass a file or a folder")
    check_directory(path.parent)

    checked = None if data is None else check(data, config=config, listener=listener)
    text = _fill_template(data, path, checked, config or DataConfig())
    with as_write_error(path), path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path


def _fill_template(data: str | None, path: Path, checked: Check | None, config: DataConfig) -> str:
    facts, train = "# where the readings are\n", f"rnnforecast train {_PLACEHOLDER}"
    if checked is not None:
        panel, train = checked.profile.panel, checked.train
        config, _ = add_arguments(DataConfig(), shlex.split(train)[3:])
        facts = (
            f"# {panel.n_series} series, a reading every {describe_duration(panel.step_us)}, "
            f"{checked.start} to {checked.end}\n"
        )

    has_model = (path.parent / DEFAULT_MODEL / CURRENT).is_file()
    hint = f'# or a trained model, path = "{DEFAULT_MODEL}":  {train}\n'
    options = changed_fields(config).items()
    return _TEMPLATE.format(
        name=path.name,
        facts=facts,
        source=_to_value(_relative(data or _PLACEHOLDER, path.parent)),
        reading="".join(f"{name} = {_to_value(value)}\n" for name, value in options),
        hint="" if has_model else hint,
        model=_to_value(DEFAULT_MODEL if has_model else BUILTIN_MODEL),
    )


def _relative(data: str, folder: Path) -> str:
    """Return a local path relative to the folder of the job file; URLs and databases as given."""
    if is_url(data) or parse_database(data) is not None or Path(data).is_absolute():
        return data
    return os.path.relpath(data, folder)


def _to_value(value: Any) -> str:
    """Return a value as TOML, whose text, numbers, booleans and lists of them are those of JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
