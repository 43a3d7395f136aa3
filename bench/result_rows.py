"""The rows of the table that are about kept results."""

from __future__ import annotations

from functools import partial

from bench.probed import probed
from bench.rows import Row

kept = partial(probed, "bench.results")

RESULT_ROWS = [
    Row(
        "keep-bytes",
        "persist 1,000 results of 1 MB of bytes",
        "pickle.dump",
        "times",
        1.3,
        partial(kept, "bytes", 1_000, most_rounds=3),
    ),
    Row(
        "keep-arrays",
        "persist 1,000 arrays of 1 MB",
        "numpy.save",
        "times",
        1.3,
        partial(kept, "arrays", 1_000, most_rounds=3),
    ),
    Row(
        "keep-memory",
        "growth of the driver by 1 GB from a worker",
        "before",
        "MB",
        50,
        partial(kept, "memory", 1_000, most_rounds=2),
    ),
]
