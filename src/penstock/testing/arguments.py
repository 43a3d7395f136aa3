"""The contract of arguments: what may be a task, and what shape its arguments keep."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from penstock import flow, task
from penstock.task_runners import BaseTaskRunner
from penstock.testing.sample_tasks import add, identity


class Adder:
    """An object whose method and call are used as tasks."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def method(self, value: Any) -> Any:
        """Add."""
        return value + self.amount

    def __call__(self, value: Any) -> Any:
        return value + self.amount

    @task
    def decorated(self, value: Any) -> Any:
        """Add."""
        return value + self.amount


class ArgumentsContract:
    """Section 4: what may be a task, and what shape its arguments keep."""

    @staticmethod
    def submitted(runner: BaseTaskRunner, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a task in a flow on the runner and give its result."""

        @flow(task_runner=runner)
        def example() -> Any:
            return {"value": called.submit(*args, **kwargs).result()}

        return example()["value"]

    def test_every_kind_of_parameter(self, task_runner: BaseTaskRunner) -> None:
        @task
        def shape(a: Any, /, b: Any, *rest: Any, c: Any, d: Any = 4, **more: Any) -> Any:
            return {"shape": (a, b, rest, c, d, more)}

        value = self.submitted(task_runner, shape, 1, 2, 3, 33, c=5, e=6)
        assert value == {"shape": (1, 2, (3, 33), 5, 4, {"e": 6})}

    def test_positional_only_name_is_free_for_keywords(self, task_runner: BaseTaskRunner) -> None:
        @task
        def shape(a: Any, /, **more: Any) -> Any:
            return {"shape": (a, more)}

        assert self.submitted(task_runner, shape, 1, a=2) == {"shape": (1, {"a": 2})}

    def test_keywords_named_like_our_own(self, task_runner: BaseTaskRunner) -> None:
        @task
        def shape(**given: Any) -> Any:
            return given

        given: dict[str, Any] = {
            name: name
            for name in ("self", "fn", "task", "args", "kwargs", "key", "name", "call", "runner")
        }
        assert self.submitted(task_runner, shape, **given) == given

    def test_defaults_are_filled_in(self, task_runner: BaseTaskRunner) -> None:
        @task
        def shape(a: Any, b: Any = (1, 2)) -> Any:
            return {"shape": (a, b)}

        assert self.submitted(task_runner, shape, 0) == {"shape": (0, (1, 2))}

    def test_wrong_arguments_are_a_type_error(self, task_runner: BaseTaskRunner) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            wrong: Any = add
            with pytest.raises(TypeError, match="add"):
                wrong.submit(1, 2, 3)
            with pytest.raises(TypeError, match="add"):
                wrong(1)

        example()

    def test_closure(self, task_runner: BaseTaskRunner) -> None:
        amount = 10

        @task
        def raised(value: Any) -> Any:
            return value + amount

        assert self.submitted(task_runner, raised, 1) == 11

    def test_lambda(self, task_runner: BaseTaskRunner) -> None:
        assert self.submitted(task_runner, task(lambda value: value * 2), 4) == 8

    def test_partial(self, task_runner: BaseTaskRunner) -> None:
        assert self.submitted(task_runner, task(functools.partial(divmod, 7)), 2) == (3, 1)

    def test_partial_of_a_coroutine_function(self, task_runner: BaseTaskRunner) -> None:
        async def difference(x: Any, y: Any) -> Any:
            return x - y

        called = task(name="difference")(functools.partial(difference, y=1))
        assert self.submitted(task_runner, called, 3) == 2

    def test_bound_method(self, task_runner: BaseTaskRunner) -> None:
        assert self.submitted(task_runner, task(Adder(5).method), 1) == 6

    def test_decorated_method(self, task_runner: BaseTaskRunner) -> None:
        assert self.submitted(task_runner, Adder(5).decorated, 2) == 7
        assert Adder(5).decorated(3) == 8

    def test_callable_object(self, task_runner: BaseTaskRunner) -> None:
        assert self.submitted(task_runner, task(Adder(5)), 3) == 8

    def test_builtin(self, task_runner: BaseTaskRunner) -> None:
        assert self.submitted(task_runner, task(len), [1, 2, 3]) == 3

    def test_generator_function_gives_a_list(self, task_runner: BaseTaskRunner) -> None:
        @task
        def numbers(count: int) -> Any:
            yield from range(count)

        assert self.submitted(task_runner, numbers, 3) == [0, 1, 2]

    def test_returned_generator_gives_a_list(self, task_runner: BaseTaskRunner) -> None:
        @task
        def numbers(count: int) -> Any:
            return (number for number in range(count))

        assert self.submitted(task_runner, numbers, 3) == [0, 1, 2]

    def test_async_generator_function_gives_a_list(self, task_runner: BaseTaskRunner) -> None:
        @task
        async def numbers(count: int) -> Any:
            for number in range(count):
                yield number

        assert self.submitted(task_runner, numbers, 3) == [0, 1, 2]

    def test_called_generator_function_gives_a_list(self, task_runner: BaseTaskRunner) -> None:
        @task
        def numbers(count: int) -> Any:
            yield from range(count)

        @flow(task_runner=task_runner)
        def example() -> Any:
            return {"value": numbers(2)}

        assert example() == {"value": [0, 1]}

    def test_failure_inside_a_generator_fails_the_task(self, task_runner: BaseTaskRunner) -> None:
        @task
        def numbers() -> Any:
            yield 1
            raise ValueError("half-way")

        with pytest.raises(ValueError, match="^half-way$"):
            self.submitted(task_runner, numbers)

    def test_argument_without_futures_passes_by_identity_when_called(
        self, task_runner: BaseTaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        def example() -> None:
            for value in ([1, [2]], {"a": {1, 2}}, (1, [2]), Adder(1)):
                assert identity(value) is value

        example()

    def test_large_argument_and_result(self, task_runner: BaseTaskRunner) -> None:
        large = bytes(range(256)) * 4096
        assert self.submitted(task_runner, identity, large) == large
