"""What is timed on Ray: each probe runs in a process of its own and prints its rounds as JSON.

    python -m bench.ray submit 10000 5

A probe has one local Ray of two processors. Every round measures raw Ray, then the same work in a
fresh flow run on it, recorded. The clock runs while the flow's body works, with the runner started,
but for the probe of starting and stopping itself.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from bench.work import (
    MICRO,
    MILLI,
    Figures,
    chunk,
    compared,
    noop,
    pause,
    plain,
    results,
    sleep_for,
    timed,
    warm,
)
from penstock import flow
from penstock.task_runners import RayTaskRunner

WORKERS = 2
MOST_RAW = 2_000  # tasks of a raw loop: more would say no more

raw_noop: Any = ray.remote(plain)
raw_pause: Any = ray.remote(sleep_for)
raw_chunk: Any = ray.remote(chunk)


@contextmanager
def bed() -> Iterator[None]:
    """Have a local Ray, and run on it what is only slow the first time."""
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        namespace="penstock",
        logging_level=logging.ERROR,
    )
    try:
        ray.get([raw_noop.remote(number) for number in range(200)])
        in_flow(lambda: results(noop.map(range(200))))
        yield
    finally:
        ray.shutdown()


def in_flow(body: Callable[[], Any]) -> Any:
    """Run a function as the body of a flow run whose runner is up."""

    def warmed() -> Any:
        warm.submit().result()
        return body()

    return flow(name="bench", task_runner=RayTaskRunner())(warmed)()


# --- the probes ----------------------------------------------------------------------------------


def submit(count: int, rounds: int) -> Figures:
    """Time a submit loop and its results, in microseconds a task."""
    raw = min(count, MOST_RAW)
    figures = compared(
        lambda: timed(lambda: ray.get([raw_noop.remote(n) for n in range(raw)])) / raw * MICRO,
        lambda: (
            in_flow(lambda: timed(lambda: results([noop.submit(n) for n in range(count)])))
            / count
            * MICRO
        ),
        rounds,
    )
    parts = [range(at, min(at + 100, count)) for at in range(0, count, 100)]
    by_hand = [timed(lambda: ray.get([raw_chunk.remote(part) for part in parts])) for _ in "123"]
    cost = statistics.median(by_hand) / count * MICRO
    figures.notes = f"raw Ray with chunks of 100 made by hand: {cost:.1f} µs a task"
    return figures


def mapped(count: int, rounds: int) -> Figures:
    """Time map and its results, in microseconds a task."""
    raw = min(count, MOST_RAW)
    return compared(
        lambda: timed(lambda: ray.get([raw_noop.remote(n) for n in range(raw)])) / raw * MICRO,
        lambda: in_flow(lambda: timed(lambda: results(noop.map(range(count))))) / count * MICRO,
        rounds,
    )


def long(count: int, rounds: int) -> Figures:
    """Time tasks of 100 ms: ours over raw Ray, in percent."""

    def raw() -> float:
        return timed(lambda: ray.get([raw_pause.remote(0.1) for _ in range(count)]))

    def ours() -> float:
        seconds: float = in_flow(lambda: timed(lambda: results(pause.map([0.1] * count))))
        return seconds

    pairs = [(raw(), ours()) for _ in range(rounds)]
    return Figures([0.0], [(our / theirs - 1) * 100 for theirs, our in pairs])


def chain(count: int, rounds: int) -> Figures:
    """Time a chain of dependent no-op tasks, in milliseconds a link."""

    def raw() -> None:
        last: Any = 0
        for _ in range(count):
            last = raw_noop.remote(last)
        ray.get(last)

    def ours() -> None:
        last: Any = 0
        for _ in range(count):
            last = noop.submit(last)
        last.result()

    return compared(
        lambda: timed(raw) / count * MILLI,
        lambda: in_flow(lambda: timed(ours)) / count * MILLI,
        rounds,
    )


def start(count: int, rounds: int) -> Figures:
    """Time a flow run of one task, runner started and stopped, in milliseconds."""

    def ours() -> None:
        flow(name="bench", task_runner=RayTaskRunner())(lambda: warm.submit().result())()

    return compared(
        lambda: timed(lambda: ray.get(raw_noop.remote(1))) * MILLI,
        lambda: statistics.median(timed(ours) for _ in range(count)) * MILLI,
        rounds,
    )


PROBES: dict[str, Callable[[int, int], Figures]] = {
    "submit": submit,
    "map": mapped,
    "long": long,
    "chain": chain,
    "start": start,
}


if __name__ == "__main__":
    with bed():
        measured = PROBES[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(vars(measured)))
