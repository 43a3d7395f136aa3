"""The whole contract on Dask: four ways to come to a cluster.

    a cluster object of worker processes   shared by the module, handed to the runner
    a temporary cluster of threads         one for each flow run, in this process: about 50 ms
    the address of a running scheduler     scheduler and workers are separate processes
    a temporary cluster of processes       the default: about 1 s for each flow run

The last one has a selection of the contract only. What happens to a task run once it is on a
worker process is the same as on the first and the third; what differs is that the cluster comes
and goes with the flow run, so the selection is what looks at starts and ends: the life cycle of
the runner, what a flow returns while its cluster closes, and what ends a flow early.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.task_runners import DaskTaskRunner
from penstock.testing import TaskRunnerContract
from penstock.testing.final_states import RaisedContract
from penstock.testing.fixtures import ContractFixtures
from penstock.testing.lifecycle import LifecycleContract
from tests.contracts.conftest import NO_DASHBOARD, ONE_WORKER
from tests.task_runners.dask.external import external_cluster

THREADS = {"processes": False, "n_workers": 1, "threads_per_worker": 4, **NO_DASHBOARD}


@pytest.fixture(scope="module")
def address(lasting_of_dask: None) -> Iterator[str]:
    """Give the address of a scheduler with two workers of four threads."""
    with external_cluster(workers=2, nthreads=4) as cluster:
        yield cluster.address


@pytest.fixture(scope="module")
def narrow_address(lasting_of_dask: None) -> Iterator[str]:
    """Give the address of a scheduler with one worker of one thread."""
    with external_cluster(workers=1, nthreads=1) as cluster:
        yield cluster.address


class TestGivenCluster(TaskRunnerContract):
    """Worker processes of a cluster object."""

    @pytest.fixture
    def task_runner(self, cluster: Any) -> DaskTaskRunner:
        return DaskTaskRunner(cluster=cluster)

    @pytest.fixture
    def one_worker(self, narrow_cluster: Any) -> DaskTaskRunner:
        return DaskTaskRunner(cluster=narrow_cluster)

    @pytest.fixture
    def resources(self) -> dict[str, float]:
        # Its workers declare nothing.
        return {}


class TestAddress(TaskRunnerContract):
    """Worker processes that nobody here has started."""

    @pytest.fixture
    def task_runner(self, address: str) -> DaskTaskRunner:
        return DaskTaskRunner(address=address)

    @pytest.fixture
    def one_worker(self, narrow_address: str) -> DaskTaskRunner:
        return DaskTaskRunner(address=narrow_address)

    @pytest.fixture
    def resources(self) -> dict[str, float]:
        # Its workers declare nothing.
        return {}


class TestTemporaryThreads(TaskRunnerContract):
    """Worker threads of a cluster that lasts as long as the flow run."""

    @pytest.fixture
    def task_runner(self, lasting_of_dask: None) -> DaskTaskRunner:
        return DaskTaskRunner(cluster_kwargs=THREADS)

    @pytest.fixture
    def one_worker(self, lasting_of_dask: None) -> DaskTaskRunner:
        return DaskTaskRunner(cluster_kwargs={**THREADS, "threads_per_worker": 1})

    @pytest.fixture
    def in_process(self) -> bool:
        # The workers are threads of this process, but what a task is given and gives travels as
        # on any other Dask worker.
        return False


class TestTemporaryProcesses(LifecycleContract, RaisedContract, ContractFixtures):
    """Worker processes of a cluster that lasts as long as the flow run."""

    @pytest.fixture
    def task_runner(self, lasting_of_dask: None) -> DaskTaskRunner:
        return DaskTaskRunner(cluster_kwargs={**ONE_WORKER, "threads_per_worker": 2})

    @pytest.fixture
    def one_worker(self, lasting_of_dask: None) -> DaskTaskRunner:
        return DaskTaskRunner(cluster_kwargs=ONE_WORKER)
