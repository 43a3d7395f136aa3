"""What a Dask worker loads: the Dask task that executes a bundle, and its way to the driver."""

from __future__ import annotations

import asyncio
import pickle
import threading
from contextlib import suppress
from contextvars import Context
from time import time
from typing import Any
from weakref import WeakKeyDictionary, ref

from dask import get_annotations  # type: ignore[attr-defined]
from dask.sizeof import sizeof
from distributed import (
    CancelledError,
    Client,
    Future,
    Worker,
    WorkerPlugin,
    get_worker,
    rejoin,
    secede,
)
from distributed.worker import thread_state  # type: ignore[attr-defined]
from distributed.worker_state_machine import UnpauseEvent

from penstock.core.pickling import dump_apart
from penstock.errors import WorkerLost
from penstock.remote.flow_run import hear
from penstock.remote.outbox import Port
from penstock.remote.worker import run_bundle
from penstock.task_runners.dask.relay import CONFIRMED, REPORT, WORD

PLACES = frozenset({"resources", "workers", "allow_other_workers"})
"""Annotations that say where a task may run."""
OTHERS = frozenset({"priority", "retries"})
"""The other ones that reach Dask."""
_lock = threading.Lock()
# A worker in the driver's own process ends before the process does.
_ports: WeakKeyDictionary[Worker, DaskPort] = WeakKeyDictionary()


class DaskPort(Port):
    """A worker, as the code that runs on it uses it. Thread-safe.

    Flow runs are remembered with their port: it does not keep the worker alive.
    """

    lost: tuple[type[BaseException], ...] = (CancelledError, asyncio.CancelledError)
    patience = 10.0
    # Futures, also inside collections that were persisted: where the class is looked up.
    own = b"distributed.client"

    def __init__(self, worker: Worker) -> None:
        self.worker = worker.address
        self._worker_ref = ref(worker)
        loop: Any = worker.loop
        self._loop = loop.asyncio_loop
        # Whether a thread has left its place by `leave`.
        self._away = threading.local()
        worker.stream_handlers[WORD] = self._take_word

    @property
    def _worker(self) -> Worker:
        worker = self._worker_ref()
        if worker is None:
            raise WorkerLost(f"The worker {self.worker} has ended.")
        return worker

    def send(self, reply_to: Any, data: bytes) -> None:
        message = {"op": REPORT, "driver": reply_to, "data": data}
        self._loop.call_soon_threadsafe(self._worker.batched_send, message)

    def confirm(self, reply_to: Any, data: bytes) -> None:
        self._wait(getattr(self._worker.scheduler, CONFIRMED)(driver=reply_to, data=data))

    def keep(self, reply_to: Any, name: str, value: Any) -> int:
        return self._wait(self._keep(reply_to, name, value))  # type: ignore[no-any-return]

    async def _keep(self, reply_to: Any, name: str, value: Any) -> int:
        size = int(sizeof(value))
        self._worker.update_data({name: Whole(value)})
        await self._worker.scheduler.update_data(
            who_has={name: [self._worker.address]}, nbytes={name: size}, client=reply_to
        )
        return size

    def fetch(self, name: str) -> Any:
        client = client_of(self._worker)
        known: Any = "memory"
        return client.gather(Future(name, client, state=known)).value

    def options(self) -> dict[str, Any] | None:
        given = get_annotations()
        return {name: given[name] for name in PLACES | OTHERS if name in given} or None

    def leave(self) -> None:
        # Threads that the user's code has started have no place on the worker; nor has one that
        # the user's code has taken away from it already, as `get_dask_client` does.
        if hasattr(thread_state, "key"):
            try:
                secede()
            except KeyError:
                return
            self._lend(thread_state.key, 1)
            self._away.is_here = True

    def come_back(self) -> None:
        if getattr(self._away, "is_here", False):
            self._away.is_here = False
            rejoin()
            self._lend(thread_state.key, -1)

    def _lend(self, key: str, sign: int) -> None:
        """Lend others the resources of a Dask task that waits; Dask only lends its thread."""
        self._loop.call_soon_threadsafe(_change_available, self._worker, key, sign)

    def _take_word(self, data: bytes) -> None:
        with suppress(Exception):
            header, word = pickle.loads(data)
            hear(header, word, self)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop).result()


