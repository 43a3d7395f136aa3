"""What tasks can do to in-process workers: rows of the tables A, B and G."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from typing import Any

import pytest

from penstock import StateType, flow, task
from penstock.errors import CancelledRun, CrashedRun, DeadlockError, RunTimedOut
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner, SequentialTaskRunner
from penstock.testing.ledger import wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["sequential", "one worker", "many workers"])
def runner(request: pytest.FixtureRequest) -> BaseTaskRunner:
    if request.param == "sequential":
        return SequentialTaskRunner()
    return ConcurrentTaskRunner(max_workers=1 if request.param == "one worker" else None)


@task
def add(a: int, b: int) -> int:
    return a + b


@task(timeout_seconds=0.1)
def nap(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (SystemExit(3), "Execution was aborted by Python system exit call."),
        (KeyboardInterrupt(), "Execution was aborted by an interrupt signal."),
        (GeneratorExit("x"), "Execution was interrupted by an unexpected exception: "),
    ],
    ids=["b2 exit", "b10 interrupt", "other"],
)
def test_what_a_task_raises_does_not_reach_the_worker(
    runner: BaseTaskRunner, problem: BaseException, message: str
) -> None:
    @task(retries=2)
    def spoil() -> None:
        raise problem

    @flow(task_runner=runner)
    def example() -> Any:
        future = spoil.submit()
        with pytest.raises(CrashedRun) as caught:
            future.result()
        assert caught.value.__cause__ is problem
        assert future.state.message is not None
        assert future.state.message.startswith(message)
        assert future.task_run.attempt == 1
        return add.submit(1, 2).result()

    assert example() == 3


def test_b16_endless_recursion_is_a_failure(runner: BaseTaskRunner) -> None:
    @task
    def recurse() -> Any:
        return recurse.fn()

    @flow(task_runner=runner)
    def example() -> Any:
        assert isinstance(recurse.submit().exception(), RecursionError)
        return add.submit(1, 2).result()

    assert example() == 3


def test_b12_memory_error_is_a_failure(runner: BaseTaskRunner) -> None:
    @task
    def demand() -> None:
        raise MemoryError("too much")

    @flow(task_runner=runner)
    def example() -> Any:
        return demand.submit().exception()

    assert isinstance(example(), MemoryError)


@pytest.mark.parametrize("depth", [3, 50, 120])
def test_b13_nested_submits(runner: BaseTaskRunner, depth: int) -> None:
    if isinstance(runner, SequentialTaskRunner) and depth > 50:
        pytest.skip("runs in the caller, whose stack is limited")

    @task
    def dig(depth: int) -> int:
        return 0 if depth == 0 else 1 + dig.submit(depth - 1).result()

    @flow(task_runner=runner)
    def example() -> Any:
        return dig.submit(depth).result()

    assert example() == depth


def test_b13_sync_and_async_wait_for_each_other(runner: BaseTaskRunner) -> None:
    @task
    def dig(depth: int) -> int:
        return 0 if depth == 0 else 1 + dig_async.submit(depth - 1).result()

    @task
    async def dig_async(depth: int) -> int:
        return 0 if depth == 0 else 1 + await dig.submit(depth - 1)

    @flow(task_runner=runner)
    def example() -> Any:
        return [dig.submit(10), dig_async.submit(11)]

    assert example() == [10, 11]


def test_b13_sync_task_waits_for_async_child_in_async_flow(runner: BaseTaskRunner) -> None:
    @task
    async def child(value: int) -> int:
        await asyncio.sleep(0)
        return value

    @task
    def parent(value: int) -> int:
        called: Any = child(value)
        return child.submit(value).result() + int(called)

    @flow(task_runner=runner)
    async def example() -> Any:
        return await parent.submit(3)

    assert asyncio.run(example()) == 6


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_b14_circle_of_waits(kind: str) -> None:
    futures: dict[str, Any] = {}
    ready = threading.Event()

    @task
    def wait_for(name: str) -> Any:
        wait_until(ready.is_set)
        return futures[name].result()

    @task
    async def await_(name: str) -> Any:
        while not ready.is_set():
            await asyncio.sleep(0.001)
        return await futures[name]

    @flow
    def example() -> Any:
        waiting = wait_for if kind == "sync" else await_
        futures["a"] = waiting.submit("b")
        futures["b"] = waiting.submit("a")
        ready.set()
        return [futures["a"].exception(), futures["b"].exception()]

    problems = example()
    found = [problem for problem in problems if isinstance(problem, DeadlockError)]
    assert found
    assert "-0" in str(found[0])
    assert "-1" in str(found[0])


def test_wait_that_ends_by_itself_is_no_deadlock() -> None:
    futures: dict[str, Any] = {}
    ready = threading.Event()

    @task
    def peek() -> str:
        wait_until(ready.is_set)
        with pytest.raises(TimeoutError):
            futures["patient"].result(timeout=0.2)
        return "went on"

    @task
    def patient() -> Any:
        wait_until(ready.is_set)
        return futures["peek"].result()

    @flow
    def example() -> Any:
        futures["peek"] = peek.submit()
        futures["patient"] = patient.submit()
        ready.set()
        return [futures["peek"], futures["patient"]]

    assert example() == ["went on", "went on"]


def test_b15_result_of_what_is_queued_behind_its_upstream() -> None:
    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> Any:
        return add.submit(add.submit(1, 2), add.submit(3, 4)).result()

    assert example() == 10


def test_g3_task_that_hangs_is_final_at_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = threading.Lock()

    @task(timeout_seconds=0.1)
    def hang() -> None:
        with held:  # no exception can be raised in a thread that waits for a lock
            return

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> Any:
        late = hang.submit()
        with pytest.raises(RunTimedOut):
            late.result()
        assert add.submit(1, 2).result() == 3

    with caplog.at_level(logging.WARNING, "penstock.task_runner.concurrent"), held:
        example()
    assert "1 thread could not be stopped" in caplog.text


def test_g3_main_thread_is_woken_from_its_sleep() -> None:
    @flow(task_runner=SequentialTaskRunner())
    def example() -> Any:
        began = time.monotonic()
        assert isinstance(nap.submit(20).exception(), RunTimedOut)
        with pytest.raises(RunTimedOut):
            nap(20)
        return time.monotonic() - began

    assert example() < 5


def test_g2_task_that_swallows_its_timeout_has_timed_out(runner: BaseTaskRunner) -> None:
    @task(timeout_seconds=0.1)
    def stubborn() -> str:
        try:
            wait_until(lambda: False)
        except BaseException:
            return "went on"
        return "never"

    @flow(task_runner=runner)
    def example() -> Any:
        submitted = stubborn.submit().wait()
        called: Any = stubborn(return_state=True)
        return [state.name for state in (submitted, called) if state is not None]

    assert example() == ["TimedOut", "TimedOut"]


def test_g2_task_that_swallows_its_cancellation_is_cancelled() -> None:
    @task
    async def stubborn() -> str:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            pass
        return "went on"

    @flow
    def example() -> None:
        future = stubborn.submit()
        wait_until(lambda: future.state.is_running())
        assert future.cancel() is True
        with pytest.raises(CancelledRun):
            future.result()

    example()


def test_timeout_of_the_flow_reaches_the_task_in_its_thread() -> None:
    @task
    def sleep() -> None:
        time.sleep(20)

    @flow(timeout_seconds=0.1)
    def example() -> None:
        sleep()

    began = time.monotonic()
    state: Any = example(return_state=True)
    assert (state.type, state.name) == (StateType.FAILED, "TimedOut")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("inner_first", [True, False])
def test_timeouts_inside_each_other(inner_first: bool) -> None:
    @flow(timeout_seconds=0.3 if inner_first else 0.1)
    def example() -> None:
        inner = nap.with_options(timeout_seconds=0.1 if inner_first else 10)
        with pytest.raises(RunTimedOut):
            inner(20)
        time.sleep(20)

    began = time.monotonic()
    state: Any = example(return_state=True)
    assert state.name == "TimedOut"
    assert time.monotonic() - began < 5


def test_timeout_does_not_hit_another_run_in_the_same_thread() -> None:
    """A task that waits may run the awaited one itself: that one must not be interrupted."""

    @task
    def child() -> str:
        until = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > until)
        return "whole"

    kept: list[Any] = []

    @task(timeout_seconds=0.1)
    def parent() -> None:
        kept.append(child.submit())
        kept[0].result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def example() -> Any:
        assert isinstance(parent.submit().exception(), RunTimedOut)
        return kept[0].result()

    assert example() == "whole"


def test_a14_flow_that_raises_cancels_what_is_pending() -> None:
    kept: list[Any] = []
    gate = threading.Event()

    @task
    def wait_at_gate() -> None:
        gate.wait(10)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def example() -> None:
        kept.extend(wait_at_gate.submit() for _ in range(50))
        wait_until(lambda: sum(future.state.is_running() for future in kept) == 2)
        kept[-1].add_done_callback(lambda future: gate.set())
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        example()
    assert sum(future.cancelled() for future in kept) == 48


def test_a15_leaving_waits_for_what_nobody_asked_for() -> None:
    done: list[int] = []

    @task
    def note(number: int) -> None:
        done.append(number)

    @flow
    def example() -> None:
        note.map(range(20))

    example()
    assert sorted(done) == list(range(20))


def test_hook_that_exits_holds_nothing_up(runner: BaseTaskRunner) -> None:
    def leave(*_: Any) -> None:
        sys.exit(5)

    @flow(task_runner=runner)
    def example() -> Any:
        future = add.with_options(name="hooked").submit(1, 2)
        future.add_done_callback(leave)
        return future.result()

    assert example() == 3


def test_callback_may_cancel_and_wait(runner: BaseTaskRunner) -> None:
    ended: list[Any] = []

    @flow(task_runner=runner)
    def example() -> None:
        @task
        async def hold() -> None:
            await asyncio.sleep(20)

        first = add.submit(1, 2)
        if isinstance(runner, SequentialTaskRunner):
            return
        second = hold.submit()

        def stop(_: Any) -> None:
            second.cancel()
            ended.append(second.wait(timeout=5))

        first.add_done_callback(stop)
        first.result()
        second.wait()

    example()
    assert all(state is not None and state.is_cancelled() for state in ended)


def test_environment_of_the_process_is_shared(runner: BaseTaskRunner) -> None:
    """B19: in-process runners share the process, its folder and its signal handlers."""

    @task
    def look() -> tuple[int, str]:
        return os.getpid(), os.getcwd()

    @flow(task_runner=runner)
    def example() -> Any:
        return look.submit().result()

    assert example() == (os.getpid(), os.getcwd())
