"""What a Dask worker loads: the Dask task that executes a bundle, and its way to the driver."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress
from typing import Any

from dask.sizeof import sizeof
from distributed import Future, Worker, get_client, get_worker, rejoin, secede
from distributed.worker import thread_state

from penstock.remote.flow_run import hear
from penstock.remote.worker import run_bundle
from penstock.task_runners.dask.relay import REPORT, WORD

_ports: dict[str, DaskPort] = {}


class DaskPort:
    """A worker, as the code that runs on it uses it. Thread-safe."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker.address
        self._worker = worker
        self._loop: Any = worker.loop.asyncio_loop
        worker.stream_handlers[WORD] = _take_word

    def send(self, reply_to: Any, data: bytes) -> None:
        message = {"op": REPORT, "driver": reply_to, "data": data}
        self._loop.call_soon_threadsafe(self._worker.batched_send, message)

    def confirm(self, reply_to: Any, data: bytes) -> None:
        self._wait(self._worker.scheduler.penstock_report(driver=reply_to, data=data))

    def keep(self, reply_to: Any, name: str, value: Any) -> int:
        return self._wait(self._keep(reply_to, name, value))  # type: ignore[no-any-return]

    async def _keep(self, reply_to: Any, name: str, value: Any) -> int:
        size = sizeof(value)
        self._worker.update_data({name: value})
        await self._worker.scheduler.update_data(
            who_has={name: [self._worker.address]}, nbytes={name: size}, client=reply_to
        )
        return size

    def fetch(self, name: str) -> Any:
        client = get_client()
        return client.gather(Future(name, client, state="memory"))

    def leave(self) -> None:
        # Threads that the user's code has started have no place on the worker.
        if hasattr(thread_state, "key"):
            secede()

    def come_back(self) -> None:
        if hasattr(thread_state, "key"):
            rejoin()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop).result()


def run(reply_to: str, data: bytes, names: list[str], *parts: Any) -> None:
    """Execute a bundle; this is the Dask task."""
    run_bundle(data, dict(zip(names, parts, strict=True)), _port())


def _port() -> DaskPort:
    worker = get_worker()
    port = _ports.get(worker.address)
    if port is None:
        port = _ports[worker.address] = DaskPort(worker)
    return port


def _take_word(data: bytes) -> None:
    with suppress(Exception):
        header, word = pickle.loads(data)
        hear(header, word)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
