"""What is timed: each probe runs in a process of its own and prints its figures as JSON.

    python -m bench.probes direct 10000

A probe measures a baseline without Penstock and then the same work with it, in the same process.
The time of a flow call includes writing its history out, which is done before the call returns.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from penstock import flow, task

WARM_UP = 200  # task runs before the clock starts: imports, the database, the threads
LEAST = 5_000  # task runs of a probe at least; smaller sizes are repeated and the median taken
CHUNK = 1_000  # task runs in flight in the memory probe
SETTLE = 5.0  # seconds the memory probe waits for the history to catch up
MICRO = 1e6

Figures = dict[str, float]


def plain(number: int) -> int:
    """Do nothing."""
    return number


async def plain_async(number: int) -> int:
    """Do nothing, as a coroutine."""
    return number


noop = task(name="noop")(plain)
anoop = task(name="anoop")(plain_async)


@flow
def call_each(count: int) -> None:
    """Call the task directly."""
    for number in range(count):
        noop(number)


@flow
def submit_each(count: int) -> None:
    """Submit the task, then ask for every result."""
    futures = [noop.submit(number) for number in range(count)]
    for future in futures:
        future.result()


@flow
def map_all(count: int) -> None:
    """Map the task, then ask for every result."""
    for future in noop.map(range(count)):
        future.result()


@flow
async def gather_submitted(count: int) -> None:
    """Submit the async task, then gather the futures."""
    await asyncio.gather(*[anoop.submit(number) for number in range(count)])


@flow
async def gather_called(count: int) -> None:
    """Gather direct calls of the async task."""
    await asyncio.gather(*[anoop(number) for number in range(count)])


def per_task(run: Callable[[int], object], count: int) -> float:
    """Give the microseconds per task run, the median of as many calls as the size needs."""
    run(min(count, WARM_UP))
    times = []
    for _ in range(max(1, LEAST // count)):
        gc.collect()
        started = time.perf_counter()
        run(count)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / count * MICRO


def loop_of_calls(count: int) -> None:
    for number in range(count):
        plain(number)


def thread_pool(count: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(plain, number) for number in range(count)]:
            future.result()


def asyncio_tasks(count: int) -> None:
    async def gather() -> None:
        await asyncio.gather(*[asyncio.create_task(plain_async(n)) for n in range(count)])

    asyncio.run(gather())


def direct(count: int) -> Figures:
    """Time direct calls beside plain Python calls."""
    return {"baseline": per_task(loop_of_calls, count), "ours": per_task(call_each, count)}


def submit(count: int) -> Figures:
    """Time submit and result beside a thread pool of the standard library."""
    return {"baseline": per_task(thread_pool, count), "ours": per_task(submit_each, count)}


def mapped(count: int) -> Figures:
    """Time map beside a thread pool of the standard library."""
    return {"baseline": per_task(thread_pool, count), "ours": per_task(map_all, count)}


def async_submit(count: int) -> Figures:
    """Time submitted async tasks beside tasks of asyncio."""
    return {
        "baseline": per_task(asyncio_tasks, count),
        "ours": per_task(lambda size: asyncio.run(gather_submitted(size)), count),
    }


def async_direct(count: int) -> Figures:
    """Time direct calls of async tasks beside tasks of asyncio."""
    return {
        "baseline": per_task(asyncio_tasks, count),
        "ours": per_task(lambda size: asyncio.run(gather_called(size)), count),
    }


def memory(count: int) -> Figures:
    """Give the bytes kept per finished task run whose future is dropped, from a tenth on.

    `ours` counts what Python allocated, `resident` the growth of the process's peak.
    """
    call_each(WARM_UP)

    @flow
    def drop_results() -> Figures:
        submit_and_drop(count // 10)
        first, first_peak = settled_memory(), peak_bytes()
        submit_and_drop(count - count // 10)
        added = count - count // 10
        return {
            "baseline": first / (count // 10),
            "ours": (settled_memory() - first) / added,
            "resident": (peak_bytes() - first_peak) / added,
        }

    tracemalloc.start()
    figures: Figures = drop_results()
    return figures


def submit_and_drop(count: int) -> None:
    for start in range(0, count, CHUNK):
        for future in [noop.submit(number) for number in range(start, start + CHUNK)]:
            future.result()


def settled_memory() -> int:
    """Give the bytes in use once they go down no more: the history is written behind the work."""
    gc.collect()
    best, deadline = tracemalloc.get_traced_memory()[0], time.monotonic() + SETTLE
    quiet = 0
    while quiet < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
        now = tracemalloc.get_traced_memory()[0]
        quiet = 0 if now < best - 10_000 else quiet + 1
        best = min(best, now)
    return best


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PROBES: dict[str, Callable[[int], Figures]] = {
    "direct": direct,
    "submit": submit,
    "map": mapped,
    "async": async_submit,
    "async-direct": async_direct,
    "memory": memory,
}


if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](int(sys.argv[2]))))
