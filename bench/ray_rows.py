"""The rows of the table that are measured on Ray, each beside raw Ray on the same instance."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.probed import probed
from bench.rows import Row

on_ray = partial(probed, "bench.ray")
RAW = "raw Ray"


def _row(name: str, what: str, unit: str, goal: float, count: int, **how: Any) -> Row:
    beside = "itself" if unit == "%" else RAW
    measure = partial(on_ray, name, count, **how)
    return Row(f"ray-{name}", f"Ray: {what}", beside, unit, goal, measure)


RAY_ROWS = [
    _row("submit", "submit loop + results, no-op", "µs", 45, 10_000),
    _row("map", "map + results, no-op", "µs", 45, 10_000),
    _row("long", "tasks of 100 ms, over raw", "%", 2, 200, most_rounds=3),
    _row("chain", "link of a chain of 200", "ms", 0.2, 200, scaled=False),
    _row("start", "a flow run, start and stop included", "ms", 300, 5, scaled=False),
]
