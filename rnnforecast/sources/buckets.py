"""Which bucket a series lies in: a hash of its name, the same on every machine and for ever.

Python's own hash differs from process to process. Standard library only.
"""

from __future__ import annotations

from hashlib import blake2b

HASH = "blake2b-64"
"""What manifests call it."""
MOST_BUCKETS = 100_000
_DIGEST_BYTES = 8


def digest_of(name: str) -> bytes:
    """Return the hash of a name: 8 bytes of BLAKE2b over its UTF-8."""
    return blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()


def bucket_of(name: str, n_buckets: int) -> int:
    """Return the bucket of a series, counted from 0: its hash as a big-endian number, modulo."""
    return int.from_bytes(digest_of(name), "big") % n_buckets


def file_of(bucket: int, n_buckets: int) -> str:
    """Return what a bucket's file is called."""
    return f"bucket-{bucket:05d}-of-{n_buckets:05d}.parquet"
