"""The rows of the table: what is measured, beside what, and the goal."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 300.0  # seconds for one process
MILLI = 1e3


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds, and task runs per round."""

    rounds: int
    tasks: int
    growth: tuple[int, ...]
    processes: int

    @classmethod
    def full(cls) -> Size:
        """What the published figures are measured with."""
        return cls(rounds=5, tasks=10_000, growth=(1_000, 10_000, 100_000), processes=15)

    @classmethod
    def quick(cls) -> Size:
        """A look in passing: less exact."""
        return cls(rounds=3, tasks=2_000, growth=(1_000, 5_000), processes=5)


@dataclass(frozen=True)
class Rounds:
    """The figures of every round: the baseline's and ours, in the row's unit."""

    baseline: list[float]
    ours: list[float]
    notes: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; `goal` is the most that is allowed, None for a line to look at."""

    name: str
    what: str
    beside: str
    unit: str
    goal: float | None
    measure: Callable[[Size], Rounds] = field(repr=False)
    over: bool = False  # ours is what comes on top of the baseline


@dataclass(frozen=True)
class Result:
    """A measured row."""

    row: Row
    rounds: Rounds

    @property
    def ours(self) -> float:
        return statistics.median(self.rounds.ours)

    @property
    def baseline(self) -> float:
        return statistics.median(self.rounds.baseline)

    @property
    def verdict(self) -> str:
        if self.row.goal is None:
            return "-"
        return "reached" if self.ours <= self.row.goal else "MISSED"

    def as_data(self) -> dict[str, Any]:
        """Give the row as plain data."""
        return {
            "name": self.row.name,
            "what": self.row.what,
            "unit": self.row.unit,
            "beside": self.row.beside,
            "baseline": self.baseline,
            "ours": self.ours,
            "rounds": self.rounds.ours,
            "goal": self.row.goal,
            "verdict": self.verdict,
            "notes": self.rounds.notes,
        }


# --- processes -------------------------------------------------------------------------------


def run_process(arguments: list[str], home: str, **settings: str) -> tuple[float, str]:
    """Run Python with a home of its own; give the seconds it took and what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environment |= {"PENSTOCK_HOME": home, "PYTHONPATH": str(ROOT), **settings}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=TIME_LIMIT,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def run_probe(
    name: str, count: int, module: str = "bench.probes", **settings: str
) -> dict[str, float]:
    """Run a probe in a fresh process with an empty history; give its figures."""
    with tempfile.TemporaryDirectory() as home:
        _, printed = run_process(["-m", module, name, str(count)], home, **settings)
    figures: dict[str, float] = json.loads(printed.splitlines()[-1])
    return figures


def timed(arguments: list[str], home: str) -> float:
    """Give the milliseconds that a whole process takes."""
    return run_process(arguments, home)[0] * MILLI


# --- how rows are measured -------------------------------------------------------------------


def per_task(probe: str, size: Size) -> Rounds:
    """Measure the cost per task run, every round in a fresh process."""
    rounds = [run_probe(probe, size.tasks) for _ in range(size.rounds)]
    return Rounds([one["baseline"] for one in rounds], [one["ours"] for one in rounds])


def growth(probe: str, size: Size) -> Rounds:
    """Measure how much dearer a task run is at the worst size than at the smallest, in percent."""
    costs = {
        count: [run_probe(probe, count)["ours"] for _ in range(size.rounds)]
        for count in size.growth
    }
    medians = {count: statistics.median(times) for count, times in costs.items()}
    first = size.growth[0]
    worst = max(size.growth[1:], key=lambda count: medians[count])
    notes = ", ".join(f"{count:,}: {cost:.1f} µs" for count, cost in medians.items())
    grown = [(time / medians[first] - 1) * 100 for time in costs[worst]]
    return Rounds([0.0], grown, notes)


def memory(size: Size) -> Rounds:
    """Measure the bytes kept per finished task run."""
    count = max(10_000, *size.growth)
    rounds = [run_probe("memory", count) for _ in range(min(size.rounds, 3))]
    resident = statistics.median(one["resident"] for one in rounds)
    return Rounds(
        [one["baseline"] for one in rounds],
        [one["ours"] for one in rounds],
        f"peak of the process grew by {resident:.0f} bytes a task run",
    )


