"""Waiting inside tasks: circles, timeouts, several at once, other threads, the loop's own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from penstock import as_completed, flow, task, wait
from penstock.errors import BlockingWaitError, DeadlockError
from penstock.task_runners import ConcurrentTaskRunner
from penstock.testing.ledger import wait_until

pytestmark = pytest.mark.timeout(60)


@task
def echo(value: Any) -> Any:
    return value


@task
async def echo_async(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


@pytest.fixture(params=[1, 2, None])
def runner(request: pytest.FixtureRequest) -> ConcurrentTaskRunner:
    return ConcurrentTaskRunner(request.param)


def test_several_at_once_inside_a_task(runner: ConcurrentTaskRunner) -> None:
    @task
    def gather() -> list[int]:
        futures = [(echo, echo_async)[n % 2].submit(n) for n in range(10)]
        assert not wait(futures).not_done
        return sorted(future.result() for future in as_completed(futures))

    @task
    async def gather_async() -> list[int]:
        futures = [(echo, echo_async)[n % 2].submit(n) for n in range(10)]
        values = await asyncio.gather(*futures)
        assert [future async for future in as_completed(futures)]
        return sorted(values)

    @flow(task_runner=runner)
    def example() -> Any:
        return [gather.submit(), gather_async.submit()]

    assert example() == [list(range(10))] * 2


def test_own_future_is_a_circle(runner: ConcurrentTaskRunner) -> None:
    box: list[Any] = []
    ready = threading.Event()

    @task
    def mirror() -> Any:
        ready.wait(10)
        return box[0].result()

    @flow(task_runner=runner)
    def example() -> Any:
        box.append(mirror.submit())
        ready.set()
        return box[0].exception()

    problem = example()
    assert isinstance(problem, DeadlockError)
    assert "mirror-0 -> mirror-0" in str(problem)


def test_circle_through_an_upstream(runner: ConcurrentTaskRunner) -> None:
    box: list[Any] = []
    ready = threading.Event()

    @task
    def wait_for_downstream() -> Any:
        ready.wait(10)
        return box[0].result()

    @flow(task_runner=runner)
    def example() -> Any:
        first = wait_for_downstream.submit()
        box.append(echo.submit(first))
        ready.set()
        return first.exception()

    assert isinstance(example(), DeadlockError)


def test_circle_through_a_subflow() -> None:
    box: list[Any] = []
    ready = threading.Event()

    @flow
    def inner() -> Any:
        ready.wait(10)
        return box[0].result()

    @flow
    def example() -> Any:
        box.append(inner.submit())
        ready.set()
        return box[0].exception()

    assert isinstance(example(), DeadlockError)


def test_timeouts(runner: ConcurrentTaskRunner) -> None:
    gate = threading.Event()

    @task
    def hold() -> str:
        gate.wait(10)
        return "held"

    @flow(task_runner=runner)
    def example() -> Any:
        future = hold.submit()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            future.result(timeout=0.05)
        assert future.wait(timeout=0) is None
        assert wait([future], timeout=0.05).not_done == {future}
        with pytest.raises(TimeoutError):
            list(as_completed([future], timeout=0.05))
        assert time.monotonic() - began < 5
        gate.set()
        return future

    assert example() == "held"


def test_blocking_the_loop_that_must_produce_the_value_is_refused() -> None:
    @flow
    async def example() -> Any:
        future = echo_async.submit(1)
        with pytest.raises(BlockingWaitError, match="await future"):
            future.result()
        with pytest.raises(RuntimeError):
            wait([echo.submit(future)])
        return await future

    assert asyncio.run(example()) == 1


def test_blocking_for_a_thread_is_allowed_on_a_loop() -> None:
    @flow
    async def example() -> Any:
        return echo.submit(2).result()

    assert asyncio.run(example()) == 2


def test_waits_in_other_threads_of_a_task(runner: ConcurrentTaskRunner) -> None:
    @task
    async def spread() -> list[int]:
        futures = echo.map(range(5))
        return list(await asyncio.gather(*(asyncio.to_thread(f.result) for f in futures)))

    @flow(task_runner=runner)
    def example() -> Any:
        return spread.submit()

    assert example() == list(range(5))


def test_await_given_up_leaves_the_run_alone(runner: ConcurrentTaskRunner) -> None:
    gate = threading.Event()

    @task
    def hold() -> str:
        wait_until(gate.is_set)
        return "held"

    async def result_of(future: Any) -> Any:
        return await future

    @flow(task_runner=runner)
    async def example() -> Any:
        future = hold.submit()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result_of(future), 0.02)
        gate.set()
        return await future

    assert asyncio.run(example()) == "held"
