"""The whole contract on Dask: a given cluster of processes, one of threads, a running scheduler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from penstock.task_runners import DaskTaskRunner
from penstock.testing import TaskRunnerContract

@pytest.fixture(scope="module")
def cluster_loop() -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-cluster")
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def cluster(cluster_loop: Any) -> Iterator[Any]:
    """Give a cluster of two processes with two threads each, on a loop of its own."""
    from distributed import LocalCluster

    async def open_cluster() -> Any:
        return await LocalCluster(
            n_workers=2, threads_per_worker=4, asynchronous=True, dashboard_address=None
        )

    async def close_cluster(cluster: Any) -> None:
        await cluster.close()

    cluster = asyncio.run_coroutine_threadsafe(open_cluster(), cluster_loop).result(60)
    yield cluster
    asyncio.run_coroutine_threadsafe(close_cluster(cluster), cluster_loop).result(60)


class TestGivenCluster(TaskRunnerContract):
    @pytest.fixture
    def task_runner(self, cluster: Any) -> DaskTaskRunner:
        return DaskTaskRunner(cluster=cluster)

    @pytest.fixture
    def one_worker(self) -> DaskTaskRunner:
        return DaskTaskRunner(cluster_kwargs={"processes":False,"n_workers":1,"threads_per_worker":1})
