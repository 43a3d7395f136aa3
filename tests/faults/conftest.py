"""What the tests of faults on Dask share: a cluster of processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.task_runners.dask.driving import start_what_lasts
from tests.task_runners.dask.external import ExternalCluster, external_cluster


@pytest.fixture(scope="session")
def lasting_of_dask() -> None:
    """Start what Dask keeps for the life of the process, so that no test seems to leave it."""
    start_what_lasts()


@pytest.fixture
def two_workers(lasting_of_dask: None) -> Iterator[ExternalCluster]:
    """Give a scheduler and two workers with one thread each, without nannies."""
    with external_cluster(workers=2) as cluster:
        yield cluster
