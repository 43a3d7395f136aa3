"""Have a Ray in this process that lasts as long as the tests that share it.

A process has one Ray at a time. What lives in the process for it, threads and sockets, comes and
goes as Ray likes: it is lent to the tests as a whole.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import ray
from ray.cluster_utils import Cluster

from penstock.task_runners import RayTaskRunner
from penstock.task_runners.ray.connection import LOOPBACK, _local_kwargs, _quiet
from tests.leaks import lend_sockets

CPUS = 4
STORE_BYTES = 200_000_000
LOCAL = {"num_cpus": CPUS, "object_store_memory": STORE_BYTES}


@contextmanager
def initialised(*, open_: Callable[[], Any], close: Callable[[], Any]) -> Iterator[None]:
    """Have Ray initialised in this process, by somebody else than Penstock."""
    # What an instance consists of ends with the thread that has started it: the main one lasts.
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with lend_sockets(), no_ray_left():
        try:
            with _quiet():
                open_()
            signal.signal(signal.SIGTERM, handler)
            yield
        finally:
            close()
            signal.signal(signal.SIGTERM, handler)
            os.environ.clear()
            os.environ.update(environment)


@contextmanager
def no_ray_left() -> Iterator[None]:
    """Have no Ray in this process, neither before the block nor after it, whatever fails there.

    What Ray leaves to the garbage collector, such as processes and log files of an instance that
    is not whole, goes here too: later its warnings would be the failure of somebody else's test.
    """
    _end_ray()
    try:
        yield
    finally:
        _end_ray()


def _end_ray() -> None:
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        # The second call does nothing; of a client that could not connect, it ends the mode.
        ray.shutdown()
        gc.collect()


@contextmanager
def local_ray(**kwargs: Any) -> Iterator[None]:
    """Have a local instance initialised."""
    kwargs = _local_kwargs({"namespace": "penstock", **LOCAL, **kwargs})
    with initialised(open_=lambda: ray.init(**kwargs), close=ray.shutdown):
        yield


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to a cluster that runs."""

    def connect() -> None:
        ray.init(address=address, namespace="penstock", logging_level=logging.WARNING)

    with initialised(open_=connect, close=ray.shutdown):
        yield


@contextmanager
def two_nodes(cpus: tuple[int, int]) -> Iterator[Cluster]:
    """Have a cluster of two nodes, and be connected to the first, which is its head."""
    made: list[Cluster] = []

    def open_cluster() -> None:
        node: dict[str, Any] = {
            "object_store_memory": STORE_BYTES,
            "node_ip_address": LOOPBACK,
        }
        head = {"include_dashboard": False, "num_cpus": cpus[0], **node}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        made.append(cluster)
        cluster.add_node(num_cpus=cpus[1], **node)
        ray.init(address=cluster.address, namespace="penstock", logging_level=logging.WARNING)

    def close_cluster() -> None:
        ray.shutdown()
        for cluster in made:
            cluster.shutdown()  # type: ignore[no-untyped-call]

    with initialised(open_=open_cluster, close=close_cluster):
        yield made[0]


class NarrowRayTaskRunner(RayTaskRunner):
    """A runner whose task runs each take all processors of the instance, so that one runs."""

    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine = await super()._open(exit_stack)
        engine.defaults["num_cpus"] = CPUS
        return engine


class SpreadRayTaskRunner(RayTaskRunner):
    """A runner whose task runs go to the nodes in turn, however much room the first one has."""

    async def _open(self, exit_stack: AsyncExitStack) -> Any:
        engine = await super()._open(exit_stack)
        engine.defaults["scheduling_strategy"] = "SPREAD"
        return engine
