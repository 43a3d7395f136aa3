"""What the engines in these tests work on. Worker processes load the tests, but not this."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.task_runners.dask.external import external_cluster
from tests.task_runners.ray.driving import local_ray


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Give the address of a scheduler with two workers of two threads."""
    with external_cluster(workers=2, nthreads=2) as cluster:
        yield cluster.address


@pytest.fixture(scope="module")
def ray_instance() -> Iterator[None]:
    """Have a local Ray initialised, which the runners that use it share."""
    with local_ray(object_store_memory=500_000_000):
        yield
