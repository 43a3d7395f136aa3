"""The whole contract on Ray: three ways to come to a cluster, and a selection on a fourth.

a Ray that is initialised here     one local instance, shared by the class
the address of a running cluster   `ray start --head`, processes that nobody here has started
a cluster of two nodes             what runs on one node is wanted on the other
a temporary instance               the default: some seconds for each flow run
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock import flow, task
from penstock.task_runners import RayTaskRunner
from penstock.testing import TaskRunnerContract
from tests.leaks import lend_sockets
from tests.task_runners.ray.driving import (
    CPUS,
    LOCAL,
    NarrowRayTaskRunner,
    SpreadRayTaskRunner,
    connected,
    local_ray,
    no_ray_left,
    two_nodes,
)
from tests.task_runners.ray.external import external_ray

# A cluster takes 10 seconds to start, on a busy machine three times that; a server for its client
# that does not start costs 40 seconds, by Ray's own limits.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", autouse=True)
def lent_sockets() -> Iterator[None]:
    """Lend what Ray keeps in the process, also after its shutdown."""
    with lend_sockets(), no_ray_left():
        yield


@pytest.fixture(scope="class")
def instance() -> Iterator[None]:
    """Have a local instance initialised."""
    with local_ray():
        yield


@pytest.fixture(scope="class")
def address() -> Iterator[str]:
    """Give the address of a running cluster, to which this process is connected."""
    with external_ray(cpus=4) as cluster, connected(cluster.address):
        yield cluster.address


@pytest.fixture(scope="class")
def nodes() -> Iterator[None]:
    """Have a cluster of two nodes."""
    with two_nodes(cpus=(2, CPUS)):
        yield


class TestInitialised(TaskRunnerContract):
    """Worker processes of an instance that is initialised in this process."""

    @pytest.fixture
    def task_runner(self, instance: None) -> RayTaskRunner:
        return RayTaskRunner()

    @pytest.fixture
    def one_worker(self, instance: None) -> RayTaskRunner:
        return NarrowRayTaskRunner()


class TestAddress(TaskRunnerContract):
    """Worker processes of a cluster that nobody here has started."""

    @pytest.fixture
    def task_runner(self, address: str) -> RayTaskRunner:
        return RayTaskRunner(address=address)

    @pytest.fixture
    def one_worker(self, address: str) -> RayTaskRunner:
        return NarrowRayTaskRunner(address=address)


class TestTwoNodes(TaskRunnerContract):
    """Worker processes on two nodes, which get task runs in turn."""

    @pytest.fixture
    def task_runner(self, nodes: None) -> RayTaskRunner:
        return SpreadRayTaskRunner()

    @pytest.fixture
    def one_worker(self, nodes: None) -> RayTaskRunner:
        # The second node alone has as many processors.
        return NarrowRayTaskRunner()


@task
def double(number: int) -> int:
    return 2 * number


def test_temporary_instance() -> None:
    """One flow run: the contract's life cycle needs seconds for each of its tests here."""
    import ray

    @flow(task_runner=RayTaskRunner(init_kwargs=LOCAL))
    def example() -> list[int]:
        return [future.result() for future in double.map(range(3))]

    assert example() == [0, 2, 4]
    assert not ray.is_initialized()


def test_client_of_a_running_cluster() -> None:
    import ray

    with external_ray(cpus=2, client=True) as cluster:

        @flow(task_runner=RayTaskRunner(address=cluster.client_address))
        def example() -> list[int]:
            return [future.result() for future in double.map(range(3))]

        assert example() == [0, 2, 4]
        assert not ray.is_initialized()
        assert cluster.process.poll() is None
