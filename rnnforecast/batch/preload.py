"""What a worker imports before it is forked. Imported by the fork server, and by nothing else.

No computation of torch or pyarrow has begun any thread that a copy would lack.
"""

from __future__ import annotations

import gc
from contextlib import suppress

from rnnforecast.batch.bucket import import_all

with suppress(Exception):  # a worker runs into it, too, and tells
    import_all()

gc.freeze()  # a worker that looked for garbage here would write to, and so copy, all of it
