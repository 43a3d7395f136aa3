"""The contract of values: what a task may return, and states made by the user."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import uuid
from typing import Any, NamedTuple

import pytest

from penstock import StateType, flow, task
from penstock.errors import CancelledRun, CrashedRun, FailedRun
from penstock.states import Cancelled, Completed, Crashed, Failed
from penstock.task_runners import BaseTaskRunner
from penstock.testing.sample_tasks import add, fail, identity


class Colour(enum.Enum):
    """An enumeration to return."""

    RED = 1


class Point(NamedTuple):
    """A named tuple to return."""

    x: int
    y: int


@dataclasses.dataclass
class Box:
    """A dataclass to return."""

    content: Any


class Plain:
    """An object that equals only itself."""


VALUES: list[Any] = [
    None,
    NotImplemented,
    Ellipsis,
    True,
    0,
    "",
    b"",
    [],
    {},
    (),
    set(),
    2**200,
    -1.5,
    1 + 2j,
    "ünï\U0001f600\x00",
    bytearray(b"abc"),
    frozenset({1, 2}),
    range(3),
    decimal.Decimal("1.10"),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
    datetime.timedelta(days=1, microseconds=1),
    pathlib.PurePosixPath("/a/b"),
    uuid.UUID(int=7),
    Colour.RED,
    Point(1, 2),
    Box([1, {"a": Point(3, 4)}]),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("abca"),
    {1: "int", "1": "text", (1, 2): "tuple", None: "none"},
    ValueError,
    Plain,
    len,
    math,
    StateType.FAILED,
]


class ResultsContract:
    """Sections 4 and 6: values arrive as they were returned, whatever they are."""

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
    def test_value_arrives_unchanged(self, task_runner: BaseTaskRunner, value: Any) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = identity.submit(value)
            result = future.result()
            assert type(result) is type(value)
            assert result == value
            assert future.state.is_completed()

        example()

    def test_nan_arrives(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            assert math.isnan(identity.submit(float("nan")).result())

        example()

    @pytest.mark.parametrize(
        "value",
        [ValueError("v"), KeyError("k"), SystemExit(3), StopIteration(1), asyncio.CancelledError()],
        ids=lambda value: type(value).__name__,
    )
    def test_exception_as_a_value_is_not_raised(
        self, task_runner: BaseTaskRunner, value: BaseException
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = identity.submit(value)
            result: Any = future.result()
            assert type(result) is type(value)
            assert result.args == value.args
            assert future.exception() is None

        example()

    def test_large_list_arrives(self, task_runner: BaseTaskRunner) -> None:
        @task
        def numbers() -> Any:
            return list(range(100_000))

        @flow(task_runner=task_runner)
        def example() -> None:
            assert numbers.submit().result() == list(range(100_000))

        example()

    def test_deeply_nested_value_arrives(self, task_runner: BaseTaskRunner) -> None:
        @task
        def nested() -> Any:
            value: Any = "core"
            for _ in range(100):
                value = [value]
            return value

        @flow(task_runner=task_runner)
        def example() -> None:
            value = nested.submit().result()
            for _ in range(100):
                (value,) = value
            assert value == "core"

        example()

    def test_value_that_contains_itself_arrives(self, task_runner: BaseTaskRunner) -> None:
        @task
        def circle() -> Any:
            value: list[Any] = [1]
            value.append(value)
            return value

        @flow(task_runner=task_runner)
        def example() -> None:
            value = circle.submit().result()
            assert value[0] == 1
            assert value[1] is value

        example()

    def test_result_is_the_same_object_every_time(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = identity.submit([1])
            assert future.result() is future.result()

        example()

    def test_closure_arrives_and_runs(self, task_runner: BaseTaskRunner) -> None:
        @task
        def maker(amount: int) -> Any:
            return lambda value: value + amount

        @flow(task_runner=task_runner)
        def example() -> None:
            assert maker.submit(2).result()(3) == 5

        example()

    # States made by the user.

    def test_completed_state_is_used_as_it_is(self, task_runner: BaseTaskRunner) -> None:
        @task
        def made() -> Any:
            return Completed(message="by hand", data=5)

        @flow(task_runner=task_runner)
        def example() -> None:
            future = made.submit()
            assert future.result() == 5
            assert future.state.message == "by hand"
            assert made() == 5

        example()

    def test_failed_state_is_used_as_it_is(self, task_runner: BaseTaskRunner) -> None:
        @task
        def made() -> Any:
            return Failed(message="by hand")

        @flow(task_runner=task_runner)
        def example() -> None:
            future = made.submit()
            assert future.wait() is not None
            assert (future.state.type, future.state.message) == (StateType.FAILED, "by hand")
            with pytest.raises(FailedRun, match="by hand"):
                future.result()
            with pytest.raises(FailedRun, match="by hand"):
                made()

        example()

    def test_exception_in_a_failed_state_is_raised(self, task_runner: BaseTaskRunner) -> None:
        @task
        def made() -> Any:
            return Failed(message="by hand", data=LookupError("inside"))

        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(LookupError, match="^inside$"):
                made.submit().result()

        example()

    def test_crashed_state_is_used_as_it_is(self, task_runner: BaseTaskRunner) -> None:
        @task
        def made() -> Any:
            return Crashed(message="by hand")

        @flow(task_runner=task_runner)
        def example() -> None:
            with pytest.raises(CrashedRun, match="by hand"):
                made.submit().result()

        example()

    def test_cancelled_state_is_used_as_it_is(self, task_runner: BaseTaskRunner) -> None:
        @task
        def made() -> Any:
            return Cancelled(message="by hand")

        @flow(task_runner=task_runner)
        def example() -> None:
            future = made.submit()
            with pytest.raises(CancelledRun, match="by hand"):
                future.result()
            assert future.cancelled()

        example()

    def test_state_name_is_kept(self, task_runner: BaseTaskRunner) -> None:
        @task
        def made() -> Any:
            return Completed(message="enough", name="GoodEnough")

        @flow(task_runner=task_runner)
        def example() -> None:
            state = made.submit().wait()
            assert state is not None
            assert state.is_completed()
            assert state.name == "GoodEnough"

        example()

    # The states of ordinary runs.

    def test_completed_run_has_a_completed_state(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = add.submit(1, 2).wait()
            assert state is not None
            assert (state.type, state.name) == (StateType.COMPLETED, "Completed")
            assert state.is_final()
            assert state.timestamp.tzinfo is not None

        example()

    def test_failed_run_says_what_was_raised(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = fail.submit("text").wait()
            assert state is not None
            assert (state.type, state.name) == (StateType.FAILED, "Failed")
            assert state.message == "Task run encountered an exception. ValueError: text"

        example()

    def test_failed_state_text(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            state = fail.submit("text").wait()
            assert str(state) == 'Failed("Task run encountered an exception. ValueError: text")'

        example()
