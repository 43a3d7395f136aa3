"""ConcurrentTaskRunner: cancellation in every phase, retries without slots, its settings."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextvars import ContextVar
from typing import Any

import pytest

from penstock import flow, task
from penstock.task_runners import ConcurrentTaskRunner, TaskConcurrencyType
from penstock.testing.ledger import wait_until

pytestmark = pytest.mark.timeout(60)
word: ContextVar[str] = ContextVar("word", default="none")


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_wrong_number_of_workers(workers: Any) -> None:
    with pytest.raises(ValueError, match="it must be a whole number of at least 1"):
        ConcurrentTaskRunner(max_workers=workers)


def test_settings() -> None:
    runner = ConcurrentTaskRunner(max_workers=3)
    assert runner.concurrency_type is TaskConcurrencyType.CONCURRENT
    assert runner.duplicate() == runner
    assert repr(runner) == "ConcurrentTaskRunner(max_workers=3)"


@task
def spin() -> None:
    wait_until(lambda: False)


@task
async def sleep() -> None:
    await asyncio.sleep(20)


@task(retries=1, retry_delay_seconds=30)
def fail() -> None:
    raise ValueError


@task
def after(value: Any) -> None:
    raise AssertionError("it was cancelled")


def cancel_in_time(future: Any, ready: Any) -> None:
    wait_until(ready)
    began = time.monotonic()
    assert future.cancel() is True
    assert future.wait(timeout=5) is not None
    assert future.cancelled()
    assert future.cancel() is False
    assert time.monotonic() - began < 5


def test_g5_cancel_in_every_phase() -> None:
    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def example() -> str:
        for running in (spin.submit(), sleep.submit()):
            cancel_in_time(running, lambda running=running: running.state.is_running())
        waiting = fail.submit()
        cancel_in_time(waiting, lambda: waiting.state.name == "AwaitingRetry")
        busy = [spin.submit(), sleep.submit()]
        wait_until(lambda: all(future.state.is_running() for future in busy))
        queued, downstream = after.submit(1), after.submit(busy[0])
        cancel_in_time(queued, lambda: True)
        cancel_in_time(downstream, lambda: True)
        for future in busy:
            cancel_in_time(future, lambda: True)
        return "done"

    assert example() == "done"


@pytest.mark.parametrize("seed", range(5))
def test_cancel_races_with_the_end(seed: int) -> None:
    """What `cancel` said comes true, whichever moment it meets."""
    rng = random.Random(seed)

    @task
    def quick(number: int) -> int:
        return number

    @task
    async def quick_async(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @task(retries=1)
    def again(number: int) -> int:
        raise ValueError

    @flow(task_runner=ConcurrentTaskRunner(max_workers=rng.choice([1, 2, 8])))
    def example() -> list[tuple[bool, bool]]:
        verdicts = []
        for number in range(200):
            chosen: Any = rng.choice([quick, quick_async, again])
            future = chosen.submit(number)
            second: Any = quick.submit(future)
            for _ in range(rng.randrange(200)):
                pass
            said = [(one, one.cancel()) for one in (future, second)]
            for one, verdict in said:
                one.wait()
                verdicts.append((verdict, one.cancelled()))
        return verdicts

    assert all(said == cancelled for said, cancelled in example())


def test_g9_waiting_retries_hold_no_slot() -> None:
    tried: list[int] = []

    @task(retries=1, retry_delay_seconds=0.3)
    def fail_once(number: int) -> int:
        tried.append(number)
        if tried.count(number) == 1:
            raise ValueError
        return number

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> Any:
        return fail_once.map(range(50))

    began = time.monotonic()
    assert example() == list(range(50))
    assert time.monotonic() - began < 5


def test_many_retries_are_not_too_deep() -> None:
    tries: list[int] = []

    @task(retries=1500)
    def insist() -> int:
        tries.append(1)
        if len(tries) <= 1500:
            raise ValueError
        return len(tries)

    @flow
    def example() -> Any:
        return insist.submit()

    assert example() == 1501


def test_a_thousand_async_tasks_at_once() -> None:
    inside: list[int] = []

    @task
    async def meet(number: int) -> int:
        inside.append(number)
        while len(inside) < 1000:
            await asyncio.sleep(0.001)
        return number

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1000))
    async def example() -> Any:
        return meet.map(range(1000))

    assert asyncio.run(example()) == list(range(1000))


def test_context_variables_are_carried_over() -> None:
    @task
    def look() -> tuple[str, bool]:
        return word.get(), threading.current_thread() is threading.main_thread()

    @task
    async def look_async() -> tuple[str, bool]:
        return word.get(), False

    @flow
    def example() -> Any:
        word.set("carried")
        return [look.submit(), look_async.submit()]

    assert example() == [("carried", False), ("carried", False)]


def test_wide_fan_out_of_one_upstream() -> None:
    gate = threading.Event()

    @task
    def root() -> int:
        gate.wait(10)
        return 1

    @task
    def take(value: int, number: int) -> int:
        return value + number

    @flow
    def example() -> Any:
        first = root.submit()
        futures = [take.submit(first, number) for number in range(3000)]
        gate.set()
        return futures

    assert example() == [number + 1 for number in range(3000)]
