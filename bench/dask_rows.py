"""The rows of the table that are measured on Dask, each beside raw Dask on the same cluster."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from typing import Any

from bench.rows import Rounds, Row, Size, run_process


def run_dask_probe(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Run a probe in a fresh process with an empty history and a cluster of its own."""
    with tempfile.TemporaryDirectory() as home:
        _, printed = run_process(["-m", "bench.dask", name, str(count), str(rounds)], home)
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return figures


def on_dask(
    probe: str, count: int, size: Size, *, scaled: bool = True, most_rounds: int = 5
) -> Rounds:
    """Measure a probe.

    Args:
        count: for the full size.
        scaled: whether smaller sizes take fewer; else the figure would be another one.
        most_rounds: rounds of the full size, for a probe that takes seconds a round.
    """
    if scaled:
        count = max(1, count * size.tasks // Size.full().tasks)
    return Rounds(**run_dask_probe(probe, count, min(size.rounds, most_rounds)))


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
