"""Clients inside flows and tasks: of the same cluster, default in their block, gone after it."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import dask.config
import distributed
import pytest
from dask.delayed import delayed

from penstock import flow
from penstock.errors import MissingContextError, TaskRunnerError
from penstock.runs import TaskRun
from penstock.runtime.context import current_run
from penstock.task_runners import DaskTaskRunner, get_async_dask_client, get_dask_client
from tests.task_runners.dask.driving import THREADS, started
from tests.task_runners.dask.external import ExternalCluster

pytestmark = pytest.mark.timeout(90)


def compute() -> Any:
    """Compute a collection on the default client; tell where that happened."""
    return delayed(os.getpid)().compute()


def in_task(kwargs: dict[str, Any]) -> tuple[Any, int]:
    current_run.set(bare_task_run())
    with get_dask_client(**kwargs) as client:
        assert client.submit(sum, [1, 2], pure=False).result() == 3
        found = compute()
    return found, os.getpid()


def in_async_task(kwargs: dict[str, Any]) -> Any:
    async def main() -> Any:
        current_run.set(bare_task_run())
        async with get_async_dask_client(**kwargs) as client:
            return await client.submit(sum, [1, 2], pure=False)

    return asyncio.run(main())


def bare_task_run() -> TaskRun:
    run = TaskRun.__new__(TaskRun)
    run.live = None
    return run


@pytest.mark.parametrize("kwargs", [{}, {"timeout": 5}, {"name": "mine"}], ids=str)
def test_client_in_a_task(external: ExternalCluster, kwargs: dict[str, Any]) -> None:
    """The one thread of the worker is free for what the task waits for, and taken back after."""

    async def use(client: Any) -> None:
        for _ in range(2):
            found, pid = await client.submit(in_task, kwargs, pure=False)
            assert found == pid == external.workers[0].pid
            assert await client.submit(in_async_task, kwargs, pure=False) == 3

    started(DaskTaskRunner(address=external.address), use)


def test_client_in_a_task_on_a_thread_of_this_process() -> None:
    """It must not become the default client of the driver."""

    async def use(client: Any) -> None:
        assert await client.submit(in_task, {}, pure=False) == (os.getpid(), os.getpid())
        assert dask.config.get("scheduler", None) is None
        with pytest.raises(ValueError, match="No clients found"):
            distributed.client.default_client()

    started(DaskTaskRunner(cluster_kwargs=THREADS), use)


def test_client_in_a_flow(external: ExternalCluster) -> None:
    @flow(task_runner=DaskTaskRunner(address=external.address))
    def example() -> Any:
        with get_dask_client() as client:
            assert client.scheduler is not None
            assert client.scheduler.address == external.address
            return compute()

    assert example() == external.workers[0].pid
    assert dask.config.get("scheduler", None) is None


def test_client_in_an_async_flow(external: ExternalCluster) -> None:
    @flow(task_runner=DaskTaskRunner(address=external.address))
    async def example() -> Any:
        async with get_async_dask_client(timeout=5) as client:
            return await client.compute(delayed(os.getpid)())

    assert asyncio.run(example()) == external.workers[0].pid


def test_client_in_a_flow_on_threads() -> None:
    @flow(task_runner=DaskTaskRunner(cluster_kwargs=THREADS))
    def example() -> Any:
        with get_dask_client():
            return compute()

    assert example() == os.getpid()


def test_client_outside_of_any_run() -> None:
    with pytest.raises(MissingContextError, match=re.escape("get_dask_client() works inside")):
        with get_dask_client():
            pass


def test_client_on_another_runner() -> None:
    @flow
    def example() -> None:
        with get_dask_client():
            pass

    with pytest.raises(TaskRunnerError, match="This flow run is on ConcurrentTaskRunner"):
        example()
