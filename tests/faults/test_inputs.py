"""Input that is stale, ahead of the clock, frozen or cut short, or changes while it is read.

Fault 10 of the table: nothing is published that rests on it, and what was there stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from rnnforecast.sources import csv
from tests.faults.counting import tell
from tests.faults.scene import RUN, Scene, files_in
from tests.faults.scene import TOLD as TOLD_FILES


def published(scene: Scene) -> dict[str, bytes]:
    """Return everything but the readings, the job, and what a run tells."""
    own = ("data.csv", "data.parquet", "job.toml", *TOLD_FILES)
    return {name: content for name, content in files_in(scene.place).items() if name not in own}


def refused(scene: Scene, code: int, *, why: str) -> None:
    """Run the job on what it cannot use: the exit code says so, and nothing is published."""
    before = published(scene)
    outcome = scene.expect(code, *RUN.words, "--json")
    error = json.loads(outcome.err.strip().splitlines()[-1])["error"]
    assert why in (error["code"], error["message"]) or why in error["message"], error
    assert published(scene) == before
    last = json.loads((scene.place / "run.log").read_text().splitlines()[-1])
    assert last["exit"] == code


def add_to_job(scene: Scene, text: str) -> None:
    path = scene.place / "job.toml"
    path.write_text(f"{path.read_text()}{text}\n")


def test_stale_readings_publish_nothing(scene: Scene) -> None:
    add_to_job(scene, '[fresh]\nmax_age = "3h"')
    refused(scene, 5, why="stale")
    tell(10, "stale readings", runs=1, published=0)


def test_readings_from_the_future_are_no_reading_that_counts(scene: Scene) -> None:
    """A logger whose clock is wrong writes years ahead of all others."""
    path = scene.place / "data.csv"
    path.write_text(path.read_text() + "2150-01-01 00:00:00,1,1\n")
    before = published(scene)
    outcome = scene.expect(4, *RUN.words)
    assert "2150" in outcome.err
    assert published(scene) == before
    tell(10, "readings of the future", runs=1, published=0)


def test_readings_that_stand_still_are_said(scene: Scene) -> None:
    """A frozen sensor is a warning, and with `stuck-as-na` no reading at all."""
    path = scene.place / "data.csv"
    lines = path.read_text().splitlines()
    stuck = [f"{line.split(',')[0]},25.0,{line.split(',')[2]}" for line in lines[-72:]]
    last = datetime.fromisoformat(lines[-1].split(",")[0])
    times = [last + timedelta(hours=hour) for hour in range(1, 7)]
    more = [
        f"{time},25.0,{line.split(',')[2]}" for time, line in zip(times, lines[-24:], strict=False)
    ]
    scene.expect(0, *RUN.words)
    path.write_text("\n".join([*lines, *more]) + "\n")
    outcome = scene.expect(0, *RUN.words)
    assert "warning: flow: live " in outcome.err
    scene.reset()
    path.write_text("\n".join([*lines[:-72], *stuck]) + "\n")
    job = scene.place / "job.toml"
    job.write_text(job.read_text().replace("[data]", '[data]\nstuck-as-na = "6h"'))
    outcome = scene.expect(3, *RUN.words, "--json")
    assert json.loads(outcome.out)["degraded"] == 1
    tell(10, "readings that stand still", runs=2, said=2)


CUTS = (0, 1, 5, 12, 200)


@pytest.mark.parametrize("keep", CUTS)
def test_a_file_that_is_cut_short_publishes_nothing_that_is_not_there(
    keep: int, scene: Scene
) -> None:
    """Cut this many characters before its end or after its start: in a line, in a timestamp."""
    path = scene.place / "data.csv"
    content = path.read_bytes()
    before = published(scene)
    for cut in (content[:keep], content[: len(content) - keep]):
        path.write_bytes(cut)
        outcome = scene.expect_any((0, 3, 4, 5), *RUN.words)
        if outcome.code in (4, 5):
            assert published(scene) == before
        else:
            assert scene.manifest()["inputs"][0]["bytes"] == len(cut)
        before = published(scene)
    tell(10, f"a CSV file cut {keep} characters short", runs=2)


def test_a_parquet_file_that_is_cut_short_publishes_nothing(scene: Scene) -> None:
    path = scene.place / "data.parquet"
    pa_parquet.write_table(pa_csv.read_csv(scene.place / "data.csv"), path)
    job = scene.place / "job.toml"
    job.write_text(job.read_text().replace("data.csv", "data.parquet"))
    whole = path.read_bytes()
    lengths = [0, 4, 100, len(whole) // 2, len(whole) - 9, len(whole) - 1]
    for length in lengths:
        path.write_bytes(whole[:length])
        refused(scene, 4, why="data.parquet")
    path.write_bytes(whole)
    scene.expect(0, *RUN.words)
    tell(10, "a Parquet file cut short", runs=len(lengths), published=0)


def while_it_is_read(change: Callable[[], object]) -> mock._patch:
    """Do something after the first batch of a CSV file was read."""
    real, has_changed = csv.CsvFile.batches, []

    def batches(self: csv.CsvFile, wanted: dict[str, pa.DataType]) -> object:
        for batch in real(self, wanted):
            yield batch
            if not has_changed:
                has_changed.append(True)
                change()

    return mock.patch.object(csv.CsvFile, "batches", batches)


def replace(path: Path) -> None:
    other = path.with_name("other.csv")
    other.write_text(path.read_text().replace("2024-01-01", "2023-01-01", 1))
    other.replace(path)


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("2024-01-17 16:00:00,20.5,50.1\n")


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:200]))


@pytest.mark.parametrize("change", [replace, cut, Path.unlink], ids=lambda f: f.__name__)
def test_a_file_that_is_replaced_while_it_is_read_publishes_nothing(
    change: Callable[[Path], object], scene: Scene
) -> None:
    path = scene.place / "data.csv"
    content = path.read_bytes()
    with while_it_is_read(lambda: change(path)):
        refused(scene, 4, why="data.csv")
    path.write_bytes(content)
    scene.expect(0, *RUN.words)
    scene.check_done(RUN)
    tell(10, f"{change.__name__} while the input is read", runs=1, published=0)


def test_a_file_that_grows_while_it_is_read_is_said_and_what_came_first_counts(
    scene: Scene,
) -> None:
    path = scene.place / "data.csv"
    with while_it_is_read(lambda: grow(path)):
        outcome = scene.expect(0, *RUN.words)
    assert "grew while it was read" in outcome.err
    assert scene.read(RUN.result) == scene.after[RUN.result]
    tell(10, "the input grows while it is read", runs=1, said=1)
