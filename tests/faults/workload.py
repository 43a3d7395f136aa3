"""A flow with some of everything, for tests that kill it: each task body leaves evidence.

Its tasks are known by their labels, and `model` says what they give. `FAULTS_LEDGER` names the
file for the evidence, `FAULTS_PAUSE` how many seconds a task body takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from penstock import flow, get_run_context, get_run_logger, task
from tests.faults.judge import Expected, Model

EXTRAS = 6
LARGE = 100_000


def note(kind: str, label: str) -> None:
    """Write a line into the ledger, in one step."""
    run = get_run_context().task_run
    words = [kind, label, run.id.hex, str(run.attempt), str(time.time_ns()), str(os.getpid())]
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(os.environ["FAULTS_LEDGER"], flags, 0o600)
    try:
        os.write(descriptor, ("\t".join(words) + "\n").encode())
    finally:
        os.close(descriptor)


@contextmanager
def told(label: str) -> Iterator[None]:
    """Leave evidence of a task body."""
    note("start", label)
    get_run_logger().info("%s starts", label)
    time.sleep(float(os.environ.get("FAULTS_PAUSE", "0")))
    yield
    get_run_logger().info("%s ends", label)
    note("end", label)


@task
def square(label: str, x: int) -> int:
    """Give a square."""
    with told(label):
        return x * x


@task
def total(label: str, terms: Sequence[Any]) -> int:
    """Give a sum."""
    with told(label):
        return int(sum(terms))


@task(retries=2)
def flaky(label: str, x: int) -> int:
    """Fail once."""
    with told(label):
        if get_run_context().task_run.attempt == 1:
            raise ValueError("not yet")
        return -x


@task
def nest(label: str, count: int) -> int:
    """Submit tasks inside a task, one of them after the other."""
    with told(label):
        first = square.submit(f"{label}/0", 3)
        others = [total.submit(f"{label}/{n}", [first, n]) for n in range(1, count)]
        return sum([first.result(), *(other.result() for other in others)])


@task(persist_result=True)
def large(label: str, size: int) -> bytes:
    """Give more than the history itself keeps."""
    with told(label):
        return bytes(size)


@task
def length(label: str, data: bytes) -> int:
    """Give the length of what another task gave."""
    with told(label):
        return len(data)


@task
def unwanted(label: str) -> None:
    """Take as long as anything else; it may be cancelled."""
    with told(label):
        pass


@flow
def part(label: str, count: int) -> int:
    """Fan out and in, in a flow run of its own."""
    squares = square.map([f"{label}/{n}" for n in range(count)], range(count))
    return total(f"{label}/total", squares)


@flow
def mix(width: int = 4) -> int:
    """Do some of everything."""
    values: list[Any] = [square("direct", 7)]
    submitted = [square.submit(f"submit-{n}", n) for n in range(width)]
    mapped = square.map([f"map-{n}" for n in range(width)], range(10, 10 + width))
    chain = square.submit("chain-0", 2)
    for n in range(1, 4):
        chain = total.submit(f"chain-{n}", [chain, n])
    nested = nest.submit("nest", 3)
    fan_in = total.submit("fan-in", [*submitted, *mapped])
    lone = unwanted.submit("unwanted")
    lone.cancel()
    lone.wait()
    again = flaky.submit("flaky", 5)
    size = length.submit("length", large.submit("large", LARGE))
    values.append(part("part", 3))
    for n in sorted(random.sample(range(EXTRAS), 2)):
        if square.submit(f"extra-{n}", n).result() >= 9:
            square(f"extra-{n}/more", n + 1)
    return total("total", [*values, chain, nested, fan_in, again, size])


@task
async def asquare(label: str, x: int) -> int:
    """Give a square, after others had their turn."""
    with told(label):
        await asyncio.sleep(0)
        return x * x


@flow
async def apart(label: str, count: int) -> int:
    """Call tasks at the same time, in a flow run of its own."""
    calls = (asquare(f"{label}/{n}", n) for n in range(count))
    return sum(await asyncio.gather(*calls))


@flow
async def amix(width: int = 4) -> int:
    """Do what asynchronous flows do."""
    first = await asquare("direct", 7)
    mapped = asquare.map([f"map-{n}" for n in range(width)], range(width))
    fan_in = total.submit("fan-in", mapped)
    called = await asyncio.gather(*(asquare(f"call-{n}", n) for n in range(width)))
    again = flaky.submit("flaky", 5)
    inside = await apart("part", 3)
    return await total.submit("total", [first, *called, inside, fan_in, again])


def _total(label: str, upstream: dict[str, Expected], more: int = 0) -> dict[str, Expected]:
    value = more + sum(int(str(each.value)) for each in upstream.values())
    return {label: Expected("total", value, tuple(upstream))}


def amodel(width: int = 4) -> Model:
    """Give what `amix` comes to, without Penstock."""
    tasks = {"direct": Expected("asquare", 49), "flaky": Expected("flaky", -5, attempts=2)}
    mapped = {f"map-{n}": Expected("asquare", n * n) for n in range(width)}
    tasks |= mapped | _total("fan-in", mapped)
    tasks |= {f"call-{n}": Expected("asquare", n * n) for n in range(width)}
    tasks |= {f"part/{n}": Expected("asquare", n * n, parent="part") for n in range(3)}
    tasks["part"] = Expected("apart", 5)
    waited = {label: tasks[label] for label in ("fan-in", "flaky")}
    tasks |= _total("total", waited, 49 + sum(n * n for n in range(width)) + 5)
    value = tasks["total"].value
    return Model("amix", {"width": width}, value, tasks, frozenset({"part"}))


def model(width: int = 4) -> Model:
    """Give what `mix` comes to, without Penstock."""
    tasks = {"direct": Expected("square", 49)}
    submitted = {f"submit-{n}": Expected("square", n * n) for n in range(width)}
    mapped = {f"map-{n}": Expected("square", (10 + n) ** 2) for n in range(width)}
    tasks |= submitted | mapped | _total("fan-in", submitted | mapped)
    tasks["chain-0"] = Expected("square", 4)
    for n in range(1, 4):
        tasks |= _total(f"chain-{n}", {f"chain-{n - 1}": tasks[f"chain-{n - 1}"]}, n)
    tasks["nest"] = Expected("nest", 9 + (9 + 1) + (9 + 2))
    tasks["nest/0"] = Expected("square", 9, parent="nest")
    for n in (1, 2):
        tasks[f"nest/{n}"] = Expected("total", 9 + n, ("nest/0",), parent="nest")
    tasks["unwanted"] = Expected("unwanted", None, cancelled=True)
    tasks["flaky"] = Expected("flaky", -5, attempts=2)
    tasks["large"] = Expected("large", bytes(LARGE))
    tasks["length"] = Expected("length", LARGE, ("large",))
    tasks["part"] = Expected("part", 0 + 1 + 4)
    for n in range(3):
        tasks[f"part/{n}"] = Expected("square", n * n, parent="part")
    tasks["part/total"] = Expected("total", 5, ("part/0", "part/1", "part/2"), parent="part")
    for n in range(EXTRAS):
        tasks[f"extra-{n}"] = Expected("square", n * n, certain=False)
        if n >= 3:
            tasks[f"extra-{n}/more"] = Expected("square", (n + 1) ** 2, certain=False)
    waited = {label: tasks[label] for label in ("chain-3", "nest", "fan-in", "flaky", "length")}
    tasks |= _total("total", waited, 49 + 5)
    return Model("mix", {"width": width}, tasks["total"].value, tasks, frozenset({"part"}))


MODELS = {"mix": model, "amix": amodel}
