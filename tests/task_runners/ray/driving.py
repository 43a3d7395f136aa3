"""Have a Ray in this process that lasts as long as the tests that share it.

A process has one Ray at a time. What lives in the process for it, threads and sockets, comes and
goes as Ray likes: it is lent to the tests as a whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

import ray

from penstock.task_runners import RayTaskRunner
from penstock.task_runners.ray.connection import _local_kwargs, _quiet
from tests.leaks import lend_sockets

CPUS = 4
STORE_BYTES = 200_000_000
LOCAL = {"num_cpus": CPUS, "object_store_memory": STORE_BYTES}


@contextmanager
def initialised(**kwargs: Any) -> Iterator[None]:
    """Have Ray initialised in this process, by somebody else than Penstock."""
    # The processes of an instance end with the thread that has started them.
    work: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
    done: SimpleQueue[BaseException | None] = SimpleQueue()

    def serve() -> None:
        while (function := work.get()) is not None:
            try:
                function()
                done.put(None)
            except BaseException as exc:
                done.put(exc)

    def call(function: Callable[[], Any]) -> None:
        work.put(function)
        problem = done.get(timeout=60)
        if problem is not None:
            raise problem

    def init() -> None:
        with _quiet():
            ray.init(**kwargs)

    environment = dict(os.environ)
    thread = threading.Thread(target=serve, name="ray-test-instance")
    thread.start()
    try:
        with lend_sockets():
            call(init)
            try:
                yield
            finally:
                call(ray.shutdown)
    finally:
        work.put(None)
        thread.join()
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def local_ray(**kwargs: Any) -> Iterator[None]:
    """Have a local instance initialised."""
    with initialised(**_local_kwargs({"namespace": "penstock", **LOCAL, **kwargs})):
        yield


class NarrowRayTaskRunner(RayTaskRunner):
    """A runner whose task runs each take all processors of the instance, so that one runs."""

    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine = await super()._open(exit_stack)
        engine.defaults["num_cpus"] = CPUS
        return engine
