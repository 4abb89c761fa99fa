"""The ledger: parts in the order of issue, one for each run, and nothing else in its folder."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.axis import format_for_file_name
from rnnforecast.errors import DataError, WriteError
from rnnforecast.jobs.ledger import ISSUE, LedgerPart, list_parts, publish_part, read_parts
from tests.builders import HOUR_US, START_US
from tests.data.tables import few

DAYS = ("2024-01-01T000000", "2024-01-02T000000", "2024-01-10T000000")


def key(number: int) -> str:
    return f"{number:064x}"[::-1]


def rows(*values: float, tz: str | None = None) -> pa.Table:
    """Make rows such as a ledger keeps."""
    times = pa.array([START_US + i * HOUR_US for i in range(len(values))], pa.int64())
    return pa.table(
        {
            "series": pa.array([f"s{i}" for i in range(len(values))], pa.string()),
            "timestamp": times.cast(pa.timestamp("us", tz=tz)),
            "forecast": pa.array(values, pa.float64()),
        }
    )


def test_parts_come_in_the_order_of_their_times_and_then_of_their_issue(tmp_path: Path) -> None:
    for number, day in ((5, DAYS[2]), (4, DAYS[0]), (3, DAYS[1]), (2, DAYS[0]), (1, DAYS[2])):
        publish_part(tmp_path, rows(number), as_of=day, key=key(number))

    parts = list_parts(tmp_path)

    assert [(part.as_of, part.issue) for part in parts] == [
        (DAYS[0], 1),
        (DAYS[0], 2),
        (DAYS[1], 1),
        (DAYS[2], 1),
        (DAYS[2], 2),
    ]
    assert read_parts(parts)["forecast"].to_pylist() == [4, 2, 3, 5, 1]
    assert read_parts(parts)[ISSUE].to_pylist() == [0, 1, 2, 3, 4]


def test_the_same_run_has_one_part_and_what_it_issued_first_counts(tmp_path: Path) -> None:
    first = publish_part(tmp_path, rows(1.0), as_of=DAYS[0], key=key(1))
    content = first.path.read_bytes()

    assert publish_part(tmp_path, rows(2.0), as_of=DAYS[0], key=key(1)) == first
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize("n_bytes", [0, 3, 300, -1])
def test_a_part_that_is_damaged_is_replaced_by_the_same_run(tmp_path: Path, n_bytes: int) -> None:
    first = publish_part(tmp_path, rows(1.0, 2.0), as_of=DAYS[0], key=key(1))
    publish_part(tmp_path, rows(3.0), as_of=DAYS[0], key=key(2))
    content = first.path.read_bytes()
    first.path.write_bytes(content[:n_bytes])
    assert publish_part(tmp_path, rows(1.0, 2.0), as_of=DAYS[0], key=key(1)) == first
    assert first.path.read_bytes() == content
    assert [part.issue for part in list_parts(tmp_path)] == [1, 2]


def test_the_same_key_at_another_time_is_another_run(tmp_path: Path) -> None:
    parts = [publish_part(tmp_path, rows(1.0), as_of=day, key=key(1)) for day in DAYS]

    assert list_parts(tmp_path) == parts
    assert publish_part(tmp_path, rows(2.0), as_of=DAYS[1], key=key(1)) == parts[1]
    assert publish_part(tmp_path, rows(2.0), as_of=DAYS[1], key=key(2)) not in parts


def test_later_issues_of_one_time_come_after_earlier_ones_however_many(tmp_path: Path) -> None:
    for number in range(1, 13):
        part = publish_part(tmp_path, rows(number), as_of=DAYS[0], key=key(number))
        assert part.issue == number
    (tmp_path / part.path.name.replace("_0012_", "_10000_")).write_bytes(part.path.read_bytes())

    assert [part.issue for part in list_parts(tmp_path)] == [*range(1, 13), 10_000]
    assert publish_part(tmp_path, rows(0.0), as_of=DAYS[0], key=key(99)).issue == 10_001


def test_a_part_that_was_taken_away_gives_its_number_to_nobody_before_it(tmp_path: Path) -> None:
    first, second = (publish_part(tmp_path, rows(n), as_of=DAYS[0], key=key(n)) for n in (1, 2))
    first.path.unlink()

    assert publish_part(tmp_path, rows(3), as_of=DAYS[0], key=key(3)).issue > second.issue


@pytest.mark.parametrize("tz", [None, "UTC", "Europe/Vienna", "+05:30"])
def test_what_is_issued_is_read_as_it_was_zones_too(tmp_path: Path, tz: str | None) -> None:
    table = rows(1.5, float("nan"), -0.0, 1e300, tz=tz)

    part = publish_part(tmp_path, table, as_of=DAYS[0], key=key(1))

    stored = read_parts([part]).drop_columns([ISSUE])
    assert stored.schema.equals(table.schema)
    assert list(map(str, stored.to_pylist())) == list(map(str, table.to_pylist()))


def test_parts_of_other_versions_may_have_other_columns(tmp_path: Path) -> None:
    more = rows(1.0).append_column("extra", pa.array([7]))
    parts = [
        publish_part(tmp_path, table, as_of=day, key=key(1))
        for day, table in zip(DAYS, (rows(0.0), more, rows(2.0)), strict=True)
    ]

    assert read_parts(parts)["extra"].to_pylist() == [None, 7, None]


def test_what_is_no_part_is_ignored(tmp_path: Path) -> None:
    part = publish_part(tmp_path, rows(1.0), as_of=DAYS[0], key=key(1))
    content = part.path.read_bytes()
    for name in (
        ".lock",
        "notes.txt",
        f".tmp-0123456789ab-{part.path.name}",
        f"{part.path.name}.bak",
        f"copy of {part.path.name}",
        part.path.name.upper(),
        part.path.name.replace("_0001_", "_1_"),
        part.path.name.replace(".parquet", ".csv"),
        f"{part.path.name[:-9]}0.parquet",
    ):
        (tmp_path / name).write_bytes(content)

    assert list_parts(tmp_path) == [part]


def test_a_folder_that_is_not_there_or_no_folder_holds_no_parts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert list_parts(tmp_path / "nowhere") == list_parts(tmp_path / "file") == []


def test_a_part_that_cannot_be_written_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="nowhere"):
        publish_part(tmp_path / "nowhere", rows(1.0), as_of=DAYS[0], key=key(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_bytes", [0, 3, 100, -20])
def test_a_damaged_part_is_an_error_that_names_it(tmp_path: Path, n_bytes: int) -> None:
    good, bad = (publish_part(tmp_path, rows(n), as_of=DAYS[n], key=key(n)) for n in (0, 1))
    bad.path.write_bytes(bad.path.read_bytes()[:n_bytes])

    with pytest.raises(DataError) as caught:
        read_parts([good, bad])

    assert (caught.value.exit_code, caught.value.code) == (4, "damaged-ledger")
    assert str(bad.path) in caught.value.message and str(good.path) not in caught.value.message
    assert caught.value.location.file == str(bad.path)


def test_a_part_that_has_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    part = LedgerPart(DAYS[0], 1, key(1)[:16], tmp_path / "gone.parquet")
    with pytest.raises(DataError, match=r"gone\.parquet"):
        read_parts([part])


@few
@given(
    st.lists(st.integers(START_US, START_US + 5_000_000), min_size=1, max_size=6, unique=True),
    st.sampled_from([None, "UTC"]),
    st.randoms(use_true_random=False),
)
def test_parts_are_in_the_order_of_their_times_to_the_microsecond(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], tz: str | None, dice: random.Random
) -> None:
    ledger = tmp_path_factory.mktemp("ledger")
    times = sorted({*times, *(time // 10**6 * 10**6 for time in times)})
    for time in dice.sample(times, len(times)):
        publish_part(ledger, rows(0.0), as_of=format_for_file_name(time, tz), key=key(time))

    assert [part.key for part in list_parts(ledger)] == [key(time)[:16] for time in times]
