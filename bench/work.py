"""The work that probes of engines time, raw and as tasks, and how it is compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock import task

MICRO, MILLI, MEGA = 1e6, 1e3, 10**6


@dataclass
class Figures:
    """The rounds of a probe, in the row's unit."""

    baseline: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    notes: str = ""


def plain(number: Any) -> Any:
    """Do nothing."""
    return number


def sleep_for(seconds: float) -> float:
    """Wait, as a task that computes elsewhere."""
    time.sleep(seconds)
    return seconds


def chunk(numbers: range) -> list[int]:
    """Do a chunk of no-op tasks, as one would by hand."""
    return [plain(number) for number in numbers]


def count_of(values: list[Any]) -> int:
    """Join what fans in."""
    return len(values)


def make_block(size: int) -> Any:
    """Make an array of so many bytes."""
    import numpy as np

    return np.ones(size, dtype="u1")


def total_of(block: Any) -> int:
    """Reduce an array to a number."""
    return int(block[::4096].sum())


def use(number: int, block: Any) -> int:
    """Look at a large argument."""
    return number + int(block[number])


warm = task(name="warm")(lambda: None)
noop = task(name="noop")(plain)
pause = task(name="pause")(sleep_for)
join = task(name="join")(count_of)
make = task(name="make")(make_block)
reduce = task(name="reduce")(total_of)
look = task(name="look")(use)


def timed(function: Callable[[], Any]) -> float:
    """Give the seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def results(futures: list[Any]) -> list[Any]:
    """Ask for every result, one by one."""
    return [future.result() for future in futures]


def compared(raw: Callable[[], float], ours: Callable[[], float], rounds: int) -> Figures:
    """Measure the raw engine and ours in turns."""
    figures = Figures()
    for _ in range(rounds):
        figures.baseline.append(raw())
        figures.ours.append(ours())
    return figures
