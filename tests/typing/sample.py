"""What type checkers make of decorated functions. Checked, never run."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, assert_type

from penstock import State, TaskFuture, allow_failure, flow, task, unmapped
from penstock.runtime.futures import FutureList


@task
def length(text: str, *, scale: int = 1) -> int:
    return len(text) * scale


@task(retries=2)
async def fetch(url: str) -> bytes:
    return url.encode()


@flow
def report(day: str) -> float:
    return float(day)


@flow(name="later")
async def report_later(day: str) -> float:
    return float(day)


class Store:
    @task
    def load(self, name: str) -> bytes:
        return name.encode()

    @flow
    def total(self, count: int) -> int:
        return count


def calls() -> None:
    assert_type(length("a"), int)
    assert_type(length("a", scale=2), int)
    assert_type(report("1"), float)
    assert_type(length.with_options(retries=1)("a"), int)
    assert_type(length("a", wait_for=[]), int)


def wrong_calls() -> None:
    length(1)  # type: ignore[call-overload]
    length()  # type: ignore[call-overload]
    report(day=1)  # type: ignore[call-overload]


async def asynchronous_calls() -> None:
    assert_type(await fetch("a"), bytes)
    assert_type(await report_later("1"), float)
    await assert_type(fetch("a"), Coroutine[Any, Any, bytes])


def submissions() -> None:
    future = length.submit("a")
    assert_type(future, TaskFuture[int])
    assert_type(future.result(), int)
    assert_type(length.submit(length.submit("a"), wait_for=[future]), TaskFuture[int])
    assert_type(length.submit("a", return_state=True), State)
    assert_type(fetch.submit("a"), TaskFuture[bytes])
    assert_type(report.submit("1"), TaskFuture[float])
    assert_type(report_later.submit(future), TaskFuture[float])


async def awaited() -> None:
    assert_type(await length.submit("a"), int)
    assert_type(await fetch.submit("a"), bytes)


def mapped() -> None:
    futures = length.map(["a", "b"], scale=unmapped(2))
    assert_type(futures, FutureList[int])
    assert_type(futures.result(), list[int])
    assert_type(fetch.map(["a"]), FutureList[bytes])
    assert_type(length.map(["a"], return_state=True), list[State])
    assert_type(length.map(["a"], max_in_flight=2), Iterator[TaskFuture[int]])
    assert_type(report.map(allow_failure(futures)), FutureList[float])
    assert_type(report_later.map(["1"]), FutureList[float])


def methods(store: Store) -> None:
    assert_type(store.load("a"), bytes)
    assert_type(store.load.submit("a"), TaskFuture[bytes])
    assert_type(store.total(3), int)
