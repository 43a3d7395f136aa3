"""What any subclass of BaseTaskRunner gets, and what a wrong one comes to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import cloudpickle
import pytest

from penstock import State, flow, task
from penstock.errors import CrashedRun
from penstock.states import Completed, StateType
from penstock.task_runners import (
    BaseTaskRunner,
    ConcurrentTaskRunner,
    SequentialTaskRunner,
    TaskConcurrencyType,
)

pytestmark = pytest.mark.timeout(60)
Call = Callable[[], Awaitable[State]]


class AsyncioTaskRunner(BaseTaskRunner):
    """The example of the docstring."""

    def __init__(self, label: str = "plain") -> None:
        super().__init__()
        self.label = label
        self._tasks: dict[UUID, asyncio.Future[State]] = {}

    @property
    def concurrency_type(self) -> TaskConcurrencyType:
        return TaskConcurrencyType.CONCURRENT

    async def submit(self, key: UUID, call: Call) -> None:
        self._tasks[key] = asyncio.ensure_future(call())

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        done, _ = await asyncio.wait([self._tasks[key]], timeout=timeout)
        return self._tasks[key].result() if done else None


class ThreadsTaskRunner(AsyncioTaskRunner):
    """Runs `asyncio.run(call())` in threads of its own."""

    async def submit(self, key: UUID, call: Call) -> None:
        async def run() -> State:
            return await call()

        self._tasks[key] = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(run())))


class BrokenTaskRunner(AsyncioTaskRunner):
    """Fails where `label` says."""

    opened: list[str] = []

    async def submit(self, key: UUID, call: Call) -> None:
        if self.label == "submit":
            raise OSError("no way in")
        await super().submit(key, call)

    async def wait(self, key: UUID, timeout: float | None = None) -> State | None:
        state = await super().wait(key, timeout)
        if self.label == "wait":
            raise OSError("no way out")
        return None if self.label == "nothing" else state

    async def _start(self, exit_stack: AsyncExitStack) -> None:
        self.opened.append("opened")
        exit_stack.callback(self.opened.remove, "opened")
        if self.label == "start":
            raise OSError("half-way")


@task
def add(a: int, b: int) -> int:
    return a + b


@task
async def add_async(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@task
def nest(depth: int) -> int:
    return 0 if depth == 0 else 1 + nest.submit(depth - 1).result()


@pytest.mark.parametrize("kind", [AsyncioTaskRunner, ThreadsTaskRunner])
def test_third_party_runner_runs_a_flow(kind: type[AsyncioTaskRunner]) -> None:
    @flow(task_runner=kind())
    def example() -> Any:
        return [add.submit(add_async.submit(1, 2), 3), nest.submit(5)]

    @flow(task_runner=kind())
    async def example_async() -> Any:
        return await add.submit(add_async.submit(1, 2), 3)

    assert example() == [6, 5]
    assert asyncio.run(example_async()) == 6


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("submit", "OSError: no way in"),
        ("wait", "OSError: no way out"),
        ("nothing", "BrokenTaskRunner.wait gave None instead of the State"),
    ],
)
def test_error_of_the_runner_crashes_the_run(where: str, message: str) -> None:
    @flow(task_runner=BrokenTaskRunner(where))
    def example() -> Any:
        with pytest.raises(CrashedRun, match=message):
            add.submit(1, 2).result(timeout=10)
        return "went on"

    assert example() == "went on"


def test_start_that_fails_half_way_releases_what_was_opened() -> None:
    @flow(task_runner=BrokenTaskRunner("start"))
    def example() -> Any:
        return add.submit(1, 2).result()

    with pytest.raises(OSError, match="half-way"):
        example()
    assert BrokenTaskRunner.opened == []


def test_starting_twice_is_refused() -> None:
    async def example() -> None:
        runner = AsyncioTaskRunner()
        async with runner.start():
            with pytest.raises(RuntimeError, match="The task runner is already started!"):
                async with runner.start():
                    pass
        async with runner.start() as again:
            assert again is runner

    asyncio.run(example())


@pytest.mark.parametrize("kind", [ConcurrentTaskRunner, SequentialTaskRunner])
def test_submit_before_start_is_refused(kind: Any) -> None:
    async def example() -> None:
        with pytest.raises(
            RuntimeError, match="The task runner must be started before submitting work."
        ):
            await kind().submit(uuid4(), lambda: None)

    asyncio.run(example())


@pytest.mark.parametrize("kind", [ConcurrentTaskRunner, SequentialTaskRunner])
@pytest.mark.parametrize("problem", [ValueError("x"), SystemExit(1), asyncio.CancelledError()])
def test_wait_never_raises_because_a_call_failed(kind: Any, problem: BaseException) -> None:
    async def fail() -> State:
        raise problem

    async def succeed() -> State:
        return Completed(data=1)

    async def example() -> None:
        async with kind().start() as runner:
            bad, good = uuid4(), uuid4()
            await runner.submit(bad, fail)
            await runner.submit(good, succeed)
            assert (await runner.wait(bad, 5)).type is StateType.CRASHED
            assert (await runner.wait(good, 5)).data == 1

    asyncio.run(example())


def test_wait_gives_none_when_the_time_is_over() -> None:
    async def example() -> None:
        gate = asyncio.Event()

        async def hold() -> State:
            await gate.wait()
            return Completed()

        async with ConcurrentTaskRunner(1).start() as runner:
            key = uuid4()
            await runner.submit(key, hold)
            assert await runner.wait(key, 0.01) is None
            gate.set()
            assert await runner.wait(key) is not None

    asyncio.run(example())


def test_equality_and_names() -> None:
    assert AsyncioTaskRunner("a") == AsyncioTaskRunner("a") != AsyncioTaskRunner("b")
    assert AsyncioTaskRunner("a").duplicate() == AsyncioTaskRunner("a")
    assert AsyncioTaskRunner() != ThreadsTaskRunner()
    assert (str(AsyncioTaskRunner()), AsyncioTaskRunner().name) == ("AsyncioTaskRunner", "asyncio")
    assert AsyncioTaskRunner().logger.name == "penstock.task_runner.asyncio"
    assert ConcurrentTaskRunner(2) == ConcurrentTaskRunner(2) != ConcurrentTaskRunner(3)


def test_started_runner_travels_without_what_is_live() -> None:
    async def example() -> None:
        async with ConcurrentTaskRunner(3).start() as runner:
            copy = cloudpickle.loads(cloudpickle.dumps(runner))
        assert copy == runner
        with pytest.raises(
            RuntimeError,
            match="The concurrent task runner cannot be used to submit work after serialization.",
        ):
            await copy.submit(uuid4(), lambda: None)

    asyncio.run(example())


def test_no_thread_is_left() -> None:
    @flow(task_runner=ThreadsTaskRunner())
    def example() -> Any:
        return add.submit(1, 2).result()

    before = set(threading.enumerate())
    assert example() == 3
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert left <= {"penstock-recorder", "penstock-clock"}
