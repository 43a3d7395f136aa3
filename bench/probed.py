"""Rows whose probes run in processes of their own."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from bench.rows import Rounds, Size, run_process


def run_probe(module: str, name: str, count: int, rounds: int) -> dict[str, Any]:
    """Run a probe in a fresh process with an empty history and an engine of its own."""
    with tempfile.TemporaryDirectory() as home:
        _, printed = run_process(["-m", module, name, str(count), str(rounds)], home)
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return figures


def probed(
    module: str, probe: str, count: int, size: Size, *, scaled: bool = True, most_rounds: int = 5
) -> Rounds:
    """Measure a probe of a module.

    Args:
        count: for the full size.
        scaled: whether smaller sizes take fewer; else the figure would be another one.
        most_rounds: rounds of the full size, for a probe that takes seconds a round.
    """
    if scaled:
        count = max(1, count * size.tasks // Size.full().tasks)
    return Rounds(**run_probe(module, probe, count, min(size.rounds, most_rounds)))
