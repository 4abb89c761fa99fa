"""Job files: every key means what it says, and what cannot be meant names its table and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rnnforecast.config.fields import option_fields
from rnnforecast.config.job import (
    Job,
    KeepPart,
    LogPart,
    ModelPart,
    NotifyPart,
    RetrainPart,
    read_job,
)
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.errors import UsageError

DATA, FORECAST = {"source": "data.csv"}, {"output": "out.csv"}
TABLES: dict[str, type] = {
    "data": DataConfig,
    "model": ModelPart,
    "forecast": PredictConfig,
    "log": LogPart,
    "keep": KeepPart,
    "notify": NotifyPart,
    "retrain": RetrainPart,
}
"""Tables whose keys are the fields of a dataclass."""
GIVEN: dict[str, dict[str, Any]] = {
    "data": {
        "time": "t",
        "series": "s",
        "target": ["v"],
        "known": ["k"],
        "past": ["p"],
        "static": ["st"],
        "categorical": ["k"],
        "calendar": ["hour", "month"],
        "holidays": "DE-BY",
        "freq": "15min",
        "agg": ["mean", "v=last"],
        "min_share": 0.8,
        "hold": "2h",
        "closed": "none",
        "tz": "Europe/Vienna",
        "sep": ";",
        "decimal": ",",
        "thousands": ".",
        "encoding": "cp1252",
        "skip_rows": 2,
        "comment": "#",
        "no_header": True,
        "id_from_columns": True,
        "columns": ["t", "s", "v"],
        "na_values": ["-999", "none"],
        "sheet": "Raw data",
        "query": "select * from readings",
        "on_bad_rows": "skip",
        "rejects": "rejects.csv",
        "max_bad_rows": "1%",
        "inf_as_na": True,
        "time_format": "%d.%m.%Y",
        "time_unit": "ms",
        "leap_second": "error",
        "midnight": "end",
        "time_range": "1950:2100",
        "counter": ["v"],
        "exclude": "bad times.csv",
        "valid_range": ["v=0:100"],
        "stuck_as_na": "6h",
        "max_gap": "12",
        "allow_future": True,
        "map": ["new=old"],
        "max_memory": "4G",
        "max_input_bytes": "1G",
        "on_duplicate": "last",
    },
    "model": {"path": "models/a", "version": "20260101T000000Z-aaaaaa"},
    "forecast": {
        "season": "1d",
        "horizon": "24",
        "quantiles": [0.1, 0.25, 0.5, 0.9],
        "fallback": ["seasonal-naive", "naive"],
        "bounds": ["v=0:"],
        "exceed": ["v=90"],
        "future": "weather.csv",
        "require_series": True,
        "max_drift": 3.0,
        "excel_safe": True,
        "wide": True,
    },
    "fresh": {"max_age": "3h", "warn_age": "1h"},
    "ledger": {"path": "ledger"},
    "job": {"name": "pump 7"},
    "log": {"file": "run.log", "format": "text", "max_size": "1M"},
    "metrics": {"textfile": "x.prom"},
    "keep": {
        "forecasts": 30,
        "versions": 5,
        "ledger": "400d",
        "pinned": ["20260101T000000Z-aaaaaa"],
    },
    "notify": {"on_failure": ["logger", "-t", "rnnforecast"]},
    "retrain": {"every": "30d", "when": "drift", "promote_if": "2.5%", "hold_out": 0.4},
}
"""Another value than the default for each key, alone and in the tables."""
PATHS = {
    ("data", "rejects"),
    ("data", "exclude"),
    ("model", "path"),
    ("forecast", "future"),
    ("ledger", "path"),
    ("log", "file"),
    ("metrics", "textfile"),
}
NEEDED = {  # what a key of [data] needs beside itself
    "agg": {"freq": "15min"},
    "min_share": {"freq": "15min", "agg": "mean"},
    "rejects": {"on_bad_rows": "skip"},
    "no_header": {"columns": ["t", "v"]},
    "columns": {"no_header": True},
    "categorical": {"known": ["k"]},
    "thousands": {"decimal": ","},
}


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        return "'''" + value + "'''" if "\\" in value else '"' + value.replace('"', r"\"") + '"'
    return str(value)


def write_job(folder: Path, name: str = "job.toml", **tables: dict[str, Any]) -> Path:
    """Write a job file; a source and an output are there unless the tables say something else."""
    tables = {**tables, "data": {**DATA, **tables.get("data", {})}}
    tables["forecast"] = {**FORECAST, **tables.get("forecast", {})}
    lines = []
    for table, keys in tables.items():
        lines += [f"[{table}]", *(f"{key} = {toml(value)}" for key, value in keys.items())]
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines))
    return folder / name


def job_of(folder: Path, **tables: dict[str, Any]) -> Job:
    return read_job(write_job(folder, **tables))


def refusal(folder: Path, **tables: dict[str, Any]) -> UsageError:
    path = write_job(folder, **tables)
    with pytest.raises(UsageError) as caught:
        read_job(path)
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    return caught.value


def part_of(job: Job, table: str, key: str) -> Any:
    """Return what a job holds for a key."""
    parts: dict[str, Any] = {
        "data": job.reading,
        "fresh": job.forecast,
        "ledger": job.ledger,
        "metrics": job.textfile,
        "job": job.label,
    }
    part = parts[table] if table in parts else getattr(job, table)
    return part if table in ("ledger", "metrics", "job") else getattr(part, key)


KEYS = [(table, key) for table, keys in GIVEN.items() for key in keys]


def test_the_keys_of_a_table_are_all_fields_of_its_dataclass() -> None:
    for table, cls in TABLES.items():
        known = {item.name for item in option_fields(cls)}
        elsewhere = {"as_of", "max_age", "warn_age"} if table == "forecast" else set()
        assert set(GIVEN[table]) == known - elsewhere


@pytest.mark.parametrize(("table", "key"), KEYS, ids=lambda name: name)
def test_every_key_is_read_and_is_the_only_one_that_changes(
    tmp_path: Path, table: str, key: str
) -> None:
    value = GIVEN[table][key]
    needed = NEEDED.get(key, {}) if table == "data" else {}

    job = job_of(tmp_path, **{table: {**needed, key: value}})

    expected = tuple(value) if isinstance(value, list) else value
    if (table, key) in PATHS:
        expected = str(tmp_path / value)
    assert part_of(job, table, key) == expected
    plain = job_of(tmp_path)
    for other_table, other in KEYS:
        if (other_table, other) != (table, key) and other not in needed:
            assert part_of(job, other_table, other) == part_of(plain, other_table, other)
    assert part_of(plain, table, key) != expected


@pytest.mark.parametrize(("table", "key"), [k for k in KEYS if "_" in k[1]], ids=lambda name: name)
def test_hyphens_stand_for_underscores(tmp_path: Path, table: str, key: str) -> None:
    needed = NEEDED.get(key, {}) if table == "data" else {}
    keys = {**needed, key: GIVEN[table][key]}
    hyphened = {name.replace("_", "-"): value for name, value in keys.items()}

    one, other = job_of(tmp_path, **{table: keys}), job_of(tmp_path, **{table: hyphened})

    assert part_of(one, table, key) == part_of(other, table, key)
    assert one.explicit == other.explicit


def test_a_key_that_is_written_in_two_ways_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, fresh={"max_age": "3h", "max-age": "4h"})
    assert "[fresh]" in error.message and "max_age" in error.message


def test_what_the_file_says_of_reading_is_known_be_it_the_default(tmp_path: Path) -> None:
    job = job_of(tmp_path, data={"on-duplicate": "error", "skip_rows": 0})
    assert job.explicit == {"on_duplicate", "skip_rows"}
    assert job.reading == DataConfig()


def test_a_job_that_says_the_least_has_the_defaults(tmp_path: Path) -> None:
    job = job_of(tmp_path)

    assert (job.source, job.output) == (str(tmp_path / "data.csv"), str(tmp_path / "out.csv"))
    assert (job.name, job.ledger, job.textfile) == ("job", None, None)
    assert (job.reading, job.forecast) == (DataConfig(), PredictConfig())
    assert job.model == ModelPart(str(tmp_path / "model"))
    assert (job.log, job.keep, job.notify) == (LogPart(), KeepPart(), NotifyPart())
    assert job.retrain == RetrainPart() and job.retrain.margin == 0.01
    assert job.lock == tmp_path / ".out.csv.lock"


def test_paths_lead_from_the_folder_of_the_job_file_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {(table, key): GIVEN[table][key] for table, key in PATHS}
    tables: dict[str, dict[str, Any]] = {"data": {"on_bad_rows": "skip"}}
    for (table, key), value in paths.items():
        tables.setdefault(table, {})[key] = value
    path = write_job(tmp_path / "jobs", **tables)
    monkeypatch.chdir(tmp_path)

    for given in (path, Path("jobs/job.toml")):
        job = read_job(given)
        for (table, key), value in paths.items():
            assert Path(part_of(job, table, key)).resolve() == tmp_path / "jobs" / value
        assert Path(job.source).resolve() == tmp_path / "jobs" / "data.csv"
        assert Path(job.output).resolve() == tmp_path / "jobs" / "out.csv"
        assert job.lock.resolve() == tmp_path / "jobs" / "ledger" / ".lock"


def test_an_absolute_path_stays_and_one_upwards_leads_there(tmp_path: Path) -> None:
    job = job_of(tmp_path / "jobs", data={"source": "/srv/data.csv"}, ledger={"path": "../ledger"})
    assert job.source == "/srv/data.csv"
    assert Path(job.ledger).resolve() == tmp_path / "ledger"


def test_a_path_with_a_tilde_leads_from_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    job = job_of(tmp_path, data={"source": "~/*.csv"}, forecast={"output": "~o.csv"})
    assert job.source == str(tmp_path / "home" / "*.csv")
    assert job.output == str(tmp_path / "~o.csv")


def test_a_job_file_may_begin_with_the_mark_of_its_byte_order(tmp_path: Path) -> None:
    path = write_job(tmp_path)
    as_written = read_job(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_job(path) == as_written


@pytest.mark.parametrize(
    "folder", ["plain", "with space", "a[1]", "star*", "wave 🌊", "line\nbreak"]
)
@pytest.mark.parametrize("source", ["readings/*.csv", "readings/a.csv", "readings", "re*/a.csv"])
def test_a_pattern_takes_in_the_same_files_whatever_its_folder_is_called(
    tmp_path: Path, folder: str, source: str
) -> None:
    from rnnforecast.sources.files import expand_path

    (tmp_path / folder / "readings").mkdir(parents=True)
    (tmp_path / folder / "readings" / "a.csv").touch()

    job = job_of(tmp_path / folder, data={"source": source})

    assert [file.name for file in expand_path(job.source)] == ["a.csv"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "b[2].csv").touch()
    job = job_of(tmp_path / "a[1]", data={"source": "b[2].csv"})
    assert Path(job.source) == tmp_path / "a[1]" / "b[2].csv"


def test_the_example_of_the_documents_is_a_job(tmp_path: Path) -> None:
    text = """
