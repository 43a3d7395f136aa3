"""The contract over the runners that share memory with the flow."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from penstock import State, flow, task
from penstock.states import Completed
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner, SequentialTaskRunner
from penstock.testing import TaskRunnerContract
from penstock.testing.ledger import Ledger


class TestSequentialTaskRunner(TaskRunnerContract):
    """Every call in the caller, in order."""

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return SequentialTaskRunner()


class TestConcurrentTaskRunner(TaskRunnerContract):
    """Threads and the flow's loop."""

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return ConcurrentTaskRunner()


class TestConcurrentTaskRunnerWithOneWorker(TaskRunnerContract):
    """Room for one running task: whatever waits must not hold it."""

    @pytest.fixture
    def task_runner(self) -> BaseTaskRunner:
        return ConcurrentTaskRunner(max_workers=1)


@task
def count_running(ledger: Ledger) -> int:
    """Say how many of these are running now."""
    ledger.add("+")
    for _ in range(1000):
        len(ledger.lines())
        if len(ledger.lines()) >= 2:
            break
    lines = ledger.lines()
    ledger.add("-")
    return lines.count("+") - lines.count("-")


def test_max_workers_bounds_running_tasks(tmp_path: Any) -> None:
    ledger = Ledger(tmp_path / "ledger.txt")

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def example() -> Any:
        return {"running": [future.result() for future in count_running.map([ledger] * 6)]}

    assert max(example()["running"]) <= 2


def test_max_workers_is_a_setting() -> None:
    assert ConcurrentTaskRunner(max_workers=2) == ConcurrentTaskRunner(max_workers=2)
    assert ConcurrentTaskRunner(max_workers=2) != ConcurrentTaskRunner(max_workers=3)
    assert ConcurrentTaskRunner(max_workers=2).duplicate() == ConcurrentTaskRunner(max_workers=2)


def test_concurrent_runner_refuses_work_after_serialization() -> None:
    async def complete() -> State:
        return Completed()

    cloudpickle = pytest.importorskip("cloudpickle")

    async def main() -> None:
        runner = ConcurrentTaskRunner()
        async with runner.start():
            copy = cloudpickle.loads(cloudpickle.dumps(runner))
            text = "The concurrent task runner cannot be used to submit work after serialization."
            with pytest.raises(RuntimeError, match=f"^{text}$"):
                await copy.submit(uuid4(), complete)

    asyncio.run(main())
