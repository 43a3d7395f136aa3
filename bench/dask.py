"""What is timed on Dask: each probe runs in a process of its own and prints its rounds as JSON.

    python -m bench.dask submit 10000 5

A probe opens one LocalCluster of two worker processes with one thread each. Every round measures
raw Dask by a client of that cluster, then the same work in a fresh flow run on it, recorded. The
clock runs while the flow's body works, with the runner started, as the raw client is connected.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import distributed

from bench.work import (
    MEGA,
    MICRO,
    MILLI,
    Figures,
    chunk,
    compared,
    count_of,
    join,
    look,
    make,
    make_block,
    noop,
    pause,
    plain,
    reduce,
    results,
    sleep_for,
    timed,
    total_of,
    use,
    warm,
)
from penstock import flow, unmapped
from penstock.task_runners import DaskTaskRunner

WORKERS = 2
MOST_RAW = 1_000  # tasks of a raw loop: at milliseconds each, more would say no more
LONG_EVERY = 50
FULL_MIXED = 400  # mixed tasks from which on the long ones take a whole second


@dataclass(frozen=True)
class Bed:
    """A running cluster and a raw client of it."""

    client: distributed.Client
    address: str

    def run(self, body: Callable[[], Any]) -> Any:
        """Run a function as the body of a flow run whose runner is up."""

        def warmed() -> Any:
            warm.submit().result()
            return body()

        runner = DaskTaskRunner(address=self.address)
        return flow(name="bench", task_runner=runner)(warmed)()

    def sent_by_workers(self) -> int:
        """Give the bytes that the workers have sent each other so far."""
        return sum(self.client.run(bytes_sent_by).values())


@contextmanager
def bed(processes: bool = True) -> Iterator[Bed]:
    """Open the cluster and run on every worker what is only slow the first time."""
    cluster = distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=processes, dashboard_address=None
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        opened = Bed(client, cluster.scheduler_address)
        client.gather(client.map(plain, range(100), pure=False))
        opened.run(lambda: [one.result() for one in noop.map(range(100))])
        yield opened


def bytes_sent_by(dask_worker: Any) -> int:
    return int(dask_worker.transfer_outgoing_bytes_total)


# --- the probes ----------------------------------------------------------------------------------


def submit(bed: Bed, count: int, rounds: int) -> Figures:
    """Time a submit loop and its results, beside the same loop with a raw client."""
    raw = min(count, MOST_RAW)

    def raw_loop() -> None:
        results([bed.client.submit(plain, number, pure=False) for number in range(raw)])

    figures = compared(
        lambda: timed(raw_loop) / raw * MICRO,
        lambda: (
            bed.run(lambda: timed(lambda: results([noop.submit(n) for n in range(count)])))
            / count
            * MICRO
        ),
        rounds,
    )
    by_hand = {size: chunked(bed, count, size, rounds) for size in (100, 500)}
    told = ", ".join(f"of {size}: {cost:.1f} µs" for size, cost in by_hand.items())
    figures.notes = f"raw Dask with chunks made by hand, {told} a task"
    return figures


def chunked(bed: Bed, count: int, size: int, rounds: int) -> float:
    """Give the microseconds per task of raw Dask with chunks of a size."""

    def run() -> None:
        parts = [range(at, min(at + size, count)) for at in range(0, count, size)]
        bed.client.gather(bed.client.map(chunk, parts, pure=False))

    return statistics.median(timed(run) for _ in range(rounds)) / count * MICRO


def mapped(bed: Bed, count: int, rounds: int) -> Figures:
    """Time map and its results, beside `Client.map` and `Client.gather`."""
    raw = min(count, MOST_RAW)
    client = bed.client
    return compared(
        lambda: (
            timed(lambda: client.gather(client.map(plain, range(raw), pure=False))) / raw * MICRO
        ),
        lambda: bed.run(lambda: timed(lambda: results(noop.map(range(count))))) / count * MICRO,
        rounds,
    )


def short(bed: Bed, count: int, rounds: int) -> Figures:
    """Time tasks of one millisecond, in milliseconds a task."""
    raw = min(count, MOST_RAW)
    return compared(
        lambda: raw_sleeps(bed, [0.001] * raw) / raw * MILLI,
        lambda: our_sleeps(bed, [0.001] * count) / count * MILLI,
        rounds,
    )


def long(bed: Bed, count: int, rounds: int) -> Figures:
    """Time tasks of 100 ms: ours over raw Dask, in percent."""
    pairs = [
        (raw_sleeps(bed, [0.1] * count), our_sleeps(bed, [0.1] * count)) for _ in range(rounds)
    ]
    return Figures([0.0], [(ours / raw - 1) * 100 for raw, ours in pairs])


def mixed(bed: Bed, count: int, rounds: int) -> Figures:
    """Time tasks of very different length: over the ideal schedule, in percent."""
    long = min(1.0, count / FULL_MIXED)
    lengths = [0.001 if number % LONG_EVERY else long for number in range(count)]
    ideal = sum(lengths) / WORKERS
    return compared(
        lambda: (raw_sleeps(bed, lengths) / ideal - 1) * 100,
        lambda: (our_sleeps(bed, lengths) / ideal - 1) * 100,
        rounds,
    )


def raw_sleeps(bed: Bed, lengths: list[float]) -> float:
    client = bed.client
    return timed(lambda: client.gather(client.map(sleep_for, lengths, pure=False)))


def our_sleeps(bed: Bed, lengths: list[float]) -> float:
    seconds: float = bed.run(lambda: timed(lambda: results(pause.map(lengths))))
    return seconds


def chain(bed: Bed, count: int, rounds: int) -> Figures:
    """Time a chain of dependent no-op tasks, in milliseconds a link."""

    def links(submit: Callable[[Any], Any]) -> None:
        last: Any = 0
        for _ in range(count):
            last = submit(last)
        last.result()

    return compared(
        lambda: (
            timed(lambda: links(lambda last: bed.client.submit(plain, last, pure=False)))
            / count
            * MILLI
        ),
        lambda: bed.run(lambda: timed(lambda: links(noop.submit))) / count * MILLI,
        rounds,
    )


def fan(bed: Bed, count: int, rounds: int) -> Figures:
    """Time many no-op tasks and one that takes all their values, in seconds."""
    client = bed.client

    def raw() -> None:
        parts = client.map(plain, range(count), pure=False)
        client.submit(count_of, parts, pure=False).result()

    return compared(
        lambda: timed(raw),
        lambda: bed.run(lambda: timed(lambda: join.submit(noop.map(range(count))).result())),
        rounds,
    )


def lone(bed: Bed, count: int, rounds: int) -> Figures:
    """Time from a task's submission to its result, nothing else running: in milliseconds."""
    client = bed.client

    def raw() -> float:
        return timed(lambda: [client.submit(plain, 1, pure=False).result() for _ in range(count)])

    def ours() -> float:
        seconds: float = bed.run(
            lambda: timed(lambda: [noop.submit(1).result() for _ in range(count)])
        )
        return seconds

    return compared(lambda: raw() / count * MILLI, lambda: ours() / count * MILLI, rounds)


