"""Nothing waits in a worker: large and deep flows end, in linear time and bounded threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest

from penstock import flow, task
from penstock.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

RUNNERS = [SequentialTaskRunner, ConcurrentTaskRunner, lambda: ConcurrentTaskRunner(max_workers=1)]
IDS = ["sequential", "concurrent", "one worker"]
DEPTH = 50


@task
def add_one(number: int) -> int:
    return number + 1


@task
async def add_one_later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


def most_threads_during(call: Callable[[], Any]) -> tuple[Any, int]:
    """Call a function and give its value and the largest number of threads seen meanwhile."""
    seen = [threading.active_count()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(threading.active_count())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        value = call()
    finally:
        done.set()
        watcher.join()
    return value, max(seen)


@pytest.mark.parametrize("make_runner", RUNNERS, ids=IDS)
def test_five_hundred_runs_that_five_hundred_others_each_wait_for(make_runner: Any) -> None:
    @flow(task_runner=make_runner())
    def square() -> int:
        first = add_one.map(range(500))
        second = [total.submit(first) for _ in range(500)]
        return sum(future.result() for future in second)

    value, threads = most_threads_during(square)
    assert value == 500 * sum(range(1, 501))
    assert threads < 40


@pytest.mark.parametrize("make_runner", RUNNERS, ids=IDS)
def test_a_chain_of_ten_thousand(make_runner: Any) -> None:
    @flow(task_runner=make_runner())
    def chain() -> int:
        future: Any = 0
        for _ in range(10_000):
            future = add_one.submit(future)
        value: int = future.result()
        return value

    assert chain() == 10_000


def test_a_chain_of_async_tasks() -> None:
    @flow
    async def chain() -> int:
        future: Any = 0
        for _ in range(5_000):
            future = add_one_later.submit(future)
        value: int = await future
        return value

    assert asyncio.run(chain()) == 5_000


def test_a_chain_behind_a_failure_is_not_run() -> None:
    @task
    def fail() -> int:
        raise ValueError("at the root")

    @flow
    def chain() -> Any:
        future: Any = fail.submit()
        for _ in range(10_000):
            future = add_one.submit(future)
        return future

    state = chain(return_state=True)
    assert state.is_failed()
    with pytest.raises(Exception, match="did not reach a 'COMPLETED' state") as caught:
        chain()
    assert str(caught.value.__cause__) == "at the root"


@pytest.mark.parametrize("make_runner", RUNNERS, ids=IDS)
def test_fan_in_of_fifty_thousand(make_runner: Any) -> None:
    @flow(task_runner=make_runner())
    def fan_in() -> int:
        value: int = total.submit(add_one.map(range(50_000))).result()
        return value

    assert fan_in() == sum(range(1, 50_001))


@pytest.mark.parametrize("make_runner", RUNNERS, ids=IDS)
@pytest.mark.parametrize("form", ["submit", "call"])
def test_nesting_to_depth_fifty(make_runner: Any, form: str) -> None:
    @task
    def down(depth: int) -> int:
        if depth == 0:
            return 0
        below: int = down.submit(depth - 1).result() if form == "submit" else down(depth - 1)
        return below + 1

    @flow(task_runner=make_runner())
    def nest() -> int:
        value: int = down.submit(DEPTH).result()
        return value

    value, threads = most_threads_during(nest)
    assert value == DEPTH
    # A level runs in the thread of the one above it, unless another worker was quicker to take
    # it: then it costs a thread of its own. So one for each level at most, and the few others.
    assert threads < DEPTH + 15


@pytest.mark.parametrize("make_runner", RUNNERS, ids=IDS)
def test_async_nesting_to_depth_fifty(make_runner: Any) -> None:
    @task
    async def down(depth: int) -> int:
        if depth == 0:
            return 0
        below: int = await down.submit(depth - 1)
        return below + 1

    @flow(task_runner=make_runner())
    async def nest() -> int:
        value: int = await down.submit(50)
        return value

    assert asyncio.run(nest()) == 50


def test_flows_nest_to_depth_fifty() -> None:
    @flow
    def down(depth: int) -> int:
        if depth == 0:
            return 0
        below: int = down(depth - 1)
        return below + 1

    assert down(49) == 49


def test_the_time_of_a_fan_in_grows_with_its_edges() -> None:
    def seconds(width: int) -> float:
        @flow
        def layers() -> None:
            first = add_one.map(range(width))
            for _ in range(10):
                total.submit(first)

        began = perf_counter()
        layers()
        return perf_counter() - began

    seconds(100)
    small = min(seconds(2_000) for _ in range(3))
    # Ten times the edges: fifty times the time would be quadratic growth, not noise.
    assert seconds(20_000) < 50 * small
