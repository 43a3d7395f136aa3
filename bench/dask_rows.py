"""The rows of the table that are measured on Dask, each beside raw Dask on the same cluster."""

from __future__ import annotations

from functools import partial

from bench.probed import probed
from bench.rows import Row

on_dask = partial(probed, "bench.dask")
RAW = "raw Dask"
IDEAL = "raw over ideal"

DASK_ROWS = [
    Row(
        "dask-submit",
        "Dask: submit loop + results, no-op",
        RAW,
        "µs",
        75,
        partial(on_dask, "submit", 10_000),
    ),
    Row("dask-map", "Dask: map + results, no-op", RAW, "µs", 75, partial(on_dask, "map", 10_000)),
    Row("dask-short", "Dask: tasks of 1 ms", RAW, "ms", 0.6, partial(on_dask, "short", 2_000)),
    Row(
        "dask-long",
        "Dask: tasks of 100 ms, over raw",
        "itself",
        "%",
        3,
        partial(on_dask, "long", 200, most_rounds=3),
    ),
    Row(
        "dask-mixed",
        "Dask: 1 in 50 takes 1 s, over ideal",
        IDEAL,
        "%",
        15,
        partial(on_dask, "mixed", 400, scaled=False, most_rounds=3),
    ),
    Row(
        "dask-chain",
        "Dask: link of a chain of 200",
        RAW,
        "ms",
        0.3,
        partial(on_dask, "chain", 200, scaled=False),
    ),
    Row(
        "dask-fan",
        "Dask: fan out 500, fan in 1",
        RAW,
        "s",
        0.15,
        partial(on_dask, "fan", 500, scaled=False),
    ),
    Row(
        "dask-lone",
        "Dask: one task on an idle cluster",
        RAW,
        "ms",
        15,
        partial(on_dask, "lone", 20, scaled=False),
    ),
    Row(
        "dask-first",
        "Dask: the same, connecting included",
        "a new client",
        "ms",
        None,
        partial(on_dask, "first", 1, scaled=False),
    ),
    Row(
        "dask-pipeline",
        "Dask: two stages, data through the driver",
        RAW,
        "%",
        None,
        partial(on_dask, "pipeline", 256, most_rounds=3),
    ),
    Row(
        "dask-broadcast",
        "Dask: one array, 1,000 tasks: bytes sent",
        RAW,
        "x",
        None,
        partial(on_dask, "broadcast", 100, most_rounds=3),
    ),
]
