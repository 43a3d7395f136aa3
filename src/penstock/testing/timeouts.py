"""The contract of timeouts, of tasks and of flows."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from penstock import StateType, flow, task
from penstock.errors import RunTimedOut
from penstock.task_runners import BaseTaskRunner
from penstock.testing.ledger import DEADLINE, Ledger, wait_until
from penstock.testing.sample_tasks import add

MESSAGE = "Task run exceeded timeout of 0.1 seconds"


@task(timeout_seconds=0.1)
def linger() -> None:
    """Stay far too long, in steps that can be interrupted."""
    until = time.monotonic() + DEADLINE
    wait_until(lambda: time.monotonic() > until)


@task(timeout_seconds=0.1)
async def linger_async() -> None:
    """Stay far too long at an await."""
    await asyncio.sleep(DEADLINE)


@task(timeout_seconds=30)
def hurry(value: Any) -> Any:
    """Be done in time."""
    return value


@task(timeout_seconds=30)
async def hurry_async(value: Any) -> Any:
    """Be done in time, in a coroutine."""
    return value


@task(timeout_seconds=30)
def own_timeout() -> None:
    """Raise a TimeoutError of its own."""
    raise TimeoutError("mine")


class TimeoutsContract:
    """Section 9, on timeouts."""

    @pytest.mark.parametrize("called", [linger, linger_async], ids=["sync", "async"])
    def test_timed_out_run_has_failed(self, task_runner: BaseTaskRunner, called: Any) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = called.submit().wait()
            assert (state.type, state.name) == (StateType.FAILED, "TimedOut")
            assert state.message == MESSAGE

        started = time.monotonic()
        example()
        assert time.monotonic() - started < DEADLINE / 2

    @pytest.mark.parametrize("called", [linger, linger_async], ids=["sync", "async"])
    def test_timed_out_run_raises_timeout_error(
        self, task_runner: BaseTaskRunner, called: Any
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(RunTimedOut, match=MESSAGE) as caught:
                called.submit().result()
            assert isinstance(caught.value, TimeoutError)

        example()

    @pytest.mark.parametrize("called", [linger, linger_async], ids=["sync", "async"])
    def test_called_task_times_out(self, task_runner: BaseTaskRunner, called: Any) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(TimeoutError, match=MESSAGE):
                called()

        started = time.monotonic()
        example()
        assert time.monotonic() - started < DEADLINE / 2

    def test_task_times_out_in_async_flow(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> None:
            for called in (linger_async, linger):
                with pytest.raises(TimeoutError, match=MESSAGE):
                    await called.submit()

        asyncio.run(example())

    def test_task_in_time_completes(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert hurry.submit(1).result() == 1
            assert hurry_async.submit(2).result() == 2
            assert hurry(3) == 3

        example()

    def test_own_timeout_error_is_a_plain_failure(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = own_timeout.submit().wait()
            assert state is not None
            assert (state.type, state.name) == (StateType.FAILED, "Failed")
            assert state.message == "Task run encountered an exception. TimeoutError: mine"

        example()

    def test_timed_out_run_is_retried(self, task_runner: BaseTaskRunner, ledger: Ledger) -> None:
        @task(timeout_seconds=0.1, retries=1)
        async def improve() -> str:
            ledger.add("tried")
            if len(ledger.lines()) == 1:
                await asyncio.sleep(DEADLINE)
            return "in time"

        @flow(task_runner=task_runner)
        def example() -> Any:
            return improve.submit().result()

        assert example() == "in time"

    def test_downstream_of_a_timed_out_run_is_not_ready(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            bad = linger_async.submit()
            state = add.submit(bad, 1).wait()
            assert state is not None
            assert state.name == "NotReady"
            assert bad.exception() is not None

        example()

    def test_timeout_gives_its_slot_back(self, one_worker: BaseTaskRunner) -> None:
        @flow(task_runner=one_worker)
        def example() -> Any:
            bad = linger_async.submit()
            value = add.submit(1, 2).result()
            assert bad.exception() is not None
            return value

        started = time.monotonic()
        assert example() == 3
        assert time.monotonic() - started < DEADLINE / 2

    def test_flow_times_out(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner, timeout_seconds=0.1)
        def example() -> None:
            until = time.monotonic() + DEADLINE
            wait_until(lambda: time.monotonic() > until)

        state: Any = example(return_state=True)
        assert (state.type, state.name) == (StateType.FAILED, "TimedOut")
        assert state.message == "Flow run exceeded timeout of 0.1 seconds"

    def test_async_flow_times_out(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner, timeout_seconds=0.1)
        async def example() -> None:
            await asyncio.sleep(DEADLINE)

        with pytest.raises(TimeoutError, match="Flow run exceeded timeout of 0.1 seconds"):
            asyncio.run(example())
