"""What the tests on Dask share: a cluster of external processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from multiprocessing import resource_tracker

import pytest
from distributed.utils import offload

from tests.task_runners.dask.external import ExternalCluster, external_cluster


@pytest.fixture(scope="session", autouse=True)
def lasting() -> None:
    """Start what is kept for the life of the process: Dask's thread, Python's tracker."""

    async def start() -> None:
        await offload(int)

    asyncio.run(start())
    resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def external(lasting: None) -> Iterator[ExternalCluster]:
    """Give a scheduler and one worker with one thread, without a nanny."""
    with external_cluster(workers=1) as cluster:
        yield cluster
