"""Dask collections in real tasks and flows: computed on the cluster of the flow run."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import distributed
import pytest
from dask.base import is_dask_collection
from dask.delayed import delayed

from penstock import flow, task, wait
from penstock.task_runners import DaskTaskRunner, get_async_dask_client, get_dask_client
from tests.task_runners.dask.external import ExternalCluster

pytestmark = pytest.mark.timeout(90)
ONE_THREAD = {"processes": False, "n_workers": 1, "threads_per_worker": 1}


@pytest.fixture(params=["process", "thread"])
def runner(request: pytest.FixtureRequest, external: ExternalCluster) -> Iterator[DaskTaskRunner]:
    """Give a runner on one worker with one thread."""
    if request.param == "process":
        yield DaskTaskRunner(address=external.address)
    else:
        yield DaskTaskRunner(cluster_kwargs=ONE_THREAD)


def total() -> Any:
    return delayed(sum)([delayed(abs)(number) for number in (-1, 2, -3)])


@task
def compute(collection: Any = None) -> tuple[Any, int]:
    with get_dask_client() as client:
        assert client.submit(abs, -2, pure=False).result() == 2
        value = (total() if collection is None else collection).compute()
    return value, os.getpid()


@task
async def acompute() -> Any:
    async with get_async_dask_client() as client:
        return await client.compute(total())


@task
def make() -> Any:
    return total()


def test_in_tasks(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> Any:
        return [*compute.map([None] * 3), acompute.submit(), acompute.submit()]

    *sync, one, other = example()
    assert {value for value, _ in sync} == {6}
    assert (one, other) == (6, 6)


def test_in_an_async_flow(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    async def example() -> Any:
        async with get_async_dask_client() as client:
            here = await client.compute(total())
        return here, compute.submit(), acompute.submit()

    here, (there, _), last = asyncio.run(example())
    assert (here, there, last) == (6, 6, 6)


def test_in_a_task_of_a_task(runner: DaskTaskRunner) -> None:
    @task
    def parent() -> Any:
        with get_dask_client():
            return compute.submit().result()[0], total().compute()

    @flow(task_runner=runner)
    def example() -> Any:
        return parent.submit()

    assert example() == (6, 6)


def test_passed_on_and_returned_as_they_are(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> Any:
        made = make.submit()
        value, _ = compute.submit(made).result()
        return made, value

    made, value = example()
    assert value == 6
    assert is_dask_collection(made)
    assert made.compute(scheduler="synchronous") == 6


@task
def aggregate() -> tuple[float, int]:
    array = pytest.importorskip("dask.array")
    frame = pytest.importorskip("dask.dataframe")
    pandas = pytest.importorskip("pandas")
    table = frame.from_pandas(pandas.DataFrame({"x": range(10)}), npartitions=3)
    with get_dask_client():
        return float(array.ones((8, 8), chunks=4).sum().compute()), int(table.x.sum().compute())


def test_arrays_and_dataframes(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> Any:
        return aggregate.submit()

    assert example() == (64.0, 45)


# --- persisted collections -----------------------------------------------------------------------


@task
def persist(number: int) -> Any:
    """Give a collection whose parts lie on the cluster."""
    with get_dask_client():
        persisted = delayed(pow)(number, 2).persist()
        distributed.wait(persisted)
    return persisted


@task
def collect_garbage() -> None:
    gc.collect()


@task
def compute_all(collections: Any) -> list[Any]:
    with get_dask_client():
        return [collection.compute() for collection in collections]


def test_what_is_persisted_lasts_as_long_as_its_futures(runner: DaskTaskRunner) -> None:
    """Not only the last one on each worker, which lives on a little by itself."""

    @flow(task_runner=runner)
    def example() -> Any:
        futures = [persist.submit(number) for number in (1, 2, 3)]
        wait(futures)
        collect_garbage.submit().result()
        return compute_all.submit(futures).result(), compute_all.map([[one] for one in futures])

    together, apart = example()
    assert together == [1, 4, 9]
    assert apart == [[1], [4], [9]]


def test_what_is_persisted_comes_to_the_flow_and_goes_back(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> Any:
        collections = [persist.submit(number).result() for number in (1, 2, 3)]
        collect_garbage.submit().result()
        there = compute_all.submit(collections).result()
        with get_dask_client():
            return there, [collection.compute() for collection in collections]

    assert example() == ([1, 4, 9], [1, 4, 9])


def test_what_the_flow_persists_is_used_within_its_block(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    def example() -> Any:
        with get_dask_client():
            persisted = delayed(pow)(3, 2).persist()
            # Before it is passed on, the scheduler has to know of it.
            distributed.wait(persisted)
            return compute_all.submit([persisted]).result()

    assert example() == [9]


def test_clusters_in_one_process_end_one_by_one() -> None:
    """What a task's client has opened ends with its own cluster, and with no other one."""
    ended = threading.Event()

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=ONE_THREAD))
    def example(gate: threading.Event | None) -> Any:
        values = [compute.submit().result()[0]]
        if gate is not None:
            assert gate.wait(20)
        return [*values, compute.submit().result()[0]]

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(example, ended)
        assert example(None) == [6, 6]
        ended.set()
        assert other.result() == [6, 6]
