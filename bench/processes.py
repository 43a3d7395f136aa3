"""What is timed on worker processes: each probe runs in a process of its own, as `bench.dask` does.

    python -m bench.processes submit 10000 5

Every round measures a `concurrent.futures.ProcessPoolExecutor` of two processes, then the same
work in a fresh flow run on a pool of two, recorded. The clock runs while the flow's body works,
with the workers up, as those of the executor are.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from bench.work import (
    MEGA,
    MICRO,
    MILLI,
    Figures,
    compared,
    make,
    make_block,
    noop,
    pause,
    plain,
    reduce,
    results,
    sleep_for,
    timed,
    total_of,
)
from examples.census import census
from penstock import flow, task
from penstock.task_runners import ProcessPoolTaskRunner, SequentialTaskRunner

WORKERS = 2
READERS = 4


@task
def stay(number: int) -> None:
    """Keep a worker busy for a moment, so that another one is started."""
    time.sleep(0.05)


def run(body: Callable[[], Any]) -> Any:
    """Run a function as the body of a flow run whose workers are up."""

    def warmed() -> Any:
        results(stay.map(range(WORKERS)))
        results(noop.map(range(100)))
        return body()

    return flow(name="bench", task_runner=ProcessPoolTaskRunner(max_workers=WORKERS))(warmed)()


def raw_pool() -> ProcessPoolExecutor:
    """Open an executor whose workers are up."""
    pool = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver"))
    results([pool.submit(sleep_for, 0.05) for _ in range(WORKERS)])
    return pool


def submit(count: int, rounds: int) -> Figures:
    """Time a submit loop and its results."""
    with raw_pool() as pool:
        return compared(
            lambda: (
                timed(lambda: results([pool.submit(plain, n) for n in range(count)]))
                / count
                * MICRO
            ),
            lambda: (
                run(lambda: timed(lambda: results([noop.submit(n) for n in range(count)])))
                / count
                * MICRO
            ),
            rounds,
        )


def mapped(count: int, rounds: int) -> Figures:
    """Time map and its results; raw, one by one as `submit` does, for chunks are made by hand."""
    with raw_pool() as pool:
        figures = compared(
            lambda: timed(lambda: list(pool.map(plain, range(count)))) / count * MICRO,
            lambda: run(lambda: timed(lambda: results(noop.map(range(count))))) / count * MICRO,
            rounds,
        )
        chunked = timed(lambda: list(pool.map(plain, range(count), chunksize=100)))
        figures.notes = f"raw with chunksize=100: {chunked / count * MICRO:.1f} µs a task"
        return figures


def short(count: int, rounds: int) -> Figures:
    """Time tasks of one millisecond, in milliseconds a task, beside the ideal."""
    bare = timed(lambda: [sleep_for(0.001) for _ in range(200)]) / 200 * MILLI

    def ours() -> float:
        seconds: float = run(lambda: timed(lambda: results(pause.map([0.001] * count))))
        return seconds / count * MILLI

    figures = compared(lambda: 0.5, ours, rounds)
    figures.notes = f"a bare time.sleep(0.001) takes {bare:.2f} ms here: {bare / 2:.2f} at best"
    return figures


def long(count: int, rounds: int) -> Figures:
    """Time tasks of 100 ms: ours over the executor, in percent."""
    figures = Figures()
    with raw_pool() as pool:
        for _ in range(rounds):
            raw = timed(lambda: list(pool.map(sleep_for, [0.1] * count)))
            ours = run(lambda: timed(lambda: results(pause.map([0.1] * count))))
            figures.baseline.append(0.0)
            figures.ours.append((ours / raw - 1) * 100)
    return figures


def chain(count: int, rounds: int) -> Figures:
    """Time a chain of dependent no-op tasks, in milliseconds a link."""

    def ours() -> None:
        last: Any = 0
        for _ in range(count):
            last = noop.submit(last)
        last.result()

    def raw(pool: ProcessPoolExecutor) -> None:
        last: Any = 0
        for _ in range(count):
            last = pool.submit(plain, last).result()

    with raw_pool() as pool:
        return compared(
            lambda: timed(lambda: raw(pool)) / count * MILLI,
            lambda: run(lambda: timed(ours)) / count * MILLI,
            rounds,
        )


def array(count: int, rounds: int) -> Figures:
    """Time an array, of so many megabytes, from one task to four others: in seconds."""
    size = count * MEGA

    def raw(pool: ProcessPoolExecutor) -> None:
        block = pool.submit(make_block, size).result()
        results([pool.submit(total_of, block) for _ in range(READERS)])

    def ours() -> None:
        block = make.submit(size)
        results([reduce.submit(block) for _ in range(READERS)])

    with raw_pool() as pool:
        return compared(lambda: timed(lambda: raw(pool)), lambda: run(lambda: timed(ours)), rounds)


def start(count: int, rounds: int) -> Figures:
    """Time a pool from its start to its end, with a task in between: in seconds."""
    context = multiprocessing.get_context("forkserver")

    def raw() -> None:
        with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
            pool.submit(plain, 1).result()

    runner = ProcessPoolTaskRunner(max_workers=WORKERS)
    ours = flow(name="bench", task_runner=runner)(lambda: noop.submit(1).result())
    cold = timed(ours)
    raw()
    figures = compared(lambda: timed(raw), lambda: timed(ours), rounds)
    figures.notes = f"the first one of a process: {cold:.2f} s; the baseline is warm, too"
    return figures


def counted(count: int, rounds: int) -> Figures:
    """Time the census of the standard library on two processes, and sequentially: in seconds."""

    def taken(runner: Any) -> float:
        with redirect_stdout(StringIO()):
            return timed(lambda: census.with_options(task_runner=runner)(None, count))

    return compared(
        lambda: taken(SequentialTaskRunner()),
        lambda: taken(ProcessPoolTaskRunner(max_workers=WORKERS)),
        rounds,
    )


PROBES: dict[str, Callable[[int, int], Figures]] = {
    "submit": submit,
    "map": mapped,
    "short": short,
    "long": long,
    "chain": chain,
    "array": array,
    "start": start,
    "census": counted,
}


if __name__ == "__main__":
    measured = PROBES[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(vars(measured)))
