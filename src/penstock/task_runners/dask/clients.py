"""Clients of the cluster that the current run is on, for Dask collections in flows and tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from penstock.errors import MissingContextError, TaskRunnerError
from penstock.runs import TaskRun
from penstock.runtime.context import current_run
from penstock.task_runners.dask.runner import DaskTaskRunner, load

if TYPE_CHECKING:
    import distributed


@contextmanager
def get_dask_client(
    timeout: float | None = None, **client_kwargs: Any
) -> Iterator[distributed.Client]:
    """Give a client of the Dask cluster that the current flow or task runs on.

    Inside the block it is the default client: collections compute on that cluster. In a task the
    worker takes on other work meanwhile, so that a task may wait for what it submits; leaving
    the block waits for a free place on the worker.

    Args:
        timeout: how many seconds to try to connect; None is Dask's own limit.
        client_kwargs: further keyword arguments for `distributed.Client`.

    Raises:
        MissingContextError: no flow or task is running here.
        TaskRunnerError: the flow run is not on a DaskTaskRunner.

    Example:
        Compute a collection inside a task::

            @task
            def total():
                with get_dask_client():
                    return dask.datasets.timeseries().x.sum().compute()
    """
    sessions = load("sessions")
    worker = _worker("get_dask_client", sessions)
    if worker is not None:
        with sessions.in_task(worker, timeout, client_kwargs) as client:
            yield client
    else:
        runner = _runner("get_dask_client")
        address, security = runner.scheduler_address, runner.security
        with sessions.connected(address, security, timeout, client_kwargs) as client:
            yield client


@asynccontextmanager
async def get_async_dask_client(
    timeout: float | None = None, **client_kwargs: Any
) -> AsyncIterator[distributed.Client]:
    """Give an asynchronous client of the Dask cluster that the current flow or task runs on.

    As `get_dask_client`; the client's methods are awaited.

    Args:
        timeout: how many seconds to try to connect; None is Dask's own limit.
        client_kwargs: further keyword arguments for `distributed.Client`.

    Raises:
        MissingContextError: no flow or task is running here.
        TaskRunnerError: the flow run is not on a DaskTaskRunner.

    Example:
        Compute a collection inside an asynchronous task::

            @task
            async def total():
                async with get_async_dask_client() as client:
                    return await client.compute(dask.datasets.timeseries().x.sum())
    """
    sessions = load("sessions")
    worker = _worker("get_async_dask_client", sessions)
    if worker is not None:
        async with sessions.ain_task(worker, timeout, client_kwargs) as client:
            yield client
    else:
        runner = _runner("get_async_dask_client")
        address, security = runner.scheduler_address, runner.security
        async with sessions.aconnected(address, security, timeout, client_kwargs) as client:
            yield client


def _worker(asked: str, sessions: Any) -> Any:
    """Give the Dask worker that runs the current task; None in a flow's own code."""
    run = current_run.get()
    if run is None:
        raise MissingContextError(
            f"There is no run here: {asked}() works inside a flow or a task only."
        )
    return sessions.worker_here(alone=run.live is None) if isinstance(run, TaskRun) else None


def _runner(asked: str) -> DaskTaskRunner:
    run: Any = current_run.get()
    runner = None if run.live is None else run.live.runners.running(None).runner
    if not isinstance(runner, DaskTaskRunner) or runner.scheduler_address is None:
        place = f"This flow run is on {runner}" if runner else "This task runs outside a flow"
        raise TaskRunnerError(
            f"{asked}() needs a flow run on a DaskTaskRunner. {place}: "
            "use @flow(task_runner=DaskTaskRunner())."
        )
    return runner
