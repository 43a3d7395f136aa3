"""What the tests on Dask share: a cluster of external processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.task_runners.dask.driving import start_what_lasts
from tests.task_runners.dask.external import ExternalCluster, external_cluster


@pytest.fixture(scope="session", autouse=True)
def lasting() -> None:
    """Start what is kept for the life of the process: Dask's thread, Python's tracker."""
    start_what_lasts()


@pytest.fixture(scope="module")
def external(lasting: None) -> Iterator[ExternalCluster]:
    """Give a scheduler and one worker with one thread, without a nanny."""
    with external_cluster(workers=1) as cluster:
        yield cluster