[data]
source = "readings/*.parquet"            # and any reading option
[model]
path = "model"
[forecast]
output = "out/{as_of}.parquet"           # or one fixed name
quantiles = [0.1, 0.5, 0.9]
fallback = ["seasonal-naive", "naive"]
[fresh]
warn_age = "1h"
max_age = "3h"
[ledger]
path = "ledger"                          # one Parquet part for each run
[log]
format = "json"
file = "run.log"
[metrics]
textfile = "rnnforecast.prom"            # for the Prometheus node exporter; written on failure too
[keep]
forecasts = 30
versions = 5
[notify]
on_failure = ["logger", "-t", "rnnforecast"]
"""
    (tmp_path / "job.toml").write_text(text)

    job = read_job(tmp_path / "job.toml")

    assert job.source == str(tmp_path / "readings/*.parquet")
    assert job.output_path("2024-01-01T000000") == tmp_path / "out" / "2024-01-01T000000.parquet"
    assert job.forecast == PredictConfig(
        quantiles=(0.1, 0.5, 0.9),
        fallback=("seasonal-naive", "naive"),
        max_age="3h",
        warn_age="1h",
    )
    assert job.lock == tmp_path / "ledger" / ".lock"
    assert (job.keep, job.log) == (KeepPart(30, 5), LogPart(str(tmp_path / "run.log"), "json"))
    assert job.notify.on_failure == ("logger", "-t", "rnnforecast")
    assert set(job.tables) == set(GIVEN) - {"job", "retrain"}


@pytest.mark.parametrize("name", ["out/{as_of}.csv", "a-{as_of}-{as_of}.parquet", "x{as_of}.jsonl"])
def test_the_time_stands_in_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    job = job_of(tmp_path, forecast={"output": name})
    assert str(job.output_path("NOW")) == str(tmp_path / name.replace("{as_of}", "NOW"))
    assert job.output_path("NOW").parent == job.lock.parent


@pytest.mark.parametrize(
    "name",
    [
        "{as_of}/out.csv",
        "{as_of}/{as_of}.csv",
        "{asof}.csv",
        "{as_of.csv",
        "{}.csv",
        "{{as_of}}.csv",
    ],
)
def test_nothing_else_stands_for_something_and_not_elsewhere(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, forecast={"output": name})
    assert "[forecast]" in error.message and "{as_of}" in error.message and name in error.message


@pytest.mark.parametrize(
    ("table", "key", "near"),
    [
        ("data", "on_duplicates", "on_duplicate"),
        ("data", "sourc", None),
        ("model", "pth", "path"),
        ("forecast", "quantile", "quantiles"),
        ("forecast", "as_of", None),
        ("forecast", "max_age", None),
        ("fresh", "max-aeg", "max_age"),
        ("ledger", "paht", "path"),
        ("log", "fromat", "format"),
        ("metrics", "text_file", "textfile"),
        ("keep", "forecast", "forecasts"),
        ("notify", "on-failures", "on_failure"),
        ("retrain", "promote-when", "promote_if"),
    ],
)
def test_a_key_that_is_not_known_is_named_with_its_table_and_the_nearest(
    tmp_path: Path, table: str, key: str, near: str | None
) -> None:
    error = refusal(tmp_path, **{table: {key: "1"}})
    assert error.code == "unknown-key"
    assert f"[{table}]" in error.message and repr(key) in error.message
    assert near is None or repr(near) in error.hint
    assert error.hint


@pytest.mark.parametrize(
    ("name", "near"), [("forecats", "forecast"), ("Fresh", "fresh"), ("x", "")]
)
def test_a_table_that_is_not_known_is_named_with_the_nearest(
    tmp_path: Path, name: str, near: str
) -> None:
    error = refusal(tmp_path, **{name: {"path": "x"}})
    assert error.code == "unknown-key"
    assert repr(name) in error.message
    assert near in error.hint


def test_a_key_outside_of_every_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('data = "data.csv"\n')
    with pytest.raises(UsageError, match="data must be a table") as caught:
        read_job(tmp_path / "job.toml")
    assert "[data]" in caught.value.hint


WRONG = [
    ("data", "time", True, "text"),
    ("data", "target", [True], "a list of texts"),
    ("data", "skip_rows", "2", "a whole number"),
    ("data", "skip_rows", 2.5, "a whole number"),
    ("data", "skip_rows", True, "a whole number"),
    ("data", "no_header", "yes", "true or false"),
    ("data", "no_header", 1, "true or false"),
    ("model", "path", ["a"], "text"),
    ("forecast", "quantiles", ["a"], "a list of numbers"),
    ("forecast", "max_drift", "3", "a number"),
    ("forecast", "fallback", [[]], "a list of texts"),
    ("fresh", "max_age", True, "text"),
    ("ledger", "path", False, "text"),
    ("log", "file", [], "text"),
    ("metrics", "textfile", True, "text"),
    ("keep", "forecasts", "30", "a whole number"),
    ("keep", "versions", 1.0, "a whole number"),
    ("notify", "on_failure", [True], "a list of texts"),
    ("retrain", "hold_out", "half", "a number"),
]


@pytest.mark.parametrize(("table", "key", "value", "kind"), WRONG)
def test_a_value_of_another_kind_is_named_with_its_table_its_key_and_what_it_must_be(
    tmp_path: Path, table: str, key: str, value: object, kind: str
) -> None:
    error = refusal(tmp_path, **{table: {key: value}})
    assert f"[{table}]" in error.message
    assert f"{key} is {value!r}, but must be {kind}" in error.message


MEANINGLESS = [
    ("data", "on_duplicate", "first"),
    ("data", "tz", "Mars/Base"),
    ("data", "max_memory", "much"),
    ("data", "stuck_as_na", "long"),
    ("forecast", "quantiles", [0.5, 1.5]),
    ("forecast", "fallback", ["oracle"]),
    ("forecast", "max_drift", -1),
    ("fresh", "max_age", "old"),
    ("fresh", "warn_age", "-1h"),
    ("log", "format", "xml"),
    ("keep", "forecasts", 0),
    ("keep", "versions", -3),
    ("retrain", "every", "soon"),
    ("retrain", "when", "never"),
    ("retrain", "promote_if", "1"),
    ("retrain", "promote_if", "-1%"),
    ("retrain", "promote_if", "100%"),
    ("retrain", "promote_if", "better"),
    ("retrain", "hold_out", 0.0),
    ("retrain", "hold_out", 1.0),
]


@pytest.mark.parametrize(("table", "key", "value"), MEANINGLESS)
def test_a_value_that_cannot_be_meant_is_named_with_its_table_and_its_key(
    tmp_path: Path, table: str, key: str, value: object
) -> None:
    error = refusal(tmp_path, **{table: {key: value}})
    assert f"[{table}]" in error.message
    assert key in error.message.replace("-", "_")


@pytest.mark.parametrize(
    ("said", "margin"), [("1%", 0.01), ("0%", 0.0), ("2.5 %", 0.025), ("99.9%", 0.999)]
)
def test_the_margin_of_a_challenger_is_a_share(tmp_path: Path, said: str, margin: float) -> None:
    assert job_of(tmp_path, retrain={"promote_if": said}).retrain.margin == pytest.approx(margin)


def test_numbers_may_stand_where_text_is_meant(tmp_path: Path) -> None:
    job = job_of(
        tmp_path,
        data={"max_gap": 12, "na_values": [-999, "x", 1.5], "max_bad_rows": 20},
        forecast={"horizon": 24},
    )
    assert job.forecast.horizon == "24"
    assert (job.reading.max_gap, job.reading.max_bad_rows) == ("12", "20")
    assert job.reading.na_values == ("-999", "x", "1.5")


def test_whole_numbers_may_stand_where_numbers_are_meant(tmp_path: Path) -> None:
    job = job_of(tmp_path, forecast={"max_drift": 3})
    assert job.forecast.max_drift == 3.0 and isinstance(job.forecast.max_drift, float)


def test_one_value_may_stand_where_a_list_is_meant(tmp_path: Path) -> None:
    job = job_of(tmp_path, data={"target": "v"}, forecast={"quantiles": 0.5})
    assert (job.reading.target, job.forecast.quantiles) == (("v",), (0.5,))


@pytest.mark.parametrize("value", ["-", "", 1, True, ["data.csv"], None])
@pytest.mark.parametrize(("table", "key"), [("data", "source"), ("forecast", "output")])
def test_a_job_needs_a_source_and_an_output_that_are_files(
    tmp_path: Path, table: str, key: str, value: object
) -> None:
    """Standard input is nothing that an unattended run could read again."""
    tables = {"data": {**DATA}, "forecast": {**FORECAST}}
    del tables[table][key]
    text = "".join(
        f"[{name}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in keys.items())
        for name, keys in tables.items()
    )
    if value is not None:
        text = text.replace(f"[{table}]\n", f"[{table}]\n{key} = {toml(value)}\n")
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_job(tmp_path / "job.toml")
    assert f"[{table}] must have {key}" in caught.value.message
    assert f"{key} = " in caught.value.hint


@pytest.mark.parametrize("text", ["", "[data]\n", '[forecast]\noutput = "out.csv"\n'])
def test_a_job_without_a_source_says_what_to_write(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(UsageError, match=r"\[data\] must have source"):
        read_job(tmp_path / "job.toml")


def test_an_output_must_say_its_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.xlsx"):
        job_of(tmp_path, forecast={"output": "out.xlsx"})


@pytest.mark.parametrize("table", ["data", "model", "ledger", "log", "metrics"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, table: str) -> None:
    key = {"data": "source", "log": "file", "metrics": "textfile"}.get(table, "path")
    other = "" if table == "data" else '[data]\nsource = "data.csv"\n'
    text = f'{other}[forecast]\noutput = "out.csv"\n[{table}]\n{key} = "a\\u0000b"\n'
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(UsageError):
        read_job(tmp_path / "job.toml")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[data\n", "line 1"),
        (b"[data]\nsource = 1\nsource = 2\n", "line 3"),
        (b"\xff\xfe", "decode"),
    ],
)
def test_a_file_that_is_no_toml_is_an_error_with_its_line(
    tmp_path: Path, content: bytes, what: str
) -> None:
    (tmp_path / "job.toml").write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "job.toml"))) as caught:
        read_job(tmp_path / "job.toml")
    assert caught.value.code == "job-file"
    assert what in caught.value.message


def test_a_job_file_that_is_not_there_or_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        read_job(tmp_path / "nowhere.toml")
    assert caught.value.code == "no-job"
    with pytest.raises(UsageError, match="cannot read"):
        read_job(tmp_path)


def test_two_jobs_that_write_to_one_folder_have_locks_of_their_own(tmp_path: Path) -> None:
    first = job_of(tmp_path, forecast={"output": "out/a-{as_of}.csv"})
    second = job_of(tmp_path, forecast={"output": "out/b.csv"})
    assert first.lock != second.lock
    assert first.lock.parent == second.lock.parent == tmp_path / "out"


def test_a_command_that_is_one_text_is_refused_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        '[data]\nsource = "a.csv"\n[forecast]\noutput = "b.csv"\n'
        '[notify]\non_failure = "logger -t x"\n'
    )
    with pytest.raises(UsageError, match="list of strings") as caught:
        read_job(path)
    assert caught.value.hint == 'write ["logger", "-t", "x"]'


def test_a_path_that_the_locale_cannot_spell_is_refused_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_ascii(path: str) -> bytes:
        return path.encode("ascii")

    job = tmp_path / "job.toml"
    job.write_text('[data]\nsource = "ü.csv"\n[forecast]\noutput = "out.csv"\n', "utf-8")
    assert read_job(job).source.endswith("ü.csv")
    monkeypatch.setattr("os.fsencode", in_ascii)
    with pytest.raises(
        UsageError, match=r"'ü\.csv' cannot be encoded in this locale's ascii"
    ) as caught:
        read_job(job)
    assert caught.value.hint is not None and "PYTHONUTF8=1" in caught.value.hint
