"""The whole contract on Ray: three ways to come to a cluster, and a selection on a fourth.

a Ray that is initialised here     one local instance, shared by the module
the address of a running cluster   `ray start --head`, processes that nobody here has started
a cluster of two nodes             what runs on one node is wanted on the other
a temporary instance               the default: some seconds for each flow run
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.task_runners import RayTaskRunner
from penstock.testing import TaskRunnerContract
from tests.task_runners.ray.driving import NarrowRayTaskRunner, local_ray


@pytest.fixture(scope="module")
def instance() -> Iterator[None]:
    """Have a local instance initialised."""
    with local_ray():
        yield


class TestInitialised(TaskRunnerContract):
    """Worker processes of an instance that is initialised in this process."""

    @pytest.fixture
    def task_runner(self, instance: None) -> RayTaskRunner:
        return RayTaskRunner()

    @pytest.fixture
    def one_worker(self, instance: None) -> RayTaskRunner:
        return NarrowRayTaskRunner()
