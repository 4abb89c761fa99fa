"""Whether a table fits into memory: asked before it is read, and while rows keep coming."""

from __future__ import annotations

import os

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import DataError, Location

_FIXED = 600 << 20
"""What the libraries need, however small a table is."""
_PER_READING, _PER_ROW = 6, 16
_SHARE = 0.8
"""So much of the machine's memory may be used where the user does not say."""


def check_memory(n_rows: int, n_targets: int, config: DataConfig, name: str) -> None:
    """Raise `DataError` where so many rows need more than may be used."""
    needed = _FIXED + n_rows * (_PER_ROW + n_targets * _PER_READING)
    limit = config.memory_limit
    if limit is None:
        limit = int(_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if needed > limit:
        raise DataError(
            f"{name} needs about {_in_words(needed)} of memory for {n_rows} rows and {n_targets} "
            f"columns, but {_in_words(limit)} may be used",
            code="memory",
            location=Location(name),
            hint=f"if it has that much, add  --max-memory {(needed >> 20) + 1}M ; else name fewer "
            "columns with  --target",
        )


def _in_words(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 30):.1f} GB"