def client_of(worker: Worker, timeout: float | None = None) -> Client:
    """Give the worker's own client, which lasts as long as the worker."""
    # What it is made in, it keeps: not the context of a task run, and with that its values.
    return Context().run(_client_in_driver if is_in_driver(worker) else _client, worker, timeout)


def is_in_driver(worker: Worker) -> bool:
    """Tell whether a worker is a thread of the driver's process."""
    address: str = worker.scheduler.address
    return address.startswith("inproc://")


def _client(worker: Worker, timeout: float | None) -> Client:
    return worker._get_client(timeout)


def _client_in_driver(worker: Worker, timeout: float | None) -> Client:
    """Make a worker's client as Dask does, but not as the default of the driver's process."""
    with _lock:
        client: Client | None = worker._client
        if client is None:
            client = worker._client = Client(
                worker.scheduler,
                loop=worker.loop,
                security=worker.security,
                set_as_default=False,
                direct_to_workers=True,
                name="worker",
                **({} if timeout is None else {"timeout": timeout}),
            )
            worker.plugins[_ClosesClient.name] = _ClosesClient(client)
        return client


class _ClosesClient(WorkerPlugin):
    """Closes a worker's client with the worker; Dask waits for the last worker of the process."""

    name = "penstock-client"

    def __init__(self, client: Client) -> None:
        self._client = client

    async def teardown(self, worker: Worker) -> None:
        """Close it."""
        worker._client = None
        await self._client._close(fast=True)


class Whole:
    """A kept value, which Dask takes for one piece; it would look into each element of a list.

    Elsewhere it is unpickled where it is used and not where it arrives: there it would be in
    nobody's context, and an error would stop the transfer instead of failing who wants the value.
    """

    __slots__ = ("_packed", "_value")

    def __init__(self, value: Any, packed: tuple[bytes, list[Any]] | None = None) -> None:
        self._value = value
        self._packed = packed

    @property
    def value(self) -> Any:
        """The value; whatever unpickling raises comes through."""
        packed = self._packed
        if packed is not None:
            data, buffers = packed
            self._value = pickle.loads(data, buffers=buffers)
            self._packed = None
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        data, buffers = self._packed or dump_apart(self._value)
        return Whole, (None, (data, [pickle.PickleBuffer(buffer) for buffer in buffers]))

    def __sizeof__(self) -> int:
        packed = self._packed
        if packed is None:
            return int(sizeof(self._value))
        return len(packed[0]) + sum(memoryview(buffer).nbytes for buffer in packed[1])


class _Parts(dict[str, Any]):
    """What came along with a bundle; values are unpickled by whoever takes them."""

    def __getitem__(self, name: str) -> Any:
        part = super().__getitem__(name)
        return part.value if isinstance(part, Whole) else part


def _change_available(worker: Worker, key: str, sign: int) -> None:
    state = worker.state
    task = state.tasks.get(key)
    wanted = {} if task is None else task.resource_restrictions or {}
    for name, amount in wanted.items():
        # Taken back while others have them, they are missing until those have ended.
        state.available_resources[name] += sign * amount
    if wanted and sign > 0 and state.running:
        # What waits for them may be there already. Dask has no event for it; this one does
        # nothing to a worker that is not paused but have it look what can be started.
        worker.handle_stimulus(UnpauseEvent(stimulus_id=f"penstock-lent-{time()}"))


def run(reply_to: str, data: bytes, names: list[str], *parts: Any) -> None:
    """Execute a bundle; this is the Dask task."""
    run_bundle(data, _Parts(zip(names, parts, strict=True)), _port())


def _port() -> DaskPort:
    worker = get_worker()
    port = _ports.get(worker)
    if port is None:
        port = _ports[worker] = DaskPort(worker)
    return port


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
