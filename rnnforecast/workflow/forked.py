"""What a worker begins with: all that a bucket takes. For the process that workers are forked from.

That one imports this module, and does nothing else: no computation of torch or pyarrow has begun
any thread that a copy would lack.
"""

import gc
from contextlib import suppress

from rnnforecast.workflow.buckets import import_all

with suppress(Exception):  # a worker runs into it, too, and tells
    import_all()
gc.freeze()  # a worker that looked for garbage here would write to, and so copy, all of it
