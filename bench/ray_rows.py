"""The rows of the table that are measured on Ray, each beside raw Ray on the same instance."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from typing import Any

from bench.rows import Rounds, Row, Size, run_process


def run_ray_probe(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Run a probe in a fresh process with an empty history and a Ray of its own."""
    with tempfile.TemporaryDirectory() as home:
        _, printed = run_process(["-m", "bench.ray", name, str(count), str(rounds)], home)
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return figures


def on_ray(
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
    return Rounds(**run_ray_probe(probe, count, min(size.rounds, most_rounds)))


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
