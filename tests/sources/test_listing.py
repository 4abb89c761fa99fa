"""Folders and patterns: what cannot access is an error, and never left out."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest

from rnnforecast.errors import DataError, UsageError, WriteError
from rnnforecast.sources.files import check_spared, expand_path
from rnnforecast.storage.durable import check_file, check_not_overwriting
from tests.builders import another_user

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root becomes another user"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, with two folders of one file each."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for site in ("id=a", "id=b"):
            (place / site).mkdir(mode=0o755)
            (place / site / "x.csv").write_text("t,x\n1,2\n")
        yield place
        for site in place.glob("id=*"):
            site.chmod(0o755)


def refused(text: object, named: object) -> None:
    with pytest.raises(DataError, match="cannot access") as caught:
        expand_path(str(text))
    assert caught.value.exit_code == 4
    assert caught.value.location is not None and caught.value.location.file == str(named)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o744])
@pytest.mark.parametrize("pattern", ["", "*/*.csv", "*/x.csv", "**/*.csv"])
def test_a_folder_that_may_not_be_entered_is_an_error(folder, mode, pattern):
    """Names alone may be seen with 744: a pattern needs no more of the last folder."""
    closed = folder / "id=b"
    closed.chmod(mode)
    with another_user():
        if mode == 0o744 and pattern in ("*/*.csv", "**/*.csv"):
            assert len(expand_path(f"{folder}/{pattern}")) == 2  # opening them is the error
            return
        shows_file = mode == 0o744 or pattern == "*/x.csv"
        refused(folder / pattern if pattern else folder, closed / "x.csv" if shows_file else closed)


@needs_root
def test_a_link_into_a_closed_folder_is_an_error(folder):
    (folder / "id=a" / "y.csv").symlink_to(folder / "id=b" / "x.csv")
    (folder / "id=b").chmod(0o700)
    with another_user():
        refused(folder / "id=a", folder / "id=a" / "y.csv")


def test_a_link_to_nothing_is_an_error(folder):
    """As of a disk that is not mounted."""
    (folder / "id=a" / "y.csv").symlink_to(folder / "gone.csv")
    refused(folder, folder / "id=a" / "y.csv")


@pytest.mark.parametrize("pattern", ["", "*/*.csv", "**/*.csv", "id=?/**"])
def test_an_error_of_the_disk_is_an_error(folder, pattern):
    real, damaged = os.scandir, str(folder / "id=b")

    def scandir(path: str) -> object:
        if str(path) == damaged:
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path)

    with mock.patch("os.scandir", scandir):
        refused(folder / pattern if pattern else folder, damaged)


PARTS = ("*", "**", "a*", "[ab]", "a", "?", "*.csv", ".h", ".*", "b", "l")


def test_patterns_match_what_glob_matches(tmp_path):
    for name in ("a/x.csv", "a/b/y.csv", "b/x.csv", "b/a/a/z.csv", ".h/x.csv", "a/.x.csv", "a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "l").symlink_to("a")
    draw = random.Random(0)
    for _ in range(300):
        pattern = "/".join(draw.choices(PARTS, k=draw.randint(1, 4)))
        text = str(tmp_path / pattern)
        expected = {Path(match) for match in glob.glob(text, recursive=True)}  # noqa: PTH207
        expected = {path for path in expected if path.is_file()}
        if expected and not Path(text).exists():
            assert {path for path in expand_path(text) if path.is_file()} == expected, pattern


def test_an_output_is_refused_if_and_only_if_a_pattern_would_read_it(tmp_path):
    names = ("a/x.csv", "a/b/y.csv", "b/a/z.csv", "a/.x.csv", ".h/x.csv", "x.csv", "a/x.jsonl")
    patterns = ("*.csv", "a/*.csv", "a/**/b/*.csv", "**/*.csv", "a/.*", "*/*/*", "**/b/**/*.csv")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    for name, pattern in itertools.product(names, patterns):
        output, text = tmp_path / name, str(tmp_path / pattern)
        output.touch()
        is_read = str(output) in glob.glob(text, recursive=True)  # noqa: PTH207
        output.unlink()
        with pytest.raises(UsageError) if is_read else nullcontext():
            check_spared(output, text, "the readings")


@needs_root
def test_a_result_in_a_folder_that_may_not_be_entered_is_a_write_error(folder):
    (folder / "id=b").chmod(0o700)
    output = folder / "id=b" / "forecast.csv"
    with another_user():
        check_not_overwriting(output, folder / "rnnforecast.toml", "the options")
        with pytest.raises(WriteError):
            check_file(output)
