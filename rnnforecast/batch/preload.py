"""Imported by the fork server only: everything that a worker needs, before workers are forked.

Nothing is computed here, so pyarrow starts no threads, which a forked worker would lack; those of
numpy's library of linear algebra end before a fork and begin anew after it.
"""

from __future__ import annotations

import gc
from contextlib import suppress

from rnnforecast.batch.bucket import import_worker_modules

with suppress(Exception):  # a worker meets the same error, and can report it
    import_worker_modules()

# A worker that collected garbage among these objects would write to, and so copy, all of them.
gc.freeze()
