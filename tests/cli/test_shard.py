"""Sharding a table: each series wholly in one bucket, the same rows, the same panel."""

from __future__ import annotations

import gzip
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnforecast.batch.shard import shard
from rnnforecast.sources.parquet import COLUMNS_AT_ONCE, ParquetFile
from rnnforecast.sources.shards import bucket_of
from rnnforecast.storage.lock import acquire
from tests.builders import wave
from tests.conftest import SMALL, Command
from tests.data.tables import read

N = 60
TIMES = pd.date_range("2024-03-01", periods=N, freq="1h")


def long(*names: str, of: str = "id", n: int = N) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"ts": TIMES[:n], of: name, "temp": wave(n, seed=i).astype(np.float64)})
        for i, name in enumerate(names)
    ]
    return pd.concat(parts, ignore_index=True).sort_values("ts", kind="stable", ignore_index=True)


def wide(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"ts": TIMES, **{n: wave(N, seed=i) for i, n in enumerate(names)}})


def stored(folder: Path | str) -> dict[str, pd.DataFrame]:
    """Every bucket's rows, by its file."""
    return {p.name: pd.read_parquet(p) for p in sorted(Path(folder).glob("bucket-*.parquet"))}


def all_rows(folder: Path | str) -> pd.DataFrame:
    return pd.concat(stored(folder).values(), ignore_index=True)


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(list(frame.columns), ignore_index=True)


def check_buckets(folder: Path | str, column: str = "id") -> dict:
    """Hold a folder against its manifest, and every series against its bucket."""
    manifest: dict = json.loads((Path(folder) / "_shards.json").read_bytes())
    buckets = stored(folder)
    assert [entry["file"] for entry in manifest["files"]] == list(buckets)
    homes: dict[str, str] = {}
    for entry in manifest["files"]:
        rows, content = buckets[entry["file"]], (Path(folder) / entry["file"]).read_bytes()
        names = set(rows[column].astype(str))
        assert (entry["rows"], entry["series"]) == (len(rows), len(names))
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        for name in names:
            assert homes.setdefault(name, entry["file"]) == entry["file"]
            assert bucket_of(name, manifest["buckets"]) == entry["bucket"]
    assert manifest["rows"] == sum(map(len, buckets.values()))
    assert manifest["series"] == len(homes)
    assert manifest["empty"] == manifest["buckets"] - len(buckets)
    return manifest


def shard_file(
    command: Command, source: str, buckets: int, *options: object, output: str = "out"
) -> dict:
    """Shard a file or a folder; return the document of the command."""
    line = ("shard", source, "--output", output, "--buckets", buckets, *options, "--json")
    outcome = command(*line)
    assert outcome.code == 0, outcome.err
    return outcome.document


def same_panels(data: object, folder: object, **options) -> None:
    """Each series begins at the same time and has the same readings, missing ends apart."""
    first, second = read(data, **options).panel, read(folder, **options).panel
    assert set(first.names) == set(second.names)
    assert first.step_us == second.step_us
    for i, name in enumerate(first.names):
        j = second.names.index(name)
        a, b = (_trimmed(p.of(k), p.start[k], p.step_us) for p, k in ((first, i), (second, j)))
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])


def _trimmed(readings: np.ndarray, start: int, step: int) -> tuple[int, np.ndarray]:
    seen = np.flatnonzero(np.isfinite(readings))
    return int(start + seen[0] * step), readings[seen[0] : seen[-1] + 1]


@pytest.mark.parametrize("buckets", [1, 3, 64, 100_000])
def test_long_rows_go_as_they_are_each_series_into_one_bucket(
    command: Command, buckets: int
) -> None:
    frame = long("a", "b", "c", "d")
    frame.loc[5:9, "temp"] = np.nan
    frame["note"], frame["count"] = "x", np.arange(len(frame), dtype=np.int16)
    frame.to_parquet("x.parquet")

    document = shard_file(command, "x.parquet", buckets, "--target", "temp")

    assert document["buckets"] == buckets
    assert check_buckets("out")["layout"] == "long"
    pd.testing.assert_frame_equal(ordered(all_rows("out")), ordered(frame))
    same_panels("x.parquet", "out", target=("temp",))
    for rows in stored("out").values():
        assert rows["count"].is_monotonic_increasing, "rows keep their order"


def test_a_wide_table_becomes_a_long_one(command: Command) -> None:
    frame = wide("flow", "level", "größe 🌡")
    frame.loc[:7, "level"] = np.nan
    frame.to_csv("x.csv", index=False)

    document = shard_file(command, "x.csv", 8)

    assert check_buckets("out", "series")["layout"] == "wide"
    expected = pd.read_csv("x.csv").melt("ts", var_name="series", value_name="value")
    pd.testing.assert_frame_equal(ordered(all_rows("out")), ordered(expected))
    same_panels("x.csv", "out")
    assert shlex.split(document["train"])[1:] == [
        *("train", "out", "--time", "ts", "--series", "series", "--target", "value")
    ]