def first(bed: Bed, count: int, rounds: int) -> Figures:
    """Time from a flow's call to its first result, beside a new client's: in milliseconds."""

    def raw() -> float:
        started = time.perf_counter()
        with distributed.Client(bed.address, set_as_default=False) as client:
            client.submit(plain, 1, pure=False).result()
            return time.perf_counter() - started

    def ours() -> float:
        started = time.perf_counter()

        def body() -> float:
            noop.submit(1).result()
            return time.perf_counter() - started

        seconds: float = flow(name="bench", task_runner=DaskTaskRunner(address=bed.address))(body)()
        return seconds

    return compared(lambda: raw() * MILLI, lambda: ours() * MILLI, rounds)


def pipeline(bed: Bed, count: int, rounds: int) -> Figures:
    """Share of the data that passes the driver's process in two stages, in percent.

    The size is in megabytes: 32 blocks are made by the first stage and reduced by the second.
    """
    client, size = bed.client, count * MEGA // 32

    def raw() -> None:
        blocks = client.map(make_block, [size] * 32, pure=False)
        client.gather(client.map(total_of, blocks, pure=False))

    def ours() -> None:
        results(reduce.map(make.map([size] * 32)))

    return compared(
        lambda: passed(raw) / (count * MEGA) * 100,
        lambda: bed.run(lambda: passed(ours)) / (count * MEGA) * 100,
        rounds,
    )


def broadcast(bed: Bed, count: int, rounds: int) -> Figures:
    """Bytes sent in total for one array that 1,000 tasks use, as a multiple of the array.

    The size is in megabytes. What one process sends to itself by a socket counts as well.
    """
    client, size = bed.client, count * MEGA

    def sent(function: Callable[[], Any]) -> float:
        before = sent_here() + bed.sent_by_workers()
        function()
        return (sent_here() + bed.sent_by_workers() - before) / size

    def raw() -> None:
        block = client.scatter(make_block(size), hash=False)
        client.gather(client.map(use, range(1_000), block=block, pure=False))

    def ours() -> None:
        block = make_block(size)
        results(look.map(range(1_000), unmapped(block)))

    return compared(lambda: sent(raw), lambda: bed.run(lambda: sent(ours)), rounds)


# --- bytes of this process -----------------------------------------------------------------------


def passed(function: Callable[[], Any]) -> int:
    """Give the bytes that this process received and sent meanwhile, its scheduler included."""
    before = sum(map(sum, connections()))
    function()
    return sum(map(sum, connections())) - before


def sent_here() -> int:
    """Give the bytes that this process has sent by the connections that are open."""
    return sum(sent for sent, _ in connections())


def connections() -> Iterator[tuple[int, int]]:
    """Give the bytes sent and received by each open TCP connection of this process; Linux."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            copy = os.dup(int(name))
        except OSError:  # closed meanwhile
            continue
        with socket.socket(fileno=copy) as one:
            try:
                told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
            except OSError:  # no TCP
                continue
            yield struct.unpack_from("QQ", told, 120)


PROBES: dict[str, Callable[[Bed, int, int], Figures]] = {
    "submit": submit,
    "map": mapped,
    "short": short,
    "long": long,
    "mixed": mixed,
    "chain": chain,
    "fan": fan,
    "lone": lone,
    "first": first,
    "pipeline": pipeline,
    "broadcast": broadcast,
}


if __name__ == "__main__":
    with bed() as opened:
        measured = PROBES[sys.argv[1]](opened, int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(vars(measured)))
