"""What the dispatcher does where things go wrong, or wait for each other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest

from penstock import flow, task
from penstock.errors import BlockingWaitError
from penstock.task_runners import SequentialTaskRunner
from tests.remote.local_engine import LocalEngine, LocalTaskRunner


class BrokenEngine(LocalEngine):
    """An engine that cannot keep large buffers."""

    def share(self, digest: str, buffer: Any) -> Any:
        raise OSError("no room on the workers")


class BrokenTaskRunner(LocalTaskRunner):
    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine = BrokenEngine(self.threads)
        exit_stack.callback(engine.pool.shutdown)
        return engine


class BadBatch(Exception):
    """An error that holds what could not be processed."""

    def __init__(self, message: str, rows: Any) -> None:
        super().__init__(message, rows)


@task
def identity(value: Any) -> Any:
    return value


@task
def total(values: Any) -> int:
    return int(values.sum())


def test_what_cannot_be_sent_crashes_and_the_rest_goes_on() -> None:
    @flow(task_runner=BrokenTaskRunner())
    def example() -> tuple[Any, Any]:
        large = identity.submit(np.zeros(2**21)).wait()
        return large, identity.submit(1).result()

    state, value = example()
    assert state.is_crashed()
    assert "no room on the workers" in state.message
    assert value == 1


def test_retry_condition_may_wait_for_other_task_runs() -> None:
    calls: list[int] = []

    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        other = identity.submit(2)

        def again(task: Any, run: Any, state: Any) -> bool:
            calls.append(other.result())
            return True

        @task(retries=1, retry_condition_fn=again)
        def fails() -> None:
            raise ValueError("no")

        return fails.submit().exception()

    assert isinstance(example(), ValueError)
    assert calls == [2]


def test_retry_condition_that_exits_ends_the_run() -> None:
    def leave(task: Any, run: Any, state: Any) -> bool:
        raise SystemExit(3)

    @task(retries=1, retry_condition_fn=leave)
    def fails() -> None:
        raise ValueError("no")

    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        return fails.submit().wait(), identity.submit(1).result()

    state, value = example()
    assert state.is_crashed()
    assert value == 1


def test_done_callback_that_waits_is_told_not_to(caplog: pytest.LogCaptureFixture) -> None:
    problems: list[BaseException] = []

    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        def wait_for_another(future: Any) -> None:
            try:
                identity.submit(2).result()
            except BlockingWaitError as exc:
                problems.append(exc)

        first = identity.submit(1)
        first.add_done_callback(wait_for_another)
        return first.result()

    assert example() == 1
    # Whether the callback came in time to be called elsewhere is a matter of luck.
    assert all("done callback" in str(problem) for problem in problems)


def test_task_in_the_caller_after_a_task_elsewhere() -> None:
    @task(task_runner=SequentialTaskRunner())
    def here(value: int) -> Any:
        return value + identity.submit(10).result()

    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        return here.submit(identity.submit(1)).result()

    assert example() == 11


@task(task_runner=SequentialTaskRunner())
def in_the_driver(value: int) -> Any:
    return value + identity.submit(10).result()


@task
def submits_to_the_driver(value: int) -> Any:
    return in_the_driver.submit(value).result()


def test_task_in_the_caller_from_inside_a_task_elsewhere() -> None:
    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        return submits_to_the_driver.submit(1).result()

    assert example() == 11


def test_large_argument_is_taken_as_it_is_at_submission() -> None:
    @flow(task_runner=LocalTaskRunner(threads=1))
    def example() -> list[int]:
        values, futures = np.zeros(200_000, dtype=np.int64), []
        for number in range(5):
            values[:] = number
            futures.append(total.submit(values))
        futures.append(total.submit(np.zeros(200_000, dtype=np.int64)))
        return [future.result() for future in futures]

    assert example() == [0, 200_000, 400_000, 600_000, 800_000, 0]


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
def test_exception_with_an_array_keeps_its_type(size: int) -> None:
    @task
    def fails() -> None:
        raise BadBatch("bad", np.arange(size))

    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        return fails.submit().exception()

    problem = example()
    assert type(problem) is BadBatch
    assert problem.args[1].size == size


def test_large_code_is_put_on_the_engine_once() -> None:
    engines: list[LocalEngine] = []

    class Watched(LocalTaskRunner):
        async def _open(self, exit_stack: AsyncExitStack) -> Any:
            engine = await super()._open(exit_stack)
            engines.append(engine)
            return engine

    ballast = b"x" * 2**21

    @task(bundle=False)
    def weighs(number: int) -> int:
        return number + len(ballast)

    @flow(task_runner=Watched())
    def example() -> list[int]:
        return weighs.map(range(20)).result()

    assert example() == [number + 2**21 for number in range(20)]
    assert engines[0].bytes < 2**20


def test_run_that_must_not_be_lost_travels_alone_and_says_that_it_begins() -> None:
    engines: list[LocalEngine] = []

    class Watched(LocalTaskRunner):
        async def _open(self, exit_stack: AsyncExitStack) -> Any:
            engine = await super()._open(exit_stack)
            engines.append(engine)
            return engine

    @task(worker_loss_retries=0)
    def once(number: int) -> int:
        return number

    @flow(task_runner=Watched())
    def example() -> list[int]:
        return once.map(range(30)).result()

    assert example() == list(range(30))
    assert len(engines[0].sent) == 30
