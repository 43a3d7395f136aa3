"""Heavy arguments: when they are warned of and refused, and how often they travel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock import flow, task, unmapped
from penstock.errors import SerializationError
from penstock.remote import payloads, values
from penstock.remote.messages import REQUEST
from penstock.remote.reports import Reports
from tests.remote.local_engine import LocalTaskRunner

SIZE = payloads.HEAVY_BYTES


@task
def size_of(block: Any, number: int = 0) -> int:
    return len(block) + number


def block(value: int, size: int = SIZE + 1) -> Any:
    return np.full(size, value, "u1")


def warnings_of(caplog: pytest.LogCaptureFixture, body: Callable[[], Any]) -> list[str]:
    flow(task_runner=LocalTaskRunner())(body)()
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "penstock.remote" and record.levelno == logging.WARNING
    ]


def test_a_heavy_argument_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    (told,) = warnings_of(caplog, lambda: [size_of.submit(block(n)) for n in range(3)])
    assert told.startswith("Argument 'block' of task 'size-of' takes 10 MiB, and travels")
    assert "`unmapped(…)`" in told


def test_parts_of_one_argument_count_together(caplog: pytest.LogCaptureFixture) -> None:
    parts = [block(n, SIZE // 4 + 1) for n in range(4)]
    (told,) = warnings_of(caplog, lambda: [size_of.submit(parts)])
    assert "'block' of task 'size-of' takes 10 MiB" in told


def test_what_a_map_shares_is_no_reason(caplog: pytest.LogCaptureFixture) -> None:
    def body() -> None:
        size_of.map(unmapped(block(1)), range(20))
        size_of.map(unmapped(block(1)), range(20))

    assert not warnings_of(caplog, body)


def test_heavy_elements_of_a_map_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert len(warnings_of(caplog, lambda: size_of.map([block(1), block(2), block(3)]))) == 1


def test_lighter_arguments_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert not warnings_of(caplog, lambda: size_of.submit(block(1, SIZE - 2000)))


def test_upstream_values_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    make = task(name="make")(block)
    assert not warnings_of(caplog, lambda: size_of.submit(make.submit(1)))


# --- inside a task -------------------------------------------------------------------------------


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Give what workers ask of drivers."""
    seen: list[tuple[Any, ...]] = []
    take = Reports._request

    def note(reports: Reports, worker: str, paces: Any, *request: Any) -> None:
        seen.append(request)
        take(reports, worker, paces, *request)

    init = Reports.__init__

    def begin(reports: Reports, dispatcher: Any) -> None:
        init(reports, dispatcher)
        reports._takers[REQUEST] = lambda *given: note(reports, *given)

    monkeypatch.setattr(Reports, "__init__", begin)
    return seen


def test_code_goes_to_the_driver_once(requests: list[tuple[Any, ...]]) -> None:
    context = "x" * 10_000

    @task
    def local(number: int) -> int:
        return number + len(context)

    @task
    def parent(number: int) -> Any:
        return [local.submit(number).result(), local.map([number, 1]).result()]

    @flow(task_runner=LocalTaskRunner(threads=1))
    def example() -> Any:
        return parent.map(range(3))

    assert example()[2] == [10_002, [10_002, 10_001]]
    kinds = [request[0] for request in requests]
    assert kinds.count("submit") == 6
    # Each of the parents has come with its own copy of the code, and they are equal.
    assert kinds.count("code") == 1


def test_a_shared_argument_is_in_a_request_once(
    requests: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def parent() -> Any:
        return size_of.map(unmapped(block(1)), range(50)).result()

    def body() -> None:
        assert parent.submit().result() == [SIZE + 1 + number for number in range(50)]

    assert not warnings_of(caplog, body)
    (large,) = [request[4] for request in requests if request[0] == "submit"]
    assert [len(content) for content in large.values()] == [SIZE + 1]


def test_what_differs_is_asked_for_by_several_requests(
    requests: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def parent() -> Any:
        return size_of.map([block(number) for number in range(8)]).result()

    told = warnings_of(caplog, lambda: parent.submit().result())
    assert len(told) == 1
    assert [len(request[3]) for request in requests if request[0] == "submit"] == [4, 4]


def test_too_heavy_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MOST_BYTES", SIZE)

    @task
    def parent() -> Any:
        problem = size_of.submit(block(1)).exception()
        return type(problem), str(problem), size_of.submit(b"1").result()

    @flow(task_runner=LocalTaskRunner())
    def example() -> Any:
        return parent.submit()

    kind, text, rest = example()
    assert (kind, rest) == (SerializationError, 1)
    assert "arguments of task 'size-of' take 10 MiB, of which argument 'block' 10 MiB" in text


# --- results -------------------------------------------------------------------------------------


def test_a_heavy_result_is_warned_of_when_it_comes_here(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "HEAVY_BYTES", SIZE)
    make = task(name="make")(block)

    def stays() -> None:
        size_of.submit(make.submit(1)).result()

    def comes() -> None:
        make.submit(1).result()

    assert not warnings_of(caplog, stays)
    (told,) = warnings_of(caplog, comes)
    assert told.startswith("The value make-0-")
    assert "takes 10 MiB and is brought to this process" in told
