"""SequentialTaskRunner: in the caller, in order, one at a time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from penstock import flow, task
from penstock.task_runners import ConcurrentTaskRunner, SequentialTaskRunner, TaskConcurrencyType

pytestmark = pytest.mark.timeout(60)


@task
def where(number: int) -> tuple[int, str]:
    return number, threading.current_thread().name


def test_calls_run_in_the_caller_in_order() -> None:
    @flow(task_runner=SequentialTaskRunner())
    def example() -> Any:
        futures = where.map(range(5))
        assert all(future.done() for future in futures)
        return futures

    here = threading.current_thread().name
    assert example() == [(number, here) for number in range(5)]


def test_async_tasks_of_a_sync_flow_run_before_submit_returns() -> None:
    @task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    @flow(task_runner=SequentialTaskRunner())
    def example() -> Any:
        future = double.submit(2)
        assert future.done()
        return future

    assert example() == 4


def test_async_tasks_of_an_async_flow_run_one_at_a_time() -> None:
    inside: list[int] = []

    @task
    async def hold(number: int) -> int:
        inside.append(number)
        assert inside == [number]
        await asyncio.sleep(0.001)
        inside.remove(number)
        return number

    @flow(task_runner=SequentialTaskRunner())
    async def example() -> Any:
        futures = hold.map(range(5))
        assert not inside
        return [await future for future in futures]

    assert asyncio.run(example()) == list(range(5))


def test_sync_chain_behind_an_async_task_is_not_too_deep() -> None:
    @task
    async def begin() -> int:
        return 0

    @task
    def add_one(number: int) -> int:
        return number + 1

    @flow(task_runner=SequentialTaskRunner())
    async def example() -> Any:
        future: Any = begin.submit()
        for _ in range(2000):
            future = add_one.submit(future)
        return await future

    assert asyncio.run(example()) == 2000


def test_sync_task_behind_an_async_one_may_submit_and_wait() -> None:
    @task
    async def begin() -> int:
        return 1

    @task
    def add_one(number: int) -> int:
        return number + 1

    @task
    def twice(number: int) -> int:
        return add_one.submit(add_one.submit(number)).result()

    @flow(task_runner=SequentialTaskRunner())
    async def example() -> Any:
        return await twice.submit(begin.submit())

    assert asyncio.run(example()) == 3


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (ConcurrentTaskRunner(2), SequentialTaskRunner()),
        (SequentialTaskRunner(), ConcurrentTaskRunner(2)),
    ],
    ids=["inside concurrent", "around concurrent"],
)
def test_two_runners_in_one_flow(outer: Any, inner: Any) -> None:
    @task
    def add(a: int, b: int) -> int:
        return a + b

    other = add.with_options(task_runner=inner)

    @flow(task_runner=outer)
    def example() -> Any:
        first = [add.submit(n, other.submit(n, 1)) for n in range(20)]
        return [other.submit(future, add.submit(0, 1)) for future in first]

    assert example() == [2 * n + 2 for n in range(20)]


def test_settings() -> None:
    runner = SequentialTaskRunner()
    assert runner.concurrency_type is TaskConcurrencyType.SEQUENTIAL
    assert runner.duplicate() == runner
    assert runner.duplicate() is not runner
