"""Tasks as users define them: options, names, classes, kept task runs, arguments of `map`."""

from __future__ import annotations

import asyncio
import operator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from penstock import State, allow_failure, flow, get_run_context, task
from penstock.errors import (
    InvalidNameError,
    InvalidOptionError,
    ParameterBindError,
    SerializationError,
)
from penstock.task_runners import BaseTaskRunner, ConcurrentTaskRunner, SequentialTaskRunner

RUNNERS = (SequentialTaskRunner(), ConcurrentTaskRunner())


@pytest.fixture(params=RUNNERS, ids=str)
def task_runner(request: pytest.FixtureRequest) -> Any:
    return request.param


@task(retries=3, tags=["a"], timeout_seconds=5)
def sample(x: Any = 1) -> Any:
    """Give it back."""
    return x


# Options and names.


@pytest.mark.parametrize(
    "option",
    [
        {"task_run_name": 5},
        {"task_run_name": "{other}"},
        {"task_run_name": "}"},
        {"retry_condition_fn": 5},
        {"worker_loss_retries": -1},
        {"priority": 1.5},
        {"version": 5},
        {"description": 5},
        {"log_prints": "yes"},
        {"retry_delay_seconds": lambda retries: 1 / 0},
    ],
)
def test_option_that_cannot_be_is_refused_at_decoration(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(option))):
        sample.with_options(**option)


@pytest.mark.parametrize("tags", [5, [1], ["a", None]])
def test_tags_that_are_no_texts_are_refused(tags: Any) -> None:
    with pytest.raises(InvalidOptionError, match="tag"):
        sample.with_options(tags=tags)


def test_options_of_zero_and_none_are_honoured() -> None:
    changed = sample.with_options(retries=0, tags=None, timeout_seconds=None)
    assert (changed.retries, changed.tags, changed.timeout_seconds) == (0, frozenset(), None)
    assert sample.with_options(name="b").retries == 3


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ParameterBindError, match="@task has no option 'colour'."):
        sample.with_options(colour="red")


def test_decorating_twice_is_refused() -> None:
    for decorated in (sample, flow(sample.fn)):
        with pytest.raises(InvalidOptionError, match="@task needs a plain function"):
            task(decorated)


def test_attributes_of_the_function_do_not_hide_those_of_the_task() -> None:
    def tagged() -> int:
        return 1

    tagged.__dict__.update(fn="other", key="other", held=("other",))
    assert task(tagged)() == 1


def test_docstring_of_a_partial_is_that_of_its_function() -> None:
    assert task(partial(sample.fn, 1)).description == "Give it back."


def test_task_run_name_that_fails_counts_no_task_run(task_runner: BaseTaskRunner) -> None:
    nameless = sample.with_options(task_run_name="{x.missing}")

    @flow(task_runner=task_runner)
    def example() -> Any:
        for use in (nameless, nameless.submit):
            with pytest.raises(InvalidNameError, match="'int' object has no attribute 'missing'"):
                use(1)
        return {"task runs": get_run_context().flow_run.live.total}

    assert example() == {"task runs": 0}


def test_bad_arguments_of_an_async_task_are_refused_by_the_call() -> None:
    @task
    async def later(day: int) -> None: ...

    with pytest.raises(ParameterBindError, match="'later': missing a required argument: 'day'"):
        later()  # type: ignore[call-overload]


# Functions of every kind.


class Scale:
    square = task(partial(pow, exp=2))
    largest = task(max)

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @task
    def times(self, x: int) -> int:
        return self.factor * x

    @task
    async def times_later(self, x: int) -> int:
        return self.factor * x

    @task
    def own(self) -> int:
        return self.factor

    @classmethod
    @task
    def outer_title(cls, x: int) -> Any:
        return cls.__name__, x

    @task
    @classmethod
    def title(cls, x: int) -> Any:
        return cls.__name__, x

    @staticmethod
    @task
    def outer_plus(x: int) -> int:
        return x + 1

    @task
    @staticmethod
    def plus(x: int) -> int:
        return x + 1


def test_tasks_in_a_class_bind_like_methods(task_runner: BaseTaskRunner) -> None:
    scale: Any = Scale(3)
    owner: Any = Scale

    @flow(task_runner=task_runner)
    def example() -> Any:
        return {
            "called": (scale.times(2), owner.times(scale, 2), scale.times_later(2)),
            "submitted": (scale.times.submit(2).result(), scale.times_later.submit(2).result()),
            "mapped": scale.times.map([1, 2]).result(),
            "static": (scale.plus(1), owner.plus.submit(1).result(), owner.outer_plus(1)),
            "class": (scale.title(1), owner.title.submit(1).result(), owner.outer_title(1)),
            "unbound": (scale.square(3), scale.largest(1, 2)),
        }

    assert example() == {
        "called": (6, 6, 6),
        "submitted": (6, 6),
        "mapped": [3, 6],
        "static": (2, 2, 2),
        "class": (("Scale", 1),) * 3,
        "unbound": (9, 2),
    }


