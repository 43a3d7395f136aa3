"""The rows of the table that are measured on worker processes, each beside a raw pool of two."""

from __future__ import annotations

from functools import partial

from bench.probed import probed
from bench.rows import Row

RAW = "ProcessPoolExecutor"
in_pool = partial(probed, "bench.processes")

PROCESS_ROWS = [
    Row(
        "pool-submit",
        "processes: submit loop + results, no-op",
        RAW,
        "µs",
        30,
        partial(in_pool, "submit", 10_000),
    ),
    Row(
        "pool-map",
        "processes: map + results, no-op",
        RAW,
        "µs",
        30,
        partial(in_pool, "map", 10_000),
    ),
    Row(
        "pool-short",
        "processes: tasks of 1 ms",
        "ideal",
        "ms",
        0.56,
        partial(in_pool, "short", 2_000),
    ),
    Row(
        "pool-long",
        "processes: tasks of 100 ms, over raw",
        "itself",
        "%",
        2,
        partial(in_pool, "long", 200, most_rounds=3),
    ),
    Row(
        "pool-chain",
        "processes: link of a chain of 200",
        RAW,
        "ms",
        None,
        partial(in_pool, "chain", 200, scaled=False),
    ),
    Row(
        "pool-array",
        "processes: 1 GB from a task to four others",
        RAW,
        "s",
        None,
        partial(in_pool, "array", 1_000, most_rounds=3),
    ),
    Row(
        "pool-start",
        "processes: from start to end, one task",
        RAW,
        "s",
        0.15,
        partial(in_pool, "start", 1, scaled=False),
    ),
    Row(
        "pool-census",
        "processes: census of the standard library",
        "sequential",
        "s",
        None,
        partial(in_pool, "census", 1_800, most_rounds=3),
    ),
]
