"""What the contract's tests on Dask and Ray share: clusters, which last until the last of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.task_runners import DaskTaskRunner, RayTaskRunner
from tests.leaks import lend_loop
from tests.task_runners.dask.driving import start_what_lasts
from tests.task_runners.ray.driving import NarrowRayTaskRunner, local_ray

# More than one cluster in a process: each finds a free port.
DASHBOARD = {"dashboard_address": "127.0.0.1:0"}
# Half of what a cluster of threads takes to start, and most of what a worker process loads.
NO_DASHBOARD = {"dashboard_address": None}
WORKERS = {"n_workers": 2, "threads_per_worker": 4, **DASHBOARD}
ONE_WORKER = {"n_workers": 1, "threads_per_worker": 1, **NO_DASHBOARD}


@pytest.fixture(scope="session")
def lasting_of_dask() -> None:
    """Start what Dask keeps for the life of the process, so that no test seems to leave it."""
    start_what_lasts()


@pytest.fixture(scope="package")
def cluster_loop(lasting_of_dask: None) -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop for the clusters that the tests here share."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-cluster")
    thread.start()
    with lend_loop(loop):
        yield loop
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="package")
def cluster(cluster_loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Give a cluster of two processes with four threads each."""
    yield from _cluster(cluster_loop, WORKERS)


@pytest.fixture(scope="package")
def narrow_cluster(cluster_loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Give a cluster of one process with one thread."""
    yield from _cluster(cluster_loop, ONE_WORKER)


@pytest.fixture(scope="module")
def ray_instance() -> Iterator[None]:
    """Have a local Ray initialised; a process has one, so it ends with the module."""
    with local_ray():
        yield


@pytest.fixture
def on_dask(cluster: Any) -> DaskTaskRunner:
    return DaskTaskRunner(cluster=cluster)


@pytest.fixture
def narrow_on_dask(narrow_cluster: Any) -> DaskTaskRunner:
    return DaskTaskRunner(cluster=narrow_cluster)


@pytest.fixture
def on_ray(ray_instance: None) -> RayTaskRunner:
    return RayTaskRunner()


@pytest.fixture
def narrow_on_ray(ray_instance: None) -> RayTaskRunner:
    return NarrowRayTaskRunner()


def _cluster(loop: asyncio.AbstractEventLoop, kwargs: dict[str, Any]) -> Iterator[Any]:
    from distributed import LocalCluster

    async def open_cluster() -> Any:
        return await LocalCluster(asynchronous=True, **kwargs)

    async def close_cluster(cluster: Any) -> None:
        await cluster.close()

    cluster = asyncio.run_coroutine_threadsafe(open_cluster(), loop).result(60)
    yield cluster
    asyncio.run_coroutine_threadsafe(close_cluster(cluster), loop).result(60)
