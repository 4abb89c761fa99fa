"""Which bucket a series lies in: a hash of its name, the same on every machine and for ever.

Python's own hash differs from process to process. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

HASH = "blake2b-64"
"""What manifests call it."""
MOST_BUCKETS = 100_000
_DIGEST_BYTES = 8


def digests_of(names: Iterable[bytes]) -> bytes:
    """Return the hashes of names in UTF-8, one after the other: 8 bytes of BLAKE2b for each.

    Many are hashed at once, as making a hash from nothing takes longer than copying one.
    """
    empty, digests = blake2b(digest_size=_DIGEST_BYTES), []
    for name in names:
        one = empty.copy()
        one.update(name)
        digests.append(one.digest())
    return b"".join(digests)


def bucket_of(name: str, n_buckets: int) -> int:
    """Return the bucket of a series, counted from 0: its hash as a big-endian number, modulo."""
    return int.from_bytes(digests_of([name.encode()]), "big") % n_buckets


def file_of(bucket: int, n_buckets: int) -> str:
    """Return what a bucket's file is called."""
    return f"bucket-{bucket:05d}-of-{n_buckets:05d}.parquet"