def test_bound_task_looks_like_its_method() -> None:
    assert Scale(1).times.__name__ == "times"  # type: ignore[attr-defined]
    assert Scale(1).times.name == "times"


# What a flow retry keeps.


def first_then_second(first: Any, second: Any) -> Any:
    attempts: list[int] = []

    @flow(retries=1)
    def example() -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            first()
            raise ValueError
        return {"value": second()}

    return example()["value"]


def test_retry_does_not_take_one_lambda_for_another() -> None:
    double = task(lambda x: 2 * x)
    square = task(lambda x: x**2)
    assert first_then_second(lambda: double(5), lambda: square(5)) == 25


def test_retry_does_not_take_one_partial_for_another() -> None:
    double, triple = task(partial(operator.mul, 2)), task(partial(operator.mul, 3))
    assert first_then_second(lambda: double(5), lambda: triple(5)) == 15


def test_retry_does_not_take_one_instance_for_another() -> None:
    assert first_then_second(lambda: Scale(2).times(5), lambda: Scale(3).times(5)) == 15
    assert first_then_second(lambda: Scale(2).own(), lambda: Scale(3).own()) == 3


def test_retry_keeps_the_task_run_of_an_equal_instance() -> None:
    calls = []

    @task
    def count(scale: Scale) -> int:
        calls.append(scale)
        return scale.factor

    assert first_then_second(lambda: count(Scale(2)), lambda: count(Scale(2))) == 2
    assert len(calls) == 1


# Values.


def test_interrupt_as_a_value_is_not_raised(task_runner: BaseTaskRunner) -> None:
    @task
    def give() -> BaseException:
        return KeyboardInterrupt("a value")

    assert isinstance(give(), KeyboardInterrupt)
    assert give(return_state=True).is_completed()

    @flow(task_runner=task_runner)
    def example() -> Any:
        return SystemExit(3)

    assert example(return_state=True).is_completed()


@pytest.mark.parametrize("make", [Future, lambda: asyncio.new_event_loop().create_future()])
def test_future_of_another_library_is_refused_as_a_value(make: Any) -> None:
    made = []

    @task
    def give() -> Any:
        made.append(make())
        return made[0]

    with pytest.raises(SerializationError, match="a future of another library"):
        give()
    if hasattr(made[0], "get_loop"):
        made[0].get_loop().close()


def test_special_exception_is_shown_as_a_state_when_asked_for() -> None:
    class Special(BaseException):
        pass

    @task
    def leave() -> None:
        raise Special("now")

    state = leave(return_state=True)
    assert str(state) == (
        'Crashed("Execution was interrupted by an unexpected exception: Special: now")'
    )
    with pytest.raises(Special, match="^now$"):
        leave()
    state = flow(leave.fn)(return_state=True)
    assert state.is_crashed()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_interrupt_is_raised_also_when_a_state_is_asked_for(interrupt: Any) -> None:
    @task
    def leave() -> None:
        raise interrupt

    with pytest.raises(interrupt):
        leave(return_state=True)


# Arguments of map.


def test_map_resolves_a_future_a_state_and_an_allowed_failure(task_runner: BaseTaskRunner) -> None:
    plain = sample.with_options(retries=0)

    @flow(task_runner=task_runner)
    def example() -> Any:
        future = plain.submit([1, 2])
        state = future.wait()
        assert isinstance(state, State)
        return {
            "future": plain.map(future).result(),
            "state": plain.map(state).result(),
            "allowed": plain.map(allow_failure(future)).result(),
        }

    assert example() == {"future": [1, 2], "state": [1, 2], "allowed": [1, 2]}


def test_max_in_flight_below_one_is_refused() -> None:
    @flow
    def example() -> None:
        sample.map([1], max_in_flight=0)

    with pytest.raises(InvalidOptionError, match="max_in_flight is 0; it must be at least 1."):
        example()


@pytest.mark.parametrize("options", [{}, {"max_in_flight": 2}], ids=["listed", "lazy"])
def test_every_mapped_run_waits_for_what_a_generator_gives(options: dict[str, Any]) -> None:
    @task
    def fail() -> None:
        raise ValueError("first")

    @task
    def follow(number: int) -> int:
        return number

    @flow
    def both() -> list[bool]:
        upstream = fail.submit()
        upstream.wait()
        futures = follow.map(range(3), wait_for=(each for each in [upstream]), **options)
        return [future.wait().is_pending() for future in futures]

    assert both() == [True, True, True]