def history(probe: str, size: Size) -> Rounds:
    """Measure with and without the history; give ours as a multiple."""
    off, on = [], []
    for _ in range(size.rounds):
        off.append(run_probe(probe, size.tasks, PENSTOCK_RECORD="off")["ours"])
        on.append(run_probe(probe, size.tasks)["ours"])
    base = statistics.median(off)
    notes = f"off {base:.1f} µs, on {statistics.median(on):.1f} µs"
    return Rounds([1.0], [time / base for time in on], notes)


def imported(statement: str, size: Size) -> Rounds:
    """Measure the milliseconds of a statement over those of a bare interpreter."""
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as home:
        timed(["-c", statement], home)
        for _ in range(size.processes):
            bare.append(timed(["-c", "pass"], home))
            ours.append(timed(["-c", statement], home))
    base = statistics.median(bare)
    return Rounds(bare, [time - base for time in ours])


def whole_process(first_time: bool, size: Size) -> Rounds:
    """Measure a program with one flow and one task, in milliseconds."""
    script = [str(ROOT / "bench" / "one_task.py")]
    bare, ours = [], []
    with homes(first_time) as new_home:
        timed(script, new_home())
        for _ in range(size.processes):
            bare.append(timed(["-c", "pass"], new_home()))
            ours.append(timed(script, new_home()))
    return Rounds(bare, ours)


@contextmanager
def homes(fresh: bool) -> Iterator[Callable[[], str]]:
    """Give a function for homes: a new one at each call, or always the same."""
    with tempfile.TemporaryDirectory() as folder:
        yield lambda: tempfile.mkdtemp(dir=folder) if fresh else folder


# What stands beside: ThreadPoolExecutor(8).submit and result, asyncio.create_task and gather,
# and `python -c pass`.
POOL = "thread pool"
TASKS = "asyncio"
BARE = "bare python"

ROWS = [
    Row(
        "direct",
        "direct call of a no-op task",
        "a plain call",
        "µs",
        15,
        partial(per_task, "direct"),
    ),
    Row(
        "submit",
        "submit + result, ConcurrentTaskRunner",
        POOL,
        "µs",
        30,
        partial(per_task, "submit"),
    ),
    Row("map", "map, ConcurrentTaskRunner", POOL, "µs", 25, partial(per_task, "map")),
    Row("async", "submit of an async task + gather", TASKS, "µs", 30, partial(per_task, "async")),
    Row(
        "async-direct",
        "direct calls of an async task, gathered",
        TASKS,
        "µs",
        30,
        partial(per_task, "async-direct"),
    ),
    Row(
        "growth-direct",
        "growth of the cost of a direct call",
        "1,000 tasks",
        "%",
        10,
        partial(growth, "direct"),
    ),
    Row(
        "growth-submit",
        "growth of the cost of submit + result",
        "1,000 tasks",
        "%",
        10,
        partial(growth, "submit"),
    ),
    Row("memory", "memory kept per finished task run", "its first tenth", "bytes", 100, memory),
    Row(
        "import",
        "import penstock, over bare python",
        BARE,
        "ms",
        40,
        partial(imported, "import penstock"),
        over=True,
    ),
    Row(
        "import-names",
        "from penstock import flow, task",
        BARE,
        "ms",
        None,
        partial(imported, "from penstock import flow, task"),
        over=True,
    ),
    Row(
        "process",
        "whole process, one flow, one task",
        BARE,
        "ms",
        200,
        partial(whole_process, False),
    ),
    Row(
        "process-first", "the same, first time ever", BARE, "ms", 300, partial(whole_process, True)
    ),
    Row(
        "history-direct",
        "direct call, history on / off",
        "history off",
        "x",
        1.6,
        partial(history, "direct"),
    ),
    Row(
        "history-submit",
        "submit + result, history on / off",
        "history off",
        "x",
        1.6,
        partial(history, "submit"),
    ),
]
