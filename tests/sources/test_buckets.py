"""Which bucket a name belongs to: pinned, as folders outlive the programs that wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.sources.shards import bucket_file_name, bucket_of, name_digests


@pytest.mark.parametrize(
    ("name", "digest", "of_64", "of_1000"),
    [
        ("M01", "bcf111241f911dc1", 1, 945),
        ("flow", "197022cced1f7f35", 53, 13),
        ("007", "492a8021fcec81bd", 61, 117),
        (" ", "144fc5787a5c7b42", 2, 154),
        ("größe 🌡", "85ceddd044424236", 54, 702),
    ],
)
def test_hashes_are_these_for_ever(name: str, digest: str, of_64: int, of_1000: int) -> None:
    assert name_digests([name.encode()]).hex() == digest
    assert name_digests([b"x", name.encode()])[8:].hex() == digest
    assert bucket_of(name, 64) == of_64
    assert bucket_of(name, 1000) == of_1000


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(1, 100_000))
def test_every_name_has_one_bucket(name: str, n_buckets: int) -> None:
    assert 0 <= bucket_of(name, n_buckets) < n_buckets
    assert bucket_of(name, 1) == 0


def test_files_are_called_by_their_numbers() -> None:
    assert bucket_file_name(7, 64) == "bucket-00007-of-00064.parquet"
    assert bucket_file_name(99_999, 100_000) == "bucket-99999-of-100000.parquet"
