"""Clients that live for one block of user code, in a task or in a flow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import distributed
from distributed.worker import thread_state  # type: ignore[attr-defined]

from penstock.task_runners.dask.default_client import as_default
from penstock.task_runners.dask.worker import client_of, is_in_driver


def worker_here(*, alone: bool) -> distributed.Worker | None:
    """Give the Dask worker that runs the calling code; None when there is none.

    Args:
        alone: the caller is known to be on a worker's process; then its only worker is meant
            also where Dask does not know which one runs the code.
    """
    try:
        return distributed.get_worker()
    except ValueError:
        here = list(distributed.Worker._instances)
        return here[0] if alone and len(here) == 1 else None


@contextmanager
def in_task(
    worker: distributed.Worker, timeout: float | None, kwargs: dict[str, Any]
) -> Iterator[distributed.Client]:
    """Give a client inside a task; the worker takes on other work meanwhile."""
    if kwargs or not _is_in_worker_thread():
        address, security = worker.scheduler.address, worker.security
        with _away(), connected(address, security, timeout, kwargs) as client:
            yield client
        return
    # Made before Dask makes it, in its own way. What is persisted lasts as long as this client.
    client = client_of(worker, timeout)
    if is_in_driver(worker):
        with _away(), as_default(client):
            yield client
    else:
        with distributed.worker_client(timeout=timeout) as client, as_default(client):
            yield client


@asynccontextmanager
async def ain_task(
    worker: distributed.Worker, timeout: float | None, kwargs: dict[str, Any]
) -> AsyncIterator[distributed.Client]:
    """Give an asynchronous client inside a task; the worker takes on other work meanwhile."""
    address, security = worker.scheduler.address, worker.security
    with _away():
        async with aconnected(address, security, timeout, kwargs) as client:
            yield client


@contextmanager
def connected(
    address: str, security: Any, timeout: float | None, kwargs: dict[str, Any]
) -> Iterator[distributed.Client]:
    """Give a client of a scheduler for a block of synchronous code."""
    given = _client_kwargs(security, timeout, kwargs)
    with distributed.Client(address, **given) as client, as_default(client):
        yield client


@asynccontextmanager
async def aconnected(
    address: str, security: Any, timeout: float | None, kwargs: dict[str, Any]
) -> AsyncIterator[distributed.Client]:
    """Give a client of a scheduler for a block of asynchronous code."""
    given = _client_kwargs(security, timeout, kwargs)
    async with distributed.Client(address, asynchronous=True, **given) as client:
        with as_default(client):
            yield client


def _client_kwargs(security: Any, timeout: float | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    limit = {} if timeout is None else {"timeout": timeout}
    return {"set_as_default": False, "security": security, **limit, **kwargs}


def _is_in_worker_thread() -> bool:
    return hasattr(thread_state, "start_time")


@contextmanager
def _away() -> Iterator[None]:
    """Leave the worker's thread pool for a block; nothing outside a thread of the pool."""
    try:
        if not _is_in_worker_thread():
            raise KeyError
        distributed.secede()
    except KeyError:  # not in the pool, or away already
        yield
        return
    try:
        yield
    finally:
        distributed.rejoin()