def test_covariates_of_a_wide_table_stand_beside_each_series(command: Command) -> None:
    frame = wide("flow", "level").assign(setpoint=np.arange(N) % 7.0, series="day shift")
    frame.to_csv("x.csv", index=False)

    options = ("--known", "setpoint", "--past", "series")
    shard_file(command, "x.csv", 8, *options)

    rows = all_rows("out")
    assert list(rows) == ["ts", "setpoint", "series", "series_", "value"]
    assert len(rows) == 2 * N
    for _, rows_of_series in rows.groupby("series_"):
        assert rows_of_series["setpoint"].tolist() == frame["setpoint"].tolist()
    result = read("out", known=("setpoint",), past=("series",))
    assert result.schema.series == "series_"
    assert set(result.panel.names) == {"flow", "level"}


def test_a_wide_file_of_many_columns_is_read_a_few_at_a_time(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = []
    batches = ParquetFile.batches

    def watched(file: ParquetFile, names: list[str], *arguments: Any) -> object:
        together.append(len(names))
        return batches(file, names, *arguments)

    monkeypatch.setattr(ParquetFile, "batches", watched)
    frame = wide(*(f"s{i}" for i in range(250))).assign(setpoint=np.arange(N) % 7.0)
    frame.to_parquet("x.parquet", index=False, row_group_size=25)

    shard_file(command, "x.parquet", 8, "--known", "setpoint")

    assert max(together) <= COLUMNS_AT_ONCE + 2
    check_buckets("out", "series")
    expected = frame.melt(["ts", "setpoint"], var_name="series", value_name="value")
    pd.testing.assert_frame_equal(ordered(all_rows("out")), ordered(expected))
    same_panels("x.parquet", "out", known=("setpoint",))


def test_several_files_and_types_become_one_table(command: Command) -> None:
    Path("in").mkdir()
    frame = long("a", "b", "c")
    frame[:50].to_parquet("in/1.parquet")
    frame[50:].assign(extra=1, temp=frame["temp"][50:].astype(np.float32)).to_parquet(
        "in/2.parquet"
    )

    outcome = command("shard", "in", "--output", "out", "--buckets", 5)

    assert outcome.code == 0
    assert "not in every file, skipped: extra" in outcome.err
    check_buckets("out")
    assert len(all_rows("out")) == len(frame)
    same_panels("in", "out")


def test_a_column_that_later_files_lack_is_left_out_and_said(command: Command) -> None:
    Path("in").mkdir()
    frame = long("a", "b")
    frame[:50].assign(extra="x").to_parquet("in/1.parquet")
    frame[50:].to_parquet("in/2.parquet")

    outcome = command("shard", "in", "--output", "out", "--buckets", 5)

    assert (outcome.code, "skipped: extra" in outcome.err) == (0, True)
    assert list(all_rows("out")) == ["ts", "id", "temp"]


def test_folders_that_name_series_become_a_column(command: Command) -> None:
    for name in ("007", "7"):
        Path(f"in/id={name}").mkdir(parents=True)
        long("a").drop(columns="id").to_parquet(f"in/id={name}/a.parquet")

    shard_file(command, "in", 9)

    assert set(all_rows("out")["id"]) == {"007", "7"}
    same_panels("in", "out")


@pytest.mark.parametrize(
    ("form", "zone"),
    [
        ("%Y-%m-%d %H:%M:%S", None),
        ("%d/%m/%Y %H:%M", None),
        ("%Y-%m-%dT%H:%M:%S%z", "Europe/Vienna"),
        ("%s", None),
    ],
)
def test_stamps_of_a_text_file_stay_as_they_are(
    command: Command, form: str, zone: str | None
) -> None:
    frame = long("a", "b", "c")
    stamps = frame["ts"].dt.tz_localize(zone).dt.strftime(form)
    text = frame.assign(ts=stamps).to_csv(index=False)
    Path("x.csv.gz").write_bytes(gzip.compress(text.encode()))

    options = ("--time-format", form) if "/" in form else ()
    shard_file(command, "x.csv.gz", 4, *options)

    kept = all_rows("out")["ts"]
    assert sorted(kept.astype(str).str.removesuffix(".0")) == sorted(stamps)
    same_panels("x.csv.gz", "out", time_format=form if options else None)


@pytest.mark.parametrize("unit", ["us", "ns", "ms"])
def test_stamps_with_a_zone_keep_their_type(command: Command, unit: str) -> None:
    frame = long("a", "b")
    frame["ts"] = frame["ts"].dt.tz_localize("Europe/Vienna").dt.as_unit(unit)  # type: ignore[arg-type]
    frame.to_parquet("x.parquet")

    shard_file(command, "x.parquet", 4)

    first = next(Path("out").glob("*.parquet"))
    assert pq.read_schema(first).field("ts").type == pa.timestamp(unit, "Europe/Vienna")
    same_panels("x.parquet", "out")
    assert read("out").schema.tz == "Europe/Vienna"


@pytest.mark.parametrize("kind", ["int64", "category", "string"])
def test_series_are_called_what_the_rest_calls_them(command: Command, kind: str) -> None:
    frame = long("7", "12", "1000")
    frame["id"] = frame["id"].astype(kind)  # type: ignore[call-overload]
    frame.to_parquet("x.parquet")

    shard_file(command, "x.parquet", 50)

    check_buckets("out")
    same_panels("x.parquet", "out")
    assert set(read("out").panel.names) == {"7", "12", "1000"}


def test_odd_names_are_series_like_all_others(command: Command) -> None:
    names = [" ", "  ", "0", "null", "größe 🌡", "a\nb", "../up", "x" * 5000, "=cmd()"]
    long(*names).to_parquet("x.parquet")

    shard_file(command, "x.parquet", 7)

    assert check_buckets("out")["series"] == len(names)
    assert set(read("out").panel.names) == set(names)


def test_columns_may_be_called_whatever_is_needed_on_the_way(command: Command) -> None:
    frame = long("a", "b").rename(columns={"ts": "bucket"}).assign(__bucket="x", value_="y")
    frame.to_parquet("x.parquet")

    shard_file(command, "x.parquet", 1000)

    pd.testing.assert_frame_equal(ordered(all_rows("out")), ordered(frame))


def test_numbers_that_name_things_stay_texts(command: Command) -> None:
    frame = long("007", "010").assign(line="01")
    frame.to_csv("x.csv", index=False)
    options = ("--past", "line", "--categorical", "line")

    shard_file(command, "x.csv", 7, *options)

    rows = all_rows("out")
    assert (set(rows["id"]), set(rows["line"])) == ({"007", "010"}, {"01"})


def test_what_joins_and_renames_columns_reads_the_folder_too(command: Command) -> None:
    frame = long("a", "b", of="pump")
    frame["date"], frame["clock"] = frame["ts"].dt.date, frame["ts"].dt.time
    frame.drop(columns="ts").to_csv("x.csv", index=False)
    options = ("--time", "date,clock", "--map", "pump=machine")

    document = shard_file(command, "x.csv", 4, *options)

    check_buckets("out", "pump")
    same_panels("x.csv", "out", time="date,clock", map=("pump=machine",))
    assert "--map pump=machine" in document["train"]


def test_a_series_column_without_a_telling_name_is_known_from_the_manifest(
    command: Command,
) -> None:
    long("a", "b", of="pump").to_parquet("x.parquet")
    shard_file(command, "x.parquet", 97)
    assert len(stored("out")) == 2

    assert read("out").schema.series == "pump"


def test_two_runs_give_the_same_bytes(command: Command) -> None:
    long("a", "b", "c").to_csv("x.csv", index=False)
    for name in ("first", "second"):
        shard_file(command, "x.csv", 4, output=name)

    first, second = (
        {path.name: path.read_bytes() for path in Path(name).iterdir()}
        for name in ("first", "second")
    )
    assert first == second


def test_a_folder_of_buckets_can_be_spread_over_others(command: Command) -> None:
    long("7", "8", "9").to_csv("x.csv", index=False)
    shard_file(command, "x.csv", 4)
    shard_file(command, "out", 9, output="again")

    check_buckets("again")
    same_panels("x.csv", "again")


def test_the_proposed_line_trains(command: Command) -> None:
    pd.DataFrame({"ts": pd.date_range("2024-01-01", periods=300, freq="1h"), "kwh": wave(300),
                  "flow": wave(300, seed=1)}).to_csv("x.csv", index=False)  # fmt: skip
    document = shard_file(command, "x.csv", 4)

    line = shlex.split(document["train"])[1:]
    assert command(*line, *SMALL, "-q").code == 0
    assert command("predict", "-q").code == 0
    assert set(pd.read_csv("forecast.csv")["series"]) == {"kwh", "flow"}


def test_text_options_are_not_in_the_proposed_line(command: Command) -> None:
    frame = wide("flow", "level")
    frame.to_csv("x.csv", index=False, sep=";", decimal=",")
    options = ("--sep", ";", "--decimal", ",", "--counter", "flow", "--counter", "level")

    document = shard_file(command, "x.csv", 4, *options)

    assert document["train"].endswith("--target value --counter value")
    assert "--sep" not in document["train"]


# What is refused


@pytest.mark.parametrize("made", ["folder", "empty folder", "file", "dangling link"])
def test_what_is_there_is_refused_and_stays_as_it_is(command: Command, made: str) -> None:
    long("a").to_parquet("x.parquet")
    path = Path("out")
    if "folder" in made:
        path.mkdir()
        if made == "folder":
            (path / "mine").write_text("mine")
    elif made == "file":
        path.write_text("mine")
    else:
        path.symlink_to("nowhere")
    before = path.lstat()  # but for when it was looked at

    outcome = command("shard", "x.parquet", "--output", "out", "--buckets", 4)

    assert (outcome.code, "out already exists" in outcome.err) == (2, True)
    assert path.lstat()[:7] == before[:7]
    assert path.lstat().st_mtime_ns == before.st_mtime_ns
    assert sorted(p.name for p in Path().iterdir()) == ["out", "x.parquet"]


@pytest.mark.parametrize("buckets", [0, -1, 100_001, "many", "1.5"])
def test_so_many_buckets_are_a_usage_error(command: Command, buckets: object) -> None:
    long("a").to_parquet("x.parquet")

    outcome = command("shard", "x.parquet", "--output", "out", "--buckets", buckets)

    assert (outcome.code, "buckets" in outcome.err) == (2, True)
    assert [p.name for p in Path().iterdir()] == ["x.parquet"]


def test_who_is_kept_out_hears_of_no_option_that_there_is_not(command: Command) -> None:
    long("a").to_csv("x.csv", index=False)
    with acquire(Path(".lock-out").resolve()):
        outcome = command("shard", "x.csv", "--output", "out", "--buckets", 2, "--json")

    assert (outcome.code, outcome.error["code"]) == (11, "locked")
    assert "--" not in outcome.error["hint"]


def test_output_and_buckets_must_be_given(command: Command) -> None:
    assert command("shard", "x.parquet", "--buckets", 4).code == 2
    assert command("shard", "x.parquet", "--output", "out").code == 2


def test_the_folder_does_not_lie_among_what_it_is_made_of(command: Command) -> None:
    Path("in").mkdir()
    long("a").to_parquet("in/x.parquet")

    outcome = command("shard", "in", "--output", "in/out", "--buckets", 4)

    assert (outcome.code, "be read as data next time" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [
        ("ts,id,temp\n2024-01-01,a,1\n2024-01-02,,2\n", "missing-series", 4),
        ("ts,id,temp\n2024-01-01,a,1\n2024-01-02,b,oops\n", "not-a-number", 4),
        ("ts,id,temp\n2024-01-01,a,1\n2024-01-02,b\n", "ragged-row", 4),
        ("ts,id,temp\n", "header-only", 4),
        ("ts,id,state\n2024-01-01,a,on\n2024-01-02,a,off\n", "no-target", 4),
        ("a,b\n1,2\n", "no-time-column", 4),
    ],
)
def test_bad_readings_publish_nothing(
    command: Command, text: str, code: str, exit_code: int
) -> None:
    Path("x.csv").write_text(text)

    outcome = command("shard", "x.csv", "--output", "out", "--buckets", 4, "--json")

    assert (outcome.code, outcome.out) == (exit_code, "")
    assert outcome.error["code"] == code
    assert [p.name for p in Path().iterdir()] == ["x.csv"]


def test_counters_of_some_sensors_only_are_refused(command: Command) -> None:
    wide("flow", "level").to_csv("x.csv", index=False)

    outcome = command("shard", "x.csv", "--output", "o", "--buckets", 4, "--counter", "flow")

    assert (outcome.code, "--target flow" in outcome.err) == (2, True)


def test_a_folder_that_cannot_be_written_is_exit_7(command: Command) -> None:
    long("a").to_parquet("x.parquet")
    Path("file").write_text("")

    outcome = command("shard", "x.parquet", "--output", "file/out", "--buckets", 4)

    assert outcome.code == 7


def test_skipped_rows_are_counted_and_kept(command: Command) -> None:
    lines = long("a", "b").to_csv(index=False).splitlines()
    Path("x.csv").write_text("\n".join([*lines, "2024-05-01,a"]) + "\n")
    options = ("--on-bad-rows", "skip", "--max-bad-rows", "5", "--rejects", "bad.csv")

    shard_file(command, "x.csv", 4, *options)

    assert Path("bad.csv").read_text() == "2024-05-01,a\n"
    assert check_buckets("out")["rows"] == 2 * N


def test_a_table_in_memory_can_be_sharded(tmp_path: Path) -> None:
    frame = long("a", "b")

    sharded = shard(frame, tmp_path / "out", 4)

    assert sharded.manifest.n_series == 2
    pd.testing.assert_frame_equal(ordered(all_rows(tmp_path / "out")), ordered(frame))
