"""Flow runs: what they wait for, how they end, what a retry keeps."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from penstock import allow_failure, flow, get_run_context, quote, task
from penstock.errors import UpstreamFailed
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner, SequentialTaskRunner


@pytest.fixture(params=[SequentialTaskRunner(), ConcurrentTaskRunner()], ids=str)
def task_runner(request: pytest.FixtureRequest) -> Any:
    return request.param


@task
def give(x: Any) -> Any:
    return x


@task
async def give_later(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


@task
def fail(text: str) -> Any:
    raise ValueError(text)


def test_async_flow_awaits_a_future_of_another_flow_run(task_runner: BaseTaskRunner) -> None:
    @flow(task_runner=task_runner)
    async def outer(shape: Any) -> Any:
        future = give_later.submit(7)

        @flow(task_runner=task_runner)
        async def inner() -> Any:
            return shape(future)

        return await inner()

    assert asyncio.run(outer(lambda future: future)) == 7
    assert asyncio.run(outer(lambda future: {"in data": future})) == {"in data": 7}


def test_async_flow_waits_for_what_its_generator_submits(task_runner: BaseTaskRunner) -> None:
    @flow(task_runner=task_runner)
    async def example() -> Any:
        return (each.submit(1) for each in (give, give_later))

    assert asyncio.run(example()) == [1, 1]


def test_allowed_failure_in_the_data_is_no_reason_to_warn(
    task_runner: BaseTaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(task_runner=task_runner)
    def example() -> Any:
        return {"value": allow_failure(fail.submit("allowed"))}

    assert str(example()["value"]) == "allowed"
    assert "nobody looked" not in caplog.text


def test_failure_nobody_looked_at_is_named_in_one_warning(
    task_runner: BaseTaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(task_runner=task_runner)
    def example() -> Any:
        fail.submit("unseen")
        return 5

    assert example() == 5
    warned = [record for record in caplog.records if "nobody looked" in record.message]
    assert [record.levelname for record in warned] == ["WARNING"]
    assert "fail-0" in warned[0].message


def test_retry_keeps_completed_subflow_runs(task_runner: BaseTaskRunner) -> None:
    calls: list[str] = []

    @flow
    def child(name: str) -> Any:
        calls.append(name)
        return name

    @flow(task_runner=task_runner, retries=1)
    def parent() -> Any:
        values = [child("called"), child.submit("submitted").result()]
        if get_run_context().flow_run.attempt == 1:
            raise ValueError
        return values

    assert parent() == ["called", "submitted"]
    assert calls == ["called", "submitted"]


def test_submitted_flow_is_one_task_run_of_its_parent(task_runner: BaseTaskRunner) -> None:
    @flow
    def sync_child(x: int) -> Any:
        if x < 0:
            raise KeyError(x)
        return give.submit(x)

    @flow
    async def async_child(x: int) -> Any:
        return await give_later.submit(x)

    @flow(task_runner=task_runner)
    def parent() -> Any:
        failed = sync_child.submit(-1)
        values = [sync_child.submit(1).result(), async_child.submit(2).result()]
        values += async_child.map([3, 4]).result()
        assert isinstance(failed.exception(), KeyError)
        return {"values": values, "task runs": get_run_context().flow_run.live.total}

    assert parent() == {"values": [1, 2, 3, 4], "task runs": 5}


def test_subflow_waits_for_what_it_is_told_to(task_runner: BaseTaskRunner) -> None:
    @flow
    def child(x: Any = None) -> Any:
        return quote(x)

    @flow(task_runner=task_runner)
    def parent() -> Any:
        failed = fail.submit("upstream")
        states = [
            child(wait_for=[failed], return_state=True),
            child(failed, return_state=True),
            child.submit(wait_for=[failed]).wait(),
        ]
        with pytest.raises(UpstreamFailed, match="did not reach a 'COMPLETED' state."):
            child(wait_for=[failed])
        failed.wait()
        return {"names": [state.name for state in states if state is not None]}

    assert parent() == {"names": ["NotReady"] * 3}


@pytest.mark.parametrize("how", ["called", "submitted"])
def test_flows_inside_tasks(task_runner: BaseTaskRunner, how: str) -> None:
    @flow
    def child(x: int) -> Any:
        return x + 1

    @flow
    async def async_child(x: int) -> Any:
        return x + 2

    @task
    def sync_task() -> Any:
        return child(1), async_child(1)

    @task
    async def async_task() -> Any:
        return child(1), await async_child(1)

    @flow(task_runner=task_runner)
    def parent() -> Any:
        if how == "called":
            return {"values": [sync_task(), async_task()]}
        return {"values": [sync_task.submit().result(), async_task.submit().result()]}

    assert parent() == {"values": [(2, 3), (2, 3)]}


def test_a_runner_that_fails_to_stop_does_not_keep_the_others_running() -> None:
    class FailsToStop(ConcurrentTaskRunner):
        async def _start(self, exit_stack: AsyncExitStack) -> None:
            await super()._start(exit_stack)
            exit_stack.callback(self._fail)

        def duplicate(self) -> FailsToStop:
            return FailsToStop(self.max_workers)

        def _fail(self) -> None:
            raise OSError("stop failed")

    @task
    def one() -> int:
        return 1

    @task(task_runner=FailsToStop(2))
    def two() -> int:
        return 2

    @flow
    def both() -> Any:
        return [one.submit(), two.submit()]

    state = both(return_state=True)
    assert state.is_crashed()
    assert "stop failed" in str(state)


@pytest.mark.parametrize("form", ["call", "submit"])
def test_an_async_task_that_swallows_its_time_limit_is_timed_out(form: str) -> None:
    @task(timeout_seconds=0.02)
    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return "went on"

    @flow
    def wait_for_it() -> Any:
        return stubborn(return_state=True) if form == "call" else stubborn.submit()

    state = wait_for_it(return_state=True)
    assert state.is_failed()
