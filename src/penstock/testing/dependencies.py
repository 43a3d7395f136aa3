"""The contract of dependencies: where futures are found, and what passes untouched."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, NamedTuple

from penstock import State, flow, quote, task
from penstock.states import Completed, Failed
from penstock.task_runners import BaseTaskRunner
from penstock.testing.sample_tasks import add, add_async, fail, identity, total


class Pair(NamedTuple):
    """A named tuple that carries futures."""

    left: Any
    right: Any


@dataclasses.dataclass
class Parcel:
    """A dataclass that carries futures."""

    content: Any
    label: str = "none"


@dataclasses.dataclass(frozen=True)
class Sealed:
    """A frozen dataclass, with a field that its constructor does not take."""

    content: Any
    size: int = dataclasses.field(default=1, init=False)


class Opaque:
    """An object that is not entered."""

    def __init__(self, content: Any) -> None:
        self.content = content


@task
def memory_address(value: Any) -> int:
    """Say which object was passed."""
    return id(value)


@task
def type_name(value: Any) -> str:
    """Say what was passed."""
    return type(value).__name__


@task
def content_type(value: Opaque) -> str:
    """Say what an object that is not entered holds."""
    return type(value.content).__name__


class DependenciesContract:
    """Section 7: futures and states in arguments become values."""

    @staticmethod
    def passed(runner: BaseTaskRunner, build: Any) -> Any:
        """Submit `identity` with what `build` makes of two futures (1 and 2)."""

        @flow(task_runner=runner)
        def example() -> Any:
            one, two = identity.submit(1), add_async.submit(1, 1)
            return {"value": identity.submit(build(one, two)).result()}

        return example()["value"]

    def test_future_as_argument(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: two) == 2

    def test_future_as_keyword_argument(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add.submit(x=add.submit(1, 2), y=add.submit(3, 4)).result()

        assert example() == 10

    def test_futures_in_variadic_arguments(self, task_runner: BaseTaskRunner) -> None:
        @task
        def gather(*values: Any, **named: Any) -> Any:
            return {"values": values, "named": named}

        @flow(task_runner=task_runner)
        def example() -> Any:
            one, two = identity.submit(1), identity.submit(2)
            return gather.submit(one, two, three=one).result()

        assert example() == {"values": (1, 2), "named": {"three": 1}}

    def test_future_in_a_called_task(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return add(add.submit(1, 2), 1)

        assert example() == 4

    def test_future_in_a_called_async_task(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        async def example() -> Any:
            return await add_async(add_async.submit(1, 2), 1)

        assert asyncio.run(example()) == 4

    def test_futures_in_a_list(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: [one, 0, two]) == [1, 0, 2]

    def test_futures_in_a_tuple(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: (one, two)) == (1, 2)

    def test_futures_in_a_set(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: {one, two, 3}) == {1, 2, 3}

    def test_futures_as_dict_values(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: {"a": one}) == {"a": 1}

    def test_futures_as_dict_keys(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: {one: two}) == {1: 2}

    def test_futures_in_a_dataclass(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: Parcel(one, "x")) == Parcel(1, "x")

    def test_futures_in_a_frozen_dataclass(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: Sealed(two)) == Sealed(2)

    def test_futures_in_a_named_tuple(self, task_runner: BaseTaskRunner) -> None:
        value = self.passed(task_runner, lambda one, two: Pair(one, two))
        assert type(value) is Pair
        assert value == Pair(1, 2)

    def test_futures_in_a_generator(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            futures = [identity.submit(number) for number in range(4)]
            return total.submit(future for future in futures).result()

        assert example() == 6

    def test_futures_at_any_depth(self, task_runner: BaseTaskRunner) -> None:
        value = self.passed(
            task_runner, lambda one, two: [{"a": (Parcel([{one}]), Pair({"b": [two]}, 0))}]
        )
        assert value == [{"a": (Parcel([{1}]), Pair({"b": [2]}, 0))}]

    def test_the_same_future_twice(self, task_runner: BaseTaskRunner) -> None:
        assert self.passed(task_runner, lambda one, two: [one, [one], two, one]) == [1, [1], 2, 1]

    def test_the_callers_containers_stay_as_they_are(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = identity.submit(1)
            values = [future, {"a": future}]
            assert identity.submit(values).result() == [1, {"a": 1}]
            assert values == [future, {"a": future}]

        example()

    def test_container_that_contains_itself(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            circle: list[Any] = [1]
            circle.append(circle)
            value = identity.submit(circle).result()
            assert value[1] is value

        example()

    def test_state_as_argument(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            state: Any = add.submit(1, 2, return_state=True)
            return add.submit(state, 1).result()

        assert example() == 4

    def test_state_made_by_the_user_as_argument(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            values: Any = [Completed(data=1), Completed(data=2)]
            return total.submit(values).result()

        assert example() == 3

    def test_chain(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            future = add.submit(0, 0)
            for _ in range(100):
                future = add.submit(future, 1)
            return future.result()

        assert example() == 100

    def test_diamond(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            top = identity.submit(5)
            return add.submit(add.submit(top, 1), add_async.submit(top, 2)).result()

        assert example() == 13

    def test_fan_in(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            return total.submit([identity.submit(number) for number in range(200)]).result()

        assert example() == sum(range(200))

    def test_fan_out(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> Any:
            top = identity.submit(1)
            return {"values": [add.submit(top, number) for number in range(200)]}

        assert example() == {"values": [1 + number for number in range(200)]}

    # What passes untouched.

    def test_argument_without_futures_passes_by_identity(
        self, task_runner: BaseTaskRunner, in_process: bool
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            for value in ([1, [2]], {"a": {1}}, Parcel([1]), Opaque(1), list(range(100_000))):
                found = memory_address.submit(value).result()
                assert found == id(value) or not in_process

        example()

    def test_objects_are_not_entered(self, task_runner: BaseTaskRunner, in_process: bool) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            held = identity.submit(1) if in_process else Completed(data=1)
            name = content_type.submit(Opaque(held)).result()
            assert name == type(held).__name__

        example()

    def test_quoted_value_arrives_as_it_is(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            values: Any = quote([1, Failed(message="just data")])
            found = identity.submit(values).result()
            assert found[0] == 1
            assert isinstance(found[1], State)

        example()

    def test_quoted_future_is_not_waited_for(
        self, task_runner: BaseTaskRunner, in_process: bool
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            future = fail.submit()
            if in_process:
                assert type_name.submit(quote(future)).result() == "TaskFuture"
            assert future.exception() is not None

        example()
